"""Which settings file a command means that was told the archive alone: the one that the running server reads.

A server that was started with `--config FILE` leaves the name of that file in its run record. Without it `status` would
judge, and `config set` would write, a file that no server reads.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import DEFAULT_ARCHIVE, SettingsArguments
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.app.running import RunningServer, running_servers
from stowkeeper.app.setting_sources import CONFIG_VARIABLE
from stowkeeper.app.settings import CONFIG_FILE_NAME


def led_to_file_of_server(arguments: SettingsArguments, *, asks: bool) -> SettingsArguments:
    """Do what `SettingsArguments.as_served` says."""
    if arguments.config_file is not None or os.environ.get(CONFIG_VARIABLE) is not None:
        return arguments
    named = arguments.overrides.get("archive") or os.environ.get("STOWKEEPER_ARCHIVE") or DEFAULT_ARCHIVE
    archive = Path(str(named)).expanduser().absolute()
    try:
        servers = [server for server in running_servers(archive) if server.is_here]
    except OSError:  # without the right to look: whoever needs the servers themselves says so
        return arguments
    beside = str(archive / CONFIG_FILE_NAME)
    # A server that found no file finds the one beside its archive on its next reload.
    files = {server.settings_file or beside for server in servers if server.settings_file is not None}
    if len(files) > 1:
        words = _words_of_several(servers, archive, beside)
        if asks:
            raise CommandError(f"{words}: name the file that you mean with --config.", ExitCode.USAGE)
        _say(f"{words}: what is told here is by {beside}; --config names another")
        return arguments
    file = next(iter(files), beside)
    if file == beside:
        return arguments
    if not asks and os.path.exists(file) and not os.access(file, os.R_OK):
        _say(
            f"settings: the running server reads {file}, which this user may not read: what is told here is without it"
        )
        return arguments
    _say(f"settings: {file}, as the running server reads it{''.join(_outranking(servers))}")
    # The file may say another archive, which a flag of the server outranks.
    return replace(arguments, config_file=file, overrides={**arguments.overrides, "archive": str(archive)})


def _words_of_several(servers: Sequence[RunningServer], archive: Path, beside: str) -> str:
    reading = ", ".join(
        f"process {server.pid} reads {server.settings_file or beside}"
        for server in servers
        if server.settings_file is not None
    )
    return f"several servers run on {archive} with different settings files ({reading})"


def _outranking(servers: Sequence[RunningServer]) -> Iterator[str]:
    """Say which settings the file does not decide for these servers."""
    for kind, keys in (
        ("flags", {key for server in servers for key in server.flags}),
        ("variables", {key for server in servers for key in server.variables}),
    ):
        shown = sorted(keys - {"archive"})
        if shown:
            yield f"; its {kind} outrank the file: {', '.join(shown)}"


def _say(words: str) -> None:
    """Tell it on standard error: what scripts read stays as it is."""
    click.echo(printable(words), err=True)
