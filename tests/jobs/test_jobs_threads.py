"""The pool of threads: its bound, its order, work that does not end, and its own end."""

import threading
import time
import weakref
from concurrent.futures import CancelledError

import pytest

from stowkeeper.jobs.threads import Threads
from support.job_engine_thread import wait_until

SECONDS = 10.0


def test_work_is_done_and_what_it_raises_is_its_waiters() -> None:
    threads = Threads("work", 2)
    assert threads.submit(lambda: 7).result(SECONDS) == 7
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(SECONDS)
    assert threads.submit(lambda: 8).result(SECONDS) == 8
    threads.close()


def test_no_more_than_its_threads_are_at_work_and_the_others_wait_in_order() -> None:
    threads = Threads("work", 3)
    release = threading.Event()
    begun = threading.Semaphore(0)
    at_work: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> int:
        with lock:
            at_work.append(number)
        begun.release()
        release.wait(SECONDS)
        return number

    futures = [threads.submit(lambda number=number: work(number)) for number in range(10)]
    for _ in range(3):
        assert begun.acquire(timeout=SECONDS)
    assert sorted(at_work) == [0, 1, 2]
    assert not begun.acquire(blocking=False)
    release.set()
    assert [future.result(SECONDS) for future in futures] == list(range(10))
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("work-")}
    assert len(names) <= 3
    threads.close()


def test_one_thread_keeps_the_order() -> None:
    threads = Threads("one", 1)
    seen: list[int] = []
    for future in [threads.submit(lambda number=number: seen.append(number)) for number in range(100)]:
        future.result(SECONDS)
    assert seen == list(range(100))
    threads.close()


def test_work_that_does_not_end_is_replaced_up_to_a_bound() -> None:
    threads = Threads("lost", 1, lost_max=2)
    release = threading.Event()
    begun = threading.Semaphore(0)

    def hang() -> None:
        begun.release()
        release.wait(SECONDS)

    stuck = []
    for _ in range(2):
        stuck.append(threads.submit(hang))
        assert begun.acquire(timeout=SECONDS)
        assert threads.give_up(stuck[-1])
    assert threads.lost() == 2
    assert threads.submit(lambda: 7).result(SECONDS) == 7
    third = threads.submit(hang)
    assert begun.acquire(timeout=SECONDS)
    assert not threads.give_up(third)
    waiting = threads.submit(lambda: 8)
    assert not waiting.done()
    release.set()
    assert waiting.result(SECONDS) == 8
    for future in stuck:
        future.result(SECONDS)
    assert threads.give_up(stuck[0])  # it has ended
    deadline = time.monotonic() + SECONDS
    while len([each for each in threading.enumerate() if each.name.startswith("lost-")]) > 1:
        assert time.monotonic() < deadline, "threads whose place another has go on"
        time.sleep(0.01)
    assert threads.lost() == 0
    threads.close()


def test_waiting_work_can_be_cancelled_and_the_end_cancels_the_rest() -> None:
    threads = Threads("end", 1)
    release = threading.Event()
    begun = threading.Event()

    def work() -> str:
        begun.set()
        release.wait(SECONDS)
        return "done"

    at_work, cancelled, waiting = threads.submit(work), threads.submit(work), threads.submit(work)
    assert begun.wait(SECONDS)
    assert cancelled.cancel()
    threads.close()
    threads.close()
    with pytest.raises(CancelledError):
        waiting.result(SECONDS)
    with pytest.raises(RuntimeError, match="closed"):
        threads.submit(work)
    release.set()
    assert at_work.result(SECONDS) == "done"


def test_the_threads_keep_no_process_from_ending() -> None:
    threads = Threads("daemon", 1)
    threads.submit(lambda: None).result(SECONDS)
    (thread,) = [each for each in threading.enumerate() if each.name.startswith("daemon-")]
    assert thread.daemon
    threads.close()
    thread.join(SECONDS)
    assert not thread.is_alive()


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_system_that_gives_no_thread_costs_the_work_of_that_moment_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = Threads("refused", 2)
    release, begun = threading.Event(), threading.Event()
    ran: list[str] = []

    def hold() -> None:
        begun.set()
        release.wait(SECONDS)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.submit(lambda: ran.append("refused alone"))
    held = threads.submit(hold)
    assert begun.wait(SECONDS)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.submit(lambda: ran.append("refused beside another"))
    # There are two places still: one is at work, the other is made.
    assert threads.submit(lambda: "done").result(SECONDS) == "done"
    release.set()
    held.result(SECONDS)
    assert threads.submit(lambda: "done").result(SECONDS) == "done"
    assert ran == []
    threads.close()


def test_giving_work_up_where_the_system_gives_no_thread_leaves_the_rest_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = Threads("replaced", 1, lost_max=1)
    release, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(SECONDS)

    stuck = threads.submit(hang)
    assert begun.wait(SECONDS)
    waiting = threads.submit(lambda: "waited")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        assert threads.give_up(stuck)
    assert threads.submit(lambda: "next").result(SECONDS) == "next"
    assert waiting.result(SECONDS) == "waited"
    release.set()
    threads.close()


def test_a_thread_that_waits_keeps_nothing_of_its_last_work() -> None:
    class Large:
        """What work holds, and what it returns."""

    threads = Threads("forgetful", 1)
    held, returned = Large(), Large()
    seen = [weakref.ref(held), weakref.ref(returned)]

    def work(_held: Large, returned: Large) -> Large:
        return returned

    threads.submit(lambda held=held, returned=returned: work(held, returned)).result(SECONDS)
    del held, returned
    wait_until(lambda: [one() for one in seen] == [None, None], "the end of both")
    threads.close()
