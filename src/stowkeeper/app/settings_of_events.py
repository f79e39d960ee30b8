"""The settings of events: the table `[events]`, and who is told: the tables `[[event_targets]]` and `[[export_folders]]`."""

import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_values import FileMode, FilePath, SomePath, Words, entries, shown
from stowkeeper.services.events.document import PLACES
from stowkeeper.services.events.export import EXPORT_PLACES
from stowkeeper.services.events.feed import EventKind
from stowkeeper.services.events.limits import (
    AT_ONCE_MAX,
    GIVE_UP_HOURS_MAX,
    QUIET_SECONDS_MAX,
    QUIET_SECONDS_MIN,
    SECONDS_MAX,
    TARGETS_MAX,
)

if TYPE_CHECKING:
    from stowkeeper.app.settings_tables import Settings

_KINDS_TEXT = ", ".join(f'`"{kind}"`' for kind in EventKind)


def _parse_kinds(value: object) -> tuple[EventKind, ...]:
    found = []
    for word in entries(value):
        try:
            found.append(EventKind(str(word)))
        except ValueError:
            known = ", ".join(EventKind)
            raise ValueError(f"{shown(word)} is no event; there are {known}") from None
    return tuple(found)


class EventsSettings(Table):
    """What is told of the archive to others, whom `[[event_targets]]` name."""

    study_quiet_seconds: Annotated[
        float,
        Field(ge=QUIET_SECONDS_MIN, le=QUIET_SECONDS_MAX, allow_inf_nan=False),
        About(
            "Time without an arrival after which a study is quiet. What comes later begins its next revision, which will be"
            " quiet again."
        ),
    ] = 60.0


