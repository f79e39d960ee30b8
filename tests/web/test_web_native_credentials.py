"""/api/credentials: who may use the interface, changed through itself."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest

from stowkeeper.web import native_credentials
from stowkeeper.web.roles import Role
from support.web_server import Rig, bearer, web_client


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[httpx.Client, Rig]]:
    with web_client(tmp_path / "archive") as found:
        yield found


def test_the_first_token_shuts_the_door_behind_it(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    added = client.post("/api/credentials", json={"name": "ops", "role": "admin"})
    assert added.status_code == 201, added.text
    assert added.headers["location"] == "/api/credentials/ops"
    shown = added.json()
    assert (shown["name"], shown["kind"], shown["role"], shown["created_by"]) == (
        "ops",
        "token",
        "admin",
        "without credential",
    )
    assert client.get("/api/system").status_code == 401
    listed = client.get("/api/credentials", headers=bearer(shown["token"]))
    assert listed.status_code == 200
    (one,) = listed.json()["items"]
    assert set(one) == {"name", "kind", "role", "created_at", "created_by"}
    assert "scrypt" not in listed.text
    assert shown["token"].rpartition(".")[2] not in listed.text


def test_a_password_is_taken_and_not_shown(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    admin = bearer(rig.token("ops", Role.ADMIN))
    wanted = {"name": "joe", "role": "read", "password": "correct horse battery"}
    added = client.post("/api/credentials", json=wanted, headers=admin)
    assert added.status_code == 201
    assert (added.json()["kind"], added.json()["token"]) == ("password", None)
    assert "correct horse" not in added.text
    assert client.get("/api/system", auth=("joe", "correct horse battery")).status_code == 200


def test_a_removed_one_opens_nothing_at_once(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    admin, token = bearer(rig.token("ops", Role.ADMIN)), bearer(rig.token("monitor", Role.READ))
    assert client.get("/api/system", headers=token).status_code == 200
    assert client.delete("/api/credentials/monitor", headers=admin).status_code == 204
    assert client.get("/api/system", headers=token).status_code == 401
    assert client.delete("/api/credentials/monitor", headers=admin).status_code == 404


def test_names_and_secrets_have_rules(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    admin = bearer(rig.token("ops", Role.ADMIN))
    assert (
        client.post("/api/credentials", json={"name": "ops", "role": "read"}, headers=admin).status_code
        == 409
    )
    for wanted in (
        {"name": "a.b", "role": "read"},
        {"name": "", "role": "read"},
        {"name": "x" * 65, "role": "read"},
        {"name": "a", "role": "king"},
        {"name": "a"},
        {"name": "a", "role": "read", "password": "short"},
        {"name": "a", "role": "read", "password": "ä" * 200},
        {"name": "a", "role": "read", "secret": "x" * 20},
    ):
        answer = client.post("/api/credentials", json=wanted, headers=admin)
        assert answer.status_code == 422, wanted
        assert str(wanted.get("password", "\0")) not in answer.text
    assert client.delete("/api/credentials/a.b", headers=admin).status_code == 422


def test_only_administrators_see_and_change_them(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    operator = bearer(rig.token("operator", Role.OPERATE))
    assert client.get("/api/credentials", headers=operator).status_code == 403
    wanted = {"name": "me", "role": "admin"}
    assert client.post("/api/credentials", json=wanted, headers=operator).status_code == 403
    assert client.delete("/api/credentials/operator", headers=operator).status_code == 403


def test_the_last_one_stays_where_the_network_is_served(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    admin = bearer(rig.token("ops", Role.ADMIN))
    with patch.object(native_credentials, "is_loopback", lambda _host: False):
        refused = client.delete("/api/credentials/ops", headers=admin)
    assert refused.status_code == 409
    assert client.get("/api/system", headers=admin).status_code == 200
    assert client.delete("/api/credentials/ops", headers=admin).status_code == 204
    assert client.get("/api/system").status_code == 200
