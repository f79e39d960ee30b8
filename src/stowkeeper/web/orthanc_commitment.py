"""Storage commitment as user in Orthanc's shape: asking a modality, its answer, and removing here what it committed.

Asking is a transaction of the archive and a job. The call waits for the modality's answer to the request, as Orthanc's does: if it
is not there, or refuses, the call fails and nothing stays behind. The report is awaited in the background.

Where Orthanc trusts the report, `remove` deletes only what is safe to delete at this moment: committed by the modality that was
asked, and unchanged since. If anything else was asked for, it stays, and the answer is 409.
"""

from collections.abc import Iterator, Sequence

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from stowkeeper.archive.catalog_values import portions
from stowkeeper.archive.removal import Removal, RemovalPlan
from stowkeeper.archive.versions import find_versions
from stowkeeper.database.engine import Database
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import UID_LENGTH_MAX
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import (
    Commitment,
    CommitmentInstance,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
)
from stowkeeper.services.commitment.limits import INSTANCES_PER_PAGE
from stowkeeper.services.commitment.safe_to_delete import Deletability, safe_to_delete
from stowkeeper.web.orthanc_answers import Answer
from stowkeeper.web.orthanc_commitment_asking import answered, ask_modality
from stowkeeper.web.orthanc_errors import OrthancError, OrthancErrorCode, inexistent_item
from stowkeeper.web.orthanc_index import index_of
from stowkeeper.web.orthanc_limits import (
    COMMITMENT_BODY_BYTES_MAX,
    FIRST_ATTEMPT_SECONDS_MAX,
    HELD_NAMED_MAX,
    REMOVAL_SECONDS,
)
from stowkeeper.web.orthanc_routes import Body, answer, on, orthanc_router
from stowkeeper.web.orthanc_waiting import WaitingRoom, give_up, turn_of, wait_until
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow
from stowkeeper.web.services import WebServices

_DESCRIPTIONS: dict[int, str] = {
    Status.PROCESSING_FAILURE: "A general failure in processing the operation was encountered",
    Status.NO_SUCH_SOP_INSTANCE: (
        "One or more of the elements in the Referenced SOP Instance Sequence was not available"
    ),
    Status.CLASS_INSTANCE_CONFLICT: (
        "The SOP Class of an element in the Referenced SOP Instance Sequence did not correspond to the SOP class"
        " registered for this SOP Instance at the SCP"
    ),
    Status.SOP_CLASS_NOT_SUPPORTED: (
        "Storage Commitment has been requested for a SOP Instance with a SOP Class that is not supported by the SCP"
    ),
    Status.DUPLICATE_TRANSACTION_UID: "The Transaction UID of the Storage Commitment Request is already in use",
    Status.RESOURCE_LIMITATION: (
        "The SCP does not currently have enough resources to store the requested SOP Instance(s)"
    ),
}
"""Orthanc's words for the reasons of PS3.3 §C.14.1.1, which are those of the standard."""

_SUCCESS = "Success"
_WORDS = {
    CommitmentState.COMMITTED: _SUCCESS,
    CommitmentState.REQUESTED: "Pending",
    CommitmentState.ACCEPTED: "Pending",
}
"""Orthanc's words for the states of a transaction; every other state is a Failure."""


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = orthanc_router()
    index = index_of(services.database)
    room = WaitingRoom()

    @on(routes, "POST", "/modalities/{name}/storage-commitment")
    @allow(
        Role.OPERATE,
        body_bytes_max=COMMITMENT_BODY_BYTES_MAX,
        consumes=(),
        produces=(),
        seconds=FIRST_ATTEMPT_SECONDS_MAX + 60,
    )
    async def ask_for_commitment(name: str, body: Body, asker: Asker) -> Response:
        with room.place():
            async with turn_of(services.database, body):
                asked = await run_in_threadpool(ask_modality, services, index, name, body, asker.who)
            path = {"ID": asked.uid, "Path": f"/storage-commitment/{asked.uid}"}
            if not asked.job_id:
                return answer(path)
            found = await wait_until(lambda: answered(services.database, asked), asked.seconds)
        if isinstance(found, Job):
            if found.state is JobState.RETRY:
                await run_in_threadpool(give_up, services.database, found.job_id, asker.who)
                services.jobs_wake()
            raise OrthancError(OrthancErrorCode.NETWORK_PROTOCOL, found.error)
        return answer(path)

    @on(routes, "GET", "/storage-commitment/{transaction_uid}")
    @allow(Role.READ, consumes=(), produces=())
    def get_report(transaction_uid: str) -> Response:
        with services.database.read() as connection:
            commitment = rows.find(connection, CommitmentRole.USER, transaction_uid)
        if commitment is None:
            raise _unknown(transaction_uid)
        return answer(_report(services.database, commitment))

    @on(routes, "POST", "/storage-commitment/{transaction_uid}/remove")
    @allow(Role.OPERATE, consumes=(), produces=(), seconds=REMOVAL_SECONDS)
    def remove(transaction_uid: str, asker: Asker) -> Response:
        with services.database.read() as connection:
            commitment = rows.find(connection, CommitmentRole.USER, transaction_uid)
        if commitment is None:
            raise _unknown(transaction_uid)
        if _status_of(commitment) != _SUCCESS:
            raise OrthancError(
                OrthancErrorCode.BAD_SEQUENCE_OF_CALLS,
                "Cannot remove DICOM instances after failure in storage commitment transaction:"
                f" {transaction_uid}",
            )
        _remove(services, commitment, asker.who)
        return answer({})

    return routes


