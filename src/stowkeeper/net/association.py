"""One association as acceptor: the socket on one side, handlers on the other, PS3.8 and PS3.7 between.

Data sets of C-STORE are never collected here. What the socket gives is read into a pooled buffer, and the pieces of a data
set go on as views of it; the buffer is free again when a worker released the last view. Reading stops while too
many buffers or operations are outstanding, or while the peer does not read our answers: so memory has a bound
whatever the peer does. What else a peer may ask for is in `other_messages`, what we ask of it in `own_requests`.
"""

import asyncio
from typing import Any

from stowkeeper.dicom.status import Status
from stowkeeper.dimse.assembler import DataSetFragment, MessageAssembler, MessageStarted
from stowkeeper.dimse.command_set import COMMAND_DATA_SET_TYPE, MESSAGE_ID
from stowkeeper.dimse.errors import PeerError
from stowkeeper.dimse.fragmenter import command_pdu
from stowkeeper.dimse.message_types import CStoreRequest, Response
from stowkeeper.dimse.messages import Message, encode
from stowkeeper.dimse.operations import Admission, PerformedOperations
from stowkeeper.net.association_host import AssociationHost, PeerAddress
from stowkeeper.net.buffers import ReceiveBuffer
from stowkeeper.net.connecting import acknowledge_quickly
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.net.limits import HAND_OVER_BYTES, SEND_BUFFER_HIGH_BYTES
from stowkeeper.net.message_pace import MessagePace
from stowkeeper.net.other_messages import OtherMessages
from stowkeeper.net.own_requests import Invocation, OwnRequests
from stowkeeper.net.receive_space import ReceiveSpace
from stowkeeper.net.store_exchange import StoreExchange
from stowkeeper.upperlayer.connection import UpperLayerConnection
from stowkeeper.upperlayer.events import (
    Aborted,
    ARTIMExpired,
    AssociateRefused,
    AssociateRequested,
    ConnectionClosed,
    PDVFragment,
    ProtocolFault,
    ReleaseConfirmed,
    ReleaseRequested,
)
from stowkeeper.upperlayer.items import SYNCHRONOUS
from stowkeeper.upperlayer.negotiation import Accepted, AcceptedContext
from stowkeeper.upperlayer.pdu import AssociateRJ, AssociateRQ
from stowkeeper.upperlayer.reasons import AbortReason, AbortSource
from stowkeeper.upperlayer.states import Role, State


