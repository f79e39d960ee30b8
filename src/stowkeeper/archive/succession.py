"""Succession: in which order the receipts of an instance came, though a clock may have been set back between them.

Neither of the two orders that rows have is enough alone. The times received follow the clock, which can be set back: then
what came last seems to have come first. The keys follow the commits, and what waited in the depot, for a process that died
or for a disk that failed, is committed behind what came after it.

Where both orders agree nothing is asked. Where they do not, the times at which the rows were written tell. Keys grow with
the commits, so a later row with an earlier time proves that the clock was set back between both, and a receipt that is
younger than its own row by the clock proves it too; there the keys hold. Elsewhere the times received do, and what only
the keys put behind the last is a rival of it: with a small step of the clock nobody can say which came last. What was
recovered or rebuilt is none, since that is committed late by its nature.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, select, text

from stowkeeper.archive.catalog_values import portions
from stowkeeper.database.schema import changes, receipts


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A receipt as far as its place among others goes: its key, its time and its id."""

    receipt_key: int
    received_at: str
    receipt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """Receipts of an instance as they came, as far as that is known; each of the `rivals` may be the last one instead."""

    arrivals: Sequence[Arrival]
    rivals: Sequence[Arrival] = ()


def in_succession(connection: Connection, groups: Iterable[Sequence[Arrival]]) -> list[Succession]:
    """Return each group of receipts of an instance in the order in which they came."""
    found = [Succession(arrivals=sorted(group, key=_time)) for group in groups]
    doubtful = [number for number, one in enumerate(found) if not _agrees(one.arrivals)]
    if doubtful:
        rows = _rows_of(
            connection, [arrival.receipt_key for number in doubtful for arrival in found[number].arrivals]
        )
        for number in doubtful:
            found[number] = _by_evidence(sorted(found[number].arrivals), rows)
    return found


def _time(arrival: Arrival) -> tuple[str, str]:
    return arrival.received_at, arrival.receipt_id


def _agrees(by_time: Sequence[Arrival]) -> bool:
    return all(one.receipt_key < other.receipt_key for one, other in pairwise(by_time))


def _by_evidence(by_key: Sequence[Arrival], rows: Mapping[int, Any]) -> Succession:
    """Order receipts by time, between two moments at which the clock was set back for certain."""
    found: list[tuple[int, tuple[str, str], Arrival]] = []
    settings = 0
    for before, arrival in pairwise([by_key[0], *by_key]):
        row, row_before = rows.get(arrival.receipt_key), rows.get(before.receipt_key)
        if row is not None and row_before is not None:
            at, at_before = row.at, row_before.at
            was_ahead = before.received_at > at_before and arrival.received_at < before.received_at
            settings += at < at_before or was_ahead
        found.append((settings, _time(arrival), arrival))
    arrivals = [arrival for _, _, arrival in sorted(found)]
    rivals = [
        arrival
        for arrival in by_key
        if arrival.receipt_key > arrivals[-1].receipt_key
        and _is_rival(rows.get(arrival.receipt_key), rows.get(arrivals[-1].receipt_key))
    ]
    return Succession(arrivals=arrivals, rivals=rivals)


def _is_rival(row: Any, last: Any) -> bool:  # noqa: ANN401 - a row has its query's columns, no type of its own
    """Tell whether a row behind that of the last receipt may be of a later one. Of one transaction keys say nothing."""
    if row is None or last is None:
        return True
    return bool(row.answer == "known" and row.at != last.at)


def _rows_of(connection: Connection, receipt_keys: Sequence[int]) -> dict[int, Any]:
    """Return of some receipts when their rows were written, by the clock of then, and whether they were answered first."""
    query = select(changes.c.receipt_key, changes.c.at, receipts.c.answer).join(
        receipts, receipts.c.receipt_key == changes.c.receipt_key
    )
    return {
        row.receipt_key: row
        for portion in portions(receipt_keys)
        for row in connection.execute(
            query.where(changes.c.receipt_key.in_(portion), text("kind = 'received'"))
        )
    }
