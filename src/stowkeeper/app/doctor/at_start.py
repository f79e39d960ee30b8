"""The most important checks, made when a server starts: a sentence where it cannot go on, warnings for the log else.

What the start tells by itself is left to it: whether the archive's folder can be one, the path of an instance, which file
system it is on, and what `[tls]` names that cannot be used or has expired.
"""

import datetime as dt
import os
import shlex
from collections.abc import Iterator

from stowkeeper.app.doctor.accounts import ourselves, run_as, usable_again, whose, with_number
from stowkeeper.app.doctor.certificates import check_certificates
from stowkeeper.app.doctor.finding import Finding, Level, warning
from stowkeeper.app.doctor.rights import OWNER, check_owners, is_foreign_to_root
from stowkeeper.app.doctor.room import check_room
from stowkeeper.app.log_files import TWO_FILE_NAMES
from stowkeeper.app.log_writer import LOG_FILE_NAME
from stowkeeper.app.settings import Settings
from stowkeeper.app.wiring import archive_options
from stowkeeper.archive.archive import CATALOG, CATALOG_LOCK, SERVER_LOCK
from stowkeeper.archive.folder import JOBS, RUN
from stowkeeper.archive.quarantine import QUARANTINE
from stowkeeper.archive.shelf_lock import OBJECTS
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.identity import ARCHIVE_ID_NAME
from stowkeeper.durable.process_folder import DEPOT

_FOLDERS = (DEPOT, OBJECTS, QUARANTINE, JOBS, RUN)
_FILES = (CATALOG, f"{CATALOG}-wal", f"{CATALOG}-shm", CATALOG_LOCK, f"{CATALOG_LOCK}.turn", SERVER_LOCK)


def missing_right(settings: Settings) -> str:
    """Say what of the archive or the log this user may not use, and the command that mends it; '' where all may be used.

    It asks and tries nothing, so it takes no time. A name that is not there will be made.
    """
    root = os.path.abspath(settings.archive)
    use = os.R_OK | os.W_OK
    wanted = [
        *((os.path.join(root, name), use | os.X_OK) for name in _FOLDERS if _is_folder(root, name)),
        *((os.path.join(root, name), use) for name in _FILES),
        (os.path.join(root, ARCHIVE_ID_NAME), os.R_OK),
    ]
    if settings.log.file:
        directory = os.path.abspath(settings.log_directory)
        wanted.append((directory, use | os.X_OK))
        wanted += [(os.path.join(directory, name), use) for name in (LOG_FILE_NAME, *TWO_FILE_NAMES)]
    as_who_runs = os.access in os.supports_effective_ids
    for path, how in wanted:
        if os.path.lexists(path) and not os.access(path, how, effective_ids=as_who_runs):
            within = root if path.startswith(f"{root}{os.sep}") else path
            mend = usable_again(f"stowkeeper serve --archive {shlex.quote(root)}", within, root)
            return f"{path}{whose(path)} cannot be used by {ourselves()}: `{mend}` mends it."
    return ""


def _is_folder(root: str, name: str) -> bool:
    """Tell whether a folder of the archive is one: what is none is another fault, and told by whoever needs it."""
    return os.path.isdir(os.path.join(root, name))


def findings_at_start(settings: Settings) -> list[Finding]:
    """Return what a person should read in the log when a server starts; nothing where all is well."""
    return [finding for finding in _findings(settings) if finding.level is not Level.OK]


def _findings(settings: Settings) -> Iterator[Finding]:
    root = os.path.abspath(settings.archive)
    log_directory = str(settings.log_directory) if settings.log.file else None
    if is_foreign_to_root(root):
        owner = os.stat(root).st_uid
        yield warning(
            OWNER,
            f"this server runs as root, and the archive {root} belongs to {with_number(owner)}, who may not be able to use"
            " what is made now",
            run_as(owner, f"stowkeeper serve --archive {shlex.quote(root)}"),
        )
    else:
        yield from check_owners(root, log_directory)
    standing = root
    while not os.path.isdir(standing):
        standing = os.path.dirname(standing)
    yield from check_room(FileSystem(), standing, archive_options(settings).marks)
    now = dt.datetime.now(dt.UTC)
    for finding in check_certificates(settings, now, os.getpid()):
        # What cannot be used of [tls] ends the start, and what expired is among the warnings of its context.
        if not (finding.words.startswith("DICOM") and finding.level is Level.FAILURE):
            yield finding
