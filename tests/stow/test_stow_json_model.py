"""Metadata in the DICOM JSON Model: what it means, and what is refused."""

import json
import mmap
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dicom.elements import LONG_VRS, SHORT_VRS
from stowkeeper.stow import json_model, metadata
from stowkeeper.stow.json_model import read_json_model
from stowkeeper.stow.limits_of_metadata import JSON_DEPTH_MAX
from stowkeeper.stow.metadata import (
    BulkReference,
    Element,
    ElementDefectError,
    InstanceMetadata,
    MetadataError,
)
from stowkeeper.stow.metadata_values import decode_inline
from support.examples import examples

TAG = "00091001"


def read(text: str | bytes) -> list[InstanceMetadata]:
    return list(read_json_model(text if isinstance(text, bytes) else text.encode()))


def read_one(elements: dict[str, Any]) -> InstanceMetadata:
    (found,) = read(json.dumps([elements]))
    return found


def value_of(vr: str, **content: Any) -> Any:
    """Return what is read of one element."""
    found = read_one({TAG: {"vr": vr, **content}})
    assert found.defect == ""
    element = found.data_set[int(TAG, 16)]
    assert element.vr == vr.encode()
    return element.value


@pytest.mark.parametrize(
    ("vr", "values", "expected"),
    [
        ("CS", ["ORIGINAL", "PRIMARY"], b"ORIGINAL\\PRIMARY"),
        ("CS", [None, "B", None], b"\\B\\"),
        ("LO", ["Ünïcode"], "Ünïcode".encode()),
        ("LT", ["a\\b\r\n"], b"a\\b\r\n"),
        ("IS", [1, "02", -3], b"1\\02\\-3"),
        ("IS", [5.0], b"5"),
        ("DS", ["1.50", 2, -0.25], b"1.50\\2\\-0.25"),
        ("DS", [0.1234567890123456789], b"0.12345678901235"),
        ("DS", [-1.234567890123456e-200], b"-1.23456789e-200"),
        ("US", [1, 65535], b"\1\0\xff\xff"),
        ("SS", [-2], b"\xfe\xff"),
        ("UL", [4294967295], b"\xff\xff\xff\xff"),
        ("SL", [-1], b"\xff\xff\xff\xff"),
        ("UV", ["18446744073709551615"], b"\xff" * 8),
        ("SV", [-1], b"\xff" * 8),
        ("FL", [1.5], struct.pack("<f", 1.5)),
        ("FD", [1, 0.1], struct.pack("<2d", 1, 0.1)),
        ("FD", ["inf", "-inf"], struct.pack("<2d", float("inf"), float("-inf"))),
        ("SV", [-(2**63), "9223372036854775807"], struct.pack("<2q", -(2**63), 2**63 - 1)),
        ("UV", [9007199254740993, 4503599627370497.0], struct.pack("<2Q", 2**53 + 1, 2**52 + 1)),
        ("AT", ["00280010"], b"\x28\0\x10\0"),
        ("PN", [{"Alphabetic": "A^B", "Phonetic": "C"}], b"A^B==C"),
        ("PN", [{"Alphabetic": "A"}, None, {"Ideographic": "B"}], b"A\\\\=B"),
        ("PN", ["A^B"], b"A^B"),
        ("UI", ["1.2.3"], b"1.2.3"),
    ],
)
def test_values_are_encoded(vr: str, values: list[object], expected: bytes) -> None:
    assert value_of(vr, Value=values) == expected


def test_the_other_ways_to_give_a_value() -> None:
    assert value_of("OB", InlineBinary="AAEC") == b"\0\1\2"
    assert value_of("UN", InlineBinary="AA\r\nEC") == b"\0\1\2"
    assert value_of("OW", BulkDataURI="bulk/1") == BulkReference("bulk/1")
    assert value_of("LO") == b""
    assert value_of("LO", Value=[]) == b""
    assert value_of("LO", Value=None) == b""
    assert value_of("LO", keyword="PatientID", name="Patient ID", privateCreator="A") == b""
    assert value_of("LO", keyword="PatientID", Value=["A"], more=5) == b"A"
    assert value_of("SQ") == ()
    assert value_of("SQ", Value=[None, {"00080060": {"vr": "CS", "Value": ["CT"]}}]) == (
        {},
        {0x00080060: Element(b"CS", b"CT")},
    )


def test_letters_that_are_not_of_base64_are_seen_at_once() -> None:
    text = "é" * 10_000_000
    tracemalloc.start()
    try:
        with pytest.raises(ElementDefectError, match="base64"):
            decode_inline(0x00091001, b"OB", text)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(text) // 10  # to leave blanks out first would copy it


