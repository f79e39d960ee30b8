"""The jobs on the archive itself: verify it, rebuild what its rows lack, remove from it.

They run beside servers that receive. `verify` and `rebuild` have a lane of their own with the scrub (`scrubbing.py`), one
at a time: each reads as much as the disk gives. A removal is short and shares the lane of the disk; one that a retention rule
asked for has a lane and a pace of its own, and asks the rule again before it takes anything away.

What each does is done by the room archive, a second time without harm; a job adds where it is, what it found, and that it
ends within a second when it is asked to.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import structlog
from sqlalchemy import Connection, select

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.mending import Mending
from stowkeeper.archive.relisting import RebuildCounts
from stowkeeper.archive.removal import HeldVersion, Removal, RemovalPlan, RemovalResult
from stowkeeper.archive.verification import Scope, Verification
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import audit
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import JSON, Job, JobItem, JobRequest
from stowkeeper.jobs.kind import Ending, Failed, Finished, JobKind, JobRun, TryAgain
from stowkeeper.jobs.options import DISK_LANE
from stowkeeper.services.archive_job_limits import (
    BYTES_PER_SECOND_MIN,
    MARK_BATCH_MAX,
    REASON_LETTERS_MAX,
    RULED_VERSIONS_PER_SECOND,
    UIDS_MAX,
)
from stowkeeper.services.findings import (
    Findings,
    count_of,
    say_faults,
    say_result,
    text_argument,
    texts,
)
from stowkeeper.services.pace import Pace
from stowkeeper.services.scrubbing import ARCHIVE_LANE, SCRUB, ScrubJob, keep_scrubbing

__all__ = [
    "ARCHIVE_LANE",
    "OVERRIDE_HOLDS",
    "REBUILD",
    "REMOVE",
    "RETENTION_LANE",
    "SCRUB",
    "VERIFY",
    "RebuildJob",
    "RemoveJob",
    "Retained",
    "ScrubJob",
    "VerifyJob",
    "archive_job_kinds",
    "keep_scrubbing",
    "overrides_holds",
    "rebuild_request",
    "remove_request",
    "verify_request",
]

log = structlog.get_logger("stowkeeper.archive")

VERIFY = "verify"
REBUILD = "rebuild"
REMOVE = "remove"

OVERRIDE_HOLDS = "override_holds"
"""Argument of a removal: what is held goes too."""

BY_RULE = "by_rule"
"""Argument of a removal that a retention rule asked for: what the rule decided by, an object of its own."""

RETENTION_LANE = "retention"
"""The lane of removals that rules ask for: one at a time, so that those of persons have the lane of the disk."""

Retained = Callable[[Connection, JSON, str, Collection[int]], str]
"""Asked in the transaction that would take versions away, with what a rule decided by, the UID that it named, and the keys of
all versions that would go: says in words why all of them stay, '' when the rule still wants them gone."""

_HELD_NAMED_MAX = 3


def archive_job_kinds(
    archive: ArchiveReader, *, scrub_days: float, retained: Retained | None = None
) -> list[JobKind]:
    """Return the kinds of jobs on an archive. `scrub_days` is the time of a round of the scrub; 0 switches it off.

    `retained` decides over what retention rules asked for; without it none of that is removed.
    """
    return [
        VerifyJob(archive),
        RebuildJob(archive),
        RemoveJob(archive, retained),
        ScrubJob(archive, days=scrub_days),
    ]


def verify_request(
    *,
    created_by: str,
    study_instance_uid: str = "",
    series_instance_uid: str = "",
    received_from: str = "",
    report_only: bool = False,
    bytes_per_second: int | None = None,
) -> JobRequest:
    """Return a job that reads the archive again, or what fits each of these. Raises ValueError for a senseless rate."""
    if bytes_per_second is not None and bytes_per_second < BYTES_PER_SECOND_MIN:
        raise ValueError(f"a rate is at least {BYTES_PER_SECOND_MIN} bytes a second, not {bytes_per_second}")
    arguments: JSON = {
        "study_instance_uid": study_instance_uid,
        "series_instance_uid": series_instance_uid,
        "received_from": received_from,
        "report_only": report_only,
        "bytes_per_second": bytes_per_second,
    }
    return JobRequest(
        kind=VERIFY,
        arguments={name: value for name, value in arguments.items() if value},
        subject=series_instance_uid or study_instance_uid,
        lane=ARCHIVE_LANE,
        created_by=created_by,
    )


def rebuild_request(*, created_by: str) -> JobRequest:
    """Return a job that lists whole files which no row knows, and mends rows, while servers go on."""
    return JobRequest(kind=REBUILD, arguments={}, lane=ARCHIVE_LANE, created_by=created_by)


def remove_request(
    uids: Sequence[str],
    *,
    reason: str,
    created_by: str,
    override_holds: bool = False,
    by_rule: JSON | None = None,
) -> JobRequest:
    """Return a job that removes studies, series or instances, each with an outcome of its own.

    `by_rule` is what a retention rule decided by; the rule is asked again before anything goes.
    Raises ValueError where there is no UID, too many, no reason, one that is too long, or nobody who overrides holds.
    """
    named = texts(uids)
    reason = reason.strip()
    if not named or "" in named:
        msg = "a removal names one UID at least"
        raise ValueError(msg)
    if len(named) > UIDS_MAX:
        raise ValueError(f"a removal names {UIDS_MAX} UIDs at most, not {len(named)}")
    if not reason or len(reason) > REASON_LETTERS_MAX:
        raise ValueError(f"a removal needs a reason of 1 to {REASON_LETTERS_MAX} letters")
    if override_holds and not created_by:
        msg = "who overrides holds has to be named"
        raise ValueError(msg)
    if override_holds and by_rule is not None:
        msg = "a rule overrides no holds"
        raise ValueError(msg)
    return JobRequest(
        kind=REMOVE,
        arguments={"reason": reason, OVERRIDE_HOLDS: override_holds}
        | ({} if by_rule is None else {BY_RULE: by_rule}),
        subject=named[0] if len(named) == 1 else "",
        lane=DISK_LANE if by_rule is None else RETENTION_LANE,
        created_by=created_by,
        items=named,
    )


def overrides_holds(job: Job) -> bool:
    """Tell whether a job removes what is held too: who lets it go on needs the same right as who asked for it."""
    return job.kind == REMOVE and bool(job.arguments.get(OVERRIDE_HOLDS))


def _who_overrides(job: Job, database: Database) -> str:
    """Return who wants holds overridden: the last one who had the job begin again or go on, else who asked for it."""
    query = (
        select(audit.c.who)
        .where(audit.c.subject == job.job_id, audit.c.action.in_([rows.RESUBMITTED, rows.RESUMED]))
        .order_by(audit.c.audit_key.desc())
        .limit(1)
    )
    with database.read() as connection:
        return connection.execute(query).scalar_one_or_none() or job.created_by


@dataclass(frozen=True, slots=True)
class VerifyJob:
    """Reads every file of a scope from the medium, compares files and rows, and puts away what is damaged.

    It goes on where it was broken off: after the last row of its checkpoint, and with the walk for files without a row
    from its beginning.
    """

    archive: ArchiveReader
    name: ClassVar[str] = VERIFY
    concludes_cancellation: ClassVar[bool] = False

    async def run(self, run: JobRun) -> Ending:
        """Verify."""
        return await run.in_thread(self._verify, run)

    def _verify(self, run: JobRun) -> Ending:
        arguments = run.job.arguments
        pace = Pace(run.stopping, arguments.get("bytes_per_second"))
        verification = Verification(
            self.archive.files,
            self.archive.root,
            self.archive.database,
            scope=Scope(
                study_instance_uid=text_argument(arguments, "study_instance_uid"),
                series_instance_uid=text_argument(arguments, "series_instance_uid"),
                received_from=text_argument(arguments, "received_from"),
            ),
            report_only=bool(arguments.get("report_only")),
            progress=pace,
        )
        return _Verifying(run, verification, pace).run()


class _Verifying:
    """One run of a verification, with what earlier runs of its job counted."""

    def __init__(self, run: JobRun, verification: Verification, pace: Pace) -> None:
        self._run = run
        self._verification = verification
        self._pace = pace
        self._findings = Findings(run)
        self._before = Counter[str](run.job.checkpoint.get("counts", {}))
        self._total = run.job.items_total

    def run(self) -> Ending:
        checkpoint = self._run.job.checkpoint
        after = checkpoint.get("after")
        if after is None:
            after = self._begin()
        if not checkpoint.get("rows_done"):
            self._check_rows(int(after))
        self._find_unlisted()
        counts = self._counts()
        words = say_result(
            files=counts["files"],
            size=counts["size"],
            whole=counts["whole"],
            faults=self._findings.faults,
        )
        return Finished(words)

    def _begin(self) -> int:
        self._total, _ = self._verification.expected()
        for found in self._verification.begin():
            self._pace(0)
            self._findings.note(found)
        self._write(0)
        return 0

    def _check_rows(self, after: int) -> None:
        for row, found in self._verification.check(self._verification.rows(after)):
            self._pace(0)
            after = row.version_key
            if found is not None:
                self._findings.note(found)
            if self._findings.is_due():
                self._write(after)
        self._write(after, rows_done=True)

    def _find_unlisted(self) -> None:
        # Without a cursor: the checkpoint stays where the rows ended, and a run that goes on begins here again.
        checkpoint = self._run.job.checkpoint
        counts = self._counts()
        for found in self._verification.find_unlisted():
            self._findings.note(found)
            if self._findings.is_due():
                self._findings.write(checkpoint, done=counts["files"], total=self._total)
        self._findings.write(checkpoint, done=self._counts()["files"], total=self._total)

    def _counts(self) -> Counter[str]:
        return self._before + Counter(asdict(self._verification.counts))

    def _write(self, after: int, *, rows_done: bool = False) -> None:
        counts = self._counts()
        checkpoint: JSON = {
            "after": after,
            "rows_done": rows_done,
            "counts": dict(counts),
            "found": dict(self._findings.faults),
        }
        self._findings.write(checkpoint, done=counts["files"], total=self._total)


@dataclass(frozen=True, slots=True)
class RebuildJob:
    """Lists whole files that no row knows and mends rows, beside servers. Broken off, it begins again: nothing is lost."""

    archive: ArchiveReader
    name: ClassVar[str] = REBUILD
    concludes_cancellation: ClassVar[bool] = False

    async def run(self, run: JobRun) -> Ending:
        """Mend."""
        return await run.in_thread(self._rebuild, run)

    def _rebuild(self, run: JobRun) -> Ending:
        findings = Findings(run)
        mending = Mending(
            self.archive.files, self.archive.root, self.archive.database, progress=Pace(run.stopping)
        )
        for found in mending.run():
            findings.note(found)
            if findings.is_due():
                findings.write({}, done=mending.counts.files, total=run.job.items_total)
        findings.write({}, done=mending.counts.files, total=mending.counts.files)
        return Finished(_say_rebuilt(mending.counts, findings.faults))


@dataclass(frozen=True, slots=True)
class RemoveJob:
    """Removes studies, series or instances, one item after the other.

    Outcomes: `removed`; `partly`, of which the words say what stayed; `held`; `not found`; `spared`, of what a rule asked for
    and does not want gone any more. What was marked when it is broken off is finished by whoever looks after the archive next.
    """

    archive: ArchiveReader
    retained: Retained | None = None
    name: ClassVar[str] = REMOVE
    concludes_cancellation: ClassVar[bool] = False

    async def run(self, run: JobRun) -> Ending:
        """Remove what the items name."""
        return await run.in_thread(self._remove, run)

    def _remove(self, run: JobRun) -> Ending:
        overrides = overrides_holds(run.job)
        by_rule = run.job.arguments.get(BY_RULE)
        removal = Removal(
            self.archive.files,
            self.archive.root,
            self.archive.database,
            override_holds=overrides,
            who=_who_overrides(run.job, self.archive.database) if overrides else run.job.created_by,
            mark_batch_max=MARK_BATCH_MAX,
            progress=Pace(run.stopping, None if by_rule is None else RULED_VERSIONS_PER_SECOND),
        )
        outcomes = Counter[str]()
        for item in self._items(run):
            run.check_stopping()
            try:
                outcomes[item.outcome or self._remove_one(run, removal, item)] += 1
            except OSError as error:
                return TryAgain(f"{item.name}: a folder cannot be synced: {error.strerror or error}")
        left = outcomes.total() - outcomes["removed"] - outcomes["spared"]
        words = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
        return Failed(f"not all was removed: {words}") if left else Finished(words)

    def _items(self, run: JobRun) -> Sequence[JobItem]:
        found: list[JobItem] = []
        with self.archive.database.read() as connection:
            while some := rows.items_of(connection, run.job.job_key, found[-1].position if found else -1):
                found += some
        return found

    def _remove_one(self, run: JobRun, removal: Removal, item: JobItem) -> str:
        """Remove what one item names, and return its outcome, which is written then."""
        plan = removal.plan(item.name)
        has_begun = run.job.checkpoint.get("position") == item.position
        stays = _stays(plan, has_begun=has_begun) if BY_RULE in run.job.arguments else ""
        result = RemovalResult(spared=stays)
        if plan.versions and not stays:
            if not has_begun:
                # So that a run which finds nothing any more knows that it was the one who took it away.
                with run.write() as transaction:
                    run.progress(transaction, checkpoint={"position": item.position})
            result = self._carry_out(run.job, removal, plan)
        outcome, words = _outcome(plan, result, has_begun=has_begun)
        with run.write() as transaction:
            done = replace(item, outcome=outcome, words=words, done_at=transaction.at)
            run.progress(transaction, done=run.job.items_done + 1, items=[done])
        if BY_RULE in run.job.arguments:
            reason = run.job.arguments["reason"]
            log.info("retention", what=outcome, why=words, reason=reason, uid=item.name)
        return outcome

    def _carry_out(self, job: Job, removal: Removal, plan: RemovalPlan) -> RemovalResult:
        reason = str(job.arguments["reason"])
        by_rule = job.arguments.get(BY_RULE)
        if by_rule is None:
            return removal.carry_out(plan, reason)
        if self.retained is None:
            return RemovalResult(spared="no retention rule is in force here")
        retained = self.retained

        def spares(connection: Connection, version_keys: Collection[int]) -> str:
            return retained(connection, by_rule, plan.uid, version_keys)

        return removal.carry_out_unless(plan, reason, spares)


def _stays(plan: RemovalPlan, *, has_begun: bool) -> str:
    """Say why a rule cannot take away all that a plan found; '' where it can."""
    if plan.held:
        return _say_held(plan.held)
    if plan.damaged:
        return f"{count_of(len(plan.damaged), 'version')} damaged"
    return "" if plan.found or has_begun else "nothing of it is left"


def _outcome(plan: RemovalPlan, result: RemovalResult, *, has_begun: bool) -> tuple[str, str]:
    """Say what became of one UID, in a word and in words."""
    if result.spared:
        return "spared", result.spared
    held = [*plan.held, *result.held]
    removed = result.removed + result.closed
    if not plan.found:
        return ("removed", "by an attempt that was broken off") if has_begun else ("not found", "")
    parts = [f"{count_of(removed, 'version')} removed"] if removed else []
    if held:
        parts.append(_say_held(held))
    parts += [f"{path} could not be removed: {words}" for path, words in result.left[:_HELD_NAMED_MAX]]
    parts += [f"{path} was damaged and stays there" for path in result.quarantined[:_HELD_NAMED_MAX]]
    if not held and not result.left:
        return "removed", "; ".join(parts)
    return ("partly" if removed or result.left else "held"), "; ".join(parts)


def _say_held(held: Sequence[HeldVersion]) -> str:
    named = [f"{version.sop_instance_uid} ({', '.join(version.reasons)})" for version in held]
    more = f" and {len(named) - _HELD_NAMED_MAX} more" if len(named) > _HELD_NAMED_MAX else ""
    return f"{count_of(len(held), 'version')} held, not removed: {', '.join(named[:_HELD_NAMED_MAX])}{more}"


def _say_rebuilt(counts: RebuildCounts, faults: Counter[str]) -> str:
    done = {
        "listed": counts.listed,
        "restored": counts.restored,
        "moved": counts.moved,
        "corrected": counts.corrected,
    }
    parts = [f"{number} {word}" for word, number in done.items() if number]
    words = f"{count_of(counts.files, 'file')}: {', '.join(parts) or 'all listed as they are'}"
    return f"{words}; {say_faults(faults)}" if faults.total() else words
