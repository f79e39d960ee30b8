"""N-ACTION in: every request is answered, by the right status and soon, and Success only when it is durable."""

import struct
import time
from contextlib import ExitStack, contextmanager

import pytest
import structlog
from sqlalchemy import func, select, update

from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.database.schema import commitment_instances, commitments, jobs
from stowkeeper.dimse.message_types import NActionRequest, Response
from stowkeeper.jobs import rows as job_rows
from stowkeeper.net.handlers import AssociationFacts
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.commitment.limits import (
    QUEUE_SHARE_OF_ONE,
    REQUESTS_PER_TRANSACTION_MAX,
    REQUESTS_WAITING_MAX,
)
from stowkeeper.services.peers import Peer
from stowkeeper.upperlayer.negotiation import AcceptedContext
from support.commitment_server import commitment_serving
from support.commitment_user import using
from support.instances import CT_IMAGE_STORAGE
from support.raw_commitment import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    action_data,
    ask,
    push_model_context,
    reference,
    send_action,
    sequence,
    uid_element,
)
from support.raw_peer import COMMAND, EXPLICIT_VR_LITTLE_ENDIAN, LAST, RawPeer, command_set, p_data

SCANNER = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=1)
OTHER = Peer(name="other", ae_title="OTHER", host="127.0.0.1", port=1)
ANSWER_SECONDS_MAX = 1.0
REFERENCES = [(CT_IMAGE_STORAGE, f"1.2.3.{number}") for number in range(3)]


@pytest.fixture
def server(tmp_path):
    with commitment_serving(tmp_path / "archive", SCANNER, OTHER, runs_jobs=False) as running:
        yield running


@contextmanager
def asking(server, calling=b"SCANNER", called=b"STORE", context_id=1):
    with RawPeer(server.port) as peer:
        peer.associate(push_model_context(context_id), calling=calling, called=called)
        assert peer.accepted, "the context was refused"
        yield peer
        assert peer.release().kind == 6


def tried(server, data, *, calling=b"SCANNER", **command):
    """Ask once, and return the answer, which has to come in time."""
    with asking(server, calling) as peer:
        began = time.monotonic()
        answer = ask(peer, data, **command)
        assert time.monotonic() - began < ANSWER_SECONDS_MAX
    return answer


def counted(server):
    with server.database.read() as connection:
        return tuple(
            connection.execute(select(func.count()).select_from(table)).scalar()
            for table in (commitments, commitment_instances, jobs)
        )


# What is taken


def test_a_request_is_durable_with_its_job_before_it_is_answered(server):
    answer = tried(server, action_data("1.2.840.1", REFERENCES))
    assert (answer.status, answer.command_field, answer.number(0x1008)) == (0, 0x8130, 1)
    assert (answer.text(0x0002), answer.text(0x1000)) == (PUSH_MODEL, PUSH_MODEL_INSTANCE)
    made = server.commitment("1.2.840.1")
    assert (made.state, made.way, made.instances) == (CommitmentState.RECEIVED, "DIMSE", 3)
    assert (made.peer, made.peer_ae_title, made.own_ae_title) == ("scanner", "SCANNER", "STORE")
    assert made.peer_address == "127.0.0.1"
    assert made.association_id
    assert [(one.sop_class_uid, one.sop_instance_uid) for one in server.instances("1.2.840.1")] == REFERENCES
    with server.database.read() as connection:
        job = job_rows.find(connection, made.job_id)
    assert job is not None
    assert (job.kind, job.lane, job.peer, job.subject) == ("commitment", "disk", "scanner", "1.2.840.1")
    assert job.created_by == "peer scanner"


def test_one_line_of_the_log_tells_of_each_request(server):
    with structlog.testing.capture_logs() as lines:
        tried(server, action_data("1.2.840.1", REFERENCES))
        tried(server, b"", calling=b"STRANGER")
        tried(server, action_data("1.2.840.2", []))
    found = [line for line in lines if line["event"] == "commitment"]
    assert [(line["what"], line["status"], line["instances"]) for line in found] == [
        ("request accepted", "0000H", 3),
        ("request refused", "0124H", 0),
        ("request refused", "0115H", 0),
    ]
    assert found[0]["transaction"] == "1.2.840.1"
    assert (found[0]["peer"], found[1]["calling"], found[1]["peer"]) == ("scanner", "STRANGER", "")
    assert "no items" in found[2]["why"]


@pytest.mark.peer("pynetdicom")
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_pynetdicom_asks_in_each_transfer_syntax(server, syntax):
    with using() as user:
        assert user.ask(server.port, "1.2.840.7", REFERENCES, syntaxes=[syntax]) == 0
    assert len(server.instances("1.2.840.7")) == 3


