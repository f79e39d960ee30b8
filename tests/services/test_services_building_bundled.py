"""Bundled files taken apart into metadata and bulk data, and built again: nothing may be lost on the way."""

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.part10 import read_file_meta
from support.bundled_files import FOLDER, bundled_files
from support.metadata_requests import (
    READERS,
    build,
    bulk_part,
    frames_of,
    identifiers,
    part10,
    read_json,
    rebuilt,
)
from support.peers import run_peer

FORMS = tuple(READERS)
CHARACTER_SETS = FOLDER.parent / "charset_files"
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_OF_NO_STANDARD = (0x0001, 0x0001)
_DAMAGED = {"MR_truncated.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"}
"""Pixel data that are cut off, and a codestream whose header was written over."""
_WITHOUT_WORDS = {"badVR.dcm"}
"""With a value that pydicom itself cannot put into words."""
_IN_A_FILE_FORMAT = {"GDCMJ2K_TextGBR.dcm"}
_LEFT_OUT = {"00080005", "00080001", "7FE00010", "7FE00001", "7FE00002"}


def _is_whole(path: Path) -> bool:
    """Look at little of a file: each process of the tests looks at all of them before its first test."""
    source = dcmread(path, stop_before_pixels=True, specific_tags=[*_NEEDED, _OF_NO_STANDARD])
    return all(source.get(keyword) for keyword in _NEEDED) and _OF_NO_STANDARD not in source


@cache
def _sources() -> tuple[str, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(
            file.name
            for file in bundled_files()
            if file.name not in _DAMAGED | _WITHOUT_WORDS and _is_whole(file.path)
        )


def _native(name: str) -> bool:
    return not dcmread(FOLDER / name, stop_before_pixels=True).file_meta.TransferSyntaxUID.is_encapsulated


def _plain(source: Dataset) -> Any:
    """Return the elements of an instance in a form that can be compared."""
    return _comparable(source.to_json_dict(1 << 40))


def _comparable(elements: Any) -> Any:
    if elements == {"vr": "PN", "Value": [{"Alphabetic": "^^^^"}]}:
        return {"vr": "PN"}  # XML has no way to write a name without parts
    if isinstance(elements, dict):
        return {
            name: _comparable(element)
            for name, element in elements.items()
            if name not in _LEFT_OUT and not (len(name) == 8 and name.endswith("0000"))
        }
    if isinstance(elements, list):
        return [_comparable(element) for element in elements]
    return elements.strip(" \0^") if isinstance(elements, str) else elements


def test_enough_files_are_tried() -> None:
    assert len(_sources()) > 60
    assert any(_native(name) for name in _sources())
    for name in _WITHOUT_WORDS:
        with pytest.raises(ValueError, match="invalid literal"):
            dcmread(FOLDER / name).to_json_dict(1 << 40)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", _sources())
def test_an_instance_comes_out_as_it_went_in(name: str, form: str) -> None:
    source = dcmread(FOLDER / name)
    built, data_set, found = rebuilt(source, form)
    scanner = HeaderScanner(built.transfer_syntax_uid, frozenset({0x00080018}))
    scanner.feed(data_set)
    scan = scanner.finish()
    assert (scan.problem, scan.remarks) == (None, ())
    assert scan.values[0x00080018].rstrip(b"\0").decode() == built.sop_instance_uid == source.SOPInstanceUID
    assert built.study_instance_uid == source.StudyInstanceUID
    assert _plain(found) == _plain(source)
    syntax = source.file_meta.TransferSyntaxUID
    if "PixelData" not in source:
        assert "PixelData" not in found
    elif syntax.is_encapsulated:
        assert built.transfer_syntax_uid == syntax
        for frame, original in zip(frames_of(found), frames_of(source), strict=True):
            assert original.rstrip(b"\0").endswith(frame.rstrip(b"\0"))
            assert len(frame) == len(original) or name in _IN_A_FILE_FORMAT
    elif syntax.is_little_endian:
        assert found.PixelData.rstrip(b"\0") == source.PixelData.rstrip(b"\0")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [path.name for path in sorted(CHARACTER_SETS.glob("*.dcm"))])
def test_letters_of_every_character_set_come_out_the_same(name: str, form: str) -> None:
    source = dcmread(CHARACTER_SETS / name)
    source.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    source.SOPInstanceUID, source.StudyInstanceUID, source.SeriesInstanceUID = "1.2.3.4", "1.2.3.5", "1.2.3.6"
    _, data_set, found = rebuilt(source, form)
    assert _plain(found) == _plain(source)
    assert data_set.isascii() or found.SpecificCharacterSet == "ISO_IR 192"


