"""Receive buffers: from a pool, shared by the event loop that fills them and the workers that empty them."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from itertools import count

from stowkeeper.net.limits import RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS_MAX, SPARE_BUFFER_BYTES


class ReceiveBuffer:
    """Memory that is read into from a socket. It goes back to its pool when its last hold is released."""

    __slots__ = ("_holds", "_pool", "on_free", "view")

    def __init__(self, pool: "BufferPool", size: int) -> None:
        self.view = memoryview(bytearray(size))
        self._pool = pool
        self._holds = 1
        self.on_free: Callable[[], None] | None = None

    def hold(self) -> None:
        """Keep the bytes until one more `release`."""
        with self._pool.lock:
            self._holds += 1

    def release(self) -> None:
        """Give up one hold, from any thread."""
        with self._pool.lock:
            self._holds -= 1
            if self._holds:
                return
            on_free, self.on_free = self.on_free, None
        self._pool.give_back(self)
        if on_free is not None:
            on_free()

    @property
    def holds(self) -> int:
        """How many hold it: its association, and each piece that a worker still needs."""
        return self._holds

    @property
    def shared(self) -> bool:
        """Whether a worker still needs bytes of it."""
        return self._holds > 1

    def rewind(self) -> None:
        """Make a free buffer the caller's own."""
        self._holds = 1


class BufferPool:
    """A bounded number of receive buffers, made when first needed.

    Who found it empty may `wait`, and is given the next free buffer itself: a mere word that there is one could
    wake somebody who does not read, while others wait on.
    """

    def __init__(self, size: int = RECEIVE_BUFFER_BYTES, most: int = RECEIVE_BUFFERS_MAX) -> None:
        self.lock = threading.Lock()
        self._size = size
        self._most = most
        self._made = 0
        self._free: list[ReceiveBuffer] = []
        self._waiting: OrderedDict[int, Callable[[ReceiveBuffer], None]] = OrderedDict()
        self._tickets = count()

    def take(self) -> ReceiveBuffer | None:
        """Return a buffer, or None when all are in use."""
        with self.lock:
            if self._free:
                buffer = self._free.pop()
                buffer.rewind()
                return buffer
            if self._made >= self._most:
                return None
            self._made += 1
        return ReceiveBuffer(self, self._size)

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for a buffer."""
        return bool(self._waiting)

    def spare(self) -> ReceiveBuffer:
        """Return a small buffer that is not counted, for a read that cannot wait."""
        return ReceiveBuffer(self, SPARE_BUFFER_BYTES)

    def wait(self, callback: Callable[[ReceiveBuffer], None]) -> int:
        """Have `callback` called once with a buffer: now, or later on whatever thread frees one.

        Returns the ticket by which to `withdraw`. Who is given a buffer and has no use for it any more releases it
        at once, and the next one that waits gets it.
        """
        ticket = next(self._tickets)
        buffer = self.take()
        if buffer is None:
            with self.lock:
                if not self._free:
                    self._waiting[ticket] = callback
                    return ticket
                buffer = self._free.pop()
                buffer.rewind()
        callback(buffer)
        return ticket

    def withdraw(self, ticket: int) -> None:
        """Wait no longer. Without effect on who was given a buffer already, be the call still on its way."""
        with self.lock:
            self._waiting.pop(ticket, None)

    def give_back(self, buffer: ReceiveBuffer) -> None:
        """Take a buffer back whose last hold is gone."""
        if len(buffer.view) != self._size:
            return  # a spare one
        with self.lock:
            if not self._waiting:
                self._free.append(buffer)
                return
            _, callback = self._waiting.popitem(last=False)
            buffer.rewind()
        callback(buffer)
