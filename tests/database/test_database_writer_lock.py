"""The writer lock: one at a time, in turns, given back by the dead."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stowkeeper.database.errors import DatabaseUnavailable
from stowkeeper.database.writer_lock import WriterLock

HOLDER = """
import sys
from stowkeeper.database.writer_lock import WriterLock
with WriterLock(sys.argv[1]).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.lock")


def test_another_thread_waits_and_says_so_when_it_is_too_long(path: str) -> None:
    lock = WriterLock(path, seconds=0.01)
    failures: list[str] = []

    def wait() -> None:
        try:
            with lock.held():
                pass
        except DatabaseUnavailable as error:
            failures.append(str(error))

    with lock.held():
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join()
    assert len(failures) == 1
    assert "another thread of this process" in failures[0]
    with lock.held():
        pass
    lock.close()


def test_another_process_waits_and_says_so_when_it_is_too_long(path: str) -> None:
    mine, other = (
        WriterLock(path),
        WriterLock(path, seconds=0.01),
    )  # another descriptor, as in another process
    with (
        mine.held(),
        pytest.raises(DatabaseUnavailable, match="another process has been writing"),
        other.held(),
    ):
        pass
    with other.held():
        pass
    mine.close()
    other.close()


def turn_is_taken(path: str) -> bool:
    with open(f"{path}.turn") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_whoever_waits_is_next_though_the_holder_asks_again_at_once(path: str) -> None:
    greedy, patient = WriterLock(path), WriterLock(path)
    done = threading.Event()

    def wait() -> None:
        with patient.held():
            done.set()

    waiting = threading.Thread(target=wait)
    with greedy.held():
        waiting.start()
        while not turn_is_taken(path):
            pass
        assert not done.is_set()
    with greedy.held():
        assert done.is_set()
    waiting.join()
    greedy.close()
    patient.close()


def test_the_same_thread_is_told_that_it_would_wait_for_itself(path: str) -> None:
    lock = WriterLock(path)
    with lock.held(), pytest.raises(RuntimeError, match="inside a write transaction"), lock.held():
        pass
    lock.close()


def test_an_error_inside_gives_it_back(path: str) -> None:
    lock, other = WriterLock(path), WriterLock(path, seconds=0)
    with pytest.raises(ZeroDivisionError), lock.held():
        _ = 1 / 0
    with other.held():
        pass
    lock.close()
    other.close()


def test_its_files_stay_and_are_not_inherited(path: str) -> None:
    lock = WriterLock(path)
    assert not any(os.get_inheritable(descriptor) for descriptor in (lock._lock, lock._turn))
    lock.close()
    assert os.path.exists(path)
    assert os.path.exists(path + ".turn")


@pytest.mark.slow
def test_the_dead_hold_nothing(path: str) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    lock = WriterLock(path, seconds=0.02)
    with pytest.raises(DatabaseUnavailable), lock.held():
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with lock.held():
        pass
    lock.close()
