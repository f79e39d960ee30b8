"""What an engine looks after once a minute: clocks that were set back, kinds that nobody knows, old jobs and lanes."""

from pathlib import Path

import pytest
from sqlalchemy import event, select, update

from stowkeeper.database.engine import Database
from stowkeeper.database.schema import job_items, job_lanes, jobs
from stowkeeper.jobs import rows
from stowkeeper.jobs.limits import (
    LANE_KEPT_SECONDS,
    RETENTION_ROWS_MAX,
    RETRY_AHEAD_SECONDS_MAX,
    SLEEP_SECONDS_MAX,
    UNKNOWN_KIND_CANCELLED_SECONDS,
    UNKNOWN_KIND_SECONDS,
    UNKNOWN_KIND_SEEN_SECONDS,
)
from stowkeeper.jobs.times import later
from stowkeeper.jobs.upkeep import Upkeep
from support.job_rig import (
    MIDNIGHT,
    Clocks,
    Kind,
    act,
    database_with,
    engine_of,
    find,
    finish,
    go,
    submit,
    until_state,
)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def database(tmp_path: Path, clocks: Clocks) -> Database:
    return database_with(tmp_path, clocks)


def upkeep_of(database: Database, clocks: Clocks) -> Upkeep:
    return Upkeep(database, kinds=("plain",), retention_days=30, clock=clocks.now, monotonic=clocks.steady)


def put(database: Database, subject: str, **columns: object) -> None:
    job = submit(database, subject=subject)
    with database.write() as transaction:
        transaction.execute(update(jobs).where(jobs.c.job_key == job.job_key).values(columns))


def due(database: Database) -> dict[str, str]:
    with database.read() as connection:
        return {row.subject: row.due_at for row in connection.execute(select(jobs.c.subject, jobs.c.due_at))}


def test_what_waits_for_a_time_out_of_reach_is_due(database: Database, clocks: Clocks) -> None:
    ahead = {
        "retry within": ("retry", RETRY_AHEAD_SECONDS_MAX),
        "retry beyond": ("retry", RETRY_AHEAD_SECONDS_MAX + 1),
        "pending within": ("pending", SLEEP_SECONDS_MAX),
        "pending beyond": ("pending", SLEEP_SECONDS_MAX + 1),
        "paused": ("paused", SLEEP_SECONDS_MAX + 1),
    }
    for subject, (state, seconds) in ahead.items():
        put(database, subject, state=state, due_at=later(MIDNIGHT, seconds))
    kept = upkeep_of(database, clocks).round()
    assert kept.brought_forward == 2
    assert due(database) == {
        subject: MIDNIGHT if subject.endswith("beyond") else later(MIDNIGHT, seconds)
        for subject, (_, seconds) in ahead.items()
    }


@pytest.mark.parametrize("seconds", [-10.0, -3600.0, -40 * 86_400.0, 40 * 86_400.0])
def test_whatever_the_clock_is_set_to_no_job_is_left_lying(
    database: Database, clocks: Clocks, seconds: float
) -> None:
    """The longest that anything waits is what it would have waited at most without the clock being set."""
    for state, ahead in (
        ("retry", 3600.0),
        ("retry", 30.0),
        ("pending", SLEEP_SECONDS_MAX),
        ("pending", 0.0),
    ):
        put(database, f"{state} {ahead}", state=state, due_at=later(MIDNIGHT, ahead))
    with database.write() as transaction:
        transaction.execute(
            job_lanes.insert().values(
                lane="peer:A", failures=9, blocked_until=later(MIDNIGHT, 3600), words="no answer"
            )
        )
    clocks.set_by(seconds)
    now = clocks.wall
    upkeep_of(database, clocks).round()
    found = due(database)
    assert len(found) == 4
    for subject, due_at in found.items():
        most = RETRY_AHEAD_SECONDS_MAX if subject.startswith("retry") else SLEEP_SECONDS_MAX
        assert due_at <= later(now, most)
    with database.read() as connection:
        blocked = connection.execute(select(job_lanes.c.blocked_until)).scalars().all()
    assert len(blocked) == (seconds < 0)  # what ended long ago is gone
    assert all(until <= later(now, RETRY_AHEAD_SECONDS_MAX) for until in blocked)


def test_an_engine_runs_what_a_clock_that_was_set_back_left(database: Database, tmp_path: Path) -> None:
    clocks = Clocks(wall="2020-01-01T00:00:00.000000Z")
    database._clock = clocks.now

    async def scenario() -> None:
        job = submit(database, lane="peer:A")
        with database.write() as transaction:
            transaction.execute(update(jobs).values(state="retry", due_at="2026-01-01T00:00:00.000000Z"))
            transaction.execute(
                job_lanes.insert().values(
                    lane="peer:A", failures=1, blocked_until="2026-01-01T00:00:00.000000Z", words="no answer"
                )
            )
        async with engine_of(database, tmp_path, Kind("plain", finish), clock=clocks.now):
            await until_state(database, job, "success", seconds=10)

    go(scenario())


