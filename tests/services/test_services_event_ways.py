"""The ways in which an event gets out: a program, an HTTP endpoint, a file in a folder; and what can go wrong with each."""

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import socket
import ssl
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.services.events.command import CommandWay, filled
from stowkeeper.services.events.document import PLACES, event_json, event_values
from stowkeeper.services.events.event_folder import FolderWay
from stowkeeper.services.events.feed import Event, EventKind
from stowkeeper.services.events.targets import DeliveryError
from stowkeeper.services.events.webhook import SecretError, WebhookWay, secret_key
from support.tls_files import Authority, Keys

ARCHIVE_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
EVENT = Event(
    seq=42,
    at="2026-03-01T00:00:00.000000Z",
    kind=EventKind.STUDY_QUIET,
    study_instance_uid="1.2.10",
    series_instance_uid="1.2.10.1",
    sop_instance_uid="1.2.3.1",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    path="objects/1.2.10/1.2.10.1/1.2.3.1_00.dcm",
    receipt_id="00" * 16,
    digest="ab" * 32,
    data_set_length=1000,
    received_at="2026-03-01T00:00:00.000000Z",
    received_by="C-STORE",
    calling_ae_title="CT1; rm -rf $(HOME)",
    called_ae_title="STOWKEEPER",
    peer_address="192.0.2.17",
    revision=2,
    words="revision 2 is quiet",
    evidence={"instances": 3},
)


def never():
    return False


def at_once():
    return True


# The document


def test_an_event_is_one_json_object():
    found = json.loads(event_json(ARCHIVE_ID, EVENT))
    assert found["id"] == f"{ARCHIVE_ID}:42"
    assert found["event"] == "study.quiet"
    assert found["evidence"] == {"instances": 3}
    assert found["calling_ae_title"] == "CT1; rm -rf $(HOME)"
    assert "kind" not in found


def test_every_place_has_a_value():
    assert set(event_values(ARCHIVE_ID, EVENT)) == set(PLACES)


@pytest.mark.slow
@given(st.text())
def test_what_is_no_name_in_braces_stays(text):
    assert filled(text.replace("{", "("), {"seq": "42"}) == text.replace("{", "(")


def test_nothing_is_put_into_what_was_put_in():
    values = {"calling_ae_title": "{words}", "words": "three words", "archive": "/srv/{words}"}
    assert filled("{archive} {calling_ae_title} {unknown}", values) == "/srv/{words} {words} {unknown}"


# A program


def command(*arguments, seconds=20.0):
    return CommandWay(arguments, archive_id=ARCHIVE_ID, root="/srv/archive", seconds=seconds)


NOTE = """
import json, os, sys
with open(sys.argv[1], "w") as note:
    variables = {name: value for name, value in os.environ.items() if name.startswith("STOWKEEPER_EVENT_")}
    json.dump({"arguments": sys.argv[2:], "variables": variables, "input": json.load(sys.stdin)}, note)
"""


def test_a_program_gets_the_event_as_arguments_variables_and_input(tmp_path):
    note = tmp_path / "note"
    way = command(
        sys.executable,
        "-c",
        NOTE,
        str(note),
        "{study_instance_uid}",
        "{calling_ae_title}",
        "{other} {archive}",
    )
    way.deliver(EVENT, never)
    found = json.loads(note.read_text())
    assert found["arguments"] == ["1.2.10", "CT1; rm -rf $(HOME)", "{other} /srv/archive"]
    assert found["variables"]["STOWKEEPER_EVENT_EVENT"] == "study.quiet"
    assert found["variables"]["STOWKEEPER_EVENT_SEQ"] == "42"
    assert found["variables"]["STOWKEEPER_EVENT_ARCHIVE"] == "/srv/archive"
    assert found["input"] == json.loads(event_json(ARCHIVE_ID, EVENT))


