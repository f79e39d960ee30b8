"""Messages of PS3.7 to and from command sets: which elements each command has, as data.

`parse_message` is tolerant: only what framing cannot do without (command field, message id, data set type, status) is
demanded; an identifier that is absent or odd is the service's to judge. `encode` is strict and raises `LocalError`.
C-STORE, the hot path, has its own reader and writer; tests hold them equal to the table.
"""

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from stowkeeper.dicom.ae_title import normalize_ae_title
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import strip_uid
from stowkeeper.dimse import command_set as cs
from stowkeeper.dimse.command_set import CommandSet
from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.limits import UID_ELEMENTS_CACHED_MAX
from stowkeeper.dimse.message_types import (
    RESPONSE_BIT,
    CCancelRequest,
    CEchoRequest,
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    NActionRequest,
    NActionResponse,
    NCreateRequest,
    NCreateResponse,
    NDeleteRequest,
    NDeleteResponse,
    NEventReportRequest,
    NEventReportResponse,
    NGetRequest,
    NGetResponse,
    NSetRequest,
    NSetResponse,
    Priority,
    Request,
    Response,
    UnknownRequest,
    UnknownResponse,
    echoed_uid,
    shorten_error_comment,
)

__all__ = [
    "CCancelRequest",
    "CEchoRequest",
    "CEchoResponse",
    "CStoreRequest",
    "CStoreResponse",
    "Message",
    "NActionRequest",
    "NActionResponse",
    "NCreateRequest",
    "NCreateResponse",
    "NDeleteRequest",
    "NDeleteResponse",
    "NEventReportRequest",
    "NEventReportResponse",
    "NGetRequest",
    "NGetResponse",
    "NSetRequest",
    "NSetResponse",
    "Priority",
    "Request",
    "Response",
    "UnknownRequest",
    "UnknownResponse",
    "command_name",
    "encode",
    "encode_store_response",
    "parse_message",
    "response_to_unknown",
    "shorten_error_comment",
]

Message: TypeAlias = Request | Response | CCancelRequest


class _Presence(Enum):
    FRAMING = "demanded from a peer and always sent"
    SENT = "always sent, but a peer may have left it out"
    OPTIONAL = "sent when there is a value"


@dataclass(frozen=True, slots=True)
class _Field:
    """One element of a command and the field of the message that it fills."""

    element: int
    name: str
    read: Callable[[CommandSet, int], Any]
    write: Callable[[Any], bytes]
    presence: _Presence


@dataclass(frozen=True, slots=True)
class _Layout:
    """A command's name and fields; the command field and the data set type, which all have, are not listed."""

    name: str
    message_type: Callable[..., Message]
    fields: tuple[_Field, ...]


def _number(element: int, name: str, presence: _Presence = _Presence.OPTIONAL) -> _Field:
    return _Field(element, name, CommandSet.number, cs.encode_number, presence)


def _uid(element: int, name: str, presence: _Presence = _Presence.OPTIONAL) -> _Field:
    return _Field(element, name, CommandSet.uid, cs.encode_uid, presence)


def _tags(element: int, name: str) -> _Field:
    return _Field(element, name, CommandSet.tags, cs.encode_tags, _Presence.OPTIONAL)


def _priority(command: CommandSet, element: int) -> int:
    number = command.number(element)
    return Priority.MEDIUM if number is None else number


_MESSAGE_ID = _number(cs.MESSAGE_ID, "message_id", _Presence.FRAMING)
_RESPONDS_TO = _number(cs.MESSAGE_ID_BEING_RESPONDED_TO, "responds_to", _Presence.FRAMING)
_AFFECTED_CLASS_SENT = _uid(cs.AFFECTED_SOP_CLASS_UID, "affected_sop_class_uid", _Presence.SENT)
_AFFECTED_CLASS = _uid(cs.AFFECTED_SOP_CLASS_UID, "affected_sop_class_uid")
_AFFECTED_INSTANCE_SENT = _uid(cs.AFFECTED_SOP_INSTANCE_UID, "affected_sop_instance_uid", _Presence.SENT)
_AFFECTED_INSTANCE = _uid(cs.AFFECTED_SOP_INSTANCE_UID, "affected_sop_instance_uid")

