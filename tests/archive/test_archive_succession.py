"""Which receipt of an instance came last, where a clock was set back or where one was listed late."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.archive import catalog
from stowkeeper.archive.catalog_values import CatalogEntry, VersionState
from stowkeeper.archive.choosing import Asker, Choice, choose_versions
from stowkeeper.database.engine import Database
from support.catalog_rows import make_entry, open_database

UID = "1.2.3.1"


class Clock:
    """The clock of the database, in seconds of the day that `make_entry` counts."""

    def __init__(self) -> None:
        self.second = 0

    def __call__(self) -> str:
        return f"2026-01-02T{self.second // 3600:02d}:{self.second // 60 % 60:02d}:{self.second % 60:02d}.500000Z"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    with open_database(tmp_path, sync=False) as opened:
        monkeypatch.setattr(opened, "_clock", clock)
        yield opened


def entry(received: int, content: str, *, answer_known: bool = True) -> CatalogEntry:
    return make_entry(1, received, content=content, calling_ae_title="CT", answer_known=answer_known)


def insert(database: Database, clock: Clock, at: int, *entries: CatalogEntry) -> None:
    clock.second = at
    with database.write() as transaction:
        catalog.insert(transaction, entries)


def choose(database: Database) -> Choice:
    with database.read() as connection:
        return choose_versions(connection, [UID], Asker(ae_title="CT"))[UID]


def chosen(database: Database) -> int | None:
    found = choose(database).version
    return None if found is None else found.version_key


def in_order(database: Database) -> list[int]:
    """Return the keys of the versions as they came; the current one is the last of them."""
    with database.read() as connection:
        found = catalog.find_versions(connection, [UID], tuple(VersionState))[UID]
        (listed,) = [versions for _, versions in catalog.conflicts(connection)]
    assert found == listed
    assert [version.is_current for version in found] == [False] * (len(found) - 1) + [True]
    return [version.version_key for version in found]


def test_a_clock_that_was_set_back_makes_nothing_older(database: Database, clock: Clock) -> None:
    insert(database, clock, 7201, entry(7200, "a"))
    insert(database, clock, 3605, entry(3604, "b"))
    assert (chosen(database), in_order(database)) == (2, [1, 2])
    insert(database, clock, 3610, entry(3609, "c"))
    assert (chosen(database), in_order(database)) == (3, [1, 2, 3])


def test_a_clock_may_be_set_back_again_and_again(database: Database, clock: Clock) -> None:
    for number, hour in enumerate((9, 5, 7, 3, 8, 1), 1):
        insert(database, clock, hour * 3600 + 1, entry(hour * 3600, f"{number}"))
    assert (chosen(database), in_order(database)) == (6, [1, 2, 3, 4, 5, 6])


def test_a_clock_that_was_set_back_between_two_of_one_batch(database: Database, clock: Clock) -> None:
    first, last = entry(7200, "a"), entry(3605, "b")
    insert(database, clock, 3606, first, last)
    assert in_order(database) == [1, 2]
    found = choose(database).version
    assert found is not None
    assert found.receipt_id == last.receipt.receipt_id


def test_what_was_identical_came_last_though_the_clock_was_set_back(database: Database, clock: Clock) -> None:
    first = entry(7200, "a")
    insert(database, clock, 7201, first)
    insert(database, clock, 7211, entry(7210, "b"))
    clock.second = 3601
    with database.write() as transaction:
        catalog.insert_identical(transaction, [(entry(3600, "a"), first.receipt.receipt_id)])
    assert (chosen(database), in_order(database)) == (1, [1, 2])


def test_what_was_recovered_late_is_as_old_as_it_is(database: Database, clock: Clock) -> None:
    """A process died with it in its depot, and what came after it was listed before it."""
    insert(database, clock, 61, entry(60, "b"))
    insert(database, clock, 91, entry(50, "a", answer_known=False))
    assert (chosen(database), in_order(database)) == (1, [2, 1])


def test_where_nobody_can_say_which_came_last_it_is_a_conflict(database: Database, clock: Clock) -> None:
    """The clock was set back by less than it took to list them, or one was listed late by a process that lives."""
    insert(database, clock, 61, entry(60, "b"))
    insert(database, clock, 62, entry(59, "a"))
    choice = choose(database)
    assert (choice.version, choice.conflict) == (None, True)
    assert "clock" in choice.words
    insert(database, clock, 71, entry(70, "a"))
    assert chosen(database) == 3, "sent once more it is plain"


def test_what_was_identical_is_not_the_later_one_by_being_written_behind(
    database: Database, clock: Clock
) -> None:
    first = entry(60, "a")
    insert(database, clock, 61, first)
    clock.second = 91
    with (
        database.write() as transaction
    ):  # as the finisher writes a batch: what is new, then what is identical
        catalog.insert(transaction, [entry(90, "b")])
        catalog.insert_identical(transaction, [(entry(89, "a"), first.receipt.receipt_id)])
    assert chosen(database) == 2


def test_the_same_bytes_in_whatever_order_are_no_conflict(database: Database, clock: Clock) -> None:
    insert(database, clock, 61, entry(60, "a"))
    insert(database, clock, 62, entry(59, "a"))
    assert chosen(database) is not None
