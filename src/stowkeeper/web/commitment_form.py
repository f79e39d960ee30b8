"""/dicom-web/commitment-requests/{transactionUID}: storage commitment by HTTP (PS3.18 chapter 13), on the engine of the other form.

    POST  200  done: the result                 GET  200  done: the result
          202  accepted, Retry-After                 202  not yet, Retry-After
          400  a malformed payload or UID            404  nobody asked so here by HTTP
          409  the transaction UID is in use
          503  nobody runs the jobs by which it would be worked on

A request is kept durably before it is answered 202, and its result can be fetched again and again. Who asked and fetches it first
has been told: from then on the UID is used up. A repeat of the same request by the same client before that joins the first one.
What is fetched late is checked again first, and not yet there meanwhile.

The result of a request that named a tree of studies is a tree, as long as this process remembers the tree: rows keep the instances
alone. After that it is a list, which says the same.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response

from stowkeeper.database.engine import Database
from stowkeeper.dicom.uid import uid_defect
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.acceptance import Taken, WebResult, accept_web, web_result
from stowkeeper.services.commitment.commitment_values import WAY_WEB, CommitmentRole, CommitmentState
from stowkeeper.stow.media_types import DICOM_JSON, DICOM_XML, preferred_response_type
from stowkeeper.web.commitment_payload import (
    CommitmentPayload,
    PayloadError,
    Run,
    read_payload,
    result_of,
    write_result,
)
from stowkeeper.web.orthanc_limits import (
    COMMITMENT_BODY_BYTES_MAX,
    COMMITMENT_RETRY_SECONDS,
    COMMITMENT_SECONDS,
    COMMITMENT_WAIT_SECONDS,
    FORM_RUNS_REMEMBERED_MAX,
)
from stowkeeper.web.orthanc_routes import Body
from stowkeeper.web.orthanc_waiting import WaitingRoom, turn_of, wait_until
from stowkeeper.web.problems import ProblemError, nobody_works
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow, api_router, check_json
from stowkeeper.web.services import WebServices

MEDIA_TYPES = (DICOM_JSON, DICOM_XML)

PATH = "/commitment-requests/{transaction_uid}"
"""Below the base path of DICOMweb."""


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router(tag="storage commitment")
    forms = FormMemory()
    room = WaitingRoom()
    database = services.database
    path = services.dicomweb.base_path + PATH

    @routes.post(path, include_in_schema=False, response_model=None)
    @allow(
        Role.OPERATE,
        body_bytes_max=COMMITMENT_BODY_BYTES_MAX,
        consumes=MEDIA_TYPES,
        produces=MEDIA_TYPES,
        seconds=COMMITMENT_SECONDS,
    )
    async def request_commitment(
        transaction_uid: str, request: Request, body: Body, asker: Asker
    ) -> Response:
        _check_uid(transaction_uid)
        if not services.are_jobs_run():
            raise nobody_works()
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        address = request.client.host if request.client is not None else ""
        async with turn_of(database, body):
            payload = await run_in_threadpool(_read, body, media_type)
            taken, _ = await run_in_threadpool(
                accept_web, database, transaction_uid, payload.references, client=asker.name, address=address
            )
        if taken is Taken.DUPLICATE:
            raise ProblemError(409, "the transaction UID is in use: ask with a new one")
        forms.remember(transaction_uid, payload.runs)
        services.jobs_wake()
        result = None
        if not room.is_full:
            with room.place():
                result = await wait_until(
                    lambda: _finished(web_result(database, transaction_uid)), COMMITMENT_WAIT_SECONDS
                )
        return await run_in_threadpool(_told, result, forms.recall(transaction_uid), request.headers)

    @routes.get(path, include_in_schema=False, response_model=None)
    @allow(Role.READ, produces=MEDIA_TYPES)
    def get_result(transaction_uid: str, request: Request, asker: Asker) -> Response:
        _check_uid(transaction_uid)
        result = _result(database, transaction_uid, asker.name)
        if result is None:
            raise ProblemError(404, "there is no request with this transaction UID that was made by HTTP")
        return _told(_finished(result), forms.recall(transaction_uid), request.headers)

    return routes


def _check_uid(transaction_uid: str) -> None:
    defect = uid_defect(transaction_uid)
    if defect is not None:
        raise ProblemError(400, f"the transaction UID in the address is no UID: {defect}")


def _read(body: bytes, media_type: str) -> CommitmentPayload:
    """Read the payload of a request. Raises ProblemError."""
    if not body:
        raise ProblemError(400, "the request has no payload that names the instances")
    if media_type == DICOM_JSON:
        check_json(body)
    try:
        return read_payload(body, media_type)
    except PayloadError as error:
        raise ProblemError(413 if error.is_too_long else 400, str(error)) from None


def _result(database: Database, transaction_uid: str, client: str) -> WebResult | None:
    """Return what can be said of a transaction. Only who asked is told by it; others look."""
    with database.read() as connection:
        commitment = rows.find(connection, CommitmentRole.PROVIDER, transaction_uid)
        if commitment is None or commitment.way != WAY_WEB:
            return None
        if commitment.peer != client:
            instances = None
            if commitment.state is not CommitmentState.RECEIVED:
                found = rows.instances_of(connection, commitment.commitment_key, limit=commitment.instances)
                instances = tuple(found)
            return WebResult(commitment=commitment, instances=instances)
    return web_result(database, transaction_uid)


def _finished(result: WebResult | None) -> WebResult | None:
    """Return a result in which nothing is open."""
    return None if result is None or result.instances is None else result


def _told(result: WebResult | None, runs: Sequence[Run], headers: Headers) -> Response:
    if result is None or result.instances is None:
        return Response(status_code=202, headers={"Retry-After": str(COMMITMENT_RETRY_SECONDS)})
    # Where neither will do, the request was answered 406 before.
    media_type = preferred_response_type(headers.getlist("accept"), None) or DICOM_JSON
    body = write_result(result_of(result.instances, runs), media_type)
    # Without `media_type`, which would add a character set to one of them.
    return Response(body, headers={"Content-Type": media_type})


class FormMemory:
    """Remembers which studies and series a request named, of the latest requests. Any thread may ask."""

    def __init__(self, runs_max: int = FORM_RUNS_REMEMBERED_MAX) -> None:
        self._runs_max = runs_max
        self._lock = threading.Lock()
        self._forms: OrderedDict[str, tuple[Run, ...]] = OrderedDict()
        self._count = 0

    def remember(self, transaction_uid: str, runs: tuple[Run, ...]) -> None:
        """Remember a tree; a list needs none."""
        if not runs or len(runs) > self._runs_max:
            return
        with self._lock:
            self._count += len(runs) - len(self._forms.pop(transaction_uid, ()))
            self._forms[transaction_uid] = runs
            while self._count > self._runs_max:
                _, forgotten = self._forms.popitem(last=False)
                self._count -= len(forgotten)

    def recall(self, transaction_uid: str) -> tuple[Run, ...]:
        """Return the tree of a request, nothing where it was a list or is forgotten."""
        with self._lock:
            return self._forms.get(transaction_uid, ())
