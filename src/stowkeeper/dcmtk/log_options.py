"""The options that both programs begin with: help, what is logged, and how to see what a command line means."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from stowkeeper.dcmtk.evaluation import Selection
from stowkeeper.dcmtk.grammar import (
    Block,
    CommandLine,
    Group,
    NotWith,
    Option,
    Section,
    Value,
)


class LogLevel(IntEnum):
    """How grave a message is; a logger passes on those of its own level and above."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    FATAL = 5
    OFF = 6


class Verbosity(Enum):
    """The options that stand for a log level."""

    QUIET = "--quiet"
    VERBOSE = "--verbose"
    DEBUG = "--debug"


_LEVELS: Final = {
    Verbosity.QUIET: LogLevel.FATAL,
    Verbosity.VERBOSE: LogLevel.INFO,
    Verbosity.DEBUG: LogLevel.DEBUG,
}

_SHORTHANDS = NotWith(others=("--verbose", "--debug", "--quiet"))

GENERAL: Final = Section(
    title="general options",
    groups=(
        Group(
            options=(
                Option(long="--help", short="-h", is_exclusive=True, meaning="show this text and end"),
                Option(long="--version", is_exclusive=True, meaning="show the version and end"),
                Option(long="--arguments", meaning="log the command line as it was understood"),
                Option(
                    long="--explain",
                    meaning="print the stowkeeper.toml that does the same and end; the options must be right",
                ),
                Option(long="--quiet", short="-q", meaning="log nothing but what ends the program"),
                Option(long="--verbose", short="-v", meaning="log what is being done, too"),
                Option(long="--debug", short="-d", meaning="log details for finding faults, too"),
                Option(
                    long="--log-level",
                    short="-ll",
                    values=(
                        Value(
                            label="[l]evel",
                            words=("fatal", "error", "warn", "info", "debug", "trace"),
                            default="warn",
                        ),
                    ),
                    rules=(_SHORTHANDS,),
                    meaning="log messages of level l and graver ones",
                ),
                Option(
                    long="--log-config",
                    short="-lc",
                    values=(Value(label="[f]ilename"),),
                    rules=(NotWith(others=("--log-level",)), _SHORTHANDS),
                    meaning="take everything about the log from file f",
                ),
                Option(
                    long="--verbose-pc",
                    short="+v",
                    meaning="log the presentation contexts of every association; needs level info or below",
                ),
            )
        ),
    ),
)

LOG_STAGE: Final[tuple[Block, ...]] = (
    tuple(kind.value for kind in Verbosity),
    ("--log-level",),
    ("--log-config",),
    ("--verbose-pc",),
)
IN_NO_STAGE: Final = frozenset({"--help", "--version", "--list-ciphers", "--arguments", "--explain"})
"""Options that go with everything, so that there is nothing to check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is logged and where.

    With a `config_file` the level comes from there. `arguments` is the line that `--arguments` wants logged, at level
    info whatever the level is; empty without that option. `presentation_contexts` asks for those of every association
    in verbose mode.
    """

    level: LogLevel = LogLevel.WARN
    config_file: str | None = None
    arguments: str = ""
    presentation_contexts: bool = False


StartLogging = Callable[[LogOptions], LogLevel]
"""Sets up the log and returns the level that counts, which may come from the configuration file.

Raises CommandLineError when that file cannot be used.
"""


def begin_logging(selection: Selection, command_line: CommandLine, start_logging: StartLogging) -> LogOptions:
    """Check the log's options and start the log, before anything else of the command line is looked at.

    From here on errors in the command line are silent where the log takes no errors. Raises CommandLineError.
    """
    selection.check("log")
    level = LogLevel[(selection.text("--log-level") or "warn").upper()]
    options = LogOptions(
        level=next((_LEVELS[kind] for kind in Verbosity if selection.has(kind.value)), level),
        config_file=selection.text("--log-config"),
        arguments=arguments_line(command_line) if command_line.has("--arguments") else "",
        presentation_contexts=selection.has("--verbose-pc"),
    )
    effective = start_logging(options)
    if effective > LogLevel.ERROR:
        selection.silence()
    if options.presentation_contexts and effective > LogLevel.INFO:
        raise selection.error("--verbose-pc only allowed with verbose mode")
    return options


def arguments_line(command_line: CommandLine) -> str:
    """Return what `--arguments` logs: every token with its command files put in, options in long form."""
    quoted = " ".join(f"'{token}'" for token in command_line.shown)
    return f"calling '{command_line.tool}' with {len(command_line.shown)} arguments: {quoted}"
