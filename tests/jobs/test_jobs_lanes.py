"""Lanes of an engine that runs: dead peers beside live ones."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from stowkeeper.database.engine import Database
from stowkeeper.database.schema import job_lanes
from stowkeeper.jobs import rows
from stowkeeper.jobs.engine import JobOptions
from stowkeeper.jobs.job import JobRequest
from stowkeeper.jobs.kind import (
    Ending,
    Finished,
    JobRun,
    TryAgain,
)
from stowkeeper.jobs.states import JobWish
from support.job_rig import (
    Clocks,
    Kind,
    act,
    database_with,
    engine_of,
    find,
    go,
    submit,
    until,
    until_state,
    wait_for_ever,
)
from support.quiet_log import quiet_log


@pytest.fixture(autouse=True)
def no_lines() -> Iterator[None]:
    with quiet_log():
        yield


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_with(tmp_path)


def lanes(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(job_lanes.c.lane)).scalars())


@pytest.mark.slow
def test_fifty_dead_lanes_do_not_keep_a_live_one_waiting(database: Database, tmp_path: Path) -> None:
    async def run(run: JobRun) -> Ending:
        if run.job.lane == "peer:live":
            return Finished()
        return await wait_for_ever(run)  # as one whose peer accepts and never answers

    async def scenario() -> None:
        with database.write() as transaction:
            rows.submit_many(
                transaction,
                [
                    JobRequest(kind="plain", arguments={}, lane=f"peer:dead{number % 50}", priority=5)
                    for number in range(500)
                ],
            )
        async with engine_of(database, tmp_path, Kind("plain", run)) as engine:
            await until(lambda: engine.running == 50, "one of each lane runs")
            live = [submit(database, lane="peer:live") for _ in range(5)]
            for job in live:
                await until_state(database, job, "success", seconds=5)

    go(scenario())


@pytest.mark.slow
def test_dead_lanes_that_failed_leave_places_even_where_they_are_more_than_places(
    database: Database, tmp_path: Path
) -> None:
    async def run(run: JobRun) -> Ending:
        if run.job.lane == "peer:live":
            return Finished()
        if run.job.failures == 0:
            return TryAgain("no answer", 0.0, lane_is_blocked=True)
        return await wait_for_ever(run)

    async def scenario() -> None:
        options = JobOptions(poll_seconds=0.02, running_max=4)
        for number in range(20):
            submit(database, lane=f"peer:dead{number}", priority=5)
        async with engine_of(database, tmp_path, Kind("plain", run), options=options) as engine:
            await until(
                lambda: engine.running == 2 and len(lanes(database)) == 20, "half of the places are taken"
            )
            await until_state(database, submit(database, lane="peer:live"), "success", seconds=5)

    go(scenario())


@pytest.mark.slow
def test_a_thousand_jobs_for_a_dead_peer_cost_one_attempt_a_pause(database: Database, tmp_path: Path) -> None:
    clocks = Clocks()
    database._clock = clocks.now

    async def run(run: JobRun) -> Ending:
        return TryAgain("no answer", lane_is_blocked=True)

    kind = Kind("plain", run)

    async def scenario() -> None:
        with database.write() as transaction:
            rows.submit_many(transaction, [JobRequest(kind="plain", arguments={}, lane="peer:A")] * 1000)
        async with engine_of(database, tmp_path, kind, clock=clocks.now, chance=lambda: 0.0) as engine:
            for attempts, pause in ((1, 30), (2, 60), (3, 120), (4, 240)):
                await until(
                    lambda attempts=attempts: len(kind.begun) == attempts and engine.running == 0,
                    "one attempt",
                )
                clocks.pass_(pause - 1)
                engine.wake()
                await asyncio.sleep(0.1)  # several turns, none of which may take anything
                assert len(kind.begun) == attempts
                clocks.pass_(1)
        assert len({job.job_key for job in kind.begun}) == len(kind.begun)

    go(scenario())


def test_a_cancellation_is_concluded_at_once_in_a_blocked_lane_whose_block_stays(
    database: Database, tmp_path: Path
) -> None:
    async def run(run: JobRun) -> Ending:
        if run.job.wish is JobWish.CANCEL:
            return Finished("concluded", says_nothing_of_lane=True)
        return TryAgain("no answer", lane_is_blocked=True)

    kind = Kind("concluding", run, concludes_cancellation=True)

    async def scenario() -> None:
        job, other = (submit(database, kind="concluding", lane="peer:A") for _ in range(2))
        async with engine_of(database, tmp_path, kind) as engine:
            await until_state(database, job, "retry")
            await until(lambda: engine.running == 0 and lanes(database) == ["peer:A"], "its lane is blocked")
            act(database, rows.cancel, job)
            engine.wake()
            concluded = await until_state(database, job, "cancelled", seconds=5)
            assert (concluded.error, lanes(database)) == ("concluded", ["peer:A"])
            assert find(database, other).state == "pending"
        assert len(kind.begun) == 2

    go(scenario())
