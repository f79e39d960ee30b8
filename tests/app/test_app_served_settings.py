"""Commands that are told the archive alone go by the settings file that the running server was started with."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowkeeper.app.commands import run
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.running import RunningServer, RunRecord, digest_of_value, running_servers
from stowkeeper.app.setting_sources import all_settings
from stowkeeper.app.settings import load_settings
from stowkeeper.app.wiring import archive_options
from stowkeeper.archive.archive import Archive
from support.server_process import serve_process

RULES = """
[dicom]
port = 21112
[storage]
reserve_size = 0
slot_pool_size = 4
refuse_instance_below = "900 TB"
refuse_association_below = "900 TB"
"""
SMALL = "[storage]\nreserve_size = 0\nslot_pool_size = 4\n"

Make = Callable[..., RunRecord]


class Commands:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> ExitCode:
        code = run(list(arguments))
        self.out, self.err = self._capsys.readouterr()
        return ExitCode(code)


@pytest.fixture
def tried(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STOWKEEPER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(SMALL + "[dicom]\nport = 21112\n", encoding="utf-8")
    return path


@pytest.fixture
def archive(tmp_path: Path, site: Path) -> str:
    root = tmp_path / "kept"  # not the one that is taken where none is named
    Archive(str(root), archive_options(load_settings(str(site), {}, {}))).close()
    return str(root)


@pytest.fixture
def serving(archive: str) -> Iterator[Make]:
    """Makes the record of a server with a settings file, as if it ran."""
    made: list[RunRecord] = []

    def make(
        file: Path | None,
        *,
        pid: int = os.getpid(),
        flags: tuple[str, ...] = (),
        host_name: str = socket.gethostname(),
    ) -> RunRecord:
        settings = load_settings(None if file is None else str(file), {"archive": archive}, {})
        record = RunRecord(archive)
        record.write(
            RunningServer(
                pid=pid,
                host_name=host_name,
                version="1",
                started_at="2026-03-01T00:00:00.000000Z",
                dicom_host="127.0.0.1",
                dicom_port=21112,
                http_host=None,
                http_port=None,
                ae_title="STOWKEEPER",
                tls=False,
                log_file=None,
                receiver="1-a",
                settings_file=settings.settings_file,
                flags=flags,
                started_with={
                    key: digest_of_value(settings, setting)
                    for key, setting in all_settings().items()
                    if not setting.reloadable
                },
            )
        )
        made.append(record)
        return record

    yield make
    for record in made:
        record.close()


def test_get_tells_what_the_server_reads_and_nothing_is_known_after_its_end(
    tried: Commands, serving: Make, archive: str, site: Path
) -> None:
    record = serving(site, flags=("archive", "http.port"))
    assert tried("config", "get", "dicom.port", "--archive", archive) == ExitCode.OK
    assert tried.out == "21112\n"
    assert (
        tried.err
        == f"settings: {site}, as the running server reads it; its flags outrank the file: http.port\n"
    )
    assert tried("config", "show", "--archive", archive, "--json") == ExitCode.OK
    assert json.loads(tried.out)["file"] == str(site)
    record.close()
    assert tried("config", "get", "dicom.port", "--archive", archive) == ExitCode.OK
    assert (tried.out, tried.err) == ("11112\n", "")


def test_a_file_that_was_named_comes_first(
    tried: Commands, serving: Make, archive: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving(site)
    other = site.with_name("other.toml")
    other.write_text("[dicom]\nport = 104\n", encoding="utf-8")
    assert tried("config", "get", "dicom.port", "--archive", archive, "--config", str(other)) == ExitCode.OK
    assert (tried.out, tried.err) == ("104\n", "")
    monkeypatch.setenv("STOWKEEPER_CONFIG", str(other))
    assert tried("config", "get", "dicom.port", "--archive", archive) == ExitCode.OK
    assert (tried.out, tried.err) == ("104\n", "")


@pytest.mark.slow
def test_status_and_doctor_go_by_the_marks_of_the_server(
    tried: Commands, serving: Make, archive: str, site: Path
) -> None:
    site.write_text(RULES, encoding="utf-8")
    serving(site)
    assert tried("status", "--archive", archive, "--json") == ExitCode.FINDINGS
    assert f"settings: {site}, as the running server reads it" in tried.err
    report = json.loads(tried.out)
    assert "refuse" in json.dumps(report["to_do"])
    assert report["servers"][0]["server"]["settings_file"] == str(site)
    assert "started_with" not in report["servers"][0]["server"]
    assert tried("doctor", "--archive", archive, "--json") == ExitCode.FINDINGS
    assert f"settings: {site}" in tried.err
    assert any(one["level"] != "ok" and one["check"] == "room" for one in json.loads(tried.out)["findings"])


def test_rules_are_those_of_the_server(tried: Commands, serving: Make, archive: str, site: Path) -> None:
    rule = '[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 9\n'
    rule += '[[forwarding_rules]]\nname = "all"\nto = ["pacs"]\n'
    site.write_text(rule, encoding="utf-8")
    serving(site)
    assert tried("rules", "test", "--archive", archive) == ExitCode.OK
    assert "There are no [[forwarding_rules]]" not in tried.err
    assert f"settings: {site}" in tried.err


def test_set_writes_the_file_of_the_server_and_asks_for_no_restart_where_none_is_needed(
    tried: Commands, serving: Make, archive: str, site: Path
) -> None:
    serving(site, flags=("http.port",))
    change = ("config", "set", "--archive", archive)
    assert tried(*change, "dicom.port", "21113") == ExitCode.OK
    assert "port = 21113" in site.read_text(encoding="utf-8")
    assert not Path(archive, "stowkeeper.toml").exists()
    assert f"Written to {site}" in tried.out
    assert "It takes effect at a restart" in tried.out
    assert tried(*change, "dicom.port", "21112") == ExitCode.OK
    assert f"Process {os.getpid()} was started with that value: nothing is to be done." in tried.out
    assert "restart" not in tried.out
    assert tried(*change, "dicom.port", "21112", "log.level", "debug") == ExitCode.OK
    assert "It takes effect at a reload" in tried.out
    assert tried(*change, "http.port", "8081") == ExitCode.OK
    assert "outranks the file for http.port" in tried.out
    assert "It takes effect" not in tried.out


def test_of_several_servers_with_different_files_one_has_to_be_named(
    tried: Commands, serving: Make, archive: str, site: Path
) -> None:
    serving(site)
    serving(None, pid=1)
    assert tried("config", "set", "--archive", archive, "dicom.port", "104") == ExitCode.USAGE
    assert f"process {os.getpid()} reads {site}" in tried.err
    assert f"process 1 reads {archive}/stowkeeper.toml" in tried.err
    assert "--config" in tried.err
    assert tried("status", "--archive", archive) in {ExitCode.OK, ExitCode.FINDINGS}
    assert "2 servers run" in tried.out
    assert "with different settings files" in tried.err


def test_a_server_elsewhere_has_files_of_its_own(
    tried: Commands, serving: Make, archive: str, site: Path
) -> None:
    serving(site, host_name="elsewhere")
    assert tried("config", "get", "dicom.port", "--archive", archive) == ExitCode.OK
    assert (tried.out, tried.err) == ("11112\n", "")


def test_a_record_of_a_version_that_did_not_say_leads_nowhere(
    tried: Commands, serving: Make, archive: str, site: Path
) -> None:
    record = serving(site)
    said = json.loads(Path(record.path).read_bytes())
    for name in ("settings_file", "flags", "variables", "started_with"):
        del said[name]
    Path(record.path).write_text(json.dumps(said), encoding="utf-8")
    (found,) = running_servers(archive)
    assert found.settings_file is None
    assert tried("config", "get", "dicom.port", "--archive", archive) == ExitCode.OK
    assert (tried.out, tried.err) == ("11112\n", "")


@pytest.mark.slow
def test_a_real_server_leaves_the_names_and_no_values(tried: Commands, tmp_path: Path) -> None:
    settings = '[dicom]\nae_title = "REALLY"\n[tracing]\nendpoint = "http://127.0.0.1:9/secret-part"\n'
    with serve_process(tmp_path, settings=settings) as server:
        (found,) = running_servers(server.archive)
        assert found.settings_file == str(tmp_path / "stowkeeper.toml")
        assert "dicom.port" in found.flags
        assert "storage.slot_pool_size" in found.variables
        (record,) = (server.archive / "run").glob("*.json")
        assert "secret-part" not in record.read_text(encoding="utf-8")
        assert tried("config", "get", "dicom.ae_title", "--archive", str(server.archive)) == ExitCode.OK
        assert tried.out == "REALLY\n"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[dicom]\n[dicom]\n", "declare dicom twice"),
        ("[a.b]\n[a.b]\n", "declare a.b twice"),
    ],
)
def test_a_key_in_a_broken_file_is_told_as_it_stands_there(
    tried: Commands, site: Path, text: str, key: str
) -> None:
    site.write_text(text, encoding="utf-8")
    assert tried("config", "show", "--config", str(site)) == ExitCode.SETTINGS
    assert key in tried.err
    assert "('" not in tried.err


def test_service_commands_find_the_archive_by_the_settings_file(
    tried: Commands, archive: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by the option or the variable, as `service start` takes it."""
    site.write_text(f'archive = "{archive}"\n[log]\ndirectory = "named"\n', encoding="utf-8")
    assert tried("service", "stop", "--daemon", "--config", str(site)) == ExitCode.OK
    assert tried.out == f"No server runs detached on {archive}.\n"
    assert tried("service", "status", "--daemon", "--config", str(site)) == ExitCode.UNAVAILABLE
    assert f"No server runs on {archive}" in tried.out
    assert tried("service", "logs", "--daemon", "--config", str(site)) == ExitCode.NO_INPUT
    assert f"there is no log file {site.parent}/named/" in tried.err
    monkeypatch.setenv("STOWKEEPER_CONFIG", str(site))
    assert tried("service", "stop", "--daemon") == ExitCode.OK
    assert tried.out == f"No server runs detached on {archive}.\n"


@pytest.mark.slow
def test_a_detached_server_is_stopped_by_the_file_it_was_started_with(
    tried: Commands, archive: str, site: Path
) -> None:
    site.write_text(
        f'archive = "{archive}"\n{SMALL}[dicom]\nport = 0\n[http]\nport = "off"\n', encoding="utf-8"
    )
    named = ("--daemon", "--config", "site.toml")
    assert tried("service", "start", *named) == ExitCode.OK, tried.err
    try:
        (first,) = running_servers(archive)
        assert first.settings_file == str(site)
        assert tried("service", "status", *named) == ExitCode.OK
        assert f"Detached: process {first.pid}." in tried.out
        assert tried("service", "restart", *named) == ExitCode.OK, tried.err
        (second,) = running_servers(archive)
        assert second.pid != first.pid
    finally:
        tried("service", "stop", *named)
    assert "has ended" in tried.out
    assert running_servers(archive) == []
