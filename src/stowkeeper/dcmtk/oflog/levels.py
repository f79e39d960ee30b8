"""The names of log levels, and the numbers by which the standard library's `logging` knows them."""

import logging
from types import MappingProxyType
from typing import Final

from stowkeeper.dcmtk.log_options import LogLevel

NUMBERS: Final = MappingProxyType(
    {
        LogLevel.TRACE: 5,
        LogLevel.DEBUG: logging.DEBUG,
        LogLevel.INFO: logging.INFO,
        LogLevel.WARN: logging.WARNING,
        LogLevel.ERROR: logging.ERROR,
        LogLevel.FATAL: logging.CRITICAL,
        LogLevel.OFF: 60,
    }
)
"""What `logging` calls each level. TRACE is not 0, which stands there for no level at all."""

_EVERYTHING: Final = "ALL"


def level_named(word: str) -> LogLevel | None:
    """Return the level of a name in any case, None for another word. ALL is TRACE."""
    name = word.upper()
    return LogLevel.TRACE if name == _EVERYTHING else LogLevel.__members__.get(name)


def level_of(number: int) -> LogLevel:
    """Return the level of a message by its number: the gravest that is not above it."""
    return max((level for level in LogLevel if NUMBERS[level] <= number), default=LogLevel.TRACE)
