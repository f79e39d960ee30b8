"""Settings: read from a TOML file, the environment and flags, checked as a whole, frozen.

Weight grows in this order: defaults, file, environment, flags. Each source is checked by itself, also where a
weightier one overrules it, so that every problem names the place where a person mends it, and all are reported
at once.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from stowkeeper.app.setting_fields import RELOADABLE, Origin, OriginKind, Setting
from stowkeeper.app.setting_problems import Problem, SettingsError, located
from stowkeeper.app.setting_sources import (
    CONFIG_VARIABLE,
    all_settings,
    nested,
    read_file,
    read_flags,
    read_variables,
)
from stowkeeper.app.settings_of_events import event_contradictions
from stowkeeper.app.settings_of_forwarding import forwarding_contradictions, forwarding_warnings
from stowkeeper.app.settings_of_origin_servers import origin_server_contradictions
from stowkeeper.app.settings_of_profiles import profile_contradictions, profile_warnings
from stowkeeper.app.settings_of_retention import retention_contradictions, retention_warnings
from stowkeeper.app.settings_of_services import services_contradictions
from stowkeeper.app.settings_of_tls import tls_contradictions, tls_warnings
from stowkeeper.app.settings_of_tracing import tracing_contradictions
from stowkeeper.app.settings_tables import Settings

__all__ = [
    "CONFIG_FILE_NAME",
    "Change",
    "Reload",
    "Settings",
    "SettingsError",
    "load_settings",
    "plain_value",
    "reload_settings",
    "warnings_of",
]

CONFIG_FILE_NAME = "stowkeeper.toml"
"""The settings file that is read from the archive folder when no other is named."""


def load_settings(
    config_file: str | None,
    overrides: Mapping[str, object],
    environment: Mapping[str, str],
    *,
    content: bytes | None = None,
) -> Settings:
    """Read, check and freeze the settings.

    `config_file` is the file that was asked for; without one STOWKEEPER_CONFIG names it, and without that
    `stowkeeper.toml` in the archive folder is read if it is there. `overrides` holds what the flags say, by
    dotted key (`{"dicom.port": "0"}`), as text or as a value; None means that a flag was not given. Relative
    paths count from the folder of the file that names them, elsewhere from the working directory. `content` stands for what
    the file holds, which need not be there then.

    Raises SettingsError, with all problems.
    """
    problems: list[Problem] = []
    flags = read_flags(overrides)
    variables = read_variables(environment, problems)
    archive = str(flags.values.get("archive") or variables.values.get("archive") or Settings().archive)
    named = config_file if config_file is not None else environment.get(CONFIG_VARIABLE)
    path = _choose_file(named, archive)
    if path is None and content is not None:
        path = Path(archive, CONFIG_FILE_NAME).absolute()
    file = read_file(path, problems, may_name_archive=named is not None, content=content)

    sources = (file, variables, flags)
    for source in sources:
        problems.extend(source.check())
    if problems:
        raise SettingsError(tuple(located(problems, file.text)))

    values: dict[str, object] = {"archive": os.path.abspath(Settings().archive)}
    origins: dict[str, Origin] = {}
    for source in sources:
        values |= source.values
        origins |= source.origins
    context = {"origins": origins, "file": str(path or "")}
    settings = Settings.model_validate(nested(values), context=context)
    problems.extend(_contradictions(settings))
    if problems:
        raise SettingsError(tuple(located(problems, file.text)))
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting whose value differs after a reload; the values are as TOML holds them."""

    key: str
    before: object
    after: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What a reload brought.

    `settings` are those in force from now on: new where a reload suffices, old elsewhere. `applied` lists what
    changed in them, `needs_restart` what stands in the file or the environment and waits for a restart.
    """

    settings: Settings
    applied: tuple[Change, ...]
    needs_restart: tuple[Change, ...]


def reload_settings(
    current: Settings,
    config_file: str | None,
    overrides: Mapping[str, object],
    environment: Mapping[str, str],
) -> Reload:
    """Load the settings again and put in force what needs no restart.

    Raises SettingsError; then the current settings stay in force.
    """
    new = load_settings(config_file, overrides, environment)
    changes = [
        (setting, Change(key=setting.key, before=before, after=after))
        for setting in all_settings().values()
        if (before := plain_value(current, setting)) != (after := plain_value(new, setting))
    ]
    return Reload(
        settings=current.reloaded(new, RELOADABLE),
        applied=tuple(change for setting, change in changes if setting.reloadable),
        needs_restart=tuple(change for setting, change in changes if not setting.reloadable),
    )


def plain_value(settings: Settings, setting: Setting) -> object:
    """Return the value of a setting as TOML or JSON would hold it."""
    table = getattr(settings, setting.table) if setting.table else settings
    return setting.plain(getattr(table, setting.name))


def warnings_of(settings: Settings) -> Iterator[str]:
    """Yield what is allowed and still deserves a word; a server says it once, when it starts."""
    access = settings.access
    ruled = access.calling_ae_titles or access.addresses or access.only_known_peers
    if not ruled and not _is_loopback(settings.dicom.host):
        yield (
            f"anyone who reaches {settings.dicom.host} may store: set access.addresses, access.calling_ae_titles"
            " or access.only_known_peers"
        )
    if any(network.prefixlen == 0 for network in settings.dicom.proxy_protocol_from):
        yield (
            "dicom.proxy_protocol_from trusts everyone: whoever connects can give any address as the peer's; name the"
            " proxies alone"
        )
    if not settings.sync:
        yield (
            "instances are not synced (sync = false): a power cut can lose what was answered with Success, and the"
            " catalog with it"
        )
    if access.only_known_peers and not settings.peers:
        yield (
            "access.only_known_peers without [[peers]]: only peers of the archive's database may associate, which"
            " `stowkeeper peers add` puts in"
        )
    if access.called_ae_titles and not access.check_called_ae_title:
        yield "access.called_ae_titles has no effect without access.check_called_ae_title = true"
    yield from tls_warnings(settings.tls)
    if settings.negotiation.preference and settings.negotiation.choice != "preference":
        yield 'negotiation.preference has no effect without negotiation.choice = "preference"'
    yield from profile_warnings(settings)
    yield from forwarding_warnings(settings)
    yield from retention_warnings(settings)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _contradictions(settings: Settings) -> Iterator[Problem]:
    negotiation = settings.negotiation
    if negotiation.choice == "preference" and not negotiation.preference:
        yield _problem(
            settings, "negotiation.choice", "it needs at least one entry in negotiation.preference"
        )
    if not isinstance(negotiation.transfer_syntaxes, str):
        for uid in negotiation.preference:
            if uid not in negotiation.transfer_syntaxes:
                text = f"{uid} is not among negotiation.transfer_syntaxes, so it is never accepted"
                yield _problem(settings, "negotiation.preference", text)
    for name, text in tls_contradictions(settings.tls):
        yield _problem(settings, f"tls.{name}", text)
    for contradictions in (
        services_contradictions,
        event_contradictions,
        origin_server_contradictions,
        forwarding_contradictions,
        retention_contradictions,
        tracing_contradictions,
    ):
        for key, text in contradictions(settings):
            yield _problem(settings, key, text)
    for key, number, text in profile_contradictions(settings):
        problem = _problem(settings, key, text)
        if number is not None:
            place, path = f"{problem.place}, entry {number + 1}: profile", (*problem.path, number, "profile")
            problem = replace(problem, place=place, path=path if problem.path else ())
        yield problem
    names = [peer.name for peer in settings.peers]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield _problem(settings, "peers", f'several peers have the name "{name}"')


def _problem(settings: Settings, key: str, text: str) -> Problem:
    return Problem(place=settings.origin_of(key).place_of(key), text=text, path=_path(settings, key))


def _path(settings: Settings, key: str) -> tuple[str, ...]:
    """Return the path of a key in the file, if its value is from there."""
    return tuple(key.split(".")) if settings.origin_of(key).kind is OriginKind.FILE else ()


def _choose_file(named: str | None, archive: str) -> Path | None:
    if named is not None:
        return Path(named).expanduser().absolute()
    beside = Path(archive, CONFIG_FILE_NAME).absolute()
    return beside if os.path.lexists(beside) else None
