"""What an engine sees at one look: one statement over partial indexes, whose cost follows the lanes and not the jobs.

A lane is *open* when it is not blocked, has a place free over all processes, and holds a job that is due and of a kind
known here. A job that was cancelled does not wait for the block of its lane. Lanes are found by going from one to the next in the index of the waiting jobs; so a thousand jobs in a
blocked lane cost one step. `open_lanes` is the one definition, for looking and for taking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, bindparam, text

from stowkeeper.database.schema import RUNNING, WAITING
from stowkeeper.jobs.options import DISK_LANE
from stowkeeper.jobs.states import JobWish

OPEN_LANES = f"""
WITH RECURSIVE waiting_lanes (lane) AS (
    SELECT (SELECT min(lane) FROM jobs WHERE {WAITING})
    UNION ALL
    SELECT (SELECT min(jobs.lane) FROM jobs WHERE {WAITING} AND jobs.lane > waiting_lanes.lane)
    FROM waiting_lanes WHERE waiting_lanes.lane IS NOT NULL
),
free_lanes (lane, failures, free) AS (
    SELECT waiting_lanes.lane, coalesce(job_lanes.failures, 0),
        CASE waiting_lanes.lane WHEN '' THEN :places WHEN '{DISK_LANE}' THEN :disk_lanes ELSE 1 END
        - CASE waiting_lanes.lane WHEN '' THEN 0 ELSE
            (SELECT count(*) FROM jobs WHERE {RUNNING} AND jobs.lane = waiting_lanes.lane) END
    FROM waiting_lanes LEFT JOIN job_lanes ON job_lanes.lane = waiting_lanes.lane
    WHERE waiting_lanes.lane IS NOT NULL AND coalesce(job_lanes.blocked_until, '') <= :now
),
open_lanes (lane, failures, free) AS (
    SELECT lane, failures, free FROM free_lanes
    WHERE :places > 0 AND free > 0 AND (failures = 0 OR :failing_places > 0)
        AND EXISTS (
            SELECT 1 FROM jobs WHERE {WAITING} AND jobs.lane = free_lanes.lane
                AND jobs.due_at <= :now AND jobs.kind IN :kinds
        )
)
"""  # noqa: S608 - it is put together from constants alone
"""Common table expressions. Of the lanes that failed last time no job is taken while `failing_places` is 0."""

CANCELLED_IN_BLOCKED_LANE = f"""
SELECT jobs.job_key, jobs.priority, jobs.lane, job_lanes.failures
FROM jobs CROSS JOIN job_lanes ON job_lanes.lane = jobs.lane
WHERE wish <> '' AND {WAITING} AND wish = '{JobWish.CANCEL.value}' AND +jobs.kind IN :kinds AND jobs.due_at <= :now
    AND job_lanes.blocked_until > :now AND :places > 0 AND :failing_places > 0
    AND NOT EXISTS (SELECT 1 FROM jobs AS others WHERE {RUNNING} AND others.lane = job_lanes.lane)
ORDER BY jobs.job_key LIMIT 1
"""  # noqa: S608 - likewise
"""The first job in a blocked lane that waits to conclude its cancellation, which need not wait for the peer. It goes through
the index of the few jobs with a wish, and ends at the first that it finds."""

_LOOK = f"""
{OPEN_LANES}
SELECT * FROM (SELECT 'due' AS what, 0 AS job_key, lane AS owner, 0 AS attempts, 0 AS heartbeat, '' AS wish
    FROM open_lanes LIMIT 1)
UNION ALL
SELECT 'due', 0, lane, 0, 0, '' FROM ({CANCELLED_IN_BLOCKED_LANE})
UNION ALL
SELECT 'wished', job_key, '', 0, 0, wish FROM jobs
    WHERE wish <> '' AND {WAITING} AND wish = '{JobWish.CANCEL.value}' AND +kind IN :plain_kinds
UNION ALL
SELECT 'running', job_key, owner, attempts, heartbeat, wish FROM jobs WHERE {RUNNING}
"""  # noqa: S608 - likewise


def statement_of(sql: str, *lists: str) -> TextClause:
    """Return a statement whose named lists stand for values in any number."""
    return text(sql).bindparams(*(bindparam(name, expanding=True) for name in lists))


# The sign before `kind` keeps SQLite from going by the index of all jobs of a kind.
LOOK = statement_of(_LOOK, "kinds", "plain_kinds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewpoint:
    """What an engine looks for: kinds it knows, those of them with nothing to conclude, and what it has room for."""

    now: str
    kinds: Sequence[str]
    plain_kinds: Sequence[str]
    places: int
    failing_places: int
    disk_lanes: int

    def parameters(self) -> dict[str, Any]:
        """Return the values of OPEN_LANES."""
        return {
            "now": self.now,
            "kinds": list(self.kinds),
            "places": self.places,
            "failing_places": self.failing_places,
            "disk_lanes": self.disk_lanes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRow:
    """A job that somebody has taken, as far as leases and wishes go."""

    job_key: int
    owner: str
    attempts: int
    heartbeat: int
    wish: JobWish


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one look showed: whether a job could be taken, whether one waits to be cancelled, and what runs anywhere."""

    has_due: bool
    has_cancelled: bool
    running: tuple[RunningRow, ...]


def look(connection: Connection, view: Viewpoint) -> Sight:
    """Look once."""
    rows = connection.execute(LOOK, {**view.parameters(), "plain_kinds": list(view.plain_kinds)}).all()
    return Sight(
        has_due=any(row.what == "due" for row in rows),
        has_cancelled=any(row.what == "wished" for row in rows),
        running=tuple(
            RunningRow(
                job_key=row.job_key,
                owner=row.owner,
                attempts=row.attempts,
                heartbeat=row.heartbeat,
                wish=JobWish(row.wish),
            )
            for row in rows
            if row.what == "running"
        ),
    )
