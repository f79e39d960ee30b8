"""The model file system keeps what was synced, may lose all else piece by piece, and fails when it is told to."""

import errno
import inspect
import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.durable.filesystem import FileSystem, NoSyncFileSystem
from support.examples import examples
from support.model_filesystem import ModelFileSystem, Operation, PowerCut, UnsyncedChange
from support.power_cuts import check_power_cuts, record, surviving_states

Promise = tuple[str, bytes]


def nothing(_: UnsyncedChange) -> bool:
    return False


def everything(_: UnsyncedChange) -> bool:
    return True


def only(*operations: str) -> Callable[[UnsyncedChange], bool]:
    return lambda change: change.operation in operations


def write_file(model: ModelFileSystem, path: str, data: bytes, *, sync: bool = True) -> None:
    descriptor = model.create(path, 0o644)
    model.write(descriptor, [data], 0)
    if sync:
        model.synchronize(descriptor)
    model.close(descriptor)


def read_file(model: ModelFileSystem, path: str, *, from_medium: bool = False) -> bytes:
    descriptor = model.open_for_reading(path)
    if from_medium:
        model.drop_cache(descriptor)
    data = model.read(descriptor, 1 << 20, 0)
    model.close(descriptor)
    return data


# As programs see it


def test_the_model_answers_every_call_of_the_seam() -> None:
    calls = {name for name, value in inspect.getmembers(FileSystem, inspect.isfunction) if name[0] != "_"}
    own = {name for name in calls if getattr(ModelFileSystem, name) is not getattr(FileSystem, name)}
    assert calls - own == {"file_system_type"}  # which asks `mount`
    for name in own:
        assert inspect.signature(getattr(ModelFileSystem, name)) == inspect.signature(
            getattr(FileSystem, name)
        )


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=1500)), max_size=6),
    st.integers(0, 3000),
    st.integers(0, 5000),
)
def test_writes_and_reads_agree_with_plain_bytes(
    writes: list[tuple[int, bytes]], offset: int, length: int
) -> None:
    model = ModelFileSystem()
    expected = bytearray()
    descriptor = model.create("/a", 0o600)
    for start, data in writes:
        model.write(descriptor, [data[:7], memoryview(data)[7:]], start)
        expected.extend(bytes(max(0, start + len(data) - len(expected))))
        expected[start : start + len(data)] = data
    reader = model.open_for_reading("/a")
    assert model.read(reader, length, offset) == bytes(expected[offset : offset + length])
    view = memoryview(bytearray(length))
    assert model.read_into(reader, view, offset) == len(expected[offset : offset + length])
    assert model.status("/a").size == len(expected) == len(model.content("/a"))


def test_names_behave_as_those_of_a_real_folder() -> None:
    model = ModelFileSystem()
    assert model.make_directory("/a", 0o700)
    assert not model.make_directory("/a")
    write_file(model, "/a/b", b"x")
    model.link("/a/b", "/a/c")
    assert model.status("/a/c").links == 2
    assert model.status("/a/b").inode == model.status("/a/c").inode
    assert model.status("/a").mode == 0o700
    entries = sorted((entry.name, entry.is_directory) for entry in model.list_directory("/a"))
    assert entries == [("b", False), ("c", False)]
    model.unlink("/a/b")
    assert model.status("/a/c").links == 1
    assert model.tree() == {"/a": None, "/a/c": b"x"}


