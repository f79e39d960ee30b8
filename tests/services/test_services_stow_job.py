"""The job that stores to an origin server: with a real engine, to servers that behave well and badly."""

import base64
import datetime as dt
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

import pytest
from sqlalchemy import select

from stowkeeper.archive.versions import find_versions
from stowkeeper.database.schema import jobs as jobs_table
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job
from stowkeeper.services.limits import STORE_GIVE_UP_SECONDS, STORE_LOST_RUNS_MAX, STORE_RETRIES
from stowkeeper.services.stow_job import StowJobOptions
from support.bundled_files import file_meta
from support.command_line import keep
from support.instances import EXPLICIT_VR_LITTLE_ENDIAN, make_instance
from support.job_engine_thread import wait_until
from support.processes import free_port
from support.scripted_dicomweb import (
    Act,
    Answer,
    Reply,
    Request,
    Script,
    ScriptedServer,
    module,
    scripted_server,
    store_all,
)
from support.store_rig import STUDY
from support.stow_job_rig import StowRig, origin_server, stow_rig

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[StowRig]:
    """Give an archive with ten instances of one study."""
    with stow_rig(tmp_path / "archive", *map(make_instance, range(10))) as made:
        yield made


def times(server: ScriptedServer) -> Counter[str]:
    """Count how often each instance came, by the last number of its UID."""
    return Counter(uid.rpartition(".")[2] for uid in server.stored)


def once(*numbers: int) -> dict[str, int]:
    return dict.fromkeys(map(str, numbers), 1)


def first(answer: Answer) -> Script:
    """Answer so at first, and then keep everything."""
    return Script(answer=lambda request: answer if request.number == 0 else store_all(request))


def waits_from(rig: StowRig, job: Job) -> float:
    """Return in how many seconds a job is due, counted from the last time when its row was written."""
    with rig.database.read() as connection:
        columns = jobs_table.c.due_at, jobs_table.c.started_at
        due_at, started_at = connection.execute(
            select(*columns).where(jobs_table.c.job_key == job.job_key)
        ).one()
    return (dt.datetime.fromisoformat(due_at) - dt.datetime.fromisoformat(started_at)).total_seconds()


def has_run(rig: StowRig, job: Job, times_run: int) -> bool:
    """Tell whether a job waits after so many runs."""
    now = rig.job(job)
    return (now.attempts, now.state) == (times_run, "retry")


# Well.


def test_a_study_is_stored_and_nothing_of_our_own_goes_out_with_it(rig: StowRig) -> None:
    with scripted_server() as server:
        job = rig.submit_to(origin_server(server.url, instances=4), STUDY, priority=3)
        ended = rig.run_to_end(job)
    assert (ended.state, ended.error) == ("success", "10 instances stored")
    assert (ended.items_done, ended.items_total) == (10, 10)
    assert (job.lane, job.peer, job.priority) == ("web:cloud", "cloud", 3)
    assert [len(request.parts) for request in server.requests] == [4, 4, 2]
    assert times(server) == once(*range(10))
    with rig.database.read() as connection:
        kept = find_versions(connection, [f"1.2.3.{number}" for number in range(10)])
    for request in server.requests:
        for uid, part in zip(request.uids, request.parts, strict=True):
            number = int(uid.rpartition(".")[2])
            meta, length = file_meta(part)
            assert part[length:] == make_instance(number).data
            assert meta[0x00020003].strip(b"\0").decode() == uid
            assert meta[0x00020010].strip(b"\0").decode() == EXPLICIT_VR_LITTLE_ENDIAN
            assert not {0x00020100, 0x00020102} & set(meta)
            (version,) = kept[uid]
            assert RECEIPT_CREATOR_UID.encode() not in part
            assert version.receipt_id.encode() not in request.body
            item = rig.item(job, number)
            assert (item.outcome, item.code, item.words) == ("stored", None, f"receipt {version.receipt_id}")
            assert item.done_at is not None