def test_a_program_that_fails_has_not_delivered():
    with pytest.raises(DeliveryError, match=r"ended with code 3$"):
        command(sys.executable, "-c", "raise SystemExit(3)").deliver(EVENT, never)


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(DeliveryError, match="no-such-program cannot be started"):
        command("/no/such/no-such-program").deliver(EVENT, never)


@pytest.mark.parametrize("title", ["CT\0", "CT\udcff\ud800"])
def test_a_value_that_no_program_can_be_given_is_told_in_words(title):
    with pytest.raises(DeliveryError, match="a character that no argument may have"):
        command(sys.executable, "-c", "pass", "{calling_ae_title}").deliver(
            replace(EVENT, calling_ae_title=title), never
        )


def test_a_program_may_write_what_it_likes():
    command(sys.executable, "-c", "print('x' * 10_000_000)").deliver(EVENT, never)


WITH_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(str(child.pid))
if sys.argv[2] == "stays":
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("parent", ["stays", "ends"])
def test_a_program_is_ended_with_what_it_started(tmp_path, parent):
    note = tmp_path / "pid"
    way = command(sys.executable, "-c", WITH_CHILD, str(note), parent, seconds=60)

    def has_child():
        return note.exists() and note.read_text() != ""

    if parent == "stays":
        with pytest.raises(DeliveryError, match="the delivery was stopped"):
            way.deliver(EVENT, has_child)
    else:
        way.deliver(EVENT, never)
    assert is_gone(int(note.read_text()))


