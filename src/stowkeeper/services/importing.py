"""Importing: files and folders into the archive, by the one path that instances take, beside a server or not.

A file is read once, straight into intake; nothing but the data set and its transfer syntax is taken from it.
SOP class and instance are those of the data set, as for `send`: the file meta information of real files often
names others. What has no file meta information is taken for a data set in one of the three uncompressed
encodings, by its first element; whether that is right shows when it is parsed to its end, as everything is
before it is kept. Sources are only read.
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
from stowkeeper.archive.inquiries import receipt_outcomes
from stowkeeper.archive.intake import Arrival, DuplicatePolicy, Incoming
from stowkeeper.archive.outcome import Outcome
from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.part10 import FileMeta, MoreNeeded, NotPart10, Part10Error, read_file_meta
from stowkeeper.dicom.sop_classes import SOP_CLASS_UID, SOP_INSTANCE_UID
from stowkeeper.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    TRANSFER_SYNTAXES,
)
from stowkeeper.dicom.uid import is_acceptable_uid, strip_uid
from stowkeeper.services.limits import (
    FILE_HEAD_BYTES,
    IMPORT_BUFFER_BYTES,
    IMPORT_BUFFERS,
    IMPORT_LISTING_SECONDS,
    IMPORT_LOOKUP_BATCH,
)
from stowkeeper.upperlayer.negotiation import is_storage

RECEIVED_BY: Final = "import"
MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_IDENTIFIERS: Final = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID})
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


class _NoInstanceError(Exception):
    """A file is not imported; the text says why. `skippable` where it is of another kind than an instance."""

    def __init__(self, words: str, *, skippable: bool = False) -> None:
        super().__init__(words)
        self.skippable = skippable


@dataclass(frozen=True, slots=True, kw_only=True)
class _DataSet:
    """What the first bytes of a file tell: where its data set begins, and what it is."""

    offset: int
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    words: str


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
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._archive = archive
        self._duplicates = duplicates
        self._accept_unknown = accept_unknown_transfer_syntaxes
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
                count, is_whole = _fill(stream, memoryview(buffer))
                described = _describe(memoryview(buffer)[:count], is_whole=is_whole)
                self._refuse_unknown(described)
                result = ImportResult(
                    path=source.path,
                    outcome=ImportOutcome.REFUSED,
                    words=described.words,
                    sop_class_uid=described.sop_class_uid,
                    sop_instance_uid=described.sop_instance_uid,
                    transfer_syntax_uid=described.transfer_syntax_uid,
                )
                incoming = self._begin(result)
                first, buffer = buffer, bytearray()  # intake gives it back from now on
                self._feed(incoming, stream, first, described.offset, count, is_whole=is_whole)
        except _NoInstanceError as error:
            skipped = error.skippable and not source.is_named
            outcome = ImportOutcome.SKIPPED if skipped else ImportOutcome.REFUSED
            return ImportResult(path=source.path, outcome=outcome, words=str(error))
        except OSError as error:
            return _refused(source.path, f"it cannot be read: {error.strerror or type(error).__name__}")
        finally:
            if buffer:
                self._buffers.put(buffer)
        return None

    def _refuse_unknown(self, described: _DataSet) -> None:
        if described.transfer_syntax_uid not in TRANSFER_SYNTAXES and not self._accept_unknown:
            raise _NoInstanceError(
                f"its transfer syntax {described.transfer_syntax_uid} is not known, so nothing in it could be"
                " checked (negotiation.accept_unknown_transfer_syntaxes takes it all the same)"
            )

    def _begin(self, result: ImportResult) -> Incoming:
        arrival = Arrival(
            sop_class_uid=result.sop_class_uid,
            sop_instance_uid=result.sop_instance_uid,
            transfer_syntax_uid=result.transfer_syntax_uid,
            received_by=RECEIVED_BY,
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
        buffer: bytearray,
        offset: int,
        count: int,
        *,
        is_whole: bool,
    ) -> None:
        """Give a file to intake, buffer by buffer. One that fits into one takes one write and one sync."""
        try:
            while True:
                incoming.write(memoryview(buffer)[offset:count], partial(self._buffers.put, buffer))
                self._progress(count)
                if is_whole:
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


def _fill(stream: IO[bytes], view: memoryview) -> tuple[int, bool]:
    """Fill a buffer from a file; return how many bytes there were, and whether the file ends with them."""
    count = 0
    while count < len(view):
        size = stream.readinto(view[count:])  # type: ignore[attr-defined]  # a raw file has it
        if not size:
            return count, True
        count += size
    return count, False


def _describe(head: memoryview, *, is_whole: bool) -> _DataSet:
    """Find the data set of a file and what it is, from its first bytes. Raises _NoInstanceError."""
    meta = _read_meta(head, is_whole=is_whole)
    offset = meta.length if meta is not None else 0
    if meta is not None and meta.media_storage_sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        raise _NoInstanceError("it is a DICOMDIR, which lists other files", skippable=True)
    syntax = meta.transfer_syntax_uid if meta is not None else ""
    syntax = syntax or _guess_transfer_syntax(head[offset:])
    if not syntax:
        raise _NoInstanceError(
            "its file meta information names no transfer syntax, and its data set does not show it"
        )
    sop_class, sop_instance = _identify(head[offset:], syntax)
    words = ""
    if meta is not None:
        stated = meta.media_storage_sop_instance_uid
        if stated and sop_instance and stated != sop_instance:
            words = f"its file meta information names another instance ({stated})"
        sop_class = sop_class or meta.media_storage_sop_class_uid
        sop_instance = sop_instance or stated
    for what, uid in (("SOP Class UID", sop_class), ("SOP Instance UID", sop_instance)):
        if not is_acceptable_uid(uid):
            raise _NoInstanceError(f"it has {'a malformed' if uid else 'no'} {what}")
    return _DataSet(
        offset=offset,
        transfer_syntax_uid=syntax,
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        words=words,
    )


def _read_meta(head: memoryview, *, is_whole: bool) -> FileMeta | None:
    """Read file meta information, with a preamble or without; None in front of a bare data set."""
    wanted = FILE_HEAD_BYTES
    preamble_required = True
    while True:
        part = head[:wanted]
        try:
            return read_file_meta(
                part, whole=is_whole and len(part) == len(head), preamble_required=preamble_required
            )
        except MoreNeeded as more:
            if more.total > len(head):
                raise _NoInstanceError(
                    f"its file meta information is longer than {len(head)} bytes"
                ) from None
            wanted = more.total
        except NotPart10:
            if _guess_transfer_syntax(head):
                return None
            if not preamble_required:
                raise _NoInstanceError("it is no DICOM file", skippable=True) from None
            preamble_required = False
        except Part10Error as error:
            if not preamble_required:
                raise _NoInstanceError("it is no DICOM file", skippable=True) from None
            raise _NoInstanceError(str(error)) from None


def _guess_transfer_syntax(data: memoryview) -> str:
    """Tell the encoding of a bare data set by its first element, one of group 0008; '' if it is none.

    Explicit VR shows its two letters; implicit VR, the default (PS3.5 §10.1), a length that is small.
    """
    tag, vr = bytes(data[:4]), bytes(data[4:6])
    has_vr = len(vr) == 2 and vr.isalpha() and vr.isupper()
    if tag[:2] == b"\x08\0" and tag[2:] <= b"\x18\0" and tag[3:] == b"\0":
        if has_vr:
            return EXPLICIT_VR_LITTLE_ENDIAN
        return IMPLICIT_VR_LITTLE_ENDIAN if bytes(data[6:8]) == b"\0\0" else ""
    if tag[:2] == b"\0\x08" and tag[2:] <= b"\0\x18" and has_vr:
        return EXPLICIT_VR_BIG_ENDIAN
    return ""


def _identify(data: memoryview, transfer_syntax_uid: str) -> tuple[str, str]:
    """Return SOP Class and SOP Instance UID of a data set; what is not among the bytes given is empty."""
    values: dict[int, bytes] = {}
    for length in (FILE_HEAD_BYTES, len(data)):
        scanner = HeaderScanner(transfer_syntax_uid, _IDENTIFIERS)
        scanner.feed(data[:length])
        values = scanner.finish().values
        if values.keys() >= _IDENTIFIERS:
            break
    return strip_uid(values.get(SOP_CLASS_UID, b"")), strip_uid(values.get(SOP_INSTANCE_UID, b""))
