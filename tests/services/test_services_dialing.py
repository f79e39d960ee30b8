"""Calling peers, good and bad: an answer within their time limits, or a sentence that says what happened."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.net import name_lookup
from stowkeeper.net.association_errors import (
    AssociationAbortedError,
    AssociationError,
    AssociationLostError,
    AssociationRejectedError,
    PeerTimeoutError,
    PeerUnreachableError,
    TLSRefusedError,
)
from stowkeeper.net.tls_context import TLSContext, TLSOptions, requestor_context
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.services.dialing import EchoResult, OwnSide, echo, open_association
from stowkeeper.services.peers import Peer
from stowkeeper.upperlayer.items import ProposedContext, RoleSelection
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from stowkeeper.upperlayer.pdu import REJECTED_CALLING_AE_TITLE
from support.client_calls import COMMITMENT, IMPLICIT_LITTLE, Run, running_on
from support.processes import free_port
from support.scripted_acceptor import Act, Received, Script, scripted_acceptor
from support.server_thread import LOOPS, RecordingHandlers, serving
from support.tls_fixtures import TLSFiles

BRIEF = 0.4
"""Seconds of a peer that is not to be waited for."""
SLACK = 10.0
"""Seconds beyond its limits that a call may take on a busy machine."""


def no_tls() -> TLSContext:
    raise AssertionError("TLS was not asked for")


OWN = OwnSide(ae_title="STOWKEEPER", tls=no_tls)


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Iterator[Run[Any]]:
    with running_on(request.param) as running:
        yield running


def peer_at(port: int, **more: Any) -> Peer:
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
    return Peer(**{**values, "connect_seconds": 5.0, "answer_seconds": 5.0, **more})


@contextlib.contextmanager
def plain_listener(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen, and do with a connection as told; it stays open until the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections: list[socket.socket] = []

        def serve() -> None:
            try:
                connected, _ = listener.accept()
                connections.append(connected)
                talk(connected)
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        for connected in connections:
            connected.close()
    thread.join(30)


def failure(run: Run[Any], peer: Peer, own: OwnSide = OWN) -> AssociationError:
    """Return what an echo fails by, after checking that it took no longer than the peer may take."""
    began = time.monotonic()
    with pytest.raises(AssociationError) as raised:
        run(echo(peer, own))
    limit = 2 * peer.connect_seconds + 2 * peer.answer_seconds
    assert time.monotonic() - began < limit + SLACK
    return raised.value


# Well.


def test_a_peer_that_answers_is_told_of_with_its_times(run: Run[Any]) -> None:
    with scripted_acceptor() as acceptor:
        result: EchoResult = run(echo(peer_at(acceptor.port), OWN))
    assert result.is_success
    assert result.words == "0000H Success"
    assert result.tls == ""
    assert 0 < result.association_seconds < 10
    assert 0 < result.echo_seconds < 10
    (request,) = acceptor.requests
    assert (request.called_ae_title, request.calling_ae_title) == ("PACS", "STOWKEEPER")
    assert [context.abstract_syntax for context in request.presentation_contexts] == [VERIFICATION]
    assert acceptor.releases == 0  # it was we who released


def test_a_peer_that_refuses_an_echo_is_no_success(run: Run[Any]) -> None:
    with scripted_acceptor(Script(answer=lambda _: 0x0122)) as acceptor:
        result: EchoResult = run(echo(peer_at(acceptor.port), OWN))
    assert not result.is_success
    assert result.words == "0122H Refused: SOP class not supported"


def test_we_call_ourselves_what_the_peer_knows_us_by(run: Run[Any]) -> None:
    context = ProposedContext(
        context_id=1, abstract_syntax=COMMITMENT, transfer_syntaxes=(IMPLICIT_LITTLE, "1.2.840.10008.1.2.1")
    )
    role = RoleSelection(sop_class_uid=COMMITMENT, scu_role=False, scp_role=True)

    async def call(port: int) -> None:
        peer = peer_at(port, own_ae_title="ARCHIVE 2")
        async with await open_association(peer, [context], OWN):
            pass
        async with await open_association(peer, [context], OWN, own_ae_title="AS CALLED", roles=[role]):
            pass

    policy = AcceptancePolicy(accepts_abstract_syntax=lambda _: True)
    with scripted_acceptor(Script(policy=policy)) as acceptor:
        run(call(acceptor.port))
    first, second = acceptor.requests
    assert (first.calling_ae_title, second.calling_ae_title) == ("ARCHIVE 2", "AS CALLED")
    assert first.user_information.role_selections == ()
    assert second.user_information.role_selections == (role,)
    assert second.presentation_contexts[0].transfer_syntaxes == context.transfer_syntaxes


def test_requests_of_the_peer_reach_the_handler(run: Run[Any]) -> None:
    from stowkeeper.dimse.message_types import CEchoRequest, Request, Response

    asked: list[Request] = []

    async def handle(_context: Any, request: Request, _data_set: bytes) -> Response:
        asked.append(request)
        return request.respond(Status.SUCCESS)

    async def call(port: int) -> None:
        context = ProposedContext(
            context_id=1, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT_LITTLE,)
        )
        async with await open_association(peer_at(port), [context], OWN, handler=handle) as association:
            await association.echo()

    own_request = CEchoRequest(message_id=7, affected_sop_class_uid=VERIFICATION)
    with scripted_acceptor(Script(on_established=(own_request,))) as acceptor:
        run(call(acceptor.port))
    assert [type(request) for request in asked] == [CEchoRequest]


def test_a_peer_that_does_not_agree_to_the_end_has_answered_all_the_same(run: Run[Any]) -> None:
    with scripted_acceptor(Script(answers_release=False)) as acceptor:
        result: EchoResult = run(echo(peer_at(acceptor.port, answer_seconds=BRIEF), OWN))
    assert result.is_success


# Bad peers.


def test_nothing_listens(run: Run[Any]) -> None:
    port = free_port()
    error = failure(run, peer_at(port))
    assert type(error) is PeerUnreachableError
    assert str(error) == f"127.0.0.1:{port} cannot be reached: nothing listens on that port."


def test_nobody_said_where_it_is(run: Run[Any]) -> None:
    for peer in (Peer(name="ct", ae_title="CT"), replace(peer_at(1), ae_title=None)):
        error = failure(run, peer)
        assert isinstance(error, PeerUnreachableError)
        assert "nobody said where to call it; it needs ae_title, host and port." in str(error)


def test_it_accepts_the_connection_and_never_answers(run: Run[Any]) -> None:
    with plain_listener(lambda _: None) as port:
        error = failure(run, peer_at(port, connect_seconds=BRIEF))
    assert type(error) is PeerTimeoutError
    assert str(error) == f"PACS@127.0.0.1:{port}: it did not answer the association request in time."


def test_its_host_does_not_even_take_the_connection(run: Run[Any]) -> None:
    # The backlog of a listener that never accepts is full after two: the third gets no answer to its SYN.
    with socket.socket() as listener, socket.socket() as one, socket.socket() as two:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (one, two):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        error = failure(run, peer_at(port, connect_seconds=BRIEF))
    assert type(error) is PeerUnreachableError
    assert str(error) == f"127.0.0.1:{port} cannot be reached: it did not answer within {BRIEF:g} seconds."


def test_it_takes_the_association_and_never_answers_the_echo(run: Run[Any]) -> None:
    with scripted_acceptor(Script(answer=lambda _: Act.SILENCE)) as acceptor:
        error = failure(run, peer_at(acceptor.port, answer_seconds=BRIEF))
    assert type(error) is PeerTimeoutError
    assert f"nothing moved for {BRIEF:g} seconds while an answer was awaited" in str(error)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x0a",
        b"\0" * 100,
        b"\x02\x00\xff\xff\xff\xff",
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03",
    ],
)
def test_it_answers_garbage(run: Run[Any], garbage: bytes) -> None:
    with plain_listener(lambda connected: connected.sendall(garbage)) as port:
        error = failure(run, peer_at(port, connect_seconds=2.0))
    assert type(error) is AssociationAbortedError
    assert str(error).startswith(
        f"PACS@127.0.0.1:{port}: the association was aborted by us, since the peer broke"
    )


@pytest.mark.slow
def test_it_sends_a_little_from_time_to_time_and_never_answers(run: Run[Any]) -> None:
    may_end = threading.Event()

    def drip() -> None:
        piece = (
            b"\x04\x00\x00\x00\x40\x00\x00\x00\x3f\xfc\x01\x03"  # the head of a PDU that never becomes whole
        )
        while not may_end.wait(BRIEF / 8):
            for connected in list(acceptor._sockets):
                with contextlib.suppress(OSError):
                    connected.sendall(piece)
            piece = b"\0"

    thread = threading.Thread(target=drip, daemon=True)

    def answer(_: Received) -> bytes:
        thread.start()
        return b""

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        try:
            error = failure(run, peer_at(acceptor.port, answer_seconds=BRIEF))
        finally:
            may_end.set()
            thread.join(30)
    assert type(error) is PeerTimeoutError
    assert "it did not answer the echo within 0.8 seconds" in str(error)


def test_it_answers_an_echo_with_garbage(run: Run[Any]) -> None:
    def answer(_: Received) -> bytes:
        return b"\x04\x00\x00\x00\x00\x0a\x00\x00\x00\x06\x01\x03abcd"

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        error = failure(run, peer_at(acceptor.port))
    assert type(error) is AssociationAbortedError
    assert "the peer broke the rules" in str(error)


def test_it_closes_at_once(run: Run[Any]) -> None:
    with plain_listener(lambda connected: connected.close()) as port:
        error = failure(run, peer_at(port))
    assert type(error) is AssociationLostError
    assert str(error).startswith(f"PACS@127.0.0.1:{port}: the ")


def test_it_rejects(run: Run[Any]) -> None:
    with scripted_acceptor(Script(on_request=lambda _: REJECTED_CALLING_AE_TITLE)) as acceptor:
        error = failure(run, peer_at(acceptor.port))
    assert type(error) is AssociationRejectedError
    assert "it does not know the calling AE title" in str(error)


def test_it_refuses_the_class(run: Run[Any]) -> None:
    policy = AcceptancePolicy(accepts_abstract_syntax=lambda _: False)
    with scripted_acceptor(Script(policy=policy)) as acceptor:
        error = failure(run, peer_at(acceptor.port))
    assert str(error) == f"PACS@127.0.0.1:{acceptor.port}: it does not accept the Verification SOP class."


# Names.


def test_its_name_resolves_to_nothing(run: Run[Any]) -> None:
    error = failure(run, peer_at(104, host="no-such-host.invalid", connect_seconds=5.0))
    assert type(error) is PeerUnreachableError
    assert str(error) in {
        "no-such-host.invalid:104 cannot be reached: that name is not known.",
        # where the name server is not there either
        "no-such-host.invalid:104 cannot be reached: it did not answer within 5 seconds.",
    }


def test_it_is_reached_by_name(run: Run[Any]) -> None:
    with scripted_acceptor() as acceptor:
        assert run(echo(peer_at(acceptor.port, host="localhost"), OWN)).is_success


def test_what_is_no_name_at_all(run: Run[Any]) -> None:
    error = failure(run, peer_at(104, host="a" * 80))
    assert type(error) is PeerUnreachableError
    assert "cannot be reached: that" in str(error)


def test_names_that_nobody_answers_for_hold_up_no_other_peer(run: Run[Any]) -> None:
    may_end = threading.Event()
    hanging: list[str] = []
    real = socket.getaddrinfo

    def hang(host: str, *arguments: Any, **options: Any) -> Any:
        if host.endswith(".dead.example") and not options.get("flags"):
            hanging.append(host)
            may_end.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *arguments, **options)

    async def call_all(port: int) -> list[Any]:
        dead = [
            asyncio.ensure_future(
                echo(peer_at(104, host=f"{number}.dead.example", connect_seconds=BRIEF), OWN)
            )
            for number in range(50)
        ]
        while len(hanging) < len(dead):  # noqa: ASYNC110 - what is awaited is what threads do
            await asyncio.sleep(0.001)
        began = time.monotonic()
        assert (await echo(peer_at(port, host="localhost"), OWN)).is_success
        assert time.monotonic() - began < SLACK
        return await asyncio.gather(*dead, return_exceptions=True)

    try:
        with scripted_acceptor() as acceptor, patch("socket.getaddrinfo", hang):
            errors = run(call_all(acceptor.port))
    finally:
        may_end.set()
    assert {type(error) for error in errors} == {PeerUnreachableError}
    assert all("it did not answer within" in str(error) for error in errors)


def test_there_is_a_bound_to_the_names_that_are_looked_up(run: Run[Any]) -> None:
    with patch.object(name_lookup, "_places", threading.BoundedSemaphore(1)):
        assert name_lookup._places.acquire(blocking=False)
        error = failure(run, peer_at(104, host="pacs.example"))
        assert str(error) == (
            "pacs.example:104 cannot be reached: too many names are being looked up that nobody answers for."
        )
        with scripted_acceptor() as acceptor:  # an address needs no lookup
            assert run(echo(peer_at(acceptor.port), OWN)).is_success
            name_lookup._places.release()
            for _ in range(3):  # each gives its place back
                assert run(echo(peer_at(acceptor.port, host="localhost"), OWN)).is_success


# TLS.


@pytest.mark.slow
@pytest.mark.peer("openssl")
def test_a_peer_is_called_over_tls(run: Run[Any], tls_files: TLSFiles) -> None:
    from stowkeeper.net.tls_context import acceptor_context

    server = acceptor_context(
        TLSOptions(
            certificate_file=tls_files.server.certificate,
            key_file=tls_files.server.key,
            ca_files=(tls_files.authority.certificate,),
        )
    )
    client = requestor_context(
        TLSOptions(
            certificate_file=tls_files.client.certificate,
            key_file=tls_files.client.key,
            ca_files=(tls_files.authority.certificate,),
            checks_name=True,
        )
    )
    own = OwnSide(ae_title="STOWKEEPER", tls=lambda: client)
    with serving(RecordingHandlers(), tls=server) as listening:
        result: EchoResult = run(echo(peer_at(listening.port, tls=True), own))
        assert result.is_success
        assert result.tls.startswith("TLSv1.")
        assert isinstance(failure(run, peer_at(listening.port, connect_seconds=2.0)), AssociationError)
    with scripted_acceptor() as plain:
        error = failure(run, peer_at(plain.port, tls=True, connect_seconds=2.0), own)
    assert type(error) is TLSRefusedError


def test_tls_that_cannot_be_set_up_is_said(run: Run[Any]) -> None:
    def broken() -> TLSContext:
        raise TLSSetupError(TLSFault.KEY, "server.key", "server.key cannot be read.")

    error = failure(run, peer_at(104, tls=True), OwnSide(ae_title="X", tls=broken))
    assert type(error) is TLSRefusedError
    assert str(error) == "PACS@127.0.0.1:104: TLS cannot be set up here: server.key cannot be read."
