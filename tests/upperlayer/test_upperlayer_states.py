"""Table 9-10 against another transcription of it, and what is derived from it."""

import pytest
from pynetdicom.fsm import ACTIONS, TRANSITION_TABLE

from stowkeeper.upperlayer.actions import _ACTIONS
from stowkeeper.upperlayer.errors import LocalProtocolError
from stowkeeper.upperlayer.states import (
    P_DATA_IS_DELIVERED,
    P_DATA_IS_IGNORED,
    P_DATA_IS_SENDABLE,
    TRANSITIONS,
    Action,
    Event,
    State,
    transition,
)


def test_every_cell_of_table_9_10_is_as_others_read_it():
    ours = {(event.value, state.value): cell.action.value for (state, event), cell in TRANSITIONS.items()}
    assert len(ours) == 123
    assert ours == TRANSITION_TABLE


def test_every_action_leads_where_others_read_it():
    ours = {
        cell.action.value: tuple(state.value for state in cell.next_states) for cell in TRANSITIONS.values()
    }
    theirs = {
        action: (states,) if isinstance(states, str) else states for action, (_, _, states) in ACTIONS.items()
    }
    assert ours == theirs


def test_the_table_names_every_state_event_and_action():
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert {cell.action for cell in TRANSITIONS.values()} == set(Action) == set(_ACTIONS)


def test_an_empty_cell_has_one_answer():
    empty = [(state, event) for state in State for event in Event if (state, event) not in TRANSITIONS]
    assert len(empty) == 13 * 19 - 123
    for state, event in empty:
        with pytest.raises(LocalProtocolError, match=rf"{event.name} has no place in {state.name}"):
            transition(state, event)


FROM_THE_PEER = {
    Event.EVT3_A_ASSOCIATE_AC,
    Event.EVT4_A_ASSOCIATE_RJ,
    Event.EVT6_A_ASSOCIATE_RQ,
    Event.EVT10_P_DATA_TF,
    Event.EVT12_A_RELEASE_RQ,
    Event.EVT13_A_RELEASE_RP,
    Event.EVT16_A_ABORT,
    Event.EVT17_TRANSPORT_CLOSED,
    Event.EVT19_INVALID_PDU,
}


def test_no_peer_can_meet_an_empty_cell():
    without_connection = {State.STA1_IDLE, State.STA4_AWAITING_TRANSPORT_OPEN}
    for state in set(State) - without_connection:
        assert all((state, event) in TRANSITIONS for event in FROM_THE_PEER)


def test_the_short_cut_for_p_data_is_what_the_table_says():
    assert {state.value for state in P_DATA_IS_DELIVERED} == {"Sta6", "Sta7"}
    assert {state.value for state in P_DATA_IS_IGNORED} == {"Sta13"}
    assert {state.value for state in P_DATA_IS_SENDABLE} == {"Sta6", "Sta8"}
    for state in P_DATA_IS_DELIVERED | P_DATA_IS_IGNORED:
        assert TRANSITIONS[state, Event.EVT10_P_DATA_TF].next_states == (state,)
    for state in P_DATA_IS_SENDABLE:
        assert TRANSITIONS[state, Event.EVT9_P_DATA_REQUEST].next_states == (state,)