def test_instances_around_the_size_of_a_piece_stay_whole(rig: StowRig) -> None:
    sizes = [262_144 - 600, 262_144, 262_146, 900_000]
    large = [make_instance(number, size=size) for number, size in enumerate(sizes, 10)]
    keep(rig.folder, *large)
    with scripted_server() as server:
        job = rig.submit_to(origin_server(server.url), *(one.sop_instance_uid for one in large))
        assert rig.run_to_end(job).state == "success"
    (request,) = server.requests
    assert [part.endswith(one.data) for part, one in zip(request.parts, large, strict=True)] == [True] * 4


def test_more_than_a_portion_is_sent(rig: StowRig) -> None:
    with scripted_server() as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        options = StowJobOptions(portion=3, back_off_seconds=0.01, write_seconds=0.02)
        assert rig.run_to_end(job, options=options).error == "10 instances stored"
    assert [len(request.parts) for request in server.requests] == [3, 3, 3, 1]


def test_a_warning_is_stored_and_is_told(rig: StowRig) -> None:
    body = module(warned={"1.2.3.1": 0xB000})
    with scripted_server(Script(answer=lambda _: Reply(202, body))) as server:
        job = rig.submit_to(origin_server(server.url), "1.2.3.1")
        assert rig.run_to_end(job).error == "1 instance stored"
    item = rig.item(job, 1)
    assert (item.outcome, item.code) == ("stored", 0xB000)
    assert item.words.endswith("; B000H the instance is kept with elements that were changed")


# What the server refuses for good, and for now.


def test_reasons_for_good_fail_and_the_others_are_tried_again(rig: StowRig) -> None:
    reasons = {"1.2.3.1": 0x0122, "1.2.3.2": 0xA900, "1.2.3.3": 0xC000, "1.2.3.4": 0xA700, "1.2.3.5": 0xA7FE}

    def answer(request: Request) -> Answer:
        if request.number:
            return store_all(request)
        stored = [uid for uid in request.uids if uid not in reasons]
        return Reply(202, module(*stored, failed=reasons), fields={"Retry-After": "600"})

    with scripted_server(Script(answer=answer)) as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        waiting = rig.run_to_end(job, "retry", "failure")
        assert (waiting.state, waiting.items_done) == ("retry", 8)
        assert waiting.error == "The server is out of resources."
        assert rig.blocked_lanes() == ["web:cloud"]
        assert rig.item(job, 4).words.startswith("A700H the server has no room for the instance at present")
        assert (rig.item(job, 4).outcome, rig.item(job, 4).code) == ("", 0xA700)
        rig.act(jobs.resubmit, job)
        ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert ended.error.startswith("3 of 10 instances were not stored: 0122H instances of this SOP class are")
    assert [(rig.item(job, number).outcome, rig.item(job, number).code) for number in (1, 2, 3)] == [
        ("failed", 0x0122),
        ("failed", 0xA900),
        ("failed", 0xC000),
    ]
    assert times(server) == {**once(*range(10)), "4": 2, "5": 2}


def test_a_failed_job_that_is_submitted_again_sends_what_failed(rig: StowRig) -> None:
    some = module(*(f"1.2.3.{number}" for number in range(10) if number != 3), failed={"1.2.3.3": 0xC000})
    with scripted_server(first(Reply(202, some))) as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        assert rig.run_to_end(job).state == "failure"
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).error == "10 instances stored"
    assert server.requests[1].uids == ["1.2.3.3"]


@pytest.mark.parametrize("status", [400, 409])
def test_the_one_that_makes_the_server_refuse_a_request_is_found_and_fails_alone(
    rig: StowRig, status: int
) -> None:
    def answer(request: Request) -> Answer:
        return Reply(status, b"no", "text/plain") if "1.2.3.4" in request.uids else store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        ended = rig.run_to_end(job)
    assert (
        ended.error
        == f"1 of 10 instances was not stored: the server answered {status} {HTTPStatus(status).phrase}: “no” (1)"
    )
    assert rig.item(job, 4).outcome == "failed"
    assert times(server)["4"] == 2


