"""Logs: what every room says through structlog becomes lines on standard error, in files, in syslog and the journal.

A room says `log = structlog.get_logger("stowkeeper.archive")` and `log.info("write", sop_instance_uid=…)`: an event
by its name, and values. `start_logs` decides what becomes of it, for the whole process, as structlog is configured
for the whole process. The standard library's logging, Python's warnings and exceptions that no thread caught take
the same way.

Logging never raises and never waits for a disk.
"""

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from stowkeeper.app.limits import LOG_CLOSE_SECONDS
from stowkeeper.app.log_files import (
    FILE_MODE,
    FOLDER_MODE,
    TWO_FILE_NAMES,
    DailyFile,
    LogFile,
    RotatingFile,
    TwoFiles,
    used_last,
)
from stowkeeper.app.log_lines import (
    LOGGED_TO,
    WITHHELD,
    describe_exception,
    json_line,
    text_line,
    timestamp,
    without_patient_data,
)
from stowkeeper.app.log_outlets import Senders, leads_to_journal, senders_of
from stowkeeper.app.log_syslog import Encode
from stowkeeper.app.log_writer import LOG_FILE_NAME, Console, LogWriter, Outlet

if TYPE_CHECKING:  # a command that needs no event loop and no settings does not pay for them
    import asyncio

    from stowkeeper.app.settings_of_log import LogSettings

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

Fields = Mapping[str, object]
"""What an event says, in the order in which it is written."""

_KNOWN_TO_QUOTE_NO_DATA = ("stowkeeper", "alembic", "asyncio", "uvloop")
"""Loggers of the standard library whose messages are shown. Others may repeat a value of a data set."""


class _Threshold:
    """The level in force, shared by every logger, so that a change holds at once for those bound before it."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = logging.INFO


_THRESHOLD = _Threshold()


class EventLogger(structlog.BoundLoggerBase):
    """What `structlog.get_logger` gives: one method a level, each taking an event's name and values."""

    def debug(self, event: str, **values: object) -> None:
        """Log what only a search for a fault needs."""
        self._emit(logging.DEBUG, "debug", event, values)

    def info(self, event: str, **values: object) -> None:
        """Log what happened as it should."""
        self._emit(logging.INFO, "info", event, values)

    def warning(self, event: str, **values: object) -> None:
        """Log what a person should look at some time."""
        self._emit(logging.WARNING, "warning", event, values)

    def error(self, event: str, **values: object) -> None:
        """Log what failed."""
        self._emit(logging.ERROR, "error", event, values)

    def exception(self, event: str, **values: object) -> None:
        """Log what failed, with the exception that is being handled."""
        self._emit(logging.ERROR, "error", event, {"exc_info": True, **values})

    critical = error

    def _emit(self, number: int, level: str, event: str, values: dict[str, Any]) -> None:
        if number >= _THRESHOLD.number:
            self._proxy_to_logger(level, event, **values)


class _EventSink:
    """The end of structlog's chain: hands the fields of an event on. One for each name of a logger."""

    __slots__ = ("debug", "error", "info", "name", "warning")

    def __init__(self, name: str, put: Callable[[Fields], None]) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = put


