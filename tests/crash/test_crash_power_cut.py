"""A power cut at every step of an instance's path, and any subset of what was not synced survives.

Each scenario runs once on the model of a machine. Before each of its operations the power is cut in many ways; a new
process then starts on what is left, recovers, and every promise given before the cut is checked: what was
acknowledged is listed, whole, and holds its bytes; nothing half-written is visible; rows and files belong together.
"""

import errno
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from blake3 import blake3

from stowkeeper.archive.outcome import Refusal
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.removal import Removal
from stowkeeper.archive.shelf import names_of
from stowkeeper.database.engine import DatabaseUnavailable, Transaction
from support.archive_rig import ArchiveRig, check_kept, check_settled
from support.instances import HANGING_PROTOCOL_STORAGE, Instance, make_instance
from support.machine_with_catalog import (
    MachineWithCatalog,
    NoSyncMachine,
    any_cut,
    damage,
    once_each,
    running_rig,
)
from support.model_filesystem import ModelFileSystem, Operation, PowerCut
from support.power_cuts import check_power_cuts

pytestmark = pytest.mark.slow

Promise = tuple[Receipt, Instance]
Promising = Callable[[Promise], None]
Scenario = Callable[[ArchiveRig, Promising], None]


def recovered(
    machine: MachineWithCatalog, promises: tuple[Promise, ...], ignored: tuple[str, ...] = ()
) -> None:
    """Start a new process after a power cut, recover, and check every promise."""
    with running_rig(machine, slots=1) as rig:
        rig.recover()
        for receipt, instance in promises:
            check_kept(rig, receipt, instance)
        check_settled(rig, ignored)
        assert rig.depot() == []


def cut_everywhere(
    machine: MachineWithCatalog, scenario: Scenario, *, states: int = 16, seed: int = 1
) -> int:
    """Run a scenario and check what is left after a power cut at each of its steps; return how many states differed."""
    seen: set[object] = set()

    def check(state: ModelFileSystem, promises: tuple[Promise, ...]) -> None:
        assert isinstance(state, MachineWithCatalog)
        state_of_all = state.print(), promises
        if state_of_all not in seen:
            seen.add(state_of_all)
            recovered(state, promises, (DAMAGED_PATH,) if scenario is a_repair else ())

    with running_rig(machine) as rig:
        check_power_cuts(machine, lambda promise: scenario(rig, promise), check, states=states, seed=seed)
    return len(seen)


def keep(
    rig: ArchiveRig, promise: Promising, instance: Instance, *, flushes: int = 0, may_wait: bool = False
) -> None:
    promise((rig.keep(instance, flushes=flushes, may_wait=may_wait), instance))


# The scenarios


def arrivals(rig: ArchiveRig, promise: Promising) -> None:
    """Small, large and empty-handed arrivals, finished in two batches: new, identical, and another version."""
    first, large = make_instance(1), make_instance(2, size=4000, series="1.2.10.2")
    keep(rig, promise, first)
    keep(rig, promise, large, flushes=4)
    keep(rig, promise, first)
    rig.finish()
    keep(rig, promise, make_instance(1, content=1))
    keep(rig, promise, large)
    keep(rig, promise, make_instance(6, size=4000), flushes=4, may_wait=True)
    rig.finish()


def unfinished_arrivals(rig: ArchiveRig, promise: Promising) -> None:
    """Instances that are given up on the way: by the sender, and for what they hold."""
    outcomes: list[object] = []
    incoming = rig.begin(make_instance(3, size=4000), [])
    for start in range(0, 3000, 1000):
        incoming.write(memoryview(make_instance(3, size=4000).data)[start : start + 1000])
        incoming.flush()
        rig.work()
    keep(rig, promise, make_instance(4))
    incoming.abort()
    rig.work()
    wrong = Instance(sop_instance_uid="1.2.3.99", data=make_instance(5, size=4000).data)
    assert rig.receive(wrong, flushes=2).refusal is Refusal.DOES_NOT_MATCH
    keep(rig, promise, make_instance(5))
    rig.finish()
    assert outcomes == []


