"""Pages: one part of a list at a time, for an interface that is asked again for the next.

A page begins behind the row at which the one before ended, whatever came or went meanwhile: so pages join without gap or
repetition, and one far down costs as little as the first. Where no index leads to what is asked for, a page looks at so
many rows and no more; what it found there may be few rows or none, and the cursor says where to go on. The rows are those
of `ls --json`. A cursor means nothing outside of this module; what a listing of the newest first gave is of use for that
alone.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, tuple_

from stowkeeper.archive import changes as change_rows
from stowkeeper.archive import listing_queries
from stowkeeper.archive.limits import PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX, PAGE_WALK_ROWS
from stowkeeper.archive.listing_queries import EVERYTHING, ListingFilter, ListOf, Row

__all__ = [
    "EVERYTHING",
    "CursorError",
    "ListingFilter",
    "Order",
    "Page",
    "PageRequest",
    "associations",
    "changes",
    "instances",
    "receipts",
    "requests",
    "series",
    "studies",
]


class CursorError(ValueError):
    """A cursor is none that a page of this list gave."""


class Order(StrEnum):
    """From which end a list is read."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which part of a list: `limit` rows behind `cursor`, or from the beginning. Raises ValueError for a wrong limit."""

    cursor: str | None = None
    limit: int = PAGE_ROWS_DEFAULT
    order: Order = Order.NEWEST

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= PAGE_ROWS_MAX:
            raise ValueError(f"a page has 1 to {PAGE_ROWS_MAX} rows, not {self.limit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some rows, and the cursor of what follows: None where nothing does. There can be fewer rows than were asked for."""

    rows: list[Row]
    next_cursor: str | None


FIRST = PageRequest()


def studies(connection: Connection, page: PageRequest = FIRST, only: ListingFilter = EVERYTHING) -> Page:
    """Return studies that hold an instance, each with its patient and its counts. Raises CursorError."""
    return _page(connection, page, listing_queries.studies(only))


def series(connection: Connection, page: PageRequest = FIRST, only: ListingFilter = EVERYTHING) -> Page:
    """Return series that hold an instance, with their counts. Raises CursorError."""
    return _page(connection, page, listing_queries.series(only))


def instances(
    connection: Connection,
    page: PageRequest = FIRST,
    only: ListingFilter = EVERYTHING,
    *,
    all_versions: bool = False,
    in_conflict: bool = False,
    is_held: bool = False,
) -> Page:
    """Return instances, each by its current version; with `all_versions`, every version that is not gone.

    With `in_conflict`, the versions that differ from another of their instance, those of an instance next to each other;
    with `is_held`, versions that somebody holds. Raises CursorError.
    """
    return _page(
        connection,
        page,
        listing_queries.instances(only, all_versions=all_versions, in_conflict=in_conflict, is_held=is_held),
    )


def receipts(
    connection: Connection,
    page: PageRequest = FIRST,
    only: ListingFilter = EVERYTHING,
    *,
    outcome: str | None = None,
) -> Page:
    """Return receipts by the time they were received, each with the version it proves. Raises CursorError."""
    return _page(connection, page, listing_queries.receipts(only, outcome=outcome))


def associations(connection: Connection, page: PageRequest = FIRST, only: ListingFilter = EVERYTHING) -> Page:
    """Return associations in the order they were written, with their requests counted. Raises CursorError."""
    return _page(connection, page, listing_queries.associations(only))


def requests(
    connection: Connection,
    page: PageRequest = FIRST,
    only: ListingFilter = EVERYTHING,
    *,
    outcome: str | None = None,
    association_id: str | None = None,
) -> Page:
    """Return C-STORE requests in the order they were written, refused and lost ones too. Raises CursorError."""
    listed = listing_queries.requests_of_all(only, outcome=outcome, association_id=association_id)
    return _page(connection, page, listed)


def changes(connection: Connection, since: int = 0, limit: int = PAGE_ROWS_DEFAULT) -> Page:
    """Return what happened in the archive after the change of number `since`, in order.

    The cursor is the number of the last change of the page, as text, also where nothing follows yet: so that one goes on
    asking with it. Raises ValueError for a wrong limit.
    """
    PageRequest(limit=limit)
    found = change_rows.changes_after(connection, since, limit)
    rows = [
        {
            "seq": change.seq,
            "at": change.at,
            "kind": change.kind.value,
            "receipt_id": change.receipt_id,
            "sop_instance_uid": change.sop_instance_uid,
            "study_instance_uid": change.study_instance_uid,
            "series_instance_uid": change.series_instance_uid,
            "detail": change.detail,
        }
        for change in found
    ]
    return Page(rows=rows, next_cursor=str(found[-1].seq if found else since))


def _page(connection: Connection, page: PageRequest, listed: ListOf) -> Page:
    place = listed.place
    is_newest_first = page.order is Order.NEWEST
    ordered = [column.desc() for column in place] if is_newest_first else list(place)

    def behind(query: Select[Any]) -> Select[Any]:
        if page.cursor is None:
            return query
        last = _decode(page.cursor, listed)
        return query.where(tuple_(*place) < last if is_newest_first else tuple_(*place) > last)

    end: Row | None = None
    query = behind(listed.query)
    if listed.walk is not None:
        walked = behind(listed.walk).order_by(*ordered).limit(1).offset(PAGE_WALK_ROWS - 1)
        found = connection.execute(walked).mappings().first()
        if found is not None:
            end = dict(found)
            to = [end[column.name] for column in place]
            query = query.where(tuple_(*place) >= to if is_newest_first else tuple_(*place) <= to)
    # One row more tells whether anything follows.
    query = query.order_by(*ordered).limit(page.limit + 1)
    rows: list[Row] = [dict(row) for row in connection.execute(query).mappings()]
    if len(rows) > page.limit:
        rows = rows[: page.limit]
        end = rows[-1]
    completed = rows if listed.complete is None else listed.complete(connection, rows)
    return Page(
        rows=[listed.show(row) for row in completed],
        next_cursor=None if end is None else _encode(end, listed),
    )


def _encode(row: Mapping[str, Any], listed: ListOf) -> str:
    place = [row[column.name] for column in listed.place]
    text = json.dumps(place, separators=(",", ":")).encode("ascii")
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode("ascii")


def _decode(cursor: str, listed: ListOf) -> Sequence[Any]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CursorError("the cursor is not one that this list gave") from error
    types = [column.type.python_type for column in listed.place]
    if not isinstance(place, list) or [type(part) for part in place] != types:
        raise CursorError("the cursor is not one that this list gave")
    if any(isinstance(part, int) and not 0 <= part < 1 << 63 for part in place):
        raise CursorError("the cursor is not one that this list gave")
    return place
