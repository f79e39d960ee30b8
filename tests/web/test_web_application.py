"""What every request goes through: errors as problems, what is taken and given, security fields, and the line in the log."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs

from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.database.errors import DatabaseForeign
from stowkeeper.web.limits import BODY_BYTES_MAX, ERRORS_TOLD_MAX, JSON_DEPTH_MAX
from stowkeeper.web.problems import PROBLEM_JSON, ProblemError
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router, check_routes
from stowkeeper.web.services import WebOptions
from support.web_server import bearer, web_client, web_rig

SECRET = "Doe^Jane"
JSON = {"Content-Type": "application/json"}
WAIT_SECONDS = 30.0


class Wish(BaseModel):
    """What the test route takes."""

    number: int
    text: Any = None


def routes() -> APIRouter:
    """Return routes that fail in many ways."""
    made = api_router("/api/test", tag="test")

    @made.get("/things/{name}")
    @allow(Role.READ)
    def get_thing(name: str) -> str:
        return name

    @made.delete("/things/{name}")
    @allow(Role.READ)
    def delete_thing(name: str) -> None:
        return None

    @made.post("/wishes")
    @allow(Role.READ)
    def post_wish(wish: Wish) -> int:
        return wish.number

    @made.get("/fault")
    @allow(Role.READ)
    def fault() -> None:
        raise ValueError(f"cannot read {SECRET}")

    @made.get("/late-fault")
    @allow(Role.READ, produces=())
    def late_fault() -> StreamingResponse:
        def pieces() -> Iterator[bytes]:
            yield b"begun"
            raise ValueError(f"cannot read {SECRET}")

        return StreamingResponse(pieces())

    @made.get("/busy")
    @allow(Role.READ)
    def busy() -> None:
        raise DatabaseUnavailable("/archive/catalog.sqlite: the disk is full")

    @made.get("/foreign")
    @allow(Role.READ)
    def foreign() -> None:
        raise DatabaseForeign("/archive/catalog.sqlite is another's")

    @made.get("/refusal")
    @allow(Role.READ)
    def refusal() -> None:
        raise ProblemError(409, "it is held", held=["1.2.3"])

    return made


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Give the client of a server whose state no test changes."""
    with web_client(tmp_path_factory.mktemp("web") / "archive", routers=[routes()]) as (found, _):
        yield found


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check that an answer is a problem of a status; return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM_JSON
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["type"] == "about:blank"
    assert found["title"]
    assert found["detail"]
    return found


def wait_for(lines: list[Any], count: int) -> list[Any]:
    """Wait for so many lines about requests: each is written when its answer has gone out. Returns them."""
    end = time.monotonic() + WAIT_SECONDS
    while len(found := [line for line in lines if line["event"] == "request"]) < count:
        assert time.monotonic() < end, lines
        time.sleep(0.001)
    return found


# Problems


@pytest.mark.slow
def test_what_is_not_there_is_404(client: httpx.Client) -> None:
    assert "/api/docs" in problem(client.get("/api/nowhere"), 404)["detail"]
    assert "/api/docs" in problem(client.get("/api"), 404)["detail"]
    problem(client.get("/api/system/"), 404)


def test_outside_of_the_native_interface_errors_have_another_shape(client: httpx.Client) -> None:
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.json()["HttpStatus"] == 404


def test_a_wrong_method_is_405_and_all_right_ones_are_named(client: httpx.Client) -> None:
    answer = client.post("/api/test/things/a", json={})
    problem(answer, 405)
    assert answer.headers["allow"] == "GET, DELETE, HEAD, OPTIONS"


def test_options_names_the_methods(client: httpx.Client) -> None:
    answer = client.options("/api/test/things/a")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == "GET, DELETE, HEAD, OPTIONS"
    problem(client.options("/api/nowhere"), 404)


