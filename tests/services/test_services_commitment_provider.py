"""The check: each outcome is reached and true, holds come with it, what may still come is waited for, and stops are clean."""

import threading

import pytest
import structlog
from sqlalchemy import select

from stowkeeper.archive.checking import CheckLevel, CheckStoppedError
from stowkeeper.archive.holding import reasons_of
from stowkeeper.archive.removal import Removal
from stowkeeper.archive.versions import find_versions, mark_damaged
from stowkeeper.database.schema import jobs
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment.checking_step import CheckStep
from stowkeeper.services.commitment.commitment_values import CommitmentState, InstanceOutcome
from stowkeeper.services.commitment.limits import CHECK_PORTION
from stowkeeper.services.commitment.options import CommitmentOptions
from stowkeeper.services.commitment.policies import (
    BuiltInPolicy,
    CheckAnswer,
    PolicyError,
    PolicyOutcome,
)
from support.archive_server import settle
from support.commitment_server import commitment_serving, seconds_ago
from support.commitment_user import named, using
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.raw_peer import Context, RawPeer

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
UID = "1.2.840.1"
REPORTED, CHECKED, RECEIVED = (
    CommitmentState.REPORTED,
    CommitmentState.CHECKED,
    CommitmentState.RECEIVED,
)
pytestmark = [pytest.mark.slow, pytest.mark.peer("pynetdicom")]


@pytest.fixture
def user():
    with using() as made:
        yield made


@pytest.fixture
def server(tmp_path, user):
    with commitment_serving(tmp_path / "archive", user.peer()) as running:
        yield running


def asked(server, user, references, uid=UID, **more):
    """Ask, and return the report that comes of it."""
    before = len(user.reports)
    assert user.ask(server.port, uid, references, **more) == 0
    return user.wait_for_reports(before + 1)[-1]


def held(server, number):
    """Return why the newest version of an instance is held."""
    key = server.version_of(f"1.2.3.{number}").version_key
    with server.database.read() as connection:
        return reasons_of(connection, [key]).get(key, ())


# Outcomes


def test_what_is_whole_is_committed_held_and_reported(server, user):
    server.keep(1, 2, 3)
    report = asked(server, user, named(3, 1, 2))
    assert (report.transaction_uid, report.event_type) == (UID, 1)
    assert report.committed == named(3, 1, 2)
    assert report.elements == {"TransactionUID", "ReferencedSOPSequence"}
    found = server.wait_for_state(UID, REPORTED)
    assert (found.failures, found.error, found.report_attempts) == (0, "", 1)
    assert found.requested_at < found.checked_at < found.reported_at
    for number in (1, 2, 3):
        assert held(server, number) == (f"commitment {UID} asked by SCANNER, of the peer scanner",)
    assert {one.version_key for one in server.instances(UID)} == {
        server.version_of(f"1.2.3.{number}").version_key for number in (1, 2, 3)
    }
    job = server.wait_for_job(UID, JobState.SUCCESS)
    assert (job.items_done, job.items_total) == (3, 3)


def test_a_log_line_tells_of_the_check_and_one_of_the_report(server, user):
    server.keep(1)
    with structlog.testing.capture_logs() as lines:
        asked(server, user, named(1, 2))
        server.wait_for_job(UID, JobState.SUCCESS)
    found = {line["what"]: line for line in lines if line["event"] == "commitment"}
    assert list(found) == ["request accepted", "checked", "reported"]
    checked, reported = found["checked"], found["reported"]
    assert (checked["transaction"], checked["instances"], checked["failures"]) == (UID, 2, 1)
    assert checked["policy"] == "digest"
    assert (reported["status"], reported["way"], reported["attempt"]) == ("0000H", "new association", 1)


def test_an_all_fail_report_has_no_referenced_sequence(server, user):
    report = asked(server, user, named(7, 8))
    assert report.event_type == 2
    assert report.failed == dict.fromkeys(named(7, 8), 0x0112)
    assert report.elements == {"TransactionUID", "FailedSOPSequence"}
    assert {one.words for one in server.instances(UID)} == {"the archive has no such instance"}


