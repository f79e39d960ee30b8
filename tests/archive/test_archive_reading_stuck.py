"""Files that a disk never gives: who reads is told soon, everybody else's are read, and nobody waits for the thread."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowkeeper.archive import archive, catalog, hanging_files, read_ahead, rebuilding
from stowkeeper.archive.agreement import Discrepancy, Fault
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.catalog_values import Version
from stowkeeper.archive.checking import CheckLevel, CheckResult, CheckStoppedError, check_versions
from stowkeeper.archive.limits import (
    HANDFUL_BYTES,
    LEFT_READERS_MAX,
    READ_GAP_SECONDS,
    READ_SILENT_SECONDS,
)
from stowkeeper.archive.mending import Mending
from stowkeeper.archive.read_ahead import ReadingStuckError, map_ahead, still_reading, waiting_by_choice
from stowkeeper.archive.rebuilding import Rebuilding
from stowkeeper.archive.verification import Verification
from support.command_line import CommandLine, keep
from support.crash_checks import until
from support.instances import make_instance
from support.slow_disk import SlowDisk
from support.stuck_disk import StuckDisk

SILENT = 0.3
SOON = 10.0
"""Far more than anything here takes, far less than anything would wait."""


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()
    until(nothing_is_left, SOON)  # of this process, and so of every test


def nothing_is_left() -> bool:
    read_ahead._too_many_are_left()
    return not read_ahead._left


class Clock:
    """The time of who reads ahead: it goes on when it is told to, and after that waits until the time was looked at."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._looks = 0
        self._owner = threading.get_ident()
        self._condition = threading.Condition()

    def monotonic(self) -> float:
        with self._condition:
            if threading.get_ident() == self._owner:
                self._looks += 1
                self._condition.notify_all()
            return self.now

    def let_pass(self, seconds: float) -> None:
        with self._condition:
            self.now += seconds
            enough = self._looks + 2
            assert self._condition.wait_for(lambda: self._looks >= enough, SOON)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(read_ahead, "time", clock)
    monkeypatch.setattr(read_ahead, "READ_LOOK_SECONDS", 0.01)
    return clock


def hanging(release: threading.Event, *numbers: int) -> Callable[[int], int]:
    """Return a function that does not come back from some numbers until the release."""

    def read(number: int) -> int:
        if number in numbers:
            release.wait(60)
        return number

    return read


@pytest.mark.parametrize("together", [True, False])
def test_what_does_not_go_on_is_an_error_and_everything_else_is_read(
    release: threading.Event, *, together: bool
) -> None:
    stuck = {0, 3, 4, 17, 31}
    began = time.monotonic()
    found = dict(
        map_ahead(
            hanging(release, *stuck),
            range(40),
            threads=2,
            weigh=(lambda _number: 1) if together else None,
            silent_seconds=SILENT,
        )
    )
    assert time.monotonic() - began < SOON
    assert list(found) == list(range(40))
    for number, result in found.items():
        assert isinstance(result, ReadingStuckError) is (number in stuck)
        if isinstance(result, ReadingStuckError):
            assert not result.is_over()
            assert result.strerror is not None
            assert "has not gone on for 0.3 s" in result.strerror
        else:
            assert result == number
    release.set()
    errors = [result for result in found.values() if isinstance(result, ReadingStuckError)]
    until(lambda: all(error.is_over() for error in errors), SOON)


def test_what_goes_on_however_slowly_is_no_error(clock: Clock) -> None:
    assert READ_SILENT_SECONDS == 30.0

    def slow(number: int) -> int:
        for _ in range(6):
            clock.let_pass(SILENT / 2)
            still_reading()
        return number

    def waiting(number: int) -> int:
        with waiting_by_choice():
            clock.let_pass(3 * SILENT)
        return number

    for function in (slow, waiting):
        found = list(map_ahead(function, range(1), threads=1, silent_seconds=SILENT))
        assert found == [(0, 0)]


def test_a_reader_of_results_that_stood_still_blames_no_disk(release: threading.Event, clock: Clock) -> None:
    """As a process that was stopped for a while: nothing that others did not do meanwhile counts."""
    begun = threading.Event()
    looks: list[float] = []

    def read(number: int) -> int:
        if number == 1:
            begun.set()
            release.wait(60)
        return number

    def go_on() -> None:
        looks.append(clock.now)
        if looks.count(clock.now) == 3 and clock.now > began:
            release.set()

    began = clock.now
    results = map_ahead(read, range(2), go_on=go_on, silent_seconds=2 * READ_GAP_SECONDS)
    assert next(results) == (0, 0)
    assert begun.wait(SOON)
    clock.now += 4 * READ_GAP_SECONDS
    assert list(results) == [(1, 1)]


