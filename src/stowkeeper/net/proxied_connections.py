"""Connections from trusted proxies while their PROXY header is awaited. What comes after it is served as any other."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import structlog

from stowkeeper.net.addresses import plain_address
from stowkeeper.net.association_host import PeerAddress
from stowkeeper.net.proxy_header import (
    ProxiedPeer,
    ProxyHeader,
    ProxyHeaderError,
    ProxyHeaderReader,
)
from stowkeeper.net.quiet_ends import QuietEnds

log = structlog.get_logger("stowkeeper.net")


class ProxiedConnections:
    """Reads headers on the event loop, each within `seconds`, 0 for no limit; then `serve` is called with the connection.

    It gets who is behind the proxy too, or the proxy itself where that looks whether anybody is here. A
    connection without a header is closed: a proxy that is trusted and says nothing would hide who comes through it.
    """

    def __init__(self, seconds: float, serve: Callable[[socket.socket, PeerAddress], None]) -> None:
        self._seconds: Final = seconds
        self._serve: Final = serve
        self._tasks: Final[dict[socket.socket, asyncio.Task[None]]] = {}
        self._probes: Final = QuietEnds()
        self._refusals: Final = QuietEnds()

    def __len__(self) -> int:
        return len(self._tasks)

    def take(self, connection: socket.socket, proxy: PeerAddress) -> None:
        """Begin to read the header of a new connection."""
        connection.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        reading = self._read(connection, proxy)
        self._tasks[connection] = asyncio.get_running_loop().create_task(reading)

    async def close(self) -> None:
        """End all of them at once: the server stops."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._tasks):  # of those that had not begun
            del self._tasks[connection]
            connection.close()

    async def _read(self, connection: socket.socket, proxy: PeerAddress) -> None:
        header: ProxyHeader | None = None
        proxy_address = plain_address(proxy[0])
        try:
            header = await self._header(connection, proxy_address)
        finally:
            del self._tasks[connection]
            if header is None:
                connection.close()
        if header is not None:
            behind = ProxiedPeer(header.source_address, header.source_port, proxy_address)
            self._serve(connection, behind if header.source_address else proxy)

    async def _header(self, connection: socket.socket, proxy_address: str) -> ProxyHeader | None:
        """Return the header; None where there is none, which the log knows then."""
        reader = ProxyHeaderReader()
        words = "the connection ended within its PROXY header"
        try:
            async with asyncio.timeout(self._seconds or None):
                while data := await _receive(connection, reader.wanted):
                    reader.receive(data)
                    if reader.header is not None:
                        return reader.header
        except ProxyHeaderError as error:
            words = str(error)
        except TimeoutError:
            words = f"its PROXY header did not come within {self._seconds:g} seconds"
        else:
            if not reader.has_begun:
                self._report_probe(proxy_address)
                return None
        count = self._refusals.count(proxy_address)
        if count:
            what = "PROXY header refused"
            log.warning("association", what=what, address=proxy_address, why=words, count=count)
        return None

    def _report_probe(self, address: str) -> None:
        count = self._probes.count(address)
        if count:
            words = "it closed the connection without a word"
            log.info("association", what="lost", address=address, why=words, count=count)


async def _receive(connection: socket.socket, count: int) -> bytes:
    """Return what has come; nothing at the end, also where that is a reset, as balancers end their looks."""
    try:
        return await asyncio.get_running_loop().sock_recv(connection, count)
    except OSError:
        return b""