def test_a_mixed_report_has_both_and_each_instance_in_one(server, user):
    server.keep(1, 2)
    report = asked(server, user, named(2, 9, 1))
    assert report.event_type == 2
    assert (report.committed, report.failed) == (named(2, 1), {named(9)[0]: 0x0112})
    assert server.wait_for_state(UID, REPORTED).failures == 1


def test_an_instance_of_another_class_than_it_is_kept_as_is_0119(server, user):
    server.keep(1)
    report = asked(server, user, [*named(1, sop_class_uid=MR_IMAGE_STORAGE), *named(1)])
    assert report.failed == {(MR_IMAGE_STORAGE, "1.2.3.1"): 0x0119}
    assert report.committed == named(1)


@pytest.mark.parametrize("sop_class_uid", ["1.2.840.10008.1.1", "1.2.840.10008.1.20.1", "1.2.840.10008.1.2"])
def test_a_class_that_is_not_accepted_for_storage_is_0122(server, user, sop_class_uid):
    server.keep(1)
    asked_for = named(5, sop_class_uid=sop_class_uid)
    report = asked(server, user, asked_for)
    assert report.failed == {asked_for[0]: 0x0122}


def test_a_uid_that_was_used_before_is_0131_for_each_instance(server, user):
    server.keep(1, 2)
    assert asked(server, user, named(1)).event_type == 1
    server.wait_for_job(UID, JobState.SUCCESS)
    again = asked(server, user, named(1))
    assert (again.event_type, again.failed) == (2, {named(1)[0]: 0x0131})
    other = asked(server, user, named(1, 2))
    assert other.failed == dict.fromkeys(named(1, 2), 0x0131)
    assert server.commitment(UID).state is REPORTED
    assert server.commitment(UID).failures == 0
    assert held(server, 2) == ()


def test_what_was_refused_for_lack_of_room_is_0213(server, user):
    server.archive.admission.distrust("the disk failed")
    with RawPeer(server.port) as peer:
        peer.associate(calling=b"SCANNER")  # the association is refused storage, so ask the intake below it
    server.archive.admission._distrust = ""
    refuse_one(server, 1)
    server.keep(2)
    report = asked(server, user, named(1, 2, 3))
    assert report.failed == {named(1)[0]: 0x0213, named(3)[0]: 0x0112}
    assert report.committed == named(2)


def refuse_one(server, number):
    """Have an instance refused with A700H in an association that was accepted when there was room."""
    instance = make_instance(number)
    with RawPeer(server.port) as peer:
        peer.associate(Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE), calling=b"SCANNER")
        server.archive.admission._distrust = "the disk failed"
        assert peer.store(instance.sop_instance_uid, instance.data).status == 0xA700
        server.archive.admission._distrust = ""
        peer.release()
    settle(server.archive)


def test_what_was_refused_once_and_kept_later_is_committed(server, user):
    refuse_one(server, 1)
    server.keep(1)
    assert asked(server, user, named(1)).event_type == 1


def test_what_the_rows_say_is_damaged_is_0110_until_it_is_sent_again(server, user):
    server.keep(1)
    with server.database.write() as transaction:
        mark_damaged(transaction, server.version_of("1.2.3.1").path, "for the test")
    assert asked(server, user, named(1)).failed == {named(1)[0]: 0x0110}
    server.keep(1)
    assert asked(server, user, named(1), uid="1.2.840.2").event_type == 1


def test_what_was_removed_is_0112(server, user):
    server.keep(1)
    removal = Removal(server.archive.files, server.archive.root, server.database)
    removal.carry_out(removal.plan("1.2.3.1"), "by the test")
    report = asked(server, user, named(1))
    assert report.failed == {named(1)[0]: 0x0112}
    assert server.instances(UID)[0].words == "it was removed"


def test_an_instance_that_is_asked_for_twice_is_told_twice(server, user):
    server.keep(1)
    report = asked(server, user, [*named(1), *named(4), *named(1), *named(4)])
    assert report.committed == named(1, 1)
    assert report.failed == {named(4)[0]: 0x0112}
    assert [one.outcome for one in server.instances(UID)] == ["committed", "failed"] * 2


# Versions, conflicts, holds


