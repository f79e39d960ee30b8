"""From an id of Orthanc to the row: an index in memory, filled as far back as it is needed.

An id is a hash, and no column holds it: one would cost every instance that is received a page of a random key. Instead the ids
of rows are worked out here and remembered, 12 bytes each. Who asks for an id mostly got it from us a moment ago, so rows are
read from the newest one backwards, a page at a time, until the id is found. An id that is found nowhere costs one walk over
the whole archive, some 5 s for each million instances, and after it only what came since: the change rows, from a cursor.
Nothing is read before the first id is asked for.

The index only proposes: what it finds is looked up, and its id worked out from the rows as they are then. So entries of what
was removed, or was moved to another patient, do no harm; and whatever process wrote a row, its change row tells of it.
"""

import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import Connection, Select, func, select

from stowkeeper.archive.changes import ChangeKind, newest_change
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import changes, receipts, series, versions
from stowkeeper.web.orthanc_ids import ResourceType, is_orthanc_id
from stowkeeper.web.orthanc_limits import INDEX_BEHIND_MAX, INDEX_PAGE_ROWS, INDEX_RUN_ENTRIES
from stowkeeper.web.orthanc_rows import Place, find_places, ids_before, places_of_studies

_MOVES = (ChangeKind.RECEIVED, ChangeKind.CURRENT)
"""The changes by which an instance comes to be, or comes into another series."""


class Entries:
    """Keys by the first 32 bits of their ids. Several may share them; few do.

    The newest stand in a dict; when it is full they are sorted and packed into a run of two arrays.
    """

    __slots__ = ("_newest", "_run_entries", "_runs")

    def __init__(self, run_entries: int = INDEX_RUN_ENTRIES) -> None:
        self._run_entries = run_entries
        self._newest: dict[int, int | list[int]] = {}
        self._runs: list[tuple[array[int], array[int]]] = []

    def add(self, resource_id: str, key: int) -> None:
        """Add a key under an id, unless it is there."""
        if key not in self._candidates(_prefix_of(resource_id)):
            self.add_unseen(resource_id, key)

    def add_unseen(self, resource_id: str, key: int) -> None:
        """Add a key under an id without looking whether it is there: a second entry does no harm."""
        prefix = _prefix_of(resource_id)
        found = self._newest.get(prefix)
        if found is None:
            self._newest[prefix] = key
        elif isinstance(found, list):
            found.append(key)
        else:
            self._newest[prefix] = [found, key]
        if len(self._newest) >= self._run_entries:
            self._pack()

    def candidates(self, resource_id: str) -> list[int]:
        """Return the keys whose ids may be this one."""
        return list(self._candidates(_prefix_of(resource_id)))

    def _candidates(self, prefix: int) -> Iterator[int]:
        found = self._newest.get(prefix)
        if isinstance(found, list):
            yield from found
        elif found is not None:
            yield found
        for prefixes, keys in self._runs:
            position = bisect_left(prefixes, prefix)
            while position < len(prefixes) and prefixes[position] == prefix:
                yield keys[position]
                position += 1

    def _pack(self) -> None:
        pairs = sorted(
            (prefix, key)
            for prefix, found in self._newest.items()
            for key in (found if isinstance(found, list) else (found,))
        )
        self._runs.append(
            (array("I", [prefix for prefix, _ in pairs]), array("Q", [key for _, key in pairs]))
        )
        self._newest = {}


def _prefix_of(resource_id: str) -> int:
    return int(resource_id[:8], 16)


@dataclass(slots=True)
class _Level:
    """What is known of one kind of resources: entries, and how far back the walk has come. `walked_to` None: not begun."""

    entries: Entries = field(default_factory=Entries)
    walked_to: int | None = None
    is_complete: bool = False


