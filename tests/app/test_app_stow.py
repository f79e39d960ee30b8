"""`stowkeeper stow`: what it prints and how it ends, for people and for scripts; with real servers too."""

import errno
import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.app.commands import run
from stowkeeper.app.commands.stow_report import StowReport
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.setting_sources import STOW_CREDENTIAL_VARIABLE
from stowkeeper.services.send_plan import MEDIA_STORAGE_DIRECTORY, SendableFile
from stowkeeper.services.stow_client.journal import Journal
from support.command_line import environment, program
from support.job_engine_thread import wait_until
from support.peers import ORTHANC_DICOMWEB, orthanc_configuration, program_path
from support.processes import free_port, running
from support.scripted_dicomweb import (
    Act,
    Answer,
    Reply,
    Request,
    Script,
    ScriptedServer,
    module,
    scripted_server,
    store_all,
)
from support.send_files import data_set_of, file_head, write_file
from support.tls_fixtures import TLSFiles


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STOW_CREDENTIAL_VARIABLE, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with five instances, a DICOMDIR and a text."""
    folder = tmp_path / "study"
    (folder / "series").mkdir(parents=True)
    for number in range(5):
        write_file(folder / "series" / f"{number}.dcm", number)
    (folder / "readme.txt").write_text("Not an image.")
    directory = file_head("1.2.3", sop_class_uid=MEDIA_STORAGE_DIRECTORY) + data_set_of("1.2.3")
    (folder / "DICOMDIR").write_bytes(directory)
    return folder


def lines_of(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


# For people


@pytest.mark.parametrize("end", ["", "/", "/studies", "/studies/"])
def test_what_was_stored_is_one_sentence(folder: Path, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_server() as server:
        assert run(["stow", server.url + end, str(folder)]) == ExitCode.OK
    output, errors = capsys.readouterr()
    assert output.startswith("5 of 5 instances stored: 0.0 MB in ")
    assert output.endswith(
        "Left out: 1 file that is not DICOM and 1 DICOMDIR, which only lists other files.\n"
    )
    assert output.count("\n") == 1
    assert errors == f"Posting to {server.url}/studies\n"
    assert len(server.stored) == 5


def test_what_was_not_stored_is_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = module("1.2.3.0", warned={"1.2.3.1": 0xB007}, failed={"1.2.3.2": 0x0122, "1.2.3.3": 0x0122})
    with scripted_server(Script(answer=lambda _: Reply(202, body))) as server:
        code = run(["stow", server.url, str(folder), str(folder / "readme.txt")])
    assert code == ExitCode.FINDINGS
    output = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Stored with a warning: 1" in output
    assert "B007H" in output
    assert "Not stored: 3" in output
    assert output.count("0122H instances of this SOP class are not accepted") == 1
    assert f"{folder}/series/2.dcm" in output
    assert "Not known to be stored: 1" in output
    assert "the server's answer does not name it" in output
    assert "2 of 6 instances stored, 1 of them with a warning" in output
    assert "Of 1 it is not known; sending them again is safe." in output


def test_what_is_not_known_alone_is_no_success(folder: Path) -> None:
    with scripted_server(Script(answer=lambda _: Reply(200))) as server:
        assert run(["stow", server.url, str(folder)]) == ExitCode.FINDINGS


@pytest.mark.parametrize("as_json", [False, True])
def test_an_unreachable_server_is_a_sentence(
    folder: Path, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    arguments = ["stow", f"http://127.0.0.1:{port}", str(folder), *(["--json"] if as_json else [])]
    assert run(arguments) == ExitCode.UNAVAILABLE
    output, errors = capsys.readouterr()
    assert errors.endswith(f"Error: 127.0.0.1:{port} cannot be reached: nothing listens on that port.\n")
    if as_json:
        assert lines_of(output)[-1]["summary"]["failed"] == 5
    else:
        assert output == ""


def test_a_refusal_is_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_server(Script(answer=lambda _: Reply(401))) as server:
        assert run(["stow", server.url, str(folder)]) == ExitCode.UNAVAILABLE
    assert "asks for a credential, give --token-file or --user." in capsys.readouterr().err


def test_words_of_a_server_cannot_reach_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = Reply(403, b"\x1b[31m[red]\xe2\x80\xaeleft", "text/plain")
    with scripted_server(Script(answer=lambda _: answer)) as server:
        assert run(["stow", server.url, str(folder)]) == ExitCode.UNAVAILABLE
    output, errors = capsys.readouterr()
    assert "\x1b" not in output + errors
    assert "\u202e" not in output + errors
    assert "[red]" in errors


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--resume", "journal"]])
def test_a_folder_without_instances_is_no_input(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(["stow", *options, "http://127.0.0.1:1", "empty"]) == ExitCode.NO_INPUT
    assert capsys.readouterr() == ("", "Error: There is no instance in what was named.\n")
    assert run(["stow", *options, "http://127.0.0.1:1", "absent"]) == ExitCode.NO_INPUT


@pytest.mark.parametrize(
    "arguments",
    [
        ["http://127.0.0.1:1"],
        ["127.0.0.1:1", "."],
        ["ftp://127.0.0.1", "."],
        ["http://user:secret@127.0.0.1", "."],
        ["--study", "../x", "http://127.0.0.1:1", "."],
        ["--batch", "0", "http://127.0.0.1:1", "."],
        ["--batch", "1001", "http://127.0.0.1:1", "."],
        ["--batch-mb", "0", "http://127.0.0.1:1", "."],
        ["--parallel", "0", "http://127.0.0.1:1", "."],
        ["--parallel", "17", "http://127.0.0.1:1", "."],
        ["--retries", "-1", "http://127.0.0.1:1", "."],
        ["--timeout", "0", "http://127.0.0.1:1", "."],
        ["--ca-file", "x", "http://127.0.0.1:1", "."],
        ["--no-verify", "http://127.0.0.1:1", "."],
        ["--certificate", "x", "http://127.0.0.1:1", "."],
        ["--key", "x", "https://127.0.0.1:1", "."],
        ["--password-file", "x", "http://127.0.0.1:1", "."],
        ["--user", "x", "--token-file", "y", "http://127.0.0.1:1", "."],
    ],
)
def test_a_wrong_command_line_is_a_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["stow", *arguments]) == ExitCode.USAGE
    assert "secret" not in "".join(capsys.readouterr())


def test_an_odd_data_set_goes_only_when_asked(tmp_path: Path) -> None:
    write_file(tmp_path / "odd.dcm", pixels=b"123")
    with scripted_server() as server:
        assert run(["stow", server.url, str(tmp_path)]) == ExitCode.FINDINGS
        assert server.requests == []
        assert run(["stow", "--allow-odd", server.url, str(tmp_path)]) == ExitCode.OK
    assert len(server.stored) == 1


# Credentials and TLS


def test_a_token_comes_from_a_file_or_the_environment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("of-the-file\n")
    monkeypatch.setenv(STOW_CREDENTIAL_VARIABLE, "of-the-environment")
    with scripted_server() as server:
        assert run(["stow", "--json", server.url, str(folder)]) == ExitCode.OK
        assert run(["stow", "--token-file", str(tmp_path / "token"), server.url, str(folder)]) == ExitCode.OK
    assert [request.fields["authorization"] for request in server.requests] == [
        "Bearer of-the-environment",
        "Bearer of-the-file",
    ]
    assert "of-the-" not in "".join(capfd.readouterr())


def test_the_password_of_a_user_is_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "password").write_text("secret\n")
    with scripted_server() as server:
        with open(tmp_path / "password", encoding="utf-8") as stream:
            monkeypatch.setattr("sys.stdin", stream)
            assert run(["stow", "--user", "ann", server.url, str(folder)]) == ExitCode.OK
        options = ["--user", "ann", "--password-file", str(tmp_path / "password")]
        assert run(["stow", *options, server.url, str(folder)]) == ExitCode.OK
    assert {request.fields["authorization"] for request in server.requests} == {"Basic YW5uOnNlY3JldA=="}
    assert "secret" not in "".join(capsys.readouterr())


def test_a_credential_is_not_sent_in_the_clear(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(STOW_CREDENTIAL_VARIABLE, "secret-token")
    assert run(["stow", "http://192.0.2.7/dicom-web", str(folder)]) == ExitCode.USAGE
    errors = capsys.readouterr().err
    assert "could be read on the way" in errors
    assert "--insecure-http" in errors
    assert "secret-token" not in errors
    # With the consent it goes on, here up to the dry run.
    assert (
        run(["stow", "--insecure-http", "--dry-run", "http://192.0.2.7/dicom-web", str(folder)])
        == ExitCode.OK
    )


def test_a_file_that_is_not_there_is_no_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--token-file", "--ca-file", "--certificate"):
        assert run(["stow", option, "absent", "https://127.0.0.1:1", str(folder)]) == ExitCode.NO_INPUT
        assert "absent" in capsys.readouterr().err


def test_the_variable_of_the_token_is_no_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STOW_CREDENTIAL_VARIABLE, "secret-token")
    assert run(["check-config"]) == ExitCode.OK


@pytest.mark.slow
@pytest.mark.peer("openssl")
def test_tls_has_its_authority_or_none(
    folder: Path, tls_files: TLSFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files.server.certificate, tls_files.server.key)
    with scripted_server(context=context) as server:
        assert run(["stow", server.url, str(folder)]) == ExitCode.UNAVAILABLE
        assert "not trusted here" in capsys.readouterr().err
        options = ["--ca-file", tls_files.authority.certificate]
        assert run(["stow", *options, server.url, str(folder)]) == ExitCode.OK
        assert "warning" not in capsys.readouterr().err
        assert run(["stow", "--no-verify", server.url, str(folder)]) == ExitCode.OK
        assert "the server's certificate is not checked" in capsys.readouterr().err


# For scripts


def test_json_has_a_line_for_each_file_and_a_summary(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = module("1.2.3.0", "1.2.3.4", warned={"1.2.3.1": 0xB000}, failed={"1.2.3.2": 0xC122})
    with scripted_server(Script(answer=lambda _: Reply(202, body))) as server:
        code = run(["stow", "--json", server.url, str(folder), str(folder / "readme.txt")])
    assert code == ExitCode.FINDINGS
    output, errors = capsys.readouterr()
    assert errors == ""
    *lines, summary = lines_of(output)
    by_path = {os.path.relpath(line["path"], folder): line for line in lines}
    assert len(by_path) == len(lines) == 7
    assert by_path["series/0.dcm"] == {
        "path": str(folder / "series" / "0.dcm"),
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": "1.2.3.0",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "outcome": "stored",
        "status": None,
        "reason": None,
        "http_status": 202,
        "attempts": 1,
    }
    assert (by_path["series/1.dcm"]["outcome"], by_path["series/1.dcm"]["status"]) == ("warning", "B000H")
    assert (by_path["series/2.dcm"]["outcome"], by_path["series/2.dcm"]["status"]) == ("failed", "C122H")
    assert by_path["series/3.dcm"]["outcome"] == "unknown"
    assert by_path["readme.txt"]["outcome"] == "failed"
    assert by_path["DICOMDIR"]["outcome"] == "left out"
    numbers = summary["summary"]
    assert numbers.pop("seconds") >= 0
    assert numbers == {
        "url": f"{server.url}/studies",
        "stored": 3,
        "warnings": 1,
        "failed": 2,
        "unknown": 1,
        "already_stored": 0,
        "not_dicom": 1,
        "dicomdirs": 1,
        "bytes": 3 * os.path.getsize(folder / "series" / "0.dcm"),
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_calls_nobody(folder: Path, as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    write_file(folder / "odd.dcm", 10, pixels=b"123")
    options = ["--dry-run", "--batch", "2", "--resume", str(folder / "journal")]
    url = "http://127.0.0.1:1/dicom-web"
    code = run(["stow", *options, url, str(folder), *(["--json"] if as_json else [])])
    assert code == ExitCode.FINDINGS
    assert not (folder / "journal").exists()
    output = capsys.readouterr().out
    if not as_json:
        assert "Cannot be sent: 1" in output
        assert f"5 files would be sent to {url}/studies, 0.0 MB. Left out: 1 file" in output
        return
    *lines, summary = lines_of(output)
    assert [line["outcome"] for line in lines] == ["planned"] * 5 + ["failed"]
    assert [line["request"] for line in lines[:5]] == [1, 1, 2, 2, 3]
    assert summary["summary"] == {
        "url": f"{url}/studies",
        "planned": 5,
        "requests": 3,
        "failed": 1,
        "already_stored": 0,
        "not_dicom": 1,
        "dicomdirs": 1,
    }


# Going on


def test_a_second_run_sends_only_the_rest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = str(folder.parent / "journal")

    def answer(request: Request) -> Answer:
        return store_all(request) if request.number < 2 else Reply(403)

    arguments = ["--resume", journal, "--batch", "1", "--parallel", "1"]
    with scripted_server(Script(answer=answer)) as server:
        assert run(["stow", *arguments, server.url, str(folder)]) == ExitCode.FINDINGS
        assert "2 of 5 instances stored" in capsys.readouterr().out
        server.script = Script()
        assert run(["stow", "--dry-run", "--json", *arguments, server.url, str(folder)]) == ExitCode.OK
        assert lines_of(capsys.readouterr().out)[-1]["summary"]["already_stored"] == 2
        assert run(["stow", *arguments, f"{server.url}/studies", str(folder)]) == ExitCode.OK
        assert "3 of 3 instances stored" in (output := capsys.readouterr().out)
        assert "2 more were stored before." in output
        assert sorted(server.stored[3:]) == ["1.2.3.2", "1.2.3.3", "1.2.3.4"]
        before = len(server.requests)
        assert run(["stow", *arguments, server.url, str(folder)]) == ExitCode.OK
        assert "Nothing is left to send: 5 were stored before." in capsys.readouterr().out
        assert run(["stow", "--json", *arguments, server.url, str(folder)]) == ExitCode.OK
        *lines, summary = lines_of(capsys.readouterr().out)
        assert [line["outcome"] for line in lines].count("already stored") == 5
        assert summary["summary"]["already_stored"] == 5
        assert len(server.requests) == before


def test_a_journal_of_another_service_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = str(folder.parent / "journal")
    with scripted_server() as server, scripted_server() as other:
        assert run(["stow", "--resume", journal, server.url, str(folder)]) == ExitCode.OK
        assert run(["stow", "--resume", journal, other.url, str(folder)]) == ExitCode.NO_INPUT
        assert other.requests == []
    assert f"tells what {server.url} stored" in capsys.readouterr().err


def test_a_journal_that_cannot_be_written_ends_it_with_all_that_is_known(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Journal.add

    def full(journal: Journal, file: SendableFile) -> None:
        if file.sop_instance_uid == "1.2.3.1":
            raise OSError(errno.ENOSPC, "No space left on device")
        add(journal, file)

    monkeypatch.setattr(Journal, "add", full)
    arguments = ["--resume", str(folder.parent / "journal"), "--batch", "3", "--parallel", "1"]
    with scripted_server() as server:
        assert run(["stow", "--json", *arguments, server.url, str(folder)]) == ExitCode.IO_ERROR
        assert len(server.requests) == 1
    output, errors = capsys.readouterr()
    *lines, summary = lines_of(output)
    outcomes = {line["path"][-5:]: line["outcome"] for line in lines if "sop_instance_uid" in line}
    assert list(outcomes.values()) == ["stored"] * 3 + ["failed"] * 2
    assert summary["summary"]["stored"] == 3
    assert lines[-1]["reason"] == "not sent: the journal cannot be written"
    assert "No space left on device" in errors


# Processes


def started(
    server: ScriptedServer, folder: Path, *options: str, stderr: int = subprocess.PIPE
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        program("stow", *options, server.url, folder),
        env={**environment(), "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_alone(folder: Path) -> None:
    with scripted_server() as server:
        master, slave = pty.openpty()
        process = started(server, folder, stderr=slave)
        os.close(slave)
        shown = bytearray()

        def read() -> None:
            while True:
                try:
                    data = os.read(master, 4096)
                except OSError:  # the other end is closed
                    return
                if not data:
                    return
                shown.extend(data)

        reader = threading.Thread(target=read)
        reader.start()
        output, _ = process.communicate(timeout=60)
        reader.join(30)
        os.close(master)
    assert process.returncode == 0
    assert output.startswith(b"5 of 5 instances stored")
    assert b"\x1b" not in output
    assert b"Sending" in shown


@pytest.mark.slow
def test_an_interruption_says_what_is_known(folder: Path) -> None:
    """The server has five seconds for the answer that is due; without it nobody knows."""
    asked = threading.Event()
    journal = folder.parent / "journal"

    def answer(request: Request) -> Answer:
        if request.number < 3:
            return store_all(request)
        asked.set()
        return Act.SILENCE

    with scripted_server(Script(answer=answer)) as server:
        process = started(server, folder, "--batch", "1", "--parallel", "1", "--resume", str(journal))
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "3 of 5 instances stored" in output.decode()
    assert "Not known to be stored: 1" in output.decode()
    assert errors.decode().endswith("Interrupted.\n")
    assert len(journal.read_text().splitlines()) == 4


@pytest.mark.slow
def test_an_interruption_while_a_file_goes_out_does_not_wait(folder: Path) -> None:
    path = folder / "series" / "0.dcm"
    with open(path, "r+b") as stream:
        stream.truncate(2_000_000_000)
    asked = threading.Event()

    def on_head(_: Request) -> Answer:
        asked.set()
        return Act.SILENCE  # and takes nothing of the body

    with scripted_server(Script(on_head=on_head)) as server:
        process = started(server, path, "--json")
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED
    *lines, summary = lines_of(output.decode())
    assert [line["outcome"] for line in lines] == ["unknown"]
    assert summary["summary"]["unknown"] == 1


@pytest.mark.slow
def test_an_interruption_between_two_tries_leaves_it_unknown(folder: Path) -> None:
    asked = threading.Event()

    def answer(request: Request) -> Answer:
        asked.set()
        return Act.CLOSE

    with scripted_server(Script(answer=answer)) as server:
        process = started(server, folder, "--json", "--batch", "2", "--parallel", "1")
        assert asked.wait(60)
        assert process.stderr is not None
        assert b"sending goes on in 1 s" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    *lines, _summary = lines_of(output.decode())
    assert process.returncode == ExitCode.INTERRUPTED
    assert [line["outcome"] for line in lines if line["outcome"] != "left out"] == ["unknown"] * 2


def test_a_reader_of_the_output_that_goes_away_ends_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(StowReport, "settled", broken)
    with scripted_server() as server:
        assert run(["stow", "--json", server.url, str(folder)]) != ExitCode.OK
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stowkeeper-stow")]


# With real servers


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[str]:
    """Run `stowkeeper serve`; give the URL of its DICOMweb service."""
    argv = program("serve", "--archive", tmp_path / "archive", "--port", "0", "--http-port", "0")
    with running("serve", argv, log=tmp_path / "serve.log", environment=environment()) as server:
        server.wait_until(lambda: "stowkeeper ready" in server.log_text(), "before it was ready")
        found = re.search(r"http=(\S+)", server.log_text())
        assert found is not None
        where = found[1].removeprefix("http://").rstrip("/")
        yield f"http://{where}/dicom-web"


@pytest.mark.slow
def test_the_products_own_server_keeps_what_is_sent(
    own_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(200):
        write_file(folder / f"{number}", number)
    assert run(["stow", "--parallel", "4", own_server, str(folder)]) == ExitCode.OK
    assert "200 of 200 instances stored" in capsys.readouterr().out
    assert run(["stow", "--json", "--study", "1.2.4", own_server, str(folder)]) == ExitCode.OK
    assert lines_of(capsys.readouterr().out)[-1]["summary"]["stored"] == 200

    def listed() -> int:
        assert run(["ls", "instances", "--archive", str(tmp_path / "archive"), "--json"]) == ExitCode.OK
        return len(lines_of(capsys.readouterr().out))

    # What is kept is in the catalog a moment later.
    wait_until(lambda: listed() == 200, "all of them in the catalog")


@pytest.mark.slow
def test_the_products_own_server_names_what_it_refuses(
    own_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_file(tmp_path / f"{number}.dcm", number)
    code = run(["stow", "--json", "--study", "1.2.9", own_server, *map(str, sorted(tmp_path.glob("*.dcm")))])
    assert code == ExitCode.FINDINGS
    *lines, summary = lines_of(capsys.readouterr().out)
    assert {(line["outcome"], line["status"], line["http_status"]) for line in lines} == {
        ("failed", "C409H", 409)
    }
    assert summary["summary"]["failed"] == 3


@pytest.mark.slow
@pytest.mark.peer("Orthanc", "orthanc-dicomweb")
def test_orthanc_keeps_what_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import urllib.request

    store, files = tmp_path / "orthanc", tmp_path / "files"
    store.mkdir()
    files.mkdir()
    for number in range(50):
        write_file(files / f"{number}.dcm", number, pixels=bytes(2 * number))
    http_port = free_port()
    configuration = orthanc_configuration(folder=store, dicom_port=free_port(), http_port=http_port)
    configuration["Plugins"] = [ORTHANC_DICOMWEB]
    configuration["DicomWeb"] = {"Enable": True, "Root": "/dicom-web/"}
    (tmp_path / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")
    argv = [program_path("Orthanc"), str(tmp_path / "orthanc.json")]
    with running("Orthanc", argv, log=tmp_path / "orthanc.log") as orthanc:
        orthanc.wait_until_listening(http_port)
        url = f"http://127.0.0.1:{http_port}/dicom-web"
        assert run(["stow", "--json", "--parallel", "2", url, str(files)]) == ExitCode.OK
        assert lines_of(capsys.readouterr().out)[-1]["summary"]["stored"] == 50
        assert run(["stow", "--study", "1.2.4", url, str(files)]) == ExitCode.OK  # again, and it is kept once
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/instances", timeout=30) as response:
            assert len(json.load(response)) == 50
        capsys.readouterr()
        # Of another study it refuses all, and says so of each or of none.
        assert run(["stow", "--json", "--study", "1.2.9", url, str(files / "0.dcm")]) == ExitCode.FINDINGS
        assert lines_of(capsys.readouterr().out)[0]["outcome"] == "failed"
