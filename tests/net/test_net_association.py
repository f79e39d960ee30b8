"""One association from the first byte to the last, over real sockets, on both event loops."""

import socket
import threading
from collections.abc import Iterator
from random import Random

import pytest

from stowkeeper.net.connecting import QUICK_ACKNOWLEDGE
from stowkeeper.net.handlers import StoreAnswer
from support.raw_peer import (
    ABORT,
    ABORT_REQUEST,
    ASSOCIATE_AC,
    C_ECHO_RSP,
    C_STORE_RSP,
    COMMAND,
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LAST,
    P_DATA,
    PDU,
    RELEASE_REQUEST,
    RELEASE_RP,
    VERIFICATION,
    Context,
    PeerClosed,
    RawPeer,
    associate_rq,
    command_set,
    data_set_pdus,
    echo_command,
    p_data,
    pdu,
    pdv,
    store_command,
    store_message,
)
from support.server_thread import SERVED_BY, RecordingHandlers, ServerThread, serving

DATA = Random(1).randbytes(70_000)
HALF = store_message(1, "1.2.3", DATA)[:30_000]


@pytest.fixture
def handlers() -> RecordingHandlers:
    return RecordingHandlers()


@pytest.fixture(params=SERVED_BY)
def server(request: pytest.FixtureRequest, handlers: RecordingHandlers) -> Iterator[ServerThread]:
    with serving(handlers, request.param) as running:
        yield running


@pytest.fixture
def peer(server: ServerThread) -> Iterator[RawPeer]:
    with RawPeer(server.port) as raw:
        yield raw


# Messages, in any split


def test_an_orderly_association(server: ServerThread, peer: RawPeer, handlers: RecordingHandlers) -> None:
    assert peer.associate().kind == ASSOCIATE_AC
    assert peer.accepted == {1: EXPLICIT_VR_LITTLE_ENDIAN, 3: EXPLICIT_VR_LITTLE_ENDIAN}
    assert peer.echo().status == 0
    answer = peer.store("1.2.3", DATA, message_id=500)
    assert (answer.command_field, answer.responds_to, answer.status) == (C_STORE_RSP, 500, 0)
    assert answer.text(0x1000) == "1.2.3"
    assert peer.release().kind == RELEASE_RP
    peer.close()
    assert server.only_ending(handlers) == ("released", "")
    (stored,) = handlers.stores
    assert stored.data == DATA
    assert stored.answered_with == StoreAnswer(status=0)
    (facts,) = handlers.closed
    assert facts is stored.facts is handlers.opened[0]
    assert (facts.calling_ae_title, facts.called_ae_title) == ("RAWPEER", "STOWKEEPER")
    assert (facts.peer_address, facts.messages, facts.contexts_accepted) == ("127.0.0.1", 2, 2)
    assert [(result.context_id, result.result) for result in facts.results] == [(1, 0), (3, 0)]
    assert facts.bytes_received > len(DATA)
    assert facts.opened_at_nanoseconds < facts.closed_at_nanoseconds


def test_it_may_come_byte_by_byte(server: ServerThread, peer: RawPeer, handlers: RecordingHandlers) -> None:
    request = associate_rq([Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE)])
    peer.send(request, pieces=[1] * (len(request) - 1))
    assert peer.read_association_answer().kind == ASSOCIATE_AC
    message = store_message(1, "1.2.3", DATA[:60], piece=13)
    peer.send(message, pieces=[1] * (len(message) - 1))
    assert peer.read_answer().status == 0
    peer.send(RELEASE_REQUEST, pieces=[1] * 9)
    assert peer.read_pdu().kind == RELEASE_RP
    assert handlers.stores[0].data == DATA[:60]


@pytest.mark.parametrize("piece", [2, 333, 16_000, 250_000])
def test_pdus_of_any_size_bring_the_same_bytes(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers, piece: int
) -> None:
    peer.associate()
    data = Random(piece).randbytes(2_000 if piece == 2 else 1_500_001)
    message = store_message(1, "1.2.3", data, piece=piece)
    cuts = [Random(piece).randrange(1, 60_000) for _ in range(20)]
    peer.send(message, pieces=cuts)
    assert peer.read_answer().status == 0
    assert bytes(handlers.stores[0].data) == data


def test_pdvs_and_messages_may_share_a_pdu(peer: RawPeer, handlers: RecordingHandlers) -> None:
    peer.associate()
    whole = (
        pdv(1, store_command("1.2.3"), control=COMMAND | LAST)
        + pdv(1, DATA[:100], control=0)
        + pdv(1, DATA[100:200], control=0)
        + pdv(1, b"", control=LAST)
        + pdv(3, echo_command(9), control=COMMAND | LAST)
    )
    peer.send(pdu(P_DATA, whole))
    answers = {answer.responds_to: answer for answer in (peer.read_answer(), peer.read_answer())}
    assert answers[1].status == answers[9].status == 0
    assert handlers.stores[0].data == DATA[:200]


