"""The log of DCMTK's programs and ours, set up by the same configuration file and given the same messages.

DCMTK's programs are started with a port that is taken, so that they log what they do at the start and end; no program
listens. What they say is taken from a run whose log writes everything, and said again to our log.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stowkeeper.dcmtk.grammar import CommandLineError
from stowkeeper.dcmtk.log_options import LogLevel, LogOptions
from stowkeeper.dcmtk.oflog.levels import NUMBERS
from support.dcmtk_command_lines import run_dcmtk
from support.oflog_rig import CONFIGURATION, Setup, running_log

UNIT, RECORD = "\x1f", "\x1e"
EVERYTHING = f"""\
log4cplus.rootLogger = TRACE, all
log4cplus.appender.all = log4cplus::ConsoleAppender
log4cplus.appender.all.layout = log4cplus::PatternLayout
log4cplus.appender.all.layout.FormatEachLine = false
log4cplus.appender.all.layout.ConversionPattern = %c{UNIT}%p{UNIT}%m{RECORD}
"""
ENVIRONMENT = {"LC_ALL": "C"}
"""What both have in their environments and files may refer to."""

RUNS, ERROR, CRASH, HANGS = "runs", "error", "crash", "hangs"
_ENDINGS = {"storescp": 1, "dcmrecv": 64}
"""The exit codes of programs that cannot listen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a program logs."""

    logger: str
    level: LogLevel
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a file and the messages: how the program ended, and what was written where.

    `complains` tells whether something was said about the log itself.
    """

    ending: str
    out: str = ""
    err: str = ""
    files: tuple[tuple[str, str], ...] = ()
    complains: bool = False


def messages_of_dcmtk(tool: str, folder: Path, port: str) -> list[Message]:
    """Return what a program logs at its start, with the command line that all runs here have."""
    (folder / CONFIGURATION).write_text(EVERYTHING, encoding="ascii")
    run = _run(tool, folder, port)
    records = os.fsdecode(run.stdout).split(RECORD)[:-1]
    parts = (record.split(UNIT) for record in records)
    return [Message(logger=logger, level=LogLevel[level], text=text) for logger, level, text in parts]


def outcome_of_dcmtk(tool: str, text: str, folder: Path, port: str) -> Outcome:
    """Run a program with a file in a folder that has nothing but what the log may find there."""
    (folder / CONFIGURATION).write_text(text, encoding="utf-8", newline="")
    try:
        run = _run(tool, folder, port)
    except subprocess.TimeoutExpired:
        return Outcome(ending=HANGS)
    err = os.fsdecode(run.stderr)
    if run.returncode < 0:
        return Outcome(ending=CRASH)
    if "\nerror: " in err:
        return Outcome(ending=ERROR)
    assert run.returncode == _ENDINGS[tool]
    return _outcome(os.fsdecode(run.stdout), err, folder)


def outcome_of_ours(tool: str, text: str, folder: Path, messages: Sequence[Message]) -> Outcome:
    """Set our log up by a file and say the messages of the program; the first is what `--arguments` shows."""
    arguments, *others = messages
    options = LogOptions(arguments=arguments.text.removesuffix("\n"))
    try:
        with running_log(
            folder, Setup(text=text, options=options, environment=ENVIRONMENT, program=tool)
        ) as log:
            for message in others:
                log.get(message.logger).log(NUMBERS[message.level], "%s", message.text)
    except CommandLineError:
        return Outcome(ending=ERROR)
    return _outcome(log.out.getvalue(), log.err.getvalue(), folder)


def _run(tool: str, folder: Path, port: str) -> "subprocess.CompletedProcess[bytes]":
    return run_dcmtk(tool, ["-lc", CONFIGURATION, "--arguments", port], port=port, folder=folder)


def _outcome(out: str, err: str, folder: Path) -> Outcome:
    lines = err.splitlines(keepends=True)
    # DCMTK's complaint about a pattern has a second line, with a blank at its beginning.
    about_the_log = [line for line in lines if line.startswith(("log4cplus:", " Was expecting"))]
    files = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}
    return Outcome(
        ending=RUNS,
        out=out,
        err="".join(line for line in lines if line not in about_the_log),
        files=tuple(sorted((name, text) for name, text in files.items() if name != CONFIGURATION)),
        complains=bool(about_the_log),
    )


def shape(outcome: Outcome, pattern: str = r"\d") -> Outcome:
    """Return an outcome with what differs from run to run replaced: every digit, or every number."""

    def plain(text: str) -> str:
        return re.sub(pattern, "0", text)

    return Outcome(
        ending=outcome.ending,
        out=plain(outcome.out),
        err=plain(outcome.err),
        files=tuple((plain(name), plain(text)) for name, text in outcome.files),
        complains=outcome.complains,
    )
