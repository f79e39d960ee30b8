"""Makes appenders of what a configuration file says of them.

A kind of appender that is not known is reported and left out, as DCMTK does it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TextIO

from stowkeeper.dcmtk.evaluation import leading_integer
from stowkeeper.dcmtk.oflog.appenders import Appender, ConsoleAppender, LockFile, NullAppender
from stowkeeper.dcmtk.oflog.async_appender import AsyncAppender
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.file_appenders import (
    ROLLING_BYTES_MIN,
    DailyRollingFileAppender,
    FileAppender,
    FileOptions,
    RollingFileAppender,
)
from stowkeeper.dcmtk.oflog.levels import NUMBERS
from stowkeeper.dcmtk.oflog.limits import BUFFER_BYTES_MAX, REOPEN_SECONDS_MAX, WAITING_RECORDS_MAX
from stowkeeper.dcmtk.oflog.parts import KIND_PREFIX, build_filters, build_layout
from stowkeeper.dcmtk.oflog.remote_appenders import (
    FACILITIES,
    FACILITY_DEFAULT,
    SYSTEM_LOG,
    DatagramAppender,
    connect_to_server,
    connect_to_system_log,
    log4j_frame,
    server_log_frame,
    system_log_frame,
)
from stowkeeper.dcmtk.oflog.settings import Settings
from stowkeeper.dcmtk.oflog.times import Schedule

_SYSLOG_PORT, _LOG4J_PORT, _PORT_MAX = 514, 5000, 65535
_ROLLING_BYTES_DEFAULT: Final = 10 << 20
_WAITING_DEFAULT: Final = 100
_UNITS: Final = {"MB": 1 << 20, "KB": 1 << 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What appenders write to that is there already, and the name of the program that logs."""

    program: str
    stdout: TextIO
    stderr: TextIO
    complaints: Complaints
    system_log: str = SYSTEM_LOG


def build_appenders(
    kinds: Mapping[str, str], settings: Settings, surroundings: Surroundings
) -> dict[str, Appender]:
    """Return the appenders of a file, by name; files are open then. `settings` are those of the whole file."""
    below = settings.below("appender.")
    built = {}
    for name, kind in kinds.items():
        appender = _appender(below, name, kind, surroundings)
        if appender is not None:
            built[name] = appender
    return built


