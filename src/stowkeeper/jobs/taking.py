"""Taking jobs: in one write transaction, which excludes every other process, so no job goes to two.

Of the jobs that are due those with the larger priority go first, among equals those of lanes that answered last time, then
the one submitted first; in the lane of the disk everybody's in turn (`sharing.py`). In a lane that failed last time the one that waited longest for its turn goes first instead: a job
that makes its peer fall over does not keep its place at the head. While a lane is blocked only what was cancelled is taken
of it, to conclude that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select, update

from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import WAITING, jobs
from stowkeeper.jobs.columns import is_readable, job_of
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.limits import BULK_JOBS_MAX
from stowkeeper.jobs.looking import CANCELLED_IN_BLOCKED_LANE, OPEN_LANES, Viewpoint, statement_of
from stowkeeper.jobs.options import DISK_LANE
from stowkeeper.jobs.sharing import NO_TURNS, Next, TurnsOfAskers, next_of_disk
from stowkeeper.jobs.states import JobEvent, JobState, JobWish, next_state

_DUE = f"{WAITING} AND jobs.due_at <= :now AND jobs.kind IN :kinds"

_OPEN = statement_of(
    f"""
{OPEN_LANES},
heads (lane, failures, free, job_key) AS (
    SELECT open_lanes.lane, open_lanes.failures, open_lanes.free,
        CASE WHEN open_lanes.lane IN ('', '{DISK_LANE}') THEN NULL
        WHEN open_lanes.failures > 0 THEN (
            SELECT jobs.job_key FROM jobs WHERE {_DUE} AND jobs.lane = open_lanes.lane
            ORDER BY jobs.priority DESC, jobs.due_at, jobs.job_key LIMIT 1
        )
        ELSE (
            SELECT jobs.job_key FROM jobs WHERE {_DUE} AND jobs.lane = open_lanes.lane
            ORDER BY jobs.priority DESC, jobs.job_key LIMIT 1
        ) END
    FROM open_lanes
)
SELECT heads.lane, heads.failures, heads.free, heads.job_key, jobs.priority
FROM heads LEFT JOIN jobs ON jobs.job_key = heads.job_key
""",  # noqa: S608 - it is put together from constants alone
    "kinds",
)
"""Each open lane, with the job at its head where it holds one at a time."""

_FIRST_OF_LANE = statement_of(
    f"""
SELECT jobs.job_key, jobs.priority FROM jobs WHERE {_DUE} AND jobs.lane = :lane
ORDER BY jobs.priority DESC, jobs.job_key LIMIT :free
""",  # noqa: S608 - likewise
    "kinds",
)


_CANCELLED = statement_of(CANCELLED_IN_BLOCKED_LANE, "kinds")

_IS_CANCELLED = statement_of(
    f"wish <> '' AND {WAITING} AND wish = '{JobWish.CANCEL.value}' AND +kind IN :kinds", "kinds"
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _Candidate:
    """A job that could be taken; the smallest goes first."""

    minus_priority: int
    lane_fails: bool
    job_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A job that was taken, and whether its lane failed last time. One that is not readable cannot be run."""

    job: Job
    lane_fails: bool
    is_readable: bool = True


def take(
    transaction: Transaction, view: Viewpoint, owner: str, turns: TurnsOfAskers = NO_TURNS
) -> list[Taken]:
    """Take the jobs that are next, as many as there are places for, in the order in which they are next."""
    chosen: dict[int, bool] = {}
    for candidate in sorted(_candidates(transaction, view, turns)):
        if len(chosen) >= view.places:
            break
        if candidate.lane_fails and sum(chosen.values()) >= view.failing_places:
            continue
        chosen[candidate.job_key] = candidate.lane_fails
    if not chosen:
        return []
    transaction.execute(
        update(jobs)
        .where(jobs.c.job_key.in_(chosen))
        .values(
            state=next_state(JobState.PENDING, JobEvent.TAKE).value,
            owner=owner,
            attempts=jobs.c.attempts + 1,
            heartbeat=jobs.c.heartbeat + 1,
            started_at=func.coalesce(jobs.c.started_at, transaction.at),
        )
    )
    taken = {
        row.job_key: Taken(job=job_of(row), lane_fails=chosen[row.job_key], is_readable=is_readable(row))
        for row in transaction.execute(select(jobs).where(jobs.c.job_key.in_(chosen)))
    }
    return [taken[job_key] for job_key in chosen]


def _candidates(transaction: Transaction, view: Viewpoint, turns: TurnsOfAskers) -> list[_Candidate]:
    found: list[_Candidate] = []
    for lane in transaction.execute(_OPEN, view.parameters()).all():
        if lane.job_key is not None:
            found.append(_candidate(lane, lane.failures))
            continue
        if lane.lane == DISK_LANE:
            next_ones = next_of_disk(transaction.connection, view, lane.free, turns)
            found += [_candidate(one, lane.failures) for one in next_ones]
            continue
        several = transaction.execute(
            _FIRST_OF_LANE,
            {"now": view.now, "kinds": list(view.kinds), "lane": lane.lane, "free": lane.free},
        )
        found += [_candidate(row, lane.failures) for row in several]
    cancelled = transaction.execute(_CANCELLED, view.parameters()).all()
    return found + [_candidate(row, row.failures) for row in cancelled]


def _candidate(row: Row[Any] | Next, failures: int) -> _Candidate:
    return _Candidate(minus_priority=-row.priority, lane_fails=failures > 0, job_key=row.job_key)


def conclude_cancelled(transaction: Transaction, kinds: Sequence[str]) -> list[Job]:
    """Cancel the jobs of these kinds that wait with the wish for it: there is nothing to conclude first."""
    waiting = select(jobs).where(_IS_CANCELLED).limit(BULK_JOBS_MAX)
    found = [job_of(row) for row in transaction.execute(waiting, {"kinds": list(kinds)})]
    if not found:
        return []
    keys = [job.job_key for job in found]
    transaction.execute(
        update(jobs)
        .where(jobs.c.job_key.in_(keys))
        .values(
            state=next_state(JobState.PENDING, JobEvent.CONCLUDE).value,
            wish=JobWish.NONE.value,
            finished_at=transaction.at,
        )
    )
    return [job_of(row) for row in transaction.execute(select(jobs).where(jobs.c.job_key.in_(keys)))]
