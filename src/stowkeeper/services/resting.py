"""Resting while many instances arrive.

What follows arrivals (telling targets, asking rules) rests then between its portions: whoever sends them waits for
an answer, and what is to be told or asked does not go away.
"""

import time

from stowkeeper.services.limits import (
    MANY_CHANGES_A_SECOND,
    MOMENT_SECONDS,
    REST_FACTOR,
    REST_SECONDS_MAX,
)


class Rests:
    """Reckons how fast changes come, whichever process makes them, and how long to rest. For one thread at a time.

    `many_changes_a_second` is the rate from which on there are rests.
    """

    def __init__(self, many_changes_a_second: float = MANY_CHANGES_A_SECOND) -> None:
        self._many_changes_a_second = many_changes_a_second
        self._seen: tuple[int, float] | None = None
        self._changes_a_second = 0.0

    def note(self, newest_change: int) -> None:
        """Reckon from the number of the newest change of now, and of the time before, how fast they come."""
        now = time.monotonic()
        if self._seen is not None:
            before, at = self._seen
            self._changes_a_second = (newest_change - before) / max(now - at, MOMENT_SECONDS)
        self._seen = newest_change, now

    def rest_after(self, processor_seconds: float) -> float:
        """Return how many seconds to rest after a portion that took a processor so long: 0 unless many changes come."""
        if self._changes_a_second < self._many_changes_a_second:
            return 0.0
        return min(REST_FACTOR * processor_seconds, REST_SECONDS_MAX)
