"""Check policies: the built-in ones on real files, those from outside by entry point, command and HTTP, and their faults."""

import contextlib
import http.server
import json
import os
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from stowkeeper.archive.checking import CheckStoppedError
from stowkeeper.archive.versions import find_versions
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.services.commitment.external_policies import PolicyUnknownError, policy_named
from stowkeeper.services.commitment.policies import (
    CheckAnswer,
    CheckContext,
    CheckQuestion,
    PolicyError,
    PolicyOutcome,
)
from support.archive_server import open_archive, settle
from support.instances import CT_IMAGE_STORAGE, make_instance

CONTEXT = CheckContext(
    transaction_uid="1.2.840.9", peer="scanner", peer_ae_title="SCANNER", own_ae_title="STORE"
)
SECONDS = 20.0


@pytest.fixture
def archive(tmp_path):
    opened = open_archive(tmp_path / "archive")
    yield opened
    opened.close()


def keep(archive, *numbers):
    done = threading.Semaphore(0)
    for number in numbers:
        instance = make_instance(number)
        incoming = archive.intake.begin(
            instance.arrival(), lambda _outcome: done.release(), class_accepted=True
        )
        incoming.write(memoryview(instance.data), None)
        incoming.commit()
    for _ in numbers:
        assert done.acquire(timeout=SECONDS)
    settle(archive)


def question(archive, number):
    uid = f"1.2.3.{number}"
    with archive.database.read() as connection:
        version = find_versions(connection, [uid]).get(uid, [None])[-1]
    path = "" if version is None else archive.path_of(version.path)
    return CheckQuestion(reference=Reference(CT_IMAGE_STORAGE, uid), version=version, path=path)


def policy_of(archive, name, seconds=SECONDS):
    return policy_named(name, seconds, archive.files, archive.root, archive.database)


def ask(archive, name, *questions, seconds=SECONDS, stopping=None):
    return policy_of(archive, name, seconds).check(list(questions), CONTEXT, stopping or threading.Event())


def outcomes(answers):
    return [answer.outcome for answer in answers]


# Built in


@pytest.mark.parametrize("name", ["index", "exists", "digest"])
def test_a_whole_version_is_a_success_at_every_level(archive, name):
    keep(archive, 1, 2)
    assert outcomes(ask(archive, name, question(archive, 1), question(archive, 2))) == ["success"] * 2


@pytest.mark.parametrize(
    ("name", "deleted", "truncated", "flipped"),
    [
        ("index", "success", "success", "success"),
        ("exists", "no-such-instance", "processing-failure", "success"),
        ("digest", "no-such-instance", "processing-failure", "processing-failure"),
    ],
)
def test_each_level_sees_what_it_promises_to_look_at(archive, name, deleted, truncated, flipped):
    keep(archive, 1, 2, 3, 4)
    questions = [question(archive, number) for number in (1, 2, 3, 4)]
    os.unlink(questions[0].path)
    os.truncate(questions[1].path, 100)
    content = bytearray(Path(questions[2].path).read_bytes())
    content[-20] ^= 1
    Path(questions[2].path).write_bytes(content)
    assert outcomes(ask(archive, name, *questions)) == [deleted, truncated, flipped, "success"]


def test_a_version_that_is_asked_for_twice_is_read_once_and_answered_twice(archive):
    keep(archive, 1)
    reads = []
    original = archive.files.open_for_reading

    class Counting:
        def __getattr__(self, name):
            return getattr(archive.files, name)

        def open_for_reading(self, *arguments):
            reads.append(1)
            return original(*arguments)

    policy = policy_named("digest", SECONDS, Counting(), archive.root, archive.database)
    asked = question(archive, 1)
    assert outcomes(policy.check([asked, asked], CONTEXT, threading.Event())) == ["success"] * 2
    assert len(reads) == 1


def test_a_check_ends_soon_after_it_is_told_to(archive):
    keep(archive, 1)
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(CheckStoppedError):
        ask(archive, "digest", question(archive, 1), stopping=stopping)


@pytest.mark.parametrize("name", ["", "sha1", "Digest", "command:", "command:'", "http://", "ftp://host/x"])
def test_a_policy_that_there_is_not_is_refused_in_words(archive, name):
    with pytest.raises(PolicyUnknownError, match=r"policy|URL|command"):
        policy_of(archive, name)


# A command


def script(tmp_path, body):
    path = tmp_path / "policy.py"
    path.write_text("import json, sys, time, os\n" + textwrap.dedent(body), encoding="utf-8")
    return f"command:{sys.executable} -I {path}"


ECHO = """
    for line in sys.stdin:
        asked = json.loads(line)
        last = int(asked["sop_instance_uid"].rpartition(".")[2])
        words = ["success", "processing-failure", "no-such-instance", "class-instance-conflict",
                 "class-not-supported", "duplicate-transaction", "resource-limitation", "not-yet"]
        print(json.dumps({"outcome": words[last % 8], "words": "since it is so"}))
"""


