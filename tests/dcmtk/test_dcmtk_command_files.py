"""Command files: what their text comes apart into, and what happens when one cannot be used."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk import limits
from stowkeeper.dcmtk.command_files import CommandFileError, expand, read_command_file, tokens_of

SEPARATORS = " \t\r\n"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \t\r\n", []),
        ("-aet A 104", ["-aet", "A", "104"]),
        ("\r\n-aet\t\tA\r\n104\n", ["-aet", "A", "104"]),
        ("-aet 'A B' \"c\td\"", ["-aet", "A B", "c\td"]),
        ("'a\nb'", ["a\nb"]),
        ("''", [""]),
        ("-fe '' 104", ["-fe", "", "104"]),
        ("a'b'c", ["ab", "c"]),
        ("'a''b'", ["a", "b"]),
        ("'a'\"b\"c d", ["a", "b", "c", "d"]),
        ("\"a'b\" 'c\"d'", ["a'b", 'c"d']),
        ("-aet 'unterminated 5\n6", ["-aet", "unterminated 5\n6"]),
        ("ab' c", ["ab c"]),
        ("'", [""]),
        ("a\\ b", ["a\\", "b"]),
        ("# no comment", ["#", "no", "comment"]),
        ("@other", ["@other"]),
        ("a\x0bb\x0cc", ["a\x0bb\x0cc"]),
        ("é", ["é"]),
    ],
)
def test_tokens_of(text: str, tokens: list[str]) -> None:
    assert list(tokens_of(text)) == tokens


def quoted(token: str) -> str:
    """Write a token so that it comes back as it is; one with both kinds of quotes cannot be written."""
    return f'"{token}"' if "'" in token else f"'{token}'"


@pytest.mark.slow
@given(
    tokens=st.lists(st.text().filter(lambda token: "'" not in token or '"' not in token)),
    gap=st.text(SEPARATORS, min_size=0, max_size=3),
)
def test_quoted_tokens_come_back(tokens: list[str], gap: str) -> None:
    # A closing quote ends a token, so nothing need stand between two of them.
    assert list(tokens_of(gap.join(quoted(token) for token in tokens))) == tokens


@pytest.mark.slow
@given(tokens=st.lists(st.text(min_size=1).filter(lambda token: not set(token) & set(SEPARATORS + "'\""))))
def test_bare_tokens_come_back(tokens: list[str]) -> None:
    assert list(tokens_of("\n".join(tokens))) == tokens


@given(st.text(SEPARATORS + "'\"ab@"))
def test_every_text_comes_apart_and_loses_nothing_but_separators_and_quotes(text: str) -> None:
    left = "".join(tokens_of(text))
    assert [c for c in left if c in "ab@"] == [c for c in text if c in "ab@"]


def test_files_are_put_in_their_place() -> None:
    files = {"one": "-a 'b c'", "two": "@one"}
    assert expand(["x", "@one", "@two", "@", "y@one"], files.__getitem__) == (
        "x",
        "-a",
        "b c",
        "@one",
        "@",
        "y@one",
    )


def test_a_file_is_read_also_in_the_place_of_a_value() -> None:
    assert expand(["-aet", "@name"], {"name": "A"}.__getitem__) == ("-aet", "A")


@pytest.mark.parametrize("name", ["absent", "folder", "a\0b", "\ud800"])
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    argument = f"@{tmp_path}/{name}"
    with pytest.raises(CommandFileError, match="Cannot open command file '") as caught:
        expand([argument], read_command_file)
    assert argument.removeprefix("@") in str(caught.value)


def test_a_nul_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"-aet a\0b")
    with pytest.raises(CommandFileError, match="NUL"):
        expand([f"@{tmp_path}/binary"], read_command_file)


def test_bytes_that_are_no_text_come_through_as_in_arguments(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"-od /data/\xfc")
    assert expand([f"@{tmp_path}/latin"], read_command_file) == ("-od", "/data/\udcfc")


@pytest.mark.slow
def test_the_longest_file_and_one_byte_more(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"a" * limits.COMMAND_FILE_BYTES_MAX)
    assert len(expand([f"@{path}"], read_command_file)[0]) == limits.COMMAND_FILE_BYTES_MAX
    path.write_bytes(b"a" * (limits.COMMAND_FILE_BYTES_MAX + 1))
    with pytest.raises(CommandFileError, match="longer than"):
        expand([f"@{path}"], read_command_file)
