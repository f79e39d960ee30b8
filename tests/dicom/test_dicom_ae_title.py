import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dicom.ae_title import (
    AE_TITLE_LENGTH,
    AETitleError,
    ae_title_defect,
    encode_ae_title,
    is_valid_ae_title,
    normalize_ae_title,
)


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (b"STOWKEEPER      ", "STOWKEEPER"),
        (b"   STOWKEEPER   ", "STOWKEEPER"),
        (b"STOWKEEPER\0\0\0\0\0\0", "STOWKEEPER"),
        (b"\0\0STOW KEEPER \0\0", "STOW KEEPER"),
        (b"                ", ""),
        (b"\0" * 16, ""),
        (b"", ""),
        (b"A\x1bB\nC           ", "A\x1bB\nC"),
        (b"A\0B             ", "A\0B"),
        (b"R\xf6ntgen         ", "R\xf6ntgen"),
    ],
)
def test_titles_are_taken_as_peers_pad_them(raw: bytes, title: str) -> None:
    assert normalize_ae_title(raw) == title


@pytest.mark.parametrize("title", ["A", "STOWKEEPER", "CT 1", "a~!\"#$%&'()", "0123456789ABCDEF"])
def test_a_valid_title(title: str) -> None:
    assert is_valid_ae_title(title)
    assert ae_title_defect(title) is None


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("", "it is empty"),
        ("    ", "it is empty"),
        ("0123456789ABCDEFG", "it has 17 characters, 16 are allowed"),
        ("A\\B", "it has a backslash, which separates values"),
        ("A\nB", "it has a character other than printable ASCII"),
        ("A\0", "it has a character other than printable ASCII"),
        ("A\x7f", "it has a character other than printable ASCII"),
        ("RÖNTGEN", "it has a character other than printable ASCII"),
        (" A", "it begins or ends with a blank"),
        ("A ", "it begins or ends with a blank"),
    ],
)
def test_a_defect_is_named_in_words(title: str, words: str) -> None:
    assert ae_title_defect(title) == words
    assert not is_valid_ae_title(title)


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=AE_TITLE_LENGTH))
def test_what_is_valid_comes_back_from_the_wire_as_it_was(title: str) -> None:
    encoded = encode_ae_title(title)
    assert len(encoded) == AE_TITLE_LENGTH
    assert normalize_ae_title(encoded) == title.strip(" ")
    assert is_valid_ae_title(title) == (title != "" and "\\" not in title and title == title.strip(" "))


@given(st.binary(min_size=AE_TITLE_LENGTH, max_size=AE_TITLE_LENGTH))
def test_any_title_of_a_request_can_be_repeated_in_a_response(raw: bytes) -> None:
    title = normalize_ae_title(raw)
    assert normalize_ae_title(encode_ae_title(title)) == title


def test_a_title_that_is_too_long_is_refused_with_its_length() -> None:
    with pytest.raises(AETitleError, match="17 characters, 16 are allowed"):
        encode_ae_title("0123456789ABCDEFG")


def test_a_title_that_no_byte_stands_for_is_refused_with_what_to_do() -> None:
    with pytest.raises(AETitleError, match="use printable ASCII"):
        encode_ae_title("日本")
