"""One TCP connection, plain or TLS, that is read and written by blocking calls on one thread.

To the association above it looks like a transport of the event loop. A read gives up after `TICK_SECONDS`, so that timers
can be looked at; a write after the time that a peer may leave its answers unread.
"""

import contextlib
import select
import socket
import struct
from typing import Any, Final

from stowkeeper.net.connecting import acknowledge_quickly
from stowkeeper.net.limits import (
    OWN_REQUEST_WRITABLE_SECONDS,
    SERIAL_SEND_SECONDS_MAX,
    TLS_PLAINTEXT_BYTES,
)
from stowkeeper.net.tls_channel import TLSChannel
from stowkeeper.net.tls_errors import TLSFailure


class SerialLink:
    """A connection. `peer` is its address as the system gives it, None when the peer is gone already.

    What cannot be sent breaks the link: it is closing then, and `failure` says why.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        tick_seconds: float,
        send_seconds: float,
        channel: TLSChannel | None = None,
    ) -> None:
        self._socket: Final = connection
        self._send_seconds: Final = send_seconds
        self._channel: Final = channel
        self._received: Final = bytearray(TLS_PLAINTEXT_BYTES) if channel is not None else bytearray()
        self._is_closing = False
        self.reads = True
        self.failure: Exception | None = None
        try:
            self.peer: Any = connection.getpeername()
        except OSError:
            self.peer = None
        connection.setblocking(True)  # noqa: FBT003 - the standard library's own signature
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _time_value(tick_seconds))
        if send_seconds < SERIAL_SEND_SECONDS_MAX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _time_value(send_seconds))
        if connection.family in {socket.AF_INET, socket.AF_INET6}:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """Return the descriptor, for those who wait for several connections."""
        return self._socket.fileno()

    # Reading and writing.

    def read_into(self, view: memoryview) -> int | None:
        """Put received bytes at the start of `view` and return how many; 0 at the end, None when nothing came in time.

        Raises OSError when the connection broke, TLSFailure when its TLS did.
        """
        if self._channel is None:
            try:
                return self._socket.recv_into(view)
            except BlockingIOError:
                return None
        count = self._read_decrypted(self._channel, view)
        if count is None:
            received = self._read_encrypted(self._channel)
            count = self._read_decrypted(self._channel, view) if received else received
        return count

    def _read_decrypted(self, channel: TLSChannel, view: memoryview) -> int | None:
        """Take what the TLS channel has; return how much as `read_into` does."""
        count = channel.read_into(view)
        return count if count or channel.is_closed_by_peer else None

    def _read_encrypted(self, channel: TLSChannel) -> int | None:
        """Take what the network has for the TLS channel; return how much as `read_into` does."""
        try:
            count = self._socket.recv_into(self._received)
        except BlockingIOError:
            return None
        if count:
            try:
                channel.receive(bytes(memoryview(self._received)[:count]))
            finally:  # what TLS has to say of it: an answer, or the alert that tells why it ends here
                self._send(channel.data_to_send())
            acknowledge_quickly(self._socket)
        return count

    def shake_hands(self) -> int | None:
        """Go on with the TLS handshake; return as `read_into` does. Raises OSError, TLSFailure."""
        return None if self._channel is None else self._read_encrypted(self._channel)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        if self._is_closing:
            return
        if self._channel is None:
            self._send(data)
            return
        try:
            self._channel.write(data)
        except TLSFailure as failure:
            self._break(failure)
            return
        self._send(self._channel.data_to_send())

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self.failure is not None:
            return
        try:
            self._socket.sendall(data)
        except BlockingIOError:
            self._break(TimeoutError(f"the peer read no answer for {self._send_seconds:g} seconds"))
        except OSError as error:
            self._break(error)

    def _break(self, failure: Exception) -> None:
        self.failure = failure
        self._is_closing = True

    # What the association calls, as on a transport of the event loop.

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - the standard library's own
        """Return what is known of the connection."""
        known = {"socket": self._socket, "peername": self.peer, "tls_channel": self._channel}
        return known.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: a write is over when the system has all of it."""

    def is_closing(self) -> bool:
        """Tell whether the connection is to be closed."""
        return self._is_closing

    def pause_reading(self) -> None:
        """Note that nothing more is to be read for now."""
        self.reads = False

    def resume_reading(self) -> None:
        """Note that more is to be read."""
        self.reads = True

    def is_writable(self) -> bool:
        """Tell whether some bytes can be written without waiting, now or in a moment."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(OWN_REQUEST_WRITABLE_SECONDS * 1000))

    def close(self) -> None:
        """Say that nothing follows; `dispose` then closes the connection."""
        if not self._is_closing and self._channel is not None:
            self._channel.close()
            self._send(self._channel.data_to_send())
        self._is_closing = True

    def abort(self) -> None:
        """Say nothing more; `dispose` then closes the connection."""
        self._is_closing = True

    def say_nothing_follows(self) -> None:
        """Close our direction of the connection, and leave the peer's open."""
        with contextlib.suppress(OSError):  # it is gone already
            self._socket.shutdown(socket.SHUT_WR)

    def shut_down(self) -> None:
        """End both directions of the connection, from another thread: whoever reads or writes finds it ended."""
        with contextlib.suppress(OSError):  # it is gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def dispose(self) -> None:
        """Close the connection."""
        self._is_closing = True
        self._socket.close()


def _time_value(seconds: float) -> bytes:
    """Return a time as the system's socket options take it. Of 0 it would make no limit at all."""
    microseconds = max(int(seconds * 1_000_000), 1)
    return struct.pack("@ll", microseconds // 1_000_000, microseconds % 1_000_000)
