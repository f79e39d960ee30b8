"""One DICOM file that comes piece by piece, by HTTP: into intake like every other, without ever being whole in memory.

It is read as an import reads files (`importing.py`), and its receipt says so: received by `import`, with the address of whoever
sent it. Success is said of it only when it is durable; where it is in the catalog a moment later, that is waited for too, since
who sent it asks for it next.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from stowkeeper.archive.archive import Archive
from stowkeeper.archive.arrival import Arrival, DuplicatePolicy
from stowkeeper.archive.catalog_values import ReceiptOutcome
from stowkeeper.archive.inquiries import receipt_outcomes
from stowkeeper.archive.intake import Incoming
from stowkeeper.archive.outcome import Outcome
from stowkeeper.dicom.attributes import WANTED, InstanceAttributes, extract
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.services.file_head import DescribedHead, NoInstanceError, describe_head
from stowkeeper.services.importing import RECEIVED_BY
from stowkeeper.services.ingest_limits import (
    INGEST_BYTES_AHEAD_MAX,
    INGEST_LISTING_SECONDS,
    INGEST_LOOK_SECONDS_MAX,
    INGEST_LOOK_SECONDS_MIN,
)
from stowkeeper.services.limits import IMPORT_BUFFER_BYTES, READ_PIECE_BYTES
from stowkeeper.upperlayer.negotiation import is_storage

Value = TypeVar("Value")


class OutsideOfStudiesError(NoInstanceError):
    """An instance belongs to no study or series, and the one who takes it needs both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What became of a file. `attributes` are those that stand in its first megabyte.

    `listed` is what the catalog made of a kept one; None where it was not listed in time: it is kept all the same.
    """

    outcome: Outcome
    attributes: InstanceAttributes
    listed: ReceiptOutcome | None = None


async def ingest(
    archive: Archive,
    pieces: AsyncIterator[bytes],
    *,
    address: str,
    needs_study: bool = False,
    duplicates: DuplicatePolicy = DuplicatePolicy.KEEP,
    accept_unknown_transfer_syntaxes: bool = False,
) -> Ingested:
    """Take a file in, and wait until it is listed or refused. `address` is that of the sender.

    With `needs_study` an instance outside of studies and series is refused. Where `pieces` raises, nothing is kept. Raises
    NoInstanceError for what is not even offered to intake.
    """
    head, is_whole = await _read_head(pieces)
    described, attributes = await asyncio.to_thread(_describe, bytes(head), is_whole=is_whole)
    if described.transfer_syntax_uid not in TRANSFER_SYNTAXES and not accept_unknown_transfer_syntaxes:
        raise NoInstanceError(
            f"its transfer syntax {described.transfer_syntax_uid} is not known, so nothing in it could be checked"
        )
    # What stands behind the first megabyte is not known here: then the rows tell.
    if needs_study and is_whole and not (attributes.study_instance_uid and attributes.series_instance_uid):
        raise OutsideOfStudiesError("it has no Study Instance UID or no Series Instance UID")
    feed = _Feed(archive, described, address=address, duplicates=duplicates)
    outcome = await feed.run(memoryview(head)[described.offset :], pieces, is_whole=is_whole)
    listed = None
    if outcome.receipt is not None:
        listed = await _wait_until_listed(archive, outcome.receipt.receipt_id)
    return Ingested(outcome=outcome, attributes=attributes, listed=listed)


async def _read_head(pieces: AsyncIterator[bytes]) -> tuple[bytearray, bool]:
    """Return the first bytes of a file, and whether they are all."""
    head = bytearray()
    async for piece in pieces:
        head += piece
        if len(head) >= IMPORT_BUFFER_BYTES:
            return head, False
    return head, True


def _describe(head: bytes, *, is_whole: bool) -> tuple[DescribedHead, InstanceAttributes]:
    described = describe_head(memoryview(head), is_whole=is_whole, wanted=WANTED)
    attributes, _ = extract(described.values, described.little_endian)
    return described, attributes


class _Feed:
    """The way of one file into intake. No more than INGEST_BYTES_AHEAD_MAX of it wait for the disk at a time."""

    def __init__(
        self, archive: Archive, described: DescribedHead, *, address: str, duplicates: DuplicatePolicy
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._ahead = 0
        self._unflushed = 0
        self._has_room = asyncio.Event()
        self._incoming: Incoming = archive.intake.begin(
            Arrival(
                sop_class_uid=described.sop_class_uid,
                sop_instance_uid=described.sop_instance_uid,
                transfer_syntax_uid=described.transfer_syntax_uid,
                received_by=RECEIVED_BY,
                peer_address=address,
                duplicates=duplicates,
            ),
            self._done,
            class_accepted=is_storage(described.sop_class_uid),
        )

    async def run(self, head: memoryview, pieces: AsyncIterator[bytes], *, is_whole: bool) -> Outcome:
        """Give everything to intake and return the outcome."""
        try:
            self._write(head)
            if not is_whole:
                self._incoming.flush()
                async for piece in pieces:
                    await self._wait_for_room()
                    self._write(memoryview(piece))
                    if self._unflushed >= READ_PIECE_BYTES:
                        self._unflushed = 0
                        self._incoming.flush()
            self._incoming.commit()
        except BaseException:
            self._incoming.abort()
            raise
        return await self._outcome

    def _write(self, piece: memoryview) -> None:
        self._ahead += len(piece)
        self._unflushed += len(piece)
        self._incoming.write(piece, partial(self._tell, self._taken, len(piece)))

    async def _wait_for_room(self) -> None:
        while self._ahead > INGEST_BYTES_AHEAD_MAX:
            self._incoming.flush()
            self._has_room.clear()
            await self._has_room.wait()

    def _taken(self, count: int) -> None:
        self._ahead -= count
        self._has_room.set()

    # Called on intake's threads.

    def _done(self, outcome: Outcome) -> None:
        self._tell(self._decided, outcome)

    def _decided(self, outcome: Outcome) -> None:
        if not self._outcome.done():  # who waited for it may have been cancelled
            self._outcome.set_result(outcome)

    def _tell(self, function: Callable[[Value], None], value: Value) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, value)


async def _wait_until_listed(archive: Archive, receipt_id: str) -> ReceiptOutcome | None:
    """Wait until a receipt is in the catalog; None when it is not there in time."""

    def look() -> ReceiptOutcome | None:
        with archive.database.read() as connection:
            return receipt_outcomes(connection, [receipt_id]).get(receipt_id)

    pause = INGEST_LOOK_SECONDS_MIN
    deadline = asyncio.get_running_loop().time() + INGEST_LISTING_SECONDS
    while True:
        found = await asyncio.to_thread(look)
        if found is not None or asyncio.get_running_loop().time() >= deadline:
            return found
        await asyncio.sleep(pause)
        pause = min(2 * pause, INGEST_LOOK_SECONDS_MAX)
