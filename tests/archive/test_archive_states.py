"""The states of an instance (docs/architecture.md), walked through in any order with any fault in between.

Hypothesis drives one process after another on the model of a machine: instances come, batches are finished, versions
are removed, operations fail, the process is killed or the power is cut in the middle of whatever it does. After each
step the invariants of the design hold; at the end every promise is kept.
"""

import errno
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stowkeeper.archive import catalog
from stowkeeper.archive.examine import Finding, examine
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.removal import Removal, RemovalResult
from stowkeeper.database.engine import Database, DatabaseUnavailable, Transaction
from support.archive_rig import ArchiveRig, check_kept, check_settled
from support.catalog_rows import open_database
from support.examples import examples
from support.instances import Instance, make_instance
from support.machine_with_catalog import damage
from support.model_filesystem import ModelFileSystem, Operation, PowerCut
from support.quiet_log import quiet_log

pytestmark = pytest.mark.slow

FAULTS = (
    ("synchronize", "*/depot/*", errno.EIO),
    ("write", "*/depot/*", errno.ENOSPC),
    ("close", "*/depot/*", errno.EIO),
    ("create", "*/depot/*", errno.ENOSPC),
    ("unlink", "*/depot/*", errno.EIO),
    ("open_for_reading", "*/depot/*", errno.EMFILE),
    ("read", "*/depot/*", errno.EIO),
    ("make_directory", "*/objects/*", errno.ENOSPC),
    ("link", "*/objects/*", errno.ENOSPC),
    ("unlink", "*/objects/*", errno.EIO),
    ("link", "*/quarantine/*", errno.ENOSPC),
    ("write", "*/quarantine/*", errno.ENOSPC),
    ("unlink", "*/quarantine/*", errno.EIO),
)
FOLDERS = ("*/objects", "*/objects/*", "*/depot/*", "*/quarantine", "/archive")

NUMBERS = st.integers(0, 2)
CONTENTS = st.integers(0, 1)
STEPS = st.integers(0, 25)
SEEDS = st.integers(0, 1000)


