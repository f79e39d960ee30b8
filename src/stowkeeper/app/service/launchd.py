"""launchd of macOS: a property list, as text, and the commands that load it. None of it was tried on a Mac."""

import os
import plistlib
import subprocess
from pathlib import Path
from typing import Final

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.limits import RESTART_SECONDS
from stowkeeper.app.service.plan import SERVICE_NAME, ServicePlan

SYSTEM_FOLDER: Final = Path("/Library/LaunchDaemons")


def property_list(plan: ServicePlan) -> str:
    """Return the property list of a service (launchd.plist(5))."""
    said: dict[str, object] = {
        "Label": SERVICE_NAME,
        "ProgramArguments": list(plan.command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": RESTART_SECONDS,
        "ExitTimeOut": plan.stop_seconds,
        "Umask": 0o027,
        "SoftResourceLimits": {"NumberOfFiles": plan.open_files, "Core": 0},
        "HardResourceLimits": {"NumberOfFiles": plan.open_files, "Core": 0},
        "StandardErrorPath": str(plan.log_directory / "launchd.err"),
        "StandardOutPath": "/dev/null",
        "EnvironmentVariables": {"STOWKEEPER_LOG__CONSOLE": "false"},
    }
    if plan.user:
        said["UserName"] = plan.user
    return plistlib.dumps(said, sort_keys=False).decode("utf-8")


class Launchd:
    """launchd, for the system or with `of_user` for this user's session."""

    def __init__(self, *, of_user: bool = False) -> None:
        self.of_user = of_user
        folder = Path(os.path.expanduser("~/Library/LaunchAgents")) if of_user else SYSTEM_FOLDER
        self.path = folder / f"{SERVICE_NAME}.plist"
        self._domain = f"gui/{os.getuid()}" if of_user else "system"

    def install(self, text: str) -> None:
        """Write the property list. Loading it starts the service."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text, encoding="utf-8")

    def uninstall(self) -> None:
        """Stop the service and take the property list away."""
        self.check_installed()
        self.stop()
        self.path.unlink()

    def check_installed(self) -> None:
        """Raise CommandError where there is no property list."""
        if not self.path.exists():
            raise CommandError(f"no service is installed: {self.path} is not there.", ExitCode.NO_INPUT)

    def start(self) -> None:
        """Load the property list."""
        self.check_installed()
        self._control("bootstrap", self._domain, str(self.path))

    def stop(self) -> None:
        """Take it out of launchd, which ends the service."""
        self.check_installed()
        self._control("bootout", f"{self._domain}/{SERVICE_NAME}")

    def restart(self) -> None:
        """Start the service anew."""
        self.check_installed()
        self._control("kickstart", "-k", f"{self._domain}/{SERVICE_NAME}")

    def _control(self, *words: str) -> None:
        done = subprocess.run(  # noqa: S603 - words of our own
            ["launchctl", *words],  # noqa: S607 - where the system has it
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandError(
                f"launchctl {words[0]} failed: {' '.join(done.stderr.split())}", ExitCode.UNAVAILABLE
            )
