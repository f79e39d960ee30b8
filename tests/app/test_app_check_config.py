"""`check-config` tells what is in force and where it came from, as a settings file or as JSON."""

import json
import tomllib
from pathlib import Path

import pytest

from stowkeeper.app.commands import run
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.setting_sources import all_settings
from stowkeeper.app.settings import load_settings, plain_value

SITE = """
[dicom]
host = "0.0.0.0"
ae_title = 'A "B" #1'
[access]
calling_ae_titles = ["CT1", "MR1"]
addresses = ["10.0.0.0/8"]
[storage]
reserve_size = 1000
file_mode = "0644"
[[peers]]
name = "CT 1"
addresses = ["10.0.0.1"]
duplicates = "refuse"
[[peers]]
name = "MR 1"
ae_title = "MR1"
"""


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.toml").write_text(SITE, encoding="utf-8")
    return tmp_path / "site.toml"


def test_the_output_is_a_settings_file_that_says_the_same(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check-config", "--config", "site.toml", "--port", "104", "--no-sync"]) == ExitCode.OK
    output = capsys.readouterr().out
    written = Path("written.toml")
    written.write_text(output, encoding="utf-8")
    again = load_settings("written.toml", {}, {})
    first = load_settings("site.toml", {"dicom.port": 104, "sync": False}, {})
    for setting in all_settings().values():
        assert plain_value(again, setting) == plain_value(first, setting)
    assert set(tomllib.loads(output)) == {
        "archive",
        "archive_must_exist",
        "sync",
        "shared",
        "dicom",
        "tls",
        "negotiation",
        "http",
        "dicomweb",
        "events",
        "tracing",
        "jobs",
        "commitment",
        "access",
        "storage",
        "log",
        "peers",
    }


@pytest.mark.parametrize("name", ["😀", "a\x7fb", "é\u2028", 'say "x"\\'])
def test_any_path_comes_out_as_it_went_in(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-config", "--archive", name]) == ExitCode.OK
    assert tomllib.loads(capsys.readouterr().out)["archive"] == str(Path(name).absolute())


def test_every_value_tells_where_it_came_from(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWKEEPER_LOG__LEVEL", "debug")
    assert run(["check-config", "--config", "site.toml", "--port", "104"]) == ExitCode.OK
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"# settings file: {site}"
    assert "port = 104 # flag --port" in lines
    assert 'host = "0.0.0.0" # file' in lines
    assert 'level = "debug" # environment STOWKEEPER_LOG__LEVEL' in lines
    assert 'reserve_size = "1 kB" # file' in lines
    assert "idle_seconds = 600 # default" in lines


def test_json_holds_the_same(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["check-config", "--config", "site.toml", "--port", "104", "--no-sync", "--json"]) == ExitCode.OK
    )
    output, errors = capsys.readouterr()
    report = json.loads(output)
    assert errors == ""
    assert report["valid"] is True
    assert report["file"] == str(site)
    entries = {entry["key"]: entry for entry in report["settings"]}
    assert list(entries) == list(all_settings())
    assert entries["dicom.port"] == {"key": "dicom.port", "value": 104, "origin": "flag", "place": "--port"}
    assert entries["storage.file_mode"]["value"] == "0644"
    assert entries["dicom.idle_seconds"] == {
        "key": "dicom.idle_seconds",
        "value": 600,
        "origin": "default",
        "place": None,
    }
    assert entries["peers"]["value"][0] == {
        "name": "CT 1",
        "addresses": ["10.0.0.1/32"],
        "duplicates": "refuse",
    }
    assert len(report["warnings"]) == 1


def test_warnings_go_to_standard_error_and_do_not_count_as_problems(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["check-config", "--host", "0.0.0.0"]) == ExitCode.OK
    output, errors = capsys.readouterr()
    assert output.startswith("# settings file: none\n")
    assert errors.startswith("warning: anyone who reaches 0.0.0.0 may store")


def test_problems_are_all_told_with_exit_code_78(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.toml").write_text("[dicom]\nprot = 1\nport = 'x'\n", encoding="utf-8")
    assert run(["check-config", "--config", "bad.toml"]) == ExitCode.SETTINGS
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("Error: 2 problems in the settings:\n")
    assert "bad.toml: dicom.prot: there is no such setting; did you mean dicom.port?" in errors


def test_problems_are_told_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-config", "--config", "none.toml", "--port", "x", "--json"]) == ExitCode.SETTINGS
    report = json.loads(capsys.readouterr().out)
    assert report["valid"] is False
    assert report["problems"] == [
        {"place": str(Path("none.toml").absolute()), "text": "it cannot be read: No such file or directory"},
        {"place": "--port", "text": '"x" is not allowed; allowed: a whole number from 0 to 65535'},
    ]


def test_it_takes_every_flag_of_serve() -> None:
    from stowkeeper.app.commands.check_config import check_config
    from stowkeeper.app.commands.serve import serve

    names = {parameter.name for parameter in check_config.params}
    assert {parameter.name for parameter in serve.params} <= names


def test_each_problem_of_a_file_tells_its_line_and_column(capsys: pytest.CaptureFixture[str]) -> None:
    text = """# a site
[dicom]
  prot = 1
port = "x" # wrong too
[zzz]
yyy = 1
[negotiation]
choice = "preference"
[[peers]]
name = "a"
ae_title = "A"
[[peers]]
name = "b"
ae_title = "B"
profile = "none"
"""
    Path("bad.toml").write_text(text, encoding="utf-8")
    assert run(["check-config", "--config", "bad.toml"]) == ExitCode.SETTINGS
    errors = capsys.readouterr().err
    assert "did you mean dicom.port? (line 3, column 3)" in errors
    assert "from 0 to 65535 (line 4, column 1)" in errors
    assert "(line 6, column 1)" in errors
    good = text.replace("  prot = 1\n", "").replace('"x"', "104").replace("[zzz]\nyyy = 1\n", "")
    Path("bad.toml").write_text(good, encoding="utf-8")
    assert run(["check-config", "--config", "bad.toml", "--json"]) == ExitCode.SETTINGS
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [(problem["line"], problem["column"]) for problem in problems] == [(5, 1), (12, 1)]
    Path("bad.toml").write_text("[dicom]\nport = 1 2\n", encoding="utf-8")
    run(["check-config", "--config", "bad.toml"])
    assert "(at line 2, column 10)" in capsys.readouterr().err
