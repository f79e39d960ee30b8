"""Lists of the archive's rows, a page at a time, for the routes that give them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import StringConstraints

from stowkeeper.archive.pages import CursorError, ListingFilter, Order, Page, PageRequest
from stowkeeper.web.limits import PAGE_ROWS
from stowkeeper.web.native_models import Cursor, Limit, next_page
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.services import WebServices

_TIME = r"^\d{4}(-\d{2}(-\d{2}(T\d{2}(:\d{2}(:\d{2}(\.\d{1,6})?)?)?Z?)?)?)?$"

Time = Annotated[str, StringConstraints(pattern=_TIME, max_length=27)]
"""A time in UTC in ISO 8601, which may be cut short: 2026-03 is the beginning of a month."""

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=64)]

UIDFilter = Annotated[
    Identifier | None,
    Query(description="A UID: what belongs to that study, series or instance, and what contains it."),
]
FromFilter = Annotated[
    Time | None, Query(description="Received since then, UTC in ISO 8601, may be cut short.")
]
BeforeFilter = Annotated[Time | None, Query(description="Received before then.")]
CallingFilter = Annotated[
    Annotated[str, StringConstraints(max_length=16)] | None,
    Query(description="Only what came from this calling AE title."),
]
OrderChoice = Annotated[Order, Query(description="Which end of the list comes first.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What every list of the archive's rows may be asked."""

    cursor: Cursor = None
    limit: Limit = PAGE_ROWS
    order: OrderChoice = Order.NEWEST
    uid: UIDFilter = None
    received_from: FromFilter = None
    received_before: BeforeFilter = None
    calling_ae_title: CallingFilter = None


Listing = Annotated[ListQuery, Depends()]
"""Type of the parameter that gets what a list was asked."""


def give_page(
    services: WebServices, path: str, rows: Callable[..., Page], asked: ListQuery, **more: object
) -> dict[str, object]:
    """Return a page of a list with the address of the next; `more` goes to the list. Raises ProblemError."""
    only = ListingFilter(
        uid=asked.uid,
        received_from=asked.received_from,
        received_before=asked.received_before,
        calling_ae_title=asked.calling_ae_title,
    )
    try:
        with services.database.read() as connection:
            wanted = PageRequest(cursor=asked.cursor, limit=asked.limit, order=asked.order)
            page = rows(connection, wanted, only, **more)
    except CursorError as error:
        raise wrong_cursor() from error
    parameters: dict[str, Any] = {**asdict(asked), "order": asked.order.value, **more}
    del parameters["cursor"]
    return {"items": page.rows, "next": next_page(path, page.next_cursor, **parameters)}


def wrong_cursor() -> ProblemError:
    """Return the problem that a cursor is none of this list."""
    return ProblemError(
        422,
        "the cursor is none that this list gave: begin without one",
        errors=[{"where": "query.cursor", "what": "it is none of this list"}],
    )
