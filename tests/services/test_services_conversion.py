"""The outgoing copy: the same values in another encoding, held against pydicom and DCMTK."""

import io
import os
import re
import struct
import sys
import tomllib
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder, pixel_array

from stowkeeper.dicom.part10 import PREFIX, FileMeta, Part10Error, encode_file_meta, read_file_meta
from stowkeeper.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000,
    JPEG_BASELINE_8_BIT,
    JPEG_LOSSLESS_SV1,
    RLE_LOSSLESS,
)
from stowkeeper.services import conversion
from stowkeeper.services.conversion import CONVERSION_TARGETS, can_convert, conversion_obstacle, convert
from stowkeeper.services.limits import CONVERSION_PIECE_BYTES
from stowkeeper.services.reencoding import ConversionError
from support.examples import examples
from support.instances import encode_element
from support.peers import run_peer

ILE, ELE = IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN
EBE, DEFLATED = EXPLICIT_VR_BIG_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
DCMCONV_OPTIONS = {ILE: "+ti", ELE: "+te", EBE: "+tb", DEFLATED: "+td"}
CUT_OFF = frozenset({"MR_truncated.dcm", "rtplan_truncated.dcm"})
UNDEFINED = 0xFFFFFFFF


def converted(data_set: bytes, source: str, target: str) -> bytes:
    pieces = list(convert(io.BytesIO(data_set), 0, source, target))
    assert all(len(piece) <= 2 * CONVERSION_PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def explicit(tag: int, vr: bytes, value: bytes, order: str = "<") -> bytes:
    """Encode an element as it stands, whatever its length."""
    head = struct.pack(order + "HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in b"OB OW OF OD OL OV SQ UN UC UR UT SV UV".split():
        return head + struct.pack(order + "HI", 0, len(value)) + value
    return head + struct.pack(order + "H", len(value)) + value


def sequence(tag: int, *items: bytes, order: str = "<", vr: bytes = b"SQ") -> bytes:
    """Encode a sequence as the product does: everything of undefined length. Without VR if it is empty."""
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) + (vr + b"\0\0" if vr else b"")
    body = b"".join(
        struct.pack(order + "HHI", 0xFFFE, 0xE000, UNDEFINED)
        + item
        + struct.pack(order + "HHI", 0xFFFE, 0xE00D, 0)
        for item in items
    )
    return head + struct.pack(order + "I", UNDEFINED) + body + struct.pack(order + "HHI", 0xFFFE, 0xE0DD, 0)


# Values


@pytest.mark.parametrize(
    ("vr", "little", "big"),
    [
        (b"US", "0102 0304", "0201 0403"),
        (b"SS", "0102", "0201"),
        (b"AT", "08001800", "00080018"),
        (b"OW", "0102 0304", "0201 0403"),
        (b"UL", "01020304 05060708", "04030201 08070605"),
        (b"SL", "01020304", "04030201"),
        (b"FL", "01020304", "04030201"),
        (b"OF", "01020304", "04030201"),
        (b"OL", "01020304", "04030201"),
        (b"FD", "0102030405060708", "0807060504030201"),
        (b"OD", "0102030405060708", "0807060504030201"),
        (b"OV", "0102030405060708", "0807060504030201"),
        (b"SV", "0102030405060708", "0807060504030201"),
        (b"UV", "0102030405060708", "0807060504030201"),
        (b"OB", "01020304", "01020304"),
        (b"UN", "01020304", "01020304"),
        (b"LO", "41424344", "41424344"),
        (b"US", "0102 03 20", "0201 2003"),
    ],
)
def test_numbers_are_turned_around_and_nothing_else(vr: bytes, little: str, big: str) -> None:
    in_little = explicit(0x00111001, vr, bytes.fromhex(little))
    in_big = explicit(0x00111001, vr, bytes.fromhex(big), ">")
    assert converted(in_little, ELE, EBE) == in_big
    assert converted(in_big, EBE, ELE) == in_little


@given(
    st.lists(
        st.tuples(
            st.integers(0x00111001, 0x001110FF),
            st.sampled_from(b"US UL FD OW OB UN LO UT AT SV DS".split()),
            st.binary(max_size=40),
        ),
        max_size=8,
    ),
    st.booleans(),
)
@settings(max_examples=examples(100), deadline=None)
def test_a_data_set_comes_back_as_it_was(elements: list[tuple[int, bytes, bytes]], in_item: bool) -> None:
    data_set = b"".join(explicit(tag, vr, value + b" " * (len(value) % 2)) for tag, vr, value in elements)
    if in_item:
        data_set = sequence(0x00400100, data_set, b"", data_set)
    for target in (EBE, DEFLATED):
        there = converted(data_set, ELE, target)
        assert len(there) % 2 == 0
        assert converted(there, target, ELE) == data_set


def test_a_long_value_is_never_held_whole() -> None:
    pixels = bytes(range(256)) * 4000
    pieces = list(convert(io.BytesIO(explicit(0x7FE00010, b"OW", pixels)), 0, ELE, EBE))
    assert max(map(len, pieces)) <= CONVERSION_PIECE_BYTES
    assert np.array_equal(np.frombuffer(b"".join(pieces)[12:], ">u2"), np.frombuffer(pixels, "<u2"))


def test_group_lengths_and_length_to_end_are_left_out() -> None:
    elements = [
        (0x00080000, b"UL", b"\x10\0\0\0"),
        (0x00080001, b"UL", b"\x20\0\0\0"),
        (0x00080060, b"CS", b"CT"),
        (0x00100000, b"UL", b"\x10\0\0\0"),
    ]
    data_set = b"".join(encode_element(*element) for element in elements)
    assert converted(data_set, ELE, ILE) == implicit(0x00080060, b"CT")


def test_odd_values_are_padded_as_their_vr_demands() -> None:
    data_set = (
        explicit(0x00080018, b"UI", b"1.2")
        + explicit(0x00080060, b"CS", b"C")
        + explicit(0x00111001, b"OB", b"1")
    )
    padded = implicit(0x00080018, b"1.2\0") + implicit(0x00080060, b"C ") + implicit(0x00111001, b"1\0")
    assert converted(data_set, ELE, ILE) == padded


def test_zeros_behind_the_last_element_are_no_elements() -> None:
    assert converted(implicit(0x00080060, b"CT") + bytes(6), ILE, ELE) == explicit(0x00080060, b"CS", b"CT")


# VRs that the source does not tell


@pytest.mark.parametrize(
    ("before", "tag", "value", "vr"),
    [
        (b"", 0x00080060, b"CT", b"CS"),
        (b"", 0x00280106, b"\1\0", b"US"),
        (implicit(0x00280103, b"\1\0"), 0x00280106, b"\1\0", b"SS"),
        (implicit(0x00280100, b"\x08\0"), 0x7FE00010, b"1234", b"OB"),
        (implicit(0x00280100, b"\x10\0"), 0x7FE00010, b"1234", b"OW"),
        (b"", 0x7FE00010, b"1234", b"OW"),
        (b"", 0x60003000, b"1234", b"OW"),
        (b"", 0x54001010, b"1234", b"OW"),
        (b"", 0x00283006, b"\1\0", b"US"),
        (b"", 0x00283006, b"1234", b"OW"),
        (b"", 0x00110010, b"ACME", b"LO"),
        (b"", 0x00111001, b"1234", b"UN"),
        (implicit(0x00110010, b"ACME"), 0x00111001, b"1234", b"UN"),
        (implicit(0x00190010, b"GEMS_ACQU_01"), 0x00191002, b"1234", b"SL"),
        (implicit(0x00190010, b"GEMS_ACQU_01" + b" " * 60), 0x00191002, b"1234", b"UN"),
        (b"", 0x00099999, b"1234", b"UN"),
        (b"", 0x4FFE0002, b"1234", b"UN"),
        (b"", 0x00400100, b"no item!", b"UN"),
    ],
)
def test_the_vr_of_an_element_that_came_without_one(before: bytes, tag: int, value: bytes, vr: bytes) -> None:
    explicit_one = converted(before + implicit(tag, value), ILE, ELE)
    assert explicit_one.endswith(explicit(tag, vr, value))
    assert converted(explicit_one, ELE, ILE) == before + implicit(tag, value)


def test_what_an_item_inherits_is_what_surrounds_it() -> None:
    signed = implicit(0x00280103, b"\1\0")
    item = implicit(0x00280106, b"\1\0")
    data_set = signed + implicit(0x00400100, implicit(0xFFFEE000, item)) + implicit(0x00280106, b"\2\0")
    assert converted(data_set, ILE, ELE) == (
        explicit(0x00280103, b"US", b"\1\0")
        + sequence(0x00400100, explicit(0x00280106, b"SS", b"\1\0"))
        + explicit(0x00280106, b"SS", b"\2\0")
    )


@pytest.mark.parametrize("target", [ELE, EBE])
def test_a_value_too_long_for_its_vr_becomes_un_in_little_endian(target: str) -> None:
    value = struct.pack("<40000H", *range(40000))
    order = "<" if target == ELE else ">"
    assert converted(implicit(0x00281101, value), ILE, target) == explicit(0x00281101, b"UN", value, order)


# Sequences


@pytest.mark.parametrize("length", ["defined", "undefined"])
@pytest.mark.parametrize(("source", "target"), [(ELE, ILE), (ELE, EBE), (EBE, ELE), (EBE, ILE)])
def test_sequences_get_undefined_lengths(length: str, source: str, target: str) -> None:
    def inner(uid: str) -> bytes:
        if uid == ILE:
            return implicit(0x00080100, b"CODE") + implicit(0x00280010, b"\1\0")
        order = ">" if uid == EBE else "<"
        return explicit(0x00080100, b"SH", b"CODE", order) + explicit(
            0x00280010, b"US", struct.pack(order + "H", 1), order
        )

    order = ">" if source == EBE else "<"
    if length == "defined":
        item = struct.pack(order + "HHI", 0xFFFE, 0xE000, len(inner(source))) + inner(source)
        given_one = explicit(0x00400100, b"SQ", item * 2, order)
    else:
        given_one = sequence(0x00400100, inner(source), inner(source), order=order)
    result = converted(given_one, source, target)
    vr = b"" if target == ILE else b"SQ"
    expected = sequence(0x00400100, inner(target), inner(target), order=">" if target == EBE else "<", vr=vr)
    assert result == expected
    assert converted(explicit(0x00400100, b"SQ", b"", order), source, target) == sequence(
        0x00400100, order=">" if target == EBE else "<", vr=vr
    )


@pytest.mark.parametrize(
    "item",
    [implicit(0x00280010, b"\1\0"), explicit(0x00280010, b"US", b"\1\0")],
    ids=["implicit", "explicit"],
)
def test_a_sequence_sent_as_unknown_is_read_either_way(item: bytes) -> None:
    given_one = sequence(0x00111001, item, vr=b"UN")
    expected = sequence(0x00111001, explicit(0x00280010, b"US", b"\0\1", ">"), order=">")
    assert converted(given_one, ELE, EBE) == expected


def test_a_sequence_sent_as_unknown_in_big_endian_is_read_either_way() -> None:
    expected = sequence(0x00111001, explicit(0x00280010, b"US", b"\1\0"))
    little = (
        explicit(0x00111001, b"UN", b"", ">")[:8]
        + b"\xff" * 4
        + sequence(0, implicit(0x00280010, b"\1\0"), vr=b"")[8:]
    )
    assert converted(little, EBE, ELE) == expected
    big = sequence(0x00111001, explicit(0x00280010, b"US", b"\0\1", ">"), order=">", vr=b"UN")
    assert converted(big, EBE, ELE) == expected


def test_an_item_in_implicit_vr_within_explicit_vr_is_read_as_such() -> None:
    given_one = sequence(0x00400100, implicit(0x00280010, b"\1\0"), b"")
    assert converted(given_one, ELE, ELE) == sequence(0x00400100, explicit(0x00280010, b"US", b"\1\0"), b"")


# What cannot be read


@pytest.mark.parametrize(
    ("data_set", "source", "words"),
    [
        (explicit(0x00080060, b"CS", b"CT")[:-1], ELE, r"ends inside \(0008,0060\)"),
        (explicit(0x00080060, b"CS", b"CT") + b"\x10", ELE, "ends inside"),
        (explicit(0x00080060, b"c1", b"CT"), ELE, r"VR of \(0008,0060\)"),
        (sequence(0x00400100, b"")[:-8], ELE, "ends inside"),
        (explicit(0x00400100, b"SQ", implicit(0x00080060, b"CTCT")), ELE, "where an item belongs"),
        (implicit(0xFFFEE000, b""), ILE, "where an element belongs"),
        (implicit(0xFFFEE00D, b""), ILE, "where an element belongs"),
        (implicit(0xFFFEE0DD, b""), ILE, "where an element belongs"),
        (implicit(0x00400100, implicit(0xFFFEE000, b"12345678", 800)), ILE, "reaches beyond what it is in"),
        (
            implicit(0x00400100, implicit(0xFFFEE000, implicit(0x00080060, b"CT", 200))),
            ILE,
            "beyond the item",
        ),
        (explicit(0x7FE00010, b"OB", b"")[:-4] + b"\xff" * 4, ELE, "as only pixel fragments have"),
        (implicit(0x00080000, b"", UNDEFINED), ILE, "has no length"),
        (zlib.compress(b"no raw stream"), DEFLATED, "deflate stream is damaged"),
        (converted(explicit(0x00080060, b"CS", b"CT"), ELE, DEFLATED)[:4], DEFLATED, "ends before"),
    ],
)
def test_a_data_set_that_does_not_parse_is_not_converted(data_set: bytes, source: str, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        converted(data_set, source, ELE if source != ELE else ILE)


def test_nesting_has_a_bound() -> None:
    data_set = b""
    for _ in range(64):
        data_set = sequence(0x00400100, data_set)
    assert converted(data_set, ELE, ELE) == data_set
    for _ in range(10):
        data_set = sequence(0x00400100, data_set)
    with pytest.raises(ConversionError, match="more than 64 sequences"):
        converted(data_set, ELE, ILE)


def test_inflating_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "INFLATED_BYTES_MAX", 1000)
    data_set = explicit(0x00111001, b"OB", bytes(2000))
    with pytest.raises(ConversionError, match="inflates to more than 1000 bytes"):
        converted(converted(data_set, ELE, DEFLATED), DEFLATED, ELE)


# What is possible


@pytest.mark.parametrize("source", CONVERSION_TARGETS)
def test_the_uncompressed_can_be_converted(source: str) -> None:
    assert can_convert(source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (JPEG_BASELINE_8_BIT, "compressed with loss"),
        (JPEG_2000, "may have been compressed with loss"),
        (GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA, "cannot be converted"),
        ("1.2.3.4", "is not known"),
        ("1.2.840.10008.1.2.4.110", "no decoder for JPEG XL Lossless"),
    ],
)
def test_what_cannot_be_converted_says_why(source: str, words: str) -> None:
    assert words in (conversion_obstacle(source) or "")
    with pytest.raises(ConversionError, match=words):
        converted(b"", source, ELE)


