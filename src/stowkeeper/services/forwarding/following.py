"""Following the changes: what arrived, or belongs to a study that is quiet now, is put to the rules in the order of the changes.

What they chose is written in the transaction that moves the cursor. Where that takes several, since a study is large, the last
one moves it: a row that is there already is not written again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from stowkeeper.archive.catalog_values import portions
from stowkeeper.archive.changes import ChangeKind, newest_change
from stowkeeper.database.engine import Database, Transaction, compile_statement
from stowkeeper.database.schema import changes, consumers, forwards, series, studies, versions
from stowkeeper.services.arrivals import arrivals_of_changes, arrivals_of_study
from stowkeeper.services.conditions import Arrival
from stowkeeper.services.forwarding.destinations import Destinations
from stowkeeper.services.forwarding.limits import CHANGES_PER_LOOK, QUIET_STUDIES_PER_LOOK, ROWS_PER_WRITE
from stowkeeper.services.forwarding.rows import ForwardState
from stowkeeper.services.forwarding.rules import ForwardingRule, When, destinations

CONSUMER: Final = "forwarding"
"""The name under which the cursor over the changes is kept."""

_COLUMNS: Final = (
    "version_key",
    "destination",
    "rule",
    "priority",
    "state",
    "words",
    "created_at",
    "changed_at",
)
_INSERT: Final = compile_statement(
    insert(forwards)
    .values({name: bindparam(name) for name in _COLUMNS})
    .on_conflict_do_nothing(index_elements=["version_key", "destination"]),
    _COLUMNS,
)

Rules = Callable[[], Sequence[ForwardingRule]]
"""Tells the rules in force: they may change while the server runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """What the rules chose: a version for a destination."""

    version_key: int
    destination: str
    rule: str
    priority: int


class RuleFollower:
    """Puts changes to the rules. Several processes of an archive may: what one did the others find done."""

    def __init__(self, database: Database, rules: Rules, places: Destinations) -> None:
        self._database = database
        self._rules = rules
        self._places = places
        self._cursor: int | None = None

    def begin(self) -> None:
        """Have the rules be about what is listed from now on, if nobody followed the changes for them before.

        Without rules nobody follows: rules that come later are not about what arrived until then. Raises
        DatabaseUnavailable.
        """
        with self._database.read() as connection:
            cursor = _cursor(connection)
            newest = newest_change(connection)
        if bool(self._rules()) == (cursor is not None):
            self._cursor = cursor
        elif cursor is None:
            self._cursor = self._set_cursor(newest)
        else:
            with self._database.write() as transaction:
                transaction.execute(delete(consumers).where(consumers.c.name == CONSUMER))
            self._cursor = None

    def look(self) -> bool:
        """Put the next changes to the rules; return whether more are to be looked at at once. Raises DatabaseUnavailable."""
        rules = self._rules()
        if bool(rules) != (self._cursor is not None):
            self.begin()
        if not rules:
            return False
        with self._database.read() as connection:
            cursor, newest = _cursor(connection), newest_change(connection)
            if cursor is None or newest <= cursor:
                reaches_to, chosen = newest, list[_Chosen]()
            else:
                reaches_to, chosen = self._choose(connection, rules, cursor, newest)
        if cursor is None:
            # A process without rules took it away. Nothing is left out: this one knows how far it was.
            self._set_cursor(newest if self._cursor is None else self._cursor)
            return True
        self._cursor = cursor  # another process may have gone on
        if newest <= cursor:
            return False
        if self._write(chosen, cursor, reaches_to):
            self._cursor = reaches_to
        return reaches_to < newest

    def _set_cursor(self, seq: int) -> int:
        """Put in the cursor, unless another process did so meanwhile; return where it is."""
        with self._database.write() as transaction:
            row = insert(consumers).values(name=CONSUMER, seq=seq).on_conflict_do_nothing()
            transaction.execute(row)
            return _cursor(transaction.connection) or 0

    # Choosing.

    def _choose(
        self, connection: Connection, rules: Sequence[ForwardingRule], cursor: int, newest: int
    ) -> tuple[int, list[_Chosen]]:
        """Return up to which change was looked, and what the rules chose of that."""
        at_once = [rule for rule in rules if rule.when is When.RECEIVED]
        when_quiet = [rule for rule in rules if rule.when is When.STUDY_QUIET]
        reaches_to = newest
        arrived: list[tuple[int, Arrival]] = []
        if at_once:
            arrived = list(arrivals_of_changes(connection, cursor, CHANGES_PER_LOOK, _keywords(at_once)))
            if len(arrived) == CHANGES_PER_LOOK:
                reaches_to = arrived[-1][0]
        quiet: list[tuple[int, str]] = []
        if when_quiet:
            quiet = _quiet_studies(connection, cursor, reaches_to)
            if len(quiet) == QUIET_STUDIES_PER_LOOK:
                reaches_to = quiet[-1][0]
        chosen: list[_Chosen] = []
        for seq, arrival in arrived:
            if seq <= reaches_to:
                chosen += self._chosen(at_once, arrival)
        for study_instance_uid in dict.fromkeys(uid for _, uid in quiet):
            arrivals = list(arrivals_of_study(connection, study_instance_uid, _keywords(when_quiet)))
            known = _known(connection, [arrival.version_key for arrival in arrivals])
            for arrival in arrivals:
                some = self._chosen(when_quiet, arrival)
                chosen += [one for one in some if (one.version_key, one.destination) not in known]
        return reaches_to, chosen

    def _chosen(self, rules: Sequence[ForwardingRule], arrival: Arrival) -> list[_Chosen]:
        return [
            _Chosen(
                version_key=arrival.version_key,
                destination=choice.destination,
                rule=choice.rule.name,
                priority=choice.priority,
            )
            for choice in destinations(rules, arrival, self._places.came_from(arrival))
        ]

    # Writing.

    def _write(self, chosen: Sequence[_Chosen], cursor: int, reaches_to: int) -> bool:
        """Write what was chosen and move the cursor; return whether it was where it had been read."""
        parts = list(portions(chosen, ROWS_PER_WRITE)) or [[]]
        for number, part in enumerate(parts, 1):
            with self._database.write() as transaction:
                if _cursor(transaction.connection) != cursor:
                    # Another process looked at the same changes, and wrote what is chosen of them.
                    return False
                _insert(transaction, part)
                if number == len(parts):
                    row = update(consumers).where(consumers.c.name == CONSUMER)
                    transaction.execute(row.values(seq=reaches_to))
        return True


