"""The reserve stands ready, is given back when the disk is full, and is made again when there is room."""

import errno

import pytest

from stowkeeper.durable.errors import is_out_of_space
from stowkeeper.durable.filesystem import FreeSpace
from stowkeeper.durable.limits import RESERVE_MARGIN, RESERVE_SIZE
from stowkeeper.durable.reserve import Reserve
from support.model_filesystem import ModelFileSystem, Operation

PATH = "/archive/reserve"


def an_archive(capacity: int | None = None) -> ModelFileSystem:
    model = ModelFileSystem(capacity=capacity)
    model.place_folder("/archive")
    return model


def test_a_reserve_is_made_once_and_stands_durably() -> None:
    model = an_archive()
    reserve = Reserve(model, PATH, size=4096)
    assert not reserve.is_held()
    assert reserve.make()
    assert reserve.make()
    assert reserve.is_held()
    assert [done.name for done in model.log].count("preallocate") == 1
    assert model.crash(lambda _: False).status(PATH).size == 4096


def test_a_released_reserve_lets_a_full_disk_be_written_to() -> None:
    model = an_archive(4096)
    reserve = Reserve(model, PATH, size=2048)
    assert reserve.make()
    descriptor = model.create("/archive/a", 0o600)
    with pytest.raises(OSError, match="No space left") as caught:
        model.write(descriptor, [bytes(4096)], 0)
    assert is_out_of_space(caught.value)
    assert reserve.release()
    assert not reserve.release()
    assert not reserve.is_held()
    model.write(descriptor, [bytes(4096)], 0)
    assert PATH not in model.crash(lambda _: False).tree()  # a journal gives freed blocks out only then


def test_a_reserve_there_is_no_room_for_is_not_made_and_is_no_error() -> None:
    model = an_archive(4096)
    assert not Reserve(model, PATH, size=8192).make()
    assert PATH not in model.tree()
    model.fail_next("preallocate", error=errno.EDQUOT)
    assert not Reserve(model, PATH, size=512).make()


def test_other_errors_are_not_hidden() -> None:
    model = an_archive()
    for operation in ("preallocate", "unlink"):
        model.fail_next(operation, PATH, errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            Reserve(model, PATH, size=512).make()
    model.fail_next("status", PATH, errno.EACCES)
    with pytest.raises(PermissionError):
        Reserve(model, PATH).is_held()


def test_a_reserve_of_another_size_is_made_anew() -> None:
    model = an_archive()
    model.place(PATH, bytes(100))
    reserve = Reserve(model, PATH, size=512)
    assert not reserve.is_held()
    assert reserve.make()
    assert model.status(PATH).size == 512


def test_it_is_made_again_only_with_room_for_the_margin_besides() -> None:
    model = an_archive()
    reserve = Reserve(model, PATH, size=1000, margin=500)
    assert not reserve.make_again(FreeSpace(bytes=1499, inodes=None))
    assert reserve.make_again(FreeSpace(bytes=1500, inodes=None))
    assert reserve.make_again(FreeSpace(bytes=0, inodes=0))  # it stands
    shipped = Reserve(model, "/archive/other")
    assert not shipped.make_again(FreeSpace(bytes=RESERVE_SIZE + RESERVE_MARGIN - 1, inodes=None))


def test_two_processes_that_make_it_at_once_have_one() -> None:
    model = an_archive()

    def before(operation: Operation) -> None:
        if operation.name == "preallocate":
            model.before_each = None
            assert Reserve(model, PATH, size=512).make()

    model.before_each = before
    assert Reserve(model, PATH, size=512).make()
    assert model.status(PATH).size == 512


def test_as_shipped_it_is_64_mib() -> None:
    assert RESERVE_SIZE == RESERVE_MARGIN == 64 * 1024 * 1024
