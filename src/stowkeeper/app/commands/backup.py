"""`stowkeeper backup`: copy the catalog, also while a server runs."""

import json
import time
from pathlib import Path

import click

from stowkeeper.app.commands.byte_progress import human_rate
from stowkeeper.app.commands.options import archive_option, json_option
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.archive.archive import CATALOG
from stowkeeper.archive.backing_up import back_up_catalog


@click.command(
    epilog="Exit code 0 when the copy is there, whole and durable. docs/commands.md tells more, also how to restore one."
)
@archive_option
@json_option
@click.argument("target", type=click.Path(path_type=Path))
def backup(*, archive: Path, as_json: bool, target: Path) -> ExitCode:
    """Copy the catalog of the archive to TARGET, also while a server runs.

    The catalog is what no file of the archive tells: holds and commitments, what was removed, jobs, peers,
    credentials, who sent what. The copy is one moment's, read again and durable when the command ends; TARGET
    is a file that does not exist yet, or a folder, where it gets a name with the time. It tells of patients:
    its mode lets nobody but you read it. The files of the archive are not copied.

    To restore it, stop the server, move catalog.sqlite away together with catalog.sqlite-wal and
    catalog.sqlite-shm, put the copy in its place as catalog.sqlite, and run `stowkeeper rebuild`, which adds
    what came after.

    Example: stowkeeper backup /srv/backups
    """
    began = time.monotonic()
    if target.is_dir():
        target /= f"{Path(CATALOG).stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.sqlite"
    made = back_up_catalog(str(archive), str(target))
    seconds = time.monotonic() - began
    if as_json:
        line = {
            "path": made.path,
            "bytes": made.size,
            "schema": made.revision,
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(line))
    else:
        click.echo(printable(f"{made.path}: {human_rate(made.size, seconds)}"))
    return ExitCode.OK
