"""What the headers of compressed images and videos tell: transfer syntaxes and missing attributes; hostile ones are refused."""

import io
import json
import struct
import tracemalloc
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from stowkeeper.services.building import pixel_data, video
from stowkeeper.services.building.bulk_parts import BulkPart, BulkParts
from stowkeeper.services.building.errors import BuildError
from stowkeeper.services.building.frame_media import FRAME_MEDIA, media_type_of
from stowkeeper.services.building.instances import build_instance
from stowkeeper.stow.reasons import FailureReason
from support.bundled_files import FOLDER
from support.examples import examples
from support.metadata_requests import (
    as_json,
    as_request,
    box,
    build,
    bulk_part,
    description,
    frames_of,
    identifiers,
    mpeg_2_stream,
    mpeg_4_file,
    part10,
    read_json,
    spooled,
)

PIXELS = {"t7FE00010": {"vr": "OB", "BulkDataURI": "here"}}
PREFIX = "1.2.840.10008.1.2.4."
DESCRIBING = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


UNSIGNED = {"t00280103": {"vr": "US", "Value": [0]}}


def built(*parts: BulkPart, **others: Any) -> tuple[str, Dataset]:
    """Build an instance whose pixel data are `parts`; return the end of its transfer syntax and what pydicom reads."""
    metadata = read_json(json.dumps([identifiers(**(PIXELS | others))]))
    one, data_set = build(metadata, parts)
    return one.transfer_syntax_uid.removeprefix(PREFIX), dcmread(io.BytesIO(part10(one, data_set)))


def refused(*parts: BulkPart, **others: Any) -> BuildError:
    with pytest.raises(BuildError) as raised:
        built(*parts, **others)
    return raised.value


@cache
def frame(name: str) -> bytes:
    """Return the first frame of a bundled file."""
    return frames_of(dcmread(FOLDER / name))[0]


@pytest.mark.parametrize(
    "name",
    [
        "JPEG-lossy.dcm",
        "JPGExtended.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_jp2klossless.dcm",
        "693_J2KI.dcm",
        "examples_jpeg2k.dcm",
        "JPEG2000.dcm",
    ],
)
def test_attributes_that_describe_pixels_are_derived_where_they_are_missing(name: str) -> None:
    source = dcmread(FOLDER / name)
    bare = deepcopy(source)
    for keyword in DESCRIBING:
        if keyword in bare and (keyword, name) != ("PixelRepresentation", "MR_small_jpeg_ls_lossless.dcm"):
            delattr(bare, keyword)
    request = as_request(bare, as_json)
    one, data_set = build(read_json(request.metadata), request.parts)
    found = dcmread(io.BytesIO(part10(one, data_set)))
    for keyword in DESCRIBING:
        expected = source.get(keyword)
        if keyword in {"BitsStored", "HighBit"} and expected != found[keyword].value:
            continue  # a bitstream may have more bits than the pixels use, and that is all it tells
        if keyword == "PhotometricInterpretation" and expected.startswith("YBR"):
            assert found[keyword].value.startswith("YBR")
        elif expected is not None:
            assert found[keyword].value == expected, keyword
    assert found.BitsStored >= source.BitsStored
    assert found.HighBit == found.BitsStored - 1


def test_derived_attributes_do_not_replace_those_that_are_there() -> None:
    said = description(1024, 256, bits=16) | {"t00280101": {"vr": "US", "Value": [12]}}
    _, found = built(bulk_part(frame("JPGExtended.dcm"), media_type="image/jpeg"), **said)
    assert (found.BitsStored, found.HighBit) == (12, 15)


def test_whether_samples_are_signed_is_not_guessed() -> None:
    error = refused(bulk_part(frame("MR_small_jpeg_ls_lossless.dcm"), media_type="image/jls"))
    assert error.reason == FailureReason.DOES_NOT_MATCH
    assert "lack Pixel Representation (0028,0103)," in error.words


@pytest.mark.parametrize("tag", ["00280010", "00280011", "00280002"])
def test_a_size_that_the_bitstream_has_not_is_refused(tag: str) -> None:
    part = bulk_part(frame("MR_small_jp2klossless.dcm"), media_type="image/jp2")
    error = refused(part, **{f"t{tag}": {"vr": "US", "Value": [7]}})
    assert error.reason == FailureReason.DOES_NOT_MATCH
    assert f"({tag[:4]},{tag[4:]})" in error.words


def test_rle_tells_nothing_of_the_image() -> None:
    error = refused(bulk_part(frame("MR_small_RLE.dcm"), media_type="image/dicom-rle"))
    assert error.reason == FailureReason.DOES_NOT_MATCH
    assert "Rows (0028,0010)" in error.words


