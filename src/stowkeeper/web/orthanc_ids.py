"""The ids that Orthanc gives to patients, studies, series and instances: hashes of their identifiers.

An id is the SHA-1 of Patient ID, Study, Series and SOP Instance UID, as many of them as the level has, joined by `|`, in
hexadecimal, five groups of eight digits. So whoever has the identifiers has the id, and nobody can go the other way: see
`orthanc_index.py`. The Patient ID is that of the database, which leaves blanks at either end out (PS3.5 §6.2); Orthanc leaves those
at the end out only, so of a Patient ID that begins with a blank it makes other ids.
"""

import re
from dataclasses import dataclass
from enum import Enum
from hashlib import sha1

_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")


class ResourceType(Enum):
    """The four kinds of resources. The value is (Orthanc's word, its path, the number of identifiers in its id)."""

    PATIENT = ("Patient", "patients", 1)
    STUDY = ("Study", "studies", 2)
    SERIES = ("Series", "series", 3)
    INSTANCE = ("Instance", "instances", 4)

    @property
    def word(self) -> str:
        """Orthanc's word, as in `Type` and `ResourceType`."""
        return self.value[0]

    @property
    def path(self) -> str:
        """The first part of the address of such a resource, without slashes."""
        return self.value[1]

    @property
    def depth(self) -> int:
        """How many identifiers its id is made of."""
        return self.value[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifiers:
    """What a resource is known by in DICOM. Below its level they are empty; a patient without Patient ID has '' too."""

    patient_id: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""

    def id_of(self, resource_type: ResourceType) -> str:
        """Return the id of this resource, or of one above it."""
        identifiers = (
            self.patient_id,
            self.study_instance_uid,
            self.series_instance_uid,
            self.sop_instance_uid,
        )
        return orthanc_id(*identifiers[: resource_type.depth])


def orthanc_id(*identifiers: str) -> str:
    """Return Orthanc's id of a resource with these identifiers, Patient ID first."""
    joined = "|".join(identifiers).encode("utf-8", "surrogatepass")
    digest = sha1(joined, usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


def is_orthanc_id(text: str) -> bool:
    """Tell whether a text has the form of an id."""
    return _ORTHANC_ID.fullmatch(text) is not None


def path_of(resource_type: ResourceType, resource_id: str) -> str:
    """Return the address of a resource."""
    return f"/{resource_type.path}/{resource_id}"
