"""/api/jobs: lists, items, what can be asked of jobs, and what can be asked for."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from stowkeeper.database import schema
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import JobItem, JobRequest
from stowkeeper.jobs.states import JobState
from stowkeeper.services.archive_jobs import remove_request
from stowkeeper.services.peers import Peer
from stowkeeper.web.roles import Role
from support.orthanc_rig import orthanc_rig
from support.web_server import Rig, bearer, web_client

pytestmark = pytest.mark.slow

PEER = Peer(name="away", ae_title="AWAY", host="127.0.0.1", port=1)
NOWHERE = Peer(name="nowhere", ae_title="NOWHERE")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[httpx.Client, Rig]]:
    with web_client(tmp_path / "archive", peers=[PEER, NOWHERE]) as found:
        yield found


def submit(rig: Rig, *requests: JobRequest) -> list[str]:
    """Put jobs in; return their ids."""
    with rig.archive.database.write() as transaction:
        return [job.job_id for job in rows.submit_many(transaction, requests)]


def job(number: int = 0, **more: Any) -> JobRequest:
    """Return a request for a job that no engine knows."""
    return JobRequest(kind=more.pop("kind", "test"), arguments={"number": number}, **more)


def ids(page: dict[str, Any]) -> list[str]:
    return [one["job_id"] for one in page["items"]]


# Lists


def test_jobs_are_listed_newest_first_page_after_page(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    made = submit(rig, *(job(number) for number in range(5)))[::-1]
    page = client.get("/api/jobs?limit=2").json()
    found = ids(page)
    while page["next"]:
        page = client.get(page["next"]).json()
        found += ids(page)
    assert found == made
    assert client.get("/api/jobs?limit=5").json()["next"] is not None
    assert client.get(client.get("/api/jobs?limit=5").json()["next"]).json() == {"items": [], "next": None}


def test_filters_choose_jobs_and_stay_in_the_next_page(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    _, first, second, third = submit(
        rig,
        job(kind="c"),
        job(kind="a", peer="p&q", subject="1.2"),
        job(kind="b", peer="p&q"),
        job(kind="a", subject="1.2"),
    )
    with rig.archive.database.write() as transaction:
        rows.pause(transaction, second, "a test")
    assert ids(client.get("/api/jobs", params={"kind": "a"}).json()) == [third, first]
    assert ids(client.get("/api/jobs", params={"peer": "p&q"}).json()) == [second, first]
    assert ids(client.get("/api/jobs", params={"subject": "1.2"}).json()) == [third, first]
    assert ids(client.get("/api/jobs", params={"state": "paused"}).json()) == [second]
    assert ids(client.get("/api/jobs?state=paused&state=pending").json())[:3] == [third, second, first]
    created = client.get(f"/api/jobs/{first}").json()["created_at"]
    assert ids(client.get("/api/jobs", params={"created_to": created}).json()) == []
    assert len(ids(client.get("/api/jobs", params={"created_from": created}).json())) == 4
    page = client.get("/api/jobs", params={"peer": "p&q", "state": ["paused", "pending"], "limit": 1}).json()
    found = ids(page)
    while page["next"]:
        page = client.get(page["next"]).json()
        found += ids(page)
    assert found == [second, first]


def test_senseless_questions_are_422(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    for query in ("cursor=x", "cursor=-1", "cursor=1e3", f"cursor={'9' * 19}", "state=dead", "limit=0"):
        assert client.get(f"/api/jobs?{query}").status_code == 422, query


def test_one_job_and_its_items(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    (job_id,) = submit(rig, job(7, items=["1.2", "1.3", "1.4"], created_by="someone", priority=3))
    with rig.archive.database.write() as transaction:
        transaction.execute(update(schema.jobs).values(seconds_run=0.053998669995053206))
    found = client.get(f"/api/jobs/{job_id}").json()
    assert found["seconds_run"] == 0.054
    assert (found["kind"], found["state"], found["arguments"], found["priority"]) == (
        "test",
        "pending",
        {"number": 7},
        3,
    )
    assert (found["items_total"], found["items_done"], found["created_by"]) == (3, 0, "someone")
    assert "job_key" not in found
    page = client.get(f"/api/jobs/{job_id}/items?limit=2").json()
    assert [(one["position"], one["name"], one["outcome"]) for one in page["items"]] == [
        (0, "1.2", ""),
        (1, "1.3", ""),
    ]
    assert [one["name"] for one in client.get(page["next"]).json()["items"]] == ["1.4"]
    assert JobItem(position=0, name="").outcome == ""


def test_what_is_not_there_is_404(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    for name in (str(uuid.uuid4()), "nonsense", "%20", "x" * 64):
        assert client.get(f"/api/jobs/{name}").status_code == 404
        assert client.get(f"/api/jobs/{name}/items").status_code == 404
        assert client.delete(f"/api/jobs/{name}").status_code == 404
        for action in ("pause", "resume", "cancel", "retry"):
            assert client.post(f"/api/jobs/{name}/{action}").status_code == 404
        assert client.put(f"/api/jobs/{name}/priority", json={"priority": 1}).status_code == 404
    assert client.get(f"/api/jobs/{'x' * 65}").status_code == 422


# What is asked of them


def test_a_job_goes_through_its_states_and_each_deed_is_audited(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    token = bearer(rig.token("operator", Role.OPERATE))
    admin = bearer(rig.token("admin", Role.ADMIN))
    (job_id,) = submit(rig, job())

    def do(action: str, status: int = 200) -> dict[str, Any]:
        answer = client.post(f"/api/jobs/{job_id}/{action}", headers=token)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    assert do("pause")["state"] == "paused"
    assert "only one in state" in do("pause", 409)["detail"]
    assert do("resume")["state"] == "pending"
    assert do("retry", 409)["status"] == 409
    assert client.delete(f"/api/jobs/{job_id}", headers=token).status_code == 409
    changed = client.put(f"/api/jobs/{job_id}/priority", json={"priority": 9}, headers=token)
    assert changed.json()["priority"] == 9
    cancelled = do("cancel")
    assert (cancelled["wish"], cancelled["error"]) == ("cancel", "cancelled by operator")
    audit = client.get("/api/audit", headers=admin).json()["items"]
    assert [(one["who"], one["action"]) for one in audit if one["subject"] == job_id] == [
        ("operator", "job cancelled"),
        ("operator", "job priority 9"),
        ("operator", "job resumed"),
        ("operator", "job paused"),
    ]
    assert len(rig.woken) == 4


def test_a_priority_has_bounds(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    (job_id,) = submit(rig, job())
    for priority in (1001, -1001, "1", 1.5, None, True):
        answer = client.put(f"/api/jobs/{job_id}/priority", json={"priority": priority})
        assert answer.status_code == 422, priority


def test_a_finished_job_can_be_forgotten(tmp_path: Path) -> None:
    with orthanc_rig(tmp_path / "archive") as rig:
        with rig.database.write() as transaction:
            made = rows.submit(transaction, job(kind="store", due_at="2999-01-01T00:00:00.000000Z"))
        rig.client.post(f"/api/jobs/{made.job_id}/cancel")
        rig.wait(lambda: rig.get(f"/api/jobs/{made.job_id}")["state"] == "cancelled", "the cancellation")
        answer = rig.client.delete(f"/api/jobs/{made.job_id}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert rig.client.get(f"/api/jobs/{made.job_id}").status_code == 404


def test_many_jobs_are_changed_at_once(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    some = submit(rig, job(kind="a", peer="p"), job(kind="a"), job(kind="b", peer="p"))
    done = client.post("/api/job-actions", json={"action": "pause", "kind": "a"})
    assert done.json() == {"job_ids": [some[1], some[0]], "is_complete": True}
    assert client.post("/api/job-actions", json={"action": "pause", "kind": "a"}).json()["job_ids"] == []
    states = {one["job_id"]: one["state"] for one in client.get("/api/jobs").json()["items"]}
    assert states == {some[0]: "paused", some[1]: "paused", some[2]: "pending"}
    resumed = client.post("/api/job-actions", json={"action": "resume", "peer": "p", "state": ["paused"]})
    assert resumed.json()["job_ids"] == [some[0]]
    for wrong in (
        {},
        {"action": "explode"},
        {"action": "pause", "colour": "red"},
        {"action": "pause", "state": ["x"]},
    ):
        assert client.post("/api/job-actions", json=wrong).status_code == 422


def test_who_may_only_read_changes_nothing(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    reader = bearer(rig.token("reader", Role.READ))
    (job_id,) = submit(rig, job())
    assert client.get(f"/api/jobs/{job_id}", headers=reader).status_code == 200
    refused = [
        client.post("/api/jobs", json={"kind": "rebuild"}, headers=reader),
        client.post(f"/api/jobs/{job_id}/cancel", headers=reader),
        client.put(f"/api/jobs/{job_id}/priority", json={"priority": 1}, headers=reader),
        client.delete(f"/api/jobs/{job_id}", headers=reader),
        client.post("/api/job-actions", json={"action": "cancel"}, headers=reader),
    ]
    assert [answer.status_code for answer in refused] == [403] * 5
    assert client.get(f"/api/jobs/{job_id}", headers=reader).json()["state"] == "pending"


# What is asked for


@pytest.mark.parametrize(
    ("wanted", "arguments"),
    [
        ({"kind": "verify"}, {}),
        (
            {"kind": "verify", "study_instance_uid": "1.2", "received_from": "2026-01", "report_only": True},
            {"study_instance_uid": "1.2", "received_from": "2026-01", "report_only": True},
        ),
        ({"kind": "rebuild"}, {}),
        ({"kind": "scrub"}, {}),
        (
            {"kind": "remove", "uids": ["1.2", "1.3"], "reason": " old "},
            {"reason": "old", "override_holds": False},
        ),
    ],
)
def test_jobs_on_the_archive_are_submitted(
    served: tuple[httpx.Client, Rig], wanted: dict[str, Any], arguments: dict[str, Any]
) -> None:
    client, rig = served
    answer = client.post("/api/jobs", json=wanted)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert (found["kind"], found["state"], found["arguments"]) == (wanted["kind"], "pending", arguments)
    assert found["created_by"] == "without credential"
    assert answer.headers["location"] == f"/api/jobs/{found['job_id']}"
    assert client.get(answer.headers["location"]).json() == found
    assert len(rig.woken) == 1


def test_there_is_one_scrub(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    first, second = (client.post("/api/jobs", json={"kind": "scrub"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["job_id"] == second.json()["job_id"]


SENSELESS: tuple[object, ...] = (
    {},
    {"kind": "explode"},
    {"kind": "verify", "colour": "red"},
    {"kind": "verify", "bytes_per_second": 1},
    {"kind": "verify", "report_only": 1},
    {"kind": "verify", "study_instance_uid": "1.x"},
    {"kind": "remove", "uids": [], "reason": "x"},
    {"kind": "remove", "uids": ["1.2"]},
    {"kind": "remove", "uids": ["1.2"], "reason": "  "},
    {"kind": "remove", "uids": ["1.2"], "reason": "x" * 301},
    {"kind": "remove", "uids": "1.2", "reason": "x"},
    {"kind": "remove", "uids": ["1.2" * 30], "reason": "x"},
    {"kind": "store", "peer": "away"},
    {"kind": "store", "peer": "", "uids": ["1.2"]},
    {"kind": "store", "peer": "away", "uids": ["1.2"], "priority": 5000},
    [],
    "verify",
    None,
)


def test_a_job_that_makes_no_sense_is_422(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    for wanted in SENSELESS:
        answer = client.post("/api/jobs", json=wanted)
        assert answer.status_code == 422, wanted
        assert answer.json()["errors"]
    assert client.get("/api/jobs").json()["items"] == []


def test_ten_thousand_uids_fit_and_one_more_does_not(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    uids = [f"1.2.{'9' * 50}.{number:05}" for number in range(10_000)]
    answer = client.post("/api/jobs", json={"kind": "remove", "uids": uids, "reason": "x"})
    assert answer.status_code == 201
    assert answer.json()["items_total"] == 10_000
    more = client.post("/api/jobs", json={"kind": "remove", "uids": [*uids, "1.2"], "reason": "x"})
    assert more.status_code == 422


def test_holds_are_overridden_by_administrators_alone(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    wanted = {"kind": "remove", "uids": ["1.2"], "reason": "x", "override_holds": True}
    operator, admin = bearer(rig.token("operator", Role.OPERATE)), bearer(rig.token("admin", Role.ADMIN))
    assert client.post("/api/jobs", json=wanted, headers=operator).status_code == 403
    made = client.post("/api/jobs", json=wanted, headers=admin)
    assert (made.status_code, made.json()["created_by"]) == (201, "admin")


def test_a_removal_that_overrides_holds_goes_on_for_administrators_alone(
    served: tuple[httpx.Client, Rig],
) -> None:
    client, rig = served
    plain, override = submit(
        rig,
        *(
            remove_request(["1.2"], reason="x", created_by="admin", override_holds=flag)
            for flag in (False, True)
        ),
    )
    with rig.archive.database.write() as transaction:  # as a person may have written it
        written = {"arguments": "no JSON", "state": "cancelled"}
        (broken,) = [one.job_id for one in rows.submit_many(transaction, [job()])]
        transaction.execute(update(schema.jobs).where(schema.jobs.c.job_id == broken).values(**written))
    operator, admin = bearer(rig.token("operator", Role.OPERATE)), bearer(rig.token("admin", Role.ADMIN))

    def act(path: str, headers: dict[str, str]) -> httpx.Response:
        answer = client.post(f"/{path}", headers=headers)
        if answer.status_code == 403:
            assert "needs the role admin" in answer.text
        return answer

    def many(action: str, headers: dict[str, str]) -> list[str]:
        wanted = {"action": action, "kind": "remove"}
        answer = client.post("/api/job-actions", json=wanted, headers=headers).json()
        assert answer["is_complete"]
        return sorted(answer["job_ids"])

    def stop(state: JobState) -> None:  # as an engine does
        with rig.archive.database.write() as transaction:
            removals = update(schema.jobs).where(schema.jobs.c.kind == "remove")
            transaction.execute(removals.values(state=state))

    for state, goes_on in ((JobState.CANCELLED, "resubmit"), (JobState.PAUSED, "resume")):
        native = "retry" if goes_on == "resubmit" else goes_on
        stop(state)
        for path in (f"api/jobs/{override}/{native}", f"jobs/{override}/{goes_on}"):
            assert act(path, operator).status_code == 403
        assert many(goes_on, operator) == [plain]
        assert client.get(f"/api/jobs/{override}", headers=operator).json()["state"] == state
        assert act(f"api/jobs/{override}/{native}", admin).status_code == 200
        stop(state)
        assert act(f"jobs/{override}/{goes_on}", admin).status_code == 200
        stop(state)
        assert many(goes_on, admin) == sorted([plain, override])
    # To stop it needs no more than the role operate.
    assert many("pause", operator) == sorted([plain, override])
    assert act("api/jobs/unknown/retry", operator).status_code == 404
    assert act("jobs/unknown/resubmit", operator).status_code == 400
    again = client.post("/api/job-actions", json={"action": "resubmit", "kind": "test"}, headers=operator)
    assert again.json()["job_ids"] == [broken]


def test_sending_needs_a_peer_that_can_be_called_and_something_to_send(tmp_path: Path) -> None:
    with orthanc_rig(tmp_path / "archive", PEER, NOWHERE, runs_jobs=False) as rig:
        rig.keep(1, 2)
        rig.settle()

        def store(**more: Any) -> httpx.Response:
            wanted = {"kind": "store", "peer": "away", "uids": ["1.2.10"], **more}
            return rig.client.post("/api/jobs", json=wanted)

        made = store(commit=True, priority=5)
        assert made.status_code == 201, made.text
        found = made.json()
        assert (found["kind"], found["peer"], found["lane"], found["priority"]) == (
            "store",
            "away",
            "peer:away",
            5,
        )
        assert found["items_total"] == 2
        assert store(peer="stranger").status_code == 404
        assert store(peer="nowhere").status_code == 409
        missing = store(uids=["1.2.10", "1.2.99"])
        assert missing.status_code == 404
        assert "1.2.99" in missing.json()["detail"]


def test_what_was_sent_is_told_item_by_item(tmp_path: Path) -> None:
    with orthanc_rig(tmp_path / "other", ae_title="OTHER", runs_jobs=False) as other:
        peer = Peer(name="other", ae_title="STOWKEEPER", host="127.0.0.1", port=other.port)
        with orthanc_rig(tmp_path / "archive", peer) as rig:
            rig.keep(1, 2)
            rig.settle()
            made = rig.client.post(
                "/api/jobs", json={"kind": "store", "peer": "other", "uids": ["1.2.10"]}
            ).json()
            path = f"/api/jobs/{made['job_id']}"
            rig.wait(lambda: rig.get(path)["state"] == JobState.SUCCESS, "the job")
            items = rig.get(f"{path}/items")["items"]
            assert {one["name"] for one in items} == {"1.2.3.1", "1.2.3.2"}
            assert all(one["code"] == 0 and one["done_at"] for one in items)
            other.settle()
            assert len(other.get("/api/instances")["items"]) == 2
