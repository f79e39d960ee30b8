"""Mending: what `rebuild` does, for a catalog that is there, beside servers that go on receiving.

The head of every file on the shelf is compared with its row. What agrees is left alone, unread; `verify` reads it. What
no row knows, or a row knows otherwise, is read from the medium to its end, and what is whole is listed by its receipt.

Servers change the shelf and the rows meanwhile. So rows are mended under the shelf's lock, where nobody links or unlinks,
and in a write transaction, where no row changes; and a file whose inode has a name in the depot is left alone, since
whoever put it on the shelf is about to list it. Nothing is moved, renamed or deleted, and what dead processes left in the
depot is their servers' to recover.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from sqlalchemy import select, text

from stowkeeper.archive import catalog
from stowkeeper.archive.agreement import Discrepancy, Fault, depot_inodes, walk_shelf
from stowkeeper.archive.catalog_values import CatalogEntry, Version, portions
from stowkeeper.archive.examine import Examination, Finding, examine, read_receipt
from stowkeeper.archive.hanging_files import counted, read_files
from stowkeeper.archive.judging import STANDING
from stowkeeper.archive.limits import HEAD_READ_BYTES, MENDING_BATCH_MAX
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.relisting import RebuildCounts, Relisting, discrepancy_of, entry_of
from stowkeeper.archive.shelf_lock import ShelfLock
from stowkeeper.database import schema
from stowkeeper.database.engine import Database
from stowkeeper.durable.filesystem import FileSystem

_Fact = tuple[str, str, int, str, str, str]
"""Receipt id, SOP Instance UID, file size, digest, SOP class and transfer syntax."""

Result = TypeVar("Result")


class _Passed(Enum):
    """Why a suspect is none any more, or none of ours."""

    KNOWN = auto()  # on a busy server the rows of most of them have come meanwhile
    ON_ITS_WAY = auto()  # somebody is about to list it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What was read of a file before anything was locked."""

    inode: int
    examination: Examination


