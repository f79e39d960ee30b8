"""Facts about the machine that a table of speeds means nothing without."""

import os
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path

from support.peers import SEARCH_PATH

SYNC_SAMPLES = 100
SYNC_BYTES = 8192


def facts(folder: Path) -> dict[str, str]:
    """Return names and values; the file system and the sync are those of `folder`."""
    return {
        "processor": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": file_system(folder),
        f"write of {SYNC_BYTES} bytes and fdatasync, median": f"{sync_microseconds(folder):.0f} µs",
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        **{name: _package(name) for name in ("stowkeeper", "uvloop", "blake3", "pydicom", "pynetdicom")},
        "DCMTK storescp": _program("storescp", r"v(\S+)"),
        "Orthanc": _program("Orthanc", r"Orthanc (\S+)"),
        "C compiler": _program("cc", r"(.+)"),
    }


def file_system(folder: Path) -> str:
    """Return the type of the file system that a folder lies on (Linux), or `unknown`."""
    found, kind = "", "unknown"
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, type_, *_ = line.split()
            if folder.resolve().is_relative_to(point) and len(point) >= len(found):
                found, kind = point, type_
    return kind


def sync_microseconds(folder: Path) -> float:
    """Return the median time of writing a small file and syncing its data, in microseconds."""
    times = []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for index in range(SYNC_SAMPLES):
            descriptor = os.open(f"{scratch}/{index}", os.O_WRONLY | os.O_CREAT, 0o600)
            start = time.perf_counter()
            os.write(descriptor, os.urandom(SYNC_BYTES))
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - start)
            os.close(descriptor)
    return statistics.median(times) * 1e6


def _first(pattern: str, path: Path) -> str | None:
    found = re.search(pattern, path.read_text()) if path.exists() else None
    return found[1].strip() if found else None


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "run from its source" if name == "stowkeeper" else "absent"


def _program(name: str, pattern: str) -> str:
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        return "absent"
    output = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(pattern, output)
    return found[1].strip() if found else "unknown"
