"""Logs: one event is one line, peers cannot forge one, patient data is in none, and nothing waits for them."""

import asyncio
import errno
import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stowkeeper.app import logs as logs_module
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import (
    LOG_CAUSES_MAX,
    LOG_TRACEBACK_FRAMES_MAX,
    LOG_VALUE_LETTERS_MAX,
)
from stowkeeper.app.log_lines import (
    WITHHELD,
    describe_exception,
    escaped,
    json_line,
    printable,
    safe_text,
    text_line,
    timestamp,
    without_patient_data,
)
from stowkeeper.app.logs import Logs, log_loop_exception, log_to_console, start_logs
from stowkeeper.app.service.rights import RightMissingError
from stowkeeper.app.settings_of_log import LogSettings
from stowkeeper.database.errors import DatabaseDamaged, DatabaseUnavailable
from stowkeeper.durable.server_lock import ArchiveInUseError
from support.examples import examples

PATIENT = "DOE^JOHN"
log = structlog.get_logger("stowkeeper.test")


@pytest.fixture(autouse=True)
def structlog_as_it_was() -> Iterator[None]:
    configuration = structlog.get_config()
    yield
    structlog.configure(**configuration)


@pytest.fixture
def console() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def running(tmp_path: Path, console: io.StringIO) -> Iterator[Logs]:
    with Logs(LogSettings(level="debug"), tmp_path, console) as logs:
        yield logs


def file_lines(folder: Path, name: str = "stowkeeper.log") -> list[str]:
    return (folder / name).read_text(encoding="utf-8").splitlines()


def fields_of(line: str) -> dict[str, str]:
    """Read a text line as a strict reader would."""
    time, level, rest = line.split(" ", 2)
    words = re.findall(r'((?:[^\s"=]+=)?(?:"(?:[^"\\]|\\.)*"|[^\s"=]+))(?: |$)', rest)
    assert " ".join(words) == rest, line
    event, *pairs = words
    fields = {"time": time, "level": level, "event": event}
    for pair in pairs:
        key, _, value = pair.partition("=")
        fields[key] = unquoted(value)
    return fields


def unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    return re.sub(r"\\(x..|u....|U........|.)", lambda found: unescaped(found[1]), value[1:-1])


def unescaped(code: str) -> str:
    if code[0] in "xuU" and len(code) > 1:
        return chr(int(code[1:], 16))
    return {"n": "\n", "r": "\r", "t": "\t"}.get(code, code)


# Lines.


def test_an_event_goes_to_console_and_file_as_one_line(
    running: Logs, console: io.StringIO, tmp_path: Path
) -> None:
    log.info(
        "write", sop_instance_uid="1.2.3", size=5, seconds=0.25, calling_ae_title="CT 1", sync=True, peer=None
    )
    assert running.flush()
    (line,) = file_lines(tmp_path)
    assert console.getvalue() == f"{line}\n"
    time, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == (
        "info write logger=stowkeeper.test sop_instance_uid=1.2.3 size=5 seconds=0.25"
        ' calling_ae_title="CT 1" sync=true peer=null'
    )


def test_an_event_is_one_json_object_where_that_is_asked_for(tmp_path: Path, console: io.StringIO) -> None:
    with Logs(LogSettings(format="json"), tmp_path, console) as logs:
        log.warning("association", what="rejected", rejection=(1, 1, 3), seconds=float("inf"))
        logs.flush()
    entry = json.loads(console.getvalue())
    assert list(entry) == ["time", "level", "event", "logger", "what", "rejection", "seconds"]
    assert entry["level"] == "warning"
    assert (entry["what"], entry["rejection"], entry["seconds"]) == ("rejected", "1,1,3", "inf")


def test_times_are_utc_with_milliseconds() -> None:
    assert timestamp(1_700_000_000_007_999_999) == "2023-11-14T22:13:20.007Z"


@pytest.mark.slow
@hypothesis_settings(max_examples=examples(200))
@given(st.text(max_size=60))
def test_no_value_can_forge_or_hide_a_line(value: str) -> None:
    event = {"time": "T", "level": "info", "event": "association", "calling_ae_title": value, "last": "end"}
    text = text_line(event)
    assert text.isprintable()
    assert len(text.splitlines()) == 1
    assert fields_of(text)["calling_ae_title"] == value
    assert fields_of(text)["last"] == "end"
    as_json = json_line(event)
    assert as_json.isascii()
    assert as_json.isprintable()
    assert json.loads(as_json) == event


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("A\n2026-01-01T00:00:00.000Z info start", r'"A\n2026-01-01T00:00:00.000Z info start"'),
        ('A" level=error x="', r'"A\" level=error x=\""'),
        ("\x1b[2J\x9b2J\x7f\x00", r'"\x1b[2J\x9b2J\x7f\x00"'),
        ("\u202egnp.exe\u2028\u200b", r'"\u202egnp.exe\u2028\u200b"'),
        ("\ud800", r'"\ud800"'),
        ("\U000e0001", r'"\U000e0001"'),
        ("a=b", '"a=b"'),
        ("", '""'),
        (b"\xff\n", r'"ÿ\n"'),
        (["x", "y"], "x,y"),
        (("x", "y z"), '"x,y z"'),
    ],
)
def test_what_is_not_plain_is_quoted_and_escaped(value: object, shown: str) -> None:
    line = text_line({"time": "T", "level": "info", "event": "start", "value": value})
    assert line == f"T info start value={shown}"


