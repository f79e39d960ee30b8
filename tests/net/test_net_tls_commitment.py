"""Storage commitment over TLS: requests with data sets, answers later, and reports on the same association."""

import ssl
from collections.abc import Iterator

import pytest

from stowkeeper.dimse.message_types import NEventReportRequest, Response
from stowkeeper.net.tls_context import TLSContext, TLSOptions, acceptor_context
from support.commitment_messages import (
    CONTEXTS,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    action_message,
    event_response,
    read_message,
)
from support.raw_peer import COMMAND, LAST, RELEASE_RP, echo_command, p_data
from support.server_thread import LOOPS, ServerThread, serving
from support.taking_handlers import TakingHandlers
from support.tls_fixtures import TLSFiles
from support.tls_peer import TLSPeer, peer_context

pytestmark = pytest.mark.peer("openssl")

DATA = bytes(range(256)) * 8000


@pytest.fixture
def handlers() -> TakingHandlers:
    return TakingHandlers()


@pytest.fixture(params=LOOPS)
def server(
    request: pytest.FixtureRequest, handlers: TakingHandlers, tls_files: TLSFiles
) -> Iterator[ServerThread]:
    options = TLSOptions(
        certificate_file=tls_files.server.certificate,
        key_file=tls_files.server.key,
        ca_files=(tls_files.authority.certificate,),
    )
    tls: TLSContext = acceptor_context(options)
    with serving(handlers, request.param, tls=tls) as running:
        yield running


@pytest.fixture
def client(tls_files: TLSFiles) -> ssl.SSLContext:
    return peer_context(tls_files.authority.certificate, tls_files.client)


def test_a_request_is_collected_and_answered_later(
    server: ServerThread, handlers: TakingHandlers, client: ssl.SSLContext
) -> None:
    handlers.replies = False
    with TLSPeer(server.port, client) as peer:
        peer.associate(*CONTEXTS)
        peer.send(action_message(DATA, 9))
        server.wait_until(lambda: bool(handlers.taken))
        assert peer.echo().status == 0
        assert handlers.taken[0].data_set == DATA
        handlers.taken[0].respond(0x0110)
        answer = peer.read_answer()
        assert (answer.responds_to, answer.status) == (9, 0x0110)
        assert peer.release().kind == RELEASE_RP


@pytest.mark.slow
def test_a_report_reaches_a_peer_that_reads_it_late(
    server: ServerThread, handlers: TakingHandlers, client: ssl.SSLContext
) -> None:
    outcomes: list[Response | None] = []
    report = NEventReportRequest(
        message_id=0,
        affected_sop_class_uid=PUSH_MODEL,
        affected_sop_instance_uid=PUSH_MODEL_INSTANCE,
        event_type_id=1,
    )
    with TLSPeer(server.port, client, receive_buffer=10_000) as peer:
        peer.associate(*CONTEXTS)
        known = handlers.opened[0].association_id
        server.server.invoke(known, PUSH_MODEL, report, lambda _: DATA * 4, outcomes.append)
        (protocol,) = server.protocols
        server.wait_until(lambda: protocol._write_blocked)
        peer.send(p_data(3, echo_command(), control=COMMAND | LAST))
        server.wait_until(lambda: protocol._own is not None and protocol._own.answers_behind > 0)
        message = read_message(peer)
        assert message.data == DATA * 4
        assert peer.read_answer().status == 0
        peer.send(event_response(message.message_id))
        server.wait_until(lambda: bool(outcomes))
        assert peer.release().kind == RELEASE_RP
    (response,) = outcomes
    assert response is not None
    assert response.status == 0
