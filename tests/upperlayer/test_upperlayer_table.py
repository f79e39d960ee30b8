"""Every cell of Table 9-10, done by a connection: what is sent, told, timed and closed, and where it leads."""

import pytest
from upperlayer_samples import (
    ARTIM,
    MAX,
    accept,
    acceptor,
    established,
    feed,
    p_data,
    pdv,
    request,
    requestor,
)

from stowkeeper.upperlayer.connection import UpperLayerConnection
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.errors import LocalProtocolError
from stowkeeper.upperlayer.pdu import REJECTED_NO_REASON, Abort, ReleaseRP, ReleaseRQ
from stowkeeper.upperlayer.states import TRANSITIONS, Event, Role, State

NOW = 50.0
REQUEST = request()
RESPONSE = accept(REQUEST)
CLOSING_STATES = {State.STA2_AWAITING_ASSOCIATE_RQ, State.STA13_AWAITING_TRANSPORT_CLOSE}


def new(role):
    return UpperLayerConnection(role, max_pdu_length_local=MAX, artim_seconds=ARTIM)


def asked():
    connection = acceptor()
    feed(connection, encode_pdu(REQUEST))
    return connection


def opening():
    connection = new(Role.REQUESTOR)
    connection.request(REQUEST, 0.0)
    return connection


def releasing(role=Role.ACCEPTOR):
    connection = established(role)
    connection.release(0.0)
    return connection


def asked_to_release():
    connection = established()
    feed(connection, encode_pdu(ReleaseRQ()))
    return connection


def colliding(role):
    connection = releasing(role)
    feed(connection, encode_pdu(ReleaseRQ()))
    return connection


def collided_requestor():
    connection = colliding(Role.REQUESTOR)
    connection.respond_to_release(0.0)
    return connection


def collided_acceptor():
    connection = colliding(Role.ACCEPTOR)
    feed(connection, encode_pdu(ReleaseRP()))
    return connection


def aborted():
    connection = established()
    connection.abort(0, 0, 0.0)
    return connection


IN_STATE = dict(
    zip(
        State,
        [
            lambda: new(Role.REQUESTOR),
            acceptor,
            asked,
            opening,
            requestor,
            established,
            releasing,
            asked_to_release,
            lambda: colliding(Role.REQUESTOR),
            lambda: colliding(Role.ACCEPTOR),
            collided_requestor,
            collided_acceptor,
            aborted,
        ],
        strict=True,
    )
)


def connection_in(state, event):
    if event is Event.EVT5_TRANSPORT_INDICATED and state is State.STA1_IDLE:
        return new(Role.ACCEPTOR)
    connection = IN_STATE[state]()
    assert connection.state is state
    connection.data_to_send()
    return connection


DO = {
    Event.EVT1_A_ASSOCIATE_REQUEST: lambda it: it.request(REQUEST, NOW),
    Event.EVT2_TRANSPORT_CONFIRMED: lambda it: it.connection_opened(NOW),
    Event.EVT3_A_ASSOCIATE_AC: lambda it: feed(it, encode_pdu(RESPONSE), NOW),
    Event.EVT4_A_ASSOCIATE_RJ: lambda it: feed(it, encode_pdu(REJECTED_NO_REASON), NOW),
    Event.EVT5_TRANSPORT_INDICATED: lambda it: it.connection_opened(NOW),
    Event.EVT6_A_ASSOCIATE_RQ: lambda it: feed(it, encode_pdu(REQUEST), NOW),
    Event.EVT7_A_ASSOCIATE_ACCEPT: lambda it: it.accept(RESPONSE, NOW),
    Event.EVT8_A_ASSOCIATE_REJECT: lambda it: it.reject(REJECTED_NO_REASON, NOW),
    Event.EVT9_P_DATA_REQUEST: lambda it: it.send_p_data(b"P-DATA"),
    Event.EVT10_P_DATA_TF: lambda it: feed(it, p_data(pdv(b"AB")), NOW),
    Event.EVT11_A_RELEASE_REQUEST: lambda it: it.release(NOW),
    Event.EVT12_A_RELEASE_RQ: lambda it: feed(it, encode_pdu(ReleaseRQ()), NOW),
    Event.EVT13_A_RELEASE_RP: lambda it: feed(it, encode_pdu(ReleaseRP()), NOW),
    Event.EVT14_A_RELEASE_RESPONSE: lambda it: it.respond_to_release(NOW),
    Event.EVT15_A_ABORT_REQUEST: lambda it: it.abort(0, 0, NOW),
    Event.EVT16_A_ABORT: lambda it: feed(it, encode_pdu(Abort()), NOW),
    Event.EVT17_TRANSPORT_CLOSED: lambda it: it.receive_eof(NOW),
    Event.EVT18_ARTIM_EXPIRED: lambda it: it.handle_timer(NOW),
    Event.EVT19_INVALID_PDU: lambda it: feed(it, b"\x63\x00\x00\x00\x00\x00", NOW),
}

