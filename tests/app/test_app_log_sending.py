"""Syslog and the journal: what a receiver gets, what becomes of messages while there is none, and that nobody waits."""

import contextlib
import io
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from stowkeeper.app import log_journal, log_syslog
from stowkeeper.app.limits import JOURNAL_FIELD_LETTERS_MAX, LOG_LINES_WAITING_MAX, SYSLOG_BYTES_MAX
from stowkeeper.app.log_sending import LogSender
from stowkeeper.app.log_syslog import LocalDatagrams, SyslogStream
from stowkeeper.app.logs import Logs
from stowkeeper.app.settings_of_log import LogSettings

log = structlog.get_logger("stowkeeper.test")
END_SECONDS = 30.0


@pytest.fixture(autouse=True)
def structlog_as_it_was() -> Iterator[None]:
    configuration = structlog.get_config()
    yield
    structlog.configure(**configuration)


@contextlib.contextmanager
def datagrams(place: str | tuple[str, int]) -> Iterator[socket.socket]:
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(END_SECONDS)
        receiver.bind(place)
        yield receiver


@contextlib.contextmanager
def logging_to(folder: Path, console: io.StringIO | None = None, **settings: object) -> Iterator[Logs]:
    chosen = LogSettings.model_validate({"console": console is not None, **settings})
    with Logs(chosen, folder, console) as logs:
        yield logs


def until(is_so: Callable[[], bool]) -> None:
    ticks = threading.Event()
    for _ in range(int(END_SECONDS * 100)):
        if is_so():
            return
        ticks.wait(0.01)
    raise AssertionError("it did not come to be so in time")


# What a receiver gets.


def test_a_syslog_server_gets_messages_by_rfc_5424(tmp_path: Path) -> None:
    with datagrams(("127.0.0.1", 0)) as receiver:
        place = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        with logging_to(tmp_path, syslog=place, level="debug", syslog_facility="local3"):
            log.info("association", what="accepted", calling="CT 1", address="192.0.2.1")
            log.debug("start", what="détail")
            log.warning("error", what="a\nb")
            log.error("error", what="x")
            info, debug, warning, error = (receiver.recv(65536).decode() for _ in range(4))
    found = re.fullmatch(
        r"<158>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\S+) stowkeeper (\d+) association - (.*)", info
    )
    assert found is not None, info
    assert (found[2], int(found[3])) == (socket.gethostname() or "-", os.getpid())
    line = 'info association logger=stowkeeper.test what=accepted calling="CT 1" address=192.0.2.1'
    assert found[4] == line
    written = (tmp_path / "stowkeeper.log").read_text().splitlines()
    assert written[0] == f"{found[1]} {line}", "as in the file"
    assert debug.startswith("<159>1 ")
    assert debug.endswith('what="détail"')
    assert warning.startswith("<156>1 ")
    assert warning.endswith(r'what="a\nb"')
    assert error.startswith("<155>1 ")


def test_a_syslog_server_gets_json_where_that_is_the_format(tmp_path: Path) -> None:
    with datagrams(("127.0.0.1", 0)) as receiver:
        place = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        with logging_to(tmp_path, syslog=place, format="json"):
            log.info("write", sop_instance_uid="1.2.3")
            message = receiver.recv(65536).decode()
    assert json.loads(message.split(" - ", 1)[1]) == json.loads((tmp_path / "stowkeeper.log").read_text())


def test_the_syslog_of_this_machine_gets_messages_as_from_syslog_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "log.socket")
    monkeypatch.setattr(log_syslog, "LOCAL_PLACE", place)
    with datagrams(place) as receiver, logging_to(tmp_path, syslog="local", file=False):
        log.warning("error", what="x")
        message = receiver.recv(65536).decode()
    assert re.fullmatch(
        rf"<28>[A-Z][a-z]{{2}} [ 1-3]\d \d\d:\d\d:\d\d stowkeeper\[{os.getpid()}\]: warning error"
        r" logger=stowkeeper\.test what=x",
        message,
    ), message


