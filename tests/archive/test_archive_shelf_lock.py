"""The shelf's lock: one at a time, on a shelf on which everything is proved."""

import threading
from pathlib import Path

import pytest

from stowkeeper.archive.limits import (
    SHELF_LOCK_POLL_SECONDS_MAX,
    SHELF_LOCK_POLL_SECONDS_MIN,
    SHELF_LOCK_SECONDS,
)
from stowkeeper.archive.shelf_lock import JOURNAL, ShelfLock
from stowkeeper.durable.filesystem import FileSystem
from support.archive_rig import ROOT
from support.model_filesystem import ModelFileSystem, Operation, PowerCut

STUDY = "objects/1.2"
SERIES = f"{STUDY}/1.2.1"
FILE = f"{SERIES}/a.dcm"
SLOT = f"{ROOT}/depot/dead/0"


@pytest.fixture
def model() -> ModelFileSystem:
    model = ModelFileSystem()
    model.place_folder(f"{ROOT}/objects")
    model.place(SLOT, b"an instance")
    return model


def shelf_lock(model: ModelFileSystem) -> ShelfLock:
    return ShelfLock(model, ROOT)


def make(model: ModelFileSystem, lock: ShelfLock) -> None:
    """Make a name and its folders, as the shelf does."""
    lock.note([FILE])
    lock.note([STUDY, SERIES])
    for folder in (STUDY, SERIES):
        model.make_directory(f"{ROOT}/{folder}")
    model.link(SLOT, f"{ROOT}/{FILE}")


def make_and_prove(model: ModelFileSystem, lock: ShelfLock) -> None:
    with lock.held():
        make(model, lock)
        lock.forget()


def shelf(model: ModelFileSystem) -> list[str]:
    return [path.removeprefix(f"{ROOT}/") for path in model.tree() if path.startswith(f"{ROOT}/objects/")]


def die_holding(model: ModelFileSystem) -> ModelFileSystem:
    """Let a process die with a name on the shelf that it has not proved."""

    def die(operation: Operation) -> None:
        if operation.name == "unlink":
            raise PowerCut

    model.before_each = die
    with pytest.raises(PowerCut):
        make_and_prove(model, shelf_lock(model))
    model.before_each = None
    assert shelf(model) == [STUDY, SERIES, FILE]
    return model.kill()


def test_one_holds_it_and_the_next_waits(tmp_path: Path) -> None:
    first, second = (ShelfLock(FileSystem(), str(tmp_path)) for _ in range(2))
    held = threading.Event()

    def wait() -> None:
        with second.held():
            held.set()

    thread = threading.Thread(target=wait)
    with first.held():
        thread.start()
        assert not held.wait(0.05)
    assert held.wait(30)
    thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["depot"]
    assert (tmp_path / "depot").stat().st_mode & 0o777 == 0o700, "who may not write here holds up nobody"


def test_who_waits_too_long_is_told_what_to_look_for(model: ModelFileSystem) -> None:
    assert SHELF_LOCK_SECONDS > 1000 * SHELF_LOCK_POLL_SECONDS_MAX > 1000 * SHELF_LOCK_POLL_SECONDS_MIN
    waits = ShelfLock(model, ROOT, seconds=0.0)
    message = "see whether one of them hangs"
    with shelf_lock(model).held(), pytest.raises(TimeoutError, match=message), waits.held():
        pytest.fail("it is held by another")
    with waits.held():
        pass


def test_what_is_proved_stays_and_leaves_no_journal(model: ModelFileSystem) -> None:
    lock = shelf_lock(model)
    for _ in range(2):
        with lock.held():
            if not shelf(model):
                make(model, lock)
            lock.forget()
    assert shelf(model) == [STUDY, SERIES, FILE]
    assert f"{ROOT}/{JOURNAL}" not in model.tree()
    assert model.open_paths == []


