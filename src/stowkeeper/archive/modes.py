"""Who may read an archive: all of it is open to those to whom its folder `objects` is.

The first server makes that folder by the settings (`storage.folder_mode`), or by the mode of stored files
(`storage.file_mode`), with x for whoever may read.
What is made later follows the folder: those of studies and series, the quarantine and its notes, and the catalog, which
tells of patients as the files do. The depot is its owner's alone.
"""

import os

import structlog

from stowkeeper.archive.shelf_lock import OBJECTS
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.write_once import make_folders

log = structlog.get_logger("stowkeeper.archive")


def folder_mode(file_mode: int) -> int:
    """Return the mode of a folder in which files of a mode stand."""
    return file_mode | (file_mode & 0o444) >> 2


def make_objects(files: FileSystem, root: str, file_mode: int, wanted: int | None) -> None:
    """Make the folder `objects` of an archive where it is missing; say so where one is there and not as wanted.

    Raises OSError.
    """
    path = os.path.join(root, OBJECTS)
    make_folders(files, path, mode=folder_mode(file_mode) if wanted is None else wanted)
    if wanted is not None and (got := folder_mode_in(files, root)) != wanted:
        log.warning(
            "start",
            what="new folders get the mode of the folder objects, not that of the settings",
            mode=f"{got:04o}",
            setting=f"storage.folder_mode={wanted:04o}",
            advice=f"find {path} -type d -exec chmod {wanted:04o} {{}} +",
        )


def folder_mode_in(files: FileSystem, root: str) -> int:
    """Return the mode of a new folder in an archive. Raises OSError."""
    return files.status(os.path.join(root, OBJECTS)).mode & 0o777


def file_mode_in(files: FileSystem, root: str) -> int:
    """Return the mode of a new file in an archive that is no stored instance. Raises OSError."""
    return folder_mode_in(files, root) & 0o666
