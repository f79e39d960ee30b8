"""`stowkeeper config`: look at the settings, and change the settings file."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from pydantic import BaseModel

from stowkeeper.app.commands.check_config import all_warnings, entry_lines, show_settings
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import DEFAULT_ARCHIVE, SettingsArguments, json_option, settings_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.app.setting_fields import OriginKind, Setting, toml_text
from stowkeeper.app.setting_problems import Problem, SettingsError, unknown_setting
from stowkeeper.app.setting_sources import (
    CONFIG_VARIABLE,
    Source,
    all_settings,
    entry_settings,
    read_content,
    value_of_text,
)
from stowkeeper.app.settings import CONFIG_FILE_NAME, Settings, load_settings, plain_value

ARCHIVE_VARIABLE = all_settings()["archive"].variable
_COMMANDS_OF_TABLES = {"peers": "`stowkeeper peers add`, which needs no restart, or `stowkeeper config edit`"}
R = TypeVar("R")


def _file_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command `--archive` and `--config`. It gets `arguments`, by which the settings are loaded."""

    @click.option(
        "--archive",
        metavar="DIR",
        help="Folder of the archive. Not given: STOWKEEPER_ARCHIVE, what the file says, or ./archive.",
    )
    @click.option(
        "--config",
        "config_file",
        metavar="FILE",
        help="Settings file (TOML). Not given: STOWKEEPER_CONFIG, or stowkeeper.toml in the archive.",
    )
    @wraps(command)
    def with_arguments(*, archive: str | None, config_file: str | None, **options: Any) -> R:  # noqa: ANN401 - the command's own
        arguments = SettingsArguments(config_file=config_file, overrides={"archive": archive}).as_served()
        return command(arguments=arguments, **options)

    return with_arguments


@click.group(
    epilog="Exit code 2 for a setting that does not exist, 4 without the right to write the file, 75 where somebody else"
    " changes it, 78 where the settings cannot be used: then nothing is written. docs/settings.md tells more."
)
def config() -> None:
    """Look at the settings, and change the settings file.

    Comments, order and blank lines of the file stay. It is checked as a whole before it is written, and what it was before is
    kept as FILE.1 to FILE.9.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What a key on the command line names. With `entry` it is a key of the entry of that name in the list `table`."""

    key: str
    setting: Setting
    table: str = ""
    entry: str = ""

    @property
    def top(self) -> Setting:
        """The setting as server and reload know it: of an entry its list."""
        return all_settings()[self.table] if self.table else self.setting


def _target(key: str) -> _Target:
    """Find what a key names. Raises CommandError, with a guess."""
    found = all_settings().get(key)
    if found is not None:
        return _Target(key=key, setting=found)
    first, _, rest = key.partition(".")
    name, _, last = rest.rpartition(".")
    if first in entry_settings() and name:
        keys = entry_settings()[first]
        if last not in keys:
            problem = unknown_setting("", last, tuple(keys.values()))
            raise CommandError(f"{key}: {problem}", ExitCode.USAGE)
        return _Target(key=key, setting=keys[last], table=first, entry=name)
    if any(setting.table == key for setting in all_settings().values()) or key in entry_settings():
        raise CommandError(
            f"{key} is a table, and one value is asked for: name it as {key}.KEY; `stowkeeper config show` has the whole table.",
            ExitCode.USAGE,
        )
    table, _, name = key.rpartition(".")
    raise CommandError(
        f"{key}: {unknown_setting(table, name, tuple(all_settings().values()))}", ExitCode.USAGE
    )


# Looking.


@config.command
@settings_options
@json_option
def show(*, settings_arguments: SettingsArguments, as_json: bool) -> ExitCode:
    """Show the settings in force and where each value came from.

    What `stowkeeper check-config` shows. No setting is a secret: passwords and keys lie in files of their own, of which
    the settings have the paths.
    """
    return show_settings(settings_arguments.as_served(), as_json=as_json)


@config.command(epilog="Example: stowkeeper config get dicom.port")
@settings_options
@json_option
@click.argument("key")
def get(*, settings_arguments: SettingsArguments, as_json: bool, key: str) -> ExitCode:
    """Print one value as it is in force.

    KEY is a table and a name, such as dicom.port; peers.NAME.host is that of the [[peers]] entry NAME in the file.
    """
    target = _target(key)
    settings = settings_arguments.as_served().load()
    value = _value_in(settings, target)
    if as_json:
        click.echo(json.dumps(value))
    elif target.setting.shape == "tables" and not target.entry:
        entries = cast("list[dict[str, object]]", value)
        click.echo("\n".join(line for entry in entries for line in entry_lines(key, entry)).strip())
    elif value is not None:
        click.echo(value if isinstance(value, str) else toml_text(value))
    return ExitCode.OK


