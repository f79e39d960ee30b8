"""Reports of peers that we had asked for storage commitment: N-EVENT-REPORT in (PS3.4 §J.3.3).

A report is taken once, whenever it comes: also after we stopped waiting for it, or after the peer had refused a request
of which it then reports all the same. What was taken does not change any more; a later report that says the same is
answered Success without a trace, one that says otherwise is noted beside the transaction, which then proves nothing.

The statuses of the answers (PS3.7 §10.1.1.1.8):

    0000H  taken, or taken before
    0110H  it could not be written, or the name of the peer could not be looked up; the peer may try again
    0112H  there is no such transaction. The well-known instance is there, so by the letter this is about the
           transaction, for which PS3.7 has no code of its own; it is what the peer has to hear: nobody here waits for it
    0113H  the event type is neither 1 nor 2
    0115H  the event information cannot be read or lacks what it must have
    0117H, 0118H  the request is not about the storage commitment push model and its well-known instance
    0124H  the transaction is there, and another peer was asked. PS3.7 lists the code for other operations only; it says
           best what is wrong, and every code that is not Success is a failure to the peer (PS3.7 §C.5)
"""

import ipaddress
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from stowkeeper.database.engine import Database, DatabaseError, Transaction
from stowkeeper.dicom.commitment_information import (
    CommitmentInformationError,
    EventInformation,
    Reference,
    decode_event_information,
)
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL, STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE
from stowkeeper.dimse.message_types import NEventReportRequest, Response
from stowkeeper.jobs.hurrying import bring_forward
from stowkeeper.net.addresses import plain_address
from stowkeeper.net.name_lookup import NoLookupError, look_up_within
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking import asked_at
from stowkeeper.services.commitment.asking_limits import (
    REPORTS_NOTED_MAX,
    SENDER_LOOKUP_SECONDS,
    UNASKED_KEPT_MAX,
)
from stowkeeper.services.commitment.commitment_values import (
    WAY_RECEIVED,
    Commitment,
    CommitmentInstance,
    CommitmentRole,
    Outcome,
)
from stowkeeper.services.commitment.comparison import EVENT_TYPES, Comparison, compare
from stowkeeper.services.peer_definition import parsed_address
from stowkeeper.services.peers import Peer, PeerBook

log = structlog.get_logger("stowkeeper.commitment")

CONTRADICTED = "a later report of the peer says otherwise"
"""Stands as error beside a transaction whose outcome the peer took back; `safe_to_delete` looks for it."""

_MAY_HAVE_COMMENT = frozenset({Status.PROCESSING_FAILURE, Status.NOT_AUTHORIZED})
"""The statuses that an Error Comment goes with (PS3.7 Annex C); the reasons of all stand in the log."""

Taker = Callable[[int, EventInformation], tuple[int, str]]
"""Takes a report that could be read, with its event type; returns the status and words for the peer."""


def take_report(
    database: Database,
    calling_ae_title: str,
    address: str,
    event_type_id: int | None,
    information: EventInformation,
    peers: PeerBook,
) -> tuple[int, str]:
    """Take a report that came in an association that the peer opened; return the status and words for the answer.

    Only the peer that was asked may report, known by its calling AE title and its `addresses`; one that has none, by the
    host that it is called at, and one without a definition by the AE title and host that were asked. Blocks for the
    database, and where such a host is a name for the resolver, SENDER_LOOKUP_SECONDS at most.
    """

    def may_report(commitment: Commitment) -> bool:
        peer = peers.find(commitment.peer) if commitment.peer else None
        if peer is not None:
            return (
                peer.may_report_commitment
                and _is_most_likely(peer, calling_ae_title, address, peers)
                and (bool(peer.addresses) or peer.host is None or is_at(address, peer.host))
            )
        return calling_ae_title == commitment.peer_ae_title and is_at(address, asked_at(commitment)[1])

    return _take(database, event_type_id, information, may_report, by=calling_ae_title)


