"""The settings of forwarding: one `[[forwarding_rules]]` table of the file for each rule."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About
from stowkeeper.app.setting_values import entries, shown
from stowkeeper.app.settings_of_conditions import RuleSettings
from stowkeeper.jobs.limits import PRIORITY_MAX

if TYPE_CHECKING:
    from stowkeeper.app.settings_tables import Settings


def _parse_destinations(value: object) -> tuple[str, ...]:
    found = []
    for entry in entries(value):
        if not isinstance(entry, str) or not entry.strip(" "):
            raise ValueError(f"{shown(entry)} is no name")
        found.append(entry.strip(" "))
    if not found:
        raise ValueError("it names no destination")
    if len(found) > limits.DESTINATIONS_PER_RULE_MAX:
        raise ValueError(f"it has {len(found)} entries, more than {limits.DESTINATIONS_PER_RULE_MAX}")
    return tuple(dict.fromkeys(found))


class ForwardingRuleSettings(RuleSettings):
    """What is sent on, and where to. An instance that meets all conditions of a rule goes to each of its destinations.

    Where several rules send an instance to one destination, it goes there once. `stowkeeper rules test` shows what rules would
    do with what is in the archive; `docs/forwarding.md` tells more.
    """

    to: Annotated[
        tuple[str, ...],
        BeforeValidator(_parse_destinations),
        About(
            "Where it goes. A destination from which an instance came does not get it back.",
            allowed="a list of names of `[[peers]]`, of `[[origin_servers]]`, or of peers in the archive's database",
            shape="list",
        ),
    ]
    when: Annotated[
        Literal["received", "study.quiet"],
        About(
            "Send each instance as soon as it is listed, or the whole study once nothing arrived for"
            " `events.study_quiet_seconds`."
        ),
    ] = "received"
    priority: Annotated[
        int,
        Field(ge=-PRIORITY_MAX, le=PRIORITY_MAX),
        About("What has the larger number is sent first."),
    ] = 0


def forwarding_contradictions(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Yield each key of these tables that contradicts another, and how."""
    names = [rule.name for rule in settings.forwarding_rules]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "forwarding_rules", f'several rules have the name "{name}"'
    if len(names) > limits.FORWARDING_RULES_MAX:
        yield "forwarding_rules", f"there are {len(names)} rules, {limits.FORWARDING_RULES_MAX} are allowed"


def forwarding_warnings(settings: "Settings") -> Iterator[str]:
    """Yield what the rules name that the settings do not have, or that cannot be called, and rules that nothing can fit."""
    peers = {peer.name: peer for peer in settings.peers}
    servers = {server.name for server in settings.origin_servers}
    for rule in settings.forwarding_rules:
        why = rule.why_nothing_fits()
        if why:
            yield f'the forwarding rule "{rule.name}" is about nothing: {why}'
        for destination in rule.to:
            peer = peers.get(destination)
            if peer is None and destination not in servers:
                yield (
                    f'the forwarding rule "{rule.name}" sends to "{destination}", which is the name of no [[peers]] and no'
                    " [[origin_servers]]: what it chooses waits, unless the archive's database has such a peer, which"
                    " `stowkeeper peers add` puts in"
                )
            elif peer is not None and (peer.host is None or peer.ae_title is None):
                yield (
                    f'the forwarding rule "{rule.name}" sends to the peer "{destination}", of which nobody said where it is'
                    " called: what the rule chooses waits until it has ae_title, host and port"
                )
