"""The lexical layer of profile files: what is kept, what is dropped, and that nothing makes it fail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.profile_lexer import parse_configuration


def read(text):
    """Return {supersection: [(section, [(key, value)])]} of a text."""
    configuration = parse_configuration(text.encode("latin-1"))
    return {
        name: [
            (section.name, [(entry.key, entry.value) for entry in section.entries]) for section in sections
        ]
        for name, sections in configuration.supersections.items()
    }


def value_of(text):
    """Return the value of the first entry when `text` follows its equals sign."""
    ((_, [(key, value), *_]),) = read(f"[[S]]\n[T]\nk={text}")["S"]
    assert key == "K"
    return value


def test_supersections_sections_and_entries():
    assert read("[[One]]\n[a]\nx = 1\ny=2\n[b]\n[[Two]]\n[a]\nz = 3") == {
        "ONE": [("A", [("X", "1"), ("Y", "2")]), ("B", [])],
        "TWO": [("A", [("Z", "3")])],
    }


def test_names_and_keys_become_capitals_and_lose_what_is_not_in_a_name():
    assert read("[[A b.c\xe4]]\n[ x-y_9! ]\nk.e y\xff-1 = v") == {"ABC": [("X-Y_9", [("KEY-1", "v")])]}


def test_an_umlaut_is_no_letter_here():
    assert read("[[\xe4]]\n[\xdfx]\n\xfcy=1") == {"": [("X", [("Y", "1")])]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" a\n", "a"),
        ("\t  a \n", "a "),
        ("a#b=[c]\n", "a#b=[c]"),
        ("a\r\n", "a"),
        ("a\rb=2", "a"),
        ("a\0b\n", "a b"),
        ("\0a\n", "a"),
        ("\x0ba\n", "\x0ba"),
        ("\xa0a\n", "\xa0a"),
        ("", ""),
        ("\nb=2", ""),
    ],
)
def test_a_value_keeps_everything_but_the_blanks_before_it(text, value):
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a\n b\n\tc\n", "a\nb\nc"),
        ("\n  a", "a"),
        ("a\n\n b", "a\nb"),
        ("a\n \t \n b", "a\nb"),
        ("a\n# comment\n b", "a\nb"),
        ("a\n # kept\n b", "a\n# kept\nb"),
        ("a\n [b]\n", "a\n[b]"),
        ("a\n k2 = 2\n", "a\nk2 = 2"),
        ("a  \n b  \nc=1", "a  \nb  "),
        ("a\n\x0bb", "a"),
    ],
)
def test_an_indented_line_belongs_to_the_value_before_it(text, value):
    assert value_of(text) == value


def test_a_comment_has_its_sign_in_the_first_column():
    assert read("#x=1\n[[S]]\n#[T]\n[U]\n#k=1\nl=2\n") == {"S": [("U", [("L", "2")])]}


def test_a_missing_equals_sign_swallows_up_to_the_next_one():
    assert read("[[S]]\n[T]\nkey\n[U]\nother = 1\nthird = 2") == {
        "S": [("T", [("KEYUOTHER", "1"), ("THIRD", "2")])]
    }


def test_a_key_at_the_end_of_the_file_has_an_empty_value():
    assert read("[[S]]\n[T]\nkey\n") == {"S": [("T", [("KEY", "")])]}


def test_a_missing_bracket_swallows_up_to_the_next_one():
    assert read("[[S]]\n[T\nk = 1\n[U]\nl = 2") == {"S": [("TK1U", [("L", "2")])]}
    assert read("[[S]\n[T]\nk = 1") == {"S": []}
    assert read("[[S]]\n[T") == {"S": [("T", [])]}
    assert read("[[S") == {"S": []}


@pytest.mark.parametrize(
    "header", ["[[S]]", "[ [S] ]", "[\n[ S \n]]", "[[[S]]]", "[[S]x]", "[[[[S]]]]", "[[S[]]"]
)
def test_two_and_more_brackets_make_a_supersection(header):
    assert read(f"{header}\n[T]\nk=1") == {"S": [("T", [("K", "1")])]}


def test_only_a_bracket_right_after_the_first_makes_a_supersection():
    assert read("[[S]]\n[.[T]]\nk=1") == {"S": [("T", [("K", "1")])]}


def test_one_closing_bracket_too_many_begins_a_key():
    assert read("[[S]]]\n[T]\nk=1") == {"S": []}


def test_an_entry_may_follow_its_header_on_the_same_line():
    assert read("[[S]] [T] k=1\n[U]l=2") == {"S": [("T", [("K", "1")]), ("U", [("L", "2")])]}


def test_what_stands_outside_of_sections_is_dropped():
    assert read("k=1\n[T]\nl=2\n[[S]]\nm=3\n[U]\nn=4") == {"S": [("U", [("N", "4")])]}


def test_a_second_supersection_of_a_name_is_dropped_and_noted():
    text = "[[S]]\n[T]\nk=1\n[[s]]\n[U]\nl=2\n"
    assert read(text) == {"S": [("T", [("K", "1")])]}
    assert parse_configuration(text.encode()).repeated == (("S", 4),)


def test_of_equal_keys_the_first_counts():
    (section,) = parse_configuration(b"[[S]]\n[T]\nk=1\nK=2\n").supersections["S"]
    assert {key: entry.value for key, entry in section.first_of_each_key().items()} == {"K": "1"}


def test_lines_are_counted_where_things_begin():
    text = b"# head\r\n\r\n[[S]]\r\n\r\n[T]\r\nkey\r\n = 1\r\n more\r\nl=2\r\n"
    (section,) = parse_configuration(text).supersections["S"]
    assert section.line == 5
    assert [(entry.key, entry.line) for entry in section.entries] == [("KEY", 6), ("L", 9)]


PIECES = [
    "[",
    "]",
    "[[",
    "]]",
    "=",
    "\n",
    "\n ",
    "\r",
    "\r\n",
    "#",
    "\n#",
    "\\",
    " ",
    "\t",
    "\0",
    "a",
    "B",
    "1",
    "\xe4",
]


@given(
    st.one_of(
        st.binary(max_size=200), st.lists(st.sampled_from(PIECES)).map(lambda p: "".join(p).encode("latin-1"))
    )
)
def test_nothing_makes_it_fail(data):
    configuration = parse_configuration(data)
    last = len(data.splitlines()) + data.count(b"\r") + 1
    for sections in configuration.supersections.values():
        for section in sections:
            assert set(section.name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
            assert 1 <= section.line <= last
            for entry in section.entries:
                assert section.line <= entry.line <= last
                assert entry.value == entry.value.lstrip(" \t\n")


@pytest.mark.slow
def test_many_brackets_and_long_lines_are_read_in_one_pass():
    """Quadratic reading would pass the time limit that every test has."""
    assert not any(parse_configuration(b"[" * 200_000).supersections.values())
    read = parse_configuration(b"[[S]]\n[T]\nk=1\n" + b" x\n" * 100_000).supersections
    assert [
        len(entry.value) for sections in read.values() for section in sections for entry in section.entries
    ] == [1 + 2 * 100_000]
    mixed = parse_configuration(b"[" * 50_000 + b"]" * 100_000 + b"[a]=" * 50_000).supersections
    assert not any(mixed.values())
