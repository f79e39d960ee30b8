"""Appenders, layouts and filters by the settings of a configuration file."""

import io
import logging
import socket
import time

import pytest

from stowkeeper.dcmtk.oflog.building import Surroundings, build_appenders
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.config import (
    load_log_configuration,
)
from stowkeeper.dcmtk.oflog.limits import (
    BUFFER_BYTES_MAX,
    REOPEN_SECONDS_MAX,
    WAITING_RECORDS_MAX,
)
from support.oflog_rig import CONFIGURATION, Setup, appender, running_log, say_all
from support.processes import LOOPBACK


@pytest.fixture
def run(tmp_path):
    """Start logs from texts of configuration files."""

    def start(text=None, **setup):
        return running_log(tmp_path, Setup(text=text, **setup))

    return start


# --- appenders by their settings


@pytest.mark.parametrize(
    ("setting", "is_error", "is_reported"),
    [
        ("logToStdErr = true", True, False),
        ("logToStdErr = 1", True, False),
        ("logToStdErr = false", False, False),
        ("ImmediateFlush = true", False, False),
        ("logToStderr = true", False, True),
        ("LogToStdErr = true", False, True),
        ("logToStdErr = yes", False, True),
    ],
)
def test_the_console_is_standard_output_unless_the_key_is_spelt_right(setting, is_error, is_reported, run):
    with run(appender("ConsoleAppender", setting)) as log:
        log.get().info("hello")
        assert ("INFO - hello\n" in log.err.getvalue()) is is_error
        assert (log.out.getvalue() == "INFO - hello\n") is not is_error
        assert bool(log.complaints) is is_reported
        if "StdErr = true" not in setting and setting.lower().startswith("logtostderr = true"):
            assert log.complaints[0].endswith("the key is log4cplus.appender.a.logToStdErr")


@pytest.mark.parametrize("kind", ["BogusAppender", "consoleAppender", "SocketAppender", "NTEventLogAppender"])
def test_an_appender_that_is_not_known_is_left_out(kind, run):
    with run(appender(kind, "File = x", "layout = y")) as log:
        log.get().info("lost")
        assert [line.split(":")[1].split()[0] for line in log.complaints] == ["ERROR"] * 3
        assert f"log4cplus::{kind}" in log.complaints[0]
        assert "'a'" in log.complaints[1]


def test_a_layout_that_is_not_known_is_the_simple_one(run):
    for settings_ in (["layout = log4cplus::Bogus", "layout.x = y"], ["layout = log4cplus::PatternLayout"]):
        with run(appender("ConsoleAppender", *settings_, "Threshold = ERROR")) as log:
            log.get().error("hello")
            log.get().warning("below the threshold")
            assert log.out.getvalue() == "ERROR - hello\n"
            assert len(log.complaints) == 1


def test_patterns_come_by_two_names(run):
    layout = "layout = log4cplus::PatternLayout"
    for settings_, out, complaints in [
        (["layout.ConversionPattern = [%m]"], "[a][b]", 0),
        (["layout.Pattern = <%m>"], "<a><b>", 1),
        (["layout.Pattern = <%m>", "layout.ConversionPattern = [%m]"], "[a][b]", 1),
        (["layout.ConversionPattern ="], "ab", 1),
        (["layout.ConversionPattern = %q%m"], "%qa%qb", 1),
        (["layout.ConversionPattern = [%m]", "layout.FormatEachLine = 0"], "[a\nb]", 0),
        (["layout.ConversionPattern = [%m]", "layout.NDCMaxDepth = 3"], "[a][b]", 0),
    ]:
        with run(appender("ConsoleAppender", layout, *settings_)) as log:
            log.get().info("a\nb")
            assert log.out.getvalue() == out
            assert len(log.complaints) == complaints


def test_the_ttcc_layout_by_its_settings(run):
    layout = ("layout = log4cplus::TTCCLayout", "layout.DateFormat = %H:%M", "layout.Use_gmtime = true")
    with run(appender("ConsoleAppender", *layout)) as log:
        log.get().info("a")
        when = time.strftime("%H:%M", time.gmtime())
        assert log.out.getvalue()[:5] in (when, time.strftime("%H:%M", time.gmtime(time.time() - 60)))
        assert log.out.getvalue()[5:].endswith("] INFO dcmtk.apps.storescp <> - a\n")


