"""Messages to the system log and to log servers, as datagrams."""

import contextlib
import io
import logging
import os
import re
import socket
import time

import pytest

from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog import remote_appenders
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.levels import NUMBERS
from stowkeeper.dcmtk.oflog.limits import DATAGRAM_SECONDS_MAX, RECONNECT_SECONDS
from stowkeeper.dcmtk.oflog.patterns import full_host_name
from stowkeeper.dcmtk.oflog.remote_appenders import (
    FACILITIES,
    DatagramAppender,
    connect_to_server,
    connect_to_system_log,
    log4j_frame,
    server_log_frame,
    system_log_frame,
)
from support.processes import LOOPBACK

TIME = 1_717_142_399.123456
SECONDS_MAX = 10.0


def record(message="hello", level=LogLevel.INFO):
    made = logging.LogRecord("dcmtk.apps", NUMBERS[level], "/src/a<b>.py", 7, message, (), None, "receive")
    made.created = TIME
    return made


@pytest.fixture
def err():
    return io.StringIO()


@pytest.fixture
def daemon(tmp_path):
    """A system log, and its path."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(SECONDS_MAX)
        listening.bind(path)
        yield listening, path


@pytest.fixture
def server():
    """A log server, and its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.settimeout(SECONDS_MAX)
        listening.bind((LOOPBACK, 0))
        yield listening, listening.getsockname()[1]


@contextlib.contextmanager
def appender(err, connect, frame=lambda _record, text: text):
    with contextlib.closing(DatagramAppender("s", Complaints(err), connect, frame)) as made:
        yield made


# --- frames


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (LogLevel.TRACE, 7),
        (LogLevel.DEBUG, 7),
        (LogLevel.INFO, 6),
        (LogLevel.WARN, 4),
        (LogLevel.ERROR, 3),
        (LogLevel.FATAL, 2),
    ],
)
def test_the_system_log_gets_priority_time_and_name(level, severity):
    frame = system_log_frame(facility="daemon", ident="storescp")
    when = time.strftime("%b %e %H:%M:%S", time.localtime(TIME))
    assert frame(record(level=level), "text\n") == f"<{3 * 8 + severity}>{when} storescp: text\n"


def test_a_server_gets_what_rfc_5424_asks_for():
    frame = server_log_frame(facility="local7", ident="storescp")
    expected = (
        f"<{23 * 8 + 6}>1 2024-05-31T07:59:59.123Z {full_host_name()} storescp {os.getpid()} dcmtk.apps - x\n"
    )
    assert frame(record(), "x\n") == expected
    nameless = server_log_frame(facility="user", ident="")
    assert f" {full_host_name()} - {os.getpid()} " in nameless(record(), "x")


def test_facilities_have_the_numbers_of_the_system():
    numbers = {
        "kern": 0,
        "user": 1,
        "mail": 2,
        "daemon": 3,
        "auth": 4,
        "authpriv": 10,
        "ftp": 11,
        "local0": 16,
    }
    assert {name: FACILITIES[name] for name in numbers} == numbers


def test_log4j_gets_its_xml():
    text = log4j_frame(record(), "a < \"b\" & 'c'\n\x7f\u20ac")
    assert re.fullmatch(
        r'<log4j:event logger="dcmtk\.apps" level="INFO" timestamp="1717142399123" thread="\d+">'
        r"<log4j:message>a &lt; &quot;b&quot; &amp; &apos;c&apos;&#x0a;&#x7f;\u20ac</log4j:message>"
        r"<log4j:NDC></log4j:NDC>"
        r'<log4j:locationInfo class="" file="/src/a&lt;b&gt;\.py" method="receive" line="7"/></log4j:event>',
        text,
    )


# --- sending


