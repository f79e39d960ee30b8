"""The server of one association at a time, over real sockets: who waits, who is waited for, and for how long."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from random import Random

import pytest

from stowkeeper.dimse.errors import PeerError
from stowkeeper.net import serial_server
from stowkeeper.net.limits import LINGERING_CONNECTIONS_MAX
from support.hostile import CONTEXT, TWO_CONTEXTS, in_an_association, in_place_of_a_request, interleaved
from support.raw_peer import (
    ABORT,
    ABORT_REQUEST,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    RELEASE_REQUEST,
    RELEASE_RP,
    VERIFICATION,
    Context,
    PeerClosed,
    RawPeer,
    associate_rq,
    data_set_pdus,
    echo_command,
    p_data,
    store_command,
    store_message,
)
from support.serial_server import SerialServerThread, are_closed, endings, serving_serially
from support.server_thread import RecordingHandlers

DATA = Random(2).randbytes(300_000)
CONTEXTS = [
    Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE),
    Context(context_id=3, abstract_syntax=VERIFICATION),
]
ECHO = p_data(3, echo_command(7), control=COMMAND | LAST)
SHORT = 0.3
"""Seconds of a time limit that a test waits for."""


@pytest.fixture
def handlers() -> RecordingHandlers:
    return RecordingHandlers()


@pytest.fixture
def server(handlers: RecordingHandlers) -> Iterator[SerialServerThread]:
    with serving_serially(handlers) as running:
        yield running


def hold_association(port: int) -> None:
    """Hold an association from its request to its release; so the server serves."""
    with RawPeer(port) as peer:
        assert peer.associate().kind == ASSOCIATE_AC
        assert peer.echo().status == 0
        assert peer.release().kind == RELEASE_RP


def has_nothing(peer: RawPeer, seconds: float = 0.1) -> bool:
    """Tell whether nothing comes for a while."""
    peer.socket.settimeout(seconds)
    try:
        peer.socket.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        peer.socket.settimeout(20)
    return False


# Associations


def test_an_association(server: SerialServerThread, handlers: RecordingHandlers) -> None:
    with RawPeer(server.port) as peer:
        assert peer.associate(*CONTEXTS).kind == ASSOCIATE_AC
        assert peer.echo().status == 0
        assert peer.store("1.2.3", DATA).status == 0
        assert peer.store("1.2.4", DATA[:10]).status == 0
        assert peer.release().kind == RELEASE_RP
    server.wait_until(lambda: are_closed(handlers, 1))
    assert endings(handlers) == [("released", "")]
    assert [bytes(stored.data) for stored in handlers.stores] == [DATA, DATA[:10]]
    assert all(stored.answered_with is not None for stored in handlers.stores)
    (facts,) = handlers.opened
    assert facts.peer_address == "127.0.0.1"


def test_bytes_in_any_split(server: SerialServerThread, handlers: RecordingHandlers) -> None:
    random = Random(4)
    messages = associate_rq(CONTEXTS), store_message(1, "1.2.3", DATA[:20_000], piece=500)
    with RawPeer(server.port) as peer:
        for message in messages:
            peer.send(message, pieces=[random.choice([1, 2, 3, 50]) for _ in range(300)])
            if message is messages[0]:
                assert peer.read_association_answer().kind == ASSOCIATE_AC
        assert peer.read_answer().status == 0
    assert bytes(handlers.stores[0].data) == DATA[:20_000]


def test_messages_of_one_write_are_answered_in_turn(
    server: SerialServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port) as peer:
        peer.associate(*CONTEXTS)
        several = b"".join(store_message(1, f"1.2.{n}", DATA[:1000], message_id=n) for n in range(1, 6))
        peer.send(several + ECHO + RELEASE_REQUEST)
        assert [peer.read_answer().responds_to for _ in range(6)] == [1, 2, 3, 4, 5, 7]
        assert peer.read_pdu().kind == RELEASE_RP


def test_who_comes_meanwhile_waits_and_is_served(
    server: SerialServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port) as first, RawPeer(server.port) as second, RawPeer(server.port) as third:
        assert first.associate().kind == ASSOCIATE_AC
        for waiting in (second, third):
            waiting.send(associate_rq(CONTEXTS))
        assert first.echo().status == 0
        assert has_nothing(second)
        assert has_nothing(third)
        first.release()
        assert second.read_association_answer().kind == ASSOCIATE_AC
        assert second.echo().status == 0
        assert has_nothing(third)
        second.send(ABORT_REQUEST)
        assert third.read_association_answer().kind == ASSOCIATE_AC
        third.release()
    server.wait_until(lambda: are_closed(handlers, 3))
    assert [end for end, _ in endings(handlers)] == ["released", "aborted", "released"]


# Peers that do not close


def rejected(peer: RawPeer) -> None:
    peer.send(associate_rq([]))
    assert peer.read_association_answer().kind == ASSOCIATE_RJ


def released(peer: RawPeer) -> None:
    peer.associate()
    assert peer.release().kind == RELEASE_RP


def aborted_by_us(peer: RawPeer) -> None:
    peer.associate()
    peer.send(b"\x99" * 10)
    assert peer.read_pdu().kind == ABORT


@pytest.mark.slow
@pytest.mark.parametrize("how", [rejected, released, aborted_by_us])
def test_a_peer_that_does_not_close_blocks_nobody_and_is_closed_in_the_end(
    handlers: RecordingHandlers, how: object
) -> None:
    with serving_serially(handlers, association_request_seconds=3.0) as server, RawPeer(server.port) as peer:
        began = time.monotonic()
        how(peer)  # type: ignore[operator]  # a way to end, as the table has it
        hold_association(server.port)
        assert time.monotonic() - began < 2.5, "the next one waited for the first one's timer"
        assert has_nothing(peer, 0.05)
        assert peer.socket.recv(1) == b""
        assert time.monotonic() - began >= 3.0
        server.wait_until(lambda: are_closed(handlers, 2))


def test_a_peer_that_aborts_and_does_not_close_is_closed_at_once(
    server: SerialServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        peer.send(ABORT_REQUEST)
        assert peer.socket.recv(1) == b""
        hold_association(server.port)


def test_a_peer_that_goes_on_talking_behind_its_end_is_not_heard(handlers: RecordingHandlers) -> None:
    with (
        serving_serially(handlers, association_request_seconds=SHORT) as server,
        RawPeer(server.port) as peer,
    ):
        released(peer)
        peer.send(store_message(1, "1.2.3", DATA))
        hold_association(server.port)
        server.wait_until(lambda: server.lingering == 0)
        assert handlers.stores == []


def test_no_more_connections_linger_than_may(
    handlers: RecordingHandlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LINGERING_CONNECTIONS_MAX == serial_server.LINGERING_CONNECTIONS_MAX
    monkeypatch.setattr(serial_server, "LINGERING_CONNECTIONS_MAX", 3)
    with serving_serially(handlers) as server, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(server.port)) for _ in range(6)]
        for peer in peers:
            released(peer)
        server.wait_until(lambda: server.lingering == 3)
        for oldest in peers[:3]:
            assert oldest.socket.recv(1) == b""
        assert all(has_nothing(peer, 0.02) for peer in peers[3:])
        hold_association(server.port)


def test_the_end_waits_for_those_that_linger(handlers: RecordingHandlers) -> None:
    with serving_serially(handlers, serves_one=True) as server, RawPeer(server.port) as peer:
        released(peer)
        assert has_nothing(peer)
        assert not server.has_ended
        peer.close()
        server.wait_until(lambda: server.has_ended)
        assert are_closed(handlers, 1)


def test_the_end_waits_no_longer_than_the_timer(handlers: RecordingHandlers) -> None:
    with (
        serving_serially(handlers, serves_one=True, association_request_seconds=SHORT) as server,
        RawPeer(server.port) as peer,
    ):
        released(peer)
        assert peer.socket.recv(1) == b""
        server.wait_until(lambda: server.has_ended)
        assert server.lingering == 0


# Peers that say nothing


def test_a_connection_without_a_request_is_closed_in_time(handlers: RecordingHandlers) -> None:
    with (
        serving_serially(handlers, association_request_seconds=SHORT) as server,
        RawPeer(server.port) as silent,
        RawPeer(server.port) as next_one,
    ):
        next_one.send(associate_rq(CONTEXTS))
        assert silent.socket.recv(1) == b""
        assert next_one.read_association_answer().kind == ASSOCIATE_AC
        assert endings(handlers) == [("lost", "no association request came in time")]


def test_a_request_that_drips_is_closed_in_time(handlers: RecordingHandlers) -> None:
    with serving_serially(handlers, association_request_seconds=SHORT) as server:
        with RawPeer(server.port) as peer:
            request = associate_rq(CONTEXTS)
            peer.socket.settimeout(0.01)
            for at in range(len(request)):
                peer.send(request[at : at + 1])
                try:
                    if peer.socket.recv(1) == b"":
                        break
                except TimeoutError:
                    pass
                except ConnectionError:
                    break
            else:
                raise AssertionError("it was never closed")
        hold_association(server.port)


def test_an_idle_peer_is_aborted(handlers: RecordingHandlers) -> None:
    with serving_serially(handlers, idle_seconds=SHORT) as server, RawPeer(server.port) as peer:
        peer.associate()
        assert peer.read_pdu().reasons == (0, 0)
        assert endings(handlers) == [("aborted", "idle for 0.3 seconds")]
        hold_association(server.port)


def test_a_peer_that_stops_in_mid_message_is_aborted(handlers: RecordingHandlers) -> None:
    with serving_serially(handlers, message_seconds=SHORT) as server, RawPeer(server.port) as peer:
        peer.associate(*CONTEXTS)
        peer.send(store_message(1, "1.2.3", DATA)[:-1])
        assert peer.read_pdu().kind == ABORT
        server.wait_until(lambda: bool(handlers.stores[0].unanswered))
        assert endings(handlers) == [("aborted", "a message made no progress for 0.3 seconds")]
        hold_association(server.port)


@pytest.mark.slow
def test_limits_of_nothing_are_none(handlers: RecordingHandlers) -> None:
    with (
        serving_serially(
            handlers,
            idle_seconds=0,
            message_seconds=0,
            send_seconds=float("inf"),
            association_request_seconds=SHORT,
        ) as server,
        RawPeer(server.port) as peer,
    ):
        peer.associate(*CONTEXTS)
        assert has_nothing(peer, 2 * SHORT)
        message = store_message(1, "1.2.3", DATA)
        peer.send(message[:-1])
        assert has_nothing(peer, 2 * SHORT)
        peer.send(message[-1:])
        assert peer.read_answer().status == 0


@pytest.mark.slow
def test_a_peer_that_does_not_read_is_given_up(handlers: RecordingHandlers) -> None:
    with serving_serially(handlers, send_seconds=SHORT) as server:
        with RawPeer(server.port, receive_buffer=4096) as peer:
            peer.associate(*CONTEXTS)
            with suppress(ConnectionError):  # or its end is known before the next piece is sent
                peer.send_until(ECHO * 500, lambda: bool(handlers.closed))
        server.wait_until(lambda: are_closed(handlers, 1))
        ((end, words),) = endings(handlers)
        assert end == "lost"
        assert "the peer read no answer for" in words
        hold_association(server.port)


def test_meanwhile_is_called_while_nothing_comes(
    server: SerialServerThread, handlers: RecordingHandlers
) -> None:
    def passes(count: int) -> None:
        before = server.idle_calls
        server.wait_until(lambda: server.idle_calls >= before + count)

    passes(3)
    with RawPeer(server.port) as peer:
        passes(3)
        peer.associate(*CONTEXTS)
        passes(3)
        peer.send(store_message(1, "1.2.3", DATA)[:100])
        passes(3)


# Peers that are gone


@pytest.mark.parametrize("how", [RawPeer.close, RawPeer.reset])
def test_a_peer_that_is_gone_before_it_is_served(
    server: SerialServerThread, handlers: RecordingHandlers, how: object
) -> None:
    with RawPeer(server.port) as holding:
        holding.associate()
        for _ in range(3):
            gone = RawPeer(server.port)
            gone.send(associate_rq(CONTEXTS))
            how(gone)  # type: ignore[operator]  # a way to end, as the table has it
        holding.release()
    hold_association(server.port)
    server.wait_until(lambda: server.lingering == 0)


@pytest.mark.parametrize("how", [RawPeer.close, RawPeer.reset])
def test_a_peer_that_is_gone_in_mid_message(
    server: SerialServerThread, handlers: RecordingHandlers, how: object
) -> None:
    peer = RawPeer(server.port)
    peer.associate(*CONTEXTS)
    peer.send(store_message(1, "1.2.3", DATA)[:-1])
    server.wait_until(lambda: bool(handlers.stores) and len(handlers.stores[0].data) > 0)
    how(peer)  # type: ignore[operator]  # a way to end, as the table has it
    server.wait_until(lambda: are_closed(handlers, 1))
    assert handlers.stores[0].unanswered
    assert endings(handlers)[0][0] == "lost"
    hold_association(server.port)


# Peers that mean harm


@pytest.mark.slow
def test_whatever_comes_the_next_one_is_served(
    server: SerialServerThread, handlers: RecordingHandlers
) -> None:
    for hostile in in_place_of_a_request():
        with RawPeer(server.port) as peer:
            peer.send(hostile.data)
            answer = peer.read_pdu()
            assert (answer.kind, answer.reasons) == (hostile.answer, hostile.reasons), hostile.name
    for contexts, inputs in (([CONTEXT], in_an_association()), (TWO_CONTEXTS, interleaved())):
        for hostile in inputs:
            with RawPeer(server.port) as peer:
                peer.associate(*contexts)
                peer.send(hostile.data)
                answer = peer.read_pdu()
                assert (answer.kind, answer.reasons) == (hostile.answer, hostile.reasons), hostile.name
    hold_association(server.port)
    assert all(stored.unanswered for stored in handlers.stores)


# Handlers


class _Objecting(RecordingHandlers):
    """Handlers that end the association at one step of a C-STORE."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    def object_at(self, step: str) -> None:
        if step == self.step:
            raise PeerError(f"ended at {step}")

    def store(self, facts, context, request, answer):
        self.object_at("store")
        stored = super().store(facts, context, request, answer)
        write, commit = stored.write, stored.commit

        class Objecting:
            def __getattr__(inner, name: str) -> object:  # noqa: N805 - the outer self is needed, too
                return getattr(stored, name)

            def write(inner, piece: memoryview, release: object) -> None:  # noqa: N805 - the outer self is used inside
                write(piece, release)
                self.object_at("write")

            def commit(inner) -> None:  # noqa: N805 - the outer self is used inside
                self.object_at("commit")
                commit()

        return Objecting()

    def store_refused(self, facts, context, request, answer) -> None:
        self.object_at("store_refused")

    def other_message(self, facts, context, message, data_set, answer):
        self.object_at("other_message")
        return super().other_message(facts, context, message, data_set, answer)


