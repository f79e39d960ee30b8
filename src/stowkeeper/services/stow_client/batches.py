"""Which files go together in a request, and the body of that request, read from disk as it goes out."""

import contextlib
import io
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from stowkeeper.archive.plain_head import HeadDamagedError, plain_head
from stowkeeper.services.limits import FILE_HEAD_BYTES
from stowkeeper.services.send_plan import SendableFile
from stowkeeper.services.send_source import CHANGED, DAMAGED
from stowkeeper.services.stow_client.limits import PIECE_BYTES
from stowkeeper.stow.multipart_writer import MultipartWriter, new_boundary


class UnreadableFileError(Exception):
    """A file cannot be sent after all; the text says why."""

    def __init__(self, file: "QueuedFile", words: str) -> None:
        super().__init__(words)
        self.file = file


@dataclass(eq=False, slots=True)
class QueuedFile:
    """A file until it has its outcome. `attempts` counts how often it was sent, `lost` how often without an answer."""

    file: SendableFile
    attempts: int = 0
    lost: int = 0


Batch = tuple[QueuedFile, ...]


class BatchQueue:
    """The files that are to be sent, and the batches that are to be sent again.

    A batch holds at most `instances` files and about `bytes_max` bytes, and no SOP instance twice: an answer tells of
    instances, and could not be told apart. Not safe for threads.
    """

    def __init__(self, files: Iterable[SendableFile], *, instances: int, bytes_max: int) -> None:
        self._fresh = deque(QueuedFile(file) for file in files)
        self._again: deque[Batch] = deque()
        self._instances = instances
        self._bytes_max = bytes_max

    def __bool__(self) -> bool:
        return bool(self._fresh or self._again)

    def take(self) -> Batch:
        """Return the next batch; () when there is none."""
        if self._again:
            return self._again.popleft()
        batch: list[QueuedFile] = []
        uids: set[str] = set()
        size = 0
        while self._fresh and len(batch) < self._instances:
            file = self._fresh[0].file
            if batch and (size + file.size > self._bytes_max or file.sop_instance_uid in uids):
                break
            batch.append(self._fresh.popleft())
            uids.add(file.sop_instance_uid)
            size += file.size
        return tuple(batch)

    def give_back(self, batch: Sequence[QueuedFile], parts: int = 1) -> None:
        """Have files sent again, in so many requests as equal as can be; a request without files is none."""
        files = list(batch)
        cuts = [len(files) * number // parts for number in range(parts + 1)]
        for begin, end in itertools.pairwise(cuts):
            if begin < end:
                self._again.append(tuple(files[begin:end]))

    def shrink(self, bytes_max: int) -> None:
        """Let new batches be no larger than that: more was refused as too large."""
        self._bytes_max = min(self._bytes_max, max(1, bytes_max))

    def drain(self) -> Iterator[QueuedFile]:
        """Give all files that are left, and forget them."""
        while batch := self.take():
            yield from batch


class BatchBody:
    """The body of one request, over files that were just looked at. Each attempt makes it anew, so none is ever empty.

    A file with a digest is one of the archive: its receipt stays here, and what is not what was received does not go out whole.
    Raises UnreadableFileError for the first file that is not as it was planned.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch: Final = batch
        heads = [_head_of(queued) for queued in batch]
        self._writer = MultipartWriter(new_boundary(heads))
        self._heads = [head if queued.file.digest else b"" for head, queued in zip(heads, batch, strict=True)]
        sizes = [len(head) + _bytes_of(queued) for head, queued in zip(self._heads, batch, strict=True)]
        self.length: Final = self._writer.length(sizes)
        self.content_type: Final = self._writer.content_type

    def pieces(self) -> Iterator[memoryview]:
        """Give the body in pieces; each is valid until the next one is asked for. Raises UnreadableFileError."""
        view = memoryview(bytearray(PIECE_BYTES))
        filled = 0
        for index, queued in enumerate(self._batch):
            front = memoryview(self._writer.opening(index) + self._heads[index])
            while front:
                count = min(len(front), PIECE_BYTES - filled)
                view[filled : filled + count] = front[:count]
                front = front[count:]
                filled += count
                if filled == PIECE_BYTES:
                    yield view
                    filled = 0
            with _opened(queued) as stream:
                left = _bytes_of(queued)
                stream.seek(queued.file.size - left)
                seen = blake3() if queued.file.digest else None
                while left:
                    count = _read_into(stream, view[filled : filled + left], queued)
                    if seen is not None:
                        seen.update(view[filled : filled + count])
                    left -= count
                    filled += count
                    if not left:
                        # Its part has not ended yet: broken off here, the server does not have it.
                        _check_whole(stream, queued, seen.hexdigest() if seen is not None else "")
                    if filled == PIECE_BYTES:
                        yield view
                        filled = 0
        if filled:
            yield view[:filled]
        yield memoryview(self._writer.closing)


@contextlib.contextmanager
def _opened(queued: QueuedFile) -> Iterator[io.FileIO]:
    """Open a file, and see that it is still what was planned."""
    try:
        stream = io.FileIO(queued.file.path)
    except OSError as error:
        raise UnreadableFileError(queued, _words_of(error)) from error
    with stream:
        if not queued.file.is_unchanged(os.fstat(stream.fileno())):
            raise UnreadableFileError(queued, "it has changed since it was looked at")
        yield stream


def _read_into(stream: io.FileIO, view: memoryview, queued: QueuedFile) -> int:
    """Read what comes next; there is room for something, and has to be something."""
    try:
        count = stream.readinto(view)
    except OSError as error:
        raise UnreadableFileError(queued, _words_of(error)) from error
    if not count:
        raise UnreadableFileError(queued, "it has become shorter")
    return count


def _check_whole(stream: io.FileIO, queued: QueuedFile, digest: str) -> None:
    """Raise UnreadableFileError for a file that changed while it was read, or is not what it has to be."""
    if digest != queued.file.digest:
        raise UnreadableFileError(queued, DAMAGED)
    if not queued.file.is_unchanged(os.fstat(stream.fileno())):
        raise UnreadableFileError(queued, CHANGED)


def _bytes_of(queued: QueuedFile) -> int:
    """Return how many bytes of a file go out as they are: all, or those of the data set behind a head without receipt."""
    return queued.file.data_set_length if queued.file.digest else queued.file.size


def _head_of(queued: QueuedFile) -> bytes:
    """Return the first bytes of a file; of one of the archive the whole head as it goes out."""
    wanted = queued.file.offset if queued.file.digest else FILE_HEAD_BYTES
    head = memoryview(bytearray(min(wanted, queued.file.size)))
    with _opened(queued) as stream:
        count = _read_into(stream, head, queued)
    if not queued.file.digest:
        return bytes(head[:count])
    try:
        return plain_head(bytes(head[:count]))[0]
    except HeadDamagedError as error:
        raise UnreadableFileError(queued, str(error)) from error


def _words_of(error: OSError) -> str:
    return f"it cannot be read: {error.strerror or type(error).__name__}"
