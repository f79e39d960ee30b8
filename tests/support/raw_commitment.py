"""Storage commitment messages made with struct alone, right or wrong, for `raw_peer`."""

import struct
from collections.abc import Sequence

from support.raw_peer import (
    COMMAND,
    EXPLICIT_VR_LITTLE_ENDIAN,
    LAST,
    Answer,
    Context,
    RawPeer,
    command_set,
    data_set_pdus,
    p_data,
)

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP, N_ACTION_RQ, N_ACTION_RSP = 0x0100, 0x8100, 0x0130, 0x8130

Named = tuple[str, str]


def push_model_context(context_id: int = 1, *transfer_syntaxes: str) -> Context:
    """Return the presentation context of storage commitment to propose."""
    return Context(
        context_id=context_id,
        abstract_syntax=PUSH_MODEL,
        transfer_syntaxes=transfer_syntaxes or (EXPLICIT_VR_LITTLE_ENDIAN,),
    )


def uid_element(tag: int, uid: str) -> bytes:
    """Encode an element of VR UI in Explicit VR Little Endian."""
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"UI", len(value)) + value


def sequence(tag: int, items: Sequence[bytes]) -> bytes:
    """Encode a sequence with defined lengths in Explicit VR Little Endian."""
    body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    return struct.pack("<HH2s2xI", tag >> 16, tag & 0xFFFF, b"SQ", len(body)) + body


def reference(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Encode what an item of the Referenced SOP Sequence holds."""
    return uid_element(0x00081150, sop_class_uid) + uid_element(0x00081155, sop_instance_uid)


def action_data(uid: str, references: Sequence[Named]) -> bytes:
    """Encode the data set of a request (PS3.4 Table J.3-1)."""
    return uid_element(0x00081195, uid) + sequence(0x00081199, [reference(*one) for one in references])


def action_command(
    *,
    message_id: int = 1,
    sop_class_uid: str | None = PUSH_MODEL,
    sop_instance_uid: str | None = PUSH_MODEL_INSTANCE,
    action_type: int | None = 1,
    has_data_set: bool = True,
) -> bytes:
    """Encode an N-ACTION-RQ command; None leaves an element out."""
    elements: dict[int, bytes | int | str | None] = {
        0x0003: sop_class_uid,
        0x0100: N_ACTION_RQ,
        0x0110: message_id,
        0x0800: 1 if has_data_set else 0x0101,
        0x1001: sop_instance_uid,
        0x1008: action_type,
    }
    return command_set({element: value for element, value in elements.items() if value is not None})


def ask(peer: RawPeer, data: bytes | None, *, context_id: int = 1, **command: object) -> Answer:
    """Send a request and wait for the answer; None sends no data set."""
    send_action(peer, data, context_id=context_id, **command)
    return peer.read_answer()


def send_action(peer: RawPeer, data: bytes | None, *, context_id: int = 1, **command: object) -> None:
    """Send a request."""
    encoded = action_command(has_data_set=data is not None, **command)  # type: ignore[arg-type]  # handed on as they are
    message = p_data(context_id, encoded, control=COMMAND | LAST)
    peer.send(message if data is None else message + data_set_pdus(context_id, data))


def event_response(request: Answer, *, status: int = 0, names_instance: bool = True) -> bytes:
    """Encode the N-EVENT-REPORT-RSP to a request that was read."""
    elements: dict[int, bytes | int | str] = {
        0x0100: N_EVENT_REPORT_RSP,
        0x0120: request.number(0x0110),
        0x0800: 0x0101,
        0x0900: status,
    }
    if names_instance:
        elements |= {0x0002: PUSH_MODEL, 0x1000: PUSH_MODEL_INSTANCE, 0x1002: request.number(0x1002)}
    return p_data(request.context_id, command_set(elements), control=COMMAND | LAST)
