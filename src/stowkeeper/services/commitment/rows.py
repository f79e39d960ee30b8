"""Commitments as rows: the transactions of storage commitment, their instances, and every report of them.

Both sides use it: what others asked of us (role provider) and what we asked of others (role user). A row is never
deleted: it is the proof of what was promised, or of what was heard.

A transaction whose UID was known already is a row of its own, with `duplicate_of` set; `find` finds the first one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Unpack

from blake3 import blake3
from sqlalchemy import Connection, Select, bindparam, func, or_, select, update
from sqlalchemy import insert as insert_into

from stowkeeper.database.engine import Transaction, compile_insert, compile_statement
from stowkeeper.database.schema import commitment_instances, commitment_reports, commitments, uid_hash
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.dicom.status import StatusCategory, category_of
from stowkeeper.services.commitment.commitment_values import (
    WAY_DIMSE,
    WAY_NEW_ASSOCIATION,
    WAY_RECEIVED,
    WAY_SAME_ASSOCIATION,
    WAY_WEB,
    Commitment,
    CommitmentChanges,
    CommitmentCount,
    CommitmentFilter,
    CommitmentInstance,
    CommitmentReport,
    CommitmentRequest,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
    Outcome,
)
from stowkeeper.services.commitment.limits import COMMITMENT_WORDS_LETTERS_MAX, INSTANCES_PER_PAGE

SENT_WITHOUT_ANSWER = "it was sent, and no answer came"
"""How the words on a report begin that left this machine and was not answered, as far as anybody knows."""

__all__ = [
    "SENT_WITHOUT_ANSWER",
    "WAY_DIMSE",
    "WAY_NEW_ASSOCIATION",
    "WAY_RECEIVED",
    "WAY_SAME_ASSOCIATION",
    "WAY_WEB",
    "Commitment",
    "CommitmentChanges",
    "CommitmentCount",
    "CommitmentFilter",
    "CommitmentInstance",
    "CommitmentReport",
    "CommitmentRequest",
    "CommitmentRole",
    "CommitmentState",
    "InstanceOutcome",
    "Outcome",
    "add_unasked",
    "change",
    "commitments_of_instance",
    "conclude_report",
    "content_of",
    "counts",
    "duplicates_of",
    "failures_of",
    "find",
    "find_by_key",
    "find_unreported",
    "insert",
    "instances_of",
    "is_delivered",
    "last_answered",
    "last_report",
    "list_commitments",
    "note_report",
    "oldest_unreported_at",
    "open_of",
    "report_counts",
    "reports_of",
    "set_outcomes",
    "was_sent",
]


def content_of(references: Iterable[Reference]) -> str:
    """Return the BLAKE3-256 over the sorted references: the same whatever order they are asked for in."""
    lines = sorted(f"{reference.sop_class_uid} {reference.sop_instance_uid}" for reference in references)
    return blake3("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


# Writing.

_INSERT_INSTANCE = compile_insert(
    commitment_instances,
    (
        "commitment_key",
        "position",
        "sop_class_uid",
        "sop_instance_uid",
        "uid_hash",
        "version_key",
        "outcome",
        "words",
    ),
)

_SET_OUTCOME = compile_statement(
    update(commitment_instances)
    .values(
        version_key=bindparam("the_version"),
        outcome=bindparam("the_outcome"),
        reason=bindparam("the_reason"),
        words=bindparam("the_words"),
        checked_at=bindparam("the_time"),
    )
    .where(
        commitment_instances.c.commitment_key == bindparam("the_key"),
        commitment_instances.c.position == bindparam("the_position"),
    ),
    ("the_version", "the_outcome", "the_reason", "the_words", "the_time", "the_key", "the_position"),
)


def insert(
    transaction: Transaction,
    request: CommitmentRequest,
    references: Sequence[Reference],
    version_keys: Sequence[int | None] = (),
) -> Commitment:
    """Write a transaction with its instances, all of them open; return it.

    `version_keys`, where given, has one for each reference: of a user, what we had when we asked. Raises
    DatabaseUnavailable. A second one with the same role and transaction UID needs `duplicate_of`.
    """
    values: dict[str, Any] = {
        field.name: getattr(request, field.name) for field in fields(request) if field.name != "state"
    }
    values |= {
        "state": request.state,
        "content": content_of(references),
        "instances": len(references),
        "failures": 0,
        "report_attempts": 0,
        "error": "",
    }
    made = transaction.execute(insert_into(commitments).values(values))
    commitment_key = int(made.inserted_primary_key[0])  # type: ignore[index]  # one row was inserted, so it has a key
    keys = version_keys or [None] * len(references)
    transaction.executemany(
        _INSERT_INSTANCE,
        [
            (
                commitment_key,
                position,
                reference.sop_class_uid,
                reference.sop_instance_uid,
                uid_hash(reference.sop_instance_uid),
                version_key,
                InstanceOutcome.OPEN.value,
                "",
            )
            for position, (reference, version_key) in enumerate(zip(references, keys, strict=True))
        ],
    )
    return Commitment(commitment_key=commitment_key, checked_at=None, reported_at=None, **values)


def set_outcomes(transaction: Transaction, commitment_key: int, outcomes: Iterable[Outcome]) -> None:
    """Write what became of some instances of a transaction, with the time of this one."""
    transaction.executemany(
        _SET_OUTCOME,
        [
            (
                outcome.version_key,
                outcome.outcome.value,
                outcome.reason,
                outcome.words[:COMMITMENT_WORDS_LETTERS_MAX],
                None if outcome.outcome is InstanceOutcome.OPEN else transaction.at,
                commitment_key,
                outcome.position,
            )
            for outcome in outcomes
        ],
    )


def add_unasked(transaction: Transaction, commitment_key: int, references: Sequence[Reference]) -> None:
    """Note instances that a peer's report names and that we had not asked for, behind those that we had."""
    last = transaction.execute(
        select(func.max(commitment_instances.c.position)).where(
            commitment_instances.c.commitment_key == commitment_key
        )
    ).scalar()
    first = 0 if last is None else last + 1
    words = "it was not asked for"
    transaction.executemany(
        _INSERT_INSTANCE,
        [
            (
                commitment_key,
                first + number,
                reference.sop_class_uid,
                reference.sop_instance_uid,
                uid_hash(reference.sop_instance_uid),
                None,
                InstanceOutcome.UNASKED.value,
                words,
            )
            for number, reference in enumerate(references)
        ],
    )