def test_a_command_answers_a_line_for_each_instance(archive, tmp_path):
    keep(archive, 8)
    questions = [question(archive, number) for number in range(8, 16)]
    answers = ask(archive, script(tmp_path, ECHO), *questions)
    assert outcomes(answers) == list(PolicyOutcome)
    assert [answer.words for answer in answers] == ["", *["since it is so"] * 7]


def test_a_command_is_told_what_there_is_to_know(archive, tmp_path):
    keep(archive, 1)
    body = """
        for line in sys.stdin:
            sys.stderr.write(line)
        sys.exit(3)
    """
    told = tmp_path / "told"
    body = body.replace("sys.stderr.write(line)", f"open({str(told)!r}, 'a').write(line)")
    known, unknown = question(archive, 1), question(archive, 2)
    with pytest.raises(PolicyError, match="ended with code 3"):
        ask(archive, script(tmp_path, body), known, unknown)
    first, second = (json.loads(line) for line in told.read_text().splitlines())
    assert first["version"]["path"] == known.path
    assert first["version"]["digest"] == known.version.digest
    assert second == {
        "transaction_uid": "1.2.840.9",
        "peer": "scanner",
        "peer_ae_title": "SCANNER",
        "own_ae_title": "STORE",
        "sop_class_uid": CT_IMAGE_STORAGE,
        "sop_instance_uid": "1.2.3.2",
        "version": None,
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.stderr.write('the tape is away\\n'); sys.exit(1)", "the tape is away"),
        ("print('yes')", "no JSON object"),
        ("print('[' * 100000)", "no JSON object|more than"),
        ('print(json.dumps({"outcome": "perhaps"}))', "unknown outcome"),
        ('print(json.dumps({"outcome": "success", "words": 3}))', "no text"),
        ('print(json.dumps({"outcome": "success"})); print("{}")', "unknown outcome"),
        ('print(\'{"outcome": "success"}\\n\' * 2)', "answered for 2 instances and was asked for 1"),
        ("", "answered for 0 instances"),
        ("print('x' * 10_000)", "more than 2000 bytes"),
        ("os.kill(os.getpid(), 9)", "ended with code -9"),
    ],
)
def test_a_command_that_fails_or_talks_nonsense_has_said_nothing(archive, tmp_path, body, words):
    keep(archive, 1)
    with pytest.raises(PolicyError, match=words):
        ask(archive, script(tmp_path, body), question(archive, 1))


def test_a_command_that_cannot_be_started_has_said_nothing(archive, tmp_path):
    with pytest.raises(PolicyError, match="cannot be started: No such file"):
        ask(archive, f"command:{tmp_path}/nothing", question(archive, 1))


