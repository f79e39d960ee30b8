"""What is to run as a service: the command, the folders that it writes, and what its settings say about ports and times."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.open_files import open_files_needed
from stowkeeper.app.service.limits import OPEN_FILES_MIN, STOP_GRACE_SECONDS
from stowkeeper.app.setting_fields import Shape
from stowkeeper.app.setting_sources import all_settings, entry_settings
from stowkeeper.app.settings import Settings, load_settings, plain_value
from stowkeeper.app.settings_of_services import OFF

SERVICE_NAME: Final = "stowkeeper"
SERVICE_ARCHIVE: Final = "/var/lib/stowkeeper"
"""The archive of a service when none is named: a service has no working directory that `./archive` could be in."""

USER_ARCHIVE: Final = "~/.local/share/stowkeeper"
"""The same for a service of one user alone."""

PRIVILEGED_PORTS_END: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """A server as a service. All paths are absolute.

    `user` is empty where it runs as whoever its manager runs as. `read` are the files that it has to read, `listening` the
    addresses by the name of their socket, `dicom` first. `stop_seconds` is within what time it has ended after SIGTERM.
    `outlets` are folders of others that it puts events and copies of instances into, `programs` what it starts for events.
    """

    command: tuple[str, ...]
    archive: Path
    log_directory: Path
    read: tuple[Path, ...]
    listening: Mapping[str, tuple[str, int]]
    stop_seconds: int
    open_files: int
    outlets: tuple[Path, ...] = ()
    programs: tuple[Path, ...] = ()
    user: str = ""
    group: str = ""

    @property
    def written(self) -> tuple[Path, ...]:
        """The folders of its own that it writes into, none of them below another."""
        if self.log_directory.is_relative_to(self.archive):
            return (self.archive,)
        return (self.archive, self.log_directory)

    @property
    def has_privileged_port(self) -> bool:
        """Whether a port is to be had with a privilege alone, as 104 of DICOM."""
        return any(0 < port < PRIVILEGED_PORTS_END for _, port in self.listening.values())


def program() -> tuple[str, ...]:
    """Return the command that runs this program again, whatever the working directory and the search path are."""
    # -P: a folder that others may write must not be where Python looks for modules first.
    return (os.path.abspath(sys.executable), "-P", "-m", "stowkeeper")


def plan_of(
    settings: Settings, arguments: tuple[str, ...], *, user: str = "", group: str = ""
) -> ServicePlan:
    """Return the plan of a server with these settings, started by `serve` and `arguments`.

    Raises CommandError for a path that cannot stand in a file of a service manager.
    """
    plan = ServicePlan(
        command=(*program(), "serve", *arguments),
        archive=settings.archive_path,
        log_directory=settings.log_directory,
        read=_paths(settings.settings_file, *_files_named_in(settings)),
        listening=listening_of(settings),
        stop_seconds=int(settings.dicom.drain_seconds + STOP_GRACE_SECONDS),
        open_files=max(OPEN_FILES_MIN, open_files_needed(settings)),
        outlets=_paths(
            *(target.folder for target in settings.event_targets),
            *(folder.folder for folder in settings.export_folders),
        ),
        programs=_paths(*(target.command[0] for target in settings.event_targets if target.command)),
        user=user,
        group=group,
    )
    for path in (*plan.command, *map(str, (plan.archive, plan.log_directory, *plan.outlets))):
        if not path.isprintable():
            raise CommandError(
                f"{path!r} holds a character that no file of a service manager can: choose another name.",
                ExitCode.USAGE,
            )
    return plan


def _paths(*named: str) -> tuple[Path, ...]:
    """Return absolute paths, each once; what is none, such as a program that is looked for, is left out."""
    return tuple(dict.fromkeys(Path(name) for name in named if os.path.isabs(name)))


def _files_named_in(settings: Settings) -> Iterator[str]:
    """Yield what the settings of TLS and HTTP and the lists of tables name as files to be read."""
    for setting in all_settings().values():
        if setting.table in {"tls", "http"}:
            yield from _as_paths(setting.shape, plain_value(settings, setting))
    for table, keys in entry_settings().items():
        for entry in getattr(settings, table, ()):  # what stands in an entry of another list names no files
            for name, setting in keys.items():
                if name != "folder":  # that is written
                    yield from _as_paths(setting.shape, getattr(entry, name, ""))


def _as_paths(shape: Shape, value: object) -> Iterator[str]:
    if shape == "path" and value:
        yield str(value)
    elif shape == "paths" and isinstance(value, list | tuple):
        yield from map(str, value)


def listening_of(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return the addresses that a server with these settings listens on, by the name of their socket."""
    listening = {"dicom": (settings.dicom.host, settings.dicom.port)}
    if settings.http.port != OFF:
        listening["http"] = (settings.http.host, int(settings.http.port))
    return listening


def service_settings(config: Path | None, archive: Path | None, otherwise: str = SERVICE_ARCHIVE) -> Settings:
    """Return the settings that a service will find: those of its files and flags, none of this shell's variables.

    `otherwise` is its archive where neither the file nor `archive` says one. Raises SettingsError.
    """
    named = None if config is None else str(config)
    found = load_settings(named, {"archive": None if archive is None else str(archive)}, {})
    if archive is None and not found.origin_of("archive").name:
        found = load_settings(named, {"archive": otherwise}, {})
    return found


def service_arguments(settings: Settings, config: Path | None) -> tuple[str, ...]:
    """Return the options of `serve` that lead it to the same settings."""
    named = () if config is None else ("--config", str(config))
    return (*named, "--archive", str(settings.archive_path))
