"""Resources as Orthanc shows them: one object each, with the fields and types of its version 1.10.1.

`MainDicomTags` holds what the catalog knows of them: fewer than Orthanc's, whose other ones would mean to read the file.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, func, select

from stowkeeper.archive.catalog_values import portions
from stowkeeper.archive.receipt import RECEIPT_LENGTH
from stowkeeper.database.schema import instances, patients, receipts, series, studies, versions
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID
from stowkeeper.web.orthanc_ids import ResourceType
from stowkeeper.web.orthanc_limits import STABLE_SECONDS
from stowkeeper.web.orthanc_rows import Place, children_of, find_places

Answer = dict[str, Any]

RECEIPT_BYTES = 8 + len(RECEIPT_CREATOR_UID) + 12 + RECEIPT_LENGTH
"""Bytes that our receipt takes in the head of a file (PS3.10 §7.1): the files that are given have none."""

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"

_PATIENT_TAGS = {
    "PatientBirthDate": "patient_birth_date",
    "PatientID": "patient_id",
    "PatientName": "patient_name",
    "PatientSex": "patient_sex",
    "OtherPatientIDs": "other_patient_ids",
}
_STUDY_TAGS = {
    "AccessionNumber": "accession_number",
    "ReferringPhysicianName": "referring_physician_name",
    "StudyDate": "study_date",
    "StudyDescription": "study_description",
    "StudyID": "study_id",
    "StudyInstanceUID": "study_instance_uid",
    "StudyTime": "study_time",
}
_SERIES_TAGS = {
    "BodyPartExamined": "body_part_examined",
    "Manufacturer": "manufacturer",
    "Modality": "modality",
    "OperatorsName": "operators_name",
    "PerformedProcedureStepDescription": "performed_procedure_step_description",
    "ProtocolName": "protocol_name",
    "SeriesDate": "series_date",
    "SeriesDescription": "series_description",
    "SeriesInstanceUID": "series_instance_uid",
    "SeriesNumber": "series_number",
    "SeriesTime": "series_time",
    "StationName": "station_name",
}
_INSTANCE_TAGS = {
    "AcquisitionNumber": "acquisition_number",
    "InstanceCreationDate": "instance_creation_date",
    "InstanceCreationTime": "instance_creation_time",
    "InstanceNumber": "instance_number",
    "NumberOfFrames": "number_of_frames",
    "SOPInstanceUID": "sop_instance_uid",
}


def basic_time(at: str, *, microseconds: bool = False) -> str:
    """Return a time of a row, UTC, in Orthanc's basic form of ISO 8601."""
    whole, _, fraction = at.removesuffix("Z").partition(".")
    basic = whole.replace("-", "").replace(":", "")
    return f"{basic}.{fraction.ljust(6, '0')}" if microseconds else basic


def describe(
    connection: Connection, resource_type: ResourceType, keys: Sequence[int], now: datetime | None = None
) -> list[Answer]:
    """Return resources by their keys, in the order given, without those that are not there any more."""
    places = find_places(connection, resource_type, keys)
    describer = _DESCRIBERS[resource_type]
    found = describer(connection, [places[key] for key in keys if key in places], now or datetime.now(UTC))
    return [dict(sorted(answer.items())) for answer in found]


def _describe_patients(connection: Connection, places: Sequence[Place], now: datetime) -> list[Answer]:
    rows = _newest_by(connection, patients, "patient_id", [p.identifiers.patient_id for p in places])
    children = children_of(connection, ResourceType.PATIENT, places)
    answers = []
    for place in places:
        row = rows.get(place.identifiers.patient_id)
        if row is not None:
            own_id = place.id_of(ResourceType.PATIENT)
            answers.append(
                {
                    **_common(ResourceType.PATIENT, own_id, row, now),
                    "MainDicomTags": _tags(row, _PATIENT_TAGS),
                    "Studies": children[own_id],
                }
            )
    return answers


def _describe_studies(connection: Connection, places: Sequence[Place], now: datetime) -> list[Answer]:
    rows = _newest_by(connection, studies, "study_key", [p.study_key for p in places])
    parents = _newest_by(connection, patients, "patient_key", [p.patient_key for p in places])
    institutions = _newest_by(connection, series, "study_key", [p.study_key for p in places])
    children = children_of(connection, ResourceType.STUDY, places)
    answers = []
    for place in places:
        row, parent = rows.get(place.study_key), parents.get(place.patient_key)
        if row is not None and parent is not None:
            own_id = place.id_of(ResourceType.STUDY)
            tags = _tags(row, _STUDY_TAGS)
            # Orthanc shows the institution with the study, our rows hold it with the series.
            institution = institutions[place.study_key]["institution_name"]
            answers.append(
                {
                    **_common(ResourceType.STUDY, own_id, row, now),
                    "MainDicomTags": tags | ({"InstitutionName": institution} if institution else {}),
                    "ParentPatient": place.id_of(ResourceType.PATIENT),
                    "PatientMainDicomTags": _tags(parent, _PATIENT_TAGS),
                    "Series": children[own_id],
                }
            )
    return answers


