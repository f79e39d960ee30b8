"""The body of a request, read from its connection by blocking calls, on a thread other than that of the event loop."""

import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from stowkeeper.web.limits import BODY_PIECE_BYTES, BODY_STALL_SECONDS
from stowkeeper.web.problems import body_lost, body_stalled

SOCKETS_CAN_WAIT: Final = hasattr(select, "poll")
"""Whether the system has what is needed here."""


class SocketBody:
    """What is still to come of a body of known length. `connection` is a descriptor of its own, in no-wait mode.

    `left` is how much of it was not read yet. It reads no further than the body, so that the next request stays where it is.
    """

    def __init__(self, connection: socket.socket, left: int) -> None:
        self._connection = connection
        self.left = left

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes. Raises ProblemError when it breaks off, or does not come for too long."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while self.left:
            try:
                piece = self._connection.recv(min(self.left, BODY_PIECE_BYTES))
            except BlockingIOError:
                if not poll.poll(BODY_STALL_SECONDS * 1000):
                    raise body_stalled(BODY_STALL_SECONDS) from None
                continue
            except OSError:
                raise body_lost() from None
            if not piece:
                raise body_lost()
            self.left -= len(piece)
            yield piece

    def shut_down(self) -> None:
        """End the connection, from another thread: whoever reads finds it ended."""
        with suppress(OSError):  # it is gone already
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back, once nobody reads. The connection stays."""
        self._connection.close()