def change(transaction: Transaction, commitment_key: int, **columns: Unpack[CommitmentChanges]) -> None:
    """Change columns of a transaction."""
    values: dict[str, Any] = dict(columns)
    if "error" in values:
        values["error"] = values["error"][:COMMITMENT_WORDS_LETTERS_MAX]
    transaction.execute(
        update(commitments).where(commitments.c.commitment_key == commitment_key).values(values)
    )


def note_report(
    transaction: Transaction,
    commitment_key: int,
    *,
    at: str,
    way: str,
    status: int | None,
    words: str = "",
    seconds: float = 0.0,
) -> int:
    """Note an attempt to report, or a report that came, and count it; return the key of its row."""
    made = transaction.execute(
        insert_into(commitment_reports).values(
            commitment_key=commitment_key,
            at=at,
            way=way,
            status=status,
            words=words[:COMMITMENT_WORDS_LETTERS_MAX],
            seconds=seconds,
        )
    )
    transaction.execute(
        update(commitments)
        .where(commitments.c.commitment_key == commitment_key)
        .values(report_attempts=commitments.c.report_attempts + 1)
    )
    return int(made.inserted_primary_key[0])  # type: ignore[index]  # one row was inserted, so it has a key


def conclude_report(
    transaction: Transaction, report_key: int, *, status: int | None, words: str, seconds: float
) -> None:
    """Write how an attempt ended that was noted when it began."""
    transaction.execute(
        update(commitment_reports)
        .where(commitment_reports.c.report_key == report_key)
        .values(status=status, words=words[:COMMITMENT_WORDS_LETTERS_MAX], seconds=seconds)
    )


# Looking.


