"""Read many files with several threads, and take what comes of each in the order in which they were named.

A disk answers several questions at once in little more time than one, and reading and hashing let the other
threads run: `verify` and `rebuild` of small files were measured three times as fast.

A disk or a file server may also never answer, and then no thread can be ended. So the threads keep no process from ending,
nobody waits for them when the reading is broken off, and who asks for it is told that a file does not go on.
"""

import errno
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Generic, TypeVar

from stowkeeper.archive.limits import (
    HANDFUL_BYTES,
    HANDFUL_FILES,
    LEFT_READERS_MAX,
    READ_AHEAD_FILES,
    READ_GAP_SECONDS,
    READ_LOOK_SECONDS,
    READER_THREADS,
)

Item = TypeVar("Item")
Result = TypeVar("Result")

_this_thread = threading.local()
_left_lock = threading.Lock()
_left: list["_Handful[Any, Any]"] = []


class ReadingStuckError(OSError):
    """What was asked for an item does not go on, and nothing is known of it. `is_over` tells whether it has ended since."""

    def __init__(self, words: str, is_over: Callable[[], bool]) -> None:
        super().__init__(errno.ETIMEDOUT, words)
        self.is_over = is_over


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int = READER_THREADS,
    ahead: int = READ_AHEAD_FILES,
    weigh: Callable[[Item], int] | None = None,
    go_on: Callable[[], None] = lambda: None,
    silent_seconds: float = math.inf,
) -> Iterator[tuple[Item, Result | OSError]]:
    """Yield each item with what a function makes of it on another thread; an OSError is a result as well.

    At most `ahead` items are taken before their turn. `weigh` tells the bytes behind an item: those that have few go to
    a thread several at a time, since handing one over costs as much as reading it. Whatever else the function raises is
    raised here. `go_on` is called now and then while a result is waited for, and raises to break it off.

    A ReadingStuckError is the result of an item that its function neither ended nor said a word of (`still_reading`) for
    `silent_seconds`; it goes on by itself, and another thread takes its place. While there are LEFT_READERS_MAX of these
    in the process, that is the result of every item.
    """
    with _readers(function, threads, go_on, silent_seconds) as readers:
        waiting: deque[_Handful[Item, Result]] = deque()
        taken = 0
        for some in _handfuls(items, weigh):
            waiting.append(readers.submit(some))
            taken += len(some)
            while taken > ahead and len(waiting) > 1:
                first = waiting.popleft()
                taken -= len(first.items)
                yield from readers.results_of(first)
        while waiting:
            yield from readers.results_of(waiting.popleft())


def still_reading() -> None:
    """Say, in a function of `map_ahead`, that its item goes on. Harmless elsewhere."""
    handful = getattr(_this_thread, "handful", None)
    if handful is not None:
        handful.sign_at = time.monotonic()


@contextmanager
def waiting_by_choice() -> Iterator[None]:
    """Say, in a function of `map_ahead`, that what takes long in this block is no fault of the disk."""
    handful = getattr(_this_thread, "handful", None)
    if handful is not None:
        handful.sign_at = math.inf
    try:
        yield
    finally:
        still_reading()