def failing_syncs(rig: ArchiveRig, promise: Promising) -> None:
    """The sync of an instance fails: a small one's, and a large one's first and last."""
    model = rig.files
    assert isinstance(model, MachineWithCatalog)
    turns = [(0, 0, False), (4, 0, False), (4, 2, False), (4, 0, True), (4, 2, True)]
    for number, (flushes, after, may_wait) in enumerate(turns, 1):
        keep(rig, promise, make_instance(10 * number))
        model.fail_next("synchronize", f"{rig.folder.path}/*", after=after)
        refused = make_instance(10 * number + 1, size=4000)
        outcome = rig.receive(refused, flushes=flushes, may_wait=may_wait)
        assert outcome.refusal is Refusal.OUT_OF_RESOURCES
        assert rig.admission.distrusted
        assert rig.admission.trust(rig.admission.failures)
        keep(rig, promise, refused, may_wait=may_wait)
    rig.finish()


def failing_folder_syncs(rig: ArchiveRig, promise: Promising) -> None:
    """The sync of each folder on the way to the shelf fails once, and the batch is finished later."""
    model = rig.files
    assert isinstance(model, MachineWithCatalog)
    for number, folder in enumerate(("objects", "objects/1.2.2", "objects/1.2.3/1.2.3.1"), 1):
        study = f"1.2.{number}"
        keep(rig, promise, make_instance(number, study=study, series=f"{study}.1"))
        keep(rig, promise, make_instance(10 + number, study=study, series=f"{study}.2"))
        model.fail_next("synchronize_directory", rig.path(folder))
        with pytest.raises(OSError, match="Input/output error"):
            rig.finish()
        rig.finish()
    keep(rig, promise, make_instance(20, study="1.2.3", series="1.2.3.1"))
    rig.finish()


def failing_commits(rig: ArchiveRig, promise: Promising) -> None:
    """The catalog cannot be written; then a commit reports an error, and was durable all the same."""
    keep(rig, promise, make_instance(1))
    keep(rig, promise, make_instance(2))
    write = rig.database.write

    def refuse() -> None:
        raise DatabaseUnavailable("it is full")

    @contextmanager
    def commit_and_fail() -> Iterator[Transaction]:
        with write() as transaction:
            yield transaction
        raise DatabaseUnavailable("its disk reports an error")

    for fault in (refuse, commit_and_fail):
        with patch.object(rig.database, "write", fault), pytest.raises(DatabaseUnavailable):
            rig.finish()
        keep(rig, promise, make_instance(1))
        rig.finish()
        keep(rig, promise, make_instance(3))
    rig.finish()


def folders_of_others(rig: ArchiveRig, promise: Promising) -> None:
    """A removal takes the folders away, and another process that makes them again never comes to sync them."""
    rig.keep(make_instance(1))
    rig.finish()
    removal = Removal(rig.files, rig.root, rig.database)
    removal.carry_out(removal.plan("1.2.3.1"), "a test")
    for folder in ("objects/1.2.10", "objects/1.2.10/1.2.10.1"):
        assert rig.files.make_directory(rig.path(folder))
    keep(rig, promise, make_instance(2))
    rig.finish()


def names_that_stay(rig: ArchiveRig, promise: Promising) -> None:
    """After a failed folder sync not even the names can be taken back at once."""
    model = rig.files
    assert isinstance(model, MachineWithCatalog)
    keep(rig, promise, make_instance(1))
    keep(rig, promise, make_instance(2, series="1.2.10.2"))
    model.fail_next("link", "*/1.2.10.2/*", errno.ENOSPC)
    model.fail_next("synchronize_directory", rig.path("objects/1.2.10"))
    model.fail_next("unlink", rig.path("objects/*"), times=3)
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output error"):
            rig.finish()
    assert rig.finish() == []


REPAIRED = make_instance(1)
DAMAGED_PATH = "objects/1.2.10/1.2.10.1/" + next(names_of("1.2.3.1", blake3(REPAIRED.data).hexdigest()))


def a_repair(rig: ArchiveRig, promise: Promising) -> None:
    """A kept file goes bad, and a re-send of the same instance takes its place."""
    model = rig.files
    assert isinstance(model, MachineWithCatalog)
    rig.keep(REPAIRED)
    keep(rig, promise, make_instance(2))
    rig.finish()
    damage(model, rig.path(path_of(rig, make_instance(1))), 1800)
    keep(rig, promise, make_instance(1))
    rig.finish()
    keep(rig, promise, make_instance(1))
    rig.finish()


def a_clean_stop(rig: ArchiveRig, promise: Promising) -> None:
    """Everything is finished and the process folder goes."""
    keep(rig, promise, make_instance(1))
    keep(rig, promise, make_instance(2, study="", sop_class_uid=HANGING_PROTOCOL_STORAGE))
    rig.finish()
    rig.pool.remove_free(10)
    assert rig.folder.release()


