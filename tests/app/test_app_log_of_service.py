"""The log of a running server: its kinds of events, the closing line of an association, and what is never in it.

One server gets what peers and clients send, good and bad, with patient data that stands out. All tests look at what it
wrote to its file, to standard error and to syslog, at level debug, and at what other commands wrote there: nothing.
"""

import contextlib
import http.client
import io
import json
import re
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog
from test_app_logs import fields_of

from stowkeeper.app import log_journal, log_syslog
from stowkeeper.app.logs import Logs
from stowkeeper.app.settings_of_log import LogSettings
from support import forked
from support.archive_server import archive_serving
from support.command_line import environment, program, write_part10
from support.instances import CT_IMAGE_STORAGE, Instance, encode_element
from support.live_folder import statuses_below
from support.processes import running
from support.raw_peer import Context, RawPeer, store_message
from support.stow_bodies import RELATED, body_of, closing, part
from support.stow_server import StowServer, stow_serving

pytestmark = pytest.mark.slow

PATIENT = {
    0x00080050: (b"SH", b"ACC5558123"),
    0x00080090: (b"PN", b"HABERDASHER^ERNA"),
    0x00081030: (b"LO", b"QUOKKA KNEE STUDY"),
    0x00100010: (b"PN", b"ZYXWVUT^QUIRINIUS"),
    0x00100020: (b"LO", b"PID7391846"),
    0x00100030: (b"DA", b"19370119"),
}
WORDS = ("ACC5558123", "HABERDASHER", "QUOKKA", "ZYXWVUT", "QUIRINIUS", "PID7391846", "19370119")
FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PRIVATE = "1.2.840.99999.7"


def named(number: int, content: bytes = b"x") -> Instance:
    """Return an instance of the patient."""
    uid = f"1.2.3.{number}"
    elements = PATIENT | {
        0x00080016: (b"UI", CT_IMAGE_STORAGE.encode()),
        0x00080018: (b"UI", uid.encode()),
        0x00080060: (b"CS", b"CT"),
        0x0020000D: (b"UI", b"1.2.10"),
        0x0020000E: (b"UI", b"1.2.10.1"),
        0x7FE00010: (b"OB", content * 500),
    }
    return Instance(
        sop_instance_uid=uid, data=b"".join(encode_element(tag, *elements[tag]) for tag in sorted(elements))
    )


def talk(port: int) -> None:
    """Send what a modality may send, in order and out of order."""
    contexts = (
        Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE),
        Context(context_id=3, abstract_syntax=FIND),
        Context(context_id=5, abstract_syntax=PRIVATE, transfer_syntaxes=("1.2.3.4.5",)),
    )
    with contextlib.closing(RawPeer(port)) as peer:
        peer.associate(*contexts)
        assert [peer.store("1.2.3.1", named(1, content=content).data).status for content in (b"x", b"y")] == [
            0,
            0,
        ]
        data = named(2).data
        refused = [
            peer.store("1.2.3.2", data[: data.index(b"QUOKKA") + 3]),
            peer.store("1.2.3.9", data),
            peer.store("1.2.3.2", data[: data.index(b"ZYXWVUT")]),
        ]
        assert all(answer.status for answer in refused), [hex(answer.status) for answer in refused]
        peer.release()
    with contextlib.closing(RawPeer(port)) as peer:  # goes away within a data set
        peer.associate()
        peer.send(store_message(1, "1.2.3.5", named(5).data)[:-200])
        peer.reset()
    with contextlib.closing(RawPeer(port)) as peer:  # is no PDU that there is
        peer.associate()
        peer.send(b"\x99\0\0\0\0\x20" + b"ZYXWVUT^QUIRINIUS".ljust(32))
        peer.read_pdu()


def ask(port: int, token: str, folder: Path) -> None:
    """Send what HTTP clients may send, in order and out of order."""
    good, cut = (write_part10(folder / f"{number}.dcm", named(number)).read_bytes() for number in (6, 7))
    wrong = json.dumps(
        [{"00100010": {"vr": "PN", "Value": [{"Alphabetic": "ZYXWVUT^QUIRINIUS"}]}, "0008": 1}]
    )
    name, identity, studies = quote("ZYXWVUT^QUIRINIUS"), "PID7391846", "/dicom-web/studies"
    as_json = {"Content-Type": "application/dicom+json"}
    questions: list[tuple[str, str, bytes]] = [
        ("POST", studies, body_of(good)),
        ("POST", studies, body_of(cut[:-90], b"ZYXWVUT^QUIRINIUS")),
        ("POST", studies, part(wrong.encode(), as_json) + closing()),
        ("GET", f"{studies}?PatientName={name}&PatientID={identity}&AccessionNumber=ACC5558123", b""),
        ("GET", f"{studies}?PatientBirthDate=19370119-19370118&ZYXWVUT=QUIRINIUS", b""),
        ("GET", f"{studies}/{identity}/series/{name}/instances", b""),
        ("GET", f"{studies}/1.2.10/metadata", b""),
        ("GET", f"/api/studies?patient_id={identity}&patient_name={name}", b""),
        ("GET", f"/{name}/{identity}", b""),
    ]
    for method, path, body in questions:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            fields = {"Authorization": f"Bearer {token}"} | ({"Content-Type": RELATED} if body else {})
            connection.request(method, path, body or None, fields)
            connection.getresponse().read()


