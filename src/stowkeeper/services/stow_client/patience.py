"""When a server that is busy, or away, is tried again, and for how long."""

import time
from typing import Final

from stowkeeper.services.stow_client.limits import BACK_OFF_SECONDS_MAX

_DOUBLINGS_MAX: Final = 64
"""Beyond it every wait has long been the longest, and the number would grow out of its type."""


class Patience:
    """The waits of one run, which all its requests keep to. Not safe for threads.

    `first_seconds` is the first wait; each further one is twice as long, up to a bound. From the first trouble on a server
    that takes nothing is tried for `seconds_in_all`.
    """

    def __init__(self, first_seconds: float, seconds_in_all: float) -> None:
        self._first_seconds = first_seconds
        self._seconds_in_all = seconds_in_all
        self._pause_until = 0.0
        self._pauses = 0
        self._trouble_since: float | None = None

    def renew(self) -> None:
        """Know that the server has stored something."""
        self._trouble_since = None
        self._pauses = 0

    def is_worth_waiting(self, asked: float | None = None) -> bool:
        """Tell whether the server may be tried again after the next wait, of `asked` seconds if it says how long."""
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
        return now + self._next_wait(asked) <= self._trouble_since + self._seconds_in_all

    def pause(self, asked: float | None = None) -> float | None:
        """Begin a wait and return its seconds; None in the middle of one, which gets no longer by others saying the same."""
        now = time.monotonic()
        if now < self._pause_until:
            return None
        seconds = self._next_wait(asked)
        self._pauses += 1
        self._pause_until = now + seconds
        return seconds

    def seconds_left(self) -> float:
        """Return how much of the wait is left, 0 or less when it is over."""
        return self._pause_until - time.monotonic()

    def _next_wait(self, asked: float | None) -> float:
        if asked is not None:
            return asked
        return min(self._first_seconds * 2.0 ** min(self._pauses, _DOUBLINGS_MAX), BACK_OFF_SECONDS_MAX)
