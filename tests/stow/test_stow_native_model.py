"""Metadata in the Native DICOM Model: what it means, and what is refused."""

import base64
import struct
import time
from collections import deque
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.stow import metadata, native_model
from stowkeeper.stow.limits_of_metadata import XML_DEPTH_MAX, XML_TAG_BYTES_MAX
from stowkeeper.stow.metadata import BulkReference, InstanceMetadata, MetadataError
from stowkeeper.stow.native_model import NATIVE_MODEL_NAMESPACE, NativeModelReader
from support.examples import examples

MODALITY = (
    '<DicomAttribute tag="00080060" vr="CS" keyword="Modality"><Value number="1">CT</Value></DicomAttribute>'
)
DEEP = '<DicomAttribute tag="00081032" vr="SQ"><Item number="1">'
DEEP_END = "</Item></DicomAttribute>"


def document(*attributes: str, head: str = '<?xml version="1.0" encoding="UTF-8"?>') -> str:
    return (
        f'{head}<NativeDicomModel xmlns="{NATIVE_MODEL_NAMESPACE}">{"".join(attributes)}</NativeDicomModel>'
    )


def read(text: str | bytes) -> InstanceMetadata:
    reader = NativeModelReader()
    reader.feed(text.encode() if isinstance(text, str) else text)
    return reader.finish()


def feed_by_letters(reader: NativeModelReader, text: str) -> None:
    for letter in text:
        reader.feed(letter.encode())


def attribute(vr: str, content: str, tag: str = "00081010", more: str = "") -> str:
    return f'<DicomAttribute tag="{tag}" vr="{vr}"{more}>{content}</DicomAttribute>'


def value_of(vr: str, content: str) -> object:
    found = read(document(attribute(vr, content)))
    assert found.defect == ""
    return found.data_set[0x00081010].value


@pytest.mark.parametrize(
    ("vr", "content", "expected"),
    [
        ("CS", '<Value number="1">A</Value><Value number="2">B</Value>', b"A\\B"),
        ("CS", '<Value number="2">B</Value><Value number="1">A</Value>', b"A\\B"),
        ("CS", '<Value number="1">A</Value><Value number="3">C</Value>', b"A\\\\C"),
        ("CS", "<Value>A</Value><Value>B</Value>", b"A\\B"),
        ("CS", '<Value number="1">\n A \n</Value>', b"A"),
        ("LT", '<Value number="1"> A &amp; &#66;\n</Value>', b" A & B\n"),
        ("LO", '<Value number="1"><![CDATA[<A>]]></Value>', b"<A>"),
        ("LO", "<Value/>", b""),
        ("LO", "", b""),
        ("IS", '<Value number="1">12</Value>', b"12"),
        ("DS", '<Value number="1">0.1234567890123456</Value>', b"0.1234567890123456"),
        ("US", '<Value number="1">1</Value><Value number="2">65535</Value>', b"\1\0\xff\xff"),
        ("SV", '<Value number="1">-1</Value>', b"\xff" * 8),
        ("FL", '<Value number="1"> 1.5e0 </Value>', struct.pack("<f", 1.5)),
        ("FD", '<Value number="1">-inf</Value>', struct.pack("<d", float("-inf"))),
        ("AT", '<Value number="1">0028001A</Value>', b"\x28\0\x1a\0"),
        (
            "OB",
            f"<InlineBinary>{base64.encodebytes(bytes(range(256))).decode()}</InlineBinary>",
            bytes(range(256)),
        ),
        ("OW", '<BulkData uri="bulk/1"/>', BulkReference("bulk/1")),
        ("OW", '<BulkData uuid="1234"></BulkData>', BulkReference("1234")),
        ("SQ", "", ()),
        ("SQ", '<Item number="1"/>', ({},)),
        (
            "PN",
            (
                '<PersonName number="1"><Alphabetic><FamilyName>A</FamilyName><MiddleName>C</MiddleName></Alphabetic>'
                "<Phonetic><GivenName>D</GivenName></Phonetic></PersonName>"
                '<PersonName number="2"><Ideographic><FamilyName>E</FamilyName></Ideographic></PersonName>'
            ),
            b"A^^C==^D\\=E",
        ),
    ],
)
def test_values_are_encoded(vr: str, content: str, expected: object) -> None:
    assert value_of(vr, content) == expected


