"""Reports that are late, given up, cancelled or sent again by hand: what changes in them, and what never does."""

import threading
from contextlib import ExitStack

import pytest
import structlog
from sqlalchemy import select, update

from stowkeeper.archive.removal import Removal
from stowkeeper.database.schema import audit, commitments, jobs
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment.acceptance import (
    CommitmentNotFoundError,
    CommitmentStateError,
    resend,
)
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.commitment.options import CommitmentOptions
from support.commitment_server import UID, commitment_serving, dead_port, peer_at, told_of
from support.scripted_acceptor import Act, Script, scripted_acceptor

pytestmark = pytest.mark.slow

REPORTED, CHECKED, UNDELIVERED = (
    CommitmentState.REPORTED,
    CommitmentState.CHECKED,
    CommitmentState.UNDELIVERED,
)
NO_GRACE = CommitmentOptions(grace_seconds=0.0)
LATE = "2020-01-01T00:00:00.000000Z"

# Giving up, and by hand


@pytest.fixture
def undelivered(tmp_path):
    """Serve a transaction whose peer was not there for a week; gives the server, and a way to bring the peer back."""
    options = CommitmentOptions(grace_seconds=0.0, recheck_after_seconds=1e9)
    with dead_port() as port, ExitStack() as stack:
        server = stack.enter_context(commitment_serving(tmp_path / "archive", options=options))
        server.peers.save(peer_at(port), "the test")
        server.keep(1)
        server.request(numbers=(1, 2))
        server.wait_for_job(UID, JobState.RETRY)
        long_ago(server)
        server.hurry()
        server.wait_for_job(UID, JobState.FAILURE)
        yield server, stack


def long_ago(server):
    """Let the reporting have begun, and failed, long ago."""
    with server.database.write() as transaction:
        transaction.execute(
            update(jobs).values(checkpoint=f'{{"reporting_since":"{LATE}"}}', created_at=LATE)
        )
    server.fail_often(since=LATE)


def test_after_report_days_a_report_is_undelivered_and_its_job_a_failure(undelivered):
    server, _ = undelivered
    found = server.commitment(UID)
    assert (found.state, found.reported_at) == (UNDELIVERED, None)
    assert found.error.startswith("the report was given up after 7 days: 127.0.0.1:")
    with server.database.read() as connection:
        job = job_rows.find(connection, found.job_id)
    assert job is not None
    assert job.error.endswith("on that port. See to the peer, then run `stowkeeper commitments resend`")
    assert len(server.reports(UID)) == 2


def test_resend_delivers_what_was_given_up_and_the_audit_trail_says_who(undelivered):
    server, stack = undelivered
    acceptor = stack.enter_context(scripted_acceptor())
    server.peers.save(peer_at(acceptor.port), "the test")
    key = server.commitment(UID).commitment_key
    with server.database.write() as transaction:
        job_id = resend(transaction, key, "operator")
    assert server.commitment(UID).state is CHECKED
    server.hurry()
    found = server.wait_for_state(UID, REPORTED)
    assert found.job_id == job_id
    told = told_of(acceptor.received[0])
    assert ([one.sop_instance_uid for one in told.committed], told.failed[0].reason) == (["1.2.3.1"], 0x0112)
    with server.database.read() as connection:
        trail = connection.execute(select(audit).where(audit.c.action == "commitment resent")).one()
    assert (trail.who, trail.subject, trail.detail) == ("operator", UID, "scanner")


@pytest.mark.parametrize("action", ["resubmit the job", "ask again"])
def test_what_was_given_up_is_reported_too_by(undelivered, action):
    server, stack = undelivered
    acceptor = stack.enter_context(scripted_acceptor())
    server.peers.save(peer_at(acceptor.port), "the test")
    if action == "ask again":
        server.request(numbers=(2, 1))
    else:
        with server.database.write() as transaction:
            job_rows.resubmit(transaction, server.commitment(UID).job_id, "operator")
    server.hurry()
    server.wait_for_state(UID, REPORTED)
    assert len(acceptor.received) == 1


def test_a_clock_that_jumped_ahead_gives_nothing_up(tmp_path):
    with dead_port() as port, commitment_serving(tmp_path / "archive", peer_at(port)) as server:
        server.request()
        server.wait_for_job(UID, JobState.RETRY)
        with server.database.write() as transaction:
            transaction.execute(
                update(jobs).values(checkpoint=f'{{"reporting_since":"{LATE}"}}', created_at=LATE)
            )
        server.hurry()
        server.wait(lambda: len(server.reports(UID)) == 2, "another try")
        server.wait_for_job(UID, JobState.RETRY)
        assert server.commitment(UID).state is CHECKED


