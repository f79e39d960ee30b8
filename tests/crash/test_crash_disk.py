"""The disk fills up, by bytes and by inodes, or fails to sync: no Success that is not kept, and it goes on afterwards.

The real archive with its threads, on small file systems of its own and on a file system that fails when told to.
"""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.archive import archive as archive_module
from stowkeeper.archive.admission import DiskMarks
from stowkeeper.archive.archive import Archive, ArchiveOptions
from stowkeeper.archive.outcome import Outcome, Refusal
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.durable.errors import StorageUnfitError
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.reserve import Reserve
from support.catalog_rows import open_database
from support.crash_checks import check_acknowledged, depot_files, depot_folders, until
from support.faulty_server import Nursery, Order, Step
from support.instances import Instance, make_instance
from support.raw_peer import PeerClosed, RawPeer
from support.small_filesystem import small_filesystem

pytestmark = pytest.mark.slow

RESERVE_SIZE = 1 << 20
OUTCOME_SECONDS_MAX = 30.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the archive look at its disk again at once, and be content with a small one."""
    monkeypatch.setattr(archive_module, "RECOVERY_SCAN_SECONDS", 0.02)
    monkeypatch.setattr(archive_module, "PROBE_SECONDS", 0.02)
    monkeypatch.setattr(archive_module, "RESERVE_MARGIN", RESERVE_SIZE)
    monkeypatch.setattr(archive_module, "Reserve", partial(Reserve, margin=RESERVE_SIZE))
    monkeypatch.setattr(archive_module, "START_ROOM", 1 << 19)
    monkeypatch.setattr("stowkeeper.archive.finisher.FINISHER_RETRY_SECONDS", 0.02)
    monkeypatch.setattr("stowkeeper.archive.admission.SPACE_CHECK_SECONDS", 0.02)


@contextmanager
def opened(root: Path, files: FileSystem | None = None, **options: Any) -> Iterator[Archive]:
    """Open an archive with its keeper, and close it."""
    if not root.exists():
        root.mkdir()
        open_database(root).close()
    chosen = {"slot_pool_size": 8, "worker_threads": 3, "reserve_size": RESERVE_SIZE} | options
    archive = Archive(str(root), ArchiveOptions(**chosen), files=files)
    archive.look_after_the_dead()
    try:
        yield archive
    finally:
        archive.close()


def send(archive: Archive, instance: Instance, *, flushes: int = 0) -> Outcome:
    """Send one instance and wait for the outcome."""
    outcomes: list[Outcome] = []
    done = threading.Event()

    def take(outcome: Outcome) -> None:
        outcomes.append(outcome)
        done.set()

    incoming = archive.intake.begin(instance.arrival(), take)
    step = -(-len(instance.data) // (flushes + 1))
    for start in range(0, len(instance.data), step):
        incoming.write(memoryview(instance.data)[start : start + step])
        if flushes:
            incoming.flush()
    incoming.commit()
    assert done.wait(OUTCOME_SECONDS_MAX)
    return outcomes[0]


def sent_until_refused(archive: Archive, instances: Iterator[Instance]) -> list[Instance]:
    """Send instances until one is refused; return those that were acknowledged."""
    acknowledged: list[Instance] = []
    for instance in instances:
        outcome = send(archive, instance, flushes=len(acknowledged) % 3)
        if outcome.refusal is not None:
            assert outcome.refusal is Refusal.OUT_OF_RESOURCES
            return acknowledged
        acknowledged.append(instance)
    raise AssertionError("the disk did not fill")


def accepted_again(archive: Archive, instance: Instance) -> bool:
    return send(archive, instance).refusal is None


# A disk that fills


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Give a function that mounts a small file system of a kind."""
    with ExitStack() as stack:
        yield lambda **sizes: stack.enter_context(small_filesystem(tmp_path, kind=request.param, **sizes))


def large_ones() -> Iterator[Instance]:
    number = 0
    while True:
        number += 1
        yield make_instance(number, study=f"1.2.{number % 3}", size=90_000)


def small_ones() -> Iterator[Instance]:
    number = 0
    while True:
        number += 1
        yield make_instance(number, study=f"1.2.{number}", series=f"1.2.{number}.1", size=300)


