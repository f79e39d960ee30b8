"""One connection: uvicorn's HTTP/1.1 protocol, with bounds on what it waits for and how much of a head it takes.

uvicorn bounds the pause between two requests. Here are bounds for the first request, for each head, in time and in
bytes, and for bodies that nobody reads. Fields behind a chunked body (trailers, RFC 9112 §7.1.2) are refused: nothing here
needs one, and none may be taken for a field of the head. No other protocol is gone over to (RFC 9110 §7.8): who asks for one,
as Java's client and `curl --http2` do with every request, is served as if they had not.

A body of known length can be taken from a connection that is not encrypted, and read by somebody else from the socket itself.
"""

import asyncio
import json
import os
import socket
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from stowkeeper.web.limits import HEAD_BYTES_MAX, HEAD_SECONDS, LINGER_SECONDS
from stowkeeper.web.problems import PROBLEM_JSON
from stowkeeper.web.socket_body import SOCKETS_CAN_WAIT, SocketBody

_WORDS = {
    400: "this is no HTTP request",
    408: f"the head of the request did not come within {HEAD_SECONDS:g} seconds",
    431: f"the head of the request is longer than {HEAD_BYTES_MAX} bytes",
    503: "there are too many connections: try again",
}


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_TRAILERS = "the request has fields behind its body, which are not taken"
_NOTHING_OF_BODY = f"more than {HEAD_BYTES_MAX} bytes came in a body that were nothing of it"

ABORT = "stowkeeper.abort"
"""Key of a request's scope: a function that cuts the connection off, whatever is still to be sent."""

TAKE_BODY = "stowkeeper.take_body"
"""Key of a request's scope: a function that returns what is still to come of the body, as a `SocketBody` that nobody else reads;
None where it comes as the application has it from the server. Called on the event loop, as is the next one."""

GIVE_BODY_BACK = "stowkeeper.give_body_back"
"""Key of a request's scope: a function that is called when nobody reads a body any more that was taken, whole or not."""

IS_GONE = "stowkeeper.is_gone"
"""Key of a request's scope: a function that tells whether the connection is known to have ended."""


def plain_answer(status: int, words: str = "") -> bytes:
    """Return a whole answer to a request that the application never sees, in bytes. `words` '': those of the status."""
    body = json.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": words or _WORDS[status],
        }
    ).encode()
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {PROBLEM_JSON}\r\n"
        f"content-length: {len(body)}\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    ).encode() + body


def _stated_length(fields: list[tuple[bytes, bytes]]) -> int:
    """Return how long a body is; 0 where none comes, or nobody knows before its end."""
    framing = [(name, value) for name, value in fields if name in _FRAMING]
    if len(framing) != 1 or framing[0][0] != b"content-length" or not framing[0][1].isdigit():
        return 0
    return int(framing[0][1])


