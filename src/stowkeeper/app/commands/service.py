"""`stowkeeper service`: the server as a service of the machine, under systemd, under launchd, or detached without either."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import (
    DEFAULT_ARCHIVE,
    SettingsArguments,
    remember_log_directory,
    settings_options,
)
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.limits import STOP_GRACE_SECONDS
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.setting_sources import CONFIG_VARIABLE
from stowkeeper.app.settings import Settings

if sys.platform != "win32":
    from stowkeeper.app.commands.archive_folder import check_archive_folder, check_archive_is_there
    from stowkeeper.app.doctor.at_start import missing_right
    from stowkeeper.app.service import installing
    from stowkeeper.app.service.daemon import Daemon
    from stowkeeper.app.service.launchd import Launchd, property_list
    from stowkeeper.app.service.log_tail import log_file_of, tail
    from stowkeeper.app.service.plan import listening_of
    from stowkeeper.app.service.rights import (
        RightMissingError,
        again_as,
        as_called,
        check_may_listen,
        check_may_write,
        nearest_that_is_seen,
        reading_settings,
        user_name,
    )
    from stowkeeper.app.service.systemd import Systemd

R = TypeVar("R")

LINES_SHOWN = 50


@click.group(
    epilog="Exit code 4 when a right is missing: the message says which, and how to get it. docs/service.md tells more."
)
def service() -> None:
    """Run the server as a service of this machine.

    Where systemd runs, `install` writes a unit for it, and the others speak to systemd; on macOS it is launchd. Where there
    is neither, or with --daemon, `start` begins a server that runs detached from the terminal.
    """


_user_unit_option = click.option(
    "--user-unit",
    "of_user",
    is_flag=True,
    help="A service of this user alone, without administration rights.",
)


def _service_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command `--archive`, `--config`, `--user-unit` and `--daemon`. It gets `archive`, `config` and `manager`.

    `config` is the settings file that was named, or None; `archive` is the folder that it leads to.
    """

    @click.option(
        "--archive",
        metavar="DIR",
        envvar="STOWKEEPER_ARCHIVE",
        show_envvar=True,
        help="Folder of the archive. Not given: what the settings file says, that of the service that is installed, else"
        f" {DEFAULT_ARCHIVE}.",
    )
    @click.option(
        "--config",
        metavar="FILE",
        help="Settings file (TOML), to find a detached server that was started with it.  [env var: STOWKEEPER_CONFIG]",
    )
    @_manager_options
    @wraps(command)
    def with_options(
        *,
        archive: str | None,
        config: str | None,
        manager: "Systemd | Launchd | None",
        **options: Any,  # noqa: ANN401 - the command's own
    ) -> R:
        if manager is not None and config is not None:
            raise click.UsageError(
                "The service has its settings from the file it was installed with. For a detached server: --daemon."
            )
        folder = _folder_of(archive, config, manager)
        remember_log_directory(folder, folder / "log")
        return command(archive=folder, config=config, manager=manager, **options)

    return with_options


def _folder_of(archive: str | None, config: str | None, manager: "Systemd | Launchd | None") -> Path:
    """Return the archive that the options lead to. Raises SettingsError where only the settings could tell it."""
    if archive is None and isinstance(manager, Systemd):
        installed = manager.archive()
        if installed is not None:
            return installed
    if archive is None and manager is None and (config is not None or os.environ.get(CONFIG_VARIABLE)):
        with reading_settings():
            return SettingsArguments(config_file=config, overrides={}).load().archive_path
    return Path(archive or DEFAULT_ARCHIVE).expanduser().absolute()


