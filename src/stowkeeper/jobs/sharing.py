"""Whose job is next in the lane of the disk: everybody's in turn, so that nobody waits for all that another one asked for.

A job is its peer's, or else whoever submitted it has it. Of those with equal priority goes first whose asker has the fewest
running there, then whose asker had a turn longest ago in this process, then the one that is due longest.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from stowkeeper.database.schema import RUNNING, WAITING
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.limits import ASKERS_REMEMBERED_MAX, SHARED_JOBS_LOOKED_AT_MAX
from stowkeeper.jobs.looking import Viewpoint, statement_of
from stowkeeper.jobs.options import DISK_LANE

_ASKER = "CASE jobs.peer WHEN '' THEN jobs.created_by ELSE jobs.peer END"

_FIRST_OF_EACH = statement_of(
    f"""
SELECT job_key, priority, due_at, asker FROM (
    SELECT job_key, priority, due_at, asker,
        row_number() OVER (PARTITION BY asker ORDER BY priority DESC, due_at, job_key) AS place
    FROM (
        SELECT jobs.job_key, jobs.priority, jobs.due_at, {_ASKER} AS asker
        FROM jobs WHERE {WAITING} AND jobs.lane = '{DISK_LANE}' AND jobs.due_at <= :now AND jobs.kind IN :kinds
        ORDER BY jobs.due_at LIMIT {SHARED_JOBS_LOOKED_AT_MAX}
    )
) WHERE place <= :free
""",  # noqa: S608 - it is put together from constants alone
    "kinds",
)

_RUNNING_OF_EACH = statement_of(
    f"SELECT {_ASKER} AS asker, count(*) AS count FROM jobs WHERE {RUNNING} AND jobs.lane = '{DISK_LANE}' GROUP BY 1"  # noqa: S608 - likewise
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """A job that is next in the lane of the disk."""

    job_key: int
    priority: int


@dataclass(slots=True)
class TurnsOfAskers:
    """When each asker had its last turn in the lane of the disk, as far as this process gave it one."""

    _numbers: dict[str, int] = field(default_factory=dict)
    _count: int = 0

    def number_of(self, asker: str) -> int:
        """Return the number of an asker's last turn; 0 for none."""
        return self._numbers.get(asker, 0)

    def note(self, job: Job) -> None:
        """Note that a job was taken, if it is of that lane."""
        if job.lane != DISK_LANE:
            return
        asker = job.peer or job.created_by
        self._count += 1
        self._numbers.pop(asker, None)
        self._numbers[asker] = self._count
        if len(self._numbers) > ASKERS_REMEMBERED_MAX:
            del self._numbers[next(iter(self._numbers))]


NO_TURNS = TurnsOfAskers()
"""For who takes once: nobody had a turn."""


def next_of_disk(connection: Connection, view: Viewpoint, free: int, turns: TurnsOfAskers) -> list[Next]:
    """Return the jobs that are next, as many as there are places free, in their order."""
    parameters = {"now": view.now, "kinds": list(view.kinds), "free": free}
    waiting = connection.execute(_FIRST_OF_EACH, parameters).all()
    if len(waiting) <= 1:
        return [Next(job_key=row.job_key, priority=row.priority) for row in waiting]
    running = Counter({row.asker: row.count for row in connection.execute(_RUNNING_OF_EACH)})
    return _chosen([_Waiting(*row) for row in waiting], free, running, turns)


@dataclass(frozen=True, slots=True)
class _Waiting:
    job_key: int
    priority: int
    due_at: str
    asker: str


def _chosen(
    waiting: Sequence[_Waiting], free: int, running: Mapping[str, int], turns: TurnsOfAskers
) -> list[Next]:
    left = list(waiting)
    taken = Counter(running)
    chosen: list[Next] = []
    while left and len(chosen) < free:
        first = min(
            left,
            key=lambda one: (
                -one.priority,
                taken[one.asker],
                turns.number_of(one.asker),
                one.due_at,
                one.job_key,
            ),
        )
        left.remove(first)
        taken[first.asker] += 1
        chosen.append(Next(job_key=first.job_key, priority=first.priority))
    return chosen
