"""The items of a store job: which are open, the files that they stand for, and what is known of those that were stored."""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, func, select, update

from stowkeeper.archive.catalog_values import Version, VersionState, portions
from stowkeeper.archive.choosing import GONE, NOBODY, choose_versions
from stowkeeper.archive.versions import find_versions
from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import job_items, receipts, versions
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.jobs.columns import item_of
from stowkeeper.jobs.job import JobItem
from stowkeeper.services.send_plan import SendableFile

OPEN: Final = ""
STORED: Final = "stored"
FAILED: Final = "failed"
LEFT_OUT: Final = "left out"
"""The outcomes of an item: it is to be sent, the peer took it, it will not be sent; nobody wants it sent any more."""

NOT_CURRENT: Final = "another version of the instance became current"
_NOT_WANTED: Final = "it was dropped, or another job has it"

_RECEIPT: Final = re.compile(r"receipt ([0-9a-f]+)")
_REMOVED: Final = frozenset({GONE[VersionState.REMOVING], GONE[VersionState.REMOVED]})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedItem:
    """An item that is to be sent: the version that is current, and its file."""

    position: int
    version: Version
    file: SendableFile


@dataclass(slots=True, kw_only=True)
class Portion:
    """What is sent at a time. `failed` are items that cannot be sent at all, or are not to be sent any more.

    `last_position` is None for no items.
    """

    planned: list[PlannedItem] = field(default_factory=list)
    failed: list[JobItem] = field(default_factory=list)
    last_position: int | None = None


def next_portion(
    connection: Connection,
    root: str,
    job_key: int,
    after: int,
    last: int | None,
    limit: int,
    wanted: Callable[[Connection, Sequence[int]], Mapping[int, int | None]] | None = None,
) -> Portion:
    """Look up open items behind a position, and what the catalog has for them now. `root` is the archive's folder.

    `last` is the last position to look at, None the last one of the job.

    `wanted` tells by position which version alone is to be sent (`ItemOutcomes.wanted`). Where another one is current, or all
    were removed, or none is wanted any more, the item is left out.
    """
    query = (
        select(job_items.c.position, job_items.c.name)
        .where(job_items.c.job_key == job_key, job_items.c.position > after, job_items.c.outcome == OPEN)
        .order_by(job_items.c.position)
        .limit(limit)
    )
    if last is not None:
        query = query.where(job_items.c.position <= last)
    rows = connection.execute(query).all()
    portion = Portion(last_position=rows[-1].position if rows else None)
    current = current_versions(connection, [row.name for row in rows])
    missing = choose_versions(connection, [row.name for row in rows if row.name not in current], NOBODY)
    keys = wanted(connection, [row.position for row in rows]) if wanted is not None and rows else {}
    for row in rows:
        version = current.get(row.name)
        words = missing[row.name].words if version is None else _obstacle(version)
        outcome = LEFT_OUT if row.position in keys and words in _REMOVED else FAILED
        if row.position in keys and keys[row.position] is None:
            outcome, words = LEFT_OUT, _NOT_WANTED
        elif version is not None and keys.get(row.position, version.version_key) != version.version_key:
            outcome, words = LEFT_OUT, NOT_CURRENT
        if version is None or words:
            portion.failed.append(JobItem(position=row.position, name=row.name, outcome=outcome, words=words))
        else:
            portion.planned.append(
                PlannedItem(position=row.position, version=version, file=_file_of(version, root))
            )
    return portion


def current_versions(connection: Connection, sop_instance_uids: Sequence[str]) -> dict[str, Version]:
    """Return the current version of each instance that has one."""
    found: dict[str, Version] = {}
    for portion in portions(sop_instance_uids):
        for uid, some in find_versions(connection, portion).items():
            for version in some:
                if version.is_current:
                    found[uid] = version
    return found


def words_on_missing(connection: Connection, sop_instance_uid: str) -> str:
    """Say why an instance has no current version."""
    return choose_versions(connection, [sop_instance_uid], NOBODY)[sop_instance_uid].words


def _obstacle(version: Version) -> str:
    """Say why a version cannot be sent to anybody; empty when it can."""
    syntax = TRANSFER_SYNTAXES.get(version.transfer_syntax_uid)
    if version.data_set_length % 2 and not (syntax is not None and syntax.deflated):
        return (
            f"its data set has an odd number of bytes ({version.data_set_length}), which none may have, and many"
            " receivers abort at it"
        )
    return ""


