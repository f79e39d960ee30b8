"""Looking up the address of a peer by its name, without holding up anyone else.

A name that no server answers for keeps a thread for up to a minute, and nothing can end that. The event loop has a
handful of threads for it: a few such peers would keep it from reaching all others. So each lookup has a thread of its
own, up to a bound.
"""

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from stowkeeper.net.limits import NAME_LOOKUPS_MAX

AddressInfo = tuple[Any, Any, int, str, Any]
"""Family, kind, protocol, canonical name and socket address, as the system gives them."""


class NoLookupError(OSError):
    """A name cannot be looked up now; the text says why, and follows the name of the peer."""


_places: Final = threading.BoundedSemaphore(NAME_LOOKUPS_MAX)


async def look_up(host: str, port: int) -> list[AddressInfo]:
    """Return the addresses of a host for a TCP connection; those of a numeric one at once.

    Who does not wait for the end leaves the thread to itself. Raises socket.gaierror, UnicodeError and NoLookupError.
    """
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[AddressInfo]] = loop.create_future()

    def give(answer: list[AddressInfo] | Exception) -> None:
        if found.done():
            return
        if isinstance(answer, Exception):
            found.set_exception(answer)
        else:
            found.set_result(answer)

    def bring(answer: list[AddressInfo] | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            loop.call_soon_threadsafe(give, answer)

    _start(host, port, bring)
    return await found


def look_up_within(host: str, seconds: float) -> list[AddressInfo]:
    """Return the addresses of a host, as `look_up` does; blocks, though not longer than that.

    Raises socket.gaierror, UnicodeError, and NoLookupError when nobody answered in time too.
    """
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    answers: queue.SimpleQueue[list[AddressInfo] | Exception] = queue.SimpleQueue()
    _start(host, None, answers.put)
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise NoLookupError(f"nobody answered for its name within {seconds:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _start(host: str, port: int | None, bring: Callable[[list[AddressInfo] | Exception], None]) -> None:
    """Look a name up on a thread of its own, and bring what comes of it. Raises NoLookupError."""
    places = _places
    if not places.acquire(blocking=False):
        raise NoLookupError("too many names are being looked up that nobody answers for")

    def work() -> None:
        answer: list[AddressInfo] | Exception
        try:
            answer = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes to who asked
            answer = error
        finally:
            places.release()
        bring(answer)

    try:
        threading.Thread(target=work, name="name-lookup", daemon=True).start()
    except RuntimeError as error:  # the system has no thread to give
        places.release()
        raise NoLookupError("the system has no thread in which to look its name up") from error
