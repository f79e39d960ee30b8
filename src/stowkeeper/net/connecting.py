"""A TCP connection to a peer, with the options that DIMSE wants, or words on why there is none."""

import array
import asyncio
import contextlib
import errno
import os
import socket
from typing import Any, Final

from stowkeeper.net.association_errors import PeerUnreachableError
from stowkeeper.net.limits import KEEP_ALIVE_IDLE_SECONDS, KEEP_ALIVE_INTERVAL_SECONDS, KEEP_ALIVE_PROBES
from stowkeeper.net.name_lookup import NoLookupError, look_up

try:
    import fcntl
    import termios
except ImportError:  # Windows
    _UNACKNOWLEDGED: int | None = None
else:
    _UNACKNOWLEDGED = getattr(termios, "TIOCOUTQ", None)

QUICK_ACKNOWLEDGE: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
"""The socket option for it; None where the system has none."""

_WORDS: Final = {
    errno.ECONNREFUSED: "nothing listens on that port",
    errno.EHOSTUNREACH: "there is no way to that host",
    errno.ENETUNREACH: "there is no way to that network",
    errno.ETIMEDOUT: "the host does not answer",
    errno.ECONNRESET: "it closed the connection at once",
}


async def connect(host: str, port: int, seconds: float) -> socket.socket:
    """Open a TCP connection to the first address of `host` that answers, within `seconds` in all.

    No delay (a response waits for the last packet of its request), and keep-alive. Raises PeerUnreachableError.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        async with asyncio.timeout(seconds):
            return await _connect(host, port)
    except TimeoutError as error:
        words = _words_of(error) if error.errno else f"it did not answer within {seconds:g} seconds"
    except socket.gaierror:
        words = "that name is not known"
    except NoLookupError as error:
        words = str(error)
    except UnicodeError:
        words = "that is no host name"
    except OSError as error:
        words = _words_of(error)
    raise PeerUnreachableError(f"{where} cannot be reached: {words}.")


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, kind, protocol, _, address in await look_up(host, port):
        try:
            connected = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that the system has switched off
            failure = failure or error
            continue
        try:
            connected.settimeout(0)
            _set_options(connected)
            await loop.sock_connect(connected, address)
        except OSError as error:
            connected.close()
            failure = failure or error
        except BaseException:
            connected.close()
            raise
        else:
            return connected
    raise failure or OSError(errno.EADDRNOTAVAIL, "the name has no address")


def _set_options(connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEP_ALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", KEEP_ALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", KEEP_ALIVE_PROBES),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)


def _words_of(error: OSError) -> str:
    number = error.errno or 0
    return _WORDS.get(number) or (os.strerror(number) if number else type(error).__name__)


def acknowledge_quickly(connected: Any) -> None:  # noqa: ANN401 - a socket, or what an event loop shows of one
    """Ask the system to acknowledge at once: a sender with Nagle on waits for it in mid-message.

    It holds for a while only, so it is asked for after each read.
    """
    if QUICK_ACKNOWLEDGE is not None and connected is not None:
        with contextlib.suppress(OSError):  # the connection is going down
            connected.setsockopt(socket.IPPROTO_TCP, QUICK_ACKNOWLEDGE, 1)


def unacknowledged_bytes(descriptor: int) -> int:
    """Return how many bytes the system still holds for the peer; 0 where it does not tell.

    So a slow line is told from a peer that has stopped: as long as this number falls, something moves.
    """
    if _UNACKNOWLEDGED is None:
        return 0
    count = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, _UNACKNOWLEDGED, count)
    except OSError:
        return 0  # the connection is going down, or the system has no such call for sockets
    return count[0]