def _file_of(version: Version, root: str) -> SendableFile:
    """Return a version's file as the rows have it: nothing is read for it."""
    return SendableFile(
        path=os.path.join(root, version.path),
        sop_class_uid=version.sop_class_uid,
        sop_instance_uid=version.sop_instance_uid,
        transfer_syntax_uid=version.transfer_syntax_uid,
        offset=version.file_size - version.data_set_length,
        size=version.file_size,
        digest=version.digest,
    )


# What became of them.


def stored_words(version: Version, words: str = "") -> str:
    """Return the words of an item that was stored: the receipt of the version that was sent, and the peer's warning."""
    return f"receipt {version.receipt_id}{'; ' if words else ''}{words}"


def warning_in(words: str) -> str:
    """Return the peer's warning in the words of an item that was stored, empty where there was none."""
    return words.partition("; ")[2]


def count_outcomes(connection: Connection, job_key: int) -> Counter[str]:
    """Count the items of a job by their outcomes."""
    query = (
        select(job_items.c.outcome, func.count())
        .where(job_items.c.job_key == job_key)
        .group_by(job_items.c.outcome)
    )
    return Counter({outcome: count for outcome, count in connection.execute(query)})  # noqa: C416 - rows, no pairs


def open_positions(connection: Connection, job_key: int, limit: int) -> list[int]:
    """Return the first positions that are open, in order."""
    query = (
        select(job_items.c.position)
        .where(job_items.c.job_key == job_key, job_items.c.outcome == OPEN)
        .order_by(job_items.c.position)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def words_of_failures(connection: Connection, job_key: int, limit: int) -> list[tuple[str, int]]:
    """Return why items failed, the most frequent reason first, each with how many failed by it."""
    query = (
        select(job_items.c.words, func.count().label("times"))
        .where(job_items.c.job_key == job_key, job_items.c.outcome == FAILED)
        .group_by(job_items.c.words)
        .order_by(func.count().desc(), job_items.c.words)
        .limit(limit)
    )
    return [(row.words, row.times) for row in connection.execute(query)]


def stored_items(connection: Connection, job_key: int, after: int, limit: int) -> list[JobItem]:
    """Return items that were stored, in order, from behind a position."""
    return items_with(connection, job_key, STORED, after, limit)


def items_with(connection: Connection, job_key: int, outcome: str, after: int, limit: int) -> list[JobItem]:
    """Return items with an outcome, in order, from behind a position."""
    query = (
        select(job_items)
        .where(job_items.c.job_key == job_key, job_items.c.position > after, job_items.c.outcome == outcome)
        .order_by(job_items.c.position)
        .limit(limit)
    )
    return [item_of(row) for row in connection.execute(query)]


def references_to(connection: Connection, items: Sequence[JobItem]) -> tuple[list[Reference], list[int]]:
    """Return what was stored as references with the keys of the very versions that were sent."""
    sent = {found[1]: item.name for item in items if (found := _RECEIPT.match(item.words))}
    references: list[Reference] = []
    keys: list[int] = []
    for portion in portions(sent):
        # A version's key is that of the receipt in its file.
        query = (
            select(receipts.c.receipt_id, versions.c.version_key, versions.c.sop_class_uid)
            .join(versions, versions.c.version_key == receipts.c.receipt_key)
            .where(receipts.c.receipt_id.in_(portion))
        )
        of_receipt = {row.receipt_id: row for row in connection.execute(query)}
        for receipt_id in portion:
            row = of_receipt.get(receipt_id)
            if row is not None:
                references.append(
                    Reference(sop_class_uid=row.sop_class_uid, sop_instance_uid=sent[receipt_id])
                )
                keys.append(row.version_key)
    return references, keys


def reopen_failed(transaction: Transaction, job_key: int) -> None:
    """Make the items that failed open again."""
    transaction.execute(
        update(job_items)
        .where(job_items.c.job_key == job_key, job_items.c.outcome == FAILED)
        .values(outcome=OPEN, code=None, words="", done_at=None)
    )


def fail_open(transaction: Transaction, job_key: int, words: str) -> None:
    """Have all open items fail: with what was last said of them, or with `words` where nothing was."""
    transaction.execute(
        update(job_items)
        .where(job_items.c.job_key == job_key, job_items.c.outcome == OPEN)
        .values(
            outcome=FAILED,
            words=func.coalesce(func.nullif(job_items.c.words, ""), words),
            done_at=transaction.at,
        )
    )
