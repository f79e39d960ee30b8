"""What people and programs ask of jobs that are there: pause, resume, cancel, resubmit, delete, another priority.

Each of it is a move of the table in `states.py`, or a wish where the job runs; each writes a row of the audit trail in the
same transaction. Asking again for what is already so, or on its way, changes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, and_, insert, or_, select, tuple_, update
from sqlalchemy import delete as delete_rows

from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import audit, job_items, job_lanes, jobs
from stowkeeper.jobs.columns import cut_words, job_of
from stowkeeper.jobs.filters import conditions
from stowkeeper.jobs.job import Job, JobFilter, JobNotFoundError
from stowkeeper.jobs.limits import BULK_ITEMS_MAX, BULK_JOBS_MAX, REMOVED_JOBS_MAX, RETENTION_ROWS_MAX
from stowkeeper.jobs.states import (
    FINISHED,
    JobAction,
    JobEvent,
    JobState,
    JobStateError,
    JobWish,
    next_state,
    states_before,
)
from stowkeeper.jobs.submission import checked_priority

RESUMED = "job resumed"
RESUBMITTED = "job resubmitted"
"""What the audit trail calls it."""

Changes = dict[str, Any]
"""Columns of a job's row and their new values; none where nothing changes."""


def pause(transaction: Transaction, job_id: str, who: str) -> Job:
    """Let a job wait until it is resumed; one that runs gives way within a second or so.

    Raises JobNotFoundError, and JobStateError where it is paused, finished, or being cancelled.
    """
    return _act(transaction, job_id, who, JobAction.PAUSE)


def resume(transaction: Transaction, job_id: str, who: str) -> Job:
    """Let a paused job go on: when it would have been due, so often at once. Raises JobNotFoundError and JobStateError."""
    return _act(transaction, job_id, who, JobAction.RESUME)


def cancel(transaction: Transaction, job_id: str, who: str) -> Job:
    """End a job. It is cancelled within a second or so of an engine's time, or when its kind has concluded what there is.

    Until then its wish is "cancel". Raises JobNotFoundError, and JobStateError where it is finished.
    """
    return _act(transaction, job_id, who, JobAction.CANCEL)


def resubmit(transaction: Transaction, job_id: str, who: str) -> Job:
    """Begin a job that failed or was cancelled again, from its checkpoint; or try one that waits as retry now.

    The block of its lane is lifted, so that it is tried indeed. Raises JobNotFoundError and JobStateError.
    """
    return _act(transaction, job_id, who, JobAction.RESUBMIT)


def delete(transaction: Transaction, job_id: str, who: str) -> Job:
    """Forget a finished job and its items; returns it as it was. Raises JobNotFoundError and JobStateError."""
    return _act(transaction, job_id, who, JobAction.DELETE)


def set_priority(transaction: Transaction, job_id: str, priority: int, who: str) -> Job:
    """Give a job that is not finished another priority. Raises ValueError, JobNotFoundError and JobStateError."""
    checked_priority(priority)
    job = _job(transaction, job_id)
    if job.state in FINISHED:
        raise JobStateError(f"a job in state {job.state} is finished: its priority means nothing any more")
    if job.priority != priority:
        _change(transaction, [job], {"priority": priority})
        _note(transaction, who, f"job priority {priority}", [job])
    return _job(transaction, job_id)


def apply_to_all(transaction: Transaction, wanted: JobFilter, action: JobAction | str, who: str) -> list[str]:
    """Do the same with every job that a filter finds and that it can be done with; return the ids of those changed.

    The newest first, at most BULK_JOBS_MAX in one transaction whatever the `limit` of the filter; call it again, in a
    transaction of its own, until none is left. Raises ValueError for an action that there is not.
    """
    action = JobAction(action)
    query = (
        select(jobs)
        .where(*conditions(wanted), _CAN[action])
        .order_by(jobs.c.job_key.desc())
        .limit(BULK_JOBS_MAX)
    )
    found = [job_of(row) for row in transaction.execute(query)]
    if action is JobAction.DELETE:
        found = _of_few_items(found)
    _do(transaction, found, who, action)
    return [job.job_id for job in found]


def remove_old(transaction: Transaction, finished_before: str) -> int:
    """Forget jobs that finished before a time, the oldest first, and their items; return how many rows went.

    It stops at RETENTION_ROWS_MAX: call it again, in a transaction of its own, until it returns 0.
    """
    old = (
        select(jobs.c.job_key)
        .where(jobs.c.finished_at.is_not(None), jobs.c.finished_at < finished_before)
        .order_by(jobs.c.finished_at)
        .limit(REMOVED_JOBS_MAX)
    )
    keys = list(transaction.execute(old).scalars())
    if not keys:
        return 0
    some = (
        select(job_items.c.job_key, job_items.c.position)
        .where(job_items.c.job_key.in_(keys))
        .limit(RETENTION_ROWS_MAX)
    )
    items = transaction.execute(
        delete_rows(job_items).where(tuple_(job_items.c.job_key, job_items.c.position).in_(some))
    ).rowcount
    if items == RETENTION_ROWS_MAX:
        return items
    return items + transaction.execute(delete_rows(jobs).where(jobs.c.job_key.in_(keys))).rowcount


# How it is done


