"""Loggers by name: levels, inheritance, additivity, and what a log leaves behind."""

import gc
import io
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stowkeeper.dcmtk.log_options import LogLevel, LogOptions
from stowkeeper.dcmtk.oflog.loggers import Loggers
from support.oflog_rig import CONFIGURATION, CONSOLE, LEVELS, Setup, appender, running_log, say_all


@pytest.fixture
def run(tmp_path):
    """Start logs from texts of configuration files."""

    def start(text=None, **setup):
        return running_log(tmp_path, Setup(text=text, **setup))

    return start


# --- without a file


@pytest.mark.parametrize("level", LogLevel)
def test_without_a_file_messages_from_a_level_on_go_to_standard_error(level, run):
    with run(options=LogOptions(level=level)) as log:
        say_all(log.get())
        assert log.level is level
        assert log.out.getvalue() == ""
        assert log.err.getvalue() == "".join(f"{one.name[0]}: {one.name}\n" for one in LEVELS if one >= level)


def test_every_line_of_a_message_has_the_letter_of_its_level(run):
    with run() as log:
        log.get().error("one\ntwo %s", 2)
        assert log.err.getvalue() == "E: one\nE: two 2\n"


def test_before_the_start_information_is_shown():
    err = io.StringIO()
    with Loggers("storescp", stderr=err) as loggers:
        loggers.get("a").info("shown")
        loggers.get("a").debug("not shown")
    assert err.getvalue() == "I: shown\n"


def test_the_arguments_are_logged_whatever_the_level(run):
    for level in (LogLevel.FATAL, LogLevel.OFF, LogLevel.INFO):
        with run(options=LogOptions(level=level, arguments="calling 'storescp'")) as log:
            assert log.err.getvalue() == "I: calling 'storescp'\nI: \n"
    pattern = "log4cplus.appender.c.layout = log4cplus::PatternLayout\n"
    pattern += "log4cplus.appender.c.layout.ConversionPattern = [%p %c %l %m]\n"
    options = LogOptions(arguments="x")
    with run(f"log4cplus.rootLogger = OFF, c\n{CONSOLE}{pattern}", options=options) as log:
        assert log.err.getvalue() == "[INFO root : x][INFO root : ]"


def test_all_ways_to_log(run):
    with run(options=LogOptions(level=LogLevel.TRACE)) as log:
        logger = log.get()
        logger.trace("t %d", 1)
        logger.debug("d")
        logger.info("i")
        logger.warning("w")
        logger.error("e")
        logger.critical("f")
        logger.info("does not fit %d", "x")
        assert log.err.getvalue() == "T: t 1\nD: d\nI: i\nW: w\nE: e\nF: f\nI: does not fit %d\n"
    with run(options=LogOptions(level=LogLevel.DEBUG)) as log:
        log.get().trace("hidden")
        assert log.err.getvalue() == ""


def test_the_place_in_the_code_is_that_of_the_caller(run):
    text = (
        f"log4cplus.rootLogger = TRACE, c\n{CONSOLE}log4cplus.appender.c.layout = log4cplus::PatternLayout\n"
        "log4cplus.appender.c.layout.ConversionPattern = %b %M%n\n"
    )
    with run(text) as log:
        log.get().trace("a")
        log.get().info("a")
        name = f"{Path(__file__).name} {test_the_place_in_the_code_is_that_of_the_caller.__name__}\n"
        assert log.err.getvalue() == name * 2


# --- the root


@pytest.mark.parametrize(
    ("value", "level", "reaches"),
    [
        ("INFO, c", LogLevel.INFO, True),
        ("info,c", LogLevel.INFO, True),
        (" I N F O , c ", LogLevel.INFO, True),
        ("ALL, c", LogLevel.TRACE, True),
        ("OFF, c", LogLevel.OFF, False),
        ("INFO,,c,,", LogLevel.INFO, True),
        ("INFO, c, c", LogLevel.INFO, True),
        ("INFO, absent, c", LogLevel.INFO, True),
        ("${level}, ${name}", LogLevel.INFO, True),
        ("INFO", LogLevel.INFO, False),
        ("INFO,\tc", LogLevel.INFO, False),
        ("INFO, C", LogLevel.INFO, False),
    ],
)
def test_the_root_has_a_level_and_appenders(value, level, reaches, run):
    with run(f"log4cplus.rootLogger = {value}\nlevel = info\nname = c\n{CONSOLE}") as log:
        log.get().error("hello")
        assert log.level is level
        assert log.err.getvalue().count("ERROR - hello\n") == reaches
        assert bool(log.complaints) is (value in ("INFO, absent, c", "INFO", "INFO,\tc", "INFO, C"))


