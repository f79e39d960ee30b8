"""`jobs` shows what stands in the database, and changes it as the table of moves allows."""

import json
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.database.schema import jobs as jobs_table
from stowkeeper.dicom.commitment_information import ActionInformation
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import JobRequest
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment.acceptance import Asker, take
from support.catalog_rows import open_database
from support.command_line import CommandLine, keep, serving
from support.commitment_asking import references_to
from support.commitment_server import silent_port
from support.instances import make_instance
from support.job_engine_thread import wait_until

STOPPED_SECONDS_MAX = 25.0
"""How long pausing, resuming and cancelling may take together: far less than a peer that says nothing is waited for."""


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    archive = tmp_path / "archive"
    keep(archive, make_instance(1))
    return CommandLine(archive, capsys)


def submit(stow: CommandLine, *requests: JobRequest) -> list[str]:
    with open_database(stow.archive) as database, database.write() as transaction:
        return [job.job_id for job in rows.submit_many(transaction, requests)]


def state_of(stow: CommandLine, job_id: str) -> tuple[JobState, str]:
    with open_database(stow.archive) as database, database.read() as connection:
        job = rows.find(connection, job_id)
    assert job is not None
    return job.state, job.wish


def listed(stow: CommandLine, *arguments: str) -> list[str]:
    return [row["job_id"] for row in stow("jobs ls", "--json", *arguments).lines]


@pytest.mark.slow
def test_jobs_are_listed_the_newest_first_and_filtered(stow: CommandLine) -> None:
    ids = submit(
        stow,
        JobRequest(kind="verify", arguments={}),
        JobRequest(kind="store", arguments={}, peer="pacs", subject="1.2.3", items=["1.2.3.1", "1.2.3.2"]),
        JobRequest(kind="store", arguments={}, peer="other"),
    )
    assert listed(stow) == ids[::-1]
    assert listed(stow, "--kind", "store", "--peer", "pacs") == [ids[1]]
    assert listed(stow, "--subject", "1.2.3") == [ids[1]]
    assert listed(stow, "--limit", "1") == [ids[2]]
    assert stow("jobs pause", ids[0]).code == ExitCode.OK
    assert listed(stow, "--state", "paused") == [ids[0]]
    assert len(listed(stow, "--unfinished")) == 3
    shown = stow("jobs ls").out
    assert shown.splitlines()[0].split()[:4] == ["No.", "Job", "Kind", "State"]
    assert "0/2" in shown


