"""`audit ls`: the audit trail by command, page by page, for people and for scripts."""

from pathlib import Path

import pytest

from stowkeeper.app.commands import audit as audit_command
from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive import audit
from support.catalog_rows import open_database
from support.command_line import CommandLine, keep
from support.instances import make_instance


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    archive = tmp_path / "archive"
    keep(archive, make_instance(1))
    return CommandLine(archive, capsys)


def subjects(stow: CommandLine, *arguments: str) -> list[str]:
    ended = stow("audit ls", "--json", *arguments)
    assert ended.code == ExitCode.OK, ended.err
    return [line["subject"] for line in ended.lines]


@pytest.mark.slow
def test_what_was_done_by_hand_is_listed_for_people_and_for_scripts(stow: CommandLine) -> None:
    assert stow("audit ls").err == "The audit trail is empty.\n"
    assert stow("peers add", "mr", "MR@192.0.2.1:104").code == ExitCode.OK
    assert stow("peers rm", "mr").code == ExitCode.OK
    head, newest, oldest = stow("audit ls").out.splitlines()
    assert head.split() == ["No.", "Time", "(UTC)", "Who", "Action", "Subject", "Detail"]
    assert newest.split()[3:] == [acting_user(), "peer", "removed", "mr"]
    assert oldest.split()[3:] == [acting_user(), "peer", "added", "mr", "MR@192.0.2.1:104"]
    (_, line) = stow("audit ls", "--json").lines
    assert set(line) == {"number", "at", "who", "action", "subject", "detail"}
    assert (line["number"], line["action"]) == (1, "peer added")


@pytest.mark.slow
def test_a_long_trail_goes_on_behind_a_number(stow: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_command, "ROWS_PER_PAGE", 2)  # so that a page is read after the other
    with open_database(stow.archive) as database, database.write() as transaction:
        audit.note_all(transaction, "tester", "done", [(str(number), "") for number in range(1, 6)])
    assert subjects(stow) == ["5", "4", "3", "2", "1"]
    assert subjects(stow, "--limit", "3") == ["5", "4", "3"]
    assert subjects(stow, "--limit", "3", "--before", "3") == ["2", "1"]


def test_without_an_archive_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stow = CommandLine(tmp_path / "nowhere", capsys)
    assert stow("audit ls").code == ExitCode.NO_INPUT
    assert not (tmp_path / "nowhere").exists()
