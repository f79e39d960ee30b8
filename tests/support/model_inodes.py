"""One inode of the model file system: what programs see, what is on the medium, and every change in between.

An inode is a set of parts. Of a file they are its size and each of its blocks, of a folder each of its names. Every
change of a part is kept by itself until a sync, and at a power cut each change survives or not. What a part holds
afterwards is the value of its last change that survived: a block is written whole from the page cache, so that of two
writes to one block the later one brings the earlier one along.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

SIZE = "size"
"""The part of a file that holds its size in bytes; its other parts are numbers of blocks."""

Part = str | int
Value = bytes | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsyncedChange:
    """A change that a power cut may undo: the machine's count, whose part became what, and by which operation.

    A name's value is the inode it leads to, or None when it was removed. An abandoned change belongs to a sync that
    failed: the system believes it written, no later sync writes it, and whether it reached the medium is open.
    """

    number: int
    inode: int
    part: Part
    value: Value
    operation: str
    path: str
    abandoned: bool = False

    def __str__(self) -> str:
        value = f"{len(self.value)} bytes" if isinstance(self.value, bytes) else self.value
        return (
            f"{self.operation} {self.path}: {self.part} = {value}{' (abandoned)' if self.abandoned else ''}"
        )


class Inode:
    """An inode, file or folder."""

    __slots__ = ("current", "is_directory", "links", "medium", "mode", "number", "unsynced")

    def __init__(self, number: int, mode: int, *, is_directory: bool) -> None:
        self.number = number
        self.mode = mode
        self.is_directory = is_directory
        self.links = 0
        self.current: dict[Part, Value] = {}
        self.medium: dict[Part, Value] = {}
        self.unsynced: dict[Part, list[UnsyncedChange]] = {}

    def copy(self) -> "Inode":
        """Return one like this that shares nothing that changes."""
        other = Inode(self.number, self.mode, is_directory=self.is_directory)
        other.links = self.links
        other.current, other.medium = dict(self.current), dict(self.medium)
        other.unsynced = {part: list(changes) for part, changes in self.unsynced.items()}
        return other

    @property
    def size(self) -> int:
        """The size of a file in bytes, as programs see it."""
        size = self.current.get(SIZE, 0)
        assert isinstance(size, int)
        return size

    @property
    def blocks(self) -> int:
        """The count of blocks a file takes."""
        return sum(isinstance(part, int) for part in self.current)

    def names(self) -> dict[str, int]:
        """The names in a folder and the inodes they lead to, as programs see them."""
        return {str(part): value for part, value in self.current.items() if isinstance(value, int)}

    def lookup(self, name: str) -> int | None:
        """Return the inode a name in a folder leads to, as programs see it."""
        number = self.current.get(name)
        return number if isinstance(number, int) else None

    def change(self, change: UnsyncedChange) -> None:
        """Let programs see a change."""
        _assign(self.current, change.part, change.value)
        self.unsynced.setdefault(change.part, []).append(change)

    def synchronize(self) -> None:
        """Bring every change to the medium that is not believed to be there."""
        for part, changes in list(self.unsynced.items()):
            if not changes[-1].abandoned:
                _assign(self.medium, part, changes[-1].value)
                del self.unsynced[part]

    def abandon(self) -> None:
        """Fail a sync and keep nothing marked as unwritten, as Linux does with pages it could not write."""
        for changes in self.unsynced.values():
            changes[:] = [replace(change, abandoned=True) for change in changes]

    def drop_cache(self) -> None:
        """Forget every block believed to be on the medium, so that reads find what is there.

        Whether an abandoned block ever arrived is decided here, for the worse. The size is no part of the cache.
        """
        for part, changes in list(self.unsynced.items()):
            if part != SIZE and changes[-1].abandoned:
                _assign(self.current, part, self.medium.get(part))
                del self.unsynced[part]

    def after_power_cut(self, survived: Collection[int], block_size: int) -> "Inode":
        """Return the inode as the medium has it when the changes of these numbers reached it, and no other."""
        other = Inode(self.number, self.mode, is_directory=self.is_directory)
        other.medium = dict(self.medium)
        for part, changes in self.unsynced.items():
            for change in changes:
                if change.number in survived:
                    _assign(other.medium, part, change.value)
        if not self.is_directory:
            size = other.medium.setdefault(SIZE, 0)
            assert isinstance(size, int)
            _cut_off(other.medium, size, block_size)
        other.current = dict(other.medium)
        return other


def read_blocks(inode: Inode, length: int, offset: int, block_size: int) -> bytes:
    """Read from a file as programs see it; a block never written reads as zeros."""
    end = min(offset + length, inode.size)
    pieces = []
    while offset < end:
        block, start = divmod(offset, block_size)
        stop = min(block_size, start + end - offset)
        pieces.append(_block(inode, block, block_size)[start:stop])
        offset += stop - start
    return b"".join(pieces)


def write_blocks(
    inode: Inode, data: bytes, offset: int, block_size: int, changed: Callable[[Part, Value], None]
) -> None:
    """Write to a file; `changed` is called for each block, and for each size the file has on the way.

    A file that grows by several blocks passes through the sizes between them, and each may be what is left.
    """
    size = inode.size
    done = 0
    while done < len(data):
        block, start = divmod(offset + done, block_size)
        piece = data[done : done + block_size - start]
        before = _block(inode, block, block_size)
        changed(block, before[:start] + piece + before[start + len(piece) :])
        done += len(piece)
        if offset + done > size:
            changed(SIZE, offset + done)


def _block(inode: Inode, block: int, block_size: int) -> bytes:
    """Return a block as programs see it."""
    content = inode.current.get(block)
    return content if isinstance(content, bytes) else bytes(block_size)


def _assign(parts: dict[Part, Value], part: Part, value: Value) -> None:
    """Set a part, or take it away."""
    if value is None:
        parts.pop(part, None)
    else:
        parts[part] = value


def _cut_off(parts: dict[Part, Value], size: int, block_size: int) -> None:
    """Make everything behind the end of a file zeros, as a file system does before it gives it to a reader."""
    for part in [part for part in parts if isinstance(part, int)]:
        content = parts[part]
        assert isinstance(content, bytes)
        left = size - part * block_size
        if left <= 0:
            del parts[part]
        elif left < block_size:
            parts[part] = content[:left].ljust(block_size, b"\0")
