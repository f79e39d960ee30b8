"""The rows behind resources in Orthanc's shape: which of them are there, their identifiers, and walks over all of them.

What is there: an instance of which a version is kept and that belongs to a study and a series, and the series, studies and
patients of such instances. Orthanc refuses instances outside of studies, so they have no id there, and are not shown here; the
native interface shows them.

Orthanc knows a patient by the Patient ID alone. So the rows of patients that differ by issuer, or by study where there is no
Patient ID, are one patient here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, exists, func, select

from stowkeeper.archive.catalog_values import portions
from stowkeeper.database.schema import instance_among, instances, patients, series, studies, versions
from stowkeeper.web.orthanc_ids import Identifiers, ResourceType, orthanc_id

KEYS = {
    ResourceType.PATIENT: patients.c.patient_key,
    ResourceType.STUDY: studies.c.study_key,
    ResourceType.SERIES: series.c.series_key,
    ResourceType.INSTANCE: instances.c.instance_key,
}
"""The key of each kind of resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a resource stands in the tree: its identifiers, and the keys of its row and of those above; below it 0."""

    identifiers: Identifiers
    patient_key: int
    study_key: int = 0
    series_key: int = 0
    instance_key: int = 0

    def key_of(self, resource_type: ResourceType) -> int:
        """Return the key of the row of this resource, or of one above it."""
        keys = (self.patient_key, self.study_key, self.series_key, self.instance_key)
        return keys[resource_type.depth - 1]

    def id_of(self, resource_type: ResourceType) -> str:
        """Return the id of this resource, or of one above it."""
        return self.identifiers.id_of(resource_type)


_CURRENT = and_(
    versions.c.version_key == instances.c.current_version_key,
    versions.c.instance_key == instances.c.instance_key,
)
"""An instance with its current version. Said by both keys, so that one can be found from the other whichever comes first."""

# What is there. A series is there as long as an instance of which the current version is in it.

_SERIES_IS_THERE = exists().where(
    versions.c.series_key == series.c.series_key,
    _CURRENT,
    series.c.series_instance_uid != "",
)
_STUDY_IS_THERE = exists().where(series.c.study_key == studies.c.study_key, _SERIES_IS_THERE)
_PATIENT_IS_THERE = exists().where(studies.c.patient_key == patients.c.patient_key, _STUDY_IS_THERE)
IS_THERE: dict[ResourceType, ColumnElement[bool]] = {
    ResourceType.PATIENT: _PATIENT_IS_THERE,
    ResourceType.STUDY: _STUDY_IS_THERE,
    ResourceType.SERIES: _SERIES_IS_THERE,
    ResourceType.INSTANCE: series.c.series_instance_uid != "",
}


def _places(resource_type: ResourceType) -> Select[Any]:
    """Return the query for resources with all that is above them."""
    patient = (patients.c.patient_key, patients.c.patient_id)
    if resource_type is ResourceType.PATIENT:
        return select(*patient)
    study = (studies.c.study_key, studies.c.study_instance_uid)
    if resource_type is ResourceType.STUDY:
        return (
            select(*patient, *study)
            .select_from(studies)
            .join(patients, patients.c.patient_key == studies.c.patient_key)
        )
    one_series = (series.c.series_key, series.c.series_instance_uid)
    if resource_type is ResourceType.SERIES:
        return (
            select(*patient, *study, *one_series)
            .select_from(series)
            .join(studies, studies.c.study_key == series.c.study_key)
            .join(patients, patients.c.patient_key == studies.c.patient_key)
        )
    return (
        select(*patient, *study, *one_series, instances.c.instance_key, instances.c.sop_instance_uid)
        .select_from(instances)
        .join(versions, _CURRENT)
        .join(series, series.c.series_key == versions.c.series_key)
        .join(studies, studies.c.study_key == series.c.study_key)
        .join(patients, patients.c.patient_key == studies.c.patient_key)
    )


def _place(values: RowMapping) -> Place:
    return Place(
        identifiers=Identifiers(
            patient_id=values["patient_id"],
            study_instance_uid=values.get("study_instance_uid", ""),
            series_instance_uid=values.get("series_instance_uid", ""),
            sop_instance_uid=values.get("sop_instance_uid", ""),
        ),
        patient_key=values["patient_key"],
        study_key=values.get("study_key", 0),
        series_key=values.get("series_key", 0),
        instance_key=values.get("instance_key", 0),
    )


def find_places(connection: Connection, resource_type: ResourceType, keys: Iterable[int]) -> dict[int, Place]:
    """Return those of some resources that are there, by their keys."""
    column = KEYS[resource_type]
    query = _places(resource_type).where(IS_THERE[resource_type])
    found: dict[int, Place] = {}
    for portion in portions(dict.fromkeys(keys)):
        for row in connection.execute(query.where(column.in_(portion))).mappings():
            place = _place(row)
            found[place.key_of(resource_type)] = place
    return found


def places_of_studies(connection: Connection, study_keys: Iterable[int]) -> list[Place]:
    """Return the instances of some studies."""
    query = _places(ResourceType.INSTANCE).where(IS_THERE[ResourceType.INSTANCE])
    return [
        _place(row)
        for portion in portions(dict.fromkeys(study_keys))
        for row in connection.execute(query.where(series.c.study_key.in_(portion))).mappings()
    ]


def ids_before(
    connection: Connection, resource_type: ResourceType, key: int | None, limit: int
) -> tuple[list[tuple[int, str]], int | None]:
    """Return keys and ids of a page of resources with smaller keys than one, or of the last ones where it is None.

    The second value is the key to go on from; None when these were the first ones. Some of the resources may not be there
    any more. For a walk over all: an instance takes some 5 µs.
    """
    column = KEYS[resource_type]
    if resource_type is ResourceType.INSTANCE:
        query = (
            select(column, instances.c.sop_instance_uid, versions.c.series_key)
            .select_from(instances)
            .join(versions, _CURRENT)
            .where(versions.c.series_key.is_not(None))
        )
    else:
        query = _places(resource_type)
    query = query.order_by(column.desc()).limit(limit)
    query = query if key is None else query.where(column < key)
    if resource_type is not ResourceType.INSTANCE:
        places = list(map(_place, connection.execute(query).mappings()))
        found = [(place.key_of(resource_type), place.id_of(resource_type)) for place in places]
        return found, found[-1][0] if len(found) == limit else None
    rows = connection.execute(query).all()
    above = {
        place.series_key: (
            place.identifiers.patient_id,
            place.identifiers.study_instance_uid,
            place.identifiers.series_instance_uid,
        )
        for place in _places_by_key(
            connection, ResourceType.SERIES, {series_key for _, _, series_key in rows}
        )
    }
    found = [
        (instance_key, orthanc_id(*above[series_key], uid))
        for instance_key, uid, series_key in rows
        if series_key in above
    ]
    return found, rows[-1][0] if len(rows) == limit else None


def _places_by_key(
    connection: Connection, resource_type: ResourceType, keys: Iterable[int]
) -> Iterator[Place]:
    column = KEYS[resource_type]
    for portion in portions(sorted(keys)):
        query = _places(resource_type).where(column.in_(portion))
        yield from map(_place, connection.execute(query).mappings())


# All of them, in the order in which they are listed.


def list_keys(
    connection: Connection,
    resource_type: ResourceType,
    *,
    after: int | str | None = None,
    offset: int = 0,
    limit: int,
) -> tuple[list[int], int | str | None]:
    """Return the keys of a page of the resources that are there, and what the next page comes `after`; None behind the last.

    Patients are in the order of their Patient IDs, all others in that in which they came. A page with an `offset` walks over
    those before it, in some 0.15 µs each.
    """
    if resource_type is ResourceType.PATIENT:
        return _list_patients(connection, after, offset, limit)
    column = KEYS[resource_type]
    query = select(column).where(IS_THERE[resource_type]).order_by(column).offset(offset).limit(limit)
    if resource_type is ResourceType.INSTANCE:
        query = query.join(versions, _CURRENT).join(series, series.c.series_key == versions.c.series_key)
    if after is not None:
        query = query.where(column > after)
    keys = list(connection.execute(query).scalars())
    return keys, keys[-1] if len(keys) == limit and keys else None


def _list_patients(
    connection: Connection, after: int | str | None, offset: int, limit: int
) -> tuple[list[int], int | str | None]:
    query = (
        select(func.min(patients.c.patient_key).label("patient_key"), patients.c.patient_id)
        .where(_PATIENT_IS_THERE)
        .group_by(patients.c.patient_id)
        .order_by(patients.c.patient_id)
        .offset(offset)
        .limit(limit)
    )
    if after is not None:
        query = query.where(patients.c.patient_id > after)
    rows = connection.execute(query).all()
    last = rows[-1].patient_id if len(rows) == limit and rows else None
    return [row.patient_key for row in rows], last


def children_of(
    connection: Connection, resource_type: ResourceType, places: Sequence[Place]
) -> dict[str, list[str]]:
    """Return the ids of what is right below some resources, by the ids of those: studies, series or instances."""
    below = list(ResourceType)[resource_type.depth]
    query = _places(below).where(IS_THERE[below]).order_by(KEYS[below])
    found: dict[str, list[str]] = {place.id_of(resource_type): [] for place in places}
    if resource_type is ResourceType.PATIENT:
        column: ColumnElement[Any] = patients.c.patient_id
        wanted: set[Any] = {place.identifiers.patient_id for place in places}
    else:
        column = {ResourceType.STUDY: series.c.study_key, ResourceType.SERIES: versions.c.series_key}[
            resource_type
        ]
        wanted = {place.key_of(resource_type) for place in places}
    for portion in portions(sorted(wanted)):
        for row in connection.execute(query.where(column.in_(portion))).mappings():
            place = _place(row)
            found[place.id_of(resource_type)].append(place.id_of(below))
    return found


def patient_keys_of(connection: Connection, patient_id: str) -> list[int]:
    """Return the rows of a patient, all that have this Patient ID."""
    query = select(patients.c.patient_key).where(patients.c.patient_id == patient_id)
    return list(connection.execute(query).scalars())


def ids_of_uid(connection: Connection, uid: str) -> list[str]:
    """Return the ids of what has a UID: a study, series (in each study that has it), or an instance; none of ''."""
    if not uid:
        return []
    for resource_type, condition in (
        (ResourceType.STUDY, studies.c.study_instance_uid == uid),
        (ResourceType.SERIES, series.c.series_instance_uid == uid),
        (ResourceType.INSTANCE, instance_among([uid])),
    ):
        query = _places(resource_type).where(condition, IS_THERE[resource_type])
        found = [_place(row).id_of(resource_type) for row in connection.execute(query).mappings()]
        if found:
            return sorted(found)
    return []


def uids_of(connection: Connection, resource_type: ResourceType, place: Place) -> list[str]:
    """Return UIDs that name a resource and nothing else: of a patient its studies', mostly its own of the others.

    A series whose UID stands in other studies too is named by its instances.
    """
    own = place.identifiers
    if resource_type is ResourceType.INSTANCE:
        return [own.sop_instance_uid]
    if resource_type is ResourceType.STUDY:
        return [own.study_instance_uid]
    if resource_type is ResourceType.PATIENT:
        query = (
            select(studies.c.study_instance_uid)
            .join(patients, patients.c.patient_key == studies.c.patient_key)
            .where(patients.c.patient_id == own.patient_id, _STUDY_IS_THERE)
            .order_by(studies.c.study_key)
        )
        return list(connection.execute(query).scalars())
    same = select(func.count()).where(series.c.series_instance_uid == own.series_instance_uid)
    if connection.execute(same).scalar_one() == 1:
        return [own.series_instance_uid]
    below = _places(ResourceType.INSTANCE).where(versions.c.series_key == place.series_key)
    query = below.order_by(instances.c.instance_key)
    return [_place(row).identifiers.sop_instance_uid for row in connection.execute(query).mappings()]
