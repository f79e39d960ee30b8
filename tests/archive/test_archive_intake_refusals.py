"""What intake refuses: with which reason, about which element, and that all that came is counted and hashed."""

from pathlib import Path
from unittest.mock import patch

import pytest
from blake3 import blake3
from test_archive_intake import LARGE, SMALL, steps

from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.archive.outcome import Outcome, Refusal
from stowkeeper.database.engine import DatabaseUnavailable
from support.archive_rig import ArchiveRig, check_settled, model_rig, split
from support.instances import HANGING_PROTOCOL_STORAGE, Instance, encode_element, make_instance
from support.model_filesystem import ModelFileSystem


@pytest.fixture
def model() -> ModelFileSystem:
    return ModelFileSystem()


@pytest.fixture
def rig(tmp_path: Path, model: ModelFileSystem) -> ArchiveRig:
    made = model_rig(tmp_path, model)
    model.log.clear()
    return made


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
        (Refusal.CANNOT_UNDERSTAND, (0x7FE00010,), SMALL.data[:-1]),
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
    assert (outcome.data_set_length, outcome.digest) == (len(data), blake3(data).hexdigest())
    assert (outcome.disk_seconds > 0) == (flushes > 0 and data != b""), (
        "a small one is refused before it is written"
    )
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
    outcome = rig.receive(wrong, flushes=3)
    assert outcome.refusal is refusal
    assert (outcome.digest, outcome.disk_seconds) == (blake3(LARGE.data).hexdigest(), 0)
    assert steps(model) == []


@pytest.mark.parametrize("portion", range(4))
def test_what_is_refused_on_the_way_is_still_counted_to_its_end(
    rig: ArchiveRig, model: ModelFileSystem, portion: int
) -> None:
    outcomes: list[Outcome] = []
    incoming = rig.begin(LARGE, outcomes)
    pieces = split(LARGE.data, 4)
    for number, piece in enumerate(pieces):
        if number == portion:
            model.fail_next("write", "*/depot/*")
        incoming.write(memoryview(piece))
        if number < 3:
            incoming.flush()
            rig.work()
    incoming.commit()
    rig.work()
    (outcome,) = outcomes
    assert outcome.refusal is Refusal.OUT_OF_RESOURCES
    assert (outcome.data_set_length, outcome.digest) == (len(LARGE.data), blake3(LARGE.data).hexdigest())
    assert outcome.disk_seconds > 0


def test_the_disk_is_timed_for_all_that_is_waited_for(
    rig: ArchiveRig, model: ModelFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def work(operation: object) -> None:
        nonlocal now
        if getattr(operation, "name", "") in ("write", "synchronize"):
            now += 1

    monkeypatch.setattr("stowkeeper.archive.intake.time.perf_counter", lambda: now)
    model.before_each = work
    outcome = rig.receive(LARGE, flushes=3)
    assert outcome.receipt is not None
    assert outcome.digest == outcome.receipt.digest
    # Of the syncs only the last one: who writes waited for none of those before.
    assert steps(model).count("synchronize") > 1
    assert outcome.disk_seconds == steps(model).count("write") + 1 > 3


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
