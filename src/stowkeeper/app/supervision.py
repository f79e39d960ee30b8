"""What a service manager is told while the server runs: ready, busy with a reload, stopping, and still alive.

It is systemd's protocol (sd_notify(3)): datagrams to the unix socket that NOTIFY_SOCKET names. Who does not set that variable
hears nothing, and nothing is done. `stowkeeper service start` sets it too, where there is no systemd.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Self

import structlog

from stowkeeper.app.limits import NOTIFY_SEND_SECONDS, WATCHDOG_SECONDS_MIN

log = structlog.get_logger("stowkeeper.app")


class ServiceManager:
    """The other end of NOTIFY_SOCKET; with an empty address it hears nothing. Nothing here raises: a server serves unheard too.

    `watchdog_seconds` is within what time it wants to hear that the server lives; None where it does not ask.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        self._address = address
        self._status = ""
        self.watchdog_seconds = watchdog_seconds if address else None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """Read and take away the variables, which are for this process alone and not for its children."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        # Others, such as `vsock:` of a virtual machine, are for machines, not for a service in one.
        if not address.startswith(("/", "@")):
            return cls()
        is_ours = process in {"", str(os.getpid())}
        seconds = int(microseconds) / 1e6 if microseconds.isdecimal() and is_ours else 0.0
        return cls(address, max(seconds, WATCHDOG_SECONDS_MIN) if seconds else None)

    def tell_status(self, words: str) -> None:
        """Say in words what the server does; the same words are sent once."""
        if words != self._status:
            self._status = words
            self._send(f"STATUS={words}")

    def tell_ready(self, words: str) -> None:
        """Say that instances are received, or that a reload is over."""
        self._status = words
        self._send("READY=1", f"STATUS={words}")

    def tell_reloading(self) -> None:
        """Say that the settings are read anew. `tell_ready` says that it is over."""
        # systemd compares with the time of its own signal, so it has to be this clock, in microseconds.
        now = time.clock_gettime_ns(getattr(time, "CLOCK_MONOTONIC", 0)) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=Reading the settings anew")

    def tell_stopping(self, words: str) -> None:
        """Say that the server drains and then ends."""
        self._status = words
        self._send("STOPPING=1", f"STATUS={words}")

    def tell_alive(self) -> None:
        """Say that the server works, for the watchdog."""
        self._send("WATCHDOG=1")

    async def keep_telling_alive(self, is_receiving: Callable[[], str], status: Callable[[], str]) -> None:
        """Say so at half of the watchdog's time as long as this event loop runs and `is_receiving` finds nothing wrong.

        That returns what does not work, or ''. Once something does not, nothing is said any more, and the service manager
        starts the server anew. Ends at once where no watchdog asks.
        """
        if self.watchdog_seconds is None:
            return
        while True:
            broken = is_receiving()
            if broken:
                log.error("error", what="the watchdog is told nothing any more, for a restart", reason=broken)
                return
            self.tell_alive()
            self.tell_status(status())
            await asyncio.sleep(self.watchdog_seconds / 2)

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        message = "\n".join(line.replace("\n", " ") for line in assignments).encode()
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        # A manager that is gone, as `service start` is after the start, is no fault of the server.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(NOTIFY_SEND_SECONDS)
            channel.sendto(message, name)
