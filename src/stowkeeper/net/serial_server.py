"""A server that holds one association at a time, on the thread that calls it and without an event loop.

Nothing happens beside anything else here: what a handler does for one instance it does to the end before the next byte is
read. So handlers may wait for the disk, for other programs or for a clock. A connection whose association has ended,
and whose peer has not closed it yet, lingers for the time of the ARTIM timer and keeps nobody waiting.
"""

import itertools
import secrets
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from stowkeeper.net.addresses import plain_address
from stowkeeper.net.association import AssociationProtocol
from stowkeeper.net.buffers import BufferPool
from stowkeeper.net.data_set_room import DataSetRoom
from stowkeeper.net.handlers import AssociationFacts, Handlers
from stowkeeper.net.limits import LINGERING_CONNECTIONS_MAX, TLS_REFUSAL_SECONDS
from stowkeeper.net.serial_link import SerialLink
from stowkeeper.net.server_options import ServerOptions
from stowkeeper.net.tls_channel import TLSChannel
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.net.tls_errors import TLSFailure
from stowkeeper.upperlayer.negotiation import Accepted, Rejected
from stowkeeper.upperlayer.pdu import AssociateRQ

TICK_SECONDS = 0.5
"""How often timers are looked at: all of them are whole seconds."""

_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR


