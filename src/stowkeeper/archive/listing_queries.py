"""What lists are made of: for each kind of row the query, its place in the order, and what is added and shown.

`listing.py` walks through whole lists with it, and `pages.py` gives one page of them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    case,
    distinct,
    exists,
    func,
    or_,
    select,
    text,
    true,
)

from stowkeeper.archive.catalog import VERSION_ATTRIBUTES
from stowkeeper.archive.catalog_values import VersionState, portions
from stowkeeper.archive.patient_tree import PATIENTS, SERIES, STUDIES
from stowkeeper.database import schema
from stowkeeper.database.schema import holds, patients, requests, versions

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """A list: `query` has the columns of `place`, by which it is ordered from the oldest on, and no order of its own.

    `complete` adds to the rows of a page in its snapshot, and leaves out those that do not count. `show` turns a row into
    what is shown. `walk` is there where no index leads to the rows that fit: the places of all rows that have to be looked
    at, for who wants to look at some of them only.
    """

    query: Select[Any]
    place: tuple[Column[Any], ...]
    show: Callable[[Row], Row]
    complete: Callable[[Connection, Sequence[Row]], list[Row]] | None = None
    walk: Select[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingFilter:
    """What to list: everything, or what fits each of these.

    `uid` is that of a study, a series or an instance: what it contains is listed, and what contains it. A
    receipt or an association can also be named by its own id, a receipt by that of its association too.
    `received_from` (inclusive) and `received_before` are UTC in ISO 8601 and may be cut short: `2026-03` is
    the beginning of a month. A study or series fits when an instance of it does; an association is judged by
    when it was opened.
    """

    uid: str | None = None
    received_from: str | None = None
    received_before: str | None = None
    calling_ae_title: str | None = None

    def bounds(self, time: Column[Any], calling_ae_title: Column[Any]) -> list[ColumnElement[bool]]:
        """Return the conditions on a time and a calling AE title."""
        conditions: list[ColumnElement[bool]] = []
        if self.received_from is not None:
            conditions.append(time >= self.received_from)
        if self.received_before is not None:
            conditions.append(time < self.received_before)
        if self.calling_ae_title is not None:
            conditions.append(calling_ae_title == self.calling_ae_title)
        return conditions


EVERYTHING = ListingFilter()

_instances, _receipts, _series, _studies, _associations = (
    schema.instances,
    schema.receipts,
    schema.series,
    schema.studies,
    schema.associations,
)

_LISTED = or_(
    _instances.c.current_version_key == versions.c.version_key,
    and_(_instances.c.current_version_key.is_(None), versions.c.state == VersionState.DAMAGED),
)


def studies(only: ListingFilter) -> ListOf:
    """Return the list of studies that hold an instance, each with its patient and its counts."""
    query = select(
        _studies.c.study_key,
        _studies.c.study_instance_uid,
        *_columns(patients, "patient_id", "issuer_of_patient_id", *PATIENTS.attributes),
        *_columns(_studies, *STUDIES.attributes),
    ).outerjoin(patients, patients.c.patient_key == _studies.c.patient_key)
    if only.uid is not None:
        of_series = select(_series.c.study_key).where(_series.c.series_instance_uid == only.uid)
        query = query.where(
            or_(
                _studies.c.study_instance_uid == only.uid,
                _studies.c.study_key.in_(of_series),
                _studies.c.study_key.in_(_of_instance(_series.c.study_key, only.uid)),
            )
        )
    counts = _counts(
        only,
        _series.c.study_key,
        func.count(distinct(_series.c.series_key)).label("number_of_study_related_series"),
        func.count().label("number_of_study_related_instances"),
        func.group_concat(distinct(_series.c.modality)).label("modalities_in_study"),
    )

    def show(row: Row) -> Row:
        row = _shown(row, "study_key")
        row["modalities_in_study"] = sorted(filter(None, (row["modalities_in_study"] or "").split(",")))
        return row

    return ListOf(
        query=query,
        place=(_studies.c.study_key,),
        show=show,
        complete=_with_counts(_studies.c.study_key, counts, _series.c.study_key),
    )


def series(only: ListingFilter) -> ListOf:
    """Return the list of series that hold an instance, with their counts."""
    query = select(
        _series.c.series_key,
        _series.c.series_instance_uid,
        _studies.c.study_instance_uid,
        *_columns(_series, *SERIES.attributes),
    ).join(_studies, _studies.c.study_key == _series.c.study_key)
    if only.uid is not None:
        of_study = select(_studies.c.study_key).where(_studies.c.study_instance_uid == only.uid)
        query = query.where(
            or_(
                _series.c.series_instance_uid == only.uid,
                _series.c.study_key.in_(of_study),
                _series.c.series_key.in_(_of_instance(_series.c.series_key, only.uid)),
            )
        )
    counts = _counts(only, _series.c.series_key, func.count().label("number_of_series_related_instances"))

    def show(row: Row) -> Row:
        row = _shown(row, "series_key")
        row["series_instance_uid"] = row["series_instance_uid"] or None
        return row

    return ListOf(
        query=query,
        place=(_series.c.series_key,),
        show=show,
        complete=_with_counts(_series.c.series_key, counts, _series.c.series_key),
    )


def instances(
    only: ListingFilter, *, all_versions: bool = False, in_conflict: bool = False, is_held: bool = False
) -> ListOf:
    """Return the list of instances; with `all_versions`, of every version that is not gone.

    With `in_conflict`, only the instances of which several versions differ, each with all of these next to each other. A
    time or a calling AE title then chooses instances, by one version that fits. With `is_held`, what somebody holds alone.
    """
    query = (
        select(
            versions.c.version_key,
            versions.c.instance_key,
            _instances.c.sop_instance_uid,
            versions.c.sop_class_uid,
            _studies.c.study_instance_uid,
            func.nullif(_series.c.series_instance_uid, "").label("series_instance_uid"),
            versions.c.transfer_syntax_uid,
            versions.c.path,
            versions.c.file_size.label("size"),
            _receipts.c.digest,
            *_columns(
                _receipts, "data_set_length", "receipt_id", "received_at", "received_by", "calling_ae_title"
            ),
            versions.c.state,
            versions.c.conflict,
            (_instances.c.current_version_key == versions.c.version_key).label("current"),
            exists().where(holds.c.version_key == versions.c.version_key).label("held"),
            *_columns(versions, *VERSION_ATTRIBUTES),
        )
        .select_from(versions)
        .join(_instances, _instances.c.instance_key == versions.c.instance_key)
        .join(_receipts, _receipts.c.receipt_key == versions.c.version_key)
        .outerjoin(_series, _series.c.series_key == versions.c.series_key)
        .outerjoin(_studies, _studies.c.study_key == _series.c.study_key)
    )
    place: tuple[Column[Any], ...] = (versions.c.version_key,)
    if in_conflict:
        place = (versions.c.instance_key, _receipts.c.received_at, _receipts.c.receipt_id)
        query = query.where(text("versions.conflict = 1"), *_conflict_bounds(only))
    else:
        query = query.where(versions.c.state != VersionState.REMOVED if all_versions else _LISTED)
        query = query.where(*only.bounds(_receipts.c.received_at, _receipts.c.calling_ae_title))
    if is_held:
        query = query.where(versions.c.version_key.in_(select(holds.c.version_key)))
    if only.uid is not None:
        query = query.where(_belongs_to(only.uid))

    def show(row: Row) -> Row:
        row = _shown(row, "version_key", "instance_key")
        return row | {name: bool(row[name]) for name in ("conflict", "current", "held")}

    is_found = in_conflict or is_held or only.uid is not None or not _is_bounded(only)
    return ListOf(
        query=query, place=place, show=show, walk=None if is_found else select(versions.c.version_key)
    )


def receipts(only: ListingFilter, *, outcome: str | None = None) -> ListOf:
    """Return the list of finished receipts in the order they were received, each with the version it proves."""
    query = (
        select(
            _receipts.c.receipt_key,
            *_columns(_receipts, "receipt_id", "outcome"),
            _instances.c.sop_instance_uid,
            *_columns(versions, "sop_class_uid", "transfer_syntax_uid"),
            *_columns(_receipts, "digest", "data_set_length", "received_at", "received_by"),
            *_columns(_receipts, "calling_ae_title", "called_ae_title", "peer_address", "association_id"),
            *_columns(_receipts, "answer", "verdicts"),
            *_columns(versions, "path", "state"),
        )
        .join(versions, versions.c.version_key == _receipts.c.version_key)
        .join(_instances, _instances.c.instance_key == versions.c.instance_key)
        .where(*only.bounds(_receipts.c.received_at, _receipts.c.calling_ae_title))
    )
    if only.uid is not None:
        of_version = select(versions.c.version_key).where(_belongs_to(only.uid))
        of_association = select(requests.c.receipt_id).where(requests.c.association_id == only.uid)
        query = query.where(
            or_(
                _receipts.c.version_key.in_(of_version),
                _receipts.c.receipt_id == only.uid,
                _receipts.c.receipt_id.in_(of_association),
            )
        )
    if outcome is not None:
        query = query.where(_receipts.c.outcome == outcome)

    def show(row: Row) -> Row:
        row = _shown(row, "receipt_key")
        row["verdicts"] = json.loads(row["verdicts"]) if row["verdicts"] else []
        return row

    place = (_receipts.c.received_at, _receipts.c.receipt_key)
    is_found = only.uid is not None or (only.calling_ae_title is None and outcome is None)
    in_time = replace(only, calling_ae_title=None).bounds(place[0], _receipts.c.calling_ae_title)
    return ListOf(
        query=query, place=place, show=show, walk=None if is_found else select(*place).where(*in_time)
    )


def associations(only: ListingFilter) -> ListOf:
    """Return the list of associations in the order they were written, each with its requests counted by outcome."""
    query = select(_associations).where(
        *only.bounds(_associations.c.opened_at, _associations.c.calling_ae_title)
    )
    if only.uid is not None:
        by_receipt = select(_receipts.c.association_id).where(
            _receipts.c.version_key.in_(select(versions.c.version_key).where(_belongs_to(only.uid)))
        )
        query = query.where(
            or_(_associations.c.association_id == only.uid, _associations.c.association_id.in_(by_receipt))
        )

    def show(row: Row) -> Row:
        row = _shown(row, "association_key")
        rejection = tuple(row.pop(f"rejection_{name}") for name in ("result", "source", "reason"))
        row["rejection"] = None if rejection[0] is None else list(rejection)
        row["contexts"] = json.loads(row["contexts"]) if row["contexts"] else []
        return row

    return ListOf(
        query=query,
        place=(_associations.c.association_key,),
        show=show,
        complete=_count_requests,
        walk=select(_associations.c.association_key) if only.uid is None and _is_bounded(only) else None,
    )


def requests_of_all(
    only: ListingFilter, *, outcome: str | None = None, association_id: str | None = None
) -> ListOf:
    """Return the list of C-STORE requests in the order they were written, refused and lost ones too.

    A `uid` is that of an instance as the command named it, an association's id or a receipt's. By `association_id` those
    of one are found at once.
    """
    calling = _associations.c.calling_ae_title
    query = (
        select(*(column for column in requests.c), calling)
        .outerjoin(_associations, _associations.c.association_id == requests.c.association_id)
        .where(*only.bounds(requests.c.requested_at, calling))
    )
    if only.uid is not None:
        query = query.where(
            or_(
                requests.c.sop_instance_uid == only.uid,
                requests.c.association_id == only.uid,
                requests.c.receipt_id == only.uid,
            )
        )
    if outcome is not None:
        query = query.where(requests.c.outcome == outcome)
    if association_id is not None:
        query = query.where(requests.c.association_id == association_id)

    def show(row: Row) -> Row:
        row = _shown(row, "request_key")
        row["status"] = None if row["status"] is None else f"{row['status']:04X}H"
        return row

    is_sparse = only.uid is not None or outcome is not None or _is_bounded(only)
    walk = select(requests.c.request_key) if is_sparse and association_id is None else None
    return ListOf(query=query, place=(requests.c.request_key,), show=show, walk=walk)


def _is_bounded(only: ListingFilter) -> bool:
    """Tell whether a time or a calling AE title is asked for."""
    return not (only.received_from is only.received_before is only.calling_ae_title is None)


# The parts of queries.


def _columns(table: Table, *names: str) -> list[Column[Any]]:
    return [table.c[name] for name in names]


def _of_instance(column: Column[Any], uid: str) -> Select[Any]:
    """Return a query for a column of the series of an instance's versions."""
    return (
        select(column)
        .select_from(versions)
        .join(_instances, _instances.c.instance_key == versions.c.instance_key)
        .join(_series, _series.c.series_key == versions.c.series_key)
        .where(schema.instance_among([uid]))
    )


