"""What spans are made of the rows: whose they are, what they say, and that no look does more than its bound."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from stowkeeper.archive import catalog
from stowkeeper.archive.versions import mark_damaged
from stowkeeper.database.engine import Database
from stowkeeper.services.tracing import desk as desk_module
from stowkeeper.services.tracing import following
from stowkeeper.services.tracing.desk import TracingDesk
from stowkeeper.services.tracing.limits import TEXT_LETTERS_MAX
from stowkeeper.services.tracing.sending import SpanSender
from stowkeeper.services.tracing.span import Span, SpanKind, is_wanted, trace_id_of
from support.catalog_rows import make_entry, open_database
from support.tracing_rig import (
    ASSOCIATION,
    CLOSED,
    NANOSECONDS,
    SECOND,
    NoExporter,
    Rig,
    associate,
    forward,
    keep,
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


# The ledger.


def test_an_association_is_the_root_of_its_trace_when_it_ended(rig: Rig) -> None:
    associate(rig.database)
    assert rig.look() == []
    associate(rig.database, closed_at=CLOSED, ended="released", messages=3, bytes_received=4711)
    span = rig.one("association")
    assert rig.look() == []
    assert span.trace_id == int.from_bytes(blake3(ASSOCIATION.encode()).digest()[:16], "big")
    assert (span.parent_id, span.kind, span.failure) == (0, SpanKind.SERVER, None)
    assert (span.start, span.end) == (NANOSECONDS, NANOSECONDS + 9_500_000_000)
    assert span.attributes == {
        "network.protocol.name": "dicom",
        "client.address": "192.0.2.17",
        "dicom.association.id": ASSOCIATION,
        "dicom.calling_ae_title": "SCANNER",
        "dicom.called_ae_title": "STOWKEEPER",
        "dicom.contexts.accepted": 0,
        "dicom.contexts.refused": 0,
        "dicom.messages": 3,
        "stowkeeper.bytes": 4711,
        "stowkeeper.ended": "released",
    }


@pytest.mark.parametrize(
    ("ended", "failure"),
    [
        ("released", None),
        ("shutdown", None),
        ("aborted", "aborted: it went"),
        ("lost", "lost: it went"),
        ("rejected", "rejected: it went"),
    ],
)
def test_an_association_that_ended_badly_is_an_error(rig: Rig, ended: str, failure: str | None) -> None:
    associate(rig.database, closed_at=CLOSED, ended=ended, words="it went", rejection=(1, 1, 7))
    span = rig.one("association")
    assert span.failure == failure
    assert span.attributes["dicom.rejection"] == "1,1,7"


def test_a_clock_that_was_set_back_makes_no_span_that_ends_before_it_begins(rig: Rig) -> None:
    associate(rig.database, closed_at="2025-12-31T00:00:00.000000Z", ended="released")
    span = rig.one("association")
    assert span.start == span.end == NANOSECONDS


def test_requests_lie_below_their_association(rig: Rig) -> None:
    kept = request()
    refused = request(
        outcome="refused", status=0xA900, error_comment="it differs from the command's", message_id=8
    )
    lost = request(outcome="lost", error_comment="the connection was lost", message_id=9)
    associate(rig.database, closed_at=CLOSED, ended="released")
    requested(rig.database, kept, refused, lost)
    association, *spans = rig.look()
    assert [span.name for span in spans] == ["C-STORE"] * 3
    assert {span.trace_id for span in spans} == {association.trace_id}
    assert {span.parent_id for span in spans} == {association.span_id}
    assert len({span.span_id for span in spans}) == 3
    assert [span.failure for span in spans] == [
        None,
        "refused: it differs from the command's",
        "lost: the connection was lost",
    ]
    assert (spans[0].start, spans[0].end) == (NANOSECONDS, NANOSECONDS + 1_500_000_000)
    assert spans[0].attributes == {
        "dicom.message_id": 7,
        "dicom.sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "dicom.sop_instance_uid": "1.2.3.1",
        "dicom.transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "dicom.status": "0000H",
        "stowkeeper.outcome": "kept",
        "stowkeeper.receipt": kept.receipt_id,
        "stowkeeper.bytes": 1000,
        "stowkeeper.seconds.network": 0.5,
        "stowkeeper.seconds.disk": 0.25,
        "stowkeeper.seconds.total": 1.5,
    }
    assert spans[1].attributes["dicom.status"] == "A900H"
    assert "dicom.status" not in spans[2].attributes


def test_the_listing_lies_below_the_request_of_its_receipt(rig: Rig) -> None:
    (receipt_id,) = keep(rig.database, 1)
    listing = rig.one("listing")
    requested(rig.database, request(receipt_id=receipt_id))
    stored = rig.one("C-STORE")
    assert listing.parent_id == stored.span_id
    assert listing.trace_id == stored.trace_id == trace_id_of(ASSOCIATION)
    assert listing.start == NANOSECONDS + SECOND  # `make_entry`: in second 1 of that day
    assert listing.end > listing.start
    assert listing.attributes == {
        "stowkeeper.receipt": receipt_id,
        "stowkeeper.outcome": "stored",
        "stowkeeper.bytes": 1000,
    }


def test_what_happens_to_a_version_later_is_no_listing(rig: Rig) -> None:
    keep(rig.database, 1)
    rig.one("listing")
    with rig.database.write() as transaction:
        assert mark_damaged(transaction, make_entry(1, 1).path, "test") is not None
    assert rig.look() == []


def test_what_came_without_an_association_has_no_trace(rig: Rig) -> None:
    entry = make_entry(1, 1)
    receipt = entry.receipt
    object.__setattr__(receipt, "association_id", "")
    object.__setattr__(receipt, "received_by", "import")
    with rig.database.write() as transaction:
        catalog.insert(transaction, [entry])
    assert rig.look() == []


def test_what_was_before_is_not_told_but_the_end_of_what_is_open(database: Database, tmp_path: Path) -> None:
    associate(database, "over", closed_at=CLOSED, ended="released")
    associate(database, "open")
    requested(database, request("over"))
    keep(database, 1)
    rig = Rig(database, tmp_path)
    assert rig.look() == []
    associate(database, "open", closed_at=CLOSED, ended="released")
    assert rig.one("association").attributes["dicom.association.id"] == "open"


def test_a_store_request_by_http_is_named_so(rig: Rig) -> None:
    name = "0a1b2c3d-web-1"
    associate(rig.database, name, closed_at=CLOSED, ended="released", calling_ae_title="", called_ae_title="")
    requested(rig.database, request(name))
    root, part = rig.look()
    assert (root.name, part.name) == ("store request by HTTP", "STOW-RS instance")
    assert root.attributes["network.protocol.name"] == "http"
    assert "dicom.calling_ae_title" not in root.attributes


def test_what_a_peer_makes_up_is_bounded(rig: Rig) -> None:
    associate(
        rig.database,
        closed_at=CLOSED,
        ended="released",
        calling_ae_title="é" * 2 * TEXT_LETTERS_MAX,
    )
    span = rig.one("association")
    assert span.attributes["dicom.calling_ae_title"] == "é" * TEXT_LETTERS_MAX


# The share.


@pytest.mark.slow
def test_a_share_of_the_traces_is_told_each_with_all_of_it(database: Database, tmp_path: Path) -> None:
    rig = Rig(database, tmp_path, share=0.25)
    names = [hashlib.md5(str(number).encode()).hexdigest() for number in range(400)]
    for name in names:
        associate(database, name, closed_at=CLOSED, ended="released")
    requested(database, *(request(name) for name in names))
    told = []
    while found := rig.look():
        told += found
    roots = {span.trace_id for span in told if span.name == "association"}
    assert roots == {span.trace_id for span in told if span.name == "C-STORE"}
    assert roots == {trace_id_of(name) for name in names if is_wanted(trace_id_of(name), 0.25)}
    assert 60 < len(roots) < 140
    assert rig.dropped == 0


def test_the_whole_and_nothing_are_shares() -> None:
    assert is_wanted((1 << 128) - 1, 1.0)
    assert not is_wanted((1 << 128) - 1, 0.999)
    assert not is_wanted(0, 0.0)


# Bounds.


@pytest.mark.slow
def test_a_look_tells_no_more_than_its_bound_and_the_next_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "SPANS_PER_LOOK", 2)
    for name in "abc":
        associate(rig.database, name, closed_at=CLOSED, ended="released")
    requested(rig.database, *(request("a", message_id=number) for number in range(5)))
    keep(rig.database, 1, 2, 3)
    told: list[Span] = []
    looks = 0
    while found := rig.look():
        assert all(
            len([span for span in found if span.name == name]) <= 2
            for name in ("association", "C-STORE", "listing")
        )
        told += found
        looks += 1
    assert looks == 3
    numbers = [span.attributes["dicom.message_id"] for span in told if span.name == "C-STORE"]
    assert numbers == [0, 1, 2, 3, 4]
    assert len([span for span in told if span.name == "association"]) == 3
    assert len([span for span in told if span.name == "listing"]) == 3
    assert rig.dropped == 0


def test_rows_that_are_too_many_are_passed_by_and_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "ROWS_BEHIND_MAX", 3)
    requested(rig.database, *(request() for _ in range(5)))
    assert rig.look() == []
    assert rig.dropped == 5
    requested(rig.database, request())
    rig.one("C-STORE")


def test_those_whose_end_is_awaited_are_bounded(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following.Awaited.__init__, "__defaults__", (2,))
    rig = Rig(database, tmp_path)
    for name in "abc":
        associate(database, name)
    rig.look()
    assert rig.dropped == 1
    for name in "abc":
        associate(database, name, closed_at=CLOSED, ended="released")
    assert [span.attributes["dicom.association.id"] for span in rig.look()] == ["b", "c"]


# Whose turn it is.


def test_one_process_of_an_archive_traces_and_another_when_it_ended(
    database: Database, tmp_path: Path
) -> None:
    first = Rig(database, tmp_path)
    sender = SpanSender(NoExporter())
    second = TracingDesk(database, sender, lock_folder=str(tmp_path / "tracing"))
    assert not second.begin()
    first.desk.end()
    assert second.begin()
    second.end()


def test_the_folder_of_the_lock_is_its_owners_alone(database: Database, tmp_path: Path) -> None:
    desk = TracingDesk(database, SpanSender(NoExporter()), lock_folder=str(tmp_path / "jobs" / "tracing"))
    assert desk.begin()
    for folder in (tmp_path / "jobs", tmp_path / "jobs" / "tracing"):
        assert folder.stat().st_mode & 0o777 == 0o700
    desk.end()


def test_a_row_that_cannot_be_told_does_not_stop_the_others(rig: Rig) -> None:
    requested(rig.database, request(requested_at="no time"), request(message_id=8))
    with pytest.raises(ValueError, match="no time"):
        rig.look()
    assert rig.one("C-STORE").attributes["dicom.message_id"] == 8


def test_an_association_that_cannot_be_told_does_not_come_again_and_again(rig: Rig) -> None:
    associate(rig.database, opened_at="no time", closed_at=CLOSED, ended="released")
    with pytest.raises(ValueError, match="no time"):
        rig.look()
    assert rig.look() == []


def test_receipts_are_never_read_as_a_whole(database: Database) -> None:
    """Each query finds its rows by an index: an archive of years costs a look no more than a new one."""
    seen: list[str] = []
    wanted = following.Wanted(1.0)
    keep(database, 1)
    forward(database, 1)
    with database.read() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        sources = (
            desk_module.AssociationSpans(wanted),
            desk_module.RequestSpans(wanted),
            desk_module.ListingSpans(wanted),
            desk_module.CommitmentSpans(wanted),
            desk_module.ReportSpans(wanted),
            desk_module.ForwardSpans(wanted),
        )
        raw.set_trace_callback(seen.append)
        for source in sources:
            source.begin(connection)
            source.look(connection, 10)
        raw.set_trace_callback(None)
        statements = [text for text in seen if text.startswith("SELECT")]
        assert len(statements) > 10
        for statement in statements:
            for *_, plan in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all():
                assert not plan.startswith("SCAN") or "INDEX" in plan, (plan, statement)
