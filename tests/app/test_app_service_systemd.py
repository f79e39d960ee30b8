"""What is asked of systemd, in which order: by a `systemctl` that writes down its words, since no systemd runs in a test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.app.commands import service as service_module
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.systemd import Systemd
from support.command_line import CommandLine

VERSION = 255


class Recorder:
    """A `systemctl` and a `journalctl` in front of the search path."""

    def __init__(self, folder: Path) -> None:
        self._said = folder / "said"
        self._said.touch()
        self.units = folder / "units"
        for name, body in (
            (
                "systemctl",
                f"""[ "$1" = --version ] && echo "systemd {VERSION} (test)" && exit
[ "$2" = show ] && cat "{folder}/properties" && exit
[ ! -e "{folder}/broken" ]""",
            ),
            ("journalctl", 'echo "Error: the settings are wrong"'),
        ):
            path = folder / name
            path.write_text(
                f'#!/bin/sh\necho "{name} $*" >> "{self._said}"\n{body} || {{ echo "Job failed." >&2; exit 1; }}\n'
            )
            path.chmod(0o755)
        self._folder = folder

    def said(self) -> list[str]:
        """Return what was asked since the last time."""
        lines = self._said.read_text().splitlines()
        self._said.write_text("")
        return [line.replace("--system --no-ask-password ", "") for line in lines if "--version" not in line]

    def shows(self, **properties: str) -> None:
        """Let systemctl show properties of the service."""
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        (self._folder / "properties").write_text(text)

    def break_down(self) -> None:
        (self._folder / "broken").touch()


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    made = Recorder(folder)
    monkeypatch.setattr(
        service_module, "_manager", lambda *, of_user: Systemd(of_user=of_user, units=made.units)
    )
    return made


UNITS = {
    "stowkeeper.service": "[Unit]\n",
    "stowkeeper.socket": "[Socket]\n",
    "stowkeeper-http.socket": "[Socket]\n",
}


def test_units_are_written_and_old_sockets_go(recorder: Recorder) -> None:
    systemd = Systemd(units=recorder.units)
    systemd.install(UNITS)
    assert recorder.said() == [
        "systemctl daemon-reload",
        "systemctl enable stowkeeper.service stowkeeper.socket stowkeeper-http.socket",
    ]
    assert {path.name: path.read_text() for path in recorder.units.iterdir()} == UNITS
    systemd.install({"stowkeeper.service": "[Unit]\nnew"})
    assert recorder.said() == [
        "systemctl disable --now stowkeeper-http.socket stowkeeper.socket",
        "systemctl daemon-reload",
        "systemctl enable stowkeeper.service",
    ]
    assert os.listdir(recorder.units) == ["stowkeeper.service"]
    systemd.uninstall()
    assert recorder.said() == ["systemctl disable --now stowkeeper.service", "systemctl daemon-reload"]
    assert os.listdir(recorder.units) == []
    with pytest.raises(CommandError, match="no service is installed") as refused:
        systemd.uninstall()
    assert refused.value.exit_code is ExitCode.NO_INPUT


def test_a_stop_stops_the_sockets_and_a_restart_leaves_them(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = CommandLine(tmp_path / "archive", capsys)
    assert line("service stop").code == ExitCode.NO_INPUT
    Systemd(units=recorder.units).install(UNITS)
    recorder.said()
    sockets = "stowkeeper-http.socket stowkeeper.socket"
    for verb, wanted in (("stop", f"{sockets} "), ("restart", "")):
        assert line(f"service {verb}").code == ExitCode.OK
        assert recorder.said() == [f"systemctl {verb} {wanted}stowkeeper.service"]
    assert service_module.start.main([], standalone_mode=False) == ExitCode.OK
    assert recorder.said() == [f"systemctl start {sockets} stowkeeper.service"]
    refused = line("service start", "--port", "0")
    assert (refused.code, recorder.said()) == (ExitCode.USAGE, [])
    assert "--daemon" in refused.err


def test_a_start_that_fails_shows_what_the_server_said(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Systemd(units=recorder.units).install(UNITS)
    recorder.break_down()
    failed = CommandLine(tmp_path / "archive", capsys)("service restart")
    assert failed.code == ExitCode.UNAVAILABLE
    assert "Job failed.\nThe last it said:\nError: the settings are wrong\n" in failed.err


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can install for the system"
)
def test_an_installation_makes_the_folders_for_the_user(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The program that runs the tests may be where no other user gets to.
    monkeypatch.setattr(service_module.installing, "_check_runs_alone", lambda: None)
    monkeypatch.setattr(service_module.installing, "unreachable_for", lambda *_: ())
    archive = tmp_path / "some" / "archive"
    line = CommandLine(archive, capsys)
    ended = line("service install", "--user", "nobody")
    assert ended.code == ExitCode.OK, ended.err
    status = archive.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (65534, 0o750)
    text = (recorder.units / "stowkeeper.service").read_text()
    assert "\nType=notify-reload\n" in text
    assert "\nUser=nobody\n" in text
    assert Systemd(units=recorder.units).archive() == archive
    assert "sudo stowkeeper service start" in ended.out


@pytest.mark.parametrize(("console", "wanted"), [("true", "of the journal"), ("false", "of the file")])
def test_the_log_is_where_the_settings_have_it(
    recorder: Recorder,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    console: str,
    wanted: str,
) -> None:
    def journal(_self: Systemd, *, lines: int, follow: bool) -> None:
        raise CommandError(f"the last {lines} of the journal", ExitCode.OK)  # in place of becoming journalctl

    monkeypatch.setattr(Systemd, "show_journal", journal)
    archive = tmp_path / "archive"
    (archive / "log").mkdir(parents=True)
    (archive / "log" / "stowkeeper.log").write_text("the last of the file\n")
    (archive / "stowkeeper.toml").write_text(f"[log]\nconsole = {console}\n")
    unit = f'ExecStart="/opt/python" "serve" "--archive" "{archive}"\n'
    Systemd(units=recorder.units).install({"stowkeeper.service": unit})
    ended = CommandLine(archive, capfd)("service logs")
    assert wanted in ended.out + ended.err


def test_a_user_unit_is_for_the_manager_of_the_user(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    ended = CommandLine(archive, capsys)("service install", "--user-unit")
    assert ended.code == ExitCode.OK, ended.err
    assert archive.is_dir()
    assert recorder.said()[-1] == "systemctl --user --no-ask-password enable stowkeeper.service"
    assert "loginctl enable-linger" in ended.out