def test_a_missing_decoder_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    rle = f"`{sys.executable} -m pip install numpy pylibjpeg pylibjpeg-rle` brings one"
    for uid, words in ((RLE_LOSSLESS, rle), (JPEG_LOSSLESS_SV1, "pylibjpeg-libjpeg")):
        decoder = get_decoder(uid)
        unavailable = dict.fromkeys(decoder._available, ("pylibjpeg>=2.0", "pylibjpeg-libjpeg>=2.1"))
        monkeypatch.setattr(decoder, "_available", {})
        monkeypatch.setattr(decoder, "_unavailable", {**decoder._unavailable, **unavailable})
        conversion._missing_decoder.cache_clear()
        assert words in (conversion_obstacle(uid) or "")
    conversion._missing_decoder.cache_clear()


def test_what_to_install_is_what_the_extra_brings() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    extra = {
        re.split(r"[><=]", wanted)[0] for wanted in project["project"]["optional-dependencies"]["codecs"]
    }
    named = {package for packages in conversion._DECODER_PACKAGES.values() for package in packages.split()}
    assert named == extra


# Real files


@cache
def bundled_files() -> tuple[tuple[Path, FileMeta], ...]:
    found = []
    for name in sorted(get_testdata_files()):
        path = Path(name)
        try:
            found.append((path, read_file_meta(path.read_bytes(), whole=True, preamble_required=False)))
        except (Part10Error, OSError):
            continue
    return tuple(found)