@pytest.mark.parametrize(
    ("settings_", "taken"),
    [
        (["Threshold = ERROR"], "EF"),
        (["Threshold = error"], "EF"),
        (["Threshold = OFF"], ""),
        (["Threshold = bogus"], "TDIWEF"),
        (["filters.1 = log4cplus::spi::DenyAllFilter"], ""),
        (["filters.2 = log4cplus::spi::DenyAllFilter"], "TDIWEF"),
        (["filters.1 = log4cplus::spi::Bogus", "filters.2 = log4cplus::spi::DenyAllFilter"], ""),
        (["filters.1 = log4cplus::DenyAllFilter"], "TDIWEF"),
        (
            [
                "filters.1 = log4cplus::spi::LogLevelMatchFilter",
                "filters.1.LogLevelToMatch = WARN",
                "filters.1.AcceptOnMatch = true",
                "filters.2 = log4cplus::spi::DenyAllFilter",
            ],
            "W",
        ),
        (["filters.1 = log4cplus::spi::LogLevelMatchFilter", "filters.1.LogLevelToMatch = WARN"], "TDIEF"),
        (
            [
                "filters.1 = log4cplus::spi::LogLevelRangeFilter",
                "filters.1.LogLevelMin = INFO",
                "filters.1.LogLevelMax = ERROR",
            ],
            "IWE",
        ),
        (["filters.1 = log4cplus::spi::LogLevelRangeFilter", "filters.1.logLevelMin = INFO"], "TDIWEF"),
        (["filters.1 = log4cplus::spi::StringMatchFilter", "filters.1.StringToMatch = A"], "DIE"),
    ],
)
def test_thresholds_and_filters(settings_, taken, run):
    with run(appender("ConsoleAppender", *settings_, level="TRACE")) as log:
        say_all(log.get())
        assert "".join(line[0] for line in log.out.getvalue().splitlines()) == taken


def test_files_by_their_settings(run, tmp_path):
    path = tmp_path / "x.log"
    for kind, settings_, begin in [
        ("FileAppender", [], ""),
        ("FileAppender", ["Append = true"], "before\n"),
        ("FileAppender", ["Append = 0"], ""),
        ("RollingFileAppender", [], "before\n"),
        ("RollingFileAppender", ["Append = false"], ""),
        ("DailyRollingFileAppender", ["Schedule = daily"], "before\n"),
    ]:
        path.write_text("before\n")
        with run(
            appender(kind, "File = ${dir}/x.log", *settings_), environment={"dir": str(tmp_path)}
        ) as log:
            log.get().info("hello")
            assert path.read_text() == f"{begin}INFO - hello\n"
            assert log.complaints == []
    path.unlink()
    with run(appender("FileAppender", "File = x.log", "ImmediateFlush = false", "BufferSize = 50")) as log:
        log.get().info("hello")
        assert path.read_text() == ""
    assert path.read_text() == "INFO - hello\n"


def test_a_file_appender_without_file_writes_nothing(run, tmp_path):
    for kind in ("FileAppender", "RollingFileAppender", "DailyRollingFileAppender"):
        with run(appender(kind, "Schedule = daily" if "Daily" in kind else "Append = 1")) as log:
            log.get().info("lost")
            assert log.complaints == [
                "log4cplus:ERROR log4cplus.appender.a: there is no File, so nothing is written"
            ]
    assert [path.name for path in tmp_path.iterdir()] == [CONFIGURATION]


@pytest.mark.parametrize(
    ("value", "size", "is_reported"),
    [
        ("204800", 204_800, False),
        ("300KB", 307_200, False),
        ("300kb", 307_200, False),
        ("1MB", 1 << 20, False),
        ("1 MB", 1 << 20, False),
        ("300000 bytes", 300_000, False),
        ("", 10 << 20, False),
        ("5", 204_800, True),
        ("KB", 204_800, True),
        ("-5MB", 204_800, True),
    ],
)
def test_the_size_at_which_a_file_is_put_away(value, size, is_reported, run, tmp_path):
    (tmp_path / "x.log").write_bytes(b"x" * (size - len("INFO - hello\n")))
    with run(appender("RollingFileAppender", "File = x.log", f"MaxFileSize = {value}")) as log:
        log.get().info("hello")
        assert not (tmp_path / "x.log.1").exists()
        log.get().info("hello")
        assert (tmp_path / "x.log.1").exists()
        assert bool(log.complaints) is is_reported


def test_how_many_files_are_kept(run, tmp_path):
    for settings_, kept in ([], 1), (["MaxBackupIndex = 2"], 2), (["MaxBackupIndex = 0"], 1):
        for path in tmp_path.glob("x.log*"):
            path.unlink()
        with run(appender("RollingFileAppender", "File = x.log", *settings_)) as log:
            for _ in range(4):
                with open("x.log", "ab") as file:
                    file.truncate(11 << 20)
                log.get().info("hello")
        assert len(list(tmp_path.glob("x.log.*"))) == kept


def test_an_unknown_schedule_is_daily(run, tmp_path):
    for settings_, complaints in ([], 1), (["Schedule = bogus"], 1), (["Schedule = DAILY"], 0):
        with run(appender("DailyRollingFileAppender", "File = x.log", *settings_)) as log:
            assert len(log.complaints) == complaints
            assert log.loggers.root.handlers[0]._schedule.name == "DAILY"


