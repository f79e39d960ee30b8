"""The model of a machine with the archive's real catalog on it: a power cut keeps each transaction that was committed.

SQLite's own syncs are not modelled. What it says of them is believed, and pinned by the tests of the database room.
"""

import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from stowkeeper.database.engine import Database
from stowkeeper.durable.filesystem import NoSyncFileSystem
from support.archive_rig import ROOT, ArchiveRig
from support.catalog_rows import open_database
from support.model_filesystem import ModelFileSystem

Promise = TypeVar("Promise")

_FAST = Path("/dev/shm")
"""A memory file system where there is one: the catalog of a model needs no disk."""


class MachineWithCatalog(ModelFileSystem):
    """A model file system; each copy of it, and what a power cut leaves of it, knows the catalog of that moment."""

    take_catalog: Callable[[], bytes] = staticmethod(lambda: b"")

    def _like(self) -> Self:
        other = super()._like()
        content = self.take_catalog()
        other.take_catalog = lambda: content
        return other

    def print(self) -> object:
        """Return a value that is equal for machines that hold the same files under the same names, and rows."""
        inodes = {path: self._find(path).number for path in self.tree()}
        return tuple(self.tree().items()), tuple(inodes.items()), self.take_catalog()


class NoSyncMachine(NoSyncFileSystem, MachineWithCatalog):
    """The machine of a server that runs with `--no-sync`."""


@contextmanager
def running_rig(machine: MachineWithCatalog, **options: Any) -> Iterator[ArchiveRig]:
    """Run a process of the archive on a machine, with the catalog that is on it; copies see every commit."""
    with tempfile.TemporaryDirectory(dir=_FAST if _FAST.is_dir() else None) as place:
        path = Path(place) / "catalog.sqlite"
        content = machine.take_catalog()
        if content:
            path.write_bytes(content)
        with open_database(path.parent, sync=False) as database, _snapshots(database) as snapshots:
            machine.take_catalog = snapshots
            try:
                machine.place_folder(ROOT)
                yield ArchiveRig(machine, database, **options)
            finally:
                content = snapshots()
                machine.take_catalog = lambda: content


def once_each(
    check: Callable[[MachineWithCatalog, tuple[Promise, ...]], None],
) -> Callable[[ModelFileSystem, tuple[Promise, ...]], None]:
    """Return a check for power cuts that looks once at states that are equal under equal promises."""
    seen: set[object] = set()

    def check_new(state: ModelFileSystem, promises: tuple[Promise, ...]) -> None:
        assert isinstance(state, MachineWithCatalog)
        state_of_all = state.print(), promises
        if state_of_all not in seen:
            seen.add(state_of_all)
            check(state, promises)

    return check_new


def damage(machine: ModelFileSystem, path: str, offset: int, bit: int = 0) -> None:
    """Turn one bit of a file, on the medium and in the cache, as a disk does that goes bad."""
    inode = machine._find(path)
    block, place = divmod(offset, machine.block_size)
    content = inode.current[block]
    assert isinstance(content, bytes)
    changed = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
    inode.current[block] = inode.medium[block] = changed


def any_cut(machine: MachineWithCatalog, seed: int) -> MachineWithCatalog:
    """Cut the power and keep any subset of what was not synced."""
    return machine.crash(random.Random(seed))


@contextmanager
def _snapshots(database: Database) -> Iterator[Callable[[], bytes]]:
    """Give the committed content of a database, read anew only when it changed."""
    connection = sqlite3.connect(database.path, isolation_level=None, check_same_thread=False)
    last: list[Any] = [None, b""]

    def snapshot() -> bytes:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != last[0]:
            last[:] = version, connection.serialize()
        content: bytes = last[1]
        return content

    try:
        yield snapshot
    finally:
        connection.close()