def test_a_message_is_one_datagram(daemon, server, err):
    listening, path = daemon
    with appender(err, lambda: connect_to_system_log(path)) as made:
        made.handle(record("one\ntwo"))
    assert listening.recv(1000) == b"INFO - one\ntwo\n"
    listening, port = server
    with appender(err, lambda: connect_to_server(LOOPBACK, port)) as made:
        made.handle(record("\u20ac\udcff"))
    assert listening.recv(1000) == b"INFO - \xe2\x82\xac\\udcff\n"
    assert err.getvalue() == ""


def test_a_daemon_that_was_started_anew_gets_the_next_message(daemon, tmp_path, err, monkeypatch):
    monkeypatch.setattr(remote_appenders, "RECONNECT_SECONDS", 0)
    listening, path = daemon
    with appender(err, lambda: connect_to_system_log(path)) as made:
        listening.close()
        os.unlink(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as anew:
            anew.settimeout(SECONDS_MAX)
            anew.bind(path)
            made.handle(record())
            assert anew.recv(100) == b"INFO - hello\n"


def test_without_a_daemon_messages_are_dropped_and_that_is_said_once(tmp_path, err):
    with appender(err, lambda: connect_to_system_log(str(tmp_path / "absent"))) as made:
        for _ in range(3):
            made.handle(record())
    assert err.getvalue() == "log4cplus:ERROR s: messages cannot be sent: No such file or directory\n"


def test_a_message_that_is_too_long_does_not_stop_the_others(server, err, monkeypatch):
    monkeypatch.setattr(remote_appenders, "RECONNECT_SECONDS", 0)
    listening, port = server
    with appender(err, lambda: connect_to_server(LOOPBACK, port)) as made:
        made.handle(record("x" * 70_000))
        made.handle(record())
    assert listening.recv(1000) == b"INFO - hello\n"
    assert err.getvalue() == "log4cplus:ERROR s: messages cannot be sent: Message too long\n"


def test_a_host_without_address_is_reported(err):
    for host in ("host.invalid", "a" * 100, "."):
        with appender(err, lambda host=host: connect_to_server(host, 514)):
            pass
    assert len(err.getvalue().splitlines()) == 3


def test_a_server_is_not_looked_for_with_every_message(err):
    assert RECONNECT_SECONDS >= 1
    tries = []

    def connect():
        tries.append(1)
        raise OSError("no")

    with appender(err, connect) as made:
        for _ in range(10):
            made.handle(record())
    assert len(tries) == 1


def test_a_daemon_that_does_not_read_holds_nobody_up(daemon, err, monkeypatch):
    assert DATAGRAM_SECONDS_MAX <= 1
    monkeypatch.setattr(remote_appenders, "DATAGRAM_SECONDS_MAX", 0.1)
    _, path = daemon
    before = time.monotonic()
    with appender(err, lambda: connect_to_system_log(path)) as made:
        while not err.getvalue() and time.monotonic() < before + SECONDS_MAX:
            made.handle(record("x" * 1000))
    assert err.getvalue() == "log4cplus:ERROR s: messages cannot be sent: timed out\n"
    assert time.monotonic() - before < SECONDS_MAX / 2


def test_of_several_addresses_that_of_ipv4_is_taken(server, err, monkeypatch):
    listening, port = server
    of_ipv6 = (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", port, 0, 0))
    of_ipv4 = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", (LOOPBACK, port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: [of_ipv6, of_ipv4])
    with appender(err, lambda: connect_to_server("localhost", port)) as made:
        made.handle(record())
    assert listening.recv(100) == b"INFO - hello\n"


def test_a_server_that_is_down_is_reported_once(server, err, monkeypatch):
    monkeypatch.setattr(remote_appenders, "RECONNECT_SECONDS", 0)
    listening, port = server
    with appender(err, lambda: connect_to_server(LOOPBACK, port)) as made:
        listening.close()
        for _ in range(20):
            made.handle(record())
    assert err.getvalue() == "log4cplus:ERROR s: messages cannot be sent: Connection refused\n"
