"""The slot pool hands out names that are on the medium, each once, and loses none to an error."""

import errno
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from stowkeeper.durable.errors import FolderSyncError, is_out_of_space
from stowkeeper.durable.filesystem import FileSystem, NoSyncFileSystem
from stowkeeper.durable.limits import OPEN_SLOTS, SLOT_BATCH, SLOT_POOL_SIZE, SLOT_REFILL_BELOW
from stowkeeper.durable.slots import Slot, SlotPool
from support.model_filesystem import ModelFileSystem, Operation
from support.power_cuts import check_power_cuts

FOLDER = "/depot/1"
WAIT_SECONDS_MAX = 30.0
Promise = tuple[str, bytes]


def a_depot(kind: type[ModelFileSystem] = ModelFileSystem, *, inodes: int | None = None) -> ModelFileSystem:
    model = kind(inodes=inodes)
    model.place_folder(FOLDER)
    return model


def names_of(model: ModelFileSystem, operation: str) -> list[str]:
    return [done.path for done in model.log if done.name == operation]


def test_a_slot_is_a_new_empty_file_of_the_mode_that_is_set(tmp_path: Path) -> None:
    files = FileSystem()
    pool = SlotPool(files, str(tmp_path), size=3, mode=0o604)
    slot = pool.take()
    assert slot.path == f"{tmp_path}/0"
    files.write(slot.descriptor, [b"bytes"], 0)
    files.close(slot.descriptor)
    assert Path(slot.path).read_bytes() == b"bytes"
    assert stat.S_IMODE(Path(slot.path).stat().st_mode) == 0o604
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


@pytest.mark.slow
def test_as_shipped_the_pool_holds_its_size_in_batches_of_one_sync_each() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER)
    pool.fill()
    pool.fill()
    assert pool.statistics.free == SLOT_POOL_SIZE == 4096
    assert pool.statistics.folder_syncs == SLOT_POOL_SIZE // SLOT_BATCH
    assert len(names_of(model, "synchronize_directory")) == SLOT_POOL_SIZE // SLOT_BATCH
    assert names_of(model, "create")[-1] == f"{FOLDER}/fff"
    pool.open_ahead()
    pool.open_ahead()
    assert pool.statistics.open == len(model.open_paths) == OPEN_SLOTS


def test_a_size_or_a_mode_that_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="size of 1 or more"):
        SlotPool(a_depot(), FOLDER, size=0)
    with pytest.raises(ValueError, match="add 0600"):
        SlotPool(a_depot(), FOLDER, mode=0o444)


def test_names_that_are_in_use_are_passed_over() -> None:
    model = a_depot()
    for name in ("0", "2"):
        model.place(f"{FOLDER}/{name}", b"an instance")
    pool = SlotPool(model, FOLDER, size=2)
    assert [pool.take().path for _ in range(2)] == [f"{FOLDER}/1", f"{FOLDER}/3"]


def test_nothing_is_handed_out_before_the_sync_that_covers_it() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=4)

    def check(operation: Operation) -> None:
        if operation.name in {"create", "synchronize_directory"}:
            assert pool.statistics.free == 0

    model.before_each = check
    pool.take()
    assert [done.name for done in model.log if done.name != "close"] == [
        *["create"] * 4,
        "synchronize_directory",
        "open_for_writing",
    ]


def keep_some(model: ModelFileSystem, promise: Callable[[Promise], None]) -> None:
    """Write instances into slots as the depot does; each is promised after its one sync."""
    pool = SlotPool(model, FOLDER, size=3, open_slots=1)
    for number in range(5):
        slot = pool.take()
        data = b"instance %d " % number * 120
        model.write(slot.descriptor, [data], 0)
        model.synchronize(slot.descriptor)
        promise((slot.path, data))
        model.close(slot.descriptor)
        pool.open_ahead()


def check_kept(state: ModelFileSystem, promises: tuple[Promise, ...]) -> None:
    tree = state.tree()
    for path, data in promises:
        assert tree.get(path) == data


def test_one_sync_of_the_file_keeps_an_instance_through_a_power_cut_at_any_step() -> None:
    model = a_depot()
    assert check_power_cuts(model, partial(keep_some, model), check_kept, states=24) > 100


def test_without_syncs_a_power_cut_loses_instances() -> None:
    class NoSyncModel(NoSyncFileSystem, ModelFileSystem):
        pass

    model = a_depot(NoSyncModel)
    with pytest.raises(AssertionError):
        check_power_cuts(model, partial(keep_some, model), check_kept, states=24)


# When the disk says no


