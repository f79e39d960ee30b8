"""A configuration file of the log as a whole: what is an error, what is only reported, the sample and the page."""

import contextlib
import inspect
import io
import os
import re
import socket
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stowkeeper.dcmtk.grammar import CommandLineError, parse
from stowkeeper.dcmtk.log_options import LogLevel, LogOptions
from stowkeeper.dcmtk.oflog import building, parts, patterns
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.config import (
    SHIPPED_LOG_CONFIGURATION,
    LogConfigurationError,
    load_log_configuration,
)
from stowkeeper.dcmtk.oflog.limits import (
    LOG_CONFIG_BYTES_MAX,
)
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.oflog.times import Schedule
from stowkeeper.dcmtk.storescp_options import evaluate_storescp
from stowkeeper.dcmtk.storescp_table import storescp_table
from support.examples import examples
from support.oflog_rig import CONFIGURATION, CONSOLE, Setup, appender, running_log

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    """Start logs from texts of configuration files."""

    def start(text=None, **setup):
        return running_log(tmp_path, Setup(text=text, **setup))

    return start


# --- errors that end the program


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not contain any settings"),
        ("# only a comment\nand no setting\n", "does not contain any settings"),
        ("a = b\n", "any setting that begins with 'log4cplus.'"),
        ("Log4cplus.rootLogger = INFO\n", "any setting that begins with 'log4cplus.'"),
        ("log4cplus.rootlogger = INFO\n", "does not set log4cplus.rootLogger"),
        ("log4cplus.appender.a = x\n", "does not set log4cplus.rootLogger"),
        ("x = rootLogger\nlog4cplus.${x} = INFO\n", "does not set log4cplus.rootLogger"),
        ("log4cplus.rootLogger = LOUD, a\n", "does not begin with a level"),
        ("log4cplus.rootLogger = INHERITED\n", "does not begin with a level"),
        ("log4cplus.rootLogger = , a\n", "does not begin with a level"),
        ("log4cplus.rootLogger = ${level}\n", "does not begin with a level"),
        ("log4cplus.rootLogger = INFO\nx = ${x}\n", "have no end"),
    ],
)
def test_files_that_cannot_be_used(text, words, run):
    with pytest.raises(CommandLineError, match=re.escape(words)), run(text):
        pass


def test_files_that_cannot_be_read(tmp_path):
    for path, words in [
        (tmp_path / "absent", "does not exist"),
        (tmp_path, "Is a directory"),
        ("", "does not exist"),
        ("a\0b", "null"),
    ]:
        with Loggers("storescp") as loggers, pytest.raises(CommandLineError, match=words):
            loggers.start(LogOptions(config_file=str(path)))


def test_the_length_of_a_file_has_a_bound(run):
    text = "log4cplus.rootLogger = WARN, c\n" + CONSOLE
    filled = text + "#" * (LOG_CONFIG_BYTES_MAX - len(text))
    with run(filled) as log:
        assert log.level is LogLevel.WARN
    with pytest.raises(CommandLineError, match="longer than"), run(filled + "#"):
        pass


def test_after_an_error_nothing_is_open(tmp_path, run):
    text = f"log4cplus.rootLogger = BOGUS, a\nlog4cplus.appender.a = log4cplus::FileAppender\nlog4cplus.appender.a.File = {tmp_path}/x\n"
    with pytest.raises(CommandLineError), run(text):
        pass
    assert not (tmp_path / "x").exists()


def test_the_command_line_takes_the_level_of_the_file(tmp_path):
    path = tmp_path / CONFIGURATION
    for level, is_shown in (("ERROR", True), ("FATAL", False), ("OFF", False)):
        path.write_text(f"log4cplus.rootLogger = {level}, c\n{CONSOLE}")
        line = parse(storescp_table(), ["-lc", str(path), "-pdu", "1", "11112"])
        with Loggers("storescp") as loggers, pytest.raises(CommandLineError) as caught:
            evaluate_storescp(
                storescp_table(), line, start_logging=loggers.start, load_profile=lambda _choice: None
            )
        assert caught.value.is_shown is is_shown