def test_a_document_without_a_namespace_and_one_with_a_prefix_are_read() -> None:
    plain = f"<NativeDicomModel>{MODALITY}</NativeDicomModel>"
    prefixed = f'<d:NativeDicomModel xmlns:d="{NATIVE_MODEL_NAMESPACE}"/>'
    assert read(plain).data_set[0x00080060].value == b"CT"
    assert read(prefixed).data_set == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_encodings_are_read(encoding: str) -> None:
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    text = document(attribute("LO", '<Value number="1">Ünïcode</Value>'), head=head)
    found = read(text.encode(encoding))
    assert found.data_set[0x00081010].value == "Ünïcode".encode()
    assert found.data_set[0x00080005].value == b"ISO_IR 192"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
def test_any_split_reads_the_same(step: int) -> None:
    item = (
        DEEP
        + attribute("PN", "<PersonName><Alphabetic><FamilyName>Ä</FamilyName></Alphabetic></PersonName>")
        + DEEP_END
    )
    text = document(MODALITY, item, attribute("LT", "<Value>a &lt; b</Value>", "00104000")).encode()
    reader = NativeModelReader()
    for at in range(0, len(text), step):
        reader.feed(text[at : at + step])
    assert reader.finish() == read(text)
    assert len(read(text).data_set) == 4  # the character set is the fourth


class TestPrivateElements:
    """PS3.19 names the creator at each element, and leaves its block out."""

    def read(self, *attributes: str) -> dict[int, object]:
        found = read(document(*attributes))
        assert found.defect == ""
        return {tag: element.value for tag, element in found.data_set.items()}

    def private(self, tag: str, creator: str, value: str = "V") -> str:
        return attribute("LO", f"<Value>{value}</Value>", tag, f' privateCreator="{creator}"')

    def test_an_element_without_a_block_gets_one(self) -> None:
        assert self.read(
            self.private("00090002", "A"), self.private("00090003", "A"), self.private("00090002", "B")
        ) == {
            0x00090010: b"A",
            0x00090011: b"B",
            0x00091002: b"V",
            0x00091003: b"V",
            0x00091102: b"V",
        }

    def test_the_first_element_of_a_block_is_no_group_length(self) -> None:
        assert self.read(self.private("00090000", "A"), self.private("00090001", "A")) == {
            0x00090010: b"A",
            0x00091000: b"V",
            0x00091001: b"V",
        }
        length = attribute("UL", "<Value>8</Value>", "00090000")
        assert self.read(length, self.private("00090002", "A")) == {0x00090010: b"A", 0x00091002: b"V"}

    def test_a_block_that_is_reserved_is_used(self) -> None:
        creator = attribute("LO", "<Value>A</Value>", "00090042")
        assert self.read(self.private("00090002", "A"), creator) == {0x00090042: b"A", 0x00094202: b"V"}

    def test_a_block_in_the_tag_is_kept_and_its_creator_added(self) -> None:
        assert self.read(self.private("00094202", "A")) == {0x00090042: b"A", 0x00094202: b"V"}

    def test_a_block_that_elements_are_in_is_not_given_to_another_creator(self) -> None:
        foreign = attribute("LO", "<Value>F</Value>", "00091001")
        assert self.read(self.private("00090002", "A"), foreign) == {
            0x00090011: b"A",
            0x00091001: b"F",
            0x00091102: b"V",
        }

    def test_a_creator_of_other_letters_makes_the_data_set_utf_8(self) -> None:
        assert self.read(self.private("00090002", "Ä"))[0x00080005] == b"ISO_IR 192"

    def test_two_creators_of_one_block_are_a_defect(self) -> None:
        found = read(document(self.private("00091002", "A"), self.private("00091003", "B")))
        assert "another private creator" in found.defect
        found = read(document(self.private("00091002", "A"), attribute("LO", "<Value>B</Value>", "00090010")))
        assert "another private creator" in found.defect

    def test_the_same_element_twice_is_a_defect(self) -> None:
        found = read(document(self.private("00090002", "A"), self.private("00090002", "A")))
        assert found.defect == "(0009,0002) is there twice"

    def test_a_group_without_a_block_left_is_a_defect(self) -> None:
        found = read(document(*(self.private("00090002", f"creator {number}") for number in range(0xF1))))
        assert "has no block" in found.defect


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (attribute("US", "<Value>65536</Value>"), "cannot have"),
        (attribute("US", "<Value>1_0</Value>"), "no integer"),
        (attribute("US", "<Value></Value>"), "no integer"),
        (attribute("US", '<Value number="1">1</Value><Value number="3">1</Value>'), "leaves a number out"),
        (attribute("OB", "<Value>1</Value>"), "in words"),
        (attribute("OB", "<InlineBinary>A</InlineBinary>"), "base64"),
        (attribute("LO", "<InlineBinary>AAEC</InlineBinary>"), "base64"),
        (attribute("LO", '<BulkData uri="a"/>'), "refers to bulk data"),
        (attribute("OB", "<BulkData/>"), "is none"),
        (attribute("OB", '<BulkData uri="a"/><BulkData uri="b"/>'), "several ways"),
        (attribute("OB", '<BulkData uri="a"/><InlineBinary>AAEC</InlineBinary>'), "several ways"),
        (
            attribute("OB", "<InlineBinary>AAEC</InlineBinary><InlineBinary>AAEC</InlineBinary>"),
            "several ways",
        ),
        (attribute("SQ", "<Value>1</Value>"), "is a sequence"),
        (attribute("LO", "<Item/>"), "no sequence"),
        (attribute("XX", "<Value>1</Value>"), "value representation"),
        ('<DicomAttribute tag="00081010"><Value>1</Value></DicomAttribute>', "value representation"),
        (attribute("LO", '<Value number="1">A</Value><Value number="1">B</Value>'), "same number"),
        (attribute("LO", '<Value number="0">A</Value>'), "number is none"),
        (attribute("LO", '<Value number="-1">A</Value>'), "number is none"),
        (attribute("UT", "<Value>A</Value><Value>B</Value>"), "several values"),
        (attribute("LO", "<Value>A</Value>") * 2, "there twice"),
        (
            attribute(
                "PN",
                "<PersonName><Alphabetic><FamilyName>A</FamilyName><FamilyName>B</FamilyName></Alphabetic></PersonName>",
            ),
            "twice",
        ),
        (attribute("LO", "<Value>A</Value>", "zz"), "eight digits"),
        (attribute("LO", "<Value>A</Value>", "FFFEE00D"), "no element"),
    ],
)
def test_a_defect_is_named_and_spares_the_others(content: str, words: str) -> None:
    found = read(document(content, MODALITY))
    assert words in found.defect
    assert found.data_set[0x00080060].value == b"CT"


