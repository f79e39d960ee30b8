"""Rows of the ledger, of storage commitment and of forwards as the server writes them, and a desk that tells them as spans."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert, update

from stowkeeper.archive import catalog
from stowkeeper.archive.ledger import AssociationRecord, RequestRecord, record_associations, record_requests
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import forwards
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import (
    CommitmentRequest,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
    Outcome,
)
from stowkeeper.services.tracing.desk import TracingDesk
from stowkeeper.services.tracing.sending import SpanSender
from stowkeeper.services.tracing.span import Span
from support.catalog_rows import make_entry

OPENED = "2026-01-02T00:00:00.000000Z"
CLOSED = "2026-01-02T00:00:09.500000Z"
NANOSECONDS = 1_767_312_000_000_000_000
"""Of the first of these, since 1970."""
SECOND = 1_000_000_000
ASSOCIATION = "a" * 32
"""Of what `make_entry` makes."""
_numbers = itertools.count(1)


class NoExporter:
    """Nothing is sent: these tests take spans from the queue."""

    def export(self, spans: Sequence[Span]) -> str:
        raise AssertionError(spans)

    def close(self) -> None:
        pass


class Rig:
    """A desk over a database, and what it told."""

    def __init__(self, database: Database, folder: Path, share: float = 1.0) -> None:
        self.database = database
        self.sender = SpanSender(NoExporter(), queue_max=10_000)
        self.desk = TracingDesk(database, self.sender, lock_folder=str(folder / "tracing"), share=share)
        assert self.desk.begin()

    def look(self) -> list[Span]:
        """Look once, and return what was told."""
        self.desk.look()
        waiting = self.sender._waiting
        told = list(waiting)
        waiting.clear()
        return told

    def one(self, name: str) -> Span:
        """Look once, and return the only span."""
        (span,) = self.look()
        assert span.name == name
        return span

    @property
    def dropped(self) -> int:
        return self.sender.counts()["dropped"]


def associate(database: Database, association_id: str = ASSOCIATION, **more: Any) -> None:
    values: dict[str, Any] = {
        "association_id": association_id,
        "receiver": "r",
        "opened_at": OPENED,
        "calling_ae_title": "SCANNER",
        "called_ae_title": "STOWKEEPER",
        "peer_address": "192.0.2.17",
    }
    with database.write() as transaction:
        record_associations(transaction, [AssociationRecord(**(values | more))])


def request(association_id: str = ASSOCIATION, outcome: str = "kept", **more: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "association_id": association_id,
        "message_id": 7,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": "1.2.3.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "requested_at": OPENED,
        "status": 0 if outcome == "kept" else None,
        "outcome": outcome,
        "receipt_id": f"{next(_numbers):032x}" if outcome == "kept" else "",
        "data_set_length": 1000,
        "seconds_network": 0.5,
        "seconds_disk": 0.25,
        "seconds_total": 1.5,
    }
    return RequestRecord(**(values | more))


def requested(database: Database, *records: RequestRecord) -> None:
    with database.write() as transaction:
        record_requests(transaction, records)


def keep(database: Database, *numbers: int) -> list[str]:
    """List instances 1.2.3.<number>; return their receipts."""
    entries = [make_entry(number, number) for number in numbers]
    with database.write() as transaction:
        catalog.insert(transaction, entries)
    return [entry.receipt.receipt_id for entry in entries]


def commit(
    database: Database,
    versions: Sequence[int | None],
    *,
    role: CommitmentRole = CommitmentRole.PROVIDER,
    association_id: str = "asking",
) -> int:
    """Write a transaction about instances 1.2.3.1 and so on, of these versions; return its key."""
    is_ours = role is CommitmentRole.PROVIDER
    asked = CommitmentRequest(
        role=role,
        way="DIMSE",
        transaction_uid="2.25.1",
        state=CommitmentState.RECEIVED if is_ours else CommitmentState.REQUESTED,
        peer="scanner",
        association_id=association_id,
        requested_at=OPENED,
    )
    references = [Reference("1.2", f"1.2.3.{number}") for number in range(1, len(versions) + 1)]
    with database.write() as transaction:
        return rows.insert(transaction, asked, references, [] if is_ours else versions).commitment_key


def conclude(database: Database, key: int, versions: Sequence[int | None], **columns: Any) -> None:
    """Write the outcomes: what has a version is committed."""
    outcomes = [
        Outcome(
            position=position,
            outcome=InstanceOutcome.FAILED if version is None else InstanceOutcome.COMMITTED,
            reason=0x0112 if version is None else None,
            version_key=version,
            words="it is not here" if version is None else "",
        )
        for position, version in enumerate(versions)
    ]
    with database.write() as transaction:
        rows.set_outcomes(transaction, key, outcomes)
        rows.change(transaction, key, **columns)


def forward(database: Database, version_key: int, destination: str = "archive", **more: Any) -> int:
    values: dict[str, Any] = {
        "version_key": version_key,
        "destination": destination,
        "rule": "ct to archive",
        "priority": 0,
        "state": "waiting",
        "words": "",
        "created_at": OPENED,
        "changed_at": OPENED,
    }
    with database.write() as transaction:
        made = transaction.execute(insert(forwards).values(values | more))
        return int(made.inserted_primary_key[0])


def move(database: Database, forward_key: int, state: str, **more: Any) -> None:
    with database.write() as transaction:
        of_it = update(forwards).where(forwards.c.forward_key == forward_key)
        transaction.execute(of_it.values({"state": state, "changed_at": CLOSED, **more}))
