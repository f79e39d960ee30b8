"""Copies of files: shared blocks where the file system can, else bytes that never pass through the interpreter."""

import errno
import fcntl
import os
import sys
from collections.abc import Callable
from typing import Final

_CLONE: Final = 0x40049409
"""FICLONE of Linux: the target shares the blocks of the source until one of them is written to (btrfs, XFS)."""

_COPY_BYTES: Final = 8 << 20
"""Bytes that are copied between two looks whether to go on: some ten milliseconds."""

_CANNOT_CLONE: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.EBADF}
)


class CopyStoppedError(Exception):
    """A copy was given up in its middle, since nobody waits for it any more."""


def copy_into(source: int, target: int, is_over: Callable[[], bool]) -> int:
    """Copy a whole file into an empty one, given by their descriptors; return its length.

    `is_over` is asked now and then. Raises OSError, and CopyStoppedError where it said so.
    """
    length = os.fstat(source).st_size
    if _clone(source, target):
        return length
    done = 0
    while done < length:
        if is_over():
            raise CopyStoppedError
        count = os.sendfile(target, source, done, min(_COPY_BYTES, length - done))
        if not count:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        done += count
    return length


def _clone(source: int, target: int) -> bool:
    """Share the blocks of a file; False where that cannot be done here."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError as error:
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    return True
