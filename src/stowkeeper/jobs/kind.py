"""What a kind of job is: an object with a name and a coroutine. The engine knows no more of it."""

from dataclasses import dataclass
from typing import Protocol

from stowkeeper.jobs.job import JSON
from stowkeeper.jobs.run import JobInterrupted, JobRun, LeaseLostError

__all__ = [
    "Ending",
    "Failed",
    "Finished",
    "JobInterrupted",
    "JobKind",
    "JobRun",
    "LeaseLostError",
    "NextStep",
    "TryAgain",
]


@dataclass(frozen=True, slots=True)
class Finished:
    """All is done: the job is success (or cancelled, where it concluded that). `words` are kept as its last word.

    Who did not try what its lane waits for `says_nothing_of_lane`: its block stays. What an earlier step concluded
    (`NextStep.concludes_wish`) `was_cancelled` too.
    """

    words: str = ""
    says_nothing_of_lane: bool = False
    was_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class NextStep:
    """A step is done: the job waits for its turn in the next one's lane, as pending, its failures counted from 0 again.

    `checkpoint` replaces the former one unless None. It is not taken before `due_in_seconds` are over. More than
    SLEEP_SECONDS_MAX is cut to that; and clocks are set, so look at the time yourself before you call it over. A cancelled
    job whose wish the step heeded `concludes_wish`: what comes then can be cancelled by itself.
    """

    step: str
    lane: str = ""
    checkpoint: JSON | None = None
    due_in_seconds: float = 0.0
    concludes_wish: bool = False


@dataclass(frozen=True, slots=True)
class TryAgain:
    """It did not work for now, and the `words` say why: the job waits as retry, with one failure more.

    Without `in_seconds` it waits by the engine's back-off (30 s doubling to 10 min, then hourly); more than
    RETRY_AHEAD_SECONDS_MAX is cut to that. With `lane_is_blocked` the whole lane waits, by the lane's failures in a row,
    and then another of its jobs has the first try. When to give up a kind decides itself, by `run.job.created_at` and
    `run.job.failures`, and says Failed.
    """

    words: str
    in_seconds: float | None = None
    lane_is_blocked: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot be done: the job is failure, and the `words` say why and what a person could do.

    `checkpoint` replaces the former one unless None: with the end, so that it holds for who runs the job again when a person
    asks for that, and not where this run was told to stop and its end is not written.
    """

    words: str
    checkpoint: JSON | None = None


Ending = Finished | NextStep | TryAgain | Failed


class JobKind(Protocol):
    """Code for jobs of one name.

    With `concludes_cancellation` a cancelled job is run once more, with `run.job.wish` being "cancel" then and in every
    run after, until one concludes it; its Finished means cancelled. Without, it is cancelled as soon as its run has given way.

    `run` is called anew for each step and each attempt. It may be broken off at any await and is then run again, so it
    writes so that a second time changes nothing. It must not block the event loop: what waits for the disk or the
    database goes through `run.in_thread`. An exception is logged and counts as TryAgain; after EXCEPTIONS_MAX in a row
    the job fails. DatabaseUnavailable always passes, however often it comes.
    """

    @property
    def name(self) -> str:
        """Return the name of the kind, as jobs are submitted with it."""
        ...

    @property
    def concludes_cancellation(self) -> bool:
        """Tell whether it is run once more after a cancellation."""
        ...

    async def run(self, run: JobRun) -> Ending:
        """Do the step that `run.job.step` names, and say how it ended."""
        ...
