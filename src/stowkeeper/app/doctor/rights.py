"""Whether this user can create, read, write and delete where a server has to, and whose the folders are.

It is tried, since nobody foresees it: access lists, a quota, a read-only mount and a security module all speak then.
"""

import errno
import os
import secrets
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from stowkeeper.app.doctor.accounts import (
    give_to,
    ourselves,
    owner_and_mode,
    run_as,
    usable_again,
    whose,
    with_number,
)
from stowkeeper.app.doctor.finding import Finding, failure, ok, warning
from stowkeeper.app.doctor.limits import ENTRIES_LOOKED_AT_MAX, ENTRIES_NAMED_MAX, PROBE_BYTES
from stowkeeper.archive.folder import JOBS, LOG, RUN
from stowkeeper.archive.quarantine import QUARANTINE
from stowkeeper.archive.shelf_lock import OBJECTS
from stowkeeper.durable.limits import PROBE_ATTEMPTS
from stowkeeper.durable.probe import PROBE_FOLDER
from stowkeeper.durable.process_folder import DEPOT

RIGHTS = "rights"
OWNER = "owner"

_FOLDERS = (DEPOT, OBJECTS, QUARANTINE, JOBS, RUN)
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM})


def is_foreign_to_root(root: str) -> bool:
    """Tell whether we are root, and the archive another user's: what we may and make says nothing of that user then."""
    try:
        return os.geteuid() == 0 and os.stat(root).st_uid != 0
    except OSError:
        return False


def check_rights(root: str, log_directory: str | None) -> Iterator[Finding]:
    """Try every folder of an archive, and the log's where it writes one; a folder that is not there yet is made by a server."""
    if not os.path.isdir(root):
        yield _place_of_new("archive", root)
        return
    if is_foreign_to_root(root):
        owner = os.stat(root).st_uid
        yield warning(
            RIGHTS,
            f"root may everything, so nothing was tried: the archive {root} belongs to {with_number(owner)}",
            run_as(owner, f"stowkeeper doctor --archive {shlex.quote(root)}"),
        )
        return
    for path in _folders_of(root, log_directory):
        yield _tried(path, root)
    if log_directory is not None:
        yield from _log_folder(os.path.abspath(log_directory))


def _log_folder(path: str) -> Iterator[Finding]:
    """Say of a log folder that could not be tried whether it can be made; one in a folder that is closed to us was told."""
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        yield _place_of_new("log folder", path)
    except OSError:
        return
    else:
        if not is_folder:
            yield failure(
                RIGHTS, f"{path} is no folder, so no log can be in it", f"ls -ld {shlex.quote(path)}"
            )


def check_owners(root: str, log_directory: str | None) -> Iterator[Finding]:
    """See that everything belongs to the owner of the archive's folder: one command by root is enough to change that."""
    try:
        owner = os.stat(root).st_uid
    except OSError:
        return
    wrong: list[str] = []
    unread: list[str] = []
    for folder in [*_folders_of(root, log_directory)]:
        try:
            if os.stat(folder).st_uid != owner:
                wrong.append(folder)
            with os.scandir(folder) as entries:
                for entry in islice(entries, ENTRIES_LOOKED_AT_MAX):
                    with suppress(FileNotFoundError):  # a server works there
                        if entry.name not in _WHOSEVER and entry.stat(follow_symlinks=False).st_uid != owner:
                            wrong.append(entry.path)
        except OSError:
            unread.append(folder)
    names = list(dict.fromkeys(wrong))
    if names:
        folder = (
            root if all(name.startswith(f"{root}{os.sep}") for name in names) else os.path.dirname(names[0])
        )
        yield warning(
            OWNER,
            f"{_shown(names)} {'belongs' if len(names) == 1 else 'belong'} to another user than the archive, which is"
            f" that of {with_number(owner)}: a server of that user may not be able to write there",
            give_to(owner, folder),
        )
    elif not unread:
        yield ok(OWNER, f"everything looked at in {root} belongs to {with_number(owner)}")


