"""Symbolic names: those of the manual pages and of the format's description mean the UIDs they stand beside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.profile_names import NAMES_BY_UID, UIDS_BY_NAME, uid_from_profile
from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES
from stowkeeper.dicom.sop_classes import SOP_CLASSES, Origin
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES

NAMED = {
    "VerificationSOPClass": "1.2.840.10008.1.1",
    "CTImageStorage": "1.2.840.10008.5.1.4.1.1.2",
    "UltrasoundMultiframeImageStorage": "1.2.840.10008.5.1.4.1.1.3.1",
    "RETIRED_StoredPrintStorage": "1.2.840.10008.5.1.1.27",
    "DRAFT_SRAudioStorage": "1.2.840.10008.5.1.4.1.1.88.2",
    "DICOS_2DAITStorage": "1.2.840.10008.5.1.4.1.1.501.4",
    "DICONDE_EddyCurrentMultiframeImageStorage": "1.2.840.10008.5.1.4.1.1.601.2",
    "General32BitECGWaveformStorage": "1.2.840.10008.5.1.4.1.1.9.1.4",
    "ImplantationPlanSRStorage": "1.2.840.10008.5.1.4.1.1.88.70",
    "ImplantationPlanSRDocumentStorage": "1.2.840.10008.5.1.4.1.1.88.70",
    "FINDStudyRootQueryRetrieveInformationModel": "1.2.840.10008.5.1.4.1.2.2.1",
    "StorageCommitmentPushModelSOPClass": "1.2.840.10008.1.20.1",
    "LittleEndianImplicit": "1.2.840.10008.1.2",
    "DeflatedLittleEndianExplicit": "1.2.840.10008.1.2.1.99",
    "JPEGExtended:Process2+4": "1.2.840.10008.1.2.4.51",
    "JPEGFullProgression:Hierarchical:Process25+27": "1.2.840.10008.1.2.4.64",
    "JPEG2000MulticomponentLosslessOnly": "1.2.840.10008.1.2.4.92",
    "MPEG2MainProfile@MainLevel": "1.2.840.10008.1.2.4.100",
    "FragmentableMPEG2MainProfile/HighLevel": "1.2.840.10008.1.2.4.101.1",
    "FragmentableMPEG4StereoHighProfile/Level4.2": "1.2.840.10008.1.2.4.106.1",
    "HEVCMain10Profile/Level5.1": "1.2.840.10008.1.2.4.108",
    "RLELossless": "1.2.840.10008.1.2.5",
}


@pytest.mark.parametrize(("name", "uid"), NAMED.items())
def test_names_of_the_documentation(name, uid):
    assert uid_from_profile(name) == uid
    assert uid_from_profile(f"={name}") == uid


@pytest.mark.parametrize(
    "text", ["", " ", "Verification", "ctimagestorage", "CTImageStorage ", "==CTImageStorage", "1.2 "]
)
def test_what_is_no_name(text):
    assert uid_from_profile(text) is None


@given(st.text(alphabet="0123456789.", min_size=1))
def test_digits_and_dots_are_taken_as_they_stand(text):
    assert uid_from_profile(text) == text


def test_every_name_is_of_something_the_standard_knows():
    for name, uid in UIDS_BY_NAME.items():
        assert uid in SOP_CLASSES or uid in TRANSFER_SYNTAXES, name
        assert not set(name) & set(" \\[]()=<>"), name


def test_every_class_and_syntax_of_the_standard_has_a_name():
    later = {
        "1.2.840.10008.5.1.4.1.1.12.77",  # withdrawn by the standard, never known there
        "1.2.840.10008.5.1.4.1.1.40",
    }
    ours = {
        uid
        for uid, known in SOP_CLASSES.items()
        if known.origin is not Origin.PRIVATE and uid not in later and uid not in NAMES_BY_UID
    }
    assert not ours
    syntaxes = {uid for uid in TRANSFER_SYNTAXES if uid not in NAMES_BY_UID}
    assert syntaxes == {"1.2.840.10008.1.20"}  # Papyrus 3


def test_the_newest_name_of_a_uid_is_the_one_given():
    assert NAMES_BY_UID["1.2.840.10008.5.1.4.1.1.88.70"] == "ImplantationPlanSRStorage"
    assert NAMES_BY_UID["1.2.840.10008.1.2.6.2"] == "RETIRED_XMLEncoding"


def test_the_storage_table_is_in_order_and_unique():
    rows = [row.split() for row in STORAGE_CLASSES.splitlines()]
    uids = [[int(component) for component in row[0].split(".")] for row in rows]
    assert uids == sorted(uids)
    assert len({row[0] for row in rows}) == len({row[2] for row in rows}) == len(rows) == 211