@pytest.mark.slow
@pytest.mark.parametrize("body", ["time.sleep(60)", "os.close(1); os.close(2); time.sleep(60)"])
def test_a_command_that_hangs_is_ended_with_all_that_it_started(archive, tmp_path, body):
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    start = f"import subprocess; subprocess.Popen([sys.executable, '-I', '-c', {child!r}])\n"
    wait = f"while not os.path.exists({str(pid_file)!r}) or not os.path.getsize({str(pid_file)!r}): time.sleep(0.01)\n"
    began = time.monotonic()
    with pytest.raises(PolicyError, match=r"took longer than 5 seconds"):
        ask(archive, script(tmp_path, start + wait + body), question(archive, 1), seconds=5)
    assert time.monotonic() - began < 30
    child_pid = int(pid_file.read_text())
    deadline = time.monotonic() + SECONDS
    while Path(f"/proc/{child_pid}/cmdline").exists() and Path(f"/proc/{child_pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "what the command started is there still"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_command_is_left_when_the_job_is_to_stop(archive, tmp_path):
    stopping = threading.Event()
    threading.Timer(0.3, stopping.set).start()
    began = time.monotonic()
    with pytest.raises(CheckStoppedError):
        ask(archive, script(tmp_path, "time.sleep(60)"), question(archive, 1), stopping=stopping)
    assert time.monotonic() - began < 10


# An HTTP endpoint


class Endpoint:
    """An HTTP server that answers each POST by a function of its JSON."""

    def __init__(self, answer):
        endpoint = self
        self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.asked.append((self.headers["Content-Type"], json.loads(body)))
                answer(self, json.loads(body))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/check"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def endpoint():
    made = []

    def make(answer):
        made.append(Endpoint(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


def replies(status=200, body=b"", headers=()):
    def reply(handler, _asked):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def test_an_endpoint_gets_one_object_and_answers_with_one(archive, endpoint):
    keep(archive, 1)
    body = json.dumps(
        {"outcomes": [{"outcome": "success"}, {"outcome": "no-such-instance", "words": "gone"}]}
    )
    there = endpoint(replies(body=body.encode()))
    answers = ask(archive, there.url, question(archive, 1), question(archive, 2))
    assert outcomes(answers) == ["success", "no-such-instance"]
    ((content_type, asked),) = there.asked
    assert content_type == "application/json"
    assert asked["transaction_uid"] == "1.2.840.9"
    assert [one["sop_instance_uid"] for one in asked["instances"]] == ["1.2.3.1", "1.2.3.2"]
    assert asked["instances"][1]["version"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (replies(500), "HTTP status 500"),
        (replies(204), "HTTP status 204"),
        (replies(302, headers=[("Location", "http://127.0.0.1:1/")]), "HTTP status 302"),
        (replies(body=b"<html>"), "no JSON object"),
        (replies(body=b"{}"), "without a list"),
        (replies(body=b'{"outcomes": []}'), "answered for 0"),
        (replies(body=b'{"outcomes": ["success"]}'), "no JSON object"),
        (replies(body=b" " * 10_000), "more than"),
    ],
)
def test_an_endpoint_that_fails_or_talks_nonsense_has_said_nothing(archive, endpoint, answer, words):
    keep(archive, 1)
    with pytest.raises(PolicyError, match=words):
        ask(archive, endpoint(answer).url, question(archive, 1))


def test_an_endpoint_that_is_not_there_has_said_nothing(archive, endpoint):
    there = endpoint(replies())
    there.close()
    with pytest.raises(PolicyError, match="cannot be asked: Connection refused"):
        ask(archive, there.url, question(archive, 1))
    there.close = lambda: None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["silent", "drips", "drips its head"])
def test_an_endpoint_has_a_limit_of_time_for_all_of_its_answer(archive, endpoint, how):
    over = threading.Event()

    def slow(handler, _asked):
        if how == "drips":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            while not over.wait(0.1):
                handler.wfile.write(b" ")
        elif how == "drips its head":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            with contextlib.suppress(OSError):  # the line is cut
                while not over.wait(0.1):
                    handler.wfile.write(b"a")
                    handler.wfile.flush()
        over.wait(SECONDS)

    began = time.monotonic()
    try:
        with pytest.raises(PolicyError, match=r"longer than 1 seconds|timed out"):
            ask(archive, endpoint(slow).url, question(archive, 1), seconds=1.0)
        assert time.monotonic() - began < 5
    finally:
        over.set()


def test_the_name_of_an_endpoint_shows_no_password(archive):
    policy = policy_of(archive, "http://user:secret@host.example:8080/check?token=secret")
    assert policy.name == "http://host.example:8080/check"


# An entry point


@pytest.fixture
def entry_point(tmp_path, monkeypatch):
    """Install a package with entry points, as far as Python looks."""

    def install(body, name="lta"):
        folder = tmp_path / "site"
        info = folder / "lta_policy-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "lta_policy.py").write_text(textwrap.dedent(body), encoding="utf-8")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lta-policy\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[stowkeeper.commitment_policies]\n{name} = lta_policy:check\n"
        )
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "lta_policy", raising=False)

    yield install
    sys.modules.pop("lta_policy", None)


def test_an_entry_point_answers_with_words_or_answers(archive, entry_point):
    keep(archive, 1)
    entry_point(
        """
        from stowkeeper.services.commitment.policies import CheckAnswer, PolicyOutcome

        def check(questions, context):
            assert context.peer == "scanner"
            for question in questions:
                yield "success" if question.version else CheckAnswer(
                    outcome=PolicyOutcome.RESOURCE_LIMITATION, words="the tape is full")
        """
    )
    answers = ask(archive, "entry-point:lta", question(archive, 1), question(archive, 2))
    assert answers == [
        CheckAnswer(outcome=PolicyOutcome.SUCCESS),
        CheckAnswer(outcome=PolicyOutcome.RESOURCE_LIMITATION, words="the tape is full"),
    ]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def check(questions, context):\n    raise OSError('secret name')", "failed: OSError$"),
        ("def check(questions, context):\n    return ['fine']", "unknown outcome"),
        ("def check(questions, context):\n    return [True]", "neither"),
        ("def check(questions, context):\n    return []", "answered for 0"),
        ("def check(questions, context):\n    return None", "failed: TypeError"),
    ],
)
def test_an_entry_point_that_fails_has_said_nothing(archive, entry_point, body, words):
    entry_point(body)
    with pytest.raises(PolicyError, match=words):
        ask(archive, "entry-point:lta", question(archive, 1))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import nothing_of_that_name", "cannot be loaded: ModuleNotFoundError"),
        ("check = 3", "cannot be called"),
    ],
)
def test_an_entry_point_that_cannot_be_had_is_refused_at_once(archive, entry_point, body, words):
    entry_point(body)
    with pytest.raises(PolicyUnknownError, match=words):
        policy_of(archive, "entry-point:lta")
    with pytest.raises(PolicyUnknownError, match=r"no installed package .* there are lta"):
        policy_of(archive, "entry-point:else")


def test_a_success_from_outside_is_none_of_what_is_not_here(archive, entry_point):
    keep(archive, 1, 2)
    entry_point("def check(questions, context):\n    return ['success'] * len(questions)")
    questions = [question(archive, 1), question(archive, 2), question(archive, 3)]
    os.unlink(questions[0].path)
    answers = ask(archive, "entry-point:lta", *questions)
    assert outcomes(answers) == ["no-such-instance", "success", "no-such-instance"]
    assert answers[0].words == "its file is not there"
    assert answers[2].words == "the policy calls it a success, and it is not kept in this archive"
