"""`stowkeeper check-config`: which settings are in force, and where each came from."""

import json
from collections.abc import Iterator, Mapping
from typing import cast

import click

from stowkeeper.app.commands.options import SettingsArguments, json_option, settings_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.negotiation_profiles import negotiation_profiles
from stowkeeper.app.origin_servers import origin_server_obstacles
from stowkeeper.app.setting_fields import OriginKind, toml_text
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.setting_sources import all_settings, entry_settings
from stowkeeper.app.settings import Settings, plain_value, warnings_of
from stowkeeper.app.settings_of_tls import tls_context
from stowkeeper.app.tracing import check_tracing


@click.command(
    "check-config",
    epilog="Exit code 0 when the settings can be used, 78 when they cannot.",
)
@settings_options
@json_option
def check_config(*, settings_arguments: SettingsArguments, as_json: bool) -> ExitCode:
    """Show the settings in force and where each value came from.

    Takes the options of `serve` and reads the same file and environment, so it tells what `serve` would do. Without
    --json the output is a settings file with the origin of each value as a comment. All problems are reported at
    once, then the first one in the files that [tls] names, then those in the files of [[profiles]], then what [tracing]
    misses; warnings do not count as problems.
    """
    return show_settings(settings_arguments, as_json=as_json)


def show_settings(settings_arguments: SettingsArguments, *, as_json: bool) -> ExitCode:
    """Print the settings in force, and the warnings; all problems instead where they cannot be used."""
    try:
        settings = settings_arguments.load()
        warnings = all_warnings(settings)
    except SettingsError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"valid": False, "problems": _problems(error)}, indent=2))
        return ExitCode.SETTINGS
    if as_json:
        click.echo(json.dumps(_report(settings, warnings), indent=2))
    else:
        click.echo("\n".join(toml_lines(settings)))
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
    return ExitCode.OK


def all_warnings(settings: Settings) -> tuple[str, ...]:
    """Look into the files that settings name; return what is allowed and deserves a word. Raises SettingsError."""
    tls = tls_context(settings)
    profiles = negotiation_profiles(settings)
    check_tracing(settings)
    servers = [
        f'jobs wait that send to the origin server "{server.name}": {words}'
        for server, words in origin_server_obstacles(settings)
    ]
    tls_words = tls.warnings if tls is not None else ()
    return (*warnings_of(settings), *tls_words, *profiles.warnings, *servers)


def _problems(error: SettingsError) -> list[dict[str, object]]:
    return [
        {"place": problem.place, "text": problem.text}
        | ({"line": problem.line, "column": problem.column} if problem.line else {})
        for problem in error.problems
    ]


def _report(settings: Settings, warnings: tuple[str, ...]) -> dict[str, object]:
    entries = []
    for setting in all_settings().values():
        origin = settings.origin_of(setting.key)
        entries.append(
            {
                "key": setting.key,
                "value": plain_value(settings, setting),
                "origin": origin.kind.value,
                "place": origin.name or None,
            }
        )
    return {
        "valid": True,
        "file": settings.settings_file or None,
        "settings": entries,
        "warnings": list(warnings),
    }


def toml_lines(settings: Settings) -> Iterator[str]:
    """Yield the settings in force as a settings file, the origin of each value as a comment."""
    yield f"# settings file: {settings.settings_file or 'none'}"
    table = ""
    for setting in all_settings().values():
        if setting.shape == "tables":
            continue
        if setting.table != table:
            table = setting.table
            yield from ("", f"[{table}]")
        origin = settings.origin_of(setting.key)
        # The file stands in the first line.
        comment = origin.kind.value if origin.kind is OriginKind.FILE else str(origin)
        assignment = f"{setting.name} = {toml_text(plain_value(settings, setting))}"
        yield f"{assignment:<47} # {comment}"
    for setting in all_settings().values():
        if setting.shape == "tables":
            for entry in cast("list[dict[str, object]]", plain_value(settings, setting)):
                yield from entry_lines(setting.name, entry)


def entry_lines(table: str, entry: Mapping[str, object]) -> Iterator[str]:
    """Write a table that stands in a list, and behind its own keys the tables in lists below it."""
    yield from ("", f"[[{table}]]")
    within = {name: value for name, value in entry.items() if f"{table}.{name}" in entry_settings()}
    for name, value in entry.items():
        if value is not None and name not in within:
            yield f"{name} = {toml_text(value)}"
    for name, inner_entries in within.items():
        for inner in cast("list[dict[str, object]]", inner_entries):
            yield from entry_lines(f"{table}.{name}", inner)
