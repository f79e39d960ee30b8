"""An archive's identity and other small files are whole or absent, and never replaced."""

import errno
import os
import random
import re
from collections.abc import Callable

import pytest

from stowkeeper.durable.errors import ArchiveIdentityError
from stowkeeper.durable.identity import ARCHIVE_ID_NAME, ensure_archive_id, read_archive_id
from stowkeeper.durable.limits import ARCHIVE_ID_LENGTH_MAX
from stowkeeper.durable.write_once import make_folders, write_once
from support.model_filesystem import ModelFileSystem, Operation
from support.power_cuts import check_power_cuts

ID = "3f0e2a1c-7b7e-4c57-8f51-0a86d0a1b2c3"


def an_archive(text: bytes | None = None) -> ModelFileSystem:
    model = ModelFileSystem()
    model.place_folder("/archive")
    if text is not None:
        model.place(f"/archive/{ARCHIVE_ID_NAME}", text)
    return model


def at(operation_name: str, model: ModelFileSystem, act: Callable[[], object]) -> None:
    """Do something once, just before an operation."""

    def before(operation: Operation) -> None:
        if operation.name == operation_name:
            model.before_each = None
            act()

    model.before_each = before


def test_an_identity_is_made_once_and_read_ever_after() -> None:
    model = an_archive()
    assert read_archive_id(model, "/archive") is None
    made = ensure_archive_id(model, "/archive")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made)
    assert ensure_archive_id(model, "/archive") == read_archive_id(model, "/archive") == made
    assert model.tree() == {"/archive": None, "/archive/archive.id": f"{made}\n".encode()}
    assert model.open_paths == []
    assert ensure_archive_id(an_archive(), "/archive") != made


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x",
        b"\xff\xfe",
        ID.upper().encode(),
        ID.encode() + b"0",
        ID.replace("-", "").encode(),
        ID.encode() + b" " * ARCHIVE_ID_LENGTH_MAX,
    ],
)
def test_a_file_with_anything_else_is_named_and_not_touched(text: bytes) -> None:
    model = an_archive(text)
    with pytest.raises(ArchiveIdentityError, match=r"/archive/archive\.id holds no archive identity"):
        ensure_archive_id(model, "/archive")
    assert model.content("/archive/archive.id") == text


def test_blanks_and_line_ends_around_it_do_no_harm() -> None:
    padding = b" " * (ARCHIVE_ID_LENGTH_MAX - len(ID) - 2)
    assert read_archive_id(an_archive(ID.encode() + padding + b"\r\n"), "/archive") == ID


def test_two_processes_that_make_it_at_once_get_the_same() -> None:
    model = an_archive()
    found: list[str] = []
    at("link", model, lambda: found.append(ensure_archive_id(model, "/archive")))
    assert ensure_archive_id(model, "/archive") == found[0]
    assert len(model.tree()) == 2


def test_an_identity_that_vanishes_again_is_an_error() -> None:
    model = an_archive()

    def steal() -> None:
        at("open_for_reading", model, lambda: model.unlink("/archive/archive.id"))

    at("synchronize_directory", model, steal)
    with pytest.raises(ArchiveIdentityError, match="was removed while it was made"):
        ensure_archive_id(model, "/archive")


def test_an_identity_that_was_told_survives_a_power_cut_at_any_step() -> None:
    model = an_archive()

    def check(state: ModelFileSystem, promises: tuple[str, ...]) -> None:
        found = read_archive_id(state, "/archive")  # whole or absent
        if promises:
            assert found == promises[0]

    check_power_cuts(model, lambda promise: promise(ensure_archive_id(model, "/archive")), check, states=64)


def test_an_identity_found_is_durable_even_if_its_maker_has_not_come_so_far() -> None:
    model = an_archive()
    model.fail_next("synchronize_directory", clean_pages=False)
    with pytest.raises(OSError, match="Input/output"):
        ensure_archive_id(model, "/archive")
    found = ensure_archive_id(model, "/archive")
    assert read_archive_id(model.crash(lambda _: False), "/archive") == found


# Writing once


def test_what_is_written_once_is_not_replaced_and_leaves_nothing_beside_it() -> None:
    model = an_archive()
    assert write_once(model, "/archive/note", b"first", mode=0o640)
    assert not write_once(model, "/archive/note", b"second")
    assert model.tree() == {"/archive": None, "/archive/note": b"first"}
    assert model.status("/archive/note").mode == 0o640


@pytest.mark.parametrize("operation", ["create", "write", "synchronize", "close", "link"])
def test_a_file_that_cannot_be_written_whole_does_not_appear(operation: str) -> None:
    model = an_archive()
    model.fail_next(operation, error=errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        write_once(model, "/archive/note", b"text")
    assert model.tree() == {"/archive": None}
    assert model.open_paths == []


def test_a_power_cut_leaves_a_file_written_once_whole_or_absent() -> None:
    data = random.Random(1).randbytes(1500)

    def check(state: ModelFileSystem, promises: tuple[bool, ...]) -> None:
        assert state.tree().get("/archive/note") in ((data,) if promises else (None, data))

    model = an_archive()
    check_power_cuts(
        model, lambda promise: promise(write_once(model, "/archive/note", data)), check, states=64
    )


# Making folders


def test_folders_are_durable_with_all_that_had_to_be_made_above_them() -> None:
    model = an_archive()
    make_folders(model, "/archive/objects/a/b", mode=0o750)
    assert model.crash(lambda _: False).status("/archive/objects/a/b").mode == 0o750
    make_folders(model, "/")
    model.place("/archive/file")
    with pytest.raises(NotADirectoryError):
        make_folders(model, "/archive/file/a")


def test_a_folder_another_made_is_durable_too() -> None:
    model = an_archive()
    model.make_directory("/archive/objects")
    make_folders(model, "/archive/objects")
    assert "/archive/objects" in model.crash(lambda _: False).tree()


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_a_folder_whose_name_could_not_be_synced_is_taken_away_and_made_anew(error: int) -> None:
    """A later sync would say that all is well, and bring nothing."""
    model = an_archive()
    model.fail_next("synchronize_directory", "/archive/objects", error)
    with pytest.raises(OSError, match=os.strerror(error)):
        make_folders(model, "/archive/objects/a/b")
    make_folders(model, "/archive/objects/a/b")
    assert "/archive/objects/a/b" in model.crash(lambda _: False).tree()


def test_a_folder_above_that_is_not_ours_to_read_matters_only_to_new_ones() -> None:
    model = an_archive()
    model.fail_next("synchronize_directory", "/", errno.EACCES)
    make_folders(model, "/archive")
    model.fail_next("synchronize_directory", "/", errno.EACCES)
    with pytest.raises(PermissionError):
        make_folders(model, "/other")
