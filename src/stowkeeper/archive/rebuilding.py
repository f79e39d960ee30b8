"""Rebuilding: restore the catalog from the files alone, or complete the one that is there.

Every file on the shelf is read from the medium; what is whole is listed by the receipt in it, in the order in
which the files were received, so that versions and current pointers come out as they were. Files are never
moved, renamed or deleted. In a database that is there, rows go in by receipt id: what it knows stays, what
only rows know stays, and a row that contradicts its file follows the file.

A catalog made anew stands under a name of its own until it is complete, and gets its real name by a link: an
archive whose rebuild was cut off has no catalog, and says so.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Self, TypeVar

from stowkeeper.archive import catalog
from stowkeeper.archive.agreement import Discrepancy, Fault, walk_shelf
from stowkeeper.archive.archive import (
    CATALOG,
    CATALOG_LOCK,
    SERVER_LOCK,
    ArchiveRefusedError,
    explain_foreign_catalog,
    note_put_aside,
)
from stowkeeper.archive.arrival_order import ArrivalOrder
from stowkeeper.archive.catalog_values import CatalogEntry, portions
from stowkeeper.archive.examine import Examination, Finding, examine, read_receipt
from stowkeeper.archive.finisher import Finisher
from stowkeeper.archive.hanging_files import counted, read_files
from stowkeeper.archive.judging import STANDING
from stowkeeper.archive.limits import FINISHER_BATCH_MAX
from stowkeeper.archive.modes import file_mode_in
from stowkeeper.archive.quarantine import QUARANTINE
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.recovery import Recovery
from stowkeeper.archive.relisting import RebuildCounts, Relisting, discrepancy_of, entry_of
from stowkeeper.archive.shelf_lock import OBJECTS, ShelfLock
from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.database.left_over_log import put_log_aside
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.identity import ensure_archive_id, read_archive_id
from stowkeeper.durable.process_folder import DEPOT
from stowkeeper.durable.server_lock import ServerLock

__all__ = ["NEW_CATALOG", "UNTOLD", "RebuildCounts", "Rebuilding"]

NEW_CATALOG = f"{CATALOG}.new"

UNTOLD = (
    "which requests were refused, and what each request was answered",
    "receipts of instances of which an identical file was kept already",
    "associations",
    "holds, such as those of storage commitment",
    "what was removed, when and why, and what is due for removal",
    "which files were found damaged (the notes in quarantine tell)",
)
"""What no file can tell. It stays in a database that is there, and is lost with one that is not."""

_LAST = "~"  # behind every time

Result = TypeVar("Result")


class Rebuilding:
    """One rebuild of an archive: `look`, then `run` once, in a with block. It keeps servers off for its time.

    `progress` is told the bytes of each block that was read, by several threads.
    """

    def __init__(
        self, root: str, *, files: FileSystem | None = None, progress: Callable[[int], None] | None = None
    ) -> None:
        """Open the archive in a folder, or refuse to.

        Raises ArchiveRefusedError, ArchiveInUseError, DatabaseError, DurableError or OSError.
        """
        self.root = os.path.abspath(root)
        self.counts = RebuildCounts()
        self._files = files if files is not None else FileSystem()
        self._progress = progress or (lambda _count: None)
        self._order = ArrivalOrder()
        self._relisting = Relisting(self._files, self.root, self.counts)
        self._opened = False
        if not os.path.isdir(self._path(OBJECTS)):
            raise ArchiveRefusedError(
                f"{self.root} has no folder `{OBJECTS}`, so there is nothing to rebuild from: name the archive with "
                "--archive, and see that its disk is mounted"
            )
        self._lock = ServerLock(
            self._path(SERVER_LOCK),
            shared=False,
            advice="stop its server (and any other rebuild), since a rebuild needs the archive for itself",
        )
        try:
            self.is_new = not os.path.exists(self._path(CATALOG))
            self._remove_unfinished()
            self._database = Database.open(
                self._path(NEW_CATALOG if self.is_new else CATALOG),
                lock_path=self._path(CATALOG_LOCK),
                mode=file_mode_in(self._files, self.root),
            )
            self._opened = True
            try:
                self._identify()
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and let servers in. A new catalog that is not complete goes. Twice is fine."""
        self._order.close()
        if self._opened:
            self._opened = False
            self._database.close()
            if self.is_new:
                with suppress(OSError):
                    self._remove_unfinished()
        self._lock.release()

    def look(self) -> tuple[int, int]:
        """Read the head of every file on the shelf, for the order in time; return their number and bytes."""
        with ShelfLock(self._files, self.root).held():
            pass  # which takes back what a process that died could not prove: it is still in the depot
        count = size = 0
        for path, found in self._reading(self._look_at, self._paths()):
            count += 1
            receipt = None  # of what cannot be read: it is read again, and reported then
            if not isinstance(found, OSError):
                receipt, length = found
                size += length
            self._order.add(_place(receipt), path)
        return count, size

    def run(self) -> Iterator[Discrepancy]:
        """Rebuild, and yield what is wrong as it is found. Raises DatabaseUnavailable or OSError."""
        for some in portions(self._reading(self._examine, self._order), FINISHER_BATCH_MAX):
            yield from self._take(some)
        if not self.is_new:
            yield from self._missing()
        self._recover_depot()
        self.counts.quarantined = self._count_quarantine()
        if self.is_new:
            self._give_name()

    def _paths(self) -> Iterator[str]:
        for folder, names in walk_shelf(self._files, self.root):
            yield from (f"{folder}/{name}" for name in names)

    def _look_at(self, path: str) -> tuple[Receipt | None, int]:
        """Return the receipt of a file and its bytes; on a thread of its own."""
        return read_receipt(self._files, self._path(path)), self._files.status(self._path(path)).size

    def _examine(self, path: str) -> Examination:
        """Read a file, on a thread of its own."""
        return examine(self._files, self._path(path), scan=True, progress=counted(self._progress))

    def _reading(
        self, function: Callable[[str], Result], paths: Iterable[str]
    ) -> Iterator[tuple[str, Result | OSError]]:
        """Yield each path with what a function makes of its file; of one that hangs, an error."""
        return read_files(function, paths, root=self.root, path_of=str)

    # Opening.

    def _identify(self) -> None:
        """Tie the database to the archive, or refuse one that belongs to another."""
        stated = read_archive_id(self._files, self.root)
        with self._database.read() as connection:
            recorded = catalog.archive_id(connection)
        if recorded is None:
            with self._database.write() as transaction:
                mode = file_mode_in(self._files, self.root)
                catalog.set_archive_id(transaction, ensure_archive_id(self._files, self.root, mode=mode))
        elif stated != recorded:
            raise ArchiveRefusedError(explain_foreign_catalog(self.root, stated=stated, recorded=recorded))

    def _remove_unfinished(self) -> None:
        """Remove what a rebuild that was cut off left: it is not complete, or has its real name already."""
        for ending in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self._files.unlink(self._path(NEW_CATALOG + ending))

    def _give_name(self) -> None:
        """Let the complete new catalog have its real name, durably."""
        self._opened = False
        self._database.close()
        if os.path.exists(self._path(f"{NEW_CATALOG}-wal")):
            raise DatabaseUnavailable(
                f"{self._path(NEW_CATALOG)} could not be closed: see what else has it open, and rebuild again"
            )
        # SQLite would bring a log that is still there from the lost catalog into this one.
        note_put_aside(put_log_aside(self._path(CATALOG)))
        self._files.link(self._path(NEW_CATALOG), self._path(CATALOG))
        self._files.synchronize_directory(self.root)
        self._remove_unfinished()
        self.is_new = False

    # From the files to the rows.

    def _take(self, some: Sequence[tuple[str, Examination | OSError]]) -> Iterator[Discrepancy]:
        """List the whole ones of some files in one transaction."""
        entries: list[CatalogEntry] = []
        for path, examination in some:
            if isinstance(examination, FileNotFoundError):
                continue
            if isinstance(examination, OSError):
                yield discrepancy_of(Fault.UNREADABLE, path, f"it cannot be read: {examination.strerror}")
                continue
            self.counts.files += 1
            self.counts.size += examination.size
            if examination.finding is Finding.WHOLE and examination.receipt is not None:
                entries.append(entry_of(path, examination, examination.receipt))
            else:
                words = f"{examination.words}; it was left as it is"
                yield discrepancy_of(Fault.DAMAGED, path, words, examination.receipt)
        found: list[Discrepancy] = []
        if entries:
            with self._database.write() as transaction:
                # Nobody removes anything now, but a removal may have been here since they were read.
                there = [entry for entry in entries if self._is_there(entry.path)]
                found = self._relisting.relist(transaction, there, is_new=self.is_new)
        yield from found

    # From the rows to the files.

    def _missing(self) -> Iterator[Discrepancy]:
        """Name the rows whose files are not there."""
        for version in catalog.iterate_versions(self._database, states=STANDING):
            if not self._is_there(version.path):
                yield Discrepancy(
                    fault=Fault.MISSING,
                    path=version.path,
                    sop_instance_uid=version.sop_instance_uid,
                    receipt_id=version.receipt_id,
                    words="its file is not there; its row stays",
                )

    def _recover_depot(self) -> None:
        """Finish what dead processes left in the depot."""
        if not os.path.isdir(self._path(DEPOT)):
            return
        failures: list[OSError | DatabaseUnavailable] = []
        finisher = Finisher(self._files, self.root, self._database, on_disk_failure=failures.append)
        self.counts.recovered = Recovery(self._files, self.root, self._path(DEPOT), finisher).run()
        if failures:
            raise failures[0]

    def _count_quarantine(self) -> int:
        try:
            entries = self._files.list_directory(self._path(QUARANTINE))
        except FileNotFoundError:
            return 0
        return sum(not entry.name.endswith(".txt") for entry in entries)

    def _path(self, relative: str) -> str:
        return os.path.join(self.root, relative)

    def _is_there(self, path: str) -> bool:
        try:
            self._files.status(self._path(path))
        except FileNotFoundError:
            return False
        return True


def _place(receipt: Receipt | None) -> str:
    return _LAST if receipt is None else f"{receipt.received_at} {receipt.receipt_id}"
