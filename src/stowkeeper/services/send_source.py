"""Data sets on their way from files to the network: read and converted in a thread, taken on the event loop.

The thread reads ahead, over the end of one file into the next, so that neither disk nor network waits for the other.
How far is bounded for all files of a reader together.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import BinaryIO, Final, Self

from blake3 import blake3

from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.services.conversion import convert
from stowkeeper.services.limits import READ_AHEAD_PIECES, READ_PIECE_BYTES
from stowkeeper.services.reencoding import ConversionError
from stowkeeper.services.send_plan import SendableFile

DAMAGED: Final = "its bytes are not those that it was kept with"
"""Why a file whose digest is another is not sent; see `SendableFile.digest`."""

CHANGED: Final = "it changed while it was sent"
"""Why a file without a digest is not sent to its end; see `SendableFile.modified_ns`."""

UNCONVERTIBLE: Final = "it cannot be converted"
"""How the words begin on a file that is whole and cannot be sent as the peer wants it."""


class SourceError(Exception):
    """A file cannot be read, or converted, after all; the text says why."""


class DataSetSource:
    """The data set of one file, as an asynchronous iterator of even pieces (but for the last).

    `length` is that of the data set in bytes, None where a conversion tells it only at its end. `taken` counts the
    bytes that were taken. Raises SourceError.
    """

    def __init__(
        self, reader: "FileReader", file: SendableFile, target: str | None, sent: Callable[[int], None]
    ) -> None:
        self.file = file
        self.target = target
        self.length = None if target else file.data_set_length + self.padding
        self.taken = 0
        self._reader = reader
        self._sent = sent
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._end: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def padding(self) -> int:
        """How many NULs follow a deflated data set of odd length (PS3.5 §A.5)."""
        syntax = TRANSFER_SYNTAXES.get(self.file.transfer_syntax_uid)
        return self.file.data_set_length % 2 if syntax is not None and syntax.deflated else 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._end is not None:
                raise self._end
            self._waiter = self._loop.create_future()
            # The thread looks for a waiter after it has put something: so either it sees this one, or we its piece.
            if not self._pieces and self._end is None:
                await self._waiter
            self._waiter = None
        piece = self._pieces.popleft()
        self._reader.make_room()
        self.taken += len(piece)
        self._sent(len(piece))
        return piece

    # Called in the thread.

    def put(self, piece: bytes) -> None:
        """Add a piece."""
        self._pieces.append(piece)
        self._wake()

    def finish(self, error: BaseException | None = None) -> None:
        """Know that no further piece comes, or why."""
        self._end = StopAsyncIteration() if error is None else error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            self._loop.call_soon_threadsafe(self._wake_up)

    def _wake_up(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class FileReader:
    """A thread that reads files in the order in which they were opened.

    `data_length_per_pdu` is what one P-DATA-TF carries: pieces are a multiple of it. Close it in the end.
    """

    def __init__(self, data_length_per_pdu: int) -> None:
        self._piece_bytes = max(1, READ_PIECE_BYTES // data_length_per_pdu) * data_length_per_pdu
        self._room = threading.Semaphore(READ_AHEAD_PIECES)
        self._sources: SimpleQueue[DataSetSource | None] = SimpleQueue()
        self._is_closed = False
        threading.Thread(target=self._run, name="stowkeeper-reader", daemon=True).start()

    def open(
        self, file: SendableFile, target: str | None, sent: Callable[[int], None] = lambda _: None
    ) -> DataSetSource:
        """Have a file read, in transfer syntax `target` if it is not None; `sent` is told of the bytes taken."""
        source = DataSetSource(self, file, target, sent)
        self._sources.put(source)
        return source

    def make_room(self) -> None:
        """Know that a piece was taken."""
        self._room.release()

    def close(self) -> None:
        """Let the thread end, after the read that it is in."""
        self._is_closed = True
        self._sources.put(None)
        self._room.release()

    def _run(self) -> None:
        while (source := self._sources.get()) is not None:
            try:
                self._read(source)
            except RuntimeError:
                return  # the event loop is closed: nobody is left to take anything
            if self._is_closed:
                return

    def _read(self, source: DataSetSource) -> None:
        error: BaseException | None = None
        try:
            for piece in self._pieces_of(source):
                self._room.acquire()
                if self._is_closed:
                    return
                source.put(piece)
        except OSError as failure:
            error = SourceError(f"it cannot be read: {failure.strerror or type(failure).__name__}")
        except ConversionError as failure:
            error = SourceError(f"{UNCONVERTIBLE}: {failure}")
        except Exception as failure:  # noqa: BLE001 - whatever it is, it goes to who waits for the file
            error = failure
        source.finish(error)

    def _pieces_of(self, source: DataSetSource) -> Iterator[bytes]:
        file = source.file
        with open(file.path, "rb") as stream:
            _check_unchanged(stream, file, "it has changed since it was looked at")
            if source.target is not None:
                if file.digest:
                    for _ in self._bytes_of(stream, file):
                        pass
                    stream.seek(0)
                yield from _cut(_converted(stream, file, source.target), self._piece_bytes)
                return
            left = file.data_set_length
            for piece in self._bytes_of(stream, file):
                left -= len(piece)
                yield piece if left else piece + b"\0" * source.padding

    def _bytes_of(self, stream: BinaryIO, file: SendableFile) -> Iterator[bytes]:
        """Read a data set in pieces; the last one is given only when all of it is what it has to be."""
        seen = blake3() if file.digest else None
        stream.seek(file.offset)
        left = file.data_set_length
        while left:
            piece = stream.read(min(left, self._piece_bytes))
            if not piece or (len(piece) % 2 and len(piece) < left):
                raise SourceError("it has become shorter")
            left -= len(piece)
            if seen is not None:
                seen.update(piece)
                if not left and seen.hexdigest() != file.digest:
                    raise SourceError(DAMAGED)
            if not left:
                _check_unchanged(stream, file, CHANGED)
            yield piece


def _check_unchanged(stream: BinaryIO, file: SendableFile, words: str) -> None:
    """Raise SourceError with `words` for a file that is not as it was looked at."""
    if not file.is_unchanged(os.fstat(stream.fileno())):
        raise SourceError(words)


def _converted(stream: BinaryIO, file: SendableFile, target: str) -> Iterator[bytes]:
    """Convert a data set. Raises SourceError at its end where the file changed meanwhile."""
    yield from convert(stream, file.offset, file.transfer_syntax_uid, target)
    _check_unchanged(stream, file, CHANGED)  # `_cut` has its last piece still


def _cut(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Make pieces of `size` bytes, the last one shorter, of pieces of any size."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        while len(gathered) > size:
            yield bytes(gathered[:size])
            del gathered[:size]
    yield bytes(gathered)
