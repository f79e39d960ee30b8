"""An event loop on a thread of its own, for what must not hold up the receiver: jobs and HTTP."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from stowkeeper.app.logs import log_loop_exception

Result = TypeVar("Result")


class Background:
    """A thread with an event loop. `start` it, `run` coroutines on it from other threads, `close` it at the end."""

    def __init__(self, new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._loop = new_event_loop()
        self._loop.set_exception_handler(log_loop_exception)
        self._thread = threading.Thread(target=self._loop.run_forever, name="background", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine there, and wait for it on the event loop of the caller."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def close(self) -> None:
        """End the thread, and what is still going on there. Called when nothing is expected of it any more."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()


async def _end_tasks() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