def test_names_of_events_and_fields_are_escaped_too() -> None:
    assert (
        text_line({"time": "T", "level": "info", "event": "a b\n", "c d\n": 1}) == r'T info "a b\n" "c d\n"=1'
    )


def test_sentences_for_a_terminal_keep_their_quotes() -> None:
    assert printable('say "a\\b" \x1b[2J') == 'say "a\\b" \\x1b[2J'
    assert escaped('say "a\\b"') == 'say \\"a\\\\b\\"'


def test_json_leaves_no_control_character_as_it_is() -> None:
    assert json_line({"event": "a\x7f\x00\u2028"}) == r'{"event": "a\u007f\u0000\u2028"}'


def test_long_values_are_cut() -> None:
    line = text_line(
        {"event": "start", "value": "x" * LOG_VALUE_LETTERS_MAX, "longer": "y" * (LOG_VALUE_LETTERS_MAX + 1)}
    )
    assert "x" * LOG_VALUE_LETTERS_MAX in line
    assert "y" * (LOG_VALUE_LETTERS_MAX + 1) not in line
    assert f"({LOG_VALUE_LETTERS_MAX + 1} letters)" in line


class Stubborn:
    def __str__(self) -> str:
        raise ValueError(PATIENT)


def test_a_value_that_cannot_be_written_stops_nobody(running: Logs, tmp_path: Path) -> None:
    log.info("start", value=Stubborn(), number=10**5000)
    log.info("start", value="after")
    running.flush()
    first, second = file_lines(tmp_path)
    assert PATIENT not in first
    assert fields_of(second)["value"] == "after"


# Patient data.


@pytest.mark.parametrize(
    "field",
    [
        "patient_name",
        "patients_birth_date",
        "patient_id",
        "accession_number",
        "study_description",
        "data_set",
    ],
)
def test_fields_named_like_identifying_attributes_are_withheld(field: str) -> None:
    assert without_patient_data({field: PATIENT, "sop_instance_uid": "1.2"}) == {
        field: WITHHELD,
        "sop_instance_uid": "1.2",
    }


class DriverError(Exception):
    __module__ = "sqlite3"


class StatementError(Exception):
    """As SQLAlchemy's: repeats the parameters, holds the driver's error."""

    def __init__(self, orig: Exception) -> None:
        super().__init__(f"{orig} [parameters: {PATIENT}]")
        self.orig = orig


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError(f"invalid value {PATIENT}"), WITHHELD),
        (KeyError(PATIENT), WITHHELD),
        (UnicodeDecodeError("utf-8", PATIENT.encode(), 0, 1, "bad"), WITHHELD),
        (TypeError(f"cannot convert {PATIENT}"), WITHHELD),
        (ValueError(), ""),
        (OSError(28, "No space left on device", "/a"), "[Errno 28] No space left on device: '/a'"),
        (CommandError("a sentence of ours", ExitCode.IO_ERROR), "a sentence of ours"),
        (
            StatementError(DriverError("UNIQUE constraint failed")),
            "sqlite3.DriverError: UNIQUE constraint failed",
        ),
        (StatementError(ValueError(PATIENT)), f"ValueError: {WITHHELD}"),
    ],
)
def test_the_text_of_an_exception_is_shown_where_it_quotes_no_data(error: BaseException, text: str) -> None:
    assert safe_text(error) == text


def test_what_the_interpreter_says_of_our_own_code_is_shown() -> None:
    with pytest.raises(TypeError) as caught:
        timestamp(None)  # type: ignore[arg-type]  # the mistake is meant
    assert "NoneType" in safe_text(caught.value)


def nest(depth: int) -> None:
    if depth:
        nest(depth - 1)
    raise KeyError(PATIENT)


