"""Inquiries: what commands ask of the ledger and the change rows, and no receiving path does.

`requests` and `removals` are listings like those of `listing.py`: generators that read a page at a time, each
from a short look of its own.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, Select, case, func, or_, select, tuple_

from stowkeeper.archive.catalog_values import ReceiptOutcome, VersionState, portions
from stowkeeper.archive.changes import ChangeKind
from stowkeeper.archive.listing import EVERYTHING, ListingFilter
from stowkeeper.database import schema
from stowkeeper.database.engine import Database
from stowkeeper.database.limits import ROWS_PER_PAGE

Row = dict[str, Any]

_REQUESTS = schema.requests
_CHANGES = schema.changes


def requests(database: Database, only: ListingFilter = EVERYTHING) -> Iterator[Row]:
    """Yield the C-STORE requests in the order they were written, refused and lost ones too.

    A `uid` is that of an instance as the command named it, an association's id or a receipt's.
    """
    calling = schema.associations.c.calling_ae_title
    query = (
        select(*(column for column in _REQUESTS.c), calling)
        .outerjoin(schema.associations, schema.associations.c.association_id == _REQUESTS.c.association_id)
        .where(*only.bounds(_REQUESTS.c.requested_at, calling))
        .order_by(_REQUESTS.c.request_key)
        .limit(ROWS_PER_PAGE)
    )
    if only.uid is not None:
        query = query.where(
            or_(
                _REQUESTS.c.sop_instance_uid == only.uid,
                _REQUESTS.c.association_id == only.uid,
                _REQUESTS.c.receipt_id == only.uid,
            )
        )
    after = 0
    while rows := _page(database, query.where(_REQUESTS.c.request_key > after)):
        after = rows[-1]["request_key"]
        for row in rows:
            del row["request_key"]
            row["status"] = None if row["status"] is None else f"{row['status']:04X}H"
            yield row
        if len(rows) < ROWS_PER_PAGE:
            return


def removals(database: Database, only: ListingFilter = EVERYTHING) -> Iterator[Row]:
    """Yield what was removed: one row for each study and command, with the reason and the numbers.

    `removed` of the versions are gone, `left` are still to go. Damaged versions whose rows were closed count
    too: their files stay in quarantine. Without a study are instances that belong to none.
    """
    versions, series, studies = schema.versions, schema.series, schema.studies
    gone = case((versions.c.state == VersionState.REMOVED, 1), else_=0)
    first = func.min(_CHANGES.c.seq).label("first")
    # Each version was marked as removing once, or was damaged and got its only change from there to removed.
    marked = (
        select(func.min(_CHANGES.c.seq))
        .where(_CHANGES.c.kind.in_((ChangeKind.REMOVING, ChangeKind.REMOVED)))
        .group_by(_CHANGES.c.version_key)
    )
    query = (
        select(
            _CHANGES.c.at.label("removed_at"),
            func.coalesce(_CHANGES.c.detail, "").label("reason"),
            studies.c.study_instance_uid,
            func.count(versions.c.instance_key.distinct()).label("instances"),
            func.sum(gone).label("removed"),
            func.sum(1 - gone).label("left"),
            func.sum(versions.c.file_size).label("size"),
            first,
        )
        .join(versions, versions.c.version_key == _CHANGES.c.version_key)
        .outerjoin(series, series.c.series_key == versions.c.series_key)
        .outerjoin(studies, studies.c.study_key == series.c.study_key)
        .where(_CHANGES.c.seq.in_(marked), *_times(only))
        .group_by(_CHANGES.c.at, "reason", studies.c.study_instance_uid)
        .order_by("removed_at", "first")
        .limit(ROWS_PER_PAGE)
    )
    if only.uid is not None:
        query = query.where(studies.c.study_instance_uid == only.uid)
    after: tuple[str, int] = ("", 0)
    while rows := _page(database, query.having(tuple_(_CHANGES.c.at, first) > after)):
        after = (rows[-1]["removed_at"], rows[-1]["first"])
        for row in rows:
            del row["first"]
            yield row
        if len(rows) < ROWS_PER_PAGE:
            return


def receipt_outcomes(connection: Connection, receipt_ids: Iterable[str]) -> dict[str, ReceiptOutcome]:
    """Return what became of some receipts; those that are not in the catalog yet are not in the answer."""
    receipts = schema.receipts
    return {
        row.receipt_id: ReceiptOutcome(row.outcome)
        for portion in portions(receipt_ids)
        for row in connection.execute(
            select(receipts.c.receipt_id, receipts.c.outcome).where(receipts.c.receipt_id.in_(portion))
        )
    }


def _times(only: ListingFilter) -> list[Any]:
    conditions: list[Any] = []
    if only.received_from is not None:
        conditions.append(_CHANGES.c.at >= only.received_from)
    if only.received_before is not None:
        conditions.append(_CHANGES.c.at < only.received_before)
    return conditions


def _page(database: Database, query: Select[Any]) -> list[Row]:
    with database.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
