"""Orthanc's changes, made of the archive's change rows.

A row of an instance that came can be up to four of them: NewInstance, NewSeries, NewStudy, NewPatient, where it is the first of
what is there of the instance, the series, the study, the patient. One that says that a study is quiet is StableStudy. A row that takes the last version of an instance away is Deleted,
and so is the one that takes the last one of a series.

The number of a change is that of its row times eight, and its place in the row. So numbers grow, a cursor holds whatever process
reads, and nothing has to be kept for it. As with Orthanc, changes of a resource that is gone are gone too: the Patient ID goes
with the last instance of a study, and without it no id can be told.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Column, Connection, RowMapping, Select, func, select

from stowkeeper.archive.catalog_values import VersionState, portions
from stowkeeper.archive.changes import ChangeKind, newest_change
from stowkeeper.database.schema import changes, instances, patients, receipts, series, studies, versions
from stowkeeper.web.orthanc_answers import Answer, basic_time
from stowkeeper.web.orthanc_ids import Identifiers, ResourceType, path_of
from stowkeeper.web.orthanc_limits import CHANGES_PAGE, CHANGES_PAGES_MAX
from stowkeeper.web.orthanc_rows import find_places

_PER_ROW = 8
_DELETED = 4
"""Place in its row of the first change that says that something is gone; the new ones come before it."""

_STABLE = 6
"""Place of the one change that says that a study is quiet."""

_PRESENT = (VersionState.KEPT, VersionState.SUPERSEDED, VersionState.DAMAGED)


def changes_page(connection: Connection, since: int, limit: int) -> Answer:
    """Return the changes after one with a number, `limit` at most, and whether these are all.

    Fewer, though there are more, are those of as many rows as one request looks through.
    """
    found: list[Answer] = []
    seq = (since + 1) // _PER_ROW  # of the row whose change may come next
    for _ in range(CHANGES_PAGES_MAX):
        rows = connection.execute(_rows(seq).limit(CHANGES_PAGE)).mappings().all()
        found += [change for change in _changes_of(connection, rows) if change["Seq"] > since]
        if len(found) > limit:
            page = found[: max(limit, 0)]
            return {"Changes": page, "Done": False, "Last": page[-1]["Seq"] if page else since}
        if len(rows) < CHANGES_PAGE:
            last = found[-1]["Seq"] if found else _end_of(newest_change(connection))
            return {"Changes": found, "Done": True, "Last": last}
        seq = rows[-1]["seq"] + 1
    return {"Changes": found, "Done": False, "Last": _end_of(seq - 1)}


def last_change(connection: Connection) -> Answer:
    """Return the newest change."""
    newest = newest_change(connection)
    before = newest + 1
    for _ in range(CHANGES_PAGES_MAX):
        query = _rows(max(before - CHANGES_PAGE, 0)).where(changes.c.seq < before)
        found = list(_changes_of(connection, connection.execute(query).mappings().all()))
        if found:
            return {"Changes": found[-1:], "Done": True, "Last": found[-1]["Seq"]}
        before -= CHANGES_PAGE
        if before <= 0:
            break
    return {"Changes": [], "Done": True, "Last": _end_of(newest)}


def _end_of(seq: int) -> int:
    """Return the number behind the last change that a row can be; 0 of none."""
    return seq * _PER_ROW + _PER_ROW - 1 if seq else 0


def _rows(from_seq: int) -> Select[Any]:
    """Return the query for change rows from one on, each with the version it is about and where that stands."""
    about = func.coalesce(changes.c.version_key, receipts.c.version_key)
    return (
        select(
            changes.c.seq,
            changes.c.at,
            changes.c.kind,
            changes.c.receipt_key,
            changes.c.version_key.is_(None).label("is_to_none"),
            versions.c.version_key,
            versions.c.instance_key,
            instances.c.sop_instance_uid,
            series.c.series_key,
            series.c.series_instance_uid,
            studies.c.study_key,
            studies.c.study_instance_uid,
            patients.c.patient_id,
        )
        .join(receipts, receipts.c.receipt_key == changes.c.receipt_key)
        .join(versions, versions.c.version_key == about)
        .join(instances, instances.c.instance_key == versions.c.instance_key)
        .outerjoin(series, series.c.series_key == versions.c.series_key)
        .outerjoin(studies, studies.c.study_key == series.c.study_key)
        .outerjoin(patients, patients.c.patient_key == studies.c.patient_key)
        .where(changes.c.seq >= from_seq)
        .order_by(changes.c.seq)
    )


def _changes_of(connection: Connection, rows: Sequence[RowMapping]) -> Iterator[Answer]:
    """Yield what some rows are to Orthanc, in order."""
    shown = [row for row in rows if row["patient_id"] is not None and row["series_instance_uid"]]
    came = [
        row
        for row in shown
        if row["kind"] == ChangeKind.RECEIVED and row["receipt_key"] == row["version_key"]
    ]
    places = find_places(connection, ResourceType.INSTANCE, {row["instance_key"] for row in came})
    first = _first_ones(connection, came)
    last = _last_of_series(connection, [row for row in shown if row["kind"] == ChangeKind.REMOVED])
    for row in shown:
        own = Identifiers(
            patient_id=row["patient_id"],
            study_instance_uid=row["study_instance_uid"],
            series_instance_uid=row["series_instance_uid"],
            sop_instance_uid=row["sop_instance_uid"],
        )
        if row["kind"] == ChangeKind.CURRENT and row["is_to_none"]:
            yield _change(row, _DELETED, "Deleted", ResourceType.INSTANCE, own)
        elif row["kind"] == ChangeKind.STUDY_QUIET:
            yield _change(row, _STABLE, "StableStudy", ResourceType.STUDY, own)
        elif row["seq"] in last:
            yield _change(row, _DELETED + 1, "Deleted", ResourceType.SERIES, own)
        elif row["seq"] in first and (place := places.get(row["instance_key"])) is not None:
            for number, resource_type in enumerate(first[row["seq"]]):
                yield _change(row, number, f"New{resource_type.word}", resource_type, place.identifiers)


def _change(
    row: RowMapping, number: int, change_type: str, resource_type: ResourceType, own: Identifiers
) -> Answer:
    own_id = own.id_of(resource_type)
    return {
        "ChangeType": change_type,
        "Date": basic_time(row["at"]),
        "ID": own_id,
        "Path": path_of(resource_type, own_id),
        "ResourceType": resource_type.word,
        "Seq": row["seq"] * _PER_ROW + number,
    }


def _first_ones(connection: Connection, came: Sequence[RowMapping]) -> dict[int, list[ResourceType]]:
    """Return, by the number of its row, of what each version is the first that is there: instance, series, study, patient.

    Who is the first of a patient is the first of a study of it, and so on down: so each level asks for fewer than the one
    below it.
    """
    found: dict[int, list[ResourceType]] = {}
    candidates = list(came)
    for resource_type, column, name in (
        (ResourceType.INSTANCE, versions.c.instance_key, "instance_key"),
        (ResourceType.SERIES, versions.c.series_key, "series_key"),
        (ResourceType.STUDY, series.c.study_key, "study_key"),
        (ResourceType.PATIENT, patients.c.patient_id, "patient_id"),
    ):
        firsts = _first_versions(connection, resource_type, column, {row[name] for row in candidates})
        candidates = [row for row in candidates if firsts.get(row[name]) == row["version_key"]]
        for row in candidates:
            found.setdefault(row["seq"], []).append(resource_type)
    return found


def _first_versions(
    connection: Connection, resource_type: ResourceType, column: Column[Any], wanted: Iterable[Any]
) -> dict[Any, int]:
    """Return the key of the first version that is there of each instance, series, study or patient."""
    query = select(column, func.min(versions.c.version_key)).select_from(versions)
    if resource_type in (ResourceType.STUDY, ResourceType.PATIENT):
        query = query.join(series, series.c.series_key == versions.c.series_key)
    if resource_type is ResourceType.PATIENT:
        query = query.join(studies, studies.c.study_key == series.c.study_key).join(
            patients, patients.c.patient_key == studies.c.patient_key
        )
    query = query.where(versions.c.state.in_(_PRESENT)).group_by(column)
    return {
        key: first
        for portion in portions(wanted)
        for key, first in connection.execute(query.where(column.in_(portion)))
    }


def _last_of_series(connection: Connection, removed: Sequence[RowMapping]) -> set[int]:
    """Return the numbers of those rows by which the last version of a series went."""
    keys = {row["series_key"] for row in removed}
    gone = keys - find_places(connection, ResourceType.SERIES, keys).keys()
    last: dict[int, tuple[str, int]] = {}
    query = select(versions.c.series_key, versions.c.state_since, versions.c.version_key).where(
        versions.c.state == VersionState.REMOVED
    )
    for portion in portions(gone):
        for series_key, since, version_key in connection.execute(
            query.where(versions.c.series_key.in_(portion))
        ):
            last[series_key] = max(last.get(series_key, ("", 0)), (since or "", version_key))
    return {row["seq"] for row in removed if last.get(row["series_key"]) == (row["at"], row["version_key"])}