@pytest.mark.parametrize("context_id", [2, 254, 1])
def test_presentation_contexts_of_even_ids_are_answered_in(server, context_id):
    """dcm4che's stgcmtscu proposes id 2, against PS3.8 §9.3.2.2."""
    with asking(server, context_id=context_id) as peer:
        answer = ask(peer, action_data("1.2.840.1", REFERENCES), context_id=context_id)
    assert (answer.status, answer.context_id) == (0, context_id)


def test_the_same_instance_twice_is_two_instances_of_the_request(server):
    answer = tried(server, action_data("1.2.840.1", [REFERENCES[0], REFERENCES[0]]))
    assert answer.status == 0
    assert server.commitment("1.2.840.1").instances == 2


def test_what_old_peers_add_is_passed_over(server):
    """DVTk's script sends a Referenced Performed Procedure Step Sequence, others a file-set."""
    step = sequence(0x00081111, [reference("1.2.840.10008.3.1.2.3.3", "1.2.9")])
    data = step + action_data("1.2.840.1", REFERENCES) + b"\x88\x00\x30\x01CS\x02\x00A "
    assert tried(server, data).status == 0
    assert server.commitment("1.2.840.1").instances == 3


# What is refused


def _with_missing(tag):
    items = [uid_element(0x00081150, CT_IMAGE_STORAGE), uid_element(0x00081155, "1.2.3.1")]
    del items[0 if tag == 0x00081150 else 1]
    return uid_element(0x00081195, "1.2.840.1") + sequence(0x00081199, [b"".join(items)])


MALFORMED = {
    "empty list": action_data("1.2.840.1", []),
    "no sequence": uid_element(0x00081195, "1.2.840.1"),
    "no transaction UID": sequence(0x00081199, [reference(CT_IMAGE_STORAGE, "1.2.3.1")]),
    "empty transaction UID": action_data("", REFERENCES),
    "transaction UID with letters": action_data("1.2.x", REFERENCES),
    "transaction UID of 66": action_data("1." + "2" * 64, REFERENCES),
    "item without class": _with_missing(0x00081150),
    "item without instance": _with_missing(0x00081155),
    "item with empty instance": action_data("1.2.840.1", [(CT_IMAGE_STORAGE, "")]),
    "cut short": action_data("1.2.840.1", REFERENCES)[:-10],
    "empty data set": b"",
    "no DICOM": b"GET / HTTP/1.1\r\n\r\n",
    "deep": b"".join(
        struct.pack("<HH2s2xIHHI", 0x0008, 0x1199, b"SQ", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
        for _ in range(2000)
    ),
    "zeros": bytes(5000),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_answered_0115_without_a_comment(server, data):
    answer = tried(server, data)
    assert (answer.status, answer.comment) == (0x0115, "")
    assert counted(server) == (0, 0, 0)


def test_a_request_without_data_set_is_answered_0115(server):
    assert tried(server, None).status == 0x0115


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ({"action_type": 2}, 0x0123),
        ({"action_type": None}, 0x0123),
        ({"sop_instance_uid": "1.2.840.10008.1.20.1.2"}, 0x0112),
        ({"sop_instance_uid": ""}, 0x0117),
        ({"sop_instance_uid": None}, 0x0117),
        ({"sop_instance_uid": "instance"}, 0x0117),
        ({"sop_class_uid": "1.2.840.10008.1.20.2"}, 0x0119),
        ({"sop_class_uid": None}, 0x0119),
        ({"sop_class_uid": "1.2.840.10008.1.20.2", "sop_instance_uid": "1.2.840.10008.1.20.2.1"}, 0x0118),
        ({"sop_class_uid": "", "sop_instance_uid": "1.2"}, 0x0118),
    ],
)
def test_a_request_of_something_else_is_answered_by_what_it_is(server, command, status):
    answer = tried(server, action_data("1.2.840.1", REFERENCES), **command)
    assert (answer.status, answer.comment) == (status, "")
    assert counted(server) == (0, 0, 0)


@pytest.mark.slow
def test_what_was_refused_goes_on_with_the_next_request(server):
    """A data set that is discarded unread leaves the association as it was."""
    with asking(server) as peer:
        for command in ({"action_type": 7}, {"sop_instance_uid": "1.2"}, {}):
            ask(peer, action_data("1.2.840.1", REFERENCES * 1000), **command)
        assert ask(peer, action_data("1.2.840.2", REFERENCES)).status == 0


