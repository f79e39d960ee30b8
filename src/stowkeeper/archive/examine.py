"""Read a file of the archive from the medium and say what it is.

Nothing here believes the page cache: the file is synced if it may not be, its pages are dropped, and only then is it read.
Recovery, the identical check, `verify` and rebuild use nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from blake3 import blake3

from stowkeeper.archive.limits import HEAD_READ_BYTES, READ_BLOCK_BYTES
from stowkeeper.archive.receipt import (
    RECEIPT_LENGTH,
    Receipt,
    ReceiptUnreadableError,
    checksum_holds,
    holds_sealed_receipt,
    read_sealed_head,
)
from stowkeeper.dicom.attributes import WANTED
from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.part10 import InvalidFileMeta, MoreNeeded, NotPart10, read_file_meta
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID
from stowkeeper.durable.filesystem import FileSystem


class Finding(Enum):
    """What a file turned out to be (the states table in docs/architecture.md)."""

    EMPTY = auto()
    RECEIVING = auto()  # the receipt's place is still zeros, or was never written
    SHORT = auto()  # the receipt is whole, the data set ends too early
    SUSPECT = auto()  # neither of the others: bytes that do not fit their receipt, or no receipt of ours
    WHOLE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The finding, in words too, with the receipt and what the scan saw where there are any."""

    finding: Finding
    words: str
    size: int
    receipt: Receipt | None = None
    values: Mapping[int, bytes] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    problem: str | None = None
    little_endian: bool = True


def read_receipt(files: FileSystem, path: str) -> Receipt | None:
    """Read the receipt in the head of a file; None when there is none, or none that fits its checksum.

    It tells whose file this is. It proves nothing: the medium is not asked, and the data set is not read. Raises
    OSError.
    """
    descriptor = files.open_for_reading(path)
    try:
        head = files.read(descriptor, HEAD_READ_BYTES, 0)
    finally:
        files.close(descriptor)
    sealed = read_sealed_head(head)
    if sealed is not None:
        return sealed[1]
    try:
        meta = read_file_meta(head)
        place = meta.private_information
        if meta.private_information_creator_uid != RECEIPT_CREATOR_UID or len(place) != RECEIPT_LENGTH:
            return None
        receipt = Receipt.decode(bytes(place))
    except (MoreNeeded, NotPart10, InvalidFileMeta, ReceiptUnreadableError):
        return None
    return receipt if checksum_holds(head[: meta.length]) else None


def examine(
    files: FileSystem,
    path: str,
    *,
    scan: bool = False,
    is_synced: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Examination:
    """Read the whole file from the medium and compare every byte with its receipt.

    With `scan` the values that the catalog wants are read on the way. `is_synced` says that the file was synced when it
    was kept and never written since, as its row tells: then no page of it waits to be written, and dropping them needs no
    sync, each of which has a disk empty its own cache. `progress` is told the number of bytes of each block. Raises
    OSError where the medium does not give the bytes: that says nothing about the file.
    """
    descriptor = files.open_for_reading(path)
    try:
        if not is_synced:
            files.synchronize(descriptor)
        files.drop_cache(descriptor)
        size = files.status(path).size
        if size == 0:
            return Examination(finding=Finding.EMPTY, words="it is empty", size=0)
        return _examine_open(files, descriptor, size, scan=scan, progress=progress)
    finally:
        files.close(descriptor)


def _examine_open(
    files: FileSystem, descriptor: int, size: int, *, scan: bool, progress: Callable[[int], None] | None
) -> Examination:
    head = files.read(descriptor, HEAD_READ_BYTES, 0)
    sealed = read_sealed_head(head)
    if sealed is not None:
        length, receipt = sealed
    else:
        found = _read_unsealed(head, size)
        if isinstance(found, Examination):
            return found
        length, receipt = found
    expected = length + receipt.data_set_length
    if size < expected:
        return Examination(
            finding=Finding.SHORT, words=f"it has {size} bytes of {expected}", size=size, receipt=receipt
        )
    if size > expected:
        return Examination(
            finding=Finding.SUSPECT,
            words=f"it has {size} bytes, {expected} belong to it",
            size=size,
            receipt=receipt,
        )
    blocks = _blocks(files, descriptor, head, length, size)
    return _compare_data_set(blocks, size, receipt, scan=scan, progress=progress)


def _read_unsealed(head: bytes, size: int) -> tuple[int, Receipt] | Examination:
    """Say what is wrong with a head whose checksum does not fit; its length and receipt, where it does after all."""
    try:
        meta = read_file_meta(head)
    except MoreNeeded:
        if holds_sealed_receipt(head):
            # A receipt is written when all else is there: so it is not the end that is missing.
            return Examination(
                finding=Finding.SUSPECT, words="its file meta information is damaged", size=size
            )
        return Examination(
            finding=Finding.RECEIVING, words="it ends inside its file meta information", size=size
        )
    except (NotPart10, InvalidFileMeta):
        if not head.strip(b"\0"):
            return Examination(finding=Finding.RECEIVING, words="its head was never written", size=size)
        return Examination(finding=Finding.SUSPECT, words="its head is not one of a DICOM file", size=size)
    place = meta.private_information
    if meta.private_information_creator_uid != RECEIPT_CREATOR_UID or len(place) != RECEIPT_LENGTH:
        return Examination(finding=Finding.SUSPECT, words="it holds no place for a receipt", size=size)
    try:
        receipt = Receipt.decode(bytes(place))
    except ReceiptUnreadableError:
        return Examination(finding=Finding.SUSPECT, words="its receipt is unreadable", size=size)
    if receipt is None:
        return Examination(finding=Finding.RECEIVING, words="its receipt was never written", size=size)
    if not checksum_holds(head[: meta.length]):
        return Examination(
            finding=Finding.SUSPECT,
            words="its head does not fit the receipt's checksum",
            size=size,
            receipt=receipt,
        )
    return meta.length, receipt


def _blocks(files: FileSystem, descriptor: int, head: bytes, start: int, size: int) -> Iterator[memoryview]:
    """Yield the bytes of a file from `start` on, each block until the next is asked for; a small file was read already."""
    if size <= len(head):
        yield memoryview(head)[start:size]
        return
    buffer = memoryview(bytearray(min(READ_BLOCK_BYTES, size - start)))
    offset = start
    while offset < size:
        count = files.read_into(descriptor, buffer, offset)
        if count == 0:
            return
        yield buffer[:count]
        offset += count


def _compare_data_set(
    blocks: Iterator[memoryview],
    size: int,
    receipt: Receipt,
    *,
    scan: bool,
    progress: Callable[[int], None] | None,
) -> Examination:
    hasher = blake3()
    scanner = HeaderScanner(receipt.transfer_syntax_uid, WANTED) if scan else None
    for block in blocks:
        hasher.update(block)
        if scanner is not None:
            scanner.feed(block)
        if progress is not None:
            progress(len(block))
    if hasher.hexdigest() != receipt.digest:
        return Examination(
            finding=Finding.SUSPECT,
            words="its data set does not fit the receipt's digest",
            size=size,
            receipt=receipt,
        )
    if scanner is None:
        return Examination(finding=Finding.WHOLE, words="it is whole", size=size, receipt=receipt)
    result = scanner.finish()
    return Examination(
        finding=Finding.WHOLE,
        words="it is whole",
        size=size,
        receipt=receipt,
        values=result.values,
        remarks=result.remarks,
        problem=result.problem,
        little_endian=result.little_endian,
    )