# --- the file as a whole


def test_keys_that_mean_nothing_are_reported(run):
    text = appender("ConsoleAppender", "File = x", "logtostderr = 1") + (
        "log4cplus.rootlogger = INFO\nlog4cplus.appender.z.File = y\nlog4cplus.loger.x = INFO\nmy.own = 5\n"
        "log4cplus.configDebug = false\nlog4cplus.disableOverride = 1\nlog4cplus.additivity.q = 1\nno setting\n"
    )
    with run(text) as log:
        assert sorted(line.removeprefix("log4cplus:WARN ") for line in log.complaints) == [
            "line 12: there is no '=', so it has no effect",
            "log4cplus.appender.a.File: unknown, has no effect",
            "log4cplus.appender.a.logtostderr: unknown, has no effect; the key is log4cplus.appender.a.logToStdErr",
            "log4cplus.appender.z.File: unknown, has no effect",
            "log4cplus.loger.x: unknown, has no effect",
            "log4cplus.rootlogger: unknown, has no effect; the key is log4cplus.rootLogger",
        ]


def test_quiet_mode_ends_reports_until_the_log_is_set_up(run):
    with run("log4cplus.rootLogger = INFO, z\nlog4cplus.quietMode = true\nbogus\n") as log:
        assert log.complaints == []
        log.get().info("lost")
        assert len(log.complaints) == 1


def test_a_log_without_errors_says_nothing_about_itself(run):
    with run("log4cplus.rootLogger = FATAL\n") as log:
        log.get().critical("lost")
        assert log.err.getvalue() == ""


def test_the_variables_of_a_file(run, tmp_path):
    names = ("appname", "hostname", "pid", "date", "time")
    pattern = "|".join(f"${{{name}}}" for name in names)
    layout = ("layout = log4cplus::PatternLayout", f"layout.ConversionPattern = {pattern}|${{HERE}}|%m")
    text = appender("ConsoleAppender", *layout) + "appname = not this\n"
    with run(text, environment={"HERE": "there", "pid": "not this"}, program="dcmrecv") as log:
        log.get().info("x")
        appname, hostname, pid, date, clock, here, _ = log.out.getvalue().split("|")
        assert (appname, hostname, pid, here) == ("dcmrecv", socket.gethostname(), str(os.getpid()), "there")
        then = time.mktime(time.strptime(date + clock, "%Y%m%d%H%M%S"))
        assert 0 <= time.time() - then < 60


def test_a_file_may_begin_with_a_byte_order_mark_and_have_any_line_ends(run):
    with run(
        b"\xef\xbb\xbflog4cplus.rootLogger = INFO, c\r\n" + CONSOLE.replace("\n", "\r\n").encode()
    ) as log:
        log.get().info("hello")
        assert log.err.getvalue() == "INFO - hello\n"


def test_names_of_files_may_be_any_bytes(run, tmp_path):
    with run(appender("FileAppender").encode() + b"log4cplus.appender.a.File = \xff.log\n") as log:
        log.get().info("hello")
    assert os.path.exists(os.fsencode(tmp_path) + b"/\xff.log")


