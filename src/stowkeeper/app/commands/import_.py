"""`stowkeeper import`: take files and folders into the archive."""

import json
import os
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace

import click

from stowkeeper.app.commands.archive_folder import check_archive_folder, check_archive_is_there
from stowkeeper.app.commands.byte_progress import ByteProgress, human_rate
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import DEFAULT_ARCHIVE, SettingsArguments, json_option
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import IMPORT_SLOT_POOL_MAX
from stowkeeper.app.log_lines import printable
from stowkeeper.app.settings import Settings
from stowkeeper.app.wiring import archive_options, duplicates_rule
from stowkeeper.archive.archive import Archive, ArchiveOptions
from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.services.file_terms import PreamblePolicy
from stowkeeper.services.importing import (
    Importer,
    ImportOutcome,
    ImportResult,
    ImportStoppedError,
    find_files,
)


@click.command(
    "import",
    epilog="Exit code 0 when every instance is kept, 1 when one was refused. docs/commands.md tells more.",
)
@click.option(
    "--archive",
    metavar="DIR",
    help="Folder of the archive, made if there is none.  [env var: STOWKEEPER_ARCHIVE;"
    f" default: {DEFAULT_ARCHIVE}]",
)
@click.option(
    "--config", metavar="FILE", help="Settings file (TOML), as for serve: disk marks, duplicates, file mode."
)
@json_option
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
def import_(*, archive: str | None, config: str | None, as_json: bool, paths: tuple[str, ...]) -> ExitCode:
    """Take files and folders into the archive.

    What a sender would send over the network comes from files here, and is checked, kept and listed in the
    same way. Files that the archive has already count as identical and are kept once. Files of other kinds in
    folders are left out. The files themselves are never changed. Runs beside a server.

    Example: stowkeeper import --archive /srv/archive /media/cdrom
    """
    settings = SettingsArguments(config_file=config, overrides={"archive": archive}).load()
    for path in paths:
        os.stat(path)  # before anything is made or read
    check_archive_is_there(settings)
    check_archive_folder(settings)
    counts: Counter[ImportOutcome] = Counter()
    size = 0
    stopped = ""
    began = time.monotonic()
    with closing(Archive(settings.archive, _options(settings))) as opened:
        opened.recover(duplicates_rule(settings))
        bar = ByteProgress("Importing", as_json=as_json)
        with bar:
            importer = Importer(
                opened,
                duplicates=DuplicatePolicy(settings.storage.duplicates),
                accept_unknown_transfer_syntaxes=settings.negotiation.accept_unknown_transfer_syntaxes,
                preamble=PreamblePolicy(settings.storage.preamble),
                progress=bar.advance,
            )
            try:
                for result in importer.run(find_files(paths, leave_out=opened.root)):
                    counts[result.outcome] += 1
                    size += result.data_set_length
                    _print_result(result, as_json=as_json)
            except ImportStoppedError as error:
                stopped = str(error)
    _print_summary(counts, size, time.monotonic() - began, as_json=as_json)
    if stopped:
        raise CommandError(f"The archive {settings.archive} takes no more: {stopped}.", ExitCode.IO_ERROR)
    if not sum(counts.values()) - counts[ImportOutcome.SKIPPED]:
        raise CommandError("There is no instance in what was named.", ExitCode.NO_INPUT)
    return ExitCode.FINDINGS if counts[ImportOutcome.REFUSED] else ExitCode.OK


def _options(settings: Settings) -> ArchiveOptions:
    """Return how to receive beside whatever server runs on the archive; the reserve is the server's to keep.

    Everything is synced even where a server does without: who imports may throw the files away next.
    """
    options = archive_options(settings)
    slots = min(options.slot_pool_size, IMPORT_SLOT_POOL_MAX)
    return replace(options, sync=True, exclusive=False, slot_pool_size=slots, reserve_size=0)


def _print_result(result: ImportResult, *, as_json: bool) -> None:
    if as_json:
        line = {
            "path": result.path,
            "outcome": result.outcome.value,
            "reason": result.words or None,
            "sop_class_uid": result.sop_class_uid or None,
            "sop_instance_uid": result.sop_instance_uid or None,
            "transfer_syntax_uid": result.transfer_syntax_uid or None,
            "receipt_id": result.receipt_id or None,
            "bytes": result.data_set_length,
        }
        click.echo(json.dumps(line))
    elif result.outcome is ImportOutcome.REFUSED:
        click.echo(printable(f"refused: {result.path}: {result.words}"))


def _print_summary(counts: Counter[ImportOutcome], size: int, seconds: float, *, as_json: bool) -> None:
    if as_json:
        numbers = {outcome.value: counts[outcome] for outcome in ImportOutcome}
        click.echo(json.dumps({"summary": {**numbers, "bytes": size, "seconds": round(seconds, 3)}}))
        return
    words = {
        ImportOutcome.STORED: "stored",
        ImportOutcome.CONFLICT: "stored beside another version that differs",
        ImportOutcome.IDENTICAL: "identical to what was kept already",
        ImportOutcome.KEPT: "kept, and listed a little later",
        ImportOutcome.REFUSED: "refused",
        ImportOutcome.SKIPPED: "left out, since they are no instances",
    }
    parts = [f"{counts[outcome]} {told}" for outcome, told in words.items() if counts[outcome]]
    click.echo(f"{', '.join(parts) or 'Nothing imported'}; {human_rate(size, seconds)}.")