def _unknown(transaction_uid: str) -> OrthancError:
    return inexistent_item(f"No storage commitment transaction with UID: {transaction_uid[:UID_LENGTH_MAX]}")


# The report.


def _status_of(commitment: Commitment) -> str:
    """Return Orthanc's word for a transaction. One of nothing is a success of nothing, though nobody was asked."""
    return _WORDS.get(commitment.state, "Failure") if commitment.instances else _SUCCESS


def _report(database: Database, commitment: Commitment) -> Answer:
    status = _status_of(commitment)
    found: Answer = {"RemoteAET": commitment.peer_ae_title, "Status": status}
    if status == "Pending":
        return found
    found |= {"Success": [], "Failures": []}
    for instance in _instances_of(database, commitment):
        if instance.outcome is InstanceOutcome.UNASKED:
            continue
        item: Answer = {
            "SOPClassUID": instance.sop_class_uid,
            "SOPInstanceUID": instance.sop_instance_uid,
        }
        if instance.outcome is InstanceOutcome.COMMITTED:
            found["Success"].append(item)
        else:
            # What no report named has no reason of the modality's.
            reason = Status.PROCESSING_FAILURE if instance.reason is None else instance.reason
            item |= {
                "Description": _DESCRIPTIONS.get(reason, "Unknown failure reason"),
                "FailureReason": int(reason),
            }
            found["Failures"].append(item)
    return found


def _instances_of(database: Database, commitment: Commitment) -> Iterator[CommitmentInstance]:
    after = -1
    while True:
        with database.read() as connection:
            page = rows.instances_of(connection, commitment.commitment_key, after)
        yield from page
        if len(page) < INSTANCES_PER_PAGE:
            return
        after = page[-1].position


# Removing what a modality has committed.


def _remove(services: WebServices, commitment: Commitment, who: str) -> None:
    """Remove what is safe to remove. Raises OrthancError where anything that is kept is not."""
    database = services.database
    uids = [instance.sop_instance_uid for instance in _instances_of(database, commitment)]
    peer = commitment.peer or commitment.peer_ae_title
    plan = RemovalPlan(uid=commitment.transaction_uid)
    kept: list[Deletability] = []
    for portion in portions(dict.fromkeys(uids)):
        with database.read() as connection:
            found = find_versions(connection, portion)
        for judged in safe_to_delete(database, [uid for uid in portion if uid in found], peer):
            if judged.is_safe:
                plan.kept += [version.version_key for version in found[judged.sop_instance_uid]]
            else:
                kept.append(judged)
    archive = services.archive
    removal = Removal(archive.files, archive.root, archive.database)
    result = removal.carry_out(plan, f"committed by {peer}, removed by {who}, by HTTP")
    if kept or result.held:
        raise _not_all_removed(kept, [held.sop_instance_uid for held in result.held])
    if result.left:
        raise OrthancError(
            OrthancErrorCode.INTERNAL_ERROR,
            "1 file could not be removed now; the server removes it when it can"
            if len(result.left) == 1
            else f"{len(result.left)} files could not be removed now; the server removes them when it can",
        )


def _not_all_removed(kept: Sequence[Deletability], held: Sequence[str]) -> OrthancError:
    reasons = [f"{judged.sop_instance_uid}: {judged.words}" for judged in kept]
    reasons += [f"{uid}: it is held here" for uid in held]
    named = "; ".join(reasons[:HELD_NAMED_MAX]) + ("; …" if len(reasons) > HELD_NAMED_MAX else "")
    return OrthancError(
        OrthancErrorCode.BAD_SEQUENCE_OF_CALLS,
        f"{'1 instance is' if len(reasons) == 1 else f'{len(reasons)} instances are'} not safe to remove and"
        f" {'was' if len(reasons) == 1 else 'were'} kept, the others were removed: {named}",
        status=409,
    )