def test_the_version_that_the_peer_sent_is_committed_and_stays_current(tmp_path):
    with using() as first, using(ae_title="OTHER") as second:
        peers = first.peer(), second.peer("other")
        with commitment_serving(tmp_path / "archive", *peers) as server:
            server.keep(1)
            own = server.version_of("1.2.3.1")
            server.keep(1, calling=b"OTHER", content=1)
            assert server.version_of("1.2.3.1").is_current
            assert asked(server, first, named(1)).event_type == 1
            with server.database.read() as connection:
                found = find_versions(connection, ["1.2.3.1"])["1.2.3.1"]
            assert [(one.version_key == own.version_key, one.is_current, one.is_held) for one in found] == [
                (True, True, True),
                (False, False, False),
            ]
            # Other bytes are promised now, so nobody is told that these are the instance.
            report = asked(server, second, named(1), uid="1.2.840.2")
            assert report.failed == {named(1)[0]: 0x0110}
            assert "committed to SCANNER" in server.instances("1.2.840.2")[0].words


def test_a_peer_that_was_renamed_is_no_other_than_the_one_it_was(tmp_path, user):
    with commitment_serving(tmp_path / "archive", user.peer("old")) as server:
        server.keep(1)
        assert asked(server, user, named(1)).event_type == 1
    with commitment_serving(tmp_path / "archive", user.peer("new")) as server:
        server.keep(1, content=1)
        assert asked(server, user, named(1), uid="1.2.840.2").event_type == 1
        with server.database.read() as connection:
            found = find_versions(connection, ["1.2.3.1"])["1.2.3.1"]
        assert [one.is_held for one in found] == [True, True]


def test_who_sent_none_of_several_versions_is_told_0110(tmp_path, user):
    with commitment_serving(tmp_path / "archive", user.peer()) as server:
        server.keep(1, calling=b"A")
        server.keep(1, calling=b"B", content=1)
        server.keep(2, calling=b"A")
        report = asked(server, user, named(1, 2))
        assert (report.committed, report.failed) == (named(2), {named(1)[0]: 0x0110})


def test_what_is_committed_is_not_removed_and_a_later_version_stands_beside_it(server, user):
    server.keep(1)
    asked(server, user, named(1))
    committed = server.version_of("1.2.3.1")
    removal = Removal(server.archive.files, server.archive.root, server.database)
    plan = removal.plan("1.2.3.1")
    assert (plan.versions, len(plan.held)) == (0, 1)
    server.keep(1, content=1)
    with server.database.read() as connection:
        found = find_versions(connection, ["1.2.3.1"])["1.2.3.1"]
    assert [(one.version_key == committed.version_key, one.is_current, one.conflict) for one in found] == [
        (True, True, True),
        (False, False, True),
    ]


class Scripted:
    """The digest check, with something done before or in place of it: `script` gets the number of the call."""

    decides_on_unknown = False
    name = "scripted"

    def __init__(self, script):
        self.script = script
        self.calls = []
        self.inner = None

    def check(self, questions, context, stopping):
        self.calls.append([question.reference.sop_instance_uid for question in questions])
        answers = self.script(len(self.calls), questions, stopping)
        return answers if answers is not None else self.inner.check(questions, context, stopping)


@pytest.fixture
def scripted(tmp_path, user):
    """Serve with a policy that does what a script says, and is the digest check otherwise."""
    running = []

    def start(script, **more):
        policy = Scripted(script)
        more.setdefault("options", CommitmentOptions(grace_seconds=0.0))
        context = commitment_serving(tmp_path / "archive", user.peer(), policy=policy, **more)
        server = context.__enter__()
        running.append(context)
        archive = server.archive
        policy.inner = BuiltInPolicy(CheckLevel.DIGEST, archive.files, archive.root, archive.database)
        return server, policy

    yield start
    for context in running:
        context.__exit__(None, None, None)


def test_a_version_that_goes_bad_between_its_check_and_its_hold_is_not_committed(scripted, user):
    def script(call, questions, _stopping):
        if call == 1:
            with server.database.write() as transaction:
                mark_damaged(transaction, server.version_of("1.2.3.1").path, "just now")
            return [CheckAnswer(outcome=PolicyOutcome.SUCCESS)] * len(questions)
        return None

    server, policy = scripted(script)
    server.keep(1, 2)
    report = asked(server, user, named(1, 2))
    assert (report.committed, report.failed) == (named(2), {named(1)[0]: 0x0110})
    assert held(server, 1) == ()
    assert len(policy.calls) == 1, "of a damaged one the policy is not asked again"


