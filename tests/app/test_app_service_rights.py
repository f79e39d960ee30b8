"""`service` without the right to do it: which right is missing and how to get it, with exit code 4."""

import fcntl
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.app.commands import run
from stowkeeper.app.commands import service as service_module
from stowkeeper.app.commands import status as _status_module  # noqa: F401 - a child may not read it any more
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service import installing, rights
from stowkeeper.app.service.accounts import making, user_of_archive
from stowkeeper.app.service.daemon import Daemon
from stowkeeper.app.service.rights import RightMissingError, again_as, check_may_listen, unreachable_for
from stowkeeper.app.service.systemd import Systemd

NOBODY = 65534
pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can act as another user"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that anybody may look into, and only its owner write."""
    with tempfile.TemporaryDirectory(prefix="service-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(*arguments: str | Path) -> tuple[int, str]:
    """Run a command as a user without rights, in a child; return its exit code and what it said."""
    run(["service", "stop", "--daemon", "--archive", "/nonexistent"])  # imports what the child may not read
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # later versions of Python warn of threads of ours
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            sys.stderr = sys.stdout = open(writing, "w", encoding="utf-8")  # noqa: SIM115 - until the end of the child
            code = run(list(map(str, arguments)))
            sys.stderr.flush()
        except BaseException as error:  # noqa: BLE001 - it must not become a second test run
            code = 99
            os.write(writing, repr(error).encode())
        os._exit(code)
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:
        said = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def test_a_start_in_a_folder_of_another_names_the_owner(place: Path) -> None:
    code, said = as_nobody("service", "start", "--daemon", "--archive", place / "archive")
    assert code == ExitCode.NO_PERMISSION, said
    assert f"may not write in {place}, which belongs to root: run `sudo " in said
    assert f"`sudo install -d -o nobody {place / 'archive'}`" in said
    assert list(place.iterdir()) == []


def test_a_stop_of_the_process_of_another_names_the_owner(place: Path) -> None:
    archive = place / "archive"
    (archive / "run").mkdir(parents=True)
    pid_file = archive / "run" / "stowkeeper.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    pid_file.chmod(0o644)
    holder = os.open(pid_file, os.O_RDWR)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert Daemon(archive).process_id() == os.getpid()
        code, said = as_nobody("service", "stop", "--daemon", "--archive", archive)
    finally:
        os.close(holder)
    assert code == ExitCode.NO_PERMISSION, said
    assert f"process {os.getpid()} belongs to root, and user nobody may not stop it: run `sudo " in said


@pytest.mark.parametrize("verb", ["status", "stop", "restart"])
@pytest.mark.parametrize("shut", ["archive", "archive/run"])
def test_who_may_not_look_into_the_archive_is_told_who_may(place: Path, verb: str, shut: str) -> None:
    archive = place / "archive"
    (archive / "run").mkdir(parents=True)
    (archive / "run" / "stowkeeper.pid").write_text("1\n")
    (place / shut).chmod(0o700)
    code, said = as_nobody("service", verb, "--daemon", "--archive", archive)
    assert code == ExitCode.NO_PERMISSION, said
    words = f"only root may see whether a server of {archive} runs, and this is user nobody: run `sudo "
    assert words in said


def test_a_pid_file_cannot_make_root_stop_what_is_not_its_owners(place: Path) -> None:
    (place / "run").mkdir()
    pid_file = place / "run" / "stowkeeper.pid"
    with subprocess.Popen(["sleep", "60"]) as other, pid_file.open("w") as holder:
        holder.write(f"{other.pid}\n")
        holder.flush()
        os.chown(pid_file, NOBODY, NOBODY)
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(CommandError, match=f"names process {other.pid} of root, which is left alone"):
            Daemon(place).stop(1.0)
        assert other.poll() is None
        other.kill()


def test_a_log_of_another_names_the_owner(place: Path) -> None:
    folder = place / "archive" / "log"
    folder.mkdir(parents=True)
    (folder / "stowkeeper.log").write_text("secret\n")
    (folder / "stowkeeper.log").chmod(0o600)
    code, said = as_nobody("service", "logs", "--daemon", "--archive", place / "archive")
    assert code == ExitCode.NO_PERMISSION, said
    assert f"may not read {folder / 'stowkeeper.log'}: run `sudo " in said
    assert "secret" not in said


def test_installing_takes_root(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        service_module, "_manager", lambda *, of_user: Systemd(of_user=of_user, units=place / "units")
    )
    code, said = as_nobody("service", "install", "--archive", place / "archive")
    assert code == ExitCode.NO_PERMISSION, said
    assert (
        "Installing a service takes the right to administrate this machine (root), and this is user nobody"
        in said
    )
    assert "--user-unit" in said
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_what_systemd_refuses_is_a_missing_right(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = place / "systemctl"
    systemctl.write_text(
        "#!/bin/sh\necho 'Failed to start stowkeeper.service: Interactive authentication required.' >&2\nexit 4\n"
    )
    systemctl.chmod(0o755)
    (place / "stowkeeper.service").write_text("")
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setattr(service_module, "_manager", lambda *, of_user: Systemd(of_user=of_user, units=place))
    for verb in ("start", "stop", "restart"):
        code, said = as_nobody("service", verb)
        assert code == ExitCode.NO_PERMISSION, said
        assert f"systemd lets user nobody not {verb} stowkeeper.service" in said
        assert "`sudo " in said


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["status"], "as the user who owns the archive"),
        (["service", "status", "--daemon"], "only root may see whether a server of"),
    ],
)
def test_who_may_not_look_into_the_archive_is_told_so(place: Path, command: list[str], words: str) -> None:
    archive = place / "archive"
    (archive / "run").mkdir(parents=True)
    (archive / "objects").mkdir()
    (archive / "run").chmod(0o700)
    code, said = as_nobody(*command, "--archive", archive)
    assert code == ExitCode.NO_PERMISSION, said
    assert str(archive) in said
    assert words in said


