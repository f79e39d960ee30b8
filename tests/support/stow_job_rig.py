"""An archive with instances, a real job engine with the kind `stow`, and what a test asks of both."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from stowkeeper.database.schema import job_lanes
from stowkeeper.database.schema import jobs as jobs_table
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.times import later
from stowkeeper.services.origin_servers import OriginServer
from stowkeeper.services.stow_client.address import read_address
from stowkeeper.services.stow_job import StowJob, StowJobOptions
from stowkeeper.services.stow_submission import submit_stow
from support.instances import Instance
from support.job_engine_thread import engine_running
from support.store_rig import StoreRig

QUICK_STOW = StowJobOptions(back_off_seconds=0.01, write_seconds=0.02, retry_seconds=5.0, stop_seconds=0.2)


def origin_server(url: str, **more: Any) -> OriginServer:
    """Return an origin server; one request at a time, so that a test knows their order."""
    values = {"name": "cloud", "address": read_address(url), "parallel": 1, "seconds": 5.0}
    return OriginServer(**{**values, **more})


class StowRig(StoreRig):
    """An archive, and jobs that store from it to origin servers."""

    def __init__(self, folder: Path, *instances: Instance) -> None:
        super().__init__(folder, *instances)
        self.servers: dict[str, OriginServer] = {}
        self.outcomes_told: Any = None

    def submit_to(self, server: OriginServer, *uids: str, **more: Any) -> Job:
        """Put a job in, and know the server."""
        self.servers[server.name] = server
        with self.database.write() as transaction:
            return submit_stow(transaction, server, uids, created_by="tester", **more)

    def running(self, options: Any = QUICK_STOW, own: Any = None, others: Sequence[Any] = ()) -> Any:
        """Run an engine for the length of a block."""
        del own

        def kinds() -> list[Any]:
            told = self.outcomes_told
            return [StowJob(self.archive, lambda: self.servers, options=options, outcomes=told), *others]

        return engine_running(self.database, self.folder, kinds)

    def run_to_end(self, job: Job, *states: str, options: Any = QUICK_STOW) -> Job:
        """Run an engine until a job is finished, or in one of some states."""
        with self.running(options):
            return self.wait_for(job, *(states or ("success", "failure")))

    def blocked_lanes(self) -> list[str]:
        """Return the lanes that wait."""
        with self.database.read() as connection:
            return [row.lane for row in connection.execute(select(job_lanes))]

    def let_time_pass(self, job: Job) -> None:
        """Have a job and its lane wait no longer; how often the lane failed stays."""
        with self.database.write() as transaction:
            before = later(transaction.at, -1.0)
            transaction.execute(update(job_lanes).values(blocked_until=before))
            of_job = jobs_table.c.job_key == job.job_key
            transaction.execute(update(jobs_table).where(of_job).values(due_at=before))

    def everything_written(self) -> bytes:
        """Return the bytes of the database, the log of changes included."""
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if "catalog" in str(path))


@contextmanager
def stow_rig(folder: Path, *instances: Instance) -> Iterator[StowRig]:
    """Have a rig for the length of a block."""
    rig = StowRig(folder, *instances)
    try:
        yield rig
    finally:
        rig.close()
