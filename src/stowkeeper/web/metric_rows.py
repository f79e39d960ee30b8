"""Counters that follow the rows of the database: what came since the last look is counted by its keys, and nothing is walked over.

Every table that is counted has keys that only grow, and rows that stay or go by age. So a look reads the rows between two keys, a
bounded number at a time; a million rows of before cost nothing. The counters begin at 0 with the process, as Prometheus expects of
counters, and count what any process did to the archive. What a look did not come to within its time the next one counts.

Jobs and transactions change after they were written. Those that are not at their end are remembered by their keys and looked at
again: a microsecond or two each. So a clock that is set back counts nothing twice, and forgets nothing.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, case, func, select, text

from stowkeeper.archive.catalog_values import portions
from stowkeeper.database.schema import (
    RUNNING,
    WAITING,
    associations,
    commitment_instances,
    commitment_reports,
    commitments,
    jobs,
    receipts,
    requests,
)
from stowkeeper.dicom.status import meaning_of
from stowkeeper.jobs.states import FINISHED, JobState
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from stowkeeper.web.orthanc_limits import (
    METRICS_CODES_MAX,
    METRICS_PEERS_MAX,
    METRICS_PENDING_LOOK,
    METRICS_ROWS,
)

LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, in seconds, of the classes that the times of C-STORE requests are counted in."""

Labels = tuple[str, ...]


@dataclass(slots=True)
class RowCounts:
    """What was counted. The keys are the values of labels, in the order that the names say."""

    objects: Counter[Labels] = field(default_factory=Counter)  # way, outcome
    object_bytes: Counter[Labels] = field(default_factory=Counter)  # way, outcome
    refusals: Counter[Labels] = field(default_factory=Counter)  # status, reason
    lost: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    latency_seconds: float = 0.0
    disk_seconds: float = 0.0
    associations: int = 0
    rejections: Counter[Labels] = field(default_factory=Counter)  # result, source and reason
    commitment_requests: Counter[Labels] = field(default_factory=Counter)  # role, way, kind
    commitment_instances: Counter[Labels] = field(default_factory=Counter)  # role, outcome, reason
    reports: Counter[Labels] = field(default_factory=Counter)  # peer, way, result
    jobs_submitted: Counter[Labels] = field(default_factory=Counter)  # kind
    jobs_ended: Counter[Labels] = field(default_factory=Counter)  # kind, state
    jobs_now: Counter[Labels] = field(default_factory=Counter)  # kind, state


