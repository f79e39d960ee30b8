"""`stowkeeper migrate`: bring the catalog to the schema of this version, or tell what that would do."""

import json
from contextlib import closing
from pathlib import Path

import click

from stowkeeper.app.commands.byte_progress import human_size
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import archive_option, json_option
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.archive.archive import SERVER_LOCK, ArchiveReader
from stowkeeper.archive.backing_up import plan_catalog_migration
from stowkeeper.database.migration_plan import MigrationPlan
from stowkeeper.durable.server_lock import ServerLock


@click.command(
    epilog="Exit code 0 when the schema is this version's now, or would be. docs/commands.md tells more."
)
@archive_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def migrate(*, archive: Path, dry_run: bool, as_json: bool) -> ExitCode:
    """Bring the catalog to the schema of this version.

    Every command and every server of a new version does so by itself when it first opens an archive. This one does
    nothing else, and with --dry-run not even that: it says which changes are due, how large the catalog is and
    whether there is room for the copy that is made first. The copy stands beside the catalog, under its name with
    `.before-` and the number of the new schema. Stop the server before, unless it is a dry run.
    """
    plan = plan_catalog_migration(str(archive))
    if plan.is_newer:
        raise CommandError(
            f"{plan.path} has schema {plan.revision}, and this version knows schemas up to {plan.head}: use the version that"
            " made it or a later one, or restore the copy made before.",
            ExitCode.NO_INPUT,
        )
    backup = plan.backup
    if plan.steps and not dry_run:
        # A server that runs on an older schema is an older version's.
        lock = ServerLock(
            str(archive / SERVER_LOCK),
            shared=False,
            advice="stop its server, and migrate then: it runs on the schema that is to be changed",
        )
        try:
            with closing(ArchiveReader(str(archive))) as reader:
                backup = reader.database.backup.path if reader.database.backup is not None else None
        finally:
            lock.release()
    _print(plan, backup, dry_run=dry_run, as_json=as_json)
    return ExitCode.OK


def _print(plan: MigrationPlan, backup: str | None, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        line = {
            "catalog": plan.path,
            "schema": plan.revision,
            "schema_of_this_version": plan.head,
            "steps": [{"schema": step.revision, "words": step.words} for step in plan.steps],
            "backup": backup,
            "bytes": plan.size,
            "free": plan.free,
            "dry_run": dry_run,
        }
        click.echo(json.dumps(line))
        return
    if not plan.steps:
        click.echo(
            printable(f"{plan.path} has the schema of this version, {plan.head}: nothing is to be done.")
        )
        return
    would = "would be brought" if dry_run else "was brought"
    click.echo(printable(f"{plan.path} {would} from schema {plan.revision} to {plan.head}:"))
    for step in plan.steps:
        click.echo(printable(f"  {step.revision}  {step.words}"))
    if backup is not None:
        would = "would be copied first" if dry_run else "was copied first"
        click.echo(
            printable(f"It {would} to {backup}, {human_size(plan.size)}; {human_size(plan.free)} are free.")
        )
