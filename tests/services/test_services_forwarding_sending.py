"""Forwards from the rows to their destinations: with a real engine, to acceptors that behave well and badly."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stowkeeper.archive import catalog
from stowkeeper.archive.audit import list_audit
from stowkeeper.jobs import rows as jobs
from stowkeeper.services.forwarding import queueing
from stowkeeper.services.forwarding.rows import sent_to
from stowkeeper.services.store_job import StoreOptions
from stowkeeper.services.store_submission import submit_store
from support.forwarding_rig import ForwardingRig, a_peer, forwarding_rig, rule
from support.instances import make_instance
from support.job_engine_thread import wait_until
from support.processes import free_port
from support.scripted_acceptor import Script, scripted_acceptor
from support.scripted_dicomweb import Reply, Request, module, scripted_server
from support.scripted_dicomweb import Script as WebScript
from support.store_rig import QUICK, Gate, number_of, times_sent
from support.stow_job_rig import origin_server

pytestmark = pytest.mark.slow

ALL = rule("all", "PACS")
AT_ONCE = StoreOptions(back_off_seconds=0.01, write_seconds=0.0)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ForwardingRig]:
    with forwarding_rig(tmp_path) as made:
        yield made


def is_over(rig: ForwardingRig) -> bool:
    return bool(rig.jobs()) and all(job.is_finished for job in rig.jobs())


def test_what_a_destination_takes_is_sent_and_what_it_warns_of_is_told(rig: ForwardingRig) -> None:
    with scripted_acceptor(Script(answer=lambda one: 0xB000 if number_of(one) == 2 else 0)) as acceptor:
        rig.begin(ALL, peers=[a_peer("PACS", acceptor.port)])
        rig.keep(1, 2, 3)
        with rig.sending():
            rig.look_until(lambda: is_over(rig), "the job's end")
        assert {received.data_set for received in acceptor.stored} == {
            make_instance(number).data for number in (1, 2, 3)
        }
    assert rig.states() == [(1, "PACS", "sent"), (2, "PACS", "sent"), (3, "PACS", "sent")]
    assert [one.words for one in rig.forwards()] == ["", "B000H Warning: coercion of data elements", ""]
    assert {one.job_id for one in rig.forwards()} == {rig.jobs()[0].job_id}
    keys = [one.version_key for one in rig.forwards()]
    with rig.database.read() as connection:
        assert sent_to(connection, keys) == {key: {"PACS"} for key in keys}


def test_what_was_sent_leaves_no_more_than_one_job_behind_and_what_failed_stays(rig: ForwardingRig) -> None:
    with scripted_acceptor(Script(answer=lambda one: 0xA900 if number_of(one) == 2 else 0)) as acceptor:
        rig.begin(ALL, peers=[a_peer("PACS", acceptor.port)])
        with rig.sending():
            for number in range(1, 5):
                rig.keep(number)
                rig.look_until(
                    lambda wanted=number: is_over(rig) and len(rig.states()) == wanted, "the job's end"
                )
    assert [state for _, _, state in rig.states()] == ["sent", "failed", "sent", "sent"]
    assert sorted(job.state.value for job in rig.jobs()) == ["failure", "success"]


def test_an_origin_server_gets_what_rules_send_there_and_what_it_refuses_has_failed(
    rig: ForwardingRig,
) -> None:
    def refuses_the_second(request: Request) -> Reply:
        stored = [uid for uid in request.uids if uid != "1.2.3.2"]
        return Reply(202, module(*stored, failed={"1.2.3.2": 0x0122}))

    with scripted_server(WebScript(answer=refuses_the_second)) as server:
        rig.servers["cloud"] = origin_server(server.url)
        rig.begin(rule("all", "cloud"))
        rig.keep(1, 2, 3)
        with rig.sending():
            rig.look_until(lambda: is_over(rig), "the job's end")
            rig.look()
    assert [state for _, _, state in rig.states()] == ["sent", "failed", "sent"]
    assert rig.forwards()[1].words
    (job,) = rig.jobs()
    assert (job.kind, job.lane, job.created_by) == ("stow", "web:cloud", "forwarding")


def test_what_is_refused_has_failed_with_words_and_is_sent_when_it_is_tried_again(rig: ForwardingRig) -> None:
    refused = {2}
    with scripted_acceptor(Script(answer=lambda one: 0xA900 if number_of(one) in refused else 0)) as acceptor:
        rig.begin(ALL, peers=[a_peer("PACS", acceptor.port)])
        rig.keep(1, 2)
        with rig.sending():
            rig.look_until(lambda: is_over(rig), "the job's end")
            (failed,) = rig.forwards(states=["failed"])
            assert failed.sop_instance_uid == "1.2.3.2"
            assert failed.words == "A900H Error: data set does not match SOP class"
            rig.look()
            assert len(rig.jobs()) == 1  # nobody tries it again by himself
            refused.clear()
            assert rig.retry(destination="PACS") == 1
            rig.look_until(lambda: rig.states(states=["sent"])[1:], "both")
        assert times_sent(acceptor.stored) == {1: 1, 2: 2}
    with rig.database.read() as connection:
        (entry,) = [one for one in list_audit(connection) if one.action.startswith("forwards")]
    assert (entry.who, entry.action, entry.subject, entry.detail) == (
        "tester",
        "forwards retried",
        "PACS",
        "1 instance",
    )


def test_a_destination_that_is_away_holds_up_no_other_and_is_tried_again(rig: ForwardingRig) -> None:
    with scripted_acceptor() as acceptor, rig.sending():
        rig.begin(
            rule("all", "AWAY", "PACS"),
            peers=[a_peer("AWAY", free_port()), a_peer("PACS", acceptor.port)],
        )
        rig.keep(1, 2)
        rig.look_until(lambda: len(rig.states(destination="PACS", states=["sent"])) == 2, "PACS")
        rig.look_until(lambda: any(job.state == "retry" for job in rig.jobs()), "the back-off")
        rig.keep(3)
        rig.look_until(lambda: len(rig.states(destination="PACS", states=["sent"])) == 3, "PACS once more")
        # What came later waits for the job that tries, and not for one of its own.
        assert [state for _, _, state in rig.states(destination="AWAY")] == ["queued", "queued", "waiting"]
        (waiting,) = [job for job in rig.jobs() if job.peer == "AWAY"]
        with scripted_acceptor() as back:
            rig.book.save(a_peer("AWAY", back.port), "tester")
            rig.act(jobs.resubmit, waiting)  # in place of the back-off
            rig.look_until(lambda: len(rig.states(destination="AWAY", states=["sent"])) == 3, "AWAY")
            assert times_sent(back.stored) == {1: 1, 2: 1, 3: 1}


def test_one_for_which_there_is_never_room_holds_up_no_other(rig: ForwardingRig) -> None:
    with scripted_acceptor(Script(answer=lambda one: 0xA700 if number_of(one) == 1 else 0)) as acceptor:
        rig.begin(ALL, peers=[a_peer("PACS", acceptor.port)])
        rig.keep(1, 2, 3)
        goes_by_one_that_is_refused(rig)
    assert times_sent(acceptor.stored) == {1: 2, 2: 1, 3: 1, 4: 1}


def test_one_for_which_an_origin_server_never_has_room_holds_up_no_other(rig: ForwardingRig) -> None:
    def answer(request: Request) -> Reply:
        failed = {uid: 0xA700 for uid in request.uids if uid == "1.2.3.1"}
        return Reply(202 if failed else 200, module(*(set(request.uids) - set(failed)), failed=failed))

    with scripted_server(WebScript(answer=answer)) as server:
        rig.servers["PACS"] = origin_server(server.url, name="PACS", instances=1)
        rig.begin(ALL)
        rig.keep(1, 2, 3)
        goes_by_one_that_is_refused(rig)


def goes_by_one_that_is_refused(rig: ForwardingRig) -> None:
    """See that instances 2 and 3 are sent behind number 1, which is refused for now, and what comes then too."""

    def is_tried(times: int) -> bool:
        return any(job.state == "retry" and job.attempts == times for job in rig.jobs())

    with rig.sending():
        rig.look_until(lambda: is_tried(1), "the refusal")
        rig.act(jobs.resubmit, rig.jobs()[0])  # in place of the back-off
        rig.look_until(lambda: is_tried(2), "another one")
        assert rig.states() == [(1, "PACS", "queued"), (2, "PACS", "sent"), (3, "PACS", "sent")]
        rig.keep(4)
        rig.look_until(lambda: (4, "PACS", "sent") in rig.states(), "what came then")
    assert rig.states()[0] == (1, "PACS", "queued")


def test_a_destination_that_has_no_room_for_anything_is_asked_by_few_jobs(
    rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "JOBS_WITHOUT_ROOM_MAX", 2)
    with scripted_acceptor(Script(answer=lambda _: 0xA700)) as acceptor, rig.sending():
        rig.begin(ALL, peers=[a_peer("PACS", acceptor.port)])
        for number in (1, 2):
            rig.keep(number)
            rig.look_until(
                lambda wanted=number: [job.state for job in rig.jobs()] == ["retry"] * wanted, "the refusal"
            )
        rig.keep(3)
        rig.look()
    assert rig.states() == [(1, "PACS", "queued"), (2, "PACS", "queued"), (3, "PACS", "waiting")]


def test_what_a_job_gave_up_has_failed_and_the_job_can_be_tried_again_too(rig: ForwardingRig) -> None:
    rig.begin(ALL, peers=[a_peer("PACS", free_port())])
    rig.keep(1)
    with rig.sending(StoreOptions(give_up_seconds=0.0)):
        rig.look_until(lambda: is_over(rig), "the job's end")
        rig.look()
    (failed,) = rig.forwards()
    assert failed.state == "failed"
    assert failed.words.startswith("given up: ")
    with scripted_acceptor() as back, rig.sending():
        rig.book.save(a_peer("PACS", back.port), "tester")
        rig.act(jobs.resubmit, rig.jobs()[0])
        rig.look_until(lambda: rig.states() == [(1, "PACS", "sent")], "the second try")


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_what_a_job_left_that_was_cancelled_or_deleted_has_failed(rig: ForwardingRig, how: str) -> None:
    gate = Gate(2)
    with scripted_acceptor(Script(answer=gate)) as acceptor:
        rig.begin(ALL, peers=[a_peer("PACS", acceptor.port)])
        rig.keep(1, 2, 3)
        rig.look()
        (job,) = rig.jobs()
        with rig.sending(AT_ONCE):
            wait_until(gate.came.is_set, "the second instance")
            rig.act(jobs.cancel, job)
            wait_until(lambda: rig.jobs()[0].is_finished, "the cancellation")
            gate.open()
        assert rig.states()[0] == (1, "PACS", "sent")
        assert rig.states(states=["queued"])
        if how == "deleted":
            rig.act(jobs.delete, job)
        rig.look()
        words = {"cancelled": "cancelled by tester", "deleted": "its job was deleted before it was sent"}[how]
        assert [(one.state.value, one.words) for one in rig.forwards()[2:]] == [("failed", words)]
        assert not rig.states(states=["queued"])
        assert rig.retry() >= 1
        with rig.sending():
            rig.look_until(lambda: len(rig.states(states=["sent"])) == 3, "all of them")


def test_a_version_that_is_replaced_or_removed_while_a_job_has_it_is_not_sent(rig: ForwardingRig) -> None:
    with scripted_acceptor() as acceptor:
        rig.begin(ALL, peers=[a_peer("PACS", acceptor.port)])
        rig.keep(1, 2, 3)
        rig.look()
        rig.keep(1, content=1, sent_by="PACS")
        with rig.database.write() as transaction:
            catalog.mark_removing(transaction, [rig.forwards()[1].version_key], reason="")
        with rig.sending():
            rig.look_until(lambda: len(rig.states(states=["sent"])) == 2, "the third one and the new version")
            rig.look_until(lambda: is_over(rig), "the jobs' ends")
        assert times_sent(acceptor.stored) == {1: 1, 3: 1}
        assert make_instance(1, content=1).data in {received.data_set for received in acceptor.stored}
    assert [(one.state.value, one.words) for one in rig.forwards()] == [
        ("dropped", "another version of the instance became current"),
        ("dropped", "it is being removed"),
        ("sent", ""),
        ("sent", ""),
    ]
    # The second job removes the first one if that has ended by then.
    assert {job.state.value for job in rig.jobs()} == {"success"}


def test_an_unknown_peer_fails_what_its_job_has_and_the_rest_waits(rig: ForwardingRig) -> None:
    rig.begin(ALL, peers=[a_peer("PACS", free_port())])
    rig.keep(1)
    rig.look()
    rig.book.discard("PACS", "tester")
    rig.keep(2)
    with rig.sending(), capture_logs():
        rig.look_until(lambda: rig.states() == [(1, "PACS", "failed"), (2, "PACS", "waiting")], "the end")
    assert "there is no peer PACS any more" in rig.forwards()[0].words


def test_a_job_of_other_making_tells_no_forward(rig: ForwardingRig) -> None:
    with scripted_acceptor() as acceptor:
        peer = a_peer("PACS", acceptor.port)
        rig.begin(rule("all", "LATER"), peers=[peer])
        rig.keep(1)
        rig.look()
        with rig.database.write() as transaction:
            submit_store(transaction, peer, ["1.2.3.1"], created_by="tester")
        with rig.sending(QUICK):
            wait_until(lambda: is_over(rig), "the job's end")
        assert times_sent(acceptor.stored) == {1: 1}
    assert rig.states() == [(1, "LATER", "waiting")]


def test_a_job_that_is_tried_again_sends_nothing_that_was_dropped_or_that_another_job_has(
    rig: ForwardingRig,
) -> None:
    rig.begin(ALL, peers=[a_peer("PACS", free_port())])
    rig.keep(1, 2, 3)
    with rig.sending(StoreOptions(give_up_seconds=0.0)):
        rig.look_until(lambda: is_over(rig), "the job's end")
        rig.look()
    rig.drop(sop_instance_uid="1.2.3.1")
    rig.retry(sop_instance_uid="1.2.3.2")
    rig.act(jobs.resubmit, rig.jobs()[0])
    with scripted_acceptor() as back, rig.sending():
        rig.book.save(a_peer("PACS", back.port), "tester")
        rig.look_until(lambda: len(rig.states(states=["sent"])) == 2 and is_over(rig), "both jobs")
    assert times_sent(back.stored) == {2: 1, 3: 1}
    assert rig.states() == [(1, "PACS", "dropped"), (2, "PACS", "sent"), (3, "PACS", "sent")]
