"""Requests that an acceptor sends to the requestor of an association: storage commitment reports.

They go out one after another as the window of operations allows, a turn at a time, so that neither the event loop nor the
memory is filled by one. Messages of an association are not interleaved (PS3.8 §E.1): while one is on its way our answers to
the peer are held behind it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from stowkeeper.dimse.fragmenter import command_pdu, data_set_pdus
from stowkeeper.dimse.message_types import Request, Response
from stowkeeper.dimse.messages import command_name, encode
from stowkeeper.dimse.operations import InvokedOperations
from stowkeeper.net.association_host import AssociationHost
from stowkeeper.net.late_log import network_log
from stowkeeper.net.limits import (
    OWN_REQUEST_BLOCKING_PDU_BYTES,
    OWN_REQUEST_TURN_BYTES,
    OWN_REQUEST_TURN_PIECES,
    OWN_REQUESTS_WAITING_MAX,
)
from stowkeeper.net.serial_link import SerialLink
from stowkeeper.upperlayer.connection import UpperLayerConnection


class Invocation:
    """A request of ours on its way. Who waits for the response hears of it once, or that there will be none.

    `data_set` is encoded in the transfer syntax of the context; empty is none. Raises LocalError for a request that cannot
    be written.
    """

    __slots__ = ("_done", "_lock", "context_id", "data_set", "request")

    def __init__(
        self, context_id: int, request: Request, data_set: bytes, done: Callable[[Response | None], None]
    ) -> None:
        self.context_id = context_id
        self.request = replace(request, has_data_set=bool(data_set))
        encode(self.request)
        self.data_set = data_set
        self._done: Callable[[Response | None], None] | None = done
        self._lock = threading.Lock()

    def finish(self, response: Response | None) -> None:
        """Tell the response, or None when there will be none. From any thread; only the first time counts."""
        with self._lock:
            done, self._done = self._done, None
        if done is None:
            return
        try:
            done(response)
        except Exception:  # noqa: BLE001 - it is logged, and who waits for others must not suffer
            name = command_name(self.request.command_field)
            network_log().exception("error", what="a response could not be taken", command=name)


class OwnRequests:
    """Those of one association, within its window of operations. Used on the thread of the association.

    `flush` writes what the upper layer has to send, `changed` is told when a turn was taken, and `is_blocked` tells that the
    connection takes no more for now: `send_on` is to be called when it does again. `answer_seconds` is the time for a
    response. One that does not come is given up, and with it all that would follow: this peer does not answer.
    """

    __slots__ = (
        "_answer_seconds",
        "_association_id",
        "_call_soon",
        "_changed",
        "_connection",
        "_flush",
        "_held",
        "_is_blocked",
        "_is_closed",
        "_is_due",
        "_is_sending_on",
        "_moved_at",
        "_operations",
        "_pieces",
        "_sending",
        "_sent_at",
        "_time",
        "_transport",
        "_waiting",
        "answers_behind",
        "fills_line",
    )

    def __init__(
        self,
        host: AssociationHost,
        connection: UpperLayerConnection,
        transport: Any,  # noqa: ANN401 - asyncio.Transport, uvloop's class, or a link that is written by blocking calls
        flush: Callable[[], None],
        changed: Callable[[], None],
        is_blocked: Callable[[], bool],
        association_id: str,
    ) -> None:
        self._call_soon = host.call_soon_threadsafe
        self._time = host.time
        self._answer_seconds = host.options.send_seconds
        self._connection = connection
        self._transport = transport
        self._flush = flush
        self._changed = changed
        self._is_blocked = is_blocked
        self._association_id = association_id
        self._operations: InvokedOperations[Invocation] = InvokedOperations(
            connection.operations_window.performed
        )
        self._waiting: deque[Invocation] = deque()
        self._pieces: Iterator[bytes] | None = None
        self._sending = 0
        self._sent_at: dict[int, float] = {}
        self._held: list[bytes] = []
        self._is_closed = False
        self._is_due = False
        self._is_sending_on = False
        self._moved_at = 0.0
        self.fills_line = False
        """Whether a request of ours may be what blocks the connection."""
        self.answers_behind = 0
        """Bytes of answers that came behind it since."""

    @property
    def is_sending(self) -> bool:
        """Whether a message has begun and not ended, so that nothing else may be sent."""
        return self._pieces is not None

    @property
    def is_busy(self) -> bool:
        """Whether a message is on its way, or its response awaited."""
        return self._pieces is not None or bool(self._sent_at)

    def is_stalled(self, now: float) -> bool:
        """Tell whether the peer takes no more of a message that has begun."""
        return self._pieces is not None and now - self._moved_at > self._answer_seconds

    # Sending.

    def ask(self, invocation: Invocation) -> None:
        """Send a request in its turn."""
        if self._is_closed or len(self._waiting) >= OWN_REQUESTS_WAITING_MAX:
            invocation.finish(None)
            return
        self._waiting.append(invocation)
        self.send_on()

    def hold(self, pdus: bytes) -> bool:
        """Keep an answer until the message that is on its way has ended; False when there is none."""
        if self.fills_line:
            self.answers_behind += len(pdus)
        if self._pieces is None:
            return False
        self._held.append(pdus)
        return True

    def send_on(self) -> None:
        """Send what the connection takes now."""
        if self._is_sending_on:  # by what a turn has changed
            return
        self._is_sending_on = True
        try:
            self._send_on()
        finally:
            self._is_sending_on = False
        self._changed()

    def _send_on(self) -> None:
        # Where writing blocks, a turn is so small that it goes out at once, and there is nobody else to wait for it.
        blocking = isinstance(self._transport, SerialLink)
        turn_bytes = 1 if blocking else OWN_REQUEST_TURN_BYTES
        while self._has_more and self._takes_more(blocking=blocking):
            self._take_turn(turn_bytes)
            if not blocking:
                break
        if not self.is_sending and not self._is_blocked():
            self.fills_line = False
        if self._has_more and not blocking and not self._is_blocked() and not self._is_due:
            self._is_due = True
            self._call_soon(self._go_on_when_due)

    def _go_on_when_due(self) -> None:
        self._is_due = False
        self.send_on()

    @property
    def _has_more(self) -> bool:
        return self._connection.can_send_p_data and (
            self._pieces is not None or (bool(self._waiting) and self._operations.has_room)
        )

    def _takes_more(self, *, blocking: bool) -> bool:
        if self._is_blocked() or self._transport.is_closing():
            return False
        return not blocking or self._transport.is_writable()

    def _take_turn(self, turn_bytes: int) -> None:
        turn: list[bytes] = []
        size = 0
        while size < turn_bytes and len(turn) < OWN_REQUEST_TURN_PIECES:
            if self._pieces is None and not self._begin_next():
                break
            piece = next(self._pieces, None) if self._pieces is not None else None
            if piece is None:
                turn += self._end_message()
            else:
                turn.append(piece)
                size += len(piece)
        self._moved_at = self._time()
        self.fills_line = True
        self.answers_behind = 0
        self._connection.send_p_data(b"".join(turn))
        self._flush()

    def _begin_next(self) -> bool:
        if not self._waiting or not self._operations.has_room:
            return False
        invocation = self._waiting.popleft()
        self._sending = self._operations.begin(invocation.request.command_field, invocation)
        self._pieces = self._pieces_of(invocation, replace(invocation.request, message_id=self._sending))
        return True

    def _pieces_of(self, invocation: Invocation, request: Request) -> Iterator[bytes]:
        most = self._connection.max_pdu_length_peer
        if isinstance(self._transport, SerialLink):
            most = min(most, OWN_REQUEST_BLOCKING_PDU_BYTES)
        yield command_pdu(invocation.context_id, encode(request), most)
        if request.has_data_set:
            for header, view in data_set_pdus(invocation.context_id, [invocation.data_set], most):
                yield b"".join((header, view))

    def _end_message(self) -> list[bytes]:
        """Note that a message is on its way whole; return the answers that were held behind it."""
        self._pieces = None
        if any(operation.message_id == self._sending for operation in self._operations):
            self._sent_at[self._sending] = self._time()
        held, self._held = self._held, []
        return held

    # What becomes of it.

    def finish(self, response: Response) -> bool:
        """Take a response; tell whether it answers a request of ours. Raises PeerError when it is of another command."""
        operation = self._operations.finish(response)
        if operation is None:
            return False
        self._sent_at.pop(operation.message_id, None)
        operation.subject.finish(response)
        self.send_on()
        return True

    def look(self, now: float) -> None:
        """Give up what was not answered in time. A late response is taken for what it is, and told to nobody."""
        late = [each for each, at in self._sent_at.items() if now - at > self._answer_seconds]
        if not late:
            return
        self.close()
        for operation in self._operations:
            if operation.message_id in late:
                del self._sent_at[operation.message_id]
                network_log().warning(
                    "association",
                    what="a request of ours was not answered",
                    why=f"nothing came for {self._answer_seconds:g} seconds",
                    command=command_name(operation.command_field),
                    association=self._association_id,
                )
                operation.subject.finish(None)

    def close(self) -> None:
        """Begin no more requests; those that are on their way go on."""
        self._is_closed = True
        waiting, self._waiting = self._waiting, deque()
        for invocation in waiting:
            invocation.finish(None)

    def give_up(self) -> None:
        """Await no response any more: the peer can send none. A message on its way is sent to its end."""
        self.close()
        self._sent_at.clear()
        for operation in self._operations:
            self._operations.give_up(operation.message_id)
            operation.subject.finish(None)

    def abandon(self) -> None:
        """Know that the association is over."""
        self._pieces = None
        self._held.clear()
        self.give_up()
