"""What means harm or is broken, by hand: each kind with its length and in chunks of one byte; and who else has a turn meanwhile."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest
from structlog.testing import capture_logs

from stowkeeper.dicom import header
from stowkeeper.services import spooled_body, store_request
from stowkeeper.services.file_terms import FileTerms
from stowkeeper.services.store_request import StoreRequest
from stowkeeper.services.store_request_limits import REFUSALS_LOGGED_MAX
from stowkeeper.web.body_threads import BodyThreads
from stowkeeper.web.services import DICOMwebOptions
from support.archive_server import depot_leftovers, open_archive, requests
from support.hostile import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, bomb, identifiers, nested
from support.instances import Instance, encode_element, make_instance
from support.metadata_requests import identifiers as metadata_identifiers
from support.orthanc_rig import part10_of
from support.store_lines import StoreServer, chunk, head, store_server
from support.stow_bodies import BOUNDARY, DICOM, RELATED, answer_of, body_of, closing, part
from support.web_server import web_client, web_rig, web_serving
from support.web_sockets import connect, read_all, read_one, status_of
from support.web_studies import Storing

pytestmark = pytest.mark.slow

GOOD, OTHER = (part10_of(make_instance(number)) for number in (1, 2))
UID, OTHER_UID = "1.2.3.1", "1.2.3.2"
JSON, XML = (
    f'multipart/related; type="application/dicom+{kind}"; boundary={BOUNDARY}' for kind in ("json", "xml")
)
UNPARSABLE, MISSING, MISMATCH = 0xC000, 0xA922, 0xC409


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    with store_server(tmp_path / "archive") as server:
        yield server


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A body, the status that answers it, what of it is kept, and the reasons of what is not."""

    body: bytes
    status: int
    kept: tuple[str, ...] = ()
    reasons: tuple[int, ...] = ()
    content_type: str = RELATED
    path: str = "/dicom-web/studies"


def metadata(text: str, kind: str = "json") -> bytes:
    return part(text.encode(), {"Content-Type": f"application/dicom+{kind}"}) + closing()


def referring(uri: str) -> bytes:
    return metadata(json.dumps([metadata_identifiers(t7FE00010={"vr": "OB", "BulkDataURI": uri})]))


def file_of(data: bytes, uid: str = "1.2.3.9", transfer_syntax_uid: str = "1.2.840.10008.1.2.1") -> bytes:
    return part10_of(Instance(sop_instance_uid=uid, data=data, transfer_syntax_uid=transfer_syntax_uid))


def named(uid: str) -> bytes:
    """Return a file that says that this is its UID."""
    return file_of(identifiers(uid), uid)


_NEARLY = (
    f"\r\n--{BOUNDARY}x\r\n--{BOUNDARY}-\r\n-- {BOUNDARY}\r\n--{BOUNDARY}\r\r\n--{BOUNDARY[:-1]}".encode()
)
_ODD_PIXELS = identifiers("1.2.3.9") + encode_element(0x7FE00010, b"OB", _NEARLY * 9)
_ENTITY = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><NativeDicomModel>&a;</NativeDicomModel>'

