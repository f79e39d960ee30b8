"""The program and what the system lets it have: versions, servers that run, open files."""

import platform
import resource
import ssl
from collections.abc import Iterator, Sequence

from stowkeeper import __version__
from stowkeeper.app.doctor.finding import Finding, ok, warning
from stowkeeper.app.running import RunningServer
from stowkeeper.database.library import sqlite_version

PROGRAM = "program"
SERVER = "server"
OPEN_FILES = "open files"


def check_program() -> Iterator[Finding]:
    """Say which versions are at work."""
    openssl = " ".join(ssl.OPENSSL_VERSION.split()[:2])
    yield ok(
        PROGRAM,
        f"Stowkeeper {__version__}, Python {platform.python_version()}, SQLite {sqlite_version()}, {openssl}, on"
        f" {platform.system()} {platform.release()}",
    )


def check_servers(running: Sequence[RunningServer], root: str) -> Iterator[Finding]:
    """Say which servers run on the archive, and whether they are of this version."""
    if not running:
        yield ok(SERVER, f"no server runs on {root} now")
    for server in running:
        words = f"a server of version {server.version} runs, pid {server.pid} on {server.host_name}"
        if server.version != __version__:
            yield warning(
                SERVER,
                f"{words}, and {__version__} is installed: it has to be restarted",
                f"kill {server.pid}; stowkeeper serve",
            )
        else:
            yield ok(SERVER, words)


def check_open_files(needed: int) -> Iterator[Finding]:
    """Compare what a server with these settings can need with what the system lets this user have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        limit = "any number of" if hard == resource.RLIM_INFINITY else str(hard)
        yield ok(OPEN_FILES, f"{limit} files may be open, and these settings can need {needed}")
        return
    yield warning(
        OPEN_FILES,
        f"{hard} files may be open, and these settings can need {needed}: senders beyond what the limit allows are cut off"
        " or refused",
        f"ulimit -n {needed}  # as root before the start, or LimitNOFILE={needed} in the systemd unit",
    )
