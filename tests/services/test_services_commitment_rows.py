"""Commitment rows: what is written is found, page by page, by every filter; both roles side by side."""

import pytest

from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.rows import (
    Commitment,
    CommitmentFilter,
    CommitmentRequest,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
    Outcome,
)
from support.catalog_rows import open_database

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def database(tmp_path):
    return open_database(tmp_path)


def references(*numbers: int) -> list[Reference]:
    return [Reference(CT, f"1.2.3.{number}") for number in numbers]


def put(database: Database, uid: str, *numbers: int, **more) -> Commitment:
    values = {
        "role": CommitmentRole.PROVIDER,
        "way": rows.WAY_DIMSE,
        "transaction_uid": uid,
        "state": CommitmentState.RECEIVED,
        "peer": "scanner",
        "requested_at": "2026-01-02T03:04:05.000000Z",
    }
    keys = more.pop("version_keys", ())
    with database.write() as transaction:
        return rows.insert(
            transaction, CommitmentRequest(**(values | more)), references(*(numbers or (1,))), keys
        )


def test_what_is_written_is_found_as_it_was_written(database):
    made = put(
        database,
        "1.2",
        3,
        1,
        3,
        peer_ae_title="SCANNER",
        own_ae_title="STORE",
        peer_address="192.0.2.7",
        association_id="a-1",
        job_id="j",
        expires_at="2026-02-01T00:00:00.000000Z",
    )
    with database.read() as connection:
        found = rows.find(connection, CommitmentRole.PROVIDER, "1.2")
        assert found == made
        assert rows.find_by_key(connection, made.commitment_key) == made
        assert rows.find(connection, CommitmentRole.USER, "1.2") is None
        assert rows.find(connection, CommitmentRole.PROVIDER, "1.3") is None
        instances = rows.instances_of(connection, made.commitment_key)
    assert made.instances == 3
    assert [one.reference for one in instances] == references(3, 1, 3)
    assert {(one.outcome, one.reason, one.words, one.checked_at) for one in instances} == {
        (InstanceOutcome.OPEN, None, "", None)
    }


def test_the_content_is_that_of_the_references_in_any_order(database):
    assert rows.content_of(references(1, 2)) == rows.content_of(references(2, 1))
    assert rows.content_of(references(1, 2)) != rows.content_of(references(1, 2, 2))
    assert rows.content_of(references(1)) != rows.content_of([Reference(MR, "1.2.3.1")])
    assert put(database, "1.2", 2, 1).content == rows.content_of(references(1, 2))


def test_a_transaction_uid_is_once_in_each_role_but_for_marked_duplicates(database):
    first = put(database, "1.2")
    put(database, "1.2", role=CommitmentRole.USER, state=CommitmentState.REQUESTED)
    with pytest.raises(Exception, match="UNIQUE"):
        put(database, "1.2")
    again = put(database, "1.2", 7, duplicate_of=first.commitment_key)
    with database.read() as connection:
        assert rows.find(connection, CommitmentRole.PROVIDER, "1.2") == first
        assert rows.duplicates_of(connection, first.commitment_key) == [again]
        same = rows.find_unreported(connection, CommitmentRole.PROVIDER, "1.2", "scanner", again.content)
        assert same == again
        other = rows.find_unreported(connection, CommitmentRole.PROVIDER, "1.2", "else", again.content)
        assert other is None


def test_a_reported_transaction_is_not_one_that_a_request_repeats(database):
    made = put(database, "1.2")
    with database.write() as transaction:
        rows.change(
            transaction,
            made.commitment_key,
            state=CommitmentState.REPORTED,
            reported_at=transaction.at,
            error="x" * 1000,
        )
    with database.read() as connection:
        found = rows.find_unreported(connection, CommitmentRole.PROVIDER, "1.2", "scanner", made.content)
        assert found is None
        changed = rows.find_by_key(connection, made.commitment_key)
    assert changed is not None
    assert (changed.state, len(changed.error)) == (CommitmentState.REPORTED, 300)


