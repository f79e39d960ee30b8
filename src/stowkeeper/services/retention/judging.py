"""What a rule may take away, and why not: one judgement for the look, for the removal itself, and for who asks before.

Nothing here goes by times where it can go by order. A rule's age becomes a receipt, the first one of the days in which all is to
stay (`horizon`); what came before it in the order of receipts is old. So an instance that came while the clock was years
behind is as old as its neighbours, and what was judged old is found so again in the transaction that removes it, whatever
the clock does in between.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, func, select, text

from stowkeeper.archive.catalog_values import VersionState, portions
from stowkeeper.archive.relisting import RELISTED
from stowkeeper.database.schema import (
    changes,
    consumers,
    holds,
    instance_among,
    instances,
    receipts,
    series,
    studies,
    study_events,
    study_watches,
    versions,
)
from stowkeeper.jobs.times import later
from stowkeeper.services.arrivals import arrival_of_instance, arrivals_of_study
from stowkeeper.services.conditions import Arrival
from stowkeeper.services.forwarding.following import CONSUMER
from stowkeeper.services.forwarding.rows import open_forwards_of, sent_to
from stowkeeper.services.retention.limits import CLOCK_STEP_SECONDS
from stowkeeper.services.retention.rules import RetentionRule, Unit

_SECONDS_A_DAY = 86_400.0


class Spared(StrEnum):
    """Why a rule leaves something alone that it is about. The words are for people."""

    MATCHES_IN_PART = "some of its instances do not fit the rule"
    YOUNG = "not old enough"
    DAMAGED = "damaged"
    CONFLICT = "in conflict"
    REPLACED = "a version that was replaced is still kept"
    HELD = "held"
    RELISTED = "listed from its file by a rebuild"
    STILL_ARRIVING = "the forwarding rules did not look at all of it yet"
    TO_BE_FORWARDED = "to be forwarded"
    NOT_FORWARDED = "not forwarded to all of only_forwarded_to"
    GONE = "nothing of it is left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What the archive has of a study or an instance. `newest` is the key of the last receipt of any of it.

    `version_keys` are those whose files a removal would take away; `size` is in bytes, of these.
    """

    uid: str
    version_keys: frozenset[int]
    instances: int
    size: int
    newest: int
    states: frozenset[str]
    is_in_conflict: bool
    is_held: bool
    is_relisted: bool


def horizon(connection: Connection, now: str, after_days: float) -> int:
    """Return the key of the first receipt of the last days, by the order of receipts; where there is none, that of the next one.

    A receipt of the future came while the clock was ahead. It is of the last days, unless one that came after it is older than
    these, and not of a clock that was behind: not older than what came before.
    """
    since = later(now, -after_days * _SECONDS_A_DAY)
    until = later(now, CLOCK_STEP_SECONDS)
    key, at = receipts.c.receipt_key, receipts.c.received_at
    first = connection.execute(select(func.min(key)).where(at >= since, at <= until)).scalar()
    young = next_receipt(connection) if first is None else int(first)
    begin, end = connection.execute(select(func.min(key), func.max(key)).where(at > until, key < young)).one()
    if begin is None:
        return young
    before = connection.execute(select(func.max(at)).where(at <= until, key < begin)).scalar()
    if before is None:
        return int(begin)
    proof = select(key).where(key > end, key < young, at >= before, at < since).limit(1)
    return int(begin) if connection.execute(proof).first() is None else young


def next_receipt(connection: Connection) -> int:
    """Return the key that the next receipt will have."""
    return 1 + int(
        connection.execute(select(func.coalesce(func.max(receipts.c.receipt_key), 0))).scalar_one()
    )


# What there is.

IS_HELD = exists().where(holds.c.version_key == versions.c.version_key)
_LAST_RECEIPT = (
    select(func.max(receipts.c.receipt_key))
    .where(receipts.c.version_key == versions.c.version_key)
    .correlate(versions)
    .scalar_subquery()
)
# Who made the catalog anew lost what was committed and what was to be forwarded.
IS_RELISTED = exists().where(
    changes.c.receipt_key == versions.c.version_key,
    text("changes.kind = 'received'"),  # in these words, for the partial index
    changes.c.detail == RELISTED,
)
_WITH_FILE = frozenset({VersionState.KEPT.value, VersionState.SUPERSEDED.value})


def _rows(condition: ColumnElement[bool]) -> Select[Any]:
    return select(
        versions.c.version_key,
        versions.c.instance_key,
        versions.c.state,
        versions.c.conflict,
        versions.c.file_size,
        IS_HELD.label("is_held"),
        IS_RELISTED.label("is_relisted"),
        _LAST_RECEIPT.label("newest"),
    ).where(condition, versions.c.state != VersionState.REMOVED.value)