class Mending:
    """One pass over an archive; `run` it once. `counts` says what it did.

    `progress` is told the bytes of each block that was read, by several threads, and 0 between two looks; it may wait, and
    may raise to break the pass off.
    """

    def __init__(
        self,
        files: FileSystem,
        root: str,
        database: Database,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._files = files
        self._root = root
        self._database = database
        self._progress = progress or (lambda _count: None)
        self.counts = RebuildCounts()
        self._relisting = Relisting(files, root, self.counts)

    def run(self) -> Iterator[Discrepancy]:
        """Mend, and yield what is wrong and stays so. Raises DatabaseUnavailable or OSError; a second pass goes on."""
        for suspects in portions(self._suspects(), MENDING_BATCH_MAX):
            yield from self._mend(suspects)
        yield from self._missing()

    # What the rows know right is passed by.

    def _suspects(self) -> Iterator[str]:
        """Yield the paths of files of which a row says something else, or no row anything."""
        for (path, stated), found in self._reading(
            self._look_at, self._stated(), weigh=lambda _item: HEAD_READ_BYTES
        ):
            self._progress(0)
            if isinstance(found, FileNotFoundError):
                continue
            if isinstance(found, OSError) or stated is None or found != stated:
                yield path
            else:
                self.counts.files += 1
                self.counts.known += 1

    def _stated(self) -> Iterator[tuple[str, _Fact | None]]:
        """Yield every path on the shelf with what its row says of the file there."""
        for folder, names in walk_shelf(self._files, self._root):
            paths = [f"{folder}/{name}" for name in names]
            stated = self._facts_at(paths)
            for path in paths:
                yield path, stated.get(path)

    def _facts_at(self, paths: Iterable[str]) -> dict[str, _Fact]:
        versions, receipts, instances = schema.versions, schema.receipts, schema.instances
        query = (
            select(
                versions.c.path,
                receipts.c.receipt_id,
                instances.c.sop_instance_uid,
                versions.c.file_size,
                receipts.c.digest,
                versions.c.sop_class_uid,
                versions.c.transfer_syntax_uid,
            )
            .join(receipts, receipts.c.receipt_key == versions.c.version_key)
            .join(instances, instances.c.instance_key == versions.c.instance_key)
        )
        found: dict[str, _Fact] = {}
        for portion in portions(paths):
            with self._database.read() as connection:
                for row in connection.execute(
                    query.where(versions.c.path.in_(portion), text(schema.ON_SHELF))
                ):
                    path, *facts = row
                    found[path] = tuple(facts)
        return found

    def _look_at(self, item: tuple[str, _Fact | None]) -> _Fact | None:
        """Return what the head of a file and its length say, on a thread of its own; None where that is nothing."""
        path = os.path.join(self._root, item[0])
        receipt = read_receipt(self._files, path)
        if receipt is None:
            return None
        size = self._files.status(path).size
        return (
            receipt.receipt_id,
            receipt.sop_instance_uid,
            size,
            receipt.digest,
            receipt.sop_class_uid,
            receipt.transfer_syntax_uid,
        )

    # What is left is read, and listed under the locks.

    def _mend(self, paths: Sequence[str]) -> Iterator[Discrepancy]:
        on_their_way = depot_inodes(self._files, self._root)
        whole: list[tuple[CatalogEntry, int]] = []
        stated = self._facts_at(paths)
        suspects = [(path, stated.get(path)) for path in paths]
        for (path, _), looked in self._reading(lambda item: self._read(item, on_their_way), suspects):
            if looked is _Passed.KNOWN:
                self.counts.files += 1
                self.counts.known += 1
            if isinstance(looked, _Passed | FileNotFoundError):
                continue
            if isinstance(looked, OSError):
                yield discrepancy_of(Fault.UNREADABLE, path, f"it cannot be read: {looked.strerror}")
                continue
            examination = looked.examination
            self.counts.files += 1
            self.counts.size += examination.size
            if examination.finding is Finding.WHOLE and examination.receipt is not None:
                whole.append((entry_of(path, examination, examination.receipt), looked.inode))
            elif self._files_still(path, looked.inode):
                words = f"{examination.words}; it was left as it is"
                yield discrepancy_of(Fault.DAMAGED, path, words, examination.receipt)
        if whole:
            yield from self._list(whole)

    def _read(self, item: tuple[str, _Fact | None], on_their_way: set[int]) -> _Looked | _Passed:
        """Read a file to its end, on a thread of its own, if it still is a suspect."""
        path, stated = item
        if stated is not None and self._look_at(item) == stated:
            return _Passed.KNOWN
        absolute = os.path.join(self._root, path)
        inode = self._files.status(absolute).inode
        if inode in on_their_way:
            return _Passed.ON_ITS_WAY
        examination = examine(self._files, absolute, scan=True, progress=counted(self._progress))
        return _Looked(inode=inode, examination=examination)

    def _reading(
        self,
        function: Callable[[tuple[str, _Fact | None]], Result],
        items: Iterable[tuple[str, _Fact | None]],
        weigh: Callable[[tuple[str, _Fact | None]], int] | None = None,
    ) -> Iterator[tuple[tuple[str, _Fact | None], Result | OSError]]:
        """Yield each path and fact with what a function makes of the file; of one that hangs, an error."""
        return read_files(
            function,
            items,
            root=self._root,
            path_of=lambda item: item[0],
            weigh=weigh,
            go_on=lambda: self._progress(0),
        )

    def _list(self, whole: Sequence[tuple[CatalogEntry, int]]) -> list[Discrepancy]:
        """List whole files that stand where they stood when they were read, and that nobody else is about to list."""
        with ShelfLock(self._files, self._root).held():
            # In this order: a file's depot name goes after its row is there. What has no name there now has its row, or
            # never gets one by anybody else.
            on_their_way = depot_inodes(self._files, self._root)
            entries = [
                entry
                for entry, inode in whole
                if inode not in on_their_way and self._is_still(entry.path, inode, entry.receipt)
            ]
            if not entries:
                return []
            with self._database.write() as transaction:
                return self._relisting.relist(transaction, entries)

    def _is_still(self, path: str, inode: int, receipt: Receipt) -> bool:
        """Tell whether a name leads to the very file that was read; the number of an inode can be given again."""
        if not self._files_still(path, inode):
            return False
        try:
            found = read_receipt(self._files, os.path.join(self._root, path))
        except FileNotFoundError:
            return False
        return found is not None and found.receipt_id == receipt.receipt_id

    def _files_still(self, path: str, inode: int) -> bool:
        try:
            return self._files.status(os.path.join(self._root, path)).inode == inode
        except FileNotFoundError:
            return False

    # From the rows to the files.

    def _missing(self) -> Iterator[Discrepancy]:
        """Name the rows whose files are not there and that say so still."""
        for version in catalog.iterate_versions(self._database, states=STANDING):
            self._progress(0)
            if not self._is_there(version) and self._stands_still(version):
                yield Discrepancy(
                    fault=Fault.MISSING,
                    path=version.path,
                    sop_instance_uid=version.sop_instance_uid,
                    receipt_id=version.receipt_id,
                    words="its file is not there; its row stays",
                )

    def _is_there(self, version: Version) -> bool:
        try:
            self._files.status(os.path.join(self._root, version.path))
        except FileNotFoundError:
            return False
        return True

    def _stands_still(self, version: Version) -> bool:
        """Tell whether a row says the same as when it was read: a removal may have come between."""
        with self._database.read() as connection:
            now = catalog.find_version_by_path(connection, version.path)
        return now is not None and now.version_key == version.version_key and now.state in STANDING
