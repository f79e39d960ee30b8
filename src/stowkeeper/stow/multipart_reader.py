"""A body of `multipart/related` (RFC 2046 §5.1, RFC 2387), read as it comes: bytes in any split in, events out.

It looks for a line break, two hyphens and the boundary, and what follows decides: blanks and a line break begin a part, two
more hyphens close the body, anything else was content. No length that the sender states is believed. No more is kept of a
body than the fields of one part, or what may be the beginning of a boundary.

A part whose fields cannot be read has a `defect`; its bytes come all the same, and the parts behind it are not harmed.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stowkeeper.stow.limits import (
    BOUNDARY_BYTES_MAX,
    PADDING_BYTES_MAX,
    PART_FIELDS_MAX,
    PART_HEAD_BYTES_MAX,
    PREAMBLE_BYTES_MAX,
)

_CRLF: Final = b"\r\n"
_END_OF_HEAD: Final = b"\r\n\r\n"
_BEHIND_BOUNDARY: Final = rb"(?P<hyphens>--)?+[ \t]{0,%d}+(?P<end>\r\n|[\r\n-]?\Z)" % PADDING_BYTES_MAX
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class MultipartError(ValueError):
    """The body is not multipart as its boundary says; the text says why. Nothing behind it can be read."""


@dataclass(frozen=True, slots=True)
class PartBegan:
    """A part begins. `fields` are by name in lower case; `defect` says why they cannot be used, '' where they can."""

    fields: Mapping[str, str]
    defect: str = ""


@dataclass(frozen=True, slots=True)
class PartData:
    """The next bytes of the part. They stay as they are for as long as somebody holds them."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartEnded:
    """The part is whole: a boundary stands behind it."""


Event = PartBegan | PartData | PartEnded


@dataclass(frozen=True, slots=True)
class _Delimiter:
    """A boundary in what is kept: where its line break begins, and where the one behind it does."""

    begin: int
    end: int
    closes: bool