def uncompressed_files() -> Iterator[tuple[Path, FileMeta]]:
    for path, meta in bundled_files():
        is_instance = "DICOMDIR" not in path.name and path.name not in CUT_OFF
        if meta.transfer_syntax_uid in CONVERSION_TARGETS and is_instance:
            yield path, meta


def write_converted(path: Path, meta: FileMeta, target: str, copy: Path) -> None:
    with path.open("rb") as file:
        data_set = b"".join(convert(file, meta.length, meta.transfer_syntax_uid, target))
    assert len(data_set) % 2 == 0
    elements = {tag: (vr, value) for tag, vr, value in meta.elements if tag != 0x00020000}
    elements[0x00020010] = (b"UI", target.encode())
    head = encode_file_meta((tag, vr, value) for tag, (vr, value) in sorted(elements.items()))
    copy.write_bytes(PREFIX + head + data_set)


def pixels(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]] | str":
    """Return the raw samples, or which error pydicom meets in them; the same file must meet the same one."""
    try:
        return cast("np.ndarray[tuple[int, ...], np.dtype[np.generic]]", pixel_array(dcmread(path), raw=True))
    except Exception as error:  # noqa: BLE001 - which of its many errors is compared
        return type(error).__name__


def same(one: object, other: object) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return np.array_equal(
        cast("np.ndarray[tuple[int, ...], np.dtype[np.generic]]", one),
        cast("np.ndarray[tuple[int, ...], np.dtype[np.generic]]", other),
    )


