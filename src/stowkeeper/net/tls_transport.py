"""TLS between a TCP connection of the event loop and the protocol of an association, on asyncio and uvloop alike.

`TLSLayer` is what the event loop talks to. When the handshake is complete it gives the protocol above it a transport of its
own, `TLSTransport`; until then that protocol hears nothing, and of a handshake that fails it never hears.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol

from stowkeeper.net.association_host import PeerAddress
from stowkeeper.net.connecting import acknowledge_quickly
from stowkeeper.net.limits import TLS_PLAINTEXT_BYTES, TLS_REFUSAL_SECONDS
from stowkeeper.net.tls_channel import TLSChannel
from stowkeeper.net.tls_errors import TLSFailure


class HandshakeObserver(Protocol):
    """Who lets connections begin, and hears of the ends of handshakes; called on the event loop."""

    def handshake_begins(self, layer: "TLSLayer") -> bool:
        """Say whether the connection may begin its handshake at all."""
        ...

    def handshake_ended(self, layer: "TLSLayer", failure: TLSFailure | None) -> None:
        """Know of the end of a handshake, once for each that began. The protocol above is told next, if it was well."""
        ...

    def refused_is_gone(self, layer: "TLSLayer") -> None:
        """Know that a connection whose handshake failed is closed; until then it waits for its peer to read why."""
        ...


class TLSLayer(asyncio.Protocol):
    """One TCP connection that carries TLS.

    `handshake_seconds` of 0 are no limit. Without `peer` the transport is asked whose it is.
    """

    def __init__(
        self,
        channel: TLSChannel,
        above: asyncio.BaseProtocol,
        observer: HandshakeObserver,
        handshake_seconds: float,
        peer: PeerAddress | None = None,
    ) -> None:
        self.channel: Final = channel
        self._peer: Final = peer
        self.transport: Any = None  # asyncio.Transport; uvloop's is another class
        self._above: Any = above
        self._observer: Final = observer
        self._seconds: Final = handshake_seconds
        self._loop: Final = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._upper: TLSTransport | None = None
        self._began = False
        self._is_refused = False
        self._is_handshaking = False
        self._failure: TLSFailure | None = None

    @property
    def peer(self) -> Any:  # noqa: ANN401 - the shape is the address family's
        """The address of the peer, None when it is gone already."""
        return self._peer or self.transport.get_extra_info("peername")

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, if the connection may."""
        self.transport = transport
        if not self._observer.handshake_begins(self):
            self._is_refused = True
            self.transport.abort()
            return
        self._began = self._is_handshaking = True
        if self._seconds:
            self._timer = self._loop.call_later(self._seconds, self._handshake_is_overdue)
        self._shake_hands(b"")

    def data_received(self, data: bytes) -> None:
        """Decrypt what came, as far as the protocol above takes it."""
        if self._is_refused:
            return
        if self._is_handshaking:
            self._shake_hands(data)
        else:
            self.channel.receive(data)
        # A sender with Nagle on waits for this in the middle of a record, where the protocol above sees nothing.
        acknowledge_quickly(self.transport.get_extra_info("socket"))
        self.deliver()

    def eof_received(self) -> bool:
        """Close when the peer does: half-open connections have no use here."""
        if self._upper is not None:
            self._above.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol above, or the observer while there is none."""
        if self._is_handshaking:
            self._end_handshake(self.channel.failure_by_loss(exc))
        self._stop_timer()
        if self._upper is not None:
            self._above.connection_lost(self._failure or self.channel.failure_after_handshake(exc))
        elif self._began:
            self._observer.refused_is_gone(self)

    def pause_writing(self) -> None:
        """Pass on that the network takes no more for now."""
        if self._upper is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it does again."""
        if self._upper is not None:
            self._above.resume_writing()

    # Called by the transport above, and by the observer.

    def deliver(self) -> None:
        """Hand decrypted bytes up until there are none, or they are not wanted."""
        upper = self._upper
        if upper is None or upper.is_delivering:
            return
        upper.is_delivering = True
        try:
            while upper.is_reading() and not upper.is_closing() and self._hand_up():
                pass
        except TLSFailure as failure:
            self._fail(failure)
        else:
            self.send_pending()  # reading can make OpenSSL answer, as to a change of keys
            if self.channel.is_closed_by_peer and not upper.is_closing():
                self._above.eof_received()
                upper.close()
        finally:
            upper.is_delivering = False

    def send_pending(self) -> None:
        """Give the network what is encrypted."""
        data = self.channel.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """Close the connection at once; a handshake in progress has failed by that."""
        self.transport.abort()

    # The handshake.

    def _shake_hands(self, data: bytes) -> None:
        try:
            if data:
                self.channel.receive(data)
            else:
                self.channel.begin()
        except TLSFailure as failure:
            self._end_handshake(failure)
            return
        self.send_pending()
        if self.channel.is_established:
            self._upper = TLSTransport(self, self.transport)
            self._end_handshake(None)
            self._above.connection_made(self._upper)

    def _end_handshake(self, failure: TLSFailure | None) -> None:
        self._is_handshaking = False
        self._stop_timer()
        if failure is not None:
            self._refuse()
        self._observer.handshake_ended(self, failure)

    def _refuse(self) -> None:
        """Send the alert, then wait a moment for the peer to read it and to close."""
        self._is_refused = True
        self.send_pending()
        if self.transport.is_closing():
            return
        try:
            self.transport.write_eof()
        except OSError:  # the peer was faster
            self.transport.abort()
        else:
            self._timer = self._loop.call_later(TLS_REFUSAL_SECONDS, self.transport.abort)

    def _handshake_is_overdue(self) -> None:
        failure = TLSFailure(f"it did not finish the TLS handshake within {self._seconds:g} seconds")
        self._end_handshake(failure)
        self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Afterwards.

    def _hand_up(self) -> bool:
        """Hand one portion up; False when there is none."""
        if isinstance(self._above, asyncio.BufferedProtocol):
            view = memoryview(self._above.get_buffer(-1))
            count = self.channel.read_into(view)
            if count:
                self._above.buffer_updated(count)
            return count == len(view) or self.channel.is_broken
        plain = bytearray(TLS_PLAINTEXT_BYTES)
        count = self.channel.read_into(memoryview(plain))
        if count:
            self._above.data_received(bytes(memoryview(plain)[:count]))
        return count > 0

    def _fail(self, failure: TLSFailure) -> None:
        """End a connection whose records do not fit, or whose peer sent an alert."""
        self._failure = failure
        self.send_pending()
        self.transport.close()


