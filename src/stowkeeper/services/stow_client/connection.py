"""One connection to a DICOMweb server: requests go out in pieces, answers come in within bounds of time and bytes.

What `http.client` writes and reads goes through `_Line`, which looks for an answer while a body is still on its way: a
server that refuses says so at once, closes, and would not be heard by whoever sends on. Interim answers (1xx) are passed
over. Every wait has an end, and sees within a moment that sending was interrupted.
"""

import contextlib
import errno
import http.client
import io
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from stowkeeper.net.tls_words import alert_words, words_of
from stowkeeper.services.stow_client.address import StoreAddress
from stowkeeper.services.stow_client.batches import BatchBody
from stowkeeper.services.stow_client.limits import (
    ANSWER_PIECE_BYTES,
    CONNECT_SECONDS,
    INTERIM_HEAD_BYTES_MAX,
    LOST_ANSWER_SECONDS,
    STOP_ANSWER_SECONDS,
    WATCH_SECONDS,
)
from stowkeeper.stow.limits import RESPONSE_BYTES_MAX

_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1")
_STATUS_BYTES: Final = len(b"HTTP/1.1 1")
_HEAD_END: Final = b"\r\n\r\n"
_WORDS: Final = {
    errno.ECONNREFUSED: "nothing listens on that port",
    errno.EHOSTUNREACH: "there is no way to that host",
    errno.ENETUNREACH: "there is no way to that network",
    errno.ETIMEDOUT: "the host does not answer",
    errno.ECONNRESET: "it closed the connection at once",
}


class UnreachableError(Exception):
    """There is no connection to the server; the text is a sentence. Where it is `for_good`, trying again is no use."""

    def __init__(self, sentence: str, *, for_good: bool) -> None:
        super().__init__(sentence)
        self.for_good = for_good


class AnswerLostError(Exception):
    """A request was sent, at least in part, and what the server made of it is not known; the text says why."""


class _ConnectionGoneError(AnswerLostError):
    """The connection ended without a byte of an answer."""


class StoppedError(AnswerLostError):
    """Sending was interrupted before the answer was there."""


class _AnsweredEarlyError(Exception):
    """The server has answered, and takes no more of the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer. `fields` are by name in lower case; `media_type` is without parameters."""

    status: int
    media_type: str
    fields: Mapping[str, str]
    body: bytes