BAD = {
    "no boundary named": Bad(
        body=body_of(GOOD), status=400, content_type=f'multipart/related; type="{DICOM}"'
    ),
    "another boundary": Bad(
        body=body_of(GOOD).replace(BOUNDARY.encode(), b"other"), status=400, reasons=(UNPARSABLE,)
    ),
    "nearly boundaries in pixels": Bad(body=body_of(file_of(_ODD_PIXELS)), status=200, kept=("1.2.3.9",)),
    "cut in its last part": Bad(
        body=body_of(GOOD, OTHER)[:-200], status=202, kept=(UID,), reasons=(UNPARSABLE, UNPARSABLE)
    ),
    "a flood of fields": Bad(
        body=part(GOOD, {f"X-{number}": "x" for number in range(2000)}) + part(OTHER) + closing(),
        status=202,
        kept=(OTHER_UID,),
        reasons=(UNPARSABLE,),
    ),
    "a field that does not end": Bad(
        body=part(GOOD, {"X": "x" * 100_000}) + part(OTHER) + closing(),
        status=202,
        kept=(OTHER_UID,),
        reasons=(UNPARSABLE,),
    ),
    "parts in a part": Bad(
        body=part(b"\r\n--z\r\n\r\n" + GOOD + b"\r\n--z--", {"Content-Type": "multipart/mixed; boundary=z"})
        + part(OTHER)
        + closing(),
        status=202,
        kept=(OTHER_UID,),
        reasons=(UNPARSABLE,),
    ),
    "base64": Bad(
        body=part(b"AAAA", {"Content-Transfer-Encoding": "base64"}) + part(OTHER) + closing(),
        status=202,
        kept=(OTHER_UID,),
        reasons=(UNPARSABLE,),
    ),
    "lengths in parts that lie": Bad(
        body=part(GOOD, {"Content-Length": "99999999999999999999"})
        + part(OTHER, {"Content-Length": "-1"})
        + closing(),
        status=200,
        kept=(UID, OTHER_UID),
    ),
    "LF alone": Bad(body=body_of(GOOD).replace(b"\r\n", b"\n"), status=400, reasons=(UNPARSABLE,)),
    "a deflate bomb": Bad(
        body=body_of(
            file_of(bomb("1.2.3.9", 16 << 20), "1.2.3.9", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN), OTHER
        ),
        status=202,
        kept=(OTHER_UID,),
        reasons=(UNPARSABLE,),
    ),
    "sequences thousands deep": Bad(
        body=body_of(file_of(identifiers("1.2.3.9") + nested(5000, closed=True))),
        status=409,
        reasons=(UNPARSABLE,),
    ),
    "a value of 4 GB": Bad(
        body=body_of(file_of(identifiers("1.2.3.9") + b"\xe0\x7f\x10\x00OB\0\0\xfe\xff\xff\xff1234")),
        status=409,
        reasons=(UNPARSABLE,),
    ),
    "a path for a UID": Bad(
        body=body_of(named("../../../tmp/x"), OTHER), status=202, kept=(OTHER_UID,), reasons=(UNPARSABLE,)
    ),
    "a program in the preamble": Bad(
        body=body_of(b"MZ\x90" + b"\xcc" * 125 + GOOD[128:]), status=200, kept=(UID,)
    ),
    "another study": Bad(
        body=body_of(GOOD, part10_of(make_instance(7, study="1.2.11"))),
        status=202,
        kept=(UID,),
        reasons=(MISMATCH,),
        path="/dicom-web/studies/1.2.10",
    ),
    "entities": Bad(body=metadata(_ENTITY, "xml"), status=400, reasons=(UNPARSABLE,), content_type=XML),
    "JSON ten thousand deep": Bad(
        body=metadata("[" * 10_000), status=400, reasons=(UNPARSABLE,), content_type=JSON
    ),
    "bulk data of nowhere": Bad(body=referring("nowhere"), status=409, reasons=(MISSING,), content_type=JSON),
    "bulk data of another host": Bad(
        body=referring("http://127.0.0.1:1/x"), status=409, reasons=(MISSING,), content_type=JSON
    ),
    "bulk data of this machine": Bad(
        body=referring("file:///etc/passwd"), status=409, reasons=(MISSING,), content_type=JSON
    ),
}


@pytest.mark.parametrize("framing", ["length", "chunks of one byte"])
@pytest.mark.parametrize("name", BAD)
def test_bad_bodies_harm_nobody_else(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch, name: str, framing: str
) -> None:
    defaults = header.HeaderScanner.__init__.__kwdefaults__ | {"inflated_bytes_max": 4 << 20}
    monkeypatch.setattr(header.HeaderScanner.__init__, "__kwdefaults__", defaults)
    bad = BAD[name]
    fields = {"path": bad.path, "content_type": bad.content_type}
    if framing == "length":
        content = head(len(bad.body), **fields) + bad.body
    else:
        letters = b"".join(b"1\r\n%c\r\n" % letter for letter in bad.body)
        content = head(None, **fields) + letters + chunk(b"")
    with connect(server.thread) as sock:
        sock.sendall(content)
        answer = read_one(sock)
    assert status_of(answer) == bad.status
    if b"application/problem+json" not in answer:
        found = answer_of(answer[answer.index(b"{") :])
        assert sorted(found.stored) == sorted(bad.kept)
        assert sorted([*(reason for _, reason in found.failed), *found.others]) == sorted(bad.reasons)
    assert server.kept() == sorted(bad.kept)
    assert depot_leftovers(server.archive) == []


# How it comes.


@pytest.mark.parametrize("cut", [1, 10, 300])
def test_a_length_that_is_too_small_is_answered_by_what_came_within_it(server: StoreServer, cut: int) -> None:
    body = body_of(GOOD, OTHER)
    with connect(server.thread) as sock:
        sock.sendall(head(len(body) - cut) + body)
        answer = read_all(sock)
    assert status_of(answer) == 202
    assert answer_of(answer[answer.index(b"{") :]).stored == [UID]
    assert answer.count(b"HTTP/1.1") == 1  # what came behind it is no request, and ended the connection