def test_frames_of_several_sizes_are_refused() -> None:
    parts = [
        bulk_part(frame(name), media_type="image/jp2")
        for name in ("693_J2KI.dcm", "MR_small_jp2klossless.dcm")
    ]
    assert refused(*parts).reason == FailureReason.DOES_NOT_MATCH


# Which transfer syntax


@pytest.mark.parametrize(
    ("name", "media_type", "wish", "expected"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", "image/jpeg", "", "70"),
        ("SC_rgb_jpeg_gdcm.dcm", "image/jpeg", "57", "57"),
        ("SC_rgb_jpeg_dcmtk.dcm", "image/jpeg", "", "50"),
        ("SC_rgb_jpeg_dcmtk.dcm", "IMAGE/JPEG", "51", "51"),
        ("JPEG-lossy.dcm", "image/jpeg", "", "51"),
        ("MR_small_jpeg_ls_lossless.dcm", "image/jls", "", "80"),
        ("MR_small_jpeg_ls_lossless.dcm", "image/x-jls", "", "80"),
        ("MR_small_jpeg_ls_lossless.dcm", "image/jls", "81", "81"),
        ("SC_rgb_jls_lossy_line.dcm", "image/jls", "", "81"),
        ("MR_small_jp2klossless.dcm", "image/jp2", "", "90"),
        ("MR_small_jp2klossless.dcm", "image/jp2", "91", "91"),
        ("MR_small_jp2klossless.dcm", "image/jpx", "", "92"),
        ("MR_small_jp2klossless.dcm", "image/jpx", "93", "93"),
        ("JPEG2000.dcm", "image/jp2", "", "91"),
        ("JPEG2000.dcm", "image/jpx", "", "93"),
    ],
)
def test_the_bitstream_tells_the_transfer_syntax(
    name: str, media_type: str, wish: str, expected: str
) -> None:
    wishes = {"transfer_syntax": PREFIX + wish} if wish else {}
    part = bulk_part(frame(name), "here", media_type.lower(), **wishes)
    assert built(part, **UNSIGNED)[0] == expected


@pytest.mark.parametrize(
    ("name", "media_type", "wish"),
    [
        ("SC_rgb_jpeg_dcmtk.dcm", "image/jpeg", "70"),
        ("JPEG-lossy.dcm", "image/jpeg", "50"),
        ("SC_rgb_jls_lossy_line.dcm", "image/jls", "80"),
        ("JPEG2000.dcm", "image/jp2", "90"),
        ("JPEG2000.dcm", "image/jp2", "50"),
    ],
)
def test_a_transfer_syntax_that_the_bitstream_has_not_is_refused(
    name: str, media_type: str, wish: str
) -> None:
    error = refused(bulk_part(frame(name), "here", media_type, transfer_syntax=PREFIX + wish))
    assert error.reason == FailureReason.TRANSFER_SYNTAX


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("SC_rgb_jpeg_dcmtk.dcm", "image/jls"),
        ("MR_small_jpeg_ls_lossless.dcm", "image/jpeg"),
        ("SC_rgb_jpeg_dcmtk.dcm", "image/jp2"),
        ("MR_small_jp2klossless.dcm", "image/jphc"),
        ("MR_small_jp2klossless.dcm", "image/jpeg"),
        ("MR_small_jp2klossless.dcm", "image/jxl"),
        ("MR_small_jp2klossless.dcm", "image/dicom-rle"),
        ("MR_small_jp2klossless.dcm", "video/mpeg"),
        ("MR_small_jp2klossless.dcm", "video/mp4"),
        ("MR_small_jp2klossless.dcm", "video/h265"),
    ],
)
def test_a_bitstream_of_another_media_type_is_refused(name: str, media_type: str) -> None:
    assert refused(bulk_part(frame(name), media_type=media_type)).reason == FailureReason.CANNOT_UNDERSTAND


def test_frames_are_kept_in_the_transfer_syntax_that_fits_all() -> None:
    lossless, lossy = (
        bytearray(frame("MR_small_jpeg_ls_lossless.dcm")),
        bytearray(frame("MR_small_jpeg_ls_lossless.dcm")),
    )
    scan = lossy.find(b"\xff\xda")
    lossy[scan + 7] = 2  # its near-lossless parameter
    parts = [bulk_part(bytes(one), media_type="image/jls") for one in (lossless, lossy)]
    assert built(*parts, **UNSIGNED)[0] == "81"
    assert built(parts[0], parts[0], **UNSIGNED)[0] == "80"


