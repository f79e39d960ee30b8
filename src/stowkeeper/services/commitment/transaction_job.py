"""The one job of a transaction: a transaction is worked on by the job that its row names, and by no other.

Another one takes its place only where it has ended, or is gone, or may be sending a report right now: both are of the lane of
the peer then, in which one runs at a time, and the former ends when it is run next (`provider_job.py`).
"""

import uuid

from sqlalchemy import Connection

from stowkeeper.database.engine import Transaction
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import JSON, Job, JobRequest
from stowkeeper.jobs.options import DISK_LANE
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import WAY_DIMSE, Commitment, CommitmentState
from stowkeeper.services.commitment.options import AFTER_REPORT, COMMITMENT_JOB, LOOKS_AGAIN, peer_lane
from stowkeeper.services.commitment.recheck_step import RECHECKED_UP_TO


def job_of(connection: Connection, commitment: Commitment) -> Job | None:
    """Return the job that a transaction names; None where it is gone by its age."""
    return jobs.find(connection, commitment.job_id) if commitment.job_id else None


def live_job(connection: Connection, commitment: Commitment) -> Job | None:
    """Return the job that works on a transaction, or will; None where nobody does any more."""
    job = job_of(connection, commitment)
    return None if job is None or job.is_finished else job


def may_be_reporting(job: Job) -> bool:
    """Tell whether a report may be on its way right now, to a peer that has to be told once more after that."""
    return job.state is JobState.RUNNING and job.lane != DISK_LANE


def submit_first(transaction: Transaction, commitment: Commitment, *, created_by: str) -> None:
    """Put in the job that a new transaction names."""
    _submit(transaction, commitment, commitment.job_id, created_by=created_by)


def submit_next(
    transaction: Transaction, commitment: Commitment, *, created_by: str, looks_again: bool = False
) -> str:
    """Put in a job that goes on with a transaction where it is, and return its id.

    With `looks_again` everything that was certain is looked at first.
    """
    key = commitment.commitment_key
    job_id = str(uuid.uuid4())
    arguments: JSON = {AFTER_REPORT: rows.last_report(transaction.connection, key)}
    checkpoint: JSON = {}
    if looks_again and commitment.state is not CommitmentState.RECEIVED:
        arguments[LOOKS_AGAIN] = True
        if commitment.way != WAY_DIMSE:
            checkpoint[RECHECKED_UP_TO] = -1  # nobody has to be there first
    _submit(
        transaction, commitment, job_id, created_by=created_by, arguments=arguments, checkpoint=checkpoint
    )
    rows.change(transaction, key, job_id=job_id)
    if commitment.state is CommitmentState.UNDELIVERED:
        rows.change(transaction, key, state=CommitmentState.CHECKED)
    return job_id


def _submit(
    transaction: Transaction,
    commitment: Commitment,
    job_id: str,
    *,
    created_by: str,
    arguments: JSON | None = None,
    checkpoint: JSON | None = None,
) -> None:
    is_of_peer = commitment.way == WAY_DIMSE
    is_checked = commitment.state is not CommitmentState.RECEIVED
    request = JobRequest(
        kind=COMMITMENT_JOB,
        arguments={"commitment_key": commitment.commitment_key, **(arguments or {})},
        checkpoint=checkpoint or {},
        subject=commitment.transaction_uid,
        peer=commitment.peer if is_of_peer else "",
        lane=peer_lane(commitment.peer) if is_of_peer and is_checked else DISK_LANE,
        created_by=created_by,
        job_id=job_id,
    )
    jobs.submit(transaction, request)
