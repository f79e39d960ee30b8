"""What lies in a folder in which others are at work: what goes away while it is looked at is left out."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def statuses_below(folder: Path) -> dict[Path, os.stat_result]:
    """Return the files and folders below a folder, each with its status."""
    found: dict[Path, os.stat_result] = {}
    for path in _below(folder):
        with suppress(FileNotFoundError):
            found[path] = path.stat()
    return found


def files_with_content_below(folder: Path) -> list[Path]:
    """Return the files below a folder that hold anything."""
    found = statuses_below(folder)
    return [path for path, status in found.items() if stat.S_ISREG(status.st_mode) and status.st_size]


def contents_below(folder: Path) -> dict[Path, bytes]:
    """Return the files below a folder, each with its bytes."""
    found: dict[Path, bytes] = {}
    for path in _below(folder):
        with suppress(FileNotFoundError, IsADirectoryError):
            found[path] = path.read_bytes()
    return found


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            yield Path(parent, name)
