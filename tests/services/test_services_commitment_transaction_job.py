"""The one job of a transaction: who puts in another, when, and what that one tells the peer."""

import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete

from stowkeeper.database.schema import job_lanes
from stowkeeper.jobs import endings
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment.acceptance import resend
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.commitment.policies import SUCCESS
from stowkeeper.services.commitment.reporting import Reporter
from support.commitment_server import UID, commitment_serving, dead_port, peer_at, told_of
from support.scripted_acceptor import scripted_acceptor

pytestmark = pytest.mark.slow

REPORTED, RECEIVED = CommitmentState.REPORTED, CommitmentState.RECEIVED
LATE = "2020-01-01T00:00:00.000000Z"
FAULTS_MAX = 3


class Policy:
    """Commits everything, unless it is broken."""

    name = "scripted"
    decides_on_unknown = False

    def __init__(self):
        self.is_broken = True

    def check(self, questions, _context, _stopping):
        if self.is_broken:
            raise MemoryError
        return [SUCCESS for _ in questions]


@pytest.fixture
def failed(tmp_path, monkeypatch):
    """Serve a transaction whose check failed until its job did; gives the server and what is to be told of its reports."""
    monkeypatch.setattr(endings, "EXCEPTIONS_MAX", FAULTS_MAX)  # each of them is waited for
    policy = Policy()
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port), policy=policy) as server,
    ):
        server.keep(1)
        server.request()
        for number in range(1, FAULTS_MAX):
            server.wait(
                lambda number=number: server.wait_for_job(UID, JobState.RETRY).faults == number, "a failure"
            )
            server.hurry()
        server.wait_for_job(UID, JobState.FAILURE)
        assert server.commitment(UID).state is RECEIVED
        policy.is_broken = False
        yield server, acceptor


def job_of(server, job_id):
    with server.database.read() as connection:
        return job_rows.find(connection, job_id)


def open_lanes(server):
    """Let each job run when it is due, though its peer was away a moment ago."""
    with server.database.write() as transaction:
        transaction.execute(delete(job_lanes))
    server.engine.wake()


def resend_it(server):
    with server.database.write() as transaction:
        job_id = resend(transaction, server.commitment(UID).commitment_key, "operator")
    server.engine.wake()
    return job_id


def test_a_request_whose_job_failed_is_checked_when_it_is_asked_for_again(failed):
    server, acceptor = failed
    server.request()
    server.wait_for_state(UID, REPORTED)
    assert [len(told_of(one).committed) for one in acceptor.received] == [1]


def test_a_request_whose_job_is_gone_is_checked_when_it_is_asked_for_again(failed):
    server, _ = failed
    with server.database.write() as transaction:
        job_rows.delete(transaction, server.commitment(UID).job_id, "operator")
    server.request()
    server.wait_for_state(UID, REPORTED)


def test_a_request_whose_job_failed_can_be_resent(failed):
    server, acceptor = failed
    resend_it(server)
    server.wait_for_state(UID, REPORTED)
    server.wait_for_job(UID, JobState.SUCCESS)
    assert len(acceptor.received) == 1


@pytest.fixture
def given_up(tmp_path):
    """Serve a transaction whose report was given up, and whose peer is away still; gives a way to bring that back."""
    with ExitStack() as stack:
        server = stack.enter_context(commitment_serving(tmp_path / "archive"))
        port = stack.enter_context(dead_port())
        server.peers.save(peer_at(port), "the test")
        server.keep(1)
        server.request()
        cancelled = server.wait_for_job(UID, JobState.RETRY)
        with server.database.write() as transaction:
            job_rows.cancel(transaction, cancelled.job_id, "operator")
        server.wait_for_job(UID, JobState.CANCELLED)

        def come_back():
            acceptor = stack.enter_context(scripted_acceptor())
            server.peers.save(peer_at(acceptor.port), "the test")
            server.hurry()
            return acceptor

        yield server, cancelled.job_id, come_back