def test_slots_of_a_failed_folder_sync_are_given_up_and_never_handed_out() -> None:
    model = a_depot()
    model.fail_next("synchronize_directory", FOLDER, errno.EIO)
    pool = SlotPool(model, FOLDER, size=2)
    with pytest.raises(FolderSyncError, match="sync of the slot folder failed") as caught:
        pool.take()
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, FOLDER)
    assert model.tree() == {"/depot": None, FOLDER: None}
    slot = pool.take()
    assert slot.path == f"{FOLDER}/2"
    statistics = pool.statistics
    assert (statistics.given_up, statistics.made, statistics.taken, statistics.free) == (2, 2, 1, 1)
    assert "sync" not in (statistics.last_error or "sync")
    after = model.crash(lambda _: False)
    assert set(after.tree()) == {"/depot", FOLDER, f"{FOLDER}/2", f"{FOLDER}/3"}


def test_what_could_be_made_is_in_the_pool_when_space_runs_out() -> None:
    model = a_depot(inodes=3 + 5)
    pool = SlotPool(model, FOLDER, size=100)
    with pytest.raises(OSError, match="No space left") as caught:
        pool.fill()
    assert is_out_of_space(caught.value)
    assert pool.statistics.free == 5
    assert [pool.take().path for _ in range(5)] == [f"{FOLDER}/{number}" for number in range(5)]
    with pytest.raises(OSError, match="No space left"):
        pool.take()
    assert model.crash(lambda _: False).tree() == model.tree()  # all of them covered by a sync
    model.inodes = 20
    pool.take()
    assert "No space left" in (pool.statistics.last_error or "")


def test_a_slot_that_cannot_be_opened_stays_free() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=2)
    pool.fill()
    model.fail_next("open_for_writing", error=errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        pool.take()
    model.fail_next("open_for_writing", error=errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        pool.open_ahead()
    assert pool.statistics.free == 2
    assert pool.take().path == f"{FOLDER}/0"


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
def test_no_more_stand_open_than_may(error: int) -> None:
    model = a_depot()
    told: list[OSError] = []
    pool = SlotPool(model, FOLDER, size=4, open_slots=4, on_error=told.append)
    pool.fill()
    model.fail_next("open_for_writing", error=error, after=2)
    pool.open_ahead()
    assert (pool.statistics.open, pool.statistics.free, told) == (2, 4, [])
    assert {pool.take().path for _ in range(4)} == {f"{FOLDER}/{number}" for number in range(4)}


def test_free_slots_can_be_removed_to_give_their_inodes_back() -> None:
    model = a_depot(inodes=3 + 6)
    pool = SlotPool(model, FOLDER, size=6, open_slots=2)
    pool.fill()
    pool.open_ahead()
    with pytest.raises(OSError, match="No space left"):
        model.make_directory("/study")
    assert pool.remove_free(1) == 1
    model.make_directory("/study")
    slot = pool.take()
    assert pool.remove_free(100) == 4
    assert model.open_paths == [slot.path]
    statistics = pool.statistics
    assert (statistics.free, statistics.removed, statistics.taken) == (0, 5, 1)


# Threads


def test_every_thread_gets_slots_of_its_own() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=40, open_slots=8)
    taken: list[Slot] = []

    def take_many() -> None:
        taken.extend(pool.take() for _ in range(60))

    pool.start()
    threads = [threading.Thread(target=take_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.stop()
    assert len({slot.path for slot in taken}) == len({slot.descriptor for slot in taken}) == 240
    assert sorted(slot.path for slot in taken) == model.open_paths
    assert pool.statistics.taken == 240


def seen(model: ModelFileSystem, operation: str) -> Callable[[int], None]:
    """Return a function that waits until an operation was begun so many times."""
    counted = threading.Condition()
    count = 0

    def before(done: Operation) -> None:
        nonlocal count
        if done.name == operation:
            with counted:
                count += 1
                counted.notify_all()

    def wait(times: int) -> None:
        with counted:
            assert counted.wait_for(lambda: count >= times, WAIT_SECONDS_MAX)

    model.before_each = before
    return wait


def test_the_filler_fills_at_start_and_again_below_the_mark() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=8, refill_below=4, open_slots=0)
    wait = seen(model, "synchronize_directory")
    pool.start()
    pool.start()
    wait(1)
    for _ in range(5):
        pool.take()
    wait(2)
    pool.stop()
    pool.stop()
    statistics = pool.statistics
    assert (statistics.made, statistics.free, statistics.waits) == (13, 8, 0)
    assert not any(thread.name == "slot-filler" for thread in threading.enumerate())


def test_the_mark_is_half_the_pool_where_none_is_set() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=8, open_slots=0)
    wait = seen(model, "synchronize_directory")
    pool.start()
    wait(1)
    for _ in range(4):
        pool.take()
    pool.stop()
    assert pool.statistics.made == 8
    assert SLOT_REFILL_BELOW * 4 == SLOT_POOL_SIZE


def test_the_filler_opens_ahead_and_a_stop_closes_what_stands_open() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=8, open_slots=4)
    wait = seen(model, "open_for_writing")
    pool.start()
    wait(4)
    taken = [pool.take() for _ in range(3)]
    wait(7)
    pool.stop()
    assert model.open_paths == [slot.path for slot in taken]
    assert pool.statistics.open == 0
    assert pool.statistics.free == 5
    assert pool.take().path == f"{FOLDER}/3"  # the ones that stood open are first again


