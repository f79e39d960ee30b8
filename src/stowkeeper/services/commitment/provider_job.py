"""The job of a storage commitment that was asked of us: check the instances, then report (decision 11).

`check` runs in the lane of the disk, some instances at a time. What is certain of them is written together with the
holds and the job's progress, so a crash goes on with what is open. `report` runs in the lane of the peer. A report that
is late goes back to `check` for another look, once the peer is there again. A request by HTTP has no report: its result
is fetched, and looked at again before that where it is old.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from stowkeeper.archive.checking import CheckStoppedError
from stowkeeper.jobs.kind import Ending, Failed, Finished, JobInterrupted, JobRun, NextStep
from stowkeeper.jobs.options import DISK_LANE
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.checking_step import (
    CANCELLED,
    CHECK,
    REPORT,
    AcceptsClass,
    CheckStep,
    CheckTools,
)
from stowkeeper.services.commitment.commitment_values import WAY_DIMSE, Commitment, CommitmentState
from stowkeeper.services.commitment.options import COMMITMENT_JOB, peer_lane
from stowkeeper.services.commitment.recheck_step import RECHECKED_UP_TO, RecheckStep
from stowkeeper.services.commitment.reporting import Reporter
from stowkeeper.services.storage import Rules
from stowkeeper.upperlayer.negotiation import is_storage


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentJob:
    """The kind of job `commitment`. Its arguments name the transaction; everything else stands in its rows."""

    tools: CheckTools
    reporter: Reporter
    name: ClassVar[str] = COMMITMENT_JOB
    concludes_cancellation: ClassVar[bool] = True

    async def run(self, run: JobRun) -> Ending:
        """Do the step that the transaction is at."""
        commitment = await run.in_thread(self._find, int(run.job.arguments["commitment_key"]))
        if commitment is None:
            return Failed("there is no such transaction any more")
        if commitment.job_id != run.job.job_id:
            # Two at once could tell a peer one thing, and write another.
            return Finished(f"job {commitment.job_id} has taken its place", says_nothing_of_lane=True)
        if commitment.state is CommitmentState.RECEIVED:
            return await self._in_lane(run, CHECK, DISK_LANE, CheckStep(run, commitment, self.tools).check)
        looks_again = RECHECKED_UP_TO in run.job.checkpoint
        if commitment.way != WAY_DIMSE and (not looks_again or commitment.reported_at is not None):
            return Finished()
        if looks_again:
            return await self._in_lane(run, CHECK, DISK_LANE, RecheckStep(run, commitment, self.tools).check)
        lane = peer_lane(commitment.peer)
        if run.job.lane != lane:
            # The check came to its end, and its run did not: a wish that it be cancelled is not one for the report.
            return NextStep(REPORT, lane, concludes_wish=bool(run.job.checkpoint.get(CANCELLED)))
        ending = await self.reporter.report(run, commitment)
        if isinstance(ending, Finished) and run.job.checkpoint.get(CANCELLED):
            return replace(ending, was_cancelled=True)
        return ending

    def _find(self, commitment_key: int) -> Commitment | None:
        with self.tools.archive.database.read() as connection:
            return rows.find_by_key(connection, commitment_key)

    async def _in_lane(self, run: JobRun, step: str, lane: str, check: Callable[[], Ending]) -> Ending:
        """Check in a thread, in the lane of the disk."""
        if run.job.lane != lane:
            return NextStep(step, lane)

        def stoppable() -> Ending:
            try:
                return check()
            except CheckStoppedError:
                raise JobInterrupted(f"job {run.job.job_id} was asked to stop") from None

        return await run.in_thread(stoppable)


def classes_taken_by(rules: Callable[[], Rules]) -> AcceptsClass:
    """Return what tells whether a peer may store instances of a class here, by the rules that are in force then."""

    def accepts(calling_ae_title: str, address: str, sop_class_uid: str) -> bool:
        policy = rules().policy_for(calling_ae_title, address)
        return is_storage(sop_class_uid) and policy.accepts_abstract_syntax(sop_class_uid)

    return accepts
