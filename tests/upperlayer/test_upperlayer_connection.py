"""Whole dialogues of one connection: every way in which an association begins and ends, in both roles."""

import pytest
from upperlayer_samples import (
    ARTIM,
    CT,
    MAX,
    accept,
    acceptor,
    context,
    established,
    feed,
    join,
    p_data,
    pdv,
    request,
    requestor,
)

from stowkeeper.upperlayer.connection import UpperLayerConnection
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.errors import LocalProtocolError
from stowkeeper.upperlayer.events import (
    Aborted,
    ARTIMExpired,
    AssociateAccepted,
    AssociateRefused,
    AssociateRejected,
    AssociateRequested,
    ConnectionClosed,
    ProtocolFault,
    ReleaseConfirmed,
    ReleaseRequested,
)
from stowkeeper.upperlayer.items import AsynchronousOperationsWindow, UserInformation
from stowkeeper.upperlayer.limits import (
    ARTIM_SECONDS_DEFAULT,
    MAX_PDU_LENGTH_LOCAL_DEFAULT,
    PDU_LENGTH_PEER_FLOOR,
    PDU_LENGTH_PEER_IF_UNLIMITED,
    PDU_LENGTH_PEER_IF_UNSAID,
)
from stowkeeper.upperlayer.negotiation import AcceptancePolicy, negotiate
from stowkeeper.upperlayer.pdu import (
    REJECTED_CALLED_AE_TITLE,
    REJECTED_PROTOCOL_VERSION,
    Abort,
    AssociateAC,
    ReleaseRP,
    ReleaseRQ,
)
from stowkeeper.upperlayer.reasons import AbortReason, AbortSource
from stowkeeper.upperlayer.states import Role, State

RELEASE_RQ = encode_pdu(ReleaseRQ())
RELEASE_RP = encode_pdu(ReleaseRP())
USER_ABORT = encode_pdu(Abort())
UNEXPECTED = encode_pdu(Abort(source=2, reason=AbortReason.UNEXPECTED_PDU))
UNRECOGNIZED = encode_pdu(Abort(source=2, reason=AbortReason.UNRECOGNIZED_PDU))
INVALID = encode_pdu(Abort(source=2, reason=AbortReason.INVALID_PDU_PARAMETER_VALUE))
BOTH = [Role.ACCEPTOR, Role.REQUESTOR]


def ended(connection):
    assert connection.state is State.STA1_IDLE
    assert connection.get_timer() is None
    return connection.close_expected


# --- establishment


def test_an_acceptor_from_request_to_release():
    connection = acceptor()
    assert connection.state is State.STA2_AWAITING_ASSOCIATE_RQ
    assert connection.get_timer() == ARTIM
    asked = request(operations_window=AsynchronousOperationsWindow(invoked=5, performed=1))
    [event] = feed(connection, encode_pdu(asked), now=3.0)
    assert event == AssociateRequested(request=asked)
    assert connection.association_request == asked
    assert connection.get_timer() is None
    assert connection.accepted_contexts == {}
    response = accept(event.request)
    connection.accept(response, 4.0)
    assert connection.data_to_send() == encode_pdu(response)
    assert connection.data_to_send() == b""
    assert connection.state is State.STA6_ESTABLISHED
    assert connection.accepted_contexts[1].abstract_syntax == CT
    assert connection.operations_window == AsynchronousOperationsWindow(invoked=5, performed=1)
    assert join(feed(connection, p_data(pdv(b"AB")))) == [(1, False, False, b"AB")]
    connection.send_p_data(b"one ")
    connection.send_p_data(b"two")
    assert connection.data_to_send() == b"one two"
    assert feed(connection, RELEASE_RQ) == [ReleaseRequested()]
    assert connection.can_respond_to_release
    connection.send_p_data(b"late answer")  # AR-7
    connection.respond_to_release(9.0)
    assert connection.data_to_send() == b"late answer" + RELEASE_RP
    assert connection.get_timer() == 9.0 + ARTIM
    assert not connection.close_expected
    assert connection.receive_eof(10.0) == [ConnectionClosed()]
    assert ended(connection)


