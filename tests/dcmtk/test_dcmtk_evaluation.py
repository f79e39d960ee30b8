"""What a command line selects: integers, blocks whose rightmost member counts, rules, and the order of errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.evaluation import (
    Selection,
    alternatives,
    leading_integer,
    option_integer,
    port_number,
)
from stowkeeper.dcmtk.grammar import (
    CommandLineError,
    Group,
    Integers,
    NotWith,
    OnlyWith,
    Option,
    OptionTable,
    Section,
    Value,
    parse,
)
from stowkeeper.dcmtk.limits import INTEGER_MAX

SIZE = Value(label="[n]", integers=Integers(minimum=4096, maximum=131072))
COUNT = Value(label="[c]", integers=Integers())
SECONDS = Value(label="[s]", integers=Integers(minimum=-1, signed=True))

NUMBERS = (
    Option(long="--size", short="-n", values=(SIZE,), meaning="n"),
    Option(long="--seconds", short="-t", values=(SECONDS,), meaning="t"),
    Option(long="--word", short="-w", values=(Value(label="[w]", words=("one", "two")),), meaning="w"),
    Option(long="--many", short="-m", values=(Value(label="[m]"),), repeats=True, meaning="m"),
)
BLOCK = (
    Option(long="--plain", short="-a", is_default=True, meaning="a"),
    Option(long="--fancy", short="-b", rules=(NotWith(others=("--bare",)),), meaning="b"),
    Option(
        long="--counted",
        short="-c",
        values=(COUNT, COUNT),
        rules=(NotWith(others=("--fork", "--bare")),),
        meaning="c",
    ),
)
OTHERS = (
    Option(long="--dressed", short="-d", is_default=True, meaning="d"),
    Option(long="--bare", short="-x", meaning="x"),
    Option(long="--fork", short="-f", meaning="f"),
    Option(
        long="--level",
        short="-l",
        values=(COUNT,),
        rules=(OnlyWith(others=("--plain", "--fancy")),),
        meaning="l",
    ),
)
TABLE = OptionTable(
    tool="tool",
    title="a tool",
    port_meaning="the port",
    is_port_required=False,
    sections=(Section(title="options", groups=(Group(options=(*NUMBERS, *BLOCK, *OTHERS)),)),),
    stages={
        "numbers": (("--size",), ("--seconds",), ("--word",), ("--many",)),
        "rules": (("--dressed", "--bare"), ("--fork",), ("--plain", "--fancy", "--counted"), ("--level",)),
    },
)


def select(line: str, *stages: str) -> Selection:
    selection = Selection(TABLE, parse(TABLE, line.split()))
    for stage in stages or ("numbers", "rules"):
        selection.check(stage)
    return selection


def error(line: str, *stages: str) -> str:
    with pytest.raises(CommandLineError) as caught:
        select(line, *stages)
    return str(caught.value)


# Integers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("104", 104),
        ("104abc", 104),
        ("104.9", 104),
        ("5e3", 5),
        ("0x2000", 0),
        ("007", 7),
        ("+7", 7),
        ("-7", -7),
        (" \t\n\v\f\r7 8", 7),
        ("", None),
        ("abc", None),
        ("-x", None),
        ("- 7", None),
        ("+", None),
        ("٥", None),
        ("\xa07", None),
        (str(INTEGER_MAX), INTEGER_MAX),
        (str(INTEGER_MAX + 1), INTEGER_MAX),
        ("9" * 5000, INTEGER_MAX),
        ("-" + "9" * 5000, -INTEGER_MAX),
        ("0" * 5000 + "1", 1),
    ],
)
def test_leading_integer(text: str, number: int | None) -> None:
    assert leading_integer(text) == number


@pytest.mark.slow
@given(st.text())
def test_every_text_is_an_integer_within_bounds_or_none(text: str) -> None:
    number = leading_integer(text)
    assert number is None or abs(number) <= INTEGER_MAX


@given(st.integers(-INTEGER_MAX, INTEGER_MAX), st.text("x. ", max_size=3))
def test_an_integer_comes_back_whatever_follows_it(number: int, rest: str) -> None:
    assert leading_integer(f"{number}{rest}") == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4095", "(underflow: 4095)"),
        ("5e3", "(underflow: 5e3)"),
        ("131073", "(overflow: 131073)"),
        ("99999999999", "(overflow: 99999999999)"),
        ("abc", "(abc)"),
        ("-5", "(-5)"),
        ("-0", "(-0)"),
        (" -5", "( -5)"),
    ],
)
def test_integers_without_a_sign(text: str, message: str) -> None:
    option = NUMBERS[0]
    with pytest.raises(CommandLineError) as caught:
        option_integer(option, text, SIZE.integers or Integers())
    assert str(caught.value) == f"Invalid value for option --size {message}"


@pytest.mark.parametrize(("text", "message"), [("-2", " (underflow: -2)"), ("-x", " (-x)"), ("", "")])
def test_integers_with_a_sign(text: str, message: str) -> None:
    option = NUMBERS[1]
    with pytest.raises(CommandLineError) as caught:
        option_integer(option, text, SECONDS.integers or Integers())
    assert str(caught.value) == f"Invalid value for option --seconds{message}"


def test_integers_that_fit() -> None:
    selection = select("-n 9000x -t -1")
    assert (selection.integer("--size"), selection.integer("--seconds")) == (9000, -1)
    assert select("-n 4096").integer("--size") == 4096
    assert select("-n 131072").integer("--size") == 131072
    assert select("").integer("--size") is None


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("65535", 65535), (" 104abc", 104), ("+104", 104)])
def test_ports(text: str, port: int) -> None:
    assert port_number(text) == port


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "0 (underflow)"),
        ("-0", "-0 (underflow)"),
        ("0x68", "0x68 (underflow)"),
        ("65536", "65536 (overflow)"),
        ("4294967297", "4294967297 (overflow)"),
        ("-104", "-104 (overflow)"),
        ("abc", "abc"),
        ("", ""),
    ],
)
def test_wrong_ports(text: str, message: str) -> None:
    with pytest.raises(CommandLineError) as caught:
        port_number(text)
    assert str(caught.value) == f"Invalid parameter value {message}"


def test_the_port_of_a_selection() -> None:
    assert select("104").port() == 104
    with pytest.raises(CommandLineError, match="Missing parameter port"):
        select("").port()


# Values


def test_words_match_without_regard_to_case() -> None:
    assert select("-w TWO").text("--word") == "TWO"
    assert error("-w three") == "Invalid value for option --word (three): use one or two"
    assert error("-w two -w three") == "Invalid value for option --word (three): use one or two"
    assert select("-w three -w two").text("--word") == "two"


def test_only_options_that_repeat_count_more_than_once() -> None:
    selection = select("-m x -m y -n 5000 -n 6000")
    assert selection.texts("--many") == ("x", "y")
    assert selection.integer("--size") == 6000


# Blocks


@pytest.mark.parametrize(
    ("line", "effective"),
    [("", None), ("-a", "--plain"), ("-a -b", "--fancy"), ("-b -a", "--plain"), ("-b -c 1 2 -b", "--fancy")],
)
def test_the_rightmost_of_a_block_is_in_effect(line: str, effective: str | None) -> None:
    selection = select(line)
    given = [long for long in ("--plain", "--fancy", "--counted") if selection.has(long)]
    assert given == ([] if effective is None else [effective])
    assert selection.choice({"--fancy": 1, "--counted": 2}, 0) == {"--fancy": 1}.get(effective or "", 0)


def test_values_of_an_overridden_option_are_not_given() -> None:
    assert select("-c 1 2").integers("--counted") == (1, 2)
    assert select("-c 1 2 -b").values("--counted") is None


def test_a_member_to_the_left_of_a_found_one_is_not_checked() -> None:
    # The members are looked at in the order of the block; what stands left of a found one is passed over.
    assert select("-c x y -a").has("--plain")
    assert error("-b -c 1 2 -x") == "--fancy not allowed with --bare"
    assert error("-c 1 2 -b -x") == "--fancy not allowed with --bare"
    assert select("-b -a -x").has("--plain")
    assert error("-a -b -x") == "--fancy not allowed with --bare"


# Rules


def test_a_conflict_counts_while_the_other_is_in_effect() -> None:
    assert error("-b -x") == "--fancy not allowed with --bare"
    assert error("-x -b") == "--fancy not allowed with --bare"
    assert select("-b -x -d").has("--fancy")
    assert error("-b -d -x") == "--fancy not allowed with --bare"


def test_one_rule_may_name_several() -> None:
    assert error("-c 1 2 -f") == "--counted not allowed with --fork or --bare"
    assert alternatives(["a"]) == "a"
    assert alternatives(["a", "b", "c"], "and") == "a, b and c"


def test_a_dependence_is_met_also_by_a_default() -> None:
    assert select("-l 3").integer("--level") == 3
    assert select("-l 3 -c 1 2 -b").integer("--level") == 3
    assert error("-l 3 -c 1 2") == "--level only allowed with --plain or --fancy"


def test_rules_come_before_values() -> None:
    assert error("-l x -c 1 2") == "--level only allowed with --plain or --fancy"
    assert error("-l x") == "Invalid value for option --level (x)"


def test_errors_come_in_the_order_of_the_table() -> None:
    assert error("-l x -b -x -n 1 -t -2") == "Invalid value for option --size (underflow: 1)"
    assert error("-l x -b -x -t -2") == "Invalid value for option --seconds (underflow: -2)"
    assert error("-l x -b -x") == "--fancy not allowed with --bare"
    assert error("-l x -b -x -n 1 -t -2", "rules") == "--fancy not allowed with --bare"


def test_errors_are_silent_from_where_the_program_is() -> None:
    selection = Selection(TABLE, parse(TABLE, ["-b", "-x", "-n", "1", "0"]))
    with pytest.raises(CommandLineError) as before:
        selection.check("numbers")
    selection.silence()
    silent = []
    for check in (lambda: selection.check("numbers"), lambda: selection.check("rules"), selection.port):
        with pytest.raises(CommandLineError) as caught:
            check()
        silent.append(caught.value)
    assert before.value.is_shown
    assert not any(found.is_shown for found in silent)


def test_an_unknown_name_is_an_error_of_ours() -> None:
    broken = OptionTable(
        tool="tool",
        title="a tool",
        port_meaning="the port",
        is_port_required=False,
        sections=(),
        stages={"all": (("--gone",),)},
    )
    with pytest.raises(KeyError, match="--gone"):
        Selection(broken, parse(broken, ["104"]))
