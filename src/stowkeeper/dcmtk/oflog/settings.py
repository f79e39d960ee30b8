"""Typed access to the properties below `log4cplus.`, which also finds those that nobody asked for.

A value that cannot be used is reported and counts as not there: DCMTK says nothing about it, and goes on in the same
way. So does a key that nothing knows.
"""

import re
from collections.abc import Mapping
from typing import Final

from stowkeeper.dcmtk.limits import INTEGER_MAX
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.levels import level_named

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_WORDS: Final = {"true": True, "false": False}


class Settings:
    """The properties whose keys begin in one way, such as those of one appender.

    `below` gives those of a part. All that come from one file share what was asked for.
    """

    def __init__(self, values: Mapping[str, str], prefix: str, complaints: Complaints) -> None:
        self._values = values
        self._prefix = prefix
        self._complaints = complaints
        self._asked: set[str] = set()
        """Keys that mean something, whether or not they are there."""

    def below(self, prefix: str) -> "Settings":
        """Return the settings whose keys go on in this way."""
        part = Settings(self._values, self._prefix + prefix, self._complaints)
        part._asked = self._asked
        return part

    def name(self, key: str) -> str:
        """Return the whole name of a key."""
        return self._prefix + key

    def names(self) -> list[str]:
        """Return all keys below the prefix, in order."""
        return sorted(key.removeprefix(self._prefix) for key in self._values if key.startswith(self._prefix))

    def has(self, key: str) -> bool:
        """Tell whether there is a key, even with an empty value."""
        self._asked.add(self._prefix + key)
        return self._prefix + key in self._values

    def text(self, key: str, default: str = "") -> str:
        """Return a value as it stands."""
        self._asked.add(self._prefix + key)
        return self._values.get(self._prefix + key, default)

    def boolean(self, key: str, *, default: bool = False) -> bool:
        """Return a truth value: `true` or `false` in any case, or a number, where 0 means false."""
        text = self.text(key)
        if not self.has(key):
            return default
        if (word := _WORDS.get(text.lower())) is not None:
            return word
        if _INTEGER.fullmatch(text):
            return int(text) != 0
        self.complain(key, f"'{text}' is neither true nor false, has no effect")
        return default

    def integer(self, key: str, default: int, *, minimum: int, maximum: int = INTEGER_MAX) -> int:
        """Return a whole number. One out of range counts as the nearest in it."""
        text = self.text(key)
        if not self.has(key):
            return default
        if not _INTEGER.fullmatch(text):
            self.complain(key, f"'{text}' is not a number, has no effect")
            return default
        return self.bounded(key, int(text), minimum=minimum, maximum=maximum)

    def bounded(self, key: str, number: int, *, minimum: int, maximum: int = INTEGER_MAX) -> int:
        """Return the nearest number in a range, and report it where that is another."""
        nearest = min(max(number, minimum), maximum)
        if nearest != number:
            self.complain(key, f"{number} is out of range, {nearest} is taken")
        return nearest

    def level(self, key: str) -> LogLevel | None:
        """Return a level, None where there is none."""
        text = self.text(key)
        level = level_named(text)
        if self.has(key) and level is None:
            self.complain(key, f"'{text}' is not a level, has no effect")
        return level

    def complain(self, key: str, text: str) -> None:
        """Report one key."""
        self._complaints.warn(f"{self._prefix}{key}: {text}")

    def complain_of_part(self, key: str, text: str) -> None:
        """Report a part that is left out, with all its settings."""
        self._complaints.error(f"{self._prefix}{key}: {text}")
        name = self._prefix + key
        self._asked.update(other for other in self._values if other.startswith(f"{name}."))

    def complain_of_unknown(self) -> None:
        """Report every key that nobody asked for, and what it may have been meant to be."""
        right = {name.lower(): name for name in self._asked}
        for key in self.names():
            if self.name(key) not in self._asked:
                meant = right.get(self.name(key).lower())
                advice = f"; the key is {meant}" if meant else ""
                self.complain(key, f"unknown, has no effect{advice}")
