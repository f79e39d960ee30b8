"""systemd, by its own commands: units are written, and `systemctl` and `journalctl` are called."""

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.limits import LAST_WORDS_LINES_MAX
from stowkeeper.app.service.plan import SERVICE_NAME
from stowkeeper.app.service.rights import RightMissingError, again_as, user_name
from stowkeeper.app.service.systemd_unit import argument_in

RUNNING: Final = Path("/run/systemd/system")
"""This folder is there where systemd runs (sd_booted(3))."""

SYSTEM_UNITS: Final = Path("/etc/systemd/system")
UNIT: Final = f"{SERVICE_NAME}.service"
_OLDEST: Final = 240
"""The version that is taken for granted where none is told: that of the oldest distributions with our Python."""

_RUNS: Final = {"active", "activating", "reloading"}
"""The states of a service that has been started, and is to be started again when it had to be stopped."""

_REFUSED: Final = re.compile(
    r"access denied|authentication (is )?required|not authorized|permission denied|insufficient permissions",
    re.IGNORECASE,
)


class Systemd:
    """The manager of the system's services, or with `of_user` that of this user's."""

    def __init__(self, *, of_user: bool = False, units: Path | None = None) -> None:
        """Take `units` as the folder of the units in place of the usual one."""
        self.of_user = of_user
        configuration = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        self.units = units or (Path(configuration, "systemd", "user") if of_user else SYSTEM_UNITS)

    @staticmethod
    def is_running() -> bool:
        """Tell whether systemd manages this machine."""
        return RUNNING.is_dir()

    @property
    def unit_path(self) -> Path:
        """Where the service unit is or would be."""
        return self.units / UNIT

    def version(self) -> int:
        """Return the version of systemd."""
        if shutil.which("systemctl") is None:
            return _OLDEST
        found = re.search(r"^systemd (\d+)", self._run("systemctl", "--version").stdout)
        return int(found[1]) if found else _OLDEST

    def sockets(self) -> list[str]:
        """Return the names of the socket units that are installed for the service."""
        return sorted(path.name for path in self.units.glob(f"{SERVICE_NAME}*.socket"))

    def install(self, texts: Mapping[str, str]) -> bool:
        """Write units by their names, take away sockets of an earlier installation, and have all start with the machine.

        A server that runs is left alone, but where its sockets change: it is started anew then, which True tells.
        """
        self.units.mkdir(parents=True, exist_ok=True)
        there = {name: (self.units / name).read_text(encoding="utf-8") for name in self.sockets()}
        old = [name for name in there if name not in texts]
        changed = [name for name, text in there.items() if texts.get(name) != text]
        runs = bool(changed) and self.is_active()
        if changed:
            # systemd closes a socket whose address changes, does not open it anew, and starts the server without it.
            self.control("stop", *changed, *([UNIT] if self.unit_path.exists() else []))
        if old:
            self.control("disable", *old)
        for name in old:
            (self.units / name).unlink()
        for name, text in texts.items():
            path = self.units / name
            new = path.with_name(f".{name}.new")
            new.write_text(text, encoding="utf-8")
            new.chmod(0o644)
            new.replace(path)
        self.control("daemon-reload")
        self.control("enable", *texts)
        if runs:
            self.start()
        return runs

    def uninstall(self) -> None:
        """Stop the service and take its units away."""
        names = [*self.sockets(), *([UNIT] if self.unit_path.exists() else [])]
        if not names:
            raise CommandError(f"no service is installed: {self.unit_path} is not there.", ExitCode.NO_INPUT)
        self.control("disable", "--now", *names)
        for name in names:
            (self.units / name).unlink(missing_ok=True)
        self.control("daemon-reload")

    def check_installed(self) -> None:
        """Raise CommandError where there is no unit."""
        if not self.unit_path.exists():
            raise CommandError(
                f"no service is installed: {self.unit_path} is not there. `stowkeeper service install` writes it; with --daemon"
                " a server is started that systemd knows nothing of.",
                ExitCode.NO_INPUT,
            )

    def start(self) -> None:
        """Start the sockets, and the service; return when it is ready. Raises CommandError with what it said."""
        self.check_installed()
        self._forget_failures()
        self.control("start", *self.sockets(), UNIT)

    def stop(self) -> None:
        """Stop the sockets, which would start it again, and the service; return when it has ended."""
        self.check_installed()
        self.control("stop", *self.sockets(), UNIT)

    def restart(self) -> None:
        """Start the service anew. Its sockets stay: who connects meanwhile waits in them."""
        self.check_installed()
        self._forget_failures()
        self.control("restart", UNIT)

    def _forget_failures(self) -> None:
        # The limit of starts is for those that nobody asked for. Without the right to this, the start itself says so.
        self._run("systemctl", *self._scope(), "--no-ask-password", "reset-failed", UNIT)

    def archive(self) -> Path | None:
        """Return the archive of the service that is installed; None where there is none."""
        found = self._argument("--archive")
        return None if found is None else Path(found)

    def config(self) -> str | None:
        """Return the settings file that is named to the service; None where there is none."""
        return self._argument("--config")

    def _argument(self, option: str) -> str | None:
        try:
            return argument_in(self.unit_path.read_text(encoding="utf-8"), option)
        except FileNotFoundError:
            return None

    def is_active(self) -> bool:
        """Tell whether the service was started, and is to run."""
        return self.properties().get("ActiveState") in _RUNS

    def properties(self) -> dict[str, str]:
        """Return what systemd says of the service."""
        names = "LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts,StatusText,StateChangeTimestamp,Result"
        shown = self._run("systemctl", *self._scope(), "show", f"--property={names}", UNIT).stdout
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def show_journal(self, *, lines: int, follow: bool) -> NoReturn:
        """Become journalctl, which shows the log of the service. Raises RightMissingError where it would show none of it."""
        unit = "--user-unit" if self.of_user else "--unit"
        if not self.of_user and os.geteuid() != 0:
            # Who has a journal of their own gets that one alone, with a hint, and no failure.
            hint = self._run("journalctl", unit, UNIT, "--lines=0").stderr
            if "not seeing messages" in hint or _REFUSED.search(hint):
                raise RightMissingError(
                    f"user {user_name(os.geteuid())} may not read the journal of the system: run `{again_as('root')}`, or be in"
                    " the group systemd-journal."
                )
        words = ["journalctl", unit, UNIT, f"--lines={lines}", *(["--follow"] if follow else [])]
        os.execvp(words[0], words)  # noqa: S606 - no shell is wanted

    def control(self, verb: str, *names: str) -> None:
        """Call systemctl. Raises RightMissingError, and CommandError with what it said."""
        words = ["systemctl", *self._scope(), "--no-ask-password", verb, *names]
        begun = int(time.time())
        done = self._run(*words)
        if done.returncode == 0:
            return
        said = " ".join(done.stderr.split())
        if os.geteuid() != 0 and _REFUSED.search(said):
            raise RightMissingError(
                f"systemd lets user {user_name(os.geteuid())} not {verb} {' '.join(names) or 'its units'}: that takes the right"
                f" to administrate this machine (root). Run `{again_as('root')}`."
            )
        last = (
            self._run(
                "journalctl",
                "--user-unit" if self.of_user else "--unit",
                UNIT,
                "--output=cat",
                "--no-pager",
                f"--since=@{begun}",
                f"--lines={LAST_WORDS_LINES_MAX}",
            ).stdout.strip()
            if verb in {"start", "restart"}
            else ""
        )
        told = f"\nThe last it said:\n{last}" if last else ""
        raise CommandError(f"`{shlex.join(words)}` failed: {said}{told}", ExitCode.UNAVAILABLE)

    def _scope(self) -> Sequence[str]:
        return ("--user",) if self.of_user else ("--system",)

    def _run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - words of our own
        except FileNotFoundError:
            raise CommandError(
                f"there is no {words[0]} here, and systemd is not to be spoken to without.",
                ExitCode.UNAVAILABLE,
            ) from None
