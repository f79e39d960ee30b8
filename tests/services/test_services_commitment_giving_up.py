"""What ends an attempt that fails for long: days by the clock and by the pauses, or a cancellation of what is done now."""

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from stowkeeper.database.schema import jobs
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.states import JobState, JobWish
from stowkeeper.services.commitment import times
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.commitment.limits import FAILURES_TO_GIVE_UP_MIN, PAUSES_TO_GIVE_UP_MIN
from stowkeeper.services.commitment.policies import CheckAnswer, PolicyOutcome
from support.commitment_server import UID, commitment_serving, dead_port, peer_at

pytestmark = pytest.mark.slow

CHECKED, UNDELIVERED = CommitmentState.CHECKED, CommitmentState.UNDELIVERED
DAYS = 7


@pytest.fixture
def failing(tmp_path):
    """Serve a transaction whose report has failed as often as it takes at least."""
    with dead_port() as port, commitment_serving(tmp_path / "archive", peer_at(port)) as server:
        server.keep(1)
        server.request()
        for number in range(1, FAILURES_TO_GIVE_UP_MIN + 2):
            fails(server, number)
        yield server


def fails(server, number):
    """Let a job that waits be tried, and wait until that has failed."""
    server.wait(lambda: len(server.reports(UID)) >= number - 1, "the tries before")
    if number > 1:
        server.hurry()
    server.wait(lambda: len(server.reports(UID)) == number, "another try")
    return server.wait_for_job(UID, JobState.RETRY, JobState.FAILURE)


@contextmanager
def days_later(monkeypatch, days):
    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=days)

    with monkeypatch.context() as patched:
        patched.setattr(times, "datetime", Later)
        yield


def test_a_clock_that_jumps_ahead_once_gives_up_no_report(failing, monkeypatch):
    with days_later(monkeypatch, 30):
        tries = len(failing.reports(UID))
        for number in range(tries + 1, tries + 4):
            assert fails(failing, number).state is JobState.RETRY
    assert failing.commitment(UID).state is CHECKED


def test_pauses_that_together_last_as_long_give_it_up(failing, monkeypatch):
    """A day each, of which an eighth of the time counts, 21 hours: the eighth of them is the last one."""
    tries = len(failing.reports(UID))
    states = []
    for day in range(1, PAUSES_TO_GIVE_UP_MIN + 1):
        with days_later(monkeypatch, day):
            states.append(fails(failing, tries + day).state)
    assert states == [JobState.RETRY] * (PAUSES_TO_GIVE_UP_MIN - 1) + [JobState.FAILURE]
    assert failing.commitment(UID).state is UNDELIVERED


def test_what_failed_of_something_else_does_not_count(failing):
    """The failures of a check do not hasten the end of its report: each counts since its own beginning."""
    with failing.database.read() as connection:
        checkpoint = json.loads(connection.execute(select(jobs.c.checkpoint)).scalar_one())
    assert checkpoint["failing"]["since"] == checkpoint["reporting_since"]
    failing.fail_often()  # since the request
    number = len(failing.reports(UID)) + 1
    long_ago = (datetime.now(UTC) - timedelta(days=2 * DAYS)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    failing.set_back(UID, checked_at=long_ago, requested_at=long_ago)
    fails(failing, number)
    with failing.database.read() as connection:
        checkpoint = json.loads(connection.execute(select(jobs.c.checkpoint)).scalar_one())
    assert checkpoint["failing"]["seconds"] < 60.0


class NotYet:
    """A policy that puts off everything."""

    name = "scripted"
    decides_on_unknown = False

    def check(self, questions, _context, _stopping):
        return [CheckAnswer(outcome=PolicyOutcome.NOT_YET) for _ in questions]


def test_after_its_check_the_report_of_a_transaction_can_be_cancelled_too(tmp_path):
    with (
        dead_port() as port,
        commitment_serving(tmp_path / "archive", peer_at(port), policy=NotYet()) as server,
    ):
        server.keep(1)
        server.request()
        job = server.wait_for_job(UID, JobState.RETRY)
        cancel(server, job.job_id)
        server.wait_for_state(UID, CHECKED)
        job = server.wait_for_job(UID, JobState.RETRY)
        assert job.wish is JobWish.NONE
        assert {one.words for one in server.instances(UID)} == {"the check was cancelled"}
        cancel(server, job.job_id)
        job = server.wait_for_job(UID, JobState.CANCELLED)
        assert job.error == "cancelled by operator"
        found = server.commitment(UID)
        assert (found.state, found.error) == (UNDELIVERED, "the report was cancelled")


def cancel(server, job_id):
    with server.database.write() as transaction:
        job_rows.cancel(transaction, job_id, "operator")
    server.engine.wake()
