"""An archive whose instances rules forward: kept step by step, looked at step by step; jobs run where a test has an engine."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import changes, consumers
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job, JobFilter
from stowkeeper.services.conditions import Conditions
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.forwarding import rows
from stowkeeper.services.forwarding.desk import ForwardingDesk
from stowkeeper.services.forwarding.destinations import KnownDestinations
from stowkeeper.services.forwarding.following import CONSUMER
from stowkeeper.services.forwarding.outcomes import ForwardOutcomes
from stowkeeper.services.forwarding.rows import Forward, ForwardFilter, ForwardState
from stowkeeper.services.forwarding.rules import ForwardingRule
from stowkeeper.services.origin_servers import OriginServer
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.services.resting import Rests
from stowkeeper.services.store_job import StoreJob, StoreOptions
from stowkeeper.services.stow_job import StowJob
from support.archive_rig import ArchiveRig
from support.floods import no_rests
from support.instances import make_instance
from support.job_engine_thread import engine_running, wait_until
from support.job_rig import database_with
from support.store_rig import OWN, QUICK


def rule(name: str, *to: str, **more: Any) -> ForwardingRule:
    """Return a rule for everything."""
    return ForwardingRule(**{"name": name, "conditions": Conditions(), "to": to, **more})


def a_peer(name: str, port: int = 104, **more: Any) -> Peer:
    """Return a peer that can be called; nobody listens there unless a test does."""
    values = {"name": name, "ae_title": name, "host": "127.0.0.1", "port": port}
    return Peer(**{**values, "connect_seconds": 5.0, "answer_seconds": 5.0, **more})


@dataclass(slots=True)
class ForwardingRig:
    """The archive, its peers, and the rules in force, which a test may change at any time."""

    archive: ArchiveRig
    book: PeerBook
    folder: Path
    rules: list[ForwardingRule] = field(default_factory=list)
    servers: dict[str, OriginServer] = field(default_factory=dict)
    woken: int = 0
    desk: ForwardingDesk = field(init=False)

    def __post_init__(self) -> None:
        self.desk = self.new_desk()

    @property
    def database(self) -> Database:
        """Return the archive's database."""
        return self.archive.database

    def new_desk(
        self, gather_seconds: float = 0.0, database: Database | None = None, rests: Rests | None = None
    ) -> ForwardingDesk:
        """Return a desk, as another process has one; it never rests unless told how."""
        places = KnownDestinations(self.book, lambda: self.servers)
        return ForwardingDesk(
            database or self.database,
            lambda: self.rules,
            places,
            self._wake,
            gather_seconds=gather_seconds,
            rests=rests or no_rests(),
        )

    def _wake(self) -> None:
        self.woken += 1

    def begin(self, *rules: ForwardingRule, peers: Sequence[Peer] = ()) -> None:
        """Put rules and peers in force; what comes from now on is forwarded."""
        self.rules = list(rules)
        for peer in peers:
            self.book.save(peer, "tester")
        self.desk.begin()

    def keep(self, *numbers: int, sent_by: str = "SCANNER", **more: Any) -> None:
        """Keep instances and list them; `more` is what `make_instance` takes."""
        for number in numbers:
            self.archive.keep(make_instance(number, **more).sent_by(sent_by))
        assert self.archive.finish() == []

    def look(self) -> None:
        """Let the desk look until nothing is left to be done at once."""
        while self.desk.look():
            pass

    def forwards(self, **wanted: Any) -> list[Forward]:
        """Return the rows, the oldest first; `states` by their words."""
        wanted["states"] = tuple(map(ForwardState, wanted.get("states", ())))
        with self.database.read() as connection:
            return rows.list_forwards(connection, ForwardFilter(limit=1000, **wanted))[::-1]

    def states(self, **wanted: Any) -> list[tuple[int, str, str]]:
        """Return of each row the number of the instance, the destination and the state, in order."""
        found = self.forwards(**wanted)
        return [
            (int(one.sop_instance_uid.rpartition(".")[2]), one.destination, one.state.value) for one in found
        ]

    def retry(self, **wanted: Any) -> int:
        """Let what failed wait again."""
        with self.database.write() as transaction:
            return rows.retry(transaction, ForwardFilter(**wanted), "tester")

    def drop(self, **wanted: Any) -> int:
        """Drop what waits or failed."""
        with self.database.write() as transaction:
            return rows.drop(transaction, ForwardFilter(**wanted), "nobody wants it", "tester")

    def jobs(self) -> list[Job]:
        """Return all jobs, the oldest first."""
        with self.database.read() as connection:
            return jobs.list_jobs(connection, JobFilter(limit=1000))[::-1]

    def items(self, job: Job) -> list[str]:
        """Return the names of a job's items."""
        with self.database.read() as connection:
            return [item.name for item in jobs.items_of(connection, job.job_key)]

    def act(self, action: Any, job: Job) -> None:
        """Pause, resume, cancel, resubmit or delete a job."""
        with self.database.write() as transaction:
            action(transaction, job.job_id, "tester")

    def cursor(self) -> int | None:
        """Return how far the changes were put to the rules."""
        with self.database.read() as connection:
            found: int | None = connection.execute(
                select(consumers.c.seq).where(consumers.c.name == CONSUMER)
            ).scalar()
        return found

    def newest_change(self) -> int:
        """Return the number of the newest change."""
        with self.database.read() as connection:
            return (
                connection.execute(select(changes.c.seq).order_by(changes.c.seq.desc())).scalars().first()
                or 0
            )

    @contextlib.contextmanager
    def sending(self, options: StoreOptions = QUICK, own: OwnSide = OWN) -> Iterator[None]:
        """Run the jobs for the length of a block, with outcomes that the rows are told of."""
        with contextlib.closing(ArchiveReader(str(self.folder))) as reader:
            outcomes = ForwardOutcomes()

            def kinds() -> list[Any]:
                return [
                    StoreJob(reader, self.book, own, options=options, outcomes=outcomes),
                    StowJob(reader, lambda: self.servers, outcomes=outcomes),
                ]

            with engine_running(self.database, self.folder, kinds):
                yield

    def look_until(self, condition: Any, what: str = "") -> None:
        """Let the desk look, as it does each second, until a condition holds."""

        def holds() -> bool:
            self.look()
            return bool(condition())

        wait_until(holds, what)


@contextlib.contextmanager
def forwarding_rig(folder: Path) -> Iterator[ForwardingRig]:
    """Make an empty archive for the length of a block."""
    with contextlib.closing(database_with(folder)) as database:
        archive = ArchiveRig(FileSystem(), database, root=str(folder), slots=10)
        yield ForwardingRig(archive=archive, book=PeerBook([], database), folder=folder)
