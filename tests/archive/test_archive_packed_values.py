"""Values that wait for the catalog come out of one piece as they went in, and take less memory in it."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.archive.packed_values import pack_values, unpack_values
from stowkeeper.dicom.attributes import WANTED


@given(st.dictionaries(st.integers(0, 0xFFFFFFFF), st.binary(max_size=5000), max_size=90))
def test_values_come_out_as_they_went_in(values: dict[int, bytes]) -> None:
    found = unpack_values(pack_values(values))
    assert found == values
    assert list(found) == list(values)


def test_they_take_a_third_of_the_memory() -> None:
    values = dict.fromkeys(sorted(WANTED)[:40], b"0123456789")
    apart = sys.getsizeof(values) + sum(map(sys.getsizeof, (bytes(list(value)) for value in values.values())))
    assert sys.getsizeof(pack_values(values)) < apart / 3
