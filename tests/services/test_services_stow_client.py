"""The STOW-RS client: what it sends, and what it makes of what a server answers."""

import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest

from stowkeeper.services.send_plan import read_sendable
from stowkeeper.services.stow_client.answers import status_line
from stowkeeper.services.stow_client.batches import BatchBody, QueuedFile, UnreadableFileError
from stowkeeper.services.stow_client.connection import Answer as HTTPAnswer
from stowkeeper.services.stow_client.connection import _AnsweredEarlyError, _Line
from stowkeeper.services.stow_client.credentials import bearer
from stowkeeper.services.stow_client.limits import ANSWER_WORDS_LETTERS_MAX
from stowkeeper.stow.response import StoredInstance, StoreResult, write_response
from support.scripted_dicomweb import Answer, Reply, Request, Script, module, scripted_server, store_all
from support.send_files import write_file
from support.stowing import make_files, stow


def reply(body: bytes, status: int = 200) -> Script:
    return Script(answer=lambda _: Reply(status, body))


# What goes out


def test_files_go_as_they_are_in_whole_requests(tmp_path: Path) -> None:
    files = make_files(tmp_path, 7)
    with scripted_server() as server:
        seen = stow(files, server.url, instances=3)
    assert set(seen.results.values()) == {"stored"}
    assert len(seen.outcomes) == 7
    assert seen.ended_by == ""
    assert [len(request.parts) for request in server.requests] == [3, 3, 1]
    sent = [part for request in server.requests for part in request.parts]
    assert sent == [Path(file.path).read_bytes() for file in files]
    assert server.connections == 1
    for request in server.requests:
        assert request.line == "POST /dicom-web/studies HTTP/1.1"
        assert request.fields["content-type"].startswith(
            'multipart/related; type="application/dicom"; boundary="'
        )
        assert request.fields["accept"] == "application/dicom+json"
        assert request.fields["host"] == f"127.0.0.1:{server.port}"
        assert "transfer-encoding" not in request.fields
        assert "authorization" not in request.fields
        assert set(request.part_fields) == {b"Content-Type: application/dicom"}
    assert len({request.fields["content-type"] for request in server.requests}) == 3


