"""One association that we ask for: operations out, responses back, over asyncio.

    association = await ClientAssociation.open(host, port, request)
    response = await association.store(context_id, CStoreRequest(…), chunks, length)
    await association.release()

Several operations may be outstanding, as many as the asynchronous operations window allows (PS3.7 §D.3.3.3): `start`
returns as soon as its request is on the way, with a future for the answer. Data sets go out one after another, since
messages of an association are not interleaved (PS3.8 §E.1), and piece by piece: a piece is asked for when there is
room for it, and none is copied. The peer may send requests too (N-EVENT-REPORT); a handler answers them.

Whatever ends the association is an `AssociationError`: every future that waits gets it, and every later call raises it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, cast

import structlog

from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, VERIFICATION
from stowkeeper.dimse.assembler import MessageAssembler, MessageStarted
from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.fragmenter import Buffer, chunk_pdus, command_pdu, pdv_data_length_max
from stowkeeper.dimse.message_types import (
    CEchoRequest,
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    Request,
    Response,
)
from stowkeeper.dimse.messages import Message, command_name, encode
from stowkeeper.dimse.operations import Admission, InvokedOperations, PerformedOperations
from stowkeeper.net.association_errors import AssociationError, AssociationLostError
from stowkeeper.net.client_connection import ClientConnection, ClientTimeouts
from stowkeeper.net.connecting import connect
from stowkeeper.net.limits import (
    CLIENT_INCOMING_DATA_SET_BYTES_MAX,
    CLIENT_WRITE_BUFFER_BYTES,
    CLIENT_WRITE_PIECES_MAX,
)
from stowkeeper.net.tls_asking import ClientHandshake
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.upperlayer.events import PDVFragment
from stowkeeper.upperlayer.items import (
    AsynchronousOperationsWindow,
    ProposedContext,
    RoleSelection,
    UserInformation,
)
from stowkeeper.upperlayer.limits import MAX_PDU_LENGTH_LOCAL_DEFAULT
from stowkeeper.upperlayer.negotiation import AcceptedContext
from stowkeeper.upperlayer.pdu import AssociateAC, AssociateRQ

log = structlog.get_logger("stowkeeper.net")

Chunks = AsyncIterator[Buffer]
"""The pieces of a data set in order. Each is of even length but for the last, and stays as it is from then on."""


DEFAULT_TIMEOUTS = ClientTimeouts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response, and the data set that came with it, encoded in the transfer syntax of its context."""

    response: Response
    data_set: bytes = b""


RequestHandler = Callable[[AcceptedContext, Request, bytes], Awaitable[Response]]
"""Answers a request of the peer, given with its whole data set."""


