"""Bodies that a thread of its own reads from the connection: what was on the way when it took over, and what follows."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.services.store_request import StoreRequest
from stowkeeper.web import connection, socket_body, studies_routes
from stowkeeper.web import server as web_server
from stowkeeper.web.body_threads import BodyThreads
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.server import ServerTLS
from stowkeeper.web.services import DICOMwebOptions, WebOptions
from stowkeeper.web.socket_body import SocketBody
from support.archive_server import depot_leftovers, open_archive, requests
from support.instances import make_instance
from support.job_engine_thread import wait_until
from support.live_folder import contents_below
from support.orthanc_rig import part10_of
from support.store_lines import StoreServer, chunk, head, store_server
from support.stow_bodies import RELATED, answer_of, body_of, closing, part
from support.tls_fixtures import TLSFiles
from support.web_server import web_client, web_rig, web_serving
from support.web_sockets import connect, read_all, read_one, status_of

pytestmark = pytest.mark.slow

FILES = [part10_of(make_instance(number, size=300_000)) for number in (1, 2, 3, 4)]
UIDS = ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4"]
LARGE = [part10_of(make_instance(number, size=3_000_000)) for number in (1, 2)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with store_server(tmp_path_factory.mktemp("body") / "archive") as server:
        yield server


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how much was left of each body when it was taken, as it becomes known."""
    seen: list[int] = []
    pieces = SocketBody.pieces

    def told(body: SocketBody) -> Iterator[bytes]:
        assert threading.current_thread() is not threading.main_thread()
        seen.append(body.left)
        return pieces(body)

    monkeypatch.setattr(SocketBody, "pieces", told)
    return seen


def stored_of(answer: bytes) -> list[str]:
    assert status_of(answer) == 200, answer
    return answer_of(answer[answer.index(b"{") :]).stored


def test_requests_that_follow_in_the_same_breath_are_answered_in_order(
    server: StoreServer, taken: list[int]
) -> None:
    """Bodies of both framings, taken and not: each ends where it says, and what is behind it is the next request."""
    body, other = body_of(*FILES), body_of(FILES[0])
    content = [
        head(len(body)) + body,
        head(None) + chunk(body) + chunk(b""),
        head(len(body)) + body,
        head(len(other)) + other,
    ]
    with connect(server.thread) as sock:
        sender = threading.Thread(target=sock.sendall, args=(b"".join(content),), daemon=True)
        sender.start()
        answers = read_answers(sock, len(content))
        sender.join(30)
    assert [stored_of(answer) for answer in answers] == [UIDS, UIDS, UIDS, UIDS[:1]]
    assert taken


def read_answers(sock: socket.socket, count: int) -> list[bytes]:
    """Return so many answers, which may come in one go."""
    came, found = b"", []
    while len(found) < count:
        begin, blank, rest = came.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in begin.split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if blank and len(rest) >= length:
            found.append(begin + blank + rest[:length])
            came = rest[length:]
            continue
        piece = sock.recv(65536)
        assert piece, came
        came += piece
    return found


def test_a_body_is_taken_wherever_its_head_and_its_begin_are_cut(
    server: StoreServer, taken: list[int]
) -> None:
    body = body_of(*FILES)
    request = head(len(body)) + body
    start = len(request) - len(body)
    with connect(server.thread) as sock:
        for cut in (start, start + 1, start + 100, len(request) - 1):
            count = len(taken)
            sock.sendall(request[:cut])
            # It begins with the first byte of the body.
            if cut > start:
                wait_until(lambda count=count: len(taken) > count, "the thread")
            sock.sendall(request[cut:])
            assert stored_of(read_one(sock)) == UIDS


def test_large_parts_are_whole_on_the_disk(server: StoreServer) -> None:
    body = body_of(*LARGE)
    with connect(server.thread) as sock:
        sock.sendall(head(len(body)) + body)
        assert stored_of(read_one(sock)) == UIDS[:2]
    assert set(UIDS[:2]) <= set(server.kept())
    assert depot_leftovers(server.archive) == []
    kept = contents_below(Path(server.archive.root))
    assert {content[-1000:] for content in kept.values()} >= {data[-1000:] for data in LARGE}


