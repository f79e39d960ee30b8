"""Requests that we send as acceptor, to the requestor of an association: storage commitment reports on the same one."""

import threading
from collections.abc import Iterator
from random import Random

import pytest
from structlog.testing import capture_logs

from stowkeeper.dimse.errors import LocalError
from stowkeeper.dimse.message_types import NEventReportRequest, Response
from stowkeeper.net.limits import OWN_REQUESTS_WAITING_MAX, SEND_BUFFER_HIGH_BYTES
from support.commitment_messages import (
    COMMITMENT,
    CONTEXTS,
    N_ACTION_RSP,
    N_EVENT_REPORT_RQ,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    WholeMessage,
    action_message,
    event_response,
    read_message,
)
from support.own_requests import REPORT, Awaited, invoke, status_of
from support.raw_peer import (
    C_ECHO_RSP,
    C_STORE_RSP,
    COMMAND,
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    LAST,
    RELEASE_REQUEST,
    RELEASE_RP,
    Context,
    RawPeer,
    echo_command,
    p_data,
    store_message,
)
from support.server_thread import SERVED_BY, ServerThread, serving
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


# Requests and responses


def test_a_report_goes_out_and_its_answer_comes_back(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    awaited = invoke(server, handlers)
    report = read_message(peer)
    assert report.command.command_field == N_EVENT_REPORT_RQ
    assert (report.command.context_id, report.data) == (5, SMALL)
    assert (report.command.text(0x0002), report.command.text(0x1000)) == (PUSH_MODEL, PUSH_MODEL_INSTANCE)
    assert report.command.number(0x1002) == 1
    assert report.message_id > 0
    assert peer.echo().status == 0, "the association goes on meanwhile"
    assert not awaited.has_come
    peer.send(event_response(report.message_id, status=0x0112))
    assert status_of(awaited) == 0x0112
    assert awaited.transfer_syntaxes == [EXPLICIT_VR_LITTLE_ENDIAN]
    assert peer.release().kind == RELEASE_RP


def test_a_request_may_have_no_data_set(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    awaited = invoke(server, handlers, b"")
    report = read_message(peer)
    assert report.fragments == 0
    peer.send(event_response(report.message_id))
    assert status_of(awaited) == 0


def test_a_response_may_bring_a_data_set_that_nobody_reads(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    awaited = invoke(server, handlers)
    message_id = read_message(peer).message_id
    response = event_response(message_id).replace(b"\0\0\0\x08\2\0\0\0\1\1", b"\0\0\0\x08\2\0\0\0\1\0")
    peer.send(response + p_data(5, b"a reply", control=0) + p_data(5, b"", control=LAST))
    assert status_of(awaited) == 0
    assert peer.echo().status == 0
    assert not handlers.taken
    assert not handlers.asked


@pytest.mark.parametrize("maximum_length", [8, 300, 16_384, 0])
def test_pdus_keep_to_the_length_that_the_peer_takes(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers, maximum_length: int
) -> None:
    peer.associate(*CONTEXTS, maximum_length=maximum_length)
    data = LARGE[:9_999] if maximum_length == 8 else LARGE
    awaited = invoke(server, handlers, data)
    report = read_message(peer)
    assert report.data == data
    assert report.fragments >= len(data) / (maximum_length or len(data))
    peer.send(event_response(report.message_id))
    assert status_of(awaited) == 0


def test_without_association_or_context_it_is_told_at_once(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(Context(context_id=3, abstract_syntax=CT_IMAGE_STORAGE))
    for more in (
        {"association_id": "none"},
        {"abstract_syntax": PUSH_MODEL},
        {"abstract_syntax": "1.2.840.10008.1.20.2"},
    ):
        awaited = invoke(server, handlers, **more)  # type: ignore[arg-type]  # handed on as they are
        assert awaited.outcomes == [None]
        assert awaited.transfer_syntaxes == []
    assert peer.release().kind == RELEASE_RP
    peer.close()
    server.wait_until_empty()
    assert invoke(server, handlers, abstract_syntax=CT_IMAGE_STORAGE).outcomes == [None]


def test_what_cannot_be_written_is_the_callers_fault(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    request = NEventReportRequest(
        message_id=0,
        affected_sop_class_uid=PUSH_MODEL,
        affected_sop_instance_uid="1" * 65,
        event_type_id=1,
    )
    awaited = Awaited()
    with pytest.raises(LocalError):
        server.server.invoke(
            handlers.opened[0].association_id, PUSH_MODEL, request, lambda _: SMALL, awaited.done
        )
    assert not awaited.has_come
    assert peer.echo().status == 0


def test_open_associations_are_told_as_they_are_now(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    assert server.server.open_associations() == []
    with RawPeer(server.port) as other, RawPeer(server.port):
        peer.associate(*CONTEXTS, calling=b"ONE")
        other.associate(*CONTEXTS, calling=b"TWO")
        found = server.server.open_associations()
        assert {facts.calling_ae_title for facts in found} == {"ONE", "TWO"}
        assert all(facts not in handlers.opened or facts is not handlers.opened[0] for facts in found)
        peer.echo()
        assert {facts.messages for facts in found} == {0}
        assert {facts.messages for facts in server.server.open_associations()} == {0, 1}
        assert other.release().kind == RELEASE_RP
        (left,) = server.server.open_associations()
        assert left.calling_ae_title == "ONE"


def test_an_association_that_ends_while_its_report_is_written_is_gone(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    awaited = Awaited()

    def data_set(_transfer_syntax: str) -> bytes:
        peer.reset()
        server.wait_until_empty()
        return SMALL

    server.server.invoke(handlers.opened[0].association_id, PUSH_MODEL, REPORT, data_set, awaited.done)
    assert awaited.outcomes == [None]


# The window


def test_without_a_window_one_waits_for_the_other(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS)
    first, second = invoke(server, handlers, b"first."), invoke(server, handlers, b"second")
    report = read_message(peer)
    assert report.data == b"first."
    assert peer.echo().command_field == C_ECHO_RSP, "nothing else is on its way"
    peer.send(event_response(report.message_id, status=1))
    assert status_of(first) == 1
    following = read_message(peer)
    assert (following.data, following.message_id != report.message_id) == (b"second", True)
    peer.send(event_response(following.message_id, status=2))
    assert status_of(second) == 2


def test_within_a_window_several_are_outstanding_and_answered_in_any_order(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    peer.associate(*CONTEXTS, window=(1, 3))
    awaited = [invoke(server, handlers, LARGE[number : 200_000 + number]) for number in range(4)]
    reports = [read_message(peer) for _ in range(3)]
    assert [report.data for report in reports] == [LARGE[number : 200_000 + number] for number in range(3)]
    assert len({report.message_id for report in reports}) == 3
    for number in (2, 0, 1):
        peer.send(event_response(reports[number].message_id, status=number))
    assert [status_of(each) for each in awaited[:3]] == [0, 1, 2]
    assert not awaited[3].has_come
    peer.send(event_response(read_message(peer).message_id))
    assert status_of(awaited[3]) == 0


def test_only_so_many_may_wait(server: ServerThread, peer: RawPeer, handlers: TakingHandlers) -> None:
    peer.associate(*CONTEXTS)
    awaited = [invoke(server, handlers) for _ in range(OWN_REQUESTS_WAITING_MAX + 2)]
    assert awaited[-1].wait() is None
    assert not any(each.has_come for each in awaited[:-1])
    for each in awaited[:-1]:
        peer.send(event_response(read_message(peer).message_id))
        assert status_of(each) == 0


# Flow


@pytest.mark.slow
def test_answers_wait_for_the_end_of_a_report(server: ServerThread, handlers: TakingHandlers) -> None:
    with RawPeer(server.port, receive_buffer=10_000) as peer:
        peer.associate(*ALL_CONTEXTS, window=(8, 1))
        awaited = invoke(server, handlers, LARGE * 3)
        own = server.protocols[0]
        server.wait_until(lambda: own._own is not None and own._own.is_sending)
        peer.send(p_data(3, echo_command(70), control=COMMAND | LAST))
        peer.send(store_message(1, "1.2.3", LARGE[:100_000], message_id=71) + action_message(SMALL, 72))
        server.wait_until(lambda: len(handlers.stores) == 1 and len(handlers.taken) == 1)
        assert own._own is not None
        assert own._own.is_sending, "all of it was sent before"
        report = read_message(peer)  # fails at anything in between
        assert report.data == LARGE * 3
        answers = {answer.command_field: answer for answer in (peer.read_answer() for _ in range(3))}
        assert set(answers) == {C_ECHO_RSP, C_STORE_RSP, N_ACTION_RSP}
        peer.send(event_response(report.message_id))
        assert status_of(awaited) == 0
        assert peer.release().kind == RELEASE_RP


@pytest.mark.slow
def test_a_peer_that_is_busy_with_sending_reads_its_report_later(
    server: ServerThread, handlers: TakingHandlers
) -> None:
    """It reads nothing before all that it sends is taken, so whoever waited for it to read would wait for ever."""
    with RawPeer(server.port, receive_buffer=10_000) as peer:
        peer.associate(*ALL_CONTEXTS)
        awaited = invoke(server, handlers, LARGE * 3)
        (protocol,) = server.protocols
        server.wait_until(lambda: protocol._own is not None and protocol._own.is_sending)
        for number in range(1, 21):
            peer.send(store_message(1, f"1.2.{number}", LARGE[:1_000_000], message_id=number))
        server.wait_until(lambda: len(handlers.stores) == 20)
        report = read_message(peer)
        assert report.data == LARGE * 3
        assert [peer.read_answer().responds_to for _ in range(20)] == list(range(1, 21))
        peer.send(event_response(report.message_id))
        assert status_of(awaited) == 0


@pytest.mark.slow
def test_a_peer_that_asks_without_reading_is_not_heard_for_ever(
    server: ServerThread, handlers: TakingHandlers
) -> None:
    with RawPeer(server.port, receive_buffer=10_000) as peer:
        peer.associate(*CONTEXTS)
        awaited = invoke(server, handlers, LARGE * 5)
        (protocol,) = server.protocols
        server.wait_until(lambda: protocol._own is not None and protocol._own.is_sending)
        echoes = p_data(3, echo_command(), control=COMMAND | LAST) * 200
        peer.send_until(echoes, lambda: not protocol._reading)
        own = protocol._own
        assert own is not None
        assert SEND_BUFFER_HIGH_BYTES < own.answers_behind < 8 * SEND_BUFFER_HIGH_BYTES
        peer.close()
        assert awaited.wait() is None


def test_what_waits_to_be_sent_has_a_bound(handlers: TakingHandlers) -> None:
    for served_by in ("asyncio", "uvloop"):
        with serving(handlers, served_by) as server, RawPeer(server.port, receive_buffer=10_000) as peer:
            peer.associate(*CONTEXTS)
            invoke(server, handlers, LARGE * 8)
            (protocol,) = server.protocols
            server.wait_until(lambda protocol=protocol: protocol._write_blocked)
            waiting = server.call(protocol._transport.get_write_buffer_size)
            assert waiting <= 3 * SEND_BUFFER_HIGH_BYTES
            with RawPeer(server.port) as other:
                other.associate(*CONTEXTS)
                assert other.echo().status == 0


# Threads, and those who wait


def test_who_fails_to_take_a_response_harms_nobody(
    server: ServerThread, peer: RawPeer, handlers: TakingHandlers
) -> None:
    def fails(_response: Response | None) -> None:
        raise ValueError("it is not wanted")

    peer.associate(*CONTEXTS)
    with capture_logs() as lines:
        server.server.invoke(handlers.opened[0].association_id, PUSH_MODEL, REPORT, lambda _: SMALL, fails)
        peer.send(event_response(read_message(peer).message_id))
        awaited = invoke(server, handlers)
        peer.send(event_response(read_message(peer).message_id))
        assert status_of(awaited) == 0
    assert [line["what"] for line in lines if line["log_level"] == "error"] == [
        "a response could not be taken"
    ]


@pytest.mark.slow
def test_requests_of_many_threads_are_each_told_of_once_however_it_ends(
    server: ServerThread, handlers: TakingHandlers
) -> None:
    """Peers answer a few and then go, while threads ask on and on."""
    awaited: list[Awaited] = []

    def ask(association_id: str) -> None:
        awaited.extend(invoke(server, handlers, association_id=association_id) for _ in range(20))

    for number in range(12):
        with RawPeer(server.port) as peer:
            peer.associate(*CONTEXTS)
            known = handlers.opened[-1].association_id
            threads = [threading.Thread(target=ask, args=(known,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for _ in range(number % 4):
                peer.send(event_response(read_message(peer).message_id))
            if number % 3 == 0:
                peer.reset()
            elif number % 3 == 1:
                peer.send(RELEASE_REQUEST)
        for thread in threads:
            thread.join()
    for each in awaited:
        each.wait()
    server.wait_until_empty()
    assert len(awaited) == 12 * 60
    assert all(len(each.outcomes) == 1 for each in awaited)
    assert sum(each.outcomes != [None] for each in awaited) >= 9


def test_reports_and_requests_cross(server: ServerThread, peer: RawPeer, handlers: TakingHandlers) -> None:
    """Both sides ask at the same time, with message ids that are alike."""
    peer.associate(*CONTEXTS)
    awaited = []
    for number in range(1, 30):
        awaited.append(invoke(server, handlers, LARGE[: 1000 * number]))
        peer.send(action_message(LARGE[: 1000 * number], number))
        report: WholeMessage | None = None
        answer: WholeMessage | None = None
        for _ in range(2):
            message = read_message(peer)
            if message.command.command_field == N_EVENT_REPORT_RQ:
                report = message
            else:
                answer = message
        assert report is not None
        assert answer is not None
        assert (answer.command.command_field, answer.command.responds_to) == (N_ACTION_RSP, number)
        assert report.data == LARGE[: 1000 * number]
        peer.send(event_response(report.message_id))
    assert [status_of(each) for each in awaited] == [0] * 29


def test_one_association_among_many_gets_its_own(server: ServerThread, handlers: TakingHandlers) -> None:
    peers: list[RawPeer] = []
    try:
        for number in range(6):
            peers.append(RawPeer(server.port))
            peers[-1].associate(COMMITMENT, calling=b"PEER%d" % number)
        ids = {facts.calling_ae_title: facts.association_id for facts in server.server.open_associations()}
        awaited = [
            invoke(server, handlers, b"for %d!" % number, association_id=ids[f"PEER{number}"])
            for number in range(6)
        ]
        for number, each in enumerate(peers):
            report = read_message(each)
            assert report.data == b"for %d!" % number
            each.send(event_response(report.message_id, status=number))
        assert [status_of(each) for each in awaited] == list(range(6))
    finally:
        for each in peers:
            each.close()
