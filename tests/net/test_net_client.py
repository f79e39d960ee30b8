"""The requestor: against an acceptor that behaves as told, on both event loops, and against real peers."""

import asyncio
import contextlib
import itertools
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import IMPLEMENTATION_CLASS_UID
from stowkeeper.dimse.errors import LocalError
from stowkeeper.dimse.fragmenter import Buffer
from stowkeeper.dimse.message_types import (
    CStoreRequest,
    CStoreResponse,
    NActionRequest,
    NActionResponse,
    Request,
)
from stowkeeper.net.association_errors import (
    AssociationAbortedError,
    AssociationError,
    AssociationLostError,
    AssociationRejectedError,
    PeerTimeoutError,
    PeerUnreachableError,
)
from stowkeeper.net.client import ClientAssociation, association_request
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.net.limits import CLIENT_WRITE_BUFFER_BYTES, CLIENT_WRITE_PIECES_MAX
from stowkeeper.upperlayer.limits import MAX_PDU_LENGTH_LOCAL_DEFAULT
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from stowkeeper.upperlayer.pdu import (
    REJECTED_CALLED_AE_TITLE,
    REJECTED_CALLING_AE_TITLE,
    REJECTED_LOCAL_LIMIT_EXCEEDED,
    AssociateRJ,
)
from support.client_calls import (
    COMMITMENT,
    CT,
    ECHO_CONTEXT,
    SOON,
    STORE_CONTEXT,
    Run,
    connect,
    pieces,
    running_on,
    store_request,
    until,
)
from support.processes import free_port
from support.scripted_acceptor import Acceptor, Act, Received, Script, scripted_acceptor
from support.server_thread import LOOPS


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run[Any]]:
    """Give what runs a coroutine, on each event loop in turn."""
    with running_on(request.param) as runs:
        yield runs


def policy(maximum_length: int) -> AcceptancePolicy:
    return AcceptancePolicy(maximum_length=maximum_length)


# Opening


def test_what_is_proposed_is_what_the_product_is(run: Run[None]) -> None:
    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, window=5) as association:
            assert association.peer == f"PEER@127.0.0.1:{acceptor.port}"
            assert set(association.contexts) == {STORE_CONTEXT, ECHO_CONTEXT}
            assert association.error is None
        assert association.error is not None

    with scripted_acceptor() as acceptor:
        run(work(acceptor))
    (request,) = acceptor.requests
    assert (request.called_ae_title, request.calling_ae_title) == ("PEER", "STOWKEEPER")
    information = request.user_information
    assert information.maximum_length == MAX_PDU_LENGTH_LOCAL_DEFAULT
    assert information.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert information.operations_window is not None
    assert (information.operations_window.invoked, information.operations_window.performed) == (5, 1)


@pytest.mark.parametrize(
    ("rejection", "words", "is_transient"),
    [
        (REJECTED_CALLED_AE_TITLE, "(1,1,7)", False),
        (REJECTED_CALLING_AE_TITLE, "does not know the calling AE title", False),
        (REJECTED_LOCAL_LIMIT_EXCEEDED, "try again later", True),
        (AssociateRJ(result=9, source=8, reason=7), "(9,8,7)", False),
    ],
)
def test_a_rejection_says_why(run: Run[None], rejection: AssociateRJ, words: str, is_transient: bool) -> None:
    async def work(acceptor: Acceptor) -> None:
        with pytest.raises(AssociationRejectedError) as raised:
            await connect(acceptor)
        assert words in str(raised.value)
        assert raised.value.is_transient is is_transient
        found = (raised.value.result, raised.value.source, raised.value.reason)
        assert found == (rejection.result, rejection.source, rejection.reason)

    with scripted_acceptor(Script(on_request=lambda _: rejection)) as acceptor:
        run(work(acceptor))


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (Act.ABORT, AssociationAbortedError, "aborted (0,0): by service user"),
        (Act.CLOSE, AssociationLostError, "closed the connection"),
        (Act.SILENCE, PeerTimeoutError, "did not answer the association request in time"),
    ],
)
def test_a_request_that_is_not_answered_says_what_happened(
    run: Run[None], act: Act, error: type[AssociationError], words: str
) -> None:
    async def work(acceptor: Acceptor) -> None:
        with pytest.raises(error) as raised:
            await connect(acceptor, timeouts=SOON)
        assert words in str(raised.value)
        assert "PEER@127.0.0.1" in str(raised.value)

    with scripted_acceptor(Script(on_request=lambda _: act)) as acceptor:
        run(work(acceptor))


@pytest.mark.parametrize(
    ("host", "words"),
    [("127.0.0.1", "nothing listens"), ("::1", "cannot be reached"), ("a..b", "no host name")],
)
def test_a_peer_that_is_not_there_is_unreachable(run: Run[None], host: str, words: str) -> None:
    request = association_request(called_ae_title="A", calling_ae_title="B", contexts=[])

    async def work() -> None:
        with pytest.raises(PeerUnreachableError) as raised:
            await ClientAssociation.open(host, free_port(), request)
        assert words in str(raised.value)

    run(work())


