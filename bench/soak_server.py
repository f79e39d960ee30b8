"""The server of a soak: its settings, its lives from start to kill, and what each costs."""

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from support.command_line import environment
from support.processes import Program, ProgramFailed, free_port, running

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
RELOAD_SECONDS_MAX = 30.0
AFTER_A_KILL_SECONDS = 5.0
"""For so long after a new start connections may still fail that were begun before the kill."""
QUIET_SECONDS = 2
COMMITTER = "COMMITTER"
BROKEN_SETTINGS = ('[dicom]\nae_titel = "X"\n', "this is no TOML", '[log]\nlevel = "loud"\n')

MODALITIES = ("CT1", "MR1", "US1")
_POLICIES = dict(zip(MODALITIES, ("keep", "refuse", "replace"), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a server used at a moment."""

    at: float
    """Seconds since the beginning of the soak."""
    life: int
    """Which start of the server it is, from 0."""
    resident: int
    """Bytes of memory."""
    descriptors: int
    threads: int


class SoakServer:
    """Starts, kills, reloads and measures one server on fixed ports."""

    def __init__(self, folder: Path, *, endpoint_port: int, report_port: int) -> None:
        self.folder = folder
        self.archive = folder / "archive"
        self.export = folder / "export"
        self.told_by_command = folder / "quiet-studies"
        self.config = folder / "stowkeeper.toml"
        self.port, self.http_port = free_port(), free_port()
        self.samples: list[Sample] = []
        self.life = -1
        self.peak = 0
        self._endpoint_port, self._report_port = endpoint_port, report_port
        self._begun = time.monotonic()
        self._changing = threading.RLock()
        self._stack = ExitStack()
        self._program: Program | None = None
        self._up_since: float | None = None
        self.export.mkdir(parents=True)
        self.told_by_command.touch()
        self._write(self._settings())

    # Settings

    def _settings(self, *, level: str = "info") -> str:
        tell = ["/bin/sh", "-c", 'echo "$1" >> "$2"', "sh", "{study_instance_uid}", str(self.told_by_command)]
        peers = "".join(
            f'\n[[peers]]\nname = "{name}"\nae_title = "{name}"\nduplicates = "{policy}"\n'
            for name, policy in _POLICIES.items()
        )
        return (
            '[storage]\nslot_pool_size = 64\nreserve_size = "1 MiB"\n'
            'refuse_instance_below = "64 MB"\nrefuse_association_below = "32 MB"\n'
            f'[log]\nlevel = "{level}"\nconsole = false\n'
            f"[events]\nstudy_quiet_seconds = {QUIET_SECONDS}\n"
            f'{peers}\n[[peers]]\nname = "committer"\nae_title = "{COMMITTER}"\nhost = "127.0.0.1"\n'
            f"port = {self._report_port}\n"
            '\n[[event_targets]]\nname = "endpoint"\n'
            'events = ["instance.received", "instance.repeated", "instance.removed", "study.quiet"]\n'
            f'url = "http://127.0.0.1:{self._endpoint_port}/"\nat_once = 2\n'
            f'\n[[event_targets]]\nname = "command"\nevents = ["study.quiet"]\ncommand = {json.dumps(tell)}\n'
            f'\n[[export_folders]]\nname = "export"\nfolder = {json.dumps(str(self.export))}\n'
        )

    def _write(self, settings: str) -> None:
        self.config.write_text(settings, encoding="utf-8")

    def reload(self, chance: Random) -> bool:
        """Have the settings read anew, broken ones now and then, which must change nothing; return whether the log said so."""
        with self._changing:
            if not self.is_up():
                return True
            is_said = True
            if chance.random() < 1 / 3:
                self._write(chance.choice(BROKEN_SETTINGS))
                is_said = self._read_anew("the settings were not read anew, the old ones stay")
            for level in ("debug", "info"):
                self._write(self._settings(level=level))
                is_said = self._read_anew("settings read anew") and is_said
            return is_said

    def _read_anew(self, words: str) -> bool:
        """Send SIGHUP and wait until the log says what came of it."""
        log = self.archive / "log" / "stowkeeper.log"
        before = log.stat().st_size
        self._running().process.send_signal(signal.SIGHUP)

        def is_said() -> bool:
            with log.open("rb") as lines:
                size = lines.seek(0, os.SEEK_END)
                lines.seek(before if size >= before else 0)  # a smaller one is a new one
                return words.encode() in lines.read()

        return wait_until(is_said, RELOAD_SECONDS_MAX)

    # Lives

    def start(self) -> None:
        """Start it, and return when it is ready."""
        with self._changing:
            log = self.folder / f"serve-{self.life + 1}.log"
            argv = [
                *(sys.executable, "-m", "stowkeeper", "serve", "--archive", str(self.archive)),
                *("--config", str(self.config), "--port", str(self.port), "--http-port", str(self.http_port)),
            ]
            stack = ExitStack()
            program = stack.enter_context(
                running("stowkeeper", argv, log=log, environment=environment(), from_scratch=True)
            )
            self._stack, self._program = stack, program
            program.wait_until(
                lambda: "stowkeeper ready" in program.log_text(), "before it was ready", READY_SECONDS_MAX
            )
            self.life += 1
            self._up_since = time.monotonic()

    def kill_and_start(self) -> None:
        """End it as a power switch would, and start it anew."""
        with self._changing:
            self._up_since = None
            self._running().kill()
            self._stack.close()
            self.start()

    def stop(self) -> int:
        """Tell it to stop; return its exit code."""
        with self._changing:
            program = self._running()
            self._up_since = None
            program.process.send_signal(signal.SIGTERM)
            return program.process.wait(STOP_SECONDS_MAX)

    def close(self) -> None:
        """End it, whatever it does."""
        self._stack.close()

    def is_up(self) -> bool:
        """Tell whether it is ready."""
        return self._up_since is not None

    def may_fail_since(self, begun: float) -> bool:
        """Tell whether what was begun at a time (monotonic) may have met a server that was down, or a kill."""
        since = self._up_since
        return since is None or begun < since + AFTER_A_KILL_SECONDS

    def check_alive(self) -> None:
        """Raise ProgramFailed where it has ended by itself."""
        if self.is_up() and self._running().process.poll() is not None:
            raise ProgramFailed(f"the server ended by itself:\n{self._running().log_text()[-2000:]}")

    def _running(self) -> Program:
        if self._program is None:
            raise ProgramFailed("the server was never started")
        return self._program

    # Costs

    def take_sample(self) -> None:
        """Note what it uses now."""
        if not self.is_up():
            return
        place = Path(f"/proc/{self._running().pid}")
        try:
            status = (place / "status").read_text(encoding="ascii")
            descriptors = len(list((place / "fd").iterdir()))
        except OSError:  # it was killed a moment ago
            return
        numbers = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+)", status, re.MULTILINE)}
        self.peak = max(self.peak, numbers["VmHWM"] * 1024)
        self.samples.append(
            Sample(
                at=time.monotonic() - self._begun,
                life=self.life,
                resident=numbers["VmRSS"] * 1024,
                descriptors=descriptors,
                threads=numbers["Threads"],
            )
        )


def wait_until(condition: Callable[[], bool], seconds: float, look_seconds: float = 0.2) -> bool:
    """Wait until a condition holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(look_seconds)
    return True
