"""Small files that are written whole, once, and never replaced: the archive's identity, notes in quarantine."""

import os
import secrets
from contextlib import suppress

from stowkeeper.durable.filesystem import FileSystem


def write_once(files: FileSystem, path: str, data: bytes, *, mode: int = 0o644) -> bool:
    """Make a small file durable under an absolute path; False, and nothing changed, when the name is in use.

    The name appears with all bytes behind it or not at all: they are written and synced under a name of their own
    (`<path>.<process>-<random>.new`, which a crash may leave behind), then linked. Raises OSError.
    """
    temporary = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.new"
    descriptor = files.create(temporary, mode)
    try:
        try:
            files.write(descriptor, [data], 0)
            files.synchronize(descriptor)
        finally:
            files.close(descriptor)
        try:
            files.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        with suppress(OSError):  # an error on its way out says more
            files.unlink(temporary)
    files.synchronize_directory(path.rpartition("/")[0] or "/")
    return True


def make_folders(files: FileSystem, path: str, *, mode: int = 0o755) -> None:
    """Make a folder and those above it that are missing, each with a durable name; `path` is absolute.

    The folder above one that was there already is synced too, since its maker may not have come so far, unless it is
    not ours to read. Raises OSError; a folder whose name could not be made durable is taken away again.
    """
    above = path.rpartition("/")[0] or "/"
    try:
        made = files.make_directory(path, mode)
    except FileNotFoundError:
        make_folders(files, above, mode=mode)
        made = files.make_directory(path, mode)
    try:
        files.synchronize_directory(above)
    except OSError as error:
        if made:  # a later sync would not prove its name
            with suppress(OSError):
                files.remove_directory(path)
            raise
        if not isinstance(error, PermissionError):
            raise
