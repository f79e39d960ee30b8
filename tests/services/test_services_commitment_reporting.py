"""The report: how it goes out, what counts as delivered, and what is tried again."""

import time
from contextlib import ExitStack

import pytest
from sqlalchemy import select, update

from stowkeeper.database.schema import job_lanes, jobs
from stowkeeper.dicom.commitment_information import ActionInformation, Reference
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL
from stowkeeper.dimse.message_types import NEventReportRequest, NEventReportResponse
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment.acceptance import Asker, take
from stowkeeper.services.commitment.commitment_values import WAY_DIMSE, CommitmentState
from stowkeeper.services.commitment.options import CommitmentOptions
from stowkeeper.services.peers import Peer
from stowkeeper.upperlayer.items import Roles
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from stowkeeper.upperlayer.pdu import REJECTED_CALLED_AE_TITLE
from support.commitment_server import (
    UID,
    commitment_serving,
    dead_port,
    peer_at,
    seconds_ago,
    silent_port,
    told_of,
)
from support.commitment_user import named, using
from support.instances import CT_IMAGE_STORAGE
from support.processes import free_port
from support.raw_commitment import (
    N_ACTION_RSP,
    N_EVENT_REPORT_RQ,
    N_EVENT_REPORT_RSP,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    action_command,
    action_data,
    ask,
    event_response,
    push_model_context,
    send_action,
)
from support.raw_peer import (
    COMMAND,
    LAST,
    P_DATA,
    VERIFICATION,
    Context,
    RawPeer,
    command_set,
    p_data,
    pdu,
    pdv,
)
from support.scripted_acceptor import Act, Script, scripted_acceptor

pytestmark = pytest.mark.slow

REPORTED, CHECKED, UNDELIVERED = (
    CommitmentState.REPORTED,
    CommitmentState.CHECKED,
    CommitmentState.UNDELIVERED,
)
NO_GRACE = CommitmentOptions(grace_seconds=0.0)
LATE = "2020-01-01T00:00:00.000000Z"


# How it goes out


@pytest.mark.peer("pynetdicom")
def test_a_report_comes_from_whom_the_peer_had_called_and_in_the_scp_role(tmp_path):
    options = CommitmentOptions(grace_seconds=0.0, retrieve_ae_title="QR_SCP")
    with (
        using() as user,
        commitment_serving(tmp_path / "archive", user.peer(own_ae_title="ELSE"), options=options) as server,
    ):
        server.keep(1)
        assert user.ask(server.port, UID, named(1), called="MYSTORE") == 0
        (report,) = user.wait_for_reports()
        assert (report.calling_ae_title, report.called_ae_title) == ("MYSTORE", "SCANNER")
        assert report.proposed_roles == [(False, True)]
        assert not report.is_on_own_association
        assert report.retrieve_ae_title == "QR_SCP"
        assert report.elements == {"TransactionUID", "ReferencedSOPSequence", "RetrieveAETitle"}


@pytest.mark.peer("pynetdicom")
@pytest.mark.parametrize("roles", [(True, True), (False, True), None], ids=["both", "scp", "no item"])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_pynetdicom_takes_reports_whatever_role_item_it_answers_with(tmp_path, roles, syntax):
    with (
        using(roles=roles, transfer_syntaxes=[syntax]) as user,
        commitment_serving(tmp_path / "archive", user.peer()) as server,
    ):
        server.keep(1)
        assert user.ask(server.port, UID, named(1)) == 0
        assert user.wait_for_reports()[0].transfer_syntax == syntax
        server.wait_for_state(UID, REPORTED)


