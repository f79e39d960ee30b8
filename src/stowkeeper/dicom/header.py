"""Scan a data set while it is received, to tell whether it parses to its end and what it identifies.

The scanner looks at every instance before its sender is told Success, so it is made to cost microseconds: it
takes the pieces as they come off the wire, copies only wanted values, and knows no dictionary. It judges the
form of a data set, never its content. See element_walker.py for what is read how.

Texts in a `Scan` carry tags, lengths and offsets into the data set (after inflating, where it is deflated),
never a value: they go into logs, ledgers and Error Comments.
"""

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

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
from stowkeeper.dicom.header_layout import HeaderLayout, Look
from stowkeeper.dicom.inflater import Inflater
from stowkeeper.dicom.limits import CAPTURED_ALWAYS_MAX, INFLATED_BYTES_MAX, LAYOUTS_MAX
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES


class Scan(NamedTuple):
    """What a scan of a whole data set found."""

    values: dict[int, bytes]
    """Raw bytes of the wanted top-level elements that are there, by tag, padding included."""

    problem: str | None
    """The first reason why the data set does not parse to its end; None when it does, and also when its
    transfer syntax is unknown and it could not be judged."""

    offending: int | None
    """The tag of the data element that the problem is about; None where it is about none, or about several."""

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

    def look(self, raw: int, _vr: int, length: int) -> Look | None:
        """Say what of an element is looked at where its header is known."""
        if raw in self.encoding.delimiters:
            return None
        if not self.wanted.get(raw):
            return Look.NOTHING
        return Look.WHOLE if length <= CAPTURED_ALWAYS_MAX else None


# Transfer syntax UIDs come from peers, hence the bound; a server sees a dozen.
_plan = lru_cache(maxsize=128)(_Plan)


@lru_cache(maxsize=LAYOUTS_MAX)  # SOP class UIDs come from peers too
def _layout(plan: _Plan, sop_class_uid: str) -> HeaderLayout:  # noqa: ARG001 - it is what tells layouts apart
    return HeaderLayout(plan.encoding, plan.look)


class HeaderScanner:
    """Scans one data set that comes in pieces.

    `transfer_syntax_uid` tells how it is encoded; one that TRANSFER_SYNTAXES does not know is read as
    explicit VR little endian, as every newer one is, and not judged. `wanted` are the tags whose top-level
    values are captured; pass the same object for every instance. A data set that inflates to more than
    `inflated_bytes_max` bytes is a problem. Those that come with the same `sop_class_uid` are expected to be alike, and
    scanned faster when they are; without one nothing is expected.
    """

    __slots__ = ("_inflater", "_plan", "_walker", "size")

    def __init__(
        self,
        transfer_syntax_uid: str,
        wanted: frozenset[int],
        *,
        sop_class_uid: str = "",
        inflated_bytes_max: int = INFLATED_BYTES_MAX,
    ) -> None:
        plan = _plan(transfer_syntax_uid, wanted)
        self.size = 0
        self._plan = plan
        self._walker = ElementWalker(
            plan.encoding,
            plan.wanted,
            private_runs=plan.private_runs,
            layout=_layout(plan, sop_class_uid) if sop_class_uid else None,
        )
        self._inflater = Inflater(inflated_bytes_max) if plan.deflated else None

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
            offending=walker.offending if self._plan.known else None,
            remarks=remarks,
            size=self.size,
            little_endian=self._plan.encoding.little_endian,
        )
