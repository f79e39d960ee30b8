"""Inquiries: what commands ask of the ledger, the change rows and the quarantine, and no receiving path does.

`requests`, `removals` and `quarantined` are listings like those of `listing.py`: generators that read a page at a
time, each from a short look of its own.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, func, select, tuple_

from stowkeeper.archive.catalog_values import ReceiptOutcome, VersionState, portions
from stowkeeper.archive.changes import ChangeKind
from stowkeeper.archive.examine import read_receipt
from stowkeeper.archive.listing import EVERYTHING, ListingFilter, requests
from stowkeeper.archive.quarantine import PutAway, files_put_away
from stowkeeper.archive.receipt import Receipt
from stowkeeper.database import schema
from stowkeeper.database.engine import Database
from stowkeeper.database.limits import ROWS_PER_PAGE
from stowkeeper.durable.filesystem import FileSystem

__all__ = ["quarantined", "receipt_outcomes", "removals", "requests"]

Row = dict[str, Any]

_CHANGES = schema.changes


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


def quarantined(
    database: Database, files: FileSystem, root: str, only: ListingFilter = EVERYTHING
) -> Iterator[Row]:
    """Yield the files in quarantine in the order they were put away: when, why, from where, and whose they are.

    That is told by the receipt in the file; where it is damaged too, by the row of the version that stood in that
    place. `state` is that of the version's row: `damaged` until the row is closed, None for a file that was never
    listed. The time of the filter is that of being put away. Raises OSError when the folder cannot be listed.
    """
    for portion in portions(files_put_away(files, root)):
        receipts = [_readable_receipt(files, os.path.join(root, away.path)) for away in portion]
        with database.read() as connection:
            rows = _rows_put_away(connection, portion, receipts)
        for away, receipt in zip(portion, receipts, strict=True):
            row = rows.get(receipt.receipt_id if receipt is not None else away.origin or "", {})
            told = {name: getattr(receipt, name) for name in _TOLD_BY_RECEIPTS} if receipt is not None else {}
            shown = {
                "put_away_at": away.put_away_at,
                "reason": away.reason,
                "path": away.path,
                "size": away.size,
                "origin": away.origin,
                **dict.fromkeys((*_TOLD_BY_RECEIPTS, "study_instance_uid", "series_instance_uid", "state")),
                **told,
                **row,
            }
            if _fits(shown, only):
                yield shown


_TOLD_BY_RECEIPTS = ("sop_instance_uid", "receipt_id", "received_at", "calling_ae_title")


def _readable_receipt(files: FileSystem, path: str) -> Receipt | None:
    try:
        return read_receipt(files, path)
    except OSError:  # of a damaged file no surprise
        return None


def _rows_put_away(
    connection: Connection, portion: Sequence[PutAway], receipts: Sequence[Receipt | None]
) -> dict[str, Row]:
    """Return what rows say of some files in quarantine: by receipt id, or by the place that the note names."""
    versions, series, studies, instances = schema.versions, schema.series, schema.studies, schema.instances
    by_receipt = schema.receipts.c.receipt_id.in_([found.receipt_id for found in receipts if found])
    origins = [
        away.origin for away, found in zip(portion, receipts, strict=True) if found is None and away.origin
    ]
    # The shelf names a file by its instance; the UID is what an index finds it by.
    uids = [os.path.basename(origin).rpartition("_")[0] for origin in origins]
    by_origin = (
        schema.instance_among(uids)
        & versions.c.path.in_(origins)
        & versions.c.state.in_((VersionState.DAMAGED, VersionState.REMOVED))
    )

    def ask(condition: ColumnElement[bool]) -> Iterator[Row]:
        query = (
            select(
                instances.c.sop_instance_uid,
                studies.c.study_instance_uid,
                func.nullif(series.c.series_instance_uid, "").label("series_instance_uid"),
                *(schema.receipts.c[name] for name in ("receipt_id", "received_at", "calling_ae_title")),
                versions.c.state,
                versions.c.path,
            )
            .select_from(versions)
            .join(schema.receipts, schema.receipts.c.receipt_key == versions.c.version_key)
            .join(instances, instances.c.instance_key == versions.c.instance_key)
            .outerjoin(series, series.c.series_key == versions.c.series_key)
            .outerjoin(studies, studies.c.study_key == series.c.study_key)
            .where(condition)
            .order_by(versions.c.version_key)
        )
        yield from map(dict, connection.execute(query).mappings())

    found: dict[str, Row] = {}
    for row in ask(by_receipt):
        del row["path"]
        found[row["receipt_id"]] = row
    for row in ask(by_origin):
        found[row.pop("path")] = row
    return found


def _fits(row: Row, only: ListingFilter) -> bool:
    at = row["put_away_at"] or ""
    uids = ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "receipt_id")
    return (
        (only.received_from is None or at >= only.received_from)
        and (only.received_before is None or at < only.received_before)
        and (only.calling_ae_title is None or row["calling_ae_title"] == only.calling_ae_title)
        and (only.uid is None or only.uid in {row[name] for name in uids})
    )


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
