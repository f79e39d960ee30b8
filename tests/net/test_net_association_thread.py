"""Associations that have a thread of their own: what they may do, and that nobody else waits with them."""

import socket
import threading
from collections.abc import Callable
from random import Random

import pytest
from structlog.testing import capture_logs

from stowkeeper.net.handlers import StoreAnswer
from support.raw_peer import COMMAND, LAST, RawPeer, echo_command, p_data, store_message
from support.server_thread import WAIT_SECONDS, RecordingHandlers, ServerThread, Stored, serving

ASSOCIATE_AC = 0x02
ASSOCIATE_RJ = 0x03
ABORT = 0x07
RELEASE_RP = 0x06
DATA = Random(2).randbytes(70_000)


@pytest.fixture
def handlers() -> RecordingHandlers:
    return RecordingHandlers()


class WaitingHandlers(RecordingHandlers):
    """Handlers whose stores wait on the association's own thread until they are told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.waiting = threading.Event()

    def store(self, *arguments: object) -> Stored:  # type: ignore[override]  # as the base class has them
        stored = super().store(*arguments)  # type: ignore[arg-type]  # likewise
        self.waiting.set()
        assert self.go_on.wait(WAIT_SECONDS)
        return stored


def test_who_waits_for_the_disk_keeps_nobody_else_waiting() -> None:
    handlers = WaitingHandlers()
    with serving(handlers, "threads") as server, RawPeer(server.port) as slow, RawPeer(server.port) as other:
        slow.associate()
        other.associate()
        slow.send(store_message(1, "1.2.3", DATA))
        assert handlers.waiting.wait(WAIT_SECONDS)
        assert other.echo().status == 0
        with RawPeer(server.port) as newcomer:
            assert newcomer.associate().kind == ASSOCIATE_AC
        handlers.go_on.set()
        assert slow.read_answer().status == 0


def test_only_those_with_a_thread_may_wait(handlers: RecordingHandlers) -> None:
    with serving(handlers, "threads", association_threads=1) as server:
        with RawPeer(server.port) as first, RawPeer(server.port) as second:
            for number, peer in enumerate((first, second)):
                peer.associate()
                assert peer.store(f"1.2.{number + 1}", DATA).status == 0
        server.wait_until(lambda: not server.server._running_threads())
        assert [stored.facts.may_wait for stored in handlers.stores] == [True, False]
        with RawPeer(server.port) as third:
            third.associate()
            assert third.store("1.2.3", DATA).status == 0
        assert handlers.stores[-1].facts.may_wait, "the place is free again"
        assert [bytes(stored.data) for stored in handlers.stores] == [DATA] * 3


def test_without_a_thread_to_be_had_the_event_loop_serves(
    handlers: RecordingHandlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_unless_association(thread: threading.Thread) -> None:
        if thread.name == "association":
            raise RuntimeError("can't start new thread")
        start(thread)

    with serving(handlers, "threads") as server:
        monkeypatch.setattr(threading.Thread, "start", start_unless_association)
        with RawPeer(server.port) as peer:
            peer.associate()
            assert peer.store("1.2.3", DATA).status == 0
    assert not handlers.stores[0].facts.may_wait


def test_an_answer_from_another_thread_goes_out_while_nothing_is_read(handlers: RecordingHandlers) -> None:
    handlers.answers = False
    with serving(handlers, "threads") as server, RawPeer(server.port) as peer:
        peer.associate()
        for number in range(20):
            peer.send(store_message(1, f"1.2.{number}", DATA))
            server.wait_until(lambda: bool(handlers.stores) and handlers.stores[-1].end == "committed")
            stored = handlers.stores.pop()
            answering = threading.Thread(target=stored.answer, args=(StoreAnswer(status=0),))
            answering.start()
            assert peer.read_answer().status == 0
            answering.join()


@pytest.mark.slow
def test_the_limit_on_associations_holds_when_many_ask_at_the_same_moment(
    handlers: RecordingHandlers,
) -> None:
    with serving(handlers, "threads", associations_max=3, associations_per_peer_max=30) as server:
        for _ in range(5):
            peers = [RawPeer(server.port) for _ in range(12)]
            kinds: list[int] = []
            at_once = threading.Barrier(len(peers))

            def ask(peer: RawPeer, at_once: threading.Barrier, kinds: list[int]) -> None:
                at_once.wait(WAIT_SECONDS)
                kinds.append(peer.associate().kind)

            asking = [threading.Thread(target=ask, args=(peer, at_once, kinds)) for peer in peers]
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()
            assert sorted(kinds) == [ASSOCIATE_AC] * 3 + [ASSOCIATE_RJ] * 9
            for peer in peers:
                peer.close()
            server.wait_until_empty()


@pytest.mark.slow
def test_a_peer_that_does_not_read_is_cut_off(handlers: RecordingHandlers) -> None:
    with (
        serving(handlers, "threads", send_seconds=0.2) as server,
        RawPeer(server.port, receive_buffer=4096) as deaf,
    ):
        deaf.associate()
        with pytest.raises(OSError):  # noqa: PT012 - which send it is that fails, the system decides
            while True:
                deaf.socket.sendall(p_data(3, echo_command(), control=COMMAND | LAST) * 1000)
        end, words = server.only_ending(handlers)
    assert (end, words) == ("lost", "the connection broke: the peer read no answer for 0.2 seconds")


def test_a_fault_of_ours_ends_one_association_and_is_logged() -> None:
    class FaultyHandlers(RecordingHandlers):
        def store(self, *arguments: object) -> Stored:  # type: ignore[override]  # it never gets that far
            raise ZeroDivisionError

    handlers = FaultyHandlers()
    with (
        capture_logs() as logs,
        serving(handlers, "threads") as server,
        RawPeer(server.port) as unlucky,
        RawPeer(server.port) as other,
    ):
        unlucky.associate()
        other.associate()
        unlucky.send(store_message(1, "1.2.3", DATA))
        assert unlucky.read_pdu().kind == ABORT
        assert other.echo().status == 0
        server.wait_until(lambda: len(handlers.closed) == 1)
    assert [line["what"] for line in logs if line["log_level"] == "error"] == ["an association was cut"]


@pytest.mark.parametrize("leave", [RawPeer.reset, RawPeer.close])
def test_a_peer_that_leaves_leaves_no_thread(
    handlers: RecordingHandlers, leave: Callable[[RawPeer], None]
) -> None:
    with serving(handlers, "threads") as server:
        peers = [RawPeer(server.port) for _ in range(8)]
        for peer in peers[:4]:
            peer.associate()
        for peer in peers:
            leave(peer)
        server.wait_until_empty()
        server.wait_until(lambda: not _association_threads())
        assert not server.server._threads


def test_a_stop_releases_who_is_idle(handlers: RecordingHandlers) -> None:
    with serving(handlers, "threads") as server, RawPeer(server.port) as peer:
        peer.associate()
        assert peer.echo().status == 0
        stopping = server.begin(server.server.stop())
        assert peer.read_pdu().kind == 0x05
        peer.send(bytes([RELEASE_RP, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
        stopping.result(WAIT_SECONDS)
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=5):
            pass
    assert handlers.closed[0].end == "shutdown"


def _association_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "association"]


@pytest.mark.slow
def test_reading_pauses_while_workers_hold_all_that_was_read(handlers: RecordingHandlers) -> None:
    handlers.keeps_pieces = True
    with serving(handlers, "threads") as server, RawPeer(server.port) as peer:
        peer.associate()
        peer.socket.settimeout(WAIT_SECONDS)
        message = store_message(1, "1.2.3", bytes(24 << 20))
        sending = threading.Thread(target=peer.send, args=(message,))
        sending.start()
        _wait_until_paused(server)
        received = len(handlers.stores[0].data)
        assert received < 8 << 20, "no more than what an association may hold"
        handlers.keeps_pieces = False
        handlers.stores[0].release_pieces()
        sending.join()
        assert peer.read_answer().status == 0
        assert len(handlers.stores[0].data) == 24 << 20


def _wait_until_paused(server: ServerThread) -> None:
    server.wait_until(lambda: any(not protocol._reading for protocol in server.protocols_now))