def test_the_filler_tells_its_errors_and_goes_on_when_asked_again() -> None:
    model = a_depot()
    told: list[OSError] = []
    heard = threading.Event()

    def hear(error: OSError) -> None:
        told.append(error)
        heard.set()

    model.fail_next("synchronize_directory", FOLDER, errno.EIO)
    pool = SlotPool(model, FOLDER, size=4, open_slots=0, on_error=hear)
    pool.start()
    assert heard.wait(WAIT_SECONDS_MAX)
    assert isinstance(told[0], FolderSyncError)
    assert pool.statistics.free == 0
    pool.take()
    pool.stop()
    assert pool.statistics.waits == 1
    assert pool.statistics.taken == 1
    assert len(told) == 1


class WatchedLock:
    """A lock that tells when a second thread comes to it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.second = threading.Event()

    def acquire(self, *, blocking: bool = True) -> bool:
        if self.lock.locked():
            self.second.set()
        return self.lock.acquire(blocking=blocking)

    def release(self) -> None:
        self.lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_takers_that_waited_for_the_same_batch_share_it() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=4)
    pool._making = lock = WatchedLock()  # type: ignore[assignment]  # a lock as far as the pool can tell
    second = threading.Thread(target=pool.take)

    def before(operation: Operation) -> None:
        if operation.name == "synchronize_directory":
            second.start()
            assert lock.second.wait(WAIT_SECONDS_MAX)

    model.before_each = before
    pool.take()
    second.join()
    statistics = pool.statistics
    assert (statistics.made, statistics.taken, statistics.waits) == (4, 2, 1)


class UnfairLock(WatchedLock):
    """A lock that nobody who waits for it gets, as one that its holder takes again at once."""

    def acquire(self, *, blocking: bool = True) -> bool:
        taken = self.lock.acquire(blocking=False)
        assert taken or not blocking, "it is waited for"
        return taken


def test_a_taker_beside_the_filler_waits_for_one_batch_only() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=10 * SLOT_BATCH)
    pool._making = UnfairLock()  # type: ignore[assignment]  # a lock as far as the pool can tell
    taken: list[int] = []
    is_waiting = threading.Event()

    def take() -> None:
        is_waiting.set()
        pool.take()
        taken.append(pool.statistics.made)

    taker = threading.Thread(target=take)

    def before(operation: Operation) -> None:
        if operation.name == "synchronize_directory" and not is_waiting.is_set():
            taker.start()
            assert is_waiting.wait(WAIT_SECONDS_MAX)
        elif (
            pool.statistics.made and threading.current_thread() is not taker
        ):  # the second batch goes on when the taker has a slot of the first
            taker.join(WAIT_SECONDS_MAX)

    model.before_each = before
    pool.fill()
    assert taken == [SLOT_BATCH]


def test_a_taker_waits_for_one_batch_only() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER)
    pool.take()
    assert pool.statistics.made == SLOT_BATCH
    assert pool.statistics.waits == 1


def test_a_slot_that_somebody_removed_is_passed_over() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=4, open_slots=0)
    pool.fill()
    model.unlink(f"{FOLDER}/0")
    assert pool.take().path == f"{FOLDER}/1"
    assert pool.statistics.removed == 1
    assert pool.statistics.taken == 1


def test_opening_ahead_passes_over_a_slot_that_somebody_removed() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=4, open_slots=2)
    pool.fill()
    model.unlink(f"{FOLDER}/0")
    pool.open_ahead()
    assert pool.statistics.open == 2
    assert pool.take().path == f"{FOLDER}/1"


def test_the_first_slots_can_be_made_alone() -> None:
    model = a_depot()
    pool = SlotPool(model, FOLDER, size=SLOT_BATCH * 3, open_slots=0)
    pool.fill(1)
    assert pool.statistics.free == SLOT_BATCH
    pool.fill()
    assert pool.statistics.free == SLOT_BATCH * 3
