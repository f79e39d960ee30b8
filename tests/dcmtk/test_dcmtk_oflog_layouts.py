"""How a message becomes a line: patterns, the other layouts, times, and what filters take."""

import logging
import os
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog.filters import FilterChain, deny_all, level_match, level_range, text_match
from stowkeeper.dcmtk.oflog.layouts import PatternLayout, SimpleLayout, TTCCLayout, default_layout
from stowkeeper.dcmtk.oflog.levels import NUMBERS, level_of
from stowkeeper.dcmtk.oflog.limits import FIELD_WIDTH_MAX
from stowkeeper.dcmtk.oflog.patterns import parse_pattern
from stowkeeper.dcmtk.oflog.times import Schedule, format_time

TIME = 1_717_142_399.123456
"""2024-05-31 07:59:59 UTC, a Friday."""


def record(message="hello", level=LogLevel.INFO, name="dcmtk.apps.storescp", **attributes):
    made = logging.LogRecord(name, NUMBERS[level], "/src/receiving.py", 42, message, (), None, "receive")
    made.created = TIME
    made.relativeCreated = 12_345.6
    made.__dict__.update(attributes)
    return made


def line(pattern, made=None):
    fields, _ = parse_pattern(pattern)
    return PatternLayout(fields).text(made or record())


def defects(pattern):
    return parse_pattern(pattern)[1]


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# --- conversions


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%m", "hello"),
        ("%n", "\n"),
        ("%p", "INFO"),
        ("%P", "I"),
        ("%c", "dcmtk.apps.storescp"),
        ("%c{1}", "storescp"),
        ("%c{2}", "apps.storescp"),
        ("%c{3}", "dcmtk.apps.storescp"),
        ("%c{9}", "dcmtk.apps.storescp"),
        ("%c{0}", "dcmtk.apps.storescp"),
        ("%c{-1}", "dcmtk.apps.storescp"),
        ("%c{x}", "dcmtk.apps.storescp"),
        ("%c{}", "dcmtk.apps.storescp"),
        ("%c{ 1 }", "storescp"),
        ("%F", "/src/receiving.py"),
        ("%b", "receiving.py"),
        ("%L", "42"),
        ("%l", "/src/receiving.py:42"),
        ("%M", "receive"),
        ("%r", "12345"),
        ("[%x]", "[]"),
        ("[%X]", "[]"),
        ("[%X{key}]", "[]"),
        ("%%", "%"),
        ("%%m", "%m"),
        ("%%%m", "%hello"),
        ("a%mb", "ahellob"),
        ("", ""),
        ("plain {1} text", "plain {1} text"),
        ("%m{1}", "hello{1}"),
    ],
)
def test_conversions(pattern, text):
    assert line(pattern) == text
    assert defects(pattern) == []


def test_conversions_of_this_process():
    made = record()
    assert line("%i", made) == str(os.getpid())
    assert line("%t", made) == str(threading.get_ident())
    assert line("%T", made) == str(threading.get_native_id())
    assert line("%T", record(native_thread=5)) == "5"
    assert line("%h", made) == socket.gethostname()
    assert line("%H", made).startswith(socket.gethostname().split(".")[0])


def test_levels():
    for level, word in zip(
        LogLevel, ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "OFF"), strict=True
    ):
        assert line("%p %P", record(level=level)) == f"{word} {word[0]}"
    assert level_of(0) is LogLevel.TRACE
    assert level_of(NUMBERS[LogLevel.WARN] + 1) is LogLevel.WARN


def test_a_message_without_a_place_in_the_code():
    made = record(pathname="", lineno=0, funcName=None)
    assert line("[%F|%b|%L|%l|%M]", made) == "[|||:|]"


# --- widths


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("[%8p]", "[    INFO]"),
        ("[%-8p]", "[INFO    ]"),
        ("[%--8p]", "[INFO    ]"),
        ("[%3p]", "[INFO]"),
        ("[%.3p]", "[NFO]"),
        ("[%.0p]", "[]"),
        ("[%5.2p]", "[FO]"),
        ("[%-5.2p]", "[FO]"),
        ("[%5.9p]", "[ INFO]"),
        ("[%08p]", "[    INFO]"),
        ("[%-10c{1}]", "[storescp  ]"),
        ("[%5n]", "[    \n]"),
        ("[%4X{k}]", "[    ]"),
        ("[%.99999999999999999999m]", "[hello]"),
    ],
)
def test_widths(pattern, text):
    assert line(pattern) == text
    assert defects(pattern) == []


