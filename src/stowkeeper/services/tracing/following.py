"""How tables are followed: behind the newest row at the beginning, by keys that only grow, some rows at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Column, Connection, Row, Select, func, select

from stowkeeper.archive.catalog_values import portions
from stowkeeper.services.tracing.limits import OPEN_MAX, ROWS_BEHIND_MAX, ROWS_PER_LOOK
from stowkeeper.services.tracing.span import Span, is_wanted, trace_id_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a look at one kind of rows brought: spans, and how many were passed by for good."""

    spans: Sequence[Span] = ()
    passed_by: int = 0


class Source(Protocol):
    """One kind of rows that spans are made of. Not for several threads at once."""

    def begin(self, connection: Connection) -> None:
        """Begin behind what is there now."""
        ...

    def look(self, connection: Connection, room: int) -> Told:
        """Make spans of what came, `room` at most."""
        ...


class Wanted:
    """The share of the traces that is told."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __contains__(self, association_id: object) -> bool:
        return bool(association_id) and is_wanted(trace_id_of(str(association_id)), self.share)


class Cursor:
    """Reads the rows of a table behind those that were read before."""

    def __init__(self, key: Column[Any], share: float = 1.0) -> None:
        self._key = key
        self._share = share
        self.at = 0

    def begin(self, connection: Connection) -> None:
        """Begin behind the newest row."""
        self.at = self._newest(connection)

    def rows(
        self, connection: Connection, query: Select[Any], limit: int = ROWS_PER_LOOK
    ) -> Iterator[Row[Any]]:
        """Yield the rows of a query, whose first column is the key. What the caller did not come to, it is given again."""
        for row in connection.execute(query.where(self._key > self.at).order_by(self._key).limit(limit)):
            self.at = row[0]
            yield row

    def passed_by(self, connection: Connection) -> int:
        """Give up what is too far behind, and return how many spans that may have been."""
        newest = self._newest(connection)
        # A table without a sequence may give a key again when its last rows were deleted.
        self.at = min(self.at, newest)
        behind = newest - self.at
        if behind <= ROWS_BEHIND_MAX:
            return 0
        self.at = newest
        return round(behind * self._share)

    def _newest(self, connection: Connection) -> int:
        return int(connection.execute(select(func.max(self._key))).scalar() or 0)


class Awaited:
    """Keys of rows whose end is awaited, the oldest first; each with what is known of it."""

    def __init__(self, bound: int = OPEN_MAX) -> None:
        self._bound = bound
        self._known: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, key: int) -> Any:  # noqa: ANN401 - what the one who put it in knows of it
        return self._known[key]

    def add(self, key: int, known: Any = None) -> int:  # noqa: ANN401 - likewise
        """Await a row, or await it behind the others; return how many are given up for it."""
        self._known.pop(key, None)
        self._known[key] = known
        if len(self._known) <= self._bound:
            return 0
        del self._known[next(iter(self._known))]
        return 1

    def discard(self, key: int) -> None:
        """Await a row no more."""
        self._known.pop(key, None)

    def first(self, count: int) -> list[int]:
        """Return those that were not looked at for longest."""
        return [key for key, _ in zip(self._known, range(count), strict=False)]

    def found(
        self, connection: Connection, query: Select[Any], key: Column[Any], keys: Iterable[int]
    ) -> Mapping[int, Row[Any]]:
        """Return the rows of these keys that there are; the first column of the query is the key."""
        rows: dict[int, Row[Any]] = {}
        for portion in portions(keys):
            rows |= {row[0]: row for row in connection.execute(query.where(key.in_(portion)))}
        return rows
