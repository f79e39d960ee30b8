"""`stowkeeper serve` as a process of its own, as a user starts it: settings in a file, one line when it is ready."""

import contextlib
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stowkeeper.archive import listing
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.examine import Finding, examine
from support.processes import Program, running

_READY = re.compile(
    r"^stowkeeper ready dicom=(\S+):(\d+) aet=(\S+)(?: http=\S+)? archive=(.+)$", re.MULTILINE
)
FEW_SLOTS = {"STOWKEEPER_STORAGE__SLOT_POOL_SIZE": "16"}
"""Making and removing thousands of slots would be most of what such a test costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A running server that has said that it is ready."""

    program: Program
    archive: Path
    port: int

    def log_text(self) -> str:
        """Return what it has printed and logged so far."""
        return self.program.log_text()

    def wait_for_log(self, words: str) -> None:
        """Wait until its log says something."""
        self.program.wait_until(lambda: words in self.log_text(), f"before it said {words!r}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.program.process.send_signal(number)

    def wait(self, seconds: float = 30.0) -> int:
        """Wait for its end and return its exit code."""
        return self.program.process.wait(seconds)

    def resident_bytes(self) -> int:
        """Return how much memory it has in use now (Linux)."""
        status = Path(f"/proc/{self.program.pid}/status").read_text(encoding="ascii")
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


@contextlib.contextmanager
def serve_process(
    folder: Path,
    *arguments: str,
    settings: str = "",
    environment: Mapping[str, str] | None = None,
    from_scratch: bool = False,
) -> Iterator[ServerProcess]:
    """Start a server on a free port, with its archive in `folder/archive`, for the length of a block.

    From scratch with an interpreter of its own, where a test is about its start or its memory.
    """
    config = folder / "stowkeeper.toml"
    config.write_text(settings, encoding="utf-8")
    archive = folder / "archive"
    argv = [sys.executable, "-m", "stowkeeper", "serve", "--config", str(config), "--archive", str(archive)]
    argv += ["--port", "0", *arguments]
    chosen = {**FEW_SLOTS, **(environment or {})}
    log = folder / "serve.log"
    with running("stowkeeper", argv, log=log, environment=chosen, from_scratch=from_scratch) as program:
        program.wait_until(lambda: _READY.search(program.log_text()) is not None, "before its ready line")
        found = _READY.search(program.log_text())
        assert found is not None
        yield ServerProcess(program=program, archive=archive, port=int(found[2]))


@contextlib.contextmanager
def looking_into(archive: Path) -> Iterator[ArchiveReader]:
    """Open an archive for looking, beside its server or without one."""
    reader = ArchiveReader(str(archive))
    try:
        yield reader
    finally:
        reader.close()


def kept_instances(archive: Path) -> dict[str, dict[str, Any]]:
    """Return the listed instances by their UID, after reading each from the medium: it fits its receipt."""
    with looking_into(archive) as reader:
        rows = {row["sop_instance_uid"]: row for row in listing.instances(reader.database)}
        for row in rows.values():
            examination = examine(reader.files, reader.path_of(row["path"]))
            assert examination.finding is Finding.WHOLE, examination.words
    return rows


def association_rows(archive: Path) -> list[dict[str, Any]]:
    """Return the ledger's associations, oldest first."""
    with looking_into(archive) as reader:
        return list(listing.associations(reader.database))
