"""What a running receiver costs: memory and processor time of a process and its children, from /proc (Linux)."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory in bytes, of a process and its children together."""

    resident: int
    peak_resident: int
    """The sum of each process's own highest mark."""


def family(pid: int) -> Iterator[int]:
    """Yield a process and its living descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(str(task)).split():
            yield from family(int(child))


def footprint(pid: int) -> Footprint:
    """Read VmRSS and VmHWM of a process and its children."""
    resident = peak = 0
    for member in family(pid):
        status = _read(f"/proc/{member}/status")
        resident += _kilobytes(status, "VmRSS") * 1024
        peak += _kilobytes(status, "VmHWM") * 1024
    return Footprint(resident=resident, peak_resident=peak)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process, its threads and its ended and living children have used."""
    ticks = 0
    for member in family(pid):
        fields = _read(f"/proc/{member}/stat").rpartition(")")[2].split()
        ticks += sum(int(part) for part in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / _TICKS_A_SECOND


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):  # a child or a thread that ended a moment ago
        return ""


def _kilobytes(status: str, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else 0
