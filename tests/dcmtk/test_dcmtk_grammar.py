"""The form of a command line: what is an option, what it takes, what is left, and what is wrong about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.dcmrecv_options import dcmrecv_table
from stowkeeper.dcmtk.grammar import (
    MASK,
    CommandLine,
    CommandLineError,
    Group,
    Option,
    OptionTable,
    Section,
    Value,
    is_option,
    parse,
)
from stowkeeper.dcmtk.storescp_table import storescp_table

HELP = Option(long="--help", short="-h", is_exclusive=True, meaning="h")
VERSION = Option(long="--version", is_exclusive=True, meaning="v")
LIST = Option(long="--list", short="+l", is_exclusive=True, meaning="l")
FLAG = Option(long="--flag", short="-f", meaning="f")
ONE = Option(long="--one", short="+o", values=(Value(label="[v]alue"),), meaning="o")
TWO = Option(long="--two", values=(Value(label="[a]"), Value(label="[b]")), meaning="t")
SECRET = Option(long="--secret", values=(Value(label="[s]", is_secret=True),), meaning="s")


def table(*, is_port_required: bool = True) -> OptionTable:
    options = (LIST, VERSION, HELP, FLAG, ONE, TWO, SECRET)
    return OptionTable(
        tool="tool",
        title="a tool",
        port_meaning="the port",
        is_port_required=is_port_required,
        sections=(Section(title="options", groups=(Group(options=options),)),),
        stages={},
        unavailable={"+z": "it is out of stock"},
    )


def read(*arguments: str, files: dict[str, str] | None = None) -> CommandLine:
    def read_file(name: str) -> str:
        if name not in (files or {}):
            raise FileNotFoundError(2, "No such file or directory")
        return (files or {})[name]

    return parse(table(), arguments, read_file)


def error(*arguments: str) -> str:
    with pytest.raises(CommandLineError) as caught:
        read(*arguments)
    assert caught.value.is_shown
    return str(caught.value)


@pytest.mark.parametrize("token", ["-a", "+a", "--", "-+", "+-", "--help", "-_", "+ ", "-٥"])
def test_options(token: str) -> None:
    assert is_option(token)


@pytest.mark.parametrize("token", ["", "-", "+", "-5", "+5", "-0x", "5", "a-b", "@", " -a"])
def test_parameters(token: str) -> None:
    assert not is_option(token)


def test_order_of_options_and_port_does_not_matter() -> None:
    for arguments in (["-f", "+o", "x", "104"], ["104", "-f", "+o", "x"], ["-f", "104", "+o", "x"]):
        line = read(*arguments)
        assert line.parameters == ("104",)
        assert [found.option for found in line.occurrences] == [FLAG, ONE]
        assert line.occurrences[1].values == ("x",)


def test_long_and_short_names_are_one_option() -> None:
    assert read("--one", "x", "104").occurrences == read("+o", "x", "104").occurrences


@pytest.mark.parametrize(
    "token", ["--", "--onE", "--on", "--one=x", "-o", "-ff", "+ox", "-F", "--Flag", "+f"]
)
def test_names_match_whole_and_in_their_case(token: str) -> None:
    assert error(token, "x", "104") == f"Unknown option {token}"


def test_values_are_taken_as_they_are() -> None:
    line = read("--two", "-f", "", "+o", "--help", "104")
    assert [found.values for found in line.occurrences] == [("-f", ""), ("--help",)]
    assert line.parameters == ("104",)
    assert line.exclusive is None


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["+o"], "--one"), (["104", "--two", "a"], "--two"), (["--two"], "--two"), (["-h", "+o"], "--one")],
)
def test_too_few_values(arguments: list[str], name: str) -> None:
    assert error(*arguments) == f"Missing value for option {name}"


def test_the_first_error_from_the_left_is_reported() -> None:
    assert error("a", "b", "--bogus", "+o") == "Unknown option --bogus"
    assert error("--bogus", "+o") == "Unknown option --bogus"
    assert error("--bogus", "@absent").startswith("Cannot open command file 'absent'")


def test_the_number_of_parameters() -> None:
    assert error("-f") == "Missing parameter port"
    assert error("104", "") == "Too many parameters"
    assert error("-", "104") == "Too many parameters"
    assert error("-5", "+5") == "Too many parameters"
    assert read("-5").parameters == ("-5",)
    assert parse(table(is_port_required=False), ["-f"]).parameters == ()
    assert read().parameters == ()


@pytest.mark.parametrize("arguments", [["-h"], ["-h", "a", "b"], ["a", "b", "c", "-h", "-f"]])
def test_beside_an_exclusive_option_parameters_do_not_matter(arguments: list[str]) -> None:
    assert read(*arguments).exclusive is HELP


def test_which_of_several_exclusive_options_is_answered() -> None:
    assert read("+l", "--version", "-h").exclusive is HELP
    assert read("+l", "--version").exclusive is VERSION
    assert read("+l").exclusive is LIST


def test_other_tokens_must_be_right_beside_an_exclusive_option() -> None:
    assert error("--help", "--bogus") == "Unknown option --bogus"
    assert error("--help", "@absent").startswith("Cannot open command file 'absent'")


def test_an_option_that_this_machine_cannot_offer() -> None:
    assert error("+z", "104") == "Unknown option +z: it is out of stock"


def test_command_files_are_put_in_first() -> None:
    assert read("@all", "-f", files={"all": "--one '@all' 104"}).shown == ("--one", "@all", "104", "--flag")


def test_what_is_shown_has_long_names_and_no_password() -> None:
    assert read("-f", "+o", "", "--secret", "s3cret", "104").shown == (
        "--flag",
        "--one",
        "",
        "--secret",
        MASK,
        "104",
    )


def test_rightmost_position() -> None:
    line = read("-f", "+o", "x", "-f", "104")
    assert (line.position("--flag"), line.position("--one"), line.position("--two")) == (2, 1, -1)
    assert line.has("--one")
    assert not line.has("--two")


TABLES = {"storescp": storescp_table(), "dcmrecv": dcmrecv_table()}
NAMES = sorted(
    {name for t in TABLES.values() for option in t.options() for name in (option.short, option.long)}
)
TOKENS = st.one_of(st.sampled_from(NAMES), st.text(), st.text("+-@'\"0123456789 a", max_size=4))


@given(name=st.sampled_from(sorted(TABLES)), tokens=st.lists(TOKENS))
def test_any_tokens_parse_or_raise_the_one_error(name: str, tokens: list[str]) -> None:
    try:
        line = parse(TABLES[name], tokens)
    except CommandLineError:
        return
    assert len(line.shown) >= len(line.occurrences)
    assert all(len(found.values) == len(found.option.values) for found in line.occurrences)


@pytest.mark.slow
@given(
    name=st.sampled_from(sorted(TABLES)),
    picked=st.lists(
        st.tuples(st.integers(min_value=0), st.lists(st.text("ab+-", max_size=3), min_size=2, max_size=2))
    ),
    port_at=st.integers(min_value=0),
)
def test_options_in_any_order_come_back_as_given(
    name: str, picked: list[tuple[int, list[str]]], port_at: int
) -> None:
    options = [option for option in TABLES[name].options() if not option.is_exclusive]
    wanted = [(options[index % len(options)], values) for index, values in picked]
    pieces = [[option.short or option.long, *values[: len(option.values)]] for option, values in wanted]
    pieces.insert(port_at % (len(pieces) + 1), ["104"])
    line = parse(TABLES[name], [token for piece in pieces for token in piece])
    assert line.parameters == ("104",)
    assert [(found.option, list(found.values)) for found in line.occurrences] == [
        (option, values[: len(option.values)]) for option, values in wanted
    ]