def test_a_body_that_is_too_large_goes_in_smaller_ones(rig: StowRig) -> None:
    def answer(request: Request) -> Answer:
        return Reply(413) if len(request.parts) > 3 else store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        assert rig.run_to_end(job).error == "10 instances stored"


def test_an_instance_that_is_too_large_alone_fails(rig: StowRig) -> None:
    with scripted_server(Script(answer=lambda _: Reply(413))) as server:
        job = rig.submit_to(origin_server(server.url), "1.2.3.4")
        ended = rig.run_to_end(job)
    assert (
        ended.error
        == f"the instance was not stored: the server takes no file of this size (413 {HTTPStatus(413).phrase}) (1)"
    )


# Servers that take nothing for now.


@pytest.mark.parametrize(("status", "as_user"), [(401, False), (403, True)])
def test_a_credential_that_is_not_taken_stops_the_lane_and_the_renewed_one_goes_on(
    rig: StowRig, tmp_path: Path, capfd: pytest.CaptureFixture[str], status: int, *, as_user: bool
) -> None:
    token = tmp_path / "token"
    token.write_text("token-of-yesterday\n")

    def answer(request: Request) -> Answer:
        kind, _, given = request.fields["authorization"].partition(" ")
        secret = base64.b64decode(given).decode().partition(":")[2] if as_user else given
        if secret == "token-of-today":
            return store_all(request)
        # Some servers repeat what they were asked.
        return Reply(status, f"you are {kind} {given} {secret}".encode(), "text/plain")

    with scripted_server(Script(answer=answer)) as server:
        files = {"user": "us", "password_file": str(token)} if as_user else {"token_file": str(token)}
        job = rig.submit_to(origin_server(server.url, instances=2, **files), STUDY)
        waiting = rig.run_to_end(job, "retry", "failure")
        assert (waiting.state, waiting.items_done) == ("retry", 0)
        kind = "Basic" if as_user else "Bearer"
        assert (
            f"/dicom-web/studies answered {status} {HTTPStatus(status).phrase}: “you are {kind} … …"
            in waiting.error
        )
        assert len(server.requests) == 1
        assert rig.blocked_lanes() == ["web:cloud"]
        token.write_text("token-of-today\n")
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).error == "10 instances stored"
    assert rig.blocked_lanes() == []
    told = "".join(capfd.readouterr())
    rows = rig.everything_written()
    assert b"web:cloud" in rows
    for secret in ("token-of-yesterday", "token-of-today"):
        for form in (secret, base64.b64encode(f"us:{secret}".encode()).decode()):
            assert form not in told
            assert form.encode() not in rows


def test_without_a_credential_it_is_said_how_to_give_one(rig: StowRig) -> None:
    with scripted_server(Script(answer=lambda _: Reply(401))) as server:
        job = rig.submit_to(origin_server(server.url), "1.2.3.1")
        waiting = rig.run_to_end(job, "retry", "failure")
    assert "it asks for a credential, give token_file, or user and password_file" in waiting.error


def test_a_token_that_cannot_be_read_is_waited_for(rig: StowRig, tmp_path: Path) -> None:
    path = tmp_path / "token"
    with scripted_server() as server:
        job = rig.submit_to(origin_server(server.url, token_file=str(path)), STUDY)
        waiting = rig.run_to_end(job, "retry", "failure")
        assert waiting.error == f"token_file: {path} cannot be read: No such file or directory"
        assert rig.blocked_lanes() == ["web:cloud"]
        assert server.requests == []
        path.write_text("t")
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).state == "success"
    assert server.requests[0].fields["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("busy", "words", "seconds"),
    [
        (
            Reply(503, fields={"Retry-After": "1234"}),
            "503 Service Unavailable), and asks to be left alone for 1234 s",
            1234,
        ),
        (Reply(429), "429 Too Many Requests).", 30),
        (Reply(503, fields={"Retry-After": "0"}), "503 Service Unavailable).", 30),
    ],
)
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(
    rig: StowRig, busy: Reply, words: str, seconds: float
) -> None:
    with scripted_server(first(busy)) as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        waiting = rig.run_to_end(job, "retry", "failure")
        assert len(server.requests) == 1
        assert waiting.error.startswith(f"The server is busy ({words}")
        assert rig.blocked_lanes() == ["web:cloud"]
        assert seconds - 5 < waits_from(rig, waiting) < seconds + 65
        assert set(rig.outcomes(job).values()) == {""}
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).error == "10 instances stored"


