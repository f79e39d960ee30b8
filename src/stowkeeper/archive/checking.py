"""Checking: is a version still what its receipt says, before somebody is promised that it is.

Nothing here believes a cache. A file is read from the medium (`examine`), and the row is asked after that, so that what
was removed while its file was read is not called whole. What is found damaged is marked and put to quarantine as `verify`
does, so that a re-send repairs it; what cannot be read now is an OSError, and nothing follows from it.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select

from stowkeeper.archive.agreement import Fault
from stowkeeper.archive.catalog_values import Version, VersionState, portions
from stowkeeper.archive.choosing import Choice, choose_versions, hold_for_commitment
from stowkeeper.archive.examine import examine
from stowkeeper.archive.hanging_files import counted, read_files
from stowkeeper.archive.judging import Judgement, condemn, judge, unreadable
from stowkeeper.archive.limits import CHECK_WAIT_SECONDS, CHECKS_PER_LOOK
from stowkeeper.archive.read_ahead import still_reading
from stowkeeper.database import schema
from stowkeeper.database.engine import Database
from stowkeeper.durable.filesystem import FileSystem

__all__ = [
    "CheckLevel",
    "CheckResult",
    "CheckStoppedError",
    "Choice",
    "check_version",
    "check_versions",
    "choose_versions",
    "hold_for_commitment",
]


class CheckLevel(StrEnum):
    """How much is looked at: the row alone, the file's name and length too, or every byte."""

    INDEX = "index"
    EXISTS = "exists"
    DIGEST = "digest"


class CheckStoppedError(Exception):
    """The check was told to stop. Nothing is known of what it had not come to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check found. `words` say what is wrong, without patient data; they are empty for a whole version.

    `is_missing` tells that the archive has no such file or does not keep the version any more; else one that is not
    whole is there and is not what it should be.
    """

    is_whole: bool
    is_missing: bool = False
    words: str = ""


WHOLE = CheckResult(is_whole=True)
_NOT_LOOKED_AT = Judgement(fault=None, words="")


def check_version(
    files: FileSystem,
    root: str,
    database: Database,
    version: Version,
    level: CheckLevel,
    stopping: threading.Event | None = None,
) -> CheckResult:
    """Check one version. Blocks for as long as reading its file takes.

    Raises OSError where the medium or the system does not let us know, with the words why; DatabaseUnavailable; and
    CheckStoppedError soon after `stopping` is set.
    """
    ((_, found),) = check_versions(files, root, database, [version], level, stopping)
    if isinstance(found, OSError):
        raise found
    return found


def check_versions(
    files: FileSystem,
    root: str,
    database: Database,
    versions: Iterable[Version],
    level: CheckLevel,
    stopping: threading.Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[Version, CheckResult | OSError]]:
    """Yield each version with what its check found, in their order; several files are read at a time.

    An OSError in place of a result says that nothing can be said of this version now, in words; so does one whose file
    gives nothing for READ_SILENT_SECONDS. `progress` is told the
    bytes of each block that was read, by several threads; it may wait. Raises DatabaseUnavailable, and CheckStoppedError
    soon after `stopping` is set. What was yielded stays true of the moment of its check.
    """
    check = _Check(files, root, stopping or threading.Event(), progress)
    looked: Iterator[tuple[Version, Judgement | OSError]]
    if level is CheckLevel.INDEX:
        looked = ((version, _NOT_LOOKED_AT) for version in versions)
    else:
        look = check.length if level is CheckLevel.EXISTS else check.bytes
        looked = read_files(
            look,
            versions,
            root=root,
            path_of=lambda version: version.path,
            weigh=lambda version: version.file_size,
            go_on=check.go_on,
        )
    some: list[tuple[Version, Judgement | OSError]] = []
    asked_at = time.monotonic()
    for found in looked:
        some.append(found)
        if len(some) >= CHECKS_PER_LOOK or time.monotonic() - asked_at >= CHECK_WAIT_SECONDS:
            check.go_on()
            yield from _conclude(files, root, database, some)
            some = []
            asked_at = time.monotonic()
    check.go_on()
    if some:
        yield from _conclude(files, root, database, some)


