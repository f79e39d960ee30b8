"""The units of systemd, as text: a service, and the socket that may be opened for it before it runs.

Every directive is explained in systemd.exec(5), systemd.service(5) and systemd.socket(5). docs/service.md tells how much of
the machine is left to a server that somebody has broken into.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.limits import (
    RESTART_SECONDS,
    SOCKET_BACKLOG,
    STARTS_MAX,
    STARTS_WITHIN_SECONDS,
    WATCHDOG_SECONDS,
)
from stowkeeper.app.service.plan import SERVICE_NAME, ServicePlan

NOTIFY_RELOAD_VERSION: Final = 253
"""The first systemd that waits for the end of a reload (Type=notify-reload)."""

_HOMES: Final = tuple(map(Path, ("/home", "/root", "/run/user")))
"""What ProtectHome= hides."""

_TEMPORARY: Final = tuple(map(Path, ("/tmp", "/var/tmp")))  # noqa: S108 - names to compare with, nothing is made there

_PROTOCOLS: Final = {"dicom": "DICOM", "http": "HTTP"}

NOT_HELPED_BY_RESTART: Final = (ExitCode.USAGE, ExitCode.NO_PERMISSION, ExitCode.NO_INPUT, ExitCode.SETTINGS)
"""Exit codes with which a server ends in the same way when it is started again."""


def quoted(word: str) -> str:
    """Write one word of a list of words, such as paths, so that systemd reads it as it is: in quotes, `%` doubled."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def command_line(words: Sequence[str]) -> str:
    """Write a command as ExecStart= has it. Variables are put in for `$` in arguments, so it is doubled there."""
    first, *arguments = words
    return " ".join((quoted(first), *(quoted(argument.replace("$", "$$")) for argument in arguments)))


def argument_in(unit: str, option: str) -> str | None:
    """Return what stands behind an option of the command in the text of a service unit of ours; None where it is not."""
    found = re.search(rf'^ExecStart=.* "{option}" "((?:[^"\\]|\\.)*)"', unit, re.MULTILINE)
    if found is None:
        return None
    return re.sub(r"\\(.)", r"\1", found[1]).replace("%%", "%").replace("$$", "$")


def service_unit(
    plan: ServicePlan, *, version: int, is_socket_activated: bool = False, of_user: bool = False
) -> str:
    """Return the text of the service unit for a version of systemd; `of_user` for the manager of one user's services."""
    return _text(
        (
            ("Unit", _unit_lines(plan, is_socket_activated=is_socket_activated, of_user=of_user)),
            (
                "Service",
                (
                    *_service_lines(plan, version, is_socket_activated=is_socket_activated, of_user=of_user),
                    *_sandbox_lines(plan, is_socket_activated=is_socket_activated, of_user=of_user),
                ),
            ),
            (
                "Install",
                (
                    *([f"Also={' '.join(map(socket_name, plan.listening))}"] if is_socket_activated else []),
                    f"WantedBy={'default' if of_user else 'multi-user'}.target",
                ),
            ),
        )
    )


def socket_units(plan: ServicePlan) -> dict[str, str]:
    """Return the texts of the socket units by their file names: one for each address, since each has a name of its own.

    Raises CommandError for an address or a port that systemd cannot open before the server runs.
    """
    return {
        socket_name(name): _text(
            (
                ("Unit", (f"Description=Stowkeeper, socket for {_PROTOCOLS[name]}",)),
                ("Socket", tuple(_socket_lines(name, host, port))),
                ("Install", ("WantedBy=sockets.target",)),
            )
        )
        for name, (host, port) in plan.listening.items()
    }


def socket_name(name: str) -> str:
    """Return the file name of the socket unit of `dicom` or `http`."""
    return f"{SERVICE_NAME}.socket" if name == "dicom" else f"{SERVICE_NAME}-{name}.socket"


def _socket_lines(name: str, host: str, port: int) -> Iterator[str]:
    try:
        address = ip_address(host)
    except ValueError:
        raise CommandError(
            f"a socket unit takes an address, and {name}.host is {host!r}: set an IP address, or leave --socket-activated out.",
            ExitCode.USAGE,
        ) from None
    if not port:
        raise CommandError(
            f"a socket unit takes a port, and {name}.port is 0: set one, or leave --socket-activated out.",
            ExitCode.USAGE,
        )
    yield f"ListenStream=[{address}]:{port}" if address.version == 6 else f"ListenStream={address}:{port}"
    if address.version == 6:
        yield f"BindIPv6Only={'both' if address.is_unspecified else 'default'}"
    yield f"FileDescriptorName={name}"
    yield f"Service={SERVICE_NAME}.service"
    yield f"Backlog={SOCKET_BACKLOG}"


