"""A real job engine on an event loop in a thread of its own, for tests that look at rows and peers from outside."""

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from stowkeeper.database.engine import Database
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.engine import JobEngine, JobOptions
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.kind import JobKind

WAIT_SECONDS = 30.0
_numbers = itertools.count()


@contextlib.contextmanager
def engine_running(
    database: Database, folder: Path, make_kinds: Callable[[], Sequence[Any]]
) -> Iterator[JobEngine]:
    """Run an engine for the length of a block; its kinds are made on its loop, and closed there where they can be."""
    started: Future[tuple[asyncio.AbstractEventLoop, JobEngine]] = Future()

    async def run() -> None:
        kinds: Sequence[JobKind] = make_kinds()
        engine = JobEngine(
            database,
            kinds,
            owner=f"test-{os.getpid()}-{next(_numbers)}",
            lock_folder=str(folder / "jobs"),
            options=JobOptions(poll_seconds=0.05, lease_seconds=5.0),
        )
        running = asyncio.create_task(engine.run())
        started.set_result((asyncio.get_running_loop(), engine))
        await running
        for kind in kinds:
            close = getattr(kind, "close", None)
            if close is not None:
                await close()

    ended: Future[None] = Future()

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - the thread of the test raises it
            ended.set_exception(error)
        else:
            ended.set_result(None)

    thread = threading.Thread(target=work, name="engine", daemon=True)
    thread.start()
    loop, engine = started.result(WAIT_SECONDS)
    try:
        yield engine
    finally:
        if not ended.done():
            asyncio.run_coroutine_threadsafe(engine.stop(5.0), loop).result(WAIT_SECONDS)
        ended.result(WAIT_SECONDS)
        thread.join(WAIT_SECONDS)


def wait_until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until a condition gives something that is true; return that."""
    end = time.monotonic() + WAIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what or condition}"
        time.sleep(0.01)
    return found


def job_of(database: Database, job_id: str) -> Job:
    """Return a job as its row has it now."""
    with database.read() as connection:
        job = jobs.find(connection, job_id)
    assert job is not None
    return job
