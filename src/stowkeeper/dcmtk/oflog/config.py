"""A configuration file of the log, as `--log-config` names it: which loggers write what to which appenders."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.levels import level_named
from stowkeeper.dcmtk.oflog.limits import LOG_CONFIG_BYTES_MAX
from stowkeeper.dcmtk.oflog.properties import ExpansionError, expand_properties, parse_properties
from stowkeeper.dcmtk.oflog.settings import Settings

SHIPPED_LOG_CONFIGURATION: Final = Path(__file__).parents[1] / "shipped" / "logger.cfg"
"""Where the sample is in an installation, in the place of DCMTK's `logger.cfg`."""

PREFIX: Final = "log4cplus."
_ROOT: Final = "rootLogger"
_INHERITED: Final = ("INHERITED", "INHERIT")


class LogConfigurationError(Exception):
    """A configuration file that the log cannot be set up by: the text says why, without the name of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggerConfiguration:
    """What a logger passes on, and to which appenders. Without a level it has that of the logger above it."""

    level: LogLevel | None
    appenders: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfiguration:
    """A whole file. `root` is None where the file names the root logger and says nothing about it.

    `additivity` tells by logger whether its messages go to the appenders of the loggers above it, too. The kinds of the
    appenders are in `appenders`, by name, and their settings below `appender.NAME.`.
    """

    root: LoggerConfiguration | None
    loggers: Mapping[str, LoggerConfiguration]
    additivity: Mapping[str, bool]
    appenders: Mapping[str, str]
    settings: Settings


def read_log_configuration(
    path: str | os.PathLike[str],
    *,
    variables: Mapping[str, str],
    environment: Mapping[str, str],
    complaints: Complaints,
) -> LogConfiguration:
    """Read a file; `variables` come before properties of the same names in it. Raises LogConfigurationError."""
    return load_log_configuration(
        _content(path), variables=variables, environment=environment, complaints=complaints
    )


def _content(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(LOG_CONFIG_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise LogConfigurationError("the file does not exist") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LogConfigurationError(f"the file cannot be read: {reason}") from error


def load_log_configuration(
    data: bytes, *, variables: Mapping[str, str], environment: Mapping[str, str], complaints: Complaints
) -> LogConfiguration:
    """Load the content of a file. Raises LogConfigurationError."""
    if len(data) > LOG_CONFIG_BYTES_MAX:
        raise LogConfigurationError(f"the file is longer than {LOG_CONFIG_BYTES_MAX} bytes")
    properties, remarks = parse_properties(data.decode("utf-8-sig", "surrogateescape"))
    if not properties:
        raise LogConfigurationError("the file does not contain any settings")
    if not any(key.startswith(PREFIX) for key in properties):
        raise LogConfigurationError(f"the file does not contain any setting that begins with '{PREFIX}'")
    if PREFIX + _ROOT not in properties:
        raise LogConfigurationError(f"the file does not set {PREFIX}{_ROOT}")
    try:
        expanded, more = expand_properties({**properties, **variables}, environment)
    except ExpansionError as error:
        raise LogConfigurationError(str(error)) from error
    settings = Settings(expanded, PREFIX, complaints)
    complaints.is_quiet = settings.boolean("quietMode", default=complaints.is_quiet)
    for remark in (*remarks, *more):
        complaints.warn(remark)
    return _configuration(settings)


def _configuration(settings: Settings) -> LogConfiguration:
    for ignored in (
        "configDebug",
        "disableOverride",
    ):  # about log4cplus itself; the second does nothing there either
        settings.boolean(ignored)
    root = _logger(settings, _ROOT)
    if root is not None and root.level is None:
        raise LogConfigurationError(
            f"{PREFIX}{_ROOT} does not begin with a level:"
            " write one of OFF, FATAL, ERROR, WARN, INFO, DEBUG, TRACE before the first comma"
        )
    loggers = {}
    named = settings.below("logger.")
    for name in named.names():
        logger = _logger(named, name)
        if logger is not None:
            loggers[name] = logger
    additive = settings.below("additivity.")
    appenders = settings.below("appender.")
    return LogConfiguration(
        root=root,
        loggers=loggers,
        additivity={name: additive.boolean(name, default=True) for name in additive.names()},
        appenders={name: appenders.text(name) for name in appenders.names() if "." not in name},
        settings=settings,
    )


def _logger(settings: Settings, key: str) -> LoggerConfiguration | None:
    """Return what a line `LEVEL, appender, appender` means, None where it is empty. Blanks in it do not count."""
    level, *appenders = settings.text(key).replace(" ", "").split(",")
    if not level and not appenders:
        settings.complain_of_part(key, "is empty, changes nothing")
        return None
    found = level_named(level)
    if found is None and level not in _INHERITED and key != _ROOT:
        settings.complain(key, f"'{level}' is not a level, so the level is inherited")
    return LoggerConfiguration(level=found, appenders=tuple(filter(None, appenders)))
