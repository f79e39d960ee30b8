"""Rates by client address."""

import pytest

from stowkeeper.web.throttling import RateLimit, client_of


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(per_second=2, burst=3, clock=clock)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.take("b") == 0
    clock.now = 0.25
    assert limit.take("a") == 0.25
    clock.now = 0.5
    assert limit.take("a") == 0
    assert limit.wait("a") == 0.5
    clock.now = 100.0
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_looking_costs_nothing() -> None:
    limit = RateLimit(per_second=1, burst=1, clock=Clock())
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 0]
    assert limit.take("a") == 0
    assert limit.wait("a") == 1


def test_those_not_heard_of_are_forgotten_first() -> None:
    limit = RateLimit(per_second=0.001, burst=2, clients_max=2, clock=Clock())
    assert [limit.take(client) for client in ("a", "b", "a")] == [0, 0, 0]
    assert limit.take("c") == 0  # "b" goes: "a" was let in after it
    assert limit.take("a") > 0
    assert [limit.take("b") for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_who_counts_as_one_client(address: str, client: str) -> None:
    assert client_of(address) == client
