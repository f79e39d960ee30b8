"""/api/credentials: who may use the interface, changed through itself."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stowkeeper.web.roles import Role
from stowkeeper.web.services import WebOptions
from support.web_server import Rig, bearer, web_client

pytestmark = pytest.mark.slow


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
    assert set(one) == {"name", "kind", "role", "may_store", "created_at", "created_by"}
    assert one["may_store"] is shown["may_store"] is True
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


@pytest.mark.parametrize(
    ("wanted", "may_store"),
    [
        ({"role": "none"}, False),
        ({"role": "read"}, False),
        ({"role": "operate"}, True),
        ({"role": "admin", "may_store": None}, True),
        ({"role": "none", "may_store": True}, True),
        ({"role": "admin", "may_store": False}, False),
        ({"role": "none", "may_store": True, "password": "correct horse battery"}, True),
    ],
)
def test_to_store_is_permitted_by_the_role_unless_it_is_said(
    served: tuple[httpx.Client, Rig], wanted: dict[str, object], may_store: bool
) -> None:
    client, rig = served
    admin = bearer(rig.token("ops", Role.ADMIN))
    added = client.post("/api/credentials", json={"name": "one", **wanted}, headers=admin)
    assert (added.status_code, added.json()["may_store"]) == (201, may_store)
    listed = client.get("/api/credentials", headers=admin).json()["items"]
    assert {one["name"]: (one["role"], one["may_store"]) for one in listed} == {
        "ops": ("admin", True),
        "one": (wanted["role"], may_store),
    }


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
        {"name": "a", "role": "read", "may_store": "yes"},
        {"name": "a", "role": "read", "may_store": 1},
        {"name": "a", "may_store": True},
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


def test_the_last_one_stays_where_the_network_is_served(
    served: tuple[httpx.Client, Rig], tmp_path: Path
) -> None:
    # By way of the loopback interface too: what counts is where the server listens.
    with web_client(tmp_path / "network", options=WebOptions(host="0.0.0.0")) as (client, rig):
        admin = bearer(rig.token("ops", Role.ADMIN))
        refused = client.delete("/api/credentials/ops", headers=admin)
        assert refused.status_code == 409
        assert client.get("/api/system", headers=admin).status_code == 200
    client, rig = served
    admin = bearer(rig.token("ops", Role.ADMIN))
    assert client.delete("/api/credentials/ops", headers=admin).status_code == 204
    assert client.get("/api/system").status_code == 200
