"""`token` says who may use HTTP: before there is an archive, beside a server, and each secret once."""

import io
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive.archive import Archive, ArchiveOptions
from stowkeeper.archive.audit import list_audit
from stowkeeper.web.credentials import list_credentials as credentials_of
from stowkeeper.web.credentials import matches
from support.catalog_rows import open_database
from support.command_line import CommandLine, environment, program
from support.web_server import bearer, web_rig, web_serving

PASSWORD = "correct horse battery"


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands on a folder in which there is no archive yet."""
    return CommandLine(tmp_path / "archive", capsys)


def say(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put text on standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_token_is_printed_once_and_alone_on_standard_output(stow: CommandLine) -> None:
    added = stow("token add", "monitor", "--role", "read")
    assert added.code == ExitCode.OK, added.err
    (token,) = added.out.splitlines()
    assert token.startswith("stowkeeper.monitor.")
    assert token not in added.err
    assert "not shown again" in added.err
    with open_database(stow.archive) as database, database.read() as connection:
        (kept,) = credentials_of(connection)
        (entry,) = list_audit(connection)
    assert matches(token.rpartition(".")[2], kept.secret_hash)
    assert (kept.role, kept.created_by) == ("read", acting_user())
    assert (entry.who, entry.action, entry.subject) == (acting_user(), "credential added", "monitor")
    listed = stow("token ls")
    assert token.rpartition(".")[2] not in listed.out + listed.err
    assert listed.out.splitlines()[1].split()[:3] == ["monitor", "token", "read"]


def test_the_archive_is_made_where_there_is_none_and_serves(stow: CommandLine) -> None:
    assert stow("token add", "ops", "--role", "admin").code == ExitCode.OK
    archive = Archive(str(stow.archive), ArchiveOptions(sync=False, reserve_size=0, slot_pool_size=2))
    archive.close()
    assert [line["name"] for line in stow("token ls", "--json").lines] == ["ops"]


def test_the_archive_is_made_with_the_modes_of_its_settings(
    stow: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[storage]\nslot_mode = "0600"\n')
    assert stow("token add", "ops", "--role", "admin", "--config", settings).code == ExitCode.OK
    assert stat.S_IMODE(os.stat(stow.archive / "objects").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(stow.archive / "catalog.sqlite").st_mode) == 0o600


def test_a_folder_of_something_else_stays_as_it_is(stow: CommandLine) -> None:
    stow.archive.mkdir()
    (stow.archive / "letters.txt").write_text("dear")
    ended = stow("token add", "ops", "--role", "admin")
    assert ended.code == ExitCode.NO_INPUT
    assert os.listdir(stow.archive) == ["letters.txt"]


def test_json_has_all_that_is_known(stow: CommandLine) -> None:
    (added,) = stow("token add", "monitor", "--role", "operate", "--json").lines
    assert set(added) == {"name", "kind", "role", "token"}
    assert (added["name"], added["kind"], added["role"]) == ("monitor", "token", "operate")
    (listed,) = stow("token ls", "--json").lines
    assert set(listed) == {"name", "kind", "role", "created_at", "created_by"}


def test_a_password_is_read_and_not_shown(stow: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, f"{PASSWORD}\n")
    added = stow("token add", "joe", "--role", "read", "--password")
    assert (added.code, added.out) == (ExitCode.OK, "")
    assert PASSWORD not in added.err
    say(monkeypatch, f"{PASSWORD}\n")
    (shown,) = stow("token add", "ann", "--role", "read", "--password", "--json").lines
    assert (shown["kind"], shown["token"]) == ("password", None)
    with open_database(stow.archive) as database, database.read() as connection:
        assert all(matches(PASSWORD, one.secret_hash) for one in credentials_of(connection))


def test_a_short_password_and_a_bad_name_are_refused_in_words(
    stow: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, "short\n")
    ended = stow("token add", "joe", "--role", "read", "--password")
    assert ended.code == ExitCode.FINDINGS
    assert "12 letters" in ended.err
    ended = stow("token add", "a.b", "--role", "read")
    assert ended.code == ExitCode.FINDINGS
    assert "choose another name" in ended.err
    assert not stow.archive.exists()


@pytest.mark.parametrize("arguments", [(), ("name",), ("name", "--role", "king"), ("--role", "read")])
def test_a_wrong_command_line_is_told(stow: CommandLine, arguments: tuple[str, ...]) -> None:
    assert stow("token add", *arguments).code == ExitCode.USAGE


def test_a_name_is_taken_once_and_removed_once(stow: CommandLine) -> None:
    assert stow("token add", "monitor", "--role", "read").code == ExitCode.OK
    again = stow("token add", "monitor", "--role", "admin")
    assert (again.code, again.out) == (ExitCode.FINDINGS, "")
    assert "'monitor'" in again.err
    assert stow("token add", "other", "--role", "read").code == ExitCode.OK
    ended = stow("token rm", "monitor", "nobody", "monitor")
    assert ended.code == ExitCode.FINDINGS
    assert "'nobody'" in ended.err
    assert [line["name"] for line in stow("token ls", "--json").lines] == ["other"]
    last = stow("token rm", "other")
    assert last.code == ExitCode.OK
    assert "this machine alone" in last.err
    empty = stow("token ls")
    assert (empty.code, empty.out) == (ExitCode.OK, "")
    assert "this machine alone" in empty.err


def test_without_an_archive_there_is_nothing_to_list_or_remove(stow: CommandLine) -> None:
    for ended in (stow("token ls"), stow("token rm", "x")):
        assert ended.code == ExitCode.NO_INPUT
        assert not stow.archive.exists()


def test_a_running_server_knows_at_once(stow: CommandLine) -> None:
    with web_rig(stow.archive) as rig, web_serving(rig.application) as thread:
        assert httpx.get(f"{thread.url}/api/system").status_code == 200
        (token,) = stow("token add", "ops", "--role", "admin").out.splitlines()
        book = rig.application.state.credential_book
        thread.wait_until(lambda: not book.is_fresh())
        assert httpx.get(f"{thread.url}/api/system").status_code == 401
        assert httpx.get(f"{thread.url}/api/system", headers=bearer(token)).status_code == 200
        stow("token add", "other", "--role", "admin")
        assert stow("token rm", "ops").code == ExitCode.OK
        thread.wait_until(lambda: not book.is_fresh())
        assert httpx.get(f"{thread.url}/api/system", headers=bearer(token)).status_code == 401


@pytest.mark.slow
def test_on_a_terminal_the_password_is_asked_for_twice_and_not_echoed(stow: CommandLine) -> None:
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        program("token", "add", "joe", "--role", "read", "--password", "--archive", stow.archive),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(),
        start_new_session=True,
    ) as process:
        os.close(terminal)
        shown = b""
        for prompt in (b"Password: ", b"Repeat for confirmation: "):
            while prompt not in shown:
                shown += os.read(controller, 1000)
            os.write(controller, f"{PASSWORD}\n".encode())
        try:
            while piece := os.read(controller, 1000):
                shown += piece
        except OSError:  # the other side is closed
            pass
        assert process.wait(30) == ExitCode.OK
    os.close(controller)
    assert PASSWORD.encode() not in shown
    with open_database(stow.archive) as database, database.read() as connection:
        (kept,) = credentials_of(connection)
    assert matches(PASSWORD, kept.secret_hash)
