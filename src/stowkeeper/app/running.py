"""The run record: which servers run on an archive, for whoever asks without a port: `status`, `doctor`, `service`.

While `stowkeeper serve` runs, a file of its own lies in the folder `run` of its archive and says where it listens, since
when, and as which process. It is locked (`flock`) for as long as the process lives: the system ends the lock with the
process, however that ends. So a file whose lock can be had is of a dead process, and whoever finds it takes it away.

Only who holds a file's lock takes its name away, and a name in use is never replaced. So nobody removes the file of a
server that came in between.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeGuard

import structlog

from stowkeeper import __version__
from stowkeeper.app.limits import RUN_RECORD_BYTES_MAX, RUN_RECORD_NAMES_MAX
from stowkeeper.app.logs import log_path
from stowkeeper.app.setting_fields import OriginKind, Setting
from stowkeeper.app.setting_sources import all_settings
from stowkeeper.app.settings import Settings, plain_value
from stowkeeper.archive.archive import Archive
from stowkeeper.archive.folder import RUN
from stowkeeper.archive.modes import file_mode_in, folder_mode_in
from stowkeeper.database.engine import utc_now
from stowkeeper.durable.filesystem import FileSystem

log = structlog.get_logger("stowkeeper.app")

_SUFFIX: Final = ".json"
_DIGEST_LENGTH: Final = 16
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]|^\.")
_held: "weakref.WeakSet[RunRecord]" = weakref.WeakSet()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that runs on an archive: what its run record says.

    `started_at` is UTC in ISO 8601. `http_host` and `http_port` are None where HTTP is off, `log_file` where no file is
    written. `tls` is of the DICOM port, and `http_tls` of the other, of which the record of an older version says nothing.
    `receiver` is the name of its folder in the depot, and what its associations in the ledger are found by.

    `settings_file` is what it reads, on a reload too: '' where it found none, None where the record is of a version that
    did not say. `flags` and `variables` are the settings that outrank the file, without their values. `started_with` has a
    digest of each value that waits for a restart: whether it is another one now can be told, and what it was cannot.
    """

    pid: int
    host_name: str
    version: str
    started_at: str
    dicom_host: str
    dicom_port: int
    http_host: str | None
    http_port: int | None
    ae_title: str
    tls: bool
    log_file: str | None
    receiver: str
    http_tls: bool = False
    settings_file: str | None = None
    flags: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    started_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine, or says the same name of its own: its pid means something here."""
        return self.host_name == socket.gethostname()


class RunRecord:
    """The record of this process, from `write` to `close`."""

    __slots__ = ("__weakref__", "_descriptor", "_folder", "_root", "path")

    def __init__(self, archive_root: str) -> None:
        self._root = os.path.abspath(archive_root)
        self._folder = os.path.join(self._root, RUN)
        self._descriptor: int | None = None
        self.path = ""
        """Where the record lies; '' while there is none."""

    def write(self, server: RunningServer) -> None:
        """Make the record, locked and whole under its name. Raises OSError; then there is none."""
        self.close()
        files = FileSystem()
        files.make_directory(self._folder, folder_mode_in(files, self._root))
        stem = f"{_NOT_IN_A_NAME.sub('_', server.host_name) or 'host'}-{server.pid}"
        data = f"{json.dumps(asdict(server), indent=1)}\n".encode()
        hidden, descriptor = self._make_hidden(files, stem)
        try:
            files.write(descriptor, [data], 0)
            self.path = self._link(files, hidden, stem)
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            with suppress(OSError):
                files.unlink(hidden)
        self._descriptor = descriptor
        _held.add(self)

    def announce(
        self,
        archive: Archive,
        settings: Settings,
        dicom: tuple[str, int],
        http: tuple[str, int] | None,
        *,
        is_tls: bool,
    ) -> None:
        """Make the record of a server that listens now. One that cannot be made is told to the log: the server goes on."""
        http_host, http_port = http if http is not None else (None, None)
        log_file = log_path(settings.log, settings.log_directory)
        server = RunningServer(
            pid=os.getpid(),
            host_name=socket.gethostname(),
            version=__version__,
            started_at=utc_now(),
            dicom_host=dicom[0],
            dicom_port=dicom[1],
            http_host=http_host,
            http_port=http_port,
            http_tls=http is not None and bool(settings.http.certificate),
            ae_title=settings.dicom.ae_title,
            tls=is_tls,
            log_file=os.path.abspath(log_file) if log_file else None,
            receiver=archive.receiver,
            settings_file=settings.settings_file,
            flags=_given_by(settings, OriginKind.FLAG),
            variables=_given_by(settings, OriginKind.ENVIRONMENT),
            started_with={
                setting.key: digest_of_value(settings, setting)
                for setting in all_settings().values()
                if not setting.reloadable
            },
        )
        try:
            self.write(server)
        except OSError as error:
            log.warning(
                "start",
                what="the run record could not be written: `stowkeeper status` does not see this server",
                folder=self._folder,
                reason=error.strerror or str(error),
            )

    def close(self) -> None:
        """Take the record away. Twice is fine; raises nothing: a file that stays has no lock and deceives nobody."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            if _leads_to(self.path, descriptor):
                os.unlink(self.path)
        self.path = ""
        os.close(descriptor)

    def close_in_child(self) -> None:
        """Close this process's copy of the lock; for a child by fork, in which it would outlive its owner."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def _make_hidden(self, files: FileSystem, stem: str) -> tuple[str, int]:
        """Make an empty file under a hidden name and lock it."""
        while True:
            hidden = os.path.join(self._folder, f".{stem}-{secrets.token_hex(4)}{_SUFFIX}")
            descriptor = files.create(hidden, file_mode_in(files, self._root))
            # Until the lock is held, another process may find the file dead and remove it.
            if _lock(descriptor, fcntl.LOCK_EX) and _leads_to(hidden, descriptor):
                return hidden, descriptor
            os.close(descriptor)

    def _link(self, files: FileSystem, hidden: str, stem: str) -> str:
        """Give the file its name and return that. Containers may have one name and one pid: then a number is added."""
        for number in range(RUN_RECORD_NAMES_MAX):
            path = os.path.join(self._folder, f"{stem}{f'-{number}' if number else ''}{_SUFFIX}")
            _remove_if_dead(path)
            with suppress(FileExistsError):
                files.link(hidden, path)
                return path
        raise FileExistsError(f"{RUN_RECORD_NAMES_MAX} servers of the name {stem} run on {self._root}")


def digest_of_value(settings: Settings, setting: Setting) -> str:
    """Return what the value of a setting is compared by, of which the value is not to be had."""
    value = json.dumps(plain_value(settings, setting), sort_keys=True, default=str)
    return hashlib.sha256(value.encode()).hexdigest()[:_DIGEST_LENGTH]


def _given_by(settings: Settings, kind: OriginKind) -> tuple[str, ...]:
    return tuple(key for key in all_settings() if settings.origin_of(key).kind is kind)


def running_servers(archive_root: str | os.PathLike[str]) -> list[RunningServer]:
    """Return the servers that run on an archive, the oldest first; take the records of dead ones away.

    Without the right to remove them they stay, and are not in the answer. Raises OSError where the folder or a record in
    it cannot be read; an archive that no server ever ran on has none.
    """
    folder = os.path.join(os.path.abspath(archive_root), RUN)
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        path = os.path.join(folder, name)
        if not name.endswith(_SUFFIX) or _remove_if_dead(path) or name.startswith("."):
            continue
        server = _read(path)
        if server is not None:
            found.append(server)
    return sorted(found, key=lambda server: (server.started_at, server.pid))


def _remove_if_dead(path: str) -> bool:
    """Take a record away if its process is dead, or tell that there is none any more. Raises OSError."""
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return True
    try:
        # Asked twice, since another who asks may hold a dead one's lock for as long as it takes to remove it.
        if not any(_lock(descriptor, fcntl.LOCK_SH) for _ in range(2)):
            return not _leads_to(path, descriptor)
        if _lock(descriptor, fcntl.LOCK_EX) and _leads_to(path, descriptor):
            with suppress(OSError):  # not ours to remove: it stays, and counts for nothing
                os.unlink(path)
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _leads_to(path: str, descriptor: int) -> bool:
    """Tell whether a name leads to an open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(path: str) -> RunningServer | None:
    """Return what a record says; None where it is gone, or something else lies there."""
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as stream:
        data = stream.read(RUN_RECORD_BYTES_MAX)
    try:
        said = json.loads(data)
    except ValueError:
        return None
    return _server_of(said) if isinstance(said, dict) else None


