"""Read many files with several threads, and take what comes of each in the order in which they were named.

A disk answers several questions at once in little more time than one, and reading and hashing let the other
threads run: `verify` and `rebuild` of small files were measured three times as fast.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from stowkeeper.archive.limits import READ_AHEAD_FILES, READER_THREADS

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int = READER_THREADS,
    ahead: int = READ_AHEAD_FILES,
) -> Iterator[tuple[Item, Result | OSError]]:
    """Yield each item with what a function makes of it on another thread; an OSError is a result as well.

    At most `ahead` items are taken before their turn. Whatever else the function raises is raised here.
    """

    def call(item: Item) -> Result | OSError:
        try:
            return function(item)
        except OSError as error:
            return error

    waiting: deque[tuple[Item, Future[Result | OSError]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(call, item)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
