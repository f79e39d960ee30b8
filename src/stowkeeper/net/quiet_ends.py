"""What happens again and again from one address, and has to be logged now and then only."""

import threading
import time
from collections.abc import Callable
from typing import Final

from stowkeeper.net.limits import QUIET_ENDS_ADDRESSES_MAX, QUIET_ENDS_REPORT_SECONDS


class QuietEnds:
    """Counts by address, and says when to log: the first time, and then once in QUIET_ENDS_REPORT_SECONDS.

    Used from any thread. An address that is not heard of any more costs a place until others need it.
    """

    def __init__(self, time_now: Callable[[], float] = time.monotonic) -> None:
        self._time: Final = time_now
        self._lock: Final = threading.Lock()
        self._seen: Final[dict[str, tuple[float, int]]] = {}

    def count(self, address: str) -> int:
        """Take note of one more; return how many there were since the last line, 0 where no line is due."""
        now = self._time()
        with self._lock:
            logged_at, waiting = self._seen.pop(address, (float("-inf"), 0))
            waiting += 1
            is_due = now - logged_at >= QUIET_ENDS_REPORT_SECONDS
            self._seen[address] = (now, 0) if is_due else (logged_at, waiting)
            while len(self._seen) > QUIET_ENDS_ADDRESSES_MAX:
                del self._seen[next(iter(self._seen))]
        return waiting if is_due else 0
