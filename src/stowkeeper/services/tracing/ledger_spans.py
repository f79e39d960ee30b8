"""The spans of what came: the association, its requests to store, and the listing of each instance that was kept."""

from typing import Any, Final

from sqlalchemy import Connection, Row, Select, select

from stowkeeper.archive.changes import ChangeKind
from stowkeeper.database.schema import associations, changes, receipts, requests
from stowkeeper.dicom.status import meaning_of
from stowkeeper.services.tracing.following import Awaited, Cursor, Told, Wanted
from stowkeeper.services.tracing.limits import OPEN_MAX
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

_WELL_ENDED: Final = frozenset({"released", "shutdown"})
_BY_HTTP: Final = "-web-"
"""What the ids of store requests by HTTP have in them, and those of associations not: see `services/store_request.py`."""


class AssociationSpans:
    """Associations, and store requests by HTTP, when they ended: the root of each trace."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._cursor = Cursor(associations.c.association_key, wanted.share)
        self._open = Awaited()

    def begin(self, connection: Connection) -> None:
        """Begin behind the newest association; those that are open are awaited."""
        self._cursor.begin(connection)
        query = (
            select(associations.c.association_key, associations.c.association_id)
            .where(associations.c.closed_at.is_(None))
            .limit(OPEN_MAX)
        )
        for key, association_id in connection.execute(query):
            if association_id in self._wanted:
                self._open.add(key)

    def look(self, connection: Connection, room: int) -> Told:
        """Make spans of those that ended."""
        passed_by = self._cursor.passed_by(connection)
        query = select(associations.c.association_key, associations.c.association_id)
        for new in self._cursor.rows(connection, query, limit=room):
            if new.association_id in self._wanted:
                passed_by += self._open.add(new.association_key)
        ended = self._open.found(
            connection,
            select(associations).where(associations.c.closed_at.is_not(None)),
            associations.c.association_key,
            self._open.first(OPEN_MAX),
        )
        spans: list[Span] = []
        for key, row in ended.items():
            if len(spans) >= room:
                break
            self._open.discard(key)  # first: a row that cannot be told must not come again and again
            spans.append(_association_span(row))
        return Told(spans=spans, passed_by=passed_by)


class RequestSpans:
    """C-STORE requests and the parts of store requests by HTTP, whatever became of them."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._cursor = Cursor(requests.c.request_key, wanted.share)

    def begin(self, connection: Connection) -> None:
        """Begin behind the newest request."""
        self._cursor.begin(connection)

    def look(self, connection: Connection, room: int) -> Told:
        """Make spans of the requests that were written."""
        passed_by = self._cursor.passed_by(connection)
        spans = []
        for row in self._cursor.rows(connection, select(requests)):
            if row.association_id in self._wanted:
                spans.append(_request_span(row))
                if len(spans) >= room:
                    break
        return Told(spans=spans, passed_by=passed_by)


class ListingSpans:
    """Receipts that were finished: from the last byte of an instance to its rows in the catalog."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._cursor = Cursor(changes.c.seq, wanted.share)
        self._query: Select[Any] = (
            select(
                changes.c.seq,
                changes.c.at,
                changes.c.kind,
                receipts.c.receipt_id,
                receipts.c.association_id,
                receipts.c.received_at,
                receipts.c.outcome,
                receipts.c.data_set_length,
                receipts.c.answer,
            )
            .select_from(changes)
            .join(receipts, receipts.c.receipt_key == changes.c.receipt_key)
        )

    def begin(self, connection: Connection) -> None:
        """Begin behind the newest change."""
        self._cursor.begin(connection)

    def look(self, connection: Connection, room: int) -> Told:
        """Make spans of what was listed."""
        passed_by = self._cursor.passed_by(connection)
        spans = []
        for row in self._cursor.rows(connection, self._query):
            if row.kind == ChangeKind.RECEIVED and row.association_id in self._wanted:
                spans.append(_listing_span(row))
                if len(spans) >= room:
                    break
        return Told(spans=spans, passed_by=passed_by)


def _association_span(row: Row[Any]) -> Span:
    is_rejected = row.rejection_result is not None
    numbers = (row.rejection_result, row.rejection_source, row.rejection_reason)
    start, end = nanoseconds(row.opened_at), nanoseconds(row.closed_at)
    by_http = _BY_HTTP in row.association_id
    return Span(
        name="store request by HTTP" if by_http else "association",
        trace_id=trace_id_of(row.association_id),
        span_id=association_span_id(row.association_id),
        parent_id=0,
        kind=SpanKind.SERVER,
        start=start,
        end=max(start, end),
        attributes=told(
            network__protocol__name="http" if by_http else "dicom",
            client__address=row.peer_address,
            dicom__association__id=row.association_id,
            dicom__calling_ae_title=row.calling_ae_title,
            dicom__called_ae_title=row.called_ae_title,
            dicom__implementation_version_name=row.implementation_version_name,
            dicom__contexts__accepted=row.contexts_accepted,
            dicom__contexts__refused=row.contexts_refused,
            dicom__messages=row.messages,
            dicom__rejection=",".join(map(str, numbers)) if is_rejected else None,
            stowkeeper__bytes=row.bytes_received,
            stowkeeper__ended=row.ended,
        ),
        failure=None if row.ended in _WELL_ENDED else f"{row.ended}: {row.words}" if row.words else row.ended,
    )


def _request_span(row: Row[Any]) -> Span:
    is_kept = row.outcome == "kept"
    by_http = _BY_HTTP in row.association_id
    span_id = (
        request_span_id(row.receipt_id)
        if row.receipt_id
        else span_id_of("request", row.association_id, row.request_key)
    )
    return Span(
        name="STOW-RS instance" if by_http else "C-STORE",
        trace_id=trace_id_of(row.association_id),
        span_id=span_id,
        parent_id=association_span_id(row.association_id),
        kind=SpanKind.SERVER,
        start=nanoseconds(row.requested_at),
        end=nanoseconds(row.requested_at, max(row.seconds_total, 0.0)),
        attributes=told(
            dicom__message_id=row.message_id,
            dicom__sop_class_uid=row.sop_class_uid,
            dicom__sop_instance_uid=row.sop_instance_uid,
            dicom__transfer_syntax_uid=row.transfer_syntax_uid,
            dicom__status=hexadecimal(row.status),
            dicom__error_comment=row.error_comment,
            stowkeeper__outcome=row.outcome,
            stowkeeper__receipt=row.receipt_id,
            stowkeeper__bytes=row.data_set_length,
            stowkeeper__seconds__network=row.seconds_network,
            stowkeeper__seconds__disk=row.seconds_disk,
            stowkeeper__seconds__total=row.seconds_total,
        ),
        failure=None if is_kept else _why_not_kept(row),
    )


def _why_not_kept(row: Row[Any]) -> str:
    why = row.error_comment or (meaning_of(row.status) if row.status is not None else "")
    return f"{row.outcome}: {why}" if why else str(row.outcome)


def _listing_span(row: Row[Any]) -> Span:
    start, end = nanoseconds(row.received_at), nanoseconds(row.at)
    return Span(
        name="listing",
        trace_id=trace_id_of(row.association_id),
        span_id=span_id_of("listing", row.receipt_id),
        parent_id=request_span_id(row.receipt_id),
        kind=SpanKind.INTERNAL,
        start=start,
        # The transaction may have begun before the last byte was there.
        end=max(start, end),
        attributes=told(
            stowkeeper__receipt=row.receipt_id,
            stowkeeper__outcome=row.outcome,
            stowkeeper__bytes=row.data_set_length,
        ),
    )
