"""`stowkeeper peers`: the peers of the settings and of the database, changed with a running server and without."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.audit import list_audit
from stowkeeper.net.tls_context import TLSOptions, acceptor_context
from support.archive_server import archive_serving
from support.command_line import CommandLine, Ended, keep, serving
from support.instances import make_instance
from support.peers import run_peer
from support.processes import free_port
from support.scripted_acceptor import Act, Script, scripted_acceptor
from support.tls_fixtures import TLSFiles

SETTINGS = """
[dicom]
ae_title = "ARCHIVE"
[[peers]]
name = "CT 1"
ae_title = "CT1"
addresses = ["10.0.0.0/8"]
[[peers]]
name = "PACS"
ae_title = "PACS"
host = "pacs.example"
port = 104
may_store = false
"""


@pytest.fixture
def stowkeeper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Give commands on an archive whose settings have two peers."""
    archive = tmp_path / "archive"
    keep(archive, make_instance(1))
    (archive / "stowkeeper.toml").write_text(SETTINGS, encoding="utf-8")
    return CommandLine(archive, capsys)


def listed(stowkeeper: CommandLine) -> list[dict[str, Any]]:
    ended = stowkeeper("peers ls", "--json")
    assert ended.code == ExitCode.OK, ended.err
    return ended.lines


def added(stowkeeper: CommandLine, *arguments: str) -> Ended:
    ended = stowkeeper("peers add", *arguments)
    assert ended.code == ExitCode.OK, ended.err
    return ended


# ls


def test_the_peers_of_the_settings_are_listed_first_and_as_theirs(stowkeeper: CommandLine) -> None:
    added(stowkeeper, "AAA", "AAA@192.0.2.1:104", "--tls")
    assert [(row["name"], row["stands_in"]) for row in listed(stowkeeper)] == [
        ("CT 1", "settings"),
        ("PACS", "settings"),
        ("AAA", "database"),
    ]
    table = stowkeeper("peers ls")
    assert table.code == ExitCode.OK
    lines = [re.split(r"  +", line.strip()) for line in table.out.splitlines()]
    assert lines == [
        [
            *("Name", "AE Title", "Called at", "Calls from", "May not", "Duplicates", "Stands in"),
            *("Echoed (UTC)", "Called here (UTC)", "Took a report (UTC)", "Failed (UTC)", "Last failure"),
        ],
        ["CT 1", "CT1", "10.0.0.0/8", "settings"],
        ["PACS", "PACS", "pacs.example:104", "any address", "store", "settings"],
        ["AAA", "AAA", "192.0.2.1:104 (TLS)", "any address", "database"],
    ]


def test_no_peers_is_said(stowkeeper: CommandLine) -> None:
    (stowkeeper.archive / "stowkeeper.toml").unlink()
    ended = stowkeeper("peers ls")
    assert (ended.code, ended.out, ended.err) == (ExitCode.OK, "", "There are no peers.\n")
    assert listed(stowkeeper) == []


