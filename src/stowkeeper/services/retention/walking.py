"""The walk over an archive for what a rule takes away, page by page, each from a short look of its own."""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select

from stowkeeper.archive.catalog_values import VersionState, portions
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import holds, instance_among, instances, receipts, series, studies, versions
from stowkeeper.services.arrivals import every_arrival
from stowkeeper.services.conditions import Arrival
from stowkeeper.services.retention.judging import (
    IS_RELISTED,
    Holding,
    arrivals_of,
    holding_of,
    keywords_of,
    why_spared,
)
from stowkeeper.services.retention.limits import INSTANCES_PER_READ, STUDIES_PER_READ
from stowkeeper.services.retention.rules import RetentionRule, Unit


def due(database: Database, rule: RetentionRule, before: int) -> Iterator[Holding]:
    """Yield what a rule may take away of what came before a receipt, as it is now; the oldest studies first."""
    uids = old_studies(database, before) if rule.by is Unit.STUDY else _old_instances(database, rule, before)
    for uid in uids:
        with database.read() as connection:
            found = holding_of(connection, rule.by, uid)
            if found is None:
                continue
            arrivals = arrivals_of(connection, rule, uid)
            if why_spared(connection, rule, found, arrivals, before) is None:
                yield found


def studies_with_versions(connection: Connection, after: int) -> Sequence[tuple[int, str]]:
    """Return the next studies behind a key that have something left, with their keys."""
    query = (
        select(studies.c.study_key, studies.c.study_instance_uid)
        .where(studies.c.study_key > after, studies.c.patient_key.is_not(None))
        .order_by(studies.c.study_key)
        .limit(STUDIES_PER_READ)
    )
    return [(row.study_key, row.study_instance_uid) for row in connection.execute(query)]


_STAYS = or_(
    versions.c.state.in_([VersionState.DAMAGED.value, VersionState.SUPERSEDED.value]),
    versions.c.conflict == 1,
    exists().where(holds.c.version_key == versions.c.version_key),
    IS_RELISTED,
)


def _came_since(before: int) -> ColumnElement[bool]:
    return exists().where(receipts.c.version_key == versions.c.version_key, receipts.c.receipt_key >= before)


def old_studies(database: Database, before: int) -> Iterator[str]:
    """Yield the studies of which nothing came since a receipt, and that nothing in their own rows keeps."""
    after = 0
    while True:
        with database.read() as connection:
            page = studies_with_versions(connection, after)
            if not page:
                return
            stays = (
                exists()
                .where(
                    series.c.study_key == studies.c.study_key, versions.c.series_key == series.c.series_key
                )
                .where(versions.c.state != VersionState.REMOVED.value, or_(_STAYS, _came_since(before)))
            )
            keys = [key for key, _ in page]
            query = select(studies.c.study_instance_uid).where(studies.c.study_key.in_(keys), ~stays)
            found = connection.execute(query.order_by(studies.c.study_key)).scalars().all()
        yield from found
        after = keys[-1]


def _old_instances(database: Database, rule: RetentionRule, before: int) -> Iterator[str]:
    """Yield the instances that fit a rule, of which nothing came since a receipt, and that nothing in their rows keeps."""
    for page in arrivals_before(database, rule, before):
        chosen = [arrival for arrival in page if rule.conditions.match(arrival)]
        with database.read() as connection:
            old = {
                uid
                for portion in portions(arrival.sop_instance_uid for arrival in chosen)
                for uid in _without_what_stays(connection, portion, before)
            }
        yield from (arrival.sop_instance_uid for arrival in chosen if arrival.sop_instance_uid in old)


def arrivals_before(database: Database, rule: RetentionRule, before: int) -> Iterator[Sequence[Arrival]]:
    """Yield the current versions that came before a receipt, in the order of their keys."""
    after, keywords = 0, keywords_of(rule)
    while True:
        with database.read() as connection:
            page = every_arrival(connection, after, INSTANCES_PER_READ, keywords)
        yield [arrival for arrival in page if arrival.version_key < before]
        if not page or page[-1].version_key >= before:
            return
        after = page[-1].version_key


def _without_what_stays(connection: Connection, uids: Sequence[str], before: int) -> Sequence[str]:
    stays = exists().where(
        and_(
            versions.c.instance_key == instances.c.instance_key,
            versions.c.state != VersionState.REMOVED.value,
            or_(_STAYS, _came_since(before)),
        )
    )
    query = select(instances.c.sop_instance_uid).where(instance_among(uids), ~stays)
    return connection.execute(query).scalars().all()
