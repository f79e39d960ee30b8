"""`service logs`: the end of a log file, and what comes, also when the file turns over."""

import contextlib
import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_files import RotatingFile, TwoFiles
from stowkeeper.app.service import log_tail
from stowkeeper.app.service.log_tail import last_lines, log_file_of, tail
from stowkeeper.app.settings import Settings
from support.command_line import CommandLine


@given(text=st.binary(max_size=300), count=st.integers(0, 20), block=st.integers(1, 50))
def test_the_last_lines_are_those_of_the_whole(text: bytes, count: int, block: int) -> None:
    text = text.replace(b"\r", b"\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_tail, "TAIL_BLOCK_BYTES", block)
        stream = io.BytesIO(text)
        *whole, rest = text.split(b"\n")
        wanted = [*(line + b"\n" for line in whole), *([rest] if rest else [])]
        assert last_lines(stream, count) == b"".join(wanted[max(0, len(wanted) - count) :])
        assert stream.read() == b""


class Looks:
    """Writes something at each look, and ends the following when nothing is left to write."""

    def __init__(self, *steps: Callable[[], None]) -> None:
        self._steps = iter(steps)

    def __call__(self, _seconds: float) -> None:
        try:
            step = next(self._steps)
        except StopIteration:
            raise EOFError from None
        step()


def followed(log_file: Callable[[], Path], looks: Looks) -> list[int]:
    """Return the numbers of the lines that are seen."""
    seen = b""
    with contextlib.suppress(EOFError):
        for piece in tail(log_file, 2, follow=True, wait=looks):
            seen += piece
    return [int(line.split()[0]) for line in seen.decode().splitlines()]


def lines(start: int, count: int) -> list[str]:
    return [f"{number} {'x' * 90}" for number in range(start, start + count)]


def test_a_log_that_rotates_is_followed_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "stowkeeper.log"
    log = RotatingFile(str(path), max_size=1000, backups=20)
    log.write(lines(0, 5))
    # At most one turn of the file between two looks.
    steps = [lambda start=start: log.write(lines(start, 7)) for start in range(5, 61, 7)]
    assert followed(lambda: path, Looks(*steps)) == list(range(3, 61))
    log.close()


def test_what_comes_just_before_the_turn_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "stowkeeper.log"
    path.write_text("1 a\n")
    looked = 0

    def log_file() -> Path:
        nonlocal looked
        looked += 1
        if looked == 2:  # after a read that found nothing
            with path.open("a") as stream:
                stream.write("2 b\n")
            path.rename(tmp_path / "stowkeeper.log.1")
            path.write_text("3 c\n")
        return path

    assert followed(log_file, Looks()) == [1, 2, 3]


def test_two_files_in_turn_are_followed(tmp_path: Path) -> None:
    settings = Settings(archive=str(tmp_path)).model_copy(
        update={
            "log": Settings().log.model_copy(update={"rotation": "two files", "directory": str(tmp_path)})
        }
    )
    paths = (str(tmp_path / "stowkeeper1.log"), str(tmp_path / "stowkeeper2.log"))
    log = TwoFiles(paths, max_size=1000)
    log.write(lines(0, 5))
    steps = [lambda start=start: log.write(lines(start, 7)) for start in range(5, 61, 7)]
    assert followed(lambda: log_file_of(settings), Looks(*steps)) == list(range(3, 61))
    log.close()


def test_a_file_that_was_cut_or_goes_away_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "stowkeeper.log"
    path.write_text("1 a\n2 b\n3 c\n")

    def append(text: str) -> None:
        with path.open("a") as stream:
            stream.write(text)

    looks = Looks(
        lambda: path.write_text("4 d\n"), path.unlink, lambda: append("5 e\n"), lambda: append("6 f\n")
    )
    assert followed(lambda: path, looks) == [2, 3, 4, 5, 6]


@pytest.fixture
def line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(tmp_path / "archive", capsys)


def test_the_command_shows_the_end_of_the_file(line: CommandLine) -> None:
    ended = line("service logs")
    assert ended.code == ExitCode.NO_INPUT
    assert "there is no log file" in ended.err
    folder = line.archive / "log"
    folder.mkdir(parents=True)
    (folder / "stowkeeper.log").write_text("".join(f"{number}\n" for number in range(100)))
    assert line("service logs", "-n", "3").out.split() == ["97", "98", "99"]
    shown = list(map(int, line("service logs").out.split()))
    assert all(after == before + 1 for before, after in pairwise(shown))
    assert len(shown) == 50