def _manager_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command `--user-unit` and `--daemon`. It gets `manager`: None where the server is a detached daemon."""

    @_user_unit_option
    @click.option(
        "--daemon", is_flag=True, help="A detached server that no service manager knows, also where one runs."
    )
    @wraps(command)
    def with_manager(*, of_user: bool, daemon: bool, **options: Any) -> R:  # noqa: ANN401 - the command's own
        return command(manager=None if daemon else _manager(of_user=of_user), **options)

    return with_manager


def _manager(*, of_user: bool) -> "Systemd | Launchd | None":
    """Return the service manager of this machine; None where there is none."""
    if sys.platform == "win32":
        raise CommandError(
            "on Windows a service wrapper runs `stowkeeper serve`: docs/service.md has its configuration.",
            ExitCode.USAGE,
        )
    if sys.platform == "darwin":
        return Launchd(of_user=of_user)
    return Systemd(of_user=of_user) if Systemd.is_running() else None


@service.command(
    "install", epilog="Example: sudo stowkeeper service install --archive /srv/dicom --socket-activated"
)
@click.option(
    "--user",
    metavar="NAME",
    default="",
    help="User that the server runs as, made if missing. Not given: the owner of the archive, else stowkeeper.",
)
@_user_unit_option
@click.option(
    "--config",
    metavar="FILE",
    help="Settings file (TOML). Not given: stowkeeper.toml in the archive if it is there.",
)
@click.option(
    "--archive",
    metavar="DIR",
    help="Folder of the archive. Not given: what the settings file says, else /var/lib/stowkeeper.",
)
@click.option(
    "--socket-activated/--no-socket-activated",
    "is_socket_activated",
    default=False,
    show_default=True,
    help="Let systemd open the ports, so that who connects during a restart waits for its end.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be written, and do nothing.")
@click.option(
    "--for",
    "meant_for",
    type=click.Choice(["systemd", "launchd"]),
    help="With --dry-run: print for this service manager, also where it does not run.",
)
def install(
    *,
    user: str,
    of_user: bool,
    config: str | None,
    archive: str | None,
    is_socket_activated: bool,
    dry_run: bool,
    meant_for: str | None,
) -> ExitCode:
    """Have the service manager run the server, from the next start of the machine on.

    Makes the user and the archive's folder where they are missing. The server finds its settings in the file alone: variables
    of this shell are not those of a service. `stowkeeper service start` starts it now.
    """
    if meant_for and not dry_run:
        raise click.UsageError("--for goes with --dry-run.")
    if user and of_user:
        raise click.UsageError(
            "--user and --user-unit exclude each other: a user's own unit runs as that user."
        )
    wish = installing.Wish(
        archive=_absolute(archive),
        config=_absolute(config),
        user=user,
        of_user=of_user,
        is_socket_activated=is_socket_activated,
    )
    plan = installing.plan_for(wish)
    manager: Systemd | Launchd | None = _manager(of_user=of_user)
    if meant_for:
        manager = Systemd(of_user=of_user) if meant_for == "systemd" else Launchd(of_user=of_user)
    if manager is None:
        click.echo(installing.words_without_a_manager(plan, wish))
        return ExitCode.FINDINGS
    is_started_anew = False
    if isinstance(manager, Launchd):
        if is_socket_activated:
            raise click.UsageError(
                "--socket-activated is for systemd: launchd hands its sockets over in another way."
            )
        texts: Mapping[Path, str] = {manager.path: property_list(plan)}
        if not dry_run:
            installing.install_property_list(manager, plan)
    else:
        units = installing.unit_texts(plan, wish, manager.version())
        texts = {manager.units / name: text for name, text in units.items()}
        if not dry_run:
            is_started_anew = installing.install_units(manager, plan, units)
    if dry_run:
        for path, text in texts.items():
            click.echo(f"# {path}\n{text}")
        return ExitCode.OK
    for path in texts:
        click.echo(f"written: {path}")
    who = "this user" if of_user else plan.user
    what = _next_step(manager, is_started_anew=is_started_anew)
    click.echo(f"The service runs as {who} and starts with the machine. {what}")
    if of_user:
        click.echo("So that it runs while nobody is logged in: loginctl enable-linger")
    return ExitCode.OK


def _next_step(manager: "Systemd | Launchd", *, is_started_anew: bool) -> str:
    if is_started_anew:
        return "Its sockets have changed, so it was started anew."
    runs = isinstance(manager, Systemd) and manager.is_active()
    words = [*as_called(), "service", "restart" if runs else "start"]
    called = shlex.join([*words, "--user-unit"] if manager.of_user else ["sudo", *words])
    return (
        f"A server runs, as it was installed before; start it anew: {called}"
        if runs
        else f"Start it now: {called}"
    )


def _absolute(path: str | None) -> Path | None:
    return None if path is None else Path(path).expanduser().absolute()


@service.command("uninstall")
@_user_unit_option
def uninstall(*, of_user: bool) -> ExitCode:
    """Stop the service and have it run no more. The archive stays as it is, and so does the user."""
    manager = _manager(of_user=of_user)
    if manager is None:
        click.echo(
            "No service manager runs here, so no service is installed. A line in a crontab is taken out by hand."
        )
        return ExitCode.FINDINGS
    manager.uninstall()
    click.echo("The service is gone. The archive, its settings and the user are still there.")
    return ExitCode.OK


@service.command("start", epilog="Exit code 75 when a server of this archive runs already.")
@settings_options
@_manager_options
def start(*, settings_arguments: SettingsArguments, manager: "Systemd | Launchd | None") -> ExitCode:
    """Start the server, and return when it is ready.

    A service that is installed finds its settings in its file; the options below are for a detached server.
    """
    given = {key: value for key, value in settings_arguments.overrides.items() if value is not None}
    if manager is None:
        _start_daemon(settings_arguments)
        return ExitCode.OK
    if given or settings_arguments.config_file is not None:
        raise click.UsageError(
            "The service has its settings from its file: change them there, or install it anew. For a detached server with these"
            " options: --daemon."
        )
    manager.start()
    click.echo("The service runs.")
    return ExitCode.OK


def _start_daemon(arguments: SettingsArguments) -> None:
    arguments = _with_absolute_paths(arguments)
    with reading_settings():
        settings = arguments.load()
    check_archive_is_there(settings)
    check_may_write(settings.archive_path)
    check_archive_folder(settings)
    check_may_write(settings.log_directory)
    if words := missing_right(settings):
        raise RightMissingError(words)
    check_may_listen(listening_of(settings))
    daemon = Daemon(settings.archive_path)
    arguments = SettingsArguments(
        config_file=arguments.config_file,
        overrides={**arguments.overrides, "archive": str(settings.archive_path)},
    )
    number = daemon.start(
        tuple(_as_options(arguments)),
        settings.log_directory,
        modes=settings.storage.modes,
        log_to_file=settings.log.file,
        say=lambda words: click.echo(f"{words} …", err=True),
    )
    daemon.remember_start(arguments, mode=settings.storage.modes[0])
    click.echo(f"The server runs as process {number}. Its log: {log_file_of(settings)}")


def _with_absolute_paths(arguments: SettingsArguments) -> SettingsArguments:
    config = arguments.config_file
    return SettingsArguments(
        config_file=None if config is None else str(Path(config).expanduser().absolute()),
        overrides=arguments.overrides,
    )


def _as_options(arguments: SettingsArguments) -> Iterator[str]:
    """Write settings as options of `serve`."""
    from stowkeeper.app.setting_sources import all_settings  # noqa: PLC0415 - as in options.py

    if arguments.config_file is not None:
        yield from ("--config", arguments.config_file)
    for setting in all_settings().values():
        value = arguments.overrides.get(setting.key)
        if not setting.flag or value is None:
            continue
        if setting.shape == "truth":
            yield setting.flag
        else:
            yield from (setting.flag, str(value))


@service.command("stop")
@_service_options
def stop(
    *,
    archive: Path,
    config: str | None,  # noqa: ARG001 - the archive that it leads to is enough
    manager: "Systemd | Launchd | None",
) -> ExitCode:
    """Stop the server: what is in flight is answered first. Returns when it has ended.

    Exit code 0 also when none runs.
    """
    if manager is not None:
        manager.stop()
        click.echo("The service has stopped.")
        return ExitCode.OK
    number = _stop_daemon(Daemon(archive))
    words = (
        f"The server, process {number}, has ended." if number else f"No server runs detached on {archive}."
    )
    if not number and not archive.is_dir():
        words += (
            " There is no such folder: if its disk is away, a server of it may run all the same, and"
            " `pgrep -af 'stowkeeper serve'` finds it."
        )
    click.echo(words)
    return ExitCode.OK


def _process_of(daemon: "Daemon") -> int | None:
    """Return the process id of a daemon that runs. Raises RightMissingError where we may not look."""
    try:
        return daemon.process_id()
    except PermissionError:
        owner = user_name(os.stat(nearest_that_is_seen(daemon.folder)).st_uid)
        raise RightMissingError(
            f"only {owner} may see whether a server of {daemon.archive} runs, and this is user {user_name(os.geteuid())}: run"
            f" `{again_as(owner)}`."
        ) from None


def _stop_daemon(daemon: "Daemon") -> int | None:
    _process_of(daemon)  # a right that is missing is told first
    try:
        seconds = daemon.last_start().load().dicom.drain_seconds
    except SettingsError:  # broken since; it still stops
        seconds = Settings().dicom.drain_seconds
    return daemon.stop(seconds + STOP_GRACE_SECONDS)


@service.command("restart")
@_service_options
def restart(*, archive: Path, config: str | None, manager: "Systemd | Launchd | None") -> ExitCode:
    """Stop the server, and start it with the options of its last start; --config takes the place of that one.

    With the sockets of --socket-activated nobody who connects meanwhile is refused.
    """
    if manager is not None:
        manager.restart()
        click.echo("The service runs.")
        return ExitCode.OK
    daemon = Daemon(archive)
    _process_of(daemon)  # else the options of the last start could not be read either
    arguments = daemon.last_start()
    if config is not None:
        arguments = _with_absolute_paths(replace(arguments, config_file=config))
    arguments.load()  # what is wrong with the settings is said while the old server still runs
    _stop_daemon(daemon)
    _start_daemon(arguments)
    return ExitCode.OK


@service.command(
    "status",
    epilog="Exit codes are those of `stowkeeper status`: 0 when it runs and all is well, 69 when none runs.",
)
@_service_options
def status(*, archive: Path, config: str | None, manager: "Systemd | Launchd | None") -> ExitCode:
    """Tell whether the server runs and how it is, as `stowkeeper status` does, and what its service manager knows of it."""
    from stowkeeper.app.commands.status import status as status_of_archive  # noqa: PLC0415 - no other needs it

    config = config or Daemon(archive).last_start().config_file
    if isinstance(manager, Systemd):
        config = manager.config()
        for line in _systemd_lines(manager):
            click.echo(line)
    elif manager is None:
        number = _process_of(Daemon(archive))
        click.echo(f"Detached: process {number}." if number else "Detached: no process.")
    click.echo()
    context = click.get_current_context()
    found: ExitCode = context.invoke(status_of_archive, archive=str(archive), config=config, as_json=False)
    return found


def _systemd_lines(manager: "Systemd") -> Iterator[str]:
    said = manager.properties()
    if said.get("LoadState") != "loaded":
        yield f"systemd: no service is installed ({manager.unit_path} is not there)."
        return
    state = f"{said.get('ActiveState')} ({said.get('SubState')})"
    since = f" since {said['StateChangeTimestamp']}" if said.get("StateChangeTimestamp") else ""
    yield f"systemd: {state}{since}, {said.get('UnitFileState')}, restarts: {said.get('NRestarts')}."
    has_ended = said.get("ActiveState") in {"inactive", "failed"}  # systemd keeps its last words
    if said.get("StatusText") and not has_ended:
        yield f"         {said['StatusText']}."


@service.command("logs", epilog="Example: stowkeeper service logs -f")
@_service_options
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=LINES_SHOWN,
    show_default=True,
    help="The last so many lines.",
)
def logs(
    *, archive: Path, config: str | None, manager: "Systemd | Launchd | None", follow: bool, lines: int
) -> ExitCode:
    """Show the end of the server's log: from the journal where systemd runs it, else from its file."""
    if isinstance(manager, Systemd) and manager.unit_path.exists():
        arguments = SettingsArguments(config_file=manager.config(), overrides={"archive": str(archive)})
        if _writes_to_the_journal(arguments):
            manager.show_journal(lines=lines, follow=follow)
    else:
        arguments = Daemon(archive).last_start()
        if config is not None:
            arguments = replace(arguments, config_file=config)
    with reading_settings():
        settings = arguments.load()
    out = sys.stdout.buffer
    try:
        for piece in tail(lambda: log_file_of(settings), lines, follow=follow):
            out.write(piece)
            out.flush()
    except FileNotFoundError:
        raise CommandError(
            f"there is no log file {log_file_of(settings)}: no server ran on {archive}, or its settings name another place"
            " (--archive names the archive).",
            ExitCode.NO_INPUT,
        ) from None
    except PermissionError as error:
        _refuse_to_read(error)
    return ExitCode.OK


def _writes_to_the_journal(arguments: SettingsArguments) -> bool:
    """Tell whether a service of systemd has its log in the journal; so it is taken where its settings cannot be read."""
    try:
        log = arguments.load().log
    except (SettingsError, OSError):
        return True
    return log.console or log.journal


def _refuse_to_read(error: PermissionError) -> NoReturn:
    path = Path(os.fsdecode(error.filename))
    owner = user_name(path.parent.stat().st_uid) if os.access(path.parent.parent, os.X_OK) else "root"
    raise RightMissingError(
        f"user {user_name(os.geteuid())} may not read {path}: run `{again_as(owner)}`, or be in the group of that file."
    ) from None
