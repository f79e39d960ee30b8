"""Who may read an archive: those who may read its stored files, and nobody else, whatever the umask says."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stowkeeper.archive.archive import Archive, ArchiveOptions, ArchiveReader
from stowkeeper.archive.modes import folder_mode
from stowkeeper.archive.quarantine import Quarantine
from stowkeeper.archive.rebuilding import Rebuilding
from stowkeeper.database.errors import DatabaseForbidden
from stowkeeper.durable.filesystem import FileSystem
from support.archive_server import settle
from support.crash_checks import until
from support.instances import make_instance
from support.live_folder import statuses_below
from support.quiet_log import quiet_log

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_log():
        yield


@pytest.fixture(params=[0o022, 0o077, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(root: Path) -> dict[str, int]:
    """Return the modes of all that there is in an archive, but in its depot."""
    statuses = statuses_below(root)
    found = {str(path.relative_to(root)): status.st_mode & 0o777 for path, status in statuses.items()}
    return {name: mode for name, mode in found.items() if not name.startswith("depot/")}


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("slot_mode", "wanted"), [(0o640, None), (0o644, None), (0o600, None), (0o664, None), (0o640, 0o700)]
)
def test_all_of_an_archive_is_open_to_those_who_may_read_the_files(
    tmp_path: Path, slot_mode: int, wanted: int | None
) -> None:
    root = tmp_path / "archive"
    folders = folder_mode(slot_mode) if wanted is None else wanted
    options = ArchiveOptions(
        sync=False,
        slot_pool_size=2,
        worker_threads=1,
        reserve_size=1000,
        slot_mode=slot_mode,
        folder_mode=wanted,
    )
    with closing(Archive(str(root), options)) as archive:
        outcomes: list[object] = []
        incoming = archive.intake.begin(make_instance(1).arrival(), outcomes.append)
        incoming.write(memoryview(make_instance(1).data))
        incoming.commit()
        until(lambda: bool(outcomes))
        settle(archive)
        (path,) = root.rglob("*.dcm")
        Quarantine(FileSystem(), str(root)).keep(str(path), "a test")
        found = modes(root)
    own = {"depot": 0o700, "server.lock": 0o600, "reserve": 0o600}
    for name, mode in found.items():
        kept = slot_mode if name.endswith(".dcm") else folders & 0o666
        expected = own.get(name, folders if (root / name).is_dir() else kept)
        assert (name, oct(mode)) == (name, oct(expected))
    assert {"catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm", "catalog.lock"} <= set(found)
    assert root.stat().st_mode & 0o777 == folders
    (root / "catalog.sqlite").unlink()
    with Rebuilding(str(root)) as rebuilding:
        rebuilding.look()
        list(rebuilding.run())
    assert modes(root)["catalog.sqlite"] == folders & 0o666


def test_a_folder_that_is_there_keeps_its_mode_and_the_start_says_so(tmp_path: Path) -> None:
    options = ArchiveOptions(sync=False, slot_pool_size=2, worker_threads=1, reserve_size=0, slot_mode=0o640)
    said = []
    for wanted in (None, 0o750, 0o700):
        with (
            capture_logs() as logs,
            closing(Archive(str(tmp_path / "a"), replace(options, folder_mode=wanted))),
        ):
            pass
        said.append([line for line in logs if "folder objects" in line["what"]])
        assert (tmp_path / "a/objects").stat().st_mode & 0o777 == 0o750
    assert said[:2] == [[], []]
    (line,) = said[2]
    assert (line["mode"], line["setting"]) == ("0750", "storage.folder_mode=0700")
    assert line["advice"] == f"find {tmp_path / 'a/objects'} -type d -exec chmod 0700 {{}} +"


def test_a_folder_has_x_for_whoever_may_read_its_files() -> None:
    assert {oct(mode): oct(folder_mode(mode)) for mode in (0o600, 0o640, 0o644, 0o660)} == {
        "0o600": "0o700",
        "0o640": "0o750",
        "0o644": "0o755",
        "0o660": "0o770",
    }


def test_a_group_that_a_folder_hands_down_stays(tmp_path: Path) -> None:
    tmp_path.chmod(0o2700)
    assert FileSystem().make_directory(str(tmp_path / "a"), 0o750)
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o2750


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can act as another user"
)
def test_who_may_read_and_not_write_can_look() -> None:
    options = ArchiveOptions(sync=False, slot_pool_size=2, worker_threads=1, reserve_size=0, slot_mode=0o644)
    with tempfile.TemporaryDirectory(prefix="modes-") as place:
        Path(place).chmod(0o755)
        root = Path(place, "archive")
        for serving in (True, False):
            with closing(Archive(str(root), options)) as archive:
                if not serving:
                    archive.close()
                os.seteuid(65534)
                try:
                    with closing(ArchiveReader(str(root), to_read=True)) as reader, reader.database.read():
                        assert reader.database.read_only
                    with pytest.raises(
                        DatabaseForbidden, match="`stowkeeper verify --report-only` need no more"
                    ):
                        ArchiveReader(str(root))
                finally:
                    os.seteuid(0)