class AssociationProtocol(asyncio.BufferedProtocol):
    """Serves one TCP connection from its first byte to its last. Without `peer` the transport is asked whose it is."""

    def __init__(self, server: AssociationHost, peer: PeerAddress | None = None) -> None:
        self._server = server
        self._peer = peer
        self._time = server.time
        self._transport: Any = None  # asyncio.Transport; uvloop's is another class
        self._socket: Any = None
        self._connection = UpperLayerConnection(
            Role.ACCEPTOR,
            max_pdu_length_local=server.options.maximum_length,
            artim_seconds=server.options.association_request_seconds,
        )
        self._operations = PerformedOperations(SYNCHRONOUS.invoked)
        self._assembler: MessageAssembler | None = None
        self.facts: AssociationFacts | None = None
        self._space = ReceiveSpace(
            server, self, self._flush, self._update_reading, lambda: bool(self._transport.is_closing())
        )
        self._pace = MessagePace()
        self._read_since_sweep = False
        self._stores: set[StoreExchange] = set()
        self._receiving: StoreExchange | None = None
        self._unflushed = 0
        self._others: OtherMessages | None = None
        self._own: OwnRequests | None = None
        self._reading = True
        self._write_blocked = False
        self._write_blocked_since = 0.0
        self._release_requested = False
        self._draining = False
        self._accepted = False
        self._drain_deadline: float | None = None
        self._closing_since: float | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a new TCP connection."""
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self.facts = self._server.admit(self, self._peer or transport.get_extra_info("peername"))
        if self.facts is None:
            self._transport.abort()
            return
        channel = transport.get_extra_info("tls_channel")
        if channel is not None:
            self.facts.tls, self.facts.tls_peer = channel.agreed, channel.peer_name
        self._transport.set_write_buffer_limits(high=SEND_BUFFER_HIGH_BYTES)
        self._connection.connection_opened(self._time())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the buffer's size is ours to choose
        """Return the memory that the next read goes into."""
        return self._space.place()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read, pass it up, and decide where the next read goes and whether there is one."""
        space = self._space
        buffer = space.buffer
        if buffer is None:
            return
        now = self._time()
        self._read_since_sweep = True
        if self.facts is not None:
            self.facts.bytes_received += nbytes
        start = space.filled
        space.filled = start + nbytes
        try:
            events = self._connection.receive_data(buffer.view[start : start + nbytes], now)
            space.size_next_read(nbytes, len(events))
            for event in events:
                if type(event) is PDVFragment:
                    self._take_pdv(event, buffer)
                else:
                    self._take_event(event)
        except PeerError as error:
            self._fault(str(error))
        self._pace.bytes += nbytes  # now, since a message that began with them is on its way
        self._pace.last_read = self._time()  # now, since a handler may have taken its time
        if self._draining:
            self._release_when_drained()
        self._send_pending()
        if self._own is not None:
            self._own.send_on()
        if self._unflushed >= HAND_OVER_BYTES:
            self._flush()
        space.go_on_behind(buffer)
        if self._is_mid_message:
            acknowledge_quickly(self._socket)
        self._update_reading()

    def eof_received(self) -> bool:
        """Close when the peer does: half-open connections have no use here."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up; what was answered is kept, what was not complete is given up."""
        facts = self.facts
        if facts is None:
            return
        if exc is None:
            self._end("lost", "the peer closed the connection")
        else:
            words = getattr(exc, "strerror", "") or str(exc) or type(exc).__name__
            self._end("lost", f"the connection broke: {words}")
        self._connection.receive_eof(self._time())
        self._abandon(facts.words or f"the association was {facts.end}")
        self._space.give_up()
        self._server.forget(self)

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read."""
        self._write_blocked = True
        self._write_blocked_since = self._time()
        self._update_reading()

    def resume_writing(self) -> None:
        """Read again, and send on."""
        self._write_blocked = False
        self._send_own()
        self._update_reading()

    # Called by the server, on the event loop.

    def tick(self, now: float) -> None:
        """Heed the timers: ARTIM, the idle limit, the limit on a message's progress, the end of a drain."""
        if self._transport.is_closing():
            self._cut_off_lingering(now)
            return
        deadline = self._connection.get_timer()
        if deadline is not None and now >= deadline:
            for event in self._connection.handle_timer(now):
                self._take_event(event)
            self._send_pending()
            return
        if self._drain_deadline is not None and now >= self._drain_deadline:
            self._end("shutdown", "the server stops")
            self.abort()
            return
        options = self._server.options
        is_blocked = self._write_blocked and now - self._write_blocked_since > options.send_seconds
        if is_blocked or (self._own is not None and self._own.is_stalled(now)):
            self._end("aborted", f"the peer read no answer for {options.send_seconds:g} seconds")
            self._abandon("the peer does not read")
            self._transport.abort()
            return
        if not self.is_associated:
            return
        self._send_own()
        if self._is_mid_message:
            self._check_progress(now, options.message_seconds)
            return
        self._pace.begin(now)
        if self._own is not None:
            self._own.look(now)
        idle = self._reading and not self._is_busy and now - self._pace.last_message > options.idle_seconds
        if idle and options.idle_seconds:
            self._time_out(f"idle for {options.idle_seconds:g} seconds")
            self.abort()

    def _cut_off_lingering(self, now: float) -> None:
        """Drop what a peer does not take: a transport that closes waits for ever until all is written."""
        if self._closing_since is None:
            self._closing_since = now
        elif now - self._closing_since > self._server.options.send_seconds:
            self._transport.abort()

    def sweep(self) -> bool:
        """Hand over what waits and let the buffer go when nothing was read lately; True when it is gone.

        While somebody waits for a buffer, who drips bytes into one lets it go as well.
        """
        if self._read_since_sweep and not self._server.buffers.is_waited_for:
            self._read_since_sweep = False
            return False
        self._read_since_sweep = False
        self._space.let_go()
        self._update_reading()
        return True

    def drain(self, deadline: float) -> None:
        """Finish the message in flight, answer it, then release; abort at the deadline (event loop time)."""
        self._draining = True
        self._drain_deadline = deadline
        if not self.is_associated:  # not yet, or over and only the peer's closing is waited for
            self._end("shutdown", "the server stops")
            self.abort()
            return
        if self._own is not None:
            self._own.close()
        self._release_when_drained()

    @property
    def awaits_others(self) -> bool:
        """Whether something is to come from another thread: the answer to a message that is complete, or a buffer."""
        in_progress = self._receiving is not None
        return len(self._stores) > in_progress or self._awaits_answers or self._space.is_waited_for

    @property
    def is_associated(self) -> bool:
        """Whether an association was accepted and has not ended."""
        return self._accepted and self.facts is not None and not self.facts.end

    def cut(self) -> None:
        """Close at once, without a word and whatever is unsent: the server stops."""
        self._end("shutdown", "the server stops")
        self._transport.abort()

    def abort(self) -> None:
        """Send A-ABORT and close."""
        self._connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, self._time())
        self._send_pending()
        self._abandon(self.facts.words if self.facts else "")
        self._update_reading()

    # Reading and buffers.

    def _update_reading(self) -> None:
        # Who waits for the pool reads on into spare buffers: others may keep it empty for as long as they like.
        is_over = self.facts is not None and self.facts.end  # then only the peer's closing is waited for
        busy = not is_over and (
            self._answers_wait or self._release_requested or self._space.is_used_up or self._operations.pause
        )
        if busy == self._reading and not self._transport.is_closing():
            self._reading = not busy
            if busy:
                self._flush()
                self._transport.pause_reading()
            else:
                self._pace.begin(self._time())
                self._transport.resume_reading()

    @property
    def _answers_wait(self) -> bool:
        """Whether so many answers wait to be read that nothing more is to be taken from the peer.

        A request of ours may fill the line as well. The peer may then be busy with sending, and read when it is done, so
        that alone is no reason to stop reading.
        """
        if self._own is not None and self._own.fills_line:
            return self._own.answers_behind > SEND_BUFFER_HIGH_BYTES
        return self._write_blocked

    @property
    def _is_mid_message(self) -> bool:
        """Whether the peer has begun something that it has not finished, were it the header of a PDU."""
        assembler = self._assembler
        return self._connection.is_mid_pdu or (assembler is not None and not assembler.is_between_messages)

    @property
    def _awaits_answers(self) -> bool:
        """Whether a request of the peer other than C-STORE is not answered yet."""
        return self._others is not None and self._others.await_answers

    @property
    def _is_busy(self) -> bool:
        """Whether anything is in progress that either side has asked of the other."""
        return bool(self._stores) or self._awaits_answers or (self._own is not None and self._own.is_busy)

    def _check_progress(self, now: float, seconds: float) -> None:
        if not self._reading or not seconds:
            self._pace.begin(now)
        elif self._pace.is_too_slow(now, seconds, self._server.options.message_bytes_per_second_min):
            self._time_out(f"a message made no progress for {seconds:g} seconds")
            self.abort()

    # Events of the upper layer.

    def _take_event(self, event: object) -> None:
        if isinstance(event, AssociateRequested):
            self._negotiate(event)
        elif isinstance(event, ReleaseRequested):
            assembler = self._assembler
            if assembler is not None and not assembler.is_between_messages:
                # It would be waited for in vain: nothing may follow a release request (PS3.8 Table 9-10, Sta8).
                raise PeerError("the peer asked for release in the middle of a message")
            self._release_requested = True
            if self._own is not None:
                self._own.give_up()
            self._release_when_answered()
        elif isinstance(event, ReleaseConfirmed):
            self._end("shutdown" if self._draining else "released", "")
        elif isinstance(event, Aborted | ProtocolFault):
            if isinstance(event, Aborted) and self.facts is not None and not self.facts.end:
                self.facts.was_aborted_by_peer = not event.by_us
            self._end("aborted", event.words)
        elif isinstance(event, AssociateRefused):
            self._note_rejection(event.request, event.rejection, event.rejection.words)
        elif isinstance(event, ARTIMExpired):
            if self.facts is not None and event.state is State.STA2_AWAITING_ASSOCIATE_RQ:
                self.facts.timed_out = True
                self._end("lost", "no association request came in time")
            self._end("lost", "")
        elif isinstance(event, ConnectionClosed):
            self._transport.close()

    def _note_rejection(self, request: AssociateRQ, rejection: AssociateRJ, words: str) -> None:
        facts = self.facts
        if facts is not None:
            facts.note_request(request)
            facts.rejection = (rejection.result, rejection.source, rejection.reason)
            self._end("rejected", words)
            self._server.handlers.association_opened(facts)

    def _negotiate(self, event: AssociateRequested) -> None:
        facts = self.facts
        if facts is None:
            return
        facts.note_request(event.request)
        if self._connection.state is not State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE:
            return  # more came in the same bytes, and ended it; that event follows
        decision = self._server.negotiate(event.request, facts)
        now = self._time()  # a handler may take its time on the peer's behalf
        if isinstance(decision, Accepted):
            self._accepted = True
            self._connection.accept(decision.response, now)
            self._operations = PerformedOperations(self._connection.operations_window.invoked)
            contexts = self._connection.accepted_contexts
            self._assembler = MessageAssembler(contexts)
            facts.results = decision.response.presentation_contexts
            facts.contexts_accepted = len(contexts)
            facts.contexts_refused = len(event.request.presentation_contexts) - len(contexts)
            self._others = OtherMessages(
                self._server, facts, self._operations, self._respond, self._go_on_after_answer
            )
            self._pace.message_began(now)
            self._server.handlers.association_opened(facts)
        else:
            self._connection.reject(decision.rejection, now)
            self._note_rejection(event.request, decision.rejection, decision.words)

    def _take_pdv(self, fragment: PDVFragment, buffer: ReceiveBuffer) -> None:
        assembler = self._assembler
        if assembler is None:
            return
        event = assembler.receive(fragment)
        if event is None:
            return
        if type(event) is DataSetFragment:
            store = self._receiving
            if store is not None and store.operation is not None:
                view = event.view
                if len(view):
                    buffer.hold()
                    store.operation.write(view, buffer.release)
                    self._unflushed += len(view)
                if event.ends:
                    store.operation.pdv_ended()
                if event.is_last:
                    self._receiving = None
                    self._unflushed = 0
                    store.operation.commit()
            elif self._others is not None:
                self._others.receive(event)
        elif isinstance(event, MessageStarted):
            self._take_message(event)

    # Messages.

    def _take_message(self, started: MessageStarted) -> None:
        message = started.message
        if self.facts is not None:
            self.facts.messages += 1
        self._pace.message_began(self._time())
        others = self._others
        if isinstance(message, CStoreRequest) and message.has_data_set:
            self._begin_store(started.context_id, message)
        elif isinstance(message, CStoreRequest):
            words = "the request came without a data set"
            status, offending = Status.CANNOT_UNDERSTAND, COMMAND_DATA_SET_TYPE
            self._respond(
                started.context_id,
                self._refuse_store(started.context_id, message, status, words, offending),
            )
        elif others is not None:
            context = self._connection.accepted_contexts[started.context_id]
            if self._is_awaited(message):
                others.discard(context, message, None)
            else:
                others.begin(context, message)

    def _is_awaited(self, message: Message) -> bool:
        """Tell whether a message answers a request of ours, and let whoever awaits it have it."""
        return self._own is not None and isinstance(message, Response) and self._own.finish(message)

    def _begin_store(self, context_id: int, request: CStoreRequest) -> None:
        facts, others = self.facts, self._others
        if facts is None or others is None:
            return
        context = self._connection.accepted_contexts[context_id]
        if self._operations.begin(request) is Admission.DUPLICATE:
            words = "the message id is that of an operation in progress"
            response = self._refuse_store(context_id, request, Status.DUPLICATE_INVOCATION, words, MESSAGE_ID)
            others.discard(context, request, response)
            return
        store = StoreExchange(context_id, request)
        self._stores.add(store)
        self._receiving = store
        self._unflushed = 0
        call = self._server.call_soon_threadsafe
        store.operation = self._server.handlers.store(
            facts, context, request, lambda answer: call(self._answer, store, answer)
        )

    def _refuse_store(
        self, context_id: int, request: CStoreRequest, status: Status, words: str, offending: int
    ) -> Response:
        """Make the answer to a C-STORE that does not come as far as its handler, which hears of it all the same."""
        answer = StoreAnswer(status=status, error_comment=words, offending_elements=(offending,))
        if self.facts is not None:
            context = self._connection.accepted_contexts[context_id]
            self._server.handlers.store_refused(self.facts, context, request, answer)
        return request.respond(status, error_comment=words, offending_elements=(offending,))

    def _flush(self) -> None:
        self._unflushed = 0
        store = self._receiving
        if store is not None and store.operation is not None:
            store.operation.flush()

    def _answer(self, store: StoreExchange, answer: StoreAnswer) -> None:
        """Answer a C-STORE, on the event loop."""
        if store not in self._stores:
            return  # the association ended first, and the operation was told so
        self._stores.discard(store)
        operation, store.operation = store.operation, None
        self._operations.finish(store.request.message_id)
        self._pace.last_message = self._time()
        may_answer = self._connection.can_send_p_data
        if may_answer:
            self._send_command(store.context_id, store.encode_response(answer))
            self._send_pending()
        if operation is not None:
            if may_answer and not self._transport.is_closing():  # one that closes takes nothing any more
                operation.answered(answer)
                self._pace.last_message = self._time()  # a handler may take its time on the peer's behalf
            else:
                operation.abort("the association ended before the answer")
        self._look_around()

    def _go_on_after_answer(self) -> None:
        """Go on when a request other than C-STORE was answered, on the event loop."""
        self._pace.last_message = self._time()
        self._send_pending()
        self._look_around()

    def _look_around(self) -> None:
        """See what has waited for an answer, or for a message of ours to end."""
        self._release_when_answered()
        self._release_when_drained()
        self._update_reading()

    def _respond(self, context_id: int, response: Response) -> None:
        if not self._connection.can_send_p_data:
            return  # we have asked for release, and the peer's message crossed that
        self._send_command(context_id, encode(response))

    def _send_command(self, context_id: int, command: bytes) -> None:
        pdus = command_pdu(context_id, command, self._connection.max_pdu_length_peer)
        if self._own is None or not self._own.hold(pdus):
            self._connection.send_p_data(pdus)

    @property
    def _has_answered_all(self) -> bool:
        """Whether every answer is sent: none is owed, and none is held behind a message of ours."""
        is_sending = self._own is not None and self._own.is_sending
        return not self._stores and not self._awaits_answers and not is_sending

    def _release_when_answered(self) -> None:
        if self._release_requested and self._has_answered_all and self._connection.can_respond_to_release:
            self._release_requested = False
            self._end("released", "")
            self._connection.respond_to_release(self._time())
            self._send_pending()

    def _release_when_drained(self) -> None:
        if not self._draining:
            return
        idle = not self._is_busy and not self._release_requested and not self._is_mid_message
        if idle and self._connection.can_release:
            self._end("shutdown", "the server stops")
            self._connection.release(self._time())
            self._send_pending()

    # Requests of ours.

    def context_of(self, abstract_syntax: str) -> AcceptedContext | None:
        """Return the accepted context of an abstract syntax, the first of several, from any thread."""
        contexts = self._connection.accepted_contexts.values()
        return next((context for context in contexts if context.abstract_syntax == abstract_syntax), None)

    def invoke(self, invocation: Invocation) -> None:
        """Send a request of ours to the peer, from any thread."""
        self._server.call_soon_threadsafe(self._invoke, invocation)

    def _invoke(self, invocation: Invocation) -> None:
        if not self.is_associated or self._release_requested or self._draining or self.facts is None:
            invocation.finish(None)
            return
        if self._own is None:
            self._own = OwnRequests(
                self._server,
                self._connection,
                self._transport,
                self._send_pending,
                self._look_around,
                lambda: self._write_blocked,
                self.facts.association_id,
            )
        self._own.ask(invocation)

    def _send_own(self) -> None:
        """Send on with what we ask of the peer."""
        if self._own is not None:
            self._own.send_on()

    # Endings.

    def _fault(self, words: str) -> None:
        self._end("aborted", words)
        self.abort()

    def _time_out(self, words: str) -> None:
        if self.facts is not None and not self.facts.end:
            self.facts.timed_out = True
            self._end("aborted", words)

    def _end(self, end: str, words: str) -> None:
        facts = self.facts
        if facts is not None and not facts.end:
            facts.end = end
            facts.words = words
            self._abandon(words or f"the association was {end}")
            self._server.handlers.association_ended(facts)

    def _abandon(self, words: str) -> None:
        stores, self._stores = self._stores, set()
        self._receiving = None
        for store in stores:
            store.operation_abort(words)
        if self._others is not None:
            self._others.abandon()
        if self._own is not None:
            self._own.abandon()

    def _send_pending(self) -> None:
        data = self._connection.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)
        if self._connection.close_expected and not self._transport.is_closing():
            self._transport.close()
