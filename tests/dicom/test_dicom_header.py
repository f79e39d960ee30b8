"""The header scanner against pydicom, against itself at any split, and against what real files do."""

import io
import struct
import zlib

import pydicom
import pytest
from data_set_bytes import (
    BUNDLED,
    EBE,
    ELE,
    ILE,
    ITEM,
    ITEM_END,
    LAYOUTS,
    PATIENT_ID,
    PATIENT_NAME,
    PIXELS,
    SEQUENCE_END,
    STUDY_ID,
    SYNTAX_OF,
    TREE,
    Element,
    bundled_files,
    deflate,
    scan,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator

from stowkeeper.dicom.attributes import WANTED
from stowkeeper.dicom.elements import LONG_VRS, SHORT_VRS, UNDEFINED_LENGTH
from stowkeeper.dicom.limits import CAPTURED_VALUE_MAX
from stowkeeper.dicom.part10 import read_file_meta
from stowkeeper.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_IMAGE_FRAME_COMPRESSION,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_BASELINE_8_BIT,
)
from support.examples import examples

# Bundled files whose data sets really do not parse, and what has to be said about them.
DAMAGED = {
    "MR_truncated.dcm": "the data set ends at 9296, 62 bytes before the end of the value of (7FE0,0010) at offset 1166",
    "rtplan_truncated.dcm": "the data set ends at 1829, 265 bytes before the end of the value of (300A,00B0) at offset 1118",
    "SC_rgb_jpeg.dcm": "the VR of (0008,0008) at offset 0 is not two uppercase letters; is the data set in implicit VR?",
}


def values_by_pydicom(data, syntax):
    """Top-level wanted values as pydicom's reader of elements sees them, as bytes."""
    uid = pydicom.uid.UID(syntax)
    if uid.is_deflated:
        data = zlib.decompress(data, -15)
    elements = data_element_generator(io.BytesIO(data), uid.is_implicit_VR, uid.is_little_endian)
    return {
        int(element.tag): element.value or b""
        for element in elements
        if int(element.tag) in WANTED and isinstance(element, RawDataElement)
    }


# ---- against pydicom


@pytest.mark.parametrize("path", list(bundled_files()), ids=lambda path: str(path.relative_to(BUNDLED)))
def test_every_bundled_file_gives_the_values_that_pydicom_reads(path):
    data = path.read_bytes()
    meta = read_file_meta(data, whole=True)
    found = scan(data[meta.length :], meta.transfer_syntax_uid)
    assert found.size == len(data) - meta.length
    assert found.problem == DAMAGED.get(path.name)
    # The head of SC_rgb_jpeg.dcm promises explicit VR, its data set has implicit VR. Of one file without a
    # transfer syntax, nobody can tell.
    if meta.transfer_syntax_uid and path.name != "SC_rgb_jpeg.dcm":
        assert found.values == values_by_pydicom(data[meta.length :], meta.transfer_syntax_uid)


REENCODED = [
    "CT_small.dcm",
    "MR_small.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "nested_priv_SQ.dcm",
    "waveform_ecg.dcm",
]


@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
@pytest.mark.parametrize("syntax", [*SYNTAX_OF.values(), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN])
@pytest.mark.parametrize("name", REENCODED)
def test_reencoded_files_give_the_values_that_pydicom_reads(name, syntax, undefined):
    data_set = pydicom.dcmread(BUNDLED / "test_files" / name)
    for element in data_set.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    data_set.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    implicit = syntax == IMPLICIT_VR_LITTLE_ENDIAN
    little = syntax != EXPLICIT_VR_BIG_ENDIAN
    pydicom.dcmwrite(buffer, data_set, implicit_vr=implicit, little_endian=little, force_encoding=True)
    file = buffer.getvalue()
    meta = read_file_meta(file)
    found = scan(file[meta.length :], syntax)
    assert found.problem is None
    assert found.remarks == ()
    assert found.little_endian is little
    assert found.values == values_by_pydicom(file[meta.length :], syntax)
    assert found.values or name == "nested_priv_SQ.dcm"


# ---- any split


def test_a_tree_of_all_kinds_is_walked_to_its_end():
    found = scan(TREE)
    assert found.problem is None
    assert found.remarks == ()
    assert found.values == {
        0x00080018: b"1.2.3.4\0",
        PATIENT_NAME: b"Doe^Jane",
        PATIENT_ID: b"4711 ",
        0x00104000: b"x" * 300,
    }


def test_pieces_of_one_byte_give_the_same_scan():
    assert scan(TREE, cuts=range(1, len(TREE))) == scan(TREE)
    deflated = deflate(TREE)
    syntax = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    assert scan(deflated, syntax, cuts=range(1, len(deflated))) == scan(deflated, syntax)


def test_two_pieces_cut_anywhere_give_the_same_scan():
    whole = scan(TREE)
    for cut in range(len(TREE) + 1):
        assert scan(TREE, cuts=[cut]) == whole


def small_data_sets():
    for name in (
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "reportsi.dcm",
        "rtplan.dcm",
        "image_dfl.dcm",
    ):
        data = (BUNDLED / "test_files" / name).read_bytes()
        meta = read_file_meta(data)
        yield data[meta.length :], meta.transfer_syntax_uid


