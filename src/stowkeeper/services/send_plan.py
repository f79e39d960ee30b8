"""What is to be sent: which files, as what, and the presentation contexts that they need.

A file is looked at by its first bytes only. What cannot be sent is said here, with its reason, before any association.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import BinaryIO, Final

from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.part10 import FileMeta, MoreNeeded, NotPart10, Part10Error, read_file_meta
from stowkeeper.dicom.sop_classes import SOP_CLASS_UID, SOP_INSTANCE_UID
from stowkeeper.dicom.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN, TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import UID_LENGTH_MAX, strip_uid
from stowkeeper.services.limits import CONTEXTS_PER_ASSOCIATION_MAX, FILE_HEAD_BYTES
from stowkeeper.upperlayer.items import ProposedContext

MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_IDENTIFIERS: Final = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID})


@dataclass(frozen=True, slots=True, kw_only=True)
class SendableFile:
    """A Part 10 file with an instance. `offset` is where its data set begins, `size` the whole file's, in bytes.

    `digest` is the BLAKE3-256 of the data set in hexadecimal, where it is known: other bytes are not sent. Where it is not,
    `modified_ns` is when the file was changed the last time, as it was looked at: one that was changed since is not sent.
    """

    path: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int
    size: int
    modified_ns: int = 0
    digest: str = ""

    @property
    def data_set_length(self) -> int:
        """Bytes of the data set in the file."""
        return self.size - self.offset

    def is_unchanged(self, status: os.stat_result) -> bool:
        """Tell by the status of the file, now that it is open, whether it is as it was looked at."""
        # The size too: a write may change the time first, before the file was looked at, and the size after it.
        return status.st_size == self.size and (bool(self.digest) or status.st_mtime_ns == self.modified_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsendableFile:
    """A file that was to be sent and cannot be, and why, in words."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAssociation:
    """Presentation contexts that fit one association request, and the files that need no others."""

    contexts: tuple[ProposedContext, ...]
    files: tuple[SendableFile, ...]


@dataclass(slots=True, kw_only=True)
class SendPlan:
    """What was found under the paths given."""

    files: list[SendableFile] = field(default_factory=list)
    unsendable: list[UnsendableFile] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    """DICOMDIR files, which list others and are no instances to be stored."""
    other_files: int = 0
    """Files of folders that are not DICOM."""

    @property
    def is_empty(self) -> bool:
        """Whether there was no instance at all, not even one that cannot be sent."""
        return not self.files and not self.unsendable

    @property
    def size(self) -> int:
        """Bytes of all files to be sent."""
        return sum(file.size for file in self.files)


class NotSendableError(Exception):
    """A file cannot be sent; the text says why."""


class NotDicomError(NotSendableError):
    """A file is of another kind."""


class DirectoryFileError(NotSendableError):
    """A file is a DICOMDIR."""


def plan_sending(
    paths: Iterable[str], *, odd_allowed: bool = False, looked_at: Callable[[], None] = lambda: None
) -> SendPlan:
    """Look at files, and at all files in folders and their folders.

    A file that is named must be an instance; in a folder, files of other kinds are counted and left alone. A data set
    of odd length, which no data set may have (PS3.5 §7.1.1) and at which receivers abort, is only taken if
    `odd_allowed`. `looked_at` is called once a file. Raises OSError when a path given is not there.
    """
    plan = SendPlan()
    for path in paths:
        if stat.S_ISDIR(os.stat(path).st_mode):
            for found in _files_under(path, plan):
                _look_at(found, plan, is_named=False, odd_allowed=odd_allowed)
                looked_at()
        else:
            _look_at(path, plan, is_named=True, odd_allowed=odd_allowed)
            looked_at()
    return plan