def _belongs_to(uid: str) -> ColumnElement[bool]:
    """Return the condition that a version belongs to a study, a series or an instance."""
    of_instance = select(_instances.c.instance_key).where(schema.instance_among([uid]))
    of_series = select(_series.c.series_key).where(_series.c.series_instance_uid == uid)
    of_study = (
        select(_series.c.series_key)
        .join(_studies, _studies.c.study_key == _series.c.study_key)
        .where(_studies.c.study_instance_uid == uid)
    )
    return or_(
        versions.c.instance_key.in_(of_instance),
        versions.c.series_key.in_(of_series),
        versions.c.series_key.in_(of_study),
    )


def _conflict_bounds(only: ListingFilter) -> list[ColumnElement[bool]]:
    """Return the condition that a version in conflict of the same instance fits the time and the calling AE title."""
    other, receipt = versions.alias("other"), _receipts.alias("receipt_of_other")
    bounds = only.bounds(receipt.c.received_at, receipt.c.calling_ae_title)
    fitting = (
        select(other.c.instance_key)
        .join(receipt, receipt.c.receipt_key == other.c.version_key)
        .where(text("other.conflict = 1"), *bounds)
    )
    return [versions.c.instance_key.in_(fitting)] if bounds else []


def _counts(only: ListingFilter, group: Column[Any], *counts: ColumnElement[Any]) -> Select[Any]:
    """Return the query that counts the listed versions of a group, without groups where none fits."""
    fits = and_(true(), *only.bounds(_receipts.c.received_at, _receipts.c.calling_ae_title))
    return (
        select(
            group.label("key"),
            *counts,
            func.sum(versions.c.file_size).label("size"),
            func.sum(case((versions.c.state == VersionState.DAMAGED, 1), else_=0)).label("damaged"),
            func.min(_receipts.c.received_at).label("first_received_at"),
            func.max(_receipts.c.received_at).label("last_received_at"),
        )
        .select_from(_series)
        .join(versions, versions.c.series_key == _series.c.series_key)
        .join(_instances, _instances.c.instance_key == versions.c.instance_key)
        .join(_receipts, _receipts.c.receipt_key == versions.c.version_key)
        .where(_LISTED)
        .group_by(group)
        .having(func.max(case((fits, 1), else_=0)) == 1)
    )