def is_gone(pid):
    """Wait until a process is gone, or a zombie that nobody of ours can wait for."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_a_program_that_takes_too_long_is_ended():
    way = command(sys.executable, "-c", "import time; time.sleep(600)", seconds=0.3)
    with pytest.raises(DeliveryError, match=r"took longer than 0\.3 seconds and was ended"):
        way.deliver(EVENT, never)


# A folder


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    way = FolderWay(FileSystem(), str(tmp_path), archive_id=ARCHIVE_ID)
    way.deliver(EVENT, never)
    way.deliver(EVENT, never)
    (found,) = tmp_path.iterdir()
    assert found.name == "0000000000000042_study.quiet.json"
    assert json.loads(found.read_text()) == json.loads(event_json(ARCHIVE_ID, EVENT))


def test_what_a_crash_left_is_in_nobodys_way(tmp_path):
    (tmp_path / ".0000000000000042_study.quiet.json").write_text("half")
    FolderWay(FileSystem(), str(tmp_path), archive_id=ARCHIVE_ID).deliver(EVENT, never)
    assert [path.name for path in tmp_path.iterdir()] == ["0000000000000042_study.quiet.json"]


def test_a_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(DeliveryError, match="away cannot be written"):
        FolderWay(FileSystem(), str(tmp_path / "away"), archive_id=ARCHIVE_ID).deliver(EVENT, never)


# An endpoint


class Endpoint:
    """A real HTTP server that notes what is posted, and answers as it is told to."""

    def __init__(self):
        self.posts = []
        self.connections = set()
        self.status = 204
        self.fields = {}
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.connections.add(self.client_address)
                endpoint.posts.append((self.path, dict(self.headers), body))
                self.send_response(endpoint.status)
                for name, value in endpoint.fields.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?for=us"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint():
    with contextlib.closing(Endpoint()) as made:
        yield made


def webhook(url, *, key=None, seconds=20.0, tls=None):
    return WebhookWay(url, key=key, archive_id=ARCHIVE_ID, seconds=seconds, tls=tls)


def test_an_event_is_posted_and_signed(endpoint):
    key = secret_key("whsec_" + base64.b64encode(b"a secret of ours").decode())
    with contextlib.closing(webhook(endpoint.url, key=key)) as way:
        way.deliver(EVENT, never)
    ((path, fields, body),) = endpoint.posts
    assert path == "/hook?for=us"
    assert fields["Content-Type"] == "application/json"
    assert json.loads(body)["event"] == "study.quiet"
    assert fields["webhook-id"] == f"{ARCHIVE_ID}:42"
    assert abs(int(fields["webhook-timestamp"]) - time.time()) < 60
    signed = f"{fields['webhook-id']}.{fields['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"a secret of ours", signed, hashlib.sha256).digest()).decode()
    assert fields["webhook-signature"] == f"v1,{expected}"


def test_a_connection_is_used_again(endpoint):
    with contextlib.closing(webhook(endpoint.url)) as way:
        for _ in range(5):
            way.deliver(EVENT, never)
    assert len(endpoint.posts) == 5
    assert len(endpoint.connections) == 1
    assert "webhook-signature" not in endpoint.posts[0][1]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (500, "answered 500$"),
        (404, "answered 404$"),
        (301, "answered 301, and no redirect is followed"),
    ],
)
def test_any_answer_but_success_is_a_failure(endpoint, status, words):
    endpoint.status = status
    endpoint.fields = {"Location": endpoint.url}
    with contextlib.closing(webhook(endpoint.url)) as way:
        with pytest.raises(DeliveryError, match=words) as raised:
            way.deliver(EVENT, never)
        assert raised.value.again_in_seconds is None
        assert len(endpoint.posts) == 1
        endpoint.status = 200
        way.deliver(EVENT, never)


@pytest.mark.parametrize(
    ("field", "seconds"), [("7", 7.0), ("999999999999999", 600.0), ("soon", None), ("-1", None)]
)
def test_an_endpoint_may_say_when_to_come_again(endpoint, field, seconds):
    endpoint.status = 429
    endpoint.fields = {"Retry-After": field}
    with contextlib.closing(webhook(endpoint.url)) as way, pytest.raises(DeliveryError) as raised:
        way.deliver(EVENT, never)
    assert raised.value.again_in_seconds == seconds


@contextlib.contextmanager
def raw_server(answer):
    """Accept connections, and do with each, behind its request, what is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    accepted.append(connection)
                    threading.Thread(target=answer, args=(connection, len(accepted)), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/", accepted
        finally:
            for connection in accepted:
                connection.close()


def test_a_server_that_never_answers_is_left():
    with raw_server(lambda connection, _: connection.recv(65536)) as (url, _):
        started = time.monotonic()
        with pytest.raises(DeliveryError, match="cannot be reached"):
            webhook(url, seconds=0.5).deliver(EVENT, never)
        assert time.monotonic() - started < 20


def drip(connection, _number):
    connection.recv(65536)
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)  # what is tested is a server that takes its time


def test_a_server_that_drips_is_left_when_its_time_is_over():
    with raw_server(drip) as (url, _):
        started = time.monotonic()
        with pytest.raises(DeliveryError):
            webhook(url, seconds=0.5).deliver(EVENT, never)
        assert time.monotonic() - started < 20


def drip_a_handshake(connection, _number):
    connection.recv(65536)
    with contextlib.suppress(OSError):
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of a handshake, of 16 KiB
        for _ in range(2000):
            connection.sendall(b"\x02")
            time.sleep(0.02)  # likewise


@pytest.mark.parametrize(("seconds", "is_over"), [(0.5, never), (600, at_once)])
def test_a_server_that_drips_its_handshake_is_left_likewise(seconds, is_over):
    with raw_server(drip_a_handshake) as (url, _):
        started = time.monotonic()
        way = webhook(url.replace("http:", "https:"), tls=ssl.create_default_context(), seconds=seconds)
        with pytest.raises(DeliveryError):
            way.deliver(EVENT, is_over)
        assert time.monotonic() - started < 20


def test_who_stops_waits_for_no_answer():
    with raw_server(drip) as (url, _), pytest.raises(DeliveryError):
        webhook(url, seconds=600).deliver(EVENT, at_once)


