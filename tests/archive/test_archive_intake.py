"""Intake: an instance is kept after one sync or refused with a reason, and nothing of a refused one is left."""

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.archive.examine import Finding, examine
from stowkeeper.archive.intake import Arrival, DuplicatePolicy, Incoming
from stowkeeper.archive.outcome import Outcome, Refusal
from stowkeeper.archive.receipt import EMPTY_RECEIPT
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.durable.filesystem import FileSystem
from support.archive_rig import ArchiveRig, check_settled, model_rig, read_all
from support.catalog_rows import open_database
from support.instances import HANGING_PROTOCOL_STORAGE, Instance, encode_element, make_instance
from support.model_filesystem import ModelFileSystem

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


@settings(max_examples=40, deadline=None)
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


# What is refused


def of(*elements: tuple[int, bytes, bytes]) -> bytes:
    return b"".join(encode_element(*element) for element in elements)


CLASS = (0x00080016, b"UI", SMALL.sop_class_uid.encode())
UID = (0x00080018, b"UI", b"1.2.3.1")
STUDY = (0x0020000D, b"UI", b"1.2.10")
SERIES = (0x0020000E, b"UI", b"1.2.10.1")


@pytest.mark.parametrize(
    ("refusal", "offending", "data"),
    [
        (Refusal.CANNOT_UNDERSTAND, (0x00080016,), of(UID, STUDY, SERIES)),
        (Refusal.CANNOT_UNDERSTAND, (0x00080018,), of(CLASS, STUDY, SERIES)),
        (Refusal.CANNOT_UNDERSTAND, (0x0020000D,), of(CLASS, UID, SERIES)),
        (Refusal.CANNOT_UNDERSTAND, (0x0020000E,), of(CLASS, UID, STUDY)),
        (Refusal.CANNOT_UNDERSTAND, (), SMALL.data[:-1]),
        (Refusal.CANNOT_UNDERSTAND, (), b""),
        (Refusal.DOES_NOT_MATCH, (0x00080018,), make_instance(2).data),
        (Refusal.DOES_NOT_MATCH, (0x00080016,), make_instance(1, sop_class_uid="1.2.3").data),
    ],
)
@pytest.mark.parametrize("flushes", [0, 2])
def test_a_data_set_that_must_not_be_kept_is_refused_and_nothing_of_it_is_left(
    rig: ArchiveRig, refusal: Refusal, offending: tuple[int, ...], data: bytes, flushes: int
) -> None:
    outcome = rig.receive(Instance(sop_instance_uid="1.2.3.1", data=data), flushes=flushes)
    assert outcome.refusal is refusal
    assert outcome.offending == offending
    assert outcome.comment
    assert outcome.data_set_length == len(data)
    assert rig.waiting == []
    assert rig.depot() == []


@pytest.mark.parametrize(
    ("sop_class_uid", "sop_instance_uid", "refusal"),
    [
        ("", "1.2.3", Refusal.SOP_CLASS_NOT_SUPPORTED),
        ("1.2.x", "1.2.3", Refusal.SOP_CLASS_NOT_SUPPORTED),
        ("1.2", "", Refusal.INVALID_SOP_INSTANCE),
        ("1.2", "1.2.a", Refusal.INVALID_SOP_INSTANCE),
        ("1.2", "../../etc", Refusal.INVALID_SOP_INSTANCE),
        ("1.2", "1" * 65, Refusal.INVALID_SOP_INSTANCE),
    ],
)
def test_identifiers_that_are_none_are_refused_before_a_slot_is_touched(
    rig: ArchiveRig, model: ModelFileSystem, sop_class_uid: str, sop_instance_uid: str, refusal: Refusal
) -> None:
    wrong = Instance(sop_instance_uid=sop_instance_uid, sop_class_uid=sop_class_uid, data=LARGE.data)
    assert rig.receive(wrong, flushes=3).refusal is refusal
    assert steps(model) == []


