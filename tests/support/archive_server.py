"""The real archive behind the real storage service and server, in this process: for tests that speak to it by socket."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stowkeeper.archive import listing
from stowkeeper.archive.archive import Archive, ArchiveOptions
from stowkeeper.archive.examine import Finding, examine
from stowkeeper.archive.ledger import RequestRecord, requests_of
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.net.server_options import ServerOptions
from stowkeeper.services.storage import Rules, StorageService
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from support.catalog_rows import open_database
from support.live_folder import files_with_content_below
from support.server_thread import OPTIONS, ServerThread, serving

IDLE_SECONDS = 30.0
RULES = Rules(ae_title="STOWKEEPER", acceptance=AcceptancePolicy(maximum_length=OPTIONS.maximum_length))
"""What a server agrees to as shipped."""


def open_archive(root: Path, *, files: FileSystem | None = None, **options: Any) -> Archive:
    """Open a small receiving archive in a new folder, without waiting for Alembic or for the disk."""
    root.mkdir(exist_ok=True)
    open_database(root).close()
    chosen: dict[str, Any] = {"sync": False, "slot_pool_size": 4, "worker_threads": 2, "reserve_size": 0}
    return Archive(str(root), ArchiveOptions(**(chosen | options)), files=files)


def settle(archive: Archive) -> None:
    """Wait until everything that was received and noted is in the catalog and the ledger."""
    assert archive.finisher.wait_until_idle(IDLE_SECONDS)


def requests(archive: Archive, association_id: str) -> list[RequestRecord]:
    """Return the ledger's lines of an association."""
    settle(archive)
    with archive.database.read() as connection:
        return requests_of(connection, association_id)


def associations(archive: Archive) -> list[dict[str, Any]]:
    """Return the ledger's associations, oldest first."""
    settle(archive)
    return list(listing.associations(archive.database))


def instances(archive: Archive) -> list[dict[str, Any]]:
    """Return the listed instances, after reading each from the medium: it is whole and fits its receipt."""
    settle(archive)
    rows = list(listing.instances(archive.database))
    for row in rows:
        examination = examine(archive.files, archive.path_of(row["path"]))
        assert examination.finding is Finding.WHOLE, examination.words
    return rows


def data_set_of(archive: Archive, row: dict[str, Any]) -> bytes:
    """Return the data set of a listed instance as it lies in its file."""
    content = Path(archive.path_of(row["path"])).read_bytes()
    examination = examine(archive.files, archive.path_of(row["path"]))
    assert examination.receipt is not None
    return content[len(content) - examination.receipt.data_set_length :]


def depot_leftovers(archive: Archive) -> list[Path]:
    """Return the depot's files that hold anything: none, when all is finished."""
    return files_with_content_below(Path(archive.root, "depot"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveServer:
    """A server on an archive, both in this process."""

    archive: Archive
    service: StorageService
    thread: ServerThread

    @property
    def port(self) -> int:
        """Return where it listens."""
        return self.thread.port


@contextlib.contextmanager
def archive_serving(
    root: Path,
    *,
    rules: Rules = RULES,
    options: ServerOptions = OPTIONS,
    archive_options: dict[str, Any] | None = None,
    **changes: Any,
) -> Iterator[ArchiveServer]:
    """Serve an archive in a folder for the length of a block."""
    archive = open_archive(root, **(archive_options or {}))
    try:
        service = StorageService(archive, rules)
        with serving(service, options=options, **changes) as thread:
            yield ArchiveServer(archive=archive, service=service, thread=thread)
    finally:
        archive.close()
