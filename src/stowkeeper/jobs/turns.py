"""One turn of an engine as far as the database goes: a look, and one write transaction where there is something to write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stowkeeper.database.engine import Database
from stowkeeper.jobs import owners
from stowkeeper.jobs.endings import Died, Ended, Stopped, record
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.kind import Failed
from stowkeeper.jobs.leases import LeaseWatch, beat, jobs_of_owner, take_over
from stowkeeper.jobs.limits import LOOKS_PER_GAP
from stowkeeper.jobs.looking import RunningRow, Viewpoint, look
from stowkeeper.jobs.options import JobOptions
from stowkeeper.jobs.sharing import TurnsOfAskers
from stowkeeper.jobs.taking import Taken, conclude_cancelled, take

UNREADABLE_WORDS = (
    "its row in the database cannot be read: delete the job, and submit what it was to do anew; `stowkeeper verify` and a"
    " check of the disk tell whether more was harmed"
)

Runs = frozenset[tuple[int, int]]
"""Key and attempt of jobs that run in this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the event loop brings to a turn: the runs of this process, those that ended, and the room for more."""

    runs: Runs
    ended: Sequence[Ended]
    is_beat_due: bool
    places: int
    failing_places: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """What a turn did. `own` are our rows as they stood at the look, `after` the ended ones, None where the lease was lost.

    `unreadable` are jobs that failed as they were taken, since their rows cannot be read.
    """

    own: tuple[RunningRow, ...] = ()
    after: tuple[Job | None, ...] = ()
    cancelled: tuple[Job, ...] = ()
    taken_over: tuple[Job, ...] = ()
    taken: tuple[Taken, ...] = ()
    unreadable: tuple[Job, ...] = ()


@dataclass(slots=True, kw_only=True)
class Turns:
    """The turns of one engine. Everything blocks, and is called on one thread at a time.

    `concludes` names the kinds known here and tells whether each concludes a cancellation.
    """

    database: Database
    owner: str
    lock_folder: str
    concludes: Mapping[str, bool]
    options: JobOptions
    clock: Callable[[], str]
    monotonic: Callable[[], float]
    chance: Callable[[], float]
    _of_askers: TurnsOfAskers = field(init=False, default_factory=TurnsOfAskers)
    _watch: LeaseWatch = field(init=False)
    _gap_seconds_max: float = field(init=False)

    def __post_init__(self) -> None:
        self._gap_seconds_max = LOOKS_PER_GAP * self.options.poll_seconds
        self._watch = LeaseWatch(
            lease_seconds=self.options.lease_seconds,
            gap_seconds_max=self._gap_seconds_max,
            is_gone=self._is_gone,
            monotonic=self.monotonic,
        )

    def turn(self, asked: Asked) -> Turned:
        """Look, and write what there is to write. Raises DatabaseError, and then nothing was written."""
        view = self._view(asked)
        with self.database.read() as connection:
            sight = look(connection, view)
        own = tuple(row for row in sight.running if row.owner == self.owner)
        lost = self._watch.lost_owners(sight.running, self.owner)
        left_over = {(row.job_key, row.attempts) for row in own} - asked.runs
        if not (
            asked.ended or asked.is_beat_due or sight.has_due or sight.has_cancelled or lost or left_over
        ):
            return Turned(own=own)
        before = self.monotonic()
        with self.database.write() as transaction:
            if self.monotonic() - before > self._gap_seconds_max:
                # Whoever is silent may have waited for this very lock, as we did: it gets its turn first.
                lost = {owner: rows for owner, rows in lost.items() if self._is_gone(owner)}
            after = tuple(record(transaction, ended) for ended in asked.ended)
            for job in jobs_of_owner(transaction, self.owner) if left_over else ():
                if (job.job_key, job.attempts) in left_over:
                    record(transaction, self._ended(job, Died()))
            taken_over = take_over(transaction, lost, self._concludes, self.chance)
            if asked.is_beat_due:
                beat(transaction, self.owner)
            cancelled = conclude_cancelled(transaction, view.plain_kinds)
            taken = take(transaction, replace(view, now=transaction.at), self.owner, self._of_askers)
            for each in taken:
                self._of_askers.note(each.job)
            unreadable = [
                record(transaction, self._ended(each.job, Failed(UNREADABLE_WORDS)))
                for each in taken
                if not each.is_readable
            ]
            return Turned(
                own=own,
                after=after,
                cancelled=tuple(cancelled),
                taken_over=tuple(taken_over),
                taken=tuple(each for each in taken if each.is_readable),
                unreadable=tuple(job for job in unreadable if job is not None),
            )

    def end(self, ended: Sequence[Ended]) -> tuple[Job | None, ...]:
        """Write the last runs that ended, and let everything that is still ours wait again. Raises DatabaseError."""
        with self.database.read() as connection:
            sight = look(connection, self._view(NOTHING))
        if not ended and all(row.owner != self.owner for row in sight.running):
            return ()
        with self.database.write() as transaction:
            after = tuple(record(transaction, each) for each in ended)
            for job in jobs_of_owner(transaction, self.owner):
                record(transaction, self._ended(job, Stopped()))
            return after

    def remove_files_of_dead(self) -> None:
        """Remove what dead owners left in the folder of locks, those aside whose jobs are still to be taken over."""
        with self.database.read() as connection:
            sight = look(connection, self._view(NOTHING))
        owners.remove_files_of_dead(self.lock_folder, but=frozenset(row.owner for row in sight.running))

    def _view(self, asked: Asked) -> Viewpoint:
        return Viewpoint(
            now=self.clock(),
            kinds=tuple(self.concludes),
            plain_kinds=tuple(kind for kind, concludes in self.concludes.items() if not concludes),
            places=asked.places,
            failing_places=asked.failing_places,
            disk_lanes=self.options.disk_lanes,
        )

    def _ended(self, job: Job, outcome: Died | Stopped | Failed) -> Ended:
        return Ended(
            job=job, outcome=outcome, seconds=0.0, concludes=self._concludes(job.kind), chance=self.chance()
        )

    def _concludes(self, kind: str) -> bool:
        # Of a kind that is not known here nobody knows it: who does know it decides.
        return self.concludes.get(kind, True)

    def _is_gone(self, owner: str) -> bool:
        return owners.is_gone(self.lock_folder, owner)


NOTHING = Asked(runs=frozenset(), ended=(), is_beat_due=False, places=0, failing_places=0)
