"""The command line: quick help, a sentence and an exit code for every failure, and never a traceback unasked."""

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest
import structlog

import stowkeeper
from stowkeeper.app import commands
from stowkeeper.app.commands import COMMANDS, CommandEntry, run
from stowkeeper.app.commands.failures import (
    KNOWN_ERRORS,
    CommandError,
    Invocation,
    known_exit_code,
    report_failure,
)
from stowkeeper.app.commands.options import SettingsArguments, archive_option, json_option, settings_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.setting_problems import Problem
from stowkeeper.app.setting_sources import all_settings
from stowkeeper.app.settings import SettingsError
from stowkeeper.net.association_errors import PeerUnreachableError

SOURCE = Path(stowkeeper.__file__).parents[1]
PATIENT = "DOE^JOHN"

Install = Callable[[Callable[..., object]], None]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STOWKEEPER_ARCHIVE", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a function the command `stowkeeper trial`."""

    def put(function: Callable[..., object]) -> None:
        module = ModuleType("stowkeeper.app.commands.trial")
        vars(module)["trial"] = (
            function if isinstance(function, click.Command) else click.command("trial")(function)
        )
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, "trial", CommandEntry("trial", "Try.", logs=False))

    return put


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


# Help.


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    heavy = {"pydantic", "structlog", "rich", "sqlalchemy", "asyncio", "pydicom", "numpy", "blake3"}
    ended = python(
        "-c",
        "import sys, stowkeeper.app.commands as c\n"
        "assert c.run(['--help']) == 0\n"
        f"sys.exit(' '.join(sorted({heavy!r} & set(sys.modules))))",
    )
    assert ended.stderr.strip() == ""
    assert "Usage: stowkeeper [OPTIONS] COMMAND" in ended.stdout
    for name, entry in COMMANDS.items():
        assert name in ended.stdout
        assert entry.help.split()[0] in ended.stdout


@pytest.mark.slow
def test_the_module_runs_and_tells_its_version() -> None:
    ended = python("-m", "stowkeeper", "--version")
    assert (ended.returncode, ended.stdout) == (0, f"stowkeeper {stowkeeper.__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_the_commands_say(name: str) -> None:
    entry = COMMANDS[name]
    if importlib.util.find_spec(f"{commands.__name__}.{entry.module}") is None:
        pytest.skip(f"{name} is not in this build")
    command = getattr(importlib.import_module(f"{commands.__name__}.{entry.module}"), entry.module)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == entry.help


def test_a_command_that_does_not_exist_is_a_wrong_usage_with_a_guess(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["verfy"]) == ExitCode.USAGE
    assert "There is no command 'verfy'. Did you mean 'verify'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--zzz"], ["check-config", "--zzz"], ["check-config", "extra"]])
def test_a_wrong_command_line_is_a_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == ExitCode.USAGE
    output, errors = capsys.readouterr()
    assert "Usage: stowkeeper" in output + errors


def test_commands_that_log_never_print_to_standard_output(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(lambda: structlog.get_logger("stowkeeper.trial").warning("error", what="seen"))
    monkeypatch.setitem(COMMANDS, "trial", CommandEntry("trial", "Try."))
    configuration = structlog.get_config()
    try:
        assert run(["trial"]) == ExitCode.OK
    finally:
        structlog.configure(**configuration)
    output, errors = capsys.readouterr()
    assert output == ""
    assert "what=seen" in errors


# Exit codes and sentences.


@pytest.mark.parametrize(("result", "code"), [(None, 0), (ExitCode.FINDINGS, 1), ("text", 0)])
def test_a_command_ends_with_what_it_returns(install: Install, result: object, code: int) -> None:
    install(lambda: result)
    assert run(["trial"]) == code


def failing(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (CommandError("Nothing to send.", ExitCode.NO_INPUT), 66, "Error: Nothing to send."),
        (FileNotFoundError(2, "No such file or directory", "/a"), 66, "Error: /a: No such file or directory"),
        (IsADirectoryError(21, "Is a directory", "/a"), 66, "Error: /a: Is a directory"),
        (PermissionError(13, "Permission denied", "/a"), 74, "Error: /a: Permission denied"),
        (OSError(28, "No space left on device"), 74, "Error: No space left on device"),
        (OSError("a text alone"), 74, "Error: a text alone"),
        (OSError(98, "Address already in use"), 69, "Error: Address already in use"),
        (ConnectionRefusedError(111, "Connection refused"), 69, "Error: Connection refused"),
        (BrokenPipeError(32, "Broken pipe"), 69, "Error: Broken pipe"),
        (TimeoutError(), 69, "Error: TimeoutError"),
        (PeerUnreachableError("192.0.2.7:104 refuses connections."), 69, "Error: 192.0.2.7:104 refuses connections."),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [OSError(28, "full")])]), 74, "Error: full"),
        (SettingsError([Problem(place="--port", text="wrong")]), 78, "Error: one problem in the settings:\n  --port: wrong"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (click.Abort(), 130, "Interrupted."),
        (click.UsageError("wrong"), 2, "Error: wrong"),
        (click.FileError("/a", "gone"), 66, "Error: Could not open file '/a': gone"),
        (CommandError("peer \x1b[2J said\u202e no", ExitCode.UNAVAILABLE), 69, "Error: peer \\x1b[2J said\\u202e no"),
    ],
)  # fmt: skip
def test_a_known_error_is_a_sentence_and_a_code(
    install: Install, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, sentence: str
) -> None:
    install(failing(error))
    assert run(["trial"]) == code
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.endswith(f"{sentence}\n")
    assert "Traceback" not in errors


