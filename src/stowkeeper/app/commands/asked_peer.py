"""A peer on the command line: by its name, or as AET@HOST:PORT, which is a known one too where it is called there."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import click

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.peer_address import PeerAddress, parse_peer_address
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.dicom.ae_title import ae_title_defect
from stowkeeper.services.peer_definition import Peer
from stowkeeper.services.peers import PeerBook

R = TypeVar("R")

CONNECT_SECONDS_MAX = 30.0
"""Longest wait for a connection and for an association with a peer that nobody defined: both take a moment."""


def listen_option(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command --listen. It gets `listen`, host and port, or None."""

    @click.option(
        "--listen",
        metavar="HOST:PORT",
        callback=_host_and_port,
        help="Listen there for the report meanwhile, for peers that report on an association of their own; they must know"
        " this address as ours. Over TLS where there is a certificate of ours for it.",
    )
    @wraps(command)
    def with_listen(**options: Any) -> R:  # noqa: ANN401 - they are the command's own
        return command(**options)

    return with_listen


def _host_and_port(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    if value is None:
        return None
    host, colon, port = value.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 0x10000):
        raise click.BadParameter(f"{value!r} is not of the form HOST:PORT, such as 0.0.0.0:11113.")
    return host, int(port)


def own_ae_title(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    """Check an AE title of ours that was given; '' when none was."""
    if value is None:
        return ""
    defect = ae_title_defect(value)
    if defect:
        raise click.BadParameter(f"{value!r} is no AE title: {defect}.")
    return value


def find_peer(peers: PeerBook, named: str, own: str, seconds: float | None = None) -> Peer:
    """Return the peer that a name or AET@HOST:PORT on the command line means.

    AET@HOST:PORT of a known peer is that peer. Otherwise it is one without a name, which may stand still for `seconds`.
    `own` is what we call ourselves to it, '' where nobody said. Raises CommandError and click.BadParameter.
    """
    peer = _known(peers, named) if "@" not in named else _at(peers, parse_peer_address(named), seconds)
    return replace(peer, own_ae_title=own) if own else peer


def _known(peers: PeerBook, name: str) -> Peer:
    peer = peers.find(name)
    if peer is None:
        raise CommandError(
            f"There is no peer {name!r}: `stowkeeper peers ls` lists them, or name it as AET@HOST:PORT.",
            ExitCode.NO_INPUT,
        )
    if not peer.is_reachable:
        raise CommandError(
            f"Nobody said where the peer {name!r} is called: give it ae_title, host and port.",
            ExitCode.NO_INPUT,
        )
    return peer


def _at(peers: PeerBook, address: PeerAddress, seconds: float | None) -> Peer:
    where = (address.ae_title, address.host, address.port)
    for peer in peers.all():
        if (peer.ae_title, peer.host, peer.port) == where:
            return peer
    nameless = Peer(name="", ae_title=address.ae_title, host=address.host, port=address.port)
    if seconds is None:
        return nameless
    return replace(nameless, connect_seconds=min(seconds, CONNECT_SECONDS_MAX), answer_seconds=seconds)
