"""The requestor when things end or go wrong: aborts, silence, broken rules, requests of the peer; and real peers."""

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.dimse.message_types import (
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    NEventReportRequest,
    NEventReportResponse,
    Request,
    Response,
)
from stowkeeper.net import client as client_module
from stowkeeper.net import client_connection
from stowkeeper.net.association_errors import (
    AssociationAbortedError,
    AssociationError,
    AssociationLostError,
    PeerTimeoutError,
)
from stowkeeper.net.client import ClientAssociation, association_request
from stowkeeper.upperlayer.items import ProposedContext
from stowkeeper.upperlayer.negotiation import AcceptedContext
from support.client_calls import (
    COMMITMENT,
    CT,
    IMPLICIT_LITTLE,
    SOON,
    STORE_CONTEXT,
    Run,
    connect,
    pieces,
    running_on,
    store_request,
    until,
)
from support.peers import Orthanc, ReceivingPeer
from support.scripted_acceptor import Acceptor, Act, Answer, Received, Script, scripted_acceptor
from support.server_thread import LOOPS


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run[Any]]:
    """Give what runs a coroutine, on each event loop in turn."""
    with running_on(request.param) as runs:
        yield runs


# Ends


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (Act.ABORT, AssociationAbortedError, "aborted"),
        (Act.CLOSE, AssociationLostError, "connection"),
        (Act.RELEASE, AssociationLostError, "released"),
    ],
)
def test_what_ends_the_association_reaches_all_who_wait(
    run: Run[None], act: Act, error: type[AssociationError], words: str
) -> None:
    answered = itertools.count()

    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor, window=3)
        futures = [
            await association.start(STORE_CONTEXT, store_request(number), pieces(b"12"), 2)
            for number in range(3)
        ]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(result, error) and words in str(result) for result in results[:2])
        with pytest.raises(error):
            await association.wait_until_answered()
        with pytest.raises(error):
            await association.start(STORE_CONTEXT, store_request(9), pieces(b"12"), 2)
        await association.release()  # is over already, and no error
        await until(lambda: acceptor.releases == (act is Act.RELEASE))

    # The last of the three is answered first: by the act.
    script = Script(window=3, hold=3, answer=lambda _: 0 if next(answered) < 2 else act)
    with scripted_acceptor(script) as acceptor:
        run(work(acceptor))


@pytest.mark.parametrize("act", [Act.ABORT, Act.CLOSE])
def test_an_end_in_the_middle_of_a_data_set_is_noticed(run: Run[None], act: Act) -> None:
    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor)
        with pytest.raises(AssociationError):
            await association.store(
                STORE_CONTEXT, store_request(), pieces(*[bytes(100_000)] * 300), 30_000_000
            )
        await association.close()

    script = Script(on_data=lambda count: act if count > 1_000_000 else None)
    with scripted_acceptor(script) as acceptor:
        run(work(acceptor))
    assert acceptor.received == []


def test_an_answer_that_never_comes_is_given_up(run: Run[None]) -> None:
    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor, timeouts=SOON)
        with pytest.raises(PeerTimeoutError, match=r"nothing moved for 0\.3 seconds"):
            await association.store(STORE_CONTEXT, store_request(), pieces(b"12"), 2)
        await association.close()

    with scripted_acceptor(Script(answer=lambda _: Act.SILENCE)) as acceptor:
        run(work(acceptor))


def test_a_peer_that_never_reads_is_given_up(run: Run[None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "CLIENT_CLOSE_SECONDS", 0.1)

    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor, timeouts=SOON)
        with pytest.raises(PeerTimeoutError):
            await association.store(STORE_CONTEXT, store_request(), pieces(*[bytes(1 << 20)] * 30))
        await association.close()  # though nobody takes what is left to be sent

    reads = threading.Event()
    with scripted_acceptor(Script(reads=reads)) as acceptor:
        run(work(acceptor))


def test_an_idle_association_is_not_given_up(run: Run[None]) -> None:
    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, timeouts=SOON) as association:
            connection = association._connection
            connection._moved_at -= 100
            connection._look()
            assert association.error is None
            assert (await association.echo()).status == Status.SUCCESS

    with scripted_acceptor() as acceptor:
        run(work(acceptor))


def test_a_release_that_is_not_answered_is_no_error(run: Run[None]) -> None:
    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, timeouts=SOON) as association:
            assert (await association.echo()).status == Status.SUCCESS
        assert isinstance(association.error, PeerTimeoutError)

    with scripted_acceptor(Script(answers_release=False)) as acceptor:
        run(work(acceptor))


def test_a_release_waits_for_what_is_outstanding(run: Run[None]) -> None:
    go_on = threading.Event()

    def answer(_: Received) -> Answer:
        go_on.wait(30)
        return 0

    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor, window=2)
        futures = [
            await association.start(STORE_CONTEXT, store_request(number), pieces(b"12"), 2)
            for number in range(2)
        ]
        releasing = asyncio.ensure_future(association.release())
        await until(lambda: bool(acceptor.received))  # the acceptor is about to answer, and does not yet
        for _ in range(10):
            await asyncio.sleep(0)
        assert association._connection.upper_layer.can_release
        go_on.set()
        await releasing
        assert [future.result().response.status for future in futures] == [0, 0]

    with scripted_acceptor(Script(window=2, answer=answer)) as acceptor:
        run(work(acceptor))


