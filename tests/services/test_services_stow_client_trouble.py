"""The STOW-RS client with servers that are busy, slow, gone, elsewhere or lying."""

import email.utils
import threading
import time
from http import HTTPStatus
from pathlib import Path

import pytest

from stowkeeper.services.stow_client.address import read_address
from stowkeeper.services.stow_client.credentials import bearer
from stowkeeper.services.stow_client.limits import WATCH_SECONDS
from stowkeeper.services.stow_client.options import Destination, StowOptions
from stowkeeper.services.stow_client.patience import Patience
from stowkeeper.services.stow_client.sending import _Sender
from support.processes import free_port
from support.scripted_dicomweb import Act, Answer, Reply, Request, Script, module, scripted_server, store_all
from support.stowing import Seen, make_files, stow

TOKEN = bearer("secret-token")


def first(answer: Answer, times: int = 1) -> Script:
    """Answer so at first, and then keep everything."""
    return Script(answer=lambda request: answer if request.number < times else store_all(request))


def waits_of(seen: Seen) -> list[float]:
    """Return the seconds of the pauses that were told."""
    return [float(notice.split("goes on in ")[1].split(" s.")[0]) for notice in seen.notices]


# Busy


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_busy_server_is_asked_again_with_the_whole_body(tmp_path: Path, status: int) -> None:
    with scripted_server(first(Reply(status), times=3)) as server:
        seen = stow(make_files(tmp_path, 3), server.url)
    assert list(seen.results.values()) == ["stored"] * 3
    assert [request.uids for request in server.requests] == [["1.2.3.0", "1.2.3.1", "1.2.3.2"]] * 4
    assert len({len(request.body) for request in server.requests}) == 1
    assert waits_of(seen) == [0.01, 0.02, 0.04]
    assert f"busy ({status} {HTTPStatus(status).phrase})" in seen.notices[0]


def test_a_response_that_says_out_of_resources_is_asked_again(tmp_path: Path) -> None:
    no_room = module(failed={"1.2.3.0": 0xA700, "1.2.3.1": 0xA701})
    with scripted_server(first(Reply(503, no_room))) as server:
        seen = stow(make_files(tmp_path, 2), server.url)
    assert seen.results == {"0": "stored", "1": "stored"}


def test_an_instance_without_room_is_sent_again_and_others_are_not(tmp_path: Path) -> None:
    some = module("1.2.3.0", failed={"1.2.3.1": 0xA700})
    with scripted_server(first(Reply(202, some))) as server:
        seen = stow(make_files(tmp_path, 2), server.url)
    assert seen.results == {"0": "stored", "1": "stored"}
    assert server.requests[1].uids == ["1.2.3.1"]
    assert seen.of(1).attempts == 2


def test_an_instance_is_not_waited_for_longer_than_the_whole_server(tmp_path: Path) -> None:
    some = module("1.2.3.0", failed={"1.2.3.1": 0xA700})
    with scripted_server(
        Script(answer=lambda _: Reply(202, some, fields={"Retry-After": "86400"}))
    ) as server:
        seen = stow(make_files(tmp_path, 2), server.url)
    assert seen.results == {"0": "stored", "1": "failed"}
    assert seen.of(1).reason == 0xA700


def test_waits_double_up_to_a_bound_however_many_there_are() -> None:
    patience = Patience(0.0, 1e9)
    assert [patience.pause() for _ in range(2000)] == [0.0] * 2000
    patience = Patience(1.0, 1e9)
    patience._pauses = 5000
    assert patience.pause() == 60.0
    assert patience.pause() is None  # it is in the middle of that one


def test_an_instance_that_never_finds_room_fails(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        return Reply(202, module(failed=dict.fromkeys(request.uids, 0xA700)))

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 1), server.url, retries=2)
    assert seen.results == {"0": "failed"}
    assert seen.of(0).reason == 0xA700
    assert len(server.requests) == 3


@pytest.mark.slow
def test_retry_after_is_kept_to(tmp_path: Path) -> None:
    began = time.monotonic()
    with scripted_server(first(Reply(503, fields={"Retry-After": "1"}))) as server:
        seen = stow(make_files(tmp_path, 1), server.url)
    assert seen.results == {"0": "stored"}
    assert waits_of(seen) == [1]
    assert time.monotonic() - began >= 1


@pytest.mark.slow
def test_retry_after_may_be_a_time(tmp_path: Path) -> None:
    then = email.utils.formatdate(time.time() + 2, usegmt=True)
    with scripted_server(first(Reply(429, fields={"Retry-After": then}))) as server:
        seen = stow(make_files(tmp_path, 1), server.url)
    assert seen.results == {"0": "stored"}
    assert 0 < waits_of(seen)[0] <= 2


