"""How runs end: from what a run came to, and what was wished meanwhile, to the row's next state."""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.sqlite import insert

from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import job_lanes, jobs
from stowkeeper.jobs.back_off import back_off_seconds
from stowkeeper.jobs.columns import checked_text, cut_words, encode_checkpoint, job_of
from stowkeeper.jobs.job import JSON, Job
from stowkeeper.jobs.kind import Ending, Failed, Finished, NextStep, TryAgain
from stowkeeper.jobs.limits import (
    DEATHS_AT_ONCE_MAX,
    DEATHS_MAX,
    EXCEPTIONS_MAX,
    RETRY_AHEAD_SECONDS_MAX,
    SLEEP_SECONDS_MAX,
)
from stowkeeper.jobs.run import is_ours
from stowkeeper.jobs.states import FINISHED, JobEvent, JobWish, next_state
from stowkeeper.jobs.times import later


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run gave way: to a pause, to a cancellation, to the end of its engine."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process that ran it is gone, or stood still for longer than its lease."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The run ended with an exception. `passes`: it is one of those that pass, however often they come."""

    words: str
    passes: bool = False


Outcome = Ending | Stopped | Died | Raised
Changes = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of a run that was taken as `job`. `concludes` is that of its kind; `chance` from 0 to 1 goes into pauses."""

    job: Job
    outcome: Outcome
    seconds: float
    concludes: bool
    chance: float = 0.0


def record(transaction: Transaction, ended: Ended) -> Job | None:
    """Write the end of a run; return the job after it, None where the lease was lost and nothing was written."""
    if not is_ours(transaction, ended.job):
        return None
    if ended.job.lane:
        ended = _with_lane(transaction, ended)
    of_job = jobs.c.job_key == ended.job.job_key
    now = job_of(transaction.execute(select(jobs).where(of_job)).one())
    transaction.execute(update(jobs).where(of_job).values(changes_at_end(now, ended, transaction.at)))
    return job_of(transaction.execute(select(jobs).where(of_job)).one())


def changes_at_end(now: Job, ended: Ended, at: str) -> Changes:
    """Return what changes in a row that stands as `now`, its wish and progress included, when its run has ended."""
    event, changes = _changes_of(now, ended, at)
    was_concluding = ended.job.wish is JobWish.CANCEL
    if next_state(now.state, event) not in FINISHED:
        if now.wish is JobWish.PAUSE:
            event, changes["wish"] = JobEvent.GIVE_WAY, JobWish.NONE.value
        elif now.wish is JobWish.CANCEL and not ended.concludes:
            event, changes["error"] = JobEvent.CONCLUDE, now.error
        elif now.wish is JobWish.CANCEL and not was_concluding:
            # Once more, at once, now with the wish in sight.
            event = JobEvent.STOP
            changes |= {"due_at": at, "error": now.error}
    state = next_state(now.state, event)
    changes |= {"state": state.value, "owner": "", "seconds_run": now.seconds_run + ended.seconds}
    if state in FINISHED:
        changes |= {"finished_at": at, "wish": JobWish.NONE.value}
    return changes


def _changes_of(now: Job, ended: Ended, at: str) -> tuple[JobEvent, Changes]:
    """Return what the run itself came to, whatever was wished meanwhile."""
    was_concluding = ended.job.wish is JobWish.CANCEL
    # "cancelled by …" stays to be read as long as nothing else is said.
    kept_words = now.error if was_concluding else ""
    match ended.outcome:
        case Finished(words=words, was_cancelled=was_cancelled):
            event = JobEvent.CONCLUDE if was_concluding or was_cancelled else JobEvent.SUCCEED
            return event, {"error": cut_words(words) or kept_words, "failures": 0, "faults": 0}
        case Failed(words, checkpoint):
            return JobEvent.FAIL, {"error": cut_words(words), "faults": 0} | _with_checkpoint(checkpoint)
        case NextStep(step, lane, checkpoint, due_in_seconds, concludes_wish):
            changes: Changes = {
                "step": checked_text("step", step),
                "lane": checked_text("lane", lane),
                "due_at": later(at, min(max(due_in_seconds, 0.0), SLEEP_SECONDS_MAX)),
                "error": kept_words,
                "failures": 0,
                "faults": 0,
                **_with_checkpoint(checkpoint),
            }
            if concludes_wish and was_concluding:
                changes["wish"] = JobWish.NONE.value
            return JobEvent.STEP, changes
        case TryAgain(words, in_seconds):
            failures = now.failures + 1
            wait = back_off_seconds(failures, ended.chance) if in_seconds is None else in_seconds
            return JobEvent.TRY_AGAIN, {
                "error": cut_words(words),
                "failures": failures,
                "faults": 0,
                "due_at": later(at, min(max(wait, 0.0), RETRY_AHEAD_SECONDS_MAX)),
            }
        case Raised() as raised:
            return _changes_of_fault(now, raised, ended.chance, at)
        case Died():
            return _changes_of_death(now, ended.chance, at)
        case Stopped():
            return JobEvent.STOP, {"faults": 0}


