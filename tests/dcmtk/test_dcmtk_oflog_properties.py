"""The text of a log's configuration file: keys and values, variables, and the values that settings take."""

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.limits import EXPANDED_CHARACTERS_MAX, EXPANSIONS_MAX
from stowkeeper.dcmtk.oflog.properties import ExpansionError, expand_properties, parse_properties
from stowkeeper.dcmtk.oflog.settings import Settings


def properties(text):
    return parse_properties(text)[0]


def expanded(properties, **environment):
    return expand_properties(properties, environment)[0]


# --- lines


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a = b", {"a": "b"}),
        ("a=b", {"a": "b"}),
        (" \t a b \t=\v c d \f\r", {"a b": "c d"}),
        ("a = b = c", {"a": "b = c"}),
        ("a =", {"a": ""}),
        ("= b", {"": "b"}),
        ("a = b # no comment", {"a": "b # no comment"}),
        ("a# = b", {"a#": "b"}),
        ("# a = b", {}),
        ("  # a = b", {}),
        ("", {}),
        ("   \r", {}),
        ("a", {}),
        ("a = x\nA = y", {"a": "x", "A": "y"}),
        ("a = x\r\na = y\r\n", {"a": "y"}),
        ("a = x\\\nb = y", {"a": "x\\", "b": "y"}),
        ("a = x\rb = y", {"a": "x\rb = y"}),
    ],
)
def test_a_line_is_key_and_value(line, found):
    assert properties(line) == found


def test_lines_that_mean_nothing_are_remarked_on():
    found, remarks = parse_properties("a = 1\nbogus\n\n# comment\nb\0 = 2\n#\0")
    assert found == {"a": "1"}
    assert [remark.split(":")[0] for remark in remarks] == ["line 2", "line 5"]


# --- variables


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("${x}", "1"),
        ("a${x}b${x}c", "a1b1c"),
        ("${x", "${x"),
        ("$x", "$x"),
        ("${}", "${}"),
        ("${absent}-${x}", "${absent}-1"),
        ("${a${x}}", "${a${x}}"),
        ("${empty}", "${empty}"),
        ("${HOME}", "/root"),
        ("${both}", "from the file"),
        ("${emptyhere}", "from outside"),
        ("${two}", "1+1"),
        ("${open${x}", "${open${x}"),
        ("}${x}{", "}1{"),
    ],
)
def test_a_variable_is_what_the_file_says_else_the_environment(value, result):
    file = {"x": "1", "empty": "", "both": "from the file", "emptyhere": "", "two": "${x}+${x}", "v": value}
    environment = {"HOME": "/root", "both": "from outside", "emptyhere": "from outside"}
    assert expand_properties(file, environment)[0]["v"] == result


def test_variables_are_replaced_in_keys_too():
    assert expanded({"${a}.b": "${a}", "a": "x"}) == {"x.b": "x", "a": "x"}


def test_what_is_put_in_is_expanded_again():
    assert expanded({"v": "${a}", "a": "${b}", "b": "$" + "{c}", "c": "end"})["v"] == "end"
    assert expanded({"v": "${a}b}", "a": "${", "b": "end"})["v"] == "end"


def test_a_brace_that_stays_open_is_remarked_on_once():
    found, remarks = expand_properties({"v": "${x}${y", "x": "1", "${z": "2", "w": "${x}"}, {})
    assert found == {"v": "${x}${y", "x": "1", "${z": "2", "w": "1"}
    assert remarks == [
        "'${z': a brace is not closed, so no variable is replaced",
        "'${x}${y': a brace is not closed, so no variable is replaced",
    ]


@pytest.mark.parametrize(
    "file",
    [
        {"x": "${x}"},
        {"x": "-${x}-"},
        {"x": "${y}", "y": "${x}"},
        {"${x}": "1", "x": "${x}"},
    ],
)
def test_variables_without_end_are_an_error(file):
    with pytest.raises(ExpansionError, match="contains itself"):
        expand_properties(file, {})


