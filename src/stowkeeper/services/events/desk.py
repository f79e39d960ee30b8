"""The desk of the events: follows the changes, and puts in a delivery for each target that has something to be told."""

from collections.abc import Callable, Mapping

import structlog
from sqlalchemy import Connection, delete, select, text
from sqlalchemy.dialects.sqlite import insert

from stowkeeper.archive.changes import newest_change
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.database.schema import consumers, jobs
from stowkeeper.jobs.states import FINISHED, JobState
from stowkeeper.jobs.submission import submit
from stowkeeper.services.events.delivery_job import DELIVER, consumer_of, deliver_request, target_of
from stowkeeper.services.events.feed import events_after
from stowkeeper.services.events.limits import LOOK_RETRY_SECONDS, WATCH_SECONDS
from stowkeeper.services.events.study_watch import StudyWatch
from stowkeeper.services.events.targets import Targets
from stowkeeper.services.keep_looking import keep_looking

log = structlog.get_logger("stowkeeper.events")


class EventDesk:
    """Looks at the changes every second. Several processes of an archive may: what one did the others find done."""

    def __init__(
        self, database: Database, watch: StudyWatch, targets: Targets, wake: Callable[[], None]
    ) -> None:
        self._database = database
        self._watch = watch
        self._targets = targets
        self._wake = wake
        self._seen: dict[str, int] = {}

    def begin(self) -> None:
        """Make sure that all that is listed from now on is told. Raises DatabaseUnavailable."""
        self._watch.begin()
        self._begin_targets()

    async def run(self) -> None:
        """Look until it is cancelled."""
        await keep_looking(
            self.look,
            log,
            what="events cannot be followed",
            seconds=WATCH_SECONDS,
            retry_seconds=LOOK_RETRY_SECONDS,
        )

    def look(self) -> bool:
        """Look once; return whether more is to be done at once. Blocks. Raises DatabaseUnavailable."""
        goes_on = self._watch.look()
        self._submit_deliveries()
        return goes_on

    def _begin_targets(self) -> None:
        """Give each target that has none a cursor at the newest change: it is not told of what was before it."""
        wanted = {consumer_of(name) for name in self._targets()}
        with self._database.read() as connection:
            missing = wanted.difference(connection.execute(select(consumers.c.name)).scalars())
        if not missing:
            return
        with self._database.write() as transaction:
            newest = newest_change(transaction.connection)
            rows = [{"name": name, "seq": newest} for name in sorted(missing)]
            transaction.execute(insert(consumers).on_conflict_do_nothing(), rows)

    def _submit_deliveries(self) -> None:
        targets = self._targets()
        if not targets:
            return
        self._begin_targets()
        due = self._due()
        if not due:
            return
        with self._database.write() as transaction:
            under_way, cursors = _under_way(transaction.connection), _cursors(transaction.connection)
            for name, cursor in due.items():
                # Another process may have delivered all of it meanwhile.
                if name not in under_way and cursors.get(name) == cursor:
                    _forget_delivered(transaction, name)
                    submit(transaction, deliver_request(name, cursor))
        self._wake()

    def _due(self) -> Mapping[str, int]:
        """Return the cursors of the targets that are to be told something, and that no delivery is under way for."""
        due: dict[str, int] = {}
        with self._database.read() as connection:
            newest = newest_change(connection)
            under_way, cursors = _under_way(connection), _cursors(connection)
            for name, target in self._targets().items():
                cursor = cursors.get(name)
                if cursor is None or name in under_way:
                    continue
                # What was looked through in vain is not looked through again each second.
                seen = max(cursor, self._seen.get(name, 0))
                if newest > seen and events_after(connection, seen, 1, kinds=target.kinds):
                    due[name] = cursor
                else:
                    self._seen[name] = newest
        return due


def _forget_delivered(transaction: Transaction, target_name: str) -> None:
    """Remove the last job of a target, which came to its end: there would be one for each second in which anything arrives.

    What became of its events the cursor says. One that failed or was cancelled stays, as every other job.
    """
    # The second condition in these words, so that the partial index of the subjects is used.
    row = delete(jobs).where(jobs.c.subject == target_name, text("jobs.subject <> ''"))
    transaction.execute(row.where(jobs.c.kind == DELIVER, jobs.c.state == JobState.SUCCESS.value))


def _cursors(connection: Connection) -> dict[str, int]:
    """Return how far each target was told, by its name."""
    rows = connection.execute(select(consumers.c.name, consumers.c.seq))
    return {target_of(row.name): row.seq for row in rows}


def _under_way(connection: Connection) -> set[str]:
    """Return the targets that a delivery, which follows the changes, is under way for."""
    query = select(jobs.c.subject).where(
        jobs.c.kind == DELIVER, jobs.c.state.not_in([state.value for state in FINISHED])
    )
    return set(connection.execute(query).scalars())
