"""What a rebuild listed and a person handed back to the retention rules: they judge it again, and tell of it a day before."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from stowkeeper.archive import audit
from stowkeeper.archive.relisting import RELISTED
from stowkeeper.jobs.times import later
from stowkeeper.services.retention import retention_job
from stowkeeper.services.retention.judging import horizon
from stowkeeper.services.retention.releasing import ReleaseChoice, plan_release, release
from support.quiet_log import quiet_log
from support.retention_rig import DAY, RetentionRig, retention_rig, rule


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[RetentionRig]:
    """Three studies, one of two instances, that a rebuild listed; the rules looked for days."""
    with quiet_log(), retention_rig(tmp_path, rule()) as made:
        made.keep(1, 4)
        made.keep(2, study="1.2.20", series="1.2.20.1")
        made.keep(3, study="1.2.30", series="1.2.30.1", days_ago=1)
        with made.database.write() as transaction:
            transaction.execute(
                text("UPDATE changes SET detail = :words WHERE kind = 'received'"), {"words": RELISTED}
            )
        assert (made.look(), made.look_daily(3), made.removals()) == ([], [], [])
        yield made


def hand_back(rig: RetentionRig, *uids: str, before: str = "") -> int:
    choice = ReleaseChoice(uids=uids, before=before)
    return release(rig.database, choice, plan_release(rig.database, choice), "anna", "committed anew")


@pytest.mark.slow
def test_what_is_released_goes_by_the_rules_and_the_rest_stays(rig: RetentionRig) -> None:
    assert hand_back(rig) == 4
    rig.hold(2)
    rig.go_through()
    assert sorted(rig.gone()) == [1, 4]


@pytest.mark.slow
def test_a_study_goes_when_all_of_it_is_released(rig: RetentionRig) -> None:
    assert hand_back(rig, "1.2.3.1") == 1
    rig.go_through()
    assert rig.gone() == []
    assert hand_back(rig, "1.2.10") == 1
    rig.go_through()
    assert sorted(rig.gone()) == [1, 4]


@pytest.mark.slow
def test_what_is_released_is_told_of_a_day_before_it_goes(rig: RetentionRig) -> None:
    assert hand_back(rig, "1.2.20") == 1
    (line,) = rig.look()
    assert line["what"] == "a rule is going to remove what is old, in 24 hours at the earliest"
    assert rig.removals() == []
    rig.look_daily()
    rig.remove()
    assert rig.gone() == [2]


@pytest.mark.slow
def test_what_is_released_while_a_look_is_under_way_is_told_of_a_day_before_it_goes_too(
    rig: RetentionRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def released_first(connection: Connection, now: str, after_days: float) -> int:
        hand_back(rig, "1.2.20")
        return horizon(connection, now, after_days)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(retention_job, "horizon", released_first)
        rig.look()
    assert rig.removals() == []
    (line,) = rig.look()
    assert line["what"] == "a rule is going to remove what is old, in 24 hours at the earliest"
    assert rig.removals() == []
    rig.look_daily()
    rig.remove()
    assert rig.gone() == [2]


@pytest.mark.slow
def test_it_is_released_once_and_the_audit_trail_names_each_study(rig: RetentionRig) -> None:
    assert (hand_back(rig, "1.2.10", "1.2.20.1"), hand_back(rig, "1.2.10", "1.2.20.1")) == (3, 0)
    with rig.database.read() as connection:
        entries = audit.list_audit(connection)
    assert {(entry.who, entry.action, entry.subject, entry.detail) for entry in entries} == {
        ("anna", "released to retention rules", uid, f"listed by a rebuild, {versions}: committed anew")
        for uid, versions in (("1.2.10", "2 versions"), ("1.2.20", "1 version"))
    }
    assert len(entries) == 2


@pytest.mark.slow
def test_what_was_received_later_than_the_day_stays_spared(rig: RetentionRig) -> None:
    assert hand_back(rig, before=later(rig.clocks.wall, -30 * DAY)[:10]) == 3
    assert plan_release(rig.database, ReleaseChoice()).studies == {"1.2.30"}


def test_a_plan_counts_and_changes_nothing(rig: RetentionRig) -> None:
    rig.hold(1)
    choice = ReleaseChoice(uids=("1.2.10", "1.2.3.2", "1.2.99"))
    for _ in range(2):
        plan = plan_release(rig.database, choice)
        assert (plan.versions, plan.held, plan.studies) == (3, 1, {"1.2.10", "1.2.20"})
        assert plan.named == {"1.2.10", "1.2.3.2"}
        assert plan.size > 0
