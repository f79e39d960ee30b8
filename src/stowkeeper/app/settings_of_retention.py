"""The settings of retention: one `[[retention_rules]]` table of the file for each rule."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About
from stowkeeper.app.setting_values import entries, shown
from stowkeeper.app.settings_of_conditions import RuleSettings
from stowkeeper.services.retention.limits import AFTER_DAYS_MAX, AFTER_DAYS_MIN, RULES_MAX

if TYPE_CHECKING:
    from stowkeeper.app.settings_tables import Settings


def _parse_names(value: object) -> tuple[str, ...]:
    found = []
    for entry in entries(value):
        if not isinstance(entry, str) or not entry.strip(" "):
            raise ValueError(f"{shown(entry)} is no name")
        found.append(entry.strip(" "))
    if len(found) > limits.DESTINATIONS_PER_RULE_MAX:
        raise ValueError(f"it has {len(found)} entries, more than {limits.DESTINATIONS_PER_RULE_MAX}")
    return tuple(dict.fromkeys(found))


class RetentionRuleSettings(RuleSettings):
    """What may be removed, and from which age on. Without a rule nothing is ever removed by itself.

    No rule removes what is held, as by storage commitment, in conflict, damaged, or still to be forwarded, and none looks at how
    full the disk is. `stowkeeper retention test` shows what the rules would remove; `docs/retention.md` tells more.
    """

    after_days: Annotated[
        float,
        Field(ge=AFTER_DAYS_MIN, le=AFTER_DAYS_MAX, allow_inf_nan=False),
        About("Days since it was received, of a study since anything of it was received last."),
    ]
    by: Annotated[
        Literal["study", "instance"],
        About(
            'What goes whole or not at all. `"study"`: only a study all of whose instances meet the conditions, and one instance'
            " that may not go spares it. Instances outside of studies go by instance alone."
        ),
    ] = "study"
    only_forwarded_to: Annotated[
        tuple[str, ...],
        BeforeValidator(_parse_names),
        About(
            "Destinations of forwarding rules, each of which has to have taken all of it.",
            allowed="a list of names, as in `to` of `[[forwarding_rules]]`",
            shape="list",
        ),
    ] = ()

    def asks_for_nothing(self) -> bool:
        """Tell whether everything that is old enough goes."""
        of_conditions = set(RuleSettings.model_fields) - {"name"}
        return not self.only_forwarded_to and not any(getattr(self, name) for name in of_conditions)


def retention_contradictions(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Yield each key of these tables that contradicts another, and how."""
    names = [rule.name for rule in settings.retention_rules]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "retention_rules", f'several rules have the name "{name}"'
    if len(names) > RULES_MAX:
        yield "retention_rules", f"there are {len(names)} rules, {RULES_MAX} are allowed"


def retention_warnings(settings: "Settings") -> Iterator[str]:
    """Yield which rules remove everything, and which nothing."""
    chosen = {name for rule in settings.forwarding_rules for name in rule.to}
    for rule in settings.retention_rules:
        if rule.asks_for_nothing():
            what = "every study" if rule.by == "study" else "every instance"
            yield (
                f'the retention rule "{rule.name}" removes {what} that is older than {rule.after_days:g} days: it has no'
                " conditions"
            )
        for name in rule.only_forwarded_to:
            if name not in chosen:
                yield (
                    f'the retention rule "{rule.name}" removes nothing new: it waits for "{name}" to have it, and no forwarding'
                    " rule sends there"
                )
