"""What the catalog keeps of an instance, against pydicom, and with values that are not what they should be."""

import dataclasses
import re
import struct

import pydicom
import pytest
from data_set_bytes import BUNDLED
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_keyword, dictionary_VR

from stowkeeper.dicom import attributes
from stowkeeper.dicom.attributes import WANTED, InstanceAttributes, extract
from stowkeeper.dicom.character_sets import DEFAULT_REPERTOIRE, decode_text, parse_character_sets
from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.part10 import read_file_meta
from support.examples import examples

FIELDS = dataclasses.fields(InstanceAttributes)
TAG_OF = dict(zip((field.name for field in FIELDS), attributes._ATTRIBUTES, strict=True))
NUMBERS = {tag for tag in WANTED if dictionary_VR(tag) in {"IS", "US"}}

CHARACTER_SET = 0x00080005
SOP_INSTANCE_UID = 0x00080018
PATIENT_NAME = 0x00100010
PATIENT_ID = 0x00100020
COMMENTS = 0x00104000
INSTANCE_NUMBER = 0x00200013
ROWS = 0x00280010


def extract_file(path):
    data = path.read_bytes()
    meta = read_file_meta(data)
    scanner = HeaderScanner(meta.transfer_syntax_uid, WANTED)
    scanner.feed(data[meta.length :])
    scan = scanner.finish()
    return extract(scan.values, scan.little_endian)


def only(values, little_endian=True):
    """Extract and return what was found, as a dictionary, and the verdicts."""
    found, verdicts = extract(values, little_endian)
    return {
        field.name: getattr(found, field.name) for field in FIELDS if getattr(found, field.name) is not None
    }, verdicts


# ---- the table


def test_the_table_agrees_with_the_data_dictionary():
    for line in attributes._TABLE.splitlines():
        tag, vr, keyword = line.split()
        assert dictionary_keyword(int(tag, 16)) == keyword
        assert dictionary_VR(int(tag, 16)) == vr
    assert len(WANTED) == len(FIELDS) == len(attributes._TABLE.splitlines())
    assert list(attributes._ATTRIBUTES) == sorted(WANTED)


def test_fields_are_named_after_keywords():
    for field, line in zip(FIELDS, attributes._TABLE.splitlines(), strict=True):
        assert field.name.replace("_", "") == line.split()[2].lower()


def test_numbers_are_numbers():
    for field in FIELDS:
        assert field.type == (int | None if TAG_OF[field.name] in NUMBERS else str | None)


# ---- against pydicom


def expected_text(value):
    if isinstance(value, (pydicom.multival.MultiValue, list)):
        return "\\".join(expected_text(item) or "" for item in value)
    return str(value).strip(" \0")


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "JPEG2000.dcm",
        "MR_small.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "examples_palette.dcm",
        "examples_ybr_color.dcm",
        "image_dfl.dcm",
        "rtplan.dcm",
        "test-SR.dcm",
        "waveform_ecg.dcm",
    ],
)
def test_real_files_give_what_pydicom_reads(name):
    path = BUNDLED / "test_files" / name
    found, verdicts = extract_file(path)
    data_set = pydicom.dcmread(path)
    for field_name, tag in TAG_OF.items():
        value = getattr(found, field_name)
        element = data_set.get(tag)
        if element is None or element.VM == 0 or element.value == "":
            assert value is None
        elif isinstance(value, int):
            assert value == int(element.value)
        elif element.VR == "DS":  # pydicom's floating point values do not remember how they were written
            assert value is not None
        else:
            assert value == expected_text(element.value)
    assert verdicts == ()


@pytest.mark.parametrize(
    # The two others have their names inside a sequence.
    "path",
    [path for path in sorted((BUNDLED / "charset_files").glob("chr*.dcm")) if "SQ" not in path.name],
    ids=lambda path: path.name,
)
def test_names_in_all_character_sets_are_what_pydicom_reads(path):
    found, verdicts = extract_file(path)
    # An empty component group at the end stays, pydicom drops it.
    assert found.patient_name.rstrip("=") == str(pydicom.dcmread(path).PatientName) != ""
    assert "\N{REPLACEMENT CHARACTER}" not in found.patient_name
    assert verdicts == ()


# ---- texts


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"4711", "4711"),
        (b"4711 ", "4711"),
        (b"  4711\0", "4711"),
        (b"", None),
        (b"  ", None),
        (b"\0\0", None),
        (b"a b", "a b"),
        (b"a\\b ", "a\\b"),
        (b" a \\ b ", "a\\b"),
        (b"\\", "\\"),
        (b"a\0b", "a b"),
    ],
)
def test_texts_lose_their_padding(raw, text):
    found, verdicts = only({PATIENT_ID: raw})
    assert found == ({"patient_id": text} if text else {})
    assert verdicts == ()


def test_a_text_of_one_value_may_have_backslashes_and_lines():
    assert only({COMMENTS: b" a \\ b\r\nc "})[0] == {"patient_comments": "a \\ b\r\nc"}
    assert only({COMMENTS: b" a \\ b "})[0] == {"patient_comments": "a \\ b"}


