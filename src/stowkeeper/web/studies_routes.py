"""POST /dicom-web/studies and /dicom-web/studies/{study}: STOW-RS (PS3.18 §10.5).

    200  all is kept                                     406  none of the answer's types is wanted
    202  kept, with warnings or beside failures          409  nothing is kept
    400  no DICOM in it, or the request is malformed     413  every part, or the body, is too long
    401, 403  who asks may not                           415  the body, or every part, is of another type
    405  another method                                  503  out of resources, or too many requests

Everything that can be known is said before a byte of the body is read; then each part goes into intake as it comes, and the answer
is given when every part is durable or refused.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.datastructures import Headers
from starlette.responses import Response

from stowkeeper.archive.archive import Archive
from stowkeeper.dicom.uid import uid_defect
from stowkeeper.services.store_request import StoreLimits, StoreRequest
from stowkeeper.services.store_request_limits import BUILDS_AT_ONCE
from stowkeeper.services.turns import Turns
from stowkeeper.stow.media_types import (
    BoundaryError,
    StoreBody,
    StoreForm,
    UnsupportedBodyError,
    preferred_response_type,
    store_body,
)
from stowkeeper.stow.response import StoreResult, status_of, write_response
from stowkeeper.web.body_threads import BodyThreads
from stowkeeper.web.connection import IS_GONE
from stowkeeper.web.limits import (
    STORE_BODY_BYTES_MAX,
    STORE_BYTES_PER_SECOND_MIN,
    STORE_RETRY_SECONDS,
    STORE_SECONDS,
    STORE_SLOW_SECONDS,
)
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow, api_router
from stowkeeper.web.services import WebServices
from stowkeeper.web.studies_openapi import REQUEST_BODY, RESPONSES

_RETRY = {"Retry-After": str(STORE_RETRY_SECONDS)}


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    base = services.dicomweb.base_path
    routes = api_router(tag="DICOMweb")
    turnstile = _Turnstile(services.dicomweb.requests_max)

    @routes.post(
        f"{base}/studies",
        operation_id="store_instances",
        summary="Store instances",
        response_class=Response,
        response_model=None,
        responses=RESPONSES,
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    @routes.post(f"{base}/studies/", include_in_schema=False, response_model=None)
    @allow(
        Role.NONE,
        stores=True,
        body_bytes_max=STORE_BODY_BYTES_MAX,
        consumes=(),
        produces=(),
        seconds=STORE_SECONDS,
        streams=True,
    )
    async def store(request: Request, asker: Asker) -> Response:
        """Keep instances of any study (STOW-RS, PS3.18 §10.5)."""
        return await _store(services, turnstile, request, credential=asker.name, study_instance_uid="")

    @routes.post(
        f"{base}/studies/{{study}}",
        operation_id="store_instances_of_study",
        summary="Store instances of a study",
        response_class=Response,
        response_model=None,
        responses=RESPONSES,
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    @routes.post(f"{base}/studies/{{study}}/", include_in_schema=False, response_model=None)
    @allow(
        Role.NONE,
        stores=True,
        body_bytes_max=STORE_BODY_BYTES_MAX,
        consumes=(),
        produces=(),
        seconds=STORE_SECONDS,
        streams=True,
    )
    async def store_in_study(study: str, request: Request, asker: Asker) -> Response:
        """Keep instances of one study, named by its Study Instance UID; what belongs to another is refused (PS3.18 §10.5)."""
        defect = uid_defect(study)
        if defect is not None:
            raise ProblemError(400, f"the Study Instance UID in the address is no UID: {defect}")
        return await _store(services, turnstile, request, credential=asker.name, study_instance_uid=study)

    return routes


class _Turnstile:
    """Counts the requests that are being stored. 0 lets any number pass. All of them share `builds` and `threads`."""

    def __init__(self, requests_max: int) -> None:
        self.builds = Turns(BUILDS_AT_ONCE)
        self.threads = BodyThreads()
        self._requests_max = requests_max
        self._inside = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for the length of a block. Raises ProblemError where there is none."""
        if 0 < self._requests_max <= self._inside:
            raise ProblemError(
                503,
                f"{self._requests_max} store requests are served at a time: try again later",
                headers=_RETRY,
            )
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


