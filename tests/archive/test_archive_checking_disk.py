"""Checks on a real disk: what permissions and odd files do, and how soon a check of large files stops."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowkeeper.archive import catalog
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.catalog_values import Version, VersionState
from stowkeeper.archive.checking import CheckLevel, CheckStoppedError, check_version, check_versions
from support.command_line import keep
from support.instances import Instance, make_instance
from support.slow_disk import SlowDisk

DIGEST, EXISTS = CheckLevel.DIGEST, CheckLevel.EXISTS


def archive_of(folder: Path, *instances: Instance) -> ArchiveReader:
    keep(folder, *instances)
    return ArchiveReader(str(folder))


def only_version(reader: ArchiveReader) -> Version:
    (version,) = catalog.iterate_versions(reader.database)
    return version


NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user whom permissions hold back, where we are root and they would not."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_file_whose_permission_was_taken_is_an_error_and_stays_kept(of: str) -> None:
    with tempfile.TemporaryDirectory(prefix="permission-") as folder:
        os.chmod(folder, 0o755)
        reader = archive_of(Path(folder, "archive"), make_instance(1))
        version = only_version(reader)
        path = Path(reader.path_of(version.path))
        for parent in path.parents[:4]:
            parent.chmod(0o755)
        path.chmod(0o644)
        with as_nobody():
            assert check_version(reader.files, reader.root, reader.database, version, DIGEST).is_whole
        taken = path if of == "file" else path.parent
        taken.chmod(0)
        with as_nobody(), pytest.raises(OSError, match="Permission denied"):
            check_version(reader.files, reader.root, reader.database, version, DIGEST)
        taken.chmod(0o755)
        assert only_version(reader).state is VersionState.KEPT
        assert not Path(folder, "archive/quarantine").exists()
        reader.close()


def test_what_is_no_file_at_all_is_an_error_and_stays(tmp_path: Path) -> None:
    reader = archive_of(tmp_path, make_instance(1))
    version = only_version(reader)
    path = Path(reader.path_of(version.path))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    for level in (DIGEST, EXISTS):
        with pytest.raises(OSError, match="cannot be read"):
            check_version(reader.files, reader.root, reader.database, version, level)
    path.unlink()
    path.mkdir()
    for level in (DIGEST, EXISTS):
        with pytest.raises(OSError, match="cannot be read"):
            check_version(reader.files, reader.root, reader.database, version, level)
    path.rmdir()
    os.mkfifo(path)
    for level in (DIGEST, EXISTS):
        with pytest.raises(OSError, match="cannot be read: it is no regular file"):
            check_version(reader.files, reader.root, reader.database, version, level)
    assert only_version(reader).state is VersionState.KEPT
    reader.close()


@pytest.mark.slow
def test_a_check_of_large_files_on_a_slow_disk_stops_within_a_second(tmp_path: Path) -> None:
    reader = archive_of(tmp_path, *(make_instance(number, size=8_000_000) for number in range(6)))
    versions = list(catalog.iterate_versions(reader.database))
    stopping = threading.Event()
    began = threading.Event()
    ended: list[float] = []

    def run() -> None:
        with pytest.raises(CheckStoppedError):
            for _ in check_versions(
                SlowDisk(0.05),
                reader.root,
                reader.database,
                versions,
                DIGEST,
                stopping,
                lambda _: began.set(),
            ):
                pass
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    assert began.wait(30)
    asked = time.monotonic()
    stopping.set()
    thread.join(30)
    assert ended
    assert ended[0] - asked < 1.0
    reader.close()
