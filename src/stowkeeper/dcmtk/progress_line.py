"""The line on standard output by which `storescp -v` shows how a data set comes: `RECV: ` and a dot for each PDV.

That nobody can read it, since standard output is closed or its reader gone, is no reason to receive nothing.
"""

import contextlib
import sys

from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog.loggers import Logger


class ProgressLine:
    """Shows progress while its logger's level is info, neither more nor less."""

    def __init__(self, logger: Logger) -> None:
        self._is_shown = logger.effective_level is LogLevel.INFO
        self._is_open = False

    def begin(self) -> None:
        """Begin the line of a data set."""
        if self._is_shown:
            self._is_open = True
            _print("RECV: ")

    def advance(self) -> None:
        """Show that a PDV came."""
        if self._is_open:
            _print(".")

    def end(self) -> None:
        """End the line."""
        if self._is_open:
            self._is_open = False
            _print("\n")


def _print(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.write(text)
        sys.stdout.flush()
