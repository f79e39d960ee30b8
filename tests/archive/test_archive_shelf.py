"""The shelf: names that are never used for other bytes, and that count only when they are durable."""

import errno
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.shelf import Placing, Shelf, escape, folder_of, names_of
from support.archive_rig import ROOT, ArchiveRig, model_rig
from support.instances import make_instance
from support.machine_with_catalog import damage
from support.model_filesystem import ModelFileSystem

FOLDER = "objects/1.2.10/1.2.10.1"


@pytest.fixture
def model() -> ModelFileSystem:
    return ModelFileSystem()


@pytest.fixture
def rig(tmp_path: Path, model: ModelFileSystem) -> ArchiveRig:
    return model_rig(tmp_path, model, slots=8)


@pytest.fixture
def shelf(model: ModelFileSystem, rig: ArchiveRig) -> Shelf:
    model.log.clear()
    return Shelf(model, rig.root)


def depot_file(rig: ArchiveRig, number: int = 1, *, content: int = 0) -> tuple[str, Receipt]:
    """Receive an instance and return its depot path and receipt."""
    receipt = rig.keep(make_instance(number, content=content))
    return rig.waiting[-1].depot_path, receipt


def synced(model: ModelFileSystem) -> list[str]:
    """Return the folders of the shelf that were synced since the shelf was made."""
    return [
        done.path.removeprefix(f"{ROOT}/")
        for done in model.log
        if done.name == "synchronize_directory" and "objects" in done.path
    ]


def place_all(shelf: Shelf, *files: tuple[str, Receipt]) -> None:
    """Place depot files in one hold of the shelf."""
    with shelf.held():
        for path, receipt in files:
            shelf.place(path, receipt, FOLDER)
        shelf.synchronize()


# Names

ANYTHING = st.text(max_size=200) | st.from_regex(r"[0-9.]{0,70}", fullmatch=True)


@pytest.mark.slow
@given(ANYTHING)
def test_whatever_an_identifier_holds_its_name_is_one_safe_component(identifier: str) -> None:
    name = escape(identifier)
    assert name
    assert name not in (".", "..", "-") or identifier == "-"
    assert "/" not in name
    assert "\0" not in name
    assert name.isascii()
    assert len(f"{name}_{'0' * 64}_1234.dcm") <= 255


