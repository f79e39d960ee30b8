"""Scan a data set while it is received, to tell whether it parses to its end and what it identifies.

The scanner looks at every instance before its sender is told Success, so it is made to cost microseconds: it
takes the pieces as they come off the wire, copies only wanted values, and knows no dictionary. It judges the
form of a data set, never its content. See element_walker.py for what is read how.

Texts in a `Scan` carry tags, lengths and offsets into the data set (after inflating, where it is deflated),
never a value: they go into logs, ledgers and Error Comments.
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from stowkeeper.dicom.element_walker import ElementWalker
from stowkeeper.dicom.elements import (
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    PRIVATE_CREATORS,
    Buffer,
    Encoding,
    format_tag,
)
from stowkeeper.dicom.limits import DEFLATED_SLICE_BYTES, INFLATED_BYTES_MAX, INFLATED_CHUNK_BYTES
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a scan of a whole data set found."""

    values: dict[int, bytes]
    """Raw bytes of the wanted top-level elements that are there, by tag, padding included."""

    problem: str | None
    """The first reason why the data set does not parse to its end; None when it does, and also when its
    transfer syntax is unknown and it could not be judged."""

    remarks: tuple[str, ...]
    """Oddities that kept nobody from reading it."""

    size: int
    """Bytes fed, which in a deflated transfer syntax are the deflated ones."""

    little_endian: bool
    """Byte order of binary values in `values`."""


class _Plan:
    """What follows from a transfer syntax and a set of wanted tags, worked out once for all instances."""

    __slots__ = ("deflated", "encoding", "known", "private_runs", "wanted")

    def __init__(self, transfer_syntax_uid: str, wanted: frozenset[int]) -> None:
        syntax = TRANSFER_SYNTAXES.get(transfer_syntax_uid)
        self.known = syntax is not None
        self.deflated = syntax is not None and syntax.deflated
        self.encoding: Encoding = EXPLICIT_LITTLE_ENDIAN
        if syntax is not None and syntax.implicit_vr:
            self.encoding = IMPLICIT_LITTLE_ENDIAN
        elif syntax is not None and not syntax.little_endian:
            self.encoding = EXPLICIT_BIG_ENDIAN
        self.private_runs = self.encoding is EXPLICIT_LITTLE_ENDIAN and not any(
            tag >> 16 & 1 for tag in wanted
        )
        marks = dict(self.encoding.delimiters)
        if self.private_runs:
            marks |= dict.fromkeys(map(self.encoding.swap, PRIVATE_CREATORS), 0)
        self.wanted = marks | {self.encoding.swap(tag): tag for tag in wanted}


# Transfer syntax UIDs come from peers, hence the bound; a server sees a dozen.
_plan = lru_cache(maxsize=128)(_Plan)


class _Inflater:
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

    def feed(self, view: Buffer, walker: ElementWalker) -> None:
        """Hand what `view` inflates to on to `walker`, as long as neither has a problem."""
        for start in range(0, len(view), DEFLATED_SLICE_BYTES):
            piece = view[start : start + DEFLATED_SLICE_BYTES]
            if self._stream.eof:
                self._follow(piece)
            elif self._problem is None and walker.problem is None:
                self._inflate(piece, walker)

    def finish(self, walker: ElementWalker) -> str | None:
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

    def _inflate(self, piece: Buffer, walker: ElementWalker) -> None:
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


class HeaderScanner:
    """Scans one data set that comes in pieces.

    `transfer_syntax_uid` tells how it is encoded; one that TRANSFER_SYNTAXES does not know is read as
    explicit VR little endian, as every newer one is, and not judged. `wanted` are the tags whose top-level
    values are captured; pass the same object for every instance. A data set that inflates to more than
    `inflated_bytes_max` bytes is a problem.
    """

    __slots__ = ("_inflater", "_plan", "_walker", "size")

    def __init__(
        self,
        transfer_syntax_uid: str,
        wanted: frozenset[int],
        *,
        inflated_bytes_max: int = INFLATED_BYTES_MAX,
    ) -> None:
        plan = _plan(transfer_syntax_uid, wanted)
        self.size = 0
        self._plan = plan
        self._walker = ElementWalker(plan.encoding, plan.wanted, private_runs=plan.private_runs)
        self._inflater = _Inflater(inflated_bytes_max) if plan.deflated else None

    def feed(self, view: Buffer) -> None:
        """Scan `view`, the next piece of the data set, cut anywhere. Never raises for what is in it.

        Keeps no reference to `view`, whose buffer may be used again after the call.
        """
        self.size += len(view)
        if self._inflater is None:
            self._walker.feed(view)
        else:
            self._inflater.feed(view, self._walker)

    def finish(self) -> Scan:
        """Return what was found, now that the data set has ended."""
        walker = self._walker
        if self._inflater is None or not self.size:
            problem = walker.finish()
        else:
            problem = self._inflater.finish(walker)
        values = walker.values
        remarks = walker.remarks
        tags = list(values)
        if tags != sorted(tags):
            misplaced = next(tag for before, tag in pairwise(tags) if tag < before)
            remarks += (f"elements are not in ascending order, the first at {format_tag(misplaced)}",)
        return Scan(
            values=values,
            problem=problem if self._plan.known else None,
            remarks=remarks,
            size=self.size,
            little_endian=self._plan.encoding.little_endian,
        )
