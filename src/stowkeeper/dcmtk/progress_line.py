"""The line on standard output by which `storescp -v` shows how a data set comes: `RECV: ` and a dot for each piece."""

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
            sys.stdout.write("RECV: ")
            sys.stdout.flush()

    def advance(self) -> None:
        """Show that a piece came."""
        if self._is_open:
            sys.stdout.write(".")
            sys.stdout.flush()

    def end(self) -> None:
        """End the line."""
        if self._is_open:
            self._is_open = False
            sys.stdout.write("\n")
            sys.stdout.flush()
