"""The actions of PS3.8 Tables 9-6 to 9-9, as functions from a cause to effects.

An action touches nothing: it says which bytes to send, what to tell the user, what to do with the ARTIM timer,
and which state is next. `UpperLayerConnection` carries that out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, TypeVar

from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.errors import LocalProtocolError, PeerProtocolError
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
    UpperLayerEvent,
)
from stowkeeper.upperlayer.negotiation import provider_rejection
from stowkeeper.upperlayer.pdu import (
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    ReleaseRP,
    ReleaseRQ,
)
from stowkeeper.upperlayer.reasons import AbortReason, AbortSource
from stowkeeper.upperlayer.states import Action, Event, Role, State


class Timer(Enum):
    """What an action does to the ARTIM timer."""

    KEEP = auto()
    START = auto()  # from the beginning, if it runs already
    STOP = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What an action has to go by.

    `pdu` is the one that came, or the one that our user wants sent. `fault` is what is wrong with a PDU that was
    malformed or came out of place: an abort by the upper layer tells it to the peer.
    """

    event: Event
    state: State
    role: Role
    pdu: PDU | None = None
    fault: PeerProtocolError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What an action wants done.

    `next_state` is given only by the two actions that choose one; all others lead where Table 9-10 says.
    """

    send: bytes = b""
    events: tuple[UpperLayerEvent, ...] = ()
    timer: Timer = Timer.KEEP
    next_state: State | None = None


def perform(action: Action, cause: Cause) -> Effects:
    """Work out the effects of an action.

    Raises LocalProtocolError when the PDU that our user wants sent can't be encoded.
    """
    return _ACTIONS[action](cause)


_PDUKind = TypeVar("_PDUKind", AssociateRQ, AssociateAC, AssociateRJ, Abort)


def _given(cause: Cause, kind: type[_PDUKind]) -> _PDUKind:
    if not isinstance(cause.pdu, kind):
        raise LocalProtocolError(f"{cause.event.name} came without its {kind.__name__}")
    return cause.pdu


def _nothing(_cause: Cause) -> Effects:
    # AE-1: the transport connection is opened by whoever owns this machine. DT-1, DT-2, AR-6, AR-7: fragments are
    # events already when they come, and whole PDUs in bytes when they go. AA-6: the PDU is ignored.
    return Effects()


# --- association establishment, Table 9-6


def _ae_2(cause: Cause) -> Effects:
    return Effects(send=encode_pdu(_given(cause, AssociateRQ)))


def _ae_3(cause: Cause) -> Effects:
    return Effects(events=(AssociateAccepted(response=_given(cause, AssociateAC)),))


def _ae_4(cause: Cause) -> Effects:
    return Effects(events=(AssociateRejected(rejection=_given(cause, AssociateRJ)),))


def _ae_5(_cause: Cause) -> Effects:
    return Effects(timer=Timer.START)


def _ae_6(cause: Cause) -> Effects:
    request = _given(cause, AssociateRQ)
    rejection = provider_rejection(request)
    if rejection is None:
        return Effects(
            events=(AssociateRequested(request=request),),
            timer=Timer.STOP,
            next_state=State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE,
        )
    return Effects(
        send=encode_pdu(rejection),
        events=(AssociateRefused(request=request, rejection=rejection),),
        timer=Timer.START,
        next_state=State.STA13_AWAITING_TRANSPORT_CLOSE,
    )


def _ae_7(cause: Cause) -> Effects:
    return Effects(send=encode_pdu(_given(cause, AssociateAC)))


def _ae_8(cause: Cause) -> Effects:
    return Effects(send=encode_pdu(_given(cause, AssociateRJ)), timer=Timer.START)


# --- association release, Table 9-8


def _ar_1(_cause: Cause) -> Effects:
    return Effects(send=encode_pdu(ReleaseRQ()))


def _ar_2(_cause: Cause) -> Effects:
    return Effects(events=(ReleaseRequested(),))


def _ar_3(_cause: Cause) -> Effects:
    return Effects(events=(ReleaseConfirmed(),))


def _ar_4(_cause: Cause) -> Effects:
    return Effects(send=encode_pdu(ReleaseRP()), timer=Timer.START)


def _ar_5(_cause: Cause) -> Effects:
    return Effects(events=(ConnectionClosed(),), timer=Timer.STOP)


def _ar_8(cause: Cause) -> Effects:
    return Effects(
        events=(ReleaseRequested(is_collision=True),),
        next_state=(
            State.STA9_COLLISION_REQUESTOR_AWAITING_LOCAL_RESPONSE
            if cause.role is Role.REQUESTOR
            else State.STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP
        ),
    )


def _ar_9(_cause: Cause) -> Effects:
    return Effects(send=encode_pdu(ReleaseRP()))


def _ar_10(_cause: Cause) -> Effects:
    return Effects(events=(ReleaseConfirmed(),))


# --- association abort, Table 9-9


def _aa_1(cause: Cause) -> Effects:
    # Table 9-9 names the service user as the source. That holds when our user aborts; when a peer's PDU is the
    # cause, in Sta2, there is no user yet, and only with the provider as source may the reason tell the peer
    # what was wrong (PS3.8 §9.3.8).
    if cause.fault is None:
        return Effects(send=encode_pdu(_given(cause, Abort)), timer=Timer.START)
    fault = cause.fault
    return Effects(
        send=_provider_abort(fault),
        events=(ProtocolFault(reason=fault.reason, words=fault.text),),
        timer=Timer.START,
    )


def _aa_2(cause: Cause) -> Effects:
    expired = cause.event is Event.EVT18_ARTIM_EXPIRED
    return Effects(events=(ARTIMExpired(state=cause.state),) if expired else (), timer=Timer.STOP)


def _aa_3(cause: Cause) -> Effects:
    abort = _given(cause, Abort)
    aborted = Aborted(source=abort.source, reason=abort.reason, by_us=False, words=abort.words)
    return Effects(events=(aborted,))


def _aa_4(cause: Cause) -> Effects:
    aborted = Aborted(
        source=AbortSource.SERVICE_PROVIDER,
        reason=AbortReason.NOT_SPECIFIED,
        by_us=True,
        words=f"the connection was closed or lost in {cause.state.name}",
    )
    return Effects(events=(aborted, ConnectionClosed()))


def _aa_5(_cause: Cause) -> Effects:
    return Effects(events=(ConnectionClosed(),), timer=Timer.STOP)


def _aa_7(cause: Cause) -> Effects:
    return Effects(send=_provider_abort(_fault_of(cause)))


def _aa_8(cause: Cause) -> Effects:
    fault = _fault_of(cause)
    aborted = Aborted(source=AbortSource.SERVICE_PROVIDER, reason=fault.reason, by_us=True, words=fault.text)
    return Effects(
        send=_provider_abort(fault),
        events=(ProtocolFault(reason=fault.reason, words=fault.text), aborted),
        timer=Timer.START,
    )


def _fault_of(cause: Cause) -> PeerProtocolError:
    if cause.fault is None:
        raise LocalProtocolError(f"{cause.event.name} came without the fault to tell the peer")
    return cause.fault


def _provider_abort(fault: PeerProtocolError) -> bytes:
    return encode_pdu(Abort(source=AbortSource.SERVICE_PROVIDER, reason=fault.reason))


_ACTIONS: Final[Mapping[Action, Callable[[Cause], Effects]]] = MappingProxyType(
    {
        Action.AE_1_CONNECT: _nothing,
        Action.AE_2_SEND_ASSOCIATE_RQ: _ae_2,
        Action.AE_3_CONFIRM_ACCEPTANCE: _ae_3,
        Action.AE_4_CONFIRM_REJECTION: _ae_4,
        Action.AE_5_START_ARTIM: _ae_5,
        Action.AE_6_INDICATE_OR_REJECT: _ae_6,
        Action.AE_7_SEND_ASSOCIATE_AC: _ae_7,
        Action.AE_8_SEND_ASSOCIATE_RJ: _ae_8,
        Action.DT_1_SEND_P_DATA: _nothing,
        Action.DT_2_INDICATE_P_DATA: _nothing,
        Action.AR_1_SEND_RELEASE_RQ: _ar_1,
        Action.AR_2_INDICATE_RELEASE: _ar_2,
        Action.AR_3_CONFIRM_RELEASE_AND_CLOSE: _ar_3,
        Action.AR_4_SEND_RELEASE_RP: _ar_4,
        Action.AR_5_STOP_ARTIM: _ar_5,
        Action.AR_6_INDICATE_P_DATA: _nothing,
        Action.AR_7_SEND_P_DATA: _nothing,
        Action.AR_8_INDICATE_RELEASE_COLLISION: _ar_8,
        Action.AR_9_SEND_RELEASE_RP: _ar_9,
        Action.AR_10_CONFIRM_RELEASE: _ar_10,
        Action.AA_1_SEND_ABORT: _aa_1,
        Action.AA_2_CLOSE: _aa_2,
        Action.AA_3_INDICATE_ABORT_AND_CLOSE: _aa_3,
        Action.AA_4_INDICATE_PROVIDER_ABORT: _aa_4,
        Action.AA_5_STOP_ARTIM: _aa_5,
        Action.AA_6_IGNORE: _nothing,
        Action.AA_7_SEND_ABORT_AGAIN: _aa_7,
        Action.AA_8_ABORT_AS_PROVIDER: _aa_8,
    }
)
