"""The writer of log lines: rotation, outlets that fail or stand still, and counts of what is lost."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stowkeeper.app.limits import LOG_LINES_WAITING_MAX
from stowkeeper.app.log_files import RotatingFile
from stowkeeper.app.log_writer import LogWriter

# Rotation.


def numbered(count: int) -> list[str]:
    return [f"line {number:06}" for number in range(count)]


def test_files_rotate_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log" / "s.log"), max_size=100, backups=2)
    lines = numbered(70)
    for start in range(0, 70, 7):
        file.write(lines[start : start + 7])
    file.close()
    kept = [(tmp_path / "log" / name).read_text().splitlines() for name in ("s.log.2", "s.log.1", "s.log")]
    assert [len(part) for part in kept] == [8, 8, 6]
    assert [*kept[0], *kept[1], *kept[2]] == lines[-22:]
    assert sorted(os.listdir(tmp_path / "log")) == ["s.log", "s.log.1", "s.log.2"]


def test_no_older_files_are_kept_where_none_are_wanted(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "s.log"), max_size=100, backups=0)
    file.write(numbered(20))
    file.close()
    assert os.listdir(tmp_path) == ["s.log"]
    assert (tmp_path / "s.log").stat().st_size <= 100


def test_a_line_larger_than_a_file_is_written_whole(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "s.log"), max_size=10, backups=3)
    file.write(["x" * 50, "y" * 50])
    file.close()
    assert (tmp_path / "s.log.1").read_text() == "x" * 50 + "\n"
    assert (tmp_path / "s.log").read_text() == "y" * 50 + "\n"


def test_several_writers_of_one_file_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "s.log")

    def write(name: str) -> None:
        file = RotatingFile(path, max_size=1000, backups=1000)
        for number in range(300):
            file.write([f"{name} {number:04}"])
        file.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    assert sorted(written) == sorted(f"{name} {number:04}" for name in "abcd" for number in range(300))


def test_log_files_are_not_for_everybody(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log" / "s.log"), max_size=100, backups=2)
    file.write(["x"])
    file.close()
    assert (tmp_path / "log" / "s.log").stat().st_mode & 0o007 == 0
    assert (tmp_path / "log").stat().st_mode & 0o007 == 0


# When the outlets fail or stand still.


class Outlet:
    """Keeps lines; fails while `error` is set, and stands still while `gate` is closed."""

    def __init__(self, name: str, *, brief: bool = False) -> None:
        self.name = name
        self.brief = brief
        self.lines: list[str] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def write(self, lines: Sequence[str]) -> None:
        self.reached.set()
        self.gate.wait()
        if self.error is not None:
            raise self.error
        self.lines += lines

    def close(self) -> None:
        pass


@contextlib.contextmanager
def writing(*outlets: Outlet) -> Iterator[LogWriter]:
    writer = LogWriter(outlets, lambda outlet, what, count: f"{outlet}: {what}: {count}")
    try:
        yield writer
    finally:
        writer.close()


def test_lines_that_could_not_be_written_are_counted_and_told() -> None:
    file, terminal = Outlet("file"), Outlet("terminal")
    with writing(file, terminal) as writer:
        file.error = OSError(28, "No space left on device")
        for line in ("one", "two"):
            writer.put(line)
            writer.flush()
        file.error = None
        writer.put("three")
        writer.flush()
    assert file.lines == ["file: log lines could not be written: 2", "three"]
    assert terminal.lines == [
        "file: log lines cannot be written: No space left on device: 1",
        "one",
        "two",
        "three",
    ] or terminal.lines == [
        "one",
        "file: log lines cannot be written: No space left on device: 1",
        "two",
        "three",
    ]


def test_lines_are_dropped_and_counted_when_the_outlets_stand_still() -> None:
    outlet = Outlet("file")
    outlet.gate.clear()
    with writing(outlet) as writer:
        writer.put("first")
        assert outlet.reached.wait(30)
        for number in range(LOG_LINES_WAITING_MAX + 7):
            writer.put(str(number))
        outlet.gate.set()
        assert writer.flush()
        writer.put("last")
    assert outlet.lines[:2] == ["first", "0"]
    assert len(outlet.lines) == 1 + LOG_LINES_WAITING_MAX + 1 + 1
    assert "queue: log lines came faster than they could be written: 7" in outlet.lines
    assert outlet.lines[-1] == "last"


def test_closing_gives_up_when_an_outlet_stands_still() -> None:
    outlet = Outlet("file")
    outlet.gate.clear()
    writer = LogWriter([outlet], lambda *words: str(words))
    writer.put("first")
    assert not writer.flush(0.01)
    writer.close(0.01)
    outlet.gate.set()
    writer.close()
    assert outlet.lines == ["first"]


def test_a_line_torn_by_a_full_disk_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RotatingFile(str(tmp_path / "s.log"), max_size=1000, backups=1)
    real_write = os.write
    answers: list[int | OSError] = [3, OSError(28, "No space left on device")]

    def write(descriptor: int, data: memoryview) -> int:
        answer = answers.pop(0) if answers else len(data)
        if isinstance(answer, OSError):
            raise answer
        return real_write(descriptor, data[:answer])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        file.write(["abcdef"])
    file.write(["next"])
    file.close()
    assert (tmp_path / "s.log").read_text() == "abc\nnext\n"


def test_a_brief_outlet_gets_the_brief_version_where_there_is_one() -> None:
    file, terminal = Outlet("file"), Outlet("terminal", brief=True)
    with writing(file, terminal) as writer:
        writer.put("one", "1")
        writer.put("two")
        writer.put("three", "")
    assert file.lines == ["one", "two", "three"]
    assert terminal.lines == ["1", "two"]
