"""The identity of an archive: one UUID in the file `archive.id`, and the same in its database.

It tells a database of this archive from a foreign one. It is made once, and only the reader of both can tell what a
difference means.
"""

import uuid
from contextlib import suppress

from stowkeeper.durable.errors import ArchiveIdentityError
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.limits import ARCHIVE_ID_LENGTH_MAX
from stowkeeper.durable.write_once import write_once

ARCHIVE_ID_NAME = "archive.id"


def read_archive_id(files: FileSystem, archive: str) -> str | None:
    """Return the identity of the archive in a folder, None when it has none yet.

    Raises ArchiveIdentityError when the file holds something else, and OSError.
    """
    path = f"{archive}/{ARCHIVE_ID_NAME}"
    try:
        descriptor = files.open_for_reading(path)
    except FileNotFoundError:
        return None
    try:
        data = files.read(descriptor, ARCHIVE_ID_LENGTH_MAX + 1, 0)
    finally:
        files.close(descriptor)
    with suppress(ValueError):
        text = data.decode("ascii").strip()
        if len(data) <= ARCHIVE_ID_LENGTH_MAX and str(uuid.UUID(text)) == text:
            return text
    raise ArchiveIdentityError(
        f"{path} holds no archive identity (one UUID in lower case): restore it from a backup, or remove it and run "
        "`stowkeeper rebuild`, which makes a new one"
    )


def ensure_archive_id(files: FileSystem, archive: str, *, mode: int = 0o644) -> str:
    """Return the identity of the archive in a folder and make it, in a file of a mode, if it has none.

    It is durable when this returns.

    Of two processes that make it at once both get the same. Raises ArchiveIdentityError and OSError.
    """
    path = f"{archive}/{ARCHIVE_ID_NAME}"
    if read_archive_id(files, archive) is None:
        write_once(files, path, f"{uuid.uuid4()}\n".encode("ascii"), mode=mode)
    found = read_archive_id(files, archive)
    if found is None:
        raise ArchiveIdentityError(
            f"{path} was removed while it was made: see what else works on this archive"
        )
    files.synchronize_directory(archive)  # whoever linked it may not yet have come so far
    return found