def test_a_long_list_goes_on_behind_a_number(stow: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from stowkeeper.app.commands import jobs

    monkeypatch.setattr(jobs, "PAGE_MAX", 2)  # so that a page is read after the other
    ids = submit(stow, *(JobRequest(kind="verify", arguments={}) for _ in range(5)))[::-1]
    assert listed(stow) == ids
    first = stow("jobs ls", "--json", "--limit", "3").lines
    assert [line["job_id"] for line in first] == ids[:3]
    assert listed(stow, "--limit", "3", "--before", str(first[-1]["number"])) == ids[3:]


def test_a_job_is_shown_in_words(stow: CommandLine) -> None:
    arguments = {"uid": "1.2.3", "peer": "pacs", "commit": True, "terms": {"re_ask_times": 0}, "after": ""}
    request = JobRequest(kind="store", arguments=arguments, peer="pacs", checkpoint={"asked_after": 7})
    (job_id,) = submit(stow, request)
    with open_database(stow.archive) as database, database.write() as transaction:
        ran = update(jobs_table).where(jobs_table.c.job_id == job_id)
        transaction.execute(ran.values(seconds_run=0.053998669995053206, attempts=1, state="retry"))
    lines = stow("jobs show", job_id).out.splitlines()
    assert lines[:4] == [f"job id: {job_id}", "kind: store", "state: retry", "peer: pacs"]
    assert "asked for: uid 1.2.3, commit True" in lines
    assert "run: once, 54 ms in all" in lines
    assert not [line for line in lines if "{" in line or "faults" in line or "checkpoint" in line]
    whole = json.loads(stow("jobs show", job_id, "--json").out)
    assert whole["checkpoint"] == {"asked_after": 7}
    assert (whole["seconds_run"], whole["faults"]) == (0.054, 0)


def test_the_items_of_a_storage_commitment_are_its_instances(stow: CommandLine) -> None:
    asker = Asker(way="DIMSE", peer="ct", peer_ae_title="CT")
    information = ActionInformation("1.2.777", tuple(references_to(1, 2)))
    with open_database(stow.archive) as database, database.write() as transaction:
        _, commitment = take(transaction, asker, information)
    shown = stow("jobs show", commitment.job_id).out
    assert "  1.2.3.1  open\n  1.2.3.2  open\n" in shown
    whole = json.loads(stow("jobs show", commitment.job_id, "--json").out)
    assert [item["name"] for item in whole["items"]] == ["1.2.3.1", "1.2.3.2"]


def test_a_job_is_shown_with_its_items(stow: CommandLine) -> None:
    (job_id,) = submit(stow, JobRequest(kind="store", arguments={"peer": "pacs"}, items=["1.2.3.1"]))
    shown = stow("jobs show", job_id)
    assert shown.code == ExitCode.OK
    assert f"job id: {job_id}" in shown.out
    assert "  1.2.3.1  open" in shown.out
    whole = json.loads(stow("jobs show", job_id, "--json").out)
    assert whole["arguments"] == {"peer": "pacs"}
    assert [item["name"] for item in whole["items"]] == ["1.2.3.1"]


@pytest.mark.slow
def test_jobs_are_paused_resumed_cancelled_and_tried_again(stow: CommandLine) -> None:
    (job_id,) = submit(stow, JobRequest(kind="verify", arguments={}))
    assert stow("jobs pause", job_id).out == f"{job_id}: paused (paused)\n"
    assert state_of(stow, job_id) == (JobState.PAUSED, "")
    assert stow("jobs resume", job_id).code == ExitCode.OK
    assert state_of(stow, job_id) == (JobState.PENDING, "")
    assert stow("jobs cancel", job_id).out == f"{job_id}: cancelled (pending, to cancel)\n"
    assert state_of(stow, job_id) == (JobState.PENDING, "cancel")
    with open_database(stow.archive) as database, database.read() as connection:
        audited = connection.exec_driver_sql("SELECT action FROM audit ORDER BY audit_key").scalars().all()
    assert audited == ["job paused", "job resumed", "job cancelled"]


def test_what_cannot_be_done_is_said_and_the_others_are_done(stow: CommandLine) -> None:
    (job_id,) = submit(stow, JobRequest(kind="verify", arguments={}))
    ended = stow("jobs resume", job_id)
    assert ended.code == ExitCode.FINDINGS
    assert (
        ended.err
        == f"{job_id}: a job in state pending cannot be resumed: only one in state running or paused can\n"
    )
    ended = stow("jobs pause", "no-such-job", job_id)
    assert ended.code == ExitCode.FINDINGS
    assert "no-such-job: there is no job no-such-job" in ended.err
    assert state_of(stow, job_id) == (JobState.PAUSED, "")


def test_no_jobs_and_no_such_job_are_told(stow: CommandLine) -> None:
    ended = stow("jobs ls")
    assert (ended.code, ended.out, ended.err) == (ExitCode.OK, "", "There are no such jobs.\n")
    ended = stow("jobs show", "no-such-job")
    assert ended.code == ExitCode.NO_INPUT
    assert "There is no job no-such-job" in ended.err


def test_without_an_archive_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stow = CommandLine(tmp_path / "nowhere", capsys)
    assert stow("jobs ls").code == ExitCode.NO_INPUT
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.slow
def test_beside_a_server_a_job_is_stopped_in_the_middle_and_goes_on_as_it_is_told(
    stow: CommandLine, tmp_path: Path
) -> None:
    """The peer takes connections and says nothing, so the job stands in its step for a minute where nobody stops it."""
    with silent_port() as port, serving(stow.archive, tmp_path / "serve.log"):
        asked = stow("commit", f"PACS@127.0.0.1:{port}", "1.2.3.1", "--no-wait", "--json")
        assert asked.code == ExitCode.OK, asked.err
        (job_id,) = listed(stow, "--kind", "commitment-request")

        def is_in(state: JobState) -> None:
            wait_until(lambda: state_of(stow, job_id)[0] is state, f"the job to be {state}")

        began = time.monotonic()
        is_in(JobState.RUNNING)
        assert stow("jobs pause", job_id).code == ExitCode.OK
        is_in(JobState.PAUSED)
        assert stow("jobs resume", job_id).code == ExitCode.OK
        is_in(JobState.RUNNING)
        assert stow("jobs cancel", job_id).code == ExitCode.OK
        is_in(JobState.CANCELLED)
        assert time.monotonic() - began < STOPPED_SECONDS_MAX
        assert "was cancelled" in stow("commitments ls").out
        assert stow("jobs retry", job_id).code == ExitCode.OK
        # A transaction UID is used once: the job finds its transaction over, and says how to ask again.
        is_in(JobState.FAILURE)
        assert "commitments resend" in stow("jobs show", job_id).out
