"""`stowkeeper echo`: does a DICOM server answer, and how fast."""

import json
import time
from dataclasses import dataclass

import click

from stowkeeper.app.commands.event_loop import event_loop
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import json_option
from stowkeeper.app.commands.peer_address import PeerAddress, peer_options
from stowkeeper.app.commands.tls_options import TLSUse, tls_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.dicom.status import Status, meaning_of
from stowkeeper.dicom.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.net.client import ClientAssociation, association_request
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.upperlayer.items import ProposedContext


@click.command(epilog="Exit code 0 when the peer answers Success, 69 when it does not answer or rejects us.")
@peer_options(
    timeout=10.0, timeout_help="How long to wait for the connection, the association and the answer."
)
@tls_options
@json_option
def echo(
    *, peer: PeerAddress, calling_ae_title: str, timeout: float, tls: TLSUse | None, as_json: bool
) -> ExitCode:
    """Ask a DICOM server whether it answers.

    Opens an association with the peer, sends one C-ECHO, and tells how long the answer took. Example: stowkeeper echo
    ARCHIVE@192.0.2.7:104
    """
    try:
        with event_loop() as runner:
            answer = runner.run(_echo(peer, calling_ae_title, timeout, tls))
    except AssociationError as error:
        raise CommandError(str(error), ExitCode.UNAVAILABLE) from error
    if as_json:
        line = {
            "peer": str(peer),
            "status": f"{answer.status:04X}H",
            "association_milliseconds": round(answer.association_seconds * 1000, 3),
            "echo_milliseconds": round(answer.echo_seconds * 1000, 3),
            "tls": answer.tls or None,
        }
        click.echo(json.dumps(line))
    elif answer.status == Status.SUCCESS:
        over = f" over {answer.tls}" if answer.tls else ""
        click.echo(
            f"{peer} answered in {answer.echo_seconds * 1000:.1f} ms{over}, after"
            f" {answer.association_seconds * 1000:.1f} ms for the association."
        )
    if answer.status != Status.SUCCESS:
        raise CommandError(f"{peer} answered {meaning_of(answer.status)}.", ExitCode.UNAVAILABLE)
    return ExitCode.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What was answered, over what, and how long it took to come to it."""

    status: int
    tls: str
    association_seconds: float
    echo_seconds: float


async def _echo(peer: PeerAddress, calling_ae_title: str, seconds: float, tls: TLSUse | None) -> _Answer:
    request = association_request(
        called_ae_title=peer.ae_title,
        calling_ae_title=calling_ae_title,
        contexts=[
            ProposedContext(
                context_id=1, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)
            )
        ],
    )
    timeouts = ClientTimeouts(
        connect_seconds=seconds,
        association_seconds=seconds,
        progress_seconds=seconds,
        release_seconds=seconds,
    )
    started = time.perf_counter()
    opening = ClientAssociation.open(
        peer.host,
        peer.port,
        request,
        timeouts,
        tls=tls.context if tls is not None else None,
        server_name=tls.server_name if tls is not None else None,
    )
    async with await opening as association:
        established = time.perf_counter()
        response = await association.echo()
        answered = time.perf_counter()
    return _Answer(
        status=response.status,
        tls=association.tls,
        association_seconds=established - started,
        echo_seconds=answered - established,
    )
