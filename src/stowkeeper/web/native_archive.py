"""/api/studies, /api/series and /api/instances: what is kept, its files, and taking it away."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy import select
from starlette.responses import Response

from stowkeeper.archive import pages
from stowkeeper.archive.pages import ListingFilter, PageRequest
from stowkeeper.database.schema import holds, instance_among, instances, receipts, versions
from stowkeeper.jobs.job import Job
from stowkeeper.services.commitment.safe_to_delete import Deletability, instances_of_study, safe_to_delete
from stowkeeper.web.file_answer import FileAnswer
from stowkeeper.web.limits import PAGE_ROWS
from stowkeeper.web.native_file import FileDamagedError, InstanceFile
from stowkeeper.web.native_job_shapes import JobShape, job_shape
from stowkeeper.web.native_lists import Identifier, Listing, give_page, wrong_cursor
from stowkeeper.web.native_models import Cursor, Limit, Page, Reason, Shape, next_page
from stowkeeper.web.native_removal import Removed, remove
from stowkeeper.web.native_rows import Instance, Series, Study
from stowkeeper.web.problems import ProblemError, not_found
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow, api_router
from stowkeeper.web.services import WebServices

DICOM = "application/dicom"


class Hold(Shape):
    """Who was promised that a version stays."""

    receipt_id: str = Field(description="Of the version.")
    reason: str = Field(description="Who holds it and why.")
    held_since: str


class InstanceWithVersions(Shape):
    """An instance: every version that is not gone, the newest first, and who holds which."""

    sop_instance_uid: str
    current: Instance | None = Field(description="The version that counts; null when none is whole.")  # type: ignore[valid-type]  # made from the schema, at run time
    versions: list[Instance]  # type: ignore[valid-type]  # likewise
    holds: list[Hold]


class SafeToDelete(Shape):
    """Whether an instance may be deleted here, since a peer has committed it."""

    sop_instance_uid: str
    is_safe: bool
    words: str = Field(description="Why not; '' when it is safe.")
    peer: str = Field(description="Who answers for it, or said no; '' when nobody said anything.")
    transaction_uid: str
    committed_at: str


class StudySafeToDelete(Page[SafeToDelete]):
    """Which instances of a study may be deleted here, since peers have committed them."""

    study_instance_uid: str
    is_safe: bool = Field(description="Whether all of them may.")
    safe: int = Field(description="How many may.")
    unsafe: int = Field(description="How many may not.")


StudyUID = Annotated[
    Identifier | None, Query(description="Of several series with this UID, the one in this study.")
]
ReasonAsked = Annotated[
    Reason | None, Query(description="Why, for the ledger. It stays; no patient data. An override needs one.")
]
OverrideAsked = Annotated[
    bool,
    Query(
        description="Remove what is held too. It needs the role admin and a reason, and is written to the audit trail."
    ),
]
_REMOVAL_ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {"model": JobShape, "description": "There is much to remove: a job does it."},
    409: {"description": "Something of it is held, and nothing was removed; `held` says what and why."},
}


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api", tag="archive")
    _add_lists(routes, services)
    _add_instances(routes, services)
    _add_removals(routes, services)
    return routes


def _add_lists(routes: APIRouter, services: WebServices) -> None:
    @routes.get(
        "/studies",
        operation_id="list_studies",
        summary="List studies",
        response_model=Page[Study],  # type: ignore[valid-type]  # made from the schema, at run time
    )
    @allow(Role.READ)
    def list_studies(asked: Listing) -> dict[str, object]:
        """List the studies of which an instance is kept."""
        return give_page(services, "/api/studies", pages.studies, asked)

    @routes.get("/studies/{uid}", operation_id="get_study", summary="Show a study", response_model=Study)
    @allow(Role.READ)
    def get_study(uid: Identifier) -> dict[str, Any]:
        """Show one study."""
        return _only(services, pages.studies, uid, "study", study_instance_uid=uid)

    @routes.get(
        "/studies/{uid}/safe-to-delete",
        operation_id="get_study_safe_to_delete",
        summary="Tell what of a study may be deleted here",
        response_model=StudySafeToDelete,
    )
    @allow(Role.READ)
    def get_safe_to_delete(
        uid: Identifier,
        peer: Annotated[str, Query(max_length=64, description="By the word of this peer alone.")] = "",
        cursor: Cursor = None,
        limit: Limit = PAGE_ROWS,
    ) -> dict[str, object]:
        """Say of each instance whether a peer that we asked has committed the very version that is kept here."""
        uids = instances_of_study(services.database, uid)
        if not uids:
            raise not_found("study of this UID")
        judged = safe_to_delete(services.database, uids, peer)
        return {
            "study_instance_uid": uid,
            **_counted(judged),
            **_slice(judged, f"/api/studies/{uid}/safe-to-delete", cursor, limit, peer or None),
        }

    @routes.get(
        "/series",
        operation_id="list_series",
        summary="List series",
        response_model=Page[Series],  # type: ignore[valid-type]  # likewise
    )
    @allow(Role.READ)
    def list_series(asked: Listing) -> dict[str, object]:
        """List the series of which an instance is kept."""
        return give_page(services, "/api/series", pages.series, asked)

    @routes.get("/series/{uid}", operation_id="get_series", summary="Show a series", response_model=Series)
    @allow(Role.READ)
    def get_series(uid: Identifier, study_instance_uid: StudyUID = None) -> dict[str, Any]:
        """Show one series."""
        more = {} if study_instance_uid is None else {"study_instance_uid": study_instance_uid}
        return _only(services, pages.series, uid, "series", series_instance_uid=uid, **more)


def _add_instances(routes: APIRouter, services: WebServices) -> None:
    @routes.get(
        "/instances",
        operation_id="list_instances",
        summary="List instances",
        response_model=Page[Instance],  # type: ignore[valid-type]  # likewise
    )
    @allow(Role.READ)
    def list_instances(
        asked: Listing,
        all_versions: Annotated[bool, Query(description="Every version that is not gone.")] = False,
        in_conflict: Annotated[
            bool, Query(description="Only versions that differ from another of their instance.")
        ] = False,
        is_held: Annotated[bool, Query(description="Only versions that somebody holds.")] = False,
    ) -> dict[str, object]:
        """List instances, each by its current version."""
        flags = {"all_versions": all_versions, "in_conflict": in_conflict, "is_held": is_held}
        return give_page(services, "/api/instances", pages.instances, asked, **flags)

    @routes.get(
        "/instances/{uid}",
        operation_id="get_instance",
        summary="Show an instance with its versions",
        response_model=InstanceWithVersions,
    )
    @allow(Role.READ)
    def get_instance(uid: Identifier) -> dict[str, object]:
        """Show an instance, its versions, and who holds them."""
        with services.database.read() as connection:
            page = pages.instances(
                connection, PageRequest(limit=100), ListingFilter(uid=uid), all_versions=True
            )
            found = [row for row in page.rows if row["sop_instance_uid"] == uid]
            query = (
                select(receipts.c.receipt_id, holds.c.reason, holds.c.held_since)
                .join(versions, versions.c.version_key == holds.c.version_key)
                .join(instances, instances.c.instance_key == versions.c.instance_key)
                .join(receipts, receipts.c.receipt_key == versions.c.version_key)
                .where(instance_among([uid]))
                .order_by(holds.c.held_since, holds.c.reason)
            )
            held = [dict(row) for row in connection.execute(query).mappings()]
        if not found:
            raise not_found("instance of this UID")
        current = next((row for row in found if row["current"]), None)
        return {"sop_instance_uid": uid, "current": current, "versions": found, "holds": held}

    @routes.get(
        "/instances/{uid}/file",
        operation_id="get_instance_file",
        summary="Download an instance",
        response_class=Response,
        responses={
            200: {
                "description": "A DICOM file (PS3.10), without the receipt that it carries in the archive.",
                "content": {DICOM: {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    @allow(Role.READ, produces=(DICOM,))
    def get_file(
        uid: Identifier,
        receipt_id: Annotated[
            Identifier | None, Query(description="The version of this receipt, in place of the current one.")
        ] = None,
    ) -> Response:
        """Give the data set as it was received. An answer that comes whole fits its receipt to the last byte."""
        file = _open_file(services, uid, receipt_id)
        name = f"{''.join(letter for letter in uid if letter in '0123456789.')}.dcm"
        return FileAnswer(file, name=name, disposition="attachment; ", media_type=DICOM)


def _add_removals(routes: APIRouter, services: WebServices) -> None:
    def add(noun: str, operation_id: str, summary: str, level: str) -> None:
        @routes.delete(
            f"/{noun}/{{uid}}",
            operation_id=operation_id,
            summary=summary,
            response_model=Removed,
            responses=_REMOVAL_ANSWERS,
        )
        @allow(Role.OPERATE)
        def delete(
            asker: Asker,
            uid: Identifier,
            reason: ReasonAsked = None,
            override: OverrideAsked = False,
        ) -> dict[str, object] | Response:
            """Take away every version of it. What is held is refused: storage commitment, mostly, was promised to a peer."""
            done = remove(services, level, uid, asker, reason=reason, override=override)
            if isinstance(done, Job):
                shape = JobShape.model_validate(job_shape(done)).model_dump(mode="json")
                return JSONResponse(shape, status_code=202, headers={"Location": f"/api/jobs/{done.job_id}"})
            return done

    add("studies", "delete_study", "Remove a study", "study")
    add("series", "delete_series", "Remove a series", "series")
    add("instances", "delete_instance", "Remove an instance", "instance")


def _only(
    services: WebServices, rows: Callable[..., pages.Page], uid: str, noun: str, **wanted: str
) -> dict[str, Any]:
    with services.database.read() as connection:
        page = rows(connection, PageRequest(limit=100), ListingFilter(uid=uid))
    for row in page.rows:
        if all(row[key] == value for key, value in wanted.items()):
            return row
    raise not_found(f"{noun} of this UID")


def _open_file(services: WebServices, uid: str, receipt_id: str | None) -> InstanceFile:
    query = (
        select(versions.c.path, versions.c.state, receipts.c.digest, receipts.c.data_set_length)
        .join(instances, instances.c.instance_key == versions.c.instance_key)
        .join(receipts, receipts.c.receipt_key == versions.c.version_key)
        .where(instance_among([uid]))
    )
    if receipt_id is None:
        query = query.where(instances.c.current_version_key == versions.c.version_key)
    else:
        query = query.where(receipts.c.receipt_id == receipt_id)
    with services.database.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None or row.state not in {"kept", "superseded"}:
        raise not_found("whole version of this instance")
    archive = services.archive
    try:
        return InstanceFile(
            archive.files, archive.path_of(row.path), digest=row.digest, data_set_length=row.data_set_length
        )
    except (FileDamagedError, FileNotFoundError) as error:
        raise ProblemError(
            500,
            "the file of the instance is damaged or missing: run `stowkeeper verify`, and have it sent again",
        ) from error


def _counted(judged: list[Deletability]) -> dict[str, object]:
    safe = sum(one.is_safe for one in judged)
    return {"is_safe": safe == len(judged), "safe": safe, "unsafe": len(judged) - safe}


def _slice(
    judged: list[Deletability], path: str, cursor: str | None, limit: int, peer: str | None
) -> dict[str, object]:
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
        raise wrong_cursor()
    start = int(cursor or 0)
    end = start + limit
    following = next_page(path, end if end < len(judged) else None, limit=limit, peer=peer)
    return {"items": judged[start:end], "next": following}