def test_the_one_at_which_a_server_is_always_busy_holds_up_no_other(rig: StowRig) -> None:
    def answer(request: Request) -> Answer:
        return Reply(503) if "1.2.3.0" in request.uids else store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        job = rig.submit_to(origin_server(server.url, instances=1), STUDY)
        assert rig.run_to_end(job, "retry", "failure").items_done == 0
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job, "retry", "failure").items_done == 9


def test_waits_for_a_server_that_takes_something_each_time_do_not_grow(rig: StowRig) -> None:
    def answer(request: Request) -> Answer:
        return Reply(503) if request.number % 2 else store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        job = rig.submit_to(origin_server(server.url, instances=2), STUDY)
        for run in (1, 2, 3):
            with rig.running():
                wait_until(partial(has_run, rig, job, run), f"run {run}")
            assert rig.job(job).items_done == 2 * run
            assert waits_from(rig, job) < 55
            rig.let_time_pass(job)


def test_a_redirect_to_another_host_is_not_followed(rig: StowRig) -> None:
    with scripted_server() as other:
        leads = Reply(308, fields={"Location": f"http://localhost:{other.port}/dicom-web/studies"})
        with scripted_server(Script(answer=lambda _: leads)) as server:
            job = rig.submit_to(origin_server(server.url), STUDY)
            waiting = rig.run_to_end(job, "retry", "failure")
        assert waiting.state == "retry"
        assert f"leads elsewhere (308, to http://localhost:{other.port}/dicom-web/studies)" in waiting.error
        assert other.connections == 0
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_holds_its_lane_up_and_is_tried_again(rig: StowRig) -> None:
    port = free_port()
    job = rig.submit_to(origin_server(f"http://127.0.0.1:{port}/"), STUDY)
    waiting = rig.run_to_end(job, "retry", "failure")
    assert waiting.state == "retry"
    assert waiting.error == f"127.0.0.1:{port} cannot be reached: nothing listens on that port."
    assert set(rig.outcomes(job).values()) == {""}
    assert rig.blocked_lanes() == ["web:cloud"]


def test_a_server_that_hangs_holds_its_lane_up(rig: StowRig) -> None:
    with scripted_server(Script(answer=lambda _: Act.SILENCE)) as server:
        job = rig.submit_to(origin_server(server.url, seconds=0.3), STUDY)
        options = StowJobOptions(back_off_seconds=0.01, write_seconds=0.02, retry_seconds=0.2)
        waiting = rig.run_to_end(job, "retry", "failure", options=options)
    assert waiting.state == "retry"
    assert "the server did not answer within 0.3 seconds" in waiting.error
    assert set(rig.outcomes(job).values()) == {""}
    assert rig.blocked_lanes() == ["web:cloud"]


@pytest.mark.parametrize(
    "garbage",
    [
        Reply(200, b"<html>welcome</html>", "text/html"),
        Reply(200, b'{"00081199": 5', "application/dicom+json"),
        Reply(204),
        b"\x15\x03\x01 what\r\n\r\n",
    ],
)
def test_garbage_for_an_answer_stores_nothing_and_fails_nothing(rig: StowRig, garbage: Answer) -> None:
    with scripted_server(Script(answer=lambda _: garbage)) as server:
        job = rig.submit_to(origin_server(server.url, instances=5), STUDY)
        options = StowJobOptions(back_off_seconds=0.01, write_seconds=0.02, retry_seconds=0.1)
        for _ in range(2):
            waiting = rig.run_to_end(job, "retry", "failure", options=options)
            assert (waiting.state, waiting.items_done) == ("retry", 0)
            rig.act(jobs.resubmit, job)
        server.script = Script()
        assert rig.run_to_end(job).error == "10 instances stored"


