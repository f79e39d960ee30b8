"""What comes piece by piece, on its way into intake: a data set, or a Part 10 file. For one event loop, which is never held up.

The first bytes of a file are kept until they tell which instance it is; then intake has everything, as it has what comes by
C-STORE. What waits for the disk is bounded by a `Room`, which all that comes in one request shares.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from stowkeeper.archive.archive import Archive
from stowkeeper.archive.arrival import Arrival
from stowkeeper.archive.outcome import Outcome, Refusal, Refused, SenderAnswer
from stowkeeper.dicom.uid import is_acceptable_uid
from stowkeeper.services.file_head import DescribedHead, NoInstanceError, describe_head
from stowkeeper.services.file_terms import FileTerms, kept_preamble
from stowkeeper.services.ingest_limits import FLUSH_BYTES
from stowkeeper.services.limits import FILE_HEAD_BYTES, IMPORT_BUFFER_BYTES

Value = TypeVar("Value")

_FIRST_LOOK_BYTES = 4 * FILE_HEAD_BYTES
"""With so many bytes most files tell what they are; it takes a fraction of a millisecond, so no thread is asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Where a file comes from, as its receipt says it. `study_instance_uid` is the only study it may belong to; '': any."""

    received_by: str
    address: str
    association_id: str = ""
    study_instance_uid: str = ""


class Room:
    """Bytes that wait for the disk, of all files of one request: no more than a bound, and one piece."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._waiting = 0
        self._has_room = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether the next piece has to wait."""
        return self._waiting > self._bytes_max

    def take(self, count: int) -> None:
        """Count bytes that wait from now on."""
        self._waiting += count

    def give_back(self, count: int) -> None:
        """Count bytes that are with the disk."""
        self._waiting -= count
        self._has_room.set()

    async def wait(self) -> None:
        """Wait until something was given back."""
        self._has_room.clear()
        await self._has_room.wait()


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
        room: Room,
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
        self._room = room
        self._unflushed = 0
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._incoming = archive.intake.begin(
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
            lambda outcome: self._tell(self._decided, outcome),
            class_accepted=terms.accepts_class(identity.sop_class_uid),
            refused=refused,
            answer=answer,
        )

    async def write(self, piece: memoryview) -> None:
        """Take the next bytes when there is room; they stay as they are until the outcome.

        What is handed over in one go is written in one go.
        """
        if not piece:
            return
        while self._room.is_full:
            await self._room.wait()
        self._room.take(len(piece))
        self._unflushed += len(piece)
        if self._unflushed < FLUSH_BYTES:
            self._incoming.write(piece)
            return
        # One word for all of them: each wakes the loop.
        given_back, self._unflushed = self._unflushed, 0
        self._incoming.write(piece, partial(self._tell, self._room.give_back, given_back))
        self._incoming.flush()

    def commit(self) -> None:
        """Say that it is whole."""
        self._incoming.commit()

    def abort(self) -> None:
        """Give it up; what was committed goes its way all the same."""
        self._incoming.abort()
        self._give_back_rest()

    def _give_back_rest(self) -> None:
        rest, self._unflushed = self._unflushed, 0
        if rest:
            self._room.give_back(rest)

    # On intake's threads.

    def _tell(self, function: Callable[[Value], None], value: Value) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, value)

    def _decided(self, outcome: Outcome) -> None:
        self._give_back_rest()
        if not self.outcome.done():  # who waited for it may have been cancelled
            self.outcome.set_result(outcome)


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
        room: Room,
        *,
        answer: SenderAnswer | None = None,
        wanted: Collection[int] = (),
    ) -> None:
        self._terms = terms
        self._begin = partial(IncomingDataSet, archive, terms, sender, room, answer=answer)
        self._wanted = wanted
        self._head = bytearray()
        self._look_at = IMPORT_BUFFER_BYTES if wanted else _FIRST_LOOK_BYTES
        self.data_set: IncomingDataSet | None = None
        self.described: DescribedHead | None = None
        self.length = 0

    async def write(self, piece: bytes | memoryview) -> None:
        """Take the next bytes, which stay as they are until the outcome. Raises NoInstanceError for what intake is not offered."""
        self.length += len(piece)
        if self.data_set is not None:
            await self.data_set.write(memoryview(piece))
            return
        self._head += piece
        if len(self._head) >= self._look_at:
            await self._look(is_whole=False)

    async def identify(self) -> DescribedHead:
        """Say which instance it is, now that all of it was written. Raises NoInstanceError."""
        if self.described is None:
            await self._look(is_whole=True)
        if self.described is None:
            raise NoInstanceError("it is no DICOM file")
        return self.described

    async def commit(self) -> IncomingDataSet:
        """Say that the file is whole, and return its data set, whose outcome will come. Raises NoInstanceError."""
        await self.identify()
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

    async def _look(self, *, is_whole: bool) -> None:
        """Find out what it is, and begin."""
        head = bytes(self._head)
        described = await self._describe(head, is_whole=is_whole)
        if described is None:
            return
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
        await self.data_set.write(memoryview(head)[described.offset :])

    async def _describe(self, head: bytes, *, is_whole: bool) -> DescribedHead | None:
        """Return which instance begins so; None where more of it may tell. Raises NoInstanceError."""
        if self._look_at == _FIRST_LOOK_BYTES:
            first = memoryview(head)[:_FIRST_LOOK_BYTES]
            is_all = is_whole and len(first) == len(head)
            try:
                return describe_head(first, is_whole=is_all)
            except NoInstanceError:
                if is_all:
                    raise
                self._look_at = IMPORT_BUFFER_BYTES  # what it is may stand further behind
        if not is_whole and len(head) < IMPORT_BUFFER_BYTES:
            return None
        look = partial(describe_head, memoryview(head), is_whole=is_whole, wanted=self._wanted)
        return await asyncio.to_thread(look)
