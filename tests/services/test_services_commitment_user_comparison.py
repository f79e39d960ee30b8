"""A report beside the request: what counts as committed, and what never does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dicom.commitment_information import EventInformation, FailedReference, Reference
from stowkeeper.services.commitment.commitment_values import CommitmentState, InstanceOutcome
from stowkeeper.services.commitment.comparison import compare
from support.commitment_asking import MR_IMAGE_STORAGE, event, references_to

UID = "2.25.1"


def test_all_that_was_asked_for_is_committed() -> None:
    asked = references_to(1, 2, 3)
    compared = compare(asked, 1, event(UID, reversed(asked)))
    assert compared.state is CommitmentState.COMMITTED
    assert [verdict.outcome for verdict in compared.verdicts] == [InstanceOutcome.COMMITTED] * 3
    assert (compared.failures, compared.unasked, compared.remarks) == (0, (), "")


def test_a_failure_has_the_peers_reason_and_words() -> None:
    one, two = references_to(1, 2)
    compared = compare([one, two], 2, event(UID, [one], [two], reason=0x0112))
    assert compared.state is CommitmentState.PARTIAL
    assert compared.verdicts[1].reason == 0x0112
    assert compared.verdicts[1].words == "the peer says 0112H Failed: no such SOP instance"
    assert compared.remarks == ""


def test_nothing_committed_is_failed() -> None:
    asked = references_to(1, 2)
    assert compare(asked, 2, event(UID, [], asked)).state is CommitmentState.FAILED


def test_what_the_report_leaves_out_is_not_committed_though_the_event_says_all() -> None:
    one, two = references_to(1, 2)
    compared = compare([one, two], 1, event(UID, [one]))
    assert compared.state is CommitmentState.PARTIAL
    assert compared.verdicts[1].words == "the report does not name it"
    assert "1 of the instances asked for" in compared.remarks


@pytest.mark.parametrize("names", [("nope", "1.2.3"), ("1.2.3", "nope"), ("1.2.3", ""), ("1.2.3", "1" * 65)])
def test_what_no_request_can_hold_was_not_asked_for_and_fails(names: tuple[str, str]) -> None:
    (one,) = references_to(1)
    unnamed = Reference(*names)
    assert one.is_of_uids
    assert not unnamed.is_of_uids
    compared = compare([unnamed, one], 1, event(UID, [one]))
    assert compared.state is CommitmentState.PARTIAL
    assert [verdict.outcome for verdict in compared.verdicts] == [
        InstanceOutcome.FAILED,
        InstanceOutcome.COMMITTED,
    ]
    assert (compared.verdicts[0].reason, compared.verdicts[0].words) == (
        0x0112,
        "it is named by what is no UID, so the peer was not asked for it",
    )
    assert compared.remarks == ""
    # Nor does it count where a report names it all the same.
    assert compare([unnamed], 1, event(UID, [unnamed])).state is CommitmentState.FAILED


def test_an_empty_report_of_success_commits_nothing() -> None:
    compared = compare(references_to(1), 1, event(UID))
    assert compared.state is CommitmentState.FAILED


def test_another_sop_class_is_another_instance() -> None:
    asked = references_to(1)
    other = references_to(1, sop_class_uid=MR_IMAGE_STORAGE)
    compared = compare(asked, 1, event(UID, other))
    assert compared.state is CommitmentState.FAILED
    assert compared.verdicts[0].words == "the report names it under another SOP class"
    assert compared.unasked == tuple(other)


def test_named_both_ways_it_is_not_committed() -> None:
    asked = references_to(1)
    compared = compare(asked, 2, event(UID, asked, asked))
    assert compared.state is CommitmentState.FAILED
    assert compared.verdicts[0].words.endswith("and that it is committed")


def test_unasked_instances_are_told_once_and_commit_nothing() -> None:
    asked, others = references_to(1), references_to(8, 9)
    compared = compare(asked, 2, event(UID, [*asked, *others, others[0]], [others[1]]))
    assert compared.state is CommitmentState.COMMITTED
    assert compared.unasked == tuple(others)
    assert "2 were named that had not been asked for" in compared.remarks


@pytest.mark.parametrize("event_type", [1, 2])
def test_an_event_type_that_does_not_fit_is_remarked_and_decides_nothing(event_type: int) -> None:
    one, two = references_to(1, 2)
    failed = [two] if event_type == 1 else []
    committed = [one] if event_type == 1 else [one, two]
    compared = compare([one, two], event_type, event(UID, committed, failed))
    assert compared.failures == len(failed)
    assert "the event type says" in compared.remarks


_REFERENCE = st.builds(
    Reference, st.sampled_from(["1.1", "1.2"]), st.sampled_from([f"2.{n}" for n in range(5)])
)


@pytest.mark.slow
@given(
    asked=st.lists(_REFERENCE, min_size=1, unique=True),
    committed=st.lists(_REFERENCE),
    failed=st.lists(_REFERENCE),
    event_type=st.sampled_from([1, 2]),
)
def test_committed_is_what_the_report_commits_and_does_not_fail(
    asked: list[Reference], committed: list[Reference], failed: list[Reference], event_type: int
) -> None:
    information = EventInformation(
        UID, tuple(committed), tuple(FailedReference(one, 0x0110) for one in failed)
    )
    compared = compare(asked, event_type, information)
    for reference, verdict in zip(asked, compared.verdicts, strict=True):
        assert verdict.is_committed == (reference in committed and reference not in failed)
        assert verdict.is_committed == (verdict.words == "")
    assert (compared.state is CommitmentState.COMMITTED) == all(
        verdict.is_committed for verdict in compared.verdicts
    )
    assert set(compared.unasked) == (set(committed) | set(failed)) - set(asked)
