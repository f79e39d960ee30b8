"""The policy `refuse` while versions of one instance come at the same moment: one is kept, the others are refused."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.archive.first_versions import FirstVersions
from stowkeeper.archive.outcome import Outcome, Refusal, Refused
from stowkeeper.archive.receipt import Receipt
from stowkeeper.durable.filesystem import FileSystem
from support.archive_rig import ArchiveRig
from support.catalog_rows import open_database
from support.instances import Instance, make_instance

SECONDS_MAX = 30.0
REFUSING = DuplicatePolicy.REFUSE


class HeldDisk(FileSystem):
    """A real disk whose first sync of a file comes to an end when it is let go, and by an error where there is one."""

    __slots__ = ("begun", "error", "held", "let_go")

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()
        self.held = True
        self.error: OSError | None = None

    def synchronize(self, descriptor: int) -> None:
        if self.held:
            self.held = False
            self.begun.set()
            assert self.let_go.wait(SECONDS_MAX)
            if self.error is not None:
                raise self.error
        super().synchronize(descriptor)


@pytest.fixture
def disk() -> HeldDisk:
    return HeldDisk()


@pytest.fixture
def rig(tmp_path: Path, disk: HeldDisk) -> ArchiveRig:
    disk.held = False
    made = ArchiveRig(disk, open_database(tmp_path, sync=False), root=str(tmp_path))
    disk.held = True
    return made


class CountedVersions(FirstVersions):
    """Lets the disk go when so many have asked."""

    def __init__(self, rig: ArchiveRig, disk: HeldDisk, count: int) -> None:
        super().__init__(rig.kept_contents)
        self._disk = disk
        self._left = count

    def admit(self, receipt: Receipt, policy: DuplicatePolicy) -> AbstractContextManager[None]:
        self._left -= 1
        if not self._left:
            self._disk.let_go.set()
        return super().admit(receipt, policy)


def received_together(rig: ArchiveRig, disk: HeldDisk, *instances: Instance) -> list[Outcome]:
    """Have the first one in its sync while the others come, one after another; return the outcomes in the same order."""
    rig.intake.first_versions = CountedVersions(rig, disk, len(instances))
    with ThreadPoolExecutor(len(instances)) as threads:
        futures: list[Future[Outcome]] = []
        for instance in instances:
            futures.append(threads.submit(rig.receive, instance, may_wait=True))
            assert disk.begun.wait(SECONDS_MAX)
        return [future.result(SECONDS_MAX) for future in futures]


def test_of_versions_that_come_together_one_is_kept(rig: ArchiveRig, disk: HeldDisk) -> None:
    versions = [make_instance(1, content=number).under_policy(REFUSING) for number in range(3)]
    same, elsewhere = versions[0], make_instance(2).under_policy(REFUSING)
    outcomes = received_together(rig, disk, *versions, same)
    assert [outcome.refusal for outcome in outcomes] == [None, Refusal.DUPLICATE, Refusal.DUPLICATE, None]
    rig.keep(elsewhere)
    rig.finish()
    assert len(rig.versions()) == 2


def test_another_instance_does_not_wait(rig: ArchiveRig, disk: HeldDisk) -> None:
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(rig.receive, make_instance(1).under_policy(REFUSING), may_wait=True)
        assert disk.begun.wait(SECONDS_MAX)
        rig.keep(make_instance(2).under_policy(REFUSING))
        disk.let_go.set()
        assert first.result(SECONDS_MAX).refusal is None


def test_where_the_first_one_fails_the_second_one_is_kept(rig: ArchiveRig, disk: HeldDisk) -> None:
    disk.error = OSError(5, "Input/output error")
    rig.admission.distrust = lambda _words: None  # type: ignore[method-assign]  # the door stays open for the second
    versions = [make_instance(1, content=number).under_policy(REFUSING) for number in range(2)]
    outcomes = received_together(rig, disk, *versions)
    assert [outcome.refusal for outcome in outcomes] == [Refusal.OUT_OF_RESOURCES, None]


def test_nobody_waits_for_ever(rig: ArchiveRig, disk: HeldDisk) -> None:
    disk.held = False
    first_versions = FirstVersions(lambda _uid: set(), seconds_max=0.0)
    made = rig.keep(make_instance(1))
    with first_versions.admit(made, REFUSING):
        with pytest.raises(Refused) as caught, first_versions.admit(made, REFUSING):
            pass
        assert caught.value.refusal is Refusal.OUT_OF_RESOURCES
        with first_versions.admit(made, DuplicatePolicy.KEEP):
            pass
    with first_versions.admit(made, REFUSING):
        pass
