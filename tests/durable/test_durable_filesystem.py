"""The real file system: every call does what the seam says, and goes on where the system stops half way."""

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from stowkeeper.durable import filesystem
from stowkeeper.durable.filesystem import FileSystem, NoSyncFileSystem
from stowkeeper.durable.limits import BUFFERS_PER_WRITE, ZEROS_PER_WRITE

FILES = FileSystem()


def write_new(path: Path, *buffers: bytes | memoryview) -> None:
    descriptor = FILES.create(str(path), 0o644)
    try:
        FILES.write(descriptor, buffers, 0)
    finally:
        FILES.close(descriptor)


def test_create_makes_a_new_file_of_that_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        descriptor = FILES.create(str(tmp_path / "a"), 0o664)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o664
    assert not os.get_inheritable(descriptor)
    FILES.close(descriptor)
    with pytest.raises(FileExistsError):
        FILES.create(str(tmp_path / "a"), 0o664)


def test_create_leaves_no_descriptor_when_the_mode_cannot_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def refuse(descriptor: int, mode: int) -> None:
        seen.append(descriptor)
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(PermissionError):
        FILES.create(str(tmp_path / "a"), 0o644)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(seen[0])


def test_no_symbolic_link_is_followed(tmp_path: Path) -> None:
    write_new(tmp_path / "a", b"x")
    (tmp_path / "s").symlink_to(tmp_path / "a")
    (tmp_path / "t").symlink_to(tmp_path / "none")
    path = str(tmp_path / "s")
    for call in (FILES.open_for_writing, FILES.open_for_reading):
        with pytest.raises(OSError) as caught:
            call(path)
        assert caught.value.errno == errno.ELOOP
    with pytest.raises(FileExistsError):
        FILES.create(str(tmp_path / "t"), 0o600)
    assert FILES.status(path).inode != FILES.status(str(tmp_path / "a")).inode
    (tmp_path / "folder").symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        FILES.make_directory(str(tmp_path / "folder"))
    with pytest.raises(OSError):
        FILES.lock_directory(str(tmp_path / "folder"))
    assert not any(entry.is_directory for entry in FILES.list_directory(str(tmp_path)))


@pytest.mark.parametrize(
    "count", [0, 1, 3, BUFFERS_PER_WRITE, BUFFERS_PER_WRITE + 1, 2 * BUFFERS_PER_WRITE + 5]
)
def test_all_buffers_are_written_in_order_however_many(tmp_path: Path, count: int) -> None:
    buffers = [b"%d;" % number for number in range(count)]
    descriptor = FILES.create(str(tmp_path / "a"), 0o600)
    FILES.write(descriptor, buffers, 5)
    FILES.close(descriptor)
    expected = bytes(5) + b"".join(buffers) if count else b""
    assert (tmp_path / "a").read_bytes() == expected


@pytest.mark.parametrize("most", [1, 2, 7])
def test_short_writes_go_on_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    real = os.pwritev
    monkeypatch.setattr(
        os, "pwritev", lambda fd, buffers, offset: real(fd, [b"".join(buffers)[:most]], offset)
    )
    write_new(tmp_path / "a", b"abc", b"", memoryview(b"defgh"), b"i")
    assert (tmp_path / "a").read_bytes() == b"abcdefghi"


def test_a_write_that_takes_nothing_is_an_error_not_an_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: 0)
    with pytest.raises(OSError, match="took none of the bytes"):
        write_new(tmp_path / "a", b"abc")


def test_the_error_of_a_later_part_of_a_write_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[int | OSError] = [2, OSError(errno.ENOSPC, "full")]

    def answer(fd: int, buffers: object, offset: int) -> int:
        found = answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(os, "pwritev", answer)
    with pytest.raises(OSError, match="full"):
        write_new(tmp_path / "a", b"abc")


def test_reads_are_whole_but_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_new(tmp_path / "a", b"0123456789")
    pread, preadv = os.pread, os.preadv
    descriptor = FILES.open_for_reading(str(tmp_path / "a"))
    for most in (100, 3):
        monkeypatch.setattr(os, "pread", lambda fd, n, at, most=most: pread(fd, min(n, most), at))
        monkeypatch.setattr(os, "preadv", lambda fd, views, at, most=most: preadv(fd, [views[0][:most]], at))
        assert FILES.read(descriptor, 8, 1) == b"12345678"
        assert FILES.read(descriptor, 8, 5) == b"56789"
        assert FILES.read(descriptor, 8, 10) == b""
        view = memoryview(bytearray(8))
        assert FILES.read_into(descriptor, view, 1) == 8
        assert bytes(view) == b"12345678"
        assert FILES.read_into(descriptor, view, 5) == 5
        assert bytes(view[:5]) == b"56789"
        assert FILES.read_into(descriptor, view, 10) == 0
    FILES.drop_cache(descriptor)
    assert FILES.read(descriptor, 3, 0) == b"012"
    FILES.close(descriptor)


