"""Pages of lists join to the whole list, whatever their size and whatever comes meanwhile."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from stowkeeper.archive import catalog, ledger, listing, pages
from stowkeeper.archive.catalog_values import CatalogEntry
from stowkeeper.archive.ledger import AssociationRecord, RequestRecord
from stowkeeper.archive.limits import PAGE_ROWS_MAX, PAGE_WALK_ROWS
from stowkeeper.archive.pages import CursorError, ListingFilter, Order, Page, PageRequest
from stowkeeper.database.engine import Database
from support.catalog_rows import make_entry, open_database

Lists = Callable[..., Page]
LISTS: dict[str, tuple[Lists, Callable[[Database], Iterator[listing.Row]]]] = {
    "studies": (pages.studies, listing.studies),
    "series": (pages.series, listing.series),
    "instances": (pages.instances, listing.instances),
    "receipts": (pages.receipts, listing.receipts),
    "associations": (pages.associations, listing.associations),
    "requests": (pages.requests, listing.requests),
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path, sync=False) as opened:
        fill(opened, range(1, 8))
        yield opened


def entry(number: int, **more: Any) -> CatalogEntry:
    """An instance in a study of two series; the received times are not in the order of the commits."""
    study = f"1.2.{number // 4}"
    return make_entry(number, 1000 - number, study=study, series=f"{study}.{number % 2}", **more)


def fill(database: Database, numbers: range) -> None:
    for number in numbers:
        with database.write() as transaction:
            catalog.insert(transaction, [entry(number)])
            ledger.record_associations(
                transaction,
                [
                    AssociationRecord(
                        association_id=f"a{number}", opened_at=f"2026-0{number % 9}", peer_address=""
                    )
                ],
            )
            ledger.record_requests(
                transaction,
                [
                    RequestRecord(
                        association_id=f"a{number}",
                        message_id=1,
                        sop_class_uid="1.2",
                        sop_instance_uid=f"1.2.3.{number}",
                        transfer_syntax_uid="1.2",
                        requested_at=f"2026-0{number % 9}",
                        status=0xA700 if number % 2 else 0,
                        outcome="refused" if number % 2 else "kept",
                    )
                ],
            )


def walk(
    database: Database,
    page_of: Lists,
    *,
    limit: int = 2,
    order: Order = Order.NEWEST,
    between: Callable[[], None] = lambda: None,
    **more: Any,
) -> list[listing.Row]:
    """Ask for page after page to the end."""
    rows: list[listing.Row] = []
    cursor = None
    while True:
        with database.read() as connection:
            page = page_of(connection, PageRequest(cursor=cursor, limit=limit, order=order), **more)
        assert len(page.rows) <= limit
        rows += page.rows
        cursor = page.next_cursor
        if cursor is None:
            return rows
        between()


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("name", LISTS)
def test_pages_join_to_the_list_of_the_command(
    database: Database, name: str, limit: int, order: Order
) -> None:
    page_of, whole_of = LISTS[name]
    whole = list(whole_of(database))
    assert len(whole) > 1
    found = walk(database, page_of, limit=limit, order=order)
    assert found == (whole if order is Order.OLDEST else whole[::-1])


@pytest.mark.parametrize("count", [7, 8])
def test_the_last_page_has_no_cursor(database: Database, count: int) -> None:
    fill(database, range(8, count + 1))
    with database.read() as connection:
        page = pages.receipts(connection, PageRequest(limit=count))
    assert (len(page.rows), page.next_cursor) == (count, None)


@pytest.mark.parametrize("name", ["instances", "associations", "requests"])
def test_what_comes_meanwhile_shifts_nothing_of_the_newest_first(database: Database, name: str) -> None:
    page_of, whole_of = LISTS[name]
    before = list(whole_of(database))
    number = iter(range(50, 90))

    def come() -> None:
        first = next(number)
        fill(database, range(first, first + 1))

    assert walk(database, page_of, between=come) == before[::-1]


def test_what_goes_meanwhile_makes_no_gap(database: Database) -> None:
    keys = iter([1, 2, 3, 4])

    def go() -> None:
        with database.write() as transaction:
            catalog.mark_removing(transaction, [next(keys)], reason="a test")

    shown = walk(database, pages.instances, order=Order.NEWEST, between=go, all_versions=True)
    assert [row["sop_instance_uid"] for row in shown] == [f"1.2.3.{number}" for number in range(7, 0, -1)]


def test_a_page_of_studies_that_lost_some_goes_on_behind_them(database: Database) -> None:
    with database.write() as transaction:
        keys = range(4, 8)  # of the second study
        catalog.mark_removing(transaction, keys, reason="a test")
        catalog.mark_removed(transaction, keys)
    with database.read() as connection:
        first = pages.studies(connection, PageRequest(limit=1))
        assert (first.rows, first.next_cursor is None) == ([], False)
    assert [row["study_instance_uid"] for row in walk(database, pages.studies, limit=1)] == ["1.2.0"]


# Filters.


def of(database: Database, page_of: Lists, *more: Any, **filters: Any) -> list[str]:
    with database.read() as connection:
        return [row["sop_instance_uid"] for row in page_of(connection, PageRequest(), *more, **filters).rows]


def test_receipts_are_chosen_by_uid_time_title_and_outcome(database: Database) -> None:
    with database.write() as transaction:
        catalog.insert(transaction, [make_entry(1, 2000, content="b", calling_ae_title="MR1")])
    assert of(database, pages.receipts, ListingFilter(uid="1.2.0"))[0] == "1.2.3.1"
    assert of(database, pages.receipts, ListingFilter(calling_ae_title="MR1")) == ["1.2.3.1"]
    assert of(database, pages.receipts, outcome="conflict") == ["1.2.3.1"]
    assert of(database, pages.receipts, ListingFilter(received_before="2026-01-02T00:16:34")) == ["1.2.3.7"]
    assert len(of(database, pages.receipts, ListingFilter(received_from="2026-01-02T00:16:34"))) == 7


def test_instances_are_chosen_by_what_is_special_about_them(database: Database) -> None:
    with database.write() as transaction:
        catalog.insert(transaction, [make_entry(1, 2000, content="b")])
        catalog.hold(transaction, [3], "a test")
    assert of(database, pages.instances, is_held=True) == ["1.2.3.3"]
    assert of(database, pages.instances, in_conflict=True) == ["1.2.3.1", "1.2.3.1"]
    assert len(of(database, pages.instances)) == 7
    assert len(of(database, pages.instances, all_versions=True)) == 8
    assert [row["current"] for row in walk(database, pages.instances, limit=1, in_conflict=True)] == [
        True,
        False,
    ]


def test_requests_are_chosen_by_outcome(database: Database) -> None:
    assert of(database, pages.requests, outcome="refused") == [f"1.2.3.{number}" for number in (7, 5, 3, 1)]
    assert of(database, pages.requests, ListingFilter(uid="a4")) == ["1.2.3.4"]


# What no index leads to.


SPARSE: dict[str, tuple[Lists, dict[str, Any]]] = {
    "receipts of a title": (pages.receipts, {"only": ListingFilter(calling_ae_title="MR1")}),
    "receipts of an outcome": (pages.receipts, {"outcome": "conflict"}),
    "receipts of a title in a time": (
        pages.receipts,
        {"only": ListingFilter(calling_ae_title="MR1", received_before="2026-01-02T00:33")},
    ),
    "instances of a title": (
        pages.instances,
        {"only": ListingFilter(calling_ae_title="MR1"), "all_versions": True},
    ),
    "requests of an instance": (pages.requests, {"only": ListingFilter(uid="1.2.3.2")}),
    "requests of an outcome": (pages.requests, {"outcome": "refused"}),
    "associations of a time": (pages.associations, {"only": ListingFilter(received_from="2026-06")}),
}


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("name", SPARSE)
def test_a_page_looks_at_some_rows_only_and_all_of_them_find_everything(
    database: Database, name: str, limit: int, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as transaction:
        for number in (2, 6):
            again = make_entry(number, 2000 - 20 * number, content="b", calling_ae_title="MR1")
            catalog.insert(transaction, [again])
    page_of, filters = SPARSE[name]
    whole = walk(database, page_of, limit=100, order=order, **filters)
    assert 0 < len(whole) < 8
    for looked_at in (1, 2, 3, 7, 9, 100):
        monkeypatch.setattr("stowkeeper.archive.pages.PAGE_WALK_ROWS", looked_at)
        asked: list[int] = []
        found = walk(
            database,
            page_of,
            limit=limit,
            order=order,
            between=lambda asked=asked: asked.append(1),
            **filters,
        )
        assert found == whole
        if looked_at == 1:
            assert len(asked) >= 7, "it looked at more than it should"


@pytest.mark.slow
def test_what_nobody_sent_is_not_found_at_the_cost_of_some_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PAGE_WALK_ROWS == 50_000
    monkeypatch.setattr("stowkeeper.archive.pages.PAGE_WALK_ROWS", 500)
    with database.write() as transaction:
        catalog.insert(transaction, [make_entry(number, 2 * 3600) for number in range(1000, 2200)])
    with database.read() as connection:
        first = pages.receipts(connection, PageRequest(), ListingFilter(calling_ae_title="NOBODY"))
        assert (first.rows, first.next_cursor is None) == ([], False)
    asked: list[int] = []
    rows = walk(
        database,
        pages.receipts,
        between=lambda: asked.append(1),
        only=ListingFilter(calling_ae_title="NOBODY"),
    )
    assert (rows, len(asked)) == ([], 2)


def test_requests_of_an_association_are_found_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stowkeeper.archive.pages.PAGE_WALK_ROWS", 1)
    assert of(database, pages.requests, association_id="a2") == ["1.2.3.2"]


# Cursors.


def cursor_of(*place: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "é",
        "W10",
        cursor_of(),
        cursor_of(1),
        cursor_of("2026", "1"),
        cursor_of("2026", True),
        cursor_of("2026", 1 << 70),
        cursor_of("2026", -1),
        cursor_of("2026", 1, 2),
        cursor_of(["2026"], 1),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_a_cursor_that_no_page_gave_is_refused(database: Database, cursor: str) -> None:
    with database.read() as connection, pytest.raises(CursorError):
        pages.receipts(connection, PageRequest(cursor=cursor))


def test_a_cursor_of_another_list_is_refused(database: Database) -> None:
    with database.read() as connection:
        cursor = pages.instances(connection, PageRequest(limit=1)).next_cursor
        with pytest.raises(CursorError):
            pages.receipts(connection, PageRequest(cursor=cursor))


@pytest.mark.parametrize("limit", [0, -1, PAGE_ROWS_MAX + 1])
def test_a_page_has_bounds(limit: int) -> None:
    assert PAGE_ROWS_MAX == 1000
    with pytest.raises(ValueError, match="1 to 1000"):
        PageRequest(limit=limit)


# Changes.


def test_changes_are_followed_by_a_number(database: Database) -> None:
    def since(connection: Connection, number: str | int) -> Page:
        return pages.changes(connection, int(number), 3)

    with database.read() as connection:
        first = since(connection, 0)
        second = since(connection, first.next_cursor or "")
        rest = since(connection, second.next_cursor or "")
        nothing = since(connection, rest.next_cursor or "")
    seqs = [row["seq"] for page in (first, second, rest) for row in page.rows]
    assert seqs == sorted(set(seqs))
    assert len(seqs) == 7
    assert (nothing.rows, nothing.next_cursor) == ([], str(seqs[-1]))
    assert first.rows[0]["kind"] == "received"
    assert first.rows[0]["sop_instance_uid"] == "1.2.3.1"
    fill(database, range(8, 9))
    with database.read() as connection:
        assert [row["sop_instance_uid"] for row in since(connection, seqs[-1]).rows] == ["1.2.3.8"]
    with database.read() as connection, pytest.raises(ValueError, match="1 to 1000"):
        pages.changes(connection, 0, 1001)
