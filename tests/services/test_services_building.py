"""Instances out of metadata and bulk data: references, pixel data, documents, and all that is refused."""

import io
import itertools
import json
import struct
import time
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import parse_basic_offsets

from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, RLE_LOSSLESS
from stowkeeper.services.building import bulk_parts, pixel_data
from stowkeeper.services.building.bulk_parts import BulkPart, BulkParts
from stowkeeper.services.building.errors import BuildError
from stowkeeper.services.building.instances import build_instance, name_instance
from stowkeeper.stow.media_types import MediaType
from stowkeeper.stow.reasons import FailureReason
from support.metadata_requests import build, bulk_part, description, identifiers, part10, read_json, read_xml

RLE = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x01\x01\x02\xff\x03\x00"
PIXELS = {"t7FE00010": {"vr": "OB", "BulkDataURI": "here"}}


def instance(**others: Any) -> Any:
    """Return the metadata of an instance with its identifiers and `others`."""
    return read_json(json.dumps([identifiers(**others)]))


def built(*parts: BulkPart, **others: Any) -> tuple[str, Dataset]:
    """Build an instance; return its transfer syntax and what pydicom reads of it."""
    one, data_set = build(instance(**others), parts)
    scanner = HeaderScanner(one.transfer_syntax_uid, frozenset())
    scanner.feed(data_set)
    assert scanner.finish().problem is None
    return one.transfer_syntax_uid, dcmread(io.BytesIO(part10(one, data_set)))


def refused(*parts: BulkPart, **others: Any) -> BuildError:
    """Return why an instance is not built."""
    with pytest.raises(BuildError) as raised:
        build(instance(**others), parts)
    return raised.value


# Identifiers


def test_an_instance_without_bulk_data_is_built() -> None:
    syntax, found = built(t0040A040={"vr": "CS", "Value": ["CONTAINER"]})
    assert (syntax, found.ValueType) == (EXPLICIT_VR_LITTLE_ENDIAN, "CONTAINER")
    one, _ = build(instance())
    assert (one.sop_class_uid, one.sop_instance_uid, one.study_instance_uid) == (
        "1.2.840.10008.5.1.4.1.1.7",
        "1.2.3.4",
        "1.2.3.5",
    )


@pytest.mark.parametrize("tag", ["00080016", "00080018", "0020000D", "0020000E"])
@pytest.mark.parametrize("element", [None, {"vr": "UI"}, {"vr": "UI", "Value": [""]}])
def test_identifiers_have_to_be_there(tag: str, element: object) -> None:
    error = refused(**{f"t{tag}": element or {"vr": "UI"}})
    assert error.reason == FailureReason.DOES_NOT_MATCH
    assert "is missing" in error.words


@pytest.mark.parametrize(
    ("tag", "reason"),
    [("00080018", FailureReason.INVALID_INSTANCE), ("0020000D", FailureReason.DOES_NOT_MATCH)],
)
@pytest.mark.parametrize(
    "element",
    [
        {"vr": "UI", "Value": ["../../etc/passwd"]},
        {"vr": "UI", "Value": ["1.2\\1.3"]},
        {"vr": "UI", "Value": ["1." * 40]},
        {"vr": "LO", "Value": ["1.2.3"]},
        {"vr": "SQ", "Value": [{}]},
    ],
)
def test_identifiers_have_to_be_uids(tag: str, reason: FailureReason, element: object) -> None:
    error = refused(**{f"t{tag}": element})
    assert error.reason == reason
    assert "is no UID" in error.words
    assert "passwd" not in error.words


def test_a_refused_instance_has_the_names_that_can_be_repeated() -> None:
    named = name_instance(instance(t00080018={"vr": "UI", "Value": ["../x"]}).data_set)
    assert (named.sop_class_uid, named.sop_instance_uid) == ("1.2.840.10008.5.1.4.1.1.7", "")


def test_a_defect_of_the_metadata_is_said() -> None:
    error = refused(t00280010={"vr": "US", "Value": ["x"]})
    assert error.reason == FailureReason.CANNOT_UNDERSTAND
    assert "(0028,0010)" in error.words


# References


