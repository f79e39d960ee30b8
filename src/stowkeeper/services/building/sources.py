"""Values of an instance that is being built: in memory, in parts of the request, or in fragments."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stowkeeper.services.building.bulk_parts import BulkPart


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a part."""

    part: BulkPart
    begin: int
    length: int

    def pieces(self) -> Iterator[bytes]:
        """Give the bytes. Raises OSError."""
        return self.part.pieces(self.begin, self.length)


@dataclass(frozen=True, slots=True)
class InParts:
    """A value that is made of parts, one behind the other."""

    spans: Sequence[Span]

    @property
    def length(self) -> int:
        """Bytes of the value without padding."""
        return sum(span.length for span in self.spans)


@dataclass(frozen=True, slots=True)
class Encapsulated:
    """Pixel data in fragments (PS3.5 §A.4). `offsets` is the content of the Basic Offset Table, b"" for an empty one."""

    fragments: Sequence[Span]
    offsets: bytes


Items = tuple["SourcedDataSet", ...]


@dataclass(frozen=True, slots=True)
class Sourced:
    """A data element and where its value comes from."""

    vr: bytes
    value: bytes | InParts | Encapsulated | Items


SourcedDataSet = Mapping[int, Sourced]
"""Elements by tag, ascending."""
