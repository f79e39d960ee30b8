"""Several receiving processes on one archive, one of them killed; and a second server that was not told to share."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive.archive import Archive, ArchiveOptions
from stowkeeper.archive.removal import Removal
from stowkeeper.durable.server_lock import ArchiveInUseError
from support import forked
from support.catalog_rows import open_database
from support.crash_checks import check_acknowledged, depot_folders, looking, until
from support.faulty_server import ChildServer, Nursery, Order, Step
from support.instances import Instance, make_instance
from support.raw_peer import PeerClosed, RawPeer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the nursery forks")]

SHARED = {"STOWKEEPER_SHARED": "true"}
LOOK_SECONDS = 0.1


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


class Load:
    """A peer that sends small instances to one server until it has sent enough, or the server is gone.

    Each third is the same for all peers, so that processes meet over identical instances and other versions.
    """

    def __init__(self, server: ChildServer, number: int, *, most: int = 10_000) -> None:
        self.acknowledged: list[Instance] = []
        self._port = server.port
        self._number = number
        self._most = most
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()

    def _send(self) -> None:
        with suppress(PeerClosed, OSError, AssertionError), RawPeer(self._port) as peer:
            peer.associate()
            for count in range(self._most):
                if count % 3:
                    instance = make_instance(self._number * 1_000_000 + count, study=f"1.2.{count % 4}")
                else:
                    instance = make_instance(count, content=(self._number + count) % 2, study="1.2.9")
                assert peer.store(instance.sop_instance_uid, instance.data).status == 0
                self.acknowledged.append(instance)
            peer.release()


def start(nursery: Nursery, archive: Path, count: int, kill_at: Step | None = None) -> list[ChildServer]:
    """Start servers that share an archive; the first of them dies at a step, if one is given."""
    return [
        nursery.start(
            Order(
                archive=str(archive),
                log=str(archive.with_name(f"log-{number}")),
                settings=SHARED,
                look_seconds=LOOK_SECONDS,
                kill_at=kill_at if number == 0 else None,
            )
        )
        for number in range(count)
    ]


def stop(servers: list[ChildServer]) -> None:
    for server in servers:
        server.signal(signal.SIGTERM)
    for server in servers:
        assert server.wait() == 0, server.log_text()


def test_one_of_three_is_killed_under_load_and_the_others_finish_its_work(
    nursery: Nursery, memory_path: Path
) -> None:
    archive = memory_path / "archive"
    servers = start(nursery, archive, 3)
    loads = [Load(server, number) for number, server in enumerate(servers)]
    until(lambda: min(len(load.acknowledged) for load in loads) > 20)
    servers[0].signal(signal.SIGKILL)
    loads[0].wait()
    assert servers[0].wait() == -signal.SIGKILL
    folders = len(depot_folders(archive))
    until(lambda: len(depot_folders(archive)) == 2 < folders + 1)
    more = len(loads[1].acknowledged)
    until(lambda: len(loads[1].acknowledged) > more + 20)
    stop(servers[1:])
    for load in loads:
        load.wait()
    assert depot_folders(archive) == []
    check_acknowledged(archive, [instance for load in loads for instance in load.acknowledged])


@pytest.mark.parametrize(
    ("operation", "place", "before"),
    [
        ("commit", "catalog", True),
        ("commit", "catalog", False),
        ("make_directory", "objects/1.2.9/1.2.10.1", False),
        ("synchronize_directory", "objects/1.2.9", True),
        ("unlink", "depot/*/slot", True),
    ],
)
def test_one_that_dies_at_a_step_holds_up_no_other(
    nursery: Nursery, memory_path: Path, operation: str, place: str, before: bool
) -> None:
    """Above all not with the writer lock in its hands."""
    step = Step(operation=operation, place=place, occurrence=1, before=before)
    archive = memory_path / "archive"
    servers = start(nursery, archive, 2, kill_at=step)
    first = Load(servers[0], 0, most=60)
    first.wait()
    assert servers[0].wait() == -signal.SIGKILL
    second = Load(servers[1], 1, most=40)
    second.wait()
    assert len(second.acknowledged) == 40
    until(lambda: len(depot_folders(archive)) == 1)
    stop(servers[1:])
    check_acknowledged(archive, first.acknowledged + second.acknowledged)


def test_removals_beside_servers_that_share_take_nothing_else_away(
    nursery: Nursery, memory_path: Path
) -> None:
    """`rm` empties folders, and servers make them again, all the time."""
    archive = memory_path / "archive"
    servers = start(nursery, archive, 2)
    going = [make_instance(number, study="1.2.50") for number in range(1, 40)]
    staying: list[Instance] = []
    with RawPeer(servers[0].port) as one, RawPeer(servers[1].port) as other:
        for peer in (one, other):
            peer.associate()
        for number, instance in enumerate(going):
            assert one.store(instance.sop_instance_uid, instance.data).status == 0
            with looking(archive) as view:
                uid = instance.sop_instance_uid
                until(lambda: any(row["sop_instance_uid"] == uid for row in view.receipts()))  # noqa: B023 - it ends here
                beside = make_instance(100 + number, study=f"1.2.{50 + number % 2}")
                assert other.store(beside.sop_instance_uid, beside.data).status == 0
                staying.append(beside)
                removal = Removal(view.files, view.root, view.database)
                result = removal.carry_out(removal.plan(uid), "a test")
                assert (result.removed, result.left) == (1, [])
                if number % 5 == 0:
                    until(lambda: len(view.receipts()) == 2 * number + 2)  # noqa: B023 - it ends here
                    removal.carry_out(removal.plan("1.2.50"), "a test")
                    staying = [kept for kept in staying if kept.data.find(b"1.2.50") < 0]
    stop(servers)
    check_acknowledged(archive, staying)
    with looking(archive) as view:
        uids = {row["sop_instance_uid"] for row in view.versions()}
        assert uids == {instance.sop_instance_uid for instance in staying}


# One server an archive


COMMAND = [sys.executable, "-m", "stowkeeper", "serve"]


def refused(archive: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return forked.run(
        [*COMMAND, "--archive", str(archive), "--port", "0", "--http-port", "off"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_second_server_that_does_not_share_is_refused_with_words(
    nursery: Nursery, memory_path: Path
) -> None:
    archive = memory_path / "archive"
    server = nursery.start(Order(archive=str(archive), log=str(memory_path / "log")))
    for environment in ({}, SHARED):
        run = refused(archive, environment)
        assert run.returncode == ExitCode.TRY_AGAIN
        assert f"the archive {archive} is in use" in run.stderr
        assert "shared = true" in run.stderr
        assert run.stdout == ""
    assert len(depot_folders(archive)) == 1
    with RawPeer(server.port) as peer:
        peer.associate()
        assert peer.store("1.2.3.1", make_instance(1).data).status == 0
    stop([server])
    check_acknowledged(archive, [make_instance(1)])


def test_beside_servers_that_share_one_that_does_not_is_refused(nursery: Nursery, memory_path: Path) -> None:
    archive = memory_path / "archive"
    servers = start(nursery, archive, 2)
    run = refused(archive, {})
    assert run.returncode == ExitCode.TRY_AGAIN
    assert "set shared = true for both" in run.stderr
    stop(servers)


def test_the_lock_of_a_killed_server_is_free_at_once(nursery: Nursery, memory_path: Path) -> None:
    archive = memory_path / "archive"
    for _ in range(3):
        server = nursery.start(Order(archive=str(archive), log=str(memory_path / "log")))
        server.signal(signal.SIGKILL)
        server.wait()
    server = nursery.start(Order(archive=str(archive), log=str(memory_path / "log")))
    until(lambda: len(depot_folders(archive)) == 1)
    stop([server])


def test_a_refused_server_leaves_nothing_behind(memory_path: Path) -> None:
    options = ArchiveOptions(slot_pool_size=2, worker_threads=1, reserve_size=0)
    root = memory_path / "archive"
    root.mkdir()
    open_database(root).close()
    archive = Archive(str(root), options)
    before = threading.active_count()
    with pytest.raises(ArchiveInUseError):
        Archive(str(root), options)
    assert threading.active_count() == before
    assert len(depot_folders(root)) == 1
    archive.close()
    Archive(str(root), options).close()


def test_two_archives_of_one_process_recover_each_others_dead_and_not_the_living(memory_path: Path) -> None:
    """As `import` does beside a server: both look at the depot, and each folder has one owner."""
    root = memory_path / "archive"
    root.mkdir()
    open_database(root).close()
    options = ArchiveOptions(slot_pool_size=2, worker_threads=1, reserve_size=0, shared=True)
    one, other = Archive(str(root), options), Archive(str(root), options)
    for archive in (one, other, one):
        archive.recover()
    assert len(depot_folders(root)) == 2
    started = time.monotonic()
    one.close()
    other.close()
    assert time.monotonic() - started < 10
    assert depot_folders(root) == []