@pytest.mark.parametrize("opened_first", [True, False])
def test_a_requestor_from_request_to_release(opened_first):
    connection = UpperLayerConnection(Role.REQUESTOR, max_pdu_length_local=MAX, artim_seconds=ARTIM)
    asked = request()
    if opened_first:
        connection.connection_opened(0.0)
        connection.request(asked, 0.0)
    else:
        connection.request(asked, 0.0)
        assert connection.state is State.STA4_AWAITING_TRANSPORT_OPEN
        assert connection.data_to_send() == b""
        connection.connection_opened(0.0)
    assert connection.state is State.STA5_AWAITING_ASSOCIATE_AC_OR_RJ
    assert connection.data_to_send() == encode_pdu(asked)
    response = accept(asked, maximum_length=1000)
    assert feed(connection, encode_pdu(response)) == [AssociateAccepted(response=response)]
    assert connection.max_pdu_length_peer == 1000
    assert set(connection.accepted_contexts) == {1, 3}
    assert connection.can_release
    connection.release(2.0)
    assert connection.data_to_send() == RELEASE_RQ
    assert not connection.can_send_p_data
    assert join(feed(connection, p_data(pdv(b"still")))) == [(1, False, False, b"still")]  # AR-6
    assert feed(connection, RELEASE_RP) == [ReleaseConfirmed()]
    assert ended(connection)


def test_what_follows_the_acceptance_in_the_same_bytes_is_delivered_and_checked():
    asked = request(context(1, CT))
    good = requestor(asked)
    events = feed(good, encode_pdu(accept(asked)) + p_data(pdv(b"report")))
    assert join(events)[1:] == [(1, False, False, b"report")]
    bad = requestor(asked)
    events = feed(
        bad, encode_pdu(accept(asked)) + p_data(pdv(b"report", context_id=3)) + p_data(pdv(b"more"))
    )
    assert [type(event) for event in events] == [AssociateAccepted, ProtocolFault, Aborted]
    assert "presentation context 3" in events[1].words
    assert bad.state is State.STA13_AWAITING_TRANSPORT_CLOSE


def test_a_rejection_by_our_user():
    connection = acceptor()
    feed(connection, encode_pdu(request()))
    connection.data_to_send()
    connection.reject(REJECTED_CALLED_AE_TITLE, 5.0)
    assert connection.data_to_send() == encode_pdu(REJECTED_CALLED_AE_TITLE)
    assert (connection.state, connection.get_timer()) == (State.STA13_AWAITING_TRANSPORT_CLOSE, 5.0 + ARTIM)


def test_a_rejection_by_the_upper_layer_itself():
    connection = acceptor()
    data = bytearray(encode_pdu(request()))
    data[6:8] = b"\x00\x02"
    [refused] = feed(connection, bytes(data), now=5.0)
    assert isinstance(refused, AssociateRefused)
    assert refused.rejection == REJECTED_PROTOCOL_VERSION
    assert connection.data_to_send() == encode_pdu(REJECTED_PROTOCOL_VERSION)
    assert (connection.state, connection.get_timer()) == (State.STA13_AWAITING_TRANSPORT_CLOSE, 5.0 + ARTIM)


def test_a_rejection_by_the_peer():
    connection = requestor()
    events = feed(connection, encode_pdu(REJECTED_CALLED_AE_TITLE))
    assert events == [AssociateRejected(rejection=REJECTED_CALLED_AE_TITLE)]
    assert ended(connection)


def test_a_connection_that_can_not_be_opened():
    connection = UpperLayerConnection(Role.REQUESTOR, max_pdu_length_local=MAX)
    connection.request(request(), 0.0)
    aborted, closed = connection.receive_eof(1.0)
    assert (aborted.by_us, closed) == (True, ConnectionClosed())
    assert "STA4" in aborted.words
    assert ended(connection)


@pytest.mark.parametrize(
    ("announced", "effective"), [(0, PDU_LENGTH_PEER_IF_UNLIMITED), (3, PDU_LENGTH_PEER_FLOOR), (257, 256)]
)
def test_the_peers_maximum_is_one_that_works(announced, effective):
    assert established(asked=request(maximum_length=announced)).max_pdu_length_peer == effective


