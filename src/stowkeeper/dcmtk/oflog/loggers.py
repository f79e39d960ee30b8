"""The loggers of a program, by DCMTK's names such as `dcmtk.apps.storescp`, and what sets them up.

A logger passes a message on when it is of its level or above: to its appenders, and to those of the loggers above it up
to the first that is not additive. A logger without a level of its own has that of the next one above. All stand under
a root that belongs to one `Loggers`, not to the process.
"""

import logging
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self, TextIO, cast

from stowkeeper.dcmtk.grammar import CommandLineError
from stowkeeper.dcmtk.log_options import LogLevel, LogOptions
from stowkeeper.dcmtk.oflog.appenders import Appender, ConsoleAppender
from stowkeeper.dcmtk.oflog.building import Surroundings, build_appenders
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.config import (
    LogConfiguration,
    LogConfigurationError,
    LoggerConfiguration,
    read_log_configuration,
)
from stowkeeper.dcmtk.oflog.layouts import default_layout
from stowkeeper.dcmtk.oflog.levels import NUMBERS, level_of


class Logger(logging.Logger):
    """What a message is given to: `trace`, `debug`, `info`, `warning`, `error` and `critical` (fatal).

    A message with line ends becomes several lines. Exceptions are not written; whoever logs says what happened.
    """

    def trace(self, message: object, *arguments: object) -> None:
        """Log what only a search for a fault in the protocol needs."""
        if self.isEnabledFor(NUMBERS[LogLevel.TRACE]):
            self._log(NUMBERS[LogLevel.TRACE], message, arguments, stacklevel=2)

    def force(self, level: LogLevel, message: str) -> None:
        """Log a message whatever the level of this logger, without a place in the code."""
        self.handle(
            self.makeRecord(self.name, NUMBERS[level], fn="", lno=0, msg=message, args=(), exc_info=None)
        )

    @property
    def effective_level(self) -> LogLevel:
        """Return the level from which on messages pass: its own, or that of the next logger above that has one."""
        return level_of(self.getEffectiveLevel())

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of the standard library
        """Give a record to the appenders of this logger and of those above it."""
        record.msg, record.args = _message(record), ()
        appenders = 0
        logger: logging.Logger | None = self
        while logger is not None:
            for appender in logger.handlers:
                appenders += 1
                if record.levelno >= appender.level:
                    appender.handle(record)
            logger = logger.parent if logger.propagate else None
        if not appenders:
            cast("_Hierarchy", self.manager).complain_of_silence(self.name)


class _RootLogger(Logger, logging.RootLogger):
    """The logger above all others."""


class _Hierarchy(logging.Manager):
    """All loggers of one root."""

    def __init__(self, root: _RootLogger, complaints: Complaints) -> None:
        super().__init__(root)
        self.setLoggerClass(Logger)
        root.manager = self
        self._complaints: Complaints | None = complaints

    def complain_of_silence(self, name: str) -> None:
        """Report, once, that a message reached no appender."""
        if self._complaints is not None:
            self._complaints.error(f"no appender takes the messages of the logger {name}, they are lost")
            self._complaints = None

    def expect_silence(self) -> None:
        """Let messages without appenders go by from now on."""
        self._complaints = None


