"""The Storage and Verification services as provider: who may associate, and C-STORE into the archive's intake.

What the peers may do is one frozen value, `Rules`, replaced as a whole when the settings are read anew.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

import structlog

from stowkeeper.archive.archive import Archive
from stowkeeper.archive.arrival import Arrival, DuplicatesOf, keep_from_everyone
from stowkeeper.archive.intake import Incoming
from stowkeeper.archive.ledger import RequestRecord
from stowkeeper.archive.outcome import Outcome, Refusal, SenderAnswer
from stowkeeper.archive.receipt import timestamp
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL, UID_LENGTH_MAX, VERIFICATION
from stowkeeper.dimse.message_types import CEchoRequest, CStoreRequest, Response
from stowkeeper.dimse.messages import Message
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer, answer_verification
from stowkeeper.net.quiet_ends import QuietEnds
from stowkeeper.services.association_lines import bounded_uid, closed_line, closing_values, opened_line
from stowkeeper.services.limits import LEDGER_WORDS_LETTERS_MAX
from stowkeeper.upperlayer.negotiation import (
    AcceptancePolicy,
    Accepted,
    AcceptedContext,
    Rejected,
    accepted_contexts,
    is_storage,
    negotiate,
)
from stowkeeper.upperlayer.pdu import REJECTED_CALLING_AE_TITLE, REJECTED_LOCAL_LIMIT_EXCEEDED, AssociateRQ
from stowkeeper.upperlayer.reasons import PresentationResult

log = structlog.get_logger("stowkeeper.storage")

Network = IPv4Network | IPv6Network

_SUCCESS = StoreAnswer(status=Status.SUCCESS)

_NEVER_STORED = frozenset({VERIFICATION, STORAGE_COMMITMENT_PUSH_MODEL})
"""What is accepted for other services than storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What somebody may ask for in an association."""

    may_store: bool = True
    may_echo: bool = True


EVERYTHING = Permissions()


def permit_everything(_calling_ae_title: str, _address: str) -> Permissions:
    """Permit everything to everybody."""
    return EVERYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the server agrees to, and with whom.

    `acceptance` decides on presentation contexts; `acceptance_of`, where given, has the policy for a calling AE title
    and an address in its place. `networks` empty lets every address pass. `knows_peer` tells whether a calling AE title and an address are
    those of a configured peer; None asks for none. `duplicates_of` gives the policy for a second version of an
    instance from such a peer, and `permissions_of` what it may ask for, at each request anew.
    """

    ae_title: str
    acceptance: AcceptancePolicy
    networks: tuple[Network, ...] = ()
    knows_peer: Callable[[str, str], bool] | None = None
    duplicates_of: DuplicatesOf = keep_from_everyone
    acceptance_of: Callable[[str, str], AcceptancePolicy] | None = None
    permissions_of: Callable[[str, str], Permissions] = permit_everything

    def policy_for(self, calling_ae_title: str, address: str) -> AcceptancePolicy:
        """Return what is agreed to in an association with this calling AE title and IP address."""
        return (
            self.acceptance if self.acceptance_of is None else self.acceptance_of(calling_ae_title, address)
        )


class OtherRequests(Protocol):
    """A service for messages that are neither C-STORE nor C-ECHO. None of its methods waits."""

    def takes(self, message: Message) -> bool:
        """Tell whether a message is one of its own."""
        ...

    def data_set_bytes_max(self, context: AcceptedContext, message: Message) -> int:
        """Say how long the data set of one of its messages may be, as `Handlers.data_set_bytes_max`."""
        ...

    def answer(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        message: Message,
        data_set: bytes,
        answer: Callable[[Response], None],
    ) -> Response | None:
        """Answer one of its messages, now or later, as `Handlers.other_message`."""
        ...


