"""Who may ask: exposure, credentials, roles, rates, and pages of other sites."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest

from stowkeeper.web import credentials, security
from stowkeeper.web.credentials import remove_credential
from stowkeeper.web.origins import host_name
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow, api_router, rules_of
from stowkeeper.web.security import ExposureError, check_exposure, is_loopback
from stowkeeper.web.services import WebOptions
from support.web_server import Rig, bearer, web_client, web_rig, web_serving

PASSWORD = "correct horse battery"


def routes():
    """Return a route for each role that tells who asks, and one for everybody."""
    made = api_router("/api/test", tag="test")

    @made.get("/everybody")
    @allow(None)
    def everybody() -> str:
        return "everybody"

    def add(role: Role) -> None:
        @made.get(f"/{role}")
        @allow(role)
        def who(asker: Asker) -> str:
            return asker.who

    for role in Role:
        add(role)
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
    for role in Role:
        assert client.get(f"/api/test/{role}").json() == "without credential"


def test_who_asks_is_never_believed_to_be_another_address(tmp_path: Path) -> None:
    options = WebOptions(requests_burst=3, requests_per_second=0.001)
    with web_client(tmp_path / "archive", options=options) as (client, _):
        for number in range(5):
            claimed = {"X-Forwarded-For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}"}
            assert client.get("/api/system", headers=claimed).status_code == (200 if number < 3 else 429)


def test_without_credentials_others_are_served_nothing(tmp_path: Path) -> None:
    # As where the last credential was removed while the server listens to the network.
    with (
        web_rig(tmp_path / "archive", routers=[routes()]) as rig,
        web_serving(rig.application) as thread,
        patch.object(security, "is_loopback", lambda address: address != thread.host),
    ):
        answer = httpx.get(f"{thread.url}/api/test/read")
        assert answer.status_code == 403
        assert "stowkeeper token add" in answer.json()["detail"]
        assert httpx.get(f"{thread.url}/api/test/everybody").json() == "everybody"


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
        for asked in Role
    }
    assert allowed == {
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
            if rules.role is None:
                open_to_all.add(route.path)  # type: ignore[attr-defined]  # likewise
        assert open_to_all == {"/api/live"}


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


def test_the_name_of_this_machine_is_ours(served: tuple[httpx.Client, Rig]) -> None:
    import socket

    client, _ = served
    assert client.get("/api/live", headers={"Host": f"{socket.gethostname()}:8042"}).status_code == 200


def test_a_request_without_or_with_two_hosts_is_400(served: tuple[httpx.Client, Rig]) -> None:
    import socket

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
        go_on.wait(10)
        return bytes(64)

    with patch.object(hashlib, "scrypt", slow), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "/api/test/read", headers=bearer(token + "x"))
        assert entered.wait(10)
        assert client.get("/api/test/read", headers=bearer(token)).status_code == 200
        assert client.get("/api/live").status_code == 200
        go_on.set()
        assert waiting.result(10).status_code == 401
