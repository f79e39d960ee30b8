"""The real AssociationServer on a free port of the loopback interface, its event loop in a thread of its own.

So a test speaks to it over blocking sockets, line after line, and looks at its state between.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import uvloop

from stowkeeper.dimse.message_types import CStoreRequest, Response
from stowkeeper.dimse.messages import Message
from stowkeeper.net.association import AssociationProtocol
from stowkeeper.net.handlers import AssociationFacts, Handlers, StoreAnswer, answer_verification
from stowkeeper.net.server import AssociationServer
from stowkeeper.net.server_options import ServerOptions
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.upperlayer.negotiation import (
    AcceptancePolicy,
    Accepted,
    AcceptedContext,
    Rejected,
    negotiate,
)
from stowkeeper.upperlayer.pdu import AssociateRQ

Result = TypeVar("Result")

WAIT_SECONDS = 30.0
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
SERVED_BY = (*LOOPS, "threads")
"""What serves associations: an event loop of either kind for all of them, or a thread for each."""
OPTIONS = ServerOptions(
    maximum_length=262_144,
    associations_max=20,
    associations_per_peer_max=10,
    association_request_seconds=30.0,
    idle_seconds=600.0,
    message_seconds=60.0,
    message_bytes_per_second_min=1024,
    send_seconds=60.0,
    drain_seconds=30.0,
)
"""The shipped times, with fewer associations."""


class ServerThread:
    """A running server. `faults` are exceptions that reached the event loop: there should be none."""

    def __init__(
        self, handlers: Handlers, options: ServerOptions, loop: str, tls: TLSContext | None = None
    ) -> None:
        self._loop = LOOPS.get(loop, uvloop.new_event_loop)()
        if loop != "threads":
            options = replace(options, association_threads=0)
        self.faults: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda _loop, context: self.faults.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)
        self._thread.start()
        self.server: AssociationServer = self.call(lambda: AssociationServer(handlers, options, tls))
        _, self.port = self.run(self.server.start("127.0.0.1", 0))

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the server's loop and return its result."""
        return self.begin(coroutine).result(WAIT_SECONDS)

    def begin(self, coroutine: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Start a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function on the server's loop and return its result."""

        async def calling() -> Result:
            return function()

        return self.run(calling())

    @property
    def protocols_now(self) -> list[AssociationProtocol]:
        """Return the connections that are open, asked on the server's loop."""
        return list(self.server._protocols)

    @property
    def protocols(self) -> list[AssociationProtocol]:
        """Return the connections that are open."""
        return self.call(lambda: self.protocols_now)

    def advance(self, seconds: float) -> None:
        """Let the timers of all connections see a time so far ahead."""

        ticked = [threading.Event() for _ in self.protocols_now]

        def tick(protocol: AssociationProtocol, done: threading.Event) -> None:
            protocol.tick(protocol._server.time() + seconds)
            done.set()

        for protocol, done in zip(self.protocols_now, ticked, strict=True):
            protocol._server.call_soon_threadsafe(tick, protocol, done)
        for done in ticked:
            assert done.wait(WAIT_SECONDS)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds on the server's loop, at each of its turns."""

        async def waiting() -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                while not condition():  # noqa: ASYNC110 - what is awaited is any state of the product
                    await asyncio.sleep(0.001)

        self.run(waiting())

    def wait_until_empty(self) -> None:
        """Wait until every connection is gone."""
        self.wait_until(lambda: not self.server.connections)

    def only_ending(self, handlers: "RecordingHandlers") -> tuple[str, str]:
        """Wait until the only connection that there is, or will be in a moment, is gone; return how it ended, and why."""
        self.wait_until(lambda: bool(handlers.closed) and not self.server.connections)
        (facts,) = handlers.closed
        return facts.end, facts.words

    def close(self) -> None:
        """End it, whatever is going on."""

        async def ending() -> None:
            for protocol in self.protocols_now:
                protocol.cut()
            await self.server.stop()

        self.run(ending())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()


@contextlib.contextmanager
def serving(
    handlers: Handlers,
    loop: str = "uvloop",
    options: ServerOptions = OPTIONS,
    tls: TLSContext | None = None,
    **changes: Any,
) -> Iterator[ServerThread]:
    """Run a server for the length of a block; check that nothing reached its loop unhandled."""
    server = ServerThread(handlers, replace(options, **changes), loop, tls)
    try:
        yield server
    finally:
        server.close()
    assert server.faults == []


# Handlers that remember what they were told


@dataclass(slots=True, eq=False)
class Stored:
    """One C-STORE as the handlers saw it.

    `end` is committed or abort's words, `unanswered` abort's words also after that; `answered_with` what the network took.
    """

    facts: AssociationFacts
    context: AcceptedContext
    request: CStoreRequest
    handlers: "RecordingHandlers"
    answer: Callable[[StoreAnswer], None]
    data: bytearray = field(default_factory=bytearray)
    held: list[Callable[[], None]] = field(default_factory=list)
    flushes: int = 0
    pdvs: int = 0
    end: str = ""
    unanswered: str = ""
    answered_with: StoreAnswer | None = None

    def write(self, piece: memoryview, release: Callable[[], None] | None) -> None:
        self.data += piece
        if release is not None:
            if self.handlers.keeps_pieces:
                self.held.append(release)
            else:
                release()

    def pdv_ended(self) -> None:
        self.pdvs += 1

    def flush(self) -> None:
        self.flushes += 1

    def commit(self) -> None:
        self.end = "committed"
        if self.handlers.answers:
            self.answer(self.handlers.verdict)

    def abort(self, words: str) -> None:
        self.end = self.end or words
        self.unanswered = words

    def answered(self, answer: StoreAnswer) -> None:
        self.answered_with = answer

    def release_pieces(self) -> None:
        """Let go of what was held, as a worker does when it has written it."""
        held, self.held = self.held, []
        for release in held:
            release()


class RecordingHandlers:
    """Handlers that accept what the product accepts, keep data sets in memory, and answer at once unless told not to."""

    def __init__(self) -> None:
        self.policy = AcceptancePolicy(maximum_length=OPTIONS.maximum_length)
        self.answers = True
        self.keeps_pieces = False
        self.verdict = StoreAnswer(status=0)
        self.stores: list[Stored] = []
        self.refused: list[tuple[CStoreRequest, StoreAnswer]] = []
        self.opened: list[AssociationFacts] = []
        self.ended: list[AssociationFacts] = []
        self.closed: list[AssociationFacts] = []

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        return negotiate(request, self.policy)

    def store(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        request: CStoreRequest,
        answer: Callable[[StoreAnswer], None],
    ) -> Stored:
        stored = Stored(facts, context, request, self, answer)
        self.stores.append(stored)
        return stored

    def store_refused(
        self, facts: AssociationFacts, context: AcceptedContext, request: CStoreRequest, answer: StoreAnswer
    ) -> None:
        self.refused.append((request, answer))

    def association_opened(self, facts: AssociationFacts) -> None:
        self.opened.append(facts)

    def data_set_bytes_max(self, context: AcceptedContext, message: Message) -> int:
        return 0

    def other_message(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        message: Message,
        data_set: bytes,
        answer: Callable[[Response], None],
    ) -> Response | None:
        return answer_verification(message)

    def association_ended(self, facts: AssociationFacts) -> None:
        self.ended.append(facts)

    def association_closed(self, facts: AssociationFacts) -> None:
        self.closed.append(facts)