@given(ANYTHING, ANYTHING)
def test_two_identifiers_never_share_a_name(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


def test_a_well_formed_uid_is_its_own_name_and_others_are_escaped() -> None:
    assert escape("1.2.840.10008") == "1.2.840.10008"
    assert escape("0" * 64) == "0" * 64
    assert escape("..") == "%2E%2E"
    assert escape("1.2/3") == "1%2E2%2F3"
    assert escape("") != ""


def test_instances_of_no_study_stand_by_their_class() -> None:
    assert (
        folder_of(study_instance_uid="1.2", series_instance_uid="1.3", sop_class_uid="1") == "objects/1.2/1.3"
    )
    for study, series in (("", ""), ("1.2", ""), ("", "1.3")):
        found = folder_of(study_instance_uid=study, series_instance_uid=series, sop_class_uid="1.4")
        assert found == "objects/-/1.4"
    assert (
        folder_of(study_instance_uid="-", series_instance_uid="1.3", sop_class_uid="1.4") == "objects/-/1.3"
    )


def test_the_first_names_of_an_instance_differ() -> None:
    names = list(islice(names_of("1.2.3", "ab" * 32), 5))
    assert names[0] == f"1.2.3_{'ab' * 16}.dcm"
    assert len(set(names)) == 5


# Placing


def test_a_file_gets_its_name_and_every_folder_on_the_way_is_synced(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    path, receipt = depot_file(rig)
    placed = shelf.place(path, receipt, FOLDER)
    assert placed.how is Placing.LINKED
    assert placed.path == f"{FOLDER}/1.2.3.1_{receipt.digest[:32]}.dcm"
    assert model.status(rig.path(placed.path)).inode == model.status(path).inode
    assert synced(model) == []
    shelf.synchronize()
    assert synced(model) == ["objects", "objects/1.2.10", FOLDER]


def test_the_folders_are_synced_with_each_batch_since_others_may_have_made_them_anew(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    for number in (1, 2):
        shelf.place(*depot_file(rig, number), FOLDER)
        shelf.synchronize()
    assert synced(model) == ["objects", "objects/1.2.10", FOLDER] * 2


def test_the_same_inode_means_done_before(rig: ArchiveRig, shelf: Shelf) -> None:
    path, receipt = depot_file(rig)
    first = shelf.place(path, receipt, FOLDER)
    again = shelf.place(path, receipt, FOLDER)
    assert again.how is Placing.ALREADY
    assert again.path == first.path


def test_the_same_bytes_mean_identical_and_are_read_from_the_medium(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    first = shelf.place(*depot_file(rig), FOLDER)
    shelf.synchronize()
    path, receipt = depot_file(rig)
    model.log.clear()
    placed = shelf.place(path, receipt, FOLDER)
    assert placed.how is Placing.IDENTICAL
    assert placed.path == first.path
    assert placed.older is not None
    assert placed.older.receipt_id != receipt.receipt_id
    read = [done.name for done in model.log if done.path.endswith(first.path)]
    assert read.index("synchronize") < read.index("drop_cache") < read.index("read")
    shelf.synchronize()
    assert FOLDER in synced(model)  # the older name may not be durable yet


def test_other_bytes_under_a_name_are_passed_by(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    """As two digests that begin alike would have it: the name is longer then."""
    other_path, other = depot_file(rig, content=1)
    path, receipt = depot_file(rig)
    model.place_folder(rig.path(FOLDER))
    names = list(islice(names_of("1.2.3.1", receipt.digest), 3))
    for name in names[:2]:
        model.link(other_path, rig.path(f"{FOLDER}/{name}"))
    placed = shelf.place(path, receipt, FOLDER)
    assert placed.how is Placing.LINKED
    assert placed.path == f"{FOLDER}/{names[2]}"
    assert placed.damaged is None
    assert other.digest != receipt.digest


@pytest.mark.parametrize("fault", ["a bit", "an error"])
def test_a_damaged_older_file_is_passed_by_and_named(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf, fault: str
) -> None:
    older = shelf.place(*depot_file(rig), FOLDER)
    shelf.synchronize()
    if fault == "a bit":
        damage(model, rig.path(older.path), 1800)
    else:
        model.fail_next("read", rig.path(older.path), errno.EIO)
    placed = shelf.place(*depot_file(rig), FOLDER)
    assert placed.how is Placing.LINKED
    assert placed.path != older.path
    assert placed.damaged is not None
    assert placed.damaged.path == older.path


@pytest.mark.parametrize("error", [errno.EACCES, errno.ELOOP, errno.EISDIR, errno.ENXIO])
def test_what_cannot_be_opened_is_passed_by_and_not_called_damaged(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf, error: int
) -> None:
    older = shelf.place(*depot_file(rig), FOLDER)
    model.fail_next("open_for_reading", rig.path(older.path), error)
    placed = shelf.place(*depot_file(rig), FOLDER)
    assert placed.how is Placing.LINKED
    assert placed.damaged is None


def test_a_reading_error_that_may_pass_decides_nothing(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    older = shelf.place(*depot_file(rig), FOLDER)
    model.fail_next("open_for_reading", rig.path(older.path), errno.EMFILE)
    path, receipt = depot_file(rig)
    with pytest.raises(OSError, match="Too many open files"):
        shelf.place(path, receipt, FOLDER)
    assert shelf.place(path, receipt, FOLDER).how is Placing.IDENTICAL


def test_a_path_to_avoid_counts_as_taken(rig: ArchiveRig, shelf: Shelf) -> None:
    older = shelf.place(*depot_file(rig), FOLDER)
    placed = shelf.place(*depot_file(rig), FOLDER, avoid=frozenset({older.path}))
    assert placed.how is Placing.LINKED
    assert placed.path != older.path


# Folders that come and go


def test_a_folder_that_was_removed_is_made_again(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    placed = shelf.place(*depot_file(rig), FOLDER)
    shelf.synchronize()
    model.unlink(rig.path(placed.path))
    for folder in (FOLDER, "objects/1.2.10"):
        model.remove_directory(rig.path(folder))
    placed = shelf.place(*depot_file(rig, 2), FOLDER)
    assert placed.how is Placing.LINKED
    shelf.synchronize()
    assert synced(model)[-3:] == ["objects", "objects/1.2.10", FOLDER]


def test_a_depot_file_that_is_gone_takes_no_other_out_of_the_sync(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    shelf.place(*depot_file(rig, 1), FOLDER)
    path, receipt = depot_file(rig, 2)
    model.unlink(path)
    with pytest.raises(FileNotFoundError):
        shelf.place(path, receipt, FOLDER)
    shelf.synchronize()
    assert FOLDER in synced(model)


# Syncs that fail


@pytest.mark.parametrize("failing", ["objects", "objects/1.2.10", FOLDER])
@pytest.mark.parametrize("folders", [(), ("objects/1.2.10", FOLDER)])
def test_after_a_failed_sync_names_and_folders_are_taken_back_and_made_anew(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf, failing: str, folders: tuple[str, ...]
) -> None:
    """Folders too that were there: whoever made them may not have synced their names."""
    for folder in folders:
        model.make_directory(rig.path(folder))
    path, receipt = depot_file(rig)
    model.fail_next("synchronize_directory", rig.path(failing))
    with pytest.raises(OSError, match="Input/output error"):
        place_all(shelf, (path, receipt))
    assert model.list_directory(rig.path("objects")) == []
    with shelf.held():
        assert shelf.place(path, receipt, FOLDER).how is Placing.LINKED
        shelf.synchronize()
    nothing_more_survives = model.crash(lambda _: False)
    assert nothing_more_survives.status(rig.path(rig.shelf()[0])).links == 2


def test_names_of_earlier_batches_are_not_taken_back(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    """Nor those that are not listed yet, and that the batch only looked at."""
    first = depot_file(rig, 1)
    with shelf.held():
        kept = shelf.place(*first, FOLDER)
        shelf.synchronize()
    model.fail_next("synchronize_directory", rig.path(FOLDER))
    with pytest.raises(OSError, match="Input/output error"):
        place_all(shelf, depot_file(rig, 2), depot_file(rig, 1), first)
    assert rig.shelf() == [kept.path]


def test_a_batch_that_ends_without_its_sync_is_taken_back(rig: ArchiveRig, shelf: Shelf) -> None:
    with patch.object(shelf, "synchronize", side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        place_all(shelf, depot_file(rig))
    assert rig.shelf() == []
    with shelf.held():
        shelf.place(*depot_file(rig), FOLDER)
    assert rig.shelf() == []


def test_a_name_that_cannot_be_taken_back_holds_up_what_comes_after(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    """Of whatever process: it would believe its own name durable, and the folder's may not be."""
    path, receipt = depot_file(rig)
    model.fail_next("synchronize_directory", rig.path("objects"))
    model.fail_next("unlink", rig.path("objects/*"), errno.EROFS, times=2)
    with pytest.raises(OSError, match="Input/output error"):
        place_all(shelf, (path, receipt))
    other = Shelf(model, rig.root)
    with pytest.raises(OSError, match="Read-only file system"), other.held():
        pytest.fail("the shelf is not to be trusted")
    other_path, other_receipt = depot_file(rig, 2)
    with other.held():
        assert model.list_directory(rig.path("objects")) == []
        kept = other.place(other_path, other_receipt, FOLDER)
        other.synchronize()
    assert model.crash(lambda _: False).status(rig.path(kept.path)).links == 2


def test_a_folder_made_for_a_link_that_failed_is_in_doubt_until_it_was_synced(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    model.fail_next("link", "*/1.2.10.1/*", errno.ENOSPC)
    with shelf.held():
        with pytest.raises(OSError, match="No space left"):
            shelf.place(*depot_file(rig), FOLDER)
        shelf.synchronize()
    assert model.list_directory(rig.path("objects")) == []


# What has its row already


def test_a_listed_file_goes_where_its_row_says(rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf) -> None:
    path, receipt = depot_file(rig)
    names = list(islice(names_of("1.2.3.1", receipt.digest), 2))
    second = f"{FOLDER}/{names[1]}"
    assert shelf.place_listed(path, receipt, second).how is Placing.LINKED
    assert shelf.place_listed(path, receipt, second).how is Placing.ALREADY
    assert rig.shelf() == [second]
    shelf.synchronize()
    assert FOLDER in synced(model)


def test_a_listed_file_names_the_damaged_one_it_replaced(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    older = shelf.place(*depot_file(rig), FOLDER)
    shelf.synchronize()
    damage(model, rig.path(older.path), 1800)
    path, receipt = depot_file(rig)
    placed = shelf.place(path, receipt, FOLDER)
    shelf.synchronize()
    found = shelf.place_listed(path, receipt, placed.path).damaged
    assert found is not None
    assert found.path == older.path


def test_a_listed_name_with_another_file_under_it_is_an_error(
    rig: ArchiveRig, model: ModelFileSystem, shelf: Shelf
) -> None:
    other_path, _ = depot_file(rig, content=1)
    path, receipt = depot_file(rig)
    model.place_folder(rig.path(FOLDER))
    listed = f"{FOLDER}/{next(names_of('1.2.3.1', receipt.digest))}"
    model.link(other_path, rig.path(listed))
    with pytest.raises(FileExistsError):
        shelf.place_listed(path, receipt, listed)
