"""How connections end: who falls silent, who sends no more, whose body comes late; and whose framing says two things."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.web import connection
from stowkeeper.web import server as web_server
from stowkeeper.web.limits import STORE_BODY_BYTES_MAX
from support.archive_server import depot_leftovers
from support.instances import make_instance
from support.orthanc_rig import part10_of
from support.store_lines import StoreServer, chunk, head, store_server
from support.stow_bodies import RELATED, answer_of, body_of, part
from support.web_server import web_serving
from support.web_sockets import REQUEST, SOON, connect, read_all, read_one, status_of

pytestmark = pytest.mark.slow

FILE = part10_of(make_instance(1))
SMALL, LARGE = (body_of(part10_of(make_instance(1, size=size))) for size in (100, 700_000))
OTHER = body_of(part10_of(make_instance(2)))
UID = "1.2.3.1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with store_server(tmp_path_factory.mktemp("ends") / "archive") as server:
        yield server


def framed(body: bytes, framing: str, *fields: str) -> tuple[bytes, bytes]:
    """Return the head of a request, and its body with its end."""
    if framing == "length":
        return head(len(body), *fields), body
    return head(None, *fields), chunk(body) + chunk(b"")


# Silence


@pytest.mark.parametrize("fields", [(), ("Expect: 100-continue",)])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_who_is_answered_before_the_body_and_sends_it_then_is_not_waited_for_for_ever(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch, framing: str, fields: tuple[str, ...]
) -> None:
    """Else one client without a credential would hold as many connections as it may have, and nothing to do for it."""
    monkeypatch.setattr(web_server, "KEEP_ALIVE_SECONDS", SOON)
    with web_serving(server.rig.application) as thread, connect(thread) as sock:
        begin, body = framed(SMALL, framing, "Accept: image/png", *fields)
        sock.sendall(begin)
        assert status_of(read_one(sock)) == 406
        sock.sendall(body)
        assert read_all(sock) == b""


def test_a_connection_goes_on_behind_a_body_that_came_late(server: StoreServer) -> None:
    with connect(server.thread) as sock:
        for _ in range(2):
            begin, body = framed(SMALL, "length", "Accept: image/png")
            sock.sendall(begin)
            assert status_of(read_one(sock)) == 406
            sock.sendall(body + REQUEST)
            assert status_of(read_one(sock)) == 200


def test_a_head_that_begins_with_the_end_of_a_body_has_its_time(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SOON)
    monkeypatch.setattr(web_server, "KEEP_ALIVE_SECONDS", 1000)
    with web_serving(server.rig.application) as thread, connect(thread) as sock:
        begin, body = framed(SMALL, "length", "Accept: image/png")
        sock.sendall(begin)
        assert status_of(read_one(sock)) == 406
        sock.sendall(body + REQUEST[:20])
        assert status_of(read_all(sock)) == 408


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_behind_another_request_has_the_time_of_a_body(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    """It is on its way when the request before it is answered, and nothing was refused."""
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.0)
    begin, body = framed(SMALL, framing)
    with connect(server.thread) as sock:
        sock.sendall(REQUEST + begin + body[:50])
        assert status_of(read_one(sock)) == 200
        for _ in range(3):  # the loop has had its turns
            server.thread.wait_until(lambda: True)
        sock.sendall(body[50:])
        answer = read_one(sock)
    assert answer_of(answer[answer.index(b"{") :]).stored == [UID]


# No more to send


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_sends_no_more_is_answered(server: StoreServer, loop: str) -> None:
    with web_serving(server.rig.application, loop) as thread:
        for body in (SMALL, LARGE):
            for framing in ("length", "chunks"):
                with connect(thread) as sock:
                    sock.sendall(b"".join((*framed(OTHER, framing), *framed(body, framing))))
                    sock.shutdown(socket.SHUT_WR)
                    answer = read_all(sock)
                assert answer.count(b"HTTP/1.1 200 OK") == 2, (framing, answer)
                assert answer_of(answer[answer.rindex(b"\r\n\r\n") :]).stored == [UID]
        thread.wait_until(lambda: not thread.server.connections)


@pytest.mark.parametrize("sent", [b"", REQUEST[:20], head(10), head(10) + b"x", head(None) + b"1\r\n"])
def test_who_sends_no_more_within_a_request_is_closed(server: StoreServer, sent: bytes) -> None:
    with connect(server.thread) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        assert not read_all(sock).startswith(b"HTTP/1.1 2")
    server.thread.wait_until(lambda: not server.thread.server.connections)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_who_goes_in_the_same_breath_loses_the_unfinished_part_alone(tmp_path: Path, framing: str) -> None:
    """The end of the connection is known before anybody has looked at the body."""
    body = part(FILE) + part(FILE)[:-5]
    begin = head(1000 + len(body)) + body if framing == "length" else head(None) + chunk(body)
    with store_server(tmp_path / "archive") as server:
        sock = connect(server.thread)
        sock.sendall(begin)
        sock.close()
        line = server.line()
        assert (line["ended"], line["messages"]) == ("lost", 2)
        assert server.kept() == [UID]
        assert depot_leftovers(server.archive) == []


# Before the body


@pytest.mark.parametrize(
    ("request_head", "expected"),
    [
        (head(10, content_type="multipart/related"), 400),
        (head(10, path="/dicom-web/studies/1.2.x"), 400),
        (head(10, path="/dicom-web/studies/1.2/series"), 404),
        (head(10).replace(b"POST", b"PUT"), 405),
        (head(10, content_type="multipart/form-data; boundary=x"), 415),
        (head(STORE_BODY_BYTES_MAX + 1), 413),
    ],
)
def test_who_asks_whether_to_go_on_is_not_told_to_send_what_is_refused(
    server: StoreServer, request_head: bytes, expected: int
) -> None:
    with connect(server.thread) as sock:
        sock.sendall(request_head[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert status_of(sock.recv(1000)) == expected


# What says two things


LENGTH, CHUNKED = f"Content-Length: {len(SMALL)}", "Transfer-Encoding: chunked"


@pytest.mark.parametrize("more", [(), ("Connection: upgrade", "Upgrade: h2c")])
@pytest.mark.parametrize(
    "fields",
    [
        (LENGTH, CHUNKED),
        (CHUNKED, LENGTH),
        (LENGTH, LENGTH),
        (LENGTH, "Content-Length: 3"),
        (f"{LENGTH}, {len(SMALL)}",),
        (f"{LENGTH}\r\n 0",),
        (f"X: a\r\n {LENGTH}",),
        (f"X: a\n{LENGTH}",),
        (f"X: a\r{LENGTH}",),
        (LENGTH.replace(": ", ": +"),),
        (LENGTH.replace(": ", " : "),),
        ("Content-Length: -1",),
        ("Content-Length: 0x10",),
        ("Content-Length: ",),
        (f"Content-Length: {2**64 + len(SMALL)}",),
        (CHUNKED, CHUNKED),
        (CHUNKED, "Transfer-Encoding: identity"),
        ("Transfer-Encoding: identity", LENGTH),
        ("Transfer-Encoding: xchunked", LENGTH),
        ("Transfer-Encoding: chunked, gzip",),
        ("Transfer-Encoding:\r\n chunked", LENGTH),
        ("Transfer-Encoding : chunked", LENGTH),
        ("Transfer-Encoding: \x0bchunked", LENGTH),
    ],
)
def test_a_body_whose_end_is_not_sure_is_400_and_what_follows_is_no_request(
    server: StoreServer, fields: tuple[str, ...], more: tuple[str, ...]
) -> None:
    lines = ["POST /dicom-web/studies HTTP/1.1", "Host: localhost", f"Content-Type: {RELATED}", *more]
    body = chunk(SMALL) + chunk(b"") if CHUNKED in fields else SMALL
    refuse(server, "\r\n".join([*lines, *fields, "", ""]).encode() + body + REQUEST)


@pytest.mark.parametrize(
    "begin",
    [
        b"0x%x\r\n",
        b"+%x\r\n",
        b" %x\r\n",
        b"%x \r\n",
        b"%x\n",
        b"%x;a\n",
        b"%x;a\rb\r\n",
        b"1%016x\r\n",
        b"-%x\r\n",
    ],
)
def test_a_chunk_whose_length_is_not_sure_is_400(server: StoreServer, begin: bytes) -> None:
    refuse(server, head(None) + begin % len(SMALL) + SMALL + b"\r\n0\r\n\r\n" + REQUEST)


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"xx0\r\n\r\n", b"\n0\r\n\r\n", b"\r\n0\n\n"])
def test_a_chunk_that_does_not_end_where_it_says_is_400(server: StoreServer, end: bytes) -> None:
    refuse(server, head(None) + b"%x\r\n" % len(SMALL) + SMALL + end + REQUEST)


def refuse(server: StoreServer, sent: bytes) -> None:
    """See that something is answered once, with 400, and the connection closed."""
    with connect(server.thread) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(sent)
        answer = read_all(sock)
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_wish_for_another_protocol_in_http_1_0_is_passed_over(server: StoreServer, framing: str) -> None:
    begin, body = framed(SMALL, framing, "Connection: upgrade", "Upgrade: h2c")
    with connect(server.thread) as sock:
        sock.sendall(begin.replace(b"HTTP/1.1", b"HTTP/1.0") + body)
        answer = read_all(sock)
    assert answer_of(answer[answer.index(b"{") :]).stored == [UID]
