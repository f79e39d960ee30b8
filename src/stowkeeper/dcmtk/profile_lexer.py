"""The lexical layer of DCMTK's configuration files: supersections, sections and entries from bytes.

The language has no errors. Whatever does not fit is dropped, exactly as DCMTK drops it, since a file that says one
thing there must not say another here:

- a line whose first character is `#` is a comment; blank lines do not count; line ends are LF, CR or CRLF;
- `[[name]]` begins a supersection and `[name]` a section. Two or more brackets mean a supersection;
- `key = value` is an entry. A following line that is indented belongs to the value, whatever it holds;
- names and keys keep letters, digits, `-` and `_`, in capitals, and lose everything else, line ends too: a key reaches
  up to the next `=`, a name up to the next `]`. So a missing `=` or `]` swallows the lines that follow;
- the value begins at its first visible character and keeps the blanks at its end;
- what stands before the first section of a supersection, and a second supersection of the same name, is not read.

A byte is one Latin-1 character; NUL is a blank.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANKS: Final = " \t"
_SPACE: Final = " \t\n"
_OPENING: Final = "[" + _SPACE
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_-]+")
_CAPITALS = {ord(letter): letter.upper() for letter in "abcdefghijklmnopqrstuvwxyz"}
_BRACKETS_OF_SUPERSECTION: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One `key = value`; `line` counts from 1 and is where the key begins."""

    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section with its entries in order; of equal keys the first one counts."""

    name: str
    line: int
    entries: tuple[Entry, ...]

    def first_of_each_key(self) -> dict[str, Entry]:
        """Return the entries that count, by key."""
        first: dict[str, Entry] = {}
        for entry in self.entries:
            first.setdefault(entry.key, entry)
        return first


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a file holds: the sections of each supersection, and the lines of supersections that are not read."""

    supersections: Mapping[str, tuple[Section, ...]]
    repeated: tuple[tuple[str, int], ...]


def capitals(text: str) -> str:
    """Return a text with its ASCII letters as capitals; others stay, as they do in the C locale."""
    return text.translate(_CAPITALS)


def parse_configuration(data: bytes) -> Configuration:
    """Read a configuration file. Never fails."""
    lines = _Lines(data)
    builder = _Builder()
    at = 0
    while at < len(lines.text):
        if lines.text[at] in _SPACE:
            at += 1
        elif lines.text[at] == "[":
            at = _read_header(lines, at, builder)
        else:
            at = _read_entry(lines, at, builder)
    return builder.configuration()


class _Lines:
    """The lines that count, joined by LF without their indentation, and where each comes from."""

    __slots__ = ("_indented", "_numbers", "_starts", "text")

    def __init__(self, data: bytes) -> None:
        self._starts: list[int] = []
        self._numbers: list[int] = []
        self._indented: list[bool] = []
        kept = []
        at = 0
        for number, line in enumerate(_LINE_END.split(data.decode("latin-1").replace("\0", " ")), start=1):
            content = line.lstrip(_BLANKS)
            if content and not line.startswith("#"):
                self._starts.append(at)
                self._numbers.append(number)
                self._indented.append(content != line)
                kept.append(content)
                at += len(content) + 1
        self.text = "\n".join(kept)

    def number_at(self, at: int) -> int:
        """Return the number of the line that a position stands in."""
        return self._numbers[bisect_right(self._starts, at) - 1]

    def end_of_value(self, at: int) -> int:
        """Return where the line of a position ends, or the last indented one that follows it."""
        following = bisect_right(self._starts, at)
        while following < len(self._starts) and self._indented[following]:
            following += 1
        return self._starts[following] - 1 if following < len(self._starts) else len(self.text)


_OpenSection = tuple[str, int, list[Entry]]


@dataclass(slots=True)
class _Builder:
    """Collects supersections while the file is read; `current` is the one being read, None before the first."""

    supersections: dict[str, list[_OpenSection]] = field(default_factory=dict)
    repeated: list[tuple[str, int]] = field(default_factory=list)
    current: list[_OpenSection] | None = None

    def begin_supersection(self, name: str, line: int) -> None:
        self.current = []
        if name in self.supersections:
            self.repeated.append((name, line))
        else:
            self.supersections[name] = self.current

    def begin_section(self, name: str, line: int) -> None:
        if self.current is not None:
            self.current.append((name, line, []))

    def add(self, entry: Entry) -> None:
        if self.current:
            self.current[-1][2].append(entry)

    def configuration(self) -> Configuration:
        return Configuration(
            supersections=MappingProxyType(
                {
                    supersection: tuple(
                        Section(name=name, line=line, entries=tuple(entries))
                        for name, line, entries in sections
                    )
                    for supersection, sections in self.supersections.items()
                }
            ),
            repeated=tuple(self.repeated),
        )


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("", capitals(text))


def _read_header(lines: _Lines, at: int, builder: _Builder) -> int:
    """Read `[name]` or `[[name]]`, and return where it ends: behind as many closing brackets as opened it."""
    begin, brackets = at, 0
    while begin < len(lines.text) and lines.text[begin] in _OPENING:
        brackets += lines.text[begin] == "["
        begin += 1
    end = lines.text.find("]", begin)
    name = _name(lines.text[begin:] if end < 0 else lines.text[begin:end])
    if brackets >= _BRACKETS_OF_SUPERSECTION:
        builder.begin_supersection(name, lines.number_at(at))
    else:
        builder.begin_section(name, lines.number_at(at))
    for _ in range(brackets - 1):
        if end < 0:
            break
        end = lines.text.find("]", end + 1)
    return len(lines.text) if end < 0 else end + 1


def _read_entry(lines: _Lines, at: int, builder: _Builder) -> int:
    """Read `key = value`, and return where the value ends. A key without `=` reaches to the end, its value is empty."""
    equals = lines.text.find("=", at)
    if equals < 0:
        equals = end = len(lines.text)
    else:
        end = lines.end_of_value(equals)
    builder.add(
        Entry(
            key=_name(lines.text[at:equals]),
            value=lines.text[equals + 1 : end].lstrip(_SPACE),
            line=lines.number_at(at),
        )
    )
    return end
