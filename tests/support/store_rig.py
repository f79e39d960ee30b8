"""An archive with instances, a real job engine with the kind `store`, and what a test asks of both."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import update

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.versions import find_versions
from stowkeeper.database.schema import jobs as jobs_table
from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job, JobItem
from stowkeeper.jobs.times import later
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.services.store_job import StoreJob, StoreOptions
from stowkeeper.services.store_submission import submit_store
from support.command_line import keep
from support.instances import Instance
from support.job_engine_thread import engine_running, job_of, wait_until
from support.scripted_acceptor import Answer, Received

STUDY = "1.2.10"
"""The study of `make_instance`."""

WAIT_SECONDS = 30.0
QUICK = StoreOptions(back_off_seconds=0.01, write_seconds=0.02)


def no_tls() -> Any:
    """Complain: no peer is called over TLS."""
    raise AssertionError("no peer is called over TLS here")


OWN = OwnSide(ae_title="STOWKEEPER", tls=no_tls)


def peer_at(port: int, **more: Any) -> Peer:
    """Return a peer that listens here."""
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
    return Peer(**{**values, "connect_seconds": 5.0, "answer_seconds": 5.0, **more})


class StoreRig:
    """An archive, and jobs that send from it."""

    def __init__(self, folder: Path, *instances: Instance) -> None:
        self.folder = folder
        keep(folder, *instances)
        self.archive = ArchiveReader(str(folder))
        self.database = self.archive.database
        self.book = PeerBook([], self.database)

    def close(self) -> None:
        """Close the archive."""
        self.archive.close()

    def submit(self, peer: Peer, *uids: str, **more: Any) -> Job:
        """Put a job in, and the peer too unless it has no name."""
        if peer.name:
            self.book.save(peer, "tester")
        with self.database.write() as transaction:
            return submit_store(transaction, peer, uids, created_by="tester", **more)

    def running(self, options: StoreOptions = QUICK, own: OwnSide = OWN, others: Sequence[Any] = ()) -> Any:
        """Run an engine for the length of a block."""

        def kinds() -> list[Any]:
            kind = StoreJob(self.archive, self.book, own, options=options)
            return [kind, *others]

        return engine_running(self.database, self.folder, kinds)

    def job(self, job: Job) -> Job:
        """Return a job as it stands."""
        return job_of(self.database, job.job_id)

    def items(self, job: Job) -> list[JobItem]:
        """Return its items."""
        with self.database.read() as connection:
            return jobs.items_of(connection, job.job_key)

    def outcomes(self, job: Job) -> dict[str, str]:
        """Return the outcome of each instance."""
        return {item.name: item.outcome for item in self.items(job)}

    def item(self, job: Job, number: int) -> JobItem:
        """Return the item of instance 1.2.3.<number>."""
        (found,) = [item for item in self.items(job) if item.name == f"1.2.3.{number}"]
        return found

    def submitted_before(self, job: Job, seconds: float) -> None:
        """Make a job older."""
        with self.database.write() as transaction:
            created_at = later(transaction.at, -seconds)
            of_job = jobs_table.c.job_key == job.job_key
            transaction.execute(update(jobs_table).where(of_job).values(created_at=created_at))

    def job_by_id(self, job_id: str) -> Job:
        """Return a job by its id."""
        return job_of(self.database, job_id)

    def path_of(self, sop_instance_uid: str) -> Path:
        """Return the file of an instance's current version."""
        with self.database.read() as connection:
            found = find_versions(connection, [sop_instance_uid])[sop_instance_uid]
        return Path(self.archive.root, next(one.path for one in found if one.is_current))

    def wait_for(self, job: Job, *states: str) -> Job:
        """Wait until a job is in one of some states; return it."""
        wait_until(lambda: self.job(job).state in states, f"{states} of {self.job(job)}")
        return self.job(job)

    def act(self, action: Callable[..., Job], job: Job) -> Job:
        """Pause, resume, cancel or resubmit a job."""
        with self.database.write() as transaction:
            return action(transaction, job.job_id, "tester")

    def run_to_end(self, job: Job, *states: str, options: StoreOptions = QUICK) -> Job:
        """Run an engine until a job is finished, or in one of some states."""
        with self.running(options):
            return self.wait_for(job, *(states or ("success", "failure")))


@contextmanager
def store_rig(folder: Path, *instances: Instance) -> Iterator[StoreRig]:
    """Have a rig for the length of a block."""
    rig = StoreRig(folder, *instances)
    try:
        yield rig
    finally:
        rig.close()


class Bystander:
    """A kind of job that only notes that it ran."""

    name = "bystander"
    concludes_cancellation = False

    def __init__(self) -> None:
        self.count = 0

    async def run(self, run: Any) -> Any:
        """Note it."""
        from stowkeeper.jobs.kind import Finished

        self.count += 1
        return Finished()


# What an acceptor got.


def uid_of(received: Received) -> str:
    """Return the SOP Instance UID of a C-STORE request."""
    assert isinstance(received.message, CStoreRequest)
    return received.message.affected_sop_instance_uid or ""


def number_of(received: Received) -> int:
    """Return the number of instance 1.2.3.<number>."""
    return int(uid_of(received).rpartition(".")[2])


def times_sent(received: Sequence[Received]) -> Counter[int]:
    """Count how often each instance came."""
    return Counter(map(number_of, received))


class Gate:
    """Holds the answer to one instance back, and everything behind it, until it is opened."""

    def __init__(self, number: int, status: int = 0x0000) -> None:
        self._number = number
        self._status = status
        self.came = threading.Event()
        self._is_open = threading.Event()

    def __call__(self, received: Received) -> Answer:
        """Answer Success, and this one at last as it is to be answered."""
        if number_of(received) != self._number:
            return 0x0000
        if not self._is_open.is_set():
            self.came.set()
            self._is_open.wait(WAIT_SECONDS)
        return self._status

    def open(self) -> None:
        """Let it be answered."""
        self._is_open.set()