class ServerConnection:
    """A connection that is opened when it is needed, and again when the server has closed it.

    `seconds` is how long the server may stand still, `stop` tells that sending was interrupted. For one thread.
    """

    def __init__(
        self, address: StoreAddress, context: ssl.SSLContext | None, *, seconds: float, stop: threading.Event
    ) -> None:
        self._address = address
        self._context = context if address.scheme == "https" else None
        self._seconds = seconds
        self._stop = stop
        self._line: _Line | None = None

    def post(
        self, target: str, fields: Mapping[str, str], body: BatchBody, sent: Callable[[int], None]
    ) -> Answer:
        """Send a request and return its answer; `sent` is told of the bytes of the body that went out.

        Raises UnreachableError, AnswerLostError, StoppedError, and UnreadableFileError.
        """
        if self._line is not None and not self._line.is_silent():
            self.close()
        is_reused = self._line is not None
        out = 0

        def count(number: int) -> None:
            nonlocal out
            out += number
            sent(number)

        try:
            return self._exchange(target, fields, body, count)
        except UnreachableError:
            sent(-out)  # it refuses our certificate, perhaps with the body on its way
            raise
        except _ConnectionGoneError:
            if not is_reused:
                raise
        # The server closed a connection that stood idle, as it may at any time (RFC 9112 §9.3.1).
        sent(-out)
        try:
            return self._exchange(target, fields, body, sent)
        except UnreachableError as error:
            raise AnswerLostError(str(error).rstrip(".")) from error

    def close(self) -> None:
        """Close the connection, if there is one."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _exchange(
        self, target: str, fields: Mapping[str, str], body: BatchBody, sent: Callable[[int], None]
    ) -> Answer:
        if self._line is None:
            self._line = _Line(self._connect(), self._seconds, self._stop, _where(self._address))
        line = self._line
        connection = http.client.HTTPConnection(self._address.host, self._address.port)
        connection.sock = line
        is_reusable = False
        try:
            connection.putrequest("POST", target, skip_host=True)
            connection.putheader("Host", self._address.authority)
            for name, value in fields.items():
                connection.putheader(name, value)
            connection.putheader("Content-Type", body.content_type)
            connection.putheader("Content-Length", str(body.length))
            is_whole = _send(connection, body, sent)
            line.wait_for_answer()
            response = connection.getresponse()
            answer = _read(response)
            is_reusable = is_whole and not response.will_close
            return answer
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise AnswerLostError(f"its answer cannot be read: {_plain(error)}") from error
        finally:
            if not is_reusable:
                self.close()

    def _connect(self) -> socket.socket:
        address = self._address
        try:
            plain = socket.create_connection((address.host, address.port), self._connect_seconds)
        except TimeoutError as error:
            words = _WORDS.get(
                error.errno or 0, f"it did not answer within {self._connect_seconds:g} seconds"
            )
        except socket.gaierror:
            words = "that name is not known"
        except UnicodeError:
            words = "that is no host name"
        except OSError as error:
            words = _WORDS.get(error.errno or 0) or error.strerror or type(error).__name__
        else:
            return self._secured(plain)
        raise UnreachableError(f"{_where(address)} cannot be reached: {words}.", for_good=False)

    def _secured(self, plain: socket.socket) -> socket.socket:
        """Return the connection as it is, or over TLS."""
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._context is None:
            return plain
        try:
            return self._context.wrap_socket(plain, server_hostname=self._address.host)
        except ssl.SSLError as error:
            plain.close()
            words = words_of(error)
            raise UnreachableError(
                f"{_where(self._address)} cannot be called over TLS: {words}.", for_good=True
            ) from error
        except OSError as error:
            plain.close()
            words = error.strerror or "it did not shake hands in time"
            raise UnreachableError(
                f"{_where(self._address)} cannot be called over TLS: {words}.", for_good=False
            ) from error

    @property
    def _connect_seconds(self) -> float:
        return min(self._seconds, CONNECT_SECONDS)


def _send(connection: http.client.HTTPConnection, body: BatchBody, sent: Callable[[int], None]) -> bool:
    """Send head and body; tell whether all of it went out, which it does not when the server answers before."""
    try:
        connection.endheaders()
        for piece in body.pieces():
            connection.send(piece)
            sent(len(piece))
    except _AnsweredEarlyError:
        return False
    return True


def _read(response: http.client.HTTPResponse) -> Answer:
    """Read an answer to its end. Raises http.client.HTTPException, OSError and ValueError."""
    body = bytearray()
    while piece := response.read(ANSWER_PIECE_BYTES):
        body += piece
        if len(body) > RESPONSE_BYTES_MAX:
            raise ValueError(f"it has more than {RESPONSE_BYTES_MAX} bytes")
    if response.length:  # read in pieces, http.client itself does not mind
        raise http.client.IncompleteRead(b"", response.length)
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Answer(
        status=response.status,
        media_type=fields.get("content-type", "").partition(";")[0].strip().lower(),
        fields=fields,
        body=bytes(body),
    )


class _Line:
    """What `http.client` has for a socket: it writes with an eye on what comes in, and reads from what came.

    The socket does not block; waiting is done here. Over TLS what can be read need not be data, so all is read at once
    into `_incoming` and looked at there.
    """

    def __init__(self, connected: socket.socket, seconds: float, stop: threading.Event, where: str) -> None:
        connected.settimeout(0)
        self._where = where
        self._refusal = ""
        self._socket = connected
        self._seconds = seconds
        self._stop = stop
        self._incoming = bytearray()
        self._is_at_end = False
        self._deadline: float | None = None

    # For http.client.

    def sendall(self, data: bytes | memoryview) -> None:
        """Send bytes. Raises _AnsweredEarlyError when the server has answered, UnreachableError and AnswerLostError."""
        view = memoryview(data)
        until = time.monotonic() + self._seconds
        self._deadline = None
        while view:
            if self._has_answer():
                raise _AnsweredEarlyError
            self._go_on()
            try:
                count = self._socket.send(view)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(until, writing=True)
            except ssl.SSLWantReadError:
                self._wait(until, writing=False)
            except OSError:
                # Whatever the server said before it closed is still there to be read.
                self._look_for_last_words()
                raise _AnsweredEarlyError from None
            else:
                view = view[count:]
                until = time.monotonic() + self._seconds

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return what came in as a stream, for one answer."""
        return io.BufferedReader(_Incoming(self))

    def close(self) -> None:
        """Close the connection; whatever is on its way is given up."""
        self._is_at_end = True
        with contextlib.suppress(OSError):
            self._socket.close()

    # For the connection.

    def is_silent(self) -> bool:
        """Tell whether the connection stands and nothing came that nobody asked for: then it can be used again."""
        return not self._receive() and not self._is_at_end

    def wait_for_answer(self) -> None:
        """Wait until an answer begins; from then on it has so long to its end as the server may stand still.

        Raises UnreachableError, AnswerLostError and StoppedError.
        """
        until = time.monotonic() + self._seconds
        stop_until: float | None = None
        while not self._has_answer():
            if self._stop.is_set():
                stop_until = stop_until or time.monotonic() + STOP_ANSWER_SECONDS
                if time.monotonic() >= stop_until:
                    raise StoppedError("sending was interrupted before the server answered")
            if time.monotonic() >= until:
                raise AnswerLostError(f"the server did not answer within {self._seconds:g} seconds")
            self._select(WATCH_SECONDS, writing=False)
        self._expect_words("the server closed the connection without an answer")
        self._deadline = time.monotonic() + self._seconds

    def read_into(self, buffer: memoryview) -> int:
        """Give bytes of the answer, 0 at its end. Raises AnswerLostError."""
        while not self._incoming and not self._is_at_end:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                raise AnswerLostError(f"the server did not end its answer within {self._seconds:g} seconds")
            if not self._receive():
                self._select(WATCH_SECONDS, writing=False)
        count = min(len(buffer), len(self._incoming))
        buffer[:count] = self._incoming[:count]
        del self._incoming[:count]
        return count

    # Within.

    def _has_answer(self) -> bool:
        """Tell whether an answer has begun, or the connection has ended; interim answers are passed over."""
        self._receive()
        while True:
            if len(self._incoming) < _STATUS_BYTES:
                return self._is_at_end
            if not _INTERIM.match(self._incoming):
                return True
            end = self._incoming.find(_HEAD_END)
            if end < 0:
                if len(self._incoming) > INTERIM_HEAD_BYTES_MAX:
                    raise AnswerLostError("its interim answer has no end")
                return self._is_at_end
            del self._incoming[: end + len(_HEAD_END)]

    def _receive(self) -> bool:
        """Take in what is there, without waiting; tell whether there is anything."""
        while not self._is_at_end and len(self._incoming) < ANSWER_PIECE_BYTES:
            try:
                piece = self._socket.recv(ANSWER_PIECE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except ssl.SSLError as error:
                piece = b""
                self._refusal = alert_words(error)
            except OSError:
                piece = b""
            self._incoming += piece
            self._is_at_end = not piece
        return bool(self._incoming)

    def _look_for_last_words(self) -> None:
        until = time.monotonic() + LOST_ANSWER_SECONDS
        while not self._has_answer() and time.monotonic() < until and not self._stop.is_set():
            self._select(WATCH_SECONDS, writing=False)
        self._expect_words("the server closed the connection while it was sent to")

    def _expect_words(self, without: str) -> None:
        """Raise _ConnectionGoneError where nothing came; UnreachableError where the server refused by a TLS alert.

        Since TLS 1.3 a client hears only behind its handshake what the server thinks of its certificate (RFC 8446 §4.4.2.4).
        """
        if self._incoming:
            return
        if self._refusal:
            raise UnreachableError(
                f"{self._where} cannot be called over TLS: {self._refusal}.", for_good=True
            )
        raise _ConnectionGoneError(without)

    def _wait(self, until: float, *, writing: bool) -> None:
        """Wait a moment until bytes can go out or come in."""
        self._go_on()
        if time.monotonic() >= until:
            raise AnswerLostError(f"the server took no data for {self._seconds:g} seconds")
        self._select(WATCH_SECONDS, writing=writing)

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedError("sending was interrupted before all of it went out")

    def _select(self, seconds: float, *, writing: bool) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if writing else 0))
        poll.poll(seconds * 1000)


class _Incoming(io.RawIOBase):
    """The bytes that come in on a line."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader passes
        """Read what is there."""
        return self._line.read_into(memoryview(buffer))


def _where(address: StoreAddress) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _plain(error: BaseException) -> str:
    """Say what is wrong with an answer without repeating what it holds."""
    if isinstance(error, http.client.IncompleteRead):
        return "it ends before the length that it states"
    if isinstance(error, http.client.HTTPException):
        return f"it is no HTTP ({type(error).__name__})"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
