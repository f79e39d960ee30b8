"""TLS as a command line chose it, made ready: seed, key with its password, certificates, profile."""

import getpass
import sys
from dataclasses import replace

from stowkeeper.dcmtk.oflog.loggers import Logger
from stowkeeper.dcmtk.start_checks import StartError
from stowkeeper.dcmtk.tls_options import TLSChoice
from stowkeeper.net.tls_context import TLSContext, acceptor_context
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.net.tls_seed import seed_from_file, write_seed_file

_TERMINAL = "/dev/tty"


def prepare_tls(choice: TLSChoice, log: Logger, exit_code: int) -> TLSContext:
    """Set TLS up; warnings go to the log. Raises StartError."""
    options = choice.options
    if choice.asks_password:
        options = replace(options, password=lambda: _ask_password(options.key_file))
    if choice.seed_file is not None:
        _take_seed(choice.seed_file, log)
    try:
        context = acceptor_context(options)
    except TLSSetupError as error:
        raise StartError(exit_code, str(error)) from None
    for warning in context.warnings:
        log.warning(warning)
    return context


def _take_seed(path: str, log: Logger) -> None:
    """Stir a seed file in. One that is not there yet is no fault: the system seeds the generator."""
    try:
        seed_from_file(path)
    except TLSSetupError as error:
        log.warning(str(error))


def _ask_password(key_file: str) -> str:
    """Ask a person at the terminal; where there is none, read a line of standard input."""
    try:
        with open(_TERMINAL, "rb"):
            pass
    except OSError:
        return _password_line(key_file)
    try:
        return getpass.getpass(f"Password of {key_file}: ")
    except EOFError:
        sentence = f"the private key {key_file} needs a password, and none was typed."
        raise TLSSetupError(TLSFault.PASSWORD, key_file, sentence) from None


def _password_line(key_file: str) -> str:
    line = "" if sys.stdin is None else sys.stdin.readline()
    if not line:
        sentence = (
            f"the private key {key_file} needs a password, and there is neither a terminal to ask for it nor a line "
            "on standard input: put it there, or use --use-passwd."
        )
        raise TLSSetupError(TLSFault.PASSWORD, key_file, sentence)
    return line.rstrip("\r\n")


def write_seed(choice: TLSChoice | None, log: Logger) -> None:
    """Write a new seed to the file that was asked for, if any."""
    if choice is None or choice.write_seed_file is None:
        return
    try:
        write_seed_file(choice.write_seed_file)
    except TLSSetupError as error:
        log.warning(str(error))
