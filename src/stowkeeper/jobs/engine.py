"""The engine: takes jobs that are due, runs them by their kinds, and writes how they end. It knows no kind of job.

It goes in turns, one after the other: look, and where there is something to write, in one transaction write down the runs
that ended, count the heartbeat up, take over what dead owners left, and take what is due. A turn comes each second, as soon
as a run ends, and when somebody calls `wake`. What asks the database does so in a thread of its own; a turn in which nothing
happens is one reading statement.

Several engines, of this or other processes, work on one database. None has to be the first.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog

from stowkeeper.database.engine import Database, DatabaseError, utc_now
from stowkeeper.jobs.endings import Ended
from stowkeeper.jobs.executing import Execution, outcome_of
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.kind import JobKind
from stowkeeper.jobs.limits import (
    BULK_JOBS_MAX,
    ENGINE_THREADS,
    FAILING_LANES_SHARE,
    HEARTBEATS_PER_LEASE,
    INTERRUPT_SECONDS,
    JOB_THREADS_MAX,
    LEFT_SECONDS,
    LOST_THREADS_MAX,
    UPKEEP_SECONDS,
)
from stowkeeper.jobs.looking import RunningRow
from stowkeeper.jobs.options import DISK_LANE, JobOptions
from stowkeeper.jobs.owners import OwnerInUseError, OwnerLock
from stowkeeper.jobs.run import JobRun
from stowkeeper.jobs.states import JobState, JobWish
from stowkeeper.jobs.taking import Taken
from stowkeeper.jobs.threads import Threads
from stowkeeper.jobs.turns import Asked, Turned, Turns
from stowkeeper.jobs.upkeep import Upkeep

__all__ = ["DISK_LANE", "JobEngine", "JobOptions", "OwnerInUseError"]

T = TypeVar("T")

log = structlog.get_logger("stowkeeper.jobs")


class JobEngine:
    """Runs jobs of some kinds. `owner` is a name that no other engine has or had, it stands in the rows that run here.

    `lock_folder` is the same for all engines of a database; it is made if need be. The clocks are wall-clock time as the
    database writes it, which is also that of its transactions, and monotonic seconds. `chance` gives numbers from 0 to 1
    for the jitter. Raises ValueError for two kinds of one name, or an owner that cannot be the name of a file.
    """

    def __init__(
        self,
        database: Database,
        kinds: Sequence[JobKind],
        *,
        owner: str,
        lock_folder: str,
        options: JobOptions | None = None,
        clock: Callable[[], str] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._kinds = {kind.name: kind for kind in kinds}
        if len(self._kinds) < len(kinds):
            msg = "two kinds of jobs have one name"
            raise ValueError(msg)
        self._options = options or JobOptions()
        self._monotonic = monotonic
        self._chance = chance
        self._lock = OwnerLock(lock_folder, owner)
        self._turns = Turns(
            database=database,
            owner=owner,
            lock_folder=lock_folder,
            concludes={name: kind.concludes_cancellation for name, kind in self._kinds.items()},
            options=self._options,
            clock=clock,
            monotonic=monotonic,
            chance=chance,
        )
        self._upkeep = Upkeep(
            database,
            kinds=self._kinds,
            retention_days=self._options.retention_days,
            clock=clock,
            monotonic=monotonic,
            ends_unknown_kinds=self._options.ends_unknown_kinds,
        )
        self._own_threads = Threads("jobs-rows", ENGINE_THREADS)
        self._job_threads = Threads("jobs-work", JOB_THREADS_MAX, lost_max=LOST_THREADS_MAX)
        self._executions: dict[tuple[int, int], Execution] = {}
        self._left: set[asyncio.Task[Any]] = set()
        self._has_lock = False
        self._has_failed = False
        self._beat_at = monotonic()
        self._upkeep_at = monotonic()
        self._is_failing = False
        self._is_faulty = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._is_over = asyncio.Event()
        self._stop_seconds: float | None = None
        self.endings: Counter[tuple[str, JobState]] = Counter()
        """How many jobs of each kind came to each end in this engine, since its start. It only grows."""

    @property
    def running(self) -> int:
        """Return how many jobs run here now."""
        return len(self._executions)

    @property
    def is_working(self) -> bool:
        """Tell whether it looks for jobs, as far as that is up to it: a database that is away for now does not count."""
        return not (self._has_failed or self._is_faulty)

    # From outside

    def wake(self) -> None:
        """Look for jobs now, not at the next second. Called from any thread; harmless before `run` and after it."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(self._wake.set)

    async def stop(self, seconds: float) -> None:
        """End `run`: interrupt the jobs that run here and let them wait again, keeping their checkpoints.

        Those that have not given way after `seconds` are left to themselves. Writing it down comes on top. Called on the
        event loop of `run`; without one nothing happens.
        """
        self._stop_seconds = seconds if self._stop_seconds is None else min(seconds, self._stop_seconds)
        if self._loop is not None:
            self._wake.set()
            await self._is_over.wait()

    async def run(self) -> None:
        """Run jobs until `stop`. Raises OwnerInUseError, and OSError where the lock's file cannot be made."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._call(self._lock.acquire)
            self._has_lock = True
            await self._serve()
        except asyncio.CancelledError:
            self._stop_seconds = 0.0
            raise
        except Exception:
            self._has_failed = True
            raise
        finally:
            await self._end()

    async def _serve(self) -> None:
        while self._stop_seconds is None:
            self._wake.clear()
            await self._turn()
            if self._monotonic() >= self._upkeep_at:
                await self._look_after()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._options.poll_seconds)

    async def _call(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - as the function takes them
        """Call what blocks in the engine's own thread."""
        return await asyncio.wrap_future(self._own_threads.submit(partial(function, *args)))

    # A turn

    async def _turn(self) -> None:
        self._leave_stuck_runs()
        over = [each for each in self._executions.values() if each.has_ended]
        for each in [each for each in over if each.is_lost]:
            self._drop(each)
            over.remove(each)
        ended = [self._ended(each) for each in over]
        running = [each for each in self._executions.values() if not each.has_ended]
        asked = Asked(
            runs=frozenset(self._executions),
            ended=ended,
            is_beat_due=self._is_beat_due(running),
            places=self._options.running_max - len(running),
            failing_places=self._failing_places(running),
        )
        try:
            turned = await self._call(self._turns.turn, asked)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next turn may do: without turns nothing goes on
            self._note_failure(error)
            return
        self._note_success()
        if asked.is_beat_due:
            self._beat_at = self._monotonic()
        for each, after in zip(over, turned.after, strict=True):
            self._drop(each)
            self._note_end(each, after)
        self._heed(turned.own, running)
        self._note(turned)
        for taken in turned.taken:
            self._start(taken)

    def _is_beat_due(self, running: Sequence[Execution]) -> bool:
        since = self._monotonic() - self._beat_at
        return bool(running) and since >= self._options.lease_seconds / HEARTBEATS_PER_LEASE

    def _failing_places(self, running: Sequence[Execution]) -> int:
        allowed = max(1, int(self._options.running_max * FAILING_LANES_SHARE))
        return allowed - sum(each.lane_fails for each in running)

    def _start(self, taken: Taken) -> None:
        job = taken.job
        kind = self._kinds[job.kind]
        run = JobRun(job, self._database, self._job_threads)
        task = asyncio.get_running_loop().create_task(outcome_of(kind, run), name=f"job {job.job_id}")
        task.add_done_callback(self._run_is_over)
        self._executions[job.job_key, job.attempts] = Execution(
            job=job,
            kind=kind,
            run=run,
            task=task,
            began_at=self._monotonic(),
            lane_fails=taken.lane_fails,
        )

    def _run_is_over(self, task: "asyncio.Task[Any]") -> None:
        self._left.discard(task)
        self._wake.set()

    def _heed(self, own: Sequence[RunningRow], running: Sequence[Execution]) -> None:
        """Interrupt the runs that were asked to give way, and those whose lease was lost."""
        wishes = {(row.job_key, row.attempts): row.wish for row in own}
        for each in running:
            wish = wishes.get((each.job.job_key, each.job.attempts))
            if wish is None:
                each.is_lost = True
                log.warning("job", what="lease lost", kind=each.job.kind, job=each.job.job_id)
                each.interrupt(self._monotonic())
            elif wish is JobWish.PAUSE or (wish is JobWish.CANCEL and each.job.wish is not JobWish.CANCEL):
                each.interrupt(self._monotonic())

    def _leave_stuck_runs(self, seconds: float = INTERRUPT_SECONDS) -> None:
        now = self._monotonic()
        for each in self._executions.values():
            since = each.interrupted_at
            if since is not None and not each.has_ended and now - since >= seconds:
                log.error(
                    "job",
                    what="does not give way, and is left to itself",
                    kind=each.job.kind,
                    job=each.job.job_id,
                    lost_threads=self._job_threads.lost(),
                )
                each.leave()

    def _ended(self, execution: Execution) -> Ended:
        if execution.ended is None:
            execution.ended = Ended(
                job=execution.job,
                outcome=execution.outcome(),
                seconds=max(0.0, self._monotonic() - execution.began_at),
                concludes=execution.kind.concludes_cancellation,
                chance=self._chance(),
            )
        return execution.ended

    def _drop(self, execution: Execution) -> None:
        del self._executions[execution.job.job_key, execution.job.attempts]
        if not execution.task.done():
            self._left.add(execution.task)

    # What is rare

    async def _look_after(self) -> None:
        self._upkeep_at = self._monotonic() + UPKEEP_SECONDS
        try:
            kept = await self._call(self._upkeep.round)
            await self._call(self._turns.remove_files_of_dead)
            while self._stop_seconds is None and await self._call(self._upkeep.forget_old):
                await self._turn()  # a heartbeat must not wait for the end of a long history
        except OSError as error:
            log.warning(
                "error", what="the folder of the jobs' locks cannot be cleared", reason=error.strerror
            )
            return
        except Exception as error:  # noqa: BLE001 - it is done again in a minute, and the jobs go on meanwhile
            self._note_failure(error)
            return
        if kept.brought_forward:
            log.warning("job", what="due again, since the clock was set back", count=kept.brought_forward)
            self._wake.set()
        for job in kept.ended:
            self._count(job)

    async def _end(self) -> None:
        """Interrupt what runs, wait for it as long as `stop` allows, and write it down."""
        is_written = False
        try:
            await self._interrupt_all(self._stop_seconds or 0.0)
            is_written = not self._has_lock or await self._write_last()
        finally:
            self._executions.clear()
            self._own_threads.close()
            self._job_threads.close()
            # Rows may say still that they run here. A file that nobody holds says that we are gone.
            self._lock.release(keep_file=not is_written)
            self._is_over.set()

    async def _write_last(self) -> bool:
        over = [each for each in self._executions.values() if not each.is_lost]
        try:
            after = await self._call(self._turns.end, [self._ended(each) for each in over])
        except Exception as error:  # noqa: BLE001 - it ends all the same, and its rows wait for another
            self._note_failure(error)
            return False
        for each, job in zip(over, after, strict=True):
            self._note_end(each, job)
        return True

    async def _interrupt_all(self, seconds: float) -> None:
        for each in self._executions.values():
            each.interrupt(self._monotonic())
        tasks = {each.task for each in self._executions.values() if not each.has_ended}
        if tasks and seconds > 0:
            _, tasks = await asyncio.wait(tasks, timeout=seconds)
        if tasks:
            self._leave_stuck_runs(seconds=0.0)
            await asyncio.wait(tasks, timeout=LEFT_SECONDS)

    # What is said of it

    def _note_end(self, execution: Execution, after: Job | None) -> None:
        job = execution.job
        if after is None:
            log.warning("job", what="lease lost", kind=job.kind, job=job.job_id)
            return
        say = log.warning if after.state is JobState.FAILURE else log.info
        say(
            "job",
            what=after.state.value,
            kind=job.kind,
            job=job.job_id,
            step=job.step,
            lane=job.lane,
            seconds=round(execution.ended.seconds, 3) if execution.ended else 0.0,
            attempts=after.attempts,
            failures=after.failures,
            why=after.error,
        )
        self._count(after)

    def _note(self, turned: Turned) -> None:
        for job in turned.cancelled:
            log.info("job", what=job.state.value, kind=job.kind, job=job.job_id, why=job.error)
            self._count(job)
        if len(turned.cancelled) == BULK_JOBS_MAX:
            self._wake.set()  # there may be more
        for job in turned.unreadable:
            log.error("job", what=job.state.value, kind=job.kind, job=job.job_id, why=job.error)
            self._count(job)
        for job in turned.taken_over:
            log.warning("job", what="taken over", kind=job.kind, job=job.job_id, why=job.error)
            self._count(job)
            self._upkeep_at = self._monotonic()  # its owner left a file

    def _count(self, job: Job) -> None:
        if job.is_finished:
            self.endings[job.kind, job.state] += 1

    def _note_failure(self, error: Exception) -> None:
        """Say the first failure in a row; one that is no fault of the database with its place in the code."""
        is_fault = not isinstance(error, DatabaseError)
        if is_fault and not self._is_faulty:
            log.error("error", what="jobs cannot be looked at or written down", exc_info=error)
        elif not self._is_failing:
            log.error("error", what="jobs cannot be looked at or written down", reason=str(error))
        self._is_failing = True
        self._is_faulty = is_fault

    def _note_success(self) -> None:
        if self._is_failing:
            log.info("job", what="jobs can be looked at and written down again")
        self._is_failing = self._is_faulty = False
