"""Asking for the length of a command: the outcome is what a report says, on whichever association, and nothing else."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest

from stowkeeper.dicom.commitment_information import Reference, decode_action_information
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL
from stowkeeper.dimse.fragmenter import command_pdu
from stowkeeper.dimse.message_types import Request
from stowkeeper.dimse.messages import encode
from stowkeeper.net.association_errors import AssociationError, PeerTimeoutError
from stowkeeper.net.client import ClientAssociation, RequestHandler
from stowkeeper.net.name_lookup import NoLookupError
from stowkeeper.services.commitment import asking_once
from stowkeeper.services.commitment.asking_once import (
    OnceOptions,
    OnceResult,
    RequestRefusedError,
    ask_once,
)
from stowkeeper.services.commitment.push_model import PUSH_MODEL_CONTEXTS, ClassRefusedError
from stowkeeper.services.commitment.report_listener import ReportListener
from stowkeeper.services.dialing import OwnSide, open_association
from stowkeeper.services.peers import Peer
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from support.commitment_asking import references_to
from support.commitment_provider import (
    Asked,
    Provider,
    commits_all_on_same,
    event_information,
    providing,
)
from support.processes import free_port
from support.scripted_acceptor import Act, Received, Script, scripted_acceptor

pytestmark = pytest.mark.peer("pynetdicom")

ASKED = references_to(1, 2, 3)
IMPLICIT = "1.2.840.10008.1.2"


def no_tls() -> Any:
    raise AssertionError("no peer is called over TLS here")


OWN = OwnSide(ae_title="STOWKEEPER", tls=no_tls)


def asking(peer: Peer, references: list[Reference] = ASKED, **options: Any) -> OnceResult:
    chosen: dict[str, Any] = {"wait_seconds": 20.0, "retries": 0, "back_off_seconds": 0.01} | options

    def open_one(handler: RequestHandler) -> Awaitable[ClientAssociation]:
        return open_association(peer, PUSH_MODEL_CONTEXTS, OWN, handler=handler)

    return asyncio.run(ask_once(peer, references, open_one, OnceOptions(**chosen)))


def committed(result: OnceResult) -> list[str]:
    return [one.sop_instance_uid for one, verdict in result.verdicts.items() if verdict.is_committed]


def test_a_report_on_the_same_association() -> None:
    with providing(on_request=commits_all_on_same) as provider:
        result = asking(provider.peer())
        assert provider.wait_for_statuses() == [0]
    assert committed(result) == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert (result.words, len(result.transaction_uids)) == ("", 1)


@pytest.mark.parametrize(("scu_role", "proposes_role"), [(False, True), (True, True), (False, False)])
def test_a_report_on_a_new_association_with_roles_of_each_kind(scu_role: bool, proposes_role: bool) -> None:
    port = free_port()

    def report(provider: Provider, asked: Asked) -> None:
        information = event_information(asked.transaction_uid, asked.references[:2], asked.references[2:])
        provider.report_anew(port, information, 2, scu_role=scu_role, proposes_role=proposes_role)

    with providing(on_request=report) as provider:
        result = asking(provider.peer(), listen=("127.0.0.1", port))
        assert provider.wait_for_statuses() == [0]
    assert committed(result) == ["1.2.3.1", "1.2.3.2"]
    assert result.verdicts[ASKED[2]].reason == 0x0112


def answer_and_abort(received: Received) -> bytes:
    """Answer Success, and abort in the same breath."""
    assert isinstance(received.message, Request)
    response = command_pdu(received.context.context_id, encode(received.message.respond(0)), 16384)
    return bytes(response) + b"\x07\0\0\0\0\x04\0\0\0\0"


def scripted(answer: Any) -> Script:
    return Script(
        answer=answer,
        policy=AcceptancePolicy(accepts_abstract_syntax=lambda uid: uid == STORAGE_COMMITMENT_PUSH_MODEL),
    )


def test_who_ends_the_association_and_reports_anew_is_heard() -> None:
    port = free_port()

    def answer(received: Received) -> bytes:
        action = decode_action_information(received.data_set, received.context.transfer_syntax)
        information = event_information(action.transaction_uid, action.references)
        provider.in_background(
            partial(provider.report_anew, transfer_syntaxes=[IMPLICIT]), port, information, 1
        )
        return answer_and_abort(received)

    with providing() as provider, scripted_acceptor(scripted(answer)) as acceptor:
        result = asking(provider.peer(port=acceptor.port), listen=("127.0.0.1", port))
    assert len(committed(result)) == 3


def test_foreign_and_unknown_reports_are_refused_while_it_waits() -> None:
    port = free_port()

    def report(provider: Provider, asked: Asked) -> None:
        all_good = event_information(asked.transaction_uid, asked.references)
        provider.report_anew(port, event_information("2.25.99", asked.references), 1)
        provider.report_anew(port, all_good, 1, calling="STRANGER")
        provider.report_anew(port, all_good, 7)
        provider.report_anew(port, event_information(asked.transaction_uid, [], asked.references), 2)

    with providing(on_request=report) as provider:
        result = asking(provider.peer(), listen=("127.0.0.1", port))
        statuses = provider.wait_for_statuses(4)
    assert statuses[:4] == [0x0112, 0x0124, 0x0113, 0x0000]
    assert committed(result) == []
    assert len(result.verdicts) == 3


def test_a_report_whose_sender_cannot_be_looked_up_is_to_come_again() -> None:
    port = free_port()

    def report(provider: Provider, asked: Asked) -> None:
        for _ in range(2):
            provider.report_anew(port, event_information(asked.transaction_uid, asked.references), 1)

    looked = patch(
        "stowkeeper.services.commitment.asking_once.is_at", side_effect=[NoLookupError("no answer"), True]
    )
    with looked, providing(on_request=report) as provider:
        result = asking(provider.peer(), listen=("127.0.0.1", port))
        assert provider.wait_for_statuses(2) == [0x0110, 0x0000]
    assert len(committed(result)) == 3


def test_silence_is_no_consent() -> None:
    with providing() as provider:
        result = asking(provider.peer(), wait_seconds=0.2)
    assert (result.verdicts, result.words) == ({}, "no report came within 0.2 seconds")


def test_an_association_that_ends_without_a_report_is_not_waited_out() -> None:
    with scripted_acceptor(scripted(answer_and_abort)) as acceptor:
        peer = Peer(name="", ae_title="PACS", host="127.0.0.1", port=acceptor.port)
        result = asking(peer, wait_seconds=60.0)
    assert result.verdicts == {}
    assert "ended the association before it reported" in result.words


def test_a_refusal_is_raised_with_the_peers_words() -> None:
    with providing(status=0x0110) as provider, pytest.raises(RequestRefusedError, match="0110H"):
        asking(provider.peer(), retries=5)
    assert len(provider.asked) == 1


def test_a_refused_class_is_raised_at_once() -> None:
    refusing = Script(policy=AcceptancePolicy(accepts_abstract_syntax=lambda _uid: False))
    with scripted_acceptor(refusing) as acceptor:
        peer = Peer(name="", ae_title="PACS", host="127.0.0.1", port=acceptor.port)
        with pytest.raises(ClassRefusedError):
            asking(peer, retries=5)
        assert len(acceptor.requests) == 1


def test_without_an_answer_the_same_uid_is_asked_for_again() -> None:
    answers: list[Any] = [Act.ABORT, Act.CLOSE, 0]
    with scripted_acceptor(scripted(lambda _received: answers.pop(0))) as acceptor:
        peer = Peer(name="", ae_title="PACS", host="127.0.0.1", port=acceptor.port)
        result = asking(peer, retries=2, wait_seconds=0.1)
        uids = {
            decode_action_information(one.data_set, one.context.transfer_syntax).transaction_uid
            for one in acceptor.received
        }
        assert len(acceptor.received) == 3
    assert uids == set(result.transaction_uids)


def test_a_peer_that_never_answers_is_raised_in_the_end() -> None:
    with scripted_acceptor(scripted(lambda _received: Act.SILENCE)) as acceptor:
        peer = Peer(name="", ae_title="PACS", host="127.0.0.1", port=acceptor.port, answer_seconds=0.2)
        with pytest.raises(PeerTimeoutError):
            asking(peer, retries=1)


def test_what_is_too_much_for_one_request_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_once, "REFERENCES_PER_REQUEST_MAX", 2)
    with providing(on_request=commits_all_on_same) as provider:
        result = asking(provider.peer(), [*ASKED, ASKED[0]])
    assert [len(one.references) for one in provider.asked] == [2, 1]
    assert len(committed(result)) == 3
    assert [one.transaction_uid for one in provider.asked] == list(result.transaction_uids)


def test_an_address_that_is_taken_is_said_before_anything_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, providing() as provider:
        with pytest.raises(OSError, match="cannot listen"):
            asking(provider.peer(), listen=("127.0.0.1", taken.getsockname()[1]))
        assert provider.asked == []


def test_a_peer_that_is_not_there_is_raised() -> None:
    with pytest.raises(AssociationError):
        asking(Peer(name="", ae_title="PACS", host="127.0.0.1", port=9, connect_seconds=2.0))


# The listener alone.


def listening(take: Callable[..., tuple[int, str]], work: Callable[[int], Any]) -> Any:
    """Run a listener, and something that calls it, in a thread."""

    async def run() -> Any:
        listener = ReportListener(take)
        _, port = await listener.start("127.0.0.1", 0)
        try:
            return await asyncio.to_thread(work, port)
        finally:
            await listener.stop()

    return asyncio.run(run())


def test_the_listener_answers_an_echo_and_refuses_instances() -> None:
    from pydicom.dataset import Dataset
    from pynetdicom import AE
    from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]  # made at run time

    def call(port: int) -> tuple[int, list[str]]:
        entity = AE(ae_title="PACS")
        entity.add_requested_context(Verification)
        entity.add_requested_context(CTImageStorage)
        association = entity.associate("127.0.0.1", port)
        assert association.is_established
        status = association.send_c_echo()
        refused = [str(context.abstract_syntax) for context in association.rejected_contexts]
        association.release()
        assert isinstance(status, Dataset)
        return int(status.Status), refused

    def never(*_: Any) -> tuple[int, str]:
        raise AssertionError("nothing is reported here")

    assert listening(never, call) == (0, ["1.2.840.10008.5.1.4.1.1.2"])


def test_the_listener_outlives_a_taker_that_fails() -> None:
    calls = []

    def take(*arguments: Any) -> tuple[int, str]:
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("a fault")
        return 0, ""

    with providing() as provider:

        def call(port: int) -> list[int | None]:
            information = event_information("2.25.7", references_to(1))
            return [provider.report_anew(port, information, 1) for _ in range(2)]

        assert listening(take, call) == [Status.PROCESSING_FAILURE, Status.SUCCESS]
    calling, address, event_type, information = calls[1]
    assert (calling, address, event_type) == ("PACS", "127.0.0.1", 1)
    assert information.transaction_uid == "2.25.7"
