"""Several processes on one database: each job in one of them at a time, whatever becomes of the others."""

import fcntl
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stowkeeper.database.engine import Database
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import Job, JobRequest
from support.job_rig import act, database_with, find, submit
from support.processes import Program, running

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "job_process.py"
LONG_LEASE = 60.0
SHORT_LEASE = 1.5

Start = Callable[..., Program]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_with(tmp_path)


@pytest.fixture
def start(tmp_path: Path, database: Database) -> Iterator[Start]:
    """Start an engine of some name on the database, and wait until it runs."""
    with ExitStack() as stack:

        def start_one(owner: str, *, lease_seconds: float = LONG_LEASE, running_max: int = 64) -> Program:
            argv = [sys.executable, str(SCRIPT), str(tmp_path), owner, str(lease_seconds), str(running_max)]
            program = stack.enter_context(running(owner, argv, log=tmp_path / f"{owner}.log"))
            program.wait_until(lambda: "ready" in program.log_text(), "before it was ready")
            return program

        yield start_one


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30.0) -> float:
    """Wait until a condition holds; return for how long."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - begin


def notes(folder: Path) -> list[list[str]]:
    path = folder / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def is_held_by(database: Database, job: Job, owner: str) -> bool:
    now = find(database, job)
    return (
        now.state == "running" and now.checkpoint.get("owner") == owner and now.checkpoint.get("count", 0) > 3
    )


def make_it_stand_still(program: Program, folder: Path) -> None:
    """Stop a process, but not while it holds the writer lock or waits for it: then everybody would stand still."""
    stat = Path(f"/proc/{program.pid}/stat")
    for _ in range(1000):
        program.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it stands still")
        if all(is_free(folder / f"catalog.sqlite.lock{end}") for end in ("", ".turn")):
            return
        program.process.send_signal(signal.SIGCONT)
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] != "T", "it goes on")
    raise AssertionError("it held the writer lock each time")


def is_free(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_two_processes_share_the_jobs_and_run_each_once(
    database: Database, tmp_path: Path, start: Start
) -> None:
    start("one", running_max=4)
    start("two", running_max=4)
    lanes = ("", "disk", "peer:A", "peer:B")
    with database.write() as transaction:
        made = rows.submit_many(
            transaction,
            [JobRequest(kind="mark", arguments={}, lane=lanes[number % 4]) for number in range(400)],
        )
    wait_for(lambda: not counts(database, "pending", "running"), "all are done", 60)
    assert counts(database, "success") == 400
    marks = notes(tmp_path)
    assert Counter(job_id for _, job_id, _ in marks) == {job.job_id: 1 for job in made}
    by_owner = Counter(owner for *_, owner in marks)
    assert set(by_owner) == {"one", "two"}
    assert min(by_owner.values()) > 20
    assert {find(database, job).attempts for job in made} == {1}


def counts(database: Database, *states: str) -> int:
    with database.read() as connection:
        return sum(count for (_, state), count in rows.counts(connection).items() if state in states)


def test_the_jobs_of_a_killed_process_are_taken_over_quickly(
    database: Database, tmp_path: Path, start: Start
) -> None:
    one = start("one")
    job = submit(database, "hold")
    wait_for(lambda: is_held_by(database, job, "one"), "it runs in one")
    start("two")
    one.kill()
    count = find(database, job).checkpoint["count"]
    seconds = wait_for(lambda: is_held_by(database, job, "two"), "it runs in two")
    assert seconds < 30  # and not a lease of 60
    assert find(database, job).checkpoint["count"] > count
    assert [line for line in notes(tmp_path) if line[0] == "hold"] == [
        ["hold", "one", "0"],
        ["hold", "two", str(count)],
    ]
    (tmp_path / "go").touch()
    wait_for(lambda: find(database, job).state == "success", "two finished it")
    assert (find(database, job).error, find(database, job).attempts) == ("by two", 2)
    wait_for(lambda: not (tmp_path / "jobs" / "one.owner").exists(), "its file is cleared away")


def test_a_job_goes_on_over_one_killed_process_after_the_other(
    database: Database, tmp_path: Path, start: Start
) -> None:
    job = submit(database, "hold")
    for number in range(4):
        program = start(f"life{number}")
        wait_for(lambda number=number: is_held_by(database, job, f"life{number}"), "it runs again")
        program.kill()
    (tmp_path / "go").touch()
    start("last")
    wait_for(lambda: find(database, job).state == "success", "it was finished")
    begun = [int(count) for what, _, count in notes(tmp_path) if what == "hold"]
    assert begun == sorted(begun)
    assert len(begun) == 5


def test_a_process_that_stands_still_loses_its_jobs_and_has_no_say(
    database: Database, tmp_path: Path, start: Start
) -> None:
    one = start("one", lease_seconds=SHORT_LEASE)
    job = submit(database, "hold")
    wait_for(lambda: is_held_by(database, job, "one"), "it runs in one")
    make_it_stand_still(one, tmp_path)
    program = start("two", lease_seconds=SHORT_LEASE)
    seconds = wait_for(lambda: is_held_by(database, job, "two"), "it runs in two")
    assert seconds > SHORT_LEASE / 2
    one.process.send_signal(signal.SIGCONT)
    wait_for(lambda: ["lost", "one"] in notes(tmp_path), "one found its lease lost")
    count = find(database, job).checkpoint["count"]
    wait_for(lambda: find(database, job).checkpoint["count"] > count, "two goes on")
    assert find(database, job).owner == "two"
    (tmp_path / "go").touch()
    wait_for(lambda: find(database, job).state == "success", "two finished it")
    assert (find(database, job).error, find(database, job).attempts) == ("by two", 2)
    # The one that stood still is in order: it takes the next jobs, with the other gone.
    program.kill()
    more = submit(database, "mark")
    wait_for(lambda: find(database, more).state == "success", "the next is done")
    assert ["mark", more.job_id, "one"] in notes(tmp_path)


def test_a_job_in_another_process_is_paused_resumed_cancelled_and_resubmitted(
    database: Database, tmp_path: Path, start: Start
) -> None:
    start("one")
    job = submit(database, "hold")
    wait_for(lambda: is_held_by(database, job, "one"), "it runs")
    act(database, rows.pause, job)
    assert wait_for(lambda: find(database, job).state == "paused", "it is paused") < 5
    count = find(database, job).checkpoint["count"]
    act(database, rows.resume, job)
    wait_for(lambda: find(database, job).checkpoint["count"] > count, "it goes on")
    act(database, rows.cancel, job)
    assert wait_for(lambda: find(database, job).state == "cancelled", "it is cancelled") < 5
    assert find(database, job).error == "cancelled by tester"
    act(database, rows.resubmit, job)
    wait_for(lambda: find(database, job).state == "running", "it runs again")
    (tmp_path / "go").touch()
    wait_for(lambda: find(database, job).state == "success", "it is done")
    act(database, rows.delete, job)
    with database.read() as connection:
        assert rows.find(connection, job.job_id) is None


def test_a_process_that_is_told_to_stop_gives_its_jobs_back(
    database: Database, tmp_path: Path, start: Start
) -> None:
    one = start("one")
    job = submit(database, "hold")
    wait_for(lambda: is_held_by(database, job, "one"), "it runs")
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(30) == 0
    after = find(database, job)
    assert (after.state, after.owner, after.faults, after.failures) == ("pending", "", 0, 0)
    assert after.checkpoint["count"] > 3
    assert list((tmp_path / "jobs").iterdir()) == []
