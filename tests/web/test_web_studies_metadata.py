"""Metadata with bulk data on a running server: real instances taken apart come back whole, and nothing else gets in."""

import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_fragments

from stowkeeper.services import spooled_body, store_request
from stowkeeper.services.building.bulk_parts import BulkPart
from stowkeeper.services.spooled_body import SpooledBody
from stowkeeper.services.store_request_limits import BUILDS_AT_ONCE
from stowkeeper.web.services import DICOMwebOptions
from support.archive_server import instances, requests
from support.metadata_requests import (
    Request,
    as_json,
    as_request,
    as_xml,
    box,
    bulk_part,
    description,
    frames_of,
    identifiers,
    mpeg_4_file,
)
from support.stow_bodies import closing, part
from support.web_server import web_client
from support.web_studies import Storing

pytestmark = pytest.mark.slow

STUDIES = "/dicom-web/studies"
JSON = "application/dicom+json"
XML = "application/dicom+xml"
PLAIN = ["rtplan.dcm", "reportsi.dcm"]
FILES = [
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "JPEG2000.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "rtplan.dcm",
    "reportsi.dcm",
]


@pytest.fixture
def storing(tmp_path: Path) -> Iterator[Storing]:
    with web_client(tmp_path / "archive") as (client, rig):
        yield Storing(client, rig)


def type_of(media_type: str) -> dict[str, str]:
    return {"Content-Type": f'multipart/related; type="{media_type}"; boundary="b0und4ry"'}


def body(media_type: str, metadata: Iterable[str], parts: Iterable[BulkPart] = ()) -> bytes:
    """Return a whole body."""
    pieces = [part(text.encode(), {"Content-Type": media_type}) for text in metadata]
    for bulk in parts:
        parameters = "".join(f'; {name}="{value}"' for name, value in bulk.media_type.parameters.items())
        fields = {
            "Content-Type": bulk.media_type.name + parameters,
            "Content-Location": bulk.content_location,
        }
        pieces.append(part(bulk.read(0, bulk.length), fields))
    return b"".join(pieces) + closing()


def as_text(**elements: Any) -> str:
    return json.dumps([identifiers(**elements)])


def path_of(storing: Storing) -> Path:
    (row,) = instances(storing.archive)
    return Path(storing.archive.path_of(row["path"]))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("media_type", "write"), [(JSON, as_json), (XML, as_xml)])
def test_an_instance_taken_apart_is_kept_whole(
    storing: Storing, name: str, media_type: str, write: Any
) -> None:
    path = get_testdata_file(name, download=False)
    source = dcmread(str(path))
    request = as_request(source, write)
    status, answer = storing.post(body(media_type, [request.metadata], request.parts), type_of(media_type))
    assert (status, answer.stored) == (200, [source.SOPInstanceUID]), answer
    kept = dcmread(path_of(storing))
    assert kept.file_meta.MediaStorageSOPInstanceUID == source.SOPInstanceUID
    assert kept.file_meta.TransferSyntaxUID.is_compressed is source.file_meta.TransferSyntaxUID.is_compressed
    assert kept.get("PatientName") == source.get("PatientName")
    if source.file_meta.TransferSyntaxUID.is_compressed:
        assert frames_of(kept) == frames_of(source)
    else:
        assert kept.get("PixelData") == source.get("PixelData")
    line = storing.line()
    (row,) = requests(storing.archive, line["association_id"])
    assert (row.outcome, row.status, row.sop_instance_uid) == ("kept", 0, source.SOPInstanceUID)


@pytest.mark.parametrize(("media_type", "write"), [(JSON, as_json), (XML, as_xml)])
def test_several_instances_come_in_one_request(storing: Storing, media_type: str, write: Any) -> None:
    texts, parts, uids = [], [], []
    for number, name in enumerate(("CT_small.dcm", "MR_small.dcm")):
        source = dcmread(str(get_testdata_file(name, download=False)))
        request = as_request(source, write)
        text = request.metadata
        for bulk in request.parts:
            location = f"{number}/{bulk.content_location}"
            text = text.replace(f'"{bulk.content_location}"', f'"{location}"')
            parts.append(bulk_part(bulk.read(0, bulk.length), location))
        texts.append(text)
        uids.append(source.SOPInstanceUID)
    if media_type == JSON:
        texts = ["[" + ",".join(text[1:-1] for text in texts) + "]"]
    status, answer = storing.post(body(media_type, texts, parts), type_of(media_type))
    assert (status, answer.stored) == (200, uids), answer


def test_a_document_is_kept_as_it_came(storing: Storing) -> None:
    document = b"%PDF-1.4\n" + bytes(range(256)) * 1000
    text = as_text(
        t00080016={"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.104.1"]},
        t00420011={"vr": "OB", "BulkDataURI": "document"},
    )
    part_of_it = bulk_part(document, "document", "application/pdf")
    status, answer = storing.post(body(JSON, [text], [part_of_it]), type_of(JSON))
    assert (status, answer.stored) == (200, ["1.2.3.4"])
    kept = dcmread(path_of(storing))
    assert kept.EncapsulatedDocument[: len(document)] == document
    assert (kept.MIMETypeOfEncapsulatedDocument, kept.EncapsulatedDocumentLength) == (
        "application/pdf",
        len(document),
    )


