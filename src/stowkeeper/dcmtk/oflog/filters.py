"""Filters: which messages an appender takes, beside its threshold."""

import logging
from collections.abc import Callable, Sequence

from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog.levels import NUMBERS

Verdict = bool | None
"""Whether a message is taken; None leaves that to the next filter."""

Filter = Callable[[logging.LogRecord], Verdict]


class FilterChain:
    """Filters in their order: the first that decides counts, and what none decides about is taken."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = tuple(filters)

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a message is taken."""
        verdicts = (decide(record) for decide in self._filters)
        return next((verdict for verdict in verdicts if verdict is not None), True)


def deny_all() -> Filter:
    """Return a filter that takes nothing."""
    return lambda _record: False


def level_match(level: LogLevel | None, *, accepts: bool) -> Filter:
    """Return a filter that decides about messages of one level, of none without a level."""
    number = None if level is None else NUMBERS[level]
    return lambda record: accepts if record.levelno == number else None


def level_range(lowest: LogLevel | None, highest: LogLevel | None, *, accepts: bool) -> Filter:
    """Return a filter that refuses messages outside of a range, and takes those within or leaves them."""
    bottom = NUMBERS[LogLevel.TRACE] if lowest is None else NUMBERS[lowest]
    top = NUMBERS[LogLevel.OFF] if highest is None else NUMBERS[highest]
    within = True if accepts else None
    return lambda record: within if bottom <= record.levelno <= top else False


def text_match(text: str, *, accepts: bool) -> Filter:
    """Return a filter that decides about messages that hold a text, of none without a text."""
    return lambda record: accepts if text and text in record.getMessage() else None
