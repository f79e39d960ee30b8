"""The step `check`: what is certain of each instance is written with the holds and the job's progress, portion by portion.

Blocks; it runs in a thread of the job engine. What it leaves open is looked at again in another run of the job, which is
due then and does not run meanwhile.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import structlog

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.checking import hold_for_commitment
from stowkeeper.database.engine import Transaction
from stowkeeper.dicom.status import Status
from stowkeeper.jobs.job import JSON
from stowkeeper.jobs.kind import Ending, Finished, JobRun, NextStep, TryAgain
from stowkeeper.jobs.options import DISK_LANE
from stowkeeper.jobs.states import JobWish
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.arrivals import (
    OpenAssociations,
    may_still_come,
    refused_for_room,
    unlisted_instances,
)
from stowkeeper.services.commitment.askers import asker_of
from stowkeeper.services.commitment.commitment_values import (
    WAY_DIMSE,
    Commitment,
    CommitmentInstance,
    CommitmentState,
    InstanceOutcome,
    Outcome,
)
from stowkeeper.services.commitment.giving_up import is_to_be_given_up
from stowkeeper.services.commitment.instance_look import Circumstances, Look, failed, look_at
from stowkeeper.services.commitment.limits import (
    CHECK_PORTION,
    CHECK_TRIES_IN_ONE_RUN_MAX,
    CHECK_TURN_SECONDS,
    GRACE_LOOK_SECONDS_MAX,
    GRACE_LOOK_SECONDS_MIN,
    UNKNOWN_SECONDS_MIN,
    UNREADABLE_LOOK_SECONDS,
    UNREADABLE_LOOKS_MAX,
)
from stowkeeper.services.commitment.options import CommitmentOptions, peer_lane
from stowkeeper.services.commitment.policies import CheckContext, CheckPolicy, PolicyError
from stowkeeper.services.commitment.times import age_seconds
from stowkeeper.services.peers import PeerBook

log = structlog.get_logger("stowkeeper.commitment")

CHECK, REPORT = "check", "report"
WAITED, UNREADABLE_LOOKS, CANCELLED, REPORTING_SINCE, GAVE_WAY = (
    "waited_seconds",
    "unreadable_looks",
    "is_cancelled",
    "reporting_since",
    "gave_way",
)
"""What stands in the checkpoint of the job."""

AcceptsClass = Callable[[str, str, str], bool]
"""Tells whether a peer, by calling AE title and address, may store instances of a SOP class here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTools:
    """What a check is made with. `open_associations` are those of this process, None where it receives nothing.

    The `peers` tell which receipts are of who asks.
    """

    archive: ArchiveReader
    peers: PeerBook
    policy: CheckPolicy
    options: CommitmentOptions
    accepts_class: AcceptsClass
    open_associations: OpenAssociations | None = None


@dataclass(slots=True)
class _Open:
    """What was left open in a run, by the reason."""

    arriving: int = 0
    unknown: int = 0
    unreadable: int = 0
    not_yet: int = 0
    changed: int = 0

    def count(self, look: Look) -> None:
        self.arriving += len(look.arriving)
        self.unknown += len(look.unknown)
        self.unreadable += len(look.unreadable)
        self.not_yet += len(look.not_yet)
        self.changed += len(look.changed)

    def __bool__(self) -> bool:
        return any((self.arriving, self.unknown, self.unreadable, self.not_yet, self.changed))