def test_a_video_is_kept_as_it_came(storing: Storing) -> None:
    video = mpeg_4_file(b"avc1", box(b"avcC", bytes((1, 100, 0, 41))), frames=3) + box(b"free", bytes(1001))
    text = as_text(
        t00080016={"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.77.1.4.1"]},
        t7FE00010={"vr": "OB", "BulkDataURI": "video"},
    )
    status, answer = storing.post(body(JSON, [text], [bulk_part(video, "video", "video/mp4")]), type_of(JSON))
    assert (status, answer.stored) == (200, ["1.2.3.4"])
    kept = dcmread(path_of(storing))
    assert kept.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.102"
    offsets, content = generate_fragments(kept.PixelData)
    assert (offsets, content) == (b"", video + bytes(len(video) % 2))
    assert (kept.NumberOfFrames, kept.Rows, kept.Columns) == (3, 480, 640)


def test_metadata_alone_are_an_instance(storing: Storing) -> None:
    status, answer = storing.post(body(JSON, [as_text()]), type_of(JSON))
    assert (status, answer.stored) == (200, ["1.2.3.4"])


@pytest.mark.parametrize(
    "uri", ["nowhere", "http://127.0.0.1:9/x", "file:///etc/passwd", "../other", "", "HERE"]
)
def test_a_reference_to_nowhere_is_a922_and_fetched_from_nowhere(storing: Storing, uri: str) -> None:
    text = as_text(**description(), t7FE00010={"vr": "OB", "BulkDataURI": uri})
    status, answer = storing.post(body(JSON, [text], [bulk_part(b"1234")]), type_of(JSON))
    assert (status, answer.stored) == (409, [])
    assert [reason for _, reason in answer.failed] in ([0xA922], [0xC000])
    assert answer.others == [0xC000]  # the part that nobody refers to


def test_bulk_data_that_nobody_refers_to_are_told(storing: Storing) -> None:
    status, answer = storing.post(body(JSON, [as_text()], [bulk_part(b"1234")]), type_of(JSON))
    assert (status, answer.stored, answer.others) == (202, ["1.2.3.4"], [0xC000])


def test_one_bad_instance_harms_no_other(storing: Storing) -> None:
    bad = identifiers(t00080018={"vr": "UI", "Value": ["no uid"]})
    other = identifiers(t00080018={"vr": "UI", "Value": ["1.2.3.9"]})
    text = json.dumps([identifiers(), bad, other])
    status, answer = storing.post(body(JSON, [text]), type_of(JSON))
    assert (status, answer.stored) == (202, ["1.2.3.4", "1.2.3.9"])


@pytest.mark.parametrize(
    ("media_type", "write", "bad"), [(JSON, as_json, '{"a": 1, "a": 2}'), (XML, as_xml, "<NativeDicom")]
)
def test_metadata_that_cannot_be_read_harm_no_others(
    storing: Storing, media_type: str, write: Any, bad: str
) -> None:
    texts = [write(dcmread(str(get_testdata_file(name, download=False))), Request()) for name in PLAIN]
    texts.insert(1, bad)
    if media_type == JSON:
        texts = ["[" + ",".join(text.removeprefix("[").removesuffix("]") for text in texts) + "]"]
    status, answer = storing.post(body(media_type, texts), type_of(media_type))
    assert (status, len(answer.stored), answer.others) == (202, 2, [0xC000])


@pytest.mark.parametrize("media_type", [JSON, XML])
def test_parts_beyond_the_bound_are_told_once(tmp_path: Path, media_type: str) -> None:
    options = DICOMwebOptions(parts_max=3)
    with web_client(tmp_path / "archive", dicomweb=options) as (client, rig):
        storing = Storing(client, rig)
        write = as_json if media_type == JSON else as_xml
        text = write(dcmread(str(get_testdata_file(PLAIN[0], download=False))), Request())
        parts = [bulk_part(b"1234", str(number)) for number in range(50)]
        status, answer = storing.post(body(media_type, [text], parts), type_of(media_type))
        assert (status, len(answer.stored)) == (202, 1)
        assert answer.others == [0xC000] * 3  # the bound, and the two parts within it that nobody refers to


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[" * 10_000 + "]" * 10_000, '[{"00080018":{"vr":"SQ","Value":[' * 5000, "[1, 2]"],
)
def test_json_that_is_none_is_400(storing: Storing, text: str) -> None:
    assert storing.post(body(JSON, [text]), type_of(JSON))[0] == 400
    assert storing.kept() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no XML",
        "<other/>",
        '<!DOCTYPE a [<!ENTITY b "c">]><NativeDicomModel>&b;</NativeDicomModel>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><NativeDicomModel/>',
        "<NativeDicomModel>" + "<Item>" * 10_000,
    ],
)
def test_xml_that_is_none_is_400(storing: Storing, text: str) -> None:
    assert storing.post(body(XML, [text]), type_of(XML))[0] == 400
    assert storing.kept() == []


