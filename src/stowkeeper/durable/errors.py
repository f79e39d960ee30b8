"""What this room says when storage cannot do its part.

A plain `OSError` passes through where the caller knows what it asked for. The classes here are for what an errno
alone does not tell. All of them are ours or the machine's doing, never the peer's.
"""

import errno

_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_OUT_OF_OPEN_FILES = frozenset({errno.EMFILE, errno.ENFILE})

RAISE_OPEN_FILES = "raise the limit on open files (ulimit -n, LimitNOFILE=)"
"""What a person can do where no more files may be opened."""


class DurableError(Exception):
    """Storage cannot carry the promise; the text says what happened, to which path, and what to do."""


class StorageUnfitError(DurableError):
    """The folders of the archive cannot take an instance along its whole path."""


class ArchiveIdentityError(DurableError):
    """The identity file of an archive cannot be read as one."""


class FolderSyncError(OSError):
    """The sync of a folder failed: names made since the sync before it may be lost, whatever a later one says."""


def is_out_of_space(error: OSError) -> bool:
    """Tell whether bytes, inodes or a quota ran out, so that releasing the reserve may help."""
    return error.errno in _OUT_OF_SPACE


def is_out_of_open_files(error: OSError) -> bool:
    """Tell whether this process or the machine may open no more files: it says nothing of the disk, and passes."""
    return error.errno in _OUT_OF_OPEN_FILES
