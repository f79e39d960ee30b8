"""Syslog: events as messages for the machine's own syslog (RFC 3164) or a server's (RFC 5424), and the ways there."""

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping

from stowkeeper.app.limits import SYSLOG_BYTES_MAX, SYSLOG_SECONDS
from stowkeeper.app.log_lines import head_of

LOCAL_PLACE = "/dev/log"
SEVERITIES: Mapping[str, int] = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""Numbers of the severities by our levels (RFC 5424 §6.2.1)."""

FACILITIES: Mapping[str, int] = {
    "user": 1,
    "daemon": 3,
    **{f"local{number}": 16 + number for number in range(8)},
}
"""Numbers of the facilities by their names (RFC 5424 §6.2.1)."""

APPLICATION = "stowkeeper"

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Encode = Callable[[Mapping[str, object], str], bytes]
"""Makes the message of an event from its fields and its line."""


def encode_for_server(facility: str) -> Encode:
    """Return what makes messages by RFC 5424: the event is the message id, its line the text."""
    number = FACILITIES[facility] * 8
    host = _header_text(socket.gethostname(), 255)

    def encode(fields: Mapping[str, object], line: str) -> bytes:
        time_, level, event = head_of(fields)
        head = f"<{number + SEVERITIES.get(level, 6)}>1 {time_} {host} {APPLICATION} {os.getpid()} {_header_text(event, 32)} - "
        return cut(head + line)

    return encode


def encode_for_this_machine(facility: str) -> Encode:
    """Return what makes messages as syslog(3) does, by RFC 3164 §4.1: local time, no name of the machine."""
    number = FACILITIES[facility] * 8

    def encode(fields: Mapping[str, object], line: str) -> bytes:
        now = time.localtime()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
        level = head_of(fields)[1]
        return cut(f"<{number + SEVERITIES.get(level, 6)}>{stamp} {APPLICATION}[{os.getpid()}]: {line}")

    return encode


def cut(text: str) -> bytes:
    """Return a text in UTF-8, cut between letters where it is longer than a message may be."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= SYSLOG_BYTES_MAX:
        return data
    return data[: SYSLOG_BYTES_MAX - 3].decode("utf-8", "ignore").encode() + "…".encode()


def _header_text(text: str, length: int) -> str:
    """Return text for a field of the header: visible ASCII letters, `-` where there are none (RFC 5424 §6)."""
    return "".join(letter for letter in text if "!" <= letter <= "~")[:length] or "-"


class SyslogDatagrams:
    """Sends each message as a datagram over UDP (RFC 5426)."""

    def __init__(self, host: str, port: int) -> None:
        self.name = f"udp://{host}:{port}"
        self._host, self._port = host, port
        self._socket: socket.socket | None = None

    def send(self, message: bytes) -> None:
        """Send a message. Whether it arrives nobody knows. Raises OSError."""
        if self._socket is None:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_DGRAM
            )[0]
            opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(SYSLOG_SECONDS)
                opened.connect(address)
            except OSError:
                opened.close()
                raise
            self._socket = opened
        self._socket.send(message)

    def close(self) -> None:
        """Close the socket."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()


class SyslogStream:
    """Sends messages over a TCP connection (RFC 6587), each with its length in front or a line break behind."""

    def __init__(self, host: str, port: int, *, counts_octets: bool) -> None:
        self.name = f"tcp://{host}:{port}"
        self._host, self._port = host, port
        self._counts_octets = counts_octets
        self._socket: socket.socket | None = None

    def send(self, message: bytes) -> None:
        """Send a message over the connection, or over a new one where the server has closed it. Raises OSError."""
        if self._socket is not None and _has_ended(self._socket):
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection((self._host, self._port), timeout=SYSLOG_SECONDS)
        frame = b"%d %b" % (len(message), message) if self._counts_octets else message + b"\n"
        self._socket.sendall(frame)

    def close(self) -> None:
        """Close the connection."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()


def _has_ended(connection: socket.socket) -> bool:
    """Tell whether the other side has closed: it has no reason to send, so what can be read is the end."""
    connection.settimeout(0)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(SYSLOG_SECONDS)
    return True


class LocalDatagrams:
    """Sends messages to a socket of this machine, as datagrams, or as a stream where it is one."""

    def __init__(self, path: str = LOCAL_PLACE) -> None:
        self.name = path
        self._path = path
        self._socket: socket.socket | None = None
        self._is_stream = False

    def send(self, message: bytes) -> None:
        """Send a message. Raises OSError."""
        if self._socket is None:
            self._socket = self._connected()
        if self._is_stream:
            self._socket.sendall(message + b"\0")
        else:
            self._socket.send(message)

    def close(self) -> None:
        """Close the socket."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def _connected(self) -> socket.socket:
        if sys.platform == "win32":
            raise OSError(errno.ENOTSUP, "this system has no such socket", self._path)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            opened = socket.socket(socket.AF_UNIX, kind)
            with contextlib.ExitStack() as closing:
                closing.callback(opened.close)
                opened.settimeout(SYSLOG_SECONDS)
                try:
                    opened.connect(self._path)
                except OSError as error:
                    if error.errno == errno.EPROTOTYPE and kind == socket.SOCK_DGRAM:
                        continue
                    raise
                closing.pop_all()
            self._is_stream = kind == socket.SOCK_STREAM
            return opened
        raise OSError(errno.EPROTOTYPE, os.strerror(errno.EPROTOTYPE), self._path)
