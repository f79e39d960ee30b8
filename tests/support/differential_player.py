"""Run in a private network: start receivers, play scenarios against them, and report what was answered.

The job is `{"runs": [...], "workers": n}`, a run `{"argv", "folder", "port", "environment", "is_inetd", "steps"}`.
The answer has for each run `{"exit", "answers"}`; standard output and error lie in the run's folder as `stdout` and
`stderr`. Whatever else the receiver left is to be seen in that folder, too. Nothing of it is interpreted here.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.differential_sender import Sender
from support.private_network import bring_loopback_up

SECONDS_MAX = 20.0
"""How long a receiver may take to listen, to end, or to come to rest."""
POLL_SECONDS = 0.002
EVENTS = "events"
_FIRST = 5
"""The first milliseconds of a second are left out: DCMTK reads the second and its part one after the other."""
_PR_SET_CHILD_SUBREAPER = 36
_LISTENS, _IN_TIME_WAIT = "0A", "06"
_TETHER = str(Path(__file__).with_name("tethered.py"))


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS_MAX) -> bool:
    """Wait until a condition holds; False when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


@dataclass(slots=True, kw_only=True)
class Receiver:
    """A program under comparison. As a super server's child it is started anew for each connection."""

    run: dict[str, Any]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    listener: socket.socket | None = None

    @property
    def folder(self) -> Path:
        return Path(self.run["folder"])

    @property
    def port(self) -> int:
        return int(self.run["port"])

    def start(self, stdin: int | socket.socket = subprocess.DEVNULL) -> None:
        """Start the program; its output is added to what an earlier one left."""
        with (self.folder / "stdout").open("ab") as out, (self.folder / "stderr").open("ab") as err:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-I", "-S", _TETHER, *self.run["argv"]],
                    stdin=stdin,
                    stdout=out,
                    stderr=err,
                    cwd=self.folder,
                    env=self.run["environment"],
                    start_new_session=True,
                )
            )

    def serves(self) -> bool:
        """Wait until the program listens or has ended, and tell which."""
        if self.run["is_inetd"]:
            self.listener = socket.create_server(("127.0.0.1", self.port))
            return True
        self.start()
        process = self.processes[0]
        wait_until(lambda: self.listens() or process.poll() is not None)
        return process.poll() is None

    def listens(self) -> bool:
        """Tell whether somebody listens on the port. A connection would be seen in the log."""
        return any(state == _LISTENS for state in _sockets(self.port))

    def connected(self) -> None:
        """Be told that a connection has been made, which a super server hands over."""
        if self.listener is not None:
            accepted, _ = self.listener.accept()
            wait_until(
                lambda: all(each.poll() is not None for each in self.processes)
            )  # so that order is order
            with accepted:
                self.start(accepted)

    def is_at_rest(self) -> bool:
        """Tell whether every connection is closed on this side, and the program waits."""
        if any(state not in (_LISTENS, _IN_TIME_WAIT) for state in _sockets(self.port)):
            return False
        return all(each.poll() is not None or _state(each.pid) == "S" for each in self.processes)

    def end(self) -> list[int | None]:
        """End the program and wait for all that it started; None stands for one that had to be killed."""
        rested = wait_until(self.is_at_rest)
        codes = [self._end_of(process, rested) for process in self.processes]
        if self.listener is not None:
            self.listener.close()
        return codes

    def _end_of(self, process: subprocess.Popen[bytes], rested: bool) -> int | None:
        if process.poll() is None and not self.run["is_inetd"]:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_MAX if rested else 1.0)
            if wait_until(lambda: _is_reaped(process.pid)):
                return process.returncode if rested else None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


def _is_reaped(group: int) -> bool:
    """Reap what has ended of a program's children, which become ours when it is gone; tell whether none is left."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            pass
        return False
    return True


def _state(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="ascii", errors="replace")
            .rpartition(")")[2]
            .split()[0]
        )
    except OSError:
        return ""


def _sockets(port: int) -> Iterator[str]:
    """Give the state of each TCP socket of a local port."""
    wanted = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/self/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if local.endswith(wanted):
                    yield state


def play(run: dict[str, Any]) -> dict[str, Any]:
    """Start a receiver, do to it what the steps say, and end it."""
    receiver = Receiver(run=run)
    if not receiver.serves():
        return {"exit": receiver.end(), "answers": []}
    sender = Sender(port=receiver.port, connected=receiver.connected)
    waits = _Waits(receiver)
    answers = []
    try:
        for step in run["steps"]:
            kind = step.pop("step")
            answers.append(waits.do(kind, step) if hasattr(waits, kind) else sender.do(kind, step))
    except Exception as error:  # noqa: BLE001 - what a receiver does to the sender is an answer, too
        answers.append(f"the sender failed: {error!r}")
    finally:
        sender.close()
        codes = receiver.end()
    return {"exit": codes, "answers": answers}


class _Waits:
    """Steps that wait for something other than an answer."""

    def __init__(self, receiver: Receiver) -> None:
        self.folder = receiver.folder

    def do(self, kind: str, step: dict[str, Any]) -> Any:
        step.pop("connection")
        return getattr(self, kind)(**step)

    def NextMillisecond(self, not_after: int) -> None:  # noqa: N802 - the name of the step
        begun = _milliseconds()
        wait_until(lambda: begun < _milliseconds() and _FIRST <= _milliseconds() % 1000 <= not_after)

    def AwaitEvents(self, count: int) -> bool:  # noqa: N802 - the name of the step
        path = self.folder / EVENTS
        return wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count)

    def AwaitFolder(self, prefix: str, count: int) -> bool:  # noqa: N802 - the name of the step
        def found() -> int:
            return sum(path.name.startswith(prefix) for path in (self.folder / "out").rglob("*"))

        return wait_until(lambda: found() >= count)


def main() -> None:
    """Do the job on standard input; a run that fails in itself ends all."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    bring_loopback_up()
    job = json.load(sys.stdin)
    with ThreadPoolExecutor(job["workers"]) as pool:
        json.dump({"runs": list(pool.map(play, job["runs"]))}, sys.stdout)


if __name__ == "__main__":
    main()
