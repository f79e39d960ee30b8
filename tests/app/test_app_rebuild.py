"""`rebuild` brings a lost catalog back, says what no file can tell, and keeps off a running server."""

import os
import re
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive.rebuilding import UNTOLD
from stowkeeper.durable.server_lock import ServerLock
from support.command_line import CommandLine, keep, serving, write_part10
from support.instances import make_instance
from support.peers import run_peer


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    archive = tmp_path / "archive"
    keep(archive, *(make_instance(number, content=content) for number, content in ((2, 0), (1, 0), (2, 1))))
    return CommandLine(archive, capsys)


def lose_catalog(archive: Path) -> None:
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        (archive / name).unlink(missing_ok=True)


def everything(stow: CommandLine) -> list[list[dict[str, object]]]:
    listed = [
        stow.list(*noun) for noun in (["studies"], ["series"], ["instances", "--all-versions"], ["receipts"])
    ]
    for receipt in listed[-1]:
        del receipt["answer"]
    return listed


def test_without_its_catalog_an_archive_is_refused_and_rebuild_is_named(stow: CommandLine) -> None:
    lose_catalog(stow.archive)
    for command in ("ls", "verify"):
        ended = stow(command)
        assert ended.code == ExitCode.NO_INPUT
        assert f"run `stowkeeper rebuild --archive {stow.archive}`" in ended.err


@pytest.mark.slow
def test_a_lost_catalog_comes_back_and_what_no_file_can_tell_is_said(stow: CommandLine) -> None:
    before = everything(stow)
    lose_catalog(stow.archive)
    ended = stow("rebuild")
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    assert ended.out.startswith("3 files read, ")
    assert "  3 listed that the catalog did not have\n" in ended.out
    assert "No file can tell, and so the new catalog does not have:\n" in ended.out
    for line in UNTOLD:
        assert f"  {line}\n" in ended.out
    assert everything(stow) == before
    assert stow("verify").code == ExitCode.OK


@pytest.mark.slow
def test_a_catalog_that_is_there_stays(stow: CommandLine) -> None:
    before = everything(stow)
    ended = stow("rebuild")
    assert "  3 known already\n" in ended.out
    assert "No file can tell, so the catalog keeps as it had them:\n" in ended.out
    assert everything(stow) == before


@pytest.mark.slow
def test_the_same_as_json_lines(stow: CommandLine) -> None:
    path = stow.path_of("1.2.3.1")
    path.write_bytes(path.read_bytes()[:-1])
    lose_catalog(stow.archive)
    ended = stow("rebuild", "--json")
    assert ended.code == ExitCode.FINDINGS
    one, _ = ended.lines
    assert (one["fault"], one["sop_instance_uid"]) == ("damaged", "1.2.3.1")
    assert re.fullmatch(r"it has \d+ bytes of \d+; it was left as it is", one["words"])
    numbers = ended.summary
    assert (numbers["listed"], numbers["damaged"], numbers["catalog_was_missing"]) == (2, 1, True)
    assert numbers["recovered"]["finished"] == 0
    assert numbers["untold"] == list(UNTOLD)


def test_a_server_that_runs_has_to_be_stopped_first(stow: CommandLine) -> None:
    lock = ServerLock(os.fspath(stow.archive / "server.lock"), shared=False)
    ended = stow("rebuild")
    assert ended.code == ExitCode.TRY_AGAIN
    assert "stop its server" in ended.err
    lock.release()
    assert stow("rebuild").code == ExitCode.OK


@pytest.mark.slow
def test_a_foreign_catalog_has_to_be_moved_away_first(stow: CommandLine) -> None:
    (stow.archive / "archive.id").write_text("3f0b0c9e-2f0a-4c39-9d6a-0d5a3f6f9a11\n")
    ended = stow("rebuild")
    assert ended.code == ExitCode.NO_INPUT
    assert "belongs to another archive" in ended.err
    assert "move catalog.sqlite away, with its -wal and -shm files" in ended.err
    lose_catalog(stow.archive)
    assert stow("rebuild").code == ExitCode.OK
    assert len(stow.list("instances")) == 2


def test_where_no_archive_is_none_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = CommandLine(tmp_path / "none", capsys)("rebuild")
    assert ended.code == ExitCode.NO_INPUT
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.peer("storescu")
def test_after_a_kill_and_the_loss_of_the_catalog_all_that_was_answered_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    for number in range(60):
        write_part10(tmp_path / f"in/{number:02}.dcm", make_instance(number, study=f"1.2.{number % 3}"))
    write_part10(tmp_path / "in/99.dcm", make_instance(5, study="1.2.2", content=1))
    with serving(archive, tmp_path / "server.log") as (server, port):
        sent = run_peer(
            "storescu", "-v", "-aec", "STOWKEEPER", "+sd", "127.0.0.1", str(port), str(tmp_path / "in")
        )
        assert sent.stdout.count("Received Store Response (Success)") == 61, sent.stdout
        server.kill()
    lose_catalog(archive)
    stow = CommandLine(archive, capsys)
    ended = stow("rebuild", "--json")
    assert (ended.code, ended.err.count("Error")) == (ExitCode.OK, 0), ended.out + ended.err
    assert len(stow.list("instances")) == 60
    assert len(stow.list("instances", "--all-versions")) == 61
    (current,) = [row for row in stow.list("instances") if row["sop_instance_uid"] == "1.2.3.5"]
    assert current["conflict"] is True
    assert {row["association_id"] for row in stow.list("receipts")} != {""}
    assert stow("verify").code == ExitCode.OK
    assert list((archive / "depot").iterdir()) == []
    with serving(archive, tmp_path / "again.log"):
        assert len(stow.list("instances")) == 60
