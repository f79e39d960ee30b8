"""Who runs a command, for the audit trail."""

import getpass
import os


def acting_user() -> str:
    """Return the name of the user whose process this is; the number where the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry
        return f"user {os.getuid()}"
