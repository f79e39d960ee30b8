"""The objects that the table of command lines is tried on: small ones for names and statuses, and everything that a
data set can have for conversions.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import encoding_samples as samples
from encoding_trees import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMAGE,
    IMPLICIT,
    INSTANCE,
    JPEG,
    PIXELS,
    SECONDARY_CAPTURE,
    El,
    Node,
    encode,
)

ROOT = "1.2.840.10008."
VERIFICATION = f"{ROOT}1.1"
CT, ENHANCED_CT = f"{ROOT}5.1.4.1.1.2", f"{ROOT}5.1.4.1.1.2.1"
MR, ENHANCED_MR = f"{ROOT}5.1.4.1.1.4", f"{ROOT}5.1.4.1.1.4.1"
DOSE_REPORT, TEXT_REPORT_TRIAL = f"{ROOT}5.1.4.1.1.88.67", f"{ROOT}5.1.4.1.1.88.1"
UNKNOWN_CLASS = "1.2.826.0.1.3680043.2.1125.99"
MODALITIES = (CT, ENHANCED_CT, MR, ENHANCED_MR, DOSE_REPORT, TEXT_REPORT_TRIAL, SECONDARY_CAPTURE)
"""Prefixes of two, three and four characters."""

SYNTAXES = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED)
"""The uncompressed transfer syntaxes that DCMTK 3.6.7 receives; it knows GE's private one, but ends at an object in it."""

STUDY_A, STUDY_B = "1.2.3.41", "1.2.3.42"


def padded(text: str | bytes, pad: bytes = b" ") -> bytes:
    """Return a text with an even number of bytes."""
    value = text.encode("latin-1") if isinstance(text, str) else text
    return value + pad * (len(value) % 2)


def small(
    uid: str | None,
    *,
    sop_class: str | None = CT,
    study: str | None = STUDY_A,
    patient: bytes | None = b"Doe^Jane",
    character_set: bytes | None = None,
    series_date: bytes | None = None,
    syntax: str = EXPLICIT,
    more: Sequence[Node] = (),
) -> bytes:
    """Return a small image, without the elements that are None."""
    given: list[tuple[int, bytes, str | bytes | None, bytes]] = [
        (0x00080005, b"CS", character_set, b" "),
        (0x00080016, b"UI", sop_class, b"\0"),
        (0x00080018, b"UI", uid, b"\0"),
        (0x00080021, b"DA", series_date, b" "),
        (0x00100010, b"PN", patient, b" "),
        (0x0020000D, b"UI", study, b"\0"),
    ]
    elements: list[Node] = [
        El(tag, vr, padded(value, pad)) for tag, vr, value, pad in given if value is not None
    ]
    return encode([*elements, *IMAGE, PIXELS, *more], syntax)


_CONVERTED = (
    "usual",
    "texts b'LO'",
    "uids",
    "numbers",
    "known numbers",
    "empty values",
    "pixels OB",
    "sequences closed, items closed",
    "sequences closed, items open",
    "sequences open, items closed",
    "sequences open, items open",
    "empty sequence open, items open",
    "empty item closed, items open",
    "sequences mixed",
    "nested deeply",
    "out of order",
    "twice apart",
    "group length wrong",
    "group length of another VR",
    "group length alone",
    "group lengths, private",
    "group lengths in items, False",
    "group lengths in items, True",
    "padding",
    "padding with group length",
    "padding in items",
    "UN of known tags",
    "UN of unknown tags",
    "UN that holds items",
    "UN of undefined length False",
    "UN of undefined length True",
    "VR of a later edition",
    "new VRs",
    "US or SS, b'\\x01\\x00'",
    "waveform, 8",
    "waveform, 16",
    "OB or OW",
    "repeating groups",
    "private",
    "private in an item",
    "private UN",
    "private sequence",
    "long OW",
)
"""Names of samples, of which the test of the writer has many more: what each option of conversion is there for."""

_COMPRESSED = (
    "fragments",
    "fragments, offset table",
    "fragments, odd",
    "native icon",
    "compressed icon",
    "group length of pixels",
    "no pixels",
    "sequences",
    "long fragment",
    "padding behind fragments",
    "fragments of a private element",
)


@cache
def converted() -> tuple[tuple[str, str, bytes], ...]:
    """Return (SOP Instance UID, transfer syntax, data set): each data set in each uncompressed transfer syntax."""
    trees = dict(samples.samples())
    return tuple(_encoded([trees[name] for name in _CONVERTED], SYNTAXES))


@cache
def compressed() -> tuple[tuple[str, str, bytes], ...]:
    """Return the like for data sets with compressed pixel data, and for those that have none of it."""
    trees = dict(samples.compressed())
    return tuple(_encoded([trees[name] for name in _COMPRESSED], (JPEG,)))


def _encoded(trees: Sequence[Sequence[Node]], syntaxes: Sequence[str]) -> Iterator[tuple[str, str, bytes]]:
    number = 0
    for tree in trees:
        for syntax in syntaxes:
            number += 1
            uid = f"1.2.826.0.1.3680043.2.1125.{number}"
            instance = El(0x00080018, b"UI", padded(uid, b"\0"))
            data_set = encode([instance if node == INSTANCE else node for node in tree], syntax)
            if len(data_set) % 2 == 0:  # an odd length is no data set to DCMTK's network code
                yield uid, syntax, data_set
