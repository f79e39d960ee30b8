"""Metadata with bulk data as dcm4che's `stowrs` (5.35) sends them: taken from its requests, with shorter metadata.

A boundary that never changes and is not quoted, XML without its namespace, each instance's bulk data behind its own
metadata, BulkDataURI as a bare word, and a bare Accept.
"""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGBaseline8Bit

from support.web_server import web_client
from support.web_studies import STUDIES, Storing

pytestmark = pytest.mark.slow

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENCAPSULATED_MTL = "1.2.840.10008.5.1.4.1.1.104.5"
DOCUMENT = b"newmtl x\nKd 1 1 1\n!"


@pytest.fixture
def storing(tmp_path: Path) -> Iterator[Storing]:
    with web_client(tmp_path / "archive") as (client, rig):
        yield Storing(client, rig)


def jpeg() -> bytes:
    """Return an image of JPEG Baseline, 100 by 100 in color."""
    data_set = pydicom.dcmread(str(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm", download=False)))
    return next(generate_frames(data_set.PixelData, number_of_frames=1))


def part(kind: str, content: bytes, location: str = "") -> bytes:
    where = f"Content-Location: {location}\r\n" if location else ""
    return f"\r\n--myboundary\r\nContent-Type: {kind}\r\n{where}\r\n".encode() + content


def post(storing: Storing, model: str, *parts: bytes) -> tuple[int, bytes]:
    answer = storing.client.post(
        STUDIES,
        content=b"".join(parts) + b"\r\n--myboundary--\r\n",
        headers={
            "Accept": f"application/dicom+{model}",
            "Content-Type": f'multipart/related; type="application/dicom+{model}"; boundary=myboundary',
            "User-Agent": "Java/17.0.15",
        },
    )
    assert answer.headers["content-type"] == f"application/dicom+{model}"
    return answer.status_code, answer.content


def kept(storing: Storing) -> dict[str, pydicom.Dataset]:
    """Return what is kept by its UID, read by pydicom."""
    uids = storing.kept()
    root = Path(storing.archive.root, "objects")
    found = [pydicom.dcmread(path) for path in root.rglob("*.dcm")]
    assert sorted(data_set.SOPInstanceUID for data_set in found) == uids
    return {str(data_set.SOPInstanceUID): data_set for data_set in found}


def xml(uid: str, location: str) -> bytes:
    values = {
        ("SOPClassUID", "00080016", "UI"): SECONDARY_CAPTURE,
        ("SOPInstanceUID", "00080018", "UI"): uid,
        ("StudyDate", "00080020", "DA"): "",
        ("PatientName", "00100010", "PN"): "",
        ("StudyInstanceUID", "0020000D", "UI"): "2.25.1",
        ("SeriesInstanceUID", "0020000E", "UI"): "2.25.2",
    }
    text = "".join(
        f'<DicomAttribute keyword="{keyword}" tag="{tag}" vr="{vr}"'
        + (f'><Value number="1">{value}</Value></DicomAttribute>' if value else "/>")
        for (keyword, tag, vr), value in values.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel xml:space="preserve">'
        f'{text}<DicomAttribute keyword="PixelData" tag="7FE00010" vr="OB"><BulkData uri="{location}"/></DicomAttribute>'
        "</NativeDicomModel>"
    ).encode()


def test_images_each_behind_its_own_metadata_in_xml(storing: Storing) -> None:
    image, other = jpeg(), jpeg() + b"\0\0"
    status, answer = post(
        storing,
        "xml",
        part("application/dicom+xml", xml("2.25.3", "bulk2.25.31")),
        part("image/jpeg", image, "bulk2.25.31"),
        part("application/dicom+xml", xml("2.25.4", "bulk2.25.41")),
        part("image/jpeg", other, "bulk2.25.41"),
    )
    assert (status, answer.count(b"2.25.3<"), answer.count(b"2.25.4<")) == (200, 1, 1)
    for uid, data_set in kept(storing).items():
        assert data_set.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        assert (data_set.Rows, data_set.Columns, data_set.SamplesPerPixel) == (100, 100, 3)
        (frame,) = generate_frames(data_set.PixelData, number_of_frames=1)
        assert frame == {"2.25.3": image, "2.25.4": other}[uid]


@pytest.mark.parametrize("says", ["", "; transfer-syntax=1.2.840.10008.1.2.4.50"])
def test_an_image_in_json_with_and_without_what_its_header_says(storing: Storing, says: str) -> None:
    described = (
        '"00280002":{"vr":"US","Value":[3]},"00280004":{"vr":"CS","Value":["YBR_FULL"]},'
        '"00280006":{"vr":"US","Value":[0]},"00280010":{"vr":"US","Value":[100]},'
        '"00280011":{"vr":"US","Value":[100]},"00280100":{"vr":"US","Value":[8]},"00280101":{"vr":"US","Value":[8]},'
        '"00280102":{"vr":"US","Value":[7]},"00280103":{"vr":"US","Value":[0]},"00282110":{"vr":"CS","Value":["01"]},'
    )
    metadata = (
        f'[{{"00080016":{{"vr":"UI","Value":["{SECONDARY_CAPTURE}"]}},"00080018":{{"vr":"UI","Value":["2.25.3"]}},'
        '"00080020":{"vr":"DA"},"00100010":{"vr":"PN"},"0020000D":{"vr":"UI","Value":["2.25.1"]},'
        f'"0020000E":{{"vr":"UI","Value":["2.25.2"]}},{described if says else ""}'
        '"7FE00010":{"vr":"OB","BulkDataURI":"bulk2.25.31"}}]'
    )
    status, _ = post(
        storing,
        "json",
        part("application/dicom+json", metadata.encode()),
        part(f"image/jpeg{says}", jpeg(), "bulk2.25.31"),
    )
    assert status == 200
    data_set = kept(storing)["2.25.3"]
    assert data_set.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert (data_set.Rows, data_set.Columns, data_set.SamplesPerPixel) == (100, 100, 3)
    assert list(generate_frames(data_set.PixelData, number_of_frames=1)) == [jpeg()]


def test_a_document_of_odd_length_in_json(storing: Storing) -> None:
    metadata = (
        f'[{{"00080016":{{"vr":"UI","Value":["{ENCAPSULATED_MTL}"]}},"00080018":{{"vr":"UI","Value":["2.25.3"]}},'
        '"0020000D":{"vr":"UI","Value":["2.25.1"]},"0020000E":{"vr":"UI","Value":["2.25.2"]},'
        '"004008EA":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["mm"]}}]},"0040A043":{"vr":"SQ"},'
        '"00420011":{"vr":"OB","BulkDataURI":"bulk2.25.31"},"00420012":{"vr":"LO","Value":["model/mtl"]}}]'
    )
    status, _ = post(
        storing,
        "json",
        part("application/dicom+json", metadata.encode()),
        part("model/mtl", DOCUMENT, "bulk2.25.31"),
    )
    assert status == 200
    data_set = kept(storing)["2.25.3"]
    assert data_set.EncapsulatedDocument == DOCUMENT + b"\0"
    assert data_set.EncapsulatedDocumentLength == len(DOCUMENT) == 19
    assert data_set.MIMETypeOfEncapsulatedDocument == "model/mtl"
    assert data_set.MeasurementUnitsCodeSequence[0].CodeValue == "mm"
