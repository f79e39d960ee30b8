"""Store requests by hand: clients that vanish, stand still, trickle, or ask whether to go on."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.services.store_request import StoreRequest
from stowkeeper.web import exchange, studies_routes
from stowkeeper.web.roles import Role
from support.archive_server import depot_leftovers, requests
from support.instances import make_instance
from support.job_engine_thread import wait_until
from support.orthanc_rig import part10_of
from support.store_lines import StoreServer, chunk, head, store_server
from support.stow_bodies import answer_of, body_of, closing, part
from support.web_server import bearer
from support.web_sockets import SOON, connect, read_all, read_one, status_of

pytestmark = pytest.mark.slow

FILES = [part10_of(make_instance(number)) for number in (1, 2, 3)]
UIDS = ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    with store_server(tmp_path / "archive") as server:
        yield server


def reset(sock: socket.socket) -> None:
    """Close a connection as a machine does that loses its power: without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("ends", ["closes", "resets"])
@pytest.mark.parametrize("cut", [1, 100, 300, 500])
def test_who_vanishes_loses_the_unfinished_part_alone(server: StoreServer, ends: str, cut: int) -> None:
    body = part(FILES[0]) + part(FILES[1]) + part(FILES[2])[: -len(FILES[2]) + cut]
    sock = connect(server.thread)
    sock.sendall(head(len(body) + 1000) + body)
    wait_until(lambda: len(server.kept()) == 2, "the parts that were whole")
    if ends == "resets":
        reset(sock)
    else:
        sock.close()
    line = server.line()
    assert line["ended"] == "lost"
    lines = requests(server.archive, str(line["association_id"]))
    assert [(one.status, one.outcome) for one in lines] == [(None, "kept"), (None, "kept"), (None, "lost")]
    assert server.kept() == UIDS[:2]
    assert depot_leftovers(server.archive) == []
    # And it may send everything again.
    with connect(server.thread) as again:
        whole = body_of(*FILES)
        again.sendall(head(len(whole)) + whole)
        assert status_of(read_one(again)) == 200
    assert server.kept() == UIDS


@pytest.mark.parametrize("coming", ["in one go", "to a thread"])
def test_of_who_left_before_the_answer_the_ledger_says_that_nobody_was_told(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch, coming: str
) -> None:
    settling, gone = threading.Event(), threading.Event()
    settle = StoreRequest.settle

    def settle_when_gone(self: StoreRequest) -> None:
        settling.set()
        assert gone.wait(30)
        settle(self)

    monkeypatch.setattr(StoreRequest, "settle", settle_when_gone)
    body = body_of(*FILES)
    sock = connect(server.thread)
    sock.sendall(head(len(body)) + (body if coming == "in one go" else b""))
    if coming == "to a thread":
        sock.sendall(body)
    assert settling.wait(30)
    reset(sock)
    gone.set()
    line = server.line()
    assert line["ended"] == "lost"
    lines = requests(server.archive, str(line["association_id"]))
    assert [(one.status, one.outcome) for one in lines] == [(None, "kept")] * 3


def test_a_body_that_stands_still_is_given_up(server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_STALL_SECONDS", SOON)
    body = part(FILES[0]) + part(FILES[1])[:-5]
    with connect(server.thread) as sock:
        sock.sendall(head(None) + chunk(body))
        assert status_of(read_all(sock)) == 408
    assert server.line()["ended"] == "lost"
    assert server.kept() == UIDS[:1]


def test_a_body_that_trickles_is_given_up(server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies_routes, "STORE_SLOW_SECONDS", SOON)
    monkeypatch.setattr(studies_routes, "STORE_BYTES_PER_SECOND_MIN", 1 << 40)
    body = body_of(*FILES)
    with connect(server.thread) as sock:
        sock.sendall(head(len(body)) + body[:-1])
        wait_until(lambda: len(server.kept()) == 2, "what came until now")
        end = time.monotonic() + SOON
        wait_until(lambda: time.monotonic() > end, "the time from which on it has to be fast")
        sock.sendall(body[-1:])
        answer = read_all(sock)
        assert status_of(answer) == 408
        assert b"slower" in answer


def test_who_asks_whether_to_go_on_is_told_before_the_body(server: StoreServer) -> None:
    body = body_of(*FILES)
    with connect(server.thread) as sock:
        sock.sendall(head(len(body), "Expect: 100-continue"))
        assert status_of(sock.recv(1000)) == 100
        sock.sendall(body)
        assert status_of(read_one(sock)) == 200


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["Accept: image/png"], 406),
        (["Content-Encoding: gzip"], 415),
        (["Authorization: Bearer stowkeeper.nobody.wrong"], 401),
        (["Authorization: Bearer %s"], 403),
    ],
)
def test_who_would_be_refused_is_not_told_to_go_on(
    server: StoreServer, fields: list[str], expected: int
) -> None:
    if expected in {401, 403}:
        reader = server.rig.token("reader", Role.READ)
        fields = [field.replace("%s", reader) for field in fields]
    with connect(server.thread) as sock:
        sock.sendall(head(10, "Expect: 100-continue", *fields))
        assert status_of(sock.recv(1000)) == expected


def test_chunks_may_be_cut_anywhere(server: StoreServer) -> None:
    body = body_of(*FILES)
    for size in (1, 7, 4096):
        pieces = [chunk(body[start : start + size]) for start in range(0, len(body), size)]
        with connect(server.thread) as sock:
            sock.sendall(head(None) + b"".join(pieces) + chunk(b""))
            answer = read_one(sock)
            assert status_of(answer) == 200
            assert answer_of(answer[answer.index(b"{") :]).stored == UIDS


def test_two_requests_follow_each_other_on_one_connection(server: StoreServer) -> None:
    token = server.rig.token("sender", Role.NONE, may_store=True)
    field = f"Authorization: {bearer(token)['Authorization']}"
    with connect(server.thread) as sock:
        for file, uid in zip(FILES, UIDS, strict=True):
            body = part(file) + closing() + b"\r\nwords behind the end"
            sock.sendall(head(len(body), field) + body)
            answer = read_one(sock)
            assert status_of(answer) == 200
            assert answer_of(answer[answer.index(b"{") :]).stored == [uid]


@pytest.mark.parametrize("is_chunked", [True, False])
def test_cut_at_any_byte_nothing_but_whole_parts_is_kept(server: StoreServer, is_chunked: bool) -> None:
    files = [part10_of(make_instance(number, size=2)) for number in (1, 2)]
    body = body_of(*files)
    whole = [body.index(files[0]) + len(files[0]) + len(closing()), len(body)]
    sock = connect(server.thread)
    for cut in range(len(body)):
        if is_chunked:
            sock.sendall(head(None) + (chunk(body[:cut]) if cut else b"") + chunk(b""))
        else:
            sock.sendall(head(cut) + body[:cut])
        answer = read_one(sock)
        expected = sum(cut >= end for end in whole)
        found = answer_of(answer[answer.index(b"{") :])
        assert len(found.stored) == expected, cut
        assert status_of(answer) == (400 if not expected and not found.failed else 202 if expected else 409)
    sock.close()
