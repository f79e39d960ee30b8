"""Arrivals: what rules look at, read from the catalog.

An attribute of the patient, the study or the series is that of the newest instance of it, as everywhere in the catalog.
Queries fetch the columns that the rules ask for, and no others.
"""

from collections.abc import Collection
from typing import Any, Final, cast

from sqlalchemy import Column, Connection, Row, Select, and_, func, select
from sqlalchemy.sql.selectable import FromClause

from stowkeeper.archive.catalog_values import ReceiptOutcome, VersionState
from stowkeeper.archive.changes import ChangeKind
from stowkeeper.database.schema import (
    changes,
    instance_among,
    instances,
    patients,
    receipts,
    series,
    studies,
    versions,
)
from stowkeeper.dicom.attributes import FIELDS
from stowkeeper.services.conditions import Arrival


def _column_of(name: str) -> Column[Any]:
    # From below: the study of a patient without an id stands in its row too.
    tables = (versions, instances, series, studies, patients)
    return next(table.c[name] for table in tables if name in table.c)


COLUMNS: Final = {keyword: _column_of(name) for keyword, name in FIELDS.items()} | {
    "TransferSyntaxUID": versions.c.transfer_syntax_uid
}
"""The attributes that the catalog keeps, by keyword, and where."""

KEYWORDS: Final = tuple(sorted(COLUMNS))
"""The attributes that conditions can be about."""

_ARRIVAL: Final = (
    versions.c.version_key,
    instances.c.sop_instance_uid,
    func.coalesce(series.c.series_instance_uid, "").label("series_instance_uid"),
    func.coalesce(studies.c.study_instance_uid, "").label("study_instance_uid"),
    versions.c.sop_class_uid,
    versions.c.transfer_syntax_uid,
    func.coalesce(series.c.modality, "").label("modality"),
    versions.c.file_size,
    receipts.c.receipt_key,
    receipts.c.calling_ae_title,
    receipts.c.called_ae_title,
    receipts.c.peer_address,
    receipts.c.received_by,
    receipts.c.received_at,
)

_IS_CURRENT: Final = and_(
    instances.c.current_version_key == versions.c.version_key, versions.c.state == VersionState.KEPT.value
)


def arrivals_of_changes(
    connection: Connection, after_seq: int, limit: int, keywords: Collection[str]
) -> list[tuple[int, Arrival]]:
    """Return what was received after the change of a number, each with the number of its change, in their order.

    `limit` at most. The same bytes once more are no arrival. `keywords` are the attributes to fetch. The version of one may
    be superseded or removed by now.
    """
    query = (
        _columns(keywords, changes.c.seq)
        .select_from(
            _above(
                changes.join(receipts, receipts.c.receipt_key == changes.c.receipt_key).join(
                    versions, versions.c.version_key == receipts.c.version_key
                ),
                keywords,
            )
        )
        .where(
            changes.c.seq > after_seq,
            changes.c.kind == ChangeKind.RECEIVED.value,
            receipts.c.outcome != ReceiptOutcome.IDENTICAL.value,
        )
        .order_by(changes.c.seq)
        .limit(limit)
    )
    names = tuple(keywords)
    return [(row.seq, _arrival(row, names)) for row in connection.execute(query)]


def arrivals_of_study(
    connection: Connection, study_instance_uid: str, keywords: Collection[str]
) -> list[Arrival]:
    """Return the current versions of the instances of a study, in the order of their arrival."""
    of_study = (
        select(series.c.series_key)
        .join(studies, studies.c.study_key == series.c.study_key)
        .where(studies.c.study_instance_uid == study_instance_uid)
    )
    query = _current(keywords).where(versions.c.series_key.in_(of_study)).order_by(versions.c.version_key)
    names = tuple(keywords)
    return [_arrival(row, names) for row in connection.execute(query)]


