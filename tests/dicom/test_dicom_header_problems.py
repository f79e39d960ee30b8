"""The header scanner on data sets that are broken, that want too much, or that nobody knows."""

import io
import os
import re
import tracemalloc

import pydicom
import pytest
from data_set_bytes import (
    ELE,
    HEAD,
    ILE,
    ITEM,
    ITEM_END,
    LAYOUTS,
    PATIENT_ID,
    PATIENT_NAME,
    PIXELS,
    SEQUENCE_END,
    SYNTAX_OF,
    TREE,
    Layout,
    scan,
)

from stowkeeper.dicom import piece_walker
from stowkeeper.dicom.attributes import WANTED
from stowkeeper.dicom.element_walker import ElementWalker
from stowkeeper.dicom.elements import UNDEFINED_LENGTH
from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.limits import (
    CAPTURED_ALWAYS_MAX,
    CAPTURED_BYTES_MAX,
    CAPTURED_VALUE_MAX,
    PIECE_BYTES_MAX,
    REMARKS_MAX,
    SEQUENCE_DEPTH_MAX,
)
from stowkeeper.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN

# ---- what is wrong with a data set


def about(data, problem):
    """The element that a problem has to be about: the one it names last, or the sequence that an item is of."""
    tags = [int(group + element, 16) for group, element in re.findall(r"\((....),(....)\)", problem)]
    named = [tag for tag in tags if tag >> 16 != 0xFFFE]
    if tags and not named and ELE.header(0x00081140, b"SQ", UNDEFINED_LENGTH) in data:
        return 0x00081140
    return named[-1] if named else None