class RowCounters:
    """Follows the rows. Not for several threads at once."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin behind what is there now."""
        self.counts = RowCounts()
        self.is_behind = False
        self._clock = clock
        self._labels: defaultdict[str, set[str]] = defaultdict(set)
        self._open_jobs: dict[int, str] = dict(_unfinished_jobs(connection))
        self._open_commitments: dict[int, None] = dict.fromkeys(_uncertain_commitments(connection))
        self._followed = (
            _Followed(receipts.c.receipt_key, self._count_receipts),
            _Followed(requests.c.request_key, self._count_requests),
            _Followed(associations.c.association_key, self._count_associations),
            _Followed(commitments.c.commitment_key, self._count_commitments),
            _Followed(commitment_reports.c.report_key, self._count_reports),
            _Followed(jobs.c.job_key, self._count_jobs),
        )
        for followed in self._followed:
            followed.cursor = _last_key(connection, followed.key)

    def look(self, connection: Connection, seconds: float) -> None:
        """Count what came since, for so many seconds at most; `is_behind` says whether something is left."""
        deadline = self._clock() + seconds
        self.is_behind = False
        for followed in self._followed:
            last = _last_key(connection, followed.key)
            # Rows of tables without a sequence may get a key again when the last ones were deleted.
            followed.cursor = min(followed.cursor, last)
            while followed.cursor < last:
                if self._clock() >= deadline:
                    self.is_behind = True
                    break
                upto = min(followed.cursor + METRICS_ROWS, last)
                between = (followed.key > followed.cursor) & (followed.key <= upto)
                followed.count(connection, between)
                followed.cursor = upto
        self._look_at_commitments(connection)
        self._look_at_jobs(connection)

    # What came and stays as it is.

    def _count_receipts(self, connection: Connection, between: ColumnElement[bool]) -> None:
        table = receipts.c
        query = (
            select(table.received_by, table.outcome, func.count(), func.sum(table.data_set_length))
            .where(between)
            .group_by(table.received_by, table.outcome)
        )
        for way, outcome, number, size in connection.execute(query):
            self.counts.objects[way, outcome] += number
            self.counts.object_bytes[way, outcome] += size

    def _count_requests(self, connection: Connection, between: ColumnElement[bool]) -> None:
        table = requests.c
        classes = [
            func.sum(case((table.seconds_total <= bound, 1), else_=0)).label(f"within_{place}")
            for place, bound in enumerate(LATENCY_BOUNDS)
        ]
        query = (
            select(
                table.outcome,
                table.status,
                func.count().label("number"),
                func.sum(table.seconds_total).label("seconds"),
                func.sum(table.seconds_disk).label("disk"),
                *classes,
            )
            .where(between)
            .group_by(table.outcome, table.status)
        )
        for row in connection.execute(query).mappings():
            if row["outcome"] == "kept":
                within = [row[f"within_{place}"] for place in range(len(LATENCY_BOUNDS))] + [row["number"]]
                for place, number in enumerate(within):
                    self.counts.latency[place] += number
                self.counts.latency_seconds += row["seconds"]
                self.counts.disk_seconds += row["disk"]
            elif row["outcome"] == "refused":
                self.counts.refusals[_status_labels(row["status"])] += row["number"]
            else:
                self.counts.lost += row["number"]

    def _count_associations(self, connection: Connection, between: ColumnElement[bool]) -> None:
        table = associations.c
        why = (table.rejection_result, table.rejection_source, table.rejection_reason)
        for *numbers, count in connection.execute(select(*why, func.count()).where(between).group_by(*why)):
            if numbers[0] is None:
                self.counts.associations += count
            else:
                self.counts.rejections[(",".join(map(str, numbers)),)] += count

    def _count_commitments(self, connection: Connection, between: ColumnElement[bool]) -> None:
        table = commitments.c
        query = select(table.commitment_key, table.role, table.way, table.duplicate_of).where(between)
        for key, role, way, duplicate_of in connection.execute(query):
            kind = "new" if duplicate_of is None else "duplicate"
            self.counts.commitment_requests[role, way, kind] += 1
            self._open_commitments[key] = None

    def _count_reports(self, connection: Connection, between: ColumnElement[bool]) -> None:
        table = commitment_reports.c
        query = (
            select(commitments.c.peer, table.way, table.status, func.count())
            .join(commitments, commitments.c.commitment_key == table.commitment_key)
            .where(between)
            .group_by(commitments.c.peer, table.way, table.status)
        )
        for peer, way, status, number in connection.execute(query):
            if status is None:
                result = "no answer"
            else:
                result = "delivered" if status == 0 else self._code("report", status)
            # A stranger has no name: whatever it calls itself by must not take a peer's place.
            self.counts.reports[self._peer(peer) if peer else "unknown", way, result] += number

    def _count_jobs(self, connection: Connection, between: ColumnElement[bool]) -> None:
        table = jobs.c
        query = select(table.kind, table.state, func.count()).where(between).group_by(table.kind, table.state)
        for kind, state, number in connection.execute(query):
            self.counts.jobs_submitted[(kind,)] += number
            if state in FINISHED:
                self.counts.jobs_ended[kind, state] += number
        paused = select(table.job_key, table.kind).where(between, table.state == JobState.PAUSED)
        for key, kind in connection.execute(paused):
            self._open_jobs[key] = kind

    def _peer(self, name: str) -> str:
        """Return a peer as a label: its name, as long as there is room for another one."""
        return self._label("peer", name, METRICS_PEERS_MAX, "others")

    def _code(self, kind: str, code: int) -> str:
        """Return a code that a peer gave as a label: as DICOM writes it, as long as there is room for another one of its kind."""
        return self._label(kind, f"{code:04X}H", METRICS_CODES_MAX, "other")

    def _label(self, kind: str, value: str, most: int, beyond: str) -> str:
        known = self._labels[kind]
        if value not in known and len(known) >= most:
            return beyond
        known.add(value)
        return value

    # What changes after it came.

    def _look_at_jobs(self, connection: Connection) -> None:
        """Count the jobs that are to be done, and those that came to an end since they were seen last."""
        now: Counter[Labels] = Counter()
        seen: dict[int, str] = {}
        for condition in (WAITING, RUNNING):
            query = select(jobs.c.job_key, jobs.c.kind, jobs.c.state).where(text(condition))
            for key, kind, state in connection.execute(query):
                now[kind, state] += 1
                seen[key] = kind
        for key, kind, state in _states_of(connection, self._open_jobs.keys() - seen.keys()):
            if state in FINISHED:
                self.counts.jobs_ended[kind, state] += 1
            else:
                now[kind, state] += 1
                seen[key] = kind
        self._open_jobs = seen
        self.counts.jobs_now = now

    def _look_at_commitments(self, connection: Connection) -> None:
        """Count the instances of transactions whose outcomes became certain, some of those that are open at a time."""
        table = commitments.c
        looked_at = list(self._open_commitments)[:METRICS_PENDING_LOOK]
        query = select(table.commitment_key, table.role, table.state, table.checked_at, table.reported_at)
        certain: list[int] = []
        for portion in portions(looked_at):
            found = {
                row[0]: row for row in connection.execute(query.where(table.commitment_key.in_(portion)))
            }
            for key in portion:
                del self._open_commitments[key]
                row = found.get(key)
                if row is not None and _is_certain(*row[1:]):
                    certain.append(key)
                elif row is not None:
                    self._open_commitments[key] = None  # behind those that were not looked at
        self._count_outcomes(connection, certain)

    def _count_outcomes(self, connection: Connection, keys: Iterable[int]) -> None:
        table = commitment_instances.c
        query = (
            select(commitments.c.role, table.outcome, table.reason, func.count())
            .join(commitments, commitments.c.commitment_key == table.commitment_key)
            .group_by(commitments.c.role, table.outcome, table.reason)
        )
        for portion in portions(keys):
            for role, outcome, reason, number in connection.execute(
                query.where(table.commitment_key.in_(portion))
            ):
                labels = (
                    role,
                    outcome or "unreported",
                    "" if reason is None else self._code("reason", reason),
                )
                self.counts.commitment_instances[labels] += number


