"""The scrub: every file of the archive is read again within some days, for ever, so slowly that nobody notices.

A disk loses bits in silence, and a copy elsewhere helps only while it is still there. So one job goes round the archive:
it reads some files in the order of their rows, waits as a pending job until the rate allows more, and goes on behind the
last one. Its cursor stands in the checkpoint, so a restart repeats a slice at most. The rate follows from what is left to
be read and the time that is left of the round. What arrives during a round comes at its end.

What is found damaged is marked and put to quarantine as `verify` does, said in the log, and kept as an item of the job.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import ClassVar, Self

import structlog
from sqlalchemy import func, select

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.judging import STANDING
from stowkeeper.archive.verification import Verification, VersionRow
from stowkeeper.database.engine import Transaction, utc_now
from stowkeeper.database.schema import versions
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.job import JSON, Job, JobFilter, JobRequest
from stowkeeper.jobs.kind import Ending, Finished, JobRun, NextStep
from stowkeeper.jobs.states import FINISHED, JobState
from stowkeeper.services.archive_job_limits import (
    SCRUB_BURST,
    SCRUB_BURST_BYTES_MIN,
    SCRUB_CATCH_UP,
    SCRUB_CLOCK_SECONDS,
    SCRUB_COUNT_SECONDS,
    SCRUB_DAYS_MAX,
    SCRUB_FILE_COST,
    SCRUB_ROUND_SHARE,
    SCRUB_SLICE_COST_MIN,
    SCRUB_SLICE_FILES_MAX,
    SCRUB_SLICE_SECONDS,
)
from stowkeeper.services.findings import Findings, say_result
from stowkeeper.services.pace import Pace

log = structlog.get_logger("stowkeeper.archive")

SCRUB = "scrub"
ARCHIVE_LANE = "archive"
"""The lane of jobs that read the whole archive: one at a time."""

_SECONDS_A_DAY = 86_400.0


def keep_scrubbing(transaction: Transaction, *, created_by: str) -> Job | None:
    """Put in the job of the scrub where none is under way, for the start of a server; return it, None where there is one.

    One that somebody cancelled is put in anew: it is switched off by its days.
    """
    unfinished = tuple(state for state in JobState if state not in FINISHED)
    if job_rows.list_jobs(transaction.connection, JobFilter(kind=SCRUB, state=unfinished, limit=1)):
        return None
    return job_rows.submit(
        transaction, JobRequest(kind=SCRUB, arguments={}, lane=ARCHIVE_LANE, created_by=created_by)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """How far a round is. Costs are bytes with SCRUB_FILE_COST for each file; times are UTC in ISO 8601.

    `left` is the cost of what was to be read when it was counted, at `counted_at`, less what was read since. `words` are
    those of the round before.
    """

    number: int
    began_at: str
    counted_at: str
    total: int
    left: int
    files_expected: int
    after: int = 0
    files: int = 0
    size: int = 0
    whole: int = 0
    found_before: dict[str, int]
    words: str = ""
    is_over: bool = False

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        """Read what `to_json` wrote. Raises TypeError for something else."""
        return cls(**value)

    def to_json(self) -> JSON:
        """Return it as a checkpoint keeps it."""
        return asdict(self)

    def rate(self, now: str, days: float) -> float:
        """Return how many bytes of cost a second are to be read now.

        It is the even rate of a round while the round is on time, and more when it is late, within a bound.
        """
        in_all = days * _SECONDS_A_DAY * SCRUB_ROUND_SHARE
        even = max(self.total, 1) / in_all
        seconds_left = in_all - max(seconds_between(self.began_at, now), 0.0)
        fastest = even * SCRUB_CATCH_UP
        return fastest if seconds_left <= 0 else min(max(self.left / seconds_left, even), fastest)


@dataclass(frozen=True, slots=True)
class ScrubJob:
    """Reads the archive again in rounds of `days` at most, for ever. 0 days ends it. `clock` gives the time as UTC text."""

    archive: ArchiveReader
    days: float
    clock: Callable[[], str] = utc_now
    name: ClassVar[str] = SCRUB
    concludes_cancellation: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.days <= SCRUB_DAYS_MAX:
            raise ValueError(
                f"a round of the scrub takes 0 (off) to {SCRUB_DAYS_MAX:g} days, not {self.days:g}"
            )

    async def run(self, run: JobRun) -> Ending:
        """Read one slice of a round."""
        return await run.in_thread(self._slice, run)

    def _slice(self, run: JobRun) -> Ending:
        if self.days == 0:
            return Finished("the scrub is switched off by its days")
        now = self.clock()
        findings = Findings(run)
        this = self._round(run.job.checkpoint, now, findings)
        wait = self._wait_for_next(this, now)
        if wait > 0:
            # With the checkpoint: it may have been begun anew by a clock that was set back.
            return NextStep("", ARCHIVE_LANE, _checkpoint(this, findings), due_in_seconds=wait)
        if this.is_over:
            this = self._begin(this.number + 1, now, this.words, findings)
        rate = this.rate(now, self.days)
        pace = Pace(run.stopping, max(rate * SCRUB_BURST, SCRUB_BURST_BYTES_MIN))
        verification = Verification(
            self.archive.files, self.archive.root, self.archive.database, progress=pace
        )
        chosen = list(_slice_of(verification.rows(this.after), rate))
        for _, found in verification.check(chosen):
            pace(0)
            if found is not None:
                findings.note(found)
        cost = sum(map(_cost_of, chosen))
        counts = verification.counts
        this = replace(
            this,
            after=chosen[-1].version_key if chosen else this.after,
            left=max(this.left - cost, 0),
            files=this.files + counts.files,
            size=this.size + counts.size,
            whole=this.whole + counts.whole,
        )
        if not chosen:
            this = self._end(this, findings)
        findings.write(_checkpoint(this, findings), done=this.files, total=this.files_expected)
        spent = max(seconds_between(now, self.clock()), 0.0)
        wait = self._wait_for_next(this, now) if this.is_over else cost / rate - spent
        return NextStep("", ARCHIVE_LANE, due_in_seconds=max(wait, 0.0))

    def _round(self, checkpoint: JSON, now: str, findings: Findings) -> Round:
        """Return where the checkpoint says that we are, counted anew from time to time."""
        if "round" not in checkpoint:
            return self._begin(1, now, "", findings)
        this = Round.from_json(checkpoint["round"])
        if seconds_between(now, this.began_at) > SCRUB_CLOCK_SECONDS:
            this = replace(this, began_at=now, counted_at=now)
        since = seconds_between(this.counted_at, now)
        if not this.is_over and not 0 <= since < SCRUB_COUNT_SECONDS:
            files, left = self._count(this.after)
            total = max(this.total, this.total - this.left + left)
            this = replace(this, counted_at=now, left=left, total=total, files_expected=this.files + files)
        return this

    def _begin(self, number: int, now: str, words: str, findings: Findings) -> Round:
        files, left = self._count(0)
        return Round(
            number=number,
            began_at=now,
            counted_at=now,
            total=left,
            left=left,
            files_expected=files,
            found_before=dict(findings.faults),
            words=words,
        )

    def _end(self, this: Round, findings: Findings) -> Round:
        found = Counter(findings.faults)
        found.subtract(this.found_before)
        result = say_result(files=this.files, size=this.size, whole=this.whole, faults=found)
        words = f"round {this.number}, begun {this.began_at}: {result}"
        log.info("scrub", what=words)
        return replace(this, words=words, is_over=True)

    def _wait_for_next(self, this: Round, now: str) -> float:
        """Return the seconds until the next round is due; 0 while this one is not over."""
        if not this.is_over:
            return 0.0
        return self.days * _SECONDS_A_DAY * SCRUB_ROUND_SHARE - seconds_between(this.began_at, now)

    def _count(self, after: int) -> tuple[int, int]:
        """Return how many files stand behind a row, and the cost of reading them."""
        query = select(func.count(), func.coalesce(func.sum(versions.c.file_size), 0)).where(
            versions.c.version_key > after, versions.c.state.in_(STANDING)
        )
        with self.archive.database.read() as connection:
            files, size = connection.execute(query).one()
        return files, size + files * SCRUB_FILE_COST


def seconds_between(begin: str, end: str) -> float:
    """Return the seconds from one time to another, both UTC in ISO 8601; negative when the second is before."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def _checkpoint(this: Round, findings: Findings) -> JSON:
    return {"round": this.to_json(), "found": dict(findings.faults)}


def _cost_of(row: VersionRow) -> int:
    return row.file_size + SCRUB_FILE_COST


def _slice_of(rows: Iterator[VersionRow], rate: float) -> Iterator[VersionRow]:
    """Yield the rows of a slice: one at least, where there is one."""
    cost = 0
    most = max(rate * SCRUB_SLICE_SECONDS, SCRUB_SLICE_COST_MIN)
    for count, row in enumerate(rows, 1):
        yield row
        cost += _cost_of(row)
        if cost >= most or count >= SCRUB_SLICE_FILES_MAX:
            return
