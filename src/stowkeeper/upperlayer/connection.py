"""One association, both roles, without I/O: bytes in, events out, bytes out (PS3.8 §9).

    acceptor    connection_opened → AssociateRequested → accept or reject → …
    requestor   request and connection_opened, in either order → AssociateAccepted or AssociateRejected → …
    both        receive_data, send_p_data, release, respond_to_release, abort, receive_eof, handle_timer

The owner moves bytes: it writes what `data_to_send` gives after every call, closes the transport when
`close_expected` is set and all is written, and calls `handle_timer` when `get_timer` is due. Time is an argument,
in seconds of any clock that does not go backwards.

Every event goes through Table 9-10 (`states`), every effect comes from its action (`actions`). The one short cut
is P-DATA: fragments pass straight through in the states in which the table says that P-DATA is indicated.

What a peer sends never raises. `LocalProtocolError` is raised for what we ask of a connection at the wrong time;
it leaves the connection as it was.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, cast

from stowkeeper.upperlayer.actions import Cause, Timer, perform
from stowkeeper.upperlayer.decode import decode_pdu
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.errors import LocalProtocolError, PeerProtocolError
from stowkeeper.upperlayer.events import ConnectionClosed, PDVFragment, ProtocolFault, UpperLayerEvent
from stowkeeper.upperlayer.items import SYNCHRONOUS, AsynchronousOperationsWindow, UserInformation
from stowkeeper.upperlayer.limits import (
    ARTIM_SECONDS_DEFAULT,
    MAX_PDU_LENGTH_LOCAL_DEFAULT,
    PDU_LENGTH_PEER_IF_UNSAID,
)
from stowkeeper.upperlayer.negotiation import AcceptedContext, accepted_contexts, effective_max_pdu_length
from stowkeeper.upperlayer.pdu import PDU, Abort, AssociateAC, AssociateRJ, AssociateRQ, PDUType
from stowkeeper.upperlayer.pdu_reader import Framed, MalformedPDU, PDUReader, WholePDU, context_not_accepted
from stowkeeper.upperlayer.reasons import AbortReason
from stowkeeper.upperlayer.states import (
    P_DATA_IS_DELIVERED,
    P_DATA_IS_IGNORED,
    P_DATA_IS_SENDABLE,
    TRANSITIONS,
    Action,
    Event,
    Role,
    State,
    transition,
)

_EVENT_OF_PDU: Final = MappingProxyType(
    {
        PDUType.A_ASSOCIATE_RQ: Event.EVT6_A_ASSOCIATE_RQ,
        PDUType.A_ASSOCIATE_AC: Event.EVT3_A_ASSOCIATE_AC,
        PDUType.A_ASSOCIATE_RJ: Event.EVT4_A_ASSOCIATE_RJ,
        PDUType.A_RELEASE_RQ: Event.EVT12_A_RELEASE_RQ,
        PDUType.A_RELEASE_RP: Event.EVT13_A_RELEASE_RP,
        PDUType.A_ABORT: Event.EVT16_A_ABORT,
    }
)

_READS_CONTENT: Final = frozenset(
    {
        Action.AE_3_CONFIRM_ACCEPTANCE,
        Action.AE_4_CONFIRM_REJECTION,
        Action.AE_6_INDICATE_OR_REJECT,
        Action.AA_3_INDICATE_ABORT_AND_CLOSE,
    }
)
"""Actions for which a PDU is decoded. Where it is ignored or out of place its content is no matter, and no peer
can make us work on it."""

_NO_CONTEXTS: Final[Mapping[int, AcceptedContext]] = MappingProxyType({})


class UpperLayerConnection:
    """The upper layer of one association.

    `max_pdu_length_local` (bytes, 0 for unlimited) is the maximum length to announce; a P-DATA-TF beyond it ends
    the association. `artim_seconds` is the time that a peer has for its request, and for closing at the end.
    """

    __slots__ = (
        "_accepted_contexts",
        "_artim_deadline",
        "_artim_seconds",
        "_delivers",
        "_has_ended",
        "_max_pdu_length_local",
        "_max_pdu_length_peer",
        "_operations_window",
        "_out",
        "_reader",
        "_release_response_is_waiting",
        "_request",
        "_role",
        "_sends",
        "_state",
        "_transport_is_open",
    )

    def __init__(
        self,
        role: Role,
        *,
        max_pdu_length_local: int = MAX_PDU_LENGTH_LOCAL_DEFAULT,
        artim_seconds: float = ARTIM_SECONDS_DEFAULT,
    ) -> None:
        self._role = role
        self._max_pdu_length_local = max_pdu_length_local
        self._artim_seconds = artim_seconds
        self._artim_deadline: float | None = None
        self._state = State.STA1_IDLE
        self._delivers = False  # the state is one of P_DATA_IS_DELIVERED
        self._sends = False  # likewise of P_DATA_IS_SENDABLE
        self._has_ended = False
        self._transport_is_open = False
        self._reader = PDUReader(p_data_length_max=max_pdu_length_local)
        self._out: list[bytes] = []
        self._request: AssociateRQ | None = None
        self._accepted_contexts = _NO_CONTEXTS
        self._max_pdu_length_peer = PDU_LENGTH_PEER_IF_UNSAID
        self._operations_window = SYNCHRONOUS
        self._release_response_is_waiting = False

    # --- what it is

    @property
    def role(self) -> Role:
        """Our side of the association."""
        return self._role

    @property
    def state(self) -> State:
        """The state of PS3.8 §9.2."""
        return self._state

    @property
    def association_request(self) -> AssociateRQ | None:
        """The A-ASSOCIATE-RQ of this association, ours or the peer's."""
        return self._request

    @property
    def accepted_contexts(self) -> Mapping[int, AcceptedContext]:
        """The presentation contexts that were accepted, by id; empty until the association is established."""
        return self._accepted_contexts

    @property
    def max_pdu_length_local(self) -> int:
        """The maximum length that we announce, in bytes; 0 for unlimited."""
        return self._max_pdu_length_local

    @property
    def max_pdu_length_peer(self) -> int:
        """The longest P-DATA-TF that may be sent to the peer, in bytes of the PDU-length field.

        Even, 8 at least, and bounded where the peer has no bound: see `effective_max_pdu_length`.
        """
        return self._max_pdu_length_peer

    @property
    def operations_window(self) -> AsynchronousOperationsWindow:
        """How many operations the requestor may have outstanding; one each way when none was agreed."""
        return self._operations_window

    @property
    def can_send_p_data(self) -> bool:
        """Whether `send_p_data` is possible now."""
        return self._sends

    @property
    def can_release(self) -> bool:
        """Whether `release` is possible now."""
        return (self._state, Event.EVT11_A_RELEASE_REQUEST) in TRANSITIONS

    @property
    def can_respond_to_release(self) -> bool:
        """Whether the peer waits for `respond_to_release`."""
        return (
            self._state is State.STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP
            or (self._state, Event.EVT14_A_RELEASE_RESPONSE) in TRANSITIONS
        )

    @property
    def is_mid_pdu(self) -> bool:
        """Whether the peer began a PDU and did not finish it yet."""
        return self._reader.is_mid_pdu

    @property
    def close_expected(self) -> bool:
        """Whether the association is over and the transport is to be closed once all is written."""
        return self._has_ended

    # --- the transport

    def connection_opened(self, now: float) -> None:
        """Tell that the transport connection is open.

        An acceptor waits for the request from here on, a requestor sends its own as soon as it has one.
        """
        if self._role is Role.ACCEPTOR:
            self._take(Event.EVT5_TRANSPORT_INDICATED, now)
        elif self._request is not None or self._transport_is_open or self._has_ended:
            self._take(Event.EVT2_TRANSPORT_CONFIRMED, now, pdu=self._request)
        # Otherwise there is nothing to send yet, and `request` goes on from here.
        self._transport_is_open = True

    def receive_data(self, data: memoryview, now: float) -> list[UpperLayerEvent]:
        """Take bytes from the peer, split anywhere, and tell what they mean.

        `PDVFragment.data` are views into `data`. After the end of the association whatever comes is dropped.
        """
        if self._delivers:
            framed = self._reader.read(data)
            if self._reader.fragments_only:
                return cast("list[UpperLayerEvent]", framed)
            return self._process(framed, now)
        if self._has_ended:
            return []
        if not self._transport_is_open:
            raise LocalProtocolError("data came before connection_opened was called")
        if self._state is State.STA1_IDLE:
            self._has_ended = True
            words = "the peer spoke before an association was requested"
            return [ProtocolFault(reason=AbortReason.UNEXPECTED_PDU, words=words)]
        return self._process(self._reader.read(data), now)

    def receive_eof(self, now: float) -> list[UpperLayerEvent]:
        """Tell that the transport connection was closed by the peer, was lost, or could not be opened."""
        if self._has_ended:
            return []
        if self._state is State.STA1_IDLE:
            self._has_ended = True
            return [ConnectionClosed()]
        return self._take(Event.EVT17_TRANSPORT_CLOSED, now)

    def data_to_send(self) -> bytes:
        """Hand over the bytes to be written, once."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due; None when the ARTIM timer does not run."""
        return self._artim_deadline

    def handle_timer(self, now: float) -> list[UpperLayerEvent]:
        """Act on the ARTIM timer if it is due."""
        if self._artim_deadline is None or now < self._artim_deadline:
            return []
        return self._take(Event.EVT18_ARTIM_EXPIRED, now)

    # --- what our user asks for

    def request(self, request: AssociateRQ, now: float) -> None:
        """Ask for an association, as requestor (A-ASSOCIATE request)."""
        if self._role is not Role.REQUESTOR or self._has_ended:
            raise LocalProtocolError("only a requestor asks for an association, once in a connection")
        self._check_announced(request.user_information)
        encode_pdu(request)  # what can't be sent is found before anything has changed
        self._take(Event.EVT1_A_ASSOCIATE_REQUEST, now)
        self._request = request
        if self._transport_is_open:
            self._take(Event.EVT2_TRANSPORT_CONFIRMED, now, pdu=request)

    def accept(self, response: AssociateAC, now: float) -> None:
        """Accept the association that the peer asked for (A-ASSOCIATE response)."""
        self._check_announced(response.user_information)
        self._take(Event.EVT7_A_ASSOCIATE_ACCEPT, now, pdu=response)
        self._establish(response)

    def reject(self, rejection: AssociateRJ, now: float) -> None:
        """Reject the association that the peer asked for (A-ASSOCIATE response)."""
        self._take(Event.EVT8_A_ASSOCIATE_REJECT, now, pdu=rejection)

    def send_p_data(self, pdus: bytes) -> None:
        """Send whole P-DATA-TF PDUs, encoded within `max_pdu_length_peer` (P-DATA request)."""
        if not self._sends:
            transition(self._state, Event.EVT9_P_DATA_REQUEST)
        self._out.append(pdus)

    def release(self, now: float) -> None:
        """Ask the peer to end the association (A-RELEASE request). Data that still comes is delivered."""
        self._take(Event.EVT11_A_RELEASE_REQUEST, now)

    def respond_to_release(self, now: float) -> None:
        """Agree to end the association (A-RELEASE response).

        When both sides asked at once, an acceptor may not answer before the requestor did (Sta10): the answer
        is then kept, and goes out in its turn.
        """
        if self._state is State.STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP:
            self._release_response_is_waiting = True
            return
        self._take(Event.EVT14_A_RELEASE_RESPONSE, now)

    def abort(self, source: int, reason: int, now: float) -> None:
        """End at once, whatever the state (A-ABORT request).

        An association, or one under way, is ended by an A-ABORT, whose reason tells the peer something only when
        the source is the service provider. Where there is none (Sta2, Sta13) the transport is to be closed, and
        after the end nothing happens.
        """
        if (self._state, Event.EVT15_A_ABORT_REQUEST) in TRANSITIONS:
            self._take(Event.EVT15_A_ABORT_REQUEST, now, pdu=Abort(source=source, reason=reason))
        elif self._state is not State.STA1_IDLE:
            self._take(Event.EVT17_TRANSPORT_CLOSED, now)
        self._has_ended = self._has_ended or self._state is State.STA1_IDLE

    # --- the state machine

    def _take(
        self, event: Event, now: float, *, pdu: PDU | None = None, fault: PeerProtocolError | None = None
    ) -> list[UpperLayerEvent]:
        """Take one event through Table 9-10 and carry out the effects of its action."""
        if self._has_ended:
            raise LocalProtocolError(f"{event.name} has no place after the association ended")
        cell = transition(self._state, event)
        effects = perform(
            cell.action, Cause(event=event, state=self._state, role=self._role, pdu=pdu, fault=fault)
        )
        self._state = cell.next_states[0] if effects.next_state is None else effects.next_state
        self._delivers = self._state in P_DATA_IS_DELIVERED
        self._sends = self._state in P_DATA_IS_SENDABLE
        self._has_ended = self._state is State.STA1_IDLE
        if self._state in P_DATA_IS_IGNORED:
            self._reader.ignore_p_data()
        if effects.timer is Timer.START:
            self._artim_deadline = now + self._artim_seconds
        elif effects.timer is Timer.STOP:
            self._artim_deadline = None
        if effects.send:
            self._out.append(effects.send)
        return list(effects.events)

    def _process(self, framed: list[Framed], now: float) -> list[UpperLayerEvent]:
        events: list[UpperLayerEvent] = []
        for item in framed:
            if self._has_ended:
                break
            match item:
                case PDVFragment():
                    events += self._receive_fragment(item, now)
                case WholePDU():
                    events += self._receive_pdu(item, now)
                case MalformedPDU():
                    events += self._take(Event.EVT19_INVALID_PDU, now, fault=item.fault)
        return events

    def _receive_fragment(self, fragment: PDVFragment, now: float) -> list[UpperLayerEvent]:
        if self._delivers and fragment.context_id in self._accepted_contexts:
            return [fragment]
        if not fragment.starts or self._state in P_DATA_IS_IGNORED:
            return []
        if self._delivers:
            # Read together with the A-ASSOCIATE-AC, when the reader did not know the contexts yet.
            return self._take(Event.EVT19_INVALID_PDU, now, fault=context_not_accepted(fragment.context_id))
        return self._take(Event.EVT10_P_DATA_TF, now, fault=self._unexpected(PDUType.P_DATA_TF))

    def _receive_pdu(self, received: WholePDU, now: float) -> list[UpperLayerEvent]:
        event = _EVENT_OF_PDU[received.pdu_type]
        action = transition(self._state, event).action
        if action not in _READS_CONTENT:
            events = self._take(event, now, fault=self._unexpected(received.pdu_type))
            if action is Action.AR_10_CONFIRM_RELEASE and self._release_response_is_waiting:
                events += self._take(Event.EVT14_A_RELEASE_RESPONSE, now)
            return events
        try:
            pdu = decode_pdu(received.pdu_type, received.body)
        except PeerProtocolError as fault:
            return self._take(Event.EVT19_INVALID_PDU, now, fault=fault)
        events = self._take(event, now, pdu=pdu)
        match pdu:
            case AssociateRQ():
                self._request = pdu
            case AssociateAC():
                self._establish(pdu)
        return events

    def _unexpected(self, pdu_type: PDUType) -> PeerProtocolError:
        return PeerProtocolError(
            AbortReason.UNEXPECTED_PDU, f"{pdu_type} is not expected in {self._state.name}"
        )

    def _establish(self, response: AssociateAC) -> None:
        """Note what was agreed."""
        if self._request is None:
            raise LocalProtocolError("an association can't be established without its request")
        self._accepted_contexts = accepted_contexts(self._request, response)
        self._reader.context_ids = frozenset(self._accepted_contexts)
        peer = (self._request if self._role is Role.ACCEPTOR else response).user_information
        self._max_pdu_length_peer = effective_max_pdu_length(peer.maximum_length)
        self._operations_window = response.user_information.operations_window or SYNCHRONOUS

    def _check_announced(self, ours: UserInformation) -> None:
        if ours.maximum_length != self._max_pdu_length_local:
            raise LocalProtocolError(
                f"the maximum length to announce is {ours.maximum_length}, but this connection holds the peer to"
                f" {self._max_pdu_length_local}: give both the same"
            )
