"""Leases: when jobs of another owner may be taken over, and how.

An owner whose file nobody holds is dead. One whose file is held, or not to be found, is silent when nothing of its rows has
changed for the time of a lease. That time is counted by the observer's own monotonic clock, and only while the observer
itself looked: setting a clock, or stopping all processes of a machine for a while, takes no job from anybody.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import select, text, update

from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import RUNNING, jobs
from stowkeeper.jobs.columns import job_of
from stowkeeper.jobs.endings import Died, Ended, record
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.looking import RunningRow

_IS_RUNNING = text(RUNNING)

Rows = frozenset[tuple[int, int, int]]
"""Key, attempts and heartbeat of each job of an owner: as long as it lives, something of it changes."""


@dataclass(slots=True)
class _Watched:
    rows: Rows
    still_seconds: float = 0.0


class LeaseWatch:
    """Watches the other owners of one engine, from look to look.

    `gap_seconds_max` is the most that counts between two looks: for more than that the observer itself stood still.
    """

    def __init__(
        self,
        *,
        lease_seconds: float,
        gap_seconds_max: float,
        is_gone: Callable[[str], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self._lease_seconds = lease_seconds
        self._gap_seconds_max = gap_seconds_max
        self._is_gone = is_gone
        self._monotonic = monotonic
        self._watched: dict[str, _Watched] = {}
        self._looked_at: float | None = None

    def lost_owners(self, running: Iterable[RunningRow], own: str) -> dict[str, Rows]:
        """Return the owners whose jobs may be taken over now, with their rows as they are seen to stand still."""
        now = self._monotonic()
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, self._gap_seconds_max)
        self._looked_at = now
        before, self._watched = self._watched, {}
        lost: dict[str, Rows] = {}
        for owner, rows in rows_by_owner(running).items():
            if owner == own:
                continue
            known = before.get(owner)
            watched = known if known is not None and known.rows == rows else _Watched(rows)
            if watched is known:
                watched.still_seconds += passed
            self._watched[owner] = watched
            if watched.still_seconds >= self._lease_seconds or self._is_gone(owner):
                lost[owner] = rows
        return lost


def rows_by_owner(running: Iterable[RunningRow]) -> dict[str, Rows]:
    """Return the rows of each owner."""
    found: dict[str, set[tuple[int, int, int]]] = {}
    for row in running:
        found.setdefault(row.owner, set()).add((row.job_key, row.attempts, row.heartbeat))
    return {owner: frozenset(rows) for owner, rows in found.items()}


def take_over(
    transaction: Transaction,
    lost: Mapping[str, Rows],
    concludes: Callable[[str], bool],
    chance: Callable[[], float],
) -> list[Job]:
    """Let the jobs of lost owners wait again, those whose rows still stand as they were seen. Return them as they are then."""
    freed: list[Job] = []
    for owner, rows in lost.items():
        for job in jobs_of_owner(transaction, owner):
            if (job.job_key, job.attempts, job.heartbeat) not in rows:
                continue
            ended = Ended(
                job=job, outcome=Died(), seconds=0.0, concludes=concludes(job.kind), chance=chance()
            )
            after = record(transaction, ended)
            if after is not None:
                freed.append(after)
    return freed


def jobs_of_owner(transaction: Transaction, owner: str) -> list[Job]:
    """Return the jobs that an owner has taken."""
    query = select(jobs).where(_IS_RUNNING, jobs.c.owner == owner).order_by(jobs.c.job_key)
    return [job_of(row) for row in transaction.execute(query)]


def beat(transaction: Transaction, owner: str) -> None:
    """Count the heartbeat of an owner's jobs up."""
    transaction.execute(
        update(jobs).where(_IS_RUNNING, jobs.c.owner == owner).values(heartbeat=jobs.c.heartbeat + 1)
    )
