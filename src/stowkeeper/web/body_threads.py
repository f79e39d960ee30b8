"""Threads for requests with long bodies: each has one for its length, on which what comes may be written to the disk at once.

A body of known length that is not encrypted is read on that thread, from the connection itself. Any other comes by way of the
event loop, piece by piece.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Message

from stowkeeper.jobs.threads import Threads
from stowkeeper.services.whole_calls import await_whole
from stowkeeper.web.connection import GIVE_BODY_BACK, TAKE_BODY
from stowkeeper.web.limits import CONNECTIONS_MAX
from stowkeeper.web.problems import ProblemError, body_lost
from stowkeeper.web.socket_body import SocketBody

Value = TypeVar("Value")


class BodyThreads:
    """As many threads as there may be connections: a long body, or a slow one, keeps no other waiting."""

    def __init__(self) -> None:
        self._threads = Threads("body", CONNECTIONS_MAX)

    async def read(self, request: Request, work: Callable[[Iterator[bytes]], Value]) -> Value:
        """Have `work` read the body of a request on a thread, and return what it returns. It need not read all.

        The pieces raise ProblemError when the body breaks off or does not come for too long. Who is cancelled meanwhile is so once
        `work` has ended, for which the body breaks off. Raises ProblemError where the system has no thread left.
        """
        first = await request.receive()
        taken: SocketBody | None = None
        if _is_more_behind(first) and TAKE_BODY in request.scope:
            taken = request.scope[TAKE_BODY]()
        if taken is None:
            streamed = _StreamedBody(request)
            return await self._call(partial(work, streamed.pieces(first)), streamed.give_up)
        try:
            return await self._call(partial(work, _with(first, taken)), taken.shut_down)
        finally:
            request.scope[GIVE_BODY_BACK]()

    async def call(self, work: Callable[[], Value]) -> Value:
        """Call a function on such a thread, and wait for its end, cancelled or not. Raises ProblemError as `read`."""
        return await self._call(work, _nothing)

    async def _call(self, work: Callable[[], Value], give_up: Callable[[], None]) -> Value:
        try:
            call = self._threads.submit(work)
        except RuntimeError as error:
            raise ProblemError(503, f"there is no thread for this request: {error}") from error
        return await await_whole(call, give_up)


class _StreamedBody:
    """A body that comes by way of the event loop, for another thread. To be made on the loop."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._receiving: asyncio.Task[Message] | None = None
        self._is_given_up = False

    def pieces(self, first: Message) -> Iterator[bytes]:
        """Yield the body as it comes. Raises what receiving it raises, and ProblemError when it breaks off."""
        message = first
        while message["type"] == "http.request":
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                return
            try:
                message = asyncio.run_coroutine_threadsafe(self._receive(), self._loop).result()
            except CancelledError:
                break
        raise body_lost()

    async def _receive(self) -> Message:
        if self._is_given_up:
            raise asyncio.CancelledError
        self._receiving = asyncio.current_task()
        return await self._request.receive()

    def give_up(self) -> None:
        """Have it break off; called on the loop."""
        self._is_given_up = True
        if self._receiving is not None:
            self._receiving.cancel()


def _with(first: Message, taken: SocketBody) -> Iterator[bytes]:
    if first.get("body"):
        yield first["body"]
    yield from taken.pieces()


def _is_more_behind(message: Message) -> bool:
    return message["type"] == "http.request" and bool(message.get("more_body", False))


def _nothing() -> None:
    """Give nothing up."""
