"""The doctor's checks, each on real folders, disks, ports and clocks; and the command that runs them all."""

import codecs
import dataclasses
import json
import os
import pwd
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowkeeper.app.doctor import catalog, clock, disk, ports, program, rights, room
from stowkeeper.app.doctor.at_start import findings_at_start, missing_right
from stowkeeper.app.doctor.examination import LoadedSettings, examine
from stowkeeper.app.doctor.finding import Finding, Level
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.running import RunningServer
from stowkeeper.app.settings import load_settings
from stowkeeper.archive.admission import DiskMarks
from stowkeeper.archive.receipt import timestamp
from stowkeeper.durable.filesystem import FileSystem
from support.command_line import CommandLine, keep
from support.instances import make_instance
from support.older_databases import make_database_of
from support.small_filesystem import small_filesystem

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
NO_MARKS = DiskMarks(instance_bytes=0, association_bytes=0, instance_inodes=0, association_inodes=0)


@contextmanager
def nobody() -> Iterator[None]:
    """Have this process be a user without rights."""
    codecs.lookup("idna")  # that user may not read Python's own files, and sockets ask for this one late
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def make_archive(place: Path) -> Path:
    root = place / "archive"
    keep(root, make_instance(1))
    for name in ("depot", "jobs", "log", "run"):
        (root / name).mkdir(exist_ok=True)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_archive(tmp_path)


