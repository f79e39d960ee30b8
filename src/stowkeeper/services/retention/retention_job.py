"""The look for what is old enough: each hour, by whichever process comes to it, as long as there are retention rules.

What a rule is going to take away the log says a day before: the horizon of that notice is kept, and only what came before it
may go when the day is over. Then a look puts in removals, no more than LOOK_VERSIONS_MAX at a time, and not while the last
ones are under way. It never looks at how full the disk is.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self

import structlog
from sqlalchemy import Connection, select

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import jobs
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.job import JSON, Job, JobFilter, JobRequest
from stowkeeper.jobs.kind import Ending, Finished, JobRun, NextStep
from stowkeeper.jobs.states import FINISHED, JobState
from stowkeeper.services.archive_jobs import REMOVE, RETENTION_LANE, remove_request
from stowkeeper.services.retention.clock_watch import ClockState, ClockWatch
from stowkeeper.services.retention.judging import Holding, horizon
from stowkeeper.services.retention.limits import (
    CLOCK_STEP_SECONDS,
    CLOCK_WORDS_SECONDS,
    LOOK_SECONDS,
    LOOK_UIDS_MAX,
    LOOK_VERSIONS_MAX,
    NOTICE_SECONDS,
    NOTICE_VERSIONS_MAX,
)
from stowkeeper.services.retention.releasing import last_release
from stowkeeper.services.retention.rules import RetentionRule, Rules
from stowkeeper.services.retention.sparing import by_rule
from stowkeeper.services.retention.walking import due
from stowkeeper.services.scrubbing import seconds_between

log = structlog.get_logger("stowkeeper.archive")

RETENTION = "retention"

_LANE = "retention look"


def keep_retaining(transaction: Transaction, *, created_by: str) -> Job | None:
    """Put in the job of the looks where none is under way; return it, None where there is one."""
    if is_looked_after(transaction.connection):
        return None
    return job_rows.submit(
        transaction, JobRequest(kind=RETENTION, arguments={}, lane=_LANE, created_by=created_by)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What the log said of a rule. `mark` tells whether it reads so still.

    What came before the receipt `open` may go; what came before `told` may when the notice of `told_at` is a day old.
    """

    mark: str
    told: int
    told_at: str
    open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is kept from look to look. `released` is the last release of the audit trail that the notices know of."""

    clock: ClockState = field(default_factory=ClockState)
    notices: dict[str, Notice] = field(default_factory=dict)
    released: int = 0

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        """Read what `to_json` wrote."""
        notices = {name: Notice(**notice) for name, notice in value.get("notices", {}).items()}
        clock = ClockState.from_json(value.get("clock", {}))
        return cls(clock=clock, notices=notices, released=value.get("released", 0))

    def to_json(self) -> JSON:
        """Return it as the row of the job keeps it."""
        return asdict(self)


@dataclass(slots=True)
class Amount:
    """What is about to go, counted. `is_more` says that there is more than was counted."""

    uids: list[str] = field(default_factory=list)
    instances: int = 0
    versions: int = 0
    bytes: int = 0
    is_more: bool = False

    def add(self, found: Holding) -> None:
        """Count one more."""
        self.uids.append(found.uid)
        self.instances += found.instances
        self.versions += len(found.version_keys)
        self.bytes += found.size

    def words(self) -> dict[str, Any]:
        """Return it for a line of the log."""
        more = {"and_more": True} if self.is_more else {}
        return {"count": len(self.uids), "instances": self.instances, "bytes": self.bytes, **more}


@dataclass(frozen=True, slots=True)
class RetentionJob:
    """Looks what the rules may take away, and puts in its removal. `wake` is called then."""

    archive: ArchiveReader
    rules: Rules
    watch: ClockWatch
    wake: Callable[[], None] = lambda: None
    name: ClassVar[str] = RETENTION
    concludes_cancellation: ClassVar[bool] = False

    async def run(self, run: JobRun) -> Ending:
        """Look once."""
        return await run.in_thread(self._look, run)

    def _look(self, run: JobRun) -> Ending:
        rules = self.rules()
        if not rules:
            return Finished("there are no retention rules")
        before = Checkpoint.from_json(run.job.checkpoint)
        now = self.watch.clock()
        with self.archive.database.read() as connection:
            clock, doubt = self.watch.judge(connection, before.clock)
            are_under_way = _removals_under_way(connection)
            released = last_release(connection)
        # What a person handed back to the rules may be the whole archive: it is told of a day before it goes.
        told = before.notices if released == before.released else {}
        if doubt:
            # Notices that were given by a clock that may have been wrong are given anew.
            after = Checkpoint(clock=_say_doubt(clock, doubt, now), released=released)
        else:
            release = None if are_under_way else released
            notices = self._tell_and_remove(run, rules, told, now, release)
            after = Checkpoint(clock=_say_behind(clock, now), notices=notices, released=released)
        return NextStep("", _LANE, after.to_json(), due_in_seconds=LOOK_SECONDS)

    def _tell_and_remove(
        self,
        run: JobRun,
        rules: Iterable[RetentionRule],
        notices: dict[str, Notice],
        now: str,
        released: int | None,
    ) -> dict[str, Notice]:
        """Go through the rules in their order; return the notices that stand now.

        `released` is the last release that they know of; None has nothing removed.
        """
        taken: set[str] = set()
        versions_left = LOOK_VERSIONS_MAX
        after: dict[str, Notice] = {}
        for rule in rules:
            notice = notices.get(rule.name)
            if notice is None or notice.mark != rule.mark:
                notice = Notice(mark=rule.mark, told=0, told_at="")
            with self.archive.database.read() as connection:
                old = horizon(connection, now, rule.after_days)
            if notice.told_at and seconds_between(notice.told_at, now) >= NOTICE_SECONDS:
                notice = replace(notice, open=notice.told, told_at="")
            if not notice.told_at:
                self._tell(run, rule, old, notice.open)
                notice = replace(notice, told=old, told_at=now)
            elif seconds_between(now, notice.told_at) > NOTICE_SECONDS:  # the clock was set back
                notice = replace(notice, told_at=now)
            after[rule.name] = notice
            if released is not None and versions_left > 0:
                # The clock may be behind that of the notice: no more goes than both let go.
                amount = self._choose(run, rule, min(notice.open, old), taken, versions_left)
                versions_left -= amount.versions
                self._remove(run, rule, min(notice.open, old), amount, released)
        return after

    def _tell(self, run: JobRun, rule: RetentionRule, old: int, already_told: int) -> None:
        """Say in the log what a rule is going to take away that was not told of before."""
        amount = Amount()
        for found in due(self.archive.database, rule, old):
            run.check_stopping()
            if found.newest < already_told:
                continue
            if amount.versions >= NOTICE_VERSIONS_MAX:
                amount.is_more = True
                break
            amount.add(found)
        if amount.uids:
            say = log.warning if not already_told or amount.versions > LOOK_VERSIONS_MAX else log.info
            hours = round(NOTICE_SECONDS / 3600)
            say(
                "retention",
                what=f"a rule is going to remove what is old, in {hours} hours at the earliest",
                rule=rule.name,
                by=rule.by.value,
                after_days=rule.after_days,
                **amount.words(),
            )

    def _choose(
        self, run: JobRun, rule: RetentionRule, before: int, taken: set[str], versions_max: int
    ) -> Amount:
        """Return what a rule takes away now, beside what other rules took in the same look."""
        amount = Amount()
        for found in due(self.archive.database, rule, before) if before else ():
            run.check_stopping()
            if found.uid in taken:
                continue
            is_first = not taken and not amount.uids
            fits = amount.versions + len(found.version_keys) <= versions_max
            if not (fits or is_first) or len(taken) + len(amount.uids) >= LOOK_UIDS_MAX:
                amount.is_more = True
                break
            amount.add(found)
        taken.update(amount.uids)
        return amount

    def _remove(self, run: JobRun, rule: RetentionRule, before: int, amount: Amount, released: int) -> None:
        """Put in the removal. It asks the rule again; so a crash between this and the checkpoint costs nothing."""
        if not amount.uids:
            return
        request = remove_request(
            amount.uids, reason=rule.reason, created_by=rule.reason, by_rule=by_rule(rule, before)
        )
        with run.write() as transaction:
            if last_release(transaction.connection) != released:
                return  # what was released since may be among it, and was told of to nobody: the next look begins anew
            job = job_rows.submit(transaction, request)
        log.info(
            "retention",
            what="a rule removes what is old",
            rule=rule.name,
            by=rule.by.value,
            job=job.job_id,
            **amount.words(),
        )
        self.wake()


def _removals_under_way(connection: Connection) -> bool:
    """Tell whether a removal that a rule asked for is not over yet."""
    query = (
        select(jobs.c.job_key)
        .where(
            jobs.c.kind == REMOVE,
            jobs.c.lane == RETENTION_LANE,
            jobs.c.state.not_in([state.value for state in FINISHED]),
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None


def _say_doubt(clock: ClockState, doubt: str, now: str) -> ClockState:
    """Say in the log, once a day, that nothing is removed because of the clock."""
    if clock.said_at and 0 <= seconds_between(clock.said_at, now) < CLOCK_WORDS_SECONDS:
        return clock
    log.error(
        "retention",
        what="nothing is removed by retention rules, since the clock cannot be believed",
        why=doubt,
        mend="set the clock; if it is right: stowkeeper retention trust-clock",
    )
    return replace(clock, said_at=now)


def _say_behind(clock: ClockState, now: str) -> ClockState:
    """Say in the log, once a day, that the clock is behind what was believed: up to there no jump is noticed."""
    is_said = clock.said_at and 0 <= seconds_between(clock.said_at, now) < CLOCK_WORDS_SECONDS
    if is_said or seconds_between(now, clock.believed_at) <= CLOCK_STEP_SECONDS:
        return clock
    log.warning(
        "retention",
        what="the clock is behind a time that retention rules believed; until then they notice no clock that is set forward",
        why=f"it is {now} by the clock, and was {clock.believed_at} before",
        mend="set the clock; if it is right: stowkeeper retention trust-clock",
    )
    return replace(clock, said_at=now)


def clock_is_doubted(connection: Connection) -> bool:
    """Tell whether nothing is removed by rules for now, since the clock cannot be believed."""
    return any(Checkpoint.from_json(job.checkpoint).clock.doubted_at for job in _under_way(connection))


def is_looked_after(connection: Connection) -> bool:
    """Tell whether a job of the looks is under way."""
    return bool(_under_way(connection))


def _under_way(connection: Connection) -> list[Job]:
    unfinished = tuple(state for state in JobState if state not in FINISHED)
    return job_rows.list_jobs(connection, JobFilter(kind=RETENTION, state=unfinished, limit=1))