# What a peer gets wrong


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "broke the rules"),
        (b"\4\0\0\0\0\2\0\0", "broke the rules"),
        (CEchoResponse(responds_to=1, status=0), "C-ECHO-RSP answers message 1"),
    ],
)
def test_an_answer_that_breaks_the_rules_ends_the_association(
    run: Run[None], answer: bytes | Response, words: str
) -> None:
    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor)
        with pytest.raises(AssociationAbortedError) as raised:
            await association.store(STORE_CONTEXT, store_request(), pieces(b"12"), 2)
        assert words in str(raised.value)
        assert raised.value.by_us
        await association.close()

    with scripted_acceptor(Script(answer=lambda _: answer)) as acceptor:
        run(work(acceptor))


def test_an_answer_that_nobody_waits_for_is_ignored(run: Run[None]) -> None:
    answers: Iterator[Answer] = iter([CStoreResponse(responds_to=4711, status=0xA700), 0])

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, window=2) as association:
            first = await association.start(STORE_CONTEXT, store_request(1), pieces(b"12"), 2)
            second = await association.store(STORE_CONTEXT, store_request(2), pieces(b"12"), 2)
            assert second.status == Status.SUCCESS
            assert not first.done()
            association.abort()

    with scripted_acceptor(Script(window=2, answer=lambda _: next(answers))) as acceptor:
        run(work(acceptor))


def test_a_data_set_that_never_ends_is_given_up(run: Run[None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CLIENT_INCOMING_DATA_SET_BYTES_MAX", 100)
    report = event_report(1, has_data_set=True)
    fragment = b"\4\0\0\0\0\x56\0\0\0\x52\1\0" + bytes(80)

    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor)
        with pytest.raises(AssociationAbortedError, match="goes on beyond 100 bytes"):
            await association.store(STORE_CONTEXT, store_request(), pieces(b"12"), 2)
        await association.close()

    script = Script(on_established=(report,), answer=lambda _: fragment * 2)
    with scripted_acceptor(script) as acceptor:
        run(work(acceptor))


# Requests of the peer


def event_report(message_id: int, *, has_data_set: bool = False) -> NEventReportRequest:
    return NEventReportRequest(
        message_id=message_id,
        has_data_set=has_data_set,
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=f"{COMMITMENT}.1",
        event_type_id=1,
    )


async def until_answered(acceptor: Acceptor, count: int) -> list[Response]:
    def found() -> list[Response]:
        messages = (received.message for received in list(acceptor.received))
        return [message for message in messages if isinstance(message, Response)]

    await until(lambda: len(found()) >= count)
    return found()


def test_a_request_of_the_peer_is_answered_by_the_handler(run: Run[None]) -> None:
    seen: list[tuple[str, Request, bytes]] = []

    async def handler(context: AcceptedContext, request: Request, data_set: bytes) -> Response:
        seen.append((context.abstract_syntax, request, data_set))
        if request.message_id == 2:
            raise ValueError("no such transaction")
        return request.respond(Status.SUCCESS)

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, handler=handler) as association:
            responses = await until_answered(acceptor, 2)
            assert all(isinstance(response, NEventReportResponse) for response in responses)
            assert [response.status for response in responses] == [Status.SUCCESS, Status.PROCESSING_FAILURE]
            assert (await association.echo()).status == Status.SUCCESS

    with scripted_acceptor(Script(on_established=(event_report(1), event_report(2)))) as acceptor:
        run(work(acceptor))
    assert [(syntax, request.message_id, data) for syntax, request, data in seen] == [
        (CT, 1, b""),
        (CT, 2, b""),
    ]


def test_a_request_of_the_peer_without_a_handler_is_unrecognized(run: Run[None]) -> None:
    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor):
            (response,) = await until_answered(acceptor, 1)
            assert response.status == Status.UNRECOGNIZED_OPERATION

    with scripted_acceptor(Script(on_established=(event_report(1),))) as acceptor:
        run(work(acceptor))


def test_the_same_message_id_twice_is_a_duplicate_and_reading_waits_while_too_many_are_at_work(
    run: Run[None],
) -> None:
    go_on = asyncio.Event()

    async def handler(context: AcceptedContext, request: Request, data_set: bytes) -> Response:
        await go_on.wait()
        return request.respond(Status.SUCCESS)

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, handler=handler) as association:
            (duplicate,) = await until_answered(acceptor, 1)
            await until(lambda: not association._connection._transport.is_reading())
            assert (duplicate.responds_to, duplicate.status) == (1, Status.DUPLICATE_INVOCATION)
            go_on.set()
            responses = await until_answered(acceptor, 3)
            assert {response.responds_to for response in responses[1:]} == {1, 2}
            assert association._connection._transport.is_reading()

    requests = (event_report(1), event_report(1), event_report(2))
    with scripted_acceptor(Script(on_established=requests)) as acceptor:
        run(work(acceptor))