def test_an_exception_is_logged_with_type_frames_and_causes_on_one_line(
    running: Logs, tmp_path: Path
) -> None:
    try:
        try:
            nest(2)
        except KeyError as cause:
            raise RuntimeError(f"no {PATIENT}") from cause
    except RuntimeError:
        log.exception("error", what="a test failed")
    running.flush()
    (line,) = file_lines(tmp_path)
    assert PATIENT not in line
    fields = fields_of(line)
    assert (fields["level"], fields["what"]) == ("error", "a test failed")
    assert (fields["exception"], fields["exception_text"]) == ("RuntimeError", WITHHELD)
    assert re.fullmatch(r".*test_app_logs\.py:\d+ test_an_exception_is_logged_with.*", fields["traceback"])
    assert fields["caused_by"].startswith(f"KeyError: {WITHHELD} at ")
    assert len(re.findall(r"test_app_logs\.py:\d+ nest", fields["caused_by"])) == 3


def test_the_console_gets_no_frames_where_there_is_a_file(
    running: Logs, console: io.StringIO, tmp_path: Path
) -> None:
    log.error("error", what="a test failed", exc_info=OSError(5, "Input/output error"))
    running.apply(LogSettings(file=False), tmp_path)
    log.error("error", what="a test failed", exc_info=OSError(5, "Input/output error"))
    running.flush()
    brief, whole = (fields_of(line) for line in console.getvalue().splitlines())
    assert "traceback" not in brief
    assert brief["exception_text"] == "[Errno 5] Input/output error"
    assert brief["details"] == str(tmp_path / "stowkeeper.log")
    assert "traceback" in whole
    assert "traceback" in fields_of(file_lines(tmp_path)[0])


def test_an_exception_group_names_its_members() -> None:
    group = ExceptionGroup(PATIENT, [OSError(5, "Input/output error"), ValueError(PATIENT)])
    fields = describe_exception(group)
    assert fields["caused_by"] == f"OSError: [Errno 5] Input/output error at -; ValueError: {WITHHELD} at -"
    assert PATIENT not in str(fields)


def test_deep_tracebacks_and_long_chains_are_cut() -> None:
    with pytest.raises(KeyError) as caught:
        nest(LOG_TRACEBACK_FRAMES_MAX * 3)
    frames = str(describe_exception(caught.value)["traceback"])
    assert frames.count(" > ") == LOG_TRACEBACK_FRAMES_MAX
    assert " more)" in frames
    chain = [ValueError() for _ in range(100)]
    for cause, effect in zip(chain, [*chain[1:], chain[0]], strict=True):
        effect.__cause__ = cause
    assert str(describe_exception(chain[0])["caused_by"]).count("ValueError") == LOG_CAUSES_MAX


def test_causes_that_go_in_a_circle_are_named_once() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert describe_exception(first)["caused_by"] == "KeyError:  at -"


# Levels, formats and outlets, and their change while running.


def test_a_level_holds_at_once_also_for_loggers_bound_before(tmp_path: Path, console: io.StringIO) -> None:
    with Logs(LogSettings(level="warning", file=False), tmp_path, console) as logs:
        bound = log.bind(association_id="a-1")
        bound.info("association", what="unseen")
        logs.apply(LogSettings(level="debug", file=False), tmp_path)
        bound.debug("association", what="seen")
        logs.apply(LogSettings(level="error", file=False), tmp_path)
        bound.warning("association", what="unseen")
        bound.critical("error", what="seen too")
        logs.flush()
    assert [fields_of(line)["what"] for line in console.getvalue().splitlines()] == ["seen", "seen too"]
    assert not (tmp_path / "stowkeeper.log").exists()


def test_outlets_and_format_change_while_running(tmp_path: Path, console: io.StringIO) -> None:
    with Logs(LogSettings(console=False), tmp_path / "one", console) as logs:
        log.info("start", number=1)
        logs.apply(LogSettings(format="json"), tmp_path / "two")
        log.info("start", number=2)
    assert [fields_of(line)["number"] for line in file_lines(tmp_path / "one")] == ["1"]
    assert [json.loads(line)["number"] for line in file_lines(tmp_path / "two")] == [2]
    assert json.loads(console.getvalue())["number"] == 2


def test_a_file_moved_away_is_left_alone(running: Logs, tmp_path: Path) -> None:
    log.info("start", number=1)
    running.flush()
    (tmp_path / "stowkeeper.log").rename(tmp_path / "moved")
    log.info("start", number=2)
    running.flush()
    assert len(file_lines(tmp_path, "moved")) == 1
    assert len(file_lines(tmp_path)) == 1


def test_a_log_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        start_logs(LogSettings(), tmp_path / "file")


def test_closing_writes_what_waits_and_undoes_everything(tmp_path: Path, console: io.StringIO) -> None:
    before = (threading.excepthook, sys.unraisablehook, warnings.showwarning, logging.root.handlers[:])
    logs = Logs(LogSettings(), tmp_path, console)
    assert threading.excepthook is not before[0]
    log.info("start")
    logs.close()
    logs.close()
    assert len(file_lines(tmp_path)) == 1
    assert (threading.excepthook, sys.unraisablehook, warnings.showwarning, logging.root.handlers) == before


