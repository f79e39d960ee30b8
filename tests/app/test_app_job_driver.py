"""Commands that carry out jobs themselves: only where no server does, only their own kinds, and for as long as they run."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.app.commands import job_driver
from stowkeeper.app.commands.job_driver import carrying_out, server_runs, wait_for_end
from stowkeeper.app.settings import load_settings
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.jobs import rows
from stowkeeper.jobs.engine import JobEngine
from stowkeeper.jobs.job import JobRequest
from stowkeeper.jobs.kind import Ending, Finished
from stowkeeper.jobs.limits import UNKNOWN_KIND_SECONDS, UNKNOWN_KIND_SEEN_SECONDS, UPKEEP_SECONDS
from stowkeeper.jobs.options import JobOptions
from stowkeeper.jobs.owners import OwnerLock
from stowkeeper.jobs.run import JobRun
from stowkeeper.jobs.states import JobState
from stowkeeper.jobs.times import later
from stowkeeper.jobs.upkeep import Upkeep
from support.catalog_rows import open_database
from support.command_line import keep
from support.instances import make_instance
from support.job_engine_thread import job_of


class Plain:
    """A kind whose jobs are done at once."""

    name = "plain"
    concludes_cancellation = False

    def __init__(self) -> None:
        self.is_closed = False

    async def run(self, run: JobRun) -> Ending:
        return Finished("done")

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    keep(tmp_path / "archive", make_instance(1))
    return tmp_path / "archive"


def drive(archive: Path, look: Any, kinds: Sequence[Any], patience: float = 20.0) -> bool:
    async def driving() -> bool:
        settings = load_settings(None, {"archive": str(archive)}, {})
        reader = ArchiveReader(str(archive))
        try:
            async with carrying_out(reader, settings, lambda: kinds):
                return await wait_for_end(look, patience)
        finally:
            reader.close()

    return asyncio.run(driving())


def submit(archive: Path, kind: str) -> str:
    with open_database(archive) as database, database.write() as transaction:
        return rows.submit(transaction, JobRequest(kind=kind, arguments={})).job_id


def state_of(archive: Path, job_id: str) -> JobState:
    with open_database(archive) as database:
        return job_of(database, job_id).state


@pytest.mark.slow
def test_its_own_kinds_are_carried_out_and_others_left(archive: Path) -> None:
    mine, other = submit(archive, "plain"), submit(archive, "other")
    kind = Plain()
    assert drive(archive, lambda: (state_of(archive, mine) is JobState.SUCCESS, None), [kind])
    assert kind.is_closed
    assert state_of(archive, other) is JobState.PENDING


def test_it_gives_up_when_there_is_no_news(archive: Path) -> None:
    looks: list[int] = []

    def look() -> tuple[bool, object]:
        looks.append(1)
        return False, min(len(looks), 3)

    assert not drive(archive, look, [], patience=0.3)
    assert len(looks) > 3


def test_the_engine_of_a_command_is_no_server_and_that_of_a_server_is(archive: Path) -> None:
    assert not server_runs(str(archive))
    seen: list[bool] = []

    def look() -> tuple[bool, object]:
        seen.append(server_runs(str(archive)))
        return len(seen) > 2, None

    drive(archive, look, [])
    assert not any(seen)
    lock = OwnerLock(str(archive / "jobs"), "receiver-1")
    lock.acquire()
    assert server_runs(str(archive))
    lock.release()
    assert not server_runs(str(archive))
    # What a killed server left behind is no server.
    (archive / "jobs" / "receiver-2.owner").write_bytes(b"")
    assert not server_runs(str(archive))


def test_jobs_of_other_kinds_are_never_ended_by_it(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[JobOptions] = []

    class Watched(JobEngine):
        def __init__(self, *arguments: Any, options: JobOptions, **more: Any) -> None:
            chosen.append(options)
            super().__init__(*arguments, options=options, **more)

    monkeypatch.setattr(job_driver, "JobEngine", Watched)
    drive(archive, lambda: (True, None), [])
    assert [options.ends_unknown_kinds for options in chosen] == [False]


@pytest.mark.parametrize("ends_unknown_kinds", [True, False])
def test_without_that_right_an_unknown_kind_waits_on(archive: Path, *, ends_unknown_kinds: bool) -> None:
    old = submit(archive, "other")
    with open_database(archive) as database:
        monotonic = [0.0]
        ahead = UNKNOWN_KIND_SECONDS + UNKNOWN_KIND_SEEN_SECONDS + UPKEEP_SECONDS
        upkeep = Upkeep(
            database,
            kinds=["plain"],
            retention_days=30,
            clock=lambda: later(job_of(database, old).created_at, ahead),
            monotonic=lambda: monotonic[0],
            ends_unknown_kinds=ends_unknown_kinds,
        )
        with database.write() as transaction:
            transaction.connection.exec_driver_sql(
                "UPDATE jobs SET due_at = ?", (later(transaction.at, -2 * UNKNOWN_KIND_SECONDS),)
            )
        upkeep.round()
        monotonic[0] = ahead
        upkeep.round()
        expected = JobState.FAILURE if ends_unknown_kinds else JobState.PENDING
        assert job_of(database, old).state is expected