def test_the_number_of_variables_has_a_bound():
    assert len(expanded({"v": "${x}" * 100, "x": "1"})["v"]) == 100
    file = {str(number): "${x}" * 10 for number in range(EXPANSIONS_MAX // 10)}
    assert expanded({**file, "x": "1"})["0"] == "1" * 10
    with pytest.raises(ExpansionError):
        expand_properties({**file, "x": "1", "one too many": "${x}"}, {})


def test_the_length_of_what_comes_out_has_a_bound():
    doubled = {f"x{number}": f"${{x{number + 1}}}" * 2 for number in range(40)}
    before = time.monotonic()
    with pytest.raises(ExpansionError):
        expand_properties(doubled, {"x40": "y"})
    assert time.monotonic() - before < 20
    assert len(expanded({"v": "${x}"}, x="y" * EXPANDED_CHARACTERS_MAX)["v"]) == EXPANDED_CHARACTERS_MAX
    with pytest.raises(ExpansionError):
        expanded({"v": "${x}"}, x="y" * (EXPANDED_CHARACTERS_MAX + 1))


SCRAPS = st.sampled_from(
    ["a", "b", "c", "${", "}", "$", "{", "=", "\n", " ", "#", "${a}", "${b}", "\0", "\r"]
)


@given(st.lists(SCRAPS, max_size=40).map("".join))
def test_any_text_is_expanded_or_an_error(text):
    found, _ = parse_properties(text)
    try:
        after, remarks = expand_properties(found, {"c": "1"})
    except ExpansionError:
        return
    assert expand_properties(after, {"c": "1"}) == (after, remarks)


# --- what settings take


def settings(**values):
    stream = io.StringIO()
    return Settings({f"p.{key}": value for key, value in values.items()}, "p.", Complaints(stream)), stream


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("TRUE", True),
        ("False", False),
        ("1", True),
        ("0", False),
        ("-1", True),
        ("+0", False),
        ("007", True),
    ],
)
def test_truth_values(text, value):
    for default in (True, False):
        given_, stream = settings(key=text)
        assert given_.boolean("key", default=default) is value
        assert stream.getvalue() == ""


@pytest.mark.parametrize("text", ["", "yes", "true x", "1.5", "0x1", "t", "9" * 30])
def test_what_is_no_truth_value_is_reported_and_not_taken(text):
    for default in (True, False):
        given_, stream = settings(key=text)
        assert given_.boolean("key", default=default) is default
        assert stream.getvalue().startswith("log4cplus:WARN p.key: ")


def test_numbers_are_brought_into_their_range():
    for text, value, is_reported in [
        ("5", 5, False),
        ("+5", 5, False),
        ("005", 5, False),
        ("0", 1, True),
        ("-3", 1, True),
        ("11", 10, True),
        ("x", 7, True),
        ("5 5", 7, True),
        ("5KB", 7, True),
        ("", 7, True),
        ("9" * 30, 7, True),
    ]:
        given_, stream = settings(key=text)
        assert given_.integer("key", 7, minimum=1, maximum=10) == value
        assert bool(stream.getvalue()) is is_reported
    absent, stream = settings()
    assert absent.integer("key", 7, minimum=8) == 7
    assert absent.boolean("key", default=True)
    assert absent.level("key") is None
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("word", "level"),
    [
        ("trace", LogLevel.TRACE),
        ("ALL", LogLevel.TRACE),
        ("Debug", LogLevel.DEBUG),
        ("INFO", LogLevel.INFO),
        ("warn", LogLevel.WARN),
        ("error", LogLevel.ERROR),
        ("fatal", LogLevel.FATAL),
        ("off", LogLevel.OFF),
        ("warning", None),
        ("", None),
        ("NOTSET", None),
    ],
)
def test_levels_have_their_names_in_any_case(word, level):
    given_, stream = settings(key=word)
    assert given_.level("key") is level
    assert bool(stream.getvalue()) is (level is None)


def test_keys_that_nobody_asked_for_are_reported():
    given_, stream = settings(**{"a.File": "1", "a.file": "2", "b": "3", "c": "4", "c.d": "5", "c.d.e": "6"})
    assert given_.below("a.").text("File") == "1"
    given_.complain_of_part("c", "left out")
    given_.text("c")
    given_.complain_of_unknown()
    assert stream.getvalue().splitlines() == [
        "log4cplus:ERROR p.c: left out",
        "log4cplus:WARN p.a.file: unknown, has no effect; the key is p.a.File",
        "log4cplus:WARN p.b: unknown, has no effect",
    ]