SCENARIOS = (
    arrivals,
    unfinished_arrivals,
    failing_syncs,
    failing_folder_syncs,
    failing_commits,
    folders_of_others,
    names_that_stay,
    a_repair,
    a_clean_stop,
)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_was_acknowledged_survives_a_power_cut_at_any_step(scenario: Scenario) -> None:
    assert cut_everywhere(MachineWithCatalog(), scenario) > 20


def test_without_syncs_a_power_cut_loses_what_was_acknowledged() -> None:
    """The proof above sees what it has to see."""
    with pytest.raises((AssertionError, OSError)) as caught:
        cut_everywhere(NoSyncMachine(), arrivals)
    assert "lost:" in "\n".join(caught.value.__notes__)


@pytest.mark.parametrize(
    "names",
    [
        "/archive/depot/[^/]+/[^/]+",
        "/archive/objects/[^/]+/[^/]+",
        "/archive/objects/[^/]+",
        "/archive/objects",
        "/archive/depot/[^/]+",
        "/archive/depot",
    ],
)
def test_no_sync_can_be_left_out(names: str) -> None:
    """Each sync of the path is there for something: without it the same scenarios lose."""

    class Forgetful(MachineWithCatalog):
        def synchronize(self, descriptor: int) -> None:
            if not re.fullmatch(names, self._opened(descriptor).path):
                super().synchronize(descriptor)

        def synchronize_directory(self, path: str) -> None:
            if not re.fullmatch(names, path):
                super().synchronize_directory(path)

    with pytest.raises((AssertionError, OSError)) as caught:
        cut_everywhere(Forgetful(), arrivals)
    assert "lost:" in "\n".join(caught.value.__notes__)


def test_recovery_is_cut_off_at_any_step_and_done_again() -> None:
    """Whatever recovery had done when the power went a second time, the next one finishes."""
    machine = MachineWithCatalog()
    promises: list[Promise] = []
    with running_rig(machine) as rig:
        instances = [make_instance(1), make_instance(2, size=3000), make_instance(3, study="1.2.11")]
        promises += [(rig.keep(instance), instance) for instance in instances]
        rig.finish()
        older, identical, other = make_instance(1), make_instance(2, size=3000), make_instance(3, content=1)
        damage(machine, rig.path(path_of(rig, older)), 1800)
        promises[0:1] = [(rig.keep(older), older)]
        promises += [(rig.keep(instance), instance) for instance in (identical, other)]
        rig.begin(make_instance(4), []).flush()
        unanswered = rig.begin(make_instance(5, size=3000), [])
        unanswered.write(memoryview(make_instance(5, size=3000).data)[:2000])
        unanswered.flush()
        rig.work()
    states = [machine.crash(lambda _: True), machine.crash(lambda _: False), any_cut(machine, seed=7)]
    states.append(machine.kill())
    for state in states:
        checked = check_recovery_cut(state, tuple(promises))
        assert checked > 20


def recovering(rig: ArchiveRig) -> Callable[[Callable[[Promise], None]], None]:
    """Return what recovers, and promises nothing of its own."""

    def recover(_: Callable[[Promise], None]) -> None:
        rig.recover()

    return recover


def check_recovery_cut(machine: MachineWithCatalog, promises: tuple[Promise, ...]) -> int:
    """Recover on a machine with a power cut at each step, and check what a second recovery makes of it."""
    seen: set[object] = set()

    def check(state: ModelFileSystem, _: tuple[Promise, ...]) -> None:
        assert isinstance(state, MachineWithCatalog)
        if state.print() not in seen:
            seen.add(state.print())
            recovered(state, promises)

    with running_rig(machine, slots=1) as rig:
        check_power_cuts(machine, recovering(rig), check, states=8, seed=3)
    return len(seen)


