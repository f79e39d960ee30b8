"""What is wrong with settings, in sentences: each problem with its place, the allowed values and a guess."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stowkeeper.app.setting_fields import Setting
from stowkeeper.app.setting_values import shown
from stowkeeper.app.toml_positions import Path, position_of, positions_of

CLOSE_ENOUGH = 0.6
"""How alike two names must be for a guess (difflib's ratio): high enough that guesses are not silly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: where a person mends it, and what it is.

    `path` is the key in the settings file, empty where it is not of one; `line` and `column` are where it stands, 0 where that
    is not known.
    """

    place: str
    text: str
    path: Path = ()
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"

    @property
    def sentence(self) -> str:
        """The problem with its line and column."""
        return f"{self} (line {self.line}, column {self.column})" if self.line else str(self)


class SettingsError(Exception):
    """The settings cannot be put in force. Its text lists every problem found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        sentences = [problem.sentence for problem in self.problems]
        super().__init__("\n  ".join([f"{count} in the settings:", *sentences]))


def located(problems: Iterable[Problem], text: str) -> Iterator[Problem]:
    """Give the problems of a settings file, whose text this is, their lines and columns."""
    positions: dict[Path, tuple[int, int]] | None = None
    for problem in problems:
        if not problem.path or not text:
            yield problem
            continue
        positions = positions_of(text) if positions is None else positions
        line, column = position_of(problem.path, positions) or (0, 0)
        yield replace(problem, line=line, column=column)


def problems_of(
    error: ValidationError,
    place_of: Callable[[str], str],
    settings: Mapping[str, Setting],
    entries: Mapping[str, Mapping[str, Setting]],
) -> Iterator[Problem]:
    """Put what the models found wrong into sentences; `place_of` names the place of a dotted key.

    `entries` are the keys of the tables that stand in lists, by the dotted name of the list.
    """
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        table = str(location[0])
        if table in entries and len(location) > 1:
            found = _entry_problem(detail, location[1:], place_of(table), table, entries)
        else:
            key = ".".join(str(part) for part in location if isinstance(part, str))
            found = Problem(place=place_of(key), text=_text_of(detail, settings[key]))
        yield replace(found, path=location)


def unknown_setting(table: str, name: str, known: Sequence[Setting]) -> str:
    """Say that there is no such setting, and which one may be meant."""
    guess = guess_setting(table, name, known)
    if guess is not None:
        return f"there is no such setting; did you mean {guess.key}?"
    names = [setting.name for setting in known if setting.table == table]
    if table and names:
        return f"there is no such setting; [{table}] has {', '.join(names)}"
    tables = sorted({setting.table for setting in known if setting.table})
    above = [setting.name for setting in known if not setting.table]
    return f"there is no such setting; above all tables stand {', '.join(above)}, and the tables are {', '.join(tables)}"


def guess_setting(table: str, name: str, known: Sequence[Setting]) -> Setting | None:
    """Return the setting that a person may have meant by a table and a name, if one comes to mind."""
    elsewhere = [setting for setting in known if setting.name == name]
    if elsewhere:
        return elsewhere[0]
    tables = {setting.table for setting in known}
    meant = table if table in tables else _closest(table, tables)
    here = {setting.name: setting for setting in known if setting.table == meant}
    close = _closest(name, here)
    return None if close is None else here[close]


def _closest(word: str, choices: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=CLOSE_ENOUGH)
    return found[0] if found else None


def _entry_problem(
    detail: ErrorDetails,
    location: Sequence[int | str],
    place: str,
    table: str,
    entries: Mapping[str, Mapping[str, Setting]],
) -> Problem:
    """Say what is wrong in a list of tables; `location` is the number of the entry and what lies below it."""
    number, *rest = location
    keys = entries[table]
    entry = f"{place}, entry {int(number) + 1}"
    if not rest:
        return Problem(place=entry, text=_reason_of(detail) or "it must be a table")
    name = str(rest[0])
    if name not in keys:
        close = _closest(name, keys)
        hint = f"did you mean {close}?" if close else f"[[{table}]] has {', '.join(keys)}"
        return Problem(place=f"{entry}: {name}", text=f"there is no such setting; {hint}")
    within = f"{table}.{name}"
    if within in entries and len(rest) > 1:
        return _entry_problem(detail, rest[1:], f"{entry}: {name}", within, entries)
    return Problem(place=f"{entry}: {name}", text=_text_of(detail, keys[name]))


def _text_of(detail: ErrorDetails, setting: Setting) -> str:
    if detail["type"] == "missing":
        return "it must be given"
    said = _reason_of(detail)
    if said is None:
        said = f"{shown(detail['input'])} is not allowed"
        close = _closest(str(detail["input"]), setting.choices)
        if close is not None:
            said += f'; did you mean "{close}"?'
    return f"{said}{'' if said.endswith('?') else ';'} allowed: {setting.allowed.replace('`', '')}"


def _reason_of(detail: ErrorDetails) -> str | None:
    """Return the sentence of one of our own checks; None when it was a check of the type or a bound."""
    return str(detail["ctx"]["error"]) if detail["type"] == "value_error" else None
