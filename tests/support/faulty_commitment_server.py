"""A nursery of servers that take storage commitments, and kill themselves at a step of request, check or report.

As `faulty_server`, but the servers are put together of the parts that do storage commitment: archive, association server,
services and job engine. The peer that may ask, SCANNER, is called at the port that the order's settings name.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from support import faulty_server
from support.faulty_server import Nursery, Order, Watcher, watch_commits, watched_filesystem

_HERE = Path(__file__).resolve()
_TETHER = str(_HERE.with_name("tethered.py"))
_SOURCE = str(_HERE.parents[2] / "src")
PEER_PORT = "COMMITMENT_PEER_PORT"
POLL_SECONDS = 0.05


class CommitmentNursery(Nursery):
    """The program that forks servers of storage commitment, for the length of a block."""

    def __init__(self) -> None:
        path = os.pathsep.join([_SOURCE, str(_HERE.parents[1])])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _TETHER, sys.executable, str(_HERE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        self._ended = {}
        self._living = set()


def run(order: Order, tell_port: int) -> int:
    """Serve until SIGTERM, watched."""
    from stowkeeper.archive import archive

    watcher = Watcher(order)
    vars(archive).update(FileSystem=watched_filesystem(watcher), RECOVERY_SCAN_SECONDS=order.look_seconds)
    watch_commits(watcher)
    asyncio.run(_serve(order, tell_port, watcher))
    return 0


async def _serve(order: Order, tell_port: int, watcher: Watcher) -> None:
    from stowkeeper.archive.archive import Archive, ArchiveOptions
    from stowkeeper.jobs.engine import JobEngine, JobOptions
    from stowkeeper.net.server import AssociationServer
    from stowkeeper.services.commitment.checking_step import CheckTools
    from stowkeeper.services.commitment.external_policies import policy_named
    from stowkeeper.services.commitment.options import CommitmentOptions
    from stowkeeper.services.commitment.provider_job import CommitmentJob, classes_taken_by
    from stowkeeper.services.commitment.reporting import Reporter
    from stowkeeper.services.commitment.requests import CommitmentService
    from stowkeeper.services.dialing import OwnSide
    from stowkeeper.services.peers import Peer, PeerBook
    from stowkeeper.services.storage import StorageService
    from support.archive_server import RULES
    from support.commitment_server import no_tls
    from support.server_thread import OPTIONS

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    kept = Archive(order.archive, ArchiveOptions(slot_pool_size=2, worker_threads=2, reserve_size=0))
    options = CommitmentOptions(grace_seconds=0.0)
    peer = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=int(order.settings[PEER_PORT]))
    book = PeerBook([peer], kept.database)
    engines: list[JobEngine] = []
    commitments = CommitmentService(
        kept.database, book, wake=lambda: [engine.wake() for engine in engines] and None
    )
    service = StorageService(kept, RULES, requests=commitments)
    server = AssociationServer(service, OPTIONS)
    tools = CheckTools(
        archive=kept,
        peers=book,
        policy=policy_named("digest", 10.0, kept.files, kept.root, kept.database),
        options=options,
        accepts_class=classes_taken_by(lambda: service.rules),
        open_associations=server.open_associations,
    )
    reporter = Reporter(
        database=kept.database,
        peers=book,
        own=OwnSide(ae_title="STOWKEEPER", tls=no_tls),
        options=options,
        invoke=server.invoke,
        open_associations=server.open_associations,
    )
    engine = JobEngine(
        kept.database,
        [CommitmentJob(tools=tools, reporter=reporter)],
        owner=f"{os.getpid()}",
        lock_folder=os.path.join(order.archive, "jobs"),
        options=JobOptions(poll_seconds=POLL_SECONDS, lease_seconds=5.0),
    )
    engines.append(engine)
    commitments.start()
    _, port = await server.start("127.0.0.1", 0)
    watcher.begin()
    running = asyncio.create_task(engine.run())
    os.write(tell_port, f"{port}\n".encode())
    os.close(tell_port)
    kept.look_after_the_dead()
    await stop.wait()
    await server.stop()
    commitments.stop()
    await engine.stop(5.0)
    await running
    kept.close()


def serve_once(folder: Path) -> None:
    """Take a commitment in this process, unwatched, and report it: of an instance that is there, and of one that is not."""
    from stowkeeper.services.commitment.commitment_values import CommitmentState
    from support.commitment_server import UID, commitment_serving, peer_at
    from support.quiet_log import quiet_log
    from support.scripted_acceptor import scripted_acceptor

    with (
        quiet_log(),
        scripted_acceptor() as acceptor,
        commitment_serving(folder / "archive", peer_at(acceptor.port)) as server,
    ):
        server.keep(1)
        server.request(numbers=(1, 2))
        server.wait_for_state(UID, CommitmentState.REPORTED)


if __name__ == "__main__":
    # Once for all children. What is watched is put in its place after that, in each of them.
    faulty_server.run = run
    faulty_server.main(serve_once)
