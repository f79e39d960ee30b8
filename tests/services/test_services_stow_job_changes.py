"""A stow job while the archive changes, and one that is broken off: nothing is left out, nothing damaged goes out."""

import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Connection

from stowkeeper.archive.removal import Removal
from stowkeeper.archive.versions import find_versions
from stowkeeper.database.engine import Transaction
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job, JobItem, JobRequest
from stowkeeper.services import item_turn, store_items
from stowkeeper.services.limits import STORE_GIVE_UP_SECONDS
from stowkeeper.services.stow_client.batches import BatchBody, QueuedFile, UnreadableFileError
from stowkeeper.services.stow_client.limits import PIECE_BYTES
from stowkeeper.services.stow_job import StowJobOptions
from support.command_line import SOURCE, keep
from support.instances import make_instance
from support.job_engine_thread import wait_until
from support.scripted_dicomweb import (
    Answer,
    Reply,
    Request,
    Script,
    ScriptedServer,
    module,
    scripted_server,
    store_all,
)
from support.store_rig import STUDY, WAIT_SECONDS, Bystander
from support.stow_job_rig import StowRig, origin_server, stow_rig

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[StowRig]:
    """Give an archive with ten instances of one study."""
    with stow_rig(tmp_path / "archive", *map(make_instance, range(10))) as made:
        yield made


class Gate:
    """Holds the answer to a request with one instance back until it is opened."""

    def __init__(self, number: int) -> None:
        self._uid = f"1.2.3.{number}"
        self.came = threading.Event()
        self._is_open = threading.Event()

    def __call__(self, request: Request) -> Answer:
        if self._uid in request.uids and not self._is_open.is_set():
            self.came.set()
            self._is_open.wait(WAIT_SECONDS)
        return store_all(request)

    def open(self) -> None:
        self._is_open.set()


def times(server: ScriptedServer) -> Counter[int]:
    return Counter(int(uid.rpartition(".")[2]) for uid in server.stored)


def spoil(path: Path) -> None:
    """Change the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


# Instances that change meanwhile.


@pytest.mark.parametrize("size", [600, 3 * PIECE_BYTES])
def test_bytes_that_went_bad_are_not_sent(rig: StowRig, size: int) -> None:
    keep(rig.folder, make_instance(10, size=size))
    path = rig.path_of("1.2.3.10")
    spoil(path)
    bad = path.read_bytes()[-500:]
    with scripted_server() as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        ended = rig.run_to_end(job)
    assert ended.error == (
        "1 of 11 instances was not stored: its bytes are not those that it was kept with; `stowkeeper verify` looks after"
        " it (1)"
    )
    assert times(server) == dict.fromkeys(range(10), 1)
    assert not any(bad in request.body for request in server.requests)


def test_the_last_piece_of_bytes_that_went_bad_never_goes_out(tmp_path: Path) -> None:
    with stow_rig(tmp_path / "archive", make_instance(1, size=2 * PIECE_BYTES)) as rig:
        file = planned(rig, 1)
        spoil(Path(file.path))
        went_out: list[int] = []
        with pytest.raises(UnreadableFileError, match="its bytes are not those"):
            send(BatchBody((QueuedFile(file),)), went_out)
        assert PIECE_BYTES <= sum(went_out) < file.size


def send(body: BatchBody, went_out: list[int]) -> None:
    """Take a body to its end, or as far as it goes."""
    for piece in body.pieces():
        went_out.append(len(piece))  # noqa: PERF401 - what went out before it ended counts


def planned(rig: StowRig, number: int) -> Any:
    """Return an instance as it is planned to be sent."""
    with rig.database.read() as connection:
        found = find_versions(connection, [f"1.2.3.{number}"])[f"1.2.3.{number}"]
    return store_items._file_of(found[0], rig.archive.root)


def test_memory_does_not_grow_with_the_instance(tmp_path: Path) -> None:
    large = make_instance(1, size=24_000_000)
    with stow_rig(tmp_path / "archive", large) as rig:
        body = BatchBody((QueuedFile(planned(rig, 1)),))
        tracemalloc.start()
        try:
            out = sum(len(piece) for piece in body.pieces())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert out == body.length
        assert out > len(large.data)
        assert peak < 4 * PIECE_BYTES


@pytest.mark.parametrize("damage", ["gone", "shorter", "no receipt"])
def test_a_file_that_is_not_as_it_was_kept_is_not_sent(rig: StowRig, damage: str) -> None:
    path = rig.path_of("1.2.3.4")
    content = path.read_bytes()
    path.unlink()
    if damage == "shorter":
        path.write_bytes(content[:-2])
    elif damage == "no receipt":
        path.write_bytes(content.replace(b"2.25.226579376851617489", b"2.25.226579376851617488"))
    with scripted_server() as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert "`stowkeeper verify` looks after it (1)" in ended.error
    assert times(server) == dict.fromkeys({*range(10)} - {4}, 1)


def test_an_instance_that_was_removed_meanwhile_fails_alone(rig: StowRig) -> None:
    with scripted_server() as server:
        job = rig.submit_to(origin_server(server.url), STUDY)
        removal = Removal(rig.archive.files, rig.archive.root, rig.database)
        removal.carry_out(removal.plan("1.2.3.4"), "a test")
        ended = rig.run_to_end(job)
    assert ended.error == "1 of 10 instances was not stored: it was removed (1)"
    assert times(server) == dict.fromkeys({*range(10)} - {4}, 1)


# In the middle.


def test_a_pause_keeps_what_was_answered_and_sends_only_the_rest_later(rig: StowRig) -> None:
    gate = Gate(5)
    with scripted_server(Script(answer=gate)) as server, rig.running():
        job = rig.submit_to(origin_server(server.url, instances=2), STUDY)
        assert gate.came.wait(WAIT_SECONDS)
        rig.act(jobs.pause, job)
        assert rig.wait_for(job, "paused").items_done == 4
        gate.open()
        rig.act(jobs.resume, job)
        assert rig.wait_for(job, "success", "failure").error == "10 instances stored"
    assert times(server) == {**dict.fromkeys(range(10), 1), 4: 2, 5: 2}


DYING = """
import sys
from pathlib import Path
from support.stow_job_rig import QUICK_STOW, origin_server
from support.job_engine_thread import engine_running
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.services.stow_job import StowJob

