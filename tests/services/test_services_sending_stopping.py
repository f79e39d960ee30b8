"""Sending that is told to stop, that waits for nobody, and that knows what the bytes have to be."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from blake3 import blake3

from stowkeeper.net.association_errors import AssociationError
from stowkeeper.services.limits import READ_PIECE_BYTES
from stowkeeper.services.send_plan import SendableFile
from stowkeeper.services.send_source import DAMAGED
from stowkeeper.services.sending import Destination, Outcome, Result, SendOptions, send_files
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from stowkeeper.upperlayer.pdu import REJECTED_LOCAL_LIMIT_EXCEEDED
from support.scripted_acceptor import Act, Answer, Received, Script, scripted_acceptor
from support.sending_rig import (
    IMPATIENT,
    QUICK,
    WAIT_SECONDS,
    Observer,
    make_files,
    options_with,
    send,
    uid_of,
)

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"


class Stopping(Observer):
    """Sets the event when it has heard of so many files."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.stop = asyncio.Event()
        self._count = count

    def decided(self, outcome: Outcome) -> None:
        """Keep the outcome."""
        super().decided(outcome)
        if len(self.outcomes) >= self._count:
            self.stop.set()


def send_until(
    observer: Stopping,
    files: list[SendableFile],
    port: int,
    options: SendOptions = QUICK,
    in_time: Callable[[asyncio.Event], None] = lambda _: None,
) -> AssociationError | None:
    async def work() -> AssociationError | None:
        async with asyncio.timeout(WAIT_SECONDS):
            in_time(observer.stop)
            destination = Destination(ae_title="PEER", host="127.0.0.1", port=port)
            return await send_files(files, destination, options, observer, observer.stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("associations", [1, 3])
def test_no_further_file_is_begun_and_what_was_is_answered(
    tmp_path: Path, window: int, associations: int
) -> None:
    files = make_files(tmp_path, 60)
    observer = Stopping(10)
    with scripted_acceptor(Script(window=window)) as acceptor:
        options = options_with(window=window, associations=associations)
        assert send_until(observer, files, acceptor.port, options) is None
    assert {outcome.result for outcome in observer.outcomes} == {Result.ACCEPTED}
    assert 10 <= len(observer.outcomes) <= 10 + 2 * window * associations
    told = {outcome.file.sop_instance_uid for outcome in observer.outcomes}
    assert {uid_of(received) for received in acceptor.stored} == told


def test_an_end_before_the_beginning_sends_nothing(tmp_path: Path) -> None:
    observer = Stopping(0)
    with scripted_acceptor() as acceptor:
        send_until(observer, make_files(tmp_path, 3), acceptor.port, in_time=lambda stop: stop.set())
    assert (observer.outcomes, acceptor.requests) == ([], [])


def test_an_end_in_a_pause_does_not_wait_for_its_end(tmp_path: Path) -> None:
    observer = Stopping(99)
    with scripted_acceptor(Script(answer=lambda _: 0xA700)) as acceptor:
        options = options_with(back_off_seconds=WAIT_SECONDS * 2)
        send_until(
            observer,
            make_files(tmp_path, 3),
            acceptor.port,
            options,
            lambda stop: _set_when(stop, lambda: bool(observer.notices)),
        )
    assert observer.outcomes == []
    assert len(acceptor.stored) <= 2  # one was on its way already


def test_an_end_while_a_lost_association_is_to_be_opened_anew_does_not_wait(tmp_path: Path) -> None:
    observer = Stopping(99)
    with scripted_acceptor(Script(answer=lambda _: Act.ABORT)) as acceptor:
        options = options_with(back_off_seconds=WAIT_SECONDS * 2)
        send_until(
            observer,
            make_files(tmp_path, 3),
            acceptor.port,
            options,
            lambda stop: _set_when(stop, lambda: bool(observer.notices)),
        )
    assert observer.outcomes == []


_tasks: set[asyncio.Task[None]] = set()


def _set_when(stop: asyncio.Event, condition: Callable[[], bool]) -> None:
    async def watch() -> None:
        while not condition():  # noqa: ASYNC110 - what is awaited is what the product says
            await asyncio.sleep(0.001)
        stop.set()

    _tasks.add(asyncio.ensure_future(watch()))


# What failed for now.


def test_a_peer_out_of_resources_is_not_waited_for(tmp_path: Path) -> None:
    statuses = {1: 0xA700, 2: 0xA7FF, 3: 0x0213, 4: 0xA900, 5: 0x0110}

    def answer(received: Received) -> Answer:
        return statuses.get(int(uid_of(received).rpartition(".")[2]), 0x0000)

    options = options_with(waits_for_resources=False, back_off_seconds=WAIT_SECONDS * 2)
    with scripted_acceptor(Script(answer=answer)) as acceptor:
        observer, error = send(make_files(tmp_path, 7), acceptor.port, options)
    assert error is None
    assert len(acceptor.stored) == 7
    assert observer.notices == []
    assert {number: observer.result_of(number).may_pass for number in range(7)} == {
        **dict.fromkeys((0, 4, 5, 6), False),
        **dict.fromkeys((1, 2, 3), True),
    }


def test_what_was_not_answered_may_pass(tmp_path: Path) -> None:
    with scripted_acceptor(Script(answer=lambda _: Act.SILENCE)) as acceptor:
        observer, _ = send(
            make_files(tmp_path, 3), acceptor.port, options_with(timeouts=IMPATIENT, retries=1)
        )
    assert all(outcome.may_pass for outcome in observer.outcomes)
    assert {outcome.attempts for outcome in observer.outcomes} == {0, 1}  # others wait for their turn


def test_a_peer_that_is_not_to_be_had_may_be_later(tmp_path: Path) -> None:
    with scripted_acceptor(Script(on_request=lambda _: REJECTED_LOCAL_LIMIT_EXCEEDED)) as acceptor:
        observer, error = send(make_files(tmp_path, 3), acceptor.port, options_with(retries=0))
    assert error is not None
    assert all(outcome.may_pass for outcome in observer.outcomes)


def test_a_class_that_is_refused_stays_so(tmp_path: Path) -> None:
    policy = AcceptancePolicy(accepts_abstract_syntax=lambda _: False)
    with scripted_acceptor(Script(policy=policy)) as acceptor:
        observer, _ = send(make_files(tmp_path, 3), acceptor.port)
    assert not any(outcome.may_pass for outcome in observer.outcomes)


# What the bytes have to be.


def digest_of(file: SendableFile) -> str:
    return blake3(Path(file.path).read_bytes()[file.offset :]).hexdigest()


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("pixels", [8, 3 * READ_PIECE_BYTES])
def test_bytes_with_another_digest_are_not_sent_to_their_end(
    tmp_path: Path, pixels: int, converted: bool
) -> None:
    files = make_files(tmp_path, 3, pixels=b"x" * pixels)
    known = [replace(file, digest=digest_of(file)) for file in files]
    known[1] = replace(known[1], digest=digest_of(files[0]))
    policy = (
        AcceptancePolicy(transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)) if converted else AcceptancePolicy()
    )
    with scripted_acceptor(Script(policy=policy)) as acceptor:
        observer, error = send(known, acceptor.port)
    assert error is None
    assert observer.result_of(1).result is Result.FAILED
    assert observer.result_of(1).words == DAMAGED
    assert not observer.result_of(1).may_pass
    assert {uid_of(received) for received in acceptor.stored} == {"1.2.3.0", "1.2.3.2"}
    assert observer.results == {Result.ACCEPTED: 2, Result.FAILED: 1}


def test_an_odd_deflated_data_set_is_judged_without_its_padding(tmp_path: Path) -> None:
    deflated = "1.2.840.10008.1.2.1.99"
    (file,) = make_files(tmp_path, 1)
    content = Path(file.path).read_bytes()
    path = tmp_path / "deflated.dcm"
    path.write_bytes(content[: file.offset] + b"odd")
    odd = replace(file, path=str(path), transfer_syntax_uid=deflated, size=file.offset + 3)
    odd = replace(odd, digest=blake3(b"odd").hexdigest())
    with scripted_acceptor(Script(policy=AcceptancePolicy(transfer_syntaxes=(deflated,)))) as acceptor:
        send([odd], acceptor.port)
    assert [received.data_set for received in acceptor.stored] == [b"odd\0"]
