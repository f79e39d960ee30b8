"""The folder of an archive, looked at by commands that make an archive, before anything is made in it."""

import os
import shlex

from stowkeeper.app.archive_place import foreign_things
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.rights import check_may_write
from stowkeeper.app.settings import Settings
from stowkeeper.archive.folder import is_archive


def check_archive_is_there(settings: Settings) -> None:
    """Raise CommandError where there is no archive and the settings say that none is to be made; the text says what to do.

    Raises OSError where it cannot be looked into.
    """
    if not settings.archive_must_exist or is_archive(settings.archive_path):
        return
    raise CommandError(
        f"there is no archive in {settings.archive}, and archive_must_exist says that none is to be made there: see whether its"
        f" disk is mounted by `findmnt --target {shlex.quote(settings.archive)}`. To make it for the first time, start once with"
        " STOWKEEPER_ARCHIVE_MUST_EXIST=false in the environment.",
        ExitCode.NO_INPUT,
    )


def check_archive_folder(settings: Settings) -> None:
    """Raise CommandError where a folder cannot be, or become, that of an archive; the text says why and what to do.

    It need not exist. Raises OSError where it cannot be looked into.
    """
    folder = settings.archive_path
    existing = folder
    while not os.path.lexists(existing):
        existing = existing.parent
    if not os.path.isdir(existing):
        raise CommandError(
            f"{existing} is a file, and an archive is a folder: name another place with --archive.",
            ExitCode.NO_INPUT,
        )
    check_may_write(folder)
    if foreign := foreign_things(settings):
        raise CommandError(
            f"{foreign}: name an empty folder with --archive, one that does not exist yet, or an archive.",
            ExitCode.NO_INPUT,
        )
