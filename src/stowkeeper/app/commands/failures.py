"""From an error to a sentence and an exit code: the one place where that happens.

An error is known when it stands in `KNOWN_ERRORS`, is an `OSError`, comes from click, or is a `CommandError`: its
text is made for people, and printed. Any other is a fault of the program: a person gets one sentence that says where
the details are, and the traceback only with `--debug`.
"""

import contextlib
import errno
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from stowkeeper.app.exit_codes import ExitCode

KNOWN_ERRORS: Mapping[str, ExitCode] = {
    "stowkeeper.app.setting_problems.SettingsError": ExitCode.SETTINGS,
    "stowkeeper.app.socket_activation.InheritedSocketError": ExitCode.SETTINGS,
    "stowkeeper.archive.archive.ArchiveRefusedError": ExitCode.NO_INPUT,
    "stowkeeper.database.errors.DatabaseDamaged": ExitCode.IO_ERROR,
    "stowkeeper.database.errors.DatabaseError": ExitCode.IO_ERROR,
    "stowkeeper.database.errors.DatabaseForbidden": ExitCode.IO_ERROR,
    "stowkeeper.database.errors.DatabaseForeign": ExitCode.NO_INPUT,
    "stowkeeper.database.errors.DatabaseReadOnly": ExitCode.IO_ERROR,
    "stowkeeper.database.errors.DatabaseUnavailable": ExitCode.TRY_AGAIN,
    "stowkeeper.durable.errors.ArchiveIdentityError": ExitCode.NO_INPUT,
    "stowkeeper.durable.errors.DurableError": ExitCode.IO_ERROR,
    "stowkeeper.durable.server_lock.ArchiveInUseError": ExitCode.TRY_AGAIN,
    "stowkeeper.net.association_errors.AssociationError": ExitCode.UNAVAILABLE,
    "stowkeeper.services.commitment.external_policies.PolicyUnknownError": ExitCode.SETTINGS,
    "stowkeeper.web.security.ExposureError": ExitCode.SETTINGS,
    "stowkeeper.web.server.ServerTLSError": ExitCode.SETTINGS,
}
"""Exit codes of our own errors, by the full name of their class; a class inherits that of its base.

By name, so that no room is imported to compare with.
"""

_NETWORK_ERRORS = frozenset(
    {
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
    }
)


class CommandError(Exception):
    """A command cannot do what it was asked; its text is a sentence for the person who asked."""

    def __init__(self, sentence: str, exit_code: ExitCode) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class PipeBrokenError(Exception):
    """Carries a BrokenPipeError past click, which would take it for its own."""


@dataclass(slots=True)
class Invocation:
    """One run of the command line: what must be known when it fails. click's `obj`."""

    debug: bool = False
    log_directory: Path | None = None


def report_failure(error: BaseException, invocation: Invocation) -> ExitCode:
    """Print what a person needs to know of an error, and return the exit code."""
    error = _single(error)
    if isinstance(error, PipeBrokenError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BrokenPipeError) and _output_is_closed():
        return ExitCode.BROKEN_PIPE
    if invocation.debug and not isinstance(error, click.ClickException):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _say("Interrupted.", ExitCode.INTERRUPTED)
    if isinstance(error, click.ClickException):
        error.show()
        return ExitCode.USAGE if isinstance(error, click.UsageError) else ExitCode.NO_INPUT
    code = known_exit_code(error)
    if code is not None:
        return _say(f"Error: {_sentence_of(error)}", code)
    where = _noted_place(error) or _write_details(error, invocation)
    return _say(
        f"Error: Stowkeeper met a fault of its own ({type(error).__name__}). The details are in {where};"
        " `stowkeeper --debug …` shows them here.",
        ExitCode.INTERNAL,
    )


def known_exit_code(error: BaseException) -> ExitCode | None:
    """Return the exit code of a known error; None for any other."""
    if isinstance(error, CommandError):
        return error.exit_code
    for kind in type(error).__mro__:
        code = KNOWN_ERRORS.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code
    return _exit_code_of_system_error(error) if isinstance(error, OSError) else None


def _exit_code_of_system_error(error: OSError) -> ExitCode:
    # socket.gaierror has its own numbers; a connection that fails is a ConnectionError or a TimeoutError.
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__ == "socket":
        return ExitCode.UNAVAILABLE
    if error.errno in _NETWORK_ERRORS:
        return ExitCode.UNAVAILABLE
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return ExitCode.NO_INPUT
    return ExitCode.IO_ERROR


def _sentence_of(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno == errno.EROFS and error.filename is not None:
        return f"{error.filename} cannot be written, since its disk is mounted read-only: mount it to be written."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error) or type(error).__name__


def _output_is_closed() -> bool:
    """Tell whether nobody reads our output any more; else a broken pipe was a peer's."""
    import select  # noqa: PLC0415 - for this case only

    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False
    return bool(poll.poll(0))  # asked for nothing, it tells of errors and hang-ups alone


def _single(error: BaseException) -> BaseException:
    """Return the only error of a group, as a task group wraps it; else the error itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _say(sentence: str, code: ExitCode) -> ExitCode:
    from stowkeeper.app.log_lines import printable  # noqa: PLC0415 - only a command that fails needs it

    with contextlib.suppress(OSError):  # when nobody reads standard error, the exit code still tells
        click.echo("\n".join(printable(line) for line in sentence.split("\n")), err=True)
    return code


def _noted_place(error: BaseException) -> str | None:
    from stowkeeper.app.log_lines import LOGGED_TO  # noqa: PLC0415 - as in _say

    notes = getattr(error, "__notes__", [])
    return next((note.removeprefix(LOGGED_TO) for note in notes if note.startswith(LOGGED_TO)), None)


def _write_details(error: BaseException, invocation: Invocation) -> str:
    """Append a line about an error to a file beside the server's log, or to one of its own where that fails."""
    from stowkeeper.app.limits import LOG_SIZE_MAX  # noqa: PLC0415 - as in _say
    from stowkeeper.app.log_files import COMMANDS_FILE_NAME, RotatingFile  # noqa: PLC0415 - likewise
    from stowkeeper.app.log_lines import describe_exception, text_line, timestamp  # noqa: PLC0415 - likewise

    line = text_line(
        {
            "time": timestamp(time.time_ns()),
            "level": "error",
            "event": "error",
            "what": "a command met a fault of the program",
            "command": " ".join(["stowkeeper", *sys.argv[1:2]]),
            **describe_exception(error),
        }
    )
    if invocation.log_directory is not None:
        path = os.path.join(invocation.log_directory, COMMANDS_FILE_NAME)
        file = RotatingFile(path, max_size=LOG_SIZE_MAX, backups=0)
        try:
            file.write([line])
        except OSError:
            pass
        else:
            return path
        finally:
            file.close()
    import tempfile  # noqa: PLC0415 - likewise

    descriptor, path = tempfile.mkstemp(prefix="stowkeeper-error-", suffix=".log", text=True)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
    return path
