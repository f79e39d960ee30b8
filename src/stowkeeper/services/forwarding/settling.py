"""What jobs leave behind: forwards whose job came to its end, or is gone, without a word about them."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, select, text, update

from stowkeeper.database.engine import Database, Transaction
from stowkeeper.database.schema import FORWARDS_IN_JOB, forwards, job_items, jobs
from stowkeeper.jobs.job import JobItem
from stowkeeper.jobs.states import FINISHED, JobState
from stowkeeper.services.forwarding.outcomes import set_outcomes
from stowkeeper.services.forwarding.queueing import groups_in, jobs_of
from stowkeeper.services.forwarding.rows import ForwardState
from stowkeeper.services.store_items import FAILED, OPEN

_FINISHED: Final = frozenset(state.value for state in FINISHED)
_IN_JOB: Final = text(FORWARDS_IN_JOB)
_GONE: Final = "its job was deleted before it was sent"


def settle(database: Database) -> int:
    """Write what became of forwards whose jobs are at their end; return how many jobs. Raises DatabaseUnavailable."""
    with database.read() as connection:
        over = [key for key in _jobs_with_rows(connection) if _is_over(_job(connection, key))]
    for job_key in over:
        with database.write() as transaction:
            _settle(transaction, job_key)
    return len(over)


def _jobs_with_rows(connection: Connection) -> Iterator[int]:
    """Give the jobs that have forwards, from one to the next in the index: not row by row."""
    for group in list(groups_in(connection, ForwardState.QUEUED)):
        yield from jobs_of(connection, group)


def _job(connection: Connection, job_key: int) -> Row[Any] | None:
    query: Select[Any] = select(jobs.c.state, jobs.c.error).where(jobs.c.job_key == job_key)
    return connection.execute(query).first()


def _is_over(job: Row[Any] | None) -> bool:
    return job is None or job.state in _FINISHED


def _settle(transaction: Transaction, job_key: int) -> None:
    """Write the outcomes of the items; what was not decided has failed, with the last words of the job."""
    job = _job(transaction.connection, job_key)
    if not _is_over(job):
        return  # somebody submitted it again meanwhile
    mine = (forwards.c.job_key == job_key, forwards.c.state == ForwardState.QUEUED.value, _IN_JOB)
    if job is not None:
        query = (
            select(job_items.c.position, job_items.c.name, job_items.c.outcome, job_items.c.words)
            .join(
                forwards,
                (forwards.c.position == job_items.c.position) & (forwards.c.job_key == job_items.c.job_key),
            )
            .where(job_items.c.job_key == job_key, *mine)
        )
        set_outcomes(transaction, job_key, [_item(row, job) for row in transaction.execute(query)])
    failed = update(forwards).where(*mine).values(state=ForwardState.FAILED.value, words=_GONE)
    transaction.execute(failed.values(changed_at=transaction.at))


def _item(row: Row[Any], job: Row[Any]) -> JobItem:
    if row.outcome != OPEN:
        return JobItem(position=row.position, name=row.name, outcome=row.outcome, words=row.words)
    words = job.error or f"its job came to its end ({JobState(job.state)}) before it was sent"
    if row.words:
        words = f"{words}; before that: {row.words}"
    return JobItem(position=row.position, name=row.name, outcome=FAILED, words=words)
