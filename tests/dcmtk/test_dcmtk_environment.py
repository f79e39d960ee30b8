"""Environment variables: what they mean, and that one that means nothing is said and not heeded."""

from io import StringIO
from pathlib import Path

import pytest

from stowkeeper.dcmtk import environment
from stowkeeper.dcmtk.environment import Environment, read_dictionary
from stowkeeper.dcmtk.limits import DICTIONARY_FILE_BYTES_MAX, INTEGER_MAX
from stowkeeper.dcmtk.oflog.loggers import Loggers

LOGGER = "dcmtk.apps.storescp"


def read(**variables: str) -> tuple[Environment, str]:
    stream = StringIO()
    with Loggers("storescp", stderr=stream) as loggers:
        return Environment.of(variables, loggers.get(LOGGER)), stream.getvalue()


def test_nothing_is_asked_for() -> None:
    assert read() == (Environment(), "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("8192", 8192), ("0", 65_536), ("-1", 65_536), (" 9000 ", 9000), ("9" * 20, INTEGER_MAX)],
)
def test_the_length_of_tcp_buffers(value: str, expected: int) -> None:
    asked, said = read(TCP_BUFFER_LENGTH=value)
    assert (asked.tcp_buffer_bytes, said) == (expected, "")


@pytest.mark.parametrize("value", ["many", "8k", "0x10", " "])
def test_a_length_that_is_no_number(value: str) -> None:
    asked, said = read(TCP_BUFFER_LENGTH=value)
    assert asked.tcp_buffer_bytes is None
    assert said.startswith("W: TCP_BUFFER_LENGTH is no number")


@pytest.mark.parametrize("name", ["STOWKEEPER_KEEP_REFUSED", "STOWKEEPER_SYNC"])
@pytest.mark.parametrize(
    ("value", "is_on"),
    [("1", True), ("yes", True), ("TRUE", True), ("", False), ("0", False), ("No", False), (" off ", False)],
)
def test_switches(name: str, value: str, *, is_on: bool) -> None:
    asked, _ = read(**{name: value})
    which = {"STOWKEEPER_KEEP_REFUSED": asked.keeps_refused, "STOWKEEPER_SYNC": asked.synchronizes}
    assert which[name] is is_on
    assert list(which.values()).count(True) == int(is_on)


def test_an_address_and_dictionaries() -> None:
    asked, _ = read(STOWKEEPER_LISTEN=" 127.0.0.1 ", DCMDICTPATH="/a.dic::/b.dic:")
    assert asked.listen_address == "127.0.0.1"
    assert asked.dictionary_files == ("/a.dic", "/b.dic")


def dictionary_of(*paths: Path) -> tuple[bool, str]:
    """Read dictionaries; tell whether there is one, and what was said."""
    stream = StringIO()
    with Loggers("storescp", stderr=stream) as loggers:
        found = read_dictionary(tuple(map(str, paths)), loggers.get(LOGGER))
    return found is not None, stream.getvalue()


def test_dictionaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad, absent = tmp_path / "good.dic", tmp_path / "bad.dic", tmp_path / "absent.dic"
    good.write_text("(0010,0010)\tPN\tPatientName\t1\tDICOM\n")
    bad.write_text("nonsense\n")
    assert dictionary_of() == (False, "")
    assert dictionary_of(good, good) == (True, "")
    is_there, said = dictionary_of(absent, bad, good)
    assert is_there
    assert [line.partition(" is not used")[0].partition(" cannot")[0] for line in said.splitlines()] == [
        f"W: DCMDICTPATH: {absent}",
        f"W: DCMDICTPATH: {bad}",
    ]
    is_there, said = dictionary_of(absent, tmp_path)
    assert not is_there
    assert said.splitlines()[-1].endswith("so the shipped one is")
    assert DICTIONARY_FILE_BYTES_MAX == environment.DICTIONARY_FILE_BYTES_MAX
    monkeypatch.setattr(environment, "DICTIONARY_FILE_BYTES_MAX", 10)
    is_there, said = dictionary_of(good)
    assert not is_there
    assert "longer than 10 bytes" in said
