"""A held version stays, and stays the current one, whatever comes after it and by whichever way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.archive import catalog, changes, listing
from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.archive.catalog import Version, VersionState
from stowkeeper.archive.catalog_values import CatalogEntry
from stowkeeper.archive.holding import (
    CommitmentHold,
    commitment_hold_reason,
    parse_commitment_hold,
    reasons_of,
)
from stowkeeper.archive.rebuilding import Rebuilding
from stowkeeper.archive.recovery import Recovery
from stowkeeper.archive.removal import remove_due
from stowkeeper.archive.verification import Verification
from stowkeeper.database.engine import Database
from stowkeeper.durable.filesystem import NoSyncFileSystem
from support.archive_rig import ArchiveRig, check_settled, model_rig
from support.catalog_rows import make_entry, open_database
from support.instances import make_instance
from support.quiet_log import quiet_log

COMMITTED = commitment_hold_reason("1.2.99.1", "SCANNER")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path, sync=False) as opened:
        yield opened


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ArchiveRig]:
    rig = model_rig(tmp_path, slots=20)
    with rig.database:
        yield rig


def insert(database: Database, *entries: CatalogEntry) -> None:
    with database.write() as transaction:
        catalog.insert(transaction, entries)


def hold(database: Database, *keys: int, reason: str = COMMITTED) -> None:
    with database.write() as transaction:
        catalog.hold(transaction, keys, reason)


def release(database: Database, *keys: int, reason: str = COMMITTED) -> None:
    with database.write() as transaction:
        catalog.release_hold(transaction, keys, reason)


def versions_of(database: Database, instance: object = 1) -> list[Version]:
    with database.read() as connection:
        return catalog.find_versions(connection, [f"1.2.3.{instance}"], tuple(VersionState)).get(
            f"1.2.3.{instance}", []
        )


def current(database: Database, instance: object = 1) -> int | None:
    return next(
        (version.version_key for version in versions_of(database, instance) if version.is_current), None
    )


def listed_conflicts(database: Database) -> list[tuple[str, bool]]:
    return [(row["receipt_id"], row["current"]) for row in listing.instances(database, in_conflict=True)]


# The words.


@pytest.mark.parametrize("ae_title", ["SCANNER", "", "TWO WORDS", "asked by"])
def test_the_reason_of_a_commitment_can_be_read_back(ae_title: str) -> None:
    reason = commitment_hold_reason("2.25.1", ae_title)
    assert reason == f"commitment 2.25.1 asked by {ae_title}"
    assert parse_commitment_hold(reason) == CommitmentHold(transaction_uid="2.25.1", ae_title=ae_title)


@pytest.mark.parametrize("peer", ["ct1", "CT, of the peer ct2", "asked by"])
def test_the_name_of_the_peer_can_be_read_back(peer: str) -> None:
    reason = commitment_hold_reason("2.25.1", "CT", peer)
    assert reason == f"commitment 2.25.1 asked by CT, of the peer {peer}"
    assert parse_commitment_hold(reason) == CommitmentHold(transaction_uid="2.25.1", ae_title="CT", peer=peer)


def test_what_names_a_web_client_is_nobodys_peer() -> None:
    words = "a client by HTTP: alice, of the peer ct1"
    found = parse_commitment_hold(commitment_hold_reason("2.25.1", words))
    assert found == CommitmentHold(transaction_uid="2.25.1", ae_title=words)


@pytest.mark.parametrize(
    "reason", ["research", "commitment", "commitment 2.25.1", "a commitment 1 asked by X"]
)
def test_other_reasons_are_no_commitments(reason: str) -> None:
    assert parse_commitment_hold(reason) is None


def test_the_reasons_of_a_version_are_told_the_oldest_first(tmp_path: Path) -> None:
    times = iter(f"2026-01-02T00:00:{second:02d}.000000Z" for second in range(60))
    with open_database(tmp_path, sync=False) as database:
        database._clock = lambda: next(times)
        insert(database, make_entry(1, 1), make_entry(2, 2), make_entry(3, 3))
        hold(database, 1, 2, reason="z first")
        hold(database, 1, reason="a second")
        with database.read() as connection:
            assert reasons_of(connection, [1, 2, 3]) == {1: ("z first", "a second"), 2: ("z first",)}


# The pointer.


def test_of_the_kept_versions_the_newest_held_one_is_current(database: Database) -> None:
    insert(database, *(make_entry(1, number, content=f"{number}") for number in (1, 2, 3)))
    assert current(database) == 3
    hold(database, 1)
    assert current(database) == 1
    hold(database, 2)
    assert current(database) == 2
    release(database, 2)
    assert current(database) == 1
    release(database, 1)
    assert current(database) == 3


def test_each_reason_holds_alone(database: Database) -> None:
    insert(database, make_entry(1, 1, content="a"), make_entry(1, 2, content="b"))
    hold(database, 1, reason="one")
    hold(database, 1, reason="two")
    release(database, 1, reason="one")
    assert current(database) == 1
    release(database, 1, reason="two")
    assert current(database) == 2


def test_a_second_hold_and_release_of_what_is_not_held_change_nothing(database: Database) -> None:
    insert(database, make_entry(1, 1, content="a"), make_entry(1, 2, content="b"))
    hold(database, 1)
    with database.read() as connection:
        before = changes.changes_after(connection, 0)
    hold(database, 1)
    release(database, 2)
    release(database, 1, reason="another")
    with database.read() as connection:
        assert changes.changes_after(connection, 0) == before
    assert [(change.kind, change.version_key, change.previous_version_key) for change in before[-2:]] == [
        ("held", 1, None),
        ("current", 1, 2),
    ]


def test_a_newer_version_of_a_held_instance_stands_beside_it_as_a_conflict(database: Database) -> None:
    held, newer = make_entry(1, 1, content="a"), make_entry(1, 2, content="b")
    insert(database, held)
    hold(database, 1)
    with database.write() as transaction:
        (result,) = catalog.insert(transaction, [newer])
    assert (result.outcome, result.is_current) == ("conflict", False)
    assert current(database) == 1
    assert listed_conflicts(database) == [(held.receipt.receipt_id, True), (newer.receipt.receipt_id, False)]


def test_a_held_version_that_is_not_kept_is_never_current(database: Database) -> None:
    insert(database, make_entry(1, 1, content="a"), make_entry(1, 2, content="b"))
    with database.write() as transaction:
        catalog.mark_superseded(transaction, [1], removal_due_at="2099", reason="replaced")
    hold(database, 1)
    assert current(database) == 2
    damaged = versions_of(database)[1]
    with database.write() as transaction:
        catalog.mark_damaged(transaction, damaged.path, "one bit")
    assert current(database) is None


def test_the_repair_of_a_held_version_is_current_even_where_something_newer_is_kept(
    database: Database,
) -> None:
    """The bytes that were promised come again by a file that was received before the other version."""
    first = make_entry(1, 1, content="a")
    insert(database, first)
    hold(database, 1)
    insert(database, make_entry(1, 5, content="b"))
    with database.write() as transaction:
        catalog.mark_damaged(transaction, first.path, "one bit")
    assert current(database) == 2
    insert(database, make_entry(1, 3, content="a"))
    assert [(version.version_key, version.is_held) for version in versions_of(database)] == [
        (1, True),
        (3, True),
        (2, False),
    ]
    assert current(database) == 3


# By the ways of the archive.


@pytest.mark.parametrize("policy", list(DuplicatePolicy))
def test_whatever_the_policy_what_comes_later_replaces_no_held_version(
    rig: ArchiveRig, policy: DuplicatePolicy
) -> None:
    rig.keep(make_instance(1))
    rig.finish()
    hold(rig.database, 1)
    outcome = rig.receive(make_instance(1, content=1).under_policy(policy))
    rig.finish()
    assert (outcome.receipt is None) is (policy is DuplicatePolicy.REFUSE)
    assert current(rig.database) == 1
    assert versions_of(rig.database)[0].state is VersionState.KEPT
    assert remove_due(rig.files, rig.root, rig.database, "2099").removed == 0
    count = 1 if outcome.receipt is None else 2
    assert len(rig.shelf()) == count
    assert [is_current for _, is_current in listed_conflicts(rig.database)] == [True, False][
        : (count - 1) * 2
    ]
    check_settled(rig)


def test_a_replacement_goes_past_a_held_version_to_those_that_nobody_holds(rig: ArchiveRig) -> None:
    for content in (0, 1):
        rig.keep(make_instance(1, content=content))
        rig.finish()
    hold(rig.database, 1)
    rig.keep(make_instance(1, content=2).under_policy(DuplicatePolicy.REPLACE))
    rig.finish()
    assert [(version.state, version.is_current) for version in versions_of(rig.database)] == [
        ("kept", True),
        ("superseded", False),
        ("kept", False),
    ]


@pytest.mark.parametrize("policy", list(DuplicatePolicy))
def test_recovery_leaves_a_held_version_current(rig: ArchiveRig, policy: DuplicatePolicy) -> None:
    rig.keep(make_instance(1))
    rig.finish()
    hold(rig.database, 1)
    rig.keep(make_instance(1, content=1))
    rig.waiting.clear()  # its process is killed before it was finished
    rig.folder.release()
    recovery = Recovery(
        rig.files, rig.root, f"{rig.root}/depot", rig.finisher, duplicates_of=lambda _title, _address: policy
    )
    with quiet_log():
        assert recovery.run().finished == 1
    assert [(version.state, version.is_current) for version in versions_of(rig.database)] == [
        ("kept", True),
        ("kept", False),
    ]
    assert len(listed_conflicts(rig.database)) == 2


def test_a_rebuild_that_lists_a_newer_file_leaves_the_held_version_current(tmp_path: Path) -> None:
    """The rows of the newer file were lost, as with a catalog from a backup."""
    files = NoSyncFileSystem()
    with open_database(tmp_path, sync=False) as database:
        rig = ArchiveRig(files, database, root=str(tmp_path), slots=5)
        rig.keep(make_instance(1))
        rig.finish()
        hold(database, 1)
    backup = (tmp_path / "catalog.sqlite").read_bytes()
    with open_database(tmp_path, sync=False) as database:
        again = ArchiveRig(files, database, root=str(tmp_path), slots=5)
        again.keep(make_instance(1, content=1))
        again.finish()
        again.folder.release()
    rig.folder.release()
    (tmp_path / "catalog.sqlite").write_bytes(backup)
    with Rebuilding(str(tmp_path), files=files) as rebuilding:
        rebuilding.look()
        assert list(rebuilding.run()) == []
        assert rebuilding.counts.listed == 1
    with open_database(tmp_path, sync=False) as database:
        assert current(database) == 1
        assert len(listed_conflicts(database)) == 2
        verification = Verification(files, str(tmp_path), database)
        assert list(verification.run()) == []