def test_a_low_port_takes_a_privilege(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "start"
    limit.write_text("1024\n")
    monkeypatch.setattr(rights, "_UNPRIVILEGED_PORTS", str(limit))
    low = {"dicom": ("0.0.0.0", 104)}
    check_may_listen(low)  # as root
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    monkeypatch.setattr(rights, "_has_capability", lambda _bit: False)
    with pytest.raises(RightMissingError, match=r"port 104 .* CAP_NET_BIND_SERVICE") as refused:
        check_may_listen(low)
    assert refused.value.exit_code is ExitCode.NO_PERMISSION
    check_may_listen({"dicom": ("0.0.0.0", 11112), "http": ("127.0.0.1", 0)})
    limit.write_text("104\n")
    check_may_listen(low)


def test_a_server_says_so_and_keeps_its_hands_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit, archive = tmp_path / "start", tmp_path / "archive"
    limit.write_text("1024\n")
    monkeypatch.setattr(rights, "_UNPRIVILEGED_PORTS", str(limit))
    monkeypatch.setattr(rights, "_has_capability", lambda _bit: False)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert run(["serve", "--archive", str(archive), "--port", "104"]) == ExitCode.NO_PERMISSION
    assert "port 104 (dicom.port) is below 1024 and takes the privilege" in capsys.readouterr().err
    assert not archive.exists()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="capabilities are Linux's own")
def test_capabilities_are_read_from_the_system() -> None:
    assert rights._has_capability(1 << 0)  # CAP_CHOWN, which root has in containers too
    assert not rights._has_capability(1 << 62)


@pytest.mark.parametrize("command", [["start", "--daemon"], ["logs", "--daemon"], ["install"]])
def test_settings_of_another_that_cannot_be_read_are_a_missing_right(place: Path, command: list[str]) -> None:
    (place / "stowkeeper.toml").touch(mode=0o600)
    (place / "run").mkdir()
    code, said = as_nobody("service", *command, "--archive", place)
    assert code == ExitCode.NO_PERMISSION
    assert (
        f"may not read the settings in {place / 'stowkeeper.toml'}, which belongs to root: run `sudo " in said
    )


def test_what_a_user_cannot_reach_is_named(place: Path) -> None:
    shut = place / "shut"
    shut.mkdir(mode=0o700)
    file = shut / "python"
    file.write_text("")
    secret = place / "key.pem"
    secret.write_text("")
    secret.chmod(0o640)
    found = list(unreachable_for(NOBODY, [NOBODY], [file, secret, place], "nobody"))
    assert found == [f"user nobody may not enter {shut}", f"user nobody may not read {secret}"]
    os.chown(secret, 0, NOBODY)
    assert list(unreachable_for(NOBODY, [NOBODY], [secret], "nobody")) == []


def test_an_archive_of_another_is_not_taken_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "_check_runs_alone", lambda: None)
    archive = place / "archive"
    archive.mkdir()
    wish = installing.Wish(archive=archive, config=None, user="nobody")
    plan = installing.plan_for(wish)
    with pytest.raises(RightMissingError, match=f"sudo chown -R nobody: {archive}"):
        installing.install_units(Systemd(units=place / "units"), plan, {})
    assert not (place / "units").exists()
    os.chown(archive, NOBODY, NOBODY)
    assert user_of_archive(archive, "stowkeeper") == "nobody"


def test_the_way_to_the_right_is_a_command_line() -> None:
    assert again_as("root").startswith("sudo ")
    assert again_as("anna").startswith("sudo -u anna ")
    assert making("stowkeeper", Path("/srv/a b"))[0] == "useradd"
