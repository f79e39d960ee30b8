"""PDUs from bytes (PS3.8 §9.3, PS3.7 §D.3.3).

Every decoder takes the body of a PDU, that is what follows its six header bytes, and gives a value or raises
`PeerProtocolError`, never anything else. What is tolerated, because real peers send it: padding of any kind in
UIDs and AE titles, reserved fields with any content, unknown items and sub-items, items in any order, items that
are missing. What is not: a length that reaches beyond what holds it, a field cut short, too many items.

Secrets of a user identity end here: they are never put into a value.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

from stowkeeper.dicom.ae_title import normalize_ae_title
from stowkeeper.dicom.uid import strip_uid
from stowkeeper.upperlayer.errors import PeerProtocolError
from stowkeeper.upperlayer.items import (
    AsynchronousOperationsWindow,
    ContextResult,
    ProposedContext,
    RoleSelection,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserIdentityResponse,
    UserIdentityType,
    UserInformation,
)
from stowkeeper.upperlayer.limits import ITEMS_MAX
from stowkeeper.upperlayer.pdu import (
    ECHOED_FIELDS_LENGTH,
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    PDUType,
    ReleaseRP,
    ReleaseRQ,
)
from stowkeeper.upperlayer.reasons import AbortReason

_ITEM_HEADER = struct.Struct(">BBH")  # item type, reserved (a version in item 57H), item length
_UINT16 = struct.Struct(">H")
_UINT32 = struct.Struct(">I")
_PDV_HEADER = struct.Struct(">IBB")  # item length, presentation context id, message control header
_ASSOCIATE_FIXED_LENGTH = 4 + ECHOED_FIELDS_LENGTH
_PADDING = b"\0 "


def decode_pdu(pdu_type: int, body: memoryview) -> PDU:
    """Decode the body of a PDU of the given type.

    Raises PeerProtocolError for an unknown type (unrecognized PDU) and for a body that does not hold what it
    should (invalid PDU parameter value).
    """
    decoder = _DECODERS.get(pdu_type)
    if decoder is None:
        raise PeerProtocolError(AbortReason.UNRECOGNIZED_PDU, f"there is no PDU of type {pdu_type:02X}H")
    return decoder(body)


def _invalid(text: str) -> PeerProtocolError:
    return PeerProtocolError(AbortReason.INVALID_PDU_PARAMETER_VALUE, text)


# --- fields and items


class _Items:
    """Walks items and counts them, over all levels of one PDU."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen = 0

    def count(self) -> None:
        """Count one more item, or what costs as much as one."""
        self._seen += 1
        if self._seen > ITEMS_MAX:
            raise _invalid(f"more than {ITEMS_MAX} items in one PDU")

    def walk(self, view: memoryview, place: str) -> Iterator[tuple[int, int, memoryview]]:
        """Yield type, second byte and content of each item in `view`; `place` names it in errors."""
        at = 0
        end = len(view)
        while at < end:
            self.count()
            if end - at < _ITEM_HEADER.size:
                raise _invalid(f"{end - at} bytes at the end of {place} are too few for an item")
            item_type, second, length = _ITEM_HEADER.unpack_from(view, at)
            at += _ITEM_HEADER.size
            if length > end - at:
                raise _invalid(
                    f"item {item_type:02X}H in {place} claims {length} bytes where {end - at} are left"
                )
            yield item_type, second, view[at : at + length]
            at += length


class _Fields:
    """Reads the fields of one item from its front; what is left over is the caller's to ignore."""

    __slots__ = ("_at", "_place", "_view")

    def __init__(self, view: memoryview, place: str) -> None:
        self._view = view
        self._at = 0
        self._place = place

    @property
    def left(self) -> int:
        return len(self._view) - self._at

    def take(self, length: int) -> memoryview:
        if length > self.left:
            raise _invalid(f"{self._place} claims a field of {length} bytes where {self.left} are left")
        self._at += length
        return self._view[self._at - length : self._at]

    def uint8(self) -> int:
        return self.take(1)[0]

    def uint16(self) -> int:
        return int(_UINT16.unpack(self.take(2))[0])

    def uint32(self) -> int:
        return int(_UINT32.unpack(self.take(4))[0])

    def uid(self) -> str:
        """Read a UID behind its own length of two bytes."""
        return strip_uid(bytes(self.take(self.uint16())))


# --- A-ASSOCIATE-RQ and -AC


