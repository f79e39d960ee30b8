"""Requests that we send as acceptor when things end or stand still: who waits hears of it, once."""

from collections.abc import Callable, Iterator
from random import Random

import pytest
from structlog.testing import capture_logs

from support.commitment_messages import (
    CONTEXTS,
    event_response,
    read_message,
)
from support.own_requests import invoke, is_sending, status_of
from support.raw_peer import (
    ABORT,
    ABORT_REQUEST,
    C_ECHO_RSP,
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    RELEASE_REQUEST,
    RELEASE_RESPONSE,
    RELEASE_RP,
    RELEASE_RQ,
    Context,
    PeerClosed,
    RawPeer,
    echo_command,
    p_data,
    store_message,
)
from support.server_thread import OPTIONS, SERVED_BY, ServerThread, serving
from support.taking_handlers import TakingHandlers

SMALL = b"a report"
LARGE = Random(5).randbytes(3_000_001)
ALL_CONTEXTS = (*CONTEXTS, Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE))


@pytest.fixture
def handlers() -> TakingHandlers:
    return TakingHandlers()


@pytest.fixture(params=SERVED_BY)
def server(request: pytest.FixtureRequest, handlers: TakingHandlers) -> Iterator[ServerThread]:
    with serving(handlers, request.param) as running:
        yield running


@pytest.fixture
def peer(server: ServerThread) -> Iterator[RawPeer]:
    with RawPeer(server.port) as raw:
        yield raw


# Ends


def abort(peer: RawPeer) -> None:
    peer.send(ABORT_REQUEST)


def reset(peer: RawPeer) -> None:
    peer.reset()


def break_the_rules(peer: RawPeer) -> None:
    peer.send(event_response(1, field=0x8130))


@pytest.mark.parametrize("data", [SMALL, LARGE * 3])
@pytest.mark.parametrize("end", [abort, reset, break_the_rules])
def test_who_waits_hears_of_the_end(
    server: ServerThread, handlers: TakingHandlers, data: bytes, end: Callable[[RawPeer], None]
) -> None:
    with RawPeer(server.port, receive_buffer=10_000) as peer:
        peer.associate(*CONTEXTS)
        awaited = [invoke(server, handlers, data) for _ in range(3)]
        if data is SMALL:
            read_message(peer)
        else:
            server.wait_until(lambda: is_sending(server))
        end(peer)
        assert [each.wait() for each in awaited] == [None] * 3
        peer.close()
        server.wait_until_empty()
        assert server.call(lambda: dict(server.server._invocations)) == {}


