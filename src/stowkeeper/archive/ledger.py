"""The ledger: every association, and every C-STORE request seen, whatever became of it.

Only rows know this, so a kill can lose the last batch. What was kept is not in danger by that: its receipt is
in its file.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.sqlite import insert

from stowkeeper.archive.catalog_values import portions
from stowkeeper.database.engine import Transaction, compile_insert
from stowkeeper.database.schema import associations, receipts, requests


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRecord:
    """One association, or one store request by HTTP, which has no AE titles; open (`closed_at` None) or ended.

    Times are UTC in ISO 8601 with microseconds. `receiver` names the receiving process as its depot folder is
    named. `user_identity_type` is that of PS3.7 §D.3.3.7, None when no identity was given; the name is None for types
    that have none. `rejection` is result, source and reason of PS3.8 §9.3.4. `contexts` are those of
    `encode_contexts`; an empty text leaves what was written before. `ended` is released, aborted, lost, rejected,
    refused or shutdown, `words` say why, without patient data.
    """

    association_id: str
    opened_at: str
    peer_address: str
    receiver: str = ""
    closed_at: str | None = None
    calling_ae_title: str = ""
    called_ae_title: str = ""
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    user_identity_type: int | None = None
    user_identity_name: str | None = None
    rejection: tuple[int, int, int] | None = None
    contexts_accepted: int = 0
    contexts_refused: int = 0
    contexts: str = ""
    messages: int = 0
    bytes_received: int = 0
    ended: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One C-STORE request, or one part of a store request by HTTP, and what became of it.

    `requested_at` is UTC in ISO 8601 with microseconds. `status` is what was answered, None when nothing was.
    `error_comment` is that of the answer, or why there was none. `outcome` is kept, refused or lost (the data set
    did not come whole). The seconds are those until the last byte was there, those in writing and syncing, and all
    of them from command to answer. `was_listed_first` tells that the instance was listed before its sender was given
    Success, so that its receipt does not know of that yet.
    """

    association_id: str
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    requested_at: str
    status: int | None
    error_comment: str = ""
    data_set_length: int = 0
    digest: str = ""
    outcome: str
    receipt_id: str = ""
    seconds_network: float = 0.0
    seconds_disk: float = 0.0
    seconds_total: float = 0.0
    was_listed_first: bool = False


_REQUEST_COLUMNS = tuple(field.name for field in fields(RequestRecord) if field.name != "was_listed_first")
_INSERT_REQUEST = compile_insert(requests, _REQUEST_COLUMNS)

_upsert = insert(associations)
_UPSERT_ASSOCIATION = _upsert.on_conflict_do_update(
    index_elements=["association_id"],
    set_={
        column.name: _upsert.excluded[column.name]
        for column in associations.c
        if column.name not in ("association_key", "association_id", "contexts")
    }
    | {"contexts": func.coalesce(_upsert.excluded.contexts, associations.c.contexts)},
    # A row that says how it ended is not opened again by one that was written late.
    where=_upsert.excluded.closed_at.is_not(None),
)


def record_requests(transaction: Transaction, rows: Sequence[RequestRecord]) -> None:
    """Write requests. Their associations may be written before, with them, or later."""
    transaction.executemany(
        _INSERT_REQUEST,
        [
            (
                row.association_id,
                row.message_id,
                row.sop_class_uid,
                row.sop_instance_uid,
                row.transfer_syntax_uid,
                row.requested_at,
                row.status,
                row.error_comment,
                row.data_set_length,
                row.digest,
                row.outcome,
                row.receipt_id,
                row.seconds_network,
                row.seconds_disk,
                row.seconds_total,
            )
            for row in rows
        ],
    )
    for portion in portions(row.receipt_id for row in rows if row.was_listed_first):
        transaction.execute(update(receipts).where(receipts.c.receipt_id.in_(portion)).values(answer="known"))


def encode_contexts(contexts: Iterable[tuple[int, str, int, str]]) -> str:
    """Return presentation contexts as the ledger keeps them: id, abstract syntax, result, transfer syntax of each.

    The result is that of PS3.8 §9.3.3.2; without acceptance the transfer syntax is empty.
    """
    return json.dumps(list(contexts), separators=(",", ":"))


def record_associations(transaction: Transaction, rows: Iterable[AssociationRecord]) -> None:
    """Write associations as they are known now: a new row, or the end of one that is there."""
    values = [_association_values(row) for row in rows]
    if values:
        transaction.execute(_UPSERT_ASSOCIATION, values)


def close_lost_associations(transaction: Transaction, receiver: str, words: str) -> int:
    """Write the end of the associations that a dead receiving process left open; return their number."""
    result = transaction.execute(
        update(associations)
        .where(associations.c.receiver == receiver, associations.c.closed_at.is_(None))
        .values(closed_at=transaction.at, ended="lost", words=words)
    )
    return result.rowcount


def requests_of(connection: Connection, association_id: str) -> list[RequestRecord]:
    """Return the requests of an association in the order they were written."""
    query = (
        select(*(requests.c[name] for name in _REQUEST_COLUMNS))
        .where(requests.c.association_id == association_id)
        .order_by(requests.c.request_key)
    )
    return [RequestRecord(**row) for row in connection.execute(query).mappings()]


def _association_values(row: AssociationRecord) -> dict[str, Any]:
    values: dict[str, Any] = {field.name: getattr(row, field.name) for field in fields(row)}
    rejection = values.pop("rejection") or (None, None, None)
    values["rejection_result"], values["rejection_source"], values["rejection_reason"] = rejection
    values["contexts"] = row.contexts or None
    return values
