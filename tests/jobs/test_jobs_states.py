"""The table of a job's moves, as a whole and move by move."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.database.schema import JOB_STATES, JOB_WISHES
from stowkeeper.jobs.states import (
    FINISHED,
    TRANSITIONS,
    WAITING,
    JobEvent,
    JobState,
    JobStateError,
    JobWish,
    next_state,
    states_before,
)

PEOPLE = {JobEvent.PAUSE, JobEvent.RESUME, JobEvent.CANCEL, JobEvent.RESUBMIT}


def reachable(start: JobState, events: set[JobEvent]) -> set[JobState]:
    found = {start}
    while (
        more := {after for (state, event), after in TRANSITIONS.items() if state in found and event in events}
        - found
    ):
        found |= more
    return found


def test_states_and_wishes_are_those_of_the_schema() -> None:
    assert tuple(JobState) == JOB_STATES
    assert tuple(JobWish) == JOB_WISHES


def test_every_state_is_reached_and_every_event_happens() -> None:
    assert reachable(JobState.PENDING, set(JobEvent)) == set(JobState)
    assert {event for _, event in TRANSITIONS} == set(JobEvent)


@pytest.mark.parametrize("state", sorted(set(JobState) - FINISHED))
def test_from_every_state_a_job_can_come_to_each_end(state: JobState) -> None:
    assert reachable(state, set(JobEvent) - {JobEvent.RESUBMIT}) >= FINISHED


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_only_resubmitting_leads_out_of_an_end(state: JobState) -> None:
    assert {event for before, event in TRANSITIONS if before is state} <= {JobEvent.RESUBMIT}


def test_success_is_for_good() -> None:
    assert not [move for move in TRANSITIONS if move[0] is JobState.SUCCESS]


def test_only_an_engine_starts_and_ends_runs() -> None:
    assert {move[1] for move, after in TRANSITIONS.items() if after is JobState.RUNNING} == {
        *(JobEvent.TAKE, JobEvent.PAUSE, JobEvent.RESUME, JobEvent.CANCEL),
    }
    for event in PEOPLE - {JobEvent.RESUBMIT}:
        assert TRANSITIONS[JobState.RUNNING, event] is JobState.RUNNING
    assert {state for state, event in TRANSITIONS if event is JobEvent.TAKE} == WAITING


def test_whatever_is_not_finished_can_be_cancelled() -> None:
    assert set(states_before(JobEvent.CANCEL)) == set(JobState) - FINISHED


def test_a_refused_move_says_which_states_it_takes() -> None:
    with pytest.raises(
        JobStateError,
        match=r"in state success cannot be tried again: only .* state retry, failure or cancelled can",
    ):
        next_state(JobState.SUCCESS, JobEvent.RESUBMIT)


@given(st.lists(st.sampled_from(JobEvent)))
def test_any_events_lead_along_the_table_or_are_refused(events: list[JobEvent]) -> None:
    state = JobState.PENDING
    for event in events:
        if (state, event) in TRANSITIONS:
            state = next_state(state, event)
        else:
            with pytest.raises(JobStateError):
                next_state(state, event)
    assert state in reachable(JobState.PENDING, set(events))
