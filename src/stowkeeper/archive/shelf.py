"""The shelf: where whole files live, under names that are never used for other bytes.

A name is made by `link()` alone, which never replaces. `objects/<study>/<series>/<sop instance>_<digest>.dcm`,
or `objects/-/<class>/…` for instances that belong to no study. A UID that is not well formed is escaped,
never trusted as a path.
"""

import errno
import os
import re
from collections.abc import Iterator
from enum import Enum, auto

from blake3 import blake3

from stowkeeper.archive import examine
from stowkeeper.archive.limits import PATH_COMPONENT_MAX
from stowkeeper.archive.receipt import Receipt
from stowkeeper.durable.filesystem import FileSystem

OBJECTS = "objects"
_DIGEST_LETTERS = 32
_WELL_FORMED = re.compile(r"[0-9]{1,64}(?:\.[0-9]{1,64})*")
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


class Placed:
    """Where a depot file stands now, and which older file it found there, if any.

    `damaged_path` names a damaged file of the same digest that this one repairs.
    """

    __slots__ = ("damaged_path", "how", "older", "path")

    def __init__(self, how: Placing, path: str, older: Receipt | None = None, damaged_path: str = "") -> None:
        self.how = how
        self.path = path
        self.older = older
        self.damaged_path = damaged_path


class Shelf:
    """Links depot files to their places and makes the names durable.

    One finisher owns it; it is not for several threads.
    """

    def __init__(self, files: FileSystem, root: str) -> None:
        self._files = files
        self._root = root
        self._durable_folders: set[str] = set()
        self._unsynced: set[str] = set()

    def place(
        self, depot_path: str, receipt: Receipt, folder: str, *, avoid: frozenset[str] = frozenset()
    ) -> Placed:
        """Link one depot file to the shelf, or find the identical one that is there already.

        Files at the paths in `avoid` count as other ones, whatever they hold.

        The name is durable only after `synchronize`. Raises OSError; nothing is lost by it, the depot
        name stays.
        """
        self._make_folder(folder)
        damaged = ""
        for name in names_of(receipt.sop_instance_uid, receipt.digest):
            path = f"{folder}/{name}"
            if path in avoid:
                continue
            try:
                self._link(depot_path, path, folder)
            except FileExistsError:
                found = self._compare(depot_path, path, receipt)
                if isinstance(found, Placed):
                    self._unsynced.add(folder)
                    found.damaged_path = damaged
                    return found
                damaged = damaged or found
                continue
            self._unsynced.add(folder)
            return Placed(Placing.LINKED, path, damaged_path=damaged)
        raise AssertionError("the names to try do not end")

    def synchronize(self) -> None:
        """Make every name placed since the last call durable. Raises OSError: then none of them counts."""
        folders = self._unsynced
        pending = set(folders)
        for folder in folders:
            parent = folder
            while parent != OBJECTS and parent not in self._durable_folders:
                parent = parent.rpartition("/")[0]
                pending.add(parent)
        # Deepest first is not needed for correctness: all of them are done before anything counts.
        for folder in sorted(pending):
            self._files.synchronize_directory(os.path.join(self._root, folder))
        for folder in folders:
            while folder != OBJECTS:
                self._durable_folders.add(folder)
                folder = folder.rpartition("/")[0]  # noqa: PLW2901 - walks up from the folder
        self._unsynced = set()
        if len(self._durable_folders) > 100_000:  # a cache only: forgetting costs one more sync
            self._durable_folders.clear()

    def take_back(self, path: str) -> None:
        """Remove a name whose folder could not be synced. Raises OSError."""
        self._files.unlink(os.path.join(self._root, path))
        self._forget(path.rpartition("/")[0])

    def _link(self, depot_path: str, path: str, folder: str) -> None:
        target = os.path.join(self._root, path)
        try:
            self._files.link(depot_path, target)
        except FileNotFoundError:
            # An emptied folder was removed between our look and the link.
            self._forget(folder)
            self._make_folder(folder)
            self._files.link(depot_path, target)

    def _make_folder(self, folder: str) -> None:
        if folder in self._durable_folders or folder in self._unsynced:
            return
        parts = folder.split("/")
        for depth in range(1, len(parts) + 1):
            self._files.make_directory(os.path.join(self._root, *parts[:depth]))

    def _forget(self, folder: str) -> None:
        parts = folder.split("/")
        for depth in range(1, len(parts) + 1):
            self._durable_folders.discard("/".join(parts[:depth]))
            self._unsynced.discard("/".join(parts[:depth]))

    def _compare(self, depot_path: str, path: str, receipt: Receipt) -> Placed | str:
        """Decide what a taken name means: done before, identical, damaged (its path), or other ('')."""
        absolute = os.path.join(self._root, path)
        if self._files.status(absolute).inode == self._files.status(depot_path).inode:
            return Placed(Placing.ALREADY, path)
        try:
            examination = examine.examine(self._files, absolute)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return path
        older = examination.receipt
        if older is None or examination.finding is not examine.Finding.WHOLE:
            return path
        same = (
            older.digest == receipt.digest
            and older.sop_class_uid == receipt.sop_class_uid
            and older.transfer_syntax_uid == receipt.transfer_syntax_uid
        )
        return Placed(Placing.IDENTICAL, path, older=older) if same else ""
