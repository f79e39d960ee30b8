"""Sending files: what arrives, what the peer answers and does not take, and how files are read."""

import asyncio
import itertools
import os
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels import pixel_array

from stowkeeper.dicom.transfer_syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_BASELINE_8_BIT,
    RLE_LOSSLESS,
)
from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.services import send_source, sending
from stowkeeper.services.conversion import convert
from stowkeeper.services.limits import (
    BACK_OFF_SECONDS_MAX,
    FILES_AHEAD_MAX,
    READ_AHEAD_PIECES,
    READ_PIECE_BYTES,
)
from stowkeeper.services.send_plan import SendableFile, plan_sending
from stowkeeper.services.send_source import FileReader
from stowkeeper.services.sending import (
    Destination,
    Result,
    send_files,
)
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from stowkeeper.upperlayer.reasons import PresentationResult
from support.scripted_acceptor import Acceptor, Act, Answer, Received, Script, scripted_acceptor
from support.send_files import EXPLICIT_VR_BIG_ENDIAN, file_head, write_file
from support.sending_rig import (
    QUICK,
    WAIT_SECONDS,
    Observer,
    make_files,
    options_with,
    send,
    uid_of,
)

MR = "1.2.840.10008.5.1.4.1.1.4"
DEFLATED = "1.2.840.10008.1.2.1.99"


# What arrives


@pytest.mark.parametrize("associations", [1, 3])
@pytest.mark.parametrize("window", [None, 4])
def test_every_file_arrives_as_it_is(tmp_path: Path, associations: int, window: int | None) -> None:
    sizes = [0, 2, 8, 1000, READ_PIECE_BYTES, READ_PIECE_BYTES + 2, 3 * READ_PIECE_BYTES]
    data_sets = {
        f"1.2.3.{number}": write_file(
            tmp_path / f"{number}", number, pixels=os.urandom(size), receipt=b"{receipt}"
        )
        for number, size in enumerate(sizes * 3)
    }
    files = plan_sending([str(tmp_path)]).files
    with scripted_acceptor(Script(window=window)) as acceptor:
        observer, error = send(files, acceptor.port, options_with(associations=associations))
    assert error is None
    assert observer.results == {Result.ACCEPTED: len(files)}
    assert {uid_of(received): received.data_set for received in acceptor.stored} == data_sets
    assert len(acceptor.stored) == len(files)
    assert not any(b"{receipt}" in received.data_set for received in acceptor.stored)
    assert all(outcome.attempts == 1 and outcome.status == 0 for outcome in observer.outcomes)
    assert all(outcome.sent_as == EXPLICIT_VR_LITTLE_ENDIAN for outcome in observer.outcomes)
    assert len(acceptor.requests) <= associations


def test_files_are_sent_in_their_order_and_several_await_their_answer(tmp_path: Path) -> None:
    files = make_files(tmp_path, 12)
    with scripted_acceptor(Script(window=4, hold=4)) as acceptor:
        observer, _ = send(files, acceptor.port, options_with(window=4))
    assert acceptor.outstanding_max == 4
    assert [uid_of(received) for received in acceptor.stored] == [f"1.2.3.{number}" for number in range(12)]
    assert observer.results == {Result.ACCEPTED: 12}


@pytest.mark.slow
def test_more_classes_than_an_association_has_contexts_take_several(tmp_path: Path) -> None:
    for number in range(150):
        write_file(tmp_path / f"{number}", number, sop_class_uid=f"1.2.840.10008.5.1.4.1.1.2.{number}")
    files = plan_sending([str(tmp_path)]).files
    with scripted_acceptor() as acceptor:
        observer, _ = send(files, acceptor.port)
    assert observer.results == {Result.ACCEPTED: 150}
    assert [len(request.presentation_contexts) for request in acceptor.requests] == [128, 128, 44]


def test_a_deflated_data_set_of_odd_length_is_padded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data_set = write_file(path)
    deflated = b""
    for filler in itertools.count():
        stream = zlib.compressobj(wbits=-15)
        deflated = stream.compress(data_set + b"\x11\0\x10\0LO\2\0" + b"%02d" % filler) + stream.flush()
        if len(deflated) % 2:
            break
    path.write_bytes(file_head("1.2.3.1", transfer_syntax_uid=DEFLATED) + deflated)
    with scripted_acceptor() as acceptor:
        observer, _ = send(plan_sending([str(path)]).files, acceptor.port)
    assert observer.results == {Result.ACCEPTED: 1}
    assert acceptor.stored[0].data_set == deflated + b"\0"


