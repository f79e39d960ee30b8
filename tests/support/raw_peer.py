"""A DICOM peer of plain sockets and struct, for saying exactly what a test wants said, right or wrong.

It shares no code with the product, so that a mistake in the product's encoders cannot hide in its tests.
"""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
COMMAND, LAST = 1, 2
SECONDS_MAX = 20.0
"""How long a peer waits for an answer before the test fails."""

RELEASE_REQUEST = b"\5\0\0\0\0\4\0\0\0\0"
RELEASE_RESPONSE = b"\6\0\0\0\0\4\0\0\0\0"
ABORT_REQUEST = b"\7\0\0\0\0\4\0\0\0\0"


class PeerClosed(Exception):  # noqa: N818 - it is what happened
    """The other side closed the connection where more was awaited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PDU:
    """One PDU as received."""

    kind: int
    body: bytes

    @property
    def reasons(self) -> tuple[int, ...]:
        """Return result, source and reason of a rejection; source and reason of an abort."""
        return tuple(self.body[1:4] if self.kind == ASSOCIATE_RJ else self.body[2:4])


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A presentation context to propose."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = (EXPLICIT_VR_LITTLE_ENDIAN,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response: the elements of its command by number (0000,eeee), and the context it came in."""

    context_id: int
    elements: dict[int, bytes] = field(default_factory=dict)

    def number(self, element: int) -> int:
        """Return a number, -1 when it is absent."""
        value = self.elements.get(element)
        return -1 if value is None else int.from_bytes(value, "little")

    def text(self, element: int) -> str:
        """Return a text without padding."""
        return self.elements.get(element, b"").decode("latin-1").rstrip("\0 ")

    @property
    def command_field(self) -> int:
        """Return which command it is."""
        return self.number(0x0100)

    @property
    def responds_to(self) -> int:
        """Return the message id it answers."""
        return self.number(0x0120)

    @property
    def status(self) -> int:
        """Return its status."""
        return self.number(0x0900)

    @property
    def comment(self) -> str:
        """Return its Error Comment."""
        return self.text(0x0902)

    @property
    def offending(self) -> list[int]:
        """Return the tags of its Offending Element as numbers ggggeeee."""
        pairs = struct.iter_unpack("<HH", self.elements.get(0x0901, b""))
        return [group << 16 | element for group, element in pairs]


# Bytes to send


def item(kind: int, body: bytes) -> bytes:
    """Encode an item or sub-item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(body)) + body


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """Encode a PDU, with a forged length if one is given."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def associate_rq(
    contexts: Sequence[Context],
    *,
    calling: bytes = b"RAWPEER",
    called: bytes = b"STOWKEEPER",
    maximum_length: int | None = 16384,
    window: tuple[int, int] | None = None,
    user_items: bytes = b"",
    uid_padding: bytes = b"",
    application_context: str = APPLICATION_CONTEXT,
    version: int = 1,
    more_items: bytes = b"",
) -> bytes:
    """Encode an A-ASSOCIATE-RQ (PS3.8 §9.3.2); AE titles of less than 16 bytes are padded with blanks."""
    body = struct.pack(">HH16s16s32x", version, 0, called.ljust(16), calling.ljust(16))
    body += item(0x10, application_context.encode())
    for context in contexts:
        inner = item(0x30, context.abstract_syntax.encode() + uid_padding)
        inner += b"".join(item(0x40, uid.encode() + uid_padding) for uid in context.transfer_syntaxes)
        body += item(0x20, struct.pack(">B3x", context.context_id) + inner)
    information = b"" if maximum_length is None else item(0x51, struct.pack(">I", maximum_length))
    information += item(0x52, b"1.2.3.4.5") + item(0x55, b"RAW_PEER")
    if window is not None:
        information += item(0x53, struct.pack(">HH", *window))
    return pdu(ASSOCIATE_RQ, body + item(0x50, information + user_items) + more_items)