def test_the_width_has_a_bound():
    assert len(line(f"%{FIELD_WIDTH_MAX}m")) == FIELD_WIDTH_MAX
    assert defects(f"%{FIELD_WIDTH_MAX}m") == []
    for digits in (str(FIELD_WIDTH_MAX + 1), "9" * 5000):
        assert len(line(f"%{digits}m")) == FIELD_WIDTH_MAX
        assert len(defects(f"%{digits}m")) == 1


# --- what is no conversion


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%q", "%q"),
        ("[%5q]%m", "[%5q]hello"),
        ("%5%m", "%5%m"),
        ("%5-p", "%5-p"),
        ("%.xp", "%.xp"),
        ("%.%m", "%.%m"),
        ("%5.p%m", "%5.phello"),
        ("%d{", "2024-05-31 07:59:59"),
        ("%m%d{%H oops", "hello2024-05-31 07:59:59"),
        ("%c{1", "dcmtk.apps.storescp"),
    ],
)
def test_mistakes_stand_for_themselves_and_are_reported(pattern, text):
    assert line(pattern) == text
    assert len(defects(pattern)) == 1


@pytest.mark.parametrize("pattern", ["%", "a%", "%5", "%-", "%-5.", "%.5", "%m%"])
def test_a_conversion_that_ends_with_the_pattern_stands_for_itself(pattern):
    assert line(pattern) == pattern.replace("%m", "hello")
    assert defects(pattern) == []


@given(st.text(st.sampled_from("%-.05{}cdDXmnpPqb \n"), max_size=30))
def test_any_pattern_makes_text(pattern):
    fields, _ = parse_pattern(pattern)
    assert isinstance(PatternLayout(fields).text(record()), str)
    if "%" not in pattern:
        assert line(pattern) == pattern


# --- times


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%d", "2024-05-31 07:59:59"),
        ("%D", "2024-05-31 09:59:59"),
        ("%d{}", "2024-05-31 07:59:59"),
        ("%D{%H:%M:%S.%q}", "09:59:59.123"),
        ("%d{%Q}", "123.456"),
        ("%d{%s}", "1717142399"),
        ("%D{%s}", "1717142399"),
        ("%d{%%q %%}", "%q %"),
        ("%d{%y%}", "24"),
        ("%d{%}", ""),
        ("%d{ }", " "),
        ("%22D{%Y}", " " * 18 + "2024"),
        ("%d{%a %b}", "Fri May"),
    ],
)
def test_times(pattern, text, berlin):
    assert line(pattern) == text


def test_fractions_of_a_second_have_three_digits():
    assert format_time(5.001002, "%q|%Q", utc=True) == "001|001.002"
    assert format_time(5.0, "%q|%Q", utc=True) == "000|000.000"


# --- layouts


def test_the_simple_layout():
    assert SimpleLayout().text(record("a\nb", LogLevel.WARN)) == "WARN - a\nb\n"


def test_the_ttcc_layout(berlin):
    thread = threading.get_ident()
    assert TTCCLayout().text(record()) == f"12345 [{thread}] INFO dcmtk.apps.storescp <> - hello\n"
    dated = TTCCLayout(date_format="%H:%M.%q").text(record())
    assert dated == f"09:59.123 [{thread}] INFO dcmtk.apps.storescp <> - hello\n"
    assert TTCCLayout(date_format="%H", utc=True).text(record()).startswith("07 [")


def test_a_pattern_is_written_for_every_line_of_a_message():
    fields, _ = parse_pattern("%P: %m%n")
    each, whole = PatternLayout(fields), PatternLayout(fields, formats_each_line=False)
    assert each.text(record("a\n\nb")) == "I: a\nI: \nI: b\n"
    assert each.text(record("a\n")) == "I: a\nI: \n"
    assert each.text(record("")) == "I: \n"
    assert whole.text(record("a\nb")) == "I: a\nb\n"
    assert default_layout().text(record("a\nb", LogLevel.FATAL)) == "F: a\nF: b\n"


# --- filters


def taken(*filters, **attributes):
    chain = FilterChain(filters)
    return [level.name for level in list(LogLevel)[:6] if chain.filter(record(level=level, **attributes))]


ALL = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]


def test_without_a_verdict_a_message_is_taken():
    assert taken() == ALL
    assert taken(deny_all()) == []