@pytest.mark.parametrize("status", [200, 500])
def test_an_instance_that_an_answer_leaves_out_is_sent_again(rig: StowRig, status: int) -> None:
    some = Reply(200, module(*(f"1.2.3.{number}" for number in range(9)))) if status == 200 else Reply(500)
    with scripted_server(first(some)) as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        if status == 200:
            waiting = rig.run_to_end(job, "retry", "failure")
            assert (waiting.state, waiting.items_done) == ("retry", 9)
            assert waiting.error == "1 instance was not stored yet: the server's answer does not name it."
            rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).error == "10 instances stored"
    assert times(server) == (
        {**once(*range(10)), "9": 2} if status == 200 else dict.fromkeys("0123456789", 2)
    )


def test_an_answer_that_names_none_ends_the_run_before_all_is_sent_in_vain(rig: StowRig) -> None:
    keep(rig.folder, *map(make_instance, range(10, 120)))
    with scripted_server(Script(answer=lambda _: Reply(200))) as server:
        job = rig.submit_to(origin_server(server.url, instances=10), STUDY)
        waiting = rig.run_to_end(job, "retry", "failure")
    assert waiting.error.startswith("120 instances were not stored yet: the server answered 200 OK, and")
    assert 5 <= len(server.requests) < 12


def test_a_server_that_closes_in_the_middle_gets_the_rest(rig: StowRig) -> None:
    with scripted_server(
        Script(on_head=lambda _: Act.CLOSE if len(server.requests) in {0, 2} else None)
    ) as server:
        job = rig.submit_to(origin_server(server.url, instances=4), STUDY)
        assert rig.run_to_end(job).error == "10 instances stored"


def test_an_instance_at_which_the_server_always_breaks_off_fails_alone(rig: StowRig) -> None:
    def answer(request: Request) -> Answer:
        return Act.CLOSE if "1.2.3.4" in request.uids else store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        for run in range(1, STORE_LOST_RUNS_MAX):
            waiting = rig.run_to_end(job, "retry", "failure")
            assert (waiting.state, waiting.items_done) == ("retry", 9), waiting
            assert waiting.checkpoint["lost"] == {"4": run}
            rig.act(jobs.resubmit, job)
        ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert rig.item(job, 4).words.endswith(" without an answer. It was so however often it was sent.")
    # A request on a connection that stood idle is sent once more by itself.
    assert times(server)["4"] >= STORE_LOST_RUNS_MAX * (STORE_RETRIES + 1)
    assert all(times(server)[str(number)] == 2 for number in range(10) if number != 4)


def test_it_is_given_up_after_its_time(rig: StowRig) -> None:
    def answer(request: Request) -> Answer:
        return store_all(request) if request.number == 0 else Reply(503)

    with scripted_server(Script(answer=answer)) as server:
        job = rig.submit_to(origin_server(server.url, instances=2), STUDY)
        rig.submitted_before(job, STORE_GIVE_UP_SECONDS + 600)
        ended = rig.run_to_end(job, "retry", "failure")
    assert ended.state == "failure"
    assert ended.error.startswith("8 of 10 instances were not stored: ")
    assert Counter(rig.outcomes(job).values()) == {"stored": 2, "failed": 8}
    assert ended.items_done == 10


def test_a_server_that_nobody_names_any_more_ends_the_job_with_words(rig: StowRig) -> None:
    with scripted_server() as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        found = rig.servers.pop("cloud")
        ended = rig.run_to_end(job)
        assert ended.error.startswith("there is no origin server cloud any more")
        rig.servers["cloud"] = found
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).state == "success"
