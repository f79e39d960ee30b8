"""Storing from pages of other origins (CORS): what a browser asks before, and what a page may read of every answer."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stowkeeper.web.roles import Role
from stowkeeper.web.services import WebOptions
from support.instances import make_instance
from support.orthanc_rig import part10_of
from support.stow_bodies import RELATED, body_of
from support.web_server import Rig, bearer, web_client
from support.web_studies import STUDIES, Storing

pytestmark = pytest.mark.slow

VIEWER = "https://viewer.example"
OTHERS = ("https://evil.example", "https://viewer.example.evil.example", "http://viewer.example", "null")
ASKED = {
    "Origin": VIEWER,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "accept, authorization, content-type",
}
"""What browsers ask before a page stores: by the client of web viewers, with a token, looking at the progress."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[httpx.Client, Rig]]:
    options = WebOptions(allowed_origins=frozenset({VIEWER}))
    with web_client(tmp_path / "archive", options=options) as found:
        yield found


def words(response: httpx.Response, field: str) -> set[str]:
    return {word.strip().lower() for word in response.headers[field].split(",")}


def across(response: httpx.Response) -> dict[str, str]:
    """Return the fields that are for a browser, but for the list of those that a page may read."""
    found = {name: value for name, value in response.headers.items() if name.startswith("access-control-")}
    found.pop("access-control-expose-headers", None)
    return found


@pytest.mark.parametrize("path", [STUDIES, f"{STUDIES}/", f"{STUDIES}/1.2.3", "/api/system"])
def test_a_browser_may_ask_without_a_credential_and_is_told_what_a_page_may(
    served: tuple[httpx.Client, Rig], path: str
) -> None:
    client, rig = served
    rig.token("viewer", Role.NONE, may_store=True)
    answer = client.options(path, headers=ASKED)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, VIEWER)
    assert "post" in words(answer, "access-control-allow-methods")
    assert words(answer, "access-control-allow-headers") >= {"accept", "authorization", "content-type"}
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "origin" in words(answer, "vary")
    # Cookies open nothing here, and are not asked for.
    assert "access-control-allow-credentials" not in answer.headers


def test_other_origins_are_told_nothing_and_store_nothing(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    storing = Storing(client, rig)
    token = bearer(rig.token("viewer", Role.NONE, may_store=True))
    body = body_of(part10_of(make_instance(1)))
    for origin in OTHERS:
        asked = client.options(STUDIES, headers={**ASKED, "Origin": origin})
        posted = client.post(
            STUDIES, content=body, headers={**token, "Content-Type": RELATED, "Origin": origin}
        )
        assert [(answer.status_code, across(answer)) for answer in (asked, posted)] == [(403, {})] * 2, origin
    assert storing.kept() == []


def test_fields_and_methods_that_there_are_not_are_refused_before(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    for name, value in (
        ("Access-Control-Request-Headers", "authorization, x-anything"),
        ("Access-Control-Request-Method", "PATCH"),
    ):
        assert client.options(STUDIES, headers={**ASKED, name: value}).status_code == 400


def test_every_answer_can_be_read_by_the_page(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    storing = Storing(client, rig)
    token = bearer(rig.token("viewer", Role.NONE, may_store=True))
    one, two = (part10_of(make_instance(number)) for number in (1, 2))
    other = part10_of(make_instance(3, study="1.2.99"))
    study = f"{STUDIES}/1.2.10"
    cases = [
        (200, study, body_of(one, two), {}),
        (202, study, body_of(one, other), {}),
        (409, study, body_of(other), {}),
        (400, STUDIES, body_of(b"nonsense"), {}),
        (401, STUDIES, body_of(one), {"Authorization": ""}),
        (406, STUDIES, body_of(one), {"Accept": "image/png"}),
        (415, STUDIES, body_of(one), {"Content-Type": "text/plain"}),
        (404, "/dicom-web/patients", b"", {}),
    ]
    for status, path, body, fields in cases:
        chosen = {"Origin": VIEWER, "Content-Type": RELATED, **token, **fields}
        answer = client.post(
            path, content=body, headers={name: value for name, value in chosen.items() if value}
        )
        assert (answer.status_code, across(answer)) == (status, {"access-control-allow-origin": VIEWER})
        assert words(answer, "access-control-expose-headers") >= {"retry-after"}
        assert "origin" in words(answer, "vary")
    assert storing.kept() == ["1.2.3.1", "1.2.3.2"]


def test_without_the_setting_no_page_of_another_origin_is_answered(tmp_path: Path) -> None:
    with web_client(tmp_path / "archive") as (client, rig):
        storing = Storing(client, rig)
        asked = client.options(STUDIES, headers=ASKED)
        posted = client.post(
            STUDIES,
            content=body_of(part10_of(make_instance(1))),
            headers={"Content-Type": RELATED, "Origin": VIEWER},
        )
        assert [(answer.status_code, across(answer)) for answer in (asked, posted)] == [(403, {})] * 2
        assert storing.kept() == []