def take_report_on_request(
    database: Database, peer: Peer, event_type_id: int | None, information: EventInformation
) -> tuple[int, str]:
    """Take a report that came in an association that we opened to a peer; as `take_report`."""

    def may_report(commitment: Commitment) -> bool:
        if peer.name:
            return commitment.peer == peer.name
        return not commitment.peer and asked_at(commitment) == (peer.ae_title, peer.host, peer.port)

    return _take(database, event_type_id, information, may_report, by=peer.ae_title or "")


def answer_event_report(
    request: NEventReportRequest, transfer_syntax_uid: str, data_set: bytes, take: Taker
) -> Response:
    """Answer a whole N-EVENT-REPORT request: look whether it is a report at all, read it, and have it taken.

    Blocks as `take` does.
    """
    defect = _defect_of(request)
    if defect is not None:
        return request.respond(defect)
    try:
        information = decode_event_information(data_set, transfer_syntax_uid)
    except CommitmentInformationError as error:
        refusal = Status.RESOURCE_LIMITATION if error.too_many else Status.INVALID_ARGUMENT_VALUE
        log.warning("commitment", what="report refused", status=f"{refusal:04X}H", reason=str(error))
        return request.respond(refusal)
    status, words = take(request.event_type_id or 0, information)
    return request.respond(status, error_comment=words if status in _MAY_HAVE_COMMENT else None)


def _defect_of(request: NEventReportRequest) -> Status | None:
    if request.affected_sop_class_uid != STORAGE_COMMITMENT_PUSH_MODEL:
        return Status.NO_SUCH_SOP_CLASS
    if request.affected_sop_instance_uid != STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE:
        return Status.INVALID_SOP_INSTANCE
    if request.event_type_id not in EVENT_TYPES:
        return Status.NO_SUCH_EVENT_TYPE
    if not request.has_data_set:
        return Status.INVALID_ARGUMENT_VALUE
    return None


# Who reports.


def _is_most_likely(peer: Peer, calling_ae_title: str, address: str, peers: PeerBook) -> bool:
    """Tell whether a report comes from a peer: no other one of this AE title has a better claim to the address."""
    standing = peer.standing(calling_ae_title, parsed_address(address))
    best = peers.matching(calling_ae_title, address)
    other = None if best is None else best.standing(calling_ae_title, parsed_address(address))
    return standing is not None and (other is None or standing <= other)


def is_at(address: str, host: str) -> bool:
    """Tell whether an address is one of a host's, given as a name or as an address. Asks the resolver for a name.

    Raises NoLookupError when that cannot be told now.
    """
    try:
        return ipaddress.ip_address(plain_address(address)) == ipaddress.ip_address(plain_address(host))
    except ValueError:
        pass
    try:
        found = look_up_within(host, SENDER_LOOKUP_SECONDS)
    except NoLookupError:
        raise
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise NoLookupError("no resolver answers for its name now") from error
        return False
    except (OSError, UnicodeError):
        return False
    return plain_address(address) in {plain_address(str(entry[4][0])) for entry in found}


# Taking.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A transaction of ours with all that was asked for in it."""

    commitment: Commitment
    instances: list[CommitmentInstance]

    @property
    def references(self) -> list[Reference]:
        return [instance.reference for instance in self.instances]


