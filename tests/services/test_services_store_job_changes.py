"""A store job while the archive changes, and one that is broken off: nothing that was answered is sent again."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stowkeeper.archive.removal import Removal
from stowkeeper.archive.versions import find_versions
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.dicom.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job, JobRequest
from stowkeeper.services import store_job
from stowkeeper.services.limits import (
    READ_PIECE_BYTES,
)
from stowkeeper.services.store_job import StoreOptions
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from support.command_line import SOURCE, keep
from support.instances import make_instance
from support.job_engine_thread import wait_until
from support.scripted_acceptor import Script, scripted_acceptor
from support.store_rig import (
    STUDY,
    WAIT_SECONDS,
    Bystander,
    Gate,
    StoreRig,
    number_of,
    peer_at,
    store_rig,
    times_sent,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[StoreRig]:
    """Give an archive with ten instances of one study."""
    with store_rig(tmp_path / "archive", *map(make_instance, range(10))) as made:
        yield made


# Instances that change meanwhile.


def remove(rig: StoreRig, uid: str) -> None:
    removal = Removal(rig.archive.files, rig.archive.root, rig.database)
    removal.carry_out(removal.plan(uid), "a test")


def test_an_instance_that_was_removed_meanwhile_fails_alone(rig: StoreRig) -> None:
    with scripted_acceptor() as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        remove(rig, "1.2.3.4")
        ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert ended.error == "1 of 10 instances was not stored: it was removed (1)"
    assert times_sent(acceptor.stored) == dict.fromkeys({*range(10)} - {4}, 1)
    assert (rig.item(job, 4).outcome, rig.item(job, 4).words) == ("failed", "it was removed")


def test_an_instance_that_is_removed_while_others_are_sent_fails_alone(rig: StoreRig) -> None:
    gate = Gate(0)
    with scripted_acceptor(Script(answer=gate)) as acceptor, rig.running():
        keep(rig.folder, *map(make_instance, range(10, 30)))
        job = rig.submit(peer_at(acceptor.port), STUDY)
        assert gate.came.wait(WAIT_SECONDS)
        remove(rig, "1.2.3.29")  # looked up, and not opened yet: the files ahead are fewer
        gate.open()
        ended = rig.wait_for(job, "success", "failure")
    assert ended.error == "1 of 30 instances was not stored: it was removed (1)"
    assert 29 not in times_sent(acceptor.stored)


def test_a_version_that_takes_the_place_of_another_while_it_is_sent_goes_out(rig: StoreRig) -> None:
    gate = Gate(0)
    newer = make_instance(29, content=1)
    with scripted_acceptor(Script(answer=gate)) as acceptor, rig.running():
        keep(rig.folder, *map(make_instance, range(10, 30)))
        job = rig.submit(peer_at(acceptor.port), STUDY)
        assert gate.came.wait(WAIT_SECONDS)
        path = rig.path_of("1.2.3.29")
        keep(rig.folder, newer)
        os.unlink(path)
        gate.open()
        assert rig.wait_for(job, "retry", "success", "failure").state == "retry"
        rig.act(jobs.resubmit, job)
        assert rig.wait_for(job, "success", "failure").state == "success"
    (last,) = [received for received in acceptor.stored if number_of(received) == 29]
    assert last.data_set == newer.data


def test_the_version_that_is_current_when_it_is_sent_is_sent(rig: StoreRig) -> None:
    newer = make_instance(4, content=1)
    with scripted_acceptor() as acceptor:
        job = rig.submit(peer_at(acceptor.port), "1.2.3.4")
        keep(rig.folder, newer)
        assert rig.run_to_end(job).state == "success"
    assert [received.data_set for received in acceptor.stored] == [newer.data]
    with rig.database.read() as connection:
        current = next(one for one in find_versions(connection, ["1.2.3.4"])["1.2.3.4"] if one.is_current)
    assert rig.item(job, 4).words == f"receipt {current.receipt_id}"


@pytest.mark.parametrize("size", [600, 3 * READ_PIECE_BYTES])
def test_bytes_that_went_bad_are_not_sent(rig: StoreRig, size: int) -> None:
    keep(rig.folder, make_instance(10, size=size))
    path = rig.path_of("1.2.3.10")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    with scripted_acceptor() as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        ended = rig.run_to_end(job)
    assert ended.error == (
        "1 of 11 instances was not stored: its bytes are not those that it was kept with; `stowkeeper verify` looks after"
        " it (1)"
    )
    assert times_sent(acceptor.stored) == dict.fromkeys(range(10), 1)


@pytest.mark.parametrize("damage", ["gone", "shorter", "longer"])
def test_a_file_that_is_not_as_it_was_kept_is_not_sent(rig: StoreRig, damage: str) -> None:
    path = rig.path_of("1.2.3.4")
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-2] if damage == "shorter" else content + b"ab")
    with scripted_acceptor() as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert "`stowkeeper verify` looks after it (1)" in ended.error
    assert times_sent(acceptor.stored) == dict.fromkeys({*range(10)} - {4}, 1)


def test_what_is_converted_is_checked_too(rig: StoreRig) -> None:
    path = rig.path_of("1.2.3.4")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    policy = AcceptancePolicy(transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,))
    with scripted_acceptor(Script(policy=policy)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        ended = rig.run_to_end(job)
    assert ended.error.startswith("1 of 10 instances was not stored: its bytes are not those")
    assert times_sent(acceptor.stored) == dict.fromkeys({*range(10)} - {4}, 1)
    assert all(received.context.transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN for received in acceptor.stored)


def test_a_data_set_of_odd_length_is_not_sent(rig: StoreRig) -> None:
    # Nothing is looked at in a transfer syntax that nobody knows.
    odd = replace(make_instance(10), data=b"x" * 601, transfer_syntax_uid="1.2.3.4.5")
    keep(rig.folder, odd)
    with scripted_acceptor() as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY, "1.2.3.10")
        assert "odd number of bytes" in rig.run_to_end(job).error
    assert 10 not in times_sent(acceptor.stored)


# In the middle.


def test_a_pause_keeps_what_was_answered_and_sends_only_the_rest_later(rig: StoreRig) -> None:
    gate = Gate(5)
    with scripted_acceptor(Script(answer=gate)) as acceptor, rig.running():
        job = rig.submit(peer_at(acceptor.port), STUDY)
        assert gate.came.wait(WAIT_SECONDS)
        rig.act(jobs.pause, job)
        assert rig.wait_for(job, "paused").items_done == 5
        gate.open()
        rig.act(jobs.resume, job)
        assert rig.wait_for(job, "success", "failure").error == "10 instances stored"
    assert times_sent(acceptor.stored) == {**dict.fromkeys(range(10), 1), 5: 2}


def test_a_cancellation_ends_it_in_the_middle_and_it_can_be_submitted_again(rig: StoreRig) -> None:
    gate = Gate(5)
    with scripted_acceptor(Script(answer=gate)) as acceptor, rig.running():
        job = rig.submit(peer_at(acceptor.port), STUDY)
        assert gate.came.wait(WAIT_SECONDS)
        rig.act(jobs.cancel, job)
        rig.wait_for(job, "cancelled")
        assert Counter(rig.outcomes(job).values()) == {"stored": 5, "": 5}
        gate.open()
        rig.act(jobs.resubmit, job)
        assert rig.wait_for(job, "success", "failure").state == "success"
    assert times_sent(acceptor.stored) == {**dict.fromkeys(range(10), 1), 5: 2}


def test_the_end_of_the_server_interrupts_it_and_the_next_goes_on(rig: StoreRig) -> None:
    gate = Gate(5)
    # As slow at writing down as can be: what was answered is written at the end.
    slow = StoreOptions(back_off_seconds=0.01, write_seconds=60)
    with scripted_acceptor(Script(answer=gate)) as acceptor:
        with rig.running(slow):
            job = rig.submit(peer_at(acceptor.port), STUDY)
            assert gate.came.wait(WAIT_SECONDS)
        assert (rig.job(job).state, rig.job(job).items_done) == ("pending", 5)
        gate.open()
        assert rig.run_to_end(job).state == "success"
    assert times_sent(acceptor.stored) == {**dict.fromkeys(range(10), 1), 5: 2}


DYING = """
import sys
from pathlib import Path
from support.job_engine_thread import engine_running
from support.store_rig import OWN, QUICK
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.services.peers import PeerBook
from stowkeeper.services.store_job import StoreJob

