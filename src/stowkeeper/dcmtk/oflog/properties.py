"""The text of a configuration file: `key = value` on every line, and `${variable}` in keys and values.

Nothing of it is an error but variables without end. What DCMTK drops without a word is dropped here with a remark.
"""

from collections.abc import Mapping
from typing import Final

from stowkeeper.dcmtk.oflog.limits import EXPANDED_CHARACTERS_MAX, EXPANSIONS_MAX

_BLANKS: Final = " \t\n\v\f\r"
_COMMENT: Final = "#"
_OPENING: Final = "${"
_CLOSING: Final = "}"


class ExpansionError(Exception):
    """Variables that lead to one another without end, or to a text without end."""


def parse_properties(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the properties of a text and remarks about lines that are none. The last of equal keys counts.

    Blanks around key and value are dropped. A line whose first visible character is `#` is a comment; within a line
    that character means nothing.
    """
    properties: dict[str, str] = {}
    remarks = []
    for number, line in enumerate(text.split("\n"), start=1):
        content = line.strip(_BLANKS)
        if not content or content.startswith(_COMMENT):
            continue
        key, equals, value = content.partition("=")
        if "\0" in content:
            remarks.append(f"line {number}: not text, has no effect")
        elif not equals:
            remarks.append(f"line {number}: there is no '=', so it has no effect")
        else:
            properties[key.rstrip(_BLANKS)] = value.lstrip(_BLANKS)
    return properties, remarks


def expand_properties(
    properties: Mapping[str, str], environment: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return properties with their variables replaced, and remarks about braces that are never closed.

    `${name}` stands for the property of that name, for the environment's variable where there is none or an empty one,
    and for itself where both are missing or empty. What is put in is expanded again, and so is the whole, until
    nothing changes. Raises ExpansionError.
    """
    expansion = _Expansion(properties, environment)
    while expansion.run_once():
        pass
    return expansion.properties, expansion.remarks


class _Expansion:
    """One file's variables on their way, in the order in which DCMTK replaces them: by key."""

    def __init__(self, properties: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.properties = dict(properties)
        self.remarks: list[str] = []
        self._environment = environment
        self._replaced = 0

    def run_once(self) -> bool:
        """Go through all properties; return whether anything changed."""
        has_changed = False
        for key in sorted(self.properties):
            value = self.properties.get(key, "")
            new_key = self._expand(key)
            if new_key != key:
                self.properties.pop(key, None)
            new_value = self._expand(value)
            self.properties[new_key] = new_value
            has_changed |= (new_key, new_value) != (key, value)
        return has_changed

    def _expand(self, text: str) -> str:
        expanded, position = text, 0
        while (opening := expanded.find(_OPENING, position)) >= 0:
            closing = expanded.find(_CLOSING, opening)
            if closing < 0:
                self._remark_on_open_brace(text)
                return text
            name = expanded[opening + len(_OPENING) : closing]
            replacement = self.properties.get(name) or self._environment.get(name)
            if replacement:
                expanded = expanded[:opening] + replacement + expanded[closing + len(_CLOSING) :]
                self._count(name, expanded)
            else:
                position = closing + len(_CLOSING)
        return expanded

    def _count(self, name: str, expanded: str) -> None:
        self._replaced += 1
        if self._replaced > EXPANSIONS_MAX or len(expanded) > EXPANDED_CHARACTERS_MAX:
            raise ExpansionError(
                f"the variables around ${{{name}}} have no end: one of them contains itself; take it out"
            )

    def _remark_on_open_brace(self, text: str) -> None:
        remark = f"'{text}': a brace is not closed, so no variable is replaced"
        if remark not in self.remarks:
            self.remarks.append(remark)
