"""Leases: who is dead, who is silent, who only seems so; and what a clock that is set does to it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from stowkeeper.database.engine import Database
from stowkeeper.database.schema import jobs
from stowkeeper.jobs import owners
from stowkeeper.jobs.endings import Ended, Stopped
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.kind import Finished, TryAgain
from stowkeeper.jobs.leases import LeaseWatch
from stowkeeper.jobs.looking import RunningRow
from stowkeeper.jobs.options import JobOptions
from stowkeeper.jobs.owners import OwnerInUseError, OwnerLock, is_gone, remove_files_of_dead
from stowkeeper.jobs.run import JobRun, LeaseLostError
from stowkeeper.jobs.states import JobWish
from stowkeeper.jobs.threads import Threads
from stowkeeper.jobs.times import later
from stowkeeper.jobs.turns import Asked, Turned, Turns
from support.job_rig import Clocks, database_with, find, submit

LEASE = 30.0
GAP = 3.0


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def database(tmp_path: Path, clocks: Clocks) -> Database:
    return database_with(tmp_path, clocks)


# The files of owners


def test_an_owner_is_gone_when_nobody_holds_its_file(tmp_path: Path) -> None:
    folder = str(tmp_path / "jobs")
    lock = OwnerLock(folder, "one")
    lock.acquire()
    assert not is_gone(folder, "one")
    lock.release(keep_file=True)
    assert is_gone(folder, "one")
    lock.release()  # twice is fine
    again = OwnerLock(folder, "one")
    again.acquire()
    assert not is_gone(folder, "one")
    again.release()
    assert os.listdir(folder) == []
    # A file that somebody removed says nothing of a process.
    assert not is_gone(folder, "one")


def test_one_name_is_one_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "OWNER_LOCK_SECONDS", 0.05)
    first, second = OwnerLock(str(tmp_path), "one"), OwnerLock(str(tmp_path), "one")
    first.acquire()
    with pytest.raises(OwnerInUseError, match="as one"):
        second.acquire()
    assert not is_gone(str(tmp_path), "one")
    first.release()
    second.acquire()
    second.release()


def test_a_lock_on_a_file_that_was_removed_meanwhile_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = owners._lock
    removed = []

    def lock(descriptor: int) -> bool:
        if not removed:
            removed.append(True)
            os.unlink(tmp_path / "one.owner")
        return original(descriptor)

    monkeypatch.setattr(owners, "_lock", lock)
    one = OwnerLock(str(tmp_path), "one")
    one.acquire()
    monkeypatch.undo()
    assert not is_gone(str(tmp_path), "one")
    assert (tmp_path / "one.owner").exists()
    one.release()


def test_files_of_dead_owners_are_removed_and_no_others(tmp_path: Path) -> None:
    folder = str(tmp_path)
    alive = OwnerLock(folder, "alive")
    alive.acquire()
    for name in ("dead", "with-jobs"):
        lock = OwnerLock(folder, name)
        lock.acquire()
        lock.release(keep_file=True)
    (tmp_path / "notes.txt").touch()
    remove_files_of_dead(folder, but=frozenset({"with-jobs"}))
    assert sorted(os.listdir(folder)) == ["alive.owner", "notes.txt", "with-jobs.owner"]
    alive.release()
    remove_files_of_dead(str(tmp_path / "nowhere"), but=frozenset())


# Watching


class Watching:
    """A watch on the rows of others, with its clock."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.clocks = Clocks()
        self.watch = LeaseWatch(
            lease_seconds=LEASE,
            gap_seconds_max=GAP,
            is_gone=self.gone.__contains__,
            monotonic=self.clocks.steady,
        )

    def look(self, *rows: RunningRow, passed: float = 1.0) -> set[str]:
        self.clocks.pass_(passed)
        return set(self.watch.lost_owners(rows, "me"))

    def looks(self, seconds: float, *rows: RunningRow) -> set[str]:
        lost: set[str] = set()
        for _ in range(int(seconds)):
            lost = self.look(*rows)
        return lost


def row(owner: str, heartbeat: int = 1, job_key: int = 1, attempts: int = 1) -> RunningRow:
    return RunningRow(job_key=job_key, owner=owner, attempts=attempts, heartbeat=heartbeat, wish=JobWish.NONE)


def test_who_is_silent_for_a_lease_is_lost() -> None:
    watching = Watching()
    assert watching.look(row("other")) == set()
    assert watching.looks(LEASE - 1, row("other")) == set()
    assert watching.look(row("other")) == {"other"}


@pytest.mark.parametrize(
    "sign",
    [
        (row("other", heartbeat=2),),
        (row("other"), row("other", job_key=2)),
        (row("other", attempts=2),),
    ],
)
def test_any_change_is_a_sign_of_life(sign: Iterable[RunningRow]) -> None:
    watching = Watching()
    watching.looks(LEASE, row("other"))
    assert watching.look(*sign) == set()
    assert watching.looks(LEASE - 1, *sign) == set()
    assert watching.look(*sign) == {"other"}


