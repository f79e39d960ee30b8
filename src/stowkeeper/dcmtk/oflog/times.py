"""Times as log lines and the names of log files show them."""

import re
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_MICROSECONDS: Final = 1_000_000
_MINUTE, _HOUR = 60, 3600
_NOON: Final = 12
_DAYS_IN_WEEK: Final = 7


def format_time(seconds: float, pattern: str, *, utc: bool) -> str:
    """Return a time by a pattern of strftime, which may also hold `%q` and `%Q`.

    `%q` are the milliseconds, three digits; `%Q` adds a dot and the microseconds behind them. A percent sign at the
    end is dropped.
    """
    whole, micro = divmod(int(seconds * _MICROSECONDS), _MICROSECONDS)
    milliseconds, rest = divmod(micro, 1000)
    own = {"": "", "q": f"{milliseconds:03d}", "Q": f"{milliseconds:03d}.{rest:03d}", "s": str(whole)}
    prepared = _DIRECTIVE.sub(lambda found: own.get(found[1], found[0]), pattern)
    return time.strftime(prepared, time.gmtime(whole) if utc else time.localtime(whole))


def _local(*fields: int) -> float:
    """Return the time of year, month, day, hour, minute, of which each may be one too large."""
    year, month, day, hour, minute = fields
    return time.mktime((year, month, day, hour, minute, 0, 0, 0, -1))


def _months(now: time.struct_time, step: int) -> float:
    return _local(now.tm_year, now.tm_mon + step, 1, 0, 0)


def _weeks(now: time.struct_time, step: int) -> float:
    since_sunday = (now.tm_wday + 1) % _DAYS_IN_WEEK
    return _local(now.tm_year, now.tm_mon, now.tm_mday - since_sunday + step * _DAYS_IN_WEEK, 0, 0)


def _days(now: time.struct_time, step: int) -> float:
    return _local(now.tm_year, now.tm_mon, now.tm_mday + step, 0, 0)


def _half_days(now: time.struct_time, step: int) -> float:
    half = now.tm_hour // _NOON
    return _local(now.tm_year, now.tm_mon, now.tm_mday, (half + step) * _NOON, 0)


class Schedule(Enum):
    """How often a file is put away; the value is what its name gets, for strftime."""

    MONTHLY = "%Y-%m"
    WEEKLY = "%Y-%W"
    DAILY = "%Y-%m-%d"
    TWICE_DAILY = "%Y-%m-%d-%p"
    HOURLY = "%Y-%m-%d-%H"
    MINUTELY = "%Y-%m-%d-%H-%M"

    def name_at(self, seconds: float) -> str:
        """Return what names the file of the period that a time is in."""
        return time.strftime(self.value, time.localtime(self._boundary(seconds, 0)))

    def next_start(self, seconds: float) -> float:
        """Return when the period begins that follows the one of a time, always later than that time.

        Months, weeks (from Sunday), days and half days are those of the local calendar.
        """
        start = self._boundary(seconds, 1)
        # For a midnight that the clocks skip, C libraries may give the hour before it.
        return start if start > seconds else seconds + _MINUTE

    def _boundary(self, seconds: float, step: int) -> float:
        """Return the start of the period of a time, or of the one after it.

        Hours and minutes are counted, not looked up: when clocks are put back, the calendar has some of them twice.
        """
        now = time.localtime(seconds)
        if (calendar := _CALENDAR.get(self)) is not None:
            return calendar(now, step)
        if self is Schedule.HOURLY:
            return int(seconds) - now.tm_min * _MINUTE - now.tm_sec + step * _HOUR
        return int(seconds) - now.tm_sec + step * _MINUTE


_CALENDAR: Final[Mapping[Schedule, Callable[[time.struct_time, int], float]]] = {
    Schedule.MONTHLY: _months,
    Schedule.WEEKLY: _weeks,
    Schedule.DAILY: _days,
    Schedule.TWICE_DAILY: _half_days,
}
