"""The lock that keeps a second server off an archive: one alone, or several that all say they share it."""

import os

from stowkeeper.durable.errors import DurableError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]  # a module or nothing, asked for where it is used


class ArchiveInUseError(DurableError):
    """Another server works on the archive, and one of the two does not share."""


class ServerLock:
    """Held while a server runs; the system ends it with the process, however that ends."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: str, *, shared: bool, advice: str = "") -> None:
        """Take the lock on the file at `path`, which is made if need be.

        `advice` is what to do where another holds it; as shipped, that of a server.

        Raises ArchiveInUseError when it cannot be had, and OSError.
        """
        self._descriptor: int | None = os.open(
            path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o600
        )
        flock = getattr(fcntl, "flock", None)
        if flock is None:
            return
        try:
            flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            advice = advice or (
                "a server that does not share it runs: set shared = true for all of them"
                if shared
                else "another server runs on it: stop that one, or set shared = true for both"
            )
            raise ArchiveInUseError(f"the archive {os.path.dirname(path)} is in use: {advice}") from None

    def release(self) -> None:
        """Give the lock up. Twice is fine."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
