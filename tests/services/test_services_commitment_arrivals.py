"""What may still come: what was answered Success is never unknown, and what its peer may be sending is waited for."""

import threading

import pytest
from sqlalchemy import select

from stowkeeper.archive.archive import Archive, ArchiveOptions
from stowkeeper.database.schema import jobs
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment.commitment_values import CommitmentState, InstanceOutcome
from stowkeeper.services.commitment.options import CommitmentOptions
from support.archive_server import settle
from support.commitment_server import commitment_serving, seconds_ago
from support.commitment_user import named, using
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.raw_peer import Context, RawPeer

UID = "1.2.840.1"
RECEIVED = CommitmentState.RECEIVED
pytestmark = [pytest.mark.slow, pytest.mark.peer("pynetdicom")]


@pytest.fixture
def user():
    with using() as made:
        yield made


@pytest.fixture
def server(tmp_path, user):
    with commitment_serving(tmp_path / "archive", user.peer()) as running:
        yield running


def test_what_was_answered_success_and_is_not_listed_yet_is_waited_for(server, user):
    with server.archive.finisher._finishing:  # so that the finisher gets nowhere
        server.store([make_instance(1)])
        assert user.ask(server.port, UID, named(1, 2)) == 0
        first = server.wait_for_job(UID, JobState.PENDING)
        server.wait(lambda: looked_again(server, first), "another look")
        server.hurry()
        server.wait(lambda: looked_again(server, first, 2), "another look")
        found = {one.sop_instance_uid: one.outcome for one in server.instances(UID)}
        assert found == {"1.2.3.1": InstanceOutcome.OPEN, "1.2.3.2": InstanceOutcome.FAILED}
        assert user.reports == []
    settle(server.archive)
    server.hurry()
    (report,) = user.wait_for_reports()
    assert (report.committed, report.failed) == (named(1), {named(2)[0]: 0x0112})


def looked_again(server, before, times=1):
    with server.database.read() as connection:
        job = job_rows.find(connection, before.job_id)
    return job is not None and job.attempts >= before.attempts + times and job.state is JobState.PENDING


def test_what_another_process_has_in_its_depot_is_waited_for(tmp_path, user):
    options = {"shared": True}
    with commitment_serving(tmp_path / "archive", user.peer(), archive_options=options) as server:
        other = Archive(
            server.archive.root,
            ArchiveOptions(shared=True, sync=False, slot_pool_size=4, worker_threads=2, reserve_size=0),
        )
        try:
            with other.finisher._finishing:
                done = threading.Event()
                instance = make_instance(1)
                incoming = other.intake.begin(
                    instance.arrival(), lambda _outcome: done.set(), class_accepted=True
                )
                incoming.write(memoryview(instance.data), None)
                incoming.commit()
                assert done.wait(30)
                assert user.ask(server.port, UID, named(1)) == 0
                first = server.wait_for_job(UID, JobState.PENDING)
                server.wait(lambda: looked_again(server, first), "another look")
                assert server.commitment(UID).state is RECEIVED
            assert other.finisher.wait_until_idle(30)
            server.hurry()
            assert user.wait_for_reports()[0].event_type == 1
        finally:
            other.close()


def test_what_cannot_be_listed_for_days_is_0110_at_last(tmp_path, user):
    options = CommitmentOptions(grace_seconds=0.0, report_days=1.0)
    with commitment_serving(tmp_path / "archive", user.peer(), options=options) as server:
        with server.archive.finisher._finishing:
            server.store([make_instance(1)])
            assert user.ask(server.port, UID, named(1)) == 0
            server.set_back(UID, requested_at="2020-01-01T00:00:00.000000Z")
            server.hurry()
            job = server.wait_for_job(UID, JobState.RETRY)
            assert "received and not listed yet" in job.error
            server.fail_often()
            server.hurry()
            (report,) = user.wait_for_reports()
        assert report.failed == {named(1)[0]: 0x0110}


def test_an_unknown_instance_is_waited_for_while_its_peer_may_send_it(tmp_path, user):
    options = CommitmentOptions(grace_seconds=3600.0)
    with commitment_serving(tmp_path / "archive", user.peer(), options=options) as server:
        with RawPeer(server.port) as sender:
            sender.associate(Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE), calling=b"SCANNER")
            assert user.ask(server.port, UID, named(1)) == 0
            old_enough(server)
            first = server.wait_for_job(UID, JobState.PENDING)
            server.wait(lambda: looked_again(server, first), "another look")
            assert server.commitment(UID).state is RECEIVED
            instance = make_instance(1)
            assert sender.store(instance.sop_instance_uid, instance.data).status == 0
            sender.release()
        settle(server.archive)
        server.hurry()
        assert user.wait_for_reports()[0].event_type == 1


def old_enough(server):
    """Let the request lie some seconds ago, so that who may still send matters."""
    server.set_back(UID, requested_at=seconds_ago(10))
    server.hurry()


@pytest.mark.parametrize("knows_open_associations", [True, False], ids=["own server", "ledger"])
@pytest.mark.parametrize("stores", [True, False], ids=["storage", "no storage"])
def test_an_open_association_counts_where_it_could_store(tmp_path, user, knows_open_associations, stores):
    """Who waits in an association of storage commitment alone is told at once."""
    options = CommitmentOptions(grace_seconds=3600.0)
    with commitment_serving(
        tmp_path / "archive",
        user.peer(),
        options=options,
        knows_open_associations=knows_open_associations,
    ) as server:
        abstract_syntax = CT_IMAGE_STORAGE if stores else "1.2.840.10008.1.1"
        with RawPeer(server.port) as sender:
            sender.associate(Context(context_id=1, abstract_syntax=abstract_syntax), calling=b"ELSEWHERE")
            settle(server.archive)
            assert user.ask(server.port, UID, named(1)) == 0
            old_enough(server)
            if stores:
                first = server.wait_for_job(UID, JobState.PENDING)
                server.wait(lambda: looked_again(server, first), "another look")
                assert user.reports == []
                sender.release()
                sender.close()
                server.thread.wait_until_empty()
                settle(server.archive)
                server.hurry()
            assert user.wait_for_reports()[0].failed == {named(1)[0]: 0x0112}


def test_grace_ends_by_the_pauses_where_the_clock_was_set_back(tmp_path, user):
    options = CommitmentOptions(grace_seconds=3.0)
    with (
        commitment_serving(tmp_path / "archive", user.peer(), options=options) as server,
        RawPeer(server.port) as sender,
    ):
        sender.associate(Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE), calling=b"SCANNER")
        assert user.ask(server.port, UID, named(1)) == 0
        server.set_back(UID, requested_at="2199-01-01T00:00:00.000000Z")
        for _ in range(4):
            server.hurry()
            server.wait(lambda: server.commitment(UID).state is not RECEIVED or is_waiting(server), "a look")
        assert user.wait_for_reports()[0].failed == {named(1)[0]: 0x0112}


def is_waiting(server):
    with server.database.read() as connection:
        rows = connection.execute(select(jobs.c.state, jobs.c.due_at)).all()
    return all(row.state == "pending" and row.due_at > "2021" for row in rows)