def test_a_peer_that_does_not_take_the_connection_is_unreachable(run: Run[None]) -> None:
    request = association_request(called_ae_title="A", calling_ae_title="B", contexts=[])

    async def work(port: int) -> None:
        with pytest.raises(PeerUnreachableError, match=r"did not answer within 0\.2 seconds"):
            await ClientAssociation.open("127.0.0.1", port, request, ClientTimeouts(connect_seconds=0.2))

    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        address = listener.getsockname()
        for _ in range(4):  # fill the queue of connections that nobody accepts
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        run(work(address[1]))


def test_an_opening_that_is_cancelled_leaves_nothing_open(run: Run[None]) -> None:
    async def work(acceptor: Acceptor) -> None:
        opening = asyncio.ensure_future(connect(acceptor))
        await until(lambda: bool(acceptor.requests))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await until(lambda: not any(thread.is_alive() for thread in acceptor._threads))

    with scripted_acceptor(Script(on_request=lambda _: Act.SILENCE)) as acceptor:
        run(work(acceptor))


# Operations


def test_an_echo_is_answered(run: Run[None]) -> None:
    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor) as association:
            assert (await association.echo()).status == Status.SUCCESS
            assert (await association.echo()).status == Status.SUCCESS

    with scripted_acceptor() as acceptor:
        run(work(acceptor))


def test_an_echo_needs_verification(run: Run[None]) -> None:
    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor) as association:
            with pytest.raises(AssociationError, match="Verification"):
                await association.echo()

    refusing = AcceptancePolicy(accepts_abstract_syntax=lambda uid: uid == CT)
    with scripted_acceptor(Script(policy=refusing)) as acceptor:
        run(work(acceptor))


@pytest.mark.parametrize("maximum_length", [0, 8, 31, 16383, 16384, 1 << 31])
@pytest.mark.parametrize("with_length", [True, False])
def test_a_data_set_arrives_as_it_is_whatever_the_peers_maximum_length(
    run: Run[None], maximum_length: int, with_length: bool
) -> None:
    total = 600_000 if maximum_length > 1000 or not maximum_length else 6000
    data = os.urandom(total + 1)
    cuts = [0, 2, 2, 500, 1000, total // 3 * 2, total + 1]
    some = [data[start:end] for start, end in itertools.pairwise(cuts)]

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor) as association:
            assert association.data_length_per_pdu % 2 == 0
            length = len(data) if with_length else None
            response = await association.store(STORE_CONTEXT, store_request(), pieces(*some), length)
            assert response.status == Status.SUCCESS
            assert response.affected_sop_instance_uid == "1.2.3.1"
            response = await association.store(STORE_CONTEXT, store_request(2), pieces(), 0)
            assert response.status == Status.SUCCESS

    with scripted_acceptor(Script(policy=policy(maximum_length))) as acceptor:
        run(work(acceptor))
    first, second = acceptor.stored
    assert first.data_set == data
    assert second.data_set == b""


def test_a_failure_is_an_answer(run: Run[None]) -> None:
    def answer(received: Received) -> CStoreResponse:
        assert isinstance(received.message, CStoreRequest)
        return received.message.respond(0xA700, error_comment="disk is full")

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor) as association:
            response = await association.store(STORE_CONTEXT, store_request(), pieces(b"12"), 2)
            assert (response.status, response.error_comment) == (0xA700, "disk is full")

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        run(work(acceptor))


@pytest.mark.parametrize(
    ("asked", "granted", "used"),
    [(1, None, 1), (8, None, 1), (8, 1, 1), (8, 3, 3), (3, 8, 3), (4, 0, 4)],
)
def test_the_window_that_was_agreed_is_used_and_not_exceeded(
    run: Run[None], asked: int, granted: int | None, used: int
) -> None:
    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, window=asked) as association:
            assert association.window == used
            futures = [
                await association.start(STORE_CONTEXT, store_request(number), pieces(b"ab" * number))
                for number in range(1, 2 * used + 1)
            ]
            # The acceptor answers when so many requests are there, and nothing but the window let the second half go.
            assert association.outstanding <= used
            for number, future in enumerate(futures, 1):
                response = (await future).response
                assert isinstance(response, CStoreResponse)
                assert response.affected_sop_instance_uid == f"1.2.3.{number}"

    with scripted_acceptor(Script(window=granted, hold=used)) as acceptor:
        run(work(acceptor))
    assert acceptor.outstanding_max == used
    assert len(acceptor.stored) == 2 * used
    message_ids = [
        received.message.message_id for received in acceptor.stored if isinstance(received.message, Request)
    ]
    assert len(set(message_ids)) == len(message_ids)


