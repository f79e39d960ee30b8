"""HTTP by hand, over a plain socket: what a client of a library cannot say."""

import contextlib
import socket

from support.web_server import WebThread

WAIT_SECONDS = 30.0
SOON = 0.2
"""A bound of the server that a test shortens to so many seconds."""

REQUEST = b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(thread: WebThread) -> socket.socket:
    return socket.create_connection((thread.host, thread.port), WAIT_SECONDS)


def read_all(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def read_one(sock: socket.socket) -> bytes:
    """Return one whole answer of a connection that goes on."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = sock.recv(65536)
        assert piece, answer
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    (length,) = [line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    while len(body) < int(length):
        piece = sock.recv(65536)
        assert piece, head + b"\r\n\r\n" + body
        body += piece
    return head + body


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer.split()[1])
