"""The state machine of PS3.8 §9.2 as data: states, events, actions and Table 9-10, the whole of it.

The table stands here in the shape in which the standard prints it, so that the two can be laid side by side.
`TRANSITIONS` is what is read from it: (state, event) → action and the states it can lead to. An empty cell is
an event that cannot happen in a state; `transition` has one answer to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from stowkeeper.upperlayer.errors import LocalProtocolError


class Role(Enum):
    """Which side of the association we are."""

    REQUESTOR = "requestor"
    ACCEPTOR = "acceptor"


class State(Enum):
    """PS3.8 Tables 9-1 to 9-5."""

    STA1_IDLE = "Sta1"
    STA2_AWAITING_ASSOCIATE_RQ = "Sta2"
    STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE = "Sta3"
    STA4_AWAITING_TRANSPORT_OPEN = "Sta4"
    STA5_AWAITING_ASSOCIATE_AC_OR_RJ = "Sta5"
    STA6_ESTABLISHED = "Sta6"
    STA7_AWAITING_RELEASE_RP = "Sta7"
    STA8_AWAITING_LOCAL_RELEASE_RESPONSE = "Sta8"
    STA9_COLLISION_REQUESTOR_AWAITING_LOCAL_RESPONSE = "Sta9"
    STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP = "Sta10"
    STA11_COLLISION_REQUESTOR_AWAITING_RELEASE_RP = "Sta11"
    STA12_COLLISION_ACCEPTOR_AWAITING_LOCAL_RESPONSE = "Sta12"
    STA13_AWAITING_TRANSPORT_CLOSE = "Sta13"


class Event(Enum):
    """The rows of Table 9-10. Requests and responses come from our own side, PDUs from the peer."""

    EVT1_A_ASSOCIATE_REQUEST = "Evt1"
    EVT2_TRANSPORT_CONFIRMED = "Evt2"
    EVT3_A_ASSOCIATE_AC = "Evt3"
    EVT4_A_ASSOCIATE_RJ = "Evt4"
    EVT5_TRANSPORT_INDICATED = "Evt5"
    EVT6_A_ASSOCIATE_RQ = "Evt6"
    EVT7_A_ASSOCIATE_ACCEPT = "Evt7"
    EVT8_A_ASSOCIATE_REJECT = "Evt8"
    EVT9_P_DATA_REQUEST = "Evt9"
    EVT10_P_DATA_TF = "Evt10"
    EVT11_A_RELEASE_REQUEST = "Evt11"
    EVT12_A_RELEASE_RQ = "Evt12"
    EVT13_A_RELEASE_RP = "Evt13"
    EVT14_A_RELEASE_RESPONSE = "Evt14"
    EVT15_A_ABORT_REQUEST = "Evt15"
    EVT16_A_ABORT = "Evt16"
    EVT17_TRANSPORT_CLOSED = "Evt17"
    EVT18_ARTIM_EXPIRED = "Evt18"
    EVT19_INVALID_PDU = "Evt19"


class Action(Enum):
    """PS3.8 Tables 9-6 to 9-9."""

    AE_1_CONNECT = "AE-1"
    AE_2_SEND_ASSOCIATE_RQ = "AE-2"
    AE_3_CONFIRM_ACCEPTANCE = "AE-3"
    AE_4_CONFIRM_REJECTION = "AE-4"
    AE_5_START_ARTIM = "AE-5"
    AE_6_INDICATE_OR_REJECT = "AE-6"
    AE_7_SEND_ASSOCIATE_AC = "AE-7"
    AE_8_SEND_ASSOCIATE_RJ = "AE-8"
    DT_1_SEND_P_DATA = "DT-1"
    DT_2_INDICATE_P_DATA = "DT-2"
    AR_1_SEND_RELEASE_RQ = "AR-1"
    AR_2_INDICATE_RELEASE = "AR-2"
    AR_3_CONFIRM_RELEASE_AND_CLOSE = "AR-3"
    AR_4_SEND_RELEASE_RP = "AR-4"
    AR_5_STOP_ARTIM = "AR-5"
    AR_6_INDICATE_P_DATA = "AR-6"
    AR_7_SEND_P_DATA = "AR-7"
    AR_8_INDICATE_RELEASE_COLLISION = "AR-8"
    AR_9_SEND_RELEASE_RP = "AR-9"
    AR_10_CONFIRM_RELEASE = "AR-10"
    AA_1_SEND_ABORT = "AA-1"
    AA_2_CLOSE = "AA-2"
    AA_3_INDICATE_ABORT_AND_CLOSE = "AA-3"
    AA_4_INDICATE_PROVIDER_ABORT = "AA-4"
    AA_5_STOP_ARTIM = "AA-5"
    AA_6_IGNORE = "AA-6"
    AA_7_SEND_ABORT_AGAIN = "AA-7"
    AA_8_ABORT_AS_PROVIDER = "AA-8"


_NEXT_STATES_TEXT = """
AE-1  Sta4           AR-1  Sta7           AA-1  Sta13
AE-2  Sta5           AR-2  Sta8           AA-2  Sta1
AE-3  Sta6           AR-3  Sta1           AA-3  Sta1
AE-4  Sta1           AR-4  Sta13          AA-4  Sta1
AE-5  Sta2           AR-5  Sta1           AA-5  Sta1
AE-6  Sta3/Sta13     AR-6  Sta7           AA-6  Sta13
AE-7  Sta6           AR-7  Sta8           AA-7  Sta13
AE-8  Sta13          AR-8  Sta9/Sta10     AA-8  Sta13
DT-1  Sta6           AR-9  Sta11
DT-2  Sta6           AR-10 Sta12
"""

_TABLE_9_10_TEXT = """
      Sta1 Sta2 Sta3 Sta4 Sta5 Sta6 Sta7 Sta8 Sta9 Sta10 Sta11 Sta12 Sta13
