"""The Storage and Verification services as provider: who may associate, and C-STORE into the archive's intake.

What the peers may do is one frozen value, `Rules`, replaced as a whole when the settings are read anew.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address

import structlog

from stowkeeper.archive.archive import Archive
from stowkeeper.archive.intake import Arrival, DuplicatePolicy, Incoming
from stowkeeper.archive.ledger import AssociationRecord, RequestRecord
from stowkeeper.archive.outcome import Outcome, Refusal
from stowkeeper.archive.receipt import timestamp
from stowkeeper.dicom.uid import UID_LENGTH_MAX, VERIFICATION
from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.upperlayer.negotiation import (
    AcceptancePolicy,
    Accepted,
    AcceptedContext,
    Rejected,
    negotiate,
)
from stowkeeper.upperlayer.pdu import REJECTED_CALLING_AE_TITLE, REJECTED_LOCAL_LIMIT_EXCEEDED, AssociateRQ
from stowkeeper.upperlayer.reasons import PresentationResult

log = structlog.get_logger("stowkeeper.storage")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the server agrees to, and with whom.

    `networks` empty lets every address pass. `knows_peer` tells whether a calling AE title and an address are
    those of a configured peer; None asks for none. `duplicates_of` gives the policy for a second version of an
    instance from such a peer.
    """

    ae_title: str
    acceptance: AcceptancePolicy
    networks: tuple[Network, ...] = ()
    knows_peer: Callable[[str, str], bool] | None = None
    duplicates_of: Callable[[str, str], DuplicatePolicy] = lambda _calling_ae_title, _address: (
        DuplicatePolicy.KEEP
    )


class StorageService:
    """Answers the network room from the archive. All its methods run on the event loop and wait for nothing."""

    def __init__(self, archive: Archive, rules: Rules) -> None:
        self._archive = archive
        self.rules = rules

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Apply the rules, and keep storage out while the disk has no room."""
        rules = self.rules
        if not _is_in(facts.peer_address, rules.networks):
            return Rejected(rejection=REJECTED_CALLING_AE_TITLE, words="its address is not allowed")
        if rules.knows_peer is not None and not rules.knows_peer(
            request.calling_ae_title, facts.peer_address
        ):
            return Rejected(
                rejection=REJECTED_CALLING_AE_TITLE, words="it is not one of the configured peers"
            )
        policy = rules.acceptance
        words = self._archive.admission.association_refusal()
        if words:
            only_storage = all(
                context.abstract_syntax != VERIFICATION for context in request.presentation_contexts
            )
            if only_storage:
                return Rejected(rejection=REJECTED_LOCAL_LIMIT_EXCEEDED, words=words)
            policy = replace(policy, refusal=_refuse_storage)
        return negotiate(request, policy)

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
            sop_class_uid=_bounded(request.affected_sop_class_uid),
            sop_instance_uid=_bounded(request.affected_sop_instance_uid),
            transfer_syntax_uid=context.transfer_syntax,
            requested_at=timestamp(time.time_ns()),
            status=answer.status,
            error_comment=answer.error_comment,
            outcome="refused",
        )
        self._archive.finisher.record(lambda: record)
        _log_refusal(facts, request, answer, length=0, level=log.warning)

    def accepts_class(self, sop_class_uid: str) -> bool:
        """Tell whether instances of a class are taken, whatever context they come in."""
        return sop_class_uid != VERIFICATION and self.rules.acceptance.accepts_abstract_syntax(sop_class_uid)

    def association_opened(self, facts: AssociationFacts) -> None:
        """Log how the negotiation ended, and open the association's line in the ledger."""
        if facts.rejection is None:
            record = _association_record(facts, self._archive.receiver)
            self._archive.finisher.record(lambda: record)
        names = {
            "association": facts.association_id,
            "calling": facts.calling_ae_title,
            "called": facts.called_ae_title,
            "address": facts.peer_address,
        }
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

    def association_closed(self, facts: AssociationFacts) -> None:
        """Write the association to the ledger, and to the log how it ended.

        A connection in which none was asked for, such as the look of a load balancer, is in the log alone.
        """
        asked = facts.request is not None
        if asked:
            self._archive.finisher.record(lambda: _association_record(facts, self._archive.receiver))
        is_usual = facts.end in {"released", "rejected"} or (facts.end == "lost" and not asked)
        level = log.info if is_usual else log.warning
        level(
            "association",
            what=facts.end,
            association=facts.association_id,
            address=facts.peer_address,
            messages=facts.messages,
            bytes=facts.bytes_received,
            why=facts.words,
        )