def test_progressive_jpeg_is_refused() -> None:
    progressive = frame("SC_rgb_jpeg_dcmtk.dcm").replace(b"\xff\xc0", b"\xff\xc2", 1)
    error = refused(bulk_part(progressive, media_type="image/jpeg"))
    assert error.reason == FailureReason.TRANSFER_SYNTAX


def high_throughput(codestream: bytes) -> bytes:
    """Return a codestream that says of itself that it is high throughput: the header is what counts here."""
    size = 4 + struct.unpack(">H", codestream[4:6])[0]
    return codestream[:size] + b"\xff\x50\x00\x08\x00\x02\x00\x00\x00\x00" + codestream[size:]


@pytest.mark.parametrize(
    ("name", "wish", "expected"),
    [
        ("MR_small_jp2klossless.dcm", "", "201"),
        ("MR_small_jp2klossless.dcm", "202", "202"),
        ("MR_small_jp2klossless.dcm", "203", "203"),
        ("JPEG2000.dcm", "", "203"),
    ],
)
def test_high_throughput_jpeg_2000_is_told_apart(name: str, wish: str, expected: str) -> None:
    codestream = high_throughput(frame(name))
    wishes = {"transfer_syntax": PREFIX + wish} if wish else {}
    assert built(bulk_part(codestream, "here", "image/jphc", **wishes))[0] == expected
    error = refused(bulk_part(codestream, media_type="image/jp2"))
    assert error.reason == FailureReason.CANNOT_UNDERSTAND


def test_a_codestream_is_taken_out_of_its_file() -> None:
    codestream = frame("MR_small_jp2klossless.dcm")
    head = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 ") + box(b"jp2h", bytes(20))
    long = struct.pack(">I4sQ", 1, b"jp2c", 16 + len(codestream)) + codestream
    open_ended = struct.pack(">I4s", 0, b"jp2c") + codestream
    for wrapped in (box(b"jp2c", codestream) + box(b"xml ", b"1"), long, open_ended):
        syntax, found = built(bulk_part(head + wrapped, media_type="image/jp2"))
        assert (syntax, frames_of(found)[0]) == ("90", codestream)
    for damaged in (
        b"",
        box(b"jp2c", codestream) * 2,
        struct.pack(">I4s", 4, b"jp2c"),
        box(b"jp2c", codestream)[:-1],
    ):
        error = refused(bulk_part(head + damaged, media_type="image/jp2"))
        assert error.reason == FailureReason.CANNOT_UNDERSTAND


@pytest.mark.parametrize("wish", ["110", "111", "112"])
def test_jpeg_xl_is_what_its_sender_says(wish: str) -> None:
    for content in (b"\xff\x0a12", b"\0\0\0\x0cJXL \r\n\x87\n12"):
        part = bulk_part(content, "here", "image/jxl", transfer_syntax=PREFIX + wish)
        assert built(part, **description())[0] == wish
        assert built(bulk_part(content, media_type="image/jxl"), **description())[0] == "112"


def test_every_transfer_syntax_with_a_media_type_is_read() -> None:
    for end in (50, 57, 80, 91, 93, 100, "100.1", 102, "106.1", 108, 112, 203):
        assert media_type_of(f"{PREFIX}{end}") in FRAME_MEDIA
    assert media_type_of("1.2.840.10008.1.2.5") == "image/dicom-rle"
    assert media_type_of("1.2.840.10008.1.2.1") == ""


# Videos


def avc(profile: int = 100, level: int = 41) -> bytes:
    return box(b"avcC", bytes((1, profile, 0, level)))


def hevc(profile: int = 1, level: int = 153) -> bytes:
    return box(b"hvcC", bytes((1, profile)) + bytes(10) + bytes((level,)))


FRAMES = {"t00280008": {"vr": "IS", "Value": [25]}}


