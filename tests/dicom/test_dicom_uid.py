import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid as peer

import stowkeeper
from stowkeeper.dicom import uid as uids
from stowkeeper.dicom.uid import generate_uid, is_acceptable_uid, strip_uid, uid_defect


@pytest.mark.parametrize("text", ["1", "1.2.840.10008.1.1", "1.02.3", "1..2", ".", "9" * 64, "1." * 32])
def test_digits_and_dots_up_to_64_are_acceptable(text: str) -> None:
    assert is_acceptable_uid(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1" * 65,
        "1.2.a",
        "1.2 ",
        " 1.2",
        "1.2\n",
        "1.2\0",
        "1,2",
        "1.2/../3",
        "-1.2",
        "1.2.٣",
        "1.2.²",
        "1\\2",
    ],
)
def test_anything_else_is_not_acceptable(text: str) -> None:
    assert not is_acceptable_uid(text)
    assert uid_defect(text) is not None


@pytest.mark.parametrize(
    "text", ["1.2", "0.0", "2.25.0", "1.2.840.10008.5.1.4.1.1.2", "1.0.0.10", "2." + "9" * 62]
)
def test_a_well_formed_uid_has_no_defect(text: str) -> None:
    assert uid_defect(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("1." * 33, "it has 66 characters, 64 are allowed"),
        ("1.2.x", "it has other characters than digits and dots"),
        ("1..2", "it has an empty component"),
        (".1.2", "it has an empty component"),
        ("1.2.", "it has an empty component"),
        ("1.02.3", "a component has a leading zero"),
        ("1.2.00", "a component has a leading zero"),
        ("1", "it has one component only"),
        ("3.2.1", "its first component is not 0, 1 or 2"),
        ("12.3", "its first component is not 0, 1 or 2"),
    ],
)
def test_a_defect_is_named_in_words(text: str, words: str) -> None:
    assert uid_defect(text) == words


@given(st.text(alphabet="0123456789.", max_size=70))
def test_defects_agree_with_an_independent_reader(text: str) -> None:
    if uid_defect(text) is None:
        assert peer.UID(text).is_valid
    # The other reader asks neither for two components nor for a root that exists.
    elif peer.UID(text).is_valid:
        assert "." not in text or text.partition(".")[0] not in {"0", "1", "2"}


@given(st.text(alphabet="012.x ", max_size=8))
def test_a_well_formed_uid_is_always_acceptable(text: str) -> None:
    assert uid_defect(text) is not None or is_acceptable_uid(text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"1.2.3", "1.2.3"),
        (b"1.2.3\0", "1.2.3"),
        (b"1.2.3 ", "1.2.3"),
        (b" \0 1.2.3\0\0 \0", "1.2.3"),
        (b"1.2 .3\0", "1.2 .3"),
        (b"", ""),
        (b"\0 ", ""),
        (b"1.2\t", "1.2\t"),
        (b"1.\xe42", "1.\xe42"),
    ],
)
def test_padding_around_a_uid_is_removed_and_nothing_else(raw: bytes, text: str) -> None:
    assert strip_uid(raw) == text


@given(st.binary(max_size=80))
def test_stripping_never_fails(raw: bytes) -> None:
    assert strip_uid(raw) == strip_uid(b"\0" + raw + b" \0")


def test_generated_uids_are_well_formed_and_differ() -> None:
    generated = {generate_uid() for _ in range(1000)}
    assert len(generated) == 1000
    assert all(uid_defect(one) is None and one.startswith("2.25.") for one in generated)


def test_the_identifiers_of_the_product_are_legal() -> None:
    for own in (uids.IMPLEMENTATION_CLASS_UID, uids.RECEIPT_CREATOR_UID):
        assert uid_defect(own) is None
        assert own.startswith("2.25.")
    assert len({uids.IMPLEMENTATION_CLASS_UID, uids.RECEIPT_CREATOR_UID}) == 2
    assert 1 <= len(uids.IMPLEMENTATION_VERSION_NAME) <= 16


def test_the_receipt_creator_never_changes() -> None:
    # Files of every release are recognized by it.
    assert uids.RECEIPT_CREATOR_UID == "2.25.226579376851617489081502432888109095375"


def test_the_version_name_follows_the_version() -> None:
    major, minor, *_ = stowkeeper.__version__.split(".")
    assert f"STOWKEEPER_{major}_{minor}" == uids.IMPLEMENTATION_VERSION_NAME


def test_well_known_uids_are_those_of_the_standard() -> None:
    assert peer.UID(uids.VERIFICATION).keyword == "Verification"
    assert peer.UID(uids.DICOM_APPLICATION_CONTEXT).keyword == "DICOMApplicationContext"
    assert peer.UID(uids.STORAGE_SERVICE_CLASS).keyword == "Storage"
