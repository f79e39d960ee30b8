"""Accepting and forking where the system gives nothing, and signals that end the process."""

import errno
import os
import signal
import socket
from collections.abc import Iterator
from io import StringIO

import pytest

from stowkeeper.dcmtk import process_models
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.process_models import Children, end_by_signals, serve_forking, serve_in_turn

LOGGER = "dcmtk.apps.storescp"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Over(Exception):  # noqa: N818 - it is what happens
    """Ends what has no end of its own."""


class _Acceptor:
    """Stands where the server accepts: gives what it was given, one after the other, then ends."""

    def __init__(self, *given: object) -> None:
        self._given = list(given)

    def accept(self, _listener: object) -> object:
        if not self._given:
            raise _Over
        given = self._given.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Take note of pauses in place of making them."""
    noted: list[float] = []
    monkeypatch.setattr(process_models.time, "sleep", noted.append)
    return noted


@pytest.fixture
def log() -> Iterator[tuple[Loggers, StringIO]]:
    stream = StringIO()
    with Loggers("storescp", stderr=stream) as loggers:
        yield loggers, stream


def test_accepting_goes_on_when_the_system_has_nothing(
    log: tuple[Loggers, StringIO], pauses: list[float]
) -> None:
    """After what will last for a while it pauses; a peer that is gone is not worth a word."""
    loggers, stream = log
    ours, theirs = socket.socketpair()
    served: list[object] = []
    acceptor = _Acceptor(
        OSError(errno.EMFILE, "Too many open files"),
        ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort"),
        theirs,
    )
    with ours, theirs, pytest.raises(_Over):
        serve_in_turn(None, acceptor, served.append, loggers.get(LOGGER))  # type: ignore[arg-type]  # all of a server that is used
    assert served == [theirs]
    assert pauses == [process_models.ACCEPT_PAUSE_SECONDS]
    assert stream.getvalue() == "E: cannot accept a connection: Too many open files\n"


def test_a_connection_without_a_child_is_closed(
    log: tuple[Loggers, StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    loggers, stream = log
    monkeypatch.setattr(os, "fork", no_fork)
    ours, theirs = socket.socketpair()
    with ours, pytest.raises(_Over):
        serve_forking(None, _Acceptor(theirs), lambda _: None, loggers.get(LOGGER), loggers, Children())  # type: ignore[arg-type]  # all of a server that is used
    assert theirs.fileno() == -1
    words = "cannot create a child process for an association: Resource temporarily unavailable"
    assert stream.getvalue() == f"E: {words}\n"


def test_children_are_forgotten_and_none_is_waited_for() -> None:
    some = Children()
    some.reap()
    reading, writing = os.pipe()
    children = []
    for ends_at_once in (True, False):
        child = os.fork()
        if child == 0:
            if not ends_at_once:
                os.close(writing)
                os.read(reading, 1)
            os._exit(0)
        children.append(child)
        some.add(child)
    os.waitid(os.P_PID, children[0], os.WEXITED | os.WNOWAIT)
    some.reap()
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)
    os.kill(children[1], 0)
    os.close(writing)
    os.waitid(os.P_PID, children[1], os.WEXITED | os.WNOWAIT)
    some.reap()
    with pytest.raises(ProcessLookupError):
        os.kill(children[1], 0)
    os.close(reading)


def test_what_is_ignored_stays_ignored() -> None:
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_by_signals()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
