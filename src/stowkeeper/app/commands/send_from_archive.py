"""`stowkeeper send --archive`: instances of an archive to a peer, as one durable job; with --commit to the peer's report."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import click

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.asked_peer import find_peer
from stowkeeper.app.commands.commitment_lines import print_outcome, whole_row
from stowkeeper.app.commands.commitment_waiting import (
    Look,
    Waiting,
    exit_code_of,
    looking_at,
    submit_and_wait,
    transactions,
)
from stowkeeper.app.commands.event_loop import event_loop
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.job_driver import server_runs
from stowkeeper.app.commands.options import SettingsArguments
from stowkeeper.app.commands.waiting_limits import INSTANCES_SHOWN_MAX
from stowkeeper.app.commitment_terms import ask_terms
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.app.peer_book import configured_peers
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Database
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job, JobItem
from stowkeeper.jobs.states import JobState
from stowkeeper.services.peers import PeerBook
from stowkeeper.services.store_items import FAILED, STORED
from stowkeeper.services.store_submission import CannotStoreError, submit_store


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSending:
    """What is to be sent from an archive to whom. `own` is what we call ourselves, '' where nobody said."""

    arguments: SettingsArguments
    peer: str
    own: str
    seconds: float | None
    uids: Sequence[str]
    is_to_commit: bool
    waiting: Waiting
    as_json: bool


def send_from_archive(sending: ArchiveSending) -> ExitCode:
    """Write a job down that sends instances, wait for its end, and for the peer's report where it is to commit."""
    settings = sending.arguments.as_served().load()
    with closing(ArchiveReader(str(settings.archive_path))) as reader:
        peers = PeerBook(configured_peers(settings), reader.database)
        peer = find_peer(peers, sending.peer, sending.own, sending.seconds)
        submitted: list[str] = []

        def submit() -> Look:
            try:
                with reader.database.write() as transaction:
                    job = submit_store(
                        transaction,
                        peer,
                        sending.uids,
                        created_by=acting_user(),
                        commit=sending.is_to_commit,
                        terms=ask_terms(settings),
                    )
            except CannotStoreError as error:
                words = str(error)
                raise CommandError(f"{words[0].upper()}{words[1:]}.", ExitCode.NO_INPUT) from error
            submitted.append(job.job_id)
            what = "1 instance" if job.items_total == 1 else f"{job.items_total} instances"
            where = peer.name or peer.where
            click.echo(printable(f"{what} to {where}, as job {job.job_id}"), err=True)
            return _looking_at(reader.database, job.job_id)

        with event_loop() as runner:
            is_over = runner.run(submit_and_wait(reader, settings, peers, sending.waiting, submit))
        if not sending.waiting.seconds:
            return ExitCode.OK
        code = _show(reader, submitted[0], sending)
        if not is_over:
            who = "The server" if server_runs(reader.root) else "The next server on this archive"
            click.echo(f"{who} goes on with it; `stowkeeper jobs show` tells what came of it.", err=True)
        return code


def _looking_at(database: Database, job_id: str) -> Look:
    """Return a look at the job, and then at what it asked the peer to commit."""

    def look() -> tuple[bool, object]:
        job = _job(database, job_id)
        uids = job.checkpoint.get("transaction_uids", [])
        is_over, states = looking_at(database, uids)()
        return job.is_finished and is_over, (job.state, job.items_done, job.error, states)

    return look


def _job(database: Database, job_id: str) -> Job:
    with database.read() as connection:
        job = jobs.find(connection, job_id)
    if job is None:
        raise CommandError(f"The job {job_id} was deleted meanwhile.", ExitCode.TRY_AGAIN)
    return job


def _show(reader: ArchiveReader, job_id: str, sending: ArchiveSending) -> ExitCode:
    """Show what became of each instance; return OK only where all is stored, and committed if that was wanted."""
    database = reader.database
    job = _job(database, job_id)
    counts: Counter[str] = Counter()
    for item in _items(database, job):
        counts[item.outcome] += 1
        if sending.as_json:
            click.echo(json.dumps(_as_line(item)))
        elif item.outcome == FAILED and counts[FAILED] <= INSTANCES_SHOWN_MAX:
            click.echo(printable(f"  {item.name}: {item.words}"))
    asked = transactions(database, job.checkpoint.get("transaction_uids", []))
    if sending.as_json:
        for commitment in asked:
            click.echo(json.dumps({"commitment": whole_row(database, commitment)}))
        summary = {
            "job_id": job_id,
            "state": job.state.value,
            "stored": counts[STORED],
            "failed": counts[FAILED],
            "open": job.items_total - counts[STORED] - counts[FAILED],
            "committed": sum(one.instances - one.failures for one in asked if one.checked_at is not None),
        }
        click.echo(json.dumps({"summary": summary}))
    else:
        instances = "instance" if job.items_total == 1 else "instances"
        why = "" if job.state is JobState.SUCCESS else job.error
        click.echo(printable(f"{counts[STORED]} of {job.items_total} {instances} stored. {why}".strip()))
        for commitment in asked:
            print_outcome(database, commitment)
    return _exit_code(job, counts, sending, [exit_code_of([one]) for one in asked])


def _exit_code(
    job: Job, counts: Counter[str], sending: ArchiveSending, commitments: Sequence[ExitCode]
) -> ExitCode:
    if not job.is_finished:
        return ExitCode.TRY_AGAIN
    if counts[STORED] < job.items_total or ExitCode.FINDINGS in commitments:
        return ExitCode.FINDINGS
    if sending.is_to_commit and not commitments:
        return ExitCode.FINDINGS
    return ExitCode.TRY_AGAIN if ExitCode.TRY_AGAIN in commitments else ExitCode.OK


def _items(database: Database, job: Job) -> Iterator[JobItem]:
    after = -1
    while True:
        with database.read() as connection:
            page = jobs.items_of(connection, job.job_key, after=after)
        if not page:
            return
        yield from page
        after = page[-1].position


def _as_line(item: JobItem) -> dict[str, Any]:
    return {
        "sop_instance_uid": item.name,
        "outcome": item.outcome or "open",
        "status": None if item.code is None else f"{item.code:04X}H",
        "reason": item.words or None,
    }