def _insert(transaction: Transaction, chosen: Iterable[_Chosen]) -> None:
    waiting = (ForwardState.WAITING.value, "", transaction.at, transaction.at)
    transaction.executemany(
        _INSERT, [(one.version_key, one.destination, one.rule, one.priority, *waiting) for one in chosen]
    )


def _keywords(rules: Iterable[ForwardingRule]) -> list[str]:
    return sorted({keyword for rule in rules for keyword in rule.conditions.attributes})


def _cursor(connection: Connection) -> int | None:
    found: int | None = connection.execute(
        select(consumers.c.seq).where(consumers.c.name == CONSUMER)
    ).scalar()
    return found


def _quiet_studies(connection: Connection, after: int, last: int) -> list[tuple[int, str]]:
    """Return the numbers of changes by which studies are quiet, and the UIDs of those studies."""
    query = (
        select(changes.c.seq, studies.c.study_instance_uid)
        .join(versions, versions.c.version_key == changes.c.version_key)
        .join(series, series.c.series_key == versions.c.series_key)
        .join(studies, studies.c.study_key == series.c.study_key)
        .where(changes.c.seq > after, changes.c.seq <= last, changes.c.kind == ChangeKind.STUDY_QUIET.value)
        .order_by(changes.c.seq)
        .limit(QUIET_STUDIES_PER_LOOK)
    )
    return [(row.seq, row.study_instance_uid) for row in connection.execute(query)]


def _known(connection: Connection, version_keys: Sequence[int]) -> set[tuple[int, str]]:
    """Return which versions were chosen for which destinations before."""
    known: set[tuple[int, str]] = set()
    for some in portions(version_keys):
        query = select(forwards.c.version_key, forwards.c.destination).where(forwards.c.version_key.in_(some))
        known.update((row.version_key, row.destination) for row in connection.execute(query))
    return known
