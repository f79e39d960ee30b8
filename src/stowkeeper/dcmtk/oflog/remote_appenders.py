"""Appenders that send messages to the system log, or to a log server."""

import logging
import re
import socket
import time
from collections.abc import Callable
from logging.handlers import SysLogHandler
from typing import Any, Final

from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog.appenders import Appender
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.levels import level_of
from stowkeeper.dcmtk.oflog.limits import DATAGRAM_SECONDS_MAX, RECONNECT_SECONDS
from stowkeeper.dcmtk.oflog.patterns import full_host_name
from stowkeeper.dcmtk.oflog.times import format_time

SYSTEM_LOG: Final = "/dev/log"
"""Where the system log listens."""
FACILITIES: Final = {
    name: number for name, number in SysLogHandler.facility_names.items() if name != "solaris-cron"
}
FACILITY_DEFAULT: Final = "user"

_SEVERITIES: Final = {
    LogLevel.TRACE: SysLogHandler.LOG_DEBUG,
    LogLevel.DEBUG: SysLogHandler.LOG_DEBUG,
    LogLevel.INFO: SysLogHandler.LOG_INFO,
    LogLevel.WARN: SysLogHandler.LOG_WARNING,
    LogLevel.ERROR: SysLogHandler.LOG_ERR,
    LogLevel.FATAL: SysLogHandler.LOG_CRIT,
    LogLevel.OFF: SysLogHandler.LOG_ALERT,
}
_SEVERITY_BITS: Final = 3
_RFC_5424_VERSION: Final = 1
_NIL: Final = "-"

Frame = Callable[[logging.LogRecord, str], str]
"""Makes what is sent of a record and the text that the layout made of it."""


def connect_to_system_log(path: str = SYSTEM_LOG) -> socket.socket:
    """Return a socket to the system log of this host. Raises OSError."""
    return _connected(socket.AF_UNIX, path)


def connect_to_server(host: str, port: int) -> socket.socket:
    """Return a socket to a log server that takes datagrams. Raises OSError."""
    error: OSError = OSError("the host has no address")
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except UnicodeError as reason:
        raise OSError(f"not a host name: {reason}") from reason
    # Datagrams tell nothing about who gets them, so the first address counts: it is DCMTK's, which knows no others.
    for family, _, _, _, address in sorted(addresses, key=lambda found: found[0] != socket.AF_INET):
        try:
            return _connected(family, address)
        except OSError as reason:
            error = reason
    raise error


def _connected(family: int, address: tuple[Any, ...] | str) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_DGRAM)
    try:
        connection.settimeout(DATAGRAM_SECONDS_MAX)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


class DatagramAppender(Appender):
    """Sends every message as one datagram, in a frame around what the layout makes of it.

    What cannot be sent over a socket is tried once over a new one. While there is none, messages are dropped; that this
    happens is said once, since a server that is down refuses every other message.
    """

    def __init__(
        self, place: str, complaints: Complaints, connect: Callable[[], socket.socket], frame: Frame
    ) -> None:
        super().__init__(place, complaints)
        self._connect = connect
        self._frame = frame
        self._socket: socket.socket | None = None
        self._connect_at = 0.0
        self._open()

    def append(self, record: logging.LogRecord) -> None:
        """Send a message, or drop it."""
        data = self._frame(record, self.layout.text(record)).encode("utf-8", "backslashreplace")
        if not self._send(data):
            self._send(data)

    def let_go(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, data: bytes) -> bool:
        self._open()
        if self._socket is None:
            return False
        try:
            self._socket.send(data)
        except OSError as error:
            self.let_go()
            self._complain(error)
            return False
        return True

    def _open(self) -> None:
        if self._socket is None and time.monotonic() >= self._connect_at:
            self._connect_at = time.monotonic() + RECONNECT_SECONDS
            try:
                self._socket = self._connect()
            except OSError as error:
                self._complain(error)

    def _complain(self, error: OSError) -> None:
        self.complain_once("socket", f"messages cannot be sent: {error.strerror or error}")


# Frames


def system_log_frame(*, facility: str, ident: str) -> Frame:
    """Return the frame of the system log of this host: priority, local time, and who speaks."""

    def frame(record: logging.LogRecord, text: str) -> str:
        when = time.strftime("%b %e %H:%M:%S", time.localtime(record.created))
        return f"<{_priority(facility, record)}>{when} {ident}: {text}"

    return frame


def server_log_frame(*, facility: str, ident: str) -> Frame:
    """Return the frame of RFC 5424, with the name of the logger as the kind of the message."""
    host = full_host_name()

    def frame(record: logging.LogRecord, text: str) -> str:
        when = format_time(record.created, "%Y-%m-%dT%H:%M:%S.%qZ", utc=True)
        head = f"<{_priority(facility, record)}>{_RFC_5424_VERSION} {when}"
        return f"{head} {host} {ident or _NIL} {record.process} {record.name} {_NIL} {text}"

    return frame


def log4j_frame(record: logging.LogRecord, text: str) -> str:
    """Return a message in the XML of log4j."""
    level = level_of(record.levelno).name
    when = int(record.created * 1000)
    return (
        f'<log4j:event logger="{_escaped(record.name)}" level="{level}" timestamp="{when}" thread="{record.thread}">'
        f"<log4j:message>{_escaped(text)}</log4j:message><log4j:NDC></log4j:NDC>"
        f'<log4j:locationInfo class="" file="{_escaped(record.pathname)}" method="{_escaped(record.funcName or "")}"'
        f' line="{record.lineno}"/></log4j:event>'
    )


def _priority(facility: str, record: logging.LogRecord) -> int:
    return FACILITIES[facility] << _SEVERITY_BITS | _SEVERITIES[level_of(record.levelno)]


def _escaped(text: str) -> str:
    """Return a text for XML, with control characters as references to them."""
    return _NOT_IN_XML.sub(lambda found: _REFERENCES.get(found[0], f"&#x{ord(found[0]):02x};"), text)


_NOT_IN_XML = re.compile(r"[<>&'\"\x00-\x1f\x7f]")
_REFERENCES: Final = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "'": "&apos;", '"': "&quot;"}