def test_a_disk_that_fills_by_bytes_refuses_and_goes_on_when_there_is_room(
    small_disk: Callable[..., Path],
) -> None:
    disk = small_disk(size=16 << 20, inodes=2000)
    root = disk / "archive"
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    with opened(root) as archive:
        acknowledged = sent_until_refused(archive, large_ones())
        assert len(acknowledged) > 10
        for instance in (make_instance(9001, size=4_000_000), make_instance(9002, size=2_000_000)):
            assert send(archive, instance, flushes=3).refusal is Refusal.OUT_OF_RESOURCES
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        assert depot_files(root) == []
        check_acknowledged(root, acknowledged)
        ballast.unlink()
        again = make_instance(9003, size=90_000)
        until(lambda: accepted_again(archive, again))
        acknowledged.append(again)
        until((root / "reserve").exists)
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        check_acknowledged(root, acknowledged)
    assert depot_folders(root) == []


def test_above_its_mark_of_inodes_the_archive_finishes_all_it_answered(
    small_disk: Callable[..., Path],
) -> None:
    """Each instance needs an inode, two more for its folders, and on tmpfs one for its second name."""
    disk = small_disk(size=16 << 20, inodes=260)
    root = disk / "archive"
    marks = DiskMarks(instance_bytes=0, association_bytes=0, instance_inodes=130, association_inodes=90)
    with opened(root, marks=marks, uncatalogued_max=20) as archive:
        acknowledged = sent_until_refused(archive, small_ones())
        assert len(acknowledged) > 5
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        assert depot_files(root) == []
        check_acknowledged(root, acknowledged)
        assert archive.admission.refusal() == "the disk has no inodes left"


def use_up_inodes(disk: Path) -> list[Path]:
    """Make empty files until there is no inode left."""
    made: list[Path] = []
    with suppress(OSError):
        for number in range(1000):
            (disk / f"ballast-{number}").touch()
            made.append(disk / f"ballast-{number}")
    assert FileSystem().free_space(str(disk)).inodes == 0
    return made


def test_what_was_answered_waits_for_inodes_that_others_used_up(small_disk: Callable[..., Path]) -> None:
    disk = small_disk(size=16 << 20, inodes=160)
    root = disk / "archive"
    with opened(root) as archive:
        with archive.finisher._finishing:  # the finisher waits at its door while the disk fills
            acknowledged = [make_instance(number, study=f"1.2.{number}") for number in range(6)]
            for instance in acknowledged:
                assert send(archive, instance).refusal is None
            ballast = use_up_inodes(disk)
        until(lambda: send(archive, make_instance(9100)).refusal is Refusal.OUT_OF_RESOURCES)
        for file in ballast:
            file.unlink()
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        check_acknowledged(root, acknowledged)
        until(lambda: accepted_again(archive, make_instance(9200)))


def test_what_was_answered_gets_the_inodes_of_free_slots(small_disk: Callable[..., Path]) -> None:
    """A new study's folders take two, and on tmpfs a second name one more: three each of six slots and the reserve."""
    disk = small_disk(size=16 << 20, inodes=160)
    root = disk / "archive"
    with opened(root) as archive:
        with archive.finisher._finishing:
            acknowledged = [make_instance(number, study=f"1.2.{number}") for number in range(2)]
            for instance in acknowledged:
                assert send(archive, instance).refusal is None
            use_up_inodes(disk)
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        check_acknowledged(root, acknowledged)


def fill(path: Path) -> None:
    """Write until no byte is free."""
    files = FileSystem()
    descriptor = files.create(str(path), 0o600)
    try:
        offset = 0
        for size in (1 << 16, 1 << 12, 1 << 9, 1):
            while True:
                try:
                    files.write(descriptor, [bytes(size)], offset)
                    files.synchronize(descriptor)
                except OSError:
                    break
                offset += size
    finally:
        files.close(descriptor)


def test_a_catalog_that_meets_a_full_disk_gets_the_reserve_and_newcomers_do_not(
    small_disk: Callable[..., Path],
) -> None:
    disk = small_disk(size=12 << 20, inodes=500)
    root = disk / "archive"
    ballast = disk / "ballast"
    with opened(root) as archive:
        acknowledged = [make_instance(number, study=f"1.2.{number}") for number in range(20)]
        finishing = archive.finisher._finishing
        with finishing:  # the finisher waits at its door while the disk fills
            for instance in acknowledged:
                assert send(archive, instance).refusal is None
            fill(ballast)
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        assert not (root / "reserve").exists()
        check_acknowledged(root, acknowledged)
        refused = send(archive, make_instance(9001))
        assert (refused.refusal, refused.comment) == (Refusal.OUT_OF_RESOURCES, "the disk is full")
        ballast.unlink()
        until(lambda: accepted_again(archive, make_instance(9001)))
        until((root / "reserve").exists)


