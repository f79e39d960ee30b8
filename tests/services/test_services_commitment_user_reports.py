"""Reports that come in: who may make them, what they change, and that they change it once."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stowkeeper.database.engine import Database, DatabaseUnavailable, Transaction
from stowkeeper.dicom.commitment_information import EventInformation, encode_event_information
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL, STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE
from stowkeeper.dimse.message_types import NEventReportRequest
from stowkeeper.jobs import rows as jobs
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking_limits import REPORTS_NOTED_MAX, UNASKED_KEPT_MAX
from stowkeeper.services.commitment.commitment_values import CommitmentState, InstanceOutcome
from stowkeeper.services.commitment.reports_received import (
    CONTRADICTED,
    answer_event_report,
    take_report,
    take_report_on_request,
)
from stowkeeper.services.peers import Peer, PeerBook
from support.catalog_rows import open_database
from support.commitment_asking import (
    MR_IMAGE_STORAGE,
    PEER,
    ask_for,
    book_of,
    event,
    instances_in,
    references_to,
    state_of,
)

OUR_ADDRESS = "127.0.0.1"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path, sync=False)


def take(
    database: Database,
    information: EventInformation,
    *,
    event_type: int = 1,
    calling: str = "PACS",
    address: str = OUR_ADDRESS,
    book: PeerBook | None = None,
) -> int:
    status, _ = take_report(database, calling, address, event_type, information, book or book_of(database))
    return status


def test_a_report_of_success_commits_every_instance(database: Database) -> None:
    asked = references_to(1, 2)
    uid = ask_for(database, asked).transaction_uid
    assert take(database, event(uid, asked)) == 0
    commitment = state_of(database, uid)
    assert commitment.state is CommitmentState.COMMITTED
    assert (commitment.failures, commitment.error, commitment.report_attempts) == (0, "", 1)
    assert commitment.reported_at is not None
    assert [one.outcome for one in instances_in(database, uid)] == [InstanceOutcome.COMMITTED] * 2
    with database.read() as connection:
        (report,) = rows.reports_of(connection, commitment.commitment_key)
    assert (report.way, report.status, report.words) == ("received", 0, "")


def test_a_report_of_failures_keeps_reasons(database: Database) -> None:
    one, two = references_to(1, 2)
    uid = ask_for(database, [one, two]).transaction_uid
    assert take(database, event(uid, [one], [two], reason=0x0110), event_type=2) == 0
    commitment = state_of(database, uid)
    assert (commitment.state, commitment.failures) == (CommitmentState.PARTIAL, 1)
    first, second = instances_in(database, uid)
    assert (first.outcome, first.reason) == (InstanceOutcome.COMMITTED, None)
    assert (second.outcome, second.reason) == (InstanceOutcome.FAILED, 0x0110)
    assert "processing failure" in second.words


def test_a_report_that_leaves_instances_out_is_partial(database: Database) -> None:
    one, two = references_to(1, 2)
    uid = ask_for(database, [one, two]).transaction_uid
    assert take(database, event(uid, [one])) == 0
    assert state_of(database, uid).state is CommitmentState.PARTIAL
    assert instances_in(database, uid)[1].outcome is InstanceOutcome.FAILED


def test_the_wrong_sop_class_commits_nothing(database: Database) -> None:
    uid = ask_for(database, references_to(1)).transaction_uid
    assert take(database, event(uid, references_to(1, sop_class_uid=MR_IMAGE_STORAGE))) == 0
    assert state_of(database, uid).state is CommitmentState.FAILED


def test_unasked_instances_are_noted_beside_the_asked_ones(database: Database) -> None:
    asked = references_to(1)
    uid = ask_for(database, asked).transaction_uid
    assert take(database, event(uid, [*asked, *references_to(7)])) == 0
    assert state_of(database, uid).state is CommitmentState.COMMITTED
    outcomes = [(one.sop_instance_uid, one.outcome) for one in instances_in(database, uid)]
    assert outcomes == [("1.2.3.1", InstanceOutcome.COMMITTED), ("1.2.3.7", InstanceOutcome.UNASKED)]


def test_of_very_many_unasked_instances_the_first_are_noted(database: Database) -> None:
    asked = references_to(0)
    uid = ask_for(database, asked).transaction_uid
    more = references_to(*range(1, UNASKED_KEPT_MAX + 100))
    assert take(database, event(uid, [*asked, *more])) == 0
    with database.read() as connection:
        noted = rows.instances_of(
            connection, state_of(database, uid).commitment_key, limit=10 * UNASKED_KEPT_MAX
        )
        (report,) = rows.reports_of(connection, state_of(database, uid).commitment_key)
    assert len(noted) == 1 + UNASKED_KEPT_MAX
    assert f"{len(more)} were named that had not been asked for" in report.words


def test_the_job_that_waits_is_brought_forward(database: Database) -> None:
    asked = references_to(1)
    with database.write() as transaction:
        far = transaction.at.replace(transaction.at[:4], "2999")
    commitment = ask_for(database, asked)
    with database.write() as transaction:
        transaction.connection.exec_driver_sql("UPDATE jobs SET due_at = ?", (far,))
    assert take(database, event(commitment.transaction_uid, asked)) == 0
    with database.read() as connection:
        job = jobs.find(connection, commitment.job_id)
    assert job is not None
    assert job.due_at == state_of(database, commitment.transaction_uid).reported_at


# Once.


def test_the_same_report_again_is_answered_success_and_writes_nothing(database: Database) -> None:
    asked = references_to(1, 2)
    uid = ask_for(database, asked).transaction_uid
    report = event(uid, asked[:1], asked[1:])
    assert take(database, report, event_type=2) == 0
    before = (state_of(database, uid), instances_in(database, uid))
    with patch.object(database, "write", side_effect=AssertionError("nothing is to be written")):
        assert take(database, report, event_type=2) == 0
    assert (state_of(database, uid), instances_in(database, uid)) == before


@pytest.mark.parametrize("first_is_good", [True, False])
def test_a_later_report_that_says_otherwise_is_noted_and_changes_no_outcome(
    database: Database, first_is_good: bool
) -> None:
    asked = references_to(1)
    uid = ask_for(database, asked).transaction_uid
    good, bad = event(uid, asked), event(uid, [], asked)
    first, second = (good, bad) if first_is_good else (bad, good)
    assert take(database, first, event_type=1 if first_is_good else 2) == 0
    outcomes = instances_in(database, uid)
    assert take(database, second, event_type=2 if first_is_good else 1) == 0
    assert instances_in(database, uid) == outcomes
    commitment = state_of(database, uid)
    assert commitment.state is (CommitmentState.COMMITTED if first_is_good else CommitmentState.FAILED)
    assert commitment.error.startswith(CONTRADICTED)
    assert commitment.report_attempts == 2


def test_of_two_reports_at_once_one_counts(database: Database) -> None:
    asked = references_to(1)
    uid = ask_for(database, asked).transaction_uid
    write = database.write

    @contextmanager
    def interrupted() -> Iterator[Transaction]:
        with patch.object(database, "write", write):
            assert take(database, event(uid, [], asked), event_type=2) == 0
        with write() as transaction:
            yield transaction

    with patch.object(database, "write", interrupted):
        assert take(database, event(uid, asked)) == 0
    commitment = state_of(database, uid)
    assert commitment.state is CommitmentState.FAILED
    assert commitment.error.startswith(CONTRADICTED)


@pytest.mark.slow
def test_reports_that_say_otherwise_without_end_fill_nothing(database: Database) -> None:
    asked = references_to(1)
    uid = ask_for(database, asked).transaction_uid
    take(database, event(uid, asked))
    for _ in range(REPORTS_NOTED_MAX + 5):
        assert take(database, event(uid, [], asked), event_type=2) == 0
    assert state_of(database, uid).report_attempts == REPORTS_NOTED_MAX


@pytest.mark.parametrize("state", ["expired", "refused", "cancelled", "accepted"])
def test_a_report_counts_whenever_it_comes(database: Database, state: str) -> None:
    asked = references_to(1)
    commitment = ask_for(database, asked)
    with database.write() as transaction:
        rows.change(transaction, commitment.commitment_key, state=CommitmentState(state), error="over")
    assert take(database, event(commitment.transaction_uid, asked)) == 0
    found = state_of(database, commitment.transaction_uid)
    assert (found.state, found.error) == (CommitmentState.COMMITTED, "")


# Who, and what.


def test_a_transaction_that_nobody_asked_for_is_refused(database: Database) -> None:
    ask_for(database, references_to(1))
    assert take(database, event("2.25.4711", references_to(1))) == Status.NO_SUCH_SOP_INSTANCE


def test_a_transaction_that_was_asked_of_us_is_none_of_ours(database: Database) -> None:
    asked = references_to(1)
    commitment = ask_for(database, asked)
    with database.write() as transaction:
        transaction.connection.exec_driver_sql("UPDATE commitments SET role = 'provider', state = 'received'")
    status = take(database, event(commitment.transaction_uid, asked))
    assert status == Status.NO_SUCH_SOP_INSTANCE


@pytest.mark.parametrize("event_type", [0, 3, 0xFFFF])
def test_an_unknown_event_type_is_refused(database: Database, event_type: int) -> None:
    asked = references_to(1)
    uid = ask_for(database, asked).transaction_uid
    assert take(database, event(uid, asked), event_type=event_type) == Status.NO_SUCH_EVENT_TYPE
    assert state_of(database, uid).reported_at is None


NAMED = Peer(name="named", ae_title="NAMED", host="localhost", port=104)
UNKNOWN = Peer(name="unknown", ae_title="UNKNOWN", host="no-such-host.invalid", port=104)
MOD = Peer(name="ct", ae_title="CT", host="192.0.2.1", port=104)
TWIN = Peer(name="ct2", ae_title="CT", host="192.0.2.2", port=104)
PLACED = Peer(name="p", ae_title="P", addresses=(ip_network("192.0.2.0/24"),), host="192.0.2.9", port=104)
MUTE = Peer(name="mute", ae_title="MUTE", host="192.0.2.3", port=104, may_report_commitment=False)
OTHER = Peer(name="other", ae_title="OTHER", host="192.0.2.4", port=104)
BOOK = (MOD, TWIN, PLACED, MUTE, OTHER, NAMED, UNKNOWN)


@pytest.mark.parametrize(
    ("peer", "calling", "address", "may"),
    [
        (MOD, "CT", "192.0.2.1", True),
        (MOD, "CT", "203.0.113.1", False),  # an AE title can be taken by anybody
        (NAMED, "NAMED", "127.0.0.1", True),
        (NAMED, "NAMED", "203.0.113.1", False),
        (UNKNOWN, "UNKNOWN", "203.0.113.1", False),
        (MOD, "CT", "192.0.2.2", False),  # its twin's address
        (TWIN, "CT", "192.0.2.2", True),
        (TWIN, "CT", "::ffff:192.0.2.2", True),
        (TWIN, "CT", "192.0.2.1", False),
        (MOD, "ct", "192.0.2.1", False),
        (PLACED, "P", "192.0.2.77", True),
        (PLACED, "P", "203.0.113.1", False),
        (MUTE, "MUTE", "192.0.2.3", False),
        (MOD, "OTHER", "192.0.2.1", False),
        (MOD, "STRANGER", "192.0.2.1", False),
    ],
)
def test_only_the_peer_that_was_asked_may_report(
    database: Database, peer: Peer, calling: str, address: str, may: bool
) -> None:
    asked = references_to(1)
    uid = ask_for(database, asked, peer=peer).transaction_uid
    status = take(
        database, event(uid, asked), calling=calling, address=address, book=book_of(database, *BOOK)
    )
    assert status == (Status.SUCCESS if may else Status.NOT_AUTHORIZED)
    assert (state_of(database, uid).reported_at is not None) == may


@pytest.mark.parametrize(
    ("host", "calling", "address", "may"),
    [
        ("127.0.0.1", "NOBODY", "127.0.0.1", True),
        ("127.0.0.1", "NOBODY", "192.0.2.1", False),
        ("127.0.0.1", "PACS", "127.0.0.1", False),
        ("localhost", "NOBODY", "127.0.0.1", True),
        ("localhost", "NOBODY", "192.0.2.1", False),
        ("::1", "NOBODY", "::1", True),
        ("no-such-host.invalid", "NOBODY", "127.0.0.1", False),
    ],
)
def test_a_peer_that_nobody_defined_is_known_by_title_and_host(
    database: Database, host: str, calling: str, address: str, may: bool
) -> None:
    asked = references_to(1)
    peer = Peer(name="", ae_title="NOBODY", host=host, port=11112)
    uid = ask_for(database, asked, peer=peer).transaction_uid
    status = take(database, event(uid, asked), calling=calling, address=address)
    assert status == (Status.SUCCESS if may else Status.NOT_AUTHORIZED)


def test_a_resolver_that_hangs_holds_nobody_up_and_the_peer_is_to_try_again(database: Database) -> None:
    ends = threading.Event()
    real = socket.getaddrinfo

    def hang(host: str | None, *more: Any, **options: Any) -> Any:
        if host != "pacs.example.com" or options.get("flags"):
            return real(host, *more, **options)
        ends.wait(60.0)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    asked = references_to(1)
    peer = Peer(name="slow", ae_title="SLOW", host="pacs.example.com", port=104)
    uid = ask_for(database, asked, peer=peer).transaction_uid
    book = book_of(database, peer)
    try:
        with (
            patch("socket.getaddrinfo", hang),
            patch("stowkeeper.services.commitment.reports_received.SENDER_LOOKUP_SECONDS", 0.05),
        ):
            began = time.monotonic()
            status = take(database, event(uid, asked), calling="SLOW", book=book)
            assert status == Status.PROCESSING_FAILURE
            assert time.monotonic() - began < 10.0
            ends.set()  # now it is said that no resolver answers
            assert take(database, event(uid, asked), calling="SLOW", book=book) == Status.PROCESSING_FAILURE
        assert state_of(database, uid).reported_at is None
        with patch("socket.getaddrinfo", lambda *_more, **_options: real("127.0.0.1", None)):
            assert take(database, event(uid, asked), calling="SLOW", book=book) == 0
    finally:
        ends.set()


def test_a_peer_whose_definition_went_is_known_by_where_it_was_asked(database: Database) -> None:
    asked = references_to(1)
    uid = ask_for(database, asked, peer=MOD).transaction_uid
    book = book_of(database, PEER)
    foreign = take(database, event(uid, asked), calling="CT", address="192.0.2.2", book=book)
    assert foreign == Status.NOT_AUTHORIZED
    assert take(database, event(uid, asked), calling="CT", address="192.0.2.1", book=book) == 0


def test_on_our_own_association_the_peer_at_its_other_end_reports(database: Database) -> None:
    asked = references_to(1)
    mine, other = ask_for(database, asked, peer=MOD), ask_for(database, asked, peer=OTHER)
    foreign, _ = take_report_on_request(database, MOD, 1, event(other.transaction_uid, asked))
    assert foreign == Status.NOT_AUTHORIZED
    assert take_report_on_request(database, MOD, 1, event(mine.transaction_uid, asked)) == (0, "")
    nameless = Peer(name="", ae_title="N", host="::1", port=104)
    third = ask_for(database, asked, peer=nameless)
    elsewhere = Peer(name="", ae_title="N", host="::1", port=105)
    foreign, _ = take_report_on_request(database, elsewhere, 1, event(third.transaction_uid, asked))
    assert foreign == Status.NOT_AUTHORIZED
    assert take_report_on_request(database, nameless, 1, event(third.transaction_uid, asked)) == (0, "")


def test_a_report_that_cannot_be_written_is_asked_for_again(database: Database) -> None:
    asked = references_to(1)
    uid = ask_for(database, asked).transaction_uid
    with patch.object(database, "write", side_effect=DatabaseUnavailable("the disk is full")):
        assert take(database, event(uid, asked)) == Status.PROCESSING_FAILURE
    assert state_of(database, uid).reported_at is None
    assert take(database, event(uid, asked)) == 0


# The request itself.


def request(**changes: object) -> NEventReportRequest:
    values: dict[str, object] = {
        "message_id": 7,
        "affected_sop_class_uid": STORAGE_COMMITMENT_PUSH_MODEL,
        "affected_sop_instance_uid": STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
        "event_type_id": 1,
        "has_data_set": True,
    }
    return NEventReportRequest(**(values | changes))  # type: ignore[arg-type]  # as the tests name them


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
def test_a_whole_request_is_read_and_taken(syntax: str) -> None:
    information = event("2.25.5", references_to(1))
    seen = []

    def taking(event_type_id: int, taken: EventInformation) -> tuple[int, str]:
        seen.append((event_type_id, taken))
        return 0, ""

    data = encode_event_information(information, syntax)
    response = answer_event_report(request(), syntax, data, taking)
    assert seen == [(1, information)]
    assert (response.status, response.responds_to) == (0, 7)


@pytest.mark.parametrize(
    ("changes", "data", "status"),
    [
        ({"affected_sop_class_uid": "1.2.840.10008.1.20.2"}, None, Status.NO_SUCH_SOP_CLASS),
        ({"affected_sop_class_uid": None}, None, Status.NO_SUCH_SOP_CLASS),
        ({"affected_sop_instance_uid": "1.2.3"}, None, Status.INVALID_SOP_INSTANCE),
        ({"affected_sop_instance_uid": None}, None, Status.INVALID_SOP_INSTANCE),
        ({"event_type_id": 3}, None, Status.NO_SUCH_EVENT_TYPE),
        ({"event_type_id": None}, None, Status.NO_SUCH_EVENT_TYPE),
        ({"has_data_set": False}, b"", Status.INVALID_ARGUMENT_VALUE),
        ({}, b"", Status.INVALID_ARGUMENT_VALUE),
        ({}, b"\xff" * 100, Status.INVALID_ARGUMENT_VALUE),
        ({}, b"\x08\x00\x95\x11\x04\x00\x00\x00abcd", Status.INVALID_ARGUMENT_VALUE),
    ],
)
def test_what_is_no_report_is_refused_before_it_is_taken(
    changes: dict[str, object], data: bytes | None, status: Status
) -> None:
    def taking(_event_type_id: int, _information: EventInformation) -> tuple[int, str]:
        raise AssertionError("it is not to be taken")

    if data is None:
        data = encode_event_information(event("2.25.5", references_to(1)), IMPLICIT_VR_LITTLE_ENDIAN)
    response = answer_event_report(request(**changes), IMPLICIT_VR_LITTLE_ENDIAN, data, taking)
    assert response.status == status
    assert response.error_comment is None


def test_an_error_comment_goes_with_a_refusal_of_authority_and_not_with_others() -> None:
    data = encode_event_information(event("2.25.5", references_to(1)), IMPLICIT_VR_LITTLE_ENDIAN)

    def answered(status: int) -> str | None:
        return answer_event_report(
            request(), IMPLICIT_VR_LITTLE_ENDIAN, data, lambda *_: (status, "why")
        ).error_comment

    assert answered(Status.NOT_AUTHORIZED) == "why"
    assert answered(Status.PROCESSING_FAILURE) == "why"
    assert answered(Status.NO_SUCH_SOP_INSTANCE) is None
