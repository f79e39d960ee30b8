"""`token` says who may use HTTP: before there is an archive, beside a server, and each secret once."""

import io
import os
import pty
import sqlite3
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
from stowkeeper.web.credentials import hash_secret, matches
from stowkeeper.web.credentials import list_credentials as credentials_of
from support.catalog_rows import open_database
from support.command_line import CommandLine, environment, program
from support.instances import make_instance
from support.older_databases import make_database_of
from support.orthanc_rig import orthanc_rig, part10_of
from support.quick_web import PLAIN_HTTP
from support.web_server import bearer, web_rig, web_serving

PASSWORD = "correct horse battery"


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands on a folder in which there is no archive yet."""
    return CommandLine(tmp_path / "archive", capsys)


def say(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put text on standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


@pytest.mark.slow
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
    assert listed.out.splitlines()[1].split()[:4] == ["monitor", "token", "read", "no"]


@pytest.mark.slow
def test_the_archive_is_made_where_there_is_none_and_serves(stow: CommandLine) -> None:
    assert stow("token add", "ops", "--role", "admin").code == ExitCode.OK
    archive = Archive(str(stow.archive), ArchiveOptions(sync=False, reserve_size=0, slot_pool_size=2))
    archive.close()
    assert [line["name"] for line in stow("token ls", "--json").lines] == ["ops"]


@pytest.mark.slow
def test_the_archive_is_made_with_the_modes_of_its_settings(
    stow: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[storage]\nfile_mode = "0600"\n')
    assert stow("token add", "ops", "--role", "admin", "--config", settings).code == ExitCode.OK
    assert stat.S_IMODE(os.stat(stow.archive / "objects").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(stow.archive / "catalog.sqlite").st_mode) == 0o600


def test_a_folder_of_something_else_stays_as_it_is(stow: CommandLine) -> None:
    stow.archive.mkdir()
    (stow.archive / "letters.txt").write_text("dear")
    ended = stow("token add", "ops", "--role", "admin")
    assert ended.code == ExitCode.NO_INPUT
    assert os.listdir(stow.archive) == ["letters.txt"]


@pytest.mark.slow
def test_json_has_all_that_is_known(stow: CommandLine) -> None:
    (added,) = stow("token add", "monitor", "--role", "operate", "--json").lines
    assert set(added) == {"name", "kind", "role", "may_store", "token"}
    assert (added["name"], added["kind"], added["role"], added["may_store"]) == (
        "monitor",
        "token",
        "operate",
        True,
    )
    (listed,) = stow("token ls", "--json").lines
    assert set(listed) == {"name", "kind", "role", "may_store", "created_at", "created_by"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "said", "may_store"),
    [
        ("none", (), False),
        ("read", (), False),
        ("operate", (), True),
        ("admin", (), True),
        ("none", ("--store",), True),
        ("read", ("--store",), True),
        ("operate", ("--no-store",), False),
        ("admin", ("--no-store",), False),
    ],
)
def test_to_store_is_permitted_by_the_role_unless_it_is_said(
    stow: CommandLine, role: str, said: tuple[str, ...], may_store: bool
) -> None:
    (added,) = stow("token add", "one", "--role", role, *said, "--json").lines
    assert added["may_store"] is may_store
    (listed,) = stow("token ls", "--json").lines
    assert (listed["role"], listed["may_store"]) == (role, may_store)
    shown = stow("token ls").out.splitlines()
    assert shown[0].split()[2:4] == ["Role", "Stores"]
    assert shown[1].split()[2:4] == [role, "yes" if may_store else "no"]


@pytest.mark.slow
def test_a_credential_that_may_nothing_is_told_as_that(stow: CommandLine) -> None:
    assert "may nothing" in stow("token add", "useless", "--role", "none").err
    for arguments in (("one", "--role", "none", "--store"), ("two", "--role", "read", "--no-store")):
        assert "may nothing" not in stow("token add", *arguments).err


@pytest.mark.slow
def test_credentials_of_an_older_archive_open_what_they_did(stow: CommandLine) -> None:
    (stow.archive / "objects").mkdir(parents=True)
    catalog = stow.archive / "catalog.sqlite"
    make_database_of("0003", catalog)
    connection = sqlite3.connect(catalog)
    connection.executemany(
        "INSERT INTO credentials (name, kind, role, secret_hash, created_at, created_by)"
        " VALUES (?, ?, ?, ?, '2026-01-02T03:04:05.000006Z', 'ann')",
        [
            ("watch", "token", "read", hash_secret("of-watch")),
            ("run", "token", "operate", hash_secret("of-run")),
            ("root", "password", "admin", hash_secret(PASSWORD)),
        ],
    )
    connection.commit()
    connection.close()
    shown = [(one["name"], one["role"], one["may_store"]) for one in stow("token ls", "--json").lines]
    assert shown == [("root", "admin", True), ("run", "operate", True), ("watch", "read", False)]
    with orthanc_rig(stow.archive, runs_jobs=False) as rig:
        body = part10_of(make_instance(1))
        watch, run = bearer("stowkeeper.watch.of-watch"), bearer("stowkeeper.run.of-run")
        assert rig.ask("POST", "/instances", body).status == 401
        assert rig.ask("POST", "/instances", body, headers=watch).status == 403
        assert rig.ask("POST", "/instances", body, headers=run).value["Status"] == "Success"
        root = ("root", PASSWORD)
        assert rig.ask("POST", "/instances", body, auth=root).value["Status"] == "AlreadyStored"
        assert len(rig.ask("GET", "/instances", headers=watch).value) == 1
        assert rig.ask("GET", "/api/credentials", headers=run).status == 403
        assert rig.ask("GET", "/api/credentials", auth=root).status == 200


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_running_server_knows_at_once(stow: CommandLine) -> None:
    with web_rig(stow.archive) as rig, web_serving(rig.application) as thread:
        assert httpx.get(f"{thread.url}/api/system", verify=PLAIN_HTTP).status_code == 200
        (token,) = stow("token add", "ops", "--role", "admin").out.splitlines()
        book = rig.application.state.credential_book
        thread.wait_until(lambda: not book.is_fresh())
        assert httpx.get(f"{thread.url}/api/system", verify=PLAIN_HTTP).status_code == 401
        assert (
            httpx.get(f"{thread.url}/api/system", headers=bearer(token), verify=PLAIN_HTTP).status_code == 200
        )
        stow("token add", "other", "--role", "admin")
        assert stow("token rm", "ops").code == ExitCode.OK
        thread.wait_until(lambda: not book.is_fresh())
        assert (
            httpx.get(f"{thread.url}/api/system", headers=bearer(token), verify=PLAIN_HTTP).status_code == 401
        )


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