def test_a_version_that_is_replaced_while_it_is_checked_is_looked_at_again(scripted, user):
    def script(call, questions, _stopping):
        if call == 1:
            with server.database.write() as transaction:
                mark_damaged(transaction, server.version_of("1.2.3.1").path, "just now")
            server.keep(1)
            return [CheckAnswer(outcome=PolicyOutcome.PROCESSING_FAILURE, words="bad")] * len(questions)
        return None

    server, policy = scripted(script)
    server.keep(1)
    assert asked(server, user, named(1)).event_type == 1
    assert len(policy.calls) == 2
    assert held(server, 1) == (f"commitment {UID} asked by SCANNER, of the peer scanner",)


# The policy fails


def test_a_policy_that_fails_is_asked_again_and_never_a_success(scripted, user):
    works = threading.Event()

    def script(_call, _questions, _stopping):
        if not works.is_set():
            raise PolicyError("the tape library is away")

    server, policy = scripted(script)
    server.keep(1)
    assert user.ask(server.port, UID, named(1)) == 0
    job = server.wait_for_job(UID, JobState.RETRY)
    assert job.error == "the tape library is away"
    assert server.instances(UID)[0].outcome is InstanceOutcome.OPEN
    works.set()
    server.hurry()
    assert user.wait_for_reports()[0].event_type == 1
    assert len(policy.calls) == 2


@pytest.mark.parametrize("how", ["fails", "not yet"])
def test_a_policy_that_fails_for_days_makes_0110(scripted, user, how):
    def script(_call, questions, _stopping):
        if how == "fails":
            raise PolicyError("the tape library is away")
        return [CheckAnswer(outcome=PolicyOutcome.NOT_YET)] * len(questions)

    server, _ = scripted(script, options=CommitmentOptions(grace_seconds=0.0, report_days=1.0))
    server.keep(1)
    assert user.ask(server.port, UID, named(1)) == 0
    server.wait_for_job(UID, JobState.RETRY)
    server.set_back(UID, requested_at=seconds_ago(2 * 86400))
    server.hurry()  # late, but it has not failed often: a clock may have jumped
    server.wait(lambda: attempts(server) >= 2 and server.wait_for_job(UID, JobState.RETRY), "a try")
    assert server.commitment(UID).state is RECEIVED
    server.fail_often()
    server.hurry()
    (report,) = user.wait_for_reports()
    assert report.failed == {named(1)[0]: 0x0110}
    assert "could not be checked" in server.instances(UID)[0].words


def attempts(server):
    with server.database.read() as connection:
        return connection.execute(select(jobs.c.attempts)).scalar()


def test_a_file_that_cannot_be_read_is_looked_at_twice(scripted, user):
    unreadable = CheckAnswer(
        outcome=PolicyOutcome.PROCESSING_FAILURE, words="it cannot be read", is_unreadable=True
    )

    def script(call, questions, _stopping):
        if call <= 2:
            return [unreadable if q.reference.sop_instance_uid == "1.2.3.1" else SUCCESS for q in questions]
        return [unreadable] * len(questions)

    SUCCESS = CheckAnswer(outcome=PolicyOutcome.SUCCESS)  # noqa: N806 - a constant, of this test alone
    server, policy = scripted(script)
    server.keep(1, 2)
    assert user.ask(server.port, UID, named(1, 2)) == 0
    server.wait_for_job(UID, JobState.PENDING)
    server.wait(lambda: len(policy.calls) == 1 and server.wait_for_job(UID, JobState.PENDING), "a look")
    assert server.commitment(UID).state is RECEIVED
    server.hurry()
    (report,) = user.wait_for_reports()
    assert (report.committed, report.failed) == (named(2), {named(1)[0]: 0x0110})
    assert policy.calls == [["1.2.3.1", "1.2.3.2"], ["1.2.3.1"]]


# Portions, stops, pause, cancel


