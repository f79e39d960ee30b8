"""Configuration files of the log given to DCMTK's programs and to ours: the same lines, in the same places.

Every way in which ours differs is in DIFFERENCES, with its reason, or among the files that ours alone reports on.
"""

import re
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support.dcmtk_command_lines import taken_port
from support.oflog_of_dcmtk import (
    CRASH,
    ERROR,
    HANGS,
    RUNS,
    messages_of_dcmtk,
    outcome_of_dcmtk,
    outcome_of_ours,
    shape,
)
from support.peers import program_path
from support.processes import LOOPBACK

pytestmark = [pytest.mark.slow, pytest.mark.peer("storescp"), pytest.mark.peer("dcmrecv")]

TOOLS = ("storescp", "dcmrecv")
DIGITS, NUMBERS = r"\d", r"\d+"
FILLER = "x" * 210_000 + "\n"
"""More than the least size at which a file is put away."""


@pytest.fixture(scope="module")
def port():
    with taken_port() as number:
        yield number


@pytest.fixture(scope="module")
def messages(port, tmp_path_factory):
    for tool in TOOLS:
        program_path(tool)
    return {tool: messages_of_dcmtk(tool, tmp_path_factory.mktemp(tool), port) for tool in TOOLS}


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A configuration file, what differs from run to run in what it leads to, and what is there before it."""

    text: str
    differs: str = DIGITS
    before: tuple[tuple[str, str], ...] = ()


def lines(*settings, root="TRACE, a", **options):
    text = "".join(f"log4cplus.{setting}\n" for setting in (f"rootLogger = {root}", *settings))
    return File(text=text, **options)


def appender(kind, *settings, **options):
    return lines(f"appender.a = log4cplus::{kind}", *(f"appender.a.{line}" for line in settings), **options)


def console(*settings, **options):
    return appender("ConsoleAppender", *settings, **options)


def pattern(text, *settings, **options):
    layout = ("layout = log4cplus::PatternLayout", f"layout.ConversionPattern = {text}")
    return console(*layout, *settings, **options)


def filters(*settings, **options):
    spi = "log4cplus::spi::"
    return console(*(f"filters.{setting.replace('= ::', f'= {spi}')}" for setting in settings), **options)


C, D = "appender.a = log4cplus::ConsoleAppender", "appender.d = log4cplus::ConsoleAppender"
E = "appender.d.logToStdErr = true"

FILES = {
    # The root, and named loggers
    **{
        f"root-{level}": lines(C, root=f"{level}, a")
        for level in ("OFF", "FATAL", "error", "Warn", "INFO", "DEBUG", "TRACE", "ALL")
    },
    "root-with-blanks": lines(C, root=" I N F O ,a "),
    "root-with-empty-names": lines(C, root="INFO,,a,"),
    "root-with-an-appender-twice": lines(C, root="INFO, a, a"),
    "root-with-two-appenders": lines(C, D, E, root="INFO, a, d"),
    "root-without-appenders": lines(root="INFO"),
    "root-without-appenders-and-errors": lines(root="FATAL"),
    "root-off-with-unknown-appender": lines("appender.a = log4cplus::Bogus", root="OFF, a, b"),
    "root-empty": lines(C, root=""),
    "appender-unknown": lines("appender.a = log4cplus::Bogus"),
    "appender-missing": lines(C, root="INFO, b"),
    "appender-after-a-tab": lines(C, root="INFO,\ta"),
    "logger": lines(C, "logger.dcmtk.apps = DEBUG", "logger.dcmtk.dcmdata = trace", root="ERROR, a"),
    "logger-quieter": lines(C, "logger.dcmtk.apps = OFF"),
    "logger-with-appender": lines(C, D, E, "logger.dcmtk.dcmdata = INHERITED, d"),
    "logger-with-the-same-appender": lines(C, "logger.dcmtk = INHERITED, a"),
    "logger-not-additive": lines(C, D, E, "logger.dcmtk.dcmdata = INHERITED, d", "additivity.dcmtk.dcmdata = false"),
    "logger-additive": lines(C, D, E, "logger.dcmtk = WARN, d", "additivity.dcmtk = 1"),
    "not-additive-without-appenders": lines(C, "additivity.dcmtk.apps = 0"),
    "two-levels-of-loggers": lines(
        C, D, E, "logger.dcmtk = WARN, d", "logger.dcmtk.apps = INFO, a", "additivity.dcmtk.apps = true"
    ),
    # Texts
    "comments": File(text=f"# c\n  # d = e\n\nlog4cplus.rootLogger = INFO, a # b\nlog4cplus.{C}\n"),
    "windows-line-ends": File(text=f"log4cplus.rootLogger = INFO, a\r\n\r\nlog4cplus.{C}\r\n"),
    "last-one-counts": lines(C, "rootLogger = WARN, a", root="OFF"),
    "no-line-end": File(text=f"log4cplus.{C}\nlog4cplus.rootLogger=INFO,a"),
    "value-with-equals-sign": pattern("a=b %m%n"),
    "variables": File(
        text="level = INFO\nname = a\nwho = ${appname} ${name}${name}\nlog4cplus.rootLogger = ${level}, ${name}\n"
        "log4cplus.appender.${name} = log4cplus::ConsoleAppender\n"
        "log4cplus.appender.a.layout = log4cplus::PatternLayout\n"
        "log4cplus.appender.a.layout.ConversionPattern = ${who} ${LC_ALL} ${absent} ${} $x ${hostname} %m%n\n"
    ),
    "variables-of-the-start": pattern("${date} ${time} %m%n"),
    "variable-pid": pattern("${pid} %m%n", differs=NUMBERS),
    "variable-of-a-setting": pattern("${log4cplus.rootLogger} %m%n"),
    "variable-open": pattern("${appname} ${open %m%n"),
    "variable-nested": pattern("${a${appname}} %m%n"),
    # The console
    "console": console(),
    "console-stderr": console("logToStdErr = TRUE", "ImmediateFlush = true"),
    "console-stdout": console("logToStdErr = 0"),
    "threshold": console("Threshold = warn"),
    "threshold-off": console("Threshold = OFF"),
    # Filters
    "filter-deny-all": filters("1 = ::DenyAllFilter"),
    "filter-unreached": filters("1 = ::LogLevelRangeFilter", "1.AcceptOnMatch = true", "2 = ::DenyAllFilter"),
    "filter-unknown": filters("1 = ::Bogus", "2 = ::DenyAllFilter"),
    "filter-level": filters("1 = ::LogLevelMatchFilter", "1.LogLevelToMatch = INFO"),
    "filter-level-accepts": filters(
        "1 = ::LogLevelMatchFilter", "1.LogLevelToMatch = INFO", "1.AcceptOnMatch = true", "2 = ::DenyAllFilter"
    ),
    "filter-range": filters("1 = ::LogLevelRangeFilter", "1.LogLevelMin = INFO", "1.LogLevelMax = WARN"),
    "filter-range-below": filters("1 = ::LogLevelRangeFilter", "1.LogLevelMax = info"),
    "filter-text": filters("1 = ::StringMatchFilter", "1.StringToMatch = start"),
    "filter-text-accepts": filters(
        "1 = ::StringMatchFilter", "1.StringToMatch = start", "1.AcceptOnMatch = 1", "2 = ::DenyAllFilter"
    ),
    # Layouts
    "simple": console("layout = log4cplus::SimpleLayout"),
    "ttcc": console("layout = log4cplus::TTCCLayout", differs=NUMBERS),
    "ttcc-date": console(
        "layout = log4cplus::TTCCLayout",
        "layout.DateFormat = %d.%m.%Y %H:%M:%S.%q",
        "layout.Use_gmtime = true",
        differs=NUMBERS,
    ),
    "layout-unknown": console("layout = log4cplus::Bogus"),
    "pattern-missing": console("layout = log4cplus::PatternLayout"),
    "pattern-empty": pattern(""),
    "pattern-old-name": console("layout = log4cplus::PatternLayout", "layout.Pattern = [%m]%n"),
    "pattern-whole-message": pattern("%p: %m%n", "layout.FormatEachLine = false"),
    "pattern-of-the-default": pattern("%P: %m%n"),
    "pattern-of-the-sample": pattern("%D{%Y-%m-%d %H:%M:%S.%q} %5p - %-8c{1} - %m%n"),
    "pattern-widths": pattern("[%8p|%-8p|%3p|%.3p|%-3.2p|%12.4p|%.0p|%020p|%--9p]%n"),
    "pattern-logger": pattern("[%c|%c{1}|%c{2}|%c{9}|%c{0}|%c{x}|%c{}|%-30c{2}|%.5c]%n"),
    "pattern-times": pattern("%d|%D|%d{}|%D{%H:%M:%S.%q}|%d{%Q}|%D{%s}|%d{%%q}|%D{%y%}|%d{%a %b %j}%n"),
    "pattern-process": pattern("%i|%t|%r%n", differs=NUMBERS),
    "pattern-host": pattern("%h|%H%n"),
    "pattern-contexts": pattern("[%x|%X|%X{key}|%5x]%n"),
    "pattern-percent": pattern("100%% %%m %m%n"),
    "pattern-unknown-conversions": pattern("%q %5%%m %5-p [%.xp] %-k%n"),
    "pattern-unfinished": pattern("%m%n%-5"),
    "pattern-percent-at-the-end": pattern("%m%n%"),
    "pattern-open-brace": pattern("%m%n%c{1"),
    # Files
    "file": appender("FileAppender", "File = x.log", before=(("x.log", "before\n"),)),
    "file-append": appender("FileAppender", "File = ${appname}.log", "Append = true"),
    "file-appended-to": appender("FileAppender", "File = x.log", "Append = 1", before=(("x.log", "before\n"),)),
    "file-buffered": appender("FileAppender", "File = x.log", "ImmediateFlush = false", "BufferSize = 100"),
    "file-with-lock": appender("FileAppender", "File = x.log", "UseLockFile = true"),
    "file-with-named-lock": appender("FileAppender", "File = x.log", "UseLockFile = 1", "LockFile = y.lock"),
    "file-missing": appender("FileAppender"),
    "file-impossible": appender("FileAppender", "File = absent/x.log"),
    "file-by-a-variable-that-is-absent": appender("FileAppender", "File = ${absent}.log"),
    "file-in-a-layout": appender("FileAppender", "File = x.log", "layout = log4cplus::SimpleLayout", "Threshold = INFO"),
    "rolling": appender("RollingFileAppender", "File = x.log", before=(("x.log", "before\n"),)),
    "rolling-over": appender(
        "RollingFileAppender",
        "File = x.log",
        "MaxFileSize = 200KB",
        "MaxBackupIndex = 2",
        before=(("x.log", FILLER), ("x.log.1", "one"), ("x.log.2", "two")),
    ),
    "rolling-over-by-default": appender(
        "RollingFileAppender", "File = x.log", "MaxFileSize = 204800", before=(("x.log", FILLER), ("x.log.1", "one"))
    ),
    "rolling-not-over": appender(
        "RollingFileAppender", "File = x.log", "MaxFileSize = 1MB", before=(("x.log", FILLER),)
    ),
    # Others
    "null": appender("NullAppender"),
    "async": appender("AsyncAppender", "Appender = log4cplus::ConsoleAppender", "QueueLimit = 3"),
    "async-of-unknown": appender("AsyncAppender", "Appender = log4cplus::Bogus"),
    "quiet": lines("appender.a = log4cplus::Bogus", C.replace(".a", ".b"), "quietMode = true", root="INFO, b, a"),
}  # fmt: skip
"""Files that lead to the same here and there."""

OURS_REPORTS = {
    "misspelt-key": console("logToStderr = true"),
    "unknown-key": console("Bogus = 1"),
    "unknown-key-at-the-top": lines(C, "loger.dcmtk = INFO"),
    "no-equals-sign": lines(C, "bogus"),
    "wrong-truth-value": console("logToStdErr = yes"),
    "wrong-threshold": console("Threshold = LOUD"),
    "wrong-level-in-a-filter": filters("1 = ::LogLevelMatchFilter", "1.LogLevelToMatch = LOUD"),
    "wrong-level-of-a-logger": lines(C, "logger.dcmtk.apps = LOUD"),
    "wrong-additivity": lines(C, "additivity.dcmtk = LOUD"),
    "filter-without-the-one-before": filters("2 = ::DenyAllFilter"),
    "small-file": appender(
        "RollingFileAppender", "File = x.log", "MaxFileSize = 5", before=(("x.log", FILLER),)
    ),
    "lock-without-file": console("UseLockFile = true"),
    "keys-of-the-sample-filters": filters("1 = ::LogLevelRangeFilter", "1.logLevelMin = warn"),
}
"""Files that DCMTK takes without a word, though something in them has no effect."""


def prepared(folder, file):
    folder.mkdir()
    for name, text in file.before:
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def both(tool, file, folder, port, messages):
    theirs = outcome_of_dcmtk(tool, file.text, prepared(folder / "theirs", file), port)
    ours = outcome_of_ours(tool, file.text, prepared(folder / "ours", file), messages[tool])
    return shape(theirs, file.differs), shape(ours, file.differs)


def test_the_programs_say_enough_to_compare(messages):
    said = {
        (message.logger.split(".")[-1], message.level.name) for tool in TOOLS for message in messages[tool]
    }
    assert {level for _, level in said} == {"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"}
    assert {logger for logger, _ in said} >= {"root", "storescp", "dcmrecv", "dcmdata", "dcmnet"}
    assert any("\n" in message.text for message in messages["storescp"])


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", FILES)
def test_ours_writes_what_dcmtk_writes(name, tool, tmp_path, port, messages):
    theirs, ours = both(tool, FILES[name], tmp_path, port, messages)
    assert ours == theirs
    assert theirs.ending == RUNS


@pytest.mark.parametrize("name", OURS_REPORTS)
def test_ours_reports_what_dcmtk_passes_over(name, tmp_path, port, messages):
    theirs, ours = both("dcmrecv", OURS_REPORTS[name], tmp_path, port, messages)
    assert not theirs.complains
    assert ours == replace(theirs, complains=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "bogus\n",
        "a = b\n",
        "log4cplus.appender.a = log4cplus::NullAppender\n",
        "log4cplus.rootlogger = INFO\n",
        "Log4cplus.rootLogger = INFO\n",
        "x = rootLogger\nlog4cplus.${x} = INFO\n",
    ],
)
def test_the_same_files_end_the_program(text, tmp_path, port, messages):
    theirs, ours = both("storescp", File(text=text), tmp_path, port, messages)
    assert theirs.ending == ours.ending == ERROR


# What differs, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A file that leads to something else here than there, and why that is meant."""

    reason: str
    file: File
    theirs: str = RUNS
    ours: str = RUNS