class MultipartReader:
    """Reads one body: `feed` it every piece, then `finish`. Raises ValueError for a boundary that cannot be one.

    What a piece tells is found as it is asked for, all of it before the next piece: there may be one event in it, or thousands.
    When the closing boundary was seen `is_closed` is true, and what still comes is passed over.
    """

    def __init__(self, boundary: str) -> None:
        text = boundary.encode("latin-1", "replace")
        if not 0 < len(text) <= BOUNDARY_BYTES_MAX:
            raise ValueError(f"a boundary has 1 to {BOUNDARY_BYTES_MAX} characters")
        if any(byte in text for byte in b"\r\n\0"):
            raise ValueError("a boundary has no line break and no NUL in it")
        self._delimiter = _CRLF + b"--" + text
        self._line = re.compile(re.escape(self._delimiter) + _BEHIND_BOUNDARY)
        self._step: Callable[[bool], list[Event] | None] = self._read_preamble
        # A line break may be the end of one thing and the beginning of a boundary, and before the very first boundary it
        # may be absent. So one is borrowed: it stands at the front of what is kept, and is no content.
        self._kept = _CRLF
        self._at = 0
        self._borrowed = len(_CRLF)
        self._behind_head: _Delimiter | int | None = None
        self.is_closed = False

    def feed(self, piece: bytes | memoryview) -> Iterator[Event]:
        """Take the next bytes of the body, and yield what they tell. Raises MultipartError."""
        if self.is_closed:
            return
        self._kept += piece
        yield from self._run(is_last=False)
        self._kept = self._kept[self._at :]
        self._at = 0

    def finish(self) -> Iterator[Event]:
        """Say that the body has ended, and yield what is still to tell. Raises MultipartError where its close is missing."""
        yield from self._run(is_last=True)
        if not self.is_closed:
            raise MultipartError(self._words())

    def _run(self, *, is_last: bool) -> Iterator[Event]:
        while not self.is_closed:
            found = self._step(is_last)
            if found is None:
                break
            yield from found

    # The places where a byte can be. Each returns what it found, None where it needs more.

    def _read_preamble(self, is_last: bool) -> list[Event] | None:
        found = self._find(is_last)
        # What was found bounds the preamble, not how much came with it: that is a matter of how the body was cut.
        if _begin(found) > PREAMBLE_BYTES_MAX:
            raise MultipartError(self._words())
        if isinstance(found, _Delimiter):
            self._pass(found)
            return []
        return None

    def _read_head(self, is_last: bool) -> list[Event] | None:
        """Read the fields of a part. At the front stands the line break behind the boundary."""
        found = self._find(is_last)
        # Looked for up to the next delimiter only: a body of nothing but boundaries would be gone through for each of them.
        limit = found.begin + len(_CRLF) if isinstance(found, _Delimiter) else len(self._kept)
        blank_line = self._kept.find(_END_OF_HEAD, self._at, limit)
        end = blank_line if blank_line >= 0 else _begin(found)
        if end - self._at > PART_HEAD_BYTES_MAX:
            self._step = self._read_content
            return [PartBegan({}, f"its fields are longer than {PART_HEAD_BYTES_MAX} bytes")]
        if blank_line >= 0:
            began = _part(self._kept[self._at + self._borrowed : blank_line])
            self._at = blank_line + len(_CRLF)
            self._step = self._read_content
            self._behind_head = found  # the part was gone through for it, which is not to be done twice
            return [began]
        # A part may end right behind its fields, without a blank line (RFC 2046 §5.1.1, body-part).
        if isinstance(found, _Delimiter):
            began = _part(self._kept[self._at + self._borrowed : found.begin])
            self._pass(found)
            return [began, PartEnded()]
        return None

    def _read_content(self, is_last: bool) -> list[Event] | None:
        found, self._behind_head = self._behind_head, None
        if found is None:
            found = self._find(is_last)
        begin = self._at + self._borrowed
        if isinstance(found, _Delimiter):
            events: list[Event] = []
            if found.begin > begin:
                events.append(PartData(memoryview(self._kept)[begin : found.begin]))
            events.append(PartEnded())
            self._pass(found)
            return events
        if found <= begin:
            return None
        data = PartData(memoryview(self._kept)[begin:found])
        self._at, self._borrowed = found, 0
        return [data]

    def _find(self, is_last: bool) -> _Delimiter | int:
        """Return the next delimiter in what is kept, or the place up to which there certainly is none."""
        kept, delimiter = self._kept, self._delimiter
        # To look for a text is ten times as fast as to look for a pattern; but a body may be full of what is nearly a delimiter.
        place = kept.find(delimiter, self._at)
        for found in self._line.finditer(kept, place) if place >= 0 else ():
            closes, line_end = found["hyphens"] is not None, found["end"]
            if line_end == _CRLF:
                return _Delimiter(found.start(), found.start("end"), closes)
            if not is_last:
                return found.start()
            # The last line may end anyhow: `echo` puts an LF there.
            if closes and line_end != b"-":
                return _Delimiter(found.start(), len(kept), closes)
        if is_last:
            return len(kept)
        # Where no line break begins near the end nothing is kept, and the next piece is read as it came, without a copy.
        place = kept.find(b"\r", max(self._at, len(kept) - len(delimiter) + 1))
        return place if place >= 0 else len(kept)

    def _pass(self, delimiter: _Delimiter) -> None:
        """Go on behind a delimiter, whose line break may be the beginning of the next one."""
        self._at, self._borrowed = delimiter.end, len(_CRLF)
        self._step = self._read_head
        self.is_closed = delimiter.closes
        if self.is_closed:
            self._kept, self._at = b"", 0

    def _words(self) -> str:
        if self._step != self._read_preamble:
            return "the body ends without its closing boundary"
        if self._kept == _CRLF:  # the one that is borrowed; Python's client sends its body again as nothing
            return "the body is empty"
        boundary, begin = self._delimiter[len(_CRLF) :], self._kept[:PREAMBLE_BYTES_MAX]
        if boundary + b"\n" in begin:
            return "its lines end in LF alone; boundaries and fields of parts need CR LF"
        if boundary in begin:
            return "the boundary that the Content-Type names begins no part: it stands on no line of its own"
        return "the boundary that the Content-Type names is not at the beginning of the body"


def _begin(found: _Delimiter | int) -> int:
    """Return up to where there certainly is no delimiter."""
    return found.begin if isinstance(found, _Delimiter) else found


def _part(head: bytes) -> PartBegan:
    """Read the fields of a part; one that begins with a blank goes on with the one before (RFC 5322 §2.2.3)."""
    fields: dict[str, str] = {}
    lines = re.sub(rb"\r\n[ \t]+", b" ", head).split(_CRLF) if head else []
    if len(lines) > PART_FIELDS_MAX:
        return PartBegan({}, f"it has more than {PART_FIELDS_MAX} fields")
    for line in lines:
        name, colon, value = _text(line).partition(":")
        name, value = name.rstrip(" \t"), value.strip(" \t")
        if not colon or not _FIELD_NAME.fullmatch(name) or any(letter in value for letter in "\r\n\0"):
            return PartBegan({}, "one of its fields is malformed")
        if fields.setdefault(name.lower(), value) != value:
            return PartBegan({}, "it has the same field twice, with another value")
    return PartBegan(fields)


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")
