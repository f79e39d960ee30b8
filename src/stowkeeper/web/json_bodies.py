"""JSON of large bodies, read so that other threads get their turns.

Python's JSON is read by one call into C, in which no other thread of the process runs: 64 MiB of it kept the receiver standing
for seconds. Its reader in Python takes three times as long, and lets others run after each value.
"""

import json
import re
from collections.abc import Callable
from json import scanner
from typing import Any, Final

from stowkeeper.web.limits import JSON_AT_ONCE_BYTES, JSON_MEMBERS_MAX, JSON_TEXT_CHARACTERS_MAX

# Nothing of it is ever gone back to.
_TEXT: Final = re.compile(r'(?:[^"\\]++|\\.)*+"', re.DOTALL)


_scan: Final[Callable[[str, int, bool], tuple[str, int]]] = json.JSONDecoder().parse_string  # type: ignore[attr-defined]  # the stubs leave it out


class JSONBoundError(ValueError):
    """A text or an object of a large body is longer than any that is needed."""


def load_json(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON can say
    """Return what a body says as JSON. Raises ValueError, and JSONBoundError among these.

    It is UTF-8, and not nested deep: `routes.check_json` has looked.
    """
    if len(body) <= JSON_AT_ONCE_BYTES:
        return json.loads(body)
    for at in range(0, len(body), JSON_TEXT_CHARACTERS_MAX):
        piece = body[at : at + JSON_TEXT_CHARACTERS_MAX]
        if len(piece) == JSON_TEXT_CHARACTERS_MAX and b'"' not in piece and b"," not in piece:
            raise JSONBoundError(f"a value or a gap is longer than {JSON_TEXT_CHARACTERS_MAX} bytes")
    return _Reader().decode(body.decode("utf-8-sig"))


class _Reader(json.JSONDecoder):
    """The reader of the standard library without its part in C, but for one text at a time."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_object)
        self.parse_string = _text
        self.scan_once = scanner.py_make_scanner(self)  # type: ignore[attr-defined]  # the stubs leave it out


def _text(text: str, begin: int, strict: bool) -> tuple[str, int]:
    if _TEXT.match(text, begin, begin + JSON_TEXT_CHARACTERS_MAX) is None:
        raise JSONBoundError(f"a text has no end within {JSON_TEXT_CHARACTERS_MAX} characters")
    return _scan(text, begin, strict)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members) > JSON_MEMBERS_MAX:
        raise JSONBoundError(f"an object has more than {JSON_MEMBERS_MAX} members")
    return dict(members)
