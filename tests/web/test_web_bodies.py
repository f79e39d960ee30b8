"""Bodies that are made to cost: trailers, long texts of JSON, and more values than anything needs."""

import contextlib
import json
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from stowkeeper.stow.media_types import DICOM_XML
from stowkeeper.web import commitment_payload, routes
from stowkeeper.web.commitment_payload import PayloadError, read_payload
from stowkeeper.web.json_bodies import load_json
from stowkeeper.web.limits import (
    BODY_BYTES_MAX,
    HEAD_BYTES_MAX,
    JSON_AT_ONCE_BYTES,
    JSON_MEMBERS_MAX,
    JSON_TEXT_CHARACTERS_MAX,
    JSON_VALUES_AT_ONCE_MAX,
    JSON_VALUES_MAX,
)
from stowkeeper.web.orthanc_waiting import turn_of
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import check_json
from support.quick_web import PLAIN_HTTP
from support.web_server import Rig, WebThread, bearer, web_client, web_rig, web_serving
from support.web_sockets import connect, read_all, read_one, status_of

ENDLESS_BYTES = 64 << 20
"""Bytes that nobody takes: far beyond the buffers of two sockets."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[WebThread, Rig]]:
    with web_rig(tmp_path / "archive") as rig, web_serving(rig.application) as thread:
        yield thread, rig


def chunked(path: str = "/api/jobs", *fields: str) -> bytes:
    """Return the head of a request with a chunked body."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *fields]
    return "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()


BODY = json.dumps({"kind": "rebuild"}).encode()
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)


# Behind the body


def test_a_field_behind_a_body_is_no_field_of_the_head(served: tuple[WebThread, Rig]) -> None:
    thread, rig = served
    token = rig.token()
    field = f"Authorization: Bearer {token}"
    with connect(thread) as sock:
        sock.sendall(chunked() + CHUNK + f"0\r\n{field}\r\n\r\n".encode())
        answer = read_all(sock)
    assert status_of(answer) in {400, 401}
    with connect(thread) as sock:  # the same body with the field where it belongs
        sock.sendall(chunked("/api/jobs", field) + CHUNK + b"0\r\n\r\n")
        assert status_of(read_one(sock)) == 201


def test_a_request_with_trailers_is_refused_in_words_and_not_served(served: tuple[WebThread, Rig]) -> None:
    thread, rig = served
    with connect(thread) as sock:
        sock.sendall(chunked() + CHUNK)
        sock.sendall(b"0\r\nX-Checksum: 1\r\n\r\n")
        answer = read_all(sock)
    assert status_of(answer) == 400
    assert b"fields behind its body" in answer
    assert httpx.get(f"{thread.url}/api/jobs", verify=PLAIN_HTTP).json()["items"] == []
    assert rig.woken == []


