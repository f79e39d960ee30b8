"""Bytes from anyone on a connection: nothing raises, every split is the same, ARTIM keeps its rule, it always ends.

The first byte of an input chooses what the connection has been through, the second in which steps the bytes are
given (0: at once); all others are the peer's. The corpus in `corpus/pdu` holds what real senders send, and lies.
"""

import struct
import sys
from collections.abc import Callable

from stowkeeper.upperlayer.connection import UpperLayerConnection
from stowkeeper.upperlayer.decode import decode_pdu
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.errors import LocalProtocolError, PeerProtocolError
from stowkeeper.upperlayer.events import AssociateRequested, PDVFragment, UpperLayerEvent
from stowkeeper.upperlayer.items import ProposedContext, UserInformation
from stowkeeper.upperlayer.negotiation import (
    AcceptancePolicy,
    Accepted,
    Rejected,
    accepted_contexts,
    negotiate,
)
from stowkeeper.upperlayer.pdu import AssociateRQ, PDUType
from stowkeeper.upperlayer.states import Role, State

MAX_PDU_LENGTH = 4096
ARTIM_SECONDS = 10.0
POLICY = AcceptancePolicy(maximum_length=MAX_PDU_LENGTH, accept_unknown_transfer_syntaxes=True)
REQUEST = AssociateRQ(
    called_ae_title="STOWKEEPER",
    calling_ae_title="FUZZ",
    presentation_contexts=(
        ProposedContext(
            context_id=1,
            abstract_syntax="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntaxes=("1.2.840.10008.1.2",),
        ),
    ),
    user_information=UserInformation(maximum_length=MAX_PDU_LENGTH),
)
TIMED = {State.STA2_AWAITING_ASSOCIATE_RQ, State.STA13_AWAITING_TRANSPORT_CLOSE}


def target(data: bytes) -> None:
    """Raise only on a defect of ours."""
    if len(data) < 2:
        return
    situation, step, stream = data[0] % len(SITUATIONS), data[1], data[2:]
    at_once = run(SITUATIONS[situation](), stream, len(stream))
    assert run(SITUATIONS[situation](), stream, step or 1) == at_once
    check_codec(stream)


# What a connection has been through.


def _acceptor() -> UpperLayerConnection:
    connection = UpperLayerConnection(
        Role.ACCEPTOR, max_pdu_length_local=MAX_PDU_LENGTH, artim_seconds=ARTIM_SECONDS
    )
    connection.connection_opened(0.0)
    return connection


def _requestor() -> UpperLayerConnection:
    connection = UpperLayerConnection(
        Role.REQUESTOR, max_pdu_length_local=MAX_PDU_LENGTH, artim_seconds=ARTIM_SECONDS
    )
    connection.request(REQUEST, 0.0)
    connection.connection_opened(0.0)
    return connection


def _established_acceptor() -> UpperLayerConnection:
    connection = _acceptor()
    answer(connection, connection.receive_data(memoryview(encode_pdu(REQUEST)), 0.0))
    assert connection.state is State.STA6_ESTABLISHED
    return connection


def _established_requestor() -> UpperLayerConnection:
    connection = _requestor()
    accepted = negotiate(REQUEST, POLICY)
    assert isinstance(accepted, Accepted)
    connection.receive_data(memoryview(encode_pdu(accepted.response)), 0.0)
    assert connection.state is State.STA6_ESTABLISHED
    return connection


def _releasing_acceptor() -> UpperLayerConnection:
    connection = _established_acceptor()
    connection.release(0.0)
    return connection


def _releasing_requestor() -> UpperLayerConnection:
    connection = _established_requestor()
    connection.release(0.0)
    return connection


SITUATIONS: tuple[Callable[[], UpperLayerConnection], ...] = (
    _acceptor,
    _established_acceptor,
    _requestor,
    _established_requestor,
    _releasing_acceptor,
    _releasing_requestor,
)


# What is held to be true of it.


def run(connection: UpperLayerConnection, stream: bytes, step: int) -> list[object]:
    """Give a stream to a connection and bring that to its end; return what the user was told."""
    told: list[object] = []
    for at in range(0, len(stream), max(step, 1)):
        events = connection.receive_data(memoryview(stream[at : at + step]), 1.0)
        for event in events:
            if isinstance(event, PDVFragment):
                assert event.context_id in connection.accepted_contexts
                assert len(event.data) > 0 or (event.starts and event.ends)
        collect(told, events)
        deadline = connection.get_timer()
        assert (deadline is not None) == (connection.state in TIMED)
        assert connection.close_expected == (connection.state is State.STA1_IDLE)
    requested = [event for event in told if isinstance(event, AssociateRequested)]
    answer(connection, requested)
    if not connection.close_expected:
        connection.abort(0, 0, 2.0)
    connection.handle_timer(2.0 + ARTIM_SECONDS)
    assert connection.close_expected
    assert connection.get_timer() is None
    assert connection.receive_data(memoryview(stream), 99.0) == []
    connection.data_to_send()
    return told


def collect(told: list[object], events: list[UpperLayerEvent]) -> None:
    """Add events, with the pieces of each PDV put together."""
    for event in events:
        if not isinstance(event, PDVFragment):
            told.append(event)
        elif event.starts:
            told.append((event.context_id, event.is_command, event.is_last, bytearray(event.data)))
        else:
            begun = told[-1]
            assert isinstance(begun, tuple)
            assert begun[:3] == (event.context_id, event.is_command, event.is_last)
            begun[3].extend(event.data)


def answer(
    connection: UpperLayerConnection, events: list[AssociateRequested] | list[UpperLayerEvent]
) -> None:
    """Answer a request as the policy says; that can always be done and be sent."""
    for event in events:
        if isinstance(event, AssociateRequested):
            decision = negotiate(event.request, POLICY)
            if connection.state is not State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE:
                continue
            if isinstance(decision, Rejected):
                connection.reject(decision.rejection, 1.0)
            else:
                connection.accept(decision.response, 1.0)
                assert dict(connection.accepted_contexts) == dict(
                    accepted_contexts(event.request, decision.response)
                )


def check_codec(stream: bytes) -> None:
    """What decodes and can be sent at all comes back the same."""
    for pdu_type in PDUType:
        try:
            pdu = decode_pdu(pdu_type, memoryview(stream)[6:])
        except PeerProtocolError:
            continue
        repr(pdu)
        try:
            encoded = encode_pdu(pdu)
        except LocalProtocolError:
            continue  # a secret was dropped; or an item that was full grew by what was missing in it
        length = struct.unpack_from(">I", encoded, 2)[0]
        assert length == len(encoded) - 6
        again = decode_pdu(pdu_type, memoryview(encoded)[6:])
        assert again == pdu


def main() -> None:
    try:
        import atheris  # type: ignore[import-untyped]  # noqa: PLC0415 - untyped; the corpus is replayed without it
    except ImportError:
        sys.exit("This fuzzer needs atheris: pip install atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