@pytest.mark.parametrize("size", [0, 262_144 - 600, 262_144, 262_146, 900_000])
def test_files_around_the_size_of_a_piece_stay_whole(tmp_path: Path, size: int) -> None:
    files = make_files(tmp_path, 3, pixels=bytes(range(256)) * (size // 256) + bytes(size % 256))
    with scripted_server() as server:
        seen = stow(files, server.url)
    assert set(seen.results.values()) == {"stored"}
    assert list(server.requests[0].parts) == [Path(file.path).read_bytes() for file in files]


def test_a_study_and_query_parameters_stand_in_the_request_line(tmp_path: Path) -> None:
    with scripted_server() as server:
        stow(make_files(tmp_path, 1), f"{server.url}/studies?a=b", study="1.2.4")
    assert server.requests[0].line == "POST /dicom-web/studies/1.2.4?a=b HTTP/1.1"


def test_a_request_is_bounded_in_bytes_but_for_a_single_file(tmp_path: Path) -> None:
    files = make_files(tmp_path, 4)
    write_file(tmp_path / "large.dcm", 9, pixels=bytes(5000))
    files.insert(1, read_sendable(str(tmp_path / "large.dcm")))
    with scripted_server() as server:
        seen = stow(files, server.url, bytes_max=files[0].size * 2)
    assert [request.uids for request in server.requests] == [
        ["1.2.3.0"],
        ["1.2.3.9"],
        ["1.2.3.1", "1.2.3.2"],
        ["1.2.3.3"],
    ]
    assert len(seen.outcomes) == 5


def test_no_request_has_an_instance_twice(tmp_path: Path) -> None:
    files = make_files(tmp_path, 2)
    write_file(tmp_path / "again.dcm", 0, pixels=b"other pixels")
    with scripted_server() as server:
        seen = stow([*files, read_sendable(str(tmp_path / "again.dcm"))], server.url)
    assert [request.uids for request in server.requests] == [["1.2.3.0", "1.2.3.1"], ["1.2.3.0"]]
    assert [outcome.result.value for outcome in seen.outcomes] == ["stored"] * 3


def test_requests_go_side_by_side(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def answer(request: Request) -> Answer:
        both.wait(30)  # a single request at a time would wait in vain
        return store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 4), server.url, instances=1, parallel=2)
    assert server.connections == 2
    assert list(seen.results.values()) == ["stored"] * 4


@pytest.mark.slow
def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    (file,) = make_files(tmp_path, 1)
    with open(file.path, "ab") as stream:
        stream.truncate(300_000_000)  # a hole, which takes no disk
    script = Script(answer=lambda _: Reply(body=module("1.2.3.0")), discards=True)
    with scripted_server(script) as server:
        grown = read_sendable(file.path)
        stow([file], server.url)  # what is imported on the way does not count
        tracemalloc.start()
        try:
            seen = stow([grown], server.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert seen.results == {"0": "stored"}
    assert peak < 5_000_000


# What comes back


def test_each_file_gets_its_own_outcome(tmp_path: Path) -> None:
    body = module(
        "1.2.3.0", warned={"1.2.3.1": 0xB000}, failed={"1.2.3.2": 0xC122, "1.2.3.4": 0x0110}, others=2
    )
    with scripted_server(reply(body, 202)) as server:
        seen = stow(make_files(tmp_path, 4), server.url)
    assert seen.results == {"0": "stored", "1": "warning", "2": "failed", "3": "unknown"}
    assert seen.of(1).reason == 0xB000
    assert seen.of(2).reason == 0xC122
    assert seen.of(2).words == "C122H this transfer syntax is not accepted (“words of the server”)"
    assert seen.of(3).words == (
        "the server's answer does not name it, and tells of 2 failed parts without their names"
    )
    assert {outcome.status for outcome in seen.outcomes} == {202}


def test_the_answer_outranks_its_status(tmp_path: Path) -> None:
    with scripted_server(reply(module("1.2.3.0", failed={"1.2.3.1": 0x0110}), 409)) as server:
        assert stow(make_files(tmp_path, 2), server.url).results == {"0": "stored", "1": "failed"}
    with scripted_server(reply(module(failed={"1.2.3.0": 0x0110}), 200)) as server:
        assert stow(make_files(tmp_path, 1), server.url).results == {"0": "failed"}


def test_an_answer_that_contradicts_itself_is_believed_in_nothing(tmp_path: Path) -> None:
    with scripted_server(reply(module("1.2.3.0", failed={"1.2.3.0": 0x0110}))) as server:
        assert stow(make_files(tmp_path, 1), server.url).results == {"0": "unknown"}


def test_a_failure_without_a_name_is_that_of_a_file_that_went_alone(tmp_path: Path) -> None:
    with scripted_server(reply(module(others=1), 400)) as server:
        seen = stow(make_files(tmp_path, 1), server.url)
    assert seen.results == {"0": "failed"}
    assert seen.of(0).words == "C000H the part cannot be read as DICOM"


@pytest.mark.parametrize(
    ("status", "body", "media_type"),
    [
        (200, b"", ""),
        (204, b"", ""),
        (201, module("1.2.3.0"), "application/dicom+json"),
        (200, b"<html>Welcome</html>", "text/html"),
        (200, b"[[[", "application/dicom+json"),
        (200, b"{}", "application/json"),
    ],
)
def test_success_without_names_is_not_success(
    tmp_path: Path, status: int, body: bytes, media_type: str
) -> None:
    with scripted_server(Script(answer=lambda _: Reply(status, body, media_type))) as server:
        seen = stow(make_files(tmp_path, 2), server.url)
    assert seen.results == {"0": "unknown", "1": "unknown"}
    assert len(server.requests) == 1


def test_padding_of_a_uid_means_nothing(tmp_path: Path) -> None:
    with scripted_server(reply(module("1.2.3.0\0"))) as server:
        assert stow(make_files(tmp_path, 1), server.url).results == {"0": "stored"}


def test_a_server_without_json_is_asked_for_xml(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        if request.fields["accept"] != "application/dicom+xml":
            return Reply(406)
        kept = tuple(StoredInstance("1.2.840.10008.5.1.4.1.1.2", uid) for uid in request.uids)
        xml = write_response(StoreResult(kept), "application/dicom+xml")
        return Reply(body=xml, media_type="application/dicom+xml; charset=utf-8")

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 5), server.url, instances=1, parallel=2)
    assert list(seen.results.values()) == ["stored"] * 5
    assert server.requests[-1].fields["accept"] == "application/dicom+xml"


def test_of_a_long_text_the_beginning_is_repeated() -> None:
    answer = HTTPAnswer(status=500, media_type="text/plain", fields={}, body=b"x" * 60_000)
    assert status_line(answer) == f"500 Internal Server Error: “{'x' * ANSWER_WORDS_LETTERS_MAX}”"


def test_what_a_server_calls_its_status_is_not_repeated() -> None:
    answer = HTTPAnswer(status=799, media_type="", fields={}, body=b"")
    assert status_line(answer) == "799"


# Files that are not what they were


def test_a_file_that_changed_is_not_sent_and_harms_no_other(tmp_path: Path) -> None:
    files = make_files(tmp_path, 4)
    Path(files[1].path).unlink()
    with open(files[2].path, "ab") as stream:
        stream.write(b"more")
    with scripted_server() as server:
        seen = stow(files, server.url)
    assert seen.results == {"0": "stored", "1": "failed", "2": "failed", "3": "stored"}
    assert seen.of(1).words == "it cannot be read: No such file or directory"
    assert seen.of(2).words == "it has changed since it was looked at"
    assert [request.uids for request in server.requests] == [["1.2.3.0", "1.2.3.3"]]


def test_another_file_of_the_same_length_is_not_sent_in_the_place_of_one(tmp_path: Path) -> None:
    files = make_files(tmp_path, 3)
    write_file(tmp_path / "other.dcm", 9)
    os.replace(tmp_path / "other.dcm", files[1].path)
    assert os.stat(files[1].path).st_size == files[1].size
    with scripted_server() as server:
        seen = stow(files, server.url)
    assert seen.results == {"0": "stored", "1": "failed", "2": "stored"}
    assert seen.of(1).words == "it has changed since it was looked at"
    assert [request.uids for request in server.requests] == [["1.2.3.0", "1.2.3.2"]]


def test_a_file_that_shrinks_while_it_goes_out_fails_alone(tmp_path: Path) -> None:
    files = make_files(tmp_path, 2)
    grow(files[1].path, 50_000_000)
    files[1] = read_sendable(files[1].path)
    shrunk = []

    def on_head(_: Request) -> None:
        if not shrunk:
            grow(files[1].path, 1_000_000)
            shrunk.append(True)

    with scripted_server(Script(on_head=on_head)) as server:
        seen = stow(files, server.url)
    assert seen.results == {"0": "stored", "1": "failed"}
    assert seen.of(1).words in {"it has become shorter", "it has changed since it was looked at"}
    assert [request.uids for request in server.requests] == [["1.2.3.0"]]


def overwrite(path: str) -> None:
    with open(path, "r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"late")


def append(path: str) -> None:
    with open(path, "ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize("change", [overwrite, append])
def test_a_body_breaks_off_before_the_end_of_a_file_that_is_written_to(
    tmp_path: Path, change: Callable[[str], None]
) -> None:
    (file,) = make_files(tmp_path, 1, pixels=bytes(1_000_000))
    body = BatchBody((QueuedFile(file),))
    pieces = body.pieces()
    lengths = [len(next(pieces))]
    change(file.path)
    with pytest.raises(UnreadableFileError, match="it changed while it was sent"):
        lengths.extend(map(len, pieces))
    assert len(lengths) > 1
    assert sum(lengths) < body.length


@pytest.mark.parametrize("change", [overwrite, append])
def test_a_body_breaks_off_where_the_file_is_written_to_as_soon_as_it_was_opened(
    tmp_path: Path, change: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = make_files(tmp_path, 1, pixels=bytes(1_000_000))
    pieces = BatchBody((QueuedFile(file),)).pieces()
    looks = []

    def look(descriptor: int) -> os.stat_result:
        status = os.stat(descriptor)
        if not looks:
            change(file.path)
        looks.append(status)
        return status

    monkeypatch.setattr(os, "fstat", look)
    with pytest.raises(UnreadableFileError, match="it changed while it was sent"):
        list(pieces)
    assert looks


@pytest.mark.slow
def test_a_file_that_grows_while_it_goes_out_fails_alone(tmp_path: Path) -> None:
    files = make_files(tmp_path, 3)
    grow(files[1].path, 50_000_000)
    files[1] = read_sendable(files[1].path)
    changed = []

    def on_head(_: Request) -> None:
        if not changed:
            append(files[1].path)
            changed.append(True)

    with scripted_server(Script(on_head=on_head)) as server:
        seen = stow(files, server.url)
    assert seen.results == {"0": "stored", "1": "failed", "2": "stored"}
    assert seen.of(1).words in {"it changed while it was sent", "it has changed since it was looked at"}
    assert [request.uids for request in server.requests] == [["1.2.3.0", "1.2.3.2"]]


def grow(path: str, size: int) -> None:
    with open(path, "r+b") as stream:
        stream.truncate(size)


# Refusals


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "asks for a credential"),
        (403, "does not let them store"),
        (404, "nothing takes instances there"),
        (405, "nothing takes instances there"),
        (415, "does not take instances as multipart/related"),
        (410, "answered 410"),
    ],
)
def test_a_refusal_ends_the_sending_at_once(tmp_path: Path, status: int, words: str) -> None:
    with scripted_server(Script(answer=lambda _: Reply(status))) as server:
        seen = stow(make_files(tmp_path, 5), server.url, instances=2)
    assert words in seen.ended_by
    assert server.url in seen.ended_by
    assert len(server.requests) == 1
    assert list(seen.results.values()) == ["failed"] * 5
    assert seen.of(0).words.startswith("not stored: ")
    assert seen.of(4).words.startswith("not sent: ")


def test_a_refusal_in_the_middle_is_told_and_what_was_stored_stays(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        return (
            store_all(request)
            if request.number < 2
            else Reply(401, b'{"detail": "Token over."}', "application/json")
        )

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 8), server.url, instances=2, credential=bearer("secret-token"))
    assert seen.ended_by == ""
    assert "401 Unauthorized: “Token over.”; it does not take this bearer token." in seen.notices[-1]
    assert list(seen.results.values()).count("stored") == 4
    assert list(seen.results.values()).count("failed") == 4
    assert "secret-token" not in repr(seen)


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply_early", [Reply(401, closes=True), Reply(401, lingers=True)], ids=["closes", "lingers"]
)
def test_a_refusal_before_the_body_is_heard_at_once(tmp_path: Path, reply_early: Reply) -> None:
    (file,) = make_files(tmp_path, 1)
    grow(file.path, 2_000_000_000)
    began = time.monotonic()
    with scripted_server(Script(on_head=lambda _: reply_early)) as server:
        seen = stow([read_sendable(file.path)], server.url)
    assert "asks for a credential" in seen.ended_by
    assert time.monotonic() - began < 20
    assert len(server.requests) == 1


