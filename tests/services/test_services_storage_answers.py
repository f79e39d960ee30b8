"""What ledger and receipts say of an answer: that Success was handed to the network, or that nothing tells so."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from unittest.mock import patch

import pytest
from blake3 import blake3
from test_services_storage import Conversation

from stowkeeper.archive import listing
from stowkeeper.archive.archive import Archive
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.net.handlers import StoreAnswer
from support.archive_server import (
    archive_serving,
    associations,
    data_set_of,
    instances,
    open_archive,
    requests,
    settle,
)
from support.instances import make_instance
from support.raw_peer import RawPeer, store_message

WAIT_SECONDS = 30
GONE = "the peer closed the connection"


class Gated(FileSystem):
    """A disk whose syncs wait until they may go on."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Semaphore(0)

    def synchronize(self, descriptor: int) -> None:
        self.reached.release()
        assert self.gate.wait(WAIT_SECONDS)

    def wait_for_a_sync(self) -> None:
        assert self.reached.acquire(timeout=WAIT_SECONDS)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "archive")
    yield opened
    opened.close()


def answers_of(archive: Archive) -> list[str]:
    """Return what the receipts say of their answers."""
    settle(archive)
    return [row["answer"] for row in listing.receipts(archive.database)]


def check_kept_untold(archive: Archive, association_id: str, data: bytes) -> None:
    """Check that an instance is kept and listed, and that nothing claims that its sender was told."""
    archive.intake.stop()
    (row,) = instances(archive)
    assert data_set_of(archive, row) == data
    (line,) = requests(archive, association_id)
    assert (line.status, line.outcome) == (None, "kept")
    assert (line.receipt_id, line.digest) == (row["receipt_id"], blake3(data).hexdigest())
    assert line.data_set_length == len(data)
    assert 0 < line.seconds_disk <= line.seconds_total
    assert 0 < line.seconds_network <= line.seconds_total
    assert line.error_comment
    assert answers_of(archive) == ["unknown"]


def test_a_complete_instance_is_kept_though_its_peer_left_during_the_sync(tmp_path: Path) -> None:
    files = Gated()
    archive = open_archive(tmp_path / "archive", files=files)
    try:
        instance = make_instance(1)
        talk = Conversation(archive)
        answers: SimpleQueue[StoreAnswer] = SimpleQueue()
        operation = talk.begin(instance, answers)
        operation.write(memoryview(instance.data), None)
        files.gate.clear()
        operation.commit()
        files.wait_for_a_sync()
        operation.abort(GONE)
        operation.abort("again")
        assert talk.requests == [], "what becomes of it is not known yet"
        files.gate.set()
        check_kept_untold(archive, talk.facts.association_id, instance.data)
        assert [line.error_comment for line in talk.requests] == [GONE]
        assert answers.empty()
    finally:
        files.gate.set()
        archive.close()


def test_a_complete_instance_is_kept_though_its_peer_left_before_the_answer(archive: Archive) -> None:
    instance = make_instance(1)
    talk = Conversation(archive)
    answers: SimpleQueue[StoreAnswer] = SimpleQueue()
    operation = talk.begin(instance, answers)
    operation.write(memoryview(instance.data), None)
    operation.commit()
    assert answers.get(timeout=WAIT_SECONDS).status == 0
    operation.abort(GONE)
    check_kept_untold(archive, talk.facts.association_id, instance.data)


def test_a_refusal_that_nobody_was_told_says_both_reasons(archive: Archive) -> None:
    instance = make_instance(1)
    cut = replace(instance, data=instance.data[:-2])
    talk = Conversation(archive)
    answers: SimpleQueue[StoreAnswer] = SimpleQueue()
    operation = talk.begin(cut, answers)
    operation.write(memoryview(cut.data), None)
    operation.commit()
    answer = answers.get(timeout=WAIT_SECONDS)
    operation.abort(GONE)
    (line,) = talk.requests
    assert (line.status, line.outcome, line.receipt_id) == (None, "refused", "")
    assert line.error_comment == f"{answer.error_comment} (not answered: {GONE})"
    assert line.digest == blake3(cut.data).hexdigest()


def test_an_answer_given_before_the_listing_is_known(archive: Archive) -> None:
    instance = make_instance(1)
    answers: SimpleQueue[StoreAnswer] = SimpleQueue()
    operation = Conversation(archive).begin(instance, answers)
    operation.write(memoryview(instance.data), None)
    with patch.object(archive.finisher, "finish", lambda batch, _rows: batch):  # it is listed at a later try
        operation.commit()
        operation.answered(answers.get(timeout=WAIT_SECONDS))
    assert answers_of(archive) == ["known"]
    assert not operation._sender_answer.was_listed_first


@pytest.mark.parametrize("is_given", [True, False])
def test_an_answer_is_known_from_when_it_is_given(archive: Archive, is_given: bool) -> None:
    instance = make_instance(1)
    talk = Conversation(archive)
    answers: SimpleQueue[StoreAnswer] = SimpleQueue()
    operation = talk.begin(instance, answers)
    operation.write(memoryview(instance.data), None)
    operation.commit()
    answer = answers.get(timeout=WAIT_SECONDS)
    assert answers_of(archive) == ["unknown"], "it is listed, and nobody was told yet"
    if is_given:
        operation.answered(answer)
    else:
        operation.abort(GONE)
    assert answers_of(archive) == ["known" if is_given else "unknown"]
    assert [line.status for line in talk.requests] == [0 if is_given else None]


def test_a_peer_that_resets_while_its_last_byte_is_synced_is_not_said_to_know(tmp_path: Path) -> None:
    files = Gated()
    instance = make_instance(1)
    with archive_serving(tmp_path / "archive", archive_options={"files": files}) as server:
        try:
            with RawPeer(server.port) as peer:
                peer.associate()
                files.gate.clear()
                peer.send(store_message(1, instance.sop_instance_uid, instance.data))
                files.wait_for_a_sync()
                peer.reset()
                server.thread.wait_until_empty()
        finally:
            files.gate.set()
        (association,) = associations(server.archive)
        check_kept_untold(server.archive, association["association_id"], instance.data)
