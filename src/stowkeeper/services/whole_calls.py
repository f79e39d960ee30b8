"""Calls in threads that are over when whoever awaits them goes on, also when that one is cancelled."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

Value = TypeVar("Value")


async def call_to_its_end(function: Callable[..., Value], *arguments: object) -> Value:
    """Call a function in a thread, and return what it does or raise what it raises.

    Who is cancelled meanwhile is so once the call has ended. It may use a file that is closed then, whose descriptor another file
    could have the moment after.
    """
    call = asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({call})
        if not call.cancelled():
            call.exception()  # nobody is there to be told
        raise
