"""Which studies are still arriving, and which are quiet.

DICOM tells nobody when a study is complete. What can be told is when the first instance of it arrived, that none came for
some time, and that one came after that all the same: revision 2 of the study, which will be quiet again. Each is
a change row, written in the transaction that remembers what it follows from, so it is told once, whatever number of
processes serve the archive and wherever one of them dies.

The same bytes sent again are no arrival.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, distinct, func, select, update
from sqlalchemy.dialects.sqlite import insert

from stowkeeper.archive.changes import ChangeKind, newest_change, note_study_change
from stowkeeper.database.engine import Database, Transaction, utc_now
from stowkeeper.database.schema import (
    changes,
    consumers,
    instances,
    receipts,
    series,
    studies,
    study_events,
    study_watches,
    versions,
)
from stowkeeper.jobs.times import later
from stowkeeper.services.events.limits import EVIDENCE_SERIES_MAX, QUIET_STUDIES_MAX, WATCH_CHANGES_MAX

STUDIES = "studies"
"""The name under which the watch keeps its cursor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesEvidence:
    """What is there of a series. The instance numbers (0020,0013) are those of its current versions.

    `numbers_missing` counts the numbers between the lowest and the highest that no instance has: above 0 it is a sign
    that something did not arrive, 0 is no proof that all did. `instances_expected` is what instances say that there are: Number
    of Series Related Instances (0020,1209), or the Images in Acquisition (0020,1002) of all acquisitions; None where none says so.
    """

    series_instance_uid: str
    modality: str
    instances: int
    lowest_number: int | None
    highest_number: int | None
    numbers_missing: int
    instances_expected: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEvidence:
    """What a study event is based on; times are UTC in ISO 8601.

    `arrivals` counts the versions that came in this revision, `instances` what the study holds. `instances_expected` is the Number
    of Study Related Instances (0020,1208) that an instance names, or the sum over the series where each says what it expects.
    `series` are all of them, or the first EVIDENCE_SERIES_MAX.
    """

    began_at: str
    last_arrival_at: str
    quiet_seconds: float
    arrivals: int
    instances: int
    series_count: int
    numbers_missing: int
    instances_expected: int | None
    series: Sequence[SeriesEvidence]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrivals:
    """What came of one study in some changes."""

    study_key: int
    count: int
    first_version_key: int
    last_version_key: int
    first_at: str
    last_at: str