def test_a_wish_for_another_protocol_changes_nothing_for_a_body_that_is_taken(
    server: StoreServer, taken: list[int]
) -> None:
    body = body_of(*FILES)
    request = head(len(body), "Connection: Upgrade", "Upgrade: h2c")
    with connect(server.thread) as sock:
        for _ in range(2):
            sock.sendall(request + body[:1000])
            count = len(taken)
            wait_until(lambda count=count: len(taken) >= count, "the thread")
            sock.sendall(body[1000:])
            assert stored_of(read_one(sock)) == UIDS
    assert taken


def test_without_a_descriptor_it_comes_by_the_event_loop(
    server: StoreServer, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    body = body_of(*FILES)
    monkeypatch.setattr(os, "dup", fail)
    with connect(server.thread) as sock:
        sock.sendall(head(len(body)) + body[:1000])
        sock.sendall(body[1000:])
        assert stored_of(read_one(sock)) == UIDS
    assert taken == []


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_what_is_not_read_of_a_body_is_passed_over(tmp_path: Path, framing: str) -> None:
    """An answer before the end of the body, whose rest and the next request come later."""
    options = DICOMwebOptions(parts_max=1)
    body = body_of(*FILES)
    if framing == "length":
        begin, rest = head(len(body)) + body[:700_000], body[700_000:]
    else:
        begin, rest = head(None) + chunk(body[:700_000]), chunk(body[700_000:]) + chunk(b"")
    with (
        web_rig(tmp_path / "archive", dicomweb=options) as rig,
        web_serving(rig.application) as thread,
        connect(thread) as sock,
    ):
        sock.sendall(begin)
        answer = read_one(sock)
        assert status_of(answer) == 202
        assert answer_of(answer[answer.index(b"{") :]).stored == UIDS[:1]
        other = body_of(FILES[1])
        sock.sendall(rest + head(len(other)) + other)
        assert stored_of(read_one(sock)) == UIDS[1:2]


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_server_that_stops_cuts_a_body_off_and_keeps_what_was_whole(
    tmp_path: Path, loop: str, framing: str
) -> None:
    body = body_of(*FILES)[:-1000]
    content = head(len(body) + 1000) + body if framing == "length" else head(None) + chunk(body)
    with (
        contextlib.closing(open_archive(tmp_path / "archive")) as archive,
        web_rig(tmp_path / "archive", archive=archive) as rig,
        web_serving(rig.application, loop, stop_seconds=0.2) as thread,
        connect(thread) as sock,
    ):
        served = StoreServer(rig, thread)
        sock.sendall(content)
        wait_until(lambda: len(served.kept()) == 3, "the parts that were whole")
        thread.run(thread.server.stop())
        assert thread.server.connections == 0
        read_all(sock)  # it ends
        line = served.line()
        lines = requests(archive, str(line["association_id"]))
        assert line["ended"] == "lost"
        assert [one.outcome for one in lines] == ["kept"] * 3 + ["lost"]
        assert depot_leftovers(archive) == []
        assert not thread.faults


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_takes_too_long_is_answered_and_nobody_reads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: list[int], loop: str
) -> None:
    """Else two would read of one connection, each a part of what comes."""
    monkeypatch.setattr(studies_routes, "STORE_SECONDS", 1.0)
    monkeypatch.setattr(connection, "LINGER_SECONDS", 1000.0)
    monkeypatch.setattr(web_server, "KEEP_ALIVE_SECONDS", 1000)
    monkeypatch.setattr(socket_body, "BODY_STALL_SECONDS", 1000.0)
    body = body_of(*FILES)
    with (
        web_rig(tmp_path / "archive", options=WebOptions(request_seconds=0.5)) as rig,
        web_serving(rig.application, loop) as thread,
        connect(thread) as sock,
    ):
        sock.sendall(head(len(body)) + body[:-1000])
        answer = read_all(sock)
        assert status_of(answer) == 503
        assert b"given up" in answer
        served = StoreServer(rig, thread)
        assert served.line()["ended"] == "lost"
        assert served.kept() == UIDS[:3]
        assert depot_leftovers(served.archive) == []
        thread.wait_until(lambda: not thread.server.connections)
    assert taken


