"""Associations that we ask for over TLS, on both event loops: to the product's own server and to peers that fail."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.net.association_errors import AssociationError, AssociationLostError, TLSRefusedError
from stowkeeper.net.client import ClientAssociation, association_request
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.net.tls_context import (
    PeerVerification,
    ProtocolVersion,
    TLSContext,
    TLSOptions,
    acceptor_context,
    requestor_context,
)
from stowkeeper.net.tls_errors import TLSFailure
from stowkeeper.net.tls_profiles import SecurityProfile
from stowkeeper.upperlayer.items import ProposedContext
from support.client_calls import CT, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Run, running_on, store_request, until
from support.scripted_acceptor import scripted_acceptor
from support.server_thread import LOOPS, RecordingHandlers, ServerThread, serving
from support.tls_files import Identity
from support.tls_fixtures import TLSFiles
from support.tls_pair import meet

pytestmark = pytest.mark.peer("openssl")

DATA = Random(4).randbytes(6_000_000)
TIMEOUTS = ClientTimeouts(connect_seconds=5, association_seconds=5, progress_seconds=5, release_seconds=5)
REQUEST = association_request(
    called_ae_title="PEER",
    calling_ae_title="STOWKEEPER",
    contexts=[
        ProposedContext(context_id=1, abstract_syntax=CT, transfer_syntaxes=(EXPLICIT_LITTLE,)),
        ProposedContext(context_id=3, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT_LITTLE,)),
    ],
    operations_window=4,
)


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Iterator[Run[Any]]:
    with running_on(request.param) as running:
        yield running


def acceptor(files: TLSFiles, identity: Identity | None = None, **changes: Any) -> TLSContext:
    own = identity or files.server
    options = TLSOptions(
        certificate_file=own.certificate, key_file=own.key, ca_files=(files.authority.certificate,)
    )
    return acceptor_context(replace(options, **changes))


def requestor(files: TLSFiles, identity: Identity | None = None, **changes: Any) -> TLSContext:
    own = identity or files.client
    options = TLSOptions(
        certificate_file=own.certificate,
        key_file=own.key,
        ca_files=(files.authority.certificate,),
        checks_name=True,
    )
    return requestor_context(replace(options, **changes))


async def opened(
    port: int, tls: TLSContext | None, name: str | None = None, timeouts: ClientTimeouts = TIMEOUTS
) -> ClientAssociation:
    return await ClientAssociation.open("127.0.0.1", port, REQUEST, timeouts, tls=tls, server_name=name)


async def echoed(port: int, tls: TLSContext | None, name: str | None = None) -> int:
    async with await opened(port, tls, name) as association:
        return int((await association.echo()).status)


def refusal(run: Run[Any], port: int, tls: TLSContext | None, name: str | None = None) -> str:
    """Return what the one who asked is told."""
    with pytest.raises(AssociationError) as caught:
        run(echoed(port, tls, name))
    return str(caught.value)


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@contextlib.contextmanager
def listening(files: TLSFiles, **changes: Any) -> Iterator[ServerThread]:
    handlers = RecordingHandlers()
    with serving(handlers, tls=acceptor(files, **changes)) as server:
        yield server


# Well


@pytest.mark.slow
@pytest.mark.parametrize("version", ProtocolVersion)
def test_instances_go_over_tls(tls_files: TLSFiles, run: Run[Any], version: ProtocolVersion) -> None:
    handlers = RecordingHandlers()
    profile = (
        SecurityProfile.BCP_195_EXTENDED if version is ProtocolVersion.TLS_1_2 else SecurityProfile.RFC_8996
    )
    tls = requestor(tls_files, profile=profile, minimum_version=version)

    async def sending(port: int) -> list[int]:
        async with await opened(port, tls) as association:
            statuses = [(await association.echo()).status]
            for number in range(3):
                request = store_request(number)
                statuses.append(
                    (await association.store(1, request, in_pieces(DATA, 250_000), len(DATA))).status
                )
            return statuses

    with serving(handlers, tls=acceptor(tls_files, profile=SecurityProfile.BCP_195)) as server:
        assert run(sending(server.port)) == [0] * 4
        server.wait_until_empty()
    assert [bytes(stored.data) == DATA for stored in handlers.stores] == [True] * 3
    assert [facts.end for facts in handlers.closed] == ["released"]
    assert handlers.closed[0].tls.startswith(f"TLSv{version} ")


def test_the_name_that_is_called_can_be_another(tls_files: TLSFiles, run: Run[Any]) -> None:
    with listening(tls_files, expected_server_name="localhost") as server:
        assert run(echoed(server.port, requestor(tls_files), "localhost")) == 0
        assert run(echoed(server.port, requestor(tls_files))) == 0, "an address is checked, and not sent"
        assert run(echoed(server.port, requestor(tls_files, checks_name=False), "")) == 0
        words = refusal(run, server.port, requestor(tls_files, checks_name=False), "other.example")
        assert words.endswith("it does not go by the server name that it was called by.")


def test_a_requestor_without_certificate_is_welcome_where_none_is_required(
    tls_files: TLSFiles, run: Run[Any]
) -> None:
    nobody = requestor(tls_files, certificate_file="", key_file="")
    with listening(tls_files, verification=PeerVerification.IF_PRESENT) as server:
        assert run(echoed(server.port, nobody)) == 0


# Refused


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("foreign", "its certificate is refused: the authority that issued it is not trusted here."),
        ("expired", "its certificate is refused: it has expired."),
    ],
)
def test_a_server_that_cannot_be_trusted(tls_files: TLSFiles, run: Run[Any], who: str, words: str) -> None:
    identity: Identity = getattr(tls_files, who)
    with serving(RecordingHandlers(), tls=acceptor(tls_files, identity)) as server:
        said = refusal(run, server.port, requestor(tls_files))
        assert said == f"PEER@127.0.0.1:{server.port}: there is no TLS with it: {words}"
        ignoring = requestor(tls_files, verification=PeerVerification.IGNORE)
        assert run(echoed(server.port, ignoring)) == 0


def test_a_server_of_another_name(tls_files: TLSFiles, run: Run[Any]) -> None:
    with listening(tls_files) as server:
        words = refusal(run, server.port, requestor(tls_files), "archive.example")
        assert words.endswith("it does not hold for the name that was called.")


@pytest.mark.parametrize("profile", [SecurityProfile.BCP_195_EXTENDED, SecurityProfile.RFC_8996])
@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("none", "certificate of us"),
        ("foreign", "it does not trust the authority that issued our certificate"),
        ("expired", "it refuses our certificate as expired"),
    ],
)
def test_a_server_that_does_not_trust_us(
    tls_files: TLSFiles, run: Run[Any], who: str, words: str, profile: SecurityProfile
) -> None:
    """With TLS 1.3 it says so only when we think that all is well: the association is lost then."""
    nobody = {"certificate_file": "", "key_file": ""} if who == "none" else {}
    own = tls_files.client if who == "none" else getattr(tls_files, who)
    tls = requestor(tls_files, own, profile=profile, **nobody)
    with listening(tls_files, profile=SecurityProfile.BCP_195) as server:
        with pytest.raises(
            AssociationError, match=f"{words}|as do peers that refuse our certificate"
        ) as caught:
            run(echoed(server.port, tls))
        is_late = profile is SecurityProfile.RFC_8996
        assert type(caught.value) is (AssociationLostError if is_late else TLSRefusedError)


def test_no_suite_and_no_version_in_common(tls_files: TLSFiles, run: Run[Any]) -> None:
    with listening(tls_files, profile=SecurityProfile.AES) as server:
        words = refusal(run, server.port, requestor(tls_files))
        assert "no cipher suite is common to both sides" in words
        words = refusal(run, server.port, requestor(tls_files, minimum_version=ProtocolVersion.TLS_1_3))
        assert words.endswith("it refuses the versions of TLS that are allowed here.")


def test_a_name_that_cannot_be_one_is_refused_before_the_call(tls_files: TLSFiles, run: Run[Any]) -> None:
    with listening(tls_files) as server:
        words = refusal(run, server.port, requestor(tls_files), ".example")
        assert words == f"PEER@127.0.0.1:{server.port}: '.example' is no name that a certificate could hold."


# Peers without TLS, and peers that say nothing


def test_tls_to_a_plain_server(tls_files: TLSFiles, run: Run[Any]) -> None:
    with serving(RecordingHandlers()) as server:
        words = refusal(run, server.port, requestor(tls_files))
        assert words.endswith("there is no TLS with it: it speaks DICOM without TLS."), (
            "we abort, and that is DICOM"
        )


def test_plain_dicom_to_a_tls_server(tls_files: TLSFiles, run: Run[Any]) -> None:
    with listening(tls_files) as server:
        assert refusal(run, server.port, None).endswith("the peer closed the connection.")


@contextlib.contextmanager
def answering(data: bytes, *, closes: bool = True, heard: threading.Event | None = None) -> Iterator[int]:
    """Listen, and answer whatever comes with these bytes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                if heard is not None:
                    heard.set()
                connection.sendall(data)
                if not closes:
                    with contextlib.suppress(ConnectionError):
                        connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(30)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x15\x03\x03\0\2\2\x28", "it refused the handshake: no cipher suite is common"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it speaks HTTP without TLS"),
        (b"220 mail.example ESMTP\r\n", "it does not speak TLS"),
        (b"\x16\x03\x03\0\4\x02\0\0\0", "TLS failed"),
        (b"", "it closed the connection in the middle of the TLS handshake"),
    ],
)
def test_servers_that_answer_otherwise(tls_files: TLSFiles, run: Run[Any], answer: bytes, words: str) -> None:
    with answering(answer) as port:
        said = refusal(run, port, requestor(tls_files))
    assert words in said
    assert "_ssl.c" not in said