def test_on_a_full_disk_an_archive_opens_by_its_reserve_and_finishes_what_was_left(
    small_disk: Callable[..., Path],
) -> None:
    disk = small_disk(size=12 << 20, inodes=500)
    root = disk / "archive"
    acknowledged: list[Instance] = []
    with Nursery() as nursery:
        settings = {"STOWKEEPER_LOG__FILE": "false"}
        died = Step(operation="commit", place="catalog", occurrence=1)
        log = str(disk.with_suffix(".log"))
        server = nursery.start(Order(archive=str(root), log=log, kill_at=died, settings=settings))
        with suppress(PeerClosed, ConnectionError), RawPeer(server.port) as peer:
            peer.associate()
            for number in range(4):
                instance = make_instance(number, study=f"1.2.{number}")
                assert peer.store(instance.sop_instance_uid, instance.data).status == 0
                acknowledged.append(instance)
            peer.read_pdu()  # until it is gone
        assert server.wait() == -signal.SIGKILL
    left = depot_files(root)
    assert left
    fill(disk / "ballast")
    with opened(root) as archive:
        until(lambda: not left[0].exists())
        check_acknowledged(root, acknowledged)
        assert not (root / "reserve").exists()
        assert send(archive, make_instance(9001)).refusal is Refusal.OUT_OF_RESOURCES
        (disk / "ballast").unlink()
        until(lambda: accepted_again(archive, make_instance(9001)))


def test_on_a_full_disk_without_a_reserve_an_archive_says_what_to_do(
    small_disk: Callable[..., Path],
) -> None:
    disk = small_disk(size=12 << 20, inodes=500)
    with opened(disk / "archive", reserve_size=0):
        pass
    fill(disk / "ballast")
    with pytest.raises((StorageUnfitError, DatabaseUnavailable), match="disk"), opened(disk / "archive"):
        pass
    assert depot_folders(disk / "archive") == []
    (disk / "ballast").unlink()
    with opened(disk / "archive") as archive:
        assert accepted_again(archive, make_instance(1))


# A disk that fails


