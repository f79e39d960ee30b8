"""Conversion patterns: `%-5.20c{1}` and the like in the text of a layout.

Between the percent sign and the letter of a conversion may stand `-` (fill on the right, not on the left), the width to
fill up to, and `.` with the width to cut down to. What is cut away is the beginning, and what was cut is not filled.
"""

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from stowkeeper.dcmtk.evaluation import leading_integer
from stowkeeper.dcmtk.oflog.levels import level_of
from stowkeeper.dcmtk.oflog.limits import FIELD_WIDTH_MAX
from stowkeeper.dcmtk.oflog.times import format_time

Conversion = Callable[[logging.LogRecord, str], str]
"""Makes the text of a field from a record and the message, or the line of it, that is being written."""

DEFAULT_TIME: Final = "%Y-%m-%d %H:%M:%S"
NATIVE_THREAD: Final = "native_thread"
"""The attribute of a record that keeps its thread's number in the system, where another thread writes it."""

_TOKEN = re.compile(
    r"""
    (?P<literal> [^%]+ | %% )
    | % (?P<left>-*+) (?P<minimum>[0-9]*+) (?: (?P<dot>\.) (?P<maximum>[0-9]*+) )?+ (?P<letter>.)?
      (?: (?<=[cdDX]) \{ (?P<option>[^}]*) (?P<closing>\}?) )?
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A part of a pattern: what is written there and how wide. Without `maximum` nothing is cut."""

    convert: Conversion
    minimum: int = 0
    maximum: int | None = None
    fills_right: bool = False

    def text(self, record: logging.LogRecord, message: str) -> str:
        """Return what stands in a line."""
        text = self.convert(record, message)
        if self.maximum is not None and len(text) > self.maximum:
            return text[len(text) - self.maximum :]
        return text.ljust(self.minimum) if self.fills_right else text.rjust(self.minimum)


def parse_pattern(pattern: str) -> tuple[list[Field], list[str]]:
    """Return the fields of a pattern and what is wrong with it. What is no conversion stands for itself."""
    fields = []
    defects = []
    literal = ""
    for found in _TOKEN.finditer(pattern):
        if defect := _defect(found):
            defects.append(f"at character {found.end()}: {defect}")
        if _is_conversion(found):
            if literal:
                fields.append(_literal(literal))
                literal = ""
            fields.append(_field(found))
        else:
            literal += "%" if found[0] == "%%" else found[0]
    if literal:
        fields.append(_literal(literal))
    return fields, defects


def _is_conversion(found: re.Match[str]) -> bool:
    return found["letter"] in _CONVERSIONS and bool(found["maximum"] or not found["dot"])


def _defect(found: re.Match[str]) -> str:
    """Return what is wrong with a token, nothing where it is right or ends with the pattern."""
    if not found["letter"]:
        return ""
    if found["dot"] and not found["maximum"]:
        return f"a digit is missing before '{found['letter']}'"
    if not _is_conversion(found):
        return f"there is no conversion '{found[0]}'"
    if found["option"] is not None and not found["closing"]:
        return "a '}' is missing, so the rest is dropped"
    if (leading_integer(found["minimum"]) or 0) > FIELD_WIDTH_MAX:
        return f"a field is filled up to {FIELD_WIDTH_MAX} characters at most"
    return ""


def _literal(text: str) -> Field:
    return Field(convert=lambda _record, _message: text)


def _field(found: re.Match[str]) -> Field:
    option = found["option"] if found["closing"] else ""
    return Field(
        convert=_CONVERSIONS[found["letter"]](option or ""),
        minimum=min(leading_integer(found["minimum"]) or 0, FIELD_WIDTH_MAX),
        maximum=leading_integer(found["maximum"] or ""),
        fills_right=bool(found["left"]),
    )


# Conversions, each made of its option: what stands in braces behind it, which is empty where there is none


def _always(text: str) -> Conversion:
    return lambda _record, _message: text


def _of_record(text: Callable[[logging.LogRecord], str]) -> Callable[[str], Conversion]:
    """Return the maker of a conversion that takes no option and looks at the record alone."""
    return lambda _option: lambda record, _message: text(record)


def _logger_name(option: str) -> Conversion:
    """Make the name of the logger, or so many parts of its end; of none or less, the whole."""
    parts = max(leading_integer(option) or 0, 0)
    return lambda record, _message: ".".join(record.name.rsplit(".", parts)[-parts:])


def _time(*, utc: bool) -> Callable[[str], Conversion]:
    return lambda option: (
        lambda record, _message: format_time(record.created, option or DEFAULT_TIME, utc=utc)
    )


def _level_name(record: logging.LogRecord) -> str:
    return level_of(record.levelno).name


def _native_thread(record: logging.LogRecord) -> str:
    return str(getattr(record, NATIVE_THREAD, threading.get_native_id()))


def running_milliseconds(record: logging.LogRecord) -> str:
    """Return for how long the program had run when a message was logged."""
    return str(int(record.relativeCreated))


def full_host_name() -> str:
    """Return the name of this host that its own name leads to, which may have a domain."""
    name = socket.gethostname()
    try:
        return socket.gethostbyname_ex(name)[0]
    except (OSError, UnicodeError):
        return name


_CONVERSIONS: Final[Mapping[str, Callable[[str], Conversion]]] = {
    "b": _of_record(lambda record: os.path.basename(record.pathname)),
    "c": _logger_name,
    "d": _time(utc=True),
    "D": _time(utc=False),
    "F": _of_record(lambda record: record.pathname),
    "h": lambda _option: _always(socket.gethostname()),
    "H": lambda _option: _always(full_host_name()),
    "i": _of_record(lambda record: str(record.process)),
    "l": _of_record(lambda record: f"{record.pathname}:{record.lineno}" if record.pathname else ":"),
    "L": _of_record(lambda record: str(record.lineno) if record.pathname else ""),
    "m": lambda _option: lambda _record, message: message,
    "M": _of_record(lambda record: record.funcName or ""),
    "n": lambda _option: _always("\n"),
    "p": _of_record(_level_name),
    "P": _of_record(lambda record: _level_name(record)[0]),
    "r": _of_record(running_milliseconds),
    "t": _of_record(lambda record: str(record.thread)),
    "T": _of_record(_native_thread),
    # The contexts of a message, nested or by key: DCMTK's receivers give none.
    "x": lambda _option: _always(""),
    "X": lambda _option: _always(""),
}