def test_a_built_file_has_a_head_that_is_read() -> None:
    built, data_set, _ = rebuilt(dcmread(FOLDER / "CT_small.dcm"), "json")
    whole = part10(built, data_set)
    meta = read_file_meta(whole, whole=True)
    assert (meta.media_storage_sop_class_uid, meta.transfer_syntax_uid) == (
        built.sop_class_uid,
        "1.2.840.10008.1.2.1",
    )
    assert whole[meta.length :] == data_set


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name",
    [
        "JPEG2000.dcm",
        "MR_small_jp2klossless.dcm",
        "693_J2KI.dcm",
        "MR_small_RLE.dcm",
        "SC_rgb_rle_2frame.dcm",
        "rtdose_rle.dcm",
        "SC_rgb_small_odd.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
    ],
)
def test_pixels_are_decoded_from_what_is_built(name: str, form: str) -> None:
    source = dcmread(FOLDER / name)
    _, _, found = rebuilt(source, form)
    assert found.pixel_array.tobytes() == source.pixel_array.tobytes()


@pytest.mark.slow
@pytest.mark.peer("dcmdjpeg")
@pytest.mark.peer("dcmdjpls")
@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("JPEG-lossy.dcm", "dcmdjpeg"),
        ("JPGExtended.dcm", "dcmdjpeg"),
        ("SC_rgb_jpeg_gdcm.dcm", "dcmdjpeg"),
        ("SC_rgb_jpeg_dcmtk.dcm", "dcmdjpeg"),
        ("MR_small_jpeg_ls_lossless.dcm", "dcmdjpls"),
    ],
)
def test_dcmtk_decodes_what_is_built(name: str, program: str, tmp_path: Path) -> None:
    built, data_set, _ = rebuilt(dcmread(FOLDER / name), "json")
    (tmp_path / "built.dcm").write_bytes(part10(built, data_set))
    for file, out in ((tmp_path / "built.dcm", "a.dcm"), (FOLDER / name, "b.dcm")):
        run = run_peer(program, str(file), str(tmp_path / out))
        assert run.returncode == 0, run.stdout
    assert dcmread(tmp_path / "a.dcm").PixelData == dcmread(tmp_path / "b.dcm").PixelData


_VERIFIED = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_RLE.dcm",
    "JPEG-lossy.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_rle_2frame.dcm",
    "reportsi.dcm",
    "test-SR.dcm",
    "rtdose.dcm",
    "rtplan.dcm",
    "waveform_ecg.dcm",
    "liver_1frame.dcm",
    "examples_palette.dcm",
]


@pytest.mark.slow
@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", _VERIFIED)
def test_dciodvfy_finds_no_more_than_in_the_source(name: str, form: str, tmp_path: Path) -> None:
    source = dcmread(FOLDER / name)
    built, data_set, _ = rebuilt(source, form)
    (tmp_path / "built.dcm").write_bytes(part10(built, data_set))
    assert _complaints(tmp_path / "built.dcm") <= _complaints(FOLDER / name)


_DOCUMENT: dict[str, Any] = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
    "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.104.1"]},
    "00080020": {"vr": "DA", "Value": ["20260101"]},
    "00080023": {"vr": "DA", "Value": ["20260101"]},
    "0008002A": {"vr": "DT", "Value": ["20260101120000"]},
    "00080030": {"vr": "TM", "Value": ["120000"]},
    "00080033": {"vr": "TM", "Value": ["120000"]},
    "00080050": {"vr": "SH"},
    "00080060": {"vr": "CS", "Value": ["DOC"]},
    "00080064": {"vr": "CS", "Value": ["SD"]},
    "00080070": {"vr": "LO"},
    "00080090": {"vr": "PN"},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Ünïcode^Test"}]},
    "00100020": {"vr": "LO", "Value": ["1"]},
    "00100030": {"vr": "DA"},
    "00100040": {"vr": "CS"},
    "00200010": {"vr": "SH"},
    "00200011": {"vr": "IS", "Value": [1]},
    "00200013": {"vr": "IS", "Value": [1]},
    "00280301": {"vr": "CS", "Value": ["YES"]},
    "0040A043": {"vr": "SQ"},
    "00420010": {"vr": "ST", "Value": ["A document"]},
    "00420011": {"vr": "OB", "BulkDataURI": "document"},
}


@pytest.mark.slow
@pytest.mark.peer("dciodvfy")
def test_dciodvfy_finds_no_error_in_a_document(tmp_path: Path) -> None:
    elements = identifiers() | _DOCUMENT
    part = bulk_part(b"%PDF-1.4", "document", "application/pdf")
    built, data_set = build(read_json(json.dumps([elements])), [part])
    (tmp_path / "built.dcm").write_bytes(part10(built, data_set))
    assert _complaints(tmp_path / "built.dcm") == set()


@pytest.mark.slow
@pytest.mark.peer("dciodvfy")
def test_dciodvfy_does_look(tmp_path: Path) -> None:
    _, _, found = rebuilt(dcmread(FOLDER / "CT_small.dcm"), "json")
    del found.StudyInstanceUID
    found.save_as(tmp_path / "damaged.dcm")
    assert _complaints(tmp_path / "damaged.dcm") - _complaints(FOLDER / "CT_small.dcm")


def _complaints(file: Path) -> set[str]:
    lines = run_peer("dciodvfy", str(file)).stdout.splitlines()
    assert lines
    return {line for line in lines if line.startswith("Error")}