def test_a_link_is_a_second_name_and_never_replaces(tmp_path: Path) -> None:
    write_new(tmp_path / "a", b"a")
    write_new(tmp_path / "b", b"b")
    FILES.link(str(tmp_path / "a"), str(tmp_path / "c"))
    first, second = FILES.status(str(tmp_path / "a")), FILES.status(str(tmp_path / "c"))
    assert (first.inode, first.links, first.size) == (second.inode, 2, 1)
    with pytest.raises(FileExistsError):
        FILES.link(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"b"
    FILES.unlink(str(tmp_path / "a"))
    assert FILES.status(str(tmp_path / "c")).links == 1


def test_folders_are_made_listed_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    assert FILES.make_directory(str(path), 0o700)
    assert not FILES.make_directory(str(path))
    write_new(tmp_path / "file", b"")
    with pytest.raises(FileExistsError):
        FILES.make_directory(str(tmp_path / "file"))
    FILES.synchronize_directory(str(tmp_path))
    status = FILES.status(str(path))
    assert (status.is_directory, status.mode, status.owner) == (True, 0o700, os.geteuid())
    entries = {entry.name: (entry.is_directory, entry.inode) for entry in FILES.list_directory(str(tmp_path))}
    assert entries == {"folder": (True, status.inode), "file": (False, (tmp_path / "file").stat().st_ino)}
    FILES.remove_directory(str(path))
    with pytest.raises(FileNotFoundError):
        FILES.synchronize_directory(str(path))


def calls_of_sync(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: seen.append("fdatasync"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append("fsync"))
    return seen


def test_files_get_fdatasync_and_folders_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls_of_sync(monkeypatch)
    FILES.synchronize(0)
    FILES.synchronize_directory(str(tmp_path))
    assert seen == ["fdatasync", "fsync"]
    FILES.preallocate(str(tmp_path / "reserve"), 10)
    assert seen == ["fdatasync", "fsync"] * 2


def test_no_sync_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls_of_sync(monkeypatch)
    files = NoSyncFileSystem()
    files.synchronize(0)
    files.synchronize_directory(str(tmp_path))
    files.preallocate(str(tmp_path / "reserve"), 10)
    assert seen == []


def test_without_fdatasync_the_fullest_sync_there_is_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append("fsync"))
    FILES.synchronize(0)
    assert seen == ["fsync"]
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, command: seen.append(command))
    FILES.synchronize(0)
    assert seen == ["fsync", 51]

    def refuse(number: int) -> None:
        def call(descriptor: int, command: int) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(fcntl, "fcntl", call)

    refuse(errno.ENOTSUP)
    FILES.synchronize(0)
    assert seen == ["fsync", 51, "fsync"]
    refuse(errno.EIO)  # a failure is no reason to try another way
    with pytest.raises(OSError, match="no"):
        FILES.synchronize(0)
    assert seen == ["fsync", 51, "fsync"]


def test_free_space_is_what_this_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    space = FILES.free_space(str(tmp_path))
    assert abs(space.bytes - real.f_bavail * real.f_frsize) < 1 << 32

    class Counts:
        f_bavail, f_frsize, f_files, f_favail = 3, 4096, 100, 7

    monkeypatch.setattr(os, "statvfs", lambda path: Counts)
    assert FILES.free_space("/") == filesystem.FreeSpace(bytes=12288, inodes=7)
    Counts.f_files = Counts.f_favail = 0  # btrfs
    assert FILES.free_space("/") == filesystem.FreeSpace(bytes=12288, inodes=None)


def test_a_preallocated_file_holds_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    FILES.preallocate(str(path), 1 << 20)
    found = path.stat()
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (1 << 20, 0o600)
    assert found.st_blocks * 512 >= 1 << 20
    with pytest.raises(FileExistsError):
        FILES.preallocate(str(path), 1)
    assert path.stat().st_size == 1 << 20


