"""/patients, /studies, /series, /instances in Orthanc's shape: lists, one of them, its file, and removing it."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import ColumnElement, select
from starlette.responses import Response

from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.removal import HeldVersion, Removal, RemovalPlan
from stowkeeper.archive.versions import find_versions_by_key
from stowkeeper.database.schema import instances, receipts, series, studies, versions
from stowkeeper.web.file_answer import FileAnswer
from stowkeeper.web.native_file import FileDamagedError, InstanceFile
from stowkeeper.web.orthanc_answers import as_uuid, describe
from stowkeeper.web.orthanc_errors import OrthancError, OrthancErrorCode, unknown_resource
from stowkeeper.web.orthanc_ids import ResourceType, path_of
from stowkeeper.web.orthanc_index import index_of
from stowkeeper.web.orthanc_limits import HELD_NAMED_MAX, PAGE_RESOURCES, REMOVAL_SECONDS
from stowkeeper.web.orthanc_routes import answer, answer_list, has, on, orthanc_router, page_of
from stowkeeper.web.orthanc_rows import Place, find_places, list_keys, patient_keys_of
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow
from stowkeeper.web.services import WebServices

_BY_PATH = {resource_type.path: resource_type for resource_type in ResourceType}


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = orthanc_router()
    resources = _Resources(services)
    for resource_type in ResourceType:
        _add(routes, resources, resource_type)

    @on(routes, "GET", "/instances/{resource_id}/file")
    @allow(Role.READ, consumes=(), produces=())
    def get_file(resource_id: str) -> Response:
        return resources.file(resource_id)

    return routes


def _add(routes: APIRouter, resources: "_Resources", resource_type: ResourceType) -> None:
    @on(routes, "GET", f"/{resource_type.path}")
    @allow(Role.READ, consumes=(), produces=())
    def list_resources(request: Request) -> Response:
        return resources.all_of(resource_type, page_of(request), expand=has(request, "expand"))

    @on(routes, "GET", f"/{resource_type.path}/{{resource_id}}")
    @allow(Role.READ, consumes=(), produces=())
    def get_resource(resource_id: str) -> Response:
        return resources.one(resource_type, resource_id)

    @on(routes, "DELETE", f"/{resource_type.path}/{{resource_id}}")
    @allow(Role.OPERATE, consumes=(), produces=(), seconds=REMOVAL_SECONDS)
    def remove_resource(resource_id: str, asker: Asker) -> Response:
        return resources.remove(resource_type, resource_id, asker.who)


class _Resources:
    """What the routes do."""

    def __init__(self, services: WebServices) -> None:
        self._archive = services.archive
        self._database = services.database
        self._index = index_of(services.database)

    def all_of(self, resource_type: ResourceType, page: tuple[int, int] | None, *, expand: bool) -> Response:
        """Return all resources of a kind, or a page of them, as ids or whole."""
        return answer_list(self._portions(resource_type, page, expand=expand))

    def _portions(
        self, resource_type: ResourceType, page: tuple[int, int] | None, *, expand: bool
    ) -> Iterator[list[Any]]:
        offset, left = page if page is not None else (0, None)
        after: int | str | None = None
        while left is None or left > 0:
            limit = PAGE_RESOURCES if left is None else min(left, PAGE_RESOURCES)
            with self._database.read() as connection:
                keys, after = list_keys(connection, resource_type, after=after, offset=offset, limit=limit)
                if expand:
                    portion: list[Any] = describe(connection, resource_type, keys)
                else:
                    places = find_places(connection, resource_type, keys)
                    portion = [places[key].id_of(resource_type) for key in keys if key in places]
            yield portion
            if after is None:
                return
            offset = 0
            left = None if left is None else left - len(keys)

    def one(self, resource_type: ResourceType, resource_id: str) -> Response:
        """Return one resource."""
        place = self._find(resource_type, resource_id)
        with self._database.read() as connection:
            found = describe(connection, resource_type, [place.key_of(resource_type)])
        if not found:
            raise unknown_resource()
        return answer(found[0])

    def file(self, resource_id: str) -> Response:
        """Return an instance as a file, its current version, without our receipt. A damaged one ends in the middle."""
        place = self._find(ResourceType.INSTANCE, resource_id)
        query = (
            select(versions.c.path, receipts.c.receipt_id, receipts.c.digest, receipts.c.data_set_length)
            .join(instances, instances.c.current_version_key == versions.c.version_key)
            .join(receipts, receipts.c.receipt_key == versions.c.version_key)
            .where(instances.c.instance_key == place.instance_key)
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise unknown_resource()
        archive = self._archive
        try:
            file = InstanceFile(
                archive.files,
                archive.path_of(row.path),
                digest=row.digest,
                data_set_length=row.data_set_length,
            )
        except (FileDamagedError, FileNotFoundError):
            raise OrthancError(
                OrthancErrorCode.CORRUPTED_FILE,
                "the file of the instance is damaged or missing: run `stowkeeper verify`, and have it sent again",
            ) from None
        name = f"{as_uuid(row.receipt_id)}.dcm"
        return FileAnswer(file, name=name, disposition="", media_type="application/dicom")

    def remove(self, resource_type: ResourceType, resource_id: str, who: str) -> Response:
        """Remove a resource, every version of it, unless somebody holds one; say what is left above it."""
        place = self._find(resource_type, resource_id)
        plan = self._plan(resource_type, place)
        if plan.held:
            raise _held(plan.held)
        archive = self._archive
        removal = Removal(archive.files, archive.root, archive.database)
        result = removal.carry_out(plan, f"removed by {who}, by HTTP")
        if result.held:
            raise _held(result.held)
        if result.left:
            raise OrthancError(
                OrthancErrorCode.INTERNAL_ERROR,
                "1 file could not be removed now; the server removes it when it can"
                if len(result.left) == 1
                else f"{len(result.left)} files could not be removed now; the server removes them when it can",
            )
        return answer({"RemainingAncestor": self._remaining(resource_type, place)})

    def _plan(self, resource_type: ResourceType, place: Place) -> RemovalPlan:
        """Return what the removal of a resource takes away.

        By its rows and not by its UID, since a Series Instance UID may stand in two studies.
        """
        plan = RemovalPlan(uid=place.id_of(resource_type))
        with self._database.read() as connection:
            patient_keys: list[int] = []
            if resource_type is ResourceType.PATIENT:
                patient_keys = patient_keys_of(connection, place.identifiers.patient_id)
            condition = _versions_of(resource_type, place, patient_keys)
            query = select(versions.c.version_key).where(condition, versions.c.state != VersionState.REMOVED)
            keys = connection.execute(query).scalars().all()
            found = find_versions_by_key(connection, keys).values()
        for version in found:
            if version.state is VersionState.REMOVING:
                plan.removing.append(version.version_key)
            elif version.is_held:
                plan.held.append(
                    HeldVersion(
                        version_key=version.version_key,
                        sop_instance_uid=version.sop_instance_uid,
                        reasons=(),
                    )
                )
            elif version.state is VersionState.DAMAGED:
                plan.damaged.append(version.version_key)
            else:
                plan.kept.append(version.version_key)
            plan.size += version.file_size
        plan.instances = len({version.instance_key for version in found})
        return plan

    def _remaining(self, resource_type: ResourceType, place: Place) -> dict[str, str] | None:
        """Return the closest resource above a removed one that is there still."""
        above = [other for other in ResourceType if other.depth < resource_type.depth]
        for other in reversed(above):
            with self._database.read() as connection:
                # A patient can have several rows, and the one of this place be gone.
                keys = [place.key_of(other)]
                if other is ResourceType.PATIENT:
                    keys = patient_keys_of(connection, place.identifiers.patient_id)
                if find_places(connection, other, keys):
                    own_id = place.id_of(other)
                    return {"ID": own_id, "Path": path_of(other, own_id), "Type": other.word}
        return None

    def _find(self, resource_type: ResourceType, resource_id: str) -> Place:
        place = self._index.find(resource_type, resource_id)
        if place is None:
            raise unknown_resource()
        return place


def _versions_of(resource_type: ResourceType, place: Place, patient_keys: list[int]) -> ColumnElement[bool]:
    if resource_type is ResourceType.INSTANCE:
        return versions.c.instance_key == place.instance_key
    if resource_type is ResourceType.SERIES:
        return versions.c.series_key == place.series_key
    in_studies = select(series.c.series_key)
    if resource_type is ResourceType.STUDY:
        return versions.c.series_key.in_(in_studies.where(series.c.study_key == place.study_key))
    return versions.c.series_key.in_(
        in_studies.join(studies, studies.c.study_key == series.c.study_key).where(
            studies.c.patient_key.in_(patient_keys)
        )
    )


def _held(held: list[HeldVersion]) -> OrthancError:
    """Return the refusal to remove what was promised to be kept."""
    uids = sorted({version.sop_instance_uid for version in held})
    named = ", ".join(uids[:HELD_NAMED_MAX]) + (", …" if len(uids) > HELD_NAMED_MAX else "")
    return OrthancError(
        OrthancErrorCode.BAD_SEQUENCE_OF_CALLS,
        f"{'1 instance is' if len(uids) == 1 else f'{len(uids)} instances are'} committed to others and held here, and"
        f" {'was' if len(uids) == 1 else 'were'} not removed: {named}."
        " `stowkeeper rm` can override that",
        status=409,
    )
