"""Another look at what was certain, before a report goes out late (decision 11).

Nobody was told the outcomes, or nobody said that he was. What is committed is checked again in the version that is held,
and what turned bad is reported as such. What had failed may have become good, since its sender may have sent it again; but
only where no report ever left this machine: the same transaction never turns from bad to good in the eyes of a peer.

Once a peer has answered, its report says the same for ever. Whoever wants it sent again by hand has what was reported as
committed looked at first; where that is not kept and whole any more nothing is sent, and nothing is written of it but why.
Blocks; it runs in a thread of the job engine.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from stowkeeper.archive.checking import hold_for_commitment
from stowkeeper.dicom.status import Status
from stowkeeper.jobs.job import JSON
from stowkeeper.jobs.kind import Ending, Failed, Finished, JobRun, NextStep, TryAgain
from stowkeeper.jobs.options import DISK_LANE
from stowkeeper.jobs.states import JobWish
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.arrivals import unlisted_instances
from stowkeeper.services.commitment.askers import asker_of
from stowkeeper.services.commitment.checking_step import (
    CHECK,
    REPORT,
    CheckTools,
    context_of,
)
from stowkeeper.services.commitment.commitment_values import (
    WAY_DIMSE,
    Commitment,
    CommitmentInstance,
    InstanceOutcome,
    Outcome,
)
from stowkeeper.services.commitment.giving_up import is_to_be_given_up
from stowkeeper.services.commitment.instance_look import Circumstances, Look, failed, look_at
from stowkeeper.services.commitment.limits import CHECK_PORTION, CHECK_TURN_SECONDS, UNREADABLE_LOOKS_MAX
from stowkeeper.services.commitment.options import peer_lane
from stowkeeper.services.commitment.policies import PolicyError
from stowkeeper.services.commitment.still_kept import refusal

log = structlog.get_logger("stowkeeper.commitment")

RECHECKED_UP_TO = "rechecked_up_to"
"""Stands in the checkpoint while a transaction is checked again: the position of the last instance that was."""

LOOKED_AGAIN_AT = "looked_again_at"
"""Stands in the checkpoint after that: when it ended."""


@dataclass(slots=True)
class RecheckStep:
    """One run of the second look at one transaction."""

    run: JobRun
    commitment: Commitment
    tools: CheckTools

    def check(self) -> Ending:
        """Go on behind the last position that was looked at, and say how it goes on.

        Raises CheckStoppedError when the run is to stop, LeaseLostError and DatabaseUnavailable.
        """
        checkpoint: JSON = dict(self.run.job.checkpoint)
        if self.run.job.wish is JobWish.CANCEL:
            checkpoint.pop(RECHECKED_UP_TO, None)
            return self._to_report(checkpoint)
        was_sent = self._is_told
        if not was_sent:
            with self.tools.archive.database.read() as connection:
                was_sent = rows.was_sent(connection, self.commitment.commitment_key)
        ends_at = time.monotonic() + CHECK_TURN_SECONDS
        while portion := self._portion(int(checkpoint[RECHECKED_UP_TO])):
            words = ""
            try:
                look = self._look(portion, was_told=was_sent)
            except PolicyError as error:
                look, words = Look(), str(error)
            except OSError as error:
                look, words = Look(), f"the depot cannot be read: {error.strerror or error}"
            words = words or _open_words(look)
            if words and not self._is_given_up():
                return TryAgain(words)
            certain = {outcome.position for outcome in look.certain}
            look.certain += [
                failed(
                    instance.position, Status.PROCESSING_FAILURE, f"it could not be checked again: {words}"
                )
                for instance in portion
                if instance.position not in certain
            ]
            if self._is_told and (loss := _loss(portion, look.certain)):
                return not_sent_again(self.run, self.commitment, loss)
            if not self._write(portion, look.certain, checkpoint, was_sent=was_sent):
                return TryAgain("the versions of some instances changed while they were checked", 1.0)
            if time.monotonic() >= ends_at:  # the next one's turn
                return NextStep(CHECK, DISK_LANE, checkpoint)
        return self._ended(checkpoint)

    @property
    def _is_told(self) -> bool:
        """Tell whether the peer has answered a report: what it says does not change any more."""
        return self.commitment.reported_at is not None

    def _portion(self, after: int) -> list[CommitmentInstance]:
        only = InstanceOutcome.COMMITTED if self._is_told else None
        with self.tools.archive.database.read() as connection:
            return rows.instances_of(connection, self.commitment.commitment_key, after, CHECK_PORTION, only)

    def _look(self, portion: Sequence[CommitmentInstance], *, was_told: bool) -> Look:
        commitment, tools = self.commitment, self.tools
        circumstances = Circumstances(
            asker=asker_of(commitment, tools.peers),
            context=context_of(commitment),
            unlisted=unlisted_instances(tools.archive),
            grace_is_over=True,
            is_last_look=self.run.job.failures + 1 >= UNREADABLE_LOOKS_MAX,
            accepts_class=lambda sop_class_uid: tools.accepts_class(
                commitment.peer_ae_title, commitment.peer_address, sop_class_uid
            ),
            was_told=was_told,
        )
        return look_at(
            portion,
            circumstances,
            policy=tools.policy,
            database=tools.archive.database,
            root=tools.archive.root,
            stopping=self.run.stopping,
        )

    def _is_given_up(self) -> bool:
        since = self.commitment.checked_at or self.commitment.requested_at
        return is_to_be_given_up(self.run, since, self.tools.options)

    def _write(
        self,
        portion: Sequence[CommitmentInstance],
        outcomes: Sequence[Outcome],
        checkpoint: JSON,
        *,
        was_sent: bool,
    ) -> bool:
        """Write what changed, with holds, and how far the look has come; False when it has to be done again."""
        before = {instance.position: instance for instance in portion}
        changed = [
            outcome for outcome in outcomes if _counts(before[outcome.position], outcome, was_sent=was_sent)
        ]
        keys = [
            outcome.version_key
            for outcome in changed
            if outcome.outcome is InstanceOutcome.COMMITTED and outcome.version_key is not None
        ]
        with self.run.write() as transaction:
            refused = hold_for_commitment(
                transaction,
                keys,
                self.commitment.transaction_uid,
                asker_of(self.commitment, self.tools.peers),
            )
            if refused:
                return False  # some may be held now: they are looked at again all the same
            rows.set_outcomes(transaction, self.commitment.commitment_key, changed)
            checkpoint[RECHECKED_UP_TO] = portion[-1].position
            self.run.progress(transaction, checkpoint=checkpoint)
        return True

    def _ended(self, checkpoint: JSON) -> Ending:
        commitment = self.commitment
        del checkpoint[RECHECKED_UP_TO]
        with self.run.write() as transaction:
            checkpoint[LOOKED_AGAIN_AT] = transaction.at
            failures = rows.failures_of(transaction.connection, commitment.commitment_key)
            if not self._is_told:
                rows.change(
                    transaction, commitment.commitment_key, checked_at=transaction.at, failures=failures
                )
            self.run.progress(transaction, checkpoint=checkpoint)
        log.info(
            "commitment",
            what="checked again",
            transaction=commitment.transaction_uid,
            peer=commitment.peer,
            instances=commitment.instances,
            failures=failures,
            failures_before=commitment.failures,
            policy=self.tools.policy.name,
            job=self.run.job.job_id,
        )
        return self._to_report(checkpoint)

    def _to_report(self, checkpoint: JSON) -> Ending:
        if self.commitment.way != WAY_DIMSE:
            return Finished()
        return NextStep(REPORT, peer_lane(self.commitment.peer), checkpoint)


def not_sent_again(run: JobRun, commitment: Commitment, words: str) -> Failed:
    """Write why a report that a peer has answered is not sent again. Blocks; raises LeaseLostError, DatabaseUnavailable."""
    with run.write() as transaction:
        rows.change(transaction, commitment.commitment_key, error=f"not reported again: {words}")
    log.warning(
        "commitment",
        what="not reported again",
        transaction=commitment.transaction_uid,
        peer=commitment.peer,
        why=words,
        job=run.job.job_id,
    )
    return Failed(words)


def _loss(portion: Sequence[CommitmentInstance], outcomes: Sequence[Outcome]) -> str:
    """Say of the first instance that is not kept and whole any more why; '' where all are."""
    bad = {one.position: one.words for one in outcomes if one.outcome is InstanceOutcome.FAILED}
    for instance in portion:
        if instance.position in bad:
            return refusal(instance.sop_instance_uid, bad[instance.position])
    return ""


def _counts(before: CommitmentInstance, now: Outcome, *, was_sent: bool) -> bool:
    """Tell whether a second look changes what stands there."""
    if before.outcome is now.outcome:
        is_other = before.reason != now.reason or before.version_key != now.version_key
        return is_other and not (was_sent and now.outcome is InstanceOutcome.FAILED)
    return now.outcome is InstanceOutcome.FAILED or not was_sent


def _open_words(look: Look) -> str:
    """Say what kept some instances from being looked at; empty when all of them were."""
    reasons = (
        (
            look.arriving,
            "was received just now and is not listed yet",
            "were received just now and are not listed yet",
        ),
        (look.unreadable, "could not be read", "could not be read"),
        (look.not_yet, "is not ready by what the policy says", "are not ready by what the policy says"),
        (look.changed, "changed while it was checked", "changed while they were checked"),
    )
    return ", ".join(
        f"1 instance {of_one}" if len(some) == 1 else f"{len(some)} instances {of_some}"
        for some, of_one, of_some in reasons
        if some
    )
