"""The real SerialServer on a free port of the loopback interface, in a thread of its own."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from stowkeeper.net.handlers import AssociationFacts, Handlers
from stowkeeper.net.serial_server import SerialServer
from stowkeeper.net.server_options import ServerOptions
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.net.tls_errors import TLSFailure
from support.server_thread import OPTIONS, WAIT_SECONDS, RecordingHandlers

TICK_SECONDS = 0.02


class _Stopped(BaseException):
    """Ends the thread from within the server, which has no end of its own."""


class SerialServerThread:
    """A running server. `fault` is what ended it: there should be none."""

    def __init__(
        self, handlers: Handlers, options: ServerOptions, tls: TLSContext | None, *, serves_one: bool
    ) -> None:
        self._serves_one = serves_one
        self.handshakes: list[tuple[str, TLSFailure | None, list[str]]] = []
        self.idle_calls = 0
        self.fault: BaseException | None = None
        self._is_stopping = False
        self.server = SerialServer(
            handlers,
            options,
            tls,
            handshake_ended=lambda *ended: self.handshakes.append(ended),
            meanwhile=self._meanwhile,
            tick_seconds=TICK_SECONDS,
        )
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="serial server", daemon=True)
        self._thread.start()

    def _meanwhile(self) -> None:
        self.idle_calls += 1
        if self._is_stopping:
            raise _Stopped

    def _run(self) -> None:
        try:
            while True:
                connection = self.server.accept(self._listener)
                try:
                    self.server.serve(connection)
                except BaseException:
                    connection.close()
                    raise
                if self._serves_one:
                    self.server.finish()
                    return
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test is to hear of it
            self.fault = error

    @property
    def has_ended(self) -> bool:
        """Tell whether the thread is over."""
        return not self._thread.is_alive()

    @property
    def lingering(self) -> int:
        """Return how many connections wait for their peer to close."""
        return len(self.server._lingering)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert self.fault is None, self.fault
            assert time.monotonic() < deadline, "still waiting"
            time.sleep(0.002)

    def close(self) -> None:
        """End it, whatever is going on."""
        self._is_stopping = True
        self._thread.join(WAIT_SECONDS)
        self._listener.close()
        for lingering in self.server._lingering:
            lingering.end()


@contextlib.contextmanager
def serving_serially(
    handlers: Handlers, tls: TLSContext | None = None, *, serves_one: bool = False, **changes: Any
) -> Iterator[SerialServerThread]:
    """Run a server for the length of a block; check that nothing but the block's end ended it.

    With `serves_one` it serves one connection, waits for its end and is over then.
    """
    server = SerialServerThread(handlers, replace(OPTIONS, **changes), tls, serves_one=serves_one)
    try:
        yield server
    finally:
        server.close()
    if server.fault is not None:
        raise server.fault


def endings(handlers: RecordingHandlers) -> list[tuple[str, str]]:
    """Return how the associations ended that have, and why."""
    return [(facts.end, facts.words) for facts in handlers.ended]


def are_closed(handlers: RecordingHandlers, count: int) -> bool:
    """Tell whether so many connections are closed, each of which was told to have ended before."""
    closed: list[AssociationFacts] = handlers.closed
    return len(closed) == count and all(facts in handlers.ended for facts in closed)