_REQUESTED = (
    _MESSAGE_ID,
    _uid(cs.REQUESTED_SOP_CLASS_UID, "requested_sop_class_uid", _Presence.SENT),
    _uid(cs.REQUESTED_SOP_INSTANCE_UID, "requested_sop_instance_uid", _Presence.SENT),
)
_AFFECTED = (_MESSAGE_ID, _AFFECTED_CLASS_SENT, _AFFECTED_INSTANCE_SENT)
_RESPONSE = (
    _RESPONDS_TO,
    _number(cs.STATUS, "status", _Presence.FRAMING),
    _AFFECTED_CLASS,
    _tags(cs.OFFENDING_ELEMENT, "offending_elements"),
    _Field(cs.ERROR_COMMENT, "error_comment", CommandSet.text, cs.encode_text, _Presence.OPTIONAL),
    _number(cs.ERROR_ID, "error_id"),
)
_INSTANCE_RESPONSE = (*_RESPONSE, _AFFECTED_INSTANCE)
_EVENT_TYPE_ID_SENT = _number(cs.EVENT_TYPE_ID, "event_type_id", _Presence.SENT)
_EVENT_TYPE_ID = _number(cs.EVENT_TYPE_ID, "event_type_id")
_ACTION_TYPE_ID_SENT = _number(cs.ACTION_TYPE_ID, "action_type_id", _Presence.SENT)
_ACTION_TYPE_ID = _number(cs.ACTION_TYPE_ID, "action_type_id")
_MOVE_ORIGINATOR = _Field(
    cs.MOVE_ORIGINATOR_AE_TITLE,
    "move_originator_ae_title",
    CommandSet.ae_title,
    cs.encode_ae_title,
    _Presence.OPTIONAL,
)
_C_STORE_REQUEST = (
    *_AFFECTED,
    _Field(cs.PRIORITY, "priority", _priority, cs.encode_number, _Presence.SENT),
    _MOVE_ORIGINATOR,
    _number(cs.MOVE_ORIGINATOR_MESSAGE_ID, "move_originator_message_id"),
)

# PS3.7 §9.3 and §10.3, keyed by the Command Field of Table E.1-1.
_LAYOUTS: Final[dict[int, _Layout]] = {
    0x0001: _Layout("C-STORE-RQ", CStoreRequest, _C_STORE_REQUEST),
    0x8001: _Layout("C-STORE-RSP", CStoreResponse, _INSTANCE_RESPONSE),
    0x0030: _Layout("C-ECHO-RQ", CEchoRequest, (_MESSAGE_ID, _AFFECTED_CLASS_SENT)),
    0x8030: _Layout("C-ECHO-RSP", CEchoResponse, _RESPONSE),
    0x0FFF: _Layout("C-CANCEL-RQ", CCancelRequest, (_RESPONDS_TO,)),
    0x0100: _Layout("N-EVENT-REPORT-RQ", NEventReportRequest, (*_AFFECTED, _EVENT_TYPE_ID_SENT)),
    0x8100: _Layout("N-EVENT-REPORT-RSP", NEventReportResponse, (*_INSTANCE_RESPONSE, _EVENT_TYPE_ID)),
    0x0110: _Layout(
        "N-GET-RQ",
        NGetRequest,
        (*_REQUESTED, _tags(cs.ATTRIBUTE_IDENTIFIER_LIST, "attribute_identifier_list")),
    ),
    0x8110: _Layout("N-GET-RSP", NGetResponse, _INSTANCE_RESPONSE),
    0x0120: _Layout("N-SET-RQ", NSetRequest, _REQUESTED),
    0x8120: _Layout("N-SET-RSP", NSetResponse, _INSTANCE_RESPONSE),
    0x0130: _Layout("N-ACTION-RQ", NActionRequest, (*_REQUESTED, _ACTION_TYPE_ID_SENT)),
    0x8130: _Layout("N-ACTION-RSP", NActionResponse, (*_INSTANCE_RESPONSE, _ACTION_TYPE_ID)),
    0x0140: _Layout("N-CREATE-RQ", NCreateRequest, (_MESSAGE_ID, _AFFECTED_CLASS_SENT, _AFFECTED_INSTANCE)),
    0x8140: _Layout("N-CREATE-RSP", NCreateResponse, _INSTANCE_RESPONSE),
    0x0150: _Layout("N-DELETE-RQ", NDeleteRequest, _REQUESTED),
    0x8150: _Layout("N-DELETE-RSP", NDeleteResponse, _INSTANCE_RESPONSE),
}