def test_cancelling_a_report_gives_it_up(tmp_path):
    with dead_port() as port, commitment_serving(tmp_path / "archive", peer_at(port)) as server:
        server.request()
        job = server.wait_for_job(UID, JobState.RETRY)
        with server.database.write() as transaction:
            job_rows.cancel(transaction, job.job_id, "operator")
        assert server.lanes()  # it is blocked, and what is cancelled does not wait for that
        server.wait_for_job(UID, JobState.CANCELLED)
        found = server.commitment(UID)
        assert (found.state, found.error) == (UNDELIVERED, "the report was cancelled")


def test_a_report_that_was_cancelled_can_be_resent(tmp_path):
    with ExitStack() as stack:
        server = stack.enter_context(commitment_serving(tmp_path / "archive"))
        with dead_port() as port:
            server.peers.save(peer_at(port), "the test")
            server.request()
            job = server.wait_for_job(UID, JobState.RETRY)
            with server.database.write() as transaction:
                job_rows.cancel(transaction, job.job_id, "operator")
            server.wait_for_job(UID, JobState.CANCELLED)
        acceptor = stack.enter_context(scripted_acceptor())
        server.peers.save(peer_at(acceptor.port), "the test")
        with server.database.write() as transaction:
            resend(transaction, server.commitment(UID).commitment_key, "operator")
        server.hurry()
        server.wait_for_state(UID, REPORTED)


def test_a_report_that_is_paused_waits_and_goes_on(tmp_path):
    with ExitStack() as stack:
        with dead_port() as port:
            server = stack.enter_context(commitment_serving(tmp_path / "archive"))
            server.peers.save(peer_at(port), "the test")
            server.request()
            job = server.wait_for_job(UID, JobState.RETRY)
            with server.database.write() as transaction:
                job_rows.pause(transaction, job.job_id, "operator")
        acceptor = stack.enter_context(scripted_acceptor())
        server.peers.save(peer_at(acceptor.port), "the test")
        server.hurry()
        with server.database.write() as transaction:
            key = server.commitment(UID).commitment_key
            with pytest.raises(CommitmentStateError, match="paused"):
                resend(transaction, key, "operator")
        assert acceptor.received == []
        with server.database.write() as transaction:
            job_rows.resume(transaction, job.job_id, "operator")
        server.hurry()
        server.wait_for_state(UID, REPORTED)


def test_resend_while_it_waits_is_a_try_at_once(tmp_path):
    with ExitStack() as stack:
        server = stack.enter_context(commitment_serving(tmp_path / "archive"))
        with dead_port() as port:
            server.peers.save(peer_at(port), "the test")
            server.request()
            job = server.wait_for_job(UID, JobState.RETRY)
        acceptor = stack.enter_context(scripted_acceptor())
        server.peers.save(peer_at(acceptor.port), "the test")
        with server.database.write() as transaction:
            assert resend(transaction, server.commitment(UID).commitment_key, "operator") == job.job_id
        server.wait_for_state(UID, REPORTED)


def test_resend_says_what_it_cannot_do(tmp_path):
    with commitment_serving(tmp_path / "archive", peer_at(1), runs_jobs=False) as server:
        server.request()
        key = server.commitment(UID).commitment_key
        with server.database.write() as transaction:
            with pytest.raises(CommitmentStateError, match="still being checked"):
                resend(transaction, key, "operator")
            with pytest.raises(CommitmentNotFoundError):
                resend(transaction, key + 1, "operator")


# What changes, and what never does


class Reachable:
    """A server whose peer can be taken away and brought back."""

    def __init__(self, stack, root, options=NO_GRACE):
        self.stack = stack
        self.dead = stack.enter_context(dead_port())
        self.acceptor = stack.enter_context(scripted_acceptor())
        self.server = stack.enter_context(commitment_serving(root, options=options))
        self.away()

    def away(self):
        self.server.peers.save(peer_at(self.dead), "the test")

    def back(self):
        self.server.peers.save(peer_at(self.acceptor.port), "the test")

    def tell_late(self):
        """Let the check lie long ago, and try again."""
        self.server.set_back(UID, checked_at=LATE)
        self.server.hurry()

    @property
    def reports(self):
        found = [told_of(received) for received in self.acceptor.received]
        return [
            (
                [one.sop_instance_uid.rpartition(".")[2] for one in each.committed],
                {one.reference.sop_instance_uid.rpartition(".")[2]: one.reason for one in each.failed},
            )
            for each in found
        ]


