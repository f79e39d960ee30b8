"""How a setting is described: its meaning, what it allows, and where a value came from.

`describe` makes the descriptions from the models, so that error messages, the reference page, the flags and
`check-config` say the same of a setting.
"""

import json
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType
from typing import Annotated, Literal, Self, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stowkeeper.app.setting_values import format_size
from stowkeeper.dcmtk.settings_text import toml_string

VARIABLE_PREFIX = "STOWKEEPER_"
RELOADABLE = frozenset(
    {
        "access",
        "dicom.proxy_protocol_from",
        "event_targets",
        "export_folders",
        "forwarding_rules",
        "http.certificate",
        "http.key",
        "log",
        "negotiation",
        "origin_servers",
        "peers",
        "profiles",
        "retention_rules",
        "tls",
    }
)
"""Tables and keys that SIGHUP puts in force without a restart."""

Shape = Literal["truth", "whole", "number", "text", "path", "paths", "size", "mode", "list", "tables"]


class OriginKind(StrEnum):
    """Where a value came from, in the order of growing weight."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


def is_among(key: str, names: AbstractSet[str]) -> bool:
    """Tell whether a setting is one of some tables and keys, or in such a table."""
    return key in names or key.partition(".")[0] in names


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value came from: the kind, and the path of the file, the name of the variable or the flag."""

    kind: OriginKind
    name: str

    @classmethod
    def of_default(cls) -> Self:
        """Return the origin of a value that nobody set."""
        return cls(kind=OriginKind.DEFAULT, name="")

    def place_of(self, key: str) -> str:
        """Name the place of a setting as a person finds it: `FILE: dicom.port`, a variable, or a flag."""
        return f"{self.name}: {key}" if self.kind is OriginKind.FILE else self.name or key

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name}".rstrip()


class Table(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class About:
    """What a model says of a setting beside its type and bounds.

    `allowed` is for values that type and bounds do not describe, `flag_help` for a flag that says the opposite.
    """

    description: str
    allowed: str = ""
    flag: str = ""
    flag_help: str = ""
    shape: Shape | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as it is described to people. `table` is empty for the keys above all tables."""

    table: str
    name: str
    description: str
    default: object
    allowed: str
    choices: tuple[str, ...]
    flag: str
    flag_help: str
    shape: Shape

    @property
    def key(self) -> str:
        """The dotted name, such as `dicom.port`."""
        return f"{self.table}.{self.name}" if self.table else self.name

    @property
    def variable(self) -> str:
        """The environment variable. Two underscores stand for the dot.

        One would not do: Kubernetes sets STOWKEEPER_DICOM_PORT in every pod beside a service `stowkeeper-dicom`.
        """
        return VARIABLE_PREFIX + self.key.replace(".", "__").upper()

    @property
    def reloadable(self) -> bool:
        """Whether SIGHUP puts a new value in force."""
        return is_among(self.key, RELOADABLE)

    def plain(self, value: object) -> object:
        """Return a value of this setting as TOML or JSON would hold it."""
        match self.shape:
            case "size":
                shown = format_size(cast("int", value))
                return int(shown) if shown.isdigit() else shown
            case "mode":
                return "" if value is None else f"{value:04o}"
            case "list" if isinstance(value, Mapping):
                return {name: [str(entry) for entry in entries] for name, entries in value.items()}
            case "list" | "paths" if not isinstance(value, str) and value is not None:
                return [str(entry) for entry in cast("tuple[object, ...]", value)]
            case "number":
                number = cast("float", value)
                return int(number) if number.is_integer() else number
            case "tables":
                return [
                    entry.model_dump(mode="json", exclude_unset=True)
                    for entry in cast("tuple[BaseModel, ...]", value)
                ]
            case _:
                return value


def describe(model: type[BaseModel]) -> Mapping[str, Setting]:
    """Return the settings of a model by their dotted names, those above all tables first."""
    found = sorted(_walk(model), key=lambda setting: bool(setting.table))
    return {setting.key: setting for setting in found}


def describe_entry(model: type[BaseModel]) -> Mapping[str, Setting]:
    """Return the keys of a model whose tables stand in a list, such as `[[peers]]`."""
    return {setting.name: setting for setting in _walk(model)}


def toml_text(value: object) -> str:
    """Write a plain value as TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(toml_text(entry) for entry in value) + "]"
    if isinstance(value, Mapping):
        # The keys are words: keywords of attributes.
        return "{" + ", ".join(f"{name} = {toml_text(entry)}" for name, entry in value.items()) + "}"
    # JSON has other escapes for characters beyond 16 bits and none for DEL; its numbers and truth values are TOML's.
    return toml_string(value) if isinstance(value, str) else json.dumps(value)


def _walk(model: type[BaseModel], table: str = "") -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, name)
        else:
            yield _setting_of(table, name, field)


def _setting_of(table: str, name: str, field: FieldInfo) -> Setting:
    about = next(entry for entry in field.metadata if isinstance(entry, About))
    shape = about.shape or _shape_of(field.annotation)
    choices = _choices_of(field.annotation)
    return Setting(
        table=table,
        name=name,
        description=about.description,
        default=None if field.default is PydanticUndefined else field.default,
        allowed=about.allowed or _allowed_of(shape, choices, field),
        choices=choices,
        flag=about.flag,
        flag_help=about.flag_help or about.description,
        shape=shape,
    )


def _shape_of(annotation: object) -> Shape:
    kinds = [part for part in get_args(annotation) if part is not NoneType]
    if len(kinds) == 1 and NoneType in get_args(annotation):  # what need not be given
        return _shape_of(get_args(kinds[0])[0] if get_origin(kinds[0]) is Annotated else kinds[0])
    if annotation is bool:
        return "truth"
    if annotation is int:
        return "whole"
    if annotation is float:
        return "number"
    listed = [part for part in (annotation, *get_args(annotation)) if get_origin(part) is tuple]
    if not listed:
        return "text"
    entry = get_args(listed[0])[0]
    return "tables" if isinstance(entry, type) and issubclass(entry, BaseModel) else "list"


def _choices_of(annotation: object) -> tuple[str, ...]:
    parts = (annotation, *get_args(annotation))
    return tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))


def _allowed_of(shape: Shape, choices: tuple[str, ...], field: FieldInfo) -> str:
    if shape == "truth":
        return "`true` or `false`"
    if choices:
        return ", ".join(f'`"{word}"`' for word in choices)
    lowest, highest = _bound_of(field, "ge"), _bound_of(field, "le")
    if shape == "size":
        return f"a size from {format_size(int(lowest))} to {format_size(int(highest))}"
    if shape == "whole":
        return f"a whole number from {lowest} to {highest}"
    return f"a number from {lowest:g} to {highest:g}"


def _bound_of(field: FieldInfo, name: str) -> float:
    bounds: list[float] = [getattr(entry, name) for entry in field.metadata if hasattr(entry, name)]
    return bounds[0]
