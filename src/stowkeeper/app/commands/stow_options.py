"""The options of `stowkeeper stow` that say as whom to call, and whom to trust."""

import os
import ssl
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

import click

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.setting_sources import STOW_CREDENTIAL_VARIABLE
from stowkeeper.net.tls_errors import TLSSetupError
from stowkeeper.services.stow_client.address import AddressError, StoreAddress, read_address
from stowkeeper.services.stow_client.credentials import (
    Credential,
    CredentialError,
    basic,
    bearer,
    check_exposure,
    read_secret,
)
from stowkeeper.services.stow_client.options import Destination
from stowkeeper.services.stow_client.trust import client_context

R = TypeVar("R")


def destination_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the argument URL, --study and the options of credentials and TLS. It gets `destination`."""

    @wraps(command)
    def with_destination(**options: Any) -> R:  # noqa: ANN401 - they are the command's own
        given = {name: options.pop(name) for name in _NAMES}
        return command(destination=_destination(**given), **options)

    decorated: Callable[..., R] = with_destination
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


_NAMES: Final = (
    "url",
    "study",
    "token_file",
    "user",
    "password_file",
    "insecure_http",
    "ca_file",
    "no_verify",
    "certificate",
    "key",
)
_OPTIONS: Final = (
    click.argument("url", metavar="URL"),
    click.option("--study", metavar="UID", default="", help="Post to this study: the server takes no other."),
    click.option(
        "--token-file",
        metavar="FILE",
        help=f"File whose first line is a bearer token.  [env var of the token itself: {STOW_CREDENTIAL_VARIABLE}]",
    ),
    click.option("--user", metavar="NAME", help="Name for basic authentication; the password is asked for."),
    click.option("--password-file", metavar="FILE", help="File whose first line is the password of --user."),
    click.option(
        "--insecure-http",
        is_flag=True,
        help="Send the credential without TLS too, to other machines than this one: it can be read on the way.",
    ),
    click.option(
        "--ca-file",
        metavar="FILE",
        help="Authorities that the server's certificate is to be of (PEM), in place of those that this machine trusts.",
    ),
    click.option("--no-verify", is_flag=True, help="Take any certificate: whoever answers gets the data."),
    click.option(
        "--certificate",
        metavar="FILE",
        help="Our certificate (PEM), for servers that ask for one, and behind it those of the authorities between.",
    ),
    click.option(
        "--key",
        metavar="FILE",
        help="Its private key (PEM), without a password, if it is not in the same file.",
    ),
)


def _destination(  # noqa: PLR0913 - one for each option
    *,
    url: str,
    study: str,
    token_file: str | None,
    user: str | None,
    password_file: str | None,
    insecure_http: bool,
    ca_file: str | None,
    no_verify: bool,
    certificate: str | None,
    key: str | None,
) -> Destination:
    try:
        address = read_address(url, study)
    except AddressError as error:
        raise click.BadParameter(f"{error}.", param_hint="URL") from None
    context = _context(address, ca_file, no_verify=no_verify, certificate=certificate, key=key)
    try:
        credential = _credential(token_file, user, password_file)
        if credential is not None:
            check_exposure(credential, address, allowed=insecure_http)
    except CredentialError as error:
        text = str(error)
        raise click.UsageError(f"{text[:1].upper()}{text[1:]}.") from None
    return Destination(address=address, credential=credential, context=context)


def _credential(token_file: str | None, user: str | None, password_file: str | None) -> Credential | None:
    """Read the credential that the options name, else the one of the environment."""
    if token_file is not None and user is not None:
        raise click.UsageError("--token-file and --user are two credentials: a request has one.")
    if password_file is not None and user is None:
        raise click.UsageError("--password-file has no effect without --user.")
    if token_file is not None:
        return bearer(read_secret(token_file))
    if user is not None:
        return basic(user, read_secret(password_file) if password_file is not None else _password(user))
    token = os.environ.get(STOW_CREDENTIAL_VARIABLE)
    return bearer(token) if token else None


def _password(user: str) -> str:
    if sys.stdin.isatty():
        given: str = click.prompt(f"Password of {user}", hide_input=True, err=True)
        return given
    return sys.stdin.readline().rstrip("\r\n")


def _context(
    address: StoreAddress,
    ca_file: str | None,
    *,
    no_verify: bool,
    certificate: str | None,
    key: str | None,
) -> ssl.SSLContext | None:
    """Return whom to trust and as whom to call; None where there is no TLS."""
    if key is not None and certificate is None:
        raise click.UsageError("--key has no effect without --certificate.")
    if address.scheme != "https":
        if ca_file is not None or no_verify or certificate is not None:
            raise click.UsageError(
                "--ca-file, --no-verify and --certificate have no effect on a URL with http://."
            )
        return None
    if no_verify:
        click.echo(
            "warning: the server's certificate is not checked: whoever answers gets the data.", err=True
        )
    try:
        return client_context(ca_file, verifies=not no_verify, certificate=certificate or "", key=key or "")
    except TLSSetupError as error:
        raise CommandError(str(error), ExitCode.NO_INPUT) from error
