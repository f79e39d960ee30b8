"""Nobody's storage commitment waits for all that another one asked for, nor for a file that never comes."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment import checking_step, recheck_step
from stowkeeper.services.commitment.acceptance import resend
from stowkeeper.services.commitment.checking_step import GAVE_WAY
from stowkeeper.services.commitment.commitment_values import CommitmentState, InstanceOutcome
from stowkeeper.services.commitment.limits import CHECK_TURN_SECONDS
from stowkeeper.services.commitment.policies import (
    SUCCESS,
    CheckAnswer,
    CheckContext,
    CheckQuestion,
    PolicyOutcome,
)
from support.commitment_server import UID, commitment_serving, peer_at, told_of
from support.quiet_log import quiet_log
from support.scripted_acceptor import scripted_acceptor

SECONDS = 20.0
NOT_YET = CheckAnswer(outcome=PolicyOutcome.NOT_YET, words="later")


@pytest.fixture(autouse=True)
def no_lines():
    with quiet_log():
        yield


class Asked:
    """A policy that answers by a function, and notes what it was asked."""

    name = "asked"
    decides_on_unknown = False

    def __init__(self, answer: Callable[[CheckContext, str], CheckAnswer]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, str]] = []

    def check(
        self, questions: Sequence[CheckQuestion], context: CheckContext, stopping: threading.Event
    ) -> list[CheckAnswer]:
        answers = []
        for question in questions:
            uid = question.reference.sop_instance_uid
            self.asked.append((context.transaction_uid, uid))
            answers.append(self._answer(context, uid))
        return answers


@pytest.mark.slow
def test_who_asks_for_little_waits_for_one_check_of_another_at_most(tmp_path: Path) -> None:
    places = threading.Semaphore(0)

    def answer(context: CheckContext, _uid: str) -> CheckAnswer:
        if context.peer == "hog":
            assert places.acquire(timeout=SECONDS)
        return SUCCESS

    policy = Asked(answer)
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(
            tmp_path / "archive",
            peer_at(acceptor.port),
            peer_at(acceptor.port, name="hog", ae_title="HOG"),
            policy=policy,
        ) as server,
    ):
        server.keep(1)
        server.keep(2, calling=b"HOG")
        for number in range(6):
            server.request(uid=f"1.9.{number}", numbers=(2,), calling=b"HOG")
        server.wait(lambda: len(policy.asked) == 2, "both places to be taken")
        server.request(numbers=(1,))
        places.release()
        server.wait_for_state(UID, CommitmentState.REPORTED)
        # One of the six ended, and then it was the other one's turn.
        assert sum(uid.startswith("1.9.") for uid, _ in policy.asked) <= 3
        for _ in range(6):
            places.release()
        for number in range(6):
            server.wait_for_state(f"1.9.{number}", CommitmentState.REPORTED)


# Giving way


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of one instance is a portion, and takes a whole turn."""
    assert CHECK_TURN_SECONDS == 5.0
    for module in (checking_step, recheck_step):
        monkeypatch.setattr(module, "CHECK_PORTION", 1)
        monkeypatch.setattr(module, "CHECK_TURN_SECONDS", 0.0)


@pytest.mark.slow
@pytest.mark.usefixtures("one_by_one")
def test_a_long_check_gives_way_after_each_turn_and_goes_on_where_it_was(tmp_path: Path) -> None:
    policy = Asked(lambda _context, _uid: SUCCESS)
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port), policy=policy) as server,
    ):
        server.keep(1, 2, 3, 4)
        server.request(numbers=(1, 2, 3, 4))
        server.wait_for_state(UID, CommitmentState.REPORTED)
        assert [uid for _, uid in policy.asked] == [f"1.2.3.{number}" for number in (1, 2, 3, 4)]
        assert len(told_of(acceptor.received[0]).committed) == 4
        job = server.wait_for_job(UID, JobState.SUCCESS)
        assert job.attempts == 5  # four turns, and the report
        assert GAVE_WAY not in job.checkpoint


@pytest.mark.slow
@pytest.mark.usefixtures("one_by_one")
def test_a_check_that_gave_way_knows_what_it_left_open_before(tmp_path: Path) -> None:
    """It waits for that as one which did not give way, and asks again for nothing else."""
    ready = threading.Event()

    def answer(_context: CheckContext, uid: str) -> CheckAnswer:
        return SUCCESS if ready.is_set() or not uid.endswith(".1") else NOT_YET

    policy = Asked(answer)
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port), policy=policy) as server,
    ):
        server.keep(1, 2, 3)
        server.request(numbers=(1, 2, 3))
        job = server.wait_for_job(UID, JobState.RETRY)
        assert job.error == "the policy asks to wait for 1 instance"
        assert [uid for _, uid in policy.asked] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
        ready.set()
        server.hurry()
        server.wait_for_state(UID, CommitmentState.REPORTED)
        assert [uid for _, uid in policy.asked[3:]] == ["1.2.3.1"]
        assert {one.outcome for one in server.instances(UID)} == {InstanceOutcome.COMMITTED}


@pytest.mark.slow
@pytest.mark.usefixtures("one_by_one")
def test_a_second_look_gives_way_too(tmp_path: Path) -> None:
    policy = Asked(lambda _context, _uid: SUCCESS)
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port), policy=policy) as server,
    ):
        server.keep(1, 2, 3)
        server.request(numbers=(1, 2, 3))
        server.wait_for_state(UID, CommitmentState.REPORTED)
        before = server.wait_for_job(UID, JobState.SUCCESS)
        with server.database.write() as transaction:
            resend(transaction, server.commitment(UID).commitment_key, "tester")
        server.engine.wake()
        server.wait(lambda: len(acceptor.received) == 2, "the second report")
        after = server.wait_for_job(UID, JobState.SUCCESS)
        assert after.job_id != before.job_id
        assert len(policy.asked) == 6
        assert after.attempts >= 3 + 1  # a turn for each instance, and the report


# Files that never come


@pytest.mark.slow
def test_files_that_hang_hold_up_nobody(tmp_path: Path) -> None:
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.keep(1, 2, 3, 4)
        for number in (1, 2):
            path = server.path_of(f"1.2.3.{number}")
            os.unlink(path)
            os.mkfifo(path)
        server.request(uid="1.9.1", numbers=(1, 4))
        server.request(uid="1.9.2", numbers=(2,))
        server.request(numbers=(3,))
        server.wait_for_state(UID, CommitmentState.REPORTED)
        assert len(told_of(acceptor.received[0]).committed) == 1
        # They are looked at a second time, and fail in words.
        for uid in ("1.9.1", "1.9.2"):
            job = server.wait(lambda uid=uid: looked_once(server, uid), "the first look")
            assert job.state is JobState.PENDING
        server.hurry()
        server.wait_for_state("1.9.1", CommitmentState.REPORTED)
        bad, good = server.instances("1.9.1")
        assert (bad.reason, good.outcome) == (0x0110, InstanceOutcome.COMMITTED)
        assert "it is no regular file" in bad.words


def looked_once(server, uid: str):
    job = server.wait_for_job(uid, JobState.PENDING, JobState.RUNNING)
    return job if job.state is JobState.PENDING and job.checkpoint.get("unreadable_looks") == 1 else None