class StoreInProgress:
    """One C-STORE between its command and its answer, with the stopwatch for its ledger line."""

    __slots__ = (
        "_answer",
        "_archive",
        "_began",
        "_committed",
        "_context",
        "_ended",
        "_facts",
        "_incoming",
        "_length",
        "_outcome",
        "_request",
        "_requested_at",
        "_status",
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
        self._archive = archive
        self._facts = facts
        self._context = context
        self._request = request
        self._answer = answer
        self._requested_at = time.time_ns()
        self._began = time.perf_counter()
        self._committed = 0.0
        self._length = 0
        self._ended = 0.0
        self._status: int | None = None
        self._words = ""
        self._outcome: Outcome | None = None
        self._incoming: Incoming = archive.intake.begin(
            Arrival(
                sop_class_uid=request.affected_sop_class_uid or "",
                sop_instance_uid=request.affected_sop_instance_uid or "",
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
            class_accepted=service.accepts_class(request.affected_sop_class_uid or ""),
        )

    def write(self, piece: memoryview, release: Callable[[], None] | None) -> None:
        """Pass the next bytes to intake."""
        self._length += len(piece)
        self._incoming.write(piece, release)

    def flush(self) -> None:
        """Hand over what waits."""
        self._incoming.flush()

    def commit(self) -> None:
        """Say that the data set is complete."""
        self._committed = time.perf_counter()
        self._incoming.commit()

    def abort(self, words: str) -> None:
        """Give up an unfinished instance; one that is complete is kept all the same, without an answer."""
        if self._ended:
            return
        self._ended = time.perf_counter()
        self._words = words
        if not self._committed:
            self._incoming.abort()
        self._archive.finisher.record(self._record)

    def _done(self, outcome: Outcome) -> None:
        """Run on a worker thread, after the outcome is certain."""
        self._outcome = outcome
        self._answer(
            StoreAnswer(
                status=outcome.status, error_comment=outcome.comment, offending_elements=outcome.offending
            )
        )

    def answered(self, answer: StoreAnswer) -> None:
        """Write the ledger line of an answered request, and a log line when it was refused."""
        self._ended = time.perf_counter()
        self._status = answer.status
        self._words = answer.error_comment
        self._archive.finisher.record(self._record)
        outcome = self._outcome
        if outcome is None or outcome.refusal is None:
            return
        level = log.error if outcome.refusal is Refusal.OUT_OF_RESOURCES else log.warning
        _log_refusal(self._facts, self._request, answer, length=self._length, level=level)

    def _record(self) -> RequestRecord:
        """Make the ledger line, on the finisher's thread."""
        outcome = self._outcome
        receipt = outcome.receipt if outcome else None
        committed = self._committed or self._ended
        became = "refused" if receipt is None else "kept"
        if self._status is None:
            became = "lost"
        return RequestRecord(
            association_id=self._facts.association_id,
            message_id=self._request.message_id,
            sop_class_uid=_bounded(self._request.affected_sop_class_uid),
            sop_instance_uid=_bounded(self._request.affected_sop_instance_uid),
            transfer_syntax_uid=self._context.transfer_syntax,
            requested_at=timestamp(self._requested_at),
            status=self._status,
            error_comment=self._words,
            data_set_length=self._length,
            digest=receipt.digest if receipt else "",
            outcome=became,
            receipt_id=receipt.receipt_id if receipt else "",
            seconds_network=committed - self._began,
            seconds_disk=outcome.disk_seconds if outcome else 0.0,
            seconds_total=self._ended - self._began,
        )


def _log_refusal(
    facts: AssociationFacts,
    request: CStoreRequest,
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
        association=facts.association_id,
        sop_instance_uid=_bounded(request.affected_sop_instance_uid),
        bytes=length,
    )


def _bounded(uid: str | None) -> str:
    """Cut what a peer calls a UID, which may be as long as a command set, to what a ledger line holds."""
    return (uid or "")[:UID_LENGTH_MAX]


def _refuse_storage(abstract_syntax: str) -> PresentationResult | None:
    return None if abstract_syntax == VERIFICATION else PresentationResult.USER_REJECTION


def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    if not networks:
        return True
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _association_record(facts: AssociationFacts, receiver: str) -> AssociationRecord:
    information = facts.request.user_information if facts.request is not None else None
    return AssociationRecord(
        association_id=facts.association_id,
        opened_at=timestamp(facts.opened_at_nanoseconds),
        closed_at=timestamp(facts.closed_at_nanoseconds) if facts.closed_at_nanoseconds else None,
        receiver=receiver,
        calling_ae_title=facts.calling_ae_title,
        called_ae_title=facts.called_ae_title,
        peer_address=facts.peer_address,
        implementation_class_uid=(information.implementation_class_uid if information else None) or "",
        implementation_version_name=(information.implementation_version_name if information else None) or "",
        rejection=facts.rejection,
        contexts_accepted=facts.contexts_accepted,
        contexts_refused=facts.contexts_refused,
        messages=facts.messages,
        bytes_received=facts.bytes_received,
        ended=facts.end,
        words=facts.words,
    )