class SerialServer:
    """Serves associations one after the other.

    `meanwhile` is called whenever nothing is there to read, every `tick_seconds` at least. `handshake_ended` is told the
    address of a peer with the reason why its TLS handshake failed, None when it did not, and what is weak about its
    certificate. Of the options those on the number of associations and on stopping do not count.
    """

    def __init__(
        self,
        handlers: Handlers,
        options: ServerOptions,
        tls: TLSContext | None = None,
        *,
        handshake_ended: Callable[[str, TLSFailure | None, list[str]], None],
        meanwhile: Callable[[], None],
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self.handlers = handlers
        self.options = options
        self.buffers = BufferPool()
        self.buffered: set[AssociationProtocol] = set()
        self.data_set_room = DataSetRoom()
        self._tls = tls
        self._handshake_ended = handshake_ended
        self._meanwhile = meanwhile
        self._tick_seconds = tick_seconds
        self._lingering: list[_Lingering] = []
        self.time: Callable[[], float] = time.monotonic
        self._process = secrets.token_hex(4)
        self._counter = itertools.count(1)

    def accept(self, listener: socket.socket) -> socket.socket:
        """Return the next connection. Raises OSError when the system has none to give."""
        while True:
            ready = self._wait_for(listener)
            self._look_after_lingering(ready)
            if listener.fileno() in ready:
                return listener.accept()[0]
            self._meanwhile()

    def serve(self, connection: socket.socket) -> None:
        """Serve a connection until its association has ended.

        What a handler raises, other than PeerError, comes through when the connection is closed.
        """
        channel = None if self._tls is None else TLSChannel(self._tls)
        link = SerialLink(
            connection,
            tick_seconds=self._tick_seconds,
            send_seconds=self.options.send_seconds,
            channel=channel,
        )
        if channel is not None and not self._shake_hands(link, channel):
            return
        protocol = AssociationProtocol(self)
        session = _Session(link, protocol)
        try:
            self._hold(session, protocol)
        except Exception:
            try:
                protocol.abort()  # the peer is to know that it is not its fault alone
            finally:
                session.end()
            raise
        if link.is_closing():
            session.end()
        else:
            self._linger(session)

    def _hold(self, session: "_Session", protocol: AssociationProtocol) -> None:
        """Hold an association until it has ended."""
        link = session.link
        protocol.connection_made(link)  # type: ignore[arg-type]  # all of a transport that an association calls
        due = self.time() + self._tick_seconds
        while not link.is_closing() and not session.is_over:
            if session.step() is None:
                protocol.sweep()
                self._meanwhile()
            now = self.time()
            if now >= due:
                due = now + self._tick_seconds
                protocol.tick(now)
                self._look_after_lingering(set())

    def finish(self) -> None:
        """Wait until every connection that lingers is closed, by its peer or for its time."""
        while self._lingering:
            self._look_after_lingering(self._wait_for())

    def _wait_for(self, *listeners: socket.socket) -> set[int]:
        """Wait until something can be read, or for a tick; return the descriptors of what can."""
        poll = select.poll()
        for listener in listeners:
            poll.register(listener, select.POLLIN)
        for lingering in self._lingering:
            poll.register(lingering.link, _READABLE)
        return {descriptor for descriptor, _ in poll.poll(self._tick_seconds * 1000)}

    def _shake_hands(self, link: SerialLink, channel: TLSChannel) -> bool:
        """Hold the TLS handshake; False when it failed, and the link is looked after."""
        address = plain_address(link.peer[0] if link.peer else "")
        failure: TLSFailure | None = None
        deadline = self.time() + self.options.association_request_seconds
        try:
            channel.begin()
            while not channel.is_established:
                count = link.shake_hands()
                if count == 0:
                    failure = channel.failure_by_loss(None)
                    break
                if count is None:
                    self._meanwhile()
                    self._look_after_lingering(set())
                if self.time() > deadline:
                    failure = TLSFailure("it did not complete the TLS handshake in time")
                    break
        except TLSFailure as error:
            failure = error
        except OSError as error:
            failure = channel.failure_by_loss(error)
        self._handshake_ended(address, failure, channel.warnings)
        if failure is not None:
            link.say_nothing_follows()
            self._linger(_Refused(link, self.time() + TLS_REFUSAL_SECONDS))
        return failure is None

    def _linger(self, session: "_Lingering") -> None:
        session.give_memory_back()
        self._lingering.append(session)
        while len(self._lingering) > LINGERING_CONNECTIONS_MAX:
            self._lingering.pop(0).end()

    def _look_after_lingering(self, ready: set[int]) -> None:
        now = self.time()
        for lingering in list(self._lingering):
            if lingering.link.fileno() in ready:
                lingering.step()
                lingering.give_memory_back()
            lingering.tick(now)
            if lingering.link.is_closing():
                self._lingering.remove(lingering)
                lingering.end()

    # For the associations.

    def admit(self, protocol: AssociationProtocol, peer: Any) -> AssociationFacts | None:  # noqa: ANN401, ARG002 - the shape is the address family's; there is but one
        """Begin the account of a connection; None when its peer is gone already."""
        if peer is None:
            return None
        return AssociationFacts(
            association_id=f"{self._process}-{next(self._counter)}",
            peer_address=plain_address(peer[0] if peer else ""),
            opened_at_nanoseconds=time.time_ns(),
        )

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Let the handlers decide."""
        return self.handlers.negotiate(request, facts)

    def forget(self, protocol: AssociationProtocol) -> None:
        """Close the account of a connection."""
        facts = protocol.facts
        if facts is not None:
            facts.closed_at_nanoseconds = time.time_ns()
            self.handlers.association_closed(facts)

    def call_soon_threadsafe(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call back at once: there is no other thread."""
        callback(*arguments)


class _Session:
    """A connection with its association."""

    def __init__(self, link: SerialLink, protocol: AssociationProtocol) -> None:
        self.link = link
        self._protocol = protocol
        self._failure: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether the association has ended, and only the peer's closing is waited for."""
        facts = self._protocol.facts
        return facts is None or bool(facts.end)

    def step(self) -> int | None:
        """Read once and pass it up; return how much came, 0 at the end, None when nothing came in time."""
        link = self.link
        view = self._protocol.get_buffer(-1)
        try:
            count = link.read_into(view)
        except (OSError, TLSFailure) as failure:
            self._failure = failure
            link.abort()
            return 0
        if count:
            self._protocol.buffer_updated(count)
        elif count == 0:
            link.close()  # with the last word of TLS, which the peer may wait for
        return count

    def tick(self, now: float) -> None:
        """Heed the timers."""
        if not self.link.is_closing():
            self._protocol.tick(now)

    def give_memory_back(self) -> None:
        """Let go of the receive buffer: many linger, and one is served."""
        for _ in range(2):  # the first only finds that something was read lately
            self._protocol.sweep()

    def end(self) -> None:
        """Close the connection, and tell the association."""
        self.link.dispose()
        self._protocol.connection_lost(self.link.failure or self._failure)


class _Refused:
    """A connection whose TLS handshake failed. Closed with bytes unread, TCP would take the alert away from the peer."""

    def __init__(self, link: SerialLink, deadline: float) -> None:
        self.link = link
        self._deadline = deadline
        self._socket: socket.socket = link.get_extra_info("socket")

    def step(self) -> int | None:
        """Read what comes, and drop it."""
        try:
            dropped = self._socket.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            dropped = b""
        if not dropped:
            self.link.abort()
        return len(dropped)

    def tick(self, now: float) -> None:
        """Give up when it is time."""
        if now >= self._deadline:
            self.link.abort()

    def give_memory_back(self) -> None:
        """Do nothing: it has no buffer."""

    def end(self) -> None:
        """Close the connection."""
        self.link.dispose()


_Lingering = _Session | _Refused