def test_a_root_without_anything_leaves_the_log_as_it_was(run):
    with run("log4cplus.rootLogger =\n") as log:
        assert log.level is LogLevel.INFO
        log.get().info("hello")
        assert log.err.getvalue().splitlines()[1:] == ["I: hello"]
        assert log.complaints == ["log4cplus:ERROR log4cplus.rootLogger: is empty, changes nothing"]


def test_messages_that_nobody_takes_are_reported_once(run):
    with run("log4cplus.rootLogger = INFO\n") as log:
        log.get("a.b").debug("hidden anyway")
        assert log.complaints == []
        log.get("a.b").info("lost")
        log.get("a.c").info("lost")
        assert log.complaints == [
            "log4cplus:ERROR no appender takes the messages of the logger a.b, they are lost"
        ]


# --- named loggers


def lines_of(run, configuration, *messages):
    """Return what reaches the appenders a and b, by a file whose appenders go to standard output and error."""
    appenders = (
        "log4cplus.appender.a = log4cplus::ConsoleAppender\n"
        "log4cplus.appender.b = log4cplus::ConsoleAppender\nlog4cplus.appender.b.logToStdErr = 1\n"
    )
    with run("\n".join(f"log4cplus.{line}" for line in configuration) + "\n" + appenders) as log:
        for name, level in messages:
            log.get(name).log(getattr(logging, level), name)
        return (
            [line.split()[2] for line in log.out.getvalue().splitlines()],
            [line.split()[-1] for line in log.err.getvalue().splitlines()],
        )


def test_a_logger_has_the_level_of_the_next_one_above(run):
    configuration = ["rootLogger = WARN, a", "logger.x = INFO", "logger.x.y.z = DEBUG"]
    messages = [
        (name, level) for name in ("w", "x", "x.y", "x.y.z", "x.y.z.q") for level in ("DEBUG", "INFO")
    ]
    out, _ = lines_of(run, configuration, *messages)
    assert out == ["x", "x.y", "x.y.z", "x.y.z", "x.y.z.q", "x.y.z.q"]


@pytest.mark.parametrize("word", ["INHERITED", "INHERIT", "inherited", "bogus"])
def test_a_level_may_be_inherited(word, run):
    configuration = ["rootLogger = WARN, a", "logger.x = INFO", f"logger.x.y = {word}, b"]
    out, err = lines_of(run, configuration, ("x.y", "DEBUG"), ("x.y", "INFO"))
    assert out == ["x.y"]
    assert err[-1] == "x.y"
    assert (len(err) > 1) is (word not in ("INHERITED", "INHERIT"))


def test_a_message_goes_to_the_appenders_of_all_loggers_above(run):
    configuration = ["rootLogger = INFO, a", "logger.x = INHERIT, a", "logger.x.y = INHERIT, b"]
    assert lines_of(run, configuration, ("x.y", "INFO"), ("x", "INFO")) == (["x.y", "x.y", "x", "x"], ["x.y"])


def test_additivity_ends_the_way_up(run):
    configuration = ["rootLogger = INFO, a", "logger.x = INHERIT, b", "additivity.x = false"]
    assert lines_of(run, configuration, ("x.y", "INFO"), ("z", "INFO")) == (["z"], ["x.y"])
    configuration[2] = "additivity.x = bogus"
    out, err = lines_of(run, configuration, ("x.y", "INFO"))
    assert (out, err[-1]) == (["x.y"], "x.y")


def test_additivity_of_a_logger_without_appenders_silences_it(run):
    out, err = lines_of(run, ["rootLogger = INFO, a", "additivity.x = 0"], ("x.y", "INFO"), ("z", "INFO"))
    assert out == ["z"]
    assert len(err) == 1


def test_only_the_level_of_the_logger_that_is_spoken_to_counts(run):
    configuration = ["rootLogger = FATAL, a", "logger.x = INFO"]
    assert lines_of(run, configuration, ("x", "INFO"), ("w", "ERROR"))[0] == ["x"]


def test_an_empty_name_is_the_root(run):
    with run("log4cplus.rootLogger = INFO\nlog4cplus.logger. = ERROR, c\n" + CONSOLE) as log:
        assert log.get("") is log.loggers.root
        assert log.level is LogLevel.ERROR
        log.get("x").error("hello")
        assert log.err.getvalue() == "ERROR - hello\n"
    with run("log4cplus.rootLogger = INFO, c\nlog4cplus.logger. = INHERIT, c\n" + CONSOLE) as log:
        assert log.level is LogLevel.INFO


