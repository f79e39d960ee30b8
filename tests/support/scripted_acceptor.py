"""A storage provider that behaves as a test wants it to: refuses, answers late or oddly, aborts, falls silent.

It speaks through the product's own wire rooms, which have tests of their own, and runs in threads with blocking
sockets, so that it serves tests of coroutines and of whole commands alike.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from stowkeeper.dimse.assembler import DataSetFragment, MessageAssembler, MessageStarted
from stowkeeper.dimse.fragmenter import command_pdu
from stowkeeper.dimse.message_types import CStoreRequest, Request, Response
from stowkeeper.dimse.messages import Message, encode
from stowkeeper.upperlayer.connection import UpperLayerConnection
from stowkeeper.upperlayer.events import AssociateRequested, PDVFragment, ReleaseConfirmed, ReleaseRequested
from stowkeeper.upperlayer.items import AsynchronousOperationsWindow
from stowkeeper.upperlayer.negotiation import AcceptancePolicy, Accepted, AcceptedContext, negotiate
from stowkeeper.upperlayer.pdu import AssociateRJ, AssociateRQ
from stowkeeper.upperlayer.states import Role

LOOPBACK = "127.0.0.1"
SECONDS_MAX = 20.0
"""How long it waits for anything, so that a failing test ends."""


class Act(Enum):
    """What to do instead of answering."""

    ABORT = auto()
    CLOSE = auto()
    RELEASE = auto()
    SILENCE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message that came whole."""

    association: int
    context: AcceptedContext
    message: Message
    data_set: bytes


Answer = int | Response | Act | bytes
"""A status, a whole response, something else, or bytes to be written as they are."""


def accept_everything(received: Received) -> Answer:
    """Answer Success."""
    return 0x0000


@dataclass(slots=True, kw_only=True)
class Script:
    """How an acceptor behaves. The numbers of associations count from 0."""

    answer: Callable[[Received], Answer] = accept_everything
    policy: AcceptancePolicy = field(default_factory=AcceptancePolicy)
    window: int | None = None
    """What is granted, whatever was asked; None leaves the item out."""
    hold: int = 1
    """So many requests come before the first is answered, and the last of them is answered first."""
    on_request: Callable[[int], AssociateRJ | Act | None] = lambda _number: None
    """What becomes of an association request instead of an acceptance."""
    on_data: Callable[[int], Act | None] = lambda _bytes: None
    """What is done in the middle of a data set, given the bytes of it that came."""
    on_established: tuple[Request, ...] = ()
    """Requests of its own, sent once the association is established."""
    answers_release: bool = True
    reads: threading.Event | None = None
    """Once the association is established nothing is read until this is set."""


