"""`stowkeeper config`: what is in force, and changes that are checked before they are written."""

import io
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.app.commands import run, settings_effect
from stowkeeper.app.commands.check_config import check_config
from stowkeeper.app.commands.config import config
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.setting_sources import all_settings
from stowkeeper.archive.folder import foreign_names
from support.server_process import ServerProcess, serve_process

SITE = """# Site settings
[dicom]
port = 11112   # the usual one

[[peers]]
name = "CT 1.a"
ae_title = "CT1"
"""


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STOWKEEPER_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "site.toml"
    path.write_text(SITE, encoding="utf-8")
    return path


class Config:
    """Runs `stowkeeper config` on the file."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, command: str, *arguments: str) -> ExitCode:
        code = run(["config", command, "--config", "site.toml", *arguments])
        self.out, self.err = self._capsys.readouterr()
        return ExitCode(code)


@pytest.fixture
def tried(capsys: pytest.CaptureFixture[str]) -> Config:
    return Config(capsys)


# Looking.


def test_show_says_what_check_config_says(tried: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert tried("show", "--port", "104") == ExitCode.OK
    run(["check-config", "--config", "site.toml", "--port", "104"])
    assert tried.out == capsys.readouterr().out
    shown = {parameter.name for parameter in config.commands["show"].params}
    assert shown == {parameter.name for parameter in check_config.params}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("dicom.port", "11112", 11112),
        ("dicom.ae_title", "STOWKEEPER", "STOWKEEPER"),
        ("sync", "true", True),
        ("storage.reserve_size", None, "64 MB"),
        ("access.calling_ae_titles", "[]", []),
        ("peers.CT 1.a.ae_title", "CT1", "CT1"),
        ("peers.CT 1.a.may_store", "true", True),
        ("peers.CT 1.a.host", "", None),
        ("peers", '[[peers]]\nname = "CT 1.a"\nae_title = "CT1"', [{"name": "CT 1.a", "ae_title": "CT1"}]),
    ],
)
def test_get_prints_one_value(tried: Config, key: str, text: str | None, value: object) -> None:
    assert tried("get", key) == ExitCode.OK
    if text is not None:
        assert tried.out.strip() == text
    assert tried("get", key, "--json") == ExitCode.OK
    if text is not None:
        assert json.loads(tried.out) == value


@pytest.mark.parametrize("command", ["get", "set", "unset"])
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("dicom.prot", "did you mean dicom.port?"),
        ("prot", "there is no such setting"),
        ("dcom.port", "did you mean dicom.port?"),
        ("peers.CT 1.a.ae_titel", "did you mean ae_title?"),
        ("storage", "storage is a table, and one value is asked for"),
        ("peers.CT 2.host", 'no [[peers]] with the name "CT 2"'),
    ],
)
def test_a_key_that_does_not_exist_is_told_with_a_guess(
    tried: Config, site: Path, command: str, key: str, words: str
) -> None:
    assert tried(command, key, *(["1"] if command == "set" else [])) == ExitCode.USAGE
    assert words in tried.err
    assert site.read_text() == SITE


# Setting.


def test_set_changes_the_file_and_says_what_it_did(tried: Config, site: Path) -> None:
    assert (
        tried("set", "dicom.port", "104", "dicom.idle_seconds", "60", "peers.CT 1.a.duplicates", "keep") == 0
    )
    assert (
        site.read_text()
        == SITE.replace("11112", "104").replace("the usual one\n", "the usual one\nidle_seconds = 60\n")
        + 'duplicates = "keep"\n'
    )
    assert tried.out.splitlines() == [
        "dicom.port = 104",
        "dicom.idle_seconds = 60",
        'peers.CT 1.a.duplicates = "keep"',
        f"Written to {site}; the version before is {site}.1.",
        f"No server runs on {site.parent}/archive: the next start takes it.",
    ]
    assert Path(f"{site}.1").read_text() == SITE
    assert tried("unset", "dicom.idle_seconds", "peers.CT 1.a.duplicates") == ExitCode.OK
    assert tried.out.startswith("dicom.idle_seconds = 600, the default\n")
    assert site.read_text() == SITE.replace("11112", "104")
    assert tried("unset", "dicom.idle_seconds") == ExitCode.OK
    assert "nothing was written" in tried.out
    assert not Path(f"{site}.3").exists()


@pytest.mark.parametrize(
    ("key", "text", "written"),
    [
        ("sync", "no", "sync = false"),
        ("storage.reserve_size", "2 GB", 'reserve_size = "2 GB"'),
        ("storage.reserve_size", "1000", "reserve_size = 1000"),
        ("dicom.idle_seconds", "0.5", "idle_seconds = 0.5"),
        ("access.addresses", "10.0.0.0/8,fd00::/8", 'addresses = ["10.0.0.0/8", "fd00::/8"]'),
        ("access.addresses", '["10.0.0.1"]', 'addresses = ["10.0.0.1"]'),
        ("access.addresses", "", "addresses = []"),
        ("negotiation.transfer_syntaxes", "all", 'transfer_syntaxes = "all"'),
        ("log.directory", "logs", f'directory = "{"{folder}"}/logs"'),
    ],
)
def test_a_value_is_typed_by_its_setting(
    tried: Config, site: Path, key: str, text: str, written: str
) -> None:
    assert tried("set", key, text) == ExitCode.OK, tried.err
    assert written.replace("{folder}", str(site.parent)) in site.read_text().splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["dicom.port", "x"],
            '"x" is not allowed; allowed: a whole number from 0 to 65535 (line 3, column 1)',
        ),
        (["tls.peer_certificate", "sometimes"], '"sometimes" is not allowed; allowed:'),
        (
            ["tls.certificate", "none.pem", "tls.key", "none.pem", "tls.peer_certificate", "ignore"],
            "none.pem",
        ),
        (["negotiation.choice", "preference"], "it needs at least one entry in negotiation.preference"),
        (["peers.CT 1.a.port", "104"], "port is of no use without host (line 5, column 3)"),
    ],
)
def test_what_cannot_be_used_is_told_and_not_written(
    tried: Config, site: Path, arguments: list[str], words: str
) -> None:
    assert tried("set", *arguments) == ExitCode.SETTINGS
    assert words in tried.err
    assert [file.name for file in site.parent.iterdir()] == ["site.toml"]
    assert site.read_text() == SITE


@pytest.mark.parametrize(
    ("key", "words"), [("peers", "stowkeeper peers add"), ("profiles", "stowkeeper config edit")]
)
def test_lists_of_tables_are_for_other_commands(tried: Config, site: Path, key: str, words: str) -> None:
    for arguments in (["set", key, "[]"], ["unset", key]):
        assert tried(*arguments) == ExitCode.USAGE
        assert words in tried.err
    assert site.read_text() == SITE


def test_a_value_without_a_key_is_a_mistake(tried: Config) -> None:
    assert tried("set", "dicom.port") == ExitCode.USAGE
    assert "dicom.port has no value" in tried.err


def test_a_variable_that_overrules_the_file_is_told(tried: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOWKEEPER_DICOM__PORT", "4242")
    assert tried("set", "dicom.port", "104") == ExitCode.OK
    assert "environment STOWKEEPER_DICOM__PORT overrules the file" in tried.err


def test_without_a_file_one_is_made_in_the_archive(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["config", "set", "--archive", "none", "dicom.port", "104"]) == ExitCode.NO_INPUT
    (tmp_path / "kept").mkdir()
    assert run(["config", "set", "--archive", "kept", "dicom.port", "104"]) == ExitCode.OK
    file = tmp_path / "kept" / "stowkeeper.toml"
    assert file.read_text() == "[dicom]\nport = 104\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert run(["config", "set", "--archive", "kept", "archive", "elsewhere"]) == ExitCode.SETTINGS
    assert "cannot name one: use --config" in capsys.readouterr().err


def test_without_the_right_to_write_it_says_whose_it_is(
    tried: Config, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: object, *more: int, **others: object) -> int:
        if str(path).endswith(f".{str(path).rpartition('.')[2]}") and "/.site.toml." in str(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *more, **others)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(os, "open", refuse)
    assert tried("set", "dicom.port", "104") == ExitCode.NO_PERMISSION
    assert f"{site.parent}: user " in tried.err
    assert "may not write into this folder" in tried.err
    assert site.read_text() == SITE


def test_bytes_that_are_no_text_are_no_value(tried: Config, site: Path) -> None:
    assert tried("set", "log.directory", "/srv/\udcff") == ExitCode.USAGE
    assert tried.err == "Error: log.directory: the value has bytes that are no UTF-8.\n"
    assert site.read_text() == SITE


def test_links_in_a_circle_are_told(tried: Config, site: Path) -> None:
    site.unlink()
    site.symlink_to(site)
    assert tried("set", "dicom.port", "104") == ExitCode.IO_ERROR
    assert f"{site}: Too many levels of symbolic links" in tried.err
    assert site.is_symlink()


# Editing.


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder with what the editor is to make of its file, one text for each round: 1, 2, …"""
    rounds = tmp_path / "rounds"
    rounds.mkdir()
    script = rounds / "editor.py"
    script.write_text(
        "import pathlib, shutil, sys\n"
        "rounds = pathlib.Path(__file__).parent\n"
        "number = len(list(rounds.glob('seen*'))) + 1\n"
        "shutil.copy(sys.argv[1], rounds / f'seen{number}')\n"
        "new = rounds / str(number)\n"
        "if new.exists(): shutil.copyfile(new, sys.argv[1])\n"
    )
    monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "drafts"))
    (tmp_path / "drafts").mkdir()
    return rounds