def _act(transaction: Transaction, job_id: str, who: str, action: JobAction) -> Job:
    job = _job(transaction, job_id)
    _do(transaction, [job], who, action)
    return job if action is JobAction.DELETE else _job(transaction, job_id)


def _job(transaction: Transaction, job_id: str) -> Job:
    row = transaction.execute(select(jobs).where(jobs.c.job_id == job_id)).one_or_none()
    if row is None:
        raise JobNotFoundError(f"there is no job {job_id}: it never was, or it was deleted")
    return job_of(row)


def _do(transaction: Transaction, found: Sequence[Job], who: str, action: JobAction) -> None:
    if action is JobAction.DELETE:
        for job in found:
            if not job.is_finished:
                raise JobStateError(f"a job in state {job.state} cannot be deleted: cancel it first")
        transaction.execute(delete_rows(jobs).where(jobs.c.job_key.in_([job.job_key for job in found])))
        _note(transaction, who, _DONE[action], found)
        return
    alike: defaultdict[tuple[tuple[str, Any], ...], list[Job]] = defaultdict(list)
    for job in found:
        changes = _CHANGES[action](job, transaction.at, who)
        if changes:
            alike[tuple(changes.items())].append(job)
    for pairs, same in alike.items():
        _change(transaction, same, dict(pairs))
        _note(transaction, who, _DONE[action], same)
        if action is JobAction.RESUBMIT:
            lanes = {job.lane for job in same}
            transaction.execute(delete_rows(job_lanes).where(job_lanes.c.lane.in_(lanes)))


def _change(transaction: Transaction, found: Iterable[Job], changes: Changes) -> None:
    keys = [job.job_key for job in found]
    transaction.execute(update(jobs).where(jobs.c.job_key.in_(keys)).values(changes))


def _note(transaction: Transaction, who: str, action: str, found: Iterable[Job]) -> None:
    rows = [
        {"at": transaction.at, "who": who, "action": action, "subject": job.job_id, "detail": job.kind}
        for job in found
    ]
    if rows:
        transaction.execute(insert(audit), rows)


def _of_few_items(found: Sequence[Job]) -> list[Job]:
    """Leave out what would make one transaction long; the first is in it in any case."""
    kept: list[Job] = []
    items = 0
    for job in found:
        items += job.items_total
        if kept and items > BULK_ITEMS_MAX:
            break
        kept.append(job)
    return kept


# What changes in a row


def _paused(job: Job, _at: str, _who: str) -> Changes:
    after = next_state(job.state, JobEvent.PAUSE)
    if job.wish is JobWish.CANCEL:
        raise JobStateError("the job is being cancelled: it cannot be paused any more")
    if after is JobState.RUNNING:
        return {} if job.wish is JobWish.PAUSE else {"wish": JobWish.PAUSE.value}
    return {"state": after.value}


def _resumed(job: Job, _at: str, _who: str) -> Changes:
    after = next_state(job.state, JobEvent.RESUME)
    if after is JobState.RUNNING:
        if job.wish is not JobWish.PAUSE:
            raise JobStateError("the job runs and was not asked to pause: there is nothing to resume")
        return {"wish": JobWish.NONE.value}
    return {"state": after.value}


def _cancelled(job: Job, at: str, who: str) -> Changes:
    after = next_state(job.state, JobEvent.CANCEL)
    if job.wish is JobWish.CANCEL:
        return {}
    changes = {"wish": JobWish.CANCEL.value, "error": cut_words(f"cancelled by {who}")}
    return changes if after is JobState.RUNNING else {**changes, "state": after.value, "due_at": at}


def _resubmitted(job: Job, at: str, _who: str) -> Changes:
    after = next_state(job.state, JobEvent.RESUBMIT)
    return {"state": after.value, "due_at": at, "failures": 0, "faults": 0, "error": "", "finished_at": None}


_CHANGES: MappingProxyType[JobAction, Callable[[Job, str, str], Changes]] = MappingProxyType(
    {
        JobAction.PAUSE: _paused,
        JobAction.RESUME: _resumed,
        JobAction.CANCEL: _cancelled,
        JobAction.RESUBMIT: _resubmitted,
    }
)
_DONE = MappingProxyType(
    {
        JobAction.PAUSE: "job paused",
        JobAction.RESUME: RESUMED,
        JobAction.CANCEL: "job cancelled",
        JobAction.RESUBMIT: RESUBMITTED,
        JobAction.DELETE: "job deleted",
    }
)


def _in(states: Iterable[JobState]) -> ColumnElement[bool]:
    return jobs.c.state.in_([state.value for state in states])


def _before(event: JobEvent) -> ColumnElement[bool]:
    return _in(states_before(event))


# Which rows an action changes: those that it does not refuse, without those that it leaves as they are.
_CAN = MappingProxyType(
    {
        JobAction.PAUSE: and_(_before(JobEvent.PAUSE), jobs.c.wish == JobWish.NONE.value),
        JobAction.RESUME: and_(
            _before(JobEvent.RESUME),
            or_(jobs.c.state != JobState.RUNNING.value, jobs.c.wish == JobWish.PAUSE.value),
        ),
        JobAction.CANCEL: and_(_before(JobEvent.CANCEL), jobs.c.wish != JobWish.CANCEL.value),
        JobAction.RESUBMIT: _before(JobEvent.RESUBMIT),
        JobAction.DELETE: _in(FINISHED),
    }
)
