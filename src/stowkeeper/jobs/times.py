"""Arithmetic on times as the database has them: UTC in ISO 8601 with microseconds and a Z, in order as text."""

from datetime import UTC, datetime, timedelta

_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


def later(at: str, seconds: float) -> str:
    """Return the time so many seconds after another; negative ones are before it. Raises ValueError for other text."""
    moment = datetime.strptime(at, _FORMAT).replace(tzinfo=UTC)
    return (moment + timedelta(seconds=seconds)).strftime(_FORMAT)


def checked(at: str) -> str:
    """Return a time that is written as the database wants it. Raises ValueError for other text."""
    return later(at, 0.0)
