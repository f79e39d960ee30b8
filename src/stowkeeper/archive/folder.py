"""What may lie in the folder of an archive: its own files, and what every disk has. Anything else is not touched."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from stowkeeper.archive.archive import CATALOG, CATALOG_LOCK, RESERVE, SERVER_LOCK
from stowkeeper.archive.quarantine import QUARANTINE
from stowkeeper.archive.shelf_lock import JOURNAL, OBJECTS
from stowkeeper.durable.identity import ARCHIVE_ID_NAME
from stowkeeper.durable.process_folder import DEPOT

LOG: Final = "log"
JOBS: Final = "jobs"
RUN: Final = "run"
SETTINGS: Final = "stowkeeper.toml"

_FOLDERS: Final = frozenset({DEPOT, OBJECTS, QUARANTINE, LOG, JOBS, RUN, "lost+found"})
"""Those of an archive, and the one that ext4 puts into a new file system."""

_FILES: Final = (
    CATALOG,
    CATALOG_LOCK,
    SERVER_LOCK,
    ARCHIVE_ID_NAME,
    JOURNAL,
    RESERVE,
    SETTINGS,
    f".{SETTINGS}",
)
"""How the names of an archive's files begin: SQLite, locks and unfinished writes append to them."""


def foreign_names(names: Iterable[str]) -> list[str]:
    """Return those of the names in a folder that are no archive's; none where the folder is an archive.

    A first start that was cut short leaves nothing foreign.
    """
    found = list(names)
    if ARCHIVE_ID_NAME in found or CATALOG in found:
        return []
    return [name for name in found if name not in _FOLDERS and not name.startswith(_FILES)]


def is_archive(folder: Path) -> bool:
    """Tell whether a folder is that of an archive. Raises OSError where it cannot be looked into."""
    return any(os.path.lexists(folder / name) for name in (ARCHIVE_ID_NAME, CATALOG))
