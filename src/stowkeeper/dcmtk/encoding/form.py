"""The form in which a received data set is written, as command line options ask for it."""

import enum
from dataclasses import dataclass
from typing import Final


class GroupLengths(enum.Enum):
    """What becomes of group lengths (gggg,0000), on every level."""

    RECALCULATE = "recalculate"
    """Each that is there gets the right value."""

    CREATE = "create"
    """Every group gets one."""

    REMOVE = "remove"
    """There are none."""


class Keep(enum.Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""Data Set Trailing Padding (FFFC,FFFC) stays as it was received."""

Padding = tuple[int, int] | Keep | None
"""What becomes of Data Set Trailing Padding: KEEP, None to remove it, or two numbers of bytes: the file comes to a
multiple of the first, every item to a multiple of the second, by new padding; 0 asks for none. With an odd number
among the two, DCMTK leaves padding and group lengths as they were received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The form in which a data set is written."""

    transfer_syntax: str | None
    """The UID of the transfer syntax to write; None for the one it was received in."""

    group_length: GroupLengths
    explicit_lengths: bool
    """Whether sequences and items have lengths; else they have delimiters."""

    padding: Padding
    new_vr: bool
    """Whether VRs younger than 1993 are written: OD OF OL OV SV UC UN UR UT UV. OB stands for them otherwise."""

    convert_un: bool
    """Whether elements of VR UN get the VR that the dictionary has for them."""

    compression_level: int
    """How hard the deflated transfer syntax is deflated: 0 not at all, 1 fast, 9 most; 6 is usual. What arrives
    deflated and needs no change is only deflated anew for another level than 6."""

    with_meta: bool
    """Whether file meta information stands before the data set; it counts where a file is padded."""

    correct_input: bool = True
    """Whether padding of texts is put right and white space taken out of UIDs, as `storescp` does."""


USUAL_COMPRESSION_LEVEL: Final = 6
"""The level that zlib itself takes when none is asked for."""

STORESCP_FORM: Final = Form(
    transfer_syntax=None,
    group_length=GroupLengths.RECALCULATE,
    explicit_lengths=True,
    padding=None,
    new_vr=True,
    convert_un=False,
    compression_level=USUAL_COMPRESSION_LEVEL,
    with_meta=True,
)
"""What `storescp` writes without any option."""

DCMRECV_FORM: Final = Form(
    transfer_syntax=None,
    group_length=GroupLengths.RECALCULATE,
    explicit_lengths=False,
    padding=KEEP,
    new_vr=True,
    convert_un=False,
    compression_level=USUAL_COMPRESSION_LEVEL,
    with_meta=True,
    correct_input=False,
)
"""What `dcmrecv` writes; it has no options for it."""