class Logs:
    """The running log of a process. `apply` changes it (SIGHUP), `close` ends it; also a context manager.

    `modes` are the permissions of the files and folders that it makes.
    """

    def __init__(
        self,
        settings: "LogSettings",
        directory: Path,
        console: TextIO | None = None,
        modes: tuple[int, int] = (FILE_MODE, FOLDER_MODE),
    ) -> None:
        """Open the outlets. Raises OSError when the log file cannot be opened."""
        self._console = console
        self._modes = modes
        self._line = text_line
        outlets = self._outlets_of(settings, directory)
        for outlet in outlets:
            if isinstance(outlet, LogFile):
                outlet.open()
        self._writer = LogWriter(outlets, self._notice, Console(console or sys.stderr))
        self._set(settings)
        self._senders: Senders = ()
        self._sends_by = ("", "", "", False)
        self._send_by(settings)
        self._hooks = _Hooks()
        _configure(self._put)
        self._hooks.install()
        atexit.register(self.close)

    def apply(self, settings: "LogSettings", directory: Path) -> None:
        """Put changed settings in force, and open the log file anew, as SIGHUP asks for. Does not wait."""
        self._set(settings)
        self._writer.replace_outlets(self._outlets_of(settings, directory))
        self._send_by(settings)

    def flush(self) -> bool:
        """Wait until what was logged so far is written and sent; return whether that was in time."""
        return all([self._writer.flush(), *(sender.flush() for _, sender in self._senders)])

    def close(self) -> None:
        """Write and send what waits, then leave structlog and the hooks as they were. Repeatable."""
        atexit.unregister(self.close)
        self._hooks.remove()
        senders, self._senders = self._senders, ()
        for _, sender in senders:
            sender.end()
        deadline = time.monotonic() + LOG_CLOSE_SECONDS
        for _, sender in senders:
            sender.close(max(0.0, deadline - time.monotonic()))
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and (self._path or self._senders):
            # Not to standard error: whoever ends the command says it there, in a sentence.
            is_refusal = _is_refusal(error)
            what, level = ("did not start", "warning") if is_refusal else ("ended by an error", "error")
            event: EventDict = {"event": "error", "what": what, "exc_info": error}
            (fields,), _ = _complete(_EventSink("stowkeeper", self._put), level, event)
            if is_refusal:
                fields = {key: value for key, value in fields.items() if key not in _OF_A_FAULT}
            self._writer.put(_line_of(self._line, fields), "")
            self._send(fields)
            if self._path and not is_refusal:
                error.add_note(f"{LOGGED_TO}{self._path}")
        self.close()

    @property
    def _path(self) -> str:
        return "" if self._file is None else self._file.path

    def _put(self, fields: Fields) -> None:
        """Queue the line of an event. Where there is a file, the frames of an exception go there alone."""
        line = _line_of(self._line, fields)
        if self._path and "traceback" in fields:
            short = {key: value for key, value in fields.items() if key not in _OF_A_FAULT}
            self._writer.put(line, _line_of(self._line, {**short, "details": self._path}))
        else:
            self._writer.put(line)
        self._send(fields)

    def _send(self, fields: Fields) -> None:
        """Queue an event for syslog and the journal. They have the time of their own; JSON stays whole."""
        if self._senders:
            rest = fields if self._line is json_line else _without_time(fields)
            line = _line_of(self._line, rest)
            for encode, sender in self._senders:
                sender.put(_message_of(encode, fields, line))

    def _set(self, settings: "LogSettings") -> None:
        _THRESHOLD.number = LEVELS[settings.level]
        self._line = json_line if settings.format == "json" else text_line

    def _send_by(self, settings: "LogSettings") -> None:
        """Send to where the settings say from now on, and let what waits for other places go there in its time."""
        sends_by = (settings.syslog, settings.syslog_facility, settings.syslog_framing, settings.journal)
        if sends_by == self._sends_by:
            return
        before, self._senders = self._senders, senders_of(settings, self._tell)
        self._sends_by = sends_by
        for _, sender in before:
            sender.end()

    def _tell(self, receiver: str, what: str, count: int) -> None:
        self._writer.put(self._notice(receiver, what, count))

    def _outlets_of(self, settings: "LogSettings", directory: Path) -> Sequence[Outlet]:
        outlets: list[Outlet] = []
        if settings.console and not (settings.journal and self._console is None and leads_to_journal()):
            outlets.append(Console(self._console or sys.stderr))
        self._file = _file_of(settings, directory, *self._modes) if settings.file else None
        if self._file is not None:
            outlets.append(self._file)
        return outlets

    def _notice(self, outlet: str, what: str, count: int) -> str:
        now = timestamp(time.time_ns())
        return self._line(
            {"time": now, "level": "error", "event": "error", "what": what, "outlet": outlet, "count": count}
        )


_OF_A_FAULT = frozenset({"traceback", "caused_by"})
"""Of the fields of an exception those that only help who looks for a fault of the program."""


def _is_refusal(error: Exception) -> bool:
    """Tell whether an error is an ordinary answer to who starts a server, such as that the archive is in use.

    Where reading or writing failed it is not: of that the log has all.
    """
    from stowkeeper.app.commands.failures import known_exit_code  # noqa: PLC0415 - only a server that fails needs it
    from stowkeeper.app.exit_codes import ExitCode  # noqa: PLC0415 - likewise

    return known_exit_code(error) not in {None, ExitCode.IO_ERROR, ExitCode.INTERNAL}


def log_path(settings: "LogSettings", directory: Path) -> str:
    """Return the path of the log file that is written to, of two files the one in use; empty where there is none."""
    if not settings.file:
        return ""
    if settings.rotation == "two files":
        first, second = (os.path.join(directory, name) for name in TWO_FILE_NAMES)
        return used_last((first, second))
    return os.path.join(directory, LOG_FILE_NAME)


def _file_of(settings: "LogSettings", directory: Path, file_mode: int, folder_mode: int) -> LogFile:
    if settings.rotation == "two files":
        first, second = (os.path.join(directory, name) for name in TWO_FILE_NAMES)
        return TwoFiles(
            (first, second), max_size=settings.two_files_size, file_mode=file_mode, folder_mode=folder_mode
        )
    kind = DailyFile if settings.rotation == "daily" else RotatingFile
    return kind(
        os.path.join(directory, LOG_FILE_NAME),
        max_size=settings.max_size,
        backups=settings.backups,
        file_mode=file_mode,
        folder_mode=folder_mode,
    )


def _without_time(fields: Fields) -> Fields:
    return {key: value for key, value in fields.items() if key != "time"}


def start_logs(
    settings: "LogSettings", directory: Path, modes: tuple[int, int] = (FILE_MODE, FOLDER_MODE)
) -> Logs:
    """Start logging for this process: to standard error, `directory`, syslog and the journal, as the settings say.

    `modes` are the permissions of the log files and of their folder. Raises OSError when the log file cannot be opened.
    """
    return Logs(settings, directory, modes=modes)


