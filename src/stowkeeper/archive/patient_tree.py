"""Patients, studies and series: the rows above the instances, made and described as instances arrive.

A row describes itself by the newest version that carries its identity, by (time received, receipt id),
whatever the order of commits: so several processes, a recovery and a rebuild all end with the same rows. A
study is of the patient that its newest version names. A patient whose study was moved away stays until a
removal empties a study. Nothing is counted here; counts are asked of the versions.

There is no cache of known keys. A batch touches a few studies and series, and finding a row takes 3 µs; a
cache would have to follow what other processes write and what a rollback takes back.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import Exists, Table, bindparam, delete, exists, func, select, update

from stowkeeper.archive.catalog_values import CatalogEntry, VersionState, portions
from stowkeeper.database.engine import Transaction, compile_insert, compile_statement
from stowkeeper.database.schema import patients, series, studies, versions

SeriesIdentity = tuple[str, str]
"""Study and Series Instance UID; the latter '' where instances of a study have none."""

Identity = tuple[object, ...]
_Key = TypeVar("_Key", bound=tuple[object, ...])
Row = tuple[Identity, CatalogEntry, tuple[int, ...]]
"""A new row: its identity, the entry that describes it, and its parent's key where that is no part of the
identity."""


def series_identity(entry: CatalogEntry) -> SeriesIdentity | None:
    """Return study and series of an instance, None when it is outside of studies (hanging protocols)."""
    study = entry.attributes.study_instance_uid
    return (study, entry.attributes.series_instance_uid or "") if study else None


def patient_identity(entry: CatalogEntry) -> Identity:
    """Return who the patient is: id and issuer, or, without an id, the study. Never merge strangers."""
    attributes = entry.attributes
    if attributes.patient_id:
        return attributes.patient_id, attributes.issuer_of_patient_id or "", ""
    return "", "", attributes.study_instance_uid or ""


class _Level:
    """One level of the tree: its table, key and identity, and the attributes it shows.

    `parent` is the column that points upwards where that is not part of the identity.
    """

    def __init__(self, table: Table, key: str, identity: tuple[str, ...], parent: str | None = None) -> None:
        self.table = table
        self.key = table.c[key]
        parents = () if parent is None else (parent,)
        structure = {key, *identity, *parents, "described_at", "described_by"}
        self.attributes = tuple(column.name for column in table.c if column.name not in structure)
        self._values = attrgetter(*self.attributes)
        described = (*parents, *self.attributes, "described_at", "described_by")
        columns = [table.c[name] for name in (key, *parents, "described_at", "described_by")]
        conditions = [table.c[name] == bindparam(f"_{name}") for name in identity]
        self._find = compile_statement(select(*columns).where(*conditions), [f"_{name}" for name in identity])
        self._insert = compile_insert(table, (key, *identity, *described))
        self._update = compile_statement(
            update(table)
            .values({name: bindparam(name) for name in described})
            .where(self.key == bindparam("_key")),
            (*described, "_key"),
        )
        self._last = compile_statement(select(func.max(self.key)), ())

    def find(self, transaction: Transaction, identity: Identity) -> tuple[Any, ...] | None:
        """Return key, parent (where there is one), described_at and described_by of a row."""
        return transaction.fetch_one(self._find, identity)

    def insert(self, transaction: Transaction, rows: Sequence[Row]) -> dict[Identity, int]:
        """Add rows and return their keys."""
        if not rows:
            return {}
        # The transaction is the only writer, so the next keys can be counted here.
        (last,) = transaction.fetch_one(self._last) or (None,)
        keys = {identity: key for key, (identity, _, _) in enumerate(rows, (last or 0) + 1)}
        transaction.executemany(
            self._insert,
            [
                (keys[identity], *identity, *parent, *self._values(entry.attributes), *entry.order)
                for identity, entry, parent in rows
            ],
        )
        return keys

    def describe(
        self, transaction: Transaction, rows: Iterable[tuple[int, CatalogEntry, tuple[int, ...]]]
    ) -> None:
        """Give rows that are there, by their keys, the attributes of a newer entry."""
        transaction.executemany(
            self._update,
            [(*parent, *self._values(entry.attributes), *entry.order, key) for key, entry, parent in rows],
        )

    def place(self, transaction: Transaction, newest: Mapping[Identity, CatalogEntry]) -> dict[Identity, int]:
        """Make a row for each identity, or describe it anew where the entry is newer; return their keys."""
        found = {identity: self.find(transaction, identity) for identity in newest}
        known = {identity: row for identity, row in found.items() if row is not None}
        self.describe(
            transaction,
            [(row[0], newest[i], ()) for i, row in known.items() if _is_newer(newest[i], row)],
        )
        keys: dict[Identity, int] = {identity: row[0] for identity, row in known.items()}
        return keys | self.insert(
            transaction, [(i, entry, ()) for i, entry in newest.items() if i not in known]
        )


PATIENTS = _Level(patients, "patient_key", ("patient_id", "issuer_of_patient_id", "study_instance_uid"))
STUDIES = _Level(studies, "study_key", ("study_instance_uid",), "patient_key")
SERIES = _Level(series, "series_key", ("study_key", "series_instance_uid"))


def place(
    transaction: Transaction, entries: Iterable[CatalogEntry]
) -> tuple[dict[SeriesIdentity, int], list[CatalogEntry]]:
    """Make the rows above some instances, or describe them anew; return the keys of the series.

    Also returned are the entries that moved their study to another patient.
    """
    newest: dict[SeriesIdentity, CatalogEntry] = {}
    newest_of_patient: dict[Identity, CatalogEntry] = {}
    for entry in entries:
        identity = series_identity(entry)
        if identity is not None:
            _keep_newest(newest, identity, entry)
            _keep_newest(newest_of_patient, patient_identity(entry), entry)
    newest_of_study: dict[Identity, CatalogEntry] = {}
    for (study_uid, _), entry in newest.items():
        _keep_newest(newest_of_study, (study_uid,), entry)
    patient_keys = PATIENTS.place(transaction, newest_of_patient)
    study_keys, moved = _place_studies(transaction, newest_of_study, patient_keys)
    by_key: dict[Identity, CatalogEntry] = {
        (study_keys[(study_uid,)], series_uid): entry for (study_uid, series_uid), entry in newest.items()
    }
    keys = SERIES.place(transaction, by_key)
    return {(study, uid): keys[(study_keys[(study,)], uid)] for study, uid in newest}, moved


def forget(transaction: Transaction, series_keys: Iterable[int]) -> None:
    """Drop what describes series, studies and patients whose last version was removed.

    Rows with nothing but UIDs stay, since removed versions and their receipts refer to them.
    """
    in_series = (versions.c.series_key == series.c.series_key) & (versions.c.state != VersionState.REMOVED)
    in_study = (series.c.study_key == studies.c.study_key) & in_series
    emptied = 0
    for portion in portions(series_keys):
        of_series = select(series.c.study_key).where(series.c.series_key.in_(portion))
        _forget_rows(transaction, SERIES, portion, exists().where(in_series))
        study_keys = transaction.execute(of_series.distinct()).scalars().all()
        emptied += _forget_rows(transaction, STUDIES, study_keys, exists().where(in_study), patient_key=None)
    if emptied:
        # Without a study are those of the emptied studies, and those that a study was moved away from.
        of_patient = exists().where(studies.c.patient_key == patients.c.patient_key)
        transaction.execute(delete(patients).where(~of_patient))


def _forget_rows(
    transaction: Transaction, level: _Level, keys: Sequence[int], kept: Exists, **more: None
) -> int:
    result = transaction.execute(
        update(level.table)
        .where(level.key.in_(keys), ~kept)
        .values(**dict.fromkeys(level.attributes), described_at="", described_by="", **more)
    )
    return result.rowcount


def _keep_newest(newest: dict[_Key, CatalogEntry], identity: _Key, entry: CatalogEntry) -> None:
    found = newest.get(identity)
    if found is None or entry.order > found.order:
        newest[identity] = entry


def _is_newer(entry: CatalogEntry, row: tuple[Any, ...]) -> bool:
    # A row whose last version was removed is described by ('', ''): anything is newer.
    return bool(entry.order > row[-2:])


def _place_studies(
    transaction: Transaction, newest: Mapping[Identity, CatalogEntry], patient_keys: Mapping[Identity, int]
) -> tuple[dict[Identity, int], list[CatalogEntry]]:
    found = {identity: STUDIES.find(transaction, identity) for identity in newest}
    describing: list[tuple[int, CatalogEntry, tuple[int, ...]]] = []
    inserting: list[Row] = []
    moved: list[CatalogEntry] = []
    for identity, entry in newest.items():
        patient_key = patient_keys[patient_identity(entry)]
        row = found[identity]
        if row is None:
            inserting.append((identity, entry, (patient_key,)))
        elif _is_newer(entry, row):
            describing.append((row[0], entry, (patient_key,)))
            if row[1] is not None and row[1] != patient_key:
                moved.append(entry)
    STUDIES.describe(transaction, describing)
    keys: dict[Identity, int] = {identity: row[0] for identity, row in found.items() if row is not None}
    return keys | STUDIES.insert(transaction, inserting), moved