@pytest.mark.parametrize(
    ("peer", "comment"),
    [
        (None, "unknown peer: the result could not be reported"),
        (
            Peer(name="x", ae_title="X", host="127.0.0.1", port=1, may_request_commitment=False),
            "this peer may not ask for storage commitment",
        ),
        (Peer(name="x", ae_title="X", host="127.0.0.1"), "no address is configured to report to"),
        (Peer(name="x", ae_title="X", port=104), "no address is configured to report to"),
        (
            Peer(name="x", ae_title="SCANNER", host="127.0.0.1", port=1),
            "unknown peer: the result could not be reported",
        ),
    ],
)
def test_who_may_not_ask_or_could_not_be_told_is_answered_0124(tmp_path, peer, comment):
    peers = () if peer is None else (peer,)
    with commitment_serving(tmp_path / "archive", *peers, runs_jobs=False) as server:
        for data in (action_data("1.2.840.1", REFERENCES), MALFORMED["zeros"]):
            answer = tried(server, data, calling=b"X")
            assert (answer.status, answer.comment) == (0x0124, comment)
        assert counted(server) == (0, 0, 0)


def test_a_peer_without_address_may_ask_where_it_is_told_in_its_own_association(tmp_path):
    peer = Peer(name="x", ae_title="X", report_on="same-first")
    with commitment_serving(tmp_path / "archive", peer, runs_jobs=False) as server:
        assert tried(server, action_data("1.2.840.1", REFERENCES), calling=b"X").status == 0


@pytest.mark.slow
def test_more_references_than_are_taken_are_answered_0213(server):
    data = action_data("1.2.840.1", [(CT_IMAGE_STORAGE, f"1.2.{number}") for number in range(100_001)])
    with asking(server) as peer:
        assert ask(peer, data).status == 0x0213
        assert ask(peer, action_data("1.2.840.2", REFERENCES)).status == 0


@pytest.mark.slow
def test_a_data_set_of_any_length_is_answered_0213_and_discarded(server):
    with asking(server) as peer:
        assert ask(peer, bytes(40 << 20)).status == 0x0213
        assert ask(peer, action_data("1.2.840.2", REFERENCES)).status == 0


def test_a_disk_that_takes_nothing_is_answered_0213(server):
    server.archive.admission.distrust("the disk failed")
    answer = tried(server, action_data("1.2.840.1", REFERENCES))
    assert (answer.status, answer.comment) == (0x0213, "")
    assert counted(server) == (0, 0, 0)


def test_a_request_that_cannot_be_written_is_answered_0110_and_the_next_one_is_taken(server, monkeypatch):
    @contextmanager
    def failing():
        raise DatabaseUnavailable("the disk reports an error")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(server.database, "write", failing)
        answer = tried(server, action_data("1.2.840.1", REFERENCES))
    assert (answer.status, answer.comment) == (0x0110, "the request cannot be written down now")
    assert tried(server, action_data("1.2.840.1", REFERENCES)).status == 0


@pytest.mark.slow
def test_a_database_that_stands_still_holds_up_neither_others_nor_too_many(server):
    """Beyond the bound requests are answered at once, the others when they are written: each of them once."""
    facts = AssociationFacts(
        association_id="a-1",
        peer_address="127.0.0.1",
        opened_at_nanoseconds=0,
        calling_ae_title="SCANNER",
        called_ae_title="STORE",
    )
    context = AcceptedContext(
        context_id=1, abstract_syntax=PUSH_MODEL, transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN
    )
    later: list[Response] = []
    at_once: list[Response] = []
    places = int(REQUESTS_WAITING_MAX * QUEUE_SHARE_OF_ONE)  # those that one peer gets
    number_asked = places + REQUESTS_PER_TRANSACTION_MAX + 10
    with server.database.write():  # nobody else can write now
        for number in range(number_asked):
            message = NActionRequest(
                message_id=number + 1,
                has_data_set=True,
                requested_sop_class_uid=PUSH_MODEL,
                requested_sop_instance_uid=PUSH_MODEL_INSTANCE,
                action_type_id=1,
            )
            data = action_data(f"1.2.840.{number}", REFERENCES)
            response = server.commitments.answer(facts, context, message, data, later.append)
            at_once += [] if response is None else [response]
        with RawPeer(server.port) as echo:
            echo.associate(calling=b"OTHER")
            assert echo.echo().status == 0
            echo.release()
        assert later == []
        assert {response.status for response in at_once} == {0x0213}
        assert 10 <= len(at_once) <= REQUESTS_PER_TRANSACTION_MAX + 10
    server.wait(lambda: len(later) + len(at_once) == number_asked, "all answers")
    assert {response.status for response in later} == {0}
    assert {response.responds_to for response in (*later, *at_once)} == set(range(1, number_asked + 1))
    assert counted(server)[0] == len(later)


