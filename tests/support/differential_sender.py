"""The sender of a scenario: what each step does on the wire, and what it says came of it, in types that JSON knows."""

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

from support.raw_peer import (
    ABORT,
    ABORT_REQUEST,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND,
    LAST,
    P_DATA,
    PDU,
    RELEASE_REQUEST,
    RELEASE_RP,
    Answer,
    Context,
    PeerClosed,
    RawPeer,
    associate_rq,
    data_set_pdus,
    echo_command,
    item,
    p_data,
    store_command,
)

_IMPLEMENTATION_ITEMS = item(0x52, b"1.2.3.4.5") + item(0x55, b"RAW_PEER")
SECONDS_MAX = 8.0
"""How long an answer is awaited; one that is not there by then is a silence."""
_IDENTITY = item(0x58, b"\1\1\0\3abc\0\0")
_IMPLEMENTATION = (0x52, 0x55)


class Sender:
    """Carries out steps on connections, which have numbers; `connected` is called for each new one."""

    def __init__(self, *, port: int, connected: Callable[[], None]) -> None:
        self._port = port
        self._connected = connected
        self._peers: dict[int, RawPeer] = {}

    def close(self) -> None:
        """Close all connections."""
        for peer in self._peers.values():
            peer.close()

    def do(self, kind: str, step: dict[str, Any]) -> Any:
        """Do one step; return what came of it."""
        number = step.pop("connection")
        if kind == "Associate" or (kind == "Send" and number not in self._peers):
            self._connect(number)
        peer = self._peers.get(number)
        if peer is None:
            return None if kind in ("Abort", "Close") else "not connected"
        peer.socket.settimeout(step.pop("seconds", None) or SECONDS_MAX)
        try:
            return getattr(self, f"_{kind.lower()}")(peer, **step)
        except PeerClosed:
            return self._gone(number, "closed")
        except TimeoutError:
            return "silence"
        except _Rejected as rejected:
            return self._gone(number, ["rejected", *rejected.args])
        except _Aborted as aborted:
            return self._gone(number, ["aborted", *aborted.args])
        finally:
            if kind in ("Release", "Abort", "Close"):
                self._gone(number)

    def _connect(self, number: int) -> None:
        self._gone(number)
        self._peers[number] = RawPeer(self._port)
        self._connected()

    def _gone(self, number: int, answer: Any = None) -> Any:
        if number in self._peers:
            self._peers.pop(number).close()
        return answer

    def _associate(self, peer: RawPeer, **asked: Any) -> Any:
        peer.send(request(asked))
        return _meaning(peer.read_association_answer())

    def _store(self, peer: RawPeer, **asked: Any) -> Any:
        command = store_command(
            asked["uid"],
            sop_class_uid=asked["sop_class"],
            message_id=asked["message_id"],
            has_data_set=asked["has_data_set"],
        )
        pdus = p_data(asked["context_id"], command, control=COMMAND | LAST)
        if asked["has_data_set"]:
            pdus += data_set_pdus(asked["context_id"], bytes.fromhex(asked["data"]), asked["piece"])
        peer.send(pdus)
        return _response(peer)

    def _echo(self, peer: RawPeer, *, context_id: int, message_id: int) -> Any:
        peer.send(p_data(context_id, echo_command(message_id), control=COMMAND | LAST))
        return _response(peer)

    def _send(self, peer: RawPeer, *, data: str) -> None:
        peer.send(bytes.fromhex(data))

    def _receive(self, peer: RawPeer) -> Any:
        return _meaning(peer.read_pdu())

    def _awaitend(self, peer: RawPeer) -> Any:
        found = []
        with contextlib.suppress(PeerClosed):
            while True:
                found.append(_meaning(peer.read_pdu()))
        return found

    def _release(self, peer: RawPeer) -> Any:
        peer.send(RELEASE_REQUEST)
        return _meaning(peer.read_pdu())

    def _abort(self, peer: RawPeer) -> None:
        peer.send(ABORT_REQUEST)

    def _close(self, peer: RawPeer, *, by_reset: bool) -> None:
        if by_reset:
            peer.reset()


class _Rejected(Exception):  # noqa: N818 - it is what happened
    """The receiver rejected an association with this result, source and reason."""


class _Aborted(Exception):  # noqa: N818 - it is what happened
    """The receiver sent an A-ABORT of this source and reason."""