class StorageService:
    """Answers the network room from the archive. All its methods run on the event loop and wait for nothing.

    `requests` takes what it is for besides; without it every request but C-STORE and C-ECHO is answered that it is not performed.
    """

    def __init__(self, archive: Archive, rules: Rules, requests: OtherRequests | None = None) -> None:
        self._archive = archive
        self._requests = requests
        self.rules = rules
        # By association, so that rules that are read anew hold from the next one on.
        self._policies: dict[str, AcceptancePolicy] = {}
        self._probes = QuietEnds()

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Apply the rules, and keep storage out while the disk has no room.

        What the rules reject they reject, room or not. When storage is all that they would accept, the association is
        rejected for now (2,3,2: local limit exceeded); else the storage contexts alone are refused.
        """
        rules = self.rules
        if not _is_in(facts.peer_address, rules.networks):
            return Rejected(rejection=REJECTED_CALLING_AE_TITLE, words="its address is not allowed")
        if rules.knows_peer is not None and not rules.knows_peer(
            request.calling_ae_title, facts.peer_address
        ):
            return Rejected(
                rejection=REJECTED_CALLING_AE_TITLE, words="it is not one of the configured peers"
            )
        policy = rules.policy_for(request.calling_ae_title, facts.peer_address)
        decision = self._negotiate(request, policy)
        if isinstance(decision, Accepted):
            self._policies[facts.association_id] = policy
        return decision

    def _negotiate(self, request: AssociateRQ, policy: AcceptancePolicy) -> Accepted | Rejected:
        decision = negotiate(request, policy)
        words = self._archive.admission.association_refusal()
        if not words or isinstance(decision, Rejected):
            return decision
        accepted = accepted_contexts(request, decision.response).values()
        if not accepted:
            return decision
        if all(is_storage(context.abstract_syntax) for context in accepted):
            return Rejected(rejection=REJECTED_LOCAL_LIMIT_EXCEEDED, words=words)
        return negotiate(request, replace(policy, refusal=_refuse_storage))

    def store(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        request: CStoreRequest,
        answer: Callable[[StoreAnswer], None],
    ) -> "StoreInProgress":
        """Begin to take an instance in."""
        return StoreInProgress(self, self._archive, facts, context, request, answer)

    def store_refused(
        self, facts: AssociationFacts, context: AcceptedContext, request: CStoreRequest, answer: StoreAnswer
    ) -> None:
        """Write the ledger line of a request that never came as far as intake."""
        record = RequestRecord(
            association_id=facts.association_id,
            message_id=request.message_id,
            sop_class_uid=bounded_uid(request.affected_sop_class_uid),
            sop_instance_uid=bounded_uid(request.affected_sop_instance_uid),
            transfer_syntax_uid=context.transfer_syntax,
            requested_at=timestamp(time.time_ns()),
            status=answer.status,
            error_comment=answer.error_comment,
            outcome="refused",
        )
        self._archive.finisher.record(lambda: record)
        facts.stores.refused += 1
        _log_refusal(record.association_id, record.sop_instance_uid, answer, length=0, level=log.warning)

    def data_set_bytes_max(self, context: AcceptedContext, message: Message) -> int:
        """Leave it to the service that takes the message; nobody reads what comes with others."""
        requests = self._requests
        if requests is None or not requests.takes(message):
            return 0
        return requests.data_set_bytes_max(context, message)

    def other_message(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        message: Message,
        data_set: bytes,
        answer: Callable[[Response], None],
    ) -> Response | None:
        """Answer C-ECHO, leave to the other service what it takes, and answer the rest that it is not performed."""
        if isinstance(message, CEchoRequest) and not self._permissions(facts).may_echo:
            return message.respond(
                Status.SOP_CLASS_NOT_SUPPORTED, error_comment="this peer may not ask for an echo"
            )
        if self._requests is not None and self._requests.takes(message):
            return self._requests.answer(facts, context, message, data_set, answer)
        return answer_verification(message)

    def _permissions(self, facts: AssociationFacts) -> Permissions:
        return self.rules.permissions_of(facts.calling_ae_title, facts.peer_address)

    def may_store(self, facts: AssociationFacts) -> bool:
        """Tell whether who called may store, by the rules of now."""
        return self._permissions(facts).may_store

    def accepts_class(self, facts: AssociationFacts, sop_class_uid: str) -> bool:
        """Tell whether instances of a class are taken on an association, whatever context they come in."""
        policy = self._policies.get(facts.association_id)
        if policy is None:
            policy = self.rules.policy_for(facts.calling_ae_title, facts.peer_address)
        return sop_class_uid not in _NEVER_STORED and policy.accepts_abstract_syntax(sop_class_uid)

    def association_opened(self, facts: AssociationFacts) -> None:
        """Log how the negotiation ended, and open the association's line in the ledger."""
        if facts.rejection is None:
            line = opened_line(facts, self._archive.receiver)
            self._archive.finisher.record(lambda: line)
        names = {
            "association": facts.association_id,
            "calling": facts.calling_ae_title,
            "called": facts.called_ae_title,
            "address": facts.peer_address,
        }
        if facts.proxy_address:
            names["proxy"] = facts.proxy_address
        if facts.tls:
            names |= {"tls": facts.tls, "certificate": facts.tls_peer}
        if facts.rejection is not None:
            log.warning("association", what="rejected", why=facts.words, rejection=facts.rejection, **names)
        else:
            log.info(
                "association",
                what="accepted",
                contexts=facts.contexts_accepted,
                refused=facts.contexts_refused,
                **names,
            )

    def association_ended(self, facts: AssociationFacts) -> None:
        """Do nothing yet: lines are written when the connection is closed and all of its numbers are known."""

    def association_closed(self, facts: AssociationFacts) -> None:
        """Write the association to the ledger, and to the log in one line who it was, what came of it, and how it ended.

        A connection in which none was asked for, such as the look of a load balancer, is in the log alone; those in which
        nothing was said are there once in a time for each address, with their number.
        """
        self._policies.pop(facts.association_id, None)
        asked = facts.request is not None
        if asked:
            line = closed_line(facts, self._archive.receiver)
            self._archive.finisher.record(lambda: line)
        is_usual = facts.end in {"released", "rejected"} or (facts.end == "lost" and not asked)
        level = log.info if is_usual else log.warning
        more: dict[str, object] = {"proxy": facts.proxy_address} if facts.proxy_address else {}
        if facts.end == "lost" and not asked and not facts.bytes_received:
            more["count"] = self._probes.count(facts.peer_address)
            if not more["count"]:
                return
        level(
            "association",
            what=facts.end,
            association=facts.association_id,
            **closing_values(facts),
            **more,
        )