@pytest.mark.parametrize(
    "location", ["bulk/1", "http://127.0.0.1:1/a/b", "urn:uuid:42", "../x", "/a b", "file:///etc/passwd"]
)
def test_a_reference_means_the_part_with_the_same_text(location: str) -> None:
    _, found = built(bulk_part(b"\1\2", location), t00282000={"vr": "OB", "BulkDataURI": location})
    assert found.ICCProfile == b"\1\2"


@pytest.mark.parametrize("location", ["here", "http://127.0.0.1:1/here", "file:///etc/passwd"])
@pytest.mark.parametrize("in_item", [False, True])
def test_a_reference_to_no_part_is_refused_and_never_fetched(
    location: str, in_item: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    for name in ("socket.socket", "socket.create_connection", "urllib.request.urlopen", "builtins.open"):
        monkeypatch.setattr(name, fail)
    element: Any = {"vr": "OB", "BulkDataURI": location}
    if in_item:
        element = {"vr": "SQ", "Value": [{"00282000": element}]}
    for tag in ("00480105",) if in_item else ("00282000", "7FE00010", "00420011"):
        error = refused(bulk_part(b"\1\2", "There"), **{f"t{tag}": element})
        assert error.reason == FailureReason.BULK_DATA_MISSING
        assert location not in error.words


def test_a_file_name_in_a_reference_is_not_opened() -> None:
    error = refused(t00282000={"vr": "OB", "BulkDataURI": __file__})
    assert error.reason == FailureReason.BULK_DATA_MISSING


def test_parts_that_nobody_refers_to_are_told() -> None:
    named, alone, failed = bulk_part(b"", "a"), bulk_part(b"", "b"), bulk_part(b"", "c")
    parts = BulkParts([named, alone, failed, bulk_part(b"", "")])
    build_instance(
        instance(t00480105={"vr": "SQ", "Value": [{"00282000": {"vr": "OB", "BulkDataURI": "a"}}]}), parts
    )
    broken = instance(t00080018={"vr": "UI"}, t00282000={"vr": "OB", "BulkDataURI": "c"})
    with pytest.raises(BuildError):
        build_instance(broken, parts)
    assert [part.content_location for part in parts.not_referred_to()] == ["b", ""]


def test_values_at_hand_and_in_parts_may_be_mixed() -> None:
    _, found = built(
        bulk_part(b"abc", "text"),
        bulk_part(struct.pack("<2d", 1, 2), "numbers"),
        t00282000={"vr": "OB", "InlineBinary": "AAEC"},
        t0040A160={"vr": "UT", "BulkDataURI": "text"},
        t00480105={"vr": "SQ", "Value": [{"00189328": {"vr": "FD", "BulkDataURI": "numbers"}}]},
    )
    assert (found.ICCProfile, found.TextValue) == (b"\0\1\2\0", "abc")
    assert list(found.OpticalPathSequence[0][0x00189328].value) == [1, 2]


def test_a_long_value_of_a_short_representation_is_kept() -> None:
    numbers = struct.pack("<40000H", *range(40000))
    one, data_set = build(instance(t00281201={"vr": "US", "BulkDataURI": "here"}), [bulk_part(numbers)])
    found = dcmread(io.BytesIO(part10(one, data_set)))
    assert (found[0x00281201].VR, found[0x00281201].value) == ("UN", numbers)


def test_numbers_that_are_cut_are_refused() -> None:
    error = refused(bulk_part(b"123"), t00189328={"vr": "FD", "BulkDataURI": "here"})
    assert error.reason == FailureReason.DOES_NOT_MATCH
    error = refused(t00281201={"vr": "OW", "InlineBinary": "AAEC"})
    assert error.reason == FailureReason.DOES_NOT_MATCH


def test_other_bulk_data_than_bytes_are_refused() -> None:
    error = refused(bulk_part(b"12", media_type="image/jpeg"), t00282000={"vr": "OB", "BulkDataURI": "here"})
    assert error.reason == FailureReason.TRANSFER_SYNTAX


def test_bulk_data_in_big_endian_are_refused() -> None:
    part = bulk_part(struct.pack(">d", 1), transfer_syntax="1.2.840.10008.1.2.2")
    error = refused(part, t00189328={"vr": "FD", "BulkDataURI": "here"})
    assert error.reason == FailureReason.TRANSFER_SYNTAX


def test_a_location_that_many_elements_name_is_looked_up_once() -> None:
    parts = BulkParts([bulk_part(b"")] * 20_000)
    elements = {f"t0009{number:04X}": {"vr": "OB", "BulkDataURI": "here"} for number in range(0x1000, 0x2000)}
    begin = time.process_time()
    with pytest.raises(BuildError):
        build_instance(instance(**elements), parts)
    assert time.process_time() - begin < 1
    assert parts.not_referred_to() == []


def test_two_parts_of_one_location_are_refused_where_there_are_no_frames() -> None:
    error = refused(bulk_part(b"12"), bulk_part(b"34"), t00282000={"vr": "OB", "BulkDataURI": "here"})
    assert error.reason == FailureReason.DOES_NOT_MATCH


def test_sharing_is_bounded_over_all_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_parts, "SHARED_BYTES_MAX", 250)
    parts = BulkParts([bulk_part(bytes(100))])
    shared = instance(t00282000={"vr": "OB", "BulkDataURI": "here"})
    for _ in range(3):
        assert b"".join(build_instance(shared, parts).pieces)
    with pytest.raises(BuildError) as raised:
        build_instance(shared, parts)
    assert raised.value.reason == FailureReason.OUT_OF_RESOURCES


