"""An association with a thread of its own, which reads by blocking calls.

What is done for it may wait for the disk: nobody else waits with it. So an instance is read, written, synced and
answered without a change of threads, which for a small one costs about as much as the sync.

All calls of the association are made on its thread. Others leave theirs in a queue. It is looked into after every read,
which gives up after TICK_SECONDS; and at once while something is awaited from another thread, or nothing came lately.
"""

import contextlib
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import structlog

from stowkeeper.net.association import AssociationProtocol
from stowkeeper.net.association_host import PeerAddress
from stowkeeper.net.buffers import BufferPool
from stowkeeper.net.data_set_room import DataSetRoom
from stowkeeper.net.handlers import AssociationFacts, Handlers
from stowkeeper.net.serial_link import SerialLink
from stowkeeper.net.server_options import ServerOptions
from stowkeeper.upperlayer.negotiation import Accepted, Rejected
from stowkeeper.upperlayer.pdu import AssociateRQ

if TYPE_CHECKING:
    from stowkeeper.net.server import AssociationServer

log = structlog.get_logger("stowkeeper.net")

TICK_SECONDS: Final = 0.5
"""How often timers are looked at: all of them are whole seconds."""

THREADS_CAN_SERVE: Final = hasattr(select, "poll") and sys.platform != "win32"
"""Whether the system has what a thread of an association needs."""

_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR if THREADS_CAN_SERVE else 0


class AssociationThread:
    """Serves one connection from its first byte to its last; to the association above it, it is the server."""

    def __init__(
        self, server: "AssociationServer", connection: socket.socket, peer: PeerAddress | None = None
    ) -> None:
        self._server: Final = server
        self.buffers: BufferPool = server.buffers
        self.data_set_room: DataSetRoom = server.data_set_room
        self.options: ServerOptions = server.options
        self.handlers: Handlers = server.handlers
        self.buffered: set[AssociationProtocol] = set()
        self.time: Callable[[], float] = time.monotonic
        self.protocol: Final = AssociationProtocol(self, peer)
        self._link: Final = SerialLink(
            connection, tick_seconds=TICK_SECONDS, send_seconds=server.options.send_seconds
        )
        self._calls: Final[deque[tuple[Callable[..., None], tuple[object, ...]]]] = deque()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._woken.setblocking(False)  # noqa: FBT003 - likewise
        self._poll: Final = select.poll()
        self._poll.register(self._woken, select.POLLIN)
        self._polls_connection = False
        self._is_asleep = False
        self._was_silent = True  # a read needs a buffer, which who says nothing shall not hold
        self._thread: Final = threading.Thread(target=self._run, name="association", daemon=True)

    def start(self) -> None:
        """Begin to serve. Raises RuntimeError when the system has no thread left, with the connection untouched."""
        try:
            self._thread.start()
        except RuntimeError:
            self._close_wakers()
            raise

    def cut(self) -> None:
        """Close the connection, from another thread and without a word."""
        self.call_soon_threadsafe(self.protocol.cut)
        self._link.shut_down()  # for a thread that is busy with reading or writing

    # The thread.

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            self._serve()
        except Exception as error:
            log.exception("error", what="an association was cut")
            failure = error
            with contextlib.suppress(Exception):  # the first one is in the log
                self.protocol.abort()  # the peer is to know that it is not its fault alone
        try:
            self._link.dispose()
            self.protocol.connection_lost(self._link.failure or failure)
        except Exception:
            log.exception("error", what="the end of an association was not noted")
        finally:
            self._server.thread_ended(self)
            self._close_wakers()

    def _serve(self) -> None:
        link, protocol = self._link, self.protocol
        protocol.connection_made(link)  # type: ignore[arg-type]  # all of a transport that an association calls
        due = self.time() + TICK_SECONDS
        while not link.is_closing():
            if link.reads and not self._was_silent and not protocol.awaits_others:
                came = self._read()
            else:
                came = self._wait()
            if self._calls and not link.is_closing():
                self._wait()  # not for long: what the peer sent before them comes first
            while self._calls:
                callback, arguments = self._calls.popleft()
                callback(*arguments)
            now = self.time()
            if now >= due:
                due = now + TICK_SECONDS
                protocol.tick(now)
                if not came:
                    protocol.sweep()

    def _read(self) -> bool:
        """Read once and pass it up; False when nothing came."""
        link = self._link
        view = self.protocol.get_buffer(-1)
        try:
            count = link.read_into(view)
        except OSError as failure:
            link.failure = failure
            link.abort()
            return True
        if count:
            self.protocol.buffer_updated(count)
        elif count == 0:
            link.close()
        self._was_silent = count is None
        return count is not None

    def _wait(self) -> bool:
        """Wait for the next byte, if one is wanted, or the next call; False when neither came."""
        self._poll_connection(wanted=self._link.reads)
        self._is_asleep = True
        # Whoever leaves a call now sees us asleep and wakes us; what was left before stands in the queue already. Then what
        # the peer has sent is read, and not waited for: a drain is to find a message that has begun.
        ready = self._poll.poll(0 if self._calls else TICK_SECONDS * 1000)
        self._is_asleep = False
        came = bool(self._calls)
        for descriptor, _ in ready:
            if descriptor == self._woken.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(64)
            else:
                came = self._read()
        return came

    def _poll_connection(self, *, wanted: bool) -> None:
        if wanted and not self._polls_connection:
            self._poll.register(self._link.fileno(), _READABLE)
        elif self._polls_connection and not wanted:
            self._poll.unregister(self._link.fileno())
        self._polls_connection = wanted

    def _close_wakers(self) -> None:
        self._waker.close()
        self._woken.close()

    # For the association.

    def admit(self, protocol: AssociationProtocol, peer: Any) -> AssociationFacts | None:  # noqa: ANN401 - the shape is the address family's
        """Count a new connection; None when there are too many to even answer."""
        facts = self._server.admit_connection(protocol, peer)
        if facts is not None:
            facts.may_wait = True
        return facts

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Decide on an association."""
        return self._server.negotiate(request, facts)

    def forget(self, protocol: AssociationProtocol) -> None:
        """Take note that the connection is gone."""
        self._server.forget(protocol)

    def call_soon_threadsafe(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call back on the association's thread: at once, where this is it."""
        if threading.current_thread() is self._thread:
            callback(*arguments)
            return
        self._calls.append((callback, arguments))
        if self._is_asleep:
            with contextlib.suppress(OSError):  # woken often enough, or gone
                self._waker.send(b"\0")