class StoreInProgress:
    """One C-STORE between its command and its answer, with the stopwatch for its ledger line.

    The line may wait long for the catalog, and this with it: it holds nothing that a peer can make large.
    """

    __slots__ = (
        "_answer",
        "_association_id",
        "_began",
        "_committed",
        "_ended",
        "_finisher",
        "_incoming",
        "_is_over",
        "_length",
        "_lock",
        "_message_id",
        "_outcome",
        "_requested_at",
        "_sender_answer",
        "_sop_class_uid",
        "_sop_instance_uid",
        "_status",
        "_tally",
        "_transfer_syntax_uid",
        "_words",
    )

    def __init__(
        self,
        service: StorageService,
        archive: Archive,
        facts: AssociationFacts,
        context: AcceptedContext,
        request: CStoreRequest,
        answer: Callable[[StoreAnswer], None],
    ) -> None:
        self._finisher = archive.finisher
        self._association_id = facts.association_id
        self._tally = facts.stores
        self._message_id = request.message_id
        self._sop_class_uid = bounded_uid(request.affected_sop_class_uid)
        self._sop_instance_uid = bounded_uid(request.affected_sop_instance_uid)
        self._transfer_syntax_uid = context.transfer_syntax
        self._answer: Callable[[StoreAnswer], None] | None = answer
        self._requested_at = time.time_ns()
        self._began = time.perf_counter()
        self._committed = 0.0
        self._length = 0
        self._ended = 0.0
        self._status: int | None = None
        self._words = ""
        # The outcome comes on a worker thread, the end of the association on the event loop.
        self._lock = threading.Lock()
        self._outcome: Outcome | None = None
        self._is_over = False
        self._sender_answer = SenderAnswer()
        self._incoming: Incoming | None = archive.intake.begin(
            Arrival(
                sop_class_uid=_recognizable(request.affected_sop_class_uid),
                sop_instance_uid=_recognizable(request.affected_sop_instance_uid),
                transfer_syntax_uid=context.transfer_syntax,
                received_by="C-STORE",
                calling_ae_title=facts.calling_ae_title,
                called_ae_title=facts.called_ae_title,
                writing_ae_title=service.rules.ae_title,
                peer_address=facts.peer_address,
                association_id=facts.association_id,
                duplicates=service.rules.duplicates_of(facts.calling_ae_title, facts.peer_address),
            ),
            self._done,
            class_accepted=service.accepts_class(facts, request.affected_sop_class_uid or ""),
            sender_authorized=service.may_store(facts),
            answer=self._sender_answer,
            may_wait=facts.may_wait,
        )

    def write(self, piece: memoryview, release: Callable[[], None] | None) -> None:
        """Pass the next bytes to intake."""
        if self._incoming is not None:
            self._length += len(piece)
            self._incoming.write(piece, release)

    def pdv_ended(self) -> None:
        """Do nothing: how a data set was cut means nothing."""

    def flush(self) -> None:
        """Hand over what waits."""
        if self._incoming is not None:
            self._incoming.flush()

    def commit(self) -> None:
        """Say that the data set is complete."""
        incoming, self._incoming = self._incoming, None
        self._committed = time.perf_counter()
        if incoming is not None:
            incoming.commit()

    def abort(self, words: str) -> None:
        """Give up an unfinished instance; one that is complete goes its way, and its line says that nobody was told."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            self._words = words
            is_decided = self._outcome is not None
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            self._answer = None
            incoming.abort()
        elif not is_decided:
            return  # the line is written when the outcome is known
        self._write_line()

    def _done(self, outcome: Outcome) -> None:
        """Run on a worker thread, after the outcome is certain."""
        with self._lock:
            self._outcome = outcome
            answer, self._answer = self._answer, None
            is_over = self._is_over
        if is_over or answer is None:
            self._write_line()
            return
        if outcome.refusal is None:
            answer(_SUCCESS)
            return
        answer(
            StoreAnswer(
                status=outcome.status, error_comment=outcome.comment, offending_elements=outcome.offending
            )
        )

    def answered(self, answer: StoreAnswer) -> None:
        """Write the ledger line of an answered request, and a log line when it was refused."""
        with self._lock:
            self._is_over = True
        self._status = answer.status
        self._words = answer.error_comment
        self._sender_answer.given = True
        self._write_line()
        outcome = self._outcome
        if outcome is not None and outcome.receipt is not None:
            self._tally.kept += 1
        else:
            self._tally.refused += 1
        if outcome is None or outcome.refusal is None:
            return
        level = log.error if outcome.refusal is Refusal.OUT_OF_RESOURCES else log.warning
        _log_refusal(self._association_id, self._sop_instance_uid, answer, length=self._length, level=level)

    def _write_line(self) -> None:
        self._ended = time.perf_counter()
        self._finisher.record(self._record)

    def _record(self) -> RequestRecord:
        """Make the ledger line, on the finisher's thread."""
        outcome = self._outcome
        receipt = outcome.receipt if outcome else None
        committed = self._committed or self._ended
        became = "lost"
        if outcome is not None:
            became = "refused" if receipt is None else "kept"
        words = self._words
        if self._status is None and outcome is not None and outcome.comment:
            words = f"{outcome.comment} (not answered: {words})"
        return RequestRecord(
            association_id=self._association_id,
            message_id=self._message_id,
            sop_class_uid=self._sop_class_uid,
            sop_instance_uid=self._sop_instance_uid,
            transfer_syntax_uid=self._transfer_syntax_uid,
            requested_at=timestamp(self._requested_at),
            status=self._status,
            error_comment=words[:LEDGER_WORDS_LETTERS_MAX],
            data_set_length=self._length,
            digest=outcome.digest if outcome else "",
            outcome=became,
            receipt_id=receipt.receipt_id if receipt else "",
            seconds_network=committed - self._began,
            seconds_disk=outcome.disk_seconds if outcome else 0.0,
            seconds_total=self._ended - self._began,
            was_listed_first=self._status == Status.SUCCESS and self._sender_answer.was_listed_first,
        )


def _log_refusal(
    association_id: str,
    sop_instance_uid: str,
    answer: StoreAnswer,
    *,
    length: int,
    level: Callable[..., object],
) -> None:
    level(
        "error",
        what="an instance was refused",
        status=f"{answer.status:04X}H",
        why=answer.error_comment,
        association=association_id,
        sop_instance_uid=sop_instance_uid,
        bytes=length,
    )


def _recognizable(uid: str | None) -> str:
    """Cut what a peer calls a UID, but leave one letter too many where there are too many: it is refused for them."""
    return (uid or "")[: UID_LENGTH_MAX + 1]


def _refuse_storage(abstract_syntax: str) -> PresentationResult | None:
    return PresentationResult.USER_REJECTION if is_storage(abstract_syntax) else None


def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    if not networks:
        return True
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