@pytest.mark.parametrize("media_type", [JSON, XML])
def test_a_request_without_metadata_is_400(storing: Storing, media_type: str) -> None:
    assert storing.post(closing(), type_of(media_type))[0] == 400
    assert storing.post(body(media_type, [], [bulk_part(b"1234")]), type_of(media_type))[0] == 400


def test_the_root_may_be_named_in_place_of_its_type(storing: Storing) -> None:
    content = (
        part(b"1234", {"Content-Type": "application/octet-stream", "Content-Location": "here"})
        + part(
            as_text(**description(), t7FE00010={"vr": "OB", "BulkDataURI": "here"}).encode(),
            {"Content-ID": "<root>"},
        )
        + closing()
    )
    headers = {"Content-Type": type_of(JSON)["Content-Type"] + '; start="<root>"'}
    assert storing.post(content, headers)[0] == 200


def test_a_body_that_breaks_off_keeps_what_is_complete(storing: Storing) -> None:
    whole = body(JSON, [as_text()], [bulk_part(b"1234")])
    status, answer = storing.post(whole[:-16], type_of(JSON))
    assert (status, answer.stored) == (202, ["1.2.3.4"])
    assert answer.others == [0xC000, 0xC000]


def test_another_study_than_that_of_the_address_is_refused(storing: Storing) -> None:
    status, answer = storing.post(body(JSON, [as_text()]), type_of(JSON), path=STUDIES + "/1.2.99")
    assert (status, answer.failed) == (409, [("1.2.3.4", 0xC409)])


def test_without_room_it_is_503(storing: Storing, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["", "", "", ""])
    monkeypatch.setattr(storing.archive.admission, "refusal", lambda: next(answers, "the disk has no room"))
    monkeypatch.setattr(spooled_body, "SPOOL_WRITE_BYTES", 1)
    status, answer = storing.post(
        body(JSON, [as_text()], [bulk_part(b"1234", str(number)) for number in range(9)]), type_of(JSON)
    )
    assert (status, answer.stored, answer.others) == (503, [], [0xA700])


def test_a_disk_that_fails_is_told(storing: Storing, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: SpooledBody, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SpooledBody, "_write_all", fail)
    status, answer = storing.post(body(JSON, [as_text()]), type_of(JSON))
    assert (status, answer.others) == (503, [0xA700])


def test_longer_parts_than_allowed_are_refused(tmp_path: Path) -> None:
    options = DICOMwebOptions(part_bytes_max=2000)
    with web_client(tmp_path / "archive", dicomweb=options) as (client, rig):
        storing = Storing(client, rig)
        text = as_text(**description(), t7FE00010={"vr": "OB", "BulkDataURI": "here"})
        status, answer = storing.post(body(JSON, [text], [bulk_part(bytes(3000))]), type_of(JSON))
        assert (status, answer.failed) == (409, [("1.2.3.4", 0xA922)])


def test_nothing_is_left_in_the_archive_beside_what_is_kept(storing: Storing) -> None:
    before = {path.name for path in Path(storing.archive.root).iterdir()}
    assert storing.post(body(JSON, [as_text()], [bulk_part(bytes(3_000_000))]), type_of(JSON))[0] == 202
    assert {path.name for path in Path(storing.archive.root).iterdir()} - {"objects"} <= before


def test_only_so_many_are_built_at_a_time(storing: Storing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of requests: each may take a few hundred megabytes."""
    build, spooled = store_request.build_instance, SpooledBody.bulk_parts
    requests_there, inside = threading.Semaphore(0), threading.Semaphore(0)
    may_go = threading.Event()

    def slow_build(*arguments: Any) -> Any:
        inside.release()
        assert may_go.wait(30)
        return build(*arguments)

    def told(body: SpooledBody) -> Any:
        requests_there.release()
        return spooled(body)

    monkeypatch.setattr(store_request, "build_instance", slow_build)
    monkeypatch.setattr(SpooledBody, "bulk_parts", told)
    answers: list[int] = []
    text = as_text(t00080018={"vr": "UI", "Value": ["1.2.3.4"]})
    posts = [
        threading.Thread(
            target=lambda: answers.append(storing.post(body(JSON, [text]), type_of(JSON))[0]), daemon=True
        )
        for _ in range(BUILDS_AT_ONCE + 2)
    ]
    for post in posts:
        post.start()
    for _ in posts:
        assert requests_there.acquire(timeout=30)
    for _ in range(BUILDS_AT_ONCE):
        assert inside.acquire(timeout=30)
    assert not inside.acquire(timeout=0.3)
    may_go.set()
    for post in posts:
        post.join(30)
    assert answers == [200] * len(posts)