@pytest.mark.parametrize(
    ("content", "media_type", "wish", "expected"),
    [
        (mpeg_2_stream(level=8), "video/mpeg", "", "100"),
        (mpeg_2_stream(level=8), "video/mpeg", "100.1", "100.1"),
        (mpeg_2_stream(level=4), "video/mpeg2", "", "101"),
        (bytes(500) + mpeg_2_stream(level=6), "video/mpeg", "", "101"),
        (mpeg_4_file(b"avc1", avc()), "video/mp4", "", "102"),
        (mpeg_4_file(b"avc1", avc()), "video/mp4", "103", "103"),
        (mpeg_4_file(b"avc1", avc(level=42)), "video/mp4", "", "104"),
        (mpeg_4_file(b"avc1", avc(level=42)), "video/mp4", "105", "105"),
        (mpeg_4_file(b"avc1", avc(profile=128)), "video/mp4", "", "106"),
        (mpeg_4_file(b"hvc1", hevc()), "video/h265", "", "107"),
        (mpeg_4_file(b"hev1", hevc(profile=2)), "video/mp4", "", "108"),
        (b"\0\0\0\1\x67\x64\0\x28" + bytes(9), "video/mp4", "", "102"),
        (b"\0\0\1\x67\x4d\0\x2a" + bytes(9), "video/mp4", "", "104"),
        (b"\0\0\0\1\x42\1\1\1" + bytes(4) + b"\x90\0\0\3\0\0\3\0\x99" + bytes(9), "video/h265", "", "107"),
    ],
)
def test_profile_and_level_tell_the_transfer_syntax(
    content: bytes, media_type: str, wish: str, expected: str
) -> None:
    wishes = {"transfer_syntax": PREFIX + wish} if wish else {}
    said = description(480, 640) | FRAMES | {"t00280002": {"vr": "US", "Value": [3]}}
    syntax, found = built(bulk_part(content, "here", media_type, **wishes), **said)
    assert syntax == expected
    assert found.PixelData[:8] == b"\xfe\xff\0\xe0\0\0\0\0"  # no offsets: all frames are one stream
    assert content in found.PixelData


def test_a_file_of_mpeg_4_describes_its_pixels() -> None:
    _, found = built(
        bulk_part(mpeg_4_file(b"avc1", avc(), rows=1080, columns=1920, frames=77), media_type="video/mp4")
    )
    assert (found.Rows, found.Columns, found.NumberOfFrames) == (1080, 1920, 77)
    assert (found.SamplesPerPixel, found.PhotometricInterpretation) == (3, "YBR_PARTIAL_420")
    assert (found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation) == (8, 8, 7, 0)
    _, deep = built(bulk_part(mpeg_4_file(b"hvc1", hevc(profile=2)), media_type="video/h265"))
    assert (deep.BitsAllocated, deep.BitsStored, deep.HighBit) == (16, 10, 9)


def test_a_stream_of_mpeg_2_describes_its_pixels_but_for_their_number() -> None:
    part = bulk_part(mpeg_2_stream(rows=1080, columns=1920), media_type="video/mpeg")
    _, found = built(part, **FRAMES)
    assert (found.Rows, found.Columns, found.NumberOfFrames) == (1080, 1920, 25)
    error = refused(part)
    assert error.reason == FailureReason.DOES_NOT_MATCH
    assert "Number of Frames" in error.words


@pytest.mark.parametrize(
    ("content", "media_type", "reason"),
    [
        (mpeg_4_file(b"avc1", avc(level=51)), "video/mp4", FailureReason.TRANSFER_SYNTAX),
        (mpeg_4_file(b"avc1", avc(profile=110)), "video/mp4", FailureReason.TRANSFER_SYNTAX),
        (mpeg_4_file(b"mp4v", b""), "video/mp4", FailureReason.TRANSFER_SYNTAX),
        (mpeg_4_file(b"hvc1", hevc(profile=4)), "video/h265", FailureReason.TRANSFER_SYNTAX),
        (mpeg_4_file(b"hvc1", hevc(level=156)), "video/h265", FailureReason.TRANSFER_SYNTAX),
        (b"\0\0\1\xb3" + bytes(200), "video/mpeg", FailureReason.TRANSFER_SYNTAX),
        (mpeg_2_stream(level=2), "video/mpeg", FailureReason.TRANSFER_SYNTAX),
        (mpeg_4_file(b"avc1", b""), "video/mp4", FailureReason.CANNOT_UNDERSTAND),
        (mpeg_4_file(b"avc1", box(b"avcC", b"1")), "video/mp4", FailureReason.CANNOT_UNDERSTAND),
        (mpeg_4_file(b"avc1", avc())[:-20], "video/mp4", FailureReason.CANNOT_UNDERSTAND),
        (box(b"ftyp", b"isom") + box(b"free") * 5000, "video/mp4", FailureReason.CANNOT_UNDERSTAND),
        (b"", "video/mp4", FailureReason.CANNOT_UNDERSTAND),
        (b"", "video/mpeg", FailureReason.CANNOT_UNDERSTAND),
        (b"", "image/jpeg", FailureReason.CANNOT_UNDERSTAND),
        (b"\xff\xd8" + b"\xff\xe0\0\2" * 5000, "image/jpeg", FailureReason.CANNOT_UNDERSTAND),
        (b"\xff\xd8" + b"\xff" * 50000, "image/jpeg", FailureReason.CANNOT_UNDERSTAND),
        (b"\xff\xd8\xff\xe0\0\1", "image/jpeg", FailureReason.CANNOT_UNDERSTAND),
        (b"\xff\xd8\xff\xda\0\10\0\0\0\0\0\0\0\0", "image/jpeg", FailureReason.CANNOT_UNDERSTAND),
        (struct.pack("<16I", 1, 64, *[0] * 14), "image/dicom-rle", FailureReason.CANNOT_UNDERSTAND),
        (struct.pack("<16I", 16, 64, *[0] * 14) + b"1", "image/dicom-rle", FailureReason.CANNOT_UNDERSTAND),
        (
            struct.pack("<16I", 2, 64, 9**9, *[0] * 13) + b"1",
            "image/dicom-rle",
            FailureReason.CANNOT_UNDERSTAND,
        ),
    ],
)
def test_bad_bitstreams_are_refused(content: bytes, media_type: str, reason: FailureReason) -> None:
    assert refused(bulk_part(content, media_type=media_type), **FRAMES).reason == reason


