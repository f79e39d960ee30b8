"""Requests other than C-STORE as acceptor: data sets collected within bounds, answers now or later, from any thread."""

import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from stowkeeper.dimse.errors import PeerError
from stowkeeper.dimse.message_types import NActionRequest, NEventReportResponse, Response
from stowkeeper.net.data_set_room import DataSetRoom
from stowkeeper.net.handlers import StoreAnswer
from support.commitment_messages import (
    COMMITMENT,
    CONTEXTS,
    N_ACTION_RSP,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    action_command,
    action_message,
    event_response,
    role_item,
)
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
    data_set_pdus,
    echo_command,
    p_data,
    store_message,
)
from support.serial_server import serving_serially
from support.server_thread import OPTIONS, SERVED_BY, ServerThread, serving
from support.taking_handlers import Taken, TakingHandlers

DATA = Random(4).randbytes(50_000)
UNFINISHED = p_data(5, action_command(), control=COMMAND | LAST) + p_data(5, DATA, control=0)
WINDOW = 2


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


def only_taken(server: ServerThread, handlers: TakingHandlers) -> Taken:
    """Wait until one message was handed over."""
    server.wait_until(lambda: bool(handlers.taken))
    (taken,) = handlers.taken
    return taken


# Whole messages


@pytest.mark.parametrize("piece", [2, 100, 16_000, 250_000])
def test_a_data_set_is_whole_when_it_is_handed_over(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers, piece: int
) -> None:
    peer.associate(*CONTEXTS)
    data = Random(piece).randbytes(10_000 if piece == 2 else 1_000_001)
    cuts = [Random(piece).randrange(1, 40_000) for _ in range(10)]
    peer.send(action_message(data, 500, piece=piece), pieces=cuts)
    answer = peer.read_answer()
    assert (answer.command_field, answer.responds_to, answer.status) == (N_ACTION_RSP, 500, 0)
    assert (answer.text(0x0002), answer.text(0x1000)) == (PUSH_MODEL, PUSH_MODEL_INSTANCE)
    assert (answer.context_id, answer.number(0x1008)) == (5, 1)
    taken = only_taken(server, handlers)
    assert taken.data_set == data
    assert isinstance(taken.data_set, bytes)
    assert isinstance(taken.message, NActionRequest)
    assert (taken.message.message_id, taken.message.action_type_id) == (500, 1)
    assert taken.context.abstract_syntax == PUSH_MODEL
    assert taken.facts is handlers.opened[0]
    assert server.server.data_set_room.taken == 0
    assert peer.release().kind == RELEASE_RP


def test_an_even_context_id_does_no_harm(peer: RawPeer, handlers: TakingHandlers) -> None:
    peer.associate(Context(context_id=2, abstract_syntax=PUSH_MODEL), user_items=role_item(1, 0))
    assert list(peer.accepted) == [2]
    assert peer.user_information[0x54][-2:] == b"\1\0"
    peer.send(action_message(DATA, context_id=2))
    answer = peer.read_answer()
    assert (answer.context_id, answer.status) == (2, 0)
    assert handlers.taken[0].data_set == DATA
    assert peer.release().kind == RELEASE_RP