def test_parts_may_lie_in_one_file() -> None:
    file = io.BytesIO(b"..abcdef")
    octets = MediaType("application/octet-stream", {})
    parts = [
        BulkPart(content_location=name, media_type=octets, file=file, offset=offset, length=2)
        for name, offset in (("a", 2), ("b", 6))
    ]
    _, found = built(
        *parts, t00282000={"vr": "OB", "BulkDataURI": "b"}, t00420010={"vr": "UT", "BulkDataURI": "a"}
    )
    assert (found.ICCProfile, found[0x00420010].value) == (b"ef", "ab")


def test_a_file_that_is_shorter_than_its_part_raises() -> None:
    short = BulkPart(content_location="here", media_type=MediaType("", {}), file=io.BytesIO(b"12"), length=4)
    one = build_instance(instance(t00282000={"vr": "OB", "BulkDataURI": "here"}), BulkParts([short]))
    with pytest.raises(OSError, match="ends at byte 2"):
        list(one.pieces)


# Uncompressed pixel data


@pytest.mark.parametrize(
    ("media_type", "parameters"),
    [
        ("application/octet-stream", {}),
        ("application/octet-stream", {"transfer_syntax": "1.2.840.10008.1.2.1"}),
        ("application/octet-stream", {"transfer_syntax": "1.2.840.10008.1.2"}),
        ("application/octet-stream", {"transfer_syntax": "*"}),
        ("", {}),
    ],
)
def test_bytes_are_uncompressed_pixels(media_type: str, parameters: dict[str, str]) -> None:
    syntax, found = built(bulk_part(b"\1\2\3\4", "here", media_type, **parameters), **description(), **PIXELS)
    assert (syntax, found.PixelData, found[0x7FE00010].VR) == (EXPLICIT_VR_LITTLE_ENDIAN, b"\1\2\3\4", "OB")


def test_uncompressed_frames_may_be_parts_of_their_own() -> None:
    frames = [bulk_part(bytes([number] * 8), f"here/frames/{number}") for number in (2, 1, 3)]
    syntax, found = built(*frames, **description(bits=16, frames=3), **PIXELS)
    assert (syntax, found[0x7FE00010].VR) == (EXPLICIT_VR_LITTLE_ENDIAN, "OW")
    assert found.PixelData == bytes([1] * 8 + [2] * 8 + [3] * 8)


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [
        (3, [10, 10, 10]),  # each padded, which would shift the second and the third
        (3, [9, 9]),
        (2, [9, 9, 9]),
        (None, [9, 9]),
        (2, [10, 8]),
    ],
)
def test_uncompressed_parts_that_are_no_frames_are_refused(frames: int | None, lengths: list[int]) -> None:
    parts = [bulk_part(bytes(length)) for length in lengths]
    error = refused(*parts, **description(3, 3, frames=frames), **PIXELS)
    assert error.reason == FailureReason.DOES_NOT_MATCH
    assert f"{len(lengths)} parts" in error.words or "bytes" in error.words