def holding_of(connection: Connection, unit: Unit, uid: str) -> Holding | None:
    """Return what there is of a study or an instance; None where nothing of it is left."""
    if unit is Unit.STUDY:
        of_study = (
            select(series.c.series_key)
            .join(studies, studies.c.study_key == series.c.study_key)
            .where(studies.c.study_instance_uid == uid)
        )
        query = _rows(versions.c.series_key.in_(of_study))
    else:
        of_instance = select(instances.c.instance_key).where(instance_among([uid]))
        query = _rows(versions.c.instance_key.in_(of_instance))
    found = connection.execute(query).all()
    if not found:
        return None
    going = [row for row in found if row.state in _WITH_FILE]
    return Holding(
        uid=uid,
        version_keys=frozenset(row.version_key for row in going),
        instances=len({row.instance_key for row in going}),
        size=sum(row.file_size for row in going),
        newest=max(row.newest for row in found),
        states=frozenset(row.state for row in found),
        is_in_conflict=any(row.conflict for row in found),
        is_held=any(row.is_held for row in found),
        is_relisted=any(row.is_relisted for row in found),
    )


def keywords_of(rule: RetentionRule) -> frozenset[str]:
    """Return the attributes that a rule asks for."""
    return frozenset(rule.conditions.attributes)


# The judgement.


def fitting(rule: RetentionRule, arrivals: Iterable[Arrival]) -> int:
    """Return how many of some instances fit the conditions of a rule."""
    return sum(rule.conditions.match(arrival) for arrival in arrivals)


def why_spared(
    connection: Connection, rule: RetentionRule, holding: Holding, arrivals: Collection[Arrival], before: int
) -> Spared | None:
    """Say why something that a rule is about stays; None where it may go.

    `arrivals` are the current versions of it, `before` is the horizon.
    """
    if not holding.version_keys:
        return Spared.GONE
    if VersionState.DAMAGED.value in holding.states:
        return Spared.DAMAGED
    if holding.is_in_conflict:
        return Spared.CONFLICT
    if VersionState.SUPERSEDED.value in holding.states:
        return Spared.REPLACED
    if holding.is_held:
        return Spared.HELD
    if holding.is_relisted:
        return Spared.RELISTED
    if holding.newest >= before:
        return Spared.YOUNG
    if not arrivals or fitting(rule, arrivals) < len(arrivals):
        return Spared.MATCHES_IN_PART
    if open_forwards_of(connection, holding.version_keys):
        return Spared.TO_BE_FORWARDED
    if _is_still_arriving(connection, holding):
        return Spared.STILL_ARRIVING
    return None if _is_forwarded(connection, rule, holding) else Spared.NOT_FORWARDED


def arrivals_of(connection: Connection, rule: RetentionRule, uid: str) -> list[Arrival]:
    """Return the current versions of the study or the instance that a rule names."""
    keywords = keywords_of(rule)
    if rule.by is Unit.STUDY:
        return arrivals_of_study(connection, uid, keywords)
    found = arrival_of_instance(connection, uid, keywords)
    return [] if found is None else [found]


def _is_still_arriving(connection: Connection, holding: Holding) -> bool:
    """Tell whether the forwarding rules, if there ever were any, are still to look at something of it."""
    cursor = connection.execute(select(consumers.c.seq).where(consumers.c.name == CONSUMER)).scalar()
    if cursor is None:
        return False
    for portion in portions(holding.version_keys):
        unseen = (
            select(changes.c.seq)
            .join(receipts, receipts.c.receipt_key == changes.c.receipt_key)
            # In these words, so that the partial index of the changes is used.
            .where(receipts.c.version_key.in_(portion), text("changes.kind = 'received'"))
            .where(changes.c.seq > cursor)
        )
        of_study = (
            select(series.c.study_key)
            .join(versions, versions.c.series_key == series.c.series_key)
            .where(versions.c.version_key.in_(portion))
        )
        awaited = select(study_watches.c.study_key).where(
            study_watches.c.study_key.in_(of_study), study_watches.c.quiet_due_at.is_not(None)
        )
        untold = select(study_events.c.seq).where(
            study_events.c.study_key.in_(of_study), study_events.c.seq > cursor
        )
        if any(connection.execute(query.limit(1)).first() for query in (unseen, awaited, untold)):
            return True
    return False


def _is_forwarded(connection: Connection, rule: RetentionRule, holding: Holding) -> bool:
    """Tell whether every destination that has to have it took all of it."""
    if not rule.only_forwarded_to:
        return True
    wanted = set(rule.only_forwarded_to)
    sent = sent_to(connection, holding.version_keys)
    return all(wanted <= sent.get(key, set()) for key in holding.version_keys)