@pytest.fixture
def reachable(tmp_path):
    with ExitStack() as stack:
        yield Reachable(stack, tmp_path / "archive")


def test_a_late_report_is_checked_again_and_tells_what_turned_bad(reachable):
    server = reachable.server
    server.keep(1, 2)
    server.request(numbers=(1, 2, 3))
    server.wait_for_job(UID, JobState.RETRY)
    flip(server, 1)
    reachable.back()
    reachable.tell_late()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [(["2"], {"1": 0x0110, "3": 0x0112})]
    assert server.commitment(UID).failures == 2
    assert reachable.acceptor.received[0].message.event_type_id == 2


def flip(server, number):
    path = server.path_of(f"1.2.3.{number}")
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)


def test_a_late_report_tells_what_was_sent_again_meanwhile(reachable):
    server = reachable.server
    server.keep(1)
    server.request(numbers=(1, 2))
    server.wait_for_job(UID, JobState.RETRY)
    server.keep(2)
    reachable.back()
    reachable.tell_late()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [(["1", "2"], {})]
    assert reachable.acceptor.received[0].message.event_type_id == 1
    assert server.version_of("1.2.3.2").is_held


def test_a_late_look_is_at_the_version_that_is_held(reachable):
    """Other bytes came of others since, and who asked has sent none of both: what is held is whole, and counts."""
    server = reachable.server
    server.keep(1, calling=b"A")
    server.request()
    server.wait_for_job(UID, JobState.RETRY)
    server.keep(1, calling=b"B", content=1)
    reachable.back()
    reachable.tell_late()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [(["1"], {})]


def test_a_report_that_is_not_late_says_what_was_certain(reachable):
    server = reachable.server
    server.keep(1)
    server.request(numbers=(1, 2))
    server.wait_for_job(UID, JobState.RETRY)
    server.keep(2)
    reachable.back()
    server.hurry()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [(["1"], {"2": 0x0112})]


def test_nothing_is_read_again_for_a_peer_that_is_away_still(reachable):
    server = reachable.server
    server.keep(1)
    server.request()
    server.wait_for_job(UID, JobState.RETRY)
    with structlog.testing.capture_logs() as lines:
        for number in (2, 3):
            reachable.tell_late()
            server.wait(lambda number=number: len(server.reports(UID)) == number, "another try")
            server.wait_for_job(UID, JobState.RETRY)
    assert [line["what"] for line in lines if line["event"] == "commitment"] == ["report failed"] * 2


def test_what_the_peer_may_have_heard_does_not_turn_good_and_may_turn_bad(reachable):
    """The first report left and was not answered: the failure in it stays, and damage is told."""
    server = reachable.server
    server.keep(1, 2)
    reachable.back()
    reachable.acceptor.script = Script(answer=lambda _r: Act.CLOSE)
    server.request(numbers=(1, 2, 3))
    server.wait_for_job(UID, JobState.RETRY)
    server.keep(3)
    flip(server, 2)
    reachable.acceptor.script = Script()
    reachable.tell_late()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [(["1", "2"], {"3": 0x0112}), (["1"], {"2": 0x0110, "3": 0x0112})]


def test_a_failure_that_the_peer_may_have_heard_keeps_its_reason(reachable):
    server = reachable.server
    reachable.back()
    reachable.acceptor.script = Script(answer=lambda _r: Act.CLOSE)
    server.request(numbers=(1,))
    server.wait_for_job(UID, JobState.RETRY)
    server.keep(1)
    flip(server, 1)
    reachable.acceptor.script = Script()
    reachable.tell_late()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [([], {"1": 0x0112})] * 2


def test_a_failure_that_nobody_heard_gets_the_reason_of_now(reachable):
    server = reachable.server
    server.request(numbers=(1,))
    server.wait_for_job(UID, JobState.RETRY)
    server.keep(1)
    flip(server, 1)
    reachable.back()
    reachable.tell_late()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [([], {"1": 0x0110})]


