"""Files on their way into a directory: hidden until they are whole, on the same disk or another, and what a dead process leaves."""

import errno
import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk import incoming_file
from stowkeeper.dcmtk.incoming_file import (
    HIDDEN_PREFIX,
    IncomingFile,
    IncomingFiles,
    discard_unfinished,
    remove_left_over,
)
from stowkeeper.dcmtk.limits import LEFT_OVER_SECONDS, PIECES_PER_WRITE_MAX
from support.small_filesystem import small_filesystem

DATA = Random(3).randbytes(300_000)
SHARED_MEMORY = Path("/dev/shm")


def incoming(folder: Path, data: bytes = DATA, *, synchronizes: bool = False) -> IncomingFile:
    file = IncomingFile(str(folder), synchronizes=synchronizes)
    file.write([data])
    return file


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """Whatever happens to a file, its descriptor is closed at the end, and nobody remembers it."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before
    assert incoming_file._unfinished == set()


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on another file system than `tmp_path`."""
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm to be a file system of its own")
    folder = SHARED_MEMORY / f"stowkeeper-tests-{os.getpid()}"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


# Until it is whole


def test_a_file_has_no_name_of_its_own_before_it_is_whole(tmp_path: Path) -> None:
    file = incoming(tmp_path)
    (hidden,) = names(tmp_path)
    assert hidden.startswith(HIDDEN_PREFIX)
    file.finish(str(tmp_path / "CT.1"))
    assert names(tmp_path) == ["CT.1"]
    assert (tmp_path / "CT.1").read_bytes() == DATA


def test_a_file_takes_the_place_of_another_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "CT.1"
    path.write_bytes(b"the good copy")
    file = incoming(tmp_path)
    assert path.read_bytes() == b"the good copy"
    file.finish(str(path))
    assert path.read_bytes() == DATA


def test_a_name_that_is_taken_can_be_left_alone(tmp_path: Path) -> None:
    taken = tmp_path / "1.CT"
    taken.write_bytes(b"somebody else's")
    file = incoming(tmp_path)
    with pytest.raises(FileExistsError):
        file.finish(str(taken), replaces=False)
    file.finish(str(tmp_path / "2.CT"), replaces=False)
    assert names(tmp_path) == ["1.CT", "2.CT"]
    assert taken.read_bytes() == b"somebody else's"
    assert (tmp_path / "2.CT").read_bytes() == DATA


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    file = incoming(tmp_path)
    file.discard()
    file.discard()
    assert names(tmp_path) == []


def test_what_is_finished_is_not_discarded_any_more(tmp_path: Path) -> None:
    file = incoming(tmp_path)
    file.finish(str(tmp_path / "CT.1"))
    file.discard()
    discard_unfinished()
    assert names(tmp_path) == ["CT.1"]


def test_a_file_that_cannot_get_its_name_can_still_be_discarded(tmp_path: Path) -> None:
    file = incoming(tmp_path)
    with pytest.raises(FileNotFoundError):
        file.finish(str(tmp_path / "nowhere" / "CT.1"))
    file.discard()
    assert names(tmp_path) == []


def test_all_unfinished_files_go_when_the_process_ends(tmp_path: Path) -> None:
    incoming(tmp_path)
    incoming(tmp_path)
    incoming(tmp_path).finish(str(tmp_path / "CT.1"))
    discard_unfinished()
    assert names(tmp_path) == ["CT.1"]


