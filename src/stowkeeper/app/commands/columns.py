"""Tables for people that go on for millions of rows: laid out by the first rows, printed as the rest comes.

On a terminal a table fits its width: cells that may be cut are, from the widest on, and columns that may go
do so, the least important first. Elsewhere nothing is cut and nothing left out.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import click
from rich.cells import cell_len, set_cell_size

from stowkeeper.app.limits import LISTING_SAMPLE_ROWS
from stowkeeper.app.log_lines import printable

Row = Mapping[str, Any]

_GAP = "  "
_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its title, how a row says what stands in it, and what may be done to make it fit.

    `cut_to` is the least width that it may be cut to, None where it has to be whole. `drop` is the order in
    which columns are left out on a narrow terminal, 1 first, 0 never.
    """

    title: str
    text: Callable[[Row], str]
    right: bool = False
    cut_to: int | None = None
    drop: int = 0


def lay_out(columns: Sequence[Column], rows: Iterable[Row], width: int | None) -> Iterator[str]:
    """Yield the lines of a table, title first; `width` is that of the terminal, None where there is none.

    Nothing is yielded of no rows.
    """
    remaining = iter(rows)
    sample = list(islice(remaining, LISTING_SAMPLE_ROWS))
    if not sample:
        return
    widths = [
        max(cell_len(column.title), *(cell_len(_plain(column.text(row))) for row in sample))
        for column in columns
    ]
    shown = list(zip(columns, widths, strict=True))
    if width is not None:
        shown = _fit(shown, width)
    yield _line([(column, size, column.title) for column, size in shown], cut=width is not None)
    for row in chain(sample, remaining):
        yield _line(
            [(column, size, _plain(column.text(row))) for column, size in shown], cut=width is not None
        )


def print_rows(columns: Sequence[Column], rows: Iterable[Row], *, as_json: bool, nothing: str) -> None:
    """Print rows, as lines of JSON or as a table as wide as the terminal; `nothing` is said where there are none of a table."""
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    is_empty = True
    for line in lay_out(columns, rows, width):
        click.echo(line)
        is_empty = False
    if is_empty:
        click.echo(nothing, err=True)


def _plain(text: str) -> str:
    """Show what a sender wrote as it is: no control characters, no line breaks."""
    return printable(text)


def _fit(shown: list[tuple[Column, int]], width: int) -> list[tuple[Column, int]]:
    """Cut what may be cut, and drop what may be dropped, until the columns fit."""
    while True:
        least = sum(min(size, _least(column, size)) for column, size in shown) + len(_GAP) * (len(shown) - 1)
        droppable = [column for column, _ in shown if column.drop]
        if least <= width or not droppable:
            break
        first = min(droppable, key=lambda column: column.drop)
        shown = [pair for pair in shown if pair[0] is not first]
    excess = sum(size for _, size in shown) + len(_GAP) * (len(shown) - 1) - width
    while excess > 0:
        cuttable = [
            (size, index) for index, (column, size) in enumerate(shown) if size > _least(column, size)
        ]
        if not cuttable:
            break
        size, index = max(cuttable)
        shown[index] = (shown[index][0], size - 1)
        excess -= 1
    return shown


def _least(column: Column, size: int) -> int:
    return size if column.cut_to is None else min(size, max(column.cut_to, cell_len(column.title)))


def _line(cells: Sequence[tuple[Column, int, str]], *, cut: bool) -> str:
    parts = []
    for number, (column, size, text) in enumerate(cells):
        if cut and column.cut_to is not None and cell_len(text) > size:
            text = set_cell_size(text, size - 1) + _ELLIPSIS  # noqa: PLW2901 - it is the same cell
        padding = " " * (size - cell_len(text))
        if column.right:
            parts.append(padding + text)
        elif number == len(cells) - 1:
            parts.append(text)
        else:
            parts.append(text + padding)
    return _GAP.join(parts)
