"""The parts of an archive put together on any file system, and run step by step on the calling thread.

The real intake, slots, shelf, finisher and recovery, without their threads: a test says when an instance comes,
when a batch is finished and when recovery looks, and can stop or fail any step in between.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import text

from stowkeeper.archive import catalog, listing
from stowkeeper.archive.admission import Admission, DiskMarks
from stowkeeper.archive.arrival import Content, Received, content_of
from stowkeeper.archive.examine import Finding, examine
from stowkeeper.archive.finisher import Finisher
from stowkeeper.archive.intake import Incoming, Intake
from stowkeeper.archive.outcome import Outcome
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.recovery import Recovery, RecoveryCounts
from stowkeeper.archive.sync_ahead import SyncAhead, SyncThreads
from stowkeeper.database.engine import Database, DatabaseUnavailable, Transaction
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.process_folder import ProcessFolder
from stowkeeper.durable.slots import SlotPool
from support.catalog_rows import open_database
from support.instances import Instance
from support.model_filesystem import ModelFileSystem

ROOT = "/archive"
NO_MARKS = DiskMarks(instance_bytes=0, association_bytes=0, instance_inodes=0, association_inodes=0)


class ArchiveView:
    """An archive to look at: its files in the folder `root`, and its catalog."""

    def __init__(self, files: FileSystem, database: Database, root: str = ROOT) -> None:
        self.files = files
        self.database = database
        self.root = root

    def path(self, relative: str) -> str:
        """Return the absolute path of a name in the archive."""
        return f"{self.root}/{relative}"

    def versions(self) -> list[dict[str, Any]]:
        """Return every listed version, oldest first."""
        return list(listing.instances(self.database, all_versions=True))

    def receipts(self) -> list[dict[str, Any]]:
        """Return every finished receipt."""
        return list(listing.receipts(self.database))

    def received_changes(self) -> dict[str, int]:
        """Return how many change rows tell of each receipt's coming."""
        query = text(
            "SELECT receipt_id, count(*) FROM changes JOIN receipts USING (receipt_key)"
            " WHERE kind = 'received' GROUP BY receipt_id"
        )
        with self.database.read() as connection:
            return {receipt_id: count for receipt_id, count in connection.execute(query)}  # noqa: C416 - rows, no pairs

    def shelf(self) -> list[str]:
        """Return the paths of all files on the shelf, relative to the archive."""
        return _files_under(self.files, self.root, "objects")

    def depot(self) -> list[str]:
        """Return the paths of all depot files that hold something, relative to the archive."""
        return [
            path
            for path in _files_under(self.files, self.root, "depot")
            if self.files.status(self.path(path)).size
        ]

    def quarantine(self) -> list[str]:
        """Return the paths of all files in quarantine but the notes, relative to the archive."""
        try:
            found = _files_under(self.files, self.root, "quarantine")
        except FileNotFoundError:
            return []
        return [path for path in found if not path.endswith(".txt")]


class SyncsAtOnce(SyncThreads):
    """Does each sync when it is handed over."""

    def put(self, sync: SyncAhead) -> None:
        """Sync."""
        sync.run()


class ArchiveRig(ArchiveView):
    """One process of an archive in the folder `root`, which exists; `database` is its catalog.

    `waiting` holds what intake handed over and no batch has finished yet.
    """

    def __init__(
        self,
        files: FileSystem,
        database: Database,
        *,
        root: str = ROOT,
        slots: int = 3,
        sync_every: int = 1500,
        uncatalogued_max: int = 100,
        marks: DiskMarks = NO_MARKS,
    ) -> None:
        super().__init__(files, database, root)
        self.waiting: list[Received] = []
        self.failures: list[OSError | DatabaseUnavailable] = []
        for name in ("objects", "depot"):
            files.make_directory(f"{root}/{name}")
        files.synchronize_directory(root)
        self.folder = ProcessFolder.create(files, f"{root}/depot")
        self.pool = SlotPool(files, self.folder.path, size=slots)
        self.pool.fill()
        self.admission = Admission(
            files,
            root,
            marks,
            uncatalogued_max=uncatalogued_max,
            clock=lambda: 0.0,
        )
        self.finisher = Finisher(
            files,
            root,
            database,
            on_disk_failure=self.failures.append,
            on_listed=self.admission.leave,
        )
        self.intake = Intake(files, self.pool, self.admission, self, threads=0, sync_every=sync_every)
        self.intake.syncs = SyncsAtOnce(0)
        self.recovery = Recovery(files, root, f"{root}/depot", self.finisher)

    # What intake needs of a finisher.

    def submit(self, received: Received) -> None:
        """Take over a synced instance, for `finish`."""
        self.waiting.append(received)

    def kept_contents(self, sop_instance_uid: str) -> set[Content]:
        """Ask the catalog and what waits."""
        receipts = [received.receipt for received in self.waiting]
        waiting = {content_of(found) for found in receipts if found.sop_instance_uid == sop_instance_uid}
        return waiting | self.finisher.kept_contents(sop_instance_uid)

    # What a test does.

    def begin(self, instance: Instance, outcomes: list[Outcome], *, may_wait: bool = False) -> Incoming:
        """Begin to receive; the outcome goes into the list."""
        return self.intake.begin(instance.arrival(), outcomes.append, may_wait=may_wait)

    def work(self) -> None:
        """Do what was handed to intake's workers."""
        while not self.intake.queue.empty():
            work = self.intake.queue.get()
            assert work is not None
            work.run()

    def receive(self, instance: Instance, *, flushes: int = 0, may_wait: bool = False) -> Outcome:
        """Receive an instance; with `flushes`, as a large one that comes in so many parts and one more."""
        outcomes: list[Outcome] = []
        incoming = self.begin(instance, outcomes, may_wait=may_wait)
        for piece in split(instance.data, flushes + 1)[:-1]:
            incoming.write(memoryview(piece))
            incoming.flush()
            self.work()
        incoming.write(memoryview(split(instance.data, flushes + 1)[-1]))
        incoming.commit()
        self.work()
        (outcome,) = outcomes
        return outcome

    def keep(self, instance: Instance, *, flushes: int = 0, may_wait: bool = False) -> Receipt:
        """Receive an instance that must be kept, and return its receipt."""
        outcome = self.receive(instance, flushes=flushes, may_wait=may_wait)
        assert outcome.receipt is not None, outcome
        return outcome.receipt

    def finish(self) -> list[Received]:
        """Finish all that waits; what cannot be finished waits again, and is returned.

        Raises what `Finisher.finish` raises, and then all of it waits again.
        """
        batch, self.waiting = self.waiting, []
        try:
            left = self.finisher.finish(batch)
        except BaseException:
            self.waiting = batch + self.waiting
            raise
        self.waiting += left
        self.admission.leave(len(batch) - len(left))
        return left

    def recover(self) -> RecoveryCounts:
        """Look after the folders of dead processes."""
        return self.recovery.run()


