"""Where the next read of an association goes: a buffer of the pool, or a small spare one while the pool is empty."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from stowkeeper.net.association_host import AssociationHost
from stowkeeper.net.buffers import ReceiveBuffer
from stowkeeper.net.limits import (
    EVENTS_PER_READ,
    PIECES_PER_BUFFER_MAX,
    READ_BYTES_MIN,
    RECEIVE_BUFFER_BYTES,
    RECEIVE_BUFFERS_PER_ASSOCIATION_MAX,
    RECEIVE_SPACE_MIN,
)

if TYPE_CHECKING:
    from stowkeeper.net.association import AssociationProtocol


class ReceiveSpace:
    """The buffers of one association.

    `flush` hands over what waits in the buffer before that is left to the workers, `changed` looks anew whether reading
    may go on, and `is_closing` tells that nothing will be read any more.
    """

    def __init__(
        self,
        host: AssociationHost,
        association: "AssociationProtocol",
        flush: Callable[[], None],
        changed: Callable[[], None],
        is_closing: Callable[[], bool],
    ) -> None:
        self._host: Final = host
        self._association: Final = association
        self._flush: Final = flush
        self._changed: Final = changed
        self._is_closing: Final = is_closing
        self._ticket = 0
        self.is_waited_for = False
        """Whether a buffer of the pool is waited for."""
        self.buffer: ReceiveBuffer | None = None
        self.filled = 0
        self.read_most = RECEIVE_BUFFER_BYTES
        self.buffers_out = 0

    @property
    def is_used_up(self) -> bool:
        """Whether workers hold as many buffers as one association may have."""
        return self.buffers_out >= RECEIVE_BUFFERS_PER_ASSOCIATION_MAX

    def place(self) -> memoryview:
        """Return the memory that the next read goes into."""
        buffer = self.buffer
        if buffer is None:
            self.filled = 0
            buffer = self._host.buffers.take()
            if buffer is None:
                if not self.is_waited_for:
                    self._wait_for_pool()
                buffer = self.buffer or self._host.buffers.spare()  # one may have come at once
            self.buffer = buffer
            self._host.buffered.add(self._association)
        return buffer.view[self.filled : self.filled + self.read_most]

    def size_next_read(self, nbytes: int, pieces: int) -> None:
        """Give a peer that sends many small PDVs small reads, so that the others have their turn."""
        if nbytes * EVENTS_PER_READ >= RECEIVE_BUFFER_BYTES * (pieces or 1):
            self.read_most = RECEIVE_BUFFER_BYTES
        else:
            self.read_most = max(READ_BYTES_MIN, nbytes * EVENTS_PER_READ // (pieces or 1))

    def go_on_behind(self, buffer: ReceiveBuffer) -> None:
        """Decide where in a buffer that was read into the next read goes, or that it goes elsewhere."""
        if not buffer.shared:
            self.filled = 0
        elif len(buffer.view) - self.filled < RECEIVE_SPACE_MIN or buffer.holds > PIECES_PER_BUFFER_MAX:
            self.let_go()

    def let_go(self) -> None:
        """Leave the buffer to the workers that still hold views of it."""
        buffer, self.buffer = self.buffer, None
        self._host.buffered.discard(self._association)
        if buffer is None:
            return
        self._flush()
        self.buffers_out += 1
        buffer.on_free = self._buffer_freed
        buffer.release()

    def give_up(self) -> None:
        """Give the buffer back, and wait for none: nothing is read any more."""
        self._give_back()
        if self.is_waited_for:
            self._host.buffers.withdraw(self._ticket)

    def _give_back(self) -> None:
        buffer, self.buffer = self.buffer, None
        self._host.buffered.discard(self._association)
        if buffer is not None:
            buffer.release()

    def _buffer_freed(self) -> None:
        """Run on whatever thread released the last view."""
        self._host.call_soon_threadsafe(self._count_buffer)

    def _count_buffer(self) -> None:
        self.buffers_out -= 1
        self._changed()

    def _wait_for_pool(self) -> None:
        self.is_waited_for = True
        self._ticket = self._host.buffers.wait(
            lambda buffer: self._host.call_soon_threadsafe(self._take_from_pool, buffer)
        )

    def _take_from_pool(self, buffer: ReceiveBuffer) -> None:
        """Read on into a buffer that was waited for, or pass it on when there is nothing to read any more."""
        self.is_waited_for = False
        if self._is_closing() or (self.buffer is not None and self.filled):
            buffer.release()
        else:
            self._give_back()  # the spare one
            self.buffer = buffer
            self.filled = 0
            self._host.buffered.add(self._association)
        self._changed()