def _files_under(folder: str, plan: SendPlan) -> Iterator[str]:
    """Give the regular files below a folder in order of their names; links are followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            status = os.stat(current)
            with os.scandir(current) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            plan.unsendable.append(UnsendableFile(path=current, reason=_words_of(error)))
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        waiting.extend(entry.path for entry in reversed(inside) if entry.is_dir())
        for entry in inside:
            if entry.is_file():
                yield entry.path
            elif not entry.is_dir():
                plan.other_files += 1  # a pipe, a device, a link to nothing


def _look_at(path: str, plan: SendPlan, *, is_named: bool, odd_allowed: bool) -> None:
    try:
        plan.files.append(read_sendable(path, odd_allowed=odd_allowed))
    except DirectoryFileError:
        plan.directories.append(path)
    except NotDicomError as error:
        if is_named:
            plan.unsendable.append(UnsendableFile(path=path, reason=str(error)))
        else:
            plan.other_files += 1
    except NotSendableError as error:
        plan.unsendable.append(UnsendableFile(path=path, reason=str(error)))
    except OSError as error:
        plan.unsendable.append(UnsendableFile(path=path, reason=_words_of(error)))


def _words_of(error: OSError) -> str:
    return f"it cannot be read: {error.strerror or type(error).__name__}"


def read_sendable(path: str, *, odd_allowed: bool = False) -> SendableFile:
    """Read what a C-STORE request for a file needs. Raises NotSendableError or OSError.

    SOP class and instance are those of the data set, which is what the peer compares; those of the file meta
    information stand in where the data set's are not found in its first bytes.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe that nobody writes to would be waited for
        raise NotDicomError("it is no regular file")
    with open(path, "rb", buffering=0) as stream:
        # Of the file that is read, and before it is: what is written to it from here on is noticed when it is sent.
        status = os.fstat(stream.fileno())
        meta, head = _read_meta(stream, status.st_size)
    file = _described(path, meta, head, status)
    if file.data_set_length % 2 and not odd_allowed and not _is_deflated(file.transfer_syntax_uid):
        raise NotSendableError(
            f"its data set has an odd number of bytes ({file.data_set_length}), which none may have: it is damaged or"
            " cut, and many receivers abort at it"
        )
    return file


def _read_meta(stream: BinaryIO, size: int) -> tuple[FileMeta, bytes]:
    """Read file meta information, with as much of the file as that takes."""
    wanted = FILE_HEAD_BYTES
    while True:
        stream.seek(0)
        head = stream.read(wanted)
        is_whole = len(head) < wanted or len(head) >= size
        try:
            return read_file_meta(head, whole=is_whole), head
        except MoreNeeded as more:
            wanted = more.total
        except NotPart10 as error:
            return _read_bare_meta(head, error, is_whole=is_whole), head
        except Part10Error as error:
            raise NotSendableError(str(error)) from None


def _read_bare_meta(head: bytes, error: NotPart10, *, is_whole: bool) -> FileMeta:
    """Read a head without preamble, as old writers make it; anything else there is no DICOM file."""
    if _looks_like_bare_data_set(head):
        raise NotSendableError(
            "it is a data set without file meta information, so nothing tells its transfer syntax; a tool such as"
            " dcmconv can put one before it"
        ) from None
    try:
        return read_file_meta(head, whole=is_whole, preamble_required=False)
    except (Part10Error, MoreNeeded):
        raise NotDicomError(str(error)) from None


def _looks_like_bare_data_set(head: bytes) -> bool:
    """Tell whether a file begins with an early element of group 0008, in any of the uncompressed encodings."""
    if head[:2] == b"\x08\x00":
        number, length = head[3:1:-1], head[4:8][::-1]
    elif head[:2] == b"\x00\x08":
        number, length = head[2:4], head[4:8]
    else:
        return False
    has_vr = head[4:6].isalpha() and head[4:6].isupper()
    return number <= b"\x00\x18" and (has_vr or b"\0\0\0\0" <= length < b"\0\0\1\0")


