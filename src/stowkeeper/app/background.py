"""An event loop on a thread of its own, for what must not hold up the receiver: jobs and HTTP."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, ParamSpec, TypeVar

from stowkeeper.app.limits import BACKGROUND_END_SECONDS, BACKGROUND_THREADS_MAX
from stowkeeper.app.logs import log_loop_exception
from stowkeeper.jobs.threads import Threads

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class DaemonExecutor(ThreadPoolExecutor):
    """Runs functions on daemon threads, for `asyncio.to_thread` of a loop: asyncio takes this class and no other.

    That of the standard library waits for its threads at the end of the process, however long they take: one that hangs
    in a dead file system would keep a server from ending. Here the end waits BACKGROUND_END_SECONDS for them.
    """

    def __init__(self, name: str) -> None:
        super().__init__(1)  # it makes its threads when they are needed, and these never are
        self._daemons = Threads(name, BACKGROUND_THREADS_MAX)
        self._begun: set[Future[Any]] = set()

    def submit(
        self, fn: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        """Run a function as soon as a thread is free. Raises RuntimeError after `shutdown`."""
        future = self._daemons.submit(partial(fn, *args, **kwargs))
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        return future

    # Its own parameter is named `wait`, and what waits is a function of that name.
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work, cancel what has not begun, and wait a bounded time for the rest."""
        del cancel_futures  # what waits has no thread any more
        begun = set(self._begun)
        self._daemons.close()
        super().shutdown(wait=False)
        if wait:
            _wait_for(begun)


def _wait_for(futures: set[Future[Any]]) -> None:
    wait(futures, BACKGROUND_END_SECONDS)


class Background:
    """A thread with an event loop. `start` it, `run` coroutines on it from other threads, `close` it at the end."""

    def __init__(self, new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._loop = new_event_loop()
        self._loop.set_exception_handler(log_loop_exception)
        self._loop.set_default_executor(DaemonExecutor("background-work"))
        self._thread = threading.Thread(target=self._loop.run_forever, name="background", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine there, and wait for it on the event loop of the caller."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine there, and wait for nothing. What goes wrong in it is its own to tell."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """End the thread, and what is still going on there. Called when nothing is expected of it any more.

        Work on other threads that does not end within BACKGROUND_END_SECONDS is left to itself.
        """
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