@pytest.mark.parametrize("framing", ["octet counting", "newline"])
def test_messages_over_a_connection_are_told_apart(tmp_path: Path, framing: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(END_SECONDS)
        place = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with logging_to(tmp_path, syslog=place, syslog_framing=framing):
            log.info("start", what="ready")
            log.info("stop", what="é")
            connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            connection.settimeout(END_SECONDS)
            received = stream.read()
    messages = []
    while received:
        if framing == "newline":
            message, received = received.split(b"\n", 1)
        else:
            length, rest = received.split(b" ", 1)
            message, received = rest[: int(length)], rest[int(length) :]
        messages.append(message.decode().split(" - ", 1)[1])
    assert messages == [
        "info start logger=stowkeeper.test what=ready",
        'info stop logger=stowkeeper.test what="é"',
    ]


def test_the_journal_gets_the_values_as_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "journal.socket")
    monkeypatch.setattr(log_journal, "JOURNAL_PLACE", place)
    with datagrams(place) as receiver, logging_to(tmp_path, journal=True, file=False):
        log.warning(
            "association",
            what="aborted",
            association="a-1",
            calling='C"T\n1',
            patient_name="DOE^JOHN",
            words="x" * (JOURNAL_FIELD_LETTERS_MAX + 1),
            messages=3,
            **{"no field": "y"},
        )
        message = receiver.recv(65536)
    assert message.endswith(b"\n")
    fields = dict(line.split("=", 1) for line in message.decode().splitlines())
    words = fields.pop("STOWKEEPER_WORDS")
    assert words == "x" * JOURNAL_FIELD_LETTERS_MAX
    assert fields.pop("MESSAGE").startswith("warning association logger=stowkeeper.test what=aborted ")
    assert fields == {
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "stowkeeper",
        "STOWKEEPER_EVENT": "association",
        "STOWKEEPER_LOGGER": "stowkeeper.test",
        "STOWKEEPER_WHAT": "aborted",
        "STOWKEEPER_ASSOCIATION": "a-1",
        "STOWKEEPER_CALLING": r'C"T\n1',
        "STOWKEEPER_PATIENT_NAME": "(withheld)",
        "STOWKEEPER_MESSAGES": "3",
    }


def test_long_events_are_cut_between_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "journal.socket")
    monkeypatch.setattr(log_journal, "JOURNAL_PLACE", place)
    values = {f"value_{number}": "é" * 1000 for number in range(40)}
    with datagrams(place) as journal, datagrams(("127.0.0.1", 0)) as server:
        syslog = f"udp://127.0.0.1:{server.getsockname()[1]}"
        with logging_to(tmp_path, journal=True, syslog=syslog, file=False):
            log.info("start", **values)
            to_journal, to_server = journal.recv(1 << 20), server.recv(1 << 20)
    assert SYSLOG_BYTES_MAX - 3 <= len(to_server) <= SYSLOG_BYTES_MAX
    assert to_server.decode().endswith("é…")
    assert len(to_journal) <= 2 * SYSLOG_BYTES_MAX + 200
    assert to_journal.decode().count("STOWKEEPER_VALUE_") == 4


def test_what_leads_to_the_journal_is_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "journal.socket")
    monkeypatch.setattr(log_journal, "JOURNAL_PLACE", place)
    status = os.fstat(2)
    with datagrams(place) as receiver:
        for stream, is_said in ((f"{status.st_dev}:{status.st_ino}", False), ("1:2", True)):
            monkeypatch.setenv("JOURNAL_STREAM", stream)
            with Logs(LogSettings(journal=True, file=False), tmp_path):
                log.info("start", what="here")
                assert b"what=here" in receiver.recv(65536)
            assert ("what=here" in capfd.readouterr().err) is is_said


def test_a_value_that_cannot_be_written_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "journal.socket")
    monkeypatch.setattr(log_journal, "JOURNAL_PLACE", place)
    with datagrams(place) as journal, logging_to(tmp_path, journal=True, file=False):
        log.error("error", what="x", number=10**5000)
        message = journal.recv(65536).decode()
    assert 'what="an event could not be written"' in message
    assert "PRIORITY=3\nSYSLOG_IDENTIFIER=stowkeeper\nSTOWKEEPER_EVENT=error\n" in message


# When a receiver stands still or is not there.


class Channel:
    """Keeps messages; fails while `error` is set, and stands still while `gate` is closed."""

    name = "there"

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.error: OSError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.tries = 0

    def send(self, message: bytes) -> None:
        self.tries += 1
        self.gate.wait()
        if self.error is not None:
            raise self.error
        self.messages.append(message)

    def close(self) -> None:
        pass


@pytest.fixture
def told() -> list[tuple[str, str, int]]:
    return []


def test_what_waits_outlives_a_restart_of_the_receiver(told: list[tuple[str, str, int]]) -> None:
    channel = Channel()
    channel.error = ConnectionRefusedError(111, "Connection refused")
    sender = LogSender(channel, lambda *words: told.append(words), retry_seconds=0.01)
    sender.put(b"one")
    until(lambda: channel.tries > 3)
    sender.put(b"two")
    channel.error = None
    assert sender.flush(END_SECONDS)
    sender.close()
    assert channel.messages == [b"one", b"two"]
    assert told == [
        ("there", "log lines cannot be sent: Connection refused", 1),
        ("there", "log lines can be sent again; so many were dropped before", 0),
    ]