def test_no_second_job_is_made_beside_one_that_was_tried_again(given_up):
    server, job_id, come_back = given_up
    with server.database.write() as transaction:
        job_rows.resubmit(transaction, job_id, "operator")
    server.engine.wake()
    server.wait_for_job(UID, JobState.RETRY)
    server.set_back(UID, state="undelivered")  # as it stands before that try has ended
    server.request()
    assert server.commitment(UID).job_id == job_id
    acceptor = come_back()
    server.wait_for_state(UID, REPORTED)
    assert len(acceptor.received) == 1


def test_a_job_whose_place_was_taken_does_nothing_when_it_is_tried_again(given_up):
    server, job_id, come_back = given_up
    server.request()
    assert (taken_by := server.commitment(UID).job_id) != job_id
    open_lanes(server)
    server.wait_for_job(UID, JobState.RETRY)
    attempts = len(server.reports(UID))
    with server.database.write() as transaction:
        job_rows.resubmit(transaction, job_id, "operator")
    open_lanes(server)
    former = server.wait(
        lambda: found if (found := job_of(server, job_id)).is_finished else None, "the former job"
    )
    assert former.error == f"job {taken_by} has taken its place"
    assert len(server.reports(UID)) == attempts
    come_back()
    server.wait_for_state(UID, REPORTED)
    server.wait_for_job(UID, JobState.SUCCESS)


def test_who_asks_again_between_its_answer_and_our_note_of_that_is_told_again(tmp_path, monkeypatch):
    is_answered, goes_on = threading.Event(), threading.Event()
    write = Reporter._write_delivery

    def write_late(self, *arguments):
        is_answered.set()
        assert goes_on.wait(30)
        write(self, *arguments)

    monkeypatch.setattr(Reporter, "_write_delivery", write_late)
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.keep(1)
        server.request(numbers=(1, 2))
        assert is_answered.wait(30)
        first = server.commitment(UID).job_id
        server.request(numbers=(1, 2))
        server.request(numbers=(1, 2))  # a third job would be one too many
        goes_on.set()
        server.wait(lambda: job_of(server, first).state is JobState.SUCCESS, "the first report")
        server.wait_for_job(UID, JobState.SUCCESS)
        told = [told_of(one) for one in acceptor.received]
        assert len(told) == 2
        assert told[0] == told[1]
        assert server.commitment(UID).state is REPORTED


def test_who_asks_again_before_a_report_has_left_is_told_once(tmp_path, monkeypatch):
    """It cannot be known then, so there is another job; that sees what the peer has answered since."""
    is_about_to, goes_on = threading.Event(), threading.Event()
    note = Reporter._note

    def note_late(self, *arguments):
        is_about_to.set()
        assert goes_on.wait(30)
        return note(self, *arguments)

    monkeypatch.setattr(Reporter, "_note", note_late)
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.keep(1)
        server.request()
        assert is_about_to.wait(30)
        first = server.commitment(UID).job_id
        server.request()
        assert server.commitment(UID).job_id != first
        goes_on.set()
        server.wait_for_job(UID, JobState.SUCCESS)
        assert len(acceptor.received) == 1


@pytest.mark.parametrize("hours", [-0.5, 0.5])
def test_a_resend_is_sent_though_the_clock_was_set(tmp_path, hours):
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.keep(1)
        server.request()
        server.wait_for_job(UID, JobState.SUCCESS)
        server.database._clock = lambda: (datetime.now(UTC) + timedelta(hours=hours)).strftime(
            "%Y-%m-%dT%H:%M:%S.%fZ"
        )
        resend_it(server)
        server.wait(lambda: (server.hurry(), len(acceptor.received) == 2)[1], "the resend")
        server.wait_for_job(UID, JobState.SUCCESS)
        assert told_of(acceptor.received[0]) == told_of(acceptor.received[1])