@pytest.mark.parametrize(
    ("number", "call"),
    [
        (errno.EEXIST, lambda model: model.create("/file", 0o600)),
        (errno.EEXIST, lambda model: model.link("/file", "/folder/inner")),
        (errno.EEXIST, lambda model: model.make_directory("/file")),
        (errno.EEXIST, lambda model: model.preallocate("/file", 1)),
        (errno.ENOENT, lambda model: model.open_for_reading("/none")),
        (errno.ENOENT, lambda model: model.create("/none/a", 0o600)),
        (errno.ENOENT, lambda model: model.unlink("/none")),
        (errno.ENOENT, lambda model: model.synchronize_directory("/none")),
        (errno.ENOTDIR, lambda model: model.status("/file/a")),
        (errno.ENOTDIR, lambda model: model.remove_directory("/file")),
        (errno.ENOTDIR, lambda model: model.list_directory("/file")),
        (errno.EISDIR, lambda model: model.unlink("/folder")),
        (errno.EISDIR, lambda model: model.open_for_writing("/folder")),
        (errno.EPERM, lambda model: model.link("/folder", "/other")),
        (errno.ENOTEMPTY, lambda model: model.remove_directory("/folder")),
        (errno.EBADF, lambda model: model.close(7)),
        (errno.EBADF, lambda model: model.write(model.open_for_reading("/file"), [b"a"], 0)),
        (errno.EBADF, lambda model: model.read(model.open_for_writing("/file"), 1, 0)),
    ],
)
def test_what_the_system_refuses_the_model_refuses(
    number: int, call: Callable[[ModelFileSystem], object]
) -> None:
    model = ModelFileSystem()
    model.place("/file")
    model.place("/folder/inner")
    with pytest.raises(OSError) as caught:
        call(model)
    assert caught.value.errno == number


def test_a_relative_path_is_a_mistake_of_the_test() -> None:
    with pytest.raises(ValueError, match="absolute"):
        ModelFileSystem().status("a")


def test_an_unlinked_file_can_be_read_by_whoever_has_it_open() -> None:
    model = ModelFileSystem()
    model.place("/a", b"bytes")
    descriptor = model.open_for_reading("/a")
    model.unlink("/a")
    assert model.read(descriptor, 10, 0) == b"bytes"
    assert model.open_paths == ["/a"]


def test_locks_are_had_once_and_end_with_the_process() -> None:
    model = ModelFileSystem()
    model.place_folder("/depot/1")
    lock = model.lock_directory("/depot/1")
    assert lock is not None
    assert model.lock_directory("/depot/1") is None
    assert model.lock_directory("/depot/none") is None
    assert model.kill().lock_directory("/depot/1") is not None
    assert model.crash(everything).lock_directory("/depot/1") is not None
    model.unlock_directory(lock)
    assert model.lock_directory("/depot/1") is not None


def test_a_killed_process_loses_nothing_it_wrote() -> None:
    model = ModelFileSystem()
    write_file(model, "/a", b"unsynced", sync=False)
    after = model.kill()
    assert after.tree() == {"/a": b"unsynced"}
    assert after.crash(nothing).tree() == {}  # and the power may still be cut


def test_space_runs_out_by_bytes_and_by_inodes() -> None:
    model = ModelFileSystem(capacity=1024, inodes=3)
    assert (model.free_space("/").bytes, model.free_space("/").inodes) == (1024, 2)
    descriptor = model.create("/a", 0o600)
    with pytest.raises(OSError, match="No space left") as caught:
        model.write(descriptor, [bytes(600), bytes(600)], 0)
    assert caught.value.errno == errno.ENOSPC
    assert model.status("/a").size == 1024
    model.write(descriptor, [b"over what is there"], 100)
    model.make_directory("/b")
    with pytest.raises(OSError, match="No space left"):
        model.create("/c", 0o600)
    model.close(descriptor)
    model.unlink("/a")
    model.preallocate("/c", 1024)
    assert model.free_space("/").bytes == 0
    assert model.crash(nothing).status("/c").size == 1024
    assert ModelFileSystem().free_space("/").inodes is None
    assert ModelFileSystem().file_system_type("/") == "ext4"


# After a power cut


def test_synced_bytes_behind_an_unsynced_name_are_gone_with_the_name() -> None:
    model = ModelFileSystem()
    write_file(model, "/a", b"synced")
    assert model.crash(nothing).tree() == {}
    assert model.crash(everything).tree() == {"/a": b"synced"}


def test_a_synced_name_leads_to_an_empty_file_when_its_bytes_were_not_synced() -> None:
    model = ModelFileSystem()
    write_file(model, "/a", b"unsynced", sync=False)
    model.synchronize_directory("/")
    assert model.crash(nothing).tree() == {"/a": b""}


def test_both_syncs_keep_a_file() -> None:
    model = ModelFileSystem()
    write_file(model, "/a", b"kept")
    model.synchronize_directory("/")
    assert model.unsynced() == []
    assert model.crash(nothing).tree() == {"/a": b"kept"}


