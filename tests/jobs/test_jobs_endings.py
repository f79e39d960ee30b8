"""How runs end: every outcome with every wish, back-off, lanes, and what a peer's or a kind's words may not do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from stowkeeper.database.engine import Database
from stowkeeper.database.schema import job_lanes, jobs
from stowkeeper.jobs.back_off import back_off_seconds
from stowkeeper.jobs.endings import Died, Ended, Outcome, Raised, Stopped, changes_at_end, record
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.kind import Failed, Finished, NextStep, TryAgain
from stowkeeper.jobs.limits import (
    BACK_OFF_JITTER,
    DEATHS_AT_ONCE_MAX,
    DEATHS_MAX,
    EXCEPTIONS_MAX,
    RETRY_AHEAD_SECONDS_MAX,
    SLEEP_SECONDS_MAX,
    WORDS_LENGTH_MAX,
)
from stowkeeper.jobs.states import FINISHED, TRANSITIONS, JobState, JobWish
from stowkeeper.jobs.times import later
from support.job_rig import MIDNIGHT, Clocks, database_with, find, submit

RUNNING = Job(
    job_key=1,
    job_id="id",
    kind="plain",
    state=JobState.RUNNING,
    wish=JobWish.NONE,
    priority=0,
    lane="peer:A",
    step="",
    arguments={},
    checkpoint={"at": 1},
    items_total=0,
    items_done=0,
    subject="",
    peer="",
    created_at=MIDNIGHT,
    created_by="",
    due_at=MIDNIGHT,
    started_at=MIDNIGHT,
    finished_at=None,
    seconds_run=1.5,
    attempts=1,
    failures=0,
    faults=0,
    error="",
    owner="one",
    heartbeat=1,
)
CANCELLED = replace(RUNNING, wish=JobWish.CANCEL, error="cancelled by tester")
NOW = later(MIDNIGHT, 5)


def end(
    outcome: Outcome, *, began: Job = RUNNING, now: Job | None = None, concludes: bool = False
) -> dict[str, Any]:
    """Return what changes in a row that began as one job and stands as another now."""
    ended = Ended(job=began, outcome=outcome, seconds=2.0, concludes=concludes)
    return changes_at_end(now or began, ended, NOW)


outcomes = st.one_of(
    st.builds(Finished, st.text()),
    st.builds(Failed, st.text()),
    st.builds(
        NextStep, st.text(max_size=9), st.text(max_size=9), st.none() | st.just({"a": 1}), st.floats(-9, 1e9)
    ),
    st.builds(TryAgain, st.text(), st.none() | st.floats(-9, 1e9), st.booleans()),
    st.builds(Raised, st.text(), st.booleans()),
    st.just(Stopped()),
    st.just(Died()),
)
rows_now = st.builds(
    lambda wish, failures, faults: replace(RUNNING, wish=wish, failures=failures, faults=faults),
    st.sampled_from(JobWish),
    st.integers(0, 50),
    st.integers(0, 50),
)


@pytest.mark.slow
@given(outcomes, rows_now, st.booleans(), st.booleans())
def test_any_end_is_a_move_of_the_table_and_leaves_a_row_in_order(
    outcome: Outcome, now: Job, concludes: bool, began_cancelled: bool
) -> None:
    is_cancelled = began_cancelled and now.wish is JobWish.CANCEL
    began = replace(now, wish=JobWish.CANCEL) if is_cancelled else replace(now, wish=JobWish.NONE)
    changes = end(outcome, began=began, now=now, concludes=concludes)
    state = JobState(changes["state"])
    assert state in {after for (before, _), after in TRANSITIONS.items() if before is JobState.RUNNING}
    assert state is not JobState.RUNNING
    after = replace(now, **{name: value for name, value in changes.items() if name != "checkpoint"})
    assert after.owner == ""
    assert after.seconds_run == 3.5
    assert (after.finished_at == NOW) is (state in FINISHED)
    assert after.finished_at in (None, NOW)
    assert len(after.error) <= WORDS_LENGTH_MAX
    # A wish that is left is one to cancel, of a job that goes on in order to conclude it.
    assert after.wish == "" or (after.wish == "cancel" and concludes and state not in FINISHED)
    assert after.due_at <= later(NOW, SLEEP_SECONDS_MAX)
    if state is JobState.RETRY:
        assert after.due_at <= later(NOW, RETRY_AHEAD_SECONDS_MAX)
    if state is JobState.PAUSED:
        assert now.wish is JobWish.PAUSE


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Finished(), "success"),
        (Failed("no"), "failure"),
        (NextStep("report"), "pending"),
        (TryAgain("no"), "retry"),
        (Raised("no"), "retry"),
        (Stopped(), "pending"),
        (Died(), "pending"),
    ],
)
def test_without_a_wish_an_end_is_what_it_says(outcome: Outcome, state: str) -> None:
    assert end(outcome)["state"] == state


@pytest.mark.parametrize("outcome", [NextStep("report"), TryAgain("no"), Raised("no"), Stopped(), Died()])
def test_a_run_that_gives_way_is_paused_and_one_at_its_end_is_not(outcome: Outcome) -> None:
    now = replace(RUNNING, wish=JobWish.PAUSE)
    assert end(outcome, now=now)["state"] == "paused"
    assert end(Finished(), now=now)["state"] == "success"
    assert end(Failed("no"), now=now)["state"] == "failure"


def test_a_failure_leaves_what_it_says_for_who_runs_the_job_again() -> None:
    assert end(Failed("no", {"at": 2}))["checkpoint"] == '{"at":2}'
    assert "checkpoint" not in end(Failed("no"))


def test_a_pause_keeps_the_step_that_was_done() -> None:
    now = replace(RUNNING, wish=JobWish.PAUSE)
    changes = end(NextStep("report", "peer:B", {"at": 2}, 60), now=now)
    assert (changes["state"], changes["step"], changes["lane"]) == ("paused", "report", "peer:B")
    assert changes["checkpoint"] == '{"at":2}'
    assert changes["due_at"] == later(NOW, 60)


@pytest.mark.parametrize("outcome", [NextStep("report"), TryAgain("no"), Raised("no"), Stopped(), Died()])
def test_a_kind_with_nothing_to_conclude_is_cancelled_at_once(outcome: Outcome) -> None:
    changes = end(outcome, now=CANCELLED)
    assert (changes["state"], changes["wish"], changes["error"]) == ("cancelled", "", "cancelled by tester")


@pytest.mark.parametrize("outcome", [NextStep("report"), TryAgain("no"), Raised("no"), Stopped(), Died()])
def test_a_kind_that_concludes_is_run_once_more_at_once(outcome: Outcome) -> None:
    changes = end(outcome, now=CANCELLED, concludes=True)
    assert (changes["state"], changes.get("wish", "cancel"), changes["due_at"]) == ("pending", "cancel", NOW)
    assert changes["error"] == "cancelled by tester"


def test_what_was_done_before_the_cancellation_came_is_done() -> None:
    for concludes in (False, True):
        assert end(Finished(), now=CANCELLED, concludes=concludes)["state"] == "success"


@pytest.mark.parametrize(
    ("outcome", "state", "words"),
    [
        (Finished(), "cancelled", "cancelled by tester"),
        (Finished("told"), "cancelled", "told"),
        (Failed("peer is gone"), "failure", "peer is gone"),
        (NextStep("report", "peer:A"), "pending", "cancelled by tester"),
        (TryAgain("no answer"), "retry", "no answer"),
        (Stopped(), "pending", "cancelled by tester"),
    ],
)
def test_a_run_that_concludes_a_cancellation(outcome: Outcome, state: str, words: str) -> None:
    changes = end(outcome, began=CANCELLED, concludes=True)
    assert changes["state"] == state
    assert changes.get("error", CANCELLED.error) == words
    assert changes.get("wish", "cancel") == ("" if state in FINISHED else "cancel")


# Back-off


def test_the_back_off_doubles_to_ten_minutes_and_is_hourly_then() -> None:
    assert [back_off_seconds(failures) for failures in range(1, 10)] == [
        *(30, 60, 120, 240, 480),
        600,
        *(3600, 3600, 3600),
    ]
    assert back_off_seconds(0) == 30
    assert back_off_seconds(10**9) == 3600
    assert back_off_seconds(1, 1.0) == 30 * (1 + BACK_OFF_JITTER)


def test_failures_make_the_pause_longer_and_a_step_begins_anew() -> None:
    now = replace(RUNNING, failures=3, faults=2)
    changes = end(TryAgain("no"), now=now)
    assert (changes["failures"], changes["faults"], changes["due_at"]) == (4, 0, later(NOW, 240))
    assert end(TryAgain("no", 7.0), now=now)["due_at"] == later(NOW, 7)
    assert end(NextStep("report"), now=now)["failures"] == 0


@pytest.mark.parametrize("faults", range(EXCEPTIONS_MAX + 1))
def test_exceptions_in_a_row_end_in_failure_with_words(faults: int) -> None:
    changes = end(Raised("KeyError at check.py:7"), now=replace(RUNNING, faults=faults, failures=40))
    is_last = faults + 1 >= EXCEPTIONS_MAX
    assert changes["state"] == ("failure" if is_last else "retry")
    assert changes["error"].startswith("KeyError at check.py:7")
    assert ("jobs retry" in changes["error"]) is is_last


def test_an_exception_that_passes_never_fails_a_job() -> None:
    changes = end(Raised("disk full", passes=True), now=replace(RUNNING, faults=50, failures=50))
    assert (changes["state"], changes["faults"], changes["due_at"]) == ("retry", 0, later(NOW, 3600))


@pytest.mark.parametrize("faults", range(DEATHS_MAX + 1))
def test_a_job_that_kills_its_process_slows_down_and_fails(faults: int) -> None:
    changes = end(Died(), now=replace(RUNNING, faults=faults))
    deaths = faults + 1
    if deaths >= DEATHS_MAX:
        assert changes["state"] == "failure"
    elif deaths <= DEATHS_AT_ONCE_MAX:
        assert changes["state"] == "pending"
        assert "due_at" not in changes
    else:
        assert changes["state"] == "retry"
        assert changes["due_at"] == later(NOW, back_off_seconds(deaths - DEATHS_AT_ONCE_MAX))
    assert "process" in changes["error"]


def test_long_words_are_cut() -> None:
    error = end(Failed("x" * 10_000))["error"]
    assert len(error) == WORDS_LENGTH_MAX
    assert error.endswith("…")


# In the rows


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def database(tmp_path: Path, clocks: Clocks) -> Database:
    return database_with(tmp_path, clocks)


def running(database: Database, **more: Any) -> Job:
    """Put in a job and let it run, owned by "one"."""
    job = submit(database, lane="peer:A", **more)
    with database.write() as transaction:
        transaction.execute(
            update(jobs).where(jobs.c.job_key == job.job_key).values(state="running", owner="one", attempts=1)
        )
    return find(database, job)


def recorded(database: Database, job: Job, outcome: Outcome) -> Job | None:
    with database.write() as transaction:
        return record(transaction, Ended(job=job, outcome=outcome, seconds=1.0, concludes=False))


def lanes(database: Database) -> dict[str, tuple[int, str, str]]:
    with database.read() as connection:
        return {row.lane: tuple(row)[1:] for row in connection.execute(select(job_lanes))}


@pytest.mark.parametrize(
    "columns",
    [{"owner": "two"}, {"attempts": 2}, {"state": "pending", "owner": ""}, {"state": "paused"}],
)
def test_whose_lease_was_lost_has_no_say(database: Database, columns: dict[str, Any]) -> None:
    job = running(database)
    with database.write() as transaction:
        transaction.execute(update(jobs).values(columns))
    before = find(database, job)
    assert recorded(database, job, TryAgain("no", lane_is_blocked=True)) is None
    assert find(database, job) == before
    assert lanes(database) == {}


def test_a_wish_that_came_during_the_run_is_heeded(database: Database) -> None:
    job = running(database)
    with database.write() as transaction:
        transaction.execute(update(jobs).values(wish="pause"))
    after = recorded(database, job, Stopped())
    assert after == find(database, job)
    assert after is not None
    assert (after.state, after.wish) == ("paused", "")


def test_a_lane_is_blocked_ever_longer_and_its_job_is_due_with_it(database: Database, clocks: Clocks) -> None:
    job = running(database, checkpoint={"at": 1})
    for failures, seconds in ((1, 30), (2, 60), (3, 120)):
        after = recorded(database, job, TryAgain("no answer", lane_is_blocked=True))
        assert after is not None
        assert after.due_at == later(clocks.wall, seconds)
        assert lanes(database) == {"peer:A": (failures, later(clocks.wall, seconds), "no answer")}
        with database.write() as transaction:
            transaction.execute(update(jobs).values(state="running", owner="one", failures=0))
        clocks.pass_(seconds)


@pytest.mark.parametrize(
    ("outcome", "is_opened"),
    [
        (Finished(), True),
        (NextStep("report"), True),
        (TryAgain("refused for now"), True),
        (Failed("given up"), False),
        (Raised("KeyError"), False),
        (Stopped(), False),
        (Died(), False),
    ],
)
def test_who_got_through_opens_the_lane(database: Database, outcome: Outcome, is_opened: bool) -> None:
    job = running(database)
    with database.write() as transaction:
        for lane in ("peer:A", "peer:B"):
            transaction.execute(
                job_lanes.insert().values(lane=lane, failures=2, blocked_until=MIDNIGHT, words="no answer")
            )
    recorded(database, job, outcome)
    assert set(lanes(database)) == ({"peer:B"} if is_opened else {"peer:A", "peer:B"})


def test_no_lane_is_never_blocked(database: Database) -> None:
    job = running(database)
    with database.write() as transaction:
        transaction.execute(update(jobs).values(lane=""))
    assert recorded(database, find(database, job), TryAgain("no", lane_is_blocked=True)) is not None
    assert lanes(database) == {}