@pytest.fixture
def archive_of_nobody() -> Iterator[Path]:
    """An archive that belongs to another user, whom it can be reached by."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as place:
        Path(place).chmod(0o755)
        root = make_archive(Path(place))
        give(root, NOBODY)
        yield root


def give(root: Path, user: int) -> None:
    for folder, _, names in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.chown(path, user, user)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_uid, path.lstat().st_mode) for path in root.rglob("*")}


def levels(findings: Iterable[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def only(findings: Iterable[Finding], level: Level) -> Finding:
    """Return the one finding that is not well, and see that it names what mends it."""
    (found,) = [finding for finding in findings if finding.level is not Level.OK]
    assert (found.level, bool(found.mend)) == (level, True), found
    assert "\n" not in found.words
    return found


# Rights.


@needs_root
def test_who_may_everything_in_every_folder_is_told_so_and_leaves_nothing_behind(
    archive_of_nobody: Path,
) -> None:
    before = tree(archive_of_nobody)
    with nobody():
        findings = list(rights.check_rights(str(archive_of_nobody), str(archive_of_nobody / "log")))
    assert set(levels(findings)) == {Level.OK}
    for name in ("", "depot", "objects", "jobs", "run", "log"):
        assert any(finding.words.startswith(f"{archive_of_nobody / name}: nobody") for finding in findings)
    assert all("owner nobody" in finding.words and "mode 0" in finding.words for finding in findings)
    assert tree(archive_of_nobody) == before


@needs_root
@pytest.mark.parametrize("name", ["depot", "objects", "log", "run"])
def test_a_folder_of_root_is_named_with_its_owner_and_what_gives_it_back(
    archive_of_nobody: Path, name: str
) -> None:
    folder = archive_of_nobody / name
    os.chown(folder, 0, 0)
    folder.chmod(0o755)
    with nobody():
        found = only(
            rights.check_rights(str(archive_of_nobody), str(archive_of_nobody / "log")), Level.FAILURE
        )
        assert missing_right(load_settings(None, {"archive": str(archive_of_nobody)}, {})).startswith(
            str(folder)
        )
    assert re.fullmatch(
        rf"nobody \(user {NOBODY}\) cannot create a file in {folder}: Permission denied \(owner root, .*\)",
        found.words,
    )
    assert found.mend == f"sudo chown -R nobody {archive_of_nobody}"
    subprocess.run(shlex.split(found.mend.removeprefix("sudo ")), check=True)
    with nobody():
        assert set(levels(rights.check_rights(str(archive_of_nobody), None))) == {Level.OK}
        assert missing_right(load_settings(None, {"archive": str(archive_of_nobody)}, {})) == ""


@needs_root
def test_a_folder_whose_owner_took_the_right_away_is_mended_by_its_owner(archive_of_nobody: Path) -> None:
    (archive_of_nobody / "jobs").chmod(0o500)
    with nobody():
        found = only(rights.check_rights(str(archive_of_nobody), None), Level.FAILURE)
        subprocess.run(shlex.split(found.mend), check=True)
        assert set(levels(rights.check_rights(str(archive_of_nobody), None))) == {Level.OK}


@needs_root
def test_root_is_told_that_its_rights_say_nothing_and_whose_do(archive_of_nobody: Path) -> None:
    before = tree(archive_of_nobody)
    found = only(rights.check_rights(str(archive_of_nobody), None), Level.WARNING)
    assert found.mend == f"sudo -u nobody stowkeeper doctor --archive {archive_of_nobody}"
    assert tree(archive_of_nobody) == before


@needs_root
def test_the_archive_of_another_user_is_not_to_be_taken_from_that_user(archive_of_nobody: Path) -> None:
    give(archive_of_nobody, 1)
    archive_of_nobody.chmod(0o700)
    settings = load_settings(None, {"archive": str(archive_of_nobody)}, {"STOWKEEPER_HTTP__PORT": "off"})
    with nobody():
        found = [one for one in examine(LoadedSettings(settings=settings)) if one.level is Level.FAILURE]
    mends = {one.mend for one in found if one.check in {"rights", "catalog"}}
    assert mends == {f"sudo -u {pwd.getpwuid(1).pw_name} stowkeeper doctor --archive {archive_of_nobody}"}


@needs_root
def test_what_a_command_of_root_left_in_the_archive_is_named(archive_of_nobody: Path) -> None:
    assert levels(rights.check_owners(str(archive_of_nobody), None)) == [Level.OK]
    for name in ("catalog.sqlite-wal", "depot/1", "objects/1.2.3", "log/stowkeeper.log"):
        (archive_of_nobody / name).write_text("")
    found = only(rights.check_owners(str(archive_of_nobody), str(archive_of_nobody / "log")), Level.WARNING)
    assert "and 1 more belong to another user" in found.words
    assert found.mend == f"sudo chown -R nobody {archive_of_nobody}"
    (archive_of_nobody / "catalog.sqlite-wal").chmod(0o600)
    with nobody():
        words = missing_right(load_settings(None, {"archive": str(archive_of_nobody)}, {}))
    assert words.startswith(
        f"{archive_of_nobody / 'catalog.sqlite-wal'} (owner root, group root, mode 0600) cannot"
    )


def test_a_folder_that_everyone_may_change_is_told(root: Path) -> None:
    (root / "objects").chmod(0o777)
    found = only(rights.check_rights(str(root), None), Level.WARNING)
    assert found.mend == f"chmod o-w {root / 'objects'}"


@needs_root
def test_an_archive_that_is_still_to_be_made_is_asked_of_the_folder_above() -> None:
    with tempfile.TemporaryDirectory(prefix="doctor-") as place:
        Path(place).chmod(0o755)
        wanted = str(Path(place, "new", "archive"))
        assert levels(rights.check_rights(wanted, None)) == [Level.OK]
        with nobody():
            found = only(rights.check_rights(wanted, None), Level.FAILURE)
        assert place in found.words
        subprocess.run(["bash", "-c", found.mend.replace("sudo ", "")], check=True)
        with nobody():
            assert levels(rights.check_rights(wanted, None)) == [Level.OK]


@needs_root
def test_an_archive_that_cannot_even_be_entered_is_told_by_every_check(archive_of_nobody: Path) -> None:
    os.chown(archive_of_nobody, 0, 0)
    archive_of_nobody.chmod(0o700)
    settings = load_settings(None, {"archive": str(archive_of_nobody)}, {"STOWKEEPER_HTTP__PORT": "off"})
    with nobody():
        found = [one for one in examine(LoadedSettings(settings=settings)) if one.level is Level.FAILURE]
    checks = {one.check: one for one in found}
    assert {"rights", "catalog"} <= set(checks)
    assert {checks[name].mend for name in ("rights", "catalog")} == {
        f"sudo chown -R nobody {archive_of_nobody}"
    }


@needs_root
def test_a_log_folder_that_is_gone_is_asked_of_the_folder_above(archive_of_nobody: Path) -> None:
    gone = str(archive_of_nobody.parent / "log" / "stowkeeper")
    with nobody():
        found = only(rights.check_rights(str(archive_of_nobody), gone), Level.FAILURE)
    give(archive_of_nobody, 0)
    assert f"there is no log folder {gone} yet, and nobody" in found.words
    assert found.mend == f"sudo mkdir -p {gone} && sudo chown {NOBODY} {gone}"
    file = archive_of_nobody / "archive.id"
    assert "is no folder" in only(rights.check_rights(str(archive_of_nobody), str(file)), Level.FAILURE).words


# Room and disk.


def test_room_is_compared_with_the_marks(tmp_path: Path) -> None:
    free = FileSystem().free_space(str(tmp_path))

    def at(**marks: int) -> list[Finding]:
        return list(room.check_room(FileSystem(), str(tmp_path), dataclasses.replace(NO_MARKS, **marks)))

    assert set(levels(at())) == {Level.OK}
    assert "every instance is refused" in only(at(instance_bytes=free.bytes * 2), Level.FAILURE).words
    assert "no association" in only(at(association_bytes=free.bytes * 2), Level.FAILURE).words
    assert "are free" in only(at(instance_bytes=free.bytes * 2 // 3), Level.WARNING).words
    if free.inodes is not None:
        found = only(at(instance_inodes=free.inodes * 2), Level.FAILURE)
        assert "storage.refuse_instance_below_inodes" in found.words


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs is mounted here")
def test_a_memory_file_system_is_told_with_the_reason() -> None:
    found = only(disk.check_file_system(FileSystem(), "/dev/shm"), Level.WARNING)
    assert "in memory (tmpfs)" in found.words


def test_where_a_sync_takes_how_long_is_told_and_nothing_is_left(root: Path) -> None:
    before = tree(root)
    (found,) = disk.check_syncing(FileSystem(), str(root))
    assert found.level is Level.OK
    assert re.search(r"on the disk after \d+\.\d ms", found.words)
    assert tree(root) == before


def test_a_disk_that_fails_at_syncing_is_told(root: Path) -> None:
    class Broken(FileSystem):
        def synchronize(self, descriptor: int) -> None:
            raise OSError(5, "Input/output error")

    assert "Input/output error" in only(disk.check_syncing(Broken(), str(root)), Level.FAILURE).words
    assert list((root / "depot").iterdir()) == []


def test_a_disk_that_never_answers_is_not_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "SYNC_SECONDS_MAX", 0.1)
    reader, writer = os.pipe()

    class Stuck(FileSystem):
        def synchronize(self, descriptor: int) -> None:
            os.read(reader, 1)

    assert "stands still" in only(disk.check_syncing(Stuck(), str(root)), Level.FAILURE).words
    os.close(writer)


@pytest.mark.slow
def test_a_full_disk_is_a_failure_of_rights_room_and_nothing_else_hides_it(tmp_path: Path) -> None:
    with small_filesystem(tmp_path, size=1 << 20, inodes=100) as place:
        root = place / "archive"
        (root / "objects").mkdir(parents=True)
        (root / "filler").write_bytes(bytes(FileSystem().free_space(str(place)).bytes))
        failed = [one for one in rights.check_rights(str(root), None) if one.level is Level.FAILURE]
        assert {"No space left on device" in one.words for one in failed} == {True}
        assert {one.mend for one in failed} == {
            f"df -h {one}; df -i {one}" for one in (root, root / "objects")
        }


# The catalog.


def test_the_schema_of_the_catalog_is_compared(root: Path, tmp_path: Path) -> None:
    assert levels(catalog.check_catalog(FileSystem(), str(root))) == [Level.OK]
    assert levels(catalog.check_catalog(FileSystem(), str(tmp_path / "none"))) == [Level.OK]
    (root / "catalog.sqlite").unlink()
    found = only(catalog.check_catalog(FileSystem(), str(root)), Level.FAILURE)
    assert found.mend == f"stowkeeper rebuild --archive {root}"
    (root / "catalog.sqlite").write_bytes(b"no database" * 100)
    assert "stowkeeper rebuild" in only(catalog.check_catalog(FileSystem(), str(root)), Level.FAILURE).mend


# The clock.


def test_a_clock_before_what_has_happened_is_wrong() -> None:
    now = clock.Instant.now()
    before, after = timestamp(int((now.real - 60) * 1e9)), timestamp(int((now.real + 3600) * 1e9))
    assert levels(clock.check_clock(now, now, None, now.real - 1)) == [Level.OK]
    assert levels(clock.check_clock(now, now, before, None)) == [Level.OK]
    assert "in the future" in only(clock.check_clock(now, now, after, None), Level.FAILURE).words
    assert "was installed" in only(clock.check_clock(now, now, None, now.real + 1), Level.FAILURE).words
    jumped = clock.Instant(now.real - 7200, now.monotonic)
    assert "-7200.0 s" in only(clock.check_clock(now, jumped, None, None), Level.WARNING).words
    installed = clock.installed_at()
    assert installed is not None
    assert installed < time.time()


@pytest.mark.parametrize(("said", "level"), [("yes", Level.OK), ("no", Level.WARNING), ("", Level.OK)])
def test_what_timedatectl_says_of_ntp_counts(tmp_path: Path, said: str, level: Level) -> None:
    path = tmp_path / "timedatectl"
    path.write_text(f"#!/bin/sh\n[ \"$*\" = 'show --property=NTPSynchronized --value' ] && echo {said}\n")
    path.chmod(0o755)
    assert levels(clock.check_time_service(str(path))) == [level]
    assert levels(clock.check_time_service(str(tmp_path / "missing"))) == [Level.OK]


# Ports.


def port_checked(
    port: int, own: list[tuple[int, int]] | None = None, host: str = "127.0.0.1"
) -> list[Finding]:
    return list(ports.check_port("DICOM", host, port, own or [], setting="dicom.port", flag="--port"))


def test_a_port_is_free_ours_or_of_another_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = only(port_checked(port), Level.FAILURE)
        assert f"(pid {os.getpid()})" in found.words
        assert found.mend.startswith(f"kill {os.getpid()} ")
        (ours,) = port_checked(port, [(77, port)])
        assert (ours.level, ours.words) == (
            Level.OK,
            f"DICOM: our own server (pid 77) listens on port {port}",
        )
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            assert ports.holder_of(port) is not None
            listener.close()
            assert ports.holder_of(port) is None  # only who listens keeps others from listening
    (free,) = port_checked(port)
    assert (free.level, free.words) == (Level.OK, f"DICOM: 127.0.0.1:{port} is free")
    (elsewhere,) = port_checked(port, [(77, port + 1)])
    assert (elsewhere.level, f"port {port + 1}" in elsewhere.words) == (Level.OK, True)
    assert levels(port_checked(0)) == [Level.OK]


def test_a_port_of_another_server_of_ours_is_told_with_its_archive(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "archive_of_server", lambda _pid: str(root))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert only(port_checked(port), Level.FAILURE).mend.startswith(f"stowkeeper status --archive {root} ")
        (root / "archive.id").unlink()
        found = only(port_checked(port), Level.FAILURE)
    assert "its disk may be away" in found.words
    assert "kill" not in found.mend


@pytest.mark.parametrize(
    ("words", "archive"),
    [
        ("python -P -m stowkeeper serve --archive /srv/a --port 104", "/srv/a"),
        ("/opt/bin/stowkeeper serve --archive=b", "b"),
        ("stowkeeper serve", None),
        ("stowkeeper serve --archive", None),
        ("stowkeeper ls --archive /srv/a", None),
        ("python serve --archive /srv/a", None),
    ],
)
def test_the_archive_of_a_server_is_read_from_its_command_line(words: str, archive: str | None) -> None:
    assert ports.archive_named(words.split()) == archive
    assert ports.archive_of_server(os.getpid()) is None


@needs_root
def test_a_privileged_port_is_told_to_who_has_not_the_privilege() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first < 2:
        pytest.skip("every port may be taken by everyone here")
    with nobody():
        found = only(port_checked(1), Level.WARNING)
    assert f"the ports below {first} are privileged" in found.words
    assert "net.ipv4.ip_unprivileged_port_start=1;" in found.mend


# The program.


def test_open_files_and_versions() -> None:
    assert levels(program.check_open_files(16)) == [Level.OK]
    assert "ulimit -n 9999999" in only(program.check_open_files(9_999_999), Level.WARNING).mend
    (found,) = program.check_program()
    assert re.fullmatch(r"Stowkeeper \S+, Python 3\.\S+, SQLite 3\.\S+, \w+ \S+, on .+", found.words)


def test_a_server_of_another_version_has_to_be_restarted() -> None:
    server = RunningServer(
        pid=77,
        host_name="pacs",
        version="0.0.1",
        started_at="2026-03-01T00:00:00.000000Z",
        dicom_host="127.0.0.1",
        dicom_port=104,
        http_host=None,
        http_port=None,
        ae_title="STOWKEEPER",
        tls=False,
        log_file=None,
        receiver="77-a",
    )
    assert "kill 77" in only(program.check_servers([server], "/archive"), Level.WARNING).mend


# The command, and the start of a server.


@pytest.fixture
def doctor(root: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(root, capsys)


AT_HOME = ("--port", "0", "--http-port", "off")


def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have room and files enough on whatever machine the tests run."""
    for name in ("BELOW", "BELOW_INODES"):
        monkeypatch.setenv(f"STOWKEEPER_STORAGE__REFUSE_INSTANCE_{name}", "0")
        monkeypatch.setenv(f"STOWKEEPER_STORAGE__REFUSE_ASSOCIATION_{name}", "0")
    monkeypatch.setenv("STOWKEEPER_DICOM__ASSOCIATIONS_MAX", "4")
    # What a machine that runs tests has: a container's own layer, or a clock of its own.
    monkeypatch.setattr(disk, "check_file_system", lambda *_: iter(()))
    monkeypatch.setattr(clock, "check_time_service", lambda: iter(()))