def test_a_video_that_is_too_long_for_a_fragment_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_data, "FRAGMENT_BYTES_MAX", 1000)
    content = mpeg_2_stream() + bytes(range(256)) * 9
    syntax, found = built(bulk_part(content, media_type="video/mpeg"), **FRAMES)
    assert syntax == "100.1"
    lengths, at = [], 8
    while found.PixelData[at : at + 4] == b"\xfe\xff\0\xe0":
        lengths.append(int.from_bytes(found.PixelData[at + 4 : at + 8], "little"))
        at += 8 + lengths[-1]
    assert len(lengths) > 4
    assert sum(lengths) - len(content) in {0, 1}
    error = refused(bulk_part(frame("MR_small_jp2klossless.dcm"), media_type="image/jp2"))
    assert error.reason == FailureReason.TRANSFER_SYNTAX


@pytest.mark.slow
def test_memory_does_not_grow_with_a_video() -> None:
    part = spooled(mpeg_2_stream(), 300 * 1024 * 1024)
    metadata = read_json(json.dumps([identifiers(**PIXELS, **FRAMES)]))
    tracemalloc.start()
    one = build_instance(metadata, BulkParts([part]))
    size = sum(len(piece) for piece in one.pieces)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    part.file.close()
    assert size > part.length
    assert most < 4 * video.SEARCHED_BYTES_MAX


_SEEDS = (
    ("image/jpeg", "SC_rgb_jpeg_dcmtk.dcm"),
    ("image/jls", "MR_small_jpeg_ls_lossless.dcm"),
    ("image/jp2", "MR_small_jp2klossless.dcm"),
    ("image/dicom-rle", "MR_small_RLE.dcm"),
)


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(
    st.sampled_from(_SEEDS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 500),
)
def test_no_damage_does_more_than_be_refused(
    seed: tuple[str, str], damage: list[tuple[int, int]], length: int
) -> None:
    media_type, name = seed
    content = bytearray(frame(name)[:length] if length else frame(name))
    for at, byte in damage:
        if at < len(content):
            content[at] = byte
    try:
        found = FRAME_MEDIA[media_type].read(bulk_part(bytes(content)))
    except BuildError as error:
        assert error.reason in {FailureReason.CANNOT_UNDERSTAND, FailureReason.TRANSFER_SYNTAX}  # noqa: PT017 - either may be
    else:
        assert found.length <= len(content)


@pytest.mark.slow
@settings(max_examples=examples(300), deadline=None)
@given(
    st.sampled_from(["video/mp4", "video/h265", "video/mpeg"]),
    st.sampled_from([mpeg_4_file(b"avc1", avc()), mpeg_4_file(b"hvc1", hevc()), mpeg_2_stream()]),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=6),
)
def test_no_damaged_video_does_more_than_be_refused(
    media_type: str, seed: bytes, damage: list[tuple[int, int]]
) -> None:
    content = bytearray(seed)
    for at, byte in damage:
        if at < len(content):
            content[at] = byte
    try:
        found = FRAME_MEDIA[media_type].read(bulk_part(bytes(content)))
    except BuildError as error:
        assert error.reason in {FailureReason.CANNOT_UNDERSTAND, FailureReason.TRANSFER_SYNTAX}  # noqa: PT017 - either may be
    else:
        assert found.transfer_syntaxes