@LAYOUTS
def test_a_data_set_cut_anywhere_but_between_elements_is_a_problem(layout):
    parts = [
        layout.element(0x00080018, b"UI", b"1.2.3.4\0"),
        layout.sequence(0x00081140, layout.element(0x00081150, b"UI", b"1.2\0"), b""),
        layout.sequence(0x00082112, layout.element(0x00081150, b"UI", b"1.2\0"), undefined=False),
        layout.element(PATIENT_ID, b"LO", b"4711"),
        layout.element(0x00400000, b"OB", bytes(5)),
        layout.fragments(PIXELS, b"", bytes(7)),
    ]
    data = b"".join(parts)
    between = {sum(len(part) for part in parts[:count]) for count in range(1, len(parts) + 1)}
    for size in range(len(data) + 1):
        problem = scan(data[:size], SYNTAX_OF[layout]).problem
        assert (problem is None) == (size in between), size
        assert problem is None or size == 0 or f"ends at {size}" in problem


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the data set holds no elements"),
        (HEAD + b"\x10\0", "the data set ends at 18 inside the tag of an element at offset 16"),
        (
            HEAD + ELE.element(PATIENT_ID, b"LO", b"4711")[:7],
            "the data set ends at 23 inside the element (0010,0020) at offset 16",
        ),
        (
            HEAD + ELE.element(PATIENT_ID, b"LO", b"4711")[:-1],
            "the data set ends at 27 inside the element (0010,0020) at offset 16",
        ),
        (
            HEAD + ELE.header(PIXELS, b"OW", 100) + bytes(90),
            "the data set ends at 118, 10 bytes before the end of the value of (7FE0,0010) at offset 28",
        ),
        (
            HEAD + ELE.header(PIXELS, b"OW", UNDEFINED_LENGTH - 1) + bytes(90),
            "the data set ends at 118, 4294967204 bytes before the end of the value of (7FE0,0010) at offset 28",
        ),
        (
            HEAD + ELE.header(PIXELS, b"ow", 0),
            "the VR of (7FE0,0010) at offset 16 is not two uppercase letters",
        ),
        (
            HEAD + ELE.header(PIXELS, b"\0\0", 0),
            "the VR of (7FE0,0010) at offset 16 is not two uppercase letters",
        ),
        (HEAD + bytes(8), "the VR of (0000,0000) at offset 16 is not two uppercase letters"),
        (
            ILE.element(PATIENT_ID, b"LO", b"4711"),
            "the VR of (0010,0020) at offset 0 is not two uppercase letters; is the data set in implicit VR?",
        ),
        (HEAD + ELE.mark(ITEM), "(FFFE,E000) at offset 16 stands where an element should"),
        (HEAD + ELE.mark(ITEM, 0x4F4C), "(FFFE,E000) at offset 16 stands where an element should"),
        (HEAD + ELE.mark(ITEM, 0x424F), "(FFFE,E000) at offset 16 stands where an element should"),
        (
            HEAD + ELE.mark(ITEM, 0x5153) + b"\xff\xff\xff\xff",
            "(FFFE,E000) at offset 16 stands where an element should",
        ),
        (HEAD + ELE.mark(ITEM_END), "(FFFE,E00D) at offset 16 stands where an element should"),
        (HEAD + ELE.mark(SEQUENCE_END), "(FFFE,E0DD) at offset 16 stands where an element should"),
        (
            HEAD + ELE.header(0x00081140, b"SQ", UNDEFINED_LENGTH) + HEAD,
            "(0008,0018) at offset 28 stands where an item or the delimiter of the sequence (0008,1140) should",
        ),
        (
            HEAD + ELE.header(0x00081140, b"SQ", UNDEFINED_LENGTH) + ELE.mark(ITEM_END),
            "(FFFE,E00D) at offset 28 stands where an item or the delimiter of the sequence (0008,1140) should",
        ),
        (
            HEAD
            + ELE.header(0x00081140, b"SQ", UNDEFINED_LENGTH)
            + ELE.mark(ITEM, UNDEFINED_LENGTH)
            + ELE.mark(SEQUENCE_END),
            "(FFFE,E0DD) at offset 36 stands where an element should",
        ),
        (
            HEAD + ELE.header(0x00081140, b"SQ", UNDEFINED_LENGTH) + ELE.mark(ITEM, 20) + bytes(20),
            "the data set ends at 56 inside the sequence (0008,1140) at offset 16, whose delimiter is missing",
        ),
        (
            HEAD + ELE.header(0x00081140, b"SQ", UNDEFINED_LENGTH) + ELE.mark(ITEM, 20) + bytes(10),
            "the data set ends at 46, 10 bytes before the end of the value of (FFFE,E000) at offset 36",
        ),
        (
            HEAD + ELE.header(PIXELS, b"OB", UNDEFINED_LENGTH) + ELE.mark(ITEM, UNDEFINED_LENGTH),
            "the fragment at offset 28 of (7FE0,0010) has no length",
        ),
        (
            HEAD + ELE.header(PIXELS, b"UN", UNDEFINED_LENGTH) + ELE.mark(ITEM, UNDEFINED_LENGTH),
            "the fragment at offset 28 of (7FE0,0010) has no length",
        ),
        (
            HEAD + ELE.header(PATIENT_ID, b"UT", UNDEFINED_LENGTH),
            "(0010,0020) at offset 16 has a VR that allows no undefined length",
        ),
        (
            HEAD + ELE.sequence(0x00081140, HEAD + ELE.header(PIXELS, b"ow", 0)),
            "the VR of (7FE0,0010) at offset 52 is not two uppercase letters",
        ),
    ],
)
def test_the_problem_says_where_and_what(data, problem):
    assert scan(data).problem == problem
    assert scan(data).offending == about(data, problem)
    assert scan(data, cuts=range(1, len(data))).offending == about(data, problem)
    assert scan(data, cuts=range(1, len(data))).problem == problem
    # What comes after does not matter any more, and is not looked at.
    if "ends at" not in problem and data:
        assert scan(data + TREE, cuts=[len(data)]).problem == problem


def test_problems_and_remarks_never_tell_values():
    secret = b"SECRET"
    broken = [
        ELE.element(PATIENT_NAME, b"PN", secret)[:-1],
        ELE.element(PATIENT_NAME, b"PN", secret) * 2 + secret,
        ELE.element(PATIENT_NAME, b"PN", secret) + secret * 9,
        ELE.sequence(0x00081140, ELE.element(PATIENT_NAME, b"PN", secret))[:-3],
        ELE.element(0x00104000, b"UT", secret * 1000),
    ]
    for data in broken:
        found = scan(data)
        assert b"SECRET" not in repr((found.problem, found.remarks)).encode()
        assert found.problem or found.remarks


@LAYOUTS
def test_nesting_is_bounded(layout):
    def nested(depth):
        opening = layout.header(0x00081140, b"SQ", UNDEFINED_LENGTH) + layout.mark(ITEM, UNDEFINED_LENGTH)
        return opening * depth + (layout.mark(ITEM_END) + layout.mark(SEQUENCE_END)) * depth

    assert scan(nested(SEQUENCE_DEPTH_MAX), SYNTAX_OF[layout]).problem is None
    for depth in (SEQUENCE_DEPTH_MAX + 1, 5000):
        problem = scan(nested(depth), SYNTAX_OF[layout]).problem
        assert problem is not None
        assert problem.startswith(
            f"sequences are nested deeper than {SEQUENCE_DEPTH_MAX} at (0008,1140) at offset "
        )


