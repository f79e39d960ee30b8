"""From the forwards that wait to jobs: one for a destination and a priority at a time, the oldest first.

Another one is made while a job waits for room for instances that the destination refused for now. What is sent is the version
that the rules chose, as long as it is the current one. Of one that was removed meanwhile, or that another one took the place
of, nothing is sent: the row is dropped, and says why.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Row, bindparam, delete, select, update

from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.choosing import GONE
from stowkeeper.database.engine import Database, Transaction, compile_statement, utc_now
from stowkeeper.database.schema import forwards, instances, job_items, jobs, versions
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.states import JobState
from stowkeeper.jobs.submission import submit
from stowkeeper.jobs.times import later
from stowkeeper.services.forwarding.destinations import Destinations
from stowkeeper.services.forwarding.limits import (
    FORWARDS_PER_JOB,
    GATHER_SECONDS,
    JOBS_WITHOUT_ROOM_MAX,
)
from stowkeeper.services.forwarding.rows import IS_OPEN, ForwardState
from stowkeeper.services.store_items import NOT_CURRENT, OPEN
from stowkeeper.services.store_submission import CannotStoreError

log = structlog.get_logger("stowkeeper.forwarding")

_QUEUE: Final = compile_statement(
    update(forwards)
    .where(forwards.c.forward_key == bindparam("key"))
    .values(
        state=bindparam("after"),
        job_key=bindparam("job"),
        position=bindparam("place"),
        changed_at=bindparam("now"),
    ),
    ("after", "job", "place", "now", "key"),
)
_DISMISS: Final = compile_statement(
    update(forwards)
    .where(forwards.c.forward_key == bindparam("key"))
    .values(state=bindparam("after"), words=bindparam("why"), changed_at=bindparam("now")),
    ("after", "why", "now", "key"),
)


@dataclass(frozen=True, slots=True)
class Group:
    """What jobs are made for: a destination and a priority."""

    destination: str
    priority: int


class JobMaker:
    """Puts in jobs for what waits. Several processes of an archive may: what one put in the others find."""

    def __init__(
        self, database: Database, places: Destinations, gather_seconds: float = GATHER_SECONDS
    ) -> None:
        self._database = database
        self._places = places
        self._gather_seconds = gather_seconds
        self._obstacles: dict[str, str] = {}
        self._last: dict[Group, Job] = {}

    def look(self) -> int:
        """Put in what jobs are due; return how many. Raises DatabaseUnavailable."""
        with self._database.read() as connection:
            due = [
                group
                for group in groups_in(connection, ForwardState.WAITING)
                if self._is_due(connection, group)
            ]
        made = 0
        for group in due:
            if not self._is_known(group.destination):
                continue
            try:
                with self._database.write() as transaction:
                    job = self._make(transaction, group)
            except CannotStoreError:
                continue  # it was removed just now, which the next look says
            if job is not None:
                made += 1
                self._last[group] = job
                _tell(job, group)
        self._obstacles = {
            name: words
            for name, words in self._obstacles.items()
            if any(group.destination == name for group in due)
        }
        return made

    def _is_due(self, connection: Connection, group: Group) -> bool:
        """Tell whether nothing is under way for a group, and enough waits or waits for long enough."""
        if is_under_way(connection, group):
            return False
        first = connection.execute(_waiting(group, forwards.c.changed_at).limit(1)).scalar()
        now = utc_now()
        if first is None or not first <= now < later(first, self._gather_seconds):
            return first is not None
        full = _waiting(group, forwards.c.forward_key).offset(FORWARDS_PER_JOB - 1).limit(1)
        return connection.execute(full).first() is not None

    def _is_known(self, destination: str) -> bool:
        """Tell whether a job could be made; where none can, say so in the log, once for each reason."""
        try:
            self._places.request(destination, (), 0)
        except CannotStoreError as error:
            if self._obstacles.get(destination) != str(error):
                self._obstacles[destination] = str(error)
                log.error(
                    "error",
                    what="nothing is forwarded to a destination, and what is to go there waits",
                    destination=destination,
                    why=str(error),
                )
            return False
        if self._obstacles.pop(destination, None) is not None:
            log.info("forwarding", what="the destination can be forwarded to again", destination=destination)
        return True

    def _make(self, transaction: Transaction, group: Group) -> Job | None:
        if is_under_way(transaction.connection, group):
            return None  # another process was first
        to_send: list[Row[Any]] = []
        dismissed: list[tuple[object, ...]] = []
        for row in transaction.execute(_candidates(group)):
            if row.current_version_key == row.version_key:
                to_send.append(row)
            else:
                after, words = _why_not(row)
                dismissed.append((after.value, words, transaction.at, row.forward_key))
        transaction.executemany(_DISMISS, dismissed)
        if not to_send:
            return None
        self._forget_last(transaction, group)
        uids = [row.sop_instance_uid for row in to_send]
        job = submit(transaction, self._places.request(group.destination, uids, group.priority))
        queued = ForwardState.QUEUED.value
        transaction.executemany(
            _QUEUE,
            [
                (queued, job.job_key, position, transaction.at, row.forward_key)
                for position, row in enumerate(to_send)
            ],
        )
        return job

    def _forget_last(self, transaction: Transaction, group: Group) -> None:
        """Remove the job before, if it sent all that it had: there would be one for every few seconds in which anything arrives.

        What became of its instances the forwards say. One that failed or was cancelled stays, as every other job.
        """
        last = self._last.get(group)
        if last is not None:
            is_last = (jobs.c.job_key == last.job_key) & (jobs.c.state == JobState.SUCCESS.value)
            transaction.execute(delete(jobs).where(is_last))


def _tell(job: Job, group: Group) -> None:
    log.info(
        "forwarding",
        what="put into a job",
        destination=group.destination,
        priority=group.priority,
        job=job.job_id,
        instances=job.items_total,
    )


def groups_in(connection: Connection, state: ForwardState) -> Iterator[Group]:
    """Give the destinations and priorities that have rows in a state, from one to the next in the index: not row by row."""
    destination: str | None = None
    while True:
        names = select(forwards.c.destination).where(IS_OPEN, forwards.c.state == state.value)
        if destination is not None:
            names = names.where(forwards.c.destination > destination)
        destination = connection.execute(names.order_by(forwards.c.destination).limit(1)).scalar()
        if destination is None:
            return
        yield from _priorities(connection, state, destination)


def _priorities(connection: Connection, state: ForwardState, destination: str) -> Iterator[Group]:
    """Give the largest first."""
    of_destination = select(forwards.c.priority).where(
        IS_OPEN, forwards.c.state == state.value, forwards.c.destination == destination
    )
    query = of_destination
    while True:
        priority = connection.execute(query.order_by(forwards.c.priority.desc()).limit(1)).scalar()
        if priority is None:
            return
        yield Group(destination, priority)
        query = of_destination.where(forwards.c.priority < priority)


def jobs_of(connection: Connection, group: Group) -> Iterator[int]:
    """Give the jobs that have rows of a group, from one to the next in the index: not row by row."""
    after = -1
    while True:
        query = _of(group, ForwardState.QUEUED, forwards.c.job_key).where(forwards.c.job_key > after)
        found = connection.execute(query.order_by(forwards.c.job_key).limit(1)).scalar()
        if found is None:
            return
        yield (after := found)


def is_under_way(connection: Connection, group: Group) -> bool:
    """Tell whether what waits of a group has to wait for a job that has others of it.

    It does not wait for jobs that wait themselves, for room for instances which the destination refused for now: it may take
    others. Not many such jobs are made, since it may as well take none.
    """
    found = list(jobs_of(connection, group))
    return len(found) >= JOBS_WITHOUT_ROOM_MAX or not all(_has_no_room(connection, key) for key in found)


def _has_no_room(connection: Connection, job_key: int) -> bool:
    """Tell whether a job waits for its next try, and each instance that it has left was refused for now."""
    state = connection.execute(select(jobs.c.state).where(jobs.c.job_key == job_key)).scalar()
    if state != JobState.RETRY.value:
        return False
    of_job = (job_items.c.job_key == job_key, job_items.c.outcome == OPEN)
    others = select(job_items.c.position).where(*of_job, job_items.c.code.is_(None)).limit(1)
    return connection.execute(others).first() is None


def _of(group: Group, state: ForwardState, *columns: Any) -> Any:  # noqa: ANN401 - SQLAlchemy's type for some columns
    return select(*columns).where(
        IS_OPEN,
        forwards.c.state == state.value,
        forwards.c.destination == group.destination,
        forwards.c.priority == group.priority,
    )


def _waiting(group: Group, *columns: Any) -> Any:  # noqa: ANN401 - SQLAlchemy's type for some columns
    """Return the query for rows that wait, in their order, which the index has: no job has them."""
    query = _of(group, ForwardState.WAITING, *columns)
    return query.where(forwards.c.job_key.is_(None)).order_by(forwards.c.forward_key)


def _candidates(group: Group) -> Any:  # noqa: ANN401 - SQLAlchemy's type for some columns
    first = _waiting(group, forwards.c.forward_key, forwards.c.version_key).limit(FORWARDS_PER_JOB).subquery()
    return (
        select(
            first.c.forward_key,
            first.c.version_key,
            versions.c.state,
            instances.c.sop_instance_uid,
            instances.c.current_version_key,
        )
        .select_from(first)
        .join(versions, versions.c.version_key == first.c.version_key)
        .join(instances, instances.c.instance_key == versions.c.instance_key)
        .order_by(first.c.forward_key)
    )


def _why_not(row: Row[Any]) -> tuple[ForwardState, str]:
    """Say what becomes of a forward whose version is not the current one."""
    state = VersionState(row.state)
    if state is VersionState.DAMAGED:
        return ForwardState.FAILED, GONE[state]
    if state in (VersionState.REMOVING, VersionState.REMOVED):
        return ForwardState.DROPPED, GONE[state]
    return ForwardState.DROPPED, NOT_CURRENT