class OrthancIndex:
    """Finds rows by Orthanc's ids. Its methods read the database, may take seconds, and may be called from any thread."""

    def __init__(self, database: Database, *, page_rows: int = INDEX_PAGE_ROWS) -> None:
        self.database = database
        self._page_rows = page_rows
        self._lock = threading.Lock()
        self._levels = {resource_type: _Level() for resource_type in ResourceType}
        self._cursor: int | None = None
        """The last change row that was taken note of; None before the first question."""

    def find(self, resource_type: ResourceType, resource_id: str) -> Place | None:
        """Return the resource of an id; None where there is none. Raises DatabaseUnavailable."""
        return self.find_among((resource_type,), resource_id)

    def find_any(self, resource_id: str) -> tuple[ResourceType, Place] | None:
        """Return the resource of an id, of whatever kind; None where there is none. Raises DatabaseUnavailable."""
        # Patients, studies and series are few beside instances, so looking through them first costs little.
        for resource_type in ResourceType:
            place = self._find_known(resource_type, resource_id)
            if place is not None:
                return resource_type, place
        for resource_type in ResourceType:
            place = self.find(resource_type, resource_id)
            if place is not None:
                return resource_type, place
        return None

    def find_among(self, resource_types: Iterable[ResourceType], resource_id: str) -> Place | None:
        """Return the first resource of an id among some kinds."""
        for resource_type in resource_types:
            place = self._find_known(resource_type, resource_id)
            has_more = True
            while place is None and has_more:
                has_more = self._walk_on(resource_type, resource_id)
                # Also at the end: another thread may have walked over it meanwhile.
                place = self._find_known(resource_type, resource_id)
            if place is not None:
                return place
        return None

    def _find_known(self, resource_type: ResourceType, resource_id: str) -> Place | None:
        """Return a resource that the index knows, or that came since it looked last."""
        if not is_orthanc_id(resource_id):
            return None
        with self._lock:
            self._catch_up()
            keys = self._levels[resource_type].entries.candidates(resource_id)
        if not keys:
            return None
        with self.database.read() as connection:
            places = find_places(connection, resource_type, keys)
        return next((place for place in places.values() if place.id_of(resource_type) == resource_id), None)

    # Backwards, from the newest row.

    def _walk_on(self, resource_type: ResourceType, resource_id: str) -> bool:
        """Walk back until an entry may be the one that is looked for; return False at the end."""
        if not is_orthanc_id(resource_id):
            return False
        while True:
            with self._lock:
                level = self._levels[resource_type]
                if level.is_complete:
                    return False
                with self.database.read() as connection:
                    found, level_key = ids_before(connection, resource_type, level.walked_to, self._page_rows)
                for key, found_id in found:
                    level.entries.add_unseen(found_id, key)
                level.walked_to = level_key
                level.is_complete = level_key is None
            if any(found_id == resource_id for _, found_id in found):
                return True

    # Forwards, by the change rows.

    def _catch_up(self) -> None:
        """Take note of what came since; the lock is held."""
        while True:
            with self.database.read() as connection:
                newest = newest_change(connection)
                if self._cursor is None or newest - self._cursor > INDEX_BEHIND_MAX:
                    # What is there now is found by walks, which begin after this look.
                    self._levels = {resource_type: _Level() for resource_type in ResourceType}
                    self._cursor = newest
                    return
                if newest == self._cursor:
                    return
                rows = connection.execute(_changes_after(self._cursor, self._page_rows)).all()
                places = _places_touched(connection, rows)
            for place in places:
                for resource_type, level in self._levels.items():
                    level.entries.add(place.id_of(resource_type), place.key_of(resource_type))
            self._cursor = rows[-1].seq


_indexes: WeakValueDictionary[int, OrthancIndex] = WeakValueDictionary()
_indexes_lock = threading.Lock()


def index_of(database: Database) -> OrthancIndex:
    """Return the index of a database: one for all routes, for as long as any of them is there."""
    with _indexes_lock:
        found = _indexes.get(id(database))
        if found is None or found.database is not database:
            found = _indexes[id(database)] = OrthancIndex(database)
        return found


def _changes_after(seq: int, limit: int) -> Select[Any]:
    """Return the query for changes with the instance that each is about, and its study."""
    about = func.coalesce(changes.c.version_key, receipts.c.version_key)
    return (
        select(changes.c.seq, changes.c.kind, versions.c.instance_key, series.c.study_key)
        .join(receipts, receipts.c.receipt_key == changes.c.receipt_key)
        .join(versions, versions.c.version_key == about)
        .outerjoin(series, series.c.series_key == versions.c.series_key)
        .where(changes.c.seq > seq)
        .order_by(changes.c.seq)
        .limit(limit)
    )


def _places_touched(connection: Connection, rows: Sequence[Any]) -> list[Place]:
    """Return the instances that have an id since these changes which they may not have had before."""
    moved = {row.instance_key for row in rows if row.kind in _MOVES}
    studies = {row.study_key for row in rows if row.kind == ChangeKind.PATIENT}
    places = list(find_places(connection, ResourceType.INSTANCE, sorted(moved)).values())
    return places + places_of_studies(connection, sorted(studies))
