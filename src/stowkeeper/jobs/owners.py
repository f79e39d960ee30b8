"""Who owns running jobs: each engine has a file of its own that it holds by `flock` while it lives.

The system gives the lock back whatever the death, so who finds the file free knows at once that its owner is gone. A file
that is not there says nothing: somebody may have removed it under a living owner.
"""

import errno
import os
import re
import time
from contextlib import suppress

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where the heartbeat alone decides
    fcntl = None  # type: ignore[assignment]  # a module or nothing, asked for where it is used

from stowkeeper.jobs.limits import OWNER_LOCK_POLL_SECONDS, OWNER_LOCK_SECONDS

_SUFFIX = ".owner"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_CAN_LOCK = getattr(fcntl, "flock", None) is not None
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


class OwnerInUseError(Exception):
    """Another engine has this name and lives; the text says so."""


class OwnerLock:
    """The lock of one engine on its own file, from `acquire` to `release` or the end of the process."""

    def __init__(self, folder: str, owner: str) -> None:
        """Name the owner: letters, digits, dots, dashes and underscores, up to 128. Raises ValueError for others."""
        if not _NAME.fullmatch(owner):
            raise ValueError(f"{owner!r} cannot name the owner of jobs: it becomes the name of a file")
        self._folder = folder
        self._owner = owner
        self._path = os.path.join(folder, owner + _SUFFIX)
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Make the file and lock it. Raises OwnerInUseError, and OSError."""
        os.makedirs(self._folder, mode=_FOLDER_MODE, exist_ok=True)
        deadline = time.monotonic() + OWNER_LOCK_SECONDS
        while not self._try():
            if time.monotonic() >= deadline:
                raise OwnerInUseError(
                    f"another process runs jobs as {self._owner}: each needs a name of its own"
                )
            time.sleep(OWNER_LOCK_POLL_SECONDS)  # somebody looks whether we live

    def _try(self) -> bool:
        descriptor = os.open(self._path, _FLAGS | os.O_CREAT, _FILE_MODE)
        # Who looked whether we live may have removed the file between opening and locking it.
        if _lock(descriptor) and _is_at(descriptor, self._path):
            self._descriptor = descriptor
            return True
        os.close(descriptor)
        return False

    def release(self, *, keep_file: bool = False) -> None:
        """Give the lock back, and remove the file unless it is to tell others that we are gone. Twice is fine."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            if not keep_file:
                with suppress(OSError):  # whoever finds it free removes it
                    os.unlink(self._path)
            os.close(descriptor)


def is_gone(folder: str, owner: str) -> bool:
    """Tell whether an owner is dead for certain: its file is there and nobody holds it.

    Where the system cannot tell, as one that has no lock to give, nothing is certain.
    """
    try:
        descriptor = os.open(os.path.join(folder, owner + _SUFFIX), _FLAGS)
    except (OSError, ValueError):
        return False
    try:
        return _CAN_LOCK and _lock(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def remove_files_of_dead(folder: str, *, but: frozenset[str]) -> None:
    """Remove the files of dead owners, but of some whose jobs are still to be taken over."""
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            owner = name.removesuffix(_SUFFIX)
            if name != owner and owner not in but:
                _remove_if_free(os.path.join(folder, name))


def _remove_if_free(path: str) -> None:
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return
    try:
        if _CAN_LOCK and _lock(descriptor) and _is_at(descriptor, path):
            with suppress(OSError):
                os.unlink(path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    if not _CAN_LOCK:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
