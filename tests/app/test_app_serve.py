"""`stowkeeper serve`: how it begins, how it ends, and what it says to a person meanwhile."""

import gc
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.app.commands import serve as serve_module
from stowkeeper.app.commands.held_signals import HeldSignals
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.rights import user_name
from stowkeeper.app.settings import Settings
from stowkeeper.app.supervision import ServiceManager
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.folder import foreign_names
from stowkeeper.database.engine import Database
from stowkeeper.database.errors import DatabaseInUse
from stowkeeper.durable.filesystem import NoSyncFileSystem
from support.archive_rig import ArchiveRig
from support.catalog_rows import open_database
from support.command_line import CommandLine, Ended, environment, keep, serving, write_part10
from support.crash_checks import depot_folders, until
from support.instances import make_instance

FEW_SLOTS = {"STOWKEEPER_STORAGE__SLOT_POOL_SIZE": "4", "STOWKEEPER_STORAGE__RESERVE_SIZE": "0"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    root.mkdir()
    open_database(root).close()  # without waiting for Alembic
    return root


@pytest.fixture
def line(
    archive: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    """Run commands in this process, and undo what a server does to the whole of it."""
    for name, value in FEW_SLOTS.items():
        monkeypatch.setenv(name, value)
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield CommandLine(archive, capsys)
    resource.setrlimit(resource.RLIMIT_NOFILE, open_files)
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


# What it refuses


@pytest.fixture
def anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: CommandLine) -> Callable[..., Ended]:
    """Run a command that would make an archive in a place."""
    scans = tmp_path / "scans"
    scans.mkdir()
    write_part10(scans / "a.dcm", make_instance(1))

    def run(command: str, place: Path) -> Ended:
        return CommandLine(place, capsys)(command, *(("--port", "0") if command == "serve" else (scans,)))

    return run


MAKERS = pytest.mark.parametrize("command", ["serve", "import"])


@MAKERS
@pytest.mark.parametrize("below", ["", "archive", "some/archive"])
def test_a_file_is_no_place_for_an_archive(
    anywhere: Callable[..., Ended], tmp_path: Path, command: str, below: str
) -> None:
    file = tmp_path / "a-file"
    file.write_text("mine")
    ended = anywhere(command, file / below)
    assert (ended.code, ended.out) == (ExitCode.NO_INPUT, "")
    assert (
        ended.err
        == f"Error: {file} is a file, and an archive is a folder: name another place with --archive.\n"
    )
    assert file.read_text() == "mine"


@MAKERS
@pytest.mark.parametrize("below", ["", "archive"])
def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(
    anywhere: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, below: str
) -> None:
    place = tmp_path / "not-mine"
    place.mkdir(mode=0o555)
    who = user_name(os.geteuid())
    real = os.access

    def refuse(path: object, mode: int, **more: bool) -> bool:
        return path != place and real(path, mode, **more)  # type: ignore[arg-type]  # handed on

    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(os, "access", refuse)
    monkeypatch.setattr(os, "supports_effective_ids", {refuse})
    ended = anywhere(command, place / below)
    assert (ended.code, ended.out) == (ExitCode.NO_PERMISSION, "")
    assert (
        ended.err
        == f"Error: user {who} may not write in {place}, which is its own: run `chmod u+rwx {place}`.\n"
    )
    monkeypatch.setattr("stowkeeper.app.service.rights.user_name", lambda user: f"number-{user}")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    ended = anywhere(command, place / below)
    assert (ended.code, ended.out) == (ExitCode.NO_PERMISSION, "")
    assert (
        f"user number-4711 may not write in {place}, which belongs to number-{place.stat().st_uid}: run"
        in ended.err
    )
    assert list(place.iterdir()) == []


@MAKERS
def test_a_folder_of_other_things_is_left_alone(
    anywhere: Callable[..., Ended], tmp_path: Path, command: str
) -> None:
    place = tmp_path / "home"
    (place / "Desktop").mkdir(parents=True)
    ended = anywhere(command, place)
    assert (ended.code, ended.out) == (ExitCode.NO_INPUT, "")
    assert ended.err == (
        f"Error: {place} is no archive and holds Desktop: name an empty folder with --archive, one that does not"
        " exist yet, or an archive.\n"
    )
    (place / ".profile").touch()
    (place / "Music").touch()
    assert "holds .profile, Desktop, Music: name" in anywhere(command, place).err
    (place / "Pictures").touch()
    assert "holds .profile, Desktop, Music and 1 more: name" in anywhere(command, place).err
    assert sorted(path.name for path in place.iterdir()) == [".profile", "Desktop", "Music", "Pictures"]


@pytest.fixture
def with_settings(tmp_path: Path) -> Path:
    """Give a folder that is to be an archive, with its settings and the file of a secret that they name."""
    place = tmp_path / "new"
    place.mkdir()
    (place / "viewer.secret").write_text("whsec_" + "c2VjcmV0" * 4)
    (place / "stowkeeper.toml").write_text(
        '[[event_targets]]\nname = "viewer"\nevents = ["study.quiet"]\nurl = "http://127.0.0.1:9/"\nsecret_file = "viewer.secret"\n'
    )
    return place


def test_what_the_settings_in_a_new_archive_name_is_no_other_thing(
    anywhere: Callable[..., Ended], with_settings: Path
) -> None:
    ended = anywhere("import", with_settings)
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    assert (with_settings / "archive.id").exists()


def test_a_folder_of_other_things_is_judged_alike_by_whoever_looks(
    with_settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look = CommandLine(with_settings, capsys)
    ended = look("status")
    assert (ended.code, ended.out) == (ExitCode.NO_INPUT, "")
    assert f"there is no archive in {with_settings} yet: start a server" in ended.err
    assert f"there is no archive in {with_settings} yet\n" in look("doctor").out
    (with_settings / "Desktop").mkdir()
    named = f"{with_settings} is no archive and holds Desktop: "
    for command in ("serve", "status"):
        ended = look(command)
        assert (ended.code, ended.out) == (ExitCode.NO_INPUT, ""), command
        assert named in ended.err, command
    ended = look("doctor")
    assert ended.code == ExitCode.FINDINGS
    assert f"{named}no server makes an archive there" in ended.out
    assert sorted(path.name for path in with_settings.iterdir()) == [
        "Desktop",
        "stowkeeper.toml",
        "viewer.secret",
    ]


@pytest.mark.slow
def test_a_new_disk_an_unfinished_archive_and_one_with_notes_in_it_are_taken(
    anywhere: Callable[..., Ended], archive: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    (disk / "stowkeeper.toml").touch()
    assert anywhere("import", disk).code == ExitCode.OK
    (disk / "notes.txt").touch()
    assert anywhere("import", disk).code == ExitCode.OK, "whatever else is in an archive"
    begun = tmp_path / "begun"
    for made in ("depot", "objects", "log"):
        (begun / made).mkdir(parents=True)
    (begun / "server.lock").touch()
    (begun / "archive.id.17-ab.new").touch()
    assert anywhere("import", begun).code == ExitCode.OK


@pytest.mark.slow
def test_nothing_that_an_archive_holds_is_foreign_to_it(archive: Path, tmp_path: Path) -> None:
    with serving(archive, tmp_path / "server.log"):
        names = {path.name for path in archive.iterdir()}
    names |= {path.name for path in archive.iterdir()} - {"archive.id", "catalog.sqlite"}
    assert {"depot", "objects", "server.lock", "catalog.lock", "log"} <= names
    assert foreign_names(names - {"archive.id", "catalog.sqlite"}) == []


def test_a_refusal_to_start_is_said_once_and_in_the_log_too(line: CommandLine, archive: Path) -> None:
    keep(archive, make_instance(1))
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        (archive / name).unlink(missing_ok=True)
    ended = line("serve", "--port", "0")
    assert ended.code == ExitCode.NO_INPUT
    assert ended.out == ""
    assert ended.err.count("stowkeeper rebuild") == 1, ended.err
    assert ended.err.startswith("Error: ")
    assert "stowkeeper rebuild" in (archive / "log/stowkeeper.log").read_text()


def test_a_port_that_is_taken_is_said_once(line: CommandLine, archive: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        ended = line("serve", "--port", str(port))
    assert ended.code == ExitCode.UNAVAILABLE
    assert ended.out == ""
    assert ended.err.count("cannot listen") == 1, ended.err
    assert f"cannot listen on 127.0.0.1, port {port}" in ended.err
    assert "--port" in ended.err
    assert depot_folders(archive) == []


# Signals

STARTED = """
import importlib, os, signal, sys
from stowkeeper.app.commands import run

def raising(numbers, place, name):
    owner = importlib.import_module(place.partition(":")[0])
    for part in place.partition(":")[2].split(".") if ":" in place else ():
        owner = getattr(owner, part)
    called = getattr(owner, name)
    def first_the_signals(*arguments, **named):
        for number in numbers:
            os.kill(os.getpid(), number)
        return called(*arguments, **named)
    setattr(owner, name, first_the_signals)

for given in sys.argv[2:]:
    numbers, place, name = given.split()
    raising([signal.Signals[number] for number in numbers.split("+")], place, name)
sys.exit(run(["serve", "--archive", sys.argv[1], "--port", "0"]))
"""
"""A server that sends itself signals just before something is called."""

MOMENTS = {
    "its settings are read": "stowkeeper.app.commands.options:SettingsArguments load",
    "its archive is opened": "stowkeeper.app.commands.serve Archive",
    "its disk is tried": "stowkeeper.archive.archive probe_storage",
    "there is an event loop": "stowkeeper.app.commands.serve event_loop",
    "it listens": "stowkeeper.app.commands.serve:AssociationServer start",
    "it is ready": "stowkeeper.app.commands.serve:_Serving _announce",
}
IS_READY = "stowkeeper.archive.archive:Archive look_after_the_dead"
IT_CLOSES = "stowkeeper.archive.archive:Archive close"


def started(archive: Path, *moments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", STARTED, str(archive), *moments],
        env={**environment(), **FEW_SLOTS},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "name"),
    [*((moment, "SIGTERM") for moment in MOMENTS), ("its disk is tried", "SIGINT"), ("it listens", "SIGINT")],
)
def test_told_to_stop_before_it_is_ready_it_ends_in_order(archive: Path, moment: str, name: str) -> None:
    ended = started(archive, f"{name} {MOMENTS[moment]}")
    assert ended.returncode == ExitCode.OK, ended.stderr
    assert depot_folders(archive) == []
    assert "what=stopped" in ended.stderr
    ready = "stowkeeper ready" in ended.stdout
    assert not ready or moment in {"it listens", "it is ready"}


@pytest.mark.slow
def test_told_again_while_it_ends_it_ends_in_order_all_the_same(archive: Path) -> None:
    ended = started(archive, f"SIGTERM+SIGINT {IS_READY}", f"SIGTERM+SIGINT+SIGHUP {IT_CLOSES}")
    assert ended.returncode == ExitCode.OK, ended.stderr
    assert "stowkeeper ready" in ended.stdout
    assert depot_folders(archive) == []


@pytest.mark.slow
def test_a_reload_asked_for_before_it_is_ready_is_done_when_it_is(archive: Path) -> None:
    ended = started(archive, f"SIGHUP {MOMENTS['its disk is tried']}", f"SIGTERM {IS_READY}")
    assert ended.returncode == ExitCode.OK, ended.stderr
    assert "stowkeeper ready" in ended.stdout
    assert "settings read anew" in ended.stderr
    assert depot_folders(archive) == []


def test_signals_are_as_before_when_it_has_ended() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with HeldSignals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not signals.say_stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.say_stop
    assert [signal.getsignal(number) for number in numbers] == before


# What it passes on


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "synchronous"), [((), 2), (("--no-sync",), 0)])
def test_without_sync_its_catalog_is_not_synced_either(
    line: CommandLine,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    synchronous: int,
) -> None:
    found: list[Any] = []

    def look(serving: serve_module._Serving, *_places: object) -> None:
        with serving._archive.database.write() as transaction:
            found.append(transaction.connection.exec_driver_sql("PRAGMA synchronous").scalar())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(serve_module._Serving, "_announce", look)
    ended = line("serve", "--port", "0", *arguments)
    assert ended.code == ExitCode.OK, ended.err
    assert found == [synchronous]


@pytest.mark.parametrize("command", ["import", "ls", "verify", "rm"])
def test_other_commands_sync_the_catalog_whatever_the_settings_of_the_server(
    line: CommandLine, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    keep(archive, make_instance(1))
    (archive / "stowkeeper.toml").write_text("sync = false\n")
    synced: list[bool] = []
    opened = Database.open

    def watched(path: str, *, sync: bool = True, **named: Any) -> Database:
        synced.append(sync)
        return opened(path, sync=sync, **named)

    monkeypatch.setattr(Database, "open", watched)
    (tmp_path / "file").write_bytes(make_instance(2).data)
    more = {"import": [tmp_path / "file"], "rm": ["--reason", "test", "--yes", "1.2.3.1"]}.get(command, [])
    ended = line(command, *more)
    assert ended.code == ExitCode.OK, ended.err
    assert synced == [True]


@pytest.mark.parametrize("command", ["import", pytest.param("serve", marks=pytest.mark.slow)])
def test_a_recovered_instance_is_treated_by_the_policy_of_its_peer(
    line: CommandLine, archive: Path, tmp_path: Path, command: str
) -> None:
    keep(archive, make_instance(1))
    with open_database(archive, sync=False) as database:
        died = ArchiveRig(NoSyncFileSystem(), database, root=str(archive), slots=1)
        died.keep(make_instance(1, content=1))
        died.folder.close_in_child()  # as the system does when a process ends
    (archive / "stowkeeper.toml").write_text(
        '[[peers]]\nname = "other"\nae_title = "ELSEWHERE"\n'
        '[[peers]]\nname = "ct"\nae_title = "SCANNER"\naddresses = ["192.0.2.0/24"]\nduplicates = "replace"\n'
    )
    if command == "serve":
        with serving(archive, tmp_path / "log"):
            until(lambda: len(depot_folders(archive)) == 1)
    else:
        (tmp_path / "file").write_bytes(make_instance(2).data)
        assert line("import", tmp_path / "file").code == ExitCode.OK
    with closing(ArchiveReader(str(archive))) as reader, reader.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT state FROM versions ORDER BY version_key").scalars().all()
    assert rows[:2] == ["superseded", "kept"]


@pytest.mark.parametrize("follows_another", [True, False])
def test_who_follows_another_server_waits_until_that_one_leaves_the_schema(
    monkeypatch: pytest.MonkeyPatch, *, follows_another: bool
) -> None:
    """As where both share the archive, and this one is of a newer version."""
    answers = [DatabaseInUse("process 4711 has it open"), DatabaseInUse("process 4711 has it open"), "open"]

    def open_archive(*_: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(serve_module, "Archive", open_archive)
    monkeypatch.setattr(serve_module, "TAKE_OVER_LOOK_SECONDS", 0.0)
    manager = ServiceManager.from_environment({})
    signals = HeldSignals()
    if follows_another:
        opened: object = serve_module._open_archive(Settings(), manager, signals, follows_another=True)
        assert opened == "open"
    else:
        with pytest.raises(DatabaseInUse):
            serve_module._open_archive(Settings(), manager, signals, follows_another=False)
        assert len(answers) == 2
