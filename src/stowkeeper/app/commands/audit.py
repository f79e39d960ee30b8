"""`stowkeeper audit`: who did by hand what no policy does; with a running server and without."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from stowkeeper.app.commands.columns import Column, print_rows
from stowkeeper.app.commands.options import archive_option, json_option
from stowkeeper.app.commands.paging import page_by_page, paging_options
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.audit import list_audit
from stowkeeper.database.limits import ROWS_PER_PAGE


@click.group(epilog="docs/commands.md tells more.")
def audit() -> None:
    """Look at the audit trail: who did by hand what no policy does.

    Such as removing what is held, changing peers and credentials, cancelling jobs, and having storage commitments
    reported again. Its lines are never changed or deleted. None of them holds patient data or a secret.
    """


_COLUMNS = (
    Column(title="No.", text=lambda row: str(row["number"]), right=True, drop=1),
    Column(title="Time (UTC)", text=lambda row: row["at"][:19].replace("T", " ")),
    Column(title="Who", text=lambda row: row["who"] or "-", cut_to=8),
    Column(title="Action", text=lambda row: row["action"]),
    Column(title="Subject", text=lambda row: row["subject"], cut_to=16),
    Column(title="Detail", text=lambda row: row["detail"], cut_to=12, drop=2),
)


@audit.command("ls", epilog="Example: stowkeeper audit ls --limit 1000 --json")
@archive_option
@paging_options
@json_option
def ls(*, archive: Path, before: int | None, limit: int, as_json: bool) -> None:
    """List the lines of the audit trail, the newest first."""
    with closing(ArchiveReader(str(archive), to_read=True)) as reader:
        entries = page_by_page(
            reader.database,
            list_audit,
            lambda entry: entry.audit_key,
            before=before,
            limit=limit,
            page_size=ROWS_PER_PAGE,
        )
        found = ({"number": row.pop("audit_key"), **row} for row in map(asdict, entries))
        print_rows(_COLUMNS, found, as_json=as_json, nothing="The audit trail is empty.")
