"""One instance of a store request, from its first byte to its line in the ledger."""

import time
from dataclasses import dataclass, field

import structlog

from stowkeeper.archive.ledger import RequestRecord
from stowkeeper.archive.outcome import Outcome, Refusal, SenderAnswer
from stowkeeper.archive.receipt import timestamp
from stowkeeper.services.association_lines import bounded_uid
from stowkeeper.services.incoming_file import Identity, IncomingDataSet, IncomingFile
from stowkeeper.services.limits import LEDGER_WORDS_LETTERS_MAX

log = structlog.get_logger("stowkeeper.storage")

_NOBODY = Identity(sop_class_uid="", sop_instance_uid="", transfer_syntax_uid="")


@dataclass(slots=True, kw_only=True)
class StorePart:
    """A part that is an instance, or should be one. `status` is that of its failure, 0 where it is kept.

    `way` is what takes its bytes, and `coming` what its outcome comes from, once it is whole; None where it is given up.
    """

    number: int
    began_at: int = field(default_factory=time.time_ns)
    began: float = field(default_factory=time.perf_counter)
    came: float = 0.0
    way: IncomingFile | IncomingDataSet | None = None
    coming: IncomingDataSet | None = None
    answer: SenderAnswer = field(default_factory=SenderAnswer)
    identity: Identity = _NOBODY
    length: int = 0
    outcome: Outcome | None = None
    status: int = 0
    words: str = ""
    is_too_large: bool = False
    is_other_type: bool = False

    def fail(self, status: int, words: str) -> None:
        """Say what is wrong with it, unless that is known; it is given up, and the rest of it read over."""
        if not self.status:
            self.status, self.words = status, words
        self.name()
        if self.way is not None:
            self.way.abort()
        self.way = self.coming = None

    def name(self) -> None:
        """Take over which instance it is, as far as that is known."""
        if isinstance(self.way, IncomingDataSet):
            self.identity = self.way.identity
        elif self.way is not None and (described := self.way.guess()) is not None:
            self.identity = Identity(
                sop_class_uid=described.sop_class_uid,
                sop_instance_uid=described.sop_instance_uid,
                transfer_syntax_uid=described.transfer_syntax_uid,
            )

    def take(self, outcome: Outcome) -> None:
        """Take the outcome."""
        self.outcome = outcome
        self.way = self.coming = None
        if outcome.refusal is not None:
            self.fail(outcome.status, outcome.comment)

    def record(self, request_id: str, ended: float, *, is_answered: bool) -> RequestRecord:
        """Return its line in the ledger."""
        outcome = self.outcome
        receipt = outcome.receipt if outcome is not None else None
        is_decided = is_answered or outcome is not None
        words = self.words
        if not is_answered:
            words = f"{words} (not answered: the connection was lost)".strip()
        return RequestRecord(
            association_id=request_id,
            message_id=self.number,
            sop_class_uid=bounded_uid(self.identity.sop_class_uid),
            sop_instance_uid=bounded_uid(self.identity.sop_instance_uid),
            transfer_syntax_uid=bounded_uid(self.identity.transfer_syntax_uid),
            requested_at=timestamp(self.began_at),
            status=self.status if is_answered else None,
            error_comment=words[:LEDGER_WORDS_LETTERS_MAX],
            data_set_length=outcome.data_set_length if outcome is not None else self.length,
            digest=outcome.digest if outcome is not None else "",
            outcome="kept" if receipt is not None else "refused" if is_decided else "lost",
            receipt_id=receipt.receipt_id if receipt is not None else "",
            seconds_network=(self.came or ended) - self.began,
            seconds_disk=outcome.disk_seconds if outcome is not None else 0.0,
            seconds_total=ended - self.began,
            was_listed_first=is_answered and not self.status and self.answer.was_listed_first,
        )

    def log_refusal(self, request_id: str) -> None:
        """Write the line of the log about an instance that is not kept."""
        is_ours = self.outcome is not None and self.outcome.refusal is Refusal.OUT_OF_RESOURCES
        level = log.error if is_ours else log.warning
        level(
            "error",
            what="an instance was refused",
            status=f"{self.status:04X}H",
            why=self.words,
            association=request_id,
            sop_instance_uid=bounded_uid(self.identity.sop_instance_uid),
            bytes=self.length,
        )