def test_what_is_no_request_does_not_take_the_answers_before_it_away(server: StoreServer) -> None:
    whole = [head(len(body)) + body for body in (body_of(GOOD), body_of(OTHER))]
    with connect(server.thread) as sock:
        sock.sendall(b"".join(whole) + b"\0\0\0 no request\r\n\r\n" + b"x" * 100_000)
        answer = read_all(sock)
    assert answer.count(b"HTTP/1.1 200") == answer.count(b"HTTP/1.1") == 2
    assert server.kept() == [UID, OTHER_UID]


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_wish_for_another_protocol_changes_nothing(
    server: StoreServer, protocol: str, is_chunked: bool
) -> None:
    """As Java's client does it with every request, and `curl --http2`."""
    body = body_of(GOOD, part10_of(make_instance(2, size=300_000)))
    wish = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABk")
    content = chunk(body[:1000]) + chunk(body[1000:]) + chunk(b"") if is_chunked else body
    request = head(None if is_chunked else len(body), *wish) + content
    with connect(server.thread) as sock:
        for cut in (len(request), 100, 300, 500):  # in one go, and cut within the head or the body
            sock.sendall(request[:cut])
            sock.sendall(request[cut:])
            answer = read_one(sock)
            assert status_of(answer) == 200
            assert answer_of(answer[answer.index(b"{") :]).stored == [UID, OTHER_UID]


def test_a_client_of_http_1_0_is_not_told_to_go_on(server: StoreServer) -> None:
    body = body_of(GOOD)
    with connect(server.thread) as sock:
        sock.sendall(head(len(body), "Expect: 100-continue", version="1.0") + body)
        answer = read_all(sock)
    assert (status_of(answer), answer.count(b"HTTP/1.1")) == (200, 1)


@pytest.mark.parametrize(
    ("field", "expected"), [("Content-Type: application/dicom", 400), ("Content-Encoding: gzip", 415)]
)
def test_a_field_that_says_two_things_says_none(server: StoreServer, field: str, expected: int) -> None:
    body = body_of(GOOD)
    with connect(server.thread) as sock:
        sock.sendall(head(len(body), "Content-Encoding: identity", field) + body)
        assert status_of(read_one(sock)) == expected
    assert server.kept() == []


# What stands in the place of a UID.


@pytest.mark.parametrize("uid", ["Doe^John", "x" * 60_000])
def test_a_transfer_syntax_that_is_no_uid_is_not_repeated(server: StoreServer, uid: str) -> None:
    body = body_of(file_of(identifiers("1.2.3.9"), "1.2.3.9", uid))
    with capture_logs() as lines, connect(server.thread) as sock:
        sock.sendall(head(len(body)) + body)
        answer = read_one(sock)
        server.line()
    assert status_of(answer) == 409
    assert answer_of(answer[answer.index(b"{") :]).failed == [("1.2.3.9", 0xC122)]
    assert uid.encode() not in answer
    assert not [one for one in lines if uid in str(one)]


@pytest.mark.parametrize("study", ["../..", "..", "a?b", "1.2/../3"])
def test_no_retrieve_url_is_made_of_what_is_no_uid(tmp_path: Path, study: str) -> None:
    options = DICOMwebOptions(retrieve_url="https://pacs.example.org/rs")
    with web_client(tmp_path / "archive", dicomweb=options) as (client, _):
        body = body_of(part10_of(make_instance(1, study=study)))
        response = client.post("/dicom-web/studies", content=body, headers={"Content-Type": RELATED})
    assert response.status_code == 200
    assert "pacs.example.org" not in response.text


# Many of nothing.


def test_others_have_their_turn_between_the_parts_of_a_piece(tmp_path: Path) -> None:
    archive = open_archive(tmp_path / "archive")
    body = b"--b" + b"\r\n--b" * 10_000 + b"--"

    async def turns_of_others() -> int:
        threads, store = BodyThreads(), StoreRequest(archive, FileTerms(), address="192.0.2.1")
        reading = asyncio.create_task(threads.call(lambda: store.read_files([body], "b")))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        await reading
        assert len(store.result().others) == 10_000
        await threads.call(lambda: store.close(is_answered=True))
        return turns

    try:
        assert (
            asyncio.run(turns_of_others()) > 20
        )  # it takes some hundred milliseconds, on a thread of its own
    finally:
        archive.close()


def test_the_log_tells_of_the_first_refusals_and_the_ledger_of_all(server: StoreServer) -> None:
    count = REFUSALS_LOGGED_MAX + 5
    body = body_of(*[b"x"] * count)
    with capture_logs() as lines, connect(server.thread) as sock:
        sock.sendall(head(len(body)) + body)
        assert status_of(read_one(sock)) == 400
        line = server.line()
    told = [one for one in lines if one.get("what") == "an instance was refused"]
    (more,) = [one for one in lines if "more instances" in one.get("what", "")]
    assert (len(told), more["count"], more["association"]) == (REFUSALS_LOGGED_MAX, 5, line["association_id"])
    assert len(requests(server.archive, str(line["association_id"]))) == count


