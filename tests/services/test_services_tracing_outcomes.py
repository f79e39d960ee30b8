"""What spans tell of an instance after it came: storage commitment and forwards, in the trace that brought it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.database.engine import Database
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import (
    CommitmentRole,
    CommitmentState,
)
from stowkeeper.services.tracing import desk as desk_module
from stowkeeper.services.tracing import forward_spans
from stowkeeper.services.tracing.span import SpanKind, trace_id_of
from support.catalog_rows import open_database
from support.tracing_rig import (
    CLOSED,
    NANOSECONDS,
    OPENED,
    SECOND,
    Rig,
    commit,
    conclude,
    forward,
    keep,
    move,
    request,
    requested,
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path, sync=False)


@pytest.fixture
def rig(database: Database, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(database, tmp_path)
    yield made
    made.desk.end()


# Storage commitment.


def test_a_check_lies_in_the_trace_that_brought_the_instance(rig: Rig) -> None:
    (receipt_id,) = keep(rig.database, 1)
    requested(rig.database, request(receipt_id=receipt_id))
    stored, _ = rig.look()
    key = commit(rig.database, [1, None])
    assert rig.look() == []
    conclude(rig.database, key, [1, None], checked_at=CLOSED, failures=1, state=CommitmentState.CHECKED)
    transaction, check = rig.look()
    assert rig.look() == []

    assert (transaction.name, transaction.trace_id) == ("storage commitment", trace_id_of("asking"))
    assert (transaction.start, transaction.end) == (NANOSECONDS, NANOSECONDS + 9_500_000_000)
    assert transaction.failure == "1 of 2 instances failed"
    assert transaction.attributes == {
        "dicom.transaction_uid": "2.25.1",
        "stowkeeper.peer": "scanner",
        "stowkeeper.instances": 2,
        "stowkeeper.failures": 1,
    }
    assert check.name == "storage commitment check"
    assert (check.trace_id, check.parent_id) == (stored.trace_id, stored.span_id)
    assert check.link == (transaction.trace_id, transaction.span_id)
    assert check.failure is None
    assert check.attributes == {
        "dicom.sop_instance_uid": "1.2.3.1",
        "dicom.transaction_uid": "2.25.1",
        "stowkeeper.peer": "scanner",
        "stowkeeper.outcome": "committed",
    }


def test_a_large_transaction_is_told_in_several_looks(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(rig.database, *range(1, 6))
    rig.look()
    monkeypatch.setattr(desk_module, "SPANS_PER_LOOK", 2)
    versions = [1, 2, 3, 4, 5]
    conclude(rig.database, commit(rig.database, versions), versions, checked_at=CLOSED)
    told = []
    while found := rig.look():
        assert len(found) <= 2
        told += [span.attributes["dicom.sop_instance_uid"] for span in found if span.link]
    assert told == [f"1.2.3.{number}" for number in versions]


def test_a_report_is_told_when_it_is_known_how_it_went(rig: Rig) -> None:
    key = commit(rig.database, [None])
    conclude(rig.database, key, [None], checked_at=CLOSED, failures=1)
    transaction = rig.one("storage commitment")
    with rig.database.write() as writing:
        report = rows.note_report(
            writing, key, at=OPENED, way="new association", status=None, words=rows.SENT_WITHOUT_ANSWER
        )
    assert rig.look() == []
    with rig.database.write() as writing:
        rows.conclude_report(writing, report, status=0, words="", seconds=2.0)
    span = rig.one("storage commitment report")
    assert (span.trace_id, span.parent_id) == (transaction.trace_id, transaction.span_id)
    assert (span.end - span.start, span.failure) == (2 * SECOND, None)
    assert span.attributes["dicom.status"] == "0000H"
    with rig.database.write() as writing:
        rows.note_report(
            writing, key, at=OPENED, way="new association", status=None, words="nobody answers", seconds=3.0
        )
    again = rig.one("storage commitment report")
    assert again.failure == "nobody answers"
    assert again.span_id != span.span_id


def test_a_commitment_of_a_peer_is_told_when_its_report_came(rig: Rig) -> None:
    keep(rig.database, 1)
    rig.look()
    key = commit(rig.database, [1], role=CommitmentRole.USER, association_id="")
    assert rig.look() == []
    conclude(rig.database, key, [1], reported_at=CLOSED, state=CommitmentState.COMMITTED)
    span = rig.one("storage commitment of peer")
    assert (span.kind, span.failure, span.link) == (SpanKind.CLIENT, None, None)


def test_transactions_that_are_open_at_the_beginning_are_told(database: Database, tmp_path: Path) -> None:
    keep(database, 1)
    over, open_ = commit(database, [1]), commit(database, [1], role=CommitmentRole.USER)
    conclude(database, over, [1], checked_at=CLOSED)
    rig = Rig(database, tmp_path)
    assert rig.look() == []
    conclude(database, open_, [1], reported_at=CLOSED, state=CommitmentState.COMMITTED)
    rig.one("storage commitment of peer")


def test_open_transactions_are_looked_at_in_turn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(rig.database, 1)
    rig.look()
    monkeypatch.setattr(desk_module, "SPANS_PER_LOOK", 1)
    commit(rig.database, [1], association_id="")
    over = commit(rig.database, [1], role=CommitmentRole.USER, association_id="")
    rig.look()
    conclude(rig.database, over, [1], reported_at=CLOSED, state=CommitmentState.COMMITTED)
    told = list(itertools.chain.from_iterable(rig.look() for _ in range(2)))
    assert [span.name for span in told] == ["storage commitment of peer"]


# Forwards.


@pytest.mark.slow
def test_a_forward_lies_in_the_trace_that_brought_the_instance(rig: Rig) -> None:
    (receipt_id,) = keep(rig.database, 1)
    requested(rig.database, request(receipt_id=receipt_id))
    stored, _ = rig.look()
    key = forward(rig.database, 1)
    assert rig.look() == []
    move(rig.database, key, "queued", job_key=5, position=0)
    assert rig.look() == []
    move(rig.database, key, "sent")
    span = rig.one("forward")
    assert rig.look() == []
    assert (span.trace_id, span.parent_id, span.kind) == (stored.trace_id, stored.span_id, SpanKind.CLIENT)
    assert (span.start, span.end, span.failure) == (NANOSECONDS, NANOSECONDS + 9_500_000_000, None)
    assert span.attributes == {
        "dicom.sop_instance_uid": "1.2.3.1",
        "stowkeeper.destination": "archive",
        "stowkeeper.rule": "ct to archive",
        "stowkeeper.outcome": "sent",
        "stowkeeper.receipt": receipt_id,
        "stowkeeper.bytes": 1000,
    }


def test_a_forward_that_failed_is_told_and_told_again_when_it_is_tried_again(rig: Rig) -> None:
    keep(rig.database, 1)
    rig.look()
    key = forward(rig.database, 1)
    move(
        rig.database,
        key,
        "failed",
        job_key=5,
        words="A700H Refused: out of resources (“no room for DOE^JANE”).",
    )
    failed = rig.one("forward")
    # Without what the peer says: nobody knows what it tells of a patient.
    assert failed.failure == "A700H Refused: out of resources (“…”)."
    assert rig.look() == []
    move(rig.database, key, "queued", words="")
    assert rig.look() == []
    # The same job, submitted again.
    move(
        rig.database,
        key,
        "failed",
        words="409 Conflict: “1234 is JANE DOE”",
        changed_at="2026-01-02T00:00:10.000000Z",
    )
    again = rig.one("forward")
    move(rig.database, key, "sent", changed_at="2026-01-02T00:00:11.000000Z")
    sent = rig.one("forward")
    assert (again.failure, sent.failure) == ("409 Conflict: “…”", None)
    assert len({failed.span_id, again.span_id, sent.span_id}) == 3


def test_forwards_that_are_open_at_the_beginning_are_told(database: Database, tmp_path: Path) -> None:
    keep(database, 1)
    waiting = forward(database, 1, "waiting")
    forward(database, 1, "failed", state="failed", job_key=5)
    forward(database, 1, "sent", state="sent")
    rig = Rig(database, tmp_path)
    assert rig.look() == []
    move(database, waiting, "sent", job_key=6)
    assert rig.one("forward").attributes["stowkeeper.destination"] == "waiting"


def test_open_forwards_are_looked_at_in_turn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(rig.database, 1)
    rig.look()
    monkeypatch.setattr(forward_spans, "FORWARDS_PER_LOOK", 2)
    keys = [forward(rig.database, 1, f"d{number}") for number in range(5)]
    rig.look()
    move(rig.database, keys[4], "sent")
    told = list(itertools.chain.from_iterable(rig.look() for _ in range(3)))
    assert [span.attributes["stowkeeper.destination"] for span in told] == ["d4"]