@contextlib.contextmanager
def syslog_server() -> Iterator[tuple[str, list[str]]]:
    """Give the place of a syslog server over TCP, and the messages that it gets."""
    messages: list[str] = []
    readers: list[threading.Thread] = []

    def read(connection: socket.socket) -> None:
        with connection, connection.makefile("r", encoding="utf-8", newline="\n") as stream:
            messages.extend(stream)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                thread = threading.Thread(target=read, args=(listener.accept()[0],))
                readers.append(thread)
                thread.start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", messages
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in readers:
                thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a server said, how it left its archive, and how other commands beside it ended."""

    file: list[str]
    console: str
    syslog: list[str]
    pid: int
    modes: dict[str, int]
    commands: dict[str, int]

    def lines(self, event: str) -> list[dict[str, str]]:
        """Return the fields of the lines of an event."""
        return [fields for fields in map(fields_of, self.file) if fields["event"] == event]


def commands_beside(folder: Path, port: int, http_port: int, token: str) -> dict[str, int]:
    """Run commands that are no server, as a person does beside one; give how they ended."""
    archive, file = folder / "archive", write_part10(folder / "8.dcm", named(8))
    (folder / "token").write_text(token)
    (folder / "token").chmod(0o600)
    commands: list[list[str | Path]] = [
        ["send", f"STOWKEEPER@127.0.0.1:{port}", file],
        ["send", f"STOWKEEPER@127.0.0.1:{port}", folder / "nothing.dcm"],
        ["echo", "STOWKEEPER@127.0.0.1:1"],
        ["stow", "--token-file", folder / "token", f"http://127.0.0.1:{http_port}/dicom-web", file],
        ["ls", "studies", "--archive", archive],
        ["ls", "nonsense", "--archive", archive],
        ["verify", "--report-only", "--archive", archive],
    ]
    return {
        " ".join(map(str, command)): forked.run(
            program(*command), env=environment(), capture_output=True, timeout=60
        ).returncode
        for command in commands
    }


@contextlib.contextmanager
def stow_serving_for_owner(patch: pytest.MonkeyPatch, folder: Path, settings: str) -> Iterator[StowServer]:
    """Serve from an archive that is its owner's alone from the first command on."""
    patch.setenv("STOWKEEPER_STORAGE__FILE_MODE", "owner")
    with stow_serving(folder, settings) as server:
        yield server


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    folder = tmp_path_factory.mktemp("service")
    with syslog_server() as (place, messages):
        settings = f'[log]\nlevel = "debug"\nsyslog = "{place}"\nsyslog_framing = "newline"\n'
        with pytest.MonkeyPatch.context() as patch, stow_serving_for_owner(patch, folder, settings) as server:
            process = server.process
            talk(process.port)
            ask(server.port, server.token, folder)
            commands = commands_beside(folder, process.port, server.port, server.token)
            # Before the stop, which takes slots and locks away.
            statuses = {process.archive: process.archive.stat(), **statuses_below(process.archive)}
            found = {
                str(path.relative_to(folder)): status.st_mode & 0o777 for path, status in statuses.items()
            }
            pid = process.program.pid
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
            console = process.log_text()
    file = (folder / "archive/log/stowkeeper.log").read_text(encoding="utf-8").splitlines()
    return Said(file=file, console=console, syslog=messages, pid=pid, modes=found, commands=commands)


def test_the_kinds_of_events_are_those_of_a_run(said: Said) -> None:
    assert next(line["what"] for line in said.lines("start")) == "ready"
    assert [line["what"] for line in said.lines("stop")] == ["stopping", "stopped"]
    assert fields_of(said.file[-1])["event"] == "stop"
    events = {fields_of(line)["event"] for line in said.file}
    assert events >= {"start", "association", "write", "error", "request", "stop"}


def test_one_line_tells_of_an_association_what_came_of_it(said: Said) -> None:
    line = next(line for line in said.lines("association") if line["what"] == "released")
    assert float(line.pop("seconds")) < 60
    assert int(line.pop("bytes")) > 5 * 500
    for name in ("time", "association", "logger"):
        line.pop(name)
    assert line == {
        "level": "info",
        "event": "association",
        "what": "released",
        "calling": "RAWPEER",
        "called": "STOWKEEPER",
        "address": "127.0.0.1",
        "proposed": "3",
        "accepted": "1",
        "refused": "PatientRootQueryRetrieveInformationModelFind (abstract syntax not supported),"
        f"{PRIVATE} (transfer syntaxes not supported)",
        "instances": "2",
        "instances_refused": "3",
        "messages": "5",
        "why": "",
    }