def identifiers(path: Path) -> tuple[object, ...]:
    data_set: Dataset = dcmread(path, stop_before_pixels=True)
    return tuple(
        str(data_set.get(tag)) for tag in (0x00080016, 0x00080018, 0x00100010, 0x0020000D, 0x0020000E)
    )


@pytest.mark.slow
@pytest.mark.peer("dcmconv")
def test_every_bundled_file_has_the_pixels_that_dcmtk_gives_it(tmp_path: Path) -> None:
    """To each target. Those of little endian have the same samples: DCMTK converts each file to one of them, to all in turn."""
    ours, theirs = tmp_path / "ours.dcm", tmp_path / "theirs.dcm"
    little = [target for target in CONVERSION_TARGETS if target != EBE]
    count = 0
    for (path, meta), one in zip(uncompressed_files(), cycle(little), strict=False):
        known = identifiers(path)
        for theirs_is, ours_are in ((one, little), (EBE, [EBE])):
            run = run_peer("dcmconv", DCMCONV_OPTIONS[theirs_is], str(path), str(theirs))
            assert run.returncode == 0, (path.name, run.stdout)
            wanted = pixels(theirs)
            assert identifiers(theirs) == known, path.name
            for target in ours_are:
                write_converted(path, meta, target, ours)
                assert same(pixels(ours), wanted), (path.name, target)
                assert identifiers(ours) == known, (path.name, target)
        count += 1
    assert count > 60