def _associate_rq(body: memoryview) -> AssociateRQ:
    protocol_version, echoed_fields = _associate_fixed_fields(body, PDUType.A_ASSOCIATE_RQ)
    application_context = ""
    contexts = []
    user_information = UserInformation()
    items = _Items()
    for item_type, _, content in items.walk(body[_ASSOCIATE_FIXED_LENGTH:], "the A-ASSOCIATE-RQ"):
        if item_type == 0x10:
            application_context = strip_uid(bytes(content))
        elif item_type == 0x20:
            contexts.append(_proposed_context(content, items))
        elif item_type == 0x50:
            user_information = _user_information(content, items)
    return AssociateRQ(
        called_ae_title=normalize_ae_title(echoed_fields[:16]),
        calling_ae_title=normalize_ae_title(echoed_fields[16:32]),
        application_context=application_context,
        presentation_contexts=tuple(contexts),
        user_information=user_information,
        protocol_version=protocol_version,
        echoed_fields=echoed_fields,
    )


def _associate_ac(body: memoryview) -> AssociateAC:
    protocol_version, echoed_fields = _associate_fixed_fields(body, PDUType.A_ASSOCIATE_AC)
    application_context = ""
    results = []
    user_information = UserInformation()
    items = _Items()
    for item_type, _, content in items.walk(body[_ASSOCIATE_FIXED_LENGTH:], "the A-ASSOCIATE-AC"):
        if item_type == 0x10:
            application_context = strip_uid(bytes(content))
        elif item_type == 0x21:
            results.append(_context_result(content, items))
        elif item_type == 0x50:
            user_information = _user_information(content, items)
    return AssociateAC(
        application_context=application_context,
        presentation_contexts=tuple(results),
        user_information=user_information,
        protocol_version=protocol_version,
        echoed_fields=echoed_fields,
    )


def _associate_fixed_fields(body: memoryview, pdu_type: PDUType) -> tuple[int, bytes]:
    if len(body) < _ASSOCIATE_FIXED_LENGTH:
        raise _invalid(f"an {pdu_type} of {len(body)} bytes lacks its {_ASSOCIATE_FIXED_LENGTH} fixed ones")
    return _UINT16.unpack_from(body)[0], bytes(body[4:_ASSOCIATE_FIXED_LENGTH])


def _proposed_context(content: memoryview, items: _Items) -> ProposedContext:
    place = "a presentation context item"
    fields = _Fields(content, place)
    context_id = fields.uint8()
    fields.take(3)  # reserved
    abstract_syntax = ""
    transfer_syntaxes = []
    for item_type, _, syntax in items.walk(fields.take(fields.left), place):
        if item_type == 0x30:
            abstract_syntax = abstract_syntax or strip_uid(bytes(syntax))
        elif item_type == 0x40:
            transfer_syntaxes.append(strip_uid(bytes(syntax)))
    return ProposedContext(
        context_id=context_id,
        abstract_syntax=abstract_syntax,
        transfer_syntaxes=tuple(transfer_syntaxes),
    )


def _context_result(content: memoryview, items: _Items) -> ContextResult:
    place = "a presentation context item"
    fields = _Fields(content, place)
    context_id = fields.uint8()
    fields.take(1)  # reserved
    result = fields.uint8()
    fields.take(1)  # reserved
    transfer_syntax = ""
    for item_type, _, syntax in items.walk(fields.take(fields.left), place):
        if item_type == 0x40:
            transfer_syntax = transfer_syntax or strip_uid(bytes(syntax))
    return ContextResult(context_id=context_id, result=result, transfer_syntax=transfer_syntax)


# --- user information


def _user_information(content: memoryview, items: _Items) -> UserInformation:
    values: dict[str, Any] = {}
    for item_type, second, item in items.walk(content, "the user information item"):
        fields = _Fields(item, f"user information sub-item {item_type:02X}H")
        if item_type in _SINGLE_SUB_ITEMS:
            name, decode = _SINGLE_SUB_ITEMS[item_type]
            values[name] = decode(fields)
        elif item_type in _REPEATED_SUB_ITEMS:
            name, decode_one = _REPEATED_SUB_ITEMS[item_type]
            values.setdefault(name, []).append(decode_one(fields, second, items))
    for name, _ in _REPEATED_SUB_ITEMS.values():
        values[name] = tuple(values.get(name, ()))
    return UserInformation(**values)


def _maximum_length(fields: _Fields) -> int:
    return fields.uint32()


def _implementation_class_uid(fields: _Fields) -> str | None:
    return strip_uid(bytes(fields.take(fields.left))) or None


def _implementation_version_name(fields: _Fields) -> str | None:
    return bytes(fields.take(fields.left)).strip(_PADDING).decode("latin-1") or None


def _operations_window(fields: _Fields) -> AsynchronousOperationsWindow:
    return AsynchronousOperationsWindow(invoked=fields.uint16(), performed=fields.uint16())


