"""Inflate a deflated data set while it comes in pieces, and hand it on to what walks over it (PS3.5 §A.5)."""

import zlib

from stowkeeper.dicom.elements import Buffer
from stowkeeper.dicom.limits import DEFLATED_SLICE_BYTES, INFLATED_CHUNK_BYTES
from stowkeeper.dicom.piece_walker import PieceWalker


class Inflater:
    """Undoes the deflating of a data set (PS3.5 §A.5), a bounded piece at a time, whatever it grows to."""

    __slots__ = ("_bytes_max", "_inflated", "_problem", "_stream", "_tail", "_tail_size")

    def __init__(self, bytes_max: int) -> None:
        # Fifteen window bits, negative for a bare deflate stream without a zlib header (RFC 1951).
        self._stream = zlib.decompressobj(-15)
        self._bytes_max = bytes_max
        self._inflated = 0
        self._tail = b""
        self._tail_size = 0
        self._problem: str | None = None

    def feed(self, view: Buffer, walker: PieceWalker) -> None:
        """Hand what `view` inflates to on to `walker`, as long as neither has a problem."""
        for start in range(0, len(view), DEFLATED_SLICE_BYTES):
            piece = view[start : start + DEFLATED_SLICE_BYTES]
            if self._stream.eof:
                self._follow(piece)
            elif self._problem is None and walker.problem is None:
                self._inflate(piece, walker)

    def finish(self, walker: PieceWalker) -> str | None:
        """Say in words why the data set does not parse to its end; None when it does."""
        if self._problem is not None or walker.problem is not None:
            return self._problem or walker.problem
        if not self._stream.eof:
            return "the deflate stream ends before its last block does"
        # One byte pads the stream to even length (PS3.5 §A.5). Some writers leave the trailer of gzip behind
        # the stream: four bytes of checksum, and the inflated size (RFC 1952).
        is_trailer = self._tail[4:8] == (self._inflated & 0xFFFFFFFF).to_bytes(4, "little")
        if self._tail_size > (9 if is_trailer else 1):
            return f"{self._tail_size} bytes follow the end of the deflate stream"
        return walker.finish()

    def _inflate(self, piece: Buffer, walker: PieceWalker) -> None:
        stream = self._stream
        while self._problem is None and walker.problem is None:
            try:
                chunk = stream.decompress(piece, INFLATED_CHUNK_BYTES)
            except zlib.error:
                # What zlib inflated in this call is lost, so that how far the walker came depends on the pieces.
                self._problem = "the deflate stream is damaged"
                return
            room = self._bytes_max - self._inflated
            self._inflated += len(chunk)
            walker.feed(chunk[:room])
            if len(chunk) > room and walker.problem is None:
                self._problem = f"the data set inflates to more than {self._bytes_max} bytes"
            if stream.eof:
                self._follow(stream.unused_data)
                return
            # zlib may hold output back after the last input byte: only a chunk that is not full says it is done.
            piece = stream.unconsumed_tail
            if not piece and len(chunk) < INFLATED_CHUNK_BYTES:
                return

    def _follow(self, piece: Buffer) -> None:
        """Count bytes behind the stream; keep as many as a trailer has."""
        self._tail_size += len(piece)
        self._tail += bytes(piece[: 8 - len(self._tail)])