archive = ArchiveReader(sys.argv[1])
book = PeerBook([], archive.database)
with engine_running(archive.database, Path(sys.argv[1]), lambda: [StoreJob(archive, book, OWN, options=QUICK)]):
    print("running", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_kill_in_the_middle_sends_nothing_again_that_was_answered(rig: StoreRig) -> None:
    gate = Gate(5)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(Path(__file__).parents[1])])}
    with scripted_acceptor(Script(answer=gate)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        process = subprocess.Popen(
            [sys.executable, "-c", DYING, str(rig.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        try:
            assert gate.came.wait(WAIT_SECONDS)
            wait_until(lambda: rig.job(job).items_done == 5, "what was answered is written down")
            assert rig.job(job).state == "running"
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        gate.open()
        assert rig.run_to_end(job).error == "10 instances stored"
    assert times_sent(acceptor.stored) == {**dict.fromkeys(range(10), 1), 5: 2}


OFTEN = StoreOptions(turn_seconds=0.05, back_off_seconds=0.01, write_seconds=0.02)
"""Looks for others all the time."""


@pytest.fixture
def others_seen() -> Iterator[threading.Event]:
    """Give an event that is set when a store job saw others wait for its peer."""
    seen = threading.Event()
    real = store_job._Turn._others_wait

    def look(turn: Any) -> bool:
        found = real(turn)
        if found:
            seen.set()
        return found

    with patch.object(store_job._Turn, "_others_wait", look):
        yield seen


def let_others_come(rig: StoreRig, job: Job, gate: Gate, seen: threading.Event) -> Job:
    """Put a job of another kind into the lane while a gate is closed; open it when the store job has seen that."""
    assert gate.came.wait(WAIT_SECONDS)
    assert not seen.is_set()
    with rig.database.write() as transaction:
        other = jobs.submit(transaction, JobRequest(kind=Bystander.name, arguments={}, lane=job.lane))
    assert seen.wait(WAIT_SECONDS)
    gate.open()
    return other


def test_others_get_their_turn_at_the_same_peer(rig: StoreRig, others_seen: threading.Event) -> None:
    gate = Gate(5)
    with scripted_acceptor(Script(answer=gate)) as acceptor, rig.running(OFTEN, others=[Bystander()]):
        job = rig.submit(peer_at(acceptor.port), STUDY)
        other = let_others_come(rig, job, gate, others_seen)
        assert rig.wait_for(job, "success", "failure").state == "success"
        assert rig.job(other).state == "success"
        assert (rig.job(other).finished_at or "") < (rig.job(job).finished_at or "")
    assert times_sent(acceptor.stored) == dict.fromkeys(range(10), 1)
    assert len(acceptor.requests) == 2


def test_who_gives_way_to_others_waits_all_the_same_for_a_peer_without_resources(
    rig: StoreRig, others_seen: threading.Event
) -> None:
    gate = Gate(5, 0xA700)
    with scripted_acceptor(Script(answer=gate)) as acceptor, rig.running(OFTEN, others=[Bystander()]):
        job = rig.submit(peer_at(acceptor.port), STUDY)
        other = let_others_come(rig, job, gate, others_seen)
        assert rig.wait_for(other, "success").state == "success"
        assert rig.wait_for(job, "retry", "success", "failure").state == "retry"
    assert times_sent(acceptor.stored) == dict.fromkeys(range(6), 1)


def test_a_write_that_fails_ends_the_run_and_another_goes_on(rig: StoreRig) -> None:
    real = store_job._Turn._write_down
    failures = [DatabaseUnavailable("it is busy")]

    def fail_once(turn: Any) -> None:
        if turn._news and failures:
            raise failures.pop()
        real(turn)

    with scripted_acceptor() as acceptor, patch.object(store_job._Turn, "_write_down", fail_once):
        job = rig.submit(peer_at(acceptor.port), STUDY)
        with rig.running():
            rig.wait_for(job, "retry", "success")
            rig.act(jobs.resubmit, job)
            assert rig.wait_for(job, "success", "failure").state == "success"
    assert set(times_sent(acceptor.stored)) == set(range(10))