def test_pydicom_reads_what_is_nested_as_deep_as_allowed():
    opening = ELE.header(0x00081140, b"SQ", UNDEFINED_LENGTH) + ELE.mark(ITEM, UNDEFINED_LENGTH)
    closing = ELE.mark(ITEM_END) + ELE.mark(SEQUENCE_END)
    data = opening * SEQUENCE_DEPTH_MAX + closing * SEQUENCE_DEPTH_MAX
    innermost = pydicom.dcmread(io.BytesIO(data), force=True)
    for _ in range(SEQUENCE_DEPTH_MAX):
        innermost = innermost.ReferencedImageSequence[0]
    assert len(innermost) == 0


# ---- bounds


def test_a_longer_value_than_allowed_is_not_read():
    longest = ELE.element(0x00104000, b"UT", bytes(CAPTURED_VALUE_MAX))
    assert scan(longest).values == {0x00104000: bytes(CAPTURED_VALUE_MAX)}
    found = scan(ELE.element(0x00104000, b"UT", bytes(CAPTURED_VALUE_MAX + 1)))
    assert found.problem is None
    assert found.values == {}
    assert found.remarks == (f"(0010,4000) has {CAPTURED_VALUE_MAX + 1} bytes; it was not read",)


def test_more_values_than_allowed_are_not_read():
    wanted = frozenset(range(0x00100010, 0x00100040))
    data = b"".join(ELE.element(tag, b"UT", bytes(CAPTURED_VALUE_MAX)) for tag in sorted(wanted))
    found = scan(data, wanted=wanted)
    assert found.problem is None
    assert sum(map(len, found.values.values())) == CAPTURED_BYTES_MAX
    assert found.remarks[0] == (
        f"(0010,0012) was not read: with it the values read would exceed {CAPTURED_BYTES_MAX} bytes"
    )
    assert len(found.remarks) == REMARKS_MAX


@pytest.mark.parametrize("cut", [None, 1, 70])
def test_long_texts_keep_no_short_value_from_being_read(cut):
    wanted = sorted(WANTED)
    long = dict.fromkeys(wanted[:5], CAPTURED_VALUE_MAX) | {wanted[5]: CAPTURED_ALWAYS_MAX + 1}
    lengths = {tag: long.get(tag, CAPTURED_ALWAYS_MAX) for tag in wanted}
    data = b"".join(ELE.element(tag, b"UT", bytes(length)) for tag, length in lengths.items())
    found = scan(data, wanted=WANTED, cuts=range(cut, len(data), cut) if cut else ())
    read = {tag: len(value) for tag, value in found.values.items()}
    assert read == {tag: length for tag, length in lengths.items() if tag not in wanted[2:6]}
    most = CAPTURED_BYTES_MAX + CAPTURED_ALWAYS_MAX * len(WANTED)
    assert sum(read.values()) <= most < 13_500, "what the bound's reason says"


def test_remarks_are_bounded():
    found = scan(ELE.element(PATIENT_ID, b"LO", b"4711") * 1000)
    assert len(found.remarks) == REMARKS_MAX


def test_a_long_piece_is_cut(monkeypatch):
    assert PIECE_BYTES_MAX < UNDEFINED_LENGTH
    whole = scan(TREE)
    sizes = []
    walk = ElementWalker._walk

    def watched(self, view, position, end):
        if isinstance(view, memoryview):  # what was kept from earlier pieces is bytes
            sizes.append(end)
        return walk(self, view, position, end)

    monkeypatch.setattr(ElementWalker, "_walk", watched)
    monkeypatch.setattr(piece_walker, "PIECE_BYTES_MAX", 5)
    assert scan(TREE) == whole
    assert 0 < max(sizes) <= 5


def test_skipping_costs_no_memory():
    piece = memoryview(bytes(1 << 20))
    scanner = HeaderScanner(EXPLICIT_VR_LITTLE_ENDIAN, WANTED)
    scanner.feed(ELE.header(PIXELS, b"OW", 1 << 30))
    tracemalloc.start()
    try:
        for _ in range(1 << 10):
            scanner.feed(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert scanner.finish().problem is None
    assert peak < 10_000


# ---- unknown transfer syntaxes


def test_an_unknown_transfer_syntax_is_not_judged():
    for data in (b"", TREE[:-1], os.urandom(50)):
        assert scan(data, "1.2.3.4").problem is None
    assert scan(TREE, "1.2.3.4").values == scan(TREE).values
    assert scan(b"", "").problem is None


def test_a_layout_of_the_tests_is_what_it_says():
    assert Layout().element(PATIENT_ID, b"LO", b"ab") == b"\x10\0\x20\0LO\2\0ab"
