"""Unique identifiers: what may pass for one, what is wrong with one, and how we make our own.

Two questions are kept apart. *Acceptable* is what the archive needs to handle an identifier at all: up to
64 digits and dots. *Well formed* is what PS3.5 §9.1 asks beyond that. Real senders get the second wrong,
and an instance is not lost for it: the defect becomes a verdict on its receipt.
"""

import re
import uuid
from typing import Final

UID_LENGTH_MAX: Final = 64
"""Characters of a UID at most (PS3.5 §9.1)."""

IMPLEMENTATION_CLASS_UID: Final = "2.25.155303472962188026748080900074307996187"
"""Names this product in associations (PS3.7 §D.3.3.2) and in file meta information (0002,0012)."""

IMPLEMENTATION_VERSION_NAME: Final = "STOWKEEPER_0_1"
"""Names the release beside IMPLEMENTATION_CLASS_UID, at most 16 characters (PS3.7 §D.3.3.2)."""

RECEIPT_CREATOR_UID: Final = "2.25.226579376851617489081502432888109095375"
"""Private Information Creator UID (0002,0100) of files that carry a receipt of ours. It names the format:
files written by any earlier release are known by it, so it never changes."""

DICOM_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
"""The one application context name of DICOM (PS3.7 §A.2.1)."""

VERIFICATION: Final = "1.2.840.10008.1.1"
"""The SOP class of C-ECHO (PS3.4 §A.4)."""

STORAGE_COMMITMENT_PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
"""The SOP class by which storage is committed, of N-ACTION and N-EVENT-REPORT (PS3.4 §J.3)."""

STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""The well-known SOP instance that every request and report of it names (PS3.4 §J.3.5)."""

STORAGE_SERVICE_CLASS: Final = "1.2.840.10008.4.2"
"""The service class that a requestor names in common extended negotiation to say that a SOP class, known or
not, is stored (PS3.4 §B.3.1.3)."""

_PADDING = b"\0 "
_ACCEPTABLE = re.compile(r"[0-9.]{1,64}")


def is_acceptable_uid(text: str) -> bool:
    """Tell whether `text` is 1 to 64 characters, each a digit or a dot.

    This is the bar for an Affected SOP Instance UID; what fails it is answered with 0117H.
    """
    return _ACCEPTABLE.fullmatch(text) is not None


def uid_defect(text: str) -> str | None:
    """Say in words what keeps `text` from being a well-formed UID (PS3.5 §9.1); None when it is one.

    The first defect found is named, in the order: empty, too long, other characters, empty component,
    leading zero, single component, first component above 2 (no such root exists, ISO/IEC 8824).
    """
    if not text:
        return "it is empty"
    if len(text) > UID_LENGTH_MAX:
        return f"it has {len(text)} characters, {UID_LENGTH_MAX} are allowed"
    if not is_acceptable_uid(text):
        return "it has other characters than digits and dots"
    components = text.split(".")
    if "" in components:
        return "it has an empty component"
    if any(len(component) > 1 and component[0] == "0" for component in components):
        return "a component has a leading zero"
    if len(components) == 1:
        return "it has one component only"
    if components[0] not in {"0", "1", "2"}:
        return "its first component is not 0, 1 or 2"
    return None


def strip_uid(raw: bytes) -> str:
    """Decode the value of a UI element or item, without the NULs and blanks around it.

    PS3.5 §9.1 pads with one NUL; blanks, and more than one of either, come from real senders. Never
    fails: a byte above 7FH becomes a character that `is_acceptable_uid` refuses.
    """
    return raw.strip(_PADDING).decode("latin-1")


def generate_uid() -> str:
    """Return a new UID under the root 2.25, which needs no registration (PS3.5 §B.2)."""
    return f"2.25.{uuid.uuid4().int}"
