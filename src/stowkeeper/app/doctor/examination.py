"""All checks in their order: what a person would look at first comes first."""

import datetime as dt
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from stowkeeper.app.archive_place import foreign_things
from stowkeeper.app.doctor import (
    catalog,
    certificates,
    clock,
    disk,
    origin_servers,
    outlets,
    ports,
    program,
    rights,
    room,
)
from stowkeeper.app.doctor.finding import Finding, Level, failure, ok, warning
from stowkeeper.app.open_files import open_files_needed
from stowkeeper.app.running import RunningServer, running_servers
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_services import OFF
from stowkeeper.app.settings_of_tls import tls_context
from stowkeeper.app.wiring import archive_options
from stowkeeper.durable.filesystem import FileSystem

SETTINGS = "settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """The settings to examine; where they cannot be used, those of a new installation with the archive, and why."""

    settings: Settings
    problem: SettingsError | None = None


def examine(loaded: LoadedSettings) -> Iterator[Finding]:
    """Yield what every check finds, as it finds it. Takes a second; as long as the disk does not answer, half a minute."""
    began = clock.Instant.now()
    settings = loaded.settings
    files = FileSystem()
    root = os.path.abspath(settings.archive)
    place = _standing(root)
    log_directory = str(settings.log_directory) if settings.log.file else None
    yield from program.check_program()
    yield from _check_settings(loaded)
    running, unread = _running(root)
    yield from unread
    if not unread:
        yield from program.check_servers(running, root)
    tried = list(rights.check_rights(root, log_directory))
    yield from tried
    yield from rights.check_owners(root, log_directory)
    yield from room.check_room(files, place, archive_options(settings).marks)
    yield from disk.check_file_system(files, place)
    if not rights.is_foreign_to_root(root) and all(one.level is not Level.FAILURE for one in tried):
        yield from disk.check_syncing(files, root)
    yield from catalog.check_catalog(files, root, _foreign(loaded))
    yield from clock.check_time_service()
    yield from _check_ports(settings, running)
    here = [server.pid for server in running if server.is_here]
    now = dt.datetime.now(dt.UTC)
    yield from certificates.check_certificates(settings, now, here[0] if here else None)
    yield from origin_servers.check_origin_servers(settings, now)
    yield from outlets.check_outlets(settings)
    yield from program.check_open_files(open_files_needed(settings))
    # Last, so that a clock that jumps had time to.
    newest = catalog.newest_receipt_at(root)
    yield from clock.check_clock(began, clock.Instant.now(), newest, clock.installed_at())


def _foreign(loaded: LoadedSettings) -> str:
    """Say what keeps the folder from becoming an archive's; settings that cannot be used do not tell what is theirs there."""
    if loaded.problem is not None:
        return ""
    try:
        return foreign_things(loaded.settings)
    except OSError:  # told by the check of the rights
        return ""


def _standing(path: str) -> str:
    """Return the nearest folder that is there: a path, or one above it."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _running(root: str) -> tuple[list[RunningServer], list[Finding]]:
    try:
        return running_servers(root), []
    except OSError as error:
        words = f"whether a server runs cannot be told: {error.filename or root}: {error.strerror}"
        return [], [warning(program.SERVER, words, f"sudo stowkeeper doctor --archive {root}")]


def _check_settings(loaded: LoadedSettings) -> Iterator[Finding]:
    settings = loaded.settings
    problem = loaded.problem
    if problem is None:
        try:
            tls_context(settings)
        except SettingsError as error:
            problem = error
    if problem is not None:
        for one in problem.problems:
            yield failure(SETTINGS, f"{one.place}: {one.text}", _check_config(settings, one.place))
        if loaded.problem is not None:
            yield warning(
                SETTINGS,
                "what follows goes by the settings of a new installation",
                _check_config(settings, problem.problems[0].place),
            )
        return
    file = settings.settings_file
    yield ok(
        SETTINGS,
        f"the settings of {file} can be used" if file else "there is no settings file; all is as shipped",
    )
    if not settings.sync:
        yield warning(
            SETTINGS,
            "sync is off: what was answered in the last seconds before a power cut can be lost",
            "stowkeeper serve  # without --no-sync, and without sync = false in the settings",
        )


def _check_config(settings: Settings, place: str) -> str:
    """Return the command that looks at the same settings; a place that is a file elsewhere was named by --config."""
    root = os.path.abspath(settings.archive)
    is_elsewhere = os.path.isabs(place) and os.path.dirname(place) != root
    named = ["--config", place] if is_elsewhere and os.path.lexists(place) else []
    return shlex.join(["stowkeeper", "check-config", *named, "--archive", root])


def _check_ports(settings: Settings, running: list[RunningServer]) -> Iterator[Finding]:
    here = [server for server in running if server.is_here]
    yield from ports.check_port(
        "DICOM",
        settings.dicom.host,
        settings.dicom.port,
        [(server.pid, server.dicom_port) for server in here],
        setting="dicom.port",
        flag="--port",
    )
    if settings.http.port == OFF:
        yield ok(ports.PORT, "HTTP: it is off")
        return
    yield from ports.check_port(
        "HTTP",
        settings.http.host,
        int(settings.http.port),
        [(server.pid, server.http_port) for server in here if server.http_port is not None],
        setting="http.port",
        flag="--http-port",
    )