@pytest.mark.parametrize("target", CONVERSION_TARGETS)
@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "SC_rgb_small_odd.dcm",
        "SC_rgb_small_odd_big_endian.dcm",
        "image_dfl.dcm",
        "waveform_ecg.dcm",
    ],
)
def test_a_bundled_file_keeps_its_pixels(name: str, target: str, tmp_path: Path) -> None:
    path = Path(str(get_testdata_file(name)))
    copy = tmp_path / "copy.dcm"
    write_converted(path, read_file_meta(path.read_bytes(), whole=True), target, copy)
    assert same(pixels(copy), pixels(path))
    assert identifiers(copy) == identifiers(path)


@pytest.mark.parametrize("target", [ILE, EBE])
@pytest.mark.parametrize(
    ("name", "photometric_interpretation"),
    [
        ("MR_small_RLE.dcm", "MONOCHROME2"),
        ("SC_rgb_rle_2frame.dcm", "RGB"),
        ("SC_rgb_rle_16bit.dcm", "RGB"),
        ("MR_small_jp2klossless.dcm", "MONOCHROME2"),
        ("J2K_pixelrep_mismatch.dcm", "MONOCHROME2"),
        ("examples_jpeg2k.dcm", "RGB"),
    ],
)
def test_lossless_compression_is_undone(
    name: str, photometric_interpretation: str, target: str, tmp_path: Path
) -> None:
    path = Path(str(get_testdata_file(name)))
    meta = read_file_meta(path.read_bytes(), whole=True)
    obstacle = conversion_obstacle(meta.transfer_syntax_uid)
    if obstacle:
        pytest.skip(obstacle)
    copy = tmp_path / "copy.dcm"
    write_converted(path, meta, target, copy)
    original = pixel_array(dcmread(path), raw=True, correct_unused_bits=False)
    assert same(pixels(copy), original)
    assert identifiers(copy) == identifiers(path)
    data_set = dcmread(copy)
    assert data_set.PhotometricInterpretation == photometric_interpretation
    assert data_set.get("PlanarConfiguration", 0) == 0
    assert "ExtendedOffsetTable" not in data_set


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("MR_small_RLE.dcm", b"\x28\0\x10\0US", b"\x28\0\x0f\0US", r"no \(0028,0010\)"),
        ("MR_small_RLE.dcm", b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xfe\xff\xdd\xe1\0\0\0\0", "pixel"),
        ("MR_small_RLE.dcm", b"\x28\0\x10\0US\2\0\x40\0", b"\x28\0\x10\0US\2\0\x41\0", "cannot be decoded"),
    ],
)
def test_pixels_that_cannot_be_decoded_are_not_converted(
    name: str, old: bytes, new: bytes, words: str, tmp_path: Path
) -> None:
    original = Path(str(get_testdata_file(name))).read_bytes()
    assert old in original
    path = tmp_path / name
    path.write_bytes(original.replace(old, new))
    with pytest.raises(ConversionError, match=words):
        write_converted(path, read_file_meta(path.read_bytes(), whole=True), ILE, tmp_path / "copy.dcm")


