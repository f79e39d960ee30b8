"""Users, owners and modes in words, and the commands that change them."""

import grp
import os
import pwd
import shlex
import stat


def user_name(user: int) -> str:
    """Return the name of a user, its number where it has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def group_name(group: int) -> str:
    """Return the name of a group, its number where it has none."""
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def ourselves() -> str:
    """Return the name of the user as whom this process runs, with the number where that says more."""
    return with_number(os.geteuid())


def with_number(user: int) -> str:
    """Return the name of a user with the number."""
    name = user_name(user)
    return f"user {user}" if name == str(user) else f"{name} (user {user})"


def owner_and_mode(status: os.stat_result) -> str:
    """Say whose something is and who may what."""
    owner, group = user_name(status.st_uid), group_name(status.st_gid)
    return f"owner {owner}, group {group}, mode {stat.S_IMODE(status.st_mode):04o}"


def whose(path: str) -> str:
    """Say in parentheses, with a blank before them, whose a path is; '' where we may not even see that."""
    try:
        return f" ({owner_and_mode(os.stat(path))})"
    except OSError:
        return ""


def give_to(user: int, path: str) -> str:
    """Return the command that gives a folder and all in it to a user."""
    return f"sudo chown -R {shlex.quote(user_name(user))} {shlex.quote(path)}"


def usable_again(again: str, path: str, archive: str) -> str:
    """Return what lets us use a path in an archive: to ask `again` as the user it belongs to; or to get it, if that is us or root.

    An archive in use by a server's user is not to be taken from it by whoever asks.
    """
    try:
        owner = os.stat(archive).st_uid
    except OSError:
        owner = 0
    return run_as(owner, again) if owner not in {0, os.geteuid()} else give_to(os.geteuid(), path)


def run_as(user: int, command: str) -> str:
    """Return a command as another user runs it; from root's shell where that is us."""
    return f"sudo -u {shlex.quote(user_name(user) if user_name(user) != str(user) else f'#{user}')} {command}"