def test_who_is_gone_is_lost_at_once_and_we_never() -> None:
    watching = Watching()
    watching.gone |= {"other", "me"}
    assert watching.look(row("other"), row("me"), row("third")) == {"other"}
    assert watching.looks(LEASE + 5, row("me")) == set()


def test_the_time_in_which_the_observer_stood_still_does_not_count() -> None:
    watching = Watching()
    watching.look(row("other"))
    assert watching.look(row("other"), passed=1e6) == set()
    assert watching.looks(LEASE - GAP - 1, row("other")) == set()
    assert watching.look(row("other")) == {"other"}


def test_setting_the_wall_clock_means_nothing() -> None:
    watching = Watching()
    watching.look(row("other"))
    for seconds in (1e6, -2e6, 1e6):
        watching.clocks.set_by(seconds)
        assert watching.look(row("other"), passed=0.0) == set()


def test_an_owner_that_had_no_jobs_for_a_while_is_seen_anew() -> None:
    watching = Watching()
    watching.looks(LEASE, row("other"))
    watching.look()
    assert watching.looks(LEASE, row("other")) == set()


# Turns of two engines


def turns_of(database: Database, folder: Path, owner: str, clocks: Clocks, **more: Any) -> Turns:
    return Turns(
        database=database,
        owner=owner,
        lock_folder=str(folder / "jobs"),
        concludes={"plain": False},
        options=JobOptions(),
        clock=clocks.now,
        monotonic=clocks.steady,
        chance=lambda: 0.0,
        **more,
    )


class Engine:
    """The turns of one engine, whose clocks are the test's, with the lock that says that it lives."""

    def __init__(self, database: Database, folder: Path, owner: str, clocks: Clocks) -> None:
        self.turns = turns_of(database, folder, owner, clocks)
        self.lock = OwnerLock(str(folder / "jobs"), owner)
        self.lock.acquire()
        self.jobs: list[Job] = []

    def turn(self, *ended: Ended, is_beat_due: bool = False, places: int = 9) -> Turned:
        runs = frozenset((job.job_key, job.attempts) for job in self.jobs)
        asked = Asked(runs=runs, ended=ended, is_beat_due=is_beat_due, places=places, failing_places=9)
        turned = self.turns.turn(asked)
        self.jobs = [job for job in self.jobs if job not in [each.job for each in ended]]
        self.jobs += [taken.job for taken in turned.taken]
        return turned

    def die(self) -> None:
        self.lock.release(keep_file=True)


def test_a_dead_process_loses_its_jobs_at_once(database: Database, tmp_path: Path, clocks: Clocks) -> None:
    job = submit(database, checkpoint={"at": 7})
    one, two = (Engine(database, tmp_path, owner, clocks) for owner in ("one", "two"))
    one.turn()
    assert two.turn().taken == ()
    one.die()
    turned = two.turn()
    assert [each.job_id for each in turned.taken_over] == [job.job_id]
    (taken,) = turned.taken
    assert (taken.job.owner, taken.job.attempts, taken.job.checkpoint) == ("two", 2, {"at": 7})
    assert (taken.job.faults, taken.job.failures) == (1, 0)


def test_a_silent_process_keeps_its_jobs_for_a_lease_and_has_no_say_then(
    database: Database, tmp_path: Path, clocks: Clocks
) -> None:
    submit(database)
    one, two = (Engine(database, tmp_path, owner, clocks) for owner in ("one", "two"))
    one.turn()
    (job,) = one.jobs
    two.turn()
    for _ in range(29):
        clocks.pass_(1)
        assert two.turn().taken == ()
    clocks.pass_(1)
    (taken,) = two.turn().taken
    assert taken.job.owner == "two"
    # It comes back, and everything that it wants to write is refused.
    run = JobRun(job, database, Threads("none", 1))
    with pytest.raises(LeaseLostError, match="taken over"), run.write():
        pass
    assert run.stopping.is_set()
    late = one.turn(Ended(job=job, outcome=Finished(), seconds=1.0, concludes=False))
    assert late.after == (None,)
    assert find(database, job.job_id).owner == "two"
    assert one.turn().own == ()


@pytest.mark.slow
def test_a_heartbeat_keeps_the_jobs(database: Database, tmp_path: Path, clocks: Clocks) -> None:
    submit(database)
    one, two = (Engine(database, tmp_path, owner, clocks) for owner in ("one", "two"))
    one.turn()
    for second in range(100):
        clocks.pass_(1)
        one.turn(is_beat_due=second % 10 == 0)
        assert two.turn().taken == ()


