"""The events: what other systems are told, made of the change rows, in their order."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, func, or_, select, text

from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.changes import ChangeKind
from stowkeeper.database.schema import (
    changes,
    instances,
    receipts,
    series,
    studies,
    study_events,
    uid_hash,
    versions,
)


class EventKind(StrEnum):
    """What can be told. *Repeated* is the same bytes once more, which made no new version."""

    INSTANCE_RECEIVED = "instance.received"
    INSTANCE_REPEATED = "instance.repeated"
    INSTANCE_REMOVED = "instance.removed"
    INSTANCE_DAMAGED = "instance.damaged"
    STUDY_STARTED = "study.started"
    STUDY_QUIET = "study.quiet"
    STUDY_LATE = "study.late"


EVERY_KIND: Final = tuple(EventKind)

_CHANGES: Final[Mapping[EventKind, ChangeKind]] = {
    EventKind.INSTANCE_RECEIVED: ChangeKind.RECEIVED,
    EventKind.INSTANCE_REPEATED: ChangeKind.RECEIVED,
    EventKind.INSTANCE_REMOVED: ChangeKind.REMOVED,
    EventKind.INSTANCE_DAMAGED: ChangeKind.DAMAGED,
    EventKind.STUDY_STARTED: ChangeKind.STUDY_STARTED,
    EventKind.STUDY_QUIET: ChangeKind.STUDY_QUIET,
    EventKind.STUDY_LATE: ChangeKind.STUDY_LATE,
}
_KINDS: Final[Mapping[str, EventKind]] = {
    change.value: kind for kind, change in _CHANGES.items() if kind is not EventKind.INSTANCE_REPEATED
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `seq` is the number of its change: it grows, and names the event for ever.

    `at` is when it was written, UTC in ISO 8601. Of an event of a study the instance is the one that arrived last, `revision`
    counts from 1, `words` say it in a sentence and `evidence` is what it is based on. `path` is that of the file, relative to
    the archive; the bytes counted in `data_set_length` are those of its data set. Nothing in it identifies a patient.
    """

    seq: int
    at: str
    kind: EventKind
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    receipt_id: str
    digest: str
    data_set_length: int
    received_at: str
    received_by: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    revision: int
    words: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """Return the UID of what has to be told in order: the study, or the instance where it is in none."""
        return self.study_instance_uid or self.sop_instance_uid


def events_after(
    connection: Connection,
    seq: int,
    limit: int,
    *,
    kinds: Collection[EventKind] = EVERY_KIND,
    study_instance_uid: str = "",
    without: Collection[str] = (),
) -> list[Event]:
    """Return the events of some kinds after the change of a number, in order; `limit` at most.

    Those of a study, or of an instance outside of studies, whose UID is in `without` are left out.
    """
    query = _events(kinds, study_instance_uid).where(changes.c.seq > seq).order_by(changes.c.seq).limit(limit)
    if without:
        about = func.coalesce(studies.c.study_instance_uid, instances.c.sop_instance_uid)
        query = query.where(about.not_in(without))
    return [_event(row) for row in connection.execute(query)]


def newest_events(
    connection: Connection,
    limit: int,
    *,
    kinds: Collection[EventKind] = EVERY_KIND,
    study_instance_uid: str = "",
) -> list[Event]:
    """Return the last events of some kinds, in order; `limit` at most."""
    query = _events(kinds, study_instance_uid).order_by(changes.c.seq.desc()).limit(limit)
    return [_event(row) for row in connection.execute(query)][::-1]


def later_arrivals_elsewhere(connection: Connection, event: Event) -> list[Event]:
    """Return the arrivals after an event of versions of its instance in other studies, as far as their files are there, in order."""
    uid = event.sop_instance_uid
    found = map(_event, connection.execute(_ARRIVALS_OF_INSTANCE, {"uid": uid, "hash": uid_hash(uid)}))
    return [
        other
        for other in found
        if other.seq > event.seq and other.study_instance_uid != event.study_instance_uid
    ]


def count_events_after(connection: Connection, seq: int, kinds: Collection[EventKind]) -> int:
    """Return how many events of some kinds there are after the change of a number."""
    found = _events(kinds, "").where(changes.c.seq > seq).subquery()
    return int(connection.execute(select(func.count()).select_from(found)).scalar_one())