def test_level_match():
    accept = level_match(LogLevel.WARN, accepts=True)
    assert taken(accept) == ALL
    assert taken(accept, deny_all()) == ["WARN"]
    assert taken(level_match(LogLevel.WARN, accepts=False)) == [name for name in ALL if name != "WARN"]
    assert taken(level_match(None, accepts=False)) == ALL


def test_level_range():
    middle = level_range(LogLevel.INFO, LogLevel.ERROR, accepts=False)
    assert taken(middle) == ["INFO", "WARN", "ERROR"]
    assert taken(middle, deny_all()) == []
    assert taken(level_range(LogLevel.INFO, LogLevel.ERROR, accepts=True), deny_all()) == [
        "INFO",
        "WARN",
        "ERROR",
    ]
    assert taken(level_range(None, LogLevel.DEBUG, accepts=False)) == ["TRACE", "DEBUG"]
    assert taken(level_range(LogLevel.FATAL, None, accepts=False)) == ["FATAL"]
    assert taken(level_range(None, None, accepts=False)) == ALL


def test_text_match():
    assert taken(text_match("ell", accepts=True), deny_all()) == ALL
    assert taken(text_match("ell", accepts=False)) == []
    assert taken(text_match("bye", accepts=False)) == ALL
    assert taken(text_match("", accepts=False)) == ALL


# --- periods of files


def at(text):
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


@pytest.mark.parametrize(
    ("schedule", "now", "name", "following"),
    [
        (Schedule.MONTHLY, "2024-02-29 12:00:00", "2024-02", "2024-03-01 00:00:00"),
        (Schedule.MONTHLY, "2024-12-31 23:59:59", "2024-12", "2025-01-01 00:00:00"),
        (Schedule.WEEKLY, "2024-05-31 09:59:59", "2024-21", "2024-06-02 00:00:00"),
        (Schedule.WEEKLY, "2024-06-02 00:00:00", "2024-22", "2024-06-09 00:00:00"),
        (Schedule.WEEKLY, "2024-06-08 23:59:59", "2024-22", "2024-06-09 00:00:00"),
        (Schedule.DAILY, "2024-05-31 23:59:59", "2024-05-31", "2024-06-01 00:00:00"),
        (Schedule.DAILY, "2024-05-31 00:00:00", "2024-05-31", "2024-06-01 00:00:00"),
        (Schedule.DAILY, "2024-03-31 12:00:00", "2024-03-31", "2024-04-01 00:00:00"),
        (Schedule.TWICE_DAILY, "2024-05-31 11:59:59", "2024-05-31-AM", "2024-05-31 12:00:00"),
        (Schedule.TWICE_DAILY, "2024-05-31 12:00:00", "2024-05-31-PM", "2024-06-01 00:00:00"),
        (Schedule.HOURLY, "2024-05-31 23:59:59", "2024-05-31-23", "2024-06-01 00:00:00"),
        (Schedule.MINUTELY, "2024-05-31 23:59:59", "2024-05-31-23-59", "2024-06-01 00:00:00"),
        (Schedule.MINUTELY, "2024-05-31 09:00:00", "2024-05-31-09-00", "2024-05-31 09:01:00"),
    ],
)
def test_periods(schedule, now, name, following, berlin):
    assert schedule.name_at(at(now)) == name
    assert schedule.next_start(at(now)) == at(following)


@pytest.mark.parametrize("zone", ["CET-1CEST,M3.5.0,M10.5.0/3", "CST5CDT,M3.2.0/0,M11.1.0/1", "<+0545>-5:45"])
@pytest.mark.parametrize("schedule", Schedule)
def test_every_period_ends_soon_and_later_than_it_began(schedule, zone, monkeypatch):
    longest = {"MONTHLY": 31 * 24, "WEEKLY": 7 * 24, "DAILY": 24, "TWICE_DAILY": 12}.get(schedule.name, 1) + 1
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for begin in (1_711_836_000, 1_729_980_000, 1_730_610_000, 1_710_000_000):
            for now in range(begin, begin + 3 * 86_400, 1_777):
                following = schedule.next_start(now)
                assert now < following <= now + longest * 3600
                assert schedule.name_at(following) != schedule.name_at(now) or schedule is Schedule.HOURLY
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_midnight_that_is_skipped_ends_a_period_once(monkeypatch, berlin):
    now = at("2024-03-30 23:30:00")
    monkeypatch.setattr(
        time, "mktime", lambda _fields: now - 1800
    )  # as some C libraries answer for such a time
    assert Schedule.DAILY.next_start(now) == now + 60