def answer_once(connection, _number):
    with contextlib.suppress(OSError):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        connection.close()  # without a word, as servers do with connections that are idle


def test_a_connection_that_was_closed_meanwhile_is_opened_anew():
    with raw_server(answer_once) as (url, accepted), contextlib.closing(webhook(url)) as way:
        way.deliver(EVENT, never)
        way.deliver(EVENT, never)
        assert len(accepted) == 2


def test_a_server_that_closes_at_once_has_not_taken_it():
    closing = raw_server(lambda connection, _: connection.close())
    with closing as (url, _), pytest.raises(DeliveryError, match="cannot be reached"):
        webhook(url).deliver(EVENT, never)


def test_nobody_there_is_said_in_words():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        DeliveryError, match=f"http://127.0.0.1:{port}/ cannot be reached: Connection refused"
    ):
        webhook(f"http://127.0.0.1:{port}/").deliver(EVENT, never)


@pytest.mark.parametrize(
    ("garbage", "words"),
    [
        (b"\x1b[31mRed\r\n\r\n", r"answered what is no HTTP \(BadStatusLine\)$"),
        (b"HTTP/1.1 abc\r\n\r\n", "answered what is no HTTP"),
        (b"\r\n" * 10, "answered what is no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200, "answered what is no HTTP"),
        (b"", "cannot be reached"),
    ],
)
def test_an_answer_that_is_none_is_a_failure(garbage, words):
    def answer(connection, _number):
        connection.recv(65536)
        with contextlib.suppress(OSError):
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_RDWR)

    with raw_server(answer) as (url, _), pytest.raises(DeliveryError, match=words):
        webhook(url, seconds=5).deliver(EVENT, never)


@pytest.mark.peer("openssl")
def test_an_endpoint_by_https_is_known_by_its_authority_and_its_name(endpoint, tmp_path):
    authority = Authority(tmp_path / "authority", Keys(tmp_path))
    here, elsewhere = authority.issue("here"), authority.issue("elsewhere", names=("DNS:elsewhere",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(here.certificate, here.key)
    endpoint.server.socket = context.wrap_socket(endpoint.server.socket, server_side=True)
    url = endpoint.url.replace("http://", "https://")
    trusting = ssl.create_default_context(cafile=authority.certificate)
    with contextlib.closing(webhook(url, tls=trusting)) as way:
        way.deliver(EVENT, never)
        way.deliver(EVENT, never)
    assert (len(endpoint.posts), len(endpoint.connections)) == (2, 1)
    assert endpoint.posts[0][1]["Host"] == f"127.0.0.1:{endpoint.server.server_address[1]}"
    context.load_cert_chain(elsewhere.certificate, elsewhere.key)
    with pytest.raises(DeliveryError, match="cannot be reached"):
        webhook(url, tls=trusting).deliver(EVENT, never)
    assert len(endpoint.posts) == 2


def test_a_certificate_that_nobody_vouches_for_is_refused(endpoint):
    url = endpoint.url.replace("http://", "https://")
    with pytest.raises(DeliveryError, match="cannot be reached"):
        webhook(url, tls=ssl.create_default_context(), seconds=5).deliver(EVENT, never)


@pytest.mark.parametrize("text", ["", "  \n", "whsec_", "whsec_not base 64!"])
def test_a_secret_that_is_none_is_refused(text):
    with pytest.raises(SecretError):
        secret_key(text)


def test_a_secret_may_be_any_text():
    assert secret_key("  hush hush\n") == b"hush hush"


def test_nothing_of_the_environment_is_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("OF_THE_SERVER", "kept")
    note = tmp_path / "note"
    program = "import os, sys; open(sys.argv[1], 'w').write(os.environ['OF_THE_SERVER'])"
    command(sys.executable, "-c", program, str(note)).deliver(EVENT, never)
    assert note.read_text() == "kept"
    assert os.environ.get("STOWKEEPER_EVENT_SEQ") is None
