"""`stowkeeper jobs`: look at jobs, and pause, resume, cancel or retry them; with a running server and without."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.columns import Column, Row, print_rows
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import archive_option, json_option
from stowkeeper.app.commands.paging import page_by_page, paging_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import FAILURES_SHOWN_MAX
from stowkeeper.app.log_lines import printable
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import Job, JobFilter, JobItem, JobNotFoundError
from stowkeeper.jobs.limits import PAGE_MAX
from stowkeeper.jobs.states import FINISHED, JobState, JobStateError
from stowkeeper.services.commitment.job_items import items_of


@click.group(epilog="A running server does what is asked within a second. docs/commands.md tells more.")
def jobs() -> None:
    """Look at jobs, and pause, resume, cancel or retry them.

    A job is what is done after an answer: checking and reporting a storage commitment, sending to a peer, verifying.
    Jobs stand in the archive's database; a server works on them, and without one they wait.
    """


def _moment(key: str) -> Callable[[Row], str]:
    return lambda row: (row[key] or "")[:19].replace("T", " ")


def _progress(row: Row) -> str:
    return f"{row['items_done']}/{row['items_total']}" if row["items_total"] else ""


def _state(row: Row) -> str:
    return f"{row['state']}, to {row['wish']}" if row["wish"] else str(row["state"])


_COLUMNS = (
    Column(title="No.", text=lambda row: str(row["number"]), right=True, drop=1),
    Column(title="Job", text=lambda row: row["job_id"]),
    Column(title="Kind", text=lambda row: row["kind"]),
    Column(title="State", text=_state),
    Column(title="Step", text=lambda row: row["step"], drop=2),
    Column(title="Done", text=_progress, right=True, drop=4),
    Column(title="Peer", text=lambda row: row["peer"], cut_to=8, drop=5),
    Column(title="Submitted (UTC)", text=_moment("created_at"), drop=3),
    Column(title="Due (UTC)", text=lambda row: "" if row["finished_at"] else _moment("due_at")(row), drop=1),
    Column(title="Last word", text=lambda row: row["error"], cut_to=12),
)


@jobs.command("ls", epilog="Example: stowkeeper jobs ls --state failure --state retry")
@archive_option
@click.option(
    "--kind", metavar="KIND", default="", help="Only jobs of this kind, such as commitment or store."
)
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in JobState]),
    multiple=True,
    help="Only jobs in this state; several may be named.",
)
@click.option("--unfinished", is_flag=True, help="Only jobs with which something is still to happen.")
@click.option("--peer", metavar="NAME", default="", help="Only jobs about this peer.")
@click.option("--subject", metavar="UID", default="", help="Only jobs about this UID.")
@paging_options
@json_option
def ls(
    *,
    archive: Path,
    kind: str,
    states: tuple[str, ...],
    unfinished: bool,
    peer: str,
    subject: str,
    before: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """List jobs, the newest first."""
    wanted = [JobState(state) for state in states]
    if unfinished:
        wanted += [state for state in JobState if state not in FINISHED and state not in wanted]
    only = JobFilter(kind=kind, state=tuple(wanted), peer=peer, subject=subject)
    with closing(ArchiveReader(str(archive))) as reader:
        found = (_as_row(job) for job in _pages(reader.database, only, before, limit))
        print_rows(_COLUMNS, found, as_json=as_json, nothing="There are no such jobs.")


def _pages(database: Database, only: JobFilter, before: int | None, limit: int) -> Iterator[Job]:
    return page_by_page(
        database,
        lambda connection, before, size: rows.list_jobs(
            connection, replace(only, before_key=before, limit=size)
        ),
        lambda job: job.job_key,
        before=before,
        limit=limit,
        page_size=PAGE_MAX,
    )


@jobs.command("show", epilog="Exit code 66 when there is no such job.")
@archive_option
@click.argument("job_id", metavar="JOB")
@json_option
def show(*, archive: Path, job_id: str, as_json: bool) -> None:
    """Show a job, and what became of each thing that it is about."""
    with closing(ArchiveReader(str(archive))) as reader, reader.database.read() as connection:
        job = rows.find(connection, job_id)
        if job is None:
            raise _not_found(job_id)
        items = items_of(connection, job)
        if as_json:
            while items:
                page = items_of(connection, job, after=items[-1].position)
                if not page:
                    break
                items += page
            click.echo(json.dumps({**_as_row(job), "items": [asdict(item) for item in items]}))
            return
    for label, value in _shown(job):
        click.echo(printable(f"{label}: {value}"))
    _print_items(job, items)


def _shown(job: Job) -> Iterator[tuple[str, str]]:
    """Yield what a person wants to know of a job; --json has everything else."""
    row = _as_row(job)
    yield "job id", job.job_id
    yield "kind", job.kind
    yield "state", _state(row)
    for name in ("step", "subject", "peer", "lane", "error", "created_by"):
        if row[name]:
            yield name.replace("_", " "), row[name]
    said = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in job.arguments.items()
        if name not in _INTERNAL and isinstance(value, str | int | float) and value not in ("", False)
    ]
    if said:
        yield "asked for", ", ".join(said)
    if job.items_total:
        yield "done", f"{job.items_done} of {job.items_total}"
    for name in ("created_at", "due_at", "started_at", "finished_at"):
        if row[name] and not (name == "due_at" and job.is_finished):
            yield name.replace("_", " "), f"{row[name][:19].replace('T', ' ')} UTC"
    if job.attempts:
        times = "once" if job.attempts == 1 else f"{job.attempts} times"
        yield "run", f"{times}, {_seconds(job.seconds_run)} in all"
    for name in ("priority", "failures", "faults"):
        if row[name]:
            yield name.replace("_", " ") + ("" if name == "priority" else " in a row"), str(row[name])
    if job.owner:
        yield "run by", job.owner


_INTERNAL = ("commitment_key", "transaction_uid", "peer")
"""Arguments that are numbers of rows, or said already."""


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _print_items(job: Job, items: list[JobItem]) -> None:
    for item in items[:FAILURES_SHOWN_MAX]:
        code = f" {item.code:04X}H" if item.code is not None else ""
        words = f": {item.words}" if item.words else ""
        click.echo(printable(f"  {item.name}  {item.outcome or 'open'}{code}{words}"))
    if job.items_total > FAILURES_SHOWN_MAX and items:
        click.echo(f"  … {job.items_total} in all; --json names them", err=True)


Change = Callable[[Transaction, str, str], Job]


def _changing(change: Change, done: str) -> Callable[..., ExitCode]:
    """Return a command's body that does the same with each job named."""

    def body(*, archive: Path, job_ids: tuple[str, ...]) -> ExitCode:
        code = ExitCode.OK
        with closing(ArchiveReader(str(archive))) as reader:
            for job_id in dict.fromkeys(job_ids):
                try:
                    with reader.database.write() as transaction:
                        job = change(transaction, job_id, acting_user())
                except (JobNotFoundError, JobStateError) as error:
                    click.echo(printable(f"{job_id}: {error}"), err=True)
                    code = ExitCode.FINDINGS
                else:
                    click.echo(printable(f"{job_id}: {done} ({_state(_as_row(job))})"))
        return code

    return body


