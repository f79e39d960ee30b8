"""The text of a settings file for `stowkeeper serve`, put together key by key, with remarks at its head.

The text is ASCII whatever its values are, so that it can be printed anywhere. Keys are given as text: the room that reads
settings stands above this one.
"""

from collections.abc import Iterator, Sequence
from typing import Final

Value = str | int | bool | Sequence[str]

_TABLES: Final = ("", "dicom", "access", "log", "tls", "negotiation", "[profiles]")
"""The tables in their order; the last is one of a list of tables."""
_ENTRIES_ON_A_LINE: Final = 3
"""Most entries of a list that are written on one line."""
_NOT_UTF_8: Final = "\N{REPLACEMENT CHARACTER}"


class SettingsText:
    """Collects settings and remarks. `title` are the lines that the text begins with, as comments."""

    def __init__(self, title: Sequence[str]) -> None:
        self._title = title
        self._lines: dict[str, list[str]] = {table: [] for table in _TABLES}
        self._remarks: list[str] = []

    def set(self, table: str, name: str, value: Value, comment: str = "") -> None:
        """Write a setting, with a comment behind it."""
        assignment = f"{name} = {_toml(value)}"
        self._lines[table].append(f"{assignment}  # {comment}" if comment else assignment)

    def comment(self, table: str, words: str) -> None:
        """Write a comment in a table."""
        self._lines[table].append(f"# {words}")

    def remark(self, option: str, words: str) -> None:
        """Write a line about an option at the head."""
        self._remarks.append(f"#   {option}: {words}")

    def __str__(self) -> str:
        """Return the whole text, with a line feed at its end."""
        return "\n".join(self._all_lines()) + "\n"

    def _all_lines(self) -> Iterator[str]:
        yield from (f"# {line}" for line in self._title)
        if self._remarks:
            yield "#"
            yield "# What is not set below:"
            yield from self._remarks
        for table, lines in self._lines.items():
            if lines:
                yield ""
                if table:
                    yield f"[{table}]"
                yield from lines


def is_utf_8(text: str) -> bool:
    """Tell whether an argument consists of characters; other bytes come as surrogates, which TOML does not know."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return toml_string(value)
    entries = [toml_string(entry) for entry in value]
    if len(entries) <= _ENTRIES_ON_A_LINE:
        return f"[{', '.join(entries)}]"
    return "\n".join(["[", *(f"    {entry}," for entry in entries), "]"])


def toml_string(text: str) -> str:
    """Write a text as TOML, in ASCII; what TOML does not know becomes a replacement character."""
    return f'"{"".join(map(_toml_character, text))}"'


def _toml_character(character: str) -> str:
    if not is_utf_8(character):
        character = _NOT_UTF_8
    if character in '"\\':
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    number = ord(character)
    return f"\\u{number:04X}" if number <= 0xFFFF else f"\\U{number:08X}"
