"""Log files: a new one by size, by the day, or two in turn; what their folder goes through; who may read them."""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stowkeeper.app.log_files import DailyFile, LogFile, RotatingFile, TwoFiles, used_last
from stowkeeper.app.log_writer import LogWriter
from stowkeeper.app.logs import log_path
from stowkeeper.app.settings_of_log import LogSettings
from support.small_filesystem import small_filesystem

DAY = 86_400.0
SECOND_OF_MARCH = 1_772_409_600.0  # 2026-03-02T00:00:00Z


def numbered(count: int) -> list[str]:
    return [f"line {number:06}" for number in range(count)]


def lines_of(folder: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in sorted(folder.iterdir())}


# By the day.


class Clock:
    """A clock that stands where a test puts it."""

    def __init__(self) -> None:
        self.now = SECOND_OF_MARCH + DAY - 1

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def daily(folder: Path, clock: Clock, *, max_size: int = 10_000, backups: int = 3) -> DailyFile:
    return DailyFile(str(folder / "stowkeeper.log"), max_size=max_size, backups=backups, clock=clock)


def test_at_midnight_in_utc_a_file_gets_its_day(tmp_path: Path, clock: Clock) -> None:
    file = daily(tmp_path, clock)
    file.write(["the last of the day"])
    clock.now += 1
    file.write(["the first of the next"])
    clock.now += DAY - 1
    file.write(["the last of that"])
    file.close()
    assert lines_of(tmp_path) == {
        "stowkeeper-2026-03-02.log": ["the last of the day"],
        "stowkeeper.log": ["the first of the next", "the last of that"],
    }


def test_days_without_a_line_have_no_file_and_the_oldest_go(tmp_path: Path, clock: Clock) -> None:
    file = daily(tmp_path, clock, backups=2)
    (tmp_path / "stowkeeper-notes.log").write_text("not ours\n")
    for number in range(4):
        file.write([str(number)])
        clock.now += 2 * DAY
    file.write(["now"])
    file.close()
    assert lines_of(tmp_path) == {
        "stowkeeper-2026-03-06.log": ["2"],
        "stowkeeper-2026-03-08.log": ["3"],
        "stowkeeper-notes.log": ["not ours"],
        "stowkeeper.log": ["now"],
    }


def test_a_day_that_fills_more_than_a_file_has_several(tmp_path: Path, clock: Clock) -> None:
    file = daily(tmp_path, clock, max_size=60, backups=3)
    lines = numbered(26)
    file.write(lines)
    clock.now += DAY
    file.write(["next"])
    file.close()
    kept = lines_of(tmp_path)
    assert list(kept) == [f"stowkeeper-2026-03-02.{number}.log" for number in (4, 5, 6)] + ["stowkeeper.log"]
    assert [line for part in kept.values() for line in part] == [*lines[-11:], "next"]


