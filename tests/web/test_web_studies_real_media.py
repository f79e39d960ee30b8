"""Images and videos that real encoders made, as bulk data of metadata: each becomes a file that others read."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragmented_frames
from pydicom.uid import UID

from stowkeeper.stow.native_model import NATIVE_MODEL_NAMESPACE
from stowkeeper.stow.reasons import FailureReason
from support.archive_server import instances
from support.metadata_requests import Request, as_xml, identifiers
from support.peers import run_peer
from support.real_media import COLUMNS, DECODED_BY_SENDER, FRAMES, MEDIA, ROWS, Make, Medium
from support.stow_bodies import closing, part
from support.web_server import web_client
from support.web_studies import Storing

JSON = "application/dicom+json"
XML = "application/dicom+xml"
VIDEO_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PIXEL_DATA = "7FE00010"
STAND_INS = {
    "92": "90",
    "107": "102",
    "108": "102",
    "110": "90",
    "111": "90",
    "112": "90",
    "201": "90",
    "202": "90",
    "203": "91",
}
"""For transfer syntaxes that dciodvfy does not know, and takes for uncompressed ones: the most like that it does know."""
FAMILY = "1.2.840.10008.1.2.4."
DECODED_BY_PYDICOM = {
    "jpeg-2000",
    "jpeg-2000-codestream",
    "jpeg-2000-lossy",
    "htj2k",
    "htj2k-rpcl",
    "htj2k-lossy",
}


@pytest.fixture
def storing(tmp_path: Path) -> Iterator[Storing]:
    with web_client(tmp_path / "archive") as (client, rig):
        yield Storing(client, rig)


def code(value: str, scheme: str, meaning: str) -> dict[str, Any]:
    """Return a coded term."""
    return {
        "00080100": {"vr": "SH", "Value": [value]},
        "00080102": {"vr": "SH", "Value": [scheme]},
        "00080104": {"vr": "LO", "Value": [meaning]},
    }


def metadata(medium: Medium | None = None) -> Dataset:
    """Return what is said of an image or video, as little of its pixels as its bitstream leaves to say."""
    said: dict[str, Any] = identifiers(
        t00080020={"vr": "DA", "Value": ["20260101"]},
        t00080023={"vr": "DA", "Value": ["20260101"]},
        t00080030={"vr": "TM", "Value": ["120000"]},
        t00080033={"vr": "TM", "Value": ["120000"]},
        t00080050={"vr": "SH"},
        t00080060={"vr": "CS", "Value": ["OT"]},
        t00080064={"vr": "CS", "Value": ["DI"]},
        t00080090={"vr": "PN"},
        t00100010={"vr": "PN", "Value": [{"Alphabetic": "Test^Media"}]},
        t00100020={"vr": "LO", "Value": ["1"]},
        t00100030={"vr": "DA"},
        t00100040={"vr": "CS"},
        t00200010={"vr": "SH"},
        t00200011={"vr": "IS", "Value": [1]},
        t00200013={"vr": "IS", "Value": [1]},
        t00200020={"vr": "CS"},
        t00200060={"vr": "CS"},
    )
    if medium is not None and medium.is_video:
        said["00080016"]["Value"] = [VIDEO_PHOTOGRAPHIC]
        said["00080008"] = {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY"]}
        said["00080060"]["Value"] = ["XC"]
        said["00080070"] = {"vr": "LO"}
        said["00181063"] = {"vr": "DS", "Value": [40]}
        said["00280009"] = {"vr": "AT", "Value": ["00181063"]}
        said["00282110"] = {"vr": "CS", "Value": ["01"]}
        said["00282112"] = {"vr": "DS", "Value": [10]}
        said["00282114"] = {"vr": "CS", "Value": ["ISO_14496_10"]}
        said["00400555"] = {"vr": "SQ"}
        said["00082218"] = {"vr": "SQ", "Value": [code("69536005", "SCT", "Head")]}
        del said["00080064"], said["00200060"]
    if medium is not None and not medium.tells_size:
        said |= {f"0028{end}": {"vr": "US", "Value": [n]} for end, n in (("0010", ROWS), ("0011", COLUMNS))}
    if medium is not None and not medium.tells_size and not medium.is_video:
        numbers = {"0002": 3, "0006": 0, "0100": 8, "0101": 8, "0102": 7, "0103": 0}
        said |= {f"0028{end}": {"vr": "US", "Value": [number]} for end, number in numbers.items()}
        said["00280004"] = {"vr": "CS", "Value": ["XYB" if medium.name == "jpeg-xl" else "RGB"]}
    if medium is not None and not medium.tells_frames:
        said["00280008"] = {"vr": "IS", "Value": [FRAMES]}
    return Dataset.from_json(said)


def body(
    form: str, said: Dataset, content: bytes, media_type: str, wish: str = ""
) -> tuple[bytes, dict[str, str]]:
    """Return a request with one instance, and its fields."""
    if form == JSON:
        text = json.dumps([said.to_json_dict() | {PIXEL_DATA: {"vr": "OB", "BulkDataURI": "at:pixels"}}])
    else:
        text = as_xml(said, Request(pixels="at:pixels"))
        assert NATIVE_MODEL_NAMESPACE in text
    parameters = f'; transfer-syntax="{wish}"' if wish else ""
    bulk = part(content, {"Content-Type": media_type + parameters, "Content-Location": "at:pixels"})
    fields = {"Content-Type": f'multipart/related; type="{form}"; boundary="b0und4ry"'}
    return part(text.encode(), {"Content-Type": form}) + bulk + closing(), fields


def kept(storing: Storing) -> Path:
    """Return the file of the one instance."""
    (row,) = instances(storing.archive)
    return Path(storing.archive.path_of(row["path"]))


def bitstream(found: Dataset) -> bytes:
    """Return the encapsulated bytes of an image or video with one frame, or with all frames in one."""
    (fragments,) = generate_fragmented_frames(found.PixelData, number_of_frames=1)
    return b"".join(fragments)


def complaints(file: Path, copy: Path) -> list[str]:
    """Return the errors that dciodvfy finds in a copy that has a stand-in for what is younger than it."""
    found = dcmread(file)
    stand_in = STAND_INS.get(found.file_meta.TransferSyntaxUID.removeprefix(FAMILY))
    if stand_in is not None:
        found.file_meta.TransferSyntaxUID = UID(FAMILY + stand_in)
    if found.PhotometricInterpretation == "XYB":
        found.PhotometricInterpretation = "RGB"
    if found.BitsStored == 10:  # of HEVC alone
        found.BitsAllocated, found.BitsStored, found.HighBit = 8, 8, 7
    found.save_as(copy)
    lines = run_peer("dciodvfy", str(copy)).stdout.splitlines()
    assert lines
    return [line for line in lines if line.startswith("Error")]


def expect(storing: Storing, form: str, medium: Medium, content: bytes) -> Dataset:
    """Store a file as bulk data, and return what is kept, read by pydicom."""
    said = metadata(medium)
    status, answer = storing.post(*body(form, said, content, medium.media_type, medium.wish))
    assert (status, answer.stored) == (200, ["1.2.3.4"]), answer
    found = dcmread(kept(storing))
    assert found.file_meta.TransferSyntaxUID == medium.transfer_syntax_uid
    assert found.PatientName == "Test^Media"
    assert (found.Rows, found.Columns, found.SamplesPerPixel) == (ROWS, COLUMNS, 3)
    assert found.get("NumberOfFrames", 1) == (FRAMES if medium.is_video else 1)
    unwrapped = bitstream(found)
    assert unwrapped.rstrip(b"\0") in content
    assert len(unwrapped) > 100
    if medium.media_type == "image/jp2":  # the codestream leaves its file, all else stays as it is
        assert unwrapped.startswith(b"\xff\x4f\xff\x51")
    else:
        assert unwrapped.removesuffix(b"\0") == content.removesuffix(b"\0")
    return found


CASES = [
    pytest.param(form, medium, id=f"{medium.name}-{form[18:]}", marks=pytest.mark.peer(medium.program))
    for medium in MEDIA
    for form in (JSON, XML)
]


@pytest.mark.slow
@pytest.mark.peer("ffmpeg")
@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize(("form", "medium"), CASES)
def test_what_an_encoder_made_becomes_a_file_that_others_read(
    storing: Storing, form: str, medium: Medium, tmp_path: Path
) -> None:
    source = medium.make(tmp_path)
    found = expect(storing, form, medium, source.read_bytes())
    assert complaints(kept(storing), tmp_path / "copy.dcm") == []
    if medium.name in DECODED_BY_PYDICOM:
        pixels = found.pixel_array
        assert pixels.shape == (ROWS, COLUMNS, 3)
        assert np.ptp(pixels) > 200
    if medium.is_video:
        (tmp_path / "out").write_bytes(bitstream(found))
        assert frames_in(tmp_path / "out") == FRAMES


def frames_in(file: Path) -> int:
    """Return how many frames ffmpeg decodes from a file."""
    run = run_peer("ffmpeg", "-v", "error", "-i", str(file), "-f", "framecrc", "-")
    assert run.returncode == 0
    return sum(not line.startswith("#") for line in run.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.peer("ffmpeg")
@pytest.mark.parametrize("form", [JSON, XML])
@pytest.mark.parametrize(("media_type", "make"), DECODED_BY_SENDER)
def test_an_image_that_would_have_to_be_decoded_is_refused(
    storing: Storing, form: str, media_type: str, make: Make, tmp_path: Path
) -> None:
    content = make(tmp_path).read_bytes()
    status, answer = storing.post(*body(form, metadata(), content, media_type))
    assert (status, answer.failed) == (409, [("1.2.3.4", FailureReason.TRANSFER_SYNTAX)])
    assert any(media_type in words for words in answer.words)


@pytest.mark.slow
@pytest.mark.parametrize("form", [JSON, XML])
@pytest.mark.parametrize(("is_file", "ratios"), [(True, None), (False, None), (False, [5])])
def test_jpeg_2000_of_openjpeg_is_what_was_compressed(
    storing: Storing, form: str, is_file: bool, ratios: list[int] | None
) -> None:
    pixels = np.arange(ROWS * COLUMNS * 3, dtype=np.uint32).astype(np.uint8).reshape(ROWS, COLUMNS, 3)
    content = encode_array(
        pixels,
        photometric_interpretation=1,
        codec_format=int(is_file),
        compression_ratios=ratios,
        use_mct=False,
    )
    medium = Medium(
        name="openjpeg",
        media_type="image/jp2",
        transfer_syntax_uid=f"1.2.840.10008.1.2.4.{91 if ratios else 90}",
        program="",
        make=Path,
    )
    found = expect(storing, form, medium, content)
    assert (found.pixel_array == pixels).all() == (ratios is None)


def test_rle_of_pydicom_is_what_was_compressed(storing: Storing) -> None:
    pixels = np.arange(ROWS * COLUMNS * 3, dtype=np.uint32).astype(np.uint8).reshape(ROWS, COLUMNS, 3)
    said = Dataset.from_json(metadata().to_json_dict())
    said.Rows, said.Columns, said.SamplesPerPixel, said.PlanarConfiguration = ROWS, COLUMNS, 3, 0
    said.BitsAllocated, said.BitsStored, said.HighBit, said.PixelRepresentation = 8, 8, 7, 0
    said.PhotometricInterpretation = "RGB"
    compressed = Dataset.from_json(said.to_json_dict())
    compressed.compress("1.2.840.10008.1.2.5", pixels, generate_instance_uid=False)
    buffer = BytesIO(bitstream(compressed))
    status, answer = storing.post(*body(JSON, said, buffer.getvalue(), "image/dicom-rle"))
    assert (status, answer.stored) == (200, ["1.2.3.4"]), answer
    found = dcmread(kept(storing))
    assert found.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.5"
    assert (found.pixel_array == pixels).all()
