"""A log set up by a configuration file that a test writes, with streams that it can read."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stowkeeper.dcmtk.log_options import LogLevel, LogOptions
from stowkeeper.dcmtk.oflog.levels import NUMBERS
from stowkeeper.dcmtk.oflog.loggers import Loggers

CONFIGURATION = "log.cfg"
NO_ENVIRONMENT: Mapping[str, str] = {}


@dataclass
class Rig:
    """A running log. `level` is what `start` returned."""

    loggers: Loggers
    out: io.StringIO
    err: io.StringIO
    level: LogLevel = LogLevel.OFF

    def get(self, name="dcmtk.apps.storescp"):
        return self.loggers.get(name)

    @property
    def complaints(self):
        """What was said on standard error about the log itself."""
        return [line for line in self.err.getvalue().splitlines() if line.startswith("log4cplus:")]


@dataclass
class Setup:
    """What a log is started with."""

    text: str | bytes | None = None
    options: LogOptions = field(default_factory=LogOptions)
    environment: Mapping[str, str] = field(default_factory=dict)
    program: str = "storescp"


@contextlib.contextmanager
def running_log(folder: Path, setup: Setup) -> Iterator[Rig]:
    """Run a log in a folder, in which its configuration file is written; without a text there is none."""
    out, err = io.StringIO(), io.StringIO()
    options = setup.options
    if setup.text is not None:
        data = setup.text.encode() if isinstance(setup.text, str) else setup.text
        (folder / CONFIGURATION).write_bytes(data)
        options = LogOptions(
            level=options.level, arguments=options.arguments, config_file=str(folder / CONFIGURATION)
        )
    with contextlib.chdir(folder):
        loggers = Loggers(setup.program, stdout=out, stderr=err, environment=setup.environment)
        with loggers:
            rig = Rig(loggers, out, err)
            rig.level = loggers.start(options)
            yield rig


LEVELS = list(LogLevel)[:6]
"""Those that messages have."""
CONSOLE = "log4cplus.appender.c = log4cplus::ConsoleAppender\nlog4cplus.appender.c.logToStdErr = true\n"


def say_all(logger):
    """Log a message of every level, which says its level."""
    for level in LEVELS:
        logger.log(NUMBERS[level], level.name)


def appender(kind, *settings, level="INFO"):
    """Return the text of a file with one appender, named a, and its settings."""
    lines = [f"log4cplus.rootLogger = {level}, a", f"log4cplus.appender.a = log4cplus::{kind}"]
    return "\n".join([*lines, *(f"log4cplus.appender.a.{line}" for line in settings)]) + "\n"
