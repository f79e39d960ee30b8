"""Nobody's storage commitment requests wait for all of somebody else's, and nobody fills the database with them."""

import threading
from dataclasses import dataclass

import pytest
from sqlalchemy import event

from stowkeeper.database.engine import Database
from stowkeeper.services.commitment import backlog, rows
from stowkeeper.services.commitment.backlog import unreported_references
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.commitment.desk import Desk
from stowkeeper.services.commitment.limits import (
    LARGE_REQUEST_BYTES,
    QUEUE_SHARE_OF_ONE,
    REQUEST_BYTES_WAITING_MAX,
    REQUESTS_WAITING_MAX,
    UNREPORTED_REFERENCES_MAX,
)
from stowkeeper.services.peers import Peer
from support.commitment_server import commitment_serving
from support.instances import CT_IMAGE_STORAGE
from support.raw_commitment import action_data, ask, push_model_context, reference, sequence, uid_element
from support.raw_peer import RawPeer

SECONDS = 20.0
SCANNER = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=1)
OTHER = Peer(name="other", ae_title="OTHER", host="127.0.0.1", port=1)


@dataclass
class Note:
    sender: str
    number: int = 0
    data_set: bytes = b""


class HeldDesk:
    """A desk whose thread waits with the first message until it is let go."""

    def __init__(self, batch_max: int = 4) -> None:
        self.batches: list[list[tuple[str, int]]] = []
        self._may_go_on = threading.Event()
        self._has_begun = threading.Event()
        self.desk = Desk[Note]("desk", self._work, batch_max=batch_max)
        self.desk.start()
        assert self.desk.take(Note("first"))
        assert self._has_begun.wait(SECONDS)

    def _work(self, batch: list[Note]) -> None:
        self._has_begun.set()
        assert self._may_go_on.wait(SECONDS)
        self.batches.append([(note.sender, note.number) for note in batch])

    def end(self) -> list[list[tuple[str, int]]]:
        self._may_go_on.set()
        self.desk.stop()
        return self.batches[1:]


def test_each_sender_has_its_turn() -> None:
    held = HeldDesk()
    for number in range(7):
        assert held.desk.take(Note("hog", number))
    assert held.desk.take(Note("late"))
    assert held.desk.take(Note("later"))
    assert held.end() == [
        [("hog", 0), ("late", 0), ("later", 0), ("hog", 1)],
        [("hog", 2), ("hog", 3), ("hog", 4), ("hog", 5)],
        [("hog", 6)],
    ]