def _value_in(settings: Settings, target: _Target) -> object:
    """Return a value as TOML or JSON would hold it, None for one of an entry that is not set."""
    if not target.entry:
        return plain_value(settings, target.setting)
    entries: Sequence[BaseModel] = getattr(settings, target.table)
    for entry in entries:
        if getattr(entry, "name", None) == target.entry:
            value = getattr(entry, target.setting.name)
            return None if value is None else target.setting.plain(value)
    raise _no_such_entry(target, [getattr(entry, "name", "") for entry in entries])


def _no_such_entry(target: _Target, names: Sequence[str] = ()) -> CommandError:
    there = f"; there is {', '.join(map(toml_text, names))}" if names else ""
    how = _COMMANDS_OF_TABLES.get(target.table, "`stowkeeper config edit`")
    return CommandError(
        f"{target.key}: the file has no [[{target.table}]] with the name {toml_text(target.entry)}{there}. Add it by {how}.",
        ExitCode.USAGE,
    )


# Changing.


@config.command(
    "set",
    epilog="Examples: stowkeeper config set dicom.port 104; stowkeeper config set access.calling_ae_titles CT1,MR1;"
    " stowkeeper config set 'peers.CT 1.duplicates' keep",
)
@_file_options
@click.argument("assignments", nargs=-1, required=True, metavar="KEY VALUE [KEY VALUE]...")
def set_(*, arguments: SettingsArguments, assignments: tuple[str, ...]) -> ExitCode:
    """Set values in the settings file.

    A value is written as in a variable: a list as ONE,TWO or as a JSON list, a size as "2 GB". A relative path counts from
    the working directory. Several that only go together are given at once. A value that begins with - stands behind --.
    """
    if len(assignments) % 2:
        raise click.UsageError(f"{assignments[-1]} has no value: write KEY VALUE.")
    pairs = list(zip(assignments[::2], assignments[1::2], strict=True))
    targets = [_target(key) for key, _ in pairs]
    for target in targets:
        _check_single(target)
    for key, text in pairs:
        _check_encoding(key, text)
    values = [_typed(target, text) for target, (_, text) in zip(targets, pairs, strict=True)]
    return _change(arguments, targets, values)


@config.command(epilog="Example: stowkeeper config unset dicom.port")
@_file_options
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
def unset(*, arguments: SettingsArguments, keys: tuple[str, ...]) -> ExitCode:
    """Take values out of the settings file, so that the defaults hold."""
    targets = [_target(key) for key in keys]
    for target in targets:
        _check_single(target)
    return _change(arguments, targets, [None] * len(targets))


def _check_single(target: _Target) -> None:
    """Raise CommandError for a list of tables, which no single value is."""
    if target.setting.shape == "tables":
        how = _COMMANDS_OF_TABLES.get(target.key, "`stowkeeper config edit`")
        raise CommandError(
            f"{target.key} is a list of tables, which no single value can be: use {how}.", ExitCode.USAGE
        )


