"""How long to rest while many instances arrive."""

import pytest

from stowkeeper.services import resting
from stowkeeper.services.resting import Rests


@pytest.mark.parametrize(
    ("processor_seconds", "changes_a_second", "rest"),
    [(0.05, 99, 0.0), (0.05, 100, 1.6), (0.0, 5000, 0.0), (60.0, 5000, 5.0)],
)
def test_a_rest_is_as_long_as_the_work_was_dear_and_no_longer_than_its_bound(
    monkeypatch, processor_seconds, changes_a_second, rest
):
    now = 1000.0
    monkeypatch.setattr(resting.time, "monotonic", lambda: now)
    rests = Rests()
    rests.note(0)
    now += 1.0
    rests.note(changes_a_second)
    assert rests.rest_after(processor_seconds) == pytest.approx(rest)


def test_the_rate_is_that_between_the_last_two_looks(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(resting.time, "monotonic", lambda: now)
    rests = Rests()
    rests.note(5_000_000)
    assert rests.rest_after(0.1) == 0.0  # nothing is known of a rate yet
    now += 1.0
    rests.note(5_000_200)
    assert rests.rest_after(0.05) == pytest.approx(1.6)
    now += 3.0
    rests.note(5_000_210)
    assert rests.rest_after(0.1) == 0.0


def test_one_batch_of_rows_is_no_flood(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(resting.time, "monotonic", lambda: now)
    rests = Rests()
    rests.note(0)
    now += 0.001
    rests.note(4)  # 4,000 a second, reckoned over a moment 80
    assert rests.rest_after(0.1) == 0.0
