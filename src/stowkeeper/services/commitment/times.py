"""How long ago something was, by the wall clock, which can be set."""

from datetime import UTC, datetime

DAY_SECONDS = 86_400.0


def age_seconds(at: str) -> float:
    """Return how many seconds ago a time was that a row has: UTC in ISO 8601. Negative where the clock was set back."""
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()


def utc_now() -> str:
    """Return the time as rows have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
