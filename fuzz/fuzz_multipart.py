"""Multipart bodies from anyone: read alike however they were cut, with no byte of content lost, and little kept.

The first line of an input is the boundary, its first byte also how the body, all that follows, is cut into pieces. The corpus in
`corpus/multipart` holds bodies as clients send them, and broken ones.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from stowkeeper.stow.limits import PADDING_BYTES_MAX, PART_FIELDS_MAX, PART_HEAD_BYTES_MAX, PREAMBLE_BYTES_MAX
from stowkeeper.stow.multipart_reader import (
    Event,
    MultipartError,
    MultipartReader,
    PartBegan,
    PartData,
    PartEnded,
)

TEXT = re.compile(r"[A-Za-z0-9 ,;:-]+")
"""What the words of an error and of a defect are made of: nothing of the body stands in them."""

KEPT_BYTES_MAX = max(PART_HEAD_BYTES_MAX, PREAMBLE_BYTES_MAX) + PADDING_BYTES_MAX + 256
"""What a reader may keep between two pieces: the longest head or preamble, and a boundary that is not decided yet."""


@dataclass(slots=True)
class Part:
    """A part as the events of a reader tell it."""

    fields: dict[str, str]
    defect: str
    content: bytearray = field(default_factory=bytearray)
    is_whole: bool = False


@dataclass(slots=True)
class Body:
    """All that a reader told of a body: its parts, and '' or why it has no end."""

    parts: list[Part] = field(default_factory=list)
    words: str = ""

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case PartBegan(fields, defect):
                    assert not self.parts or self.parts[-1].is_whole
                    assert not (fields and defect)
                    assert len(fields) <= PART_FIELDS_MAX
                    assert not defect or TEXT.fullmatch(defect), defect
                    self.parts.append(Part(dict(fields), defect))
                case PartData(data):
                    assert len(data) > 0
                    assert not self.parts[-1].is_whole
                    self.parts[-1].content += data
                case PartEnded():
                    assert not self.parts[-1].is_whole
                    self.parts[-1].is_whole = True


def target(data: bytes) -> None:
    """Raise only on a defect of ours."""
    first, _, body = data.partition(b"\n")
    boundary = first.decode("latin-1")
    try:
        MultipartReader(boundary)
    except ValueError:
        return
    whole = read(body, boundary, len(body))
    assert read(body, boundary, 1 + first[0] % 64) == whole
    check(whole, body, first)


def read(body: bytes, boundary: str, size: int) -> Body:
    """Read a body in pieces of `size` bytes."""
    reader = MultipartReader(boundary)
    told = Body()
    try:
        for start in range(0, len(body), size or 1):
            told.take(reader.feed(body[start : start + size]))
            assert len(reader._kept) <= KEPT_BYTES_MAX  # noqa: SLF001 - what it holds on to is what is measured
        told.take(reader.finish())
    except MultipartError as error:
        told.words = str(error)
        assert TEXT.fullmatch(told.words), told.words
        # What came of an unfinished part is gone anyhow, and how much had come is a matter of how the body was cut.
        if told.parts and not told.parts[-1].is_whole:
            told.parts[-1].content.clear()
    return told


def check(told: Body, body: bytes, boundary: bytes) -> None:
    place = 0
    for part in told.parts:
        assert part.is_whole or (told.words and part is told.parts[-1])
        place = body.find(part.content, place)
        assert place >= 0
        place += len(part.content)
        assert (b"\r\n--" + boundary + b"\r\n") not in part.content
        assert all(name == name.lower() and name.isascii() for name in part.fields)
        assert not any(letter in value for value in part.fields.values() for letter in "\r\n\0")
    assert told.words or (b"--" + boundary + b"--") in body


def main() -> None:
    try:
        import atheris  # noqa: PLC0415 - the corpus is replayed without it
    except ImportError:
        sys.exit("This fuzzer needs atheris: pip install atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
