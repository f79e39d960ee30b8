"""Listening sockets, and the loop that accepts: who comes is counted before anything else is done for them."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, cast
from weakref import WeakKeyDictionary

import structlog

from stowkeeper.web.connection import BoundedProtocol, plain_answer
from stowkeeper.web.forwarding import Networks, is_trusted
from stowkeeper.web.limits import (
    ACCEPT_PAUSE_SECONDS,
    BACKLOG,
    HANDSHAKE_SECONDS,
    SWEEP_SECONDS,
    TURNED_AWAY_SECONDS,
)
from stowkeeper.web.throttling import client_of

log = structlog.get_logger("stowkeeper.web")

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


async def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets on every address of a host; '' is every interface. Port 0 takes one that is free.

    Raises OSError where none can be had.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    refused = OSError(errno.EADDRNOTAVAIL, f"{host} is no address of this machine")
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                sockets.append(_listening(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                refused = error
                continue
            port = sockets[-1].getsockname()[1]
    except BaseException:
        for listener in sockets:
            listener.close()
        raise
    if not sockets:
        raise refused
    return sockets


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.settimeout(0)
    except BaseException:
        listener.close()
        raise
    return listener


class Door:
    """Lets connections in, up to a bound, and of one client address up to a smaller one. For the thread of one event loop.

    `open_connections` is the set of those that were let in; they take themselves out of it. `tls` may be changed at any time,
    for connections that come later. `trusted_proxies` speak for many clients, so that their addresses have the whole bound.
    """

    def __init__(
        self,
        new_protocol: Callable[[], BoundedProtocol],
        *,
        open_connections: set[BoundedProtocol],
        connections_max: int,
        connections_per_client_max: int,
        trusted_proxies: Networks,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._new_protocol = new_protocol
        self._open = open_connections
        self._connections_max = connections_max
        self._connections_per_client_max = connections_per_client_max
        self._trusted_proxies = trusted_proxies
        self._clients: WeakKeyDictionary[BoundedProtocol, str] = WeakKeyDictionary()
        self.tls = tls
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[socket.socket, asyncio.TimerHandle | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._entering: set[BoundedProtocol] = set()
        self._turned_away: set[_TurnedAway] = set()
        self._closing: set[BoundedProtocol] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many connections are let in or shake hands."""
        return len(self._open) + len(self._entering - self._open)

    def accept_from(self, listener: socket.socket) -> None:
        """Accept from a listening socket, which is closed at the end."""
        self._listeners[listener] = None
        self._loop.add_reader(listener, self._accept, listener)
        if self._sweeping is None:
            self._sweep()

    async def shut(self) -> None:
        """Accept no more, and close what has not become a connection yet."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        listeners, self._listeners = self._listeners, {}
        for listener, pause in listeners.items():
            if pause is not None:
                pause.cancel()
            self._loop.remove_reader(listener)
            listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiting in list(self._turned_away):
            waiting.abort()

    def abort(self) -> None:
        """Cut off every connection."""
        for connection in list(self._open):
            connection.transport.abort()

    def _accept(self, listener: socket.socket) -> None:
        """Accept who waits at a listening socket."""
        for _ in range(BACKLOG):
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of open files, mostly
                log.error("error", what="HTTP cannot accept a connection", reason=error.strerror)
                self._loop.remove_reader(listener)
                self._listeners[listener] = self._loop.call_later(
                    ACCEPT_PAUSE_SECONDS, self.accept_from, listener
                )
                return
            accepted.settimeout(0)
            self._admit(accepted, address[0])

    def _admit(self, accepted: socket.socket, address: str) -> None:
        client = client_of(address)
        if len(self) < self._connections_max and self._has_room_for(client, address):
            protocol = self._new_protocol()
            self._clients[protocol] = client
            self._entering.add(protocol)
            self._begin(self._enter(accepted, protocol), accepted).add_done_callback(
                lambda _: self._entering.discard(protocol)
            )
        elif self.tls is None and len(self._turned_away) < self._connections_max:
            self._begin(self._turn_away(accepted), accepted)
        else:
            accepted.close()

    def _has_room_for(self, client: str, address: str) -> bool:
        """Tell whether a client may have another connection."""
        held = sum(self._clients.get(connection) == client for connection in self._open | self._entering)
        return held < self._connections_per_client_max or is_trusted(address, self._trusted_proxies)

    def _begin(self, entering: Coroutine[Any, Any, None], accepted: socket.socket) -> "asyncio.Task[None]":
        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            # Who scans a port speaks no TLS, or is gone. A task that is cancelled may not even have begun.
            if task.cancelled() or task.exception() is not None:
                accepted.close()

        task = self._loop.create_task(entering)
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task

    async def _enter(self, accepted: socket.socket, protocol: BoundedProtocol) -> None:
        handshake = None if self.tls is None else HANDSHAKE_SECONDS
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self._loop.connect_accepted_socket(
            lambda: protocol, accepted, ssl=self.tls, ssl_handshake_timeout=handshake
        )

    async def _turn_away(self, accepted: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: _TurnedAway(self._turned_away), accepted)

    def _sweep(self) -> None:
        """Cut off what was closing already the last time: the client takes nothing of what is left to send."""
        closing = {connection for connection in self._open if connection.transport.is_closing()}
        for connection in closing & self._closing:
            connection.transport.abort()
        self._closing = closing
        self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)


class _TurnedAway(asyncio.Protocol):
    """A connection too many: told so once its request is there, since an answer before would be lost."""

    def __init__(self, waiting: "set[_TurnedAway]") -> None:
        self._waiting = waiting
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._waiting.add(self)
        self._timer = asyncio.get_running_loop().call_later(TURNED_AWAY_SECONDS, self.abort)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - whatever it is
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(plain_answer(503))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it ended
        self._waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """Cut the connection off."""
        if self._transport is not None:
            self._transport.abort()