def split(data: bytes, count: int) -> list[bytes]:
    """Cut bytes into pieces of about one size."""
    step = max(-(-len(data) // count), 1)
    return [data[start : start + step] for start in range(0, len(data), step)] or [b""]


def model_rig(place: Path, model: ModelFileSystem | None = None, **options: Any) -> ArchiveRig:
    """Return a rig on a model file system, with its catalog in the real folder `place`."""
    model = model or ModelFileSystem()
    model.place_folder(ROOT)
    return ArchiveRig(model, open_database(place, sync=False), **options)


def check_kept(rig: ArchiveView, receipt: Receipt, instance: Instance) -> None:
    """Check that an acknowledged instance is listed, and that its version's file is whole and holds its bytes.

    Where that file went bad since, another version that was kept has to hold the same bytes.
    """
    with rig.database.read() as connection:
        version = catalog.find_version_by_receipt(connection, receipt.receipt_id)
        assert version is not None, f"{receipt.receipt_id} is not listed"
        if version.state == "damaged":
            others = catalog.find_versions(connection, [receipt.sop_instance_uid])[receipt.sop_instance_uid]
            version = next((v for v in others if v.state == "kept" and v.content == version.content), version)
    assert version.state == "kept", f"{receipt.receipt_id} is {version.state}"
    path = rig.path(version.path)
    examination = examine(rig.files, path)
    assert examination.finding is Finding.WHOLE, f"{version.path}: {examination.words}"
    assert examination.receipt is not None
    assert examination.receipt.receipt_id == version.receipt_id
    assert read_all(rig.files, path).endswith(instance.data)
    assert version.content == (receipt.digest, receipt.sop_class_uid, receipt.transfer_syntax_uid)


def check_settled(rig: ArchiveView, ignored: Sequence[str] = ()) -> None:
    """Check what must hold whenever nothing is in progress.

    Every name on the shelf leads to a whole file and has its row, every row that says so has its file, no inode has
    two names there, and each receipt came once. Names in `ignored` (relative) are left out, and those of versions
    that are being removed or are damaged.
    """
    rows = rig.versions()
    versions = {row["path"]: row for row in rows if row["state"] in ("kept", "superseded")}
    leaving = {row["path"] for row in rows} - set(versions)
    shelf = set(rig.shelf()) - leaving - set(ignored)
    assert shelf - set(versions) == set(), "files without a row"
    assert set(versions) - shelf - set(ignored) == set(), "rows without a file"
    inodes = set()
    for path in shelf:
        examination = examine(rig.files, rig.path(path))
        assert examination.finding is Finding.WHOLE, f"{path}: {examination.words}"
        assert examination.receipt is not None
        assert examination.receipt.receipt_id == versions[path]["receipt_id"], path
        inodes.add(rig.files.status(rig.path(path)).inode)
    assert len(inodes) == len(shelf), "an inode has two names on the shelf"
    changes = rig.received_changes()
    assert set(changes.values()) <= {1}, "a receipt came twice"
    assert set(changes) == {row["receipt_id"] for row in rig.receipts()}


def read_all(files: FileSystem, path: str) -> bytes:
    """Read a whole file."""
    descriptor = files.open_for_reading(path)
    try:
        return files.read(descriptor, files.status(path).size, 0)
    finally:
        files.close(descriptor)


def _files_under(files: FileSystem, root: str, relative: str) -> list[str]:
    found = []
    for entry in files.list_directory(f"{root}/{relative}"):
        path = f"{relative}/{entry.name}"
        found += _files_under(files, root, path) if entry.is_directory else [path]
    return sorted(found)


@contextmanager
def catalog_fails(rig: ArchiveRig, *, times: int = 1, error: Exception | None = None) -> Iterator[list[int]]:
    """Let the next write transactions fail; the list counts them."""
    write = rig.database.write
    failed: list[int] = []

    @contextmanager
    def failing() -> Iterator[Transaction]:
        if len(failed) < times:
            failed.append(1)
            raise error or DatabaseUnavailable("the disk is full")
        with write() as transaction:
            yield transaction

    with patch.object(rig.database, "write", failing):
        yield failed