def test_a_data_set_of_odd_length_goes_as_it_is_when_that_is_asked(tmp_path: Path) -> None:
    data_set = write_file(tmp_path / "file", pixels=os.urandom(READ_PIECE_BYTES + 1))
    files = plan_sending([str(tmp_path)], odd_allowed=True).files
    with scripted_acceptor() as acceptor:
        send(files, acceptor.port)
    assert acceptor.stored[0].data_set == data_set


# What a peer answers


def answering(statuses: dict[int, int]) -> Callable[[Received], Answer]:
    """Answer instances by their number; Success to all others."""
    return lambda received: statuses.get(int(uid_of(received).rpartition(".")[2]), 0)


def test_a_warning_is_an_acceptance_and_a_failure_is_final(tmp_path: Path) -> None:
    files = make_files(tmp_path, 4)
    with scripted_acceptor(Script(answer=answering({1: 0xB000, 2: 0xC123, 3: 0x0122}))) as acceptor:
        observer, error = send(files, acceptor.port)
    assert error is None
    assert observer.result_of(0).result is Result.ACCEPTED
    warned, failed, refused = (observer.result_of(number) for number in (1, 2, 3))
    assert (warned.result, warned.status) == (Result.WARNING, 0xB000)
    assert "B000H Warning" in warned.words
    assert (failed.result, failed.status, failed.attempts) == (Result.FAILED, 0xC123, 1)
    assert "C123H Error: cannot understand" in failed.words
    assert "0122H Refused" in refused.words
    assert len(acceptor.stored) == 4


def test_the_peers_comment_is_shown(tmp_path: Path) -> None:
    def answer(received: Received) -> Answer:
        assert isinstance(received.message, CStoreRequest)
        return received.message.respond(0xA900, error_comment="UID differs")

    files = make_files(tmp_path, 1)
    with scripted_acceptor(Script(answer=answer)) as acceptor:
        observer, _ = send(files, acceptor.port)
    assert "(“UID differs”)" in observer.outcomes[0].words


def test_a_peer_out_of_resources_is_asked_again(tmp_path: Path) -> None:
    files = make_files(tmp_path, 6)
    asked: Counter[str] = Counter()

    def answer(received: Received) -> Answer:
        asked[uid_of(received)] += 1
        return 0xA7F3 if uid_of(received) in {"1.2.3.1", "1.2.3.2"} and asked[uid_of(received)] <= 2 else 0

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        observer, _ = send(files, acceptor.port)
    assert observer.results == {Result.ACCEPTED: 6}
    assert observer.result_of(1).attempts == 3
    assert observer.result_of(0).attempts == 1
    assert any("out of resources" in notice and "A7F3H" in notice for notice in observer.notices)
    assert len(acceptor.requests) == 1


@pytest.mark.parametrize("retries", [0, 2])
def test_a_peer_that_stays_out_of_resources_fails_the_file(tmp_path: Path, retries: int) -> None:
    files = make_files(tmp_path, 3)
    with scripted_acceptor(Script(answer=answering({1: 0xA700}))) as acceptor:
        observer, error = send(files, acceptor.port, options_with(retries=retries))
    assert error is None
    outcome = observer.result_of(1)
    assert (outcome.result, outcome.status, outcome.attempts) == (Result.FAILED, 0xA700, retries + 1)
    assert observer.results == {Result.ACCEPTED: 2, Result.FAILED: 1}


def test_waits_grow_up_to_a_bound() -> None:
    sender = sending._Sender(
        Destination(ae_title="A", host="h", port=1), options_with(back_off_seconds=1.0), Observer()
    )
    assert [sender.back_off(times) for times in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 8.0]
    assert sender.back_off(1000) == BACK_OFF_SECONDS_MAX


# What the peer does not take