def test_the_sync_of_a_folder_does_not_keep_its_own_name() -> None:
    model = ModelFileSystem()
    model.make_directory("/folder")
    write_file(model, "/folder/a", b"x")
    model.synchronize_directory("/folder")
    assert model.crash(nothing).tree() == {}
    model.synchronize_directory("/")
    assert model.crash(nothing).tree() == {"/folder": None, "/folder/a": b"x"}


def test_each_name_in_a_folder_survives_by_itself() -> None:
    model = ModelFileSystem()
    for name in ("/a", "/b"):
        write_file(model, name, b"x")
    found = {frozenset(state.tree()) for state in surviving_states(model, 16, random.Random(1))}
    assert found == {frozenset(), frozenset({"/a"}), frozenset({"/b"}), frozenset({"/a", "/b"})}


def test_a_link_and_the_removal_of_the_first_name_are_two_changes() -> None:
    model = ModelFileSystem()
    model.place("/depot/1", b"bytes")
    model.place_folder("/shelf")
    model.link("/depot/1", "/shelf/a")
    model.unlink("/depot/1")
    found = {
        tuple(path for path in state.tree() if path.count("/") == 2)
        for state in surviving_states(model, 16, random.Random(1))
    }
    assert found == {(), ("/depot/1",), ("/shelf/a",), ("/depot/1", "/shelf/a")}  # the first: a lost instance
    kept = model.crash(only("link"))
    assert kept.status("/shelf/a").links == 2
    assert kept.status("/shelf/a").inode == kept.status("/depot/1").inode


def test_a_removal_that_was_not_synced_may_be_undone() -> None:
    model = ModelFileSystem()
    model.place("/folder/a", b"x")
    model.unlink("/folder/a")
    model.remove_directory("/folder")
    assert model.crash(nothing).tree() == {"/folder": None, "/folder/a": b"x"}
    assert model.crash(everything).tree() == {}


def test_size_and_blocks_survive_each_by_itself_and_a_lost_block_reads_as_zeros() -> None:
    model = ModelFileSystem(block_size=4)
    model.place("/a")
    descriptor = model.open_for_writing("/a")
    model.write(descriptor, [b"aaaabbbbcc"], 0)
    found = {state.content("/a") for state in surviving_states(model, 64, random.Random(1))}
    assert b"" in found
    assert b"aaaa\0\0\0\0cc" in found
    assert b"\0\0\0\0bbbb" in found  # a size in between
    assert found == {
        (
            (b"aaaa" if first else bytes(4))
            + (b"bbbb" if second else bytes(4))
            + (b"cc" if third else bytes(2))
        )[:size]
        for first in (0, 1)
        for second in (0, 1)
        for third in (0, 1)
        for size in (0, 4, 8, 10)
    }


def test_what_lay_behind_a_lost_size_does_not_come_back() -> None:
    model = ModelFileSystem(block_size=4)
    model.place("/a", b"aa")
    descriptor = model.open_for_writing("/a")
    model.write(descriptor, [b"bbbbbb"], 2)
    after = model.crash(lambda change: change.part != "size")
    assert after.content("/a") == b"aa"
    descriptor = after.open_for_writing("/a")
    after.write(descriptor, [b"c"], 7)
    assert after.content("/a") == b"aa\0\0\0\0\0c"


def test_a_block_is_written_whole_with_all_that_was_written_to_it_before() -> None:
    model = ModelFileSystem(block_size=8)
    model.place("/a", b"........")
    descriptor = model.open_for_writing("/a")
    model.write(descriptor, [b"one"], 0)
    model.write(descriptor, [b"two"], 4)
    found = {state.content("/a") for state in surviving_states(model, 16, random.Random(1))}
    assert found == {b"........", b"one.....", b"one.two."}


def test_blocks_are_of_the_size_that_is_set() -> None:
    model = ModelFileSystem(block_size=4096)
    write_file(model, "/a", bytes(8193), sync=False)
    assert sorted(change.part for change in model.unsynced() if isinstance(change.part, int)) == [0, 1, 2]


