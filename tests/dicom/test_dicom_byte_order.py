"""The byte order of numbers in values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dicom.byte_order import NUMBER_SIZES, swap_numbers
from stowkeeper.dicom.elements import LONG_VRS, SHORT_VRS


@pytest.mark.parametrize(
    ("size", "swapped"),
    [(1, b"abcdefghijk"), (2, b"badcfehgjik"), (4, b"dcbahgfeijk"), (8, b"hgfedcbaijk")],
)
def test_each_number_is_turned_around_and_the_rest_stays(size, swapped):
    assert swap_numbers(b"abcdefghijk", size) == swapped


@given(st.binary(max_size=40), st.sampled_from([1, 2, 4, 8]))
def test_twice_is_the_way_back(value, size):
    assert swap_numbers(swap_numbers(value, size), size) == value


def test_the_vrs_of_numbers():
    assert set(NUMBER_SIZES) < SHORT_VRS | LONG_VRS
    # An attribute tag is two numbers of 16 bits, one after the other (PS3.5 §7.3).
    assert NUMBER_SIZES[b"AT"] == 2
    assert NUMBER_SIZES[b"FD"] == NUMBER_SIZES[b"OV"] == 8