def test_lock_files_by_their_settings(run, tmp_path):
    for kind, settings_, lock, complaints in [
        ("FileAppender", ["File = x.log", "UseLockFile = true"], "x.log.lock", 0),
        ("FileAppender", ["File = x.log", "UseLockFile = true", "LockFile = my.lock"], "my.lock", 0),
        ("ConsoleAppender", ["UseLockFile = true", "LockFile = other.lock"], "other.lock", 0),
        ("ConsoleAppender", ["UseLockFile = true"], None, 1),
        ("ConsoleAppender", ["UseLockFile = true", "LockFile = absent/x.lock"], None, 1),
        ("FileAppender", ["File = x.log", "LockFile = unused.lock"], None, 0),
    ]:
        with run(appender(kind, *settings_)) as log:
            assert (log.loggers.root.handlers[0].lock_file is not None) is (lock is not None)
            log.get().info("hello")
            assert len(log.complaints) == complaints
        assert lock is None or (tmp_path / lock).exists()
    assert not (tmp_path / "unused.lock").exists()


def test_an_asynchronous_appender_by_its_settings(run):
    inner = [
        "Appender = log4cplus::ConsoleAppender",
        "Appender.logToStdErr = true",
        "Appender.Threshold = WARN",
    ]
    with run(appender("AsyncAppender", *inner, "QueueLimit = 5", "Threshold = INFO", level="TRACE")) as log:
        say_all(log.get())
        log.loggers.close()
        assert log.err.getvalue() == "WARN - WARN\nERROR - ERROR\nFATAL - FATAL\n"
    for settings_ in ([], ["Appender = log4cplus::Bogus"]):
        with run(appender("AsyncAppender", *settings_)) as log:
            log.get().info("lost")
            assert len(log.complaints) == 1


def test_settings_out_of_range_are_brought_into_it(run):
    for kind, setting, bound in [
        ("FileAppender", "BufferSize", BUFFER_BYTES_MAX),
        ("FileAppender", "ReopenDelay", REOPEN_SECONDS_MAX),
        ("AsyncAppender", "QueueLimit", WAITING_RECORDS_MAX),
    ]:
        needed = ["File = x.log", "Appender = log4cplus::NullAppender"]
        needed = [line for line in needed if (kind == "AsyncAppender") is line.startswith("Appender")]
        with run(appender(kind, *needed, f"{setting} = {bound}")) as log:
            assert log.complaints == []
        with run(appender(kind, *needed, f"{setting} = {bound + 1}")) as log:
            assert log.complaints == [
                f"log4cplus:WARN log4cplus.appender.a.{setting}: {bound + 1} is out of range, {bound} is taken"
            ]


def test_the_system_log_by_its_settings(tmp_path):
    path = str(tmp_path / "dev-log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        daemon.settimeout(10)
        for settings_, begin, complaints in [
            (["ident = my-ident", "facility = Local3"], "<158>", 0),
            ([], "<14>", 0),
            (["facility = bogus"], "<14>", 1),
        ]:
            err = io.StringIO()
            where = Surroundings(
                program="storescp", stdout=err, stderr=err, complaints=Complaints(err), system_log=path
            )
            text = appender("SysLogAppender", *settings_)
            loaded = load_log_configuration(
                text.encode(), variables={}, environment={}, complaints=where.complaints
            )
            built = build_appenders(loaded.appenders, loaded.settings, where)["a"]
            built.handle(logging.LogRecord("x", logging.INFO, "", 0, "hello", (), None))
            built.close()
            sent = daemon.recv(1000).decode()
            name = "my-ident" if settings_[:1] == ["ident = my-ident"] else "storescp"
            assert sent.startswith(begin)
            assert sent.endswith(f" {name}: INFO - hello\n")
            assert len(err.getvalue().splitlines()) == complaints


@pytest.mark.parametrize(
    ("kind", "begin"), [("SysLogAppender", "<30>1 "), ("Log4jUdpAppender", "<log4j:event ")]
)
def test_log_servers_by_their_settings(kind, begin, run):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK, 0))
        server.settimeout(10)
        settings_ = ["host = 127.0.0.1", f"port = {server.getsockname()[1]}"]
        if kind == "SysLogAppender":
            settings_.append("facility = daemon")
        with run(appender(kind, *settings_)) as log:
            log.get().info("hello")
            assert server.recv(1000).decode().startswith(begin)
            assert log.complaints == []


def test_a_server_of_log4j_is_on_this_machine_by_default(run):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK, 0))
        server.settimeout(10)
        with run(appender("Log4jUdpAppender", f"port = {server.getsockname()[1]}")) as log:
            log.get().info("hello")
            assert b"hello" in server.recv(1000)


def test_ports_are_ports(run):
    for port in ("0", "65536", "x"):
        with run(appender("SysLogAppender", "host = 127.0.0.1", f"port = {port}")) as log:
            assert len(log.complaints) == 1
