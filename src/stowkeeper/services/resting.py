"""Resting while many instances arrive and processors are wanted.

What follows arrivals (telling targets, asking rules) rests then between its portions: whoever sends them waits for
an answer, and what is to be told or asked does not go away.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from stowkeeper.services.limits import (
    BUSY_FROM,
    BUSY_FULLY,
    MANY_ARRIVALS_A_SECOND,
    MOMENT_SECONDS,
    REST_FACTOR,
    REST_SECONDS_MAX,
    RESTS_WINDOW_SECONDS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """How much had arrived at a time, and what processors had done until then for others than those who rest, in seconds."""

    at: float
    arrived: int
    for_others: float


class Rests:
    """Reckons how busy this process is with others than those who rest, and how long these rest. For any thread.

    `arrived` tells how many instances this process has taken in so far. One object is for all who rest: what one of them takes makes no
    other rest.
    """

    def __init__(
        self,
        arrived: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        processor_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._arrived = arrived
        self._clock = clock
        self._processor_clock = processor_clock
        self._lock = threading.Lock()
        self._spent = 0.0
        self._samples = deque([self._sample()])

    def rest_after(self, processor_seconds: float) -> float:
        """Return how many seconds to rest after a portion that took a processor so long: 0 unless much else is to be done."""
        with self._lock:
            self._spent += processor_seconds
            now = self._sample()
            samples = self._samples
            while len(samples) > 1 and samples[1].at <= now.at - RESTS_WINDOW_SECONDS:
                samples.popleft()
            before = samples[0]
            if now.at >= samples[-1].at + MOMENT_SECONDS:
                samples.append(now)
        seconds = max(now.at - before.at, MOMENT_SECONDS)
        if now.arrived - before.arrived < MANY_ARRIVALS_A_SECOND * seconds:
            return 0.0
        busy = (now.for_others - before.for_others) / seconds
        wanted = min(max(busy - BUSY_FROM, 0.0) / (BUSY_FULLY - BUSY_FROM), 1.0)
        return min(wanted * REST_FACTOR * processor_seconds, REST_SECONDS_MAX)

    def _sample(self) -> _Sample:
        return _Sample(
            at=self._clock(), arrived=self._arrived(), for_others=self._processor_clock() - self._spent
        )
