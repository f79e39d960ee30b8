"""How long to wait after failures in a row: 30 s, doubling to 10 min, then hourly."""

from stowkeeper.jobs.limits import (
    BACK_OFF_JITTER,
    BACK_OFF_SECONDS_DOUBLED,
    BACK_OFF_SECONDS_FIRST,
    BACK_OFF_SECONDS_LAST,
)

_DOUBLINGS_MAX = 32
"""More than that is past every bound, and an exponent without one would be a number without end."""


def back_off_seconds(failures: int, chance: float = 0.0) -> float:
    """Return the pause after so many failures in a row, the one just met included.

    `chance` from 0 to 1 makes it longer by up to BACK_OFF_JITTER of itself.
    """
    doubled: float = BACK_OFF_SECONDS_FIRST * 2 ** min(max(failures - 1, 0), _DOUBLINGS_MAX)
    if doubled < BACK_OFF_SECONDS_DOUBLED:
        seconds = doubled
    elif doubled < 2 * BACK_OFF_SECONDS_DOUBLED:
        seconds = BACK_OFF_SECONDS_DOUBLED
    else:
        seconds = BACK_OFF_SECONDS_LAST
    return seconds * (1 + BACK_OFF_JITTER * chance)
