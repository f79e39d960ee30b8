"""Waiting for what a peer says to a request for storage commitment: what `commit` and `send --commit` have in common."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from stowkeeper.app.commands.asked_peer import listen_option
from stowkeeper.app.commands.job_driver import carrying_out, listening, server_runs, wait_for_end
from stowkeeper.app.commands.waiting_limits import WAIT_SECONDS, WAIT_SECONDS_MAX
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.peer_book import own_side
from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_tls import tls_context
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Database
from stowkeeper.dicom.commitment_information import EventInformation
from stowkeeper.jobs.kind import JobKind
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking import OPEN_STATES
from stowkeeper.services.commitment.commitment_values import Commitment, CommitmentRole, CommitmentState
from stowkeeper.services.commitment.report_listener import ReportListener
from stowkeeper.services.commitment.reports_received import take_report
from stowkeeper.services.commitment.request_job import CommitmentRequestJob
from stowkeeper.services.peers import PeerBook
from stowkeeper.services.store_job import StoreJob

R = TypeVar("R")

Look = Callable[[], tuple[bool, object]]
"""Says whether what is waited for is over, and a value that changes with each news. It is called in a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How long a command waits without news, in seconds, 0 for not at all, and where it listens for reports.

    `listen_tls` is how that is done over TLS where no settings say it.
    """

    seconds: float
    listen: tuple[str, int] | None
    listen_tls: TLSContext | None = None


def wait_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command --wait, --no-wait and --listen. It gets `waiting`."""

    @listen_option
    @click.option(
        "--wait",
        "seconds",
        metavar="SECONDS",
        type=click.FloatRange(min=0.1, max=WAIT_SECONDS_MAX),
        default=WAIT_SECONDS,
        show_default=True,
        help="How long to wait without any news: an answer of the peer, or its report.",
    )
    @click.option("--no-wait", is_flag=True, help="Only write down what is to be asked.")
    @wraps(command)
    def with_waiting(
        *,
        seconds: float,
        no_wait: bool,
        listen: tuple[str, int] | None,
        **options: Any,  # noqa: ANN401 - they are the command's own
    ) -> R:
        return command(waiting=Waiting(seconds=0.0 if no_wait else seconds, listen=listen), **options)

    return with_waiting


async def submit_and_wait(
    reader: ArchiveReader,
    settings: Settings,
    peers: PeerBook,
    waiting: Waiting,
    submit: Callable[[], Look],
) -> bool:
    """Have something written down, and carried out by the server or else here; return whether it came to its end.

    `submit` returns what is to be waited for; it is called in a thread, when the address to listen at is there. It is
    listened there as a server with these settings would: over TLS alone, where they have a certificate. Raises what
    `submit` raises, OSError when the address is not to be had, and SettingsError when a file of `[tls]` cannot be used.
    """
    if not waiting.seconds:
        await asyncio.to_thread(submit)
        return False
    if server_runs(reader.root):
        if waiting.listen is not None:
            click.echo("A server runs on this archive and takes the reports: --listen is not used.", err=True)
        return await wait_for_end(await asyncio.to_thread(submit), waiting.seconds)

    def take(calling: str, address: str, event_type: int, information: EventInformation) -> tuple[int, str]:
        return take_report(reader.database, calling, address, event_type, information, peers)

    def make_kinds() -> Sequence[JobKind]:
        own = own_side(settings)
        return [CommitmentRequestJob(reader.database, peers, own), StoreJob(reader, peers, own)]

    tls = None if waiting.listen is None else tls_context(settings)
    async with listening(ReportListener(take, tls), waiting.listen):
        look = await asyncio.to_thread(submit)
        async with carrying_out(reader, settings, make_kinds):
            return await wait_for_end(look, waiting.seconds)


# What became of transactions.


def looking_at(database: Database, uids: Sequence[str]) -> Look:
    """Return a look at transactions of ours: they are over when a report of each came, or none will."""

    def look() -> tuple[bool, object]:
        states = tuple((one.state, one.error) for one in transactions(database, uids))
        return all(state not in OPEN_STATES for state, _ in states), states

    return look


def transactions(database: Database, uids: Sequence[str]) -> list[Commitment]:
    """Return transactions of ours by their UIDs, in that order."""
    with database.read() as connection:
        found = (rows.find(connection, CommitmentRole.USER, uid) for uid in uids)
        return [commitment for commitment in found if commitment is not None]


def exit_code_of(asked: Sequence[Commitment]) -> ExitCode:
    """Return OK when everything is committed, FINDINGS when something is not, TRY_AGAIN while that is not known."""
    states = {commitment.state for commitment in asked}
    if states == {CommitmentState.COMMITTED}:
        return ExitCode.OK
    if states & OPEN_STATES:
        return ExitCode.TRY_AGAIN
    return ExitCode.FINDINGS
