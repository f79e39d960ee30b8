"""Events told to a program: started for each, with the values as arguments and environment, and the event as JSON on its input.

No shell has a word in it, unless the arguments name one. What the program writes is thrown away: it may read the file, and no
patient data comes from here into a log.
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

from stowkeeper.services.events.document import event_json, event_values
from stowkeeper.services.events.feed import Event
from stowkeeper.services.events.limits import POLL_SECONDS
from stowkeeper.services.events.targets import DeliveryError

VARIABLE_PREFIX = "STOWKEEPER_EVENT_"
_PLACE = re.compile(r"\{([a-z_]+)\}")


class CommandWay:
    """Starts a program for each event, and waits for its end. Exit code 0 means delivered.

    When it ends, or takes longer than `seconds`, what it started in its process group is ended too.
    """

    def __init__(self, arguments: Sequence[str], *, archive_id: str, root: str, seconds: float) -> None:
        self._arguments = tuple(arguments)
        self._archive_id = archive_id
        self._root = root
        self._seconds = seconds

    def deliver(self, event: Event, is_over: Callable[[], bool]) -> None:
        """Run the program for an event. Raises DeliveryError."""
        values = {**event_values(self._archive_id, event), "archive": self._root}
        arguments = [filled(argument, values) for argument in self._arguments]
        variables = {VARIABLE_PREFIX + name.upper(): value for name, value in values.items()}
        program = os.path.basename(self._arguments[0])
        with tempfile.TemporaryFile() as document:
            document.write(event_json(self._archive_id, event) + b"\n")
            document.seek(0)
            try:
                process = subprocess.Popen(  # noqa: S603 - the settings name the program, and no shell reads the values
                    arguments,
                    stdin=document,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, **variables},
                    start_new_session=True,
                )
            except OSError as error:
                raise DeliveryError(f"{program} cannot be started: {error.strerror}") from error
            except ValueError as error:
                words = "a value of the event has a character that no argument may have"
                raise DeliveryError(f"{program} cannot be started: {words}") from error
        with process:
            try:
                self._wait(process, program, is_over)
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            raise DeliveryError(f"{program} ended with code {process.returncode}")

    def close(self) -> None:
        """Do nothing: each program has ended."""

    def _wait(self, process: "subprocess.Popen[bytes]", program: str, is_over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._seconds
        while process.poll() is None:
            if is_over():
                raise DeliveryError(f"{program} was ended, since the delivery was stopped")
            if time.monotonic() > deadline:
                raise DeliveryError(f"{program} took longer than {self._seconds:g} seconds and was ended")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)


def filled(argument: str, values: Mapping[str, str]) -> str:
    """Return an argument with the values of an event in place of their names in braces; other braces stay.

    Nothing is put into what was put in: an AE title may have braces, and a peer chooses it.
    """
    return _PLACE.sub(lambda found: values.get(found[1], found[0]), argument)