def test_the_same_process_cannot_write_for_an_earlier_attempt(
    database: Database, tmp_path: Path, clocks: Clocks
) -> None:
    """A thread that was left to itself works for a run that is over, though its process has the job again."""
    submit(database)
    one = Engine(database, tmp_path, "one", clocks)
    one.turn()
    (first,) = one.jobs
    one.turn(Ended(job=first, outcome=Stopped(), seconds=1.0, concludes=False))
    (second,) = one.jobs
    assert (second.owner, second.attempts) == ("one", 2)
    with pytest.raises(LeaseLostError), JobRun(first, database, Threads("none", 1)).write():
        pass
    with JobRun(second, database, Threads("none", 1)).write() as transaction:
        assert transaction.at


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [-1e6, -3600.0, 3600.0, 1e6])
def test_setting_the_clock_gives_no_job_to_two(
    database: Database, tmp_path: Path, clocks: Clocks, seconds: float
) -> None:
    for _ in range(3):
        submit(database)
    one, two = (Engine(database, tmp_path, owner, clocks) for owner in ("one", "two"))
    one.turn(places=1)
    clocks.set_by(seconds)
    assert two.turn(places=1).taken_over == ()
    clocks.set_by(-2 * seconds)
    for second in range(60):
        clocks.pass_(1)
        one.turn(is_beat_due=second % 10 == 0, places=0)
        two.turn(is_beat_due=second % 10 == 0, places=0)
    assert len(one.jobs) + len(two.jobs) <= 3
    assert not {job.job_key for job in one.jobs} & {job.job_key for job in two.jobs}
    assert {find(database, job.job_id).owner for job in one.jobs} == {"one"}


def test_who_waited_long_for_the_lock_lets_silent_owners_have_their_turn(
    database: Database, tmp_path: Path, clocks: Clocks
) -> None:
    """While a third held the writer lock nobody could count a heartbeat up."""
    submit(database)
    one, two = (Engine(database, tmp_path, owner, clocks) for owner in ("one", "two"))
    one.turn()
    original = database._lock.held

    def held() -> Any:
        clocks.pass_(60)
        return original()

    for _ in range(30):
        two.turn()
        clocks.pass_(1)
    database._lock.held = held  # type: ignore[method-assign]  # as if another process kept it for a minute
    assert two.turn().taken_over == ()
    database._lock.held = original  # type: ignore[method-assign]  # as it was
    assert len(two.turn().taken_over) == 1


def test_a_row_that_moved_between_look_and_lock_is_left_alone(
    database: Database, tmp_path: Path, clocks: Clocks
) -> None:
    job = submit(database)
    one, two = (Engine(database, tmp_path, owner, clocks) for owner in ("one", "two"))
    one.turn()
    for _ in range(30):
        two.turn()
        clocks.pass_(1)
    original = database._lock.held

    def held() -> Any:
        database._lock.held = original  # type: ignore[method-assign]  # only this once
        one.turn(is_beat_due=True)
        return original()

    database._lock.held = held  # type: ignore[method-assign]  # the owner gets the lock just before
    turned = two.turn()
    assert turned.taken_over == ()
    assert find(database, job).owner == "one"


def test_a_wish_of_a_dead_process_is_granted(database: Database, tmp_path: Path, clocks: Clocks) -> None:
    for wish in ("pause", "cancel"):
        submit(database, subject=wish)
    one, two = (Engine(database, tmp_path, owner, clocks) for owner in ("one", "two"))
    one.turn()
    for job in one.jobs:
        with database.write() as transaction:
            transaction.execute(
                update(jobs).where(jobs.c.job_key == job.job_key).values(wish=job.subject, error="by tester")
            )
    one.die()
    assert two.turn().taken == ()
    states = {job.subject: find(database, job.job_id) for job in one.jobs}
    assert states["pause"].state == "paused"
    assert (states["cancel"].state, states["cancel"].error) == ("cancelled", "by tester")


def test_a_kind_that_is_not_known_here_is_taken_over_for_others(
    database: Database, tmp_path: Path, clocks: Clocks
) -> None:
    job = submit(database, "newer")
    with database.write() as transaction:
        transaction.execute(update(jobs).values(state="running", owner="one", attempts=1, wish="cancel"))
    Engine(database, tmp_path, "one", clocks).die()
    two = Engine(database, tmp_path, "two", clocks)
    assert two.turn().taken == ()
    after = find(database, job)
    assert (after.state, after.wish) == ("pending", "cancel")


def test_the_last_turn_gives_everything_back(database: Database, tmp_path: Path, clocks: Clocks) -> None:
    for _ in range(3):
        submit(database)
    one = Engine(database, tmp_path, "one", clocks)
    one.turn(places=2)
    ended = Ended(job=one.jobs[0], outcome=TryAgain("no answer"), seconds=1.0, concludes=False)
    (after,) = one.turns.end([ended])
    assert after is not None
    assert after.state == "retry"
    # The second was taken by a turn of which the engine never heard.
    assert find(database, one.jobs[1].job_id).state == "pending"
    assert find(database, one.jobs[1].job_id).faults == 0
    assert later(clocks.wall, 30) == after.due_at
