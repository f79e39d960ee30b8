"""Versions: the files of the archive as rows, their states, and the pointer to the current one.

Versions of an instance are ordered as they were received (`succession`). The current one is the newest kept one that
is held, else the newest that is kept; every move of the pointer is a change row. Two versions are in conflict when they differ in digest, SOP
class or transfer syntax and both count (kept, superseded or damaged). `settle` derives pointer and conflict
marks from the rows, after whatever changed them.

What takes a version away asks `holds` in the same transaction: a held version is neither superseded nor
removed.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from itertools import groupby
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    exists,
    insert,
    or_,
    select,
    text,
    tuple_,
    update,
)

from stowkeeper.archive import patient_tree
from stowkeeper.archive.catalog_values import Version, VersionState, portions
from stowkeeper.archive.changes import note_changes
from stowkeeper.archive.holding import delete_holds, insert_holds, reasons_of
from stowkeeper.archive.succession import Arrival, in_succession
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.database.limits import ROWS_PER_PAGE
from stowkeeper.database.schema import (
    LEAVING,
    ON_SHELF,
    changes,
    holds,
    instance_among,
    instances,
    receipts,
    series,
    studies,
    versions,
)

PRESENT = (VersionState.KEPT, VersionState.SUPERSEDED, VersionState.REMOVING, VersionState.DAMAGED)
"""The states of versions that are not gone for good."""

COUNTED = (VersionState.KEPT, VersionState.SUPERSEDED, VersionState.DAMAGED)
"""The states of versions that another one can be in conflict with."""

REMOVABLE = (VersionState.KEPT, VersionState.SUPERSEDED, VersionState.REMOVING)
"""The states of versions whose file a removal takes away. Damaged files are evidence and never deleted by us.
"""


class VersionOrder(Enum):
    """The orders in which all versions can be walked through."""

    LISTED = auto()  # as they came into the catalog
    FOLDER = auto()  # folder by folder, each folder's versions next to each other


_VERSIONS: Final[Select[Any]] = (
    select(
        versions.c.version_key,
        versions.c.instance_key,
        instances.c.sop_instance_uid,
        versions.c.sop_class_uid,
        versions.c.transfer_syntax_uid,
        studies.c.study_instance_uid,
        series.c.series_instance_uid,
        versions.c.series_key,
        versions.c.path,
        versions.c.file_size,
        versions.c.state,
        versions.c.conflict,
        (instances.c.current_version_key == versions.c.version_key).label("is_current"),
        exists().where(holds.c.version_key == versions.c.version_key).label("is_held"),
        receipts.c.receipt_id,
        receipts.c.digest,
        receipts.c.data_set_length,
        receipts.c.received_at,
    )
    .join(instances, instances.c.instance_key == versions.c.instance_key)
    .join(receipts, receipts.c.receipt_key == versions.c.version_key)
    .outerjoin(series, series.c.series_key == versions.c.series_key)
    .outerjoin(studies, studies.c.study_key == series.c.study_key)
)

# Made once: to put a statement together takes longer than to run it.
_BY_KEY: Final = _VERSIONS.where(versions.c.version_key.in_(bindparam("keys", expanding=True)))
_BY_RECEIPT: Final = _VERSIONS.where(
    versions.c.version_key
    == select(receipts.c.version_key).where(receipts.c.receipt_id == bindparam("receipt")).scalar_subquery()
)
_BY_PATH: Final = _VERSIONS.where(versions.c.path == bindparam("at"), text(ON_SHELF))


def _in_succession(connection: Connection, groups: Sequence[list[Any]]) -> None:
    """Bring the versions, or rows of versions, of each instance into the order in which they were received."""
    several = [group for group in groups if len(group) > 1]
    arrivals = [
        [Arrival(one.version_key, one.received_at, one.receipt_id) for one in some] for some in several
    ]
    for group, succession in zip(several, in_succession(connection, arrivals), strict=True):
        place = {arrival.receipt_key: number for number, arrival in enumerate(succession.arrivals)}
        group.sort(key=lambda one: place[one.version_key])


def _version(row: Any) -> Version:  # noqa: ANN401 - a row has its query's columns, no type of its own
    return Version(
        version_key=row.version_key,
        instance_key=row.instance_key,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid or None,
        path=row.path,
        file_size=row.file_size,
        state=VersionState(row.state),
        conflict=bool(row.conflict),
        is_current=bool(row.is_current),
        is_held=bool(row.is_held),
        receipt_id=row.receipt_id,
        digest=row.digest,
        data_set_length=row.data_set_length,
        received_at=row.received_at,
    )


# Looking.


def find_versions(
    connection: Connection, sop_instance_uids: Iterable[str], states: Collection[VersionState] = PRESENT
) -> dict[str, list[Version]]:
    """Return the versions of some instances, oldest first; an instance without any is not in the answer."""
    found: dict[str, list[Version]] = defaultdict(list)
    for portion in portions(sop_instance_uids):
        rows = connection.execute(_VERSIONS.where(instance_among(portion), versions.c.state.in_(states)))
        for row in rows:
            found[row.sop_instance_uid].append(_version(row))
    _in_succession(connection, list(found.values()))
    return dict(found)


def find_versions_by_key(connection: Connection, version_keys: Iterable[int]) -> dict[int, Version]:
    """Return versions by their keys, whatever their state."""
    return {
        row.version_key: _version(row)
        for portion in portions(sorted(set(version_keys)))
        for row in connection.execute(_BY_KEY, {"keys": portion})
    }


def find_version_by_receipt(connection: Connection, receipt_id: str) -> Version | None:
    """Return the version that a receipt proves, be it by its own file or as identical to an older one."""
    row = connection.execute(_BY_RECEIPT, {"receipt": receipt_id}).one_or_none()
    return None if row is None else _version(row)


def find_version_by_path(connection: Connection, path: str) -> Version | None:
    """Return the version whose file stands at a path, relative to the archive; None when none does."""
    row = connection.execute(_BY_PATH, {"at": path}).one_or_none()
    return None if row is None else _version(row)


def versions_for_removal(connection: Connection, uid: str) -> Iterator[Version]:
    """Yield the versions that the removal of a study, a series or an instance is about.

    Those left in the middle of a removal are among them, and held ones (`is_held`). Damaged ones are not:
    they are never deleted by us.
    """
    of_instance = select(instances.c.instance_key).where(instance_among([uid]))
    of_series = select(series.c.series_key).where(series.c.series_instance_uid == uid)
    of_study = (
        select(series.c.series_key)
        .join(studies, studies.c.study_key == series.c.study_key)
        .where(studies.c.study_instance_uid == uid)
    )
    for condition in (
        versions.c.instance_key.in_(of_instance),
        versions.c.series_key.in_(of_series) & ~versions.c.instance_key.in_(of_instance),
        versions.c.series_key.in_(of_study) & ~versions.c.series_key.in_(of_series),
    ):
        query = _VERSIONS.where(condition, versions.c.state.in_(REMOVABLE))
        yield from map(_version, connection.execute(query))


def due_for_removal(connection: Connection, now: str) -> list[Version]:
    """Return the versions to remove now: superseded, due and not held, or left in mid-removal."""
    due = and_(
        versions.c.state == VersionState.SUPERSEDED,
        versions.c.removal_due_at <= now,
        ~exists().where(holds.c.version_key == versions.c.version_key),
    )
    query = _VERSIONS.where(text(LEAVING), or_(due, versions.c.state == VersionState.REMOVING))
    return list(map(_version, connection.execute(query)))


def conflicts(connection: Connection) -> Iterator[tuple[str, list[Version]]]:
    """Yield the instances that have versions in conflict, each with those versions, oldest first."""
    query = _VERSIONS.where(text("conflict = 1")).order_by(versions.c.instance_key)
    for uid, rows in groupby(connection.execute(query), lambda row: row.sop_instance_uid):
        found = list(map(_version, rows))
        _in_succession(connection, [found])
        yield str(uid), found


def iterate_versions(
    database: Database,
    order: VersionOrder = VersionOrder.LISTED,
    states: Collection[VersionState] = PRESENT,
    page: int = ROWS_PER_PAGE,
) -> Iterator[Version]:
    """Yield every version, page by page, each page from a short look of its own.

    So no snapshot stays open, memory is a page, and what comes or goes meanwhile may be in it or not.
    """
    walk = _walk_as_listed if order is VersionOrder.LISTED else _walk_by_folder
    yield from walk(database, _VERSIONS.where(versions.c.state.in_(states)).limit(page))


def _walk_as_listed(database: Database, query: Select[Any]) -> Iterator[Version]:
    query = query.order_by(versions.c.version_key)
    after = 0
    while found := _page(database, query.where(versions.c.version_key > after)):
        after = found[-1].version_key
        yield from map(_version, found)


def _walk_by_folder(database: Database, query: Select[Any]) -> Iterator[Version]:
    outside = query.where(versions.c.series_key.is_(None)).order_by(
        versions.c.instance_key, versions.c.version_key
    )
    place = tuple_(versions.c.instance_key, versions.c.version_key)
    after = (0, 0)
    while found := _page(database, outside.where(place > after)):
        after = (found[-1].instance_key, found[-1].version_key)
        yield from map(_version, found)
    inside = query.order_by(versions.c.series_key, versions.c.instance_key, versions.c.version_key)
    place = tuple_(versions.c.series_key, versions.c.instance_key, versions.c.version_key)
    key = (0, 0, 0)
    while found := _page(database, inside.where(place > key)):
        key = (found[-1].series_key, found[-1].instance_key, found[-1].version_key)
        yield from map(_version, found)


def _page(database: Database, query: Select[Any]) -> Sequence[Any]:
    with database.read() as connection:
        return connection.execute(query).all()


# Changing states.


def mark_superseded(
    transaction: Transaction, version_keys: Iterable[int], *, removal_due_at: str, reason: str
) -> list[Version]:
    """Mark kept versions as superseded, to be removed later; return those marked, never held ones."""
    return _mark(
        transaction,
        _load(transaction, version_keys),
        VersionState.SUPERSEDED,
        (VersionState.KEPT,),
        reason,
        removal_due_at=removal_due_at,
    )


def mark_removing(transaction: Transaction, version_keys: Iterable[int], *, reason: str) -> list[Version]:
    """Mark versions before their files are unlinked; return those marked. Held ones are left alone.

    Only after this transaction is durable may a file go.
    """
    return _mark(
        transaction,
        _load(transaction, version_keys),
        VersionState.REMOVING,
        (VersionState.KEPT, VersionState.SUPERSEDED),
        reason,
    )


def mark_removed(transaction: Transaction, version_keys: Iterable[int], *, reason: str = "") -> list[Version]:
    """Mark versions whose files are gone, name and all, durably; return those marked.

    Patients, studies and series that are left without versions lose what describes them.
    """
    loaded = _load(transaction, version_keys)
    marked = _mark(transaction, loaded, VersionState.REMOVED, (VersionState.REMOVING,), reason)
    keys = {version.version_key for version in marked}
    series_keys = {key for version, key in loaded if version.version_key in keys and key is not None}
    patient_tree.forget(transaction, sorted(series_keys))
    return marked


def mark_damaged(transaction: Transaction, path: str, reason: str) -> Version | None:
    """Mark the version whose file at `path` no longer fits its receipt, held or not; None when none is there."""
    version = find_version_by_path(transaction.connection, path)
    if version is None:
        return None
    loaded = _load(transaction, [version.version_key])
    _mark(transaction, loaded, VersionState.DAMAGED, (VersionState.KEPT, VersionState.SUPERSEDED), reason)
    return version


def mark_name_taken(transaction: Transaction, version: Version) -> None:
    """Mark a version whose name on the shelf another file of the same instance has got: its own was gone.

    A removal that was cut off is done with that. The newcomer goes on describing study and series.
    """
    reason = "its file was missing when a re-send took its name"
    if version.state is VersionState.REMOVING:
        loaded = _load(transaction, [version.version_key])
        _mark(transaction, loaded, VersionState.REMOVED, (VersionState.REMOVING,), reason)
    else:
        mark_damaged(transaction, version.path, reason)


def hold(transaction: Transaction, version_keys: Iterable[int], reason: str) -> None:
    """Hold versions for a reason: until released they are neither superseded nor removed. Twice is once.

    The newest held one of the kept versions of an instance is the current one from then on.
    """
    settle(transaction, _instances_of(transaction, insert_holds(transaction, version_keys, reason)))


def release_hold(transaction: Transaction, version_keys: Iterable[int], reason: str) -> None:
    """Release what `hold` held for this reason; other reasons go on holding."""
    settle(transaction, _instances_of(transaction, delete_holds(transaction, version_keys, reason)))


def _instances_of(transaction: Transaction, version_keys: Iterable[int]) -> set[int]:
    return {
        key
        for portion in portions(version_keys)
        for key in transaction.execute(
            select(versions.c.instance_key).where(versions.c.version_key.in_(portion))
        ).scalars()
    }


def _load(transaction: Transaction, version_keys: Iterable[int]) -> list[tuple[Version, int | None]]:
    """Return versions with the keys of their series."""
    return [
        (_version(row), row.series_key)
        for portion in portions(sorted(set(version_keys)))
        for row in transaction.execute(_BY_KEY, {"keys": portion})
    ]


def _mark(
    transaction: Transaction,
    loaded: Iterable[tuple[Version, int | None]],
    state: VersionState,
    allowed: Collection[VersionState],
    reason: str,
    *,
    removal_due_at: str | None = None,
) -> list[Version]:
    guarded = state in (VersionState.SUPERSEDED, VersionState.REMOVING)
    marked = [
        version for version, _ in loaded if version.state in allowed and not (guarded and version.is_held)
    ]
    keys = [version.version_key for version in marked]
    for portion in portions(keys):
        transaction.execute(
            update(versions)
            .where(versions.c.version_key.in_(portion))
            .values(state=state, state_since=transaction.at, removal_due_at=removal_due_at)
        )
    note_changes(transaction, state, keys, reason)
    settle(transaction, {version.instance_key for version in marked})
    return marked


# The pointer and the conflict marks.

_SET_CURRENT = (
    update(instances)
    .where(instances.c.instance_key == bindparam("the_key"))
    .values(current_version_key=bindparam("current"))
)
_SET_CONFLICT = (
    update(versions)
    .where(versions.c.version_key == bindparam("the_key"))
    .values(conflict=bindparam("conflict"))
)


_OF_INSTANCES = (
    select(
        versions.c.version_key,
        versions.c.instance_key,
        versions.c.state,
        versions.c.conflict,
        versions.c.sop_class_uid,
        versions.c.transfer_syntax_uid,
        receipts.c.digest,
        receipts.c.received_at,
        receipts.c.receipt_id,
        instances.c.current_version_key,
        exists().where(holds.c.version_key == versions.c.version_key).label("is_held"),
    )
    .join(instances, instances.c.instance_key == versions.c.instance_key)
    .join(receipts, receipts.c.receipt_key == versions.c.version_key)
    .order_by(versions.c.instance_key)
)


def settle(transaction: Transaction, instance_keys: Iterable[int]) -> None:
    """Derive the pointer and the conflict marks of some instances from their versions and holds."""
    for portion in portions(sorted(set(instance_keys))):
        groups = [
            list(group)
            for _, group in groupby(
                transaction.execute(_OF_INSTANCES.where(versions.c.instance_key.in_(portion))),
                lambda row: row.instance_key,
            )
        ]
        _in_succession(transaction.connection, groups)
        rows = [row for group in groups for row in group]
        marks: list[dict[str, int]] = []
        moves: list[dict[str, int | None]] = []
        held = _inherit_holds(transaction, _heirs(rows)) | {row.version_key for row in rows if row.is_held}
        for found in groups:
            contents = {_content(row) for row in found if row.state in COUNTED}
            for row in found:
                conflict = int(len(contents) > 1 and row.state in COUNTED)
                if conflict != row.conflict:
                    marks.append({"the_key": row.version_key, "conflict": conflict})
            kept = [row.version_key for row in found if row.state == VersionState.KEPT]
            current = next((key for key in reversed(kept) if key in held), kept[-1] if kept else None)
            if current != found[0].current_version_key:
                moves.append(
                    {
                        "the_key": found[0].instance_key,
                        "current": current,
                        "previous": found[0].current_version_key,
                    }
                )
        if marks:
            transaction.execute(_SET_CONFLICT, marks)
        if moves:
            transaction.execute(_SET_CURRENT, moves)
            _note_moves(transaction, moves)


def _heirs(rows: Iterable[Any]) -> dict[int, int]:
    """Return for damaged versions the newest kept one of the same instance with the same bytes.

    For kept ones too: a second file of the same bytes was kept only because the first could not be found whole.
    """
    ordered = list(rows)
    kept = {
        (row.instance_key, *_content(row)): row.version_key
        for row in ordered
        if row.state == VersionState.KEPT
    }
    return {
        row.version_key: heir
        for row in ordered
        if row.state in (VersionState.DAMAGED, VersionState.KEPT)
        and (heir := kept.get((row.instance_key, *_content(row)), row.version_key)) != row.version_key
    }


def _content(row: Any) -> tuple[str, str, str]:  # noqa: ANN401 - a row has its query's columns, no type of its own
    return row.digest, row.sop_class_uid, row.transfer_syntax_uid


def _inherit_holds(transaction: Transaction, heirs: Mapping[int, int]) -> set[int]:
    """Hold the re-send that repairs a damaged version for the same reasons: the promise was of these bytes.

    Returns the versions that are held by that.
    """
    inherited: set[int] = set()
    for key, reasons in reasons_of(transaction.connection, heirs).items():
        for reason in reasons:
            insert_holds(transaction, [heirs[key]], reason)
        inherited.add(heirs[key])
    return inherited


def _note_moves(transaction: Transaction, moves: Iterable[dict[str, int | None]]) -> None:
    transaction.execute(
        insert(changes),
        [
            {
                "at": transaction.at,
                "kind": "current",
                "receipt_key": move["current"] or move["previous"],
                "version_key": move["current"],
                "previous_version_key": move["previous"],
            }
            for move in moves
        ],
    )
