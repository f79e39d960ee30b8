"""The bytes of a received data set, read at any offset; a deflated one is inflated first."""

import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import IO, BinaryIO

from stowkeeper.dcmtk.encoding.errors import EncodingError, NotWritableError
from stowkeeper.dcmtk.encoding.limits import INFLATED_IN_MEMORY_BYTES, READ_AHEAD_BYTES
from stowkeeper.dicom.limits import INFLATED_BYTES_MAX, INFLATED_CHUNK_BYTES
from stowkeeper.dicom.transfer_syntaxes import TransferSyntax


class Source:
    """A data set in a seekable file: from the file's position at first to its end.

    `data` holds a stretch of it; `find` moves the stretch where it is needed.
    """

    __slots__ = ("_at", "_base", "_file", "data", "size")

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._base = file.tell()
        self.size = file.seek(0, os.SEEK_END) - self._base
        self.data = b""
        self._at = 0

    def find(self, offset: int, count: int) -> int:
        """Return where in `data` the byte at `offset` is, with `count` bytes from there on; -1 when there are fewer."""
        place = offset - self._at
        if 0 <= place <= len(self.data) - count:
            return place
        if offset + count > self.size:
            return -1
        self._file.seek(self._base + offset)
        self.data = self._file.read(max(count, READ_AHEAD_BYTES))
        self._at = offset
        return 0

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on, which must be there; longer ones than are read ahead stay unkept."""
        if count <= READ_AHEAD_BYTES:
            place = self.find(offset, count)
            data = self.data[place : place + count] if place >= 0 else b""
        else:
            self._file.seek(self._base + offset)
            data = self._file.read(count)
        if len(data) != count:
            raise EncodingError(f"the data set became shorter than {self.size} bytes while it was read")
        return data

    def pieces(self, offset: int, count: int, piece: int) -> Iterable[bytes]:
        """Give `count` bytes from `offset` on in pieces of a size, the last one shorter."""
        if count <= piece:  # nearly always
            return (self.read(offset, count),) if count else ()
        starts = range(offset, offset + count, piece)
        return (self.read(start, min(piece, offset + count - start)) for start in starts)


def opened(
    file: BinaryIO, syntax: TransferSyntax, folder: str | None = None
) -> AbstractContextManager[IO[bytes]]:
    """Give a received data set for the length of a block, inflated where its transfer syntax is a deflated one.

    What is too much for memory goes into a temporary file in `folder`; None is the system's own choice. The file itself stays open. Raises EncodingError where it cannot be inflated.
    """
    return _inflated(file, folder) if syntax.deflated else nullcontext(file)


def _inflated(file: BinaryIO, folder: str | None) -> IO[bytes]:
    """Inflate a data set into a temporary file, which the caller closes (PS3.5 §A.5).

    Bytes behind the end of the deflate stream are left out, as DCMTK does. Raises EncodingError.
    """
    target = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - the caller closes it
        INFLATED_IN_MEMORY_BYTES, dir=folder
    )
    try:
        for chunk in _inflated_chunks(file):
            target.write(chunk)
        target.seek(0)
    except BaseException:
        target.close()
        raise
    return target


def _inflated_chunks(file: BinaryIO) -> Iterator[bytes]:
    stream = zlib.decompressobj(-15)  # a bare deflate stream without a zlib header (RFC 1951)
    size = 0
    while not stream.eof:
        deflated = stream.unconsumed_tail or file.read(INFLATED_CHUNK_BYTES)
        try:
            chunk = stream.decompress(deflated, INFLATED_CHUNK_BYTES)
        except zlib.error:
            raise EncodingError(f"the deflate stream is damaged after {size} inflated bytes") from None
        size += len(chunk)
        if size > INFLATED_BYTES_MAX:
            raise NotWritableError(f"the data set inflates to more than {INFLATED_BYTES_MAX} bytes")
        if not chunk and not deflated:
            raise EncodingError("the deflate stream ends before its last block does")
        yield chunk
