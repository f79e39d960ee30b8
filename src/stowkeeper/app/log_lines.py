"""One event, one line: what a log line looks like, and what never gets into one.

Peers choose some of the values (AE titles, UIDs, version names), so nothing unprintable reaches a line: no line
break, no terminal sequence, no character that changes the direction of writing. A quoted value cannot end its
quotes. So no peer can forge a line or hide one.

Patient data stay out by three rules. Fields that are named like identifying attributes are withheld. What a peer says in its own
words is withheld wherever it is quoted. The text of an exception is shown only where it is known to quote no data: libraries
like to repeat the value they choke on.
"""

import json
import math
import os
import re
import time
import traceback
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any

import stowkeeper
from stowkeeper.app.limits import LOG_CAUSES_MAX, LOG_TRACEBACK_FRAMES_MAX, LOG_VALUE_LETTERS_MAX
from stowkeeper.services.peer_words import without_quotes

WITHHELD = "(withheld)"
"""Stands where a value might be patient data."""

LOGGED_TO = "Logged to "
"""Begins the note on an error that was logged on its way out; the command line repeats the place."""

_PACKAGE_FOLDER = os.path.dirname(stowkeeper.__file__) + os.sep
_HEAD = frozenset({"time", "level", "event"})
"""Fields whose names a text line leaves out: they come first and speak for themselves."""

_FIELD_NAMES_MAX = 1024
"""Field names that are remembered: more than the program has."""

_to_json = json.JSONEncoder().encode
_BARE = re.compile(r"[A-Za-z0-9._:/@+,%\[\]()-]+")
_QUOTED = {'"': r"\"", "\\": r"\\"}
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

_WITHHELD_STEMS = (
    "patient",
    "referring_physician",
    "other_patient",
    "performing_physician",
    "requesting_physician",
)
_WITHHELD_FIELDS = frozenset(
    {
        "accession_number",
        "admission_id",
        "data_set",
        "institution_name",
        "issuer_of_patient_id",
        "name_of_physicians_reading_study",
        "operators_name",
        "physicians_of_record",
        "protocol_name",
        "requested_procedure_description",
        "series_description",
        "station_name",
        "study_description",
        "study_id",
        "values",
    }
)
"""Attributes of the data set, in snake case, that identify a person or that people type (PS3.15 Table E.1-1)."""

# Texts of these come from the interpreter and speak of the program, provided that our own code raised them.
_ABOUT_THE_PROGRAM = (
    AssertionError,
    AttributeError,
    ImportError,
    MemoryError,
    NameError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ZeroDivisionError,
)


def timestamp(nanoseconds: int) -> str:
    """Write a time since the epoch in UTC with milliseconds: 2024-05-06T07:08:09.123Z."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second_text(seconds)}.{rest // 1_000_000:03}Z"


@lru_cache(maxsize=2)
def _second_text(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def text_line(event: Mapping[str, object]) -> str:
    """Write an event as time, level, name, and `key=value` for the rest."""
    fields = [
        text_value(value)
        if key in _HEAD
        else f"{key if key.isidentifier() else text_value(key)}={text_value(value)}"
        for key, value in event.items()
    ]
    return " ".join(fields)


def json_line(event: Mapping[str, object]) -> str:
    """Write an event as one JSON object of ASCII characters."""
    return _to_json({key: _plain(value) for key, value in event.items()})


def text_value(value: object) -> str:
    """Write one value: bare where it is plain, quoted and escaped elsewhere."""
    if value.__class__ is int:
        return str(value)
    plain = _plain(value)
    if plain.__class__ is str:
        return plain if _BARE.fullmatch(plain) else f'"{escaped(plain)}"'
    return _to_json(plain)


def value_text(value: object) -> str:
    """Write one value without quotes: as it is where it is text, with what is not printable escaped."""
    plain = _plain(value)
    return printable(plain if plain.__class__ is str else _to_json(plain))


def head_of(event: Mapping[str, object]) -> tuple[str, str, str]:
    """Return time, level and name of an event."""
    return str(event.get("time", "-")), str(event.get("level", "")), str(event.get("event", ""))


def escaped(text: str) -> str:
    r"""Replace quotes, backslashes and all that is not printable by \", \\, \n, \x1b, \u202e and the like."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(_QUOTED.get(letter) or letter for letter in _printable_letters(text))


def printable(text: str) -> str:
    """Replace what is not printable, and leave quotes and backslashes: for sentences on a terminal."""
    return text if text.isprintable() else "".join(_printable_letters(text))


