"""A write-ahead log whose database is gone.

SQLite finds a database's log by its name alone, and brings what it holds into whatever database has that name: a log
that stayed when its database was removed would damage the next one. So it is put aside before there is a next one,
under names that belong together, since a database that was only moved away may need it again.
"""

import os
from itertools import count

_ENDINGS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database: the write-ahead log, its index, and the rollback journal of a new one."""


def put_log_aside(path: str) -> list[str]:
    """Rename what a database that is no longer at `path` left beside it, durably; return the new names.

    `catalog.sqlite-wal` becomes `catalog.sqlite.old1-wal`, or has the next number that is free. Called under the writer
    lock. Raises OSError.
    """
    endings = [ending for ending in _ENDINGS if os.path.lexists(path + ending)]
    if not endings:
        return []
    aside = next(
        name
        for name in (f"{path}.old{number}" for number in count(1))
        if not any(os.path.lexists(name + ending) for ending in ("", *_ENDINGS))
    )
    for ending in endings:
        os.rename(path + ending, aside + ending)
    _synchronize(os.path.dirname(os.path.abspath(path)))
    return [aside + ending for ending in endings]


def _synchronize(folder: str) -> None:
    """Make the new names durable: a power cut after the next database is there must not bring the old ones back."""
    if os.name == "nt":  # pragma: no cover - it cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