def accepting(*syntaxes: str, **values: Any) -> Script:
    return Script(policy=AcceptancePolicy(transfer_syntaxes=syntaxes, **values))


@pytest.mark.parametrize("taken", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN])
def test_a_syntax_that_the_peer_does_not_take_is_converted(tmp_path: Path, taken: str) -> None:
    pixels = os.urandom(3 * READ_PIECE_BYTES)
    write_file(tmp_path / "1", 1, pixels=pixels)
    write_file(tmp_path / "2", 2, pixels=pixels, transfer_syntax_uid=EXPLICIT_VR_BIG_ENDIAN)
    files = plan_sending([str(tmp_path)]).files
    with scripted_acceptor(accepting(taken)) as acceptor:
        observer, _ = send(files, acceptor.port)
    assert observer.results == {Result.ACCEPTED: 2}
    assert {outcome.sent_as for outcome in observer.outcomes} == {taken}
    for received in acceptor.stored:
        assert received.context.transfer_syntax == taken
        file = next(file for file in files if file.sop_instance_uid == uid_of(received))
        if file.transfer_syntax_uid != taken:
            with open(file.path, "rb") as stream:
                expected = b"".join(convert(stream, file.offset, file.transfer_syntax_uid, taken))
            assert received.data_set == expected


def test_explicit_vr_is_preferred_where_the_peer_takes_both(tmp_path: Path) -> None:
    write_file(tmp_path / "1", 1)
    write_file(tmp_path / "2", 2, transfer_syntax_uid=EXPLICIT_VR_BIG_ENDIAN)
    files = plan_sending([str(tmp_path)]).files
    with scripted_acceptor(accepting(IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)) as acceptor:
        observer, _ = send(files, acceptor.port)
    assert {outcome.sent_as for outcome in observer.outcomes} == {EXPLICIT_VR_LITTLE_ENDIAN}


def test_lossless_compression_is_undone_where_the_peer_wants_it(tmp_path: Path) -> None:
    original = Path(str(get_testdata_file("MR_small_RLE.dcm")))
    files = plan_sending([str(original)]).files
    with scripted_acceptor(accepting(IMPLICIT_VR_LITTLE_ENDIAN)) as acceptor:
        observer, _ = send(files, acceptor.port)
    assert observer.results == {Result.ACCEPTED: 1}
    assert observer.outcomes[0].sent_as == IMPLICIT_VR_LITTLE_ENDIAN
    copy = tmp_path / "copy.dcm"
    head = file_head("1.2.3", sop_class_uid=MR, transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN)
    copy.write_bytes(head + acceptor.stored[0].data_set)
    assert (pixel_array(dcmread(copy)) == pixel_array(dcmread(original))).all()
    assert dcmread(copy).SOPInstanceUID == dcmread(original).SOPInstanceUID


@pytest.mark.parametrize(
    ("syntax", "script", "words"),
    [
        (
            JPEG_BASELINE_8_BIT,
            accepting(IMPLICIT_VR_LITTLE_ENDIAN),
            "JPEG Baseline (Process 1) for CT Image Storage; it was compressed with loss",
        ),
        (
            "1.2.840.10008.1.2.4.110",
            accepting(IMPLICIT_VR_LITTLE_ENDIAN),
            "JPEG XL Lossless for CT Image Storage; there is no decoder",
        ),
        ("1.2.3.4", accepting(IMPLICIT_VR_LITTLE_ENDIAN), "transfer syntax 1.2.3.4 for CT Image Storage"),
        (
            EXPLICIT_VR_LITTLE_ENDIAN,
            accepting(RLE_LOSSLESS),
            "Explicit VR Little Endian for CT Image Storage; nor does it accept",
        ),
        (
            EXPLICIT_VR_LITTLE_ENDIAN,
            accepting(accepts_abstract_syntax=lambda _: False),
            "the peer does not accept CT Image Storage",
        ),
        (
            EXPLICIT_VR_LITTLE_ENDIAN,
            accepting(EXPLICIT_VR_LITTLE_ENDIAN, refusal=lambda _: PresentationResult.USER_REJECTION),
            "for CT Image Storage (user rejection)",
        ),
    ],
)
def test_what_the_peer_does_not_take_and_cannot_be_converted_fails_with_words(
    tmp_path: Path, syntax: str, script: Script, words: str
) -> None:
    write_file(tmp_path / "file", transfer_syntax_uid=syntax)
    with scripted_acceptor(script) as acceptor:
        observer, error = send(plan_sending([str(tmp_path)]).files, acceptor.port)
    assert error is None
    (outcome,) = observer.outcomes
    assert outcome.result is Result.FAILED
    assert words in outcome.words
    assert (outcome.sent_as, outcome.status, outcome.attempts) == ("", None, 0)
    assert acceptor.received == []


