"""The user that a service runs as: a system account of its own, without a password and without a shell."""

import grp
import os
import pwd
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.rights import user_name

_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
"""What useradd and systemd both take for the name of a user."""


def check_user_name(user: str) -> None:
    """Raise CommandError for a name that no system user can have, and for root."""
    if user == "root":
        raise CommandError(
            "a server that takes data from a network does not run as root: leave --user out, or name another user.",
            ExitCode.USAGE,
        )
    if not _NAME.fullmatch(user):
        raise CommandError(
            f"{user!r} cannot be the name of a system user: it begins with a small letter, and small letters, digits, _ and -"
            " follow, 31 at most.",
            ExitCode.USAGE,
        )


def user_of_archive(archive: Path, fallback: str) -> str:
    """Return who is to run a server: the owner of an archive that is there, where that is not root."""
    try:
        owner = os.stat(archive).st_uid
    except OSError:
        return fallback
    return user_name(owner) if owner else fallback


def exists(user: str) -> bool:
    """Tell whether there is such a user."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def group_of(user: str) -> str:
    """Return the name of a user's own group; the user's name where there is no such user yet."""
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def making(user: str, archive: Path) -> list[str]:
    """Return the command that makes a system user."""
    shell = shutil.which("nologin", path="/usr/sbin:/sbin:/usr/bin") or "/bin/false"
    return [
        "useradd",
        "--system",
        "--user-group",
        "--home-dir",
        str(archive),
        "--no-create-home",
        "--shell",
        shell,
        user,
    ]


def make(user: str, archive: Path) -> None:
    """Make a system user. Raises CommandError where the system does not."""
    words = making(user, archive)
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - words of our own
    except FileNotFoundError:
        said = "there is no useradd here"
    else:
        if done.returncode == 0:
            return
        said = " ".join(done.stderr.split())
    raise CommandError(
        f"user {user} could not be made ({said}): make it with `sudo {shlex.join(words)}`, or name one that there is with"
        " --user.",
        ExitCode.IO_ERROR,
    )
