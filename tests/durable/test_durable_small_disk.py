"""Slots, reserve and write-once files on a real disk that fills, by bytes and by inodes."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.durable.errors import is_out_of_space
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.reserve import Reserve
from stowkeeper.durable.slots import SlotPool
from stowkeeper.durable.write_once import write_once
from support.small_filesystem import small_filesystem

FILES = FileSystem()
INODES = 40


@pytest.fixture(params=["tmpfs", pytest.param("ext4", marks=pytest.mark.slow)])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    size = (1 << 20) if request.param == "tmpfs" else (4 << 20)
    with small_filesystem(tmp_path, size=size, inodes=INODES, kind=request.param) as folder:
        yield folder


def fill(path: Path, *, leave: int = 0) -> None:
    """Write until no block is left but so many bytes."""
    descriptor = FILES.create(str(path), 0o600)
    try:
        size = FILES.free_space(str(path.parent)).bytes - leave
        with pytest.raises(OSError, match="No space left") as caught:  # noqa: PT012 - writes until it is full
            for offset in range(0, size if leave else 1 << 30, 4096):
                FILES.write(descriptor, [bytes(4096)], offset)
            FILES.synchronize(descriptor)
            raise OSError(errno.ENOSPC, "No space left but what was to be left")
        assert is_out_of_space(caught.value)
    finally:
        FILES.close(descriptor)


def test_slots_are_made_until_the_inodes_run_out_and_give_them_back(disk: Path) -> None:
    pool = SlotPool(FILES, str(disk), size=10 * INODES, open_slots=3)
    with pytest.raises(OSError, match="No space left") as caught:
        pool.fill()
    assert is_out_of_space(caught.value)
    free = pool.statistics.free
    assert 0 < free <= INODES + 10
    assert FILES.free_space(str(disk)).inodes == 0
    slot = pool.take()  # a slot in hand can be filled: its inode is there
    FILES.write(slot.descriptor, [b"kept"], 0)
    FILES.synchronize(slot.descriptor)
    FILES.close(slot.descriptor)
    with pytest.raises(OSError, match="No space left"):
        FILES.make_directory(str(disk / "study"))
    assert pool.remove_free(2) == 2
    FILES.make_directory(str(disk / "study"))
    FILES.link(slot.path, str(disk / "study" / "a"))
    assert (disk / "study" / "a").read_bytes() == b"kept"


def test_a_full_disk_takes_no_bytes_into_a_slot_and_all_of_them_after_the_release(disk: Path) -> None:
    reserve = Reserve(FILES, str(disk / "reserve"), size=256 << 10, margin=0)
    assert reserve.make()
    pool = SlotPool(FILES, str(disk), size=4)
    pool.fill()
    fill(disk / "ballast")
    assert not Reserve(FILES, str(disk / "second"), size=256 << 10).make()
    assert not (disk / "second").exists()
    slot = pool.take()
    with pytest.raises(OSError, match="No space left"):
        FILES.write(slot.descriptor, [bytes(200 << 10)], 0)
    FILES.close(slot.descriptor)
    FILES.unlink(slot.path)
    with pytest.raises(OSError, match="No space left"):
        write_once(FILES, str(disk / "note"), bytes(128 << 10))
    assert reserve.release()
    assert not reserve.make_again(FILES.free_space(str(disk))) or reserve.release()
    slot = pool.take()
    FILES.write(slot.descriptor, [bytes(200 << 10)], 0)
    FILES.synchronize(slot.descriptor)
    FILES.close(slot.descriptor)
    assert not reserve.make_again(FILES.free_space(str(disk)))
    (disk / "ballast").unlink()
    FILES.synchronize_directory(str(disk))
    assert reserve.make_again(FILES.free_space(str(disk)))
    assert FILES.status(str(disk / "reserve")).size == 256 << 10


def test_the_reserve_takes_its_bytes_from_what_is_free(disk: Path) -> None:
    before = FILES.free_space(str(disk)).bytes
    Reserve(FILES, str(disk / "reserve"), size=512 << 10).make()
    taken = before - FILES.free_space(str(disk)).bytes
    assert 512 << 10 <= taken <= 600 << 10
