"""The items of jobs as people see them: those of a storage commitment are the instances of its transaction.

They stand in the rows of the transaction, with what became of each, and not a second time in those of the job.
"""

from sqlalchemy import Connection

from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job, JobItem
from stowkeeper.jobs.limits import PAGE_MAX
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking import JOB_KIND
from stowkeeper.services.commitment.commitment_values import CommitmentRole
from stowkeeper.services.commitment.options import COMMITMENT_JOB


def items_of(connection: Connection, job: Job, after: int = -1, limit: int = PAGE_MAX) -> list[JobItem]:
    """Return one page of what a job is about, in order, from behind position `after`."""
    commitment_key = _transaction_of(connection, job)
    if commitment_key is None:
        return jobs.items_of(connection, job.job_key, after, limit)
    return [
        JobItem(
            position=instance.position,
            name=instance.sop_instance_uid,
            outcome=instance.outcome.value,
            code=instance.reason,
            words=instance.words,
            done_at=instance.checked_at,
        )
        for instance in rows.instances_of(connection, commitment_key, after, min(limit, PAGE_MAX))
    ]


def _transaction_of(connection: Connection, job: Job) -> int | None:
    if job.kind == COMMITMENT_JOB:
        return int(job.arguments["commitment_key"])
    if job.kind == JOB_KIND:
        found = rows.find(connection, CommitmentRole.USER, str(job.arguments["transaction_uid"]))
        return None if found is None else found.commitment_key
    return None
