"""Layouts: how a message becomes a line, or lines."""

import logging
from collections.abc import Sequence
from typing import Final, Protocol

from stowkeeper.dcmtk.oflog.levels import level_of
from stowkeeper.dcmtk.oflog.patterns import Field, parse_pattern, running_milliseconds
from stowkeeper.dcmtk.oflog.times import format_time

DEFAULT_PATTERN: Final = "%P: %m%n"
"""What is written without a configuration file: the letter of the level, and the message."""


class Layout(Protocol):
    """Makes the text of a message, with its line ends."""

    def text(self, record: logging.LogRecord) -> str:
        """Return what is written for a message."""


class SimpleLayout:
    """`LEVEL - message`, the layout of appenders without one."""

    def text(self, record: logging.LogRecord) -> str:
        """Return what is written for a message."""
        return f"{level_of(record.levelno).name} - {record.getMessage()}\n"


class TTCCLayout:
    """Time, thread, category (the logger) and context, which is empty: `ms [thread] LEVEL logger <> - message`.

    The time are the milliseconds since the program was started, or what a date format asks for.
    """

    def __init__(self, *, date_format: str = "", utc: bool = False) -> None:
        self._date_format = date_format
        self._utc = utc

    def text(self, record: logging.LogRecord) -> str:
        """Return what is written for a message."""
        if self._date_format:
            when = format_time(record.created, self._date_format, utc=self._utc)
        else:
            when = running_milliseconds(record)
        level = level_of(record.levelno).name
        return f"{when} [{record.thread}] {level} {record.name} <> - {record.getMessage()}\n"


class PatternLayout:
    """What a pattern says, for every line of a message or for the message as a whole."""

    def __init__(self, fields: Sequence[Field], *, formats_each_line: bool = True) -> None:
        self._fields = tuple(fields)
        self._formats_each_line = formats_each_line

    def text(self, record: logging.LogRecord) -> str:
        """Return what is written for a message. A line end at its end counts as the beginning of an empty line."""
        message = record.getMessage()
        lines = message.split("\n") if self._formats_each_line else [message]
        return "".join(field.text(record, line) for line in lines for field in self._fields)


def default_layout() -> PatternLayout:
    """Return the layout of a log that no file sets up."""
    fields, _ = parse_pattern(DEFAULT_PATTERN)
    return PatternLayout(fields)
