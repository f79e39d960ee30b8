"""The engine with real threads and a real database: how runs end, what goes wrong in kinds, progress, and what it writes."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.database.schema import job_lanes, jobs
from stowkeeper.jobs import rows
from stowkeeper.jobs.engine import JobOptions
from stowkeeper.jobs.job import JobItem, JobRequest
from stowkeeper.jobs.kind import (
    Ending,
    Failed,
    Finished,
    JobInterrupted,
    JobRun,
    LeaseLostError,
    NextStep,
    TryAgain,
)
from stowkeeper.jobs.states import JobState
from support.job_rig import (
    Clocks,
    Kind,
    count_turns,
    counting_writes,
    database_with,
    engine_of,
    find,
    finish,
    go,
    submit,
    until,
    until_state,
    wait_for_ever,
)
from support.quiet_log import quiet_log

FAR = "2999-01-01T00:00:00.000000Z"


@pytest.fixture(autouse=True)
def no_lines() -> Iterator[None]:
    with quiet_log():
        yield


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_with(tmp_path)


# Endings


def test_a_job_is_run_and_says_how_it_ended(database: Database, tmp_path: Path) -> None:
    async def run(run: JobRun) -> Ending:
        assert asyncio.get_running_loop().is_running()
        return Finished("all 3 are there")

    async def scenario() -> None:
        job = submit(database, arguments={"n": 1})
        async with engine_of(database, tmp_path, Kind("plain", run)) as engine:
            done = await until_state(database, job, "success")
            await until(lambda: engine.running == 0, "the engine knows it too")
            assert engine.endings == {("plain", JobState.SUCCESS): 1}
        assert (done.attempts, done.error, done.owner, done.failures) == (1, "all 3 are there", "", 0)
        assert done.started_at is not None
        assert done.finished_at is not None
        assert done.seconds_run > 0

    go(scenario())


def test_a_kind_goes_by_steps_from_lane_to_lane(database: Database, tmp_path: Path) -> None:
    async def run(run: JobRun) -> Ending:
        match run.job.step:
            case "":
                return NextStep("report", "peer:A", {"checked": 3})
            case "report" if not run.job.failures:
                assert (run.job.lane, run.job.checkpoint) == ("peer:A", {"checked": 3})
                return TryAgain("not yet", 0.0)
            case _:
                return Finished()

    kind = Kind("plain", run)

    async def scenario() -> None:
        job = submit(database, lane="disk")
        async with engine_of(database, tmp_path, kind):
            await until_state(database, job, "success")
        assert [(each.step, each.state, each.attempts, each.failures) for each in kind.begun] == [
            ("", "running", 1, 0),
            ("report", "running", 2, 0),
            ("report", "running", 3, 1),
        ]

    go(scenario())


def test_a_failed_job_says_why(database: Database, tmp_path: Path) -> None:
    async def run(run: JobRun) -> Ending:
        return Failed("the peer refuses the class: configure it")

    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, Kind("plain", run)):
            assert (await until_state(database, job, "failure")).error.startswith("the peer refuses")

    go(scenario())


def faults(value: object) -> Any:
    """Return a kind's function that ends in a way that it must not."""

    async def run(run: JobRun) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    return run


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (KeyError("DOE^JANE"), "KeyError at test_jobs_engine.py:"),
        (OSError(28, "No space left on device", "/patient"), "OSError: No space left on device at"),
        (None, "TypeError at"),
        (NextStep("x" * 5000), "JobTooLargeError at"),
        (NextStep("report", checkpoint={"k": "x" * 10**6}), "JobTooLargeError at"),
        (NextStep("report", due_in_seconds=float("nan")), "ValueError at"),
        (NextStep("\ud800"), "UnicodeEncodeError at"),
        (Failed(None), "AttributeError at"),  # type: ignore[arg-type]  # that is what is wrong with it
        (JobInterrupted("by itself"), "JobInterrupted at"),
        (LeaseLostError("by itself"), "LeaseLostError at"),
        (asyncio.CancelledError(), "cancelled from elsewhere"),
        (DatabaseUnavailable("the disk is full"), "the disk is full"),
    ],
)
def test_a_fault_of_a_kind_is_put_into_words_and_tried_again(
    database: Database, tmp_path: Path, value: object, words: str
) -> None:
    async def scenario() -> None:
        job = submit(database)
        other = submit(database, "other")
        async with engine_of(database, tmp_path, Kind("plain", faults(value)), Kind("other", finish)):
            after = await until_state(database, job, "retry")
            await until_state(database, other, "success")
        assert words in after.error
        assert "DOE" not in after.error
        assert "/patient" not in after.error
        assert after.failures == 1
        # A database that cannot be written for now is nobody's fault, and fails no job however long it lasts.
        passes = isinstance(value, DatabaseUnavailable | asyncio.CancelledError)
        assert after.faults == (0 if passes else 1)

    go(scenario())


@pytest.mark.slow
def test_faults_in_a_row_end_in_failure(database: Database, tmp_path: Path) -> None:
    clocks = Clocks()
    database._clock = clocks.now

    async def scenario() -> None:
        job = submit(database)
        kind = Kind("plain", faults(KeyError()))
        async with engine_of(database, tmp_path, kind, clock=clocks.now) as engine:
            for times in range(1, 8):
                await until(lambda times=times: find(database, job).faults == times, "a fault")
                assert find(database, job).state == "retry"
                clocks.pass_(4000)
                engine.wake()
            await until_state(database, job, "failure")
        assert len(kind.begun) == 8
        assert "8 times in a row" in find(database, job).error

    go(scenario())