class Terminal(io.StringIO):
    """Standard input with somebody at it."""

    def isatty(self) -> bool:
        return True


def answers(monkeypatch: pytest.MonkeyPatch, *given: bool) -> None:
    left = list(given)
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("click.confirm", lambda *_, **__: left.pop(0))


@pytest.mark.slow
def test_edit_offers_again_until_it_is_good(
    tried: Config, site: Path, editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (editor / "1").write_text(SITE.replace("11112", "11x12"))
    (editor / "2").write_text(SITE.replace("11112", "99999"))
    (editor / "3").write_text(SITE.replace("11112", "105"))
    answers(monkeypatch, True, True)
    assert tried("edit") == ExitCode.OK
    assert "not TOML" in tried.err
    assert "99999 is not allowed; allowed: a whole number from 0 to 65535 (line 3, column 1)" in tried.err
    assert (editor / "seen3").read_text() == (editor / "2").read_text()
    assert site.read_text() == SITE.replace("11112", "105")
    assert Path(f"{site}.1").read_text() == SITE
    assert not list((site.parent / "drafts").iterdir())


def test_where_nobody_can_answer_nothing_is_asked_and_the_draft_is_kept(
    tried: Config, site: Path, editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (editor / "1").write_text("[dicom]\nprot = 1\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert tried("edit") == ExitCode.SETTINGS
    assert "Edit again" not in tried.out + tried.err
    assert "Your draft is " in tried.err
    assert [path.name for path in editor.glob("seen*")] == ["seen1"]
    assert site.read_text() == SITE


def test_who_gives_up_keeps_the_draft(
    tried: Config, site: Path, editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (editor / "1").write_text("[dicom]\nprot = 1\n")
    answers(monkeypatch, False)
    assert tried("edit") == ExitCode.SETTINGS
    found = re.search(r"Your draft is (\S+)\.$", tried.err.strip())
    assert found is not None
    assert Path(found[1]).read_text() == "[dicom]\nprot = 1\n"
    assert stat.S_IMODE(Path(found[1]).stat().st_mode) == 0o600
    assert site.read_text() == SITE


def test_who_may_not_write_is_told_before_the_editor_opens(
    tried: Config, site: Path, editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access

    def refuse(path: object, mode: int, **more: bool) -> bool:
        return not (str(path) == str(site.parent) and mode & os.W_OK) and real(path, mode, **more)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(os, "access", refuse)
    monkeypatch.setattr(os, "supports_effective_ids", {refuse})
    assert tried("edit") == ExitCode.NO_PERMISSION
    assert "may not write into this folder" in tried.err
    assert not list(editor.glob("seen*"))


def test_edit_without_a_change_writes_nothing(tried: Config, site: Path, editor: Path) -> None:
    assert tried("edit") == ExitCode.OK
    assert tried.out == "Nothing was changed.\n"
    assert not Path(f"{site}.1").exists()
    assert not list((site.parent / "drafts").iterdir())


@pytest.mark.slow
def test_edit_does_not_overwrite_what_another_wrote_meanwhile(
    tried: Config, site: Path, editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (editor / "1").write_text(SITE.replace("11112", "99999"))
    (editor / "2").write_text(SITE.replace("11112", "105"))

    def confirm(*_: object, **__: object) -> bool:
        site.write_text("# by hand\n")
        return True

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("click.confirm", confirm)
    assert tried("edit") == ExitCode.TRY_AGAIN
    assert "somebody else has changed it meanwhile" in tried.err
    assert "Your draft is " in tried.err
    assert site.read_text() == "# by hand\n"


@pytest.mark.parametrize(
    ("words", "code"), [("false", ExitCode.IO_ERROR), ("no-such-editor -x", ExitCode.NO_INPUT)]
)
def test_an_editor_that_fails_is_named(
    tried: Config, site: Path, editor: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: ExitCode
) -> None:
    monkeypatch.setenv("VISUAL", words)
    assert tried("edit") == code
    assert words.partition(" ")[0] in tried.err
    assert site.read_text() == SITE


# When it takes effect.


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("0::/system.slice/stowkeeper.service\n", ("stowkeeper.service", False)),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/stowkeeper.service\n",
            ("stowkeeper.service", True),
        ),
        ("0::/system.slice/cron.service\n", None),
        ("0::/user.slice/user-0.slice/session-1.scope\n", None),
        ("0::/\n", None),
    ],
)
def test_the_unit_of_a_server_is_found(
    monkeypatch: pytest.MonkeyPatch, group: str, said: tuple[str, bool] | None
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: group)
    assert settings_effect._unit_of(1) == said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serve_process(tmp_path_factory.mktemp("served"), settings="# ours\n") as running:
        yield running


@pytest.mark.slow
def test_a_running_server_is_told_what_to_do_and_keeps_the_old_when_the_new_is_broken(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    file = server.archive.parent / "stowkeeper.toml"
    pid = server.program.pid

    def change(*arguments: str) -> str:
        assert (
            run(["config", *arguments, "--config", str(file), "--archive", str(server.archive)])
            == ExitCode.OK
        )
        return capsys.readouterr().out

    assert f"It takes effect at a reload, which keeps every association: `kill -HUP {pid}`." in change(
        "set", "log.level", "debug"
    )
    server.signal(signal.SIGHUP)
    server.wait_for_log("settings read anew")
    out = change("set", "log.level", "info", "dicom.idle_seconds", "60")
    assert "It takes effect at a restart, since dicom.idle_seconds waits for it: end process" in out
    assert f"`kill {pid}`" in out

    file.write_text("[log]\nlevel = 'loud'\n", encoding="utf-8")
    server.signal(signal.SIGHUP)
    server.wait_for_log("the settings were not read anew, the old ones stay")
    assert "(line 2, column 1)" in server.log_text()
    assert server.program.process.poll() is None


def test_every_setting_can_be_set_to_what_it_is(tried: Config, site: Path) -> None:
    from stowkeeper.app.commands.config import _target, _typed
    from stowkeeper.app.setting_fields import toml_text

    for key, setting in all_settings().items():
        if setting.shape != "tables":
            plain = setting.plain(setting.default)
            text = json.dumps(plain) if isinstance(plain, list) else str(plain)
            if setting.shape not in {"path", "paths"}:
                assert toml_text(_typed(_target(key), text)) == toml_text(plain), key


def test_what_a_change_leaves_in_a_new_archive_is_not_foreign_to_it() -> None:
    assert foreign_names(["stowkeeper.toml", "stowkeeper.toml.1", ".stowkeeper.toml.0123abcd"]) == []
