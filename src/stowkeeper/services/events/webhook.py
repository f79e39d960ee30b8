"""Events told to an HTTP endpoint: a POST of JSON for each, signed, over a connection that stays open.

The fields are those of the Standard Webhooks specification: `webhook-id`, `webhook-timestamp` (seconds since 1970) and
`webhook-signature`, `v1,` and the HMAC-SHA-256 of `id.timestamp.body` in base 64. Any status from 200 to 299 means delivered. No
redirect is followed: it would lead where nobody meant, and perhaps back here.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Final, Self

from stowkeeper.services.events.document import event_id, event_json
from stowkeeper.services.events.feed import Event
from stowkeeper.services.events.limits import ANSWER_BYTES_MAX, POLL_SECONDS, RETRY_SECONDS_MAX
from stowkeeper.services.events.targets import DeliveryError

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - of every secret
_DELIVERED: Final = range(200, 300)
_REDIRECTED: Final = range(300, 400)


class SecretError(ValueError):
    """A secret cannot be used; the text says why, and not what it is."""


def secret_key(text: str) -> bytes:
    """Return the key that a secret stands for: base 64 behind `whsec_`, else its own bytes. Raises SecretError."""
    secret = text.strip()
    if not secret:
        raise SecretError("it is empty")
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except ValueError:
        raise SecretError(f"what stands behind {_SECRET_PREFIX} is not base 64") from None
    if not key:
        raise SecretError(f"nothing stands behind {_SECRET_PREFIX}")
    return key


def signature(key: bytes, identifier: str, timestamp: int, body: bytes) -> str:
    """Return the value of the field `webhook-signature`."""
    signed = b".".join((identifier.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class WebhookWay:
    """Posts each event to a URL. `key` signs it, where there is one; `seconds` bound one delivery."""

    def __init__(
        self, url: str, *, key: bytes | None, archive_id: str, seconds: float, tls: ssl.SSLContext | None
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = tls if parts.scheme == "https" else None
        self._usual_port = http.client.HTTPS_PORT if self._tls is not None else http.client.HTTP_PORT
        self._port = parts.port or self._usual_port
        self._place = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        self._named = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._key = key
        self._archive_id = archive_id
        self._seconds = seconds
        self._connection: http.client.HTTPConnection | None = None
        self._was_used = False

    def deliver(self, event: Event, is_over: Callable[[], bool]) -> None:
        """Post an event, once more on a new connection where the one that was open is closed. Raises DeliveryError."""
        body = event_json(self._archive_id, event)
        while True:
            is_first = not self._was_used
            try:
                status, again = self._post(event, body, is_over)
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                self.close()
                if is_first:
                    raise self._error(error) from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                raise self._error(error) from error
        if status in _DELIVERED:
            return
        words = f"{self._named} answered {status}"
        if status in _REDIRECTED:
            words += ", and no redirect is followed: name the address that it leads to"
        raise DeliveryError(words, again)

    def close(self) -> None:
        """Close the connection, if one is open."""
        connection, self._connection = self._connection, None
        self._was_used = False
        if connection is not None:
            connection.close()

    def _post(self, event: Event, body: bytes, is_over: Callable[[], bool]) -> tuple[int, float | None]:
        """Post once; return the status, and after how many seconds the endpoint wants to be asked again."""
        with _Deadline(self._seconds, is_over) as deadline:
            connection = self._connected(deadline)
            connection.request("POST", self._place, body, self._fields(event, body))
            answer = connection.getresponse()
            answer.read(ANSWER_BYTES_MAX)
            if deadline.was_cut:  # to whoever reads it looks like the end of the answer
                raise TimeoutError(f"no whole answer came in {self._seconds:g} seconds")
            self._was_used = True
            if not answer.isclosed() or answer.will_close:
                self.close()
            return answer.status, _seconds(answer.getheader("Retry-After"))

    def _connected(self, deadline: "_Deadline") -> http.client.HTTPConnection:
        connection = self._connection
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._seconds)
            connection.default_port = self._usual_port  # it need not stand in the field Host
            connection.auto_open = 0  # by itself it would open one without TLS
            self._connection = connection  # closed with it, whatever fails from here on
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                encrypted = self._tls.wrap_socket(
                    connection.sock, server_hostname=self._host, do_handshake_on_connect=False
                )
                connection.sock = deadline.socket = encrypted
                encrypted.do_handshake()  # under the deadline, which a server could outlast byte by byte
        deadline.socket = connection.sock
        return connection

    def _fields(self, event: Event, body: bytes) -> dict[str, str]:
        identifier = event_id(self._archive_id, event)
        timestamp = int(time.time())
        fields = {
            "Content-Type": "application/json",
            "User-Agent": "stowkeeper",
            "webhook-id": identifier,
            "webhook-timestamp": str(timestamp),
        }
        if self._key is not None:
            fields["webhook-signature"] = signature(self._key, identifier, timestamp, body)
        return fields

    def _error(self, error: Exception) -> DeliveryError:
        if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
            # Its text quotes what came, whatever that is.
            return DeliveryError(f"{self._named} answered what is no HTTP ({type(error).__name__})")
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return DeliveryError(f"{self._named} cannot be reached: {words}")


class _Deadline:
    """Cuts a connection whose time is over: a server that sends a byte now and then never times out by itself."""

    def __init__(self, seconds: float, is_over: Callable[[], bool]) -> None:
        self.socket: socket.socket | None = None
        self.was_cut = False
        self._is_over = is_over
        self._at = time.monotonic() + seconds
        self._ended = threading.Event()
        _WATCH.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def look(self) -> bool:
        """Cut the connection when it is time to; return whether it is to be looked at again."""
        if self._ended.is_set():
            return False
        if self.socket is not None and (self._is_over() or time.monotonic() > self._at):
            self.was_cut = True
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            return False
        return True


class _Watch:
    """Looks after all deadlines, on one thread that is there while there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: list[_Deadline] = []
        self._is_running = False

    def add(self, deadline: _Deadline) -> None:
        with self._lock:
            self._deadlines.append(deadline)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="webhook-watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            with self._lock:
                self._deadlines = [deadline for deadline in self._deadlines if deadline.look()]
                if not self._deadlines:
                    self._is_running = False
                    return


_WATCH: Final = _Watch()


def _seconds(text: str | None) -> float | None:
    """Read Retry-After where it is a number of seconds, within the bound of all pauses."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(float(text[:9]), RETRY_SECONDS_MAX)
