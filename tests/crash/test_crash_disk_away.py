"""The disk turns read-only, is taken away, or takes its time, and is back again: what was answered Success is all there.

The real archive with its threads. A disk that is full, or that fails to sync, is in test_crash_disk.
"""

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.archive import archive as archive_module
from stowkeeper.archive.archive import Archive, ArchiveOptions
from stowkeeper.archive.outcome import Outcome, Refusal
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.reserve import Reserve
from support.catalog_rows import open_database
from support.crash_checks import check_acknowledged, depot_files, until
from support.instances import Instance, make_instance
from support.small_filesystem import small_filesystem

pytestmark = pytest.mark.slow

RESERVE_SIZE = 1 << 20
SECONDS_MAX = 30.0
SLOTS = "/depot/"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the archive look at its disk again at once, and be content with a small one."""
    monkeypatch.setattr(archive_module, "RECOVERY_SCAN_SECONDS", 0.02)
    monkeypatch.setattr(archive_module, "PROBE_SECONDS", 0.02)
    monkeypatch.setattr(archive_module, "Reserve", partial(Reserve, margin=RESERVE_SIZE))
    monkeypatch.setattr(archive_module, "START_ROOM", 1 << 19)
    monkeypatch.setattr("stowkeeper.archive.finisher.FINISHER_RETRY_SECONDS", 0.02)


@contextmanager
def opened(root: Path, files: FileSystem | None = None, **options: Any) -> Iterator[Archive]:
    """Open an archive with its keeper, and close it."""
    if not root.exists():
        root.mkdir()
        open_database(root).close()
        for path in (root / "catalog.sqlite", root):  # a copy of a template, which nobody has synced yet
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    chosen = {"slot_pool_size": 8, "worker_threads": 3, "reserve_size": RESERVE_SIZE} | options
    archive = Archive(str(root), ArchiveOptions(**chosen), files=files)
    archive.look_after_the_dead()
    try:
        yield archive
    finally:
        archive.close()


class Sending:
    """One instance on its way."""

    def __init__(self, archive: Archive, instance: Instance) -> None:
        self.outcome: Outcome | None = None
        self._done = threading.Event()
        incoming = archive.intake.begin(instance.arrival(), self._take)
        incoming.write(memoryview(instance.data))
        incoming.commit()

    def _take(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._done.set()

    def wait(self) -> Outcome:
        """Wait for the outcome."""
        assert self._done.wait(SECONDS_MAX)
        assert self.outcome is not None
        return self.outcome


def send(archive: Archive, instance: Instance) -> Outcome:
    return Sending(archive, instance).wait()


def numbered(*numbers: int) -> list[Instance]:
    return [make_instance(number, study=f"1.2.{number}") for number in numbers]


def keep(archive: Archive, instances: list[Instance]) -> None:
    for instance in instances:
        assert send(archive, instance).refusal is None


# Read-only


def abort_mount(disk: Path) -> None:
    """Have ext4 do what it does at an error of the medium."""
    aborted = subprocess.run(
        ["mount", "-o", "remount,abort", str(disk)], check=False, capture_output=True, text=True
    )
    if aborted.returncode:
        pytest.skip(f"this ext4 cannot be told to meet an error: {aborted.stderr.strip()}")


def test_a_disk_that_turns_read_only_refuses_and_has_all_that_was_answered_when_it_is_mounted_anew(
    tmp_path: Path,
) -> None:
    """As ext4 does at an error of the medium: in the middle of all that is open, and for good until it is mounted anew."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_filesystem(tmp_path, size=32 << 20, inodes=500, kind="ext4"))
        root = disk / "archive"
        listed, unlisted = numbered(1, 2, 3), numbered(4, 5)
        with opened(root) as archive:
            keep(archive, listed)
            assert archive.finisher.wait_until_idle(SECONDS_MAX)
            with archive.finisher._finishing:  # the finisher waits at its door while the disk gives way
                keep(archive, unlisted)
                abort_mount(disk)
                with pytest.raises(OSError, match="Read-only"):
                    (disk / "note").touch()
                for instance in numbered(6, 7):
                    refused = send(archive, instance)
                    assert refused.refusal is Refusal.OUT_OF_RESOURCES
                    assert refused.comment
            assert archive.admission.distrusted, "the door stays closed, and a balancer is told so"
        # It has let go of the disk: it can be taken down, looked at, and mounted anew.
        again = tmp_path / "again"
        again.mkdir()
        subprocess.run(["umount", str(disk)], check=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "none", str(disk)], check=True
        )  # for who takes it down at the end
        subprocess.run(["mount", "-o", "loop", str(tmp_path / "image"), str(again)], check=True)
        try:
            with opened(again / "archive") as archive:
                until(lambda: depot_files(again / "archive") == [])
                assert archive.finisher.wait_until_idle(SECONDS_MAX)
                keep(archive, numbered(6))
                assert archive.finisher.wait_until_idle(SECONDS_MAX)
                check_acknowledged(again / "archive", [*listed, *unlisted, *numbered(6)])
        finally:
            subprocess.run(["umount", str(again)], check=True)


