"""`stowkeeper retention`: what the retention rules would remove now and what they spare; and a word on the clock."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.byte_progress import human_size
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import (
    SettingsArguments,
    archive_option,
    json_option,
    place_options,
)
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.app.retention_rules import retention_rules
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import utc_now
from stowkeeper.services.retention.clock_watch import trust_clock
from stowkeeper.services.retention.releasing import ReleaseChoice, ReleasePlan, plan_release, release
from stowkeeper.services.retention.retention_job import clock_is_doubted
from stowkeeper.services.retention.rules import RetentionRule, Unit
from stowkeeper.services.retention.survey import Finding, survey


@click.group(epilog="docs/retention.md tells more.")
def retention() -> None:
    """Show what the retention rules would remove.

    A rule of [[retention_rules]] removes what is older than its days, and nothing that is held, in conflict, damaged, or still to be
    forwarded. Without a rule nothing is ever removed by itself.
    """


@dataclass(slots=True)
class _Amount:
    """Studies or instances, counted."""

    count: int = 0
    instances: int = 0
    bytes: int = 0

    def add(self, finding: Finding) -> None:
        self.count += 1
        self.instances += finding.holding.instances
        self.bytes += finding.holding.size

    def as_json(self) -> dict[str, int]:
        return {"count": self.count, "instances": self.instances, "bytes": self.bytes}

    def say(self, unit: Unit) -> str:
        words = _count(self.instances, "instance")
        if unit is Unit.STUDY:
            words = f"{_count(self.count, 'study', 'studies')}, {words}"
        return f"{words}, {human_size(self.bytes)}"


@dataclass(slots=True)
class _Result:
    """What one rule would do: what it removes, and what it spares, by the reason in words."""

    rule: RetentionRule
    removes: _Amount = field(default_factory=_Amount)
    spares: dict[str, _Amount] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        if finding.spared:
            self.spares.setdefault(finding.spared, _Amount()).add(finding)
        else:
            self.removes.add(finding)

    def as_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule.name,
            "by": self.rule.by.value,
            "after_days": self.rule.after_days,
            "removes": self.removes.as_json(),
            "spares": [{"why": why, **amount.as_json()} for why, amount in self.spares.items()],
        }

    def lines(self) -> Iterator[str]:
        unit = self.rule.by
        yield f"{self.rule.name}: removes {self.removes.say(unit)}"
        for why, amount in sorted(self.spares.items(), key=lambda entry: -entry[1].instances):
            yield f"  spares {amount.say(unit)}: {why}"


@retention.command(
    "test",
    epilog="Exit code 0, also where nothing would go; 66 when there is no archive. Example: stowkeeper retention test --list",
)
@place_options
@click.option("--list", "lists", is_flag=True, help="Name each study or instance, and what becomes of it.")
@json_option
def test(*, archive: str | None, config: str | None, lists: bool, as_json: bool) -> ExitCode:
    """Show what each retention rule would remove now, and what it spares and why. Removes nothing.

    A server removes no more than a part of it at a time, and says in its log a day before what is going to go. Runs beside
    a server. With --config a settings file that is not in force yet can be tried.
    """
    settings = SettingsArguments(config_file=config, overrides={"archive": archive}).as_served().load()
    if not os.path.isdir(settings.archive):
        raise CommandError(
            f"there is no archive in {settings.archive}: name its folder with --archive, or mount its disk if that is away",
            ExitCode.NO_INPUT,
        )
    rules = retention_rules(settings)
    results = {rule.name: _Result(rule=rule) for rule in rules}
    with closing(ArchiveReader(settings.archive, to_read=True)) as reader:
        for finding in survey(reader.database, rules, utc_now()):
            results[finding.rule.name].add(finding)
            if lists:
                _show(finding, as_json=as_json)
        with reader.database.read() as connection:
            is_doubted = clock_is_doubted(connection)
    for result in results.values():
        if as_json:
            click.echo(json.dumps(result.as_json()))
        else:
            for line in result.lines():
                click.echo(printable(line))
    if not rules:
        click.echo("There are no [[retention_rules]]: nothing is removed by age.", err=True)
    if is_doubted:
        click.echo(
            "A server doubts its clock and removes nothing: set the clock, or if it is right run"
            " `stowkeeper retention trust-clock`.",
            err=True,
        )
    return ExitCode.OK


def _show(finding: Finding, *, as_json: bool) -> None:
    holding = finding.holding
    if as_json:
        line = {
            "rule": finding.rule.name,
            "uid": holding.uid,
            "instances": holding.instances,
            "bytes": holding.size,
            "spared": finding.spared or None,
        }
        click.echo(json.dumps(line))
        return
    what = f"spared, {finding.spared}" if finding.spared else "removed"
    click.echo(
        printable(f"{finding.rule.name}  {holding.uid}  {_count(holding.instances, 'instance')}  {what}")
    )


@retention.command("trust-clock", epilog="Example: stowkeeper retention trust-clock --yes")
@archive_option
@click.option("--yes", is_flag=True, help="Do not ask whether the time is right.")
def trust_clock_(*, archive: Path, yes: bool) -> ExitCode:
    """Say that the clock of this machine is right, where a server doubts it and therefore removes nothing.

    The audit trail keeps who said so. What the rules then remove is said in the server's log a day before.
    """
    if not yes:
        click.confirm(
            f"It is {utc_now()[:19].replace('T', ' ')} UTC by the clock. Is that right?", abort=True
        )
    with closing(ArchiveReader(str(archive))) as reader, reader.database.write() as transaction:
        trust_clock(transaction, acting_user())
    click.echo("The retention rules go on with the next look, within an hour.", err=True)
    return ExitCode.OK


@retention.command(
    "release",
    epilog="Exit code 0 when it is released, 1 when nothing of a UID is spared because of a rebuild."
    ' Example: stowkeeper retention release --reason "committed anew" --before 2020-01-01 --all',
)
@archive_option
@click.option("--reason", metavar="TEXT", required=True, help="Why, for the audit trail. No patient data.")
@click.option("--all", "is_all", is_flag=True, help="All that a rebuild listed, in place of UIDs.")
@click.option(
    "--before",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    metavar="DATE",
    help="Only what was received before this day, as 2020-01-31, by UTC.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be released, and release nothing.")
@click.option("--yes", is_flag=True, help="Do not ask whether this is meant.")
@json_option
@click.argument("uids", metavar="UID...", nargs=-1)
def release_(
    *,
    archive: Path,
    reason: str,
    is_all: bool,
    before: datetime | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    uids: tuple[str, ...],
) -> ExitCode:
    """Let the retention rules judge again what a rebuild listed: studies, series or instances.

    Rules spare it, since a rebuild knows neither what was committed nor what was to be forwarded. Released, it goes by the rules as
    all else: they spare what is held or to be forwarded by now. The server says in its log a day before what goes. The audit
    trail keeps who released what, and why.
    """
    reason = reason.strip()
    if not reason:
        raise click.BadParameter("say why, in a few words", param_hint="--reason")
    if is_all == bool(uids):
        raise click.UsageError("name what to release by its UIDs, or give --all, not both")
    choice = ReleaseChoice(
        uids=tuple(dict.fromkeys(uids)), before="" if before is None else f"{before:%Y-%m-%d}"
    )
    with closing(ArchiveReader(str(archive), to_read=dry_run)) as reader:
        plan = plan_release(reader.database, choice)
        missing = [uid for uid in choice.uids if uid not in plan.named]
        if not as_json:
            _say_release(plan, missing)
        if plan.versions and not dry_run and not yes:
            click.confirm("Let the retention rules judge this?", abort=True, err=True)
        released = 0
        if plan.versions and not dry_run:
            released = release(reader.database, choice, plan, acting_user(), reason)
    if as_json:
        line = {
            "studies": len(plan.studies),
            "versions": plan.versions,
            "bytes": plan.size,
            "held": plan.held,
            "not_found": missing,
            "released": released,
            "dry_run": dry_run,
        }
        click.echo(json.dumps(line))
    elif not dry_run and plan.versions:
        click.echo(f"{_count(released, 'version')} released")
    return ExitCode.FINDINGS if missing else ExitCode.OK


def _say_release(plan: ReleasePlan, missing: list[str]) -> None:
    for uid in missing:
        click.echo(printable(f"{uid}: nothing of it is spared because of a rebuild"), err=True)
    if not plan.versions:
        click.echo("There is nothing to release.", err=True)
        return
    what = f"{_count(len(plan.studies), 'study', 'studies')}, {_count(plan.versions, 'version')}"
    click.echo(
        f"{what}, {human_size(plan.size)}: spared, since a rebuild listed them from their files, and nobody knows any more"
        " whether they were committed or were to be forwarded",
        err=True,
    )
    if plan.held:
        click.echo(f"  {plan.held} of them are held by now, and stay spared", err=True)


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"1 {noun}" if number == 1 else f"{number} {plural or noun + 's'}"
