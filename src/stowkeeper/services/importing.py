"""Importing: files and folders into the archive, by the one path that instances take, beside a server or not.

A file is read once, straight into intake; nothing but the data set and its transfer syntax is taken from it (see
`file_head.py`), and it is parsed to its end before it is kept. One that is written to meanwhile is refused. Sources are
only read.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from queue import SimpleQueue
from typing import IO, Final

from stowkeeper.archive.archive import Archive
from stowkeeper.archive.arrival import Arrival, DuplicatePolicy
from stowkeeper.archive.inquiries import receipt_outcomes
from stowkeeper.archive.intake import Incoming
from stowkeeper.archive.outcome import Outcome, Refusal, Refused
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.services.file_head import DescribedHead, NoInstanceError, describe_head
from stowkeeper.services.file_terms import PreamblePolicy, kept_preamble
from stowkeeper.services.limits import (
    IMPORT_BUFFER_BYTES,
    IMPORT_BUFFERS,
    IMPORT_LISTING_SECONDS,
    IMPORT_LOOKUP_BATCH,
)
from stowkeeper.upperlayer.negotiation import is_storage

RECEIVED_BY: Final = "import"
_WAIT_SECONDS: Final = 1.0


class ImportOutcome(StrEnum):
    """What became of a file."""

    STORED = "stored"
    CONFLICT = "conflict"  # stored beside another version of the instance that differs
    IDENTICAL = "identical"  # the archive has it already
    KEPT = "kept"  # durably, and not in the catalog yet: the server or the next start lists it
    REFUSED = "refused"
    SKIPPED = "skipped"  # no instance: a DICOMDIR, or a file of another kind in a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file to import. One that was named has to be an instance; one found in a folder need not be."""

    path: str
    is_named: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What became of a file. `words` say why it was not kept, or what was odd; without patient data."""

    path: str
    outcome: ImportOutcome
    words: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    receipt_id: str = ""
    data_set_length: int = 0


class ImportStoppedError(Exception):
    """The archive takes nothing more now; the text says why. What was kept until then is kept."""


def find_files(paths: Iterable[str], *, leave_out: str) -> Iterator[SourceFile | ImportResult]:
    """Yield the files that paths name, and those in folders and their folders, in the order of their names.

    Links are followed, each folder once. A folder that is `leave_out` (the archive itself) is passed over
    unless it was named. What cannot be read comes as a result. Raises OSError when a path named is not there.
    """
    archive = os.path.realpath(leave_out)
    for path in paths:
        mode = os.stat(path).st_mode
        if not stat.S_ISDIR(mode):
            # A pipe that nobody writes to would be waited for.
            yield (
                SourceFile(path=path, is_named=True)
                if stat.S_ISREG(mode)
                else _refused(path, "it is no file")
            )
            continue
        seen: set[tuple[int, int]] = set()
        waiting = [path]
        while waiting:
            folder = waiting.pop()
            if folder != path and os.path.realpath(folder) == archive:
                continue
            try:
                status = os.stat(folder)
                with os.scandir(folder) as entries:
                    inside = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                yield _refused(folder, f"it cannot be read: {error.strerror}")
                continue
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            waiting += [entry.path for entry in reversed(inside) if entry.is_dir()]
            for entry in inside:
                if entry.is_file():
                    yield SourceFile(path=entry.path, is_named=False)


class Importer:
    """Imports files into an archive that receives. `progress` is told the bytes of each block read."""

    def __init__(
        self,
        archive: Archive,
        *,
        duplicates: DuplicatePolicy = DuplicatePolicy.KEEP,
        accept_unknown_transfer_syntaxes: bool = False,
        preamble: PreamblePolicy = PreamblePolicy.ZERO,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._archive = archive
        self._duplicates = duplicates
        self._accept_unknown = accept_unknown_transfer_syntaxes
        self._preamble = preamble
        self._progress = progress or (lambda _count: None)
        self._buffers: SimpleQueue[bytearray] = SimpleQueue()
        for _ in range(IMPORT_BUFFERS):
            self._buffers.put(bytearray(IMPORT_BUFFER_BYTES))
        self._outcomes: SimpleQueue[tuple[ImportResult, Outcome]] = SimpleQueue()
        self._on_their_way = 0
        self._kept: dict[str, ImportResult] = {}
        self._lookup_at = IMPORT_LOOKUP_BATCH

    def run(self, sources: Iterable[SourceFile | ImportResult]) -> Iterator[ImportResult]:
        """Import, and yield what became of each file as it is known.

        Raises ImportStoppedError when the archive takes nothing more, after the results of what it took.
        """
        archive = self._archive
        stopped = ""
        for source in sources:
            if isinstance(source, ImportResult):
                yield source
                continue
            while archive.admission.is_behind:
                yield from self._collect(wait=True)
                archive.finisher.wait_until_idle(_WAIT_SECONDS)
            stopped = archive.admission.refusal()
            if stopped:
                break
            refused = self._take(source)
            if refused is not None:
                yield refused
            yield from self._collect(wait=False)
        yield from self._collect(wait=True)
        archive.finisher.wait_until_idle(IMPORT_LISTING_SECONDS)
        yield from self._look_up()
        for result in self._kept.values():
            yield replace(result, outcome=ImportOutcome.KEPT)
        if stopped:
            raise ImportStoppedError(stopped)

    # A file on its way in.

    def _take(self, source: SourceFile) -> ImportResult | None:
        """Read a file into intake; return the result of one that is not even offered to it."""
        buffer = self._buffers.get()
        try:
            with open(source.path, "rb", buffering=0) as stream:
                begun = os.fstat(stream.fileno())
                count, is_whole = _fill(stream, memoryview(buffer))
                described = describe_head(memoryview(buffer)[:count], is_whole=is_whole)
                self._refuse_unknown(described)
                result = ImportResult(
                    path=source.path,
                    outcome=ImportOutcome.REFUSED,
                    words=described.words,
                    sop_class_uid=described.sop_class_uid,
                    sop_instance_uid=described.sop_instance_uid,
                    transfer_syntax_uid=described.transfer_syntax_uid,
                )
                incoming = self._begin(result, kept_preamble(memoryview(buffer)[:count], self._preamble))
                first, buffer = buffer, bytearray()  # intake gives it back from now on
                self._feed(incoming, stream, begun, first, described.offset, count, is_whole=is_whole)
        except NoInstanceError as error:
            skipped = error.skippable and not source.is_named
            outcome = ImportOutcome.SKIPPED if skipped else ImportOutcome.REFUSED
            return ImportResult(path=source.path, outcome=outcome, words=str(error))
        except Refused as refused:
            return _refused(source.path, refused.comment)
        except OSError as error:
            return _refused(source.path, f"it cannot be read: {error.strerror or type(error).__name__}")
        finally:
            if buffer:
                self._buffers.put(buffer)
        return None

    def _refuse_unknown(self, described: DescribedHead) -> None:
        if described.transfer_syntax_uid not in TRANSFER_SYNTAXES and not self._accept_unknown:
            raise NoInstanceError(
                f"its transfer syntax {described.transfer_syntax_uid} is not known, so nothing in it could be"
                " checked (negotiation.accept_unknown_transfer_syntaxes takes it all the same)"
            )

    def _begin(self, result: ImportResult, preamble: bytes) -> Incoming:
        arrival = Arrival(
            sop_class_uid=result.sop_class_uid,
            sop_instance_uid=result.sop_instance_uid,
            transfer_syntax_uid=result.transfer_syntax_uid,
            received_by=RECEIVED_BY,
            preamble=preamble,
            duplicates=self._duplicates,
        )
        return self._archive.intake.begin(
            arrival,
            lambda outcome: self._outcomes.put((result, outcome)),
            class_accepted=is_storage(result.sop_class_uid),
        )

    def _feed(
        self,
        incoming: Incoming,
        stream: IO[bytes],
        begun: os.stat_result,
        buffer: bytearray,
        offset: int,
        count: int,
        *,
        is_whole: bool,
    ) -> None:
        """Give a file to intake, buffer by buffer. One that fits into one takes one write and one sync.

        Raises Refused for a file that changed since `begun`.
        """
        try:
            while True:
                incoming.write(memoryview(buffer)[offset:count], partial(self._buffers.put, buffer))
                self._progress(count)
                if is_whole:
                    _check_unchanged(stream, begun)
                    incoming.commit()
                    self._on_their_way += 1
                    return
                incoming.flush()
                offset = 0
                buffer = self._buffers.get()
                try:
                    count, is_whole = _fill(stream, memoryview(buffer))
                except BaseException:
                    self._buffers.put(buffer)
                    raise
        except BaseException:
            incoming.abort()
            raise

    # Outcomes.

    def _collect(self, *, wait: bool) -> Iterator[ImportResult]:
        """Yield what is known; with `wait`, of everything that is on its way."""
        while self._on_their_way and (wait or not self._outcomes.empty()):
            result, outcome = self._outcomes.get()
            self._on_their_way -= 1
            result = replace(result, data_set_length=outcome.data_set_length)
            if outcome.receipt is None:
                yield replace(result, words=outcome.comment)
            else:
                receipt_id = outcome.receipt.receipt_id
                self._kept[receipt_id] = replace(result, receipt_id=receipt_id)
        if len(self._kept) >= self._lookup_at:
            yield from self._look_up()
            self._lookup_at = len(self._kept) + IMPORT_LOOKUP_BATCH

    def _look_up(self) -> Iterator[ImportResult]:
        """Yield what the catalog says of kept files."""
        with self._archive.database.read() as connection:
            found = receipt_outcomes(connection, self._kept)
        for receipt_id, outcome in found.items():
            yield replace(self._kept.pop(receipt_id), outcome=ImportOutcome(outcome.value))


def _refused(path: str, words: str) -> ImportResult:
    return ImportResult(path=path, outcome=ImportOutcome.REFUSED, words=words)


def _check_unchanged(stream: IO[bytes], begun: os.stat_result) -> None:
    """Raise Refused for a file that changed since `begun`: what was read of it may be a mixture."""
    ended = os.fstat(stream.fileno())
    # The size too: a write may change the time first, before `begun`, and the size after it.
    if (ended.st_size, ended.st_mtime_ns) != (begun.st_size, begun.st_mtime_ns):
        raise Refused(Refusal.PROCESSING_FAILURE, "it changed while it was read")


def _fill(stream: IO[bytes], view: memoryview) -> tuple[int, bool]:
    """Fill a buffer from a file; return how many bytes there were, and whether the file ends with them."""
    count = 0
    while count < len(view):
        size = stream.readinto(view[count:])  # type: ignore[attr-defined]  # a raw file has it
        if not size:
            return count, True
        count += size
    return count, False
