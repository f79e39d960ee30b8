"""Changes: what happened in the archive, in order, for whoever follows it with a cursor.

A row is written in the transaction that makes the change, so it is there if and only if the change is.
Consumers (events, jobs, replication) read from their cursor on and advance it in a transaction of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, func, insert, select

from stowkeeper.database.engine import Transaction
from stowkeeper.database.limits import ROWS_PER_PAGE
from stowkeeper.database.schema import changes, instances, receipts, series, studies, versions


class ChangeKind(StrEnum):
    """What can happen. Of kind RECEIVED there is exactly one change for each receipt."""

    RECEIVED = "received"
    CURRENT = "current"
    SUPERSEDED = "superseded"
    REMOVING = "removing"
    REMOVED = "removed"
    DAMAGED = "damaged"
    HELD = "held"
    RELEASED = "released"
    PATIENT = "patient"
    STUDY_STARTED = "study_started"
    STUDY_QUIET = "study_quiet"
    STUDY_LATE = "study_late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change. `seq` grows with each commit and is never given twice.

    RECEIVED is about a receipt, and about the version that it made or was identical to; a first version is
    the current one from then on. CURRENT says that the pointer of the instance moved to `version_key` (None:
    to none) from `previous_version_key` (None: from none). PATIENT says that the study was moved to another
    patient. The STUDY kinds are about a study, and the version is what arrived there last. The others are about a version;
    `detail` is the reason in words.
    """

    seq: int
    at: str
    kind: ChangeKind
    receipt_id: str
    version_key: int | None
    previous_version_key: int | None
    sop_instance_uid: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    detail: str


def note_changes(transaction: Transaction, kind: str, version_keys: Sequence[int], reason: str = "") -> None:
    """Write a change row for each of some versions. A version's key is that of its receipt."""
    if version_keys:
        transaction.execute(
            insert(changes),
            [
                {
                    "at": transaction.at,
                    "kind": kind,
                    "receipt_key": key,
                    "version_key": key,
                    "detail": reason or None,
                }
                for key in version_keys
            ],
        )


def note_study_change(transaction: Transaction, kind: ChangeKind, version_key: int, words: str) -> int:
    """Write a change row about the study of a version, and return its number."""
    written = transaction.execute(
        insert(changes).values(
            at=transaction.at,
            kind=kind.value,
            receipt_key=version_key,
            version_key=version_key,
            detail=words,
        )
    )
    return int(written.lastrowid)


def newest_change(connection: Connection) -> int:
    """Return the number of the newest change, 0 where there is none."""
    return int(connection.execute(select(func.max(changes.c.seq))).scalar() or 0)


def changes_after(connection: Connection, seq: int, limit: int = ROWS_PER_PAGE) -> list[Change]:
    """Return the changes after the one with this number, in order."""
    query = (
        select(
            changes.c.seq,
            changes.c.at,
            changes.c.kind,
            receipts.c.receipt_id,
            changes.c.version_key,
            changes.c.previous_version_key,
            instances.c.sop_instance_uid,
            studies.c.study_instance_uid,
            series.c.series_instance_uid,
            changes.c.detail,
        )
        .join(receipts, receipts.c.receipt_key == changes.c.receipt_key)
        .join(
            versions, versions.c.version_key == func.coalesce(changes.c.version_key, receipts.c.version_key)
        )
        .join(instances, instances.c.instance_key == versions.c.instance_key)
        .outerjoin(series, series.c.series_key == versions.c.series_key)
        .outerjoin(studies, studies.c.study_key == series.c.study_key)
        .where(changes.c.seq > seq)
        .order_by(changes.c.seq)
        .limit(limit)
    )
    return [
        Change(
            seq=row.seq,
            at=row.at,
            kind=ChangeKind(row.kind),
            receipt_id=row.receipt_id,
            version_key=row.version_key,
            previous_version_key=row.previous_version_key,
            sop_instance_uid=row.sop_instance_uid,
            study_instance_uid=row.study_instance_uid,
            series_instance_uid=row.series_instance_uid or None,
            detail=row.detail or "",
        )
        for row in connection.execute(query)
    ]
