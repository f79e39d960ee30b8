"""One instance of a store request, from its first byte to its line in the ledger."""

import time
from collections.abc import Callable
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

    `way` is what takes its bytes; None where it is given up. Of the outcome that stays which the answer and the ledger tell, since
    ten thousand parts wait for one answer.
    """

    number: int
    began_at: int = field(default_factory=time.time_ns)
    began: float = field(default_factory=time.perf_counter)
    came: float = 0.0
    way: IncomingFile | IncomingDataSet | None = None
    answer: SenderAnswer = field(default_factory=SenderAnswer)
    identity: Identity = _NOBODY
    length: int = 0
    is_decided: bool = False
    is_out_of_resources: bool = False
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    remarks: tuple[str, ...] = ()
    receipt_id: str = ""
    digest: str = ""
    data_set_length: int = 0
    disk_seconds: float = 0.0
    status: int = 0
    words: str = ""
    is_too_large: bool = False
    is_other_type: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether it is on the disk: its outcome says so, and nothing else does."""
        return self.is_decided and not self.status

    @property
    def is_nameless(self) -> bool:
        """Whether it is refused, and nobody can say which instance it should have been."""
        return bool(self.status) and not self.identity.sop_instance_uid

    def fail(self, status: int, words: str) -> None:
        """Say what is wrong with it, unless that is known; it is given up, and the rest of it read over."""
        if not self.status:
            self.status, self.words = status, words
        self.name()
        if self.way is not None:
            self.way.abort()
        self.way = None

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

    def take(self, outcome: Outcome, same: Callable[[str], str]) -> None:
        """Take the outcome. `same` returns a text as an earlier part had it: what most have in common is kept once."""
        self.way = None
        self.is_decided = True
        self.is_out_of_resources = outcome.refusal is Refusal.OUT_OF_RESOURCES
        self.identity = Identity(
            sop_class_uid=same(self.identity.sop_class_uid),
            sop_instance_uid=self.identity.sop_instance_uid,
            transfer_syntax_uid=same(self.identity.transfer_syntax_uid),
        )
        self.study_instance_uid = same(outcome.study_instance_uid)
        self.series_instance_uid = same(outcome.series_instance_uid)
        self.remarks = outcome.remarks
        self.receipt_id = outcome.receipt.receipt_id if outcome.receipt is not None else ""
        self.digest = outcome.digest
        self.data_set_length = outcome.data_set_length
        self.disk_seconds = outcome.disk_seconds
        if outcome.refusal is not None:
            self.fail(outcome.status, outcome.comment)

    def record(self, request_id: str, ended: float, *, is_answered: bool) -> RequestRecord:
        """Return its line in the ledger."""
        is_decided = is_answered or self.is_decided
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
            data_set_length=self.data_set_length if self.is_decided else self.length,
            digest=self.digest,
            outcome="kept" if self.receipt_id else "refused" if is_decided else "lost",
            receipt_id=self.receipt_id,
            seconds_network=(self.came or ended) - self.began,
            seconds_disk=self.disk_seconds,
            seconds_total=ended - self.began,
            was_listed_first=is_answered and self.is_kept and self.answer.was_listed_first,
        )

    def log_refusal(self, request_id: str) -> None:
        """Write the line of the log about an instance that is not kept."""
        level = log.error if self.is_out_of_resources else log.warning
        level(
            "error",
            what="an instance was refused",
            status=f"{self.status:04X}H",
            why=self.words,
            association=request_id,
            sop_instance_uid=bounded_uid(self.identity.sop_instance_uid),
            bytes=self.length,
        )
