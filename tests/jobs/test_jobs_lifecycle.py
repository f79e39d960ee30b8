"""An engine from its start to its end: its name, its database that fails for a while, its options."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.database.schema import jobs
from stowkeeper.jobs import owners
from stowkeeper.jobs.engine import JobEngine, JobOptions, OwnerInUseError
from stowkeeper.jobs.kind import (
    Ending,
    Finished,
    JobRun,
)
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


def test_a_database_that_fails_for_a_while_loses_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()

    async def run(run: JobRun) -> Ending:
        await release.wait()
        return Finished("done once")

    kind = Kind("plain", run)

    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, kind):
            await until_state(database, job, "running")
            original = database.write
            failed = 0

            def write() -> Any:
                nonlocal failed
                failed += 1
                raise DatabaseUnavailable("the disk is full")

            monkeypatch.setattr(database, "write", write)
            release.set()
            await until(lambda: failed > 3, "some tries")
            assert find(database, job).state == "running"
            monkeypatch.setattr(database, "write", original)
            assert (await until_state(database, job, "success")).error == "done once"
        assert len(kind.begun) == 1

    go(scenario())


def test_an_engine_that_cannot_write_at_its_end_leaves_word_that_it_is_gone(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write() -> Any:
        raise DatabaseUnavailable("the disk is full")

    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, Kind("plain", wait_for_ever), owner="first"):
            await until_state(database, job, "running")
            monkeypatch.setattr(database, "write", write)
        monkeypatch.undo()
        assert find(database, job).owner == "first"
        assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["first.owner"]
        async with engine_of(database, tmp_path, Kind("plain", finish), owner="second"):
            await until_state(database, job, "success", seconds=5)

    go(scenario())


def test_two_engines_of_one_name_are_refused_and_leave_each_other_alone(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "OWNER_LOCK_SECONDS", 0.1)

    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, Kind("plain", wait_for_ever)):
            await until_state(database, job, "running")
            other = JobEngine(database, [], owner="one", lock_folder=str(tmp_path / "jobs"), options=FAST)
            with pytest.raises(OwnerInUseError, match="one"):
                await other.run()
            assert find(database, job).state == "running"

    go(scenario())


def test_an_engine_can_be_stopped_before_it_runs_and_twice(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        job = submit(database)
        engine = JobEngine(
            database, [Kind("plain", finish)], owner="one", lock_folder=str(tmp_path / "jobs"), options=FAST
        )
        engine.wake()
        await engine.stop(1)
        await engine.run()
        await engine.stop(1)
        engine.wake()
        assert find(database, job).state == "pending"

    go(scenario())


def test_an_engine_whose_task_is_cancelled_gives_its_jobs_back(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        job = submit(database)
        engine = JobEngine(
            database,
            [Kind("plain", wait_for_ever)],
            owner="one",
            lock_folder=str(tmp_path / "jobs"),
            options=FAST,
        )
        running = asyncio.create_task(engine.run())
        await until_state(database, job, "running")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert find(database, job).state == "pending"

    go(scenario())


def test_what_a_former_process_of_the_same_name_left_is_run(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        job = submit(database)
        with database.write() as transaction:
            transaction.execute(update(jobs).values(state="running", owner="one", attempts=3))
        async with engine_of(database, tmp_path, Kind("plain", finish)):
            done = await until_state(database, job, "success")
        assert done.attempts == 4

    go(scenario())


@pytest.mark.parametrize("owner", ["", "a/b", "../x", "a b", "x" * 200, ".hidden"])
def test_an_owner_is_the_name_of_a_file(database: Database, owner: str) -> None:
    with pytest.raises(ValueError, match="name of a file"):
        JobEngine(database, [], owner=owner, lock_folder="jobs")


def test_kinds_have_names_of_their_own(database: Database) -> None:
    with pytest.raises(ValueError, match="one name"):
        JobEngine(database, [Kind("a", finish), Kind("a", finish)], owner="one", lock_folder="jobs")


@pytest.mark.parametrize(
    "wrong",
    [
        {"disk_lanes": 0},
        {"running_max": 0},
        {"lease_seconds": 2.9},
        {"retention_days": 0},
        {"poll_seconds": -1},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        JobOptions(**wrong)  # type: ignore[arg-type]  # numbers of either sort


def test_a_time_out_around_a_thread_does_not_break_it_off(database: Database, tmp_path: Path) -> None:
    done = threading.Event()
    begun = threading.Event()

    def work() -> str:
        begun.set()
        done.wait()
        return "whole"

    async def run(run: JobRun) -> Ending:
        working = asyncio.create_task(run.in_thread(work))
        await asyncio.to_thread(begun.wait, 30)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await working
        assert done.is_set()
        return Finished()

    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, Kind("plain", run)):
            await asyncio.to_thread(begun.wait, 30)
            await asyncio.sleep(0.1)  # past the time-out
            assert find(database, job).state == "running"
            done.set()
            await until_state(database, job, "success")

    go(scenario())
