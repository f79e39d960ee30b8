"""Long lists of rows, the newest first: read page by page, begun anywhere, ended at a limit."""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, TypeVar

import click
from sqlalchemy import Connection

from stowkeeper.database.engine import Database

T = TypeVar("T")
R = TypeVar("R")

LISTED = 100
"""Rows that a list has where nobody says another number: a screen or two."""


def paging_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command --before and --limit. It gets `before`, a number or None, and `limit`."""

    @click.option(
        "--before", metavar="N", type=click.IntRange(1), help="Go on behind this number: the next page."
    )
    @click.option(
        "--limit",
        metavar="N",
        type=click.IntRange(1),
        default=LISTED,
        show_default=True,
        help="At most so many.",
    )
    @wraps(command)
    def with_paging(**options: Any) -> R:  # noqa: ANN401 - they are the command's own
        return command(**options)

    return with_paging


def page_by_page(
    database: Database,
    read: Callable[[Connection, int | None, int], Sequence[T]],
    number_of: Callable[[T], int],
    *,
    before: int | None,
    limit: int,
    page_size: int,
) -> Iterator[T]:
    """Yield rows page by page, each from a short look of its own.

    `read` returns so many of the newest rows whose number is less than `before`, if that is given.
    """
    left = limit
    while left > 0:
        size = min(left, page_size)
        with database.read() as connection:
            page = read(connection, before, size)
        yield from page
        if len(page) < size:
            return
        left -= len(page)
        before = number_of(page[-1])
