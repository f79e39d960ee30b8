"""A process folder belongs to one process until that ends, however it ends."""

import errno
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import stowkeeper
from stowkeeper.durable.errors import StorageUnfitError
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.limits import PROCESS_FOLDER_ATTEMPTS
from stowkeeper.durable.process_folder import PROBE_NAME, ProcessFolder, dead_folders
from stowkeeper.durable.slots import SlotPool
from support.model_filesystem import ModelFileSystem, Operation
from support.power_cuts import record, surviving_states

FILES = FileSystem()

OWNER = """
import os, sys, time
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.process_folder import ProcessFolder
from stowkeeper.durable.slots import SlotPool
folder = ProcessFolder.create(FileSystem(), sys.argv[1])
SlotPool(FileSystem(), folder.path, size=3).fill()
if sys.argv[2] == "fork" and os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
if sys.argv[2] != "fork":
    print(folder.path, flush=True)
sys.stdin.read()
"""


def a_depot() -> ModelFileSystem:
    model = ModelFileSystem()
    model.place_folder("/depot")
    return model


@contextmanager
def owner(depot: Path, manner: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a process that owns a folder with free slots until its standard input ends."""
    source = Path(stowkeeper.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(depot), manner],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(30)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_new_folder_is_private_locked_and_named_after_its_process(tmp_path: Path) -> None:
    folder = ProcessFolder.create(FILES, str(tmp_path))
    name = Path(folder.path).name
    assert re.fullmatch(rf"{os.getpid()}-[0-9a-f]{{8}}", name)
    assert FILES.status(folder.path).mode == 0o700
    assert FILES.lock_directory(folder.path) is None
    other = ProcessFolder.create(FILES, str(tmp_path))
    assert other.path != folder.path
    assert dead_folders(FILES, str(tmp_path)) == []
    for one in (folder, other):
        assert one.release()
    assert list(tmp_path.iterdir()) == []


def test_a_release_takes_the_free_slots_along_and_may_be_repeated() -> None:
    model = a_depot()
    folder = ProcessFolder.create(model, "/depot")
    pool = SlotPool(model, folder.path, size=5)
    pool.fill()
    pool.open_ahead()
    pool.stop()
    assert folder.release()
    assert folder.release()
    assert model.tree() == {"/depot": None}
    assert model.open_paths == []


def test_a_release_leaves_what_was_received_for_others_to_adopt() -> None:
    model = a_depot()
    folder = ProcessFolder.create(model, "/depot")
    model.place(f"{folder.path}/7", b"received")
    model.place(f"{folder.path}/8")
    model.place_folder(f"{folder.path}/odd")
    assert not folder.release()
    assert not folder.release()
    assert set(model.tree()) == {"/depot", folder.path, f"{folder.path}/7", f"{folder.path}/odd"}
    assert dead_folders(model, "/depot") == [folder.path]
    adopted = ProcessFolder.adopt(model, folder.path)
    assert adopted is not None
    assert adopted.path == folder.path
    assert dead_folders(model, "/depot") == []
    assert ProcessFolder.adopt(model, folder.path) is None
    model.unlink(f"{folder.path}/7")
    model.remove_directory(f"{folder.path}/odd")
    assert adopted.release()


def test_a_folder_that_someone_removed_is_released_as_gone() -> None:
    model = a_depot()
    folder = ProcessFolder.create(model, "/depot")
    model.remove_directory(folder.path)
    assert folder.release()
    assert model.open_paths == []
    assert ProcessFolder.adopt(model, folder.path) is None


@pytest.mark.parametrize("operation", ["list_directory", "status", "unlink", "remove_directory"])
def test_a_release_that_fails_gives_the_lock_up_all_the_same(operation: str) -> None:
    model = a_depot()
    folder = ProcessFolder.create(model, "/depot")
    model.place(f"{folder.path}/0")
    model.fail_next(operation, f"{folder.path}*", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        folder.release()
    assert model.open_paths == []
    assert dead_folders(model, "/depot") == [folder.path]


def test_other_things_in_the_depot_are_no_process_folders() -> None:
    model = a_depot()
    model.place("/depot/note", b"x")
    assert dead_folders(model, "/depot") == []


def test_the_probe_of_a_dead_process_goes_when_its_folder_is_adopted() -> None:
    model = a_depot()
    model.place(f"/depot/1/{PROBE_NAME}", b"probing")
    folder = ProcessFolder.adopt(model, "/depot/1")
    assert folder is not None
    assert model.tree() == {"/depot": None, "/depot/1": None}


def snatch(model: ModelFileSystem, times: int) -> None:
    """Let another process take new folders for dead ones, each before its owner has locked it."""
    left = times

    def before(operation: Operation) -> None:
        nonlocal left
        if operation.name == "lock_directory" and left:
            left -= 1
            model.before_each = None
            other = ProcessFolder.adopt(model, operation.path)
            assert other is not None
            assert other.release()
            model.before_each = before

    model.before_each = before


def test_a_folder_lost_before_its_lock_is_made_under_another_name() -> None:
    model = a_depot()
    snatch(model, PROCESS_FOLDER_ATTEMPTS - 1)
    folder = ProcessFolder.create(model, "/depot")
    assert model.tree() == {"/depot": None, folder.path: None}


def test_a_folder_lost_again_and_again_is_an_error_that_says_so() -> None:
    model = a_depot()
    snatch(model, PROCESS_FOLDER_ATTEMPTS)
    with pytest.raises(StorageUnfitError, match="took 16 new ones for dead"):
        ProcessFolder.create(model, "/depot")


def test_a_folder_whose_name_may_not_be_durable_is_not_used() -> None:
    model = a_depot()
    model.fail_next("synchronize_directory", "/depot", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        ProcessFolder.create(model, "/depot")
    assert model.tree() == {"/depot": None}
    assert model.open_paths == []


def test_the_name_of_a_folder_is_durable_when_it_can_be_used() -> None:
    model = a_depot()

    def run(promise: Callable[[str], None]) -> None:
        promise(ProcessFolder.create(model, "/depot").path)

    moments = record(model, run)
    for moment in moments:
        for state in surviving_states(moment.model, 8, random.Random(0)):
            assert set(moment.promises) <= set(state.tree())


# Real processes


def test_the_folder_of_a_living_process_is_not_dead_and_that_of_a_killed_one_is(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        path = first_line(process)
        assert dead_folders(FILES, str(tmp_path)) == []
        assert ProcessFolder.adopt(FILES, path) is None
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert dead_folders(FILES, str(tmp_path)) == [path]
        folder = ProcessFolder.adopt(FILES, path)
        assert folder is not None
        assert len(list(Path(path).iterdir())) == 3
        assert folder.release()
    assert list(tmp_path.iterdir()) == []


def test_a_child_by_fork_does_not_keep_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    with owner(tmp_path, "fork") as process:
        assert int(first_line(process)) != process.pid
        assert dead_folders(FILES, str(tmp_path)) == []
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert len(dead_folders(FILES, str(tmp_path))) == 1  # the child lives until our pipe to it ends


def test_a_child_by_exec_does_not_keep_the_lock(tmp_path: Path) -> None:
    folder = ProcessFolder.create(FILES, str(tmp_path))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        folder.close_in_child()  # closes without unlocking
        assert dead_folders(FILES, str(tmp_path)) == [folder.path]
        assert child.stdin is not None
        child.stdin.close()