def test_an_open_file_that_lost_its_name_is_gone() -> None:
    model = ModelFileSystem()
    model.place("/a", b"x")
    model.open_for_reading("/a")
    model.unlink("/a")
    model.synchronize_directory("/")
    after = model.crash(everything)
    assert after.tree() == {}
    assert after.open_paths == []


def test_a_power_cut_leaves_the_machine_it_was_asked_of_alone() -> None:
    model = ModelFileSystem()
    write_file(model, "/a", b"x")
    before = model.unsynced()
    after = model.crash(random.Random(3))
    assert model.unsynced() == before
    assert [change.number for change in sorted((*after.survived, *after.lost), key=lambda c: c.number)] == [
        change.number for change in before
    ]
    after.place("/b", b"y")
    assert "/b" not in model.tree()


# Faults


def test_a_failed_sync_leaves_clean_pages_that_no_later_sync_writes() -> None:
    model = ModelFileSystem()
    model.place("/a")
    model.fail_next("synchronize", "/a", errno.EIO)
    descriptor = model.open_for_writing("/a")
    model.write(descriptor, [b"bytes"], 0)
    with pytest.raises(OSError) as caught:
        model.synchronize(descriptor)
    assert caught.value.errno == errno.EIO
    assert read_file(model, "/a") == b"bytes"  # the cache still shows them
    model.synchronize(descriptor)  # says ok
    assert model.crash(nothing).content("/a") == b""
    assert model.crash(everything).content("/a") == b"bytes"  # what the failed sync did reach, nobody knows


def test_bytes_written_after_a_failed_sync_are_synced_without_those_before() -> None:
    model = ModelFileSystem(block_size=4)
    model.place("/a")
    descriptor = model.open_for_writing("/a")
    model.fail_next("synchronize")
    model.write(descriptor, [b"lost"], 0)
    with pytest.raises(OSError, match="Input/output"):
        model.synchronize(descriptor)
    model.write(descriptor, [b"kept"], 4)
    model.synchronize(descriptor)
    assert model.crash(nothing).content("/a") == b"\0\0\0\0kept"


def test_reading_from_the_medium_finds_what_a_failed_sync_lost() -> None:
    model = ModelFileSystem(block_size=4)
    model.place("/a", b"old.old.")
    model.fail_next("synchronize")
    descriptor = model.open_for_writing("/a")
    model.write(descriptor, [b"new!"], 4)
    with pytest.raises(OSError, match="Input/output"):
        model.synchronize(descriptor)
    model.write(descriptor, [b"more"], 0)  # not believed to be written: stays in the cache
    assert read_file(model, "/a", from_medium=True) == b"moreold."
    assert model.crash(everything).content("/a") == b"moreold."


def test_a_sync_that_just_did_not_happen_can_be_made_up_for() -> None:
    model = ModelFileSystem()
    model.place("/a")
    model.fail_next("synchronize", clean_pages=False)
    descriptor = model.open_for_writing("/a")
    model.write(descriptor, [b"bytes"], 0)
    with pytest.raises(OSError, match="Input/output"):
        model.synchronize(descriptor)
    model.synchronize(descriptor)
    assert model.crash(nothing).content("/a") == b"bytes"


def test_names_of_a_failed_folder_sync_are_lost_whatever_a_later_one_says() -> None:
    model = ModelFileSystem()
    model.place_folder("/folder")
    write_file(model, "/folder/a", b"x")
    model.fail_next("synchronize_directory", "/folder")
    with pytest.raises(OSError, match="Input/output"):
        model.synchronize_directory("/folder")
    write_file(model, "/folder/b", b"y")
    model.synchronize_directory("/folder")
    assert model.crash(nothing).tree() == {"/folder": None, "/folder/b": b"y"}


def test_faults_choose_operation_path_count_and_error() -> None:
    model = ModelFileSystem()
    model.fail_next("create", "/x*", errno.ENOSPC, times=2, after=1)
    for path, fails in (("/x1", False), ("/a", False), ("/x2", True), ("/x3", True), ("/x4", False)):
        if fails:
            with pytest.raises(OSError) as caught:
                model.create(path, 0o600)
            assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, path)
        else:
            model.create(path, 0o600)
    with pytest.raises(ValueError, match="no operation 'creat'"):
        model.fail_next("creat")


