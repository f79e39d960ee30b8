"""What goes wrong in the engine itself, or in a row: it costs one job at most, and the engine goes on."""

import asyncio
import errno
import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.database.schema import jobs
from stowkeeper.jobs import owners, rows
from stowkeeper.jobs.engine import JobEngine
from stowkeeper.jobs.job import Job, JobFilter, JobRequest
from stowkeeper.jobs.owners import OwnerLock, is_gone
from stowkeeper.jobs.states import JobState, JobWish
from support.job_rig import (
    FAST,
    Kind,
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


@pytest.fixture(autouse=True)
def no_lines() -> Iterator[None]:
    with quiet_log():
        yield


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_with(tmp_path)


def spoil(database: Database, job: Job, **columns: Any) -> None:
    with database.write() as transaction:
        transaction.execute(update(jobs).where(jobs.c.job_key == job.job_key).values(**columns))


# Rows that cannot be read


@pytest.mark.parametrize("column", ["arguments", "checkpoint"])
@pytest.mark.parametrize(
    "text", ["{", "[]", "[" * 100_000, b"\xff\xfe\xfd", 7], ids=lambda text: str(text)[:9]
)
def test_a_job_whose_row_cannot_be_read_fails_alone(
    database: Database, tmp_path: Path, column: str, text: object
) -> None:
    plain = Kind("plain", finish)

    async def test() -> None:
        bad = submit(database)
        spoil(database, bad, **{column: text})
        good = submit(database)
        async with engine_of(database, tmp_path, plain) as engine:
            failed = await until_state(database, bad, "failure")
            await until_state(database, good, "success")
            await until_state(database, submit(database), "success")
            assert engine.endings["plain", JobState.FAILURE] == 1
        assert "cannot be read" in failed.error
        assert failed.finished_at is not None
        assert bad.job_id not in [job.job_id for job in plain.begun]

    go(test())


def test_a_job_whose_row_cannot_be_read_is_listed_cancelled_and_deleted(
    database: Database, tmp_path: Path
) -> None:
    bad = submit(database, arguments={"of": "this"})
    spoil(database, bad, checkpoint="{")
    with database.read() as connection:
        (listed,) = rows.list_jobs(connection, JobFilter())
    assert (listed.arguments, dict(listed.checkpoint)) == ({"of": "this"}, {})
    with database.write() as transaction:
        rows.cancel(transaction, bad.job_id, "tester")

    async def test() -> None:
        async with engine_of(database, tmp_path, Kind("plain", finish)):
            await until_state(database, bad, "cancelled")

    go(test())
    with database.write() as transaction:
        rows.delete(transaction, bad.job_id, "tester")


def test_a_row_that_is_spoilt_while_its_job_runs_is_written_down_all_the_same(
    database: Database, tmp_path: Path
) -> None:
    async def test() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, Kind("plain", wait_for_ever)):
            await until_state(database, job, "running")
            spoil(database, job, checkpoint="{")
            with database.write() as transaction:
                rows.cancel(transaction, job.job_id, "tester")
            await until_state(database, job, "cancelled")

    go(test())


# Locks that the system has none of


class NoLocks:
    """A `fcntl` of a system that has run out of locks."""

    LOCK_EX, LOCK_NB = fcntl.LOCK_EX, fcntl.LOCK_NB

    @staticmethod
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")


def test_without_locks_nobody_counts_as_gone_and_the_jobs_go_on(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with engine_of(database, tmp_path, Kind("plain", finish)):
            await until_state(database, submit(database), "success")
            other = OwnerLock(str(tmp_path / "jobs"), "other")
            other.acquire()
            with database.write() as transaction:
                others = rows.submit(transaction, JobRequest(kind="plain", arguments={}))
                transaction.execute(
                    update(jobs)
                    .where(jobs.c.job_id == others.job_id)
                    .values(state=JobState.RUNNING.value, owner="other")
                )
            with monkeypatch.context() as patched:
                patched.setattr(owners, "fcntl", NoLocks)
                assert not is_gone(str(tmp_path / "jobs"), "other")
                await until_state(database, submit(database), "success")
                assert find(database, others).state is JobState.RUNNING
            # With locks again it is seen who is gone.
            other.release(keep_file=True)
            await until_state(database, others, "success")

    go(test())


# Faults in a turn


def failing_once(engine: JobEngine, error: Exception) -> threading.Event:
    """Have every turn of an engine fail until the event that is returned is set."""
    over = threading.Event()
    turns = engine._turns
    turn = turns.turn

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(turns, name)

        def turn(self, asked: Any) -> Any:
            if not over.is_set():
                raise error
            return turn(asked)

    engine._turns = Failing()  # type: ignore[assignment]  # it has what is called of it
    return over


@pytest.mark.parametrize(
    ("error", "is_working"),
    [(RuntimeError("can't start new thread"), False), (DatabaseUnavailable("the disk is away"), True)],
)
def test_a_fault_in_a_turn_is_over_with_the_turn(
    database: Database, tmp_path: Path, error: Exception, *, is_working: bool
) -> None:
    async def test() -> None:
        async with engine_of(database, tmp_path, Kind("plain", finish)) as engine:
            assert engine.is_working
            over = failing_once(engine, error)
            job = submit(database)
            await until(lambda: engine._is_failing, "a turn to fail")
            assert engine.is_working is is_working
            assert find(database, job).state is JobState.PENDING
            over.set()
            await until_state(database, job, "success")
            await until(lambda: engine.is_working, "the engine to say so")

    go(test())


def test_a_fault_in_what_is_rare_stops_no_job(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise ValueError

    async def test() -> None:
        engine = JobEngine(
            database, [Kind("plain", finish)], owner="one", lock_folder=str(tmp_path / "jobs"), options=FAST
        )
        monkeypatch.setattr(engine._upkeep, "round", fail)
        running = asyncio.create_task(engine.run())
        await until(lambda: calls, "a round of upkeep")
        await until_state(database, submit(database), "success")
        await engine.stop(5)
        await running
        assert engine.is_working

    go(test())


def test_an_engine_that_cannot_run_says_that_it_does_not(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def test() -> None:
        engine = JobEngine(
            database, [], owner="one", lock_folder=str(tmp_path / "file" / "jobs"), options=FAST
        )
        assert engine.is_working
        with pytest.raises(OSError, match="Not a directory"):
            await engine.run()
        assert not engine.is_working

    go(test())


def test_a_wish_outlives_a_fault(database: Database, tmp_path: Path) -> None:
    """A run that ends while turns fail is written down, once, when they do not any more."""

    async def test() -> None:
        async with engine_of(database, tmp_path, Kind("plain", wait_for_ever)) as engine:
            job = submit(database)
            await until_state(database, job, "running")
            over = failing_once(engine, RuntimeError("a fault"))
            with database.write() as transaction:
                rows.pause(transaction, job.job_id, "tester")
            await until(lambda: not engine.is_working, "a turn to fail")
            assert find(database, job).wish is JobWish.PAUSE
            over.set()
            await until_state(database, job, "paused")

    go(test())
