"""The header scanner on deflated data sets."""

import struct
import tracemalloc
import zlib

import pytest
from data_set_bytes import ELE, HEAD, PATIENT_ID, PIXELS, TREE, deflate, scan
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dicom import inflater
from stowkeeper.dicom.limits import INFLATED_BYTES_MAX
from stowkeeper.dicom.transfer_syntaxes import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
from support.examples import examples


def test_a_deflated_data_set_cut_anywhere_is_a_problem():
    data = deflate(TREE)
    for size in range(len(data)):
        problem = scan(data[:size], DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).problem
        assert problem == (
            "the deflate stream ends before its last block does" if size else "the data set holds no elements"
        )


@pytest.mark.slow
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
    # A stored block, then one of a type that there is not (RFC 1951 §3.2.3), and the same in zlib's wrapping.
    stored = b"\0" + struct.pack("<HH", len(HEAD), len(HEAD) ^ 0xFFFF) + HEAD
    for damaged in (b"\xff", stored + b"\xff", zlib.compress(TREE)):
        assert scan(damaged, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).problem == "the deflate stream is damaged"


def test_a_problem_in_what_was_inflated_comes_before_one_behind_it():
    data = deflate(HEAD + ELE.header(PIXELS, b"ow", 0)) + b"\0\0\0"
    found = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert found.problem == "the VR of (7FE0,0010) at offset 16 is not two uppercase letters"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
def test_the_deflated_jpip_syntaxes_are_inflated(syntax):
    assert scan(deflate(TREE), syntax).values[PATIENT_ID] == b"4711 "


@given(
    garbage=st.binary(min_size=1, max_size=30),
    place=st.integers(0, 200),
    cuts=st.lists(st.integers(0, 400), max_size=10),
)
@settings(max_examples=examples(100), deadline=None)
def test_any_stream_is_judged_alike_at_any_split(garbage, place, cuts):
    data = deflate(TREE + ELE.element(0x00104000, b"UT", b"abaaabbabbaaaaab" * 200))
    data = data[:place] + garbage + data[place + len(garbage) :]
    cuts = [min(cut, len(data)) for cut in cuts]
    whole = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    parts = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, cuts=cuts)
    assert parts == whole or "the deflate stream is damaged" in (parts.problem, whole.problem)
    assert (parts.problem is None) == (whole.problem is None)


def test_no_output_is_left_in_the_inflater():
    # Whatever the size, the last input byte is read before the last output byte fits into a chunk.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inflater, "INFLATED_CHUNK_BYTES", 64)
        for size in range(700):
            data = deflate(ELE.element(PIXELS, b"OW", bytes(size)))
            assert scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).problem is None


def test_nothing_behind_the_bound_is_scanned():
    data = deflate(HEAD + ELE.element(PATIENT_ID, b"LO", b"4711") + ELE.header(PIXELS, b"ow", 0))
    found = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, inflated_bytes_max=20)
    assert found.problem == "the data set inflates to more than 20 bytes"
    assert PATIENT_ID not in found.values


def test_a_problem_before_the_bound_comes_before_the_bound():
    data = deflate(HEAD + ELE.header(PIXELS, b"ow", 0) + bytes(1000))
    found = scan(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, inflated_bytes_max=100)
    assert found.problem == "the VR of (7FE0,0010) at offset 16 is not two uppercase letters"
