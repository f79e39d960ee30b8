from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary
from pynetdicom import sop_class as peer

from stowkeeper.dicom import sop_class_table as table
from stowkeeper.dicom.sop_classes import (
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_CLASSES,
    SOP_INSTANCE_UID,
    STORAGE_APPLICATION_INFORMATION,
    STUDY_INSTANCE_UID,
    Origin,
    SOPClassKind,
    is_known_not_storage,
    is_non_patient_storage,
    required_identifiers,
)
from stowkeeper.dicom.uid import uid_defect

REGISTERED = {
    uid: entry for uid, entry in UID_dictionary.items() if entry[1] in {"SOP Class", "Meta SOP Class"}
}

# Registered with no name since 2015, and used by devices for objects that are stored.
NAMELESS = {"1.2.840.10008.5.1.4.1.1.12.77", "1.2.840.10008.5.1.4.1.1.40"}

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

NON_PATIENT = {
    "1.2.840.10008.5.1.4.1.1.200.1",
    "1.2.840.10008.5.1.4.1.1.200.3",
    "1.2.840.10008.5.1.4.1.1.200.7",
    "1.2.840.10008.5.1.4.1.1.201.1",
    "1.2.840.10008.5.1.4.38.1",
    "1.2.840.10008.5.1.4.39.1",
    "1.2.840.10008.5.1.4.43.1",
    "1.2.840.10008.5.1.4.44.1",
    "1.2.840.10008.5.1.4.45.1",
}

YOUNGER = {
    "1.2.840.10008.5.1.4.1.1.9.100.1": ("WaveformPresentationStateStorage", Origin.STANDARD),
    "1.2.840.10008.5.1.4.1.1.9.100.2": ("WaveformAcquisitionPresentationStateStorage", Origin.STANDARD),
    "1.2.840.10008.5.1.4.1.1.66.7": ("LabelMapSegmentationStorage", Origin.STANDARD),
    "1.2.840.10008.5.1.4.1.1.66.8": ("HeightMapSegmentationStorage", Origin.STANDARD),
    "1.2.840.10008.5.1.4.1.1.601.3": ("ThermographyImageStorage", Origin.DICONDE),
    "1.2.840.10008.5.1.4.1.1.601.4": ("ThermographyMultiFrameImageStorage", Origin.DICONDE),
    "1.2.840.10008.5.1.4.1.1.601.5": ("UltrasoundWaveformStorage", Origin.DICONDE),
}

PRIVATE_SAMPLES = {
    "1.3.12.2.1107.5.9.1": "Siemens CSA Non-Image Storage",
    "1.2.392.200036.9116.7.8.1.1.1": "Toshiba US Private Data Storage",
    "1.2.840.113619.4.26": "GE 3D Model Storage",
    "1.3.46.670589.11.0.0.12.2": "Philips MR Series Data Storage",
    "1.2.40.0.13.1.5.1.4.1.1.104.1": "dcm4che Encapsulated Genozip Storage",
}


def stored_by_name(uid: str) -> bool:
    """Judge by the registry's words alone, without our table."""
    name = REGISTERED[uid][0]
    return uid in NAMELESS or (
        "Storage" in name and "Commitment" not in name and uid != MEDIA_STORAGE_DIRECTORY
    )


def test_every_registered_class_is_classified() -> None:
    for uid, (name, _, _, retired, keyword) in REGISTERED.items():
        known = SOP_CLASSES[uid]
        assert (known.kind is not SOPClassKind.OTHER) == stored_by_name(uid), name
        assert is_known_not_storage(uid) == (not stored_by_name(uid)), name
        assert (known.origin in {Origin.RETIRED, Origin.DRAFT}) == bool(retired), name
        if uid not in NAMELESS:
            assert (known.name, known.keyword) == (name, keyword)


def test_every_other_registered_uid_is_known_not_to_be_storage() -> None:
    for uid in UID_dictionary.keys() - REGISTERED.keys():
        assert is_known_not_storage(uid), UID_dictionary[uid][0]


def test_a_peer_calls_the_same_classes_storage() -> None:
    theirs = {str(uid) for uid in peer._STORAGE_CLASSES.values()}
    ours = {uid for uid, known in SOP_CLASSES.items() if known.kind is SOPClassKind.COMPOSITE_STORAGE}
    assert theirs <= ours
    assert {str(uid) for uid in peer._NON_PATIENT_OBJECT_CLASSES.values()} == NON_PATIENT


@pytest.mark.parametrize("uid", YOUNGER)
def test_classes_that_are_younger_than_the_other_dictionary(uid: str) -> None:
    known = SOP_CLASSES[uid]
    assert (known.keyword, known.origin) == YOUNGER[uid]
    assert known.kind is SOPClassKind.COMPOSITE_STORAGE


def test_non_patient_storage_is_these_classes_and_no_others() -> None:
    assert {uid for uid in SOP_CLASSES if is_non_patient_storage(uid)} == NON_PATIENT
    assert not is_non_patient_storage("1.2.3.4")


@pytest.mark.parametrize(
    ("prefix", "origin"),
    [("1.2.840.10008.5.1.4.1.1.501.", Origin.DICOS), ("1.2.840.10008.5.1.4.1.1.601.", Origin.DICONDE)],
)
def test_neighbouring_standards_are_named(prefix: str, origin: Origin) -> None:
    assert {uid for uid in SOP_CLASSES if uid.startswith(prefix)} == {
        uid for uid, known in SOP_CLASSES.items() if known.origin is origin
    }