def find(connection: Connection, role: CommitmentRole, transaction_uid: str) -> Commitment | None:
    """Return the transaction with a UID, the first one where the UID was used again; None where there is none."""
    query = select(commitments).where(
        commitments.c.role == role,
        commitments.c.transaction_uid == transaction_uid,
        commitments.c.duplicate_of.is_(None),
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _commitment(row)


def find_unreported(
    connection: Connection, role: CommitmentRole, transaction_uid: str, peer: str, content: str
) -> Commitment | None:
    """Return the transaction that a request of this peer with this content would repeat, if that is not reported yet."""
    # Without the peer, so that the index of the open ones is used, which are few.
    query = (
        select(commitments)
        .where(
            commitments.c.role == role,
            commitments.c.reported_at.is_(None),
            commitments.c.transaction_uid == transaction_uid,
        )
        .order_by(commitments.c.commitment_key)
    )
    for row in connection.execute(query).mappings():
        if (row["peer"], row["content"]) == (peer, content):
            return _commitment(row)
    return None


def find_by_key(connection: Connection, commitment_key: int) -> Commitment | None:
    """Return the transaction with a key; None where there is none."""
    query = select(commitments).where(commitments.c.commitment_key == commitment_key)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _commitment(row)


def duplicates_of(connection: Connection, commitment_key: int) -> list[Commitment]:
    """Return the transactions that used the UID of another one again, oldest first."""
    query = (
        select(commitments)
        .where(commitments.c.duplicate_of == commitment_key)
        .order_by(commitments.c.commitment_key)
    )
    return [_commitment(row) for row in connection.execute(query).mappings()]


def list_commitments(connection: Connection, only: CommitmentFilter | None = None) -> list[Commitment]:
    """Return a page of transactions, newest first."""
    only = CommitmentFilter() if only is None else only
    query = select(commitments)
    if only.role is not None:
        query = query.where(commitments.c.role == only.role)
    if only.states:
        query = query.where(commitments.c.state.in_(only.states))
    if only.peer:
        query = query.where(commitments.c.peer == only.peer)
    if only.transaction_uid:
        query = query.where(commitments.c.transaction_uid == only.transaction_uid)
    if only.requested_from:
        query = query.where(commitments.c.requested_at >= only.requested_from)
    if only.requested_to:
        query = query.where(commitments.c.requested_at < only.requested_to)
    if only.before_key is not None:
        query = query.where(commitments.c.commitment_key < only.before_key)
    query = query.order_by(commitments.c.commitment_key.desc()).limit(only.limit)
    return [_commitment(row) for row in connection.execute(query).mappings()]


def instances_of(
    connection: Connection,
    commitment_key: int,
    after: int = -1,
    limit: int = INSTANCES_PER_PAGE,
    outcome: InstanceOutcome | None = None,
) -> list[CommitmentInstance]:
    """Return the instances of a transaction behind a position, in the order of the request.

    With `outcome`, only those of it.
    """
    query = _instances().where(
        commitment_instances.c.commitment_key == commitment_key, commitment_instances.c.position > after
    )
    if outcome is not None:
        query = query.where(commitment_instances.c.outcome == outcome)
    query = query.order_by(commitment_instances.c.position).limit(limit)
    return [_instance(row) for row in connection.execute(query).mappings()]


def commitments_of_instance(
    connection: Connection, sop_instance_uid: str, role: CommitmentRole | None = None
) -> list[tuple[Commitment, CommitmentInstance]]:
    """Return the transactions that an instance is part of, newest first, each with what became of it there."""
    table = commitment_instances
    of_instance = select(table.c.commitment_key, table.c.position).where(
        table.c.uid_hash == uid_hash(sop_instance_uid), table.c.sop_instance_uid == sop_instance_uid
    )
    found: list[tuple[Commitment, CommitmentInstance]] = []
    for key, position in connection.execute(of_instance.order_by(table.c.commitment_key.desc())).all():
        commitment = find_by_key(connection, key)
        if commitment is not None and role in (None, commitment.role):
            found += [(commitment, one) for one in instances_of(connection, key, position - 1, 1)]
    return found


def reports_of(connection: Connection, commitment_key: int) -> list[CommitmentReport]:
    """Return the attempts to report a transaction, or the reports that came of it, oldest first."""
    table = commitment_reports
    query = (
        select(table.c.at, table.c.way, table.c.status, table.c.words, table.c.seconds)
        .where(table.c.commitment_key == commitment_key)
        .order_by(table.c.report_key)
    )
    return [CommitmentReport(**row) for row in connection.execute(query).mappings()]


def failures_of(connection: Connection, commitment_key: int) -> int:
    """Return how many instances of a transaction failed."""
    return _count(connection, commitment_key, InstanceOutcome.FAILED)


def open_of(connection: Connection, commitment_key: int) -> int:
    """Return how many instances of a transaction are not certain yet."""
    return _count(connection, commitment_key, InstanceOutcome.OPEN)


def _count(connection: Connection, commitment_key: int, outcome: InstanceOutcome) -> int:
    query = (
        select(func.count())
        .select_from(commitment_instances)
        .where(
            commitment_instances.c.commitment_key == commitment_key,
            commitment_instances.c.outcome == outcome,
        )
    )
    return connection.execute(query).scalar_one()


def was_sent(connection: Connection, commitment_key: int) -> bool:
    """Tell whether any report of a transaction left this machine, so that its peer may know what it says."""
    query = (
        select(commitment_reports.c.report_key)
        .where(
            commitment_reports.c.commitment_key == commitment_key,
            or_(
                commitment_reports.c.status.is_not(None),
                commitment_reports.c.words.startswith(SENT_WITHOUT_ANSWER, autoescape=True),
            ),
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None


def last_report(connection: Connection, commitment_key: int) -> int:
    """Return the key of the latest attempt to report a transaction; 0 where there was none. The keys grow."""
    key = commitment_reports.c.report_key
    query = select(func.max(key)).where(commitment_reports.c.commitment_key == commitment_key)
    return connection.execute(query).scalar() or 0


def last_answered(connection: Connection, commitment_key: int) -> int:
    """Return the key of the latest report that the peer answered with a status that is no failure; 0 where there is none."""
    query = (
        select(commitment_reports.c.report_key, commitment_reports.c.status)
        .where(
            commitment_reports.c.commitment_key == commitment_key, commitment_reports.c.status.is_not(None)
        )
        .order_by(commitment_reports.c.report_key.desc())
    )
    return next((key for key, status in connection.execute(query) if is_delivered(status)), 0)


def is_delivered(status: int) -> bool:
    """Tell whether the status of an N-EVENT-REPORT response says that the report was taken: no failure."""
    return category_of(status) in (StatusCategory.SUCCESS, StatusCategory.WARNING)


def counts(connection: Connection) -> list[CommitmentCount]:
    """Return how many transactions there are in each state, with their instances. It looks at every transaction."""
    query = select(
        commitments.c.role,
        commitments.c.state,
        func.count().label("commitments"),
        func.sum(commitments.c.instances).label("instances"),
        func.sum(commitments.c.failures).label("failures"),
    ).group_by(commitments.c.role, commitments.c.state)
    return [
        CommitmentCount(
            role=CommitmentRole(row.role),
            state=CommitmentState(row.state),
            commitments=row.commitments,
            instances=row.instances,
            failures=row.failures,
        )
        for row in connection.execute(query)
    ]


def report_counts(connection: Connection) -> dict[tuple[str, str, int | None], int]:
    """Return how many reports of ours there were, by peer, way and status (None: no answer). It looks at all of them."""
    table = commitment_reports
    query = (
        select(commitments.c.peer, table.c.way, table.c.status, func.count())
        .join(commitments, commitments.c.commitment_key == table.c.commitment_key)
        .where(commitments.c.role == CommitmentRole.PROVIDER)
        .group_by(commitments.c.peer, table.c.way, table.c.status)
    )
    return {(peer, way, status): number for peer, way, status, number in connection.execute(query)}


def oldest_unreported_at(connection: Connection) -> str | None:
    """Return when the oldest request of a peer came that was not told its result and will still be; None: all were."""
    query = (
        select(commitments.c.requested_at)
        .where(
            commitments.c.role == CommitmentRole.PROVIDER,
            commitments.c.reported_at.is_(None),
            commitments.c.way == WAY_DIMSE,
            commitments.c.state.in_((CommitmentState.RECEIVED, CommitmentState.CHECKED)),
        )
        .order_by(commitments.c.commitment_key)
        .limit(1)
    )
    found: str | None = connection.execute(query).scalar()
    return found


def _instances() -> Select[Any]:
    table = commitment_instances
    return select(*(table.c[field.name] for field in fields(CommitmentInstance)))


def _commitment(row: Mapping[Any, Any]) -> Commitment:
    values = {**row, "role": CommitmentRole(row["role"]), "state": CommitmentState(row["state"])}
    return Commitment(**values)


def _instance(row: Mapping[Any, Any]) -> CommitmentInstance:
    return CommitmentInstance(**{**row, "outcome": InstanceOutcome(row["outcome"])})
