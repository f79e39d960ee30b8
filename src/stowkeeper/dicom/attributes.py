"""What the catalog keeps of an instance: the query keys of PS3.4 §C.6.2 that stand at the top level.

One extraction serves instances as they arrive and files as they are read again, so that both give the same
rows. It is tolerant: a value that cannot be read becomes None or a best guess, and a verdict that says which
attribute it was and what was wrong, never what stood there. What a verdict leads to is not decided here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from stowkeeper.dicom.character_sets import (
    DEFAULT_REPERTOIRE,
    CharacterSets,
    decode_text,
    parse_character_sets,
)
from stowkeeper.dicom.uid import UID_LENGTH_MAX, strip_uid, uid_defect


@dataclass(frozen=True, kw_only=True)
class InstanceAttributes:
    """Attributes of one instance, named by their keywords. Absent and empty ones are None.

    Texts have no padding; several values stay joined by backslashes. UIDs may be malformed, and dates and
    times are as the sender wrote them.
    """

    # Without slots: so `extract` can fill in what it found, and leave the rest to the defaults of the class. To
    # set eighty slots, one by one past the guard of a frozen class, took a third of its time.

    specific_character_set: str | None = None
    image_type: str | None = None
    instance_creation_date: str | None = None
    instance_creation_time: str | None = None
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_date: str | None = None
    series_date: str | None = None
    acquisition_date: str | None = None
    content_date: str | None = None
    acquisition_date_time: str | None = None
    study_time: str | None = None
    series_time: str | None = None
    acquisition_time: str | None = None
    content_time: str | None = None
    accession_number: str | None = None
    modality: str | None = None
    manufacturer: str | None = None
    institution_name: str | None = None
    referring_physician_name: str | None = None
    timezone_offset_from_utc: str | None = None
    station_name: str | None = None
    study_description: str | None = None
    series_description: str | None = None
    institutional_department_name: str | None = None
    performing_physician_name: str | None = None
    name_of_physicians_reading_study: str | None = None
    operators_name: str | None = None
    admitting_diagnoses_description: str | None = None
    manufacturer_model_name: str | None = None
    patient_name: str | None = None
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    patient_birth_date: str | None = None
    patient_birth_time: str | None = None
    patient_sex: str | None = None
    other_patient_ids: str | None = None
    other_patient_names: str | None = None
    patient_age: str | None = None
    patient_size: str | None = None
    patient_weight: str | None = None
    ethnic_group: str | None = None
    occupation: str | None = None
    additional_patient_history: str | None = None
    patient_comments: str | None = None
    body_part_examined: str | None = None
    protocol_name: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    study_id: str | None = None
    series_number: int | None = None
    acquisition_number: int | None = None
    instance_number: int | None = None
    frame_of_reference_uid: str | None = None
    laterality: str | None = None
    images_in_acquisition: int | None = None
    number_of_study_related_instances: int | None = None
    number_of_series_related_instances: int | None = None
    number_of_frames: int | None = None
    rows: int | None = None
    columns: int | None = None
    bits_allocated: int | None = None
    performed_procedure_step_start_date: str | None = None
    performed_procedure_step_start_time: str | None = None
    performed_procedure_step_id: str | None = None
    performed_procedure_step_description: str | None = None
    observation_date_time: str | None = None
    completion_flag: str | None = None
    verification_flag: str | None = None
    document_title: str | None = None
    mime_type_of_encapsulated_document: str | None = None
    content_label: str | None = None
    content_description: str | None = None
    presentation_creation_date: str | None = None
    presentation_creation_time: str | None = None
    content_creator_name: str | None = None
    structure_set_label: str | None = None
    structure_set_date: str | None = None
    structure_set_time: str | None = None
    rt_plan_label: str | None = None
    rt_plan_date: str | None = None
    rt_plan_time: str | None = None


_TABLE: Final = """\
00080005 CS SpecificCharacterSet
00080008 CS ImageType
00080012 DA InstanceCreationDate
00080013 TM InstanceCreationTime
00080016 UI SOPClassUID
00080018 UI SOPInstanceUID
00080020 DA StudyDate
00080021 DA SeriesDate
00080022 DA AcquisitionDate
00080023 DA ContentDate
0008002A DT AcquisitionDateTime
00080030 TM StudyTime
00080031 TM SeriesTime
00080032 TM AcquisitionTime
00080033 TM ContentTime
00080050 SH AccessionNumber
00080060 CS Modality
00080070 LO Manufacturer
00080080 LO InstitutionName
00080090 PN ReferringPhysicianName
00080201 SH TimezoneOffsetFromUTC
00081010 SH StationName
00081030 LO StudyDescription
0008103E LO SeriesDescription
00081040 LO InstitutionalDepartmentName
00081050 PN PerformingPhysicianName
00081060 PN NameOfPhysiciansReadingStudy
00081070 PN OperatorsName
00081080 LO AdmittingDiagnosesDescription
00081090 LO ManufacturerModelName
00100010 PN PatientName
00100020 LO PatientID
00100021 LO IssuerOfPatientID
00100030 DA PatientBirthDate
00100032 TM PatientBirthTime
00100040 CS PatientSex
00101000 LO OtherPatientIDs
00101001 PN OtherPatientNames
00101010 AS PatientAge
00101020 DS PatientSize
00101030 DS PatientWeight
00102160 SH EthnicGroup
00102180 SH Occupation
001021B0 LT AdditionalPatientHistory
00104000 LT PatientComments
00180015 CS BodyPartExamined
00181030 LO ProtocolName
0020000D UI StudyInstanceUID
0020000E UI SeriesInstanceUID
00200010 SH StudyID
00200011 IS SeriesNumber
00200012 IS AcquisitionNumber
00200013 IS InstanceNumber
00200052 UI FrameOfReferenceUID
00200060 CS Laterality
00201002 IS ImagesInAcquisition
00201208 IS NumberOfStudyRelatedInstances
00201209 IS NumberOfSeriesRelatedInstances
00280008 IS NumberOfFrames
00280010 US Rows
00280011 US Columns
00280100 US BitsAllocated
00400244 DA PerformedProcedureStepStartDate
00400245 TM PerformedProcedureStepStartTime
00400253 SH PerformedProcedureStepID
00400254 LO PerformedProcedureStepDescription
0040A032 DT ObservationDateTime
0040A491 CS CompletionFlag
0040A493 CS VerificationFlag
00420010 ST DocumentTitle
00420012 LO MIMETypeOfEncapsulatedDocument
00700080 CS ContentLabel
00700081 LO ContentDescription
00700082 DA PresentationCreationDate
00700083 TM PresentationCreationTime
00700084 PN ContentCreatorName
30060002 SH StructureSetLabel
30060008 DA StructureSetDate
30060009 TM StructureSetTime
300A0002 SH RTPlanLabel
300A0006 DA RTPlanDate
300A0007 TM RTPlanTime
"""
"""Tag, VR and keyword of every field above, in the same order."""

_SPECIFIC_CHARACTER_SET: Final = 0x00080005
_TEXT, _NAME, _CODE, _SINGLE_TEXT, _UID, _INTEGER, _BINARY = range(7)
_KIND_OF_VR: Final = {
    "LO": _TEXT,
    "SH": _TEXT,
    "PN": _NAME,
    "LT": _SINGLE_TEXT,
    "ST": _SINGLE_TEXT,
    "UI": _UID,
    "IS": _INTEGER,
    "US": _BINARY,
}
"""What to do with a value; all other VRs are codes, in the default repertoire whatever the character set."""


def _read_table() -> dict[int, tuple[str, int, str]]:
    rows = (line.split() for line in _TABLE.splitlines())
    names = (field.name for field in fields(InstanceAttributes))
    return {
        int(tag, 16): (name, _KIND_OF_VR.get(vr, _CODE), keyword)
        for (tag, vr, keyword), name in zip(rows, names, strict=True)
    }


_ATTRIBUTES: Final = _read_table()

WANTED: Final = frozenset(_ATTRIBUTES)
"""The tags that `extract` has a use for; the set that header scanners are given."""

FIELDS: Final[Mapping[str, str]] = {keyword: name for name, _, keyword in _ATTRIBUTES.values()}
"""The names of the fields above by the keywords of their attributes."""

UNDIVIDED: Final = frozenset(keyword for _, kind, keyword in _ATTRIBUTES.values() if kind == _SINGLE_TEXT)
"""The keywords of those in which a backslash is a letter and does not part values (PS3.5 §6.1.2.3)."""

_WELL_FORMED_UID = re.compile(rb"[012](?:\.(?:0|[1-9][0-9]*))+")
_INTEGER_STRING = re.compile(rb"[ \0]*([+-]?[0-9]{1,18})(?:\.0*)?[ \0]*")


def extract(values: Mapping[int, bytes], little_endian: bool) -> tuple[InstanceAttributes, tuple[str, ...]]:
    """Read attributes from raw top-level values, as a header scanner captures them, and say what was odd.

    `little_endian` is the byte order of the values. Tags other than WANTED are let alone. Never fails.
    """
    found: dict[str, Any] = {}
    verdicts: list[str] = []
    character_sets = DEFAULT_REPERTOIRE
    if _SPECIFIC_CHARACTER_SET in values:
        character_sets = parse_character_sets(values[_SPECIFIC_CHARACTER_SET])
        if not character_sets.known:
            verdicts.append("SpecificCharacterSet names a character set that is not known")
    for tag, raw in values.items():
        attribute = _ATTRIBUTES.get(tag)
        if attribute is None or not raw:
            continue
        name, kind, keyword = attribute
        if kind < _UID:
            try:
                text = raw.decode("ascii").strip(" \0")
                is_plain = text.isprintable()
            except UnicodeDecodeError:
                is_plain = False
            if not is_plain:
                text = _read_text(raw, kind, keyword, character_sets, verdicts)
            elif "\\" in text and kind != _SINGLE_TEXT:
                text = "\\".join([value.strip(" ") for value in text.split("\\")])
            if text:
                found[name] = text
        elif kind == _UID:
            uid = raw.strip(b" \0")
            if len(uid) > UID_LENGTH_MAX or _WELL_FORMED_UID.fullmatch(uid) is None:
                verdicts.append(f"{keyword} is malformed: {uid_defect(strip_uid(raw))}")
            if uid:
                found[name] = uid.decode("latin-1")
        else:
            found[name] = _read_number(raw, kind, keyword, little_endian, verdicts)
    attributes = object.__new__(InstanceAttributes)
    vars(attributes).update(found)
    return attributes, tuple(verdicts)


def _read_text(
    raw: bytes, kind: int, keyword: str, character_sets: CharacterSets, verdicts: list[str]
) -> str:
    """Decode a text that is more than printable ASCII."""
    sets = DEFAULT_REPERTOIRE if kind == _CODE else character_sets
    text, fits = decode_text(raw, sets, is_name=kind == _NAME)
    if not fits and sets.known:
        verdicts.append(f"{keyword} does not fit its character set; its text is a guess")
    # No database and no protocol takes NUL in a text, so one that is not padding goes as well.
    text = text.replace("\0", " ")
    if kind == _SINGLE_TEXT:
        return text.strip(" ")
    return "\\".join(value.strip(" ") for value in text.split("\\"))


def _read_number(raw: bytes, kind: int, keyword: str, little_endian: bool, verdicts: list[str]) -> int | None:
    """Return the first number of a value; None where there is none."""
    if kind == _BINARY:
        if len(raw) < 2:
            verdicts.append(f"{keyword} has {len(raw)} byte, a number has 2")
            return None
        return int.from_bytes(raw[:2], "little" if little_endian else "big")
    first, *more = raw.split(b"\\")
    number = _INTEGER_STRING.fullmatch(first)
    if number is not None:
        if more:
            verdicts.append(f"{keyword} has {len(more) + 1} values; the first one counts")
        return int(number[1])
    if raw.strip(b" \0"):
        verdicts.append(f"{keyword} is not an integer")
    return None