UNEXPECTED = encode_pdu(Abort(source=2, reason=2))
UNRECOGNIZED = encode_pdu(Abort(source=2, reason=1))
KEEP, START, STOP = "keep", "start", "stop"

# By action: what is sent (None: an abort by the upper layer), the events told, the timer.
EFFECTS = {
    "AE-1": (b"", [], KEEP),
    "AE-2": (encode_pdu(REQUEST), [], KEEP),
    "AE-3": (b"", ["AssociateAccepted"], KEEP),
    "AE-4": (b"", ["AssociateRejected"], KEEP),
    "AE-5": (b"", [], START),
    "AE-6": (b"", ["AssociateRequested"], STOP),
    "AE-7": (encode_pdu(RESPONSE), [], KEEP),
    "AE-8": (encode_pdu(REJECTED_NO_REASON), [], START),
    "DT-1": (b"P-DATA", [], KEEP),
    "DT-2": (b"", ["PDVFragment"], KEEP),
    "AR-1": (encode_pdu(ReleaseRQ()), [], KEEP),
    "AR-2": (b"", ["ReleaseRequested"], KEEP),
    "AR-3": (b"", ["ReleaseConfirmed"], KEEP),
    "AR-4": (encode_pdu(ReleaseRP()), [], START),
    "AR-5": (b"", ["ConnectionClosed"], STOP),
    "AR-6": (b"", ["PDVFragment"], KEEP),
    "AR-7": (b"P-DATA", [], KEEP),
    "AR-8": (b"", ["ReleaseRequested"], KEEP),
    "AR-9": (encode_pdu(ReleaseRP()), [], KEEP),
    "AR-10": (b"", ["ReleaseConfirmed"], KEEP),
    "AA-1": (None, ["ProtocolFault"], START),
    "AA-2": (b"", [], STOP),
    "AA-3": (b"", ["Aborted"], KEEP),
    "AA-4": (b"", ["Aborted", "ConnectionClosed"], KEEP),
    "AA-5": (b"", ["ConnectionClosed"], STOP),
    "AA-6": (b"", [], KEEP),
    "AA-7": (None, [], KEEP),
    "AA-8": (None, ["ProtocolFault", "Aborted"], START),
}


@pytest.mark.parametrize(("state", "event"), TRANSITIONS, ids=lambda part: part.value)
def test_a_cell(state, event):
    cell = TRANSITIONS[state, event]
    connection = connection_in(state, event)
    timer_before = connection.get_timer()
    told = DO[event](connection)

    sent, names, timer = EFFECTS[cell.action.value]
    if event is Event.EVT15_A_ABORT_REQUEST:
        sent, names = (b"" if sent == b"" else encode_pdu(Abort())), []
    elif sent is None:
        sent = UNRECOGNIZED if event is Event.EVT19_INVALID_PDU else UNEXPECTED
    if event is Event.EVT18_ARTIM_EXPIRED:
        names = ["ARTIMExpired"]
    assert connection.data_to_send() == sent
    assert [type(one).__name__ for one in told or []] == names
    assert connection.state in cell.next_states
    assert connection.get_timer() == {KEEP: timer_before, START: NOW + ARTIM, STOP: None}[timer]
    assert (connection.get_timer() is not None) == (connection.state in CLOSING_STATES)
    assert connection.close_expected == (connection.state is State.STA1_IDLE)


OUR_OWN = [
    Event.EVT1_A_ASSOCIATE_REQUEST,
    Event.EVT2_TRANSPORT_CONFIRMED,
    Event.EVT7_A_ASSOCIATE_ACCEPT,
    Event.EVT8_A_ASSOCIATE_REJECT,
    Event.EVT9_P_DATA_REQUEST,
    Event.EVT11_A_RELEASE_REQUEST,
    Event.EVT14_A_RELEASE_RESPONSE,
]
# An acceptor's early answer to a release waits in Sta10; a requestor's connection may be open before its request.
KEPT_FOR_LATER = {
    (State.STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP, Event.EVT14_A_RELEASE_RESPONSE),
    (State.STA1_IDLE, Event.EVT2_TRANSPORT_CONFIRMED),
}


EMPTY = [
    (state, event)
    for state in State
    for event in OUR_OWN
    if (state, event) not in TRANSITIONS and (state, event) not in KEPT_FOR_LATER
]


@pytest.mark.parametrize(("state", "event"), EMPTY, ids=lambda part: part.value)
def test_an_empty_cell_is_our_fault_and_changes_nothing(state, event):
    connection = connection_in(state, event)
    timer = connection.get_timer()
    with pytest.raises(LocalProtocolError):
        DO[event](connection)
    assert (connection.state, connection.get_timer(), connection.data_to_send()) == (state, timer, b"")