def log_to_console(level: str = "warning") -> None:
    """Let this process log to standard error alone, at once: for commands that run beside a server."""
    _THRESHOLD.number = LEVELS[level]

    def put(fields: Fields) -> None:
        with contextlib.suppress(OSError, ValueError):  # when nobody reads it, the command goes on
            Console(sys.stderr).write([_line_of(text_line, fields)])

    _configure(put)


def log_loop_exception(
    loop: "asyncio.AbstractEventLoop",  # noqa: ARG001 - asyncio's signature of a handler
    context: Mapping[str, Any],
) -> None:
    """Log what asyncio's event loop could not give to anybody (`loop.set_exception_handler`)."""
    structlog.get_logger("asyncio").error(
        "error", what=context.get("message", "unhandled"), exc_info=context.get("exception")
    )


def _configure(put: Callable[[Fields], None]) -> None:
    loggers: dict[str, _EventSink] = {}

    def sink_of(*names: object) -> _EventSink:
        name = str(names[0]) if names else ""
        return loggers.get(name) or loggers.setdefault(name, _EventSink(name, put))

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _complete],
        wrapper_class=EventLogger,
        context_class=dict,
        logger_factory=sink_of,
        # Loggers stand in modules and outlive a configuration.
        cache_logger_on_first_use=False,
    )


def _complete(logger: WrappedLogger, level: str, event: EventDict) -> tuple[tuple[Fields], dict[str, Any]]:
    """Put time, level, name and logger first, the exception last, and withhold patient data."""
    exception = _exception_of(event.pop("exc_info", None))
    fields: dict[str, object] = {
        "time": timestamp(time.time_ns()),
        "level": level,
        "event": event.pop("event", ""),
    }
    if logger.name:
        fields["logger"] = logger.name
    fields.update(event)
    if exception is not None:
        fields.update(describe_exception(exception))
    return (without_patient_data(fields),), {}


def _line_of(write: Callable[[Fields], str], fields: Fields) -> str:
    try:
        return write(fields)
    except Exception as error:  # noqa: BLE001 - whoever logs must not fail because of it
        head = {key: fields[key] for key in ("time", "level") if key in fields}
        return write(
            {**head, "event": "error", "what": "an event could not be written", **describe_exception(error)}
        )


def _message_of(encode: Encode, fields: Fields, line: str) -> bytes:
    try:
        return encode(fields, line)
    except Exception:  # noqa: BLE001 - as above; the line says what of the event can be said
        return encode({key: fields[key] for key in ("time", "level", "event")}, line)


def _exception_of(given: object) -> BaseException | None:
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple) and len(given) > 1:
        return given[1] if isinstance(given[1], BaseException) else None
    return sys.exc_info()[1] if given else None


class _Hooks:
    """Leads everything else that would print by itself into the log, and undoes it."""

    def __init__(self) -> None:
        self._installed = False

    def install(self) -> None:
        self._bridge = _Bridge()
        self._root_level = logging.root.level
        self._show_warning = warnings.showwarning
        self._thread_hook = threading.excepthook
        self._unraisable_hook = sys.unraisablehook
        logging.root.addHandler(self._bridge)
        logging.root.setLevel(logging.WARNING)
        warnings.showwarning = _log_warning
        threading.excepthook = _log_thread_exception
        sys.unraisablehook = _log_unraisable
        self._installed = True

    def remove(self) -> None:
        if not self._installed:
            return
        self._installed = False
        logging.root.removeHandler(self._bridge)
        logging.root.setLevel(self._root_level)
        warnings.showwarning = self._show_warning
        threading.excepthook = self._thread_hook
        sys.unraisablehook = self._unraisable_hook


class _Bridge(logging.Handler):
    """Takes records of the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record. Never raises."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        if record.levelno < logging.WARNING:
            level = "info" if record.levelno >= logging.INFO else "debug"
        known = record.name.split(".")[0] in _KNOWN_TO_QUOTE_NO_DATA
        try:
            # Only the first line: asyncio goes on with the representation of what failed.
            what = (record.getMessage().splitlines() or [""])[0] if known else WITHHELD
        except (TypeError, ValueError):
            what = str(record.msg)
        values: dict[str, Any] = {"what": what, "exc_info": record.exc_info}
        if not known:
            values["place"] = f"{record.filename}:{record.lineno}"
        getattr(structlog.get_logger(record.name), level)(
            "error" if level == "error" else "message", **values
        )


def _log_warning(
    message: Warning | str,  # noqa: ARG001 - it may quote data
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 - the interpreter's signature
    line: str | None = None,  # noqa: ARG001 - likewise
) -> None:
    place = f"{os.path.basename(filename)}:{lineno}"
    structlog.get_logger("warnings").warning(
        "message", what=WITHHELD, category=category.__name__, place=place
    )


def _log_thread_exception(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread else ""
    structlog.get_logger("threading").error(
        "error", what="a thread ended by an exception", thread=name, exc_info=arguments.exc_value
    )


def _log_unraisable(arguments: "sys.UnraisableHookArgs") -> None:
    what = arguments.err_msg or "an exception could not be raised"
    structlog.get_logger("python").error("error", what=what, exc_info=arguments.exc_value)