def test_what_is_no_number_is_taken_as_it_is_written() -> None:
    (found,) = read('[{"00091001": {"vr": "FD", "Value": [NaN, -Infinity, "NaN"]}}]')
    first, second, third = struct.unpack("<3d", found.data_set[0x00091001].value)  # type: ignore[arg-type]  # it is bytes
    assert first != first
    assert second == float("-inf")
    assert third != third


def test_elements_come_in_order_and_without_what_speaks_of_another_encoding() -> None:
    found = read_one(
        {
            "00100020": {"vr": "LO", "Value": ["1"]},
            "00080060": {"vr": "CS"},
            "00080000": {"vr": "UL", "Value": [10]},
            "00080001": {"vr": "UL", "Value": [10]},
            "00020010": {"vr": "UI", "Value": ["1.2"]},
        }
    )
    assert (list(found.data_set), found.defect) == ([0x00080060, 0x00100020], "")


def test_other_letters_make_the_data_set_utf_8_throughout() -> None:
    item = {"00080005": {"vr": "CS", "Value": ["ISO_IR 144"]}, "00080104": {"vr": "LO", "Value": ["Лев"]}}
    found = read_one(
        {"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}, "00081032": {"vr": "SQ", "Value": [item]}}
    )
    assert found.data_set[0x00080005].value == b"ISO_IR 192"
    (inner,) = found.data_set[0x00081032].value
    assert list(inner) == [0x00080104]  # type: ignore[comparison-overlap]  # it is a mapping


def test_a_character_set_stays_where_every_letter_is_in_all_of_them() -> None:
    found = read_one(
        {"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}, "00080104": {"vr": "LO", "Value": ["Leo"]}}
    )
    assert found.data_set[0x00080005].value == b"ISO_IR 100"


@pytest.mark.parametrize(
    ("element", "words"),
    [
        ({"vr": "IS", "Value": [1.5]}, "no integer"),
        ({"vr": "IS", "Value": [2**31]}, "an IS cannot have"),
        ({"vr": "IS", "Value": [True]}, "no integer"),
        ({"vr": "DS", "Value": [True]}, "no number"),
        ({"vr": "DS", "Value": [float("nan")]}, "no number"),
        ({"vr": "DS", "Value": [[1]]}, "no number"),
        ({"vr": "LO", "Value": [1]}, "no text"),
        ({"vr": "LO", "Value": [1.5]}, "no text"),
        ({"vr": "LO", "Value": [{"a": 1}]}, "no text"),
        ({"vr": "LO", "Value": ["\ud800"]}, "half a character"),
        ({"vr": "LO", "Value": "A"}, "no array"),
        ({"vr": "UT", "Value": ["A", "B"]}, "several values"),
        ({"vr": "US", "Value": [65536]}, "cannot have"),
        ({"vr": "US", "Value": [-1]}, "cannot have"),
        ({"vr": "US", "Value": [None]}, "no integer"),
        ({"vr": "US", "Value": ["1_0"]}, "no integer"),
        ({"vr": "US", "Value": ["١"]}, "no integer"),
        ({"vr": "US", "Value": ["1" * 5000]}, "no integer"),
        ({"vr": "FL", "Value": [1e300]}, "cannot have"),
        ({"vr": "FD", "Value": ["0x1p3"]}, "no number"),
        ({"vr": "AT", "Value": ["0028001"]}, "eight digits"),
        ({"vr": "AT", "Value": [2621456]}, "eight digits"),
        ({"vr": "OB", "Value": [1]}, "in words"),
        ({"vr": "OB", "InlineBinary": "A"}, "base64"),
        ({"vr": "OB", "InlineBinary": "AAEC!"}, "base64"),
        ({"vr": "OB", "InlineBinary": 5}, "base64"),
        ({"vr": "LO", "InlineBinary": "AAEC"}, "base64"),
        ({"vr": "PN", "BulkDataURI": "a"}, "refers to bulk data"),
        ({"vr": "OB", "BulkDataURI": 5}, "is none"),
        ({"vr": "OB", "BulkDataURI": ""}, "is none"),
        ({"vr": "OB", "BulkDataURI": "a" * 5000}, "is none"),
        ({"vr": "OB", "BulkDataURI": "a", "InlineBinary": "AAEC"}, "several ways"),
        ({"vr": "SQ", "Value": ["a"]}, "is no object"),
        ({"vr": "PN", "Value": [{"Alphabetic": 1}]}, "no text"),
        ({"vr": "PN", "Value": [{"alphabetic": "A"}]}, "parts that the JSON Model has not"),
        ({"vr": "PN", "Value": [{"Alphabetic": "A", "Other": "B"}]}, "parts that the JSON Model has not"),
        ({"vr": "LO", "value": ["A"]}, "a name that the JSON Model has not"),
        ({"vr": "OB", "BulkDataUri": "a"}, "a name that the JSON Model has not"),
        ({"vr": "OB", "DataFragment": [{"BulkDataURI": "a"}]}, "a name that the JSON Model has not"),
        ({"vr": "SV", "Value": [9007199254740993.0]}, "no integer"),
        ({"vr": "OB", "InlineBinary": "AAEé"}, "base64"),
        ({"vr": "PN", "Value": [1]}, "no text"),
        ({"vr": "XX", "Value": []}, "value representation"),
        ({"vr": ["LO"]}, "value representation"),
        ({"Value": ["a"]}, "value representation"),
        ([], "is no object"),
        ("LO", "is no object"),
    ],
)
def test_a_defect_is_named_and_spares_the_others(element: object, words: str) -> None:
    found = read_one({TAG: element, "00080060": {"vr": "CS", "Value": ["CT"]}})
    assert words in found.defect
    assert "(0009,1001)" in found.defect
    assert list(found.data_set) == [0x00080060]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PatientID", "eight digits"),
        ("0008006", "eight digits"),
        ("00080060 ", "eight digits"),
        ("FFFEE000", "no element of a data set"),
        ("00000002", "no element of a data set"),
        ("00010010", "no element of a data set"),
    ],
)
def test_what_names_no_element_is_a_defect(name: str, words: str) -> None:
    assert words in read_one({name: {"vr": "LO", "Value": ["a"]}}).defect


