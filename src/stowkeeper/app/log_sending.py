"""Log messages on their way to another program: a thread and a bounded queue for each receiver.

A receiver that stands still or is gone holds up nobody: messages wait, and when too many do, further ones are
dropped and counted. A message that could not be sent is tried again, so that what waits outlives a restart of the
receiver.
"""

import contextlib
import errno
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

from stowkeeper.app.limits import LOG_CLOSE_SECONDS, LOG_LINES_WAITING_MAX, SYSLOG_RETRY_SECONDS


class Channel(Protocol):
    """A way to a receiver of messages. Used by one thread."""

    name: str

    def send(self, message: bytes) -> None:
        """Send a message, and open the way before where it is closed. Raises OSError or ValueError."""

    def close(self) -> None:
        """Let go of what is open. The next `send` opens it again."""


class LogSender:
    """Takes messages from any thread and sends them from a thread of its own.

    `tell` is told, once each time, that messages cannot be sent, and what was lost: the name of the receiver, a
    sentence and a count.
    """

    def __init__(
        self,
        channel: Channel,
        tell: Callable[[str, str, int], None],
        *,
        retry_seconds: float = SYSLOG_RETRY_SECONDS,
    ) -> None:
        self._channel = channel
        self._tell = tell
        self._retry_seconds = retry_seconds
        self._queue: SimpleQueue[bytes | Callable[[], None]] = SimpleQueue()
        self._lost = 0
        self._fails = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log to {channel.name}", daemon=True)
        self._thread.start()

    def put(self, message: bytes) -> None:
        """Queue a message; drop and count it when too many wait. Never blocks."""
        if self._queue.qsize() >= LOG_LINES_WAITING_MAX:
            self._lost += 1  # threads may race here: then the count is a little low
            return
        self._queue.put(message)

    def flush(self, seconds: float = LOG_CLOSE_SECONDS) -> bool:
        """Wait until all messages put so far are sent; return whether that was in time."""
        sent = threading.Event()
        self._queue.put(sent.set)
        return sent.wait(seconds)

    def end(self) -> None:
        """Let the thread send what waits, each message once, and end. Does not wait for it."""
        self._ending.set()
        self._queue.put(self._stop)

    def close(self, seconds: float = LOG_CLOSE_SECONDS) -> None:
        """Send what waits and end the thread, or give up after a time and tell what is lost. Repeatable."""
        self.end()
        self._thread.join(seconds)
        if self._thread.is_alive():
            count = self._take_rest() + 1
            self._queue.put(self._stop)  # which was taken with the rest
            self._tell(self._channel.name, "log lines were not sent before the end", count)

    def _take_rest(self) -> int:
        count = 0
        with contextlib.suppress(Empty):
            while True:
                count += isinstance(self._queue.get_nowait(), bytes)
        return count

    def _stop(self) -> None:
        self._channel.close()
        raise _EndedError

    def _run(self) -> None:
        with contextlib.suppress(_EndedError):
            while True:
                entry = self._queue.get()
                if isinstance(entry, bytes):
                    self._deliver(entry)
                    if self._lost and not self._fails:
                        self._tell_losses("log lines were dropped, more came than could be sent")
                else:
                    if self._ending.is_set() and self._lost:
                        self._tell_losses("log lines were not sent before the end")
                    entry()

    def _tell_losses(self, words: str) -> None:
        lost, self._lost = self._lost, 0
        self._tell(self._channel.name, words, lost)

    def _deliver(self, message: bytes) -> None:
        """Send a message, and try again until it is sent or the end has come."""
        while not (self._fails and self._ending.is_set()):
            try:
                self._channel.send(message)
            except (OSError, ValueError) as error:  # a name that cannot be one of a host is a UnicodeError
                self._channel.close()
                if isinstance(error, OSError) and error.errno == errno.EMSGSIZE:
                    break  # it will not get shorter
                if not self._fails:
                    self._fails = True
                    reason = getattr(error, "strerror", None) or type(error).__name__
                    self._tell(
                        self._channel.name, f"log lines cannot be sent: {reason}", self._queue.qsize() + 1
                    )
                self._ending.wait(self._retry_seconds)
                continue
            if self._fails:
                self._fails = False
                self._tell_losses("log lines can be sent again; so many were dropped before")
            return
        self._lost += 1


class _EndedError(Exception):
    """Ends the thread."""
