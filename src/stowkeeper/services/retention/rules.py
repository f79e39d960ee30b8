"""What a retention rule is."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from stowkeeper.services.conditions import Conditions


class Unit(StrEnum):
    """What a rule takes away whole or not at all."""

    STUDY = "study"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule:
    """What may go, and from which age on.

    Of a study (`by` is STUDY) every instance has to fit the conditions, and the age counts from its last arrival. `only_forwarded_to`
    are names of destinations that have to have every instance. `definition` is the rule as the settings have it: one that reads
    otherwise is another rule.
    """

    name: str
    conditions: Conditions
    after_days: float
    by: Unit = Unit.STUDY
    only_forwarded_to: tuple[str, ...] = ()
    definition: str = ""

    @property
    def mark(self) -> str:
        """What tells it from a rule of the same name that reads otherwise."""
        return blake2b(self.definition.encode(), digest_size=8).hexdigest()

    @property
    def reason(self) -> str:
        """Why something was removed, as the ledger has it."""
        return f"retention rule {self.name}"


Rules = Callable[[], tuple[RetentionRule, ...]]
"""The rules that are in force now."""
