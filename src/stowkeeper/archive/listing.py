"""Listings: what `ls` shows, as dicts whose keys are the names in its JSON lines.

A listing is a generator that reads a page at a time, each from a short look of its own: it never holds a
snapshot open while somebody reads on, and its memory is a page. What comes or goes meanwhile may be in it or
not. The order is that of arrival.

Of each instance the current version is listed; where none is kept, a damaged one, and `state` says so. Counts
are asked of the versions each time.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import tuple_

from stowkeeper.archive import listing_queries
from stowkeeper.archive.listing_queries import EVERYTHING, ListingFilter, ListOf, Row
from stowkeeper.database.engine import Database
from stowkeeper.database.limits import ROWS_PER_PAGE, VARIABLES_MAX

__all__ = [
    "EVERYTHING",
    "ListingFilter",
    "Row",
    "associations",
    "instances",
    "receipts",
    "requests",
    "series",
    "studies",
]


def studies(database: Database, only: ListingFilter = EVERYTHING) -> Iterator[Row]:
    """Yield the studies that hold an instance, each with its patient and its counts."""
    yield from _walk(database, listing_queries.studies(only))


def series(database: Database, only: ListingFilter = EVERYTHING) -> Iterator[Row]:
    """Yield the series that hold an instance, with their counts."""
    yield from _walk(database, listing_queries.series(only))


def instances(
    database: Database,
    only: ListingFilter = EVERYTHING,
    *,
    all_versions: bool = False,
    in_conflict: bool = False,
) -> Iterator[Row]:
    """Yield the instances; with `all_versions`, every version that is not gone.

    With `in_conflict`, only the instances of which several versions differ, each with all of these, oldest first. A
    time or a calling AE title then chooses instances, by one version that fits.
    """
    yield from _walk(
        database, listing_queries.instances(only, all_versions=all_versions, in_conflict=in_conflict)
    )


def receipts(database: Database, only: ListingFilter = EVERYTHING) -> Iterator[Row]:
    """Yield the finished receipts in the order they were received, each with the version it proves."""
    yield from _walk(database, listing_queries.receipts(only))


def associations(database: Database, only: ListingFilter = EVERYTHING) -> Iterator[Row]:
    """Yield the associations in the order they were written, each with its requests counted by outcome."""
    yield from _walk(database, listing_queries.associations(only))


def requests(database: Database, only: ListingFilter = EVERYTHING) -> Iterator[Row]:
    """Yield the C-STORE requests in the order they were written, refused and lost ones too.

    A `uid` is that of an instance as the command named it, an association's id or a receipt's.
    """
    yield from _walk(database, listing_queries.requests_of_all(only))


def _walk(database: Database, listed: ListOf) -> Iterator[Row]:
    """Yield the rows of a list from the oldest on, page by page."""
    names = [column.name for column in listed.place]
    size = ROWS_PER_PAGE if listed.complete is None else VARIABLES_MAX
    query = listed.query.order_by(*listed.place).limit(size)
    last: tuple[Any, ...] | None = None
    while True:
        page = query if last is None else query.where(tuple_(*listed.place) > last)
        with database.read() as connection:
            rows: list[Row] = [dict(row) for row in connection.execute(page).mappings()]
            found = rows if listed.complete is None else listed.complete(connection, rows)
        yield from map(listed.show, found)
        if len(rows) < size:
            return
        last = tuple(rows[-1][name] for name in names)
