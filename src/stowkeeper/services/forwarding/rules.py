"""The rules of forwarding: what they choose for an instance, and why. No I/O."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stowkeeper.services.conditions import Arrival, Conditions


class When(StrEnum):
    """When a rule sends: as soon as the instance is listed, or with the whole study once that is quiet."""

    RECEIVED = "received"
    STUDY_QUIET = "study.quiet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingRule:
    """What fits `conditions` goes to each of `to`, names of peers and of origin servers. The larger priority goes first."""

    name: str
    conditions: Conditions
    to: tuple[str, ...]
    when: When = When.RECEIVED
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Where an instance goes, and by which rule."""

    destination: str
    rule: ForwardingRule

    @property
    def priority(self) -> int:
        """The priority with which it goes."""
        return self.rule.priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a rule makes of an instance: `unmet` says which condition does not hold, empty where it fits.

    `chosen` are the destinations to which the instance goes by this rule. `passed_over` are the others, each with why.
    """

    rule: ForwardingRule
    unmet: str
    chosen: tuple[str, ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()


def destinations(
    rules: Iterable[ForwardingRule], arrival: Arrival, came_from: Collection[str] = frozenset()
) -> list[Choice]:
    """Return where an instance goes: each destination once, and none of `came_from`, from which it may have come itself.

    Where several rules name a destination, the one that sends at once goes before one that waits until the study is quiet;
    then the one of the higher priority; then the first one.
    """
    return choices(fitting(rules, arrival), came_from)


def fitting(rules: Iterable[ForwardingRule], arrival: Arrival) -> list[ForwardingRule]:
    """Return the rules whose conditions an instance meets."""
    return [rule for rule in rules if rule.conditions.match(arrival)]


def choices(fitting: Iterable[ForwardingRule], came_from: Collection[str]) -> list[Choice]:
    """Return where an instance goes by the rules that it fits; see `destinations`."""
    chosen: dict[str, Choice] = {}
    for rule in fitting:
        for destination in rule.to:
            found = chosen.get(destination)
            if destination not in came_from and (found is None or _rank(rule) < _rank(found.rule)):
                chosen[destination] = Choice(destination=destination, rule=rule)
    return list(chosen.values())


def explain(
    rules: Sequence[ForwardingRule], arrival: Arrival, came_from: Collection[str] = frozenset()
) -> list[Explanation]:
    """Say of an instance what each rule makes of it, in the order of the rules."""
    chosen = {choice.destination: choice.rule for choice in destinations(rules, arrival, came_from)}
    found = []
    for rule in rules:
        unmet = rule.conditions.unmet(arrival)
        if unmet:
            found.append(Explanation(rule=rule, unmet=unmet))
            continue
        here = tuple(dict.fromkeys(to for to in rule.to if chosen.get(to) is rule))
        others = {
            to: f"it goes there by the rule {chosen[to].name}" if to in chosen else "it came from there"
            for to in rule.to
            if to not in here
        }
        found.append(Explanation(rule=rule, unmet="", chosen=here, passed_over=tuple(others.items())))
    return found


def _rank(rule: ForwardingRule) -> tuple[bool, int]:
    return rule.when is not When.RECEIVED, -rule.priority
