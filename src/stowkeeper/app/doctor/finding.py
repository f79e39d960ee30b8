"""What a check found: a level, one line in plain words, and where it is not well the command that mends it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How it is. A *warning* can wait for working hours; a *failure* keeps a server from starting, receiving or keeping."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding of a check: `words` is one line without a full stop, `mend` a command, or '' where all is well."""

    check: str
    level: Level
    words: str
    mend: str = ""


def ok(check: str, words: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check=check, level=Level.OK, words=words)


def warning(check: str, words: str, mend: str) -> Finding:
    """Return a finding that a person should look at."""
    return Finding(check=check, level=Level.WARNING, words=words, mend=mend)


def failure(check: str, words: str, mend: str) -> Finding:
    """Return a finding that keeps a server from doing its work."""
    return Finding(check=check, level=Level.FAILURE, words=words, mend=mend)
