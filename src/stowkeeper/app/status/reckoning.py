"""When the disk will be full, at the rate of the last day."""

import datetime as dt

from stowkeeper.app.commands.byte_progress import human_size
from stowkeeper.app.status.limits import FULL_DAYS_MAX, RATE_SECONDS
from stowkeeper.app.status.state import Reckoning


def reckon_full(
    *, free_bytes: int, mark_bytes: int, kept_last_day: int, first_received_at: str | None, now: str
) -> Reckoning:
    """Say when instances are refused for lack of room, if every day is as the last 24 hours.

    `mark_bytes` is what must stay free, `kept_last_day` are the bytes of the files that came in the last 24 hours and are
    still there. Times are UTC in ISO 8601.
    """
    at = dt.datetime.fromisoformat(now)
    left = free_bytes - mark_bytes
    if left <= 0:
        return Reckoning(full_at=now, words="now: less is free than must stay free")
    if first_received_at is None:
        return Reckoning(full_at=None, words="not enough data: nothing was received yet")
    known = at - dt.datetime.fromisoformat(first_received_at)
    if known.total_seconds() < RATE_SECONDS:
        return Reckoning(
            full_at=None,
            words=f"not enough data: the first instance came {duration(known.total_seconds())} ago",
        )
    if kept_last_day <= 0:
        return Reckoning(full_at=None, words="not in sight: nothing of the last 24 h is kept")
    reckoned = f"{human_size(kept_last_day)} of the last 24 h are kept, and {human_size(left)} are left above the mark"
    days = left / kept_last_day
    if days > FULL_DAYS_MAX:
        return Reckoning(full_at=None, words=f"not within {FULL_DAYS_MAX // 365} years: {reckoned}")
    full_at = at + dt.timedelta(days=days)
    when = f"on {full_at:%Y-%m-%d}, in {duration(days * 86400)}"
    return Reckoning(full_at=f"{full_at:%Y-%m-%dT%H:%M:%SZ}", words=f"{when}: {reckoned}")


def duration(seconds: float) -> str:
    """Say how long something takes or took, in the two units that matter."""
    minutes = int(max(seconds, 0) // 60)
    days, hours = divmod(minutes // 60, 24)
    if days >= 10:
        return f"{days} days"
    if days:
        return f"{days} {'day' if days == 1 else 'days'} {hours} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(max(seconds, 0))} s"
