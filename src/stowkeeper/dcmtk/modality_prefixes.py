"""The short prefix by which the name of a stored file tells what kind of object it holds.

It is looked up by SOP class, exactly. `UNKNOWN_CLASS_PREFIX` and its companions are what the two programs put in its
place for a class that is not in the table.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES

UNKNOWN_CLASS_PREFIX: Final = "UNKNOWN"
"""In file names of both programs."""

UNKNOWN_CLASS_SHORT_PREFIX: Final = "XX"
"""In the short unique names of `dcmrecv`."""

UNKNOWN_CLASS_IN_LOG: Final = "OT"
"""In the log lines of `storescp`."""

PREFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {uid: prefix for uid, prefix, _ in (row.split() for row in STORAGE_CLASSES.splitlines())}
)
"""The prefix of each storage class by its UID, two to four letters."""


def modality_prefix(sop_class_uid: str, unknown: str = UNKNOWN_CLASS_PREFIX) -> str:
    """Return the prefix of a class, or `unknown`."""
    return PREFIXES.get(sop_class_uid, unknown)
