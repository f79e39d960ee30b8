"""Which jobs are taken, in which order, from which lanes; and what looking costs where nothing is due."""

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from stowkeeper.database.engine import Database
from stowkeeper.database.schema import job_lanes, jobs
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import Job, JobRequest
from stowkeeper.jobs.looking import LOOK, Sight, Viewpoint, look, statement_of
from stowkeeper.jobs.states import JobWish
from stowkeeper.jobs.taking import conclude_cancelled, take
from stowkeeper.jobs.times import later
from support.job_rig import MIDNIGHT, Clocks, act, database_with, find, submit


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def database(tmp_path: Path, clocks: Clocks) -> Database:
    return database_with(tmp_path, clocks)


def viewpoint(**more: Any) -> Viewpoint:
    usual = {
        "now": MIDNIGHT,
        "kinds": ("plain",),
        "plain_kinds": ("plain",),
        "places": 100,
        "failing_places": 100,
        "disk_lanes": 2,
    }
    return Viewpoint(**{**usual, **more})


def taken(database: Database, owner: str = "one", **more: Any) -> list[str]:
    """Take what there is; return the names of the jobs in their order."""
    with database.write() as transaction:
        return [each.job.subject for each in take(transaction, viewpoint(**more), owner)]


def sight(database: Database, **more: Any) -> Sight:
    with database.read() as connection:
        return look(connection, viewpoint(**more))


def name(database: Database, subject: str, lane: str = "", **more: Any) -> Job:
    return submit(database, subject=subject, lane=lane, **more)


def end_all(database: Database) -> None:
    with database.write() as transaction:
        transaction.execute(update(jobs).where(jobs.c.state == "running").values(state="success", owner=""))


def block(database: Database, lane: str, until: str, failures: int = 1) -> None:
    with database.write() as transaction:
        transaction.execute(
            job_lanes.insert().values(lane=lane, failures=failures, blocked_until=until, words="no answer")
        )


def test_the_larger_priority_goes_first_and_the_first_among_equals(database: Database) -> None:
    for subject, priority in (("a", 0), ("b", 5), ("c", 0), ("d", -5), ("e", 5)):
        name(database, subject, priority=priority)
    assert taken(database, places=2) == ["b", "e"]
    assert taken(database) == ["a", "c", "d"]
    assert taken(database) == []


def test_priority_goes_over_lanes_and_order_within_them(database: Database) -> None:
    name(database, "a1", "peer:A")
    name(database, "a2", "peer:A", priority=3)
    name(database, "b1", "peer:B", priority=9)
    name(database, "d1", "disk")
    name(database, "d2", "disk", priority=4)
    name(database, "d3", "disk")
    assert taken(database) == ["b1", "d2", "a2", "d1"]
    end_all(database)
    assert taken(database) == ["a1", "d3"]


def test_a_taken_job_says_who_has_it(database: Database, clocks: Clocks) -> None:
    job = name(database, "a")
    clocks.pass_(10)
    assert taken(database, "me", now=clocks.wall) == ["a"]
    first = find(database, job)
    assert (first.state, first.owner, first.attempts, first.started_at) == ("running", "me", 1, clocks.wall)
    with database.write() as transaction:
        transaction.execute(update(jobs).values(state="retry", owner=""))
    clocks.pass_(10)
    taken(database, "you", now=clocks.wall)
    second = find(database, job)
    assert (second.owner, second.attempts, second.started_at) == ("you", 2, first.started_at)
    assert second.heartbeat > first.heartbeat


def test_lanes_hold_as_many_as_they_hold_over_all_processes(database: Database) -> None:
    for number in range(4):
        for lane in ("", "disk", "peer:A"):
            name(database, f"{lane}{number}", lane)
    assert taken(database, "one") == ["0", "disk0", "peer:A0", "1", "disk1", "2", "3"]
    assert taken(database, "two") == []
    assert sight(database).has_due is False
    assert taken(database, "two", disk_lanes=3) == ["disk2"]


def test_jobs_wait_until_they_are_due(database: Database, clocks: Clocks) -> None:
    name(database, "late", due_at=later(MIDNIGHT, 10))
    name(database, "now")
    assert taken(database) == ["now"]
    assert not sight(database, now=later(MIDNIGHT, 9.999999)).has_due
    assert sight(database, now=later(MIDNIGHT, 10)).has_due
    assert taken(database, now=later(MIDNIGHT, 10)) == ["late"]


