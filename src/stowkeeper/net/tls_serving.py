"""The handshakes of a server: how many at a time, and what the log says of those that fail."""

from collections.abc import Callable
from typing import Any, Final

import structlog

from stowkeeper.net.proxy_header import ProxiedPeer
from stowkeeper.net.quiet_ends import QuietEnds
from stowkeeper.net.tls_errors import TLSFailure
from stowkeeper.net.tls_transport import TLSLayer

log = structlog.get_logger("stowkeeper.net")


class Handshakes:
    """The connections of a server that are in their handshake, or were refused in it and are not closed yet.

    `admit` counts a connection and returns the address of its peer, as given by the transport, or None when there is no
    room. `leave` is called with it when the connection is not one of these any more: it failed and is gone, or an
    association is about to begin on it.
    """

    def __init__(self, admit: Callable[[Any], str | None], leave: Callable[[str], None]) -> None:
        self._admit: Final = admit
        self._leave: Final = leave
        self._layers: dict[TLSLayer, str] = {}
        self._probes: Final = QuietEnds()
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._layers)

    def handshake_begins(self, layer: TLSLayer) -> bool:
        """Count a connection."""
        address = self._admit(layer.peer)
        if address is None:
            return False
        self._layers[layer] = address
        return True

    def handshake_ended(self, layer: TLSLayer, failure: TLSFailure | None) -> None:
        """Write to the log why a handshake failed, or what is weak about a peer's certificate."""
        address = self._layers[layer]
        where = {"address": address}
        if isinstance(layer.peer, ProxiedPeer):
            where["proxy"] = layer.peer.proxy_address
        if failure is None:
            self._forget(layer)
            for words in layer.channel.warnings:
                log.warning("association", what="weak certificate", **where, why=words)
        elif self._is_closing:
            log.info("association", what="lost", **where, why="the server stops")
        elif failure.is_silent:
            count = self._probes.count(address)
            if count:
                log.info("association", what="lost", **where, why=failure.words, count=count)
        else:
            log.warning("association", what="TLS refused", **where, why=failure.words)

    def refused_is_gone(self, layer: TLSLayer) -> None:
        """Count it no more."""
        self._forget(layer)

    def close(self) -> None:
        """End all of them at once: the server stops."""
        self._is_closing = True
        for layer in list(self._layers):
            layer.abort()

    def _forget(self, layer: TLSLayer) -> None:
        address = self._layers.pop(layer, None)
        if address is not None:
            self._leave(address)