_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "pid": (int,),
    "host_name": (str,),
    "version": (str,),
    "started_at": (str,),
    "dicom_host": (str,),
    "dicom_port": (int,),
    "http_host": (str, type(None)),
    "http_port": (int, type(None)),
    "ae_title": (str,),
    "tls": (bool,),
    "log_file": (str, type(None)),
    "receiver": (str,),
}


def _server_of(said: dict[str, Any]) -> RunningServer | None:
    """Return what a record says, None where it is not as we write it; what a later version says beside is left out."""
    if any(not isinstance(said.get(name), kinds) for name, kinds in _KINDS.items()):
        return None
    known = {name: said[name] for name in _KINDS}
    return RunningServer(**known, http_tls=said.get("http_tls") is True, **_of_settings(said))


def _of_settings(said: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says of settings; nothing where it is of a version that did not, or is not as we write it."""
    file, started_with = said.get("settings_file"), said.get("started_with")
    flags, variables = said.get("flags"), said.get("variables")
    if not isinstance(file, str) or not isinstance(started_with, dict):
        return {}
    if not _are_names(flags) or not _are_names(variables):
        return {}
    return {
        "settings_file": file,
        "flags": tuple(flags),
        "variables": tuple(variables),
        "started_with": started_with,
    }


def _are_names(said: object) -> TypeGuard[list[str]]:
    return isinstance(said, list) and all(isinstance(name, str) for name in said)


def _close_in_child() -> None:
    """Let no child by fork hold the lock of its parent."""
    for record in list(_held):
        record.close_in_child()


os.register_at_fork(after_in_child=_close_in_child)
