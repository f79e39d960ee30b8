"""The HTTP server on real sockets: bounds on connections and on heads."""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest

from stowkeeper.web import connection, listening
from stowkeeper.web.limits import HEAD_BYTES_MAX
from support.quick_web import PLAIN_HTTP
from support.web_server import WebThread, web_rig, web_serving
from support.web_sockets import REQUEST, SOON, WAIT_SECONDS, connect, read_all, read_one, status_of


@pytest.fixture
def served(tmp_path: Path) -> Iterator[WebThread]:
    with web_rig(tmp_path / "archive") as rig, web_serving(rig.application) as thread:
        yield thread


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_it_serves_beside_others_and_leaves_the_signals_alone(tmp_path: Path, loop: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with web_rig(tmp_path / "archive") as rig, web_serving(rig.application, loop) as thread:
        assert thread.port
        assert httpx.get(f"{thread.url}/api/live", verify=PLAIN_HTTP).json() == {"status": "live"}
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{thread.port}/api/live", verify=PLAIN_HTTP)


def test_an_address_that_is_taken_is_an_os_error(served: WebThread) -> None:
    from stowkeeper.web.server import WebServer

    with pytest.raises(OSError, match="Address already in use"):
        served.run(WebServer(served.server._application, served.host, served.port).start())


@pytest.mark.parametrize("sent", [b"", b"GET /api", b"GET /api/live HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n"])
def test_a_head_that_does_not_come_in_time_ends_the_connection(
    served: WebThread, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SOON)
    began = time.monotonic()
    with connect(served) as sock:
        sock.sendall(sent)
        answer = read_all(sock)
        assert time.monotonic() - began >= SOON * 0.8
    assert not answer or status_of(answer) == 408


def test_who_sends_a_byte_now_and_then_gains_no_time(
    served: WebThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SOON)
    began = time.monotonic()
    with connect(served) as sock:
        sock.settimeout(SOON / 10)
        sock.sendall(b"GET /api/live HTTP/1.1\r\nX: ")
        answer = b""
        while time.monotonic() - began < WAIT_SECONDS:
            try:
                sock.sendall(b"x")
                answer = sock.recv(100)
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert SOON * 0.8 < time.monotonic() - began < WAIT_SECONDS
        assert not answer or status_of(answer) == 408


@pytest.mark.slow
def test_the_second_head_has_its_own_time(served: WebThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SOON)
    with connect(served) as sock:
        sock.sendall(REQUEST)
        assert status_of(read_one(sock)) == 200
        sock.sendall(b"GET /api/live HTT")
        assert status_of(read_all(sock)) == 408


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * HEAD_BYTES_MAX + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * HEAD_BYTES_MAX + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * HEAD_BYTES_MAX,
    ],
    ids=["long address", "long field", "many fields", "no end"],
)
def test_a_long_head_is_431(served: WebThread, head: bytes) -> None:
    with connect(served) as sock:
        for start in range(0, len(head), 4096):
            with contextlib.suppress(ConnectionError):
                sock.sendall(head[start : start + 4096])
        if head.endswith(b"\r\n"):
            with contextlib.suppress(OSError):  # it was refused already
                sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    assert not answer or status_of(answer) == 431
    # Whole in one piece, so that the answer cannot be lost.
    with connect(served) as sock:
        sock.sendall(head)
        assert status_of(read_all(sock)) == 431


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HELO there\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"],
)
def test_what_is_no_http_is_400(served: WebThread, garbage: bytes) -> None:
    with connect(served) as sock:
        sock.sendall(garbage)
        answer = read_all(sock)
    assert status_of(answer) == 400
    assert b"application/problem+json" in answer


def test_a_request_with_two_lengths_is_400(served: WebThread) -> None:
    with connect(served) as sock:
        sock.sendall(
            b"POST /api/live HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        assert status_of(read_all(sock)) == 400


def test_requests_in_a_row_are_answered_in_their_order(served: WebThread) -> None:
    paths = [b"/api/live", b"/nowhere", b"/api/live", b"/nowhere"]
    with connect(served) as sock:
        sock.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in paths[:-1]))
        sock.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % paths[-1])
        answer = read_all(sock)
    assert [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200, 404]


def test_who_wants_another_protocol_gets_this_one(served: WebThread) -> None:
    upgrade = (
        b"GET /api/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    for wanted in (upgrade, upgrade.replace(b"websocket", b"h2c")):
        with connect(served) as sock:
            sock.sendall(wanted)
            assert status_of(read_one(sock)) == 200
    with connect(served) as sock:
        sock.sendall(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n")
        assert status_of(sock.recv(1000)) in {400, 403, 404, 405}
    served.wait_until(lambda: served.server.connections == 0)


def test_connections_beyond_the_bound_are_told_so(tmp_path: Path) -> None:
    with (
        web_rig(tmp_path / "archive") as rig,
        web_serving(rig.application, connections_max=3) as thread,
        contextlib.ExitStack() as stack,
    ):
        held = [stack.enter_context(connect(thread)) for _ in range(3)]
        thread.wait_until(lambda: thread.server.connections == 3)
        with connect(thread) as sock:
            sock.sendall(REQUEST)
            assert status_of(read_all(sock)) == 503
        held.pop().close()
        thread.wait_until(lambda: thread.server.connections == 2)
        assert httpx.get(f"{thread.url}/api/live", verify=PLAIN_HTTP).status_code == 200


def test_one_client_does_not_take_the_connections_of_all(tmp_path: Path) -> None:
    with (
        web_rig(tmp_path / "archive") as rig,
        web_serving(rig.application, connections_max=9, connections_per_client_max=3) as thread,
        contextlib.ExitStack() as stack,
    ):
        held = [stack.enter_context(connect(thread)) for _ in range(3)]
        thread.wait_until(lambda: thread.server.connections == 3)
        with connect(thread) as sock:
            sock.sendall(REQUEST)
            assert status_of(read_all(sock)) == 503
        with socket.create_connection((thread.host, thread.port), 10, ("127.0.0.2", 0)) as other:
            other.sendall(REQUEST)
            assert status_of(read_one(other)) == 200
            held.pop().close()
            thread.wait_until(lambda: thread.server.connections == 3)
            assert httpx.get(f"{thread.url}/api/live", verify=PLAIN_HTTP).status_code == 200


def test_a_trusted_proxy_has_as_many_connections_as_there_are(tmp_path: Path) -> None:
    with (
        web_rig(tmp_path / "archive") as rig,
        web_serving(
            rig.application,
            connections_max=5,
            connections_per_client_max=1,
            trusted_proxies=(ip_network("127.0.0.1/32"),),
        ) as thread,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(5):
            sock = stack.enter_context(connect(thread))
            sock.sendall(REQUEST)
            assert status_of(read_one(sock)) == 200
        with connect(thread) as sock:
            sock.sendall(REQUEST)
            assert status_of(read_all(sock)) == 503


def test_who_is_turned_away_and_says_nothing_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "TURNED_AWAY_SECONDS", SOON)
    with (
        web_rig(tmp_path / "archive") as rig,
        web_serving(rig.application, connections_max=1) as thread,
        connect(thread) as held,
    ):
        thread.wait_until(lambda: thread.server.connections == 1)
        with connect(thread) as waiting, connect(thread) as beyond:
            assert read_all(beyond) == b""
            assert read_all(waiting) == b""
        held.sendall(REQUEST)
        assert status_of(read_one(held)) == 200