@pytest.mark.parametrize("answered", [Roles(scu=True, scp=False), Roles(scu=False, scp=False)])
def test_a_role_item_that_refuses_our_role_decides_nothing(tmp_path, answered):
    """Old peers answer by their own idea of who is who, and take the report all the same."""
    policy = AcceptancePolicy(roles={STORAGE_COMMITMENT_PUSH_MODEL: answered})
    with (
        scripted_acceptor(Script(policy=policy)) as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.request()
        server.wait_for_state(UID, REPORTED)


def test_a_peer_that_is_known_by_address_alone_is_called_as_it_called_itself(tmp_path):
    from ipaddress import ip_network

    with (
        scripted_acceptor() as acceptor,
        commitment_serving(
            tmp_path / "archive",
            peer_at(acceptor.port, ae_title=None, addresses=(ip_network("127.0.0.0/8"),)),
        ) as server,
    ):
        server.request(calling=b"ANYNAME")
        server.wait_for_state(UID, REPORTED)
        assert acceptor.requests[0].called_ae_title == "ANYNAME"


@pytest.mark.slow
def test_ten_thousand_instances_are_reported(tmp_path):
    numbers = range(10_000)
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.request(numbers=numbers)
        server.wait_for_state(UID, REPORTED)
        told = told_of(acceptor.received[0])
        uids = [one.reference.sop_instance_uid for one in told.failed]
        assert uids == [uid for _, uid in named(*numbers)]


# What counts as delivered


@pytest.mark.parametrize("status", [0x0000, 0x0107, 0xB000])
def test_success_and_warnings_are_deliveries(tmp_path, status):
    with (
        scripted_acceptor(Script(answer=lambda _: status)) as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.request()
        server.wait_for_state(UID, REPORTED)
        assert [one.status for one in server.reports(UID)] == [status]


def test_an_answer_that_lacks_all_that_may_be_absent_is_a_delivery(tmp_path):
    """Affected UIDs and event type id are missing from the answers of several modalities."""

    def bare(received):
        return NEventReportResponse(responds_to=received.message.message_id, status=0)

    with (
        scripted_acceptor(Script(answer=bare)) as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.request()
        server.wait_for_state(UID, REPORTED)
        assert len(acceptor.received) == 1


@pytest.mark.slow
def test_a_peer_that_never_answers_a_release_has_the_report(tmp_path):
    with (
        scripted_acceptor(Script(answers_release=False)) as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port, answer_seconds=1.0)) as server,
    ):
        server.request()
        server.wait_for_state(UID, REPORTED)
        server.wait_for_job(UID, JobState.SUCCESS)
        assert len(acceptor.requests) == 1


@pytest.mark.parametrize("status", [0x0110, 0x0112, 0x0211, 0x0124, 0xC000])
def test_a_failing_status_is_tried_again_with_the_same_report(tmp_path, status):
    answers = iter([status, 0])
    with (
        scripted_acceptor(Script(answer=lambda _: next(answers))) as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.keep(1)
        server.request(numbers=(1, 2))
        job = server.wait_for_job(UID, JobState.RETRY)
        assert f"{status:04X}H" in job.error
        found = server.commitment(UID)
        assert (found.state, found.reported_at, found.error) == (CHECKED, None, job.error)
        assert server.lanes() == {}, "the peer is there, so others of it are not held up"
        server.hurry()
        server.wait_for_state(UID, REPORTED)
        assert [one.status for one in server.reports(UID)] == [status, 0]
        first, second = (told_of(received) for received in acceptor.received)
        assert first == second
        assert server.commitment(UID).error == ""


# Peers that are not there, or not right


def refusing_class():
    return Script(policy=AcceptancePolicy(accepts_abstract_syntax=lambda _uid: False))


FAULTS = {
    "rejects": (Script(on_request=lambda _n: REJECTED_CALLED_AE_TITLE), "rejected", True),
    "refuses the class": (refusing_class(), "does not accept the Storage Commitment", True),
    "aborts at once": (Script(on_request=lambda _n: Act.ABORT), "abort", True),
    "closes at once": (Script(on_request=lambda _n: Act.CLOSE), "clos", True),
    "aborts in the report": (Script(on_data=lambda _n: Act.ABORT), "abort", False),
    "closes in the report": (Script(answer=lambda _r: Act.CLOSE), "it was sent, and no answer came", False),
    "never answers": (Script(answer=lambda _r: Act.SILENCE), "it was sent, and no answer came", True),
    "answers garbage": (Script(answer=lambda _r: b"HTTP/1.1 400 Bad Request\r\n\r\n"), "it was sent", False),
    "releases in place of an answer": (Script(answer=lambda _r: Act.RELEASE), "it was sent", False),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_peer_that_fails_is_told_when_it_is_right_again(tmp_path, fault):
    script, words, is_blocked = FAULTS[fault]
    with scripted_acceptor(script) as acceptor:
        peer = peer_at(acceptor.port, answer_seconds=1.0)
        with commitment_serving(tmp_path / "archive", peer) as server:
            server.keep(1)
            server.request()
            job = server.wait_for_job(UID, JobState.RETRY)
            assert words in job.error
            assert "SCANNER@127.0.0.1" in job.error or "sent" in job.error
            assert list(server.lanes()) == (["peer:scanner"] if is_blocked else [])
            (attempt,) = server.reports(UID)
            assert (attempt.status, attempt.words) == (None, job.error)
            acceptor.script = Script()
            server.hurry()
            server.wait_for_state(UID, REPORTED)
            assert told_of(acceptor.received[-1]).committed[0].sop_instance_uid == "1.2.3.1"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["refused", "silent", "no such name"])
def test_a_peer_that_cannot_be_reached_blocks_its_lane(tmp_path, how):
    with ExitStack() as stack:
        port = stack.enter_context(silent_port() if how == "silent" else dead_port())
        host = "no-such-host.invalid" if how == "no such name" else "127.0.0.1"
        peer = peer_at(port, host=host, connect_seconds=1.0)
        server = stack.enter_context(commitment_serving(tmp_path / "archive", peer))
        asker = Asker(way=WAY_DIMSE, peer=peer.name, peer_ae_title="SCANNER", own_ae_title="STOWKEEPER")
        with (
            server.database.write() as transaction
        ):  # at once: who asks while it is blocked has it tried again
            for number in range(3):
                take(
                    transaction,
                    asker,
                    ActionInformation(f"1.2.840.{number}", (Reference(CT_IMAGE_STORAGE, "1.2.3.1"),)),
                )
        server.wait(server.lanes, "a blocked lane")
        server.wait(lambda: states(server) == {"pending", "retry"}, "the checks")
        with server.database.read() as connection:
            tried = connection.execute(select(jobs.c.step).where(jobs.c.failures > 0)).all()
        assert len(tried) == 1, "the others wait with it"


@pytest.mark.slow
@pytest.mark.peer("pynetdicom")
def test_who_was_away_for_long_and_asks_again_is_told_at_once(tmp_path):
    """A scanner that is switched on again would else wait for the end of the longest pause, an hour."""
    port = free_port()
    with commitment_serving(tmp_path / "archive", peer_at(port, connect_seconds=1.0)) as server:
        server.keep(1)
        server.request(uid="1.2.840.1")
        server.wait(server.lanes, "a blocked lane")
        server.wait(lambda: states(server) == {"retry"}, "its job to wait")
        later = seconds_ago(-3000)
        with server.database.write() as transaction:
            transaction.execute(update(job_lanes).values(failures=9, blocked_until=later))
            transaction.execute(update(jobs).where(jobs.c.state == "retry").values(due_at=later))
        # Asking does not make it forget how often it was called in vain.
        server.request(uid="1.2.840.2")
        server.wait(lambda: lane_failures(server) == 10, "another try")
        with using(port=port) as user:
            assert user.ask(server.port, "1.2.840.3", named(1)) == 0
            user.wait_for_reports(3, seconds=10.0)
            assert {report.transaction_uid for report in user.reports} == {
                "1.2.840.1",
                "1.2.840.2",
                "1.2.840.3",
            }
            server.wait(lambda: lane_failures(server) is None, "an open lane")


@pytest.mark.slow
@pytest.mark.peer("pynetdicom")
def test_who_asks_the_same_again_is_told_at_once(tmp_path):
    with (
        using(answer=lambda number: 0x0110 if number == 0 else 0) as user,
        commitment_serving(tmp_path / "archive", user.peer()) as server,
    ):
        server.keep(1)
        assert user.ask(server.port, UID, named(1)) == 0
        user.wait_for_reports(1)
        server.wait(lambda: states(server) == {"retry"}, "its job to wait")
        assert user.ask(server.port, UID, named(1)) == 0
        assert len(user.wait_for_reports(2, seconds=10.0)) == 2
        server.wait_for_state(UID, REPORTED)


def lane_failures(server):
    with server.database.read() as connection:
        return connection.execute(select(job_lanes.c.failures)).scalar()


def states(server):
    with server.database.read() as connection:
        rows = connection.execute(select(jobs.c.state, jobs.c.step)).all()
    return {row.state for row in rows if row.step == "report"}


@pytest.mark.slow
@pytest.mark.peer("pynetdicom")
def test_fifty_dead_peers_keep_the_living_one_from_nothing(tmp_path):
    """Half refuse connections, half take them and say nothing."""
    with using() as user, ExitStack() as stack:
        dead = [
            peer_at(
                stack.enter_context(silent_port() if number % 2 else dead_port()),
                name=f"dead-{number}",
                ae_title=f"DEAD{number}",
                connect_seconds=30.0,
            )
            for number in range(50)
        ]
        server = stack.enter_context(commitment_serving(tmp_path / "archive", *dead, user.peer()))
        server.keep(1)
        for number, peer in enumerate(dead):
            with RawPeer(server.port) as asking:
                asking.associate(push_model_context(), calling=(peer.ae_title or "").encode())
                for again in range(2):
                    assert ask(asking, action_data(f"1.2.840.5.{number}.{again}", named(1))).status == 0
                asking.release()
        began = time.monotonic()
        for number in range(5):
            assert user.ask(server.port, f"1.2.840.6.{number}", named(1)) == 0
        user.wait_for_reports(5, seconds=10.0)
        assert time.monotonic() - began < 10.0
        with server.database.read() as connection:
            assert connection.execute(select(jobs.c.job_key).where(jobs.c.state == "success")).all()


def test_a_peer_that_was_removed_is_told_when_it_is_there_again(tmp_path):
    with scripted_acceptor() as acceptor, commitment_serving(tmp_path / "archive") as server:
        with silent_port() as nobody:
            server.peers.save(peer_at(nobody, connect_seconds=1.0), "the test")
            server.request()
            server.peers.discard("scanner", "the test")
            job = server.wait_for_job(UID, JobState.RETRY)
        server.hurry()
        job = server.wait(
            lambda: found if "no peer" in (found := server.wait_for_job(UID, JobState.RETRY)).error else None,
            "a try without the peer",
        )
        assert "'scanner'" in job.error
        server.peers.save(peer_at(acceptor.port), "the test")
        server.hurry()
        server.wait_for_state(UID, REPORTED)


# In the association of the request


@pytest.mark.peer("pynetdicom")
def test_same_first_reports_in_the_association_of_the_request(tmp_path):
    with (
        using() as user,
        commitment_serving(tmp_path / "archive", user.peer(report_on="same-first")) as server,
    ):
        server.keep(1)
        association = user.associate(server.port)
        assert user.ask_on(association, UID, named(1, 2)).Status == 0
        (report,) = user.wait_for_reports()
        assert report.is_on_own_association
        assert (report.committed, report.failed) == (named(1), {named(2)[0]: 0x0112})
        server.wait_for_state(UID, REPORTED)
        assert [one.way for one in server.reports(UID)] == ["same association"]
        association.release()


@pytest.mark.peer("pynetdicom")
def test_same_first_calls_a_peer_that_has_released(tmp_path):
    with (
        using() as user,
        commitment_serving(tmp_path / "archive", user.peer(report_on="same-first")) as server,
    ):
        server.keep(1)
        assert user.ask(server.port, UID, named(1)) == 0
        (report,) = user.wait_for_reports()
        assert not report.is_on_own_association or report.committed == named(1)
        server.wait_for_state(UID, REPORTED)


def test_a_report_in_the_same_association_comes_after_the_response(tmp_path):
    peer = Peer(name="scanner", ae_title="SCANNER", report_on="same-first")
    with commitment_serving(tmp_path / "archive", peer) as server, RawPeer(server.port) as raw:
        raw.associate(push_model_context(2), calling=b"SCANNER")
        for number in range(10):
            uid = f"1.2.840.{number}"
            send_action(raw, action_data(uid, named(1)), context_id=2, message_id=number + 1)
            first = raw.read_answer()
            assert (first.command_field, first.status) == (N_ACTION_RSP, 0)
            report = raw.read_answer()
            assert (report.command_field, report.context_id) == (N_EVENT_REPORT_RQ, 2)
            raw.read_answer()  # its data set
            raw.send(event_response(report, names_instance=False))
            server.wait_for_state(uid, REPORTED)
        raw.release()


def test_requests_and_answers_as_a_toolkit_of_java_makes_them(tmp_path):
    """dcm4che's `stgcmtscu` has its own way: an even context, a window without bound and no role item.

    It asks one transaction after the other without waiting for answers, command and data set in one PDU, and its response
    to a report names the instance and no event type.
    """
    peer = Peer(name="scanner", ae_title="SCANNER", report_on="same-first")
    uids = [f"1.2.840.{number}" for number in range(4)]
    with commitment_serving(tmp_path / "archive", peer) as server, RawPeer(server.port) as raw:
        server.keep(1)
        contexts = (
            Context(context_id=1, abstract_syntax=VERIFICATION),
            push_model_context(
                2, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
            ),
        )
        raw.associate(*contexts, calling=b"SCANNER", window=(0, 0))
        for number, uid in enumerate(uids):
            command = pdv(2, action_command(message_id=number + 1), control=COMMAND | LAST)
            raw.send(pdu(P_DATA, command + pdv(2, action_data(uid, named(1)), control=LAST)))
        accepted, reported = 0, 0
        while accepted < len(uids) or reported < len(uids):
            answer = raw.read_answer()
            if answer.command_field == N_ACTION_RSP:
                assert (answer.context_id, answer.status) == (2, 0)
                accepted += 1
                continue
            assert (answer.command_field, answer.context_id) == (N_EVENT_REPORT_RQ, 2)
            raw.read_answer()  # its data set
            response = {
                0x0002: PUSH_MODEL,
                0x0100: N_EVENT_REPORT_RSP,
                0x0120: answer.number(0x0110),
                0x0800: 0x0101,
                0x0900: 0,
                0x1000: PUSH_MODEL_INSTANCE,
            }
            raw.send(p_data(2, command_set(response), control=COMMAND | LAST))
            reported += 1
        for uid in uids:
            server.wait_for_state(uid, REPORTED)
            assert [one.way for one in server.reports(uid)] == ["same association"]
        raw.release()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["failing status", "no answer", "abort"])
def test_same_first_goes_on_to_a_new_association_at_once(tmp_path, how):
    with scripted_acceptor() as acceptor:
        peer = peer_at(acceptor.port, report_on="same-first", answer_seconds=1.0)
        with commitment_serving(tmp_path / "archive", peer) as server, RawPeer(server.port) as raw:
            raw.associate(push_model_context(), calling=b"SCANNER")
            assert ask(raw, action_data(UID, named(1))).status == 0
            report = raw.read_answer()
            if how == "failing status":
                raw.send(event_response(report, status=0x0110))
            elif how == "abort":
                raw.reset()
            server.wait_for_state(UID, REPORTED)
            found = [(one.way, one.status) for one in server.reports(UID)]
            status = 0x0110 if how == "failing status" else None
            assert found == [("same association", status), ("new association", 0)]
            assert told_of(acceptor.received[0]).failed[0].reason == 0x0112


@pytest.mark.peer("pynetdicom")
def test_a_peer_set_to_new_associations_is_called_though_its_own_is_open(tmp_path):
    with using() as user, commitment_serving(tmp_path / "archive", user.peer()) as server:
        association = user.associate(server.port)
        assert user.ask_on(association, UID, named(1)).Status == 0
        assert not user.wait_for_reports()[0].is_on_own_association
        association.release()


def test_a_report_names_the_well_known_instance(tmp_path):
    with (
        scripted_acceptor() as acceptor,
        commitment_serving(tmp_path / "archive", peer_at(acceptor.port)) as server,
    ):
        server.request()
        server.wait_for_state(UID, REPORTED)
        message = acceptor.received[0].message
        assert isinstance(message, NEventReportRequest)
        assert message.affected_sop_class_uid == STORAGE_COMMITMENT_PUSH_MODEL
        assert message.affected_sop_instance_uid == f"{STORAGE_COMMITMENT_PUSH_MODEL}.1"
        assert server.reports(UID)[0].status == Status.SUCCESS
