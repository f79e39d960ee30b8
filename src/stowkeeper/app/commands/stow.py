"""`stowkeeper stow`: files and folders to a DICOMweb server (STOW-RS)."""

from contextlib import ExitStack
from pathlib import Path

import click

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import json_option
from stowkeeper.app.commands.send_report import left_out
from stowkeeper.app.commands.stow_options import destination_options
from stowkeeper.app.commands.stow_report import StowReport, print_stow_plan
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import SECONDS_MAX, SECONDS_MIN, SEND_RETRIES_MAX
from stowkeeper.services.send_plan import SendableFile, SendPlan, plan_sending
from stowkeeper.services.stow_client.batches import BatchQueue
from stowkeeper.services.stow_client.journal import Journal, JournalBusyError, JournalError
from stowkeeper.services.stow_client.limits import (
    BATCH_BYTES,
    BATCH_INSTANCES,
    BATCH_INSTANCES_MAX,
    PARALLEL_MAX,
    RETRIES,
    RETRY_SECONDS,
)
from stowkeeper.services.stow_client.options import Destination, StowOptions
from stowkeeper.services.stow_client.sending import stow_files

MEGABYTE = 1_000_000


@click.command(
    epilog="Exit code 0 when every instance is stored, a warning counts as that; 1 when one is not, or nobody knows; 69"
    " when the server cannot be reached or refuses us. docs/commands.md tells more."
)
@destination_options
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(1, BATCH_INSTANCES_MAX),
    default=BATCH_INSTANCES,
    show_default=True,
    help="How many instances one request has at most.",
)
@click.option(
    "--batch-mb",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True),
    default=BATCH_BYTES / MEGABYTE,
    show_default=True,
    help="How many megabytes; a larger file goes alone.",
)
@click.option(
    "--parallel",
    metavar="N",
    type=click.IntRange(1, PARALLEL_MAX),
    default=2,
    show_default=True,
    help="How many requests at once.",
)
@click.option(
    "--retries",
    metavar="N",
    type=click.IntRange(0, SEND_RETRIES_MAX),
    default=RETRIES,
    show_default=True,
    help="How often to send an instance again when the answer is lost or the server is out of resources.",
)
@click.option(
    "--retry-seconds",
    metavar="SECONDS",
    type=click.FloatRange(0, SECONDS_MAX),
    default=RETRY_SECONDS,
    show_default=True,
    help="How long to try a server again that is busy or away, and takes nothing.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(SECONDS_MIN, SECONDS_MAX),
    default=120.0,
    show_default=True,
    help="How long the server may stand still: give no answer, take no data. At most 30 of them for the connection.",
)
@click.option(
    "--resume",
    metavar="FILE",
    help="Write down in this file what is stored, and send only what it does not name yet.",
)
@click.option(
    "--allow-odd", is_flag=True, help="Send data sets of odd length too, which many servers refuse."
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent, without calling the server.")
@json_option
def stow(  # noqa: PLR0913 - one for each option
    *,
    destination: Destination,
    paths: tuple[Path, ...],
    batch: int,
    batch_mb: float,
    parallel: int,
    retries: int,
    retry_seconds: float,
    timeout: float,
    resume: str | None,
    allow_odd: bool,
    dry_run: bool,
    as_json: bool,
) -> ExitCode:
    """Send files and folders to a DICOMweb server (STOW-RS).

    URL is that of the service, such as https://HOST/dicom-web; /studies at its end may stand there or not. Folders are
    searched with all that is in them; files in them that are not DICOM are left out. Each file goes as it is, byte for byte,
    and is never changed.

    An instance counts as stored when the server's answer names it so, and else not. With --resume a run that was broken off is
    gone on with by the same command.

    Example: stowkeeper stow --token-file token https://192.0.2.7/dicom-web images/ report.dcm
    """
    address = destination.address
    report = StowReport(address.url, as_json=as_json)
    options = StowOptions(
        instances=batch,
        bytes_max=max(1, int(batch_mb * MEGABYTE)),
        parallel=parallel,
        seconds=timeout,
        retries=retries,
        retry_seconds=retry_seconds,
    )
    with report.progress("Looking at files"):
        plan = plan_sending(map(str, paths), odd_allowed=allow_odd, looked_at=report.looked_at)
    with ExitStack() as stack:
        journal = _journal(resume, address.service, stack, is_dry_run=dry_run)
        stored = _leave_out(plan, journal)
        if dry_run and (stored or not plan.is_empty):
            queue = BatchQueue(plan.files, instances=batch, bytes_max=options.bytes_max)
            print_stow_plan(plan, queue, address.url, stored, as_json=as_json)
            return ExitCode.FINDINGS if plan.unsendable else ExitCode.OK
        report.begin(plan)
        report.already_stored(stored)
        if plan.is_empty and not stored:
            report.print_for_scripts()
            raise CommandError(f"There is no instance in what was named.{left_out(plan)}", ExitCode.NO_INPUT)
        return _send(plan, destination, options, report, journal)


def _send(
    plan: SendPlan,
    destination: Destination,
    options: StowOptions,
    report: StowReport,
    journal: Journal | None,
) -> ExitCode:
    """Send what was planned and show what came of it."""
    error = ""
    if plan.files:
        if not report.is_for_scripts:
            click.echo(f"Posting to {destination.address.url}", err=True)
        try:
            with report.progress("Sending", plan.size):
                error = stow_files(plan.files, destination, options, report, journal)
        except BaseException:  # interrupted, or the journal cannot be written
            report.print_end()
            raise
    if error:
        report.print_for_scripts()
        raise CommandError(error, ExitCode.UNAVAILABLE)
    report.print_end()
    return ExitCode.FINDINGS if report.has_failures else ExitCode.OK


def _journal(path: str | None, service: str, stack: ExitStack, *, is_dry_run: bool) -> Journal | None:
    """Open the journal, if there is to be one; nothing is made for a dry run."""
    if path is None or (is_dry_run and not Path(path).exists()):
        return None
    try:
        return stack.enter_context(Journal(path, service))
    except JournalBusyError as error:
        raise CommandError(f"{error}.", ExitCode.TRY_AGAIN) from error
    except JournalError as error:
        raise CommandError(f"{error}.", ExitCode.NO_INPUT) from error


def _leave_out(plan: SendPlan, journal: Journal | None) -> list[SendableFile]:
    """Take the files out of the plan that an earlier run stored, and return them."""
    if journal is None:
        return []
    stored: list[SendableFile] = []
    left: list[SendableFile] = []
    for file in plan.files:
        (stored if journal.has(file) else left).append(file)
    plan.files = left
    return stored