def test_an_element_in_both_cases_of_its_digits_is_there_twice() -> None:
    found = read('[{"0008103E": {"vr": "LO", "Value": ["a"]}, "0008103e": {"vr": "LO", "Value": ["b"]}}]')
    assert found[0].defect == "(0008,103E) is there twice"


def test_file_meta_information_in_an_item_is_a_defect() -> None:
    item = {"00020010": {"vr": "UI", "Value": ["1.2"]}}
    assert "(0002,0010)" in read_one({"00081032": {"vr": "SQ", "Value": [item]}}).defect


def test_a_defect_in_one_instance_spares_the_others() -> None:
    good = {"00080060": {"vr": "CS", "Value": ["CT"]}}
    found = read(json.dumps([good, {TAG: {"vr": "US", "Value": ["x"]}}, good]))
    assert [bool(one.defect) for one in found] == [False, True, False]


@pytest.mark.parametrize("bad", ['{"a": 1, "a": 2}', '{"00080060": {"vr": "CS", "vr": "LO"}}'])
def test_the_same_name_twice_is_a_defect_of_its_instance(bad: str) -> None:
    good = '{"00080060": {"vr": "CS", "Value": ["CT"]}}'
    found = read(f"[{good}, {bad}, {good}]")
    assert [(bool(one.data_set), one.defect) for one in found] == [
        (True, ""),
        (False, "an object has the same name twice"),
        (True, ""),
    ]


@pytest.mark.parametrize("text", ["[]", " [ ] ", "\ufeff[]", "[{}]", "{}", " [ {} , {} ] "])
def test_empty_metadata_are_read(text: str) -> None:
    assert len(read(text)) == text.count("{")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "5",
        '"a"',
        "[",
        "[{}",
        "[{},]",
        "[{} {}]",
        "[,{}]",
        "[[]]",
        "[null]",
        "[{}]]",
        "[{}] {}",
        "{}{}",
        '[{"a}]',
        '[{"a\\"}]',
        '[{"00080060": }]',
        '[{"00080060": {"vr": "CS",}}]',
        '[{"00080060": {"vr": "CS"]}]',
        '[{"00080060": 01}]',
        '[{"00080060": {"vr": "IS", "Value": [' + "9" * 5000 + "]}}]",
        b'[{"\xff": 1}]',
        '[{"00080060": {"vr": "CS"}}]'.encode("utf-16"),
        '[{"a": "\n"}]',
    ],
)
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(MetadataError):
        read(text)


def test_instances_before_a_fault_have_been_given() -> None:
    found = read_json_model(b'[{"00080060": {"vr": "CS", "Value": ["CT"]}}, {"')
    assert next(found).data_set
    with pytest.raises(MetadataError, match="ends inside"):
        next(found)