DIFFERENCES = {
    "level-of-the-root": Difference(
        reason="DCMTK crashes at a root without level; ours ends with an error that says so",
        file=lines(C, root="LOUD, a"),
        theirs=CRASH,
        ours=ERROR,
    ),
    "root-inherits": Difference(
        reason="the same crash", file=lines(C, root="INHERITED, a"), theirs=CRASH, ours=ERROR
    ),
    "async-without-appender": Difference(
        reason="DCMTK crashes; ours writes nothing and says so",
        file=appender("AsyncAppender"),
        theirs=CRASH,
    ),
    "endless-variables": Difference(
        reason="DCMTK hangs; ours ends with an error",
        file=File(text=f"log4cplus.rootLogger = INFO, a\nlog4cplus.{C}\nx = ${{x}}\n"),
        theirs=HANGS,
        ours=ERROR,
    ),
    "empty-time": Difference(
        reason="DCMTK crashes at a time that is empty; ours writes nothing in its place",
        file=pattern("%d{%}%m%n"),
        theirs=CRASH,
    ),
    "buffer-size": Difference(
        reason="DCMTK leaves the appender out when so much memory cannot be had; ours takes as much as is allowed",
        file=appender("FileAppender", "File = x.log", "BufferSize = -1"),
    ),
    "threshold-with-wrong-layout": Difference(
        reason="DCMTK forgets threshold and filters when the layout is wrong",
        file=console("layout = log4cplus::Bogus", "Threshold = FATAL"),
    ),
    "days-at-the-end": Difference(
        reason="DCMTK puts a file away when the program ends, so that the eleventh end of a day loses lines",
        file=appender("DailyRollingFileAppender", "File = x.log", "Schedule = daily"),
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_ours_differs_as_it_is_meant_to(name, tmp_path, port, messages, monkeypatch):
    monkeypatch.setattr("support.dcmtk_command_lines.SECONDS_MAX", 3)  # of which one hangs
    difference = DIFFERENCES[name]
    theirs, ours = both("dcmrecv", difference.file, tmp_path, port, messages)
    assert (theirs.ending, ours.ending) == (difference.theirs, difference.ours)
    assert theirs != ours


def test_days_hold_the_same_lines_under_the_name_they_have_until_they_are_over(tmp_path, port, messages):
    theirs, ours = both("dcmrecv", DIFFERENCES["days-at-the-end"].file, tmp_path, port, messages)
    (empty, lines_of_theirs), (name, lines_of_ours) = theirs.files[0], ours.files[0]
    assert (empty, name, lines_of_theirs) == ("x.log", "x.log", "")
    assert theirs.files[1] == ("x.log.0000-00-00", lines_of_ours)


# What goes over the network


@pytest.mark.parametrize("kind", ["SysLogAppender", "Log4jUdpAppender"])
def test_log_servers_get_the_same_datagrams(kind, tmp_path, port, messages):
    def received(run):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((LOOPBACK, 0))
            server.settimeout(0.5)
            settings = ["host = localhost", f"port = {server.getsockname()[1]}", "Threshold = INFO"]
            if kind == "SysLogAppender":
                settings += ["ident = my-ident", "facility = LOCAL0"]
            run(appender(kind, *settings).text)
            datagrams = []
            while True:
                try:
                    datagrams.append(server.recv(10_000).decode())
                except TimeoutError:
                    return datagrams

    theirs = received(
        lambda text: outcome_of_dcmtk("dcmrecv", text, prepared(tmp_path / "a", File(text="")), port)
    )
    ours = received(
        lambda text: outcome_of_ours(
            "dcmrecv", text, prepared(tmp_path / "b", File(text="")), messages["dcmrecv"]
        )
    )
    assert len(ours) == len(theirs) > 3
    assert [comparable(datagram) for datagram in ours] == [comparable(datagram) for datagram in theirs]


def comparable(datagram):
    """Return a datagram without the place in the code, and numbers behind the priority as zeros."""
    head, bracket, rest = datagram.partition(">")
    content, location, place = rest.partition("<log4j:locationInfo")
    assert bool(location) is datagram.startswith("<log4j")
    assert len(re.findall(' [a-z]+="[^"]*"', place)) == (4 if location else 0)
    if location:
        head = re.sub(NUMBERS, "0", head)
    return head + bracket + re.sub(NUMBERS, "0", content)


@pytest.mark.parametrize("name", ["logger.cfg", "filelog.cfg"])
def test_dcmtks_own_samples_do_the_same_here(name, tmp_path, port, messages):
    path = Path("/etc/dcmtk") / name
    if not path.exists():
        pytest.skip("needs the samples that Debian installs with DCMTK")
    theirs, ours = both("dcmrecv", File(text=path.read_text(encoding="ascii")), tmp_path, port, messages)
    assert ours == replace(theirs, complains=True)  # of the key that is spelt wrong there
