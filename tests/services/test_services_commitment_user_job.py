"""The job that asks: with a real engine, and pynetdicom or a scripted acceptor as the peer that is asked."""

import threading
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.database.engine import Database, utc_now
from stowkeeper.dicom.commitment_information import (
    COMMITMENT_TRANSFER_SYNTAXES,
    decode_action_information,
    encode_event_information,
)
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL, STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE
from stowkeeper.dimse.fragmenter import chunk_pdus, command_pdu
from stowkeeper.dimse.message_types import NActionRequest, NEventReportRequest, NEventReportResponse, Request
from stowkeeper.dimse.messages import encode
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.states import JobState
from stowkeeper.jobs.times import later
from stowkeeper.services.commitment import request_job, rows
from stowkeeper.services.commitment.asking import AskTerms
from stowkeeper.services.commitment.asking_limits import (
    ASK_AGAIN_LATER_SECONDS,
    FIRST_LOOK_SECONDS,
    LATE_SECONDS,
    LOOK_AGAIN_SECONDS,
)
from stowkeeper.services.commitment.commitment_values import (
    Commitment,
    CommitmentFilter,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
)
from stowkeeper.services.commitment.reports_received import take_report
from stowkeeper.services.commitment.request_job import CommitmentRequestJob
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.peers import Peer
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from support.catalog_rows import open_database
from support.commitment_asking import ask_for, book_of, event, instances_in, references_to, state_of
from support.commitment_provider import Asked, Provider, commits_all_on_same, event_information, providing
from support.job_engine_thread import engine_running, job_of, wait_until
from support.scripted_acceptor import Acceptor, Act, Answer, Received, Script, scripted_acceptor

pytestmark = pytest.mark.slow

ASKED = references_to(1, 2, 3)
PUSH_MODEL_POLICY = AcceptancePolicy(
    accepts_abstract_syntax=lambda uid: uid == STORAGE_COMMITMENT_PUSH_MODEL,
    transfer_syntaxes=COMMITMENT_TRANSFER_SYNTAXES,
)


def no_tls() -> Any:
    raise AssertionError("no peer is called over TLS here")


OWN = OwnSide(ae_title="STOWKEEPER", tls=no_tls)


