"""TLS as a command line chose it, made ready: seed, key with its password, certificates, profile."""

import getpass
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
    try:
        if choice.seed_file is not None:
            seed_from_file(choice.seed_file)
        context = acceptor_context(options)
    except TLSSetupError as error:
        raise StartError(exit_code, str(error)) from None
    for warning in context.warnings:
        log.warning(warning)
    return context


def _ask_password(key_file: str) -> str:
    """Ask a person at the terminal."""
    try:
        with open(_TERMINAL, "rb"):
            pass
    except OSError:
        sentence = (
            f"the private key {key_file} needs a password, and there is no terminal to ask for it: "
            "give it with --use-passwd."
        )
        raise TLSSetupError(TLSFault.PASSWORD, key_file, sentence) from None
    try:
        return getpass.getpass(f"Password of {key_file}: ")
    except EOFError:
        sentence = f"the private key {key_file} needs a password, and none was typed."
        raise TLSSetupError(TLSFault.PASSWORD, key_file, sentence) from None


def write_seed(choice: TLSChoice | None, log: Logger) -> None:
    """Write a new seed to the file that was asked for, if any."""
    if choice is None or choice.write_seed_file is None:
        return
    try:
        write_seed_file(choice.write_seed_file)
    except TLSSetupError as error:
        log.warning(str(error))
