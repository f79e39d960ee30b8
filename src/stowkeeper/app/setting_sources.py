"""The sources of settings: a TOML file, environment variables and flags, each read into values by dotted key.

Text is turned into the kind of value that the setting has; whether a value is allowed is for the models to say.
"""

import ast
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from stowkeeper.app.limits import CONFIG_FILE_BYTES_MAX
from stowkeeper.app.setting_fields import (
    VARIABLE_PREFIX,
    Origin,
    OriginKind,
    Setting,
    describe,
    describe_entry,
)
from stowkeeper.app.setting_problems import Problem, guess_setting, problems_of, unknown_setting
from stowkeeper.app.setting_values import shown
from stowkeeper.app.settings_of_events import EventTargetSettings, ExportFolderSettings
from stowkeeper.app.settings_of_forwarding import ForwardingRuleSettings
from stowkeeper.app.settings_of_origin_servers import OriginServerSettings
from stowkeeper.app.settings_of_peers import Peer
from stowkeeper.app.settings_of_profiles import Profile, ProfileContext
from stowkeeper.app.settings_of_retention import RetentionRuleSettings
from stowkeeper.app.settings_tables import Settings

CONFIG_VARIABLE = "STOWKEEPER_CONFIG"
"""Names the settings file, as --config does."""

STOW_CREDENTIAL_VARIABLE = "STOWKEEPER_STOW_TOKEN"
"""Holds the bearer token of `stowkeeper stow`."""

OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, STOW_CREDENTIAL_VARIABLE})
"""Variables with our prefix that are no settings."""

RULES = frozenset({"forwarding_rules", "retention_rules"})
"""Lists of tables that are rules."""

_KUBERNETES_NAME = re.compile(
    r"STOWKEEPER_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KEY_AS_TUPLE = re.compile(
    r"""\((?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?:, ?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))*,?\)"""
)
_TRUTHS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@cache
def all_settings() -> Mapping[str, Setting]:
    """Return every setting by its dotted name, those above all tables first."""
    return describe(Settings)


@cache
def entry_settings() -> Mapping[str, Mapping[str, Setting]]:
    """Return the keys of the tables that stand in lists, such as `[[peers]]`, by the dotted name of the list."""
    return {
        "profiles": describe_entry(Profile),
        "profiles.contexts": describe_entry(ProfileContext),
        "peers": describe_entry(Peer),
        "origin_servers": describe_entry(OriginServerSettings),
        "forwarding_rules": describe_entry(ForwardingRuleSettings),
        "retention_rules": describe_entry(RetentionRuleSettings),
        "event_targets": describe_entry(EventTargetSettings),
        "export_folders": describe_entry(ExportFolderSettings),
    }


@dataclass(slots=True)
class Source:
    """What one source gives: values by dotted key, and where each stands; of a file its text too.

    Relative paths among the values count from `folder`.
    """

    kind: OriginKind
    folder: str
    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    text: str = ""

    def add(self, setting: Setting, value: object, name: str) -> None:
        """Take a value in; `name` is that of the file, the variable or the flag."""
        if setting.shape == "path":
            value = self._absolute(value)
        elif setting.shape == "paths" and isinstance(value, list):
            value = [self._absolute(entry) for entry in value]
        elif setting.shape == "tables" and isinstance(value, list):
            value = [self._absolute_within(entry, entry_settings()[setting.key]) for entry in value]
        self.values[setting.key] = value
        self.origins[setting.key] = Origin(kind=self.kind, name=name)

    def _absolute(self, path: object) -> object:
        """Return a path from the root on; what is none is for the check to judge."""
        if not isinstance(path, str) or not path or "\0" in path:
            return path
        return os.path.abspath(os.path.join(self.folder, os.path.expanduser(path)))

    def _absolute_within(self, entry: object, settings: Mapping[str, Setting]) -> object:
        """Return an entry of a list of tables with its paths from the root on."""
        if not isinstance(entry, dict):
            return entry
        paths = {name for name, setting in settings.items() if setting.shape == "path"}
        return {name: self._absolute(value) if name in paths else value for name, value in entry.items()}

    def place_of(self, key: str) -> str:
        """Name the place of a key that this source gives."""
        return self.origins[key].place_of(key)

    def check(self) -> Iterator[Problem]:
        """Yield what the models find wrong with these values."""
        try:
            Settings.model_validate(nested(self.values))
        except ValidationError as error:
            for problem in problems_of(error, self.place_of, all_settings(), entry_settings()):
                named = self._with_rule(problem)
                yield named if self.kind is OriginKind.FILE else replace(named, path=())

    def _with_rule(self, problem: Problem) -> Problem:
        """Name the rule that a problem is in: of these there can be many, and people know them by their names."""
        table, *rest = problem.path
        if table not in RULES or not rest or not isinstance(rest[0], int):
            return problem
        entry = cast("list[object]", self.values[table])[rest[0]]
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            return problem
        number = f", entry {rest[0] + 1}"
        return replace(problem, place=problem.place.replace(number, f"{number} {shown(name)}", 1))


def nested(values: Mapping[str, object]) -> dict[str, object]:
    """Return values by dotted key as the models take them: a mapping for each table."""
    tables: dict[str, dict[str, object]] = {}
    above: dict[str, object] = {}
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        (tables.setdefault(table, {}) if table else above)[name] = value
    return {**above, **tables}


def read_flags(overrides: Mapping[str, object]) -> Source:
    """Read what the flags say, by dotted key; None is a flag that was not given."""
    source = Source(OriginKind.FLAG, os.getcwd())
    for key, value in overrides.items():
        if value is not None:
            setting = all_settings()[key]
            read = value_of_text(value, setting) if isinstance(value, str) else value
            source.add(setting, read, setting.flag or key)
    return source


