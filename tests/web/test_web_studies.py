"""STOW-RS on a running server: every status, what is kept, and what the ledger says of it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stowkeeper.archive.admission import DiskMarks
from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.services.file_terms import FileTerms, PreamblePolicy
from stowkeeper.web.roles import Role
from stowkeeper.web.services import DICOMwebOptions
from support.archive_server import (
    data_set_of,
    depot_leftovers,
    instances,
    open_archive,
    requests,
)
from support.instances import encode_element, make_instance
from support.job_engine_thread import wait_until
from support.orthanc_rig import part10_of
from support.quick_web import PLAIN_HTTP
from support.stow_bodies import BOUNDARY, DICOM, RELATED, body_of, closing, in_pieces, part
from support.web_server import bearer, web_client
from support.web_studies import PARTS, STUDIES, Storing

ONE_FILE = {"Content-Type": DICOM}
FILES = [part10_of(make_instance(number)) for number in (1, 2, 3)]
UIDS = ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


@pytest.fixture
def storing(tmp_path: Path) -> Iterator[Storing]:
    with web_client(tmp_path / "archive") as (client, rig):
        yield Storing(client, rig)


# 200.


@pytest.mark.parametrize("path", [STUDIES, STUDIES + "/", STUDIES + "/1.2.10", STUDIES + "/1.2.10/"])
def test_files_are_kept_and_said_to_be(storing: Storing, path: str) -> None:
    status, answer = storing.post(body_of(*FILES), path=path)
    assert (status, answer.stored, answer.failed, answer.others) == (200, UIDS, [], [])
    assert storing.kept() == UIDS


@pytest.mark.parametrize("size", [600, 900_000, 1_500_000, 7_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_data_set_is_kept_byte_by_byte(storing: Storing, size: int, is_chunked: bool) -> None:
    instance = make_instance(1, size=size)
    body = body_of(part10_of(instance))
    status, _ = storing.post(in_pieces(body, 100_003) if is_chunked else body)
    assert status == 200
    (row,) = instances(storing.archive)
    assert data_set_of(storing.archive, row) == instance.data


def test_one_file_needs_no_parts(storing: Storing) -> None:
    status, answer = storing.post(FILES[0], ONE_FILE)
    assert (status, answer.stored) == (200, UIDS[:1])


@pytest.mark.slow
def test_a_body_may_come_byte_by_byte(storing: Storing) -> None:
    status, answer = storing.post(in_pieces(body_of(*FILES), 1))
    assert (status, answer.stored) == (200, UIDS)


def test_the_same_again_is_success_and_kept_once(storing: Storing) -> None:
    for _ in range(2):
        assert storing.post(body_of(FILES[0], FILES[0]))[0] == 200
    assert storing.kept() == UIDS[:1]


@pytest.mark.slow
def test_the_same_again_mends_what_was_damaged_meanwhile(storing: Storing) -> None:
    assert storing.post(body_of(FILES[0]))[0] == 200
    (row,) = instances(storing.archive)
    path = Path(storing.archive.root) / row["path"]
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(damaged)
    assert storing.post(body_of(FILES[0]))[0] == 200

    def put_away() -> list[Path]:
        found = (Path(storing.archive.root) / "quarantine").rglob("*.dcm")
        return [one for one in found if one.read_bytes() == damaged]

    wait_until(lambda: bool(put_away()), "the damaged file is in quarantine")
    wait_until(lambda: instances(storing.archive)[0]["path"] != row["path"], "the new one is current")
    (mended,) = instances(storing.archive)
    assert data_set_of(storing.archive, mended) == make_instance(1).data


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"content-type": "APPLICATION/DICOM; transfer-syntax=1.2.840.10008.1.2.1"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": DICOM, "Content-Transfer-Encoding": "binary", "Content-Length": "7"},
        {"Content-Type": DICOM, "Content-Location": "file:///a/b.dcm", "X-Own": "value"},
    ],
)
def test_fields_of_a_part_may_be_any(storing: Storing, fields: dict[str, str]) -> None:
    status, _ = storing.post(part(FILES[0], fields) + closing())
    assert status == 200


def test_a_file_without_preamble_is_taken_as_by_import(storing: Storing) -> None:
    assert storing.post(body_of(FILES[0][132:]))[0] == 200


def test_the_receipt_says_how_it_came(storing: Storing) -> None:
    token = storing.rig.token("viewer", Role.READ, may_store=True)
    storing.client.headers.update(bearer(token))
    assert storing.post(body_of(*FILES[:2]))[0] == 200
    line = storing.line()
    assert (line["peer_address"], line["ended"]) == ("127.0.0.1", "released")
    assert line["words"] == "STOW-RS, credential viewer"
    lines = requests(storing.archive, line["association_id"])
    assert [(one.message_id, one.status, one.outcome) for one in lines] == [(1, 0, "kept"), (2, 0, "kept")]
    receipts = storing.client.get("/api/receipts").json()["items"]
    assert {row["received_by"] for row in receipts} == {"STOW-RS"}
    assert {row["association_id"] for row in receipts} == {line["association_id"]}
    assert {row["answer"] for row in receipts} == {"known"}


# 202 and 409.


def test_one_bad_part_harms_no_other(storing: Storing) -> None:
    bad = [b"no DICOM at all", b"", FILES[1][:400], b"x" * 2_000_000]
    status, answer = storing.post(body_of(FILES[0], *bad, FILES[2]))
    assert (status, answer.stored) == (202, [UIDS[0], UIDS[2]])
    assert answer.failed == [(UIDS[1], 0xC000)]
    assert answer.others == [0xC000] * 3
    assert all(answer.words)
    assert storing.kept() == [UIDS[0], UIDS[2]]


def test_another_study_than_that_of_the_address_is_refused(storing: Storing) -> None:
    other = part10_of(make_instance(9, study="1.2.11"))
    status, answer = storing.post(body_of(FILES[0], other), path=STUDIES + "/1.2.10")
    assert (status, answer.stored, answer.failed) == (202, UIDS[:1], [("1.2.3.9", 0xC409)])
    status, answer = storing.post(body_of(other), path=STUDIES + "/1.2.10")
    assert (status, answer.failed) == (409, [("1.2.3.9", 0xC409)])
    assert storing.kept() == UIDS[:1]


def test_a_class_that_is_not_stored_is_refused(storing: Storing) -> None:
    echo = part10_of(make_instance(1, sop_class_uid="1.2.840.10008.1.1"))
    status, answer = storing.post(body_of(echo))
    assert (status, answer.failed) == (409, [(UIDS[0], 0x0122)])


def test_a_transfer_syntax_that_is_not_known_is_refused(storing: Storing) -> None:
    odd = FILES[0].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
    status, answer = storing.post(body_of(odd))
    assert (status, answer.failed) == (409, [(UIDS[0], 0xC122)])
    line = storing.line()
    assert [one.outcome for one in requests(storing.archive, line["association_id"])] == ["refused"]


def test_what_breaks_off_within_its_data_set_is_refused(storing: Storing) -> None:
    status, answer = storing.post(body_of(FILES[0][:-100]))
    assert (status, answer.failed) == (409, [(UIDS[0], 0xC000)])
    assert depot_leftovers(storing.archive) == []


@pytest.mark.slow
def test_a_second_version_goes_by_the_policy(tmp_path: Path) -> None:
    other = part10_of(make_instance(1, content=1))

    def terms(_address: str) -> FileTerms:
        return FileTerms(duplicates=DuplicatePolicy.REFUSE)

    with web_client(tmp_path / "archive", file_terms=terms) as (client, rig):
        storing = Storing(client, rig)
        assert storing.post(body_of(FILES[0]))[0] == 200
        status, answer = storing.post(body_of(other))
        assert (status, answer.failed) == (409, [(UIDS[0], 0x0111)])


@pytest.mark.slow
def test_remarks_are_warnings(tmp_path: Path) -> None:
    name = encode_element(0x00100010, b"PN", b"Test^Patient")
    patient_id = encode_element(0x00100020, b"LO", b"P1")
    assert name + patient_id in FILES[0]
    odd = FILES[0].replace(name + patient_id, patient_id + name)
    for quiet, expected in ((False, 202), (True, 200)):
        options = DICOMwebOptions(warnings_are_successes=quiet)
        with web_client(tmp_path / str(quiet), dicomweb=options) as (client, rig):
            storing = Storing(client, rig)
            status, answer = storing.post(body_of(odd))
            assert (status, answer.stored) == (expected, UIDS[:1]), answer
            assert answer.warnings == [0xB007]


# 400.


@pytest.mark.parametrize("body", [b"", body_of(), closing(), b"\r\n", body_of(b""), body_of(b"", b"")])
def test_nothing_in_it_is_400(storing: Storing, body: bytes) -> None:
    assert storing.post(body)[0] == 400
    assert storing.post(in_pieces(body, 10))[0] == 400


def test_an_empty_single_file_is_400(storing: Storing) -> None:
    assert storing.post(b"", ONE_FILE)[0] == 400
    assert storing.post(b"no DICOM", ONE_FILE)[0] == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related; type=application/dicom",
        'multipart/related; type="application/dicom"; boundary=""',
        f'multipart/related; type="application/dicom"; boundary="{"x" * 257}"',
    ],
)
def test_without_a_boundary_it_is_400(storing: Storing, content_type: str) -> None:
    status, words = storing.problem(body_of(*FILES), {"Content-Type": content_type})
    assert status == 400
    assert "boundary" in words


def test_a_boundary_that_lies_is_400(storing: Storing) -> None:
    status, answer = storing.post(body_of(*FILES), {"Content-Type": RELATED.replace(BOUNDARY, "other")})
    assert (status, answer.stored) == (400, [])
    assert "boundary" in answer.words[0]


def test_line_ends_without_cr_are_told_so(storing: Storing) -> None:
    status, answer = storing.post(body_of(FILES[0]).replace(b"\r\n", b"\n"))
    assert status == 400
    assert "LF" in answer.words[0]


def test_a_body_without_its_close_keeps_what_was_whole(storing: Storing) -> None:
    body = part(FILES[0]) + part(FILES[1])
    status, answer = storing.post(body)
    assert (status, answer.stored, answer.failed) == (202, UIDS[:1], [(UIDS[1], 0xC000)])
    assert storing.kept() == UIDS[:1]


@pytest.mark.parametrize("study", ["1.2.x", "..%2f..", "1.2." + "3" * 64, "01.2"])
def test_a_study_that_is_no_uid_is_400(storing: Storing, study: str) -> None:
    response = storing.client.post(f"{STUDIES}/{study}", content=body_of(FILES[0]), headers=PARTS)
    assert response.status_code in {400, 404}
    assert storing.kept() == []


# 401, 403, 405, 406, 413, 415, 503.


def test_who_may_not_is_told_before_the_body(storing: Storing) -> None:
    reader = storing.rig.token("reader", Role.READ)
    sender = storing.rig.token("sender", Role.NONE, may_store=True)
    assert storing.problem(body_of(*FILES), PARTS)[0] == 401
    assert storing.problem(body_of(*FILES), PARTS | bearer(reader))[0] == 403
    assert storing.post(body_of(*FILES), PARTS | bearer(sender))[0] == 200
    assert storing.client.get("/api/instances", headers=bearer(sender)).status_code == 403


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD"])
@pytest.mark.parametrize("path", [STUDIES, STUDIES + "/1.2.10"])
def test_other_methods_are_405(storing: Storing, method: str, path: str) -> None:
    response = storing.client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, "POST, OPTIONS")


@pytest.mark.parametrize("path", ["/dicom-web", "/dicom-web/", STUDIES, STUDIES + "/1.2.10"])
def test_options_give_the_capabilities(storing: Storing, path: str) -> None:
    response = storing.client.options(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/vnd.sun.wadl+xml")
    assert "OPTIONS" in response.headers["allow"]
    assert b'path="studies"' in response.content


def test_an_answer_that_nobody_can_give_is_406(storing: Storing) -> None:
    assert storing.problem(body_of(FILES[0]), PARTS | {"Accept": "image/png"})[0] == 406
    assert storing.kept() == []


@pytest.mark.parametrize(
    ("accept", "path", "given"),
    [
        ("*/*", STUDIES, "application/dicom+json"),
        ("application/dicom+xml", STUDIES, "application/dicom+xml"),
        ("image/png", f"{STUDIES}?accept=application/dicom%2bxml", "application/dicom+xml"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", STUDIES, "application/dicom+json"),
    ],
)
def test_the_answer_is_of_the_type_that_is_wanted(
    storing: Storing, accept: str, path: str, given: str
) -> None:
    response = storing.client.post(path, content=body_of(FILES[0]), headers=PARTS | {"Accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, given)
    assert UIDS[0].encode() in response.content


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=x", "application/json", "text/plain", "", "dicom"]
)
def test_another_type_is_415(storing: Storing, content_type: str) -> None:
    status, words = storing.problem(body_of(FILES[0]), {"Content-Type": content_type})
    assert status == 415
    assert DICOM in words


def test_a_body_with_a_content_coding_is_415(storing: Storing) -> None:
    assert storing.problem(b"x", PARTS | {"Content-Encoding": "gzip"})[0] == 415


def test_parts_that_are_all_of_another_type_are_415(storing: Storing) -> None:
    png = part(b"png", {"Content-Type": "image/png"})
    assert storing.post(png + png + closing())[0] == 415
    assert storing.post(png + part(FILES[0]) + closing())[0] == 202


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "x-own"])
def test_an_encoded_part_is_refused(storing: Storing, encoding: str) -> None:
    fields = {"Content-Type": DICOM, "Content-Transfer-Encoding": encoding}
    status, answer = storing.post(part(FILES[0], fields) + closing())
    assert (status, answer.others) == (400, [0xC000])
    assert "binary" in answer.words[0]


def test_longer_parts_than_allowed_are_413(tmp_path: Path) -> None:
    options = DICOMwebOptions(part_bytes_max=2000)
    large = part10_of(make_instance(7, size=5000))
    with web_client(tmp_path / "archive", dicomweb=options) as (client, rig):
        storing = Storing(client, rig)
        assert storing.post(body_of(large))[0] == 413
        status, answer = storing.post(body_of(FILES[0], large))
        assert (status, answer.stored, answer.failed) == (202, UIDS[:1], [("1.2.3.7", 0x0110)])
        assert storing.kept() == UIDS[:1]
        assert depot_leftovers(storing.archive) == []


def test_more_parts_than_allowed_are_not_read(tmp_path: Path) -> None:
    options = DICOMwebOptions(parts_max=2)
    with web_client(tmp_path / "archive", dicomweb=options) as (client, rig):
        storing = Storing(client, rig)
        status, answer = storing.post(body_of(*FILES))
        assert (status, answer.stored, answer.others) == (202, UIDS[:2], [0xC000])
        assert "2 parts" in answer.words[0]


def test_without_room_it_is_503_before_the_body(tmp_path: Path) -> None:
    marks = DiskMarks(instance_bytes=1 << 60, association_bytes=0, instance_inodes=0, association_inodes=0)
    archive = open_archive(tmp_path / "archive", marks=marks)
    with web_client(tmp_path / "archive", archive=archive) as (client, rig):
        response = client.post(STUDIES, content=body_of(FILES[0]), headers=PARTS)
        assert (response.status_code, "retry-after" in response.headers) == (503, True)
        assert rig.archive is archive
    archive.close()


def test_where_room_ends_within_the_body_it_is_503_after_it(
    storing: Storing, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = storing.archive.admission
    monkeypatch.setattr(admission, "admit", lambda: "the disk has no room")
    status, answer = storing.post(body_of(*FILES))
    assert (status, [reason for _, reason in answer.failed]) == (503, [0xA700] * 3)


def test_more_requests_than_allowed_are_503(tmp_path: Path) -> None:
    options = DICOMwebOptions(requests_max=1)
    with web_client(tmp_path / "archive", dicomweb=options) as (client, rig):
        storing = Storing(client, rig)
        other: list[int] = []

        def slow() -> Iterator[bytes]:
            yield part(FILES[0]) + part(FILES[2])
            wait_until(storing.kept, "the request to be inside, and its first part kept")
            response = httpx.post(
                client.base_url.join(STUDIES), content=body_of(FILES[1]), headers=PARTS, verify=PLAIN_HTTP
            )
            other.append(response.status_code)
            yield closing()

        assert storing.post(slow())[0] == 200
        assert other == [503]
        assert storing.post(body_of(FILES[1]))[0] == 200


# The rest.


def test_the_path_can_be_another(tmp_path: Path) -> None:
    options = DICOMwebOptions(base_path="/pacs/rs")
    with web_client(tmp_path / "archive", dicomweb=options) as (client, rig):
        storing = Storing(client, rig)
        assert storing.post(body_of(FILES[0]), path="/pacs/rs/studies")[0] == 200
        assert storing.problem(b"", {"Content-Type": "a/b"}, path="/pacs/rs/studies")[0] == 415
        assert client.post(STUDIES, content=body_of(FILES[0]), headers=PARTS).status_code == 404


def test_a_retrieve_service_is_named_where_there_is_one(tmp_path: Path) -> None:
    options = DICOMwebOptions(retrieve_url="https://pacs.example.org/rs")
    with web_client(tmp_path / "archive", dicomweb=options) as (client, _):
        found = client.post(STUDIES, content=body_of(*FILES[:1]), headers=PARTS).json()
        study = "https://pacs.example.org/rs/studies/1.2.10"
        assert found["00081190"]["Value"] == [study]
        (item,) = found["00081199"]["Value"]
        assert item["00081190"]["Value"] == [f"{study}/series/1.2.10.1/instances/1.2.3.1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "preamble", "expected"),
    [
        (PreamblePolicy.ZERO, b"MZ" + b"x" * 126, bytes(128)),
        (PreamblePolicy.KEEP, b"MZ" + b"x" * 126, b"MZ" + b"x" * 126),
        (PreamblePolicy.TIFF, b"MZ" + b"x" * 126, bytes(128)),
        (PreamblePolicy.TIFF, b"II*\0" + b"x" * 124, b"II*\0" + b"x" * 124),
        (PreamblePolicy.REFUSE, b"MZ" + b"x" * 126, None),
        (PreamblePolicy.REFUSE, bytes(128), bytes(128)),
    ],
)
def test_a_preamble_goes_by_the_policy(
    tmp_path: Path, policy: PreamblePolicy, preamble: bytes, expected: bytes | None
) -> None:
    file = preamble + FILES[0][128:]
    with web_client(tmp_path / "archive", file_terms=lambda _: FileTerms(preamble=policy)) as (client, rig):
        storing = Storing(client, rig)
        status, answer = storing.post(body_of(file))
        if expected is None:
            assert (status, answer.failed) == (409, [(UIDS[0], 0xC000)])
            return
        (row,) = instances(storing.archive)
        assert Path(storing.archive.path_of(row["path"])).read_bytes()[:128] == expected
        assert status == 200


@pytest.mark.slow
def test_ten_thousand_parts_have_ten_thousand_lines(storing: Storing) -> None:
    files = [part10_of(make_instance(number, size=16)) for number in range(10_000)]
    status, answer = storing.post(body_of(*files))
    assert (status, len(answer.stored)) == (200, 10_000)
    line = storing.line()
    assert line["messages"] == 10_000
    wait_until(
        lambda: len(requests(storing.archive, line["association_id"])) == 10_000, "the lines of all parts"
    )