class _Handful(Generic[Item, Result]):
    """Items that go to a thread together, and what came of them so far. `sign_at` is infinite until one is begun."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.results: list[Result | OSError] = []
        self.error: BaseException | None = None
        self.sign_at = math.inf
        self.is_over = False
        self.is_left = False

    def add(self, result: Result | OSError) -> None:
        """Note a result, unless it was said to be none."""
        if not self.is_left:
            self.results.append(result)
            self.sign_at = time.monotonic()

    def has_ended(self) -> bool:
        """Tell whether no thread is at work on it any more."""
        return self.is_over


class _Readers(Generic[Item, Result]):
    """The threads of one `map_ahead`."""

    def __init__(
        self,
        function: Callable[[Item], Result],
        threads: int,
        go_on: Callable[[], None],
        silent_seconds: float,
    ) -> None:
        self._function = function
        self._threads_max = threads
        self._go_on = go_on
        self._silent_seconds = silent_seconds
        self._threads = 0
        self._idle = 0
        self._condition = threading.Condition()
        self._queue: deque[_Handful[Item, Result]] = deque()
        self._at_work: set[_Handful[Item, Result]] = set()
        self._is_closed = False
        self._looked_at = time.monotonic()

    def submit(self, items: Sequence[Item]) -> _Handful[Item, Result]:
        """Let a thread work on some items as soon as one is free. Raises RuntimeError where the system gives none at all."""
        handful: _Handful[Item, Result] = _Handful(items)
        if self._silent_seconds < math.inf and _too_many_are_left():
            words = f"{LEFT_READERS_MAX} readings have not come back from the disk: see to it"
            handful.results = [ReadingStuckError(words, handful.has_ended) for _ in items]
            handful.is_over = True
            return handful
        with self._condition:
            self._queue.append(handful)
            self._serve_queue()
        return handful

    def results_of(self, handful: _Handful[Item, Result]) -> Iterator[tuple[Item, Result | OSError]]:
        """Wait for some items, and yield each with its result."""
        while not self._is_done(handful):
            self._go_on()
        if not handful.is_left:
            if handful.error is not None:
                raise handful.error
            yield from zip(handful.items, handful.results, strict=True)
            return
        # The one that it stands at is left; nothing was begun of those behind it.
        done = len(handful.results)
        words = f"reading it has not gone on for {self._silent_seconds:g} s: see to the disk"
        stuck = ReadingStuckError(words, handful.has_ended)
        yield from zip(handful.items, chain(handful.results[:done], [stuck]), strict=False)
        rest = handful.items[done + 1 :]
        if rest:
            yield from self.results_of(self.submit(rest))

    def _is_done(self, handful: _Handful[Item, Result]) -> bool:
        """Wait a moment for a handful; tell whether it has ended, or is left."""
        with self._condition:
            if not (handful.is_over or handful.is_left):
                self._condition.wait(READ_LOOK_SECONDS)
                self._leave_stuck()
            return handful.is_over or handful.is_left

    def _leave_stuck(self) -> None:
        """Leave the threads that do not go on, whatever they are at: all may be needed for what is waited for."""
        now = time.monotonic()
        if now - self._looked_at > READ_GAP_SECONDS:
            for handful in self._at_work:  # we stood still ourselves, and they perhaps with us
                handful.sign_at += now - self._looked_at
        self._looked_at = now
        stuck = {handful for handful in self._at_work if now - handful.sign_at >= self._silent_seconds}
        if not stuck:
            return
        self._at_work -= stuck
        self._threads -= len(stuck)
        for handful in stuck:
            handful.is_left = True
        with _left_lock:
            _left.extend(stuck)
        self._serve_queue()

    def close(self) -> None:
        """Let the threads end, each with the item that it is at."""
        with self._condition:
            self._is_closed = True
            self._queue.clear()
            self._condition.notify_all()

    def _serve_queue(self) -> None:
        """Wake threads for what waits, or make some."""
        if self._idle:
            self._condition.notify_all()  # readers, and perhaps who waits for them
        wanted = len(self._queue) - self._idle
        for _ in range(min(wanted, self._threads_max - self._threads)):
            self._threads += 1
            try:
                threading.Thread(target=self._serve, name="reader", daemon=True).start()
            except BaseException:
                self._threads -= 1
                if self._threads:
                    return  # the others do it
                raise

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._is_closed:
                    self._idle += 1
                    self._condition.wait()
                    self._idle -= 1
                if self._is_closed:
                    return
                handful = self._queue.popleft()
                handful.sign_at = time.monotonic()
                self._at_work.add(handful)
            _this_thread.handful = handful
            self._work_on(handful)
            with self._condition:
                handful.is_over = True
                self._at_work.discard(handful)
                self._condition.notify_all()
                if handful.is_left:
                    return  # another has its place

    def _work_on(self, handful: _Handful[Item, Result]) -> None:
        for item in handful.items:
            if handful.is_left or self._is_closed:
                return  # of the item that it was left at the result was said to be none
            try:
                result: Result | OSError = self._function(item)
            except OSError as error:
                result = error
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the results
                handful.error = error
                return
            with self._condition:
                handful.add(result)


@contextmanager
def _readers(
    function: Callable[[Item], Result], threads: int, go_on: Callable[[], None], silent_seconds: float
) -> Iterator[_Readers[Item, Result]]:
    """Have threads for the length of a block."""
    readers: _Readers[Item, Result] = _Readers(function, threads, go_on, silent_seconds)
    try:
        yield readers
    finally:
        readers.close()


def _too_many_are_left() -> bool:
    """Tell whether so many readings in this process do not go on that no other is to be begun."""
    with _left_lock:
        _left[:] = [handful for handful in _left if not handful.is_over]
        return len(_left) >= LEFT_READERS_MAX


def _handfuls(items: Iterable[Item], weigh: Callable[[Item], int] | None) -> Iterator[Sequence[Item]]:
    """Yield items one by one, or several light ones together."""
    if weigh is None:
        for item in items:
            yield (item,)
        return
    some: list[Item] = []
    weight = 0
    for item in items:
        some.append(item)
        weight += weigh(item)
        if weight >= HANDFUL_BYTES or len(some) >= HANDFUL_FILES:
            yield some
            some, weight = [], 0
    if some:
        yield some
