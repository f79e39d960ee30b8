"""How long to rest while many instances arrive and processors are wanted."""

from dataclasses import dataclass, field

import pytest

from stowkeeper.services.resting import Rests


@dataclass
class Machine:
    """A process whose clocks stand still until they are told: the time, what arrived, and what processors did in all."""

    seconds: float = 1000.0
    arrived: int = 5_000_000
    busy: float = 300.0
    rests: Rests = field(init=False)

    def __post_init__(self) -> None:
        self.rests = Rests(
            lambda: self.arrived, clock=lambda: self.seconds, processor_clock=lambda: self.busy
        )

    def goes_on(self, seconds: float, *, arrivals_a_second: float, busy: float) -> None:
        """Let time pass, in which so many instances arrive, and so many processors are busy."""
        self.seconds += seconds
        self.arrived += round(arrivals_a_second * seconds)
        self.busy += busy * seconds


@pytest.mark.parametrize(
    ("portion", "arrivals_a_second", "busy", "rest"),
    [
        (0.05, 1000, 0.85, 3.2),
        (0.05, 1000, 3.0, 3.2),
        (0.05, 1000, 0.6, 1.6),  # half way: half of it
        (0.05, 1000, 0.3, 0.0),  # there is a processor for both
        (0.05, 100, 0.85, 3.2),
        (0.05, 99, 0.85, 0.0),  # something else is being done
        (0.0, 1000, 0.85, 0.0),
        (60.0, 1000, 0.85, 5.0),
    ],
)
def test_a_rest_is_as_long_as_the_work_was_dear_and_processors_are_wanted(
    portion, arrivals_a_second, busy, rest
):
    machine = Machine()
    machine.goes_on(1.0, arrivals_a_second=arrivals_a_second, busy=busy)
    machine.busy += portion
    assert machine.rests.rest_after(portion) == pytest.approx(rest)


def test_the_work_of_those_who_rest_makes_no_other_rest():
    machine = Machine()
    for _ in range(20):
        machine.goes_on(0.5, arrivals_a_second=300, busy=0.3)
        machine.busy += 0.25
        assert machine.rests.rest_after(0.25) == 0.0


def test_of_what_was_long_ago_nothing_is_known():
    machine = Machine()
    machine.goes_on(2.0, arrivals_a_second=1000, busy=1.0)
    assert machine.rests.rest_after(0.01) == pytest.approx(0.64)
    machine.goes_on(2.0, arrivals_a_second=0, busy=0.0)
    assert machine.rests.rest_after(0.01) == 0.0
    machine.goes_on(2.0, arrivals_a_second=1000, busy=1.0)
    assert machine.rests.rest_after(0.01) == pytest.approx(0.64)


def test_some_instances_at_one_moment_are_no_flood():
    machine = Machine()
    machine.goes_on(0.001, arrivals_a_second=4000, busy=100.0)  # reckoned over a moment 80 a second
    assert machine.rests.rest_after(0.1) == 0.0
