"""Calls in threads that are over when whoever awaits them goes on, also when that one is cancelled."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

Value = TypeVar("Value")


async def await_whole(call: Future[Value], give_up: Callable[[], None]) -> Value:
    """Wait for the end of a call in a thread, and return what it does or raise what it raises.

    Who is cancelled meanwhile is so once the call has ended: `give_up` is called, which makes it end soon. It may use what is
    closed then, a descriptor say, that something else could have the moment after.
    """
    ended = asyncio.wrap_future(call)
    try:
        await asyncio.wait(
            {ended}
        )  # a shield would tell the event loop of an error that nobody awaits any more
        return ended.result()
    except asyncio.CancelledError:
        give_up()
        while not ended.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({ended})
        if not ended.cancelled():
            ended.exception()  # nobody is there to be told
        raise