class Acceptor:
    """A listening acceptor; what came is in `received`, in `requests` the association requests.

    `outstanding_max` is the most requests that waited for an answer, `releases` counts those of its own that were
    agreed to.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.received: list[Received] = []
        self.requests: list[AssociateRQ] = []
        self.problems: list[BaseException] = []
        self.outstanding_max = 0
        self.releases = 0
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._is_closed = False
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def stored(self) -> list[Received]:
        """The C-STORE requests among what came."""
        return [received for received in self.received if isinstance(received.message, CStoreRequest)]

    def close(self) -> None:
        """End everything."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self.script.reads is not None:
            self.script.reads.set()
        for connected in list(self._sockets):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for thread in [self._accepting, *self._threads]:
            thread.join(SECONDS_MAX)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._is_closed:
                connected, _ = self._listener.accept()
                self._sockets.append(connected)
                thread = threading.Thread(target=self._serve, args=(connected,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connected: socket.socket) -> None:
        try:
            with connected:
                connected.settimeout(SECONDS_MAX)
                _Association(self, connected).serve()
        except (ConnectionError, BrokenPipeError):
            pass
        except BaseException as problem:  # noqa: BLE001 - the test that uses it is to see whatever it is
            self.problems.append(problem)


class _Association:
    def __init__(self, acceptor: Acceptor, connected: socket.socket) -> None:
        self._acceptor = acceptor
        self._script = acceptor.script
        self._socket = connected
        self._upper_layer = UpperLayerConnection(
            Role.ACCEPTOR, max_pdu_length_local=self._script.policy.maximum_length
        )
        self._number = len(acceptor.requests)
        self._assembler: MessageAssembler | None = None
        self._message: tuple[AcceptedContext, Message] | None = None
        self._data_set = bytearray()
        self._held: list[tuple[Received, Answer]] = []
        self._is_over = False

    def serve(self) -> None:
        self._upper_layer.connection_opened(time.monotonic())
        while not self._has_ended():
            data = self._socket.recv(1 << 16)
            if not data:
                return
            for event in self._upper_layer.receive_data(memoryview(data), time.monotonic()):
                if not self._is_over:
                    self._take(event)
            self._flush()

    def _has_ended(self) -> bool:
        return self._is_over or self._upper_layer.close_expected

    def _flush(self) -> None:
        data = self._upper_layer.data_to_send()
        if data:
            self._socket.sendall(data)

    def _take(self, event: object) -> None:
        if isinstance(event, AssociateRequested):
            self._negotiate(event.request)
        elif isinstance(event, PDVFragment):
            self._take_fragment(event)
        elif isinstance(event, ReleaseConfirmed):
            self._acceptor.releases += 1
        elif (
            isinstance(event, ReleaseRequested)
            and self._script.answers_release
            and self._upper_layer.can_respond_to_release  # else the requestor gave up in the bytes behind it
        ):
            self._upper_layer.respond_to_release(time.monotonic())

    def _negotiate(self, request: AssociateRQ) -> None:
        self._acceptor.requests.append(request)
        self._number = len(self._acceptor.requests) - 1
        decision = self._script.on_request(self._number)
        now = time.monotonic()
        if self._upper_layer.close_expected:
            return  # the requestor gave up in the bytes behind its request
        if isinstance(decision, AssociateRJ):
            self._upper_layer.reject(decision, now)
            return
        if decision is not None:
            self._act(decision)
            return
        accepted = negotiate(request, self._script.policy)
        assert isinstance(accepted, Accepted), accepted
        window = self._script.window
        granted = None if window is None else AsynchronousOperationsWindow(invoked=window, performed=1)
        information = replace(accepted.response.user_information, operations_window=granted)
        self._upper_layer.accept(replace(accepted.response, user_information=information), now)
        self._assembler = MessageAssembler(self._upper_layer.accepted_contexts)
        self._flush()
        for own in self._script.on_established:
            self._send_command(next(iter(self._upper_layer.accepted_contexts)), encode(own))
        self._flush()
        if self._script.reads is not None:
            self._script.reads.wait(SECONDS_MAX)

    def _take_fragment(self, fragment: PDVFragment) -> None:
        assert self._assembler is not None
        received = self._assembler.receive(fragment)
        if isinstance(received, MessageStarted):
            self._message = (self._upper_layer.accepted_contexts[received.context_id], received.message)
            self._data_set.clear()
            if not received.has_data_set:
                self._take_message()
        elif isinstance(received, DataSetFragment):
            self._data_set += received.view
            act = self._script.on_data(len(self._data_set))
            if act is not None:
                self._act(act)
            elif received.is_last:
                self._take_message()

    def _take_message(self) -> None:
        assert self._message is not None
        context, message = self._message
        received = Received(
            association=self._number, context=context, message=message, data_set=bytes(self._data_set)
        )
        self._acceptor.received.append(received)
        if not isinstance(message, Request):
            return
        self._held.append((received, self._script.answer(received)))
        self._acceptor.outstanding_max = max(self._acceptor.outstanding_max, len(self._held))
        if len(self._held) >= self._script.hold:
            for held, answer in reversed(self._held):
                self._answer(held, answer)
            self._held.clear()

    def _answer(self, received: Received, answer: Answer) -> None:
        if self._is_over or not self._upper_layer.can_send_p_data:
            return
        if isinstance(answer, Act):
            self._act(answer)
        elif isinstance(answer, bytes):
            self._socket.sendall(answer)
        elif isinstance(answer, Response):
            self._send_command(received.context.context_id, encode(answer))
        else:
            assert isinstance(received.message, Request)
            self._send_command(received.context.context_id, encode(received.message.respond(answer)))

    def _send_command(self, context_id: int, command: bytes) -> None:
        self._upper_layer.send_p_data(command_pdu(context_id, command, self._upper_layer.max_pdu_length_peer))
        self._flush()

    def _act(self, act: Act) -> None:
        if act is Act.ABORT:
            self._upper_layer.abort(0, 0, time.monotonic())
            self._flush()
        elif act is Act.RELEASE:
            self._upper_layer.release(time.monotonic())
            self._flush()
            return
        elif act is Act.SILENCE:
            return
        self._is_over = True


@contextlib.contextmanager
def scripted_acceptor(script: Script | None = None) -> Iterator[Acceptor]:
    """Run an acceptor for the length of a block; raise what went wrong in it."""
    acceptor = Acceptor(script or Script())
    try:
        yield acceptor
    finally:
        acceptor.close()
    assert not acceptor.problems, acceptor.problems