def test_outcomes_are_written_by_position_with_the_time(database):
    made = put(database, "1.2", *range(5))
    with database.write() as transaction:
        rows.set_outcomes(
            transaction,
            made.commitment_key,
            [
                Outcome(position=4, outcome=InstanceOutcome.COMMITTED),
                Outcome(position=1, outcome=InstanceOutcome.FAILED, reason=0x0112, words="w" * 1000),
            ],
        )
        at = transaction.at
    with database.read() as connection:
        found = rows.instances_of(connection, made.commitment_key)
        by_outcome = {
            outcome: [
                one.position for one in rows.instances_of(connection, made.commitment_key, outcome=outcome)
            ]
            for outcome in InstanceOutcome
        }
        assert rows.failures_of(connection, made.commitment_key) == 1
        assert rows.open_of(connection, made.commitment_key) == 3
    assert by_outcome == {
        InstanceOutcome.OPEN: [0, 2, 3],
        InstanceOutcome.COMMITTED: [4],
        InstanceOutcome.FAILED: [1],
        InstanceOutcome.UNASKED: [],
    }
    assert (found[1].reason, len(found[1].words), found[1].checked_at) == (0x0112, 300, at)
    assert found[0].checked_at is None


def test_instances_come_page_by_page(database):
    made = put(database, "1.2", *range(10))
    with database.read() as connection:
        pages = []
        after = -1
        while page := rows.instances_of(connection, made.commitment_key, after, 4):
            pages.append([one.position for one in page])
            after = page[-1].position
    assert pages == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_what_was_not_asked_for_stands_behind_what_was(database):
    made = put(database, "1.2", 1, 2)
    with database.write() as transaction:
        rows.add_unasked(transaction, made.commitment_key, references(8, 9))
        rows.add_unasked(transaction, made.commitment_key, references(7))
    with database.read() as connection:
        found = rows.instances_of(connection, made.commitment_key, 1)
    assert [(one.position, one.sop_instance_uid, one.outcome) for one in found] == [
        (2, "1.2.3.8", InstanceOutcome.UNASKED),
        (3, "1.2.3.9", InstanceOutcome.UNASKED),
        (4, "1.2.3.7", InstanceOutcome.UNASKED),
    ]


def test_listings_are_newest_first_by_pages_and_filters(database):
    for number in range(7):
        put(
            database,
            f"1.2.{number}",
            peer="b" if number % 2 else "a",
            requested_at=f"2026-01-0{number + 1}T00:00:00.000000Z",
        )
    put(database, "1.2.3", role=CommitmentRole.USER, state=CommitmentState.REQUESTED, peer="a")

    def uids(**only) -> list[str]:
        with database.read() as connection:
            found = rows.list_commitments(connection, CommitmentFilter(**only))
        return [one.transaction_uid.rpartition(".")[2] for one in found]

    assert uids(role=CommitmentRole.PROVIDER) == ["6", "5", "4", "3", "2", "1", "0"]
    assert uids(peer="b") == ["5", "3", "1"]
    assert uids(states=[CommitmentState.REQUESTED]) == ["3"]
    assert uids(transaction_uid="1.2.3") == ["3", "3"]
    assert uids(requested_from="2026-01-03T00:00:00.000000Z", role=CommitmentRole.PROVIDER)[-1] == "2"
    assert uids(requested_to="2026-01-03T00:00:00.000000Z", role=CommitmentRole.PROVIDER) == ["1", "0"]
    with database.read() as connection:
        first = rows.list_commitments(connection, CommitmentFilter(limit=3))
        then = rows.list_commitments(
            connection, CommitmentFilter(limit=3, before_key=first[-1].commitment_key)
        )
        assert len(rows.list_commitments(connection)) == 8
    keys = [one.commitment_key for one in (*first, *then)]
    assert keys == sorted(keys, reverse=True)
    assert len(keys) == 6


def test_an_instance_tells_in_which_transactions_it_is(database):
    put(database, "1.2.1", 5, 6)
    put(database, "1.2.2", 6)
    put(database, "1.2.3", 6, role=CommitmentRole.USER, state=CommitmentState.REQUESTED)
    with database.read() as connection:
        found = rows.commitments_of_instance(connection, "1.2.3.6", CommitmentRole.PROVIDER)
        all_of_it = rows.commitments_of_instance(connection, "1.2.3.6")
        assert rows.commitments_of_instance(connection, "1.2.3.7") == []
    assert [(one.transaction_uid, instance.position) for one, instance in found] == [
        ("1.2.2", 0),
        ("1.2.1", 1),
    ]
    assert len(all_of_it) == 3


