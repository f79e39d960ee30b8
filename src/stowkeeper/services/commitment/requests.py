"""Storage commitment on the wire, as acceptor: N-ACTION in as provider, N-EVENT-REPORT in as user (PS3.4 §J.3).

The event loop only looks who asks and puts the message into a bounded queue; threads read and write it and answer, one
of each peer in turn, so that nobody waits behind all that another one asks. Every request is answered, and Success only after the transaction is durable. The statuses of an N-ACTION (PS3.7 §10.1.4.1.10):

    0000H  it will be worked on, and reported
    0110H  it could not be written down, or nobody runs the jobs by which it would be worked on
    0112H  it names another SOP instance than the well-known one; 0117H: what it names is no UID
    0113H  (of a report) no such event type
    0115H  the action information cannot be read or lacks what it must have
    0118H  it names another SOP class; 0119H: another class together with our well-known instance
    0123H  the action type is not 1
    0124H  whoever asks is no configured peer that may, or one that could not be told the result
    0213H  more references than can be taken, or than can be kept for its peer until it is told of them; more requests
           than can wait for now; or a disk that takes nothing

An Error Comment goes with 0110H and 0124H alone, as Annex C of PS3.7 has it; the reasons of all stand in the log.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from stowkeeper.database.engine import Database, DatabaseError
from stowkeeper.dicom.commitment_information import (
    REQUEST_STORAGE_COMMITMENT,
    ActionInformation,
    CommitmentInformationError,
    EventInformation,
    decode_action_information,
)
from stowkeeper.dicom.limits import COMMITMENT_INFORMATION_BYTES_MAX
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    is_acceptable_uid,
)
from stowkeeper.dimse.message_types import NActionRequest, NEventReportRequest, Request, Response
from stowkeeper.dimse.messages import Message
from stowkeeper.net.handlers import AssociationFacts
from stowkeeper.services.commitment.acceptance import Asker, Taken, accept_web, resend, take, web_result
from stowkeeper.services.commitment.backlog import Backlog
from stowkeeper.services.commitment.commitment_values import WAY_DIMSE, Commitment
from stowkeeper.services.commitment.desk import Desk
from stowkeeper.services.commitment.limits import LARGE_REQUEST_BYTES, REFERENCES_PER_TRANSACTION_MAX
from stowkeeper.services.commitment.reports_received import answer_event_report, take_report
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.upperlayer.negotiation import AcceptedContext

__all__ = ["CommitmentService", "accept_web", "resend", "web_result"]

log = structlog.get_logger("stowkeeper.commitment")

Answer = Callable[[Response], None]

_MAY_HAVE_COMMENT = frozenset({Status.PROCESSING_FAILURE, Status.NOT_AUTHORIZED})
_WORDS = {
    Taken.NEW: "request accepted",
    Taken.REPEATED: "request accepted, a repeat",
    Taken.DUPLICATE: "request accepted, its transaction UID was used before",
}


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A whole message that waits for its turn."""

    facts: AssociationFacts
    context: AcceptedContext
    request: Request
    data_set: bytes
    answer: Answer
    peer: Peer | None = None
    began: float = field(default_factory=time.perf_counter)
    information: ActionInformation | None = None

    @property
    def sender(self) -> str:
        """Who has a turn of its own: a configured peer by its name, others by what they call themselves and where they are."""
        if self.peer is not None:
            return self.peer.name
        return f"{self.facts.calling_ae_title} at {self.facts.peer_address}"