def _appender(settings: Settings, key: str, kind: str, surroundings: Surroundings) -> Appender | None:
    make = _APPENDERS.get(kind)
    if make is None:
        settings.complain_of_part(key, f"there is no appender '{kind}', left out{_ADVICE.get(kind, '')}")
        return None
    own = settings.below(f"{key}.")
    appender = make(_Part(settings=own, place=settings.name(key), surroundings=surroundings))
    appender.layout = build_layout(own)
    threshold = own.level("Threshold")
    if threshold is not None:
        appender.setLevel(NUMBERS[threshold])
    appender.addFilter(build_filters(own.below("filters.")))
    _set_lock_file(appender, own)
    return appender


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What an appender is made of."""

    settings: Settings
    place: str
    surroundings: Surroundings

    @property
    def complaints(self) -> Complaints:
        return self.surroundings.complaints


def _set_lock_file(appender: Appender, settings: Settings) -> None:
    path = settings.text("LockFile")
    if not settings.boolean("UseLockFile"):
        return
    if not path and isinstance(appender, FileAppender):
        path = f"{settings.text('File')}.lock"
    if not path:
        settings.complain("UseLockFile", "has no effect without LockFile")
        return
    try:
        appender.lock_file = LockFile(path)
    except OSError as error:
        settings.complain("UseLockFile", f"'{path}' cannot be opened: {error.strerror}; goes on without it")


# Appenders


def _console(part: _Part) -> Appender:
    part.settings.boolean("ImmediateFlush")  # nothing is ever held back
    is_error = part.settings.boolean("logToStdErr")
    stream = part.surroundings.stderr if is_error else part.surroundings.stdout
    return ConsoleAppender(part.place, part.complaints, stream)


def _null(part: _Part) -> Appender:
    return NullAppender(part.place, part.complaints)


def _file_options(part: _Part, *, starts_anew: bool) -> FileOptions | None:
    """Return how the file of an appender is written, None where it has none."""
    settings = part.settings
    settings.text("Locale")  # of numbers, which the layouts have none of
    options = FileOptions(
        path=settings.text("File"),
        starts_anew=not settings.boolean("Append", default=not starts_anew),
        flushes=settings.boolean("ImmediateFlush", default=True),
        buffer_bytes=settings.integer("BufferSize", 0, minimum=0, maximum=BUFFER_BYTES_MAX),
        reopen_seconds=settings.integer("ReopenDelay", 1, minimum=0, maximum=REOPEN_SECONDS_MAX),
    )
    if not options.path:
        part.complaints.error(f"{part.place}: there is no File, so nothing is written")
        return None
    return options


def _file(part: _Part) -> Appender:
    options = _file_options(part, starts_anew=True)
    return _null(part) if options is None else FileAppender(part.place, part.complaints, options)


def _rolling_file(part: _Part) -> Appender:
    options = _file_options(part, starts_anew=False)
    size_max = _size_max(part.settings)
    backups = part.settings.integer("MaxBackupIndex", 1, minimum=1)
    if options is None:
        return _null(part)
    return RollingFileAppender(part.place, part.complaints, options, size_max=size_max, backups=backups)


def _size_max(settings: Settings) -> int:
    """Return MaxFileSize in bytes: a number, what follows it does not matter, and perhaps KB or MB at the end."""
    text = settings.text("MaxFileSize").upper()
    if not text:
        return _ROLLING_BYTES_DEFAULT
    size = (leading_integer(text) or 0) * _UNITS.get(text[-2:], 1)
    return settings.bounded("MaxFileSize", size, minimum=ROLLING_BYTES_MIN, maximum=1 << 62)


def _daily_rolling_file(part: _Part) -> Appender:
    settings = part.settings
    options = _file_options(part, starts_anew=False)
    word = settings.text("Schedule").upper()
    if word not in Schedule.__members__:
        known = ", ".join(schedule.lower() for schedule in Schedule.__members__)
        settings.complain("Schedule", f"'{word.lower()}' is none of {known}; daily is taken")
    schedule = Schedule.__members__.get(word, Schedule.DAILY)
    backups = settings.integer("MaxBackupIndex", 10, minimum=1)
    if options is None:
        return _null(part)
    return DailyRollingFileAppender(part.place, part.complaints, options, schedule=schedule, backups=backups)


def _system_log(part: _Part) -> Appender:
    settings = part.settings
    ident, host = settings.text("ident"), settings.text("host")
    facility = settings.text("facility").lower() or FACILITY_DEFAULT
    if facility not in FACILITIES:
        settings.complain("facility", f"'{facility}' is not known, '{FACILITY_DEFAULT}' is taken")
        facility = FACILITY_DEFAULT
    port = settings.integer("port", _SYSLOG_PORT, minimum=1, maximum=_PORT_MAX)
    if host:
        return DatagramAppender(
            part.place,
            part.complaints,
            lambda: connect_to_server(host, port),
            server_log_frame(facility=facility, ident=ident),
        )
    path = part.surroundings.system_log
    return DatagramAppender(
        part.place,
        part.complaints,
        lambda: connect_to_system_log(path),
        system_log_frame(facility=facility, ident=ident or part.surroundings.program),
    )


def _log4j(part: _Part) -> Appender:
    host = part.settings.text("host", "localhost")
    port = part.settings.integer("port", _LOG4J_PORT, minimum=1, maximum=_PORT_MAX)
    return DatagramAppender(part.place, part.complaints, lambda: connect_to_server(host, port), log4j_frame)


def _async(part: _Part) -> Appender:
    limit = part.settings.integer("QueueLimit", _WAITING_DEFAULT, minimum=1, maximum=WAITING_RECORDS_MAX)
    inner = None
    if part.settings.has("Appender"):
        kind = part.settings.text("Appender")
        inner = _appender(part.settings, "Appender", kind, part.surroundings)
    else:
        part.complaints.error(f"{part.place}: there is no Appender behind it, so nothing is written")
    if inner is None:
        return _null(part)
    return AsyncAppender(part.place, part.complaints, inner, limit)


_APPENDERS: Final[Mapping[str, Callable[[_Part], Appender]]] = {
    f"{KIND_PREFIX}ConsoleAppender": _console,
    f"{KIND_PREFIX}FileAppender": _file,
    f"{KIND_PREFIX}RollingFileAppender": _rolling_file,
    f"{KIND_PREFIX}DailyRollingFileAppender": _daily_rolling_file,
    f"{KIND_PREFIX}SysLogAppender": _system_log,
    f"{KIND_PREFIX}Log4jUdpAppender": _log4j,
    f"{KIND_PREFIX}AsyncAppender": _async,
    f"{KIND_PREFIX}NullAppender": _null,
}
_ADVICE: Final = {
    f"{KIND_PREFIX}SocketAppender": ": use SysLogAppender with a host, or Log4jUdpAppender",
}
