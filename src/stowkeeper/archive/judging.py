"""Judging: compare what a file was found to be with what its row says, and put away what is damaged.

`verify`, the checks of storage commitment and the scrub share this. A file that does not read as whole is read a
second time before anything is said of it: memory and cables go bad too. Damage is said by the row first, durably, and
then the file is moved to quarantine.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from stowkeeper.archive.agreement import Fault
from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.examine import Examination, Finding, examine, read_receipt
from stowkeeper.archive.quarantine import QUARANTINE, Quarantine
from stowkeeper.archive.shelf_lock import ShelfLock
from stowkeeper.archive.versions import find_version_by_path, mark_damaged
from stowkeeper.database.engine import Database
from stowkeeper.durable.filesystem import FileSystem

log = structlog.get_logger("stowkeeper.archive")

STANDING = (VersionState.KEPT, VersionState.SUPERSEDED)
"""The states of versions whose file has to be there and whole."""


class Listed(Protocol):
    """What judging needs of a version's row."""

    @property
    def version_key(self) -> int:
        """Its key."""

    @property
    def sop_instance_uid(self) -> str:
        """Whose version it is."""

    @property
    def path(self) -> str:
        """Where its file stands, relative to the archive."""

    @property
    def file_size(self) -> int:
        """Bytes of the file."""

    @property
    def content(self) -> tuple[str, str, str]:
        """Digest, SOP class and transfer syntax."""

    @property
    def receipt_id(self) -> str:
        """Of the receipt in its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a file is, by its row: whole where `fault` is None, else what is wrong, in words too.

    `DAMAGED` is to be condemned; `MISSING` covers a place where another's file stands. Of `UNREADABLE` nothing is known.
    `size` is that of the file in bytes, None where none was read to its end.
    """

    fault: Fault | None
    words: str
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemned:
    """What came of condemning a file: the words that stand in its row, and where it is now ("" if it could not be moved)."""

    words: str
    moved_to: str


def judge(
    files: FileSystem,
    root: str,
    row: Listed,
    examination: Examination | OSError,
    progress: Callable[[int], None] | None = None,
) -> Judgement:
    """Compare what a file was found to be with its row; one that is not whole is read again first. Changes nothing.

    `progress` is told the bytes of each block that is read again.
    """
    if isinstance(examination, Examination) and examination.finding is not Finding.WHOLE:
        words = f"it read as whole the second time, and before: {examination.words}; check disk and memory"
        try:
            if examine(files, os.path.join(root, row.path), progress=progress).finding is Finding.WHOLE:
                return Judgement(fault=Fault.UNREADABLE, words=words)
        except OSError as error:
            examination = error
    if isinstance(examination, FileNotFoundError):
        return Judgement(fault=Fault.MISSING, words="its file is not there")
    if isinstance(examination, OSError):
        return Judgement(
            fault=Fault.UNREADABLE, words=f"it cannot be read: {examination.strerror or examination}"
        )
    if examination.finding is not Finding.WHOLE:
        return Judgement(fault=Fault.DAMAGED, words=examination.words, size=examination.size)
    receipt = examination.receipt
    if receipt is None or receipt.receipt_id != row.receipt_id:
        return Judgement(fault=Fault.MISSING, words="another file stands in its place", size=examination.size)
    words = _difference(row, examination)
    return Judgement(fault=Fault.DIFFERENT if words else None, words=words, size=examination.size)


def condemn(files: FileSystem, root: str, database: Database, row: Listed, words: str) -> Condemned | None:
    """Let the row say that its file is damaged, durably, and then move the file to quarantine.

    None when the row says something else by now, or is gone. Raises DatabaseUnavailable; a file that could not be moved
    is moved by the next who looks after the archive.
    """
    with database.write() as transaction:
        now = find_version_by_path(transaction.connection, row.path)
        if now is None or now.version_key != row.version_key or now.state not in STANDING:
            return None
        mark_damaged(transaction, row.path, words)
    try:
        moved_to = put_damaged_away(
            files, root, database, path=row.path, receipt_id=row.receipt_id, words=words
        )
    except OSError as error:
        words += f"; it could not be moved to {QUARANTINE}: {error.strerror}"
        moved_to = ""
    return Condemned(words=words, moved_to=moved_to)


def put_damaged_away(
    files: FileSystem, root: str, database: Database, *, path: str, receipt_id: str, words: str
) -> str:
    """Move the file of a version whose row says `damaged` to quarantine; return its path there.

    An empty string says that the name leads to nothing, or to another's file by now. Raises
    DatabaseUnavailable and OSError.
    """
    # Nobody else unlinks on the shelf, and no row changes.
    with ShelfLock(files, root).held(), database.write() as transaction:
        if find_version_by_path(transaction.connection, path) is not None:
            return ""
        try:
            receipt = read_receipt(files, os.path.join(root, path))
            if receipt is not None and receipt.receipt_id != receipt_id:
                return ""
            return Quarantine(files, root).put_away(path, words)
        except FileNotFoundError:
            return ""


def unreadable(words: str, path: str) -> OSError:
    """Return the error that says that nothing can be said of a file now."""
    return OSError(errno.EIO, words, path)


def _difference(row: Listed, examination: Examination) -> str:
    """Say what a row says otherwise than its own whole file; an empty string when both agree."""
    receipt = examination.receipt
    if receipt is None:
        return ""
    digest, sop_class_uid, transfer_syntax_uid = row.content
    stated = (
        ("SOP Instance UID", row.sop_instance_uid, receipt.sop_instance_uid),
        ("digest", digest, receipt.digest),
        ("SOP Class UID", sop_class_uid, receipt.sop_class_uid),
        ("Transfer Syntax UID", transfer_syntax_uid, receipt.transfer_syntax_uid),
        ("size", row.file_size, examination.size),
    )
    different = [name for name, in_row, in_file in stated if in_row != in_file]
    if not different:
        return ""
    unless = "" if different == ["size"] else " unless it is held"
    return f"the catalog has another {' and '.join(different)}, rebuild corrects it{unless}"