def test_what_is_shipped_fits_together():
    connection = UpperLayerConnection(Role.ACCEPTOR)
    connection.connection_opened(0.0)
    assert connection.get_timer() == ARTIM_SECONDS_DEFAULT
    [event] = feed(connection, encode_pdu(request(maximum_length=None)))
    answer = negotiate(event.request, AcceptancePolicy())
    connection.accept(answer.response, 0.0)
    assert connection.max_pdu_length_local == MAX_PDU_LENGTH_LOCAL_DEFAULT
    assert answer.response.user_information.maximum_length == MAX_PDU_LENGTH_LOCAL_DEFAULT
    assert connection.max_pdu_length_peer == PDU_LENGTH_PEER_IF_UNSAID
    assert connection.role is Role.ACCEPTOR


# --- ARTIM


def test_a_peer_that_says_nothing_is_closed_when_artim_expires():
    connection = acceptor()
    assert connection.handle_timer(ARTIM - 0.001) == []
    assert connection.handle_timer(ARTIM) == [ARTIMExpired(state=State.STA2_AWAITING_ASSOCIATE_RQ)]
    assert ended(connection)
    assert connection.handle_timer(99.0) == []


def test_a_peer_that_dribbles_its_request_is_closed_when_artim_expires():
    connection = acceptor()
    for second, byte in enumerate(encode_pdu(request())[: int(ARTIM)]):
        assert feed(connection, bytes([byte]), now=float(second)) == []
    assert connection.is_mid_pdu
    assert connection.get_timer() == ARTIM
    assert connection.handle_timer(ARTIM) != []


@pytest.mark.parametrize("role", BOTH)
def test_a_peer_that_does_not_close_is_closed_when_artim_expires(role):
    connection = established(role)
    connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, 20.0)
    assert connection.data_to_send() == USER_ABORT
    assert connection.get_timer() == 20.0 + ARTIM
    assert connection.handle_timer(20.0 + ARTIM) == [ARTIMExpired(state=State.STA13_AWAITING_TRANSPORT_CLOSE)]
    assert ended(connection)


# --- release


def test_a_release_collision_seen_by_the_requestor():
    connection = established(Role.REQUESTOR)
    connection.release(2.0)
    assert feed(connection, RELEASE_RQ) == [ReleaseRequested(is_collision=True)]
    assert connection.state is State.STA9_COLLISION_REQUESTOR_AWAITING_LOCAL_RESPONSE
    connection.respond_to_release(3.0)
    assert connection.data_to_send() == RELEASE_RQ + RELEASE_RP
    assert feed(connection, RELEASE_RP) == [ReleaseConfirmed()]
    assert ended(connection)


@pytest.mark.parametrize("answered_early", [True, False])
def test_a_release_collision_seen_by_the_acceptor(answered_early):
    connection = established(Role.ACCEPTOR)
    connection.release(2.0)
    assert feed(connection, RELEASE_RQ) == [ReleaseRequested(is_collision=True)]
    assert connection.state is State.STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP
    assert connection.can_respond_to_release
    if answered_early:
        connection.respond_to_release(3.0)
    assert connection.data_to_send() == RELEASE_RQ
    assert feed(connection, RELEASE_RP, now=4.0) == [ReleaseConfirmed()]
    if not answered_early:
        assert connection.state is State.STA12_COLLISION_ACCEPTOR_AWAITING_LOCAL_RESPONSE
        connection.respond_to_release(4.0)
    assert connection.data_to_send() == RELEASE_RP
    assert (connection.state, connection.get_timer()) == (State.STA13_AWAITING_TRANSPORT_CLOSE, 4.0 + ARTIM)


# --- aborts and faults


@pytest.mark.parametrize("role", BOTH)
def test_an_abort_by_the_peer(role):
    connection = established(role)
    [aborted] = feed(connection, encode_pdu(Abort(source=2, reason=5)))
    assert (aborted.source, aborted.reason, aborted.by_us) == (2, 5, False)
    assert "unexpected pdu parameter" in aborted.words
    assert ended(connection)
    assert connection.receive_eof(2.0) == []
    assert feed(connection, p_data(pdv(b"late"))) == []


def test_an_abort_by_our_user_tells_its_reason_as_provider():
    connection = established()
    connection.abort(AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER_VALUE, 1.0)
    assert connection.data_to_send() == INVALID


def test_an_abort_in_the_midst_of_a_pdv_ends_its_delivery():
    connection = established()
    data = p_data(pdv(b"ABCDEF")) + p_data(pdv(b"GH")) + USER_ABORT
    assert len(feed(connection, data[:14])) == 1
    connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, 1.0)
    assert feed(connection, data[14:]) == []
    assert ended(connection)