class TLSTransport(asyncio.Transport):
    """What the protocol above TLS writes to: the calls of an asyncio transport that this room uses."""

    def __init__(self, layer: TLSLayer, below: Any) -> None:  # noqa: ANN401 - as in TLSLayer
        super().__init__()
        self.is_delivering = False
        """Whether bytes are being handed up just now."""
        self._layer: Final = layer
        self._below: Final = below
        self._is_paused = False
        self._is_closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - the standard library's own
        """Return what is known of the connection; `tls_channel` is the TLS on it."""
        if name == "tls_channel":
            return self._layer.channel
        return self._below.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Tell whether the connection is being closed."""
        return self._is_closing or bool(self._below.is_closing())

    def close(self) -> None:
        """Send what is left and the word that nothing follows, and close."""
        if not self._is_closing:
            self._is_closing = True
            self._layer.channel.close()
            self._layer.send_pending()
            self._below.close()

    def abort(self) -> None:
        """Close at once, whatever is unsent."""
        self._is_closing = True
        self._below.abort()

    def is_reading(self) -> bool:
        """Tell whether bytes are wanted."""
        return not self._is_paused

    def pause_reading(self) -> None:
        """Want no more bytes for now."""
        if not self._is_paused:
            self._is_paused = True
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Want bytes again; those that were decrypted meanwhile come first."""
        if self._is_paused:
            self._is_paused = False
            self._below.resume_reading()
            self._deliver_soon()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt bytes and send them."""
        if self.is_closing():
            return
        try:
            self._layer.channel.write(data)
        except TLSFailure:
            # The peer broke TLS; what it did is told when that is read, and nothing can be sent any more.
            self._below.abort()
            return
        self._layer.send_pending()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Encrypt pieces and send them, in records as large as they come to together."""
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set at how many encrypted bytes that wait the protocol above is told to pause."""
        self._below.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        """Return how many encrypted bytes wait."""
        return int(self._below.get_write_buffer_size())

    def _deliver_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._layer.deliver)
