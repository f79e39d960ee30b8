"""curl alone stores: one file as the README says it, parts in a body, in chunks, and what it does wrong is told."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.archive.archive import Archive
from support.archive_server import instances, open_archive
from support.instances import make_instance
from support.orthanc_rig import part10_of
from support.peers import program_path
from support.stow_bodies import DICOM, RELATED, body_of
from support.web_server import web_rig, web_serving

pytestmark = [pytest.mark.slow, pytest.mark.peer("curl")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Archive]]:
    archive = open_archive(tmp_path / "archive")
    try:
        with web_rig(tmp_path / "archive", archive=archive) as rig, web_serving(rig.application) as thread:
            yield f"{thread.url}/dicom-web/studies", archive
    finally:
        archive.close()


def curl(*arguments: str) -> tuple[int, str]:
    """Run curl; return the status and the body of the answer."""
    run = subprocess.run(
        [program_path("curl"), "--silent", "--show-error", "--write-out", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    body, _, status = run.stdout.rpartition("\n")
    return int(status), body


@pytest.mark.parametrize("size", [600, 3_000_000])
@pytest.mark.parametrize(
    "extra",
    [(), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect: 100-continue"), ("--http2",)],
)
def test_one_file(server: tuple[str, Archive], tmp_path: Path, size: int, extra: tuple[str, ...]) -> None:
    url, archive = server
    file = tmp_path / "scan.dcm"
    file.write_bytes(part10_of(make_instance(1, size=size)))
    status, body = curl("-H", f"Content-Type: {DICOM}", "--data-binary", f"@{file}", *extra, url)
    assert (status, '"1.2.3.1"' in body) == (200, True)
    assert [row["sop_instance_uid"] for row in instances(archive)] == ["1.2.3.1"]


def test_parts(server: tuple[str, Archive], tmp_path: Path) -> None:
    url, archive = server
    body = tmp_path / "body"
    body.write_bytes(body_of(*(part10_of(make_instance(number)) for number in range(1, 4))))
    status, _ = curl("-H", f"Content-Type: {RELATED}", "--data-binary", f"@{body}", url)
    assert status == 200
    assert len(instances(archive)) == 3


def test_a_form_is_told_what_to_do(server: tuple[str, Archive], tmp_path: Path) -> None:
    url, _ = server
    file = tmp_path / "scan.dcm"
    file.write_bytes(part10_of(make_instance(1)))
    status, body = curl("-F", f"file=@{file}", url)
    assert (status, "--data-binary" in body) == (415, True)


def test_data_without_line_breaks_are_refused_in_words(server: tuple[str, Archive], tmp_path: Path) -> None:
    url, archive = server
    body = tmp_path / "body"
    body.write_bytes(body_of(part10_of(make_instance(1))))
    status, answer = curl("-H", f"Content-Type: {RELATED}", "-d", f"@{body}", url)
    assert (status, "boundary" in answer) == (400, True)
    assert instances(archive) == []