@pytest.mark.parametrize(
    "head",
    [
        "<!DOCTYPE NativeDicomModel>",
        '<!DOCTYPE NativeDicomModel SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE NativeDicomModel PUBLIC "a" "http://127.0.0.1:1/a.dtd">',
        '<!DOCTYPE a [<!ENTITY a "b">]>',
        '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a [<!ENTITY % a SYSTEM "http://127.0.0.1:1/a"> %a;]>',
        '<!DOCTYPE a [<!ENTITY a0 "lol">'
        + "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
        + "]>",
    ],
)
def test_document_types_are_refused_where_they_begin(head: str) -> None:
    text = document(attribute("LO", "<Value>&a;</Value>"), head=head)
    with pytest.raises(MetadataError, match="document type"):
        read(text)
    reader = NativeModelReader()
    with pytest.raises(MetadataError, match="document type"):
        feed_by_letters(reader, text)
    with pytest.raises(MetadataError, match="document type"):
        reader.feed(b"<a/>")


def test_namespaces_hold_where_they_are_declared() -> None:
    inner = f'<n:Value xmlns:n="{NATIVE_MODEL_NAMESPACE}" xmlns:x="urn:x" x:y="1">A</n:Value>'
    assert value_of("LO", inner) == b"A"
    assert value_of("LO", "<Value xmlns=''>A</Value>") == b"A"
    for content in (
        inner + "<n:Value>B</n:Value>",
        '<Value xmlns="urn:other">A</Value>',
        f'<n:Value xmlns:n="{NATIVE_MODEL_NAMESPACE}2">A</n:Value>',
    ):
        with pytest.raises(MetadataError, match="has not there"):
            read(document(attribute("LO", content)))


