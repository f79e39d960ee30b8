"""Requests by HTTP on the same engine (PS3.18 chapter 13): taken once, checked alike, fetched, and no peer is called."""

from contextlib import contextmanager

import pytest

from stowkeeper.archive.holding import reasons_of
from stowkeeper.archive.removal import Removal
from stowkeeper.archive.verification import Verification
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment.acceptance import (
    CommitmentStateError,
    Taken,
    accept_web,
    resend,
    web_result,
)
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.peers import Peer
from support.commitment_server import commitment_serving, seconds_ago
from support.instances import CT_IMAGE_STORAGE
from support.raw_commitment import action_data, ask, push_model_context
from support.raw_peer import RawPeer

UID = "1.2.840.1"
CHECKED, REPORTED = CommitmentState.CHECKED, CommitmentState.REPORTED


@pytest.fixture
def server(tmp_path):
    peer = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=1)
    with commitment_serving(tmp_path / "archive", peer) as running:
        yield running


def references(*numbers):
    return [Reference(CT_IMAGE_STORAGE, f"1.2.3.{number}") for number in numbers]


def accept(server, *numbers, uid=UID, client="alice"):
    taken = accept_web(server.database, uid, references(*numbers), client=client, address="192.0.2.8")
    if server.engine is not None:
        server.engine.wake()
    return taken


@pytest.mark.slow
def test_a_request_is_checked_held_and_fetched_and_nobody_is_called(server):
    server.keep(1)
    taken, commitment = accept(server, 1, 2)
    assert taken is Taken.NEW
    assert (commitment.way, commitment.peer, commitment.peer_address) == ("web", "alice", "192.0.2.8")
    server.wait_for_job(UID, JobState.SUCCESS)
    assert server.commitment(UID).state is CHECKED
    result = web_result(server.database, UID)
    assert [(one.sop_instance_uid, one.outcome, one.reason) for one in result.instances] == [
        ("1.2.3.1", "committed", None),
        ("1.2.3.2", "failed", 0x0112),
    ]
    key = server.version_of("1.2.3.1").version_key
    with server.database.read() as connection:
        assert reasons_of(connection, [key])[key] == (f"commitment {UID} asked by a client by HTTP: alice",)


@pytest.mark.slow
def test_a_hold_for_a_client_without_a_credential_says_so(server):
    server.keep(1)
    accept(server, 1, client="")
    server.wait_for_job(UID, JobState.SUCCESS)
    key = server.version_of("1.2.3.1").version_key
    with server.database.read() as connection:
        (reason,) = reasons_of(connection, [key])[key]
    assert reason == f"commitment {UID} asked by a client by HTTP without a credential"


@pytest.mark.slow
def test_the_first_fetch_of_a_result_is_its_report(server):
    accept(server, 1)
    server.wait_for_job(UID, JobState.SUCCESS)
    first = web_result(server.database, UID)
    again = web_result(server.database, UID)
    assert (first.commitment.state, first.commitment.report_attempts) == (REPORTED, 1)
    assert again == first
    assert [(one.way, one.status) for one in server.reports(UID)] == [("web", 0)]


def test_a_result_is_not_there_before_it_is(tmp_path):
    with commitment_serving(tmp_path / "archive", runs_jobs=False) as server:
        accept(server, 1)
        result = web_result(server.database, UID)
        assert (result.commitment.state, result.instances) == (CommitmentState.RECEIVED, None)
        assert web_result(server.database, "1.2.840.2") is None


@pytest.mark.slow
def test_the_same_by_the_same_client_is_a_repeat_until_it_was_fetched(server):
    _, first = accept(server, 1, 2)
    taken, again = accept(server, 2, 1)
    assert (taken, again.commitment_key) == (Taken.REPEATED, first.commitment_key)
    server.wait_for_job(UID, JobState.SUCCESS)
    assert accept(server, 1, 2)[0] is Taken.REPEATED
    web_result(server.database, UID)
    assert accept(server, 1, 2) == (Taken.DUPLICATE, None)


