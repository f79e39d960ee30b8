"""What a kind gets to do its work with: the job, writes that only its owner can make, threads, and word of the end."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.sqlite import insert

from stowkeeper.database.engine import Database, Transaction, compile_statement
from stowkeeper.database.schema import job_items, jobs
from stowkeeper.jobs.columns import checked_text, cut_words, encode_checkpoint
from stowkeeper.jobs.job import JSON, Job, JobItem
from stowkeeper.jobs.states import JobState
from stowkeeper.jobs.threads import Threads

T = TypeVar("T")

_IS_OURS = compile_statement(
    select(jobs.c.job_key).where(
        jobs.c.job_key == bindparam("key"),
        jobs.c.owner == bindparam("owner"),
        jobs.c.attempts == bindparam("attempts"),
        jobs.c.state == bindparam("state"),
    ),
    ("key", "owner", "attempts", "state"),
)
_UPSERT_ITEM = insert(job_items)
_UPSERT_ITEM = _UPSERT_ITEM.on_conflict_do_update(
    index_elements=["job_key", "position"],
    set_={name: _UPSERT_ITEM.excluded[name] for name in ("name", "outcome", "code", "words", "done_at")},
)
_ITEM_COLUMNS = ("job_key", "position", "name", "outcome", "code", "words", "done_at")
_SET_ITEM = compile_statement(_UPSERT_ITEM, _ITEM_COLUMNS)


class LeaseLostError(Exception):
    """The job is no longer ours: another process took it over, or its run was given up. Nothing of the write is kept."""


class JobInterrupted(Exception):  # noqa: N818 - it is no error: the work was asked to stop, and does
    """The work stops because it was asked to: raised by what finds `JobRun.stopping` set."""


def is_ours(transaction: Transaction, job: Job) -> bool:
    """Tell whether a job that was taken is still run under the lease of that time: same owner, same attempt."""
    found = transaction.fetch_one(_IS_OURS, (job.job_key, job.owner, job.attempts, JobState.RUNNING.value))
    return found is not None


class JobRun:
    """One run of a job: from its taking to the ending that its kind gives back.

    `stopping` is set when the run has to end: a pause, a cancellation, a lost lease, the end of the server. The coroutine is
    cancelled then; code in threads looks at it and raises JobInterrupted.
    """

    def __init__(self, job: Job, database: Database, threads: Threads) -> None:
        self.stopping = threading.Event()
        self._job = job
        self._database = database
        self._threads = threads
        self._writing = threading.Lock()
        self._works: dict[Future[Any], Threads] = {}
        self._left = asyncio.Event()

    @property
    def job(self) -> Job:
        """Return the job: as it was taken, and with what `progress` wrote since."""
        return self._job

    def check_stopping(self) -> None:
        """Raise JobInterrupted when the run has to end. Blocking code calls it between two things that it does."""
        if self.stopping.is_set():
            raise JobInterrupted(f"job {self._job.job_id} was asked to stop")

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Begin a write transaction that holds only while the job is ours. Blocks: call it in a thread.

        Raises LeaseLostError when the job is another's by now, and what `Database.write` raises.
        """
        with self._writing:
            before = self._job
            try:
                with self._database.write() as transaction:
                    self._check_owned(transaction)
                    yield transaction
            except BaseException:
                self._job = before
                raise

    def _check_owned(self, transaction: Transaction) -> None:
        if not is_ours(transaction, self._job):
            self.stopping.set()
            raise LeaseLostError(
                f"job {self._job.job_id} was taken over by another process, or its run was given up"
            )

    def progress(
        self,
        transaction: Transaction,
        *,
        done: int | None = None,
        total: int | None = None,
        checkpoint: JSON | None = None,
        items: Sequence[JobItem] = (),
    ) -> None:
        """Write how far the job is, in a transaction of `write`, with the rows that its work is about.

        `done` and `total` count items; None leaves what was there. More items done than before means progress, and failures
        in a row are counted from 0 again. `checkpoint` replaces the former one; `items` replace or add those of their
        position. Raises JobTooLargeError.
        """
        values: dict[str, Any] = {}
        after: dict[str, Any] = {}
        if done is not None:
            values["items_done"] = after["items_done"] = done
            if done > self._job.items_done:
                values["failures"] = after["failures"] = 0
                values["faults"] = after["faults"] = 0
        if total is not None:
            values["items_total"] = after["items_total"] = total
        if checkpoint is not None:
            values["checkpoint"] = encode_checkpoint(checkpoint)
            after["checkpoint"] = dict(checkpoint)
        if values:
            transaction.execute(update(jobs).where(jobs.c.job_key == self._job.job_key).values(values))
        if items:
            transaction.executemany(_SET_ITEM, [self._columns_of(item) for item in items])
        self._job = replace(self._job, **after)

    def _columns_of(self, item: JobItem) -> tuple[object, ...]:
        return (
            self._job.job_key,
            item.position,
            checked_text("name of an item", item.name),
            checked_text("outcome of an item", item.outcome),
            item.code,
            cut_words(item.words),
            item.done_at,
        )

    async def in_thread(self, function: Callable[..., T], *args: Any, threads: Threads | None = None) -> T:  # noqa: ANN401 - as the function takes them
        """Call what blocks in one of the engine's threads, and return what it returns.

        Who waits for others for long brings `threads` of its own, and keeps no other job from those of the engine.
        When the run has to end it waits for the function, which is to look at `stopping`, so that nothing of one run goes
        on beside the next. For the same reason a time-out around it does not break it off. Raises JobInterrupted when the
        run has to end before it began.
        """
        self.check_stopping()
        threads = threads or self._threads
        work = threads.submit(partial(copy_context().run, function, *args))
        self._works[work] = threads
        waited_for = asyncio.wrap_future(work)
        left = asyncio.ensure_future(self._left.wait())
        ends: set[asyncio.Future[Any]] = {waited_for, left}
        is_cancelled = False
        try:
            while not waited_for.done():
                try:
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:
                    is_cancelled = True
                    work.cancel()  # if it has not begun
                if left.done():
                    break
        finally:
            left.cancel()
            del self._works[work]
        if is_cancelled or not waited_for.done():
            waited_for.add_done_callback(_look_at)
            raise asyncio.CancelledError
        return waited_for.result()

    def leave(self) -> None:
        """Wait no longer for threads that do not end; others take their places. Called on the event loop."""
        self.stopping.set()
        for work, threads in list(self._works.items()):
            threads.give_up(work)
        self._left.set()


def _look_at(future: "asyncio.Future[Any]") -> None:
    """Take note of an error that nobody is interested in any more, or asyncio complains of it."""
    if not future.cancelled():
        future.exception()