def test_the_settings_file_may_name_the_archive(
    stowkeeper: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from stowkeeper.app.commands import run

    added(stowkeeper, "mr", "--ae-title", "MR")
    config = tmp_path / "site.toml"
    config.write_text(f"archive = {json.dumps(str(stowkeeper.archive))}\n", encoding="utf-8")
    capsys.readouterr()
    assert run(["peers", "ls", "--json", "--config", str(config)]) == ExitCode.OK
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == ["mr"]
    monkeypatch.setenv("STOWKEEPER_ARCHIVE", str(stowkeeper.archive))
    assert run(["peers", "ls", "--json"]) == ExitCode.OK
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_wrong_settings_are_said(stowkeeper: CommandLine) -> None:
    (stowkeeper.archive / "stowkeeper.toml").write_text("[[peers]]\nname = 'x'", encoding="utf-8")
    ended = stowkeeper("peers ls")
    assert ended.code == ExitCode.SETTINGS
    assert "peers, entry 1: a peer needs ae_title, addresses, or both" in ended.err


def test_where_there_is_no_archive_there_are_no_peers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = CommandLine(tmp_path / "nothing", capsys)("peers ls")
    assert ended.code == ExitCode.NO_INPUT
    assert "there is no archive" in ended.err


# add and rm


def test_a_peer_is_added_with_all_there_is_to_say(stowkeeper: CommandLine) -> None:
    ended = added(
        stowkeeper,
        *("US 1", "US1@[fd00::1]:11112", "--address", "10.1.0.0/16", "--address", "fd00::1"),
        *("--own-ae-title", "ARCHIVE 2", "--tls", "--may-not", "echo", "--may-not", "report-commitment"),
        *("--report-on", "same-first", "--duplicates", "refuse", "--connect-seconds", "2.5"),
        *("--answer-seconds", "7", "--manufacturer", "ACME"),
    )
    assert ended.out == "US 1: added, called as US1@[fd00::1]:11112\n"
    (*_, row) = listed(stowkeeper)
    assert set(row.pop("health").values()) == {None, ""}
    assert row == {
        "name": "US 1",
        "ae_title": "US1",
        "addresses": ["10.1.0.0/16", "fd00::1/128"],
        "host": "fd00::1",
        "port": 11112,
        "own_ae_title": "ARCHIVE 2",
        "tls": True,
        "may_echo": False,
        "may_store": True,
        "may_request_commitment": True,
        "may_report_commitment": False,
        "report_on": "same-first",
        "connect_seconds": 2.5,
        "answer_seconds": 7.0,
        "manufacturer": "ACME",
        "duplicates": "refuse",
        "stands_in": "database",
    }


def test_a_peer_that_only_calls_needs_no_place(stowkeeper: CommandLine) -> None:
    assert added(stowkeeper, "mr", "--ae-title", "MR").out == "mr: added\n"
    assert added(stowkeeper, "ward", "--address", "10.2.0.0/16", "--json").lines[0]["ae_title"] is None


@pytest.mark.slow
def test_a_peer_is_replaced_only_when_that_is_asked_for(stowkeeper: CommandLine) -> None:
    added(stowkeeper, "mr", "MR@192.0.2.1:104", "--may-not", "store")
    refused = stowkeeper("peers add", "mr", "--ae-title", "MR")
    assert refused.code == ExitCode.FINDINGS  # as `token add` has it
    assert refused.err == "Error: There is a peer 'mr' already: --replace puts this one in its place.\n"
    assert added(stowkeeper, "mr", "--ae-title", "MR", "--replace").out == "mr: changed\n"
    row = listed(stowkeeper)[-1]
    assert (row["host"], row["may_store"]) == (None, True)  # as a whole


def test_peers_of_the_settings_are_left_alone(stowkeeper: CommandLine) -> None:
    ended = stowkeeper("peers add", "PACS", "--ae-title", "X", "--replace")
    assert ended.code == ExitCode.NO_INPUT
    assert "'PACS' stands in the settings file: change it there" in ended.err
    ended = stowkeeper("peers rm", "PACS")
    assert ended.code == ExitCode.FINDINGS
    assert "stands in the settings file" in ended.err
    assert len(listed(stowkeeper)) == 2


@pytest.mark.slow
def test_peers_are_removed_and_who_did_it_is_written_down(stowkeeper: CommandLine) -> None:
    added(stowkeeper, "mr", "--ae-title", "MR")
    added(stowkeeper, "us", "--ae-title", "US")
    ended = stowkeeper("peers rm", "mr", "nobody", "us", "mr")
    assert ended.code == ExitCode.FINDINGS
    assert ended.out == "mr: removed\nus: removed\n"
    assert "no peer 'nobody'" in ended.err
    assert len(listed(stowkeeper)) == 2
    reader = ArchiveReader(str(stowkeeper.archive))
    try:
        with reader.database.read() as connection:
            trail = [(entry.who, entry.action, entry.subject) for entry in list_audit(connection)]
    finally:
        reader.close()
    assert trail == [
        (acting_user(), action, name)
        for action, name in [
            ("peer removed", "us"),
            ("peer removed", "mr"),
            ("peer added", "us"),
            ("peer added", "mr"),
        ]
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x"], "a peer needs ae_title, addresses, or both"),
        (["x", "MR@host"], "'MR@host' is not of the form AET@HOST:PORT"),
        (["x", "MR@host:0"], "is no port"),
        (["x", "MR@host:104", "--ae-title", "MR"], "leave --ae-title out"),
        (["x", "MR@ho st:104"], "AET@HOST:PORT: it is neither an IP address nor a host name"),
        (["x", "--ae-title", "way too long a title"], "--ae-title: it is no AE title: it has 20 characters"),
        (["x", "--ae-title", "MR", "--address", "10.0.0.1/8"], '--address: a network has bits beyond its mask; did you mean "10.0.0.0/8"?'),
        (["x", "--ae-title", "MR", "--connect-seconds", "0"], "--connect-seconds: it must be a number of seconds from 0.1 to 3600"),
        (["x", "--ae-title", "MR", "--answer-seconds", "nan"], "--answer-seconds: it must be a number"),
        (["x", "--ae-title", "MR", "--may-not", "fly"], "Invalid value for '--may-not'"),
        (["x\n", "--ae-title", "MR"], "NAME: it must be 1 to 64 printable ASCII characters"),
        ([], "Missing argument 'NAME'"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_peer_is_said(stowkeeper: CommandLine, arguments: list[str], words: str) -> None:
    ended = stowkeeper("peers add", *arguments)
    assert ended.code == ExitCode.USAGE
    assert words in " ".join(ended.err.split())
    assert len(listed(stowkeeper)) == 2


# echo


@pytest.mark.slow
def test_a_peer_that_answers(stowkeeper: CommandLine) -> None:
    with scripted_acceptor() as acceptor:
        added(stowkeeper, "mr", f"MR@127.0.0.1:{acceptor.port}")
        ended = stowkeeper("peers echo", "mr")
        line = stowkeeper("peers echo", "mr", "--json").lines[0]
    assert ended.code == ExitCode.OK
    assert re.fullmatch(
        rf"mr \(MR@127\.0\.0\.1:{acceptor.port}\) answered in \d+\.\d ms, after \d+\.\d ms for the association\.\n",
        ended.out,
    )
    assert (line["name"], line["status"], line["tls"]) == ("mr", "0000H", None)
    (*_, row) = listed(stowkeeper)
    assert row["health"]["last_echo_at"]
    table = stowkeeper("peers ls").out.splitlines()
    assert row["health"]["last_echo_at"][:16].replace("T", " ") in table[-1]
    # By the AE title of the settings.
    assert {request.calling_ae_title for request in acceptor.requests} == {"ARCHIVE"}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (Script(on_request=lambda _: Act.SILENCE), "it did not answer the association request in time"),
        (Script(answer=lambda _: 0x0122), "answered 0122H Refused: SOP class not supported."),
    ],
)
def test_a_peer_that_does_not(stowkeeper: CommandLine, script: Script, words: str) -> None:
    with scripted_acceptor(script) as acceptor:
        added(stowkeeper, "mr", f"MR@127.0.0.1:{acceptor.port}", "--connect-seconds", "0.3")
        ended = stowkeeper("peers echo", "mr")
        (*_, row) = listed(stowkeeper)
    assert (ended.code, ended.out) == (ExitCode.UNAVAILABLE, "")
    assert words in ended.err
    assert row["health"]["last_echo_at"] is None
    assert row["health"]["last_failure"].removeprefix("it ").rstrip(".") in ended.err


def test_peers_that_cannot_be_asked(stowkeeper: CommandLine) -> None:
    ended = stowkeeper("peers echo", "nobody")
    assert (ended.code, "There is no peer 'nobody'" in ended.err) == (ExitCode.NO_INPUT, True)
    ended = stowkeeper("peers echo", "CT 1")
    assert ended.code == ExitCode.UNAVAILABLE
    assert "CT 1: nobody said where to call it" in ended.err


@pytest.mark.slow
@pytest.mark.peer("openssl")
def test_a_peer_is_asked_over_tls_by_the_settings(
    stowkeeper: CommandLine, tls_files: TLSFiles, tmp_path: Path
) -> None:
    trusted = (tls_files.authority.certificate,)
    server = acceptor_context(
        TLSOptions(
            certificate_file=tls_files.server.certificate, key_file=tls_files.server.key, ca_files=trusted
        )
    )
    settings = stowkeeper.archive / "stowkeeper.toml"
    material = f"""
[tls]
certificate = "{tls_files.client.certificate}"
key = "{tls_files.client.key}"
ca_files = ["{tls_files.authority.certificate}"]
server_name = "this.is.what.others.ask.us.for"
"""
    with archive_serving(tmp_path / "other", tls=server) as listening:
        added(stowkeeper, "other", f"OTHER@127.0.0.1:{listening.port}", "--tls")
        settings.write_text(SETTINGS + material, encoding="utf-8")
        ended = stowkeeper("peers echo", "other")
        assert ended.code == ExitCode.OK, ended.err
        assert " over TLSv1.3 " in ended.out
        settings.write_text(
            SETTINGS + material.replace("ca_files", 'peer_certificate = "ignore"\n#'), encoding="utf-8"
        )
        for text in (settings.read_text(encoding="utf-8"), SETTINGS):
            # Without authorities of our own those of the machine count, and they know nobody of these.
            settings.write_text(text, encoding="utf-8")
            ended = stowkeeper("peers echo", "other")
            assert ended.code == ExitCode.UNAVAILABLE
            assert "there is no TLS with it" in ended.err
        settings.write_text(SETTINGS + material.replace(tls_files.client.key, "/nothing"), encoding="utf-8")
        ended = stowkeeper("peers echo", "other")
        assert ended.code == ExitCode.UNAVAILABLE
        assert "TLS cannot be set up here: " in ended.err


# With a running server.


@pytest.mark.slow
@pytest.mark.peer("echoscu")
def test_a_running_server_knows_what_is_added_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "stowkeeper.toml").write_text("[access]\nonly_known_peers = true\n", encoding="utf-8")
    stowkeeper = CommandLine(archive, capsys)

    def is_let_in(port: int, *, wanted: bool) -> bool:
        return (run_peer("echoscu", "-aet", "MR", "127.0.0.1", str(port)).returncode == 0) is wanted

    with serving(archive, tmp_path / "log") as (server, port):
        assert is_let_in(port, wanted=False)
        added(stowkeeper, "mr", "--ae-title", "MR")
        server.wait_until(lambda: is_let_in(port, wanted=True), "before the peer was let in")
        assert stowkeeper("peers rm", "mr").code == ExitCode.OK
        server.wait_until(lambda: is_let_in(port, wanted=False), "before the peer was kept out")


def test_free_ports_are_unreachable(stowkeeper: CommandLine) -> None:
    added(stowkeeper, "gone", f"GONE@127.0.0.1:{free_port()}")
    ended = stowkeeper("peers echo", "gone")
    assert ended.code == ExitCode.UNAVAILABLE
    assert "nothing listens on that port" in ended.err