def test_what_comes_behind_the_last_part_that_is_allowed_is_not_waited_for(tmp_path: Path) -> None:
    options = DICOMwebOptions(parts_max=1)
    with (
        web_rig(tmp_path / "archive", dicomweb=options) as rig,
        web_serving(rig.application) as thread,
        connect(thread) as sock,
    ):
        sock.sendall(head(None) + chunk(part(GOOD) + part(OTHER)))  # and nothing more comes
        answer = read_one(sock)
    assert status_of(answer) == 202
    assert answer_of(answer[answer.index(b"{") :]).stored == [UID]


@pytest.fixture
def storing(tmp_path: Path) -> Iterator[Storing]:
    with web_client(tmp_path / "archive") as (client, rig):
        yield Storing(client, rig)


def test_parts_that_are_nothing_are_not_read_on_for_ever(
    storing: Storing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dozen bytes each, they cost a kilobyte of memory and a line in the ledger."""
    monkeypatch.setattr(store_request, "NAMELESS_PARTS_MAX", 20)
    status, answer = storing.post(body_of(GOOD, *[b"x"] * 19, OTHER, *[b"x"] * 50))
    assert (status, sorted(answer.stored), answer.others) == (202, [UID, OTHER_UID], [UNPARSABLE] * 21)
    assert "20 parts are no instance" in " ".join(answer.words)
    assert storing.line()["messages"] == 22


def test_metadata_of_nothing_are_not_read_on_for_ever(
    storing: Storing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_request, "NAMELESS_PARTS_MAX", 20)
    status, answer = storing.post(metadata(json.dumps([{}] * 50)), {"Content-Type": JSON})
    assert (status, len(answer.stored), len(answer.others)) == (409, 0, 21)
    assert storing.line()["messages"] == 20


def test_names_of_parts_are_bounded_together(storing: Storing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled_body, "SPOOLED_NAMES_LETTERS_MAX", 1000)
    bulk = b"".join(part(b"x", {"Content-Location": f"{number:0200}"}) for number in range(9))
    text = json.dumps([metadata_identifiers()]).encode()
    body = part(text, {"Content-Type": "application/dicom+json"}) + bulk + closing()
    status, answer = storing.post(body, {"Content-Type": JSON})
    assert (status, answer.stored) == (202, ["1.2.3.4"])
    assert sum("letters" in words for words in answer.words) == 5


def test_as_many_instances_as_are_allowed_are_success(tmp_path: Path) -> None:
    uids = [f"1.2.3.{number}" for number in (1, 2, 3)]
    text = json.dumps([metadata_identifiers(t00080018={"vr": "UI", "Value": [uid]}) for uid in uids])
    for allowed, expected in ((3, 200), (2, 202)):
        options = DICOMwebOptions(parts_max=allowed)
        with web_client(tmp_path / str(allowed), dicomweb=options) as (client, rig):
            status, answer = Storing(client, rig).post(metadata(text), {"Content-Type": JSON})
            assert (status, answer.stored) == (expected, uids[:allowed])


def test_documents_cost_the_disk_no_more_than_they_are_long(
    storing: Storing, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    read = spooled_body.SpooledBody.metadata

    def measured(spooled: spooled_body.SpooledBody) -> object:
        file: BinaryIO = spooled._file
        lengths.append(file.seek(0, 2))
        return read(spooled)

    monkeypatch.setattr(spooled_body.SpooledBody, "metadata", measured)
    for kind, content_type in (("json", JSON), ("xml", XML)):
        body = part(b"[]", {"Content-Type": f"application/dicom+{kind}"}) * 100 + closing()
        assert storing.post(body, {"Content-Type": content_type})[0] == 400
    assert max(lengths) < 1000


# What the ledger says of it.


def test_metadata_that_cannot_be_read_have_a_line(storing: Storing) -> None:
    text = json.dumps([metadata_identifiers()])[:-1] + ", {"
    status, answer = storing.post(metadata(text), {"Content-Type": JSON})
    assert (status, answer.stored, answer.others) == (202, ["1.2.3.4"], [UNPARSABLE])
    lines = requests(storing.archive, str(storing.line()["association_id"]))
    assert [(one.status, one.outcome) for one in lines] == [(0, "kept"), (UNPARSABLE, "refused")]


def test_a_disk_that_takes_no_file_is_503_with_a_line(
    storing: Storing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(spooled_body.tempfile, "TemporaryFile", fail)
    status, answer = storing.post(metadata(json.dumps([metadata_identifiers()])), {"Content-Type": JSON})
    assert (status, answer.others) == (503, [0xA700])
    (line,) = requests(storing.archive, str(storing.line()["association_id"]))
    assert (line.status, line.outcome) == (0xA700, "refused")
