"""What a peer's report says of each instance that we had asked for (PS3.4 §J.3.3, Table J.3-2).

An instance counts as committed only where the report says so in so many words: it stands in the Referenced SOP Sequence
under the SOP class and instance that were asked for, and nowhere in the Failed SOP Sequence. What the report leaves out
is not committed, whatever its event type says. What is named by no UID was left out of the request, and fails for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stowkeeper.dicom.commitment_information import EventInformation, Reference
from stowkeeper.dicom.status import Status, meaning_of
from stowkeeper.services.commitment.commitment_values import CommitmentState, InstanceOutcome

ALL_COMMITTED = 1
"""The event type of a report in which nothing failed (PS3.4 §J.3.3.1)."""

FAILURES_EXIST = 2
"""The event type of a report in which something failed."""

EVENT_TYPES = frozenset({ALL_COMMITTED, FAILURES_EXIST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a report says of one instance; `reason` is its Failure Reason (0008,1197), `words` why it is no yes."""

    is_committed: bool
    reason: int | None = None
    words: str = ""

    @property
    def outcome(self) -> InstanceOutcome:
        """The verdict as rows have it."""
        return InstanceOutcome.COMMITTED if self.is_committed else InstanceOutcome.FAILED


COMMITTED = Verdict(is_committed=True)

NO_UID = Verdict(
    is_committed=False,
    reason=Status.NO_SUCH_SOP_INSTANCE,
    words="it is named by what is no UID, so the peer was not asked for it",
)
"""What is said of an instance without a UID or a SOP class with one: no peer can be asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A report beside the request: a verdict for each instance asked for, in that order, and what was not asked for.

    `remarks` say in what the report is not as it should be; '' where it is.
    """

    verdicts: tuple[Verdict, ...]
    unasked: tuple[Reference, ...]
    remarks: str

    @property
    def failures(self) -> int:
        """How many of the instances asked for are not committed."""
        return sum(not verdict.is_committed for verdict in self.verdicts)

    @property
    def state(self) -> CommitmentState:
        """What became of the transaction: all of it committed, some of it, or nothing."""
        if not self.failures:
            return CommitmentState.COMMITTED
        return CommitmentState.FAILED if self.failures == len(self.verdicts) else CommitmentState.PARTIAL


def compare(asked: Sequence[Reference], event_type_id: int, information: EventInformation) -> Comparison:
    """Compare a report with what was asked for."""
    committed = dict.fromkeys(information.committed)
    failed = {failure.reference: failure.reason for failure in information.failed}
    named = {reference.sop_instance_uid for reference in (*committed, *failed)}
    verdicts = tuple(_verdict(reference, committed, failed, named) for reference in asked)
    wanted = set(asked)
    unasked = tuple(dict.fromkeys(one for one in (*committed, *failed) if one not in wanted))
    missing = sum(one.is_of_uids and one not in committed and one not in failed for one in wanted)
    return Comparison(
        verdicts=verdicts,
        unasked=unasked,
        remarks=_remarks(event_type_id, information, missing, len(unasked)),
    )


def _verdict(
    reference: Reference,
    committed: dict[Reference, None],
    failed: dict[Reference, int],
    named: set[str],
) -> Verdict:
    if not reference.is_of_uids:
        return NO_UID
    if reference in failed:
        reason = failed[reference]
        words = f"the peer says {meaning_of(reason)}"
        if reference in committed:
            words += ", and that it is committed"
        return Verdict(is_committed=False, reason=reason, words=words)
    if reference in committed:
        return COMMITTED
    if reference.sop_instance_uid in named:
        return Verdict(is_committed=False, words="the report names it under another SOP class")
    return Verdict(is_committed=False, words="the report does not name it")


def _remarks(event_type_id: int, information: EventInformation, missing: int, unasked: int) -> str:
    remarks = []
    if missing:
        remarks.append(f"{missing} of the instances asked for are not named as they were asked for")
    if unasked:
        remarks.append(f"{unasked} were named that had not been asked for")
    if event_type_id == ALL_COMMITTED and information.failed:
        remarks.append("the event type says that nothing failed, and something did")
    if event_type_id == FAILURES_EXIST and not information.failed:
        remarks.append("the event type says that something failed, and nothing is named as failed")
    return "; ".join(remarks)