def test_a_request_without_a_data_set_is_handed_over_without_one(
    peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    peer.send(p_data(5, action_command(has_data_set=False), control=COMMAND | LAST))
    assert peer.read_answer().status == 0
    assert handlers.taken[0].data_set == b""
    assert not handlers.asked


def test_an_empty_data_set_is_one(peer: RawPeer, handlers: TakingHandlers) -> None:
    peer.associate(*CONTEXTS)
    peer.send(action_message(b""))
    assert peer.read_answer().status == 0
    assert handlers.taken[0].data_set == b""
    assert len(handlers.asked) == 1


def test_a_response_that_nobody_awaits_is_the_handlers_own(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    peer.send(event_response(77))
    taken = only_taken(server, handlers)
    assert isinstance(taken.message, NEventReportResponse)
    assert peer.echo().status == 0
    assert peer.release().kind == RELEASE_RP


# Bounds


def test_what_is_too_long_is_refused_when_it_has_come(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    handlers.bytes_max = len(DATA)
    peer.associate(*CONTEXTS)
    with capture_logs() as lines:
        peer.send(action_message(DATA + b"12", 1) + action_message(DATA, 2))
        answers = [peer.read_answer() for _ in range(2)]
    assert [(answer.responds_to, answer.status) for answer in answers] == [(1, 0x0213), (2, 0)]
    assert answers[0].comment == f"its data set has more than {len(DATA)} bytes"
    assert only_taken(server, handlers).data_set == DATA
    (line,) = [line for line in lines if line.get("what") == "a message was refused"]
    assert (line["command"], line["association"]) == ("N-ACTION-RQ", handlers.opened[0].association_id)
    assert server.server.data_set_room.taken == 0


def test_beyond_the_servers_memory_requests_are_refused_and_others_go_on(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    server.server.data_set_room.most = 2 * len(DATA)
    handlers.replies = False
    with RawPeer(server.port) as other:
        for each, count in ((peer, 1), (other, 2)):
            each.associate(*CONTEXTS)
            each.send(action_message(DATA))
            server.wait_until(lambda count=count: len(handlers.taken) == count)
        assert server.server.data_set_room.taken == 2 * len(DATA)
        with RawPeer(server.port) as third:
            third.associate(*CONTEXTS)
            third.send(action_message(b"12"))
            answer = third.read_answer()
            assert (answer.status, answer.comment) == (0x0213, "there is no memory for its data set now")
            assert third.echo().status == 0
            handlers.taken[0].respond()
            assert peer.read_answer().status == 0
            handlers.replies = True
            third.send(action_message(DATA))
            assert third.read_answer().status == 0
        handlers.taken[1].respond()
        assert other.read_answer().status == 0
    assert server.server.data_set_room.taken == 0


def test_an_unread_data_set_is_answered_behind_its_end(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    handlers.bytes_max = 0
    peer.associate(*CONTEXTS)
    message = action_message(DATA)
    peer.send(message[:-1000])
    assert only_taken(server, handlers).data_set == b"", "it is handed over before its data set has come"
    peer.send(message[-1000:] + p_data(3, echo_command(9), control=COMMAND | LAST))
    assert [peer.read_answer().command_field for _ in range(2)] == [N_ACTION_RSP, C_ECHO_RSP]


@pytest.mark.parametrize("is_early", [True, False])
def test_an_unread_data_set_may_be_answered_later(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers, is_early: bool
) -> None:
    handlers.bytes_max, handlers.replies = 0, False
    peer.associate(*CONTEXTS)
    message = action_message(DATA)
    peer.send(message[:-1000])
    taken = only_taken(server, handlers)
    if is_early:
        taken.respond(0x0110)
        others = server.protocols[0]._others
        server.wait_until(lambda: others._incoming.response is not None)
    peer.send(message[-1000:] + p_data(3, echo_command(9), control=COMMAND | LAST))
    if is_early:
        assert peer.read_answer().status == 0x0110
    assert peer.read_answer().command_field == C_ECHO_RSP
    if not is_early:
        taken.respond(0x0110)
        assert peer.read_answer().status == 0x0110
    assert peer.release().kind == RELEASE_RP


# Answers later


def test_an_answer_may_come_later_from_any_thread_and_others_first(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    handlers.replies = False
    peer.associate(*CONTEXTS, Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE), window=(8, 8))
    peer.send(action_message(DATA, 1))
    taken = only_taken(server, handlers)
    assert peer.echo().status == 0
    assert peer.store("1.2.3", DATA, message_id=2).status == 0
    thread = threading.Thread(target=taken.respond)
    thread.start()
    answer = peer.read_answer()
    thread.join()
    assert (answer.command_field, answer.responds_to, answer.status) == (N_ACTION_RSP, 1, 0)


def test_only_the_first_answer_counts(server: ServerThread, peer: RawPeer, handlers: TakingHandlers) -> None:
    peer.associate(*CONTEXTS)
    peer.send(action_message(DATA, 1))
    assert peer.read_answer().status == 0
    taken = only_taken(server, handlers)
    taken.respond(0x0110)
    handlers.replies = False
    peer.send(action_message(DATA, 2))
    server.wait_until(lambda: len(handlers.taken) == 2)
    handlers.taken[1].respond(0x0112)
    handlers.taken[1].respond(0x0110)
    answer = peer.read_answer()
    assert (answer.responds_to, answer.status) == (2, 0x0112)
    assert peer.echo().status == 0
    assert server.server.data_set_room.taken == 0


def test_release_waits_for_the_answer(server: ServerThread, peer: RawPeer, handlers: TakingHandlers) -> None:
    handlers.replies = False
    peer.associate(*CONTEXTS)
    peer.send(action_message(DATA) + RELEASE_REQUEST)
    taken = only_taken(server, handlers)
    server.wait_until(lambda: server.protocols_now[0]._release_requested)
    assert not taken.facts.end
    taken.respond()
    assert peer.read_answer().status == 0
    assert peer.read_pdu().kind == RELEASE_RP
    peer.close()
    assert server.only_ending(handlers) == ("released", "")


def test_the_drain_waits_for_the_answer(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    handlers.replies = False
    peer.associate(*CONTEXTS)
    peer.send(action_message(DATA))
    taken = only_taken(server, handlers)
    stopping = server.begin(server.server.stop())
    server.wait_until(lambda: server.protocols_now[0]._draining)
    assert not taken.facts.end
    taken.respond()
    assert peer.read_answer().status == 0
    assert peer.read_pdu().kind == RELEASE_RQ
    peer.send(RELEASE_RESPONSE)
    peer.close()
    stopping.result(30)
    assert taken.facts.end == "shutdown"


def test_an_answer_that_is_awaited_is_no_idleness(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    handlers.replies = False
    peer.associate(*CONTEXTS)
    peer.send(action_message(DATA))
    taken = only_taken(server, handlers)
    server.advance(OPTIONS.idle_seconds + 10)
    assert not taken.facts.end
    taken.respond()
    assert peer.read_answer().status == 0
    server.advance(OPTIONS.idle_seconds - 10)
    assert not taken.facts.end
    server.advance(OPTIONS.idle_seconds + 10)
    assert peer.read_pdu().kind == ABORT
    assert taken.facts.timed_out


def test_a_data_set_that_stands_still_ends_the_association(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    peer.send(action_message(DATA)[:-1000])
    server.wait_until(lambda: server.server.data_set_room.taken > len(DATA) - 1100)
    server.advance(OPTIONS.message_seconds + 10)
    assert peer.read_pdu().kind == ABORT
    peer.close()
    assert server.only_ending(handlers)[0] == "aborted"
    assert handlers.closed[0].timed_out
    assert server.server.data_set_room.taken == 0
    assert not handlers.taken


# The window and message ids


def test_unanswered_requests_fill_the_window_and_stop_reading(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    handlers.replies = False
    peer.associate(*CONTEXTS, window=(WINDOW, 1))
    for message_id in range(1, WINDOW + 2):
        peer.send(action_message(DATA, message_id))
        server.wait_until(lambda message_id=message_id: len(handlers.taken) == message_id)
    (protocol,) = server.protocols
    server.wait_until(lambda: not protocol._reading)
    peer.send(action_message(DATA, 50))
    handlers.taken[1].respond()
    assert peer.read_answer().responds_to == 2
    server.wait_until(lambda: len(handlers.taken) == WINDOW + 2)
    for taken in handlers.taken[0], *handlers.taken[2:]:
        taken.respond()
    assert [peer.read_answer().responds_to for _ in range(3)] == [1, 3, 50]


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_message_id_in_use_is_refused_behind_its_data_set(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers, is_stored: bool
) -> None:
    handlers.replies = handlers.answers = False
    peer.associate(*CONTEXTS, Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE), window=(8, 8))
    if is_stored:
        peer.send(store_message(1, "1.2.3", DATA, message_id=7))
        server.wait_until(lambda: bool(handlers.stores) and handlers.stores[0].end == "committed")
    else:
        peer.send(action_message(DATA, 7))
        only_taken(server, handlers)
    asked = len(handlers.asked)
    peer.send(action_message(DATA, 7))
    answer = peer.read_answer()
    assert (answer.responds_to, answer.status, answer.offending) == (7, 0x0210, [0x00000110])
    assert len(handlers.asked) == asked, "nobody is asked about it"
    assert len(handlers.taken) == (not is_stored)
    assert peer.echo(message_id=8).status == 0
    if is_stored:
        handlers.stores[0].answer(StoreAnswer(status=0))
    else:
        handlers.taken[0].respond()
    assert peer.read_answer().responds_to == 7
    peer.send(action_message(DATA, 7))
    server.wait_until(lambda: len(handlers.taken) == 1 + (not is_stored))


# Ends


def end_by_abort(peer: RawPeer) -> None:
    peer.send(ABORT_REQUEST)


def end_by_reset(peer: RawPeer) -> None:
    peer.reset()


def end_by_fault(peer: RawPeer) -> None:
    peer.send(p_data(5, action_command(), control=COMMAND | LAST))
    assert peer.read_pdu().kind == ABORT
    peer.close()


@pytest.mark.parametrize("end", [end_by_abort, end_by_reset, end_by_fault])
def test_what_ends_in_the_middle_of_a_data_set_was_never_asked(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers, end: Callable[[RawPeer], None]
) -> None:
    peer.associate(*CONTEXTS)
    peer.send(UNFINISHED)
    server.wait_until(lambda: server.server.data_set_room.taken == len(DATA))
    end(peer)
    assert server.only_ending(handlers)[0] in {"aborted", "lost"}
    assert server.server.data_set_room.taken == 0
    assert not handlers.taken


@pytest.mark.parametrize("end", [end_by_abort, end_by_reset])
def test_an_answer_to_nobody_is_dropped_and_its_memory_is_free(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers, end: Callable[[RawPeer], None]
) -> None:
    handlers.replies = False
    peer.associate(*CONTEXTS)
    peer.send(action_message(DATA))
    taken = only_taken(server, handlers)
    end(peer)
    server.wait_until_empty()
    assert server.server.data_set_room.taken == len(DATA), "the handler still has it"
    taken.respond()
    taken.respond()
    server.wait_until(lambda: server.server.data_set_room.taken == 0)


def test_a_handler_may_end_the_association(server: ServerThread, handlers: TakingHandlers) -> None:
    class Refusing(TakingHandlers):
        def other_message(self, *arguments: Any) -> Response | None:
            raise PeerError("N-ACTION is not taken here")

    refusing = Refusing()
    server.call(lambda: setattr(server.server, "handlers", refusing))
    with RawPeer(server.port) as peer:
        peer.associate(*CONTEXTS)
        peer.send(action_message(DATA))
        assert peer.read_pdu().kind == ABORT
    server.wait_until_empty()
    assert [(facts.end, facts.words) for facts in refusing.closed] == [
        ("aborted", "N-ACTION is not taken here")
    ]
    assert server.server.data_set_room.taken == 0


def test_a_release_in_the_middle_of_a_data_set_is_a_fault(peer: RawPeer, handlers: TakingHandlers) -> None:
    peer.associate(*CONTEXTS)
    peer.send(UNFINISHED + RELEASE_REQUEST)
    assert peer.read_pdu().kind == ABORT
    assert not handlers.taken


def test_other_contexts_may_not_finish_a_data_set(peer: RawPeer, handlers: TakingHandlers) -> None:
    peer.associate(*CONTEXTS)
    peer.send(p_data(5, action_command(), control=COMMAND | LAST) + data_set_pdus(3, DATA))
    assert peer.read_pdu().kind == ABORT
    assert not handlers.taken


@pytest.mark.slow
@pytest.mark.parametrize("served_by", SERVED_BY)
def test_answers_and_ends_from_many_threads_leave_nothing_behind(served_by: str) -> None:
    """Each request is answered on a thread of its own while its peer goes away or stays."""
    handlers = TakingHandlers()
    handlers.replies = False
    answering: list[threading.Thread] = []
    seen = 0
    with serving(handlers, served_by) as server:
        for number in range(40):
            with RawPeer(server.port) as peer:
                peer.associate(COMMITMENT)
                peer.send(action_message(DATA, 1 + number))
                seen += 1
                server.wait_until(lambda: len(handlers.taken) == seen)  # noqa: B023 - it is waited for here
                thread = threading.Thread(target=handlers.taken[-1].respond)
                answering.append(thread)
                thread.start()
                if number % 2:
                    try:
                        assert peer.read_answer().responds_to == 1 + number
                    except PeerClosed:
                        pytest.fail("the answer was lost")
        for thread in answering:
            thread.join()
        server.wait_until(lambda: server.server.data_set_room.taken == 0)


# The serial server


@pytest.mark.parametrize("replies", [True, False])
def test_the_serial_server_collects_and_answers_as_well(replies: bool) -> None:
    class AtOnce(TakingHandlers):
        def other_message(self, *arguments: Any) -> Response | None:
            response = super().other_message(*arguments)
            if response is None:
                self.taken[-1].respond()
            return response

    handlers = AtOnce()
    handlers.replies = replies
    with serving_serially(handlers) as server, RawPeer(server.port) as peer:
        peer.associate(*CONTEXTS)
        peer.send(action_message(DATA, 1) + action_message(DATA, 2))
        assert [peer.read_answer().responds_to for _ in range(2)] == [1, 2]
        assert [taken.data_set for taken in handlers.taken] == [DATA, DATA]
        handlers.bytes_max = 100
        peer.send(action_message(DATA, 3))
        assert peer.read_answer().status == 0x0213
        assert server.server.data_set_room.taken == 0
        assert peer.release().kind == RELEASE_RP


# The memory


def test_room_is_taken_as_long_as_there_is_some() -> None:
    room = DataSetRoom(10)
    one, other = room.take_none(), room.take_none()
    assert one.take(4)
    assert other.take(6)
    assert not one.take(1)
    other.give_back()
    other.give_back()
    assert room.taken == 4
    assert not other.take(7)
    assert other.take(6)
    assert room.taken == 10
