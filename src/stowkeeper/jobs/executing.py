"""One run of a job on the event loop: the kind's coroutine as a task, its end as an outcome whatever it does."""

import asyncio
import os
import traceback
from dataclasses import dataclass

import structlog

from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.jobs.endings import Ended, Outcome, Raised, Stopped, changes_at_end
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.kind import Ending, Failed, Finished, JobKind, NextStep, TryAgain
from stowkeeper.jobs.run import JobInterrupted, JobRun, LeaseLostError

log = structlog.get_logger("stowkeeper.jobs")


@dataclass(slots=True, kw_only=True, eq=False)
class Execution:
    """A run in this process.

    `began_at` and `interrupted_at` are monotonic time. One that is lost has no say about its row any more; one that is left
    did not end when it was told to. `ended` is what is to be written, once it is known.
    """

    job: Job
    kind: JobKind
    run: JobRun
    task: "asyncio.Task[Outcome]"
    began_at: float
    lane_fails: bool = False
    interrupted_at: float | None = None
    is_lost: bool = False
    is_left: bool = False
    ended: Ended | None = None

    @property
    def has_ended(self) -> bool:
        """Tell whether it is over, or is treated so."""
        return self.is_left or self.task.done()

    def interrupt(self, now: float) -> None:
        """Ask the run to end, once."""
        if self.interrupted_at is None:
            self.interrupted_at = now
            self.run.stopping.set()
            self.task.cancel()

    def leave(self) -> None:
        """Let a run that does not end be: nothing that it writes counts any more."""
        self.is_left = True
        self.run.leave()

    def outcome(self) -> Outcome:
        """Return what an ended or left run came to."""
        if not self.task.done() or self.task.cancelled():
            return Stopped()
        return self.task.result()


async def outcome_of(kind: JobKind, run: JobRun) -> Outcome:
    """Run a kind to its end, and say what it came to. What it raises is logged, not raised."""
    try:
        ending = await kind.run(run)
        return _checked(ending, kind, run)
    except asyncio.CancelledError:
        if run.stopping.is_set():
            return Stopped()
        return Raised("its run was cancelled from elsewhere", passes=True)
    except DatabaseUnavailable as error:
        return Stopped() if run.stopping.is_set() else Raised(str(error), passes=True)
    except Exception as error:  # noqa: BLE001 - whatever a kind does, its job and all others go on
        if run.stopping.is_set():
            if not isinstance(error, JobInterrupted | LeaseLostError):
                what = type(error).__name__
                log.warning("job", what="raised while it was stopped", **_names(run.job), error=what)
            return Stopped()
        return _raised(run, error)


def _raised(run: JobRun, error: BaseException) -> Raised:
    """Log an exception, and put it into words: its class and its place, for its text may quote data."""
    log.error("error", what="a job met a fault", **_names(run.job), exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return Raised(f"a fault in job kind {run.job.kind}: {type(error).__name__}{reason}{place}")


def _checked(ending: Ending, kind: JobKind, run: JobRun) -> Ending:
    """Return an ending that a row can keep. Raises TypeError, ValueError and JobTooLargeError, a fault of the kind."""
    if not isinstance(ending, Finished | NextStep | TryAgain | Failed):
        raise TypeError(f"a run ended with {type(ending).__name__}, which is no ending")
    # Tried here, where it harms one job: the transaction that writes it down is that of all.
    tried = Ended(job=run.job, outcome=ending, seconds=0.0, concludes=kind.concludes_cancellation)
    changes_at_end(run.job, tried, run.job.created_at)
    return ending


def _names(job: Job) -> dict[str, str]:
    return {"kind": job.kind, "job": job.job_id}