def test_a_release_waits_for_the_answer_to_the_peer(run: Run[None]) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def handler(context: AcceptedContext, request: Request, data_set: bytes) -> Response:
        asked.set()
        await go_on.wait()
        return request.respond(Status.SUCCESS)

    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor, handler=handler)
        await asked.wait()
        releasing = asyncio.create_task(association.release())
        await asyncio.sleep(0)
        assert association._connection.upper_layer.can_send_p_data
        go_on.set()
        await releasing
        (response,) = await until_answered(acceptor, 1)
        assert response.status == Status.SUCCESS

    with scripted_acceptor(Script(on_established=(event_report(1),))) as acceptor:
        run(work(acceptor))


def test_a_release_does_not_wait_for_ever_for_our_own_answer(run: Run[None]) -> None:
    asked = asyncio.Event()

    async def handler(context: AcceptedContext, request: Request, data_set: bytes) -> Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing wakes it")

    async def work(acceptor: Acceptor) -> None:
        association = await connect(acceptor, handler=handler, timeouts=SOON)
        await asked.wait()
        await association.release()
        assert "released" in str(association.error)
        assert acceptor.received == []

    with scripted_acceptor(Script(on_established=(event_report(1),))) as acceptor:
        run(work(acceptor))


def test_an_answer_to_the_peer_does_not_interrupt_a_data_set(run: Run[None]) -> None:
    handled = asyncio.Event()

    async def handler(context: AcceptedContext, request: Request, data_set: bytes) -> Response:
        handled.set()
        return request.respond(Status.SUCCESS)

    async def source() -> AsyncIterator[bytes]:
        yield bytes(1000)
        await handled.wait()
        for _ in range(20):
            await asyncio.sleep(0)
            yield bytes(1000)

    async def work(acceptor: Acceptor) -> None:
        async with await connect(acceptor, handler=handler) as association:
            response = await association.store(STORE_CONTEXT, store_request(), source())
            assert response.status == Status.SUCCESS
            await until_answered(acceptor, 1)

    with scripted_acceptor(Script(on_established=(event_report(1),))) as acceptor:
        run(work(acceptor))
    assert [type(received.message) for received in acceptor.received] == [CStoreRequest, NEventReportResponse]


# Real peers


async def echo_and_store(peer: ReceivingPeer, data: bytes) -> int:
    contexts = [
        ProposedContext(context_id=1, abstract_syntax=CT, transfer_syntaxes=(IMPLICIT_LITTLE,)),
        ProposedContext(context_id=3, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT_LITTLE,)),
    ]
    request = association_request(
        called_ae_title=peer.ae_title, calling_ae_title="STOWKEEPER", contexts=contexts, operations_window=8
    )
    async with await ClientAssociation.open(peer.host, peer.port, request) as association:
        assert (await association.echo()).status == Status.SUCCESS
        response = await association.store(1, store_request(), pieces(data), len(data))
        return response.status


def implicit_data_set(pixels: bytes) -> bytes:
    elements = [
        (0x0008, 0x0016, CT.encode() + b"\0"),
        (0x0008, 0x0018, b"1.2.3.1\0"),
        (0x0010, 0x0020, b"P1"),
        (0x0020, 0x000D, b"1.2.4\0"),
        (0x0020, 0x000E, b"1.2.5\0"),
        (0x7FE0, 0x0010, pixels),
    ]
    return b"".join(
        group.to_bytes(2, "little") + element.to_bytes(2, "little") + len(value).to_bytes(4, "little") + value
        for group, element, value in elements
    )


@pytest.mark.slow
@pytest.mark.peer("storescp")
@pytest.mark.parametrize("options", [(), ("-pdu", "4096"), ("-pdu", "131072")])
def test_dcmtk_takes_it(
    start_storescp: Callable[..., ReceivingPeer], options: tuple[str, ...], run: Run[int]
) -> None:
    peer = start_storescp("+B", "+xa", *options)
    data = implicit_data_set(os.urandom(300_000))
    assert run(echo_and_store(peer, data)) == Status.SUCCESS
    (stored,) = peer.stored_files()
    assert stored.read_bytes().endswith(data)


@pytest.mark.slow
@pytest.mark.peer("pynetdicom")
def test_pynetdicom_takes_it(pynetdicom_receiver: ReceivingPeer, run: Run[int]) -> None:
    data = implicit_data_set(os.urandom(300_000))
    assert run(echo_and_store(pynetdicom_receiver, data)) == Status.SUCCESS
    (stored,) = pynetdicom_receiver.stored_files()
    assert stored.read_bytes().endswith(data)


@pytest.mark.slow
@pytest.mark.peer("Orthanc")
def test_orthanc_takes_it(orthanc: Orthanc, run: Run[int]) -> None:
    assert run(echo_and_store(orthanc, implicit_data_set(os.urandom(1000)))) == Status.SUCCESS
    assert len(orthanc.request("GET", "/instances")) == 1
