"""The settings of DICOMweb: what is no path, what is no URL, and that no path takes another interface's place."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from starlette.routing import Route

from stowkeeper.app.settings_of_dicomweb import DICOMwebSettings
from support.web_server import web_client


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/dicom-web", "/dicom-web"), ("/pacs/rs/", "/pacs/rs"), ("/a.b/..c", "/a.b/..c"), ("/apis", "/apis")],
)
def test_a_path_is_taken(path: str, expected: str) -> None:
    assert DICOMwebSettings(base_path=path).base_path == expected


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "a",
        "/a b",
        "/ä",
        "/a?b",
        "/%2e",
        "//a",
        "/a//b",
        "/a\n",
        "/..",
        "/../a",
        "/a/..",
        "/a/./b",
        "/.",
    ],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="is no path such as /dicom-web"):
        DICOMwebSettings(base_path=path)


@pytest.mark.slow
def test_no_path_takes_the_place_of_another_interface(tmp_path: Path) -> None:
    with web_client(tmp_path / "archive") as (_, rig):
        own = {
            route.path.split("/")[1]
            for route in rig.application.routes
            if isinstance(route, Route) and not route.path.startswith("/dicom-web")
        } - {""}
    assert {"api", "instances", "tools"} <= own
    for name in own:
        for path in (f"/{name}", f"/{name}/rs"):
            with pytest.raises(ValidationError, match="a path of another interface"):
                DICOMwebSettings(base_path=path)


@pytest.mark.parametrize(
    ("url", "expected"),
    [("", ""), ("https://a/rs/", "https://a/rs"), ("http://[::1]:80", "http://[::1]:80")],
)
def test_a_url_is_taken(url: str, expected: str) -> None:
    assert DICOMwebSettings(retrieve_url=url).retrieve_url == expected


@pytest.mark.parametrize(
    "url",
    [
        "a",
        "http://",
        "http:///a",
        "ftp://a",
        "javascript:a",
        "http://a?b",
        "http://a/b#c",
        "http://a b",
        "http://a/\n",
        "http://a/\0",
        "http://ä",
        "http://user:password@a/b",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="is no URL such as"):
        DICOMwebSettings(retrieve_url=url)
