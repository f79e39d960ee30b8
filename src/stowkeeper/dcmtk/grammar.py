"""The rules by which DCMTK's programs read their command line, and the tables they read it by.

An `OptionTable` says once what a program takes. The parser here, the checks (`evaluation.py`), the help text and the
page of the documents (`usage.py`) all come from it, so none can say what another does not do.

The rules: a token of two characters or more is an option when it begins with `+` or `-` and its second character is no
digit. Options match whole, in short or long form, and take a fixed number of the tokens behind them as they are.
Everything else is a parameter, of which there is one, the port; options and port stand in any order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stowkeeper.dcmtk.command_files import CommandFileError, expand, read_command_file

MASK: Final = "***"
"""What stands for a password wherever a command line is shown."""


class CommandLineError(ValueError):
    """A command line that cannot be used; the text says why, as the program prints it behind `error: `.

    `is_shown` is False for what was found after the log level, or the super server's socket in place of a terminal,
    had silenced the program: it then ends with its exit code alone.
    """

    def __init__(self, message: str, *, is_shown: bool = True) -> None:
        super().__init__(message)
        self.is_shown = is_shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Integers:
    """Which integers a value may be, both ends included; without a sign unless `signed`."""

    minimum: int = 0
    maximum: int | None = None
    signed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One token that belongs to an option: a text, one of some words, or an integer.

    `label` is its name with the letter that the help text uses for it in brackets. `default` is for people: what counts
    when the option is not given. `words` are compared without regard to case.
    """

    label: str
    integers: Integers | None = None
    words: tuple[str, ...] = ()
    default: str = ""
    is_secret: bool = False

    @property
    def kind(self) -> str:
        """Name the kind of value, as the help text does."""
        if self.integers is not None:
            return "integer"
        return "string constant" if self.words else "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotWith:
    """A rule of an option: it must not stand beside any of these while they are in effect.

    The names are long forms, in the order in which the message gives them.
    """

    others: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlyWith:
    """A rule of an option: it needs one of these in effect, be it by default."""

    others: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: its names, the tokens it takes, what it means, and its rules in the order they are looked at.

    `is_default` marks the member of an exclusive block that is in effect when none is given; `repeats` an option all
    of whose occurrences count; `is_exclusive` one that is answered at once, whatever else is there.
    """

    long: str
    short: str = ""
    values: tuple[Value, ...] = ()
    meaning: str
    rules: tuple[NotWith | OnlyWith, ...] = ()
    is_default: bool = False
    repeats: bool = False
    is_exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Options that the help text shows together; the title may be empty."""

    title: str = ""
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A chapter of the help text."""

    title: str
    groups: tuple[Group, ...]


Block = tuple[str, ...]
"""Long names of options that exclude each other, in the order they are looked at; mostly it is a single one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionTable:
    """All that a program takes: its options in the order of the help text, and the order in which they are checked.

    `stages` are named steps of the evaluation. Of several errors the one that comes first there is reported.
    `unavailable` are names of options that this machine cannot offer, each with the reason.
    """

    tool: str
    title: str
    port_meaning: str
    is_port_required: bool
    sections: tuple[Section, ...]
    stages: Mapping[str, tuple[Block, ...]]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    _by_name: Mapping[str, Option] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = {name: option for option in self.options() for name in (option.long, option.short) if name}
        object.__setattr__(self, "_by_name", names)

    def options(self) -> tuple[Option, ...]:
        """Return every option, in the order of the help text."""
        return tuple(
            option for section in self.sections for group in section.groups for option in group.options
        )

    def find(self, name: str) -> Option | None:
        """Return the option of a short or long name, or None when there is none."""
        return self._by_name.get(name)

    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks of all stages, in the order in which they are checked."""
        return tuple(block for stage in self.stages.values() for block in stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """An option as it stands on a command line, with the tokens it took."""

    option: Option
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A command line that fits the table of a tool: known options with all their values, and the parameters.

    `shown` are its tokens in order, options in long form, passwords masked: for `--arguments`.
    """

    tool: str
    occurrences: tuple[Occurrence, ...]
    parameters: tuple[str, ...]
    shown: tuple[str, ...]
    _positions: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        positions = {found.option.long: place for place, found in enumerate(self.occurrences)}
        object.__setattr__(self, "_positions", positions)

    def position(self, long: str) -> int:
        """Return the place among all options of the rightmost occurrence of one, -1 without any."""
        return self._positions.get(long, -1)

    def has(self, long: str) -> bool:
        """Tell whether an option was given at all."""
        return self.position(long) >= 0

    @property
    def exclusive(self) -> Option | None:
        """Return the option that is answered at once; help comes first, then the version."""
        given = [found.option for found in self.occurrences if found.option.is_exclusive]
        return min(given, key=_exclusive_rank) if given else None


def _exclusive_rank(option: Option) -> int:
    return {"--help": 0, "--version": 1}.get(option.long, 2)


def is_option(token: str) -> bool:
    """Tell whether a token reads as an option: `-x` and `+x` do, `-5`, `-` and `+` do not."""
    return len(token) >= 2 and token[0] in "+-" and token[1] not in "0123456789"


def parse(
    table: OptionTable,
    arguments: Sequence[str],
    read: Callable[[str], str] = read_command_file,
) -> CommandLine:
    """Read a command line, the program's name left out; `read` returns the text of a command file.

    Only the form is checked here: names, the number of values, the number of parameters. Beside an exclusive option any
    number of parameters is right, and so is a command line with nothing in it, which asks for help. Raises
    CommandLineError for the first thing that is wrong.
    """
    try:
        tokens = expand(arguments, read)
    except CommandFileError as error:
        raise CommandLineError(str(error)) from error
    command_line = _take_apart(table, tokens)
    if tokens and command_line.exclusive is None:
        if table.is_port_required and not command_line.parameters:
            raise missing_port()
        if len(command_line.parameters) > 1:
            raise CommandLineError("Too many parameters")
    return command_line


def missing_port() -> CommandLineError:
    """Return the error for a command line without a port."""
    return CommandLineError("Missing parameter port")


def _take_apart(table: OptionTable, tokens: Sequence[str]) -> CommandLine:
    occurrences: list[Occurrence] = []
    parameters: list[str] = []
    shown: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if not is_option(token):
            parameters.append(token)
            shown.append(token)
            continue
        option = table.find(token)
        if option is None:
            reason = table.unavailable.get(token)
            raise CommandLineError(
                f"Unknown option {token}: {reason}" if reason else f"Unknown option {token}"
            )
        values = tuple(tokens[at : at + len(option.values)])
        if len(values) < len(option.values):
            raise CommandLineError(f"Missing value for option {option.long}")
        at += len(values)
        occurrences.append(Occurrence(option=option, values=values))
        shown.append(option.long)
        shown += [
            MASK if value.is_secret else text for value, text in zip(option.values, values, strict=True)
        ]
    return CommandLine(
        tool=table.tool,
        occurrences=tuple(occurrences),
        parameters=tuple(parameters),
        shown=tuple(shown),
    )