def _check_encoding(key: str, text: str) -> None:
    """Raise CommandError for bytes that are no text, which no TOML file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CommandError(f"{key}: the value has bytes that are no UTF-8.", ExitCode.USAGE) from None


def _typed(target: _Target, text: str) -> object:
    """Read a value for the file."""
    source = Source(OriginKind.FLAG, os.getcwd())
    source.add(target.setting, value_of_text(text, target.setting), target.key)
    value = source.values[target.setting.key]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    # A number where a word is allowed as well, as in http.port.
    is_number_too = target.setting.shape == "text" and isinstance(target.setting.default, int)
    return int(value) if is_number_too and isinstance(value, str) and value.isdecimal() else value


def _change(arguments: SettingsArguments, targets: Sequence[_Target], values: Sequence[object]) -> ExitCode:
    """Write values into the file, None for one that is to go, and say what that means."""
    from stowkeeper.app import settings_file  # noqa: PLC0415 - reading needs no library for it

    path = _path_of(arguments)

    def changed(content: bytes) -> bytes:
        for target, value in zip(targets, values, strict=True):
            if target.entry:
                content = settings_file.with_entry_value(
                    content, target.table, target.entry, target.setting.name, value
                )
            elif value is None:
                content = settings_file.without_value(content, tuple(target.key.split(".")))
            else:
                content = settings_file.with_value(content, tuple(target.key.split(".")), value)
        return content

    with _sentences(path), settings_file.held(path):
        before = read_content(path) if path.exists() else None
        try:
            content = changed(before or b"")
        except KeyError:
            missing = next(target for target in targets if target.entry)
            raise _no_such_entry(missing) from None
        if content == (before or b""):
            click.echo(f"{printable(str(path))} says so already: nothing was written.")
            return ExitCode.OK
        new = _load(arguments, content)
        kept = settings_file.replace_file(path, content, before)
    for target in targets:
        _say_new(new, target)
    _say_written(path, kept)
    _say_effect([target.top for target in targets], new)
    return ExitCode.OK


@config.command
@_file_options
def edit(*, arguments: SettingsArguments) -> ExitCode:
    """Edit the settings file in the editor that VISUAL or EDITOR names.

    You edit a copy. When you leave the editor it is checked: what can be used is written, and what cannot is told, with the
    offer to edit again. A broken file is never written.
    """
    from stowkeeper.app import settings_file  # noqa: PLC0415 - as in _change
    from stowkeeper.app.commands.settings_editor import Draft  # noqa: PLC0415 - likewise

    path = _path_of(arguments)
    with _sentences(path):
        settings_file.check_folder(path)  # nobody edits for nothing
        before = read_content(path) if path.exists() else None
        draft = Draft(path, before or b"")
        content = draft.edit_until_good(lambda content: _load(arguments, content))
        if content is None:
            draft.remove()
            click.echo("Nothing was changed.")
            return ExitCode.OK
        try:
            with settings_file.held(path):
                kept = settings_file.replace_file(path, content, before)
        except (OSError, settings_file.SettingsFileError):
            click.echo(printable(f"Your draft is {draft.path}."), err=True)
            raise
    draft.remove()
    new = _load(arguments, content)
    _say_written(path, kept)
    old = _load_or_none(arguments, before or b"")
    differing = [
        setting
        for setting in all_settings().values()
        if old is None or plain_value(old, setting) != plain_value(new, setting)
    ]
    if differing:
        _say_effect(differing, new)
    return ExitCode.OK


def _path_of(arguments: SettingsArguments) -> Path:
    """Return the file that the server reads, which need not be there yet."""
    named = arguments.config_file if arguments.config_file is not None else os.environ.get(CONFIG_VARIABLE)
    archive = arguments.overrides["archive"] or os.environ.get(ARCHIVE_VARIABLE) or DEFAULT_ARCHIVE
    path = Path(named).expanduser() if named is not None else Path(str(archive), CONFIG_FILE_NAME)
    if not path.parent.is_dir():
        raise CommandError(
            f"{path.parent}: there is no such folder. Name the file by --config, or the folder of the archive by --archive.",
            ExitCode.NO_INPUT,
        )
    return path.absolute()


def _load(arguments: SettingsArguments, content: bytes) -> Settings:
    """Check a file as a whole, with the environment and the files that it names. Raises SettingsError."""
    settings = load_settings(arguments.config_file, arguments.overrides, os.environ, content=content)
    all_warnings(settings)
    return settings


def _load_or_none(arguments: SettingsArguments, content: bytes) -> Settings | None:
    try:
        return load_settings(arguments.config_file, arguments.overrides, os.environ, content=content)
    except SettingsError:
        return None


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    """Put what goes wrong with the file into a sentence with its exit code."""
    from stowkeeper.app import settings_file  # noqa: PLC0415 - as in _change
    from stowkeeper.app.service.rights import RightMissingError, again_as, user_name  # noqa: PLC0415 - likewise

    def owner(of: Path) -> str:
        return again_as(user_name(os.stat(of).st_uid))

    try:
        yield
    except settings_file.SettingsFileBusyError as error:
        raise CommandError(f"{error}.", ExitCode.TRY_AGAIN) from error
    except settings_file.SettingsFileOwnerError as error:
        raise RightMissingError(f"{error}: run `{owner(path)}`.") from error
    except PermissionError as error:
        place = path if path.exists() and not os.access(path, os.R_OK) else path.parent
        what = (
            "read it"
            if place == path
            else "write into this folder, where the new file and the old version go"
        )
        raise RightMissingError(
            f"{place}: user {user_name(os.geteuid())} may not {what}: run `{owner(place)}`."
        ) from error
    except ValueError as error:
        raise SettingsError([Problem(place=str(path), text=str(error))]) from error


def _say_new(new: Settings, target: _Target) -> None:
    value = _value_in(new, target)
    shown = "not set" if value is None else toml_text(value)
    origin = new.origin_of(target.top.key)
    by_default = ", the default" if origin.kind is OriginKind.DEFAULT else ""
    click.echo(printable(f"{target.key} = {shown}{by_default}"))
    if origin.kind in {OriginKind.ENVIRONMENT, OriginKind.FLAG}:
        click.echo(
            printable(
                f"warning: {origin} overrules the file here; where it is set for the server, it does so there"
            ),
            err=True,
        )


def _say_written(path: Path, kept: Path | None) -> None:
    old = f"; the version before is {kept}" if kept is not None else ""
    click.echo(printable(f"Written to {path}{old}."))


def _say_effect(changed: Sequence[Setting], settings: Settings) -> None:
    from stowkeeper.app.commands.settings_effect import effect_of  # noqa: PLC0415 - as in _change

    for line in effect_of(changed, settings):
        click.echo(printable(line))
