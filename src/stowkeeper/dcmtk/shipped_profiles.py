"""The profile file that comes with the product, in the place of DCMTK's `storescp.cfg`, made from our tables.

It has the two profiles that command lines name: `Default`, with every storage class that is known by name, and
`AllDICOM`, without the retired, trial, security screening and materials testing ones. Where DCMTK's file lets the peer
send 8 bit JPEG before anything else, this one asks for what loses nothing first.

After a change of the tables `python -m stowkeeper.dcmtk.shipped_profiles` writes the file anew.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from stowkeeper.dcmtk.preferences import ACCEPT_ALL_FIRST
from stowkeeper.dcmtk.profile_names import NAMES_BY_UID
from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES
from stowkeeper.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
    TRANSFER_SYNTAXES,
    TransferSyntax,
)

SHIPPED_PROFILE_FILE: Final = Path(__file__).parent / "shipped" / "storescp.cfg"
"""Where the file is in an installation."""

_UNCOMPRESSED: Final = ("LocalEndianExplicit", "OppositeEndianExplicit", "LittleEndianImplicit")
_PIXELS_WITHOUT_THE_WORD: Final = frozenset(
    {
        "CornealTopographyMapStorage",
        "DICOS_2DAITStorage",
        "DICOS_3DAITStorage",
        "HeightMapSegmentationStorage",
        "LabelMapSegmentationStorage",
        "OphthalmicThicknessMapStorage",
        "ParametricMapStorage",
        "RTDoseStorage",
        "SegmentationStorage",
    }
)
"""Classes whose objects have pixel data, and so may be compressed, though no "Image" is in their names."""

_SPECIAL_PREFIXES: Final = ("RETIRED_", "DRAFT_", "DICOS_", "DICONDE_")

_HEAD: Final = """\
# Association negotiation profiles for `stowkeeper storescp` and `stowkeeper dcmrecv`, to be used by
#
#     -xf FILE Default     every storage class that is known by name
#     -xf FILE AllDICOM    those that the DICOM standard has in force
#
# Of the transfer syntaxes that a peer offers for an image, the first in the list below is taken: compressed without
# loss, then what may have lost something, then uncompressed. docs/dcmtk-profiles.md explains the format.
"""


def compressed_syntaxes() -> tuple[str, ...]:
    """Return every transfer syntax with compressed pixel data, those first in which nothing can be lost."""
    order = {uid: place for place, uid in enumerate(ACCEPT_ALL_FIRST)}
    losses = {True: 0, None: 1, False: 2}

    def rank(known: TransferSyntax) -> tuple[int, int, tuple[int, ...]]:
        components = tuple(int(component) for component in known.uid.split("."))
        return losses[known.lossless], order.get(known.uid, len(order)), components

    compressed = (known for known in TRANSFER_SYNTAXES.values() if known.encapsulated)
    return tuple(
        known.uid
        for known in sorted(compressed, key=rank)
        if known.uid != ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN
    )


def shipped_profile_text() -> str:
    """Return the whole file."""
    names = [row.split()[2] for row in STORAGE_CLASSES.splitlines()]
    in_force = [name for name in names if not name.startswith(_SPECIAL_PREFIXES)]
    deflated = NAMES_BY_UID[DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN]
    any_syntax = [NAMES_BY_UID[uid] for uid in compressed_syntaxes()]
    any_syntax += [
        deflated,
        NAMES_BY_UID[ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN],
        *_UNCOMPRESSED,
    ]
    lines = [
        _HEAD,
        "[[TransferSyntaxes]]\n",
        *_section("Uncompressed", "TransferSyntax", _UNCOMPRESSED),
        *_section("UncompressedOrDeflated", "TransferSyntax", (deflated, *_UNCOMPRESSED)),
        *_section("Any", "TransferSyntax", any_syntax),
        "[[PresentationContexts]]\n",
        *_section("EveryStorageClass", "PresentationContext", _contexts(names)),
        *_section("StorageClassesInForce", "PresentationContext", _contexts(in_force)),
        "[[Profiles]]\n",
        "[Default]",
        "PresentationContexts = EveryStorageClass\n",
        "[AllDICOM]",
        "PresentationContexts = StorageClassesInForce",
    ]
    return "\n".join(lines) + "\n"


def _contexts(names: Iterable[str]) -> Iterator[str]:
    yield "VerificationSOPClass\\Uncompressed"
    for name in names:
        has_pixels = "Image" in name or name in _PIXELS_WITHOUT_THE_WORD
        yield f"{name}\\{'Any' if has_pixels else 'UncompressedOrDeflated'}"


def _section(name: str, key: str, values: Iterable[str]) -> Iterator[str]:
    yield f"[{name}]"
    for number, value in enumerate(values, start=1):
        yield f"{key}{number} = {value}"
    yield ""


if __name__ == "__main__":
    SHIPPED_PROFILE_FILE.write_text(shipped_profile_text(), encoding="ascii")