def arrival_of_instance(
    connection: Connection, sop_instance_uid: str, keywords: Collection[str]
) -> Arrival | None:
    """Return the current version of an instance, None where none is kept."""
    row = connection.execute(_current(keywords).where(instance_among([sop_instance_uid]))).first()
    return None if row is None else _arrival(row, tuple(keywords))


def every_arrival(
    connection: Connection, after_version_key: int, limit: int, keywords: Collection[str]
) -> list[Arrival]:
    """Return current versions behind the one with this key, in the order of their arrival; `limit` at most."""
    query = (
        _current(keywords)
        .where(versions.c.version_key > after_version_key)
        .order_by(versions.c.version_key)
        .limit(limit)
    )
    names = tuple(keywords)
    return [_arrival(row, names) for row in connection.execute(query)]


def every_arrival_with_study(
    connection: Connection, after_version_key: int, limit: int, keywords: Collection[str]
) -> list[tuple[int, Arrival]]:
    """Return what `every_arrival` does, each with the key of its study; 0 for an instance outside of studies."""
    query = (
        _current(keywords, studies.c.study_key)
        .where(versions.c.version_key > after_version_key)
        .order_by(versions.c.version_key)
        .limit(limit)
    )
    names = tuple(keywords)
    return [(row.study_key or 0, _arrival(row, names)) for row in connection.execute(query)]


def key_before(connection: Connection, received_from: str) -> int | None:
    """Return a version key behind which everything stands that was received from a time on; None where nothing was.

    The time is the beginning of one in ISO 8601. What was received before it can stand there too.
    """
    query = select(func.min(receipts.c.receipt_key)).where(receipts.c.received_at >= received_from)
    first = connection.execute(query).scalar()
    return None if first is None else int(first) - 1


def _columns(keywords: Collection[str], *more: Column[Any]) -> Select[Any]:
    # The attributes by their place: one of them may be among the columns of every arrival.
    asked = (COLUMNS[keyword].label(f"attribute_{place}") for place, keyword in enumerate(keywords))
    return select(*_ARRIVAL, *asked, *more)


def _above(known: FromClause, keywords: Collection[str]) -> FromClause:
    """Join a version and its receipt with what stands above them."""
    joined = (
        known.join(instances, instances.c.instance_key == versions.c.instance_key)
        .outerjoin(series, series.c.series_key == versions.c.series_key)
        .outerjoin(studies, studies.c.study_key == series.c.study_key)
    )
    if any(COLUMNS[keyword].table is patients for keyword in keywords):
        joined = joined.outerjoin(patients, patients.c.patient_key == studies.c.patient_key)
    return joined


def _current(keywords: Collection[str], *more: Column[Any]) -> Select[Any]:
    # The receipt in the file of a version has its key, and is always there. Joined so, it is looked up for each version, and
    # pages come in the order of the versions without being sorted.
    known = versions.outerjoin(receipts, receipts.c.receipt_key == versions.c.version_key)
    return _columns(keywords, *more).select_from(_above(known, keywords)).where(_IS_CURRENT)


def _arrival(row: Row[Any], keywords: tuple[str, ...]) -> Arrival:
    # By their places, which is half as long as by their names: this is done for each instance that arrives.
    (
        version_key,
        sop_instance_uid,
        series_instance_uid,
        study_instance_uid,
        sop_class_uid,
        transfer_syntax_uid,
        modality,
        file_size,
        receipt_key,
        calling_ae_title,
        called_ae_title,
        peer_address,
        received_by,
        received_at,
        *others,
    ) = cast("tuple[Any, ...]", row)
    return Arrival(
        version_key=version_key,
        receipt_key=receipt_key,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=series_instance_uid,
        study_instance_uid=study_instance_uid,
        sop_class_uid=sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        modality=modality,
        calling_ae_title=calling_ae_title,
        called_ae_title=called_ae_title,
        peer_address=peer_address,
        received_by=received_by,
        received_at=received_at,
        attributes={
            keyword: str(value)
            for keyword, value in zip(keywords, others, strict=False)
            if value is not None and value != ""
        },
        file_size=file_size,
    )