def test_drafts_are_the_classes_of_trial_use() -> None:
    for known in SOP_CLASSES.values():
        if known.origin is Origin.DRAFT:
            assert known.name.endswith("- Trial")


@pytest.mark.parametrize("uid", PRIVATE_SAMPLES)
def test_private_storage_that_public_toolkits_know(uid: str) -> None:
    known = SOP_CLASSES[uid]
    assert (known.name, known.kind, known.origin) == (
        PRIVATE_SAMPLES[uid],
        SOPClassKind.COMPOSITE_STORAGE,
        Origin.PRIVATE,
    )
    assert not is_known_not_storage(uid)


def test_private_classes_are_those_outside_of_the_root_of_dicom() -> None:
    for uid, known in SOP_CLASSES.items():
        assert uid.startswith("1.2.840.10008.") == (known.origin is not Origin.PRIVATE)


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.40.0.13.1.5.1.4.1.2.2.1",
        "1.2.276.0.7230010.3.4.1915765545.18030.917282194.0",
        MEDIA_STORAGE_DIRECTORY,
    ],
)
def test_classes_that_look_like_storage_and_are_not(uid: str) -> None:
    assert is_known_not_storage(uid)


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.1.2.4.999",
        "1.2.840.10008.6.1.1",
        "1.2.840.113619.5.2",
        "1.2.840.10008.1.2.8.1",
        "1.2.840.10008.15.0.3.1",
    ],
)
def test_uids_of_other_things_are_no_abstract_syntax(uid: str) -> None:
    assert is_known_not_storage(uid)


@pytest.mark.parametrize(
    "uid",
    [
        "",
        "1.2.3.4",
        "1.2.840.10008.5.1.4.1.1.999",
        "1.2.840.10008.20.1",
        "1.2.840.10008.1.3.11",
        "2.25.7",
        "x" * 200,
    ],
)
def test_what_nobody_knows_is_not_known_not_to_be_storage(uid: str) -> None:
    assert not is_known_not_storage(uid)
    assert required_identifiers(uid) == {SOP_CLASS_UID, SOP_INSTANCE_UID}


@pytest.mark.slow
@given(st.text(max_size=80))
def test_any_text_can_be_asked_about(text: str) -> None:
    is_known_not_storage(text)
    assert {SOP_CLASS_UID, SOP_INSTANCE_UID} <= required_identifiers(text)


def test_what_an_instance_of_each_class_must_carry() -> None:
    both = {SOP_CLASS_UID, SOP_INSTANCE_UID}
    for uid, known in SOP_CLASSES.items():
        in_study = known.kind is SOPClassKind.COMPOSITE_STORAGE and known.origin is not Origin.PRIVATE
        expected = both | {STUDY_INSTANCE_UID, SERIES_INSTANCE_UID} if in_study else both
        assert required_identifiers(uid) == expected, known.name


def test_the_tags_of_the_identifiers() -> None:
    tags = (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)
    assert tags == (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)


def test_extended_negotiation_says_level_two_all_signatures_no_coercion() -> None:
    level, _, signature, _, coercion, _ = STORAGE_APPLICATION_INFORMATION
    assert (level, signature, coercion) == (2, 3, 0)
    assert STORAGE_APPLICATION_INFORMATION[1::2] == b"\0\0\0"


def test_what_holds_of_each() -> None:
    for uid, known in SOP_CLASSES.items():
        assert uid == known.uid
        assert uid_defect(uid) is None, uid
        assert known.keyword.isalnum(), uid
        assert known.keyword.isascii(), uid
        assert known.name == known.name.strip(), uid


def sections() -> dict[str, str]:
    return {name: text for name, text in vars(table).items() if name.isupper() and isinstance(text, str)}


def test_every_row_of_the_table_stands_once_and_in_order() -> None:
    rows = [row for text in sections().values() for row in text.splitlines()]
    uids = [row.split()[0] for row in rows]
    assert len(uids) == len(set(uids))
    assert len(SOP_CLASSES) == len(uids) - len(table.REGISTERED_OTHERWISE.splitlines())
    for name, text in sections().items():
        numbers = [tuple(map(int, row.split()[0].split("."))) for row in text.splitlines()]
        assert numbers == sorted(numbers), name


def test_names_and_keywords_are_unique() -> None:
    for field in ("name", "keyword"):
        values = [getattr(known, field) for known in SOP_CLASSES.values()]
        duplicates = {value for value in values if values.count(value) > 1}
        # The standard gave the same name to a retired class and to its successor.
        assert duplicates <= {
            "Ultrasound Image Storage",
            "Ultrasound Multi-frame Image Storage",
            "Nuclear Medicine Image Storage",
        }


def test_the_registry_cannot_be_changed() -> None:
    known = next(iter(SOP_CLASSES.values()))
    with pytest.raises(TypeError):
        SOP_CLASSES["1.2"] = known  # type: ignore[index]  # that it fails is the point
    with pytest.raises(FrozenInstanceError):
        known.name = "other"  # type: ignore[misc]  # that it fails is the point
