"""Asking as rows: what is written, that it is all there or nothing, and that a UID is used once."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from stowkeeper.database.engine import Database
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.jobs.states import JobState
from stowkeeper.jobs.times import later
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking import (
    AskTerms,
    CannotAskError,
    ask,
    ask_again,
    asked_at,
    find_kept,
    lane_of,
    peer_of,
)
from stowkeeper.services.commitment.asking_limits import RE_ASK_TIMES_MAX, REFERENCES_PER_REQUEST_MAX
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.commitment.reports_received import take_report_on_request
from stowkeeper.services.peers import Peer
from support.catalog_rows import open_database
from support.commitment_asking import (
    PEER,
    ask_for,
    event,
    instances_in,
    keep_instances,
    references_to,
    state_of,
)
from support.instances import make_instance
from support.job_engine_thread import job_of


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path, sync=False)


def test_a_question_is_rows_and_a_job(database: Database) -> None:
    asked = references_to(1, 2)
    commitment = ask_for(database, asked, terms=AskTerms(report_awaited_seconds=60.0))
    assert state_of(database, commitment.transaction_uid) == commitment
    assert commitment.state is CommitmentState.REQUESTED
    assert (commitment.peer, commitment.peer_ae_title, commitment.own_ae_title) == (
        "pacs",
        "PACS",
        "STOWKEEPER",
    )
    assert asked_at(commitment) == ("PACS", "127.0.0.1", 104)
    assert commitment.expires_at == later(commitment.requested_at, 60.0)
    assert [one.reference for one in instances_in(database, commitment.transaction_uid)] == asked
    job = job_of(database, commitment.job_id)
    assert (job.kind, job.state, job.lane) == ("commitment-request", JobState.PENDING, "peer:pacs")
    assert (job.subject, job.peer) == (commitment.transaction_uid, "pacs")


def test_the_uid_is_made_of_a_uuid_and_never_the_same(database: Database) -> None:
    uids = {ask_for(database, references_to(1)).transaction_uid for _ in range(20)}
    assert len(uids) == 20
    assert all(re.fullmatch(r"2\.25\.[1-9][0-9]{0,38}", uid) for uid in uids)


def test_what_is_rolled_back_was_never_asked(database: Database) -> None:
    def failing() -> None:
        with database.write() as transaction:
            ask(transaction, PEER, references_to(1), own_ae_title="S", created_by="a test")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    with database.read() as connection:
        assert rows.list_commitments(connection) == []
        assert connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar() == 0


def test_an_instance_named_twice_is_asked_for_once(database: Database) -> None:
    one, two = references_to(1, 2)
    commitment = ask_for(database, [one, two, one])
    assert commitment.instances == 2
    assert [one.position for one in instances_in(database, commitment.transaction_uid)] == [0, 1]


def test_the_versions_are_those_of_the_moment(tmp_path: Path) -> None:
    database, rig = keep_instances(tmp_path, 1, 2, make_instance(1, content=1))
    with database.read() as connection:
        kept = find_kept(connection, ["1.2.3.2", "1.2.3.9", "1.2.3.1"])
    current = {row["sop_instance_uid"]: row["receipt_id"] for row in rig.versions() if row["current"]}
    assert [one.sop_instance_uid for one in kept.references] == ["1.2.3.2", "1.2.3.1"]
    assert kept.missing == ("1.2.3.9",)
    commitment = ask_for(database, [*kept.references])
    keys = [one.version_key for one in instances_in(database, commitment.transaction_uid)]
    assert keys == list(kept.version_keys)
    with database.read() as connection:
        found = connection.exec_driver_sql(
            f"SELECT receipt_id FROM receipts WHERE receipt_key IN ({keys[0]}, {keys[1]})"
        )
        assert {row.receipt_id for row in found} == set(current.values())


@pytest.mark.parametrize(
    ("peer", "count", "terms", "words"),
    [
        (PEER, 0, AskTerms(), "no instance"),
        (PEER, REFERENCES_PER_REQUEST_MAX + 1, AskTerms(), "ask in parts"),
        (PEER, 1, AskTerms(re_ask_times=RE_ASK_TIMES_MAX + 1), "times at most"),
        (PEER, 1, AskTerms(re_ask_times=-1), "times at most"),
        (replace(PEER, host=None, port=None), 1, AskTerms(), "nobody knows where the peer pacs is"),
        (Peer(name="", ae_title="A"), 1, AskTerms(), "needs AE title, host and port"),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(
    database: Database, peer: Peer, count: int, terms: AskTerms, words: str
) -> None:
    with pytest.raises(CannotAskError, match=words):
        ask_for(database, references_to(*range(count)), peer=peer, terms=terms)
    with database.read() as connection:
        assert rows.list_commitments(connection) == []


def test_what_is_named_by_no_uid_alone_cannot_be_asked_for(database: Database) -> None:
    """Beside others it stands in the transaction, for whoever looks at what became of what he named."""
    unnamed = Reference("nope", "1.2.3")
    with pytest.raises(CannotAskError, match="named by no UID"):
        ask_for(database, [unnamed])
    commitment = ask_for(database, [unnamed, *references_to(1)])
    assert [one.reference for one in instances_in(database, commitment.transaction_uid)] == [
        unnamed,
        *references_to(1),
    ]


@pytest.mark.slow
def test_as_many_as_may_be_are_asked_for_at_once(database: Database) -> None:
    commitment = ask_for(database, references_to(*range(REFERENCES_PER_REQUEST_MAX)))
    assert commitment.instances == REFERENCES_PER_REQUEST_MAX


def test_asked_again_it_is_a_new_transaction_for_what_was_not_committed(tmp_path: Path) -> None:
    database, _ = keep_instances(tmp_path, 1, 2, 3)
    one, two, three = references_to(1, 2, 3)
    first = ask_for(database, [one, two, three])
    assert take_report_on_request(database, PEER, 2, event(first.transaction_uid, [two], [one])) == (0, "")
    keep_instances(tmp_path, make_instance(3, content=7))  # what we have now is another version
    with database.write() as transaction:
        now = rows.find_by_key(transaction.connection, first.commitment_key)
        assert now is not None
        second = ask_again(transaction, now, PEER, created_by="a test")
    assert second.replaces == first.commitment_key
    assert second.transaction_uid != first.transaction_uid
    asked = instances_in(database, second.transaction_uid)
    assert [one.reference for one in asked] == [one, three]
    before = {one.sop_instance_uid: one.version_key for one in instances_in(database, first.transaction_uid)}
    assert all(before[one.sop_instance_uid] == one.version_key for one in asked)
    assert state_of(database, first.transaction_uid).state is CommitmentState.PARTIAL


@pytest.mark.parametrize("state", [CommitmentState.REQUESTED, CommitmentState.ACCEPTED])
def test_what_is_still_open_is_not_asked_again(database: Database, state: CommitmentState) -> None:
    commitment = replace(ask_for(database, references_to(1)), state=state)
    with database.write() as transaction, pytest.raises(CannotAskError, match="can still come"):
        ask_again(transaction, commitment, PEER, created_by="a test")


def test_what_is_committed_is_not_asked_again(database: Database) -> None:
    asked = references_to(1)
    uid = ask_for(database, asked).transaction_uid
    take_report_on_request(database, PEER, 1, event(uid, asked))
    with database.write() as transaction, pytest.raises(CannotAskError, match="is committed"):
        ask_again(transaction, state_of(database, uid), PEER, created_by="a test")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "archive.example"])
def test_where_a_peer_is_survives_in_the_row(database: Database, host: str) -> None:
    peer = Peer(name="", ae_title="A@B", host=host, port=11112, own_ae_title="WE")
    commitment = ask_for(database, references_to(1), peer=peer)
    assert asked_at(commitment) == ("A@B", host, 11112)
    assert peer_of(commitment, None) == peer
    assert lane_of(peer) == f"peer:{peer.where}"


def test_a_definition_counts_while_it_is_the_same_peer(database: Database) -> None:
    commitment = ask_for(database, references_to(1))
    moved = replace(PEER, host="192.0.2.1")
    assert peer_of(commitment, moved).host == "192.0.2.1"
    other = replace(PEER, ae_title="ELSE", host="192.0.2.1")
    assert peer_of(commitment, other).host == "127.0.0.1"
    nowhere = replace(PEER, host=None, port=None)
    assert peer_of(commitment, nowhere).host == "127.0.0.1"