def request(asked: dict[str, Any]) -> bytes:
    """Encode the A-ASSOCIATE-RQ that a step asks for."""
    more = b"".join(_class_item(0x54, uid, bytes(roles)) for uid, *roles in asked["roles"])
    more += b"".join(_class_item(0x56, uid, bytes.fromhex(data)) for uid, data in asked["extended"])
    encoded = associate_rq(
        [
            Context(context_id=number, abstract_syntax=uid, transfer_syntaxes=tuple(syntaxes))
            for number, uid, syntaxes in asked["contexts"]
        ],
        calling=asked["calling"].encode("latin-1"),
        called=asked["called"].encode("latin-1"),
        maximum_length=asked["maximum_length"],
        application_context=asked["application_context"],
        version=asked["version"],
        uid_padding=bytes.fromhex(asked["uid_padding"]),
        window=(4, 4) if asked["asks_identity"] else None,
        user_items=more + (_IDENTITY if asked["asks_identity"] else b""),
    )
    return encoded if asked["has_implementation"] else _without(encoded, _IMPLEMENTATION_ITEMS)


def _without(encoded: bytes, left_out: bytes) -> bytes:
    """Leave something out of the user information, which is the last item."""
    shorter = encoded.replace(left_out, b"")
    less = len(encoded) - len(shorter)
    start = len(encoded) - _user_information_length(encoded)
    (length,) = struct.unpack_from(">H", shorter, start - 2)
    shorter = shorter[: start - 2] + struct.pack(">H", length - less) + shorter[start:]
    return shorter[:2] + struct.pack(">I", len(shorter) - 6) + shorter[6:]


def _user_information_length(encoded: bytes) -> int:
    return next(len(body) for kind, body in _items(encoded[74:]) if kind == 0x50)


def _class_item(kind: int, uid: str, rest: bytes) -> bytes:
    return item(kind, struct.pack(">H", len(uid)) + uid.encode() + rest)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def _meaning(pdu: PDU) -> Any:
    """Return what a PDU says, without what names the implementation."""
    if pdu.kind == ASSOCIATE_AC:
        return _acceptance(pdu.body)
    if pdu.kind == ASSOCIATE_RJ:
        raise _Rejected(*pdu.reasons)
    if pdu.kind == ABORT:
        raise _Aborted(*pdu.reasons)
    if pdu.kind == RELEASE_RP:
        return "released"
    if pdu.kind == P_DATA:
        return "data"
    return ["PDU", pdu.kind]


def _acceptance(body: bytes) -> dict[str, Any]:
    contexts, user = {}, []
    for kind, content in _items(body[68:]):
        if kind == 0x21:
            contexts[str(content[0])] = [content[2], dict(_items(content[4:]))[0x40].decode("latin-1")]
        elif kind == 0x50:
            user = [[inner, value.hex()] for inner, value in _items(content) if inner not in _IMPLEMENTATION]
    titles = body[4:36].decode("latin-1")
    return {"contexts": contexts, "titles": titles, "user": user}


def _response(peer: RawPeer) -> dict[str, Any]:
    """Read a response; an A-ABORT in its place is reported as what it is."""
    first = peer.read_pdu()
    if first.kind != P_DATA:
        return _meaning(first)  # type: ignore[no-any-return]  # whatever it is
    collected = b""
    while True:
        rest = first.body
        while rest:
            length, context_id, control = struct.unpack_from(">IBB", rest)
            collected, rest = collected + rest[6 : 4 + length], rest[4 + length :]
            if control & LAST:
                return _told(Answer(context_id=context_id, elements=_elements(collected)))
        first = peer.read_pdu()


def _told(answer: Answer) -> dict[str, Any]:
    return {
        "status": f"{answer.status:04X}",
        "command": f"{answer.command_field:04X}",
        "context": answer.context_id,
        "responds to": answer.responds_to,
        "class": answer.elements.get(0x0002, b"").decode("latin-1"),
        "instance": answer.elements.get(0x1000, b"").decode("latin-1"),
        "elements": [f"{number:04X}" for number in answer.elements],
    }


def _elements(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        _, element, length = struct.unpack_from("<HHI", data)
        found[element] = data[8 : 8 + length]
        data = data[8 + length :]
    return found