Evt1  AE-1 -    -    -    -    -    -    -    -    -     -     -     -
Evt2  -    -    -    AE-2 -    -    -    -    -    -     -     -     -
Evt3  -    AA-1 AA-8 -    AE-3 AA-8 AA-8 AA-8 AA-8 AA-8  AA-8  AA-8  AA-6
Evt4  -    AA-1 AA-8 -    AE-4 AA-8 AA-8 AA-8 AA-8 AA-8  AA-8  AA-8  AA-6
Evt5  AE-5 -    -    -    -    -    -    -    -    -     -     -     -
Evt6  -    AE-6 AA-8 -    AA-8 AA-8 AA-8 AA-8 AA-8 AA-8  AA-8  AA-8  AA-7
Evt7  -    -    AE-7 -    -    -    -    -    -    -     -     -     -
Evt8  -    -    AE-8 -    -    -    -    -    -    -     -     -     -
Evt9  -    -    -    -    -    DT-1 -    AR-7 -    -     -     -     -
Evt10 -    AA-1 AA-8 -    AA-8 DT-2 AR-6 AA-8 AA-8 AA-8  AA-8  AA-8  AA-6
Evt11 -    -    -    -    -    AR-1 -    -    -    -     -     -     -
Evt12 -    AA-1 AA-8 -    AA-8 AR-2 AR-8 AA-8 AA-8 AA-8  AA-8  AA-8  AA-6
Evt13 -    AA-1 AA-8 -    AA-8 AA-8 AR-3 AA-8 AA-8 AR-10 AR-3  AA-8  AA-6
Evt14 -    -    -    -    -    -    -    AR-4 AR-9 -     -     AR-4  -
Evt15 -    -    AA-1 AA-2 AA-1 AA-1 AA-1 AA-1 AA-1 AA-1  AA-1  AA-1  -
Evt16 -    AA-2 AA-3 -    AA-3 AA-3 AA-3 AA-3 AA-3 AA-3  AA-3  AA-3  AA-2
Evt17 -    AA-5 AA-4 AA-4 AA-4 AA-4 AA-4 AA-4 AA-4 AA-4  AA-4  AA-4  AR-5
Evt18 -    AA-2 -    -    -    -    -    -    -    -     -     -     AA-2
Evt19 -    AA-1 AA-8 -    AA-8 AA-8 AA-8 AA-8 AA-8 AA-8  AA-8  AA-8  AA-7
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One filled cell: what is done, and where it can lead. Where there are two states the action chooses."""

    action: Action
    next_states: tuple[State, ...]


def _read_next_states() -> dict[Action, tuple[State, ...]]:
    fields = _NEXT_STATES_TEXT.split()
    return {
        Action(action): tuple(State(state) for state in states.split("/"))
        for action, states in zip(fields[::2], fields[1::2], strict=True)
    }


def _read_table() -> dict[tuple[State, Event], Transition]:
    next_states = _read_next_states()
    heading, *rows = _TABLE_9_10_TEXT.strip().splitlines()
    states = [State(name) for name in heading.split()]
    table = {}
    for row in rows:
        event, *cells = row.split()
        for state, cell in zip(states, cells, strict=True):
            if cell != "-":
                action = Action(cell)
                table[state, Event(event)] = Transition(action=action, next_states=next_states[action])
    return table


TRANSITIONS: Final[Mapping[tuple[State, Event], Transition]] = MappingProxyType(_read_table())
"""PS3.8 Table 9-10."""


def transition(state: State, event: Event) -> Transition:
    """Look up what an event does in a state.

    An empty cell raises LocalProtocolError: whatever a peer may send has a filled cell in every state with a
    connection, so only our own side can bring about an event that has no place.
    """
    found = TRANSITIONS.get((state, event))
    if found is None:
        raise LocalProtocolError(f"{event.name} has no place in {state.name} (PS3.8 Table 9-10)")
    return found


def _states_where_p_data(*actions: Action) -> frozenset[State]:
    return frozenset(
        state
        for (state, event), cell in TRANSITIONS.items()
        if event is Event.EVT10_P_DATA_TF and cell.action in actions
    )


P_DATA_IS_DELIVERED: Final = _states_where_p_data(Action.DT_2_INDICATE_P_DATA, Action.AR_6_INDICATE_P_DATA)
"""States in which a P-DATA-TF is indicated to the user, Sta6 and Sta7, and which it does not change."""

P_DATA_IS_IGNORED: Final = _states_where_p_data(Action.AA_6_IGNORE)
"""The state in which a P-DATA-TF does nothing, Sta13."""

P_DATA_IS_SENDABLE: Final = frozenset(
    state for (state, event) in TRANSITIONS if event is Event.EVT9_P_DATA_REQUEST
)
"""States in which the user may send P-DATA-TF, Sta6 and Sta8, and which that does not change."""