def test_the_last_words_of_a_server_are_read_though_nothing_goes_out() -> None:
    """The answer comes, and the connection ends, between a look at the line and the next byte sent."""
    ours, theirs = socket.socketpair()
    theirs.sendall(Reply(413).encoded())
    theirs.close()

    class Late(_Line):
        looks = 0

        def _has_answer(self) -> bool:
            self.looks += 1
            return self.looks > 1 and super()._has_answer()

    line = Late(ours, 5, threading.Event(), "somewhere")
    with pytest.raises(_AnsweredEarlyError):
        line.sendall(b"more of the body")
    line.wait_for_answer()
    assert line.makefile("rb").read() == Reply(413).encoded()
    line.close()


@pytest.mark.parametrize("status", [400, 409])
def test_a_batch_that_is_refused_without_a_word_is_sent_one_by_one(tmp_path: Path, status: int) -> None:
    def answer(request: Request) -> Answer:
        return Reply(status) if "1.2.3.2" in request.uids else store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 4), server.url)
    assert seen.results == {"0": "stored", "1": "stored", "2": "failed", "3": "stored"}
    assert seen.of(2).words == f"the server answered {status} {HTTPStatus(status).phrase}"


def test_files_that_a_400_does_not_name_are_sent_one_by_one(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        if len(request.uids) > 1:
            return Reply(400, module("1.2.3.0"))
        return store_all(request) if request.uids != ["1.2.3.2"] else Reply(400, module(others=1))

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 4), server.url)
    assert seen.results == {"0": "stored", "1": "stored", "2": "failed", "3": "stored"}
    assert [request.uids for request in server.requests[1:]] == [["1.2.3.1"], ["1.2.3.2"], ["1.2.3.3"]]


