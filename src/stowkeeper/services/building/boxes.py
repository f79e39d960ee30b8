"""Boxes, of which files of JPEG 2000 and of MPEG-4 consist (ISO/IEC 15444-1 §I.4, ISO/IEC 14496-12 §4.2)."""

from collections.abc import Iterator
from dataclasses import dataclass

from stowkeeper.services.building.bitstreams import unreadable
from stowkeeper.services.building.bulk_parts import BulkPart
from stowkeeper.services.building.limits import BOXES_MAX


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its type, and where in the part its content begins and ends."""

    kind: bytes
    begin: int
    end: int


def boxes(part: BulkPart, begin: int, end: int) -> Iterator[Box]:
    """Give the boxes that stand between two places of a part. Raises BuildError where they do not fit."""
    at = begin
    for _ in range(BOXES_MAX):
        head = part.read(at, min(16, end - at))
        if len(head) < 8:
            return  # a file may end in zeros
        length, start = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), 16
        elif length == 0:
            length = end - at
        if length < start or at + length > end:
            raise unreadable("a box of the file reaches beyond its end: it was cut or is damaged")
        yield Box(head[4:8], at + start, at + length)
        at += length
        if at == end:
            return
    raise unreadable(f"the file has more than {BOXES_MAX} boxes")


def box_in(part: BulkPart, outer: Box | None, *path: bytes) -> Box | None:
    """Return the first box on a path of types, None where there is none."""
    for kind in path:
        if outer is None:
            return None
        outer = next((box for box in boxes(part, outer.begin, outer.end) if box.kind == kind), None)
    return outer