def _add(name: str, change: Change, done: str, help_text: str) -> None:
    command = click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)(_changing(change, done))
    jobs.command(
        name,
        help=help_text,
        epilog="Exit code 0 when it was done with all, 1 when one is not there or cannot.",
    )(archive_option(command))


_add("pause", rows.pause, "paused", "Pause jobs; one that runs gives way at its next step.")
_add("resume", rows.resume, "resumed", "Let paused jobs go on.")
_add(
    "cancel",
    rows.cancel,
    "cancelled",
    "Cancel jobs. A storage commitment that is cancelled is still reported, its unchecked instances as failed.",
)
_add(
    "retry",
    rows.resubmit,
    "to be tried again",
    "Try jobs again that failed or were cancelled; or try waiting ones now.",
)


def _as_row(job: Job) -> dict[str, Any]:
    row = {"number": job.job_key, **asdict(job)}
    del row["job_key"], row["heartbeat"]
    row["state"], row["wish"] = job.state.value, job.wish.value
    row["seconds_run"] = round(job.seconds_run, 3)
    return row


def _not_found(job_id: str) -> CommandError:
    return CommandError(
        f"There is no job {job_id}: `stowkeeper jobs ls` lists them; finished ones are forgotten in time.",
        ExitCode.NO_INPUT,
    )