def test_after_a_restart_a_file_is_of_the_day_of_its_last_line(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "stowkeeper.log"
    path.write_text("before the restart\n")
    os.utime(path, (clock.now, clock.now))
    clock.now += 5 * DAY
    file = daily(tmp_path, clock)
    file.write(["after it"])
    file.close()
    assert lines_of(tmp_path) == {
        "stowkeeper-2026-03-02.log": ["before the restart"],
        "stowkeeper.log": ["after it"],
    }


def test_a_clock_that_is_set_back_over_midnight_costs_no_line(tmp_path: Path, clock: Clock) -> None:
    file = daily(tmp_path, clock, backups=9)
    for number, step in enumerate((1, -1, 1, -1)):
        file.write([str(number)])
        clock.now += step
    file.write(["last"])
    file.close()
    assert lines_of(tmp_path) == {
        "stowkeeper-2026-03-02.2.log": ["2"],
        "stowkeeper-2026-03-02.log": ["0"],
        "stowkeeper-2026-03-03.2.log": ["3"],
        "stowkeeper-2026-03-03.log": ["1"],
        "stowkeeper.log": ["last"],
    }


def test_no_earlier_days_are_kept_where_none_are_wanted(tmp_path: Path, clock: Clock) -> None:
    file = daily(tmp_path, clock, backups=0)
    file.write(["yesterday"])
    clock.now += DAY
    file.write(["today"])
    file.close()
    assert lines_of(tmp_path) == {"stowkeeper.log": ["today"]}


def test_several_servers_put_a_day_away_once(tmp_path: Path) -> None:
    path = tmp_path / "stowkeeper.log"
    path.write_text("before\n")
    os.utime(path, (SECOND_OF_MARCH, SECOND_OF_MARCH))
    files = [DailyFile(str(path), max_size=10_000, backups=3) for _ in range(4)]
    for file in files:
        file.open()
    threads = [
        threading.Thread(target=file.write, args=([f"{number} after"],)) for number, file in enumerate(files)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    kept = {name: sorted(lines) for name, lines in lines_of(tmp_path).items()}
    assert kept == {
        "stowkeeper-2026-03-02.log": ["before"],
        "stowkeeper.log": [f"{number} after" for number in range(4)],
    }


# Two in turn.


def pair(folder: Path, max_size: int = 100) -> TwoFiles:
    first, second = str(folder / "stowkeeper1.log"), str(folder / "stowkeeper2.log")
    return TwoFiles((first, second), max_size=max_size)


def test_two_files_are_used_in_turn_and_the_other_is_erased(tmp_path: Path) -> None:
    file = pair(tmp_path)
    lines = numbered(20)  # 12 bytes each: eight fill a file
    for line in lines[:8]:
        file.write([line])
    assert lines_of(tmp_path) == {"stowkeeper1.log": lines[:8]}
    file.write(lines[8:16])
    assert lines_of(tmp_path) == {"stowkeeper1.log": lines[:8], "stowkeeper2.log": lines[8:16]}
    file.write(lines[16:])
    file.close()
    assert lines_of(tmp_path) == {"stowkeeper1.log": lines[16:], "stowkeeper2.log": lines[8:16]}


@pytest.mark.parametrize("count", [1, 8, 9, 16, 17, 30, 40])
def test_the_file_in_use_is_found_again_after_a_restart(tmp_path: Path, count: int) -> None:
    lines = numbered(count + 1)
    for line in lines:
        restarted = pair(tmp_path)
        restarted.open()
        restarted.write([line])
        restarted.close()
    kept = sorted(line for part in lines_of(tmp_path).values() for line in part)
    assert kept == lines[-len(kept) :], "those that are kept are the last ones"
    assert len(kept) > min(count, 8)
    in_use = log_path(LogSettings(rotation="two files"), tmp_path)
    assert Path(in_use).read_text().splitlines()[-1] == lines[-1]


def test_a_clock_that_is_set_back_does_not_bring_the_full_file_back(tmp_path: Path) -> None:
    file = pair(tmp_path)
    lines = numbered(13)
    file.write(lines[:9])
    # As if these had been written an hour from now, before the clock was set back.
    for number, path in enumerate((tmp_path / "stowkeeper1.log", tmp_path / "stowkeeper2.log")):
        os.utime(path, (path.stat().st_mtime + 3600 + number,) * 2)
    for line in lines[9:]:
        file.write([line])
    file.close()
    assert lines_of(tmp_path) == {"stowkeeper1.log": lines[:8], "stowkeeper2.log": lines[8:]}


@pytest.mark.parametrize("step", [-1000.0, 1000.0])
def test_a_clock_that_jumps_does_not_change_which_file_is_in_use(tmp_path: Path, step: float) -> None:
    file = pair(tmp_path)
    lines = numbered(10)
    file.write(lines[:8])
    full = tmp_path / "stowkeeper1.log"
    os.utime(full, (full.stat().st_mtime + step,) * 2)
    file.write(lines[8:9])
    assert Path(used_last((str(full), str(tmp_path / "stowkeeper2.log")))).name == "stowkeeper2.log"
    file.write(lines[9:])
    file.close()
    assert lines_of(tmp_path) == {"stowkeeper1.log": lines[:8], "stowkeeper2.log": lines[8:]}


def test_several_servers_take_their_turns_with_the_same_two_files(tmp_path: Path) -> None:
    def write(name: str) -> None:
        file = pair(tmp_path, max_size=2000)
        for number in range(200):
            file.write([f"{name} {number:04}"])
        file.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = lines_of(tmp_path)
    assert list(kept) == ["stowkeeper1.log", "stowkeeper2.log"]
    assert max(len(lines) for lines in kept.values()) == 2000 // 7
    for name in "abc":
        numbers = sorted(int(line[2:]) for lines in kept.values() for line in lines if line[0] == name)
        assert numbers == list(range(200 - len(numbers), 200)), "no line of the last ones is missing"


# What the folder goes through.


def outlets(folder: Path) -> Iterator[LogFile]:
    yield RotatingFile(str(folder / "stowkeeper.log"), max_size=1000, backups=1)
    yield daily(folder, Clock())
    yield pair(folder)


def test_a_folder_that_is_taken_away_is_made_anew(tmp_path: Path) -> None:
    for file in outlets(tmp_path / "archive" / "log"):
        file.open()
        file.write(["one"])
        shutil.rmtree(tmp_path / "archive" / "log")
        file.write(["two"])
        file.close()
        assert list(lines_of(tmp_path / "archive" / "log").values()) == [["two"]]
        shutil.rmtree(tmp_path / "archive")


def test_what_is_above_a_folder_is_not_made_anew(tmp_path: Path) -> None:
    for file in outlets(tmp_path / "archive" / "log"):
        file.open()
        (tmp_path / "archive").rename(tmp_path / "gone")
        with pytest.raises(FileNotFoundError):
            file.write(["lost"])
        assert not (tmp_path / "archive").exists()
        (tmp_path / "gone").rename(tmp_path / "archive")
        file.write(["back"])
        file.close()
        assert ["back"] in lines_of(tmp_path / "archive" / "log").values()
        shutil.rmtree(tmp_path / "archive")


def test_the_place_of_a_disk_that_is_gone_gets_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "log"
    file = RotatingFile(str(folder / "stowkeeper.log"), max_size=1000, backups=1)
    with small_filesystem(tmp_path, size=1 << 20, inodes=50) as disk:
        folder.symlink_to(disk / "log")
        # As after a loss of the disk: its folder is not there, and what is there is another disk.
        (disk / "log").mkdir()
        file.open()
        folder.unlink()
    with pytest.raises(OSError, match="the disk of the log folder is gone") as caught:
        file.write(["lost"])
    assert caught.value.errno == errno.ENODEV
    assert not folder.exists()
    folder.mkdir()  # as the place where the folder itself was mounted
    with pytest.raises(OSError, match="the disk of the log folder is gone"):
        file.write(["lost"])
    assert not list(folder.iterdir())


def test_a_disk_that_comes_back_as_another_device_has_the_log_again(tmp_path: Path) -> None:
    for again in ("log", "."):  # below the place where the disk is mounted, or at it
        place = tmp_path / f"of {again}"
        place.mkdir()
        file = RotatingFile(str(place / "small-tmpfs" / again / "stowkeeper.log"), max_size=1000, backups=1)
        with small_filesystem(place, size=1 << 20, inodes=50):
            file.write(["before"])
            file.close()
        with pytest.raises(OSError, match="the disk of the log folder is gone"):
            file.write(["lost"])
        (place / "small-tmpfs").rmdir()
        # The first one takes the number of the device that is gone.
        with (
            small_filesystem(tmp_path, size=1 << 20, inodes=9),
            small_filesystem(place, size=1 << 20, inodes=50) as disk,
        ):
            file.write(["back"])
            file.close()
            assert (disk / again / "stowkeeper.log").read_text() == "back\n"
        (tmp_path / "small-tmpfs").rmdir()


class Told:
    """An outlet that keeps what it is told."""

    name = "last resort"
    brief = True

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, lines: Sequence[str]) -> None:
        self.lines += lines

    def close(self) -> None:
        pass


def notice(_outlet: str, what: str, count: int) -> str:
    return f"{what}: {count}"


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_full_disk_is_told_once_and_what_was_lost_is_counted(tmp_path: Path, kind: int) -> None:
    told = Told()
    with small_filesystem(tmp_path, size=64 * 1024, inodes=50) as disk:
        file = list(outlets(disk / "log"))[kind]
        file.open()
        filler = disk / "filler"
        fill(filler)
        writer = LogWriter([file], notice, told)
        for number in range(3):
            writer.put(f"lost {number}")
            assert writer.flush()
        filler.unlink()
        writer.put("kept")
        assert writer.flush()
        writer.close()
        assert [line for part in lines_of(disk / "log").values() for line in part] == [
            "log lines could not be written: 3",
            "kept",
        ]
    assert told.lines == ["log lines cannot be written: No space left on device: 1"]


def test_lines_that_are_lost_to_the_end_are_counted_at_the_end(tmp_path: Path) -> None:
    told = Told()
    (tmp_path / "log").write_text("no folder")
    file = RotatingFile(str(tmp_path / "log" / "s.log"), max_size=1000, backups=1)
    writer = LogWriter([file], notice, told)
    for number in range(3):
        writer.put(str(number))
        assert writer.flush()
    writer.close()
    assert told.lines == ["log lines cannot be written: File exists: 1", "log lines were lost: 3"]


# Who may read them.


@pytest.fixture(params=[0o022, 0o777, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("file_mode", "folder_mode"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755), (0o640, 0o711)]
)
def test_modes_are_those_asked_for_whatever_the_umask_says(
    tmp_path: Path, file_mode: int, folder_mode: int
) -> None:
    folder = tmp_path / "a" / "log"
    first, second = str(folder / "1.log"), str(folder / "2.log")
    files = (
        RotatingFile(
            str(folder / "r.log"), max_size=10, backups=1, file_mode=file_mode, folder_mode=folder_mode
        ),
        DailyFile(
            str(folder / "d.log"), max_size=10, backups=1, file_mode=file_mode, folder_mode=folder_mode
        ),
        TwoFiles((first, second), max_size=10, file_mode=file_mode, folder_mode=folder_mode),
    )
    for file in files:
        file.write(["x" * 9, "y" * 9])
        file.close()
    assert len(list(folder.iterdir())) == 6
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {file_mode}
    assert {path.stat().st_mode & 0o777 for path in (folder, tmp_path / "a")} == {folder_mode}


def test_the_mode_of_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "stowkeeper.log"
    path.touch()
    path.chmod(0o604)
    file = RotatingFile(str(path), max_size=1000, backups=1, file_mode=0o640)
    file.write(["x"])
    file.close()
    assert path.stat().st_mode & 0o777 == 0o604
