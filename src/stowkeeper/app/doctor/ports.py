"""Whether the port that a server is to listen on is free, our own server's, another program's, or not ours to take."""

import errno
import os
import re
import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise

from stowkeeper.app.doctor.accounts import ourselves
from stowkeeper.app.doctor.finding import Finding, failure, ok, warning
from stowkeeper.durable.identity import ARCHIVE_ID_NAME

PORT = "port"

_LISTENING = "0A"
_UNPRIVILEGED = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def check_port(
    what: str, host: str, port: int, own: Sequence[tuple[int, int]], *, setting: str, flag: str
) -> Iterator[Finding]:
    """Look at a port that the settings name; 0 is any free one.

    `own` has the pid and the port of each server that runs on this archive on this machine, for this very use.
    """
    if port == 0:
        yield ok(PORT, f"{what}: any free port is taken ({setting} is 0)")
        return
    listening = [pid for pid, listened in own if listened == port]
    if listening:
        yield ok(PORT, f"{what}: our own server (pid {listening[0]}) listens on port {port}")
        return
    if own:
        pid, other = own[0]
        yield ok(
            PORT, f"{what}: our own server (pid {pid}) listens on port {other}; {setting} is {port} here"
        )
        return
    yield _tried(what, host, port, setting, flag)


def _tried(what: str, host: str, port: int, setting: str, flag: str) -> Finding:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    other_port = f"stowkeeper serve {flag} N, or {setting} in the settings"
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        return failure(PORT, f"{what}: {host} is no address: {error.strerror}", f"getent hosts {host}")
    with socket.socket(family, kind) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1)
        except OSError as error:
            return _refused(what, place, port, other_port, error)
    return ok(PORT, f"{what}: {place} is free")


def _refused(what: str, place: str, port: int, other_port: str, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port)
        if holder is None:
            names = f"sudo ss -ltnp 'sport = :{port}'  # names it; or take another port: {other_port}"
            return failure(PORT, f"{what}: {place} is taken by another program", names)
        pid, name = holder
        if pid == 1:
            return ok(
                PORT,
                f"{what}: {place} is held by {name} (pid 1), which hands it to a server by a socket unit",
            )
        archive = archive_of_server(pid)
        if archive is not None:
            named = shlex.quote(archive)
            words = (
                f"{what}: {place} is taken by a server of Stowkeeper (pid {pid}), on the archive {archive}"
            )
            if not os.path.lexists(os.path.join(archive, ARCHIVE_ID_NAME)):
                words += (
                    ", which is not there now: its disk may be away, and the server goes on when it is back"
                )
                return failure(PORT, words, f"findmnt -T {named}; sudo mount -a")
            return failure(
                PORT, words, f"stowkeeper status --archive {named}  # or take another port: {other_port}"
            )
        mend = f"kill {pid}  # or take another port: {other_port}"
        return failure(PORT, f"{what}: {place} is taken by {name} (pid {pid})", mend)
    if error.errno in {errno.EACCES, errno.EPERM}:
        first = _unprivileged_from()
        words = f"{what}: {ourselves()} may not listen on port {port}: the ports below {first} are privileged"
        other = f"or for every user: sudo sysctl net.ipv4.ip_unprivileged_port_start={port}; or {other_port}"
        return warning(PORT, words, f"sudo stowkeeper service install  # its service has that right; {other}")
    if error.errno == errno.EADDRNOTAVAIL:
        return failure(PORT, f"{what}: {place} is no address of this machine", "ip address")
    return failure(PORT, f"{what}: nobody can listen on {place}: {error.strerror}", other_port)


def _unprivileged_from() -> str:
    try:
        with open(_UNPRIVILEGED, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return "1024"


def holder_of(port: int) -> tuple[int, str] | None:
    """Return pid and name of the process that listens on a port, None where the system does not tell us."""
    inodes = set(_listening_sockets(port))
    if not inodes:
        return None
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # gone, or another user's
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    found = _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
                    if found is not None and found[1] in inodes:
                        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
                            return int(pid), stream.read().strip()
    return None


def archive_of_server(pid: int) -> str | None:
    """Return the archive that a process was told to serve by its command line; None where it is no such server."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as stream:
            archive = archive_named(stream.read().split("\0"))
        return None if archive is None else os.path.join(os.readlink(f"/proc/{pid}/cwd"), archive)
    except OSError:
        return None


def archive_named(words: Sequence[str]) -> str | None:
    """Return the archive that a command line names, as it says it; None where it starts no server or names none."""
    if "serve" not in words or not any(os.path.basename(word) == "stowkeeper" for word in words):
        return None
    for word, following in pairwise([*words, ""]):
        if word == "--archive":
            return following or None
        if word.startswith("--archive="):
            return word.partition("=")[2] or None
    return None


def _listening_sockets(port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port (proc_net(5))."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table, encoding="ascii") as stream:
            for line in stream.readlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
