"""Data dictionaries: the shipped one, and files in DCMTK's format."""

from random import Random

import pytest
from encoding_dictionary import dictionary_text
from encoding_trees import EXPLICIT, USUAL, encode

from stowkeeper.dcmtk.encoding import dictionary as module
from stowkeeper.dcmtk.encoding.detector import FormDetector
from stowkeeper.dcmtk.encoding.dictionary import Dictionary, DictionaryError, shipped_dictionary
from stowkeeper.dcmtk.encoding.form import STORESCP_FORM
from stowkeeper.dcmtk.encoding.value_representations import UNREGISTERED


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        (0x00100010, b"PN"),
        (0x00280106, b"xs"),
        (0x00283006, b"lt"),
        (0x7FE00010, b"px"),
        (0x7FE00008, b"OF"),
        (0x54001010, b"ox"),
        (0x60003000, b"ox"),
        (0x60FE0010, b"US"),
        (0x50020022, b"LO"),
        (0x7F220020, b"OW"),
        (0x002031F0, b"CS"),
        (0xFFFEE000, b"na"),
        (0x00080000, b"UL"),
        (0x00090000, b"UL"),
        (0x00090010, b"LO"),
        (0x0009FF10, b""),
        (0x00091010, b""),
        (0x002031F1, b""),
        (0x60010010, b"LO"),
        (0x60013000, b""),
        (0x00080002, b""),
    ],
)
def test_what_is_shipped(tag, name):
    assert shipped_dictionary().vr_of(tag).name == name


def test_private_tags_are_known_by_creator():
    found = shipped_dictionary().vr_of
    assert found(0x00291008, "SIEMENS CSA HEADER").name == b"CS"
    assert found(0x00292308, "SIEMENS CSA HEADER").name == b"CS"
    assert found(0x00291008, "SIEMENS CSA HEADER ") is UNREGISTERED
    assert found(0x00291008) is UNREGISTERED
    assert found(0x00100010, "SIEMENS CSA HEADER").name == b"PN"


@pytest.mark.slow
def test_the_shipped_dictionary_is_the_one_that_dcmtk_gets_in_tests():
    ours, theirs = shipped_dictionary(), Dictionary.read(dictionary_text())
    random = Random(1)
    for creator, tag in ours._single:
        for asked in (tag, tag | 0x1000):
            assert ours.vr_of(asked, creator) is theirs.vr_of(asked, creator), hex(asked)
    for _ in range(20_000):
        tag = random.randrange(1 << 32)
        assert ours.vr_of(tag) is theirs.vr_of(tag), hex(tag)


def test_the_format():
    found = Dictionary.read(
        "# a comment\n"
        "\n"
        "(0010,0010)\tPN\tName\t1\tDICOM\n"
        "( 0011 , 1001 )\tUS\tAnother\n"
        "(6000-60FF,0010)\tUS\tOfEvenGroups\t1\n"
        "(7001-o-70FF,0011)\tSS\tOfOddGroups\t1\tX\n"
        "(0000-u-FFFF,0000)\tUL\tOfAll\t1\tX\n"
        "(0018,1000-10FF)\tLO\tOfEvenElements\t1\tX\n"
        '(0029,"A, B",10)\tDS\tInAnyBlock\t1\tX\n'
        '(0029,"A, B",1011)\tIS\tInOneBlock\t1\tX\n'
        '(0029-o-002F,"C",20-u-2F)\tFL\tRange\t1\tX\n'
    ).vr_of
    for tag, name in {
        0x00100010: b"PN",
        0x00111001: b"US",
        0x60100010: b"US",
        0x60110010: b"",
        0x70030011: b"SS",
        0x70040011: b"",
        0x12350000: b"UL",
        0x00181010: b"LO",
        0x00181011: b"",
    }.items():
        assert found(tag).name == name
    for tag, creator, name in (
        (0x00291110, "A, B", b"DS"),
        (0x00291011, "A, B", b"IS"),
        (0x00291111, "A, B", b""),
        (0x002F1225, "C", b"FL"),
        (0x00301225, "C", b""),
    ):
        assert found(tag, creator).name == name


def test_later_entries_override_and_narrow_ones_go_first():
    found = Dictionary.read(
        "(0010,0010)\tPN\tA\n(0010,0010)\tLO\tB\n"
        "(6000-60FF,0000-u-FFFF)\tUS\tWide\n(6000-60FF,0010)\tSS\tNarrow\n(6000-60FF,0010)\tSL\tNarrow\n"
    ).vr_of
    assert found(0x00100010).name == b"LO"
    assert found(0x60020010).name == b"SL"
    assert found(0x60020011).name == b"US"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("(0010,0010)\tPN", "has 2 fields between tabs"),
        ("(0010,0010) PN Name 1 DICOM", "has 1 fields between tabs"),
        ("a\tb\tc\td\te\tf", "has 6 fields between tabs"),
        ("0010,0010\tPN\tName", "no tag that can be read: 0010,0010"),
        ("(0010)\tPN\tName", "no tag that can be read"),
        ("(00100,0010)\tPN\tName", "no tag that can be read"),
        ("(0010-x-0020,0010)\tPN\tName", "no tag that can be read"),
        ("(0010,0010)\tXX\tName", "no VR that is known: XX"),
        ("(0010,0010)\t\tName", "no VR that is known: "),
    ],
)
def test_lines_that_cannot_be_read(line, words):
    with pytest.raises(DictionaryError) as caught:
        Dictionary.read(f"# first\n{line}\n")
    assert "line 2 of the dictionary" in str(caught.value)
    assert words in str(caught.value)


def test_explicit_vr_needs_no_dictionary(monkeypatch):
    def refuse():
        raise AssertionError("the dictionary was loaded")

    monkeypatch.setattr(module, "_public_entries", refuse)
    shipped_dictionary.cache_clear()
    try:
        found = FormDetector(EXPLICIT, STORESCP_FORM)
        found.feed(encode(USUAL, EXPLICIT))
        assert found.finish()
    finally:
        shipped_dictionary.cache_clear()
