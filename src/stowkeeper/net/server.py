"""The listener: accepts TCP connections, counts them, ticks their timers, and drains them at the end."""

import asyncio
import copy
import errno
import itertools
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from stowkeeper.dimse.message_types import Request, Response
from stowkeeper.net.addresses import is_in_networks, plain_address
from stowkeeper.net.association import AssociationProtocol
from stowkeeper.net.association_host import PeerAddress
from stowkeeper.net.association_thread import THREADS_CAN_SERVE, AssociationThread
from stowkeeper.net.buffers import BufferPool
from stowkeeper.net.data_set_room import DataSetRoom
from stowkeeper.net.handlers import AssociationFacts, Handlers
from stowkeeper.net.limits import (
    ACCEPT_PAUSE_SECONDS,
    BACKLOG,
    CONNECTIONS_WITHOUT_ASSOCIATION_MAX,
    CONNECTIONS_WITHOUT_ASSOCIATION_PER_PEER_MAX,
    DRAIN_GRACE_SECONDS,
    REFUSED_CONNECTIONS_REPORT_SECONDS,
)
from stowkeeper.net.own_requests import Invocation
from stowkeeper.net.proxied_connections import ProxiedConnections
from stowkeeper.net.proxy_header import ProxiedPeer
from stowkeeper.net.server_options import ServerOptions
from stowkeeper.net.tls_channel import TLSChannel
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.net.tls_serving import Handshakes
from stowkeeper.net.tls_transport import TLSLayer
from stowkeeper.upperlayer.negotiation import Accepted, Rejected
from stowkeeper.upperlayer.pdu import REJECTED_LOCAL_LIMIT_EXCEEDED, AssociateRQ

log = structlog.get_logger("stowkeeper.net")

SWEEP_SECONDS = 0.05
"""How often buffers that nothing is read into are given back and waiting pieces handed over."""

TICK_SECONDS = 0.5
"""How often timers are looked at: all of them are whole seconds."""


