"""What was stored by earlier runs, so that the next one sends only the rest: one file, a line of JSON for each instance.

The first line names the service; a line behind it is a file as it was sent. A file that has changed since, by size or time, is
another file. A line is written when the server's answer names the instance as stored, and for nothing else. A lost last line
costs that a file is sent twice, which is always safe.
"""

import json
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from stowkeeper.services.send_plan import SendableFile
from stowkeeper.services.stow_client.limits import JOURNAL_LINE_BYTES_MAX

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where two runs on one journal are not kept apart
    fcntl = None  # type: ignore[assignment]  # a module or nothing, asked for where it is used

_CAN_LOCK: Final = getattr(fcntl, "flock", None) is not None
_FORMAT: Final = "stowkeeper stow"
_VERSION: Final = 1

Key = tuple[str, int, int, str]
"""Path, size, time of the last change in nanoseconds, SOP Instance UID."""


class JournalError(Exception):
    """A journal cannot be used; the text says why and what to do."""


class JournalBusyError(JournalError):
    """Another run writes into the journal."""


class Journal:
    """The journal at `path` for one service, made if there is none; from `with` on it is ours alone.

    Raises JournalError, and OSError.
    """

    def __init__(self, path: str, service: str) -> None:
        self._path = path
        self._service = service
        self._stored: set[Key] = set()
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._lock()
            self._read()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def has(self, file: SendableFile) -> bool:
        """Tell whether this very file, as it was looked at, was stored by an earlier run."""
        return _key(file) in self._stored

    def add(self, file: SendableFile) -> None:
        """Write down that a file was stored, as it was looked at. Raises OSError."""
        path, size, modified_ns, uid = _key(file)
        self._write({"path": path, "size": size, "mtime_ns": modified_ns, "sop_instance_uid": uid})

    def _lock(self) -> None:
        if not _CAN_LOCK:  # pragma: no cover - see above
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalBusyError(
                f"another run writes into {self._path}: wait for its end, or name another file"
            ) from None

    def _read(self) -> None:
        whole = 0
        with open(self._path, "rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(JOURNAL_LINE_BYTES_MAX), b""), 1):
                if number > 1 and not line.endswith(b"\n"):
                    break  # the last line, which a crash cut short
                entry = _parsed(line)
                if number == 1:
                    self._check_first(entry)
                else:
                    self._stored.add(self._key_of(entry, number))
                whole += len(line)
        if whole:
            os.ftruncate(self._descriptor, whole)
        else:
            self._write({"format": _FORMAT, "version": _VERSION, "service": self._service})

    def _check_first(self, entry: Mapping[str, Any]) -> None:
        if entry.get("format") != _FORMAT or entry.get("version") != _VERSION:
            raise JournalError(f"{self._path} is no journal of `stowkeeper stow`: name another file")
        if entry.get("service") != self._service:
            raise JournalError(
                f"{self._path} tells what {entry.get('service')} stored, and not {self._service}: name another file"
            )

    def _key_of(self, entry: Mapping[str, Any], number: int) -> Key:
        path, size = entry.get("path"), entry.get("size")
        modified_ns, uid = entry.get("mtime_ns"), entry.get("sop_instance_uid")
        if (
            isinstance(path, str)
            and isinstance(size, int)
            and isinstance(modified_ns, int)
            and isinstance(uid, str)
        ):
            return path, size, modified_ns, uid
        raise JournalError(f"line {number} of {self._path} cannot be read: name another file")

    def _write(self, entry: Mapping[str, object]) -> None:
        line = json.dumps(entry).encode("ascii") + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]


def _key(file: SendableFile) -> Key:
    return os.path.abspath(file.path), file.size, file.modified_ns, file.sop_instance_uid


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