def test_a_file_that_was_made_in_this_moment_goes_with_the_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal may come when the system has made a file and nobody here knows it yet."""
    made = os.open

    def interrupted(path: str, *more: int) -> int:
        descriptor = made(path, *more)
        discard_unfinished()
        assert names(tmp_path) == []
        return descriptor

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", interrupted)
        file = IncomingFile(str(tmp_path), synchronizes=False)
    file.discard()
    discard_unfinished()
    assert incoming_file._being_made == []


def test_what_has_the_name_of_a_file_in_the_making_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming_file, "_being_made", [str(tmp_path / "of another")])
    (tmp_path / "of another").write_bytes(b"some bytes")
    discard_unfinished()
    assert names(tmp_path) == ["of another"]


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        incoming(tmp_path).finish(str(tmp_path / "CT.1"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "CT.1").stat().st_mode) == 0o640


def test_a_hidden_name_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    following = next(incoming_file._counter) + 1
    in_the_way = tmp_path / f"{HIDDEN_PREFIX}{os.getpid()}-{following}"
    in_the_way.write_bytes(b"of a process of that number in another container")
    file = incoming(tmp_path)
    file.finish(str(tmp_path / "CT.1"))
    assert names(tmp_path) == [in_the_way.name, "CT.1"]
    assert in_the_way.read_bytes().startswith(b"of a process")


# Writing


@pytest.mark.slow
@given(
    pieces=st.lists(st.binary(max_size=40), max_size=30),
    taken=st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=10),
)
def test_pieces_stand_one_behind_the_other_however_little_is_taken_at_once(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], taken: list[int]
) -> None:
    """A system call may take a part only: of several pieces in the middle of one, or none of an empty one."""
    amounts = Random(len(pieces)).choices(taken, k=10_000)
    folder = tmp_path_factory.mktemp("pieces")
    with pytest.MonkeyPatch.context() as patch:
        write = os.write
        patch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[: amounts.pop()]))
        patch.setattr(os, "writev", lambda fd, parts: write(fd, b"".join(map(bytes, parts))[: amounts.pop()]))
        file = IncomingFile(str(folder), synchronizes=False)
        file.write([memoryview(piece) for piece in pieces])
        file.finish(str(folder / "whole"))
    assert (folder / "whole").read_bytes() == b"".join(pieces)


def test_more_pieces_than_the_system_takes_at_once(tmp_path: Path) -> None:
    pieces = [DATA[at : at + 2] for at in range(0, 4 * PIECES_PER_WRITE_MAX + 6, 2)]
    file = IncomingFile(str(tmp_path), synchronizes=False)
    file.write(pieces)
    file.finish(str(tmp_path / "whole"))
    assert (tmp_path / "whole").read_bytes() == b"".join(pieces)


def test_a_file_is_read_and_written_at_an_offset(tmp_path: Path) -> None:
    file = incoming(tmp_path)
    with file.open_at(1000) as stream:
        assert stream.read() == DATA[1000:]
    with file.open_at(0) as stream:
        stream.write(b"head")
    file.finish(str(tmp_path / "whole"))
    assert (tmp_path / "whole").read_bytes() == b"head" + DATA[4:]


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    with small_filesystem(tmp_path, size=1 << 20, inodes=10) as small:
        (small / "CT.1").write_bytes(DATA)
        file = IncomingFile(str(small), synchronizes=False)
        with pytest.raises(OSError) as raised:  # noqa: PT012 - how much is taken before it is the file system's to say
            for _ in range(10):
                file.write([DATA[:100_000], DATA[:100_000]])
        assert raised.value.errno == errno.ENOSPC
        file.discard()
        assert names(small) == ["CT.1"]
        assert (small / "CT.1").read_bytes() == DATA


# Made ahead


def test_one_file_is_made_ahead_and_taken_once(tmp_path: Path) -> None:
    files = IncomingFiles(str(tmp_path), synchronizes=False)
    files.prepare()
    files.prepare()
    (made,) = names(tmp_path)
    first = files.take()
    assert names(tmp_path) == [made]
    second = files.take()
    assert len(names(tmp_path)) == 2
    first.write([b"1"])
    first.finish(str(tmp_path / "first"))
    second.write([b"2"])
    second.finish(str(tmp_path / "second"))
    assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == [b"1", b"2"]


def test_what_was_made_ahead_is_put_back(tmp_path: Path) -> None:
    files = IncomingFiles(str(tmp_path), synchronizes=False)
    files.put_back()
    files.prepare()
    files.put_back()
    files.put_back()
    assert names(tmp_path) == []
    files.prepare()
    discard_unfinished()
    assert names(tmp_path) == []


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_what_was_made_ahead_and_is_elsewhere_is_not_taken(tmp_path: Path, how: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    files = IncomingFiles(str(place), synchronizes=False)
    files.prepare()
    (made,) = place.iterdir()
    if how == "moved":
        place.rename(tmp_path / "elsewhere")
        place.mkdir()
    else:
        made.unlink()
    if how == "replaced":
        made.write_bytes(b"of somebody else")
    file = files.take()
    file.write([b"data"])
    file.finish(str(place / "whole"))
    assert (place / "whole").read_bytes() == b"data"


def test_what_cannot_be_made_ahead_is_an_error_when_it_is_needed(tmp_path: Path) -> None:
    files = IncomingFiles(str(tmp_path / "nowhere"), synchronizes=False)
    files.prepare()
    with pytest.raises(FileNotFoundError):
        files.take()
    (tmp_path / "nowhere").mkdir()
    files.take().discard()


# Another disk


@pytest.mark.parametrize("replaces", [True, False])
@pytest.mark.parametrize("synchronizes", [True, False])
def test_a_file_gets_to_another_disk_whole(
    tmp_path: Path, other_disk: Path, *, replaces: bool, synchronizes: bool
) -> None:
    if replaces:
        (other_disk / "CT.1").write_bytes(b"the good copy")
    file = incoming(tmp_path, synchronizes=synchronizes)
    file.finish(str(other_disk / "CT.1"), replaces=replaces)
    assert names(tmp_path) == []
    assert names(other_disk) == ["CT.1"]
    assert (other_disk / "CT.1").read_bytes() == DATA


@pytest.mark.slow
def test_a_file_that_does_not_get_to_another_disk_harms_nothing(tmp_path: Path) -> None:
    with small_filesystem(tmp_path, size=400_000, inodes=10) as small:
        (small / "CT.1").write_bytes(DATA[:200_000])
        file = incoming(tmp_path)
        with pytest.raises(OSError) as raised:
            file.finish(str(small / "CT.1"))
        assert raised.value.errno == errno.ENOSPC
        assert names(small) == ["CT.1"]
        assert (small / "CT.1").read_bytes() == DATA[:200_000]
        file.discard()
        assert names(tmp_path) == ["small-tmpfs"]


# On the medium


def test_a_file_and_its_name_are_on_the_medium_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        calls.append(f"fsync {'folder' if path == str(tmp_path) else 'file'}")
        fsync(descriptor)

    def noted_replace(old: str, new: str) -> None:
        calls.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    incoming(tmp_path, synchronizes=True).finish(str(tmp_path / "CT.1"))
    assert calls == ["fsync file", "rename", "fsync folder"]
    calls.clear()
    incoming(tmp_path).finish(str(tmp_path / "CT.1"))
    assert calls == ["rename"]


def test_a_file_that_does_not_reach_the_medium_gets_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "CT.1").write_bytes(b"the good copy")
    file = incoming(tmp_path, synchronizes=True)
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        file.finish(str(tmp_path / "CT.1"))
    file.discard()
    assert names(tmp_path) == ["CT.1"]
    assert (tmp_path / "CT.1").read_bytes() == b"the good copy"


# Left over


def left_over(folder: Path, name: str, *, age: float) -> Path:
    path = folder / name
    path.write_bytes(b"a part")
    at = path.stat().st_mtime - age
    os.utime(path, (at, at))
    return path


def test_what_is_old_is_removed_and_what_is_of_a_living_process_when_it_is_old(tmp_path: Path) -> None:
    """Where locks do not work, another process of that number may be at it."""
    living = os.getpid()
    left_over(tmp_path, f"{HIDDEN_PREFIX}{living}-1", age=LEFT_OVER_SECONDS + 1)
    young = left_over(tmp_path, f"{HIDDEN_PREFIX}{living}-2", age=LEFT_OVER_SECONDS - 60)
    ahead = left_over(tmp_path, f"{HIDDEN_PREFIX}{living}-3", age=-3600)
    assert remove_left_over(str(tmp_path)) == 1
    assert names(tmp_path) == [young.name, ahead.name]


@pytest.mark.parametrize("number", ["", "9" * 30], ids=["ended", "none"])
def test_what_a_dead_process_left_is_removed_at_once(tmp_path: Path, number: str) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left_over(tmp_path, f"{HIDDEN_PREFIX}{number or ended.pid}-1", age=0)
    assert remove_left_over(str(tmp_path)) == 1
    assert names(tmp_path) == []


def test_what_somebody_is_at_stays_however_old_it_is(tmp_path: Path) -> None:
    file = incoming(tmp_path)
    (name,) = names(tmp_path)
    os.utime(tmp_path / name, (0, 0))
    assert remove_left_over(str(tmp_path)) == 0
    file.discard()
    held = left_over(tmp_path, f"{HIDDEN_PREFIX}4711-1", age=LEFT_OVER_SECONDS + 1)
    with held.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        assert remove_left_over(str(tmp_path)) == 0
    assert remove_left_over(str(tmp_path)) == 1


def test_files_of_other_names_and_things_of_other_kinds_stay(tmp_path: Path) -> None:
    old = LEFT_OVER_SECONDS + 1
    files = {"CT.1", ".hidden", f"{HIDDEN_PREFIX}notes", f"{HIDDEN_PREFIX}1-2.dcm", f"{HIDDEN_PREFIX}1"}
    for name in files:
        left_over(tmp_path, name, age=old)
    aim = left_over(tmp_path, "aim", age=old)
    (tmp_path / f"{HIDDEN_PREFIX}5-1").symlink_to(aim)
    (tmp_path / f"{HIDDEN_PREFIX}5-2").mkdir()
    os.utime(tmp_path / f"{HIDDEN_PREFIX}5-2", (0, 0))
    os.mkfifo(tmp_path / f"{HIDDEN_PREFIX}5-3")
    before = names(tmp_path)
    os.utime(tmp_path / f"{HIDDEN_PREFIX}5-3", (0, 0))
    found = remove_left_over(str(tmp_path))
    assert set(before) - set(names(tmp_path)) <= {f"{HIDDEN_PREFIX}5-3"}, "a pipe of such a name is nobody's"
    assert found <= 1


def test_a_directory_that_is_not_there_has_nothing_left_over(tmp_path: Path) -> None:
    assert remove_left_over(str(tmp_path / "nowhere")) == 0