def test_an_abort_is_possible_in_every_state():
    silent = acceptor()
    silent.abort(0, 0, 1.0)
    assert silent.data_to_send() == b""
    assert ended(silent)
    twice = established()
    twice.abort(0, 0, 1.0)
    assert twice.state is State.STA13_AWAITING_TRANSPORT_CLOSE
    twice.abort(0, 0, 1.0)
    assert twice.data_to_send() == USER_ABORT
    assert ended(twice)
    twice.abort(0, 0, 1.0)
    assert ended(twice)
    unopened = UpperLayerConnection(Role.REQUESTOR, max_pdu_length_local=MAX)
    unopened.request(request(), 0.0)
    unopened.abort(0, 0, 1.0)
    assert unopened.data_to_send() == b""
    assert ended(unopened)
    unused = UpperLayerConnection(Role.REQUESTOR)
    unused.abort(0, 0, 1.0)
    assert ended(unused)


@pytest.mark.parametrize("role", BOTH)
def test_a_lost_connection(role):
    connection = established(role)
    aborted, closed = connection.receive_eof(2.0)
    assert (aborted.source, aborted.reason, aborted.by_us) == (2, 0, True)
    assert "STA6_ESTABLISHED" in aborted.words
    assert closed == ConnectionClosed()
    assert ended(connection)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", UNRECOGNIZED),
        (RELEASE_RQ, UNEXPECTED),
        (p_data(pdv(b"A")), UNEXPECTED),
        (encode_pdu(REJECTED_CALLED_AE_TITLE), UNEXPECTED),
        (b"\x01\x00\xff\xff\xff\xff", INVALID),
        (encode_pdu(request())[:-3] + b"\xff\xff\xff", INVALID),
        (b"\x01\x00\x00\x00\x00\x46" + b"\x00\x01" + bytes(66) + b"\x10\x00", INVALID),
    ],
)
@pytest.mark.parametrize("step", [None, 1])
def test_what_is_no_request_is_told_so(data, answer, step):
    connection = acceptor()
    if answer == INVALID and len(data) > 100:
        # the last sub-item of a good request claims more than there is
        data = bytearray(encode_pdu(request()))
        data[-5] = 0xFF
        data = bytes(data)
    [fault] = feed(connection, data, now=5.0, step=step)
    assert isinstance(fault, ProtocolFault)
    assert connection.data_to_send() == answer
    assert (connection.state, connection.get_timer()) == (State.STA13_AWAITING_TRANSPORT_CLOSE, 5.0 + ARTIM)


def test_an_abort_before_any_request_just_ends():
    connection = acceptor()
    assert feed(connection, USER_ABORT) == []
    assert connection.data_to_send() == b""
    assert ended(connection)
    early = acceptor()
    assert early.receive_eof(1.0) == [ConnectionClosed()]
    assert ended(early)


@pytest.mark.parametrize("role", BOTH)
@pytest.mark.parametrize(
    "data", [encode_pdu(request()), encode_pdu(REJECTED_CALLED_AE_TITLE), RELEASE_RP], ids=["RQ", "RJ", "RP"]
)
def test_a_pdu_out_of_place_ends_an_established_association(role, data):
    connection = established(role)
    fault, aborted = feed(connection, data, now=5.0)
    assert isinstance(fault, ProtocolFault)
    assert fault.reason == aborted.reason == AbortReason.UNEXPECTED_PDU
    assert "is not expected in STA6_ESTABLISHED" in fault.words
    assert (aborted.source, aborted.by_us) == (AbortSource.SERVICE_PROVIDER, True)
    assert connection.data_to_send() == UNEXPECTED
    assert connection.get_timer() == 5.0 + ARTIM


def test_data_before_the_answer_ends_the_association():
    connection = acceptor()
    requested, fault, aborted = feed(connection, encode_pdu(request()) + p_data(pdv(b"A"), pdv(b"B")))
    assert isinstance(requested, AssociateRequested)
    assert fault.reason == aborted.reason == AbortReason.UNEXPECTED_PDU
    with pytest.raises(LocalProtocolError, match="EVT7"):
        connection.accept(accept(requested.request), 1.0)


