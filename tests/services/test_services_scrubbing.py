"""The scrub reads every file within its days, no faster than it must, for ever, and whatever ends in between."""

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from sqlalchemy import update

from stowkeeper.archive import catalog
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.database import schema
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import Job, JobFilter, JobItem
from stowkeeper.jobs.kind import JobInterrupted
from stowkeeper.jobs.limits import SLEEP_SECONDS_MAX
from stowkeeper.jobs.states import JobState
from stowkeeper.jobs.times import later
from stowkeeper.services.archive_job_limits import (
    SCRUB_CATCH_UP,
    SCRUB_FILE_COST,
    SCRUB_ROUND_SHARE,
    SCRUB_SLICE_COST_MIN,
)
from stowkeeper.services.pace import Pace
from stowkeeper.services.scrubbing import (
    ARCHIVE_LANE,
    Round,
    ScrubJob,
    keep_scrubbing,
    seconds_between,
)
from support.command_line import keep
from support.instances import make_instance
from support.job_engine_thread import engine_running, wait_until
from support.job_rig import MIDNIGHT, Clocks, act, engine_of, find, go, until
from support.slow_disk import SlowDisk

DAYS = 30.0
ROUND_SECONDS = DAYS * 86_400 * SCRUB_ROUND_SHARE
COUNT = 6


