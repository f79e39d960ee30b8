"""What a command line selects: which options are in effect, whether they go together, and their values.

A program checks its options stage by stage, in the order of its table, and reports the first error. In a block of
options that exclude each other the rightmost is in effect. DCMTK looks at the members of a block in a fixed order and
skips those to the left of one it has found, so that a member can be checked although another one overrides it: that is
kept, since it decides which command lines are refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, TypeVar

from stowkeeper.dcmtk.grammar import (
    CommandLine,
    CommandLineError,
    Integers,
    NotWith,
    OnlyWith,
    Option,
    OptionTable,
    Value,
    missing_port,
)
from stowkeeper.dcmtk.limits import INTEGER_MAX

Kind = TypeVar("Kind")
Member = TypeVar("Member", bound=Enum)

PORT: Final = Integers(minimum=1, maximum=65535)

_LEADING_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?)([0-9]+)")
_DIGITS_MAX = len(str(INTEGER_MAX))


def leading_integer(text: str) -> int | None:
    """Return the integer that a text begins with, behind blanks; None when it begins with something else.

    What follows the digits does not matter: `104abc` is 104, `0x68` is 0. Beyond INTEGER_MAX it is that bound.
    """
    found = _LEADING_INTEGER.match(text)
    if found is None:
        return None
    digits = found[2].lstrip("0") or "0"
    magnitude = INTEGER_MAX if len(digits) > _DIGITS_MAX else min(int(digits), INTEGER_MAX)
    return -magnitude if found[1] == "-" else magnitude


def _defect(number: int, allowed: Integers) -> str:
    if number < allowed.minimum:
        return "underflow"
    if allowed.maximum is not None and number > allowed.maximum:
        return "overflow"
    return ""


def option_integer(option: Option, text: str, allowed: Integers) -> int:
    """Return an option's value as an integer. Raises CommandLineError that names the option and the value.

    A value that takes no sign is wrong with a minus, even as `-0`.
    """
    complaint = f"Invalid value for option {option.long}"
    number = leading_integer(text)
    if number is None or (not allowed.signed and text.lstrip(" \t\n\v\f\r").startswith("-")):
        raise CommandLineError(f"{complaint} ({text})" if text else complaint)
    if defect := _defect(number, allowed):
        raise CommandLineError(f"{complaint} ({defect}: {text})")
    return number


def port_number(text: str) -> int:
    """Return the port parameter, 1 to 65535. Raises CommandLineError; a negative one counts as too large."""
    number = leading_integer(text)
    if number is None:
        raise CommandLineError(f"Invalid parameter value {text}")
    defect = "overflow" if number < 0 else _defect(number, PORT)
    if defect:
        raise CommandLineError(f"Invalid parameter value {text} ({defect})")
    return number


def alternatives(names: Sequence[str], last_joined_by: str = "or") -> str:
    """Join one name or more as a message does: `a, b or c`."""
    return f" {last_joined_by} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def by_option(kinds: type[Member]) -> dict[str, Member]:
    """Return the members of an enumeration whose values are long names of options, by those names."""
    return {kind.value: kind for kind in kinds}


class Selection:
    """The options of one command line, as its table sees them.

    Call `check` for every stage in turn; the values of a stage may be asked for behind its check. `silence` makes the
    errors of all later checks silent ones.
    """

    def __init__(self, table: OptionTable, command_line: CommandLine) -> None:
        self._table = table
        self._line = command_line
        self._is_silent = False
        self._effective = frozenset(self._effective_options())

    def _effective_options(self) -> Iterator[str]:
        for block in self._table.blocks():
            given = max(block, key=self._line.position)
            if self._line.has(given):
                yield given
            else:
                yield from (long for long in block if self._option(long).is_default)

    def _option(self, long: str) -> Option:
        option = self._table.find(long)
        if option is None:
            raise KeyError(long)
        return option

    def silence(self) -> None:
        """Let every error from now on be a silent one."""
        self._is_silent = True

    # Checks

    def check(self, stage: str) -> None:
        """Check the options of one stage: rules first, then values. Raises CommandLineError for the first misfit."""
        for block in self._table.stages[stage]:
            rightmost = -1
            for long in block:
                position = self._line.position(long)
                if position > rightmost:
                    rightmost = position
                    self._check_option(self._option(long), self._line.occurrences[position].values)

    def _check_option(self, option: Option, values: Sequence[str]) -> None:
        if breach := next(self._breaches(option), ""):
            raise self.error(breach)
        try:
            for value, text in zip(option.values, values, strict=True):
                _check_value(option, value, text)
        except CommandLineError as error:
            raise self.error(str(error)) from error

    def _breaches(self, option: Option) -> Iterator[str]:
        for rule in option.rules:
            is_met = any(other in self._effective for other in rule.others)
            if isinstance(rule, NotWith) and is_met:
                yield f"{option.long} not allowed with {alternatives(rule.others)}"
            if isinstance(rule, OnlyWith) and not is_met:
                yield f"{option.long} only allowed with {alternatives(rule.others)}"

    def error(self, message: str) -> CommandLineError:
        """Return an error about the command line, silent if the program is by now."""
        return CommandLineError(message, is_shown=not self._is_silent)

    def port(self) -> int:
        """Return the port parameter. Raises CommandLineError when it is missing or out of range."""
        try:
            if not self._line.parameters:
                raise missing_port()
            return port_number(self._line.parameters[0])
        except CommandLineError as error:
            raise self.error(str(error)) from error

    # Values

    def has(self, long: str) -> bool:
        """Tell whether an option is in effect: it was given, and no other of its block stands to its right."""
        return long in self._effective and self._line.has(long)

    def choice(self, kinds: Mapping[str, Kind], default: Kind) -> Kind:
        """Return what belongs to the option in effect, by long names; the default when none of them was given."""
        return next((kind for long, kind in kinds.items() if self.has(long)), default)

    def values(self, long: str) -> tuple[str, ...] | None:
        """Return the values of the rightmost occurrence of an option; None when it is not in effect."""
        if not self.has(long):
            return None
        return self._line.occurrences[self._line.position(long)].values

    def text(self, long: str) -> str | None:
        """Return the only value of an option as it stands; None when it is not in effect."""
        values = self.values(long)
        return None if values is None else values[0]

    def texts(self, long: str) -> tuple[str, ...]:
        """Return the value of every occurrence of an option that repeats."""
        return tuple(found.values[0] for found in self._line.occurrences if found.option.long == long)

    def integers(self, long: str) -> tuple[int, ...] | None:
        """Return the values of an option of integers; None when it is not in effect."""
        values = self.values(long)
        if values is None:
            return None
        option = self._option(long)
        allowed = [value.integers or Integers() for value in option.values]
        return tuple(option_integer(option, *pair) for pair in zip(values, allowed, strict=True))

    def integer(self, long: str) -> int | None:
        """Return the only value of an option of one integer; None when it is not in effect."""
        values = self.integers(long)
        return None if values is None else values[0]


def _check_value(option: Option, value: Value, text: str) -> None:
    if value.integers is not None:
        option_integer(option, text, value.integers)
    elif value.words and text.lower() not in value.words:
        raise CommandLineError(
            f"Invalid value for option {option.long} ({text}): use {alternatives(value.words)}"
        )
