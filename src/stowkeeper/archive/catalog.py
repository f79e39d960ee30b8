"""The catalog: what the archive holds, by the rows that the finisher writes after each answer.

An entry goes in by its receipt id, and a second time changes nothing: after a crash the finisher runs again
over instances that may be listed already. All entries of a batch become durable together, with the
transaction.

Inserting is the hot path. An instance that is new (nearly all are) costs four rows by the driver's own loop;
only an instance that has a version already takes the way of ordinary statements.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from stowkeeper.archive import patient_tree
from stowkeeper.archive.catalog_values import (
    CatalogEntry,
    InsertResult,
    ReceiptOutcome,
    Version,
    VersionState,
    portions,
)
from stowkeeper.archive.versions import (
    COUNTED,
    PRESENT,
    REMOVABLE,
    VersionOrder,
    conflicts,
    due_for_removal,
    find_version_by_path,
    find_version_by_receipt,
    find_versions,
    hold,
    iterate_versions,
    mark_damaged,
    mark_name_taken,
    mark_removed,
    mark_removing,
    mark_superseded,
    release_hold,
    settle,
    versions_for_removal,
)
from stowkeeper.database.engine import Transaction, compile_insert, compile_statement
from stowkeeper.database.schema import archive, changes, instances, receipts, uid_hash, versions

__all__ = [
    "COUNTED",
    "PRESENT",
    "REMOVABLE",
    "VERSION_ATTRIBUTES",
    "CatalogEntry",
    "InsertResult",
    "ReceiptOutcome",
    "Version",
    "VersionOrder",
    "VersionState",
    "archive_id",
    "conflicts",
    "due_for_removal",
    "find_version_by_path",
    "find_version_by_receipt",
    "find_versions",
    "has_receipt",
    "hold",
    "insert",
    "insert_identical",
    "iterate_versions",
    "list_as_own",
    "mark_damaged",
    "mark_removed",
    "mark_removing",
    "mark_superseded",
    "release_hold",
    "set_archive_id",
    "versions_for_removal",
]

_VERSION_STRUCTURE = (
    "version_key",
    "instance_key",
    "series_key",
    "sop_class_uid",
    "transfer_syntax_uid",
    "path",
    "file_size",
    "state",
    "conflict",
)

VERSION_ATTRIBUTES = tuple(
    column.name
    for column in versions.c
    if column.name not in {*_VERSION_STRUCTURE, "state_since", "removal_due_at"}
)
"""The columns of a version that are attributes of the instance, named as `InstanceAttributes` names them."""

# Each value costs a third of a microsecond to bind, and images have none of the attributes from here on,
# which belong to documents, presentation states and radiotherapy: they stand at the end, and a second
# statement leaves them out.
_COMMON = VERSION_ATTRIBUTES[: VERSION_ATTRIBUTES.index("observation_date_time")]
_RARE = VERSION_ATTRIBUTES[len(_COMMON) :]
_common_attributes = attrgetter(*_COMMON)
_rare_attributes = attrgetter(*_RARE)
_NONE_RARE = (None,) * len(_RARE)
_PLAIN_LENGTH = len(_VERSION_STRUCTURE) + len(_COMMON)

_INSERT_INSTANCE = compile_insert(
    instances, ("instance_key", "sop_instance_uid", "current_version_key", "uid_hash")
)
_INSERT_VERSION = compile_insert(versions, (*_VERSION_STRUCTURE, *_COMMON))
_INSERT_RARE_VERSION = compile_insert(versions, (*_VERSION_STRUCTURE, *_COMMON, *_RARE))
_INSERT_RECEIPT = compile_insert(
    receipts,
    (
        "receipt_key",
        "receipt_id",
        "version_key",
        "outcome",
        "received_at",
        "received_by",
        "calling_ae_title",
        "called_ae_title",
        "peer_address",
        "association_id",
        "digest",
        "data_set_length",
        "answer",
        "verdicts",
    ),
)
_INSERT_CHANGE = compile_insert(changes, ("at", "kind", "receipt_key", "version_key"))


def archive_id(connection: Connection) -> str | None:
    """Return the id of the archive that the database belongs to, None while it belongs to none."""
    found: str | None = connection.execute(select(archive.c.archive_id)).scalar()
    return found


def set_archive_id(transaction: Transaction, identity: str) -> None:
    """Tie the database to an archive."""
    transaction.execute(update(archive).values(archive_id=identity))


def has_receipt(connection: Connection, receipt_id: str) -> bool:
    """Tell whether a receipt was finished: its rows are there, and durable."""
    query = select(receipts.c.receipt_key).where(receipts.c.receipt_id == receipt_id)
    return connection.execute(query).first() is not None


def insert(transaction: Transaction, entries: Sequence[CatalogEntry]) -> list[InsertResult]:
    """List instances whose files are on the shelf, durably named; return what became of each, in their order.

    Idempotent by receipt id, within a batch too. They are listed in the order in which they were received, which is that
    of their times; where one of them is younger than now the clock was set back, and it is the order that is given.
    """
    known = _known_receipts(transaction, [entry.receipt.receipt_id for entry in entries])
    fresh: dict[str, CatalogEntry] = {}
    for entry in entries:
        if entry.receipt.receipt_id not in known:
            fresh.setdefault(entry.receipt.receipt_id, entry)
    in_order = list(fresh.values())
    if all(entry.receipt.received_at <= transaction.at for entry in in_order):
        in_order.sort(key=lambda entry: entry.order)
    results = _insert_fresh(transaction, in_order) if fresh else {}
    return [_take(results, known, entry.receipt.receipt_id) for entry in entries]


def list_as_own(transaction: Transaction, entry: CatalogEntry) -> None:
    """Give a receipt that was listed as identical to another file a version of its own, after all.

    For a file that is decided again after a crash, when the other turned out to be damaged or missing since.
    """
    missing = find_version_by_path(transaction.connection, entry.path)
    if missing is not None:
        mark_name_taken(transaction, missing)
    row = _known_receipts(transaction, [entry.receipt.receipt_id])[entry.receipt.receipt_id]
    series_keys, _ = patient_tree.place(transaction, [entry])
    identity = patient_tree.series_identity(entry)
    series_key = None if identity is None else series_keys[identity]
    key = row.receipt_key
    _write(transaction, [_version_row(key, row.instance_key, series_key, entry)], [])
    transaction.execute(
        update(receipts)
        .where(receipts.c.receipt_key == key)
        .values(version_key=key, outcome=ReceiptOutcome.STORED.value)
    )
    settle(transaction, [row.instance_key])


def insert_identical(
    transaction: Transaction, entries: Sequence[tuple[CatalogEntry, str]]
) -> list[InsertResult]:
    """Record receipts of instances of which an identical version is kept, read from the medium just now.

    Each entry comes with the receipt id of that version. The path and size of the entry are not used: its own
    file is not kept. An outcome of None says that the version is not in the catalog, or no longer kept.
    Idempotent.
    """
    known = _known_receipts(transaction, [entry.receipt.receipt_id for entry, _ in entries])
    older = _known_receipts(transaction, [receipt_id for _, receipt_id in entries])
    key = _last_receipt_key(transaction)
    rows: list[tuple[object, ...]] = []
    results: dict[str, InsertResult] = {}
    for entry, older_id in entries:
        receipt = entry.receipt
        if receipt.receipt_id in known or receipt.receipt_id in results:
            continue
        row = older.get(older_id)
        if row is None or row.state != VersionState.KEPT or _content(row) != _content(receipt):
            results[receipt.receipt_id] = InsertResult(receipt_id=receipt.receipt_id, outcome=None, new=False)
            continue
        key += 1
        rows.append(_receipt_row(key, row.version_key, entry, ReceiptOutcome.IDENTICAL))
        results[receipt.receipt_id] = InsertResult(
            receipt_id=receipt.receipt_id,
            outcome=ReceiptOutcome.IDENTICAL,
            new=True,
            version_key=row.version_key,
            is_current=row.version_key == row.current_version_key,
        )
    transaction.executemany(_INSERT_RECEIPT, rows)
    transaction.executemany(_INSERT_CHANGE, [(transaction.at, "received", row[0], row[2]) for row in rows])
    return [_take(results, known, entry.receipt.receipt_id) for entry, _ in entries]


def _take(results: dict[str, InsertResult], known: dict[str, Any], receipt_id: str) -> InsertResult:
    """Return the result of a receipt: new the first time it is asked for, known from then on."""
    result = results.get(receipt_id)
    if result is not None:
        if result.new:
            results[receipt_id] = replace(result, new=False)
        return result
    row = known[receipt_id]
    return InsertResult(
        receipt_id=receipt_id,
        outcome=ReceiptOutcome(row.outcome),
        new=False,
        version_key=row.version_key,
        is_current=row.version_key == row.current_version_key,
    )


def _insert_fresh(transaction: Transaction, entries: Sequence[CatalogEntry]) -> dict[str, InsertResult]:
    """Insert entries whose receipts are new."""
    series_keys, moved = patient_tree.place(transaction, entries)
    instance_keys = _known_instances(transaction, [entry.receipt.sop_instance_uid for entry in entries])
    first = _last_receipt_key(transaction) + 1
    instance_rows: list[tuple[int, str, int, int]] = []
    version_rows: list[tuple[object, ...]] = []
    receipt_rows: list[tuple[object, ...]] = []
    results: dict[str, InsertResult] = {}
    again: list[tuple[int, CatalogEntry]] = []
    for key, entry in enumerate(entries, first):
        receipt = entry.receipt
        if receipt.sop_instance_uid in instance_keys:
            again.append((key, entry))
            continue
        instance_keys[receipt.sop_instance_uid] = key
        instance_rows.append((key, receipt.sop_instance_uid, key, uid_hash(receipt.sop_instance_uid)))
        identity = patient_tree.series_identity(entry)
        series_key = None if identity is None else series_keys[identity]
        version_rows.append(_version_row(key, key, series_key, entry))
        receipt_rows.append(_receipt_row(key, key, entry, ReceiptOutcome.STORED))
        results[receipt.receipt_id] = InsertResult(
            receipt_id=receipt.receipt_id,
            outcome=ReceiptOutcome.STORED,
            new=True,
            version_key=key,
            is_current=True,
        )
    transaction.executemany(_INSERT_INSTANCE, instance_rows)
    _write(transaction, version_rows, receipt_rows)
    if again:
        results |= _insert_again(transaction, again, instance_keys, series_keys)
    if moved:
        keys = {receipt_id: result.version_key for receipt_id, result in results.items()}
        moved_keys = [keys[entry.receipt.receipt_id] for entry in moved]
        transaction.executemany(_INSERT_CHANGE, [(transaction.at, "patient", key, key) for key in moved_keys])
    return results


def _insert_again(
    transaction: Transaction,
    entries: Sequence[tuple[int, CatalogEntry]],
    instance_keys: dict[str, int],
    series_keys: dict[patient_tree.SeriesIdentity, int],
) -> dict[str, InsertResult]:
    """Insert further versions of instances that have one."""
    older = find_versions(transaction.connection, {entry.receipt.sop_instance_uid for _, entry in entries})
    standing = {
        (v.sop_instance_uid, v.path): v for found in older.values() for v in found if v.state in REMOVABLE
    }
    # A name is made by link(), which never replaces: a file that stood there before is gone.
    vanished = [
        standing[name] for _, e in entries if (name := (e.receipt.sop_instance_uid, e.path)) in standing
    ]
    for version in vanished:
        mark_name_taken(transaction, version)
    version_rows: list[tuple[object, ...]] = []
    receipt_rows: list[tuple[object, ...]] = []
    outcomes: dict[int, tuple[ReceiptOutcome, tuple[int, ...]]] = {}
    contents: dict[str, set[tuple[str, str, str]]] = {}
    for key, entry in entries:
        uid = entry.receipt.sop_instance_uid
        found = older.get(uid, [])
        seen = contents.setdefault(uid, {version.content for version in found if version.state in COUNTED})
        content = _content(entry.receipt)
        outcome = ReceiptOutcome.CONFLICT if seen - {content} else ReceiptOutcome.STORED
        seen.add(content)
        identity = patient_tree.series_identity(entry)
        version_rows.append(
            _version_row(key, instance_keys[uid], None if identity is None else series_keys[identity], entry)
        )
        receipt_rows.append(_receipt_row(key, key, entry, outcome))
        differing = tuple(
            version.version_key
            for version in found
            if version.state is VersionState.KEPT
            and version.content != content
            and version.order < entry.order
        )
        outcomes[key] = outcome, differing
    _write(transaction, version_rows, receipt_rows)
    touched = {instance_keys[entry.receipt.sop_instance_uid] for _, entry in entries}
    settle(transaction, touched)
    current = _current_versions(transaction, touched)
    return {
        entry.receipt.receipt_id: InsertResult(
            receipt_id=entry.receipt.receipt_id,
            outcome=outcomes[key][0],
            new=True,
            version_key=key,
            is_current=key in current,
            differing=outcomes[key][1],
        )
        for key, entry in entries
    }


def _write(
    transaction: Transaction, version_rows: list[tuple[object, ...]], receipt_rows: list[tuple[object, ...]]
) -> None:
    transaction.executemany(_INSERT_VERSION, [row for row in version_rows if len(row) == _PLAIN_LENGTH])
    transaction.executemany(_INSERT_RARE_VERSION, [row for row in version_rows if len(row) != _PLAIN_LENGTH])
    transaction.executemany(_INSERT_RECEIPT, receipt_rows)
    at = transaction.at
    transaction.executemany(_INSERT_CHANGE, [(at, "received", row[0], row[2]) for row in receipt_rows])


# Rows, in the order of the compiled statements.


def _version_row(
    key: int, instance_key: int, series_key: int | None, entry: CatalogEntry
) -> tuple[object, ...]:
    receipt = entry.receipt
    attributes = entry.attributes
    row = (
        key,
        instance_key,
        series_key,
        receipt.sop_class_uid,
        receipt.transfer_syntax_uid,
        entry.path,
        entry.file_size,
        "kept",
        0,
        *_common_attributes(attributes),
    )
    rare = _rare_attributes(attributes)
    return row if rare == _NONE_RARE else (*row, *rare)


def _receipt_row(
    key: int, version_key: int, entry: CatalogEntry, outcome: ReceiptOutcome
) -> tuple[object, ...]:
    receipt = entry.receipt
    return (
        key,
        receipt.receipt_id,
        version_key,
        outcome.value,
        receipt.received_at,
        receipt.received_by,
        receipt.calling_ae_title,
        receipt.called_ae_title,
        receipt.peer_address,
        receipt.association_id,
        receipt.digest,
        receipt.data_set_length,
        "known" if entry.answer_known else "unknown",
        json.dumps(entry.verdicts) if entry.verdicts else None,
    )


def _content(source: Any) -> tuple[str, str, str]:  # noqa: ANN401 - a receipt, or a row with the same three
    return source.digest, source.sop_class_uid, source.transfer_syntax_uid


# Looking up what a batch meets.

_RECEIPTS = (
    select(
        receipts.c.receipt_id,
        receipts.c.receipt_key,
        receipts.c.outcome,
        receipts.c.version_key,
        receipts.c.digest,
        versions.c.state,
        versions.c.sop_class_uid,
        versions.c.transfer_syntax_uid,
        versions.c.instance_key,
        instances.c.current_version_key,
    )
    .join(versions, versions.c.version_key == receipts.c.version_key)
    .join(instances, instances.c.instance_key == versions.c.instance_key)
)


_FIND_RECEIPT = compile_statement(
    select(receipts.c.receipt_key).where(receipts.c.receipt_id == bindparam("id")), ("id",)
)
_FIND_INSTANCE = compile_statement(
    select(instances.c.instance_key).where(
        instances.c.uid_hash == bindparam("hash"), instances.c.sop_instance_uid == bindparam("uid")
    ),
    ("hash", "uid"),
)
_LAST_RECEIPT = compile_statement(select(func.max(receipts.c.receipt_key)), ())


def _known_receipts(transaction: Transaction, receipt_ids: Iterable[str]) -> dict[str, Any]:
    there = [name for name in receipt_ids if transaction.fetch_one(_FIND_RECEIPT, (name,)) is not None]
    return {
        row.receipt_id: row
        for portion in portions(there)
        for row in transaction.execute(_RECEIPTS.where(receipts.c.receipt_id.in_(portion)))
    }


def _known_instances(transaction: Transaction, uids: Iterable[str]) -> dict[str, int]:
    found = {uid: transaction.fetch_one(_FIND_INSTANCE, (uid_hash(uid), uid)) for uid in uids}
    return {uid: row[0] for uid, row in found.items() if row is not None}


def _current_versions(transaction: Transaction, instance_keys: Iterable[int]) -> set[int]:
    query = select(instances.c.current_version_key)
    return {
        key
        for portion in portions(instance_keys)
        for key in transaction.execute(query.where(instances.c.instance_key.in_(portion))).scalars()
        if key is not None
    }


def _last_receipt_key(transaction: Transaction) -> int:
    # The transaction is the only writer, and receipts are never deleted.
    (last,) = transaction.fetch_one(_LAST_RECEIPT) or (None,)
    return last or 0
