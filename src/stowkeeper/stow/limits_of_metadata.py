"""The bounds of metadata in DICOM JSON and in the Native DICOM Model, each with its reason. Sizes are in bytes."""

from typing import Final

from stowkeeper.dicom.limits import SEQUENCE_DEPTH_MAX

METADATA_BYTES_MAX: Final = 32 * 1024 * 1024
"""Metadata of one instance, as it comes. Those of a multi-frame image with ten thousand frames and functional groups for each
take some 20 MB; what is larger than that belongs into bulk data."""

METADATA_TOKENS_MAX: Final = 2_000_000
"""Texts, commas and opening brackets of the JSON of one instance. Each becomes an object in memory, of some 60 bytes, which a
bound in bytes alone would allow to be made of two. An element has nine, so ten thousand frames with twenty elements each fit."""

METADATA_ELEMENTS_MAX: Final = 250_000
"""Data elements of one instance, those in items among them; for the same ten thousand frames with twenty elements each."""

METADATA_VALUES_MAX: Final = 2_000_000
"""Values and items of one instance, for the same reason as METADATA_TOKENS_MAX: in XML an empty value takes eight bytes."""

JSON_DEPTH_MAX: Final = 3 * SEQUENCE_DEPTH_MAX + 4
"""Brackets inside one another in the JSON of one instance. A sequence opens three: its own, that of its values and that of
the item. What is within it is certain to be within what Python's parser, which recurses, can do."""

XML_DEPTH_MAX: Final = 2 * SEQUENCE_DEPTH_MAX + 6
"""Tags inside one another in a Native DICOM Model: a sequence opens two; a person's name has four."""

XML_PIECE_BYTES: Final = 64 * 1024
"""Bytes of XML that the parser gets at a time: while it has them nothing else runs."""

XML_TAG_BYTES_MAX: Final = 256 * 1024
"""About the bytes of a tag with all its fields, or of a comment, in XML. Expat reads one that has not come whole anew with each
piece, so thirty megabytes of a single one took it twenty seconds. A tag has some hundred, a comment may have a licence."""

NUMBER_LETTERS_MAX: Final = 40
"""Letters of a number in a binary value representation: twenty digits for the largest integer, 24 for the longest double."""

BULK_URI_LETTERS_MAX: Final = 2048
"""Letters of a reference to bulk data. It is compared with the places that the parts of the body name, and nothing else;
as long as servers let an address be."""
