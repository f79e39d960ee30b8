"""Jobs as rows: submitting, finding, listing by pages, and what people ask of them, in each state."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from stowkeeper.database.engine import Database
from stowkeeper.database.schema import audit, job_items, job_lanes, jobs
from stowkeeper.jobs import rows
from stowkeeper.jobs.filters import conditions
from stowkeeper.jobs.job import (
    Job,
    JobExistsError,
    JobFilter,
    JobItem,
    JobNotFoundError,
    JobRequest,
    JobTooLargeError,
)
from stowkeeper.jobs.limits import (
    ARGUMENTS_BYTES_MAX,
    BULK_ITEMS_MAX,
    BULK_JOBS_MAX,
    CHECKPOINT_BYTES_MAX,
    ITEMS_MAX,
    PAGE_MAX,
    PRIORITY_MAX,
    RETENTION_ROWS_MAX,
    SLEEP_SECONDS_MAX,
    TEXT_LENGTH_MAX,
)
from stowkeeper.jobs.states import JobAction, JobState, JobStateError, JobWish
from stowkeeper.jobs.times import later
from support.job_rig import MIDNIGHT, Clocks, act, database_with, find, submit


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def database(tmp_path: Path, clocks: Clocks) -> Database:
    return database_with(tmp_path, clocks)


def put(database: Database, job: Job, **columns: Any) -> Job:
    """Write columns of a row as they are, so that it stands in some state."""
    with database.write() as transaction:
        transaction.execute(update(jobs).where(jobs.c.job_key == job.job_key).values(columns))
    return find(database, job)


def audited(database: Database) -> list[tuple[str, str, str, str]]:
    with database.read() as connection:
        query = select(audit.c.who, audit.c.action, audit.c.subject, audit.c.detail).order_by(
            audit.c.audit_key
        )
        return [tuple(row) for row in connection.execute(query)]


def in_state(database: Database, state: JobState, **more: Any) -> Job:
    columns: dict[str, Any] = {"state": state.value}
    if state in (JobState.SUCCESS, JobState.FAILURE, JobState.CANCELLED):
        columns["finished_at"] = MIDNIGHT
    if state is JobState.RUNNING:
        columns |= {"owner": "somebody", "attempts": 1}
    return put(database, submit(database, "plain", lane="peer:A"), **columns, **more)


# Submitting


def test_a_submitted_job_is_what_is_found(database: Database) -> None:
    made = submit(
        database,
        "check",
        arguments={"uids": ["1.2", "1.3"], "deep": {"ü": None}},
        subject="1.2.3",
        peer="CT1",
        lane="disk",
        priority=7,
        created_by="tester",
        items=("a", "b", "c"),
        checkpoint={"at": 1},
    )
    assert find(database, made) == made
    assert (made.state, made.wish, made.items_total, made.created_at, made.due_at) == (
        *(JobState.PENDING, JobWish.NONE, 3),
        *(MIDNIGHT, MIDNIGHT),
    )
    with database.read() as connection:
        assert rows.items_of(connection, made.job_key) == [
            JobItem(position=number, name=name) for number, name in enumerate("abc")
        ]
        assert rows.items_of(connection, made.job_key, after=0, limit=1) == [JobItem(position=1, name="b")]


def test_a_job_is_there_exactly_when_its_transaction_is(database: Database) -> None:
    def submit_and_fail() -> None:
        with database.write() as transaction:
            rows.submit(transaction, JobRequest(kind="plain", arguments={}, job_id="mine", items=("a",)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        submit_and_fail()
    with database.read() as connection:
        assert rows.find(connection, "mine") is None
        assert connection.execute(select(job_items)).all() == []


def test_many_are_submitted_in_their_order_and_keys_are_never_given_again(database: Database) -> None:
    with database.write() as transaction:
        made = rows.submit_many(
            transaction, [JobRequest(kind="plain", arguments={"n": number}) for number in range(50)]
        )
    assert [job.arguments["n"] for job in made] == list(range(50))
    assert [job.job_key for job in made] == list(range(1, 51))
    put(database, made[-1], state="success", finished_at=MIDNIGHT)
    act(database, rows.delete, made[-1])
    assert submit(database).job_key == 51


def test_an_id_of_ones_own_is_taken_once(database: Database) -> None:
    submit(database, job_id="mine")
    with pytest.raises(JobExistsError, match="mine"):
        submit(database, job_id="mine")
    with pytest.raises(JobExistsError), database.write() as transaction:
        rows.submit_many(transaction, [JobRequest(kind="plain", arguments={}, job_id="two")] * 2)
    with database.read() as connection:
        assert rows.find(connection, "two") is None


def test_a_job_due_later_waits_but_never_longer_than_the_longest_sleep(database: Database) -> None:
    soon = later(MIDNIGHT, 60)
    assert submit(database, due_at=soon).due_at == soon
    assert submit(database, due_at=later(MIDNIGHT, 10 * SLEEP_SECONDS_MAX)).due_at == later(
        MIDNIGHT, SLEEP_SECONDS_MAX
    )
    with pytest.raises(ValueError, match="does not match"):
        submit(database, due_at="tomorrow")


def filled(bytes_max: int) -> dict[str, str]:
    """Return an object whose JSON is exactly so long."""
    return {"k": "x" * (bytes_max - len('{"k":""}'))}


@pytest.mark.parametrize(
    ("what", "limit"), [("arguments", ARGUMENTS_BYTES_MAX), ("checkpoint", CHECKPOINT_BYTES_MAX)]
)
def test_json_of_a_row_is_bounded(database: Database, what: str, limit: int) -> None:
    whole = filled(limit)
    assert len(json.dumps(whole, separators=(",", ":"))) == limit
    assert getattr(find(database, submit(database, **{what: whole})), what) == whole
    with pytest.raises(JobTooLargeError, match=f"{what} of a job take {limit + 1} bytes"):
        submit(database, **{what: filled(limit + 1)})
    # What is no ASCII is longer in the row than in characters.
    with pytest.raises(JobTooLargeError):
        submit(database, **{what: {"k": "ü" * (limit // 3)}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"x"])
def test_what_json_cannot_say_is_refused(database: Database, value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        submit(database, arguments={"k": value})


@pytest.mark.parametrize("name", ["kind", "subject", "peer", "lane", "created_by", "job_id"])
def test_texts_of_a_row_are_bounded(database: Database, name: str) -> None:
    submit(database, **{name: "x" * TEXT_LENGTH_MAX})
    with pytest.raises(JobTooLargeError, match=str(TEXT_LENGTH_MAX)):
        submit(database, **{name: "x" * (TEXT_LENGTH_MAX + 1)})


def test_items_and_priorities_are_bounded(database: Database) -> None:
    with pytest.raises(JobTooLargeError, match="several"):
        submit(database, items=["x"] * (ITEMS_MAX + 1))
    with pytest.raises(JobTooLargeError):
        submit(database, items=["x" * (TEXT_LENGTH_MAX + 1)])
    for priority in (PRIORITY_MAX, -PRIORITY_MAX):
        assert submit(database, priority=priority).priority == priority
    for priority in (PRIORITY_MAX + 1, -PRIORITY_MAX - 1):
        with pytest.raises(ValueError, match="priority"):
            submit(database, priority=priority)


# Looking


def test_lists_are_filtered_and_paged_newest_first(database: Database, clocks: Clocks) -> None:
    made = []
    for number in range(12):
        made.append(
            submit(
                database,
                ("check", "send")[number % 2],
                peer=("A", "B", "")[number % 3],
                subject="1.2" if number == 7 else "",
            )
        )
        clocks.pass_(10)
    put(database, made[5], state="failure", finished_at=MIDNIGHT)

    def found(**wanted: Any) -> list[int]:
        with database.read() as connection:
            return [job.job_key - 1 for job in rows.list_jobs(connection, JobFilter(**wanted))]

    assert found() == list(range(11, -1, -1))
    assert found(kind="check") == [10, 8, 6, 4, 2, 0]
    assert found(kind="check", peer="A") == [6, 0]
    assert found(state=(JobState.FAILURE, JobState.SUCCESS)) == [5]
    assert found(subject="1.2") == [7]
    assert found(created_from=made[3].created_at, created_to=made[6].created_at) == [5, 4, 3]
    first = found(limit=5)
    assert first + found(limit=5, before_key=first[-1] + 1) + found(before_key=3) == found()


@pytest.mark.parametrize("limit", [0, -1, PAGE_MAX + 1])
def test_a_page_has_a_size(limit: int) -> None:
    with pytest.raises(ValueError, match=str(PAGE_MAX)):
        JobFilter(limit=limit)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (JobFilter(kind="check"), "jobs_of_kind"),
        (JobFilter(peer="A"), "jobs_of_peer"),
        (JobFilter(subject="1.2"), "jobs_of_subject"),
        (JobFilter(before_key=5), "INTEGER PRIMARY KEY"),
    ],
)
def test_filters_go_by_an_index(database: Database, wanted: JobFilter, index: str) -> None:
    query = select(jobs).where(*conditions(wanted)).order_by(jobs.c.job_key.desc()).limit(10)
    with database.read() as connection:
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}"))
    assert index in plan
    assert "TEMP B-TREE" not in plan or wanted.subject  # few have one subject


def test_counts_and_the_oldest_that_waits(database: Database, clocks: Clocks) -> None:
    with database.read() as connection:
        assert rows.counts(connection) == {}
        assert rows.oldest_waiting_at(connection, clocks.now()) is None
    done = submit(database, "check")
    put(database, done, state="success", finished_at=MIDNIGHT)
    clocks.pass_(5)
    oldest = submit(database, "check")
    put(database, oldest, state="retry")
    clocks.pass_(5)
    submit(database, "send")
    submit(database, "send")
    with database.read() as connection:
        assert rows.counts(connection) == {
            ("check", JobState.SUCCESS): 1,
            ("check", JobState.RETRY): 1,
            ("send", JobState.PENDING): 2,
        }
        assert rows.oldest_waiting_at(connection, clocks.now()) == oldest.due_at


def test_the_oldest_that_waits_is_due(database: Database, clocks: Clocks) -> None:
    """What is to be done later waits for nobody, however long ago it was submitted."""
    perpetual = submit(database, "scrub", due_at=later(MIDNIGHT, 60))
    running = submit(database, "check")
    put(database, running, state="running", owner="one")
    with database.read() as connection:
        assert rows.oldest_waiting_at(connection, clocks.now()) is None
    clocks.pass_(30)
    second = submit(database, "check")
    clocks.pass_(40)
    with database.read() as connection:
        assert rows.oldest_waiting_at(connection, clocks.now()) == second.due_at
        assert rows.oldest_waiting_at(connection, later(MIDNIGHT, 29)) is None
    put(database, second, state="success", finished_at=clocks.now())
    with database.read() as connection:
        assert rows.oldest_waiting_at(connection, clocks.now()) == perpetual.due_at


def test_the_oldest_that_waits_is_found_among_those_that_wait(database: Database) -> None:
    with database.read() as connection:
        query = f"EXPLAIN QUERY PLAN {rows._OLDEST.compile(connection)}"
        plan = " ".join(str(row) for row in connection.exec_driver_sql(query, (MIDNIGHT,)))
    assert "COVERING INDEX jobs_waiting" in plan


# Actions, one by one

CANCEL = JobWish.CANCEL
NONE = JobWish.NONE
PAUSE = JobWish.PAUSE
AFTER: dict[tuple[JobAction, JobState], tuple[JobState, JobWish]] = {
    (JobAction.PAUSE, JobState.PENDING): (JobState.PAUSED, NONE),
    (JobAction.PAUSE, JobState.RETRY): (JobState.PAUSED, NONE),
    (JobAction.PAUSE, JobState.RUNNING): (JobState.RUNNING, PAUSE),
    (JobAction.RESUME, JobState.PAUSED): (JobState.PENDING, NONE),
    (JobAction.CANCEL, JobState.PENDING): (JobState.PENDING, CANCEL),
    (JobAction.CANCEL, JobState.RETRY): (JobState.PENDING, CANCEL),
    (JobAction.CANCEL, JobState.PAUSED): (JobState.PENDING, CANCEL),
    (JobAction.CANCEL, JobState.RUNNING): (JobState.RUNNING, CANCEL),
    (JobAction.RESUBMIT, JobState.RETRY): (JobState.PENDING, NONE),
    (JobAction.RESUBMIT, JobState.FAILURE): (JobState.PENDING, NONE),
    (JobAction.RESUBMIT, JobState.CANCELLED): (JobState.PENDING, NONE),
}
DELETED = (JobState.SUCCESS, JobState.FAILURE, JobState.CANCELLED)


@pytest.mark.parametrize("action", [action for action in JobAction if action is not JobAction.DELETE])
@pytest.mark.parametrize("state", JobState)
def test_each_action_in_each_state(database: Database, action: JobAction, state: JobState) -> None:
    job = in_state(database, state)
    before = find(database, job)
    if (action, state) not in AFTER:
        with pytest.raises(
            JobStateError, match=state.value if state is not JobState.RUNNING else "runs|running"
        ):
            act(database, getattr(rows, action.value), job)
        assert find(database, job) == before
        assert audited(database) == []
        return
    after = act(database, getattr(rows, action.value), job)
    assert after == find(database, job)
    assert (after.state, after.wish) == AFTER[action, state]
    ((who, what, subject, detail),) = audited(database)
    assert (who, subject, detail) == ("tester", job.job_id, "plain")
    assert what.startswith("job ")


@pytest.mark.parametrize("state", JobState)
def test_only_what_is_finished_is_deleted_with_its_items(database: Database, state: JobState) -> None:
    job = in_state(database, state)
    with database.write() as transaction:
        transaction.execute(
            job_items.insert().values(job_key=job.job_key, position=0, name="x", outcome="", words="")
        )
    if state in DELETED:
        assert act(database, rows.delete, job) == job
    else:
        with pytest.raises(JobStateError, match="cancel it first"):
            act(database, rows.delete, job)
    with database.read() as connection:
        assert (rows.find(connection, job.job_id) is None) is (state in DELETED)
        assert bool(rows.items_of(connection, job.job_key)) is (state not in DELETED)


@pytest.mark.parametrize(
    ("action", "more"), [*((getattr(rows, action), ()) for action in JobAction), (rows.set_priority, (1,))]
)
def test_a_job_that_is_not_there_is_said_so(
    database: Database, action: Callable[..., Job], more: tuple[int, ...]
) -> None:
    with pytest.raises(JobNotFoundError, match="no job nowhere"), database.write() as transaction:
        action(transaction, "nowhere", *more, "tester")


def test_asking_twice_changes_nothing_and_is_written_down_once(database: Database) -> None:
    job = in_state(database, JobState.RUNNING)
    assert act(database, rows.pause, job) == act(database, rows.pause, job)
    assert act(database, rows.cancel, job) == act(database, rows.cancel, job)
    assert [what for _, what, *_ in audited(database)] == ["job paused", "job cancelled"]


def test_a_wish_to_pause_is_taken_back_and_one_to_cancel_is_not(database: Database) -> None:
    job = in_state(database, JobState.RUNNING)
    act(database, rows.pause, job)
    assert act(database, rows.resume, job).wish is NONE
    with pytest.raises(JobStateError, match="nothing to resume"):
        act(database, rows.resume, job)
    act(database, rows.cancel, job)
    for action in (rows.pause, rows.resume):
        with pytest.raises(JobStateError):
            act(database, action, job)
    waiting = in_state(database, JobState.PENDING)
    act(database, rows.cancel, waiting)
    with pytest.raises(JobStateError, match="being cancelled"):
        act(database, rows.pause, waiting)


def test_cancelling_says_by_whom_and_is_due_at_once(database: Database) -> None:
    job = submit(database, due_at=later(MIDNIGHT, 600))
    after = act(database, rows.cancel, job)
    assert (after.error, after.due_at) == ("cancelled by tester", MIDNIGHT)


def test_a_pause_keeps_when_a_job_is_due(database: Database) -> None:
    due_at = later(MIDNIGHT, 600)
    job = submit(database, due_at=due_at)
    act(database, rows.pause, job)
    assert act(database, rows.resume, job).due_at == due_at


def test_resubmitting_counts_from_the_start_and_opens_the_lane(database: Database) -> None:
    job = in_state(
        database, JobState.FAILURE, failures=9, faults=3, error="gone", checkpoint='{"at":5}', due_at="x"
    )
    blocked = {"failures": 4, "blocked_until": later(MIDNIGHT, 600), "words": "no answer"}
    with database.write() as transaction:
        for lane in ("peer:A", "peer:B"):
            transaction.execute(job_lanes.insert().values(lane=lane, **blocked))
    after = act(database, rows.resubmit, job)
    assert (after.failures, after.faults, after.error, after.finished_at) == (0, 0, "", None)
    assert (after.due_at, after.checkpoint) == (MIDNIGHT, {"at": 5})
    with database.read() as connection:
        assert connection.execute(select(job_lanes.c.lane)).scalars().all() == ["peer:B"]


def test_priority_changes_until_a_job_is_finished(database: Database) -> None:
    job = in_state(database, JobState.RETRY)
    with database.write() as transaction:
        assert rows.set_priority(transaction, job.job_id, 5, "tester").priority == 5
        assert rows.set_priority(transaction, job.job_id, 5, "tester").priority == 5
        with pytest.raises(ValueError, match="priority"):
            rows.set_priority(transaction, job.job_id, PRIORITY_MAX + 1, "tester")
    assert [what for _, what, *_ in audited(database)] == ["job priority 5"]
    done = in_state(database, JobState.SUCCESS)
    with pytest.raises(JobStateError, match="finished"), database.write() as transaction:
        rows.set_priority(transaction, done.job_id, 5, "tester")


# Actions, many at once


@pytest.mark.parametrize("action", JobAction)
def test_a_bulk_action_does_what_the_single_one_does_where_it_can(
    database: Database, action: JobAction
) -> None:
    made = {state: in_state(database, state) for state in JobState}
    others = [submit(database, "other") for _ in range(2)]
    can = DELETED if action is JobAction.DELETE else {state for what, state in AFTER if what is action}
    with database.write() as transaction:
        done = rows.apply_to_all(transaction, JobFilter(kind="plain"), action, "tester")
    assert set(done) == {made[state].job_id for state in can}
    for state, job in made.items():
        with database.read() as connection:
            after = rows.find(connection, job.job_id)
        if state not in can:
            assert after == job
        elif action is JobAction.DELETE:
            assert after is None
        else:
            assert after is not None
            assert (after.state, after.wish) == AFTER[action, state]
    assert [find(database, job) for job in others] == others
    assert {subject for *_, subject, _ in audited(database)} == set(done)
    with database.write() as transaction:
        assert rows.apply_to_all(transaction, JobFilter(kind="plain"), action, "tester") == []


@pytest.mark.slow
def test_a_bulk_action_ends_and_comes_back_for_the_rest(database: Database) -> None:
    with database.write() as transaction:
        rows.submit_many(transaction, [JobRequest(kind="plain", arguments={})] * (2 * BULK_JOBS_MAX + 3))
    changed = []
    for _ in range(4):
        with database.write() as transaction:
            changed.append(len(rows.apply_to_all(transaction, JobFilter(limit=1), JobAction.CANCEL, "me")))
    assert changed == [BULK_JOBS_MAX, BULK_JOBS_MAX, 3, 0]


def test_a_bulk_deletion_is_cut_where_items_are_many(database: Database) -> None:
    many = [in_state(database, JobState.SUCCESS, items_total=BULK_ITEMS_MAX // 2 + 1) for _ in range(3)]
    with database.write() as transaction:
        assert len(rows.apply_to_all(transaction, JobFilter(), JobAction.DELETE, "me")) == 1
    assert find(database, many[0])


def test_there_is_no_other_action(database: Database) -> None:
    with pytest.raises(ValueError, match="explode"), database.write() as transaction:
        rows.apply_to_all(transaction, JobFilter(), "explode", "me")


# Retention


def test_old_jobs_go_with_their_items_in_portions(database: Database) -> None:
    old = submit(database, items=["x"] * (RETENTION_ROWS_MAX + 10))
    put(database, old, state="success", finished_at=MIDNIGHT)
    fresh = submit(database, items=["y"])
    put(database, fresh, state="failure", finished_at=later(MIDNIGHT, 100))
    waiting = submit(database)
    portions = []
    while not portions or portions[-1]:
        with database.write() as transaction:
            portions.append(rows.remove_old(transaction, later(MIDNIGHT, 50)))
    assert portions == [RETENTION_ROWS_MAX, 11, 0]
    with database.read() as connection:
        assert rows.find(connection, old.job_id) is None
        assert connection.execute(select(job_items.c.name)).scalars().all() == ["y"]
    assert find(database, fresh)
    assert find(database, waiting)


def test_a_resubmitted_job_is_not_old(database: Database) -> None:
    job = in_state(database, JobState.FAILURE)
    act(database, rows.resubmit, job)
    with database.write() as transaction:
        assert rows.remove_old(transaction, later(MIDNIGHT, 1e6)) == 0
