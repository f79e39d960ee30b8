"""What the status asks of the catalog. By index, but for the totals, which walk over every instance once."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, case, func, select, text

from stowkeeper.app.status.state import Arrival, CommitmentsState, DestinationState, JobsState, JobState, Kept
from stowkeeper.archive.counting import current_by_series
from stowkeeper.database.schema import (
    DAMAGED,
    ON_SHELF,
    associations,
    commitments,
    instances,
    jobs,
    receipts,
    series,
    studies,
    versions,
)
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from stowkeeper.services.commitment.rows import oldest_unreported_at
from stowkeeper.services.forwarding.rows import ForwardState, counts
from stowkeeper.services.peers import stored_peers


def open_associations(connection: Connection, receivers: Sequence[str]) -> dict[str, int]:
    """Return how many associations are open, of each receiver that has any."""
    query = (
        select(associations.c.receiver, func.count().label("number"))
        .where(associations.c.receiver.in_(receivers), text("closed_at IS NULL"))
        .group_by(associations.c.receiver)
    )
    return {row.receiver: row.number for row in connection.execute(query)}


def last_received(connection: Connection) -> Arrival | None:
    """Return the newest instance by the ledger."""
    query = (
        select(
            receipts.c.received_at,
            receipts.c.received_by,
            receipts.c.calling_ae_title,
            receipts.c.peer_address,
            instances.c.sop_instance_uid,
            studies.c.study_instance_uid,
        )
        .join(versions, versions.c.version_key == receipts.c.version_key)
        .join(instances, instances.c.instance_key == versions.c.instance_key)
        .outerjoin(series, series.c.series_key == versions.c.series_key)
        .outerjoin(studies, studies.c.study_key == series.c.study_key)
        .order_by(receipts.c.received_at.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Arrival(**row)


def first_received_at(connection: Connection) -> str | None:
    """Return when the first instance of the archive came."""
    found: str | None = connection.execute(select(func.min(receipts.c.received_at))).scalar()
    return found


def kept_since(connection: Connection, at: str) -> int:
    """Return the bytes of the files on the shelf that came since a time."""
    query = (
        select(func.coalesce(func.sum(versions.c.file_size), 0))
        .join(receipts, receipts.c.receipt_key == versions.c.version_key)
        .where(receipts.c.received_at >= at, text(f"versions.{ON_SHELF}"))
    )
    return int(connection.execute(query).scalar() or 0)


def kept(connection: Connection) -> Kept:
    """Count what is kept."""
    current = current_by_series()
    row = connection.execute(
        select(
            func.coalesce(func.sum(current.c.instances), 0).label("instances"),
            func.count(series.c.study_key.distinct()).label("studies"),
            func.coalesce(func.sum(current.c.bytes), 0).label("bytes"),
        )
        .select_from(current)
        .outerjoin(series, series.c.series_key == current.c.series_key)
    ).one()
    damaged = connection.execute(select(func.count()).select_from(versions).where(text(DAMAGED))).scalar_one()
    return Kept(instances=row.instances, studies=row.studies, bytes=row.bytes, damaged=damaged)


_FAILED, _RETRYING = "failure", "retry"


def jobs_now(connection: Connection, now: str) -> JobsState:
    """Count the jobs that are not well done, and name the oldest that a person would ask about."""
    is_due = case((jobs.c.due_at <= now, 1), else_=0)
    open_ones = (
        select(jobs.c.state, is_due, func.count())
        .where(jobs.c.finished_at.is_(None))
        .group_by(jobs.c.state, is_due)
    )
    counts: dict[tuple[str, bool], int] = {
        (state, bool(due)): number for state, due, number in connection.execute(open_ones)
    }
    failed = connection.execute(
        select(func.count()).select_from(jobs).where(jobs.c.finished_at.is_not(None), jobs.c.state == _FAILED)
    ).scalar_one()

    def of(state: str) -> int:
        return counts.get((state, True), 0) + counts.get((state, False), 0)

    return JobsState(
        running=of("running"),
        waiting=counts.get(("pending", True), 0),
        later=counts.get(("pending", False), 0),
        paused=of("paused"),
        retrying=of(_RETRYING),
        failed=failed,
        oldest=_oldest_job(connection, now),
    )


def _oldest_job(connection: Connection, now: str) -> JobState | None:
    columns = (jobs.c.job_id, jobs.c.kind, jobs.c.state, jobs.c.peer, jobs.c.created_at, jobs.c.error)
    for condition in (
        jobs.c.state.in_((_FAILED, _RETRYING)),
        (jobs.c.state == "pending") & (jobs.c.due_at <= now),
    ):
        query = select(*columns).where(condition).order_by(jobs.c.job_key).limit(1)
        row = connection.execute(query).mappings().one_or_none()
        if row is not None:
            return JobState(**row)
    return None


def commitments_now(connection: Connection) -> CommitmentsState:
    """Count the storage commitments whose peers were not told the result."""
    query = (
        select(commitments.c.state, func.count().label("number"))
        .where(commitments.c.role == CommitmentRole.PROVIDER, text("reported_at IS NULL"))
        .group_by(commitments.c.state)
    )
    counts = {row.state: row.number for row in connection.execute(query)}
    return CommitmentsState(
        unreported=counts.get(CommitmentState.RECEIVED, 0) + counts.get(CommitmentState.CHECKED, 0),
        undelivered=counts.get(CommitmentState.UNDELIVERED, 0),
        oldest_unreported_at=oldest_unreported_at(connection),
    )


def forwards_now(connection: Connection, configured: Collection[str]) -> tuple[DestinationState, ...]:
    """Count what is to be forwarded still, by destination; `configured` are the names that the settings define."""
    counted = counts(connection)
    known = {*configured, *(peer.name for peer in stored_peers(connection))} if counted else set()
    return tuple(
        DestinationState(
            destination=name,
            waiting=counted.get((name, ForwardState.WAITING), 0),
            queued=counted.get((name, ForwardState.QUEUED), 0),
            failed=counted.get((name, ForwardState.FAILED), 0),
            is_known=name in known,
        )
        for name in sorted({destination for destination, _ in counted})
    )