async def _run(
    cycle: RequestResponseCycle, application: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run the application, which has what came of a body also where the connection is gone since."""

    async def body_first() -> Message:
        message: Message = {"type": "http.disconnect"} if cycle.disconnected else await receive()
        if message["type"] == "http.disconnect" and cycle.body and not cycle.response_complete:
            message = {"type": "http.request", "body": bytes(cycle.body), "more_body": cycle.more_body}
            cycle.body = bytearray()
        return message

    await application(scope, body_first, send)


class BoundedProtocol(HttpToolsProtocol):
    """A connection whose every wait has an end."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **named)
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._refusal = 400
        self._refusal_words = ""
        self._bytes_beside_body = 0
        self._in_message = False
        self._in_body = False
        self._takes_no_more = False
        self._is_head_again = False
        self._body_left = 0
        self._taken: SocketBody | None = None

    @property
    def _is_answered(self) -> bool:
        """Whether nothing is being answered: uvicorn has no cycle before the first request."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._stop(self._head_timer)
        self._stop(self._linger_timer)
        self._head_timer = self._linger_timer = None
        if self._taken is not None:
            self._taken.shut_down()  # its descriptor would keep the connection
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, but of a head no more than its bound, and no more of what stands around the pieces of a body."""
        if self._takes_no_more:
            return
        if self._in_body:
            self._bytes_beside_body += len(data)
        else:
            self._head_bytes += len(data)
            self._await_head()
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except HttpParserError:
            self._refuse(self._refusal, self._refusal_words)
        if self._in_body:
            # The parser keeps a field that does not end, and an extension of a chunk may have no end either.
            if self._bytes_beside_body > HEAD_BYTES_MAX:
                self._refuse(400, _NOTHING_OF_BODY)
        elif self._in_message:
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(431)
            else:
                self._await_head()  # it may have begun in the bytes that ended the body before it
        elif self._is_answered and self._head_timer is None and not self.transport.is_closing():
            # The body of a request that was answered before it came: uvicorn's clock was stopped by it, and would not go again.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn ends the connection always
        """Know that no more will come; return whether the connection stays, for the answers to what came whole.

        Who closes one direction reads in the other (RFC 9293 §3.6). TLS knows no such thing here.
        """
        if self.scheme != "http" or self._in_body or self._is_answered:
            return False
        self._takes_no_more = True
        self.cycle.keep_alive = False
        return True

    def _parse(self, data: bytes) -> None:
        """Give bytes to the parser. Raises HttpParserError.

        Where a request asks for another protocol the parser ends it with its head, and what comes then is no HTTP to it. Told
        once more what the head says of the body, it reads that.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as wish:
                data = data[wish.args[0] :]
            else:
                return
            self._feed_head_again([field for field in self.headers if field[0] in _FRAMING])

    def _feed_head_again(self, framing: list[tuple[bytes, bytes]]) -> None:
        """Tell a parser what body follows, of a request whose head is known.

        It is a new one: the one before may have come to its end, or wait for what it will never be given.
        """
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._is_head_again = True
        fields = b"".join(b"%s: %s\r\n" % field for field in framing)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % fields)

    def on_message_begin(self) -> None:
        """Know that a request begins."""
        if self._is_head_again:
            return
        self._in_message = True
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[ABORT] = self.transport.abort

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        if not self._is_head_again:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head. Raises ValueError for one behind the body."""
        if self._is_head_again:
            return
        if self._in_body:
            self._refusal_words = _TRAILERS
            raise ValueError("a field behind the body")  # the parser ends with it, and uvicorn answers
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Know that a head is there."""
        if self._is_head_again:
            self._is_head_again = False
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > HEAD_BYTES_MAX:
            self._refusal = 431
            raise ValueError("the head is too long")  # the parser ends with it, and uvicorn answers
        self._in_body = True
        self._bytes_beside_body = 0
        self._stop(self._head_timer)
        self._head_timer = None
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # it knows no answer before the answer (RFC 9110 §10.1.1)
        super().on_headers_complete()
        self._body_left = _stated_length(self.headers)
        scope = cast("dict[str, Any]", self.scope)
        scope[TAKE_BODY] = partial(self._take_body, self.cycle)
        scope[GIVE_BODY_BACK] = self._give_body_back
        cycle = self.cycle
        scope[IS_GONE] = lambda: cycle.disconnected

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super()._start_asgi_task(cycle, partial(_run, cycle, app))

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._bytes_beside_body = 0
        self._body_left -= len(body)
        if not self.cycle.body:
            # Bytes that are added to none, and then asked for as bytes, are not copied, as a bytearray's are twice.
            self.cycle.body = b""  # type: ignore[assignment]  # all that uvicorn does with it, bytes can do
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Know that a request is whole; the next one may follow in the same bytes."""
        if self.parser.should_upgrade():
            return  # its body is still to come
        self._in_message = self._in_body = False
        self._head_bytes = 0
        self._stop(self._linger_timer)
        self._linger_timer = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Know that a request was answered, maybe before its body was there."""
        if self._taken is not None:
            self.transport.close()  # it was given up, and whoever reads the body is to find its end
        super().on_response_complete()
        # Where another request follows already, it is its body that is in the middle.
        if self._in_body and self._is_answered and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _take_body(self, cycle: RequestResponseCycle) -> SocketBody | None:
        is_here = self._in_body and cycle is self.cycle and not cycle.body and not self.transport.is_closing()
        if not (is_here and self._body_left > 0 and self.scheme == "http" and SOCKETS_CAN_WAIT):
            return None
        try:
            connection = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        except OSError:  # too many files are open
            return None
        self.flow.pause_reading()
        connection.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._taken = SocketBody(connection, self._body_left)
        return self._taken

    def _give_body_back(self) -> None:
        taken, self._taken = self._taken, None
        if taken is None:
            return
        taken.close()
        if self.transport.is_closing():
            return
        # The parser waits for what it was told. The next one is told what is left, and may find that this is the end.
        self._body_left = taken.left
        self._feed_head_again([(b"content-length", b"%d" % taken.left)])
        self.flow.resume_reading()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_message:
            self._refuse(408)
        elif self._is_answered:
            self.transport.close()

    def _refuse(self, status: int, words: str = "") -> None:
        if self.transport.is_closing():
            return
        if not self._in_body and not self._is_answered:
            # What came before is whole, and is answered first. Nobody can tell where a request begins behind this.
            self._takes_no_more = True
            self.cycle.keep_alive = False
            return
        if self._is_answered or self._takes_over():
            self.transport.write(plain_answer(status, words))
        self.transport.close()

    def _takes_over(self) -> bool:
        """Tell whether the request whose body goes wrong is answered here, since nobody has begun to."""
        cycle: RequestResponseCycle = self.cycle
        if not self._in_body or self.pipeline or cycle.response_started:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
