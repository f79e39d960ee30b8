"""What a data set has to be to be kept: readable to its end, with the identifiers of its class and of its request."""

from stowkeeper.archive.outcome import Refusal, Refused
from stowkeeper.dicom.elements import format_tag
from stowkeeper.dicom.header import Scan
from stowkeeper.dicom.sop_classes import (
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    required_identifiers,
)
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import strip_uid


def check(
    scan: Scan,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    study_instance_uid: str = "",
) -> None:
    """Raise Refused for what must not be kept: C000H for an unreadable data set, A900H for another's identifiers.

    The UIDs are those that the sender named; an empty `study_instance_uid` lets any study pass, and any other is refused
    with C409H. In a transfer syntax that is not known nothing else is judged.
    """
    if scan.problem is not None:
        offending = () if scan.offending is None else (scan.offending,)
        raise Refused(Refusal.CANNOT_UNDERSTAND, scan.problem, offending)
    if study_instance_uid and strip_uid(scan.values.get(STUDY_INSTANCE_UID, b"")) != study_instance_uid:
        words = f"{format_tag(STUDY_INSTANCE_UID)} differs from the study that it was sent to"
        raise Refused(Refusal.STUDY_DIFFERS, words, (STUDY_INSTANCE_UID,))
    if transfer_syntax_uid not in TRANSFER_SYNTAXES:
        return
    for tag, expected in ((SOP_CLASS_UID, sop_class_uid), (SOP_INSTANCE_UID, sop_instance_uid)):
        found = strip_uid(scan.values.get(tag, b""))
        if not found:
            raise _missing(tag)
        if found != expected:
            words = f"{format_tag(tag)} differs from the command's"
            raise Refused(Refusal.DOES_NOT_MATCH, words, (tag,))
    for tag in required_identifiers(sop_class_uid):
        if not strip_uid(scan.values.get(tag, b"")):
            raise _missing(tag)


def _missing(tag: int) -> Refused:
    return Refused(Refusal.CANNOT_UNDERSTAND, f"{format_tag(tag)} is missing", (tag,))