def test_words_that_no_text_can_hold_do_no_harm(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, Kind("plain", faults(Failed("peer said \udcff\0")))):
            assert (await until_state(database, job, "failure")).error == "peer said ?\0"

    go(scenario())


# Progress


def write_and_fail(run: JobRun) -> None:
    with run.write() as transaction:
        run.progress(transaction, done=9, checkpoint={"at": 9})
        raise ZeroDivisionError


def test_progress_is_written_with_the_rows_that_it_is_about(database: Database, tmp_path: Path) -> None:
    seen: list[Any] = []

    async def run(run: JobRun) -> Ending:
        def work() -> None:
            for position, item in enumerate(["a", "b"]):
                with run.write() as transaction:
                    done = JobItem(
                        position=position,
                        name=item,
                        outcome="stored",
                        code=0,
                        words="",
                        done_at=transaction.at,
                    )
                    run.progress(
                        transaction, done=position + 1, total=2, checkpoint={"at": position}, items=[done]
                    )
                seen.append((run.job.items_done, run.job.items_total, run.job.checkpoint))
            with pytest.raises(ZeroDivisionError):
                write_and_fail(run)
            seen.append((run.job.items_done, run.job.items_total, run.job.checkpoint))

        await run.in_thread(work)
        return NextStep("rest", due_in_seconds=1000)

    async def scenario() -> None:
        job = submit(database, items=("a", "b", "c"))
        with database.write() as transaction:
            transaction.execute(update(jobs).values(failures=5, faults=2))
        async with engine_of(database, tmp_path, Kind("plain", run)):
            await until(lambda: find(database, job).step == "rest", "its step")
        assert seen == [(1, 2, {"at": 0}), (2, 2, {"at": 1}), (2, 2, {"at": 1})]
        after = find(database, job)
        assert (after.items_done, after.items_total, after.checkpoint) == (2, 2, {"at": 1})
        with database.read() as connection:
            assert [(item.name, item.outcome) for item in rows.items_of(connection, job.job_key)] == [
                ("a", "stored"),
                ("b", "stored"),
                ("c", ""),
            ]

    go(scenario())


@pytest.mark.parametrize(("done", "failures"), [(None, 5), (3, 5), (4, 0)])
def test_only_more_items_done_are_progress(
    database: Database, tmp_path: Path, done: int | None, failures: int
) -> None:
    async def run(run: JobRun) -> Ending:
        def work() -> None:
            with run.write() as transaction:
                run.progress(transaction, done=done, checkpoint={"report": 1})

        await run.in_thread(work)
        assert run.job.failures == failures
        return TryAgain("no answer")

    async def scenario() -> None:
        job = submit(database)
        with database.write() as transaction:
            transaction.execute(update(jobs).values(failures=5, items_done=3))
        async with engine_of(database, tmp_path, Kind("plain", run)):
            assert (await until_state(database, job, "retry")).failures == failures + 1

    go(scenario())


# What it writes


@pytest.mark.slow
def test_nothing_is_written_while_nothing_changes(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        with database.write() as transaction:
            rows.submit_many(
                transaction,
                [JobRequest(kind="plain", arguments={}, lane="peer:A")] * 10
                + [JobRequest(kind="unknown", arguments={})] * 10,
            )
            transaction.execute(
                job_lanes.insert().values(lane="peer:A", failures=1, blocked_until=FAR, words="no answer")
            )
        options = JobOptions(poll_seconds=0.02, lease_seconds=0.3)
        writes: list[str] = []
        with contextlib.ExitStack() as stack:
            async with engine_of(database, tmp_path, Kind("plain", finish), options=options) as engine:
                await until(lambda: find_lane(database) != FAR, "upkeep")
                with database.write() as transaction:
                    transaction.execute(update(job_lanes).values(blocked_until=FAR))
                turns = count_turns(engine)
                writes = stack.enter_context(counting_writes(database))
                await until(lambda: turns() > 20, "twenty turns")
                assert writes == []
            assert writes == []  # nor at its end

    go(scenario())


def find_lane(database: Database) -> str:
    with database.read() as connection:
        return str(connection.execute(select(job_lanes.c.blocked_until)).scalar())


@pytest.mark.slow
def test_only_the_heartbeat_is_written_while_jobs_run(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        job = submit(database)
        options = JobOptions(poll_seconds=0.02, lease_seconds=0.6)
        async with engine_of(database, tmp_path, Kind("plain", wait_for_ever), options=options) as engine:
            first = (await until_state(database, job, "running")).heartbeat
            turns = count_turns(engine)
            with counting_writes(database) as writes:
                await until(lambda: find(database, job).heartbeat >= first + 3, "three heartbeats")
                written = len(writes)
            assert 3 <= written <= 4
            assert turns() > 3 * written

    go(scenario())


def test_waking_finds_what_was_just_submitted(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        options = JobOptions(poll_seconds=1000.0, lease_seconds=3000.0)
        async with engine_of(database, tmp_path, Kind("plain", finish), options=options) as engine:
            engine.wake()
            job = submit(database)
            await asyncio.to_thread(engine.wake)
            await until_state(database, job, "success", seconds=5)

    go(scenario())


@pytest.mark.slow
def test_a_burst_of_jobs_is_worked_off_in_few_transactions(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        with database.write() as transaction:
            made = rows.submit_many(transaction, [JobRequest(kind="plain", arguments={})] * 640)
        with counting_writes(database) as writes:
            async with engine_of(database, tmp_path, Kind("plain", finish)) as engine:
                await until(lambda: engine.endings["plain", JobState.SUCCESS] == 640, "all are done")
        assert len(writes) < 160
        assert {find(database, job).attempts for job in made} == {1}

    go(scenario())
