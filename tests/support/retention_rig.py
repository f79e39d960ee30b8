"""An archive under retention rules: instances of any age, clocks that are set by hand, and the two jobs run one at a time."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update
from structlog.testing import capture_logs

from stowkeeper.archive import catalog
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import changes, forwards, instances, jobs, receipts, versions
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.job import JSON, Job, JobItem
from stowkeeper.jobs.kind import Ending, Finished, JobKind, NextStep
from stowkeeper.jobs.run import JobRun
from stowkeeper.jobs.states import FINISHED, JobState
from stowkeeper.jobs.threads import Threads
from stowkeeper.jobs.times import later
from stowkeeper.services.archive_jobs import REMOVE, RemoveJob
from stowkeeper.services.conditions import Conditions
from stowkeeper.services.retention.clock_watch import ClockWatch
from stowkeeper.services.retention.retention_job import RETENTION, RetentionJob, keep_retaining
from stowkeeper.services.retention.rules import RetentionRule, Unit
from stowkeeper.services.retention.sparing import RetentionSparing
from support.archive_rig import ArchiveRig
from support.instances import make_instance
from support.job_rig import Clocks, database_with

DAY = 86_400.0


def rule(name: str = "old", **more: Any) -> RetentionRule:
    """Return a rule for what is older than 30 days."""
    values = {"after_days": 30.0, "conditions": Conditions(), **more}
    return RetentionRule(name=name, definition=f"{name} {sorted(map(str, values.items()))}", **values)


@dataclass(slots=True)
class RetentionRig:
    """The archive, its clocks, and the rules in force, which a test may change at any time."""

    archive: ArchiveRig
    clocks: Clocks
    threads: Threads
    rules: list[RetentionRule] = field(default_factory=list)
    logs: list[Any] = field(default_factory=list)
    watch: ClockWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = ClockWatch(clock=self.clocks.now, running=self.clocks.steady)

    @property
    def database(self) -> Database:
        """Return the archive's database."""
        return self.archive.database

    def keep(self, *numbers: int, days_ago: float = 100.0, **more: Any) -> None:
        """Keep instances that were received so long ago by the clock; `more` is what `make_instance` takes."""
        for number in numbers:
            receipt = self.archive.keep(make_instance(number, **more))
            assert self.archive.finish() == []
            at = later(self.clocks.wall, -days_ago * DAY)
            with self.database.write() as transaction:
                found = receipts.c.receipt_id == receipt.receipt_id
                transaction.execute(update(receipts).where(found).values(received_at=at))

    # The jobs.

    def look(self) -> list[Any]:
        """Let the rules look once; return what the log says."""
        with self.database.write() as transaction:
            keep_retaining(transaction, created_by="test")
        job = self._unfinished(RETENTION)[0]
        kind = RetentionJob(self._reader, lambda: tuple(self.rules), self.watch)
        with capture_logs() as logs:
            self._run(kind, job)
        self.logs += logs
        return [line for line in logs if line["event"] == "retention"]

    def look_daily(self, days: int = 1) -> list[Any]:
        """Let days pass, with a look at the end of each; return what the log says of the last."""
        said: list[Any] = []
        for _ in range(days):
            self.clocks.pass_(DAY)
            said = self.look()
        return said

    def removals(self) -> list[Job]:
        """Return the removals that wait."""
        return self._unfinished(REMOVE)

    def remove(self, connection_hook: Callable[[Connection], None] | None = None) -> list[JobItem]:
        """Carry out the removals that wait; return their items. `connection_hook` is called in the transaction, before its look."""
        sparing = RetentionSparing(lambda: tuple(self.rules))

        def retained(
            connection: Connection, decided_by: JSON, uid: str, version_keys: Collection[int]
        ) -> str:
            if connection_hook is not None:
                connection_hook(connection)
            return sparing(connection, decided_by, uid, version_keys)

        found: list[JobItem] = []
        for job in self.removals():
            with capture_logs() as logs:
                self._run(RemoveJob(self._reader, retained), job)
            self.logs += logs
            with self.database.read() as connection:
                found += job_rows.items_of(connection, job.job_key)
        return found

    def go_through(self) -> list[JobItem]:
        """Let the notice, its day and the removal pass."""
        self.look()
        self.look_daily()
        return self.remove()

    @property
    def _reader(self) -> ArchiveReader:
        return self.archive  # type: ignore[return-value]  # it has the files, the root and the database

    def _unfinished(self, kind: str) -> list[Job]:
        states = [state.value for state in JobState if state not in FINISHED]
        query = select(jobs.c.job_id).where(jobs.c.kind == kind, jobs.c.state.in_(states))
        with self.database.read() as connection:
            ids = connection.execute(query.order_by(jobs.c.job_key)).scalars().all()
            found = [job_rows.find(connection, job_id) for job_id in ids]
        return [job for job in found if job is not None]

    def _run(self, kind: JobKind, job: Job) -> Ending:
        """Run a job once as an engine does: its row is ours meanwhile, and its ending stands there afterwards."""
        self._write(job, state="running", owner="test", attempts=job.attempts + 1)
        with self.database.read() as connection:
            taken = job_rows.find(connection, job.job_id)
        assert taken is not None
        ending = asyncio.run(self._ending(kind, taken))
        if isinstance(ending, NextStep):
            self._write(job, state="pending", owner="", checkpoint=json.dumps(ending.checkpoint))
        else:
            state = "success" if isinstance(ending, Finished) else "failure"
            self._write(job, state=state, owner="", error=ending.words, finished_at=self.clocks.wall)
        return ending

    async def _ending(self, kind: JobKind, job: Job) -> Ending:
        return await kind.run(JobRun(job, self.database, self.threads))

    def _write(self, job: Job, **values: Any) -> None:
        with self.database.write() as transaction:
            transaction.execute(update(jobs).where(jobs.c.job_key == job.job_key).values(values))

    # What there is.

    def version_key(self, number: int) -> int:
        """Return the version of an instance that came last."""
        query = (
            select(versions.c.version_key)
            .join(instances, instances.c.instance_key == versions.c.instance_key)
            .where(instances.c.sop_instance_uid == f"1.2.3.{number}")
            .order_by(versions.c.version_key.desc())
        )
        with self.database.read() as connection:
            return int(connection.execute(query.limit(1)).scalar_one())

    def states(self) -> Mapping[str, str]:
        """Return the state of the last version of each instance."""
        query = (
            select(instances.c.sop_instance_uid, versions.c.state)
            .join(versions, versions.c.instance_key == instances.c.instance_key)
            .order_by(versions.c.version_key)
        )
        with self.database.read() as connection:
            return {uid: state for uid, state in connection.execute(query)}  # noqa: C416 - rows, no pairs

    def gone(self) -> list[int]:
        """Return the numbers of the instances that are removed."""
        return [int(uid.rpartition(".")[2]) for uid, state in self.states().items() if state == "removed"]

    def reasons(self) -> set[str]:
        """Return what the ledger says why things were removed."""
        query = select(changes.c.detail).where(changes.c.kind.in_(["removing", "removed"]))
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def hold(self, number: int, reason: str = "commitment 1.2 asked by CT1") -> None:
        """Hold an instance."""
        with self.database.write() as transaction:
            catalog.hold(transaction, [self.version_key(number)], reason)

    def forward(self, number: int, destination: str = "pacs", state: str = "waiting") -> None:
        """Have an instance chosen for a destination by a forwarding rule."""
        row = {
            "version_key": self.version_key(number),
            "destination": destination,
            "rule": "all",
            "priority": 0,
            "state": state,
            "words": "",
            "created_at": self.clocks.wall,
            "changed_at": self.clocks.wall,
        }
        with self.database.write() as transaction:
            transaction.execute(insert(forwards), [row])

    def files(self) -> list[str]:
        """Return what stands on the shelf."""
        return self.archive.shelf()


@contextlib.contextmanager
def retention_rig(folder: Path, *rules: RetentionRule) -> Iterator[RetentionRig]:
    """Make an empty archive for the length of a block."""
    clocks = Clocks()
    threads = Threads("jobs", 2)
    with contextlib.closing(database_with(folder, clocks)) as database:
        archive = ArchiveRig(FileSystem(), database, root=str(folder), slots=10)
        yield RetentionRig(archive=archive, clocks=clocks, threads=threads, rules=list(rules))
    threads.close()


__all__ = ["DAY", "RetentionRig", "Unit", "retention_rig", "rule"]