class StudyWatch:
    """Follows the changes of an archive. Its methods block; any process may call them, at any time."""

    def __init__(
        self, database: Database, quiet_seconds: float, *, clock: Callable[[], str] = utc_now
    ) -> None:
        self._database = database
        self.quiet_seconds = quiet_seconds
        self._clock = clock

    def begin(self) -> None:
        """Make sure of a cursor, so that all that is listed from now on is followed, and nothing older where there is none.

        To be called before the first instance is taken in. Raises DatabaseUnavailable.
        """
        with self._database.read() as connection:
            if _cursor(connection) is not None:
                return
        with self._database.write() as transaction:
            row = insert(consumers).values(name=STUDIES, seq=newest_change(transaction.connection))
            transaction.execute(row.on_conflict_do_nothing())

    def look(self) -> bool:
        """Deal with what was listed since the last look, and tell of studies that are quiet now.

        Returns whether more is to be done at once. Raises DatabaseUnavailable.
        """
        with self._database.read() as connection:
            cursor = _cursor(connection)
            newest = newest_change(connection)
        if cursor is None:
            self.begin()
            return True
        if newest > cursor and self._follow():
            return True
        with self._database.read() as connection:
            due = self._due(connection)
        for study_key in due:
            self._tell_quiet(study_key)
        return len(due) == QUIET_STUDIES_MAX

    def _follow(self) -> bool:
        """Take note of what arrived in the next changes; return whether there are more."""
        with self._database.write() as transaction:
            cursor = _cursor(transaction.connection) or 0  # of now: another process may have gone on
            newest = newest_change(transaction.connection)
            last = min(newest, cursor + WATCH_CHANGES_MAX)
            told = 0
            for arrivals in _arrivals(transaction.connection, cursor, last):
                told = self._take_note(transaction, arrivals) or told
            # What was told has numbers of its own, behind the newest; nobody else writes meanwhile.
            seq = max(last, told) if last == newest else last
            transaction.execute(update(consumers).where(consumers.c.name == STUDIES).values(seq=seq))
            return last < newest

    def _take_note(self, transaction: Transaction, arrivals: _Arrivals) -> int:
        """Remember what arrived; return the number of the change where that begins a revision, else 0."""
        row = _watch(transaction.connection, arrivals.study_key)
        goes_on = row is not None and row.quiet_due_at is not None
        values: dict[str, Any] = {
            "last_arrival_at": arrivals.last_at,
            "last_version_key": arrivals.last_version_key,
            "quiet_due_at": later(transaction.at, self.quiet_seconds),
        }
        if row is not None and goes_on:
            values["arrivals"] = row.arrivals + arrivals.count
            changed = update(study_watches).where(study_watches.c.study_key == arrivals.study_key)
            transaction.execute(changed.values(values))
            return 0
        if row is not None:
            revision = row.revision + 1
        else:
            revision = 2 if _has_older(transaction.connection, arrivals) else 1
        values |= {"arrivals": arrivals.count, "revision": revision, "revision_began_at": arrivals.first_at}
        written = insert(study_watches).values(study_key=arrivals.study_key, **values)
        transaction.execute(written.on_conflict_do_update(index_elements=["study_key"], set_=values))
        return _tell(
            transaction,
            ChangeKind.STUDY_STARTED if revision == 1 else ChangeKind.STUDY_LATE,
            arrivals.study_key,
            arrivals.first_version_key,
            revision,
            f"revision {revision} of the study has begun",
            {"began_at": arrivals.first_at},
        )

    def _due(self, connection: Connection) -> list[int]:
        """Return the studies that are to be called quiet now; those due too far ahead, too, since the clock was set back."""
        now = self._clock()
        due_at = study_watches.c.quiet_due_at
        query = (
            select(study_watches.c.study_key)
            .where(due_at.is_not(None), (due_at <= now) | (due_at > later(now, self.quiet_seconds)))
            .order_by(due_at)
            .limit(QUIET_STUDIES_MAX)
        )
        return list(connection.execute(query).scalars())

    def _tell_quiet(self, study_key: int) -> None:
        with self._database.read() as connection:
            row = _watch(connection, study_key)
            if row is None or row.quiet_due_at is None:
                return
            evidence = self._evidence(connection, row)
        expected = evidence.instances_expected
        of_expected = "" if expected is None else f" of {expected} expected"
        kept = "1 instance" if evidence.instances == 1 else f"{evidence.instances} instances"
        missing = evidence.numbers_missing
        of_numbers = "1 instance number" if missing == 1 else f"{missing} instance numbers"
        words = (
            f"revision {row.revision} is quiet for {self.quiet_seconds:g} s: {kept}{of_expected} in"
            f" {evidence.series_count} series, {of_numbers} missing"
        )
        unchanged = (
            update(study_watches)
            .where(
                study_watches.c.study_key == study_key,
                study_watches.c.quiet_due_at == row.quiet_due_at,
            )
            .values(quiet_due_at=None)
        )
        with self._database.write() as transaction:
            if row.quiet_due_at > transaction.at:  # the clock was set back since
                due_at = later(transaction.at, self.quiet_seconds)
                transaction.execute(unchanged.values(quiet_due_at=due_at))
            elif transaction.execute(unchanged).rowcount:
                seq = _tell(
                    transaction,
                    ChangeKind.STUDY_QUIET,
                    study_key,
                    row.last_version_key,
                    row.revision,
                    words,
                    asdict(evidence),
                )
                is_next = (consumers.c.name == STUDIES) & (consumers.c.seq == seq - 1)
                transaction.execute(update(consumers).where(is_next).values(seq=seq))

    def _evidence(self, connection: Connection, row: Row[Any]) -> StudyEvidence:
        number = versions.c.instance_number
        lowest, highest = func.min(number), func.max(number)
        expected = _expected(connection, row.study_key)
        query = (
            select(
                series.c.series_key,
                series.c.series_instance_uid,
                func.coalesce(series.c.modality, "").label("modality"),
                func.count().label("instances"),
                lowest.label("lowest_number"),
                highest.label("highest_number"),
                func.coalesce(highest - lowest + 1 - func.count(distinct(number)), 0).label(
                    "numbers_missing"
                ),
            )
            .select_from(series)
            .join(versions, versions.c.series_key == series.c.series_key)
            .join(instances, instances.c.current_version_key == versions.c.version_key)
            .where(series.c.study_key == row.study_key)
            .group_by(series.c.series_key)
            .order_by(series.c.series_key)
        )
        found = [
            SeriesEvidence(instances_expected=expected.of_series.get(one.pop("series_key")), **one)
            for one in map(dict, connection.execute(query).mappings())
        ]
        return StudyEvidence(
            began_at=row.revision_began_at,
            last_arrival_at=row.last_arrival_at,
            quiet_seconds=self.quiet_seconds,
            arrivals=row.arrivals,
            instances=sum(one.instances for one in found),
            series_count=len(found),
            numbers_missing=sum(one.numbers_missing for one in found),
            instances_expected=expected.of_study,
            series=found[:EVIDENCE_SERIES_MAX],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    """How many instances there should be by what the current versions of a study say; those of series by their keys."""

    of_study: int | None
    of_series: Mapping[int, int]


def _expected(connection: Connection, study_key: int) -> _Expected:
    query = (
        select(
            series.c.series_key,
            func.max(versions.c.number_of_study_related_instances).label("of_study"),
            func.max(versions.c.number_of_series_related_instances).label("of_series"),
            func.max(versions.c.images_in_acquisition).label("of_acquisition"),
        )
        .select_from(series)
        .join(versions, versions.c.series_key == series.c.series_key)
        .join(instances, instances.c.current_version_key == versions.c.version_key)
        .where(series.c.study_key == study_key)
        .group_by(series.c.series_key, versions.c.acquisition_number)
    )
    of_study = 0
    of_series: dict[int, int] = {}
    of_acquisitions: defaultdict[int, list[int]] = defaultdict(list)
    for row in connection.execute(query):
        of_study = max(of_study, row.of_study or 0)
        of_acquisitions[row.series_key].append(row.of_acquisition or 0)
        if (row.of_series or 0) > of_series.get(row.series_key, 0):
            of_series[row.series_key] = row.of_series
    for key, counts in of_acquisitions.items():
        if key not in of_series and min(counts) > 0:
            of_series[key] = sum(counts)
    if not of_study and of_series.keys() == of_acquisitions.keys():
        of_study = sum(of_series.values())
    return _Expected(of_study=of_study or None, of_series=of_series)


def _cursor(connection: Connection) -> int | None:
    found: int | None = connection.execute(
        select(consumers.c.seq).where(consumers.c.name == STUDIES)
    ).scalar()
    return found


def _watch(connection: Connection, study_key: int) -> Row[Any] | None:
    query = select(study_watches).where(study_watches.c.study_key == study_key)
    return connection.execute(query).first()


def _arrivals(connection: Connection, after: int, last: int) -> list[_Arrivals]:
    """Return what came of each study in the changes after one, up to another, in the order of the first arrivals."""
    query = (
        select(
            studies.c.study_key,
            func.count().label("count"),
            func.min(versions.c.version_key).label("first_version_key"),
            func.max(versions.c.version_key).label("last_version_key"),
            func.min(changes.c.at).label("first_at"),
            func.max(changes.c.at).label("last_at"),
        )
        .select_from(changes)
        .join(receipts, receipts.c.receipt_key == changes.c.receipt_key)
        .join(versions, versions.c.version_key == receipts.c.version_key)
        .join(series, series.c.series_key == versions.c.series_key)
        .join(studies, studies.c.study_key == series.c.study_key)
        .where(
            changes.c.seq > after,
            changes.c.seq <= last,
            changes.c.kind == ChangeKind.RECEIVED.value,
            receipts.c.outcome != "identical",
        )
        .group_by(studies.c.study_key)
        .order_by(func.min(changes.c.seq))
    )
    return [_Arrivals(**row) for row in connection.execute(query).mappings()]


def _has_older(connection: Connection, arrivals: _Arrivals) -> bool:
    """Tell whether a study had versions before, in the time when nobody watched."""
    query = (
        select(versions.c.version_key)
        .join(series, series.c.series_key == versions.c.series_key)
        .where(series.c.study_key == arrivals.study_key, versions.c.version_key < arrivals.first_version_key)
        .limit(1)
    )
    return connection.execute(query).first() is not None


def _tell(
    transaction: Transaction,
    kind: ChangeKind,
    study_key: int,
    version_key: int,
    revision: int,
    words: str,
    evidence: dict[str, Any],
) -> int:
    seq = note_study_change(transaction, kind, version_key, words)
    row = insert(study_events).values(seq=seq, study_key=study_key, revision=revision)
    transaction.execute(row.values(evidence=json.dumps(evidence)))
    return seq