def test_a_write_can_fail_half_way_and_a_close_closes_all_the_same() -> None:
    model = ModelFileSystem()
    descriptor = model.create("/a", 0o600)
    model.fail_next("write", written=3, error=errno.ENOSPC)
    model.fail_next("close")
    with pytest.raises(OSError, match="No space left"):
        model.write(descriptor, [b"abcdef"], 0)
    with pytest.raises(OSError, match="Input/output"):
        model.close(descriptor)
    assert model.content("/a") == b"abc"
    assert model.open_paths == []


def test_the_hook_is_called_before_each_operation_and_can_stop_the_program() -> None:
    model = ModelFileSystem()
    seen: list[str] = []

    def stop_at_link(operation: Operation) -> None:
        seen.append(operation.name)
        if operation.name == "link":
            raise PowerCut

    model.before_each = stop_at_link
    write_file(model, "/a", b"x")
    with pytest.raises(PowerCut):
        model.link("/a", "/b")
    assert seen == ["create", "write", "synchronize", "close", "link"]
    assert [operation.name for operation in model.log] == seen[:-1]
    assert str(model.log[1]) == "#2 write /a"
    assert model.tree() == {"/a": b"x"}


# Driving it


def keep(model: ModelFileSystem, promise: Callable[[Promise], None], *, sync_folder: bool = True) -> None:
    """Keep two files the right way, or leave the folder's sync out."""
    for path, data in (("/shelf/a", b"first"), ("/shelf/b", b"second" * 300)):
        write_file(model, path, data)
        if sync_folder:
            model.synchronize_directory("/shelf")
        promise((path, data))


def check_kept(state: ModelFileSystem, promises: tuple[Promise, ...]) -> None:
    tree = state.tree()
    for path, data in promises:
        assert tree.get(path) == data


def a_shelf(kind: type[ModelFileSystem] = ModelFileSystem) -> ModelFileSystem:
    model = kind()
    model.place_folder("/shelf")
    return model


def test_the_driver_passes_a_program_that_syncs_and_cuts_at_every_step() -> None:
    model = a_shelf()
    moments = record(model, partial(keep, model))
    names = [moment.before.name if moment.before else None for moment in moments]
    steps = ["create", "write", "synchronize", "synchronize_directory"]
    assert names == [*steps, *steps, None]
    assert [len(moment.promises) for moment in moments] == [0] * 4 + [1] * 4 + [2]
    model = a_shelf()
    assert check_power_cuts(model, partial(keep, model), check_kept, states=20) > 30


def test_the_driver_finds_a_sync_that_is_missing_and_says_what_was_lost() -> None:
    model = a_shelf()
    with pytest.raises(AssertionError) as caught:
        check_power_cuts(model, lambda promise: keep(model, promise, sync_folder=False), check_kept)
    notes = caught.value.__notes__
    assert "power cut before #5 create /shelf/b" in notes[0]
    assert "create /shelf/a: a = 3" in notes[1]


def test_the_driver_finds_that_no_sync_keeps_nothing() -> None:
    class NoSyncModel(NoSyncFileSystem, ModelFileSystem):
        pass

    model = a_shelf(NoSyncModel)
    with pytest.raises(AssertionError):
        check_power_cuts(model, partial(keep, model), check_kept)
    assert isinstance(model.crash(nothing), NoSyncModel)


def test_states_are_all_of_them_or_the_telling_ones_first() -> None:
    model = ModelFileSystem()
    for name in "abcd":
        write_file(model, f"/{name}", b"")
    everything_there = {f"/{name}" for name in "abcd"}
    all_states = [frozenset(state.tree()) for state in surviving_states(model, 16, random.Random(0))]
    assert len(all_states) == len(set(all_states)) == 16
    some = [set(state.tree()) for state in surviving_states(model, 12, random.Random(0))]
    assert some[:2] == [set(), everything_there]
    assert {frozenset(found) for found in some[4:]} == {
        frozenset(found) for name in everything_there for found in ({name}, everything_there - {name})
    }
    again = [set(state.tree()) for state in surviving_states(model, 12, random.Random(0))]
    assert again == some