class ArchiveStates(RuleBasedStateMachine):
    """One archive through many processes. A promise is a receipt that was answered, and what it was about."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.quiet = quiet_log()
        self.quiet.__enter__()
        self.database: Database = open_database(self.place, sync=False)
        self.promises: dict[str, tuple[Receipt, Instance]] = {}
        self.bad: set[int] = set()
        self.model = ModelFileSystem()
        self.model.place_folder("/archive")
        self.rig = self.new_process()

    def new_process(self) -> ArchiveRig:
        return ArchiveRig(self.model, self.database, slots=2, sync_every=500)

    def teardown(self) -> None:
        try:
            self.model = self.model.kill()  # without the faults that are still ordered
            self.rig = self.new_process()
            for _ in range(3):
                self.rig.recover()
                self.finish_removals()
            for receipt, instance in self.promises.values():
                check_kept(self.rig, receipt, instance)
            check_settled(self.rig, [path for path in self.rig.shelf() if self.is_bad(path)])
            assert self.rig.depot() == []
        finally:
            self.database.close()
            shutil.rmtree(self.place)
            self.quiet.__exit__(None, None, None)

    # What happens

    @rule(number=NUMBERS, content=CONTENTS, flushes=st.sampled_from((0, 0, 3)))
    def receive(self, number: int, content: int, flushes: int) -> None:
        self.rig.admission.trust(self.rig.admission.failures)
        instance = make_instance(number, content=content)
        outcome = self.rig.receive(instance, flushes=flushes)
        if outcome.receipt is not None:
            self.promises[outcome.receipt.receipt_id] = outcome.receipt, instance

    @rule(number=NUMBERS, parts=st.integers(1, 3))
    def abort(self, number: int, parts: int) -> None:
        data = make_instance(number).data
        incoming = self.rig.begin(make_instance(number), [])
        for start in range(parts):
            incoming.write(memoryview(data)[start * 200 : (start + 1) * 200])
            incoming.flush()
            self.rig.work()
        incoming.abort()
        self.rig.work()

    @rule()
    def finish(self) -> None:
        with suppress(OSError, DatabaseUnavailable):
            self.rig.finish()

    @rule()
    def recover(self) -> None:
        with suppress(OSError, DatabaseUnavailable):
            self.rig.recover()

    @rule(fault=st.sampled_from(FAULTS), after=st.integers(0, 2))
    def next_operation_fails(self, fault: tuple[str, str, int], after: int) -> None:
        operation, where, error = fault
        self.model.fail_next(operation, where, error, after=after)

    @rule(folder=st.sampled_from(FOLDERS), work=st.sampled_from(("finish", "recover")))
    def folder_sync_fails(self, folder: str, work: str) -> None:
        """The system believes the names written; the process lives to see that they were not."""
        self.model.fail_next("synchronize_directory", folder)
        getattr(self, work)()
        faults = self.model._faults
        faults[:] = [fault for fault in faults if fault.operation != "synchronize_directory"]

    @rule(committed=st.booleans())
    def commit_fails(self, committed: bool) -> None:
        write = self.database.write

        @contextmanager
        def failing() -> Iterator[Transaction]:
            if not committed:
                raise DatabaseUnavailable("it is full")
            with write() as transaction:
                yield transaction
            raise DatabaseUnavailable("its disk reports an error")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(self.database, "write", failing)
            self.finish()

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        uid = f"1.2.3.{number}"
        removal = Removal(self.model, self.rig.root, self.database)
        plan = removal.plan(uid)
        going = {
            row["receipt_id"]
            for row in self.rig.receipts()
            if row["sop_instance_uid"] == uid and row["state"] in ("kept", "superseded", "removing")
        }
        for receipt_id in going:
            self.promises.pop(receipt_id, None)
        with suppress(OSError):
            removal.carry_out(plan, "a test")

    def finish_removals(self) -> None:
        with self.database.read() as connection:
            due = catalog.due_for_removal(connection, "9")
        removal = Removal(self.model, self.rig.root, self.database)
        removal.finish([version.version_key for version in due], "", RemovalResult())

    @rule(seed=SEEDS)
    @precondition(lambda self: self.rig.shelf())
    def a_kept_file_goes_bad(self, seed: int) -> None:
        source = random.Random(seed)
        path = self.rig.path(source.choice(self.rig.shelf()))
        with suppress(OSError):
            receipt = examine(self.model, path).receipt
            if receipt is None:
                return
            damage(self.model, path, source.randrange(1500, self.model.status(path).size))
            self.bad.add(self.model.status(path).inode)
            bad = {receipt.receipt_id}
            for row in self.rig.receipts():
                if self.rig.path(row["path"]) == path:
                    bad.add(row["receipt_id"])
            for receipt_id in bad:
                self.promises.pop(receipt_id, None)

    def is_bad(self, path: str) -> bool:
        return self.model.status(self.rig.path(path)).inode in self.bad

    # The end of a process

    @rule()
    def kill(self) -> None:
        self.model = self.model.kill()
        self.rig = self.new_process()

    @rule(seed=SEEDS)
    def cut_power(self, seed: int) -> None:
        self.model = self.model.crash(random.Random(seed))
        self.rig = self.new_process()

    @rule(steps=STEPS, seed=SEEDS, work=st.sampled_from(("finish", "recover", "receive", "remove")))
    def cut_power_in_the_middle(self, steps: int, seed: int, work: str) -> None:
        self.stopped_after(steps, work, seed)
        self.cut_power(seed)

    @rule(steps=STEPS, seed=SEEDS, work=st.sampled_from(("finish", "recover", "receive", "remove")))
    def kill_in_the_middle(self, steps: int, seed: int, work: str) -> None:
        self.stopped_after(steps, work, seed)
        self.kill()

    def stopped_after(self, steps: int, work: str, seed: int) -> None:
        left = [steps]

        def look(_: Operation) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise PowerCut

        works: dict[str, Callable[[], None]] = {
            "finish": self.finish,
            "recover": self.recover,
            "receive": lambda: self.receive(number=seed % 3, content=seed % 2, flushes=seed % 4),
            "remove": lambda: self.remove(number=seed % 3),
        }
        self.model.before_each = look
        with suppress(PowerCut):
            works[work]()
        self.model.before_each = None

    # What holds after each step

    @invariant()
    def what_was_promised_survives_the_worst_power_cut(self) -> None:
        survived = self.model.crash(lambda _: False)
        whole = set()
        for path, content in survived.tree().items():
            if content and path.startswith(("/archive/depot/", "/archive/objects/")):
                found = examine(survived, path)
                if found.finding is Finding.WHOLE and found.receipt is not None:
                    whole.add((found.receipt.sop_instance_uid, found.receipt.digest))
        for receipt, _ in self.promises.values():
            assert (receipt.sop_instance_uid, receipt.digest) in whole, receipt.receipt_id

    @invariant()
    def a_row_always_has_its_file(self) -> None:
        survived = self.model.crash(lambda _: False).tree()
        for row in self.rig.versions():
            if row["state"] in ("kept", "superseded"):
                assert self.rig.path(row["path"]) in survived, row["path"]
                assert self.rig.path(row["path"]) in self.model.tree(), row["path"]

    @invariant()
    def a_receipt_comes_once(self) -> None:
        assert set(self.rig.received_changes().values()) <= {1}


TestArchiveStates = ArchiveStates.TestCase
TestArchiveStates.settings = settings(
    max_examples=examples(60),
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
