"""The folder of an archive, looked at by commands that make an archive, before anything is made in it."""

import os
from pathlib import Path

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive.folder import foreign_names


def check_archive_folder(folder: Path) -> None:
    """Raise CommandError where a folder cannot be, or become, that of an archive; the text says why and what to do.

    It need not exist. Raises OSError where it cannot be looked into.
    """
    existing = folder
    while not os.path.lexists(existing):
        existing = existing.parent
    if not os.path.isdir(existing):
        raise CommandError(
            f"{existing} is a file, and an archive is a folder: name another place with --archive.",
            ExitCode.NO_INPUT,
        )
    if not _is_writable(existing):
        raise CommandError(
            f"{existing} cannot be written by this user, or its disk is mounted read-only: give the folder to the user"
            " who runs Stowkeeper, or name another with --archive.",
            ExitCode.IO_ERROR,
        )
    foreign = foreign_names(os.listdir(folder)) if existing == folder else ()
    if foreign:
        things = "1 other thing" if len(foreign) == 1 else f"{len(foreign)} other things"
        raise CommandError(
            f"{folder} is no archive and holds {things}: name an empty folder with --archive, one that does not exist"
            " yet, or an archive.",
            ExitCode.NO_INPUT,
        )


def _is_writable(folder: Path) -> bool:
    """Tell whether this process may make and list files in a folder."""
    by_effective_user = os.access in os.supports_effective_ids
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=by_effective_user)
