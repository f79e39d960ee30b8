"""The states of a job, what can happen to it, and the one table of its moves.

    pending ──take──► running ──succeed──► success
       ▲                 │ ├────fail─────► failure
       ├──step, stop─────┤ ├───conclude──► cancelled
       │                 │ └───give way──► paused ──resume──► pending
     retry ◄──try again──┘

A job that runs is not moved by others: who wants it paused or cancelled writes a wish into its row, and the engine
that runs it makes the move when its run has given way. A job that waits and is cancelled goes to *pending* with that
wish, due at once: only an engine knows whether its kind has something to conclude first. Where it has not, the engine
cancels it without a run.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobState(StrEnum):
    """Where a job is. *pending* and *retry* wait, the last one after a failed attempt; the last three are the end."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    RETRY = "retry"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"


class JobWish(StrEnum):
    """What a job was asked for and has not done yet."""

    NONE = ""
    PAUSE = "pause"
    CANCEL = "cancel"


class JobEvent(StrEnum):
    """What happens to a job.

    Of an engine: *take* it, and then the run ends: it *succeeds*, goes to its next *step*, is to be *tried again*, *fails*,
    is *stopped* with its engine (or was taken over from a dead one), *gives way* to a pause, *concludes* its
    cancellation. Of everyone else: *pause*, *resume*, *cancel*, *resubmit*.
    """

    TAKE = "take"
    SUCCEED = "succeed"
    STEP = "step"
    TRY_AGAIN = "try again"
    FAIL = "fail"
    STOP = "stop"
    GIVE_WAY = "give way"
    CONCLUDE = "conclude"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RESUBMIT = "resubmit"


class JobAction(StrEnum):
    """What people and programs may ask of jobs, one by one or many at once."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RESUBMIT = "resubmit"
    DELETE = "delete"


WAITING = frozenset({JobState.PENDING, JobState.RETRY})
"""The states in which a job is taken when it is due."""

FINISHED = frozenset({JobState.SUCCESS, JobState.FAILURE, JobState.CANCELLED})
"""The states in which nothing more happens by itself; a job in one of them can be deleted."""

TRANSITIONS: Mapping[tuple[JobState, JobEvent], JobState] = MappingProxyType(
    {
        (JobState.PENDING, JobEvent.TAKE): JobState.RUNNING,
        (JobState.RETRY, JobEvent.TAKE): JobState.RUNNING,
        (JobState.RUNNING, JobEvent.SUCCEED): JobState.SUCCESS,
        (JobState.RUNNING, JobEvent.STEP): JobState.PENDING,
        (JobState.RUNNING, JobEvent.TRY_AGAIN): JobState.RETRY,
        (JobState.RUNNING, JobEvent.FAIL): JobState.FAILURE,
        (JobState.RUNNING, JobEvent.STOP): JobState.PENDING,
        (JobState.RUNNING, JobEvent.GIVE_WAY): JobState.PAUSED,
        (JobState.RUNNING, JobEvent.CONCLUDE): JobState.CANCELLED,
        # Kinds with nothing to conclude, and kinds that nobody knows any more.
        (JobState.PENDING, JobEvent.CONCLUDE): JobState.CANCELLED,
        (JobState.RETRY, JobEvent.CONCLUDE): JobState.CANCELLED,
        (JobState.PENDING, JobEvent.FAIL): JobState.FAILURE,
        (JobState.RETRY, JobEvent.FAIL): JobState.FAILURE,
        (JobState.PENDING, JobEvent.PAUSE): JobState.PAUSED,
        (JobState.RETRY, JobEvent.PAUSE): JobState.PAUSED,
        (JobState.RUNNING, JobEvent.PAUSE): JobState.RUNNING,  # as a wish
        (JobState.PAUSED, JobEvent.RESUME): JobState.PENDING,
        (
            JobState.RUNNING,
            JobEvent.RESUME,
        ): JobState.RUNNING,  # takes back the wish to pause, there must be one
        (JobState.PENDING, JobEvent.CANCEL): JobState.PENDING,  # as a wish, like the next three
        (JobState.RETRY, JobEvent.CANCEL): JobState.PENDING,
        (JobState.PAUSED, JobEvent.CANCEL): JobState.PENDING,
        (JobState.RUNNING, JobEvent.CANCEL): JobState.RUNNING,
        (JobState.RETRY, JobEvent.RESUBMIT): JobState.PENDING,
        (JobState.FAILURE, JobEvent.RESUBMIT): JobState.PENDING,
        (JobState.CANCELLED, JobEvent.RESUBMIT): JobState.PENDING,
    }
)
"""State and event to the state after it. What is not in here does not happen."""


_WORDS = {
    JobEvent.TAKE: "be taken",
    JobEvent.STEP: "go to its next step",
    JobEvent.TRY_AGAIN: "be tried again",
    JobEvent.STOP: "be stopped",
    JobEvent.CONCLUDE: "conclude its cancellation",
    JobEvent.PAUSE: "be paused",
    JobEvent.RESUME: "be resumed",
    JobEvent.CANCEL: "be cancelled",
    JobEvent.RESUBMIT: "be tried again",
}


class JobStateError(Exception):
    """A job is in a state in which it cannot be asked for this (409 by HTTP); the text says so in words."""


def states_before(event: JobEvent) -> tuple[JobState, ...]:
    """Return the states in which an event can happen, in the order of JobState."""
    return tuple(state for state in JobState if (state, event) in TRANSITIONS)


def next_state(state: JobState, event: JobEvent) -> JobState:
    """Return the state after an event. Raises JobStateError where the table has no such move."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        *others, last = states_before(event)
        allowed = f"{', '.join(others)} or {last}" if others else last
        words = _WORDS.get(event, str(event))
        raise JobStateError(f"a job in state {state} cannot {words}: only one in state {allowed} can")
    return after
