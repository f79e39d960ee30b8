"""Whether the clock can be believed by who removes what is old: one that was set forward makes everything old.

Between two looks of one process a clock that only runs tells how much time really passed. After a pause nothing tells that,
so a long one counts as a jump. Then nothing is removed until the clock is put back, or a person says that it is right.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

from sqlalchemy import Connection, func, select

from stowkeeper.archive import audit
from stowkeeper.database.engine import Transaction, utc_now
from stowkeeper.database.schema import audit as audit_rows
from stowkeeper.database.schema import changes
from stowkeeper.jobs.times import later
from stowkeeper.services.retention.limits import ABSENCE_SECONDS, CLOCK_STEP_SECONDS
from stowkeeper.services.scrubbing import seconds_between

CLOCK_TRUSTED = "clock trusted"
"""The action in the audit trail of who says that the clock is right."""

_SUBJECT = "retention"


def trust_clock(transaction: Transaction, who: str) -> None:
    """Take note that a person says that the clock is right."""
    audit.note(transaction, who, CLOCK_TRUSTED, _SUBJECT, f"it is {transaction.at}")


def _last_trust(connection: Connection) -> int:
    query = select(func.coalesce(func.max(audit_rows.c.audit_key), 0)).where(
        audit_rows.c.action == CLOCK_TRUSTED, audit_rows.c.subject == _SUBJECT
    )
    return int(connection.execute(query).scalar_one())


def _last_sure_time(connection: Connection, now: str) -> str:
    """Return when the archive last changed, '' where it never did: what who never looked before can believe.

    What came after a pause proves nothing: the clock may have been set forward in it, and what arrived since has its times.
    """
    newest = select(changes.c.at).order_by(changes.c.seq.desc()).limit(1)
    since = later(now, -ABSENCE_SECONDS)
    before = (
        select(changes.c.seq, changes.c.at)
        .where(changes.c.at < since)
        .order_by(changes.c.seq.desc())
        .limit(1)
    )
    last = connection.execute(before).first()
    if last is not None:
        following = select(changes.c.at).where(changes.c.seq > last.seq).order_by(changes.c.seq).limit(1)
        first = connection.execute(following).scalar()
        if first is None or seconds_between(last.at, first) > ABSENCE_SECONDS:
            return str(last.at)
    return connection.execute(newest).scalar() or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """What is remembered from look to look; times are UTC in ISO 8601.

    `believed_at` is the latest time that was believed. While the clock is not, `doubted_at` is the time at which that began. `trust` is
    the last word of a person before, and `said_at` when the log last said that the clock is doubted, or behind.
    """

    believed_at: str = ""
    doubted_at: str = ""
    trust: int = 0
    said_at: str = ""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        return asdict(self)


def running_seconds() -> float:
    """Return the seconds by a clock that nobody sets; where there is one that runs while the machine sleeps, by that."""
    kept = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if kept is None else time.clock_gettime(kept)


class ClockWatch:
    """Judges the clock at each look. `clock` gives the time as UTC text, `running` seconds that nobody sets."""

    def __init__(
        self, *, clock: Callable[[], str] = utc_now, running: Callable[[], float] = running_seconds
    ) -> None:
        self.clock = clock
        self._running = running
        self._seen: tuple[str, float] | None = None

    def judge(self, connection: Connection, before: ClockState) -> tuple[ClockState, str]:
        """Return what to remember, and why the clock is not believed; '' when it is."""
        now = self.clock()
        believed_at = before.believed_at or _last_sure_time(connection, now) or now
        trust = _last_trust(connection)
        is_trusted = bool(before.doubted_at) and trust > before.trust
        if before.doubted_at and not is_trusted and now >= before.doubted_at:
            since = before.doubted_at
        else:
            since = "" if is_trusted or not self._has_jumped(believed_at, now) else now
        if since:
            doubt = ClockState(believed_at=believed_at, doubted_at=since, trust=trust, said_at=before.said_at)
            return doubt, (
                f"it is {now} by the clock, and was {believed_at} when that was last believed: either it was set forward, or"
                " no server ran for long"
            )
        self._seen = now, self._running()
        # Who was believed far ahead by mistake is back by a person's word alone: a clock may be behind for an hour, too.
        is_put_back = now < believed_at and trust > before.trust
        believed_at = now if is_trusted or is_put_back else max(believed_at, now)
        said_at = before.said_at if now < believed_at else ""
        return ClockState(believed_at=believed_at, trust=trust, said_at=said_at), ""

    def _has_jumped(self, believed_at: str, now: str) -> bool:
        ahead = seconds_between(believed_at, now)
        if self._seen is None or self._seen[0] != believed_at:
            return ahead > ABSENCE_SECONDS
        return ahead > self._running() - self._seen[1] + CLOCK_STEP_SECONDS