def test_a_long_namespace_is_not_written_before_every_field() -> None:
    fields = " ".join(f'x:f{number}="1"' for number in range(10_000))
    text = f'<NativeDicomModel xmlns:x="{"u" * 100_000}" {fields}/>'
    begin = time.process_time()
    assert read(text).defect == ""
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "head", ["<NativeDicomModel x='", "<!--", "<?a ", "<", "<NativeDicomModel ", "<NativeDicomModel><!--"]
)
def test_a_tag_or_comment_without_an_end_is_refused_early(head: str) -> None:
    reader = NativeModelReader()
    pieces = iter([head.encode(), *[b"y" * 10_000] * (XML_TAG_BYTES_MAX // 10_000 + 1)])
    with pytest.raises(MetadataError, match=f"more than {XML_TAG_BYTES_MAX} bytes"):
        deque(map(reader.feed, pieces), maxlen=0)
    with pytest.raises(MetadataError):
        reader.finish()


@pytest.mark.parametrize(("begin", "end"), [("", ""), ("<![CDATA[", "]]>")])
@pytest.mark.parametrize("letters", ["a", " ", "a\n", "é"])
@pytest.mark.parametrize("step", [1000, 65536, XML_TAG_BYTES_MAX * 8])
def test_a_long_value_is_no_long_tag(begin: str, end: str, letters: str, step: int) -> None:
    value = letters * XML_TAG_BYTES_MAX * 2
    text = document(attribute("UT", f"<Value>{begin}{value}{end}</Value>")).encode()
    reader = NativeModelReader()
    for at in range(0, len(text), step):
        reader.feed(text[at : at + step])
    assert reader.finish().data_set[0x00081010].value == value.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "<NativeDicomModel>",
        "<NativeDicomModel/><NativeDicomModel/>",
        "<Other/>",
        '<NativeDicomModel xmlns="urn:other"/>',
        document("&undefined;"),
        document("text"),
        document(attribute("LO", "text")),
        document(attribute("LO", "<Value>a<Value>b</Value></Value>")),
        document("<Value>a</Value>"),
        document("<Item/>"),
        document(attribute("SQ", "<Item><Value>a</Value></Item>")),
        document('<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/>'),
        document(attribute("LO", "<Value>\0</Value>")),
        document(attribute("LO", "<Value>\ufffe</Value>")),
        document('<DicomAttribute tag="00081010" tag="00081010" vr="LO"/>'),
        '<?xml version="1.0" encoding="no-such-encoding"?><NativeDicomModel/>',
        b"<NativeDicomModel>\xff</NativeDicomModel>",
        document(attribute("LO", "<Value>&#xD800;</Value>")),
        document(attribute("PN", "<PersonName><Alphabetic><Surname>a</Surname></Alphabetic></PersonName>")),
    ],
)
def test_what_is_no_native_model_is_refused(text: str | bytes) -> None:
    with pytest.raises(MetadataError) as raised:
        read(text)
    assert "passwd" not in str(raised.value)


def test_the_deepest_sequence_that_is_taken_is_read_and_deeper_ones_are_refused() -> None:
    assert read(document(DEEP * 64 + MODALITY + DEEP_END * 64)).defect == ""
    with pytest.raises(MetadataError, match=f"more than {XML_DEPTH_MAX} tags"):
        read(document(DEEP * 10_000))


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MetadataError, match="more than"):
        read(document(attribute("LO", '<Value number="999999999">a</Value>')))
    monkeypatch.setattr(metadata, "METADATA_VALUES_MAX", 3)
    with pytest.raises(MetadataError, match="more than 3 values"):
        read(document(attribute("LO", "<Value/>" * 4)))
    monkeypatch.setattr(metadata, "METADATA_ELEMENTS_MAX", 3)
    with pytest.raises(MetadataError, match="more than 3 data elements"):
        read(document(MODALITY * 4))
    monkeypatch.setattr(native_model, "METADATA_BYTES_MAX", 1000)
    reader = NativeModelReader()
    reader.feed(b"<NativeDicomModel>")
    with pytest.raises(MetadataError, match="more than 1000 bytes"):
        feed_by_letters(reader, " " * 1000)


_pieces = st.sampled_from(
    [
        "<NativeDicomModel>",
        "</NativeDicomModel>",
        '<DicomAttribute tag="00081010" vr="LO">',
        '<DicomAttribute tag="00081032" vr="SQ">',
        '<DicomAttribute tag="x" vr="PN" privateCreator="A">',
        "</DicomAttribute>",
        '<Item number="1">',
        "</Item>",
        '<Value number="2">',
        "</Value>",
        "<PersonName>",
        "</PersonName>",
        "<Alphabetic>",
        "<FamilyName>",
        "</FamilyName>",
        "</Alphabetic>",
        '<BulkData uri="a"/>',
        "<InlineBinary>AAEC</InlineBinary>",
        "a",
        "&amp;",
    ]
)


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(st.lists(_pieces, max_size=20).map("".join) | st.binary(max_size=30))
def test_no_text_does_more_than_be_refused(text: str | bytes) -> None:
    with suppress(MetadataError):
        read(document(text) if isinstance(text, str) else text)