@pytest.mark.parametrize(("numbers", "client"), [((1, 2), "bob"), ((1,), "alice"), ((1, 2, 2), "alice")])
def test_anything_else_with_a_known_uid_is_in_use_and_writes_nothing(server, numbers, client, monkeypatch):
    accept(server, 1, 2)
    server.wait_for_job(UID, JobState.SUCCESS)

    @contextmanager
    def forbidden():
        raise AssertionError("nothing is to be written")
        yield

    monkeypatch.setattr(server.database, "write", forbidden)
    assert accept(server, *numbers, client=client) == (Taken.DUPLICATE, None)
    monkeypatch.undo()


def test_a_uid_that_a_peer_used_is_in_use_by_http_and_its_result_is_not_shown(server):
    with RawPeer(server.port) as peer:
        peer.associate(push_model_context(), calling=b"SCANNER")
        assert ask(peer, action_data(UID, [(CT_IMAGE_STORAGE, "1.2.3.1")])).status == 0
        peer.release()
    assert accept(server, 1) == (Taken.DUPLICATE, None)
    assert web_result(server.database, UID) is None


def test_a_uid_that_was_used_by_http_is_a_duplicate_for_a_peer(server):
    accept(server, 1)
    with RawPeer(server.port) as peer:
        peer.associate(push_model_context(), calling=b"SCANNER")
        assert ask(peer, action_data(UID, [(CT_IMAGE_STORAGE, "1.2.3.1")])).status == 0
        peer.release()
    from stowkeeper.services.commitment import rows

    def duplicates():
        with server.database.read() as connection:
            found = rows.duplicates_of(connection, server.commitment(UID).commitment_key)
        return [one for one in found if one.state is CHECKED]

    (duplicate,) = server.wait(duplicates, "the duplicate's check")
    assert (duplicate.way, duplicate.failures) == ("DIMSE", 1)


@pytest.mark.slow
def test_the_version_is_the_current_one_and_a_conflict_is_told(server):
    server.keep(1, calling=b"A")
    server.keep(2, calling=b"A")
    server.keep(2, calling=b"B", content=1)
    accept(server, 1, 2)
    server.wait_for_job(UID, JobState.SUCCESS)
    found = {one.sop_instance_uid: one.reason for one in web_result(server.database, UID).instances}
    assert found == {"1.2.3.1": None, "1.2.3.2": 0x0110}


@pytest.mark.slow
def test_a_request_by_http_is_not_resent(server):
    _, commitment = accept(server, 1)
    server.wait_for_job(UID, JobState.SUCCESS)
    with server.database.write() as transaction, pytest.raises(CommitmentStateError, match="by HTTP"):
        resend(transaction, commitment.commitment_key, "operator")


@pytest.mark.slow
def test_cancelling_the_check_fails_what_is_open(tmp_path):
    with commitment_serving(tmp_path / "archive", runs_jobs=False) as server:
        server.keep(1)
        _, commitment = accept(server, 1)
        with server.database.write() as transaction:
            job_rows.cancel(transaction, commitment.job_id, "operator")
    with commitment_serving(tmp_path / "archive") as server:
        server.wait_for_job(UID, JobState.CANCELLED)
        (one,) = web_result(server.database, UID).instances
        assert (one.outcome, one.reason) == ("failed", 0x0110)


def test_what_cannot_be_written_raises(server, monkeypatch):
    @contextmanager
    def failing():
        raise DatabaseUnavailable("the disk is full")
        yield

    monkeypatch.setattr(server.database, "write", failing)
    with pytest.raises(DatabaseUnavailable):
        accept(server, 1)
    monkeypatch.undo()
    assert server.find(UID) is None


# Fetched late


def fetch_when_looked_at(server):
    """Fetch a result that is looked at again first."""
    assert web_result(server.database, UID).instances is None
    assert server.commitment(UID).state is CHECKED
    server.engine.wake()
    server.wait_for_job(UID, JobState.SUCCESS)
    return [(one.outcome, one.reason) for one in web_result(server.database, UID).instances]