@pytest.mark.parametrize(
    "endless",
    [b"x1: y\r\n", b"y" * 64, b";name=value"],
    ids=["fields", "one field", "extensions"],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_what_has_no_end_beside_a_body_is_cut_off(
    served: tuple[WebThread, Rig], endless: bytes, is_known: bool
) -> None:
    thread, rig = served
    token = rig.token()
    begun = b"0\r\nx: " if endless[:1] == b"y" else b"1" if endless[:1] == b";" else b"0\r\n"
    piece = endless * (64 * 1024 // len(endless))
    sent = 0
    with connect(thread) as sock:
        sock.sendall(chunked("/api/jobs", *([f"Authorization: Bearer {token}"] if is_known else [])) + begun)
        with contextlib.suppress(ConnectionError):
            while sent < ENDLESS_BYTES:
                sock.sendall(piece)
                sent += len(piece)
    assert sent < ENDLESS_BYTES
    thread.wait_until(lambda: thread.server.connections == 0)


@pytest.mark.slow
def test_small_chunks_with_extensions_are_a_body_still(served: tuple[WebThread, Rig]) -> None:
    thread, _ = served
    pieces = [b"1;name=value\r\n%c\r\n" % byte for byte in BODY.ljust(2 * HEAD_BYTES_MAX)]
    with connect(thread) as sock:
        sock.sendall(chunked() + b"".join(pieces) + b"0\r\n\r\n")
        assert status_of(read_one(sock)) == 201


# Reading JSON

NESTED = b"[]" * (routes.JSON_DEPTH_MAX + 1)
LONG: dict[str, Callable[[int], bytes]] = {
    "escapes": lambda size: NESTED + b'"' + b'\\"' * (size // 2),
    "escapes and a backslash": lambda size: NESTED + b'"' + b'\\"' * (size // 2) + b"\\",
    "quotation marks": lambda size: NESTED + b'"' * size,
    "one text": lambda size: NESTED + b'"' + b"x" * size + b'"',
}


def seconds_of(body: bytes) -> float:
    """Return the shortest time of three, of this thread alone, that a body takes. It is let through."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        check_json(body)
        times.append(time.thread_time() - began)
    return min(times)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_twice_as_long_a_body_takes_about_twice_as_long(name: str) -> None:
    make = LONG[name]
    # What grows with the square took 11 s for 50 kB, and would not come to an end here.
    size = 16 * 1024
    assert seconds_of(make(size)) < 1
    size = BODY_BYTES_MAX // 8
    short, long = seconds_of(make(size)), seconds_of(make(8 * size))
    assert long < 8 * 4 * short + 0.5


def test_a_long_text_takes_no_memory_to_look_at() -> None:
    body = LONG["escapes"](BODY_BYTES_MAX)
    check_json(body)
    tracemalloc.start()
    try:
        check_json(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


@pytest.mark.parametrize(
    ("body", "is_deep"),
    [
        (b"[" * 33 + b"]" * 33, True),
        (b'{"a":' * 33 + b"1" + b"}" * 33, True),
        (b'["\\\\",' + b"[" * 32 + b"]" * 32 + b"]", True),
        (b'["\\"",' + b"[" * 32 + b"]" * 32 + b"]", True),
        (b"[" * 32 + b"]" * 32, False),
        (b'["' + b"[" * 100 + b'"]', False),
        (b'["\\"' + b"[" * 100 + b'"]', False),
        (b'["\n' + b"[" * 100, False),
        (b"[]" * 100, False),
    ],
)
def test_brackets_count_where_they_are_no_text(body: bytes, is_deep: bool) -> None:
    if not is_deep:
        check_json(body)
        return
    with pytest.raises(ProblemError) as caught:
        check_json(body)
    assert caught.value.status_code == 400


NO_UTF8 = (
    b'{"kind": "\xed\xa0\x80"}',
    b'{"kind": "\xff"}',
    b'{"kind": "rebuild\xc3',
    json.dumps({"kind": "rebuild"}).encode("utf-16"),
    json.dumps({"kind": "rebuild"}).encode("utf-16-le"),
    json.dumps({"kind": "rebuild"}).encode("utf-32-be"),
    '{"kind": "\ud800\u8080"}'.encode("utf-16-le", "surrogatepass"),
)


@pytest.mark.parametrize("body", NO_UTF8)
def test_what_is_not_utf_8_is_400_everywhere(tmp_path: Path, body: bytes) -> None:
    with web_client(tmp_path / "archive") as (client, _):
        for path, media_type in (
            ("/api/jobs", "application/json"),
            ("/modalities/nobody/store", "application/json"),
            ("/modalities/nobody/storage-commitment", "text/plain"),
            ("/dicom-web/commitment-requests/1.2.3", "application/dicom+json"),
        ):
            answer = client.post(path, content=body, headers={"Content-Type": media_type})
            assert (path, answer.status_code) == (path, 400)


def test_letters_of_all_lengths_are_utf_8() -> None:
    for letters in ("é", "漢", "😀"):
        check_json(f'"{letters * 100_000}"'.encode())
        check_json(f'" {letters * 100_000}"'.encode())


@pytest.mark.slow
@pytest.mark.parametrize("value", [b"{}", b"[]", b"1"])
def test_more_values_than_anything_needs_are_413(value: bytes) -> None:
    most = [value] * (JSON_VALUES_MAX - 1)
    check_json(b"[" + b",".join(most) + b"]")
    with pytest.raises(ProblemError) as caught:
        check_json(b"[" + b",".join([*most, value, value, value]) + b"]")
    assert caught.value.status_code == 413


def test_a_body_that_is_read_in_one_go_has_fewer_values(served: tuple[WebThread, Rig]) -> None:
    """Each value costs up to 2 µs, in which no other thread of the process runs."""
    thread, _ = served
    with httpx.Client(base_url=thread.url, verify=PLAIN_HTTP) as client:
        for count, expected in ((JSON_VALUES_AT_ONCE_MAX, 422), (JSON_VALUES_AT_ONCE_MAX + 2, 413)):
            body = b"[" + b",".join([b"1"] * count) + b"]"
            answer = client.post("/api/jobs", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == expected, answer.text


# What takes seconds where it is read in one go, each of some megabytes.
ITEM = b'{"00081150":{"vr":"UI","Value":["1.2.840.10008.5.1.4.1.1.2"]}}'
LARGE = {
    "digits": lambda: b"[" + b",".join([b"9" * 4299] * 1000) + b"]",
    "fractions": lambda: b"[" + b",".join([b"1." + b"2" * 58] * 50_000) + b"]",
    "lists": lambda: b"[" + b",".join([b"[]"] * 100_000) + b"]",
    "items": lambda: b'{"00081199":{"vr":"SQ","Value":[' + b",".join([ITEM] * 30_000) + b"]}}",
    "texts": lambda: b"[" + b",".join([b'"' + b"\\n" * 10_000 + b'"'] * 200) + b"]",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_others_have_their_turns_while_a_large_body_is_read(name: str) -> None:
    body = LARGE[name]()
    turns = 0
    is_over = threading.Event()

    def take_turns() -> None:
        nonlocal turns
        while not is_over.is_set():
            turns += 1
            time.sleep(0)  # which gives the turn back

    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    other = threading.Thread(target=take_turns)
    try:
        other.start()
        turns = 0
        found = load_json(body)
        seen = turns
    finally:
        is_over.set()
        other.join()
        sys.setswitchinterval(before)
    assert found == json.loads(body)
    assert seen > 20


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'["' + b"x" * JSON_TEXT_CHARACTERS_MAX + b'"]', "a text has no end within"),
        (b"[0." + b"1" * 2 * JSON_TEXT_CHARACTERS_MAX + b"]", "a value or a gap is longer"),
        (b"[" + b" " * 2 * JSON_TEXT_CHARACTERS_MAX + b"]", "a value or a gap is longer"),
        (b'["' + b'\\"' * JSON_TEXT_CHARACTERS_MAX + b'"]', "a text has no end within"),
        (
            json.dumps(dict.fromkeys(map(str, range(JSON_MEMBERS_MAX + 1)))).encode(),
            "an object has more than",
        ),
        (b"[" + b" " * JSON_AT_ONCE_BYTES, "Expecting value"),
    ],
)
def test_what_would_take_long_in_one_piece_is_refused(body: bytes, words: str) -> None:
    assert len(body) > JSON_AT_ONCE_BYTES
    with pytest.raises(ValueError, match=words):
        load_json(body)


def test_a_large_body_is_read_as_a_small_one_is() -> None:
    pad = [" " * JSON_AT_ONCE_BYTES]
    for value in ([], {"a": [1, -2.5, 1e9, True, None]}, ["é😀\n\\", ""], {"": {"": []}}):
        assert load_json(json.dumps([pad, value]).encode()) == [pad, value]
        assert load_json(json.dumps([pad, value], ensure_ascii=False).encode("utf-8-sig")) == [pad, value]


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, (1 << 20) - 4, (1 << 20) - 3, (1 << 20) - 2, (1 << 20) - 1, 1 << 20])
def test_half_of_a_character_is_found_wherever_it_stands(at: int) -> None:
    """The body is looked at in pieces of a mebibyte, and what begins at this byte may stand across two of them."""
    body = b"[" + b'"x",' * ((at - 2) // 4) + b" " * ((at - 2) % 4) + b'"\\ud800"]'
    assert body.index(b"\\") == at
    with pytest.raises(ProblemError, match="half of a character"):
        check_json(body)


def test_what_is_too_long_to_be_looked_at_for_halves_is_refused() -> None:
    members = dict.fromkeys([*map(str, range(JSON_MEMBERS_MAX)), "\ud800"])
    with pytest.raises(ProblemError, match="an object has more than") as caught:
        check_json(json.dumps(members).encode())
    assert caught.value.status_code == 413


@pytest.mark.slow
def test_a_request_for_as_many_instances_as_there_may_be_is_taken() -> None:
    one = {
        "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
        "00081155": {"vr": "UI", "Value": ["1.2.3"]},
    }
    item = json.dumps(one).encode()
    check_json(b'{"00081199":{"vr":"SQ","Value":[' + b",".join([item] * 100_000) + b"]}}")


def test_items_in_xml_have_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment_payload, "COMMITMENT_VALUES_MAX", 10)
    value = b'<DicomAttribute tag="00081155"><Value>1.2</Value></DicomAttribute>'
    for made in (b"<Item/>" * 11, b"<Item>" + value * 11 + b"</Item>"):
        body = (
            b'<NativeDicomModel><DicomAttribute tag="00081199">'
            + made
            + b"</DicomAttribute></NativeDicomModel>"
        )
        with pytest.raises(PayloadError) as caught:
            read_payload(body, DICOM_XML)
        assert caught.value.is_too_long


def test_large_bodies_are_taken_apart_one_at_a_time(served: tuple[WebThread, Rig]) -> None:
    thread, rig = served
    small, large = b"x" * BODY_BYTES_MAX, b"x" * (BODY_BYTES_MAX + 1)
    database = rig.archive.database

    async def inside(first: bytes, second: bytes) -> bool:
        """Tell whether the second is let in while the first is being taken apart."""
        import asyncio

        async def enter() -> None:
            async with turn_of(database, second):
                pass

        async with turn_of(database, first):
            task = asyncio.create_task(enter())
            for _ in range(10):
                await asyncio.sleep(0)
            found = task.done()
        await task
        return found

    assert thread.run(inside(large, small))
    assert thread.run(inside(small, large))
    assert not thread.run(inside(large, large))
    assert thread.run(inside(small, large))


def test_who_may_not_ask_is_told_so_before_a_body_is_looked_at(served: tuple[WebThread, Rig]) -> None:
    thread, rig = served
    token = rig.token("monitor", Role.READ)
    answer = httpx.post(
        f"{thread.url}/api/jobs", content=NO_UTF8[0], headers=bearer(token), verify=PLAIN_HTTP
    )
    assert answer.status_code == 403
