"""POST /modalities/{name}/store in Orthanc's shape: a job that sends instances to a modality.

It is the archive's own job: it tries every instance, and goes on where the modality is away. So *Permissive* decides alone what a
synchronous call says when some instances were not taken. A synchronous call to a modality that is not there fails as Orthanc's
does, and its job is cancelled; an asynchronous one gives the job, which is tried again and again.

*Host*, *Port*, *CalledAet* and *LocalAet* that are not those of the modality need the role admin: who is called, and as whom, is
what peers are defined for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from stowkeeper.jobs.job import Job
from stowkeeper.jobs.limits import PRIORITY_MAX
from stowkeeper.jobs.states import JobState
from stowkeeper.services.peers import Peer, PeerDefinitionError
from stowkeeper.services.store_submission import CannotStoreError, submit_store
from stowkeeper.web.orthanc_answers import Answer
from stowkeeper.web.orthanc_errors import (
    OrthancError,
    OrthancErrorCode,
    bad_format,
    unknown_resource,
)
from stowkeeper.web.orthanc_ids import is_orthanc_id
from stowkeeper.web.orthanc_index import OrthancIndex, index_of
from stowkeeper.web.orthanc_jobs import describe_job
from stowkeeper.web.orthanc_limits import RESOURCES_PER_REQUEST_MAX, SYNCHRONOUS_SECONDS_MAX
from stowkeeper.web.orthanc_modalities import modality_of, with_timeout
from stowkeeper.web.orthanc_routes import (
    Body,
    answer,
    flag_of,
    integer_of,
    on,
    orthanc_router,
    read_json,
    text_of,
    timeout_of,
)
from stowkeeper.web.orthanc_rows import uids_of
from stowkeeper.web.orthanc_waiting import WaitingRoom, attempt_now, give_up, tried, wait_until
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.roles import Principal, Role
from stowkeeper.web.routes import Asker, allow
from stowkeeper.web.services import WebServices

_NO_JSON = "Must provide a JSON value"
_NO_ARRAY = "Resources to be exported must be specified as a JSON array of strings"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a request wants sent, and how."""

    resources: tuple[str, ...]
    is_synchronous: bool = True
    is_permissive: bool = False
    priority: int = 0
    commit: bool = False
    seconds: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What of the modality is otherwise for this request, by the keys of a peer's definition."""


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = orthanc_router()
    index = index_of(services.database)
    room = WaitingRoom()

    @on(routes, "POST", "/modalities/{name}/store")
    @allow(Role.OPERATE, consumes=(), produces=(), seconds=SYNCHRONOUS_SECONDS_MAX + 60)
    async def store(name: str, body: Body, asker: Asker) -> Response:
        wanted = read_wanted(body)
        if not wanted.is_synchronous:
            submitted = await run_in_threadpool(_submit, services, index, name, wanted, asker)
            return answer(submitted if isinstance(submitted, dict) else _named(submitted))
        with room.place():
            submitted = await run_in_threadpool(_submit, services, index, name, wanted, asker)
            if isinstance(submitted, dict):
                return answer(submitted)
            job_id = submitted.job_id
            job = await wait_until(lambda: tried(services.database, job_id), SYNCHRONOUS_SECONDS_MAX)
        if job is None:
            return answer(_named(submitted))
        return answer(await run_in_threadpool(_told, services, job, wanted, asker.who))

    return routes


def _named(job: Job) -> Answer:
    return {"ID": job.job_id, "Path": f"/jobs/{job.job_id}"}


def _submit(
    services: WebServices, index: OrthancIndex, name: str, wanted: _Wanted, asker: Principal
) -> Job | Answer:
    """Put the job in; return the answer at once where there is nothing to send. Raises OrthancError, ProblemError."""
    defined = modality_of(services, name)
    _check_may_call(defined, services.facts.ae_title, wanted, asker)
    peer = _as_wanted(defined, wanted)
    if not wanted.resources:
        return {
            "Description": "REST API",
            "FailedInstancesCount": 0,
            "InstancesCount": 0,
            "LocalAet": peer.own_ae_title or services.facts.ae_title,
            "RemoteAet": peer.ae_title or "",
        }
    uids = uids_of_resources(services, index, wanted.resources)
    try:
        with services.database.write() as transaction:
            job = submit_store(
                transaction,
                peer,
                uids,
                created_by=asker.who,
                commit=wanted.commit,
                terms=services.ask_terms,
                priority=wanted.priority,
            )
            if wanted.is_synchronous:
                attempt_now(transaction, job)
    except CannotStoreError as error:
        if error.unknown:  # they were removed just now
            raise unknown_resource() from None
        raise OrthancError(OrthancErrorCode.BAD_REQUEST, str(error)) from None
    services.jobs_wake()
    return job


def uids_of_resources(services: WebServices, index: OrthancIndex, resources: Sequence[str]) -> list[str]:
    """Return the UIDs that some ids stand for. Raises OrthancError where there is no such resource."""
    uids: list[str] = []
    for resource_id in dict.fromkeys(resources):
        found = index.find_any(resource_id)
        if found is None:
            raise unknown_resource()
        with services.database.read() as connection:
            uids += uids_of(connection, *found)
    return uids


