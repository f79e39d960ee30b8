"""The desk of the events: follows the changes, and puts in a delivery for each target that has something to be told."""

import asyncio
from collections.abc import Callable, Mapping

import structlog
from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.database.schema import changes, consumers, jobs
from stowkeeper.jobs.states import FINISHED
from stowkeeper.jobs.submission import submit
from stowkeeper.services.events.delivery_job import DELIVER, consumer_of, deliver_request
from stowkeeper.services.events.feed import events_after, newest_change
from stowkeeper.services.events.limits import LOOK_RETRY_SECONDS, WATCH_SECONDS
from stowkeeper.services.events.study_watch import StudyWatch
from stowkeeper.services.events.targets import Targets

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
        is_failing = False
        while True:
            pause = WATCH_SECONDS
            try:
                if await asyncio.to_thread(self.look):
                    pause = 0.0
                is_failing = False
            except DatabaseUnavailable as error:
                if not is_failing:
                    log.error("error", what="events cannot be followed for now", reason=str(error))
                is_failing = True
                pause = LOOK_RETRY_SECONDS
            except Exception:
                log.exception("error", what="events could not be followed, it is tried again")
                pause = LOOK_RETRY_SECONDS
            await asyncio.sleep(pause)

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
            newest = transaction.execute(select(func.coalesce(func.max(changes.c.seq), 0))).scalar_one()
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
            under_way = _under_way(transaction.connection)
            for name, cursor in due.items():
                if name not in under_way:
                    submit(transaction, deliver_request(name, cursor))
        self._wake()

    def _due(self) -> Mapping[str, int]:
        """Return the cursors of the targets that are to be told something, and that no delivery is under way for."""
        due: dict[str, int] = {}
        with self._database.read() as connection:
            newest = newest_change(connection)
            rows = connection.execute(select(consumers.c.name, consumers.c.seq))
            cursors = {row.name: row.seq for row in rows}
            under_way = _under_way(connection)
            for name, target in self._targets().items():
                cursor = cursors.get(consumer_of(name))
                if cursor is None or name in under_way:
                    continue
                # What was looked through in vain is not looked through again each second.
                seen = max(cursor, self._seen.get(name, 0))
                if newest > seen and events_after(connection, seen, 1, kinds=target.kinds):
                    due[name] = cursor
                else:
                    self._seen[name] = newest
        return due


def _under_way(connection: Connection) -> set[str]:
    """Return the targets that a delivery, which follows the changes, is under way for."""
    query = select(jobs.c.subject).where(
        jobs.c.kind == DELIVER, jobs.c.state.not_in([state.value for state in FINISHED])
    )
    return set(connection.execute(query).scalars())
