"""`stowkeeper verify`: read the archive again and check every byte."""

import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import click

from stowkeeper.app.commands.byte_progress import ByteProgress, RateLimit, human_rate
from stowkeeper.app.commands.discrepancies import discrepancy_line, say_faults, summary_line
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import archive_option, json_option
from stowkeeper.app.commands.parameters import byte_rate, moment
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive.agreement import Fault
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.verification import Scope, Verification, VerificationCounts


@click.command(epilog="Exit code 0 when all is well, 1 when anything was named. docs/commands.md tells more.")
@archive_option
@click.option("--study", metavar="UID", help="Verify this study alone.")
@click.option("--series", metavar="UID", help="Verify this series alone.")
@click.option(
    "--since",
    metavar="TIME",
    type=moment,
    help="Verify what was received since: 2026-03-02, or 7d for a week.",
)
@click.option("--report-only", is_flag=True, help="Change nothing: put no damaged file away, finish nothing.")
@click.option(
    "--rate-limit", metavar="BYTES", type=byte_rate, help="Read no faster than so many bytes a second: 50MB."
)
@json_option
def verify(
    *,
    archive: Path,
    study: str | None,
    series: str | None,
    since: str | None,
    report_only: bool,
    rate_limit: int | None,
    as_json: bool,
) -> ExitCode:
    """Read the archive again and check every byte.

    Each file is read from the disk, not from the cache, and compared with the receipt in it: the digest of
    the data set, the checksum of the head. Files without a row and rows without a file are named too. A
    damaged file is marked as such and moved to the archive's quarantine, where nothing is ever deleted. Runs
    beside a server.
    """
    scope = Scope(study_instance_uid=study, series_instance_uid=series, received_from=since)
    faults: Counter[Fault] = Counter()
    began = time.monotonic()
    with closing(ArchiveReader(str(archive), to_read=report_only)) as reader:
        limit = RateLimit(rate_limit) if rate_limit else None
        bar = ByteProgress("Verifying", as_json=as_json)

        def progress(count: int) -> None:
            bar.advance(count)
            if limit is not None:
                limit.wait(count)

        verification = Verification(
            reader.files,
            reader.root,
            reader.database,
            scope=scope,
            report_only=report_only,
            progress=progress,
        )
        _, size = verification.expected()
        bar.expect(size)
        with bar:
            for found in verification.run():
                faults[found.fault] += 1
                click.echo(discrepancy_line(found, as_json=as_json))
    counts = verification.counts
    if (study or series) and not counts.files and not faults:
        raise CommandError(f"Nothing of {series or study} is in the archive {archive}.", ExitCode.FINDINGS)
    _print_summary(counts, faults, time.monotonic() - began, as_json=as_json)
    return ExitCode.FINDINGS if faults else ExitCode.OK


def _print_summary(
    counts: VerificationCounts, faults: Counter[Fault], seconds: float, *, as_json: bool
) -> None:
    if as_json:
        click.echo(summary_line(counts, faults, seconds))
        return
    files = "1 file" if counts.files == 1 else f"{counts.files} files"
    verdict = "all whole" if counts.files else "nothing was to be read"
    if faults:
        verdict = f"{counts.whole} whole; {say_faults(faults)}"
    click.echo(f"{files} read, {human_rate(counts.size, seconds)}: {verdict}.")
    for number, words in (
        (counts.in_flight, "on the way into the catalog"),
        (counts.finished, "left half done by an earlier process, finished now"),
        (counts.unfinished, "left half done by an earlier process, and left so"),
    ):
        if number:
            click.echo(f"{number} {words}.")
