"""The HTTP server: bounds on bodies, and on the times that requests and answers take."""

import resource
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
from stowkeeper.web.limits import BODY_BYTES_MAX
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.services import WebOptions
from support.quick_web import PLAIN_HTTP
from support.web_server import web_rig, web_serving
from support.web_sockets import REQUEST, SOON, WAIT_SECONDS, connect, read_all, read_one, status_of

pytestmark = pytest.mark.slow

LARGE = 100 << 20


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
        @allow(Role.READ, seconds=20 * SOON)
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
        answer = httpx.get(f"{thread.url}/api/test/thread", timeout=WAIT_SECONDS, verify=PLAIN_HTTP)
        assert SOON * 0.8 < time.monotonic() - began < WAIT_SECONDS / 2
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert httpx.get(f"{thread.url}/api/test/longer", verify=PLAIN_HTTP).json() == "done"
        gate.open.set()


def test_an_answer_that_does_not_go_on_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SEND_STALL_SECONDS", SOON)
    gate = Gate()
    with (
        web_rig(tmp_path / "archive", routers=[gate.router]) as rig,
        web_serving(rig.application) as thread,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{thread.url}/api/test/half", timeout=WAIT_SECONDS, verify=PLAIN_HTTP)
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
                    httpx.get(f"{thread.url}/api/test/thread", timeout=WAIT_SECONDS, verify=PLAIN_HTTP)
                )
            )
            asking.start()
            assert gate.entered.acquire(timeout=WAIT_SECONDS)
            threading.Timer(SOON, gate.open.set).start()
            began = time.monotonic()
            thread.run(thread.server.stop())
            assert time.monotonic() - began < WAIT_SECONDS / 2
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
