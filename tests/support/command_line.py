"""Run the commands of `stowkeeper` as a person does, on archives that hold a few instances."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

import stowkeeper
from stowkeeper.app.commands import run
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.dicom.part10 import PREFIX, encode_file_meta
from stowkeeper.durable.filesystem import NoSyncFileSystem
from support.archive_rig import ArchiveRig
from support.catalog_rows import open_database
from support.instances import Instance
from support.processes import WITHOUT_HTTP, Program, running

SOURCE = Path(stowkeeper.__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it printed as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        """The numbers in its last JSON line."""
        numbers: dict[str, Any] = self.lines[-1]["summary"]
        return numbers


class CommandLine:
    """Runs commands in this process, on one archive."""

    def __init__(self, archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.archive = archive
        self._capsys = capsys

    def __call__(self, command: str, *arguments: str | Path) -> Ended:
        """Run a command on the archive; that of a group is two words."""
        configuration = structlog.get_config()
        self._capsys.readouterr()
        try:
            code = run([*command.split(), "--archive", str(self.archive), *map(str, arguments)])
        finally:
            structlog.configure(**configuration)
        out, err = self._capsys.readouterr()
        return Ended(code=code, out=out, err=err)

    def list(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what `ls` lists."""
        ended = self("ls", *arguments, "--json")
        assert ended.code == 0, ended.err
        return ended.lines

    def path_of(self, sop_instance_uid: str) -> Path:
        """Return the file of an instance."""
        (row,) = [row for row in self.list("instances") if row["sop_instance_uid"] == sop_instance_uid]
        return Path(self.archive, row["path"])


def keep(archive: Path, *instances: Instance) -> None:
    """Keep instances in an archive, one after the other; make it if there is none."""
    archive.mkdir(parents=True, exist_ok=True)
    with open_database(archive, sync=False) as database:
        rig = ArchiveRig(NoSyncFileSystem(), database, root=str(archive), slots=len(instances) + 1)
        for instance in instances:
            rig.keep(instance)
            rig.finish()
        rig.folder.release()
    ArchiveReader(str(archive)).close()  # which gives a new one its identity


def write_part10(
    path: Path, instance: Instance, *, transfer_syntax: bool = True, uid: str | None = None
) -> Path:
    """Write an instance as a DICOM file; `uid` is what its file meta information names instead."""
    elements = [
        (0x00020001, b"OB", b"\0\1"),
        (0x00020002, b"UI", instance.sop_class_uid.encode()),
        (0x00020003, b"UI", (instance.sop_instance_uid if uid is None else uid).encode()),
    ]
    if transfer_syntax:
        elements.append((0x00020010, b"UI", instance.transfer_syntax_uid.encode()))
    elements.append((0x00020016, b"AE", b"SOMEBODY"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PREFIX + encode_file_meta(elements) + instance.data)
    return path


def program(*arguments: str | Path) -> list[str]:
    """Return the command line that runs `stowkeeper` as a program of its own."""
    return [sys.executable, "-m", "stowkeeper", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return the environment in which `program` finds the package."""
    return {**WITHOUT_HTTP, **os.environ, "PYTHONPATH": str(SOURCE)}


@contextmanager
def serving(archive: Path, log: Path, *arguments: str) -> Iterator[tuple[Program, int]]:
    """Run a real server on an archive; gives the program and its port."""
    argv = program("serve", "--archive", archive, "--port", "0", *arguments)
    with running("stowkeeper", argv, log=log, environment=environment(), from_scratch=False) as server:
        server.wait_until(lambda: "stowkeeper ready" in server.log_text(), "before it was ready")
        (ready,) = [line for line in server.log_text().splitlines() if line.startswith("stowkeeper ready")]
        yield server, int(ready.split("dicom=127.0.0.1:")[1].split()[0])
