"""The question that a removal asks in its own transaction: whether the rule still wants this gone."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection

from stowkeeper.jobs.job import JSON
from stowkeeper.services.retention.judging import Spared, arrivals_of, holding_of, why_spared
from stowkeeper.services.retention.rules import RetentionRule, Rules


def by_rule(rule: RetentionRule, before: int) -> JSON:
    """Return what a rule decided by, for the arguments of a removal: only what came before that receipt is old."""
    return {"rule": rule.name, "mark": rule.mark, "before": before}


@dataclass(frozen=True, slots=True)
class RetentionSparing:
    """Asks the rules that are in force now. One that was switched off, or reads otherwise by now, takes nothing away."""

    rules: Rules

    def __call__(
        self, connection: Connection, decided_by: JSON, uid: str, version_keys: Collection[int]
    ) -> str:
        """Say why all of it stays, '' when it may go: see `archive_jobs.Retained`."""
        rule = next((rule for rule in self.rules() if rule.name == decided_by["rule"]), None)
        if rule is None:
            return "the rule is not in force any more"
        if rule.mark != decided_by["mark"]:
            return "the rule reads otherwise by now"
        found = holding_of(connection, rule.by, uid)
        if found is None:
            return Spared.GONE.value
        arrivals = arrivals_of(connection, rule, uid)
        spared = why_spared(connection, rule, found, arrivals, int(decided_by["before"]))
        if spared is not None:
            return spared.value
        return "" if found.version_keys == frozenset(version_keys) else "it changed meanwhile"
