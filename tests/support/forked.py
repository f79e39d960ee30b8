"""Start `python -m stowkeeper …` without the second of processor time that its imports cost.

A process that has made the imports, `fork_server.py`, one of each test process, forks each program; `start` and `run`
are `subprocess.Popen` and `subprocess.run` for that. The fork has the descriptors, environment, folder, limit of open
files and, where asked for, session that the program would have, and it is the child of the test process itself: process
id, exit status and signals are its own. It goes through `stowkeeper/__main__.py`, ends as an interpreter ends, and ends
with the test process, as what `tethered.py` starts does.

A fork cannot show the start of the interpreter: how long it takes, what it imports, what it makes of a terminal, of
closed descriptors or of its environment. A test that is about that, or about memory, says `from_scratch`. Where a
terminal or such an environment is given, or there is no Linux, the interpreter is started unasked.
"""

import atexit
import ctypes
import functools
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve()
_TETHER = str(_HERE.with_name("tethered.py"))
_SERVER = str(_HERE.with_name("fork_server.py"))
_SOURCE = str(_HERE.parents[2] / "src")
_COMMAND = [sys.executable, "-m", "stowkeeper"]
_ENVIRONMENT = {**os.environ, "PYTHONPATH": _SOURCE}
_READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "FORCE_COLOR", "NO_COLOR")
"""How the names of variables begin that an interpreter, or a package while it is imported, looks at."""
# fmt: off
_EXECUTE_CHILD = (
    "preexec_fn", "close_fds", "pass_fds", "cwd", "env", "startupinfo", "creationflags", "shell",
    "p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite",
    "restore_signals", "gid", "gids", "uid", "umask", "start_new_session", "process_group",
)
# fmt: on
"""What `subprocess.Popen` hands on by position where it forks and executes, behind the program and its arguments."""
_PR_SET_CHILD_SUBREAPER = 36


def start(argv: Sequence[str], *, from_scratch: bool = False, **options: Any) -> "subprocess.Popen[Any]":
    """Start a program as `subprocess.Popen` does, tied to this process; fork it if it can be."""
    if not from_scratch and _can_be_forked(argv, options):
        return _ForkedProgram(argv, **options)
    return subprocess.Popen([sys.executable, "-I", "-S", _TETHER, *argv], **options)


def run(
    argv: Sequence[str], *, from_scratch: bool = False, timeout: float | None = None, **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """Run a program to its end as `subprocess.run(…, check=False)` does, without input; fork it if it can be."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(argv, from_scratch=from_scratch, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err)


def _can_be_forked(argv: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Tell whether a fork is like the program that a command line starts."""
    if sys.platform != "linux" or list(argv[:3]) != _COMMAND or options.get("preexec_fn"):
        return False
    given = {"PYTHONPATH": _SOURCE, **(os.environ if options.get("env") is None else options["env"])}
    if _read_at_the_start(given) != _read_at_the_start(_ENVIRONMENT):
        return False
    streams = (options.get(name, number) for number, name in enumerate(("stdin", "stdout", "stderr")))
    return not any(_is_terminal(stream) for stream in streams)


def _read_at_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_THE_START)}


def _is_terminal(stream: Any) -> bool:
    number = stream.fileno() if hasattr(stream, "fileno") else stream
    return isinstance(number, int) and number >= 0 and os.isatty(number)


class _ForkedProgram(subprocess.Popen[Any]):
    """A program that is forked where its base forks and executes one; all else is the base's."""

    def _execute_child(self, args: Any, _executable: Any, *more: Any) -> None:
        chosen = dict(zip(_EXECUTE_CHILD, more, strict=False))
        pipes = [chosen[name] for name in _EXECUTE_CHILD[8:14]]
        request = {
            "arguments": [os.fspath(argument) for argument in args[len(_COMMAND) :]],
            "environment": dict(os.environ if chosen["env"] is None else chosen["env"]),
            "folder": os.getcwd() if chosen["cwd"] is None else os.fspath(chosen["cwd"]),
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "own_session": chosen["start_new_session"],
            "parent": os.getpid(),
        }
        try:
            streams = enumerate((pipes[0], pipes[3], pipes[5]))
            given = [number if own == -1 else own for number, own in streams]
            self.pid = _fork_server(os.getpid()).fork(request, given)
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]  # the base has it, its stub does not
        self._child_created = True


class _ForkServer:
    """The process that forks, from its start to the end of this one."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", _TETHER, sys.executable, _SERVER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        atexit.register(self.close)

    def close(self) -> None:
        """End it; what it forked stays."""
        self._channel.close()
        self._process.wait()

    def fork(self, request: Mapping[str, Any], streams: Sequence[int]) -> int:
        """Have a program forked; return its process id.

        The kernel gives what a process leaves behind to the nearest ancestor that asked for it. So this process
        becomes the parent of a grandchild of its child, and nobody's else: it asks for no longer than that takes.
        """
        with self._lock:
            prctl = ctypes.CDLL(None).prctl
            prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._channel, [json.dumps(request).encode()], streams)
                answer = self._channel.recv(100)
            finally:
                prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        if not answer.isdigit():  # a process id of something else would be signalled as one
            why = answer.decode() or "the fork server is gone"
            raise ChildProcessError(f"nothing was forked: {why}; standard error tells more")
        return int(answer)


@functools.cache
def _fork_server(_pid: int) -> _ForkServer:
    """Return the fork server of this process: one that a fork of it would share has another parent for its children."""
    return _ForkServer()
