"""Whether the clock is sane: receipts, reports and certificates go by it."""

import datetime as dt
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import stowkeeper
from stowkeeper.app.doctor.finding import Finding, failure, ok, warning
from stowkeeper.app.doctor.limits import CLOCK_AHEAD_SECONDS, CLOCK_STEP_SECONDS, TIMEDATECTL_SECONDS

CLOCK = "clock"

_SET = "sudo timedatectl set-ntp true"


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment by two clocks, in seconds: the one that is set, and the one that only runs."""

    real: float
    monotonic: float

    @classmethod
    def now(cls) -> "Instant":
        """Look at both."""
        return cls(time.time(), time.monotonic())


def check_clock(
    began: Instant, now: Instant, newest_receipt_at: str | None, installed_at: float | None
) -> Iterator[Finding]:
    """Judge the clock by what cannot be in the future, and by how it went since the doctor began.

    `newest_receipt_at` is UTC in ISO 8601, None where nothing was received; `installed_at` is seconds since 1970.
    """
    shown = _text(now.real)
    if installed_at is not None and now.real < installed_at:
        yield failure(
            CLOCK,
            f"it is {shown} by the clock, and this program was installed on {_text(installed_at)}",
            _SET,
        )
        return
    if newest_receipt_at is not None:
        newest = dt.datetime.fromisoformat(newest_receipt_at).timestamp()
        if newest > now.real + CLOCK_AHEAD_SECONDS:
            yield failure(
                CLOCK,
                f"it is {shown} by the clock, and the newest receipt is of {_text(newest)}, in the future",
                _SET,
            )
            return
    step = (now.real - began.real) - (now.monotonic - began.monotonic)
    if abs(step) > CLOCK_STEP_SECONDS:
        yield warning(
            CLOCK, f"the clock jumped by {step:+.1f} s while the doctor looked", "timedatectl timesync-status"
        )
        return
    yield ok(CLOCK, f"it is {shown}, later than all that was received")


def installed_at() -> float | None:
    """Return when this program came onto this machine, in seconds since 1970; None where that is not told."""
    try:
        return os.stat(stowkeeper.__file__).st_mtime
    except (OSError, TypeError):
        return None


def check_time_service(program: str | None = None) -> Iterator[Finding]:
    """Ask the system whether something keeps its clock right. `program` stands in for `timedatectl`."""
    found = shutil.which(program or "timedatectl")
    said = "" if found is None else _ask(found)
    if said == "yes":
        yield ok(CLOCK, "the clock is kept right by NTP")
    elif said == "no":
        yield warning(CLOCK, "nothing keeps the clock right: it is not synchronized by NTP", _SET)
    else:
        yield ok(
            CLOCK, "whether something keeps the clock right cannot be told here: timedatectl does not answer"
        )


def _ask(program: str) -> str:
    try:
        ended = subprocess.run(  # noqa: S603 - a program of the system, without anything of a stranger's
            [program, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=TIMEDATECTL_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""


def _text(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
