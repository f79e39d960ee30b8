"""`stowkeeper send`: what it prints and how it ends, for people and for scripts; and with the product's own server."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

import stowkeeper
from stowkeeper.app.commands import run, send_report
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.dicom.part10 import read_file_meta
from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.services.send_plan import MEDIA_STORAGE_DIRECTORY
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from stowkeeper.upperlayer.pdu import REJECTED_CALLING_AE_TITLE
from support.processes import Program, free_port, running
from support.scripted_acceptor import Act, Answer, Received, Script, scripted_acceptor
from support.send_files import data_set_of, file_head, write_file

SOURCE = str(Path(stowkeeper.__file__).parents[1])
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
PATIENT = b"DOE^JOHN"


def number_of(received: Received) -> int:
    assert isinstance(received.message, CStoreRequest)
    return int((received.message.affected_sop_instance_uid or "").rpartition(".")[2])


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


def test_what_was_accepted_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_acceptor() as acceptor:
        assert run(["send", f"PEER@127.0.0.1:{acceptor.port}", str(folder)]) == ExitCode.OK
    output, errors = capsys.readouterr()
    assert output.startswith("5 of 5 instances accepted: 0.0 MB in ")
    assert output.endswith(
        "Left out: 1 file that is not DICOM and 1 DICOMDIR, which only lists other files.\n"
    )
    assert output.count("\n") == 1
    assert errors == ""
    assert acceptor.requests[0].calling_ae_title == "STOWKEEPER"
    assert len(acceptor.stored) == 5


def test_options_reach_the_peer(folder: Path) -> None:
    options = ["--calling-ae-title", "ME", "--associations", "2", "--window", "3"]
    with scripted_acceptor(Script(window=3)) as acceptor:
        assert run(["send", *options, f"PEER@127.0.0.1:{acceptor.port}", str(folder)]) == ExitCode.OK
    request = acceptor.requests[0]
    assert request.calling_ae_title == "ME"
    assert request.user_information.operations_window is not None
    assert request.user_information.operations_window.invoked == 3


def test_failures_are_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(received: Received) -> Answer:
        assert isinstance(received.message, CStoreRequest)
        if number_of(received) in {1, 2}:
            return received.message.respond(0xA900, error_comment="UID [differs]")
        return 0xB007 if number_of(received) == 3 else 0

    text = folder / "readme.txt"
    with scripted_acceptor(Script(answer=answer)) as acceptor:
        code = run(["send", f"PEER@127.0.0.1:{acceptor.port}", str(folder), str(text)])
    assert code == ExitCode.FINDINGS
    output = capsys.readouterr().out
    assert "Accepted with a warning: 1" in output
    assert "B007H" in output
    assert "Not accepted: 3" in output
    assert output.count("A900H Error: data set does not match SOP class") == 1
    assert "[differs]" in output
    assert f" {folder}/series/1.dcm " in output
    assert f" {folder}/series/2.dcm " in output
    assert "there is no DICM prefix" in output
    assert "3 of 6 instances accepted, 1 of them with a warning" in output


def test_of_very_many_failures_the_first_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_report, "FAILURES_SHOWN_MAX", 2)
    with scripted_acceptor(Script(answer=lambda _: 0xC000)) as acceptor:
        assert run(["send", f"PEER@127.0.0.1:{acceptor.port}", str(folder)]) == ExitCode.FINDINGS
    output = capsys.readouterr().out
    assert "Not accepted: 5" in output
    assert output.count(".dcm") == 2
    assert "… and 3 more; --json lists all." in output


def test_a_file_name_cannot_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "[red]\x1b[31m.dcm"
    path.write_bytes(b"no")
    assert run(["send", "PEER@127.0.0.1:1", str(path)]) == ExitCode.FINDINGS
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "[red]" in output


@pytest.mark.parametrize("as_json", [False, True])
def test_an_unreachable_peer_is_a_sentence(
    folder: Path, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    arguments = ["send", f"PEER@127.0.0.1:{port}", str(folder), *(["--json"] if as_json else [])]
    assert run(arguments) == ExitCode.UNAVAILABLE
    output, errors = capsys.readouterr()
    assert errors == f"Error: 127.0.0.1:{port} cannot be reached: nothing listens on that port.\n"
    if as_json:
        assert lines_of(output)[-1]["summary"]["failed"] == 5
    else:
        assert output == ""


def test_a_rejection_is_unavailable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_acceptor(Script(on_request=lambda _: REJECTED_CALLING_AE_TITLE)) as acceptor:
        assert run(["send", f"PEER@127.0.0.1:{acceptor.port}", str(folder)]) == ExitCode.UNAVAILABLE
    assert "(1,1,3)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_loss_is_told_while_it_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    acts = iter([Act.CLOSE])

    def answer(received: Received) -> Answer:
        return next(acts, 0) if number_of(received) == 2 else 0

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        assert run(["send", f"PEER@127.0.0.1:{acceptor.port}", str(folder)]) == ExitCode.OK
    output, errors = capsys.readouterr()
    assert "A new association is tried in 1 s." in errors
    assert "5 of 5 instances accepted" in output


def test_a_path_that_is_not_there_is_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nothing"
    assert run(["send", "PEER@127.0.0.1:1", str(path)]) == ExitCode.NO_INPUT
    assert f"{path}: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_folder_without_instances_is_no_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    command = ["send", *options, "PEER@127.0.0.1:1", str(tmp_path)]
    assert run(command) == ExitCode.NO_INPUT
    assert capsys.readouterr() == ("", "Error: There is no instance in what was named.\n")
    (tmp_path / "notes.txt").touch()
    assert run(command) == ExitCode.NO_INPUT
    assert capsys.readouterr().err == (
        "Error: There is no instance in what was named. Left out: 1 file that is not DICOM.\n"
    )
    assert run([*command, "--json"]) == ExitCode.NO_INPUT
    assert json.loads(capsys.readouterr().out)["summary"]["not_dicom"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["PEER@127.0.0.1:1"],
        ["PEER:1", "."],
        ["--associations", "0", "PEER@127.0.0.1:1", "."],
        ["--associations", "65", "PEER@127.0.0.1:1", "."],
        ["--window", "129", "PEER@127.0.0.1:1", "."],
        ["--retries", "-1", "PEER@127.0.0.1:1", "."],
        ["--retries", "1001", "PEER@127.0.0.1:1", "."],
    ],
)
def test_a_wrong_command_line_is_a_wrong_usage(arguments: list[str]) -> None:
    assert run(["send", *arguments]) == ExitCode.USAGE


def test_an_odd_data_set_goes_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.dcm"
    write_file(path, pixels=b"123")
    with scripted_acceptor() as acceptor:
        address = f"PEER@127.0.0.1:{acceptor.port}"
        assert run(["send", address, str(path)]) == ExitCode.FINDINGS
        assert "odd number of bytes" in " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert run(["send", "--allow-odd", address, str(path)]) == ExitCode.OK
    assert len(acceptor.stored) == 1


# For scripts


def test_json_has_a_line_for_each_file_and_a_summary(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(received: Received) -> Answer:
        return {1: 0xB000, 2: 0xC000}.get(number_of(received), 0)

    text = folder / "readme.txt"
    with scripted_acceptor(Script(answer=answer)) as acceptor:
        code = run(["send", "--json", f"PEER@127.0.0.1:{acceptor.port}", str(folder), str(text)])
    assert code == ExitCode.FINDINGS
    *lines, summary = lines_of(capsys.readouterr().out)
    by_path = {os.path.relpath(line["path"], folder): line for line in lines}
    assert len(by_path) == len(lines) == 7
    assert by_path["series/0.dcm"] == {
        "path": str(folder / "series" / "0.dcm"),
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": "1.2.3.0",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sent_as": "1.2.840.10008.1.2.1",
        "outcome": "accepted",
        "status": "0000H",
        "reason": None,
        "attempts": 1,
    }
    assert (by_path["series/1.dcm"]["outcome"], by_path["series/1.dcm"]["status"]) == ("warning", "B000H")
    assert by_path["series/2.dcm"]["reason"] == "C000H Error: cannot understand"
    assert by_path["readme.txt"]["outcome"] == "failed"
    assert by_path["DICOMDIR"]["outcome"] == "left out"
    numbers = summary["summary"]
    assert numbers.pop("seconds") >= 0
    assert numbers == {
        "accepted": 4,
        "warnings": 1,
        "failed": 2,
        "not_dicom": 1,
        "dicomdirs": 1,
        "bytes": 4 * len(data_set_of("1.2.3.0")),
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_calls_nobody(folder: Path, as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    write_file(folder / "big.dcm", 9, transfer_syntax_uid="1.2.840.10008.1.2.2")
    write_file(folder / "odd.dcm", 10, pixels=b"123")
    arguments = ["send", "--dry-run", "PEER@127.0.0.1:1", str(folder), *(["--json"] if as_json else [])]
    assert run(arguments) == ExitCode.FINDINGS
    output = capsys.readouterr().out
    if not as_json:
        assert "Association 1: 6 files" in output
        assert "Explicit VR Big Endian" in output
        assert "if converted" in output
        assert "Cannot be sent: 1" in output
        assert "6 files would be sent, 0.0 MB. Left out: 1 file that is not DICOM" in output
        return
    first, *lines, summary = lines_of(output)
    assert first["association"] == 1
    assert [context["transfer_syntax_uid"] for context in first["contexts"]] == [
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1",
        IMPLICIT_VR_LITTLE_ENDIAN,
    ]
    assert [line["outcome"] for line in lines] == ["planned"] * 6 + ["failed"]
    assert summary["summary"] == {"planned": 6, "failed": 1, "not_dicom": 1, "dicomdirs": 1}


def test_no_value_of_a_data_set_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    original = Path(str(get_testdata_file("MR_small_RLE.dcm"))).read_bytes()
    meta = read_file_meta(original, whole=True)
    name = original.index(b"\x10\0\x10\0PN") + 8
    damaged = original[:name] + PATIENT + original[name + len(PATIENT) :]
    path = tmp_path / "file.dcm"
    path.write_bytes(damaged[: meta.length + 2000])
    implicit_only = AcceptancePolicy(transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,))
    with scripted_acceptor(Script(policy=implicit_only)) as acceptor:
        code = run(["send", f"PEER@127.0.0.1:{acceptor.port}", str(path)])
    assert code == ExitCode.FINDINGS
    output, errors = capfd.readouterr()
    assert "cannot be converted" in output
    assert PATIENT.decode() not in output + errors


# On a terminal, and interrupted


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_alone(folder: Path) -> None:
    with scripted_acceptor() as acceptor:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "stowkeeper", "send", f"PEER@127.0.0.1:{acceptor.port}", str(folder)],
            env={**os.environ, "PYTHONPATH": SOURCE, "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=slave,
        )
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
    assert output.startswith(b"5 of 5 instances accepted")
    assert b"\x1b" not in output
    assert b"Sending" in shown


@pytest.mark.slow
def test_an_interruption_says_what_was_done(folder: Path) -> None:
    asked = threading.Event()

    def answer(received: Received) -> Answer:
        if number_of(received) == 3:
            asked.set()
            return Act.SILENCE
        return 0

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        process = subprocess.Popen(
            [sys.executable, "-m", "stowkeeper", "send", f"PEER@127.0.0.1:{acceptor.port}", str(folder)],
            env={**os.environ, "PYTHONPATH": SOURCE},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "3 of 5 instances accepted" in output
    assert errors.strip() == "Interrupted."


# With the product's own server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[tuple[str, Path, Program]]:
    """Run `stowkeeper serve`; give its address, its archive, and itself."""
    archive = tmp_path / "archive"
    argv = [sys.executable, "-m", "stowkeeper", "serve", "--archive", str(archive), "--port", "0"]
    environment = {"PYTHONPATH": SOURCE, "STOWKEEPER_STORAGE__SLOT_POOL_SIZE": "64"}
    with running("serve", argv, log=tmp_path / "serve.log", environment=environment) as program:
        program.wait_until(lambda: "stowkeeper ready" in program.log_text(), "before it was ready")
        ready = next(line for line in program.log_text().splitlines() if line.startswith("stowkeeper ready"))
        where = ready.partition("dicom=")[2].partition(" ")[0]
        yield f"STOWKEEPER@{where}", archive, program


@pytest.mark.slow
def test_the_products_own_server_keeps_what_is_sent_and_sends_it_on(
    own_server: tuple[str, Path, Program], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, archive, program = own_server
    assert run(["echo", address]) == ExitCode.OK
    folder = tmp_path / "many"
    folder.mkdir()
    data_sets = {f"1.2.3.{number}": write_file(folder / f"{number}", number) for number in range(200)}
    assert run(["send", "--associations", "3", address, str(folder)]) == ExitCode.OK
    assert "200 of 200 instances accepted" in capsys.readouterr().out
    program.stop()  # at whose end everything is on the shelf
    # From there to another peer: the data sets are the same, and the receipts stay behind.
    with scripted_acceptor() as acceptor:
        code = run(["send", f"PEER@127.0.0.1:{acceptor.port}", str(archive / "objects")])
    assert code == ExitCode.OK
    assert {f"1.2.3.{number_of(received)}": received.data_set for received in acceptor.stored} == data_sets


def test_files_do_not_go_to_a_peer_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["send", "main", str(tmp_path)]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "'main' is not of the form AET@HOST:PORT" in said
    assert "--archive DIR" in said
