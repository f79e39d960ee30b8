"""Whether a sync returns, how long it takes, and on which file system the files stand."""

import os
import shlex
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from stowkeeper.app.doctor.finding import Finding, failure, ok, warning
from stowkeeper.app.doctor.limits import (
    PROBE_BYTES,
    SYNC_SECONDS_MAX,
    SYNC_SECONDS_SLOW,
    SYNC_TRIES,
)
from stowkeeper.archive.shelf_lock import OBJECTS, ShelfLock
from stowkeeper.durable.errors import DurableError
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.mounts import FileSystemKind
from stowkeeper.durable.probe import probe_storage
from stowkeeper.durable.process_folder import DEPOT, PROBE_NAME, ProcessFolder

FILE_SYSTEM = "file system"
SYNC = "sync"

_IGNORES_SYNC = frozenset({"nobarrier", "barrier=0", "volatile"})
_SYSTEM_LOG = "sudo dmesg | tail -n 50"


def check_file_system(files: FileSystem, place: str) -> Iterator[Finding]:
    """Say on which file system a folder stands that is there, and what that means for the promise."""
    mount = files.mount(place)
    name = mount.type or "an unknown file system"
    quoted = shlex.quote(place)
    move = f"stowkeeper serve --archive DIR  # a folder on ext4, xfs or btrfs; see: findmnt -T {quoted}"
    match mount.kind:
        case FileSystemKind.MEMORY:
            yield warning(
                FILE_SYSTEM,
                f"{place} is in memory ({name}): nothing there survives a power cut or a restart",
                move,
            )
        case FileSystemKind.LAYERED:
            yield warning(
                FILE_SYSTEM,
                f"{place} is in a container's own layer ({name}), and is gone with the container",
                f"docker run --volume /srv/stowkeeper:{quoted} …",
            )
        case FileSystemKind.NETWORK:
            yield failure(
                FILE_SYSTEM,
                f"{place} is on another machine ({name}): SQLite can lose data there, and `serve` refuses it",
                move,
            )
        case FileSystemKind.PROMISED:
            yield ok(FILE_SYSTEM, f"{place} is on {name}")
        case _:
            is_fuse = name.startswith("fuse")
            reason = (
                "a program and not the system decides there when a file is on the disk"
                if is_fuse
                else "power cuts were thought through for ext4, xfs and btrfs only"
            )
            yield warning(FILE_SYSTEM, f"{place} is on {name}: {reason}", move)
    for option in sorted(mount.options & _IGNORES_SYNC):
        yield failure(
            FILE_SYSTEM,
            f"{place} is mounted with {option}: a sync does not reach the disk, and a power cut loses what was answered",
            f'sudo mount -o remount,barrier "$(findmnt -no TARGET -T {quoted})"',
        )


def check_syncing(files: FileSystem, root: str) -> Iterator[Finding]:
    """Run the path of an instance on the disk, and time its syncs. A disk that does not answer is waited for no longer."""
    if not os.path.isdir(os.path.join(root, DEPOT)):
        yield ok(SYNC, "there is no depot yet, so no sync was tried")
        return
    trial = _Trial(files, root)
    # On a thread of its own: nothing gets one out of a disk that stands still.
    thread = threading.Thread(target=trial.run, name="doctor", daemon=True)
    thread.start()
    thread.join(SYNC_SECONDS_MAX)
    if thread.is_alive():
        yield failure(
            SYNC,
            f"nothing came back from the disk of {root} for {SYNC_SECONDS_MAX:g} s: it stands still, or another process"
            " keeps the shelf locked",
            f"{_SYSTEM_LOG}; fuser -v {shlex.quote(os.path.join(root, DEPOT))}",
        )
    elif trial.problem:
        yield failure(SYNC, trial.problem, _SYSTEM_LOG)
    else:
        yield _timed(root, trial.seconds)


def _timed(root: str, seconds: Sequence[float]) -> Finding:
    middle = statistics.median(seconds)
    words = (
        f"a file of {PROBE_BYTES >> 10} KiB in {root} is on the disk after {middle * 1000:.1f} ms, the middle one of"
        f" {len(seconds)} tries"
    )
    if middle > SYNC_SECONDS_SLOW:
        return warning(SYNC, f"{words}: that is slow, and each answer waits for it", "iostat -x 1 5")
    return ok(SYNC, words)


class _Trial:
    """The path of an instance, in a folder of the depot of our own, beside whoever receives."""

    def __init__(self, files: FileSystem, root: str) -> None:
        self._files = files
        self._root = root
        self.seconds: list[float] = []
        self.problem = ""

    def run(self) -> None:
        """Run it; what went wrong is in `problem`, how long the syncs took in `seconds`."""
        files, root = self._files, self._root
        try:
            # The system tells of a sync that failed to one alone: so that it is not another's that is told to us.
            with ShelfLock(files, root).held():
                folder = ProcessFolder.create(files, os.path.join(root, DEPOT))
                try:
                    self._time_syncs(folder.path)
                    shelf = os.path.join(root, OBJECTS)
                    if os.path.isdir(shelf):
                        probe_storage(files, process_folder=folder.path, shelf=shelf)
                finally:
                    folder.release()
        except DurableError as error:
            self.problem = str(error)
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            self.problem = (
                f"the path of an instance cannot be gone in {root}{place}: {error.strerror or error}"
            )

    def _time_syncs(self, folder: str) -> None:
        files = self._files
        path = os.path.join(folder, PROBE_NAME)
        descriptor = files.create(path, 0o600)
        try:
            for number in range(SYNC_TRIES):
                files.write(descriptor, [os.urandom(PROBE_BYTES)], number * PROBE_BYTES)
                began = time.perf_counter()
                files.synchronize(descriptor)
                self.seconds.append(time.perf_counter() - began)
        finally:
            files.close(descriptor)
            with suppress(OSError):
                files.unlink(path)
