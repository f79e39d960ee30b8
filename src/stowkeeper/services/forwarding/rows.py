"""Forwards as rows: what is to be sent on, to whom, and what became of it. For whoever looks at them or acts on them.

    waiting ──a job takes it──► queued ──the destination took it──► sent
       ▲ ▲                        │ └───not wanted any more───────► dropped
       │ └──────── retry ─────── failed ◄─its job ended without
       └── a rule chose it           └────────── drop ────────────► dropped

There is one row for a version and a destination, whatever how many rules chose it. What changes something takes the caller's
transaction, what only looks a connection.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select, text, update

from stowkeeper.archive import audit
from stowkeeper.archive.catalog_values import portions
from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import (
    OPEN_FORWARDS,
    forwards,
    instance_among,
    instances,
    jobs,
    series,
    studies,
    versions,
)
from stowkeeper.services.forwarding.limits import PAGE_MAX, ROWS_PER_ACTION, WORDS_MAX


class ForwardState(StrEnum):
    """Where a forward is. The first three are open: something is still to be done, by us or by a person."""

    WAITING = "waiting"
    QUEUED = "queued"
    FAILED = "failed"
    SENT = "sent"
    DROPPED = "dropped"


OPEN: Final = (ForwardState.WAITING, ForwardState.QUEUED, ForwardState.FAILED)

RETRIED: Final = "forwards retried"
DROPPED: Final = "forwards dropped"
"""What the audit trail calls it."""

IS_OPEN: Final = text(OPEN_FORWARDS)
"""Stands in each query that is to find its way by the index of the open ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A row for people. The UIDs of study and series are None for instances outside of studies.

    `job_id` is the last job that had it, None before and after that job was forgotten.
    """

    forward_key: int
    version_key: int
    sop_instance_uid: str
    series_instance_uid: str | None
    study_instance_uid: str | None
    destination: str
    rule: str
    priority: int
    state: ForwardState
    job_id: str | None
    words: str
    created_at: str
    changed_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardFilter:
    """Which rows a listing or an action is about; what is empty asks for nothing.

    A listing has the newest first: `before_key` is the `forward_key` of the last one of the page before. Raises ValueError for
    a `limit` out of bounds.
    """

    states: tuple[ForwardState, ...] = ()
    destination: str = ""
    rule: str = ""
    study_instance_uid: str = ""
    sop_instance_uid: str = ""
    before_key: int | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= PAGE_MAX:
            raise ValueError(f"a page of forwards has 1 to {PAGE_MAX} of them, not {self.limit}")


# For who removes.


def open_forwards_of(connection: Connection, version_keys: Iterable[int]) -> set[int]:
    """Return the versions that are still to be sent somewhere, or could not be: nobody may remove them by a rule."""
    found: set[int] = set()
    for some in portions(version_keys):
        query = select(forwards.c.version_key).where(
            forwards.c.version_key.in_(some), forwards.c.state.in_(list(OPEN))
        )
        found.update(connection.execute(query).scalars())
    return found


def sent_to(connection: Connection, version_keys: Iterable[int]) -> dict[int, set[str]]:
    """Return for each version that was sent anywhere the destinations that answered that they took it."""
    found: dict[int, set[str]] = {}
    for some in portions(version_keys):
        query = select(forwards.c.version_key, forwards.c.destination).where(
            forwards.c.version_key.in_(some), forwards.c.state == ForwardState.SENT.value
        )
        for row in connection.execute(query):
            found.setdefault(row.version_key, set()).add(row.destination)
    return found


# For who looks.


def list_forwards(connection: Connection, wanted: ForwardFilter) -> list[Forward]:
    """Return one page of the forwards that a filter finds, the newest first."""
    query = (
        select(
            forwards.c.forward_key,
            forwards.c.version_key,
            instances.c.sop_instance_uid,
            series.c.series_instance_uid,
            studies.c.study_instance_uid,
            forwards.c.destination,
            forwards.c.rule,
            forwards.c.priority,
            forwards.c.state,
            jobs.c.job_id,
            forwards.c.words,
            forwards.c.created_at,
            forwards.c.changed_at,
        )
        .select_from(forwards)
        .join(versions, versions.c.version_key == forwards.c.version_key)
        .join(instances, instances.c.instance_key == versions.c.instance_key)
        .outerjoin(series, series.c.series_key == versions.c.series_key)
        .outerjoin(studies, studies.c.study_key == series.c.study_key)
        .outerjoin(jobs, jobs.c.job_key == forwards.c.job_key)
        .where(forwards.c.forward_key.in_(_keys(wanted)))
        .order_by(forwards.c.forward_key.desc())
    )
    return [_forward(row) for row in connection.execute(query)]


def jobs_that_have(connection: Connection, wanted: ForwardFilter) -> list[tuple[str, int]]:
    """Return the jobs that have what a filter finds, whatever its states, each with how many; the one with the most first."""
    counted = (
        select(forwards.c.job_key, func.count().label("forwards"))
        .where(*_conditions(replace(wanted, states=(ForwardState.QUEUED,))))
        .group_by(forwards.c.job_key)
        .subquery()
    )
    query = (
        select(jobs.c.job_id, counted.c.forwards)
        .join(counted, counted.c.job_key == jobs.c.job_key)
        .order_by(counted.c.forwards.desc(), jobs.c.job_key)
    )
    return [(row.job_id, row.forwards) for row in connection.execute(query)]


def counts(connection: Connection) -> dict[tuple[str, ForwardState], int]:
    """Return how many forwards each destination has in each open state. It walks over those alone, in an index."""
    query = (
        select(forwards.c.destination, forwards.c.state, func.count())
        .where(IS_OPEN)
        .group_by(forwards.c.state, forwards.c.destination)
    )
    return {
        (destination, ForwardState(state)): count for destination, state, count in connection.execute(query)
    }


def _forward(row: Any) -> Forward:  # noqa: ANN401 - a row has its query's columns, no type of its own
    values = dict(row._mapping)  # noqa: SLF001 - the public name of a row's columns by name
    values["state"] = ForwardState(values["state"])
    values["series_instance_uid"] = values["series_instance_uid"] or None
    return Forward(**values)


def _keys(wanted: ForwardFilter) -> Select[Any]:
    """Return the query for the keys of one page: the rows of other tables are looked up for no more than those."""
    query = select(forwards.c.forward_key).where(*_conditions(wanted))
    if wanted.before_key is not None:
        query = query.where(forwards.c.forward_key < wanted.before_key)
    return query.order_by(forwards.c.forward_key.desc()).limit(wanted.limit)


def _conditions(wanted: ForwardFilter) -> list[Any]:
    conditions: list[Any] = []
    if wanted.states:
        conditions.append(forwards.c.state.in_([state.value for state in wanted.states]))
        if set(wanted.states) <= set(OPEN):
            conditions.append(IS_OPEN)
    if wanted.destination:
        conditions.append(forwards.c.destination == wanted.destination)
    if wanted.rule:
        conditions.append(forwards.c.rule == wanted.rule)
    if wanted.sop_instance_uid:
        of_instance = (
            select(versions.c.version_key)
            .join(instances, instances.c.instance_key == versions.c.instance_key)
            .where(instance_among([wanted.sop_instance_uid]))
        )
        conditions.append(forwards.c.version_key.in_(of_instance))
    if wanted.study_instance_uid:
        of_study = (
            select(versions.c.version_key)
            .join(series, series.c.series_key == versions.c.series_key)
            .join(studies, studies.c.study_key == series.c.study_key)
            .where(studies.c.study_instance_uid == wanted.study_instance_uid)
        )
        conditions.append(forwards.c.version_key.in_(of_study))
    return conditions


# What people ask of them.


def retry(transaction: Transaction, wanted: ForwardFilter, who: str) -> int:
    """Let forwards that failed wait again; return how many. At most ROWS_PER_ACTION: call it until it returns 0."""
    states = _within(wanted, (ForwardState.FAILED,))
    values = {"state": ForwardState.WAITING.value, "job_key": None, "position": None, "words": ""}
    return _act(transaction, replace(wanted, states=states), values, who, RETRIED, "")


def drop(transaction: Transaction, wanted: ForwardFilter, reason: str, who: str) -> int:
    """Give up forwards that wait or failed; return how many. At most ROWS_PER_ACTION: call it until it returns 0.

    One that a job has is not dropped: cancel the job, and it is a failed one.
    """
    states = _within(wanted, (ForwardState.WAITING, ForwardState.FAILED))
    words = cut_words(f"dropped by {who}: {reason}")
    values = {"state": ForwardState.DROPPED.value, "words": words}
    return _act(transaction, replace(wanted, states=states), values, who, DROPPED, reason)


def cut_words(words: str) -> str:
    """Return words as a row keeps them."""
    return words if len(words) <= WORDS_MAX else words[: WORDS_MAX - 1] + "…"


def _within(wanted: ForwardFilter, possible: tuple[ForwardState, ...]) -> tuple[ForwardState, ...]:
    return tuple(state for state in possible if not wanted.states or state in wanted.states)


def _act(
    transaction: Transaction,
    wanted: ForwardFilter,
    values: dict[str, Any],
    who: str,
    action: str,
    reason: str,
) -> int:
    if not wanted.states:
        return 0
    query = (
        select(forwards.c.forward_key, forwards.c.destination)
        .where(*_conditions(wanted))
        .order_by(forwards.c.forward_key)
        .limit(ROWS_PER_ACTION)
    )
    found = transaction.execute(query).all()
    for some in portions(row.forward_key for row in found):
        transaction.execute(
            update(forwards)
            .where(forwards.c.forward_key.in_(some))
            .values(changed_at=transaction.at, **values)
        )
    of_destination = Counter(row.destination for row in found)
    more = f": {reason}" if reason else ""
    deeds = [
        (name, f"{'1 instance' if count == 1 else f'{count} instances'}{more}")
        for name, count in of_destination.items()
    ]
    audit.note_all(transaction, who, action, deeds)
    return len(found)
