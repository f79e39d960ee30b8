"""Read many files of the archive without waiting for those that a disk never gives: a file server that is away, a dying drive.

Everything that reads the archive through uses it: the checks of storage commitment, `verify`, `rebuild`, the scrub. A file of
which nothing comes for READ_SILENT_SECONDS is an error of its own, and all others are read.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import structlog

from stowkeeper.archive.limits import READ_SILENT_SECONDS
from stowkeeper.archive.read_ahead import ReadingStuckError, map_ahead, still_reading, waiting_by_choice

log = structlog.get_logger("stowkeeper.archive")

Item = TypeVar("Item")
Result = TypeVar("Result")

_hanging: dict[str, ReadingStuckError] = {}
"""Files whose reading did not go on, by their absolute paths: few, since so are the readings that are left."""


def read_files(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    root: str,
    path_of: Callable[[Item], str],
    weigh: Callable[[Item], int] | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Item, Result | OSError]]:
    """Yield each item with what a function makes of its file on another thread, as `map_ahead` does.

    `path_of` tells where under `root` the file of an item stands. An OSError stands for a file of which nothing came for
    READ_SILENT_SECONDS. A function that reads longer says in between that it goes on (`counted`, `still_reading`).
    While such a reading has not ended no second one of that file is begun: it would cost another thread.
    """

    def read(item: Item) -> Result:
        _refuse_hanging(os.path.join(root, path_of(item)))
        return function(item)

    for item, found in map_ahead(read, items, weigh=weigh, go_on=go_on, silent_seconds=READ_SILENT_SECONDS):
        if isinstance(found, ReadingStuckError):
            path = path_of(item)
            _hanging[os.path.join(root, path)] = found
            log.error("error", what="a file cannot be read", path=path, reason=found.strerror)
        yield item, found


def counted(progress: Callable[[int], None]) -> Callable[[int], None]:
    """Return a progress that says, too, that its file goes on. Where the given one waits, that is no fault of the disk."""

    def count(number: int) -> None:
        with waiting_by_choice():
            progress(number)
        still_reading()

    return count


def _refuse_hanging(path: str) -> None:
    """Raise the OSError of a file whose reading was left and has not ended."""
    hanging = _hanging.get(path)
    if hanging is None:
        return
    if not hanging.is_over():
        raise OSError(hanging.errno, hanging.strerror, path)
    _hanging.pop(path, None)
