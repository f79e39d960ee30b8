"""Retention rules take away what is old, whole or not at all, and nothing that anybody still needs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, text, update

from stowkeeper.archive import catalog
from stowkeeper.archive.removal import Removal
from stowkeeper.database.schema import changes, consumers, jobs, versions
from stowkeeper.jobs import rows as job_rows
from stowkeeper.services.archive_jobs import RemoveJob
from stowkeeper.services.conditions import Conditions
from stowkeeper.services.retention import retention_job
from stowkeeper.services.retention.clock_watch import trust_clock
from stowkeeper.services.retention.rules import Unit
from stowkeeper.services.retention.survey import TAKEN, survey
from support.archive_rig import check_settled
from support.instances import HANGING_PROTOCOL_STORAGE, make_instance
from support.quiet_log import quiet_log
from support.retention_rig import DAY, RetentionRig, retention_rig, rule

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_log():
        yield


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[RetentionRig]:
    with retention_rig(tmp_path, rule()) as made:
        yield made


def outcomes(rig: RetentionRig) -> list[tuple[str, str]]:
    return [(item.outcome, item.words) for item in rig.remove()]


# What goes, and when.


def test_what_is_old_goes_a_day_after_the_log_said_so_and_the_ledger_says_why(rig: RetentionRig) -> None:
    rig.keep(1, 2, study="1.2.10", series="1.2.10.1")
    rig.keep(3, study="1.2.20", series="1.2.20.1", days_ago=20)
    (notice,) = rig.look()
    assert notice["what"] == "a rule is going to remove what is old, in 24 hours at the earliest"
    assert (notice["rule"], notice["count"], notice["instances"]) == ("old", 1, 2)
    assert notice["log_level"] == "warning"
    rig.clocks.pass_(DAY - 60)
    assert rig.look() == []
    assert rig.removals() == []
    rig.clocks.pass_(60)
    (said,) = rig.look()
    assert (said["what"], said["rule"], said["count"]) == ("a rule removes what is old", "old", 1)
    assert rig.gone() == []
    assert outcomes(rig) == [("removed", "2 versions removed")]
    assert rig.gone() == [1, 2]
    assert rig.reasons() == {"retention rule old"}
    assert len(rig.files()) == 1
    check_settled(rig.archive)
    (removed,) = [line for line in rig.logs if line.get("uid") == "1.2.10"]
    assert (removed["what"], removed["reason"]) == ("removed", "retention rule old")


def test_what_becomes_old_later_is_told_of_and_goes_later(rig: RetentionRig) -> None:
    rig.keep(1, days_ago=29.5)
    assert rig.look() == []
    assert [line["instances"] for line in rig.look_daily()] == [1]
    assert rig.removals() == []
    rig.look_daily()
    assert outcomes(rig) == [("removed", "1 version removed")]


def test_a_late_arrival_renews_the_age_of_its_study(rig: RetentionRig) -> None:
    rig.keep(1)
    rig.keep(2, days_ago=1)
    assert rig.go_through() == []
    rig.clocks.pass_(29 * DAY)
    assert len(rig.look()) == 1
    rig.look_daily()
    assert outcomes(rig) == [("removed", "2 versions removed")]


def test_the_same_bytes_again_renew_it_too(rig: RetentionRig) -> None:
    rig.keep(1)
    rig.keep(1, days_ago=1)  # answered with Success, and no file of its own is kept
    assert len(rig.files()) == 1
    assert rig.go_through() == []


def test_by_instance_each_goes_alone(rig: RetentionRig) -> None:
    rig.rules[:] = [rule(by=Unit.INSTANCE)]
    rig.keep(1)
    rig.keep(2, study="", sop_class_uid=HANGING_PROTOCOL_STORAGE)  # outside of all studies
    rig.keep(3, days_ago=1)
    rig.go_through()
    assert rig.gone() == [1, 2]
    check_settled(rig.archive)


def test_what_is_outside_of_all_studies_goes_by_no_rule_for_studies(rig: RetentionRig) -> None:
    rig.keep(1, study="", sop_class_uid=HANGING_PROTOCOL_STORAGE)
    assert rig.go_through() == []


def test_a_study_goes_by_a_rule_that_all_of_it_fits(rig: RetentionRig) -> None:
    rig.rules[:] = [rule(conditions=Conditions(calling_ae_titles=("SCANNER",)))]
    rig.keep(1)
    rig.keep(2, study="1.2.20", series="1.2.20.1")
    other = rig.archive.keep(make_instance(3, study="1.2.20", series="1.2.20.1").sent_by("VIEWER"))
    rig.archive.finish()
    with rig.database.write() as transaction:
        transaction.execute(
            text("UPDATE receipts SET received_at = '2020-01-01T00:00:00.000000Z' WHERE receipt_id = :id"),
            {"id": other.receipt_id},
        )
    rig.go_through()
    assert rig.gone() == [1]
    assert [finding.spared for finding in survey(rig.database, rig.rules, rig.clocks.wall)] == [
        "some of its instances do not fit the rule"
    ]


# What stays.


def path_of(connection: Connection, number: int) -> str:
    return catalog.find_versions(connection, [f"1.2.3.{number}"])[f"1.2.3.{number}"][0].path


def hold(rig: RetentionRig) -> None:
    rig.hold(2)


def forward(rig: RetentionRig) -> None:
    rig.forward(2)


def fail_to_forward(rig: RetentionRig) -> None:
    rig.forward(2, state="failed")


def damage(rig: RetentionRig) -> None:
    with rig.database.write() as transaction:
        catalog.mark_damaged(transaction, path_of(transaction.connection, 2), "test")


def conflict(rig: RetentionRig) -> None:
    rig.keep(2, content=1)


def replace(rig: RetentionRig) -> None:
    with rig.database.write() as transaction:
        transaction.execute(
            update(versions)
            .where(versions.c.version_key == rig.version_key(2))
            .values(state="superseded", removal_due_at="2030-01-01T00:00:00.000000Z")
        )


def still_arrive(rig: RetentionRig) -> None:
    with rig.database.write() as transaction:
        transaction.execute(insert(consumers), [{"name": "forwarding", "seq": 1}])


STAYS: dict[str, Callable[[RetentionRig], None]] = {
    "held": hold,
    "to be forwarded": forward,
    "damaged": damage,
    "in conflict": conflict,
    "a version that was replaced is still kept": replace,
    "the forwarding rules did not look at all of it yet": still_arrive,
}


@pytest.mark.parametrize(("why", "happens"), [*STAYS.items(), ("to be forwarded", fail_to_forward)])
def test_what_stays_spares_its_study_and_is_told_of(
    rig: RetentionRig, why: str, happens: Callable[[RetentionRig], None]
) -> None:
    rig.keep(1, 2)
    happens(rig)
    found = survey(rig.database, rig.rules, rig.clocks.wall)
    assert [(finding.holding.uid, finding.spared) for finding in found] == [("1.2.10", why)]
    files = rig.files()
    rig.go_through()
    assert (rig.gone(), rig.files()) == ([], files)


COMES_BETWEEN = {
    "1.2.3.2 (commitment 1.2 asked by CT1)": hold,
    "to be forwarded": forward,
    "damaged": damage,
    "in conflict": conflict,
}


@pytest.mark.parametrize(("why", "happens"), COMES_BETWEEN.items())
def test_what_comes_between_the_look_and_the_removal_is_heeded(
    rig: RetentionRig, why: str, happens: Callable[[RetentionRig], None]
) -> None:
    rig.keep(1, 2)
    rig.look()
    rig.look_daily()
    happens(rig)
    (item,) = rig.remove()
    assert item.outcome == "spared"
    assert why in item.words
    assert rig.gone() == []


@pytest.mark.parametrize("comes_between", [False, True])
def test_by_instance_what_stays_spares_itself_alone(rig: RetentionRig, *, comes_between: bool) -> None:
    rig.rules[:] = [rule(by=Unit.INSTANCE)]
    rig.keep(1, 2, 3, 4, 5)
    if comes_between:
        rig.look()
        rig.look_daily()
    rig.hold(2)
    rig.forward(3)
    rig.keep(4, content=1)
    with rig.database.write() as transaction:
        catalog.mark_damaged(transaction, path_of(transaction.connection, 5), "test")
    if comes_between:
        found = {item.name: item.outcome for item in rig.remove()}
        assert found == {"1.2.3.1": "removed"} | {f"1.2.3.{number}": "spared" for number in (2, 3, 4, 5)}
    else:
        rig.go_through()
    assert rig.gone() == [1]


@pytest.mark.parametrize("why", ["held", "to be forwarded"])
def test_what_comes_between_the_plan_and_its_transaction_is_heeded(rig: RetentionRig, why: str) -> None:
    rig.keep(1, 2)
    rig.look()
    rig.look_daily()
    key = rig.version_key(2)

    def happens(connection: Connection) -> None:
        if why == "held":
            statement = "INSERT INTO holds (version_key, reason, held_since) VALUES (:key, 'x', 'y')"
        else:
            statement = (
                "INSERT INTO forwards (version_key, destination, rule, priority, state, words, created_at, changed_at)"
                " VALUES (:key, 'pacs', 'all', 0, 'queued', '', 'y', 'y')"
            )
        connection.execute(text(statement), {"key": key})

    (item,) = rig.remove(happens)
    assert (item.outcome, item.words) == ("spared", why)
    assert rig.gone() == []
    assert len(rig.files()) == 2


def test_a_late_arrival_between_the_look_and_the_removal_spares_all_of_the_study(rig: RetentionRig) -> None:
    rig.keep(1)
    rig.look()
    rig.look_daily()
    rig.keep(2, days_ago=0)
    assert outcomes(rig) == [("spared", "not old enough")]
    assert rig.gone() == []


def test_another_thing_of_the_same_uid_is_not_taken_along(rig: RetentionRig) -> None:
    # A sender may give an instance the UID of somebody else's study.
    rig.keep(1, study="1.2.3.9", series="1.2.3.9.1")
    rig.keep(9, study="1.2.20", series="1.2.20.1", days_ago=1)
    rig.look()
    rig.look_daily()
    assert outcomes(rig) == [("spared", "it changed meanwhile")]
    assert rig.gone() == []


def test_with_only_forwarded_to_all_of_a_study_has_to_be_there(rig: RetentionRig) -> None:
    rig.rules[:] = [rule(only_forwarded_to=("pacs", "cloud"))]
    rig.keep(1, 2)
    for number, destination in ((1, "pacs"), (2, "pacs"), (1, "cloud")):
        rig.forward(number, destination, "sent")
    assert rig.go_through() == []
    rig.forward(2, "cloud", "dropped")
    assert rig.go_through() == []
    with rig.database.write() as transaction:
        transaction.execute(text("UPDATE forwards SET state = 'sent'"))
    assert [item.outcome for item in rig.go_through()] == ["removed"]


def test_forwarding_rules_that_looked_at_all_of_it_keep_nothing(rig: RetentionRig) -> None:
    rig.keep(1)
    with rig.database.write() as transaction:
        newest = transaction.execute(text("SELECT max(seq) FROM changes")).scalar_one()
        transaction.execute(insert(consumers), [{"name": "forwarding", "seq": newest}])
    rig.go_through()
    assert rig.gone() == [1]


def test_a_study_that_is_not_quiet_waits_for_the_rules_of_quiet_studies(rig: RetentionRig) -> None:
    rig.keep(1)
    with rig.database.write() as transaction:
        transaction.execute(insert(consumers), [{"name": "forwarding", "seq": 1000}])
        transaction.execute(
            text(
                "INSERT INTO study_watches (study_key, revision, revision_began_at, last_arrival_at, last_version_key,"
                " arrivals, quiet_due_at) SELECT study_key, 1, 'x', 'x', 1, 1, '2026-03-02' FROM studies"
            )
        )
    assert rig.go_through() == []
    with rig.database.write() as transaction:
        transaction.execute(text("UPDATE study_watches SET quiet_due_at = NULL"))
    rig.go_through()
    assert rig.gone() == [1]


# Rules that change, and several of them.


def test_a_rule_that_is_switched_off_stops_what_it_asked_for(rig: RetentionRig) -> None:
    rig.keep(1)
    rig.look()
    rig.look_daily()
    del rig.rules[:]
    assert outcomes(rig) == [("spared", "the rule is not in force any more")]
    assert rig.look() == []
    with rig.database.read() as connection:
        found = connection.execute(jobs.select().where(jobs.c.kind == retention_job.RETENTION)).one()
    assert (found.state, found.error) == ("success", "there are no retention rules")
    assert rig.gone() == []


def test_a_rule_that_reads_otherwise_begins_anew(rig: RetentionRig) -> None:
    rig.keep(1)
    rig.look()
    rig.look_daily()
    rig.rules[:] = [rule(after_days=90.0)]
    assert outcomes(rig) == [("spared", "the rule reads otherwise by now")]
    assert [line["after_days"] for line in rig.look()] == [90.0]
    assert rig.removals() == []
    rig.look_daily()
    assert [outcome for outcome, _ in outcomes(rig)] == ["removed"]


def test_of_two_rules_the_first_removes_and_the_log_names_it(rig: RetentionRig) -> None:
    rig.rules[:] = [rule("short"), rule("long", after_days=60.0)]
    rig.keep(1)
    found = [
        (finding.rule.name, finding.spared) for finding in survey(rig.database, rig.rules, rig.clocks.wall)
    ]
    assert found == [("short", ""), ("long", TAKEN)]
    rig.go_through()
    assert rig.reasons() == {"retention rule short"}
    assert [line["rule"] for line in rig.logs if line.get("what") == "a rule removes what is old"] == [
        "short"
    ]
    assert [line["reason"] for line in rig.logs if line.get("what") == "removed"] == ["retention rule short"]


# How much at a time.


def test_one_look_removes_no_more_than_its_limit(rig: RetentionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_job, "LOOK_VERSIONS_MAX", 2)
    for number in (1, 2, 3, 4, 5):
        rig.keep(number, study=f"1.2.{number}", series=f"1.2.{number}.1")
    (notice,) = rig.look()
    assert (notice["count"], notice["log_level"]) == (5, "warning")
    (_, said) = rig.look_daily()[-1:] * 2
    assert (said["count"], said["and_more"]) == (2, True)
    rig.clocks.pass_(3600)
    rig.look()
    assert len(rig.removals()) == 1, "while a removal is under way no other one is put in"
    rig.remove()
    assert rig.gone() == [1, 2]
    rig.clocks.pass_(3600)
    rig.look()
    rig.remove()
    assert rig.gone() == [1, 2, 3, 4]


def test_a_study_larger_than_the_limit_goes_whole(rig: RetentionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_job, "LOOK_VERSIONS_MAX", 2)
    rig.keep(1, 2, 3)
    rig.go_through()
    assert rig.gone() == [1, 2, 3]


def test_removals_of_rules_go_at_a_bounded_rate(rig: RetentionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    made = RemoveJob.__module__

    class Pace:
        def __init__(self, stopping: object, rate: float | None = None) -> None:
            rates.append(rate)

        def __call__(self, count: int) -> None:
            if count:
                counted.append(count)

    counted: list[int] = []
    monkeypatch.setattr(f"{made}.Pace", Pace)
    rig.keep(1, 2)
    rig.go_through()
    assert rates == [100.0]
    assert counted == [2]


def test_a_removal_that_broke_off_in_its_middle_goes_on(
    rig: RetentionRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.keep(1, 2)
    rig.look()
    rig.look_daily()
    finish = Removal.finish

    def breaks(self: Removal, *arguments: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Removal, "finish", breaks)
    assert rig.remove() != []
    assert set(rig.states().values()) == {"removing"}
    monkeypatch.setattr(Removal, "finish", finish)
    with rig.database.write() as transaction:
        transaction.execute(text("UPDATE jobs SET state = 'pending' WHERE kind = 'remove'"))
    assert [(item.outcome, item.words) for item in rig.remove()] == [("removed", "2 versions removed")]
    assert rig.gone() == [1, 2]


# The clock.


def test_a_clock_set_forward_by_years_removes_nothing_and_says_so(rig: RetentionRig) -> None:
    rig.keep(1, days_ago=1)
    rig.look()
    rig.clocks.set_by(10 * 365 * DAY)
    (said,) = rig.look()
    assert (said["log_level"], said["mend"]) == (
        "error",
        "set the clock; if it is right: stowkeeper retention trust-clock",
    )
    assert "2036-" in said["why"]
    assert "2026-03-01" in said["why"]
    rig.keep(2, study="1.2.20", series="1.2.20.1", days_ago=0)  # by the same clock
    assert [line["log_level"] for line in rig.look_daily(3)] == ["error"], "once a day"
    assert rig.removals() == []
    rig.clocks.set_by(-10 * 365 * DAY)
    rig.look_daily(5)
    assert rig.removals() == []
    assert rig.gone() == []


def test_neither_does_it_across_a_restart(rig: RetentionRig) -> None:
    rig.keep(1, days_ago=1)
    rig.look()
    rig.clocks.set_by(365 * DAY)
    rig.__post_init__()  # another process, which saw nothing before
    assert [line["log_level"] for line in rig.look()] == ["error"]
    rig.__post_init__()
    rig.look_daily(3)
    assert rig.removals() == []


def test_what_was_doubted_is_doubted_after_a_restart_and_said_once_a_day(rig: RetentionRig) -> None:
    rig.keep(1)
    rig.look()
    rig.clocks.set_by(3 * DAY)  # which a server that was off for so long could have come by
    assert [line["log_level"] for line in rig.look()] == ["error"]
    rig.__post_init__()
    rig.clocks.pass_(3600)
    assert rig.look() == []
    assert [line["log_level"] for line in rig.look_daily()] == ["error"]
    assert rig.removals() == []
    rig.clocks.set_by(-3 * DAY)
    assert [line["log_level"] for line in rig.look()] == ["warning"], "it is told of anew"


def test_nor_does_it_where_nothing_looked_before(rig: RetentionRig) -> None:
    rig.keep(1, days_ago=1)
    rig.clocks.set_by(365 * DAY)
    assert [line["log_level"] for line in rig.look()] == ["error"]


def test_a_person_who_says_that_the_clock_is_right_ends_that_and_gets_a_day_of_notice(
    rig: RetentionRig,
) -> None:
    rig.keep(1)
    rig.look()
    rig.clocks.set_by(365 * DAY)
    rig.look()
    with rig.database.write() as transaction:
        trust_clock(transaction, "anna")
    assert [line["log_level"] for line in rig.look()] == ["warning"]
    assert rig.removals() == []
    rig.look_daily()
    assert [outcome for outcome, _ in outcomes(rig)] == ["removed"]
    with rig.database.read() as connection:
        found = connection.execute(text("SELECT who, action FROM audit")).one()
    assert tuple(found) == ("anna", "clock trusted")


def test_a_server_that_was_off_for_some_days_goes_on(rig: RetentionRig) -> None:
    rig.keep(1)
    rig.look()
    rig.__post_init__()
    rig.clocks.pass_(6 * DAY)
    rig.look()
    assert [outcome for outcome, _ in outcomes(rig)] == ["removed"]


def test_a_clock_that_is_put_back_takes_back_what_was_old(
    rig: RetentionRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_job, "LOOK_VERSIONS_MAX", 1)
    rig.keep(1, days_ago=31)
    rig.keep(2, study="1.2.20", series="1.2.20.1", days_ago=31)
    rig.go_through()
    assert rig.gone() == [1]
    rig.clocks.set_by(-5 * DAY)
    rig.look()
    assert rig.removals() == []


def test_what_came_while_the_clock_was_years_behind_is_as_old_as_its_neighbours(rig: RetentionRig) -> None:
    rig.keep(1, days_ago=20)
    rig.keep(2, study="1.2.20", series="1.2.20.1", days_ago=20 * 365)
    assert rig.go_through() == []
    assert [finding.spared for finding in survey(rig.database, rig.rules, rig.clocks.wall)] == [
        "not old enough",
        "not old enough",
    ]


@pytest.mark.parametrize(
    ("days_ago_of_next", "gone"),
    [
        pytest.param(35, [1, 2, 3], id="what came after it is old"),
        pytest.param(20, [1], id="what came after it is not"),
        pytest.param(7300, [1], id="what came after it was received by a clock that was behind"),
        pytest.param(None, [1], id="nothing came after it"),
    ],
)
def test_what_came_while_the_clock_was_years_ahead_is_as_old_as_its_neighbours(
    rig: RetentionRig, days_ago_of_next: float | None, gone: list[int]
) -> None:
    rig.keep(1, days_ago=40)
    rig.keep(2, study="1.2.20", series="1.2.20.1", days_ago=-3650)
    if days_ago_of_next is not None:
        rig.keep(3, study="1.2.30", series="1.2.30.1", days_ago=days_ago_of_next)
    rig.go_through()
    assert rig.gone() == gone


def test_where_all_came_while_the_clock_was_ahead_nothing_goes(rig: RetentionRig) -> None:
    rig.keep(1, days_ago=-3650)
    rig.keep(2, study="1.2.20", series="1.2.20.1", days_ago=40)
    assert rig.go_through() == []


# Asking before.


def test_asking_changes_nothing(rig: RetentionRig) -> None:
    rig.keep(1, 2)
    rig.keep(3, study="1.2.20", series="1.2.20.1", days_ago=1)

    def everything() -> list[object]:
        with rig.database.read() as connection:
            return [
                connection.execute(table.select()).all() for table in (versions, changes, jobs, consumers)
            ]

    before = everything()
    found = {
        finding.holding.uid: finding.spared for finding in survey(rig.database, rig.rules, rig.clocks.wall)
    }
    assert found == {"1.2.10": "", "1.2.20": "not old enough"}
    assert everything() == before


def test_a_removal_of_a_rule_that_nobody_can_ask_removes_nothing(rig: RetentionRig) -> None:
    rig.keep(1)
    rig.look()
    rig.look_daily()
    (job,) = rig.removals()
    rig._run(RemoveJob(rig._reader), job)
    with rig.database.read() as connection:
        (item,) = job_rows.items_of(connection, job.job_key)
    assert (item.outcome, item.words) == ("spared", "no retention rule is in force here")
    assert rig.gone() == []
