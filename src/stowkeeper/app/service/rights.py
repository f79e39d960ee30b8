"""Rights that are missing: which one, and how to get it."""

import contextlib
import os
import pwd
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.plan import program
from stowkeeper.app.setting_problems import SettingsError

_CAP_NET_BIND_SERVICE: Final = 1 << 10
_UNPRIVILEGED_PORTS: Final = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


class RightMissingError(CommandError):
    """We may not do what was asked; the text says which right is missing and how to get it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, ExitCode.NO_PERMISSION)


def as_called() -> list[str]:
    """Return how this program was called: below /opt it is on nobody's search path, least of all on that of sudo."""
    return list(program()) if os.path.basename(sys.argv[0]) == "__main__.py" else sys.argv[:1]


def again_as(user: str) -> str:
    """Return the command line of this process as another user would type it."""
    return shlex.join(["sudo", *([] if user == "root" else ["-u", user]), *as_called(), *sys.argv[1:]])


def need_root(what: str) -> None:
    """Raise RightMissingError unless we are root; `what` says what takes that, as a sentence begins."""
    if os.geteuid() != 0:
        raise RightMissingError(
            f"{what} takes the right to administrate this machine (root), and this is user {user_name(os.geteuid())}: run"
            f" `{again_as('root')}`, or take --user-unit for a service of this user alone."
        )


def user_name(number: int) -> str:
    """Return the name of a user, or its number where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def nearest_that_is_seen(path: Path) -> Path:
    """Return a path, or the nearest above it of which this user may know whose it is."""
    while True:
        try:
            os.stat(path)
        except OSError:
            path = path.parent
        else:
            return path


@contextlib.contextmanager
def reading_settings() -> Iterator[None]:
    """Raise RightMissingError where the settings that are loaded within cannot be read by this user: nothing is wrong in them."""
    try:
        yield
    except SettingsError as error:
        by_effective_user = os.access in os.supports_effective_ids
        for path in (Path(problem.place) for problem in error.problems):
            if not path.is_absolute() or not os.path.lexists(path):
                continue
            if not os.access(path, os.R_OK, effective_ids=by_effective_user):
                owner = user_name(os.lstat(path).st_uid)
                raise RightMissingError(
                    f"user {user_name(os.geteuid())} may not read the settings in {path}, which belongs to {owner}: run"
                    f" `{again_as(owner)}`."
                ) from None
        raise


def check_may_write(folder: Path) -> None:
    """Raise RightMissingError where this user may not make files in a folder, or in the one that it would be made in."""
    existing = folder
    while not os.path.lexists(existing):
        existing = existing.parent
    by_effective_user = os.access in os.supports_effective_ids
    if os.access(existing, os.R_OK | os.W_OK | os.X_OK, effective_ids=by_effective_user):
        return
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        raise CommandError(
            f"{existing} is on a disk that is mounted read-only: mount it to be written.", ExitCode.IO_ERROR
        )
    owner, ourselves = user_name(os.stat(existing).st_uid), user_name(os.geteuid())
    if owner == ourselves:
        raise RightMissingError(
            f"user {ourselves} may not write in {existing}, which is its own: run `chmod u+rwx {shlex.quote(str(existing))}`."
        )
    name = shlex.quote(str(folder))
    # Never to give away what is above: all kinds of things are in there.
    give = (
        f"sudo chown -R {ourselves} {name}"
        if existing == folder
        else f"sudo install -d -o {ourselves} {name}"
    )
    raise RightMissingError(
        f"user {ourselves} may not write in {existing}, which belongs to {owner}: run `{again_as(owner)}`, or have a folder by"
        f" `{give}`."
    )


def check_may_listen(listening: Mapping[str, tuple[str, int]]) -> None:
    """Raise RightMissingError for a port that takes a privilege which this process does not have."""
    if os.geteuid() == 0 or _has_capability(_CAP_NET_BIND_SERVICE):
        return
    first = _first_unprivileged_port()
    for name, (_, port) in listening.items():
        if 0 < port < first:
            raise RightMissingError(
                f"port {port} ({name}.port) is below {first} and takes the privilege CAP_NET_BIND_SERVICE: have systemd give it"
                " (`stowkeeper service install`), let every user have it with"
                f" `sudo sysctl net.ipv4.ip_unprivileged_port_start={port}`, or choose a port such as 11112."
            )


def _has_capability(bit: int) -> bool:
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & bit)
    return False


def _first_unprivileged_port() -> int:
    with contextlib.suppress(OSError, ValueError), open(_UNPRIVILEGED_PORTS, encoding="ascii") as limit:
        return int(limit.read())
    return 1024


def unreachable_for(
    number: int, group_numbers: Iterable[int], paths: Iterable[Path], name: str
) -> Iterator[str]:
    """Yield what on the way to some files a user may not pass or read, each as a sentence with the user's `name`."""
    groups = set(group_numbers)
    for path in paths:
        for part in (*reversed(path.parents), path):
            try:
                found = os.stat(part)
            except FileNotFoundError:
                break
            wanted = 0o1 if part != path or part.is_dir() else 0o4
            bits = found.st_mode >> (6 if found.st_uid == number else 3 if found.st_gid in groups else 0)
            if not bits & wanted:
                yield f"user {name} may not {'enter' if wanted == 0o1 else 'read'} {part}"
                break