@given(data=st.data())
@settings(max_examples=examples(100), deadline=None)
def test_random_splits_of_real_data_sets_give_the_same_scan(data):
    data_set, syntax = data.draw(st.sampled_from(list(small_data_sets())))
    cuts = data.draw(st.lists(st.integers(0, min(len(data_set), 3000)), max_size=40))
    assert scan(data_set, syntax, cuts=cuts) == scan(data_set, syntax)


@pytest.mark.slow
@given(
    st.binary(max_size=400),
    st.lists(st.integers(0, 400), max_size=20),
    st.sampled_from(list(SYNTAX_OF.values())),
)
@settings(max_examples=examples(200), deadline=None)
def test_any_bytes_are_scanned_without_an_error_and_alike_at_any_split(data, cuts, syntax):
    cuts = [min(cut, len(data)) for cut in cuts]
    assert scan(data, syntax, cuts=cuts) == scan(data, syntax)


# ---- generated data sets

TAGS = st.one_of(
    st.sampled_from(sorted(WANTED)),
    st.integers(0x00080000, 0x7FDFFFFF),
    st.integers(0, 63).map(lambda number: 0x00090010 + number),
)
VALUES = st.one_of(st.binary(max_size=20), st.integers(0, 700).map(bytes))
LEAVES = st.builds(
    Element, tag=TAGS, vr=st.sampled_from(sorted(SHORT_VRS | LONG_VRS - {b"SQ"})), value=VALUES
)
ENCAPSULATED = st.builds(
    Element,
    tag=st.just(PIXELS),
    vr=st.just(b"OB"),
    fragments=st.lists(VALUES, min_size=1, max_size=4).map(tuple),
)


def sequences_of(children):
    return st.builds(
        Element,
        tag=TAGS,
        vr=st.just(b"SQ"),
        items=st.lists(st.lists(children, max_size=3).map(tuple), max_size=3).map(tuple),
        undefined=st.booleans(),
        items_undefined=st.booleans(),
    )


ELEMENTS = st.recursive(LEAVES | ENCAPSULATED, sequences_of, max_leaves=12)


@pytest.mark.slow
@LAYOUTS
@given(elements=st.lists(ELEMENTS, min_size=1, max_size=12), seed=st.randoms(use_true_random=False))
@settings(max_examples=examples(30), deadline=None)
def test_every_well_formed_data_set_parses_and_gives_its_values(layout, elements, seed):
    data = b"".join(element.encode(layout) for element in elements)
    expected = {}
    for element in elements:
        if element.tag in WANTED and element.vr != b"SQ" and len(element.value) <= CAPTURED_VALUE_MAX:
            expected.setdefault(element.tag, element.value)
    found = scan(data, SYNTAX_OF[layout])
    assert found.problem is None
    sequences = {element.tag for element in elements if element.vr == b"SQ"}
    assert {tag: value for tag, value in found.values.items() if tag not in sequences} == {
        tag: value for tag, value in expected.items() if tag not in sequences
    }
    cuts = [seed.randrange(len(data) + 1) for _ in range(8)]
    assert scan(data, SYNTAX_OF[layout], cuts=cuts) == found
    assert scan(data, SYNTAX_OF[layout], wanted=WANTED | {0x00191001}).problem is None


@pytest.mark.slow
@given(st.lists(LEAVES.filter(lambda element: element.tag >> 16 & 1), max_size=20))
@settings(max_examples=examples(100), deadline=None)
def test_a_run_of_private_elements_ends_where_the_loop_would_end_it(elements):
    run = b"".join(element.encode(ELE) for element in elements)
    data = ELE.element(0x00090010, b"LO", b"ACME") + run + ELE.element(PATIENT_ID, b"LO", b"4711")
    fast = scan(data)
    # A wanted private element keeps the scanner from taking the short way over private ones.
    slow = scan(data, wanted=WANTED | {0x7FFF0001})
    assert fast == slow
    assert fast.problem is None
    assert fast.values == {PATIENT_ID: b"4711"}


def test_more_private_elements_than_a_run_may_have_are_walked_over():
    private = b"".join(ELE.element(0x00091000 + number, b"SS", b"ab") for number in range(0xEFF))
    data = ELE.element(0x00090010, b"LO", b"ACME") + private + ELE.element(PATIENT_ID, b"LO", b"4711")
    assert scan(data).values == {PATIENT_ID: b"4711"}
    assert scan(data).problem is None


def test_a_wanted_private_element_is_found():
    data = ELE.element(0x00090010, b"LO", b"ACME") + ELE.element(0x00091001, b"LO", b"me")
    assert scan(data, wanted=frozenset([0x00090010, 0x00091001])).values == {
        0x00090010: b"ACME",
        0x00091001: b"me",
    }
    assert scan(data, wanted=frozenset([0x00091001])).values == {0x00091001: b"me"}


# ---- what real files do