# Files that change or break


def test_a_file_that_changed_since_the_plan_fails_alone(tmp_path: Path) -> None:
    files = make_files(tmp_path, 4)
    with open(files[1].path, "ab") as file:
        file.write(b"more")
    os.unlink(files[2].path)
    with scripted_acceptor() as acceptor:
        observer, _ = send(files, acceptor.port)
    assert observer.results == {Result.ACCEPTED: 2, Result.FAILED: 2}
    assert "changed since it was looked at" in observer.result_of(1).words
    assert "cannot be read: No such file" in observer.result_of(2).words
    assert len(acceptor.requests) == 1


@pytest.mark.parametrize("converted", [False, True])
def test_another_file_of_the_same_length_is_not_sent_in_the_place_of_one(
    tmp_path: Path, converted: bool
) -> None:
    files = make_files(tmp_path, 3)
    write_file(tmp_path / "other.dcm", 9)
    os.replace(tmp_path / "other.dcm", files[1].path)
    assert os.stat(files[1].path).st_size == files[1].size
    with scripted_acceptor(accepting(IMPLICIT_VR_LITTLE_ENDIAN) if converted else Script()) as acceptor:
        observer, _ = send(files, acceptor.port)
    assert observer.results == {Result.ACCEPTED: 2, Result.FAILED: 1}
    assert observer.result_of(1).words == "it has changed since it was looked at"
    assert {uid_of(received) for received in acceptor.stored} == {"1.2.3.0", "1.2.3.2"}
    assert len(acceptor.requests) == 1


def overwrite(path: str) -> None:
    with open(path, "r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"late")


def append(path: str) -> None:
    with open(path, "ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize(("change", "converted"), [(overwrite, False), (append, False), (overwrite, True)])
@pytest.mark.parametrize(("pixels", "associations"), [(8, 1), (3 * READ_PIECE_BYTES, 2)])
def test_a_file_that_is_written_to_on_its_way_is_not_sent_to_its_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str], None],
    converted: bool,
    pixels: int,
    associations: int,
) -> None:
    files = make_files(tmp_path, 3, pixels=bytes(pixels))
    changed = os.stat(files[1].path)
    looks = []

    def look(descriptor: int) -> os.stat_result:
        status = os.stat(descriptor)
        if os.path.samestat(status, changed):
            if not looks:
                change(files[1].path)
            looks.append(status)
        return status

    monkeypatch.setattr(os, "fstat", look)
    with scripted_acceptor(accepting(IMPLICIT_VR_LITTLE_ENDIAN) if converted else Script()) as acceptor:
        observer, error = send(files, acceptor.port)
    assert error is None
    assert observer.results == {Result.ACCEPTED: 2, Result.FAILED: 1}
    assert observer.result_of(1).words == "it changed while it was sent"
    assert {uid_of(received) for received in acceptor.stored} == {"1.2.3.0", "1.2.3.2"}
    assert len(acceptor.requests) == associations
    assert len(looks) == 2


