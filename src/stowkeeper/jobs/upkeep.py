"""What an engine looks after once a minute: clocks that were set back, kinds that nobody knows, old jobs, old lanes.

Each looks first, and writes only where there is something to be done.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, or_, select, text, update

from stowkeeper.database.engine import Database, Transaction
from stowkeeper.database.schema import WAITING, job_lanes, jobs
from stowkeeper.jobs.actions import remove_old
from stowkeeper.jobs.columns import job_of
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.limits import (
    BULK_JOBS_MAX,
    LANE_KEPT_SECONDS,
    RETRY_AHEAD_SECONDS_MAX,
    SLEEP_SECONDS_MAX,
    UNKNOWN_KIND_CANCELLED_SECONDS,
    UNKNOWN_KIND_SECONDS,
    UNKNOWN_KIND_SEEN_SECONDS,
)
from stowkeeper.jobs.states import JobEvent, JobState, JobWish, next_state
from stowkeeper.jobs.times import later

_IS_WAITING = text(WAITING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one round of upkeep did."""

    brought_forward: int
    ended: tuple[Job, ...]


class Upkeep:
    """The rounds of one engine. `kinds` are the names that it knows; times in `clock` are wall-clock time."""

    def __init__(
        self,
        database: Database,
        *,
        kinds: Collection[str],
        retention_days: float,
        clock: Callable[[], str],
        monotonic: Callable[[], float],
        ends_unknown_kinds: bool = True,
    ) -> None:
        self._database = database
        self._kinds = sorted(kinds)
        self._ends_unknown_kinds = ends_unknown_kinds
        self._retention_seconds = retention_days * 86_400
        self._clock = clock
        self._monotonic = monotonic
        self._unknown_since: dict[str, float] = {}

    def round(self) -> Kept:
        """Do what is to be done, but for retention. Blocks; raises DatabaseUnavailable."""
        now = self._clock()
        with self._database.read() as connection:
            is_late = _is_there(connection, select(jobs.c.job_key).where(_set_back(now))) or _is_there(
                connection, select(job_lanes.c.lane).where(or_(_lane_set_back(now), _lane_is_old(now)))
            )
            self._see_unknown_kinds(connection)
            hopeless = _is_there(connection, select(jobs.c.job_key).where(self._nobody_takes(now)))
        if not is_late and not hopeless:
            return Kept(brought_forward=0, ended=())
        with self._database.write() as transaction:
            brought_forward = _bring_forward(transaction)
            ended = self._end_unknown(transaction)
        return Kept(brought_forward=brought_forward, ended=ended)

    def forget_old(self) -> bool:
        """Remove some of the jobs past their time; tell whether there may be more. Blocks; raises DatabaseUnavailable."""
        before = later(self._clock(), -self._retention_seconds)
        with self._database.read() as connection:
            old = select(jobs.c.job_key).where(jobs.c.finished_at.is_not(None), jobs.c.finished_at < before)
            if not _is_there(connection, old):
                return False
        with self._database.write() as transaction:
            return remove_old(transaction, before) > 0

    def _see_unknown_kinds(self, connection: Connection) -> None:
        if not self._ends_unknown_kinds:
            return
        query = select(jobs.c.kind).distinct().where(_IS_WAITING, jobs.c.kind.not_in(self._kinds))
        since = self._unknown_since
        now = self._monotonic()
        self._unknown_since = {kind: since.get(kind, now) for kind in connection.execute(query).scalars()}

    def _seen_for(self, seconds: float) -> list[str]:
        now = self._monotonic()
        return [kind for kind, since in self._unknown_since.items() if now - since >= seconds]

    def _nobody_takes(self, now: str) -> ColumnElement[bool]:
        """Return the condition of jobs that no process took in all the time it had, or that were cancelled meanwhile."""
        return and_(
            _IS_WAITING,
            or_(
                and_(
                    jobs.c.kind.in_(self._seen_for(UNKNOWN_KIND_SEEN_SECONDS)),
                    jobs.c.due_at < later(now, -UNKNOWN_KIND_SECONDS),
                ),
                and_(
                    jobs.c.kind.in_(self._seen_for(UNKNOWN_KIND_CANCELLED_SECONDS)),
                    jobs.c.wish == JobWish.CANCEL.value,
                    jobs.c.due_at < later(now, -UNKNOWN_KIND_CANCELLED_SECONDS),
                ),
            ),
        )

    def _end_unknown(self, transaction: Transaction) -> tuple[Job, ...]:
        query = select(jobs).where(self._nobody_takes(transaction.at)).limit(BULK_JOBS_MAX)
        ended: list[Job] = []
        for row in transaction.execute(query).all():
            job = job_of(row)
            is_cancelled = job.wish is JobWish.CANCEL
            event = JobEvent.CONCLUDE if is_cancelled else JobEvent.FAIL
            words = (
                f"no process here knows jobs of kind {job.kind}: start the version of Stowkeeper that submitted it,"
                " and try it again (`stowkeeper jobs retry`)"
            )
            transaction.execute(
                update(jobs)
                .where(jobs.c.job_key == job.job_key)
                .values(
                    state=next_state(job.state, event).value,
                    wish=JobWish.NONE.value,
                    error=job.error if is_cancelled else words,
                    finished_at=transaction.at,
                )
            )
            ended.append(job_of(transaction.execute(select(jobs).where(jobs.c.job_key == job.job_key)).one()))
        return tuple(ended)


def _is_there(connection: Connection, query: Select[Any]) -> bool:
    return connection.execute(query.limit(1)).first() is not None


def _set_back(now: str) -> ColumnElement[bool]:
    """Return the condition of jobs that are due later than anybody would have written by this clock."""
    return and_(
        _IS_WAITING,
        or_(
            and_(jobs.c.state == JobState.RETRY.value, jobs.c.due_at > later(now, RETRY_AHEAD_SECONDS_MAX)),
            jobs.c.due_at > later(now, SLEEP_SECONDS_MAX),
        ),
    )


def _lane_set_back(now: str) -> ColumnElement[bool]:
    return job_lanes.c.blocked_until > later(now, RETRY_AHEAD_SECONDS_MAX)


def _lane_is_old(now: str) -> ColumnElement[bool]:
    return job_lanes.c.blocked_until < later(now, -LANE_KEPT_SECONDS)


def _bring_forward(transaction: Transaction) -> int:
    """Make due what waits for a time that the clock will not reach soon; forget lanes that nobody tried for long."""
    now = transaction.at
    late = transaction.execute(update(jobs).where(_set_back(now)).values(due_at=now)).rowcount
    transaction.execute(update(job_lanes).where(_lane_set_back(now)).values(blocked_until=now))
    transaction.execute(delete(job_lanes).where(_lane_is_old(now)))
    return late
