"""What surrounds every request: its times, its answer when something fails, its security fields, and its line in the log."""

import asyncio
import time
from collections.abc import MutableMapping
from email.utils import formatdate
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stowkeeper.web.connection import ABORT
from stowkeeper.web.limits import BODY_STALL_SECONDS, SEND_STALL_SECONDS
from stowkeeper.web.problems import ErrorWriter, ProblemError, body_stalled, problem_of
from stowkeeper.web.roles import principal_of
from stowkeeper.web.routes import rules_of

log = structlog.get_logger("stowkeeper.web")

_FIELDS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
"""Fields of every answer that does not have them already: what we send is data, never a page of another, never cached."""

HEAD = "stowkeeper.head"
"""Key of a request's scope: only the fields of the answer are wanted, the server throws its body away."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NOWHERE = "(none)"


class ClientGoneError(Exception):
    """Nobody is left to send to: the request was given up."""


class RequestShell:
    """The outermost layer of the application. `seconds` is the time to the beginning of an answer."""

    def __init__(self, app: ASGIApp, *, seconds: float, write_error: ErrorWriter) -> None:
        self._app = app
        self._seconds = seconds
        self._write_error = write_error
        # Those that were given up go on to their end, unseen: a thread in which one hangs has to stay counted.
        self._given_up: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            await self._run(exchange)
        finally:
            exchange.write_line()

    async def _run(self, exchange: "_Exchange") -> None:
        task = asyncio.create_task(self._serve(exchange))
        try:
            await self._watch(task, exchange)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            await task
            return
        self._give_up(task)
        if exchange.status:
            exchange.abort()
            return
        await self._answer(
            exchange, ProblemError(503, "this took too long and was given up", headers={"Retry-After": "30"})
        )
        exchange.close()

    async def _watch(self, task: "asyncio.Task[None]", exchange: "_Exchange") -> None:
        """Wait for the end of a request, or until it exceeds its time."""
        deadline = exchange.began + self._seconds
        while not exchange.status:
            left = deadline - time.monotonic()
            if left <= 0:
                longer = exchange.began + exchange.seconds_of_route(self._seconds)
                if longer <= deadline:
                    return
                deadline = longer
                continue
            await asyncio.wait({task, exchange.begun}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return
        pieces = -1
        while pieces != exchange.pieces and not task.done():
            pieces = exchange.pieces
            await asyncio.wait({task}, timeout=SEND_STALL_SECONDS)

    def _give_up(self, task: "asyncio.Task[None]") -> None:
        self._given_up.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # it was for a client that is gone

    async def _serve(self, exchange: "_Exchange") -> None:
        """Run the application; whatever it raises becomes an answer and, if it is a fault, a line in the log."""
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except ClientGoneError:
            exchange.abort()
        except Exception as error:
            problem = problem_of(error)
            if problem is None or exchange.status:
                log.exception("error", what="a request met a fault", route=exchange.route)
            elif problem.status_code >= 500:
                log.error(
                    "error", what="a request could not be done", route=exchange.route, reason=str(error)
                )
            if exchange.status:
                exchange.abort()
                return
            await self._answer(
                exchange,
                problem or ProblemError(500, "a fault of the program: the log of the server has the details"),
            )

    async def _answer(self, exchange: "_Exchange", problem: ProblemError) -> None:
        response = self._write_error(exchange.scope, problem)
        await response(exchange.scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer. `status` is 0 until the answer has begun, `pieces` counts what was sent of it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began = time.monotonic()
        self.method: str = scope["method"]
        # A copy: the server looks at its own for the method, and must not see what routing makes of it.
        self.scope: MutableMapping[str, Any] = dict(scope)
        if self.method == "HEAD":
            self.scope["method"] = "GET"
            self.scope[HEAD] = True
        self.status = 0
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pieces = 0
        self._receive = receive
        self._send = send
        self._is_read = False
        self._is_closed = False

    @property
    def route(self) -> str:
        """The template of the route, without the values in the path."""
        path: str = getattr(self.scope.get("route"), "path", _NOWHERE)
        return path

    def seconds_of_route(self, otherwise: float) -> float:
        """Return the time to the beginning of the answer that the route says, once it is known."""
        rules = rules_of(self.scope.get("endpoint"))
        return rules.seconds if rules is not None and rules.seconds is not None else otherwise

    def close(self) -> None:
        """Send nothing more: what goes on in a thread has lost its client."""
        self._is_closed = True

    def abort(self) -> None:
        """Cut the connection off: its answer has begun and cannot be finished."""
        self.close()
        abort = self.scope.get(ABORT)
        if abort is not None:
            abort()

    async def receive(self) -> Message:
        """Return the next piece of the body. Raises ProblemError when it does not come for too long."""
        if self._is_read:
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_STALL_SECONDS):
                message = await self._receive()
        except TimeoutError as error:
            raise body_stalled(BODY_STALL_SECONDS) from error
        self._is_read = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a piece of the answer. Raises ClientGoneError once the request was given up."""
        if self._is_closed:
            raise ClientGoneError
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self.begun.done():
                self.begun.set_result(None)
            message = {**message, "headers": _with_fields(message.get("headers", ()))}
        await self._send(message)
        self.pieces += 1

    def write_line(self) -> None:
        """Log the request: nothing of the path's values, of the query and of the body."""
        principal = principal_of(self.scope)
        log.info(
            "request",
            client=self.scope["client"][0] if self.scope.get("client") else "",
            method=self.method if self.method in _METHODS else "other",
            route=self.route,
            status=self.status,
            seconds=round(time.monotonic() - self.began, 6),
            credential=principal.name if principal is not None else "",
        )


def _with_fields(headers: Any) -> list[tuple[bytes, bytes]]:  # noqa: ANN401 - ASGI's pairs, of whatever kind
    given = [(name.lower(), value) for name, value in headers]
    names = {name for name, _ in given}
    added = [(name, value) for name, value in _FIELDS.items() if name not in names]
    if b"date" not in names:
        added.append((b"date", formatdate(usegmt=True).encode()))
    return given + added
