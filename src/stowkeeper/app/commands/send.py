"""`stowkeeper send`: files and folders to a DICOM server."""

import sys
import warnings
from pathlib import Path

import click

from stowkeeper.app.commands.event_loop import event_loop
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import json_option
from stowkeeper.app.commands.peer_address import PeerAddress, peer_options
from stowkeeper.app.commands.send_report import SendReport, left_out, print_plan
from stowkeeper.app.commands.tls_options import TLSUse, tls_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import SEND_ASSOCIATIONS_MAX, SEND_RETRIES_MAX
from stowkeeper.dimse.limits import OPERATIONS_INVOKED_MAX
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.services.conversion import can_convert
from stowkeeper.services.send_plan import SendPlan, plan_associations, plan_sending
from stowkeeper.services.sending import Destination, SendOptions, send_files
from stowkeeper.upperlayer.limits import OPERATIONS_WINDOW_DEFAULT

CONNECT_SECONDS_MAX = 30.0
"""Longest wait for a TCP connection and for the answer to an association request, whatever --timeout says: both
take a moment when there is anybody."""

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long one thread may keep the interpreter while another waits: with Python's default of 5 ms the thread that
reads files and the event loop would hold each other up."""


@click.command(
    epilog="Exit code 0 when every instance was accepted, a warning counts as that; 1 when one was not; 69 when the"
    " peer cannot be reached or rejects us. docs/commands.md tells more."
)
@peer_options(
    timeout=120.0,
    timeout_help="How long the peer may stand still: give no answer, take no data. At most 30 of them for the"
    " connection.",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--associations",
    metavar="N",
    type=click.IntRange(1, SEND_ASSOCIATIONS_MAX),
    default=1,
    show_default=True,
    help="How many associations to use side by side.",
)
@click.option(
    "--window",
    metavar="N",
    type=click.IntRange(1, OPERATIONS_INVOKED_MAX),
    default=OPERATIONS_WINDOW_DEFAULT,
    show_default=True,
    help="How many instances of an association may await their answer, if the peer agrees; most allow 1.",
)
@click.option(
    "--retries",
    metavar="N",
    type=click.IntRange(0, SEND_RETRIES_MAX),
    default=3,
    show_default=True,
    help="How often to try an instance again when the peer is out of resources or the association is lost.",
)
@click.option(
    "--allow-odd", is_flag=True, help="Send data sets of odd length too, which many peers abort at."
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and how, without calling the peer.")
@tls_options
@json_option
def send(  # noqa: PLR0913 - one for each option
    *,
    peer: PeerAddress,
    paths: tuple[Path, ...],
    calling_ae_title: str,
    timeout: float,
    associations: int,
    window: int,
    retries: int,
    allow_odd: bool,
    dry_run: bool,
    tls: TLSUse | None,
    as_json: bool,
) -> ExitCode:
    """Send files and folders to a DICOM server.

    Folders are searched with all that is in them; files in them that are not DICOM are left out. Each file goes in its
    own transfer syntax if the peer takes that, else as a converted copy: between uncompressed transfer syntaxes, and
    from lossless compression where a decoder is installed. The files themselves are never changed.

    Example: stowkeeper send ARCHIVE@192.0.2.7:104 images/ report.dcm
    """
    # A remark of pydicom may quote a value of a data set.
    warnings.filterwarnings("ignore", module="pydicom")
    report = SendReport(as_json=as_json)
    with report.progress("Looking at files"):
        plan = plan_sending(map(str, paths), odd_allowed=allow_odd, looked_at=report.looked_at)
    if dry_run and not plan.is_empty:
        print_plan(plan, plan_associations(plan.files, can_convert), as_json=as_json)
        return ExitCode.FINDINGS if plan.unsendable else ExitCode.OK
    options = SendOptions(
        calling_ae_title=calling_ae_title,
        associations=associations,
        window=window,
        retries=retries,
        timeouts=ClientTimeouts(
            connect_seconds=min(timeout, CONNECT_SECONDS_MAX),
            association_seconds=min(timeout, CONNECT_SECONDS_MAX),
            progress_seconds=timeout,
        ),
        tls=tls.context if tls is not None else None,
        server_name=tls.server_name if tls is not None else None,
    )
    report.begin(plan)
    if plan.is_empty:
        report.print_for_scripts()
        raise CommandError(f"There is no instance in what was named.{left_out(plan)}", ExitCode.NO_INPUT)
    error = _send(plan, peer, options, report)
    if error is not None:
        report.print_for_scripts()
        raise CommandError(str(error), ExitCode.UNAVAILABLE)
    report.print_end()
    return ExitCode.FINDINGS if report.has_failures else ExitCode.OK


def _send(
    plan: SendPlan, peer: PeerAddress, options: SendOptions, report: SendReport
) -> AssociationError | None:
    """Send; return what kept the peer from being reached."""
    if not plan.files:
        return None
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    destination = Destination(ae_title=peer.ae_title, host=peer.host, port=peer.port)
    try:
        with report.progress("Sending", plan.size), event_loop() as runner:
            return runner.run(send_files(plan.files, destination, options, report))
    except KeyboardInterrupt:
        report.print_end()
        raise
