"""The receive buffers: their number is bounded, their bytes stay while somebody needs them, nobody waits in vain."""

import threading
from queue import SimpleQueue

from stowkeeper.net.buffers import BufferPool, ReceiveBuffer
from stowkeeper.net.limits import RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS_MAX, SPARE_BUFFER_BYTES


def test_the_pool_makes_no_more_than_its_bound() -> None:
    pool = BufferPool(100, 3)
    taken = [pool.take() for _ in range(3)]
    assert all(buffer is not None and len(buffer.view) == 100 for buffer in taken)
    assert pool.take() is None
    assert len({id(buffer) for buffer in taken}) == 3


def test_the_shipped_bound_is_as_named() -> None:
    pool = BufferPool()
    buffer = pool.take()
    assert buffer is not None
    assert len(buffer.view) == RECEIVE_BUFFER_BYTES
    assert RECEIVE_BUFFER_BYTES * RECEIVE_BUFFERS_MAX == 48 * 1024 * 1024


def test_a_buffer_is_used_again_once_its_last_hold_is_gone() -> None:
    pool = BufferPool(100, 1)
    buffer = pool.take()
    assert buffer is not None
    shared = [buffer.shared]
    buffer.hold()
    shared.append(buffer.shared)
    assert shared == [False, True]
    buffer.release()
    assert pool.take() is None
    buffer.release()
    again = pool.take()
    assert again is buffer
    assert not again.shared


def test_whoever_freed_it_is_told_once() -> None:
    pool = BufferPool(100, 1)
    buffer = pool.take()
    assert buffer is not None
    told: list[int] = []
    buffer.on_free = lambda: told.append(1)
    buffer.hold()
    buffer.release()
    assert told == []
    buffer.release()
    assert told == [1]
    pool.take()
    buffer.release()
    assert told == [1]


def test_a_spare_buffer_does_not_count_and_does_not_come_back() -> None:
    pool = BufferPool(100, 1)
    assert pool.take() is not None
    spare = pool.spare()
    assert len(spare.view) == SPARE_BUFFER_BYTES
    spare.release()
    assert pool.take() is None


def test_who_waits_is_given_the_buffer_that_was_freed() -> None:
    pool = BufferPool(100, 1)
    buffer = pool.take()
    assert buffer is not None
    given: list[ReceiveBuffer] = []
    pool.wait(given.append)
    assert given == []
    buffer.release()
    assert given == [buffer]
    assert pool.take() is None


def test_who_waits_while_there_is_one_gets_it_at_once() -> None:
    pool = BufferPool(100, 2)
    given: list[ReceiveBuffer] = []
    pool.wait(given.append)
    pool.wait(given.append)
    assert len(given) == 2
    pool.wait(given.append)
    assert len(given) == 2


def test_a_buffer_passes_by_those_who_have_no_use_for_it_any_more() -> None:
    pool = BufferPool(100, 1)
    buffer = pool.take()
    assert buffer is not None
    given: list[ReceiveBuffer] = []
    for _ in range(3):
        pool.wait(ReceiveBuffer.release)  # their associations are gone
    pool.wait(given.append)
    buffer.release()
    assert given == [buffer]


def test_who_withdraws_is_passed_by_and_the_others_keep_their_order() -> None:
    pool = BufferPool(100, 1)
    buffer = pool.take()
    assert buffer is not None
    given: list[str] = []
    tickets = [pool.wait(lambda _buffer, name=name: given.append(name)) for name in "abc"]
    pool.withdraw(tickets[1])
    buffer.release()
    buffer.release()
    assert given == ["a", "c"]
    assert not pool.is_waited_for
    buffer.release()
    assert pool.take() is buffer


def test_nobody_is_waited_for_when_all_have_withdrawn() -> None:
    pool = BufferPool(100, 1)
    assert pool.take() is not None
    for ticket in [pool.wait(ReceiveBuffer.release) for _ in range(3)]:
        assert pool.is_waited_for
        pool.withdraw(ticket)
    assert not pool.is_waited_for


def test_withdrawing_what_was_given_changes_nothing() -> None:
    pool = BufferPool(100, 1)
    given: list[ReceiveBuffer] = []
    ticket = pool.wait(given.append)
    assert len(given) == 1
    later = pool.wait(given.append)
    pool.withdraw(ticket)
    given[0].release()
    assert given == [given[0]] * 2
    pool.withdraw(later)
    given[1].release()
    assert pool.take() is given[0]


def test_threads_can_release_while_the_loop_takes() -> None:
    pool = BufferPool(8, 4)
    handed: SimpleQueue[ReceiveBuffer | None] = SimpleQueue()
    given: SimpleQueue[ReceiveBuffer] = SimpleQueue()

    def work() -> None:
        while (buffer := handed.get()) is not None:
            buffer.release()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2000):
        pool.wait(given.put)
        buffer = given.get(timeout=30)
        buffer.hold()
        handed.put(buffer)
        buffer.release()
    for _ in threads:
        handed.put(None)
    for thread in threads:
        thread.join()
    assert sum(pool.take() is not None for _ in range(5)) == 4
