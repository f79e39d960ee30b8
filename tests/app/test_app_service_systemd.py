"""What is asked of systemd, in which order: by a `systemctl` that writes down its words, since no systemd runs in a test."""

import os
import re
import time
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
        asked = [line for line in lines if "--version" not in line and " show " not in line]
        return [line.replace("--system --no-ask-password ", "") for line in asked]

    def shows(self, **properties: str) -> None:
        """Let systemctl show properties of the service."""
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        (self._folder / "properties").write_text(text)

    def hint(self, words: str) -> None:
        """Let journalctl show nothing but a hint, as to who may not read what was asked for."""
        (self._folder / "journalctl").write_text(f'#!/bin/sh\necho "{words}" >&2\n')

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
    assert not systemd.install({"stowkeeper.service": "[Unit]\nnew"})
    assert recorder.said() == [
        "systemctl stop stowkeeper-http.socket stowkeeper.socket stowkeeper.service",
        "systemctl disable stowkeeper-http.socket stowkeeper.socket",
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


def test_sockets_that_change_below_a_running_server_are_opened_anew(recorder: Recorder) -> None:
    """systemd closes a socket whose address changes, and the next start of the service would be without it."""
    systemd = Systemd(units=recorder.units)
    systemd.install(UNITS)
    recorder.shows(ActiveState="active")
    recorder.said()
    written = ["systemctl daemon-reload", f"systemctl enable {' '.join(UNITS)}"]
    assert not systemd.install({**UNITS, "stowkeeper.service": "[Unit]\nnew"})
    assert recorder.said() == written
    assert systemd.install({**UNITS, "stowkeeper.socket": "[Socket]\nnew"})
    assert recorder.said() == [
        "systemctl stop stowkeeper.socket stowkeeper.service",
        *written,
        "systemctl reset-failed stowkeeper.service",
        "systemctl start stowkeeper-http.socket stowkeeper.socket stowkeeper.service",
    ]


def test_a_stop_stops_the_sockets_and_a_restart_leaves_them(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = CommandLine(tmp_path / "archive", capsys)
    assert line("service stop").code == ExitCode.NO_INPUT
    Systemd(units=recorder.units).install(UNITS)
    recorder.said()
    sockets = "stowkeeper-http.socket stowkeeper.socket"
    # Starts that somebody asks for do not count towards the limit of those that systemd does by itself.
    forget = "systemctl reset-failed stowkeeper.service"
    for verb, before, wanted in (("stop", [], f"{sockets} "), ("restart", [forget], "")):
        assert line(f"service {verb}").code == ExitCode.OK
        assert recorder.said() == [*before, f"systemctl {verb} {wanted}stowkeeper.service"]
    assert service_module.start.main([], standalone_mode=False) == ExitCode.OK
    assert recorder.said() == [forget, f"systemctl start {sockets} stowkeeper.service"]
    refused = line("service start", "--port", "0")
    assert (refused.code, recorder.said()) == (ExitCode.USAGE, [])
    assert "--daemon" in refused.err


def test_a_start_that_fails_shows_what_the_server_said(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Systemd(units=recorder.units).install(UNITS)
    recorder.break_down()
    begun = int(time.time())
    recorder.said()
    failed = CommandLine(tmp_path / "archive", capsys)("service restart")
    assert failed.code == ExitCode.UNAVAILABLE
    assert "Job failed.\nThe last it said:\nError: the settings are wrong\n" in failed.err
    since = re.search(r"--since=@(\d+) ", recorder.said()[-1])
    assert since is not None, "words of the server before would hide those of this one"
    assert begun <= int(since[1]) <= time.time()


def test_a_state_is_told_with_its_own_time_and_without_words_of_before(recorder: Recorder) -> None:
    known = {
        "LoadState": "loaded",
        "UnitFileState": "enabled",
        "NRestarts": "0",
        "StateChangeTimestamp": "Monday",
    }
    systemd = Systemd(units=recorder.units)
    recorder.shows(**known, ActiveState="active", SubState="running", StatusText="Receiving")
    assert list(service_module._systemd_lines(systemd)) == [
        "systemd: active (running) since Monday, enabled, restarts: 0.",
        "         Receiving.",
    ]
    recorder.shows(
        **known, ActiveState="inactive", SubState="dead", StatusText="Stopping: 1 association to end"
    )
    assert list(service_module._systemd_lines(systemd)) == [
        "systemd: inactive (dead) since Monday, enabled, restarts: 0."
    ]


@pytest.mark.parametrize(
    "hint",
    [
        "Hint: You are currently not seeing messages from other users and the system.",
        "No journal files were opened due to insufficient permissions.",
    ],
)
def test_who_may_not_read_the_journal_is_told_so(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, hint: str
) -> None:
    recorder.hint(hint)
    monkeypatch.setattr(os, "execvp", lambda *words: pytest.fail(f"became {words}"))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(CommandError, match="the group systemd-journal") as refused:
        Systemd(units=recorder.units).show_journal(lines=1, follow=False)
    assert refused.value.exit_code is ExitCode.NO_PERMISSION


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
    assert re.search(r"Start it now: sudo .* service start\n", ended.out)
    recorder.shows(ActiveState="active")
    assert re.search(r"start it anew: sudo .* service restart\n", line("service install").out)


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
