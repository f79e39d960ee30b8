"""A page of another origin stores from a real browser, by the client of web viewers, where the settings let it, and only there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import Content, Site, shown, site
from support.instances import make_instance
from support.orthanc_rig import part10_of
from support.peers import JAVASCRIPT_CLIENT
from support.stow_bodies import Answer, answer_of
from support.stow_server import StowServer, stow_serving
from support.web_server import web_rig, web_serving

pytestmark = [pytest.mark.slow, pytest.mark.peer("chromium")]

LARGE = make_instance(1, size=3_000_000, study="1.2.77")
SMALL = make_instance(2, study="1.2.77")
FOREIGN = make_instance(3, study="1.2.88")
PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>A viewer</title>
<script src="/client.js"></script>
<script>
async function store({url, token, files, study}) {
    const datasets = await Promise.all(files.map(async (name) => (await fetch(name)).arrayBuffer()));
    const client = new DICOMwebClient.api.DICOMwebClient({url, headers: {Authorization: `Bearer ${token}`}, verbose: false});
    const xhr = new XMLHttpRequest();
    const progress = [];
    xhr.upload.onprogress = (event) => progress.push([event.loaded, event.total]);
    const options = {datasets, request: {instance: xhr}};
    if (study) options.studyInstanceUID = study;
    try {
        const answer = await client.storeInstances(options);
        return {resolved: true, status: xhr.status, answer, type: xhr.getResponseHeader('Content-Type'), progress};
    } catch (error) {
        return {resolved: false, status: error.status, answer: error.response, progress};
    }
}
(async () => {
    const told = [];
    try {
        for (const wish of await (await fetch('/wishes')).json()) told.push(await store(wish));
    } catch (error) {
        told.push({failed: String(error)});
    }
    await fetch('/told', {method: 'POST', body: JSON.stringify(told)});
})();
</script>
"""


def contents() -> dict[str, Content]:
    """Return what the site of the page has; its wishes are still to be said."""
    files = {f"/{number}.dcm": part10_of(one) for number, one in enumerate((LARGE, SMALL, FOREIGN), 1)}
    return {
        "/": ("text/html", PAGE.encode()),
        "/client.js": ("text/javascript", JAVASCRIPT_CLIENT.read_bytes()),
        **{path: ("application/dicom", content) for path, content in files.items()},
    }


@pytest.fixture
def viewer() -> Iterator[tuple[Site, dict[str, Content]]]:
    has = contents()
    with site(has) as made:
        yield made, has


def visited(
    viewer: tuple[Site, dict[str, Content]], folder: Path, *wishes: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Let the page do what is wished; return how each went, and what stands in the console."""
    made, has = viewer
    has["/wishes"] = ("application/json", json.dumps(wishes).encode())
    told, console = made.visited(folder)
    assert len(told) == len(wishes), told
    return told, console


def wish(server: StowServer, *files: int, study: str = "", token: str = "") -> dict[str, Any]:
    return {
        "url": server.dicomweb,
        "token": token or server.token,
        "files": [f"/{number}.dcm" for number in files],
        "study": study,
    }


def answer(told: dict[str, Any]) -> Answer:
    return answer_of(told["answer"].encode())


@pytest.mark.peer("dicomweb-client for browsers")
def test_a_page_of_an_allowed_origin_stores_and_reads_every_answer(
    viewer: tuple[Site, dict[str, Content]], tmp_path: Path
) -> None:
    settings = f'[http]\nallowed_origins = ["{viewer[0].origin}"]\n'
    with stow_serving(tmp_path, settings) as server:
        told, _ = visited(
            viewer,
            tmp_path,
            wish(server, 1, 2),
            wish(server, 2, 3, study="1.2.77"),
            wish(server, 3, study="1.2.77"),
            wish(server, 3, token=f"{server.token}x"),
        )
        all_kept, some_kept, none_kept, unknown = told
        assert [one["status"] for one in told] == [200, 202, 409, 401]
        assert [one["resolved"] for one in told] == [True, True, False, False]
        assert (answer(all_kept).stored, all_kept["type"]) == (
            ["1.2.3.1", "1.2.3.2"],
            "application/dicom+json",
        )
        assert (answer(some_kept).stored, answer(some_kept).failed) == (["1.2.3.2"], [("1.2.3.3", 0xC409)])
        assert answer(none_kept).failed == [("1.2.3.3", 0xC409)]
        assert json.loads(unknown["answer"])["status"] == 401
        sent, total = all_kept["progress"][-1]
        assert sent == total > len(LARGE.data)
        assert server.kept("1.2.3.1", "1.2.3.2") == {"1.2.3.1": LARGE.data, "1.2.3.2": SMALL.data}
        assert server.listed() == {"1.2.3.1", "1.2.3.2"}


@pytest.mark.peer("dicomweb-client for browsers")
def test_without_the_setting_the_browser_lets_no_page_of_another_origin_store(
    viewer: tuple[Site, dict[str, Content]], tmp_path: Path
) -> None:
    with stow_serving(tmp_path) as server:
        (told,), console = visited(viewer, tmp_path, wish(server, 1, 2))
        assert (told["resolved"], told["status"], told["answer"]) == (False, 0, "")
        assert any("blocked by CORS policy" in line for line in console), console
        assert server.listed() == set()


def test_the_page_that_describes_the_interface_is_shown_without_a_complaint(tmp_path: Path) -> None:
    with web_rig(tmp_path / "archive") as rig, web_serving(rig.application) as thread:
        document, console = shown(f"{thread.url}/api/docs", tmp_path)
    assert "/api/instances" in document
    assert console == []
