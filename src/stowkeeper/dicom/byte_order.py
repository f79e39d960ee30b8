"""The byte order of numbers in values (PS3.5 §7.3)."""

import array
from typing import Final

NUMBER_SIZES: Final = {
    **dict.fromkeys(b"AT OW SS US".split(), 2),
    **dict.fromkeys(b"FL OF OL SL UL".split(), 4),
    **dict.fromkeys(b"FD OD OV SV UV".split(), 8),
}
"""Bytes of the numbers in a value, by VR. The byte order changes nothing in values of other VRs."""

_TYPE_CODES: Final = {size: code for code in "HILQ" if (size := array.array(code).itemsize) in {2, 4, 8}}


def swap_numbers(value: bytes, size: int) -> bytes:
    """Return a value with the bytes of each of its numbers turned around.

    `size` is that of a number in bytes: 1, 2, 4 or 8. What is left over behind the last whole number stays.
    """
    if size == 1:
        return value
    whole = len(value) - len(value) % size
    numbers = array.array(_TYPE_CODES[size], value[:whole])
    numbers.byteswap()
    return numbers.tobytes() + value[whole:]
