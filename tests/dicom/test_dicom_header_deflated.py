"""The header scanner on deflated data sets."""

import struct
import tracemalloc
import zlib

import pytest
from data_set_bytes import ELE, HEAD, PATIENT_ID, PIXELS, TREE, deflate, scan
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dicom.limits import INFLATED_BYTES_MAX
from stowkeeper.dicom.transfer_syntaxes import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN


def test_a_deflated_data_set_cut_anywhere_is_a_problem():
    data = deflate(TREE)
    for size in range(len(data)):
        problem = scan(data[:size], DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).problem
        assert problem == (
            "the deflate stream ends before its last block does" if size else "the data set holds no elements"
        )


def test_a_deflate_bomb_costs_no_memory():
    bomb = ELE.element(PATIENT_ID, b"LO", b"4711") + ELE.header(PIXELS, b"OW", 1 << 25) + bytes(1 << 25)
    data = deflate(bomb)
    del bomb
    assert len(data) < 50_000
    tracemalloc.start()
    try:
        found = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.problem is None
    assert found.values == {PATIENT_ID: b"4711"}
    assert peak < 1_000_000


def test_what_inflates_to_more_than_allowed_is_a_problem():
    data = deflate(ELE.element(PIXELS, b"OW", bytes(100_000)))
    size = 100_012
    assert scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, inflated_bytes_max=size).problem is None
    found = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, inflated_bytes_max=size - 1)
    assert found.problem == f"the data set inflates to more than {size - 1} bytes"
    assert INFLATED_BYTES_MAX == 1 << 30


def test_a_deflated_data_set_may_have_one_byte_of_padding():
    data = deflate(TREE)
    for padding, problem in (
        (b"", None),
        (b"\0", None),
        (b"\0\0", "2 bytes follow the end of the deflate stream"),
    ):
        for cuts in [()] + [(len(data) + number,) for number in range(len(padding) + 1)]:
            assert scan(data + padding, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, cuts=cuts).problem == problem


def test_a_deflated_data_set_may_have_the_trailer_of_gzip():
    data = deflate(TREE)
    trailer = struct.pack("<II", zlib.crc32(TREE), len(TREE))
    for tail, problem in (
        (trailer, None),
        (trailer + b"\0", None),
        (trailer + b"\0\0", "10 bytes follow the end of the deflate stream"),
        (trailer[::-1], "8 bytes follow the end of the deflate stream"),
    ):
        assert scan(data + tail, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).problem == problem
        assert scan(data + tail, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, cuts=[len(data) + 3]).problem == problem


def test_damage_to_a_deflate_stream_is_a_problem():
    found = scan(b"\xff\xff\xff", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert found.problem == "the deflate stream is damaged after 0 inflated bytes"
    zlib_wrapped = zlib.compress(TREE)
    assert "the deflate stream is damaged" in str(
        scan(zlib_wrapped, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).problem
    )


def test_a_problem_in_what_was_inflated_comes_before_one_behind_it():
    data = deflate(HEAD + ELE.header(PIXELS, b"ow", 0)) + b"\0\0\0"
    found = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert found.problem == "the VR of (7FE0,0010) at offset 16 is not two uppercase letters"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
def test_the_deflated_jpip_syntaxes_are_inflated(syntax):
    assert scan(deflate(TREE), syntax).values[PATIENT_ID] == b"4711 "


@given(st.binary(min_size=1, max_size=30), st.integers(0, 200), st.lists(st.integers(0, 400), max_size=10))
@settings(max_examples=100, deadline=None)
def test_a_damaged_stream_gives_the_same_scan_at_any_split(garbage, place, cuts):
    data = deflate(TREE + ELE.element(0x00104000, b"UT", bytes(3000)))
    data = data[:place] + garbage + data[place + len(garbage) :]
    cuts = [min(cut, len(data)) for cut in cuts]
    whole = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, cuts=cuts) == whole
    assert scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, cuts=range(1, len(data))) == whole


def test_what_stands_before_the_damage_is_scanned():
    # A stored block with the values, then a block of a type that there is not (RFC 1951 §3.2.3).
    stored = ELE.element(PATIENT_ID, b"LO", b"4711")
    stream = b"\0" + struct.pack("<HH", len(stored), len(stored) ^ 0xFFFF) + stored + b"\xff"
    found = scan(stream + bytes(2000), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert found.values == {PATIENT_ID: b"4711"}
    assert found.problem == f"the deflate stream is damaged after {len(stored)} inflated bytes"


def test_a_problem_before_the_bound_comes_before_the_bound():
    data = deflate(HEAD + ELE.header(PIXELS, b"ow", 0) + bytes(1000))
    found = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, inflated_bytes_max=100)
    assert found.problem == "the VR of (7FE0,0010) at offset 16 is not two uppercase letters"