def test_frames_of_single_bits_are_no_parts_where_they_end_inside_a_byte() -> None:
    error = refused(bulk_part(b"\1\2"), bulk_part(b"\1\2"), **description(3, 5, bits=1, frames=2), **PIXELS)
    assert "15 bits each" in error.words
    _, found = built(bulk_part(b"\1"), bulk_part(b"\2"), **description(2, 4, bits=1, frames=2), **PIXELS)
    assert found.PixelData == b"\1\2"


def test_pixels_at_hand_are_taken() -> None:
    syntax, found = built(**description(1, 3), t7FE00010={"vr": "UN", "InlineBinary": "AQID"})
    assert (syntax, found.PixelData) == (EXPLICIT_VR_LITTLE_ENDIAN, b"\1\2\3\0")


def test_single_bits_are_counted() -> None:
    _, found = built(bulk_part(b"\1\2"), **description(3, 5, bits=1), **PIXELS)
    assert found.PixelData == b"\1\2"
    assert (
        refused(bulk_part(b"\1"), **description(3, 5, bits=1), **PIXELS).reason
        == FailureReason.DOES_NOT_MATCH
    )


@pytest.mark.parametrize("content", [b"", b"\1\2\3", b"\xff\xd8\xff"])
def test_too_few_pixels_are_refused(content: bytes) -> None:
    error = refused(bulk_part(content), **description(), **PIXELS)
    assert error.reason == FailureReason.DOES_NOT_MATCH
    assert "ask for 4" in error.words


def test_fragments_in_the_metadata_are_refused() -> None:
    error = refused(**description(), t7FE00010={"vr": "OB", "InlineBinary": "/v8A4AAAAAA="})
    assert "compressed image is a part" in error.words


@pytest.mark.parametrize("tag", ["00280002", "00280004", "00280010", "00280011", "00280100", "00280103"])
def test_uncompressed_pixels_have_to_be_described(tag: str) -> None:
    said = description() | {f"t{tag}": {"vr": "US"}}
    error = refused(bulk_part(b"1234"), **said, **PIXELS)
    assert error.reason == FailureReason.DOES_NOT_MATCH
    assert f"({tag[:4]},{tag[4:]})" in error.words


@pytest.mark.parametrize(
    "said",
    [
        {"t00280010": {"vr": "IS", "Value": ["2"]}},
        {"t00280010": {"vr": "US", "Value": [2, 2]}},
        {"t00280010": {"vr": "US", "Value": [0]}},
        {"t00280100": {"vr": "US", "Value": [9]}},
        {"t00280008": {"vr": "IS", "Value": ["0"]}},
        {"t00280008": {"vr": "IS", "Value": ["-1"]}},
        {"t00280008": {"vr": "IS", "Value": ["1", "2"]}},
        {"t00280008": {"vr": "IS", "Value": ["9" * 100]}},
        {"t00280008": {"vr": "SQ", "Value": [{}]}},
        {"t7FE00010": {"vr": "FD", "BulkDataURI": "here"}},
        {"t7FE00010": {"vr": "SQ", "Value": [{}]}},
    ],
)
def test_a_description_that_says_nothing_is_refused(said: dict[str, Any]) -> None:
    error = refused(bulk_part(b"1234"), **(description() | PIXELS | said))
    assert error.reason == FailureReason.DOES_NOT_MATCH


# Compressed pixel data


def test_frames_are_fragments_with_an_offset_table() -> None:
    frames = [bulk_part(RLE + bytes(number), media_type="image/dicom-rle") for number in range(3)]
    syntax, found = built(*frames, **description(frames=3), **PIXELS)
    assert syntax == RLE_LOSSLESS
    assert found[0x7FE00010].VR == "OB"
    assert parse_basic_offsets(found.PixelData) == [0, 8 + 70, 16 + 142]
    assert found.pixel_array.shape == (3, 2, 2)


def test_frames_by_their_own_locations_come_in_their_order() -> None:
    frames = [
        bulk_part(RLE + bytes(2 * number), f"here/frames/{number}", "image/dicom-rle") for number in (2, 1)
    ]
    _, found = built(*frames, **description(frames=2), **PIXELS)
    assert parse_basic_offsets(found.PixelData) == [0, 8 + 72]