def test_what_the_peer_may_have_heard_is_told_again_alike(reachable):
    server = reachable.server
    server.keep(1)
    reachable.back()
    reachable.acceptor.script = Script(answer=lambda _r: Act.CLOSE)
    server.request(numbers=(1, 2))
    server.wait_for_job(UID, JobState.RETRY)
    server.keep(2)
    reachable.acceptor.script = Script()
    server.hurry()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [(["1"], {"2": 0x0112})] * 2


def resend_by_hand(server):
    with server.database.write() as transaction:
        resend(transaction, server.commitment(UID).commitment_key, "operator")
    server.hurry()


@pytest.fixture
def answered(reachable):
    """Serve a transaction whose report the peer has answered: 1 and 2 are committed, 3 is not."""
    server = reachable.server
    server.keep(1, 2)
    reachable.back()
    server.request(numbers=(1, 2, 3))
    server.wait_for_state(UID, REPORTED)
    server.wait_for_job(UID, JobState.SUCCESS)
    return reachable


def test_once_answered_a_resend_says_the_same_whatever_came_since(answered):
    """It is looked at again, though: each file is read, and what is sent is what was sent."""
    server = answered.server
    before = server.commitment(UID)
    server.keep(3)
    with structlog.testing.capture_logs() as lines:
        resend_by_hand(server)
        server.wait(lambda: len(server.reports(UID)) == 2, "the resend")
        server.wait_for_job(UID, JobState.SUCCESS)
    after = server.commitment(UID)
    assert answered.reports == [(["1", "2"], {"3": 0x0112})] * 2
    assert (after.state, after.reported_at, after.checked_at) == (
        REPORTED,
        before.reported_at,
        before.checked_at,
    )
    assert (after.failures, after.error) == (1, "")
    assert "checked again" in [line["what"] for line in lines if line["event"] == "commitment"]


def test_once_answered_no_report_is_sent_again_that_would_not_be_true(answered):
    """A bit turned in a file: the peer is told neither what is not so any more nor something else."""
    server = answered.server
    before = server.commitment(UID)
    flip(server, 2)
    resend_by_hand(server)
    job = server.wait_for_job(UID, JobState.FAILURE)
    after = server.commitment(UID)
    assert len(answered.reports) == 1
    assert job.error.startswith("the peer was told that 1.2.3.2 is committed, which is not so any more (")
    assert job.error.endswith("the peer has to be told by a new request")
    assert after.error.startswith("not reported again: the peer was told that 1.2.3.2 is committed")
    assert (after.state, after.reported_at, after.failures) == (REPORTED, before.reported_at, 1)
    assert [one.outcome for one in server.instances(UID)] == ["committed", "committed", "failed"]


def remove(server, number):
    archive = server.archive
    removal = Removal(archive.files, archive.root, archive.database, override_holds=True, who="operator")
    result = removal.carry_out(removal.plan(f"1.2.3.{number}"), "removed by the test")
    assert not result.held


def test_once_answered_what_was_removed_since_is_not_reported_again(answered):
    server = answered.server
    remove(server, 1)
    with server.database.write() as transaction:
        key = server.commitment(UID).commitment_key
        with pytest.raises(
            CommitmentStateError,
            match=r"told that 1\.2\.3\.1 is committed, .*\(it was removed\).* by a new request",
        ):
            resend(transaction, key, "operator")
    assert len(answered.reports) == 1


def test_once_answered_what_was_removed_and_sent_again_is_reported_and_held(answered):
    server = answered.server
    remove(server, 1)
    server.keep(1)
    assert not server.version_of("1.2.3.1").is_held
    resend_by_hand(server)
    server.wait_for_job(UID, JobState.SUCCESS)
    assert answered.reports == [(["1", "2"], {"3": 0x0112})] * 2
    assert server.version_of("1.2.3.1").is_held


def test_what_is_removed_while_a_resend_waits_for_its_peer_is_not_reported_again(answered):
    server = answered.server
    answered.acceptor.script = Script(answer=lambda _r: Act.CLOSE)
    resend_by_hand(server)
    server.wait_for_job(UID, JobState.RETRY)
    remove(server, 1)
    answered.acceptor.script = Script()
    server.hurry()
    job = server.wait_for_job(UID, JobState.FAILURE)
    assert "(it was removed)" in job.error
    assert len(answered.reports) == 2  # the second one left before the removal, and was not answered