def test_a_server_that_stops_in_the_handshake(tls_files: TLSFiles, run: Run[Any]) -> None:
    soon = replace(TIMEOUTS, connect_seconds=0.3)
    too_late = pytest.raises(
        TLSRefusedError, match=r"it did not finish the TLS handshake within 0\.3 seconds"
    )
    with answering(b"\x16", closes=False) as port, too_late:
        run(opened(port, requestor(tls_files), timeouts=soon))


def test_a_handshake_can_be_given_up(tls_files: TLSFiles, run: Run[Any]) -> None:
    heard = threading.Event()

    async def giving_up(port: int) -> None:
        task = asyncio.ensure_future(opened(port, requestor(tls_files)))
        await until(heard.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with answering(b"", closes=False, heard=heard) as port:
        run(giving_up(port))


def test_a_connection_that_breaks_is_told_as_without_tls(tls_files: TLSFiles, run: Run[Any]) -> None:
    async def losing(server: ServerThread) -> str:
        association = await opened(server.port, requestor(tls_files))
        server.begin(_cut(server))
        with pytest.raises(AssociationLostError) as caught:
            await association._connection.until(lambda: False)
        await association.close()
        return str(caught.value)

    async def _cut(server: ServerThread) -> None:
        for protocol in server.protocols_now:
            protocol.cut()

    with listening(tls_files) as server:
        words = run(losing(server))
    assert words.endswith(
        ("the peer closed the connection.", "the connection broke (Connection reset by peer).")
    )


@pytest.mark.parametrize("end", [None, ConnectionResetError(104, "Connection reset by peer")])
def test_a_certificate_that_is_refused_without_an_alert_is_guessed(
    tls_files: TLSFiles, end: Exception | None
) -> None:
    """As where the alert is lost: the system resets the connection, since our request was not read."""
    met = meet(acceptor(tls_files), requestor(tls_files))
    guess = met.requestor.failure_after_handshake(end)
    assert isinstance(guess, TLSFailure)
    assert guess.words == "it closed right after the TLS handshake, as do peers that refuse our certificate"
    assert met.acceptor.failure_after_handshake(end) is end
    met.acceptor.write(b"a word")
    met.requestor.receive(met.acceptor.data_to_send())
    assert met.requestor.read_into(memoryview(bytearray(10))) == 6
    assert met.requestor.failure_after_handshake(end) is end
    silent = meet(acceptor(tls_files), requestor(tls_files))
    silent.acceptor.close()
    silent.requestor.receive(silent.acceptor.data_to_send())
    assert silent.requestor.read_into(memoryview(bytearray(10))) == 0
    assert isinstance(silent.requestor.failure_after_handshake(end), TLSFailure), (
        "it said nothing but goodbye"
    )
    older = requestor(tls_files, profile=SecurityProfile.BCP_195_EXTENDED)
    assert meet(acceptor(tls_files), older).requestor.failure_after_handshake(end) is end, (
        "TLS 1.2 would have told"
    )


def test_without_tls_nothing_changes(run: Run[Any]) -> None:
    with scripted_acceptor() as plain:
        assert run(echoed(plain.port, None)) == 0
