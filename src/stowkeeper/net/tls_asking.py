"""The handshake of an association that we ask for: it ends well, or in an error that names its cause."""

import asyncio
from typing import Final

import structlog

from stowkeeper.net.association_errors import TLSRefusedError
from stowkeeper.net.tls_channel import TLSChannel
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.net.tls_errors import TLSFailure
from stowkeeper.net.tls_transport import TLSLayer

log = structlog.get_logger("stowkeeper.net")


class ClientHandshake:
    """One handshake with a peer, which is named AET@HOST:PORT in errors.

    The peer is asked for `server_name` by SNI, and its certificate must hold for that where names are checked; an address
    serves for the latter alone.
    """

    def __init__(self, peer: str, tls: TLSContext, server_name: str, seconds: float) -> None:
        self._peer: Final = peer
        self._seconds: Final = seconds
        self._layer: TLSLayer | None = None
        loop = asyncio.get_running_loop()
        self._end: Final[asyncio.Future[TLSFailure | None]] = loop.create_future()
        self._gone: Final[asyncio.Future[None]] = loop.create_future()
        try:
            self._channel = TLSChannel(tls, server_name)
        except TLSFailure as failure:
            raise TLSRefusedError(f"{peer}: {failure.words}.") from None

    def layer_below(self, above: asyncio.Protocol) -> TLSLayer:
        """Return what the event loop is to talk to in place of `above`."""
        self._layer = TLSLayer(self._channel, above, self, self._seconds)
        return self._layer

    async def end(self) -> str:
        """Wait until the handshake is complete; return version and cipher suite.

        Raises TLSRefusedError; the connection is closed then.
        """
        try:
            failure = await self._end
            if failure is not None:
                await self._gone
        except asyncio.CancelledError:
            if self._layer is not None:
                self._layer.abort()
            raise
        if failure is not None:
            raise TLSRefusedError(f"{self._peer}: there is no TLS with it: {failure.words}.")
        for words in self._channel.warnings:
            log.warning("association", what="weak certificate", peer=self._peer, why=words)
        return self._channel.agreed

    # Called by the layer.

    def handshake_begins(self, layer: TLSLayer) -> bool:
        """Let it begin."""
        return layer is self._layer

    def handshake_ended(self, layer: TLSLayer, failure: TLSFailure | None) -> None:
        """Pass its end on."""
        if layer is self._layer and not self._end.done():
            self._end.set_result(failure)

    def refused_is_gone(self, layer: TLSLayer) -> None:
        """Pass on that the connection is closed."""
        if layer is self._layer and not self._gone.done():
            self._gone.set_result(None)
