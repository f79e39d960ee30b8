"""PDUs to bytes (PS3.8 §9.3, PS3.7 §D.3.3). Reserved fields are sent as zeros, as the standard asks.

A value that does not fit its field raises `LocalProtocolError`: nothing is cut or bent to fit.
"""

import struct
from collections.abc import Iterable

from stowkeeper.dicom.ae_title import AETitleError, encode_ae_title
from stowkeeper.upperlayer.errors import LocalProtocolError
from stowkeeper.upperlayer.items import (
    ContextResult,
    OutgoingUserIdentity,
    ProposedContext,
    RoleSelection,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserInformation,
)
from stowkeeper.upperlayer.pdu import (
    ECHOED_FIELDS_LENGTH,
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    PDUType,
    ReleaseRP,
    ReleaseRQ,
)

_UINT16_MAX = 0xFFFF


def encode_pdu(pdu: PDU) -> bytes:
    """Encode a PDU, its header included.

    Raises LocalProtocolError when a value has no place in its field.
    """
    try:
        return _encode(pdu)
    except struct.error as error:
        raise LocalProtocolError(f"a number in the {pdu} does not fit its field: {error}") from error
    except AETitleError as error:
        raise LocalProtocolError(str(error)) from error


def _encode(pdu: PDU) -> bytes:
    match pdu:
        case AssociateRQ():
            return _associate_rq(pdu)
        case AssociateAC():
            return _associate_ac(pdu)
        case AssociateRJ():
            return _pdu(PDUType.A_ASSOCIATE_RJ, struct.pack(">xBBB", pdu.result, pdu.source, pdu.reason))
        case PDataTF():
            return _p_data_tf(pdu)
        case ReleaseRQ():
            return _pdu(PDUType.A_RELEASE_RQ, bytes(4))
        case ReleaseRP():
            return _pdu(PDUType.A_RELEASE_RP, bytes(4))
        case Abort():
            return _pdu(PDUType.A_ABORT, struct.pack(">xxBB", pdu.source, pdu.reason))


def _pdu(pdu_type: PDUType, body: bytes) -> bytes:
    return struct.pack(">BxI", pdu_type, len(body)) + body


def _item(item_type: int, content: bytes, second: int = 0) -> bytes:
    if len(content) > _UINT16_MAX:
        raise LocalProtocolError(
            f"item {item_type:02X}H would hold {len(content)} bytes, {_UINT16_MAX} fit: propose less"
        )
    return struct.pack(">BBH", item_type, second, len(content)) + content


def _sized(content: bytes) -> bytes:
    """Put a field behind its own length of two bytes."""
    return struct.pack(">H", len(content)) + content


def _uid(uid: str) -> bytes:
    """Encode a UID as it is: in these items it is not padded (PS3.8 Annex F)."""
    try:
        return uid.encode("latin-1")
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{uid!r} has characters that no UID has") from error


# --- A-ASSOCIATE-RQ and -AC


def _associate_rq(request: AssociateRQ) -> bytes:
    return _pdu(
        PDUType.A_ASSOCIATE_RQ,
        b"".join(
            (
                struct.pack(">Hxx", request.protocol_version),
                encode_ae_title(request.called_ae_title),
                encode_ae_title(request.calling_ae_title),
                bytes(32),
                _item(0x10, _uid(request.application_context)),
                *(_proposed_context(context) for context in request.presentation_contexts),
                _item(0x50, b"".join(_user_information(request.user_information))),
            )
        ),
    )


def _associate_ac(response: AssociateAC) -> bytes:
    if len(response.echoed_fields) != ECHOED_FIELDS_LENGTH:
        raise LocalProtocolError(
            f"an A-ASSOCIATE-AC returns {ECHOED_FIELDS_LENGTH} bytes of the request,"
            f" not {len(response.echoed_fields)}: use AssociateRQ.fields_to_echo()"
        )
    return _pdu(
        PDUType.A_ASSOCIATE_AC,
        b"".join(
            (
                struct.pack(">Hxx", response.protocol_version),
                response.echoed_fields,
                _item(0x10, _uid(response.application_context)),
                *(_context_result(result) for result in response.presentation_contexts),
                _item(0x50, b"".join(_user_information(response.user_information))),
            )
        ),
    )


def _proposed_context(context: ProposedContext) -> bytes:
    return _item(
        0x20,
        b"".join(
            (
                struct.pack(">Bxxx", context.context_id),
                _item(0x30, _uid(context.abstract_syntax)),
                *(_item(0x40, _uid(uid)) for uid in context.transfer_syntaxes),
            )
        ),
    )


def _context_result(result: ContextResult) -> bytes:
    return _item(
        0x21,
        struct.pack(">BxBx", result.context_id, result.result) + _item(0x40, _uid(result.transfer_syntax)),
    )


# --- user information


def _user_information(information: UserInformation) -> Iterable[bytes]:
    """Yield the sub-items in the order of their types."""
    if information.maximum_length is not None:
        yield _item(0x51, struct.pack(">I", information.maximum_length))
    if information.implementation_class_uid is not None:
        yield _item(0x52, _uid(information.implementation_class_uid))
    if (window := information.operations_window) is not None:
        yield _item(0x53, struct.pack(">HH", window.invoked, window.performed))
    yield from (_role_selection(selection) for selection in information.role_selections)
    if information.implementation_version_name is not None:
        yield _item(0x55, _uid(information.implementation_version_name))
    yield from (_extended(negotiation) for negotiation in information.extended_negotiations)
    yield from (_common_extended(negotiation) for negotiation in information.common_extended_negotiations)
    if information.user_identity is not None:
        yield _user_identity(information.user_identity)
    if (response := information.user_identity_response) is not None:
        if response.server_response_length:
            raise LocalProtocolError(
                "the server response of a user identity was dropped, it can't be sent on"
            )
        yield _item(0x59, _sized(b""))


def _role_selection(selection: RoleSelection) -> bytes:
    roles = struct.pack(">BB", selection.scu_role, selection.scp_role)
    return _item(0x54, _sized(_uid(selection.sop_class_uid)) + roles)


def _extended(negotiation: SOPClassExtendedNegotiation) -> bytes:
    return _item(0x56, _sized(_uid(negotiation.sop_class_uid)) + negotiation.application_information)


def _common_extended(negotiation: SOPClassCommonExtendedNegotiation) -> bytes:
    related = b"".join(_sized(_uid(uid)) for uid in negotiation.related_general_sop_class_uids)
    return _item(
        0x57,
        _sized(_uid(negotiation.sop_class_uid))
        + _sized(_uid(negotiation.service_class_uid))
        + _sized(related),
        second=negotiation.version,
    )


def _user_identity(identity: UserIdentity | OutgoingUserIdentity) -> bytes:
    if isinstance(identity, UserIdentity):
        raise LocalProtocolError(
            "a received user identity has no secret any more and can't be sent: build an OutgoingUserIdentity"
        )
    return _item(
        0x58,
        struct.pack(">BB", identity.type, identity.response_requested)
        + _sized(identity.primary)
        + _sized(identity.secondary),
    )


# --- P-DATA-TF


def _p_data_tf(pdu: PDataTF) -> bytes:
    if not pdu.pdvs:
        raise LocalProtocolError("a P-DATA-TF needs one PDV at least")
    return _pdu(
        PDUType.P_DATA_TF,
        b"".join(
            struct.pack(">IBB", len(pdv.data) + 2, pdv.context_id, pdv.is_command | pdv.is_last << 1)
            + pdv.data
            for pdv in pdu.pdvs
        ),
    )
