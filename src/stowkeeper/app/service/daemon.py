"""A server that runs detached where no service manager does: started, told to stop, and found by a locked pid file.

The pid file `run/stowkeeper.pid` in the archive is locked by whoever starts the server, and the server inherits the lock
without knowing it: the system ends it with the process, however that ends. So a file whose lock can be had is of a dead
process, and is taken over.
"""

import contextlib
import errno
import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import SettingsArguments
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.limits import LAST_WORDS_LINES_MAX, LOCK_TRIES, LOOK_SECONDS, TAIL_BLOCK_BYTES
from stowkeeper.app.service.plan import program
from stowkeeper.app.service.rights import RightMissingError, again_as, user_name
from stowkeeper.archive.folder import RUN
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.write_once import make_folders

PID_FILE: Final = "stowkeeper.pid"
LAST_START_FILE: Final = "stowkeeper.start"
"""The options of the last start, for a restart."""

OUTPUT_FILE: Final = "daemon.out"
"""What a daemon prints beside its log: why it did not start, or what the interpreter said when it crashed."""

_MODE_MAX: Final = 0o644
"""Whoever may write the options of a start, or the number of a process, has a say in what is started or ended."""

_WRITE_FLAGS: Final = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_PID_BYTES_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon of an archive, whether it runs or not."""

    archive: Path

    @property
    def folder(self) -> Path:
        """The folder of the pid file."""
        return self.archive / RUN

    def process_id(self) -> int | None:
        """Return the process id of the daemon that runs; None where none does. Raises OSError."""
        try:
            descriptor = os.open(self.folder / PID_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            return None if _lock(descriptor, fcntl.LOCK_SH) else _number_in(descriptor)
        finally:
            os.close(descriptor)

    def start(
        self,
        arguments: Sequence[str],
        log_directory: Path,
        *,
        modes: tuple[int, int],
        log_to_file: bool,
        say: Callable[[str], None],
    ) -> int:
        """Start a server with these options of `serve`, and return its process id when it is ready.

        `modes` are those of files and folders that are missing and made, that of the archive itself among them. `say` is told what it
        does meanwhile. Raises CommandError: where one runs already, and with the words of the server where
        it did not get ready. An interrupt ends it again.
        """
        for folder in (self.folder, log_directory):
            make_folders(FileSystem(), os.path.abspath(folder), mode=modes[1])
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            lock = _open(self.folder / PID_FILE, flags, modes[0])
        except PermissionError:
            owner = user_name(os.stat(self.folder / PID_FILE).st_uid)
            raise RightMissingError(
                f"the server of {self.archive} was started by {owner}, and user {user_name(os.geteuid())} may not take its pid"
                f" file over: run `{again_as(owner)}`, or `sudo rm {shlex.quote(str(self.folder / PID_FILE))}` when it has ended."
            ) from None
        try:
            if not _lock_soon(lock):
                named = f"--archive {shlex.quote(str(self.archive))}"
                raise CommandError(
                    f"a server of {self.archive} runs already, as process {_number_in(lock) or 'that is just starting'}:"
                    f" `stowkeeper service stop {named}` ends it, `stowkeeper service restart {named}` starts it anew.",
                    ExitCode.TRY_AGAIN,
                )
            if os.fstat(lock).st_uid != os.geteuid():
                os.fchown(lock, os.geteuid(), os.getegid())  # root's server in the archive of another
            os.ftruncate(lock, 0)
            output = log_directory / OUTPUT_FILE
            with _Listening() as listening:
                process = self._begin(
                    arguments, lock, output, listening.address, mode=modes[0], log_to_file=log_to_file
                )
                os.pwrite(lock, f"{process.pid}\n".encode(), 0)
                try:
                    listening.wait_until_ready(process, say)
                except KeyboardInterrupt:
                    process.terminate()
                    process.wait()
                    raise
            if process.poll() is not None:
                raise CommandError(
                    _words_of_failure(process.returncode, output), _exit_code_of(process.returncode)
                )
            # It goes on without us, and without a warning of the interpreter that nobody waited for it.
            process.returncode = 0
            return process.pid
        finally:
            os.close(lock)

    def remember_start(self, arguments: SettingsArguments, *, mode: int) -> None:
        """Keep the options of a start, which made the folder, for a restart, in a file of a mode. Raises OSError."""
        said = {"config": arguments.config_file, "overrides": arguments.overrides}
        descriptor = _open(self.folder / LAST_START_FILE, _WRITE_FLAGS, mode)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(f"{json.dumps(said)}\n")

    def last_start(self) -> SettingsArguments:
        """Return the options of the last start; without one that can be read, those that lead to this archive."""
        plain = SettingsArguments(config_file=None, overrides={"archive": str(self.archive)})
        try:
            said = json.loads((self.folder / LAST_START_FILE).read_text(encoding="utf-8"))
            arguments = SettingsArguments(config_file=said["config"], overrides=dict(said["overrides"]))
        except (OSError, ValueError, TypeError, KeyError):
            return plain
        # The archive may have been moved since.
        return replace(arguments, overrides={**arguments.overrides, **plain.overrides})

    def stop(self, seconds: float) -> int | None:
        """Tell the daemon to stop, wait for its end, and return which process it was; None where none runs.

        Raises RightMissingError, and CommandError where it has not ended within a time.
        """
        number = self.process_id()
        if number is None:
            return None
        self._check_owner(number)
        try:
            os.kill(number, signal.SIGTERM)
        except ProcessLookupError:
            pass
        except PermissionError:
            owner = user_name(os.stat(self.folder / PID_FILE).st_uid)
            raise RightMissingError(
                f"process {number} belongs to {owner}, and user {user_name(os.geteuid())} may not stop it: run"
                f" `{again_as(owner)}`."
            ) from None
        deadline = time.monotonic() + seconds
        while self.process_id() == number:
            if time.monotonic() > deadline:
                raise CommandError(
                    f"process {number} has not ended within {seconds:g} s. It may still write what it received. Look at its log,"
                    f" wait, and as a last means `kill -9 {number}`: what was answered with Success is kept all the same.",
                    ExitCode.TRY_AGAIN,
                )
            time.sleep(LOOK_SECONDS)
        return number

    def _check_owner(self, number: int) -> None:
        """Raise CommandError for a process that is not of the pid file's owner: who may write there could name any process."""
        owner = os.stat(self.folder / PID_FILE).st_uid
        try:
            owner_of_process = os.stat(f"/proc/{number}").st_uid
        except FileNotFoundError:  # it has just ended, or there is no such folder here
            return
        if owner_of_process != owner:
            raise CommandError(
                f"{self.folder / PID_FILE} belongs to {user_name(owner)} and names process {number} of"
                f" {user_name(owner_of_process)}, which is left alone: end the server by its own number.",
                ExitCode.IO_ERROR,
            )

    def _begin(
        self,
        arguments: Sequence[str],
        lock: int,
        output: Path,
        address: str,
        *,
        mode: int,
        log_to_file: bool,
    ) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "NOTIFY_SOCKET": address}
        if log_to_file:  # else its lines would stand in two files, and one of them never rotate
            environment["STOWKEEPER_LOG__CONSOLE"] = "false"
        with contextlib.suppress(
            OSError
        ):  # the words of a crash outlive the next start, with which people answer it
            if output.stat().st_size:
                output.replace(f"{output}.1")
        to_file = _open(output, _WRITE_FLAGS | os.O_APPEND, mode)
        try:
            return subprocess.Popen(  # noqa: S603 - this program, by its own path
                [*program(), "serve", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=to_file,
                stderr=to_file,
                env=environment,
                pass_fds=(lock,),
                start_new_session=True,
            )
        finally:
            os.close(to_file)


def _open(path: Path, flags: int, mode: int) -> int:
    """Open a file, and make it with a mode, whatever the umask says, where there is none. Raises OSError."""
    mode &= _MODE_MAX
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return os.open(path, flags | os.O_CREAT, mode)
    os.fchmod(descriptor, mode)
    return descriptor


class _Listening:
    """A notify socket, in a folder that nobody else may enter."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="stowkeeper-")
        self.address = os.path.join(self._folder.name, "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(LOOK_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._folder.cleanup()

    def wait_until_ready(self, process: "subprocess.Popen[bytes]", say: Callable[[str], None]) -> None:
        """Return when the process has said that it is ready, or has ended."""
        while process.poll() is None:
            try:
                lines = self._socket.recv(4096).decode("utf-8", "replace").split("\n")
            except TimeoutError:
                continue
            if "READY=1" in lines:
                return
            for line in lines:
                if line.startswith("STATUS="):
                    say(line.removeprefix("STATUS="))


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise
        return False
    return True


def _lock_soon(descriptor: int) -> bool:
    """Take the lock; tried a few times, since who asks whether a server runs holds it for a moment."""
    for _ in range(LOCK_TRIES):
        if _lock(descriptor, fcntl.LOCK_EX):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _number_in(descriptor: int) -> int | None:
    """Return the process id in a pid file; None while it is written, or where something else stands in it."""
    text = os.pread(descriptor, _PID_BYTES_MAX, 0).strip()
    return int(text) if text.isdigit() else None


def _words_of_failure(code: int, output: Path) -> str:
    if code in {0, -signal.SIGTERM}:
        return "the server was told to stop before it was ready, and has ended."
    words = ""
    with contextlib.suppress(OSError), output.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL_BLOCK_BYTES))
        words = "\n".join(stream.read().decode("utf-8", "replace").splitlines()[-LAST_WORDS_LINES_MAX:])
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return f"the server did not get ready, and ended {how}. It said:\n{words or '(nothing)'}"


def _exit_code_of(code: int) -> ExitCode:
    """Return the server's own exit code, so that whoever started it can tell as with `serve`."""
    if code == -signal.SIGTERM:  # before it heard of signals
        return ExitCode.TRY_AGAIN
    try:
        found = ExitCode(code)
    except ValueError:
        return ExitCode.INTERNAL
    return ExitCode.TRY_AGAIN if found is ExitCode.OK else found