def test_no_sender_takes_all_places_or_all_bytes() -> None:
    assert QUEUE_SHARE_OF_ONE == 0.75
    held = HeldDesk()
    taken = sum(held.desk.take(Note("hog", number)) for number in range(REQUESTS_WAITING_MAX))
    assert taken == REQUESTS_WAITING_MAX * QUEUE_SHARE_OF_ONE
    others = sum(held.desk.take(Note(f"other {number}")) for number in range(REQUESTS_WAITING_MAX))
    assert others == REQUESTS_WAITING_MAX - taken
    assert sum(map(len, held.end())) == REQUESTS_WAITING_MAX
    held = HeldDesk()
    block = bytes(REQUEST_BYTES_WAITING_MAX // 8)
    assert sum(held.desk.take(Note("hog", data_set=block)) for _ in range(8)) == 6
    assert [held.desk.take(Note(f"other {number}", data_set=block)) for number in range(3)] == [
        True,
        True,
        False,
    ]
    held.end()


def test_a_closed_desk_takes_nothing() -> None:
    held = HeldDesk()
    held.end()
    assert not held.desk.take(Note("late"))


# On the wire


def tried(port: int, data: bytes, calling: bytes = b"SCANNER") -> int:
    with RawPeer(port) as peer:
        peer.associate(push_model_context(), calling=calling)
        status = ask(peer, data).status
        peer.release()
    return status


@pytest.mark.slow
def test_who_asks_for_little_waits_for_none_of_the_largest_requests_of_others(tmp_path) -> None:
    named = [reference(CT_IMAGE_STORAGE, f"1.2.840.99999.{number}") for number in range(30_000)]
    body = sequence(0x00081199, named)
    assert len(body) > LARGE_REQUEST_BYTES
    answered: list[int] = []
    with commitment_serving(tmp_path / "archive", SCANNER, OTHER, runs_jobs=False) as server:

        def hog(number: int) -> None:
            with RawPeer(server.port) as peer:
                peer.associate(push_model_context(), calling=b"OTHER")
                peer.socket.settimeout(120.0)
                answer = ask(peer, uid_element(0x00081195, f"1.9.{number}") + body)
                answered.append(answer.status)
                peer.release()

        hogs = [threading.Thread(target=hog, args=(number,)) for number in range(4)]
        with server.database.write():  # so that all of them wait, and one is about to be written
            for thread in hogs:
                thread.start()
            large = server.commitments._large_actions
            server.wait(lambda: large._count == 3, "the large requests to wait")
        assert tried(server.port, action_data("1.8", [(CT_IMAGE_STORAGE, "1.2.3.1")])) == 0
        assert len(answered) < 3, (
            "it waited for more than the one that was being written, and the next one in an unlucky order"
        )
        for thread in hogs:
            thread.join(120)
        assert answered == [0] * 4


def references(first: int, count: int) -> list[tuple[str, str]]:
    return [(CT_IMAGE_STORAGE, f"1.2.3.{number}") for number in range(first, first + count)]


@pytest.mark.slow
def test_a_peer_that_is_not_told_cannot_ask_without_end(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert UNREPORTED_REFERENCES_MAX == 500_000
    monkeypatch.setattr(backlog, "UNREPORTED_REFERENCES_MAX", 10)
    with commitment_serving(tmp_path / "archive", SCANNER, OTHER, runs_jobs=False) as server:
        assert tried(server.port, action_data("1.1", references(0, 6))) == 0
        assert tried(server.port, action_data("1.2", references(6, 5))) == 0x0213
        assert tried(server.port, action_data("1.2", references(6, 4))) == 0
        # It is full. What repeats a request adds nothing; what only has its UID would.
        assert tried(server.port, action_data("1.1", references(0, 6))) == 0
        assert tried(server.port, action_data("1.1", references(0, 1))) == 0x0213
        # Others have room of their own.
        assert tried(server.port, action_data("1.3", references(0, 10)), b"OTHER") == 0
        assert open_of(server.database) == (10, 10)
        # What was told makes room, and so does what was given up.
        end(server, "1.1", CommitmentState.REPORTED, "2026-01-01T00:00:00.000000Z")
        assert tried(server.port, action_data("1.4", references(0, 6))) == 0
        end(server, "1.2", CommitmentState.UNDELIVERED, None)
        assert tried(server.port, action_data("1.5", references(0, 4))) == 0
        assert tried(server.port, action_data("1.6", references(0, 1))) == 0x0213
        assert server.find("1.6") is None


def test_several_requests_of_one_transaction_are_counted_together(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "UNREPORTED_REFERENCES_MAX", 10)
    answers: list[int] = []
    with commitment_serving(tmp_path / "archive", SCANNER, runs_jobs=False) as server:
        with server.database.write():

            def ask_it(number: int) -> None:
                answers.append(tried(server.port, action_data(f"1.{number}", references(0, 4))))

            asking = [threading.Thread(target=ask_it, args=(number,)) for number in range(6)]
            for thread in asking:
                thread.start()
        for thread in asking:
            thread.join(SECONDS)
        assert sorted(answers) == [0, 0, 0x0213, 0x0213, 0x0213, 0x0213]


def test_the_look_at_what_is_open_goes_by_the_index_of_what_is_open(tmp_path) -> None:
    with commitment_serving(tmp_path / "archive", SCANNER, runs_jobs=False) as server:
        asked: list[tuple[str, object]] = []

        def note(_connection, _cursor, statement, parameters, *_more) -> None:
            asked.append((statement, parameters))

        with server.database.read() as connection:
            event.listen(connection, "after_cursor_execute", note)
            unreported_references(connection, "scanner")
            ((statement, parameters),) = asked
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        assert [row[3] for row in plan] == ["SEARCH commitments USING INDEX commitments_open (role=?)"]


def open_of(database: Database) -> tuple[int, int]:
    with database.read() as connection:
        return unreported_references(connection, "scanner"), unreported_references(connection, "other")


def end(server, uid: str, state: CommitmentState, reported_at: str | None) -> None:
    commitment = server.commitment(uid)
    with server.database.write() as transaction:
        rows.change(transaction, commitment.commitment_key, state=state, reported_at=reported_at)
