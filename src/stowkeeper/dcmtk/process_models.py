"""How associations share processes: one after the other in this one, each in a child of its own, or one and the end."""

import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from stowkeeper.dcmtk.incoming_file import discard_unfinished
from stowkeeper.dcmtk.limits import ACCEPT_PAUSE_SECONDS, CHILDREN_MAX
from stowkeeper.dcmtk.oflog.loggers import Logger, Loggers
from stowkeeper.net.serial_server import SerialServer

COLLECTION_THRESHOLDS: Final = (20_000, 50, 100)
"""When Python looks for cycles of dead objects; those of `stowkeeper serve`, which were measured there."""

Serve = Callable[[socket.socket], None]
"""Serves a connection until its association has ended."""

_ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_signals() -> None:
    """Let a signal end the process at once, as if it were not handled, but without the file that is being received.

    An answer only ever follows a file that is whole, so nothing that was answered is lost. A signal that whoever started
    the process ignores, as nohup does, stays ignored.
    """
    for number in _ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    discard_unfinished()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class Children:
    """The child processes of this one that serve associations; in such a child there are none."""

    def __init__(self) -> None:
        self._parent = os.getpid()
        self._running: set[int] = set()

    def __len__(self) -> int:
        """Return how many run, as far as is known."""
        return len(self._running)

    def add(self, child: int) -> None:
        """Take note of a new one."""
        self._running.add(child)

    def reap(self) -> None:
        """Forget those that have ended, as the system then does."""
        if not self._running or os.getpid() != self._parent:
            return  # what other processes there are is for others to wait for
        with contextlib.suppress(ChildProcessError):  # there is none
            while ended := os.waitpid(-1, os.WNOHANG)[0]:
                self._running.discard(ended)

    def wait_for_room(self, log: Logger) -> None:
        """Wait until one more may be started."""
        self.reap()
        if len(self) >= CHILDREN_MAX:
            log.warning("%d associations are served already, the next one waits", len(self))
        while len(self) >= CHILDREN_MAX:
            self._running.discard(os.wait()[0])


def serve_in_turn(listener: socket.socket, server: SerialServer, serve: Serve, log: Logger) -> NoReturn:
    """Serve one association after the other. Who comes meanwhile waits in the system's queue."""
    _leave_the_start_uncollected()
    while True:
        connection = _accept(listener, server, log)
        if connection is None:
            continue
        try:
            serve(connection)
        except Exception as error:  # noqa: BLE001 - a fault of ours in one association must not end all to come
            log.critical("an association ended by a fault: %s: %s", type(error).__name__, error)


def serve_forking(
    listener: socket.socket,
    server: SerialServer,
    serve: Serve,
    log: Logger,
    loggers: Loggers,
    children: "Children",
) -> NoReturn:
    """Serve each association in a child process of its own. Never returns: children end here."""
    _leave_the_start_uncollected()  # a child that looked at all of it for garbage would copy it
    while True:
        children.wait_for_room(log)
        connection = _accept(listener, server, log)
        if connection is None:
            continue
        loggers.flush()  # what is held back would be written by both
        try:
            child = os.fork()
        except OSError as error:
            log.error("cannot create a child process for an association: %s", error.strerror)
            connection.close()
            continue
        if child == 0:
            listener.close()
            _serve_and_end(connection, server, serve, log, loggers)
        children.add(child)
        log.debug("started child process %d for an association", child)
        connection.close()


def _serve_and_end(
    connection: socket.socket, server: SerialServer, serve: Serve, log: Logger, loggers: Loggers
) -> NoReturn:
    """Be a child process, to its end."""
    code = 1
    try:
        serve_one(connection, server, serve)
        code = 0
    except Exception as error:  # noqa: BLE001 - the last thing this process can do about it is to say so
        log.critical("the child process %d ends by %s: %s", os.getpid(), type(error).__name__, error)
    finally:
        with contextlib.suppress(Exception):
            loggers.flush()
        os._exit(code)


def _leave_the_start_uncollected() -> None:
    """Take the objects of the start out of every later search for garbage, and search less often: little is made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTION_THRESHOLDS)


def serve_one(connection: socket.socket, server: SerialServer, serve: Serve) -> None:
    """Serve one connection until its peer has closed it, or was given the time to."""
    serve(connection)
    server.finish()


def _accept(listener: socket.socket, server: SerialServer, log: Logger) -> socket.socket | None:
    try:
        return server.accept(listener)
    except ConnectionAbortedError:
        return None  # the peer was gone before we looked
    except OSError as error:
        log.error("cannot accept a connection: %s", error.strerror)
        time.sleep(ACCEPT_PAUSE_SECONDS)
        return None
