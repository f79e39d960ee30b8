"""The HTTP server on real sockets: bounds on connections, heads, bodies and times, TLS, and the end."""

import contextlib
import resource
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from stowkeeper.web import connection, exchange, listening
from stowkeeper.web.limits import BODY_BYTES_MAX, HEAD_BYTES_MAX
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.server import ServerTLS, ServerTLSError
from stowkeeper.web.services import WebOptions
from support.tls_files import Identity
from support.tls_fixtures import TLSFiles
from support.web_server import WebThread, web_rig, web_serving

REQUEST = b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
WAIT_SECONDS = 10.0
SOON = 0.2
"""A bound that a test shortens to so many seconds."""
LARGE = 100 << 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[WebThread]:
    with web_rig(tmp_path / "archive") as rig, web_serving(rig.application) as thread:
        yield thread


def connect(thread: WebThread) -> socket.socket:
    return socket.create_connection((thread.host, thread.port), WAIT_SECONDS)


def read_all(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def read_one(sock: socket.socket) -> bytes:
    """Return one whole answer of a connection that goes on."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    (length,) = [line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    while len(body) < int(length):
        body += sock.recv(65536)
    return head + body


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer.split()[1])


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_it_serves_beside_others_and_leaves_the_signals_alone(tmp_path: Path, loop: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with web_rig(tmp_path / "archive") as rig, web_serving(rig.application, loop) as thread:
        assert thread.port
        assert httpx.get(f"{thread.url}/api/live").json() == {"status": "live"}
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{thread.port}/api/live")


def test_an_address_that_is_taken_is_an_os_error(served: WebThread) -> None:
    from stowkeeper.web.server import WebServer

    with pytest.raises(OSError, match="Address already in use"):
        served.run(WebServer(served.server._application, served.host, served.port).start())


@pytest.mark.parametrize("sent", [b"", b"GET /api", b"GET /api/live HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n"])
def test_a_head_that_does_not_come_in_time_ends_the_connection(
    served: WebThread, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SOON)
    with connect(served) as sock:
        sock.sendall(sent)
        began = time.monotonic()
        answer = read_all(sock)
        assert time.monotonic() - began >= SOON * 0.8
    assert not answer or status_of(answer) == 408


def test_who_sends_a_byte_now_and_then_gains_no_time(
    served: WebThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SOON)
    with connect(served) as sock:
        sock.settimeout(SOON / 10)
        began = time.monotonic()
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
        sock.shutdown(socket.SHUT_WR) if head.endswith(b"\r\n") else None
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
        assert httpx.get(f"{thread.url}/api/live").status_code == 200


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


# TLS


def trusting(tls_files: TLSFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls_files.authority.certificate))
    context.check_hostname = False
    return context


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_it_speaks_tls(tmp_path: Path, tls_files: TLSFiles, loop: str) -> None:
    tls = ServerTLS(certificate=tls_files.server.certificate, key=tls_files.server.key)
    with (
        web_rig(tmp_path / "archive") as rig,
        web_serving(rig.application, loop, tls=tls) as thread,
        httpx.Client(base_url=thread.url, verify=trusting(tls_files)) as client,
    ):
        for _ in range(3):
            assert client.get("/api/live").json() == {"status": "live"}
        with socket.create_connection((thread.host, thread.port), WAIT_SECONDS) as plain:
            plain.sendall(REQUEST)
            assert not read_all(plain).startswith(b"HTTP")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)), connect(thread) as sock:
            old.wrap_socket(sock)


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_never_shakes_hands_is_counted_and_closed(
    tmp_path: Path, tls_files: TLSFiles, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 3 * SOON)
    tls = ServerTLS(certificate=tls_files.server.certificate, key=tls_files.server.key)
    with (
        web_rig(tmp_path / "archive") as rig,
        web_serving(rig.application, loop, tls=tls, connections_max=1) as thread,
        connect(thread) as silent,
    ):
        thread.wait_until(lambda: thread.server.connections == 1)
        with connect(thread) as beyond:
            assert read_all(beyond) == b""
        assert read_all(silent) == b""
        thread.wait_until(lambda: thread.server.connections == 0)
        assert httpx.get(f"{thread.url}/api/live", verify=trusting(tls_files)).status_code == 200


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_renewed_certificate_is_used_from_the_next_connection_on(
    tmp_path: Path, tls_files: TLSFiles, loop: str
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"

    def put(identity: Identity) -> bytes:
        certificate.write_bytes(Path(identity.certificate).read_bytes())
        key.write_bytes(Path(identity.key).read_bytes())
        return ssl.PEM_cert_to_DER_cert(Path(identity.certificate).read_text())

    def shown(thread: WebThread) -> bytes | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with connect(thread) as sock, context.wrap_socket(sock) as secured:
            return secured.getpeercert(binary_form=True)

    first = put(tls_files.server)
    tls = ServerTLS(certificate=str(certificate), key=str(key))
    with web_rig(tmp_path / "archive") as rig, web_serving(rig.application, loop, tls=tls) as thread:
        assert shown(thread) == first
        second = put(tls_files.client)
        assert shown(thread) == first
        thread.server.renew_tls()
        assert shown(thread) == second
        key.write_text("nonsense")
        with pytest.raises(ServerTLSError):
            thread.server.renew_tls()
        assert shown(thread) == second


@pytest.mark.peer("openssl")
def test_bad_tls_files_are_named(tmp_path: Path, tls_files: TLSFiles) -> None:
    from support.tls_files import openssl

    locked = tmp_path / "locked.pem"
    locked.write_bytes(openssl("pkcs8", "-topk8", "-in", tls_files.server.key, "-passout", "pass:secret"))
    server = tls_files.server
    for certificate, key in (
        (server.certificate, tls_files.authority.issue("other", key="ec").key),
        (server.certificate, str(locked)),
        (str(tmp_path / "absent.pem"), server.key),
    ):
        with pytest.raises(ServerTLSError) as caught:
            ServerTLS(certificate=certificate, key=key).context()
        assert certificate in str(caught.value)


# Bodies


def taking() -> tuple[APIRouter, list[int]]:
    """Return a router with a route that takes a body and one that reads it piece by piece, and the sizes they saw."""
    seen: list[int] = []
    routes = api_router("/api/test", tag="test")

    @routes.post("/body")
    @allow(Role.READ)
    async def body(request: Request) -> int:
        seen.append(len(await request.body()))
        return seen[-1]

    @routes.post("/pieces")
    @allow(Role.READ, streams=True, consumes=(), body_bytes_max=4 * BODY_BYTES_MAX)
    async def pieces(request: Request) -> int:
        size = 0
        async for piece in request.stream():
            size += len(piece)
            seen.append(len(piece))
        return size

    return routes, seen


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("-H", "Expect:"), ("-H", "Transfer-Encoding: chunked", "-H", "Expect:")]
)
@pytest.mark.parametrize("path", ["body", "pieces"])
def test_a_hundred_megabytes_are_refused_unread(tmp_path: Path, more: tuple[str, ...], path: str) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(LARGE)
    router, seen = taking()
    with (
        web_rig(tmp_path / "archive", routers=[router]) as rig,
        web_serving(rig.application) as thread,
    ):  # a router of Starlette will do
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run = subprocess.run(
            [
                "curl",
                "-s",
                "-S",
                "-i",
                "-H",
                "Content-Type: application/json",
                *more,
                "--data-binary",
                f"@{large}",
                f"{thread.url}/api/test/{path}",
            ],
            capture_output=True,
            timeout=60,
            check=False,
        )
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    answer = run.stdout.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert status_of(answer) == 413, run.stderr
    assert b"application/problem+json" in answer
    assert sum(seen) <= 4 * BODY_BYTES_MAX
    assert grown < 20_000, f"{grown} kB more"


def test_who_goes_on_sending_after_the_answer_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", SOON)
    router, _ = taking()
    with (
        web_rig(tmp_path / "archive", routers=[router]) as rig,
        web_serving(rig.application) as thread,
    ):  # a router of Starlette will do
        with connect(thread) as sock:
            sock.sendall(
                b"POST /api/test/body HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % LARGE
            )
            assert status_of(sock.recv(65536)) == 413
            began = time.monotonic()
            with pytest.raises(ConnectionError):  # noqa: PT012 - which of them fails, the system decides
                while time.monotonic() - began < WAIT_SECONDS:
                    sock.sendall(b"x")
        thread.wait_until(lambda: thread.server.connections == 0)


def test_the_time_for_a_head_does_not_count_for_its_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SOON)
    router, seen = taking()
    with (
        web_rig(tmp_path / "archive", routers=[router]) as rig,
        web_serving(rig.application) as thread,
        connect(thread) as sock,
    ):
        sock.sendall(b"POST /api/test/pieces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        began = time.monotonic()
        for count in range(10):
            sock.sendall(b"x")
            thread.wait_until(lambda count=count: sum(seen) > count)
            while time.monotonic() - began < SOON * (count + 1) / 3:
                thread.wait_until(lambda: True)
        assert status_of(read_one(sock)) == 200


def test_a_body_that_stops_coming_is_408(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_STALL_SECONDS", SOON)
    router, _ = taking()
    with (
        web_rig(tmp_path / "archive", routers=[router]) as rig,  # a router of Starlette will do
        web_serving(rig.application) as thread,
        connect(thread) as sock,
    ):
        sock.sendall(
            b"POST /api/test/body HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n[1,"
        )
        assert status_of(read_all(sock)) == 408


# Times


class Gate:
    """Routes that wait until a test lets them go on."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.router = api_router("/api/test", tag="test")

        @self.router.get("/thread")
        @allow(Role.READ)
        def wait_in_thread() -> str:
            self.entered.release()
            self.open.wait(WAIT_SECONDS)
            return "done"

        @self.router.get("/longer")
        @allow(Role.READ, seconds=4 * SOON)
        def wait_longer() -> str:
            self.entered.release()
            self.open.wait(2 * SOON)
            return "done"

        @self.router.get("/half")
        @allow(Role.READ, produces=())
        def wait_in_the_middle() -> StreamingResponse:
            def pieces() -> Iterator[bytes]:
                yield b"begun"
                self.entered.release()
                self.open.wait(WAIT_SECONDS)

            return StreamingResponse(pieces())

        @self.router.get("/endless")
        @allow(Role.READ, produces=())
        def endless() -> StreamingResponse:
            def pieces() -> Iterator[bytes]:
                while not self.open.is_set():
                    yield bytes(1 << 20)

            return StreamingResponse(pieces())


def test_a_request_that_takes_too_long_is_503(tmp_path: Path) -> None:
    gate = Gate()
    options = WebOptions(request_seconds=SOON)
    with (
        web_rig(tmp_path / "archive", routers=[gate.router], options=options) as rig,
        web_serving(rig.application) as thread,
    ):
        began = time.monotonic()
        answer = httpx.get(f"{thread.url}/api/test/thread", timeout=WAIT_SECONDS)
        assert SOON * 0.8 < time.monotonic() - began < WAIT_SECONDS / 2
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert httpx.get(f"{thread.url}/api/test/longer").json() == "done"
        gate.open.set()


def test_an_answer_that_does_not_go_on_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SEND_STALL_SECONDS", SOON)
    gate = Gate()
    with (
        web_rig(tmp_path / "archive", routers=[gate.router]) as rig,
        web_serving(rig.application) as thread,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{thread.url}/api/test/half", timeout=WAIT_SECONDS)
        gate.open.set()


def test_who_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SEND_STALL_SECONDS", SOON)
    monkeypatch.setattr(listening, "SWEEP_SECONDS", 10 * WAIT_SECONDS)
    gate = Gate()
    with (
        web_rig(tmp_path / "archive", routers=[gate.router]) as rig,
        web_serving(rig.application) as thread,
        connect(thread) as sock,
    ):
        sock.sendall(b"GET /api/test/endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        thread.wait_until(lambda: thread.server.connections == 1)
        thread.wait_until(lambda: thread.server.connections == 0)
        gate.open.set()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_does_not_take_the_rest_of_an_answer_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setattr(listening, "SWEEP_SECONDS", SOON)
    routes = api_router("/api/test", tag="test")

    @routes.get("/large")
    @allow(Role.READ, produces=())
    def large() -> Response:
        return Response(bytes(32 << 20))

    with (
        web_rig(tmp_path / "archive", routers=[routes]) as rig,
        web_serving(rig.application, loop) as thread,
        connect(thread) as sock,
    ):
        sock.sendall(b"GET /api/test/large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        thread.wait_until(lambda: thread.server.connections == 1)
        thread.wait_until(lambda: thread.server.connections == 0)


# The end


def test_at_the_end_requests_are_answered_and_idle_connections_closed(tmp_path: Path) -> None:
    gate = Gate()
    answers: list[httpx.Response] = []
    with web_rig(tmp_path / "archive", routers=[gate.router]) as rig:
        with web_serving(rig.application) as thread, connect(thread) as idle, connect(thread) as mute:
            idle.sendall(REQUEST)
            assert status_of(read_one(idle)) == 200
            asking = threading.Thread(
                target=lambda: answers.append(
                    httpx.get(f"{thread.url}/api/test/thread", timeout=WAIT_SECONDS)
                )
            )
            asking.start()
            assert gate.entered.acquire(timeout=WAIT_SECONDS)
            threading.Timer(SOON, gate.open.set).start()
            thread.run(thread.server.stop())
            assert read_all(idle) == b""
            assert read_all(mute) == b""
        asking.join(WAIT_SECONDS)
    assert [answer.json() for answer in answers] == ["done"]


def test_a_request_that_does_not_end_is_cut_off_at_the_end(tmp_path: Path) -> None:
    gate = Gate()
    with (
        web_rig(tmp_path / "archive", routers=[gate.router]) as rig,
        web_serving(rig.application, stop_seconds=SOON) as thread,
        connect(thread) as sock,
    ):
        sock.sendall(b"GET /api/test/thread HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert gate.entered.acquire(timeout=WAIT_SECONDS)
        began = time.monotonic()
        thread.run(thread.server.stop())
        assert time.monotonic() - began < WAIT_SECONDS / 2
        assert read_all(sock) == b""
        gate.open.set()


def test_what_is_no_http_request_of_asgi_is_left_alone(tmp_path: Path) -> None:
    asked: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope)

    shell = exchange.RequestShell(application, seconds=1, write_error=lambda _scope, _problem: None)  # type: ignore[arg-type, return-value]  # nothing is answered
    import asyncio

    asyncio.run(shell({"type": "websocket"}, None, None))  # type: ignore[arg-type]  # neither is called
    assert asked == []