class Clock:
    """The time of the job's kind, which a test sets forward; rows keep their own."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> str:
        return later(utc_now(), self.ahead_seconds)


class Rig:
    """An engine with this one kind, over a database."""

    def __init__(self, folder: Path) -> None:
        self.database: Database = open_database(folder, sync=False)
        self.folder = folder
        self.clock = Clock()

    def engine(self, *peers: Peer) -> Any:
        """Run an engine for the length of a block."""
        book = book_of(self.database, *peers)
        return engine_running(
            self.database,
            self.folder,
            lambda: [CommitmentRequestJob(self.database, book, OWN, clock=self.clock)],
        )

    def ask(self, peer: Peer, **terms: Any) -> Commitment:
        return ask_for(self.database, ASKED, peer=peer, terms=AskTerms(**terms))

    def now(self, commitment: Commitment) -> Commitment:
        return state_of(self.database, commitment.transaction_uid)

    def wait_for_state(self, commitment: Commitment, state: str) -> Commitment:
        wait_until(lambda: self.now(commitment).state == state, f"state {state}")
        return self.now(commitment)

    def wait_for_job(self, commitment: Commitment, state: JobState) -> str:
        """Wait until its job is in a state; return its words."""
        wait_until(lambda: job_of(self.database, commitment.job_id).state is state, f"a job in {state}")
        return job_of(self.database, commitment.job_id).error

    def wait_until_it_sleeps(self, commitment: Commitment) -> None:
        def sleeps() -> bool:
            job = job_of(self.database, commitment.job_id)
            return (job.state, job.step) == (JobState.PENDING, "await")

        wait_until(sleeps, "a job that sleeps")

    def do(self, commitment: Commitment, action: Any) -> None:
        with self.database.write() as transaction:
            action(transaction, commitment.job_id, "a test")

    def all_asked(self) -> list[Commitment]:
        with self.database.read() as connection:
            return rows.list_commitments(connection, CommitmentFilter(role=CommitmentRole.USER))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def called(acceptor: Acceptor, **changes: Any) -> Peer:
    """Return a scripted acceptor as a peer."""
    values: dict[str, Any] = {"connect_seconds": 5.0, "answer_seconds": 5.0} | changes
    return Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=acceptor.port, **values)


def script(answer: Any, **changes: Any) -> Script:
    return Script(**({"answer": answer, "policy": PUSH_MODEL_POLICY} | changes))


def action_of(received: Received) -> Any:
    return decode_action_information(received.data_set, received.context.transfer_syntax)


# The report.


@pytest.mark.peer("pynetdicom")
def test_a_report_on_the_same_association_is_taken(rig: Rig) -> None:
    with providing(on_request=commits_all_on_same) as provider, rig.engine(provider.peer()):
        commitment = rig.ask(provider.peer(), keep_open_seconds=60.0)
        words = rig.wait_for_job(commitment, JobState.SUCCESS)
        assert provider.wait_for_statuses() == [0]
        (asked,) = provider.asked
        assert (asked.transaction_uid, asked.references) == (commitment.transaction_uid, ASKED)
        assert asked.proposed_roles == []
        # It is released at once, and not when the time to keep it is over.
        wait_until(lambda: asked.association.is_released, "the release")
    assert rig.now(commitment).state is CommitmentState.COMMITTED
    outcomes = {one.outcome for one in instances_in(rig.database, commitment.transaction_uid)}
    assert outcomes == {InstanceOutcome.COMMITTED}
    assert words == "all 3 instances are committed"


@pytest.mark.peer("pynetdicom")
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_the_peer_chooses_the_transfer_syntax(rig: Rig, syntax: str) -> None:
    options = {"on_request": commits_all_on_same, "transfer_syntaxes": [syntax], "answers_roles": True}
    with providing(**options) as provider, rig.engine(provider.peer()):
        rig.wait_for_state(rig.ask(provider.peer()), "committed")
        assert provider.wait_for_statuses() == [0]


@pytest.mark.peer("pynetdicom")
@pytest.mark.parametrize("is_committed", [True, False])
def test_one_instance_is_told_as_one(rig: Rig, *, is_committed: bool) -> None:
    def report(provider: Provider, asked: Asked) -> None:
        committed, failed = (asked.references, []) if is_committed else ([], asked.references)
        information = event_information(asked.transaction_uid, committed, failed)
        provider.report_on(asked.association, information, 1 if is_committed else 2)

    with providing(on_request=report) as provider, rig.engine(provider.peer()):
        commitment = ask_for(rig.database, references_to(1), peer=provider.peer())
        words = rig.wait_for_job(commitment, JobState.SUCCESS if is_committed else JobState.FAILURE)
        assert provider.wait_for_statuses() == [0]
    if is_committed:
        assert words == "its instance is committed"
    else:
        assert words.startswith("its instance is not committed: `stowkeeper commitments show")


@pytest.mark.peer("pynetdicom")
def test_a_report_of_failures_ends_the_job_with_words(rig: Rig) -> None:
    def report(provider: Provider, asked: Asked) -> None:
        information = event_information(asked.transaction_uid, asked.references[:1], asked.references[1:])
        provider.report_on(asked.association, information, 2)

    with providing(on_request=report) as provider, rig.engine(provider.peer()):
        commitment = rig.ask(provider.peer())
        words = rig.wait_for_job(commitment, JobState.FAILURE)
        assert provider.wait_for_statuses() == [0]
    assert rig.now(commitment).state is CommitmentState.PARTIAL
    assert words.startswith("2 of 3 instances are not committed")


@pytest.mark.peer("pynetdicom")
def test_a_foreign_report_on_our_association_is_refused(rig: Rig) -> None:
    def report(provider: Provider, asked: Asked) -> None:
        provider.report_on(asked.association, event_information("2.25.12345", asked.references), 1)
        provider.report_on(asked.association, event_information(theirs.transaction_uid, ASKED), 1)
        provider.report_on(asked.association, event_information(asked.transaction_uid, ASKED), 3)
        commits_all_on_same(provider, asked)

    other = Peer(name="other", ae_title="OTHER", host="127.0.0.1", port=9)
    theirs = rig.ask(other)
    with providing(on_request=report) as provider, rig.engine(provider.peer()):
        rig.wait_for_state(rig.ask(provider.peer()), "committed")
        assert provider.wait_for_statuses(4) == [0x0112, 0x0124, 0x0113, 0]
    assert rig.now(theirs).reported_at is None


def report_pdus(received: Received, own: NEventReportRequest, data: bytes) -> bytes:
    context_id = received.context.context_id
    pieces: list[Any] = [command_pdu(context_id, encode(own), 16384)]
    for header, view in chunk_pdus(context_id, data, 16384, is_last=True):
        pieces += (header, view)
    return b"".join(bytes(piece) for piece in pieces)


def own_report(message_id: int) -> NEventReportRequest:
    return NEventReportRequest(
        message_id=message_id,
        affected_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        affected_sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
        event_type_id=1,
        has_data_set=True,
    )


def test_a_report_that_overtakes_the_answer_is_taken(rig: Rig) -> None:
    def answer(received: Received) -> Answer:
        assert isinstance(received.message, Request)
        information = action_of(received)
        data = encode_event_information(
            event(information.transaction_uid, information.references), received.context.transfer_syntax
        )
        response = command_pdu(received.context.context_id, encode(received.message.respond(0)), 16384)
        return report_pdus(received, own_report(1), data) + bytes(response)

    with scripted_acceptor(script(answer)) as acceptor, rig.engine(called(acceptor)):
        commitment = rig.ask(called(acceptor))
        rig.wait_for_job(commitment, JobState.SUCCESS)
        wait_until(lambda: len(acceptor.received) == 2)
        response = acceptor.received[1].message
    assert isinstance(response, NEventReportResponse)
    assert (response.status, response.event_type_id) == (0, 1)
    assert rig.now(commitment).state is CommitmentState.COMMITTED


def test_the_answer_to_a_report_goes_out_before_the_release(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = threading.Event()
    answer_now, end_now = request_job.answer_event_report, request_job._end

    def answer_late(*arguments: Any) -> Any:
        response = answer_now(*arguments)
        assert ends.wait(30)
        return response

    async def end(*arguments: Any) -> None:
        ends.set()
        await end_now(*arguments)

    monkeypatch.setattr(request_job, "answer_event_report", answer_late)
    monkeypatch.setattr(request_job, "_end", end)

    def answer(received: Received) -> Answer:
        assert isinstance(received.message, Request)
        information = action_of(received)
        data = encode_event_information(
            event(information.transaction_uid, information.references), received.context.transfer_syntax
        )
        # The answer comes when the report is written down and not answered yet.
        report = report_pdus(received, own_report(1), data)
        connected = acceptor._sockets[-1]
        connected.sendall(report)
        uid = information.transaction_uid
        wait_until(lambda: state_of(rig.database, uid).reported_at is not None, "the report")
        return bytes(command_pdu(received.context.context_id, encode(received.message.respond(0)), 16384))

    with scripted_acceptor(script(answer)) as acceptor, rig.engine(called(acceptor)):
        rig.wait_for_job(rig.ask(called(acceptor)), JobState.SUCCESS)
        wait_until(lambda: len(acceptor.received) == 2, "the answer to the report")
        response = acceptor.received[1].message
    assert isinstance(response, NEventReportResponse)
    assert response.status == 0


def test_a_garbled_report_on_our_association_is_refused_and_the_next_one_taken(rig: Rig) -> None:
    def answer(received: Received) -> Answer:
        assert isinstance(received.message, Request)
        information = action_of(received)
        whole = encode_event_information(
            event(information.transaction_uid, information.references), received.context.transfer_syntax
        )
        response = command_pdu(received.context.context_id, encode(received.message.respond(0)), 16384)
        garbled = report_pdus(received, own_report(1), b"\xfe\xff" * 50)
        return bytes(response) + garbled + report_pdus(received, own_report(2), whole)

    with scripted_acceptor(script(answer)) as acceptor, rig.engine(called(acceptor)):
        rig.wait_for_job(rig.ask(called(acceptor)), JobState.SUCCESS)
        wait_until(lambda: len(acceptor.received) == 3)
        statuses = [one.message.status for one in acceptor.received[1:]]  # type: ignore[union-attr]  # responses
    assert statuses == [Status.INVALID_ARGUMENT_VALUE, Status.SUCCESS]


def test_a_report_that_comes_later_elsewhere_wakes_the_job(rig: Rig) -> None:
    with scripted_acceptor(script(lambda _received: 0)) as acceptor:
        peer = called(acceptor)
        with rig.engine(peer):
            commitment = rig.ask(peer, keep_open_seconds=0.0)
            rig.wait_until_it_sleeps(commitment)
            wait_until(lambda: acceptor.releases or not acceptor.problems)
            assert rig.now(commitment).state is CommitmentState.ACCEPTED
            status, _ = take_report(
                rig.database,
                "PACS",
                "127.0.0.1",
                1,
                event(commitment.transaction_uid, ASKED),
                book_of(rig.database, peer),
            )
            assert status == 0
            rig.wait_for_job(commitment, JobState.SUCCESS)


@pytest.mark.peer("pynetdicom")
@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_without_a_report_the_association_is_released_when_its_time_is_over(rig: Rig, seconds: float) -> None:
    with providing() as provider, rig.engine(provider.peer()):
        commitment = rig.ask(provider.peer(), keep_open_seconds=seconds)
        (asked,) = provider.wait_for_requests()
        wait_until(lambda: asked.association.is_released, "the release")
        rig.wait_until_it_sleeps(commitment)
    assert rig.now(commitment).state is CommitmentState.ACCEPTED


@pytest.mark.peer("pynetdicom")
def test_the_lane_is_free_while_an_association_is_kept(rig: Rig) -> None:
    with providing() as provider, rig.engine(provider.peer()):
        first = rig.ask(provider.peer(), keep_open_seconds=60.0)
        provider.wait_for_requests(1)
        rig.ask(provider.peer(), keep_open_seconds=60.0)
        asked = provider.wait_for_requests(2)
        rig.wait_until_it_sleeps(first)
        assert asked[0].association.is_established
    # The end of the engine ends what it kept open.
    wait_until(lambda: not any(one.association.is_alive() for one in asked))


def test_the_looks_come_ever_later_and_begin_anew_after_a_standstill(rig: Rig) -> None:
    with scripted_acceptor(script(lambda _received: 0)) as acceptor, rig.engine(called(acceptor)):
        commitment = rig.ask(called(acceptor), keep_open_seconds=0.0)

        def look_seconds() -> float:
            rig.wait_until_it_sleeps(commitment)
            return float(job_of(rig.database, commitment.job_id).checkpoint["look_seconds"])

        def look_now(late_seconds: float) -> None:
            attempts = job_of(rig.database, commitment.job_id).attempts
            with rig.database.write() as transaction:
                due_at = later(transaction.at, -late_seconds)
                transaction.connection.exec_driver_sql("UPDATE jobs SET due_at = ?", (due_at,))
            wait_until(lambda: job_of(rig.database, commitment.job_id).attempts > attempts, "a look")

        wait_until(lambda: look_seconds() >= 2 * FIRST_LOOK_SECONDS, "the second look")
        before = look_seconds()
        look_now(0.0)
        assert look_seconds() >= 2 * before
        look_now(LATE_SECONDS + 1)
        assert look_seconds() <= 2 * FIRST_LOOK_SECONDS < before * 2
        with rig.database.write() as transaction:
            transaction.connection.exec_driver_sql(
                "UPDATE jobs SET checkpoint = ?", (f'{{"look_seconds": {LOOK_AGAIN_SECONDS}}}',)
            )
        look_now(0.0)
        assert look_seconds() == LOOK_AGAIN_SECONDS


# Refusals.


@pytest.mark.parametrize("status", [0x0110, 0x0112, 0x0124, 0x0213, 0xC001, 0xFF00])
def test_a_refusal_is_the_end_of_the_transaction(rig: Rig, status: int) -> None:
    with scripted_acceptor(script(lambda _received: status)) as acceptor, rig.engine(called(acceptor)):
        commitment = rig.ask(called(acceptor))
        words = rig.wait_for_job(commitment, JobState.FAILURE)
        assert f"{status:04X}H" in words
        found = rig.now(commitment)
        assert (found.state, found.error) == (CommitmentState.REFUSED, words)
        # Tried again, it is not asked again: its UID is used up.
        rig.do(commitment, jobs.resubmit)
        wait_until(lambda: job_of(rig.database, commitment.job_id).attempts == 2)
        assert "asks again" in rig.wait_for_job(commitment, JobState.FAILURE)
        assert len(acceptor.received) == 1
    assert len(rig.all_asked()) == 1


def test_a_refusal_stands_whatever_becomes_of_the_association(rig: Rig) -> None:
    acceptors = script(lambda _received: 0x0110, answers_release=False)
    with scripted_acceptor(acceptors) as acceptor, rig.engine(called(acceptor, answer_seconds=0.3)):
        commitment = rig.ask(called(acceptor, answer_seconds=0.3))
        rig.wait_for_job(commitment, JobState.FAILURE)
    assert rig.now(commitment).state is CommitmentState.REFUSED


def test_a_refusal_for_want_of_resources_is_asked_again_later_where_that_is_wanted(rig: Rig) -> None:
    with scripted_acceptor(script(lambda _received: 0x0213)) as acceptor, rig.engine(called(acceptor)):
        commitment = rig.ask(called(acceptor), re_ask_times=2)
        words = rig.wait_for_job(commitment, JobState.FAILURE)
    again, first = rig.all_asked()
    assert again.replaces == first.commitment_key == commitment.commitment_key
    assert again.transaction_uid in words
    assert again.transaction_uid != first.transaction_uid
    job = job_of(rig.database, again.job_id)
    assert job.state is JobState.PENDING
    assert job.due_at > later(utc_now(), ASK_AGAIN_LATER_SECONDS / 2)
    assert job.arguments["terms"]["re_ask_times"] == 1


def test_a_peer_that_refuses_the_class_refuses_the_request(rig: Rig) -> None:
    refusing = Script(policy=AcceptancePolicy(accepts_abstract_syntax=lambda _uid: False))
    with scripted_acceptor(refusing) as acceptor, rig.engine(called(acceptor)):
        commitment = rig.ask(called(acceptor))
        words = rig.wait_for_job(commitment, JobState.FAILURE)
    assert "does not accept the Storage Commitment Push Model" in words
    assert rig.now(commitment).state is CommitmentState.REFUSED


# No answer.


@pytest.mark.parametrize(
    "act", [Act.ABORT, Act.CLOSE, Act.RELEASE, b"\x07garbage of a kind" * 10, Act.SILENCE]
)
def test_without_an_answer_the_same_request_goes_out_again(rig: Rig, act: Act | bytes) -> None:
    answers: list[Answer] = [act, 0]
    acting = script(lambda _received: answers.pop(0))
    with scripted_acceptor(acting) as acceptor, rig.engine(called(acceptor, answer_seconds=0.5)):
        commitment = rig.ask(called(acceptor, answer_seconds=0.5), keep_open_seconds=0.0)
        words = rig.wait_for_job(commitment, JobState.RETRY)
        found = rig.now(commitment)
        assert (found.state, found.error) == (CommitmentState.REQUESTED, words)
        assert words.startswith("PACS@127.0.0.1:")
        rig.do(commitment, jobs.resubmit)
        rig.wait_until_it_sleeps(commitment)
        found = rig.now(commitment)
        assert (found.state, found.error) == (CommitmentState.ACCEPTED, "")
        requests = [one for one in acceptor.received if isinstance(one.message, NActionRequest)]
        assert [action_of(one).transaction_uid for one in requests] == [commitment.transaction_uid] * 2
    assert len(rig.all_asked()) == 1


def test_a_peer_that_is_not_there_is_tried_again_and_blocks_its_lane(rig: Rig) -> None:
    dead = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=9, connect_seconds=2.0)
    with rig.engine(dead):
        first, second = rig.ask(dead), rig.ask(dead)
        rig.wait_for_job(first, JobState.RETRY)
        assert "127.0.0.1:9" in rig.now(first).error
    with rig.database.read() as connection:
        blocked = connection.exec_driver_sql("SELECT lane FROM job_lanes").scalars().all()
    assert blocked == ["peer:pacs"]
    assert job_of(rig.database, second.job_id).attempts == 0


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1"])
def test_an_association_that_is_rejected_or_goes_nowhere_is_no_refusal(rig: Rig, host: str) -> None:
    with scripted_acceptor(Script(on_request=lambda _number: Act.ABORT)) as acceptor:
        peer = Peer(
            name="pacs",
            ae_title="PACS",
            host=host,
            port=acceptor.port,
            connect_seconds=3.0,
            answer_seconds=3.0,
        )
        with rig.engine(peer):
            commitment = rig.ask(peer)
            rig.wait_for_job(commitment, JobState.RETRY)
    assert rig.now(commitment).state is CommitmentState.REQUESTED


# The end of patience.


def test_without_a_report_in_time_the_transaction_expires(rig: Rig) -> None:
    with scripted_acceptor(script(lambda _received: 0)) as acceptor, rig.engine(called(acceptor)):
        commitment = rig.ask(called(acceptor), keep_open_seconds=0.0, report_awaited_seconds=3600.0)
        rig.wait_until_it_sleeps(commitment)
        rig.clock.ahead_seconds = 3601.0
        with rig.database.write() as transaction:
            transaction.connection.exec_driver_sql("UPDATE jobs SET due_at = ?", (transaction.at,))
        words = rig.wait_for_job(commitment, JobState.FAILURE)
    found = rig.now(commitment)
    assert (found.state, found.reported_at) == (CommitmentState.EXPIRED, None)
    assert "no report came until" in words
    assert len(rig.all_asked()) == 1


def test_what_expired_is_asked_again_under_a_new_uid_as_often_as_wanted(rig: Rig) -> None:
    with scripted_acceptor(script(lambda _received: 0)) as acceptor, rig.engine(called(acceptor)):
        rig.ask(called(acceptor), keep_open_seconds=0.0, report_awaited_seconds=0.4, re_ask_times=2)
        wait_until(
            lambda: [one.state for one in rig.all_asked()] == [CommitmentState.EXPIRED] * 3, "three questions"
        )
        uids = [action_of(one).transaction_uid for one in acceptor.received]
        assert all(action_of(one).references == tuple(ASKED) for one in acceptor.received)
    third, second, first = rig.all_asked()
    assert uids == [first.transaction_uid, second.transaction_uid, third.transaction_uid]
    assert (first.replaces, second.replaces, third.replaces) == (
        None,
        first.commitment_key,
        second.commitment_key,
    )


def test_what_never_could_be_asked_expires_with_the_reason(rig: Rig) -> None:
    dead = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=9, connect_seconds=2.0)
    with rig.engine(dead):
        commitment = rig.ask(dead)
        rig.wait_for_job(commitment, JobState.RETRY)
        rig.clock.ahead_seconds = 8 * 24 * 3600.0
        rig.do(commitment, jobs.resubmit)
        words = rig.wait_for_job(commitment, JobState.FAILURE)
    assert "it could not be asked until" in words
    assert "127.0.0.1:9" in words


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_cancelled_job_cancels_its_transaction(rig: Rig, is_asked: bool) -> None:
    with scripted_acceptor(script(lambda _received: 0)) as acceptor:
        peer = called(acceptor) if is_asked else Peer(name="pacs", ae_title="P", host="127.0.0.1", port=9)
        with rig.engine(peer):
            commitment = rig.ask(peer, keep_open_seconds=0.0)
            if is_asked:
                rig.wait_until_it_sleeps(commitment)
            else:
                rig.wait_for_job(commitment, JobState.RETRY)
            rig.do(commitment, jobs.cancel)
            with rig.database.write() as transaction:  # what time would do: its lane is not blocked any more
                transaction.connection.exec_driver_sql("DELETE FROM job_lanes")
            rig.wait_for_job(commitment, JobState.CANCELLED)
    assert rig.now(commitment).state is CommitmentState.CANCELLED


def test_cancelling_what_was_reported_takes_nothing_back(rig: Rig) -> None:
    peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=9)
    commitment = rig.ask(peer)
    book = book_of(rig.database, peer)
    uid = commitment.transaction_uid
    assert take_report(rig.database, "PACS", "127.0.0.1", 1, event(uid, ASKED), book) == (0, "")
    rig.do(commitment, jobs.cancel)
    with rig.engine(peer):
        rig.wait_for_job(commitment, JobState.CANCELLED)
    assert rig.now(commitment).state is CommitmentState.COMMITTED


def test_who_is_asked_follows_the_peers_definition(rig: Rig) -> None:
    with scripted_acceptor(script(lambda _received: 0)) as acceptor:
        moved = called(acceptor)
        before = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=9, own_ae_title="ASKED_AS")
        with rig.engine(moved):
            rig.wait_until_it_sleeps(rig.ask(before, keep_open_seconds=0.0))
        (request,) = acceptor.requests
    assert (request.called_ae_title, request.calling_ae_title) == ("PACS", "ASKED_AS")


def test_a_peer_without_a_definition_is_asked_where_its_row_says(rig: Rig) -> None:
    with scripted_acceptor(script(lambda _received: 0)) as acceptor:
        nameless = Peer(name="", ae_title="PACS", host="127.0.0.1", port=acceptor.port)
        with rig.engine(Peer(name="other", ae_title="OTHER", host="127.0.0.1", port=9)):
            commitment = rig.ask(nameless, keep_open_seconds=0.0)
            rig.wait_until_it_sleeps(commitment)
        assert acceptor.requests[0].calling_ae_title == "STOWKEEPER"
    assert (commitment.peer, commitment.peer_address) == ("", f"127.0.0.1:{acceptor.port}")