@pytest.mark.parametrize("step", ["store", "write", "commit", "store_refused", "other_message"])
def test_handlers_end_an_association(step: str) -> None:
    handlers = _Objecting(step)
    with serving_serially(handlers) as server, RawPeer(server.port) as peer:
        peer.associate(*CONTEXTS)
        if step == "other_message":
            peer.send(ECHO)
        elif step == "store_refused":
            peer.send(p_data(1, store_command("1.2.3", has_data_set=False), control=COMMAND | LAST))
        else:
            peer.send(store_message(1, "1.2.3", DATA))
        assert peer.read_pdu().reasons == (0, 0)
        assert endings(handlers) == [("aborted", f"ended at {step}")]
        handlers.step = ""
        hold_association(server.port)


class _Slow(RecordingHandlers):
    """Handlers that take longer at one step than a peer may be silent."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    def take_time_at(self, step: str) -> None:
        if step == self.step:
            self.step = ""
            time.sleep(3 * SHORT)

    def negotiate(self, request, facts):
        self.take_time_at("negotiate")
        return super().negotiate(request, facts)

    def store(self, facts, context, request, answer):
        self.take_time_at("store")

        def answering(verdict) -> None:
            self.take_time_at("answer")
            answer(verdict)

        stored = super().store(facts, context, request, answering)
        stored_answered = stored.answered

        class Slow:
            def __getattr__(inner, name: str) -> object:  # noqa: N805 - the outer self is needed, too
                return getattr(stored, name)

            def answered(inner, answer: object) -> None:  # noqa: N805 - the outer self is used inside
                self.take_time_at("answered")
                stored_answered(answer)

        return Slow()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["negotiate", "store", "answer", "answered"])
def test_the_time_of_handlers_is_not_counted_as_the_peers(step: str) -> None:
    handlers = _Slow(step)
    with (
        serving_serially(
            handlers, idle_seconds=SHORT, message_seconds=SHORT, message_bytes_per_second_min=0
        ) as server,
        RawPeer(server.port) as peer,
    ):
        peer.associate(*CONTEXTS)
        peer.send(p_data(1, store_command("1.2.3"), control=COMMAND | LAST))
        if step == "store":  # nothing more is there to be read when the handler is done
            server.wait_until(lambda: not handlers.step)
            time.sleep(3 * SHORT)
        peer.send(data_set_pdus(1, DATA))
        assert peer.read_answer().status == 0
        assert peer.store("1.2.4", DATA).status == 0
        assert peer.release().kind == RELEASE_RP
        assert endings(handlers) == [("released", "")]


def test_a_peer_that_closes_in_place_of_an_answer(
    server: SerialServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port) as peer:
        peer.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(PeerClosed):
            peer.read_pdu()
    server.wait_until(lambda: are_closed(handlers, 1))
    assert endings(handlers) == [("lost", "the peer closed the connection")]