def test_reports_are_counted_and_concluded(database):
    made = put(database, "1.2")
    with database.write() as transaction:
        key = rows.note_report(
            transaction,
            made.commitment_key,
            at=transaction.at,
            way=rows.WAY_NEW_ASSOCIATION,
            status=None,
            words="nobody is there",
        )
    with database.read() as connection:
        assert not rows.was_sent(connection, made.commitment_key)
    with database.write() as transaction:
        rows.conclude_report(
            transaction, key, status=None, words=f"{rows.SENT_WITHOUT_ANSWER}: gone", seconds=1.5
        )
    with database.read() as connection:
        assert rows.was_sent(connection, made.commitment_key)
        assert rows.last_answered(connection, made.commitment_key) == 0
    with database.write() as transaction:
        at = transaction.at
        answered = rows.note_report(transaction, made.commitment_key, at=at, way="web", status=0x0000)
        last = rows.note_report(transaction, made.commitment_key, at="2030", way="web", status=0x0110)
    with database.read() as connection:
        found = rows.reports_of(connection, made.commitment_key)
        commitment = rows.find_by_key(connection, made.commitment_key)
        assert rows.last_answered(connection, made.commitment_key) == answered
        assert rows.last_report(connection, made.commitment_key) == last > answered
        assert rows.last_report(connection, made.commitment_key + 1) == 0
        counted = rows.report_counts(connection)
    assert [(one.way, one.status, one.seconds) for one in found] == [
        (rows.WAY_NEW_ASSOCIATION, None, 1.5),
        ("web", 0, 0.0),
        ("web", 0x0110, 0.0),
    ]
    assert commitment is not None
    assert commitment.report_attempts == 3
    assert counted == {
        ("scanner", rows.WAY_NEW_ASSOCIATION, None): 1,
        ("scanner", "web", 0): 1,
        ("scanner", "web", 0x0110): 1,
    }


@pytest.mark.parametrize(
    ("status", "is_delivered"),
    [(0x0000, True), (0x0107, True), (0xB000, True), (0x0110, False), (0x0112, False), (0x0211, False)],
)
def test_only_success_and_warnings_are_deliveries(status, is_delivered):
    assert rows.is_delivered(status) is is_delivered


def test_counts_add_up_transactions_and_their_instances(database):
    one = put(database, "1.2.1", 1, 2, 3)
    put(database, "1.2.2", 1)
    with database.write() as transaction:
        rows.change(transaction, one.commitment_key, state=CommitmentState.CHECKED, failures=2)
    with database.read() as connection:
        found = {
            (one.role, one.state): (one.commitments, one.instances, one.failures)
            for one in rows.counts(connection)
        }
    assert found == {
        (CommitmentRole.PROVIDER, CommitmentState.CHECKED): (1, 3, 2),
        (CommitmentRole.PROVIDER, CommitmentState.RECEIVED): (1, 1, 0),
    }


def test_the_oldest_unreported_is_of_those_that_will_still_be_reported(database):
    given_up = put(database, "1.2.1", requested_at="2026-01-01T00:00:00.000000Z")
    by_http = put(database, "1.2.2", way=rows.WAY_WEB, requested_at="2026-01-02T00:00:00.000000Z")
    told = put(database, "1.2.3", requested_at="2026-01-03T00:00:00.000000Z")
    with database.read() as connection:
        assert rows.oldest_unreported_at(connection) == given_up.requested_at
    with database.write() as transaction:
        rows.change(transaction, given_up.commitment_key, state=CommitmentState.UNDELIVERED)
        rows.change(
            transaction, told.commitment_key, state=CommitmentState.REPORTED, reported_at=transaction.at
        )
    with database.read() as connection:
        assert rows.oldest_unreported_at(connection) is None
    put(database, "1.2.4", requested_at="2026-01-04T00:00:00.000000Z")
    with database.read() as connection:
        assert rows.oldest_unreported_at(connection) == "2026-01-04T00:00:00.000000Z"
    assert by_http.way == "web"


def test_a_transaction_that_fails_leaves_nothing(database):
    request = CommitmentRequest(
        role=CommitmentRole.PROVIDER,
        way=rows.WAY_DIMSE,
        transaction_uid="1.2",
        state=CommitmentState.RECEIVED,
        requested_at="2026-01-02T03:04:05.000000Z",
    )

    def write_and_fail() -> None:
        with database.write() as transaction:
            rows.insert(transaction, request, references(1))
            raise DatabaseUnavailable("the disk is full")

    with pytest.raises(DatabaseUnavailable):
        write_and_fail()
    with database.read() as connection:
        assert rows.list_commitments(connection) == []