@dataclass(slots=True)
class CheckStep:
    """One run of the check of one transaction."""

    run: JobRun
    commitment: Commitment
    tools: CheckTools
    _done: int = 0
    _checkpoint: JSON = field(default_factory=dict)

    def check(self) -> Ending:
        """Check what is open, and say how it goes on.

        Raises CheckStoppedError when the run is to stop, LeaseLostError and DatabaseUnavailable.
        """
        self._checkpoint = dict(self.run.job.checkpoint)
        self._done = self.commitment.instances - self._count_open()
        if self.run.job.wish is JobWish.CANCEL:
            self._checkpoint[CANCELLED] = True
            return self._fail_what_is_open(Status.PROCESSING_FAILURE, "the check was cancelled")
        if self.commitment.duplicate_of is not None:
            return self._fail_what_is_open(
                Status.DUPLICATE_TRANSACTION_UID, "its transaction UID was used before"
            )
        try:
            circumstances = self._circumstances()
            left = self._look_through(circumstances)
            if left is None:
                return NextStep(CHECK, DISK_LANE, self._checkpoint)
        except PolicyError as error:
            return self._again_or_never(str(error))
        except OSError as error:  # of the depot: nobody knows what is on its way
            return self._again_or_never(f"the depot cannot be read: {error.strerror or error}")
        return self._wait_for(left) if left else self._ended()

    # The look.

    def _circumstances(self) -> Circumstances:
        commitment, tools = self.commitment, self.tools
        # Before any row is read: what is neither here nor there then was never answered before the request.
        unlisted = unlisted_instances(tools.archive)
        return Circumstances(
            asker=asker_of(commitment, tools.peers),
            context=context_of(commitment),
            unlisted=unlisted,
            grace_is_over=self._is_grace_over(),
            is_last_look=int(self._checkpoint.get(UNREADABLE_LOOKS, 0)) + 1 >= UNREADABLE_LOOKS_MAX,
            accepts_class=lambda sop_class_uid: tools.accepts_class(
                commitment.peer_ae_title, commitment.peer_address, sop_class_uid
            ),
        )

    def _is_grace_over(self) -> bool:
        """Tell whether an instance that is unknown now is not waited for any longer."""
        # By the pauses that were made, too: the clock may have been set back.
        waited = max(age_seconds(self.commitment.requested_at), float(self._checkpoint.get(WAITED, 0.0)))
        if waited >= self.tools.options.grace_seconds:
            return True
        if waited < UNKNOWN_SECONDS_MIN:
            return False
        with self.tools.archive.database.read() as connection:
            return not may_still_come(
                connection,
                self.commitment.peer_ae_title,
                self.commitment.peer_address,
                self.tools.open_associations,
            )

    def _look_through(self, circumstances: Circumstances) -> _Open | None:
        """Look at all that is open, and write what is certain; return what is left, None where it gives way before that.

        It goes on then where it was, with what was left before.
        """
        ends_at, has_looked, done_before = time.monotonic() + CHECK_TURN_SECONDS, False, self._done
        gave_way: JSON = self._checkpoint.pop(GAVE_WAY, {})
        after, left = int(gave_way.get("after", -1)), _Open(**gave_way.get("left", {}))
        for tried in range(CHECK_TRIES_IN_ONE_RUN_MAX):
            if tried:
                after, left = -1, _Open()
            for portion in self._open_instances(after):
                # A step resets the failures in a row, by which it waits longer each time for what is not certain yet.
                is_patient = self._done == done_before and (left.not_yet or left.arriving)
                if has_looked and not is_patient and time.monotonic() >= ends_at:
                    self._checkpoint[GAVE_WAY] = {"after": portion[0].position - 1, "left": asdict(left)}
                    return None
                look = look_at(
                    portion,
                    circumstances,
                    policy=self.tools.policy,
                    database=self.tools.archive.database,
                    root=self.tools.archive.root,
                    stopping=self.run.stopping,
                )
                has_looked = True
                left.count(look)
                left.changed += self._write(self._with_refusals_for_room(look.certain, portion))
            if not left.changed:
                break
        return left

    def _with_refusals_for_room(
        self, outcomes: Sequence[Outcome], portion: Sequence[CommitmentInstance]
    ) -> list[Outcome]:
        """Say 0213H of what is not there since it was refused for lack of room when it was sent."""
        asked = {instance.position: instance.sop_instance_uid for instance in portion}
        uids = {
            outcome.position: asked[outcome.position]
            for outcome in outcomes
            if outcome.reason == Status.NO_SUCH_SOP_INSTANCE
        }
        if not uids:
            return list(outcomes)
        with self.tools.archive.database.read() as connection:
            refused = refused_for_room(connection, uids.values())
        words = "it was refused when it was sent, since there was no room for it"
        return [
            failed(outcome.position, Status.RESOURCE_LIMITATION, words)
            if uids.get(outcome.position) in refused
            else outcome
            for outcome in outcomes
        ]

    def _open_instances(self, after: int = -1) -> Iterator[list[CommitmentInstance]]:
        """Yield what is open behind a position, portion by portion, each read when the one before is written."""
        while True:
            with self.tools.archive.database.read() as connection:
                portion = rows.instances_of(
                    connection,
                    self.commitment.commitment_key,
                    after,
                    CHECK_PORTION,
                    InstanceOutcome.OPEN,
                )
            if not portion:
                return
            yield portion
            after = portion[-1].position

    def _count_open(self) -> int:
        with self.tools.archive.database.read() as connection:
            return rows.open_of(connection, self.commitment.commitment_key)

    # Writing.

    def _write(self, outcomes: Sequence[Outcome]) -> int:
        """Write outcomes with their holds, in one transaction; return how many have to be looked at again."""
        if not outcomes:
            return 0
        commitment = self.commitment
        keys = [
            outcome.version_key
            for outcome in outcomes
            if outcome.outcome is InstanceOutcome.COMMITTED and outcome.version_key is not None
        ]
        asker = asker_of(commitment, self.tools.peers)
        with self.run.write() as transaction:
            refused = hold_for_commitment(transaction, keys, commitment.transaction_uid, asker)
            certain = [
                outcome
                for outcome in outcomes
                if outcome.outcome is not InstanceOutcome.COMMITTED or outcome.version_key not in refused
            ]
            rows.set_outcomes(transaction, commitment.commitment_key, certain)
            done = self._done + len(certain)
            self.run.progress(transaction, done=done, total=commitment.instances)
            if done == commitment.instances:
                self._close(transaction)
        self._done = done
        return len(outcomes) - len(certain)

    def _close(self, transaction: Transaction) -> None:
        """Write that everything is certain now, in the transaction in which it became so."""
        key = self.commitment.commitment_key
        rows.change(
            transaction,
            key,
            state=CommitmentState.CHECKED,
            checked_at=transaction.at,
            failures=rows.failures_of(transaction.connection, key),
            error="",
        )
        # Here, so that a run that is stopped before its end is written leaves nothing unsaid: whether it was cancelled, above all.
        self._checkpoint[REPORTING_SINCE] = transaction.at
        self.run.progress(transaction, checkpoint=self._checkpoint)

    def _fail_what_is_open(self, reason: int, words: str) -> Ending:
        for portion in self._open_instances():
            self._write([failed(instance.position, reason, words) for instance in portion])
        return self._ended()

    # How it goes on.

    def _again_or_never(self, words: str) -> Ending:
        if is_to_be_given_up(self.run, self.commitment.requested_at, self.tools.options):
            return self._fail_what_is_open(Status.PROCESSING_FAILURE, f"it could not be checked: {words}")
        return TryAgain(words)

    def _wait_for(self, left: _Open) -> Ending:
        """Say when the job is due again for what is open."""
        age = max(age_seconds(self.commitment.requested_at), float(self._checkpoint.get(WAITED, 0.0)))
        is_young = age < max(self.tools.options.grace_seconds, GRACE_LOOK_SECONDS_MAX)
        if not (left.unknown or left.unreadable or left.changed or (left.arriving and is_young)):
            words = []
            if left.arriving:
                were = "was" if left.arriving == 1 else "were"
                words.append(f"{_instances(left.arriving)} {were} received and not listed yet")
            if left.not_yet:
                words.append(f"the policy asks to wait for {_instances(left.not_yet)}")
            if GAVE_WAY in self.run.job.checkpoint:  # the next look begins anew
                with self.run.write() as transaction:
                    self.run.progress(transaction, checkpoint=self._checkpoint)
            return self._again_or_never(", ".join(words))
        pause = min(max(GRACE_LOOK_SECONDS_MIN, age / 2), GRACE_LOOK_SECONDS_MAX)
        if left.unreadable:
            pause = UNREADABLE_LOOK_SECONDS
            self._checkpoint[UNREADABLE_LOOKS] = int(self._checkpoint.get(UNREADABLE_LOOKS, 0)) + 1
        self._checkpoint[WAITED] = float(self._checkpoint.get(WAITED, 0.0)) + pause
        return NextStep(CHECK, DISK_LANE, self._checkpoint, pause)

    def _ended(self) -> Ending:
        """Go on to the report, now that everything is certain."""
        commitment = self.commitment
        with self.tools.archive.database.read() as connection:
            failures = rows.failures_of(connection, commitment.commitment_key)
        log.info(
            "commitment",
            what="checked",
            transaction=commitment.transaction_uid,
            peer=commitment.peer,
            instances=commitment.instances,
            failures=failures,
            policy=self.tools.policy.name,
            seconds=round(age_seconds(commitment.requested_at), 3),
            job=self.run.job.job_id,
        )
        if commitment.way != WAY_DIMSE:
            return Finished()
        # A cancelled check ends here, and the report can be cancelled in its turn.
        return NextStep(REPORT, peer_lane(commitment.peer), self._checkpoint, concludes_wish=True)


def context_of(commitment: Commitment) -> CheckContext:
    """Return what a policy is told of a transaction."""
    return CheckContext(
        transaction_uid=commitment.transaction_uid,
        peer=commitment.peer,
        peer_ae_title=commitment.peer_ae_title,
        own_ae_title=commitment.own_ae_title,
    )


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"