class CommitmentService:
    """Takes storage commitment messages for the storage service. `start` it before the first one, `stop` it at the end.

    `refusal` says in words why nothing more can be written for now, "" when it can; `are_jobs_run` tells whether somebody
    works on what is put in; `wake` is told when jobs were.
    `answered` counts the N-ACTION requests by the status of their answer.
    """

    def __init__(
        self,
        database: Database,
        peers: PeerBook,
        *,
        refusal: Callable[[], str] = lambda: "",
        are_jobs_run: Callable[[], bool] = lambda: True,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.answered: Counter[int] = Counter()
        self._counting = threading.Lock()
        self._database = database
        self._peers = peers
        self._refusal = refusal
        self._are_jobs_run = are_jobs_run
        self._wake = wake
        self._actions = Desk[_Waiting]("commitment-requests", self._perform_actions)
        # Apart, since each takes as long as hundreds of usual ones: nobody else is to wait for that.
        self._large_actions = Desk[_Waiting]("commitment-large", self._perform_actions, batch_max=1)
        # Apart, since whoever looks for the sender of a report may have to ask for its name.
        self._reports = Desk[_Waiting]("commitment-reports", self._take_reports)
        self._desks = (self._actions, self._large_actions, self._reports)

    def start(self) -> None:
        """Start the threads."""
        for desk in self._desks:
            desk.start()

    def stop(self) -> None:
        """Answer what waits, and end. What comes later is answered 0213H. Twice is fine."""
        for desk in self._desks:
            desk.stop()

    # Called by the storage service, on the event loop.

    def takes(self, message: Message) -> bool:
        """Tell whether a message is one of those."""
        return isinstance(message, NActionRequest | NEventReportRequest)

    def data_set_bytes_max(self, context: AcceptedContext, message: Message) -> int:
        """Return how long the data set of a message may be in bytes; 0 for one that is refused whatever it says."""
        if not isinstance(message, NActionRequest | NEventReportRequest) or _defect_of(context, message):
            return 0
        return COMMITMENT_INFORMATION_BYTES_MAX

    def answer(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        message: Message,
        data_set: bytes,
        answer: Answer,
    ) -> Response | None:
        """Answer a message at once, or take it in hand and answer later, on another thread."""
        if isinstance(message, NEventReportRequest):
            waiting = _Waiting(
                facts=facts, context=context, request=message, data_set=data_set, answer=answer
            )
            if self._reports.take(waiting):
                return None
            return message.respond(Status.RESOURCE_LIMITATION)
        if not isinstance(message, NActionRequest):
            return None
        peer = self._peers.matching(facts.calling_ae_title, facts.peer_address)
        refused = _permission(peer) or _defect_of(context, message)
        if refused is None and not message.has_data_set:
            refused = Status.INVALID_ARGUMENT_VALUE, "there is no action information"
        if refused is None and (words := self._refusal()):
            refused = Status.RESOURCE_LIMITATION, words
        if refused is None and not self._are_jobs_run():
            refused = Status.PROCESSING_FAILURE, "nobody works on storage commitments here now"
        waiting = _Waiting(
            facts=facts, context=context, request=message, data_set=data_set, answer=answer, peer=peer
        )
        desk = self._actions if len(data_set) < LARGE_REQUEST_BYTES else self._large_actions
        if refused is None and not desk.take(waiting):
            refused = Status.RESOURCE_LIMITATION, "too many requests wait"
        return None if refused is None else self._refuse(waiting, *refused)

    # On the threads.

    def _take_reports(self, batch: list[_Waiting]) -> None:
        for waiting in batch:
            request = waiting.request
            response = request.respond(Status.PROCESSING_FAILURE)
            try:
                if isinstance(request, NEventReportRequest):
                    response = self._take_report(waiting, request)
            except Exception:
                log.exception("error", what="a commitment report could not be taken")
            waiting.answer(response)

    def _take_report(self, waiting: _Waiting, request: NEventReportRequest) -> Response:
        facts = waiting.facts

        def taken(event_type_id: int, information: EventInformation) -> tuple[int, str]:
            return take_report(
                self._database,
                facts.calling_ae_title,
                facts.peer_address,
                event_type_id,
                information,
                self._peers,
            )

        return answer_event_report(request, waiting.context.transfer_syntax, waiting.data_set, taken)

    def _perform_actions(self, batch: list[_Waiting]) -> None:
        """Read some requests and write those that can be read, several in one transaction."""
        together: list[_Waiting] = []
        references = 0
        for waiting in batch:
            if not self._read(waiting):
                continue
            together.append(waiting)
            references += len(waiting.information.references) if waiting.information else 0
            if references >= REFERENCES_PER_TRANSACTION_MAX:
                self._keep(together)
                together, references = [], 0
        if together:
            self._keep(together)

    def _read(self, waiting: _Waiting) -> bool:
        try:
            waiting.information = decode_action_information(waiting.data_set, waiting.context.transfer_syntax)
        except CommitmentInformationError as error:
            status = Status.RESOURCE_LIMITATION if error.too_many else Status.INVALID_ARGUMENT_VALUE
            waiting.answer(self._refuse(waiting, status, str(error)))
        except Exception:
            log.exception("error", what="a commitment request could not be read")
            waiting.answer(self._refuse(waiting, Status.PROCESSING_FAILURE, "it could not be read"))
        waiting.data_set = b""
        return waiting.information is not None

    def _keep(self, together: list[_Waiting]) -> None:
        """Write some requests, durably, and then answer them."""
        kept: list[tuple[_Waiting, Taken, Commitment]] = []
        too_many: list[_Waiting] = []
        status, words = Status.PROCESSING_FAILURE, "the request cannot be written down now"
        try:
            with self._database.write() as transaction:
                backlog = Backlog(transaction.connection)
                for waiting in together:
                    if waiting.information is None or waiting.peer is None:
                        continue
                    if backlog.has_room(waiting.peer.name, waiting.information):
                        asker = _asker(waiting.facts, waiting.peer)
                        kept.append((waiting, *take(transaction, asker, waiting.information)))
                    else:
                        too_many.append(waiting)
        except DatabaseError as error:
            kept, too_many = [], []
            log.error("error", what="commitment requests could not be written", reason=str(error))
            if refusal := self._refusal():
                status, words = Status.RESOURCE_LIMITATION, refusal
        except Exception:
            kept, too_many = [], []
            log.exception("error", what="commitment requests could not be written")
        if not kept and not too_many:
            for waiting in together:
                waiting.answer(self._refuse(waiting, status, words))
            return
        for waiting in too_many:
            words = "this peer is to be told of too many instances already"
            waiting.answer(self._refuse(waiting, Status.RESOURCE_LIMITATION, words))
        for waiting, taken, commitment in kept:
            # First, so that the answer is on its way before a report can be.
            waiting.answer(waiting.request.respond(Status.SUCCESS))
            self._note(waiting, Status.SUCCESS, _WORDS[taken], "", commitment)
        if kept:
            self._wake()

    # What is said of it.

    def _refuse(self, waiting: _Waiting, status: int, words: str) -> Response:
        self._note(waiting, status, "request refused", words, None)
        comment = words if status in _MAY_HAVE_COMMENT else None
        return waiting.request.respond(status, error_comment=comment)

    def _note(
        self, waiting: _Waiting, status: int, what: str, words: str, commitment: Commitment | None
    ) -> None:
        with self._counting:  # answers are given on several threads
            self.answered[status] += 1
        facts = waiting.facts
        information = waiting.information
        level = log.info if status == Status.SUCCESS else log.warning
        level(
            "commitment",
            what=what,
            status=f"{status:04X}H",
            transaction=information.transaction_uid if information is not None else "",
            peer=waiting.peer.name if waiting.peer is not None else "",
            calling=facts.calling_ae_title,
            address=facts.peer_address,
            association=facts.association_id,
            instances=len(information.references) if information is not None else 0,
            seconds=round(time.perf_counter() - waiting.began, 4),
            **({"why": words} if words else {}),
            **({"job": commitment.job_id} if commitment is not None else {}),
        )


def _asker(facts: AssociationFacts, peer: Peer) -> Asker:
    return Asker(
        way=WAY_DIMSE,
        peer=peer.name,
        peer_ae_title=facts.calling_ae_title,
        own_ae_title=facts.called_ae_title,
        peer_address=facts.peer_address,
        association_id=facts.association_id,
    )


def _permission(peer: Peer | None) -> tuple[Status, str] | None:
    """Say why somebody may not ask; None when it may."""
    if peer is None:
        return Status.NOT_AUTHORIZED, "unknown peer: the result could not be reported"
    if not peer.may_request_commitment:
        return Status.NOT_AUTHORIZED, "this peer may not ask for storage commitment"
    if (peer.host is None or peer.port is None) and peer.report_on == "new":
        return Status.NOT_AUTHORIZED, "no address is configured to report to"
    return None


def _defect_of(
    context: AcceptedContext, request: NActionRequest | NEventReportRequest
) -> tuple[Status, str] | None:
    """Say why a request is none of storage commitment, whatever its data set says; None when it is one."""
    if isinstance(request, NEventReportRequest):
        sop_class, instance = request.affected_sop_class_uid, request.affected_sop_instance_uid
    else:
        sop_class, instance = request.requested_sop_class_uid, request.requested_sop_instance_uid
    if context.abstract_syntax != STORAGE_COMMITMENT_PUSH_MODEL or (
        sop_class != STORAGE_COMMITMENT_PUSH_MODEL and instance != STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE
    ):
        return Status.NO_SUCH_SOP_CLASS, "it names another SOP class than the storage commitment push model"
    if sop_class != STORAGE_COMMITMENT_PUSH_MODEL:
        return Status.CLASS_INSTANCE_CONFLICT, "the well-known instance is not of the SOP class that it names"
    if instance != STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE:
        if not is_acceptable_uid(instance or ""):
            return Status.INVALID_SOP_INSTANCE, "it names no SOP instance"
        return Status.NO_SUCH_SOP_INSTANCE, "it names another SOP instance than the well-known one"
    if isinstance(request, NActionRequest) and request.action_type_id != REQUEST_STORAGE_COMMITMENT:
        return Status.NO_SUCH_ACTION_TYPE, "the action type is not 1"
    return None
