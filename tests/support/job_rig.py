"""Engines for jobs in this process: a database, clocks that are set by hand, kinds made of one function."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import event

from stowkeeper.database.engine import Database
from stowkeeper.jobs import rows
from stowkeeper.jobs.engine import JobEngine, JobOptions
from stowkeeper.jobs.job import Job, JobRequest
from stowkeeper.jobs.kind import Ending, Finished, JobRun
from stowkeeper.jobs.times import later
from support.catalog_rows import open_database

FAST = JobOptions(poll_seconds=0.02, lease_seconds=30.0)
WAIT_SECONDS = 30.0
MIDNIGHT = "2026-03-01T00:00:00.000000Z"


@dataclass(slots=True)
class Clocks:
    """A wall clock and a monotonic one that go when they are told to. Setting the wall clock leaves the other alone."""

    wall: str = MIDNIGHT
    monotonic: float = 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall = later(self.wall, seconds)
        self.monotonic += seconds

    def set_by(self, seconds: float) -> None:
        self.wall = later(self.wall, seconds)

    def now(self) -> str:
        return self.wall

    def steady(self) -> float:
        return self.monotonic


def database_with(folder: Path, clocks: Clocks | None = None) -> Database:
    """Open the database of a test, without syncs; with clocks its transactions have their time."""
    database = open_database(folder, sync=False)
    if clocks is not None:
        database._clock = clocks.now
    return database


@dataclass(slots=True)
class Kind:
    """A kind whose runs are calls of one function. It notes the job of each run as it began."""

    name: str
    function: Callable[[JobRun], Awaitable[Ending]]
    concludes_cancellation: bool = False
    begun: list[Job] = field(default_factory=list)

    async def run(self, run: JobRun) -> Ending:
        self.begun.append(run.job)
        return await self.function(run)


async def finish(run: JobRun) -> Ending:
    return Finished()


async def wait_for_ever(run: JobRun) -> Ending:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def submit(database: Database, kind: str = "plain", **more: Any) -> Job:
    """Put one job in, in a transaction of its own."""
    request = JobRequest(**{"kind": kind, "arguments": {}, **more})
    with database.write() as transaction:
        return rows.submit(transaction, request)


def find(database: Database, job: Job | str) -> Job:
    """Return a job as it stands now."""
    with database.read() as connection:
        found = rows.find(connection, job if isinstance(job, str) else job.job_id)
    assert found is not None
    return found


def act(database: Database, action: Callable[..., Job], job: Job) -> Job:
    """Do one thing with a job, in a transaction of its own."""
    with database.write() as transaction:
        return action(transaction, job.job_id, "tester")


async def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait on the event loop until a condition holds."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.005)


async def until_state(database: Database, job: Job, *states: str, seconds: float = WAIT_SECONDS) -> Job:
    """Wait until a job is in one of some states, and return it."""
    await until(
        lambda: find(database, job).state in states,
        f"job {job.kind} in {find(database, job)} becomes {states}",
        seconds,
    )
    return find(database, job)


@asynccontextmanager
async def engine_of(
    database: Database,
    folder: Path,
    *kinds: Kind,
    owner: str = "one",
    options: JobOptions = FAST,
    stop_seconds: float = 10.0,
    **more: Any,
) -> AsyncIterator[JobEngine]:
    """Run an engine for the length of a block, and stop it in order."""
    engine = JobEngine(
        database, kinds, owner=owner, lock_folder=str(folder / "jobs"), options=options, **more
    )
    running = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        await engine.stop(stop_seconds)
        await running


def go(coroutine: Any) -> Any:
    """Run a coroutine on an event loop of its own, which complains of what it finds left over."""
    return asyncio.run(coroutine, debug=False)


async def in_a_thread(run: JobRun) -> Ending:
    """Work in a thread that looks whether it has to stop, and writes down how far it came."""

    def work() -> None:
        for number in range(run.job.items_done + 1, 10**9):
            run.check_stopping()
            with run.write() as transaction:
                run.progress(transaction, done=number, checkpoint={"at": number})

    await run.in_thread(work)
    raise AssertionError


@contextlib.contextmanager
def counting_writes(database: Database) -> Iterator[list[str]]:
    """Note each write transaction that is begun in a block."""
    begun: list[str] = []

    def note(_connection: object) -> None:
        begun.append(threading.current_thread().name)

    event.listen(database._writer_engine, "begin", note)
    yield begun
    event.remove(database._writer_engine, "begin", note)


def count_turns(engine: JobEngine) -> Callable[[], int]:
    count = 0
    original = engine._turns.turn

    def turn(asked: Any) -> Any:
        nonlocal count
        count += 1
        return original(asked)

    engine._turns = _Counted(engine._turns, turn)  # type: ignore[assignment]  # it has what is called of it
    return lambda: count


class _Counted:
    def __init__(self, turns: Any, turn: Callable[[Any], Any]) -> None:
        self._turns = turns
        self.turn = turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._turns, name)
