"""/jobs in Orthanc's shape: fields, states, what can be asked of a job, and the codes of the answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import update

from stowkeeper.archive.audit import list_audit
from stowkeeper.database.schema import jobs as jobs_table
from stowkeeper.dicom.commitment_information import ActionInformation, Reference
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job, JobFilter, JobRequest
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment.acceptance import Asker, take
from stowkeeper.services.peers import Peer
from stowkeeper.services.store_submission import submit_store
from stowkeeper.web import orthanc_jobs
from stowkeeper.web.roles import Role
from support.orthanc_rig import OrthancRig, orthanc_rig

pytestmark = pytest.mark.slow

PEER = Peer(name="pacs", ae_title="PACS", host="192.0.2.7", port=104, own_ae_title="ME")
UNKNOWN = "dd2e7dad-c530-4c3f-a6ff-777a1dc79b89"
ACTIONS = ("cancel", "pause", "resume", "resubmit")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive", PEER, runs_jobs=False) as running:
        yield running


def submit(rig: OrthancRig, kind: str = "verify", **more: Any) -> Job:
    with rig.database.write() as transaction:
        return jobs.submit(transaction, JobRequest(kind=kind, arguments={}, **more))


def write(rig: OrthancRig, job: Job, **columns: Any) -> None:
    """Write columns of a job, as an engine does."""
    with rig.database.write() as transaction:
        statement = update(jobs_table).where(jobs_table.c.job_id == job.job_id).values(**columns)
        transaction.execute(statement)


FINISHED_AT = "2026-01-02T03:04:05.678901Z"
STATES: dict[str, dict[str, Any]] = {
    "pending": {},
    "running": {"owner": "somebody", "started_at": FINISHED_AT, "attempts": 1},
    "paused": {},
    "retry": {"error": "nobody is there", "failures": 1, "attempts": 1},
    "success": {"finished_at": FINISHED_AT, "error": "all done"},
    "failure": {"finished_at": FINISHED_AT, "error": "it cannot be done"},
    "cancelled": {"finished_at": FINISHED_AT, "error": "cancelled by somebody"},
}


def in_state(rig: OrthancRig, state: str, **more: Any) -> Job:
    job = submit(rig, **more)
    write(rig, job, state=state, **STATES[state])
    return job


@pytest.mark.parametrize(
    ("state", "shown", "code", "description", "details"),
    [
        ("pending", "Pending", 0, "Success", ""),
        ("running", "Running", 0, "Success", ""),
        ("paused", "Paused", 0, "Success", ""),
        ("retry", "Retry", -1, "Internal error", "nobody is there"),
        ("success", "Success", 0, "Success", ""),
        ("failure", "Failure", -1, "Internal error", "it cannot be done"),
        ("cancelled", "Failure", 37, "This job was canceled", "cancelled by somebody"),
    ],
)
def test_states_and_errors(
    rig: OrthancRig, state: str, shown: str, code: int, description: str, details: str
) -> None:
    job = in_state(rig, state, priority=3, subject="1.2.3")
    told = rig.get(f"/jobs/{job.job_id}")
    is_finished = state in ("success", "failure", "cancelled")
    assert told.keys() == {
        "Content",
        "CreationTime",
        "EffectiveRuntime",
        "ErrorCode",
        "ErrorDescription",
        "ErrorDetails",
        "ID",
        "Priority",
        "Progress",
        "State",
        "Timestamp",
        "Type",
    } | ({"CompletionTime"} if is_finished else set())
    assert (told["State"], told["ErrorCode"], told["ErrorDescription"], told["ErrorDetails"]) == (
        shown,
        code,
        description,
        details,
    )
    assert (told["ID"], told["Priority"], told["Type"]) == (job.job_id, 3, "Verify")
    assert told["Progress"] == (100 if state == "success" else 0)
    assert told["Content"] == {"Description": "", "Subject": "1.2.3"}
    if is_finished:
        assert told["CompletionTime"] == "20260102T030405.678901"
    assert told["CreationTime"] <= told["Timestamp"]


def test_the_progress_and_when_it_would_end(rig: OrthancRig) -> None:
    job = in_state(rig, "running")
    write(rig, job, items_total=3, items_done=2, seconds_run=1.23456)
    told = rig.get(f"/jobs/{job.job_id}")
    assert (told["Progress"], told["EffectiveRuntime"]) == (66, 1.235)
    assert told["EstimatedTimeOfArrival"] > told["Timestamp"]
    write(rig, job, items_done=0)
    assert "EstimatedTimeOfArrival" not in rig.get(f"/jobs/{job.job_id}")


def test_a_commitment_that_was_asked_of_us(rig: OrthancRig) -> None:
    asker = Asker(
        way="DIMSE", peer="pacs", peer_ae_title="PACS", own_ae_title="CALLED", peer_address="192.0.2.7"
    )
    asked = ActionInformation("2.25.7", (Reference("1.2.840.10008.5.1.4.1.1.2", "1.2.3"),))
    with rig.database.write() as transaction:
        _, commitment = take(transaction, asker, asked)
    told = rig.get(f"/jobs/{commitment.job_id}")
    assert told["Type"] == "StorageCommitmentScp"
    assert told["Content"] == {
        "CalledAet": "CALLED",
        "Description": "",
        "RemoteAet": "PACS",
        "RemoteIp": "192.0.2.7",
        "TransactionUid": "2.25.7",
    }
    write(rig, jobs_of(rig)[0], state="retry", error="it does not answer")
    assert rig.get(f"/jobs/{commitment.job_id}")["ErrorCode"] == 9


def jobs_of(rig: OrthancRig) -> list[Job]:
    with rig.database.read() as connection:
        return jobs.list_jobs(connection, JobFilter())


def test_sending_to_a_modality(rig: OrthancRig) -> None:
    (own_id,) = rig.keep(1)
    rig.settle()
    with rig.database.write() as transaction:
        job = submit_store(transaction, PEER, ["1.2.3.1"], created_by="test")
    told = rig.get(f"/jobs/{job.job_id}")
    assert told["Type"] == "DicomModalityStore"
    assert told["Content"] == {
        "Description": "REST API",
        "FailedInstancesCount": 0,
        "InstancesCount": 1,
        "LocalAet": "ME",
        "ParentResources": [own_id],
        "RemoteAet": "PACS",
    }


def test_a_type_for_every_kind(rig: OrthancRig) -> None:
    job = submit(rig, "commitment-request", peer="pacs", subject="2.25.8")
    told = rig.get(f"/jobs/{job.job_id}")
    assert told["Type"] == "CommitmentRequest"
    assert told["Content"] == {"Description": "", "Peer": "pacs", "Subject": "2.25.8"}


# Lists.


def test_the_list_and_the_whole_list(rig: OrthancRig) -> None:
    made = sorted(in_state(rig, state).job_id for state in STATES)
    assert rig.get("/jobs") == made
    assert rig.get("/jobs/") == made
    assert [job["ID"] for job in rig.get("/jobs?expand")] == made
    assert rig.get("/jobs?since=0&limit=1") == made  # as Orthanc, which has no pages of jobs


def test_of_many_jobs_those_to_be_done_and_the_newest_of_the_others(rig: OrthancRig) -> None:
    old = [in_state(rig, "success") for _ in range(4)]
    to_do = [in_state(rig, "paused") for _ in range(3)]
    new = [in_state(rig, "failure") for _ in range(4)]
    with patch.object(orthanc_jobs, "JOBS_LISTED_MAX", 4):
        found = set(rig.get("/jobs"))
    assert found == {job.job_id for job in to_do + new}
    assert not found & {job.job_id for job in old}


# Asking something of a job.


@pytest.mark.parametrize(
    ("state", "action", "status", "after"),
    [
        ("pending", "pause", 200, "Paused"),
        ("retry", "pause", 200, "Paused"),
        ("paused", "pause", 200, "Paused"),
        ("success", "pause", 200, "Success"),
        ("failure", "pause", 200, "Failure"),
        ("paused", "resume", 200, "Pending"),
        ("pending", "resume", 400, "Pending"),
        ("running", "resume", 400, "Running"),
        ("success", "resume", 400, "Success"),
        ("failure", "resume", 400, "Failure"),
        ("failure", "resubmit", 200, "Pending"),
        ("cancelled", "resubmit", 200, "Pending"),
        ("retry", "resubmit", 200, "Pending"),
        ("pending", "resubmit", 400, "Pending"),
        ("running", "resubmit", 400, "Running"),
        ("paused", "resubmit", 400, "Paused"),
        ("success", "resubmit", 400, "Success"),
        ("success", "cancel", 200, "Success"),
        ("failure", "cancel", 200, "Failure"),
        ("running", "cancel", 200, "Running"),
    ],
)
def test_actions(rig: OrthancRig, state: str, action: str, status: int, after: str) -> None:
    job = in_state(rig, state)
    answer = rig.ask("POST", f"/jobs/{job.job_id}/{action}", b"")
    assert answer.status == status
    assert status != 200 or answer.value == {}
    assert status == 200 or answer.value["HttpStatus"] == 400
    assert rig.get(f"/jobs/{job.job_id}")["State"] == after


def test_unknown_jobs(rig: OrthancRig) -> None:
    for action in ACTIONS:
        assert rig.ask("POST", f"/jobs/{UNKNOWN}/{action}", b"").status == 400  # as Orthanc 1.10.1 does
    assert rig.ask("GET", f"/jobs/{UNKNOWN}").status == 404
    deleted = rig.ask("DELETE", f"/jobs/{UNKNOWN}")
    assert (deleted.status, deleted.value["OrthancStatus"]) == (404, 7)
    assert rig.ask("POST", f"/jobs/{UNKNOWN}/nope", b"").status == 405
    assert rig.ask("GET", "/jobs/%00").status == 404


def test_forgetting_a_job(rig: OrthancRig) -> None:
    for state in STATES:
        job = in_state(rig, state)
        answer = rig.ask("DELETE", f"/jobs/{job.job_id}")
        is_finished = state in ("success", "failure", "cancelled")
        assert answer.status == (200 if is_finished else 400)
        assert rig.ask("GET", f"/jobs/{job.job_id}").status == (404 if is_finished else 200)


def test_jobs_have_no_output(rig: OrthancRig) -> None:
    job = submit(rig)
    answer = rig.ask("GET", f"/jobs/{job.job_id}/archive")
    assert (answer.status, answer.value["Details"]) == (404, "Job has no such output: archive")
    assert rig.ask("GET", f"/jobs/{UNKNOWN}/archive").status == 404


def test_what_is_asked_is_in_the_audit_trail_and_wakes_the_engine(rig: OrthancRig) -> None:
    operator = rig.token("operator", Role.OPERATE)
    job = submit(rig)
    assert rig.ask("POST", f"/jobs/{job.job_id}/pause", b"", headers=operator).status == 200
    with rig.database.read() as connection:
        entries = [(entry.who, entry.action, entry.subject) for entry in list_audit(connection)]
    assert ("operator", "job paused", job.job_id) in entries


def test_who_reads_may_ask_nothing_of_a_job(rig: OrthancRig) -> None:
    reader = rig.token("reader", Role.READ)
    job = in_state(rig, "success")
    for action in ACTIONS:
        assert rig.ask("POST", f"/jobs/{job.job_id}/{action}", b"", headers=reader).status == 403
    assert rig.ask("DELETE", f"/jobs/{job.job_id}", headers=reader).status == 403
    assert rig.ask("GET", f"/jobs/{job.job_id}", headers=reader).status == 200


def test_a_cancelled_job_with_an_engine(tmp_path: Path) -> None:
    with orthanc_rig(tmp_path / "archive", PEER) as rig:
        (own_id,) = rig.keep(1)
        body = {"Resources": [own_id], "Asynchronous": True}
        job_id = rig.post("/modalities/pacs/store", body)["ID"]
        assert rig.post(f"/jobs/{job_id}/cancel") == {}
        told = rig.wait_for_job(job_id, "Failure")
        assert (told["ErrorCode"], told["ErrorDescription"]) == (37, "This job was canceled")
        assert rig.post(f"/jobs/{job_id}/resubmit") == {}
        rig.wait_for_job(job_id, "Pending", "Running", "Retry")


def test_all_states_are_known() -> None:
    assert {state.value for state in JobState} == set(STATES)
