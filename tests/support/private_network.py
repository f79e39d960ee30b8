"""A network namespace of its own for programs that would listen on every address of the machine.

DCMTK's receivers know no bind address. In a namespace there is nothing but a loopback interface, so nobody can reach
them but the program that was started beside them. That program is a Python file of ours, given a job as JSON on its
standard input; its answer is JSON on its standard output.
"""

import fcntl
import functools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECONDS_MAX = 100.0
"""How long a job may take before it counts as hanging."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_TESTS = Path(__file__).parents[1]


@functools.cache
def _unshare() -> list[str] | None:
    """Return the command that opens a namespace, None where there is none for this user."""
    program = shutil.which("unshare")
    if program is None:
        return None
    ways = ([program, "--net"], [program, "--map-root-user", "--net"])
    for way in ways:
        tried = subprocess.run([*way, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if tried.returncode == 0:
            return way
    return None


def need_private_network() -> None:
    """Skip the test where no namespace can be had."""
    if _unshare() is None:
        pytest.skip("needs a network namespace: run as root, or allow user namespaces")


def run_in_private_network(script: Path, job: Any, *, seconds: float = SECONDS_MAX) -> Any:
    """Run a Python file in a namespace of its own with a job, and return its answer."""
    way = _unshare()
    if way is None:
        raise OSError("no network namespace can be had here")
    run = subprocess.run(
        [*way, sys.executable, str(script)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
    )
    if run.returncode != 0:
        raise AssertionError(f"{script.name} ended with {run.returncode}:\n{run.stderr}")
    return json.loads(run.stdout)


def bring_loopback_up() -> None:
    """Bring up the loopback interface, which is down in a new namespace."""
    with socket.socket() as any_socket:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
