"""What a rebuild reads by: files in the order they arrived in, and a few of them ahead."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from stowkeeper.archive.arrival_order import ArrivalOrder
from stowkeeper.archive.limits import (
    ARRIVALS_PER_RUN,
    HANDFUL_BYTES,
    HANDFUL_FILES,
    READ_AHEAD_FILES,
    READER_THREADS,
)
from stowkeeper.archive.read_ahead import _handfuls, map_ahead


def places(count: int) -> Iterator[tuple[str, str]]:
    for number in range(count):
        yield f"{number * 7919 % count:06}", f"objects/{number}\n\udcff"


@pytest.mark.slow
def test_names_come_in_their_order_however_many_there_are() -> None:
    assert ARRIVALS_PER_RUN == 100_000
    for per_run in (1, 7, 1000):
        with ArrivalOrder(per_run=per_run) as order:
            for place, path in places(500):
                order.add(place, path)
            assert list(order) == [path for _, path in sorted(places(500))]


def test_runs_are_read_across_the_blocks_they_are_read_in() -> None:
    with ArrivalOrder(per_run=9000) as order:
        for place, path in places(9000):
            order.add(place, path)
        assert len(list(itertools.islice(order, 10_000))) == 9000


# Reading ahead.


def test_results_come_in_the_order_of_the_items_and_errors_are_results() -> None:
    assert (READER_THREADS, READ_AHEAD_FILES) == (4, 64)
    first_may_end = threading.Event()

    def read(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(60)
        if number == 1:
            first_may_end.set()
        if number == 5:
            raise PermissionError(number)
        return number * number

    found = dict(map_ahead(read, range(10), threads=2))
    assert list(found) == list(range(10))
    assert isinstance(found.pop(5), PermissionError)
    assert found == {number: number * number for number in range(10) if number != 5}


def test_no_more_is_begun_than_the_bound_says() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_ahead(lambda number: number, items(), ahead=7)
    for number in range(20):
        assert next(results) == (number, number)
        assert len(taken) == number + 8
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(taken) == 27


def test_what_is_no_error_of_the_disk_is_raised() -> None:
    def fail(number: int) -> int:
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        list(map_ahead(fail, range(3)))


# Light ones together.


def test_light_items_go_to_a_thread_together_and_heavy_ones_alone() -> None:
    assert (HANDFUL_FILES, HANDFUL_BYTES) == (8, 256 << 10)
    weights = [1] * 20 + [HANDFUL_BYTES] * 3 + [HANDFUL_BYTES // 2] * 4 + [1]
    handfuls = [len(some) for some in _handfuls(list(enumerate(weights)), lambda item: item[1])]
    assert handfuls == [8, 8, 5, 1, 1, 2, 2, 1]


def test_light_items_come_in_their_order_with_their_own_errors() -> None:
    def read(number: int) -> int:
        if number % 5 == 0:
            raise PermissionError(number)
        return number

    found = list(map_ahead(read, range(50), weigh=lambda _number: 1))
    assert [number for number, _ in found] == list(range(50))
    for number, result in found:
        assert isinstance(result, PermissionError) if number % 5 == 0 else result == number


def test_no_more_light_items_are_begun_than_the_bound_says() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_ahead(lambda number: number, items(), ahead=16, weigh=lambda _number: 1)
    for expected in range(100):
        assert next(results)[0] == expected
        assert len(taken) <= expected + 1 + 16 + 2 * HANDFUL_FILES
    results.close()  # type: ignore[attr-defined]  # it is a generator