class AssociationServer:
    """Listens on one address and serves an association on each connection.

    `start` raises OSError, whose text names the address and says what to do, when it cannot be had. `stop` drains: it stops accepting, lets each message in
    flight be answered, releases, and aborts what is left after `drain_seconds`. With `tls` connections begin by a handshake,
    which may take `association_request_seconds`; a new value holds for the connections to come. So does one of `proxies`,
    the networks whose connections have to begin with a PROXY header; it may take as long.

    The first `association_threads` connections at a time have a thread each, unless they begin with TLS; the others share
    the event loop. Both count alike, so what counts is guarded by a lock.
    """

    def __init__(self, handlers: Handlers, options: ServerOptions, tls: TLSContext | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.time = self.loop.time
        self.handlers = handlers
        self.options = options
        self.tls = tls
        self.buffers = BufferPool()
        self.data_set_room = DataSetRoom()
        self.buffered: set[AssociationProtocol] = set()
        self._lock = threading.RLock()
        self._protocols: set[AssociationProtocol] = set()
        self._threads: set[AssociationThread] = set()
        self._handing_over: set[asyncio.Task[object]] = set()
        self._invocations: dict[AssociationProtocol, set[Invocation]] = {}
        self._listener: socket.socket | None = None
        self._per_peer: Counter[str] = Counter()
        self._handshakes = Handshakes(self._admit_handshake, self._leave)
        self.proxies = options.proxies
        self._proxied = ProxiedConnections(options.association_request_seconds, self._serve)
        self._counter = itertools.count(1)
        self._process = secrets.token_hex(4)
        self._server: asyncio.Server | None = None
        self._sweeping = False
        self._ticking = False
        self._closing = False
        self._refused = 0
        self._refused_reported_at = float("-inf")
        self._all_gone = asyncio.Event()

    async def start(self, host: str, port: int, listener: socket.socket | None = None) -> tuple[str, int]:
        """Listen; return the address and the port, which is a free one where `port` is 0.

        With `listener`, a socket that listens already, that one is used and closed at the end, and nothing is bound.
        """
        if listener is None:
            listener = _listen(host, port, self.options)
        else:
            _set_up(listener, self.options)
        address = listener.getsockname()
        if THREADS_CAN_SERVE:
            self._listener = listener
            self._begin_to_accept()
        else:
            self._server = await self.loop.create_server(self._protocol, sock=listener, backlog=BACKLOG)
        return address[0], address[1]

    def _begin_to_accept(self) -> None:
        if self._listener is not None and not self._closing:
            self.loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        """Take the connections that wait; what comes of them goes to a thread or to the event loop."""
        listener = self._listener
        for _ in range(BACKLOG):
            if listener is None:
                return
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("error", what="no connection could be accepted", reason=error.strerror)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(ACCEPT_PAUSE_SECONDS, self._begin_to_accept)
                return
            address = plain_address(peer[0] if peer else "")
            if not (self.proxies and is_in_networks(address, self.proxies)):
                self._serve(connection, peer or None)
            elif self._has_room_for_proxied(address):
                self._proxied.take(connection, peer)
            else:
                connection.close()

    def _serve(self, connection: socket.socket, peer: PeerAddress | None) -> None:
        """Serve a connection on a thread or on the event loop."""
        if not self._start_thread(connection, peer):
            self._hand_to_loop(connection, peer)

    def _start_thread(self, connection: socket.socket, peer: PeerAddress | None) -> bool:
        """Give a connection a thread of its own; False where it can have none, and is as it was."""
        if self.tls is not None or len(self._threads) >= self.options.association_threads:
            return False
        try:
            thread = AssociationThread(self, connection, peer)
        except OSError:  # no file left for its wakers
            return False
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self.thread_ended(thread)
            return False
        return True

    def _hand_to_loop(self, connection: socket.socket, peer: PeerAddress | None) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        factory = partial(self._protocol, peer)
        task = self.loop.create_task(self.loop.connect_accepted_socket(factory, connection))
        self._handing_over.add(task)
        task.add_done_callback(self._handed_over)

    def _handed_over(self, task: "asyncio.Task[object]") -> None:
        self._handing_over.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("association", what="a connection was lost at once", reason=str(task.exception()))

    def _protocol(self, peer: PeerAddress | None = None) -> asyncio.BaseProtocol:
        protocol = AssociationProtocol(self, peer)
        if self.tls is None:
            return protocol
        seconds = self.options.association_request_seconds
        return TLSLayer(TLSChannel(self.tls), protocol, self._handshakes, seconds, peer)

    async def stop(self) -> None:
        """Drain and close everything. A second call is harmless."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        if self._listener is not None:
            self.loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        await self._proxied.close()
        if self._handing_over:
            await asyncio.wait(self._handing_over)
        self._handshakes.close()
        deadline = self.loop.time() + self.options.drain_seconds
        for protocol in self._on_loop():
            protocol.drain(deadline)
        for thread in self._running_threads():
            thread.call_soon_threadsafe(thread.protocol.drain, time.monotonic() + self.options.drain_seconds)
        if not await self._wait_until_all_gone(self.options.drain_seconds + DRAIN_GRACE_SECONDS):
            log.warning("association", what="connections cut at the end of the drain", count=self.connections)
            for protocol in self._on_loop():
                protocol.cut()
            for thread in self._running_threads():
                thread.cut()
            await self._wait_until_all_gone(DRAIN_GRACE_SECONDS)

    async def _wait_until_all_gone(self, seconds: float) -> bool:
        if self.connections:
            self._all_gone.clear()
            try:
                await asyncio.wait_for(self._all_gone.wait(), seconds)
            except TimeoutError:
                return False
        return True

    @property
    def connections(self) -> int:
        """The number of connections whose end is not noted yet, those in a TLS handshake or before their PROXY header too."""
        return len(self._protocols) + len(self._handshakes) + len(self._proxied)

    def _on_loop(self) -> list[AssociationProtocol]:
        """Return the associations that have no thread of their own."""
        with self._lock:
            on_threads = {thread.protocol for thread in self._threads}
            return [protocol for protocol in self._protocols if protocol not in on_threads]

    def _running_threads(self) -> list[AssociationThread]:
        with self._lock:
            return list(self._threads)

    def thread_ended(self, thread: AssociationThread) -> None:
        """Take note that the thread of an association has ended, or could not begin."""
        with self._lock:
            self._threads.discard(thread)

    @property
    def is_listening(self) -> bool:
        """Whether new connections are accepted, now or after a pause."""
        return self._listener is not None or (self._server is not None and self._server.is_serving())

    @property
    def associations(self) -> int:
        """The number of associations in progress."""
        with self._lock:
            return sum(protocol.is_associated for protocol in self._protocols)

    def call_soon_threadsafe(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call back on the event loop from any thread; nothing happens when the loop is closed."""
        try:
            self.loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is gone: what the worker reports is in the archive, and nobody is left to hear it.
            return

    # Requests of ours.

    def open_associations(self) -> list[AssociationFacts]:
        """Return what is known of the associations in progress, as it is now; from any thread."""
        with self._lock:
            known = [protocol.facts for protocol in self._protocols if protocol.is_associated]
        return [copy.copy(facts) for facts in known if facts is not None]

    def invoke(
        self,
        association_id: str,
        abstract_syntax: str,
        request: Request,
        data_set: Callable[[str], bytes],
        done: Callable[[Response | None], None],
    ) -> None:
        """Send a request of ours in an association that the peer opened; from any thread.

        It goes out in the accepted context of `abstract_syntax`, whatever roles were agreed in it. `data_set` is called at once
        with the UID of its transfer syntax, and what it returns is sent, nothing when it is empty. The message id is set here.

        `done` is called once: with the response, or with None when there is no such association or context, when the
        association ends, when the peer asks for its release, or when it gives no answer within `send_seconds`. That is in this call or
        on the thread of the association, where nothing may wait. Raises LocalError for a request that cannot be written.
        """
        with self._lock:
            protocol = next(
                (
                    each
                    for each in self._protocols
                    if each.facts is not None and each.facts.association_id == association_id
                ),
                None,
            )
        context = None if protocol is None else protocol.context_of(abstract_syntax)
        if protocol is None or context is None:
            done(None)
            return

        def forget_and_tell(response: Response | None) -> None:
            with self._lock:
                self._invocations.get(protocol, set()).discard(invocation)
            done(response)

        encoded = data_set(context.transfer_syntax)
        invocation = Invocation(context.context_id, request, encoded, forget_and_tell)
        with self._lock:
            is_there = protocol in self._protocols
            if is_there:
                self._invocations.setdefault(protocol, set()).add(invocation)
        if is_there:
            protocol.invoke(invocation)
        else:
            invocation.finish(None)

    def _give_up_invocations(self, protocol: AssociationProtocol) -> None:
        """Tell those who still wait for a response of a peer that is gone."""
        with self._lock:
            left = self._invocations.pop(protocol, set())
        for invocation in left:
            invocation.finish(None)

    # For the associations.

    def admit(self, protocol: AssociationProtocol, peer: Any) -> AssociationFacts | None:  # noqa: ANN401 - the shape is the address family's
        """Count a new connection on the event loop; None when there are too many to even answer."""
        facts = self.admit_connection(protocol, peer)
        if facts is not None:
            self._start_timers()
        return facts

    def admit_connection(self, protocol: AssociationProtocol, peer: Any) -> AssociationFacts | None:  # noqa: ANN401 - the shape is the address family's
        """Count a new connection, from whatever thread; None when there are too many to even answer."""
        address = plain_address(peer[0] if peer else "")
        with self._lock:
            if not self._has_room(address):
                return None
            self._protocols.add(protocol)
            self._per_peer[address] += 1
        return AssociationFacts(
            association_id=f"{self._process}-{next(self._counter)}",
            peer_address=address,
            opened_at_nanoseconds=time.time_ns(),
            proxy_address=peer.proxy_address if isinstance(peer, ProxiedPeer) else "",
        )

    def _has_room(self, address: str) -> bool:
        """Tell whether one more connection may be, and note that it may not."""
        options = self.options
        if self._closing:
            return False
        if (
            self.connections < options.associations_max + CONNECTIONS_WITHOUT_ASSOCIATION_MAX
            and self._per_peer[address]
            < options.associations_per_peer_max + CONNECTIONS_WITHOUT_ASSOCIATION_PER_PEER_MAX
        ):
            return True
        self._refused += 1
        self._report_refused(address)
        return False

    def _has_room_for_proxied(self, address: str) -> bool:
        with self._lock:
            return self._has_room(address)

    def _admit_handshake(self, peer: Any) -> str | None:  # noqa: ANN401 - as in admit
        address = plain_address(peer[0] if peer else "")
        with self._lock:
            if not self._has_room(address):
                return None
            self._per_peer[address] += 1
        return address

    def _leave(self, address: str) -> None:
        """Count one connection less from an address."""
        with self._lock:
            self._per_peer[address] -= 1
            if not self._per_peer[address]:
                del self._per_peer[address]
            is_last = not self.connections
        if is_last:
            self.call_soon_threadsafe(self._all_gone.set)

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Decide on an association: the limits first, then the handlers."""
        options = self.options
        words = ""
        with self._lock:
            if self._closing:
                words = "the server stops"
            elif self._accepted() >= options.associations_max:
                words = f"more than {options.associations_max} associations"
            elif self._accepted(facts.peer_address) >= options.associations_per_peer_max:
                words = f"more than {options.associations_per_peer_max} associations of this peer"
            if words:
                return Rejected(rejection=REJECTED_LOCAL_LIMIT_EXCEEDED, words=words)
            decision = self.handlers.negotiate(request, facts)
            facts.is_accepted = isinstance(decision, Accepted)
        return decision

    def forget(self, protocol: AssociationProtocol) -> None:
        """Take note that a connection is gone."""
        facts = protocol.facts
        with self._lock:
            if facts is None or protocol not in self._protocols:
                return
        self.buffered.discard(protocol)
        facts.closed_at_nanoseconds = time.time_ns()
        try:
            self.handlers.association_closed(facts)
        finally:
            # Only now: a drain waits for those that are counted, and what they write is taken no more after it.
            with self._lock:
                self._protocols.discard(protocol)
            self._give_up_invocations(protocol)
            self._leave(facts.peer_address)

    def _accepted(self, address: str | None = None) -> int:
        """Return how many associations are accepted and not over, of one address or in all. The lock is held."""
        return sum(
            facts.is_accepted and not facts.end and address in {None, facts.peer_address}
            for protocol in self._protocols
            if (facts := protocol.facts) is not None
        )

    def _report_refused(self, address: str = "") -> None:
        now = self.loop.time()
        if self._refused and now - self._refused_reported_at >= REFUSED_CONNECTIONS_REPORT_SECONDS:
            log.warning(
                "association",
                what="connections closed at once",
                count=self._refused,
                why="too many connections",
                **({"address": address} if address else {}),
            )
            self._refused = 0
            self._refused_reported_at = now

    # Timers, which run only while there is something to look at.

    def _start_timers(self) -> None:
        if not self._ticking:
            self._ticking = True
            self.loop.call_later(TICK_SECONDS, self._tick)
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _tick(self) -> None:
        now = self.loop.time()
        on_loop = self._on_loop()
        for protocol in on_loop:
            protocol.tick(now)
        with self._lock:
            self._report_refused()
        self._ticking = bool(on_loop)
        if self._ticking:
            self.loop.call_later(TICK_SECONDS, self._tick)

    def _sweep(self) -> None:
        for protocol in list(self.buffered):
            protocol.sweep()
        self._sweeping = bool(self._on_loop())
        if self._sweeping:
            self.loop.call_later(SWEEP_SECONDS, self._sweep)


def _listen(host: str, port: int, options: ServerOptions) -> socket.socket:
    """Bind a listening socket; its errors say where it should have been, and what to do."""
    try:
        return _bind(host, port, options)
    except OSError as error:
        text = f"cannot listen on {host or 'every address'}, port {port}: {error.strerror or error}."
        advice = _ADVICE.get(error.errno or 0, _ADVICE_OTHERWISE)
        raise type(error)(error.errno, f"{text} {advice}") from error


_ADVICE = {
    errno.EADDRINUSE: "Another program has it, perhaps a server of this archive: stop that one, or choose another"
    " port with --port (0 takes any free one).",
    errno.EACCES: "Ports below 1024 need a privilege: choose a higher one with --port, such as 11112.",
    errno.EADDRNOTAVAIL: "This machine has no such address: choose one of its own with --host, such as 127.0.0.1,"
    " or 0.0.0.0 for all.",
}
_ADVICE_OTHERWISE = "Check --host and --port."


def _bind(host: str, port: int, options: ServerOptions) -> socket.socket:
    """Bind a listening socket whose connections inherit no delay and keep-alive (they do on Linux)."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _set_up(listener, options)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _set_up(listener: socket.socket, options: ServerOptions) -> None:
    """Set what the connections of a listening socket inherit."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive = options.tcp_keep_alive_seconds > 0
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keep_alive)
    for name, value in (
        ("TCP_KEEPIDLE", options.tcp_keep_alive_seconds),
        ("TCP_KEEPINTVL", options.tcp_keep_alive_interval_seconds),
        ("TCP_KEEPCNT", options.tcp_keep_alive_probes),
    ):
        option = getattr(socket, name, None)
        if keep_alive and option is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
    listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
