"""Asking a modality for storage commitment, in Orthanc's shape: what a request names, and the transaction that is made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stowkeeper.archive.catalog_values import portions
from stowkeeper.archive.versions import find_versions
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.dicom.uid import UID_LENGTH_MAX, generate_uid
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking import CannotAskError, ask
from stowkeeper.services.commitment.commitment_values import (
    WAY_DIMSE,
    Commitment,
    CommitmentRequest,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
    Outcome,
)
from stowkeeper.services.commitment.comparison import NO_UID
from stowkeeper.services.peers import Peer
from stowkeeper.services.store_submission import kept_instances
from stowkeeper.web.orthanc_errors import OrthancError, OrthancErrorCode, bad_format
from stowkeeper.web.orthanc_index import OrthancIndex
from stowkeeper.web.orthanc_limits import (
    FIRST_ATTEMPT_SECONDS,
    FIRST_ATTEMPT_SECONDS_MAX,
    RESOURCES_PER_REQUEST_MAX,
)
from stowkeeper.web.orthanc_modalities import modality_of, with_timeout
from stowkeeper.web.orthanc_routes import read_json, timeout_of
from stowkeeper.web.orthanc_store import uids_of_resources
from stowkeeper.web.orthanc_waiting import attempt_now, tried
from stowkeeper.web.problems import nobody_works
from stowkeeper.web.services import WebServices

_NO_OBJECT = "Must provide a JSON object with a list of resources"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A transaction that was put in. `job_id` is '' where nobody has to be asked; `seconds` is how long is waited."""

    uid: str
    job_id: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a request asks for: pairs of SOP class and instance, and ids; `seconds` 0 where it says nothing."""

    pairs: tuple[tuple[str, str], ...]
    resources: tuple[str, ...]
    seconds: int


def ask_modality(services: WebServices, index: OrthancIndex, name: str, body: bytes, who: str) -> Asked:
    """Put a transaction in. Raises OrthancError, and ProblemError where nobody would work on it."""
    wanted = _read_wanted(body)
    peer = with_timeout(modality_of(services, name), wanted.seconds)
    references, keys = _references(services, index, wanted)
    own = peer.own_ae_title or services.facts.ae_title
    if not any(reference.is_of_uids for reference in references):
        with services.database.write() as transaction:
            return Asked(uid=_conclude(transaction, peer, own, references))
    if not services.are_jobs_run():
        raise nobody_works()
    try:
        with services.database.write() as transaction:
            commitment = ask(
                transaction,
                peer,
                references,
                own_ae_title=services.facts.ae_title,
                created_by=who,
                version_keys=keys,
                terms=services.ask_terms,
            )
            job = jobs.find(transaction.connection, commitment.job_id)
            if job is not None:
                attempt_now(transaction, job)
    except CannotAskError as error:
        raise OrthancError(OrthancErrorCode.BAD_REQUEST, str(error)) from None
    services.jobs_wake()
    seconds = float(wanted.seconds) or min(peer.connect_seconds + peer.answer_seconds, FIRST_ATTEMPT_SECONDS)
    return Asked(
        uid=commitment.transaction_uid,
        job_id=commitment.job_id,
        seconds=min(seconds, FIRST_ATTEMPT_SECONDS_MAX),
    )


def _references(
    services: WebServices, index: OrthancIndex, wanted: _Wanted
) -> tuple[list[Reference], list[int | None]]:
    """Return what is asked for, each with the key of the version that we have of it."""
    uids = uids_of_resources(services, index, wanted.resources)
    pairs = [Reference(*pair) for pair in wanted.pairs]
    with services.database.read() as connection:
        found = kept_instances(connection, uids)
        of_resources = list(dict.fromkeys(uid for some in found.values() for uid in some))
        named = [reference.sop_instance_uid for reference in pairs]
        current = {
            version.sop_instance_uid: version
            for portion in portions(dict.fromkeys([*of_resources, *named]))
            for some in find_versions(connection, portion).values()
            for version in some
            if version.is_current
        }
    asked: dict[Reference, int | None] = {}
    for uid in of_resources:
        version = current.get(uid)
        if version is not None:
            asked[Reference(version.sop_class_uid, uid)] = version.version_key
    for reference in pairs:
        version = current.get(reference.sop_instance_uid)
        is_ours = version is not None and version.sop_class_uid == reference.sop_class_uid
        asked.setdefault(reference, version.version_key if version is not None and is_ours else None)
    return list(asked), list(asked.values())


def _conclude(
    transaction: Transaction, peer: Peer, own_ae_title: str, references: Sequence[Reference]
) -> str:
    """Write a transaction that needs no modality: of nothing, or of what no UID stands for, which fails.

    A request without instances is none (PS3.4 Table J.3-1), and neither can hold what is no UID. Nobody was asked, so
    nothing is committed and nothing was reported.
    """
    uid = generate_uid()
    commitment = rows.insert(
        transaction,
        CommitmentRequest(
            role=CommitmentRole.USER,
            way=WAY_DIMSE,
            transaction_uid=uid,
            state=CommitmentState.REQUESTED,
            peer=peer.name,
            peer_ae_title=peer.ae_title or "",
            own_ae_title=own_ae_title,
            peer_address=peer.where.rpartition("@")[2],
            requested_at=transaction.at,
        ),
        references,
    )
    rows.set_outcomes(
        transaction,
        commitment.commitment_key,
        [
            Outcome(
                position=position,
                outcome=InstanceOutcome.FAILED,
                reason=NO_UID.reason,
                words=NO_UID.words,
            )
            for position in range(len(references))
        ],
    )
    rows.change(
        transaction,
        commitment.commitment_key,
        state=CommitmentState.FAILED if references else CommitmentState.CANCELLED,
        failures=len(references),
        error="the peer was not asked: "
        + ("what was named is no UID" if references else "no instance was named"),
    )
    return uid


def answered(database: Database, asked: Asked) -> Commitment | Job | None:
    """Return the transaction when the modality took it, the job when it did not; None while neither is known."""
    with database.read() as connection:
        commitment = rows.find(connection, CommitmentRole.USER, asked.uid)
    if commitment is None:
        return None
    if commitment.state is CommitmentState.ACCEPTED or commitment.reported_at is not None:
        return commitment
    return tried(database, asked.job_id)


def _read_wanted(body: bytes) -> _Wanted:
    value = read_json(body, otherwise=_NO_OBJECT)
    if not isinstance(value, dict):
        raise bad_format(_NO_OBJECT)
    if "DicomInstances" not in value and "Resources" not in value:
        raise bad_format(
            "Empty storage commitment request, one of these fields is mandatory:"
            ' "Resources" or "DicomInstances"'
        )
    entries = value.get("DicomInstances", [])
    if not isinstance(entries, list):
        raise bad_format('The "DicomInstances" field must provide an array of DICOM instances')
    resources = value.get("Resources", [])
    if not isinstance(resources, list):
        raise bad_format('The "Resources" field must provide an array of Orthanc resources')
    if not all(isinstance(entry, str) for entry in resources):
        raise bad_format('The "Resources" field must provide an array of strings')
    if len(resources) > RESOURCES_PER_REQUEST_MAX:
        raise OrthancError(
            OrthancErrorCode.PARAMETER_OUT_OF_RANGE,
            f"{RESOURCES_PER_REQUEST_MAX} resources can be named at once: name their studies or patients",
        )
    return _Wanted(
        pairs=tuple(map(_read_pair, entries)),
        resources=tuple(resources),
        seconds=timeout_of(value),
    )


def _read_pair(entry: object) -> tuple[str, str]:
    if isinstance(entry, list):
        found: Sequence[object] = entry
        words = "An instance entry must provide an array with 2 strings: SOP Class UID and SOP Instance UID"
    elif isinstance(entry, Mapping):
        found = [entry.get("SOPClassUID"), entry.get("SOPInstanceUID")]
        words = 'An instance entry must provide an object with 2 strings: "SOPClassUID" and "SOPInstanceUID"'
    else:
        raise bad_format("JSON array or object is expected to specify one instance to be queried")
    if len(found) != 2 or not all(isinstance(value, str) for value in found):
        raise bad_format(words)
    sop_class_uid, sop_instance_uid = (str(value).strip(" \0") for value in found)
    if not sop_class_uid or not sop_instance_uid:
        raise OrthancError(
            OrthancErrorCode.PARAMETER_OUT_OF_RANGE, "The SOP class/instance UIDs cannot be empty"
        )
    if max(len(sop_class_uid), len(sop_instance_uid)) > UID_LENGTH_MAX:
        raise OrthancError(
            OrthancErrorCode.PARAMETER_OUT_OF_RANGE,
            f"A SOP class/instance UID has {UID_LENGTH_MAX} characters at most",
        )
    return sop_class_uid, sop_instance_uid
