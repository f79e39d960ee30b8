"""One connection: uvicorn's HTTP/1.1 protocol, with bounds on what it waits for and how much of a head it takes.

uvicorn bounds the pause between two requests. Here are bounds for the first request, for each head, in time and in
bytes, and for bodies that nobody reads. Fields behind a chunked body (trailers, RFC 9112 §7.1.2) are refused: nothing here
needs one, and none may be taken for a field of the head.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from stowkeeper.web.limits import HEAD_BYTES_MAX, HEAD_SECONDS, LINGER_SECONDS
from stowkeeper.web.problems import PROBLEM_JSON

_WORDS = {
    400: "this is no HTTP request",
    408: f"the head of the request did not come within {HEAD_SECONDS:g} seconds",
    431: f"the head of the request is longer than {HEAD_BYTES_MAX} bytes",
    503: "there are too many connections: try again",
}


_TRAILERS = "the request has fields behind its body, which are not taken"
_NOTHING_OF_BODY = f"more than {HEAD_BYTES_MAX} bytes came in a body that were nothing of it"

ABORT = "stowkeeper.abort"
"""Key of a request's scope: a function that cuts the connection off, whatever is still to be sent."""


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
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, but of a head no more than its bound, and no more of what stands around the pieces of a body."""
        if self._in_body:
            self._bytes_beside_body += len(data)
        else:
            self._head_bytes += len(data)
            self._await_head()
        super().data_received(data)
        if self._in_body:
            # The parser keeps a field that does not end, and an extension of a chunk may have no end either.
            if self._bytes_beside_body > HEAD_BYTES_MAX:
                self._refuse(400, _NOTHING_OF_BODY)
        elif self._in_message and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """Know that a request begins."""
        self._in_message = True
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[ABORT] = self.transport.abort

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head. Raises ValueError for one behind the body."""
        if self._in_body:
            self._refusal_words = _TRAILERS
            raise ValueError("a field behind the body")  # the parser ends with it, and uvicorn answers
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Know that a head is there."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > HEAD_BYTES_MAX:
            self._refusal = 431
            raise ValueError("the head is too long")  # the parser ends with it, and uvicorn answers
        self._in_body = True
        self._bytes_beside_body = 0
        self._stop(self._head_timer)
        self._head_timer = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._bytes_beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Know that a request is whole; the next one may follow in the same bytes."""
        self._in_message = self._in_body = False
        self._head_bytes = 0
        self._stop(self._linger_timer)
        self._linger_timer = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Know that a request was answered, maybe before its body was there."""
        super().on_response_complete()
        if self._in_body and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words; ours say more
        """Answer what is no request, and close."""
        self._refuse(self._refusal, self._refusal_words)

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
