"""Where files and rows have to agree: what can be wrong between them, and how to look from side to side.

`verify` and `rebuild` walk the shelf and the catalog, and name what does not fit in the same words. Other
processes receive and remove meanwhile, so what looks wrong is looked at again before it is said.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, or_, select, text

from stowkeeper.archive.catalog_values import portions
from stowkeeper.archive.shelf_lock import OBJECTS
from stowkeeper.database.schema import (
    DAMAGED,
    ON_SHELF,
    instance_among,
    instances,
    receipts,
    series,
    studies,
    versions,
)
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.probe import PROBE_FOLDER
from stowkeeper.durable.process_folder import DEPOT

_NO_FOLDER = frozenset({errno.ENOENT, errno.ENOTDIR})


class Fault(StrEnum):
    """What can be wrong with a file, with a row, or between them."""

    DAMAGED = "damaged"  # the bytes do not fit the receipt in the file
    MISSING = "missing"  # a row without its file
    UNLISTED = "unlisted"  # a file without its row
    UNREADABLE = "unreadable"  # the medium does not give the bytes, which says nothing about the file
    DIFFERENT = "different"  # a whole file of which the row says something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """One thing that is wrong.

    `path` is relative to the archive. `sop_instance_uid` and `receipt_id` are empty where nobody knows them.
    `words` say what is wrong, without patient data. `moved_to` is where the file stands now, if it was put
    away.
    """

    fault: Fault
    path: str
    sop_instance_uid: str
    receipt_id: str
    words: str
    moved_to: str = ""


def walk_shelf(files: FileSystem, root: str, start: str = OBJECTS) -> Iterator[tuple[str, list[str]]]:
    """Yield every folder from `start` on that holds files, relative to the archive, with their sorted names.

    A folder that is removed meanwhile is passed over. Memory is that of one folder's names, and of those
    above it.
    """
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        try:
            entries = files.list_directory(os.path.join(root, folder))
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            continue
        names = sorted(entry.name for entry in entries if not entry.is_directory)
        below = sorted((entry.name for entry in entries if entry.is_directory), reverse=True)
        del entries
        if folder == OBJECTS:
            below = [name for name in below if name != PROBE_FOLDER]
        waiting += [f"{folder}/{name}" for name in below]
        if names:
            yield folder, names


def in_study(study_instance_uid: str) -> ColumnElement[bool]:
    """Return the condition that a version belongs to a study."""
    keys = select(series.c.series_key).join(studies, studies.c.study_key == series.c.study_key)
    return versions.c.series_key.in_(keys.where(studies.c.study_instance_uid == study_instance_uid))


def in_series(series_instance_uid: str) -> ColumnElement[bool]:
    """Return the condition that a version belongs to a series, in whatever study."""
    keys = select(series.c.series_key).where(series.c.series_instance_uid == series_instance_uid)
    return versions.c.series_key.in_(keys)


def in_any(uid: str) -> ColumnElement[bool]:
    """Return the condition that a version belongs to a study, a series or an instance of this UID."""
    keys = select(instances.c.instance_key).where(instance_among([uid]))
    return or_(versions.c.instance_key.in_(keys), in_series(uid), in_study(uid))


def listed_paths(connection: Connection, paths: Iterable[str]) -> set[str]:
    """Return those of some paths at which a row says that its file stands."""
    return {
        path
        for portion in portions(paths)
        for path in connection.execute(
            select(versions.c.path).where(versions.c.path.in_(portion), text(ON_SHELF))
        ).scalars()
    }


def receipts_at(connection: Connection, paths: Iterable[str]) -> dict[str, str]:
    """Return, for some paths, the receipt ids of the versions whose rows say that their files stand there."""
    query = select(versions.c.path, receipts.c.receipt_id).join(
        receipts, receipts.c.receipt_key == versions.c.version_key
    )
    return {
        row.path: row.receipt_id
        for portion in portions(paths)
        for row in connection.execute(query.where(versions.c.path.in_(portion), text(ON_SHELF)))
    }


def damaged_receipts_at(connection: Connection, paths: Iterable[str]) -> dict[str, set[str]]:
    """Return, for some paths, the receipt ids of the damaged versions whose files stood or stand there."""
    found: dict[str, set[str]] = {}
    for portion in portions(paths):
        query = (
            select(versions.c.path, receipts.c.receipt_id)
            .join(receipts, receipts.c.receipt_key == versions.c.version_key)
            .where(versions.c.path.in_(portion), text(DAMAGED))
        )
        for row in connection.execute(query):
            found.setdefault(row.path, set()).add(row.receipt_id)
    return found


def depot_inodes(files: FileSystem, root: str) -> set[int]:
    """Return the inodes of all files in the folders of the depot: what one of them leads to is on its way."""
    inodes: set[int] = set()
    depot = os.path.join(root, DEPOT)
    try:
        folders = [entry.name for entry in files.list_directory(depot) if entry.is_directory]
    except FileNotFoundError:
        return inodes
    for name in folders:
        try:
            inodes.update(entry.inode for entry in files.list_directory(f"{depot}/{name}"))
        except FileNotFoundError:  # its process ended just now
            continue
    return inodes