@pytest.mark.parametrize(
    ("character_set", "raw", "text"),
    [
        (b"ISO_IR 100", b"M\xfcller", "Müller"),
        (b"ISO_IR 192", "Wang^小东".encode(), "Wang^小东"),
        (b"GB18030", "Wang^小东".encode("gb18030"), "Wang^小东"),
        (b"GBK", "Wang^小东".encode("gbk"), "Wang^小东"),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
        (b"ISO_IR 203", "Œuvre".encode("iso8859_15"), "Œuvre"),
        (b"ISO_IR 166", "นาย".encode("tis_620"), "นาย"),
        (b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
            "Hong^Gildong=洪^吉洞",
        ),
        (b"\\ISO 2022 IR 58", b"Wang=\x1b$)A" + "王".encode("gb2312"), "Wang=王"),
        (b"\\ISO 2022 IR 159", b"\x1b$(D\x30\x21\x1b(B^x", "丂^x"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\xfc \x1b-L\xbb\xee^\xfc", "ü Лю^ü"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\x1b-L\xbb^\x1b(B\xfc", "Л^ü"),
        (b"ISO_IR 192", "\x1b-Lü".encode(), "\x1b-Lü"),  # no code extensions there
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\x1b$B;3\x1b(J^\xd4", "ﾔ山^ﾔ"),
        # Spelled as people do.
        (b"ISO-IR 100 ", b"M\xfcller", "Müller"),
        (b"iso_ir_100", b"M\xfcller", "Müller"),
        (b"ISO 2022-IR 100", b"M\xfcller", "Müller"),
        (b"UTF-8", "Müller".encode(), "Müller"),
    ],
)
def test_texts_are_decoded_by_their_character_set(character_set, raw, text):
    found, verdicts = extract({CHARACTER_SET: character_set, PATIENT_NAME: raw}, little_endian=True)
    assert found.patient_name == text
    assert verdicts == ()


def test_a_backslash_inside_a_character_separates_nothing():
    text = "表\\ソ"
    found, _ = extract({CHARACTER_SET: b"GB18030", PATIENT_ID: text.encode("gb18030")}, little_endian=True)
    assert found.patient_id == text


NAME_DOES_NOT_FIT = "PatientName does not fit its character set; its text is a guess"


@pytest.mark.parametrize(
    ("character_set", "raw", "text", "verdict"),
    [
        (None, "Müller".encode(), "Müller", NAME_DOES_NOT_FIT),
        (None, b"M\xfcller", "Müller", NAME_DOES_NOT_FIT),
        (b"", b"M\xfcller", "Müller", NAME_DOES_NOT_FIT),
        (b"ISO_IR 6", b"M\xfcller", "Müller", NAME_DOES_NOT_FIT),
        (b"\\ISO 2022 IR 144", "Лю".encode("iso8859_5"), "Лю", NAME_DOES_NOT_FIT),
        (b"ISO_IR 192", b"M\xfcller", "M\N{REPLACEMENT CHARACTER}ller", NAME_DOES_NOT_FIT),
        (b"GB18030", b"M\xff", "M\N{REPLACEMENT CHARACTER}", NAME_DOES_NOT_FIT),
        (
            b"\\ISO 2022 IR 87",
            b"\x1b$B\xff\xff\x1b(Bx",
            "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}x",
            NAME_DOES_NOT_FIT,
        ),
        (b"\\ISO 2022 IR 87", b"a\x1b$Xb", "ab", NAME_DOES_NOT_FIT),
        (b"KLINGON", b"M\xfcller", "Müller", "SpecificCharacterSet names a character set that is not known"),
        (b"ISO_IR 999", b"Miller", "Miller", "SpecificCharacterSet names a character set that is not known"),
    ],
)
def test_a_text_that_does_not_fit_its_character_set_is_a_guess_with_a_verdict(
    character_set, raw, text, verdict
):
    values = (
        {PATIENT_NAME: raw} if character_set is None else {CHARACTER_SET: character_set, PATIENT_NAME: raw}
    )
    found, verdicts = extract(values, little_endian=True)
    assert found.patient_name == text
    assert verdicts == (verdict,)


def test_codes_are_in_the_default_repertoire_whatever_the_character_set():
    found, verdicts = extract({CHARACTER_SET: b"ISO_IR 144", 0x00080060: b"C\xfc"}, little_endian=True)
    assert found.modality == "Cü"
    assert verdicts == ("Modality does not fit its character set; its text is a guess",)


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\\ISO 2022 IR 87\\ISO 2022 IR 149", b"ISO_IR 192", b"GBK", b"?"]),
)
@settings(max_examples=examples(200))
def test_any_bytes_are_some_text(raw, character_set):
    for is_name in (False, True):
        text, _ = decode_text(raw, parse_character_sets(character_set), is_name=is_name)
        text.encode()  # no lone surrogates: databases and protocols take it