def _events(kinds: Collection[EventKind], study_instance_uid: str) -> Select[Any]:
    # Named one by one: looking for all that is not received would pass over the index of nothing.
    of_change = [kind for kind in kinds if _CHANGES[kind] is not ChangeKind.RECEIVED]
    wanted: list[ColumnElement[bool]] = [changes.c.kind.in_([_CHANGES[kind].value for kind in of_change])]
    is_received = changes.c.kind == ChangeKind.RECEIVED.value
    if EventKind.INSTANCE_RECEIVED in kinds:
        wanted.append(and_(is_received, receipts.c.outcome != "identical"))
    if EventKind.INSTANCE_REPEATED in kinds:
        wanted.append(and_(is_received, receipts.c.outcome == "identical"))
    query = (
        select(
            changes.c.seq,
            changes.c.at,
            changes.c.kind,
            changes.c.detail,
            func.coalesce(studies.c.study_instance_uid, "").label("study_instance_uid"),
            func.coalesce(series.c.series_instance_uid, "").label("series_instance_uid"),
            instances.c.sop_instance_uid,
            versions.c.sop_class_uid,
            versions.c.transfer_syntax_uid,
            versions.c.path,
            receipts.c.receipt_id,
            receipts.c.outcome,
            receipts.c.digest,
            receipts.c.data_set_length,
            receipts.c.received_at,
            receipts.c.received_by,
            receipts.c.calling_ae_title,
            receipts.c.called_ae_title,
            receipts.c.peer_address,
            study_events.c.revision,
            study_events.c.evidence,
        )
        .select_from(changes)
        .join(receipts, receipts.c.receipt_key == changes.c.receipt_key)
        .join(
            versions, versions.c.version_key == func.coalesce(changes.c.version_key, receipts.c.version_key)
        )
        .join(instances, instances.c.instance_key == versions.c.instance_key)
        .outerjoin(series, series.c.series_key == versions.c.series_key)
        .outerjoin(studies, studies.c.study_key == series.c.study_key)
        .outerjoin(study_events, study_events.c.seq == changes.c.seq)
        .where(or_(*wanted))
    )
    if study_instance_uid:
        query = query.where(studies.c.study_instance_uid == study_instance_uid)
    return query


# Put together once: that takes longer than the answer, and each copy of an instance asks.
_ARRIVALS_OF_INSTANCE: Final = (
    _events((EventKind.INSTANCE_RECEIVED,), "")
    .where(
        instances.c.uid_hash == bindparam("hash"),
        instances.c.sop_instance_uid == bindparam("uid"),
        versions.c.state.in_((VersionState.KEPT.value, VersionState.SUPERSEDED.value)),
        # From the versions to their changes, in the words of the index.
        changes.c.receipt_key == versions.c.version_key,
        text("changes.kind = 'received'"),
    )
    .order_by(changes.c.seq)
)


def _event(row: Row[Any]) -> Event:
    # By their places, which is half as long as by their names: this is done for each event of each target.
    (
        seq,
        at,
        change,
        detail,
        study_instance_uid,
        series_instance_uid,
        sop_instance_uid,
        sop_class_uid,
        transfer_syntax_uid,
        path,
        receipt_id,
        outcome,
        digest,
        data_set_length,
        received_at,
        received_by,
        calling_ae_title,
        called_ae_title,
        peer_address,
        revision,
        evidence,
    ) = cast("tuple[Any, ...]", row)
    kind = _KINDS[change]
    if kind is EventKind.INSTANCE_RECEIVED and outcome == "identical":
        kind = EventKind.INSTANCE_REPEATED
    return Event(
        seq=seq,
        at=at,
        kind=kind,
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        path=path,
        receipt_id=receipt_id,
        digest=digest,
        data_set_length=data_set_length,
        received_at=received_at,
        received_by=received_by,
        calling_ae_title=calling_ae_title,
        called_ae_title=called_ae_title,
        peer_address=peer_address,
        revision=revision or 0,
        words=detail or "",
        evidence=json.loads(evidence) if evidence else {},
    )
