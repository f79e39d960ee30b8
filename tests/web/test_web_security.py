"""Who may ask: exposure, credentials, roles, rates, and pages of other sites."""

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from fastapi import Request
from sqlalchemy import update

from stowkeeper.database import schema
from stowkeeper.web import credentials, security
from stowkeeper.web.credentials import add_credential, make_credential, remove_credential
from stowkeeper.web.origins import host_name
from stowkeeper.web.roles import EVERYBODY, Audience, Role
from stowkeeper.web.routes import Asker, allow, api_router, rules_of
from stowkeeper.web.security import Authentication, ExposureError, check_exposure, is_loopback
from stowkeeper.web.services import WebOptions
from support.quick_web import PLAIN_HTTP
from support.web_server import Rig, bearer, web_client, web_rig, web_serving

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"
ASKED = tuple(role for role in Role if role is not Role.NONE)
"""The roles that a route can ask for."""


def routes():
    """Return a route for each role that tells who asks, one for who may store, and one for everybody."""
    made = api_router("/api/test", tag="test")

    @made.get("/everybody")
    @allow(EVERYBODY)
    def everybody() -> str:
        return "everybody"

    def add(role: Role) -> None:
        @made.get(f"/{role}")
        @allow(role)
        def who(asker: Asker) -> str:
            return asker.who

    for role in ASKED:
        add(role)

    @made.post("/store", status_code=201)
    @allow(Role.NONE, stores=True, consumes=(), streams=True)
    async def store(request: Request, asker: Asker) -> str:
        return f"{asker.who} stored {len(await request.body())}"

    return made


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[httpx.Client, Rig]]:
    with web_client(tmp_path / "archive", routers=[routes()]) as found:
        yield found


def basic(name: str, password: str) -> dict[str, str]:
    """Return the field that presents a name and a password."""
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


# Exposure


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST", "::ffff:127.0.0.1"]
)
def test_loopback_needs_no_credential(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, credentials_exist=False)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.0.2.1", "pacs.example", "localhost.example", "fe80::1%eth0"]
)
def test_any_other_address_needs_one_and_the_error_names_the_cure(host: str) -> None:
    assert not is_loopback(host)
    check_exposure(host, credentials_exist=True)
    with pytest.raises(ExposureError) as caught:
        check_exposure(host, credentials_exist=False)
    for cure in ("stowkeeper token add", "--http-host 127.0.0.1", "--http-port off"):
        assert cure in str(caught.value)


