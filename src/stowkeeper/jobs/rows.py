"""Jobs as rows, for whoever asks for them or looks at them; no engine is needed.

What changes something takes the caller's transaction, what only looks a connection. Tell the engine of your own process by
`JobEngine.wake` when the transaction has ended; engines of others look each second.
"""

from sqlalchemy import Connection, bindparam, func, select, text

from stowkeeper.database.schema import WAITING as WAITING_ROWS
from stowkeeper.database.schema import job_items, jobs
from stowkeeper.jobs.actions import (
    RESUBMITTED,
    RESUMED,
    apply_to_all,
    cancel,
    delete,
    pause,
    remove_old,
    resubmit,
    resume,
    set_priority,
)
from stowkeeper.jobs.columns import item_of, job_of
from stowkeeper.jobs.filters import conditions
from stowkeeper.jobs.job import Job, JobFilter, JobItem
from stowkeeper.jobs.limits import PAGE_MAX
from stowkeeper.jobs.states import JobState
from stowkeeper.jobs.submission import submit, submit_many

__all__ = [
    "RESUBMITTED",
    "RESUMED",
    "apply_to_all",
    "cancel",
    "counts",
    "delete",
    "find",
    "items_of",
    "list_jobs",
    "oldest_waiting_at",
    "pause",
    "remove_old",
    "resubmit",
    "resume",
    "set_priority",
    "submit",
    "submit_many",
]

_IS_WAITING = text(WAITING_ROWS)
_OLDEST = select(func.min(jobs.c.due_at)).where(_IS_WAITING, jobs.c.due_at <= bindparam("now"))


def find(connection: Connection, job_id: str) -> Job | None:
    """Return a job, None where there is none of this id."""
    row = connection.execute(select(jobs).where(jobs.c.job_id == job_id)).one_or_none()
    return None if row is None else job_of(row)


def list_jobs(connection: Connection, wanted: JobFilter) -> list[Job]:
    """Return one page of the jobs that a filter finds, the newest first."""
    query = select(jobs).where(*conditions(wanted)).order_by(jobs.c.job_key.desc()).limit(wanted.limit)
    return [job_of(row) for row in connection.execute(query)]


def items_of(connection: Connection, job_key: int, after: int = -1, limit: int = PAGE_MAX) -> list[JobItem]:
    """Return one page of a job's items, in order, from behind position `after`."""
    query = (
        select(job_items)
        .where(job_items.c.job_key == job_key, job_items.c.position > after)
        .order_by(job_items.c.position)
        .limit(min(limit, PAGE_MAX))
    )
    return [item_of(row) for row in connection.execute(query)]


def counts(connection: Connection) -> dict[tuple[str, JobState], int]:
    """Return how many jobs there are of each kind in each state. It walks over all of them."""
    query = select(jobs.c.kind, jobs.c.state, func.count()).group_by(jobs.c.kind, jobs.c.state)
    return {(kind, JobState(state)): count for kind, state, count in connection.execute(query)}


def oldest_waiting_at(connection: Connection, now: str) -> str | None:
    """Return since when the job has been due that waits for its turn longest; None where none that is due waits.

    One that is to be done later, as the scrub is between its rounds, waits for nobody.
    """
    found: str | None = connection.execute(_OLDEST, {"now": now}).scalar()
    return found
