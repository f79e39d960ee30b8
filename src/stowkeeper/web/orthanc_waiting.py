"""Waiting for a job in a request, as Orthanc's synchronous calls do: without a thread, by looking at its row from time to time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import delete
from starlette.concurrency import run_in_threadpool

from stowkeeper.database.engine import Database, Transaction
from stowkeeper.database.schema import job_lanes
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import Job, JobNotFoundError
from stowkeeper.jobs.states import JobState, JobStateError
from stowkeeper.web.limits import BODY_BYTES_MAX, LARGE_BODIES_AT_ONCE
from stowkeeper.web.orthanc_limits import WAIT_POLL_SECONDS_MAX, WAIT_POLL_SECONDS_MIN, WAITING_MAX
from stowkeeper.web.problems import ProblemError

Found = TypeVar("Found")


class WaitingRoom:
    """The places of requests that wait, WAITING_MAX of them. For one event loop."""

    def __init__(self) -> None:
        self._taken = 0

    @property
    def is_full(self) -> bool:
        """Whether every place is taken."""
        return self._taken >= WAITING_MAX

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for the length of a block; before anything is put in that would be waited for.

        Raises ProblemError where there is none.
        """
        if self.is_full:
            raise ProblemError(
                503, f"{self._taken} requests wait for their jobs already", headers={"Retry-After": "30"}
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


_turns: WeakKeyDictionary[Database, asyncio.Semaphore] = WeakKeyDictionary()


@asynccontextmanager
async def turn_of(database: Database, body: bytes) -> AsyncIterator[None]:
    """Wait until a body may be taken apart, for the length of a block: of large ones LARGE_BODIES_AT_ONCE are at a time.

    It holds no thread while it waits.
    """
    if len(body) <= BODY_BYTES_MAX:
        yield
        return
    async with _turns.setdefault(database, asyncio.Semaphore(LARGE_BODIES_AT_ONCE)):
        yield


async def wait_until(look: Callable[[], Found | None], seconds: float) -> Found | None:
    """Return what `look` finds, asked in a thread again and again; None when it found nothing in time."""
    clock = asyncio.get_running_loop()
    deadline = clock.time() + seconds
    pause = WAIT_POLL_SECONDS_MIN
    while True:
        found = await run_in_threadpool(look)
        left = deadline - clock.time()
        if found is not None or left <= 0:
            return found
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, WAIT_POLL_SECONDS_MAX)


def attempt_now(transaction: Transaction, job: Job) -> None:
    """Lift the block of a job's lane: somebody waits for it, and shall hear now whether the peer is there."""
    transaction.execute(delete(job_lanes).where(job_lanes.c.lane == job.lane))


def tried(database: Database, job_id: str) -> Job | None:
    """Return a job that is over, or whose first attempt failed; None while neither is known."""
    with database.read() as connection:
        job = rows.find(connection, job_id)
    if job is not None and (job.is_finished or job.state is JobState.RETRY):
        return job
    return None


def give_up(database: Database, job_id: str, who: str) -> None:
    """Cancel a job of whose failure its submitter was told: it must not come true later."""
    try:
        with database.write() as transaction:
            # Its kind may have to conclude that, and must not wait for the lane that this very attempt blocked.
            attempt_now(transaction, rows.cancel(transaction, job_id, who))
    except (JobNotFoundError, JobStateError):
        return  # it came to its end meanwhile
