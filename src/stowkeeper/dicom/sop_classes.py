"""SOP classes by name: which are storage, and what an instance of each must carry.

The archive accepts what it does not know. So the question for a proposed abstract syntax is not "is it
storage?" but "is it known to be something else?", and the tables name both sides: storage classes, to give
them a name and the right demands, and all others, to refuse them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from stowkeeper.dicom import sop_class_table as table
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import DICOM_APPLICATION_CONTEXT

SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E

STORAGE_APPLICATION_INFORMATION: Final = bytes((2, 0, 3, 0, 0, 0))
"""Our side of SOP class extended negotiation, for every storage class (PS3.4 Table B.3-2): storage level 2
(full), digital signature level 3 (the data set is kept byte for byte, so signatures stay whole, PS3.4
§B.4.1.4), and no element is coerced. The bytes between are reserved."""


class SOPClassKind(Enum):
    """What a SOP class is to an archive."""

    COMPOSITE_STORAGE = auto()  # C-STORE of objects within a study
    NON_PATIENT_STORAGE = auto()  # C-STORE of objects outside of any study
    OTHER = auto()  # never stored by C-STORE


class Origin(Enum):
    """Who defined a SOP class, and whether it is still current."""

    STANDARD = "standard"
    RETIRED = "retired"
    DRAFT = "draft"
    DICOS = "DICOS"
    DICONDE = "DICONDE"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True, kw_only=True)
class SOPClass:
    """A SOP class that is known by name: `name` and `keyword` are those of PS3.6 Table A-1 where it has them."""

    uid: str
    name: str
    keyword: str
    kind: SOPClassKind
    origin: Origin


_SECTIONS: Final = (
    (table.STANDARD_STORAGE, SOPClassKind.COMPOSITE_STORAGE, Origin.STANDARD),
    (table.NON_PATIENT_STORAGE, SOPClassKind.NON_PATIENT_STORAGE, Origin.STANDARD),
    (table.RETIRED_STORAGE, SOPClassKind.COMPOSITE_STORAGE, Origin.RETIRED),
    (table.DRAFT_STORAGE, SOPClassKind.COMPOSITE_STORAGE, Origin.DRAFT),
    (table.DICOS_STORAGE, SOPClassKind.COMPOSITE_STORAGE, Origin.DICOS),
    (table.DICONDE_STORAGE, SOPClassKind.COMPOSITE_STORAGE, Origin.DICONDE),
    (table.PRIVATE_STORAGE, SOPClassKind.COMPOSITE_STORAGE, Origin.PRIVATE),
    (table.STANDARD_OTHER, SOPClassKind.OTHER, Origin.STANDARD),
    (table.RETIRED_OTHER, SOPClassKind.OTHER, Origin.RETIRED),
    (table.DRAFT_OTHER, SOPClassKind.OTHER, Origin.DRAFT),
    (table.PRIVATE_OTHER, SOPClassKind.OTHER, Origin.PRIVATE),
)


def _read_sections() -> Iterator[SOPClass]:
    for text, kind, origin in _SECTIONS:
        for row in text.splitlines():
            uid, keyword, name = row.split(maxsplit=2)
            yield SOPClass(uid=uid, name=name, keyword=keyword, kind=kind, origin=origin)


SOP_CLASSES: Final[Mapping[str, SOPClass]] = MappingProxyType(
    {known.uid: known for known in _read_sections()}
)
"""Every SOP class that is known by name, by its UID."""

_REGISTERED_OTHERWISE: Final = frozenset(
    {row.split(maxsplit=1)[0] for row in table.REGISTERED_OTHERWISE.splitlines()}
    | {DICOM_APPLICATION_CONTEXT}
    | TRANSFER_SYNTAXES.keys()
)

_OF_ANY_INSTANCE: Final = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID})
_OF_COMPOSITE_INSTANCE: Final = _OF_ANY_INSTANCE | {STUDY_INSTANCE_UID, SERIES_INSTANCE_UID}


def is_known_not_storage(uid: str) -> bool:
    """Tell whether `uid` is known to name something that C-STORE does not store.

    True for the SOP classes of other services (Verification among them), and for UIDs that DICOM has given
    to something that is no SOP class at all, such as a transfer syntax. False for what nobody knows.
    """
    known = SOP_CLASSES.get(uid)
    if known is not None:
        return known.kind is SOPClassKind.OTHER
    return uid in _REGISTERED_OTHERWISE or uid.startswith(table.ARCS_WITHOUT_SOP_CLASSES)


def is_non_patient_storage(uid: str) -> bool:
    """Tell whether instances of the class belong to no patient and no study (PS3.4 Annex GG)."""
    known = SOP_CLASSES.get(uid)
    return known is not None and known.kind is SOPClassKind.NON_PATIENT_STORAGE


def required_identifiers(uid: str) -> frozenset[int]:
    """Return the tags of the UIDs that an instance of the class must carry.

    Always SOP Class and SOP Instance UID. Study and Series Instance UID too where a published definition
    says that the object is in a study (PS3.3 §A.1.2). Of a private or unknown class nobody has published
    one, so nothing more is asked of it, even though most of those objects are in a study.
    """
    known = SOP_CLASSES.get(uid)
    if known is None or known.kind is not SOPClassKind.COMPOSITE_STORAGE or known.origin is Origin.PRIVATE:
        return _OF_ANY_INSTANCE
    return _OF_COMPOSITE_INSTANCE