SCRAPS = [
    "log4cplus.", "rootLogger", "appender.", "logger.", "additivity.", "a", "b", ".", " = ", "\n", ", ", "INFO", "bogus",
    "log4cplus::", "ConsoleAppender", "NullAppender", "AsyncAppender", "Appender", "layout", "PatternLayout",
    "TTCCLayout", "ConversionPattern", "%d{%", "%", "5", "-", "}", "${", "a}", "filters.1", "spi::", "DenyAllFilter",
    "LogLevelRangeFilter", "Threshold", "#", "\0", "\r", "true", "quietMode", "QueueLimit", "logToStdErr",
]  # fmt: skip
START = (
    "log4cplus.rootLogger = INFO, a\nlog4cplus.appender.a = log4cplus::ConsoleAppender\nlog4cplus.appender.a."
)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(150)
)
@given(st.lists(st.sampled_from(SCRAPS), max_size=30).map("".join), st.booleans())
def test_any_text_is_a_log_or_an_error(tmp_path, text, begins_well):
    path = tmp_path / CONFIGURATION
    path.write_text((START if begins_well else "") + text, encoding="utf-8", newline="")
    out, err = io.StringIO(), io.StringIO()
    with Loggers("storescp", stdout=out, stderr=err, environment={}) as loggers:
        words = ""
        try:
            loggers.start(LogOptions(config_file=str(path)))
        except CommandLineError as error:
            words = str(error)
        assert not words or words.startswith(f"--log-config: {path}: ")
        loggers.get("dcmtk.apps").error("hello\nyou")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_an_error(data):
    err = io.StringIO()
    for begin in (b"", b"log4cplus.rootLogger = INFO\nlog4cplus."):
        with contextlib.suppress(LogConfigurationError):
            load_log_configuration(begin + data, variables={}, environment={}, complaints=Complaints(err))
    assert err.getvalue() == "" or err.getvalue().startswith("log4cplus:")


# --- the sample and the page


def test_the_sample_writes_warnings_to_standard_error_and_the_rest_to_a_file(tmp_path):
    with running_log(tmp_path, Setup(text=SHIPPED_LOG_CONFIGURATION.read_text("ascii"))) as log:
        log.get().debug("hidden")
        log.get().info("written")
        log.get().warning("shown")
        assert log.err.getvalue() == "W: shown\n"
        assert log.out.getvalue() == ""
        assert log.get("dcmtk.apps.storescp.progress").effective_level is LogLevel.OFF
        lines = (tmp_path / "storescp.log").read_text().splitlines()
    shape = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  (INFO|WARN) dcmtk\.apps\.storescp  - (written|shown)"
    assert [re.fullmatch(shape, line)[2] for line in lines] == ["written", "shown"]


def test_the_examples_in_the_sample_are_right(tmp_path):
    text = SHIPPED_LOG_CONFIGURATION.read_text("ascii")
    with running_log(tmp_path, Setup(text=re.sub(r"(?m)^#(?=log4cplus)", "", text))) as log:
        log.get("dcmtk.dcmnet").info("to its own file")
        log.get().error("filtered from the terminal")
        log.get().warning("shown")
        assert log.err.getvalue().splitlines()[-1:] == ["W: shown"]
        assert not [line for line in log.complaints if "cannot be sent" not in line]
    assert (tmp_path / "network.log").read_text() == "INFO - to its own file\n"


PAGE = (ROOT / "docs" / "dcmtk-logging.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_works(tmp_path):
    (example,) = re.findall(r"^```ini\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    with running_log(tmp_path, Setup(text=example)) as log:
        log.get().info("hello")
        assert log.out.getvalue() == log.err.getvalue() == ""
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  INFO - hello\n", (tmp_path / "storescp.log").read_text())


def test_every_kind_and_setting_is_on_the_page():
    words = set(re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", PAGE)))
    kinds = [*building._APPENDERS, *parts._LAYOUTS, *parts._FILTERS]
    assert {kind.split("::")[-1] for kind in kinds} <= words
    assert {schedule.lower() for schedule in Schedule.__members__} <= words | set(re.findall(r"\w+", PAGE))
    for letter in patterns._CONVERSIONS:
        assert f"`%{letter}" in PAGE
    source = "".join(inspect.getsource(module) for module in (building, parts))
    settings_ = set(re.findall(r'settings\.(?:text|boolean|integer|level)\("(\w+)"', source))
    assert len(settings_) > 15
    for setting in settings_:
        assert f"`{setting}" in PAGE or setting in ("NDCMaxDepth", "Pattern"), setting
