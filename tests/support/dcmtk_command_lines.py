"""Command lines of `storescp` and `dcmrecv` put to DCMTK's programs and to ours, and the answers made comparable.

A port that somebody listens on already is given to every command line that is right, so that DCMTK's programs end at it
and never listen themselves: all that is checked before that is behind them then.
"""

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stowkeeper.dcmtk.dcmrecv_options import DcmrecvExit, dcmrecv_table, evaluate_dcmrecv
from stowkeeper.dcmtk.grammar import CommandLine, CommandLineError
from stowkeeper.dcmtk.log_options import LogLevel, LogOptions
from stowkeeper.dcmtk.network_options import ProfileChoice
from stowkeeper.dcmtk.start_checks import (
    StartError,
    check_dcmrecv_directory,
    check_dcmrecv_port,
    check_storescp_directory,
    check_storescp_port,
)
from stowkeeper.dcmtk.storescp_options import evaluate_storescp
from stowkeeper.dcmtk.storescp_table import storescp_table
from stowkeeper.dcmtk.usage import ExitWith, prepare
from support.peers import program_path
from support.processes import LOOPBACK

PORT = "PORT"
"""Stands in a command line for the port that is taken."""
SECONDS_MAX = 20.0
"""How long a program may take to end; one that takes longer has begun to serve."""

PROFILE, DIRECTORY, PRIVILEGE, RUNS, TLS = "profile", "directory", "privilege", "runs", "tls"
"""What a command line that is right in itself ends with: each is a failure behind the options, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a program answered: its exit code, the stream it spoke on, and what it said, without the words around it.

    A program that would run has no exit code of its own, since what stops it here is not its command line.
    """

    code: int | None
    stream: str
    says: str


NOBODY = 65534
"""A user without any privileges."""