def test_a_receiver_that_stands_still_holds_up_nobody(told: list[tuple[str, str, int]]) -> None:
    channel = Channel()
    channel.gate.clear()
    sender = LogSender(channel, lambda *words: told.append(words))
    sender.put(b"first")
    until(lambda: channel.tries == 1)
    for number in range(LOG_LINES_WAITING_MAX + 7):
        sender.put(b"%d" % number)
    channel.gate.set()
    assert sender.flush(END_SECONDS)
    sender.close()
    assert len(channel.messages) == 1 + LOG_LINES_WAITING_MAX
    assert told == [("there", "log lines were dropped, more came than could be sent", 7)]


def test_the_end_waits_for_no_receiver_and_what_is_lost_is_told(told: list[tuple[str, str, int]]) -> None:
    gone = Channel()
    gone.error = ConnectionRefusedError(111, "Connection refused")
    sender = LogSender(gone, lambda *words: told.append(words), retry_seconds=1000)
    for _ in range(3):
        sender.put(b"x")
    until(lambda: bool(told))
    sender.close(END_SECONDS)
    assert told[1:] == [("there", "log lines were not sent before the end", 3)]
    still = Channel()
    still.gate.clear()
    sender = LogSender(still, lambda *words: told.append(words))
    for _ in range(3):
        sender.put(b"x")
    until(lambda: still.tries == 1)
    sender.close(0.01)
    still.gate.set()
    sender.close(END_SECONDS)
    assert still.messages == [b"x"]
    assert told[2:] == [("there", "log lines were not sent before the end", 3)]


def test_a_message_that_no_datagram_holds_is_lost_alone(
    tmp_path: Path, told: list[tuple[str, str, int]]
) -> None:
    with datagrams(str(tmp_path / "socket")) as receiver:
        sender = LogSender(LocalDatagrams(str(tmp_path / "socket")), lambda *words: told.append(words))
        sender.put(b"x" * (1 << 24))
        sender.put(b"next")
        assert receiver.recv(100) == b"next"
        sender.close()
    assert [count for _, _, count in told] == [1]


def test_the_log_says_that_syslog_is_gone_and_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    written = tmp_path / "stowkeeper.log"
    with logging_to(tmp_path, syslog=f"tcp://127.0.0.1:{port}") as logs:
        log.info("start", what="nobody hears it")
        until(lambda: "log lines cannot be sent: Connection refused" in written.read_text())
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(END_SECONDS)
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(END_SECONDS)
                assert b"nobody hears it" in connection.recv(65536)
            # The next message finds that the connection has ended, and goes over a new one.
            log.info("start", what="somebody hears it")
            again, _ = listener.accept()
            with again:
                again.settimeout(END_SECONDS)
                assert b"somebody hears it" in again.recv(65536)
            assert logs.flush()
    lines = [line for line in written.read_text().splitlines() if "log lines" in line]
    assert ["cannot be sent" in lines[0], "can be sent again" in lines[1]] == [True, True]
    assert all(f"outlet=tcp://127.0.0.1:{port} " in line for line in lines)


def test_places_change_while_running(tmp_path: Path) -> None:
    with datagrams(("127.0.0.1", 0)) as one, datagrams(("127.0.0.1", 0)) as two:
        places = [f"udp://127.0.0.1:{receiver.getsockname()[1]}" for receiver in (one, two)]
        with logging_to(tmp_path, syslog=places[0], file=False) as logs:
            log.info("start", number=1)
            for place in (places[1], ""):
                logs.apply(LogSettings(console=False, file=False, syslog=place), tmp_path)
                log.info("start", number=f"after {place}")
        assert one.recv(65536).decode().endswith("number=1")
        assert f'number="after {places[1]}"' in two.recv(65536).decode()
        until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("log to ")])
        for receiver in (one, two):
            receiver.settimeout(0)
            with pytest.raises(BlockingIOError):
                receiver.recv(65536)


def test_the_local_syslog_may_be_a_stream(tmp_path: Path) -> None:
    place = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(place)
        listener.listen()
        channel = LocalDatagrams(place)
        channel.send(b"one")
        channel.send(b"two")
        connection, _ = listener.accept()
        channel.close()
        with connection, connection.makefile("rb") as stream:
            assert stream.read() == b"one\0two\0"


def test_a_place_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stream = SyslogStream("127.0.0.1", port, counts_octets=True)
    with pytest.raises(FileNotFoundError):
        LocalDatagrams(str(tmp_path / "none")).send(b"x")
    for _attempt in range(2):
        with pytest.raises(ConnectionRefusedError):
            stream.send(b"x")
        stream.close()