async def _store(
    services: WebServices,
    turnstile: _Turnstile,
    request: Request,
    *,
    credential: str,
    study_instance_uid: str,
) -> Response:
    media_type, body = _agree(request)
    archive = services.archive
    if not isinstance(archive, Archive):
        raise ProblemError(503, "this server does not receive instances", headers=_RETRY)
    with turnstile.place():
        words = archive.admission.refusal() or archive.admission.association_refusal()
        if words:
            raise ProblemError(503, f"nothing can be stored now: {words}", headers=_RETRY)
        address = request.client.host if request.client is not None else ""
        options = services.dicomweb
        store = StoreRequest(
            archive,
            services.file_terms(address),
            address=address,
            credential=credential,
            study_instance_uid=study_instance_uid,
            retrieve_url=options.retrieve_url,
            limits=StoreLimits(parts_max=options.parts_max, part_bytes_max=options.part_bytes_max),
            builds=turnstile.builds,
        )

        def take(pieces: Iterator[bytes]) -> tuple[int, bytes]:
            _read(store, body, _checked(pieces))
            store.settle()
            return _answer(store, media_type, is_quiet=options.warnings_are_successes)

        try:
            status, written = await turnstile.threads.read(request, take)
            is_there = not await _is_gone(request)
        except BaseException:
            # What is kept of it is kept, and the ledger says that nobody was told.
            await asyncio.shield(turnstile.threads.call(partial(store.close, is_answered=False)))
            raise
        return Response(
            written,
            status_code=status,
            # Without `media_type`, which would add a character set, and clients compare the whole field.
            headers={"Content-Type": media_type} | (_RETRY if status == 503 else {}),
            # On a thread of its own: the lines of many parts take their time, and the few threads of all other requests have none.
            background=BackgroundTask(turnstile.threads.call, partial(store.close, is_answered=is_there)),
        )


async def _is_gone(request: Request) -> bool:
    """Tell whether the client has left, as far as is known: asked of the connection, which takes less than to wait for its end."""
    is_gone = request.scope.get(IS_GONE)
    if is_gone is None:
        return await request.is_disconnected()
    await asyncio.sleep(0)  # an end that came meanwhile is heard now
    return bool(is_gone())


def _agree(request: Request) -> tuple[str, StoreBody]:
    """Return the type of the answer and the form of the body. Raises ProblemError."""
    headers: Headers = request.headers
    media_type = preferred_response_type(headers.getlist("accept"), request.query_params.get("accept"))
    if media_type is None:
        raise ProblemError(
            406,
            "the answer is application/dicom+json or application/dicom+xml, which the field Accept does not allow",
        )
    try:
        # A field that is there twice says two things, and so none (RFC 9110 §5.3).
        fields = [", ".join(headers.getlist(name)) for name in ("content-type", "content-encoding")]
        return media_type, store_body(*fields)
    except UnsupportedBodyError as error:
        accepted = 'application/dicom, multipart/related; type="application/dicom"'
        raise ProblemError(415, str(error), headers={"Accept": accepted}) from None
    except BoundaryError as error:
        raise ProblemError(400, str(error)) from None


def _read(store: StoreRequest, body: StoreBody, pieces: Iterable[bytes]) -> None:
    if body.form is StoreForm.ONE_INSTANCE:
        store.read_one_file(pieces)
    elif body.form is StoreForm.INSTANCES:
        store.read_files(pieces, body.boundary)
    else:
        store.read_metadata(pieces, body)


def _checked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a body as it comes. Raises ProblemError for one that trickles."""
    began = time.monotonic()
    taken = 0
    for piece in pieces:
        taken += len(piece)
        seconds = time.monotonic() - began
        if seconds > STORE_SLOW_SECONDS and taken < seconds * STORE_BYTES_PER_SECOND_MIN:
            raise ProblemError(
                408,
                f"the body comes slower than {STORE_BYTES_PER_SECOND_MIN:g} bytes a second",
                headers={"Connection": "close"},
            )
        yield piece


def _answer(store: StoreRequest, media_type: str, *, is_quiet: bool) -> tuple[int, bytes]:
    """Return the status and the body of the answer. Of ten thousand instances it takes half a second."""
    result = store.result()
    return _status_of(store, result, is_quiet=is_quiet), write_response(result, media_type)


def _status_of(store: StoreRequest, result: StoreResult, *, is_quiet: bool) -> int:
    """Return the status: by what is kept and what not; where nothing is, by what all parts have in common."""
    if store.all_are_too_large:
        return 413
    if store.all_are_of_other_types:
        return 415
    return status_of(result, warnings_are_successes=is_quiet)