def pdv(context_id: int, data: bytes, *, control: int, length: int | None = None) -> bytes:
    """Encode a PDV item, with a forged length if one is given."""
    return struct.pack(">IBB", len(data) + 2 if length is None else length, context_id, control) + data


def p_data(context_id: int, data: bytes, *, control: int) -> bytes:
    """Encode a P-DATA-TF with one PDV."""
    return pdu(P_DATA, pdv(context_id, data, control=control))


def command_set(elements: dict[int, bytes | int | str]) -> bytes:
    """Encode a command set: numbers as US, texts padded with NUL, bytes as they are."""
    body = b""
    for element, value in sorted(elements.items()):
        encoded = _command_value(value)
        body += struct.pack("<HHI", 0, element, len(encoded)) + encoded
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _command_value(value: bytes | int | str) -> bytes:
    if isinstance(value, int):
        return struct.pack("<H", value)
    if isinstance(value, str):
        return value.encode("latin-1") + b"\0" * (len(value) % 2)
    return value


def store_command(
    sop_instance_uid: str | None,
    *,
    sop_class_uid: str | None = CT_IMAGE_STORAGE,
    message_id: int = 1,
    has_data_set: bool = True,
) -> bytes:
    """Encode a C-STORE-RQ command; None leaves an element out."""
    elements: dict[int, bytes | int | str] = {
        0x0100: C_STORE_RQ,
        0x0110: message_id,
        0x0700: 0,
        0x0800: 1 if has_data_set else 0x0101,
    }
    if sop_class_uid is not None:
        elements[0x0002] = sop_class_uid
    if sop_instance_uid is not None:
        elements[0x1000] = sop_instance_uid
    return command_set(elements)


def echo_command(message_id: int = 1) -> bytes:
    """Encode a C-ECHO-RQ command."""
    return command_set({0x0002: VERIFICATION, 0x0100: C_ECHO_RQ, 0x0110: message_id, 0x0800: 0x0101})


def data_set_pdus(context_id: int, data: bytes, piece: int = 16000) -> bytes:
    """Encode a data set as P-DATA-TF PDUs with one PDV each."""
    starts = range(0, len(data), piece) or range(1)
    return b"".join(
        p_data(context_id, data[at : at + piece], control=LAST if at + piece >= len(data) else 0)
        for at in starts
    )


def store_message(
    context_id: int,
    sop_instance_uid: str | None,
    data: bytes,
    *,
    sop_class_uid: str | None = CT_IMAGE_STORAGE,
    message_id: int = 1,
    piece: int = 16000,
) -> bytes:
    """Encode a whole C-STORE-RQ with its data set."""
    command = store_command(sop_instance_uid, sop_class_uid=sop_class_uid, message_id=message_id)
    return p_data(context_id, command, control=COMMAND | LAST) + data_set_pdus(context_id, data, piece)