class CountingDisk(FileSystem):
    """Counts how often a file was read from the medium, by its inode."""

    __slots__ = ("reads",)

    def __init__(self) -> None:
        self.reads = Counter[int]()

    def drop_cache(self, descriptor: int) -> None:
        super().drop_cache(descriptor)
        self.reads[os.fstat(descriptor).st_ino] += 1


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("template") / "archive"
    keep(archive, *(make_instance(number) for number in range(1, COUNT + 1)))
    return archive


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "archive"))


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a slice be two files."""
    monkeypatch.setattr("stowkeeper.services.scrubbing.SCRUB_SLICE_FILES_MAX", 2)


@contextmanager
def opened(root: Path, clocks: Clocks) -> Iterator[ArchiveReader]:
    reader = ArchiveReader(str(root), files=CountingDisk())
    reader.database._clock = clocks.now
    try:
        yield reader
    finally:
        reader.close()


def scrub(reader: ArchiveReader) -> Job:
    with reader.database.write() as transaction:
        job = keep_scrubbing(transaction, created_by="settings")
    assert job is not None
    return job


def items(reader: ArchiveReader, job: Job) -> list[JobItem]:
    with reader.database.read() as connection:
        return rows.items_of(connection, job.job_key)


def read_files(reader: ArchiveReader) -> int:
    assert isinstance(reader.files, CountingDisk)
    assert len(set(reader.files.reads.values())) <= 1, "some were read more often than others"
    return reader.files.reads.total()


def files_of(root: Path) -> list[Path]:
    return sorted((root / "objects").rglob("*.dcm"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


async def slices(reader: ArchiveReader, clocks: Clocks, job: Job, count: int, days: float = DAYS) -> None:
    """Run an engine for so many slices, with the time going on to when the next one is due."""
    kind = ScrubJob(reader, days, clocks.now)
    async with engine_of(
        reader.database,
        Path(reader.root),
        kind,  # type: ignore[arg-type]  # any kind will do
        owner=f"e{time.monotonic_ns()}",
        clock=clocks.now,
        monotonic=clocks.steady,
    ) as engine:
        for _ in range(count):
            before = find(reader.database, job).attempts
            due = find(reader.database, job).due_at
            # What is due later than any job sleeps was written before the clock was set back, and is due.
            ahead = max(seconds_between(clocks.wall, due), 0.0)
            clocks.pass_((ahead if ahead <= SLEEP_SECONDS_MAX else 0.0) + 0.001)
            engine.wake()
            await until(
                lambda before=before: (
                    find(reader.database, job).attempts > before
                    and find(reader.database, job).state is not JobState.RUNNING
                ),
                "a slice to be read",
            )


def this_round(reader: ArchiveReader, job: Job) -> Round:
    return Round.from_json(find(reader.database, job).checkpoint["round"])


# Rounds.


@pytest.mark.slow
def test_a_round_reads_every_file_once_in_slices_and_says_what_it_found(
    root: Path, small_slices: None
) -> None:
    clocks = Clocks()
    with opened(root, clocks) as reader:
        job = scrub(reader)
        with structlog.testing.capture_logs() as logged:
            go(slices(reader, clocks, job, 3))
            assert (read_files(reader), this_round(reader, job).is_over) == (COUNT, False)
            go(slices(reader, clocks, job, 1))
        assert read_files(reader) == COUNT
        now = this_round(reader, job)
        size = sum(path.stat().st_size for path in files_of(root))
        result = f"6 files read, {size} bytes: all whole"
        assert now.words == f"round 1, begun {now.began_at}: {result}"
        assert [line["what"] for line in logged if line["event"] == "scrub"] == [now.words]
        row = find(reader.database, job)
        assert (row.state, row.lane, row.items_done, row.items_total) == (
            JobState.PENDING,
            ARCHIVE_LANE,
            COUNT,
            COUNT,
        )


@pytest.mark.slow
def test_at_the_end_of_a_round_the_next_one_waits_for_its_time_and_begins(
    root: Path, small_slices: None
) -> None:
    clocks = Clocks()
    with opened(root, clocks) as reader:
        job = scrub(reader)
        go(slices(reader, clocks, job, 4))
        began = this_round(reader, job).began_at
        go(slices(reader, clocks, job, 3))
        assert read_files(reader) == COUNT, "the next round is not due yet"
        clocks.pass_(ROUND_SECONDS)
        go(slices(reader, clocks, job, 3))
        assert read_files(reader) == 2 * COUNT
        now = this_round(reader, job)
        assert (now.number, now.is_over, now.files) == (2, False, COUNT)
        assert seconds_between(began, now.began_at) >= ROUND_SECONDS
        assert now.words.startswith("round 1, ")


@pytest.mark.slow
def test_what_arrives_during_a_round_is_read_at_its_end(root: Path, small_slices: None) -> None:
    clocks = Clocks()
    with opened(root, clocks) as reader:
        job = scrub(reader)
        go(slices(reader, clocks, job, 3))
    keep(root, make_instance(50))
    with opened(root, clocks) as reader:
        go(slices(reader, clocks, job, 2))
        assert (read_files(reader), this_round(reader, job).files) == (1, COUNT + 1)


@pytest.mark.slow
def test_a_slice_begins_where_the_one_before_ended_also_after_a_restart(
    root: Path, small_slices: None
) -> None:
    clocks = Clocks()
    for _ in range(3):
        with opened(root, clocks) as reader:
            with reader.database.read() as connection:
                under_way = rows.list_jobs(connection, JobFilter(kind="scrub"))
            job = under_way[0] if under_way else scrub(reader)
            go(slices(reader, clocks, job, 1))
            assert read_files(reader) == 2
    with opened(root, clocks) as reader:
        assert this_round(reader, job).after == COUNT


def test_superseded_versions_are_read_too_and_what_is_gone_is_not(root: Path) -> None:
    clocks = Clocks()
    with opened(root, clocks) as reader:
        with reader.database.write() as transaction:
            catalog.mark_superseded(transaction, [1], removal_due_at="2099", reason="replaced")
            catalog.mark_removing(transaction, [2], reason="asked for")
        go(slices(reader, clocks, scrub(reader), 1))
        assert read_files(reader) == COUNT - 1


# What it finds.


@pytest.mark.slow
def test_damage_is_condemned_said_and_kept_as_an_item(root: Path, small_slices: None) -> None:
    clocks = Clocks()
    flip(files_of(root)[2])
    files_of(root)[4].unlink()
    with opened(root, clocks) as reader:
        job = scrub(reader)
        with structlog.testing.capture_logs() as logged:
            go(slices(reader, clocks, job, 4))
        errors = [line for line in logged if line["event"] == "error"]
        assert [line["what"] for line in errors] == ["a kept file is damaged", "a kept file is missing"]
        assert errors[0]["moved_to"].startswith("quarantine/")
        assert [(item.position, item.outcome) for item in items(reader, job)] == [
            (0, "damaged"),
            (1, "missing"),
        ]
        assert this_round(reader, job).words.endswith("4 whole; 1 damaged, 1 missing")
        with reader.database.read() as connection:
            found = catalog.find_versions(connection, ["1.2.3.3"], tuple(VersionState))
        assert found["1.2.3.3"][0].state is VersionState.DAMAGED


@pytest.mark.slow
def test_a_later_round_counts_what_it_found_itself(root: Path) -> None:
    clocks = Clocks()
    flip(files_of(root)[0])
    with opened(root, clocks) as reader:
        job = scrub(reader)
        go(slices(reader, clocks, job, 2))
        files_of(root)[3].unlink()
        clocks.pass_(ROUND_SECONDS)
        go(slices(reader, clocks, job, 2))
        assert this_round(reader, job).words.endswith("4 whole; 1 missing")
        assert find(reader.database, job).checkpoint["found"] == {"damaged": 1, "missing": 1}


# The rate.


def a_round(total: int = 1000 << 20, left: int | None = None) -> Round:
    return Round(
        number=1,
        began_at=MIDNIGHT,
        counted_at=MIDNIGHT,
        total=total,
        left=total if left is None else left,
        files_expected=1,
        found_before={},
    )


def day(number: float) -> str:
    return later(MIDNIGHT, number * 86_400)


def test_the_rate_follows_from_the_size_and_the_days() -> None:
    even = (1000 << 20) / ROUND_SECONDS
    assert a_round().rate(MIDNIGHT, DAYS) == pytest.approx(even)
    assert a_round().rate(MIDNIGHT, DAYS / 2) == pytest.approx(2 * even)
    assert a_round(total=2000 << 20).rate(MIDNIGHT, DAYS) == pytest.approx(2 * even)
    half = a_round(left=500 << 20)
    assert half.rate(day(DAYS * SCRUB_ROUND_SHARE / 2), DAYS) == pytest.approx(even)


def test_a_round_that_is_late_is_read_faster_within_a_bound_and_one_that_is_early_no_slower() -> None:
    even = (1000 << 20) / ROUND_SECONDS
    late = a_round().rate(day(DAYS * SCRUB_ROUND_SHARE / 2), DAYS)
    assert late == pytest.approx(2 * even)
    for number in (26.9, 27, 40, 4000):
        assert a_round().rate(day(number), DAYS) == pytest.approx(SCRUB_CATCH_UP * even)
    assert a_round(left=10).rate(day(1), DAYS) == pytest.approx(even)
    assert a_round().rate(day(-1), DAYS) == pytest.approx(even), "a clock that was set back a little"


def test_a_pause_is_as_long_as_what_was_read_costs(root: Path, small_slices: None) -> None:
    clocks = Clocks()
    with opened(root, clocks) as reader:
        with reader.database.write() as transaction:
            # As if the files were large: a round of ten megabytes a second.
            transaction.execute(update(schema.versions).values(file_size=int(10e6 * ROUND_SECONDS / COUNT)))
        job = scrub(reader)
        go(slices(reader, clocks, job, 1))
        size = int(10e6 * ROUND_SECONDS / COUNT) + SCRUB_FILE_COST
        wanted = min(size / 10e6, 86_400)  # one file fills a slice; no job sleeps longer than a day
        row = find(reader.database, job)
        assert seconds_between(clocks.wall, row.due_at) == pytest.approx(wanted, rel=0.01)
        assert read_files(reader) == 1


def test_a_small_archive_is_read_in_slices_of_a_bound(root: Path) -> None:
    clocks = Clocks()
    with opened(root, clocks) as reader:
        with reader.database.write() as transaction:
            transaction.execute(update(schema.versions).values(file_size=SCRUB_SLICE_COST_MIN // 2))
        job = scrub(reader)
        go(slices(reader, clocks, job, 1))
        assert read_files(reader) == 2


# Giving way.


@pytest.mark.slow
def test_a_slice_gives_way_within_a_second_and_is_read_again(root: Path) -> None:
    shutil.rmtree(root)
    keep(root, *(make_instance(number, size=8_000_000) for number in range(4)))
    disk = SlowDisk(0.05)
    reader = ArchiveReader(str(root), files=disk)
    try:
        job = scrub(reader)
        with engine_running(reader.database, root, lambda: [ScrubJob(reader, DAYS)]) as engine:
            engine.wake()
            wait_until(lambda: disk.moments > 10, "it to be in the middle of its work")
            asked = time.monotonic()
            act(reader.database, rows.pause, job)
            engine.wake()
            wait_until(lambda: find(reader.database, job).state is JobState.PAUSED)
            assert time.monotonic() - asked < 10, "a second, and some for a busy machine"
            assert "round" not in find(reader.database, job).checkpoint
            act(reader.database, rows.resume, job)
            engine.wake()
            wait_until(lambda: "round" in find(reader.database, job).checkpoint)
    finally:
        reader.close()


# Clocks and settings.


@pytest.mark.slow
def test_a_clock_that_is_set_back_by_years_does_not_end_the_scrub(root: Path, small_slices: None) -> None:
    clocks = Clocks()
    with opened(root, clocks) as reader:
        job = scrub(reader)
        go(slices(reader, clocks, job, 4))
        clocks.set_by(-3 * 365 * 86_400)
        go(slices(reader, clocks, job, 1))
        clocks.pass_(ROUND_SECONDS)
        go(slices(reader, clocks, job, 2))
        assert this_round(reader, job).number == 2


def test_no_days_end_it(root: Path) -> None:
    clocks = Clocks()
    with opened(root, clocks) as reader:
        job = scrub(reader)
        go(slices(reader, clocks, job, 1, days=0))
        ended = find(reader.database, job)
        assert ended.state is JobState.SUCCESS
        assert "switched off" in ended.error
        assert read_files(reader) == 0


@pytest.mark.parametrize("days", [-1.0, 4000.0])
def test_senseless_days_are_refused(root: Path, days: float) -> None:
    with opened(root, Clocks()) as reader, pytest.raises(ValueError, match="days"):
        ScrubJob(reader, days)


def test_there_is_one_scrub_and_a_cancelled_one_is_put_in_anew(root: Path) -> None:
    with opened(root, Clocks()) as reader:
        first = scrub(reader)
        with reader.database.write() as transaction:
            assert keep_scrubbing(transaction, created_by="settings") is None
        act(reader.database, rows.pause, first)
        with reader.database.write() as transaction:
            assert keep_scrubbing(transaction, created_by="settings") is None
            transaction.execute(update(schema.jobs).values(state="cancelled"))
        with reader.database.write() as transaction:
            again = keep_scrubbing(transaction, created_by="settings")
        assert again is not None
        assert again.job_id != first.job_id


# The pace.


def test_a_pace_holds_back_who_reads_too_fast() -> None:
    waited: list[float] = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            return False

    now = [100.0]
    pace = Pace(Stopping(), 1000, clock=lambda: now[0])
    pace(500)
    pace(500)
    now[0] = 200.0  # what was saved up by standing still is not given
    pace(1000)
    assert waited == [pytest.approx(0.5), pytest.approx(1.0), pytest.approx(1.0)]


def test_a_pace_ends_its_waiting_when_it_is_told_to_stop() -> None:
    stopping = threading.Event()
    pace = Pace(stopping, 1000)
    threading.Timer(0.1, stopping.set).start()
    began = time.monotonic()
    with pytest.raises(JobInterrupted):
        pace(1_000_000)
    assert time.monotonic() - began < 30
    with pytest.raises(JobInterrupted):
        pace(0)


def test_without_a_rate_a_pace_does_not_wait() -> None:
    waited: list[float | None] = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return False

    pace = Pace(Stopping())
    for _ in range(3):
        pace(1 << 40)
    assert waited == []
