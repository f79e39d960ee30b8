"""The shelf: where whole files live, under names that are never used for other bytes.

A name is made by `link()` alone, which never replaces. `objects/<study>/<series>/<sop instance>_<digest>.dcm`,
or `objects/-/<class>/…` for instances that belong to no study. A UID that is not well formed is escaped,
never trusted as a path.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from itertools import islice
from typing import NamedTuple

from blake3 import blake3

from stowkeeper.archive import examine
from stowkeeper.archive.limits import PATH_COMPONENT_MAX
from stowkeeper.archive.modes import folder_mode_in
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.shelf_lock import OBJECTS, ShelfLock
from stowkeeper.durable.filesystem import FileSystem

_DIGEST_LETTERS = 32
_WELL_FORMED = re.compile(r"[0-9]{1,64}(?:\.[0-9]{1,64})*")
_NAMES_LOOKED_AT = 8  # more files of one digest, all damaged, were never seen
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENXIO})
_PLAIN = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-")


def escape(identifier: str) -> str:
    """Turn an identifier from a data set into a name that is safe as one component of a path."""
    if len(identifier) <= 64 and _WELL_FORMED.fullmatch(identifier):
        return identifier
    escaped = "".join(
        letter
        if letter in _PLAIN
        else "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogateescape"))
        for letter in identifier
    )
    if not escaped or len(escaped) > PATH_COMPONENT_MAX:
        return "%" + blake3(identifier.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGEST_LETTERS]
    return escaped


def folder_of(*, study_instance_uid: str, series_instance_uid: str, sop_class_uid: str) -> str:
    """Return the folder of an instance, relative to the archive."""
    if study_instance_uid and series_instance_uid:
        return f"{OBJECTS}/{escape(study_instance_uid)}/{escape(series_instance_uid)}"
    return f"{OBJECTS}/-/{escape(sop_class_uid)}"


def names_of(sop_instance_uid: str, digest: str) -> Iterator[str]:
    """Yield the names to try for an instance: the second and later ones only where one is taken."""
    stem = escape(sop_instance_uid)
    yield f"{stem}_{digest[:_DIGEST_LETTERS]}.dcm"
    yield f"{stem}_{digest}.dcm"
    number = 1
    while True:
        number += 1
        yield f"{stem}_{digest}_{number}.dcm"


class Placing(Enum):
    """How a depot file came to its place on the shelf."""

    LINKED = auto()
    ALREADY = auto()  # the same inode: an earlier run got this far
    IDENTICAL = auto()  # the same digest, class and transfer syntax is there, and was read from the medium


class Damaged(NamedTuple):
    """A file on the shelf that does not fit its receipt, by its name and by what that name led to."""

    path: str
    inode: int


class Placed:
    """Where a depot file stands now, and which older file it found there, if any.

    `damaged` is a damaged file of the same digest that this one repairs.
    """

    __slots__ = ("damaged", "how", "older", "path")

    def __init__(
        self, how: Placing, path: str, older: Receipt | None = None, damaged: Damaged | None = None
    ) -> None:
        self.how = how
        self.path = path
        self.older = older
        self.damaged = damaged


class Shelf:
    """Links depot files to their places and makes the names durable, a batch in each hold of the shelf's lock.

    One finisher owns it; it is not for several threads. It believes nothing of a folder from one batch to the next:
    a removal takes empty ones away.
    """

    def __init__(self, files: FileSystem, root: str) -> None:
        self._files = files
        self._root = root
        self._lock = ShelfLock(files, root)
        self._folders: set[str] = set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the shelf's lock for a batch: some calls of `place`, then `synchronize`.

        What was placed and is not synchronized at the end is taken back. Raises OSError as `ShelfLock.held` does.
        """
        self._folders = set()
        with self._lock.held():
            yield

    def place(
        self, depot_path: str, receipt: Receipt, folder: str, *, avoid: frozenset[str] = frozenset()
    ) -> Placed:
        """Link one depot file to the shelf, or find the identical one that is there already.

        Files at the paths in `avoid` count as other ones, whatever they hold.

        The name is durable only after `synchronize`. Raises OSError; nothing is lost by it, the depot
        name stays.
        """
        damaged: Damaged | None = None
        for name in names_of(receipt.sop_instance_uid, receipt.digest):
            path = f"{folder}/{name}"
            if path in avoid:
                continue
            if not self._is_there(path):
                self._link(depot_path, path, folder)
                return Placed(Placing.LINKED, path, damaged=damaged)
            found = self._compare(depot_path, path, receipt)
            if isinstance(found, Placed):
                self._folders.add(folder)
                found.damaged = damaged
                return found
            damaged = damaged or found
        raise AssertionError("the names to try do not end")

    def place_listed(self, depot_path: str, receipt: Receipt, path: str) -> Placed:
        """Give a depot file the name that its row says, where an earlier run was cut off after the row was written.

        Raises OSError, FileExistsError when another file has that name.
        """
        folder = path.rpartition("/")[0]
        damaged: Damaged | None = None
        for name in islice(names_of(receipt.sop_instance_uid, receipt.digest), _NAMES_LOOKED_AT):
            if f"{folder}/{name}" == path:
                break
            with suppress(FileNotFoundError):
                found = self._compare(depot_path, f"{folder}/{name}", receipt)
                damaged = damaged or (found if isinstance(found, Damaged) else None)
        if not self._is_there(path):
            self._link(depot_path, path, folder)
            return Placed(Placing.LINKED, path, damaged=damaged)
        if not isinstance(self._compare(depot_path, path, receipt), Placed):
            raise FileExistsError(errno.EEXIST, "another file has its name", os.path.join(self._root, path))
        self._folders.add(folder)
        return Placed(Placing.ALREADY, path, damaged=damaged)

    def holds(self, damaged: Damaged) -> bool:
        """Tell whether the name still leads to the damaged file, and not to nothing or to a newcomer's."""
        try:
            return self._files.status(os.path.join(self._root, damaged.path)).inode == damaged.inode
        except FileNotFoundError:
            return False

    def synchronize(self) -> None:
        """Make every name placed in this hold durable, with the folders on the way to it.

        Raises OSError: then none of them counts, and they are taken back. Only a new link makes a new entry that a
        later sync can prove; after a failed one the system may believe the old entry written.
        """
        pending: set[str] = set()
        for leaf in self._folders:
            folder = leaf
            while folder not in pending:
                pending.add(folder)
                if folder != OBJECTS:
                    folder = folder.rpartition("/")[0]
        self._folders = set()
        # The folders too that were there, and go if they are empty then: whoever made one may not have synced its name.
        self._lock.note(sorted(pending - {OBJECTS}))
        for folder in sorted(pending):
            self._files.synchronize_directory(os.path.join(self._root, folder))
        self._lock.forget()

    def _is_there(self, path: str) -> bool:
        try:
            self._files.status(os.path.join(self._root, path))
        except FileNotFoundError:
            return False
        return True

    def _link(self, depot_path: str, path: str, folder: str) -> None:
        """Link a file to a name that is free; in a hold nobody else gives it away."""
        target = os.path.join(self._root, path)
        self._lock.note([path])
        try:
            self._files.link(depot_path, target)
        except FileNotFoundError:
            self._make_folder(folder)
            self._files.link(depot_path, target)
        self._folders.add(folder)

    def _make_folder(self, folder: str) -> None:
        parts = folder.split("/")
        folders = ["/".join(parts[:depth]) for depth in range(2, len(parts) + 1)]
        self._lock.note(folders)
        mode = folder_mode_in(self._files, self._root)
        for path in folders:
            self._files.make_directory(os.path.join(self._root, path), mode)

    def _compare(self, depot_path: str, path: str, receipt: Receipt) -> Placed | Damaged | None:
        """Decide what a taken name means: done before, identical, damaged, or another's (None)."""
        absolute = os.path.join(self._root, path)
        inode = self._files.status(absolute).inode
        if inode == self._files.status(depot_path).inode:
            return Placed(Placing.ALREADY, path)
        try:
            examination = examine.examine(self._files, absolute)
        except OSError as error:
            if error.errno in _NOT_OURS:
                return None
            if error.errno != errno.EIO:
                raise
            return Damaged(path, inode)
        older = examination.receipt
        if older is None or examination.finding is not examine.Finding.WHOLE:
            return Damaged(path, inode)
        same = (
            older.digest == receipt.digest
            and older.sop_class_uid == receipt.sop_class_uid
            and older.transfer_syntax_uid == receipt.transfer_syntax_uid
        )
        return Placed(Placing.IDENTICAL, path, older=older) if same else None
