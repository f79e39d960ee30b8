"""From the forwarding rules of the settings to those that the services know."""

from collections.abc import Iterable

from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_forwarding import ForwardingRuleSettings
from stowkeeper.services.forwarding.rules import ForwardingRule, When


def forwarding_rules(settings: Settings) -> tuple[ForwardingRule, ...]:
    """Return the rules of the settings, in their order."""
    return rules_of(settings.forwarding_rules)


def rules_of(entries: Iterable[ForwardingRuleSettings]) -> tuple[ForwardingRule, ...]:
    """Return the rules that entries of the settings are."""
    return tuple(
        ForwardingRule(
            name=entry.name,
            conditions=entry.conditions(),
            to=entry.to,
            when=When(entry.when),
            priority=entry.priority,
        )
        for entry in entries
    )
