"""Submit jobs in batches, look for work with many of them waiting, and run some that do nothing.

    python bench/jobs.py [--jobs 20000] [--waiting 1000] [--lanes 50] [--seconds 10] [--folder DIR] [--json]

Each batch is one durable transaction, as of a caller who submits with rows of its own. Waiting jobs are due and stand in lanes
that are blocked, as those for peers that do not answer. What an engine costs that has nothing to do is processor time of a
process of its own, Python included, without its start. Put the folder on the disk that the archive is to be on.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from stowkeeper.database.engine import Database, utc_now
from stowkeeper.database.schema import job_lanes
from stowkeeper.jobs import rows
from stowkeeper.jobs.engine import JobEngine
from stowkeeper.jobs.job import JobRequest
from stowkeeper.jobs.kind import Ending, Finished, JobRun
from stowkeeper.jobs.looking import Viewpoint, look
from stowkeeper.jobs.states import JobState
from stowkeeper.jobs.times import later
from support.quiet_log import quiet_log

BATCHES = (1, 10, 100, 1000)
BAR_BATCH = 100
JOBS_A_SECOND_MIN = 2000
"""Bar: jobs submitted a second in batches of BAR_BATCH, durable."""
IDLE_SHARE_MAX = 0.01
"""Bar: share of one processor that an engine takes more for the waiting jobs than without them. A receiver may lose 5 % of
its throughput by them, and it uses two."""
LOOKS = 200
RUN_JOBS = 2000


class Nothing:
    """A kind of job that is done at once."""

    name = "nothing"
    concludes_cancellation = False

    async def run(self, run: JobRun) -> Ending:  # noqa: ARG002 - there is nothing to do with it
        return Finished()


def request(lane: str = "") -> JobRequest:
    """Return a job of the size that a commitment has."""
    return JobRequest(
        kind="nothing",
        arguments={"commitment": 123456, "transaction_uid": "2.25.1234567890123456789012345678901234567"},
        subject="2.25.1234567890123456789012345678901234567",
        peer="SCANNER",
        lane=lane,
        created_by="peer SCANNER",
    )


def open_in(folder: str) -> Database:
    path = os.path.join(folder, "catalog.sqlite")
    return Database.open(path, lock_path=f"{path}.lock")


def measure_inserts(folder: str, count: int) -> dict[int, dict[str, float]]:
    """Return jobs a second and the median milliseconds of a transaction for each size of batch."""
    found: dict[int, dict[str, float]] = {}
    for batch in BATCHES:
        inside = os.path.join(folder, f"inserts-{batch}")
        os.mkdir(inside)
        with open_in(inside) as database:
            took = []
            for _ in range(max(10, min(count, 400 * batch) // batch)):
                requests = [request() for _ in range(batch)]
                begin = time.perf_counter()
                with database.write() as transaction:
                    rows.submit_many(transaction, requests)
                took.append(time.perf_counter() - begin)
        found[batch] = {
            "jobs_a_second": batch * len(took) / sum(took),
            "milliseconds": statistics.median(took) * 1000,
        }
    return found


def fill_blocked(database: Database, waiting: int, lanes: int) -> None:
    """Put in jobs for peers that do not answer."""
    with database.write() as transaction:
        rows.submit_many(transaction, [request(f"peer:{number % lanes}") for number in range(waiting)])
        for number in range(lanes if waiting else 0):
            transaction.execute(
                job_lanes.insert().values(
                    lane=f"peer:{number}",
                    failures=7,
                    blocked_until=later(transaction.at, 3600),
                    words="no answer",
                )
            )


def measure_look(database: Database) -> float:
    """Return the median microseconds of processor time of one look, its read transaction included."""
    took = []
    for _ in range(LOOKS):
        view = Viewpoint(
            now=utc_now(),
            kinds=("nothing",),
            plain_kinds=("nothing",),
            places=64,
            failing_places=32,
            disk_lanes=2,
        )
        begin = time.thread_time()
        with database.read() as connection:
            sight = look(connection, view)
        took.append(time.thread_time() - begin)
        if sight.has_due:
            sys.exit("a job was due that should not have been")
    return statistics.median(took) * 1e6


def idle(folder: str, seconds: float) -> None:
    """Run an engine for some seconds; print its processor seconds and how many bytes it wrote."""

    async def run() -> None:
        with open_in(folder) as database:
            engine = JobEngine(database, [Nothing()], owner="bench", lock_folder=os.path.join(folder, "jobs"))
            running = asyncio.create_task(engine.run())
            await asyncio.sleep(2.0)  # its start and its first upkeep
            begin, log = time.process_time(), log_state(folder)
            await asyncio.sleep(seconds)
            result = {"processor": time.process_time() - begin, "wrote": log_state(folder) != log}
            await engine.stop(5.0)
            await running
        print(json.dumps(result))

    asyncio.run(run())


def log_state(folder: str) -> tuple[int, int]:
    """Return what changes with each write transaction."""
    found = os.stat(os.path.join(folder, "catalog.sqlite-wal"))
    return found.st_size, found.st_mtime_ns


def measure_idle(folder: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", "--folder", folder, "--seconds", str(seconds)]
    return dict(json.loads(subprocess.check_output(command)))


async def measure_runs(database: Database, folder: str) -> float:
    """Return how many jobs that do nothing an engine takes, runs and writes down a second."""
    with database.write() as transaction:
        rows.submit_many(transaction, [request()] * RUN_JOBS)
    engine = JobEngine(database, [Nothing()], owner="bench", lock_folder=os.path.join(folder, "jobs"))
    begin = time.perf_counter()
    running = asyncio.create_task(engine.run())
    while engine.endings["nothing", JobState.SUCCESS] < RUN_JOBS:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - begin
    await engine.stop(5.0)
    await running
    return RUN_JOBS / seconds


def measure(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    result: dict[str, Any] = {"inserts": measure_inserts(folder, arguments.jobs)}
    for name, waiting in (("empty", 0), ("waiting", arguments.waiting)):
        inside = os.path.join(folder, name)
        os.mkdir(inside)
        with open_in(inside) as database:
            fill_blocked(database, waiting, arguments.lanes)
            microseconds = measure_look(database)
        result[name] = {
            "jobs": waiting,
            "look_microseconds": microseconds,
            **measure_idle(inside, arguments.seconds),
        }
        result[name]["share"] = result[name]["processor"] / arguments.seconds
    with open_in(folder) as database:
        result["runs_a_second"] = asyncio.run(measure_runs(database, folder))
    result["more_for_waiting"] = result["waiting"]["share"] - result["empty"]["share"]
    return result


def show(result: dict[str, Any], arguments: argparse.Namespace) -> None:
    print(f"{'jobs a batch':>12}  {'jobs/s':>10}  {'ms a batch':>10}")
    for batch, found in result["inserts"].items():
        print(f"{batch:>12}  {found['jobs_a_second']:>10.0f}  {found['milliseconds']:>10.2f}")
    print()
    print(f"{'waiting':>12}  {'µs a look':>10}  {'% of one processor':>18}  wrote")
    for name in ("empty", "waiting"):
        found = result[name]
        wrote = "yes" if found["wrote"] else "no"
        print(
            f"{found['jobs']:>12}  {found['look_microseconds']:>10.0f}  {found['share'] * 100:>18.2f}  {wrote}"
        )
    print(f"\njobs that do nothing, taken, run and written down: {result['runs_a_second']:.0f}/s")
    inserted = result["inserts"][BAR_BATCH]["jobs_a_second"]
    print(
        f"bar: ≥ {JOBS_A_SECOND_MIN} jobs/s in batches of {BAR_BATCH}: {verdict(inserted >= JOBS_A_SECOND_MIN)}"
    )
    print(
        f"bar: {arguments.waiting} waiting in {arguments.lanes} blocked lanes cost < {IDLE_SHARE_MAX:.0%} of a processor"
        f" and no write: {verdict(result['more_for_waiting'] < IDLE_SHARE_MAX and not result['waiting']['wrote'])}"
    )


def verdict(is_met: bool) -> str:
    return "met" if is_met else "missed"


def main() -> None:
    parser = argparse.ArgumentParser(description="Submit jobs, look for work, and run jobs that do nothing.")
    parser.add_argument(
        "--jobs", type=int, default=20_000, help="so many are submitted in each size of batch"
    )
    parser.add_argument("--waiting", type=int, default=1000)
    parser.add_argument("--lanes", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long an idle engine is watched")
    parser.add_argument(
        "--folder", help="where the databases are made, and left; a temporary folder if not given"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        idle(arguments.folder, arguments.seconds)
        return
    folder = arguments.folder or tempfile.mkdtemp(prefix="jobs-bench-")
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        with quiet_log():
            result = measure(arguments, folder)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(result))
    else:
        show(result, arguments)


if __name__ == "__main__":
    main()
