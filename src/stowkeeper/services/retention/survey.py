"""What rules would take away now and what they spare, for who asks before: nothing is changed by asking."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from stowkeeper.database.engine import Database
from stowkeeper.services.retention.judging import (
    Holding,
    Spared,
    arrivals_of,
    fitting,
    holding_of,
    horizon,
    next_receipt,
    why_spared,
)
from stowkeeper.services.retention.rules import RetentionRule, Unit
from stowkeeper.services.retention.walking import arrivals_before, studies_with_versions

TAKEN = "another rule removes it first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule would do with a study or an instance that it is about. `spared` is '' where it would go."""

    rule: RetentionRule
    holding: Holding
    spared: str


def survey(database: Database, rules: Sequence[RetentionRule], now: str) -> Iterator[Finding]:
    """Yield what each rule is about, rule by rule in their order, and what it would do with it now."""
    taken: set[str] = set()
    for rule in rules:
        with database.read() as connection:
            before = horizon(connection, now, rule.after_days)
        uids = _studies(database) if rule.by is Unit.STUDY else _instances(database, rule)
        for uid in uids:
            with database.read() as connection:
                found = _judge(connection, rule, uid, before)
            if found is None:
                continue
            if not found.spared and uid in taken:
                found = Finding(rule=rule, holding=found.holding, spared=TAKEN)
            elif not found.spared:
                taken.add(uid)
            yield found


def _judge(connection: Connection, rule: RetentionRule, uid: str, before: int) -> Finding | None:
    holding = holding_of(connection, rule.by, uid)
    if holding is None:
        return None
    arrivals = arrivals_of(connection, rule, uid)
    number = fitting(rule, arrivals)
    if not number:
        return None
    spared: Spared | None = Spared.MATCHES_IN_PART
    if number == len(arrivals):
        spared = why_spared(connection, rule, holding, arrivals, before)
    return Finding(rule=rule, holding=holding, spared="" if spared is None else spared.value)


def _studies(database: Database) -> Iterator[str]:
    after = 0
    while True:
        with database.read() as connection:
            page = studies_with_versions(connection, after)
        if not page:
            return
        yield from (uid for _, uid in page)
        after = page[-1][0]


def _instances(database: Database, rule: RetentionRule) -> Iterator[str]:
    with database.read() as connection:
        end = next_receipt(connection)
    for page in arrivals_before(database, rule, end):
        yield from (arrival.sop_instance_uid for arrival in page if rule.conditions.match(arrival))
