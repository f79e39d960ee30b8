"""The program behind `forked.py`: import the commands of `stowkeeper` once, then fork one for each request.

A request is a datagram on the socket whose descriptor is the argument: JSON, and the three standard streams. The answer
is the process id of the program, once it is what it was asked to be. There is one thread, no event loop and no open
file, so that a fork is a whole process. It ends with its socket.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import signal
import socket
import sys
import threading
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_REQUEST_BYTES_MAX = 1 << 20
_ANSWER_BYTES_MAX = 100
_IMPORTED_LATER = (
    "stowkeeper.app.http_wiring",
    "stowkeeper.dcmtk.storescp_program",
    "stowkeeper.dcmtk.dcmrecv_program",
    "alembic.command",
    "anyio._backends._asyncio",
)
"""What the commands, and what they use, import when they are called, and what takes long."""


def main() -> None:
    """Import, then fork for each request; in a fork, return when it is ready to be the program."""
    sys.path[0] = ""  # as with -m: nothing of this folder is the program's
    commands = importlib.import_module("stowkeeper.app.commands")
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        importlib.import_module(module.name)
    for name in _IMPORTED_LATER:
        importlib.import_module(name)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, "an import has started a thread, which no fork would have"
    gc.collect()
    gc.freeze()  # a look for dead cycles in a fork would copy every page of this process
    channel = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, streams, _, _ = socket.recv_fds(channel, _REQUEST_BYTES_MAX, 3)
        if not message:
            os._exit(0)
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            between = os.getpid()
            if os.fork():
                os._exit(0)  # which makes the test process the parent of the other one
            try:
                become(json.loads(message), streams, between, writing)
            except Exception as error:
                os.write(writing, repr(error).encode()[:_ANSWER_BYTES_MAX])
                raise
            return
        os.close(writing)
        os.waitpid(between, 0)
        channel.send(os.read(reading, _ANSWER_BYTES_MAX) or b"it ended before it was a program")
        for descriptor in (reading, *streams):
            os.close(descriptor)


def become(request: dict[str, Any], streams: list[int], between: int, tell: int) -> None:
    """Give this process all that the program would have, and tell its process id."""
    while (parent := os.getppid()) == between:
        os.sched_yield()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if not parent == os.getppid() == request["parent"]:  # it ended before the tie was made
        os.write(tell, f"its parent is {os.getppid()}, and not {request['parent']}".encode())
        os._exit(1)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    if request["own_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(request["open_files"]))
    sys.argv[1:] = request["arguments"]
    os.closerange(3, tell)
    os.closerange(tell + 1, 1 << 16)
    os.write(tell, str(os.getpid()).encode())
    os.close(tell)


def end(ending: SystemExit) -> None:
    """End as the interpreter would, but without taking apart all that the imports made: that takes ten times longer."""
    threading._shutdown()  # type: ignore[attr-defined]  # the interpreter's own way to wait for threads
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # of which the interpreter has a word to say
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(ending.code, int):
            os._exit(ending.code)


if __name__ == "__main__":
    main()
    try:
        runpy.run_module("stowkeeper", run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        end(ending)
        raise
