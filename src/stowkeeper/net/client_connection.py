"""The connection under an association of ours: socket, upper layer, time limits, and the one way it all ends.

`ClientConnection` moves bytes between asyncio and `UpperLayerConnection` and knows nothing of DIMSE. Its user, the
association, is told what came and what ended it. Whatever ends it is an `AssociationError`, noted once; from then on
`until` and `write` raise it.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from stowkeeper.dimse.errors import PeerError
from stowkeeper.dimse.fragmenter import Buffer
from stowkeeper.net.association_errors import (
    AssociationAbortedError,
    AssociationError,
    AssociationLostError,
    AssociationRejectedError,
    PeerTimeoutError,
)
from stowkeeper.net.connecting import unacknowledged_bytes
from stowkeeper.net.limits import CLIENT_CLOSE_SECONDS, CLIENT_WATCH_SECONDS, CLIENT_WRITE_BUFFER_BYTES
from stowkeeper.upperlayer.connection import UpperLayerConnection
from stowkeeper.upperlayer.events import (
    Aborted,
    AssociateAccepted,
    AssociateRejected,
    PDVFragment,
    ProtocolFault,
    ReleaseConfirmed,
    ReleaseRequested,
)
from stowkeeper.upperlayer.pdu import Abort, AssociateAC, AssociateRQ
from stowkeeper.upperlayer.reasons import AbortReason, AbortSource
from stowkeeper.upperlayer.states import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """How long we wait, in seconds.

    `progress_seconds` is for an established association: how long nothing may move in either direction while the
    peer owes an answer or is to take data. It does not count while we have nothing to ask for.
    """

    connect_seconds: float = 30.0
    association_seconds: float = 30.0
    progress_seconds: float = 120.0
    release_seconds: float = 10.0


class ConnectionUser(Protocol):
    """Who uses a `ClientConnection`; called on the event loop."""

    @property
    def awaits_answer(self) -> bool:
        """Whether the peer owes an answer."""
        ...

    def established(self, response: AssociateAC) -> None:
        """Know that the peer accepted the association."""
        ...

    def receive(self, fragment: PDVFragment) -> None:
        """Take a piece of a message; raise PeerError when the peer broke the rules of PS3.7."""
        ...

    def ended(self, error: AssociationError) -> None:
        """Know that the association is over."""
        ...


class ClientConnection(asyncio.Protocol):
    """One TCP connection with one association, which is asked for as soon as the connection is made."""

    def __init__(
        self, peer: str, request: AssociateRQ, timeouts: ClientTimeouts, user: ConnectionUser
    ) -> None:
        self.peer: Final = peer
        self.upper_layer: Final = UpperLayerConnection(
            Role.REQUESTOR,
            max_pdu_length_local=request.user_information.maximum_length or 0,
            artim_seconds=CLIENT_CLOSE_SECONDS,
        )
        self.error: AssociationError | None = None
        self._request: Final = request
        self._timeouts: Final = timeouts
        self._user: Final = user
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None  # asyncio.Transport; uvloop's is another class
        self._write_blocked = False
        self._waiters: list[asyncio.Future[None]] = []
        self._is_closed = False
        self._due: tuple[float, str] | None = None  # until when, and what did not happen in time
        self._moved_at = 0.0
        self._unsent = 0
        self._watch: asyncio.TimerHandle | None = None

    # For the user.

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that `notify` tells of; raise what ended the association."""
        while True:
            if self.error is not None:
                raise self.error
            if condition():
                return
            await self._change()

    def notify(self) -> None:
        """Have all who wait look at their conditions again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def write(self, pieces: Sequence[Buffer]) -> None:
        """Hand whole P-DATA-TF PDUs to the transport as they are, and wait while it has enough.

        The pieces must not change from then on.
        """
        if self.error is not None:
            raise self.error
        if not self.upper_layer.can_send_p_data:
            raise AssociationLostError(f"{self.peer}: the association is being ended.")
        if pieces:
            self._moved_at = self._loop.time()
            self._transport.writelines(pieces)
            if (
                not self._write_blocked
                and self._transport.get_write_buffer_size() > CLIENT_WRITE_BUFFER_BYTES
            ):
                # The asyncio of Python 3.12.0-3.12.8 and 3.13.0-3.13.1 forgets to pause us here (CVE-2024-12254);
                # given its limits anew, it looks.
                self._transport.set_write_buffer_limits(high=CLIENT_WRITE_BUFFER_BYTES)
        if self._write_blocked:
            await self.until(lambda: not self._write_blocked)

    def pause_reading(self) -> None:
        """Take nothing more from the peer."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take from the peer again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def release(self) -> None:
        """Ask the peer to end the association; no effect when that is under way, or it is over."""
        if self.error is None and self.upper_layer.can_release:
            now = self._loop.time()
            self.upper_layer.release(now)
            self._due = (now + self._timeouts.release_seconds, "it did not answer the release request")
            self._send_pending()

    def abort(self, error: AssociationError) -> None:
        """End the association by A-ABORT, with this as the reason for whoever waits."""
        self._end(error)
        if self._transport is not None and not self._is_closed:
            now = self._loop.time()
            self.upper_layer.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, now)
            self._send_pending()
            self._transport.close()

    async def wait_closed(self) -> None:
        """Wait until the TCP connection is closed."""
        while self._transport is not None and not self._is_closed:
            await self._change()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the association request."""
        self._transport = transport
        self._transport.set_write_buffer_limits(high=CLIENT_WRITE_BUFFER_BYTES)
        now = self._loop.time()
        self._moved_at = now
        self._due = (now + self._timeouts.association_seconds, "it did not answer the association request")
        self.upper_layer.request(self._request, now)
        self.upper_layer.connection_opened(now)
        self._send_pending()
        self._look()

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        now = self._loop.time()
        self._moved_at = now
        try:
            for event in self.upper_layer.receive_data(memoryview(data), now):
                if type(event) is PDVFragment:
                    self._user.receive(event)
                else:
                    self._take(event)
        except PeerError as error:
            self.abort(self._broke_the_rules(str(error)))
            return
        self._send_pending()
        if self.upper_layer.close_expected:
            self._transport.close()

    def pause_writing(self) -> None:
        """Let `write` wait."""
        self._write_blocked = True

    def resume_writing(self) -> None:
        """Let `write` go on."""
        self._write_blocked = False
        self._moved_at = self._loop.time()
        self.notify()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end of the connection."""
        self._is_closed = True
        if self._watch is not None:
            self._watch.cancel()
        self.upper_layer.receive_eof(self._loop.time())
        words = "the peer closed the connection"
        if isinstance(exc, OSError) and exc.strerror:
            words = f"the connection broke ({exc.strerror})"
        self._end(AssociationLostError(f"{self.peer}: {words}."))
        self.notify()

    # What came.

    def _take(self, event: object) -> None:
        match event:
            case AssociateAccepted():
                self._due = None
                self._user.established(event.response)
                self.notify()
            case AssociateRejected():
                self._end(AssociationRejectedError(self.peer, event.rejection))
            case ProtocolFault():
                self._end(self._broke_the_rules(event.words))
            case Aborted():
                words = Abort(source=event.source, reason=event.reason).words
                self._end(
                    AssociationAbortedError(
                        f"{self.peer}: the association was {words}.",
                        source=event.source,
                        reason=event.reason,
                        by_us=event.by_us,
                    )
                )
            case ReleaseRequested():
                self.upper_layer.respond_to_release(self._loop.time())
                self._end(AssociationLostError(f"{self.peer}: the peer released the association."))
            case ReleaseConfirmed():
                self._end(AssociationLostError(f"{self.peer}: the association was released."))

    def _broke_the_rules(self, words: str) -> AssociationAbortedError:
        return AssociationAbortedError(
            f"{self.peer}: the association was aborted by us, since the peer broke the rules: {words}.",
            source=AbortSource.SERVICE_USER,
            reason=AbortReason.NOT_SPECIFIED,
            by_us=True,
        )

    # Ending, and time.

    def _end(self, error: AssociationError) -> None:
        """Note what ended the association, the first time. What is left to be sent has its time too."""
        if self.error is None:
            self.error = error
            self._due = (self._loop.time() + CLIENT_CLOSE_SECONDS, "")
            self._user.ended(error)
            self.notify()

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _send_pending(self) -> None:
        data = self.upper_layer.data_to_send()
        if data and not self._is_closed:
            self._transport.write(data)

    def _look(self) -> None:
        """Look from time to time whether anything moves, and act when it did not for too long."""
        now = self._loop.time()
        unsent = self._transport.get_write_buffer_size() + self._held_by_system()
        if unsent != self._unsent:
            self._unsent = unsent
            self._moved_at = now
        seconds = self._timeouts.progress_seconds
        if self._due is not None and now >= self._due[0]:
            self._overdue(self._due[1])
        elif (self._user.awaits_answer or self._write_blocked) and now - self._moved_at > seconds:
            words = f"nothing moved for {seconds:g} seconds while an answer was awaited"
            self.abort(PeerTimeoutError(f"{self.peer}: {words}."))
        self._watch = self._loop.call_later(min(CLIENT_WATCH_SECONDS, seconds / 4), self._look)

    def _overdue(self, what: str) -> None:
        if self.error is not None:
            self._transport.abort()
        else:
            self.abort(PeerTimeoutError(f"{self.peer}: {what} in time."))

    def _held_by_system(self) -> int:
        connected: socket.socket | None = self._transport.get_extra_info("socket")
        return 0 if connected is None or self._is_closed else unacknowledged_bytes(connected.fileno())
