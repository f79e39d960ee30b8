"""Events from the settings to whoever is told, through a real server; and what `stowkeeper events` shows and does."""

import contextlib
import http.server
import json
import signal
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, update

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.settings import load_settings
from stowkeeper.database.schema import consumers, instances
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.job import JobFilter
from support.catalog_rows import open_database
from support.command_line import CommandLine, keep
from support.instances import make_instance
from support.raw_peer import Context, RawPeer
from support.server_process import looking_into, serve_process

EXPLICIT = "1.2.840.10008.1.2.1"


def settings_of(folder: Path, text: str):
    path = folder / "stowkeeper.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(str(path), {}, {})


def problems_of(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as raised:
        settings_of(folder, text)
    return str(raised.value)


# The settings


def test_a_target_is_read_from_the_settings(tmp_path):
    (target,) = settings_of(
        tmp_path,
        '[[event_targets]]\nname = "router"\nevents = ["study.quiet", "study.late"]\n'
        'command = ["/bin/route", "{study_instance_uid}", "{archive}/{path}"]\n',
    ).event_targets
    assert target.command == ("/bin/route", "{study_instance_uid}", "{archive}/{path}")
    assert [str(kind) for kind in target.events] == ["study.quiet", "study.late"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('events = ["study.quiet"]', "one of command, url and folder, and this one has none of them"),
        ('events = ["study.quiet"]\nurl = "http://a/"\nfolder = "/a"', "this one has url and folder"),
        ('events = ["study.ended"]\nfolder = "/a"', "'study.ended' is no event; there are instance.received"),
        ('events = []\nfolder = "/a"', "events"),
        ('events = ["study.quiet"]\nurl = "ftp://a/"', "is no URL that begins with http"),
        ('events = ["study.quiet"]\nurl = "http://u:p@a/"', "url holds a user or a password"),
        ('events = ["study.quiet"]\nfolder = "/a"\nsecret_file = "/b"', "secret_file is for what is posted"),
        (
            'events = ["study.quiet"]\nfolder = "archive/objects"',
            'the folder of "router" is within the archive: name one outside of it',
        ),
        (
            'events = ["study.quiet"]\ncommand = ["a", "{patient_name}"]',
            "{patient_name} is none of the values there are: id, event, seq",
        ),
    ],
)
def test_a_target_that_makes_no_sense_is_refused_in_words(tmp_path, text, words):
    found = problems_of(tmp_path, f'archive = "archive"\n[[event_targets]]\nname = "router"\n{text}\n')
    assert words in found.replace('"study.ended"', "'study.ended'")


def test_two_targets_share_no_name(tmp_path):
    one = '[[event_targets]]\nname = "router"\nevents = ["study.quiet"]\nfolder = "/a"\n'
    assert 'several targets or export folders have the name "router"' in problems_of(tmp_path, one + one)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('folder = "/a"\ntemplate = "{study_instance_uid}{ext}"', "template needs {sop_instance_uid}"),
        ('folder = "/a"\ntemplate = "/{sop_instance_uid}"', "template is a path within the folder"),
        ('folder = "/a"\ntemplate = "../{sop_instance_uid}"', "template is a path within the folder"),
        ('folder = "/a"\ntemplate = "{patient_id}/{sop_instance_uid}"', "{patient_id} is none of the values"),
        ('folder = "/a"\nextension = "/../x"', "extension"),
        ('folder = "archive/objects"', 'the folder of "station" is within the archive'),
    ],
)
def test_an_export_folder_that_makes_no_sense_is_refused_in_words(tmp_path, text, words):
    settings = f'archive = "archive"\n[[export_folders]]\nname = "station"\n{text}\n'
    assert words in problems_of(tmp_path, settings)


# The command


@pytest.fixture
def stow(tmp_path, capsys):
    archive = tmp_path / "archive"
    keep(archive, make_instance(1), make_instance(2))
    return CommandLine(archive, capsys)


@pytest.mark.slow
def test_tail_shows_the_last_events(stow):
    found = stow("events tail", "--json").lines
    assert [event["event"] for event in found] == ["instance.received"] * 2
    assert [event["sop_instance_uid"] for event in found] == ["1.2.3.1", "1.2.3.2"]
    assert [event["seq"] for event in stow("events tail", "--json", "-n", "1").lines] == [found[1]["seq"]]
    after = stow("events tail", "--json", "--after", str(found[0]["seq"])).lines
    assert [event["seq"] for event in after] == [found[1]["seq"]]
    assert stow("events tail", "--json", "--event", "study.quiet").lines == []
    assert "1.2.3.2" in stow("events tail").out