class FailingFileSystem(FileSystem):
    """The real file system; what stands in `faults` fails: (operation, pattern of paths, errno), each once."""

    __slots__ = ("faults", "synced")

    def __init__(self) -> None:
        self.faults: list[tuple[str, str, int]] = []
        self.synced: list[str] = []

    def _fail(self, operation: str, path: str) -> None:
        for fault in self.faults:
            if fault[0] == operation and fnmatch(path, fault[1]):
                self.faults.remove(fault)
                raise OSError(fault[2], os.strerror(fault[2]), path)

    def synchronize(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        self.synced.append(path)
        self._fail("synchronize", path)
        super().synchronize(descriptor)

    def synchronize_directory(self, path: str) -> None:
        self._fail("synchronize_directory", path)
        super().synchronize_directory(path)

    def link(self, source: str, target: str) -> None:
        self._fail("link", target)
        super().link(source, target)

    def make_directory(self, path: str, mode: int = 0o755) -> bool:
        self._fail("make_directory", path)
        return super().make_directory(path, mode)


SLOTS = "*/depot/*/[0-9a-f]*"


@pytest.fixture
def files() -> FailingFileSystem:
    return FailingFileSystem()


@pytest.mark.parametrize(
    ("error", "flushes"), [(errno.EIO, 0), (errno.EIO, 3), (errno.ENOSPC, 0), (errno.EDQUOT, 3)]
)
def test_a_sync_that_fails_once_closes_the_door_until_a_probe_succeeds(
    tmp_path: Path, files: FailingFileSystem, error: int, flushes: int
) -> None:
    root = tmp_path / "archive"
    with opened(root, files, sync_every_bytes=4000) as archive:
        kept = [make_instance(1), make_instance(2, size=9000)]
        assert [send(archive, instance).refusal for instance in kept] == [None, None]
        files.synced.clear()
        probes = threading.Event()
        with held(archive, probes):
            files.faults.append(("synchronize", SLOTS, error))
            victim = make_instance(3, size=9000)
            assert send(archive, victim, flushes=flushes).refusal is Refusal.OUT_OF_RESOURCES
            (failed,) = {path for path in files.synced if fnmatch(path, SLOTS) and "probe" not in path}
            assert files.synced.count(failed) == 1
            assert not os.path.exists(failed)
            for _ in range(3):
                refused = send(archive, make_instance(4))
                assert refused.refusal is Refusal.OUT_OF_RESOURCES
                assert refused.comment
            assert archive.admission.association_refusal()
        until(lambda: not archive.admission.distrusted)
        assert send(archive, victim).refusal is None
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        assert files.synced.count(failed) == 1
        check_acknowledged(root, [*kept, victim])
    assert depot_folders(root) == []


@contextmanager
def held(archive: Archive, probes: threading.Event) -> Iterator[None]:
    """Let no probe run for the length of a block."""
    probe = archive._probe

    def waiting() -> None:
        if probes.is_set():
            probe()

    archive._probe = waiting  # type: ignore[method-assign]  # the same, but later
    try:
        yield
    finally:
        probes.set()


def test_the_probe_comes_soon_after_the_failure(
    tmp_path: Path, files: FailingFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the next look at dead neighbours."""
    monkeypatch.setattr(archive_module, "RECOVERY_SCAN_SECONDS", 3600.0)
    with opened(tmp_path / "archive", files) as archive:
        wait, waits = archive._look_now.wait, threading.Event()

        def wait_and_tell(seconds: float | None = None) -> bool:
            if not archive._look_now.is_set():
                waits.set()
            return wait(seconds)

        monkeypatch.setattr(archive._look_now, "wait", wait_and_tell)
        archive._look_now.set()
        assert waits.wait(OUTCOME_SECONDS_MAX)
        files.faults.append(("synchronize", SLOTS, errno.EIO))
        assert send(archive, make_instance(1)).refusal is Refusal.OUT_OF_RESOURCES
        until(lambda: accepted_again(archive, make_instance(1)))


def test_a_probe_that_fails_leaves_the_door_closed(tmp_path: Path, files: FailingFileSystem) -> None:
    root = tmp_path / "archive"
    with opened(root, files) as archive:
        files.faults += [("synchronize", "*/probe", errno.EIO)] * 3
        files.faults.append(("synchronize", SLOTS, errno.EIO))
        assert send(archive, make_instance(1)).refusal is Refusal.OUT_OF_RESOURCES
        until(lambda: not archive.admission.distrusted)
        assert files.faults == []
        assert send(archive, make_instance(1)).refusal is None


@pytest.mark.parametrize(
    ("operation", "where"),
    [
        ("synchronize_directory", "*/objects"),
        ("synchronize_directory", "*/objects/1.2.10"),
        ("synchronize_directory", "*/objects/1.2.10/1.2.10.1"),
        ("link", "*/objects/1.2.10/*"),
        ("make_directory", "*/objects/1.2.10"),
    ],
)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_what_fails_behind_the_answer_is_done_again(
    tmp_path: Path, files: FailingFileSystem, operation: str, where: str, error: int
) -> None:
    root = tmp_path / "archive"
    with opened(root, files) as archive:
        files.faults.append((operation, where, error))
        assert send(archive, make_instance(1)).refusal is None
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        assert files.faults == []
        until(lambda: accepted_again(archive, make_instance(2)))
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        check_acknowledged(root, [make_instance(1), make_instance(2)])
    assert depot_folders(root) == []


def test_nothing_that_fails_while_room_is_made_ends_the_finisher(
    tmp_path: Path, files: FailingFileSystem
) -> None:
    """The reserve's own folder cannot be synced: the disk is no longer trusted, and the work goes on."""
    root = tmp_path / "archive"
    with opened(root, files) as archive:
        files.faults += [
            ("synchronize_directory", "*/objects/1.2.10", errno.ENOSPC),
            ("synchronize_directory", str(root), errno.EIO),
        ]
        assert send(archive, make_instance(1)).refusal is None
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        until(lambda: accepted_again(archive, make_instance(2)))
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        check_acknowledged(root, [make_instance(1), make_instance(2)])


def test_a_busy_catalog_does_not_cost_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "archive"
    with opened(root) as archive:
        write, failed = archive.database.write, threading.Event()

        def busy() -> Any:
            monkeypatch.setattr(archive.database, "write", write)
            failed.set()
            raise DatabaseUnavailable("another program holds it locked")

        monkeypatch.setattr(archive.database, "write", busy)
        assert send(archive, make_instance(1)).refusal is None
        assert failed.wait(OUTCOME_SECONDS_MAX)
        assert archive.finisher.wait_until_idle(OUTCOME_SECONDS_MAX)
        assert (root / "reserve").exists()
        assert not archive.admission.distrusted
        check_acknowledged(root, [make_instance(1)])


def test_a_recovery_that_cannot_go_on_does_not_keep_the_door_closed(
    tmp_path: Path, files: FailingFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper's duties do not stand in each other's way."""
    root = tmp_path / "archive"
    with opened(root, files) as archive:

        def failing(*_: object) -> None:
            raise DatabaseUnavailable("it is full")

        monkeypatch.setattr(archive._recovery, "run", failing)
        files.faults.append(("synchronize", SLOTS, errno.EIO))
        assert send(archive, make_instance(1)).refusal is Refusal.OUT_OF_RESOURCES
        until(lambda: accepted_again(archive, make_instance(1)))
