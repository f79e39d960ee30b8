"""Options that several commands have, so that they are written and mean the same everywhere."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stowkeeper.app.commands.failures import Invocation

if TYPE_CHECKING:  # a command with `--archive` alone does not pay for the settings
    from stowkeeper.app.settings import Reload, Settings

R = TypeVar("R")

DEFAULT_ARCHIVE = "./archive"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
"""Passes `as_json`."""


def archive_option(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command `--archive`. It gets `archive`, an absolute Path, whether there is such a folder or not."""

    @click.option(
        "--archive",
        metavar="DIR",
        envvar="STOWKEEPER_ARCHIVE",
        default=DEFAULT_ARCHIVE,
        show_default=True,
        show_envvar=True,
        help="Folder of the archive.",
    )
    @wraps(command)
    def with_archive(*, archive: str, **options: Any) -> R:  # noqa: ANN401 - they are the command's own
        folder = Path(archive).expanduser().absolute()
        remember_log_directory(folder, folder / "log")
        return command(archive=folder, **options)

    return with_archive


def place_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command `--archive` and `--config`, which it gets as they were given, None where they were not."""
    config = click.option(
        "--config",
        metavar="FILE",
        help="Settings file (TOML). Not given: STOWKEEPER_CONFIG, or stowkeeper.toml in the archive if it is there.",
    )
    archive = click.option(
        "--archive",
        metavar="DIR",
        help=f"Folder of the archive.  [env var: STOWKEEPER_ARCHIVE; default: {DEFAULT_ARCHIVE}]",
    )
    return archive(config(command))


def remember_log_directory(archive: Path, directory: Path) -> None:
    """Let the details of a fault go to the log folder of the archive, if there is an archive."""
    invocation = click.get_current_context().find_object(Invocation)
    if invocation is not None and os.path.isdir(archive):
        invocation.log_directory = directory


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsArguments:
    """What the command line says of the settings, to load them, and to load them again on SIGHUP."""

    config_file: str | None
    overrides: dict[str, object]

    def load(self) -> "Settings":
        """Load the settings. Raises SettingsError."""
        from stowkeeper.app.settings import load_settings  # noqa: PLC0415 - see above

        settings = load_settings(self.config_file, self.overrides, os.environ)
        remember_log_directory(settings.archive_path, settings.log_directory)
        return settings

    def as_served(self, *, asks: bool = True) -> "SettingsArguments":
        """Return these, led to the settings file that the one server reads which runs on the archive, and say so.

        So it is where no file was named, and the server was told one that it would not have found by itself. Raises
        CommandError where several servers read different files; without `asks` that is said, and these are returned.
        """
        from stowkeeper.app.commands.served_settings import led_to_file_of_server  # noqa: PLC0415 - see above

        return led_to_file_of_server(self, asks=asks)

    def reload(self, current: "Settings") -> "Reload":
        """Load the settings again. Raises SettingsError; the current ones then stay in force."""
        from stowkeeper.app.settings import reload_settings  # noqa: PLC0415 - see above

        return reload_settings(current, self.config_file, self.overrides, os.environ)


def settings_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command `--config` and a flag for each setting that has one. It gets `settings_arguments`."""
    from stowkeeper.app.setting_sources import all_settings  # noqa: PLC0415 - see above

    flagged = {
        setting.flag.lstrip("-").replace("-", "_"): setting
        for setting in all_settings().values()
        if setting.flag
    }

    @wraps(command)
    def with_settings(**options: Any) -> R:  # noqa: ANN401 - they are the command's own, and the flags
        config_file = options.pop("config")
        overrides = {setting.key: options.pop(name) for name, setting in flagged.items()}
        arguments = SettingsArguments(config_file=config_file, overrides=overrides)
        return command(settings_arguments=arguments, **options)

    decorated: Callable[..., R] = with_settings
    for name, setting in reversed(flagged.items()):
        described = setting.flag_help.replace("`", "")
        if setting.shape == "truth":
            # The flag says the opposite of the default: --no-sync.
            decorated = click.option(
                setting.flag, name, flag_value=not setting.default, default=None, type=bool, help=described
            )(decorated)
        else:
            help_text = f"{described}  [default: {setting.plain(setting.default)}]"
            decorated = click.option(setting.flag, name, metavar=_METAVARS[setting.key], help=help_text)(
                decorated
            )
    return click.option(
        "--config",
        metavar="FILE",
        help="Settings file (TOML). Not given: STOWKEEPER_CONFIG, or stowkeeper.toml in the archive if it is there.",
    )(decorated)


_METAVARS = {
    "archive": "DIR",
    "dicom.host": "H",
    "dicom.port": "N",
    "dicom.ae_title": "AET",
    "http.host": "H",
    "http.port": "N|off",
}