def test_a_command_may_come_in_several_pdus(peer: RawPeer) -> None:
    peer.associate()
    command = echo_command(4)
    peer.send(p_data(3, command[:5], control=COMMAND) + p_data(3, command[5:], control=COMMAND | LAST))
    assert peer.read_answer().responds_to == 4


def test_answers_keep_to_the_length_the_peer_takes(peer: RawPeer) -> None:
    peer.associate(maximum_length=32)
    peer.send(p_data(3, echo_command(), control=COMMAND | LAST))
    received = [peer.read_pdu()]
    while not received[-1].body[5] & LAST:
        received.append(peer.read_pdu())
    assert len(received) > 2
    assert max(len(each.body) for each in received) <= 32


@pytest.mark.parametrize("maximum_length", [None, 0, 1, 7, 0xFFFFFFFF])
def test_odd_maximum_lengths_are_lived_with(peer: RawPeer, maximum_length: int | None) -> None:
    peer.associate(maximum_length=maximum_length)
    assert peer.echo().status == 0


# Messages that are not C-STORE


def test_an_unknown_command_is_answered_and_the_association_goes_on(peer: RawPeer) -> None:
    peer.associate()
    find = command_set({0x0002: CT_IMAGE_STORAGE, 0x0100: 0x0020, 0x0110: 21, 0x0700: 0, 0x0800: 1})
    peer.send(p_data(1, find, control=COMMAND | LAST) + data_set_pdus(1, DATA))
    answer = peer.read_answer()
    assert (answer.command_field, answer.responds_to, answer.status) == (0x8020, 21, 0x0211)
    assert answer.comment
    unheard = command_set({0x0100: 0x0666, 0x0110: 22, 0x0800: 0x0101})
    peer.send(p_data(1, unheard, control=COMMAND | LAST))
    answer = peer.read_answer()
    assert (answer.command_field, answer.responds_to, answer.status) == (0x8666, 22, 0x0211)
    assert peer.echo().status == 0


def test_responses_nobody_awaits_and_cancels_get_no_answer(peer: RawPeer) -> None:
    peer.associate()
    response = command_set({0x0100: C_STORE_RSP, 0x0120: 77, 0x0800: 0x0101, 0x0900: 0})
    with_data = command_set({0x0100: 0x8020, 0x0120: 78, 0x0800: 1, 0x0900: 0xFF00})
    cancel = command_set({0x0100: 0x0FFF, 0x0120: 79, 0x0800: 0x0101})
    peer.send(
        p_data(1, response, control=COMMAND | LAST)
        + p_data(1, with_data, control=COMMAND | LAST)
        + data_set_pdus(1, DATA)
        + p_data(1, cancel, control=COMMAND | LAST)
    )
    answer = peer.echo(message_id=80)
    assert (answer.command_field, answer.responds_to) == (C_ECHO_RSP, 80)


def test_a_store_without_a_data_set_is_refused_and_noted(peer: RawPeer, handlers: RecordingHandlers) -> None:
    peer.associate()
    peer.send(p_data(1, store_command("1.2.3", has_data_set=False), control=COMMAND | LAST))
    answer = peer.read_answer()
    assert (answer.status, answer.comment) == (0xC000, "the request came without a data set")
    assert answer.offending == [0x00000800]
    ((request, given),) = handlers.refused
    assert (request.affected_sop_instance_uid, given.status) == ("1.2.3", 0xC000)
    assert peer.echo().status == 0


def test_a_verdict_goes_out_as_it_is(peer: RawPeer, handlers: RecordingHandlers) -> None:
    handlers.verdict = StoreAnswer(status=0xA900, error_comment="x" * 100, offending_elements=(0x00080018,))
    peer.associate()
    answer = peer.store("1.2.3", DATA)
    assert (answer.status, len(answer.comment), answer.offending) == (0xA900, 64, [0x00080018])


# What real peers get wrong, and must still work


def test_even_context_ids_and_padding_of_all_kinds(peer: RawPeer, handlers: RecordingHandlers) -> None:
    contexts = [
        Context(context_id=2, abstract_syntax=CT_IMAGE_STORAGE),
        Context(context_id=0, abstract_syntax=VERIFICATION),
    ]
    answer = peer.associate(
        *contexts,
        called=b"  STOWKEEPER\0\0\0\0",
        calling=b"SCAN NER\0",
        uid_padding=b" \0",
        user_items=b"\x7a\0\0\3abc",
        more_items=b"\x99\0\0\1x",
    )
    assert answer.kind == ASSOCIATE_AC
    assert sorted(peer.accepted) == [0, 2]
    assert peer.echo(context_id=0).status == 0
    assert peer.store("1.2.3 ", DATA, context_id=2, sop_class_uid=CT_IMAGE_STORAGE + "\0").status == 0
    stored = handlers.stores[0]
    assert (stored.facts.calling_ae_title, stored.facts.called_ae_title) == ("SCAN NER", "STOWKEEPER")
    assert stored.request.affected_sop_instance_uid == "1.2.3"
    assert stored.context.abstract_syntax == CT_IMAGE_STORAGE


