"""Who may read an archive: all of it is open to those to whom its folder `objects` is.

The first server makes that folder by the mode of stored files (`storage.slot_mode`), with x for whoever may read.
What is made later follows the folder: those of studies and series, the quarantine and its notes, and the catalog, which
tells of patients as the files do. The depot is its owner's alone.
"""

import os

from stowkeeper.archive.shelf_lock import OBJECTS
from stowkeeper.durable.filesystem import FileSystem


def folder_mode(file_mode: int) -> int:
    """Return the mode of a folder in which files of a mode stand."""
    return file_mode | (file_mode & 0o444) >> 2


def folder_mode_in(files: FileSystem, root: str) -> int:
    """Return the mode of a new folder in an archive. Raises OSError."""
    return files.status(os.path.join(root, OBJECTS)).mode & 0o777


def file_mode_in(files: FileSystem, root: str) -> int:
    """Return the mode of a new file in an archive that is no stored instance. Raises OSError."""
    return folder_mode_in(files, root) & 0o666
