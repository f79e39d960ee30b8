"""What the storage service leaves to another service, and what becomes of requests that nobody takes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowkeeper.archive.archive import Archive
from stowkeeper.dimse.message_types import NActionRequest, Response
from stowkeeper.dimse.messages import Message
from stowkeeper.net.handlers import AssociationFacts
from stowkeeper.services.storage import StorageService
from stowkeeper.upperlayer.negotiation import AcceptedContext
from support.archive_server import RULES, open_archive
from support.commitment_messages import CONTEXTS, PUSH_MODEL, action_message
from support.raw_peer import (
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    Context,
    RawPeer,
    command_set,
    data_set_pdus,
    p_data,
)
from support.server_thread import serving

DATA = b"action information"
N_SET_RQ = 0x0120


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "archive")
    yield opened
    opened.close()


class Office:
    """Takes N-ACTION requests with at most twenty bytes, and says what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str, bytes]] = []

    def takes(self, message: Message) -> bool:
        return isinstance(message, NActionRequest)

    def data_set_bytes_max(self, context: AcceptedContext, message: Message) -> int:
        assert isinstance(message, NActionRequest)
        return 20

    def answer(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        message: Message,
        data_set: bytes,
        answer: Callable[[Response], None],
    ) -> Response | None:
        assert isinstance(message, NActionRequest)
        self.given.append((facts.calling_ae_title, context.abstract_syntax, data_set))
        if message.message_id % 2:
            return message.respond(0x0123)
        answer(message.respond(0x0112))
        return None


def set_request(message_id: int) -> bytes:
    command = {0x0003: PUSH_MODEL, 0x0100: N_SET_RQ, 0x0110: message_id, 0x0800: 1, 0x1001: "1.2"}
    return p_data(5, command_set(command), control=COMMAND | LAST) + data_set_pdus(5, DATA)


def test_another_service_answers_what_it_takes_and_nothing_else(archive: Archive) -> None:
    office = Office()
    service = StorageService(archive, RULES, office)
    with serving(service) as server, RawPeer(server.port) as peer:
        peer.associate(*CONTEXTS)
        assert set(peer.accepted) == {3, 5}
        peer.send(action_message(DATA, 1) + action_message(DATA, 2) + action_message(DATA * 2, 3))
        answers = [peer.read_answer() for _ in range(3)]
        assert {(answer.responds_to, answer.status) for answer in answers} == {
            (1, 0x0123),
            (2, 0x0112),
            (3, 0x0213),
        }
        assert office.given == [("RAWPEER", PUSH_MODEL, DATA)] * 2
        peer.send(set_request(4))
        assert peer.read_answer().status == 0x0211
        assert peer.echo().status == 0
    assert len(office.given) == 2


def test_without_another_service_such_requests_are_not_performed(archive: Archive) -> None:
    with serving(StorageService(archive, RULES)) as server, RawPeer(server.port) as peer:
        peer.associate(*CONTEXTS)
        peer.send(action_message(DATA, 1))
        answer = peer.read_answer()
        assert (answer.status, answer.comment) == (0x0211, "this server performs C-STORE and C-ECHO only")
        assert peer.echo().status == 0


def test_storage_commitment_is_nothing_to_be_stored(archive: Archive) -> None:
    with serving(StorageService(archive, RULES)) as server, RawPeer(server.port) as peer:
        peer.associate(*CONTEXTS, Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE))
        for context_id in (1, 5):
            answer = peer.store("1.2.3", DATA, sop_class_uid=PUSH_MODEL, context_id=context_id)
            assert (answer.status, answer.offending) == (0x0122, [0x00000002])