archive = ArchiveReader(sys.argv[1])
servers = {"cloud": origin_server(sys.argv[2], instances=2)}
kinds = lambda: [StowJob(archive, lambda: servers, options=QUICK_STOW)]
with engine_running(archive.database, Path(sys.argv[1]), kinds):
    sys.stdin.read()
"""


def test_a_kill_in_the_middle_leaves_nothing_out_and_sends_again_only_what_was_not_answered(
    rig: StowRig,
) -> None:
    gate = Gate(5)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(Path(__file__).parents[1])])}
    with scripted_server(Script(answer=gate)) as server:
        job = rig.submit_to(origin_server(server.url, instances=2), STUDY)
        process = subprocess.Popen(
            [sys.executable, "-c", DYING, str(rig.folder), server.url], stdin=subprocess.PIPE, env=environment
        )
        try:
            assert gate.came.wait(WAIT_SECONDS)
            wait_until(lambda: rig.job(job).items_done == 4, "what was answered is written down")
            assert rig.job(job).state == "running"
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        gate.open()
        assert rig.run_to_end(job).error == "10 instances stored"
    assert times(server) == {**dict.fromkeys(range(10), 1), 4: 2, 5: 2}


def test_others_get_their_turn_at_the_same_server(rig: StowRig) -> None:
    gate = Gate(5)
    seen = threading.Event()
    real = item_turn.ItemTurn._others_wait

    def look(turn: Any) -> bool:
        found = real(turn)
        if found:
            seen.set()
        return found

    options = StowJobOptions(turn_seconds=0.05, back_off_seconds=0.01, write_seconds=0.02)
    with (
        patch.object(item_turn.ItemTurn, "_others_wait", look),
        scripted_server(Script(answer=gate)) as server,
        rig.running(options, others=[Bystander()]),
    ):
        job = rig.submit_to(origin_server(server.url, instances=2), STUDY)
        assert gate.came.wait(WAIT_SECONDS)
        with rig.database.write() as transaction:
            other = jobs.submit(transaction, JobRequest(kind=Bystander.name, arguments={}, lane=job.lane))
        assert seen.wait(WAIT_SECONDS)
        gate.open()
        assert rig.wait_for(job, "success", "failure").error == "10 instances stored"
        assert rig.job(other).state == "success"
        assert (rig.job(other).finished_at or "") < (rig.job(job).finished_at or "")
        assert rig.job(job).failures == 0
    assert times(server) == dict.fromkeys(range(10), 1)


# Who is told.


class Told:
    """Remembers what it was told, and which transactions ended well; it wants of instance 9 a version that there is not."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[str]] = {}
        self.times_noted = 0

    def wanted(self, _connection: Connection, _job: Job, positions: Sequence[int]) -> Mapping[int, int]:
        return dict.fromkeys({9} & set(positions), -1)

    def note(self, transaction: Transaction, job: Job, items: Sequence[JobItem]) -> None:
        """Look whether the items are written in this very transaction, or are about to be."""
        assert transaction.at
        assert job.kind == "stow"
        for item in items:
            self.outcomes.setdefault(item.name.rpartition(".")[2], []).append(item.outcome)

    def noted(self, _job: Job) -> None:
        self.times_noted += 1


def test_who_has_to_know_is_told_of_every_outcome(rig: StowRig) -> None:
    told = rig.outcomes_told = Told()
    some = module("1.2.3.0", failed={"1.2.3.1": 0xC000, "1.2.3.2": 0xA700})
    with scripted_server(
        Script(answer=lambda request: Reply(202, some) if request.number < 2 else store_all(request))
    ) as server:
        job = rig.submit_to(origin_server(server.url, instances=3), STUDY)
        rig.submitted_before(job, STORE_GIVE_UP_SECONDS + 600)
        ended = rig.run_to_end(job)
        assert ended.state == "failure"
        assert told.outcomes["0"] == ["stored"]
        assert told.outcomes["1"] == ["failed"]
        assert told.outcomes["2"] == ["", "failed"]
        assert all(told.outcomes[str(number)][-1] == "failed" for number in range(3, 9))
        assert told.times_noted >= 2
        rig.act(jobs.resubmit, job)
        server.script = Script()
        assert rig.run_to_end(job).state == "success"
    assert told.outcomes["1"] == ["failed", "", "stored"]
    assert all(told.outcomes[str(number)][-1] == "stored" for number in range(9))
    assert "9" not in [uid.rpartition(".")[2] for uid in server.stored]
