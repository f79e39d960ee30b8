"""Settings for commands that must tell how it is also where the settings cannot be used: broken while a server runs, say."""

import os
from pathlib import Path

from stowkeeper.app.commands.options import DEFAULT_ARCHIVE, SettingsArguments, remember_log_directory
from stowkeeper.app.doctor.examination import LoadedSettings
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.setting_sources import CONFIG_VARIABLE
from stowkeeper.app.settings import Settings


def load_or_shipped(arguments: SettingsArguments) -> LoadedSettings:
    """Load the settings; where they cannot be used, take those of a new installation, with the archive that was named.

    Raises SettingsError where only the settings could tell which archive is meant.
    """
    try:
        return LoadedSettings(settings=arguments.load())
    except SettingsError as error:
        archive = arguments.overrides.get("archive") or os.environ.get("STOWKEEPER_ARCHIVE")
        if not archive and (arguments.config_file is not None or os.environ.get(CONFIG_VARIABLE)):
            raise
        folder = Path(str(archive or DEFAULT_ARCHIVE)).expanduser().absolute()
        remember_log_directory(folder, folder / "log")
        return LoadedSettings(settings=Settings(archive=str(folder)), problem=error)