@pytest.mark.parametrize("value", ["soon", "-1", ""])
def test_a_retry_after_that_means_nothing_is_passed_over(tmp_path: Path, value: str) -> None:
    with scripted_server(first(Reply(503, fields={"Retry-After": value}))) as server:
        seen = stow(make_files(tmp_path, 1), server.url)
    assert waits_of(seen) == [0.01]


def test_a_wait_that_is_too_long_is_not_waited(tmp_path: Path) -> None:
    with scripted_server(Script(answer=lambda _: Reply(503, fields={"Retry-After": "86400"}))) as server:
        seen = stow(make_files(tmp_path, 2), server.url, instances=1)
    assert "asks to be left alone for 86400 seconds" in seen.ended_by
    assert len(server.requests) == 1
    assert seen.results == {"0": "failed", "1": "failed"}


def test_a_server_that_stays_busy_is_given_up(tmp_path: Path) -> None:
    no_room = module(failed={"1.2.3.0": 0xA700})
    with scripted_server(Script(answer=lambda _: Reply(503, no_room))) as server:
        seen = stow(make_files(tmp_path, 2), server.url, retry_seconds=0.2)
    assert len(server.requests) > 2
    assert seen.of(0).words.startswith("A700H")
    assert "tried for up to 0.2 seconds" in seen.of(1).words
    assert seen.results == {"0": "failed", "1": "failed"}


# Lost answers


@pytest.mark.parametrize(
    "broken",
    [
        Act.CLOSE,
        Reply(500),
        Reply(502),
        Reply(504),
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 5000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 " + b"x" * 20_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500 + b"\r\n",
    ],
    ids=["close", "500", "502", "504", "garbage", "short", "chunks", "interim", "long-interim", "fields"],
)
def test_what_has_no_answer_is_sent_again_one_by_one(tmp_path: Path, broken: Answer) -> None:
    with scripted_server(first(broken)) as server:
        seen = stow(make_files(tmp_path, 3), server.url)
    assert list(seen.results.values()) == ["stored"] * 3
    assert [len(request.parts) for request in server.requests] == [3, 1, 1, 1]
    assert {outcome.attempts for outcome in seen.outcomes} == {2}


def test_a_file_at_which_the_server_gives_up_is_unknown_alone(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        return Act.CLOSE if "1.2.3.1" in request.uids else store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 6), server.url, instances=3, retries=2)
    assert seen.results == {
        "0": "stored",
        "1": "unknown",
        "2": "stored",
        "3": "stored",
        "4": "stored",
        "5": "stored",
    }
    assert seen.of(1).attempts == 3
    assert seen.of(1).words == "the server closed the connection without an answer"


def test_a_server_that_answers_nothing_is_given_up(tmp_path: Path) -> None:
    with scripted_server(Script(answer=lambda _: Reply(500, b"Out of order.", "text/plain"))) as server:
        seen = stow(make_files(tmp_path, 50), server.url, retry_seconds=0.2, retries=1000)
    assert list(seen.results.values()).count("unknown") >= 20
    assert "failed" in seen.results.values()  # what was never sent
    assert any("500 Internal Server Error: “Out of order.”" in notice for notice in seen.notices)
    assert len(server.requests) < 50


def test_after_a_lost_answer_a_refusal_proves_nothing(tmp_path: Path) -> None:
    with scripted_server(
        Script(answer=lambda request: Act.CLOSE if not request.number else Reply(409))
    ) as server:
        seen = stow(make_files(tmp_path, 1), server.url)
    assert seen.results == {"0": "unknown"}
    assert seen.of(0).words == "an answer to it was lost, and then: the server answered 409 Conflict"


@pytest.mark.slow
def test_a_server_that_stands_still_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with scripted_server(first(Act.SILENCE)) as server:
        seen = stow(make_files(tmp_path, 2), server.url, seconds=0.5)
    assert seen.results == {"0": "stored", "1": "stored"}
    assert "did not answer within 0.5 seconds" in seen.notices[0]