class RawPeer:
    """One TCP connection to a server. What it reads it reads whole PDU by PDU, in order."""

    def __init__(
        self, port: int, *, receive_buffer: int | None = None, host: str = "127.0.0.1", source: str = ""
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(SECONDS_MAX)
        try:
            if source:
                self.socket.bind((source, 0))
            self.socket.connect((host, port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.socket.close()
            raise
        self._received = bytearray()
        self._commands: dict[int, bytes] = {}
        self.accepted: dict[int, str] = {}
        self.results: dict[int, int] = {}
        self.user_information: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, in order as far as TCP knows."""
        self.socket.close()

    def reset(self) -> None:
        """Close the connection by RST, as a peer that crashed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes, *, pieces: Sequence[int] = ()) -> None:
        """Send bytes, in pieces of these lengths and the rest at once; a reset by the other side is no error."""
        at = 0
        with contextlib.suppress(ConnectionError):
            for length in pieces:
                self.socket.sendall(data[at : at + length])
                at += length
            self.socket.sendall(data[at:])

    def read_pdu(self) -> PDU:
        """Read one PDU; raise PeerClosed at the end of the connection, TimeoutError when nothing comes."""
        head = self._read(6)
        kind, length = struct.unpack(">BxI", head)
        return PDU(kind=kind, body=self._read(length))

    def read_to_end(self) -> list[PDU]:
        """Read PDUs until the other side closes."""
        found = []
        with contextlib.suppress(PeerClosed):
            while True:
                found.append(self.read_pdu())
        return found

    def _read(self, count: int) -> bytes:
        while len(self._received) < count:
            try:
                data = self.socket.recv(65536)
            except ConnectionError as error:
                raise PeerClosed(str(error)) from error
            if not data:
                raise PeerClosed(f"{len(self._received)} of {count} bytes")
            self._received += data
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def send_until(self, data: bytes, enough: Callable[[], bool]) -> None:
        """Send the same again and again, as far as the other side takes it, until there is enough."""
        self.socket.setblocking(False)
        deadline = time.monotonic() + SECONDS_MAX
        at = 0
        while not enough():
            if time.monotonic() > deadline:
                raise TimeoutError("there was never enough")
            if select.select([], [self.socket], [], 0.01)[1]:
                at = (at + self.socket.send(data[at:])) % len(data)
        self.socket.settimeout(SECONDS_MAX)

    # What orderly peers do.

    def associate(self, *contexts: Context, **more: object) -> PDU:
        """Ask for an association and return the answer; with no contexts, one each for CT and verification."""
        proposed = contexts or (
            Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE),
            Context(context_id=3, abstract_syntax=VERIFICATION),
        )
        self.send(associate_rq(proposed, **more))  # type: ignore[arg-type]  # handed on as they are
        return self.read_association_answer()

    def read_association_answer(self) -> PDU:
        """Read the answer to an A-ASSOCIATE-RQ; `accepted` and `results` then tell of the contexts."""
        answer = self.read_pdu()
        if answer.kind == ASSOCIATE_AC:
            for kind, body in _items(answer.body[68:]):
                if kind == 0x21:
                    self.results[body[0]] = body[2]
                    if body[2] == 0:
                        self.accepted[body[0]] = next(v for k, v in _items(body[4:]) if k == 0x40).decode()
                elif kind == 0x50:
                    self.user_information.update(_items(body))
        return answer

    def read_answer(self) -> Answer:
        """Read one response, whose command may come in several PDUs."""
        while True:
            received = self.read_pdu()
            if received.kind != P_DATA:
                raise AssertionError(
                    f"PDU type {received.kind} came in place of a response: {received.body!r}"
                )
            rest = received.body
            while rest:
                length, context_id, control = struct.unpack_from(">IBB", rest)
                data, rest = rest[6 : 4 + length], rest[4 + length :]
                collected = self._commands.pop(context_id, b"") + data
                if control & LAST:
                    assert not rest, "two responses in one PDU are more than this peer reads"
                    return Answer(context_id=context_id, elements=_elements(collected))
                self._commands[context_id] = collected

    def store(
        self, sop_instance_uid: str | None, data: bytes, *, context_id: int = 1, **more: object
    ) -> Answer:
        """Send one instance and wait for the answer."""
        self.send(store_message(context_id, sop_instance_uid, data, **more))  # type: ignore[arg-type]  # as they are
        return self.read_answer()

    def echo(self, *, context_id: int = 3, message_id: int = 7) -> Answer:
        """Send a C-ECHO and wait for the answer."""
        self.send(p_data(context_id, echo_command(message_id), control=COMMAND | LAST))
        return self.read_answer()

    def release(self) -> PDU:
        """Ask for release and return the answer."""
        self.send(RELEASE_REQUEST)
        return self.read_pdu()


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def _elements(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        _, element, length = struct.unpack_from("<HHI", data)
        found[element] = data[8 : 8 + length]
        data = data[8 + length :]
    return found