@contextlib.contextmanager
def ordinary_user() -> Iterator[int | None]:
    """Be a user whom permissions bind, also where the tests are run by root; give its id, None for the one there is."""
    if os.geteuid() != 0:
        yield None
        return
    os.seteuid(NOBODY)
    try:
        yield NOBODY
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def taken_port() -> Iterator[str]:
    """Give the number of a port on which nobody else can listen, on no address."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        yield str(taken.getsockname()[1])


# DCMTK's programs

_FAILURES = (
    (PROFILE, r"F: cannot (?:read config file|load association configuration)"),
    (DIRECTORY, r"F: (?:specified output directory|cannot specify output directory)"),
    (PRIVILEGE, r"F: .*(?:insufficient|Insufficient port) privileges"),
    (RUNS, r"(?:E: cannot create network|F: cannot start SCP and listen)"),
    (TLS, r"F: .*TLS private key|F: 000b:"),
)


def run_dcmtk(
    tool: str, arguments: Sequence[str], *, port: str, folder: Path, user: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run one of DCMTK's programs to its end. Raises subprocess.TimeoutExpired when it does not end; it is dead then."""
    return subprocess.run(
        [program_path(tool), *(port if argument == PORT else argument for argument in arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=folder,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        timeout=SECONDS_MAX,
        check=False,
        user=user,
    )


def answer_of_dcmtk(
    tool: str, arguments: Sequence[str], *, port: str, folder: Path, user: int | None = None
) -> Answer:
    """Run one of DCMTK's programs to its end, by default as the user of the tests, and say how it answered."""
    run = run_dcmtk(tool, arguments, port=port, folder=folder, user=user)
    out, err = (os.fsdecode(stream).replace(port, PORT) for stream in (run.stdout, run.stderr))
    for says, pattern in _FAILURES:
        if re.search(pattern, err, re.MULTILINE):
            code = None if says == RUNS else run.returncode
            return Answer(code=code, stream="stderr", says=says)
    return printed(run.returncode, out, err)


# Ours


def _start_logging(options: LogOptions) -> LogLevel:
    """Read as much of a log configuration as decides how the command line goes on."""
    if options.config_file is None:
        return options.level
    try:
        text = Path(options.config_file).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandLineError(f"--log-config: {error.strerror}") from error
    root = re.search(r"^log4cplus\.rootLogger *= *(\w+)", text, re.MULTILINE)
    if root is None:
        raise CommandLineError("--log-config: no root logger")
    return LogLevel[root[1]]


def _load_profile(choice: ProfileChoice, exit_code: int) -> None:
    if not os.path.isfile(choice.file):
        raise StartError(exit_code, PROFILE)


def _run_storescp(line: CommandLine) -> None:
    options = evaluate_storescp(
        storescp_table(),
        line,
        start_logging=_start_logging,
        load_profile=partial(_load_profile, exit_code=1),
    )
    with _as(PRIVILEGE):
        check_storescp_port(options)
    with _as(DIRECTORY):
        check_storescp_directory(options)


def _run_dcmrecv(line: CommandLine) -> None:
    options = evaluate_dcmrecv(dcmrecv_table(), line, start_logging=_start_logging)
    if options.profile is not None:
        _load_profile(options.profile, DcmrecvExit.ASSOCIATION_PROFILE)
    with _as(DIRECTORY):
        check_dcmrecv_directory(options)
    if options.tls is not None and not os.path.isfile(options.tls.options.key_file):
        raise StartError(DcmrecvExit.TRANSPORT_LAYER, TLS)
    with _as(PRIVILEGE):
        check_dcmrecv_port(options)


@contextlib.contextmanager
def _as(says: str) -> Iterator[None]:
    try:
        yield
    except StartError as error:
        raise StartError(error.exit_code, says) from error


_RUNS: dict[str, Callable[[CommandLine], None]] = {"storescp": _run_storescp, "dcmrecv": _run_dcmrecv}


def answer_of_ours(tool: str, arguments: Sequence[str], *, port: str, folder: Path) -> Answer:
    """Take a command line as far as DCMTK's programs can go here."""
    given = [port if argument == PORT else argument for argument in arguments]
    table = storescp_table() if tool == "storescp" else dcmrecv_table()

    try:
        with contextlib.chdir(folder):
            ended = prepare(table, given, _RUNS[tool], lambda: ["TLS_RSA_WITH_AES_128_CBC_SHA"])
    except StartError as error:
        return Answer(code=error.exit_code, stream="stderr", says=str(error))
    if isinstance(ended, ExitWith):
        out, err = (text.replace(port, PORT) for text in (ended.stdout, ended.stderr))
        return printed(ended.code, out, err)
    return Answer(code=None, stream="stderr", says=RUNS)


# What was printed


def printed(code: int, out: str, err: str) -> Answer:
    """Say what a program printed that ended at its command line."""
    if out and err:
        return Answer(code=code, stream="both", says="")
    if out:
        check_heading(out)
        return Answer(code=code, stream="stdout", says=_text_on_stdout(out))
    if err:
        check_heading(err)
        return Answer(code=code, stream="stderr", says=_error(err))
    return Answer(code=code, stream="", says="")


def check_heading(text: str) -> None:
    """Check the lines that everything begins with that is printed about a command line."""
    tool = r"(?P<tool>storescp|dcmrecv)"
    shape = rf"\$dcmtk: {tool} v\d+\.\d+\.\d+ \d{{4}}-\d\d-\d\d \$\n\n(?P=tool): \S.*\n"
    assert re.match(shape, text), text


def _text_on_stdout(text: str) -> str:
    if "\nusage: " in text:
        return "help"
    if "\nSupported TLS ciphersuites are:\n" in text:
        return "cipher suites"
    return "version" if "\nExternal libraries used:\n" in text else text


_OTHER_WORDS = (
    (r"Invalid log level for --log-level option", "invalid --log-level"),
    (r"Invalid value for option --log-level \(.*", "invalid --log-level"),
    (r"Specified --log-config file .*", "unusable --log-config"),
    (r"--log-config: .*", "unusable --log-config"),
    (r"(Cannot open command file '.*?').*", r"\1"),
)
"""Errors that both name in words of their own."""


def _error(text: str) -> str:
    found = re.search(r"^error: (.*)\n\Z", text, re.MULTILINE | re.DOTALL)
    assert found, text
    for pattern, words in _OTHER_WORDS:
        if re.fullmatch(pattern, found[1]):
            return re.sub(pattern, words, found[1])
    return found[1]
