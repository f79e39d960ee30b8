"""`stowkeeper forwards`: what the rules forward, trying it again and giving it up; with a running server and without."""

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.columns import Column, print_rows
from stowkeeper.app.commands.options import archive_option, json_option
from stowkeeper.app.commands.paging import page_by_page, paging_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.services.forwarding import rows
from stowkeeper.services.forwarding.limits import PAGE_MAX
from stowkeeper.services.forwarding.rows import Forward, ForwardFilter, ForwardState

R = TypeVar("R")


@click.group(epilog="docs/forwarding.md tells more.")
def forwards() -> None:
    """Look at what rules forward, and have it tried again or given up.

    The settings say in [[forwarding_rules]] what is sent on to whom. A server sends it, by jobs; without one it waits.
    """


def _chosen(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options that say which forwards it is about. It gets `wanted`, without states."""

    @click.option("--destination", metavar="NAME", default="", help="Only what goes to this destination.")
    @click.option("--rule", metavar="NAME", default="", help="Only what this rule chose.")
    @click.option("--study", metavar="UID", default="", help="Only what is of this study.")
    @click.option("--instance", metavar="UID", default="", help="Only this instance.")
    @wraps(command)
    def with_choice(*, destination: str, rule: str, study: str, instance: str, **options: Any) -> R:  # noqa: ANN401 - they are the command's own
        wanted = ForwardFilter(
            destination=destination, rule=rule, study_instance_uid=study, sop_instance_uid=instance
        )
        return command(wanted=wanted, **options)

    return with_choice


_COLUMNS = (
    Column(title="No.", text=lambda row: str(row["number"]), right=True, drop=1),
    Column(title="To", text=lambda row: row["destination"], cut_to=8),
    Column(title="State", text=lambda row: row["state"]),
    Column(title="Instance", text=lambda row: row["sop_instance_uid"], cut_to=16),
    Column(title="Rule", text=lambda row: row["rule"], cut_to=8, drop=3),
    Column(title="Chosen (UTC)", text=lambda row: row["created_at"][:19].replace("T", " "), drop=2),
    Column(title="Changed (UTC)", text=lambda row: row["changed_at"][:19].replace("T", " "), drop=4),
    Column(title="Why", text=lambda row: row["words"], cut_to=12),
)


@forwards.command("ls", epilog="Example: stowkeeper forwards ls --failed --destination PACS")
@archive_option
@click.option("--failed", is_flag=True, help="Only what failed, and is not tried again by itself.")
@click.option("--waiting", is_flag=True, help="Only what is still to be sent, in a job or not.")
@click.option("--sent", is_flag=True, help="Only what was sent.")
@click.option("--dropped", is_flag=True, help="Only what is not to be sent any more.")
@_chosen
@paging_options
@json_option
def ls(
    *,
    archive: Path,
    failed: bool,
    waiting: bool,
    sent: bool,
    dropped: bool,
    wanted: ForwardFilter,
    before: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """List what the rules chose to be sent on, the newest first."""
    states = {
        ForwardState.FAILED: failed,
        ForwardState.WAITING: waiting,
        ForwardState.QUEUED: waiting,
        ForwardState.SENT: sent,
        ForwardState.DROPPED: dropped,
    }
    only = replace(wanted, states=tuple(state for state, is_wanted in states.items() if is_wanted))
    with closing(ArchiveReader(str(archive), to_read=True)) as reader:
        found = map(_as_row, _pages(reader.database, only, before, limit))
        print_rows(_COLUMNS, found, as_json=as_json, nothing="There are no such forwards.")


def _pages(database: Database, only: ForwardFilter, before: int | None, limit: int) -> Iterator[Forward]:
    return page_by_page(
        database,
        lambda connection, before, size: rows.list_forwards(
            connection, replace(only, before_key=before, limit=size)
        ),
        lambda forward: forward.forward_key,
        before=before,
        limit=limit,
        page_size=PAGE_MAX,
    )


def _as_row(forward: Forward) -> dict[str, Any]:
    row = {"number": forward.forward_key, **asdict(forward)}
    del row["forward_key"], row["version_key"]
    row["state"] = forward.state.value
    return row


@forwards.command("retry", epilog="Example: stowkeeper forwards retry --destination PACS")
@archive_option
@_chosen
@json_option
def retry(*, archive: Path, wanted: ForwardFilter, as_json: bool) -> ExitCode:
    """Let what failed wait again; a running server sends it within seconds. Without options that is all that failed."""
    who = acting_user()
    did = _act(archive, wanted, lambda transaction: rows.retry(transaction, wanted, who))
    advice = "which tries by itself: `{} {}` has it tried now"
    return _say(archive, did, "to be tried again", advice, "jobs retry", as_json=as_json)


@forwards.command("drop", epilog='Example: stowkeeper forwards drop --destination OLD --reason "it is gone"')
@archive_option
@click.option(
    "--reason", metavar="TEXT", required=True, help="Why, for whoever looks later. No patient data."
)
@click.option("--all", "is_all", is_flag=True, help="Drop all that waits or failed, for every destination.")
@_chosen
@json_option
def drop(*, archive: Path, reason: str, is_all: bool, wanted: ForwardFilter, as_json: bool) -> ExitCode:
    """Give up what waits or failed: it is not sent. What a job has is not dropped: cancel the job first.

    The audit trail keeps who did it and why.
    """
    reason = reason.strip()
    if not reason:
        raise click.BadParameter("say why, in a few words", param_hint="--reason")
    if (wanted == ForwardFilter()) != is_all:
        raise click.UsageError(
            "Say what is to be dropped: --destination, --rule, --study, --instance, or --all."
        )
    who = acting_user()
    did = _act(archive, wanted, lambda transaction: rows.drop(transaction, wanted, reason, who))
    advice = "and not dropped: `{} {}` gives up all that is in there, and then it can be"
    return _say(archive, did, "dropped", advice, "jobs cancel", as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Done:
    """How many forwards were changed, and which jobs had others of them, each with how many."""

    changed: int
    in_jobs: list[tuple[str, int]]


def _act(archive: Path, wanted: ForwardFilter, act: Callable[[Transaction], int]) -> _Done:
    """Do it in short transactions until nothing is left that it can be done with."""
    changed = 0
    with closing(ArchiveReader(str(archive))) as reader:
        with reader.database.read() as connection:
            in_jobs = rows.jobs_that_have(connection, wanted)
        while True:
            with reader.database.write() as transaction:
                some = act(transaction)
            if not some:
                return _Done(changed, in_jobs)
            changed += some


def _say(archive: Path, did: _Done, done: str, advice: str, command: str, *, as_json: bool) -> ExitCode:
    """Tell what was changed, and on standard error what was not since a job has it, and which command acts on that."""
    job_ids = [job_id for job_id, _ in did.in_jobs]
    if as_json:
        click.echo(json.dumps({"changed": did.changed, "jobs": job_ids}))
        return ExitCode.OK if did.changed else ExitCode.FINDINGS
    if did.changed:
        click.echo(f"{did.changed} {done}")
    elif not did.in_jobs:
        click.echo("There are no such forwards, so nothing was changed.", err=True)
    if did.in_jobs:
        count = sum(number for _, number in did.in_jobs)
        what = f"{count} {'is' if count == 1 else 'are'} in {'a job' if len(job_ids) == 1 else f'{len(job_ids)} jobs'}"
        named = shlex.join([*job_ids[:_JOBS_NAMED], "--archive", str(archive)])
        more = "" if len(job_ids) <= _JOBS_NAMED else "; `stowkeeper forwards ls --json` names all of them"
        click.echo(f"{what}, {advice.format(f'stowkeeper {command}', named)}{more}.", err=True)
    return ExitCode.OK if did.changed else ExitCode.FINDINGS


_JOBS_NAMED = 20
"""In a sentence."""