@pytest.mark.slow
def test_an_answer_without_an_end_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    class Dripping(bytes):
        """Bytes of which the server sends one at a time."""

    began = time.monotonic()
    with scripted_server() as server:
        original = server._answer

        def drip(connection, answer) -> None:
            if not isinstance(answer, Dripping):
                original(connection, answer)
                return
            for byte in answer:
                connection.sendall(bytes([byte]))
                if server._stopping.wait(0.05):
                    return

        server._answer = drip  # type: ignore[method-assign]  # the only server that does so
        server.script = first(Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + bytes(9000)))
        seen = stow(make_files(tmp_path, 1), server.url, seconds=1)
    assert seen.results == {"0": "stored"}
    assert "did not end its answer within 1 seconds" in seen.notices[0]
    assert time.monotonic() - began < 20


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(tmp_path: Path) -> None:
    """It says keep-alive and closes, as servers do with connections that stand idle."""

    def answer(request: Request) -> Answer:
        return Reply(body=module(*request.uids)).encoded()

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 6), server.url, instances=1)
    assert list(seen.results.values()) == ["stored"] * 6
    assert {outcome.attempts for outcome in seen.outcomes} == {1}
    assert seen.notices == []
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    ],
)
def test_interim_answers_are_passed_over(tmp_path: Path, before: bytes) -> None:
    def answer(request: Request) -> Answer:
        return before + Reply(body=module(*request.uids)).encoded()

    with scripted_server(Script(answer=answer)) as server:
        assert stow(make_files(tmp_path, 2), server.url).results == {"0": "stored", "1": "stored"}


# Interrupted


def test_an_answer_that_comes_soon_after_an_interruption_still_counts(tmp_path: Path) -> None:
    files, seen = make_files(tmp_path, 5), Seen()

    def answer(request: Request) -> Answer:
        if request.number == 3:
            sender.stop()
            threading.Event().wait(WATCH_SECONDS * 3)  # the client has looked by then, and waits on
        return store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        destination = Destination(address=read_address(server.url))
        sender = _Sender(files, destination, StowOptions(instances=1), seen, None, 1)
        sender.run_lane()
        sender.abandon()
    assert seen.results == dict.fromkeys("0123", "stored")
    assert len(server.requests) == 4


# Gone


def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    port = free_port()
    seen = stow(make_files(tmp_path, 3), f"http://127.0.0.1:{port}/")
    assert seen.ended_by == f"127.0.0.1:{port} cannot be reached: nothing listens on that port."
    assert list(seen.results.values()) == ["failed"] * 3
    assert {outcome.attempts for outcome in seen.outcomes} == {0}


def test_a_name_that_nobody_knows_is_told(tmp_path: Path) -> None:
    seen = stow(make_files(tmp_path, 1), "http://nobody.invalid/")
    assert seen.ended_by == "nobody.invalid:80 cannot be reached: that name is not known."


def test_a_server_that_goes_away_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    with scripted_server() as server:

        def answer(request: Request) -> Answer:
            if request.number == 1:
                server.stop_listening()
                return Reply(body=module(*request.uids), closes=True)
            return store_all(request)

        server.script = Script(answer=answer)
        seen = stow(make_files(tmp_path, 6), server.url, instances=2, retry_seconds=0.3)
    assert list(seen.results.values()) == ["stored"] * 4 + ["failed"] * 2
    assert any(
        "cannot be reached: nothing listens on that port: sending goes on" in text for text in seen.notices
    )


# Elsewhere


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_within_the_server_is_followed(tmp_path: Path, status: int) -> None:
    """More requests at once are sent elsewhere than redirects are followed one after the other."""
    all_at_once = threading.Barrier(6)

    def answer(request: Request) -> Answer:
        if "/elsewhere/" in request.line:
            return store_all(request)
        all_at_once.wait(30)
        return Reply(status, fields={"Location": "/elsewhere/studies/"})

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 8), server.url, instances=1, parallel=6, credential=TOKEN)
    assert list(seen.results.values()) == ["stored"] * 8
    assert server.requests[-1].line == "POST /elsewhere/studies/ HTTP/1.1"
    assert server.requests[-1].fields["authorization"] == "Bearer secret-token"
    assert server.requests[-1].uids != []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_gets_neither_files_nor_credential(tmp_path: Path, status: int) -> None:
    with scripted_server() as other:
        location = {"Location": f"{other.url}/studies?session=1"}
        with scripted_server(Script(answer=lambda _: Reply(status, fields=location))) as server:
            seen = stow(make_files(tmp_path, 2), server.url, credential=TOKEN)
        assert other.connections == 0
        assert len(server.requests) == 1
    assert f"leads elsewhere ({status}, to {other.url}/studies)" in seen.ended_by
    assert seen.results == {"0": "failed", "1": "failed"}


def test_redirects_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        return Reply(307, fields={"Location": "/b/studies" if "/a/" in request.line else "/a/studies"})

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 1), server.url)
    assert "leads elsewhere (307" in seen.ended_by
    assert len(server.requests) == 4