def _with_checkpoint(checkpoint: JSON | None) -> Changes:
    return {} if checkpoint is None else {"checkpoint": encode_checkpoint(checkpoint)}


def _changes_of_fault(now: Job, raised: Raised, chance: float, at: str) -> tuple[JobEvent, Changes]:
    failures = now.failures + 1
    faults = 0 if raised.passes else now.faults + 1
    changes: Changes = {"error": cut_words(raised.words), "failures": failures, "faults": faults}
    if faults >= EXCEPTIONS_MAX:
        words = f"{raised.words}; that was {faults} times in a row: see the log for it, then try the job again (`stowkeeper jobs retry`)"
        return JobEvent.FAIL, {**changes, "error": cut_words(words)}
    wait = back_off_seconds(failures if raised.passes else faults, chance)
    return JobEvent.TRY_AGAIN, {**changes, "due_at": later(at, wait)}


def _changes_of_death(now: Job, chance: float, at: str) -> tuple[JobEvent, Changes]:
    faults = now.faults + 1
    if faults >= DEATHS_MAX:
        words = (
            f"the process that ran it ended in the middle {faults} times in a row: see its log for what this job does to"
            " it, then try the job again (`stowkeeper jobs retry`)"
        )
        return JobEvent.FAIL, {"error": words, "faults": faults}
    words = "the process that ran it ended in the middle, or stood still"
    changes: Changes = {"error": now.error if now.wish is JobWish.CANCEL else words, "faults": faults}
    if faults <= DEATHS_AT_ONCE_MAX:
        return JobEvent.STOP, changes
    wait = back_off_seconds(faults - DEATHS_AT_ONCE_MAX, chance)
    return JobEvent.TRY_AGAIN, {**changes, "due_at": later(at, wait)}


# Lanes


def _with_lane(transaction: Transaction, ended: Ended) -> Ended:
    """Block the lane of a job, or lift its block, as the run ended; a job whose lane is blocked is due with it."""
    lane = ended.job.lane
    match ended.outcome:
        case TryAgain(words, in_seconds, True):
            wait = _block(transaction, lane, words, in_seconds, ended.chance)
            return replace(ended, outcome=TryAgain(words, wait, lane_is_blocked=True))
        case Finished(says_nothing_of_lane=True):
            pass
        case Finished() | NextStep() | TryAgain():
            of_lane = job_lanes.c.lane == lane
            if transaction.execute(select(job_lanes.c.lane).where(of_lane)).first() is not None:
                transaction.execute(delete(job_lanes).where(of_lane))
        case _:
            pass  # it says nothing of the lane
    return ended


def _block(transaction: Transaction, lane: str, words: str, in_seconds: float | None, chance: float) -> float:
    """Block a lane; return for how many seconds."""
    before = transaction.execute(select(job_lanes.c.failures).where(job_lanes.c.lane == lane)).scalar()
    failures = (before or 0) + 1
    wait = back_off_seconds(failures, chance) if in_seconds is None else in_seconds
    wait = min(max(wait, 0.0), RETRY_AHEAD_SECONDS_MAX)
    row = {
        "failures": failures,
        "blocked_until": later(transaction.at, wait),
        "words": cut_words(words),
    }
    transaction.execute(
        insert(job_lanes).values(lane=lane, **row).on_conflict_do_update(index_elements=["lane"], set_=row)
    )
    return wait
