"""The reasons of a store response: their values, which clients key on, and their words."""

import pytest

from stowkeeper.stow.reasons import FailureReason, WarningReason, is_out_of_resources, words_of


def test_the_values_are_those_of_the_standard_and_of_the_statement():
    assert {reason.name: f"{reason:04X}" for reason in FailureReason} == {
        "PROCESSING_FAILURE": "0110",
        "DUPLICATE": "0111",
        "INVALID_INSTANCE": "0117",
        "SOP_CLASS": "0122",
        "NOT_AUTHORIZED": "0124",
        "OUT_OF_RESOURCES": "A700",
        "DOES_NOT_MATCH": "A900",
        "BULK_DATA_MISSING": "A922",
        "CANNOT_UNDERSTAND": "C000",
        "TRANSFER_SYNTAX": "C122",
        "STUDY_MISMATCH": "C409",
    }
    assert {reason.name: f"{reason:04X}" for reason in WarningReason} == {
        "COERCED": "B000",
        "DISCARDED": "B006",
        "DOES_NOT_MATCH": "B007",
    }


def test_each_has_words_of_its_own():
    words = [reason.words for reason in (*FailureReason, *WarningReason)]
    assert len(set(words)) == len(words)
    assert all(text and not text.endswith(".") for text in words)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0xA700, "A700H the server has no room for the instance at present"),
        (0xA7FF, "A7FFH the server has no room for the instance at present"),
        (0xA901, "A901H the data set is not what its SOP class asks for"),
        (0xA922, "A922H the metadata names bulk data that the request does not hold"),
        (0xC001, "C001H the part cannot be read as DICOM"),
        (0xC122, "C122H this transfer syntax is not accepted"),
        (0x0110, "0110H the instance could not be processed"),
        (0xB007, "B007H the instance is kept, though its data set is not what its SOP class asks for"),
        (0xB00E, "B00EH a reason that the standard does not name"),
        (1, "0001H a reason that the standard does not name"),
    ],
)
def test_any_code_is_said_in_words(code, words):
    assert words_of(code) == words


@pytest.mark.parametrize(
    ("reason", "told"), [(0xA6FF, False), (0xA700, True), (0xA7FF, True), (0xA800, False), (0xC000, False)]
)
def test_what_may_be_stored_at_another_time(reason, told):
    assert is_out_of_resources(reason) is told
