"""The HTTP server: uvicorn's protocol on listening sockets of its own, on whatever event loop runs it.

It sets no signal handlers and starts no loop, so it runs beside others and on any thread. Every connection goes through a
door first, where it is counted and, where TLS is spoken, shakes hands; so what never becomes a request is bounded too.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import anyio.to_thread
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from stowkeeper.web.connection import BoundedProtocol
from stowkeeper.web.forwarding import Networks
from stowkeeper.web.limits import (
    CONNECTIONS_MAX,
    CONNECTIONS_PER_CLIENT_MAX,
    KEEP_ALIVE_SECONDS,
    STOP_SECONDS,
    THREADS_MAX,
)
from stowkeeper.web.listening import Door, bind

log = structlog.get_logger("stowkeeper.web")

_STOP_LOOK_SECONDS = 0.02
"""How often a server that stops looks whether its connections are gone."""


class ServerTLSError(Exception):
    """Certificate and key cannot be used; the text says which file and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTLS:
    """Files in PEM: the certificate, with the chain above it, and its key."""

    certificate: str
    key: str

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises ServerTLSError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except ssl.SSLError as error:
            raise ServerTLSError(
                f"{self.certificate} and {self.key} cannot be used for HTTP ({error.reason or error}): they have to be PEM,"
                " belong together, and the key has no password"
            ) from error
        except OSError as error:
            raise ServerTLSError(
                f"{self.certificate} and {self.key} cannot be read for HTTP: {error.strerror}"
            ) from error
        context.set_alpn_protocols(["http/1.1"])
        return context


def _no_password() -> str:
    # Else OpenSSL would ask for it on the terminal, and the server would stand still.
    return ""


class WebServer:
    """Serves an application. `start` returns when it listens, `stop` when everything is closed; each once.

    Both are called on the loop that serves.
    """

    def __init__(
        self,
        application: ASGIApp,
        host: str,
        port: int,
        *,
        tls: ServerTLS | None = None,
        connections_max: int = CONNECTIONS_MAX,
        connections_per_client_max: int = CONNECTIONS_PER_CLIENT_MAX,
        trusted_proxies: Networks = (),
        stop_seconds: float = STOP_SECONDS,
        listeners: Sequence[socket.socket] = (),
    ) -> None:
        self._application = application
        self._host = host
        self._port = port
        self._tls = tls
        self._connections_max = connections_max
        self._connections_per_client_max = connections_per_client_max
        self._trusted_proxies = trusted_proxies
        self._stop_seconds = stop_seconds
        self._listeners = listeners
        self._state = ServerState()
        self._door: Door | None = None

    @property
    def connections(self) -> int:
        """The number of connections that are open, those that still shake hands included."""
        return 0 if self._door is None else len(self._door)

    async def start(self) -> tuple[str, int]:
        """Listen; return the address and the port. Port 0 takes a free one. Sockets that were given are used as they are.

        Raises OSError where the address cannot be had, ServerTLSError for bad files.
        """
        loop = asyncio.get_running_loop()
        context = self._tls.context() if self._tls is not None else None
        config = uvicorn.Config(
            self._application,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            log_level="critical",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        config.load()
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS_MAX

        def new_connection() -> BoundedProtocol:
            return BoundedProtocol(config=config, server_state=self._state, app_state={}, _loop=loop)

        listeners = self._listeners or await bind(self._host, self._port)
        self._door = Door(
            new_connection,
            open_connections=cast("set[BoundedProtocol]", self._state.connections),
            connections_max=self._connections_max,
            connections_per_client_max=self._connections_per_client_max,
            trusted_proxies=self._trusted_proxies,
            tls=context,
        )
        for listener in listeners:
            self._door.accept_from(listener)
        host, port = listeners[0].getsockname()[:2]
        return host, port

    def renew_tls(self, tls: ServerTLS | None) -> None:
        """Read certificate and key; connections that begin from now on use them. None: they speak no TLS. Waits for the disk.

        Raises ServerTLSError: then the old ones stay in force.
        """
        if self._door is not None:
            self._door.tls = None if tls is None else tls.context()

    async def stop(self) -> None:
        """Accept nothing more, let requests end, and after the time for it cut them off."""
        if self._door is None:
            return
        await self._door.shut()
        for connection in list(self._state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self._stop_seconds):
                while self._state.connections or self._state.tasks:  # noqa: ASYNC110 - uvicorn tells nobody of the end
                    await asyncio.sleep(_STOP_LOOK_SECONDS)
        except TimeoutError:
            tasks = list(self._state.tasks)
            log.warning("stop", what="requests that were still worked on are cut off", count=len(tasks))
            for task in tasks:
                task.cancel()
            self._door.abort()
            await asyncio.gather(*tasks, return_exceptions=True)
