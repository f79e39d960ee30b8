"""When a changed setting takes effect, and what somebody has to do for it: sentences for `stowkeeper config`."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from stowkeeper.app.running import RunningServer, digest_of_value, running_servers
from stowkeeper.app.service.daemon import Daemon
from stowkeeper.app.service.rights import user_name
from stowkeeper.app.setting_fields import Setting
from stowkeeper.app.settings import Settings

_UNIT = re.compile(r"/(stowkeeper[^/\s]*\.service)$", re.MULTILINE)


def effect_of(changed: Sequence[Setting], new: Settings) -> Iterator[str]:
    """Yield what is to be done for changed settings to take effect, for each server that runs on their archive."""
    archive = new.archive_path
    restart = [setting.key for setting in changed if not setting.reloadable]
    try:
        servers = running_servers(archive)
    except OSError as error:
        yield f"Whether a server runs on {archive} cannot be seen ({error.strerror}): {_in_general(restart)}"
        return
    if not servers:
        yield f"No server runs on {archive}: the next start takes it."
    for server in servers:
        outranked = [setting.key for setting in changed if setting.key in {*server.flags, *server.variables}]
        if outranked:
            yield (
                f"Process {server.pid} was started with a flag or a variable that outranks the file for {', '.join(outranked)}:"
                " it stays as it is there until a start without."
            )
        rest = [setting for setting in changed if setting.key not in outranked]
        if rest:
            yield _effect_on(server, rest, new, archive)


def _effect_on(server: RunningServer, changed: Sequence[Setting], new: Settings, archive: Path) -> str:
    waiting = [setting for setting in changed if not setting.reloadable]
    differing = [
        setting.key
        for setting in waiting
        if server.started_with.get(setting.key) != digest_of_value(new, setting)
    ]
    if differing:
        reason = "" if len(differing) == len(changed) else f", since {', '.join(differing)} waits for it"
        return f"It takes effect at a restart{reason}: {_restart(server, archive)}."
    if len(waiting) == len(changed):
        return f"Process {server.pid} was started with that value: nothing is to be done."
    return f"It takes effect at a reload, which keeps every association: {_reload(server)}."


def _in_general(restart: Sequence[str]) -> str:
    return "a restart takes it." if restart else "a reload (SIGHUP) or the next start takes it."


def _reload(server: RunningServer) -> str:
    if not server.is_here:
        return f"SIGHUP to process {server.pid} on {server.host_name}"
    unit = _unit_of(server.pid)
    return (
        f"`{_systemctl(*unit)} reload {unit[0]}`" if unit else f"`kill -HUP {server.pid}`{_who(server.pid)}"
    )


def _restart(server: RunningServer, archive: Path) -> str:
    if not server.is_here:
        return f"process {server.pid} runs on {server.host_name}, so restart it there"
    unit = _unit_of(server.pid)
    if unit:
        return f"`{_systemctl(*unit)} restart {unit[0]}`"
    if _daemon_of(archive) == server.pid:
        return f"`{shlex.join(['stowkeeper', 'service', 'restart', '--archive', str(archive)])}`{_who(server.pid)}"
    return f"end process {server.pid} by `kill {server.pid}`{_who(server.pid)}, and start it again as it was started"


def _daemon_of(archive: Path) -> int | None:
    try:
        return Daemon(archive).process_id()
    except OSError:
        return None


def _unit_of(pid: int) -> tuple[str, bool] | None:
    """Return the unit of systemd that a process runs in, and whether it is a user's; None where there is none."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _UNIT.search(groups)
    return None if found is None else (found[1], "/user@" in groups)


def _systemctl(_unit: str, of_user: bool) -> str:
    if of_user:
        return "systemctl --user"
    return "systemctl" if os.geteuid() == 0 else "sudo systemctl"


def _who(pid: int) -> str:
    """Say who may send a signal to a process, where that is somebody else."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return ""
    return "" if os.geteuid() in {0, owner} else f" as user {user_name(owner)} or root"