def _with_counts(
    key: Column[Any], counts: Select[Any], group: Column[Any]
) -> Callable[[Connection, Sequence[Row]], list[Row]]:
    """Return what adds the counts of a level to its rows, and leaves out those that count nothing."""

    def add_counts(connection: Connection, rows: Sequence[Row]) -> list[Row]:
        found: dict[int, Row] = {}
        for portion in portions([row[key.name] for row in rows]):
            counted = connection.execute(counts.where(group.in_(portion))).mappings()
            found |= {row["key"]: dict(row) for row in counted}
        return [{**row, **_shown(found[row[key.name]], "key")} for row in rows if row[key.name] in found]

    return add_counts


def _count_requests(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    outcomes = ("kept", "refused", "lost")
    query = select(
        requests.c.association_id,
        *(
            func.sum(case((requests.c.outcome == name, 1), else_=0)).label(f"requests_{name}")
            for name in outcomes
        ),
    ).group_by(requests.c.association_id)
    found: dict[str, Row] = {}
    for portion in portions([row["association_id"] for row in rows]):
        counted = connection.execute(query.where(requests.c.association_id.in_(portion))).mappings()
        found |= {row["association_id"]: dict(row) for row in counted}
    nothing = {f"requests_{name}": 0 for name in outcomes}
    return [{**row, **nothing, **found.get(row["association_id"], {})} for row in rows]


def _shown(row: Mapping[str, Any], *hidden: str) -> Row:
    """Return a row without the keys that mean nothing outside of the database."""
    return {name: value for name, value in row.items() if name not in hidden}
