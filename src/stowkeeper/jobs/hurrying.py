"""Having jobs tried before their time, by the transaction of whoever learned that it is worth it. Wake the engine afterwards."""

from sqlalchemy import select, update

from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import job_lanes, jobs
from stowkeeper.jobs.states import WAITING


def bring_forward(transaction: Transaction, job_id: str) -> None:
    """Let a job that waits be due now; its lane may still be blocked."""
    transaction.execute(
        update(jobs)
        .where(jobs.c.job_id == job_id, jobs.c.state.in_(WAITING), jobs.c.due_at > transaction.at)
        .values(due_at=transaction.at)
    )


def try_lane(transaction: Transaction, lane: str) -> None:
    """End the block of a lane now, and the wait of the jobs that are due with it.

    The failures of the lane stay: when the next try fails too, it is blocked for longer than before.
    """
    is_blocked = (job_lanes.c.lane == lane, job_lanes.c.blocked_until > transaction.at)
    blocked_until = transaction.execute(select(job_lanes.c.blocked_until).where(*is_blocked)).scalar()
    if blocked_until is None:
        return
    transaction.execute(update(job_lanes).where(*is_blocked).values(blocked_until=transaction.at))
    transaction.execute(
        update(jobs)
        .where(
            jobs.c.lane == lane,
            jobs.c.state.in_(WAITING),
            jobs.c.due_at > transaction.at,
            jobs.c.due_at <= blocked_until,
        )
        .values(due_at=transaction.at)
    )
