"""`stowkeeper rebuild`: restore the catalog from the files."""

import time
from collections import Counter
from pathlib import Path

import click

from stowkeeper.app.commands.byte_progress import ByteProgress, human_rate
from stowkeeper.app.commands.discrepancies import discrepancy_line, say_faults, summary_line
from stowkeeper.app.commands.options import archive_option, json_option
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive.agreement import Fault
from stowkeeper.archive.rebuilding import UNTOLD, RebuildCounts, Rebuilding


@click.command(
    epilog="Exit code 0 when every file was whole, 1 when anything was named, 75 while a server runs."
    " docs/commands.md tells more."
)
@archive_option
@json_option
def rebuild(*, archive: Path, as_json: bool) -> ExitCode:
    """Restore the catalog from the files.

    Reads every file of the archive and lists it by the receipt in it: patients, studies, series, instances,
    versions, and the receipts of kept files. Files are never changed. A catalog that is there loses nothing:
    what it lacks is added. One that is damaged or another archive's has to be moved away first. Stop the
    server before.
    """
    faults: Counter[Fault] = Counter()
    began = time.monotonic()
    bar = ByteProgress("Rebuilding", as_json=as_json)
    with Rebuilding(str(archive), progress=bar.advance) as rebuilding:
        was_missing = rebuilding.is_new
        _, size = rebuilding.look()
        bar.expect(size)
        with bar:
            for found in rebuilding.run():
                faults[found.fault] += 1
                click.echo(discrepancy_line(found, as_json=as_json))
    _print_summary(
        rebuilding.counts, faults, time.monotonic() - began, was_missing=was_missing, as_json=as_json
    )
    return ExitCode.FINDINGS if faults else ExitCode.OK


def _print_summary(
    counts: RebuildCounts, faults: Counter[Fault], seconds: float, *, was_missing: bool, as_json: bool
) -> None:
    if as_json:
        more = {"catalog_was_missing": was_missing, "untold": list(UNTOLD)}
        click.echo(summary_line(counts, faults, seconds, **more))
        return
    files = "1 file" if counts.files == 1 else f"{counts.files} files"
    verdict = say_faults(faults) or "all whole"
    click.echo(f"{files} read, {human_rate(counts.size, seconds)}: {verdict}.")
    for number, words in (
        (counts.listed, "listed that the catalog did not have"),
        (counts.known, "known already"),
        (counts.restored, "listed again that the catalog had as removed or damaged"),
        (counts.moved, "whose place in the catalog was corrected"),
        (counts.corrected, "of which the catalog said something else, corrected"),
        (counts.recovered.finished, "finished that a process left in the depot when it ended"),
        (counts.quarantined, "in quarantine, not listed"),
    ):
        if number:
            click.echo(f"  {number} {words}")
    if was_missing:
        click.echo("No file can tell, and so the new catalog does not have:")
    else:
        click.echo("No file can tell, so the catalog keeps as it had them:")
    for line in UNTOLD:
        click.echo(f"  {line}")
