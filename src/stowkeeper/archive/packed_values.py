"""Raw values by tag in a third of the memory that a dict takes: those of thousands of instances wait for the catalog at once."""

import struct
from collections.abc import Mapping
from itertools import accumulate, pairwise

_COUNT = struct.Struct("<H")


def pack_values(values: Mapping[int, bytes]) -> bytes:
    """Return values in one piece: how many there are, their tags, their lengths, and their bytes."""
    count = len(values)
    head = struct.pack(f"<H{2 * count}I", count, *values, *map(len, values.values()))
    return b"".join((head, *values.values()))


def unpack_values(packed: bytes) -> dict[int, bytes]:
    """Return the values that were packed, in their order."""
    (count,) = _COUNT.unpack_from(packed)
    numbers = struct.unpack_from(f"<{2 * count}I", packed, _COUNT.size)
    start = _COUNT.size + 8 * count
    bounds = pairwise(accumulate(numbers[count:], initial=start))
    return {tag: packed[begin:end] for tag, (begin, end) in zip(numbers, bounds, strict=False)}
