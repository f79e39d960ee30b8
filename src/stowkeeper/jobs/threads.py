"""A bounded pool of daemon threads, whose work can be given up where it does not end.

The pool of the standard library waits for its threads at the end of the process, so one that hangs in a dead file system
would keep a server from ending. And a thread that hangs would take a place in it for ever.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Runs functions on at most `maximum` threads; what finds none free waits in order.

    A thread whose work was given up counts no longer, for up to `lost_max` of them at a time.
    """

    def __init__(self, name: str, maximum: int, *, lost_max: int = 0) -> None:
        self._name = name
        self._maximum = maximum
        self._lost_max = lost_max
        self._condition = threading.Condition()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._at_work: set[Future[Any]] = set()
        self._lost: set[Future[Any]] = set()
        self._idle = 0
        self._made = 0
        self._is_closed = False

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run a function as soon as a thread is free. Its future can be cancelled until then.

        Raises RuntimeError after `close`, and where the system gives no thread: then the function is never run.
        """
        future: Future[T] = Future()
        with self._condition:
            if self._is_closed:
                msg = f"the threads of {self._name} are closed"
                raise RuntimeError(msg)
            self._waiting.append((future, function))
            if self._idle:
                self._condition.notify()
            try:
                self._start_as_needed()
            except BaseException:
                self._waiting.pop()
                raise
        return future

    def give_up(self, future: Future[Any]) -> bool:
        """Let work that does not end be, and make another thread for others; False where too many are lost."""
        with self._condition:
            if future not in self._at_work:
                return True
            if len(self._lost) >= self._lost_max:
                return False
            self._at_work.discard(future)
            self._lost.add(future)
            with suppress(RuntimeError):  # no thread now: whoever submits next makes it
                self._start_as_needed()
            return True

    def lost(self) -> int:
        """Return the number of threads at work that was given up."""
        return len(self._lost)

    def close(self) -> None:
        """Take no more work, and cancel what waits. Threads that are at work end after it. Twice is fine."""
        with self._condition:
            self._is_closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._condition.notify_all()
        for future, _ in waiting:
            future.cancel()

    def _start_as_needed(self) -> None:
        while len(self._waiting) > self._idle and len(self._at_work) + self._idle < self._maximum:
            self._made += 1
            # It counts as idle from here on, so that no second one is made for the same work.
            self._idle += 1
            try:
                threading.Thread(target=self._serve, name=f"{self._name}-{self._made}", daemon=True).start()
            except BaseException:
                self._idle -= 1
                raise

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._is_closed:
                    self._condition.wait()
                self._idle -= 1
                if not self._waiting:
                    return
                future, function = self._waiting.popleft()
                self._at_work.add(future)
            self._do(future, function)
            with self._condition:
                if future in self._lost:
                    self._lost.discard(future)
                    return  # another has its place
                self._at_work.discard(future)
                self._idle += 1
            # Else a thread that waits keeps what its last work held: a request of ten thousand instances, say.
            del future, function

    @staticmethod
    def _do(future: Future[Any], function: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the work
            future.set_exception(error)
        else:
            future.set_result(result)