# Taken away


@contextmanager
def mounted(disk: Path, place: Path) -> Iterator[Callable[[], None]]:
    """Show a disk at a place for the length of a block; the function that is given takes it away sooner."""
    subprocess.run(["mount", "--bind", str(disk), str(place)], check=True)
    is_there = True

    def take_away() -> None:
        nonlocal is_there
        if is_there:
            is_there = False
            subprocess.run(["umount", "--lazy", str(place)], check=True)

    try:
        yield take_away
    finally:
        take_away()


def test_a_disk_that_is_taken_away_refuses_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """As `umount --lazy` does it, or a file server: the names are gone, and files that are open may well be used still."""
    with small_filesystem(tmp_path, size=16 << 20, inodes=500) as disk:
        place = tmp_path / "place"
        place.mkdir()
        with ExitStack() as stack:
            take_away = stack.enter_context(mounted(disk, place))
            root = place / "archive"
            with opened(root) as archive:
                answered = numbered(1, 2)
                keep(archive, answered)
                assert archive.finisher.wait_until_idle(SECONDS_MAX)
                take_away()
                assert list(place.iterdir()) == []
                candidates = iter(range(3, 1000))

                def refused() -> bool:
                    """Slots that are open may still be filled: what is answered so has to be there too."""
                    (instance,) = numbered(next(candidates))
                    outcome = send(archive, instance)
                    if outcome.refusal is None:
                        answered.append(instance)
                        return False
                    assert outcome.refusal is Refusal.OUT_OF_RESOURCES
                    return True

                until(refused)
                assert list(place.iterdir()) == [], "nothing is made where the disk was"
                stack.enter_context(mounted(disk, place))
                until(lambda: not refused())
                assert archive.finisher.wait_until_idle(SECONDS_MAX)
                check_acknowledged(root, answered)


# Slow


class GatedFileSystem(FileSystem):
    """The real file system; syncs of files and folders whose path holds `slow` take until the gate is opened."""

    __slots__ = ("begun", "gate", "slow")

    def __init__(self, slow: str) -> None:
        self.slow = slow
        self.begun = 0
        self.gate = threading.Event()

    def _wait(self, path: str) -> None:
        if self.slow in path and not self.gate.is_set():
            self.begun += 1
            assert self.gate.wait(SECONDS_MAX)

    def synchronize(self, descriptor: int) -> None:
        self._wait(os.readlink(f"/proc/self/fd/{descriptor}"))
        super().synchronize(descriptor)

    def synchronize_directory(self, path: str) -> None:
        self._wait(path)
        super().synchronize_directory(path)


def test_on_a_disk_that_takes_its_time_success_waits_and_nobody_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    files = GatedFileSystem(SLOTS)
    files.gate.set()
    with opened(root, files) as archive, contextlib.ExitStack() as stack:
        keep(archive, numbered(1))  # its slots are made
        assert archive.finisher.wait_until_idle(SECONDS_MAX)
        files.gate.clear()
        stack.callback(files.gate.set)
        waiting = [Sending(archive, instance) for instance in numbered(2, 3, 4, 5, 6, 7)]
        until(lambda: files.begun >= 3)  # as many as there are workers
        assert [one.outcome for one in waiting] == [None] * 6
        files.gate.set()
        assert [one.wait().refusal for one in waiting] == [None] * 6
        assert archive.finisher.wait_until_idle(SECONDS_MAX)
        check_acknowledged(root, numbered(1, 2, 3, 4, 5, 6, 7))


def test_a_shelf_on_a_disk_that_takes_its_time_is_waited_for_within_its_bound(tmp_path: Path) -> None:
    """When as many wait for it as may, the next one is refused, and comes in again later."""
    root = tmp_path / "archive"
    files = GatedFileSystem("/objects")
    files.gate.set()
    with opened(root, files, uncatalogued_max=3) as archive, contextlib.ExitStack() as stack:
        files.gate.clear()
        stack.callback(files.gate.set)
        waiting = [Sending(archive, instance) for instance in numbered(1, 2, 3)]
        until(lambda: files.begun > 0)
        refused = send(archive, *numbered(4))
        assert (refused.refusal, refused.comment) == (
            Refusal.OUT_OF_RESOURCES,
            "the catalog is behind, try again later",
        )
        files.gate.set()
        assert [one.wait().refusal for one in waiting] == [None] * 3
        until(lambda: send(archive, *numbered(4)).refusal is None)
        assert archive.finisher.wait_until_idle(SECONDS_MAX)
        check_acknowledged(root, numbered(1, 2, 3, 4))
