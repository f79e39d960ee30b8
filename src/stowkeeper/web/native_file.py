"""An instance as a file (PS3.10), for who downloads it: the head without our receipt, the data set as it was received.

Its bytes are compared with the digest of the receipt while they are sent. The last piece is given only when all of it fits: so
a whole answer is a whole instance, and a damaged one ends in the middle.
"""

from collections.abc import Iterator

import structlog
from blake3 import blake3

from stowkeeper.archive.limits import HEAD_READ_BYTES
from stowkeeper.archive.plain_head import HeadDamagedError, plain_head
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.web.limits import FILE_PIECE_BYTES

log = structlog.get_logger("stowkeeper.web")


class FileDamagedError(Exception):
    """The file is not what its receipt says; the text says how."""


class InstanceFile:
    """The file of a version, open for reading. An iterator of its pieces; `close` it in the end, twice is fine.

    `length` is that of all pieces together, in bytes.
    """

    def __init__(self, files: FileSystem, path: str, *, digest: str, data_set_length: int) -> None:
        """Open the file and read its head. Raises FileDamagedError and OSError."""
        self._files = files
        self._digest = digest
        self._data_set_length = data_set_length
        self._descriptor: int | None = files.open_for_reading(path)
        try:
            self._head, self._offset = self._read_head(self._descriptor)
            self._check_size(files.status(path).size)
        except BaseException:
            self.close()
            raise
        self.length = len(self._head) + data_set_length

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._files.close(descriptor)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces. Raises FileDamagedError and OSError; the file is closed at the end, however that comes."""
        try:
            yield from self._pieces()
        finally:
            self.close()

    def _pieces(self) -> Iterator[bytes]:
        seen = blake3()
        held = self._head
        left = self._data_set_length
        offset = self._offset
        while left and self._descriptor is not None:
            piece = self._files.read(self._descriptor, min(left, FILE_PIECE_BYTES), offset)
            if not piece:
                raise FileDamagedError("it has become shorter")
            seen.update(piece)
            left -= len(piece)
            offset += len(piece)
            yield held
            held = piece
        if seen.hexdigest() != self._digest:
            log.error(
                "error", what="a file that was asked for does not fit its receipt: run `stowkeeper verify`"
            )
            raise FileDamagedError("its data set does not fit its receipt")
        yield held

    def _check_size(self, size: int) -> None:
        if size != self._offset + self._data_set_length:
            raise FileDamagedError("its length is another than its receipt says")

    def _read_head(self, descriptor: int) -> tuple[bytes, int]:
        """Return the head without our receipt, and where the data set begins."""
        head = self._files.read(descriptor, HEAD_READ_BYTES, 0)
        try:
            return plain_head(head)
        except HeadDamagedError as error:
            raise FileDamagedError(str(error)) from error
