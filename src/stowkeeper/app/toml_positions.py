"""Where the keys of a TOML file stand: line and column, for people who mend them.

Only for text that a parser of TOML has taken: what is no TOML the parser names itself, with its place.
"""

import re
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""A key below its tables; a table that stands in a list has its number in between, from 0 on."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANKS = re.compile(r"[ \t]*")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}
_QUOTES = ('"""', "'''", '"', "'")


def positions_of(text: str) -> dict[Path, tuple[int, int]]:
    """Return line and column, from 1 on, of each key and each table header of a TOML text."""
    found: dict[Path, tuple[int, int]] = {}
    counts: dict[Path, int] = {}
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    line_number = 0
    for path, place in _keys(text, counts):
        while line_number + 1 < len(starts) and starts[line_number + 1] <= place:
            line_number += 1
        found.setdefault(path, (line_number + 1, place - starts[line_number] + 1))
    return found


def position_of(path: Path, positions: dict[Path, tuple[int, int]]) -> tuple[int, int] | None:
    """Return the place of a key, or of what it lies in where it has none of its own."""
    for length in range(len(path), 0, -1):
        if path[:length] in positions:
            return positions[path[:length]]
    return None


def _keys(text: str, counts: dict[Path, int]) -> Iterator[tuple[Path, int]]:
    """Yield each key with the offset at which it begins, in the order of the text."""
    table: Path = ()
    place = 0
    while place < len(text):
        place = _skip_blanks(text, place)
        if place >= len(text):
            return
        if text[place] == "[":
            is_list = text.startswith("[[", place)
            start = _skip_blanks(text, place + (2 if is_list else 1))
            names, place = _dotted(text, start)
            table = _table(names, counts, is_list=is_list)
            if is_list:  # the list stands where its first entry does
                yield table[:-1], start
            yield table, start
            place = _end_of_line(text, place)
        elif text[place] in "\r\n#":
            place = _end_of_line(text, place)
        else:
            start = place
            names, place = _dotted(text, place)
            for length in range(1, len(names) + 1):
                yield (*table, *names[:length]), start
            place = _end_of_line(text, _end_of_value(text, place + 1))


def _table(names: list[str], counts: dict[Path, int], *, is_list: bool) -> Path:
    """Return the path of a header: below a table in a list it is the last one of the list that is meant."""
    path: Path = ()
    for name in names[:-1]:
        path = (*path, name)
        if path in counts:
            path = (*path, counts[path])
    path = (*path, names[-1])
    if is_list:
        counts[path] = counts.get(path, -1) + 1
        path = (*path, counts[path])
    return path


def _dotted(text: str, place: int) -> tuple[list[str], int]:
    """Read a key with its dots; return its parts and the offset behind it and the blanks after it."""
    names = []
    while True:
        place = _skip_blanks(text, place)
        if text[place] in "\"'":
            end = _end_of_string(text, place)
            inner = text[place + 1 : end - 1]
            names.append(_ESCAPE.sub(_unescape, inner) if text[place] == '"' else inner)
        else:
            bare = _BARE.match(text, place)
            if bare is None:
                return names or [""], place
            names.append(bare[0])
            end = bare.end()
        place = _skip_blanks(text, end)
        if not text.startswith(".", place):
            return names, place
        place += 1


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code[1:], 16)) if code[0] in "uU" and len(code) > 1 else _ESCAPED.get(code, code)


def _end_of_value(text: str, place: int) -> int:
    """Return the offset behind a value, which may have many lines."""
    depth = 0
    while place < len(text):
        letter = text[place]
        if letter in "\"'":
            place = _end_of_string(text, place)
            continue
        if letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "#":
            place = _end_of_line(text, place)
            if not depth:
                return place - 1
            continue
        elif letter == "\n" and not depth:
            return place
        place += 1
    return place


def _end_of_string(text: str, place: int) -> int:
    quote = next(quote for quote in _QUOTES if text.startswith(quote, place))
    place += len(quote)
    while place < len(text) and not text.startswith(quote, place):
        place += 2 if text[place] == "\\" and quote[0] == '"' else 1
    place += len(quote)
    # A string of many lines may end with quotes of its own.
    while len(quote) == 3 and text.startswith(quote[0], place):
        place += 1
    return place


def _end_of_line(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end + 1


def _skip_blanks(text: str, place: int) -> int:
    blanks = _BLANKS.match(text, place)
    return place if blanks is None else blanks.end()
