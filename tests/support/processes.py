"""Start real programs on free ports of the loopback interface, and end them whatever happens.

Used by the tests and by the benchmark. A program runs in a session of its own, so that its children end with it, and is
tied to the process that started it (`tethered.py`), so that a killed test run leaves nothing behind.
"""

import contextlib
import itertools
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import forked

LOOPBACK = "127.0.0.1"
START_SECONDS_MAX = 30.0
"""How long a program may take until it listens; Orthanc on a busy machine needs a few seconds."""
STOP_SECONDS_MAX = 15.0
"""How long a program may take to end after SIGTERM before it is killed."""
POLL_SECONDS = 0.01
PORTS_FIRST = 20_000
"""The ports that are given by name begin here, below those that systems give by themselves (32768 on Linux, 49152 elsewhere)."""
PORTS_A_PROCESS = 750
"""So many has each process of a test run to choose from, the same ones in turn; sixteen processes have ports of their own."""


class ProgramFailed(Exception):  # noqa: N818 - the name says what happened, as the test report shows it
    """A program ended or stayed silent where it should have served; the text holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A running program: its process, and the file that takes its standard output and error."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Return the process id of the program itself."""
        return self.process.pid

    def log_text(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_until(
        self, condition: Callable[[], bool], what: str, seconds: float = START_SECONDS_MAX
    ) -> None:
        """Wait until a condition holds; raise ProgramFailed when the program ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise ProgramFailed(
                    f"{self.name} ended with {self.process.returncode} {what}:\n{self._log_end()}"
                )
            if time.monotonic() > deadline:
                raise ProgramFailed(
                    f"{self.name} was not ready after {seconds:g} s {what}:\n{self._log_end()}"
                )
            time.sleep(POLL_SECONDS)

    def wait_until_listening(self, port: int, seconds: float = START_SECONDS_MAX) -> None:
        """Wait until the program accepts connections on a port of the loopback interface."""
        self.wait_until(lambda: is_listening(port), f"before it listened on port {port}", seconds)

    def stop(self, seconds: float = STOP_SECONDS_MAX) -> int:
        """End the program and all its children: SIGTERM, then SIGKILL; return its exit status.

        Repeating it is harmless.
        """
        if self.process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        self._signal(signal.SIGKILL)  # what is left of its session: children that outlived it, or itself
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End the program at once with SIGKILL, as a power switch would."""
        self._signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS_MAX)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _log_end(self) -> str:
        return "\n".join(self.log_text().splitlines()[-20:])


WITHOUT_HTTP = {"STOWKEEPER_HTTP__PORT": "off"}
"""For servers that tests start: the port as shipped would be the same for all of them. A flag outweighs it."""


@contextlib.contextmanager
def running(
    name: str,
    argv: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    from_scratch: bool = True,
) -> Iterator[Program]:
    """Run a program for the length of a block; its output goes to the file `log`.

    Where it need not start from scratch, `stowkeeper` is forked (`forked.py`).
    """
    with log.open("wb") as output:
        process = forked.start(
            argv,
            from_scratch=from_scratch,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**WITHOUT_HTTP, **os.environ, **(environment or {})},
            start_new_session=True,
        )
    program = Program(name=name, process=process, log=log)
    try:
        yield program
    finally:
        program.stop()


def _own_ports() -> Iterator[int]:
    """Give the ports of this process in turn, for ever; where it begins is chance, so that two test runs seldom meet."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    place = int(worker) if worker.isdecimal() else os.getpid()
    first = PORTS_FIRST + place % 16 * PORTS_A_PROCESS
    begin = secrets.randbelow(PORTS_A_PROCESS)
    return itertools.cycle([*range(first + begin, first + PORTS_A_PROCESS), *range(first, first + begin)])


_ports = _own_ports()


def free_port() -> int:
    """Return a TCP port of the loopback interface that was free a moment ago, and that nobody is given by chance.

    One that the system chooses, it may choose for a connection of another test before the program that is to have it listens.
    """
    for _ in range(PORTS_A_PROCESS):
        port = next(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise ProgramFailed(f"none of {PORTS_A_PROCESS} ports is free")


def is_listening(port: int) -> bool:
    """Tell whether something accepts connections on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0
