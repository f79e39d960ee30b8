"""/jobs in Orthanc's shape: the archive's jobs, each with the fields of Orthanc's, and what can be asked of one.

A storage commitment that was asked of us is a job of type StorageCommitmentScp, sending to a modality one of type
DicomModalityStore. The others, which Orthanc does not have, have the names of their kinds. A cancelled job is a failed one with
Orthanc's code for that. *Retry* is a state that no job of Orthanc's is ever in: here it is one that waits for its next attempt.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from stowkeeper.database.engine import Transaction, utc_now
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import Job, JobFilter, JobNotFoundError
from stowkeeper.jobs.states import FINISHED, JobAction, JobState, JobStateError
from stowkeeper.services import store_items
from stowkeeper.services.commitment import asking
from stowkeeper.services.commitment import rows as commitments
from stowkeeper.services.commitment.options import COMMITMENT_JOB
from stowkeeper.services.peers import Peer
from stowkeeper.services.store_submission import JOB_KIND as STORE_JOB
from stowkeeper.services.store_submission import peer_in
from stowkeeper.services.stow_submission import JOB_KIND as STOW_JOB
from stowkeeper.web.job_permissions import check_may_act
from stowkeeper.web.orthanc_answers import Answer, basic_time
from stowkeeper.web.orthanc_errors import OrthancError, OrthancErrorCode, inexistent_item, unknown_resource
from stowkeeper.web.orthanc_limits import JOBS_LISTED_MAX
from stowkeeper.web.orthanc_routes import answer, has, nothing, on, orthanc_router
from stowkeeper.web.orthanc_rows import ids_of_uid
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow
from stowkeeper.web.services import WebServices

_STATES = {
    JobState.PENDING: "Pending",
    JobState.RUNNING: "Running",
    JobState.PAUSED: "Paused",
    JobState.RETRY: "Retry",
    JobState.SUCCESS: "Success",
    JobState.FAILURE: "Failure",
    JobState.CANCELLED: "Failure",
}
_TYPES = {COMMITMENT_JOB: "StorageCommitmentScp", STORE_JOB: "DicomModalityStore"}
_CALLS_PEERS = frozenset({COMMITMENT_JOB, STORE_JOB, STOW_JOB, asking.JOB_KIND})
"""The kinds whose failures are those of a network."""

Action = Callable[[Transaction, str, str], Job]

_ACTIONS: Mapping[JobAction, tuple[Action, bool]] = {
    JobAction.CANCEL: (rows.cancel, True),
    JobAction.PAUSE: (rows.pause, True),
    JobAction.RESUME: (rows.resume, False),
    JobAction.RESUBMIT: (rows.resubmit, False),
}
"""What can be asked of a job, and whether Orthanc answers 200 as well where it changes nothing, as it does to a finished job."""


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = orthanc_router()

    @on(routes, "GET", "/jobs")
    @allow(Role.READ, consumes=(), produces=())
    def list_jobs(request: Request) -> Response:
        expand = has(request, "expand")
        names = _Names.of(services) if expand else None
        with services.database.read() as connection:
            found = _listed(connection)
            if names is None:
                return answer([job.job_id for job in found])
            now = utc_now()
            return answer([_described(connection, job, names, now) for job in found])

    @on(routes, "GET", "/jobs/{job_id}")
    @allow(Role.READ, consumes=(), produces=())
    def get_job(job_id: str) -> Response:
        found = describe_job(services, job_id)
        if found is None:
            raise unknown_resource()
        return answer(found)

    @on(routes, "DELETE", "/jobs/{job_id}")
    @allow(Role.OPERATE, consumes=(), produces=())
    def forget_job(job_id: str, asker: Asker) -> Response:
        try:
            with services.database.write() as transaction:
                rows.delete(transaction, job_id, asker.who)
        except JobNotFoundError:
            raise inexistent_item(f"No job found with this id: {job_id[:_ID_LETTERS]}") from None
        except JobStateError as error:
            raise OrthancError(OrthancErrorCode.BAD_REQUEST, str(error)) from None
        return nothing()

    @on(routes, "GET", "/jobs/{job_id}/{key}")
    @allow(Role.READ, consumes=(), produces=())
    def get_output(job_id: str, key: str) -> Response:
        with services.database.read() as connection:
            if rows.find(connection, job_id) is None:
                raise inexistent_item(f"No job found with this id: {job_id[:_ID_LETTERS]}")
        raise inexistent_item(f"Job has no such output: {key[:_ID_LETTERS]}")

    for wanted in _ACTIONS:
        _add_action(routes, services, wanted)
    return routes


def _add_action(routes: APIRouter, services: WebServices, wanted: JobAction) -> None:
    action, may_be_in_vain = _ACTIONS[wanted]

    @on(routes, "POST", f"/jobs/{{job_id}}/{wanted}")
    @allow(Role.OPERATE, consumes=(), produces=())
    def act(job_id: str, asker: Asker) -> Response:
        try:
            with services.database.write() as transaction:
                check_may_act(transaction.connection, job_id, wanted, asker)
                action(transaction, job_id, asker.who)
        except JobNotFoundError as error:
            # Orthanc answers a POST that it does nothing on with 400, whatever the reason.
            raise OrthancError(OrthancErrorCode.BAD_REQUEST, str(error)) from None
        except JobStateError as error:
            if not may_be_in_vain:
                raise OrthancError(OrthancErrorCode.BAD_REQUEST, str(error)) from None
        services.jobs_wake()
        return answer({})


_ID_LETTERS = 64
"""Letters of what a client calls an id that an error repeats."""


def _listed(connection: Connection) -> list[Job]:
    """Return the newest jobs that are finished and the newest that are not, by their ids, as Orthanc orders them."""
    open_states = tuple(state for state in JobState if state not in FINISHED)
    found = [
        job
        for states in (open_states, tuple(FINISHED))
        for job in rows.list_jobs(connection, JobFilter(state=states, limit=JOBS_LISTED_MAX))
    ]
    return sorted(found, key=lambda job: job.job_id)


# One job.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """What peers are called, and what we are called."""

    peers: Mapping[str, Peer]
    ae_title: str

    @classmethod
    def of(cls, services: WebServices) -> "_Names":
        return cls(peers={peer.name: peer for peer in services.peers.all()}, ae_title=services.facts.ae_title)


def describe_job(services: WebServices, job_id: str) -> Answer | None:
    """Return a job as Orthanc shows one; None where there is none of this id. Raises DatabaseUnavailable."""
    names = _Names.of(services)
    with services.database.read() as connection:
        job = rows.find(connection, job_id)
        return None if job is None else _described(connection, job, names, utc_now())


def _described(connection: Connection, job: Job, names: _Names, now: str) -> Answer:
    code, description = _error_of(job)
    found: Answer = {
        "Content": _content_of(connection, job, names),
        "CreationTime": basic_time(job.created_at, microseconds=True),
        "EffectiveRuntime": round(job.seconds_run, 3),
        "ErrorCode": code,
        "ErrorDescription": description,
        "ErrorDetails": job.error if code else "",
        "ID": job.job_id,
        "Priority": job.priority,
        "Progress": _progress_of(job),
        "State": _STATES[job.state],
        "Timestamp": basic_time(now, microseconds=True),
        "Type": _TYPES.get(job.kind) or "".join(part.capitalize() for part in job.kind.split("-")),
    }
    if job.finished_at is not None:
        found["CompletionTime"] = basic_time(job.finished_at, microseconds=True)
    arrival = _estimated_arrival(job, now)
    if arrival is not None:
        found["EstimatedTimeOfArrival"] = arrival
    return found


def _error_of(job: Job) -> tuple[int, str]:
    if job.state is JobState.CANCELLED:
        code = OrthancErrorCode.CANCELED_JOB
    elif job.state in (JobState.FAILURE, JobState.RETRY):
        calls = job.kind in _CALLS_PEERS
        code = OrthancErrorCode.NETWORK_PROTOCOL if calls else OrthancErrorCode.INTERNAL_ERROR
    else:
        return 0, "Success"
    return code.number, code.message


def _progress_of(job: Job) -> int:
    if job.state is JobState.SUCCESS:
        return 100
    return min(100 * job.items_done // job.items_total, 100) if job.items_total else 0


def _estimated_arrival(job: Job, now: str) -> str | None:
    """Return when a running job would be at its end if it goes on as it went."""
    if job.state is not JobState.RUNNING or job.started_at is None:
        return None
    left = job.items_total - job.items_done
    if not job.items_done or left <= 0:
        return None
    began, at = _moment(job.started_at), _moment(now)
    arrival = at + (at - began) * (left / job.items_done)
    return basic_time(arrival.strftime(_TIME), microseconds=True)


_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def _moment(at: str) -> datetime:
    return datetime.strptime(at, _TIME).replace(tzinfo=UTC)


def _content_of(connection: Connection, job: Job, names: _Names) -> dict[str, Any]:
    """Return what a job is about."""
    if job.kind == COMMITMENT_JOB:
        return _commitment_content(connection, job)
    if job.kind == STORE_JOB:
        return _store_content(connection, job, names)
    content: dict[str, Any] = {"Description": ""}
    if job.subject:
        content["Subject"] = job.subject
    if job.peer:
        content["Peer"] = job.peer
    return content


def _commitment_content(connection: Connection, job: Job) -> dict[str, Any]:
    commitment = commitments.find_by_key(connection, job.arguments["commitment_key"])
    return {
        "CalledAet": commitment.own_ae_title if commitment is not None else "",
        "Description": "",
        "RemoteAet": commitment.peer_ae_title if commitment is not None else "",
        "RemoteIp": commitment.peer_address if commitment is not None else "",
        "TransactionUid": job.subject,
    }


def _store_content(connection: Connection, job: Job, names: _Names) -> dict[str, Any]:
    peer = peer_in(job.arguments) or names.peers.get(job.peer)
    counted = store_items.count_outcomes(connection, job.job_key)
    content: dict[str, Any] = {
        "Description": "REST API",
        "FailedInstancesCount": counted[store_items.FAILED],
        "InstancesCount": counted.total(),
        "LocalAet": (peer.own_ae_title if peer is not None else "") or names.ae_title,
        "RemoteAet": (peer.ae_title or "") if peer is not None else "",
    }
    if parents := ids_of_uid(connection, job.subject):
        content["ParentResources"] = parents
    if uid := job.checkpoint.get("transaction_uid"):
        content["StorageCommitmentTransactionUID"] = uid
    return content
