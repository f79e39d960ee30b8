"""`stowkeeper status`: whether a server runs on an archive, and how it is, in one screen."""

import json
import os
import shlex
from dataclasses import asdict, replace

import click

from stowkeeper.app.archive_place import foreign_things
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import SettingsArguments, json_option, place_options
from stowkeeper.app.commands.settings_or_shipped import load_or_shipped
from stowkeeper.app.doctor.examination import LoadedSettings
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.status.gathering import Gathering
from stowkeeper.app.status.screen import lines
from stowkeeper.app.status.state import ArchiveState, ToDo
from stowkeeper.archive.archive import CATALOG
from stowkeeper.archive.shelf_lock import OBJECTS
from stowkeeper.durable.identity import ARCHIVE_ID_NAME


@click.command(
    epilog="Exit code 0 when a server runs and nothing is to be acted on, 1 when something is, 69 when none runs, 66 when"
    " there is no archive. docs/operations.md tells more."
)
@place_options
@json_option
def status(*, archive: str | None, config: str | None, as_json: bool) -> ExitCode:
    """Tell whether a server runs on the archive, and how it is.

    One screen: since when and where it listens, open associations, the last instance received, what is kept, the disk
    and when it will be full, jobs, storage commitments, and what is to be acted on. It reads what servers leave in the archive, also
    where none runs, and asks one that runs on this machine by HTTP whether it is ready.
    """
    arguments = SettingsArguments(config_file=config, overrides={"archive": archive}).as_served(asks=False)
    loaded = load_or_shipped(arguments)
    settings = loaded.settings
    if not os.path.isdir(settings.archive):
        raise CommandError(
            f"there is no archive in {settings.archive}: name its folder with --archive, or mount its disk if that is away",
            ExitCode.NO_INPUT,
        )
    _check_is_archive(loaded)
    try:
        state = Gathering(settings).state()
    except OSError as error:
        raise CommandError(
            f"whether a server runs cannot be told, {error.filename or settings.archive}: {error.strerror}. Run this as the"
            " user who owns the archive.",
            ExitCode.NO_PERMISSION if isinstance(error, PermissionError) else ExitCode.IO_ERROR,
        ) from error
    to_do = (*_of_settings(loaded.problem, settings.archive, arguments.config_file), *state.to_do)
    _print(state, to_do, as_json=as_json)
    if not state.servers:
        return ExitCode.UNAVAILABLE
    return ExitCode.FINDINGS if to_do else ExitCode.OK


def _check_is_archive(loaded: LoadedSettings) -> None:
    """Raise CommandError where no server has made an archive in the folder yet; where one cannot look, others say so."""
    archive = loaded.settings.archive
    try:
        if {ARCHIVE_ID_NAME, CATALOG, OBJECTS} & set(os.listdir(archive)):
            return
        foreign = "" if loaded.problem is not None else foreign_things(loaded.settings)
    except OSError:
        return
    named = f"{foreign}: name" if foreign else f"there is no archive in {archive} yet: start a server, name"
    raise CommandError(
        f"{named} the archive's folder with --archive, or mount its disk if that is away", ExitCode.NO_INPUT
    )


def _of_settings(problem: SettingsError | None, archive: str, config: str | None) -> list[ToDo]:
    if problem is None:
        return []
    first = problem.problems[0]
    words = f"the settings cannot be used, and the next start is refused: {first.place}: {first.text}"
    named = [] if config is None else ["--config", config]
    command = ["stowkeeper", "check-config", *named, "--archive", archive]
    return [ToDo(words=words, mend=shlex.join(command))]


def _print(state: ArchiveState, to_do: tuple[ToDo, ...], *, as_json: bool) -> None:
    state = replace(state, to_do=to_do)
    if as_json:
        report = {"is_running": bool(state.servers), **asdict(state)}
        for one in report["servers"]:
            del one["server"]["started_with"]  # digests, for `config set` alone
        click.echo(json.dumps(report, indent=2))
        return
    for line in lines(state):
        click.echo(printable(line))