def test_a_class_that_is_not_accepted_is_refused(rig: ArchiveRig) -> None:
    outcomes: list[Outcome] = []
    incoming = rig.intake.begin(SMALL.arrival(), outcomes.append, class_accepted=False)
    incoming.commit()
    rig.work()
    assert outcomes[0].refusal is Refusal.SOP_CLASS_NOT_SUPPORTED
    assert outcomes[0].offending == (0x00000002,)


@pytest.mark.parametrize("uid", ["01.2.3", "1..2", ".1", "1.2.", "0" * 64])
def test_a_malformed_uid_of_digits_and_dots_is_kept(rig: ArchiveRig, uid: str) -> None:
    data = of(CLASS, (0x00080018, b"UI", uid.encode()), STUDY, SERIES)
    receipt = rig.keep(Instance(sop_instance_uid=uid, data=data))
    assert rig.finish() == []
    assert [row["sop_instance_uid"] for row in rig.versions()] == [receipt.sop_instance_uid] == [uid]
    check_settled(rig)


def test_an_instance_of_a_class_without_patient_needs_no_study(rig: ArchiveRig) -> None:
    rig.keep(make_instance(1, study="", sop_class_uid=HANGING_PROTOCOL_STORAGE))
    rig.finish()
    (row,) = rig.versions()
    assert row["path"].startswith(f"objects/-/{HANGING_PROTOCOL_STORAGE}/")


def test_of_an_unknown_transfer_syntax_nothing_is_judged(rig: ArchiveRig) -> None:
    receipt = rig.keep(Instance(sop_instance_uid="1.2.3", data=b"\xff\x00garbage", transfer_syntax_uid="1.9"))
    assert receipt.data_set_length == 9


# The policy for a second version


def test_the_policy_refuse_lets_the_same_bytes_pass_and_no_others(rig: ArchiveRig) -> None:
    refusing = DuplicatePolicy.REFUSE
    rig.keep(SMALL.under_policy(refusing))
    other = make_instance(1, content=1).under_policy(refusing)
    for _ in ("while it waits", "when it is listed"):
        assert rig.receive(other).refusal is Refusal.DUPLICATE
        assert rig.receive(other, flushes=2).refusal is Refusal.DUPLICATE
        rig.keep(SMALL.under_policy(refusing))
        rig.finish()
        assert rig.depot() == []
    assert len(rig.versions()) == 1


def test_a_catalog_that_cannot_be_asked_refuses_for_a_while(rig: ArchiveRig) -> None:
    def unavailable() -> None:
        raise DatabaseUnavailable("locked")

    with patch.object(rig.database, "read", unavailable):
        outcome = rig.receive(SMALL.under_policy(DuplicatePolicy.REFUSE))
    assert outcome.refusal is Refusal.OUT_OF_RESOURCES
    assert rig.depot() == []
    rig.keep(SMALL.under_policy(DuplicatePolicy.REFUSE))


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


@pytest.mark.parametrize(("flushes", "after"), [(0, 0), (8, 0), (8, 2), (8, 3)])
def test_a_failed_sync_is_final_for_the_instance_and_closes_the_door(
    rig: ArchiveRig, model: ModelFileSystem, flushes: int, after: int
) -> None:
    written: list[bytes] = []
    model.fail_next("synchronize", "*/depot/*", errno.EIO, after=after)
    model.before_each = lambda operation: (
        written.append(model.content(operation.path)) if operation.name == "unlink" else None
    )
    outcome = rig.receive(LARGE, flushes=flushes)
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


# Its threads, on a real disk


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
    assert everything.wait(20)
    intake.stop()
    assert [outcome.refusal for outcome in outcomes] == [None] * 30
    assert rig.finish() == []
    assert len(rig.versions()) == 30
    check_settled(rig)


def test_arrivals_say_who_sent(rig: ArchiveRig) -> None:
    receipt = rig.keep(SMALL)
    arrival: Arrival = SMALL.arrival()
    for name in ("calling_ae_title", "called_ae_title", "peer_address", "association_id", "received_by"):
        assert getattr(receipt, name) == getattr(arrival, name)