@pytest.mark.parametrize("died_before", ["unlink", "remove_directory"])
@pytest.mark.parametrize("folder", ["objects", "objects/1.2.10", "objects/1.2.10/1.2.10.1"])
@pytest.mark.parametrize("dead", [1, 2])
def test_after_failed_folder_syncs_and_deaths_recovery_makes_all_names_anew(
    dead: int, folder: str, died_before: str
) -> None:
    """Of one process, or of two that shared a folder: neither came to take back the names in doubt."""
    machine = MachineWithCatalog()
    promises: list[Promise] = []

    def die(operation: Operation) -> None:
        if operation.name == died_before and operation.path.startswith("/archive/objects/"):
            raise PowerCut

    for number in range(dead):
        with running_rig(machine) as rig:
            instances = [make_instance(2 * number + 1), make_instance(2 * number + 2)]
            promises += [(rig.keep(instance), instance) for instance in instances]
            machine.fail_next("synchronize_directory", rig.path(folder))
            machine.before_each = die
            with pytest.raises(PowerCut):
                rig.finish()
        machine = machine.kill()
    assert [change for change in machine.unsynced() if change.abandoned]
    assert check_recovery_cut(machine, tuple(promises)) > 10


@pytest.mark.parametrize("folder", ["objects", "objects/1.2.10", "objects/1.2.10/1.2.10.1"])
def test_after_a_failed_folder_sync_and_a_death_whoever_comes_next_trusts_no_name(folder: str) -> None:
    """Also who does not recover: the dead one's folders would take the newcomer's instances along."""
    machine = MachineWithCatalog()

    def die(operation: Operation) -> None:
        if operation.name in {"unlink", "remove_directory"}:
            raise PowerCut

    with running_rig(machine) as rig:
        dead = (rig.keep(make_instance(1)), make_instance(1))
        machine.fail_next("synchronize_directory", rig.path(folder))
        machine.before_each = die
        with pytest.raises(PowerCut):
            rig.finish()
    machine = machine.kill()

    def newcomer(rig: ArchiveRig) -> Callable[[Promising], None]:
        def run(promise: Promising) -> None:
            promise(dead)
            keep(rig, promise, make_instance(2))
            rig.finish()

        return run

    with running_rig(machine) as rig:
        checked = check_power_cuts(machine, newcomer(rig), once_each(recovered), states=8, seed=5)
    assert checked > 20


@pytest.mark.parametrize("folder", ["objects", "objects/1.2.10", "objects/1.2.10/1.2.10.1"])
def test_a_folder_sync_that_fails_for_one_of_two_processes_loses_neither_one_s_instances(folder: str) -> None:
    """The system tells one of them alone, just while the other is about to put its own into the same folder."""
    machine = MachineWithCatalog()
    with running_rig(machine) as one:
        other = ArchiveRig(machine, one.database)
        promises = (
            (one.keep(make_instance(1)), make_instance(1)),
            (other.keep(make_instance(2)), make_instance(2)),
        )
        waits = threading.Event()

        def beside(operation: Operation) -> None:
            if threading.current_thread() is thread:
                if operation.name in {"lock_directory", "synchronize_directory"}:
                    waits.set()
            elif (operation.name, operation.path) == ("synchronize_directory", one.path(folder)):
                if not thread.is_alive() and not waits.is_set():
                    thread.start()
                assert waits.wait(30)

        thread = threading.Thread(target=other.finish)
        machine.before_each = beside
        machine.fail_next("synchronize_directory", one.path(folder))
        with pytest.raises(OSError, match="Input/output error"):
            one.finish()
        thread.join()
        assert one.finish() == []
        machine.before_each = None
        assert other.waiting == []
    for choose in (lambda _: False, lambda change: change.operation == "unlink", lambda _: True):
        recovered(machine.crash(choose), promises)


def test_a_suspect_depot_file_is_never_lost_by_a_cut() -> None:
    """An answered instance that went bad in the depot goes to quarantine, and there its bytes stay."""
    machine = MachineWithCatalog()
    with running_rig(machine) as rig:
        receipt = rig.keep(make_instance(1))
        (path,) = rig.depot()
        damage(machine, rig.path(path), 1800)
        evidence = machine.content(rig.path(path))
    stopped = machine.crash(lambda _: True)

    @once_each
    def check(state: MachineWithCatalog, _: tuple[object, ...]) -> None:
        with running_rig(state, slots=1) as again:
            again.recover()
            (kept,) = again.quarantine()
            assert state.content(again.path(kept)) == evidence
            assert again.depot() == []
            assert again.versions() == []

    with running_rig(stopped, slots=1) as rig:
        assert receipt.receipt_id not in {row["receipt_id"] for row in rig.versions()}
        assert check_power_cuts(stopped, recovering(rig), check, states=16) > 20


def path_of(rig: ArchiveRig, instance: Instance) -> str:
    """Return the path of the instance's one version."""
    (path,) = (row["path"] for row in rig.versions() if row["sop_instance_uid"] == instance.sop_instance_uid)
    return str(path)
