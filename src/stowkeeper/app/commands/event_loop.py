"""The event loop of a command: uvloop where there is one."""

import asyncio


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop."""
    try:
        import uvloop  # noqa: PLC0415 - there is none for every system
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def event_loop() -> asyncio.Runner:
    """Return what runs the event loop; a context manager."""
    return asyncio.Runner(loop_factory=new_event_loop)