def test_an_unknown_error_is_one_sentence_that_says_where_the_details_are(
    install: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install(failing(ValueError(PATIENT)))
    assert run(["trial"]) == ExitCode.INTERNAL
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert PATIENT not in errors
    (details,) = tmp_path.glob("stowkeeper-error-*.log")
    assert str(details) in errors
    text = details.read_text(encoding="utf-8")
    assert "exception=ValueError" in text
    assert "test_app_commands.py" in text
    assert PATIENT not in text
    assert details.stat().st_mode & 0o077 == 0


def test_the_details_go_to_the_log_of_the_archive_if_there_is_one(
    install: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    @archive_option
    def fail(*, archive: Path) -> None:
        assert archive == tmp_path / "here"
        raise ValueError(PATIENT)

    install(fail)
    (tmp_path / "here").mkdir()
    assert run(["trial", "--archive", "here"]) == ExitCode.INTERNAL
    assert f"details are in {tmp_path / 'here/log/commands.log'}" in capsys.readouterr().err
    assert "exception=ValueError" in (tmp_path / "here/log/commands.log").read_text(encoding="utf-8")


def test_an_archive_is_not_made_for_the_details(install: Install, tmp_path: Path) -> None:
    @archive_option
    def fail(*, archive: Path) -> None:
        raise ValueError(archive)

    install(fail)
    assert run(["trial"]) == ExitCode.INTERNAL
    assert not (tmp_path / "archive").exists()


def test_the_details_go_elsewhere_where_the_log_cannot_be_written(
    install: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    @archive_option
    def fail(*, archive: Path) -> None:
        raise ValueError(archive)

    install(fail)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/log").write_text("in the way")
    assert run(["trial"]) == ExitCode.INTERNAL
    assert "stowkeeper-error-" in capsys.readouterr().err


def test_an_error_that_was_logged_already_is_not_logged_twice(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    error = ValueError(PATIENT)
    error.add_note("Logged to /srv/a/log/stowkeeper.log")
    assert report_failure(error, Invocation()) == ExitCode.INTERNAL
    assert "details are in /srv/a/log/stowkeeper.log" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError(PATIENT), CommandError("known", ExitCode.IO_ERROR)])
def test_the_traceback_is_shown_on_demand(
    install: Install, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    install(failing(error))
    assert run(["--debug", "trial"]) in {ExitCode.INTERNAL, ExitCode.IO_ERROR}
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last)" in errors
    assert str(error) in errors


@pytest.mark.parametrize("name", KNOWN_ERRORS)
def test_known_errors_exist_and_are_found_by_their_name(name: str) -> None:
    module, _, class_name = name.rpartition(".")
    kind: type[BaseException] = getattr(importlib.import_module(module), class_name)
    assert known_exit_code(kind.__new__(kind)) is KNOWN_ERRORS[name]


def test_an_error_has_the_code_of_its_nearest_base() -> None:
    from stowkeeper.database.errors import DatabaseUnavailable

    class Busy(DatabaseUnavailable):
        pass

    assert known_exit_code(Busy("busy")) is ExitCode.TRY_AGAIN
    assert known_exit_code(ValueError("none of ours")) is None


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ended = subprocess.run(
        [sys.executable, "-m", "stowkeeper", "check-config"],
        env=environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (ExitCode.BROKEN_PIPE, b"")


# Options that several commands share.


def test_settings_options_hold_a_flag_for_every_setting_that_has_one(install: Install) -> None:
    taken: list[SettingsArguments] = []

    @settings_options
    @json_option
    def trial(*, settings_arguments: SettingsArguments, as_json: bool) -> None:
        assert as_json
        taken.append(settings_arguments)

    install(trial)
    arguments = [
        "--archive",
        "a",
        "--host",
        "::",
        "--port",
        "0",
        "--ae-title",
        "X",
        "--http-host",
        "::1",
        "--http-port",
        "off",
        "--no-sync",
        "--config",
        "c.toml",
    ]
    assert run(["trial", *arguments, "--json"]) == ExitCode.OK
    (given,) = taken
    assert given.config_file == "c.toml"
    assert given.overrides == {
        "archive": "a",
        "sync": False,
        "dicom.host": "::",
        "dicom.port": "0",
        "dicom.ae_title": "X",
        "http.host": "::1",
        "http.port": "off",
    }
    assert {setting.key for setting in all_settings().values() if setting.flag} == set(given.overrides)


def test_flags_that_are_not_given_leave_the_settings_alone(install: Install, tmp_path: Path) -> None:
    @settings_options
    def trial(*, settings_arguments: SettingsArguments) -> None:
        settings = settings_arguments.load()
        assert settings.sync
        assert settings.dicom.port == 7
        (tmp_path / "c.toml").write_text("[log]\nlevel='debug'", encoding="utf-8")
        assert settings_arguments.reload(settings).settings.log.level == "debug"

    install(trial)
    (tmp_path / "c.toml").write_text("[dicom]\nport=7", encoding="utf-8")
    assert run(["trial", "--config", "c.toml"]) == ExitCode.OK


def test_the_archive_may_be_named_by_a_variable(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    @archive_option
    def trial(*, archive: Path) -> None:
        seen.append(archive)

    install(trial)
    monkeypatch.setenv("STOWKEEPER_ARCHIVE", "/srv/a")
    assert run(["trial"]) == ExitCode.OK
    assert run(["trial", "--archive", "/srv/b"]) == ExitCode.OK
    assert seen == [Path("/srv/a"), Path("/srv/b")]


def test_who_closed_the_output_meets_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "argv", ["stowkeeper", "--version"])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    sys.stdout.close()
    assert ended.value.code == ExitCode.OK
