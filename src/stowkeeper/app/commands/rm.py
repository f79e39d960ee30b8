"""`stowkeeper rm`: remove studies, series or instances."""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.byte_progress import human_size
from stowkeeper.app.commands.options import archive_option, json_option
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import HELD_SHOWN_MAX
from stowkeeper.app.log_lines import printable
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.removal import HeldVersion, Removal, RemovalPlan, RemovalResult


@click.command(
    epilog="Exit code 0 when all was removed, 1 when a UID was not found or something is held or stayed."
    " docs/commands.md tells more."
)
@archive_option
@click.option(
    "--reason", metavar="TEXT", required=True, help="Why, for the ledger. It stays; no patient data."
)
@click.option(
    "--override-holds",
    is_flag=True,
    help="Remove what is held too, such as what was committed to a peer. The audit trail keeps who did it and why.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal, whether this is meant.")
@json_option
@click.argument("uids", metavar="UID...", nargs=-1, required=True)
def rm(
    *,
    archive: Path,
    reason: str,
    override_holds: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    uids: tuple[str, ...],
) -> ExitCode:
    """Remove studies, series or instances.

    Takes away every version of what the UIDs name. The ledger keeps a line for each: what, when, why.
    Versions that are held, as storage commitment does, are not removed without --override-holds; damaged files
    stay in quarantine, and their names are printed. Runs beside a server.

    Example: stowkeeper rm --reason "sent to the wrong archive" 1.2.840.99999.1
    """
    reason = reason.strip()
    if not reason:
        raise click.BadParameter("say why, in a few words", param_hint="--reason")
    with closing(ArchiveReader(str(archive))) as reader:
        removal = Removal(
            reader.files, reader.root, reader.database, override_holds=override_holds, who=acting_user()
        )
        plans = [removal.plan(uid) for uid in dict.fromkeys(uids)]
        for plan in plans:
            _print_plan(plan, dry_run=dry_run, as_json=as_json)
        if not dry_run and any(plan.versions for plan in plans) and not yes and sys.stdin.isatty():
            click.confirm("Remove this?", abort=True, err=True)
        is_complete = all(plan.found and not plan.held for plan in plans)
        if not dry_run:
            for plan in plans:
                if plan.versions:
                    result = removal.carry_out(plan, reason)
                    _print_result(plan, result, as_json=as_json)
                    is_complete = is_complete and not result.left and not result.passed_over
    return ExitCode.OK if is_complete else ExitCode.FINDINGS


def _print_plan(plan: RemovalPlan, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        if dry_run or not plan.versions:
            click.echo(json.dumps(_as_line(plan, removed=0, dry_run=dry_run)))
        return
    if not plan.found:
        click.echo(printable(f"{plan.uid}: not in the archive"), err=True)
        return
    size = human_size(plan.size)
    if plan.versions:
        click.echo(printable(f"{plan.uid}: {_say(plan)}, {size}"), err=not dry_run)
    _print_held(plan.uid, plan.held, "held, not removed")
    _print_held(plan.uid, plan.overridden, "held, and to go all the same")


def _print_held(uid: str, held: Sequence[HeldVersion], words: str) -> None:
    if held:
        click.echo(printable(f"{uid}: {len(held)} {words}:"), err=True)
    for version in held[:HELD_SHOWN_MAX]:
        click.echo(printable(f"  {version.sop_instance_uid}: {', '.join(version.reasons)}"), err=True)
    if len(held) > HELD_SHOWN_MAX:
        click.echo(f"  … and {len(held) - HELD_SHOWN_MAX} more; --json names all", err=True)


def _print_result(plan: RemovalPlan, result: RemovalResult, *, as_json: bool) -> None:
    removed = result.removed + result.closed
    if as_json:
        line = _as_line(plan, removed=removed, dry_run=False)
        line["passed_over"] = result.passed_over
        line["held"] = [*_named(plan.held), *_named(result.held)]
        stayed = {held.version_key for held in result.held}
        line["overridden"] = _named([held for held in plan.overridden if held.version_key not in stayed])
        line["left"] = [{"path": path, "words": words} for path, words in result.left]
        line["quarantined"] = result.quarantined
        click.echo(json.dumps(line))
        return
    click.echo(printable(f"{plan.uid}: {_count(removed, 'version')} removed"))
    if result.passed_over:
        click.echo(f"  {result.passed_over} became held, or were removed by others, meanwhile", err=True)
    _print_held(plan.uid, result.held, "held since, not removed")
    for path, words in result.left:
        click.echo(printable(f"  {path} could not be removed: {words}"), err=True)
    for path in result.quarantined:
        click.echo(
            printable(f"  {path} was damaged and stays there, remove it by hand if it has to go"), err=True
        )


def _as_line(plan: RemovalPlan, *, removed: int, dry_run: bool) -> dict[str, object]:
    return {
        "uid": plan.uid,
        "found": plan.found,
        "instances": plan.instances,
        "versions": plan.versions,
        "bytes": plan.size,
        "held": _named(plan.held),
        "overridden": _named(plan.overridden),
        "removed": removed,
        "dry_run": dry_run,
    }


def _named(held: Sequence[HeldVersion]) -> list[dict[str, object]]:
    return [{"sop_instance_uid": version.sop_instance_uid, "reasons": version.reasons} for version in held]


def _say(plan: RemovalPlan) -> str:
    parts: Sequence[str] = [_count(plan.instances, "instance")]
    if plan.versions != plan.instances:
        parts = [*parts, f"{plan.versions} versions"]
    if plan.damaged:
        parts = [*parts, f"{len(plan.damaged)} of them damaged, in quarantine"]
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"