_NAMES_OF_UNKNOWN: Final = {
    0x0010: "C-GET-RQ",
    0x8010: "C-GET-RSP",
    0x0020: "C-FIND-RQ",
    0x8020: "C-FIND-RSP",
    0x0021: "C-MOVE-RQ",
    0x8021: "C-MOVE-RSP",
}
_UNKNOWN_REQUEST: Final = (_MESSAGE_ID, _AFFECTED_CLASS)
_UNKNOWN_RESPONSE: Final = _RESPONSE

_DATA_SET_PRESENT: Final = 0x0001


def command_name(command_field: int) -> str:
    """Return the standard's name of a command, such as "C-STORE-RQ", or "command 0123H" where it has none."""
    layout = _LAYOUTS.get(command_field)
    if layout is not None:
        return layout.name
    return _NAMES_OF_UNKNOWN.get(command_field, f"command {command_field:04X}H")


def parse_message(command: CommandSet) -> Message:
    """Read a command set as the message it says it is.

    Commands that this room has no layout for become `UnknownRequest` or `UnknownResponse`, by the response bit.

    Raises:
        PeerError: no command field or data set type, or no message id (a request), no message id being responded to
            (a response, C-CANCEL) or no status (a response): such a message can be neither framed nor answered.

    """
    command_field = command.number(cs.COMMAND_FIELD)
    if command_field is None:
        raise PeerError("Command set without a Command Field (0000,0100) (PS3.7 §6.3.1)")
    if command_field == CStoreRequest.command_field:
        return _parse_store_request(command)
    layout = _LAYOUTS.get(command_field)
    if layout is not None:
        return layout.message_type(
            has_data_set=_announces_data_set(command, command_field),
            **_read_fields(command, command_field, layout.fields),
        )
    is_response = bool(command_field & RESPONSE_BIT)
    fields = _read_fields(command, command_field, _UNKNOWN_RESPONSE if is_response else _UNKNOWN_REQUEST)
    has_data_set = _announces_data_set(command, command_field)
    if is_response:
        return UnknownResponse(command_field=command_field, has_data_set=has_data_set, **fields)
    if fields["affected_sop_class_uid"] is None:
        fields["affected_sop_class_uid"] = command.uid(cs.REQUESTED_SOP_CLASS_UID)
    return UnknownRequest(command_field=command_field, has_data_set=has_data_set, **fields)


def _read_fields(command: CommandSet, command_field: int, fields: tuple[_Field, ...]) -> dict[str, Any]:
    values = {field.name: field.read(command, field.element) for field in fields}
    for field in fields:
        if field.presence is _Presence.FRAMING and values[field.name] is None:
            raise _missing(command_field, field.element, field.name)
    return values


def _announces_data_set(command: CommandSet, command_field: int) -> bool:
    data_set_type = command.number(cs.COMMAND_DATA_SET_TYPE)
    if data_set_type is None:
        raise _missing(command_field, cs.COMMAND_DATA_SET_TYPE, "command data set type")
    return data_set_type != cs.NO_DATA_SET


def _missing(command_field: int, element: int, name: str) -> PeerError:
    words = "message id being responded to" if name == "responds_to" else name.replace("_", " ")
    return PeerError(f"{command_name(command_field)} without {words} (0000,{element:04X})")


def _parse_store_request(command: CommandSet) -> CStoreRequest:
    """Do what the table says for C-STORE-RQ, faster."""
    values = command.values
    get = values.get
    message_id = get(cs.MESSAGE_ID)
    if not message_id:
        raise _missing(CStoreRequest.command_field, cs.MESSAGE_ID, "message id")
    sop_class = get(cs.AFFECTED_SOP_CLASS_UID)
    sop_instance = get(cs.AFFECTED_SOP_INSTANCE_UID)
    originator = get(cs.MOVE_ORIGINATOR_AE_TITLE)
    priority = get(cs.PRIORITY)
    data_set_type = get(cs.COMMAND_DATA_SET_TYPE)
    if not data_set_type:
        raise _missing(CStoreRequest.command_field, cs.COMMAND_DATA_SET_TYPE, "command data set type")
    return CStoreRequest(
        message_id=int.from_bytes(message_id[:2], "little"),
        has_data_set=int.from_bytes(data_set_type[:2], "little") != cs.NO_DATA_SET,
        affected_sop_class_uid=None if sop_class is None else strip_uid(sop_class),
        affected_sop_instance_uid=None if sop_instance is None else strip_uid(sop_instance),
        priority=int.from_bytes(priority[:2], "little") if priority else Priority.MEDIUM,
        move_originator_ae_title=(normalize_ae_title(originator) or None) if originator else None,
        move_originator_message_id=command.number(cs.MOVE_ORIGINATOR_MESSAGE_ID),
    )