@pytest.mark.slow
def test_a_large_request_is_checked_portion_by_portion_and_goes_on_where_it_was(scripted, user):
    """The run is stopped in its second portion: what was certain before is not asked again."""
    at_second = threading.Event()

    def script(call, _questions, stopping):
        if call == 2:
            at_second.set()
            assert stopping.wait(30)
            raise CheckStoppedError

    numbers = range(1, 2 * CHECK_PORTION + 101)
    server, policy = scripted(script)
    server.keep(*numbers)
    assert user.ask(server.port, UID, named(*numbers)) == 0
    assert at_second.wait(30)
    with server.database.read() as connection:
        job = job_rows.find(connection, server.commitment(UID).job_id)
    assert job is not None
    assert (job.items_done, job.items_total) == (CHECK_PORTION, len(numbers))
    act(server, job_rows.pause)
    server.wait_for_job(UID, JobState.PAUSED)
    act(server, job_rows.resume)
    (report,) = user.wait_for_reports()
    assert report.committed == named(*numbers)
    assert [len(call) for call in policy.calls] == [
        CHECK_PORTION,
        CHECK_PORTION,
        CHECK_PORTION,
        100,
    ]
    assert set(policy.calls[0]).isdisjoint({uid for call in policy.calls[1:] for uid in call})


def act(server, action):
    with server.database.write() as transaction:
        action(transaction, server.commitment(UID).job_id, "somebody")
    if server.engine is not None:
        server.engine.wake()


def test_pausing_delays_check_and_report(scripted, user):
    server, policy = scripted(lambda *_: None, runs_jobs=False)
    server.keep(1)
    assert user.ask(server.port, UID, named(1)) == 0
    act(server, job_rows.pause)
    assert policy.calls == []
    assert server.wait_for_job(UID, JobState.PAUSED).state is JobState.PAUSED


def test_cancelling_a_check_reports_what_was_not_checked_as_0110(scripted, user):
    is_asked = threading.Event()

    def script(_call, _questions, stopping):
        is_asked.set()
        assert stopping.wait(30)
        raise CheckStoppedError

    server, policy = scripted(script)
    server.keep(1)
    assert user.ask(server.port, UID, [*named(1), *named(2)]) == 0
    assert is_asked.wait(30)
    act(server, job_rows.cancel)
    (report,) = user.wait_for_reports()
    assert report.failed == dict.fromkeys(named(1, 2), 0x0110)
    server.wait_for_job(UID, JobState.CANCELLED)
    assert len(policy.calls) == 1
    assert server.commitment(UID).state is REPORTED
    assert {one.words for one in server.instances(UID)} == {"the check was cancelled"}
    assert held(server, 1) == ()


def test_a_cancelled_check_is_reported_where_the_server_stopped_as_it_ended(tmp_path, user, monkeypatch):
    end, is_at_its_end = CheckStep._ended, threading.Event()

    def end_when_stopped(step):
        ending = end(step)
        is_at_its_end.set()
        assert step.run.stopping.wait(30)
        return ending

    with commitment_serving(tmp_path / "archive", user.peer(), runs_jobs=False) as server:
        server.keep(1)
        assert user.ask(server.port, UID, named(1)) == 0
        act(server, job_rows.cancel)
    with monkeypatch.context() as planted:
        planted.setattr(CheckStep, "_ended", end_when_stopped)
        with commitment_serving(tmp_path / "archive", user.peer()):
            assert is_at_its_end.wait(30)
    assert user.reports == []
    with commitment_serving(tmp_path / "archive", user.peer()) as server:
        assert user.wait_for_reports()[0].failed == {named(1)[0]: 0x0110}
        server.wait_for_job(UID, JobState.CANCELLED)
        assert server.commitment(UID).state is REPORTED


def test_cancelling_before_the_check_began_reports_as_well(tmp_path, user):
    with commitment_serving(tmp_path / "archive", user.peer(), runs_jobs=False) as server:
        server.keep(1)
        assert user.ask(server.port, UID, named(1)) == 0
        act(server, job_rows.cancel)
    with commitment_serving(tmp_path / "archive", user.peer()) as server:
        assert user.wait_for_reports()[0].failed == {named(1)[0]: 0x0110}
        server.wait_for_job(UID, JobState.CANCELLED)