@dataclass(slots=True)
class _Followed:
    """A table that is followed by a key that grows."""

    key: Column[Any]
    count: Callable[[Connection, ColumnElement[bool]], None]
    cursor: int = 0


_OPEN_OF_USER = (CommitmentState.REQUESTED, CommitmentState.ACCEPTED)


def _is_certain(role: str, state: str, checked_at: str | None, reported_at: str | None) -> bool:
    """Tell whether the outcomes of a transaction are: a provider's when checked, a user's when nothing is awaited."""
    if role == CommitmentRole.PROVIDER:
        return checked_at is not None
    return reported_at is not None or state not in _OPEN_OF_USER


def _uncertain_commitments(connection: Connection) -> list[int]:
    table = commitments.c
    query = select(table.commitment_key, table.role, table.state, table.checked_at, table.reported_at).where(
        table.role.in_(list(CommitmentRole)), text("reported_at IS NULL")
    )
    return [key for key, *row in connection.execute(query) if not _is_certain(*row)]


def _unfinished_jobs(connection: Connection) -> Iterable[tuple[int, str]]:
    """Return the jobs that are to be done, also the paused ones, for which no index is there: once a process."""
    query = select(jobs.c.job_key, jobs.c.kind).where(jobs.c.finished_at.is_(None))
    return [(key, kind) for key, kind in connection.execute(query)]


def _states_of(connection: Connection, keys: Iterable[int]) -> Iterable[tuple[int, str, str]]:
    for portion in portions(sorted(keys)):
        query = select(jobs.c.job_key, jobs.c.kind, jobs.c.state).where(jobs.c.job_key.in_(portion))
        yield from [(key, kind, state) for key, kind, state in connection.execute(query)]


def _last_key(connection: Connection, key: Column[Any]) -> int:
    return int(connection.execute(select(func.max(key))).scalar() or 0)


def _status_labels(status: int | None) -> Labels:
    if status is None:
        return "", "not answered"
    return f"{status:04X}H", meaning_of(status).partition(" ")[2]