@pytest.mark.parametrize("operation", ["create", "write", "unlink"])
def test_without_its_journal_nothing_counts(model: ModelFileSystem, operation: str) -> None:
    lock = shelf_lock(model)
    model.fail_next(operation, f"{ROOT}/{JOURNAL}")
    with pytest.raises(OSError, match="Input/output error"):
        make_and_prove(model, lock)
    assert shelf(model) == []
    make_and_prove(model, lock)
    assert shelf(model) == [STUDY, SERIES, FILE]
    assert model.open_paths == []


def test_the_next_takes_back_what_a_dead_process_did_not_prove(model: ModelFileSystem) -> None:
    model = die_holding(model)
    with shelf_lock(model).held():
        assert shelf(model) == []
    assert f"{ROOT}/{JOURNAL}" not in model.tree()
    assert model.content(SLOT) == b"an instance"


def test_a_taking_back_that_is_cut_off_goes_on_the_next_time(model: ModelFileSystem) -> None:
    model = die_holding(model)
    steps: list[Operation] = []
    while True:
        before = len(steps)

        def stop(operation: Operation, before: int = before) -> None:
            if operation.name in {"unlink", "remove_directory"}:
                steps.append(operation)
                if len(steps) > 2 * before:
                    raise PowerCut

        model.before_each = stop
        try:
            with shelf_lock(model).held():
                break
        except PowerCut:
            model = model.kill()
    assert len(steps) > 4
    assert shelf(model) == []


def test_a_file_without_a_name_in_the_depot_is_never_taken_away(model: ModelFileSystem) -> None:
    """Where the system does not tell its runs apart, a journal may name what was listed since, and has other links."""
    model = die_holding(model)
    model.unlink(SLOT)
    model.link(f"{ROOT}/{FILE}", f"{ROOT}/someones-copy.dcm")
    with shelf_lock(model).held():
        pass
    assert shelf(model) == [STUDY, SERIES, FILE]
    assert f"{ROOT}/{JOURNAL}" not in model.tree()


def test_folders_that_hold_others_files_stay(model: ModelFileSystem) -> None:
    model = die_holding(model)
    model.place(f"{ROOT}/{SERIES}/b.dcm", b"another's")
    with shelf_lock(model).held():
        pass
    assert shelf(model) == [STUDY, SERIES, f"{SERIES}/b.dcm"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(600),
        b"objects/1.2/1.2.1/b.d",
        b"objects\nobjects/\n../archive/depot/dead/0\nobjects/../depot/dead/0\n/archive/depot/dead/0\n\n.\n",
        b"objects/1.2/1.2.1/b.dcm/below\nobjects/9/9/9.dcm\n\xff\xfe\nobjects/1.2/\0\n",
    ],
)
def test_whatever_a_journal_holds_nothing_else_is_touched(model: ModelFileSystem, content: bytes) -> None:
    model.place(f"{ROOT}/{JOURNAL}", f"{model.boot_identity()}\n".encode() + content)
    model.place(f"{ROOT}/{SERIES}/b.dcm", b"another's")
    before = model.tree()
    with shelf_lock(model).held():
        pass
    del before[f"{ROOT}/{JOURNAL}"]
    assert model.tree() == before


def test_after_a_power_cut_what_is_on_the_medium_is_proved(model: ModelFileSystem) -> None:
    """A journal that came back may name what was listed since."""
    model = die_holding(model).crash(lambda _: True)
    with shelf_lock(model).held():
        pass
    assert shelf(model) == [STUDY, SERIES, FILE]
    assert f"{ROOT}/{JOURNAL}" not in model.tree()


def test_a_depot_folder_that_we_may_not_read_holds_up_nobody(model: ModelFileSystem) -> None:
    model = die_holding(model)
    model.place_folder(f"{ROOT}/depot/of-another-user")
    model.fail_next("list_directory", "*/of-another-user", error=13)
    with shelf_lock(model).held():
        assert shelf(model) == []