def _take(
    database: Database,
    event_type_id: int | None,
    information: EventInformation,
    may_report: Callable[[Commitment], bool],
    *,
    by: str,
) -> tuple[int, str]:
    began = time.monotonic()
    uid = information.transaction_uid
    if event_type_id not in EVENT_TYPES or event_type_id is None:
        return _refuse(Status.NO_SUCH_EVENT_TYPE, "the event types are 1 and 2", uid, by)
    try:
        asked = _load(database, uid)
        if asked is None:
            return _refuse(Status.NO_SUCH_SOP_INSTANCE, "no such transaction was asked for here", uid, by)
        if not may_report(asked.commitment):
            return _refuse(Status.NOT_AUTHORIZED, "another peer was asked in this transaction", uid, by)
        comparison = compare(asked.references, event_type_id, information)
        is_new = asked.commitment.reported_at is None and _write(database, asked, comparison, began)
        if not is_new:
            _take_again(database, uid, comparison)
    except NoLookupError as error:
        words = f"the host of the peer that was asked cannot be looked up now, send it again later: {error}"
        return _refuse(Status.PROCESSING_FAILURE, words, uid, by)
    except DatabaseError as error:
        log.error(
            "error", what="a commitment report could not be written", transaction=uid, reason=str(error)
        )
        return Status.PROCESSING_FAILURE, "the report cannot be written now, send it again later"
    log.info(
        "commitment",
        what="report received" if is_new else "report received again",
        transaction=uid,
        peer=asked.commitment.peer or by,
        state=str(comparison.state),
        instances=len(comparison.verdicts),
        failures=comparison.failures,
        unasked=len(comparison.unasked),
        retrieve_ae_title=information.retrieve_ae_title,
        remarks=comparison.remarks,
    )
    return Status.SUCCESS, ""


def _refuse(status: Status, words: str, transaction_uid: str, by: str) -> tuple[int, str]:
    log.warning(
        "commitment",
        what="report refused",
        status=f"{status:04X}H",
        transaction=transaction_uid,
        calling_ae_title=by,
        reason=words,
    )
    return status, words


def _load(database: Database, transaction_uid: str) -> _Asked | None:
    with database.read() as connection:
        commitment = rows.find(connection, CommitmentRole.USER, transaction_uid)
        if commitment is None:
            return None
        # What a report named unasked stands behind what was asked for.
        instances = rows.instances_of(
            connection, commitment.commitment_key, limit=max(1, commitment.instances)
        )
        return _Asked(commitment=commitment, instances=instances)


def _write(database: Database, asked: _Asked, comparison: Comparison, began: float) -> bool:
    """Write what a report says; return whether it was the first one. What others wrote meanwhile stays."""
    key = asked.commitment.commitment_key
    outcomes = [
        Outcome(
            position=instance.position,
            outcome=verdict.outcome,
            reason=verdict.reason,
            words=verdict.words,
            version_key=instance.version_key,
        )
        for instance, verdict in zip(asked.instances, comparison.verdicts, strict=True)
    ]
    with database.write() as transaction:
        commitment = rows.find_by_key(transaction.connection, key)
        if commitment is None or commitment.reported_at is not None:
            return False
        rows.set_outcomes(transaction, key, outcomes)
        rows.add_unasked(transaction, key, comparison.unasked[:UNASKED_KEPT_MAX])
        rows.change(
            transaction,
            key,
            state=comparison.state,
            failures=comparison.failures,
            checked_at=transaction.at,
            reported_at=transaction.at,
            error="",
        )
        _note(transaction, key, comparison.remarks, time.monotonic() - began)
        # The job that waits for the report sees it now and not when it would have looked.
        bring_forward(transaction, commitment.job_id)
    return True


def _take_again(database: Database, transaction_uid: str, comparison: Comparison) -> None:
    """Compare a further report with the one that was taken; note it where it says otherwise, else write nothing."""
    asked = _load(database, transaction_uid)
    if asked is None:
        return
    differing = [
        instance.outcome
        for instance, verdict in zip(asked.instances, comparison.verdicts, strict=True)
        if instance.outcome is not verdict.outcome
    ]
    commitment = asked.commitment
    if not differing or commitment.report_attempts >= REPORTS_NOTED_MAX:
        return
    words = f"{CONTRADICTED}, for {len(differing)} of {len(asked.instances)} instances"
    with database.write() as transaction:
        _note(transaction, commitment.commitment_key, words, 0.0)
        if not commitment.error:
            rows.change(transaction, commitment.commitment_key, error=words)


def _note(transaction: Transaction, key: int, words: str, seconds: float) -> None:
    rows.note_report(
        transaction,
        key,
        at=transaction.at,
        way=WAY_RECEIVED,
        status=Status.SUCCESS,
        words=words,
        seconds=seconds,
    )
