"""POST /instances in Orthanc's shape: what is kept, what is refused and how, and that a body that breaks off leaves nothing."""

import io
import socket
import struct
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.archive import listing
from stowkeeper.archive.admission import DiskMarks
from stowkeeper.services import ingest as ingest_module
from stowkeeper.services.ingest import Ingested, ingest
from stowkeeper.web import orthanc_upload
from stowkeeper.web.orthanc_ids import orthanc_id
from stowkeeper.web.roles import Role
from support.archive_server import depot_leftovers, instances
from support.instances import HANGING_PROTOCOL_STORAGE, encode_element, make_instance
from support.orthanc_rig import OrthancRig, orthanc_rig, part10_of
from support.raw_peer import Context, RawPeer

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as running:
        yield running


def pieces_of(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def receipts(rig: OrthancRig) -> list[dict[str, Any]]:
    rig.settle()
    return list(listing.receipts(rig.database))


@pytest.mark.parametrize("size", [600, 900_000, 1_500_000, 7_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_file_is_kept_byte_by_byte(rig: OrthancRig, size: int, is_chunked: bool) -> None:
    instance = make_instance(1, size=size)
    body = part10_of(instance)
    content: Any = pieces_of(body, 100_003) if is_chunked else body
    response = rig.client.post("/instances", content=content)
    own = [orthanc_id(*("P1", "1.2.10", "1.2.10.1", "1.2.3.1")[:depth]) for depth in range(1, 5)]
    assert response.json() == {
        "ID": own[3],
        "ParentPatient": own[0],
        "ParentSeries": own[2],
        "ParentStudy": own[1],
        "Path": f"/instances/{own[3]}",
        "Status": "Success",
    }
    (row,) = instances(rig.archive)  # read from the medium: it is whole and fits its receipt
    assert Path(rig.archive.path_of(row["path"])).read_bytes().endswith(instance.data)
    assert depot_leftovers(rig.archive) == []


def test_the_receipt_says_how_it_came(rig: OrthancRig) -> None:
    rig.keep(1)
    (receipt,) = receipts(rig)
    assert (receipt["received_by"], receipt["peer_address"], receipt["calling_ae_title"]) == (
        "import",
        "127.0.0.1",
        "",
    )


def test_the_same_again_and_another_version(rig: OrthancRig) -> None:
    told = [
        rig.post("/instances", part10_of(make_instance(1, content=content)))["Status"]
        for content in (0, 0, 5)
    ]
    assert told == ["Success", "AlreadyStored", "Success"]
    assert [receipt["outcome"] for receipt in receipts(rig)] == ["stored", "identical", "conflict"]


def test_the_same_as_came_by_c_store_is_there_already(rig: OrthancRig) -> None:
    instance = make_instance(1)
    with RawPeer(rig.port) as peer:
        context = Context(
            context_id=1,
            abstract_syntax=instance.sop_class_uid,
            transfer_syntaxes=(instance.transfer_syntax_uid,),
        )
        peer.associate(context)
        assert peer.store(instance.sop_instance_uid, instance.data).status == 0
        peer.release()
    rig.settle()
    assert rig.post("/instances", part10_of(instance))["Status"] == "AlreadyStored"


def test_a_data_set_without_file_meta_information(rig: OrthancRig) -> None:
    assert rig.post("/instances", make_instance(1).data)["Status"] == "Success"
    assert len(instances(rig.archive)) == 1


def test_whatever_the_content_type(rig: OrthancRig) -> None:
    for number, content_type in enumerate(("application/dicom", "application/octet-stream", "text/plain"), 1):
        body = part10_of(make_instance(number))
        assert rig.ask("POST", "/instances", body, headers={"Content-Type": content_type}).status == 200


def zip_of(*files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, file in enumerate(files):
            archive.writestr(f"{number}.dcm", file)
    return packed.getvalue()


def without(data: bytes, tag: int) -> bytes:
    """Return a data set of `make_instance` without one of its short elements."""
    kept, position = b"", 0
    while position < len(data):
        group, element = struct.unpack_from("<HH", data, position)
        is_long = data[position + 4 : position + 6] == b"OB"
        length = struct.unpack_from("<I" if is_long else "<H", data, position + (8 if is_long else 6))[0]
        end = position + (12 if is_long else 8) + length
        if group << 16 | element != tag:
            kept += data[position:end]
        position = end
    return kept


INSTANCE = make_instance(1)


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (b"", 400, 15, "Received an empty DICOM file"),
        (b"garbage", 400, 15, "it is no DICOM file"),
        (bytes(5000), 400, 15, "it is no DICOM file"),
        (b'{"a": 1}', 400, 15, "it is no DICOM file"),
        (zip_of(part10_of(INSTANCE)), 400, 15, "it is no DICOM file"),
        (part10_of(INSTANCE)[:200], 400, 15, "it was cut"),
        (part10_of(INSTANCE)[:-100], 400, 15, ""),
        (part10_of(replace(INSTANCE, data=b"")), 404, 21, None),
        (part10_of(replace(INSTANCE, transfer_syntax_uid="1.2.3")), 400, 15, "1.2.3 is not accepted"),
        (part10_of(replace(INSTANCE, data=without(INSTANCE.data, 0x0020000D))), 404, 21, None),
        (part10_of(replace(INSTANCE, data=without(INSTANCE.data, 0x0020000E))), 404, 21, None),
        (part10_of(make_instance(1, study="", sop_class_uid=HANGING_PROTOCOL_STORAGE)), 404, 21, None),
        (part10_of(make_instance(1, sop_class_uid="1.2.840.10008.1.20.1")), 400, 15, "not accepted"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_what_is_refused(rig: OrthancRig, body: bytes, status: int, code: int, words: str | None) -> None:
    answer = rig.ask("POST", "/instances", body)
    assert (answer.status, answer.value["OrthancStatus"]) == (status, code)
    assert words is None or words in answer.value["Details"]
    assert ("Details" in answer.value) == (words is not None)
    assert receipts(rig) == []
    assert depot_leftovers(rig.archive) == []


def test_identifiers_that_stand_behind_the_first_megabyte(rig: OrthancRig) -> None:
    data = INSTANCE.data
    place = data.index(struct.pack("<HH", 0x0010, 0x0010))
    private = encode_element(0x00090010, b"LO", b"ACME") + encode_element(0x00091001, b"OB", bytes(1_400_000))
    answer = rig.post("/instances", part10_of(replace(INSTANCE, data=data[:place] + private + data[place:])))
    assert answer["ID"] == orthanc_id("P1", "1.2.10", "1.2.10.1", "1.2.3.1")


def test_no_room_on_the_disk(tmp_path: Path) -> None:
    marks = DiskMarks(instance_bytes=1 << 60, association_bytes=0, instance_inodes=0, association_inodes=0)
    with orthanc_rig(tmp_path / "archive", runs_jobs=False, archive_options={"marks": marks}) as rig:
        for size in (600, 5_000_000):
            answer = rig.ask("POST", "/instances", part10_of(make_instance(1, size=size)))
            assert (answer.status, answer.value["OrthancStatus"]) == (507, 19)
            assert answer.value["Details"]
        assert receipts(rig) == []


def test_a_body_that_breaks_off_leaves_nothing(rig: OrthancRig, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[None] = []

    def ingest_and_say_so(*arguments: Any, **more: Any) -> Ingested:
        try:
            return ingest(*arguments, **more)
        finally:
            ended.append(None)

    monkeypatch.setattr(orthanc_upload, "ingest", ingest_and_say_so)
    data = make_instance(1, size=2_000_000).data
    pixels = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    private = encode_element(0x00290010, b"LO", b"ACME") + encode_element(0x00291001, b"OB", bytes(4_000_000))
    body = part10_of(replace(INSTANCE, data=data[:pixels] + private + data[pixels:]))
    host = rig.client.base_url.host
    # The last one ends between two elements, so what came is a data set in itself.
    counts = (0, 100, 900_000, 3_000_000, len(body) - len(data[pixels:]))
    for count in counts:
        with socket.create_connection((host, rig.client.base_url.port or 0)) as connection:
            head = f"POST /instances HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:count])
    rig.wait(lambda: len(ended) == len(counts), "the end of all")
    rig.wait(lambda: depot_leftovers(rig.archive) == [], "the depot to be empty")
    assert receipts(rig) == []
    # No place was lost to them either.
    assert rig.post("/instances", body)["Status"] == "Success"


def test_an_answer_that_does_not_wait_for_the_listing_for_ever(
    rig: OrthancRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "INGEST_LISTING_SECONDS", 0.0)
    monkeypatch.setattr(ingest_module, "receipt_outcomes", lambda _connection, _receipt_ids: {})
    answer = rig.post("/instances", part10_of(INSTANCE))
    assert (answer["ID"], answer["Status"]) == (orthanc_id("P1", "1.2.10", "1.2.10.1", "1.2.3.1"), "Success")
    assert len(receipts(rig)) == 1


def test_many_at_once(rig: OrthancRig) -> None:
    with ThreadPoolExecutor(6) as pool:
        numbers = range(1, 25)
        ids = list(pool.map(lambda number: rig.upload(make_instance(number, size=300_000)), numbers))
    assert sorted(rig.get("/instances")) == sorted(ids)
    assert len(instances(rig.archive)) == 24


def test_a_body_over_the_bound_is_refused_before_it_comes(rig: OrthancRig) -> None:
    headers = {"Content-Length": str(9 << 30)}
    host, port = rig.client.base_url.host, rig.client.base_url.port or 0
    with socket.create_connection((host, port)) as connection:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"POST /instances HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


# Who may.


def test_who_may_store_may_whatever_the_role(rig: OrthancRig) -> None:
    for number, role in enumerate(Role, 1):
        body = part10_of(make_instance(number))
        shut_out = rig.token(f"{role}-not", role, may_store=False)
        refused = rig.ask("POST", "/instances", body, headers=shut_out)
        assert (refused.status, refused.value["OrthancStatus"], refused.value["Uri"]) == (
            403,
            29,
            "/instances",
        )
        assert "permission to store" in refused.value["Details"]
        assert len(receipts(rig)) == number - 1
        allowed = rig.token(f"{role}-may", role, may_store=True)
        kept = rig.ask("POST", "/instances/", body, headers=allowed)
        assert (kept.status, kept.value["Status"]) == (200, "Success")
        assert len(receipts(rig)) == number
    sender = rig.token("sender", Role.NONE, may_store=True)
    own = rig.ask("POST", "/instances", part10_of(INSTANCE), headers=sender).value
    for path in (own["Path"], f"/studies/{own['ParentStudy']}", "/instances", "/api/receipts", "/changes"):
        assert rig.ask("GET", path, headers=sender).status == 403
    assert rig.ask("DELETE", own["Path"], headers=sender).status == 403
