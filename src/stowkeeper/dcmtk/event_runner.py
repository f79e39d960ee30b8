"""Runs the commands behind objects and studies (-xcr, -xcs) in a shell, as the operator wrote them.

A command inherits standard output and standard error and nothing else: no socket, no file. Its exit code says nothing to
us, as with DCMTK.
"""

import subprocess
from typing import Final

from stowkeeper.dcmtk.limits import COMMANDS_MAX

SHELL: Final = "/bin/sh"


class EventRunner:
    """Runs one command after the other.

    With `waits` (-xs) each is over when `run` returns; else none is waited for, as long as there are not too many.
    """

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self._running: list[subprocess.Popen[bytes]] = []

    def run(self, command: str) -> None:
        """Run a command. Raises OSError when no shell can be started."""
        self.collect()
        if len(self._running) >= COMMANDS_MAX:
            self._running.pop(0).wait()
        process = subprocess.Popen([SHELL, "-c", command], stdin=subprocess.DEVNULL)  # noqa: S603 - the operator's own command
        if self._waits:
            process.wait()
        else:
            self._running.append(process)

    def collect(self) -> None:
        """Take note of the commands that have ended, so that the system forgets them."""
        self._running = [process for process in self._running if process.poll() is None]