class ClientAssociation:
    """An association with us as requestor. Made by `open`; as a context manager it is released, or aborted on errors."""

    def __init__(
        self, peer: str, request: AssociateRQ, timeouts: ClientTimeouts, handler: RequestHandler | None
    ) -> None:
        self._connection = ClientConnection(peer, request, timeouts, self)
        self._request = request
        self._handler = handler
        self._release_seconds = timeouts.release_seconds
        self._response: AssociateAC | None = None
        self._assembler: MessageAssembler | None = None
        self._operations: InvokedOperations[asyncio.Future[Answer]] = InvokedOperations(1)
        self._performed = PerformedOperations(1)
        self._incoming: tuple[int, Message] | None = None
        self._incoming_data_set = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self.tls = ""
        """Version and cipher suite, such as `TLSv1.3 TLS_AES_256_GCM_SHA384`; empty without TLS."""

    # Opening and ending.

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        request: AssociateRQ,
        timeouts: ClientTimeouts = DEFAULT_TIMEOUTS,
        handler: RequestHandler | None = None,
        tls: TLSContext | None = None,
        server_name: str | None = None,
    ) -> Self:
        """Connect, and ask for an association (PS3.8 §7.1.1). It is established when this returns.

        `handler` answers requests of the peer; without one they are answered 0211H, unrecognized operation. The
        request must announce a maximum length. With `tls` the connection begins by a handshake, in which the peer is
        asked for `server_name` (SNI), or for `host` where none is given; an empty one asks for none.

        Raises:
            AssociationError: the peer cannot be reached, rejected or aborted, or did not answer in time.

        """
        shown = f"[{host}]" if ":" in host else host
        association = cls(f"{request.called_ae_title}@{shown}:{port}", request, timeouts, handler)
        above: asyncio.Protocol = association._connection
        handshake: ClientHandshake | None = None
        if tls is not None:
            name = host if server_name is None else server_name
            handshake = ClientHandshake(association.peer, tls, name, timeouts.connect_seconds)
            above = handshake.layer_below(above)
        connected = await connect(host, port, timeouts.connect_seconds)
        try:
            await asyncio.get_running_loop().create_connection(lambda: above, sock=connected)
        except BaseException:
            connected.close()
            raise
        if handshake is not None:
            association.tls = await handshake.end()
        try:
            await association._connection.until(lambda: association._response is not None)
        except BaseException:
            await association.close()
            raise
        return association

    async def __aenter__(self) -> Self:
        """Give the association."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the association; abort it when an error got in the way."""
        if error is None:
            await self.release()
        else:
            await self.close()

    async def release(self) -> None:
        """Wait for what is outstanding on either side, then end the association in agreement (PS3.8 §7.2).

        Requests of the peer that are not answered in the time for the release stay unanswered: none can be from then on. A peer that does not agree in time is aborted, and that is no error: all of it was answered. Nor is it one
        when the association is over already.

        Raises:
            AssociationError: the association ended before all was answered.

        """
        if self._connection.error is None:
            await self.wait_until_answered()
            with contextlib.suppress(
                TimeoutError, AssociationError
            ):  # the peer may be gone: all of ours is answered
                async with asyncio.timeout(self._release_seconds):
                    await self._connection.until(lambda: len(self._performed) == 0)
            async with self._sending:
                self._connection.release()
        await self._connection.wait_closed()

    def abort(self) -> None:
        """End the association at once (A-ABORT); whoever waits for an answer gets `AssociationLostError`."""
        self._connection.abort(AssociationLostError(f"{self.peer}: the association was ended by us."))

    async def close(self) -> None:
        """Abort the association if it is still there, and wait until its connection is closed."""
        self.abort()
        await self._connection.wait_closed()

    # What was agreed.

    @property
    def peer(self) -> str:
        """The peer as AET@HOST:PORT."""
        return self._connection.peer

    @property
    def response(self) -> AssociateAC:
        """The peer's A-ASSOCIATE-AC."""
        if self._response is None:
            raise LocalError("the association is not established")
        return self._response

    @property
    def contexts(self) -> Mapping[int, AcceptedContext]:
        """The accepted presentation contexts by id."""
        return self._connection.upper_layer.accepted_contexts

    @property
    def window(self) -> int:
        """How many operations may be outstanding."""
        return self._operations.window

    @property
    def outstanding(self) -> int:
        """How many operations await their response."""
        return len(self._operations)

    @property
    def awaits_answer(self) -> bool:
        """Whether any operation awaits its response."""
        return len(self._operations) > 0

    @property
    def data_length_per_pdu(self) -> int:
        """How many bytes of a data set one P-DATA-TF carries: pieces of a multiple of it make the fewest."""
        return pdv_data_length_max(self._connection.upper_layer.max_pdu_length_peer)

    @property
    def error(self) -> AssociationError | None:
        """What ended the association; None while it is there."""
        return self._connection.error

    # Operations.

    async def echo(self) -> CEchoResponse:
        """Ask the peer for a sign of life (C-ECHO, PS3.7 §9.1.5).

        Raises:
            AssociationError: the association ended, or Verification was not accepted in it.

        """
        contexts = self.contexts.values()
        found = (context.context_id for context in contexts if context.abstract_syntax == VERIFICATION)
        context_id = next(found, None)
        if context_id is None:
            raise AssociationError(f"{self.peer}: it does not accept the Verification SOP class.")
        request = CEchoRequest(message_id=0, affected_sop_class_uid=VERIFICATION)
        return cast("CEchoResponse", (await self.invoke(context_id, request)).response)

    async def store(
        self, context_id: int, request: CStoreRequest, chunks: Chunks, length: int | None = None
    ) -> CStoreResponse:
        """Send an instance (C-STORE, PS3.7 §9.1.1) and wait for its response. See `start`."""
        answer = await (await self.start(context_id, request, chunks, length))
        return cast("CStoreResponse", answer.response)

    async def invoke(self, context_id: int, request: Request, data_set: bytes | None = None) -> Answer:
        """Send any request, with a data set of moderate size or none, and wait for its response. See `start`."""
        if data_set is None:
            return await (await self.start(context_id, request))
        return await (await self.start(context_id, request, _one_chunk(data_set), len(data_set)))

    async def start(
        self, context_id: int, request: Request, chunks: Chunks | None = None, length: int | None = None
    ) -> "asyncio.Future[Answer]":
        """Send a request, as soon as the window has room, and return the future of its answer.

        The request's message id and whether it has a data set are set here. With `length`, the data set ends there;
        without it, `chunks` is read one piece ahead to find its end. Nothing is sent before the first piece is
        there, so an error of `chunks` until then leaves the association as it was; a later one, or too few bytes,
        ends it by A-ABORT, since a message cannot be taken back.

        Raises:
            AssociationError: the association is over, or ends meanwhile.
            LocalError: the context was not accepted, a piece has an odd length and is not the last, or the pieces
                do not make up `length`.

        """
        if self.error is None and context_id not in self.contexts:
            raise LocalError(f"presentation context {context_id} was not accepted")
        first = None if chunks is None else await _next_of(chunks)
        while True:
            await self.wait_for_room()
            async with self._sending:
                if self.error is None and self._operations.has_room:
                    return await self._start_now(context_id, request, first, chunks, length)

    async def wait_for_room(self) -> None:
        """Wait until the window allows one more operation.

        Raises:
            AssociationError: the association ended before.

        """
        await self._connection.until(lambda: self._operations.has_room)

    async def wait_until_answered(self) -> None:
        """Wait until no operation is outstanding.

        Raises:
            AssociationError: the association ended before.

        """
        await self._connection.until(lambda: not self.awaits_answer)

    # Sending.

    async def _start_now(
        self,
        context_id: int,
        request: Request,
        first: Buffer | None,
        chunks: Chunks | None,
        length: int | None,
    ) -> "asyncio.Future[Answer]":
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        message_id = self._operations.begin(request.command_field, future)
        try:
            command = encode(replace(request, message_id=message_id, has_data_set=chunks is not None))
        except BaseException:
            self._operations.give_up(message_id)
            raise
        try:
            await self._send_message(context_id, command, first, chunks, length)
        except BaseException:
            self.abort()
            raise
        return future

    async def _send_message(
        self, context_id: int, command: bytes, first: Buffer | None, chunks: Chunks | None, length: int | None
    ) -> None:
        max_pdu_length = self._connection.upper_layer.max_pdu_length_peer
        pieces: list[Buffer] = [command_pdu(context_id, command, max_pdu_length)]
        if first is not None and chunks is not None:
            async for chunk, is_last in _marked(first, chunks, length):
                size = 0
                for header, view in chunk_pdus(context_id, chunk, max_pdu_length, is_last=is_last):
                    pieces += (header, view)
                    size += len(view)
                    if len(pieces) >= CLIENT_WRITE_PIECES_MAX or size >= CLIENT_WRITE_BUFFER_BYTES:
                        await self._connection.write(pieces)
                        pieces = []
                        size = 0
                await self._connection.write(pieces)
                pieces = []
        await self._connection.write(pieces)

    # What came, called by the connection.

    def established(self, response: AssociateAC) -> None:
        """Take note of what was agreed. A peer cannot widen the window that we asked for."""
        self._assembler = MessageAssembler(self.contexts)
        asked = self._request.user_information.operations_window
        if asked is not None:
            agreed = self._connection.upper_layer.operations_window
            self._operations = InvokedOperations(_smaller(asked.invoked, agreed.invoked))
            self._performed = PerformedOperations(_smaller(asked.performed, agreed.performed))
        self._response = response

    def receive(self, fragment: PDVFragment) -> None:
        """Put messages together."""
        if self._assembler is None:
            return
        received = self._assembler.receive(fragment)
        if isinstance(received, MessageStarted):
            if not received.has_data_set:
                self._take_message(received.context_id, received.message, b"")
            else:
                self._incoming = (received.context_id, received.message)
        elif received is not None and self._incoming is not None:
            context_id, message = self._incoming
            data_set = self._incoming_data_set
            if len(data_set) + len(received.view) > CLIENT_INCOMING_DATA_SET_BYTES_MAX:
                raise PeerError(
                    f"the data set of {command_name(message.command_field)} goes on beyond "
                    f"{CLIENT_INCOMING_DATA_SET_BYTES_MAX} bytes"
                )
            data_set += received.view
            if received.is_last:
                self._incoming = None
                self._incoming_data_set = bytearray()
                self._take_message(context_id, message, bytes(data_set))

    def ended(self, error: AssociationError) -> None:
        """Give the reason to all who wait for answers."""
        for operation in self._operations:
            self._operations.give_up(operation.message_id)
            if not operation.subject.done():
                operation.subject.set_exception(error)
                operation.subject.exception()  # looked at: who awaits it gets it, and nobody has to

    def _take_message(self, context_id: int, message: Message, data_set: bytes) -> None:
        if isinstance(message, Request):
            self._take_request(context_id, message, data_set)
            return
        operation = self._operations.finish(message) if isinstance(message, Response) else None
        if operation is None:
            log.debug("association", what="unexpected message", command=command_name(message.command_field))
            return
        if not operation.subject.done():
            operation.subject.set_result(Answer(response=cast("Response", message), data_set=data_set))
        self._connection.notify()

    def _take_request(self, context_id: int, request: Request, data_set: bytes) -> None:
        """Have a request of the peer answered, in its turn with what we send."""
        if self._performed.begin(request) is Admission.DUPLICATE:
            self._in_background(self._respond(context_id, request.respond(Status.DUPLICATE_INVOCATION)))
            return
        if self._performed.pause:
            self._connection.pause_reading()
        self._in_background(self._perform(context_id, request, data_set))

    async def _perform(self, context_id: int, request: Request, data_set: bytes) -> None:
        response = request.respond(Status.UNRECOGNIZED_OPERATION)
        if self._handler is not None:
            try:
                response = await self._handler(self.contexts[context_id], request, data_set)
            except Exception:
                name = command_name(request.command_field)
                log.exception("error", what="a request of the peer failed", command=name)
                response = request.respond(Status.PROCESSING_FAILURE)
        await self._respond(context_id, response)
        paused = self._performed.pause
        self._performed.finish(request.message_id)
        self._connection.notify()
        if paused and not self._performed.pause:
            self._connection.resume_reading()

    async def _respond(self, context_id: int, response: Response) -> None:
        max_pdu_length = self._connection.upper_layer.max_pdu_length_peer
        async with self._sending:
            with contextlib.suppress(AssociationError):  # nobody is left to hear it
                await self._connection.write([command_pdu(context_id, encode(response), max_pdu_length)])

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def association_request(
    *,
    called_ae_title: str,
    calling_ae_title: str,
    contexts: Sequence[ProposedContext],
    operations_window: int = 1,
    roles: Sequence[RoleSelection] = (),
) -> AssociateRQ:
    """Return a request of ours; a window above 1 is proposed for the operations that we invoke."""
    window = AsynchronousOperationsWindow(invoked=operations_window, performed=1)
    return AssociateRQ(
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        presentation_contexts=tuple(contexts),
        user_information=UserInformation(
            maximum_length=MAX_PDU_LENGTH_LOCAL_DEFAULT,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            operations_window=window if operations_window > 1 else None,
            role_selections=tuple(roles),
        ),
    )


def _smaller(one: int, other: int) -> int:
    """Return the smaller of two windows, where 0 is unlimited."""
    return min(one, other) if one and other else one or other


async def _one_chunk(data_set: bytes) -> Chunks:
    yield data_set


async def _next_of(chunks: Chunks) -> Buffer:
    """Return the next piece that is not empty; an empty one when there is none."""
    async for chunk in chunks:
        if chunk:
            return chunk
    return b""


async def _marked(first: Buffer, chunks: Chunks, length: int | None) -> AsyncIterator[tuple[Buffer, bool]]:
    """Give each piece with whether it is the last: by the length, or by looking one piece ahead."""
    chunk = first
    if length is None:
        async for following in chunks:
            if following:
                yield chunk, False
                chunk = following
        yield chunk, True
        return
    sent = 0
    while True:
        sent += len(chunk)
        if sent > length:
            raise LocalError(f"the data set has more than the {length} bytes that it was to have")
        yield chunk, sent == length
        if sent == length:
            return
        chunk = await _next_of(chunks)
        if not chunk:
            raise LocalError(f"the data set has {sent} bytes and was to have {length}")