def test_a_missing_number_of_frames_is_counted() -> None:
    parts = [bulk_part(RLE, media_type="image/dicom-rle")] * 2
    assert built(*parts, **description(), **PIXELS)[1].NumberOfFrames == 2
    assert "NumberOfFrames" not in built(parts[0], **description(), **PIXELS)[1]


@pytest.mark.parametrize("frames", [1, 3])
def test_another_number_of_frames_is_refused(frames: int) -> None:
    parts = [bulk_part(RLE, media_type="image/dicom-rle")] * 2
    error = refused(*parts, **description(frames=frames), **PIXELS)
    assert error.reason == FailureReason.DOES_NOT_MATCH
    assert f"{frames} frames" in error.words


def test_offsets_beyond_32_bits_stand_in_an_extended_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_data, "BASIC_OFFSET_MAX", 100)
    frames = [bulk_part(RLE + b"\0" * number, media_type="image/dicom-rle") for number in range(3)]
    _, found = built(*frames, **description(frames=3), **PIXELS)
    assert parse_basic_offsets(found.PixelData) == []
    assert struct.unpack("<3Q", found.ExtendedOffsetTable) == (0, 78, 158)
    assert struct.unpack("<3Q", found.ExtendedOffsetTableLengths) == (70, 72, 72)
    assert found.pixel_array.shape == (3, 2, 2)


def test_tables_of_another_encoding_are_left_out() -> None:
    stale = {
        "t7FE00001": {"vr": "OV", "InlineBinary": "AAAAAAAAAAA="},
        "t7FE00002": {"vr": "OV", "BulkDataURI": "table"},
    }
    parts = BulkParts([bulk_part(RLE, media_type="image/dicom-rle"), bulk_part(bytes(8), "table")])
    one = build_instance(instance(**description(), **PIXELS, **stale), parts)
    found = dcmread(io.BytesIO(part10(one, b"".join(one.pieces))))
    assert "ExtendedOffsetTable" not in found
    assert "ExtendedOffsetTableLengths" not in found
    assert parts.not_referred_to() == []


@pytest.mark.parametrize(
    ("media_type", "parameters", "words"),
    [
        ("image/gif", {}, "decoded"),
        ("image/png", {}, "decoded"),
        ("text/plain", {}, "media type"),
        ("application/dicom", {}, "media type"),
        ("application/octet-stream", {"transfer_syntax": "1.2.840.10008.1.2.2"}, "transfer syntax"),
        ("application/octet-stream", {"transfer_syntax": "1.2.840.10008.1.2.1.99"}, "transfer syntax"),
        ("application/octet-stream", {"transfer_syntax": "../x"}, "transfer syntax"),
        ("image/dicom-rle", {"transfer_syntax": "1.2.840.10008.1.2.4.50"}, "RLE Lossless"),
    ],
)
def test_what_cannot_be_kept_is_refused(media_type: str, parameters: dict[str, str], words: str) -> None:
    error = refused(bulk_part(RLE, "here", media_type, **parameters), **description(), **PIXELS)
    assert error.reason == FailureReason.TRANSFER_SYNTAX
    assert words in error.words


def test_bytes_with_a_transfer_syntax_are_what_it_says() -> None:
    part = bulk_part(RLE, transfer_syntax=RLE_LOSSLESS)
    assert built(part, **description(), **PIXELS)[0] == RLE_LOSSLESS


def test_frames_of_several_kinds_are_refused() -> None:
    parts = [bulk_part(RLE, media_type="image/dicom-rle"), bulk_part(b"1234")]
    error = refused(*parts, **description(frames=2), **PIXELS)
    assert error.reason == FailureReason.DOES_NOT_MATCH


def test_an_icon_beside_compressed_pixels_stays_uncompressed() -> None:
    icon = {"7FE00010": {"vr": "OW", "BulkDataURI": "icon"}}
    _, found = built(
        bulk_part(RLE, media_type="image/dicom-rle"),
        bulk_part(b"123", "icon"),
        **description(),
        **PIXELS,
        t00880200={"vr": "SQ", "Value": [icon]},
    )
    assert found.IconImageSequence[0].PixelData == b"123\0"
    error = refused(bulk_part(RLE, "icon", "image/dicom-rle"), t00880200={"vr": "SQ", "Value": [icon]})
    assert error.reason == FailureReason.TRANSFER_SYNTAX


