"""The bounds of encoding: what a data set may ask of us before we say no, and why so much."""

from typing import Final

NODES_MAX: Final = 2_000_000
"""Elements, items and fragments of a data set that is written anew. Each takes 31 bytes of memory until it is written.
The largest real headers, of whole slides with hundreds of thousands of tiles, have about a million."""

SORTED_ELEMENTS_MAX: Final = 100_000
"""Elements of one data set or item that are put in order, where they came out of it. Each takes some 200 bytes of
memory; there are no more than a few thousand attributes, and private elements hardly double that."""

READ_AHEAD_BYTES: Final = 65_536
"""Bytes read in one go while headers are read. Longer values are stepped over, not read."""

COPY_BYTES: Final = 1 << 18
"""Bytes of a value, or of small elements together, that are copied in one go. With READ_AHEAD_BYTES this is what
writing costs in memory besides the structure, whatever the size of the data set; it is a multiple of 8, so that no
number is cut in two."""

INFLATED_IN_MEMORY_BYTES: Final = 1 << 24
"""Bytes of an inflated data set that stay in memory; more go into a temporary file."""

PRIVATE_CREATOR_BYTES_MAX: Final = 128
"""Bytes of a private creator that is looked up in the dictionary. It is LO: 64 characters (PS3.5 §6.2)."""

TEXT_AT_ONCE_MAX: Final = 65_536
"""Bytes of a text that are looked at in one piece to tell how it is padded. Texts with a 16-bit length are shorter; a
data set with a longer one is written anew, where texts are read piece by piece."""
