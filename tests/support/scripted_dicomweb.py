"""A DICOMweb server that answers as a script says: right, wrong, late, in pieces or not at all. Over real sockets.

It reads multipart by means of its own, so that it does not share the mistakes of the product.
"""

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from stowkeeper.stow.response import FailedInstance, OtherFailure, StoredInstance, StoreResult, write_response

_SOP_INSTANCE = re.compile(rb"\x08\x00\x18\x00UI(..)", re.DOTALL)
WAIT_SECONDS = 30.0


class Act(Enum):
    """What a server may do in place of an answer."""

    CLOSE = auto()
    SILENCE = auto()
    """Say nothing, and read nothing, until the server is stopped."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int = 200
    body: bytes = b""
    media_type: str = "application/dicom+json"
    fields: Mapping[str, str] = field(default_factory=dict)
    closes: bool = False
    lingers: bool = False
    """Leave the connection open, and read nothing more."""

    def encoded(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} Words", f"Content-Length: {len(self.body)}"]
        if self.body:
            lines.append(f"Content-Type: {self.media_type}")
        lines += [f"{name}: {value}" for name, value in self.fields.items()]
        if self.closes:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Request:
    """A request as it came; `parts` are the contents, `uids` the SOP instances in them."""

    number: int
    line: str
    fields: Mapping[str, str]
    body: bytes
    parts: Sequence[bytes] = ()
    part_fields: Sequence[bytes] = ()

    @property
    def uids(self) -> list[str]:
        return [uid_in(part) for part in self.parts]


Answer = Reply | bytes | Act
"""A reply, or bytes that go out as they are before the connection is closed, or an act."""


def uid_in(part10: bytes) -> str:
    """Find the SOP Instance UID in an Explicit VR Little Endian file."""
    found = _SOP_INSTANCE.search(part10)
    assert found is not None
    length = int.from_bytes(found[1], "little")
    return part10[found.end() : found.end() + length].strip(b"\0").decode()


def module(
    *stored: str,
    failed: Mapping[str, int] | None = None,
    warned: Mapping[str, int] | None = None,
    others: int = 0,
) -> bytes:
    """Return a store response in DICOM JSON."""
    kept = [StoredInstance("1.2.840.10008.5.1.4.1.1.2", uid) for uid in stored]
    kept += [
        StoredInstance("1.2.840.10008.5.1.4.1.1.2", uid, warning=code) for uid, code in (warned or {}).items()
    ]
    refused = [
        FailedInstance("1.2.840.10008.5.1.4.1.1.2", uid, code, "words of the server")
        for uid, code in (failed or {}).items()
    ]
    result = StoreResult(tuple(kept), tuple(refused), (OtherFailure(0xC000),) * others)
    return write_response(result, "application/dicom+json")


def store_all(request: Request) -> Answer:
    """Answer as a server that keeps everything."""
    return Reply(body=module(*request.uids))


@dataclass
class Script:
    """What the server does: `on_head` may answer before the body is read, `answer` after it."""

    answer: Callable[[Request], Answer] = store_all
    on_head: Callable[[Request], Answer | None] = lambda _: None
    discards: bool = False
    """Keep nothing of the bodies."""


class ScriptedServer:
    """A running server."""

    def __init__(self, script: Script, context: ssl.SSLContext | None) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.connections = 0
        self._context = context
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'http' if self._context is None else 'https'}://127.0.0.1:{self.port}/dicom-web"

    @property
    def stored(self) -> list[str]:
        """The instances of all requests, in the order in which they came."""
        return [uid for request in self.requests for uid in request.uids]

    def stop_listening(self) -> None:
        """Take no further connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def stop(self) -> None:
        self._stopping.set()
        self.stop_listening()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            # Else an answer waits for the acknowledgement of a session ticket, and is thrown away by the close.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as stream:
                while self._serve_one(connection, stream):
                    pass

    def _serve_one(self, connection: socket.socket, stream) -> bool:
        head = _read_head(stream)
        if head is None:
            return False
        line, fields = head
        request = Request(number=-1, line=line, fields=fields, body=b"")
        early = self.script.on_head(request)
        if early is not None:
            self._keep(request)
            self._answer(connection, early)
            return False
        request = self._with_body(request, stream)
        if request is None:
            return False
        request = self._keep(request)
        answer = self.script.answer(request)
        self._answer(connection, answer)
        return isinstance(answer, Reply) and not answer.closes

    def _with_body(self, request: Request, stream) -> Request | None:
        length = int(request.fields.get("content-length", 0))
        if self.script.discards:
            left = length
            while left:
                piece = stream.read(min(left, 1 << 20))
                if not piece:
                    return None
                left -= len(piece)
            return request
        body = stream.read(length)
        if len(body) < length:
            return None
        boundary = re.search(r'boundary="([^"]+)"', request.fields["content-type"])
        assert boundary is not None
        first, *pieces, end = (b"\r\n" + body).split(f"\r\n--{boundary[1]}".encode())
        assert first == b""
        assert end == b"--\r\n"
        heads_and_parts = [piece.removeprefix(b"\r\n").split(b"\r\n\r\n", 1) for piece in pieces]
        return Request(
            number=-1,
            line=request.line,
            fields=request.fields,
            body=body,
            parts=[part for _, part in heads_and_parts],
            part_fields=[fields for fields, _ in heads_and_parts],
        )

    def _keep(self, request: Request) -> Request:
        with self._lock:
            numbered = Request(
                number=len(self.requests),
                line=request.line,
                fields=request.fields,
                body=request.body,
                parts=request.parts,
                part_fields=request.part_fields,
            )
            self.requests.append(numbered)
            return numbered

    def _answer(self, connection: socket.socket, answer: Answer) -> None:
        if isinstance(answer, Reply):
            connection.sendall(answer.encoded())
            if answer.lingers:
                self._stopping.wait(WAIT_SECONDS)
        elif isinstance(answer, bytes):
            connection.sendall(answer)
        elif answer is Act.SILENCE:
            self._stopping.wait(WAIT_SECONDS)


def _read_head(stream) -> tuple[str, dict[str, str]] | None:
    lines = []
    while (line := stream.readline()) not in {b"\r\n", b""}:
        lines.append(line.decode("latin-1").rstrip("\r\n"))
    if not lines:
        return None
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return lines[0], fields


@contextmanager
def scripted_server(
    script: Script | None = None, context: ssl.SSLContext | None = None
) -> Iterator[ScriptedServer]:
    """Run a server on a free port of the loopback interface."""
    server = ScriptedServer(script or Script(), context)
    try:
        yield server
    finally:
        server.stop()
