"""Rebuilding: restore the catalog from the files alone, or complete the one that is there.

Every file on the shelf is read from the medium; what is whole is listed by the receipt in it, in the order in
which the files were received, so that versions and current pointers come out as they were. Files are never
moved, renamed or deleted. In a database that is there, rows go in by receipt id: what it knows stays, what
only rows know stays, and a row that contradicts its file follows the file.

A catalog made anew stands under a name of its own until it is complete, and gets its real name by a link: an
archive whose rebuild was cut off has no catalog, and says so.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from sqlalchemy import update

from stowkeeper.archive import catalog, patient_tree, versions
from stowkeeper.archive.agreement import Discrepancy, Fault, receipts_at, walk_shelf
from stowkeeper.archive.archive import (
    CATALOG,
    CATALOG_LOCK,
    SERVER_LOCK,
    ArchiveRefusedError,
    explain_foreign_catalog,
    note_put_aside,
)
from stowkeeper.archive.arrival_order import ArrivalOrder
from stowkeeper.archive.catalog_values import CatalogEntry, InsertResult, Version, VersionState, portions
from stowkeeper.archive.examine import Examination, Finding, examine, read_receipt
from stowkeeper.archive.finisher import Finisher
from stowkeeper.archive.intake import content_of
from stowkeeper.archive.limits import FINISHER_BATCH_MAX
from stowkeeper.archive.modes import file_mode_in
from stowkeeper.archive.quarantine import QUARANTINE
from stowkeeper.archive.read_ahead import map_ahead
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.recovery import Recovery, RecoveryCounts
from stowkeeper.archive.shelf_lock import OBJECTS, ShelfLock
from stowkeeper.database import schema
from stowkeeper.database.engine import Database, DatabaseUnavailable, Transaction
from stowkeeper.database.left_over_log import put_log_aside
from stowkeeper.dicom.attributes import extract
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.identity import ensure_archive_id, read_archive_id
from stowkeeper.durable.process_folder import DEPOT
from stowkeeper.durable.server_lock import ArchiveInUseError, ServerLock

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
_STANDING = (VersionState.KEPT, VersionState.SUPERSEDED)


@dataclass(slots=True, kw_only=True)
class RebuildCounts:
    """What a rebuild did, in numbers of files. `size` is in bytes read.

    `listed` were new to the database, `known` in it already. `restored` had been removed or damaged by the
    rows, and are there and whole. `moved` stand at another place than the rows said, `corrected` differed in
    other ways. `quarantined` is the number of files in quarantine, which are not listed.
    """

    files: int = 0
    size: int = 0
    listed: int = 0
    known: int = 0
    restored: int = 0
    moved: int = 0
    corrected: int = 0
    quarantined: int = 0
    recovered: RecoveryCounts = field(default_factory=RecoveryCounts)


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
        self._found: list[Discrepancy] = []
        self._opened = False
        if not os.path.isdir(self._path(OBJECTS)):
            raise ArchiveRefusedError(
                f"{self.root} has no folder `{OBJECTS}`, so there is nothing to rebuild from: name the archive with "
                "--archive, and see that its disk is mounted"
            )
        self._lock = self._lock_out_servers()
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
        for path, found in map_ahead(self._look_at, self._paths()):
            count += 1
            receipt = None  # of what cannot be read: it is read again, and reported then
            if not isinstance(found, OSError):
                receipt, length = found
                size += length
            self._order.add(_place(receipt), path)
        return count, size

    def run(self) -> Iterator[Discrepancy]:
        """Rebuild, and yield what is wrong as it is found. Raises DatabaseUnavailable or OSError."""
        for some in portions(map_ahead(self._examine, self._order), FINISHER_BATCH_MAX):
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
        return examine(self._files, self._path(path), scan=True, progress=self._progress)

    # Opening.

    def _lock_out_servers(self) -> ServerLock:
        try:
            return ServerLock(self._path(SERVER_LOCK), shared=False)
        except ArchiveInUseError as error:
            raise ArchiveInUseError(
                f"the archive {self.root} is in use: stop its server (and any other rebuild), since a rebuild needs "
                "the archive for itself"
            ) from error

    def _identify(self) -> None:
        """Tie the database to the archive, or refuse one that belongs to another."""
        stated = read_archive_id(self._files, self.root)
        with self._database.read() as connection:
            recorded = catalog.archive_id(connection)
        if recorded is None:
            with self._database.write() as transaction:
                catalog.set_archive_id(transaction, ensure_archive_id(self._files, self.root))
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
                yield _discrepancy(Fault.UNREADABLE, path, f"it cannot be read: {examination.strerror}")
                continue
            self.counts.files += 1
            self.counts.size += examination.size
            if examination.finding is Finding.WHOLE and examination.receipt is not None:
                entries.append(_entry(path, examination, examination.receipt))
            else:
                words = f"{examination.words}; it was left as it is"
                yield _discrepancy(Fault.DAMAGED, path, words, examination.receipt)
        self._found = []
        if entries:
            with self._database.write() as transaction:
                # Nobody removes anything now, but a removal may have been here since they were read.
                self._list(transaction, [entry for entry in entries if self._is_there(entry.path)])
        yield from self._found

    def _list(self, transaction: Transaction, entries: Sequence[CatalogEntry]) -> None:
        """Put whole files into the catalog; where it knows them, see that it says the same."""
        if not self.is_new:
            self._clear_places(transaction, entries)
        results = catalog.insert(transaction, entries)
        known = [(entry, result) for entry, result in zip(entries, results, strict=True) if not result.new]
        self.counts.listed += len(entries) - len(known)
        if not known:
            return
        uids = sorted({entry.receipt.sop_instance_uid for entry, _ in known})
        found = catalog.find_versions(transaction.connection, uids, tuple(VersionState))
        versions_of = {version.receipt_id: version for some in found.values() for version in some}
        for entry, result in known:
            self._compare(transaction, entry, result, versions_of.get(entry.receipt.receipt_id))

    def _clear_places(self, transaction: Transaction, entries: Sequence[CatalogEntry]) -> None:
        """Free the places of files from rows of others: where one file stands, no other can."""
        stated = receipts_at(transaction.connection, [entry.path for entry in entries])
        for entry in entries:
            if stated.get(entry.path, entry.receipt.receipt_id) == entry.receipt.receipt_id:
                continue
            version = catalog.find_version_by_path(transaction.connection, entry.path)
            if version is not None and version.state is VersionState.REMOVING:
                catalog.mark_removed(transaction, [version.version_key])
            else:
                catalog.mark_damaged(transaction, entry.path, "another file stood in its place")

    def _compare(
        self, transaction: Transaction, entry: CatalogEntry, result: InsertResult, version: Version | None
    ) -> None:
        """See that the catalog says of a file what its receipt says; `version` is what it knows by that."""
        if version is None:  # no version of this instance has it
            version = catalog.find_version_by_receipt(transaction.connection, entry.receipt.receipt_id)
        if version is None or version.receipt_id != entry.receipt.receipt_id:
            words = f"its receipt is listed as {result.outcome} to another file: remove it by hand if both are whole"
            self._found.append(_discrepancy(Fault.UNLISTED, entry.path, words, entry.receipt))
        elif version.state in _STANDING and version.path != entry.path and self._has_file(version):
            words = f"it is a second copy or name of {version.path}: remove it by hand"
            self._found.append(_discrepancy(Fault.UNLISTED, entry.path, words, entry.receipt))
        elif version.sop_instance_uid != entry.receipt.sop_instance_uid:
            words = (
                f"the catalog has it as instance {version.sop_instance_uid}: restore an older catalog.sqlite"
            )
            self._found.append(_discrepancy(Fault.DIFFERENT, entry.path, words, entry.receipt))
        elif version.state is VersionState.REMOVING:
            self.counts.known += 1  # whoever removes it goes on
        elif version.state not in _STANDING:
            _restore(transaction, version, entry)
            self.counts.restored += 1
        elif version.path != entry.path:
            _correct(transaction, version, entry)
            self.counts.moved += 1
        elif version.content != content_of(entry.receipt) or version.file_size != entry.file_size:
            _correct(transaction, version, entry)
            self.counts.corrected += 1
        else:
            self.counts.known += 1

    # From the rows to the files.

    def _missing(self) -> Iterator[Discrepancy]:
        """Name the rows whose files are not there."""
        for version in catalog.iterate_versions(self._database, states=_STANDING):
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

    def _has_file(self, version: Version) -> bool:
        """Tell whether the file of a version stands where its row says."""
        try:
            receipt = read_receipt(self._files, self._path(version.path))
        except FileNotFoundError:
            return False
        return receipt is None or receipt.receipt_id == version.receipt_id

    def _is_there(self, path: str) -> bool:
        try:
            self._files.status(self._path(path))
        except FileNotFoundError:
            return False
        return True


def _place(receipt: Receipt | None) -> str:
    return _LAST if receipt is None else f"{receipt.received_at} {receipt.receipt_id}"


def _entry(path: str, examination: Examination, receipt: Receipt) -> CatalogEntry:
    attributes, verdicts = extract(examination.values, examination.little_endian)
    return CatalogEntry(
        receipt=receipt,
        path=path,
        file_size=examination.size,
        attributes=attributes,
        verdicts=(*examination.remarks, *verdicts),
        answer_known=False,
    )


def _discrepancy(fault: Fault, path: str, words: str, receipt: Receipt | None = None) -> Discrepancy:
    return Discrepancy(
        fault=fault,
        path=path,
        sop_instance_uid=receipt.sop_instance_uid if receipt is not None else "",
        receipt_id=receipt.receipt_id if receipt is not None else "",
        words=words,
    )


def _restore(transaction: Transaction, version: Version, entry: CatalogEntry) -> None:
    """Let a version be kept again whose row says that it went, since its file is there and whole."""
    kept = {"state": VersionState.KEPT, "state_since": transaction.at, "removal_due_at": None}
    _correct(transaction, version, entry, **kept)
    patient_tree.place(transaction, [entry])


def _correct(transaction: Transaction, version: Version, entry: CatalogEntry, **more: str | None) -> None:
    """Let the rows of a version say what its file says."""
    receipt = entry.receipt
    transaction.execute(
        update(schema.versions)
        .where(schema.versions.c.version_key == version.version_key)
        .values(
            path=entry.path,
            file_size=entry.file_size,
            sop_class_uid=receipt.sop_class_uid,
            transfer_syntax_uid=receipt.transfer_syntax_uid,
            **more,
        )
    )
    transaction.execute(
        update(schema.receipts)
        .where(schema.receipts.c.receipt_id == receipt.receipt_id)
        .values(
            digest=receipt.digest, data_set_length=receipt.data_set_length, received_at=receipt.received_at
        )
    )
    versions.settle(transaction, [version.instance_key])
