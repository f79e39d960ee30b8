"""Who is told of events, and in which way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from stowkeeper.services.events.feed import Event, EventKind


class DeliveryError(Exception):
    """An event could not be delivered this time; the text says why, without patient data.

    `again_in_seconds` is what the target itself asked for, None where it did not.
    """

    def __init__(self, words: str, again_in_seconds: float | None = None) -> None:
        super().__init__(words)
        self.again_in_seconds = again_in_seconds


class Way(Protocol):
    """How events get to a target. Used by one thread at a time; one is made for each thread that delivers."""

    def deliver(self, event: Event, is_over: Callable[[], bool]) -> None:
        """Deliver an event; the same one may come a second time. Raises DeliveryError.

        `is_over` is asked now and then: when it says so, nobody waits for the delivery any more.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds open."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTarget:
    """Somebody who is told of events of some kinds.

    `open_way` opens a way to it. `at_once` is how many events it may get at the same time, always of different studies. After
    `give_up_hours` of failing for one event, that one is passed by and said in the log.
    """

    name: str
    kinds: frozenset[EventKind]
    open_way: Callable[[], Way]
    at_once: int = 4
    give_up_hours: float = 72.0


Targets = Callable[[], Mapping[str, EventTarget]]
"""Returns the targets of the settings in force, by name."""
