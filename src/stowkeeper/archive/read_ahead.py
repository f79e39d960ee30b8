"""Read many files with several threads, and take what comes of each in the order in which they were named.

A disk answers several questions at once in little more time than one, and reading and hashing let the other
threads run: `verify` and `rebuild` of small files were measured three times as fast.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from stowkeeper.archive.limits import (
    HANDFUL_BYTES,
    HANDFUL_FILES,
    READ_AHEAD_FILES,
    READER_THREADS,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int = READER_THREADS,
    ahead: int = READ_AHEAD_FILES,
    weigh: Callable[[Item], int] | None = None,
) -> Iterator[tuple[Item, Result | OSError]]:
    """Yield each item with what a function makes of it on another thread; an OSError is a result as well.

    At most `ahead` items are taken before their turn. `weigh` tells the bytes behind an item: those that have few go to
    a thread several at a time, since handing one over costs as much as reading it. Whatever else the function raises is
    raised here.
    """

    def call(some: Sequence[Item]) -> list[Result | OSError]:
        return [_outcome(function, item) for item in some]

    waiting: deque[tuple[Sequence[Item], Future[list[Result | OSError]]]] = deque()
    taken = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as pool:
        try:
            for some in _handfuls(items, weigh):
                waiting.append((some, pool.submit(call, some)))
                taken += len(some)
                while taken > ahead and len(waiting) > 1:
                    first, future = waiting.popleft()
                    taken -= len(first)
                    yield from zip(first, future.result(), strict=True)
            while waiting:
                first, future = waiting.popleft()
                yield from zip(first, future.result(), strict=True)
        finally:
            for _, future in waiting:
                future.cancel()


def _outcome(function: Callable[[Item], Result], item: Item) -> Result | OSError:
    try:
        return function(item)
    except OSError as error:
        return error


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