# Documents

DOCUMENT = {"t00420011": {"vr": "OB", "BulkDataURI": "here"}}
PDF = b"%PDF-1.4 odd."


def test_a_document_has_its_media_type_and_its_length() -> None:
    _, found = built(bulk_part(PDF, media_type="application/pdf"), **DOCUMENT)
    assert found.EncapsulatedDocument == PDF + b"\0"
    assert (found.MIMETypeOfEncapsulatedDocument, found.EncapsulatedDocumentLength) == (
        "application/pdf",
        len(PDF),
    )


def test_a_document_at_hand_is_taken() -> None:
    _, found = built(
        t00420011={"vr": "OB", "InlineBinary": "AQID"}, t00420012={"vr": "LO", "Value": ["model/stl"]}
    )
    assert (found.EncapsulatedDocument, found.EncapsulatedDocumentLength) == (b"\1\2\3\0", 3)


@pytest.mark.parametrize(
    ("content", "length", "is_taken"),
    [
        (PDF, len(PDF), True),
        (PDF + b"\0", len(PDF), True),
        (PDF + b"\0", len(PDF) + 1, True),
        (PDF, len(PDF) - 1, False),
        (PDF, len(PDF) + 1, False),
        (PDF + b".", len(PDF), False),
        (PDF[:-1] + b"\0", len(PDF) - 1, False),
    ],
)
def test_the_length_of_a_document_has_to_be_its_own(content: bytes, length: int, is_taken: bool) -> None:
    part = bulk_part(content, media_type="application/pdf")
    said = {"t00420015": {"vr": "UL", "Value": [length]}}
    if is_taken:
        assert built(part, **DOCUMENT, **said)[1].EncapsulatedDocumentLength == length
    else:
        assert refused(part, **DOCUMENT, **said).reason == FailureReason.DOES_NOT_MATCH


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (bulk_part(PDF), {}),
        (bulk_part(b"", media_type="application/pdf"), {}),
        (bulk_part(PDF, media_type="application/pdf"), {"t00420012": {"vr": "LO", "Value": ["text/XML"]}}),
        (bulk_part(PDF, media_type="application/pdf"), {"t00420012": {"vr": "SQ", "Value": [{}]}}),
        (bulk_part(PDF, media_type="application/pdf"), {"t00420011": {"vr": "UT", "BulkDataURI": "here"}}),
    ],
)
def test_a_document_that_is_not_what_it_says_is_refused(part: BulkPart, said: dict[str, Any]) -> None:
    assert refused(part, **(DOCUMENT | said)).reason == FailureReason.DOES_NOT_MATCH


def test_bytes_are_the_document_that_the_metadata_say() -> None:
    _, found = built(bulk_part(PDF), **DOCUMENT, t00420012={"vr": "LO", "Value": ["application/pdf"]})
    assert found.MIMETypeOfEncapsulatedDocument == "application/pdf"


# XML


def test_an_instance_in_xml_is_built() -> None:
    uids = "".join(
        f'<DicomAttribute tag="{tag}" vr="UI"><Value number="1">{element["Value"][0]}</Value></DicomAttribute>'
        for tag, element in identifiers().items()
    )
    text = (
        f'<NativeDicomModel>{uids}<DicomAttribute tag="00420011" vr="OB"><BulkData uri="here"/></DicomAttribute>'
        "</NativeDicomModel>"
    )
    one, data_set = build(read_xml(text), [bulk_part(PDF, media_type="application/pdf")])
    assert dcmread(io.BytesIO(part10(one, data_set))).EncapsulatedDocumentLength == len(PDF)


def test_pieces_are_small_whatever_the_elements() -> None:
    long = {"vr": "UT", "Value": ["a" * 50_000]}
    one = build_instance(
        instance(
            t00480105={"vr": "SQ", "Value": [{"0040A160": long}] * 20},
            t00282000={"vr": "OB", "BulkDataURI": "here"},
        ),
        BulkParts([bulk_part(bytes(3_000_000))]),
    )
    lengths = [len(piece) for piece in one.pieces]
    assert max(lengths) < 512 * 1024
    assert sum(lengths) > 4_000_000
    assert all(length >= 64 * 1024 for length in itertools.islice(lengths, len(lengths) - 1))