def _describe_series(connection: Connection, places: Sequence[Place], now: datetime) -> list[Answer]:
    rows = _newest_by(connection, series, "series_key", [p.series_key for p in places])
    children = children_of(connection, ResourceType.SERIES, places)
    answers = []
    for place in places:
        row = rows.get(place.series_key)
        if row is not None:
            own_id = place.id_of(ResourceType.SERIES)
            answers.append(
                {
                    **_common(ResourceType.SERIES, own_id, row, now),
                    "ExpectedNumberOfInstances": None,
                    "Instances": children[own_id],
                    "MainDicomTags": _tags(row, _SERIES_TAGS),
                    "ParentStudy": place.id_of(ResourceType.STUDY),
                    "Status": "Unknown",
                }
            )
    return answers


def _describe_instances(connection: Connection, places: Sequence[Place], _now: datetime) -> list[Answer]:
    query = (
        select(versions, instances.c.sop_instance_uid, receipts.c.receipt_id)
        .join(instances, instances.c.current_version_key == versions.c.version_key)
        .join(receipts, receipts.c.receipt_key == versions.c.version_key)
    )
    rows: dict[int, Mapping[str, Any]] = {}
    for portion in portions([place.instance_key for place in places]):
        for row in connection.execute(query.where(instances.c.instance_key.in_(portion))).mappings():
            rows[row["instance_key"]] = row  # type: ignore[assignment]  # its keys are the names of the columns
    answers = []
    for place in places:
        found = rows.get(place.instance_key)
        if found is not None:
            answers.append(
                {
                    "FileSize": found["file_size"] - RECEIPT_BYTES,
                    "FileUuid": as_uuid(found["receipt_id"]),
                    "ID": place.id_of(ResourceType.INSTANCE),
                    "IndexInSeries": found["instance_number"],
                    "MainDicomTags": _tags(found, _INSTANCE_TAGS),
                    "ParentSeries": place.id_of(ResourceType.SERIES),
                    "Type": ResourceType.INSTANCE.word,
                }
            )
    return answers


_DESCRIBERS: dict[ResourceType, Callable[[Connection, Sequence[Place], datetime], list[Answer]]] = {
    ResourceType.PATIENT: _describe_patients,
    ResourceType.STUDY: _describe_studies,
    ResourceType.SERIES: _describe_series,
    ResourceType.INSTANCE: _describe_instances,
}


def as_uuid(receipt_id: str) -> str:
    """Return a receipt id as Orthanc writes the names of files: a receipt id has as many digits as a UUID."""
    return str(UUID(hex=receipt_id))


def _newest_by(
    connection: Connection, table: Table, column: str, wanted: Sequence[Any]
) -> dict[Any, Mapping[Any, Any]]:
    """Return, for each value of a column, the row that was described last."""
    found: dict[Any, Mapping[Any, Any]] = {}
    for portion in portions(dict.fromkeys(wanted)):
        query = select(table).where(table.c[column].in_(portion)).order_by(table.c.described_at)
        for row in connection.execute(query).mappings():
            found[row[column]] = row
    return found


def _common(resource_type: ResourceType, own_id: str, row: Mapping[Any, Any], now: datetime) -> Answer:
    at = row["described_at"]
    age = (now - datetime.strptime(at, _TIME).replace(tzinfo=UTC)).total_seconds() if at else 0.0
    return {
        "ID": own_id,
        "IsStable": age >= STABLE_SECONDS,
        "LastUpdate": basic_time(at),
        "Type": resource_type.word,
    }


def _tags(row: Mapping[Any, Any], names: Mapping[str, str]) -> dict[str, str]:
    return {keyword: str(row[column]) for keyword, column in names.items() if row[column] is not None}


def count_all(connection: Connection) -> dict[str, int]:
    """Return how many resources there are of each kind, by Orthanc's words, and the bytes of their files.

    It walks over every instance: some 0.3 s for each million of them.
    """
    in_study = select(
        versions.c.series_key,
        func.count().label("instances"),
        func.sum(versions.c.file_size).label("size"),
    )
    per_series = (
        in_study.select_from(versions)
        .join(
            instances,
            (instances.c.instance_key == versions.c.instance_key)
            & (instances.c.current_version_key == versions.c.version_key),
        )
        .where(versions.c.series_key.is_not(None))
        .group_by(versions.c.series_key)
        .subquery()
    )
    query = (
        select(
            func.coalesce(func.sum(per_series.c.instances), 0).label("Instances"),
            func.count(series.c.series_key).label("Series"),
            func.count(studies.c.study_key.distinct()).label("Studies"),
            func.count(patients.c.patient_id.distinct()).label("Patients"),
            func.coalesce(func.sum(per_series.c.size), 0).label("size"),
        )
        .select_from(per_series)
        .join(series, series.c.series_key == per_series.c.series_key)
        .join(studies, studies.c.study_key == series.c.study_key)
        .join(patients, patients.c.patient_key == studies.c.patient_key)
        .where(series.c.series_instance_uid != "")
    )
    return dict(connection.execute(query).mappings().one())