def _described(path: str, meta: FileMeta, head: bytes, status: os.stat_result) -> SendableFile:
    syntax = meta.transfer_syntax_uid
    if meta.media_storage_sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        raise DirectoryFileError("it is a DICOMDIR, which lists other files")
    if not _is_encodable(syntax):
        raise NotSendableError("its file meta information names no transfer syntax")
    if meta.length >= status.st_size:
        raise NotSendableError("it ends with its file meta information: there is no data set")
    scanner = HeaderScanner(syntax, _IDENTIFIERS)
    scanner.feed(head[meta.length :])
    values = scanner.finish().values
    sop_class = strip_uid(values.get(SOP_CLASS_UID, b"")) or meta.media_storage_sop_class_uid
    sop_instance = strip_uid(values.get(SOP_INSTANCE_UID, b"")) or meta.media_storage_sop_instance_uid
    if not _is_encodable(sop_class):
        raise NotSendableError("it has no SOP Class UID that can be sent")
    if not _is_encodable(sop_instance):
        raise NotSendableError("it has no SOP Instance UID that can be sent")
    return SendableFile(
        path=path,
        sop_class_uid=intern(sop_class),
        sop_instance_uid=sop_instance,
        transfer_syntax_uid=intern(syntax),
        offset=meta.length,
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
    )


def _is_encodable(uid: str) -> bool:
    return 0 < len(uid) <= UID_LENGTH_MAX and uid.isascii() and uid.isprintable()


def _is_deflated(transfer_syntax: str) -> bool:
    known = TRANSFER_SYNTAXES.get(transfer_syntax)
    return known is not None and known.deflated


# Presentation contexts

Pair = tuple[str, str]
"""A SOP class and a transfer syntax, by their UIDs."""


def plan_associations(
    files: Sequence[SendableFile], can_convert: Callable[[str], bool]
) -> list[PlannedAssociation]:
    """Divide files into as few associations as 128 presentation contexts each allow, mostly one.

    For each SOP class there is a context for every transfer syntax among its files, with that syntax alone, so that
    the peer's choice says whether it takes the file as it is. One with Implicit VR Little Endian, which every peer
    knows (PS3.5 §10.1), is added where a file could be converted to it.
    """
    of_class: dict[str, dict[str, None]] = {}
    for file in files:
        of_class.setdefault(file.sop_class_uid, {})[file.transfer_syntax_uid] = None
    requests: list[list[Pair]] = [[]]
    for sop_class, syntaxes in of_class.items():
        for some in _portions(list(syntaxes)):
            wanted = [(sop_class, syntax) for syntax in _offered(some, can_convert)]
            if len(requests[-1]) + len(wanted) > CONTEXTS_PER_ASSOCIATION_MAX:
                requests.append([])
            requests[-1] += wanted
    number_of: dict[Pair, int] = {}
    for number, pairs in enumerate(requests):
        for pair in pairs:
            number_of.setdefault(pair, number)
    files_of: list[list[SendableFile]] = [[] for _ in requests]
    for file in files:
        files_of[number_of[file.sop_class_uid, file.transfer_syntax_uid]].append(file)
    return [
        PlannedAssociation(contexts=_contexts(pairs), files=tuple(some))
        for pairs, some in zip(requests, files_of, strict=True)
        if some
    ]


def _portions(syntaxes: list[str]) -> Iterator[list[str]]:
    """Divide the transfer syntaxes of one class so that each part has room in an association."""
    most = CONTEXTS_PER_ASSOCIATION_MAX - 1
    for start in range(0, len(syntaxes), most):
        yield syntaxes[start : start + most]


def _offered(syntaxes: list[str], can_convert: Callable[[str], bool]) -> list[str]:
    if IMPLICIT_VR_LITTLE_ENDIAN in syntaxes or not any(map(can_convert, syntaxes)):
        return syntaxes
    return [*syntaxes, IMPLICIT_VR_LITTLE_ENDIAN]


def _contexts(pairs: Sequence[Pair]) -> tuple[ProposedContext, ...]:
    return tuple(
        ProposedContext(context_id=2 * index + 1, abstract_syntax=sop_class, transfer_syntaxes=(syntax,))
        for index, (sop_class, syntax) in enumerate(pairs)
    )
