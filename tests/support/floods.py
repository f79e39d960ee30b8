"""A flood of instances that leaves no processor to others."""

from itertools import count

import pytest

from stowkeeper.services import resting
from stowkeeper.services.resting import Rests


def no_rests() -> Rests:
    """Return what tells nobody to rest, since nothing arrives."""
    return Rests(lambda: 0)


def rests_of_a_flood(monkeypatch: pytest.MonkeyPatch) -> Rests:
    """Return what tells everyone to rest for an hour after each portion, however small."""
    monkeypatch.setattr(resting, "REST_FACTOR", 1e12)
    monkeypatch.setattr(resting, "REST_SECONDS_MAX", 3600.0)
    arrived, worked = count(0, 1_000_000_000), count(0, 1_000_000_000)
    return Rests(lambda: next(arrived), processor_clock=lambda: float(next(worked)))
