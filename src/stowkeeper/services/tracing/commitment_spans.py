"""The spans of storage commitment: transactions, their reports, and what became of each instance in the trace that brought it."""

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, select, text

from stowkeeper.database.schema import commitment_instances, commitment_reports, commitments, receipts
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from stowkeeper.services.peer_words import without_quotes
from stowkeeper.services.tracing.following import Awaited, Cursor, Told, Wanted
from stowkeeper.services.tracing.limits import OPEN_MAX, ROWS_PER_LOOK
from stowkeeper.services.tracing.span import (
    Span,
    SpanKind,
    association_span_id,
    hexadecimal,
    nanoseconds,
    request_span_id,
    span_id_of,
    told,
    trace_id_of,
)

_COMMITTED: Final = "committed"
_AWAITED_OF_USER: Final = (CommitmentState.REQUESTED, CommitmentState.ACCEPTED)


class CommitmentSpans:
    """Transactions whose outcomes became certain, and their instances."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._cursor = Cursor(commitments.c.commitment_key, wanted.share)
        self._open = Awaited()
        self._certain: deque[_Certain] = deque()

    def begin(self, connection: Connection) -> None:
        """Begin behind the newest transaction; those that are not certain are awaited."""
        self._cursor.begin(connection)
        table = commitments.c
        query: Select[Any] = (
            select(table.commitment_key, table.role, table.state, table.checked_at, table.reported_at)
            .where(table.role.in_(list(CommitmentRole)), text("reported_at IS NULL"))
            .limit(OPEN_MAX)
        )
        for row in connection.execute(query):
            if not _is_over(row):
                self._open.add(row.commitment_key)

    def look(self, connection: Connection, room: int) -> Told:
        """Make spans of transactions and instances whose outcome became certain."""
        passed_by = self._cursor.passed_by(connection)
        for row in self._cursor.rows(connection, select(commitments.c.commitment_key)):
            passed_by += self._open.add(row.commitment_key)
        spans = []
        keys = self._open.first(min(room, OPEN_MAX - len(self._certain)))
        found = self._open.found(connection, select(commitments), commitments.c.commitment_key, keys)
        for key in keys:
            commitment = found.get(key)
            if commitment is not None and not _is_over(commitment):
                self._open.add(key)  # behind those that were not looked at
                continue
            self._open.discard(key)
            if commitment is not None and (certain_at := _certain_at(commitment)):
                self._certain.append(_Certain(commitment, certain_at))
                is_ours = commitment.role == CommitmentRole.PROVIDER
                if is_ours and commitment.association_id in self._wanted:
                    spans.append(_transaction_span(commitment, certain_at))
        spans += self._of_instances(connection, max(room - len(spans), 0))
        return Told(spans=spans, passed_by=passed_by)

    def _of_instances(self, connection: Connection, room: int) -> list[Span]:
        table = commitment_instances.c
        query: Select[Any] = (
            select(
                table.position,
                table.sop_instance_uid,
                table.outcome,
                table.reason,
                table.words,
                table.checked_at,
                receipts.c.association_id,
                receipts.c.receipt_id,
            )
            .select_from(commitment_instances)
            # The receipt that made the version: it names the association by which the instance came.
            .outerjoin(receipts, receipts.c.receipt_key == table.version_key)
            .order_by(table.position)
            .limit(room)
        )
        spans: list[Span] = []
        read = 0
        while self._certain and len(spans) < room and read < ROWS_PER_LOOK:
            certain = self._certain[0]
            page = connection.execute(
                query.where(
                    table.commitment_key == certain.row.commitment_key, table.position > certain.position
                )
            ).all()
            read += len(page) + 1
            if len(page) < room:
                self._certain.popleft()
            for row in page:
                certain.position = row.position
                if row.association_id in self._wanted:
                    spans.append(_instance_span(certain, row))
        return spans


class ReportSpans:
    """Attempts to report transactions to the peers that asked, in the traces of the associations in which they asked."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._cursor = Cursor(commitment_reports.c.report_key, wanted.share)
        self._open = Awaited()
        self._query: Select[Any] = (
            select(
                commitment_reports.c.report_key,
                commitment_reports.c.at,
                commitment_reports.c.way,
                commitment_reports.c.status,
                commitment_reports.c.words,
                commitment_reports.c.seconds,
                commitments.c.commitment_key,
                commitments.c.role,
                commitments.c.transaction_uid,
                commitments.c.association_id,
                commitments.c.peer,
            )
            .select_from(commitment_reports)
            .join(commitments, commitments.c.commitment_key == commitment_reports.c.commitment_key)
        )

    def begin(self, connection: Connection) -> None:
        """Begin behind the newest report."""
        self._cursor.begin(connection)

    def look(self, connection: Connection, room: int) -> Told:
        """Make spans of the attempts that were concluded. Their rows come before the report leaves."""
        passed_by = self._cursor.passed_by(connection)
        for new in self._cursor.rows(connection, self._query, limit=room):
            if new.role == CommitmentRole.PROVIDER and new.association_id in self._wanted:
                passed_by += self._open.add(new.report_key)
        spans = []
        keys = self._open.first(room)
        found = self._open.found(connection, self._query, commitment_reports.c.report_key, keys)
        for key in keys:
            row = found.get(key)
            self._open.discard(key)
            if row is not None and row.status is None and row.words == rows.SENT_WITHOUT_ANSWER:
                self._open.add(key)  # behind those that were not looked at
            elif row is not None:
                spans.append(_report_span(row))
        return Told(spans=spans, passed_by=passed_by)


