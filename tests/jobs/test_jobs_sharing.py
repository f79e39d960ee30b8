"""The lane of the disk is everybody's in turn: nobody waits for all that another one asked for."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from stowkeeper.database.engine import Database
from stowkeeper.database.schema import jobs
from stowkeeper.jobs import sharing
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.looking import Viewpoint, statement_of
from stowkeeper.jobs.options import DISK_LANE
from stowkeeper.jobs.sharing import TurnsOfAskers
from stowkeeper.jobs.taking import take
from stowkeeper.jobs.times import later
from support.job_rig import MIDNIGHT, Clocks, Kind, database_with, engine_of, finish, go, submit, until_state
from support.quiet_log import quiet_log


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_with(tmp_path, Clocks())


def viewpoint(disk_lanes: int, places: int = 100) -> Viewpoint:
    return Viewpoint(
        now=MIDNIGHT,
        kinds=("plain",),
        plain_kinds=("plain",),
        places=places,
        failing_places=100,
        disk_lanes=disk_lanes,
    )


class Disk:
    """An engine's view of the lane of the disk, with as many places as it is told."""

    def __init__(self, database: Database, places: int = 2) -> None:
        self._database = database
        self._places = places
        self._turns = TurnsOfAskers()

    def ask(self, *names: str, **more: object) -> list[Job]:
        """Put in a job for each name, which begins with its peer's."""
        return [
            submit(
                self._database,
                subject=name,
                lane=DISK_LANE,
                **{"peer": name.rstrip("0123456789"), **more},
            )
            for name in names
        ]

    def take(self) -> list[str]:
        """Take what there is room for; return the names."""
        with self._database.write() as transaction:
            taken = take(transaction, viewpoint(self._places), "one", self._turns)
        for each in taken:
            self._turns.note(each.job)
        return sorted(each.job.subject for each in taken)

    def end(self, *names: str) -> None:
        """Let jobs that run be over."""
        with self._database.write() as transaction:
            transaction.execute(
                update(jobs).where(jobs.c.subject.in_(names)).values(state="success", owner="")
            )


def hogs(name: str, count: int) -> Sequence[str]:
    return [f"{name}{number}" for number in range(count)]


def test_of_two_askers_each_has_a_place(database: Database) -> None:
    disk = Disk(database)
    disk.ask(*hogs("hog", 8), "late")
    assert disk.take() == ["hog0", "late"]
    disk.end("late")
    assert disk.take() == ["hog1"]


def test_who_has_nothing_running_is_next(database: Database) -> None:
    disk = Disk(database)
    disk.ask(*hogs("hog", 8))
    assert disk.take() == ["hog0", "hog1"]
    disk.ask("late")
    disk.end("hog1")
    assert disk.take() == ["late"]


def test_a_newcomer_does_not_wait_for_what_two_others_have_lying_there(database: Database) -> None:
    disk = Disk(database)
    for number in range(4):
        disk.ask(f"a{number}", f"b{number}")
    assert disk.take() == ["a0", "b0"]
    disk.ask("late")
    disk.end("a0")
    assert disk.take() == ["late"]
    disk.end("late")
    assert disk.take() == ["a1"]
    disk.end("b0")
    assert disk.take() == ["b1"]


def test_of_one_asker_goes_first_what_is_due_longest(database: Database) -> None:
    """What gave way is due then, and so it is behind what was submitted after it."""
    disk = Disk(database, places=1)
    first, second = disk.ask("a0", "a1")
    with database.write() as transaction:
        for job, seconds in ((first, -1), (second, -2)):
            transaction.execute(
                update(jobs).where(jobs.c.job_key == job.job_key).values(due_at=later(MIDNIGHT, seconds))
            )
    assert disk.take() == ["a1"]


def test_a_larger_priority_goes_before_anybodys_turn(database: Database) -> None:
    disk = Disk(database, places=1)
    disk.ask("a0")
    assert disk.take() == ["a0"]
    disk.ask("a1", priority=5)
    disk.ask("b0")
    disk.end("a0")
    assert disk.take() == ["a1"]


def test_what_is_of_no_peer_is_whose_who_submitted_it(database: Database) -> None:
    disk = Disk(database, places=2)
    disk.ask("a0", "a1", peer="", created_by="alice")
    disk.ask("b0", peer="", created_by="bob")
    assert disk.take() == ["a0", "b0"]


def test_other_lanes_give_no_turns(database: Database) -> None:
    turns = TurnsOfAskers()
    turns.note(submit(database, peer="a", lane="peer:a"))
    assert turns.number_of("a") == 0
    turns.note(submit(database, peer="a", lane=DISK_LANE))
    assert turns.number_of("a") == 1


def test_not_more_askers_are_remembered_than_there_are_peers_anywhere(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "ASKERS_REMEMBERED_MAX", 2)
    turns = TurnsOfAskers()
    for name in "abac":
        turns.note(submit(database, peer=name, lane=DISK_LANE))
    assert [turns.number_of(name) for name in "abc"] == [3, 0, 4]


def test_the_look_for_whose_turn_it_is_goes_by_an_index(database: Database) -> None:
    statement = statement_of(f"EXPLAIN QUERY PLAN {sharing._FIRST_OF_EACH.text}", "kinds")
    with database.read() as connection:
        plan = [row[3] for row in connection.execute(statement, {"now": MIDNIGHT, "kinds": ["a"], "free": 2})]
    on_jobs = [step for step in plan if re.search(r"\bjobs\b", step)]
    assert on_jobs
    assert all("USING INDEX jobs_waiting (lane=? AND due_at<?)" in step for step in on_jobs), plan


@pytest.mark.slow
def test_an_engine_gives_turns(tmp_path: Path) -> None:
    database = database_with(tmp_path)
    kind = Kind("plain", finish)

    async def test() -> None:
        asked = [submit(database, subject=f"a{n}", peer="a", lane=DISK_LANE) for n in range(6)]
        asked += [submit(database, subject=f"b{n}", peer="b", lane=DISK_LANE) for n in range(6)]
        asked.append(submit(database, subject="late", peer="late", lane=DISK_LANE))
        async with engine_of(database, tmp_path, kind):
            for job in asked:
                await until_state(database, job, "success")
        assert "late" in [job.subject for job in kind.begun[:4]]  # the second two

    with quiet_log():
        go(test())
