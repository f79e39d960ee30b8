"""Walk over the elements of a data set that comes in pieces, cut anywhere.

What is common to whoever looks at a data set while it is received: a value that nobody looks into is stepped over by its
length, in constant time for each piece, and of an element that is cut the bytes that are there wait for the rest. What an
element means is for `_walk` to say.
"""

from abc import ABC, abstractmethod

from stowkeeper.dicom.elements import Buffer
from stowkeeper.dicom.limits import PIECE_BYTES_MAX


class PieceWalker(ABC):
    """Walks over one data set, fed piece by piece.

    `size` is the number of bytes fed. `problem` is the first reason to stop, in words; what follows is let pass. A walk
    that comes upon an element that is cut leaves its bytes in `_pending` and how many it needs in `_need`; a value that
    reaches beyond the piece leaves the bytes to step over in `_skip`. `_base` is the offset of the piece at hand.
    """

    __slots__ = ("_base", "_need", "_pending", "_skip", "problem", "size")

    def __init__(self) -> None:
        self.problem: str | None = None
        self.size = 0
        self._base = 0
        self._need = 0
        self._pending = b""
        self._skip = 0

    def feed(self, view: Buffer) -> None:
        """Walk on over `view`, the next piece of the data set, cut anywhere. Keeps no reference to it."""
        size = len(view)
        if self._skip >= size:
            self._skip -= size
            self.size += size
            return
        if size > PIECE_BYTES_MAX:
            for start in range(0, size, PIECE_BYTES_MAX):
                self.feed(memoryview(view)[start : start + PIECE_BYTES_MAX])
            return
        base = self.size
        position = 0
        while position < size and self.problem is None:
            if self._skip:
                position += self._skip
                self._skip = max(position - size, 0)
            elif self._pending:
                position = self._complete(view, position, size, base)
            else:
                self._base = base
                position = self._walk(view, position, size)
        self.size = base + size

    @abstractmethod
    def finish(self) -> str | None:
        """Say in words what is wrong with the data set, now that it has ended; None when nothing is."""

    def _complete(self, view: Buffer, position: int, size: int, base: int) -> int:
        """Add to the unfinished element what it needs, walk over it when it has that; return where `view` goes on."""
        take = min(self._need - len(self._pending), size - position)
        pending = self._pending + view[position : position + take]
        position += take
        if len(pending) < self._need:
            self._pending = pending
            return position
        self._pending = b""
        self._base = base + position - len(pending)
        walked = 0
        while walked < len(pending) and self.problem is None:
            walked = self._walk(pending, walked, len(pending))
        return position

    @abstractmethod
    def _walk(self, view: Buffer, position: int, end: int) -> int:
        """Walk from `position` until `view` ends at `end` or what comes next changes its kind; return how far that is."""

    def _wait(self, view: Buffer, position: int, end: int, need: int) -> int:
        """Keep the unfinished element at `position` until it has `need` bytes."""
        self._pending = bytes(view[position:end])
        self._need = need
        return end