def test_without_credentials_everybody_here_may_everything(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    for role in ASKED:
        assert client.get(f"/api/test/{role}").json() == "without credential"
    assert client.post("/api/test/store", content=b"abc").json() == "without credential stored 3"


def test_a_credential_where_there_are_none_is_refused_and_not_passed_over(
    served: tuple[httpx.Client, Rig],
) -> None:
    client, rig = served
    for fields in (bearer("nonsense"), basic("joe", PASSWORD), {"Authorization": ""}):
        answer = client.get("/api/test/read", headers=fields)
        assert answer.status_code == 401, fields
        assert "no credential is set up" in answer.json()["detail"]
        assert "Bearer" in answer.headers["www-authenticate"]
        assert client.get("/api/test/everybody", headers=fields).json() == "everybody"
    assert client.get("/api/test/read").json() == "without credential"
    # The first one, made by another process, is known when it is presented, however short a time ago the server looked.
    with rig.archive.database.write() as transaction:
        first = make_credential("monitor", Role.READ)
        add_credential(transaction, first, who="a test")
    assert client.get("/api/test/read", headers=bearer(first.secret)).status_code == 200


def test_who_asks_is_never_believed_to_be_another_address(tmp_path: Path) -> None:
    options = WebOptions(requests_burst=3, requests_per_second=0.001)
    with web_client(tmp_path / "archive", options=options) as (client, rig):
        token = bearer(rig.token())
        for number in range(5):
            claimed = {"X-Forwarded-For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}", **token}
            assert client.get("/api/system", headers=claimed).status_code == (200 if number < 3 else 429)


def test_without_credentials_others_are_served_nothing(tmp_path: Path) -> None:
    # As where the last credential was removed while the server listens to the network.
    with (
        web_rig(tmp_path / "archive", routers=[routes()]) as rig,
        web_serving(rig.application) as thread,
        patch.object(security, "is_loopback", lambda address: address != thread.host),
    ):
        answer = httpx.get(f"{thread.url}/api/test/read", verify=PLAIN_HTTP)
        assert answer.status_code == 403
        assert "stowkeeper token add" in answer.json()["detail"]
        assert httpx.get(f"{thread.url}/api/test/everybody", verify=PLAIN_HTTP).json() == "everybody"


# Credentials


def test_with_a_credential_every_request_needs_one(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    token = rig.token("monitor", Role.READ)
    for path in ("/api/test/read", "/api/nowhere", "/api/docs", "/nowhere", "/api/openapi.json"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert "Bearer" in answer.headers["www-authenticate"]
        assert "Basic" in answer.headers["www-authenticate"]
    assert client.options("/api/test/read").status_code == 401
    assert client.get("/api/test/everybody").json() == "everybody"
    assert client.get("/api/live").status_code == 200
    assert client.get("/api/test/read", headers=bearer(token)).json() == "monitor"


def test_a_body_is_not_read_for_who_may_not_ask(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    rig.token("monitor", Role.READ)
    answer = client.post("/api/jobs", content=b"nonsense", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 401


def test_each_role_may_what_the_one_before_may(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    tokens = {role: rig.token(f"of-{role}", role) for role in Role}
    allowed = {
        (role, asked): client.get(f"/api/test/{asked}", headers=bearer(tokens[role])).status_code
        for role in Role
        for asked in ASKED
    }
    assert allowed == {
        ("none", "read"): 403,
        ("none", "operate"): 403,
        ("none", "admin"): 403,
        ("read", "read"): 200,
        ("read", "operate"): 403,
        ("read", "admin"): 403,
        ("operate", "read"): 200,
        ("operate", "operate"): 200,
        ("operate", "admin"): 403,
        ("admin", "read"): 200,
        ("admin", "operate"): 200,
        ("admin", "admin"): 200,
    }
    refused = client.get("/api/test/admin", headers=bearer(tokens[Role.READ])).json()
    assert refused["needed_role"] == "admin"


def test_every_route_has_a_role_and_liveness_alone_has_none(tmp_path: Path) -> None:
    with web_rig(tmp_path / "archive") as rig:
        open_to_all = set()
        for route in rig.application.router.routes:
            rules = rules_of(route.endpoint)  # type: ignore[attr-defined]  # they are routes of ours
            assert rules is not None
            if rules.role is EVERYBODY:
                open_to_all.add(route.path)  # type: ignore[attr-defined]  # likewise
            assert rules.stores is (rules.role is Role.NONE)
        assert open_to_all == {"/api/live", "/livez", "/readyz"}


# Permission to store


def test_to_store_asks_for_the_permission_and_for_no_role(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    for role in Role:
        for may_store in (True, False):
            name = f"{role}-{may_store}"
            token = bearer(rig.token(name, role, may_store=may_store))
            answer = client.post("/api/test/store", content=b"abc", headers=token)
            if may_store:
                assert (answer.status_code, answer.json()) == (201, f"{name} stored 3")
                continue
            assert answer.status_code == 403
            assert answer.headers["content-type"] == "application/problem+json"
            told = answer.json()
            assert (told["title"], told["needed_permission"]) == ("Forbidden", "store")
            assert f"'{name}'" in told["detail"]
            assert "--store" in told["detail"]
            assert "needed_role" not in told
    rig.password("joe", Role.NONE, PASSWORD, may_store=True)
    assert client.post("/api/test/store", headers=basic("joe", PASSWORD)).json() == "joe stored 0"
    assert client.post("/api/test/store").status_code == 401
    assert client.post("/api/test/store", headers=basic("joe", PASSWORD + "x")).status_code == 401


@pytest.mark.parametrize("fields", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_of_a_body_that_may_not_be_stored_nothing_is_asked_for(
    served: tuple[httpx.Client, Rig], fields: str
) -> None:
    client, rig = served
    for token, expected in (
        (rig.token("keeper", Role.NONE, may_store=True), b"HTTP/1.1 100 "),
        (rig.token("operator", Role.OPERATE, may_store=False), b"HTTP/1.1 403 "),
    ):
        host, port = client.base_url.host, client.base_url.port or 0
        head = (
            f"POST /api/test/store HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{fields}\r\n"
            "Expect: 100-continue\r\n\r\n"
        )
        with socket.create_connection((host, port), 30) as connection:
            connection.sendall(head.encode())
            assert connection.recv(13) == expected


def test_a_permission_that_is_taken_away_ends_within_a_second(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    token = bearer(rig.token("sender", Role.NONE, may_store=True))
    assert client.post("/api/test/store", headers=token).status_code == 201
    # By hand, in another process: nobody tells the book, and the secret is remembered.
    with rig.archive.database.write() as transaction:
        transaction.execute(update(schema.credentials).values(may_store=0))
    rig.application.state.credential_book._read_at -= credentials.CREDENTIALS_FRESH_SECONDS
    assert client.post("/api/test/store", headers=token).status_code == 403


def test_that_everybody_is_served_has_to_be_said() -> None:
    with pytest.raises(TypeError, match="EVERYBODY"):
        allow(None)  # type: ignore[arg-type]  # the very mistake


@pytest.mark.parametrize("role", [EVERYBODY, *ASKED])
def test_a_route_asks_for_a_role_or_for_the_permission(role: Role | Audience) -> None:
    with pytest.raises(ValueError, match="in place of one"):
        allow(role, stores=True)
    with pytest.raises(ValueError, match="in place of one"):
        allow(Role.NONE)


@pytest.mark.parametrize("may_store", [False, True])
def test_the_role_none_sees_nothing_anywhere(tmp_path: Path, may_store: bool) -> None:
    options = WebOptions(requests_burst=1e9)
    with web_client(tmp_path / "archive", options=options) as (client, rig):
        token = bearer(rig.token("nobody", Role.NONE, may_store=may_store))
        asked = 0
        for route in rig.application.router.routes:
            rules, path = rules_of(route.endpoint), _some_path(route.path_format)  # type: ignore[attr-defined]  # they are routes of ours
            assert rules is not None
            for method in route.methods:  # type: ignore[attr-defined]  # likewise
                answers = [client.request(method, path, headers=token)]
                if method == "GET":
                    answers.append(client.head(path, headers=token))
                for answer in answers:
                    if rules.role is EVERYBODY:
                        assert path in {"/api/live", "/livez", "/readyz"}
                    elif rules.stores and may_store:
                        # It gets as far as the body, which there is none of.
                        assert method == "POST", path
                        assert 400 <= answer.status_code < 500, (path, answer.text)
                        assert answer.status_code not in {401, 403}, (path, answer.text)
                    else:
                        assert answer.status_code == 403, (method, path, answer.text)
                asked += len(answers)
        assert asked > 100
        for path in ("/api", "/nowhere", "/api/nowhere"):
            assert client.get(path, headers=token).status_code == 404


def _some_path(template: str) -> str:
    """Return an address that a route has, of its template."""
    return re.sub(r"\{[^}]*\}", "1", template)


def test_a_password_opens_by_basic_authentication(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    rig.password("joe", Role.OPERATE, PASSWORD)
    assert client.get("/api/test/operate", headers=basic("joe", PASSWORD)).json() == "joe"
    assert client.get("/api/test/operate", headers=basic("joe", PASSWORD + "x")).status_code == 401
    assert client.get("/api/test/operate", headers=basic("jo", PASSWORD)).status_code == 401
    # A token is no password, and a password no token.
    assert client.get("/api/test/operate", headers=bearer(f"stowkeeper.joe.{PASSWORD}")).status_code == 401
    token = rig.token("ann", Role.ADMIN)
    secret = token.rpartition(".")[2]
    assert client.get("/api/test/read", headers=basic("ann", secret)).status_code == 401


@pytest.mark.parametrize(
    "field",
    [
        "Bearer",
        "bearer x",
        "Bearer nonsense",
        "Bearer stowkeeper.monitor.",
        "Bearer stowkeeper..x",
        "Bearer stowkeeper.monitor.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "Basic",
        "Basic !!!",
        "Basic /////w==",
        "Basic bm9jb2xvbg==",
        "Digest username=monitor",
        "\xff\xfe",
    ],
)
def test_a_wrong_credential_is_401(served: tuple[httpx.Client, Rig], field: str) -> None:
    client, rig = served
    rig.token("monitor", Role.READ)
    answer = client.get("/api/test/read", headers=[(b"Authorization", field.encode("latin-1"))])
    assert answer.status_code == 401
    assert "monitor" not in answer.text


def test_two_credentials_in_one_request_are_none(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    token = rig.token("monitor", Role.READ)
    both = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert client.get("/api/test/read", headers=both).status_code == 401


def test_a_removed_credential_is_closed_within_a_second(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    rig.token("keeper", Role.ADMIN)
    token = rig.token("monitor", Role.READ)
    assert client.get("/api/test/read", headers=bearer(token)).status_code == 200
    # By another process: nobody tells the book.
    with rig.archive.database.write() as transaction:
        remove_credential(transaction, "monitor", who="a test")
    rig.application.state.credential_book._read_at -= credentials.CREDENTIALS_FRESH_SECONDS
    assert client.get("/api/test/read", headers=bearer(token)).status_code == 401


def test_a_secret_is_hashed_once_and_then_remembered(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    token = rig.token("monitor", Role.READ)
    with patch.object(hashlib, "scrypt", wraps=hashlib.scrypt) as scrypt:
        for _ in range(5):
            assert client.get("/api/test/read", headers=bearer(token)).status_code == 200
        assert scrypt.call_count == 1
        # Many at once, of one client that was not heard of: each is let in, and few were hashed at a time.
        other = rig.token("other", Role.READ)
        scrypt.reset_mock()
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: client.get("/api/test/read", headers=bearer(other)), range(24)))
        assert {answer.status_code for answer in answers} == {200}
        assert scrypt.call_count <= security.SCRYPTS_AT_ONCE


# Rates


def test_wrong_credentials_are_soon_not_looked_at(tmp_path: Path) -> None:
    options = WebOptions(failed_authentications_burst=3, failed_authentications_per_second=0.001)
    with web_client(tmp_path / "archive", options=options) as (client, rig):
        known = rig.token("known", Role.READ)
        fresh = rig.token("fresh", Role.READ)
        assert client.get("/api/system", headers=bearer(known)).status_code == 200
        wrong = bearer(fresh + "x")
        statuses = [client.get("/api/system", headers=wrong).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        refused = client.get("/api/system", headers=wrong)
        assert int(refused.headers["retry-after"]) > 1
        with patch.object(hashlib, "scrypt") as scrypt:
            assert client.get("/api/system", headers=wrong).status_code == 429
            assert client.get("/api/system", headers=bearer(fresh)).status_code == 429
        scrypt.assert_not_called()
        # Who was let in a moment ago from the same address goes on.
        assert client.get("/api/system", headers=bearer(known)).status_code == 200
        # And no credential at all is no failure.
        assert client.get("/api/system").status_code == 401


def test_who_mistypes_keeps_no_other_of_the_same_address_out(tmp_path: Path) -> None:
    options = WebOptions(
        failed_authentications_burst=3,
        failed_authentications_per_second=0.001,
        client_failures_burst=8,
        client_failures_per_second=0.001,
    )
    with web_client(tmp_path / "archive", options=options) as (client, rig):
        rig.password("joe", Role.READ, PASSWORD)
        tokens = [rig.token(f"known{number}", Role.READ) for number in range(2)]

        def status(fields: dict[str, str]) -> int:
            return client.get("/api/system", headers=fields).status_code

        assert [status(basic("joe", "wrong")) for _ in range(5)] == [401, 401, 401, 429, 429]
        assert status(basic("joe", PASSWORD)) == 429
        assert status(bearer(tokens[0])) == 200
        # A name that there is not is counted as one that there is.
        assert [status(basic("x" * 9000, "wrong")) for _ in range(4)] == [401, 401, 401, 429]
        # All names together have a bound too, since each guess costs us time.
        assert [status(basic(f"name{number}", "wrong")) for number in range(4)] == [401, 401, 429, 429]
        assert status(bearer(tokens[1])) == 429
        assert status(bearer(tokens[0])) == 200
        buckets = _layer(rig, Authentication)._failures._buckets
        assert all(len(name) < 100 for name in buckets)


def _layer(rig: Rig, kind: type) -> Any:
    """Return a layer of the application."""
    layer: Any = rig.application.middleware_stack
    while not isinstance(layer, kind):
        layer = next(getattr(layer, name) for name in ("_app", "app", "_fields") if hasattr(layer, name))
    return layer


def test_guesses_at_once_are_no_more_than_guesses_in_turn(tmp_path: Path) -> None:
    options = WebOptions(failed_authentications_burst=3, failed_authentications_per_second=0.001)
    with web_client(tmp_path / "archive", options=options) as (client, rig):
        token = rig.token("known", Role.READ)
        with (
            patch.object(hashlib, "scrypt", wraps=hashlib.scrypt) as scrypt,
            ThreadPoolExecutor(20) as pool,
        ):
            answers = list(
                pool.map(lambda n: client.get("/api/system", headers=bearer(f"{token}{n}")), range(40))
            )
        assert {answer.status_code for answer in answers} == {401, 429}
        assert scrypt.call_count < 3 + security.SCRYPTS_AT_ONCE


def test_who_asks_too_often_is_429(tmp_path: Path) -> None:
    options = WebOptions(requests_burst=5, requests_per_second=0.5)
    with web_client(tmp_path / "archive", options=options) as (client, _):
        statuses = [client.get("/api/live").status_code for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        assert 1 <= int(client.get("/api/live").headers["retry-after"]) <= 2


# Pages of other sites


OURS = (
    "127.0.0.1:8042",
    "127.0.0.1",
    "[::1]:8042",
    "192.0.2.7",
    "localhost",
    "LocalHost:1",
    "a.localhost:8042",
    "pacs.example",
    "PACS.example.:8042",
)
NOT_OURS = (
    "evil.example",
    "evil.example:8042",
    "localhost.evil.example",
    "pacs.example.evil.example",
    "127.0.0.1.evil.example",
    "[::1",
    "::1",
    "localhost:80x",
    "user@localhost",
    "",
)


def test_a_name_that_is_not_ours_is_403(tmp_path: Path) -> None:
    options = WebOptions(allowed_hosts=frozenset({"pacs.example"}))
    with web_client(tmp_path / "archive", options=options) as (client, _):
        for host in OURS:
            assert client.get("/api/live", headers={"Host": host}).status_code == 200, host
        for host in NOT_OURS:
            assert client.get("/api/live", headers={"Host": host}).status_code == 403, host


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1", 403), ("localhost", 403), ("0.0.0.0", 200), ("::", 200)]
)
def test_the_name_of_this_machine_is_ours_where_the_network_is_served(
    tmp_path: Path, host: str, status: int
) -> None:
    # On the loopback interface alone nobody needs it, and who answers for it in the network could rebind it.
    with web_client(tmp_path / "archive", options=WebOptions(host=host)) as (client, _):
        fields = {"Host": f"{socket.gethostname()}:8042"}
        assert client.get("/api/live", headers=fields).status_code == status


def test_a_request_without_or_with_two_hosts_is_400(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    for fields in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), 10) as sock:
            sock.sendall(b"GET /api/live HTTP/1.0\r\n" + fields + b"\r\n")
            assert b" 400 " in sock.recv(100)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_page_of_another_origin_is_403(served: tuple[httpx.Client, Rig], method: str) -> None:
    client, _ = served
    for origin in (
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "file://",
        "http://127.0.0.1:1",
    ):
        assert client.request(method, "/api/live", headers={"Origin": origin}).status_code == 403, origin


def test_our_own_pages_are_served(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    own = f"http://{client.base_url.netloc.decode()}"
    assert client.get("/api/live", headers={"Origin": own}).status_code == 200


def test_a_form_of_another_site_is_403_and_a_link_is_followed(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    across = {"Sec-Fetch-Site": "cross-site"}
    assert client.post("/api/jobs", json={"kind": "rebuild"}, headers=across).status_code == 403
    assert client.delete("/api/jobs/x", headers=across).status_code == 403
    assert client.get("/api/docs", headers=across).status_code == 200
    same = {"Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/jobs", json={"kind": "rebuild"}, headers=same).status_code == 201


def test_hosts_are_read_as_they_are_written() -> None:
    assert host_name("a.example:80") == "a.example"
    assert host_name("a.example.") == "a.example"
    assert host_name("[2001:db8::1]:80") == "2001:db8::1"
    assert host_name("[2001:db8::1]80") is None
    assert host_name("2001:db8::1") is None
    assert host_name(":80") is None


def test_a_slow_hash_keeps_nobody_else_waiting(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    token = rig.token("monitor", Role.READ)
    assert client.get("/api/test/read", headers=bearer(token)).status_code == 200
    entered, go_on = threading.Event(), threading.Event()

    def slow(*arguments: object, **more: object) -> bytes:
        entered.set()
        go_on.wait(30)
        return bytes(64)

    with patch.object(hashlib, "scrypt", slow), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "/api/test/read", headers=bearer(token + "x"))
        assert entered.wait(30)
        assert client.get("/api/test/read", headers=bearer(token)).status_code == 200
        assert client.get("/api/live").status_code == 200
        go_on.set()
        assert waiting.result(30).status_code == 401
