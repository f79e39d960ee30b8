"""A large instance whose sender has a thread of its own: it is synced on the way, beside the writing."""

import errno
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import pytest
from structlog.testing import capture_logs

from stowkeeper.archive.intake import Incoming, Intake
from stowkeeper.archive.outcome import Outcome, Refusal
from stowkeeper.durable.filesystem import FileSystem
from support.archive_rig import ArchiveRig, check_kept, check_settled
from support.catalog_rows import open_database
from support.instances import Instance, make_instance

SECONDS_MAX = 20
SYNC_EVERY = 2000
LARGE = make_instance(2, size=9000)


class HeldDisk(FileSystem):
    """A disk whose syncs of slots wait for `may_sync`, and then fail with `error`."""

    def __init__(self) -> None:
        self.may_sync = threading.Event()
        self.error: Exception | None = None
        self.syncing = threading.Semaphore(0)
        self.synced_on: list[str] = []
        self.in_use: set[int] = set()
        self.closed_while_in_use: list[int] = []

    def synchronize(self, descriptor: int) -> None:
        self.synced_on.append(threading.current_thread().name)
        self.in_use.add(descriptor)
        self.syncing.release()
        assert self.may_sync.wait(SECONDS_MAX)
        self.in_use.discard(descriptor)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        super().synchronize(descriptor)

    def close(self, descriptor: int) -> None:
        if descriptor in self.in_use:
            self.closed_while_in_use.append(descriptor)
        super().close(descriptor)


@dataclass(slots=True, kw_only=True)
class Rig:
    """An intake with real workers on a real disk."""

    disk: HeldDisk
    archive: ArchiveRig
    intake: Intake
    outcomes: "SimpleQueue[Outcome]" = field(default_factory=SimpleQueue)

    def begin(self, instance: Instance) -> Incoming:
        return self.intake.begin(instance.arrival(), self.outcomes.put, may_wait=True)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    disk = HeldDisk()
    archive = ArchiveRig(disk, open_database(tmp_path), root=str(tmp_path))
    intake = Intake(disk, archive.pool, archive.admission, archive, threads=2, sync_every=SYNC_EVERY)
    intake.start()
    yield Rig(disk=disk, archive=archive, intake=intake)
    disk.may_sync.set()
    intake.stop()


def write(incoming: Incoming, data: memoryview) -> None:
    incoming.write(data)
    incoming.flush()


def in_background(call: threading.Thread) -> threading.Thread:
    call.start()
    return call


def test_more_is_taken_while_the_disk_syncs_and_success_waits_for_all_of_it(rig: Rig) -> None:
    data = memoryview(LARGE.data)
    incoming = rig.begin(LARGE)
    write(incoming, data[:2500])
    assert rig.disk.syncing.acquire(timeout=SECONDS_MAX)
    write(incoming, data[2500:3000])  # comes back, with the sync held
    incoming.write(data[3000:])
    committing = in_background(threading.Thread(target=incoming.commit))
    assert rig.disk.synced_on[0].startswith("sync-")
    assert rig.outcomes.empty()
    rig.disk.may_sync.set()
    committing.join(SECONDS_MAX)
    outcome = rig.outcomes.get(timeout=SECONDS_MAX)
    assert outcome.receipt is not None
    assert rig.disk.synced_on[-1] == committing.name, "the last sync comes after the last byte"
    rig.archive.finish()
    check_kept(rig.archive, outcome.receipt, LARGE)
    check_settled(rig.archive)


def test_no_more_than_one_sync_of_an_instance_is_under_way(rig: Rig) -> None:
    """So what is not on the medium stays bounded, however slow that is."""
    data = memoryview(LARGE.data)
    incoming = rig.begin(LARGE)
    write(incoming, data[:2500])
    assert rig.disk.syncing.acquire(timeout=SECONDS_MAX)
    third = in_background(threading.Thread(target=write, args=(incoming, data[2500:5000])))
    assert not rig.disk.syncing.acquire(timeout=0.2)
    assert third.is_alive()
    rig.disk.may_sync.set()
    third.join(SECONDS_MAX)
    assert rig.disk.syncing.acquire(timeout=SECONDS_MAX)
    incoming.abort()


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (OSError(errno.EIO, "Input/output error"), Refusal.OUT_OF_RESOURCES),
        (RuntimeError("a defect"), Refusal.PROCESSING_FAILURE),
    ],
)
def test_a_sync_that_fails_beside_the_writing_is_final(rig: Rig, error: Exception, refusal: Refusal) -> None:
    data = memoryview(LARGE.data)
    incoming = rig.begin(LARGE)
    rig.disk.error = error
    with capture_logs():
        write(incoming, data[:2500])
        assert rig.disk.syncing.acquire(timeout=SECONDS_MAX)
        rig.disk.may_sync.set()
        incoming.write(data[2500:])
        incoming.commit()
    assert rig.outcomes.get(timeout=SECONDS_MAX).refusal is refusal
    assert rig.archive.waiting == []
    assert rig.archive.depot() == []
    assert rig.archive.admission.distrusted is isinstance(error, OSError)


def test_the_door_closes_when_the_sync_fails_and_not_when_the_sender_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = rig.begin(LARGE)
    rig.disk.error = OSError(errno.EIO, "Input/output error")
    told = threading.Event()
    distrust = rig.archive.admission.distrust

    def distrust_and_tell(words: str) -> None:
        distrust(words)
        told.set()

    monkeypatch.setattr(rig.archive.admission, "distrust", distrust_and_tell)
    with capture_logs():
        write(incoming, memoryview(LARGE.data)[:2500])
        rig.disk.may_sync.set()
        assert told.wait(SECONDS_MAX)
        incoming.abort()
    assert rig.archive.depot() == []


def test_a_sender_that_vanishes_has_its_file_closed_only_after_the_sync(rig: Rig) -> None:
    incoming = rig.begin(LARGE)
    write(incoming, memoryview(LARGE.data)[:2500])
    assert rig.disk.syncing.acquire(timeout=SECONDS_MAX)
    aborting = in_background(threading.Thread(target=incoming.abort))
    aborting.join(0.2)
    assert aborting.is_alive()
    rig.disk.may_sync.set()
    aborting.join(SECONDS_MAX)
    assert not aborting.is_alive()
    assert rig.disk.closed_while_in_use == []
    assert rig.archive.depot() == []
