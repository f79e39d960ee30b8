"""`stowkeeper rules`: what the forwarding rules would do with what is in the archive, without doing it."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import click

from stowkeeper.app.commands.byte_progress import human_size
from stowkeeper.app.commands.columns import Column, lay_out
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import SettingsArguments, json_option, place_options
from stowkeeper.app.commands.parameters import moment
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.forwarding_rules import forwarding_rules
from stowkeeper.app.limits import SENDERS_REMEMBERED
from stowkeeper.app.log_lines import printable
from stowkeeper.app.peer_book import configured_peers
from stowkeeper.app.settings import Settings, load_settings
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.services.arrivals import arrival_of_instance
from stowkeeper.services.conditions import Arrival
from stowkeeper.services.forwarding.destinations import senders
from stowkeeper.services.forwarding.rules import Explanation, ForwardingRule, When, explain
from stowkeeper.services.forwarding.trial import RuleTrial, Tally, Trial, kept_arrivals, keywords_of
from stowkeeper.services.peers import Peer, stored_peers

_WHEN = {When.RECEIVED: "at once", When.STUDY_QUIET: "when the study is quiet"}


@click.group(epilog="docs/forwarding.md tells more.")
def rules() -> None:
    """Try forwarding rules on what is in the archive.

    The settings say in [[forwarding_rules]] what is sent on to whom; `stowkeeper forwards` shows what is on its way.
    """


@rules.command(
    "test",
    epilog="Exit code 0, also where nothing would be sent; 1 when the study or the instance is not there."
    " Example: stowkeeper rules test --rules draft.toml --since 7d",
)
@place_options
@click.option(
    "--rules",
    "draft",
    metavar="FILE",
    help="Settings file (TOML) whose [[forwarding_rules]] are tried instead. It need hold nothing else.",
)
@click.option("--study", metavar="UID", default="", help="Only what belongs to this study.")
@click.option(
    "--since", metavar="TIME", type=moment, help="Received since then: 2026-03-02, or 7d for a week."
)
@click.option(
    "--explain",
    "instance",
    metavar="UID",
    help="Say of this SOP instance what each rule makes of it, and why.",
)
@json_option
def test(
    *,
    archive: str | None,
    config: str | None,
    draft: str | None,
    study: str,
    since: str | None,
    instance: str | None,
    as_json: bool,
) -> ExitCode:
    """Show what the forwarding rules would send where, of what is in the archive. Sends nothing and changes nothing.

    Each instance counts once for a destination, by the rule that sends it there. What was sent before counts too. Runs beside
    a server.
    """
    if instance is not None and (study or since):
        raise click.UsageError("--explain is about one instance: leave out --study and --since.")
    settings = SettingsArguments(config_file=config, overrides={"archive": archive}).as_served().load()
    if not os.path.isdir(settings.archive):
        raise CommandError(
            f"there is no archive in {settings.archive}: name its folder with --archive, or mount its disk if that is away",
            ExitCode.NO_INPUT,
        )
    tried = settings if draft is None else load_settings(draft, {"archive": settings.archive}, {})
    found = forwarding_rules(tried)
    with closing(ArchiveReader(settings.archive, to_read=True)) as reader:
        with reader.database.read() as connection:
            peers = _peers(settings, tried, stored_peers(connection))
        came_from = _came_from(peers)
        if instance is not None:
            with reader.database.read() as connection:
                arrival = arrival_of_instance(connection, instance, keywords_of(found))
            if arrival is None:
                raise CommandError(f"The archive keeps no instance {instance}.", ExitCode.FINDINGS)
            _show_explanations(arrival, explain(found, arrival, came_from(arrival)), as_json=as_json)
        else:
            trial = Trial(found, came_from)
            for study_key, one in kept_arrivals(
                reader.database, keywords_of(found), study_instance_uid=study, received_from=since or ""
            ):
                trial.put(study_key, one)
            if study and not trial.all.instances and not since:
                raise CommandError(f"The archive keeps nothing of a study {study}.", ExitCode.FINDINGS)
            _show_trial(trial, as_json=as_json)
    if not found:
        click.echo("There are no [[forwarding_rules]]: nothing is sent on.", err=True)
    for destination in _unknown(found, peers, tried, settings):
        click.echo(
            printable(f"Nobody defines the destination {destination}: what goes there would wait."), err=True
        )
    return ExitCode.OK


def _peers(settings: Settings, tried: Settings, stored: Iterable[Peer]) -> list[Peer]:
    """Return the peers, those of a draft first, one for each name."""
    by_name: dict[str, Peer] = {}
    for peer in (*configured_peers(tried), *configured_peers(settings), *stored):
        by_name.setdefault(peer.name, peer)
    return list(by_name.values())


def _came_from(peers: Sequence[Peer]) -> Callable[[Arrival], frozenset[str]]:
    known: dict[tuple[str, str], frozenset[str]] = {}

    def came_from(arrival: Arrival) -> frozenset[str]:
        who = arrival.calling_ae_title, arrival.peer_address
        if who not in known:
            if len(known) >= SENDERS_REMEMBERED:
                known.clear()
            known[who] = senders(arrival, peers)
        return known[who]

    return came_from


def _unknown(found: Sequence[ForwardingRule], peers: Iterable[Peer], *several: Settings) -> list[str]:
    known = {peer.name for peer in peers}
    known |= {server.name for settings in several for server in settings.origin_servers}
    return sorted({destination for rule in found for destination in rule.to} - known)


# What is shown of a trial.


def _show_trial(trial: Trial, *, as_json: bool) -> None:
    if as_json:
        report = {
            "rules": [_rule_object(found) for found in trial.rules],
            "unmatched": _numbers(trial.unmatched),
            "all": _numbers(trial.all),
        }
        click.echo(json.dumps(report))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lay_out(_COLUMNS, list(_lines(trial)), width):
        click.echo(line)
    for found in trial.rules:
        for destination, count in found.not_sent_back.items():
            click.echo(
                printable(f"{found.rule.name}: not sent back to {destination}, from which they came: {count}")
            )


def _rule_object(found: RuleTrial) -> dict[str, Any]:
    return {
        "rule": found.rule.name,
        "when": found.rule.when.value,
        "priority": found.rule.priority,
        "fits": _numbers(found.fits),
        "to": [
            {
                "destination": destination,
                **_numbers(tally),
                "not_sent_back": found.not_sent_back.get(destination, 0),
            }
            for destination, tally in found.to.items()
        ],
    }


def _numbers(tally: Tally) -> dict[str, int]:
    return {"instances": tally.instances, "studies": tally.studies, "bytes": tally.bytes}


_COLUMNS = (
    Column(title="Rule", text=lambda row: row["rule"], cut_to=8),
    Column(title="To", text=lambda row: row["to"], cut_to=8),
    Column(title="When", text=lambda row: row["when"], drop=1),
    Column(title="Inst.", text=lambda row: str(row["tally"].instances), right=True),
    Column(title="Studies", text=lambda row: str(row["tally"].studies), right=True),
    Column(title="Size", text=lambda row: human_size(row["tally"].bytes), right=True),
)


def _lines(trial: Trial) -> Iterator[dict[str, Any]]:
    for found in trial.rules:
        name = found.rule.name
        yield {"rule": name, "to": "", "when": "fits", "tally": found.fits}
        for destination, tally in found.to.items():
            yield {"rule": name, "to": destination, "when": _WHEN[found.rule.when], "tally": tally}
    yield {"rule": "(no rule)", "to": "", "when": "", "tally": trial.unmatched}
    yield {"rule": "(all)", "to": "", "when": "", "tally": trial.all}


# What is shown of one instance.


def _show_explanations(arrival: Arrival, found: Sequence[Explanation], *, as_json: bool) -> None:
    if as_json:
        report = {
            "sop_instance_uid": arrival.sop_instance_uid,
            "rules": [
                {
                    "rule": one.rule.name,
                    "fits": not one.unmet,
                    "unmet": one.unmet or None,
                    "to": list(one.chosen),
                    "passed_over": [{"destination": name, "why": words} for name, words in one.passed_over],
                }
                for one in found
            ],
        }
        click.echo(json.dumps(report))
        return
    for one in found:
        click.echo(printable(f"{one.rule.name}: {_words(one)}"))
    if not any(one.chosen for one in found):
        click.echo("It goes nowhere.")


def _words(one: Explanation) -> str:
    if one.unmet:
        return f"it does not fit: {one.unmet}"
    parts = [f"it goes to {name}, {_WHEN[one.rule.when]}" for name in one.chosen]
    parts += [f"not to {name}: {words}" for name, words in one.passed_over]
    return "it fits; " + "; ".join(parts)