class _Check:
    """What is done for each version on a thread of its own, up to a judgement of its file."""

    def __init__(
        self, files: FileSystem, root: str, stopping: threading.Event, progress: Callable[[int], None] | None
    ) -> None:
        self._files = files
        self._root = root
        self._stopping = stopping
        self._count = counted(progress or (lambda _count: None))

    def go_on(self) -> None:
        """Raise CheckStoppedError once the check is told to stop."""
        if self._stopping.is_set():
            raise CheckStoppedError

    def length(self, version: Version) -> Judgement:
        """Look for the name and the length; a length that is wrong is reason to read the file."""
        self.go_on()
        try:
            status = self._files.status(os.path.join(self._root, version.path))
        except FileNotFoundError as error:
            return judge(self._files, self._root, version, error)
        if status.is_directory or status.size != version.file_size:
            return self.bytes(version)
        return _NOT_LOOKED_AT

    def bytes(self, version: Version) -> Judgement:
        """Read every byte from the medium, and a second time where they are not right."""
        self.go_on()
        path = os.path.join(self._root, version.path)
        try:
            examination = examine(self._files, path, is_synced=True, progress=self._read)
        except FileNotFoundError as error:
            return judge(self._files, self._root, version, error)
        return judge(self._files, self._root, version, examination, progress=self._read_again)

    def _read(self, count: int) -> None:
        self.go_on()
        self._count(count)

    def _read_again(self, _count: int) -> None:
        self.go_on()
        still_reading()


def _conclude(
    files: FileSystem, root: str, database: Database, some: Sequence[tuple[Version, Judgement | OSError]]
) -> Iterator[tuple[Version, CheckResult | OSError]]:
    """Condemn what is damaged, and ask the rows of all others whether the version is kept still."""
    with database.read() as connection:
        rows = _rows_of(connection, [version.version_key for version, _ in some])
    for version, judgement in some:
        row = rows.get(version.version_key)
        if row is None or row.state != VersionState.KEPT:
            yield version, _not_kept(row)
        elif (row.path, row.receipt_id, row.digest, row.sop_class_uid, row.transfer_syntax_uid) != (
            version.path,
            version.receipt_id,
            *version.content,
        ):
            yield version, CheckResult(is_whole=False, words="its row changed since it was chosen")
        elif isinstance(judgement, OSError):
            yield version, unreadable(f"it cannot be read: {judgement.strerror or judgement}", version.path)
        elif judgement.fault is Fault.UNREADABLE:
            yield version, unreadable(judgement.words, version.path)
        elif judgement.fault is Fault.DAMAGED:
            condemned = condemn(files, root, database, version, judgement.words)
            words = judgement.words if condemned is None else condemned.words
            yield version, CheckResult(is_whole=False, words=words)
        elif judgement.fault is not None:
            missing = judgement.fault is Fault.MISSING
            yield version, CheckResult(is_whole=False, is_missing=missing, words=judgement.words)
        else:
            yield version, WHOLE


def _rows_of(connection: Connection, version_keys: Sequence[int]) -> dict[int, Any]:
    """Return what the rows of some versions say now, as far as a check compares it."""
    versions, receipts = schema.versions, schema.receipts
    query = select(
        versions.c.version_key,
        versions.c.state,
        versions.c.path,
        versions.c.sop_class_uid,
        versions.c.transfer_syntax_uid,
        receipts.c.receipt_id,
        receipts.c.digest,
    ).join(receipts, receipts.c.receipt_key == versions.c.version_key)
    return {
        row.version_key: row
        for portion in portions(version_keys)
        for row in connection.execute(query.where(versions.c.version_key.in_(portion)))
    }


def _not_kept(row: Any) -> CheckResult:  # noqa: ANN401 - a row has its query's columns, no type of its own
    """Say why a version does not count as kept any more."""
    if row is None:
        return CheckResult(is_whole=False, is_missing=True, words="no row knows it any more")
    if row.state == VersionState.DAMAGED:
        return CheckResult(is_whole=False, words="its file was found damaged or missing")
    return CheckResult(is_whole=False, is_missing=True, words=f"its row says that it is {row.state}")
