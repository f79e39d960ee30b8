"""File meta information as the commands write it, and where its UIDs come from."""

import io
from dataclasses import replace

import pydicom
import pytest
from encoding_trees import (
    CLASS,
    DEFLATED,
    EXPLICIT,
    HEAD,
    IMPLICIT,
    INSTANCE,
    JPEG,
    NAME,
    SECONDARY_CAPTURE,
    USUAL,
    El,
    Sq,
    encode,
)

from stowkeeper.dcmtk.encoding.errors import EncodingError
from stowkeeper.dcmtk.encoding.form import DCMRECV_FORM, STORESCP_FORM
from stowkeeper.dcmtk.encoding.identity import clean_uid, find_identity
from stowkeeper.dcmtk.encoding.meta import NO_SOP_CLASS_UID, encode_meta
from stowkeeper.dicom.uid import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, uid_defect


def meta(**given):
    """Return file meta information as pydicom reads it."""
    wanted = {
        "sop_class_uid": SECONDARY_CAPTURE,
        "sop_instance_uid": "1.2.3",
        "transfer_syntax_uid": EXPLICIT,
        "source_application_entity_title": "SENDER",
    }
    data = encode_meta(**(wanted | given))
    return pydicom.dcmread(io.BytesIO(data + encode([NAME], EXPLICIT))).file_meta


def identity(nodes, syntax=EXPLICIT, form=STORESCP_FORM):
    """Return SOP class and instance of a data set."""
    found = find_identity(io.BytesIO(encode(nodes, syntax)), syntax, form)
    return found.sop_class_uid, found.sop_instance_uid


def test_elements():
    found = meta()
    assert [f"{element.tag.elem:04X}" for element in found] == [
        "0000",
        "0001",
        "0002",
        "0003",
        "0010",
        "0012",
        "0013",
        "0016",
    ]
    assert found.FileMetaInformationVersion == b"\0\1"
    assert found.MediaStorageSOPClassUID == SECONDARY_CAPTURE
    assert found.MediaStorageSOPInstanceUID == "1.2.3"
    assert found.TransferSyntaxUID == EXPLICIT
    assert found.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert found.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert found.SourceApplicationEntityTitle == "SENDER"


def test_what_is_not_there():
    found = meta(sop_class_uid=None, sop_instance_uid=None, source_application_entity_title=None)
    assert found.MediaStorageSOPClassUID == NO_SOP_CLASS_UID
    assert uid_defect(NO_SOP_CLASS_UID) is None
    assert uid_defect(found.MediaStorageSOPInstanceUID) is None
    assert meta(sop_instance_uid=None).MediaStorageSOPInstanceUID != found.MediaStorageSOPInstanceUID
    assert "SourceApplicationEntityTitle" not in found
    assert meta(sop_instance_uid="").MediaStorageSOPInstanceUID == ""


def test_preamble_and_prefix():
    assert encode_meta(
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=EXPLICIT,
        source_application_entity_title=None,
    ).startswith(bytes(128) + b"DICM\2\0\0\0UL\4\0")


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED])
def test_uids_of_a_data_set(syntax):
    assert identity(USUAL, syntax) == (SECONDARY_CAPTURE, "1.2.826.0.1.3680043.2.1125.7")
    assert identity([NAME], syntax) == (None, None)
    assert identity([El(0x00080016, b"UI"), NAME], syntax) == ("", None)


def test_uids_in_an_item():
    assert identity([Sq(0x00081115, [[NAME], [*HEAD]]), NAME])[0] == SECONDARY_CAPTURE
    assert identity([Sq(0x00041220, [[El(0x00080016, b"UI", b"1.2\0")]]), *HEAD])[0] == "1.2"
    assert identity([*HEAD, Sq(0x00081115, [[El(0x00080016, b"UI", b"1.2\0")]])])[0] == SECONDARY_CAPTURE


def test_only_uids_count():
    assert identity([El(0x00080016, b"LO", b"1.2\0"), INSTANCE])[0] is None
    assert identity([CLASS, Sq(0x00080018, [[NAME]])])[1] is None


@pytest.mark.parametrize(
    ("value", "corrected", "kept"),
    [
        (b"1.2\0", "1.2", "1.2"),
        (b" 1.\t2 ", "1.2", " 1.\t2 "),
        (b"1.2\0.3", "1.2", "1.2"),
        (b"1.2 \0\0", "1.2", "1.2 "),
        (b"", "", ""),
    ],
)
def test_white_space(value, corrected, kept):
    assert clean_uid(value, correct_input=True) == corrected
    assert clean_uid(value, correct_input=False) == kept
    nodes = [El(0x00080016, b"UI", value)]
    assert identity(nodes)[0] == corrected
    assert identity(nodes, form=DCMRECV_FORM)[0] == kept


def test_what_cannot_be_read():
    with pytest.raises(EncodingError):
        find_identity(io.BytesIO(encode(USUAL, EXPLICIT)[:-1]), EXPLICIT, STORESCP_FORM)
    fragments = [*HEAD, Sq(0x7FE00010, [b"ab"], is_open=True, vr=b"OB")]
    assert identity(fragments, JPEG)[0] == SECONDARY_CAPTURE
    with pytest.raises(EncodingError):
        identity(fragments, JPEG, replace(STORESCP_FORM, transfer_syntax=EXPLICIT))