def test_patient_data_is_in_no_log_at_any_level(said: Said) -> None:
    everything = "\n".join([*said.file, said.console, *said.syslog])
    assert [word for word in WORDS if word.lower() in everything.lower()] == []
    assert "1.2.3.7" in everything, "what was refused is named by its UID"


def test_syslog_has_each_line_of_the_file_and_all_are_the_servers(said: Said) -> None:
    heads = [re.fullmatch(r"<\d+>1 (\S+) \S+ stowkeeper (\d+) (\S+) - (.*)\n", line) for line in said.syslog]
    assert all(heads)
    assert {head[2] for head in heads if head} == {str(said.pid)}
    assert [f"{head[1]} {head[4]}" for head in heads if head] == said.file


def test_other_commands_write_nothing_into_the_log(said: Said) -> None:
    assert [code == 0 for code in said.commands.values()] == [True, False, False, True, True, False, True]
    # Its lines are those that syslog got from the process of the server (see above), and no other file is there.
    log = [name for name in said.modes if name.startswith("archive/log/")]
    assert log == ["archive/log/stowkeeper.log"]


def test_an_archive_for_its_owner_is_for_nobody_else(said: Said) -> None:
    # `archive.id` says nothing; who may not enter the folder above does not reach it either.
    others = {name: oct(mode) for name, mode in said.modes.items() if mode & 0o077}
    assert set(others) <= {"archive/archive.id"}
    assert said.modes["archive"] == said.modes["archive/log"] == said.modes["archive/objects"] == 0o700
    assert said.modes["archive/log/stowkeeper.log"] == said.modes["archive/catalog.sqlite"] == 0o600


def test_a_umask_does_not_lock_a_server_out_of_its_files(tmp_path: Path) -> None:
    settings = {"STOWKEEPER_STORAGE__FOLDER_MODE": "owner", "STOWKEEPER_STORAGE__SLOT_POOL_SIZE": "16"}
    command = [
        "sh",
        "-c",
        'umask 0777; exec "$@"',
        "sh",
        *program("serve", "--archive", tmp_path / "archive"),
    ]
    started = {**environment(), **settings}
    with running(
        "stowkeeper", [*command, "--port", "0"], log=tmp_path / "out", environment=started
    ) as server:
        server.wait_until(lambda: "stowkeeper ready" in server.log_text(), "before it was ready")
        port = int(server.log_text().split("stowkeeper ready dicom=127.0.0.1:")[1].split()[0])
        with contextlib.closing(RawPeer(port)) as peer:
            peer.associate()
            assert peer.store("1.2.3.1", named(1).data).status == 0
            peer.release()
        wrong = {
            str(path.relative_to(tmp_path)): oct(status.st_mode & 0o777)
            for path, status in statuses_below(tmp_path / "archive").items()
            if status.st_mode & 0o700 != (0o700 if stat.S_ISDIR(status.st_mode) else 0o600)
        }
    assert wrong == {}
    (file,) = (tmp_path / "archive/objects").rglob("*.dcm")
    assert [oct(path.stat().st_mode & 0o777) for path in (file, file.parent)] == ["0o640", "0o700"]
    assert (tmp_path / "archive/log/stowkeeper.log").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "archive/log").stat().st_mode & 0o777 == 0o700


def test_patient_data_reaches_no_outlet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console, got = io.StringIO(), []
    configuration = structlog.get_config()
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: structlog.configure(**configuration))
        receivers = []
        for module, name in ((log_journal, "JOURNAL_PLACE"), (log_syslog, "LOCAL_PLACE")):
            receiver = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            receiver.bind(str(tmp_path / name))
            receiver.settimeout(30)
            monkeypatch.setattr(module, name, str(tmp_path / name))
            receivers.append(receiver)

        def read(receiver: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := receiver.recv(65536):
                    got.append(data)

        readers = [threading.Thread(target=read, args=(receiver,)) for receiver in receivers]
        for reader in readers:
            reader.start()
        settings = LogSettings(level="debug", syslog="local", journal=True)
        with Logs(settings, tmp_path / "log", console):
            with archive_serving(tmp_path / "archive") as server:
                talk(server.port)
            structlog.get_logger("stowkeeper.test").error("error", what="x", exc_info=ValueError(b"ZYXWVUT"))
        for receiver in receivers:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"", receiver.getsockname())
        for reader in readers:
            reader.join(30)
    everything = b"".join([*got, console.getvalue().encode(), (tmp_path / "log/stowkeeper.log").read_bytes()])
    assert everything.count(b" instances_refused=3 ") == 4, (
        "in the file, on the console, in syslog and the journal"
    )
    assert b"STOWKEEPER_INSTANCES_REFUSED=3\n" in everything
    assert [word for word in WORDS if word.encode().lower() in everything.lower()] == []