def test_all_is_well_on_a_sound_archive(doctor: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch)
    before = tree(doctor.archive)
    ended = doctor("doctor", *AT_HOME)
    assert ended.out.endswith("\nAll is well.\n"), ended.out
    assert ended.code == ExitCode.OK
    assert {line.split()[0] for line in ended.out.splitlines()} == {"ok", "All"}
    assert {name: found for name, found in tree(doctor.archive).items() if "sqlite" not in name} == {
        name: found for name, found in before.items() if "sqlite" not in name
    }


def test_what_is_wrong_stands_with_what_mends_it(
    doctor: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch)
    (doctor.archive / "log").chmod(0o777)
    ended = doctor("doctor", *AT_HOME)
    assert ended.code == ExitCode.FINDINGS
    lines = ended.out.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("warning  rights")]
    assert lines[place + 1].split(" → ")[1] == f"chmod o-w {doctor.archive / 'log'}"
    assert lines[-1] == "1 warning: behind each → stands what mends it."
    report = json.loads(doctor("doctor", *AT_HOME, "--json").out)
    assert report["is_well"] is False
    assert [one["check"] for one in report["findings"] if one["level"] == "warning"] == ["rights"]


@pytest.mark.slow
def test_broken_settings_are_a_finding_among_others(doctor: CommandLine) -> None:
    (doctor.archive / "stowkeeper.toml").write_text('[dicom]\nport = "many"\n')
    ended = doctor("doctor", "--json")
    report = json.loads(ended.out)
    assert ended.code == ExitCode.FINDINGS
    settings = [one for one in report["findings"] if one["check"] == "settings"]
    assert [one["level"] for one in settings] == ["failure", "warning"]
    assert "stowkeeper.toml" in settings[0]["words"]
    assert settings[0]["mend"] == f"stowkeeper check-config --archive {doctor.archive}"
    assert {"rights", "sync", "catalog"} <= {one["check"] for one in report["findings"]}
    with_file = doctor("doctor", "--config", str(doctor.archive / "stowkeeper.toml"))
    assert with_file.code == ExitCode.FINDINGS
    elsewhere = doctor.archive.parent / "site.toml"
    elsewhere.write_text("[dicom\n")
    named = json.loads(doctor("doctor", "--config", str(elsewhere), "--json").out)["findings"]
    mends = {one["mend"] for one in named if one["check"] == "settings"}
    assert mends == {f"stowkeeper check-config --config {elsewhere} --archive {doctor.archive}"}


