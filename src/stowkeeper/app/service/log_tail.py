"""The end of a log file, and what is added to it, also when the file turns over to a new one of its name."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from stowkeeper.app.log_files import TWO_FILE_NAMES, used_last
from stowkeeper.app.log_writer import LOG_FILE_NAME
from stowkeeper.app.service.limits import LOG_LOOK_SECONDS, TAIL_BLOCK_BYTES
from stowkeeper.app.settings import Settings


def last_lines(stream: BinaryIO, count: int) -> bytes:
    """Return the last lines of a file, and leave it at its end."""
    position = stream.seek(0, os.SEEK_END)
    found = b""
    # One line break more than lines, since the one before the first has to be seen.
    while position and found.count(b"\n") <= count:
        size = min(TAIL_BLOCK_BYTES, position)
        position = stream.seek(position - size)
        found = stream.read(size) + found
    stream.seek(0, os.SEEK_END)
    lines = found.splitlines(keepends=True)
    return b"".join(lines[-count:]) if count else b""


def tail(
    log_file: Callable[[], Path], count: int, *, follow: bool, wait: Callable[[float], None] = time.sleep
) -> Iterator[bytes]:
    """Yield the last lines of a log, and with `follow` all that comes, for ever.

    `log_file` returns the file that is written to now, and `wait` is called between looks. Raises OSError where the file cannot
    be opened; one that is away later is waited for.
    """
    stream = log_file().open("rb")
    try:
        yield last_lines(stream, count)
        while follow:
            new = stream.read()
            if new:
                yield new
                continue
            path = log_file()
            found = _status(path)
            ours = os.fstat(stream.fileno())
            if found is not None and not os.path.samestat(found, ours):
                # What came between our read and the turn of the files stands in the old one.
                rest = stream.read()
                stream.close()
                stream = path.open("rb")
                yield rest
            elif ours.st_size < stream.tell():
                stream.seek(0)
            else:
                wait(LOG_LOOK_SECONDS)
    finally:
        stream.close()


def log_file_of(settings: Settings) -> Path:
    """Return the log file that a server with these settings writes to now."""
    folder = settings.log_directory
    if settings.log.rotation == "two files":
        first, second = (str(folder / name) for name in TWO_FILE_NAMES)
        return Path(used_last((first, second)))
    return folder / LOG_FILE_NAME


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
