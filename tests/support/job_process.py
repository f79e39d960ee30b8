"""An engine for jobs as a process of its own, on the database in a folder.

    python job_process.py FOLDER OWNER LEASE_SECONDS RUNNING_MAX

It says `ready` when it runs, and ends in order at SIGTERM. Its kinds note what they do in the file `notes`, a line each:
`mark JOB OWNER` for a run that only says that it was there; `hold OWNER COUNT` for one that counts in its checkpoint until
the file `go` is there, and `lost OWNER` when it finds its lease lost.
"""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from stowkeeper.database.engine import Database
from stowkeeper.jobs.engine import JobEngine, JobOptions
from stowkeeper.jobs.kind import Ending, Finished, JobRun, LeaseLostError


@dataclass(frozen=True, slots=True)
class Notes:
    folder: Path
    owner: str

    def say(self, *words: object) -> None:
        descriptor = os.open(self.folder / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Mark:
    notes: Notes
    name: str = "mark"
    concludes_cancellation: bool = False

    async def run(self, run: JobRun) -> Ending:
        await run.in_thread(self.notes.say, "mark", run.job.job_id, self.notes.owner)
        await asyncio.sleep(0.002)  # so that the other process has its turns
        return Finished()


@dataclass(frozen=True, slots=True)
class Hold:
    notes: Notes
    name: str = "hold"
    concludes_cancellation: bool = False

    async def run(self, run: JobRun) -> Ending:
        self.notes.say("hold", self.notes.owner, run.job.checkpoint.get("count", 0))
        return await run.in_thread(self._count, run)

    def _count(self, run: JobRun) -> Ending:
        go = self.notes.folder / "go"
        while not go.exists():
            try:
                with run.write() as transaction:
                    count = run.job.checkpoint.get("count", 0) + 1
                    run.progress(transaction, checkpoint={"count": count, "owner": self.notes.owner})
            except LeaseLostError:
                self.notes.say("lost", self.notes.owner)
                raise
            run.stopping.wait(0.01)
            run.check_stopping()
        return Finished(f"by {self.notes.owner}")


async def main(folder: Path, owner: str, lease_seconds: float, running_max: int) -> None:
    path = folder / "catalog.sqlite"
    with Database.open(str(path), lock_path=f"{path}.lock", sync=False) as database:
        notes = Notes(folder, owner)
        engine = JobEngine(
            database,
            [Mark(notes), Hold(notes)],
            owner=owner,
            lock_folder=str(folder / "jobs"),
            options=JobOptions(poll_seconds=0.05, lease_seconds=lease_seconds, running_max=running_max),
        )
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        running = asyncio.create_task(engine.run())
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await stopping.wait()
        await engine.stop(5.0)
        await running


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
