"""The argument AET@HOST:PORT, and the options that every command that calls a peer has."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeVar

import click

from stowkeeper.dicom.ae_title import ae_title_defect

R = TypeVar("R")

CALLING_AE_TITLE_DEFAULT: Final = "STOWKEEPER"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """A DICOM server: its AE title, and where it listens."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


def parse_peer_address(value: str) -> PeerAddress:
    """Take the text apart; an AE title may hold an @ itself, a numeric IPv6 address stands in brackets.

    Raises click.BadParameter.
    """
    ae_title, at, where = value.rpartition("@")
    host, colon, port = where.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (at and colon and host):
        raise click.BadParameter(
            f"{value!r} is not of the form AET@HOST:PORT, such as ARCHIVE@192.0.2.7:104."
        )
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 0x10000):
        raise click.BadParameter(f"{port!r} in {value!r} is no port: it is a number from 1 to 65535.")
    defect = ae_title_defect(ae_title)
    if defect:
        raise click.BadParameter(f"{ae_title!r} in {value!r} is no AE title: {defect}.")
    return PeerAddress(ae_title=ae_title, host=host, port=int(port))


def _peer_address(_context: click.Context, _parameter: click.Parameter, value: str) -> PeerAddress:
    return parse_peer_address(value)


def _named_peer(_context: click.Context, _parameter: click.Parameter, value: str) -> PeerAddress | str:
    return parse_peer_address(value) if "@" in value else value


def _calling_ae_title(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    defect = ae_title_defect(value)
    if defect:
        raise click.BadParameter(f"{value!r} is no AE title: {defect}.")
    return value


def peer_options(
    timeout: float, timeout_help: str, *, takes_names: bool = False
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command the argument AET@HOST:PORT, --calling-ae-title and --timeout.

    It gets `peer`, a PeerAddress, `calling_ae_title` and `timeout` in seconds. With `takes_names` a `peer` without an @ is
    the name of a known peer, as it stands.
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @click.argument(
            "peer",
            metavar="PEER" if takes_names else "AET@HOST:PORT",
            callback=_named_peer if takes_names else _peer_address,
        )
        @click.option(
            "--calling-ae-title",
            metavar="AET",
            default=CALLING_AE_TITLE_DEFAULT,
            show_default=True,
            callback=_calling_ae_title,
            help="Our own AE title; some peers know theirs by it.",
        )
        @click.option(
            "--timeout",
            metavar="SECONDS",
            type=click.FloatRange(min=0.1, max=86_400.0),
            default=timeout,
            show_default=True,
            help=timeout_help,
        )
        @wraps(command)
        def with_peer(**options: Any) -> R:  # noqa: ANN401 - they are the command's own
            return command(**options)

        return with_peer

    return decorate