def test_head_gives_the_fields_of_get(client: httpx.Client) -> None:
    got, asked = client.get("/api/test/things/a"), client.head("/api/test/things/a")
    assert (asked.status_code, asked.content) == (200, b"")
    for name in ("content-length", "content-type"):
        assert asked.headers[name] == got.headers[name]
    # The connection goes on: nothing of a body was sent that the next answer would begin with.
    assert client.get("/api/test/things/b").json() == "b"
    assert client.head("/api/test/wishes").status_code == 405


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", "application/json; q=0.000, image/png", "application/xml"]
)
def test_what_the_client_does_not_take_is_406(client: httpx.Client, accept: str) -> None:
    found = problem(client.get("/api/test/things/a", headers={"Accept": accept}), 406)
    assert "application/json" in found["detail"]


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/*", "text/html, application/json;q=0.1", "APPLICATION/JSON"]
)
def test_what_the_client_takes_is_given(client: httpx.Client, accept: str) -> None:
    assert client.get("/api/test/things/a", headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "application/xml",
        "",
    ],
)
def test_a_body_of_another_type_is_415(client: httpx.Client, content_type: str) -> None:
    answer = client.post("/api/test/wishes", content=b'{"number":1}', headers={"Content-Type": content_type})
    assert "application/json" in problem(answer, 415)["detail"]
    assert answer.headers["accept"] == "application/json"


def test_a_packed_body_is_415(client: httpx.Client) -> None:
    answer = client.post("/api/test/wishes", content=b"x", headers={**JSON, "Content-Encoding": "gzip"})
    problem(answer, 415)


def test_a_body_is_taken_with_a_parameter_in_its_type(client: httpx.Client) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/api/test/wishes", content=b'{"number":1}', headers=headers).json() == 1


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"nonsense",
        b'{"number":',
        b"\xff\xfe",
        b'{"number": 1} x',
        b'{"number": 1' + b"0" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_json_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/api/test/wishes", content=body, headers=JSON)
    problem(answer, 400 if body else 422)


@pytest.mark.parametrize("deep", ["[" * 10_000 + "]" * 10_000, "[" * 20_000, '{"a":' * 500 + "1" + "}" * 500])
def test_deep_nesting_is_400(client: httpx.Client, deep: str) -> None:
    answer = client.post("/api/test/wishes", content=f'{{"number":1,"text":{deep}}}', headers=JSON)
    assert str(JSON_DEPTH_MAX) in problem(answer, 400)["detail"]


def test_brackets_beside_each_other_and_in_texts_are_not_deep(client: httpx.Client) -> None:
    texts = ["[" * 1000, '\\"[{' * 500, *[[]] * 1000]
    assert client.post("/api/test/wishes", json={"number": 7, "text": texts}).json() == 7


def test_half_a_character_is_400(client: httpx.Client) -> None:
    for text in (r"\ud800", r"a\uDFFFb", r"\ud83d\ud83d"):
        body = f'{{"number":1,"text":"{text}"}}'
        problem(client.post("/api/test/wishes", content=body, headers=JSON), 400)
    whole = r'{"number":1,"text":"\ud83d\ude00"}'
    assert client.post("/api/test/wishes", content=whole, headers=JSON).json() == 1


def test_a_body_that_does_not_fit_is_422_and_not_repeated(client: httpx.Client) -> None:
    found = problem(client.post("/api/test/wishes", json={"number": SECRET}), 422)
    assert found["errors"] == [{"where": "body.number", "what": "it has to be a whole number"}]
    assert SECRET not in json.dumps(found)


MISFITS: Any = (
    ("/api/jobs", {}, "body", "it has to have the member 'kind', which says what it is"),
    (
        "/api/jobs",
        {"kind": SECRET},
        "body",
        "its member 'kind' has to be one of 'verify', 'rebuild', 'scrub', 'remove', 'store'",
    ),
    ("/api/jobs", [], "body", "it has to be an object"),
    ("/api/jobs", {"kind": "store", "peer": "pacs"}, "body.store.uids", "it is missing"),
    (
        "/api/jobs",
        {"kind": "store", "peer": "pacs", "uids": []},
        "body.store.uids",
        "it has to have something in it",
    ),
    (
        "/api/jobs",
        {"kind": "store", "peer": "pacs", "uids": SECRET},
        "body.store.uids",
        "it has to be a list",
    ),
    (
        "/api/jobs",
        {"kind": "remove", "reason": "x", "uids": ["1.2", SECRET]},
        "body.remove.uids[1]",
        "it does not have the form that it has to have; /api/docs tells which",
    ),
    (
        "/api/jobs",
        {"kind": "verify", "bytes_per_second": 1},
        "body.verify.bytes_per_second",
        "it has to be at least 1000",
    ),
    ("/api/jobs", {"kind": "verify", SECRET: 1}, "body.verify", "it has a member that is not known here"),
    (
        "/api/peers",
        {"name": "a", "report_on": SECRET},
        "body.report_on",
        "it has to be 'new' or 'same-first'",
    ),
    ("/api/peers", {"name": "a", "may_store": SECRET}, "body.may_store", "it has to be true or false"),
    (
        "/api/peers",
        {"name": "a", "manufacturer": "x" * 65},
        "body.manufacturer",
        "it has to have at most 64 characters",
    ),
)


@pytest.mark.slow
def test_what_does_not_fit_is_told_in_our_words(tmp_path: Path) -> None:
    with web_client(tmp_path / "archive") as (client, _):
        for path, wanted, where, what in MISFITS:
            found = problem(client.post(path, json=wanted), 422)
            assert found["errors"] == [{"where": where, "what": what}], wanted
            assert found["detail"] == f"the request does not fit: {where}"
            assert SECRET not in json.dumps(found)
        found = problem(client.get("/api/jobs", params={"state": SECRET}), 422)
        (error,) = found["errors"]
        assert error["where"] == "query.state"  # the parameter may be repeated: which one it was is no name
        assert error["what"].startswith("it has to be 'pending', 'running'")


@pytest.mark.slow
def test_a_422_tells_few_errors_and_no_name_that_the_request_made_up(tmp_path: Path) -> None:
    with web_client(tmp_path / "archive") as (client, _):
        unknown = {f"{SECRET}{number}": number for number in range(50)}
        found = problem(client.post("/api/jobs", json={"kind": "rebuild", **unknown}), 422)
        assert len(found["errors"]) == ERRORS_TOLD_MAX
        assert {entry["where"] for entry in found["errors"]} == {"body.rebuild"}
        assert "and 40 more" in found["detail"]
        assert SECRET not in json.dumps(found)
        wrong = {"kind": "remove", "reason": "x", "uids": ["x"] * 11}
        found = problem(client.post("/api/jobs", json=wrong), 422)
        assert (len(found["errors"]), "and 1 more" in found["detail"]) == (ERRORS_TOLD_MAX, True)
        # However many there are, they are not looked at one by one.
        many = {f"{SECRET}{number}": number for number in range(30_000)}
        found = problem(client.post("/api/jobs", json={"kind": "rebuild", **many}), 422)
        assert len(found["errors"]) == 1
        assert len(json.dumps(found)) < 1000


def test_the_bound_of_a_body_is_exact(client: httpx.Client) -> None:
    frame = b'{"number":1,"text":""}'
    fits = frame.replace(b'""', b'"' + b"x" * (BODY_BYTES_MAX - len(frame)) + b'"')
    assert len(fits) == BODY_BYTES_MAX
    assert client.post("/api/test/wishes", content=fits, headers=JSON).json() == 1
    problem(client.post("/api/test/wishes", content=fits + b" ", headers=JSON), 413)

    def in_pieces() -> Iterator[bytes]:
        yield fits
        yield b" "

    problem(client.post("/api/test/wishes", content=in_pieces(), headers=JSON), 413)


def test_more_members_of_a_problem_are_told(client: httpx.Client) -> None:
    found = problem(client.get("/api/test/refusal"), 409)
    assert (found["detail"], found["held"]) == ("it is held", ["1.2.3"])


def test_a_fault_is_500_without_a_trace_and_logged(client: httpx.Client) -> None:
    with capture_logs() as lines:
        found = problem(client.get("/api/test/fault"), 500)
    assert SECRET not in json.dumps(found)
    assert "Traceback" not in json.dumps(found)
    (fault,) = [line for line in lines if line["log_level"] == "error"]
    assert fault["route"] == "/api/test/fault"
    assert fault["exc_info"]


def test_a_fault_in_the_middle_of_an_answer_cuts_the_connection(client: httpx.Client) -> None:
    with capture_logs() as lines:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/api/test/late-fault")
        wait_for(lines, 1)
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["error"]
    assert client.get("/api/test/things/a").status_code == 200


def test_a_database_that_cannot_be_used_is_503_and_its_path_not_told(client: httpx.Client) -> None:
    with capture_logs() as lines:
        answer = client.get("/api/test/busy")
    assert answer.headers["retry-after"]
    assert "/archive" not in json.dumps(problem(answer, 503))
    assert "the disk is full" in next(line["reason"] for line in lines if line["log_level"] == "error")
    problem(client.get("/api/test/foreign"), 503)


# Fields and lines


@pytest.mark.parametrize("path", ["/api/live", "/api/nowhere", "/api/test/fault", "/nowhere"])
def test_every_answer_has_the_security_fields(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


def test_a_request_is_one_line_without_what_it_said(tmp_path: Path) -> None:
    with web_client(tmp_path / "archive", routers=[routes()]) as (client, rig), capture_logs() as lines:
        token = rig.token("monitor", Role.READ)
        headers = {"Authorization": f"Bearer {token}", "Referer": f"http://localhost/{SECRET}"}
        client.get(f"/api/test/things/{SECRET}?patient_id={SECRET}", headers=headers)
        client.post("/api/test/wishes", json={"number": 1, "text": SECRET}, headers=headers)
        client.request("PROPFIND", f"/{SECRET}", headers=headers)
        client.get("/api/test/things/a")
        requests = wait_for(lines, 4)
    assert [(line["method"], line["route"], line["status"], line["credential"]) for line in requests] == [
        ("GET", "/api/test/things/{name}", 200, "monitor"),
        ("POST", "/api/test/wishes", 200, "monitor"),
        ("other", "(none)", 404, "monitor"),
        ("GET", "(none)", 401, ""),
    ]
    assert all(0 <= line["seconds"] < 10 for line in requests)
    assert SECRET not in str(lines)
    assert token not in str(lines)


# Cross-origin


def test_pages_of_set_origins_are_let_through_and_others_not(tmp_path: Path) -> None:
    viewer = "https://viewer.example"
    options = WebOptions(allowed_origins=frozenset({viewer}))
    with web_client(tmp_path / "archive", options=options) as (client, _):
        preflight = {
            "Origin": viewer,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        asked = client.options("/api/system", headers=preflight)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == viewer
        got = client.get("/api/system", headers={"Origin": viewer})
        assert (got.status_code, got.headers["access-control-allow-origin"]) == (200, viewer)
        missing = client.get("/api/nowhere", headers={"Origin": viewer})
        assert (missing.status_code, missing.headers["access-control-allow-origin"]) == (404, viewer)
        foreign = client.get("/api/system", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403
        assert "access-control-allow-origin" not in foreign.headers
        refused = client.options("/api/system", headers={**preflight, "Origin": "https://evil.example"})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers


def test_what_a_browser_asks_before_is_a_request_like_others(tmp_path: Path) -> None:
    viewer = "https://viewer.example"
    options = WebOptions(
        allowed_origins=frozenset({"https://Viewer.example"}), requests_burst=6, requests_per_second=0.001
    )
    with web_client(tmp_path / "archive", options=options) as (client, rig):
        token = bearer(rig.token("monitor", Role.READ))
        preflight = {"Origin": viewer, "Access-Control-Request-Method": "DELETE"}
        with capture_logs() as lines:
            asked = client.options("/api/jobs/1", headers=preflight)  # without a credential, as browsers ask
            said = wait_for(lines, 1)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == viewer
        assert asked.headers["x-content-type-options"] == "nosniff"
        assert [(line["method"], line["status"]) for line in said] == [("OPTIONS", 200)]
        patch = client.options("/api/jobs/1", headers={**preflight, "Access-Control-Request-Method": "PATCH"})
        assert patch.status_code == 400
        assert "PATCH" not in asked.headers["access-control-allow-methods"]
        elsewhere = client.options("/api/jobs/1", headers={**preflight, "Host": "evil.example"})
        assert (elsewhere.status_code, "access-control-allow-origin" in elsewhere.headers) == (403, False)
        # A page of the viewer can read why it was refused.
        for fields, status in (({}, 401), (token, 200), ({"Authorization": "Bearer x"}, 401)):
            answer = client.get("/api/system", headers={"Origin": viewer, **fields})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, viewer)
        assert client.options("/api/jobs/1", headers=preflight).status_code == 200
        assert client.options("/api/jobs/1", headers=preflight).status_code == 429


# Rules of routes


def test_a_route_that_does_not_say_whom_it_serves_does_not_start(tmp_path: Path) -> None:
    made = api_router("/api/test", tag="test")

    @made.get("/open")
    def open_to_all() -> None:
        return None

    with pytest.raises(TypeError, match="/api/test/open"), web_rig(tmp_path / "archive", routers=[made]):
        pass


def test_a_router_of_another_kind_does_not_start() -> None:
    made = APIRouter(prefix="/api/test")

    @made.get("/open")
    @allow(Role.READ)
    def open_to_all() -> None:
        return None

    with pytest.raises(TypeError, match="api_router"):
        check_routes([made])
