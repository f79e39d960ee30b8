"""/livez and /readyz: what those who watch the server are told, and when."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from stowkeeper.archive.admission import DiskMarks
from stowkeeper.archive.archive import Archive
from stowkeeper.durable.filesystem import FileSystem, FreeSpace
from support.archive_server import open_archive
from support.web_server import web_client

MARKS = DiskMarks(instance_bytes=1000, association_bytes=500, instance_inodes=0, association_inodes=0)


class Filling(FileSystem):
    """A file system whose free space is what the test says."""

    free = FreeSpace(bytes=10**12, inodes=10**9)

    def free_space(self, path: str) -> FreeSpace:
        return self.free


@dataclass(slots=True, kw_only=True)
class Watched:
    """A server that is watched: its disk, and what of it is broken."""

    client: httpx.Client
    archive: Archive
    files: Filling
    broken: list[str]

    def ask(self, path: str) -> tuple[int, str]:
        response = self.client.get(path)
        assert response.headers["content-type"].startswith("text/plain")
        return response.status_code, response.text

    def leave(self, free: int) -> None:
        self.files.free = FreeSpace(bytes=free, inodes=None)
        self.archive.admission.check_space()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    files, broken = Filling(), [""]
    archive = open_archive(tmp_path / "archive", files=files, marks=MARKS)
    with web_client(tmp_path / "archive", archive=archive, broken=lambda: broken[0]) as (client, rig):
        rig.token()  # from now on others need a credential
        yield Watched(client=client, archive=archive, files=files, broken=broken)
    archive.close()


def test_a_server_that_works_and_has_room_is_live_and_ready(watched: Watched) -> None:
    assert watched.ask("/livez") == (200, "ok\n")
    assert watched.ask("/readyz") == (200, "ok\n")


@pytest.mark.parametrize(
    ("free", "words"),
    [(1999, "the room on the disk gets short\n"), (999, "the disk is full\n"), (0, "the disk is full\n")],
)
def test_readiness_falls_before_the_disk_is_full_and_comes_back(
    watched: Watched, free: int, words: str
) -> None:
    watched.leave(free)
    assert watched.ask("/readyz") == (503, words)
    assert watched.ask("/livez") == (200, "ok\n")
    watched.leave(2000)
    assert watched.ask("/readyz") == (200, "ok\n")


def test_a_disk_that_failed_to_sync_is_not_ready(watched: Watched) -> None:
    watched.archive.admission.distrust("the disk failed to sync")
    assert watched.ask("/readyz") == (503, "the disk failed to sync\n")


def test_what_only_a_new_start_mends_is_neither(watched: Watched) -> None:
    watched.broken[0] = "nobody listens any more"
    assert watched.ask("/livez") == (503, "nobody listens any more\n")
    assert watched.ask("/readyz") == (503, "nobody listens any more\n")
