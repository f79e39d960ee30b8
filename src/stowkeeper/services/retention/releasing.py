"""Handing what a rebuild listed back to the retention rules: by a person, with a reason, in the audit trail.

Such a version is spared, since a catalog made anew knows no commitment and no forward of before. What is held or to be forwarded
by now stays spared all the same: only this one reason goes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, or_, select, text, true, update

from stowkeeper.archive import audit
from stowkeeper.archive.catalog_values import VersionState, portions
from stowkeeper.archive.relisting import RELISTED
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.database.schema import audit as audit_rows
from stowkeeper.database.schema import changes, instance_among, instances, receipts, series, studies, versions
from stowkeeper.services.retention.judging import IS_HELD, IS_RELISTED
from stowkeeper.services.retention.limits import INSTANCES_PER_READ

RELEASED_TO_RULES = "released to retention rules"
"""The action in the audit trail."""

_RELISTED_AND_RELEASED = f"{RELISTED}, {RELEASED_TO_RULES}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseChoice:
    """What of it: what the UIDs of studies, series or instances name, everything where there are none.

    `before` leaves out what was received at that time or later: the begin of a time in ISO 8601, UTC. '' leaves out nothing.
    """

    uids: tuple[str, ...] = ()
    before: str = ""

    def condition(self) -> ColumnElement[bool]:
        """Return it as a condition on `_rows`."""
        chosen = receipts.c.received_at < self.before if self.before else true()
        if not self.uids:
            return chosen
        named = [
            column.in_(portion)
            for portion in portions(self.uids)
            for column in (studies.c.study_instance_uid, series.c.series_instance_uid)
        ]
        return chosen & or_(*named, *(instance_among(portion) for portion in portions(self.uids)))


@dataclass(slots=True)
class ReleasePlan:
    """What would be released, counted; `size` in bytes. `held` are versions that are held by now: they stay spared.

    `named` are the UIDs of the choice of which there is something; `last` is the key of the last version.
    """

    versions: int = 0
    size: int = 0
    held: int = 0
    last: int = 0
    studies: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)


def plan_release(database: Database, choice: ReleaseChoice) -> ReleasePlan:
    """Count what a release would be about. Changes nothing."""
    plan = ReleasePlan()
    asked = set(choice.uids)
    for page in _pages(database, choice, None):
        for row in page:
            plan.versions += 1
            plan.size += row.file_size
            plan.held += row.is_held
            plan.last = row.version_key
            plan.studies.add(_subject(row))
            plan.named |= asked & {row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid}
    return plan


def release(database: Database, choice: ReleaseChoice, plan: ReleasePlan, who: str, reason: str) -> int:
    """Let the rules judge what was planned; return how many versions are released. The audit trail names each study.

    It goes page by page, so that no writer waits for long; what is released stays so where the rest fails, and the same again does
    the rest.
    """
    released = 0
    for page in _pages(database, choice, plan.last):
        with database.write() as transaction:
            keys = {
                key
                for portion in portions(row.version_key for row in page)
                for key in _release(transaction, portion)
            }
            numbers = Counter(_subject(row) for row in page if row.version_key in keys)
            audit.note_all(
                transaction,
                who,
                RELEASED_TO_RULES,
                [
                    (uid, f"listed by a rebuild, {number} version{'s' * (number > 1)}: {reason}")
                    for uid, number in numbers.items()
                ],
            )
        released += len(keys)
    return released


def last_release(connection: Connection) -> int:
    """Return the key of the last line about a release in the audit trail; 0 where there is none."""
    newest = func.coalesce(func.max(audit_rows.c.audit_key), 0)
    return int(
        connection.execute(select(newest).where(audit_rows.c.action == RELEASED_TO_RULES)).scalar_one()
    )


def _release(transaction: Transaction, version_keys: Sequence[int]) -> Sequence[int]:
    spared = (
        # In these words, so that the partial index of the changes is used.
        changes.c.receipt_key.in_(version_keys),
        text("changes.kind = 'received'"),
        changes.c.detail == RELISTED,
    )
    keys = transaction.execute(select(changes.c.receipt_key).where(*spared)).scalars().all()
    transaction.execute(update(changes).where(*spared).values(detail=_RELISTED_AND_RELEASED))
    return keys


def _subject(row: Row[Any]) -> str:
    """Return the UID of the study; of the instance where it is in none."""
    return str(row.study_instance_uid or row.sop_instance_uid)


def _pages(database: Database, choice: ReleaseChoice, last: int | None) -> Iterator[Sequence[Row[Any]]]:
    after = 0
    while True:
        query = _rows(choice, after)
        if last is not None:
            query = query.where(versions.c.version_key <= last)
        with database.read() as connection:
            page = connection.execute(query).all()
        if not page:
            return
        yield page
        after = page[-1].version_key


def _rows(choice: ReleaseChoice, after: int) -> Select[Any]:
    return (
        select(
            versions.c.version_key,
            versions.c.file_size,
            IS_HELD.label("is_held"),
            studies.c.study_instance_uid,
            series.c.series_instance_uid,
            instances.c.sop_instance_uid,
        )
        .join(instances, instances.c.instance_key == versions.c.instance_key)
        .join(receipts, receipts.c.receipt_key == versions.c.version_key)
        .outerjoin(series, series.c.series_key == versions.c.series_key)
        .outerjoin(studies, studies.c.study_key == series.c.study_key)
        .where(versions.c.version_key > after, IS_RELISTED, choice.condition())
        .where(versions.c.state != VersionState.REMOVED.value)
        .order_by(versions.c.version_key)
        .limit(INSTANCES_PER_READ)
    )