def find_damage(server, number):
    path = server.path_of(f"1.2.3.{number}")
    damage(path)
    archive = server.archive
    verification = Verification(archive.files, archive.root, archive.database)
    list(verification.begin())
    assert [finding for _, finding in verification.check(verification.rows(0)) if finding]


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def remove(server, number):
    archive = server.archive
    removal = Removal(archive.files, archive.root, archive.database, override_holds=True, who="operator")
    assert removal.carry_out(removal.plan(f"1.2.3.{number}"), "removed by the test").removed


@pytest.mark.slow
@pytest.mark.parametrize(("lose", "reason"), [(find_damage, 0x0110), (remove, 0x0112)])
def test_a_first_fetch_tells_what_is_known_to_be_kept_no_more(server, lose, reason):
    """However young the check is."""
    server.keep(1, 2)
    accept(server, 1, 2)
    server.wait_for_job(UID, JobState.SUCCESS)
    lose(server, 1)
    assert fetch_when_looked_at(server) == [("failed", reason), ("committed", None)]


@pytest.mark.slow
def test_what_was_checked_long_ago_is_checked_again_before_it_is_fetched(server):
    server.keep(1, 2)
    accept(server, 1, 2)
    server.wait_for_job(UID, JobState.SUCCESS)
    server.set_back(UID, checked_at=seconds_ago(30 * 86400))
    damage(server.path_of("1.2.3.1"))  # nobody has seen it
    assert fetch_when_looked_at(server) == [("failed", 0x0110), ("committed", None)]
    assert server.commitment(UID).failures == 1


@pytest.mark.slow
def test_who_fetches_seldom_gets_a_result_all_the_same(server):
    server.keep(1)
    accept(server, 1)
    server.wait_for_job(UID, JobState.SUCCESS)
    server.set_back(UID, checked_at=seconds_ago(86400))
    assert web_result(server.database, UID).instances is None
    server.engine.wake()
    server.wait_for_job(UID, JobState.SUCCESS)
    server.set_back(UID, checked_at=seconds_ago(86400))
    assert web_result(server.database, UID).commitment.state is REPORTED


@pytest.mark.slow
def test_what_was_fetched_once_says_the_same_for_ever(server):
    server.keep(1)
    accept(server, 1)
    server.wait_for_job(UID, JobState.SUCCESS)
    first = web_result(server.database, UID)
    remove(server, 1)
    server.set_back(UID, checked_at=seconds_ago(30 * 86400))
    assert web_result(server.database, UID).instances == first.instances


@pytest.mark.slow
def test_a_result_is_looked_at_by_one_job_and_is_open_meanwhile(tmp_path):
    with commitment_serving(tmp_path / "archive") as server:
        server.keep(1)
        accept(server, 1)
        server.wait_for_job(UID, JobState.SUCCESS)
    with commitment_serving(tmp_path / "archive", runs_jobs=False) as server:
        server.set_back(UID, checked_at=seconds_ago(86400))
        assert web_result(server.database, UID).instances is None
        job_id = server.commitment(UID).job_id
        server.set_back(UID, checked_at=seconds_ago(0))  # as at the end of that look
        assert web_result(server.database, UID).instances is None
        assert server.commitment(UID).job_id == job_id


def test_a_request_whose_job_ended_unchecked_is_checked_when_it_is_made_again(tmp_path):
    with commitment_serving(tmp_path / "archive", runs_jobs=False) as server:
        server.keep(1)
        _, commitment = accept(server, 1)
        server.set_back(UID, job_id="gone")
        assert accept(server, 1)[0] is Taken.REPEATED
        again = server.commitment(UID).job_id
        assert again not in ("gone", commitment.job_id)
        assert accept(server, 1)[0] is Taken.REPEATED
        assert server.commitment(UID).job_id == again
