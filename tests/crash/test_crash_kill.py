"""SIGKILL at every step of an instance's path, and at any moment under load: what was acknowledged is there.

Real servers, real files, real SQLite. A first run without a fault tells the steps; then one server after another kills
itself at one of them while a peer sends, and a new server starts on what is left. It proves nothing about syncs: that
is for the power cuts.
"""

import os
import random
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3

from support.archive_rig import read_all
from support.crash_checks import check_acknowledged, depot_files, depot_folders, looking, until
from support.faulty_server import Nursery, Order, Step, telling_steps
from support.instances import Instance, make_instance
from support.raw_peer import PeerClosed, RawPeer, p_data, store_command

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the nursery forks")]

SMALL, LARGE = make_instance(1), make_instance(2, size=2_500_000, series="1.2.10.2")
OTHER_VERSION = make_instance(1, content=1)
ABORTED = make_instance(3, size=600_000)
MISLABELLED = Instance(sop_instance_uid="1.2.3.99", data=make_instance(4, size=600_000).data)
SENT = (SMALL, LARGE, SMALL, OTHER_VERSION)
PORTIONS = 3
OCCURRENCES_MAX = 2
"""Later occurrences of a step on the same kind of path are like the earlier ones."""
REACHED_SHARE_MIN = 0.5
"""Threads interleave as they like: not each step of the first run comes in each other one."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


def send_everything(port: int, acknowledged: list[Instance]) -> None:
    """Send instances of every fate, and note what was answered with Success."""
    with RawPeer(port) as peer:
        peer.associate()
        peer.send(p_data(1, store_command(ABORTED.sop_instance_uid), control=3))
        for start in range(0, 400_000, 16_000):
            peer.send(p_data(1, ABORTED.data[start : start + 16_000], control=0))
        with RawPeer(port) as other:
            other.associate()
            for instance in SENT:
                assert other.store(instance.sop_instance_uid, instance.data).status == 0
                acknowledged.append(instance)
            refused = other.store(MISLABELLED.sop_instance_uid, MISLABELLED.data)
            assert refused.status == 0xA900
            other.release()
        peer.reset()


def run_once(nursery: Nursery, place: Path, step: Step | None, *, watch: str = "") -> bool:
    """Serve until the step kills the server, start another, and check; tell whether the step came."""
    archive = place / "archive"
    order = Order(archive=str(archive), log=str(place / "first.log"), kill_at=step, watch=watch)
    server = nursery.start(order)
    acknowledged: list[Instance] = []
    with suppress(PeerClosed, ConnectionError):
        send_everything(server.port, acknowledged)
    with looking(archive) as view:
        until(lambda: server.ended() or len(view.receipts()) >= len(acknowledged))
    if not server.ended():
        server.signal(signal.SIGTERM)
    code = server.wait()
    assert code in (0, -signal.SIGKILL), server.log_text()
    again = nursery.start(Order(archive=str(archive), log=str(place / "second.log")))
    until(lambda: len(depot_folders(archive)) == 1)
    check_acknowledged(archive, acknowledged)
    with looking(archive) as view:
        uids = {row["sop_instance_uid"] for row in view.versions()}
        assert uids <= {instance.sop_instance_uid for instance in SENT}
    again.signal(signal.SIGTERM)
    assert again.wait() == 0, again.log_text()
    assert depot_folders(archive) == []
    return code != 0


@pytest.fixture(scope="module")
def steps(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """Return the steps of a run without a fault."""
    place = tmp_path_factory.mktemp("watched")
    assert not run_once(nursery, place, None, watch=str(place / "steps"))
    return telling_steps(place / "steps", OCCURRENCES_MAX)


def test_the_first_run_knows_the_whole_path(steps: list[Step]) -> None:
    seen = {(step.operation, step.place) for step in steps}
    assert seen >= {
        ("write", "depot/*/slot"),
        ("synchronize", "depot/*/slot"),
        ("link", "objects/1.2.10/1.2.10.1/1.2.3.1.dcm"),
        ("make_directory", "objects/1.2.10"),
        ("make_directory", "objects/1.2.10/1.2.10.1"),
        ("synchronize_directory", "objects/1.2.10/1.2.10.1"),
        ("synchronize_directory", "objects/1.2.10"),
        ("synchronize_directory", "objects"),
        ("commit", "catalog"),
        ("unlink", "depot/*/slot"),
        ("remove_directory", "depot/*"),
    }


@pytest.mark.parametrize("portion", range(PORTIONS))
def test_killed_at_any_step_nothing_acknowledged_is_lost(
    nursery: Nursery, steps: list[Step], memory_path: Path, portion: int
) -> None:
    chosen = steps[portion::PORTIONS]
    reached = 0
    for number, step in enumerate(chosen):
        place = memory_path / str(number)
        place.mkdir()
        try:
            reached += run_once(nursery, place, step)
        except BaseException as error:
            error.add_note(f"killed {step}")
            raise
        shutil.rmtree(place)
    assert reached >= REACHED_SHARE_MIN * len(chosen)


class Load:
    """Peers that send small instances, each its own, as fast as they are answered, until the server is gone."""

    def __init__(self, port: int, first: int, peers: int = 3) -> None:
        self.acknowledged: list[Instance] = []
        self.peers = peers
        self._port = port
        self._threads = [
            threading.Thread(target=self._send, args=(first + 100_000 * peer,)) for peer in range(peers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        with suppress(PeerClosed, OSError, AssertionError), RawPeer(self._port) as peer:
            peer.associate()
            while True:
                number += 1
                size = 60_000 if number % 7 == 0 else 900
                instance = make_instance(number, study=f"1.2.{number % 5}", size=size)
                if peer.store(instance.sop_instance_uid, instance.data).status == 0:
                    self.acknowledged.append(instance)


def test_killed_at_random_under_load_again_and_again_nothing_acknowledged_is_lost(
    nursery: Nursery, memory_path: Path
) -> None:
    """The same archive all the time: each server also finishes what the one before it left."""
    archive = memory_path / "archive"
    source = random.Random(5)
    acknowledged: list[Instance] = []
    for round_number in range(8):
        server = nursery.start(Order(archive=str(archive), log=str(memory_path / "log")))
        load = Load(server.port, 1_000_000 * round_number)
        load.start()
        threading.Event().wait(source.uniform(0.05, 0.3))
        server.signal(signal.SIGKILL)
        load.wait()
        assert server.wait() == -signal.SIGKILL
        acknowledged += load.acknowledged
    server = nursery.start(Order(archive=str(archive), log=str(memory_path / "log")))
    until(lambda: len(depot_folders(archive)) == 1)
    check_acknowledged(archive, acknowledged)
    assert len(acknowledged) > 50
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_answers_finishes_and_leaves_no_folder_in_the_depot(
    nursery: Nursery, memory_path: Path, ending: signal.Signals
) -> None:
    archive = memory_path / "archive"
    server = nursery.start(Order(archive=str(archive), log=str(memory_path / "log")))
    load = Load(server.port, 0)
    load.start()
    until(lambda: len(load.acknowledged) > 20)
    server.signal(ending)
    load.wait()
    assert server.wait() == 0, server.log_text()
    assert depot_folders(archive) == []
    check_acknowledged(archive, load.acknowledged)
    with looking(archive) as view:
        answers = {row["sop_instance_uid"]: row["answer"] for row in view.receipts()}
    # What crossed our request for release, one instance of each peer, is kept, and no answer may follow that request.
    told = {instance.sop_instance_uid for instance in load.acknowledged}
    assert {uid for uid, answer in answers.items() if answer == "known"} == told
    assert len(answers) - len(told) <= load.peers


def test_recovery_itself_is_killed_at_any_of_its_steps(nursery: Nursery, memory_path: Path) -> None:
    """A server that dies while it finishes what a dead one left, and another that dies while it does the same."""
    archive = memory_path / "archive"
    server = nursery.start(
        Order(
            archive=str(archive),
            log=str(memory_path / "log"),
            kill_at=Step(operation="commit", place="catalog", occurrence=1),
        )
    )
    acknowledged: list[Instance] = []
    with suppress(PeerClosed, ConnectionError):
        send_everything(server.port, acknowledged)
    assert server.wait() == -signal.SIGKILL
    left = len(depot_files(archive))
    assert left >= 1
    killed = Counter[str]()
    for operation, place in (
        ("link", "objects/1.2.10/1.2.10.1/1.2.3.1.dcm"),
        ("synchronize", "depot/*/slot"),
        ("synchronize_directory", "objects/1.2.10"),
        ("commit", "catalog"),
        ("unlink", "depot/*/slot"),
    ):
        for before in (True, False):
            step = Step(operation=operation, place=place, occurrence=1, before=before)
            order = Order(archive=str(archive), log=str(memory_path / "log"), kill_at=step)
            server = nursery.start(order)
            until(lambda server=server: server.ended() or len(depot_folders(archive)) == 1)  # type: ignore[misc]  # the default binds it
            if not server.ended():
                server.signal(signal.SIGTERM)
            killed[operation] += server.wait() != 0
    assert len(killed) >= 4
    server = nursery.start(Order(archive=str(archive), log=str(memory_path / "log")))
    until(lambda: len(depot_folders(archive)) == 1)
    check_acknowledged(archive, acknowledged)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_the_bytes_on_the_shelf_are_those_that_were_sent(nursery: Nursery, memory_path: Path) -> None:
    """What the checks above compare is what it seems."""
    archive = memory_path / "archive"
    server = nursery.start(Order(archive=str(archive), log=str(memory_path / "log")))
    acknowledged: list[Instance] = []
    send_everything(server.port, acknowledged)
    assert tuple(acknowledged) == SENT
    server.signal(signal.SIGTERM)
    server.wait()
    with looking(archive) as view:
        found = {read_all(view.files, view.path(path))[-len(LARGE.data) :] for path in view.shelf()}
        assert LARGE.data in found
        assert {row["digest"] for row in view.versions()} == {
            blake3(instance.data).hexdigest() for instance in SENT
        }
    with pytest.raises(AssertionError):
        check_acknowledged(archive, [make_instance(77)])
