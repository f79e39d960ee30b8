"""What must be found in an archive after its servers died, whoever looks."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from stowkeeper.archive.verification import Verification
from stowkeeper.durable.filesystem import FileSystem
from support.archive_rig import ArchiveView, check_settled, read_all
from support.catalog_rows import open_database
from support.instances import Instance
from support.live_folder import files_with_content_below

SECONDS_MAX = 30.0
POLL_SECONDS = 0.01


@contextmanager
def looking(archive: Path) -> Iterator[ArchiveView]:
    """Look into an archive, beside its servers or without one."""
    with open_database(archive, sync=False) as database:
        yield ArchiveView(FileSystem(), database, str(archive))


def check_acknowledged(archive: Path, acknowledged: Sequence[Instance]) -> None:
    """Check that everything acknowledged is listed, whole and verified, and that nothing half-written is visible.

    Nothing may be in progress.
    """
    with looking(archive) as view:
        rows = {(row["sop_instance_uid"], row["digest"]): row for row in view.versions()}
        receipts = Counter((row["sop_instance_uid"], row["digest"]) for row in view.receipts())
        sent = Counter(map(content_of, acknowledged))
        for instance in set(acknowledged):
            content = content_of(instance)
            assert content in rows, f"{instance.sop_instance_uid} was acknowledged and is not listed"
            assert receipts[content] >= sent[content], f"{instance.sop_instance_uid} lacks a receipt"
            row = rows[content]
            assert row["state"] == "kept"
            assert read_all(view.files, view.path(row["path"])).endswith(instance.data)
        check_settled(view)
        assert view.quarantine() == []
        found = list(Verification(view.files, view.root, view.database).run())
        assert found == []


def content_of(instance: Instance) -> tuple[str, str]:
    """Return what tells an instance and its bytes from all others."""
    return instance.sop_instance_uid, blake3(instance.data).hexdigest()


def depot_folders(archive: Path) -> list[Path]:
    """Return the folders of processes in the depot."""
    return sorted((archive / "depot").iterdir()) if (archive / "depot").is_dir() else []


def depot_files(archive: Path) -> list[Path]:
    """Return the files in the depot that hold anything."""
    return files_with_content_below(archive / "depot")


def until(condition: Callable[[], bool], seconds: float = SECONDS_MAX) -> None:
    """Wait for what another process does; it has no other way to tell."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(POLL_SECONDS)
