"""SIGKILL at every step of request, check and report: the peer is told exactly what is true, and never two different things.

A first run without a fault tells the steps; then one server after another kills itself at one of them, and a new one starts
on what is left. The peer does what a modality does: it asks again where it was not answered, and takes every report.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select, update

from stowkeeper.archive.holding import reasons_of
from stowkeeper.archive.versions import find_versions
from stowkeeper.database.schema import commitments, job_lanes, jobs
from stowkeeper.dicom.commitment_information import EventInformation, decode_event_information
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from stowkeeper.services.commitment.limits import CHECK_PORTION
from support.commitment_user import named
from support.crash_checks import looking, until
from support.faulty_commitment_server import PEER_PORT, CommitmentNursery
from support.faulty_server import ChildServer, Order, Step, telling_steps
from support.instances import make_instance
from support.raw_commitment import action_data, ask, push_model_context
from support.raw_peer import PeerClosed, RawPeer
from support.scripted_acceptor import Acceptor, Script, scripted_acceptor

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the nursery forks")]

UID = "1.2.840.1"
WHOLE, DAMAGED, UNKNOWN = 1, 2, 3
NUMBERS = (WHOLE, DAMAGED, UNKNOWN)
TRUTH = ({WHOLE}, {DAMAGED: 0x0110, UNKNOWN: 0x0112})
LATE = "2020-01-01T00:00:00.000000Z"
PARTS = 2
OCCURRENCES_MAX = 12
REACHED_SHARE_MIN = 0.4
"""Threads interleave as they like: not each step of the first run comes in each other one."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[CommitmentNursery]:
    with CommitmentNursery() as made:
        yield made


def start(
    nursery: CommitmentNursery, place: Path, acceptor: Acceptor, name: str, **more: object
) -> ChildServer:
    """Start a server on the archive in a place."""
    return nursery.start(
        Order(
            archive=str(place / "archive"),
            log=str(place / f"{name}.log"),
            settings={PEER_PORT: str(acceptor.port)},
            **more,  # type: ignore[arg-type]  # handed on as they are
        )
    )


def stop(server: ChildServer) -> None:
    """Stop a server in order."""
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log_text()


def flip(archive: Path, number: int) -> None:
    """Flip a bit of an instance's file."""
    (path,) = archive.glob(f"objects/*/*/1.2.3.{number}_*.dcm")
    content = bytearray(path.read_bytes())
    content[-3] ^= 8
    path.write_bytes(content)


