"""A few at a time, and who has waited longest is next."""

import threading

from stowkeeper.services.turns import Turns
from support.job_engine_thread import wait_until

SECONDS_MAX = 20


def test_who_waits_is_next_even_where_the_last_one_comes_again_at_once() -> None:
    turns = Turns(1)
    order: list[str] = []

    def wait_for_one() -> None:
        with turns:
            order.append("waited")

    waiting = threading.Thread(target=wait_for_one, daemon=True)
    for number in range(3):
        with turns:
            if not number:
                waiting.start()
                wait_until(lambda: bool(turns._waiting), "the other to wait")
            order.append("again")
    waiting.join(SECONDS_MAX)
    assert order == ["again", "waited", "again", "again"]


def test_only_so_many_are_inside() -> None:
    turns = Turns(2)
    inside, most = 0, 0
    lock = threading.Lock()

    def come_and_go() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns:
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=come_and_go, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS_MAX)
    assert (inside, most <= 2) == (0, True)
    with turns, turns:  # all places are free again
        pass
