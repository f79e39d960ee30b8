"""What comes piece by piece, on its way into intake: a data set, or a Part 10 file. For a thread that may wait for the disk.

The first bytes of a file are kept until they tell which instance it is; then intake has everything, as it has what comes by
C-STORE.
"""

from collections.abc import Collection
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from stowkeeper.archive.archive import Archive
from stowkeeper.archive.arrival import Arrival
from stowkeeper.archive.intake import Incoming
from stowkeeper.archive.outcome import Outcome, Refusal, Refused, SenderAnswer
from stowkeeper.dicom.uid import is_acceptable_uid
from stowkeeper.services.file_head import DescribedHead, NoInstanceError, describe_head
from stowkeeper.services.file_terms import FileTerms, kept_preamble
from stowkeeper.services.ingest_limits import FLUSH_BYTES
from stowkeeper.services.limits import FILE_HEAD_BYTES, IMPORT_BUFFER_BYTES

_FIRST_LOOK_BYTES = 4 * FILE_HEAD_BYTES
"""With so many bytes most files tell what they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Where a file comes from, as its receipt says it. `study_instance_uid` is the only study it may belong to; '': any."""

    received_by: str
    address: str
    association_id: str = ""
    study_instance_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which instance a data set is said to be, and how it is encoded."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class IncomingDataSet:
    """Takes a data set: `write` its pieces, then `commit` it and wait for its `outcome`, or `abort` it.

    `preamble` is kept in its file, `refused` why it is not, where that is known already; then it is read to its end all the same.
    """

    def __init__(
        self,
        archive: Archive,
        terms: FileTerms,
        sender: Sender,
        identity: Identity,
        *,
        answer: SenderAnswer | None = None,
        preamble: bytes = b"",
        refused: Refused | None = None,
    ) -> None:
        if not terms.accepts_transfer_syntax(identity.transfer_syntax_uid):
            # What is no UID may be anything, and goes into no log.
            uid = (
                identity.transfer_syntax_uid
                if is_acceptable_uid(identity.transfer_syntax_uid)
                else "(no UID)"
            )
            refused = Refused(
                Refusal.TRANSFER_SYNTAX_NOT_SUPPORTED,
                f"its transfer syntax {uid} is not accepted here",
                (0x00020010,),
            )
        self.identity = identity
        self.outcome: Future[Outcome] = Future()
        self._begin = partial(
            archive.intake.begin,
            Arrival(
                sop_class_uid=identity.sop_class_uid,
                sop_instance_uid=identity.sop_instance_uid,
                transfer_syntax_uid=identity.transfer_syntax_uid,
                received_by=sender.received_by,
                peer_address=sender.address,
                association_id=sender.association_id,
                study_instance_uid=sender.study_instance_uid,
                preamble=preamble,
                duplicates=terms.duplicates,
            ),
            self.outcome.set_result,
            class_accepted=terms.accepts_class(identity.sop_class_uid),
            refused=refused,
            answer=answer,
        )
        self._incoming: Incoming | None = None
        self._held: list[memoryview] = []
        self.held_bytes = 0

    def write(self, piece: memoryview) -> None:
        """Take the next bytes, which stay as they are until the outcome. Waits for the disk once there is enough for a visit to it."""
        if not piece:
            return
        self._held.append(piece)
        self.held_bytes += len(piece)
        if self.held_bytes >= FLUSH_BYTES:
            self._hand_over(may_wait=True).flush()
            self.held_bytes = 0

    def commit(self) -> None:
        """Say that it is whole.

        What was with the disk already is written to its end here. What is small is left to intake's workers, with `held_bytes` until
        the outcome: meanwhile others come, and many syncs at once take little more time than one.
        """
        self._hand_over(may_wait=False).commit()

    def abort(self) -> None:
        """Give it up; what was committed goes its way all the same."""
        if self._incoming is not None:
            self._incoming.abort()

    def _hand_over(self, *, may_wait: bool) -> Incoming:
        """Give intake what is held. `may_wait` says who does the work, where that did not begin yet."""
        incoming = self._incoming
        if incoming is None:
            incoming = self._incoming = self._begin(may_wait=may_wait)
        for piece in self._held:
            incoming.write(piece)
        self._held.clear()
        return incoming