@pytest.mark.slow
def test_requests_that_come_together_share_transactions(server, monkeypatch):
    writes = []
    write = server.database.write

    def counting():
        writes.append(1)
        return write()

    count = 40
    with ExitStack() as stack:
        with server.database.write():
            peers = [stack.enter_context(asking(server)) for _ in range(8)]
            monkeypatch.setattr(server.database, "write", counting)
            for number in range(count):
                data = action_data(f"1.2.840.{number}", REFERENCES)
                send_action(peers[number % 8], data, message_id=number + 1)
        for number in range(count):
            assert peers[number % 8].read_answer().status == 0
    assert len(writes) < count / 2


# Repeats and duplicates (decision 11)


def finish(server, uid, state=CommitmentState.REPORTED):
    commitment = server.commitment(uid)
    with server.database.write() as transaction:
        rows.change(
            transaction,
            commitment.commitment_key,
            state=state,
            reported_at=transaction.at if state is CommitmentState.REPORTED else None,
        )


def test_a_repeat_joins_its_transaction_whatever_the_order_of_its_references(server):
    assert tried(server, action_data("1.2.840.1", REFERENCES)).status == 0
    first = server.commitment("1.2.840.1")
    assert tried(server, action_data("1.2.840.1", REFERENCES[::-1])).status == 0
    assert counted(server) == (1, 3, 1)
    again = server.commitment("1.2.840.1")
    assert again.association_id != first.association_id, "its report may go to the association of now"


def duplicates(server, uid="1.2.840.1"):
    with server.database.read() as connection:
        return rows.duplicates_of(connection, server.commitment(uid).commitment_key)


@pytest.mark.parametrize(
    ("calling", "references", "state"),
    [
        (b"SCANNER", REFERENCES[:2], CommitmentState.RECEIVED),
        (b"SCANNER", [*REFERENCES, REFERENCES[0]], CommitmentState.CHECKED),
        (b"OTHER", REFERENCES, CommitmentState.RECEIVED),
        (b"SCANNER", REFERENCES, CommitmentState.REPORTED),
    ],
    ids=["other content", "one twice", "other peer", "after completion"],
)
def test_anything_else_with_a_known_uid_is_a_transaction_of_its_own(server, calling, references, state):
    assert tried(server, action_data("1.2.840.1", REFERENCES)).status == 0
    finish(server, "1.2.840.1", state)
    assert tried(server, action_data("1.2.840.1", references), calling=calling).status == 0
    (duplicate,) = duplicates(server)
    assert (duplicate.instances, duplicate.peer) == (len(references), calling.decode().lower())
    assert counted(server)[2] == 2
    # And a repeat of that one joins it.
    assert tried(server, action_data("1.2.840.1", references), calling=calling).status == 0
    assert len(duplicates(server)) == 1


def test_a_repeat_of_a_transaction_that_was_given_up_is_reported_anew(server):
    assert tried(server, action_data("1.2.840.1", REFERENCES)).status == 0
    first = server.commitment("1.2.840.1")
    finish(server, "1.2.840.1", CommitmentState.UNDELIVERED)
    with server.database.write() as transaction:
        transaction.execute(update(jobs).values(state="failure"))
    assert tried(server, action_data("1.2.840.1", REFERENCES)).status == 0
    again = server.commitment("1.2.840.1")
    assert (again.state, again.commitment_key) == (CommitmentState.CHECKED, first.commitment_key)
    assert again.job_id != first.job_id
    with server.database.read() as connection:
        job = job_rows.find(connection, again.job_id)
    assert job is not None
    assert job.lane == "peer:scanner"


# Reports of others, taken as user


def test_a_report_goes_to_the_user_side_and_is_answered(server):
    command = command_set(
        {
            0x0002: PUSH_MODEL,
            0x0100: 0x0100,
            0x0110: 5,
            0x0800: 1,
            0x1000: PUSH_MODEL_INSTANCE,
            0x1002: 1,
        }
    )
    with asking(server) as peer:
        data = action_data("1.2.840.404", REFERENCES)
        peer.send(p_data(1, command, control=COMMAND | LAST) + p_data(1, data, control=LAST))
        answer = peer.read_answer()
    assert (answer.command_field, answer.responds_to) == (0x8100, 5)
    assert answer.status == 0x0112, "nobody here asked for it"


@pytest.mark.slow
def test_ten_thousand_instances_are_taken_in_order(server):
    references = [(CT_IMAGE_STORAGE, f"1.2.840.5.{number}") for number in range(10_000)]
    with asking(server) as peer:
        send_action(peer, action_data("1.2.840.1", references))
        assert peer.read_answer().status == 0
    found = server.instances("1.2.840.1")
    assert [(one.sop_class_uid, one.sop_instance_uid) for one in found] == references


def test_after_the_end_of_the_service_requests_are_refused(server):
    server.commitments.stop()
    assert tried(server, action_data("1.2.840.1", REFERENCES)).status == 0x0213
    server.commitments.stop()
