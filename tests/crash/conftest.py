"""What the crash tests share: a quiet log, and a place for archives whose syncs prove nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.quiet_log import quiet_log

MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 1 << 30


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_log():
        yield


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory where there is room: a kill loses nothing that was written, and nobody waits for a disk."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_BYTES_MIN:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="crash-") as folder:
        yield Path(folder)