def test_a_response_to_another_command_ends_the_association(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    awaited = invoke(server, handlers)
    message_id = read_message(peer).message_id
    peer.send(event_response(message_id, field=0x8130))
    assert peer.read_pdu().kind == ABORT
    assert awaited.wait() is None


def test_a_response_to_nothing_is_the_handlers_own(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    awaited = invoke(server, handlers)
    message_id = read_message(peer).message_id
    peer.send(event_response(message_id + 1) + event_response(message_id))
    assert status_of(awaited) == 0
    assert len(handlers.taken) == 1
    assert peer.echo().status == 0


def test_a_release_ends_what_is_awaited(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    awaited = [invoke(server, handlers) for _ in range(2)]
    read_message(peer)
    assert peer.release().kind == RELEASE_RP
    assert [each.wait() for each in awaited] == [None, None]
    peer.close()
    assert server.only_ending(handlers) == ("released", "")


@pytest.mark.slow
def test_a_release_waits_for_the_end_of_a_message(server: ServerThread, handlers: TakingHandlers) -> None:
    handlers.answers = False
    with RawPeer(server.port, receive_buffer=10_000) as peer:
        peer.associate(*ALL_CONTEXTS)
        awaited = invoke(server, handlers, LARGE * 3)
        server.wait_until(lambda: is_sending(server))
        peer.send(p_data(3, echo_command(), control=COMMAND | LAST) + RELEASE_REQUEST)
        assert awaited.wait() is None, "no answer can come behind a release"
        assert invoke(server, handlers).wait() is None
        assert read_message(peer).data == LARGE * 3
        assert peer.read_answer().command_field == C_ECHO_RSP
        assert peer.read_pdu().kind == RELEASE_RP
    assert server.only_ending(handlers) == ("released", "")


def test_the_drain_awaits_what_was_asked_and_asks_no_more(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    first, second = invoke(server, handlers), invoke(server, handlers)
    report = read_message(peer)
    stopping = server.begin(server.server.stop())
    assert second.wait() is None
    assert invoke(server, handlers).wait() is None
    assert not first.has_come
    peer.send(event_response(report.message_id))
    assert status_of(first) == 0
    assert peer.read_pdu().kind == RELEASE_RQ
    peer.send(RELEASE_RESPONSE)
    peer.close()
    stopping.result(30)


def test_the_end_of_the_server_ends_what_is_awaited(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    awaited = [invoke(server, handlers) for _ in range(2)]
    read_message(peer)
    for protocol in server.protocols:
        protocol._server.call_soon_threadsafe(protocol.cut)
    assert [each.wait() for each in awaited] == [None, None]
    server.wait_until_empty()
    assert invoke(server, handlers).outcomes == [None]


# Time


def test_who_gives_no_answer_is_asked_no_more(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    first, second = invoke(server, handlers), invoke(server, handlers)
    report = read_message(peer)
    server.advance(OPTIONS.send_seconds - 10)
    assert not first.has_come
    with capture_logs() as lines:
        server.advance(OPTIONS.send_seconds + 10)
    assert [first.wait(), second.wait()] == [None, None]
    assert [line["what"] for line in lines] == ["a request of ours was not answered"]
    assert invoke(server, handlers).wait() is None
    peer.send(event_response(report.message_id))
    assert peer.echo().status == 0, "a late answer does no harm"
    assert not handlers.taken
    assert first.outcomes == [None]
    assert peer.release().kind == RELEASE_RP


@pytest.mark.parametrize("served_by", SERVED_BY)
def test_no_answer_is_missed_while_a_message_of_the_peer_is_on_its_way(
    handlers: TakingHandlers, served_by: str
) -> None:
    """An answer cannot come in the middle of it."""
    with serving(handlers, served_by, send_seconds=20.0) as server, RawPeer(server.port) as peer:
        peer.associate(*ALL_CONTEXTS)
        awaited = invoke(server, handlers)
        report = read_message(peer)
        message = store_message(1, "1.2.3", LARGE[:200_000])
        peer.send(message[:-1000])
        server.wait_until(lambda: bool(handlers.stores) and len(handlers.stores[0].data) > 190_000)
        server.advance(40)
        assert not awaited.has_come
        peer.send(message[-1000:] + event_response(report.message_id))
        assert status_of(awaited) == 0


def test_an_answer_that_is_awaited_is_no_idleness(handlers: TakingHandlers) -> None:
    with serving(handlers, "uvloop", idle_seconds=20.0) as server, RawPeer(server.port) as peer:
        peer.associate(*CONTEXTS)
        awaited = invoke(server, handlers)
        report = read_message(peer)
        server.advance(30)
        assert not handlers.ended
        peer.send(event_response(report.message_id))
        assert status_of(awaited) == 0
        server.advance(30)
        assert peer.read_pdu().kind == ABORT


def test_a_peer_that_takes_no_more_of_a_report_is_cut_off(
    server: ServerThread, handlers: TakingHandlers
) -> None:
    with RawPeer(server.port, receive_buffer=10_000) as peer:
        peer.associate(*CONTEXTS)
        awaited = invoke(server, handlers, LARGE * 8)
        server.wait_until(lambda: is_sending(server))
        server.advance(OPTIONS.send_seconds + 10)
        assert awaited.wait() is None
        server.wait_until_empty()
        assert handlers.closed[0].end == "aborted"
        with pytest.raises(PeerClosed):
            read_message(peer)
