import pytest
from pynetdicom import status as peer

from stowkeeper.dicom.status import Status, StatusCategory, category_of, meaning_of


@pytest.mark.parametrize(
    ("code", "category"),
    [
        (0x0000, StatusCategory.SUCCESS),
        (0x0001, StatusCategory.WARNING),
        (0x0107, StatusCategory.WARNING),
        (0x0116, StatusCategory.WARNING),
        (0xB000, StatusCategory.WARNING),
        (0xBFFF, StatusCategory.WARNING),
        (0xFF00, StatusCategory.PENDING),
        (0xFF01, StatusCategory.PENDING),
        (0xFE00, StatusCategory.CANCEL),
        (0x0106, StatusCategory.FAILURE),
        (0x0117, StatusCategory.FAILURE),
        (0x0211, StatusCategory.FAILURE),
        (0xA700, StatusCategory.FAILURE),
        (0xAFFF, StatusCategory.FAILURE),
        (0xC000, StatusCategory.FAILURE),
        (0xCFFF, StatusCategory.FAILURE),
    ],
)
def test_codes_are_classed_by_the_ranges_of_the_standard(code: int, category: StatusCategory) -> None:
    assert category_of(code) is category


@pytest.mark.parametrize(
    "code", [0x0002, 0x0300, 0x1000, 0x9FFF, 0xD000, 0xFE01, 0xFF02, 0xFFFF, -1, 0x10000]
)
def test_a_code_outside_of_every_range_is_a_failure(code: int) -> None:
    assert category_of(code) is StatusCategory.FAILURE


@pytest.mark.slow
def test_only_zero_is_success() -> None:
    assert [code for code in range(0x10000) if category_of(code) is StatusCategory.SUCCESS] == [0]


@pytest.mark.slow
def test_categories_agree_with_a_peer() -> None:
    names = {category: category.name.capitalize() for category in StatusCategory}
    for code in range(0x10000):
        theirs = peer.code_to_category(code)
        if theirs != "Unknown":
            assert names[category_of(code)] == theirs, f"{code:04X}H"


def test_every_general_code_of_a_peer_is_here() -> None:
    missing = set(peer.GENERAL_STATUS) - set(Status)
    assert not missing


def test_every_code_has_a_meaning_that_fits_its_category() -> None:
    openings = {
        StatusCategory.SUCCESS: ("Success",),
        StatusCategory.WARNING: ("Warning",),
        StatusCategory.FAILURE: ("Failed", "Refused", "Error"),
        StatusCategory.CANCEL: ("Cancel",),
        StatusCategory.PENDING: ("Pending",),
    }
    for code in Status:
        number, words = meaning_of(code).split("H ", 1)
        assert int(number, 16) == code
        assert words.startswith(openings[category_of(code)])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x0000, "0000H Success"),
        (0xA700, "A700H Refused: out of resources"),
        (0xA7FF, "A7FFH Refused: out of resources"),
        (0xA800, "A800H Failed"),
        (0xA9B2, "A9B2H Error: data set does not match SOP class"),
        (0xC123, "C123H Error: cannot understand"),
        (0xB123, "B123H Warning"),
        (0xFFFF, "FFFFH Failed"),
    ],
)
def test_any_code_of_a_peer_can_be_said(code: int, words: str) -> None:
    assert meaning_of(code) == words