class Loggers:
    """The log of one program. `start` sets it up; `close` writes what waits and lets go of everything.

    Before `start` messages of level info and above go to standard error. After `close` they are dropped.
    """

    def __init__(
        self,
        program: str,
        *,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._program = program
        self._environment = os.environ if environment is None else environment
        error_stream = stderr or sys.stderr
        self._complaints = Complaints(error_stream)
        self._surroundings = Surroundings(
            program=program,
            stdout=stdout or sys.stdout,
            stderr=error_stream,
            complaints=self._complaints,
        )
        self.root = _RootLogger(NUMBERS[LogLevel.INFO])
        self._hierarchy = _Hierarchy(self.root, self._complaints)
        console = ConsoleAppender("console", self._complaints, error_stream)
        console.layout = default_layout()
        self.root.addHandler(console)
        self._appenders: list[Appender] = [console]

    def get(self, name: str) -> Logger:
        """Return the logger of a name, always the same one; of an empty name, the root."""
        return cast("Logger", self._hierarchy.getLogger(name)) if name else self.root

    def start(self, options: LogOptions) -> LogLevel:
        """Set the log up as a command line asks for, and return the level that counts for the program's own logger.

        What `--arguments` shows is logged. Raises CommandLineError when the configuration file cannot be used; what of
        it can only in part be used is reported on standard error. When errors are not logged, such reports end, too.
        """
        if options.config_file is None:
            self.root.setLevel(NUMBERS[options.level])
        else:
            try:
                self._configure(options.config_file)
            except LogConfigurationError as error:
                raise CommandLineError(f"--log-config: {options.config_file}: {error}") from error
        level = self.get(f"dcmtk.apps.{self._program}").effective_level
        self._complaints.is_quiet = level > LogLevel.ERROR
        if options.arguments:
            self.root.force(LogLevel.INFO, f"{options.arguments}\n")
        return level

    def flush(self) -> None:
        """Write what is held back; also before a fork, since else both processes write it."""
        for appender in self._appenders:
            appender.flush()

    def close(self) -> None:
        """Write what waits, close files and sockets, end threads. Repeatable."""
        self._hierarchy.expect_silence()
        for logger in self._all():
            _attach(logger, ())
        for appender in self._appenders:
            appender.close()
        self._appenders = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _all(self) -> list[Logger]:
        named = self._hierarchy.loggerDict.values()
        return [self.root, *(logger for logger in named if isinstance(logger, Logger))]

    def _configure(self, path: str) -> None:
        configuration = read_log_configuration(
            path,
            variables=self._variables(),
            environment=self._environment,
            complaints=self._complaints,
        )
        built = build_appenders(configuration.appenders, configuration.settings, self._surroundings)
        configuration.settings.complain_of_unknown()
        self._apply(configuration, built)
        self._appenders += built.values()
        in_use = {appender for logger in self._all() for appender in logger.handlers}
        for appender in self._appenders:
            if appender not in in_use:
                appender.close()
        self._appenders = [appender for appender in self._appenders if appender in in_use]

    def _apply(self, configuration: LogConfiguration, built: Mapping[str, Appender]) -> None:
        if configuration.root is not None:
            self._set_up(self.root, configuration.root, built)
        for name, logger in configuration.loggers.items():
            self._set_up(self.get(name), logger, built)
        for name, is_additive in configuration.additivity.items():
            self.get(name).propagate = is_additive

    def _set_up(
        self, logger: Logger, configuration: LoggerConfiguration, built: Mapping[str, Appender]
    ) -> None:
        if configuration.level is not None:
            logger.setLevel(NUMBERS[configuration.level])
        elif logger is not self.root:
            logger.setLevel(logging.NOTSET)
        for name in configuration.appenders:
            if name not in built:
                self._complaints.error(f"logger {logger.name}: there is no appender '{name}', left out")
        _attach(logger, [built[name] for name in configuration.appenders if name in built])

    def _variables(self) -> dict[str, str]:
        """Return the variables that a file can use besides its own and the environment's."""
        now = time.localtime()
        return {
            "appname": self._program,
            "hostname": socket.gethostname(),
            "pid": str(os.getpid()),
            "date": time.strftime("%Y%m%d", now),
            "time": time.strftime("%H%M%S", now),
        }


def _attach(logger: logging.Logger, appenders: Iterable[Appender]) -> None:
    """Give a logger these appenders and no others."""
    for appender in list(logger.handlers):
        logger.removeHandler(appender)
    for appender in appenders:
        logger.addHandler(appender)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # arguments that do not fit
        return str(record.msg)