def test_saying_so_elsewhere_does_nothing() -> None:
    """In a thread that reads for nobody; who asks from there for files still has errors of their own."""
    before = vars(read_ahead._this_thread).copy()
    still_reading()
    with waiting_by_choice():
        still_reading()
    assert vars(read_ahead._this_thread) == before


def test_breaking_it_off_waits_for_nobody(release: threading.Event) -> None:
    stop = threading.Event()

    def go_on() -> None:
        if stop.is_set():
            raise KeyError

    def run() -> None:
        with pytest.raises(KeyError):
            list(map_ahead(hanging(release, 0), range(10), go_on=go_on))

    thread = threading.Thread(target=run)
    thread.start()
    stop.set()
    thread.join(SOON)
    assert not thread.is_alive()
    # And so does whoever takes no more results.
    results = map_ahead(hanging(release, 1), range(10), weigh=lambda _number: HANDFUL_BYTES)
    assert next(results) == (0, 0)
    closing = threading.Thread(target=results.close)  # type: ignore[attr-defined]  # it is a generator
    closing.start()
    closing.join(SOON)
    assert not closing.is_alive()
    assert all(each.daemon for each in threading.enumerate() if each.name == "reader")


def test_where_too_many_hang_nothing_is_begun(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LEFT_READERS_MAX == 32
    monkeypatch.setattr(read_ahead, "LEFT_READERS_MAX", 3)
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        release.wait(60)
        return number

    found = dict(map_ahead(read, range(20), threads=1, ahead=1, silent_seconds=SILENT))
    assert all(isinstance(result, ReadingStuckError) for result in found.values())
    assert len(begun) <= 3 + 2
    assert "have not come back" in str(found[19])
    # Who does not ask for it is not held back.
    assert dict(map_ahead(lambda number: number, range(3))) == {0: 0, 1: 1, 2: 2}
    release.set()
    until(
        lambda: dict(map_ahead(lambda number: number, range(3), silent_seconds=SILENT)) == {0: 0, 1: 1, 2: 2},
        SOON,
    )


# Checks


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveReader]:
    monkeypatch.setattr(hanging_files, "READ_SILENT_SECONDS", SILENT)
    keep(tmp_path, *(make_instance(number) for number in range(1, 4)))
    reader = ArchiveReader(str(tmp_path))
    yield reader
    reader.close()


def path_of(reader: ArchiveReader, number: int) -> str:
    (path,) = (
        version.path
        for version in catalog.iterate_versions(reader.database)
        if version.sop_instance_uid.endswith(f".{number}")
    )
    return os.path.join(reader.root, path)


def checked(
    reader: ArchiveReader, files: StuckDisk | SlowDisk, stopping: threading.Event | None = None
) -> dict[str, CheckResult | OSError]:
    versions: list[Version] = list(catalog.iterate_versions(reader.database))
    found = check_versions(files, reader.root, reader.database, versions, CheckLevel.DIGEST, stopping)
    return {version.sop_instance_uid: result for version, result in found}


def test_a_file_that_does_not_come_is_unreadable_and_read_once(
    reader: ArchiveReader, release: threading.Event
) -> None:
    disk = StuckDisk(path_of(reader, 2))
    for _ in range(3):
        found = checked(reader, disk)
        bad = [result for uid, result in found.items() if uid.endswith(".2")]
        assert isinstance(bad[0], OSError)
        assert "cannot be read: reading it has not gone on" in str(bad[0])
        assert sum(isinstance(result, CheckResult) and result.is_whole for result in found.values()) == 2
    assert disk.begun == 1
    disk.release()
    until(lambda: not any(isinstance(result, OSError) for result in checked(reader, disk).values()), SOON)


def test_a_check_of_a_file_that_does_not_come_stops_at_once(
    reader: ArchiveReader, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hanging_files, "READ_SILENT_SECONDS", 60.0)
    disk = StuckDisk(path_of(reader, 2))
    stopping = threading.Event()
    ended: list[bool] = []

    def run() -> None:
        with pytest.raises(CheckStoppedError):
            checked(reader, disk, stopping)
        ended.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: disk.begun > 0, SOON)
    stopping.set()
    thread.join(SOON)
    assert ended
    disk.release()


def test_a_check_whose_rate_is_limited_is_not_held_against_the_disk(
    reader: ArchiveReader, clock: Clock
) -> None:
    versions = list(catalog.iterate_versions(reader.database))

    def pace(_count: int) -> None:
        clock.let_pass(2 * SILENT)

    found = check_versions(
        reader.files, reader.root, reader.database, versions, CheckLevel.DIGEST, None, pace
    )
    assert [isinstance(result, CheckResult) and result.is_whole for _, result in found] == [True] * 3