def test_what_is_paused_or_finished_is_not_taken(database: Database) -> None:
    for state in ("paused", "success", "failure", "cancelled", "running"):
        job = name(database, state)
        with database.write() as transaction:
            transaction.execute(update(jobs).where(jobs.c.job_key == job.job_key).values(state=state))
    assert not sight(database).has_due
    assert taken(database) == []


def test_kinds_that_are_not_known_are_left_alone(database: Database) -> None:
    submit(database, "other", subject="o", lane="peer:A")
    name(database, "p", "peer:A")
    assert taken(database) == ["p"]
    end_all(database)
    assert not sight(database).has_due
    assert taken(database, kinds=("other",)) == ["o"]


def test_without_a_place_nothing_is_taken(database: Database) -> None:
    name(database, "a")
    assert not sight(database, places=0).has_due
    assert taken(database, places=0) == []


def test_a_blocked_lane_is_passed_over_until_its_time(database: Database) -> None:
    name(database, "a", "peer:A", priority=9)
    name(database, "b", "peer:B")
    block(database, "peer:A", later(MIDNIGHT, 30))
    assert taken(database) == ["b"]
    assert not sight(database).has_due
    assert sight(database, now=later(MIDNIGHT, 30)).has_due
    assert taken(database, now=later(MIDNIGHT, 30)) == ["a"]


def test_lanes_that_answered_go_before_those_that_failed(database: Database) -> None:
    name(database, "a", "peer:A")
    name(database, "b", "peer:B")
    name(database, "c", "peer:C", priority=1)
    block(database, "peer:A", MIDNIGHT)
    block(database, "peer:C", MIDNIGHT)
    assert taken(database, places=1) == ["c"]
    assert taken(database) == ["b", "a"]


def test_lanes_that_failed_have_a_part_of_the_places(database: Database) -> None:
    for number in range(10):
        name(database, f"dead{number}", f"peer:{number}", priority=9)
        block(database, f"peer:{number}", MIDNIGHT)
    name(database, "live", "peer:live")
    assert taken(database, places=6, failing_places=3) == ["dead0", "dead1", "dead2", "live"]
    # And then no write transaction is begun for the others.
    assert not sight(database, places=2, failing_places=0).has_due
    assert taken(database, places=2, failing_places=0) == []


def test_in_a_lane_that_failed_another_job_has_the_next_try(database: Database, clocks: Clocks) -> None:
    for subject in ("a", "b", "c"):
        name(database, subject, "peer:A")
    name(database, "first", "peer:A", priority=1)
    block(database, "peer:A", MIDNIGHT)
    seen = []
    for _ in range(8):
        clocks.pass_(60)
        seen += taken(database, now=clocks.wall)
        with database.write() as transaction:
            transaction.execute(
                update(jobs)
                .where(jobs.c.state == "running")
                .values(state="retry", owner="", due_at=clocks.wall, priority=0)
            )
    assert seen == ["first", "a", "b", "c", "first", "a", "b", "c"]


# Cancelled while they waited


def test_those_with_nothing_to_conclude_are_cancelled_without_a_run(database: Database) -> None:
    plain = name(database, "p", "peer:A")
    block(database, "peer:A", later(MIDNIGHT, 1000))
    concluding = submit(database, "concluding")
    paused = name(database, "paused")
    act(database, rows.pause, paused)
    for job in (plain, concluding, paused):
        act(database, rows.cancel, job)
    kinds = ("plain", "concluding")
    assert sight(database, kinds=kinds).has_cancelled
    with database.write() as transaction:
        cancelled = conclude_cancelled(transaction, ("plain",))
    assert {job.job_id for job in cancelled} == {plain.job_id, paused.job_id}
    after = find(database, plain)
    assert (after.state, after.wish, after.finished_at, after.error) == (
        *("cancelled", "", MIDNIGHT),
        "cancelled by tester",
    )
    assert not sight(database, kinds=kinds).has_cancelled
    assert find(database, concluding).wish is JobWish.CANCEL
    assert taken(database, kinds=kinds) == [""]


# What was cancelled


def cancel_in(database: Database, lane: str, subject: str) -> Job:
    job = name(database, subject, lane=lane)
    act(database, rows.cancel, job)
    return job


CONCLUDING = {"plain_kinds": ()}
"""A viewpoint from which the kind has something to conclude."""