def test_a_server_that_refuses_every_request_is_left_alone_in_the_end(tmp_path: Path) -> None:
    with scripted_server(Script(answer=lambda _: Reply(400))) as server:
        seen = stow(make_files(tmp_path, 60), server.url)
    assert len(server.requests) < 40
    assert list(seen.results.values()) == ["failed"] * 60
    assert any("refuses every request" in notice for notice in seen.notices)


# Bodies that are too large


def test_a_batch_that_is_too_large_is_sent_in_halves(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        return Reply(413) if len(request.parts) > 2 else store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 16), server.url, instances=8)
    assert list(seen.results.values()) == ["stored"] * 16
    counts = [len(request.parts) for request in server.requests]
    assert counts[:3] == [8, 4, 4]
    assert max(counts[3:]) <= 3  # what follows is smaller from the start
    assert sorted(server.stored[16:].count(f"1.2.3.{number}") for number in range(8, 16)) <= [2] * 8


def test_a_file_that_is_too_large_fails_alone(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        return Reply(413) if "1.2.3.1" in request.uids else store_all(request)

    with scripted_server(Script(answer=answer)) as server:
        seen = stow(make_files(tmp_path, 3), server.url)
    assert seen.results == {"0": "stored", "1": "failed", "2": "stored"}
    assert seen.of(1).words == f"the server takes no file of this size (413 {HTTPStatus(413).phrase})"
