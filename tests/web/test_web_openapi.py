"""The OpenAPI document, whether it says all there is, and the page that is made of it."""

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from stowkeeper.web.openapi_page import STYLE
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router, rules_of
from support.web_server import web_client

METHODS = {"get", "post", "put", "delete", "patch", "options"}
STUDIES = "/dicom-web/studies"
WHAT_BECAME = {"application/dicom+json", "application/dicom+xml"}
RESPONSES_OF_STUDIES = {"409": WHAT_BECAME} | dict.fromkeys(
    ("400", "413", "415", "503"), WHAT_BECAME | {"application/problem+json"}
)
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with web_client(tmp_path_factory.mktemp("web") / "archive") as (found, _):
        yield found


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/api/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert method in METHODS
            yield path, method, operation


@pytest.mark.slow
def test_every_operation_is_described_whole(document: dict[str, Any]) -> None:
    names = []
    for path, method, operation in operations(document):
        names.append(operation["operationId"])
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", operation["operationId"])
        assert operation["summary"][0].isupper(), (path, method)
        assert not operation["summary"].endswith(".")
        assert len(operation["tags"]) == 1
        assert operation["description"]
        successes = [status for status in operation["responses"] if status.startswith("2")]
        assert successes, (path, method)
        for status in successes:
            answer = operation["responses"][status]
            if status != "204":
                assert answer["content"], (path, method)
            for content in answer.get("content", {}).values():
                assert content["schema"], (path, method, status)
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] in {"path", "query"}
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_every_operation_says_which_problems_it_can_have(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        answers = operation["responses"]
        needed = {"400", "406", "429", "500", "503", "403"}
        if path != "/api/live":
            needed |= {"401"}
        if path.startswith(STUDIES):
            assert not {"404", "422"} & set(answers)
        elif "{" in path:
            needed |= {"404", "422"}
        elif "requestBody" in operation or operation.get("parameters"):
            needed |= {"422"}
        if method in {"post", "put", "delete"}:
            needed |= {"408", "413", "415"}
        assert needed <= set(answers), (path, method, needed - set(answers))
        for status, answer in answers.items():
            if status[0] in "45":
                if path.startswith(STUDIES) and method == "post" and status in RESPONSES_OF_STUDIES:
                    assert set(answer["content"]) == RESPONSES_OF_STUDIES[status], (path, status)
                else:
                    assert answer["content"] == PROBLEM, (path, method, status)
                assert answer["description"]


def test_a_store_request_is_described_with_its_bodies_and_all_its_answers(document: dict[str, Any]) -> None:
    statuses = {"200", "202", "400", "401", "403", "406", "408", "409", "413", "415", "429", "500", "503"}
    for path in (STUDIES, f"{STUDIES}/{{study}}"):
        operation = document["paths"][path]["post"]
        assert set(operation["responses"]) == statuses
        assert operation["requestBody"]["required"]
        assert set(operation["requestBody"]["content"]) == {
            "application/dicom",
            *(
                f'multipart/related; type="{name}"'
                for name in ("application/dicom", "application/dicom+json", "application/dicom+xml")
            ),
        }
        for status in ("200", "202", "409"):
            assert set(operation["responses"][status]["content"]) == WHAT_BECAME
    for path in ("/dicom-web", STUDIES):
        (media,) = document["paths"][path]["options"]["responses"]["200"]["content"]
        assert media == "application/vnd.sun.wadl+xml"


@pytest.mark.parametrize("path", ["/dicom-web", "/dicom-web/"])
def test_at_the_base_of_dicomweb_there_is_options_alone(client: httpx.Client, path: str) -> None:
    for method in ("GET", "POST", "TRACE"):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS")
        assert answer.headers["content-type"] == "application/problem+json"
    asked = client.options(path)
    assert (asked.status_code, asked.headers["allow"]) == (200, "OPTIONS")


def test_every_operation_says_who_may(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        if path == "/api/live":
            assert "security" not in operation
            continue
        assert operation["security"] == [{"token": []}, {"password": []}]
        if operation.get("x-permission") == "store":
            assert method == "post"
            assert "x-role" not in operation
            continue
        if method == "options":
            assert operation["x-role"] == Role.NONE
            continue
        assert operation["x-role"] in set(Role) - {Role.NONE}
        if method != "get":
            assert operation["x-role"] != "read", (path, method)
        assert f"`{operation['x-role']}`" in operation["description"]


@pytest.mark.slow
def test_an_operation_that_stores_asks_for_that_permission_and_no_role(tmp_path: Path) -> None:
    routes = api_router("/api/test", tag="test")

    @routes.post("", operation_id="keep_it", summary="Keep it", response_model=str)
    @allow(Role.NONE, stores=True)
    def keep() -> str:
        """Keep it."""
        return "kept"

    with web_client(tmp_path / "archive", routers=[routes]) as (client, _):
        operation = client.get("/api/openapi.json").json()["paths"]["/api/test"]["post"]
        page = client.get("/api/docs").text
    assert operation["security"] == [{"token": []}, {"password": []}]
    assert (operation["x-permission"], "x-role" in operation) == ("store", False)
    assert operation["description"] == "Keep it.\n\nNeeds the permission `store`, whatever the role."
    assert {"401", "403"} <= set(operation["responses"])
    assert '<details id="keep_it"><summary><span class="role">needs store</span>' in page


def test_the_document_has_every_native_route_those_of_studies_and_no_other(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    with web_client(tmp_path / "archive") as (_, rig):
        there = {
            (route.path_format, method.lower())
            for route in rig.application.router.routes
            if rules_of(route.endpoint) is not None  # type: ignore[attr-defined]  # they are ours
            and (route.path.startswith("/api") or route.path in (STUDIES, f"{STUDIES}/{{study}}"))  # type: ignore[attr-defined]  # likewise
            for method in route.methods  # type: ignore[attr-defined]  # likewise
        }
    there |= {("/dicom-web", "options"), (STUDIES, "options")}
    assert {(path, method) for path, method, _ in operations(document)} == there


def test_references_lead_somewhere_and_shapes_are_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in re.findall(r"#/components/schemas/([^\"']+)", str(document)):
        assert name in schemas
    assert "HTTPValidationError" not in schemas
    for name, schema in schemas.items():
        if schema.get("type") == "object" and name != "Problem":
            assert schema.get("description"), name


# The page


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_page_is_whole_and_its_links_lead_somewhere(
    client: httpx.Client, document: dict[str, Any]
) -> None:
    answer = client.get("/api/docs", headers={"Accept": "text/html"})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link == "/api/openapi.json" or link[1:] in page.ids, link
    for path, method, operation in operations(document):
        assert operation["operationId"] in page.ids
        assert f"{method.upper()}</span>" in answer.text
        assert path in answer.text
    assert page.tags.count("h1") == page.tags.count("main") == 1
    assert {"details", "summary", "nav", "th"} <= set(page.tags)


@pytest.mark.slow
def test_the_page_runs_nothing_and_loads_nothing(client: httpx.Client) -> None:
    answer = client.get("/api/docs")
    page = Page(answer.text)
    assert not {"script", "iframe", "img", "link", "form", "object", "embed"} & set(page.tags)
    assert not any(name.startswith("on") or name in {"src", "style"} for name in page.attributes)
    assert "http://" not in answer.text.replace("http://www.w3.org", "")
    assert "https://" not in answer.text
    assert "url(" not in STYLE
    policy = answer.headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert f"<style>{STYLE}</style>" in answer.text


def test_the_page_is_for_light_and_dark() -> None:
    assert "color-scheme: light dark" in STYLE
    assert "prefers-color-scheme: dark" in STYLE
    assert ":focus-visible" in STYLE
    used, defined = set(re.findall(r"var\((--\w+)\)", STYLE)), re.findall(r"(--\w+):", STYLE)
    assert all(defined.count(name) == 2 for name in used)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.1)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_page_can_be_read_in_both() -> None:
    light, dark = STYLE.split("@media")
    for half in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", half))
        for name in ("text", "link", "get", "post", "put", "delete"):
            assert contrast(colours[name], colours["back"]) >= 4.5, name
            assert contrast(colours[name], colours["soft"]) >= 4.5, name


def test_the_page_escapes_what_the_document_says(client: httpx.Client) -> None:
    from stowkeeper.web.openapi_page import render

    nasty = "<script>alert(1)</script>"
    text = render(
        {
            "info": {"title": nasty, "version": "1", "description": nasty},
            "paths": {
                f"/{nasty}": {
                    "get": {
                        "tags": [nasty],
                        "operationId": nasty,
                        "summary": nasty,
                        "x-role": nasty,
                        "parameters": [{"name": nasty, "in": "query", "schema": {"pattern": nasty}}],
                        "responses": {"200": {"description": nasty}},
                    }
                }
            },
            "components": {
                "schemas": {nasty: {"properties": {nasty: {"enum": [nasty], "description": nasty}}}}
            },
        }
    )
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_root_leads_to_the_page(client: httpx.Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "api/docs")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "/api/docs" in answer.text
    assert client.get("/", follow_redirects=True).headers["content-type"].startswith("text/html")
