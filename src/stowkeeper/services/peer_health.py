"""How it goes with each peer: when it was heard last, and what failed last. It is told from rows that are there anyway.

Reports of storage commitment and jobs are rows with their ends, and so are the associations of the ledger. Of the echoes that
somebody asked for the last ones are kept, a row for each peer. They change nothing, so they are no lines of the audit trail,
which would grow by one a minute where a monitor asks.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from stowkeeper.database.engine import Database, DatabaseError, Transaction
from stowkeeper.database.schema import associations, commitment_reports, commitments, jobs, peer_echoes
from stowkeeper.jobs.states import JobState
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.services.commitment.commitment_values import CommitmentRole
from stowkeeper.services.commitment.rows import is_delivered
from stowkeeper.services.dialing import EchoResult, OwnSide, echo
from stowkeeper.services.limits import HEALTH_ROWS
from stowkeeper.services.peer_definition import Peer

Matching = Callable[[str, str], Peer | None]
"""`PeerBook.matching`: the peer whose association this is, by calling AE title and address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerHealth:
    """What is known of a peer, UTC in ISO 8601; None where nothing is.

    `last_echo_at` is when it answered an echo of ours with Success, `last_association_at` when it opened an association
    here that was accepted, `last_report_at` when it took a report of storage commitment, `last_report_received_at` when one
    of its own came. `last_failure_at` and `last_failure`, words without patient data, are of the newest echo that it did not
    answer so, report of ours that it did not take, or job about it that failed.
    """

    last_echo_at: str | None = None

    last_association_at: str | None = None
    last_report_at: str | None = None
    last_report_received_at: str | None = None
    last_failure_at: str | None = None
    last_failure: str = ""


def health_of(connection: Connection, names: Collection[str], matching: Matching) -> dict[str, PeerHealth]:
    """Return how it goes with the peers of these names.

    Of associations and reports the latest HEALTH_ROWS are looked at, so it takes some 50 ms however many there are.
    """
    called = _last_associations(connection, matching)
    reports = _Attempts()
    for row in _reports(connection):
        reports.add(row.peer, row.at, "" if _is_taken(row.status) else row.words or _NOT_TAKEN)
    echoes = _Attempts()
    for row in connection.execute(select(peer_echoes)):
        if row.answered_at is not None:
            echoes.add(row.peer, row.answered_at, "")
        if row.failed_at is not None:
            echoes.add(row.peer, row.failed_at, row.failure)
    found: dict[str, PeerHealth] = {}
    for name in names:
        failures = (reports.failed.get(name), echoes.failed.get(name), _failed_job(connection, name))
        last_failure = max((one for one in failures if one is not None), default=None)
        found[name] = PeerHealth(
            last_echo_at=echoes.succeeded.get(name),
            last_association_at=called.get(name),
            last_report_at=reports.succeeded.get(name)
            or _newest_report(connection, name, CommitmentRole.PROVIDER),
            last_report_received_at=_newest_report(connection, name, CommitmentRole.USER),
            last_failure_at=None if last_failure is None else last_failure[0],
            last_failure="" if last_failure is None else last_failure[1],
        )
    return found


async def echo_of(peer: Peer, own: OwnSide, database: Database) -> EchoResult:
    """Ask a peer for a sign of life, and write down what came of it, where that can be written. Raises AssociationError."""

    def note(failure: str) -> None:
        # The answer matters more than the row, and an archive may be there to be read alone.
        with contextlib.suppress(DatabaseError), database.write() as transaction:
            _note(transaction, peer.name, failure)

    try:
        result = await echo(peer, own)
    except AssociationError as error:
        await asyncio.to_thread(note, str(error))
        raise
    await asyncio.to_thread(note, "" if result.is_success else f"it answered {result.words}")
    return result


def _note(transaction: Transaction, name: str, failure: str) -> None:
    now = {"failed_at": transaction.at, "failure": failure} if failure else {"answered_at": transaction.at}
    changed = transaction.execute(update(peer_echoes).where(peer_echoes.c.peer == name).values(now))
    if not changed.rowcount:
        transaction.execute(insert(peer_echoes).values({"peer": name, "failure": "", **now}))


Failure = tuple[str, str]
"""When something failed, and the words why."""

_NOT_TAKEN = "it did not take a report of storage commitment"


def _is_taken(status: int | None) -> bool:
    return status is not None and is_delivered(status)


def _last_associations(connection: Connection, matching: Matching) -> dict[str, str]:
    table = associations.c
    query = (
        select(table.calling_ae_title, table.peer_address, table.opened_at)
        .where(table.rejection_result.is_(None))
        .order_by(table.association_key.desc())
        .limit(HEALTH_ROWS)
    )
    found: dict[str, str] = {}
    for calling_ae_title, address, opened_at in connection.execute(query):
        peer = matching(calling_ae_title, address)
        if peer is not None:
            # They are written when they end, so the order of their keys is not that of their beginnings.
            found[peer.name] = max(found.get(peer.name, ""), opened_at)
    return found


class _Attempts:
    """The latest attempts with each peer: the one that succeeded, and the one that failed. The newest is added first."""

    def __init__(self) -> None:
        self.succeeded: dict[str, str] = {}
        self.failed: dict[str, Failure] = {}

    def add(self, name: str, at: str, failure: str) -> None:
        if failure:
            self.failed.setdefault(name, (at, failure))
        else:
            self.succeeded.setdefault(name, at)


def _reports(connection: Connection) -> Iterator[Any]:
    table = commitment_reports.c
    latest = (
        select(table.commitment_key, table.report_key, table.at, table.status, table.words)
        .order_by(table.report_key.desc())
        .limit(HEALTH_ROWS)
        .subquery()
    )
    query = (
        select(commitments.c.peer, latest.c.at, latest.c.status, latest.c.words)
        .join(commitments, commitments.c.commitment_key == latest.c.commitment_key)
        .where(commitments.c.role == CommitmentRole.PROVIDER)
        .order_by(latest.c.report_key.desc())
    )
    yield from connection.execute(query)


def _newest_report(connection: Connection, name: str, role: CommitmentRole) -> str | None:
    """Return when the newest transaction with a peer was reported that has been, by the index of its transactions."""
    table = commitments.c
    query = (
        select(table.reported_at)
        .where(table.peer == name, table.role == role, table.reported_at.is_not(None))
        .order_by(table.commitment_key.desc())
        .limit(1)
    )
    found: str | None = connection.execute(query).scalar()
    return found


def _failed_job(connection: Connection, name: str) -> Failure | None:
    table = jobs.c
    query = (
        select(table.finished_at, table.error)
        .where(table.peer == name, table.peer != "", table.state == JobState.FAILURE)
        .order_by(table.job_key.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None or row.finished_at is None else (row.finished_at, row.error)