def test_what_was_cancelled_does_not_wait_for_its_blocked_lane(database: Database) -> None:
    block(database, "peer:A", later(MIDNIGHT, 3600))
    name(database, "waits", lane="peer:A", priority=9)
    assert not sight(database, **CONCLUDING).has_due
    cancel_in(database, "peer:A", "cancelled")
    assert sight(database, **CONCLUDING).has_due
    assert taken(database, **CONCLUDING) == ["cancelled"]
    assert not sight(database, **CONCLUDING).has_due


def test_what_was_cancelled_waits_for_its_turn_in_the_lane(database: Database) -> None:
    """One at a time is taken of a blocked lane too, none while another runs, and none without a place."""
    block(database, "peer:A", later(MIDNIGHT, 3600))
    for subject in ("first", "second"):
        cancel_in(database, "peer:A", subject)
    for more in ({"places": 0}, {"failing_places": 0}, {"kinds": ("other",)}):
        assert not sight(database, **CONCLUDING, **more).has_due
        assert taken(database, **CONCLUDING, **more) == []
    assert taken(database, **CONCLUDING) == ["first"]
    assert taken(database, **CONCLUDING) == []
    end_all(database)
    assert taken(database, **CONCLUDING) == ["second"]


def test_what_was_cancelled_and_is_due_later_waits_until_then(database: Database) -> None:
    """Its kind had something to tell the peer first, which was not there."""
    block(database, "peer:A", later(MIDNIGHT, 3600))
    cancel_in(database, "peer:A", "cancelled")
    with database.write() as transaction:
        transaction.execute(update(jobs).values(due_at=later(MIDNIGHT, 30)))
    assert not sight(database, **CONCLUDING).has_due
    assert sight(database, **CONCLUDING, now=later(MIDNIGHT, 30)).has_due


# What it costs


def plan_of(connection: Connection, view: Viewpoint) -> list[str]:
    """Return the steps of SQLite's plan for a look."""
    explained = statement_of(f"EXPLAIN QUERY PLAN {LOOK.text}", "kinds", "plain_kinds")
    values = {**view.parameters(), "plain_kinds": list(view.plain_kinds)}
    return [row[3] for row in connection.execute(explained, values)]


def test_a_look_goes_by_indexes_alone(database: Database) -> None:
    with database.read() as connection:
        steps = plan_of(connection, viewpoint())
    on_jobs = [step for step in steps if re.search(r"\bjobs\b", step)]
    assert len(on_jobs) == 7
    for step in on_jobs:
        assert "USING" in step, step
        assert re.search(r"INDEX jobs_(waiting|running|wished)", step), step
    # Whether anything is due is seen in the index itself, at one place of it for each lane.
    at_one_place = re.compile(
        r"SEARCH jobs (EXISTS )?USING COVERING INDEX jobs_waiting \(lane=\? AND due_at<\?\)"
    )
    assert any(at_one_place.search(step) for step in on_jobs), on_jobs
    # From one lane to the next in one step.
    assert any("SEARCH jobs USING COVERING INDEX jobs_waiting (lane>?)" in step for step in on_jobs), on_jobs


def instructions(connection: Connection, function: Callable[[], object]) -> int:
    """Count what SQLite's machine does for something, in tens of instructions."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(tick, 10)
    function()
    driver.set_progress_handler(None, 10)
    return count


def fill(database: Database, requests: Iterable[JobRequest]) -> None:
    with database.write() as transaction:
        rows.submit_many(transaction, requests)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"due_at": later(MIDNIGHT, 100)}, {"lane": "peer:A"}])
def test_looking_costs_the_same_however_many_wait(database: Database, more: dict[str, Any]) -> None:
    """They are due later, or due in a blocked lane: SQLite does not walk over them."""
    block(database, "peer:A", later(MIDNIGHT, 30))

    def cost() -> int:
        with database.read() as connection:
            return instructions(connection, lambda: look(connection, viewpoint()))

    one = JobRequest(kind="plain", arguments={}, **more)
    fill(database, [one])
    before = cost()
    fill(database, [one] * 1000)
    assert cost() <= before + 1
    assert not sight(database).has_due


def test_fifty_dead_lanes_leave_a_look_cheap(database: Database) -> None:
    fill(
        database,
        [
            JobRequest(kind="plain", arguments={}, lane=f"peer:{number}")
            for number in range(50)
            for _ in range(20)
        ],
    )
    for number in range(50):
        block(database, f"peer:{number}", later(MIDNIGHT, 30))
    sight(database)
    begin = time.thread_time()
    for _ in range(20):
        assert not sight(database).has_due
    # A hundredth of a second of each second would be 1 %; it is about 0.1 %.
    assert (time.thread_time() - begin) / 20 < 0.01