def without_patient_data(event: dict[str, object]) -> dict[str, object]:
    """Withhold the values of fields that are named like identifying attributes, and what peers are quoted with, in place."""
    for key, value in event.items():
        if _identifies(key):
            event[key] = WITHHELD
        elif isinstance(value, str) and "“" in value:
            event[key] = without_quotes(value)
    return event


@lru_cache(maxsize=_FIELD_NAMES_MAX)
def _identifies(field: str) -> bool:
    return field.startswith(_WITHHELD_STEMS) or field in _WITHHELD_FIELDS


def describe_exception(error: BaseException) -> dict[str, object]:
    """Return the fields of an exception: its type, its text if it quotes no data, its frames, its causes."""
    causes = list(_causes_of(error))
    fields: dict[str, object] = {
        "exception": _type_name(error),
        "exception_text": safe_text(error),
        "traceback": _frames_of(error.__traceback__),
    }
    if causes:
        fields["caused_by"] = "; ".join(
            f"{_type_name(cause)}: {safe_text(cause)} at {_frames_of(cause.__traceback__) or '-'}"
            for cause in causes
        )
    return fields


def safe_text(error: BaseException) -> str:
    """Return the text of an exception if it is known to quote no data, else WITHHELD."""
    original = getattr(error, "orig", None)
    if isinstance(original, BaseException):
        # SQLAlchemy repeats the statement with its parameters; the driver's own error speaks of the schema.
        return f"{_type_name(original)}: {safe_text(original)}"
    if isinstance(error, OSError) or _module_of(error).split(".")[0] in {"stowkeeper", "sqlite3"}:
        return _text_of(error)
    if isinstance(error, _ABOUT_THE_PROGRAM) and _raised_by_us(error):
        return _text_of(error)
    return WITHHELD if _text_of(error) else ""


def _plain(value: object) -> Any:  # noqa: ANN401 - None, bool, int, float or str
    if value.__class__ is str and len(value) <= LOG_VALUE_LETTERS_MAX:
        return value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _cut(bytes(value[: LOG_VALUE_LETTERS_MAX + 1]).decode("latin-1"))
    if isinstance(value, tuple | list | set | frozenset):
        return _cut(",".join(str(_plain(entry)) for entry in value))
    return _cut(_text_of(value))


def _cut(text: str) -> str:
    if len(text) <= LOG_VALUE_LETTERS_MAX:
        return text
    return f"{text[:LOG_VALUE_LETTERS_MAX]}… ({len(text)} letters)"


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a value that cannot be written must not stop the one who logs it
        return f"(unprintable {type(value).__name__})"


def _printable_letters(text: str) -> Iterator[str]:
    return (letter if letter.isprintable() else _escape_of(letter) for letter in text)


def _escape_of(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    code = ord(letter)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _module_of(error: BaseException) -> str:
    return type(error).__module__


def _type_name(error: BaseException) -> str:
    module = _module_of(error)
    return type(error).__qualname__ if module == "builtins" else f"{module}.{type(error).__qualname__}"


def _raised_by_us(error: BaseException) -> bool:
    last = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        last = frame
    return last is not None and last.f_code.co_filename.startswith(_PACKAGE_FOLDER)


def _frames_of(trace: TracebackType | None) -> str:
    frames = [
        f"{_short(frame.f_code.co_filename)}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(trace)
    ]
    if len(frames) > LOG_TRACEBACK_FRAMES_MAX:
        half = LOG_TRACEBACK_FRAMES_MAX // 2
        frames = [*frames[:half], f"({len(frames) - 2 * half} more)", *frames[-half:]]
    return " > ".join(frames)


def _short(path: str) -> str:
    return path.removeprefix(os.path.dirname(_PACKAGE_FOLDER.rstrip(os.sep)) + os.sep)


def _causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield what an exception came from, and the members of a group, each once, up to a bound."""
    seen = {id(error)}
    waiting = [error]
    while waiting and len(seen) <= LOG_CAUSES_MAX:
        current = waiting.pop(0)
        nearer = [current.__cause__ or (None if current.__suppress_context__ else current.__context__)]
        if isinstance(current, BaseExceptionGroup):
            nearer = [*current.exceptions, *nearer]
        for cause in nearer:
            if cause is not None and id(cause) not in seen and len(seen) <= LOG_CAUSES_MAX:
                seen.add(id(cause))
                waiting.append(cause)
                yield cause