@pytest.mark.parametrize("order", [ELE, EBE], ids=["ELE", "EBE"])
def test_un_of_undefined_length_holds_implicit_vr_little_endian(order):
    inner = ILE.element(0x00081150, b"UI", b"1.2\0") + ILE.sequence(
        0x00081199, ILE.element(0x00081155, b"UI", b"1.23")
    )
    unknown = order.header(0x00091001, b"UN", UNDEFINED_LENGTH) + ILE.sequence(0x00091001, inner, b"")[8:]
    found = scan(unknown + order.element(PATIENT_ID, b"LO", b"4711"), SYNTAX_OF[order])
    assert found.problem is None
    assert found.remarks == ()
    assert found.values == {PATIENT_ID: b"4711"}


def test_un_of_undefined_length_may_hold_explicit_vr():
    inner = ELE.element(0x00081150, b"UI", b"1.2\0") + ELE.sequence(
        0x00081199, ELE.element(0x00081155, b"UI", b"1.23")
    )
    found = scan(
        ELE.sequence(0x00091001, inner, b"", inner, vr=b"UN") + ELE.element(PATIENT_ID, b"LO", b"4711")
    )
    assert found.problem is None
    assert found.values == {PATIENT_ID: b"4711"}


def test_an_item_in_implicit_vr_inside_explicit_vr_is_read_with_a_remark():
    inner = ILE.element(0x00081150, b"UI", b"1.2\0") + ILE.sequence(
        0x00081199, ILE.element(0x00081155, b"UI", b"1.23")
    )
    correct = ELE.element(0x00081150, b"UI", b"1.2\0")
    found = scan(ELE.sequence(0x00081140, correct, inner, correct) + ELE.element(PATIENT_ID, b"LO", b"4711"))
    assert found.problem is None
    assert found.remarks == ("the item at offset 40 is in implicit VR",)
    assert found.values == {PATIENT_ID: b"4711"}


def test_pixel_data_of_vr_un_may_be_encapsulated():
    found = scan(ELE.fragments(PIXELS, b"", b"\xff\xd8", vr=b"UN"), JPEG_BASELINE_8_BIT)
    assert found.problem is None


def test_a_frame_deflated_by_itself_is_encapsulated():
    found = scan(ELE.fragments(PIXELS, b"", deflate(bytes(99))), DEFLATED_IMAGE_FRAME_COMPRESSION)
    assert found.problem is None


def test_a_fragment_may_look_like_a_delimiter_inside():
    fragment = ELE.mark(SEQUENCE_END) + ELE.mark(ITEM_END)
    assert scan(ELE.fragments(PIXELS, b"", fragment)).problem is None


def test_vrs_of_later_editions_have_a_long_length():
    data = ELE.header(0x00081140, b"ZZ", 0)[:6] + struct.pack("<HI", 0, 70000) + bytes(70000)
    assert scan(data + ELE.element(PATIENT_ID, b"LO", b"4711")).values == {PATIENT_ID: b"4711"}


def test_elements_out_of_order_are_kept_with_a_remark():
    found = scan(ELE.element(STUDY_ID, b"SH", b"1 ") + ELE.element(PATIENT_ID, b"LO", b"4711"))
    assert found.problem is None
    assert found.values == {STUDY_ID: b"1 ", PATIENT_ID: b"4711"}
    assert found.remarks == ("elements are not in ascending order, the first at (0010,0020)",)


@LAYOUTS
def test_the_first_of_two_elements_counts(layout):
    twice = layout.element(PATIENT_ID, b"LO", b"4711") + layout.element(PATIENT_ID, b"LO", b"4712")
    found = scan(twice, SYNTAX_OF[layout])
    assert found.problem is None
    assert found.values == {PATIENT_ID: b"4711"}
    assert found.remarks == ("(0010,0020) occurs again at offset 20; the first one counts",)


@LAYOUTS
def test_odd_lengths_are_let_pass(layout):
    found = scan(
        layout.element(PATIENT_ID, b"LO", b"471") + layout.element(STUDY_ID, b"SH", b"1"), SYNTAX_OF[layout]
    )
    assert found.problem is None
    assert found.values == {PATIENT_ID: b"471", STUDY_ID: b"1"}


def test_elements_inside_sequences_are_not_taken_for_those_outside():
    found = scan(ELE.sequence(0x00081140, ELE.element(PATIENT_ID, b"LO", b"4712")))
    assert found.problem is None
    assert found.values == {}


def test_delimiters_with_a_length_are_remarked():
    sequence = ELE.header(0x00081140, b"SQ", UNDEFINED_LENGTH) + ELE.mark(ITEM, UNDEFINED_LENGTH)
    found = scan(sequence + ELE.mark(ITEM_END, 7) + ELE.mark(SEQUENCE_END, 9))
    assert found.problem is None
    assert found.remarks == (
        "the item delimiter at offset 20 has a length",
        "the sequence delimiter at offset 28 has a length",
    )


def test_a_wanted_sequence_is_no_value():
    for undefined in (False, True):
        found = scan(ILE.sequence(PATIENT_ID, b"", undefined=undefined), IMPLICIT_VR_LITTLE_ENDIAN)
        assert found.problem is None
    assert found.values == {}
    assert found.remarks == ("(0010,0020) at offset 8 is a sequence; it was not read",)