class IncomingFile:
    """Takes a Part 10 file: `write` its pieces, then `commit` it and wait for the outcome of `data_set`, or `abort` it.

    `described` says which instance it is, once that is known. `wanted` are tags whose values are captured beside, which takes a
    look at all of the first megabyte.
    """

    def __init__(
        self,
        archive: Archive,
        terms: FileTerms,
        sender: Sender,
        *,
        answer: SenderAnswer | None = None,
        wanted: Collection[int] = (),
    ) -> None:
        self._terms = terms
        self._begin = partial(IncomingDataSet, archive, terms, sender, answer=answer)
        self._wanted = wanted
        self._head = bytearray()
        self._look_at = IMPORT_BUFFER_BYTES if wanted else _FIRST_LOOK_BYTES
        self.data_set: IncomingDataSet | None = None
        self.described: DescribedHead | None = None
        self.length = 0

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next bytes, which stay as they are until the outcome. Raises NoInstanceError for what intake is not offered."""
        self.length += len(piece)
        if self.data_set is not None:
            self.data_set.write(memoryview(piece))
            return
        if not self._head and len(piece) >= self._look_at and self._look(memoryview(piece), is_whole=False):
            return  # it was head enough, and was not copied
        self._head += piece
        if len(self._head) >= self._look_at:
            self._look(memoryview(bytes(self._head)), is_whole=False)

    def identify(self) -> DescribedHead:
        """Say which instance it is, now that all of it was written. Raises NoInstanceError."""
        if self.described is None:
            self._look(memoryview(bytes(self._head)), is_whole=True)
        if self.described is None:
            raise NoInstanceError("it is no DICOM file")
        return self.described

    def commit(self) -> IncomingDataSet:
        """Say that the file is whole, and return its data set, whose outcome will come. Raises NoInstanceError."""
        self.identify()
        if self.data_set is None:
            raise NoInstanceError("it is no DICOM file")
        self.data_set.commit()
        return self.data_set

    def guess(self) -> DescribedHead | None:
        """Return which instance it is, as far as what came of it tells."""
        if self.described is None:
            with suppress(NoInstanceError):
                return describe_head(memoryview(bytes(self._head[:_FIRST_LOOK_BYTES])), is_whole=False)
        return self.described

    def abort(self) -> None:
        """Give it up; what was committed goes its way all the same."""
        if self.data_set is not None:
            self.data_set.abort()

    def _look(self, head: memoryview, *, is_whole: bool) -> bool:
        """Find out what it is, and begin; return whether that was possible."""
        described = self._describe(head, is_whole=is_whole)
        if described is None:
            return False
        self._head.clear()
        self.described = described
        preamble, refused = b"", None
        try:
            preamble = kept_preamble(head, self._terms.preamble)
        except Refused as error:
            refused = error
        identity = Identity(
            sop_class_uid=described.sop_class_uid,
            sop_instance_uid=described.sop_instance_uid,
            transfer_syntax_uid=described.transfer_syntax_uid,
        )
        self.data_set = self._begin(identity, preamble=preamble, refused=refused)
        self.data_set.write(head[described.offset :])
        return True

    def _describe(self, head: memoryview, *, is_whole: bool) -> DescribedHead | None:
        """Return which instance begins so; None where more of it may tell. Raises NoInstanceError."""
        if self._look_at == _FIRST_LOOK_BYTES:
            first = head[:_FIRST_LOOK_BYTES]
            is_all = is_whole and len(first) == len(head)
            try:
                return describe_head(first, is_whole=is_all)
            except NoInstanceError:
                if is_all:
                    raise
                self._look_at = IMPORT_BUFFER_BYTES  # what it is may stand further behind
        if not is_whole and len(head) < IMPORT_BUFFER_BYTES:
            return None
        return describe_head(head, is_whole=is_whole, wanted=self._wanted)
