"""Intake: an instance is kept after one sync or refused with a reason, and nothing of a refused one is left."""

import errno
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from stowkeeper.archive.admission import DiskMarks
from stowkeeper.archive.arrival import Arrival
from stowkeeper.archive.examine import Finding, examine
from stowkeeper.archive.intake import Incoming
from stowkeeper.archive.outcome import Outcome, Refusal
from stowkeeper.archive.receipt import EMPTY_RECEIPT
from stowkeeper.durable.filesystem import FileSystem
from support.archive_rig import ArchiveRig, check_settled, model_rig, read_all
from support.archive_server import instances as instances_of
from support.archive_server import open_archive, settle
from support.catalog_rows import open_database
from support.examples import examples
from support.instances import Instance, make_instance
from support.model_filesystem import ModelFileSystem, Operation

SMALL = make_instance(1)
LARGE = make_instance(2, size=9000)


@pytest.fixture
def model() -> ModelFileSystem:
    return ModelFileSystem()


@pytest.fixture
def rig(tmp_path: Path, model: ModelFileSystem) -> ArchiveRig:
    made = model_rig(tmp_path, model)
    model.log.clear()
    return made


def steps(model: ModelFileSystem) -> list[str]:
    """Return the operations on depot files since the rig was made."""
    return [done.name for done in model.log if done.path.count("/") == 4]


def in_parts(rig: ArchiveRig, instance: Instance, outcomes: list[Outcome], parts: int) -> Incoming:
    """Send an instance but for its end, in so many parts."""
    incoming = rig.begin(instance, outcomes)
    for start in range(parts):
        incoming.write(memoryview(instance.data)[start * 1000 : (start + 1) * 1000])
        incoming.flush()
        rig.work()
    return incoming


# What is kept


def test_a_small_instance_takes_one_write_and_one_sync(rig: ArchiveRig, model: ModelFileSystem) -> None:
    receipt = rig.keep(SMALL)
    assert steps(model) == ["open_for_writing", "write", "synchronize", "close"]
    (path,) = rig.depot()
    examination = examine(rig.files, rig.path(path), scan=True)
    assert examination.finding is Finding.WHOLE
    assert examination.receipt == receipt
    assert rig.waiting[0].values == examination.values
    assert rig.waiting[0].file_size == examination.size
    assert read_all(rig.files, rig.path(path)).endswith(SMALL.data)


def test_a_large_instance_syncs_on_the_way_and_gets_its_receipt_last(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    outcomes: list[Outcome] = []
    incoming = in_parts(rig, LARGE, outcomes, 8)
    (path,) = rig.depot()
    assert examine(rig.files, rig.path(path)).finding is Finding.RECEIVING
    model.log.clear()
    incoming.write(memoryview(LARGE.data)[8000:])
    incoming.commit()
    rig.work()
    assert steps(model) == ["write", "write", "synchronize", "close"]
    assert examine(rig.files, rig.path(path)).finding is Finding.WHOLE
    assert outcomes[0].data_set_length == len(LARGE.data)


def test_nothing_is_said_and_nothing_handed_over_before_the_sync(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    outcomes: list[Outcome] = []
    seen: list[tuple[int, int]] = []

    def look(operation: object) -> None:
        if getattr(operation, "name", "") in ("write", "synchronize", "close"):
            seen.append((len(outcomes), len(rig.waiting)))

    incoming = rig.begin(SMALL, outcomes)
    incoming.write(memoryview(SMALL.data))
    incoming.commit()
    model.before_each = look
    rig.work()
    assert seen == [(0, 0)] * 3
    assert (len(outcomes), len(rig.waiting)) == (1, 1)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9200), st.booleans()), max_size=12))
