"""Pause, cancel and the end of an engine while jobs run; and kinds that do not give way."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.jobs import rows
from stowkeeper.jobs.engine import JobEngine, JobOptions
from stowkeeper.jobs.job import JobFilter, JobRequest
from stowkeeper.jobs.kind import (
    Ending,
    Finished,
    JobInterrupted,
    JobRun,
    LeaseLostError,
    NextStep,
)
from stowkeeper.jobs.limits import JOB_THREADS_MAX
from stowkeeper.jobs.states import JobAction, JobState
from support.job_rig import (
    FAST,
    Kind,
    act,
    count_turns,
    database_with,
    engine_of,
    find,
    finish,
    go,
    in_a_thread,
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


@pytest.mark.slow
@pytest.mark.parametrize("function", [wait_for_ever, in_a_thread])
def test_a_running_job_is_paused_resumed_and_cancelled(
    database: Database, tmp_path: Path, function: Callable[[JobRun], Any]
) -> None:
    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, Kind("plain", function)) as engine:
            await until_state(database, job, "running")
            act(database, rows.pause, job)
            paused = await until_state(database, job, "paused")
            assert (paused.wish, paused.owner, paused.attempts, paused.finished_at) == ("", "", 1, None)
            assert paused.failures == 0
            await until(lambda: engine.running == 0, "the engine knows it too")
            act(database, rows.resume, job)
            running = await until_state(database, job, "running")
            assert running.checkpoint.get("at", 0) >= paused.checkpoint.get("at", 0)
            act(database, rows.cancel, job)
            cancelled = await until_state(database, job, "cancelled")
            assert (cancelled.error, cancelled.wish) == ("cancelled by tester", "")
            assert cancelled.finished_at is not None
            act(database, rows.resubmit, job)
            again = await until_state(database, job, "running")
            assert again.checkpoint.get("at", 0) >= cancelled.checkpoint.get("at", 0)
            act(database, rows.cancel, job)
            await until_state(database, job, "cancelled")
            await until(lambda: engine.endings == {("plain", JobState.CANCELLED): 2}, "both are counted")

    go(scenario())


def test_a_wish_that_is_taken_back_before_it_was_seen_changes_nothing(
    database: Database, tmp_path: Path
) -> None:
    kind = Kind("plain", wait_for_ever)

    async def scenario() -> None:
        job = submit(database)
        options = JobOptions(poll_seconds=1000.0, lease_seconds=3000.0)
        async with engine_of(database, tmp_path, kind, options=options) as engine:
            await until_state(database, job, "running")
            act(database, rows.pause, job)
            act(database, rows.resume, job)
            turns = count_turns(engine)
            engine.wake()
            await until(lambda: turns() > 0, "a turn")
            assert find(database, job).state == "running"
        assert len(kind.begun) == 1

    go(scenario())


def test_a_wish_that_is_taken_back_after_it_was_seen_costs_another_run(
    database: Database, tmp_path: Path
) -> None:
    release = threading.Event()

    async def run(run: JobRun) -> Ending:
        def work() -> None:
            run.stopping.wait()
            release.wait()
            run.check_stopping()

        if run.job.attempts == 1:
            await run.in_thread(work)
        return Finished()

    kind = Kind("plain", run)

    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, kind) as engine:
            await until(lambda: bool(engine._executions), "the job runs")
            (execution,) = engine._executions.values()
            act(database, rows.pause, job)
            await until(execution.run.stopping.is_set, "it is asked to stop")
            act(database, rows.resume, job)
            release.set()
            await until_state(database, job, "success")
        assert len(kind.begun) == 2

    go(scenario())


@pytest.mark.slow
def test_a_kind_that_concludes_is_run_once_more(database: Database, tmp_path: Path) -> None:
    async def run(run: JobRun) -> Ending:
        if run.job.wish == "cancel":
            if run.job.step == "":
                return NextStep("tell", "peer:A")
            await asyncio.sleep(10 * FAST.poll_seconds)  # several turns, which must not break it off
            return Finished("2 of 5 were not checked")
        return await wait_for_ever(run)

    kind = Kind("plain", run, concludes_cancellation=True)

    async def scenario() -> None:
        job = submit(database)
        waiting = submit(database, due_at=FAR)
        async with engine_of(database, tmp_path, kind):
            await until_state(database, job, "running")
            for each in (job, waiting):
                act(database, rows.cancel, each)
                after = await until_state(database, each, "cancelled")
                assert after.error == "2 of 5 were not checked"
        assert [(each.subject, each.wish, each.step) for each in kind.begun] == [
            *(("", "", ""), ("", "cancel", ""), ("", "cancel", "tell")),
            *(("", "cancel", ""), ("", "cancel", "tell")),
        ]

    go(scenario())


def test_a_waiting_job_is_cancelled_without_a_run(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        kind = Kind("plain", finish)
        with database.write() as transaction:
            made = rows.submit_many(
                transaction,
                [JobRequest(kind="plain", arguments={}, lane="peer:A", due_at=FAR) for _ in range(20)],
            )
        async with engine_of(database, tmp_path, kind) as engine:
            with database.write() as transaction:
                assert len(rows.apply_to_all(transaction, JobFilter(), JobAction.CANCEL, "tester")) == 20
            for job in made:
                await until_state(database, job, "cancelled")
            await until(lambda: engine.endings["plain", JobState.CANCELLED] == 20, "all are counted")
        assert kind.begun == []

    go(scenario())


def test_an_engine_that_stops_lets_its_jobs_wait_with_their_checkpoints(
    database: Database, tmp_path: Path
) -> None:
    async def raise_at_the_end(run: JobRun) -> Ending:
        try:
            return await wait_for_ever(run)
        finally:
            raise ConnectionResetError

    async def find_the_disk_full(run: JobRun) -> Ending:
        def work() -> None:
            run.stopping.wait()
            raise DatabaseUnavailable("the disk is full")

        try:
            await run.in_thread(work)
        except asyncio.CancelledError:
            raise DatabaseUnavailable("the disk is full") from None
        raise AssertionError

    async def scenario() -> None:
        names = {
            "waits": wait_for_ever,
            "works": in_a_thread,
            "raises": raise_at_the_end,
            "full": find_the_disk_full,
        }
        made = {name: submit(database, name) for name in names}
        async with engine_of(database, tmp_path, *(Kind(name, each) for name, each in names.items())):
            for job in made.values():
                await until_state(database, job, "running")
            await until(lambda: find(database, made["works"]).items_done > 2, "progress")
        for job in made.values():
            after = find(database, job)
            assert (after.state, after.owner, after.failures, after.faults, after.error) == (
                "pending",
                "",
                0,
                0,
                "",
            )
        assert find(database, made["works"]).checkpoint["at"] > 2
        assert list((tmp_path / "jobs").iterdir()) == []

    go(scenario())


def test_pausing_at_the_end_of_the_engine_is_heeded(database: Database, tmp_path: Path) -> None:
    async def scenario() -> None:
        job = submit(database)
        options = JobOptions(poll_seconds=5.0)
        async with engine_of(database, tmp_path, Kind("plain", wait_for_ever), options=options):
            await until_state(database, job, "running")
            act(database, rows.pause, job)
        assert find(database, job).state == "paused"

    go(scenario())


# Kinds that do not give way


@pytest.mark.slow
def test_a_thread_that_never_ends_is_left_to_itself(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobEngine._leave_stuck_runs, "__defaults__", (0.1,))
    begun = threading.Event()
    release = threading.Event()
    refused = threading.Event()

    async def run(run: JobRun) -> Ending:
        def work() -> None:
            begun.set()
            release.wait()
            try:
                with run.write() as transaction:
                    run.progress(transaction, done=99)
            except LeaseLostError:
                refused.set()

        await run.in_thread(work)
        return Finished()

    async def scenario() -> None:
        stuck = submit(database, "stuck", lane="peer:A")
        async with engine_of(database, tmp_path, Kind("stuck", run), Kind("plain", finish)) as engine:
            assert await asyncio.to_thread(begun.wait, 10)
            act(database, rows.cancel, stuck)
            await until_state(database, stuck, "cancelled")
            await until(lambda: engine.running == 0, "the engine knows it too")
            other = submit(database, lane="peer:A")
            await until_state(database, other, "success")
            release.set()
            assert await asyncio.to_thread(refused.wait, 10)
        assert find(database, stuck).items_done == 0

    try:
        go(scenario())
    finally:
        release.set()


def test_a_coroutine_that_goes_on_when_it_is_cancelled_is_left_to_itself(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobEngine._leave_stuck_runs, "__defaults__", (0.1,))
    release = asyncio.Event()

    async def run(run: JobRun) -> Ending:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        return Finished("too late")

    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, Kind("plain", run)):
            await until_state(database, job, "running")
            act(database, rows.pause, job)
            await until_state(database, job, "paused")
            release.set()
        assert find(database, job).state == "paused"

    go(scenario())


def test_stopping_waits_for_stuck_runs_no_longer_than_it_was_told(database: Database, tmp_path: Path) -> None:
    release = threading.Event()

    async def run(run: JobRun) -> Ending:
        await run.in_thread(release.wait)
        return Finished()

    async def scenario() -> None:
        job = submit(database)
        async with engine_of(database, tmp_path, Kind("plain", run), stop_seconds=0.2):
            await until_state(database, job, "running")
            begin = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begin < 5
        assert find(database, job).state == "pending"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        go(scenario())
    finally:
        release.set()


@pytest.mark.slow
def test_jobs_that_block_every_thread_hold_up_neither_the_engine_nor_the_loop(
    database: Database, tmp_path: Path
) -> None:
    release = threading.Event()

    async def run(run: JobRun) -> Ending:
        await run.in_thread(release.wait)
        return Finished()

    async def scenario() -> None:
        blocking = [submit(database, "blocking") for _ in range(40)]
        async with engine_of(database, tmp_path, Kind("blocking", run), Kind("plain", finish)) as engine:
            await until(lambda: engine.running == 40, "all of them run")
            await until_state(database, submit(database), "success", seconds=5)
            release.set()
            for job in blocking:
                await until_state(database, job, "success")

    try:
        go(scenario())
    finally:
        release.set()


@pytest.mark.slow
def test_threads_that_never_end_are_replaced(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobEngine._leave_stuck_runs, "__defaults__", (0.1,))
    release = threading.Event()

    async def hang(run: JobRun) -> Ending:
        await run.in_thread(release.wait)
        return Finished()

    async def work(run: JobRun) -> Ending:
        return Finished(await run.in_thread(str, "done"))

    async def scenario() -> None:
        stuck = [submit(database, "hang") for _ in range(JOB_THREADS_MAX)]
        async with engine_of(database, tmp_path, Kind("hang", hang), Kind("plain", work)) as engine:
            await until(lambda: engine.running == JOB_THREADS_MAX, "all of them run")
            for job in stuck:
                act(database, rows.cancel, job)
            for job in stuck:
                await until_state(database, job, "cancelled")
            await until_state(database, submit(database), "success", seconds=5)

    try:
        go(scenario())
    finally:
        release.set()


@pytest.mark.slow
def test_work_that_has_not_begun_never_begins_for_a_run_that_is_over(
    database: Database, tmp_path: Path
) -> None:
    release = threading.Event()
    begun: list[str] = []

    async def hang(run: JobRun) -> Ending:
        await run.in_thread(release.wait)
        return Finished()

    async def late(run: JobRun) -> Ending:
        try:
            await run.in_thread(begun.append, "queued")
        except asyncio.CancelledError:
            with pytest.raises(JobInterrupted):
                await run.in_thread(begun.append, "after the end")
            raise
        raise AssertionError

    async def scenario() -> None:
        hanging = [submit(database, "hang") for _ in range(JOB_THREADS_MAX)]
        async with engine_of(database, tmp_path, Kind("hang", hang), Kind("late", late)) as engine:
            await until(lambda: engine.running == JOB_THREADS_MAX, "all of them run")
            job = submit(database, "late")
            await until_state(database, job, "running")
            act(database, rows.pause, job)
            # It waits for no thread: its work is still in the queue.
            await until_state(database, job, "paused")
            release.set()
            for each in hanging:
                await until_state(database, each, "success")
        assert begun == []

    try:
        go(scenario())
    finally:
        release.set()