def test_several_contexts_of_one_class_keep_their_transfer_syntaxes(
    peer: RawPeer, handlers: RecordingHandlers
) -> None:
    jpeg = "1.2.840.10008.1.2.4.50"
    syntaxes = {1: EXPLICIT_VR_LITTLE_ENDIAN, 3: IMPLICIT_VR_LITTLE_ENDIAN, 5: jpeg}
    peer.associate(
        *(
            Context(context_id=n, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=(u,))
            for n, u in syntaxes.items()
        )
    )
    assert peer.accepted == syntaxes
    for context_id in (5, 1, 3):
        assert peer.store("1.2.3", DATA, context_id=context_id).context_id == context_id
    assert [stored.context.transfer_syntax for stored in handlers.stores] == [syntaxes[n] for n in (5, 1, 3)]


# The asynchronous operations window


def test_eight_operations_may_be_outstanding(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    handlers.answers = False
    peer.associate(window=(0, 1))
    assert peer.user_information[0x53] == b"\0\x08\0\x01"
    for number in range(1, 9):
        peer.send(store_message(1, f"1.2.{number}", DATA, message_id=number))
    server.wait_until(lambda: [s.end for s in handlers.stores] == ["committed"] * 8)
    assert peer.echo(message_id=99).responds_to == 99, "the association is alive meanwhile"
    order = [5, 1, 8, 2, 7, 3, 6, 4]
    for number in order:
        stored = handlers.stores[number - 1]
        threading.Thread(target=stored.answer, args=(StoreAnswer(status=number),)).start()
        answer = peer.read_answer()
        assert (answer.responds_to, answer.status) == (number, number)
        assert answer.text(0x1000) == f"1.2.{number}"
    assert [stored.data for stored in handlers.stores] == [DATA] * 8


def test_no_window_is_spoken_of_unasked(peer: RawPeer) -> None:
    peer.associate()
    assert 0x53 not in peer.user_information


@pytest.mark.parametrize(("asked", "granted"), [((8, 8), 8), ((3, 1), 3), (None, 1)])
def test_a_peer_beyond_its_window_waits_and_is_served(
    server: ServerThread,
    peer: RawPeer,
    handlers: RecordingHandlers,
    asked: tuple[int, int] | None,
    granted: int,
) -> None:
    handlers.answers = False
    peer.associate(window=asked)
    for number in range(1, 13):
        peer.send(store_message(1, f"1.2.{number}", DATA[:100], message_id=number))
        if number == granted + 1:
            server.wait_until(lambda: len(handlers.stores) == granted + 1)
            assert not server.protocols[0]._reading
    assert len(handlers.stores) == granted + 1
    for number in range(1, 13):
        server.wait_until(lambda number=number: len(handlers.stores) >= number)  # type: ignore[misc]  # a default in a lambda
        handlers.stores[number - 1].answer(StoreAnswer(status=0))
        assert peer.read_answer().responds_to == number


def test_a_message_id_in_use_is_refused_and_the_first_operation_does_not_suffer(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    handlers.answers = False
    peer.associate(window=(8, 8))
    peer.send(store_message(1, "1.2.1", DATA, message_id=5) + store_message(1, "1.2.2", DATA, message_id=5))
    answer = peer.read_answer()
    assert (answer.responds_to, answer.status, answer.offending) == (5, 0x0210, [0x00000110])
    assert [given.status for _, given in handlers.refused] == [0x0210]
    server.wait_until(lambda: handlers.stores[0].end == "committed")
    handlers.stores[0].answer(StoreAnswer(status=0))
    assert peer.read_answer().status == 0
    assert len(handlers.stores) == 1


def test_a_flood_far_beyond_the_window_is_given_up(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    handlers.answers = False
    peer.associate()
    message = b"".join(store_message(1, "1.2.3", b"\0\0", message_id=number) for number in range(1, 300))
    peer.send(message)
    assert peer.read_pdu().kind == ABORT
    peer.close()
    end, words = server.only_ending(handlers)
    assert end == "aborted"
    assert "operations in progress" in words
    assert len(handlers.stores) <= 72


# Endings


def test_a_release_waits_for_the_answers(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    handlers.answers = False
    peer.associate()
    peer.send(store_message(1, "1.2.3", DATA) + RELEASE_REQUEST)
    server.wait_until(lambda: bool(handlers.stores) and handlers.stores[0].end == "committed")
    handlers.stores[0].answer(StoreAnswer(status=0))
    assert peer.read_answer().status == 0
    assert peer.read_pdu() == PDU(kind=RELEASE_RP, body=b"\0\0\0\0")
    peer.close()
    assert server.only_ending(handlers) == ("released", "")


def test_a_release_in_the_middle_of_a_message_is_no_release(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    peer.associate()
    peer.send(p_data(1, store_command("1.2.3"), control=COMMAND | LAST) + RELEASE_REQUEST)
    assert peer.read_pdu().kind == ABORT
    peer.close()
    words = "the peer asked for release in the middle of a message"
    assert server.only_ending(handlers) == ("aborted", words)
    assert handlers.stores[0].end == words


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_connection_lost_in_the_middle_gives_the_instance_up(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers, reset: bool
) -> None:
    peer.associate()
    peer.send(HALF)
    server.wait_until(lambda: bool(handlers.stores))
    if reset:
        peer.reset()
    else:
        peer.close()
    end, words = server.only_ending(handlers)
    assert end == "lost"
    assert words == "the peer closed the connection" or words.startswith("the connection broke: ")
    assert handlers.stores[0].end == words


def test_an_answer_after_the_end_goes_nowhere(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    handlers.answers = False
    peer.associate()
    peer.send(store_message(1, "1.2.3", DATA))
    server.wait_until(lambda: bool(handlers.stores) and handlers.stores[0].end == "committed")
    peer.send(ABORT_REQUEST)
    server.wait_until_empty()
    handlers.stores[0].answer(StoreAnswer(status=0))
    server.call(lambda: None)
    assert handlers.stores[0].answered_with is None
    assert handlers.stores[0].unanswered
    (facts,) = handlers.closed
    assert facts.end == "aborted"


def test_an_answer_that_a_closing_connection_does_not_take_was_not_given(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    handlers.answers = False
    peer.associate()
    peer.send(store_message(1, "1.2.3", DATA))
    server.wait_until(lambda: bool(handlers.stores) and handlers.stores[0].end == "committed")
    (protocol,) = server.protocols

    def close_and_answer() -> None:
        protocol._transport.close()
        protocol._answer(next(iter(protocol._stores)), StoreAnswer(status=0))

    server.call(close_and_answer)
    assert handlers.stores[0].answered_with is None
    assert handlers.stores[0].unanswered == "the association ended before the answer"


MORE_WITH_THE_REQUEST: dict[str, bytes] = {
    "A-ABORT": ABORT_REQUEST,
    "A-RELEASE-RQ": RELEASE_REQUEST,
    "P-DATA": p_data(3, echo_command(), control=COMMAND | LAST),
    "a second request": associate_rq([Context(context_id=1, abstract_syntax=VERIFICATION)]),
    "garbage": b"\xff" * 40,
}


@pytest.mark.parametrize("more", MORE_WITH_THE_REQUEST.values(), ids=MORE_WITH_THE_REQUEST.keys())
def test_what_comes_on_the_heels_of_the_request_breaks_only_that_association(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers, more: bytes
) -> None:
    peer.send(associate_rq([Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE)]) + more)
    received = peer.read_pdu() if more != ABORT_REQUEST else None
    assert received is None or received.kind == ABORT
    peer.close()
    end, words = server.only_ending(handlers)
    assert end == "aborted"
    assert words
    assert handlers.closed[0].calling_ae_title == "RAWPEER"


def test_the_upper_layer_rejects_versions_it_does_not_speak(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    assert peer.associate(version=2).reasons == (1, 2, 2)
    peer.close()
    end, words = server.only_ending(handlers)
    assert end == "rejected"
    assert words
    assert handlers.closed[0].rejection == (1, 2, 2)


# The socket


def test_acknowledgements_are_not_delayed_within_a_message(
    server: ServerThread, peer: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if QUICK_ACKNOWLEDGE is None:
        pytest.skip("this system has no TCP_QUICKACK")
    peer.associate()
    (protocol,) = server.protocols
    real = protocol._socket
    armed: list[tuple[int, int, int]] = []

    class Watched:
        def setsockopt(self, level: int, option: int, value: int) -> None:
            real.setsockopt(level, option, value)
            armed.append((level, option, value))

    protocol._socket = Watched()
    # DCMTK writes the header of a PDU by itself: 12 bytes, whose acknowledgement Nagle waits for.
    for start, end in ((0, 12), (12, 100), (100, 5000), (5000, 30_000)):
        before = len(armed)
        peer.send(HALF[start:end])
        server.wait_until(lambda before=before: len(armed) > before)  # type: ignore[misc]  # a default in a lambda
    assert set(armed) == {(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)}
    assert real.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_closed_peer_reads_no_more(peer: RawPeer) -> None:
    peer.associate()
    peer.release()
    peer.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(PeerClosed):
        peer.read_pdu()