def test_however_an_instance_is_cut_up_the_file_is_the_same(cuts: list[tuple[int, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("time.time_ns", lambda: 1_700_000_000_000_000_000)
        rig = _fresh_rig()
        expected = rig.keep(LARGE).digest
        outcomes: list[Outcome] = []
        incoming = rig.begin(LARGE, outcomes)
        start = 0
        for place, flush in sorted(cuts):
            incoming.write(memoryview(LARGE.data)[start:place])
            start = max(start, min(place, len(LARGE.data)))
            if flush:
                incoming.flush()
                rig.work()
        incoming.write(memoryview(LARGE.data)[start:])
        incoming.commit()
        rig.work()
    receipt = outcomes[0].receipt
    assert receipt is not None
    assert receipt.digest == expected
    for path in rig.depot():
        assert examine(rig.files, rig.path(path)).finding is Finding.WHOLE
        assert read_all(rig.files, rig.path(path)).endswith(LARGE.data)


def _fresh_rig() -> ArchiveRig:
    """Return a rig that never looks into its catalog."""
    model = ModelFileSystem()
    model.place_folder("/archive")
    return ArchiveRig(model, None)  # type: ignore[arg-type]  # intake alone needs none


def test_every_piece_is_released_once_whatever_becomes_of_the_instance(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    released: list[str] = []

    def send(name: str, instance: Instance, *, end: Callable[[Incoming], None] | None) -> None:
        incoming = rig.begin(instance, [])
        for number, start in enumerate(range(0, len(instance.data), 3000)):
            piece = memoryview(instance.data)[start : start + 3000]
            incoming.write(piece, lambda number=number: released.append(f"{name}{number}"))  # type: ignore[misc]  # the default binds it
            incoming.flush()
        if end is not None:
            end(incoming)
        rig.work()

    send("kept", LARGE, end=Incoming.commit)
    send("aborted", LARGE, end=Incoming.abort)
    send("open", LARGE, end=None)
    send("wrong", Instance(sop_instance_uid="1.2.3.9", data=LARGE.data), end=Incoming.commit)
    send("nothing", Instance(sop_instance_uid="none", data=LARGE.data), end=Incoming.commit)
    model.fail_next("write", "*/depot/*")
    send("unwritten", LARGE, end=Incoming.commit)
    names = ("kept", "aborted", "open", "wrong", "nothing", "unwritten")
    assert sorted(released) == sorted(f"{name}{number}" for name in names for number in range(4))


# What the sender gives up


def test_an_aborted_instance_leaves_nothing_and_is_not_answered(rig: ArchiveRig) -> None:
    outcomes: list[Outcome] = []
    for parts in (0, 1, 4):
        in_parts(rig, LARGE, outcomes, parts).abort()
        rig.work()
    assert outcomes == []
    assert rig.depot() == []
    assert rig.waiting == []


def test_an_abort_after_the_commit_changes_nothing(rig: ArchiveRig) -> None:
    outcomes: list[Outcome] = []
    incoming = in_parts(rig, LARGE, outcomes, 9)
    incoming.write(memoryview(LARGE.data)[9000:])
    incoming.commit()
    incoming.abort()
    rig.work()
    incoming.abort()
    rig.work()
    assert [outcome.refusal for outcome in outcomes] == [None]
    assert len(rig.waiting) == 1


# What the disk gives up


@pytest.mark.parametrize("may_wait", [False, True])
@pytest.mark.parametrize(("flushes", "after"), [(0, 0), (8, 0), (8, 2), (8, 3)])
def test_a_failed_sync_is_final_for_the_instance_and_closes_the_door(
    rig: ArchiveRig, model: ModelFileSystem, flushes: int, after: int, may_wait: bool
) -> None:
    written: list[bytes] = []
    model.fail_next("synchronize", "*/depot/*", errno.EIO, after=after)
    model.before_each = lambda operation: (
        written.append(model.content(operation.path)) if operation.name == "unlink" else None
    )
    outcome = rig.receive(LARGE, flushes=flushes, may_wait=may_wait)
    model.before_each = None
    assert outcome.refusal is Refusal.OUT_OF_RESOURCES
    assert steps(model).count("synchronize") == after + 1
    assert steps(model)[-3:] == ["write", "unlink", "close"]
    assert EMPTY_RECEIPT in written[0]
    assert rig.depot() == []
    assert rig.waiting == []
    assert rig.receive(SMALL).refusal is Refusal.OUT_OF_RESOURCES
    assert rig.admission.association_refusal()
    assert rig.admission.trust(rig.admission.failures)
    rig.keep(SMALL)


def test_a_probe_that_began_before_the_failure_opens_no_door(rig: ArchiveRig, model: ModelFileSystem) -> None:
    rig.admission.distrust("the disk failed")
    seen = rig.admission.failures
    model.fail_next("synchronize", "*/depot/*")
    rig.admission.trust(seen)
    rig.receive(SMALL)
    assert not rig.admission.trust(seen)
    assert rig.admission.distrusted
    assert rig.admission.trust(rig.admission.failures)


def test_a_failed_sync_of_the_slots_folder_closes_the_door_too(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    rig.pool.remove_free(10)
    model.fail_next("synchronize_directory", rig.folder.path)
    assert rig.receive(SMALL).refusal is Refusal.OUT_OF_RESOURCES
    assert rig.admission.distrusted


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("operation", ["open_for_writing", "create", "synchronize_directory"])
def test_too_many_open_files_are_neither_a_failed_disk_nor_a_full_one(
    rig: ArchiveRig, model: ModelFileSystem, operation: str, error: int
) -> None:
    rig.pool.remove_free(10)
    model.fail_next(operation, "*/depot/*", error)
    with capture_logs() as logs:
        outcome = rig.receive(SMALL)
    assert outcome.refusal is Refusal.OUT_OF_RESOURCES
    assert outcome.comment == "the server has too many files open, try again later"
    assert [line["what"] for line in logs] == ["too many files are open"]
    assert "LimitNOFILE" in logs[0]["advice"]
    assert not rig.admission.distrusted
    rig.keep(SMALL)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("written", [0, 100, 1450, 1 << 20])
@pytest.mark.parametrize("flushes", [0, 3])
def test_a_write_that_fails_leaves_no_receipt_and_no_name(
    rig: ArchiveRig, model: ModelFileSystem, error: int, written: int, flushes: int
) -> None:
    """Not even where all bytes were written, and where the name cannot be removed."""
    model.fail_next("write", "*/depot/*", error, after=flushes, written=written)
    model.fail_next("unlink", "*/depot/*")
    assert rig.receive(LARGE, flushes=flushes).refusal is Refusal.OUT_OF_RESOURCES
    for path in rig.depot():
        assert examine(rig.files, rig.path(path)).finding is Finding.RECEIVING
    assert rig.waiting == []
    assert not rig.admission.distrusted
    rig.keep(SMALL)


def test_an_error_at_close_is_final(rig: ArchiveRig, model: ModelFileSystem) -> None:
    for failing_too in (False, True):
        model.fail_next("close", "*/depot/*")
        if failing_too:
            model.fail_next("unlink", "*/depot/*")
        assert rig.receive(SMALL).refusal is Refusal.OUT_OF_RESOURCES
        assert rig.waiting == []
        assert len(rig.depot()) == failing_too
        assert not [path for path in model.open_paths if path.count("/") == 4]


def test_when_no_slot_can_be_made_instances_are_refused(tmp_path: Path) -> None:
    model = ModelFileSystem(inodes=8)
    rig = model_rig(tmp_path, model, slots=3)
    for number in range(3):
        rig.keep(make_instance(number))
    assert rig.receive(SMALL).refusal is Refusal.OUT_OF_RESOURCES
    assert not rig.admission.distrusted
    model.inodes = 20
    rig.keep(SMALL)


def test_beyond_the_bound_of_uncatalogued_instances_the_next_is_refused(tmp_path: Path) -> None:
    rig = model_rig(tmp_path, uncatalogued_max=3)
    for number in range(3):
        rig.keep(make_instance(number))
    outcome = rig.receive(SMALL)
    assert (outcome.refusal, outcome.comment) == (
        Refusal.OUT_OF_RESOURCES,
        "the catalog is behind, try again later",
    )
    rig.finish()
    rig.keep(SMALL)


def test_what_has_begun_counts_towards_the_bound_until_it_is_listed_or_given_up(tmp_path: Path) -> None:
    rig = model_rig(tmp_path, uncatalogued_max=3)
    outcomes: list[Outcome] = []
    large, committed, silent = (in_parts(rig, LARGE, outcomes, parts) for parts in (4, 9, 0))
    committed.write(memoryview(LARGE.data)[9000:])
    committed.commit()
    rig.work()
    assert [outcome.refusal for outcome in outcomes] == [None]
    for _ in "none of the three is listed yet, and a refused one takes no place":
        assert rig.receive(SMALL).refusal is Refusal.OUT_OF_RESOURCES
    assert rig.admission.is_behind
    large.abort()
    rig.work()
    rig.keep(SMALL)
    for _ in "twice":
        silent.abort()
        rig.work()
    rig.keep(SMALL)
    assert rig.receive(SMALL).refusal is Refusal.OUT_OF_RESOURCES
    rig.finish()
    assert not rig.admission.is_behind
    for number in range(3):
        rig.keep(make_instance(number))
    assert rig.receive(SMALL).refusal is Refusal.OUT_OF_RESOURCES


def test_whatever_becomes_of_an_instance_it_gives_its_place_back_once(
    tmp_path: Path, model: ModelFileSystem
) -> None:
    """With two places beside that of another: one that is not given back, or twice, would be seen by the next."""
    rig = model_rig(tmp_path, model, uncatalogued_max=3)
    rig.begin(make_instance(3), [])

    def two_places() -> bool:
        begun = [rig.begin(SMALL, []) for _ in range(3)]
        refusals = [incoming._failure for incoming in begun]
        for incoming in begun:
            incoming.abort()
        rig.work()
        return refusals[:2] == [None, None] and refusals[2] is not None

    assert two_places()
    for flushes in (0, 3):
        for wrong in ("none", "1.2.3.9"):
            assert rig.receive(Instance(sop_instance_uid=wrong, data=LARGE.data), flushes=flushes).refusal
            assert two_places()
        for operation in ("open_for_writing", "write", "synchronize", "close"):
            model.fail_next(operation, "*/depot/*")
            assert rig.receive(LARGE, flushes=flushes).refusal
            rig.admission.trust(rig.admission.failures)
            assert two_places(), operation
        with patch.object(rig.intake, "receipt_ids", None):
            assert rig.receive(LARGE, flushes=flushes).refusal is Refusal.PROCESSING_FAILURE
        assert two_places()
        rig.keep(LARGE, flushes=flushes)
        assert not two_places()
        model.fail_next("status", "*/objects/*")
        assert len(rig.finish()) == 1
        rig.finish()
        assert two_places()


def test_many_large_ones_admitted_together_stop_at_the_mark_and_not_at_the_end_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    between_looks, piece, mark = 8_000, 1_000, 60_000
    monkeypatch.setattr("stowkeeper.archive.admission.SPACE_CHECK_EVERY_BYTES", between_looks)
    model = ModelFileSystem(capacity=300_000)
    marks = DiskMarks(instance_bytes=mark, association_bytes=0, instance_inodes=0, association_inodes=0)
    rig = model_rig(tmp_path, model, slots=10, marks=marks)
    kept = [rig.keep(SMALL)]
    outcomes: list[Outcome] = []
    instances = [make_instance(number, size=90_000) for number in range(2, 10)]
    begun = [rig.begin(instance, outcomes) for instance in instances]
    least_free = rig.files.free_space("/").bytes
    for start in range(0, 90_000, piece):
        for incoming, instance in zip(begun, instances, strict=True):
            incoming.write(memoryview(instance.data)[start : start + piece])
            incoming.flush()
            rig.work()
            least_free = min(least_free, rig.files.free_space("/").bytes)
    for incoming, instance in zip(begun, instances, strict=True):
        incoming.write(memoryview(instance.data)[90_000:])
        incoming.commit()
    rig.work()
    assert mark - between_looks - 4 * piece < least_free < mark
    assert {outcome.comment for outcome in outcomes} == {"the disk is full"}
    assert len(outcomes) == len(instances)
    rig.admission.check_space()
    kept.append(rig.keep(LARGE))
    assert rig.finish() == []
    assert {row["receipt_id"] for row in rig.versions()} == {receipt.receipt_id for receipt in kept}
    check_settled(rig)


def test_a_sender_that_always_has_more_lets_the_others_have_their_turn(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    greedy = rig.begin(LARGE, [])
    rounds = 0

    def send_more(operation: Operation) -> None:
        nonlocal rounds
        if operation.name == "write" and rounds < 50:
            rounds += 1
            greedy.write(memoryview(bytes(100)))
            greedy.flush()

    model.before_each = send_more
    greedy.write(memoryview(LARGE.data))
    greedy.flush()
    outcomes: list[Outcome] = []
    seen: list[int] = []
    small = rig.intake.begin(SMALL.arrival(), lambda outcome: (outcomes.append(outcome), seen.append(rounds)))
    small.write(memoryview(SMALL.data))
    small.commit()
    rig.work()
    assert [outcome.refusal for outcome in outcomes] == [None]
    assert seen[0] <= 3
    assert rounds == 50


# Its threads, on a real disk


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_put_back_while_the_threads_are_told_to_end_is_done_first(
    tmp_path: Path, threads: int
) -> None:
    writing, told = threading.Event(), threading.Event()

    class Waiting(FileSystem):
        def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
            writing.set()
            assert told.wait(30)
            super().write(descriptor, buffers, offset)

    class Telling(SimpleQueue[Incoming | None]):
        def put(self, item: Incoming | None, block: bool = True, timeout: float | None = None) -> None:
            super().put(item, block, timeout)
            if item is None:
                told.set()

    files = Waiting()
    rig = ArchiveRig(files, open_database(tmp_path), root=str(tmp_path))
    intake = type(rig.intake)(files, rig.pool, rig.admission, rig, threads=threads)
    intake.queue = Telling()
    intake.start()
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    incoming = intake.begin(LARGE.arrival(), outcomes.put)
    incoming.write(memoryview(LARGE.data)[:1000])
    incoming.flush()
    assert writing.wait(30)
    incoming.write(memoryview(LARGE.data)[1000:])
    incoming.commit()
    intake.stop()
    assert outcomes.get(timeout=30).refusal is None


def test_many_threads_keep_many_instances(tmp_path: Path) -> None:
    rig = ArchiveRig(FileSystem(), open_database(tmp_path), root=str(tmp_path), slots=16)
    intake = type(rig.intake)(rig.files, rig.pool, rig.admission, rig, threads=8, sync_every=4000)
    intake.start()
    outcomes: list[Outcome] = []
    everything = threading.Event()

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 30:
            everything.set()
        if len(outcomes) % 7 == 0:
            raise RuntimeError("a defect of whoever is called back")

    instances = [make_instance(number, size=200 * number) for number in range(30)]
    senders = [intake.begin(instance.arrival(), done) for instance in instances]
    for start in range(0, 7000, 1000):
        for instance, incoming in zip(instances, senders, strict=True):
            incoming.write(memoryview(instance.data)[start : start + 1000])
            incoming.flush()
    for incoming in senders:
        incoming.commit()
    assert everything.wait(30)
    intake.stop()
    assert [outcome.refusal for outcome in outcomes] == [None] * 30
    assert rig.finish() == []
    assert len(rig.versions()) == 30
    check_settled(rig)


@pytest.mark.slow
def test_no_more_are_kept_beside_the_catalog_than_the_bound_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come at once, and however far each has come when the next one asks."""
    monkeypatch.setattr("stowkeeper.archive.finisher.THROTTLE_SECONDS_MAX", 0.01)
    bound, senders = 20, 60
    with closing(open_archive(tmp_path / "archive", uncatalogued_max=bound, worker_threads=8)) as archive:
        for round_number in range(2):
            outcomes: SimpleQueue[Outcome] = SimpleQueue()
            with archive.finisher._finishing:  # the catalog stands still
                for number in range(senders):
                    instance = make_instance(1000 * round_number + number, size=5000)
                    incoming = archive.intake.begin(instance.arrival(), outcomes.put)
                    incoming.write(memoryview(instance.data))
                    incoming.commit()
                refusals = [outcomes.get(timeout=30).refusal for _ in range(senders)]
                assert refusals.count(None) == bound
                assert set(refusals) == {None, Refusal.OUT_OF_RESOURCES}
            settle(archive)
            assert len(instances_of(archive)) == bound * (round_number + 1)


def test_arrivals_say_who_sent(rig: ArchiveRig) -> None:
    receipt = rig.keep(SMALL)
    arrival: Arrival = SMALL.arrival()
    for name in ("calling_ae_title", "called_ae_title", "peer_address", "association_id", "received_by"):
        assert getattr(receipt, name) == getattr(arrival, name)