# Verify and rebuild


def test_verify_names_a_file_that_does_not_come_and_reads_all_others(
    reader: ArchiveReader, release: threading.Event
) -> None:
    disk = StuckDisk(path_of(reader, 2))
    for _ in range(2):
        verification = Verification(disk, reader.root, reader.database)
        (found,) = verification.run()
        assert found.fault is Fault.UNREADABLE
        assert found.sop_instance_uid.endswith(".2")
        assert "cannot be read: reading it has not gone on for 0.3 s" in found.words
        assert verification.counts.whole == 2
    assert disk.begun == 1
    disk.release()
    until(lambda: list(Verification(disk, reader.root, reader.database).run()) == [], SOON)


def test_a_verification_whose_rate_is_limited_is_not_held_against_the_disk(
    reader: ArchiveReader, clock: Clock
) -> None:
    def pace(count: int) -> None:
        if count:
            clock.let_pass(2 * SILENT)

    verification = Verification(reader.files, reader.root, reader.database, progress=pace)
    assert list(verification.run()) == []
    assert verification.counts.whole == 3


def test_a_file_without_a_row_that_does_not_come_is_named_too(
    reader: ArchiveReader, release: threading.Event
) -> None:
    known = path_of(reader, 2)
    disk = StuckDisk(f"{known}.dcm")
    shutil.copy(known, f"{known}.dcm")
    (found,) = Verification(disk, reader.root, reader.database).run()
    assert found.fault is Fault.UNLISTED
    assert "no row knows it, and it cannot be read: reading it has not gone on" in found.words
    disk.release()


def test_a_rebuild_beside_servers_names_a_file_that_does_not_come(
    reader: ArchiveReader, release: threading.Event
) -> None:
    stuck = path_of(reader, 2)
    disk = StuckDisk(stuck)
    mending = Mending(disk, reader.root, reader.database)
    (found,) = mending.run()
    assert (found.fault, os.path.join(reader.root, found.path)) == (Fault.UNREADABLE, stuck)
    assert mending.counts.known == 2
    assert disk.begun == 1
    disk.release()


@pytest.mark.parametrize("is_new", [True, False])
def test_rebuild_names_a_file_that_does_not_come_and_lists_all_others(
    reader: ArchiveReader, release: threading.Event, *, is_new: bool
) -> None:
    disk = StuckDisk(path_of(reader, 2))
    reader.close()
    if is_new:
        for name in Path(reader.root).glob("catalog.sqlite*"):
            name.unlink()
    with Rebuilding(reader.root, files=disk) as rebuild:
        assert rebuild.look()[0] == 3
        found: list[Discrepancy] = list(rebuild.run())
        assert [one.fault for one in found] == [Fault.UNREADABLE]
        assert "cannot be read: reading it has not gone on" in found[0].words
        assert rebuild.counts.listed + rebuild.counts.known == 2
    assert disk.begun == 1
    disk.release()
    until(nothing_is_left, SOON)
    # Once the disk gives it, it is listed as well.
    with Rebuilding(reader.root, files=disk) as rebuild:
        rebuild.look()
        assert list(rebuild.run()) == []
        assert rebuild.counts.listed + rebuild.counts.known == 3


@pytest.mark.parametrize("command", ["verify", "rebuild"])
def test_the_command_ends_and_says_so_by_its_exit_code(
    reader: ArchiveReader,
    release: threading.Event,
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = path_of(reader, 2)
    reader.close()
    disk = StuckDisk(path)
    for module in (archive, rebuilding):
        monkeypatch.setattr(module, "FileSystem", lambda: disk)
    ended = CommandLine(Path(reader.root), capsys)(command, "--json")
    disk.release()
    assert ended.code == 1
    *named, _ = ended.lines
    assert [(line["fault"], os.path.join(reader.root, line["path"])) for line in named] == [
        ("unreadable", path)
    ]
    assert "has not gone on" in named[0]["words"]
    assert ended.summary["unreadable"] == 1


@pytest.mark.slow
def test_the_second_reading_of_a_damaged_file_may_take_its_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hanging_files, "READ_SILENT_SECONDS", 1.0)
    keep(tmp_path, make_instance(1, size=8_000_000))
    reader = ArchiveReader(str(tmp_path))
    path = Path(path_of(reader, 1))
    with path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))
    (result,) = checked(reader, SlowDisk(0.2)).values()
    assert isinstance(result, CheckResult)
    assert not result.is_whole
    reader.close()