@pytest.fixture(scope="module")
def template(nursery: CommitmentNursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an archive with an instance that is whole and one that is damaged."""
    place = tmp_path_factory.mktemp("template")
    with scripted_acceptor() as acceptor:
        server = start(nursery, place, acceptor, "template")
        with RawPeer(server.port) as peer:
            peer.associate(calling=b"SCANNER")
            for number in (WHOLE, DAMAGED):
                instance = make_instance(number)
                assert peer.store(instance.sop_instance_uid, instance.data).status == 0
            peer.release()
        stop(server)
    flip(place / "archive", DAMAGED)
    return place / "archive"


@pytest.fixture(scope="module")
def late_template(
    nursery: CommitmentNursery, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make an archive in which a report waits for its next try, its check long ago, and a file went bad since."""
    place = tmp_path_factory.mktemp("late")
    shutil.copytree(template, place / "archive")
    with scripted_acceptor(Script(on_request=lambda _n: None)) as acceptor:
        port = acceptor.port
    # Nobody listens there any more.
    server = nursery.start(
        Order(archive=str(place / "archive"), log=str(place / "log"), settings={PEER_PORT: str(port)})
    )
    assert asked(server.port, (WHOLE, DAMAGED, UNKNOWN)) == 0
    with looking(place / "archive") as view:
        until(lambda: _state_of_job(view) == "retry")
    stop(server)
    return place / "archive"


def _state_of_job(view: object) -> str | None:
    with view.database.read() as connection:  # type: ignore[attr-defined]  # an ArchiveView
        return connection.execute(select(jobs.c.state)).scalar()


def asked(port: int, numbers: tuple[int, ...], uid: str = UID) -> int:
    """Ask for commitment, and return the status; -1 where there was no answer."""
    with suppress(PeerClosed, ConnectionError, TimeoutError, AssertionError), RawPeer(port) as peer:
        peer.associate(push_model_context(), calling=b"SCANNER")
        return ask(peer, action_data(uid, named(*numbers))).status
    return -1


def told(acceptor: Acceptor) -> list[tuple[set[int], dict[int, int]]]:
    """Return every report that came whole: what is committed, and the reasons of the others."""
    found = [decode_event_information(one.data_set, one.context.transfer_syntax) for one in acceptor.received]
    assert {one.transaction_uid for one in found} <= {UID}
    return [_plain(one) for one in found]


def _plain(report: EventInformation) -> tuple[set[int], dict[int, int]]:
    committed = {_number(one.sop_instance_uid) for one in report.committed}
    return committed, {_number(one.reference.sop_instance_uid): one.reason for one in report.failed}


def _number(uid: str) -> int:
    return int(uid.rpartition(".")[2])


def until_reported(archive: Path, server: ChildServer | None = None) -> None:
    """Wait until the transaction is reported, and its job over; or until a server has ended, if one is given."""

    def is_over() -> bool:
        with view.database.read() as connection:
            found = rows.find(connection, CommitmentRole.PROVIDER, UID)
            states = set(connection.execute(select(jobs.c.state)).scalars())
        return found is not None and found.state is CommitmentState.REPORTED and states == {"success"}

    with looking(archive) as view:
        until(lambda: (server is not None and server.ended()) or is_over())


def check_truth(archive: Path, acceptor: Acceptor) -> None:
    """Check that the peer heard the truth, once or several times, and that rows and holds agree with it."""
    reports = told(acceptor)
    assert reports, "the peer was told nothing"
    assert all(report == TRUTH for report in reports), reports
    with looking(archive) as view, view.database.read() as connection:
        found = rows.find(connection, CommitmentRole.PROVIDER, UID)
        assert found is not None
        assert rows.duplicates_of(connection, found.commitment_key) == []
        outcomes = [one.outcome for one in rows.instances_of(connection, found.commitment_key)]
        assert outcomes == ["committed", "failed", "failed"]
        versions = find_versions(connection, ["1.2.3.1", "1.2.3.2"])
        keys = {uid: [one.version_key for one in each] for uid, each in versions.items()}
        assert reasons_of(connection, keys["1.2.3.1"]) != {}
        assert reasons_of(connection, keys["1.2.3.2"]) == {}
        sent = [one for one in rows.reports_of(connection, found.commitment_key) if one.status == 0]
        assert len(sent) == 1


def run_request(
    nursery: CommitmentNursery, template: Path, place: Path, step: Step | None, *, watch: str = ""
) -> bool:
    """Ask a server that dies at a step, then another one; tell whether the step came."""
    archive = place / "archive"
    shutil.copytree(template, archive)
    with scripted_acceptor() as acceptor:
        server = start(nursery, place, acceptor, "first", kill_at=step, watch=watch)
        status = asked(server.port, NUMBERS)
        assert status in (0, -1)
        until_reported(archive, server)
        if not server.ended():
            server.signal(signal.SIGTERM)
        code = server.wait()
        assert code in (0, -signal.SIGKILL), server.log_text()
        again = start(nursery, place, acceptor, "second")
        if status == -1:
            assert asked(again.port, NUMBERS) == 0, "a modality asks again where it was not answered"
        until_reported(archive)
        check_truth(archive, acceptor)
        stop(again)
    return code != 0


def run_late(
    nursery: CommitmentNursery, template: Path, place: Path, step: Step | None, *, watch: str = ""
) -> bool:
    """Let a server that dies at a step look again and report late, then another one."""
    archive = place / "archive"
    shutil.copytree(template, archive)
    with looking(archive) as view, view.database.write() as transaction:
        transaction.execute(update(jobs).values(due_at=LATE))
        transaction.execute(update(commitments).values(checked_at=LATE))
        transaction.execute(job_lanes.delete())
    with scripted_acceptor() as acceptor:
        server = start(nursery, place, acceptor, "first", kill_at=step, watch=watch)
        until_reported(archive, server)
        if not server.ended():
            server.signal(signal.SIGTERM)
        code = server.wait()
        assert code in (0, -signal.SIGKILL), server.log_text()
        again = start(nursery, place, acceptor, "second")
        until_reported(archive)
        check_truth(archive, acceptor)
        stop(again)
    return code != 0


@pytest.fixture(scope="module")
def request_steps(
    nursery: CommitmentNursery, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Step]:
    """Return the steps of a request, its check and its report."""
    place = tmp_path_factory.mktemp("watched")
    assert not run_request(nursery, template, place, None, watch=str(place / "steps"))
    return telling_steps(place / "steps", OCCURRENCES_MAX)


def test_the_first_run_knows_the_whole_path(request_steps: list[Step]) -> None:
    commits = [step for step in request_steps if step.operation == "commit" and step.before]
    # The request; the job taken; damage; quarantine; the outcomes; the next step taken; about to send; sent; the end.
    assert len(commits) >= 8
    assert {step.operation for step in request_steps} >= {"commit", "link", "unlink"}


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_any_step_the_peer_is_told_the_truth_in_the_end(
    nursery: CommitmentNursery, template: Path, request_steps: list[Step], memory_path: Path, part: int
) -> None:
    check_all(nursery, run_request, template, request_steps[part::PARTS], memory_path)


def test_killed_at_any_step_of_a_late_look_the_peer_is_told_the_truth_in_the_end(
    nursery: CommitmentNursery, late_template: Path, memory_path: Path
) -> None:
    watched = memory_path / "watched"
    watched.mkdir()
    assert not run_late(nursery, late_template, watched, None, watch=str(watched / "steps"))
    steps = telling_steps(watched / "steps", OCCURRENCES_MAX)
    steps = [step for step in steps if step.operation == "commit"]
    assert len(steps) >= 10
    check_all(nursery, run_late, late_template, steps, memory_path)


def check_all(nursery, run, template, steps, memory_path) -> None:
    """Run once for each step."""
    reached = 0
    for number, step in enumerate(steps):
        place = memory_path / str(number)
        place.mkdir()
        try:
            reached += run(nursery, template, place, step)
        except BaseException as error:
            error.add_note(f"killed {step}")
            raise
        shutil.rmtree(place)
    assert reached >= REACHED_SHARE_MIN * len(steps)


def test_a_kill_between_portions_repeats_nothing_that_was_certain(
    nursery: CommitmentNursery, memory_path: Path
) -> None:
    """Several hundred unknown instances: what the first server wrote of them stays, with its time."""
    numbers = tuple(range(1, 3 * CHECK_PORTION + 1))
    between = 0
    for occurrence in range(3, 10):
        place = memory_path / str(occurrence)
        place.mkdir()
        step = Step(operation="commit", place="catalog", occurrence=occurrence)
        with scripted_acceptor() as acceptor:
            server = start(nursery, place, acceptor, "first", kill_at=step)
            status = asked(server.port, numbers)
            assert server.wait() == -signal.SIGKILL
            archive = place / "archive"
            before = _checked(archive)
            between += 0 < len(before) < len(numbers)
            again = start(nursery, place, acceptor, "second")
            if status == -1:
                assert asked(again.port, numbers) == 0
            until_reported(archive)
            after = _checked(archive)
            assert {position: after[position] for position in before} == before
            assert {_frozen(report) for report in told(acceptor)} == {
                (frozenset(), frozenset((number, 0x0112) for number in numbers))
            }
            stop(again)
    assert between  # twice as a rule; where the machine is busy, other commits come in between


def _frozen(report: tuple[set[int], dict[int, int]]) -> tuple[frozenset[int], frozenset[tuple[int, int]]]:
    return frozenset(report[0]), frozenset(report[1].items())


def _checked(archive: Path) -> dict[int, str]:
    with looking(archive) as view, view.database.read() as connection:
        found = rows.find(connection, CommitmentRole.PROVIDER, UID)
        if found is None:
            return {}
        instances = rows.instances_of(connection, found.commitment_key, limit=10_000)
    return {one.position: one.checked_at for one in instances if one.checked_at is not None}
