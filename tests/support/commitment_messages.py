"""Storage commitment by a raw peer: N-ACTION requests to send, and whole messages of the server to read.

As `raw_peer` it shares no code with the product.
"""

import struct
from dataclasses import dataclass

from support.raw_peer import (
    COMMAND,
    LAST,
    P_DATA,
    VERIFICATION,
    Answer,
    Context,
    RawPeer,
    command_set,
    data_set_pdus,
    item,
    p_data,
)

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
N_ACTION_RQ, N_ACTION_RSP = 0x0130, 0x8130
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP = 0x0100, 0x8100
NO_DATA_SET = 0x0101
COMMITMENT = Context(context_id=5, abstract_syntax=PUSH_MODEL)
CONTEXTS = (COMMITMENT, Context(context_id=3, abstract_syntax=VERIFICATION))


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeMessage:
    """A message of the server with its data set, and how many PDVs brought that."""

    command: Answer
    data: bytes
    fragments: int

    @property
    def message_id(self) -> int:
        """Return the message id of a request."""
        return self.command.number(0x0110)


def action_command(
    message_id: int = 1, *, has_data_set: bool = True, instance: str = PUSH_MODEL_INSTANCE
) -> bytes:
    """Encode the command of an N-ACTION request."""
    return command_set(
        {
            0x0003: PUSH_MODEL,
            0x0100: N_ACTION_RQ,
            0x0110: message_id,
            0x0800: 1 if has_data_set else NO_DATA_SET,
            0x1001: instance,
            0x1008: 1,
        }
    )


def action_message(data: bytes, message_id: int = 1, *, context_id: int = 5, piece: int = 16_000) -> bytes:
    """Encode a whole N-ACTION request."""
    command = p_data(context_id, action_command(message_id), control=COMMAND | LAST)
    return command + data_set_pdus(context_id, data, piece)


def event_response(
    message_id: int, *, status: int = 0, context_id: int = 5, field: int = N_EVENT_REPORT_RSP
) -> bytes:
    """Encode the answer to an N-EVENT-REPORT, with no more than it must have."""
    command = {0x0100: field, 0x0120: message_id, 0x0800: NO_DATA_SET, 0x0900: status}
    return p_data(context_id, command_set(command), control=COMMAND | LAST)


def role_item(scu: int, scp: int) -> bytes:
    """Encode the proposal of roles in storage commitment (PS3.7 Table D.3-9)."""
    uid = PUSH_MODEL.encode()
    return item(0x54, struct.pack(">H", len(uid)) + uid + bytes((scu, scp)))


def read_message(peer: RawPeer) -> WholeMessage:
    """Read one message with its data set; anything between its PDVs fails the test."""
    command = peer.read_answer()
    if command.number(0x0800) == NO_DATA_SET:
        return WholeMessage(command=command, data=b"", fragments=0)
    data = bytearray()
    fragments = 0
    is_last = False
    while not is_last:
        received = peer.read_pdu()
        assert received.kind == P_DATA, f"PDU type {received.kind} in the middle of a data set"
        rest = received.body
        while rest:
            assert not is_last, "there is something behind the last fragment"
            length, context_id, control = struct.unpack_from(">IBB", rest)
            assert context_id == command.context_id
            assert not control & COMMAND, "a command in the middle of a data set"
            data += rest[6 : 4 + length]
            rest = rest[4 + length :]
            fragments += 1
            is_last = bool(control & LAST)
    return WholeMessage(command=command, data=bytes(data), fragments=fragments)
