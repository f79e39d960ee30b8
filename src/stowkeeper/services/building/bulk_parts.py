"""The bulk data of a store request: parts of its body, found by their Content-Location and read piece by piece.

A reference means a part when both are the same text. Nothing is resolved, and nothing is ever fetched.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from stowkeeper.services.building.errors import BuildError
from stowkeeper.services.building.limits import (
    BULK_PIECE_BYTES,
    FRAMES_MAX,
    SHARED_BYTES_MAX,
    SHARED_USES_MAX,
)
from stowkeeper.stow.media_types import MediaType
from stowkeeper.stow.reasons import FailureReason

_FRAMES: Final = "/frames/"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BulkPart:
    """A part of the body that holds bulk data: `length` bytes of `file` from `offset` on.

    `file` is the caller's to close, after the last piece of the last instance. Several parts may lie in one file.
    """

    content_location: str
    media_type: MediaType
    file: BinaryIO
    length: int
    offset: int = 0

    def read(self, at: int, count: int) -> bytes:
        """Return `count` bytes from `at` on, fewer where the part ends before. Raises OSError."""
        count = min(count, self.length - at)
        if at < 0 or count <= 0:
            return b""
        self.file.seek(self.offset + at)
        return self.file.read(count)

    def pieces(self, begin: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Give the bytes from `begin` on, `length` of them or all.

        Raises:
            OSError: the file cannot be read, or is shorter than the part.

        """
        at, end = begin, self.length if length is None else begin + length
        while at < end:
            piece = self.read(at, min(BULK_PIECE_BYTES, end - at))
            if not piece:
                raise OSError(f"a file of bulk data ends at byte {self.offset + at}, before its part does")
            at += len(piece)
            yield piece


class BulkParts:
    """All bulk data of one store request. What has been referred to is remembered, for all instances together."""

    def __init__(self, parts: Iterable[BulkPart]) -> None:
        self._by_location: dict[str, list[BulkPart]] = defaultdict(list)
        self._all = list(parts)
        for part in self._all:
            self._by_location[part.content_location].append(part)
        self._taken: set[int] = set()
        self._uris: set[str] = set()
        self._referred_to: set[int] = set()
        self._shared_bytes = 0
        self._shared_uses = 0

    def take(self, uri: str) -> BulkPart:
        """Return the part that `uri` means.

        Raises:
            BuildError: there is none, or several.

        """
        found = self._by_location.get(uri, ()) if uri else ()
        if not found:
            raise _missing()
        if len(found) > 1:
            raise BuildError(
                FailureReason.DOES_NOT_MATCH,
                "several parts have the same Content-Location, which only frames may have",
            )
        return self._use(found[0])

    def take_frames(self, uri: str) -> list[BulkPart]:
        """Return the parts that pixel data consist of, in the order of the frames.

        These are all that have `uri` as their location, in the order of the body, or else those of the locations
        `uri`/frames/1, `uri`/frames/2 and so on, as a retrieval names them (PS3.18 §8.6.1.2).

        Raises:
            BuildError: there is none.

        """
        found = self._frames(uri)
        if not found:
            raise _missing()
        return [self._use(part) for part in found]

    def refer(self, uri: str) -> None:
        """Remember that an instance refers to `uri`, whether it can be built or not."""
        if uri not in self._uris:  # a hundred thousand parts are looked for once, not by every element
            self._uris.add(uri)
            self._referred_to.update(id(part) for part in self._frames(uri))

    def not_referred_to(self) -> list[BulkPart]:
        """Return the parts that no instance has referred to, in the order of the body."""
        return [part for part in self._all if id(part) not in self._referred_to]

    def _frames(self, uri: str) -> list[BulkPart]:
        if not uri:
            return []
        found = list(self._by_location.get(uri, ()))
        if found:
            return found
        while len(found) < FRAMES_MAX:
            frame = self._by_location.get(f"{uri}{_FRAMES}{len(found) + 1}", ())
            if len(frame) != 1:
                break
            found += frame
        return found

    def _use(self, part: BulkPart) -> BulkPart:
        if id(part) in self._taken:
            self._shared_bytes += part.length
            self._shared_uses += 1
            if self._shared_bytes > SHARED_BYTES_MAX or self._shared_uses > SHARED_USES_MAX:
                raise BuildError(
                    FailureReason.OUT_OF_RESOURCES,
                    "instances of this request share more bulk data than one request may: "
                    f"more than {SHARED_BYTES_MAX} bytes, or more than {SHARED_USES_MAX} times",
                )
        self._taken.add(id(part))
        return part


def _missing() -> BuildError:
    return BuildError(
        FailureReason.BULK_DATA_MISSING,
        "the metadata refer to bulk data that is in no part of the request; addresses are not fetched",
    )
