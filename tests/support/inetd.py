"""Starting `storescp --inetd` as a super server does: with a connection on descriptor 0, and pipes to see what is printed."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support import forked
from support.dropin import program_of
from support.raw_peer import SECONDS_MAX, RawPeer

EXIT_SECONDS_MAX = 20.0


class ConnectedPeer(RawPeer):
    """A raw peer on a connection that is there already."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(SECONDS_MAX)
        self._received = bytearray()
        self._commands: dict[int, bytes] = {}
        self.accepted: dict[int, str] = {}
        self.results: dict[int, int] = {}
        self.user_information: dict[int, bytes] = {}


@dataclass(slots=True, kw_only=True)
class Served:
    """A program of a super server: the peer at the other end, and how it ended."""

    peer: ConnectedPeer
    process: subprocess.Popen[bytes]
    output: bytes = b""

    def end(self) -> int:
        """Close the peer's end and wait for the program's; return its exit code."""
        self.peer.close()
        out, err = self.process.communicate(timeout=EXIT_SECONDS_MAX)
        self.output = out + err
        return self.process.returncode


def connected_pair(family: socket.AddressFamily) -> tuple[socket.socket, socket.socket]:
    """Return two ends of a connection, by TCP or within the system."""
    if family is socket.AF_UNIX:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


@contextlib.contextmanager
def served_by_inetd(
    *options: str | Path,
    family: socket.AddressFamily = socket.AF_INET,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Start a program for one connection; kill it behind the block if it is still there."""
    ours, theirs = connected_pair(family)
    with theirs:
        process = forked.start(
            program_of("storescp", "--inetd", *options),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
    with ConnectedPeer(ours) as peer:
        try:
            yield Served(peer=peer, process=process)
        finally:
            process.kill()
            process.communicate()