@dataclass(slots=True)
class _Certain:
    """A transaction whose instances are being told, and the position of the last one that was."""

    row: Row[Any]
    at: str
    position: int = -1


def _is_over(row: Row[Any]) -> bool:
    """Tell whether the outcomes of a transaction will not change any more by what is awaited."""
    if row.role == CommitmentRole.PROVIDER:
        return row.checked_at is not None
    return row.reported_at is not None or row.state not in _AWAITED_OF_USER


def _certain_at(row: Row[Any]) -> str:
    at = row.checked_at if row.role == CommitmentRole.PROVIDER else row.reported_at
    return str(at or "")


def _transaction_span_id(association_id: str, transaction_uid: str, commitment_key: int) -> int:
    return span_id_of("commitment", association_id, transaction_uid, commitment_key)


def _transaction_span(row: Row[Any], certain_at: str) -> Span:
    start = nanoseconds(row.requested_at)
    return Span(
        name="storage commitment",
        trace_id=trace_id_of(row.association_id),
        span_id=_transaction_span_id(row.association_id, row.transaction_uid, row.commitment_key),
        parent_id=association_span_id(row.association_id),
        kind=SpanKind.SERVER,
        start=start,
        end=max(start, nanoseconds(certain_at)),
        attributes=told(
            dicom__transaction_uid=row.transaction_uid,
            stowkeeper__peer=row.peer,
            stowkeeper__instances=row.instances,
            stowkeeper__failures=row.failures,
        ),
        failure=f"{row.failures} of {row.instances} instances failed" if row.failures else None,
    )


def _instance_span(certain: _Certain, row: Row[Any]) -> Span:
    commitment = certain.row
    is_ours = commitment.role == CommitmentRole.PROVIDER
    start = nanoseconds(commitment.requested_at)
    link = None
    if is_ours and commitment.association_id:
        names = (commitment.association_id, commitment.transaction_uid, commitment.commitment_key)
        link = (trace_id_of(commitment.association_id), _transaction_span_id(*names))
    return Span(
        name="storage commitment check" if is_ours else "storage commitment of peer",
        trace_id=trace_id_of(row.association_id),
        span_id=span_id_of("committed", commitment.transaction_uid, commitment.commitment_key, row.position),
        parent_id=request_span_id(row.receipt_id),
        kind=SpanKind.INTERNAL if is_ours else SpanKind.CLIENT,
        start=start,
        end=max(start, nanoseconds(row.checked_at or certain.at)),
        attributes=told(
            dicom__sop_instance_uid=row.sop_instance_uid,
            dicom__transaction_uid=commitment.transaction_uid,
            dicom__failure_reason=hexadecimal(row.reason),
            stowkeeper__peer=commitment.peer,
            stowkeeper__outcome=row.outcome or "unreported",
        ),
        failure=None
        if row.outcome == _COMMITTED
        else without_quotes(row.words) or row.outcome or "unreported",
        link=link,
    )


def _report_span(row: Row[Any]) -> Span:
    return Span(
        name="storage commitment report",
        trace_id=trace_id_of(row.association_id),
        span_id=span_id_of("report", row.association_id, row.report_key),
        parent_id=_transaction_span_id(row.association_id, row.transaction_uid, row.commitment_key),
        kind=SpanKind.CLIENT,
        start=nanoseconds(row.at),
        end=nanoseconds(row.at, max(row.seconds, 0.0)),
        attributes=told(
            dicom__transaction_uid=row.transaction_uid,
            dicom__status=hexadecimal(row.status),
            stowkeeper__peer=row.peer,
            stowkeeper__way=row.way,
        ),
        failure=None if row.status == 0 else without_quotes(row.words) or "no answer",
    )
