"""What else lies in the folder of an archive that is still to be made: judged alike by whoever makes one and whoever looks."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Final

from stowkeeper.app.settings import Settings
from stowkeeper.archive.folder import foreign_names

_NAMED_MAX: Final = 3
"""How many things a sentence names."""


def foreign_things(settings: Settings) -> str:
    """Say what keeps the folder that the settings name from becoming an archive's; '' where nothing does.

    A folder that is not there, or is an archive, is none of that; nor is what the settings themselves name in it, such as
    the file of a secret. Raises OSError where it cannot be looked into.
    """
    folder = os.path.abspath(settings.archive)
    if not os.path.isdir(folder):
        return ""
    ours = {PurePath(path).relative_to(folder).parts[0] for path in _paths_below(folder, settings)}
    foreign = sorted(set(foreign_names(os.listdir(folder))) - ours)
    if not foreign:
        return ""
    named = ", ".join(foreign[:_NAMED_MAX])
    more = len(foreign) - _NAMED_MAX
    return f"{folder} is no archive and holds {named}{f' and {more} more' if more > 0 else ''}"


def _paths_below(folder: str, settings: Settings) -> Iterator[str]:
    """Yield the values of all settings that are paths in a folder. Loaded settings have them from the root on."""
    start = f"{folder}{os.sep}"
    return (text for text in _texts(settings.model_dump()) if text.startswith(start) and text != start)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(value.values())
    elif isinstance(value, Iterable):
        for entry in value:
            yield from _texts(entry)