class EventTargetSettings(Table):
    """Somebody who is told of events: by a command, at a URL, or by files in a folder. It has one of these three.

    It is told of what happens from its first start on; `stowkeeper events replay` tells of what was before.
    """

    name: Annotated[
        str,
        Field(min_length=1, max_length=limits.PEER_NAME_LETTERS_MAX, pattern=r"^[!-~]([ -~]*[!-~])?$"),
        About(
            "Name of the target in logs and lists; no two share one. How far it was told is kept by this name.",
            allowed=f"1 to {limits.PEER_NAME_LETTERS_MAX} printable ASCII characters",
        ),
    ]
    events: Annotated[
        tuple[EventKind, ...],
        BeforeValidator(_parse_kinds),
        Field(min_length=1),
        About("What it is told of.", allowed=f"a list of {_KINDS_TEXT}", shape="list"),
    ]
    command: Annotated[
        Words,
        About(
            "Program that is started for each event, and its arguments. In them the name of a value in braces, such as"
            " `{study_instance_uid}`, stands for the value; `docs/events.md` lists them. No shell reads it.",
            allowed='a list of text, such as `["/usr/local/bin/route", "{study_instance_uid}"]`',
        ),
    ] = ()
    url: Annotated[
        str,
        About("Where each event is posted, as JSON.", allowed="a URL that begins with http:// or https://"),
    ] = ""
    secret_file: Annotated[
        FilePath,
        About(
            "File with the secret by which posts to `url` are signed. Empty: they are not signed.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    ca_file: Annotated[
        FilePath,
        About(
            "File in PEM with certificates of the authorities by one of which the server of an https `url` has to be known."
            " Empty: those that the machine trusts.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    folder: Annotated[
        FilePath,
        About(
            "Folder in which a file of JSON is written for each event. It has to be there.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    seconds: Annotated[
        float,
        Field(ge=limits.SECONDS_MIN, le=SECONDS_MAX, allow_inf_nan=False),
        About("Time for one event to be delivered. A command that takes longer is ended."),
    ] = 30.0
    at_once: Annotated[
        int,
        Field(ge=1, le=AT_ONCE_MAX),
        About(
            "Events that it may get at the same time. Those of one study always come one after the other, in order."
        ),
    ] = 4
    give_up_hours: Annotated[
        float,
        Field(ge=0, le=GIVE_UP_HOURS_MAX, allow_inf_nan=False),
        About(
            "Hours for which an event that fails is tried again. Then it is passed by, and the log says so."
        ),
    ] = 72.0

    @model_validator(mode="after")
    def _check_that_it_makes_sense(self) -> Self:
        given = [name for name in ("command", "url", "folder") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"a target has one of command, url and folder, and this one has {found}")
        parts = urlsplit(self.url)
        if self.url and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError(
                f"{shown(self.url)} is no URL that begins with http:// or https:// and names a host"
            )
        if parts.username is not None:
            raise ValueError(
                "url holds a user or a password, which everyone sees who may read the settings: use secret_file"
            )
        for name in ("secret_file", "ca_file"):
            if getattr(self, name) and not self.url:
                raise ValueError(f"{name} is for what is posted to a url: give the url too")
        for argument in self.command:
            _check_places(argument, (*PLACES, "archive"))
        return self


class ExportFolderSettings(Table):
    """A folder in which programs find a copy of each instance that is received, for those that watch one.

    It is told of what is received from its first start on, as an `[[event_targets]]` is; `stowkeeper events replay` copies what
    was received before.
    """

    name: Annotated[
        str,
        Field(min_length=1, max_length=limits.PEER_NAME_LETTERS_MAX, pattern=r"^[!-~]([ -~]*[!-~])?$"),
        About(
            "Name of the folder in logs and lists; no two share one, nor one with an event target.",
            allowed=f"1 to {limits.PEER_NAME_LETTERS_MAX} printable ASCII characters",
        ),
    ]
    folder: Annotated[
        SomePath,
        About(
            "The folder, outside of the archive. It has to be there: one that is gone may be a disk that is away.",
            allowed="a path",
            shape="path",
        ),
    ]
    template: Annotated[
        str,
        About(
            "Name of a copy within the folder. Names in braces stand for values, and a slash makes folders:"
            f" {', '.join(f'`{{{name}}}`' for name in EXPORT_PLACES)}.",
            allowed="text with `{sop_instance_uid}` in it",
        ),
    ] = "{sop_instance_uid}{ext}"
    extension: Annotated[
        str,
        Field(pattern=r"^(\.[A-Za-z0-9_-]{1,16})?$"),
        About("What `{ext}` stands for.", allowed="a dot and up to 16 letters and digits, or nothing"),
    ] = ".dcm"
    mode: Annotated[
        FileMode,
        About(
            "Permissions of the copies, whatever the umask says. `world` lets every user of the machine read them, as a program that"
            " watches the folder under another account may need.",
            allowed='`"owner"`, `"group"`, `"world"`, or text of octal digits, such as `"0640"`: the owner reads and writes,'
            " nobody executes",
            shape="mode",
        ),
    ] = 0o640
    at_once: Annotated[
        int,
        Field(ge=1, le=AT_ONCE_MAX),
        About("Copies that are made at the same time, of different studies."),
    ] = 2
    give_up_hours: Annotated[
        float,
        Field(ge=0, le=GIVE_UP_HOURS_MAX, allow_inf_nan=False),
        About("Hours for which a copy that fails is tried again. Then it is passed by, and the log says so."),
    ] = 72.0

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        template = self.template
        if "{sop_instance_uid}" not in template:
            raise ValueError("template needs {sop_instance_uid}: else instances would replace each other")
        parts = template.split("/")
        if (
            template.startswith("/")
            or not all(parts)
            or any(part.startswith(".") for part in parts)
            or "\0" in template
        ):
            raise ValueError("template is a path within the folder, of names that begin with no dot")
        _check_places(template, EXPORT_PLACES)
        return self


def _check_places(argument: str, known: Collection[str]) -> None:
    """Raise ValueError where braces hold a word that looks like the name of a value, and is none."""
    for part in argument.split("{")[1:]:
        name, closing, _ = part.partition("}")
        is_name = closing and name.replace("_", "a").isalpha() and name.islower()
        if is_name and name not in known:
            raise ValueError(f"{{{name}}} is none of the values there are: {', '.join(known)}")


def event_contradictions(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Yield each key of these tables that contradicts another, and how."""
    names = [target.name for target in settings.event_targets]
    names += [folder.name for folder in settings.export_folders]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "event_targets", f'several targets or export folders have the name "{name}"'
    archive = os.path.realpath(settings.archive)
    places = [("event_targets", target.name, target.folder) for target in settings.event_targets]
    places += [("export_folders", folder.name, folder.folder) for folder in settings.export_folders]
    for key, name, place in places:
        if place and os.path.commonpath([archive, os.path.realpath(place)]) == archive:
            yield key, f'the folder of "{name}" is within the archive: name one outside of it'
    if len(names) > TARGETS_MAX:
        yield "event_targets", f"there are {len(names)} targets, {TARGETS_MAX} are allowed"
