"""POST /instances in Orthanc's shape: one DICOM file, kept by the one path of every instance.

The body is one Part 10 file, or a data set without file meta information. A ZIP archive and a form of a browser are refused: each
of the files in it can be sent by itself. The receipt says `import`, with the client's address. A second version of an instance goes
by `storage.duplicates`; as shipped it is kept beside the first and answered Success, where Orthanc throws it away.
"""

from collections.abc import Iterator
from functools import partial

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from stowkeeper.archive.archive import Archive
from stowkeeper.archive.catalog_values import ReceiptOutcome
from stowkeeper.archive.outcome import Outcome, Refusal
from stowkeeper.archive.versions import find_version_by_receipt
from stowkeeper.dicom.attributes import InstanceAttributes
from stowkeeper.services.file_head import NoInstanceError
from stowkeeper.services.file_terms import FileTerms
from stowkeeper.services.ingest import Ingested, OutsideOfStudiesError, ingest
from stowkeeper.web.body_threads import BodyThreads
from stowkeeper.web.orthanc_errors import OrthancError, OrthancErrorCode, bad_format
from stowkeeper.web.orthanc_ids import Identifiers, ResourceType, path_of
from stowkeeper.web.orthanc_limits import INSTANCE_BYTES_MAX, INSTANCE_SECONDS
from stowkeeper.web.orthanc_routes import answer, on, orthanc_router
from stowkeeper.web.orthanc_rows import find_places
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow
from stowkeeper.web.services import WebServices

_REFUSALS = {
    Refusal.OUT_OF_RESOURCES: (OrthancErrorCode.FULL_STORAGE, None),
    Refusal.DUPLICATE: (OrthancErrorCode.BAD_REQUEST, 409),
    Refusal.NOT_AUTHORIZED: (OrthancErrorCode.UNAUTHORIZED, 403),
    Refusal.PROCESSING_FAILURE: (OrthancErrorCode.INTERNAL_ERROR, None),
}
"""Codes, and HTTP statuses where they are not the code's own, of instances that are refused for no fault of the file."""


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = orthanc_router()
    threads = BodyThreads()

    @on(routes, "POST", "/instances")
    @allow(
        Role.NONE,
        stores=True,
        body_bytes_max=INSTANCE_BYTES_MAX,
        consumes=(),
        produces=(),
        seconds=INSTANCE_SECONDS,
        streams=True,
    )
    async def keep_instance(request: Request) -> Response:
        archive = services.archive
        if not isinstance(archive, Archive):
            raise ProblemError(503, "this server does not receive instances")
        address = request.client.host if request.client is not None else ""
        try:
            ingested = await threads.read(
                request, partial(_keep, archive, address=address, terms=services.file_terms(address))
            )
        except OutsideOfStudiesError:
            raise OrthancError(OrthancErrorCode.INEXISTENT_TAG) from None
        except NoInstanceError as error:
            raise bad_format(f"Cannot parse an invalid DICOM file: {error}") from None
        if ingested.outcome.refusal is not None:
            raise _refused(ingested.outcome, ingested.outcome.refusal)
        return answer(await run_in_threadpool(_told, archive, ingested))

    return routes


def _keep(archive: Archive, pieces: Iterator[bytes], *, address: str, terms: FileTerms) -> Ingested:
    return ingest(archive, _not_empty(pieces), address=address, needs_study=True, terms=terms)


def _not_empty(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a body as it comes. Raises OrthancError for an empty one."""
    is_empty = True
    for piece in pieces:
        is_empty = False
        yield piece
    if is_empty:
        raise bad_format("Received an empty DICOM file")


def _refused(outcome: Outcome, refusal: Refusal) -> OrthancError:
    code, status = _REFUSALS.get(refusal, (OrthancErrorCode.BAD_FILE_FORMAT, None))
    return OrthancError(code, outcome.comment, status=status)


def _told(archive: Archive, ingested: Ingested) -> dict[str, str]:
    """Return what Orthanc says of a file that is kept: where it is in the tree, as the catalog has it now."""
    receipt = ingested.outcome.receipt
    found = _identifiers_of(ingested.attributes)
    if receipt is not None and ingested.listed is not None:
        with archive.database.read() as connection:
            version = find_version_by_receipt(connection, receipt.receipt_id)
            if version is not None:
                places = find_places(connection, ResourceType.INSTANCE, [version.instance_key])
                found = next((place.identifiers for place in places.values()), found)
    own_id = found.id_of(ResourceType.INSTANCE)
    was_there = ingested.listed is ReceiptOutcome.IDENTICAL
    return {
        "ID": own_id,
        "ParentPatient": found.id_of(ResourceType.PATIENT),
        "ParentSeries": found.id_of(ResourceType.SERIES),
        "ParentStudy": found.id_of(ResourceType.STUDY),
        "Path": path_of(ResourceType.INSTANCE, own_id),
        "Status": "AlreadyStored" if was_there else "Success",
    }


def _identifiers_of(attributes: InstanceAttributes) -> Identifiers:
    return Identifiers(
        patient_id=attributes.patient_id or "",
        study_instance_uid=attributes.study_instance_uid or "",
        series_instance_uid=attributes.series_instance_uid or "",
        sop_instance_uid=attributes.sop_instance_uid or "",
    )
