"""What a peer that is broken, or means harm, sends: bytes by name, and what a server is to say to each.

The same inputs are tried on a server in the test's own process, where its log can be read, and on a real one, where
its memory can be measured.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from support.instances import encode_element
from support.raw_peer import (
    ABORT,
    ABORT_REQUEST,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    P_DATA,
    RELEASE_REQUEST,
    RELEASE_RESPONSE,
    RELEASE_RQ,
    VERIFICATION,
    Context,
    associate_rq,
    command_set,
    data_set_pdus,
    echo_command,
    item,
    p_data,
    pdu,
    pdv,
    store_command,
    store_message,
)

DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
PROVIDER, USER = 2, 0
UNRECOGNIZED, UNEXPECTED, INVALID = 1, 2, 6
"""Sources and reasons of A-ABORT (PS3.8 §9.3.8)."""

CONTEXT = Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE)
REQUEST = associate_rq([CONTEXT])
SOME_DATA = Random(7).randbytes(40_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """Bytes to send, the kind of PDU that answers them with its reasons, and a word of why for the log."""

    name: str
    data: bytes
    answer: int
    reasons: tuple[int, ...]
    why: str


def _with_length(data: bytes, length: int) -> bytes:
    """Forge the length of the first PDU."""
    return data[:2] + struct.pack(">I", length) + data[6:]


def in_place_of_a_request() -> Iterator[Hostile]:
    """Yield what comes on a new connection where an A-ASSOCIATE-RQ should."""

    def aborted(name: str, data: bytes, reason: int, why: str) -> Hostile:
        return Hostile(name=name, data=data, answer=ABORT, reasons=(PROVIDER, reason), why=why)

    def rejected(name: str, data: bytes, reasons: tuple[int, int, int], why: str) -> Hostile:
        return Hostile(name=name, data=data, answer=ASSOCIATE_RJ, reasons=reasons, why=why)

    unknown = "there is no PDU of type"
    yield aborted("zeros", bytes(5000), UNRECOGNIZED, unknown)
    yield aborted("random bytes", b"\xe3" + Random(1).randbytes(5000), UNRECOGNIZED, unknown)
    yield aborted("an HTTP request", b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", UNRECOGNIZED, unknown)
    yield aborted(
        "a TLS hello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500), UNRECOGNIZED, unknown
    )
    yield aborted("an empty request", pdu(ASSOCIATE_RQ, b""), INVALID, "A-ASSOCIATE")
    yield aborted("a request cut short", pdu(ASSOCIATE_RQ, REQUEST[6:60]), INVALID, "A-ASSOCIATE")
    yield aborted(
        "a request said to have 4 GB", _with_length(REQUEST, 0xFFFFFFFF), INVALID, "4294967295 bytes"
    )
    yield aborted("a request said to be shorter", _with_length(REQUEST, len(REQUEST) - 20), INVALID, "item")
    forged = bytearray(REQUEST)
    forged[6 + 68 + 2 : 6 + 68 + 4] = b"\xff\xff"
    yield aborted("an item beyond the end", bytes(forged), INVALID, "claims 65535 bytes")
    many = b"".join(item(0x20, struct.pack(">B3x", n % 256)) for n in range(20_000))
    yield aborted("too many items", pdu(ASSOCIATE_RQ, REQUEST[6:74] + many), INVALID, "items in one PDU")
    yield aborted("data first", store_message(1, "1.2.3", SOME_DATA), UNEXPECTED, "P-DATA-TF is not expected")
    yield aborted("release first", RELEASE_REQUEST, UNEXPECTED, "A-RELEASE-RQ is not expected")
    yield aborted("release response first", RELEASE_RESPONSE, UNEXPECTED, "A-RELEASE-RP is not expected")
    yield aborted(
        "an acceptance", pdu(ASSOCIATE_AC, REQUEST[6:]), UNEXPECTED, "A-ASSOCIATE-AC is not expected"
    )
    yield aborted("a rejection", pdu(ASSOCIATE_RJ, b"\0\1\1\1"), UNEXPECTED, "A-ASSOCIATE-RJ is not expected")
    yield rejected("another version", associate_rq([CONTEXT], version=2), (1, 2, 2), "protocol version")
    other = associate_rq([CONTEXT], application_context="1.2.3")
    yield rejected("another application context", other, (1, 1, 2), "application context")
    yield rejected("no context at all", associate_rq([]), (1, 1, 1), "no presentation context")


def in_an_association() -> Iterator[Hostile]:
    """Yield what breaks the rules of PS3.8 and PS3.7 within an association whose one context has the id 1."""
    store = p_data(1, store_command("1.2.3"), control=COMMAND | LAST)
    some = p_data(1, SOME_DATA[:1000], control=0)

    def by_upper_layer(name: str, data: bytes, reason: int, why: str) -> Hostile:
        return Hostile(name=name, data=data, answer=ABORT, reasons=(PROVIDER, reason), why=why)

    def by_message_exchange(name: str, data: bytes, why: str) -> Hostile:
        return Hostile(name=name, data=data, answer=ABORT, reasons=(USER, 0), why=why)

    yield by_upper_layer("an unknown PDU", pdu(0x99, SOME_DATA), UNRECOGNIZED, "there is no PDU of type 99H")
    yield by_upper_layer("garbage in mid-message", store + some + b"\xee" * 3000, UNRECOGNIZED, "type EEH")
    yield by_upper_layer(
        "an oversized PDU", pdu(P_DATA, b"", 0x7FFFFFFF) + SOME_DATA, INVALID, "were announced"
    )
    yield by_upper_layer(
        "a PDU without room for a PDV", pdu(P_DATA, b"\0\0\0\1\1"), INVALID, "no place for a PDV"
    )
    for length in (0, 1, 1003, 0xFFFFFFFF):
        forged = pdu(P_DATA, pdv(1, SOME_DATA[:1000], control=0, length=length))
        yield by_upper_layer(f"a PDV of forged length {length}", store + forged, INVALID, "a PDV item of")
    tail = pdu(P_DATA, pdv(1, b"abcd", control=0) + b"\0\0\0")
    yield by_upper_layer("a PDU with a tail", store + tail, INVALID, "a PDV item of")
    yield by_upper_layer("another context", p_data(7, echo_command(), control=3), INVALID, "context 7")
    yield by_upper_layer("a second request", REQUEST, UNEXPECTED, "A-ASSOCIATE-RQ is not expected")
    acceptance = pdu(ASSOCIATE_AC, REQUEST[6:])
    yield by_upper_layer("an acceptance in mid-message", store + acceptance, UNEXPECTED, "A-ASSOCIATE-AC")
    yield by_upper_layer("a release response", RELEASE_RESPONSE, UNEXPECTED, "A-RELEASE-RP is not expected")
    yield by_upper_layer("a long release", pdu(RELEASE_RQ, bytes(400)), INVALID, "A-RELEASE-RQ of 400 bytes")
    yield by_upper_layer("a long abort", pdu(ABORT, bytes(400)), INVALID, "A-ABORT of 400 bytes")
    yield by_message_exchange("data before its command", some, "without a command")
    yield by_message_exchange("a command in mid-data-set", store + some + store, "before the data set")
    halves = [p_data(1, store_command("1.2.3")[:40], control=COMMAND), p_data(1, b"1234", control=LAST)]
    yield by_message_exchange("data in mid-command", b"".join(halves), "before the command")
    yield by_message_exchange("a release in mid-message", store + some + RELEASE_REQUEST, "asked for release")
    endless = p_data(1, bytes(16_000), control=COMMAND) * 6
    yield by_message_exchange("an endless command", endless, "goes on")
    yield by_message_exchange("a command of garbage", p_data(1, SOME_DATA[:512], control=3), "ommand")
    yield by_message_exchange("an empty command", p_data(1, b"", control=3), "ommand")
    cut = p_data(1, store_command("1.2.3")[:-3], control=3)
    yield by_message_exchange("a command cut short", cut, "ommand")
    nameless = p_data(1, command_set({0x0100: 1, 0x0800: 0x0101}), control=3)
    yield by_message_exchange("a command without message id", nameless, "without message id")
    untyped = p_data(1, command_set({0x0100: 0x30, 0x0110: 1}), control=3)
    yield by_message_exchange("a command that hides its data set", untyped, "data set type")


def interleaved() -> Iterator[Hostile]:
    """Yield messages that run into each other, in an association with contexts 1 (CT) and 3 (verification)."""
    store = p_data(1, store_command("1.2.3"), control=COMMAND | LAST) + p_data(1, SOME_DATA[:1000], control=0)
    for name, data, why in (
        ("an echo in mid-data-set", store + p_data(3, echo_command(), control=3), "before the data set"),
        ("data of another context", store + p_data(3, b"1234", control=LAST), "before the data set"),
        (
            "two commands at once",
            p_data(1, store_command("1.2.3")[:40], control=COMMAND) + p_data(3, echo_command(), control=3),
            "before the command",
        ),
    ):
        yield Hostile(name=name, data=data, answer=ABORT, reasons=(USER, 0), why=why)


TWO_CONTEXTS = (CONTEXT, Context(context_id=3, abstract_syntax=VERIFICATION))


# Data sets


def identifiers(sop_instance_uid: str) -> bytes:
    """Encode what a CT instance must have, in Explicit VR Little Endian."""
    return b"".join(
        encode_element(tag, b"UI", value.encode())
        for tag, value in (
            (0x00080016, CT_IMAGE_STORAGE),
            (0x00080018, sop_instance_uid),
            (0x0020000D, "1.2.10"),
            (0x0020000E, "1.2.10.1"),
        )
    )


def nested(depth: int, *, closed: bool) -> bytes:
    """Encode sequences of undefined length inside one another, closed in order or left open."""
    undefined = b"\xff\xff\xff\xff"
    opened = b"\x40\x00\x30\xa7SQ\0\0" + undefined + b"\xfe\xff\x00\xe0" + undefined
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return opened * depth + (closing * depth if closed else b"")


def bad_data_sets(sop_instance_uid: str) -> Iterator[tuple[str, bytes, str]]:
    """Yield data sets in Explicit VR Little Endian that do not parse to their end, with a word of why."""
    good = identifiers(sop_instance_uid)
    yield "nothing", b"", ""
    yield "garbage", Random(5).randbytes(30_000), ""
    yield "garbage behind the identifiers", good + Random(5).randbytes(30_000), ""
    yield "cut in a header", good + b"\x28\x00\x10", ""
    yield "cut in a value", good + b"\x28\x00\x10\x00US\x02\x00\x01", "inside the element"
    huge = b"\xe0\x7f\x10\x00OB\0\0\xfe\xff\xff\xff" + bytes(1000)
    yield "a value of 4 GB", good + huge, "before the end of the value"
    yield "sequences thousands deep", good + nested(5000, closed=True), ""
    yield "sequences thousands deep and open", good + nested(5000, closed=False), ""
    yield "a sequence left open", good + nested(1, closed=False), ""
    yield "a delimiter that closes nothing", good + b"\xfe\xff\xdd\xe0\0\0\0\0", ""


def bomb(sop_instance_uid: str, inflated: int) -> bytes:
    """Deflate an instance with one value of zeros, of so many bytes, a whole number of MB (PS3.5 §A.5)."""
    head = b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<I", inflated)
    deflater = zlib.compressobj(9, wbits=-15)
    data = deflater.compress(identifiers(sop_instance_uid) + head) + deflater.flush(zlib.Z_FULL_FLUSH)
    megabyte = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return data + megabyte * (inflated >> 20) + deflater.flush()


def unclosed_conversations() -> Iterator[bytes]:
    """Yield what a peer may leave behind when it stops: after each of these nothing comes any more."""
    yield b""
    yield REQUEST[:40]
    yield _with_length(REQUEST, 1 << 20)
    store = store_message(1, "1.2.3", SOME_DATA)
    for cut in (3, 9, 30, 300, len(store) - 1):
        yield REQUEST + store[:cut]
    yield REQUEST + data_set_pdus(1, b"xx") + ABORT_REQUEST[:5]