_WHOSEVER = frozenset({"lost+found"})
"""What ext4 makes in every new file system, root's and nobody's business."""


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(names[:ENTRIES_NAMED_MAX])
    more = len(names) - ENTRIES_NAMED_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _folders_of(root: str, log_directory: str | None) -> list[str]:
    """Return the folders that are there: the archive's, and the log's if one is written."""
    paths = [root, *(os.path.join(root, name) for name in _FOLDERS)]
    if log_directory is not None:
        paths.append(os.path.abspath(log_directory))
    elif os.path.isdir(os.path.join(root, LOG)):
        paths.append(os.path.join(root, LOG))
    return [path for path in dict.fromkeys(paths) if os.path.isdir(path)]


def _place_of_new(what: str, path: str) -> Finding:
    """Say whether a folder that is not there can be made by this user."""
    above = Path(os.path.abspath(path))
    while not os.path.lexists(above):
        above = above.parent
    place = shlex.quote(path)
    missing = f"there is no {what} {path} yet"
    if not above.is_dir():
        return failure(
            RIGHTS, f"{missing}, and none can be: {above} is no folder", f"ls -ld {shlex.quote(str(above))}"
        )
    as_who_runs = os.access in os.supports_effective_ids
    if not os.access(above, os.R_OK | os.W_OK | os.X_OK, effective_ids=as_who_runs):
        words = f"{missing}, and {ourselves()} cannot make it in {above}{whose(str(above))}"
        return failure(RIGHTS, words, f"sudo mkdir -p {place} && sudo chown {os.geteuid()} {place}")
    return ok(RIGHTS, f"{missing}; {ourselves()} can make it in {above}")


def _tried(path: str, root: str) -> Finding:
    """Create, write, read and delete a file in a folder."""
    for _ in range(PROBE_ATTEMPTS - 1):
        with suppress(
            FileNotFoundError
        ):  # another who tries at this moment cleared the folder of probes away
            return _tried_once(path, root)
    return _tried_once(path, root)


def _tried_once(path: str, root: str) -> Finding:
    # A file among the studies would be one too many for whoever verifies at this moment; a probe's folder is known.
    within = os.path.join(path, PROBE_FOLDER) if path == os.path.join(root, OBJECTS) else path
    name = os.path.join(within, f".doctor-{os.getpid()}-{secrets.token_hex(4)}")
    content = secrets.token_bytes(PROBE_BYTES)
    step = "list"
    try:
        os.listdir(path)
        step = "create a file in"
        if within != path:
            with suppress(FileExistsError):
                os.mkdir(within, 0o700)
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            step = "write a file in"
            os.write(descriptor, content)
            step = "read a file in"
            is_same = os.pread(descriptor, PROBE_BYTES, 0) == content
        finally:
            os.close(descriptor)
            step = "delete a file in"
            os.unlink(name)
        if within != path:
            with suppress(OSError):  # another who tries at this moment has a file in it
                os.rmdir(within)
        status = os.stat(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and within != path:
            raise
        return _refused(path, root, step, error)
    if not is_same:
        return failure(RIGHTS, f"a file in {path} does not read as it was written", "sudo dmesg | tail -n 50")
    words = f"{path}: {ourselves()} can create, read, write and delete; {owner_and_mode(status)}"
    if stat.S_IMODE(status.st_mode) & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return warning(
            RIGHTS, f"{words}: every user of this machine may change it", f"chmod o-w {shlex.quote(path)}"
        )
    return ok(RIGHTS, words)


def _refused(path: str, root: str, step: str, error: OSError) -> Finding:
    words = f"{ourselves()} cannot {step} {path}: {error.strerror}{whose(path)}"
    place = shlex.quote(path)
    if error.errno == errno.EROFS:
        return failure(
            RIGHTS,
            f"{words}; its disk is mounted read-only",
            f'sudo mount -o remount,rw "$(findmnt -no TARGET -T {place})"',
        )
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return failure(RIGHTS, f"{words}; room has to be made on the disk", f"df -h {place}; df -i {place}")
    if error.errno not in _NO_RIGHT:
        return failure(RIGHTS, f"{words}; the disk may be broken", "sudo dmesg | tail -n 50")
    with suppress(OSError):
        if os.stat(path).st_uid == os.geteuid():
            return failure(RIGHTS, words, f"chmod u+rwx {place}")
    owned = root if path == root or path.startswith(f"{root}{os.sep}") else path
    again = f"stowkeeper doctor --archive {shlex.quote(root)}"
    return failure(RIGHTS, words, usable_again(again, owned, root))