def test_bits_beyond_those_stored_are_kept(tmp_path: Path) -> None:
    original = Path(str(get_testdata_file("MR_small_RLE.dcm"))).read_bytes()
    path, copy = tmp_path / "file.dcm", tmp_path / "copy.dcm"
    path.write_bytes(original.replace(b"\x28\0\x01\x01US\2\0\x10\0", b"\x28\0\x01\x01US\2\0\x04\0"))
    write_converted(path, read_file_meta(path.read_bytes(), whole=True), ILE, copy)
    samples = pixel_array(dcmread(path), raw=True, correct_unused_bits=False)
    assert samples.max() >= 16
    assert same(pixel_array(dcmread(copy), raw=True, correct_unused_bits=False), samples)


def test_the_words_of_a_decoder_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "DECODER_WORDS_LETTERS_MAX", 6)
    path = tmp_path / "file.dcm"
    original = Path(str(get_testdata_file("MR_small_RLE.dcm"))).read_bytes()
    path.write_bytes(original.replace(b"\x28\0\x10\0US\2\0\x40\0", b"\x28\0\x10\0US\2\0\x41\0"))
    with pytest.raises(ConversionError, match=r"cannot be decoded: .{6}\Z"):
        write_converted(path, read_file_meta(path.read_bytes(), whole=True), ILE, tmp_path / "copy.dcm")


def test_a_compressed_file_without_pixels_is_only_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "empty.dcm"
    elements = {
        0x00280002: (b"US", b"\1\0"),
        0x00280004: (b"CS", b"MONOCHROME2 "),
        0x00280010: (b"US", b"\1\0"),
        0x00280011: (b"US", b"\1\0"),
        0x00280100: (b"US", b"\x10\0"),
        0x00280101: (b"US", b"\x10\0"),
        0x00280103: (b"US", b"\0\0"),
    }
    data_set = b"".join(explicit(tag, vr, value) for tag, (vr, value) in elements.items())
    head = PREFIX + encode_file_meta([(0x00020010, b"UI", RLE_LOSSLESS.encode())])
    path.write_bytes(head + data_set)
    with path.open("rb") as file:
        result = b"".join(convert(cast("BinaryIO", file), len(head), RLE_LOSSLESS, ILE))
    assert result == b"".join(implicit(tag, value) for tag, (_, value) in elements.items())


def test_the_pixels_of_another_file_are_not_decoded_for_those_of_one(tmp_path: Path) -> None:
    original = Path(str(get_testdata_file("MR_small_RLE.dcm"))).read_bytes()
    path, other = tmp_path / "file.dcm", tmp_path / "other.dcm"
    path.write_bytes(original)
    other.write_bytes(original)
    with path.open("rb") as file:
        os.replace(other, path)
        with pytest.raises(ConversionError, match="another file has taken its place"):
            convert(file, read_file_meta(original, whole=True).length, RLE_LOSSLESS, ILE)


def test_a_decoder_is_not_asked_for_more_than_an_element_can_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_VALUE_LENGTH_MAX", 100)
    path = Path(str(get_testdata_file("MR_small_RLE.dcm")))
    with pytest.raises(ConversionError, match="when uncompressed"):
        write_converted(path, read_file_meta(path.read_bytes(), whole=True), ILE, tmp_path / "copy.dcm")
