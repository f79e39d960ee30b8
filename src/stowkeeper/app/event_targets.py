"""From the event targets of the settings to those that the services know."""

import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from stowkeeper.app.setting_problems import Problem, SettingsError
from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_events import EventTargetSettings, ExportFolderSettings
from stowkeeper.archive import catalog
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.services.events.command import CommandWay
from stowkeeper.services.events.event_folder import FolderWay
from stowkeeper.services.events.export import ExportWay
from stowkeeper.services.events.feed import EventKind
from stowkeeper.services.events.limits import SECRET_BYTES_MAX
from stowkeeper.services.events.targets import EventTarget, Way
from stowkeeper.services.events.webhook import SecretError, WebhookWay, secret_key


def event_targets(settings: Settings, archive: ArchiveReader) -> Mapping[str, EventTarget]:
    """Return the targets of the settings by name. Raises SettingsError where a file that one names cannot be used."""
    with archive.database.read() as connection:
        archive_id = catalog.archive_id(connection) or ""
    place = settings.origin_of("event_targets").place_of("event_targets")
    targets: dict[str, EventTarget] = {}
    problems: list[Problem] = []
    for entry in settings.event_targets:
        try:
            open_way = _way_of(entry, archive, archive_id)
        except (OSError, SecretError, ssl.SSLError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            named = entry.ca_file if isinstance(error, ssl.SSLError) else entry.secret_file
            named = str(getattr(error, "filename", None) or named)
            problems.append(
                Problem(place=f'{place}, "{entry.name}"', text=f"{named} cannot be used: {words}")
            )
            continue
        targets[entry.name] = EventTarget(
            name=entry.name,
            kinds=frozenset(entry.events),
            open_way=open_way,
            at_once=entry.at_once,
            give_up_hours=entry.give_up_hours,
        )
    for folder in settings.export_folders:
        targets[folder.name] = EventTarget(
            name=folder.name,
            kinds=frozenset({EventKind.INSTANCE_RECEIVED}),
            open_way=partial(_export_way, folder, archive),
            at_once=folder.at_once,
            give_up_hours=folder.give_up_hours,
        )
    if problems:
        raise SettingsError(problems)
    return targets


def _export_way(folder: ExportFolderSettings, archive: ArchiveReader) -> ExportWay:
    return ExportWay(
        archive.files,
        archive.root,
        archive.database,
        folder=folder.folder,
        template=folder.template,
        extension=folder.extension,
        mode=folder.mode,
    )


def _way_of(entry: EventTargetSettings, archive: ArchiveReader, archive_id: str) -> Callable[[], Way]:
    if entry.command:
        return lambda: CommandWay(
            entry.command, archive_id=archive_id, root=archive.root, seconds=entry.seconds
        )
    if entry.folder:
        return lambda: FolderWay(archive.files, entry.folder, archive_id=archive_id)
    key = secret_key(_read_secret(entry.secret_file)) if entry.secret_file else None
    tls = ssl.create_default_context(cafile=entry.ca_file or None)
    return lambda: WebhookWay(entry.url, key=key, archive_id=archive_id, seconds=entry.seconds, tls=tls)


def _read_secret(path: str) -> str:
    with Path(path).open("rb") as stream:
        content = stream.read(SECRET_BYTES_MAX + 1)
    if len(content) > SECRET_BYTES_MAX:
        raise SecretError(f"it has more than {SECRET_BYTES_MAX} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise SecretError("it is no text") from None
