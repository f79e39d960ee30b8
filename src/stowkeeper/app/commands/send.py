"""`stowkeeper send`: files and folders to a DICOM server."""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from stowkeeper.app.commands.commitment_waiting import Waiting, wait_options
from stowkeeper.app.commands.event_loop import event_loop
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import SettingsArguments, json_option
from stowkeeper.app.commands.peer_address import PeerAddress, peer_options
from stowkeeper.app.commands.send_commit import AcceptedFiles, ask_for_commitment, check_waiting
from stowkeeper.app.commands.send_from_archive import ArchiveSending, send_from_archive
from stowkeeper.app.commands.send_report import SendReport, left_out, print_plan
from stowkeeper.app.commands.tls_options import TLSUse, tls_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import SEND_ASSOCIATIONS_MAX, SEND_RETRIES_MAX
from stowkeeper.dimse.limits import OPERATIONS_INVOKED_MAX
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.services.conversion import can_convert
from stowkeeper.services.send_plan import SendPlan, plan_associations, plan_sending
from stowkeeper.services.sending import Destination, SendObserver, SendOptions, send_files
from stowkeeper.upperlayer.limits import OPERATIONS_WINDOW_DEFAULT

CONNECT_SECONDS_MAX = 30.0
"""Longest wait for a TCP connection and for the answer to an association request, whatever --timeout says: both
take a moment when there is anybody."""

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long one thread may keep the interpreter while another waits: with Python's default of 5 ms the thread that
reads files and the event loop would hold each other up."""


@click.command(
    epilog="Exit code 0 when every instance was accepted, a warning counts as that; 1 when one was not; 69 when the"
    " peer cannot be reached or rejects us. With --commit 0 only when a report says of every instance that it is"
    " committed; 1 when one is not; 75 when no report came in time. docs/commands.md tells more."
)
@peer_options(
    timeout=120.0,
    timeout_help="How long the peer may stand still: give no answer, take no data. At most 30 of them for the"
    " connection.",
    takes_names=True,
)
@click.argument("paths", metavar="PATH|UID...", nargs=-1, required=True, type=click.Path(path_type=Path))
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
@click.option(
    "--commit",
    "is_to_commit",
    is_flag=True,
    help="Then ask the peer to take responsibility for what it accepted (storage commitment), and wait for its report.",
)
@wait_options
@click.option(
    "--archive",
    metavar="DIR",
    help="Send what this archive keeps: name UIDs of studies, series or instances in place of paths. It is a job, which"
    " a server on the archive goes on with where this command ends too early.",
)
@click.option(
    "--config", metavar="FILE", help="With --archive: settings file (TOML), for the peers and [commitment]."
)
@tls_options
@json_option
def send(  # noqa: PLR0913 - one for each option
    *,
    peer: PeerAddress | str,
    paths: tuple[Path, ...],
    calling_ae_title: str,
    timeout: float,
    associations: int,
    window: int,
    retries: int,
    allow_odd: bool,
    dry_run: bool,
    is_to_commit: bool,
    waiting: Waiting,
    archive: str | None,
    config: str | None,
    tls: TLSUse | None,
    as_json: bool,
) -> ExitCode:
    """Send files and folders to a DICOM server.

    PEER is AET@HOST:PORT; with --archive also the name of a known peer. Folders are searched with all that is in them;
    files in them that are not DICOM are left out. Each file goes in its own transfer syntax if the peer takes that, else
    as a converted copy: between uncompressed transfer syntaxes, and from lossless compression where a decoder is
    installed. The files themselves are never changed.

    With --commit the peer is asked to commit what it accepted, and nothing but its report counts. Of files that is known
    only while this command runs: the report has to come in the association of the request, or on another one at
    --listen, before the time is over. With --archive sending, request and report are rows of the archive's database, and
    none of it is forgotten.

    Example: stowkeeper send ARCHIVE@192.0.2.7:104 images/ report.dcm
    """
    if archive is not None:
        _check_for_archive(tls)
        return send_from_archive(
            ArchiveSending(
                arguments=SettingsArguments(config_file=config, overrides={"archive": archive}),
                peer=str(peer),
                own=calling_ae_title if _is_given("calling_ae_title") else "",
                seconds=timeout,
                uids=[str(path) for path in paths],
                is_to_commit=is_to_commit,
                waiting=waiting,
                as_json=as_json,
            )
        )
    waiting = _check_for_files(config, waiting, tls, is_to_commit=is_to_commit)
    address = _address_of(peer)
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
    return _send_plan(plan, address, options, report, waiting if is_to_commit else None)


def _send_plan(
    plan: SendPlan, peer: PeerAddress, options: SendOptions, report: SendReport, commitment: Waiting | None
) -> ExitCode:
    """Send what was planned and show what came of it; with `commitment` the peer is asked for that, too."""
    report.begin(plan)
    if plan.is_empty:
        report.print_for_scripts()
        raise CommandError(f"There is no instance in what was named.{left_out(plan)}", ExitCode.NO_INPUT)
    accepted = AcceptedFiles(report)
    error = _send(plan, peer, options, report, accepted)
    if error is not None:
        report.print_for_scripts()
        raise CommandError(str(error), ExitCode.UNAVAILABLE)
    answer = ExitCode.OK
    if commitment is not None and accepted.files:
        report.sending_ended()
        try:
            answer = ask_for_commitment(peer, accepted.files, options, commitment, report)
        except BaseException:
            report.print_end()
            raise
    report.print_end()
    return ExitCode.FINDINGS if report.has_failures else answer


def _send(
    plan: SendPlan,
    peer: PeerAddress,
    options: SendOptions,
    report: SendReport,
    observer: SendObserver,
) -> AssociationError | None:
    """Send; return what kept the peer from being reached."""
    if not plan.files:
        return None
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    destination = Destination(ae_title=peer.ae_title, host=peer.host, port=peer.port)
    try:
        with report.progress("Sending", plan.size), event_loop() as runner:
            return runner.run(send_files(plan.files, destination, options, observer))
    except KeyboardInterrupt:
        report.print_end()
        raise


_FILES_ALONE = ("associations", "window", "retries", "allow_odd", "dry_run")
_COMMITMENT_ALONE = ("seconds", "no_wait", "listen")


def _is_given(name: str) -> bool:
    """Tell whether an option stands on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def _address_of(peer: PeerAddress | str) -> PeerAddress:
    """Return where files go. Raises click.BadParameter for the name of a peer, which an archive knows."""
    if isinstance(peer, str):
        raise click.BadParameter(
            f"{peer!r} is not of the form AET@HOST:PORT, such as ARCHIVE@192.0.2.7:104. Peers have names in an archive, and"
            " its instances go to them: --archive DIR."
        )
    return peer


def _check_for_archive(tls: TLSUse | None) -> None:
    """Refuse what has no effect on a job of the archive."""
    for name in _FILES_ALONE:
        if _is_given(name):
            raise click.UsageError(f"--{name.replace('_', '-')} has no effect with --archive: leave it out.")
    if tls is not None:
        raise click.UsageError(
            "With --archive a peer is called over TLS when it is defined so: `stowkeeper peers add … --tls`."
        )


def _check_for_files(
    config: str | None, waiting: Waiting, tls: TLSUse | None, *, is_to_commit: bool
) -> Waiting:
    """Refuse what has no effect on files; return how a report is waited for, with TLS where there is any."""
    if config is not None:
        raise click.UsageError("--config has no effect without --archive: leave it out.")
    if is_to_commit:
        check_waiting(waiting)
        if tls is None or waiting.listen is None:
            return waiting
        return replace(waiting, listen_tls=tls.listening())
    for name, option in zip(_COMMITMENT_ALONE, ("--wait", "--no-wait", "--listen"), strict=True):
        if _is_given(name):
            raise click.UsageError(f"{option} has no effect without --commit: leave it out.")
    return waiting