@given(st.text(st.characters(codec="utf-8", exclude_characters="\\\0"), max_size=30))
@settings(max_examples=examples(100))
def test_text_in_unicode_is_kept(text):
    assert decode_text(text.encode(), parse_character_sets(b"ISO_IR 192")) == (text, True)
    if text.isascii() and "\x1b" not in text:
        assert decode_text(text.encode(), DEFAULT_REPERTOIRE) == (text, True)


# ---- UIDs


def test_uids_lose_their_padding():
    for raw in (b"1.2.3\0", b"1.2.3 ", b" 1.2.3\0\0"):
        assert only({SOP_INSTANCE_UID: raw}) == ({"sop_instance_uid": "1.2.3"}, ())
    assert only({SOP_INSTANCE_UID: b""}) == ({}, ())


@pytest.mark.parametrize(
    ("raw", "verdict"),
    [
        (b"1.02.3", "SOPInstanceUID is malformed: a component has a leading zero"),
        (b"1..3", "SOPInstanceUID is malformed: it has an empty component"),
        (b"1.2.x", "SOPInstanceUID is malformed: it has other characters than digits and dots"),
        (b"1.2\\1.3", "SOPInstanceUID is malformed: it has other characters than digits and dots"),
        (b"1" + b".2" * 32, "SOPInstanceUID is malformed: it has 65 characters, 64 are allowed"),
        (b"17", "SOPInstanceUID is malformed: it has one component only"),
        (b"4.2", "SOPInstanceUID is malformed: its first component is not 0, 1 or 2"),
        (b"1.\xff", "SOPInstanceUID is malformed: it has other characters than digits and dots"),
    ],
)
def test_a_malformed_uid_is_kept_with_a_verdict(raw, verdict):
    assert only({SOP_INSTANCE_UID: raw}) == ({"sop_instance_uid": raw.decode("latin-1")}, (verdict,))


def test_a_uid_of_padding_alone_is_none():
    assert only({SOP_INSTANCE_UID: b" \0"}) == ({}, ("SOPInstanceUID is malformed: it is empty",))


@given(st.text("0123456789. ", max_size=70))
@settings(max_examples=examples(200))
def test_the_short_way_for_uids_agrees_with_the_long_one(text):
    raw = text.strip(" ").encode()
    _, verdicts = only({SOP_INSTANCE_UID: raw})
    defect = attributes.uid_defect(raw.decode())
    assert verdicts == ((f"SOPInstanceUID is malformed: {defect}",) if raw and defect else ())


# ---- numbers


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b"12", 12),
        (b"12 ", 12),
        (b" 12\0", 12),
        (b"-3", -3),
        (b"+4", 4),
        (b"007", 7),
        (b"5.00", 5),
        (b"5.", 5),
        (b"0", 0),
    ],
)
def test_integer_strings_are_numbers(raw, number):
    assert only({INSTANCE_NUMBER: raw}) == ({"instance_number": number}, ())


@pytest.mark.parametrize("raw", [b"", b" ", b"\0\0"])
def test_an_empty_integer_string_is_none(raw):
    assert only({INSTANCE_NUMBER: raw}) == ({}, ())


@pytest.mark.parametrize("raw", [b"x", b"1_0", b"5.5", b"0x10", b"9" * 19, b"\xb2", b"1 2", b"--1"])
def test_what_is_no_integer_is_none_with_a_verdict(raw):
    assert only({INSTANCE_NUMBER: raw}) == ({}, ("InstanceNumber is not an integer",))


def test_the_first_of_several_integers_counts():
    assert only({INSTANCE_NUMBER: b"1\\2\\3"}) == (
        {"instance_number": 1},
        ("InstanceNumber has 3 values; the first one counts",),
    )


def test_binary_numbers_follow_the_byte_order():
    for little_endian, order in ((True, "<"), (False, ">")):
        assert only({ROWS: struct.pack(order + "H", 512)}, little_endian) == ({"rows": 512}, ())
    assert only({ROWS: b"\1"}) == ({}, ("Rows has 1 byte, a number has 2",))
    assert only({ROWS: b""}) == ({}, ())


# ---- in all


def test_nothing_gives_nothing():
    assert extract({}, little_endian=True) == (InstanceAttributes(), ())
    assert extract({0x00091001: b"private"}, little_endian=True) == (InstanceAttributes(), ())


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(sorted(WANTED)), st.binary(max_size=40)), st.booleans())
@settings(max_examples=examples(200))
def test_any_values_are_extracted_without_an_error_and_verdicts_never_tell_them(values, little_endian):
    found, verdicts = extract(values, little_endian)
    for field in FIELDS:
        value = getattr(found, field.name)
        assert value is None or isinstance(value, int if TAG_OF[field.name] in NUMBERS else str)
    for verdict in verdicts:
        assert re.fullmatch(r"[A-Za-z]+ [a-z0-9 ,:;]+", verdict)


def test_verdicts_never_tell_values():
    _, verdicts = extract(dict.fromkeys(WANTED, "\\Qzé".encode()), little_endian=True)
    assert len(verdicts) > len(WANTED) / 2
    assert not any("Qz" in verdict for verdict in verdicts)