def test_a_terminal_gets_nothing_that_a_peer_made_up(stow):
    strange = "1.2.\x07\u202e3"
    with open_database(stow.archive) as database, database.write() as transaction:
        transaction.execute(
            update(instances).values(sop_instance_uid=strange).where(instances.c.instance_key == 1)
        )
    assert "  1.2.\\x07\\u202e3\n" in stow("events tail").out
    assert strange in {event["sop_instance_uid"] for event in stow("events tail", "--json").lines}


def test_a_target_that_nobody_knows_is_not_told_again(stow):
    result = stow("events replay", "router", "--after", "0")
    assert result.code == ExitCode.FINDINGS
    assert "No target router" in result.err


def test_a_replay_is_a_job_and_a_line_of_the_audit_trail(stow):
    with open_database(stow.archive) as database, database.write() as transaction:
        transaction.execute(consumers.insert().values(name="target:router", seq=2))
    assert stow("events targets", "--json").lines == [{"target": "router", "told_to": 2, "behind": 0}]
    result = stow("events replay", "router", "--since", "2020-01-01", "--study", "1.2.10")
    assert result.code == ExitCode.OK, result.err
    with open_database(stow.archive) as database, database.read() as connection:
        (job,) = job_rows.list_jobs(connection, JobFilter(kind="replay"))
    assert job.arguments == {"target": "router", "until": 2, "study_instance_uid": "1.2.10"}
    assert job.checkpoint == {"seq": 0}
    (line,) = stow("audit ls", "--json").lines
    assert (line["action"], line["subject"]) == ("events replayed", "router")


def test_a_replay_of_one_study_alone_begins_with_its_first_event(stow):
    with open_database(stow.archive) as database, database.write() as transaction:
        transaction.execute(consumers.insert().values(name="target:router", seq=2))
    result = stow("events replay", "router", "--study", "1.2.10")
    assert result.code == ExitCode.OK, result.err
    with open_database(stow.archive) as database, database.read() as connection:
        (job,) = job_rows.list_jobs(connection, JobFilter(kind="replay"))
    assert job.arguments == {"target": "router", "until": 2, "study_instance_uid": "1.2.10"}
    assert job.checkpoint == {"seq": 0}


def test_a_replay_begins_so_long_ago_as_a_person_says(stow):
    with open_database(stow.archive) as database, database.write() as transaction:
        transaction.execute(consumers.insert().values(name="target:router", seq=2))
    assert stow("events replay", "router", "--since", "7d").code == ExitCode.OK
    assert "90m, 12h, 7d or 2w" in stow("events replay", "router", "--since", "yesterday").err


def test_a_target_is_behind_by_what_it_is_to_be_told_alone(stow):
    (stow.archive / "stowkeeper.toml").write_text(
        """
        [[event_targets]]
        name = "router"
        events = ["study.quiet"]
        url = "http://127.0.0.1:9/"
        [[export_folders]]
        name = "station"
        folder = "/srv/incoming"
        """
    )
    with open_database(stow.archive) as database, database.write() as transaction:
        for name in ("router", "station", "gone"):
            transaction.execute(consumers.insert().values(name=f"target:{name}", seq=0))
    behind = {row["target"]: row["behind"] for row in stow("events targets", "--json").lines}
    assert behind == {"router": 0, "station": 2, "gone": 2}
    (stow.archive / "stowkeeper.toml").write_text("[dicom\n")
    assert stow("events targets").code == ExitCode.OK


@pytest.mark.parametrize(
    "arguments", [[], ["--after", "1", "--since", "2020-01-01"], ["--since", "yesterday"]]
)
def test_a_replay_has_one_beginning(stow, arguments):
    assert stow("events replay", "router", *arguments).code == ExitCode.USAGE


# The server


