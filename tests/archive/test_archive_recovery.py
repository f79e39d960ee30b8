"""Recovery: what dead processes left in the depot is judged by its bytes, finished, removed or kept as evidence."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from stowkeeper.archive import recovery
from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.archive.receipt import EMPTY_RECEIPT, RECEIPT_LENGTH, Receipt, encode_head, seal_head
from stowkeeper.archive.recovery import Recovery, RecoveryCounts
from stowkeeper.archive.removal import Removal
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.durable.process_folder import ProcessFolder
from support.archive_rig import ArchiveRig, check_kept, check_settled, model_rig
from support.instances import Instance, make_instance
from support.model_filesystem import ModelFileSystem, Operation
from support.quiet_log import quiet_log

DEAD = "/archive/depot/4242-dead"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_log():
        yield


@pytest.fixture
def model() -> ModelFileSystem:
    return ModelFileSystem()


@pytest.fixture
def rig(tmp_path: Path, model: ModelFileSystem) -> ArchiveRig:
    made = model_rig(tmp_path, model, slots=8)
    model.place_folder(DEAD)
    return made


def received(instance: Instance) -> tuple[Receipt, bytes]:
    """Return the receipt and the bytes of a file as intake leaves it."""
    model = ModelFileSystem()
    model.place_folder("/archive")
    other = ArchiveRig(model, None)  # type: ignore[arg-type]  # intake alone needs no catalog
    receipt = other.keep(instance)
    return receipt, model.content(other.path(*other.depot()))


def head_length(whole: bytes, instance: Instance) -> int:
    return len(whole) - len(instance.data)


def with_receipt(whole: bytes, instance: Instance, payload: bytes) -> bytes:
    end = head_length(whole, instance)
    return whole[: end - RECEIPT_LENGTH] + payload + whole[end:]


SMALL = make_instance(1)
LARGE = make_instance(2, size=40_000)
Damage = Callable[[bytes, Instance], bytes]

LEFT_BEHIND: dict[str, tuple[Damage, RecoveryCounts]] = {
    "free": (lambda whole, instance: b"", RecoveryCounts(removed=1)),
    "its head alone": (
        lambda whole, instance: with_receipt(whole, instance, EMPTY_RECEIPT)[: head_length(whole, instance)],
        RecoveryCounts(removed=1),
    ),
    "receiving": (
        lambda whole, instance: with_receipt(whole, instance, EMPTY_RECEIPT)[:-100],
        RecoveryCounts(removed=1),
    ),
    "given up": (
        lambda whole, instance: with_receipt(whole, instance, EMPTY_RECEIPT),
        RecoveryCounts(removed=1),
    ),
    "cut in its head": (lambda whole, instance: whole[:200], RecoveryCounts(removed=1)),
    "cut in its preamble": (lambda whole, instance: whole[:100], RecoveryCounts(removed=1)),
    "its size alone": (lambda whole, instance: bytes(len(whole)), RecoveryCounts(removed=1)),
    "short": (lambda whole, instance: whole[:-1], RecoveryCounts(short=1)),
    "without a data set": (
        lambda whole, instance: whole[: head_length(whole, instance)],
        RecoveryCounts(short=1),
    ),
    "longer": (lambda whole, instance: whole + b"\0", RecoveryCounts(quarantined=1)),
    "with a hole": (
        lambda whole, instance: whole[:-300] + bytes(200) + whole[-100:],
        RecoveryCounts(quarantined=1),
    ),
    "half a receipt": (
        lambda whole, instance: with_receipt(
            whole,
            instance,
            whole[head_length(whole, instance) - RECEIPT_LENGTH :][:512] + bytes(512),
        ),
        RecoveryCounts(quarantined=1),
    ),
    "not ours": (lambda whole, instance: b"some other file" * 100, RecoveryCounts(quarantined=1)),
    "whole": (lambda whole, instance: whole, RecoveryCounts(finished=1)),
}


@pytest.mark.parametrize("instance", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("state", LEFT_BEHIND)
def test_each_state_of_a_depot_file_has_its_end(
    rig: ArchiveRig, model: ModelFileSystem, state: str, instance: Instance
) -> None:
    change, expected = LEFT_BEHIND[state]
    receipt, whole = received(instance)
    content = change(whole, instance)
    model.place(f"{DEAD}/0", content)
    assert rig.recover() == expected
    assert DEAD not in model.tree()
    assert len(rig.quarantine()) == expected.quarantined
    assert all(model.content(rig.path(kept)) == content for kept in rig.quarantine())
    check_settled(rig)
    if expected.finished:
        check_kept(rig, receipt, instance)
        assert [row["answer"] for row in rig.receipts()] == ["unknown"]
    else:
        assert rig.versions() == []
    assert rig.recover() == RecoveryCounts()


def test_a_recovered_instance_is_listed_as_it_would_have_been(
    rig: ArchiveRig, model: ModelFileSystem, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = model_rig(tmp_path / "other")
    other.keep(LARGE)
    other_file = other.files.content(other.path(*other.depot()))  # type: ignore[attr-defined]  # it is a model
    other.finish()
    model.place(f"{DEAD}/0", other_file)
    rig.recover()
    assert rig.versions() == other.versions()
    (mine,), (theirs,) = rig.receipts(), other.receipts()
    assert mine == theirs | {"answer": "unknown"}


def test_the_folder_of_a_living_process_is_left_alone(
    rig: ArchiveRig, model: ModelFileSystem, tmp_path: Path
) -> None:
    other = ArchiveRig(model, rig.database, slots=2)
    receipt = other.keep(SMALL)
    rig.keep(make_instance(3))
    assert rig.recover() == RecoveryCounts()
    assert len(rig.depot()) == 2
    other.folder.close_in_child()  # as the system does when a process ends
    assert rig.recover() == RecoveryCounts(finished=1, removed=1)
    check_kept(rig, receipt, SMALL)
    assert other.folder.path not in model.tree()


def test_a_folder_that_another_process_recovers_is_left_to_that_one(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    model.place(f"{DEAD}/0", received(SMALL)[1])
    adopted = ProcessFolder.adopt(model, DEAD)
    assert adopted is not None
    assert rig.recover() == RecoveryCounts()
    adopted.release()
    assert rig.recover() == RecoveryCounts(finished=1)


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_file_that_cannot_be_read_now_is_left_and_found_again(
    rig: ArchiveRig, model: ModelFileSystem, error: int
) -> None:
    receipts = [received(make_instance(number)) for number in range(3)]
    for number, (_, whole) in enumerate(receipts):
        model.place(f"{DEAD}/{number}", whole)
    model.fail_next("open_for_reading" if error != errno.EIO else "read", f"{DEAD}/1", error)
    assert rig.recover() == RecoveryCounts(finished=2, unreadable=1)
    assert model.tree()[f"{DEAD}/1"] == receipts[1][1]
    assert rig.recover() == RecoveryCounts(finished=1)
    for number, (receipt, _) in enumerate(receipts):
        check_kept(rig, receipt, make_instance(number))
    assert DEAD not in model.tree()


def test_files_are_judged_by_the_medium_and_not_by_the_cache(rig: ArchiveRig, model: ModelFileSystem) -> None:
    """A failed sync left clean pages: they read well, and the disk has nothing of them."""
    _, whole = received(SMALL)
    path = f"{DEAD}/0"
    model.place(path)
    descriptor = model.open_for_writing(path)
    model.write(descriptor, [whole], 0)
    model.fail_next("synchronize", path)
    with pytest.raises(OSError, match="Input/output error"):
        model.synchronize(descriptor)
    model.close(descriptor)
    assert model.content(path) == whole
    assert rig.recover().finished == 0
    assert rig.versions() == []


def test_a_quarantine_that_fails_leaves_the_file_where_it_is(rig: ArchiveRig, model: ModelFileSystem) -> None:
    content = b"some other file" * 100
    model.place(f"{DEAD}/0", content)
    for failing, where in (
        ("synchronize_directory", "/archive"),
        ("link", "*/quarantine/*"),
        ("write", "*/quarantine/*"),
        ("synchronize_directory", "*/quarantine"),
    ):
        model.fail_next(failing, where, errno.ENOSPC)
        assert rig.recover() == RecoveryCounts(unreadable=1)
        assert model.tree()[f"{DEAD}/0"] == content
    assert rig.recover() == RecoveryCounts(quarantined=1)
    (kept,) = rig.quarantine()
    after_a_cut = model.crash(lambda _: False)
    assert after_a_cut.content(rig.path(kept)) == content


def test_two_suspect_files_of_one_name_get_two(rig: ArchiveRig, model: ModelFileSystem) -> None:
    for content in (b"first", b"second"):
        model.place(f"{DEAD}/0", content * 100)
        assert rig.recover() == RecoveryCounts(quarantined=1)
    kept = [model.content(rig.path(path)) for path in rig.quarantine()]
    assert kept == [b"first" * 100, b"second" * 100]
    notes = [path for path in model.tree() if path.endswith(".txt")]
    assert len(notes) == 2
    assert DEAD in model.content(notes[0]).decode()


def test_the_dead_are_looked_after_one_at_a_time(rig: ArchiveRig, model: ModelFileSystem) -> None:
    """However many there are, one descriptor and one batch is held."""
    for number in range(5):
        model.place(f"{DEAD}-{number}/0", received(make_instance(number))[1])
    owned = 0

    def look(operation: Operation) -> None:
        nonlocal owned
        held = {path for path in model.open_paths if path.startswith(DEAD) and path.count("/") == 3}
        owned = max(owned, len(held))

    model.before_each = look
    assert rig.recover() == RecoveryCounts(finished=5)
    model.before_each = None
    assert owned == 1
    assert not [path for path in model.tree() if path.startswith(DEAD)]


def test_what_was_removed_meanwhile_does_not_come_back(rig: ArchiveRig, model: ModelFileSystem) -> None:
    """An identical one was listed to it, and only the power cut keeps its depot name."""
    rig.keep(SMALL)
    rig.finish()
    identical = rig.keep(SMALL)
    rig.finish()
    removal = Removal(rig.files, rig.root, rig.database)
    assert removal.carry_out(removal.plan(SMALL.sop_instance_uid), "a wish").removed == 1
    after = model.crash(lambda change: not (change.operation == "unlink" and "/depot/" in change.path))
    again = ArchiveRig(after, rig.database)
    assert len([path for path in again.depot() if path]) >= 1
    again.recover()
    assert again.depot() == []
    assert again.shelf() == []
    assert {row["state"] for row in again.versions()} <= {"removed"}
    assert identical.receipt_id in {row["receipt_id"] for row in again.receipts()}


# A second version, by its sender's policy


def test_a_recovered_second_version_is_treated_as_its_sender_s_policy_says(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    """`refuse` keeps it, since it may have been answered Success."""
    asked: list[tuple[str, str]] = []
    sent_by = SMALL.arrival()
    for policy, state, conflict in (
        (DuplicatePolicy.KEEP, "kept", True),
        (DuplicatePolicy.REFUSE, "kept", True),
        (DuplicatePolicy.REPLACE, "superseded", True),
    ):
        number = len(asked) + 1
        older = rig.keep(make_instance(number))
        assert rig.finish() == []
        newer, whole = received(make_instance(number, content=1))
        model.place(f"{DEAD}/0", whole)

        def duplicates_of(title: str, address: str, policy: DuplicatePolicy = policy) -> DuplicatePolicy:
            asked.append((title, address))
            return policy

        again = Recovery(rig.files, rig.root, f"{rig.root}/depot", rig.finisher, duplicates_of=duplicates_of)
        assert again.run() == RecoveryCounts(finished=1)
        found = {
            row["receipt_id"]: row for row in rig.versions() if row["sop_instance_uid"] == f"1.2.3.{number}"
        }
        assert found[older.receipt_id]["state"] == state
        assert found[older.receipt_id]["conflict"] == conflict
        assert found[newer.receipt_id]["state"] == "kept"
        assert found[newer.receipt_id]["current"]
        check_settled(rig)
    assert set(asked) == {(sent_by.calling_ae_title, sent_by.peer_address)}
    assert all(asked[0])


def test_a_catalog_that_cannot_be_written_stops_it_and_the_next_look_goes_on(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    receipts = [received(make_instance(number)) for number in range(5)]
    for number, (_, whole) in enumerate(receipts):
        model.place(f"{DEAD}/{number}", whole)

    def unavailable() -> None:
        raise DatabaseUnavailable("the disk is full")

    with (
        patch.object(recovery, "FINISHER_BATCH_MAX", 2),
        patch.object(rig.database, "write", unavailable),
        pytest.raises(DatabaseUnavailable),
    ):
        rig.recover()
    assert len(rig.depot()) == 5
    with patch.object(recovery, "FINISHER_BATCH_MAX", 2):
        assert rig.recover() == RecoveryCounts(finished=5)
    for number, (receipt, _) in enumerate(receipts):
        check_kept(rig, receipt, make_instance(number))
    check_settled(rig)


def test_it_stops_between_two_files_when_told_to(rig: ArchiveRig, model: ModelFileSystem) -> None:
    for number in range(4):
        model.place(f"{DEAD}/{number}", received(make_instance(number))[1])
    looked: list[str] = []

    def look(operation: Operation) -> None:
        if operation.name == "open_for_reading" and operation.path.startswith(DEAD):
            looked.append(operation.path)

    model.before_each = look
    rig.recovery.run(lambda: len(looked) >= 2)
    assert len(looked) == 2
    model.before_each = None
    assert rig.recover() == RecoveryCounts(finished=4)


def test_files_of_an_unknown_kind_in_the_depot_disturb_nothing(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    model.place("/archive/depot/a-file-of-someone", b"hello")
    model.place(f"{DEAD}/folder/file", b"hello")
    receipt, whole = received(SMALL)
    model.place(f"{DEAD}/0", whole)
    assert rig.recover() == RecoveryCounts(finished=1, unreadable=1)
    check_kept(rig, receipt, SMALL)
    assert model.content(f"{DEAD}/folder/file") == b"hello"


def test_a_receipt_longer_than_memory_of_a_file_is_not_believed(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    """The count in a receipt is only compared, nothing is made as large as it says."""
    receipt, _ = received(SMALL)
    head = encode_head(
        sop_class_uid=receipt.sop_class_uid,
        sop_instance_uid=receipt.sop_instance_uid,
        transfer_syntax_uid=receipt.transfer_syntax_uid,
    )
    from dataclasses import replace

    model.place(f"{DEAD}/0", seal_head(head, replace(receipt, data_set_length=1 << 60)) + SMALL.data)
    assert rig.recover() == RecoveryCounts(short=1)
