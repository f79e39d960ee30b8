"""How it goes with each peer: the last echo, association and report of each, and what failed last."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from stowkeeper.archive.audit import list_audit
from stowkeeper.archive.ledger import AssociationRecord, record_associations
from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.database.schema import commitment_reports, jobs, peer_echoes
from stowkeeper.dicom.commitment_information import ActionInformation
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.job import JobRequest
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.services import peer_health
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.acceptance import Asker, take
from stowkeeper.services.commitment.reports_received import take_report_on_request
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.peer_health import PeerHealth, echo_of, health_of
from stowkeeper.services.peers import Peer, PeerBook
from support.catalog_rows import open_database
from support.commitment_asking import ask_for, event, references_to
from support.commitment_server import commitment_serving, dead_port

CT = Peer(name="ct", ae_title="CT", host="192.0.2.1", port=104)
PACS = Peer(name="pacs", ae_title="PACS", host="192.0.2.2", port=104)


def no_tls() -> TLSContext:
    raise AssertionError("nobody is called over TLS")


OWN = OwnSide(ae_title="STOWKEEPER", tls=no_tls)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path, sync=False)


def health(database: Database, *peers: Peer) -> dict[str, PeerHealth]:
    book = PeerBook(peers or (CT, PACS), database)
    with database.read() as connection:
        return health_of(connection, [peer.name for peer in book.all()], book.matching)


def at(minute: int) -> str:
    return f"2026-03-02T10:{minute:02}:00.000000Z"


def test_nothing_is_known_of_who_never_called(database: Database) -> None:
    assert health(database) == {"ct": PeerHealth(), "pacs": PeerHealth()}


def test_the_last_association_is_by_who_called_and_was_accepted(database: Database) -> None:
    def association(
        number: int, calling: str, address: str, rejection: tuple[int, int, int] | None = None
    ) -> AssociationRecord:
        return AssociationRecord(
            association_id=f"a{number}",
            opened_at=at(number),
            peer_address=address,
            calling_ae_title=calling,
            rejection=rejection,
        )

    with database.write() as transaction:
        record_associations(
            transaction,
            [
                association(3, "CT", "192.0.2.1"),
                association(2, "CT", "192.0.2.1"),  # it ended later
                association(4, "CT", "192.0.2.1", (1, 1, 3)),
                association(5, "SOMEBODY", "192.0.2.1"),
            ],
        )
    found = health(database)
    assert found["ct"].last_association_at == at(3)
    assert found["pacs"].last_association_at is None


def reported(database: Database, *attempts: tuple[str, int | None, str]) -> None:
    """Write a transaction that the scanner asked of us, and attempts to report it."""
    asker = Asker(way="DIMSE", peer="ct", peer_ae_title="CT")
    with database.write() as transaction:
        _, commitment = take(transaction, asker, ActionInformation("1.2.840.1", tuple(references_to(1))))
        for when, status, words in attempts:
            transaction.execute(
                insert(commitment_reports).values(
                    commitment_key=commitment.commitment_key,
                    at=when,
                    way="new association",
                    status=status,
                    words=words,
                    seconds=0.0,
                )
            )
            if status == 0:
                rows.change(transaction, commitment.commitment_key, reported_at=when)


def test_the_last_report_that_was_taken_and_the_last_that_was_not(database: Database) -> None:
    attempts = [
        (at(1), None, "cannot be reached"),
        (at(2), 0x0110, "the peer answered 0110H"),
        (at(3), 0, ""),
    ]
    reported(database, *attempts)
    found = health(database)["ct"]
    assert (found.last_report_at, found.last_report_received_at) == (at(3), None)
    assert (found.last_failure_at, found.last_failure) == (at(2), "the peer answered 0110H")


def test_a_report_beyond_those_that_are_looked_at_is_found_by_its_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported(database, (at(1), 0, ""), (at(2), None, "cannot be reached"))
    monkeypatch.setattr(peer_health, "HEALTH_ROWS", 1)
    found = health(database)["ct"]
    assert (found.last_report_at, found.last_failure_at) == (at(1), at(2))


def test_the_last_report_of_the_peer(database: Database) -> None:
    peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
    commitment = ask_for(database, references_to(1), peer=peer)
    assert health(database)["pacs"].last_report_received_at is None
    said = event(commitment.transaction_uid, references_to(1))
    assert take_report_on_request(database, peer, 1, said) == (0, "")
    with database.read() as connection:
        now = rows.find_by_key(connection, commitment.commitment_key)
    assert now is not None
    found = health(database)["pacs"]
    assert found.last_report_received_at == now.reported_at
    assert found.last_report_at is None


def test_a_job_that_failed_is_a_failure(database: Database) -> None:
    reported(database, (at(1), None, "cannot be reached"))
    with database.write() as transaction:
        job = job_rows.submit(transaction, JobRequest(kind="store", arguments={}, peer="ct"))
        transaction.execute(
            update(jobs)
            .where(jobs.c.job_key == job.job_key)
            .values(state="failure", finished_at=at(4), error="2 of 3 instances were not stored")
        )
    found = health(database)["ct"]
    assert (found.last_failure_at, found.last_failure) == (at(4), "2 of 3 instances were not stored")


def test_an_echo_that_was_asked_for_is_known_from_then_on(tmp_path: Path) -> None:
    with commitment_serving(tmp_path / "archive", runs_jobs=False) as server, dead_port() as port:
        alive = Peer(name="alive", ae_title="STOWKEEPER", host="127.0.0.1", port=server.port)
        dead = Peer(name="dead", ae_title="DEAD", host="127.0.0.1", port=port, connect_seconds=2.0)
        assert asyncio.run(echo_of(alive, OWN, server.database)).is_success
        with pytest.raises(AssociationError):
            asyncio.run(echo_of(dead, OWN, server.database))
        found = health(server.database, alive, dead)
        assert found["alive"].last_echo_at is not None
        assert (found["alive"].last_failure_at, found["dead"].last_echo_at) == (None, None)
        assert "cannot be reached" in found["dead"].last_failure
        # It goes on like this for years: a row for each peer, and no line of the audit trail.
        before = found["alive"].last_echo_at
        assert asyncio.run(echo_of(alive, OWN, server.database)).is_success
        gone = replace(alive, port=port)
        with pytest.raises(AssociationError):
            asyncio.run(echo_of(gone, OWN, server.database))
        now = health(server.database, alive)["alive"]
        assert now.last_echo_at is not None
        assert now.last_failure_at is not None
        assert before < now.last_echo_at < now.last_failure_at
        with server.database.read() as connection:
            assert list_audit(connection) == []
            assert len(connection.execute(select(peer_echoes)).all()) == 2


def test_an_echo_is_told_though_it_cannot_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise DatabaseUnavailable("the disk is gone")

    with commitment_serving(tmp_path / "archive", runs_jobs=False) as server:
        alive = Peer(name="alive", ae_title="STOWKEEPER", host="127.0.0.1", port=server.port)
        with monkeypatch.context() as patched:
            patched.setattr(server.database, "write", refuse)
            assert asyncio.run(echo_of(alive, OWN, server.database)).is_success
