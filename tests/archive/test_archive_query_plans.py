"""What the receiving path and the common commands ask of the database walks through no large table."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from stowkeeper.archive import catalog, changes, ledger, listing, listing_queries, pages
from stowkeeper.archive.agreement import damaged_receipts_at
from stowkeeper.archive.catalog import CatalogEntry
from stowkeeper.archive.checking import choose_versions, hold_for_commitment
from stowkeeper.archive.choosing import Asker
from stowkeeper.archive.verification import finish_damaged
from stowkeeper.database.engine import Database
from stowkeeper.durable.filesystem import FileSystem
from support.catalog_rows import make_entry, open_database


def insert(database: Database, *entries: CatalogEntry) -> None:
    with database.write() as transaction:
        catalog.insert(transaction, entries)


def insert_identical(database: Database, entry: CatalogEntry, older: CatalogEntry) -> None:
    with database.write() as transaction:
        catalog.insert_identical(transaction, [(entry, older.receipt.receipt_id)])


def read(database: Database, question: Callable[..., Any], *arguments: object) -> Any:
    with database.read() as connection:
        answer = question(connection, *arguments)
        return list(answer) if isinstance(answer, Iterator) else answer


def mark_all(database: Database) -> None:
    with database.write() as transaction:
        catalog.mark_superseded(transaction, [1, 2], removal_due_at="2026", reason="")
        catalog.mark_removing(transaction, [1, 2], reason="")
        catalog.mark_removed(transaction, [1, 2])
        catalog.hold(transaction, [3], "because")
        catalog.release_hold(transaction, [3], "because")


def page_behind(
    database: Database, page_of: Callable[..., pages.Page], listed: listing_queries.ListOf
) -> None:
    """Ask for a page in the middle of a list; the first one reads a few rows from an end of an index."""
    place: dict[str, object] = {column.name: 3 for column in listed.place}
    place |= {"received_at": "2026-01-02T00:00:03.000000Z"}
    with database.read() as connection:
        for order in pages.Order:
            page_of(connection, pages.PageRequest(order=order, cursor=pages._encode(place, listed)))


def hold_and_release(database: Database) -> None:
    with database.write() as transaction:
        hold_for_commitment(transaction, [1, 2], "2.25.1", Asker(ae_title="SCANNER"))
        catalog.release_hold(transaction, [1], "commitment 2.25.1 asked by SCANNER")


HOT: dict[str, Callable[[Database], object]] = {
    "a batch of new instances": lambda database: insert(
        database, make_entry(50, 50), make_entry(51, 51, study="1.3")
    ),
    "a batch of known receipts": lambda database: insert(database, make_entry(1, 1)),
    "a second version": lambda database: insert(database, make_entry(1, 60, content="other")),
    "an identical one": lambda database: insert_identical(database, make_entry(2, 61), make_entry(2, 2)),
    "versions of an instance": lambda database: read(database, catalog.find_versions, ["1.2.3.1"]),
    "by receipt": lambda database: read(database, catalog.find_version_by_receipt, "r"),
    "has receipt": lambda database: read(database, catalog.has_receipt, "r"),
    "by path": lambda database: read(database, catalog.find_version_by_path, "p"),
    "for removal": lambda database: list(read(database, catalog.versions_for_removal, "1.2.1")),
    "due": lambda database: read(database, catalog.due_for_removal, "2027"),
    "conflicts": lambda database: list(read(database, catalog.conflicts)),
    "ls conflicts": lambda database: list(listing.instances(database, in_conflict=True)),
    "ls conflicts of a day": lambda database: list(
        listing.instances(database, listing.ListingFilter(received_from="2026-01-02"), in_conflict=True)
    ),
    "damaged files": lambda database: finish_damaged(FileSystem(), str(Path(database.path).parent), database),
    "damaged receipts": lambda database: read(database, damaged_receipts_at, ["p", "q"]),
    "changes": lambda database: read(database, changes.changes_after, 2),
    "walk as listed": lambda database: list(catalog.iterate_versions(database)),
    "walk by folder": lambda database: list(catalog.iterate_versions(database, catalog.VersionOrder.FOLDER)),
    "ls instances of a study": lambda database: list(
        listing.instances(database, listing.ListingFilter(uid="1.2.1"))
    ),
    "ls receipts of a study": lambda database: list(
        listing.receipts(database, listing.ListingFilter(uid="1.2.1"))
    ),
    "ls receipts of a day": lambda database: list(
        listing.receipts(
            database, listing.ListingFilter(received_from="2026-01-02", received_before="2026-01-03")
        )
    ),
    "ls studies of an instance": lambda database: list(
        listing.studies(database, listing.ListingFilter(uid="1.2.3.1"))
    ),
    "a state": mark_all,
    "a page of receipts": lambda database: page_behind(
        database, pages.receipts, listing_queries.receipts(pages.EVERYTHING)
    ),
    "a page of instances": lambda database: page_behind(
        database, pages.instances, listing_queries.instances(pages.EVERYTHING)
    ),
    "a page of requests": lambda database: page_behind(
        database, pages.requests, listing_queries.requests_of_all(pages.EVERYTHING)
    ),
    "a page of a study's receipts": lambda database: read(
        database, pages.receipts, pages.FIRST, listing.ListingFilter(uid="1.2.1")
    ),
    "a page of a study's instances": lambda database: read(
        database, pages.instances, pages.FIRST, listing.ListingFilter(uid="1.2.1")
    ),
    "a page of changes": lambda database: read(database, pages.changes, 2),
    "which versions are meant": lambda database: read(
        database, choose_versions, ["1.2.3.1", "1.2.3.2"], Asker(ae_title="SCANNER")
    ),
    "a hold and its release": hold_and_release,
    "requests of an association": lambda database: read(database, ledger.requests_of, "a"),
    "ls associations": lambda database: list(listing.associations(database)),
}


SMALL_INDEXES = ("versions_in_conflict", "versions_leaving", "versions_damaged")
"""Of rows that are few whatever the size of the archive."""


def plans_of(database: Database, question: str) -> dict[str, list[str]]:
    """Ask a question of a database, and return the steps by which SQLite answers each of its statements."""
    asked: list[str] = []
    watched: list[Any] = []

    def watch(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(asked.append)
        watched.append(driver)

    for engine in (database._reader_engine, database._writer_engine):
        event.listen(engine, "begin", watch)
    HOT[question](database)
    for driver in watched:
        driver.set_trace_callback(None)
    statements = {line for line in asked if line.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH"))}
    with database.read() as connection:
        return {
            statement: [
                step[3]
                for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.replace('%', '%%')}")
            ]
            for statement in statements
        }


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Give a small catalog."""
    with open_database(tmp_path) as opened:
        insert(opened, *(make_entry(number, number, patient_id="P") for number in range(1, 6)))
        yield opened


@pytest.mark.parametrize("question", HOT)
def test_no_hot_question_walks_through_a_large_table(database: Database, question: str) -> None:
    large = ("versions", "instances", "receipts", "changes", "requests")
    plans = plans_of(database, question)
    for statement, steps in plans.items():
        if statement.startswith("INSERT INTO ") and " VALUES (" in statement:
            # It looks nothing up. Of several rows the plan has the walk to rows that refer to what was missing until now, which
            # SQLite leaves out while nothing is missing: 300,000 changes made a batch no slower.
            continue
        walks = [step for step in steps if step.startswith("SCAN") and step.split()[1] in large]
        assert [step for step in walks if step.split()[-1] not in SMALL_INDEXES] == [], statement
    assert plans


def test_damaged_files_are_found_without_a_walk_from_key_to_key(database: Database) -> None:
    plans = plans_of(database, "damaged files")
    (steps,) = (steps for statement, steps in plans.items() if "'damaged'" in statement)
    assert any("USING INDEX versions_damaged" in step for step in steps), steps