@pytest.mark.parametrize("is_taken", [True, False])
def test_who_is_cancelled_while_a_body_is_awaited_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    monkeypatch.setattr(socket_body, "BODY_STALL_SECONDS", 1000.0)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ended: list[str] = []
    given_back: list[None] = []

    async def cancelled() -> None:
        began = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def receive() -> Message:
            if not began.is_set():
                began.set()
                return {"type": "http.request", "body": b"x", "more_body": True}
            loop.call_soon(reading.cancel)
            await asyncio.Event().wait()
            raise AssertionError

        def work(pieces: Iterator[bytes]) -> None:
            assert next(pieces) == b"x"
            if is_taken:
                loop.call_soon_threadsafe(reading.cancel)
            with pytest.raises(ProblemError) as error:
                next(pieces)
            ended.append(error.value.detail)

        scope: dict[str, Any] = {"type": "http", "headers": []}
        if is_taken:
            scope[connection.TAKE_BODY] = lambda: SocketBody(ours, 10)
            scope[connection.GIVE_BODY_BACK] = lambda: given_back.append(None)
        reading = asyncio.create_task(BodyThreads().read(Request(scope, receive), work))
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reading, 30)

    asyncio.run(cancelled())
    assert ended == ["the body did not come whole"]
    assert len(given_back) == is_taken
    ours.close()
    theirs.close()


def test_a_body_that_is_encrypted_comes_by_the_event_loop(
    tmp_path: Path, tls_files: TLSFiles, taken: list[int]
) -> None:
    tls = ServerTLS(certificate=tls_files.server.certificate, key=tls_files.server.key)
    trusting = ssl.create_default_context(cafile=str(tls_files.authority.certificate))
    trusting.check_hostname = False
    with (
        web_rig(tmp_path / "archive") as rig,
        web_serving(rig.application, tls=tls) as thread,
        httpx.Client(base_url=thread.url, verify=trusting, timeout=30) as client,
    ):
        for _ in range(2):
            response = client.post(
                "/dicom-web/studies", content=body_of(*LARGE), headers={"Content-Type": RELATED}
            )
            assert answer_of(response.content).stored == UIDS[:2]
    assert taken == []


def test_a_body_that_stands_still_on_its_thread_is_given_up(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_body, "BODY_STALL_SECONDS", 0.2)
    body = part(FILES[0]) + part(FILES[1])[:-5]
    with connect(server.thread) as sock:
        sock.sendall(head(len(body) + 5000) + body)
        answer = read_all(sock)
    assert status_of(answer) == 408
    assert b"nothing of the body came" in answer


def test_lines_that_take_long_to_write_keep_no_thread_of_other_requests(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a hundred thousand parts wait for the finisher a hundred times."""
    monkeypatch.setattr(web_server, "THREADS_MAX", 1)
    held, closes = threading.Event(), StoreRequest.close

    def close(store: StoreRequest, *, is_answered: bool) -> None:
        assert held.wait(30)
        closes(store, is_answered=is_answered)

    monkeypatch.setattr(StoreRequest, "close", close)
    body = body_of(FILES[0])
    with web_serving(server.rig.application) as thread, connect(thread) as sock, connect(thread) as other:
        sock.sendall(head(len(body)) + body)
        assert stored_of(read_one(sock)) == UIDS[:1]
        other.sendall(b"GET /api/instances HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status_of(read_one(other)) == 200
        held.set()


def test_syncs_of_the_parts_of_a_request_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one sync at a time a request of many small parts would take as long as all syncs together."""
    with web_client(tmp_path / "archive") as (client, rig):
        begun: list[int] = []
        files = type(rig.archive.files)
        synchronize = files.synchronize

        def together(self: FileSystem, descriptor: int) -> None:
            begun.append(descriptor)
            wait_until(lambda: len(begun) > 1, "the other sync, beside this one")
            synchronize(self, descriptor)

        monkeypatch.setattr(files, "synchronize", together)
        body = part(FILES[0]) + part(FILES[1]) + closing()
        response = client.post("/dicom-web/studies", content=body, headers={"Content-Type": RELATED})
        monkeypatch.undo()
    assert answer_of(response.content).stored == UIDS[:2]
