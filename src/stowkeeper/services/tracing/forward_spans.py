"""The spans of forwards: from the rule that chose an instance to the answer of its destination, however long that took."""

from typing import Any, Final

from sqlalchemy import Connection, Row, Select, select, text

from stowkeeper.database.schema import OPEN_FORWARDS, forwards, instances, jobs, receipts, versions
from stowkeeper.services.peer_words import without_quotes
from stowkeeper.services.tracing.following import Awaited, Cursor, Told, Wanted
from stowkeeper.services.tracing.limits import FORWARDS_AWAITED_MAX, FORWARDS_PER_LOOK
from stowkeeper.services.tracing.span import (
    Span,
    SpanKind,
    nanoseconds,
    request_span_id,
    span_id_of,
    told,
    trace_id_of,
)

_SENT: Final = "sent"
_FAILED: Final = "failed"
_TOLD: Final = (_SENT, _FAILED, "dropped")
_NEVER: Final = ""


class ForwardSpans:
    """Forwards that were sent, that failed, and that were dropped. One that failed and is tried again is told again."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._cursor = Cursor(forwards.c.forward_key, wanted.share)
        # Known of each is when it failed last, as was told.
        self._open = Awaited(FORWARDS_AWAITED_MAX)

    def begin(self, connection: Connection) -> None:
        """Begin behind the newest forward; those that are open are awaited."""
        self._cursor.begin(connection)
        query = (
            _with_association()
            .where(text(f"forwards.{OPEN_FORWARDS}"))
            .order_by(forwards.c.forward_key.desc())
            .limit(FORWARDS_AWAITED_MAX)
        )
        for row in connection.execute(query):
            if row.association_id in self._wanted:
                self._open.add(row.forward_key, row.changed_at if row.state == _FAILED else _NEVER)

    def look(self, connection: Connection, room: int) -> Told:
        """Make spans of those that came to an end, looking at some of those that are open."""
        passed_by = self._cursor.passed_by(connection)
        for row in self._cursor.rows(connection, _with_association()):
            if row.association_id in self._wanted:
                passed_by += self._open.add(row.forward_key, _NEVER)
        keys = self._open.first(FORWARDS_PER_LOOK)
        # Their states alone first, by their keys: most are as they were.
        states = select(forwards.c.forward_key, forwards.c.state, forwards.c.changed_at)
        now = self._open.found(connection, states, forwards.c.forward_key, keys)
        news: list[int] = []
        for key in keys:
            is_now, known = now.get(key), self._open[key]
            if is_now is None:
                self._open.discard(key)
            elif is_now.state not in _TOLD or (is_now.state == _FAILED and is_now.changed_at == known):
                self._open.add(key, known)  # behind those that were not looked at
            elif len(news) < room:
                news.append(key)
                self._open.discard(key)
                if is_now.state == _FAILED:
                    self._open.add(key, is_now.changed_at)
        found = self._open.found(connection, _told_of(), forwards.c.forward_key, news)
        return Told(spans=[_forward_span(row) for row in found.values()], passed_by=passed_by)


def _with_association() -> Select[Any]:
    return (
        select(
            forwards.c.forward_key,
            forwards.c.state,
            forwards.c.changed_at,
            receipts.c.association_id,
        )
        .select_from(forwards)
        .join(receipts, receipts.c.receipt_key == forwards.c.version_key)
    )


def _told_of() -> Select[Any]:
    return (
        select(
            forwards,
            receipts.c.association_id,
            receipts.c.receipt_id,
            receipts.c.data_set_length,
            instances.c.sop_instance_uid,
            jobs.c.job_id,
            jobs.c.attempts,
        )
        .select_from(forwards)
        .join(receipts, receipts.c.receipt_key == forwards.c.version_key)
        .join(versions, versions.c.version_key == forwards.c.version_key)
        .join(instances, instances.c.instance_key == versions.c.instance_key)
        .outerjoin(jobs, jobs.c.job_key == forwards.c.job_key)
    )


def _forward_span(row: Row[Any]) -> Span:
    start = nanoseconds(row.created_at)
    return Span(
        name="forward",
        trace_id=trace_id_of(row.association_id),
        span_id=span_id_of("forward", row.receipt_id, row.destination, row.changed_at),
        parent_id=request_span_id(row.receipt_id),
        kind=SpanKind.CLIENT,
        start=start,
        end=max(start, nanoseconds(row.changed_at)),
        attributes=told(
            dicom__sop_instance_uid=row.sop_instance_uid,
            stowkeeper__destination=row.destination,
            stowkeeper__rule=row.rule,
            stowkeeper__outcome=row.state,
            stowkeeper__receipt=row.receipt_id,
            stowkeeper__bytes=row.data_set_length,
            stowkeeper__job=row.job_id,
            stowkeeper__job__attempts=row.attempts,
        ),
        failure=None if row.state == _SENT else without_quotes(row.words) or row.state,
    )
