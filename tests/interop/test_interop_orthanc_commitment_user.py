"""Orthanc as the provider that is asked: it reports on an association of its own, and says what it does not have."""

from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from support.command_line import CommandLine, keep, serving
from support.instances import make_instance
from support.peers import Orthanc
from support.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.peer("Orthanc")]

STUDY = "1.2.10"


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    archive = tmp_path / "archive"
    keep(archive, *(make_instance(number) for number in (1, 2, 3)))
    return CommandLine(archive, capsys)


def know_us(orthanc: Orthanc, port: int) -> None:
    """Tell Orthanc where it finds us; it asks nobody that it does not know."""
    orthanc.add_modality("ours", ae_title="STOWKEEPER", host="127.0.0.1", port=port)


def test_what_is_sent_from_an_archive_is_committed(stow: CommandLine, orthanc: Orthanc) -> None:
    port = free_port()
    know_us(orthanc, port)
    ended = stow("send", orthanc.address, STUDY, "--commit", "--listen", f"127.0.0.1:{port}")
    assert ended.code == ExitCode.OK, ended.err + ended.out
    assert "3 of 3 instances committed" in ended.out


def test_what_it_does_not_have_is_named(stow: CommandLine, orthanc: Orthanc) -> None:
    port = free_port()
    know_us(orthanc, port)
    assert stow("send", orthanc.address, "1.2.3.1", "1.2.3.3").code == ExitCode.OK
    ended = stow("commit", orthanc.address, "--study", STUDY, "--listen", f"127.0.0.1:{port}", "--json")
    assert ended.code == ExitCode.FINDINGS, ended.err
    (line,) = ended.lines
    outcomes = [
        (one["sop_instance_uid"], one["outcome"], one["reason"], one["safe_to_delete"])
        for one in line["instances_named"]
    ]
    assert outcomes == [
        ("1.2.3.1", "committed", None, True),
        ("1.2.3.2", "failed", "0112H", False),
        ("1.2.3.3", "committed", None, True),
    ]


def test_a_running_server_asks_it_and_takes_its_report(
    stow: CommandLine, orthanc: Orthanc, tmp_path: Path
) -> None:
    with serving(stow.archive, tmp_path / "serve.log") as (_, port):
        know_us(orthanc, port)
        assert stow("peers add", "orthanc", orthanc.address).code == ExitCode.OK
        ended = stow("send", orthanc.address, STUDY, "--commit")
    assert ended.code == ExitCode.OK, ended.err + ended.out
    (line,) = stow("commitments ls", "--json").lines
    assert (line["state"], line["peer"]) == ("committed", "orthanc")


def test_files_are_sent_and_committed(
    tmp_path: Path, orthanc: Orthanc, capsys: pytest.CaptureFixture[str]
) -> None:
    from stowkeeper.app.commands import run
    from support.send_files import write_file

    port = free_port()
    know_us(orthanc, port)
    (tmp_path / "files").mkdir()
    for number in (1, 2):
        write_file(tmp_path / "files" / f"{number}.dcm", number)
    listen = f"127.0.0.1:{port}"
    code = run(["send", orthanc.address, str(tmp_path / "files"), "--commit", "--listen", listen])
    out, err = capsys.readouterr()
    assert code == ExitCode.OK, err + out
    assert "2 committed." in out


def test_who_is_unknown_to_it_gets_no_answer_and_no_success(stow: CommandLine, orthanc: Orthanc) -> None:
    # It aborts at the request of a stranger; the same request is tried again later.
    ended = stow("commit", orthanc.address, "--study", STUDY, "--wait", "3")
    assert ended.code == ExitCode.TRY_AGAIN
    assert "the peer was not asked yet, or has not answered" in ended.out
