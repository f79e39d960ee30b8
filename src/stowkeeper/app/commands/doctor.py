"""`stowkeeper doctor`: what could keep a server from receiving and keeping, and the command that mends it."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from stowkeeper import __version__
from stowkeeper.app.commands.options import SettingsArguments, json_option, settings_options
from stowkeeper.app.commands.settings_or_shipped import load_or_shipped
from stowkeeper.app.doctor.examination import examine
from stowkeeper.app.doctor.finding import Finding, Level
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable


@click.command(
    epilog="Exit code 0 when all is well, 1 when something was found. docs/operations.md tells more."
)
@settings_options
@json_option
def doctor(*, settings_arguments: SettingsArguments, as_json: bool) -> ExitCode:
    """Look for what is wrong, and name the command that mends it.

    It tries what a server needs: rights, room, file system, the time of a sync, the catalog, the clock, ports,
    certificates and open files; also while a server runs, and it leaves nothing behind. It takes the options of serve.
    Run it as the user of the server, since it tells what that user can do.
    """
    loaded = load_or_shipped(settings_arguments.as_served(asks=False))
    findings: list[Finding] = []
    for finding in examine(loaded):
        findings.append(finding)
        if not as_json:
            for line in _lines(finding):
                click.echo(printable(line))
    is_well = all(finding.level is Level.OK for finding in findings)
    if as_json:
        report = {
            "version": __version__,
            "archive": loaded.settings.archive,
            "is_well": is_well,
            "findings": [asdict(finding) for finding in findings],
        }
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(_summary(findings))
    return ExitCode.OK if is_well else ExitCode.FINDINGS


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.level:<8} {finding.check:<12} {finding.words}"
    if finding.mend:
        yield f"{'':<8} {'':<12} → {finding.mend}"


def _summary(findings: list[Finding]) -> str:
    failures = sum(finding.level is Level.FAILURE for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if not failures and not warnings:
        return "All is well."
    counted = [
        f"{number} {word}{'' if number == 1 else 's'}"
        for number, word in ((failures, "failure"), (warnings, "warning"))
        if number
    ]
    return f"{' and '.join(counted)}: behind each → stands what mends it."