def test_a_malformed_answer_ends_the_request():
    connection = requestor()
    connection.data_to_send()
    data = bytearray(
        encode_pdu(AssociateAC(presentation_contexts=(), user_information=UserInformation(maximum_length=0)))
    )
    data[-5] = 0xFF
    fault, _aborted = feed(connection, bytes(data))
    assert fault.reason is AbortReason.INVALID_PDU_PARAMETER_VALUE
    assert connection.data_to_send() == INVALID


def test_after_the_end_only_an_abort_a_request_and_garbage_are_heeded():
    connection = established()
    connection.abort(0, 0, 0.0)
    connection.data_to_send()
    ignored = p_data(pdv(b"A")) + RELEASE_RQ + RELEASE_RP + encode_pdu(REJECTED_CALLED_AE_TITLE)
    assert feed(connection, ignored) == []  # AA-6
    assert connection.data_to_send() == b""
    assert feed(connection, encode_pdu(request())) == []  # AA-7
    assert connection.data_to_send() == UNEXPECTED
    assert feed(connection, b"\x63\x00\x00\x00\x00\x00") == []  # AA-7
    assert connection.data_to_send() == UNRECOGNIZED
    assert connection.get_timer() == ARTIM
    assert feed(connection, USER_ABORT) == []  # AA-2
    assert ended(connection)


def test_a_peer_that_speaks_or_closes_before_we_asked():
    banner = UpperLayerConnection(Role.REQUESTOR)
    banner.connection_opened(0.0)
    [fault] = feed(banner, b"SSH-2.0-OpenSSH\r\n")
    assert "before an association was requested" in fault.words
    assert ended(banner)
    closed = UpperLayerConnection(Role.REQUESTOR)
    closed.connection_opened(0.0)
    assert closed.receive_eof(0.0) == [ConnectionClosed()]
    assert ended(closed)
    with pytest.raises(LocalProtocolError, match="once in a connection"):
        closed.request(request(), 0.0)


# --- what we may not ask


def test_what_we_ask_at_the_wrong_time_raises_and_changes_nothing():
    connection = acceptor()
    for wrong in (
        lambda: connection.send_p_data(b"x"),
        lambda: connection.release(0.0),
        lambda: connection.respond_to_release(0.0),
        lambda: connection.reject(REJECTED_CALLED_AE_TITLE, 0.0),
        lambda: connection.accept(accept(request()), 0.0),
        lambda: connection.request(request(), 0.0),
        lambda: connection.connection_opened(0.0),
    ):
        with pytest.raises(LocalProtocolError):
            wrong()
        assert connection.state is State.STA2_AWAITING_ASSOCIATE_RQ
        assert connection.data_to_send() == b""
    assert not connection.can_release
    assert not connection.can_respond_to_release
    assert not connection.can_send_p_data


def test_data_before_the_connection_is_open_is_our_fault():
    with pytest.raises(LocalProtocolError, match="connection_opened"):
        feed(UpperLayerConnection(Role.ACCEPTOR), RELEASE_RQ)


def test_a_connection_serves_one_association():
    connection = established(Role.REQUESTOR)
    feed(connection, USER_ABORT)
    for again in (
        lambda: connection.request(request(), 0.0),
        lambda: connection.connection_opened(0.0),
        lambda: connection.release(0.0),
    ):
        with pytest.raises(LocalProtocolError):
            again()


def test_what_is_announced_is_what_is_enforced():
    connection = acceptor()
    [event] = feed(connection, encode_pdu(request()))
    with pytest.raises(LocalProtocolError, match="announce is 8192"):
        connection.accept(accept(event.request, maximum_length=8192), 0.0)
    assert connection.state is State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE
    with pytest.raises(LocalProtocolError, match="announce"):
        UpperLayerConnection(Role.REQUESTOR, max_pdu_length_local=0).request(request(), 0.0)


def test_a_request_that_can_not_be_sent_changes_nothing():
    connection = UpperLayerConnection(Role.REQUESTOR, max_pdu_length_local=MAX)
    with pytest.raises(LocalProtocolError, match="AE title"):
        connection.request(request(called="FAR TOO LONG A TITLE"), 0.0)
    assert connection.state is State.STA1_IDLE
    connection.request(request(), 0.0)