def _user_identity(fields: _Fields) -> UserIdentity:
    identity_type = fields.uint8()
    response_requested = fields.uint8() != 0
    primary = fields.take(fields.uint16())
    secondary_length = fields.uint16()
    fields.take(secondary_length)  # the passcode: never looked at
    named = identity_type in {UserIdentityType.USERNAME, UserIdentityType.USERNAME_AND_PASSCODE}
    return UserIdentity(
        type=identity_type,
        primary_name=bytes(primary).decode("utf-8", "replace") if named else None,
        response_requested=response_requested,
        primary_length=len(primary),
        secondary_length=secondary_length,
    )


def _user_identity_response(fields: _Fields) -> UserIdentityResponse:
    length = fields.uint16()
    fields.take(length)  # a ticket or an assertion: never looked at
    return UserIdentityResponse(server_response_length=length)


def _role_selection(fields: _Fields, _second: int, _items: _Items) -> RoleSelection:
    return RoleSelection(
        sop_class_uid=fields.uid(),
        scu_role=fields.uint8() != 0,
        scp_role=fields.uint8() != 0,
    )


def _extended_negotiation(fields: _Fields, _second: int, _items: _Items) -> SOPClassExtendedNegotiation:
    return SOPClassExtendedNegotiation(
        sop_class_uid=fields.uid(),
        application_information=bytes(fields.take(fields.left)),
    )


def _common_extended_negotiation(
    fields: _Fields, second: int, items: _Items
) -> SOPClassCommonExtendedNegotiation:
    sop_class_uid = fields.uid()
    service_class_uid = fields.uid()
    related = []
    if fields.left:
        general = _Fields(fields.take(fields.uint16()), "the related general SOP classes")
        while general.left:
            items.count()
            related.append(general.uid())
    return SOPClassCommonExtendedNegotiation(
        sop_class_uid=sop_class_uid,
        service_class_uid=service_class_uid,
        related_general_sop_class_uids=tuple(related),
        version=second,
    )


_SINGLE_SUB_ITEMS: dict[int, tuple[str, Callable[[_Fields], Any]]] = {
    0x51: ("maximum_length", _maximum_length),
    0x52: ("implementation_class_uid", _implementation_class_uid),
    0x53: ("operations_window", _operations_window),
    0x55: ("implementation_version_name", _implementation_version_name),
    0x58: ("user_identity", _user_identity),
    0x59: ("user_identity_response", _user_identity_response),
}
_REPEATED_SUB_ITEMS: dict[int, tuple[str, Callable[[_Fields, int, _Items], Any]]] = {
    0x54: ("role_selections", _role_selection),
    0x56: ("extended_negotiations", _extended_negotiation),
    0x57: ("common_extended_negotiations", _common_extended_negotiation),
}


# --- the other PDUs


def _associate_rj(body: memoryview) -> AssociateRJ:
    if len(body) < 4:
        raise _invalid(f"an A-ASSOCIATE-RJ of {len(body)} bytes lacks its 4 fixed ones")
    return AssociateRJ(result=body[1], source=body[2], reason=body[3])


def _p_data_tf(body: memoryview) -> PDataTF:
    pdvs: list[PDV] = []
    at = 0
    while at < len(body) or not pdvs:
        if len(body) - at < _PDV_HEADER.size:
            raise _invalid(f"{len(body) - at} bytes in a P-DATA-TF are too few for a PDV item")
        length, context_id, control = _PDV_HEADER.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > len(body):
            raise _invalid(f"a PDV item claims {length} bytes where {len(body) - at - 4} are left")
        pdvs.append(
            PDV(
                context_id=context_id,
                is_command=control & 1 != 0,
                is_last=control & 2 != 0,
                data=bytes(body[at + 6 : end]),
            )
        )
        at = end
    return PDataTF(pdvs=tuple(pdvs))


def _release_rq(_body: memoryview) -> ReleaseRQ:
    return ReleaseRQ()


def _release_rp(_body: memoryview) -> ReleaseRP:
    return ReleaseRP()


def _abort(body: memoryview) -> Abort:
    # One that is cut short still says that all is over; an abort is never answered by an abort.
    return Abort(source=body[2], reason=body[3]) if len(body) >= 4 else Abort()


_DECODERS: dict[int, Callable[[memoryview], PDU]] = {
    PDUType.A_ASSOCIATE_RQ: _associate_rq,
    PDUType.A_ASSOCIATE_AC: _associate_ac,
    PDUType.A_ASSOCIATE_RJ: _associate_rj,
    PDUType.P_DATA_TF: _p_data_tf,
    PDUType.A_RELEASE_RQ: _release_rq,
    PDUType.A_RELEASE_RP: _release_rp,
    PDUType.A_ABORT: _abort,
}