def test_the_level_of_the_progress_of_storescp(run):
    name = "dcmtk.apps.storescp.progress"
    with run(f"log4cplus.rootLogger = DEBUG, c\nlog4cplus.logger.{name} = INFO\n{CONSOLE}") as log:
        assert log.get(name).effective_level is LogLevel.INFO
        assert log.get().effective_level is LogLevel.DEBUG
    with run(options=LogOptions(level=LogLevel.INFO)) as log:
        assert log.get(name).effective_level is LogLevel.INFO


# --- what is left behind


def state_of_the_process():
    gc.collect()
    return (
        logging.root.handlers[:],
        logging.root.level,
        logging.lastResort,
        logging.raiseExceptions,
        logging.getLevelName(5),
        logging.getLoggerClass(),
        sorted(name for name in logging.root.manager.loggerDict if name.startswith(("dcmtk", "root"))),
        len(logging._handlerList),
        sorted(logging._handlers),
        threading.enumerate(),
        sorted(os.listdir("/proc/self/fd")),
    )


def test_nothing_is_left_behind(tmp_path):
    text = (
        "log4cplus.rootLogger = TRACE, file, rolling, system, server, async\n"
        "log4cplus.appender.file = log4cplus::FileAppender\nlog4cplus.appender.file.File = a.log\n"
        "log4cplus.appender.file.UseLockFile = true\n"
        "log4cplus.appender.rolling = log4cplus::RollingFileAppender\nlog4cplus.appender.rolling.File = b.log\n"
        "log4cplus.appender.system = log4cplus::SysLogAppender\n"
        "log4cplus.appender.server = log4cplus::Log4jUdpAppender\nlog4cplus.appender.server.host = 127.0.0.1\n"
        "log4cplus.appender.async = log4cplus::AsyncAppender\n"
        "log4cplus.appender.async.Appender = log4cplus::FileAppender\nlog4cplus.appender.async.Appender.File = c.log\n"
        "log4cplus.appender.unused = log4cplus::FileAppender\nlog4cplus.appender.unused.File = d.log\n"
    )
    before = state_of_the_process()
    with running_log(tmp_path, Setup(text=text)) as log:
        logger = log.get("dcmtk.apps.storescp")
        say_all(logger)
        assert (tmp_path / "d.log").exists()
        log.loggers.close()
        shown = log.err.getvalue()
        say_all(logger)
        log.get("dcmtk.another").error("dropped")
        assert log.err.getvalue() == shown
        assert logger.handlers == []
    for name in ("a", "b", "c"):
        assert len((tmp_path / f"{name}.log").read_text().splitlines()) == 6
    del log, logger
    assert state_of_the_process() == before


def test_two_logs_do_not_know_each_other(tmp_path):
    (tmp_path / "one").mkdir()
    with (
        running_log(tmp_path / "one", Setup(options=LogOptions(level=LogLevel.DEBUG))) as one,
        running_log(tmp_path, Setup(options=LogOptions(level=LogLevel.ERROR))) as other,
    ):
        assert one.get("x") is one.get("x")
        assert one.get("x") is not other.get("x")
        assert one.get("x") is not logging.getLogger("x")
        logging.disable(logging.CRITICAL)
        try:
            one.get("x").debug("one")
            other.get("x").warning("other")
        finally:
            logging.disable(logging.NOTSET)
    assert one.err.getvalue() == "D: one\n"
    assert other.err.getvalue() == ""


def test_threads_write_whole_lines(tmp_path):
    text = appender("FileAppender", "File = x.log")
    with running_log(tmp_path, Setup(text=text)) as log:
        barrier = threading.Barrier(4)

        def write(number):
            barrier.wait()
            for _ in range(200):
                log.get(f"dcmtk.{number}").info(str(number) * 100)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert sorted(lines) == sorted(f"INFO - {str(number) * 100}" for number in range(4) for _ in range(200))


UNCLOSED = """
import sys
from stowkeeper.dcmtk.log_options import LogOptions
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.oflog.times import Schedule

loggers = Loggers("storescp")
loggers.start(LogOptions(config_file=sys.argv[1]))
for number in range(50):
    loggers.get("dcmtk").info(str(number))
"""


@pytest.mark.slow
def test_a_program_that_ends_without_closing_writes_what_waits(tmp_path):
    inner = (
        "Appender = log4cplus::FileAppender",
        f"Appender.File = {tmp_path}/x.log",
        "Appender.ImmediateFlush = 0",
    )
    (tmp_path / CONFIGURATION).write_text(appender("AsyncAppender", *inner))
    run = subprocess.run(
        [sys.executable, "-c", UNCLOSED, str(tmp_path / CONFIGURATION)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert run.stderr == b""
    assert len((tmp_path / "x.log").read_text().splitlines()) == 50