@pytest.mark.parametrize("number", [None, errno.EOPNOTSUPP])
def test_where_blocks_cannot_be_reserved_zeros_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(number, "no")

    if number is None:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    FILES.preallocate(str(tmp_path / "reserve"), 2 * ZEROS_PER_WRITE + 10)
    assert (tmp_path / "reserve").read_bytes() == bytes(2 * ZEROS_PER_WRITE + 10)


def test_a_preallocation_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="full"):
        FILES.preallocate(str(tmp_path / "reserve"), 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the type of a file system")
def test_the_type_of_a_file_system_is_told(tmp_path: Path) -> None:
    assert FILES.file_system_type("/proc/self") == "proc"
    (tmp_path / "way").symlink_to("/proc")
    assert FILES.file_system_type(str(tmp_path / "way")) == "proc"


# Locks


def taken_by_another_process(path: Path) -> bool:
    """Ask another process whether it can have the lock."""
    code = (
        "import sys; from stowkeeper.durable.filesystem import FileSystem;"
        "sys.exit(FileSystem().lock_directory(sys.argv[1]) is None)"
    )
    source = Path(filesystem.__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path)], env={**os.environ, "PYTHONPATH": str(source)}, check=False
    )
    return ended.returncode == 1


@pytest.mark.slow
def test_a_lock_is_had_once_also_within_a_process(tmp_path: Path) -> None:
    lock = FILES.lock_directory(str(tmp_path))
    assert lock is not None
    assert not os.get_inheritable(lock)
    assert FILES.lock_directory(str(tmp_path)) is None
    assert taken_by_another_process(tmp_path)
    FILES.unlock_directory(lock)
    assert not taken_by_another_process(tmp_path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lock)


def test_unlocking_frees_the_lock_even_while_a_copy_of_the_descriptor_lives(tmp_path: Path) -> None:
    lock = FILES.lock_directory(str(tmp_path))
    assert lock is not None
    copy = os.dup(lock)
    FILES.unlock_directory(lock)
    again = FILES.lock_directory(str(tmp_path))
    assert again is not None
    os.close(copy)
    FILES.unlock_directory(again)


def test_a_folder_that_is_gone_or_another_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder"
    assert FILES.lock_directory(str(path)) is None
    real = fcntl.flock
    before = len(os.listdir("/dev/fd"))
    for remade in (False, True):
        path.mkdir()

        def lock_late(descriptor: int, operation: int, remade: bool = remade) -> None:
            real(descriptor, operation)
            path.rmdir()
            if remade:
                (tmp_path / "other").mkdir()  # keeps the number of the inode from being used again
                path.mkdir()

        monkeypatch.setattr(fcntl, "flock", lock_late)
        held = os.open(path, os.O_RDONLY)
        assert FILES.lock_directory(str(path)) is None
        os.close(held)
    assert len(os.listdir("/dev/fd")) == before


def test_a_system_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="no locks"):
        FILES.lock_directory(str(tmp_path))
    assert len(os.listdir("/dev/fd")) == before
    monkeypatch.setattr(filesystem, "fcntl", None)
    with pytest.raises(OSError, match="no flock"):
        FILES.lock_directory(str(tmp_path))


def test_one_run_of_the_system_has_one_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = FileSystem()
    assert files.boot_identity() == files.boot_identity()
    assert "\n" not in files.boot_identity()
    monkeypatch.setattr(filesystem, "_BOOT_IDENTITY", str(tmp_path / "none"))
    assert files.boot_identity() == ""


@pytest.mark.parametrize("what", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_at_once_when_it_is_opened_for_reading(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a"
    with closing(socket.socket(socket.AF_UNIX)) as unix:
        if what == "pipe":
            os.mkfifo(path)
        elif what == "socket":
            unix.bind(str(path))
        elif what == "folder":
            path.mkdir()
        else:
            path = Path("/dev/zero")
        before = set(os.listdir("/proc/self/fd"))
        raised: list[OSError] = []

        def open_it() -> None:
            try:
                FILES.open_for_reading(str(path))
            except OSError as error:
                raised.append(error)

        thread = threading.Thread(target=open_it, daemon=True)
        thread.start()
        thread.join(30)
        assert [error.errno for error in raised] == [errno.EISDIR if what == "folder" else errno.ENXIO]
        assert raised[0].filename == str(path)
        assert set(os.listdir("/proc/self/fd")) <= before