def test_what_was_removed_before_its_report_is_not_reported_as_committed(reachable):
    """However young the check is: its rows say that it is not so any more."""
    server = reachable.server
    server.keep(1, 2)
    server.request(numbers=(1, 2))
    server.wait_for_job(UID, JobState.RETRY)
    remove(server, 1)
    reachable.back()
    server.hurry()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [(["2"], {"1": 0x0112})]


def test_what_was_told_to_be_committed_never_becomes_other_bytes(reachable):
    """The first report left and was not answered; then what it is about was removed, and the peer sent something else."""
    server = reachable.server
    server.keep(1, 2)
    reachable.back()
    reachable.acceptor.script = Script(answer=lambda _r: Act.CLOSE)
    server.request(numbers=(1, 2))
    server.wait_for_job(UID, JobState.RETRY)
    remove(server, 1)
    server.keep(1, content=1)
    reachable.acceptor.script = Script()
    reachable.tell_late()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [(["1", "2"], {}), (["2"], {"1": 0x0110})]
    assert not server.version_of("1.2.3.1").is_held


def test_once_answered_other_bytes_do_not_stand_for_what_was_removed(answered):
    server = answered.server
    remove(server, 1)
    server.keep(1, content=1)
    with (
        server.database.write() as transaction,
        pytest.raises(CommitmentStateError, match=r"\(it was removed\)"),
    ):
        resend(transaction, server.commitment(UID).commitment_key, "operator")


def test_a_resend_of_what_was_never_answered_looks_again(undelivered):
    server, stack = undelivered
    acceptor = stack.enter_context(scripted_acceptor())
    server.peers.save(peer_at(acceptor.port), "the test")
    flip(server, 1)
    resend_by_hand(server)
    server.wait_for_state(UID, REPORTED)
    assert [one.reason for one in told_of(acceptor.received[0]).failed] == [0x0110, 0x0112]


def test_a_resend_that_fails_leaves_a_reported_transaction_reported(reachable):
    server = reachable.server
    reachable.back()
    server.request()
    before = server.wait_for_state(UID, REPORTED)
    server.wait_for_job(UID, JobState.SUCCESS)
    reachable.away()
    with server.database.write() as transaction:
        resend(transaction, before.commitment_key, "operator")
    server.hurry()
    server.wait_for_job(UID, JobState.RETRY)
    after = server.commitment(UID)
    assert (after.state, after.error, after.reported_at) == (REPORTED, "", before.reported_at)


def test_a_check_that_is_always_too_old_is_made_again_once(tmp_path):
    options = CommitmentOptions(grace_seconds=0.0, recheck_after_seconds=0.0)
    with ExitStack() as stack:
        reachable = Reachable(stack, tmp_path / "archive", options)
        server = reachable.server
        server.keep(1)
        server.request()
        server.wait_for_job(UID, JobState.RETRY)
        flip(server, 1)
        reachable.back()
        reachable.tell_late()
        server.wait_for_state(UID, REPORTED)
        assert reachable.reports == [([], {"1": 0x0110})]


def test_a_duplicate_stays_one_however_late(reachable):
    server = reachable.server
    server.keep(1)
    reachable.back()
    server.request()
    server.wait_for_state(UID, REPORTED)
    reachable.away()
    server.request()
    server.wait(server.lanes, "the duplicate's try")
    with server.database.write() as transaction:
        transaction.execute(update(commitments).values(checked_at=LATE))
    reachable.back()
    server.hurry()
    server.wait(lambda: len(reachable.reports) == 2, "the duplicate's report")
    assert reachable.reports == [(["1"], {}), ([], {"1": 0x0131})]


def test_a_late_report_of_an_unanswering_policy_waits(reachable, monkeypatch):
    """The second look fails for now: nothing is told before it succeeds."""
    server = reachable.server
    server.keep(1)
    server.request()
    server.wait_for_job(UID, JobState.RETRY)
    reachable.back()
    broken = threading.Event()

    def fail(*_arguments):
        broken.set()
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("stowkeeper.services.commitment.recheck_step.unlisted_instances", fail)
        reachable.tell_late()
        assert broken.wait(30)
        job = server.wait(
            lambda: found if "depot" in (found := server.wait_for_job(UID, JobState.RETRY)).error else None,
            "the failing look",
        )
    assert job.step == "check"
    assert reachable.reports == []
    server.hurry()
    server.wait_for_state(UID, REPORTED)
    assert reachable.reports == [(["1"], {})]