def read_variables(environment: Mapping[str, str], problems: list[Problem]) -> Source:
    """Read the variables that are settings; add a problem for each that looks like one and is none."""
    source = Source(OriginKind.ENVIRONMENT, os.getcwd())
    by_variable = {setting.variable: setting for setting in all_settings().values()}
    for name, text in environment.items():
        if not name.startswith(VARIABLE_PREFIX) or name in OTHER_VARIABLES:
            continue
        if name in by_variable:
            setting = by_variable[name]
            source.add(setting, value_of_text(text, setting), name)
        elif not _is_from_kubernetes(name, text):
            problems.append(Problem(place=name, text=_unknown_variable(name)))
    return source


def _is_from_kubernetes(name: str, text: str) -> bool:
    """Tell whether a variable is one that Kubernetes sets in every pod beside a service `stowkeeper…`."""
    if "__" in name:
        return False
    return _KUBERNETES_NAME.fullmatch(name) is not None or (name.endswith("_PORT") and "://" in text)


def _unknown_variable(name: str) -> str:
    bare = name.removeprefix(VARIABLE_PREFIX).lower()
    # One underscore where two are due is the likely mistake: try every place where the dot may have been.
    splits = [bare.split("__", 1)] if "__" in bare else [["", bare]]
    splits += [[bare[: at.start()], bare[at.end() :]] for at in re.finditer("_", bare)]
    for table, key in splits:
        guess = guess_setting(table, key, tuple(all_settings().values()))
        if guess is not None:
            return f"there is no such setting; did you mean {guess.variable}?"
    return "there is no such setting; a variable is STOWKEEPER_TABLE__KEY, such as STOWKEEPER_DICOM__PORT"


def value_of_text(text: str, setting: Setting) -> object:
    """Read the text of a variable, a flag or a command as the kind of value that the setting has.

    Text that is none of the kind is given back as it is: the check then says what is allowed.
    """
    stripped = text.strip()
    match setting.shape:
        case "truth":
            return _TRUTHS.get(stripped.lower(), text)
        case "whole" | "number":
            return _number_of(stripped, whole=setting.shape == "whole", otherwise=text)
        case "size":
            return _number_of(stripped, whole=True, otherwise=text)
        case "list" | "paths" | "tables":
            return _list_of(stripped, setting)
        case _:
            return text


def _number_of(text: str, *, whole: bool, otherwise: str) -> object:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        return otherwise


def _list_of(text: str, setting: Setting) -> object:
    if text in setting.choices:
        return text
    if text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    if text.startswith("{"):
        return _table_of(text)
    if setting.shape == "tables":
        return text
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _table_of(text: str) -> object:
    """Read a table as TOML has it in one line, or as JSON; text that is neither is given back."""
    try:
        return tomllib.loads(f"table = {text}")["table"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_file(
    path: Path | None, problems: list[Problem], *, may_name_archive: bool, content: bytes | None = None
) -> Source:
    """Read a settings file, if there is one; add a problem for what is unknown or cannot be read.

    `content` stands for what the file holds, where it is not to be read.
    """
    source = Source(OriginKind.FILE, str(path.parent) if path else "")
    if path is None:
        return source
    try:
        source.text = text_of(read_content(path) if content is None else content)
        tables = parse(source.text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, PermissionError):
            reason = f"{reason}. Run this as the user who owns the archive, or let this user read the file"
        problems.append(Problem(place=str(path), text=f"it cannot be read: {reason}"))
        return source
    known = tuple(all_settings().values())
    table_names = {setting.table for setting in known if setting.table}
    for table, name, value in _entries_of(tables, table_names):
        key = f"{table}.{name}" if table else name
        text = ""
        if name in table_names and not table:
            text = f"it is a table: write [{name}], and its keys below"
        elif key not in all_settings():
            text = unknown_setting(table, name, known)
        elif key == "archive" and not may_name_archive:
            text = "this file was found by the archive folder it lies in, so it cannot name one: use --config"
        if text:
            within = (table, name) if table else (name,)
            problems.append(Problem(place=f"{path}: {key}", text=text, path=within))
        else:
            source.add(all_settings()[key], value, str(path))
    return source


def _entries_of(tables: Mapping[str, object], table_names: set[str]) -> Iterator[tuple[str, str, object]]:
    for name, value in tables.items():
        if isinstance(value, dict) and name in table_names:
            yield from ((name, inner, entry) for inner, entry in value.items())
        elif isinstance(value, dict) and name not in all_settings():
            # A table that does not exist: one problem for each of its keys, so that each gets its guess.
            yield from ((name, inner, entry) for inner, entry in value.items())
            if not value:
                yield "", name, value
        else:
            yield "", name, value


def read_content(path: Path) -> bytes:
    """Return what a settings file holds. Raises OSError, and ValueError where it is too large for one."""
    with open(path, "rb") as stream:
        content = stream.read(CONFIG_FILE_BYTES_MAX + 1)
    if len(content) > CONFIG_FILE_BYTES_MAX:
        raise ValueError(f"it has more than {CONFIG_FILE_BYTES_MAX} bytes, it is no settings file")
    return content


def text_of(content: bytes) -> str:
    """Return the text of a settings file, without a byte order mark. Raises ValueError where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8, as TOML must be") from None


def parse(text: str) -> dict[str, object]:
    """Return what a settings file says. Raises ValueError, which names line and column, where it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML: {_in_plain_words(str(error))}") from None


def _in_plain_words(said: str) -> str:
    """Write keys as they stand in a file: the parser shows the parts of a key as a tuple of Python."""
    return _KEY_AS_TUPLE.sub(lambda found: ".".join(ast.literal_eval(found[0])), said)