@pytest.mark.parametrize("opening", ['{"00081032":{"vr":"SQ","Value":[', '{"a":', "[", '[{"a":['])
def test_ten_thousand_brackets_are_refused(opening: str) -> None:
    for text in ('[{"a":' + opening * 10_000, "[" + opening * 10_000):
        with pytest.raises(MetadataError):
            read(text)
    with pytest.raises(MetadataError, match=f"more than {JSON_DEPTH_MAX} brackets"):
        read('[{"a":' + opening * 10_000)


def test_the_deepest_sequence_that_is_taken_is_read() -> None:
    elements: dict[str, Any] = {"00080060": {"vr": "CS"}}
    for _ in range(64):
        elements = {"00081032": {"vr": "SQ", "Value": [elements]}}
    found = read_one(elements)
    depth = 0
    data_set = found.data_set
    while isinstance(inner := next(iter(data_set.values())).value, tuple):
        data_set = inner[0]
        depth += 1
    assert depth == 64


def test_a_text_is_read_out_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text(json.dumps([{"00080060": {"vr": "CS", "Value": ['C\\T"']}}] * 3))
    with (
        (tmp_path / "metadata.json").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        found = list(read_json_model(data))
    assert [one.data_set[0x00080060].value for one in found] == [b'C\\T"'] * 3


def test_a_file_can_be_closed_after_a_fault(tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_text('[{}, {"a": {"b": "c')
    with (
        (tmp_path / "metadata.json").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        pytest.raises(MetadataError, match="ends inside"),
    ):
        list(read_json_model(data))
    assert data.closed


@pytest.mark.parametrize("count", [1, 9_999, 10_000, 10_001, 25_000])
def test_texts_full_of_escapes_end_where_they_end(count: int) -> None:
    for text in ("\\" * count, '"' * count, "a\n" * count, '\\"' * count):
        assert value_of("UT", Value=[text]) == text.encode()
        with pytest.raises(MetadataError, match="ends inside"):
            read('[{"a": ' + json.dumps(text)[:-1])


def test_brackets_in_texts_do_not_count() -> None:
    text = "[{" * 1000 + '\\"' + '"' + "\\"
    assert value_of("UT", Value=[text]) == text.encode()


@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [("METADATA_BYTES_MAX", 50, "more than 50 bytes"), ("METADATA_TOKENS_MAX", 5, "more than 5 pieces")],
)
def test_bounds_of_an_instance(name: str, limit: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_model, name, limit)
    with pytest.raises(MetadataError, match=words):
        read(json.dumps([{}, {"00080060": {"vr": "CS", "Value": ["CT", "MR", "a long one", "and another"]}}]))
    assert len(read("[" + ",".join(["{}"] * 100) + "]")) == 100


@pytest.mark.parametrize("name", ["METADATA_ELEMENTS_MAX", "METADATA_VALUES_MAX"])
def test_bounds_of_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, name, 3)
    item = {"00080060": {"vr": "CS", "Value": ["CT"]}}
    good, bad = {"00080060": {"vr": "CS"}}, {"00081032": {"vr": "SQ", "Value": [item] * 4}}
    found = read(json.dumps([good, bad, good]))
    assert [bool(one.data_set) for one in found] == [True, False, True]
    assert "more than 3" in found[1].defect


@pytest.mark.slow
def test_memory_is_that_of_one_instance_and_not_of_their_number() -> None:
    element = {"vr": "LO", "Value": ["some text"] * 50}
    instance = json.dumps({f"0009{number:04X}": element for number in range(0x1001, 0x1021)})

    def peak(count: int) -> int:
        text = ("[" + ",".join([instance] * count) + "]").encode()
        tracemalloc.start()
        assert sum(1 for _ in read_json_model(text)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(20) < 2 * peak(1)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vr", "Value", "InlineBinary", "BulkDataURI", "Alphabetic", TAG]), inner
        )
    ),
    max_leaves=12,
)
_vrs = st.sampled_from(sorted(vr.decode() for vr in SHORT_VRS | LONG_VRS))
_elements = st.fixed_dictionaries(
    {"vr": _vrs}, optional={"Value": _json, "InlineBinary": _json, "BulkDataURI": _json}
)


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from([TAG, "00080005", "0020000D"]), _elements | _json), max_size=3)
)
def test_no_json_does_more_than_be_refused(instances: Any) -> None:
    found = read(json.dumps(instances))
    assert len(found) == len(instances)
    for one in found:
        assert all(
            isinstance(element.value, bytes | tuple | BulkReference) for element in one.data_set.values()
        )


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(st.text(alphabet='[]{}",:\\ \n09a.-eu') | st.binary(max_size=40))
def test_no_text_does_more_than_be_refused(text: str | bytes) -> None:
    with suppress(MetadataError):
        read(text)