def test_a_file_that_becomes_shorter_on_the_way_ends_one_association(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_files(tmp_path, 5, pixels=bytes(3 * READ_PIECE_BYTES))
    opened = FileReader._pieces_of

    def cut(self: FileReader, source: send_source.DataSetSource) -> object:
        for number, piece in enumerate(opened(self, source)):
            if source.file.sop_instance_uid == "1.2.3.2" and number:
                raise send_source.SourceError("it has become shorter")
            yield piece

    monkeypatch.setattr(FileReader, "_pieces_of", cut)
    with scripted_acceptor(Script(window=4)) as acceptor:
        observer, error = send(files, acceptor.port)
    assert error is None
    assert observer.results == {Result.ACCEPTED: 4, Result.FAILED: 1}
    assert observer.result_of(2).words == "it has become shorter"
    assert observer.notices == []
    assert len(acceptor.requests) == 2
    assert len(acceptor.stored) >= 4


def test_a_conversion_that_fails_half_way_takes_nothing_else_with_it(tmp_path: Path) -> None:
    files = []
    for number in range(5):
        path = tmp_path / f"{number}"
        write_file(path, number, pixels=bytes(3 * READ_PIECE_BYTES))
        if number == 2:
            path.write_bytes(path.read_bytes()[:-1000])
        files += plan_sending([str(path)]).files
    script = accepting(IMPLICIT_VR_LITTLE_ENDIAN)
    script.window = 4
    with scripted_acceptor(script) as acceptor:
        observer, error = send(files, acceptor.port, options_with(retries=0))
    assert error is None
    assert observer.results == {Result.ACCEPTED: 4, Result.FAILED: 1}
    assert "cannot be converted: the data set ends inside (7FE0,0010)" in observer.result_of(2).words
    assert all(outcome.attempts == 1 for outcome in observer.outcomes)
    assert observer.notices == []


# Reading ahead


def test_files_are_read_ahead_only_so_far(tmp_path: Path) -> None:
    write_file(tmp_path / "file", pixels=bytes(40 * READ_PIECE_BYTES))
    (file,) = plan_sending([str(tmp_path)]).files

    async def work() -> None:
        reader = FileReader(16_372)
        source = reader.open(file, None)
        async with asyncio.timeout(WAIT_SECONDS):
            while len(source._pieces) < READ_AHEAD_PIECES:  # noqa: ASYNC110 - the thread knows no event of this loop
                await asyncio.sleep(0.001)
            assert reader._room._value == 0
            total = 0
            async for piece in source:
                assert len(source._pieces) <= READ_AHEAD_PIECES
                assert len(piece) % 16_372 == 0 or total + len(piece) == file.data_set_length
                total += len(piece)
        assert total == file.data_set_length == source.taken
        reader.close()

    asyncio.run(work())


def test_only_so_many_files_are_opened_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_files(tmp_path, 40)
    opened: list[str] = []
    open_one = FileReader.open

    def counted(self: FileReader, file: SendableFile, *rest: object) -> object:
        opened.append(file.path)
        assert len(opened) - len(acceptor.stored) <= FILES_AHEAD_MAX + 1
        return open_one(self, file, *rest)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(FileReader, "open", counted)
    with scripted_acceptor() as acceptor:
        observer, _ = send(files, acceptor.port)
    assert observer.results == {Result.ACCEPTED: 40}
    assert len(opened) == 40


def test_a_reader_that_is_closed_lets_its_thread_end(tmp_path: Path) -> None:
    write_file(tmp_path / "file", pixels=bytes(40 * READ_PIECE_BYTES))
    (file,) = plan_sending([str(tmp_path)]).files

    async def work() -> None:
        reader = FileReader(16_372)
        source = reader.open(file, None)
        await anext(source)
        made.extend(set(threading.enumerate()) - before)
        reader.close()

    before = set(threading.enumerate())
    made: list[threading.Thread] = []
    asyncio.run(work())
    assert made
    for thread in made:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def test_a_fault_of_the_program_while_reading_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_files(tmp_path, 1)

    def broken(self: FileReader, source: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(FileReader, "_pieces_of", broken)
    with scripted_acceptor() as acceptor, pytest.raises(ExceptionGroup) as raised:
        send(files, acceptor.port)
    assert raised.group_contains(ZeroDivisionError)


def test_a_cancelled_sending_closes_its_associations(tmp_path: Path) -> None:
    files = make_files(tmp_path, 10)

    async def work(acceptor: Acceptor) -> None:
        destination = Destination(ae_title="PEER", host="127.0.0.1", port=acceptor.port)
        task = asyncio.ensure_future(send_files(files, destination, QUICK, Observer()))
        while not acceptor.stored:  # noqa: ASYNC110 - it lives in threads
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with scripted_acceptor(Script(answer=lambda _: Act.SILENCE)) as acceptor:
        asyncio.run(work(acceptor))