def _told(services: WebServices, job: Job, wanted: _Wanted, who: str) -> Answer:
    """Return the content of a job that is over. Raises OrthancError where it failed."""
    if job.state is JobState.RETRY:
        give_up(services.database, job.job_id, who)
        services.jobs_wake()
        raise OrthancError(OrthancErrorCode.NETWORK_PROTOCOL, job.error)
    if job.state is JobState.CANCELLED:
        raise OrthancError(OrthancErrorCode.CANCELED_JOB, job.error)
    described = describe_job(services, job.job_id)
    content: Answer = described["Content"] if described is not None else {}
    content["ParentResources"] = sorted(set(wanted.resources))
    some_were_stored = content.get("InstancesCount", 0) > content.get("FailedInstancesCount", 0)
    if job.state is JobState.FAILURE and not (wanted.is_permissive and some_were_stored):
        raise OrthancError(OrthancErrorCode.NETWORK_PROTOCOL, job.error)
    return content


def _check_may_call(peer: Peer, ae_title: str, wanted: _Wanted, asker: Principal) -> None:
    """See that who asks may have a modality called as it wants: otherwise than it is defined an administrator may alone.

    `ae_title` is what we are called where the modality says nothing else. Raises ProblemError.
    """
    defined = peer.to_json() | {"own_ae_title": peer.own_ae_title or ae_title}
    differs = any(defined[key] != value for key, value in wanted.changes.items())
    if differs and not asker.role.includes(Role.ADMIN):
        raise ProblemError(
            403,
            f"another host, port or AE title than the modality has needs the role {Role.ADMIN}, and the credential"
            f" {asker.name!r} has {asker.role}: leave them out, or have the modality changed",
            needed_role=Role.ADMIN.value,
        )


def _as_wanted(peer: Peer, wanted: _Wanted) -> Peer:
    """Return the modality as a request wants it called. One that is called otherwise than it is defined has no name.

    Raises OrthancError.
    """
    definition = peer.to_json() | dict(wanted.changes)
    definition.pop("profile", None)  # it is for those who call us
    try:
        changed = Peer.from_json(definition)
    except PeerDefinitionError as error:
        raise OrthancError(OrthancErrorCode.PARAMETER_OUT_OF_RANGE, str(error)) from None
    changed = with_timeout(changed, wanted.seconds)
    is_same = changed == replace(peer, is_read_only=False, profile=None)
    return peer if is_same else replace(changed, name="")


# Reading what is wanted.


def read_wanted(body: bytes) -> _Wanted:
    """Return what a body wants: an id as it is, a list of ids, or an object with `Resources`. Raises OrthancError."""
    plain = body.strip().decode("ascii", "replace")
    if is_orthanc_id(plain):
        return _Wanted(resources=(plain,))
    value = read_json(body, otherwise=_NO_JSON)
    if isinstance(value, str):
        return _Wanted(resources=_resources_of([value]))
    if isinstance(value, list):
        return _Wanted(resources=_resources_of(value))
    if not isinstance(value, dict):
        raise bad_format("Must provide a JSON object, or a JSON array of strings")
    if "Resources" not in value:
        raise bad_format('Missing field in JSON: "Resources"')
    if not isinstance(value["Resources"], list):
        raise bad_format('JSON field "Resources" must contain an array')
    if text_of(value, "MoveOriginatorAet", otherwise="") or integer_of(
        value, "MoveOriginatorID", otherwise=0
    ):
        raise OrthancError(
            OrthancErrorCode.PARAMETER_OUT_OF_RANGE,
            "MoveOriginatorAet and MoveOriginatorID: nothing is moved here, so nothing is sent on behalf of a move",
        )
    return _Wanted(
        resources=_resources_of(value["Resources"]),
        is_synchronous=_is_synchronous(value),
        is_permissive=flag_of(value, "Permissive", otherwise=False),
        priority=_priority_of(value),
        commit=flag_of(value, "StorageCommitment", otherwise=False),
        seconds=timeout_of(value),
        changes=_changes_of(value),
    )


def _resources_of(value: Sequence[object]) -> tuple[str, ...]:
    if len(value) > RESOURCES_PER_REQUEST_MAX:
        raise OrthancError(
            OrthancErrorCode.PARAMETER_OUT_OF_RANGE,
            f"{RESOURCES_PER_REQUEST_MAX} resources can be named at once: name their studies or patients",
        )
    found = []
    for entry in value:
        if not isinstance(entry, str):
            raise bad_format(_NO_ARRAY)
        resource_id = entry.strip()
        if not is_orthanc_id(resource_id):
            raise bad_format(f"This string is not a valid Orthanc identifier: {resource_id[:64]}")
        found.append(resource_id)
    return tuple(found)


def _is_synchronous(value: Mapping[str, Any]) -> bool:
    if "Synchronous" in value:
        return flag_of(value, "Synchronous", otherwise=True)
    return not flag_of(value, "Asynchronous", otherwise=False)


def _priority_of(value: Mapping[str, Any]) -> int:
    priority = integer_of(value, "Priority", otherwise=0)
    if abs(priority) > PRIORITY_MAX:
        raise OrthancError(
            OrthancErrorCode.PARAMETER_OUT_OF_RANGE, f"A priority is from -{PRIORITY_MAX} to {PRIORITY_MAX}"
        )
    return priority


def _changes_of(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the modality a request wants otherwise; what is empty or 0 changes nothing."""
    texts = {"LocalAet": "own_ae_title", "CalledAet": "ae_title", "Host": "host"}
    changes: dict[str, Any] = {
        key: text for name, key in texts.items() if (text := text_of(value, name, otherwise=""))
    }
    port = integer_of(value, "Port", otherwise=0)
    return changes | ({"port": port} if port else {})