def test_requests_made_at_the_same_time_do_not_mix(run: Run[None]) -> None:
    data = [os.urandom(200_000 + 2 * number) for number in range(6)]

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, window=4) as association:
            stores = (
                association.store(
                    STORE_CONTEXT, store_request(number), pieces(one[:1000], one[1000:]), len(one)
                )
                for number, one in enumerate(data)
            )
            responses = await asyncio.gather(*stores, association.echo())
            assert {response.status for response in responses} == {Status.SUCCESS}

    with scripted_acceptor(Script(window=4)) as acceptor:
        run(work(acceptor))
    assert [received.data_set for received in acceptor.stored] == data


def test_a_request_with_a_data_set_of_its_own_gets_response_and_data_set(run: Run[None]) -> None:
    action = NActionRequest(
        message_id=0,
        requested_sop_class_uid=COMMITMENT,
        requested_sop_instance_uid=f"{COMMITMENT}.1",
        action_type_id=1,
    )

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, abstract_syntax=COMMITMENT) as association:
            answer = await association.invoke(STORE_CONTEXT, action, b"data set")
            assert isinstance(answer.response, NActionResponse)
            assert answer.response.status == Status.SUCCESS

    anything = AcceptancePolicy(accepts_abstract_syntax=lambda _: True)
    with scripted_acceptor(Script(policy=anything)) as acceptor:
        run(work(acceptor))
    assert acceptor.received[0].data_set == b"data set"


def test_a_context_that_was_not_accepted_is_our_mistake(run: Run[None]) -> None:
    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor) as association:
            with pytest.raises(LocalError, match="5"):
                await association.start(5, store_request())

    with scripted_acceptor() as acceptor:
        run(work(acceptor))


# Flow


def test_a_peer_that_does_not_read_stops_the_source(run: Run[None]) -> None:
    reads = threading.Event()
    piece = bytes(65536)
    count = 400
    taken = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(count):
            taken += 1
            yield piece

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor) as association:
            storing = asyncio.ensure_future(
                association.store(STORE_CONTEXT, store_request(), source(), count * len(piece))
            )
            connection = association._connection
            await until(lambda: connection._write_blocked)
            stopped_at = taken
            assert stopped_at < count
            assert connection._transport.get_write_buffer_size() < CLIENT_WRITE_BUFFER_BYTES + 2 * len(piece)
            reads.set()
            assert (await storing).status == Status.SUCCESS

    with scripted_acceptor(Script(reads=reads)) as acceptor:
        run(work(acceptor))
    assert len(acceptor.stored[0].data_set) == count * len(piece)


def test_many_small_pdus_go_out_in_bounded_portions(run: Run[None], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor) as association:
            connection = association._connection
            write = connection.write

            async def noted(some: Sequence[Buffer]) -> None:
                sizes.append(len(some))
                await write(some)

            monkeypatch.setattr(connection, "write", noted)
            await association.store(STORE_CONTEXT, store_request(), pieces(bytes(20_000)), 20_000)

    with scripted_acceptor(Script(policy=policy(16))) as acceptor:
        run(work(acceptor))
    assert max(sizes) <= CLIENT_WRITE_PIECES_MAX + 1
    assert len(sizes) > 3


# Sources


def test_a_source_that_fails_at_once_costs_nothing(run: Run[None], tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield (tmp_path / "nothing").read_bytes()

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor) as association:
            with pytest.raises(FileNotFoundError):
                await association.start(STORE_CONTEXT, store_request(), broken(), 10)
            response = await association.store(STORE_CONTEXT, store_request(2), pieces(b"12"), 2)
            assert response.status == Status.SUCCESS

    with scripted_acceptor() as acceptor:
        run(work(acceptor))
    assert len(acceptor.received) == 1


@pytest.mark.parametrize(
    ("some", "length", "error"),
    [
        ((b"1234",), 6, "has 4 bytes and was to have 6"),
        ((b"1234", b"1234"), 6, "more than the 6 bytes"),
        ((b"12345678",), 6, "more than the 6 bytes"),
        ((b"123", b"4"), 4, "odd|even"),
    ],
)
def test_a_source_that_does_not_keep_its_word_ends_the_association(
    run: Run[None], some: tuple[bytes, ...], length: int, error: str
) -> None:
    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor)
        with pytest.raises(LocalError, match=error):
            await association.start(STORE_CONTEXT, store_request(), pieces(*some), length)
        with pytest.raises(AssociationLostError, match="ended by us"):
            await association.echo()
        await association.close()

    with scripted_acceptor() as acceptor:
        run(work(acceptor))
    assert acceptor.received == []


def test_a_source_that_fails_half_way_ends_the_association_and_others_hear_of_it(run: Run[None]) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b"1234"
        raise OSError("bad sector")

    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor, window=4)
        waiting = await association.start(STORE_CONTEXT, store_request(1), pieces(b"12"), 2)
        with pytest.raises(OSError, match="bad sector"):
            await association.start(STORE_CONTEXT, store_request(2), half())
        with pytest.raises(AssociationLostError):
            await waiting
        await association.close()

    with scripted_acceptor(Script(window=4, hold=4)) as acceptor:
        run(work(acceptor))
