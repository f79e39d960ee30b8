"""Names of files, put into the order in which the files were received, in little memory.

A rebuilt catalog lists instances as the lost one did. Names come folder by folder, their order in time stands
in their receipts, and an archive can have more of them than memory should hold: so they are sorted in runs on
disk, which are merged while they are read.
"""

import heapq
import os
import tempfile
from collections.abc import Iterator
from typing import IO, Self

from stowkeeper.archive.limits import ARRIVALS_PER_RUN

Arrival = tuple[str, str]
"""What sorts (time received, receipt id), and the path of a file."""

_SEPARATOR = b"\0"  # no path has it in it


class ArrivalOrder:
    """Takes paths with their places in time, and gives them back in that order. To be closed.

    The runs are files without a name in the system's temporary folder. They hold paths, hence UIDs, and no
    patient data.
    """

    def __init__(self, *, per_run: int = ARRIVALS_PER_RUN) -> None:
        self._per_run = per_run
        self._waiting: list[Arrival] = []
        self._runs: list[IO[bytes]] = []

    def add(self, place: str, path: str) -> None:
        """Take a path. Raises OSError when a run cannot be written."""
        self._waiting.append((place, path))
        if len(self._waiting) >= self._per_run:
            self._write_run()

    def __iter__(self) -> Iterator[str]:
        """Yield the paths in the order of their places."""
        self._waiting.sort()
        runs = [_read_run(run) for run in self._runs]
        for _, path in heapq.merge(self._waiting, *runs):
            yield path

    def close(self) -> None:
        """Let the runs go."""
        for run in self._runs:
            run.close()
        self._runs.clear()
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_run(self) -> None:
        run = tempfile.TemporaryFile(prefix="stowkeeper-")  # noqa: SIM115 - it stays open until close
        self._runs.append(run)
        for place, path in sorted(self._waiting):
            run.write(os.fsencode(place) + _SEPARATOR + os.fsencode(path) + _SEPARATOR)
        run.flush()
        self._waiting.clear()


def _read_run(run: IO[bytes]) -> Iterator[Arrival]:
    """Yield what a run holds. A path may hold any byte but NUL, so lines would not do."""
    run.seek(0)
    rest = b""
    while block := run.read(1 << 16):
        *fields, rest = (rest + block).split(_SEPARATOR)
        if len(fields) % 2:
            rest = fields.pop() + _SEPARATOR + rest
        for place, path in zip(fields[::2], fields[1::2], strict=True):
            yield os.fsdecode(place), os.fsdecode(path)