def test_an_error_on_its_way_out_is_logged_and_says_where(tmp_path: Path, console: io.StringIO) -> None:
    with pytest.raises(ValueError, match="DOE") as caught, Logs(LogSettings(), tmp_path, console):
        raise ValueError(PATIENT)
    assert caught.value.__notes__ == [f"Logged to {tmp_path / 'stowkeeper.log'}"]
    (line,) = file_lines(tmp_path)
    assert fields_of(line)["exception"] == "ValueError"
    assert PATIENT not in line
    assert console.getvalue() == "", "whoever ends the command says it there"


@pytest.mark.parametrize(
    ("error", "is_refusal"),
    [
        (ArchiveInUseError("the archive /srv/a is in use"), True),
        (DatabaseUnavailable("another process has it"), True),
        (RightMissingError("user joe may not"), True),
        (OSError(errno.EADDRINUSE, "Address already in use"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (DatabaseDamaged("it is damaged"), False),
    ],
)
def test_a_start_that_is_refused_is_one_sentence_in_the_log(
    tmp_path: Path, console: io.StringIO, error: Exception, *, is_refusal: bool
) -> None:
    with pytest.raises(type(error)) as caught, Logs(LogSettings(), tmp_path, console):
        raise error
    (fields,) = map(fields_of, file_lines(tmp_path))
    assert fields["exception_text"] == str(error)
    assert ("traceback" in fields) is not is_refusal
    said = (fields["level"], fields["what"])
    assert said == (("warning", "did not start") if is_refusal else ("error", "ended by an error"))
    assert bool(getattr(caught.value, "__notes__", [])) is not is_refusal


def test_commands_log_to_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_console()
    log.info("start")
    log.warning("error", what="seen")
    output, errors = capsys.readouterr()
    assert output == ""
    assert fields_of(errors.strip())["what"] == "seen"


# Everything else that would print by itself.


def test_the_standard_librarys_logging_takes_the_same_way(running: Logs, tmp_path: Path) -> None:
    logging.getLogger("asyncio").error("Task failed\nfuture: %s", PATIENT)
    logging.getLogger("pydicom").warning("Invalid value %s", PATIENT)
    # Not through the logger: pytest's own handler would raise.
    logs_module._Bridge().emit(
        logging.makeLogRecord({"name": "alembic", "levelno": 30, "msg": "bad %d", "args": ("x",)})
    )
    running.flush()
    first, second, third = (fields_of(line) for line in file_lines(tmp_path))
    assert (first["event"], first["logger"], first["what"]) == ("error", "asyncio", "Task failed")
    assert (second["event"], second["what"]) == ("message", WITHHELD)
    assert second["place"].startswith("test_app_logs.py:")
    assert third["what"] == "bad %d"
    assert PATIENT not in (tmp_path / "stowkeeper.log").read_text()


def test_warnings_name_their_kind_and_place(running: Logs, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs_module._log_warning  # catch_warnings took ours away
        warnings.warn(PATIENT, UserWarning, stacklevel=1)
    running.flush()
    (fields,) = (fields_of(line) for line in file_lines(tmp_path))
    assert (fields["level"], fields["category"], fields["what"]) == ("warning", "UserWarning", WITHHELD)
    assert fields["place"].startswith("test_app_logs.py:")


def test_exceptions_that_nobody_caught_are_logged(running: Logs, tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError(PATIENT)

    thread = threading.Thread(target=fail, name="worker-1")
    thread.start()
    thread.join()
    with asyncio.Runner() as runner:
        context = {"message": "Fatal error on transport", "exception": OSError(5, "x")}
        log_loop_exception(runner.get_loop(), context)
    running.flush()
    first, second = (fields_of(line) for line in file_lines(tmp_path))
    assert (first["thread"], first["exception"]) == ("worker-1", "ValueError")
    assert (second["what"], second["exception_text"]) == ("Fatal error on transport", "[Errno 5] x")


# Under way.


def test_a_terminal_that_is_closed_stops_nobody(tmp_path: Path) -> None:
    closed = io.StringIO()
    closed.close()
    with Logs(LogSettings(), tmp_path, closed):
        log.info("start", number=1)
        log.info("start", number=2)
    told = [fields_of(line) for line in file_lines(tmp_path)]
    assert {fields.get("number") for fields in told} == {"1", "2", None}
    assert any(fields.get("outlet") == "console" for fields in told)


def test_lines_put_from_many_threads_all_arrive(running: Logs, tmp_path: Path) -> None:
    def say(name: int) -> None:
        for number in range(100):
            log.info("start", name=name, number=number)

    threads = [threading.Thread(target=say, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.flush()
    written = [fields_of(line) for line in file_lines(tmp_path)]
    assert len({(fields["name"], fields["number"]) for fields in written}) == len(written) == 400