def test_an_old_schema_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "old"
    root.mkdir()
    make_database_of("0001", root / "catalog.sqlite")
    content = (root / "catalog.sqlite").read_bytes()
    found = only(catalog.check_catalog(FileSystem(), str(root)), Level.WARNING)
    assert found.mend == f"stowkeeper migrate --archive {root}"
    assert (root / "catalog.sqlite").read_bytes() == content


def test_a_server_warns_at_its_start_of_what_does_not_keep_it_from_starting(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch)
    settings = load_settings(None, {"archive": str(root)}, os.environ)
    assert findings_at_start(settings) == []
    low = load_settings(None, {"archive": str(root)}, {"STOWKEEPER_STORAGE__REFUSE_INSTANCE_BELOW": "900 TB"})
    assert any("every instance is refused" in finding.words for finding in findings_at_start(low))
    assert missing_right(settings) == ""


@needs_root
def test_a_server_of_root_on_the_archive_of_another_says_so(archive_of_nobody: Path) -> None:
    found = findings_at_start(load_settings(None, {"archive": str(archive_of_nobody)}, {}))[0]
    assert found.mend == f"sudo -u nobody stowkeeper serve --archive {archive_of_nobody}"


@needs_root
def test_a_server_that_may_not_use_its_catalog_says_so_and_does_not_start(
    archive_of_nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stow = CommandLine(archive_of_nobody, capsys)
    assert stow("serve", "--help").code == ExitCode.OK  # it is imported by who may
    os.chown(archive_of_nobody / "catalog.sqlite", 0, 0)
    (archive_of_nobody / "catalog.sqlite").chmod(0o600)
    with nobody():
        ended = stow("serve", *AT_HOME)
    assert ended.code == ExitCode.NO_PERMISSION
    assert ended.err == (
        f"Error: {archive_of_nobody}/catalog.sqlite (owner root, group root, mode 0600) cannot be used by nobody (user"
        f" {NOBODY}): `sudo chown -R nobody {archive_of_nobody}` mends it.\n"
    )


@needs_root
def test_who_may_not_look_is_told_so_by_the_status(
    archive_of_nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stow = CommandLine(archive_of_nobody, capsys)
    assert stow("status").code == ExitCode.UNAVAILABLE
    os.chown(archive_of_nobody / "run", 0, 0)
    (archive_of_nobody / "run").chmod(0o700)
    with nobody():
        ended = stow("status")
    assert ended.code == ExitCode.NO_PERMISSION
    assert f"{archive_of_nobody}/run: Permission denied" in ended.err