def encode(message: Message) -> bytes:
    """Write a message as a command set, ready for `fragmenter.command_pdu`.

    Raises:
        LocalError: a field that the command must have is None, or a value does not fit its VR (a UID longer than 64,
            a number beyond 16 bits, an Error Comment that `shorten_error_comment` did not make).

    """
    if type(message) is CStoreResponse and not (
        message.error_comment
        or message.offending_elements
        or message.has_data_set
        or message.error_id is not None
    ):
        return _encode_store_response(message)
    return _encode_by_table(message)


def _encode_by_table(message: Message) -> bytes:
    data_set_type = _DATA_SET_PRESENT if message.has_data_set else cs.NO_DATA_SET
    values = {
        cs.COMMAND_FIELD: cs.encode_number(message.command_field),
        cs.COMMAND_DATA_SET_TYPE: cs.encode_number(data_set_type),
    }
    for field in _fields_of(message):
        value = getattr(message, field.name)
        if value is not None and value != ():
            values[field.element] = field.write(value)
        elif field.presence is not _Presence.OPTIONAL:
            raise LocalError(f"{command_name(message.command_field)} needs {field.name}")
    return cs.encode_command_set(values)


def _fields_of(message: Message) -> tuple[_Field, ...]:
    if isinstance(message, UnknownRequest):
        return _UNKNOWN_REQUEST
    if isinstance(message, UnknownResponse):
        return _UNKNOWN_RESPONSE
    return _LAYOUTS[message.command_field].fields


# The four numbers that every C-STORE-RSP has, in order: what never changes, and the two values that do.
_STORE_RESPONSE_UP_TO_ID: Final = (
    cs.encode_element(cs.COMMAND_FIELD, cs.encode_number(CStoreResponse.command_field))
    + cs.encode_element(cs.MESSAGE_ID_BEING_RESPONDED_TO, cs.encode_number(0))[:-2]
)
_STORE_RESPONSE_UP_TO_STATUS: Final = (
    cs.encode_element(cs.COMMAND_DATA_SET_TYPE, cs.encode_number(cs.NO_DATA_SET))
    + cs.encode_element(cs.STATUS, cs.encode_number(0))[:-2]
)
_pack_store_response = struct.Struct("<18sH18sH").pack


def encode_store_response(request: CStoreRequest, status: int) -> bytes:
    """Write what `encode(request.respond(status))` gives, for nearly every instance that is received."""
    sop_class = echoed_uid(request.affected_sop_class_uid)
    sop_instance = echoed_uid(request.affected_sop_instance_uid)
    return _store_response(request.message_id, status, sop_class, sop_instance)


def _encode_store_response(message: CStoreResponse) -> bytes:
    return _store_response(
        message.responds_to,
        message.status,
        message.affected_sop_class_uid,
        message.affected_sop_instance_uid,
    )


def _store_response(responds_to: int, status: int, sop_class: str | None, sop_instance: str | None) -> bytes:
    """Do what the table says for a C-STORE-RSP without error elements, by concatenation."""
    try:
        elements = _pack_store_response(
            _STORE_RESPONSE_UP_TO_ID, responds_to, _STORE_RESPONSE_UP_TO_STATUS, status
        )
    except struct.error:
        raise LocalError("C-STORE-RSP needs a message id and a status of 16 bits") from None
    if sop_class is not None:
        elements = _sop_class_element(sop_class) + elements
    if sop_instance is not None:
        elements += cs.encode_element(cs.AFFECTED_SOP_INSTANCE_UID, cs.encode_uid(sop_instance))
    return cs.encode_group_length(len(elements)) + elements


@functools.lru_cache(maxsize=UID_ELEMENTS_CACHED_MAX)
def _sop_class_element(uid: str) -> bytes:
    return cs.encode_element(cs.AFFECTED_SOP_CLASS_UID, cs.encode_uid(uid))


def response_to_unknown(request: Request) -> bytes:
    """Return the encoded answer 0211H, unrecognized operation, to a request that is not served here (PS3.7 Annex C).

    It serves any request: an N-ACTION where no normalized service is offered as well as a C-FIND.
    """
    return encode(request.respond(Status.UNRECOGNIZED_OPERATION))