class Endpoint:
    """An HTTP server that notes what is posted, and refuses while it is told to."""

    def __init__(self):
        self.events = []
        self.refused = 0
        self.refuses = False
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if endpoint.refuses:
                    endpoint.refused += 1
                else:
                    endpoint.events.append(json.loads(body))
                self.send_response(503 if endpoint.refuses else 204)
                self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def kinds(self):
        return [event["event"] for event in list(self.events)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def store(port, *numbers):
    context = Context(
        context_id=1, abstract_syntax="1.2.840.10008.5.1.4.1.1.2", transfer_syntaxes=(EXPLICIT,)
    )
    with RawPeer(port) as peer:
        peer.associate(context)
        for number in numbers:
            instance = make_instance(number)
            answer = peer.store(
                instance.sop_instance_uid,
                instance.data,
                context_id=1,
                sop_class_uid=instance.sop_class_uid,
            )
            assert answer.status == 0
        peer.release()


def cursors(archive):
    with looking_into(archive) as reader, reader.database.read() as connection:
        return set(connection.execute(select(consumers.c.name)).scalars())


WHOLE_EVENTS = "[0-9]*.json"
"""The names of event files that are whole; while one is written a dot is before its name."""
NOTE = "import os, sys; open(os.path.join(sys.argv[1], sys.argv[2]), 'w').close()"


@pytest.mark.slow
def test_a_server_tells_all_targets_and_a_kill_loses_nothing(tmp_path):
    drop, notes, export = (tmp_path / name for name in ("drop", "notes", "export"))
    for folder in (drop, notes, export):
        folder.mkdir()
    (tmp_path / "secret").write_text("hush")
    with contextlib.closing(Endpoint()) as endpoint:
        settings = (
            "[events]\nstudy_quiet_seconds = 1\n"
            '[[event_targets]]\nname = "viewer"\nevents = ["instance.received", "study.started", "study.quiet"]\n'
            f'url = "{endpoint.url}"\nsecret_file = "secret"\n'
            '[[event_targets]]\nname = "watcher"\nevents = ["study.quiet"]\nfolder = "drop"\n'
            '[[export_folders]]\nname = "station"\nfolder = "export"\n'
            '[[event_targets]]\nname = "router"\nevents = ["study.quiet", "study.late"]\n'
            f"command = {json.dumps([sys.executable, '-c', NOTE, str(notes), '{event}-{revision}'])}\n"
        )
        with serve_process(tmp_path, settings=settings) as server:
            store(server.port, 1, 2)
            wait = server.program.wait_until
            wait(lambda: "study.quiet" in endpoint.kinds(), "before the endpoint was told")
            wait((notes / "study.quiet-1").exists, "before the command was run")
            wait(lambda: any(drop.glob("*_study.quiet.json")), "before the file was there")
            both = ["1.2.3.1.dcm", "1.2.3.2.dcm"]
            wait(lambda: sorted(path.name for path in export.iterdir()) == both, "before both were copied")
            assert sorted(endpoint.kinds()) == [
                "instance.received",
                "instance.received",
                "study.quiet",
                "study.started",
            ]
            endpoint.refuses = True
            store(server.port, 3)
            wait(lambda: endpoint.refused > 0, "before the endpoint refused")
            server.signal(signal.SIGKILL)
            server.wait()
        endpoint.refuses = False
        with serve_process(tmp_path, settings=settings) as server:
            wait = server.program.wait_until
            wait(lambda: endpoint.kinds().count("study.quiet") == 2, "before it was told of the rest")
            wait((notes / "study.late-2").exists, "before the command was told of what came late")
            wait((export / "1.2.3.3.dcm").exists, "before the third was copied")
            assert [event["sop_instance_uid"] for event in endpoint.events][-1] == "1.2.3.3"
            received = [event["seq"] for event in endpoint.events if event["event"] == "instance.received"]
            assert len(set(received)) == 3
            server.signal(signal.SIGTERM)
            assert server.wait() == 0


@pytest.mark.slow
def test_targets_are_put_in_force_by_a_reload(tmp_path):
    drop = tmp_path / "drop"
    drop.mkdir()
    target = '[[event_targets]]\nname = "watcher"\nevents = ["instance.received"]\nfolder = "drop"\n'
    with serve_process(tmp_path) as server:
        store(server.port, 1)
        (tmp_path / "stowkeeper.toml").write_text(target)
        server.signal(signal.SIGHUP)
        server.wait_for_log("settings read anew")
        broken = (
            target + '[[event_targets]]\nname = "other"\nevents = ["instance.received"]\nurl = "http://a/"\n'
        )
        (tmp_path / "stowkeeper.toml").write_text(broken + 'secret_file = "not-there"\n')
        server.signal(signal.SIGHUP)
        server.wait_for_log("the old ones stay")
        server.wait_for_log("No such file or directory")
        wait = server.program.wait_until
        wait(lambda: "target:watcher" in cursors(server.archive), "before the target had its place")
        store(server.port, 2)
        wait(lambda: any(drop.glob(WHOLE_EVENTS)), "before it was told")
        (told,) = drop.glob(WHOLE_EVENTS)
        assert json.loads(told.read_text())["sop_instance_uid"] == "1.2.3.2"
        assert server.program.process.poll() is None