def _unit_lines(plan: ServicePlan, *, is_socket_activated: bool, of_user: bool) -> Iterator[str]:
    yield "Description=Stowkeeper, a DICOM storage server"
    if not of_user:  # a user's manager knows none of these
        yield "Wants=network-online.target"
        yield "After=network-online.target time-sync.target"
    if is_socket_activated:
        sockets = " ".join(map(socket_name, plan.listening))
        yield f"Requires={sockets}"
        yield f"After={sockets}"
    yield f"RequiresMountsFor={' '.join(quoted(str(folder)) for folder in plan.written)}"
    yield f"StartLimitIntervalSec={STARTS_WITHIN_SECONDS}"
    yield f"StartLimitBurst={STARTS_MAX}"


def _service_lines(
    plan: ServicePlan, version: int, *, is_socket_activated: bool, of_user: bool
) -> Iterator[str]:
    if version >= NOTIFY_RELOAD_VERSION:
        yield "Type=notify-reload"
    else:
        yield "Type=notify"
        yield "ExecReload=/bin/kill -HUP $MAINPID"
    yield "NotifyAccess=main"
    yield f"ExecStart={command_line(plan.command)}"
    if is_socket_activated:
        yield f"Sockets={' '.join(map(socket_name, plan.listening))}"
    if not of_user:
        yield f"User={plan.user}"
        yield f"Group={plan.group or plan.user}"
    yield "UMask=0027"
    yield f"SyslogIdentifier={SERVICE_NAME}"
    yield "# A large catalog takes its time to be brought to a new version."
    yield "TimeoutStartSec=infinity"
    yield f"TimeoutStopSec={plan.stop_seconds}"
    yield f"WatchdogSec={WATCHDOG_SECONDS}"
    yield "# The server first, its children only when it did not end in time."
    yield "KillMode=mixed"
    yield "Restart=on-failure"
    yield f"RestartSec={RESTART_SECONDS}"
    yield f"RestartPreventExitStatus={' '.join(str(int(code)) for code in NOT_HELPED_BY_RESTART)}"
    yield f"LimitNOFILE={plan.open_files}"
    yield "# A core would hold images and names."
    yield "LimitCORE=0"


def _sandbox_lines(plan: ServicePlan, *, is_socket_activated: bool, of_user: bool) -> Iterator[str]:
    yield ""
    yield "NoNewPrivileges=yes"
    yield "LockPersonality=yes"
    yield "MemoryDenyWriteExecute=yes"
    yield "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"
    yield "RestrictNamespaces=yes"
    yield "RestrictRealtime=yes"
    yield "RestrictSUIDSGID=yes"
    yield "SystemCallArchitectures=native"
    yield "SystemCallErrorNumber=EPERM"
    yield "SystemCallFilter=@system-service"
    yield "SystemCallFilter=~@privileged @resources"
    if of_user:  # the others are for a manager that is root
        return
    yield ""
    binds = plan.has_privileged_port and not is_socket_activated
    yield f"CapabilityBoundingSet={'CAP_NET_BIND_SERVICE' if binds else ''}"
    yield f"AmbientCapabilities={'CAP_NET_BIND_SERVICE' if binds else ''}"
    yield f"PrivateUsers={'no' if binds else 'yes'}"
    yield "PrivateDevices=yes"
    yield "DevicePolicy=closed"
    yield f"PrivateTmp={'no' if _is_any_below(plan, _TEMPORARY) else 'yes'}"
    yield "PrivateIPC=yes"
    yield "PrivateMounts=yes"
    yield "ProtectClock=yes"
    yield "ProtectControlGroups=yes"
    yield f"ProtectHome={'read-only' if _is_any_below(plan, _HOMES) else 'yes'}"
    yield "ProtectHostname=yes"
    yield "ProtectKernelLogs=yes"
    yield "ProtectKernelModules=yes"
    yield "ProtectKernelTunables=yes"
    yield "ProtectProc=invisible"
    yield "ProtectSystem=strict"
    own = [quoted(str(folder)) for folder in plan.written]
    # A folder of others may be on a disk that is away: the server starts all the same, and its events wait.
    theirs = [quoted(f"-{folder}") for folder in plan.outlets]
    # In a container systemd 252 leaves /run writable, whatever ProtectSystem= says: with it goes /run/lock, which is everybody's.
    yield "ReadOnlyPaths=/run"
    yield f"ReadWritePaths={' '.join((*own, *theirs))}"
    yield "TemporaryFileSystem=/dev/shm:mode=1777,nosuid,nodev,noexec"
    yield "KeyringMode=private"
    yield "RemoveIPC=yes"


def _is_any_below(plan: ServicePlan, folders: Sequence[Path]) -> bool:
    # A virtual environment leads to an interpreter that may lie in somebody's home.
    code = (plan.command[0], sys.prefix, sys.base_prefix, __file__)
    needed = (*map(Path, code), *plan.written, *plan.read, *plan.outlets, *plan.programs)
    return any(path.is_relative_to(folder) for path in needed for folder in folders)


def _text(sections: Sequence[tuple[str, Iterable[str]]]) -> str:
    return "\n\n".join("\n".join((f"[{name}]", *lines)) for name, lines in sections) + "\n"
