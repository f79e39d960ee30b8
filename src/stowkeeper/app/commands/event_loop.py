"""The event loop of a command: uvloop where there is one."""

import asyncio


def event_loop() -> asyncio.Runner:
    """Return what runs the event loop; a context manager."""
    try:
        import uvloop  # noqa: PLC0415 - there is none for every system
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
