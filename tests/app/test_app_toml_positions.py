"""Lines and columns of keys in TOML, in whatever way it is written."""

import tomllib

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.app.toml_positions import position_of, positions_of
from support.examples import examples

TEXT = '''# a comment with a = 1 in it
archive = "/srv"  # and [one] behind
  sync = true
"quoted \\u0061" = 1
'literal \\' = 2
a . b = [ # ]
  1, "]", # [
  2,
]
text = """
[not] = "a table"
\\""" = 1
"""
lines = \'\'\'
x = 1\'\'\'\'\'
inline = { x = 1, y = [1, 2] }

[dicom]
port = 104
  [[peers]] # first
name = "a"
[[peers]]
name = "b"
[peers.more]
deep = 1
[ "tls" . 'x' ]
y = 1
[[profiles]]
[[profiles.contexts]]
z = 1
[[profiles.contexts]]
z = 2'''


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("archive",), (2, 1)),
        (("sync",), (3, 3)),
        (("quoted a",), (4, 1)),
        (("literal \\",), (5, 1)),
        (("a", "b"), (6, 1)),
        (("text",), (10, 1)),
        (("lines",), (14, 1)),
        (("inline",), (16, 1)),
        (("dicom",), (18, 2)),
        (("dicom", "port"), (19, 1)),
        (("peers",), (20, 5)),
        (("peers", 0), (20, 5)),
        (("peers", 0, "name"), (21, 1)),
        (("peers", 1, "name"), (23, 1)),
        (("peers", 1, "more", "deep"), (25, 1)),
        (("tls", "x", "y"), (27, 1)),
        (("profiles", 0, "contexts", 0, "z"), (30, 1)),
        (("profiles", 0, "contexts", 1, "z"), (32, 1)),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_each_key_has_its_line_and_column(
    path: tuple[str | int, ...], place: tuple[int, int], ending: str
) -> None:
    text = TEXT.replace("\n", ending)
    tomllib.loads(text)
    assert positions_of(text)[path] == place


def test_nothing_else_is_taken_for_a_key() -> None:
    names = {path[-1] for path in positions_of(TEXT) if isinstance(path[-1], str)}
    first = {
        "archive",
        "sync",
        "quoted a",
        "literal \\",
        "a",
        "b",
        "text",
        "lines",
        "inline",
        "dicom",
        "port",
    }
    assert names == first | {"name", "more", "deep", "x", "y", "z", "peers", "profiles", "contexts"}


def test_what_has_no_place_of_its_own_has_that_of_what_it_lies_in() -> None:
    positions = positions_of(TEXT)
    assert position_of(("inline", "x"), positions) == (16, 1)
    assert position_of(("peers", 1, "addresses", 3), positions) == (22, 3)
    assert position_of(("nothing",), positions) is None


keys = st.text(min_size=1, max_size=8)
values = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3),
)
tables = st.dictionaries(keys, values, max_size=4)


def paths_of(value: object, above: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    found: set[tuple[str | int, ...]] = set()
    if isinstance(value, dict):
        for name, inner in value.items():
            if not (isinstance(inner, list) and inner and isinstance(inner[0], dict)):
                found.add((*above, name))
            found |= paths_of(inner, (*above, name))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            found |= {(*above, number)} | paths_of(inner, (*above, number))
    return found


@pytest.mark.slow
@settings(max_examples=examples(60))
@given(st.dictionaries(keys, values | tables | st.lists(tables, min_size=1, max_size=3), max_size=5))
def test_every_key_of_any_file_is_found(content: dict[str, object]) -> None:
    text = tomlkit.dumps(content)
    found = positions_of(text)
    assert set(found) >= paths_of(tomllib.loads(text))
    lines = text.split("\n")
    for line, column in found.values():
        assert lines[line - 1][column - 1 :].strip()
