"""The bounds of building instances, each with its reason. Sizes are in bytes."""

from typing import Final

ENCODED_PIECE_BYTES: Final = 64 * 1024
"""About how much of an encoded data set is given at a time, where it is made of small elements."""

BULK_PIECE_BYTES: Final = 256 * 1024
"""Bytes of a part that are read at a time: the memory of an instance, whatever the size of its bulk data."""

SHARED_BYTES_MAX: Final = 1 << 30
"""Bytes of parts that one request may use more than once. A few kilobytes, such as a colour profile, are shared by all instances
of a series; without a bound ten thousand instances that share one gigabyte would fill the disk with ten terabytes."""

SHARED_USES_MAX: Final = 100_000
"""Uses of parts beyond the first of each in one request; empty parts cost no bytes."""

FRAMES_MAX: Final = 1_000_000
"""Frames of one image that come as parts. A whole slide has some hundred thousand tiles."""

HEAD_BYTES: Final = 4096
"""Bytes of a bitstream that are read at once while its header is looked at. Most headers end in them."""

MARKERS_MAX: Final = 4096
"""Marker segments of a bitstream that are looked at before its image begins. Colour profiles and previews take some hundred
of 64 kB each."""

BOXES_MAX: Final = 4096
"""Boxes of a file format that are looked at. A film has some fifty."""

COMPONENTS_MAX: Final = 255
"""Components of an image: colours, and an alpha channel at most, in a format that has room for 16,384."""

SEARCHED_BYTES_MAX: Final = 1 << 20
"""First bytes of a video in which its parameters are searched. They stand in front of each picture that starts anew, of which
there are some every second."""

FRAGMENT_BYTES_MAX: Final = 0xFFFFFFFE
"""The longest fragment of encapsulated pixel data (PS3.5 §A.4), and the longest value: lengths have 32 bits and are even."""

BASIC_OFFSET_MAX: Final = 0xFFFFFFFF
"""The farthest place that a Basic Offset Table can name. Beyond it stands an Extended Offset Table (PS3.3 §C.7.6.3.1.8)."""
