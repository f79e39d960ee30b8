"""Requests by way of a proxy: whom they are counted for, and that nobody else is believed to be one."""

import json
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Request
from structlog.testing import capture_logs

from stowkeeper.web.forwarding import FIELDS
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.security import ExposureError, check_exposure
from stowkeeper.web.services import WebOptions
from support.web_server import bearer, web_client

HERE = (ip_network("127.0.0.1/32"),)
CHAIN = (*HERE, ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))
Fields = Sequence[tuple[str, str]]


def routes() -> APIRouter:
    """Return a route that tells whose request it is."""
    made = api_router("/api/test", tag="test")

    @made.get("/client")
    @allow(Role.READ)
    def client(request: Request) -> list[str]:
        return [request.client.host if request.client else "", request.url.scheme]

    return made


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A server behind proxies here and elsewhere, and a credential."""
    options = WebOptions(trusted_proxies=CHAIN)
    root = tmp_path_factory.mktemp("chain") / "archive"
    with web_client(root, options=options, routers=[routes()]) as (client, rig):
        yield client, bearer(rig.token("monitor", Role.READ))


def told(served: tuple[httpx.Client, dict[str, str]], *fields: tuple[str, str]) -> tuple[int, object]:
    client, token = served
    answer = client.get("/api/test/client", headers=[*token.items(), *fields])
    return answer.status_code, answer.json() if answer.status_code == 200 else answer.json()["detail"]


PROXY = "127.0.0.1"


@pytest.mark.parametrize(
    ("fields", "address", "scheme"),
    [
        ([], PROXY, "http"),
        ([("X-Forwarded-For", "192.0.2.7")], "192.0.2.7", "http"),
        ([("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")], "192.0.2.7", "https"),
        # The last that is not trusted: what stands to its left is its own word.
        ([("X-Forwarded-For", "198.51.100.1, 192.0.2.7")], "192.0.2.7", "http"),
        ([("X-Forwarded-For", "198.51.100.1, 192.0.2.7, 10.1.2.3")], "192.0.2.7", "http"),
        ([("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "192.0.2.7")], "192.0.2.7", "http"),
        ([("X-Forwarded-For", "127.0.0.1, 192.0.2.7")], "192.0.2.7", "http"),
        ([("X-Forwarded-For", "10.1.2.3, 10.1.2.4")], "10.1.2.3", "http"),
        ([("X-Forwarded-For", "192.0.2.7:4711")], "192.0.2.7", "http"),
        ([("X-Forwarded-For", "2001:db8::7")], "2001:db8::7", "http"),
        ([("X-Forwarded-For", "[2001:db8::7]:4711, 2001:db8:1::1")], "2001:db8::7", "http"),
        ([("X-Forwarded-For", "192.0.2.7, unknown")], PROXY, "http"),
        ([("X-Forwarded-For", "192.0.2.7, unknown, 10.1.2.3")], "10.1.2.3", "http"),
        ([("X-Forwarded-For", "")], PROXY, "http"),
        ([("X-Forwarded-For", "nonsense;")], PROXY, "http"),
        (
            [("X-Forwarded-For", "192.0.2.7, 10.1.2.3"), ("X-Forwarded-Proto", "https, http")],
            "192.0.2.7",
            "https",
        ),
        ([("X-Forwarded-For", "192.0.2.7, 10.1.2.3"), ("X-Forwarded-Proto", "https")], "192.0.2.7", "https"),
        ([("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https, http")], "192.0.2.7", "http"),
        ([("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "gopher")], "192.0.2.7", "http"),
        ([("X-Forwarded-Proto", "https")], PROXY, "https"),
        ([("Forwarded", "for=192.0.2.7;proto=https;by=10.1.2.3")], "192.0.2.7", "https"),
        ([("Forwarded", 'For="[2001:db8::7]:4711"; Proto=HTTPS')], "2001:db8::7", "https"),
        ([("Forwarded", "for=198.51.100.1;proto=https, for=192.0.2.7")], "192.0.2.7", "http"),
        ([("Forwarded", 'for=192.0.2.7;host="a,b;for=198.51.100.1", for=10.1.2.3')], "192.0.2.7", "http"),
        ([("Forwarded", "for=192.0.2.7"), ("Forwarded", "for=10.1.2.3;proto=https")], "192.0.2.7", "http"),
        ([("Forwarded", "for=_hidden, for=10.1.2.3")], "10.1.2.3", "http"),
        ([("Forwarded", "for=192.0.2.7, = , for=10.1.2.3")], "10.1.2.3", "http"),
        ([("Forwarded", 'for="192.0.2.7')], PROXY, "http"),
        (
            [("Forwarded", "for=192.0.2.7"), ("X-Forwarded-For", "198.51.100.1, 192.0.2.7")],
            "192.0.2.7",
            "http",
        ),
        ([("X-Real-IP", "192.0.2.7"), ("Via", "1.1 proxy")], PROXY, "http"),
    ],
)
def test_the_last_hop_that_is_not_trusted_is_the_client(
    chain: tuple[httpx.Client, dict[str, str]], fields: Fields, address: str, scheme: str
) -> None:
    assert told(chain, *fields) == (200, [address, scheme])


def test_two_fields_that_tell_of_two_clients_are_400(chain: tuple[httpx.Client, dict[str, str]]) -> None:
    status, words = told(chain, ("Forwarded", "for=198.51.100.1"), ("X-Forwarded-For", "192.0.2.7"))
    assert status == 400
    assert "tell of two clients" in str(words)


def test_nobody_else_is_believed(tmp_path: Path) -> None:
    options = WebOptions(trusted_proxies=(ip_network("10.0.0.0/8"),))
    with web_client(tmp_path / "archive", options=options, routers=[routes()]) as (client, rig):
        token = bearer(rig.token("monitor", Role.READ))
        fields = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")]
        assert told((client, token), *fields) == (200, [PROXY, "http"])
        assert told((client, token), ("Forwarded", "for=192.0.2.7;proto=https")) == (200, [PROXY, "http"])


@pytest.mark.slow
def test_each_client_of_a_proxy_has_its_own_rates(tmp_path: Path) -> None:
    options = WebOptions(
        trusted_proxies=HERE,
        requests_burst=3,
        requests_per_second=0.001,
        failed_authentications_burst=1,
        failed_authentications_per_second=0.001,
    )
    with web_client(tmp_path / "archive", options=options) as (client, rig):
        token = rig.token("monitor", Role.READ)

        def statuses(address: str, token: str) -> list[int]:
            fields = {"X-Forwarded-For": address, **bearer(token)}
            return [client.get("/api/system", headers=fields).status_code for _ in range(4)]

        assert statuses("192.0.2.1", token + "x") == [401, 429, 429, 429]
        assert statuses("192.0.2.2", token) == [200, 200, 200, 429]
        assert statuses("192.0.2.3", token) == [200, 200, 200, 429]


# Without a credential


@pytest.mark.parametrize("field", FIELDS)
def test_without_credentials_nobody_is_served_by_way_of_a_proxy(tmp_path: Path, field: str) -> None:
    with web_client(tmp_path / "archive", routers=[routes()]) as (client, _):
        assert client.get("/api/test/client").status_code == 200
        answer = client.get("/api/test/client", headers={field: "127.0.0.1"})
        assert answer.status_code == 403
        assert "stowkeeper token add" in answer.json()["detail"]
        assert client.get("/api/live", headers={field: "127.0.0.1"}).status_code == 200


@pytest.mark.parametrize(
    "options",
    [
        WebOptions(allowed_hosts=frozenset({"pacs.example"})),
        WebOptions(trusted_proxies=(ip_network("10.0.0.0/8"),)),
        WebOptions(host="0.0.0.0"),
    ],
)
def test_where_a_proxy_is_spoken_of_a_credential_is_needed_and_the_last_one_stays(
    tmp_path: Path, options: WebOptions
) -> None:
    with web_client(tmp_path / "archive", options=options, routers=[routes()]) as (client, rig):
        assert client.get("/api/test/client").status_code == 403
        admin, other = (bearer(rig.token(name, Role.ADMIN)) for name in ("admin", "other"))
        assert client.delete("/api/credentials/other", headers=admin).status_code == 204
        assert client.get("/api/test/client", headers=other).status_code == 401
        refused = client.delete("/api/credentials/admin", headers=admin)
        assert (refused.status_code, "last credential" in refused.text) == (409, True)
        assert client.get("/api/test/client", headers=admin).status_code == 200


def test_names_of_this_machine_alone_need_no_credential(tmp_path: Path) -> None:
    options = WebOptions(allowed_hosts=frozenset({"localhost", "127.0.0.1"}))
    with web_client(tmp_path / "archive", options=options, routers=[routes()]) as (client, _):
        assert client.get("/api/test/client").status_code == 200


def test_a_start_behind_a_proxy_without_a_credential_is_refused_in_words() -> None:
    check_exposure("127.0.0.1", credentials_exist=False, allowed_hosts=("localhost",))
    check_exposure("127.0.0.1", credentials_exist=True, allowed_hosts=("pacs.example",), trusted_proxies=HERE)
    for name, more in (
        ("http.allowed_hosts", {"allowed_hosts": ("localhost", "pacs.example")}),
        ("http.trusted_proxies", {"trusted_proxies": HERE}),
    ):
        with pytest.raises(ExposureError) as caught:
            check_exposure("127.0.0.1", credentials_exist=False, **more)
        assert name in str(caught.value)
        assert "stowkeeper token add" in str(caught.value)


@pytest.mark.slow
def test_what_came_by_way_of_a_proxy_is_kept_with_its_own_address(tmp_path: Path) -> None:
    from support.instances import make_instance
    from support.orthanc_rig import part10_of

    options = WebOptions(trusted_proxies=HERE)
    with (
        capture_logs() as lines,
        web_client(tmp_path / "archive", options=options) as (client, rig),
    ):
        fields = {**bearer(rig.token("sender", Role.ADMIN)), "X-Forwarded-For": "192.0.2.7"}
        body = part10_of(make_instance(1))
        assert client.post("/instances", content=body, headers=fields).status_code == 200
        (receipt,) = client.get("/api/receipts", headers=fields).json()["items"]
        assert "192.0.2.7" in json.dumps(receipt)
    # The server has ended, and with it each request has written its line.
    assert {line["client"] for line in lines if line["event"] == "request"} == {"192.0.2.7"}