def test_lanes_are_forgotten_a_day_after_their_block(database: Database, clocks: Clocks) -> None:
    with database.write() as transaction:
        for lane, ago in (("old", LANE_KEPT_SECONDS + 1), ("fresh", LANE_KEPT_SECONDS - 1)):
            transaction.execute(
                job_lanes.insert().values(
                    lane=lane, failures=1, blocked_until=later(MIDNIGHT, -ago), words=""
                )
            )
    upkeep_of(database, clocks).round()
    with database.read() as connection:
        assert connection.execute(select(job_lanes.c.lane)).scalars().all() == ["fresh"]


def test_nothing_to_do_is_nothing_written(database: Database, clocks: Clocks) -> None:
    submit(database)
    submit(database, "newer")
    with database.write() as transaction:
        transaction.execute(
            job_lanes.insert().values(lane="peer:A", failures=1, blocked_until=MIDNIGHT, words="")
        )
    begun: list[object] = []
    event.listen(database._writer_engine, "begin", begun.append)
    upkeep = upkeep_of(database, clocks)
    upkeep.round()
    assert not upkeep.forget_old()
    assert begun == []


# Kinds that nobody knows


def test_a_kind_that_nobody_knows_is_left_for_a_day_and_fails_in_words(
    database: Database, clocks: Clocks
) -> None:
    job = submit(database, "newer")
    known = submit(database, "plain")
    upkeep = upkeep_of(database, clocks)
    upkeep.round()
    clocks.pass_(UNKNOWN_KIND_SECONDS)
    assert upkeep.round().ended == ()
    clocks.pass_(1)
    (ended,) = upkeep.round().ended
    after = find(database, job)
    assert after == ended
    assert (after.state, after.finished_at) == ("failure", clocks.wall)
    assert "no process here knows jobs of kind newer" in after.error
    assert find(database, known).state == "pending"
    assert act(database, rows.resubmit, after).state == "pending"


def test_a_clock_that_was_set_forward_ends_no_job(database: Database, clocks: Clocks) -> None:
    job = submit(database, "newer")
    upkeep = upkeep_of(database, clocks)
    upkeep.round()
    clocks.set_by(10 * UNKNOWN_KIND_SECONDS)
    clocks.pass_(UNKNOWN_KIND_SEEN_SECONDS - 1)
    assert upkeep.round().ended == ()
    assert find(database, job).state == "pending"
    clocks.pass_(1)
    assert len(upkeep.round().ended) == 1


def test_a_kind_that_came_back_into_use_is_counted_anew(database: Database, clocks: Clocks) -> None:
    job = submit(database, "newer")
    upkeep = upkeep_of(database, clocks)
    upkeep.round()
    clocks.pass_(2 * UNKNOWN_KIND_SECONDS)
    with database.write() as transaction:
        transaction.execute(update(jobs).values(state="running"))  # a process took it that knows it
    upkeep.round()
    with database.write() as transaction:
        transaction.execute(update(jobs).values(state="pending"))
    assert upkeep.round().ended == ()
    assert find(database, job).state == "pending"


def test_a_cancelled_job_of_a_kind_that_nobody_knows_is_cancelled_soon(
    database: Database, clocks: Clocks
) -> None:
    job = submit(database, "newer")
    act(database, rows.cancel, job)
    upkeep = upkeep_of(database, clocks)
    upkeep.round()
    clocks.pass_(UNKNOWN_KIND_CANCELLED_SECONDS)
    upkeep.round()
    clocks.pass_(1)
    upkeep.round()
    after = find(database, job)
    assert (after.state, after.wish, after.error) == ("cancelled", "", "cancelled by tester")


# Retention


def test_old_jobs_are_forgotten_and_waiting_ones_never(database: Database, clocks: Clocks) -> None:
    old = submit(database, items=["x"] * (RETENTION_ROWS_MAX + 1))
    put(database, "done", state="success", finished_at=later(MIDNIGHT, 60))
    with database.write() as transaction:
        transaction.execute(
            update(jobs).where(jobs.c.job_key == old.job_key).values(state="failure", finished_at=MIDNIGHT)
        )
    put(database, "waits", state="retry")
    upkeep = upkeep_of(database, clocks)
    assert not upkeep.forget_old()
    clocks.pass_(30 * 86_400 + 1)
    assert upkeep.forget_old()
    while upkeep.forget_old():
        pass
    assert set(due(database)) == {"done", "waits"}
    with database.read() as connection:
        assert connection.execute(select(job_items)).all() == []
    clocks.pass_(60)
    while upkeep.forget_old():
        pass
    assert set(due(database)) == {"waits"}
