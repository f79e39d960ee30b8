"""The options of TLS that every command has that calls a peer."""

import getpass
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeVar

import click

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.net.tls_context import (
    PeerVerification,
    TLSContext,
    TLSOptions,
    acceptor_context,
    requestor_context,
)
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.net.tls_material import FileFormat, Password, password_in
from stowkeeper.net.tls_profiles import SecurityProfile

R = TypeVar("R")

_PREFIX: Final = "tls_"
_WRONG_WORDS: Final = {TLSFault.PROFILE, TLSFault.CIPHER_SUITE, TLSFault.PROTOCOL}
"""Faults of the command line itself; all others are of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSUse:
    """TLS for a call. Without `server_name` the peer is asked for the host that is called."""

    context: TLSContext
    server_name: str | None
    options: TLSOptions

    def listening(self) -> TLSContext:
        """Return TLS for peers that call back: with our certificate, and theirs have to be as when we call them.

        No name is looked for in them: who calls has an address, and its AE title is looked at. Raises CommandError where
        files cannot be used, click.UsageError where we have no certificate to show.
        """
        if not self.options.certificate_file:
            raise click.UsageError(
                "--listen takes reports over TLS, as the peer is called, and has to show a certificate: --tls-certificate FILE."
            )
        try:
            return acceptor_context(self.options)
        except TLSSetupError as error:
            raise _failure(error) from error


def tls_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command --tls and what belongs to it. It gets `tls`, a TLSUse, or None when none of them is given."""

    @wraps(command)
    def with_tls(**options: Any) -> R:  # noqa: ANN401 - they are the command's own
        given = {
            name.removeprefix(_PREFIX): options.pop(name)
            for name in list(options)
            if name.startswith(_PREFIX)
        }
        wanted = options.pop("tls") or any(given.values())
        return command(tls=_prepare(**given) if wanted else None, **options)

    decorated: Callable[..., R] = with_tls
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


_OPTIONS: Final = (
    click.option(
        "--tls",
        is_flag=True,
        help="Call over TLS. Implied by the options below. Without --tls-ca the peer's certificate must be of an"
        " authority that this machine trusts.",
    ),
    click.option("--tls-certificate", metavar="FILE", help="Our certificate, for peers that ask for one."),
    click.option("--tls-key", metavar="FILE", help="Its private key, if it is not in the same file."),
    click.option(
        "--tls-key-password-file",
        metavar="FILE",
        help="File whose first line is the password of the key. Without it a terminal is asked.",
    ),
    click.option(
        "--tls-ca",
        "tls_authorities",
        metavar="PATH",
        multiple=True,
        help="Authority that the peer's certificate is to be of: a file, or a directory made by openssl rehash."
        " May be given several times.",
    ),
    click.option(
        "--tls-crl",
        "tls_revocation_lists",
        metavar="FILE",
        multiple=True,
        help="Revocation list that the peer's certificate must not stand in. May be given several times.",
    ),
    click.option(
        "--tls-format",
        type=click.Choice([form.value for form in FileFormat]),
        help="How these files are written.  [default: pem]",
    ),
    click.option(
        "--tls-profile",
        metavar="NAME",
        type=click.Choice([profile.value for profile in SecurityProfile]),
        help="Security profile of PS3.15: " + ", ".join(SecurityProfile) + ".  [default: rfc8996]",
    ),
    click.option(
        "--tls-server-name",
        metavar="NAME",
        help="Name to ask the peer for, and to look for in its certificate.  [default: HOST]",
    ),
    click.option("--tls-any-name", is_flag=True, help="Take a certificate whatever name it holds for."),
    click.option(
        "--tls-any-certificate", is_flag=True, help="Take any certificate: whoever answers gets the data."
    ),
)


def _prepare(  # noqa: PLR0913 - one for each option
    *,
    certificate: str | None,
    key: str | None,
    key_password_file: str | None,
    authorities: tuple[str, ...],
    revocation_lists: tuple[str, ...],
    format: str | None,  # noqa: A002 - the name of the option
    profile: str | None,
    server_name: str | None,
    any_name: bool,
    any_certificate: bool,
) -> TLSUse:
    if key and not certificate:
        raise click.UsageError("--tls-key is of no use without --tls-certificate.")
    try:
        options = TLSOptions(
            certificate_file=certificate or "",
            key_file=key or "",
            file_format=FileFormat(format or FileFormat.PEM),
            password=_password(key or certificate or "", key_password_file),
            ca_files=tuple(path for path in authorities if not os.path.isdir(path)),
            ca_directories=tuple(path for path in authorities if os.path.isdir(path)),
            crl_files=revocation_lists,
            profile=SecurityProfile(profile or SecurityProfile.RFC_8996),
            verification=PeerVerification.IGNORE if any_certificate else PeerVerification.REQUIRE,
            trusts_system=not authorities,
            checks_name=not any_name,
        )
        context = requestor_context(options)
    except TLSSetupError as error:
        raise _failure(error) from error
    for warning in context.warnings:
        click.echo(f"warning: {warning}", err=True)
    return TLSUse(context=context, server_name=server_name, options=options)


def _failure(error: TLSSetupError) -> CommandError:
    return CommandError(str(error), ExitCode.USAGE if error.fault in _WRONG_WORDS else ExitCode.NO_INPUT)


def _password(key_file: str, password_file: str | None) -> Password:
    """Return the password of the key: from the file, or asked for when OpenSSL finds that it needs one."""
    if password_file is not None:
        return password_in(password_file)
    if not sys.stdin.isatty():
        return None
    return lambda: getpass.getpass(f"Password of {key_file}: ")
