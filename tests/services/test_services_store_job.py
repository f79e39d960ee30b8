"""The job that sends instances of the archive to a peer: with a real engine, to acceptors that behave well and badly."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from stowkeeper.archive.versions import find_versions
from stowkeeper.database.schema import job_lanes
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.kind import Ending
from stowkeeper.net.tls_context import TLSOptions, acceptor_context, requestor_context
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.item_turn import ItemTurn
from stowkeeper.services.limits import (
    STORE_GIVE_UP_SECONDS,
    STORE_LOST_RUNS_MAX,
    STORE_RETRIES,
)
from stowkeeper.services.peers import Peer
from stowkeeper.services.store_job import StoreOptions
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from stowkeeper.upperlayer.pdu import REJECTED_CALLING_AE_TITLE
from support.archive_server import archive_serving, data_set_of, instances
from support.command_line import keep
from support.instances import CT_IMAGE_STORAGE, HANGING_PROTOCOL_STORAGE, make_instance
from support.job_engine_thread import wait_until
from support.peers import Orthanc, ReceivingPeer
from support.processes import free_port
from support.scripted_acceptor import Act, Answer, Received, Script, scripted_acceptor
from support.store_rig import STUDY, StoreRig, number_of, peer_at, store_rig, times_sent, uid_of
from support.tls_fixtures import TLSFiles

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[StoreRig]:
    """Give an archive with ten instances of one study."""
    with store_rig(tmp_path / "archive", *map(make_instance, range(10))) as made:
        yield made


# Well.


def test_a_study_is_sent_and_nothing_of_our_own_goes_out_with_it(rig: StoreRig) -> None:
    with scripted_acceptor() as acceptor:
        job = rig.submit(peer_at(acceptor.port, own_ae_title="ARCHIVE 2"), STUDY)
        ended = rig.run_to_end(job)
    assert (ended.state, ended.error) == ("success", "10 instances stored")
    assert (ended.items_done, ended.items_total) == (10, 10)
    assert {received.data_set for received in acceptor.stored} == {
        make_instance(number).data for number in range(10)
    }
    assert times_sent(acceptor.stored) == dict.fromkeys(range(10), 1)
    (request,) = acceptor.requests
    assert (request.calling_ae_title, request.called_ae_title) == ("ARCHIVE 2", "PACS")
    with rig.database.read() as connection:
        kept = find_versions(connection, [f"1.2.3.{number}" for number in range(10)])
    for received in acceptor.stored:
        (version,) = kept[uid_of(received)]
        everything = received.data_set + repr(received.message).encode()
        assert version.receipt_id.encode() not in everything
        assert RECEIPT_CREATOR_UID.encode() not in everything
        item = rig.item(job, number_of(received))
        assert (item.outcome, item.code, item.words) == ("stored", 0, f"receipt {version.receipt_id}")
        assert item.done_at is not None


def test_another_stowkeeper_keeps_what_is_sent(rig: StoreRig, tmp_path: Path) -> None:
    with archive_serving(tmp_path / "other") as server:
        job = rig.submit(peer_at(server.port), "1.2.3.1", "1.2.3.2")
        assert rig.run_to_end(job).state == "success"
        rows = instances(server.archive)
        assert {data_set_of(server.archive, row) for row in rows} == {
            make_instance(1).data,
            make_instance(2).data,
        }
        with rig.database.read() as connection:
            own = {some[0].receipt_id for some in find_versions(connection, ["1.2.3.1", "1.2.3.2"]).values()}
        content = [Path(server.archive.path_of(row["path"])).read_bytes() for row in rows]
        assert not any(receipt_id.encode() in one for receipt_id in own for one in content)


def test_more_than_a_portion_is_sent(rig: StoreRig) -> None:
    with scripted_acceptor() as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        options = StoreOptions(portion=3, back_off_seconds=0.01, write_seconds=0.02)
        assert rig.run_to_end(job, options=options).error == "10 instances stored"
    assert times_sent(acceptor.stored) == dict.fromkeys(range(10), 1)
    assert len(acceptor.requests) == 4


def test_a_warning_is_an_acceptance_and_is_told(rig: StoreRig) -> None:
    with scripted_acceptor(Script(answer=lambda _: 0xB000)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), "1.2.3.1")
        assert rig.run_to_end(job).error == "1 instance stored"
    item = rig.item(job, 1)
    assert (item.outcome, item.code) == ("stored", 0xB000)
    assert item.words.endswith("; B000H Warning: coercion of data elements")


def test_a_peer_that_nobody_defined_is_sent_to(rig: StoreRig) -> None:
    with scripted_acceptor() as acceptor:
        job = rig.submit(peer_at(acceptor.port, name=""), "1.2.3.1")
        assert rig.run_to_end(job).state == "success"
    assert job.peer == ""
    assert job.lane == f"peer:PACS@127.0.0.1:{acceptor.port}"


@pytest.mark.peer("openssl")
def test_a_peer_with_tls_is_sent_to_over_tls(rig: StoreRig, tls_files: TLSFiles, tmp_path: Path) -> None:
    files = {"ca_files": (tls_files.authority.certificate,)}
    server = acceptor_context(
        TLSOptions(certificate_file=tls_files.server.certificate, key_file=tls_files.server.key, **files)
    )
    client = requestor_context(
        TLSOptions(certificate_file=tls_files.client.certificate, key_file=tls_files.client.key, **files)
    )
    with archive_serving(tmp_path / "other", tls=server) as listening:
        job = rig.submit(peer_at(listening.port, tls=True), "1.2.3.1")
        with rig.running(own=OwnSide(ae_title="STOWKEEPER", tls=lambda: client)):
            assert rig.wait_for(job, "success", "failure").state == "success"
        assert len(instances(listening.archive)) == 1


# What the peer refuses for good, and for now.


def test_what_the_peer_refuses_has_failed_with_its_words(rig: StoreRig, tmp_path: Path) -> None:
    keep(rig.folder, make_instance(11, sop_class_uid=HANGING_PROTOCOL_STORAGE))

    def answer(received: Received) -> Answer:
        refused = {3: 0xA900, 5: 0x0124}
        return refused.get(number_of(received), 0x0000)

    policy = AcceptancePolicy(accepts_abstract_syntax=lambda uid: uid == CT_IMAGE_STORAGE)
    with scripted_acceptor(Script(answer=answer, policy=policy)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY, "1.2.3.11")
        ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert ended.error == (
        "3 of 11 instances were not stored: 0124H Refused: not authorized (1); A900H Error: data set does not match SOP"
        " class (1); the peer does not accept Hanging Protocol Storage (1)"
    )
    assert ended.items_done == 11
    assert (rig.item(job, 3).outcome, rig.item(job, 3).code) == ("failed", 0xA900)
    assert rig.item(job, 3).words == "A900H Error: data set does not match SOP class"
    assert (rig.item(job, 11).outcome, rig.item(job, 11).code) == ("failed", None)
    assert times_sent(acceptor.stored) == dict.fromkeys(range(10), 1)


def test_a_failed_job_that_is_submitted_again_sends_what_failed(rig: StoreRig) -> None:
    refused = {3, 5}

    def answer(received: Received) -> Answer:
        return 0xA900 if number_of(received) in refused else 0x0000

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        assert rig.run_to_end(job).state == "failure"
        refused.remove(3)
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).error.startswith("1 of 10 instances was not stored")
        refused.clear()
        rig.act(jobs.resubmit, job)
        ended = rig.run_to_end(job)
    assert (ended.state, ended.items_done) == ("success", 10)
    assert times_sent(acceptor.stored) == {**dict.fromkeys(range(10), 1), 3: 2, 5: 3}


def test_a_run_that_is_stopped_at_its_end_has_nothing_sent_again(
    rig: StoreRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, is_at_its_end = ItemTurn._end, threading.Event()

    def end_when_stopped(turn: ItemTurn, stored: int, failed: int) -> Ending:
        ending = end(turn, stored, failed)
        is_at_its_end.set()
        assert turn._run.stopping.wait(30)
        return ending

    with scripted_acceptor(Script(answer=lambda got: 0xA900 if number_of(got) == 3 else 0x0000)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        with monkeypatch.context() as planted:
            planted.setattr(ItemTurn, "_end", end_when_stopped)
            with rig.running():
                assert is_at_its_end.wait(30)
        assert rig.job(job).state == "pending"
        ended = rig.run_to_end(job)
        assert ended.state == "failure"
        assert (
            ended.error
            == "1 of 10 instances was not stored: A900H Error: data set does not match SOP class (1)"
        )
        assert times_sent(acceptor.stored) == dict.fromkeys(range(10), 1)
        rig.act(jobs.resubmit, job)
        rig.run_to_end(job)
    assert times_sent(acceptor.stored) == {**dict.fromkeys(range(10), 1), 3: 2}


@pytest.mark.parametrize("status", [0xA700, 0xA7FF])
def test_a_peer_out_of_resources_is_left_alone_and_then_gets_the_rest(rig: StoreRig, status: int) -> None:
    has_room = threading.Event()

    def answer(received: Received) -> Answer:
        return 0x0000 if has_room.is_set() or number_of(received) < 4 else status

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        waiting = rig.run_to_end(job, "retry", "failure")
        assert waiting.state == "retry"
        assert waiting.error == f"6 instances were not stored yet: {status:04X}H Refused: out of resources"
        assert waiting.items_done == 4
        assert waiting.failures == 1
        assert times_sent(acceptor.stored) == dict.fromkeys(range(5), 1)  # no further one was tried
        item = rig.item(job, 4)
        assert (item.outcome, item.code, item.done_at) == ("", status, None)
        with rig.database.read() as connection:  # a report would reach it
            assert connection.execute(select(job_lanes)).all() == []
        has_room.set()
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).error == "10 instances stored"
    assert times_sent(acceptor.stored) == {**dict.fromkeys(range(10), 1), 4: 2}


def test_a_resource_limitation_is_for_now_too(rig: StoreRig) -> None:
    with scripted_acceptor(Script(answer=lambda _: 0x0213)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), "1.2.3.1")
        assert rig.run_to_end(job, "retry", "failure").state == "retry"


def test_an_association_that_is_lost_once_loses_nothing(rig: StoreRig) -> None:
    aborted = threading.Event()

    def answer(received: Received) -> Answer:
        if number_of(received) == 4 and not aborted.is_set():
            aborted.set()
            return Act.ABORT
        return 0x0000

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        assert rig.run_to_end(job).state == "success"
    assert times_sent(acceptor.stored) == {**dict.fromkeys(range(10), 1), 4: 2}


def test_an_instance_at_which_the_peer_always_breaks_off_fails_alone(rig: StoreRig) -> None:
    with scripted_acceptor(
        Script(answer=lambda got: Act.ABORT if number_of(got) == 4 else 0x0000)
    ) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        for run in range(1, STORE_LOST_RUNS_MAX):
            waiting = rig.run_to_end(job, "retry", "failure")
            assert (waiting.state, waiting.items_done) == ("retry", 9)
            assert waiting.error.startswith("1 instance was not stored yet: no answer: PACS@")
            assert waiting.checkpoint["lost"] == {"4": run}
            rig.act(jobs.resubmit, job)
        ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert ended.error.startswith("1 of 10 instances was not stored: no answer: PACS@")
    assert rig.item(job, 4).words.endswith("It was so however often it was sent.")
    assert times_sent(acceptor.stored) == {
        **dict.fromkeys(range(10), 1),
        4: STORE_LOST_RUNS_MAX * (STORE_RETRIES + 1),
    }


@pytest.mark.parametrize("uid", [STUDY, "1.2.3.4"])
def test_a_peer_that_breaks_off_at_everything_makes_nothing_fail(rig: StoreRig, uid: str) -> None:
    with scripted_acceptor(Script(answer=lambda _: Act.ABORT)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), uid)
        for _ in range(STORE_LOST_RUNS_MAX + 1):
            waiting = rig.run_to_end(job, "retry", "failure")
            assert (waiting.state, waiting.items_done) == ("retry", 0)
            assert "lost" not in waiting.checkpoint
            rig.act(jobs.resubmit, job)


def test_a_peer_that_is_not_there_holds_its_lane_up_and_is_tried_again(rig: StoreRig) -> None:
    port = free_port()
    job = rig.submit(peer_at(port), STUDY)
    waiting = rig.run_to_end(job, "retry", "failure")
    assert waiting.state == "retry"
    assert waiting.error == f"127.0.0.1:{port} cannot be reached: nothing listens on that port."
    assert set(rig.outcomes(job).values()) == {""}
    with rig.database.read() as connection:
        assert [row.lane for row in connection.execute(select(job_lanes))] == ["peer:pacs"]


def test_a_peer_that_never_answers_holds_its_lane_up(rig: StoreRig) -> None:
    with scripted_acceptor(Script(on_request=lambda _: Act.SILENCE)) as acceptor:
        job = rig.submit(peer_at(acceptor.port, connect_seconds=0.3), STUDY)
        waiting = rig.run_to_end(job, "retry", "failure")
    assert waiting.state == "retry"
    assert "it did not answer the association request in time" in waiting.error
    with rig.database.read() as connection:
        assert [row.lane for row in connection.execute(select(job_lanes))] == ["peer:pacs"]


def test_a_peer_that_rejects_is_tried_again_and_holds_nothing_up(rig: StoreRig) -> None:
    with scripted_acceptor(Script(on_request=lambda _: REJECTED_CALLING_AE_TITLE)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        waiting = rig.run_to_end(job, "retry", "failure")
    assert waiting.state == "retry"
    assert "it does not know the calling AE title" in waiting.error
    with rig.database.read() as connection:
        assert connection.execute(select(job_lanes)).all() == []


def test_sending_is_given_up_after_its_time_which_begins_anew_when_it_is_submitted_again(
    rig: StoreRig,
) -> None:
    with scripted_acceptor(Script(answer=lambda got: 0x0000 if number_of(got) < 2 else 0xA700)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY)
        rig.submitted_before(job, STORE_GIVE_UP_SECONDS - 600)
        assert rig.run_to_end(job, "retry", "failure").state == "retry"
        rig.submitted_before(job, STORE_GIVE_UP_SECONDS + 600)
        rig.act(jobs.resubmit, job)
        ended = rig.run_to_end(job, "retry", "failure")
        assert ended.state == "failure"
        assert ended.error.startswith("8 of 10 instances were not stored: ")
        assert "given up: 8 instances were not stored yet: A700H Refused: out of resources" in ended.error
        assert Counter(rig.outcomes(job).values()) == {"stored": 2, "failed": 8}
        assert ended.items_done == 10
        assert rig.item(job, 2).words == "A700H Refused: out of resources"
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job, "retry", "failure").state == "retry"


# Peers that are gone.


def test_a_peer_that_was_removed_ends_the_job_with_words(rig: StoreRig) -> None:
    job = rig.submit(peer_at(1), STUDY)
    rig.book.discard("pacs", "tester")
    ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert ended.error.startswith("there is no peer pacs any more")
    with scripted_acceptor() as acceptor:
        rig.book.save(peer_at(acceptor.port), "tester")
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).state == "success"


def test_a_peer_that_nobody_can_call_any_more_ends_the_job_with_words(rig: StoreRig) -> None:
    job = rig.submit(peer_at(1), STUDY)
    rig.book.save(Peer(name="pacs", ae_title="PACS"), "tester")
    assert "it needs ae_title, host and port" in rig.run_to_end(job).error


def test_tls_that_cannot_be_set_up_is_tried_again(rig: StoreRig) -> None:
    def broken() -> Any:
        raise TLSSetupError(TLSFault.KEY, "server.key", "server.key cannot be read.")

    job = rig.submit(peer_at(1, tls=True), STUDY)
    with rig.running(own=OwnSide(ae_title="X", tls=broken)):
        waiting = rig.wait_for(job, "retry", "failure")
    assert (waiting.state, waiting.error) == (
        "retry",
        "PACS@127.0.0.1:1: TLS cannot be set up here: server.key cannot be read.",
    )


# Real peers.


@pytest.mark.slow
@pytest.mark.peer("storescp")
def test_dcmtk_gets_a_study_byte_for_byte(rig: StoreRig, storescp: ReceivingPeer) -> None:
    job = rig.submit(peer_at(storescp.port, ae_title=storescp.ae_title), STUDY)
    assert rig.run_to_end(job).error == "10 instances stored"
    kept = [path.read_bytes() for path in storescp.stored_files()]
    assert len(kept) == 10
    for number in range(10):
        (content,) = [one for one in kept if one.endswith(make_instance(number).data)]
        assert RECEIPT_CREATOR_UID.encode() not in content


@pytest.mark.slow
@pytest.mark.peer("pynetdicom")
def test_pynetdicom_gets_a_study(rig: StoreRig, pynetdicom_receiver: ReceivingPeer) -> None:
    job = rig.submit(peer_at(pynetdicom_receiver.port, ae_title="PYNETDICOM"), STUDY)
    assert rig.run_to_end(job).error == "10 instances stored"
    assert len(pynetdicom_receiver.stored_files()) == 10


@pytest.mark.slow
@pytest.mark.peer("Orthanc")
def test_orthanc_gets_a_study(rig: StoreRig, orthanc: Orthanc) -> None:
    job = rig.submit(peer_at(orthanc.port, ae_title="ORTHANC"), STUDY)
    assert rig.run_to_end(job).error == "10 instances stored"
    assert len(orthanc.request("GET", "/instances")) == 10


@pytest.mark.slow
@pytest.mark.peer("storescp")
def test_a_peer_that_is_killed_and_started_again_gets_the_rest(
    rig: StoreRig, start_storescp: Callable[..., ReceivingPeer]
) -> None:
    keep(rig.folder, *map(make_instance, range(10, 120)))
    peer = start_storescp("+B", "+xa", environment={"TCP_NODELAY": "1"})
    job = rig.submit(peer_at(peer.port, ae_title=peer.ae_title), STUDY)
    with rig.running():
        wait_until(lambda: rig.job(job).items_done > 10, "the first are there")
        peer.program.kill()
        assert rig.wait_for(job, "retry", "success").state == "retry"
        again = start_storescp("+B", "+xa", environment={"TCP_NODELAY": "1"})
        rig.book.save(peer_at(again.port, ae_title=again.ae_title), "tester")
        rig.act(jobs.resubmit, job)
        assert rig.wait_for(job, "success", "failure").error == "120 instances stored"
    assert len(again.stored_files()) < 110
